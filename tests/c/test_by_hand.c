/* Flows by hand: stacks of every kind of layer, in both precisions. What is done to many points is what is done to each
 * of them; inverse undoes forward; gradients are those of log p; what a flow cannot have is refused. */
#ifndef real
#include "check.h"
#include "small.h"
#include "train.h"

#define TWICE "test_by_hand.c"
#include "twice.h"

int main(void)
{
    int fd = mkstemp(small_checkpoint);
    if (fd < 0 || close(fd)) return perror(small_checkpoint), 1;
    pf32_test();
    pf64_test();
    unlink(small_checkpoint);
    return check_result();
}

#else

#define TOLERANCE (REAL_BITS == 32 ? 1e-4 : 1e-12)

/* Points that a flow is for, any number of them: fields of 4 x 6, or rows */
static real *X(points)(const X(flow) *f, ptrdiff_t n)
{
    ptrdiff_t size = n * X(flow_dim)(f);
    real *x = PF_ALLOC(real, size);
    for (ptrdiff_t i = 0; i < size; i++) x[i] = (real)small_normal(9, i);
    return x;
}

static void X(check_flow)(const X(flow) *f, const char *name, ptrdiff_t n)
{
    ptrdiff_t d = X(flow_dim)(f), n_y = X(flow_conditions)(f);
    real *x = X(points)(f, n), *z = X(points)(f, n), *back = X(points)(f, n), *one = X(points)(f, 1);
    double *logp = PF_ALLOC(double, n), *logj = PF_ALLOC(double, n), *minus = PF_ALLOC(double, n), *y = NULL, single;
    int32_t *label = X(flow_classes)(f) ? PF_ALLOC(int32_t, n) : NULL;
    if (n_y) y = PF_ALLOC(double, n *n_y);
    for (ptrdiff_t i = 0; i < n * n_y; i++) y[i] = i % n_y < 2 ? small_normal(10, i) : 0.2;
    for (ptrdiff_t i = 0; i < n && label; i++) label[i] = (int32_t)(i % X(flow_classes)(f));
    CHECK(!X(flow_forward)(f, z, logj, x, y, label, n), "%s: %s", name, pf_message());
    CHECK(!X(flow_inverse)(f, back, minus, z, y, label, n), "%s: %s", name, pf_message());
    CHECK(!X(flow_logp)(f, logp, x, y, label, n), "%s: %s", name, pf_message());
    for (ptrdiff_t i = 0; i < n; i++) {
        double worst = 0, square = 0;
        for (ptrdiff_t j = i * d; j < (i + 1) * d; j++) {
            worst = fmax(worst, fabs((double)(back[j] - x[j])));
            square += (double)z[j] * (double)z[j];
        }
        CHECK(worst < 10 * TOLERANCE, "float%d %s: point %td comes back %g away", REAL_BITS, name, i, worst);
        CHECK(fabs(logj[i] + minus[i]) < 10 * TOLERANCE * (double)d, "%s: %g %g", name, logj[i], minus[i]);
        double expected = logj[i] - 0.5 * square - 0.5 * (double)d * PF_LOG_2PI;
        CHECK(fabs(logp[i] - expected) < TOLERANCE * (double)d, "float%d %s: log p of point %td: %g, %g", REAL_BITS,
              name, i, logp[i], expected);
        pf_status status = X(flow_logp)(f, &single, x + i * d, y ? y + i * n_y : NULL, label ? label + i : NULL, 1);
        CHECK(!status && single == logp[i], "float%d %s: point %td alone has log p = %.17g, not %.17g", REAL_BITS, name,
              i, single, logp[i]);
    }
    CHECK(!X(flow_sample)(f, x, logp, y, label, 3, 0, n), "%s: %s", name, pf_message());
    CHECK(!X(flow_logp)(f, minus, x, y, label, n), "%s: %s", name, pf_message());
    for (ptrdiff_t i = 0; i < n; i++) {
        CHECK(fabs(minus[i] - logp[i]) < 10 * TOLERANCE * (double)d, "%s: log p of sample %td: %g, %g", name, i,
              logp[i], minus[i]);
        CHECK(!X(flow_sample)(f, one, NULL, y ? y + i * n_y : NULL, label ? label + i : NULL, 3, i, 1), "%s", name);
        CHECK(!memcmp(one, x + i * d, (size_t)d * sizeof(real)), "%s: sample %td alone is another", name, i);
    }
    free(x), free(z), free(back), free(one), free(logp), free(logj), free(minus), free(y), free(label);
}

