/* Fourier filter: see filter.h. */
#ifndef real
#include "filter.h"

/* |k|^2 of every mode of the folded half spectrum (m frequencies 0 .. m - 1 along each axis), as shells. */
typedef struct {
    double k2;
    int32_t mode;
} mode_k2;

static int by_k2(const void *a, const void *b)
{
    const mode_k2 *x = a, *y = b;
    return x->k2 < y->k2 ? -1 : x->k2 > y->k2 ? 1 : (x->mode > y->mode) - (x->mode < y->mode);
}

static ptrdiff_t find_shells(int32_t *shell, double *k, mode_k2 *list, const ptrdiff_t m[3], const double box[3])
{
    ptrdiff_t n = 0;
    for (ptrdiff_t i = 0; i < m[0]; i++)
        for (ptrdiff_t j = 0; j < m[1]; j++)
            for (ptrdiff_t l = 0; l < m[2]; l++, n++) {
                double a = 2 * M_PI * (double)i / box[0], b = 2 * M_PI * (double)j / box[1],
                       c = 2 * M_PI * (double)l / box[2];
                list[n] = (mode_k2){a * a + b * b + c * c, (int32_t)n};
            }
    qsort(list, (size_t)n, sizeof *list, by_k2);
    ptrdiff_t shells = 0;
    double last = -1;
    for (ptrdiff_t i = 0; i < n; i++) {
        if (list[i].k2 > last * (1 + 1e-10) || i == 0) { /* equal |k| differ by rounding */
            last = list[i].k2;
            k[shells++] = sqrt(last);
        }
        shell[list[i].mode] = (int32_t)(shells - 1);
    }
    return shells;
}

/* Shells of equal |k| in parts of equal |k_axis| = step times an index below m[axis]; in order of |k|, then of that. k
 * is spread over the parts; mu2[parts]. */
static ptrdiff_t split_shells(int32_t *shell, double *k, double *mu2, mode_k2 *list, const ptrdiff_t m[3], int axis,
                              double step)
{
    ptrdiff_t n = m[0] * m[1] * m[2], beyond = axis == 0 ? m[1] * m[2] : axis == 1 ? m[2] : 1, parts = n;
    for (ptrdiff_t i = 0; i < n; i++)
        list[i] = (mode_k2){(double)shell[i] * (double)m[axis] + (double)(i / beyond % m[axis]), (int32_t)i};
    qsort(list, (size_t)n, sizeof *list, by_k2);
    for (ptrdiff_t i = 1; i < n; i++) parts -= list[i].k2 == list[i - 1].k2;
    for (ptrdiff_t i = n - 1, part = parts - 1; i >= 0; i--) { /* from the last on: part >= the shell it is of */
        ptrdiff_t of = shell[list[i].mode];
        double along = step * (double)(list[i].mode / beyond % m[axis]);
        shell[list[i].mode] = (int32_t)part;
        if (i && list[i].k2 == list[i - 1].k2) continue;
        k[part] = k[of];
        mu2[part] = k[part] > 0 ? PF_MIN(along * along / (k[part] * k[part]), 1) : 0;
        part--;
    }
    return parts;
}

/* How many of the frequencies 0 .. n - 1 are folded onto frequency i <= n / 2. */
static double folded(ptrdiff_t i, ptrdiff_t n) { return i == 0 || 2 * i == n ? 1 : 2; }

#define TWICE "filter.c"
#include "twice.h"
#else

pf_status X(filter_new)(X(filter) **filter, int ndim, const ptrdiff_t *n, const double *box, int axis)
{
    *filter = NULL;
    for (int i = 0; i < ndim; i++)
        if (!(box[i] > 0) || !isfinite(box[i]))
            return pf_fail(PF_BAD_ARGUMENT, "box_size of axis %d is %g: it must be positive", i, box[i]);
    if (axis >= ndim) return pf_fail(PF_BAD_ARGUMENT, "axis: the mesh has no axis %d, but %d", axis, ndim);
    const X(fft) *fft = X(fft_plan)(ndim, n);
    if (!fft) return PF_BAD_ARGUMENT;
    X(filter) *f = PF_CALLOC(X(filter), 1);
    if (!f) return PF_NO_MEMORY;
    /* 2-D is 3-D with one frequency along the middle axis */
    ptrdiff_t m[3] = {n[0] / 2 + 1, ndim == 3 ? n[1] / 2 + 1 : 1, fft->half}, folded_modes = m[0] * m[1] * m[2];
    double sides[3] = {box[0], ndim == 3 ? box[1] : 1, box[ndim - 1]};
    f->fft = fft;
    f->row = (2 * fft->ld + 15) / 16 * 16; /* each part aligned */
    ptrdiff_t products = fft->shares > 1 ? folded_modes : 0;
    f->work = fft->spectrum + PF_MAX(fft->work, fft->shares * f->row + products);
    f->shell = PF_ALLOC(int32_t, folded_modes);
    f->k = PF_ALLOC(double, folded_modes);
    f->weight = PF_ALLOC(double, fft->half);
    if (axis >= 0) f->mu2 = PF_ALLOC(double, folded_modes);
    mode_k2 *list = PF_ALLOC(mode_k2, folded_modes);
    if (f->shell && f->k && f->weight && list && (axis < 0 || f->mu2)) {
        f->shells = find_shells(f->shell, f->k, list, m, sides);
        int side = ndim == 2 && axis == 1 ? 2 : axis;
        if (axis >= 0) f->shells = split_shells(f->shell, f->k, f->mu2, list, m, side, 2 * M_PI / sides[side]);
        f->modes = PF_CALLOC(double, f->shells);
    }
    free(list);
    if (!f->modes) {
        X(filter_free)(f);
        return PF_NO_MEMORY;
    }
    for (ptrdiff_t l = 0; l < fft->half; l++) f->weight[l] = folded(l, n[ndim - 1]);
    ptrdiff_t at = 0;
    for (ptrdiff_t i = 0; i < m[0]; i++)
        for (ptrdiff_t j = 0; j < m[1]; j++)
            for (ptrdiff_t l = 0; l < m[2]; l++)
                f->modes[f->shell[at++]] += folded(i, n[0]) * (ndim == 3 ? folded(j, n[1]) : 1) * f->weight[l];
    *filter = f;
    return PF_OK;
}

