/* Tiles through the stack, there and back, with a thread's memory for it. */
#ifndef real
#include "flow.h"

enum { NETWORK_ROWS = 64 /* points in a tile where layers have networks, whose units are as many numbers as those */ };

#define TWICE "maps.c"
#include "twice.h"
#else

/* ---- what a tile is --------------------------------------------------------------------------------------- */

/* Whether layers of this layout are in the flow */
static int X(has)(const X(flow) *f, pf_layout layout)
{
    int any = 0;
    for (ptrdiff_t l = 0; l < f->n_layers; l++) any |= f->layers[l]->ops->layout == layout;
    return any;
}

/* A field: one, as its transform alone fills the second-level cache. Both layouts: so many that columns vectorise.
 * Patches: as many as there can be, as only a patch at a time need be in cache, and all tables are read for every tile.
 */
ptrdiff_t X(flow_tile_rows)(const X(flow) *f)
{
    if (X(has)(f, ROWS)) return X(has)(f, COLUMNS) ? TILE_STEP : 1;
    for (ptrdiff_t l = 0; l < f->n_layers; l++)
        if (X(layer_patches)(f->layers[l])) return TILE_MOST;
    if (X(has_networks)(f)) return NETWORK_ROWS;
    return X(tile_rows)(f->space.d);
}

pf_layout X(flow_layout)(const X(flow) *f, int back)
{
    for (ptrdiff_t l = 0; l < f->n_layers; l++) {
        pf_layout layout = f->layers[back ? f->n_layers - 1 - l : l]->ops->layout;
        if (layout != ANY_LAYOUT) return layout;
    }
    return COLUMNS;
}

/* ---- memory ----------------------------------------------------------------------------------------------- */

static pf_sizes X(sizes)(const X(flow) *f, ptrdiff_t l, ptrdiff_t n)
{
    const X(layer) *layer = f->layers[l];
    pf_sizes s = layer->ops->sizes(layer, n, tile_whole(n), X(served)(f, l) ? n : 1);
    s.keep = tile_whole(s.keep);
    return s;
}

pf_status X(workers_new)(X(workers) *w, const X(flow) *f, ptrdiff_t rows, ptrdiff_t tiles, int keep, int count)
{
    int rowwise = X(has)(f, ROWS), columnwise = X(has)(f, COLUMNS) || !rowwise;
    ptrdiff_t d = f->space.d;
    *w = (X(workers)){.flow = f, .rows = rows, .count = count};
    if (rowwise) w->x = rows * tile_whole(d);
    if (columnwise) w->x = PF_MAX(w->x, d * tile_whole(rows));
    if (rowwise && columnwise) w->spare = w->x;
    w->x *= tiles;
    for (ptrdiff_t l = 0; l < f->n_layers; l++) {
        pf_sizes s = X(sizes)(f, l, rows);
        if (keep) w->keep += s.keep;
        w->work = PF_MAX(w->work, tile_whole(s.work));
        if (X(served)(f, l)) w->ready += s.ready;
    }
    size_t each = (size_t)(w->x + w->spare + w->keep + w->work) * sizeof(real) + w->ready;
    w->workers = PF_CALLOC(X(worker), count);
    w->memory = pf_alloc(count, (each + 63) / 64 * 64);
    if (!w->workers || !w->memory) return PF_NO_MEMORY;
    char *at = w->memory;
    for (int i = 0; i < count; i++, at += (each + 63) / 64 * 64) {
        X(worker) *one = w->workers + i;
        one->x = (real *)at;
        one->spare = one->x + w->x;
        one->keep = one->spare + w->spare;
        one->work = one->keep + w->keep;
        one->ready = (char *)(one->work + w->work);
    }
    return PF_OK;
}

void X(workers_clear)(X(workers) *w)
{
    free(w->workers);
    free(w->memory);
}

X(tile) X(worker_tile)(const X(workers) *w, X(worker) *worker, ptrdiff_t i, ptrdiff_t n, pf_layout layout)
{
    ptrdiff_t d = w->flow->space.d;
    ptrdiff_t each = layout == ROWS ? w->rows * tile_whole(d) : d * tile_whole(w->rows);
    worker->spare = worker->x + w->x; /* the tiles before may have left it in another's place */
    return (X(tile)){.x = worker->x + i * each,
                     .n = n,
                     .d = d,
                     .ld = layout == ROWS ? tile_whole(d) : tile_whole(n),
                     .layout = layout,
                     .tables = 1};
}

void X(worker_prepare)(const X(workers) *w, X(worker) *worker, const double *rows, ptrdiff_t n)
{
    const X(flow) *f = w->flow;
    char *ready = worker->ready;
    for (ptrdiff_t l = 0; l < f->n_layers; l++) {
        if (!X(served)(f, l)) continue;
        const X(layer) *layer = f->layers[l];
        layer->ops->prepare(layer, ready, rows + f->net->at[l], f->net->n_row, n, worker->work);
        ready += X(sizes)(f, l, n).ready;
    }
}

/* ---- there and back --------------------------------------------------------------------------------------- */

