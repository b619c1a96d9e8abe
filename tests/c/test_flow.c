/* Stacks of layers: laws that hold for any parameters. Transforms against the definition of a Fourier transform,
 * log|det| against a numerical Jacobian, gradients against finite differences - of symmetric layers alone, and among
 * layers of columns, with and without conditions -, symmetry under shifts, flips and turns. */
#ifndef real
#include "check.h"
#include "train.h"

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
enum { MESHES = sizeof meshes / sizeof *meshes, PSI = 5, FILTER = 20 };

#define TWICE "../tests/c/test_flow.c"
#include "twice.h"

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

static void test_jacobian(const mesh *g, int mixed)
{
    pf64_flow *f = pf64_random_flow(g, mixed, 0);
    ptrdiff_t n = f->space.d;
    double *x = PF_ALLOC(double, n), *z = PF_ALLOC(double, 2 * n), *jacobian = PF_ALLOC(double, n *n), logj, back,
           h = 1e-6;
    for (ptrdiff_t i = 0; i < n; i++) x[i] = 2 * normal((uint64_t)i);
    for (ptrdiff_t j = 0; j < n; j++) {
        double keep = x[j];
        for (int s = 0; s < 2; s++) {
            x[j] = keep + (s ? h : -h);
            pf64_flow_forward(f, z + s * n, NULL, x, NULL, NULL, 1);
        }
        x[j] = keep;
        for (ptrdiff_t i = 0; i < n; i++) jacobian[i * n + j] = (z[n + i] - z[i]) / (2 * h);
    }
    CHECK(pf64_flow_forward(f, z, &logj, x, NULL, NULL, 1) == PF_OK, "%s", pf_message());
    double numerical = log_det(jacobian, n);
    CHECK(fabs(logj - numerical) < 1e-6 * (double)n, "%.10g %.10g", logj, numerical);
    CHECK(pf64_flow_inverse(f, z, &back, z, NULL, NULL, 1) == PF_OK, "%s", pf_message());
    double worst = 0;
    for (ptrdiff_t i = 0; i < n; i++) worst = fmax(worst, fabs(z[i] - x[i]));
    CHECK(worst < 1e-11 && fabs(back + logj) < 1e-10, "%g %g", worst, back + logj);
    free(x), free(z), free(jacobian);
    pf64_flow_free(f);
}

/* d log p / dx, / dy against central differences; and 32 bits against 64 */
static void test_scores(const mesh *g, int mixed)
{
    pf64_flow *f = pf64_random_flow(g, mixed, 2);
    pf32_flow *f32 = pf32_random_flow(g, mixed, 2);
    ptrdiff_t n = f->space.d;
    double *x = PF_ALLOC(double, n), *score = PF_ALLOC(double, n), y[2] = {0.4, -0.7}, gy[2], logp[2], gy32[2],
           h = 1e-6;
    float *x32 = PF_ALLOC(float, n), *score32 = PF_ALLOC(float, n);
    for (ptrdiff_t i = 0; i < n; i++) x[i] = x32[i] = (float)(2 * normal((uint64_t)i));
    CHECK(pf64_flow_score(f, score, logp, x, y, NULL, 1) == PF_OK, "%s", pf_message());
    CHECK(pf64_flow_score_parameters(f, gy, logp + 1, x, y, 1) == PF_OK, "%s", pf_message());
    CHECK(logp[0] == logp[1], "%g", logp[0] - logp[1]);
    double scale = 0, worst = 0, worst32 = 0;
    for (ptrdiff_t i = 0; i < n; i++) scale = fmax(scale, fabs(score[i]));
    for (ptrdiff_t i = 0; i < PF_MIN(n, 40); i++) {
        double keep = x[i], p[2];
        for (int s = 0; s < 2; s++) {
            x[i] = keep + (s ? h : -h);
            pf64_flow_logp(f, p + s, x, y, NULL, 1);
        }
        x[i] = keep;
        worst = fmax(worst, fabs((p[1] - p[0]) / (2 * h) - score[i]));
    }
    CHECK(worst < 1e-6 * scale, "%g of %g", worst, scale);
    for (int j = 0; j < 2; j++) {
        double keep = y[j], p[2];
        for (int s = 0; s < 2; s++) {
            y[j] = keep + (s ? h : -h);
            pf64_flow_logp(f, p + s, x, y, NULL, 1);
        }
        y[j] = keep;
        double slope = (p[1] - p[0]) / (2 * h);
        CHECK(fabs(slope - gy[j]) < 1e-6 * (1 + fabs(gy[j])), "%g %g", slope, gy[j]);
    }
    double logp32;
    pf32_flow_score(f32, score32, &logp32, x32, y, NULL, 1);
    pf32_flow_score_parameters(f32, gy32, NULL, x32, y, 1);
    for (ptrdiff_t i = 0; i < n; i++) worst32 = fmax(worst32, fabs(score32[i] - score[i]));
    CHECK(worst32 < 1e-4 * scale, "%g of %g", worst32, scale);
    CHECK(fabs(logp32 - logp[0]) < 1e-5 * (double)n, "%g %g", logp32, logp[0]);
    for (int j = 0; j < 2; j++) CHECK(fabs(gy32[j] - gy[j]) < 1e-3 * (1 + fabs(gy[j])), "%g %g", gy32[j], gy[j]);
    free(x), free(score), free(x32), free(score32);
    pf64_flow_free(f);
    pf32_flow_free(f32);
}