/* d log p / dx, and d log p / dy, against differences; of the last of n points, so that it is not the first in a tile
 * that was used before */
static void X(check_score)(const X(flow) *f, const char *name, ptrdiff_t n)
{
    ptrdiff_t d = X(flow_dim)(f), n_y = X(flow_conditions)(f), at = (n - 1) * d;
    real *x = X(points)(f, n), *score = X(points)(f, n);
    double *logp = PF_ALLOC(double, n), *y = n_y ? PF_ALLOC(double, n *n_y) : NULL, *gy = PF_ALLOC(double, n *n_y);
    double step = 1e-5, end[2];
    int32_t *label = X(flow_classes)(f) ? PF_CALLOC(int32_t, n) : NULL;
    for (ptrdiff_t i = 0; i < n * n_y; i++) y[i] = i % n_y < 2 ? small_normal(10, i) : 0.2;
    CHECK(!X(flow_score)(f, score, logp, x, y, label, n), "%s: %s", name, pf_message());
    for (ptrdiff_t j = at; j < at + d; j++) {
        real middle = x[j];
        for (int side = 0; side < 2; side++) {
            x[j] = middle + (real)(side ? step : -step);
            CHECK(!X(flow_logp)(f, logp, x, y, label, n), "%s: %s", name, pf_message());
            end[side] = logp[n - 1];
        }
        double expected = (end[1] - end[0]) / (2 * step);
        CHECK(fabs(score[j] - expected) < 1e-6 * (1 + fabs(expected)), "%s: score %td: %g, %g", name, j - at, score[j],
              expected);
        x[j] = middle;
    }
    if (n_y && !label) CHECK(!X(flow_score_parameters)(f, gy, NULL, x, y, n), "%s: %s", name, pf_message());
    for (ptrdiff_t j = (n - 1) * n_y; j < n * n_y && !label; j++) {
        double middle = y[j];
        for (int side = 0; side < 2; side++) {
            y[j] = middle + (side ? step : -step);
            CHECK(!X(flow_logp)(f, logp, x, y, label, n), "%s: %s", name, pf_message());
            end[side] = logp[n - 1];
        }
        double expected = (end[1] - end[0]) / (2 * step);
        CHECK(fabs(gy[j] - expected) < 1e-6 * (1 + fabs(expected)), "%s: score of y: %g, %g", name, gy[j], expected);
        y[j] = middle;
    }
    free(x), free(score), free(logp), free(y), free(gy), free(label);
}

/* log p[n][m] of every point at every condition is that of the point at the condition */
static void X(check_at)(const X(flow) *f, ptrdiff_t n, ptrdiff_t m)
{
    ptrdiff_t d = X(flow_dim)(f), n_y = X(flow_conditions)(f);
    real *x = X(points)(f, n);
    double *y = PF_ALLOC(double, m *n_y), *at = PF_ALLOC(double, n *m), single;
    for (ptrdiff_t i = 0; i < m * n_y; i++) y[i] = i % n_y < 2 ? small_normal(10, i) : 0.2;
    CHECK(!X(flow_logp_at)(f, at, x, y, n, m), "%s", pf_message());
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t j = 0; j < m; j++) {
            CHECK(!X(flow_logp)(f, &single, x + i * d, y + j * n_y, NULL, 1), "%s", pf_message());
            CHECK(fabs(single - at[i * m + j]) < TOLERANCE * (double)d, "point %td at %td: %g, %g", i, j, single,
                  at[i * m + j]);
        }
    free(x), free(y), free(at);
}

/* ---- the trainer's gradient ---- */

/* Weighted sum of log p of the batch, and its gradient where it is asked for */
static double X(batch)(X(trainer) *t, const double *weight, ptrdiff_t n, int gradient)
{
    double sum = 0;
    memset(t->gbase, 0, (size_t)t->flow->n_theta * sizeof(double));
    t->gw_empty = 1;
    t->factor = 1;
    for (ptrdiff_t i = 0; i < n; i++) t->row[i] = i, t->weight[i] = gradient ? weight[i] : 0;
    X(flow_prepare)(t->flow, t->prepare);
    CHECK(!X(trainer_block)(t, 0, n, NULL), "%s", pf_message());
    for (ptrdiff_t i = 0; i < n; i++) sum += weight[i] * t->logp[i];
    return sum;
}

