/* Symmetric flows: laws that hold for any parameters. Transforms against the definition of a Fourier transform, log|det|
 * against a numerical Jacobian, gradients against finite differences, symmetry under shifts, flips and turns. */
#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>

#include "symflow.h"

static int failures;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("%s:%d: %s failed: ", __FILE__, __LINE__, #condition);                                              \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

static double normal(uint64_t i)
{
    double z;
    pf_normals(&z, 5, 3, i, 1);
    return z;
}

typedef struct {
    int ndim;
    ptrdiff_t n[3];
    double box[3];
} mesh;

static const mesh meshes[] = {
    {2, {4, 4}, {1, 1}},       {2, {5, 4}, {2, 3}},       {2, {3, 7}, {1, 1}},
    {2, {1, 6}, {1, 1}},       {2, {17, 9}, {1, 2}},      {3, {3, 4, 5}, {1, 2, 3}},
    {3, {4, 4, 4}, {1, 1, 1}}, {3, {2, 3, 2}, {1, 1, 1}}, {2, {20, 34}, {100, 170}},
};
enum { MESHES = sizeof meshes / sizeof *meshes };

/* A flow with random parameters, conditional if n_y. */
#define RANDOM_FLOW(bits)                                                                                              \
    static pf##bits##_symflow *random_flow##bits(const mesh *g, ptrdiff_t layers, ptrdiff_t n_y)                       \
    {                                                                                                                  \
        enum { K = 5, M = 20 };                                                                                        \
        pf##bits##_symflow *f;                                                                                         \
        if (pf##bits##_symflow_new(&f, g->ndim, g->n, g->box, layers, K, M, n_y)) return NULL;                         \
        uint64_t at = 1000;                                                                                            \
        for (ptrdiff_t l = 0; l < layers; l++) {                                                                       \
            double *t = f->theta + l * (3 * K + 2 * M);                                                                \
            for (int c = 0; c < 2; c++)                                                                                \
                for (int j = 0; j < K; j++) *t++ = j ? 0.3 * normal(at++) : -2 + 0.1 * normal(at++);                   \
            for (int j = 0; j < K; j++) *t++ = 0.3 * normal(at++);                                                     \
            for (int j = 0; j < M; j++) *t++ = j ? log(1.0 / M) + 0.2 * normal(at++) : 0.1;                            \
            for (int j = 0; j < M; j++) *t++ = 0.4 * normal(at++);                                                     \
        }                                                                                                              \
        f->mean = 0.3;                                                                                                 \
        f->scale = 1.7;                                                                                                \
        if (n_y && pf##bits##_mlp_new(&f->net, n_y, (ptrdiff_t[]){6, 7}, 2, f->n_theta)) return NULL;                  \
        if (n_y) pf##bits##_mlp_draw(f->net, 9, 0);                                                                    \
        for (ptrdiff_t i = 0; n_y && i < f->net->n_w; i++) f->net->w[i] += 0.05 * normal(at++);                        \
        for (ptrdiff_t j = 0; j < n_y; j++) {                                                                          \
            f->y_stats[j] = 0.2;                                                                                       \
            f->y_stats[n_y + j] = 1.5;                                                                                 \
        }                                                                                                              \
        return f;                                                                                                      \
    }
RANDOM_FLOW(32)
RANDOM_FLOW(64)

static void test_fft(const mesh *g)
{
    const pf64_fft *p = pf64_fft_plan(g->ndim, g->n);
    const pf32_fft *q = pf32_fft_plan(g->ndim, g->n);
    CHECK(p && q, "%s", pf_message());
    CHECK(p == pf64_fft_plan(g->ndim, g->n), "the plan is not kept");
    ptrdiff_t n2 = g->ndim == 3 ? g->n[1] : 1, last = g->n[g->ndim - 1], n = p->pixels;
    double *x = PF_ALLOC(double, n), *s = PF_ALLOC(double, p->spectrum), *w = PF_ALLOC(double, p->work);
    float *x32 = PF_ALLOC(float, n), *s32 = PF_ALLOC(float, q->spectrum), *w32 = PF_ALLOC(float, q->work);
    for (ptrdiff_t i = 0; i < n; i++) x32[i] = (float)(x[i] = normal((uint64_t)i));
    pf64_fft_forward(p, s, x, w);
    pf32_fft_forward(q, s32, x32, w32);
    double worst = 0, worst32 = 0;
    for (ptrdiff_t r = 0; r < p->rows; r++)
        for (ptrdiff_t k = 0; k < p->half; k++) {
            double re = 0, im = 0;
            for (ptrdiff_t i = 0; i < n; i++) {
                ptrdiff_t row = i / last;
                double phase = (double)(row / n2 * (r / n2)) / (double)g->n[0] +
                               (double)(row % n2 * (r % n2)) / (double)n2 + (double)(i % last * k) / (double)last;
                re += x[i] * cos(2 * M_PI * phase);
                im -= x[i] * sin(2 * M_PI * phase);
            }
            worst = fmax(worst, hypot(re - s[2 * (r * p->ld + k)], im - s[2 * (r * p->ld + k) + 1]));
            worst32 = fmax(worst32, hypot(re - s32[2 * (r * q->ld + k)], im - s32[2 * (r * q->ld + k) + 1]));
        }
    CHECK(worst < 1e-12 * (double)n && worst32 < 1e-6 * (double)n, "%g %g", worst, worst32);
    double *y = PF_ALLOC(double, n);
    pf64_fft_inverse(p, y, s, w);
    worst = 0;
    for (ptrdiff_t i = 0; i < n; i++) worst = fmax(worst, fabs(y[i] - x[i]));
    CHECK(worst < 1e-14, "%g", worst);
    free(x), free(s), free(w), free(x32), free(s32), free(w32), free(y);
}

/* log|det a[n][n]|, by elimination with pivots; a is destroyed */
static double log_det(double *a, ptrdiff_t n)
{
    double sum = 0;
    for (ptrdiff_t c = 0; c < n; c++) {
        ptrdiff_t pivot = c;
        for (ptrdiff_t r = c; r < n; r++)
            if (fabs(a[r * n + c]) > fabs(a[pivot * n + c])) pivot = r;
        for (ptrdiff_t j = 0; j < n; j++) {
            double t = a[c * n + j];
            a[c * n + j] = a[pivot * n + j];
            a[pivot * n + j] = t;
        }
        sum += log(fabs(a[c * n + c]));
        for (ptrdiff_t r = c + 1; r < n; r++) {
            double factor = a[r * n + c] / a[c * n + c];
            for (ptrdiff_t j = c; j < n; j++) a[r * n + j] -= factor * a[c * n + j];
        }
    }
    return sum;
}

static void test_jacobian(const mesh *g)
{
    pf64_symflow *f = random_flow64(g, 2, 0);
    ptrdiff_t n = f->pixels;
    double *x = PF_ALLOC(double, n), *z = PF_ALLOC(double, 2 * n), *jacobian = PF_ALLOC(double, n *n), logj, back,
           h = 1e-6;
    for (ptrdiff_t i = 0; i < n; i++) x[i] = 2 * normal((uint64_t)i);
    for (ptrdiff_t j = 0; j < n; j++) {
        double keep = x[j];
        for (int s = 0; s < 2; s++) {
            x[j] = keep + (s ? h : -h);
            pf64_symflow_forward(f, z + s * n, NULL, x, NULL, 1);
        }
        x[j] = keep;
        for (ptrdiff_t i = 0; i < n; i++) jacobian[i * n + j] = (z[n + i] - z[i]) / (2 * h);
    }
    CHECK(pf64_symflow_forward(f, z, &logj, x, NULL, 1) == PF_OK, "%s", pf_message());
    double numerical = log_det(jacobian, n);
    CHECK(fabs(logj - numerical) < 1e-6 * (double)n, "%.10g %.10g", logj, numerical);
    CHECK(pf64_symflow_inverse(f, z, &back, z, NULL, 1) == PF_OK, "%s", pf_message());
    double worst = 0;
    for (ptrdiff_t i = 0; i < n; i++) worst = fmax(worst, fabs(z[i] - x[i]));
    CHECK(worst < 1e-11 && fabs(back + logj) < 1e-10, "%g %g", worst, back + logj);
    free(x), free(z), free(jacobian);
    pf64_symflow_free(f);
}

/* d log p / d theta, / dx, / dy against central differences; and 32 bits against 64 */
static void test_gradients(const mesh *g)
{
    pf64_symflow *f = random_flow64(g, 2, 2);
    pf32_symflow *f32 = random_flow32(g, 2, 2);
    ptrdiff_t n = f->pixels, n_theta = f->n_theta;
    double *x = PF_ALLOC(double, n), *score = PF_ALLOC(double, n), y[2] = {0.4, -0.7}, gy[2], logp[2], gy32[2],
           h = 1e-6;
    float *x32 = PF_ALLOC(float, n), *score32 = PF_ALLOC(float, n);
    for (ptrdiff_t i = 0; i < n; i++) x[i] = x32[i] = (float)(2 * normal((uint64_t)i));
    CHECK(pf64_symflow_score(f, score, logp, x, y, 1) == PF_OK, "%s", pf_message());
    CHECK(pf64_symflow_score_parameters(f, gy, logp + 1, x, y, 1) == PF_OK, "%s", pf_message());
    CHECK(logp[0] == logp[1], "%g", logp[0] - logp[1]);
    double scale = 0, worst = 0, worst32 = 0;
    for (ptrdiff_t i = 0; i < n; i++) scale = fmax(scale, fabs(score[i]));
    for (ptrdiff_t i = 0; i < PF_MIN(n, 40); i++) {
        double keep = x[i], p[2];
        for (int s = 0; s < 2; s++) {
            x[i] = keep + (s ? h : -h);
            pf64_symflow_logp(f, p + s, x, y, 1);
        }
        x[i] = keep;
        worst = fmax(worst, fabs((p[1] - p[0]) / (2 * h) - score[i]));
    }
    CHECK(worst < 1e-6 * scale, "%g of %g", worst, scale);
    for (int j = 0; j < 2; j++) {
        double keep = y[j], p[2];
        for (int s = 0; s < 2; s++) {
            y[j] = keep + (s ? h : -h);
            pf64_symflow_logp(f, p + s, x, y, 1);
        }
        y[j] = keep;
        CHECK(fabs((p[1] - p[0]) / (2 * h) - gy[j]) < 1e-6 * (1 + fabs(gy[j])), "%g %g", (p[1] - p[0]) / (2 * h),
              gy[j]);
    }
    double logp32;
    pf32_symflow_score(f32, score32, &logp32, x32, y, 1);
    pf32_symflow_score_parameters(f32, gy32, NULL, x32, y, 1);
    for (ptrdiff_t i = 0; i < n; i++) worst32 = fmax(worst32, fabs(score32[i] - score[i]));
    CHECK(worst32 < 1e-4 * scale, "%g of %g", worst32, scale);
    CHECK(fabs(logp32 - logp[0]) < 1e-5 * (double)n, "%g %g", logp32, logp[0]);
    for (int j = 0; j < 2; j++) CHECK(fabs(gy32[j] - gy[j]) < 1e-3 * (1 + fabs(gy[j])), "%g %g", gy32[j], gy[j]);

    pf64_symwork *w;
    CHECK(pf64_symwork_new(&w, f, 1, 1) == PF_OK, "%s", pf_message());
    double *theta = PF_ALLOC(double, n_theta), *gradient = PF_ALLOC(double, n_theta);
    memcpy(theta, f->theta, (size_t)n_theta * sizeof(double));
    pf64_sym_prepare(w, f, theta);
    pf64_sym_load(w, f, x);
    pf64_sym_logp(w, f);
    pf64_sym_backward(w, f, gradient, 0);
    worst = 0;
    for (ptrdiff_t j = 0; j < n_theta; j++) {
        double keep = theta[j], p[2];
        for (int s = 0; s < 2; s++) {
            theta[j] = keep + (s ? h : -h);
            pf64_sym_prepare(w, f, theta);
            pf64_sym_load(w, f, x);
            p[s] = pf64_sym_logp(w, f);
        }
        theta[j] = keep;
        double error = fabs((p[1] - p[0]) / (2 * h) - gradient[j]) / (1 + fabs(gradient[j]));
        CHECK(error < 1e-5, "parameter %td: %g %g", j, (p[1] - p[0]) / (2 * h), gradient[j]);
    }
    pf64_symwork_free(w, 1);
    free(x), free(score), free(x32), free(score32), free(theta), free(gradient);
    pf64_symflow_free(f);
    pf32_symflow_free(f32);
}

/* What the network says of one knot of log T goes to its neighbours as a Gaussian, mirrored at the ends, and to no
 * other parameter; what it says of all alike stays. */
static void test_smoothing(void)
{
    enum { M = 40, K = 5, KNOT = 3, LAYER = 3 * K + 2 * M };
    mesh g = {2, {4, 4}, {1, 1}};
    pf64_symflow *f;
    CHECK(pf64_symflow_new(&f, g.ndim, g.n, g.box, 2, K, M, 1) == PF_OK, "%s", pf_message());
    CHECK(pf64_mlp_new(&f->net, 1, (ptrdiff_t[]){3}, 1, f->n_theta) == PF_OK, "%s", pf_message());
    f->y_stats[1] = 1;
    double *bias = f->net->w + f->net->n_w - f->n_theta, *theta = PF_ALLOC(double, SYM_ROWS * f->n_theta), y = 0;
    double *memory = PF_ALLOC(double, pf64_sym_net_memory(f)), sigma = SMOOTH * M, sum = 0, worst = 0;
    for (ptrdiff_t j = 0; j < f->n_theta; j++) bias[j] = 1;
    CHECK(pf64_sym_thetas(f, theta, memory, &y, 1) == PF_OK, "%s", pf_message());
    for (ptrdiff_t j = 0; j < f->n_theta; j++) worst = fmax(worst, fabs(theta[j] - NET_SCALE));
    CHECK(worst < 1e-15, "%g", worst);
    for (int t = -M; t <= M; t++) sum += abs(t) <= 3 * sigma ? exp(-0.5 * t * t / (sigma * sigma)) : 0;
    for (int c = 0; c < 2; c++) { /* the second layer's positions, its values */
        ptrdiff_t first = LAYER + 3 * K + c * M;
        memset(bias, 0, (size_t)f->n_theta * sizeof(double));
        bias[first + KNOT] = 1;
        CHECK(pf64_sym_thetas(f, theta, memory, &y, 1) == PF_OK, "%s", pf_message());
        for (ptrdiff_t j = 0; j < f->n_theta; j++) {
            double at = (double)(j - first), wanted = 0;
            for (int side = 0; side < 2 && at >= 0 && at < M; side++) {
                double t = side ? at + KNOT + 1 : at - KNOT;
                if (fabs(t) <= 3 * sigma) wanted += NET_SCALE * exp(-0.5 * t * t / (sigma * sigma)) / sum;
            }
            CHECK(fabs(theta[j] - wanted) < 1e-15, "parameter %td: %g, not %g", j, theta[j], wanted);
        }
    }
    free(theta), free(memory);
    pf64_symflow_free(f);
}

/* Shifting, flipping, transposing a square field commutes with the flow; log p does not change. */
static void test_symmetry(void)
{
    enum { N = 12 };
    mesh g = {2, {N, N}, {3, 3}};
    pf64_symflow *f = random_flow64(&g, 3, 0);
    double x[4][N][N], z[4][N][N], logp[4], worst = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) x[0][i][j] = 2 * normal((uint64_t)(i * N + j));
#define EACH(to, from)                                                                                                 \
    for (int i = 0; i < N; i++)                                                                                        \
        for (int j = 0; j < N; j++) {                                                                                  \
            to[1][i][j] = from[0][(i + 5) % N][(j + 3) % N];                                                           \
            to[2][i][j] = from[0][N - 1 - i][j];                                                                       \
            to[3][i][j] = from[0][j][N - 1 - i];                                                                       \
        }
    EACH(x, x)
    CHECK(pf64_symflow_forward(f, z[0][0], NULL, x[0][0], NULL, 4) == PF_OK, "%s", pf_message());
    CHECK(pf64_symflow_logp(f, logp, x[0][0], NULL, 4) == PF_OK, "%s", pf_message());
    double moved[4][N][N];
    EACH(moved, z)
    for (int t = 1; t < 4; t++) {
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) worst = fmax(worst, fabs(moved[t][i][j] - z[t][i][j]));
        CHECK(worst < 1e-12, "%g", worst);
        CHECK(fabs(logp[t] - logp[0]) < 1e-10, "%g", logp[t] - logp[0]);
    }
    pf64_symflow_free(f);
}

/* Results do not depend on threads nor on what else is computed; a sample on its row alone; a file gives the same flow.
 */
static void test_many(void)
{
    enum { ROWS = 41 };
    mesh g = {2, {16, 18}, {1, 1}};
    pf32_symflow *f = random_flow32(&g, 2, 1), *again = NULL;
    ptrdiff_t n = f->pixels;
    float *x = PF_ALLOC(float, ROWS *n), *score = PF_ALLOC(float, 2 * ROWS * n);
    double y[ROWS], logp[2][ROWS], table[ROWS][3], gy[2][ROWS], one;
    for (int i = 0; i < ROWS; i++) y[i] = normal((uint64_t)i);
    for (int t = 0; t < 2; t++) {
        pf_set_num_threads(t ? 3 : 1);
        CHECK(pf32_symflow_sample(f, x, logp[t], y, 77, 0, ROWS) == PF_OK, "%s", pf_message());
        CHECK(pf32_symflow_score(f, score + t * ROWS * n, NULL, x, y, ROWS) == PF_OK, "%s", pf_message());
        CHECK(pf32_symflow_score_parameters(f, gy[t], NULL, x, y, ROWS) == PF_OK, "%s", pf_message());
    }
    CHECK(!memcmp(logp[0], logp[1], sizeof *logp) && !memcmp(gy[0], gy[1], sizeof *gy), "threads change results");
    CHECK(!memcmp(score, score + ROWS * n, (size_t)(ROWS * n) * sizeof(float)), "threads change results");
    CHECK(pf32_symflow_sample(f, score, &one, y + 37, 77, 37, 1) == PF_OK && one == logp[0][37], "%g",
          one - logp[0][37]);
    CHECK(!memcmp(score, x + 37 * n, (size_t)n * sizeof(float)), "a sample depends on the rows before it");
    CHECK(pf32_symflow_logp(f, logp[1], x, y, ROWS) == PF_OK, "%s", pf_message());
    for (int i = 0; i < ROWS; i++) CHECK(fabs(logp[0][i] - logp[1][i]) < 1e-2, "%g %g", logp[0][i], logp[1][i]);
    CHECK(pf32_symflow_logp_at(f, table[0], x, y, ROWS, 3) == PF_OK, "%s", pf_message());
    for (int i = 0; i < 3; i++) CHECK(table[i][i] == logp[1][i], "%g", table[i][i] - logp[1][i]);

    void *bytes;
    size_t size;
    CHECK(pf32_symflow_set_note(f, "{\"a\": 1}") == PF_OK && pf32_symflow_write(f, &bytes, &size) == PF_OK, "%s",
          pf_message());
    CHECK(pf32_symflow_read(&again, bytes, size) == PF_OK, "%s", pf_message());
    CHECK(pf32_symflow_logp(again, logp[0], x, y, ROWS) == PF_OK && !memcmp(logp[0], logp[1], sizeof *logp),
          "file changes it");
    CHECK(!strcmp(pf32_symflow_note(again), "{\"a\": 1}"), "%s", pf32_symflow_note(again));
    pf32_symflow_free(again);
    for (size_t cut = 0; cut < size; cut += size / 50)
        CHECK(pf32_symflow_read(&again, bytes, cut) == PF_BAD_FILE, "cut at %zu", cut);
    pf_free(bytes);
    x[3 * n + 5] = NAN;
    CHECK(pf32_symflow_logp(f, logp[0], x, y, ROWS) == PF_BAD_ARGUMENT && strstr(pf_message(), "field 3"), "%s",
          pf_message());
    CHECK(pf32_symflow_logp(f, logp[0], x, NULL, ROWS) == PF_BAD_ARGUMENT, "no y");
    free(x), free(score);
    pf32_symflow_free(f);
    pf_set_num_threads(0);
}

/* ---- fits ------------------------------------------------------------------------------------------------- */

/* Gaussian fields with P(k) = amplitude / (1 + (k / 4)^2) (k in units of 2 pi / box), lognormal ones when sigma > 0; y
 * = log amplitude, uniform in [-1, 1], when it is asked for. Returns the exact log p of each. */
enum { SIDE = 24, FIELDS = 260, TRAIN = 200, PIXELS = SIDE * SIDE };

static void gaussian_fields(double *x, double *y, double *logp, double sigma)
{
    pf64_filter *f;
    ptrdiff_t n[2] = {SIDE, SIDE};
    double box[2] = {1, 1}, z[PIXELS], variance = 0, log_t = 0;
    CHECK(pf64_filter_new(&f, 2, n, box) == PF_OK, "%s", pf_message());
    double *t = PF_ALLOC(double, f->shells), *spectrum = PF_ALLOC(double, f->fft->spectrum),
           *work = PF_ALLOC(double, f->work);
    for (ptrdiff_t s = 0; s < f->shells; s++) {
        double k = f->k[s] / (8 * M_PI), power = 1 / (1 + k * k);
        t[s] = sqrt(power);
        log_t += f->modes[s] * log(t[s]);
        variance += f->modes[s] * power / PIXELS;
    }
    for (int i = 0; i < FIELDS; i++) {
        double *field = x + i * PIXELS, scale = sigma > 0 ? sigma / sqrt(variance) : 1;
        if (y) {
            uint32_t word[4];
            pf_philox(word, 1, 2, (uint64_t)i);
            y[i] = word[0] * 0x1p-31 - 1;
            scale *= exp(0.5 * y[i]);
        }
        pf_normals(z, 11, (uint64_t)i, 0, PIXELS);
        logp[i] = pf64_sym_log_normal(z, PIXELS) - log_t - PIXELS * log(scale);
        pf64_filter_apply(f, field, spectrum, z, t, work);
        for (int j = 0; j < PIXELS; j++) {
            field[j] *= scale;
            if (sigma > 0) {
                logp[i] -= field[j];
                field[j] = exp(field[j]);
            }
        }
    }
    free(t), free(spectrum), free(work);
    pf64_filter_free(f);
}

static int stop_at_two(void *user, const pf_symflow_progress *p)
{
    *(ptrdiff_t *)user = p->epoch;
    return p->epoch == 2;
}

/* The flow reaches the exact density of Gaussian and lognormal fields, with and without a condition, and of the latter
 * the derivative in the condition; its samples have the variance of the fields. */
static void test_fit(double sigma, int conditional)
{
    static double x[FIELDS * PIXELS], sample[TRAIN * PIXELS];
    double y[FIELDS], exact[FIELDS], logp[FIELDS], score[FIELDS];
    gaussian_fields(x, conditional ? y : NULL, exact, sigma);
    pf64_fields train = {x, conditional ? y : NULL, TRAIN},
                validate = {x + TRAIN * PIXELS, conditional ? y + TRAIN : NULL, 60};
    pf64_symflow *flow = NULL;
    pf_symflow_options o;
    pf_symflow_defaults(&o);
    o.n_layers = 2;
    o.filter_knots = 16;
    o.hidden[0] = o.hidden[1] = 32;
    o.epochs = conditional ? 40 : 12;
    o.learning_rate = 3e-3;
    pf_status status = pf64_symflow_fit(&flow, &train, &validate, 2, (ptrdiff_t[]){SIDE, SIDE}, (double[]){1, 1},
                                        conditional, &o);
    CHECK(status == PF_OK, "%s", pf_message());
    CHECK(pf64_symflow_logp(flow, logp, validate.x, validate.y, 60) == PF_OK, "%s", pf_message());
    double short_of = 0, slope_error = 0, ratio[2] = {0};
    for (int i = 0; i < 60; i++) short_of += (exact[TRAIN + i] - logp[i]) / 60 / PIXELS;
    CHECK(short_of < 0.006 && short_of > -0.006, "sigma %g, conditional %d: %g nats per pixel", sigma, conditional,
          short_of);
    CHECK(pf64_symflow_sample(flow, sample, NULL, train.y, 3, 0, TRAIN) == PF_OK, "%s", pf_message());
    for (int i = 0; i < TRAIN * PIXELS; i++) {
        ratio[0] += log(1e-3 + x[i] * x[i]);
        ratio[1] += log(1e-3 + sample[i] * sample[i]);
    }
    CHECK(fabs(ratio[1] - ratio[0]) < 0.05 * TRAIN * PIXELS, "%g", (ratio[1] - ratio[0]) / (TRAIN * PIXELS));
    if (conditional &&
        !(sigma > 0)) { /* log p = -q / 2 exp(-y) - PIXELS y / 2: the score is right to the noise of a few fields */
        CHECK(pf64_symflow_score_parameters(flow, score, NULL, validate.x, validate.y, 60) == PF_OK, "%s",
              pf_message());
        for (int i = 0; i < 60; i++) slope_error += score[i] * score[i] / 60; /* its variance is PIXELS / 2 */
        CHECK(slope_error > 0.6 * PIXELS / 2 && slope_error < 1.8 * PIXELS / 2, "%g", slope_error);
    }
    if (conditional) { /* the likelihood is right, or nearly: there is little to temper */
        double gain[2], t;
        CHECK(pf64_symflow_calibrate(flow, gain, &validate, 1) == PF_OK, "%s", pf_message());
        t = pf64_symflow_temperature(flow);
        CHECK(t > 0.6 && t < 1.7 && gain[1] >= gain[0] && gain[1] > 1, "temperature %g, gain %g %g", t, gain[0],
              gain[1]);
    }
    pf64_symflow_free(flow);
}

/* The callback counts down, then stops the fit. */
static int count_down(void *user, const pf_symflow_progress *p)
{
    (void)p;
    return !--*(int *)user;
}

/* A fit that is interrupted after every report, and goes on, is bit for bit the one that was not. */
static void test_resume(const pf32_fields *train, const pf32_fields *validate, pf_symflow_options o)
{
    pf32_symflow *whole, *part;
    ptrdiff_t n[2] = {SIDE, SIDE};
    double box[2] = {1, 1}, noise_k[2] = {1, 100}, noise_power[2] = {0.1, 0.001};
    char path[] = "/tmp/pyflow-test-XXXXXX";
    void *bytes[2];
    size_t size[2];
    int left, parts = 0, fd = mkstemp(path);
    CHECK(fd >= 0, "no temporary file");
    close(fd);
    remove(path);
    o.noise_k = noise_k;
    o.noise_power = noise_power;
    o.noise_knots = 2;
    CHECK(pf32_symflow_fit(&whole, train, validate, 2, n, box, 1, &o) == PF_OK, "%s", pf_message());
    o.checkpoint = path;
    o.progress = count_down;
    o.progress_user = &left;
    for (pf_status status = PF_INTERRUPTED; status == PF_INTERRUPTED; parts++) {
        o.checkpoint_seconds = parts % 2 ? 0 : 1e9;
        left = 1;
        status = pf32_symflow_fit(&part, train, validate, 2, n, box, 1, &o);
        CHECK((status == PF_INTERRUPTED || !status) && part, "%d %s", status, pf_message());
        CHECK(pf32_symflow_unfinished(part) == (status != PF_OK), "%d", status);
        if (status) pf32_symflow_free(part);
    }
    CHECK(parts == 7, "%d", parts); /* four looks at the first stage, two at the second, and the end */
    CHECK(pf32_symflow_write(whole, bytes, size) == PF_OK, "%s", pf_message());
    CHECK(pf32_symflow_write(part, bytes + 1, size + 1) == PF_OK, "%s", pf_message());
    CHECK(size[0] == size[1] && !memcmp(bytes[0], bytes[1], size[0]), "the resumed fit is another");
    pf_free(bytes[0]);
    pf_free(bytes[1]);
    pf32_symflow_free(part);
    left = 100; /* the file is still that of the last interruption */
    o.n_layers = 3;
    CHECK(pf32_symflow_fit(&part, train, validate, 2, n, box, 1, &o) == PF_BAD_ARGUMENT && !part, "%s", pf_message());
    CHECK(strstr(pf_message(), "another fit"), "%s", pf_message());
    o.n_layers = 2;
    CHECK(pf32_symflow_save(whole, path) == PF_OK, "%s", pf_message());
    CHECK(pf32_symflow_fit(&part, train, validate, 2, n, box, 1, &o) == PF_OK && left == 100, "%s", pf_message());
    pf32_symflow_free(part);
    pf32_symflow_free(whole);
    remove(path);
    o.checkpoint = "/nowhere/at/all";
    o.checkpoint_seconds = 0;
    CHECK(pf32_symflow_fit(&part, train, validate, 2, n, box, 1, &o) == PF_IO_ERROR && part, "%s", pf_message());
    pf32_symflow_free(part);
}

/* The network's first weights are numbers that no sample of the same seed is made of. */
static void test_first_weights(const pf32_fields *train, pf_symflow_options o)
{
    pf32_symflow *flow;
    o.epochs = 0;
    o.posterior_weight = 0;
    o.noise_condition = 0;
    CHECK(pf32_symflow_fit(&flow, train, NULL, 2, (ptrdiff_t[]){SIDE, SIDE}, (double[]){1, 1}, 1, &o) == PF_OK, "%s",
          pf_message());
    for (uint64_t row = 0; row < 10; row++) {
        double z;
        pf_normals(&z, o.seed, row, 0, 1);
        CHECK(fabs(sqrt(0.5) * (double)flow->net->w[0] - z) > 1e-6, "%g is that of row %d", z, (int)row);
    }
    CHECK(flow->net->w[0] != 0, "no weights");
    pf32_symflow_free(flow);
}

/* The same fit with one thread and three, bit for bit; interrupted, it is the best so far; bad input is refused. */
static void test_fit_laws(void)
{
    static double x[FIELDS * PIXELS];
    static float x32[FIELDS * PIXELS];
    double y[FIELDS], exact[FIELDS], p[2][FIELDS];
    ptrdiff_t n[2] = {SIDE, SIDE}, reached = 0;
    double box[2] = {1, 1};
    gaussian_fields(x, y, exact, 0);
    for (int i = 0; i < FIELDS * PIXELS; i++) x32[i] = (float)x[i];
    pf32_fields train = {x32, y, 60}, validate = {x32 + 60 * PIXELS, y + 60, 20};
    pf_symflow_options o;
    pf_symflow_defaults(&o);
    o.n_layers = 2;
    o.filter_knots = 12;
    o.hidden[0] = o.hidden[1] = 20;
    o.epochs = 3;
    o.batch = 40;
    o.noise[1] = 0.1;
    o.posterior_weight = 1;
    o.posterior_epochs = 1;
    for (int noise = 0; noise < 2; noise++) {
        o.noise_condition = noise;
        double y2[2 * FIELDS];
        for (int i = 0; i < FIELDS; i++) y2[2 * i] = y[i], y2[2 * i + 1] = 0.05;
        for (int t = 0; t < 2; t++) {
            pf32_symflow *flow = NULL;
            pf_set_num_threads(t ? 3 : 1);
            CHECK(pf32_symflow_fit(&flow, &train, &validate, 2, n, box, 1, &o) == PF_OK, "%s", pf_message());
            CHECK(pf32_symflow_logp(flow, p[t], x32, noise ? y2 : y, 50) == PF_OK, "%s", pf_message());
            pf32_symflow_free(flow);
        }
        CHECK(!memcmp(p[0], p[1], 50 * sizeof(double)), "threads change the fit: %g", p[0][0] - p[1][0]);
    }
    pf_set_num_threads(0);
    test_resume(&train, &validate, o);
    test_first_weights(&train, o);
    pf32_symflow *flow = NULL;
    o.progress = stop_at_two;
    o.progress_user = &reached;
    CHECK(pf32_symflow_fit(&flow, &train, &validate, 2, n, box, 1, &o) == PF_INTERRUPTED && flow && reached == 2, "%td",
          reached);
    pf32_symflow_free(flow);
    o.progress = NULL;
    o.learning_rate = 1e30;
    CHECK(pf32_symflow_fit(&flow, &train, &validate, 2, n, box, 1, &o) == PF_DEGENERATE && flow, "%s", pf_message());
    double at[2] = {y[0], 0.05}; /* and the noise: the start is what is left */
    CHECK(pf32_symflow_logp(flow, p[0], x32, at, 1) == PF_OK && fabs(p[0][0] - exact[0]) < 0.5 * PIXELS, "%g, not %g",
          p[0][0], exact[0]);
    pf32_symflow_free(flow);
    o.learning_rate = 1e-3;
    for (int i = 0; i < FIELDS; i++) y[i] = 2;
    CHECK(pf32_symflow_fit(&flow, &train, NULL, 2, n, box, 1, &o) == PF_DEGENERATE && strstr(pf_message(), "column 0"),
          "%s", pf_message());
    box[1] = 0;
    CHECK(pf32_symflow_fit(&flow, &train, NULL, 2, n, box, 0, &o) == PF_BAD_ARGUMENT, "%s", pf_message());
    box[1] = 1;
    o.posterior_weight = 0;
    o.noise_condition = 0;
    for (int i = 0; i < FIELDS * PIXELS; i++) x32[i] = 3;
    train.y = NULL;
    o.noise[1] = 0;
    CHECK(pf32_symflow_fit(&flow, &train, NULL, 2, n, box, 0, &o) == PF_DEGENERATE && strstr(pf_message(), "constant"),
          "%s", pf_message());
}

/* ---- log p(y|x) ------------------------------------------------------------------------------------------- */

/* Gaussian fields with log P(k) = y_0 + y_1 log(k / 6), y uniform in [-1, 1]^2: their posterior is known. */
enum { SIDE_P = 32, PIXELS_P = SIDE_P * SIDE_P, FIELDS_P = 440, TRAIN_P = 400, HELD_P = FIELDS_P - TRAIN_P };

static double log_power(double k, const double *y) { return y[0] + y[1] * log(fmax(k / (2 * M_PI), 1) / 6); }

/* log of the mean of exp(b log_p[n][n]) over the square; log p at the best point is taken off first. */
static double log_mean(const double *log_p, double b, ptrdiff_t n)
{
    double most = -INFINITY, sum = 0;
    for (ptrdiff_t i = 0; i < n * n; i++) most = fmax(most, log_p[i]);
    for (ptrdiff_t i = 0; i < n * n; i++) sum += exp(b * (log_p[i] - most)) / (double)(n * n);
    return b * most + log(sum);
}

/* The flow's log p(y|x), as fine-tuning and calibration estimate it, against the integral of its log p(x|y) on a fine
 * grid: at the true y; at the y of other fields, far out in the tails; and with b. And against the exact one. */
static void test_posterior(void)
{
    enum { GRID = 64, FINE = 128, SOME = 12 };
    static double x[FIELDS_P * PIXELS_P], grid[GRID * GRID][2], log_p[SOME][GRID * GRID], exact[GRID * GRID],
        fine[FINE * FINE][2], fine_p[4][FINE * FINE];
    double y[FIELDS_P][2], far[SOME][2], z[PIXELS_P], estimate[SOME], at_y[SOME], gain[2];
    pf64_filter *f;
    CHECK(pf64_filter_new(&f, 2, (ptrdiff_t[]){SIDE_P, SIDE_P}, (double[]){1, 1}) == PF_OK, "%s", pf_message());
    double *t = PF_ALLOC(double, f->shells), *power = PF_ALLOC(double, f->shells),
           *spectrum = PF_ALLOC(double, f->fft->spectrum), *work = PF_ALLOC(double, f->work);
    for (int i = 0; i < FIELDS_P; i++) {
        uint32_t word[4];
        pf_philox(word, 21, 2, (uint64_t)i);
        for (int j = 0; j < 2; j++) y[i][j] = word[j] * 0x1p-31 - 1;
        for (ptrdiff_t s = 0; s < f->shells; s++) t[s] = exp(0.5 * log_power(f->k[s], y[i]));
        pf_normals(z, 22, (uint64_t)i, 0, PIXELS_P);
        pf64_filter_apply(f, x + i * PIXELS_P, spectrum, z, t, work);
    }
    pf64_symflow *flow = NULL;
    pf_symflow_options o;
    pf_symflow_defaults(&o);
    o.n_layers = 1;
    o.filter_knots = 12;
    o.hidden[0] = o.hidden[1] = 32;
    o.epochs = 40;
    o.learning_rate = 3e-3;
    pf64_fields train = {x, y[0], TRAIN_P}, held = {x + TRAIN_P * PIXELS_P, y[TRAIN_P], HELD_P},
                some = {held.x, held.y, SOME}, wrong = {held.x, far[0], SOME};
    CHECK(pf64_symflow_fit(&flow, &train, NULL, 2, (ptrdiff_t[]){SIDE_P, SIDE_P}, (double[]){1, 1}, 2, &o) == PF_OK,
          "%s", pf_message());
    const double *range = pf64_symflow_range(flow);
    for (int i = 0; i < GRID * GRID; i++) {
        grid[i][0] = range[0] + (i / GRID + 0.5) / GRID * (range[2] - range[0]);
        grid[i][1] = range[1] + (i % GRID + 0.5) / GRID * (range[3] - range[1]);
    }
    CHECK(pf64_symflow_logp_at(flow, log_p[0], some.x, grid[0], SOME, GRID * GRID) == PF_OK, "%s", pf_message());
    for (int i = 0; i < SOME; i++)
        for (int j = 0; j < 2; j++) far[i][j] = held.y[2 * ((i + 5) % SOME) + j];
    for (int is_wrong = 0; is_wrong < 2; is_wrong++)
        for (int draws = 127; draws <= 383; draws += 256) {
            const pf64_fields *at = is_wrong ? &wrong : &some;
            double mean = 0, square = 0;
            CHECK(pf64_sym_log_posterior(estimate, flow, at, draws, 7) == PF_OK, "%s", pf_message());
            CHECK(pf64_symflow_logp(flow, at_y, at->x, at->y, SOME) == PF_OK, "%s", pf_message());
            for (int i = 0; i < SOME; i++) {
                double error = estimate[i] - (at_y[i] - log_mean(log_p[i], 1, GRID));
                mean += error / SOME;
                square += error * error / SOME;
                if (is_wrong) CHECK(estimate[i] < -5, "%g", estimate[i]);
            }
            CHECK(fabs(mean) < (draws < 200 ? 0.05 : 0.02), "%d draws, %d: off by %g nats", draws, is_wrong, mean);
            CHECK(sqrt(square) < (draws < 200 ? 0.15 : 0.05), "%d draws, %d: off by %g nats", draws, is_wrong,
                  sqrt(square));
        }
    double short_of = 0; /* of the exact log p(y|x), the prior that of the training y's range */
    CHECK(pf64_symflow_logp(flow, at_y, some.x, some.y, SOME) == PF_OK, "%s", pf_message());
    for (int i = 0; i < SOME; i++) {
        for (ptrdiff_t s = 0; s < f->shells; s++) power[s] = 0;
        pf64_filter_power(f, power, some.x + i * PIXELS_P, work);
        double truth = 0;
        for (int g = -1; g < GRID * GRID; g++) {
            double sum = 0;
            for (ptrdiff_t s = 0; s < f->shells; s++) {
                double l = log_power(f->k[s], g < 0 ? some.y + 2 * i : grid[g]);
                sum -= 0.5 * (f->modes[s] * l + power[s] / PIXELS_P * exp(-l));
            }
            if (g < 0) truth = sum;
            else exact[g] = sum;
        }
        short_of += (truth - log_mean(exact, 1, GRID) - at_y[i] + log_mean(log_p[i], 1, GRID)) / SOME;
    }
    CHECK(fabs(short_of) < 0.2, "%g nats", short_of);
    CHECK(pf64_symflow_calibrate(flow, gain, &held, 1) == PF_OK, "%s", pf_message());
    double b = pf64_symflow_temperature(flow);
    CHECK(b > 0.75 && b < 1.35, "temperature %g, gain %g %g", b, gain[0], gain[1]);
    CHECK(pf64_symflow_calibrate(flow, gain, &some, 1) == PF_OK, "%s", pf_message());
    b = pf64_symflow_temperature(flow);
    for (int c = 0; c < 4; c++) { /* gain[0] at b = 1, gain[1] at b, and no better nearby */
        double mean = 0, at = c < 2 ? (c ? b : 1) : b * (c > 2 ? 1.1 : 1 / 1.1);
        for (int i = 0; i < SOME; i++) mean += (at * at_y[i] - log_mean(log_p[i], at, GRID)) / SOME;
        if (c < 2) CHECK(fabs(gain[c] - mean) < 0.03, "b = %g: %g, not %g", at, gain[c], mean);
        else CHECK(mean < gain[1] + 0.01, "b = %g: %g, and %g at %g", b, gain[1], mean, at);
    }
    /* posteriors that peak elsewhere, by a few of their widths: the temperature is low, and as the grid has it */
    for (int i = 0; i < SOME; i++)
        for (int j = 0; j < 2; j++) far[i][j] = 0.9 * some.y[2 * i + j] + (i % 2 ? 0.1 : -0.1);
    CHECK(pf64_symflow_calibrate(flow, gain, &wrong, 1) == PF_OK, "%s", pf_message());
    b = pf64_symflow_temperature(flow);
    CHECK(pf64_symflow_logp(flow, at_y, wrong.x, wrong.y, SOME) == PF_OK, "%s", pf_message());
    double best[2] = {-INFINITY, 0};
    for (double at = b / 4; at < 4 * b; at *= 1.05) {
        double mean = 0;
        for (int i = 0; i < SOME; i++) mean += (at * at_y[i] - log_mean(log_p[i], at, GRID)) / SOME;
        if (mean > best[0]) best[0] = mean, best[1] = at;
    }
    CHECK(b < 0.5 && fabs(log(b / best[1])) < 0.1 && fabs(gain[1] - best[0]) < 0.03, "b = %g: %g, not %g: %g", b,
          gain[1], best[1], best[0]);
    /* posteriors piled up in the corners of the prior's box: they peak outside it */
    double corner[4][2];
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 2; j++) corner[i][j] = i >> j & 1 ? 1.05 : -1.05;
        for (ptrdiff_t s = 0; s < f->shells; s++) t[s] = exp(0.5 * log_power(f->k[s], corner[i]));
        pf_normals(z, 23, (uint64_t)i, 0, PIXELS_P);
        pf64_filter_apply(f, x + i * PIXELS_P, spectrum, z, t, work);
        for (int j = 0; j < 2; j++) corner[i][j] *= 0.9;
    }
    for (int i = 0; i < FINE * FINE; i++) {
        fine[i][0] = range[0] + (i / FINE + 0.5) / FINE * (range[2] - range[0]);
        fine[i][1] = range[1] + (i % FINE + 0.5) / FINE * (range[3] - range[1]);
    }
    pf64_fields corners = {x, corner[0], 4};
    CHECK(pf64_symflow_logp_at(flow, fine_p[0], x, fine[0], 4, FINE * FINE) == PF_OK, "%s", pf_message());
    CHECK(pf64_symflow_logp(flow, at_y, x, corner[0], 4) == PF_OK, "%s", pf_message());
    CHECK(pf64_sym_log_posterior(estimate, flow, &corners, 255, 7) == PF_OK, "%s", pf_message());
    for (int i = 0; i < 4; i++) {
        double on_grid = at_y[i] - log_mean(fine_p[i], 1, FINE);
        CHECK(fabs(estimate[i] - on_grid) < 0.2, "corner %d: %g, not %g", i, estimate[i], on_grid);
    }
    free(t), free(power), free(spectrum), free(work);
    pf64_filter_free(f);
    pf64_symflow_free(flow);
}

int main(void)
{
    for (int i = 0; i < MESHES; i++) {
        test_fft(meshes + i);
        if (i < MESHES - 1) test_jacobian(meshes + i);
        test_gradients(meshes + i);
    }
    test_smoothing();
    test_symmetry();
    test_many();
    test_fit(0, 0);
    test_fit(0.8, 0);
    test_fit(0, 1);
    test_fit(0.8, 1);
    test_fit_laws();
    test_posterior();
    if (!failures) puts("symflow: all tests passed");
    return failures != 0;
}
