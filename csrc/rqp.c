/* Splines of every point's own: see rqp.h. Loops are over LANES points at a time, so that they vectorise, and over all
 * bins: which one a point is in is found by comparing it with every knot. */
#ifndef real
#include "rqp.h"

enum { LANES = 16 };

#define LEAST 1e-3    /* of the whole: a bin's width and height */
#define MOST_SLOPE 7  /* of a log-slope's size */
#define MOST_SCALE 30 /* of s */

#define TWICE "rqp.c"
#include "twice.h"
#else

#include "exp.h"

#define EACH for (int i = 0; i < LANES; i++)

/* Of LANES points: shares of widths and heights, and where each point is. */
typedef struct {
    real width[RQP_BINS][LANES], height[RQP_BINS][LANES]; /* shares, whose sum is 1 */
    real x0[LANES], w[LANES], y0[LANES], h[LANES], d0[LANES], d1[LANES];
    real bin[LANES];      /* the number of it; -1: beyond the knots */
    real share[2][LANES]; /* of width and height, of the bins before it; */
    real own[2][LANES];   /* and its own */
} X(lanes);

/* share[bins] = exp(a) / sum exp(a) */
PF_KERNEL void X(shares)(real (*restrict share)[LANES], const real *a, ptrdiff_t bins, ptrdiff_t ld)
{
    real most[LANES], sum[LANES];
    EACH most[i] = a[i], sum[i] = 0;
    for (ptrdiff_t k = 1; k < bins; k++) EACH most[i] = a[k * ld + i] > most[i] ? a[k * ld + i] : most[i];
    for (ptrdiff_t k = 0; k < bins; k++) EACH
        {
            share[k][i] = X(exp_inline)(a[k * ld + i] - most[i]);
            sum[i] += share[k][i];
        }
    EACH sum[i] = 1 / sum[i];
    for (ptrdiff_t k = 0; k < bins; k++) EACH share[k][i] *= sum[i];
}

PF_KERNEL real X(held)(real a, real most) { return a < -most ? -most : a > most ? most : a; }

/* The bin of each at[LANES]: of x, or for the way back of y. */
PF_KERNEL void X(find)(X(lanes) *b, const real *at, const real *q, ptrdiff_t bins, ptrdiff_t ld, int back)
{
    const real least = (real)LEAST, all = 2 * RQP_REACH, rest = 1 - least * (real)bins;
    real x[LANES], y[LANES], before[2][LANES], slope[LANES];
    X(shares)(b->width, q + 2 * ld, bins, ld);
    X(shares)(b->height, q + (2 + bins) * ld, bins, ld);
    const real *slopes = q + (2 + 2 * bins) * ld;
    EACH
    {
        x[i] = y[i] = -RQP_REACH;
        before[0][i] = before[1][i] = 0;
        slope[i] = 1;
        b->bin[i] = -1;
        b->x0[i] = b->y0[i] = b->share[0][i] = b->share[1][i] = b->own[0][i] = b->own[1][i] = 0;
        b->w[i] = b->h[i] = b->d0[i] = b->d1[i] = 1;
    }
    for (ptrdiff_t k = 0; k < bins; k++) {
        int last = k == bins - 1; /* it ends at RQP_REACH, wherever rounding has led */
        EACH
        {
            real w = last ? RQP_REACH - x[i] : all * (least + rest * b->width[k][i]);
            real h = last ? RQP_REACH - y[i] : all * (least + rest * b->height[k][i]);
            real next = last ? 1 : X(exp_inline)(X(held)(slopes[(last ? 0 : k * ld) + i], MOST_SLOPE));
            int here = at[i] >= (back ? y[i] : x[i]) && at[i] < RQP_REACH;
            b->bin[i] = here ? (real)k : b->bin[i];
            b->x0[i] = here ? x[i] : b->x0[i];
            b->y0[i] = here ? y[i] : b->y0[i];
            b->w[i] = here ? w : b->w[i];
            b->h[i] = here ? h : b->h[i];
            b->d0[i] = here ? slope[i] : b->d0[i];
            b->d1[i] = here ? next : b->d1[i];
            b->share[0][i] = here ? before[0][i] : b->share[0][i];
            b->share[1][i] = here ? before[1][i] : b->share[1][i];
            b->own[0][i] = here ? b->width[k][i] : b->own[0][i];
            b->own[1][i] = here ? b->height[k][i] : b->own[1][i];
            before[0][i] += b->width[k][i];
            before[1][i] += b->height[k][i];
            x[i] += w;
            y[i] += h;
            slope[i] = next;
        }
    }
}

