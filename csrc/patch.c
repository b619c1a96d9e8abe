/* The patch layer (the hierarchical approach of Dai & Seljak 2021): an image, flattened as (height, width, channels),
 * is rolled by a shift and cut into patches, and each patch goes through a sliced layer of its own. Where the kernel
 * does not divide a side, the numbers left over stay: a layer with another shift moves them. log|det| is the sum over
 * patches.
 *
 * One sliced layer, d the size of a patch, is the shape of all of them. theta, the tables and what is kept for the way
 * back stand patch after patch, each as the sliced layer has it. */
#ifndef real
#include "layers.h"

static const char *const side_name[] = {"height", "width", "channels"};

pf_status pf_patches_check(const pf_patches *p)
{
    ptrdiff_t numbers = 1;
    for (int i = 0; i < 3; i++) {
        if (p->image[i] < 1) return pf_fail(PF_BAD_ARGUMENT, "image_shape: %s is %d", side_name[i], (int)p->image[i]);
        if (numbers > INT32_MAX / p->image[i])
            return pf_fail(PF_BAD_ARGUMENT, "image_shape: an image has at most %d numbers", INT32_MAX);
        numbers *= p->image[i];
        if (p->kernel[i] < 1 || p->kernel[i] > p->image[i])
            return pf_fail(PF_BAD_ARGUMENT, "kernel: %s %d is not between 1 and %d", side_name[i], (int)p->kernel[i],
                           (int)p->image[i]);
    }
    if (p->kernel[2] != 1 && p->kernel[2] != p->image[2])
        return pf_fail(PF_BAD_ARGUMENT, "kernel: has 1 or all %d channels, not %d", (int)p->image[2],
                       (int)p->kernel[2]);
    for (int i = 0; i < 2; i++)
        if (p->shift[i] < 0 || p->shift[i] >= p->image[i])
            return pf_fail(PF_BAD_ARGUMENT, "shift: %d is not between 0 and %d, the image's %s less 1",
                           (int)p->shift[i], (int)p->image[i] - 1, side_name[i]);
    return PF_OK;
}

ptrdiff_t pf_patches_count(const pf_patches *p)
{
    ptrdiff_t count = 1;
    for (int i = 0; i < 3; i++) count *= p->image[i] / p->kernel[i];
    return count;
}

ptrdiff_t pf_patches_size(const pf_patches *p) { return (ptrdiff_t)p->kernel[0] * p->kernel[1] * p->kernel[2]; }

void pf_patches_rows(int32_t *rows, const pf_patches *p)
{
    ptrdiff_t count = pf_patches_count(p), size = pf_patches_size(p);
    const ptrdiff_t height = p->image[0], width = p->image[1], channels = p->image[2];
    const ptrdiff_t across = width / p->kernel[1], deep = channels / p->kernel[2];
    for (ptrdiff_t patch = 0; patch < count; patch++) {
        ptrdiff_t top = patch / deep / across * p->kernel[0] + p->shift[0];
        ptrdiff_t left = patch / deep % across * p->kernel[1] + p->shift[1], first = patch % deep * p->kernel[2];
        for (ptrdiff_t i = 0; i < size; i++) {
            ptrdiff_t y = (top + i / p->kernel[2] / p->kernel[1]) % height;
            ptrdiff_t x = (left + i / p->kernel[2] % p->kernel[1]) % width;
            *rows++ = (int32_t)((y * width + x) * channels + first + i % p->kernel[2]);
        }
    }
}

#define TWICE "patch.c"
#include "twice.h"
#else

typedef struct {
    X(layer) base;
    X(layer) *inner; /* the sliced layer of a patch, of each in turn */
    pf_patches patches;
    ptrdiff_t count, k, m; /* k as sliced_new has it: 0 for A = I */
    int32_t *rows;         /* [count][size] */
} X(patch);

static void X(patch_destroy)(X(layer) *l)
{
    X(patch) *p = (X(patch) *)l;
    X(layer_release)(p->inner);
    free(p->rows);
    free(p);
}