/* dL/dtheta of all layers, and some of the network's weights, against differences */
static void X(check_gradient)(const X(flow) *given, const char *name, const X(data) *data, double noise)
{
    X(flow) *f = NULL;
    pf_train_options o;
    ptrdiff_t n = data->n;
    double *weight = PF_ALLOC(double, n), step = 1e-5, end[2];
    small_train_options(&o);
    CHECK(!X(flow_copy)(&f, given, X(flow_layers)(given)), "%s", pf_message());
    f->noise[0] = noise;
    f->noise[1] = f->noise_condition ? 2 * noise : noise;
    /* away from the start of symmetric flows, whose first and last knots lie where log T's spline has its bends */
    for (ptrdiff_t j = 0; j < f->n_theta; j++) f->theta[j] += 0.01 * small_normal(11, j);
    X(trainer) t = {.data = data, .epoch = 1};
    pf_begin();
    CHECK(!X(flow_own_tables)(f) && !X(trainer_init)(&t, f, &o, n, data->n_y, 0), "%s", pf_message());
    X(flow_prepare)(f, t.prepare);
    ptrdiff_t n_w = f->net ? f->net->net->n_w : 0;
    for (ptrdiff_t i = 0; i < n; i++) weight[i] = i % 4 == 3 ? 0 : 1 + 0.25 * (double)(i % 3);
    X(batch)(&t, weight, n, 1);
    double *g = PF_ALLOC(double, f->n_theta), *gw = PF_ALLOC(double, n_w);
    memcpy(g, t.gbase, (size_t)f->n_theta * sizeof *g);
    for (ptrdiff_t i = 0; i < n_w; i++) gw[i] = (double)t.gw[i];
    for (ptrdiff_t j = 0; j < f->n_theta + n_w; j++) {
        double *theta = j < f->n_theta ? f->theta + j : NULL, expected;
        real *w = theta ? NULL : f->net->net->w + (j - f->n_theta);
        double middle = theta ? *theta : (double)*w, got = theta ? g[j] : gw[j - f->n_theta];
        for (int side = 0; side < 2; side++) {
            if (theta) *theta = middle + (side ? step : -step);
            else *w = (real)(middle + (side ? step : -step));
            end[side] = X(batch)(&t, weight, n, 0);
        }
        if (theta) *theta = middle;
        else *w = (real)middle;
        expected = (end[1] - end[0]) / (2 * step);
        CHECK(fabs(got - expected) < 2e-5 * (1 + fabs(expected)), "%s: gradient %td of %td + %td: %g, %g", name, j,
              f->n_theta, n_w, got, expected);
    }
    X(trainer_clear)(&t);
    pf_end(PF_OK);
    X(flow_free)(f);
    free(weight), free(g), free(gw);
}

/* ---- flows that cannot be ---- */

/* of an image of three numbers */
static void X(test_bad_patches)(X(flow) *f)
{
    static const struct {
        ptrdiff_t image[3], kernel[3], shift[2], k, m;
        const char *name;
    } bad[] = {
        {{3, 1, 1}, {1, 1, 1}, {0, 0}, 2, 4, "n_slices"},
        {{3, 1, 1}, {1, 1, 1}, {0, 0}, -1, 4, "n_slices"},
        {{3, 1, 1}, {1, 1, 1}, {0, 0}, 1, 1, "n_knots"},
        {{3, 1, 1}, {4, 1, 1}, {0, 0}, 1, 4, "kernel: height 4"},
        {{3, 1, 1}, {1, 0, 1}, {0, 0}, 1, 4, "kernel: width 0"},
        {{1, 1, 3}, {1, 1, 2}, {0, 0}, 1, 4, "kernel: has 1 or all 3 channels, not 2"},
        {{3, 1, 1}, {1, 1, 1}, {3, 0}, 1, 4, "shift: 3"},
        {{3, 1, 1}, {1, 1, 1}, {0, -1}, 1, 4, "shift: -1"},
        {{3, 1, 1}, {1, 1, 1}, {0, (ptrdiff_t)1 << 32}, 1, 4, "shift: "},
        {{2, 1, 1}, {1, 1, 1}, {0, 0}, 1, 4, "image_shape: has 2 numbers, a point of the flow 3"},
        {{-3, 1, -1}, {1, 1, 1}, {0, 0}, 1, 4, "image_shape: height"},
        {{1 << 20, 1 << 20, 1 << 20}, {1, 1, 1}, {0, 0}, 1, 4, "image_shape: an image has at most"},
        {{((ptrdiff_t)1 << 32) + 3, 1, 1}, {1, 1, 1}, {0, 0}, 1, 4, "image_shape: height"},
    };
    ptrdiff_t layers = X(flow_layers)(f);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(X(flow_add_patch)(f, bad[i].image, bad[i].kernel, bad[i].shift, bad[i].k, bad[i].m, 0) == PF_BAD_ARGUMENT,
              "%zu", i);
        CHECK(strstr(pf_message(), bad[i].name), "%zu: %s", i, pf_message());
    }
    CHECK(X(flow_layers)(f) == layers, "a refused layer is there");
}

