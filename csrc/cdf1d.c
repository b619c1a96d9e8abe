/* One-dimensional distributions as histograms: see cdf1d.h. */
#ifndef real
#include "cdf1d.h"

void pf_fixed_weights(int64_t *fixed, const double *weight, ptrdiff_t n)
{
    double sum = 0, most = 0;
    for (ptrdiff_t i = 0; i < n; i++) most = PF_MAX(most, weight[i]);
    for (ptrdiff_t i = 0; i < n; i++) sum += weight[i] / most;
    for (ptrdiff_t i = 0; i < n; i++) fixed[i] = llrint(weight[i] / most / sum * 0x1p52);
}

double pf_cdf1d_scores(double *score, const int64_t *count, const pf_grid *grid)
{
    int64_t total = 0, below = 0;
    ptrdiff_t occupied = 0;
    for (ptrdiff_t b = 0; b < grid->bins; b++) total += count[b], occupied += count[b] != 0;
    double inv = 1 / (double)PF_MAX(total, 1), distance = 0;
    /* at the ends F is 0 and 1; a quarter of an average bin's mass inside stands for them */
    double end = 0.25 / (double)PF_MAX(occupied, 1);
    double z = pf_normal_quantile(PF_MIN(end, 0.25));
    score[0] = z;
    for (ptrdiff_t b = 0; b < grid->bins; b++) {
        if (count[b]) {
            below += count[b];
            double f = (double)below * inv, g = (double)(total - below) * inv; /* g = 1 - f, without cancellation */
            z = f < 0.5 ? pf_normal_quantile(f) : -pf_normal_quantile(PF_MAX(g, end * inv));
            if (below == total) z = -pf_normal_quantile(PF_MIN(end, 0.25));
            double r = grid->lo + ((double)b + 0.5) * grid->width - 0.5 * (score[b] + z);
            distance += (double)count[b] * r * r;
        }
        score[b + 1] = z;
    }
    return distance * inv;
}

/* Quantiles of a histogram, at levels that ascend: how far the walk along its bins has come. Where no mass lies between
 * two bins, a level between theirs has the end of the first and the start of the second. */
typedef struct {
    const int64_t *count;
    const pf_grid *grid;
    ptrdiff_t bin;
    int64_t below, total; /* counts before the bin; all */
} walk;

static walk walk_start(const int64_t *count, const pf_grid *grid)
{
    walk w = {.count = count, .grid = grid};
    for (ptrdiff_t b = 0; b < grid->bins; b++) w.total += count[b];
    while (w.bin < grid->bins - 1 && !count[w.bin]) w.bin++;
    return w;
}

/* The quantile at a level that was rounded: from below the end of a bin, from above the start of the next one. */
static double walk_to(walk *w, double level, int from_above)
{
    double mass = level * (double)w->total, enough = mass * (from_above ? 1 + 1e-14 : 1 - 1e-14);
    for (; w->bin < w->grid->bins - 1; w->below += w->count[w->bin++]) {
        double end = (double)(w->below + w->count[w->bin]);
        if (end > enough || (end == enough && !from_above)) break;
    }
    double part = (mass - (double)w->below) / (double)PF_MAX(w->count[w->bin], 1);
    return w->grid->lo + w->grid->width * ((double)w->bin + PF_MIN(PF_MAX(part, 0), 1));
}

double pf_cdf1d_match(double *to, const int64_t *count, const pf_grid *grid, const int64_t *other,
                      const pf_grid *other_grid)
{
    walk w = walk_start(other, other_grid);
    int64_t total = 0, below = 0;
    for (ptrdiff_t b = 0; b < grid->bins; b++) total += count[b];
    if (!total || !w.total) {
        for (ptrdiff_t b = 0; b <= grid->bins; b++) to[b] = grid->lo + (double)b * grid->width;
        return 0;
    }
    double inv = 1 / (double)total, distance = 0;
    to[0] = walk_to(&w, 0, 0);
    for (ptrdiff_t b = 0; b < grid->bins; b++) {
        to[b + 1] = to[b];
        if (!count[b]) continue;
        if (b && !count[b - 1]) to[b] = walk_to(&w, (double)below * inv, 1);
        below += count[b];
        to[b + 1] = walk_to(&w, (double)below * inv, 0);
        double r = grid->lo + ((double)b + 0.5) * grid->width - 0.5 * (to[b] + to[b + 1]);
        distance += (double)count[b] * r * r;
    }
    return distance * inv;
}

