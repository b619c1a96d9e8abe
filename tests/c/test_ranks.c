/* Fits of rows that several ranks have, here threads: the flow is that of all rows in one place, bit for bit. */
#ifndef real
#include <pthread.h>

#include "check.h"
#include "internal.h"

enum { MOST_RANKS = 7, MOST_SUMS = 1 << 20, D = 3, SIDE = 4, IMAGES = 600, FIELDS = 70 };

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

typedef struct X(one) X(one);

struct X(one) {
    pf_status (*other)(X(flow) **, const X(one) *, const pf_ranks *); /* NULL: GIS */
    const real *x[2];
    ptrdiff_t n[2]; /* training and validation rows of all ranks */
    pf_gis_options options;
    int rank, size;
    pf_status status;
    void *bytes; /* of the flow */
    size_t size_of_flow;
};

/* SIG of small images with labels: patches, and rows of data and of the sample on all ranks */
static pf_status X(fit_images)(X(flow) **flow, const X(one) *f, const pf_ranks *ranks)
{
    static const pf_sig_stage stages[] = {{1, {SIDE, SIDE, 1}, 3}, {1, {2, 2, 1}, 2}};
    int32_t label[IMAGES];
    ptrdiff_t d = SIDE * SIDE, first = f->size ? pf_ranks_first_row(IMAGES, 0, REAL_BITS, f->rank, f->size) : 0;
    ptrdiff_t end = f->size ? pf_ranks_first_row(IMAGES, 0, REAL_BITS, f->rank + 1, f->size) : IMAGES;
    pf_sig_options o;
    pf_sig_defaults(&o);
    for (ptrdiff_t i = 0; i < IMAGES; i++) label[i] = f->x[0][i * d] > 0;
    o.image[0] = o.image[1] = SIDE, o.image[2] = 1;
    o.stages = stages, o.n_stages = 2, o.n_classes = 2, o.slice_points = 300, o.sample = 2 * IMAGES + 100;
    o.ranks = f->size ? ranks : NULL;
    return X(sig_fit)(flow, &(X(data)){.x = f->x[0] + first * d, .label = label + first, .n = end - first}, d, &o);
}

/* A symmetric flow with a condition: all ranks have all fields */
static pf_status X(fit_fields)(X(flow) **flow, const X(one) *f, const pf_ranks *ranks)
{
    const ptrdiff_t mesh[] = {SIDE, SIDE};
    const double box[] = {1, 1};
    double y[FIELDS];
    pf_symmetric_options o;
    pf_symmetric_defaults(&o);
    for (ptrdiff_t i = 0; i < FIELDS; i++) y[i] = (double)f->x[0][i * SIDE * SIDE];
    o.train.epochs = 1, o.train.hidden[0] = 8, o.train.hidden[1] = 0, o.train.batch = 40;
    o.train.ranks = f->size ? ranks : NULL;
    return X(symmetric_fit)(flow, &(X(data)){.x = f->x[0], .y = y, .n_y = 1, .n = FIELDS}, NULL, 2, mesh, box, &o);
}

/* The fit of one rank; without others, size 0 */
static void *X(fit)(void *argument)
{
    X(one) *f = argument;
    pf_ranks ranks = {
        .sum = sum_of_threads, .user = &f->rank, .rank = f->rank, .size = f->size, .rows = {f->n[0], f->n[1]}};
    X(data) data[2] = {{.x = f->x[0], .n = f->n[0]}, {.x = f->x[1], .n = f->n[1]}};
    X(flow) *flow = NULL;
    if (f->size) f->options.ranks = &ranks;
    for (int i = 0; i < 2 && f->size && !f->other; i++) {
        ptrdiff_t first = pf_ranks_first_row(f->n[i], D, REAL_BITS, f->rank, f->size);
        data[i].x += first * D;
        data[i].n = pf_ranks_first_row(f->n[i], D, REAL_BITS, f->rank + 1, f->size) - first;
    }
    f->status = f->other ? f->other(&flow, f, &ranks)
                         : X(gis_fit)(&flow, data, f->n[1] ? data + 1 : NULL, D, &f->options);
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
        pf_status (*other)(X(flow) **, const X(one) *, const pf_ranks *);
    } cases[] = {
        {1500, 0, 0, 600, -1, NULL},    /* some rows are looked at for slices */
        {700, 300, 0, 0, -1, NULL},     /* how to begin is tried */
        {900, 300, 200, 0, 1, NULL},    /* rows in both: left out of one */
        {20000, 700, 0, 3000, 1, NULL}, /* more tiles than groups */
        {100, 50, 0, 0, 1, NULL},       /* a tile: most ranks have no rows */
        {.n = IMAGES, .other = X(fit_images)},
        {.n = FIELDS, .other = X(fit_fields)},
    };
    real *x = X(rows)(21000);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        X(one) alone = {.x = {x, x + (cases[c].n - cases[c].both) * D}, .n = {cases[c].n, cases[c].validate}};
        alone.other = cases[c].other;
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