pf_status X(patch_new)(X(layer) **l, const pf_patches *patches, ptrdiff_t k, ptrdiff_t m, ptrdiff_t classes)
{
    X(layer) *inner = NULL;
    PF_TRY(pf_patches_check(patches));
    ptrdiff_t count = pf_patches_count(patches), size = pf_patches_size(patches);
    PF_TRY(X(sliced_new)(&inner, size, k, m, classes));
    X(patch) *p = NULL;
    int32_t *rows = NULL;
    if (inner->n_theta > PTRDIFF_MAX / 1024 / count)
        pf_fail(PF_NO_MEMORY, "out of memory: %.3g parameters", (double)inner->n_theta * (double)count);
    else if ((rows = PF_ALLOC(int32_t, count * size))) p = PF_CALLOC(X(patch), 1);
    if (!p) {
        X(layer_release)(inner);
        free(rows);
        return PF_NO_MEMORY;
    }
    pf_patches_rows(rows, patches);
    p->inner = inner;
    p->patches = *patches;
    p->count = count;
    p->k = k;
    p->m = m;
    p->rows = rows;
    p->base = (X(layer)){.ops = &X(patch_ops),
                         .d = (ptrdiff_t)patches->image[0] * patches->image[1] * patches->image[2],
                         .n_theta = count * inner->n_theta,
                         .references = 1};
    *l = &p->base;
    return PF_OK;
}

const pf_patches *X(layer_patches)(const X(layer) *l)
{
    return l->ops == &X(patch_ops) ? &((const X(patch) *)l)->patches : NULL;
}

ptrdiff_t X(patch_count)(const X(layer) *l) { return l->ops == &X(patch_ops) ? ((const X(patch) *)l)->count : 0; }

const X(layer) *X(patch_inner)(const X(layer) *l) { return ((const X(patch) *)l)->inner; }

/* ---- sizes and tables, patch after patch ------------------------------------------------------------------ */

static pf_sizes X(inner_sizes)(const X(patch) *p, ptrdiff_t n, ptrdiff_t ld)
{
    return p->inner->ops->sizes(p->inner, n, ld, 1);
}

/* work: a patch [size][ld], then what the sliced layer needs */
static pf_sizes X(patch_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    const X(patch) *p = (const X(patch) *)l;
    pf_sizes one = X(inner_sizes)(p, n, ld);
    (void)tables;
    return (pf_sizes){
        .ready = (size_t)p->count * one.ready, .keep = p->count * one.keep, .work = p->inner->d * ld + one.work};
}

static void X(patch_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride, ptrdiff_t tables,
                             real *work)
{
    const X(patch) *p = (const X(patch) *)l;
    size_t bytes = X(inner_sizes)(p, 1, TILE_STEP).ready;
    (void)stride;
    for (ptrdiff_t i = 0; i < p->count; i++)
        p->inner->ops->prepare(p->inner, (char *)ready + (size_t)i * bytes, theta + i * p->inner->n_theta,
                               p->inner->n_theta, tables, work);
}

/* ---- maps: the numbers of a patch are gathered into a tile of their own, and put back --------------------- */

static X(tile) X(patch_tile)(const X(patch) *p, const X(tile) *t, real *work)
{
    X(tile) small = *t;
    small.x = work;
    small.d = p->inner->d;
    return small;
}

static void X(gather)(X(tile) *to, const X(tile) *from, const int32_t *rows)
{
    for (ptrdiff_t j = 0; j < to->d; j++)
        memcpy(to->x + j * to->ld, from->x + rows[j] * from->ld, (size_t)to->ld * sizeof(real));
}

static void X(scatter)(X(tile) *to, const X(tile) *from, const int32_t *rows)
{
    for (ptrdiff_t j = 0; j < from->d; j++)
        memcpy(to->x + rows[j] * to->ld, from->x + j * from->ld, (size_t)to->ld * sizeof(real));
}

void X(patch_map)(const X(layer) *l, const void *ready, ptrdiff_t i, X(tile) *t, double *logj, real *keep, real *work,
                  int inverse)
{
    const X(patch) *p = (const X(patch) *)l;
    const X(layer) *inner = p->inner;
    const int32_t *rows = p->rows + i * inner->d;
    pf_sizes s = X(inner_sizes)(p, t->n, t->ld);
    const char *tables = (const char *)ready + (size_t)i * s.ready;
    X(tile) small = X(patch_tile)(p, t, work);
    work += inner->d * t->ld;
    X(gather)(&small, t, rows);
    if (inverse) inner->ops->inverse(inner, tables, &small, logj, work);
    else inner->ops->forward(inner, tables, &small, logj, keep ? keep + i * s.keep : NULL, work);
    X(scatter)(t, &small, rows);
}

