/* Transforms of meshes too large for the definition of a Fourier transform at every mode: at some modes, and back. Of
 * their axes some are transformed in place and some by way of a buffer. */
#include "check.h"
#include "fft.h"

typedef struct {
    int ndim;
    ptrdiff_t n[3];
} mesh;

static const mesh meshes[] = {
    {2, {64, 64}},     {2, {140, 1000}},   {2, {1031, 130}},   {2, {512, 512}},     {2, {2048, 33}},
    {3, {32, 32, 32}}, {3, {150, 6, 150}}, {3, {3, 150, 901}}, {3, {257, 129, 20}},
};
enum { MESHES = sizeof meshes / sizeof *meshes, MODES = 20 };

#define TEST(bits, real, tolerance)                                                                                    \
    static void test##bits(const mesh *g)                                                                              \
    {                                                                                                                  \
        const pf##bits##_fft *p = pf##bits##_fft_plan(g->ndim, g->n);                                                  \
        ptrdiff_t n = p->pixels, n0 = g->n[0], n1 = g->ndim == 3 ? g->n[1] : 1, n2 = g->n[g->ndim - 1];                \
        real *x = PF_ALLOC(real, n), *y = PF_ALLOC(real, n);                                                           \
        real *s = PF_ALLOC(real, p->spectrum), *w = PF_ALLOC(real, p->work);                                           \
        double *z = PF_ALLOC(double, n), worst = 0, worst_back = 0, sum = 0;                                           \
        pf_normals(z, 1, 1, 0, n);                                                                                     \
        for (ptrdiff_t i = 0; i < n; i++) x[i] = (real)z[i];                                                           \
        for (ptrdiff_t i = 0; i < p->work; i++) w[i] = NAN; /* scratch memory holds anything */                        \
        pf##bits##_fft_forward(p, s, x, w);                                                                            \
        for (ptrdiff_t m = 0; m < MODES; m++) {                                                                        \
            ptrdiff_t a = m * 7919 % n0, b = m * 104729 % n1, c = m * 1299709 % p->half;                               \
            double re = 0, im = 0;                                                                                     \
            for (ptrdiff_t i = 0; i < n0; i++)                                                                         \
                for (ptrdiff_t j = 0; j < n1; j++)                                                                     \
                    for (ptrdiff_t k = 0; k < n2; k++) {                                                               \
                        double phase = (double)(i * a % n0) / (double)n0 + (double)(j * b % n1) / (double)n1 +         \
                                       (double)(k * c % n2) / (double)n2;                                              \
                        re += (double)x[(i * n1 + j) * n2 + k] * cos(2 * M_PI * phase);                                \
                        im -= (double)x[(i * n1 + j) * n2 + k] * sin(2 * M_PI * phase);                                \
                    }                                                                                                  \
            real *at = s + 2 * ((a * n1 + b) * p->ld + c);                                                             \
            worst = fmax(worst, hypot(re - (double)at[0], im - (double)at[1]));                                        \
        }                                                                                                              \
        for (ptrdiff_t r = 0; r < p->rows; r++)                                                                        \
            for (ptrdiff_t k = 2 * p->half; k < 2 * p->ld; k++) sum += fabs((double)s[2 * r * p->ld + k]);             \
        pf##bits##_fft_inverse(p, y, s, w);                                                                            \
        for (ptrdiff_t i = 0; i < n; i++) worst_back = fmax(worst_back, fabs((double)(x[i] - y[i])));                  \
        CHECK(worst < tolerance * sqrt((double)n) && worst_back < tolerance && sum == 0,                               \
              "%td x %td x %td pixels, %d bits: %g %g %g", n0, n1, n2, bits, worst, worst_back, sum);                  \
        free(x), free(y), free(s), free(w), free(z);                                                                   \
    }
TEST(32, float, 1e-5)
TEST(64, double, 1e-13)

int main(void)
{
    for (int i = 0; i < MESHES; i++) {
        test32(meshes + i);
        test64(meshes + i);
    }
    return check_result();
}