/* ---- forward and back ------------------------------------------------------------------------------------- */

/* y = y0 + h (s v^2 + d0 v (1 - v)) / den, den = s + (d0 + d1 - 2 s) v (1 - v), s = h / w, v = (u - x0) / w */
PF_KERNEL void X(rqp_forward_body)(real *y, real *log_slope, const real *x, const real *q, ptrdiff_t bins, ptrdiff_t n,
                                   ptrdiff_t ld)
{
    for (ptrdiff_t first = 0; first < n; first += LANES, y += LANES, log_slope += LANES, x += LANES, q += LANES) {
        X(lanes) b;
        real u[LANES], scale[LANES], to[LANES], slope[LANES];
        EACH
        {
            scale[i] = X(held)(q[ld + i], MOST_SCALE);
            u[i] = (x[i] - q[i]) * X(exp_inline)(-scale[i]);
        }
        X(find)(&b, u, q, bins, ld, 0);
        EACH
        {
            real s = b.h[i] / b.w[i], v = (u[i] - b.x0[i]) / b.w[i], v1 = v * (1 - v);
            real den = s + (b.d0[i] + b.d1[i] - 2 * s) * v1;
            real top = s * s * (b.d1[i] * v * v + 2 * s * v1 + b.d0[i] * (1 - v) * (1 - v));
            int in = b.bin[i] >= 0;
            to[i] = in ? b.y0[i] + b.h[i] * (s * v * v + b.d0[i] * v1) / den : u[i];
            slope[i] = in ? top / (den * den) : 1;
        }
        EACH y[i] = to[i];
        EACH log_slope[i] = R(log)(slope[i]) - scale[i];
    }
}
PF_DISPATCH(X(rqp_forward),
            (real * y, real *log_slope, const real *x, const real *q, ptrdiff_t bins, ptrdiff_t n, ptrdiff_t ld),
            (y, log_slope, x, q, bins, n, ld))

/* v solves a v^2 + b v + c = 0, a = s - d0 + e, b = d0 - e, c = -s (y - y0) / h, e = (y - y0) / h (d0 + d1 - 2 s), by
 * the formula in which nothing cancels: that depends on the sign of b */
PF_KERNEL void X(rqp_inverse_body)(real *x, real *log_slope, const real *y, const real *q, ptrdiff_t bins, ptrdiff_t n,
                                   ptrdiff_t ld)
{
    for (ptrdiff_t first = 0; first < n; first += LANES, y += LANES, log_slope += LANES, x += LANES, q += LANES) {
        X(lanes) p;
        real to[LANES], slope[LANES], scale[LANES];
        X(find)(&p, y, q, bins, ld, 1);
        EACH
        {
            real s = p.h[i] / p.w[i], up = (y[i] - p.y0[i]) / p.h[i], e = up * (p.d0[i] + p.d1[i] - 2 * s);
            real a = s - p.d0[i] + e, b = p.d0[i] - e, c = -s * up, under = b * b - 4 * a * c;
            real root = R(sqrt)(under > 0 ? under : 0);
            real v = (b < 0 ? root - b : -2 * c) / (b < 0 ? 2 * a : b + root);
            v = v > 1 ? 1 : v; /* by rounding */
            real v1 = v * (1 - v);
            real den = s + (p.d0[i] + p.d1[i] - 2 * s) * v1;
            real top = s * s * (p.d1[i] * v * v + 2 * s * v1 + p.d0[i] * (1 - v) * (1 - v));
            int in = p.bin[i] >= 0;
            scale[i] = X(held)(q[ld + i], MOST_SCALE);
            to[i] = (in ? p.x0[i] + v * p.w[i] : y[i]) * X(exp_inline)(scale[i]) + q[i];
            slope[i] = in ? top / (den * den) : 1;
        }
        EACH x[i] = to[i];
        EACH log_slope[i] = scale[i] - R(log)(slope[i]);
    }
}
PF_DISPATCH(X(rqp_inverse),
            (real * x, real *log_slope, const real *y, const real *q, ptrdiff_t bins, ptrdiff_t n, ptrdiff_t ld),
            (x, log_slope, y, q, bins, n, ld))

/* ---- derivatives ------------------------------------------------------------------------------------------ */

/* Of shares p_k whose bins are `all` (LEAST + rest p_k) wide: dL/da_k = p_k (g_k - sum_j p_j g_j), where g_k is
 * dL/dp_k, `earlier` for bins before the point's, `own` for its own, and 0 for those after it. */