/* The gradient that training climbs, of the weighted mean of log p over a batch of several blocks: of every parameter
 * of every layer, and of some of the network's weights, against central differences. */
static void test_training_gradient(const mesh *g, int mixed, ptrdiff_t n_y)
{
    enum { POINTS = 37 };
    pf64_flow *f = pf64_random_flow(g, mixed, n_y);
    ptrdiff_t n = f->space.d, n_w = f->net ? f->net->net->n_w : 0;
    double *x = PF_ALLOC(double, POINTS *n), y[2 * POINTS], weight[POINTS], total = 0, h = 1e-6;
    for (ptrdiff_t i = 0; i < POINTS * n; i++) x[i] = 2 * normal((uint64_t)i);
    for (int i = 0; i < 2 * POINTS; i++) y[i] = normal(9000 + (uint64_t)i);
    for (int i = 0; i < POINTS; i++) total += weight[i] = i % 5;
    pf64_data data = {.x = x, .y = n_y ? y : NULL, .weight = weight, .n = POINTS, .n_y = n_y};
    pf_train_options o;
    pf_train_defaults(&o);
    pf64_trainer t = {.data = &data, .gw_empty = 1};
    CHECK(pf64_trainer_init(&t, f, &o, POINTS, n_y, 0) == PF_OK, "%s", pf_message());
    for (int i = 0; i < POINTS; i++) t.row[i] = (i * 7) % POINTS;
    for (int gradient = 1; gradient >= 0; gradient--) {
        double *logp = PF_ALLOC(double, POINTS);
        memset(t.gbase, 0, (size_t)f->n_theta * sizeof(double));
        t.gw_empty = 1;
        for (int i = 0; i < POINTS; i++) t.weight[i] = gradient ? weight[t.row[i]] : 0;
        t.factor = 1 / total;
        for (ptrdiff_t first = 0; first < POINTS; first += t.step)
            CHECK(!pf64_trainer_block(&t, first, PF_MIN(t.step, POINTS - first), NULL), "%s", pf_message());
        CHECK(!pf64_flow_logp(f, logp, x, data.y, NULL, POINTS), "%s", pf_message());
        for (int i = 0; i < POINTS; i++)
            CHECK(fabs(logp[t.row[i]] - t.logp[i]) < 1e-9 * (double)n, "%g %g", logp[t.row[i]], t.logp[i]);
        free(logp);
        if (!gradient) break;
        for (ptrdiff_t l = 0; l <= f->n_layers; l++) { /* some parameters of every layer, and then some weights */
            double *theta = l < f->n_layers ? f->theta + f->at[l] : n_w ? f->net->net->w : NULL;
            const double *mine = l < f->n_layers ? t.gbase + f->at[l] : t.gw;
            ptrdiff_t all = l < f->n_layers ? f->layers[l]->n_theta : n_w;
            for (ptrdiff_t j = 0; j < all; j += all / 40 + 1) {
                double keep = theta[j], p[2] = {0}, each[POINTS];
                for (int s = 0; s < 2; s++) {
                    theta[j] = keep + (s ? h : -h);
                    pf64_changed(f);
                    CHECK(!pf64_flow_logp(f, each, x, data.y, NULL, POINTS), "%s", pf_message());
                    for (int i = 0; i < POINTS; i++) p[s] += weight[i] * each[i] / total;
                }
                theta[j] = keep;
                double slope = (p[1] - p[0]) / (2 * h), error = fabs(slope - mine[j]) / (1 + fabs(slope));
                CHECK(error < 2e-5, "%td x %td, mixed %d, %td conditions, layer %td, parameter %td: %g, not %g",
                      g->n[0], g->n[1], mixed, n_y, l, j, mine[j], slope);
            }
        }
        pf64_changed(f);
    }
    pf64_trainer_clear(&t);
    free(x);
    pf64_flow_free(f);
}

