/* The conditioning network: see mlp.h. A layer's products are cut into blocks of outputs, or of inputs, which threads
 * share; they are our own, in mlp.inc, since what a library computes of one row depends on the other rows in its last
 * bits. */
#ifndef real
#include "mlp.h"

enum {
    WIDTH = 96, /* outputs, or inputs, of a block */
    ROWS = 4,   /* rows, columns and vectors of columns of the inner loops in mlp.inc */
    COLUMNS = 4,
    VECTORS = 3
};

static ptrdiff_t blocks_of(ptrdiff_t n) { return (n + WIDTH - 1) / WIDTH; }

#define TWICE "mlp.c"
#include "twice.h"
#else

#include "exp.h"
#define SIMD "mlp.inc"
#include "simd.h"

pf_status X(mlp_new)(X(mlp) **mlp, ptrdiff_t n_in, const ptrdiff_t *hidden, int n_hidden, ptrdiff_t n_out)
{
    *mlp = NULL;
    if (n_hidden < 1 || n_hidden >= MLP_LAYERS)
        return pf_fail(PF_BAD_ARGUMENT, "a network has 1 to %d hidden layers, not %d", MLP_LAYERS - 1, n_hidden);
    for (int l = 0; l < n_hidden; l++)
        if (hidden[l] < 1 || hidden[l] > 1 << 16)
            return pf_fail(PF_BAD_ARGUMENT, "hidden layer %d cannot have %td units", l, hidden[l]);
    X(mlp) *p = PF_CALLOC(X(mlp), 1);
    if (!p) return PF_NO_MEMORY;
    p->layers = n_hidden + 1;
    p->size[0] = n_in;
    for (int l = 0; l < n_hidden; l++) p->size[l + 1] = hidden[l];
    p->size[p->layers] = n_out;
    for (int l = 0; l < p->layers; l++) p->n_w += (p->size[l] + 1) * p->size[l + 1];
    p->w = PF_CALLOC(real, p->n_w);
    if (!p->w) {
        X(mlp_free)(p);
        return PF_NO_MEMORY;
    }
    *mlp = p;
    return PF_OK;
}

void X(mlp_draw)(X(mlp) *p, uint64_t seed, uint64_t stream)
{
    real *w = p->w;
    for (int l = 0; l < p->layers - 1; l++) {
        ptrdiff_t count = p->size[l] * p->size[l + 1];
        double scale = sqrt(2 / (double)p->size[l]), z;
        for (ptrdiff_t i = 0; i < count; i++) {
            pf_normals(&z, seed, stream + (uint64_t)l, (uint64_t)i, 1);
            w[i] = (real)(scale * z);
        }
        w += count + p->size[l + 1];
    }
}

void X(mlp_free)(X(mlp) *p)
{
    if (!p) return;
    free(p->w);
    free(p);
}

ptrdiff_t X(mlp_memory)(const X(mlp) *p, ptrdiff_t rows)
{
    ptrdiff_t units = 0, widest = 0;
    for (int l = 1; l < p->layers; l++) {
        units += p->size[l];
        widest = PF_MAX(widest, p->size[l]);
    }
    return rows * (2 * units + 2 * widest);
}

/* One layer's way forward, or back: a[rows][n_in] its input, w its weights and biases,
 *   h = a W^T + b, where hidden to = silu(h), slope = silu'(h), else to = h
 *   gw = (gh^T a, sum over rows of gh), ga = gh W, times the slope of the layer that a comes from; NULL: not wanted */
typedef struct {
    real *to, *slope, *gw, *ga;
    const real *a, *w, *gh;
    ptrdiff_t rows, n_in, n_out;
} X(pass);

/* silu(h) = h s, s = 1 / (1 + exp(-h)); silu'(h) = s (1 + h (1 - s)). a[n] is h on entry. */
PF_KERNEL void X(silu_body)(real *restrict a, real *restrict slope, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        real h = a[i], s = 1 / (1 + X(exp_inline)(-h));
        a[i] = h * s;
        slope[i] = s * (1 + h * (1 - s));
    }
}
PF_DISPATCH(X(silu), (real * a, real *slope, ptrdiff_t n), (a, slope, n))

