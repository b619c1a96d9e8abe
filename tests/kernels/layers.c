/* Wrappers of the layers (layers.h), one tile at a time; of tiles (layer.h); of flows made of these layers. */
#ifndef real
#include "blas.h"
#include "example_layer.h"
#include "flow.h"
#include "kernels.h"

#pragma GCC visibility push(default)

double k_inverse(double *a, ptrdiff_t n)
{
    double *work = PF_ALLOC(double, 2 * n), log_det = pf_inverse(a, n, work);
    free(work);
    return log_det;
}

/* Memory of exactly the size that was asked for, full of NaN, between two fences: whoever writes past it is found out. */
enum { FENCE = 64 };

static void *fenced(size_t bytes)
{
    char *block = pf_alloc((ptrdiff_t)bytes + 2 * FENCE, 1);
    memset(block, 0xff, bytes + 2 * FENCE); /* a NaN, as a float and as a double */
    return block + FENCE;
}

/* Frees it; whether the fences stand. */
static int unfence(void *memory, size_t bytes)
{
    const unsigned char *block = (const unsigned char *)memory - FENCE;
    int whole = 1;
    for (size_t i = 0; i < FENCE; i++) whole &= block[i] == 0xff && block[FENCE + bytes + i] == 0xff;
    free((char *)memory - FENCE);
    return whole;
}

#define TWICE "layers.c"
#include "twice.h"
#pragma GCC visibility pop
#else

/* ---- shapes: NULL on failure ---- */

X(layer) *K(columns)(const int32_t *kind, const double *a, const double *b, ptrdiff_t d)
{
    X(layer) *l = NULL;
    pf_column *column = PF_ALLOC(pf_column, d);
    for (ptrdiff_t j = 0; j < d; j++) column[j] = (pf_column){(pf_column_kind)kind[j], a[j], b[j]};
    if (X(columns_new)(&l, column, d)) l = NULL;
    free(column);
    return l;
}

X(layer) *K(scale)(double mean, double scale, ptrdiff_t d)
{
    X(layer) *l;
    return X(scale_new)(&l, mean, scale, d) ? NULL : l;
}

X(layer) *K(affine)(ptrdiff_t d)
{
    X(layer) *l;
    return X(affine_new)(&l, d) ? NULL : l;
}

X(layer) *K(sliced)(ptrdiff_t d, ptrdiff_t k, ptrdiff_t m, ptrdiff_t classes)
{
    X(layer) *l;
    return X(sliced_new)(&l, d, k, m, classes) ? NULL : l;
}

/* where: image[3], kernel[3], shift[2] */
X(layer) *K(patch)(const int32_t *where, ptrdiff_t k, ptrdiff_t m, ptrdiff_t classes)
{
    X(layer) *l;
    pf_patches p;
    memcpy(&p, where, sizeof p);
    return X(patch_new)(&l, &p, k, m, classes) ? NULL : l;
}

/* rows[count][size] of a patch layer, if it is not NULL; returns count, 0 for any other layer */
ptrdiff_t K(layer_patches)(const X(layer) *l, int32_t *rows)
{
    const pf_patches *p = X(layer_patches)(l);
    if (p && rows) pf_patches_rows(rows, p);
    return p ? pf_patches_count(p) : 0;
}

X(layer) *K(example)(ptrdiff_t d)
{
    X(layer) *l;
    return X(example_new)(&l, d) ? NULL : l;
}

static pf_space K(space)(ptrdiff_t ndim, const ptrdiff_t *n, const double *box)
{
    pf_space space = {.ndim = (int)ndim, .d = 1};
    for (int i = 0; i < ndim; i++) space.n[i] = n[i], space.box[i] = box[i], space.d *= n[i];
    return space;
}