void X(filter_free)(X(filter) *f)
{
    if (!f) return;
    free(f->k);
    free(f->mu2);
    free(f->modes);
    free(f->weight);
    free(f->shell);
    free(f);
}

/* The rows of the half spectrum that share the shells of folded row (i, j): at most 4. Returns how many. */
static int X(rows)(ptrdiff_t rows[4], const X(fft) *fft, ptrdiff_t i, ptrdiff_t j)
{
    ptrdiff_t n0 = fft->n[0], n1 = fft->ndim == 3 ? fft->n[1] : 1;
    ptrdiff_t at0[2] = {i, n0 - i}, at1[2] = {j, n1 - j};
    int count = 0, two0 = i && 2 * i != n0, two1 = j && 2 * j != n1;
    for (int a = 0; a <= two0; a++)
        for (int b = 0; b <= two1; b++) rows[count++] = at0[a] * n1 + at1[b];
    return count;
}

/* y[k] = t[k] x[k] for complex numbers, t given twice for each */
PF_KERNEL void X(scale_row_body)(real *y, const real *x, const real *restrict t, ptrdiff_t n)
{
#pragma GCC ivdep /* y may be x */
    for (ptrdiff_t k = 0; k < n; k++) y[k] = t[k] * x[k];
}
PF_DISPATCH(X(scale_row), (real * y, const real *x, const real *t, ptrdiff_t n), (y, x, t, n))

PF_KERNEL void X(add_row_body)(real *restrict y, const real *restrict x, const real *restrict t, ptrdiff_t n)
{
    for (ptrdiff_t k = 0; k < n; k++) y[k] += t[k] * x[k];
}
PF_DISPATCH(X(add_row), (real * y, const real *x, const real *t, ptrdiff_t n), (y, x, t, n))

/* sum[k] += Re(x*_k y_k) */
PF_KERNEL void X(product_row_body)(real *restrict sum, const real *restrict x, const real *restrict y, ptrdiff_t n)
{
    for (ptrdiff_t k = 0; k < n; k++) sum[k] += x[2 * k] * y[2 * k] + x[2 * k + 1] * y[2 * k + 1];
}
PF_DISPATCH(X(product_row), (real * sum, const real *x, const real *y, ptrdiff_t n), (sum, x, y, n))

/* out[k] = t in[k] (add: +=; NULL: not), shells[s] += scale sum Re(x*_k in_k) over all modes of a shell (NULL: not) */
typedef struct {
    const X(filter) *f;
    real *out, *work; /* row[shares][row], products[folded modes] */
    double *shells, scale;
    const real *in, *x, *t;
    int add;
    ptrdiff_t folded_rows, blocks;
} X(task);

/* sum[k] = the products of the rows that folded row r stands for */
static void X(products)(const X(task) *m, real *sum, const ptrdiff_t *rows, int count)
{
    ptrdiff_t half = m->f->fft->half, ld = 2 * m->f->fft->ld;
    for (ptrdiff_t k = 0; k < half; k++) sum[k] = 0;
    for (int r = 0; r < count; r++) X(product_row)(sum, m->x + rows[r] * ld, m->in + rows[r] * ld, half);
}

/* Sums over shells are made of one row after another, whoever made the products. */
static void X(add_to_shells)(const X(task) *m, ptrdiff_t folded_row, const real *products)
{
    const int32_t *shell = m->f->shell + folded_row * m->f->fft->half;
    for (ptrdiff_t k = 0; k < m->f->fft->half; k++)
        m->shells[shell[k]] += m->scale * m->f->weight[k] * (double)products[k];
}

