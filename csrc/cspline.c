/* Cubic spline with free knots: see cspline.h. */
#include "cspline.h"

/* exp(x) = 2^k exp(r), |r| <= log(2) / 2, the second by its Taylor series */
PF_KERNEL void pf_exp_body(double *y, const double *x, ptrdiff_t n)
{
    const double shift = 0x1.8p52; /* adding it rounds to an integer, which then stands in the last bits */
#pragma GCC ivdep                  /* y may be x */
    for (ptrdiff_t i = 0; i < n; i++) {
        double a = x[i] < -700 ? -700 : x[i] > 700 ? 700 : x[i], k = a * M_LOG2E + shift;
        uint64_t bits;
        memcpy(&bits, &k, 8);
        k -= shift;
        double r = a - k * 0x1.62e42fefa3800p-1 - k * 0x1.ef35793c76730p-45;
        double e = 1. / 6227020800;
        e = e * r + 1. / 479001600;
        e = e * r + 1. / 39916800;
        e = e * r + 1. / 3628800;
        e = e * r + 1. / 362880;
        e = e * r + 1. / 40320;
        e = e * r + 1. / 5040;
        e = e * r + 1. / 720;
        e = e * r + 1. / 120;
        e = e * r + 1. / 24;
        e = e * r + 1. / 6;
        e = e * r + 0.5;
        e = 1 + r + r * r * e;
        bits = (bits + 1023) << 52;
        double power;
        memcpy(&power, &bits, 8);
        y[i] = e * power;
    }
}
PF_DISPATCH(pf_exp, (double *y, const double *x, ptrdiff_t n), (y, x, n))

/* ---- ascending numbers ------------------------------------------------------------------------------------ */

void pf_increasing(double *p, const double *a, ptrdiff_t m)
{
    p[0] = a[0];
    for (ptrdiff_t j = 1; j < m; j++) p[j] = p[j - 1] + exp(PF_MIN(PF_MAX(a[j], -PF_LOG_MOST), PF_LOG_MOST));
}

void pf_increasing_inverse(double *a, const double *p, ptrdiff_t m)
{
    for (ptrdiff_t j = m - 1; j > 0; j--) a[j] = log(p[j] - p[j - 1]);
    a[0] = p[0];
}

/* dp_i/da_j = p_j - p_(j-1) for i >= j */
void pf_increasing_vjp(double *ga, const double *gp, const double *p, ptrdiff_t m)
{
    double after = 0;
    for (ptrdiff_t j = m - 1; j > 0; j--) {
        after += gp[j];
        ga[j] += after * (p[j] - p[j - 1]);
    }
    ga[0] += after + gp[0];
}

/* ---- the spline
 * ------------------------------------------------------------------------------------------------------- Between knots
 * j and j + 1, w = p_(j+1) - p_j, t = (x - p_j) / w, chord c_j = (v_(j+1) - v_j) / w, slopes m_j: s = v_j + w (m_j t +
 * (3 c_j - 2 m_j - m_(j+1)) t^2 + (m_j + m_(j+1) - 2 c_j) t^3) */

static double chord(const double *p, const double *v, ptrdiff_t j) { return (v[j + 1] - v[j]) / (p[j + 1] - p[j]); }

static double slope(const double *p, const double *v, ptrdiff_t j, ptrdiff_t m)
{
    if (j == 0) return chord(p, v, 0);
    if (j == m - 1) return chord(p, v, m - 2);
    double left = p[j] - p[j - 1], right = p[j + 1] - p[j];
    return (chord(p, v, j - 1) * right + chord(p, v, j) * left) / (left + right);
}

void pf_cspline(double *y, const double *x, const double *p, const double *v, ptrdiff_t m, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i < n && x[i] < p[0]; i++) y[i] = v[0];
    double left = slope(p, v, 0, m);
    for (ptrdiff_t j = 0; j < m - 1 && i < n; j++) {
        double w = p[j + 1] - p[j], right = slope(p, v, j + 1, m), c = chord(p, v, j);
        double a = w * left, b = w * (3 * c - 2 * left - right), d = w * (left + right - 2 * c);
        for (; i < n && x[i] < p[j + 1]; i++) {
            double t = (x[i] - p[j]) / w;
            y[i] = v[j] + t * (a + t * (b + t * d));
        }
        left = right;
    }
    for (; i < n; i++) y[i] = v[m - 1];
}

/* A gradient with respect to slope m_j, spread over the knots that made it. */
static void chord_vjp(double *gp, double *gv, double g, const double *p, const double *v, ptrdiff_t j)
{
    double w = p[j + 1] - p[j], gw = -g * chord(p, v, j) / w;
    gv[j + 1] += g / w;
    gv[j] -= g / w;
    gp[j + 1] += gw;
    gp[j] -= gw;
}

