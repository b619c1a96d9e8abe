/* The working copy of the data: loading and checks, samples, layers passed over it, sums over its rows. */
#ifndef real
#define _GNU_SOURCE
#include "working.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blas.h"

enum { MANY_CLASSES = 16 }; /* up to so many labels may have one row each */

pf_status pf_check_classes(int n_classes, ptrdiff_t n)
{
    if (n_classes < 0) return pf_fail(PF_BAD_ARGUMENT, "n_classes: %d is negative", n_classes);
    if (n_classes <= MANY_CLASSES || n_classes <= n / 2) return PF_OK;
    return pf_fail(PF_BAD_ARGUMENT,
                   "labels: %d different ones in %td rows leave none to learn a class from; labels are classes of "
                   "many rows each: cut a continuous number into a few ranges, or make it a column of the data",
                   n_classes, n);
}

pf_status pf_check_image(const ptrdiff_t *image, ptrdiff_t d)
{
    if (!image[0] || (image[0] >= 1 && image[1] >= 1 && image[2] >= 1 && image[0] <= INT32_MAX / image[1] / image[2] &&
                      image[0] * image[1] * image[2] == d))
        return PF_OK;
    return pf_fail(PF_BAD_ARGUMENT, "image_shape: (%td, %td, %td) are not the %td numbers of a row", image[0], image[1],
                   image[2], d);
}

pf_patches pf_patches_rolled(const ptrdiff_t *image, const ptrdiff_t *kernel, uint64_t seed, uint64_t stream)
{
    pf_patches p;
    for (int i = 0; i < 3; i++) p.image[i] = (int32_t)image[i], p.kernel[i] = (int32_t)kernel[i];
    for (int i = 0; i < 2; i++) p.shift[i] = (int32_t)pf_uniform_int(seed, stream, (uint64_t)i, (uint64_t)image[i]);
    return p;
}

/* The first tile of a rank: that of a group, so that no group is on two ranks. */
static ptrdiff_t first_tile(ptrdiff_t tiles, int rank, int size)
{
    ptrdiff_t groups = PF_MIN(tiles, MOST_GROUPS);
    return groups ? rank * groups / size * tiles / groups : 0;
}

/* The first row of a rank, of rows in tiles of ld */
static ptrdiff_t first_row(ptrdiff_t rows, ptrdiff_t ld, int rank, int size)
{
    return PF_MIN(first_tile((rows + ld - 1) / ld, rank, size) * ld, rows);
}

ptrdiff_t pf_ranks_first_row(ptrdiff_t rows, ptrdiff_t d, int bits, int rank, int size)
{
    return first_row(rows, !d ? TILE_MOST : bits == 32 ? pf32_tile_rows(d) : pf64_tile_rows(d), rank, size);
}

#define TWICE "working.c"
#include "twice.h"
#else

#define LARGEST (REAL_BITS == 32 ? 1e36 : 1e150)

void X(working_free)(X(working) *s)
{
    if (s->mapped) munmap(s->x, s->mapped);
    else free(s->x);
    free(s->logj);
    free(s->weight);
    free(s->sums);
}

/* Memory for the working copy in a nameless file of the scratch folder. */
static pf_status X(working_map)(X(working) *s, const char *scratch, size_t bytes)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/pyflow-XXXXXX", scratch) >= sizeof path)
        return pf_fail(PF_BAD_ARGUMENT, "scratch: the path is too long");
    int fd = mkstemp(path);
    if (fd < 0) return pf_fail(PF_IO_ERROR, "scratch: cannot make a file in %s: %m", scratch);
    unlink(path);
    int failed = posix_fallocate(fd, 0, (off_t)bytes);
    void *x = failed ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (x == MAP_FAILED)
        return pf_fail(PF_IO_ERROR, "scratch: %s has no room for %.3g GiB of working data", scratch,
                       (double)bytes / (1 << 30));
    s->x = x;
    s->mapped = bytes;
    return PF_OK;
}

