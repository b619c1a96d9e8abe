/* The search for slices through the library's internals, in both precisions: its gradient, its random choices; and what
 * a caller hears of rows that are in both the training and the validation data. */
#ifndef real
#include "check.h"
#include "stiefel.h"
#include "working.h"

typedef struct {
    int weighted, classes, picked;
} search_case;

static void warned(void *user, pf_status status, const char *text)
{
    CHECK(status == PF_BAD_ARGUMENT && strstr(text, "400 of its 400 rows"), "%d: %s", status, text);
    ++*(int *)user;
}

#define TWICE "test_search.c"
#include "twice.h"

int main(void)
{
    pf32_test_search_gradient();
    pf64_test_search_gradient();
    pf32_test_two_sided_gradient();
    pf64_test_two_sided_gradient();
    pf32_test_random_choices();
    pf64_test_random_choices();
    pf32_test_blocks_without_weight();
    pf64_test_blocks_without_weight();
    pf32_test_overlap();
    pf64_test_overlap();
    return check_result();
}
#else

static real *X(points)(ptrdiff_t n, ptrdiff_t d)
{
    real *x = PF_ALLOC(real, n * d);
    for (ptrdiff_t i = 0; i < n; i++) {
        double z[64];
        pf_normals(z, 11, (uint64_t)i, 0, d);
        for (ptrdiff_t j = 0; j < d; j++) x[i * d + j] = (real)(z[j] + (j ? 0.5 * z[0] * z[0] : 0));
    }
    return x;
}

/* A search over 4000 rows of 5 columns, none of them Gaussian. */
static void X(make_search)(X(working) *s, X(search) *q, search_case c, uint64_t seed, ptrdiff_t number)
{
    enum { N = 4000, D = 5 };
    static double weight[N];
    static int32_t label[N];
    static pf_gis_options o;
    real *x = X(points)(N, D);
    for (int i = 0; i < N; i++) weight[i] = 0.1 + pf_uniform_int(3, 0, (uint64_t)i, 100), label[i] = i % 7 == 0;
    X(data) data = {.x = x, .n = N, .weight = c.weighted ? weight : NULL, .label = c.classes ? label : NULL};
    pf_gis_defaults(&o);
    X(settings) settings = {.options = &o, .n = N, .d = D, .k = 3, .m = 50, .seed = seed};
    settings.slice_points = c.picked ? N / 2 : N, settings.classes = c.classes ? 2 : 1;
    CHECK(X(working_new)(s, &data, D, X(tile_rows)(D), c.classes ? 2 : 0, NULL, NULL, "train") == PF_OK, "%s",
          pf_message());
    X(problem) problem = {.sides = 1, .d = D, .k = settings.k, .classes = settings.classes};
    CHECK(X(rows_pick)(problem.rows, s, settings.slice_points, seed, (uint64_t)number << 32) == PF_OK, "%s",
          pf_message());
    CHECK(X(search_new)(q, &problem) == PF_OK, "%s", pf_message());
    free(x);
}

/* The gradient is the difference quotient of the value, along random directions. */
static void X(test_search_gradient)(void)
{
    enum { SIZE = 3 * 5 };
    for (int c = 0; c < 8; c++) {
        X(working) s;
        X(search) q;
        double a[SIZE], g[SIZE], step[SIZE], moved[SIZE], value[2], worst = 0, scale = 0;
        X(make_search)(&s, &q, (search_case){c & 1, c & 2, c & 4}, 1, 2);
        CHECK((q.side->rows.picked < s.tiles) == (c >= 4), "%td of %td tiles", q.side->rows.picked, s.tiles);
        pf_stiefel_random(a, 3, 5, 5, 0);
        X(search_value)(&q, value, a);
        X(search_gradient)(&q, g, a);
        for (int i = 0; i < SIZE; i++) scale += g[i] * g[i];
        for (uint64_t trial = 0; trial < 6; trial++) {
            double slope = 0, h = 0.02;
            pf_normals(step, 6, trial, 0, SIZE);
            for (int i = 0; i < SIZE; i++) slope += g[i] * step[i];
            for (int side = 0; side < 2; side++) {
                for (int i = 0; i < SIZE; i++) moved[i] = a[i] + (side ? h : -h) * step[i];
                X(search_value)(&q, value + side, moved);
            }
            worst = fmax(worst, fabs((value[1] - value[0]) / (2 * h) - slope));
        }
        CHECK(worst < 0.03 * sqrt(scale), "case %d: off by %g of %g", c, worst, sqrt(scale));
        free(q.side->rows.pick), X(search_free)(&q), X(working_free)(&s);
    }
}

/* From 4000 rows to 5000 others: along all columns or some of them, as patches are, with and without classes, one of
 * which no row of the second side has; with weights. */
