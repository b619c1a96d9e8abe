/* From conditions to parameters: see conditioner.h. */
#ifndef real
#include "conditioner.h"

#define TWICE "conditioner.c"
#include "twice.h"
#else

pf_status X(conditioner_new)(X(conditioner) **conditioner, X(layer) *const *layers, ptrdiff_t n_layers, ptrdiff_t n_y,
                             const ptrdiff_t *hidden, int n_hidden)
{
    if (n_y < 1 || n_y > MOST_CONDITIONS)
        return pf_fail(PF_BAD_ARGUMENT, "y: a flow has 1 to %d conditions, not %td", MOST_CONDITIONS, n_y);
    X(conditioner) *c = *conditioner = PF_CALLOC(X(conditioner), 1);
    if (!c) return PF_NO_MEMORY;
    c->n_y = n_y;
    c->n_layers = n_layers;
    c->stats = PF_CALLOC(double, 4 * n_y);
    c->at = PF_ALLOC(ptrdiff_t, n_layers);
    pf_status status = c->stats && c->at ? PF_OK : PF_NO_MEMORY;
    for (ptrdiff_t l = 0; l < n_layers && !status; l++) {
        c->at[l] = layers[l]->ops->conditional ? c->n_row : -1;
        if (c->at[l] >= 0) c->n_row += layers[l]->n_theta;
    }
    for (ptrdiff_t j = 0; j < n_y && !status; j++) c->stats[n_y + j] = 1;
    if (!status) status = X(mlp_new)(&c->net, n_y, hidden, n_hidden, c->n_row);
    if (status) {
        X(conditioner_free)(c);
        *conditioner = NULL;
    }
    return status;
}

pf_status X(conditioner_grow)(X(conditioner) *c)
{
    ptrdiff_t *at = PF_ALLOC(ptrdiff_t, c->n_layers + 1);
    if (!at) return PF_NO_MEMORY;
    memcpy(at, c->at, (size_t)c->n_layers * sizeof *at);
    at[c->n_layers++] = -1;
    free(c->at);
    c->at = at;
    return PF_OK;
}

void X(conditioner_free)(X(conditioner) *c)
{
    if (!c) return;
    X(mlp_free)(c->net);
    free(c->stats);
    free(c->at);
    free(c);
}

/* A pass's memory: inputs, their gradient, outputs, then the network's own */
static ptrdiff_t X(inputs)(const X(conditioner) *c) { return tile_whole(NET_ROWS * c->n_y); }
static ptrdiff_t X(outputs)(const X(conditioner) *c) { return tile_whole(NET_ROWS * c->n_row); }

ptrdiff_t X(conditioner_memory)(const X(conditioner) *c)
{
    return 2 * X(inputs)(c) + X(outputs)(c) + X(mlp_memory)(c->net, NET_ROWS);
}

static void X(smooth_rows)(const X(conditioner) *c, real *theta, X(layer) *const *layers, ptrdiff_t rows)
{
    for (ptrdiff_t l = 0; l < c->n_layers; l++)
        if (c->at[l] >= 0 && layers[l]->ops->smooth)
            layers[l]->ops->smooth(layers[l], theta + c->at[l], c->n_row, rows);
}

static double X(standard)(const X(conditioner) *c, double y, ptrdiff_t j)
{
    return (y - c->stats[j]) / c->stats[c->n_y + j];
}

pf_status X(conditioner_rows)(const X(conditioner) *c, double *theta, real *memory, const double *base,
                              const ptrdiff_t *base_at, X(layer) *const *layers, const double *y, ptrdiff_t rows)
{
    real *in = memory, *out = in + 2 * X(inputs)(c);
    if (!c->n_row) return PF_OK;
    for (ptrdiff_t i = 0; i < rows * c->n_y; i++)
        in[i] = (real)PF_MIN(PF_MAX(X(standard)(c, y[i], i % c->n_y), -NET_REACH), NET_REACH);
    PF_TRY(X(mlp_forward)(c->net, out, out + X(outputs)(c), in, rows));
    X(smooth_rows)(c, out, layers, rows);
    for (ptrdiff_t l = 0; l < c->n_layers; l++)
        for (ptrdiff_t r = 0; r < rows && c->at[l] >= 0; r++) {
            ptrdiff_t row = r * c->n_row + c->at[l];
            for (ptrdiff_t j = 0; j < layers[l]->n_theta; j++)
                theta[row + j] = base[base_at[l] + j] + NET_SCALE * (double)out[row + j];
        }
    return PF_OK;
}

pf_status X(conditioner_vjp)(const X(conditioner) *c, double *gy, real *gw, const double *gtheta, real *memory,
                             X(layer) *const *layers, ptrdiff_t rows)
{
    real *in = memory, *gin = in + X(inputs)(c), *gout = gin + X(inputs)(c);
    if (!c->n_row) {
        if (gy) memset(gy, 0, (size_t)(rows * c->n_y) * sizeof *gy);
        if (gw) memset(gw, 0, (size_t)c->net->n_w * sizeof *gw);
        return PF_OK;
    }
    for (ptrdiff_t i = 0; i < rows * c->n_row; i++) gout[i] = (real)(NET_SCALE * gtheta[i]);
    X(smooth_rows)(c, gout, layers, rows);
    PF_TRY(X(mlp_vjp)(c->net, gw, gy ? gin : NULL, gout, gout + X(outputs)(c), in, rows));
    for (ptrdiff_t i = 0; i < rows * c->n_y && gy; i++) {
        int held = in[i] >= (real)NET_REACH || in[i] <= -(real)NET_REACH;
        gy[i] = held ? 0 : (double)gin[i] / c->stats[c->n_y + i % c->n_y];
    }
    return PF_OK;
}
#endif