static pf_status X(check_labels)(const X(working) *s, const X(data) *data, int classes, const char *name)
{
    if (!classes)
        return data->label ? pf_fail(PF_BAD_ARGUMENT, "labels_%s: labels were given but n_classes is 0", name) : PF_OK;
    if (!data->label) return pf_fail(PF_BAD_ARGUMENT, "labels_%s: every row needs a label", name);
    for (ptrdiff_t i = 0; i < data->n; i++)
        if (data->label[i] < 0 || data->label[i] >= classes)
            return pf_fail(PF_BAD_ARGUMENT, "labels_%s: %d of row %td is not between 0 and %d", name, data->label[i],
                           X(working_row)(s, i), classes - 1);
    return PF_OK;
}

/* The first number that no fit can use: not finite, or beyond LARGEST, where differences and squares overflow. */
static pf_status X(bad_value)(const real *x, ptrdiff_t n, ptrdiff_t d, ptrdiff_t first, const char *name)
{
    for (ptrdiff_t i = 0; i < n * d; i++) {
        ptrdiff_t row = first + i / d, column = i % d;
        if (!isfinite(x[i]))
            return pf_fail(PF_BAD_ARGUMENT, "data_%s: row %td, column %td is %s", name, row, column,
                           isnan(x[i]) ? "NaN" : "infinite");
        if (fabs((double)x[i]) > LARGEST)
            return pf_fail(PF_BAD_ARGUMENT,
                           "data_%s: row %td, column %td is %g: numbers beyond %g are too large for float%d; leave the "
                           "row out, or divide the column",
                           name, row, column, (double)x[i], LARGEST, REAL_BITS);
    }
    return PF_OK;
}

/* Whether a tile holds a number beyond LARGEST. */
static int X(too_large)(const X(tile) *t, ptrdiff_t d)
{
    int any = 0;
    for (ptrdiff_t i = 0; i < d * t->ld; i++) any |= t->x[i] > (real)LARGEST || t->x[i] < -(real)LARGEST;
    return any;
}

static pf_status X(working_fill)(X(working) *s, const X(data) *data, const char *name)
{
    real *rows = data->x ? NULL : PF_ALLOC(real, s->ld * s->d);
    pf_status status = data->x || rows ? PF_OK : PF_NO_MEMORY;
    for (ptrdiff_t t = 0; t < s->tiles && !status; t++) {
        ptrdiff_t first = t * s->ld;
        X(tile) tile = {.d = s->d, .x = s->x + t * s->d * s->ld, .n = PF_MIN(s->ld, s->n - first), .ld = s->ld};
        if (rows && data->read(data->user, rows, first, tile.n))
            status = pf_fail(PF_IO_ERROR, "data_%s: reading rows %td to %td failed", name, first, first + tile.n - 1);
        const real *from = rows ? rows : data->x + first * s->d;
        if (!status && (!X(tile_load)(&tile, from) || X(too_large)(&tile, s->d)))
            status = X(bad_value)(from, tile.n, s->d, X(working_row)(s, first), name);
        if (!status) status = pf_check_interrupt();
    }
    free(rows);
    return status;
}

pf_status X(bounds_of)(const double **bounds, const X(flow) *flow, const double *given)
{
    *bounds = given;
    for (ptrdiff_t j = 0; given && j < flow->space.d; j++)
        if (!(given[2 * j] < given[2 * j + 1]))
            return pf_fail(PF_BAD_ARGUMENT, "bounds: of column %td, %g is not below %g", j, given[2 * j],
                           given[2 * j + 1]);
    if (!flow->n_layers) return PF_OK;
    const double *own = *bounds = X(layer_bounds)(flow->layers[0]);
    for (ptrdiff_t i = 0; given && i < 2 * flow->space.d; i++) {
        double has = own ? own[i] : i % 2 ? INFINITY : -INFINITY;
        if ((real)given[i] != (real)has)
            return pf_fail(PF_BAD_ARGUMENT,
                           "bounds: of column %td, the %s one is %g, but %g in the flow to go on from, and stays so: "
                           "leave bounds out, or fit anew",
                           i / 2, i % 2 ? "upper" : "lower", given[i], has);
    }
    return PF_OK;
}