X(layer) *K(symmetric)(ptrdiff_t ndim, const ptrdiff_t *n, const double *box, ptrdiff_t psi_knots,
                       ptrdiff_t filter_knots, ptrdiff_t axis, ptrdiff_t mu_knots)
{
    X(layer) *l;
    X(mesh) *mesh;
    pf_space space = K(space)(ndim, n, box);
    if (X(mesh_new)(&mesh, &space)) return NULL;
    if (X(symmetric_new)(&l, mesh, psi_knots, filter_knots, axis, mu_knots)) l = NULL;
    X(mesh_release)(mesh); /* the layer shares it */
    return l;
}

X(layer) *K(shift)(ptrdiff_t ndim, const ptrdiff_t *n, const double *box, const double *p, ptrdiff_t knots,
                   ptrdiff_t filter_knots)
{
    X(layer) *l;
    X(mesh) *mesh;
    pf_space space = K(space)(ndim, n, box);
    if (X(mesh_new)(&mesh, &space)) return NULL;
    if (X(shift_new)(&l, mesh, p, knots, filter_knots)) l = NULL;
    X(mesh_release)(mesh);
    return l;
}

X(layer) *K(coupling)(ptrdiff_t ndim, const ptrdiff_t *n, const double *box, double split, ptrdiff_t large,
                      ptrdiff_t channels, ptrdiff_t knots)
{
    X(layer) *l;
    X(mesh) *mesh;
    pf_space space = K(space)(ndim, n, box);
    if (X(mesh_new)(&mesh, &space)) return NULL;
    if (X(coupling_new)(&l, mesh, split, (int)large, channels, knots)) l = NULL;
    X(mesh_release)(mesh);
    return l;
}

/* stats[4][n_y] */
X(layer) *K(autoregressive)(const int32_t *rank, ptrdiff_t d, const ptrdiff_t *hidden, ptrdiff_t n_hidden,
                            ptrdiff_t bins, const double *stats, ptrdiff_t n_y)
{
    X(layer) *l;
    pf_network from = {.n_y = n_y, .bins = bins, .hidden = hidden, .n_hidden = (int)n_hidden};
    from.rank = rank, from.stats = stats;
    return X(autoregressive_new)(&l, d, &from) ? NULL : l;
}

void K(release)(X(layer) *l) { X(layer_release)(l); }
const char *K(layer_kind)(const X(layer) *l) { return l->ops->kind; }
int K(layer_layout)(const X(layer) *l) { return (int)l->ops->layout; }
int K(layer_conditional)(const X(layer) *l) { return l->ops->conditional; }
ptrdiff_t K(layer_n_theta)(const X(layer) *l) { return l->n_theta; }
ptrdiff_t K(layer_slices)(const X(layer) *l) { return X(layer_slices)(l); }
const double *K(layer_bounds)(const X(layer) *l) { return X(layer_bounds)(l); }

/* ---- what a layer does to one tile ---- */

/* context[n][d], y[n][n_y], or NULL. x[n][d] forward or back, logj[n] +=; then, unless it is NULL, g[n][d]: dL/df
 * becomes dL/dx, and gtheta +=, gy[n][n_y] +=, or NULL. `pad` stands where a tile in columns has no point. Non-zero if
 * anything was written where it should not be. */