/* What the network says of one knot of log T goes to its neighbours as a Gaussian, mirrored at the ends, and to no
 * other parameter; what it says of all alike stays. */
static void test_smoothing(void)
{
    enum { M = 40, K = 5, KNOT = 3, LAYER = 3 * K + 2 * M };
    const double sigma = 0.05 * M; /* of the smoothing: see symmetric.c */
    pf64_flow *f;
    CHECK(!pf64_flow_new(&f, 2, (ptrdiff_t[]){4, 4}, (double[]){1, 1}, 0), "%s", pf_message());
    for (int l = 0; l < 2; l++) CHECK(!pf64_flow_add_symmetric(f, K, M), "%s", pf_message());
    memset(f->theta, 0, (size_t)f->n_theta * sizeof(double));
    CHECK(!pf64_conditioner_new(&f->net, f->layers, 2, 1, (ptrdiff_t[]){3}, 1), "%s", pf_message());
    pf64_mlp *net = f->net->net;
    double *bias = net->w + net->n_w - f->n_theta, *theta = PF_ALLOC(double, NET_ROWS * f->n_theta), y = 0, sum = 0,
           worst = 0, *memory = PF_ALLOC(double, pf64_conditioner_memory(f->net));
    for (ptrdiff_t j = 0; j < f->n_theta; j++) bias[j] = 1;
    CHECK(!pf64_conditioner_rows(f->net, theta, memory, f->theta, f->at, f->layers, &y, 1), "%s", pf_message());
    for (ptrdiff_t j = 0; j < f->n_theta; j++) worst = fmax(worst, fabs(theta[j] - NET_SCALE));
    CHECK(worst < 1e-15, "%g", worst);
    for (int t = -M; t <= M; t++) sum += abs(t) <= 3 * sigma ? exp(-0.5 * t * t / (sigma * sigma)) : 0;
    for (int c = 0; c < 2; c++) { /* the second layer's positions, its values */
        ptrdiff_t first = LAYER + 3 * K + c * M;
        memset(bias, 0, (size_t)f->n_theta * sizeof(double));
        bias[first + KNOT] = 1;
        CHECK(!pf64_conditioner_rows(f->net, theta, memory, f->theta, f->at, f->layers, &y, 1), "%s", pf_message());
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
    pf64_flow_free(f);
}

enum { SIDE = 12 };

/* A square field's copies, shifted, flipped and turned */
static void move(double to[4][SIDE][SIDE], double from[SIDE][SIDE])
{
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            to[1][i][j] = from[(i + 5) % SIDE][(j + 3) % SIDE];
            to[2][i][j] = from[SIDE - 1 - i][j];
            to[3][i][j] = from[j][SIDE - 1 - i];
        }
}

/* Shifting, flipping, transposing a square field commutes with the flow; log p does not change. */
static void test_symmetry(void)
{
    mesh g = {2, {SIDE, SIDE}, {3, 3}};
    pf64_flow *f = pf64_random_flow(&g, 0, 0);
    double x[4][SIDE][SIDE], z[4][SIDE][SIDE], moved[4][SIDE][SIDE], logp[4], worst = 0;
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) x[0][i][j] = 2 * normal((uint64_t)(i * SIDE + j));
    move(x, x[0]);
    CHECK(pf64_flow_forward(f, z[0][0], NULL, x[0][0], NULL, NULL, 4) == PF_OK, "%s", pf_message());
    CHECK(pf64_flow_logp(f, logp, x[0][0], NULL, NULL, 4) == PF_OK, "%s", pf_message());
    move(moved, z[0]);
    for (int t = 1; t < 4; t++) {
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++) worst = fmax(worst, fabs(moved[t][i][j] - z[t][i][j]));
        CHECK(worst < 1e-12, "%g", worst);
        CHECK(fabs(logp[t] - logp[0]) < 1e-10, "%g", logp[t] - logp[0]);
    }
    pf64_flow_free(f);
}