static void slope_vjp(double *gp, double *gv, double g, const double *p, const double *v, ptrdiff_t j, ptrdiff_t m)
{
    if (j == 0 || j == m - 1) {
        chord_vjp(gp, gv, g, p, v, j ? m - 2 : 0);
        return;
    }
    double left = p[j] - p[j - 1], right = p[j + 1] - p[j], sum = left + right;
    double difference = chord(p, v, j - 1) - chord(p, v, j);
    chord_vjp(gp, gv, g * right / sum, p, v, j - 1);
    chord_vjp(gp, gv, g * left / sum, p, v, j);
    double gleft = -g * difference * right / (sum * sum), gright = g * difference * left / (sum * sum);
    gp[j] += gleft - gright;
    gp[j - 1] -= gleft;
    gp[j + 1] += gright;
}

void pf_cspline_vjp(double *gp, double *gv, const double *gy, const double *x, const double *p, const double *v,
                    ptrdiff_t m, ptrdiff_t n)
{
    ptrdiff_t i = 0;
    for (; i < n && x[i] < p[0]; i++) gv[0] += gy[i];
    double left = slope(p, v, 0, m);
    for (ptrdiff_t j = 0; j < m - 1 && i < n; j++) {
        double w = p[j + 1] - p[j], right = slope(p, v, j + 1, m), c = chord(p, v, j);
        double a = left, b = 3 * c - 2 * left - right, d = left + right - 2 * c; /* s = v_j + w q(t) */
        double g0 = 0, g1 = 0, g2 = 0, g3 = 0, gt = 0, gtt = 0;
        for (; i < n && x[i] < p[j + 1]; i++) {
            double t = (x[i] - p[j]) / w, g = gy[i], s = g * (a + t * (2 * b + 3 * t * d));
            g0 += g;
            g1 += g * t;
            g2 += g * t * t;
            g3 += g * t * t * t;
            gt += s; /* dq/dt; x is fixed: dt/dp_j = -1 / w, dt/dw = -t / w */
            gtt += s * t;
        }
        double gw = g1 * a + g2 * b + g3 * d - gtt;
        gv[j] += g0;
        gp[j + 1] += gw;
        gp[j] -= gw + gt;
        slope_vjp(gp, gv, w * (g1 - 2 * g2 + g3), p, v, j, m);
        slope_vjp(gp, gv, w * (g3 - g2), p, v, j + 1, m);
        chord_vjp(gp, gv, w * (3 * g2 - 2 * g3), p, v, j);
        left = right;
    }
    for (; i < n; i++) gv[m - 1] += gy[i];
}

/* ---- four at once, a lane each: t, and what positions cost to divide by, serve all of them ---------------------- */

#define LANES for (int l = 0; l < 4; l++)

/* chords c[m - 1][4], slopes s[m][4] */
PF_KERNEL void slopes4(double (*restrict s)[4], double (*restrict c)[4], const double *p, const double (*v)[4],
                       ptrdiff_t m)
{
    for (ptrdiff_t j = 0; j < m - 1; j++) {
        double by = 1 / (p[j + 1] - p[j]);
        LANES c[j][l] = (v[j + 1][l] - v[j][l]) * by;
    }
    LANES s[0][l] = c[0][l];
    LANES s[m - 1][l] = c[m - 2][l];
    for (ptrdiff_t j = 1; j < m - 1; j++) {
        double left = p[j] - p[j - 1], right = p[j + 1] - p[j], by = 1 / (left + right);
        LANES s[j][l] = (c[j - 1][l] * right + c[j][l] * left) * by;
    }
}

PF_KERNEL void pf_cspline4_body(double *out, const double *x, const double *p, const double *values, ptrdiff_t m,
                                ptrdiff_t n, double *room)
{
    double(*restrict y)[4] = (double(*)[4])out, (*s)[4] = (double(*)[4])room, (*c)[4] = s + m;
    const double(*v)[4] = (const double(*)[4])values;
    slopes4(s, c, p, v, m);
    ptrdiff_t i = 0;
    for (; i < n && x[i] < p[0]; i++) LANES y[i][l] = v[0][l];
    for (ptrdiff_t j = 0; j < m - 1 && i < n; j++) {
        double w = p[j + 1] - p[j], by = 1 / w, a[4], b[4], d[4], at[4];
        LANES a[l] = w * s[j][l];
        LANES b[l] = w * (3 * c[j][l] - 2 * s[j][l] - s[j + 1][l]);
        LANES d[l] = w * (s[j][l] + s[j + 1][l] - 2 * c[j][l]);
        LANES at[l] = v[j][l];
        for (; i < n && x[i] < p[j + 1]; i++) {
            double t = (x[i] - p[j]) * by;
            LANES y[i][l] = at[l] + t * (a[l] + t * (b[l] + t * d[l]));
        }
    }
    for (; i < n; i++) LANES y[i][l] = v[m - 1][l];
}
PF_DISPATCH(pf_cspline4,
            (double *y, const double *x, const double *p, const double *v, ptrdiff_t m, ptrdiff_t n, double *room),
            (y, x, p, v, m, n, room))

