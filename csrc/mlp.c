/* The conditioning network: see mlp.h. Products are cut into blocks of columns of a fixed width, which threads share. */
#ifndef real
#include "blas.h"
#include "cspline.h"
#include "mlp.h"

enum { WIDTH = 128 /* columns of a block */, SILU = 8 * 512 /* numbers of a block: worth a thread's while */ };

static ptrdiff_t blocks_of(ptrdiff_t n, ptrdiff_t width) { return (n + width - 1) / width; }

#define TWICE "mlp.c"
#include "twice.h"
#else

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
    ptrdiff_t units = 0, widest = p->size[p->layers];
    for (int l = 1; l < p->layers; l++) {
        units += p->size[l];
        widest = PF_MAX(widest, p->size[l]);
    }
    return rows * (2 * units + 2 * widest);
}

static void X(gemm_)(real *c, const real *a, const real *b, int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
                     ptrdiff_t ldc, ptrdiff_t lda, ptrdiff_t ldb)
{
#if REAL_BITS == 32
    pf32_gemm(c, a, b, ta, tb, 0, m, n, k, ldc, lda, ldb);
#else
    pf64_gemm(c, a, b, ta, tb, 0, m, n, k, ldc, lda, ldb);
#endif
}

/* One layer's products, WIDTH columns a block:
 *   forward  h[rows][out] = a W^T + b
 *   weights  gW[out][in] = gh^T a, gb = sum over rows of gh: WIDTH rows of gW a block
 *   inputs   ga[rows][in] = gh W */
typedef struct {
    real *to, *bias;
    const real *a, *w, *gh;
    ptrdiff_t rows, n_in, n_out;
} X(product);

static void X(forward_block)(void *arg, ptrdiff_t block, int thread)
{
    (void)thread;
    X(product) *p = arg;
    ptrdiff_t first = block * WIDTH, n = PF_MIN(WIDTH, p->n_out - first);
    const real *bias = p->w + p->n_in * p->n_out + first;
    X(gemm_)(p->to + first, p->a, p->w + first * p->n_in, 0, 1, p->rows, n, p->n_in, p->n_out, p->n_in, p->n_in);
    for (ptrdiff_t r = 0; r < p->rows; r++)
        for (ptrdiff_t j = 0; j < n; j++) p->to[r * p->n_out + first + j] += bias[j];
}

static void X(weights_block)(void *arg, ptrdiff_t block, int thread)
{
    (void)thread;
    X(product) *p = arg;
    ptrdiff_t first = block * WIDTH, n = PF_MIN(WIDTH, p->n_out - first);
    X(gemm_)(p->to + first * p->n_in, p->gh + first, p->a, 1, 0, n, p->n_in, p->rows, p->n_in, p->n_out, p->n_in);
    for (ptrdiff_t j = 0; j < n; j++) p->bias[first + j] = 0;
    for (ptrdiff_t r = 0; r < p->rows; r++)
        for (ptrdiff_t j = 0; j < n; j++) p->bias[first + j] += p->gh[r * p->n_out + first + j];
}

static void X(inputs_block)(void *arg, ptrdiff_t block, int thread)
{
    (void)thread;
    X(product) *p = arg;
    ptrdiff_t first = block * WIDTH, n = PF_MIN(WIDTH, p->n_in - first);
    X(gemm_)(p->to + first, p->gh, p->w + first, 0, 0, p->rows, n, p->n_out, p->n_in, p->n_out, p->n_in);
}

/* silu(h) = h s, s = 1 / (1 + exp(-h)); with g: g *= silu'(h) = s (1 + h (1 - s)), SILU numbers a block */
typedef struct {
    real *to, *g;
    const real *h;
    ptrdiff_t n;
} X(silu);

static void X(silu_block)(void *arg, ptrdiff_t block, int thread)
{
    (void)thread;
    X(silu) *p = arg;
    double e[512] = {0};
    for (ptrdiff_t first = block * SILU; first < PF_MIN((block + 1) * SILU, p->n); first += 512) {
        ptrdiff_t n = PF_MIN(512, p->n - first);
        for (ptrdiff_t i = 0; i < n; i++) e[i] = -(double)p->h[first + i];
        pf_exp(e, e, n);
        for (ptrdiff_t i = 0; i < n; i++) {
            real h = p->h[first + i], s = (real)(1 / (1 + e[i]));
            if (p->g) p->g[first + i] *= s * (1 + h * (1 - s));
            else p->to[first + i] = h * s;
        }
    }
}

pf_status X(mlp_forward)(const X(mlp) *p, real *out, real *memory, const real *in, ptrdiff_t rows)
{
    const real *a = in, *w = p->w;
    for (int l = 0; l < p->layers; l++) {
        ptrdiff_t units = rows * p->size[l + 1];
        int last = l == p->layers - 1;
        real *h = last ? out : memory;
        X(product) product = {.to = h, .a = a, .w = w, .rows = rows, .n_in = p->size[l], .n_out = p->size[l + 1]};
        PF_TRY(pf_parallel(blocks_of(product.n_out, WIDTH), X(forward_block), &product));
        w += (p->size[l] + 1) * p->size[l + 1];
        if (last) break;
        X(silu) silu = {.to = memory + units, .h = h, .n = units};
        PF_TRY(pf_parallel(blocks_of(units, SILU), X(silu_block), &silu));
        a = memory + units;
        memory += 2 * units;
    }
    return PF_OK;
}

pf_status X(mlp_vjp)(const X(mlp) *p, real *gw, real *gin, const real *gout, real *memory, const real *in,
                     ptrdiff_t rows)
{
    ptrdiff_t widest = p->size[p->layers], units = 0;
    for (int l = 1; l < p->layers; l++) {
        units += p->size[l];
        widest = PF_MAX(widest, p->size[l]);
    }
    real *end = memory + 2 * rows * units, *spare[2] = {end, end + rows * widest};
    const real *w = p->w + p->n_w, *gh = gout;
    if (gw) gw += p->n_w;
    for (int l = p->layers - 1; l >= 0; l--) {
        ptrdiff_t n_in = p->size[l], n_out = p->size[l + 1], hidden = rows * n_in;
        end -= l ? 2 * hidden : 0;
        w -= (n_in + 1) * n_out;
        X(product) product = {.a = l ? end + hidden : in, .w = w, .gh = gh, .rows = rows, .n_in = n_in, .n_out = n_out};
        if (gw) {
            gw -= (n_in + 1) * n_out;
            product.to = gw;
            product.bias = gw + n_in * n_out;
            PF_TRY(pf_parallel(blocks_of(n_out, WIDTH), X(weights_block), &product));
        }
        if (!l && !gin) break;
        product.to = l ? spare[l % 2] : gin;
        PF_TRY(pf_parallel(blocks_of(n_in, WIDTH), X(inputs_block), &product));
        if (!l) break;
        X(silu) silu = {.g = product.to, .h = end, .n = hidden};
        PF_TRY(pf_parallel(blocks_of(hidden, SILU), X(silu_block), &silu));
        gh = product.to;
    }
    return PF_OK;
}
#endif