int main(void)
{
    for (int i = 0; i < MESHES; i++) {
        test_fft(meshes + i);
        for (int mixed = 0; mixed < 2; mixed++) {
            if (i < MESHES - 1) test_jacobian(meshes + i, mixed);
            test_scores(meshes + i, mixed);
            for (ptrdiff_t n_y = 0; n_y <= 2; n_y += 2)
                if (i < MESHES - 1) test_training_gradient(meshes + i, mixed, n_y);
            pf32_test_first_layers(meshes + i, mixed);
            pf64_test_first_layers(meshes + i, mixed);
            pf32_test_many(meshes + i, mixed);
            pf64_test_many(meshes + i, mixed);
        }
    }
    test_smoothing();
    test_symmetry();
    if (!check_failures) puts("flow: all tests passed");
    return check_result();
}

#else /* ---- once in each precision ------------------------------------------------------------------------------- */

/* Tables for parameters that were written to. */
static void X(changed)(X(flow) *f)
{
    real *work = PF_ALLOC(real, X(flow_prepare_work)(f));
    pf_begin(); /* OpenBLAS uses one thread */
    X(flow_prepare)(f, work);
    pf_end(PF_OK);
    free(work);
}

/* A flow with random parameters, conditional if n_y: a scale and two symmetric layers; mixed: and sliced and affine
 * ones before, between and after them. */
static X(flow) *X(random_flow)(const mesh *g, int mixed, ptrdiff_t n_y)
{
    X(flow) *f;
    uint64_t at = 1000;
    if (X(flow_new)(&f, g->ndim, g->n, g->box, 0)) return NULL;
    X(flow_add_scale)(f, 0.3, 1.7);
    if (mixed) X(flow_add_sliced)(f, PF_MIN(3, f->space.d), 6, 1);
    X(flow_add_symmetric)(f, PSI, FILTER);
    if (mixed) X(flow_add_affine)(f, NULL, NULL);
    X(flow_add_symmetric)(f, PSI, FILTER);
    if (mixed) X(flow_add_sliced)(f, 0, 5, 2);
    for (ptrdiff_t l = 0; l < f->n_layers; l++) {
        double *t = f->theta + f->at[l];
        const X(layer) *layer = f->layers[l];
        if (layer->ops != &X(symmetric_ops)) {
            for (ptrdiff_t j = 0; j < layer->n_theta; j++) t[j] += 0.1 * normal(at++);
            if (layer->ops->retract) layer->ops->retract(layer, t);
            continue;
        }
        for (int c = 0; c < 2; c++)
            for (int j = 0; j < PSI; j++) *t++ = j ? 0.3 * normal(at++) : -2 + 0.1 * normal(at++);
        for (int j = 0; j < PSI; j++) *t++ = 0.3 * normal(at++);
        for (int j = 0; j < FILTER; j++) *t++ = j ? log(1.0 / FILTER) + 0.2 * normal(at++) : 0.1;
        for (int j = 0; j < FILTER; j++) *t++ = 0.4 * normal(at++);
    }
    if (n_y) {
        CHECK(!X(conditioner_new)(&f->net, f->layers, f->n_layers, n_y, (ptrdiff_t[]){6, 7}, 2), "%s", pf_message());
        X(mlp_draw)(f->net->net, 9, 0);
        for (ptrdiff_t i = 0; i < f->net->net->n_w; i++) f->net->net->w[i] += (real)(0.05 * normal(at++));
        for (ptrdiff_t j = 0; j < n_y; j++) {
            f->net->stats[j] = 0.2;
            f->net->stats[n_y + j] = 1.5;
        }
    }
    CHECK(!X(flow_own_tables)(f), "%s", pf_message());
    X(changed)(f);
    return f;
}

/* What the network says of the first layers, their copy's network says too. */
static void X(test_first_layers)(const mesh *g, int mixed)
{
    X(flow) *f = X(random_flow)(g, mixed, 2), *part;
    real *memory = PF_ALLOC(real, X(conditioner_memory)(f->net));
    double *all = PF_ALLOC(double, 3 * f->net->n_row), *some = PF_ALLOC(double, 3 * f->net->n_row), y[6];
    for (int i = 0; i < 6; i++) y[i] = normal((uint64_t)i);
    CHECK(!X(conditioner_rows)(f->net, all, memory, f->theta, f->at, f->layers, y, 3), "%s", pf_message());
    for (ptrdiff_t k = 0; k <= f->n_layers; k++) {
        CHECK(!X(flow_copy)(&part, f, k), "%s", pf_message());
        ptrdiff_t n_row = part->net ? part->net->n_row : 0, served = 0;
        for (ptrdiff_t l = 0; l < k; l++) served += f->layers[l]->ops == &X(symmetric_ops) ? f->layers[l]->n_theta : 0;
        CHECK(n_row == served && X(flow_conditions)(part) == (served ? 2 : 0), "%td of %td", n_row, served);
        if (n_row)
            CHECK(!X(conditioner_rows)(part->net, some, memory, part->theta, part->at, part->layers, y, 3), "%s",
                  pf_message());
        double worst = 0;
        for (ptrdiff_t i = 0; i < 3 * n_row; i++)
            worst = fmax(worst, fabs(some[i] - all[i / n_row * f->net->n_row + i % n_row]));
        CHECK(worst < (REAL_BITS == 32 ? 1e-6 : 1e-14), "%td layers: %g", k, worst);
        X(flow_free)(part);
    }
    free(memory), free(all), free(some);
    X(flow_free)(f);
}