pf_status X(check_model)(const X(flow) *flow, ptrdiff_t d, int classes, const X(layer_ops) *own, const char *fit)
{
    if (flow->net) return pf_fail(PF_BAD_ARGUMENT, "model: it has conditions, which %s does not know", fit);
    if (flow->space.d != d || flow->classes != classes)
        return pf_fail(PF_BAD_ARGUMENT, "model: it has %td columns and %d classes, the data %td and %d", flow->space.d,
                       flow->classes, d, classes);
    for (ptrdiff_t l = 0; l < flow->n_layers; l++) {
        const X(layer_ops) *ops = flow->layers[l]->ops;
        if (ops != own && ops != &X(columns_ops) &&ops != &X(sliced_ops) &&ops != &X(patch_ops))
            return pf_fail(PF_BAD_ARGUMENT, "model: it has a %s layer, which %s does not know", ops->kind, fit);
    }
    return PF_OK;
}

pf_status X(working_within)(const X(working) *s, const double *bounds, const char *name)
{
    for (ptrdiff_t i = 0; bounds && i < s->n; i++)
        for (ptrdiff_t j = 0; j < s->d; j++) {
            double x = s->x[(i / s->ld * s->d + j) * s->ld + i % s->ld];
            if (x < (real)bounds[2 * j] || x > (real)bounds[2 * j + 1])
                return pf_fail(PF_BAD_ARGUMENT, "data_%s: row %td, column %td is %g, outside the bounds [%g, %g]", name,
                               X(working_row)(s, i), j, x, bounds[2 * j], bounds[2 * j + 1]);
        }
    return PF_OK;
}

ptrdiff_t X(working_row)(const X(working) *s, ptrdiff_t i) { return s->first * s->ld + i; }

pf_status X(working_gather)(const void **all, void **memory, const X(working) *s, const void *x)
{
    *all = x, *memory = NULL;
    if (!s->ranks) return PF_OK;
    int64_t *numbers = *memory = PF_CALLOC(int64_t, s->all);
    if (!numbers) return PF_NO_MEMORY;
    memcpy(numbers + X(working_row)(s, 0), x, (size_t)s->n * sizeof *numbers);
    *all = numbers;
    return pf_ranks_sum(s->ranks, numbers, s->all);
}

pf_status X(working_count)(X(working) *s)
{
    const void *all;
    void *memory;
    pf_status status = X(working_gather)(&all, &memory, s, s->weight);
    const int64_t *weight = all;
    double sum = 0, square = 0;
    s->rows = 0;
    for (ptrdiff_t i = 0; i < s->all && !status; i++) {
        s->rows += weight[i] != 0;
        sum += (double)weight[i];
        square += (double)weight[i] * (double)weight[i];
    }
    free(memory);
    s->total = sum;
    s->n_eff = sum * sum / square;
    return status;
}

/* Weights in fixed point: they are relative to those of all ranks. */
static pf_status X(working_weigh)(X(working) *s, const double *weight, const char *name)
{
    const void *all;
    void *memory;
    pf_status status = X(working_gather)(&all, &memory, s, weight);
    s->weight = PF_ALLOC(int64_t, s->n);
    int64_t *fixed = s->ranks ? PF_ALLOC(int64_t, s->all) : s->weight;
    if (!status && (!fixed || !s->weight)) status = PF_NO_MEMORY;
    if (!status) status = X(check_weights)(&(X(data)){.weight = all, .n = s->all}, name);
    if (!status) {
        pf_fixed_weights(fixed, all, s->all);
        if (s->ranks) memcpy(s->weight, fixed + X(working_row)(s, 0), (size_t)s->n * sizeof *fixed);
    }
    free(memory);
    if (s->ranks) free(fixed);
    return status ? status : X(working_count)(s);
}