static void X(test_refusals)(const X(flow) *with_y)
{
    X(flow) *f = NULL, *copy = NULL;
    ptrdiff_t d = SMALL_D;
    void *bytes = NULL, *after = NULL;
    size_t n = 0, m = 0;
    CHECK(!X(flow_copy)(&copy, with_y, X(flow_layers)(with_y)), "%s", pf_message());
    CHECK(X(flow_add_scale)(copy, 0, 1) == PF_BAD_ARGUMENT && strstr(pf_message(), "conditions"), "%s", pf_message());
    CHECK(X(flow_add_symmetric)(copy, 3, 3) == PF_BAD_ARGUMENT, "%s", pf_message());
    CHECK(X(flow_layers)(copy) == X(flow_layers)(with_y), "a refused layer is there");
    X(flow_free)(copy);

    CHECK(!X(flow_new)(&f, 1, &d, NULL, 0), "%s", pf_message());
    CHECK(X(flow_add_symmetric)(f, 3, 3) == PF_BAD_ARGUMENT && strstr(pf_message(), "mesh"), "%s", pf_message());
    CHECK(X(flow_add_sliced)(f, d + 1, 4, 0) == PF_BAD_ARGUMENT && strstr(pf_message(), "n_slices"), "%s",
          pf_message());
    CHECK(X(flow_add_sliced)(f, 1, 1, 0) == PF_BAD_ARGUMENT && strstr(pf_message(), "n_knots"), "%s", pf_message());
    CHECK(X(flow_add_scale)(f, 0, 0) == PF_BAD_ARGUMENT && strstr(pf_message(), "scale"), "%s", pf_message());
    X(test_bad_patches)(f);
    CHECK(!X(flow_add_scale)(f, 0, 2) && !X(flow_add_sliced)(f, 0, 3, 0), "%s", pf_message());
    CHECK(X(flow_add_bounds)(f, small_bounds) == PF_BAD_ARGUMENT && strstr(pf_message(), "first"), "%s", pf_message());

    /* GIS goes on from flows of its own layers alone */
    X(flow) *before = f;
    CHECK(X(small_gis_more)(&f) == PF_BAD_ARGUMENT && f == before && strstr(pf_message(), "scale"), "%s", pf_message());

    /* training that is refused leaves the flow as it was */
    pf_train_options o;
    X(data) train = {.x = X(small).x, .n = SMALL_ROWS};
    small_train_options(&o);
    o.noise[1] = 0.5;
    o.noise_condition = 1;
    CHECK(!X(flow_write)(f, &bytes, &n), "%s", pf_message());
    CHECK(X(flow_train)(f, &train, NULL, &o) == PF_BAD_ARGUMENT && strstr(pf_message(), "conditioned"), "%s",
          pf_message());
    CHECK(!X(flow_write)(f, &after, &m) && n == m && !memcmp(bytes, after, n), "training that was refused changed it");
    X(flow_free)(f);
    pf_free(bytes), pf_free(after);

    /* what a file could not say is not made */
    double *y = PF_CALLOC(double, SMALL_FIELDS * 5000);
    X(data) wide = {.x = X(small).field, .n = SMALL_FIELDS, .y = y, .n_y = 5000};
    for (int i = 0; i < SMALL_FIELDS * 5000; i++) y[i] = i % 7 - i % 3;
    small_train_options(&o);
    CHECK(!X(small_mixed)(&f), "%s", pf_message());
    CHECK(X(flow_train)(f, &wide, NULL, &o) == PF_BAD_ARGUMENT && strstr(pf_message(), "conditions"), "%s",
          pf_message());
    wide.n_y = -1;
    CHECK(X(flow_train)(f, &wide, NULL, &o) == PF_BAD_ARGUMENT && strstr(pf_message(), "y_train"), "%s", pf_message());
    X(flow_free)(f);
    free(y);

    int classes = INT32_MAX; /* parameters that no memory could hold, and no number count */
    d = INT32_MAX;
    CHECK(!X(flow_new)(&f, 1, &d, NULL, classes), "%s", pf_message());
    CHECK(X(flow_add_sliced)(f, d, 65535, 0) == PF_NO_MEMORY, "%s", pf_message());
    CHECK(X(flow_add_affine)(f, NULL, NULL) == PF_NO_MEMORY, "%s", pf_message());
    const ptrdiff_t image[] = {d, 1, 1}, one[] = {1, 1, 1}, none[] = {0, 0}; /* each patch could be made, not all */
    CHECK(X(flow_add_patch)(f, image, one, none, 1, 65535, 0) == PF_NO_MEMORY, "%s", pf_message());
    X(flow_free)(f);
}