pf_moments pf_cdf1d_moments(const int64_t *count, const pf_grid *grid)
{
    pf_moments m = {0};
    double sum = 0, square = 0;
    for (ptrdiff_t b = 0; b < grid->bins; b++) {
        double x = (double)b + 0.5;
        m.total += count[b];
        sum += (double)count[b] * x;
        square += (double)count[b] * x * x;
    }
    double inv = 1 / (double)PF_MAX(m.total, 1), mean = sum * inv;
    m.mean = grid->lo + grid->width * mean;
    m.sd = grid->width * sqrt(PF_MAX(square * inv - mean * mean, 1. / 12));
    int64_t below = 0;
    for (ptrdiff_t b = 0; b < grid->bins; b++) {
        double x = grid->lo + grid->width * ((double)b + 0.5);
        if (4 * (__int128)below <= m.total) m.lower = x;
        if (4 * (__int128)below <= 3 * (__int128)m.total) m.upper = x;
        below += count[b];
    }
    return m;
}

/* ---- from a histogram to a spline ------------------------------------------------------------------------- */

typedef struct {
    const int64_t *count;
    const double *below;     /* [bins + 1]: mass below each edge, a fraction */
    const double *pdf, *cdf; /* [reach + 1]: the kernel and its integral at whole bins; NULL: no smoothing */
    ptrdiff_t bins, reach;
    double total, width;
} smooth;

/* F, 1 - F and the density at the centre of bin b, smoothed */
static void smoothed(double *f, double *g, double *density, const smooth *s, ptrdiff_t b)
{
    if (!s->pdf) {
        *f = 0.5 * (s->below[b] + s->below[b + 1]);
        *g = 1 - *f;
        *density = (double)s->count[b] / s->total / s->width;
        return;
    }
    ptrdiff_t first = PF_MAX(b - s->reach, 0), last = PF_MIN(b + s->reach, s->bins - 1);
    double sum = 0, lower = 0, upper = 0;
    for (ptrdiff_t c = first; c < b;
         c++) { /* mass to the left: the part of its kernel that lies right of b is 1 - cdf */
        double mass = (double)s->count[c];
        sum += mass * s->pdf[b - c];
        lower += mass * s->cdf[b - c];
        upper += mass * (1 - s->cdf[b - c]);
    }
    for (ptrdiff_t c = b; c <= last; c++) {
        double mass = (double)s->count[c];
        sum += mass * s->pdf[c - b];
        lower += mass * (1 - s->cdf[c - b]);
        upper += mass * s->cdf[c - b];
    }
    *f = s->below[first] + lower / s->total;
    *g = 1 - s->below[last + 1] + upper / s->total;
    *density = sum / s->total;
}

static double score_of(double f, double g, double scale)
{
    return scale * (f < g ? pf_normal_quantile(PF_MAX(f, 1e-300)) : -pf_normal_quantile(PF_MAX(g, 1e-300)));
}

/* Quantile levels: m - 2 edge evenly spaced ones, and edge more in each of the two gaps at the ends. */
static double level(ptrdiff_t j, ptrdiff_t m, ptrdiff_t edge)
{
    double start = 1. / (double)(m - 2 * edge + 1);
    if (j < edge) return start * (double)(j + 1) / (double)(edge + 1);
    if (j >= m - edge) return 1 - start * (double)(m - j) / (double)(edge + 1);
    return start * (double)(j - edge + 1);
}

/* The slope of the tail beyond knot at bin b: regression of the scores there through the knot. */
static double tail_slope(const smooth *s, ptrdiff_t b, double y, double scale, int direction)
{
    double xy = 0, xx = 0;
    ptrdiff_t end = direction < 0 ? -1 : s->bins;
    for (ptrdiff_t c = b + direction; c != end; c += direction) {
        if (!s->count[c]) continue;
        double f, g, density, dx = (double)(c - b) * s->width, mass = (double)s->count[c];
        smoothed(&f, &g, &density, s, c);
        xy += mass * dx * (score_of(f, g, scale) - y);
        xx += mass * dx * dx;
    }
    return xx > 0 && xy > 0 ? xy / xx : 1;
}

/* Slopes between the ends, each of the parabola through three knots */
static void parabolas(double *d, const double *x, const double *y, ptrdiff_t m)
{
    for (ptrdiff_t j = 1; j < m - 1; j++) {
        double h0 = x[j] - x[j - 1], h1 = x[j + 1] - x[j];
        d[j] = ((y[j] - y[j - 1]) / h0 * h1 + (y[j + 1] - y[j]) / h1 * h0) / (h0 + h1);
    }
}