static void X(forward_block)(void *arg, ptrdiff_t block, int thread)
{
    (void)thread;
    X(pass) *p = arg;
    ptrdiff_t at = block * WIDTH, n = PF_MIN(WIDTH, p->n_out - at);
    const real *bias = p->w + p->n_in * p->n_out;
    SIMD_BEST(forward)(p->to + at, p->n_out, p->a, p->w + at * p->n_in, bias + at, p->rows, n, p->n_in);
    for (ptrdiff_t r = 0; r < p->rows && p->slope; r++)
        X(silu)(p->to + r * p->n_out + at, p->slope + r * p->n_out + at, n);
}

static void X(inputs_block)(const X(pass) *p, ptrdiff_t at)
{
    ptrdiff_t n = PF_MIN(WIDTH, p->n_in - at);
    SIMD_BEST(product)(p->ga + at, p->n_in, p->gh, p->n_out, 1, p->w + at, p->n_in, p->rows, n, p->n_out);
    for (ptrdiff_t r = 0; r < p->rows && p->slope; r++)
        for (ptrdiff_t i = r * p->n_in + at; i < r * p->n_in + at + n; i++) p->ga[i] *= p->slope[i];
}

static void X(weights_block)(const X(pass) *p, ptrdiff_t at)
{
    ptrdiff_t n = PF_MIN(WIDTH, p->n_out - at);
    real *bias = p->gw + p->n_in * p->n_out;
    SIMD_BEST(product)(p->gw + at * p->n_in, p->n_in, p->gh + at, 1, p->n_out, p->a, p->n_in, n, p->n_in, p->rows);
    for (ptrdiff_t j = at; j < at + n; j++) bias[j] = 0;
    for (ptrdiff_t r = 0; r < p->rows; r++)
        for (ptrdiff_t j = at; j < at + n; j++) bias[j] += p->gh[r * p->n_out + j];
}

/* The blocks of ga, then those of gw */
static void X(vjp_block)(void *arg, ptrdiff_t block, int thread)
{
    (void)thread;
    X(pass) *p = arg;
    ptrdiff_t before = p->ga ? blocks_of(p->n_in) : 0;
    if (block < before) X(inputs_block)(p, block * WIDTH);
    else X(weights_block)(p, (block - before) * WIDTH);
}

pf_status X(mlp_forward)(const X(mlp) *p, real *out, real *memory, const real *in, ptrdiff_t rows)
{
    const real *a = in, *w = p->w;
    for (int l = 0; l < p->layers; l++) {
        ptrdiff_t n_in = p->size[l], n_out = p->size[l + 1];
        int last = l == p->layers - 1;
        X(pass) pass = {.to = last ? out : memory + rows * n_out,
                        .slope = last ? NULL : memory,
                        .a = a,
                        .w = w,
                        .rows = rows,
                        .n_in = n_in,
                        .n_out = n_out};
        PF_TRY(pf_parallel(blocks_of(n_out), X(forward_block), &pass));
        a = pass.to;
        w += (n_in + 1) * n_out;
        memory += 2 * rows * n_out;
    }
    return PF_OK;
}

pf_status X(mlp_vjp)(const X(mlp) *p, real *gw, real *gin, const real *gout, real *memory, const real *in,
                     ptrdiff_t rows)
{
    ptrdiff_t widest = 0, units = 0;
    for (int l = 1; l < p->layers; l++) {
        units += p->size[l];
        widest = PF_MAX(widest, p->size[l]);
    }
    real *kept = memory + 2 * rows * units, *spare[2] = {kept, kept + rows * widest};
    const real *w = p->w + p->n_w, *gh = gout;
    if (gw) gw += p->n_w;
    for (int l = p->layers - 1; l >= 0; l--) {
        ptrdiff_t n_in = p->size[l], n_out = p->size[l + 1];
        kept -= l ? 2 * rows * n_in : 0;
        w -= (n_in + 1) * n_out;
        if (gw) gw -= (n_in + 1) * n_out;
        X(pass) pass = {.slope = l ? kept : NULL,
                        .gw = gw,
                        .ga = l ? spare[l % 2] : gin,
                        .a = l ? kept + rows * n_in : in,
                        .w = w,
                        .gh = gh,
                        .rows = rows,
                        .n_in = n_in,
                        .n_out = n_out};
        PF_TRY(pf_parallel((pass.ga ? blocks_of(n_in) : 0) + (gw ? blocks_of(n_out) : 0), X(vjp_block), &pass));
        gh = pass.ga;
    }
    return PF_OK;
}
#undef SIMD_BEST
#endif