static void X(patch_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep, real *work)
{
    for (ptrdiff_t i = 0; i < X(patch_count)(l); i++) X(patch_map)(l, ready, i, t, logj, keep, work, 0);
}

static void X(patch_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    for (ptrdiff_t i = 0; i < X(patch_count)(l); i++) X(patch_map)(l, ready, i, t, logj, NULL, work, 1);
}

static void X(patch_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                         const double *glogj, const real *keep, int want_x, real *work)
{
    const X(patch) *p = (const X(patch) *)l;
    const X(layer) *inner = p->inner;
    const char *tables = ready;
    const int32_t *rows = p->rows;
    pf_sizes s = X(inner_sizes)(p, g->n, g->ld);
    X(tile) small = X(patch_tile)(p, g, work);
    (void)stride;
    work += inner->d * g->ld;
    for (ptrdiff_t i = 0; i < p->count; i++, tables += s.ready, rows += inner->d, keep += s.keep) {
        double *to = gtheta ? gtheta + i * inner->n_theta : NULL;
        X(gather)(&small, g, rows);
        inner->ops->vjp(inner, tables, &small, to, inner->n_theta, glogj, keep, want_x, work);
        if (want_x) X(scatter)(g, &small, rows);
    }
}

/* ---- the manifold: slices of a patch are orthonormal among themselves ------------------------------------- */

static void X(patch_project)(const X(layer) *l, double *gtheta, const double *theta)
{
    const X(patch) *p = (const X(patch) *)l;
    for (ptrdiff_t i = 0; i < p->count; i++, gtheta += p->inner->n_theta, theta += p->inner->n_theta)
        p->inner->ops->project(p->inner, gtheta, theta);
}

static void X(patch_retract)(const X(layer) *l, double *theta)
{
    const X(patch) *p = (const X(patch) *)l;
    for (ptrdiff_t i = 0; i < p->count; i++, theta += p->inner->n_theta) p->inner->ops->retract(p->inner, theta);
}

/* ---- files: the image, the kernel, the shift, K (0: A = I) and M ------------------------------------------- */

static void X(patch_write)(const X(layer) *l, pf_writer *w)
{
    const X(patch) *p = (const X(patch) *)l;
    for (int i = 0; i < 3; i++) pf_put_int(w, p->patches.image[i]), pf_put_int(w, p->patches.kernel[i]);
    for (int i = 0; i < 2; i++) pf_put_int(w, p->patches.shift[i]);
    pf_put_int(w, p->k);
    pf_put_int(w, p->m);
}

static pf_status X(patch_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh, ptrdiff_t classes)
{
    pf_patches p;
    double numbers = 1;
    (void)mesh;
    for (int i = 0; i < 3; i++) {
        p.image[i] = (int32_t)pf_get_int(r, 1, space->d);
        p.kernel[i] = (int32_t)pf_get_int(r, 1, p.image[i]);
        numbers *= p.image[i];
    }
    for (int i = 0; i < 2; i++) p.shift[i] = (int32_t)pf_get_int(r, 0, p.image[i] - 1);
    PF_TRY(r->status);
    if (numbers != (double)space->d || (p.kernel[2] != 1 && p.kernel[2] != p.image[2]))
        return r->status = pf_fail(PF_BAD_FILE, "the file is damaged: patches do not fit the flow's points");
    double size = (double)pf_patches_size(&p), count = (double)pf_patches_count(&p);
    ptrdiff_t k = pf_get_int(r, 0, pf_patches_size(&p)), m = pf_get_int(r, 2, 65535);
    /* the splines are in the file's theta: sizes that are not there are not allocated, nor do they overflow */
    double theta = (double)classes * (k ? (double)k : size) * 3 * (double)m + (double)k * size;
    if (count * theta > (double)r->whole / sizeof(double))
        r->status = pf_fail(PF_BAD_FILE, "the file is damaged: splines are missing");
    return r->status ? r->status : X(patch_new)(l, &p, k, m, classes);
}

const X(layer_ops) X(patch_ops) = {
    .kind = "patch",
    .layout = COLUMNS,
    .sizes = X(patch_sizes),
    .prepare = X(patch_prepare),
    .forward = X(patch_forward),
    .inverse = X(patch_inverse),
    .vjp = X(patch_vjp),
    .project = X(patch_project),
    .retract = X(patch_retract),
    .write = X(patch_write),
    .read = X(patch_read),
    .destroy = X(patch_destroy),
};
#endif