/* Memory for n rows, in tiles of ld, of `all` */
static pf_status X(working_room)(X(working) *s, ptrdiff_t n, ptrdiff_t all, ptrdiff_t d, ptrdiff_t ld,
                                 const pf_ranks *ranks, const char *scratch)
{
    ptrdiff_t tiles = (n + ld - 1) / ld, of = (all + ld - 1) / ld;
    *s = (X(working)){.n = n, .d = d, .ld = ld, .tiles = tiles, .ranks = ranks, .all = all, .of = of};
    s->tail = n % ld ? tiles - 1 : -1, s->tail_n = n % ld;
    s->rows = all, s->total = s->n_eff = (double)all;
    if (ranks) s->first = first_tile(of, ranks->rank, ranks->size);
    if (scratch && tiles) PF_TRY(X(working_map)(s, scratch, (size_t)(tiles * d * ld) * sizeof(real)));
    else if (!(s->x = PF_ALLOC(real, tiles * d * ld))) return PF_NO_MEMORY;
    s->logj = PF_CALLOC(double, s->n);
    s->sums = PF_CALLOC(double, 3 * of);
    return s->logj && s->sums ? PF_OK : PF_NO_MEMORY;
}

pf_status X(working_new)(X(working) *s, const X(data) *data, ptrdiff_t d, ptrdiff_t ld, int classes,
                         const char *scratch, const pf_ranks *ranks, const char *name)
{
    ptrdiff_t all = pf_ranks_rows(ranks, data->n, !strcmp(name, "validate"));
    if (all < 1) return pf_fail(PF_BAD_ARGUMENT, "data_%s: there are no rows", name);
    PF_TRY(X(working_room)(s, data->n, all, d, ld, ranks, scratch));
    PF_TRY(X(check_labels)(s, data, classes, name));
    ptrdiff_t first = X(working_row)(s, 0), end = ranks ? first_row(all, ld, ranks->rank + 1, ranks->size) : all;
    if (data->n != end - first)
        return pf_fail(PF_BAD_ARGUMENT, "data_%s: rank has %td rows, not those from %td to %td", name, data->n, first,
                       end);
    s->label = data->label;
    if (data->weight) PF_TRY(X(working_weigh)(s, data->weight, name));
    return X(working_fill)(s, data, name);
}

typedef struct {
    X(working) *s;
    uint64_t seed;
} X(draw);

static void X(draw_tile)(void *arg, ptrdiff_t t, int thread)
{
    X(draw) *draw = arg;
    X(tile) tile = X(working_tile)(draw->s, t);
    (void)thread;
    X(tile_normals)(&tile, draw->seed, (uint64_t)X(working_row)(draw->s, t * tile.ld));
}

pf_status X(working_normals)(X(working) *s, ptrdiff_t n, ptrdiff_t d, ptrdiff_t ld, uint64_t seed, const char *scratch,
                             const pf_ranks *ranks)
{
    ptrdiff_t own = n;
    if (ranks) own = first_row(n, ld, ranks->rank + 1, ranks->size) - first_row(n, ld, ranks->rank, ranks->size);
    PF_TRY(X(working_room)(s, own, n, d, ld, ranks, scratch));
    return pf_parallel(s->tiles, X(draw_tile), &(X(draw)){.s = s, .seed = seed});
}

X(tile) X(working_tile)(const X(working) *s, ptrdiff_t t)
{
    ptrdiff_t first = t * s->ld;
    return (X(tile)){.d = s->d,
                     .tables = 1,
                     .x = s->x + t * s->d * s->ld,
                     .label = s->label ? s->label + first : NULL,
                     .n = t == s->tail ? s->tail_n : s->ld,
                     .ld = s->ld};
}

/* ---- passing a layer over the state ----------------------------------------------------------------------- */

struct X(pass) {
    X(working) *s;
    const X(layer) *layer;
    const void *ready;
    real *work;
    ptrdiff_t per_thread;
    int back;
};