/* All tiles through a layer. Patches have large tables: all tiles go through one after another. */
static void X(layer_tiles)(const X(layer) *layer, const void *ready, X(tile) *const *t, double *const *logj,
                           ptrdiff_t count, real *keep, real *work, int inverse)
{
    ptrdiff_t patches = count > 1 ? X(patch_count)(layer) : 0;
    for (ptrdiff_t p = 0; p < patches; p++)
        for (ptrdiff_t i = 0; i < count; i++) X(patch_map)(layer, ready, p, t[i], logj[i], NULL, work, inverse);
    for (ptrdiff_t i = 0; i < count && !patches; i++) {
        if (inverse) layer->ops->inverse(layer, ready, t[i], logj[i], work);
        else layer->ops->forward(layer, ready, t[i], logj[i], keep, work);
    }
}

void X(flow_forward_tiles)(const X(workers) *w, X(worker) *worker, X(tile) *const *t, double *const *logj,
                           ptrdiff_t count)
{
    const X(flow) *f = w->flow;
    char *ready = worker->ready;
    real *keep = w->keep ? worker->keep : NULL;
    for (ptrdiff_t l = 0; l < f->n_layers; l++) {
        const X(layer) *layer = f->layers[l];
        pf_sizes s = X(sizes)(f, l, t[0]->n);
        int served = X(served)(f, l);
        for (ptrdiff_t i = 0; i < count; i++) {
            X(tile_turn)(t[i], layer->ops->layout, &worker->spare);
            t[i]->tables = served ? t[i]->n : 1;
        }
        X(layer_tiles)(layer, served ? ready : f->ready[l], t, logj, count, keep, worker->work, 0);
        if (keep) keep += s.keep;
        if (served) ready += s.ready;
    }
}

void X(flow_inverse_tiles)(const X(workers) *w, X(worker) *worker, X(tile) *const *t, double *const *logj,
                           ptrdiff_t count)
{
    const X(flow) *f = w->flow;
    char *ready = worker->ready;
    for (ptrdiff_t l = 0; l < f->n_layers; l++)
        if (X(served)(f, l)) ready += X(sizes)(f, l, t[0]->n).ready;
    for (ptrdiff_t l = f->n_layers - 1; l >= 0; l--) {
        const X(layer) *layer = f->layers[l];
        int served = X(served)(f, l);
        if (served) ready -= X(sizes)(f, l, t[0]->n).ready;
        for (ptrdiff_t i = 0; i < count; i++) {
            X(tile_turn)(t[i], layer->ops->layout, &worker->spare);
            t[i]->tables = served ? t[i]->n : 1;
        }
        X(layer_tiles)(layer, served ? ready : f->ready[l], t, logj, count, NULL, worker->work, 1);
    }
}

void X(flow_vjp_tile)(const X(workers) *w, X(worker) *worker, X(tile) *g, double *gtheta, double *rows,
                      const double *glogj, int want_x)
{
    const X(flow) *f = w->flow;
    char *ready = worker->ready;
    real *keep = worker->keep;
    ptrdiff_t lowest = f->n_layers; /* the first layer whose gradient is wanted */
    for (ptrdiff_t l = f->n_layers - 1; l >= 0; l--) {
        pf_sizes s = X(sizes)(f, l, g->n);
        keep += s.keep;
        if (X(served)(f, l)) ready += s.ready;
        if (f->layers[l]->n_theta && (X(served)(f, l) ? rows : gtheta)) lowest = l;
    }
    for (ptrdiff_t l = f->n_layers - 1; l >= (want_x ? 0 : lowest); l--) {
        const X(layer) *layer = f->layers[l];
        pf_sizes s = X(sizes)(f, l, g->n);
        int served = X(served)(f, l);
        double *to = served ? (rows ? rows + f->net->at[l] : NULL) : gtheta ? gtheta + f->at[l] : NULL;
        keep -= s.keep;
        if (served) ready -= s.ready;
        X(tile_turn)(g, layer->ops->layout, &worker->spare);
        g->tables = served ? g->n : 1;
        layer->ops->vjp(layer, served ? ready : f->ready[l], g, to, served ? f->net->n_row : layer->n_theta, glogj,
                        keep, want_x || l > lowest, worker->work);
    }
}

/* Several points at a time where they have few numbers: drawing many at once is faster. */
void X(tile_normals)(X(tile) *t, uint64_t seed, uint64_t first)
{
    double z[TILE_MOST];
    ptrdiff_t along = t->layout == ROWS ? 1 : t->ld, across = t->layout == ROWS ? t->ld : 1;
    if (t->layout == COLUMNS) memset(t->x, 0, (size_t)(t->d * t->ld) * sizeof(real));
    for (ptrdiff_t j = 0; j < t->d; j += TILE_MOST) {
        ptrdiff_t m = PF_MIN(t->d - j, TILE_MOST), rows = TILE_MOST / m;
        for (ptrdiff_t i = 0; i < t->n; i += rows) {
            ptrdiff_t n = PF_MIN(rows, t->n - i);
            pf_normal_rows(z, seed, first + (uint64_t)i, (uint64_t)j, n, m);
            for (ptrdiff_t r = 0; r < n; r++)
                for (ptrdiff_t c = 0; c < m; c++) t->x[(j + c) * along + (i + r) * across] = (real)z[r * m + c];
        }
    }
}
#endif