void pf_cdf1d_fit(double *knots, const int64_t *count, const pf_grid *grid, const pf_knots *o, double *work)
{
    ptrdiff_t bins = grid->bins, m = o->m;
    double *x = knots, *y = x + m, *d = y + m;
    double *below = work, *pdf = work + bins + 1, *cdf = pdf + bins;
    pf_moments moments = pf_cdf1d_moments(count, grid);
    double quartiles = (moments.upper - moments.lower) / 1.3489795;
    double sigma = quartiles > 0 ? PF_MIN(moments.sd, quartiles) : moments.sd;
    double h = o->bandwidth * sigma / grid->width; /* in bins */
    double widened = o->bandwidth * sigma / moments.sd;
    double scale = o->kde ? sqrt(1 + widened * widened) : 1; /* the target, N(0, 1), smoothed alike */
    smooth s = {.count = count, .below = below, .bins = bins, .total = (double)moments.total, .width = grid->width};
    if (o->kde) {
        s.reach = PF_MIN((ptrdiff_t)ceil(6 * h), bins - 1);
        for (ptrdiff_t t = 0; t <= s.reach; t++) {
            pdf[t] = pf_normal_pdf((double)t / h) / (h * grid->width);
            cdf[t] = pf_normal_cdf((double)t / h);
        }
        s.pdf = pdf, s.cdf = cdf;
    }
    below[0] = 0;
    for (ptrdiff_t b = 0, sum = 0; b < bins; b++) sum += count[b], below[b + 1] = (double)sum / s.total;

    /* knots at bin centres: x holds bin numbers for now, made to increase by at least one bin */
    ptrdiff_t b = 0;
    for (ptrdiff_t j = 0; j < m; j++) {
        double q = level(j, m, o->edge);
        while (b < bins - 1 && below[b + 1] < q) b++;
        x[j] = (double)(j ? PF_MAX(b, (ptrdiff_t)x[j - 1] + 1) : b);
    }
    for (ptrdiff_t j = m - 1, most = bins - 1; j >= 0 && x[j] > (double)most; j--, most--) x[j] = (double)most;

    for (ptrdiff_t j = 0; j < m; j++) {
        double f, g, density;
        smoothed(&f, &g, &density, &s, (ptrdiff_t)x[j]);
        y[j] = score_of(f, g, scale);
        d[j] = density * scale / pf_normal_pdf(y[j] / scale);
    }
    double first = tail_slope(&s, (ptrdiff_t)x[0], y[0], scale, -1);
    double last = tail_slope(&s, (ptrdiff_t)x[m - 1], y[m - 1], scale, 1);

    /* where there is next to no mass the map must still rise */
    const double least = 1e-3, most = 1e3;
    for (ptrdiff_t j = 0; j < m; j++) {
        x[j] = grid->lo + grid->width * (x[j] + 0.5);
        if (j) y[j] = PF_MAX(y[j], y[j - 1] + least * (x[j] - x[j - 1]) / sigma);
    }
    if (!o->kde) parabolas(d, x, y, m);
    d[0] = first, d[m - 1] = last;
    for (ptrdiff_t j = 0; j < m; j++) {
        double a = o->alpha[j == 0 || j == m - 1];
        d[j] = (1 - a) * PF_MIN(PF_MAX(d[j], least / sigma), most / sigma) + a;
        y[j] = (1 - o->alpha[0]) * y[j] + o->alpha[0] * x[j];
    }
}

void pf_cdf1d_fit_match(double *knots, const int64_t *count, const pf_grid *grid, const int64_t *other,
                        const pf_grid *other_grid, const pf_knots *o)
{
    const double least = 1e-4; /* slope of the map, and of its inverse: of equal numbers no more can be said */
    ptrdiff_t m = o->m;
    double *x = knots, *y = x + m, *d = y + m;
    walk from = walk_start(count, grid), to = walk_start(other, other_grid);
    for (ptrdiff_t j = 0; j < m; j++) {
        double q = level(j, m, o->edge);
        x[j] = walk_to(&from, q, 0), y[j] = walk_to(&to, q, 0);
    }
    for (ptrdiff_t j = 1; j < m; j++) {
        x[j] = PF_MAX(x[j], x[j - 1] + least * PF_MAX(y[j] - y[j - 1], least * other_grid->width));
        y[j] = PF_MAX(y[j], y[j - 1] + least * (x[j] - x[j - 1]));
    }
    parabolas(d, x, y, m);
    d[0] = d[m - 1] = 1;
    for (ptrdiff_t j = 0; j < m; j++) {
        double a = o->alpha[j == 0 || j == m - 1];
        d[j] = (1 - a) * d[j] + a;
        y[j] = (1 - o->alpha[0]) * y[j] + o->alpha[0] * x[j];
    }
}