static void X(test_two_sided_gradient)(void)
{
    enum { N = 4000, M = 5000, D = 5, K = 2 };
    static const int32_t some[4] = {4, 0, 3, 1};
    static double weight[N];
    static int32_t label[M], other[M];
    real *x = X(points)(N, D);
    for (int i = 0; i < N; i++) weight[i] = 0.1 + (double)pf_uniform_int(3, 0, (uint64_t)i, 100);
    for (int i = 0; i < M; i++) label[i] = i % 7 == 0 ? 2 : i % 2, other[i] = i % 2;
    for (int c = 0; c < 16; c++) {
        int weighted = c & 1, classes = c & 2 ? 3 : 1, columns = c & 4, picked = c & 8;
        ptrdiff_t d = columns ? 4 : D, size = K * d;
        X(working) s[2];
        X(search) q;
        X(data) data = {.x = x, .n = N, .weight = weighted ? weight : NULL, .label = classes > 1 ? label : NULL};
        X(problem) p = {.sides = 2, .column = columns ? some : NULL, .d = d, .k = K, .classes = classes};
        double a[K * D], g[K * D], step[K * D], moved[K * D], value[2], worst = 0, scale = 0;
        CHECK(!X(working_new)(s, &data, D, TILE_MOST, classes > 1 ? classes : 0, NULL, NULL, "train"), "%s",
              pf_message());
        CHECK(!X(working_normals)(s + 1, M, D, TILE_MOST, 9, NULL, NULL), "%s", pf_message());
        if (classes > 1) s[1].label = other;
        for (int i = 0; i < 2; i++)
            CHECK(!X(rows_pick)(p.rows + i, s + i, picked ? 3000 : M, 1, 2), "%s", pf_message());
        CHECK(!X(search_new)(&q, &p), "%s", pf_message());
        pf_stiefel_random(a, K, d, 5, 0);
        X(search_value)(&q, value, a);
        CHECK(value[0] > 0.01, "case %d: the two differ by %g", c, value[0]);
        X(search_gradient)(&q, g, a);
        for (int i = 0; i < size; i++) scale += g[i] * g[i];
        for (uint64_t trial = 0; trial < 6; trial++) {
            double slope = 0, h = 0.02;
            pf_normals(step, 6, trial, 0, size);
            for (int i = 0; i < size; i++) slope += g[i] * step[i];
            for (int side = 0; side < 2; side++) {
                for (int i = 0; i < size; i++) moved[i] = a[i] + (side ? h : -h) * step[i];
                X(search_value)(&q, value + side, moved);
            }
            worst = fmax(worst, fabs((value[1] - value[0]) / (2 * h) - slope));
        }
        CHECK(worst < 0.04 * sqrt(scale), "case %d: off by %g of %g", c, worst, sqrt(scale));
        X(search_free)(&q);
        for (int i = 0; i < 2; i++) free(p.rows[i].pick), X(working_free)(s + i);
    }
    free(x);
}

/* Some rows are looked at: never only rows without weight. */
static void X(test_blocks_without_weight)(void)
{
    enum { N = 20 * TILE_MOST };
    static double weight[N];
    real *x = X(points)(N, 2);
    for (int i = 0; i < N; i++) weight[i] = i / TILE_MOST == 13 || i / TILE_MOST == 2;
    X(data) data = {.x = x, .n = N, .weight = weight};
    X(working) s;
    CHECK(!X(working_new)(&s, &data, 2, TILE_MOST, 0, NULL, NULL, "train"), "%s", pf_message());
    for (uint64_t stream = 0; stream < 20; stream++) {
        X(rows) rows;
        CHECK(!X(rows_pick)(&rows, &s, 1, 1, stream) && rows.picked == 1, "%s", pf_message());
        CHECK(rows.pick[0] == 13 || rows.pick[0] == 2, "tile %td", rows.pick[0]);
        free(rows.pick);
    }
    X(working_free)(&s);
    free(x);
}

/* Tiles and the first slices are others for another seed or layer, and the same for the same. */
static void X(test_random_choices)(void)
{
    static const ptrdiff_t others[3][2] = {{1, 2}, {2, 2}, {1, 3}}; /* seed and layer; the first is the one */
    for (int i = 0; i < 3; i++) {
        X(working) s[2];
        X(search) q[2];
        double a[2][15], fixed[15], value[2];
        pf_stiefel_random(fixed, 3, 5, 5, 0);
        for (int j = 0; j < 2; j++) {
            const ptrdiff_t *o = others[j * i];
            X(make_search)(s + j, q + j, (search_case){0, 0, 1}, (uint64_t)o[0], o[1]);
            pf_stiefel_random(a[j], 3, 5, (uint64_t)o[0], (uint64_t)o[1]);
        }
        size_t bytes = (size_t)q[0].side->rows.picked * sizeof(ptrdiff_t);
        CHECK(q[0].side->rows.picked == q[1].side->rows.picked, "as many tiles");
        CHECK(!memcmp(q[0].side->rows.pick, q[1].side->rows.pick, bytes) == (i == 0), "tiles, case %d", i);
        for (int j = 0; j < 2; j++) X(search_value)(q + j, value + j, fixed);
        CHECK((value[0] == value[1]) == (i == 0), "rows looked at, case %d: %g %g", i, value[0], value[1]);
        CHECK(!memcmp(a[0], a[1], sizeof a[0]) == (i == 0), "slices, case %d", i);
        for (int j = 0; j < 2; j++) free(q[j].side->rows.pick), X(search_free)(q + j), X(working_free)(s + j);
    }
}

/* The caller hears once of rows that are in both; without a listener the fit goes on. */
static void X(test_overlap)(void)
{
    real *x = X(points)(400, 3);
    X(data) data = {.x = x, .n = 400};
    pf_gis_options o;
    int heard = 0;
    pf_gis_defaults(&o);
    for (int i = 0; i < 2; i++) {
        X(flow) *flow = NULL;
        o.watch.warn = i ? NULL : warned, o.watch.user = &heard;
        pf_status status = X(gis_fit)(&flow, &data, &data, 3, &o);
        CHECK(status == PF_OK, "%d: %s", status, pf_message());
        CHECK(heard == 1, "heard %d times", heard);
        CHECK(X(flow_layers)(flow) < 1000, "%td layers", X(flow_layers)(flow));
        X(flow_free)(flow);
    }
    free(x);
}
#endif
