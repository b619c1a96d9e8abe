/* GIS of rows that several ranks have, here threads: the flow is that of all rows in one place, bit for bit. */
#ifndef real
#include <pthread.h>

#include "check.h"
#include "internal.h"

enum { MOST_RANKS = 7, MOST_SUMS = 1 << 20, D = 3 };

static struct {
    pthread_barrier_t all;
    pthread_mutex_t one;
    int64_t total[MOST_SUMS];
    int size;
} team = {.one = PTHREAD_MUTEX_INITIALIZER};

static int sum_of_threads(void *user, void *x, ptrdiff_t n)
{
    int64_t *own = x;
    if (n > MOST_SUMS) return 1;
    if (*(int *)user == 0) memset(team.total, 0, (size_t)n * 8);
    pthread_barrier_wait(&team.all);
    pthread_mutex_lock(&team.one);
    for (ptrdiff_t i = 0; i < n; i++) team.total[i] += own[i];
    pthread_mutex_unlock(&team.one);
    pthread_barrier_wait(&team.all);
    memcpy(x, team.total, (size_t)n * 8);
    pthread_barrier_wait(&team.all);
    return 0;
}

#define TWICE "test_ranks.c"
#include "twice.h"

int main(void)
{
    pf32_test();
    pf64_test();
    return check_result();
}

#else

typedef struct {
    const real *x[2];
    ptrdiff_t n[2]; /* training and validation rows of all ranks */
    pf_gis_options options;
    int rank, size;
    pf_status status;
    void *bytes; /* of the flow */
    size_t size_of_flow;
} X(one);

/* The fit of one rank; without others, size 0 */
static void *X(fit)(void *argument)
{
    X(one) *f = argument;
    pf_ranks ranks = {
        .sum = sum_of_threads, .user = &f->rank, .rank = f->rank, .size = f->size, .rows = {f->n[0], f->n[1]}};
    X(data) data[2] = {{.x = f->x[0], .n = f->n[0]}, {.x = f->x[1], .n = f->n[1]}};
    X(flow) *flow = NULL;
    if (f->size) f->options.ranks = &ranks;
    for (int i = 0; i < 2 && f->size; i++) {
        ptrdiff_t first = pf_gis_first_row(f->n[i], D, REAL_BITS, f->rank, f->size);
        data[i].x += first * D;
        data[i].n = pf_gis_first_row(f->n[i], D, REAL_BITS, f->rank + 1, f->size) - first;
    }
    f->status = X(gis_fit)(&flow, data, f->n[1] ? data + 1 : NULL, D, &f->options);
    CHECK(!f->status, "%s", pf_message());
    if (!f->status) f->status = X(flow_write)(flow, &f->bytes, &f->size_of_flow);
    X(flow_free)(flow);
    return NULL;
}

static real *X(rows)(ptrdiff_t n)
{
    real *x = PF_ALLOC(real, n * D);
    for (ptrdiff_t i = 0; i < n; i++) {
        double z[D];
        pf_normals(z, 3, (uint64_t)i, 0, D);
        x[i * D] = (real)z[0], x[i * D + 1] = (real)(z[1] + z[0] * z[0]), x[i * D + 2] = (real)exp(z[2]);
    }
    return x;
}

static void X(test)(void)
{
    /* validation rows begin so many rows before the end of the training rows; 0 for the default of slice_points */
    static const struct {
        ptrdiff_t n, validate, both, points, marginal_first;
    } cases[] = {
        {1500, 0, 0, 600, -1},    /* some rows are looked at for slices */
        {700, 300, 0, 0, -1},     /* how to begin is tried */
        {900, 300, 200, 0, 1},    /* rows in both: left out of one */
        {20000, 700, 0, 3000, 1}, /* more tiles than groups */
        {100, 50, 0, 0, 1},       /* a tile: most ranks have no rows */
    };
    real *x = X(rows)(21000);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        X(one) alone = {.x = {x, x + (cases[c].n - cases[c].both) * D}, .n = {cases[c].n, cases[c].validate}};
        pf_gis_defaults(&alone.options);
        alone.options.max_layers = 2;
        alone.options.slice_points = cases[c].points;
        alone.options.marginal_first = (int)cases[c].marginal_first;
        X(fit)(&alone);
        static const int sizes[] = {1, 2, 4, MOST_RANKS};
        for (int s = 0; s < 4; s++) {
            pthread_t thread[MOST_RANKS];
            X(one) each[MOST_RANKS];
            team.size = sizes[s];
            pthread_barrier_init(&team.all, NULL, (unsigned)team.size);
            for (int r = 0; r < team.size; r++) {
                each[r] = alone, each[r].rank = r, each[r].size = team.size, each[r].bytes = NULL;
                pthread_create(thread + r, NULL, X(fit), each + r);
            }
            for (int r = 0; r < team.size; r++) {
                pthread_join(thread[r], NULL);
                CHECK(each[r].bytes && each[r].size_of_flow == alone.size_of_flow &&
                          !memcmp(each[r].bytes, alone.bytes, alone.size_of_flow),
                      "case %d, rank %d of %d: another flow", (int)c, r, team.size);
                free(each[r].bytes);
            }
            pthread_barrier_destroy(&team.all);
        }
        free(alone.bytes);
    }
    free(x);
    pf_ranks ranks = {.rows = {10, 0}, .size = 2};
    pf_gis_options options;
    pf_gis_defaults(&options);
    options.max_layers = 1, options.ranks = &ranks;
    X(flow) *flow = NULL;
    real few[12] = {0};
    X(data) data = {.x = few, .n = 4};
    CHECK(X(gis_fit)(&flow, &data, NULL, D, &options) == PF_BAD_ARGUMENT, "rows of another rank");
    CHECK(strstr(pf_message(), "rank has 4 rows, not those from 0 to 0"), "%s", pf_message());
}
#endif