PF_KERNEL void X(shares_vjp)(real *ga, real (*share)[LANES], const X(lanes) *b, int which, const real *earlier,
                             const real *own, ptrdiff_t bins, ptrdiff_t ld)
{
    const real c = 2 * RQP_REACH * (1 - (real)LEAST * (real)bins);
    real mean[LANES];
    EACH mean[i] = earlier[i] * b->share[which][i] + own[i] * b->own[which][i];
    for (ptrdiff_t k = 0; k < bins; k++) EACH
        {
            real g = b->bin[i] > (real)k ? earlier[i] : b->bin[i] == (real)k ? own[i] : 0;
            ga[k * ld + i] = c * share[k][i] * (g - mean[i]);
        }
}

PF_KERNEL void X(rqp_vjp_body)(real *g, real *gq, const real *glog, const real *x, const real *q, ptrdiff_t bins,
                               ptrdiff_t n, ptrdiff_t ld)
{
    for (ptrdiff_t first = 0; first < n;
         first += LANES, g += LANES, gq += LANES, glog += LANES, x += LANES, q += LANES) {
        X(lanes) b;
        real u[LANES], shrink[LANES], gx0[LANES], gw[LANES], gy0[LANES], gh[LANES], gd0[LANES], gd1[LANES];
        EACH
        {
            shrink[i] = X(exp_inline)(-X(held)(q[ld + i], MOST_SCALE));
            u[i] = (x[i] - q[i]) * shrink[i];
        }
        X(find)(&b, u, q, bins, ld, 0);
        EACH
        {
            int in = b.bin[i] >= 0;
            real w = b.w[i], h = b.h[i], d0 = b.d0[i], d1 = b.d1[i], s = h / w, v = in ? (u[i] - b.x0[i]) / w : 0;
            real v1 = v * (1 - v), both = d0 + d1 - 2 * s, inv = 1 / (s + both * v1);
            real num = s * v * v + d0 * v1, p = d1 * v * v + 2 * s * v1 + d0 * (1 - v) * (1 - v);
            real gy = in ? g[i] : 0, gl = in ? glog[i] : 0, over = gl / p, by = gy * h * inv;
            /* of v, s, d0, d1 */
            real gv = gy * w * s * s * p * inv * inv + over * (2 * d1 * v + 2 * s * (1 - 2 * v) - 2 * d0 * (1 - v)) -
                      2 * gl * both * (1 - 2 * v) * inv;
            real gs = by * (v * v - num * (1 - 2 * v1) * inv) + 2 * gl / s + 2 * over * v1 -
                      2 * gl * (1 - 2 * v1) * inv;
            gd0[i] = by * v1 * (1 - num * inv) + over * (1 - v) * (1 - v) - 2 * gl * v1 * inv;
            gd1[i] = -by * v1 * num * inv + over * v * v - 2 * gl * v1 * inv;
            gx0[i] = -gv / w;
            gw[i] = -(gv * v + gs * s) / w;
            gy0[i] = gy;
            gh[i] = gy * num * inv + gs / w;
            real gu = in ? gv / w : g[i];
            int free = q[ld + i] > -MOST_SCALE && q[ld + i] < MOST_SCALE;
            g[i] = gu * shrink[i];
            gq[i] = -g[i];
            gq[ld + i] = free ? -gu * u[i] - glog[i] : 0;
        }
        X(shares_vjp)(gq + 2 * ld, b.width, &b, 0, gx0, gw, bins, ld);
        X(shares_vjp)(gq + (2 + bins) * ld, b.height, &b, 1, gy0, gh, bins, ld);
        const real *slopes = q + (2 + 2 * bins) * ld;
        real *gslopes = gq + (2 + 2 * bins) * ld;
        for (ptrdiff_t k = 0; k < bins - 1; k++) EACH
            {
                real a = slopes[k * ld + i];
                real of = (b.bin[i] == (real)k ? gd1[i] * b.d1[i] : 0) +
                          (b.bin[i] == (real)(k + 1) ? gd0[i] * b.d0[i] : 0);
                gslopes[k * ld + i] = a > -MOST_SLOPE && a < MOST_SLOPE ? of : 0;
            }
    }
}
PF_DISPATCH(X(rqp_vjp),
            (real * g, real *gq, const real *glog, const real *x, const real *q, ptrdiff_t bins, ptrdiff_t n,
             ptrdiff_t ld),
            (g, gq, glog, x, q, bins, n, ld))
#undef EACH
#endif