/* A flow from the checkpoint of another fit is trained from where it is. */
static void X(test_state_of_another_fit)(void)
{
    X(flow) *f = NULL;
    pf_train_options o;
    X(data) train, validate;
    unlink(small_checkpoint);
    CHECK(X(small_sym_y)(&f, SMALL_STOPPED) == PF_INTERRUPTED && X(flow_unfinished)(f), "%s", pf_message());
    unlink(small_checkpoint);
    small_train_options(&o);
    o.epochs = 0;
    o.noise[1] = 0.5;
    o.noise_condition = 1;
    X(small_split)(&train, &validate);
    CHECK(!X(flow_train)(f, &train, NULL, &o) && !X(flow_unfinished)(f), "%s", pf_message());
    X(flow_free)(f);

    /* more layers make another flow of it */
    int first = 1;
    X(data) rows = {.x = X(small).x, .n = SMALL_ROWS, .label = X(small).label};
    small_train_options(&o);
    o.watch.checkpoint = small_checkpoint;
    o.watch.progress = small_stop;
    o.watch.user = &first;
    CHECK(!X(small_table)(&f) && X(flow_train)(f, &rows, NULL, &o) == PF_INTERRUPTED, "%s", pf_message());
    CHECK(X(flow_unfinished)(f) && !X(flow_add_scale)(f, 0, 1) && !X(flow_unfinished)(f), "%s", pf_message());
    X(flow_free)(f);
    unlink(small_checkpoint);
}

/* A second field of each point, which two layers see, a network's conditions beside it: there and back, the trainer's
 * gradient, and flows asked without. */
static void X(test_context)(void)
{
    enum { N = SMALL_FIELDS };
    ptrdiff_t d = 24;
    X(flow) *f = NULL;
    pf_train_options o;
    X(data) pairs = {.x = X(small).field, .n = N, .context = X(small).field + N * d, .y = X(small).y, .n_y = SMALL_Y};
    real z[N * 24], back[N * 24];
    double logj[N], minus[N];
    small_train_options(&o);
    CHECK(!X(flow_new)(&f, 2, small_mesh[0], small_box, 0) && !X(flow_add_shift)(f, 0.1, 1.2, 5, 6) &&
              !X(flow_add_symmetric)(f, 3, 4) && !X(flow_add_sliced)(f, 3, 4, 1) && !X(flow_add_shift)(f, 0, 1, 3, 2) &&
              !X(flow_train)(f, &pairs, NULL, &o),
          "%s", pf_message());
    CHECK(X(flow_context)(f), "no layer sees the second field");
    if (REAL_BITS == 64) X(check_gradient)(f, "fields with a second one", &pairs, 0.1);
    X(request) r = {.question = PF_FORWARD, .in = pairs.x, .context = pairs.context, .y = pairs.y, .n = N};
    r.out = z, r.log = logj;
    CHECK(!X(flow_answer)(f, &r), "%s", pf_message());
    r.question = PF_INVERSE, r.in = z, r.out = back, r.log = minus;
    CHECK(!X(flow_answer)(f, &r), "%s", pf_message());
    for (ptrdiff_t i = 0; i < N * d; i++)
        CHECK(fabs((double)(back[i] - pairs.x[i])) < 10 * TOLERANCE, "number %td comes back as %g", i, (double)back[i]);
    for (ptrdiff_t i = 0; i < N; i++) CHECK(fabs(logj[i] + minus[i]) < 300 * TOLERANCE, "%g %g", logj[i], minus[i]);
    CHECK(X(flow_logp)(f, logj, pairs.x, pairs.y, NULL, N) == PF_BAD_ARGUMENT &&
              strstr(pf_message(), "condition_field"),
          "without a second field: %s", pf_message());
    pairs.context = NULL;
    CHECK(X(flow_train)(f, &pairs, NULL, &o) == PF_BAD_ARGUMENT && strstr(pf_message(), "condition_field: "),
          "trained without a second field: %s", pf_message());
    X(flow_free)(f);
}