int K(layer_run)(const X(layer) *l, real *x, double *logj, real *g, double *gtheta, const double *glogj,
                 const double *theta, ptrdiff_t stride, ptrdiff_t tables, const int32_t *label, const real *context,
                 const double *y, ptrdiff_t n_y, double *gy, int layout, int inverse, int want_x, double pad,
                 ptrdiff_t n)
{
    ptrdiff_t d = l->d, ld = layout == ROWS ? tile_whole(d) : tile_whole(n);
    pf_sizes s = l->ops->sizes(l, n, tile_whole(n), tables);
    size_t whole = (size_t)((layout == ROWS ? n : d) * ld) * sizeof(real), work = (size_t)s.work * sizeof(real);
    size_t keep = (size_t)s.keep * sizeof(real);
    int wrong = s.ready % 64 != 0;
    void *ready = fenced(s.ready), *kept = fenced(keep);
    X(tile) t = {
        .x = fenced(whole), .n = n, .d = d, .ld = ld, .layout = (pf_layout)layout, .tables = tables, .label = label};
    const real *contexts[TILE_MOST];
    for (ptrdiff_t i = 0; i < n && context; i++) contexts[i] = context + i * d;
    if (context) t.context = contexts;
    t.y = y, t.n_y = n_y, t.gy = gy;
    real *data = t.x, *scratch = fenced(work);
    l->ops->prepare(l, ready, theta, stride, tables, scratch);
    wrong |= !unfence(scratch, work);
    for (int back = 0; back < (g ? 2 : 1); back++) {
        X(tile_load)(&t, back ? g : x);
        for (ptrdiff_t j = 0; layout == COLUMNS && j < d; j++)
            for (ptrdiff_t i = n; i < ld; i++) t.x[j * ld + i] = (real)pad;
        scratch = fenced(work);
        if (back) l->ops->vjp(l, ready, &t, gtheta, stride, glogj, kept, want_x, scratch);
        else if (inverse) l->ops->inverse(l, ready, &t, logj, scratch);
        else l->ops->forward(l, ready, &t, logj, g ? kept : NULL, scratch);
        wrong |= !unfence(scratch, work);
        X(tile_store)(back ? g : x, &t);
    }
    wrong |= t.x != data || t.ld != ld || t.n != n;
    wrong |= !unfence(data, whole);
    wrong |= !unfence(kept, keep);
    return wrong | !unfence(ready, s.ready);
}

void K(layer_project)(const X(layer) *l, double *gtheta, const double *theta)
{
    if (l->ops->project) l->ops->project(l, gtheta, theta);
}

void K(layer_retract)(const X(layer) *l, double *theta)
{
    if (l->ops->retract) l->ops->retract(l, theta);
}

/* whether it smooths */
int K(layer_smooth)(const X(layer) *l, real *theta, ptrdiff_t stride, ptrdiff_t rows)
{
    if (l->ops->smooth) l->ops->smooth(l, theta, stride, rows);
    return l->ops->smooth != NULL;
}

/* A layer as its file has it: read back from what was written, of which only the first `n` bytes are there (n < 0:
 * all). *size: how many there are. theta is in the same file: `whole` bytes. */
X(layer) *K(layer_copy)(const X(layer) *l, ptrdiff_t *size, ptrdiff_t n, ptrdiff_t whole, ptrdiff_t ndim,
                        const ptrdiff_t *shape, const double *box, ptrdiff_t classes)
{
    pf_writer w = {0};
    pf_space space = K(space)(ndim, shape, box);
    X(mesh) *mesh = NULL;
    X(layer) *copy = NULL;
    l->ops->write(l, &w);
    *size = (ptrdiff_t)w.n;
    pf_reader r = {.bytes = w.bytes, .n = n < 0 ? w.n : (size_t)n, .whole = (size_t)whole};
    if (w.status || (ndim > 1 && X(mesh_new)(&mesh, &space))) return NULL;
    if (l->ops->read(&copy, &r, &space, mesh, classes)) copy = NULL;
    if (copy && r.at != r.n) {
        X(layer_release)(copy);
        copy = NULL;
    }
    X(mesh_release)(mesh);
    free(w.bytes);
    return copy;
}

/* ---- a flow of layers, which it shares; theta of all of them, one after another ---- */

X(flow) *K(flow)(X(layer) **layers, ptrdiff_t n_layers, const double *theta, ptrdiff_t ndim, const ptrdiff_t *n,
                 const double *box, int classes)
{
    X(flow) *flow;
    pf_space space = K(space)(ndim, n, box);
    if (X(flow_create)(&flow, &space, classes)) return NULL;
    const ptrdiff_t none = 1;
    for (ptrdiff_t i = 0; i < n_layers; i++)
        if (X(layer_conditions)(layers[i]) && !flow->net &&
            X(conditioner_new)(&flow->net, NULL, 0, X(layer_conditions)(layers[i]), &none, 1)) {
            X(flow_free)(flow);
            return NULL;
        }
    for (ptrdiff_t i = 0; i < n_layers; theta += layers[i++]->n_theta)
        if (X(flow_append)(flow, X(layer_share)(layers[i]), theta)) {
            X(flow_free)(flow);
            return NULL;
        }
    return flow;
}