static void X(pass_tile)(void *arg, ptrdiff_t t, int thread)
{
    struct X(pass) *p = arg;
    X(working) *s = p->s;
    X(tile) tile = X(working_tile)(s, t);
    double logp[TILE_MOST], *logj = s->logj + t * s->ld, weight = 0, sum = 0, latent = 0;
    real *work = p->work + thread * p->per_thread;
    if (p->back) {
        p->layer->ops->inverse(p->layer, p->ready, &tile, logj, work);
        return;
    }
    p->layer->ops->forward(p->layer, p->ready, &tile, logj, NULL, work);
    X(tile_logp)(logp, &tile);
    for (ptrdiff_t i = 0; i < tile.n; i++) {
        double w = s->weight ? (double)s->weight[t * s->ld + i] : 1;
        weight += w;
        if (w > 0) sum += w * (logp[i] + logj[i]), latent += w * logp[i];
    }
    double *sums = s->sums + 3 * (s->first + t);
    sums[0] = weight, sums[1] = sum, sums[2] = latent;
}

/* What tiles put into s->sums, for all ranks' tiles */
static pf_status X(tile_sums)(X(working) *s, void (*body)(void *, ptrdiff_t, int), void *arg)
{
    memset(s->sums, 0, (size_t)(3 * s->of) * sizeof(double));
    PF_TRY(pf_parallel(s->tiles, body, arg));
    return pf_ranks_sum(s->ranks, s->sums, 3 * s->of);
}

static pf_status X(pass)(X(working) *s, const X(flow) *flow, ptrdiff_t l, ptrdiff_t blocks,
                         void (*body)(void *, ptrdiff_t, int), int back)
{
    struct X(pass) p = {.s = s, .layer = flow->layers[l], .ready = flow->ready[l], .back = back};
    p.per_thread = tile_whole(p.layer->ops->sizes(p.layer, s->ld, s->ld, 1).work);
    if (!(p.work = PF_ALLOC(real, p.per_thread * pf_max_threads(blocks)))) return PF_NO_MEMORY;
    pf_status status = back ? pf_parallel(blocks, body, &p) : X(tile_sums)(s, body, &p);
    free(p.work);
    return status;
}

pf_status X(working_forward)(X(working) *s, const X(flow) *flow, ptrdiff_t l, double *logp)
{
    pf_status status = X(pass)(s, flow, l, s->tiles, X(pass_tile), 0);
    double weight = 0, sum = 0, latent = 0;
    for (ptrdiff_t t = 0; t < s->of; t++) {
        weight += s->sums[3 * t];
        sum += s->sums[3 * t + 1];
        latent += s->sums[3 * t + 2];
    }
    *logp = sum / weight;
    s->length = -2 * latent / weight / (double)s->d - PF_LOG_2PI;
    return status;
}

typedef struct {
    X(working) *s;
    double most;
} X(lengths);

static void X(length_tile)(void *arg, ptrdiff_t t, int thread)
{
    const X(lengths) *lengths = arg;
    X(working) *s = lengths->s;
    X(tile) tile = X(working_tile)(s, t);
    double logp[TILE_MOST], sum = 0, square = 0;
    (void)thread;
    X(tile_logp)(logp, &tile);
    for (ptrdiff_t i = 0; i < tile.n; i++) {
        double w = s->weight ? (double)s->weight[t * s->ld + i] : 1, r = -2 * logp[i] / (double)s->d - PF_LOG_2PI;
        r = PF_MIN(r, lengths->most);
        if (w > 0) sum += w * r, square += w * r * r;
    }
    s->sums[3 * (s->first + t)] = sum;
    s->sums[3 * (s->first + t) + 1] = square;
}

pf_status X(working_length)(double *mean, double *error, X(working) *s, double reach)
{
    double weight = s->total, sum = 0, square = 0;
    PF_TRY(X(tile_sums)(s, X(length_tile), &(X(lengths)){.s = s, .most = reach * reach}));
    for (ptrdiff_t t = 0; t < s->of; t++) sum += s->sums[3 * t], square += s->sums[3 * t + 1];
    *mean = sum / weight;
    double gaussian = 2 / (double)s->d * *mean * *mean; /* the least variance that few rows are believed */
    *error = sqrt(PF_MAX(square / weight - *mean * *mean, gaussian) / s->n_eff);
    return PF_OK;
}