static void X(some_modes)(void *arg, ptrdiff_t block, int thread)
{
    const X(task) *m = arg;
    const X(fft) *fft = m->f->fft;
    ptrdiff_t half = fft->half, ld = 2 * fft->ld, m1 = fft->ndim == 3 ? fft->n[1] / 2 + 1 : 1, rows[4];
    ptrdiff_t first = block * m->folded_rows / m->blocks, end = (block + 1) * m->folded_rows / m->blocks;
    real *row = m->work + thread * m->f->row, *products = m->work + fft->shares * m->f->row;
    ptrdiff_t i = first / m1, j = first % m1;
    for (ptrdiff_t r = first; r < end; r++) {
        const int32_t *shell = m->f->shell + r * half;
        int count = X(rows)(rows, fft, i, j);
        if (++j == m1) i++, j = 0;
        if (m->shells && m->blocks > 1) X(products)(m, products + r * half, rows, count);
        else if (m->shells) {
            X(products)(m, row, rows, count);
            X(add_to_shells)(m, r, row);
        }
        if (!m->out) continue;
        for (ptrdiff_t k = 0; k < half; k++) row[2 * k] = row[2 * k + 1] = m->t[shell[k]];
        for (ptrdiff_t k = 2 * half; k < ld; k++) row[k] = 0;
        for (int c = 0; c < count; c++)
            (m->add ? X(add_row) : X(scale_row))(m->out + rows[c] * ld, m->in + rows[c] * ld, row, ld);
    }
}

static void X(modes)(X(task) m)
{
    const X(fft) *fft = m.f->fft;
    m.folded_rows = (fft->n[0] / 2 + 1) * (fft->ndim == 3 ? fft->n[1] / 2 + 1 : 1);
    m.blocks = PF_MIN(m.folded_rows, fft->shares);
    if (m.blocks == 1) {
        X(some_modes)(&m, 0, 0);
        return;
    }
    pf_parallel_kernel(m.blocks, X(some_modes), &m);
    for (ptrdiff_t i = 0; i < m.folded_rows && m.shells; i++)
        X(add_to_shells)(&m, i, m.work + fft->shares * m.f->row + i * fft->half);
}

void X(filter_modes)(const X(filter) *f, real *out, const real *in, const real *t, int add, real *work)
{
    X(modes)((X(task)){.f = f, .out = out, .in = in, .t = t, .add = add, .work = work});
}

void X(filter_products)(const X(filter) *f, double *gt, const real *x, const real *g, real *work)
{
    X(modes)((X(task)){.f = f, .shells = gt, .scale = 1 / (double)f->fft->pixels, .in = g, .x = x, .work = work});
}

void X(filter_apply)(const X(filter) *f, real *y, real *spectrum, const real *x, const real *t, real *work)
{
    real *filtered = work, *scratch = work + f->fft->spectrum;
    X(fft_forward)(f->fft, spectrum, x, scratch);
    X(modes)((X(task)){.f = f, .out = filtered, .in = spectrum, .t = t, .work = scratch});
    X(fft_inverse)(f->fft, y, filtered, scratch);
}

/* y_r = 1/N sum_k T_k X_k exp(i k r): dL/dT_k = 1/N Re(X*_k G_k), G the transform of dL/dy */
void X(filter_vjp)(const X(filter) *f, real *g, double *gt, const real *spectrum, const real *t, int want_x, real *work)
{
    real *gspectrum = work, *scratch = work + f->fft->spectrum;
    X(fft_forward)(f->fft, gspectrum, g, scratch);
    X(modes)((X(task)){.f = f,
                       .out = want_x ? gspectrum : NULL,
                       .shells = gt,
                       .scale = 1 / (double)f->fft->pixels,
                       .in = gspectrum,
                       .x = spectrum,
                       .t = t,
                       .work = scratch});
    if (want_x) X(fft_inverse)(f->fft, g, gspectrum, scratch);
}

void X(filter_power)(const X(filter) *f, double *power, const real *x, real *work)
{
    real *spectrum = work, *scratch = work + f->fft->spectrum;
    X(fft_forward)(f->fft, spectrum, x, scratch);
    X(modes)((X(task)){.f = f, .shells = power, .scale = 1, .in = spectrum, .x = spectrum, .work = scratch});
}

void X(filter_blend)(const X(filter) *f, real *y, double *power, const real *x, const real *t, const real *e,
                     const real *u, real *work)
{
    real *one = work, *two = one + f->fft->spectrum, *scratch = two + f->fft->spectrum;
    X(fft_forward)(f->fft, one, x, scratch);
    X(fft_forward)(f->fft, two, e, scratch);
    X(modes)((X(task)){.f = f, .shells = power, .scale = 1, .in = two, .x = two, .work = scratch});
    X(modes)((X(task)){.f = f, .out = one, .in = one, .t = t, .work = scratch});
    X(modes)((X(task)){.f = f, .out = two, .in = two, .t = u, .work = scratch});
    for (ptrdiff_t i = 0; i < f->fft->spectrum; i++) one[i] += two[i];
    X(fft_inverse)(f->fft, y, one, scratch);
}
#endif
