/* Transforms of meshes too large for the definition of a Fourier transform at every mode: at some modes, and back. Of
 * their axes some are transformed in place and some by way of a buffer; the larger ones are shared by threads. And
 * filters of the same meshes. */
#include "check.h"
#include "filter.h"

typedef struct {
    int ndim;
    ptrdiff_t n[3];
} mesh;

static const mesh meshes[] = {
    {2, {64, 64}},      {2, {140, 1000}},   {2, {1031, 130}},    {2, {512, 512}},  {2, {2048, 33}},   {3, {32, 32, 32}},
    {3, {150, 6, 150}}, {3, {3, 150, 901}}, {3, {257, 129, 20}}, {2, {100, 3001}}, {3, {70, 61, 66}},
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

/* ---- filters ---------------------------------------------------------------------------------------------- */

/* y = F^-1 T F x and its derivatives, and the power of x: what a number of threads, or a call within a body, must not
 * change. */
#define FILTER(bits, real, tolerance)                                                                                  \
    typedef struct {                                                                                                   \
        pf##bits##_filter *f;                                                                                          \
        real *x, *g, *t, *y, *gx, *spectrum, *work;                                                                    \
        double *gt, *power;                                                                                            \
    } results##bits;                                                                                                   \
                                                                                                                       \
    static void filter##bits(void *arg, ptrdiff_t block, int thread)                                                   \
    {                                                                                                                  \
        results##bits *r = arg;                                                                                        \
        if (block) return;                                                                                             \
        (void)thread;                                                                                                  \
        memset(r->gt, 0, (size_t)r->f->shells * sizeof(double));                                                       \
        memset(r->power, 0, (size_t)r->f->shells * sizeof(double));                                                    \
        memcpy(r->gx, r->g, (size_t)r->f->fft->pixels * sizeof(real));                                                 \
        pf##bits##_filter_power(r->f, r->power, r->x, r->work);                                                        \
        pf##bits##_filter_apply(r->f, r->y, r->spectrum, r->x, r->t, r->work);                                         \
        pf##bits##_filter_vjp(r->f, r->gx, r->gt, r->spectrum, r->t, 1, r->work);                                      \
    }                                                                                                                  \
                                                                                                                       \
    static double dot##bits(const real *a, const real *b, ptrdiff_t n)                                                 \
    {                                                                                                                  \
        double sum = 0;                                                                                                \
        for (ptrdiff_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];                                          \
        return sum;                                                                                                    \
    }                                                                                                                  \
                                                                                                                       \
    static void test_filter##bits(const mesh *m)                                                                       \
    {                                                                                                                  \
        results##bits a = {.f = NULL}, b;                                                                              \
        CHECK(!pf##bits##_filter_new(&a.f, m->ndim, m->n, (const double[]){1, 1.5, 0.7}, -1), "%s", pf_message());     \
        const pf##bits##_fft *fft = a.f->fft;                                                                          \
        ptrdiff_t n = fft->pixels, shells = a.f->shells;                                                               \
        a.x = PF_ALLOC(real, n), a.g = PF_ALLOC(real, n), a.t = PF_ALLOC(real, shells);                                \
        a.spectrum = PF_ALLOC(real, fft->spectrum), a.work = PF_ALLOC(real, a.f->work);                                \
        double *z = PF_ALLOC(double, n);                                                                               \
        pf_normals(z, 1, 2, 0, n);                                                                                     \
        for (ptrdiff_t i = 0; i < n; i++) a.x[i] = (real)z[i];                                                         \
        pf_normals(z, 1, 3, 0, n);                                                                                     \
        for (ptrdiff_t i = 0; i < n; i++) a.g[i] = (real)z[i];                                                         \
        for (ptrdiff_t s = 0; s < shells; s++) a.t[s] = (real)(1 + 0.5 * sin(0.01 * (double)s));                       \
        b = a;                                                                                                         \
        a.y = PF_ALLOC(real, n), a.gx = PF_ALLOC(real, n), b.y = PF_ALLOC(real, n), b.gx = PF_ALLOC(real, n);          \
        a.gt = PF_ALLOC(double, shells), a.power = PF_ALLOC(double, shells);                                           \
        b.gt = PF_ALLOC(double, shells), b.power = PF_ALLOC(double, shells);                                           \
        pf_set_num_threads(1);                                                                                         \
        filter##bits(&a, 0, 0);                                                                                        \
        for (int threads = 2; threads <= 6; threads += 2)                                                              \
            for (int nested = 0; nested < 2; nested++) {                                                               \
                for (ptrdiff_t i = 0; i < a.f->work; i++) b.work[i] = NAN; /* scratch memory holds anything */         \
                pf_set_num_threads(threads);                                                                           \
                pf_parallel(1 + nested, filter##bits, &b);                                                             \
                CHECK(!memcmp(a.y, b.y, (size_t)n * sizeof(real)) && !memcmp(a.gx, b.gx, (size_t)n * sizeof(real)) &&  \
                          !memcmp(a.gt, b.gt, (size_t)shells * sizeof(double)) &&                                      \
                          !memcmp(a.power, b.power, (size_t)shells * sizeof(double)),                                  \
                      "%td x %td x %td pixels, %d bits, %d threads, nested: %d", m->n[0], m->n[1], m->n[2], bits,      \
                      threads, nested);                                                                                \
            }                                                                                                          \
        pf_set_num_threads(0);                                                                                         \
        /* g . y = x . A^T g = sum over shells of T dL/dT, for L = g . y; and Parseval's equation */                   \
        double gy = dot##bits(a.g, a.y, n), xg = dot##bits(a.x, a.gx, n), tg = 0, power = 0;                           \
        for (ptrdiff_t s = 0; s < shells; s++) {                                                                       \
            tg += (double)a.t[s] * a.gt[s];                                                                            \
            power += a.power[s] / (double)n;                                                                           \
        }                                                                                                              \
        double scale = sqrt(dot##bits(a.g, a.g, n) * dot##bits(a.y, a.y, n)), xx = dot##bits(a.x, a.x, n);             \
        CHECK(fabs(gy - xg) < tolerance * scale && fabs(gy - tg) < tolerance * scale, "%g %g %g", gy, xg, tg);         \
        CHECK(fabs(power - xx) < tolerance * xx, "%g %g", power, xx);                                                  \
        free(a.x), free(a.g), free(a.t), free(a.spectrum), free(a.work), free(z), free(a.y), free(a.gx), free(b.y);    \
        free(b.gx), free(a.gt), free(a.power), free(b.gt), free(b.power);                                              \
        pf##bits##_filter_free(a.f);                                                                                   \
    }
FILTER(32, float, 1e-5)
FILTER(64, double, 1e-13)

int main(void)
{
    for (int i = 0; i < MESHES; i++) {
        test32(meshes + i);
        test64(meshes + i);
        test_filter32(meshes + i);
        test_filter64(meshes + i);
    }
    return check_result();
}
