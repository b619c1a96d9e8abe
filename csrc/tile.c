/* Tiles: loading, turning, and the products that layers make of them. */
#ifndef real
#include "layer.h"

enum { ROWS_AT_ONCE = 4 };

#define TWICE "tile.c"
#include "twice.h"
#else

/* ---- loading and turning ---------------------------------------------------------------------------------- */

ptrdiff_t X(tile_rows)(ptrdiff_t d)
{
    ptrdiff_t rows = 128 * 1024 / (ptrdiff_t)sizeof(real) / d / TILE_STEP * TILE_STEP;
    return PF_MIN(PF_MAX(rows, 2 * TILE_STEP), TILE_MOST);
}

/* *sum[LANES] += x - x, which is 0 for all finite numbers: a sum that is not says that some are not */
PF_KERNEL void X(differences_body)(double *sum, const real *x, ptrdiff_t n)
{
    real part[16] = {0};
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) part[l] += x[i + l] - x[i + l];
    for (; i < n; i++) part[0] += x[i] - x[i];
    *sum = 0;
    for (int l = 0; l < 16; l++) *sum += (double)part[l];
}
PF_DISPATCH(X(differences), (double *sum, const real *x, ptrdiff_t n), (sum, x, n))

int X(all_finite)(const real *x, ptrdiff_t n)
{
    double sum;
    X(differences)(&sum, x, n);
    return sum == 0;
}

/* to[b][ld_to] = from[a][ld_from] turned, in squares that stay in the first-level cache */
static void X(turn)(real *restrict to, const real *restrict from, ptrdiff_t a, ptrdiff_t b, ptrdiff_t ld_to,
                    ptrdiff_t ld_from)
{
    enum { SIDE = 32 };
    for (ptrdiff_t j0 = 0; j0 < b; j0 += SIDE)
        for (ptrdiff_t i0 = 0; i0 < a; i0 += SIDE)
            for (ptrdiff_t j = j0; j < PF_MIN(j0 + SIDE, b); j++)
                for (ptrdiff_t i = i0; i < PF_MIN(i0 + SIDE, a); i++) to[j * ld_to + i] = from[i * ld_from + j];
}

int X(tile_load)(X(tile) *t, const real *x)
{
    ptrdiff_t d = t->d;
    int finite = X(all_finite)(x, t->n * d);
    if (t->layout == ROWS)
        for (ptrdiff_t i = 0; i < t->n; i++) memcpy(t->x + i * t->ld, x + i * d, (size_t)d * sizeof *x);
    else {
        X(turn)(t->x, x, t->n, d, t->ld, d);
        for (ptrdiff_t j = 0; j < d; j++)
            for (ptrdiff_t i = t->n; i < t->ld; i++) t->x[j * t->ld + i] = 0;
    }
    return finite;
}

void X(tile_store)(real *x, const X(tile) *t)
{
    ptrdiff_t d = t->d;
    if (t->layout == COLUMNS) X(turn)(x, t->x, d, t->n, d, t->ld);
    else
        for (ptrdiff_t i = 0; i < t->n; i++) memcpy(x + i * d, t->x + i * t->ld, (size_t)d * sizeof *x);
}

void X(tile_turn)(X(tile) *t, pf_layout layout, real **spare)
{
    if (layout == ANY_LAYOUT || layout == t->layout) return;
    real *to = *spare;
    ptrdiff_t ld = layout == ROWS ? tile_whole(t->d) : tile_whole(t->n);
    if (layout == ROWS) X(turn)(to, t->x, t->d, t->n, ld, t->ld);
    else {
        X(turn)(to, t->x, t->n, t->d, ld, t->ld);
        for (ptrdiff_t j = 0; j < t->d; j++)
            for (ptrdiff_t i = t->n; i < ld; i++) to[j * ld + i] = 0;
    }
    *spare = t->x;
    t->x = to;
    t->ld = ld;
    t->layout = layout;
}

/* ---- sums ------------------------------------------------------------------------------------------------- */

/* Sixteen sums side by side, in double */
PF_KERNEL void X(squares_body)(double *sum, const real *x, ptrdiff_t n)
{
    double part[16] = {0};
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) part[l] += (double)x[i + l] * (double)x[i + l];
    for (; i < n; i++) part[0] += (double)x[i] * (double)x[i];
    *sum = 0;
    for (int l = 0; l < 16; l++) *sum += part[l];
}
PF_DISPATCH(X(squares), (double *sum, const real *x, ptrdiff_t n), (sum, x, n))

double X(sum_squares)(const real *x, ptrdiff_t n)
{
    double sum;
    X(squares)(&sum, x, n);
    return sum;
}

PF_KERNEL void X(scale_shift_body)(real *y, const real *x, real scale, real shift, ptrdiff_t n)
{
#pragma GCC ivdep /* y may be x */
    for (ptrdiff_t i = 0; i < n; i++) y[i] = scale * x[i] + shift;
}
PF_DISPATCH(X(scale_shift), (real * y, const real *x, real scale, real shift, ptrdiff_t n), (y, x, scale, shift, n))

void X(tile_logp)(double *logp, const X(tile) *t)
{
    double volume = (double)t->d * PF_LOG_2PI;
    if (t->layout == ROWS) {
        for (ptrdiff_t i = 0; i < t->n; i++) logp[i] = -0.5 * (X(sum_squares)(t->x + i * t->ld, t->d) + volume);
        return;
    }
    double square[TILE_MOST] = {0};
    for (ptrdiff_t j = 0; j < t->d; j++)
        for (ptrdiff_t i = 0; i < t->n; i++) square[i] += (double)t->x[j * t->ld + i] * (double)t->x[j * t->ld + i];
    for (ptrdiff_t i = 0; i < t->n; i++) logp[i] = -0.5 * (square[i] + volume);
}

/* ---- products --------------------------------------------------------------------------------------------- */

#define SIMD "tile.inc"
#include "simd.h"

void X(tile_product)(real *y, const real *a, const real *x, int add, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
                     ptrdiff_t si, ptrdiff_t sk, ptrdiff_t ldy, ptrdiff_t ldx)
{
    SIMD_BEST(product)(y, a, x, add, m, n, k, si, sk, ldy, ldx);
}

void X(tile_outer)(double *g, const real *a, const real *b, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, ptrdiff_t lda,
                   ptrdiff_t ldb)
{
    SIMD_BEST(outer)(g, a, b, m, k, n, lda, ldb);
}
#undef SIMD_BEST
#endif