/* Gradients of slopes, chords and widths w are gathered first, and carried to the knots at the end. */
PF_KERNEL void pf_cspline4_vjp_body(double *gp, double *gvalues, const double *gout, const double *x, const double *p,
                                    const double *values, ptrdiff_t m, ptrdiff_t n, double *room)
{
    double(*s)[4] = (double(*)[4])room, (*c)[4] = s + m, (*restrict gs)[4] = c + m, (*restrict gc)[4] = gs + m;
    double *restrict gw = (double *)(gc + m), (*restrict gv)[4] = (double(*)[4])gvalues;
    const double(*v)[4] = (const double(*)[4])values, (*gy)[4] = (const double(*)[4])gout;
    slopes4(s, c, p, v, m);
    memset(gs, 0, (size_t)(9 * m) * sizeof(double)); /* gs, gc, gw */
    ptrdiff_t i = 0;
    for (; i < n && x[i] < p[0]; i++) LANES gv[0][l] += gy[i][l];
    for (ptrdiff_t j = 0; j < m - 1 && i < n; j++) {
        double w = p[j + 1] - p[j], by = 1 / w, a[4], b[4], d[4]; /* as in pf_cspline_vjp, in each lane */
        double g0[4] = {0}, g1[4] = {0}, g2[4] = {0}, g3[4] = {0}, gt[4] = {0}, gtt[4] = {0}, sum[4];
        LANES a[l] = s[j][l];
        LANES b[l] = 3 * c[j][l] - 2 * s[j][l] - s[j + 1][l];
        LANES d[l] = s[j][l] + s[j + 1][l] - 2 * c[j][l];
        for (; i < n && x[i] < p[j + 1]; i++) {
            double t = (x[i] - p[j]) * by, t2 = t * t, t3 = t2 * t;
            LANES g0[l] += gy[i][l];
            LANES g1[l] += gy[i][l] * t;
            LANES g2[l] += gy[i][l] * t2;
            LANES g3[l] += gy[i][l] * t3;
        }
        LANES gt[l] = g0[l] * a[l] + 2 * g1[l] * b[l] + 3 * g2[l] * d[l];
        LANES gtt[l] = g1[l] * a[l] + 2 * g2[l] * b[l] + 3 * g3[l] * d[l];
        LANES sum[l] = g1[l] * a[l] + g2[l] * b[l] + g3[l] * d[l] - gtt[l];
        LANES gv[j][l] += g0[l];
        LANES gs[j][l] += w * (g1[l] - 2 * g2[l] + g3[l]);
        LANES gs[j + 1][l] += w * (g3[l] - g2[l]);
        LANES gc[j][l] += w * (3 * g2[l] - 2 * g3[l]);
        LANES gw[j] += sum[l];
        LANES gp[j] -= gt[l];
    }
    for (; i < n; i++) LANES gv[m - 1][l] += gy[i][l];
    LANES gc[0][l] += gs[0][l];
    LANES gc[m - 2][l] += gs[m - 1][l];
    for (ptrdiff_t j = 1; j < m - 1; j++) {
        double left = p[j] - p[j - 1], right = p[j + 1] - p[j], by = 1 / (left + right);
        LANES gc[j - 1][l] += gs[j][l] * right * by;
        LANES gc[j][l] += gs[j][l] * left * by;
        LANES gw[j - 1] += gs[j][l] * (c[j][l] - s[j][l]) * by;
        LANES gw[j] += gs[j][l] * (c[j - 1][l] - s[j][l]) * by;
    }
    for (ptrdiff_t j = 0; j < m - 1; j++) {
        double by = 1 / (p[j + 1] - p[j]);
        LANES gv[j + 1][l] += gc[j][l] * by;
        LANES gv[j][l] -= gc[j][l] * by;
        LANES gw[j] -= gc[j][l] * c[j][l] * by;
        gp[j + 1] += gw[j];
        gp[j] -= gw[j];
    }
}
PF_DISPATCH(pf_cspline4_vjp,
            (double *gp, double *gv, const double *gy, const double *x, const double *p, const double *v, ptrdiff_t m,
             ptrdiff_t n, double *room),
            (gp, gv, gy, x, p, v, m, n, room))