/* All rows through one patch. */
static void X(pass_patch)(void *arg, ptrdiff_t i, int thread)
{
    struct X(pass) *p = arg;
    double logj[TILE_MOST];
    for (ptrdiff_t t = 0; t < p->s->tiles; t++) {
        X(tile) tile = X(working_tile)(p->s, t);
        memset(logj, 0, sizeof logj);
        X(patch_map)(p->layer, p->ready, i, &tile, logj, NULL, p->work + thread * p->per_thread, 1);
    }
}

pf_status X(working_inverse)(X(working) *s, const X(flow) *flow, ptrdiff_t l)
{
    ptrdiff_t patches = X(patch_count)(flow->layers[l]);
    return patches < MANY_PATCHES ? X(pass)(s, flow, l, s->tiles, X(pass_tile), 1)
                                  : X(pass)(s, flow, l, patches, X(pass_patch), 1);
}

/* ---- moments: mean and covariance ------------------------------------------------------------------------- */

ptrdiff_t X(working_groups)(ptrdiff_t tiles, ptrdiff_t numbers)
{
    return PF_MIN(tiles, PF_MIN(MOST_GROUPS, PF_MAX((128 << 20) / 8 / numbers, 2)));
}

pf_status X(working_parallel)(const X(working) *s, ptrdiff_t groups, ptrdiff_t *first,
                              void (*body)(void *, ptrdiff_t, int), void *arg)
{
    ptrdiff_t end = 0;
    *first = 0;
    while (*first * s->of / groups < s->first) ++*first;
    for (end = *first; end < groups && end * s->of / groups < s->first + s->tiles;) end++;
    return pf_parallel(end - *first, body, arg);
}

void X(working_look)(double *z, double *w, const X(working) *s, const pf_look *look, ptrdiff_t t)
{
    X(tile) tile = X(working_tile)(s, t);
    double square[TILE_MOST] = {0};
    for (ptrdiff_t j = 0; j < s->d; j++) {
        double centre = look->centre ? look->centre[j] : 0, inverse = look->spread ? 1 / look->spread[j] : 1;
        for (ptrdiff_t i = 0; i < s->ld; i++) {
            z[j * s->ld + i] = ((double)tile.x[j * s->ld + i] - centre) * inverse;
            square[i] += z[j * s->ld + i] * z[j * s->ld + i];
        }
    }
    for (ptrdiff_t i = 0; i < s->ld; i++) {
        double own = i >= tile.n ? 0 : s->weight ? (double)s->weight[t * s->ld + i] : 1;
        w[i] = own / PF_MAX(square[i] / (look->reach * look->reach * (double)s->d), 1);
    }
}

typedef struct {
    const X(working) *s;
    const pf_look *look;
    ptrdiff_t groups, first;
    double *sums; /* [groups][1 + d + d d]: weight, first and second moments */
    double *work; /* [threads][d ld] */
} X(moments);

static void X(moments_group)(void *arg, ptrdiff_t group, int thread)
{
    X(moments) *m = arg;
    const X(working) *s = m->s;
    ptrdiff_t d = s->d, ld = s->ld, g = m->first + group;
    double *sums = m->sums + g * (1 + d + d * d), *z = m->work + thread * d * ld, w[TILE_MOST];
    for (ptrdiff_t t = g * s->of / m->groups; t < (g + 1) * s->of / m->groups; t++) {
        X(working_look)(z, w, s, m->look, t - s->first);
        for (ptrdiff_t i = 0; i < ld; i++) sums[0] += w[i], w[i] = sqrt(w[i]);
        for (ptrdiff_t j = 0; j < d; j++)
            for (ptrdiff_t i = 0; i < ld; i++) {
                z[j * ld + i] = w[i] > 0 ? z[j * ld + i] * w[i] : 0;
                sums[1 + j] += w[i] * z[j * ld + i];
            }
        pf64_gemm(sums + 1 + d, z, z, 0, 1, 1, d, d, ld, d, ld, ld);
    }
}