/* Results do not depend on threads nor on what else is computed; a sample on its row alone; a copy and a file give the
 * same flow. */
static void X(test_many)(const mesh *g, int mixed)
{
    enum { N = 41 };
    X(flow) *f = X(random_flow)(g, mixed, 1), *again = NULL;
    ptrdiff_t n = f->space.d;
    real *x = PF_ALLOC(real, N * n), *score = PF_ALLOC(real, 2 * N * n);
    double y[N], logp[2][N], table[N][3], gy[2][N], one;
    for (int i = 0; i < N; i++) y[i] = normal((uint64_t)i);
    for (int t = 0; t < 2; t++) {
        pf_set_num_threads(t ? 3 : 1);
        CHECK(X(flow_sample)(f, x, logp[t], y, NULL, 77, 0, N) == PF_OK, "%s", pf_message());
        CHECK(X(flow_score)(f, score + t * N * n, NULL, x, y, NULL, N) == PF_OK, "%s", pf_message());
        CHECK(X(flow_score_parameters)(f, gy[t], NULL, x, y, N) == PF_OK, "%s", pf_message());
    }
    CHECK(!memcmp(logp[0], logp[1], sizeof *logp) && !memcmp(gy[0], gy[1], sizeof *gy), "threads change results");
    CHECK(!memcmp(score, score + N * n, (size_t)(N * n) * sizeof(real)), "threads change results");
    CHECK(X(flow_sample)(f, score, &one, y + 37, NULL, 77, 37, 1) == PF_OK && one == logp[0][37], "%g",
          one - logp[0][37]);
    CHECK(!memcmp(score, x + 37 * n, (size_t)n * sizeof(real)), "a sample depends on the rows before it");
    CHECK(X(flow_logp)(f, logp[1], x, y, NULL, N) == PF_OK, "%s", pf_message());
    double tolerance = (REAL_BITS == 32 ? 1e-4 : 1e-10) * (double)(n + 16);
    for (int i = 0; i < N; i++) CHECK(fabs(logp[0][i] - logp[1][i]) < tolerance, "%g %g", logp[0][i], logp[1][i]);
    CHECK(X(flow_logp_at)(f, table[0], x, y, N, 3) == PF_OK, "%s", pf_message());
    for (int i = 0; i < 3; i++) CHECK(table[i][i] == logp[1][i], "%g", table[i][i] - logp[1][i]);

    void *bytes;
    size_t size;
    CHECK(X(flow_set_note)(f, "{\"a\": 1}") == PF_OK && X(flow_write)(f, &bytes, &size) == PF_OK, "%s", pf_message());
    for (int copy = 0; copy < 2; copy++) {
        CHECK((copy ? X(flow_copy)(&again, f, f->n_layers) : X(flow_read)(&again, bytes, size)) == PF_OK, "%s",
              pf_message());
        CHECK(X(flow_logp)(again, logp[0], x, y, NULL, N) == PF_OK && !memcmp(logp[0], logp[1], sizeof *logp),
              "copy %d: it is another flow", copy);
        CHECK(!strcmp(X(flow_note)(again), "{\"a\": 1}"), "%s", X(flow_note)(again));
        X(flow_free)(again);
    }
    for (size_t cut = 0; cut < size; cut += size / 50)
        CHECK(X(flow_read)(&again, bytes, cut) == PF_BAD_FILE && !again, "cut at %zu", cut);
    pf_free(bytes);
    x[3 * n + 1] = NAN;
    CHECK(X(flow_logp)(f, logp[0], x, y, NULL, N) == PF_BAD_ARGUMENT && strstr(pf_message(), "field 3, pixel 1"), "%s",
          pf_message());
    CHECK(X(flow_logp)(f, logp[0], x, NULL, NULL, N) == PF_BAD_ARGUMENT && strstr(pf_message(), "y:"), "%s",
          pf_message());
    free(x), free(score);
    X(flow_free)(f);
    pf_set_num_threads(0);
}
#endif