void K(flow_free)(X(flow) *flow) { X(flow_free)(flow); }

/* context[n][d], y[n][n_y], or NULL; z[n][d], logj[n]; back from them x and minus logj; score[n][d], logp[n] */
int K(flow_run)(const X(flow) *flow, real *z, double *logj, real *back, double *back_logj, real *score, double *logp,
                const real *x, const int32_t *label, const real *context, const double *y, ptrdiff_t n)
{
    X(request) r = {.question = PF_FORWARD, .out = z, .log = logj, .in = x, .y = y, .n = n};
    r.label = label;
    r.context = context;
    if (X(flow_answer)(flow, &r)) return 1;
    r.question = PF_INVERSE, r.out = back, r.log = back_logj, r.in = z;
    if (X(flow_answer)(flow, &r)) return 1;
    r.question = PF_SCORE, r.out = score, r.log = logp, r.in = x;
    return X(flow_answer)(flow, &r) != PF_OK;
}

/* The flow as its file has it, written twice: NULL unless the bytes are the same. */
X(flow) *K(flow_copy)(const X(flow) *flow)
{
    void *one = NULL, *two = NULL;
    size_t n_one, n_two;
    X(flow) *copy = NULL;
    int same = !X(flow_write)(flow, &one, &n_one) && !X(flow_read)(&copy, one, n_one) &&
               !X(flow_write)(copy, &two, &n_two) && n_one == n_two && !memcmp(one, two, n_one);
    pf_free(one);
    pf_free(two);
    if (same) return copy;
    X(flow_free)(copy);
    return NULL;
}

/* ---- tiles ---- */

ptrdiff_t K(tile_rows)(ptrdiff_t d) { return X(tile_rows)(d); }

/* rows[n][d] loaded in layout 0, turned to 1 and back where `turns` says, stored; memory[...] as it is after loading.
 * Whether all numbers are finite. */
int K(tile_through)(real *out, real *memory, const real *rows, double *logp, int layout, int turns, ptrdiff_t n,
                    ptrdiff_t d)
{
    ptrdiff_t most = PF_MAX(n * tile_whole(d), d * tile_whole(n));
    size_t bytes = (size_t)most * sizeof(real);
    real *one = fenced(bytes), *spare = fenced(bytes), *pair[2] = {one, spare};
    X(tile) t = {.x = one, .n = n, .d = d, .layout = (pf_layout)layout, .tables = 1};
    t.ld = layout == ROWS ? tile_whole(d) : tile_whole(n);
    int finite = X(tile_load)(&t, rows);
    for (int i = 0; i < turns; i++) X(tile_turn)(&t, t.layout == ROWS ? COLUMNS : ROWS, &spare);
    X(tile_turn)(&t, ANY_LAYOUT, &spare);
    X(tile_logp)(logp, &t);
    memcpy(memory, t.x, bytes);
    X(tile_store)(out, &t);
    int whole = unfence(pair[0], bytes) & unfence(pair[1], bytes);
    return whole ? finite : -1;
}

void K(tile_product)(real *y, const real *a, const real *x, int add, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
                     ptrdiff_t si, ptrdiff_t sk, ptrdiff_t ldy, ptrdiff_t ldx)
{
    X(tile_product)(y, a, x, add, m, n, k, si, sk, ldy, ldx);
}

void K(tile_outer)(double *g, const real *a, const real *b, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, ptrdiff_t lda,
                   ptrdiff_t ldb)
{
    X(tile_outer)(g, a, b, m, k, n, lda, ldb);
}

double K(sum_squares)(const real *x, ptrdiff_t n) { return X(sum_squares)(x, n); }
void K(scale_shift)(real *y, const real *x, double scale, double shift, ptrdiff_t n)
{
    X(scale_shift)(y, x, (real)scale, (real)shift, n);
}
#endif
