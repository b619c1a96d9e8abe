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
