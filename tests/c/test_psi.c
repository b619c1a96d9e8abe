/* The pointwise spline of a symmetric layer against its definition, written out plainly, for any number of knots and
 * pixels, in both precisions and for every instruction set that this machine has. */
#include "check.h"
#include "cspline.h"
#include "psi.h"

enum { MOST = 3 * PSI_MOST, PIXELS = 301 };

static double theta[MOST];

/* Psi(x) and log Psi'(x): rational-quadratic between knots, straight lines beyond */
static double plain(double *log_slope, const double *t, int m, double x)
{
    double p[PSI_MOST], v[PSI_MOST], d[PSI_MOST];
    int j = 0;
    pf_increasing(p, t, m);
    pf_increasing(v, t + m, m);
    for (int i = 0; i < m; i++) d[i] = exp(t[2 * m + i]);
    if (x < p[0] || x >= p[m - 1]) {
        int end = x < p[0] ? 0 : m - 1;
        *log_slope = t[2 * m + end];
        return v[end] + d[end] * (x - p[end]);
    }
    while (x >= p[j + 1]) j++;
    double w = p[j + 1] - p[j], h = v[j + 1] - v[j], s = h / w, u = (x - p[j]) / w, q = u * (1 - u);
    double bottom = s + (d[j] + d[j + 1] - 2 * s) * q;
    *log_slope = log(s * s * (d[j + 1] * u * u + 2 * s * q + d[j] * (1 - u) * (1 - u)) / (bottom * bottom));
    return v[j] + h * (s * u * u + d[j] * q) / bottom;
}

static void make_theta(int m)
{
    double z[MOST];
    pf_normals(z, 1, (uint64_t)m, 0, 3 * m);
    for (int i = 0; i < 3 * m; i++) theta[i] = 0.3 * z[i];
    for (int c = 0; c < 2; c++)
        for (int j = 0; j < m; j++) theta[c * m + j] += j ? log(5. / (m - 1)) : -2.5;
}

/* L = sum g y + log slope of one pixel */
static double objective(const double *t, int m, double x, double g)
{
    double log_slope, y = plain(&log_slope, t, m, x);
    return g * y + log_slope;
}

static double derivative(double *at, double step, int m, const double *x, double g)
{
    double value = *at;
    *at = value + step;
    double up = objective(theta, m, *x, g);
    *at = value - step;
    double down = objective(theta, m, *x, g);
    *at = value;
    return (up - down) / (2 * step);
}

#define TEST(bits, real, tolerance)                                                                                    \
    static void test##bits(int m, ptrdiff_t n, int level)                                                              \
    {                                                                                                                  \
        static pf##bits##_psi psi;                                                                                     \
        static real x[PIXELS], y[PIXELS], back[PIXELS], g[PIXELS], alone[PIXELS];                                      \
        static double z[2 * PIXELS], gtheta[MOST], expected[MOST];                                                     \
        double sum = 0, worst = 0, worst_back = 0, worst_g = 0, worst_theta = 0, log_slope;                            \
        pf_normals(z, 2, 1, 0, 2 * PIXELS);                                                                            \
        for (ptrdiff_t i = 0; i < n; i++) x[i] = (real)(1.5 * z[i]), g[i] = alone[i] = (real)z[PIXELS + i];            \
        memset(gtheta, 0, sizeof gtheta);                                                                              \
        memset(expected, 0, sizeof expected);                                                                          \
        pf##bits##_psi_make(&psi, theta, m);                                                                           \
        double log_det = pf##bits##_psi_forward(y, x, &psi, n), back_det = pf##bits##_psi_inverse(back, y, &psi, n);   \
        pf##bits##_psi_vjp(g, gtheta, x, &psi, n);                                                                     \
        pf##bits##_psi_vjp(alone, NULL, x, &psi, n);                                                                   \
        for (ptrdiff_t i = 0; i < n; i++) {                                                                            \
            double at = (double)x[i], gy = (double)(real)z[PIXELS + i];                                                \
            worst = fmax(worst, fabs(plain(&log_slope, theta, m, at) - (double)y[i]));                                 \
            worst_back = fmax(worst_back, fabs(at - (double)back[i]));                                                 \
            worst_g = fmax(worst_g, fabs(derivative(&at, 1e-6, m, &at, gy) - (double)g[i]));                           \
            worst_g = fmax(worst_g, fabs((double)(g[i] - alone[i])));                                                  \
            sum += log_slope;                                                                                          \
            for (int j = 0; j < 3 * m; j++) expected[j] += derivative(theta + j, 1e-6, m, &at, gy);                    \
        }                                                                                                              \
        for (int j = 0; j < 3 * m; j++) worst_theta = fmax(worst_theta, fabs(expected[j] - gtheta[j]));                \
        double size = sqrt((double)n * m);                                                                             \
        CHECK(worst < tolerance && worst_back < 10 * tolerance, "%d knots, %td pixels, level %d: %g %g", m, n, level,  \
              worst, worst_back);                                                                                      \
        CHECK(fabs(log_det - sum) < size * tolerance && fabs(back_det - sum) < 10 * size * tolerance,                  \
              "%d knots, %td pixels, level %d: %g %g", m, n, level, log_det - sum, back_det - sum);                    \
        CHECK(worst_g < PF_MAX(100 * m * tolerance, 1e-6) && worst_theta < PF_MAX(100 * size * tolerance, 1e-6),       \
              "%d knots, %td pixels, level %d: %g %g", m, n, level, worst_g, worst_theta);                             \
    }
TEST(32, float, 5e-6)
TEST(64, double, 1e-13)

static void test_all(int level)
{
    static const int knots[] = {2, 3, 7, 8, 15, 16, 17, 31, 32, 63};
    static const ptrdiff_t pixels[] = {1, 7, 16, 37, PIXELS};
    for (size_t k = 0; k < sizeof knots / sizeof *knots; k++)
        for (size_t i = 0; i < sizeof pixels / sizeof *pixels; i++) {
            make_theta(knots[k]);
            test32(knots[k], pixels[i], level);
            test64(knots[k], pixels[i], level);
        }
}

int main(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    static const int levels[] = {0, 2, 5};
    int most = pf_simd_level;
    for (int i = 0; i < 3; i++)
        if (levels[i] <= most) test_all(pf_simd_level = levels[i]);
#else
    test_all(0);
#endif
    return check_result();
}