#define TWICE "cdf1d.c"
#include "twice.h"
#else

PF_KERNEL void X(bin_of_body)(int32_t *restrict bin, const real *restrict v, real lo, real inv_width, real top,
                              ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        real u = (v[i] - lo) * inv_width;
        u = u > 0 ? u : 0;
        u = u < top ? u : top;
        bin[i] = (int32_t)u;
    }
}
PF_DISPATCH(X(bin_of), (int32_t * bin, const real *v, real lo, real inv_width, real top, ptrdiff_t n),
            (bin, v, lo, inv_width, top, n))

void X(cdf1d_count)(int64_t *count, const real *v, const int64_t *weight, const int32_t *label, ptrdiff_t stride,
                    const pf_grid *grid, ptrdiff_t n)
{
    int32_t bin[256];
    for (ptrdiff_t start = 0; start < n; start += 256) {
        ptrdiff_t m = PF_MIN(n - start, 256);
        X(bin_of)(bin, v + start, (real)grid->lo, (real)(1 / grid->width), (real)(grid->bins - 1), m);
        for (ptrdiff_t i = 0; i < m; i++)
            count[(label ? label[start + i] * stride : 0) + bin[i]] += weight ? weight[start + i] : 1;
    }
}

PF_KERNEL void X(cdf1d_sums_body)(double *restrict sums, const real *restrict v, const double *restrict w, ptrdiff_t n)
{
    enum { LANES = 4, CHAINS = 4 }; /* CHAINS hide the additions' latency */
    typedef real numbers __attribute__((vector_size(LANES * sizeof(real))));
    typedef double lanes __attribute__((vector_size(LANES * sizeof(double))));
    lanes sum[CHAINS] = {{0}}, square[CHAINS] = {{0}};
    for (ptrdiff_t i = 0; i < n; i += LANES * CHAINS)
        for (int c = 0; c < CHAINS; c++) {
            numbers x;
            lanes weight;
            memcpy(&x, v + i + LANES * c, sizeof x);
            memcpy(&weight, w + i + LANES * c, sizeof weight);
            lanes y = __builtin_convertvector(x, lanes), wy = weight * y;
            sum[c] += wy;
            square[c] += wy * y;
        }
    for (int c = 0; c < CHAINS; c++)
        for (int l = 0; l < LANES; l++) sums[0] += sum[c][l], sums[1] += square[c][l];
}
PF_DISPATCH(X(cdf1d_sums), (double *sums, const real *v, const double *w, ptrdiff_t n), (sums, v, w, n))

/* Two short loops, because one does not vectorise: compilers split it at the clamps. */
PF_KERNEL void X(cdf1d_residual_body)(real *restrict r, const real *restrict v, const real *restrict score,
                                      const pf_grid *grid, ptrdiff_t n)
{
    enum { CHUNK = 128 };
    real lo = (real)grid->lo, inv_width = (real)(1 / grid->width), top = (real)(grid->bins - 1);
    const real *restrict left = score, *restrict right = score + 1;
    int32_t bin[CHUNK];
    real part[CHUNK]; /* of the way through the bin */
    for (ptrdiff_t start = 0; start < n; start += CHUNK) {
        ptrdiff_t m = PF_MIN(n - start, CHUNK);
        for (ptrdiff_t i = 0; i < m; i++) {
            real u = (v[start + i] - lo) * inv_width;
            real c = u > 0 ? u : 0;
            c = c < top ? c : top;
            bin[i] = (int32_t)c;
            part[i] = u;
        }
        for (ptrdiff_t i = 0; i < m; i++) {
            real t = part[i] - (real)bin[i];
            t = t > 0 ? t : 0;
            t = t < 1 ? t : 1;
            r[start + i] = v[start + i] - (left[bin[i]] + t * (right[bin[i]] - left[bin[i]]));
        }
    }
}
PF_DISPATCH(X(cdf1d_residual), (real * r, const real *v, const real *score, const pf_grid *grid, ptrdiff_t n),
            (r, v, score, grid, n))
#endif