pf_status X(working_moments)(double *mean, double *cov, const X(working) *s, const pf_look *look)
{
    ptrdiff_t d = s->d, size = 1 + d + d * d;
    X(moments) m = {.s = s, .look = look, .groups = X(working_groups)(s->of, d * d)};
    m.sums = PF_CALLOC(double, m.groups *size);
    m.work = PF_ALLOC(double, pf_max_threads(m.groups) * d * s->ld);
    pf_status status = m.sums && m.work ? PF_OK : PF_NO_MEMORY;
    if (!status) status = X(working_parallel)(s, m.groups, &m.first, X(moments_group), &m);
    if (!status) status = pf_ranks_sum(s->ranks, m.sums, m.groups * size);
    if (!status) {
        for (ptrdiff_t g = 1; g < m.groups; g++)
            for (ptrdiff_t i = 0; i < size; i++) m.sums[i] += m.sums[g * size + i];
        double inv = 1 / m.sums[0];
        for (ptrdiff_t j = 0; j < d; j++) mean[j] = m.sums[1 + j] * inv;
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = 0; j < d; j++) cov[i * d + j] = m.sums[1 + d + i * d + j] * inv - mean[i] * mean[j];
    }
    free(m.sums);
    free(m.work);
    return status;
}

double X(working_weight)(const X(working) *s, ptrdiff_t t)
{
    ptrdiff_t n = X(working_tile)(s, t).n;
    double total = 0;
    for (ptrdiff_t i = 0; i < n; i++) total += s->weight ? (double)s->weight[t * s->ld + i] : 1;
    return total;
}

/* Smallest and largest number of each column: range[d][2]. */
typedef struct {
    const X(working) *s;
    double *range; /* [tiles][d][2] */
} X(ranges);

static void X(range_tile)(void *arg, ptrdiff_t t, int thread)
{
    X(ranges) *r = arg;
    X(tile) tile = X(working_tile)(r->s, t);
    (void)thread;
    for (ptrdiff_t j = 0; j < r->s->d; j++) {
        real lo = (real)INFINITY, hi = (real)-INFINITY;
        for (ptrdiff_t i = 0; i < tile.n; i++) {
            if (r->s->weight && !r->s->weight[t * tile.ld + i]) continue;
            lo = PF_MIN(lo, tile.x[j * tile.ld + i]);
            hi = PF_MAX(hi, tile.x[j * tile.ld + i]);
        }
        r->range[(t * r->s->d + j) * 2] = lo;
        r->range[(t * r->s->d + j) * 2 + 1] = hi;
    }
}

/* range[d][2] of n ranges */
static void X(join_ranges)(double *range, const double *part, ptrdiff_t n, ptrdiff_t d)
{
    for (ptrdiff_t j = 0; j < d; j++) range[2 * j] = INFINITY, range[2 * j + 1] = -INFINITY;
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t j = 0; j < d; j++) {
            range[2 * j] = PF_MIN(range[2 * j], part[(i * d + j) * 2]);
            range[2 * j + 1] = PF_MAX(range[2 * j + 1], part[(i * d + j) * 2 + 1]);
        }
}

pf_status X(working_range)(double *range, const X(working) *s)
{
    ptrdiff_t rank = s->ranks ? s->ranks->rank : 0, size = s->ranks ? s->ranks->size : 1;
    X(ranges) r = {.s = s, .range = PF_ALLOC(double, s->tiles * s->d * 2)};
    double *each = PF_CALLOC(double, size * s->d * 2); /* of the ranks */
    pf_status status = r.range && each ? pf_parallel(s->tiles, X(range_tile), &r) : PF_NO_MEMORY;
    if (!status) X(join_ranges)(each + rank * s->d * 2, r.range, s->tiles, s->d);
    if (!status) status = pf_ranks_sum(s->ranks, each, size * s->d * 2);
    if (!status) X(join_ranges)(range, each, size, s->d);
    free(r.range);
    free(each);
    return status;
}
#undef LARGEST
#endif