static void X(test)(void)
{
    X(flow) *table = NULL, *mixed = NULL, *with_y = NULL, *sym = NULL, *labelled = NULL, *images = NULL, *greedy = NULL;
    pf_train_options o;
    X(small_fill)();
    CHECK(!X(small_table)(&table) && !X(small_train_table)(table), "%s", pf_message());
    CHECK(!X(small_patches)(&images) && !X(small_gis)(&greedy, 0), "%s", pf_message());
    CHECK(!X(small_mixed)(&mixed) && !X(flow_copy)(&with_y, mixed, X(flow_layers)(mixed)), "%s", pf_message());
    unlink(small_checkpoint);
    CHECK(!X(small_train_mixed)(with_y, SMALL_WHOLE), "%s", pf_message());
    unlink(small_checkpoint);
    CHECK(!X(small_sym_y)(&sym, SMALL_WHOLE), "%s", pf_message());
    X(data) both_labelled = {.x = X(small).field, .n = SMALL_FIELDS, .y = X(small).y, .n_y = SMALL_Y};
    both_labelled.label = X(small).label;
    small_train_options(&o);
    CHECK(!X(flow_new)(&labelled, 2, small_mesh[0], small_box, 2) && !X(flow_add_sliced)(labelled, 3, 4, 1) &&
              !X(flow_add_symmetric)(labelled, 3, 4) && !X(flow_train)(labelled, &both_labelled, NULL, &o),
          "%s", pf_message());
    struct {
        const X(flow) *f;
        const char *name;
    } flows[] = {{table, "rows"},           {images, "images"},        {mixed, "fields"},
                 {with_y, "fields with y"}, {sym, "symmetric with y"}, {labelled, "fields with y and labels"}};
    for (size_t i = 0; i < sizeof flows / sizeof *flows; i++)
        for (int threads = 1; threads <= 2; threads++) {
            pf_set_num_threads(threads);
            X(check_flow)(flows[i].f, flows[i].name, 70);
            if (REAL_BITS == 64) X(check_score)(flows[i].f, flows[i].name, 37);
        }
    for (ptrdiff_t layers = 0; layers <= X(flow_layers)(with_y); layers++) {
        X(flow) *part = NULL;
        CHECK(!X(flow_copy)(&part, with_y, layers), "%s", pf_message());
        X(check_flow)(part, "the first layers", 40);
        X(flow_free)(part);
    }
    X(check_at)(with_y, 5, 40);
    if (REAL_BITS == 64) {
        X(data) rows = {.x = X(small).x, .n = SMALL_ROWS, .label = X(small).label};
        X(data) fields = {.x = X(small).field, .n = 2 * SMALL_FIELDS}, both = fields;
        both.y = X(small).y, both.n_y = SMALL_Y, both.n = SMALL_FIELDS;
        X(data) labelled_images = fields;
        labelled_images.label = X(small).label;
        X(check_gradient)(table, "rows", &rows, 0);
        X(check_gradient)(images, "images", &labelled_images, 0.1);
        X(check_gradient)(mixed, "fields", &fields, 0.1);
        X(check_gradient)(with_y, "fields with y", &both, 0.1);
        X(check_gradient)(sym, "symmetric with y", &both, 0.1);
        X(check_gradient)(labelled, "fields with y and labels", &both_labelled, 0.1);
        X(check_gradient)(greedy, "greedy layers", &(X(data)){.x = X(small).x, .n = SMALL_ROWS}, 0);
    }
    X(test_refusals)(with_y);
    X(test_context)();
    X(test_state_of_another_fit)();
    X(flow_free)(table), X(flow_free)(mixed), X(flow_free)(with_y), X(flow_free)(sym);
    X(flow_free)(labelled), X(flow_free)(images), X(flow_free)(greedy);
}
#undef TOLERANCE
#endif
