/* The autoregressive layer: every column by a spline of its own (rqp.h) whose knots depend on the columns before it and
 * on the conditions y,
 *
 *     x_j <- S_j((x_j - t_j) exp(-s_j)),    (t_j, s_j, S_j) = (L_j (y, x), 0, 0) + net_j(y, x),
 *
 * a masked autoregressive flow (Papamakarios et al. 2017, arXiv 1705.07057) with neural splines (Durkan et al. 2019,
 * arXiv 1906.04032). The Jacobian is triangular, so log|det| is the sum of the splines' log-slopes. One network makes
 * the knots of all columns; a mask of its weights (Germain et al. 2015, arXiv 1502.03509) sees to it that column j
 * hears of y and of columns i with rank_i < rank_j alone. So the inverse takes as many passes of the network as there
 * are ranks: d of them are most expressive, two make a coupling layer. A single rank is for columns that depend on y
 * alone. L is a linear regression: where the truth is linear the network has nothing to learn.
 *
 * theta: L[d][n_in], then the network's weights (mlp.h), both with those that the mask forbids, which are not used.
 * Inputs are y, standardised, then x; those of the network held within +-NET_REACH. */
#ifndef real
#include "layers.h"
#include "conditioner.h"
#include "rqp.h"

#define TWICE "autoregressive.c"
#include "twice.h"
#else

/* ---- the shape -------------------------------------------------------------------------------------------- */

typedef struct {
    X(layer) base;
    ptrdiff_t n_y, bins, ranks, n_in, n_out;
    double *stats;       /* [2][n_y] mean and scale of the conditions */
    int32_t *rank;       /* [d] from 0 on */
    unsigned char *mask; /* [n_theta] whether the parameter is used */
    X(mlp) net;          /* its sizes; w is NULL */
} X(autoregressive);

static void X(autoregressive_destroy)(X(layer) *l)
{
    X(autoregressive) *a = (X(autoregressive) *)l;
    free(a->stats);
    free(a->rank);
    free(a->mask);
    free(a);
}

/* A unit hears of those of the layer before whose degree is no larger. Inputs: 0 of y, 1 + rank of x_i. Outputs of
 * column j: rank_j. Hidden units: all between, evenly. */
static int32_t X(degree)(const X(autoregressive) *a, int layer, ptrdiff_t i)
{
    ptrdiff_t least = a->n_y || a->ranks == 1 ? 0 : 1;
    if (layer == 0) return i < a->n_y ? 0 : 1 + a->rank[i - a->n_y];
    if (layer == a->net.layers) return a->rank[i / RQP_SIZE(a->bins)];
    return (int32_t)(least + i * PF_MAX(a->ranks - least, 1) / a->net.size[layer]);
}

static void X(set_mask)(X(autoregressive) *a)
{
    unsigned char *to = a->mask;
    for (ptrdiff_t j = 0; j < a->base.d; j++)
        for (ptrdiff_t i = 0; i < a->n_in; i++) *to++ = X(degree)(a, 0, i) <= a->rank[j];
    for (int l = 0; l < a->net.layers; l++) {
        for (ptrdiff_t j = 0; j < a->net.size[l + 1]; j++)
            for (ptrdiff_t i = 0; i < a->net.size[l]; i++) *to++ = X(degree)(a, l, i) <= X(degree)(a, l + 1, j);
        for (ptrdiff_t j = 0; j < a->net.size[l + 1]; j++) *to++ = 1; /* biases */
    }
}

pf_status X(autoregressive_new)(X(layer) **l, ptrdiff_t d, const pf_network *from)
{
    ptrdiff_t n_in = d + from->n_y, n_out = d * RQP_SIZE(from->bins);
    double weights = (double)d * (double)n_in, before = (double)n_in;
    if (from->n_y < 0 || from->n_y > MOST_CONDITIONS)
        return pf_fail(PF_BAD_ARGUMENT, "n_conditions: %td is not between 0 and %d", from->n_y, MOST_CONDITIONS);
    if (from->bins < 1 || from->bins > RQP_BINS)
        return pf_fail(PF_BAD_ARGUMENT, "bins: %td is not between 1 and %d", from->bins, RQP_BINS);
    if (from->n_hidden < 1 || from->n_hidden >= MLP_LAYERS)
        return pf_fail(PF_BAD_ARGUMENT, "hidden: a network has 1 to %d hidden layers, not %d", MLP_LAYERS - 1,
                       from->n_hidden);
    for (int i = 0; i < from->n_hidden; i++) {
        if (from->hidden[i] < 1 || from->hidden[i] > 1 << 16)
            return pf_fail(PF_BAD_ARGUMENT, "hidden: layer %d cannot have %td units", i, from->hidden[i]);
        weights += (before + 1) * (double)from->hidden[i];
        before = (double)from->hidden[i];
    }
    weights += (before + 1) * (double)n_out;
    if (weights > (double)(PTRDIFF_MAX / 1024)) return pf_fail(PF_NO_MEMORY, "out of memory: %.3g parameters", weights);
    X(autoregressive) *a = PF_CALLOC(X(autoregressive), 1);
    if (!a) return PF_NO_MEMORY;
    a->base = (X(layer)){.ops = &X(autoregressive_ops), .d = d, .n_theta = (ptrdiff_t)weights, .references = 1};
    a->n_y = from->n_y, a->bins = from->bins, a->n_in = n_in, a->n_out = n_out;
    a->net.layers = from->n_hidden + 1;
    a->net.size[0] = n_in;
    for (int i = 0; i < from->n_hidden; i++) a->net.size[i + 1] = from->hidden[i];
    a->net.size[a->net.layers] = n_out;
    a->net.n_w = a->base.n_theta - d * n_in;
    a->stats = PF_ALLOC(double, 2 * a->n_y);
    a->rank = PF_ALLOC(int32_t, d);
    a->mask = PF_ALLOC(unsigned char, a->base.n_theta);
    pf_status status = a->stats && a->rank && a->mask ? PF_OK : PF_NO_MEMORY;
    if (!status) memcpy(a->stats, from->stats, (size_t)(2 * a->n_y) * sizeof(double));
    for (ptrdiff_t j = 0; j < d && !status; j++) {
        a->rank[j] = from->rank[j];
        a->ranks = PF_MAX(a->ranks, from->rank[j] + 1);
        if (from->rank[j] < 0 || from->rank[j] >= d)
            status = pf_fail(PF_BAD_ARGUMENT, "ranks: %d is not between 0 and %td", from->rank[j], d - 1);
    }
    for (ptrdiff_t j = 0; j < a->n_y && !status; j++)
        if (!isfinite(a->stats[j]) || !(a->stats[a->n_y + j] > 0) || !isfinite(a->stats[a->n_y + j]))
            status = pf_fail(PF_BAD_ARGUMENT, "conditions: the mean or the scale of column %td makes no sense", j);
    if (status) {
        X(autoregressive_destroy)(&a->base);
        return status;
    }
    X(set_mask)(a);
    *l = &a->base;
    return PF_OK;
}

ptrdiff_t X(layer_conditions)(const X(layer) *l)
{
    return l->ops == &X(autoregressive_ops) ? ((const X(autoregressive) *)l)->n_y : 0;
}

static void X(autoregressive_decay)(const X(layer) *l, double *theta, double factor)
{
    const X(autoregressive) *a = (const X(autoregressive) *)l;
    for (ptrdiff_t i = l->d * a->n_in; i < l->n_theta - a->n_out; i++)
        theta[i] *= factor; /* not what y and x do not change */
}

/* The regression; hidden layers drawn, with variance 2 / inputs that are heard; the last 0. */
void X(autoregressive_start)(double *theta, const X(layer) *l, const pf_network *from)
{
    const X(autoregressive) *a = (const X(autoregressive) *)l;
    const unsigned char *mask = a->mask + l->d * a->n_in;
    ptrdiff_t d = l->d, size = RQP_SIZE(a->bins);
    memset(theta, 0, (size_t)l->n_theta * sizeof *theta);
    for (ptrdiff_t i = 0; i < d * a->n_in && from->linear; i++) theta[i] = a->mask[i] ? from->linear[i] : 0;
    double *bias = theta + l->n_theta - a->n_out;
    for (ptrdiff_t j = 0; j < d && from->log_scale; j++) bias[j * size + 1] = from->log_scale[j];
    theta += d * a->n_in;
    for (int layer = 0; layer < a->net.layers - 1; layer++) {
        ptrdiff_t n = a->net.size[layer], m = a->net.size[layer + 1];
        for (ptrdiff_t j = 0; j < m; j++, theta += n, mask += n) {
            ptrdiff_t heard = 0;
            for (ptrdiff_t i = 0; i < n; i++) heard += mask[i];
            pf_normals(theta, from->seed, (uint64_t)layer, (uint64_t)(j * n), n);
            for (ptrdiff_t i = 0; i < n; i++) theta[i] = mask[i] ? theta[i] * sqrt(2 / (double)heard) : 0;
        }
        theta += m;
        mask += m;
    }
}

/* ---- tables: L[d][n_in] and the weights, masked, in this precision ---------------------------------------- */

/* keep: standardised y [n_y][ld], x [d][ld], q [d][RQP_SIZE][ld]; the network's inputs [n][n_in] and memory.
 * work: out [n][n_out], gradients: gt [d][ld], of the inputs [n][n_in], of theta */
static pf_sizes X(autoregressive_sizes)(const X(layer) *l, ptrdiff_t n, ptrdiff_t ld, ptrdiff_t tables)
{
    const X(autoregressive) *a = (const X(autoregressive) *)l;
    (void)tables;
    return (pf_sizes){
        .ready = (size_t)tile_whole(l->n_theta) * sizeof(real),
        .keep = (a->n_in + a->n_out) * ld + tile_whole(n * a->n_in) + tile_whole(X(mlp_memory)(&a->net, n)),
        .work = (a->n_in + a->n_out) * ld + 2 * tile_whole(n * a->n_in) + tile_whole(X(mlp_memory)(&a->net, n)) +
                tile_whole(n * a->n_out) + (l->d + 1) * ld + tile_whole(PF_MAX(l->n_theta, RQP_SIZE(a->bins) * ld)),
    };
}

typedef struct {
    real *y, *x, *q, *in, *memory;        /* as in keep, which these are in, or in work */
    real *out, *line, *gt, *gin, *gtheta; /* line[ld] */
} X(autoregressive_room);

static X(autoregressive_room)
    X(autoregressive_memory)(const X(autoregressive) *a, ptrdiff_t n, ptrdiff_t ld, const real *keep, real *work)
{
    X(autoregressive_room) r;
    real *at = keep ? (real *)keep : work;
    r.y = at, at += a->n_y * ld;
    r.x = at, at += a->base.d * ld;
    r.q = at, at += a->n_out * ld;
    r.in = at, at += tile_whole(n * a->n_in);
    r.memory = at, at += tile_whole(X(mlp_memory)(&a->net, n));
    if (keep) at = work;
    r.out = at, at += tile_whole(n * a->n_out);
    r.line = at, at += ld;
    r.gt = at, at += a->base.d * ld;
    r.gin = at, at += tile_whole(n * a->n_in);
    r.gtheta = at;
    return r;
}

static void X(autoregressive_prepare)(const X(layer) *l, void *ready, const double *theta, ptrdiff_t stride,
                                      ptrdiff_t tables, real *work)
{
    const X(autoregressive) *a = (const X(autoregressive) *)l;
    real *to = ready;
    (void)stride, (void)tables, (void)work;
    for (ptrdiff_t i = 0; i < l->n_theta; i++) to[i] = a->mask[i] ? (real)theta[i] : 0;
}

static X(mlp) X(network)(const X(autoregressive) *a, const void *ready)
{
    X(mlp) net = a->net;
    net.w = (real *)ready + a->base.d * a->n_in;
    return net;
}

/* ---- maps ------------------------------------------------------------------------------------------------- */

static real X(within)(real x)
{
    return x < -(real)NET_REACH ? -(real)NET_REACH : x > (real)NET_REACH ? (real)NET_REACH : x;
}

/* The network's inputs to[n][columns], rows `stride` apart, from a tile's [columns][ld] */
static void X(inputs_of)(real *to, const real *from, ptrdiff_t n, ptrdiff_t columns, ptrdiff_t stride, ptrdiff_t ld)
{
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t j = 0; j < columns; j++) to[i * stride + j] = X(within)(from[j * ld + i]);
}

static void X(conditions)(const X(autoregressive) *a, const X(tile) *t, const X(autoregressive_room) *r, ptrdiff_t ld)
{
    for (ptrdiff_t j = 0; j < a->n_y; j++)
        for (ptrdiff_t i = 0; i < ld; i++)
            r->y[j * ld + i] = i < t->n ? X(within)((real)((t->y[i * a->n_y + j] - a->stats[j]) / a->stats[a->n_y + j]))
                                        : 0;
    X(inputs_of)(r->in, r->y, t->n, a->n_y, a->n_in, ld);
}

/* q of the columns r->x as they are now */
static void X(knots)(const X(autoregressive) *a, const void *ready, const X(autoregressive_room) *r, ptrdiff_t n,
                     ptrdiff_t ld)
{
    ptrdiff_t d = a->base.d, size = RQP_SIZE(a->bins);
    X(mlp) net = X(network)(a, ready);
    X(inputs_of)(r->in + a->n_y, r->x, n, d, a->n_in, ld);
    (void)X(mlp_forward)(&net, r->out, r->memory, r->in, n); /* within a thread nothing interrupts it */
    for (ptrdiff_t first = 0; first < a->n_out; first += TILE_STEP)
        for (ptrdiff_t i = 0; i < ld; i++)
            for (ptrdiff_t c = first; c < PF_MIN(first + TILE_STEP, a->n_out); c++)
                r->q[c * ld + i] = i < n ? r->out[i * a->n_out + c] : 0;
    for (ptrdiff_t j = 0; j < d; j++) { /* y, then x: one array */
        X(tile_product)(r->line, (const real *)ready + j * a->n_in, r->y, 0, 1, ld, a->n_in, a->n_in, 1, ld, ld);
        for (ptrdiff_t i = 0; i < ld; i++) r->q[j * size * ld + i] += r->line[i];
    }
}

static void X(autoregressive_forward)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *keep,
                                      real *work)
{
    const X(autoregressive) *a = (const X(autoregressive) *)l;
    ptrdiff_t ld = tile_whole(t->n), size = RQP_SIZE(a->bins);
    X(autoregressive_room) r = X(autoregressive_memory)(a, t->n, ld, keep, work);
    for (ptrdiff_t j = 0; j < l->d; j++) memcpy(r.x + j * ld, t->x + j * t->ld, (size_t)ld * sizeof(real));
    X(conditions)(a, t, &r, ld);
    X(knots)(a, ready, &r, t->n, ld);
    for (ptrdiff_t j = 0; j < l->d; j++) {
        X(rqp_forward)(t->x + j * t->ld, r.line, r.x + j * ld, r.q + j * size * ld, a->bins, ld, ld);
        for (ptrdiff_t i = 0; i < t->n; i++) logj[i] += (double)r.line[i];
    }
}

static void X(autoregressive_inverse)(const X(layer) *l, const void *ready, X(tile) *t, double *logj, real *work)
{
    const X(autoregressive) *a = (const X(autoregressive) *)l;
    ptrdiff_t ld = tile_whole(t->n), size = RQP_SIZE(a->bins);
    X(autoregressive_room) r = X(autoregressive_memory)(a, t->n, ld, NULL, work);
    memset(r.x, 0, (size_t)(l->d * ld) * sizeof(real));
    X(conditions)(a, t, &r, ld);
    for (ptrdiff_t rank = 0; rank < a->ranks; rank++) {
        X(knots)(a, ready, &r, t->n, ld);
        for (ptrdiff_t j = 0; j < l->d; j++) {
            if (a->rank[j] != rank) continue;
            X(rqp_inverse)(r.x + j * ld, r.line, t->x + j * t->ld, r.q + j * size * ld, a->bins, ld, ld);
            for (ptrdiff_t i = 0; i < t->n; i++) logj[i] += (double)r.line[i];
        }
    }
    for (ptrdiff_t j = 0; j < l->d; j++) memcpy(t->x + j * t->ld, r.x + j * ld, (size_t)ld * sizeof(real));
}

static void X(autoregressive_vjp)(const X(layer) *l, const void *ready, X(tile) *g, double *gtheta, ptrdiff_t stride,
                                  const double *glogj, const real *keep, int want_x, real *work)
{
    const X(autoregressive) *a = (const X(autoregressive) *)l;
    ptrdiff_t d = l->d, n = g->n, ld = tile_whole(n), size = RQP_SIZE(a->bins);
    X(autoregressive_room) r = X(autoregressive_memory)(a, n, ld, keep, work);
    X(mlp) net = X(network)(a, ready);
    const real *linear = ready;
    (void)stride;
    for (ptrdiff_t i = 0; i < ld; i++) r.line[i] = i < n ? (real)glogj[i] : 0;
    for (ptrdiff_t j = 0; j < d; j++) { /* dL/dq in the place of q */
        real *q = r.q + j * size * ld, *gq = r.gtheta;
        X(rqp_vjp)(g->x + j * g->ld, gq, r.line, r.x + j * ld, q, a->bins, ld, ld);
        memcpy(q, gq, (size_t)(size * ld) * sizeof(real));
        memcpy(r.gt + j * ld, q, (size_t)ld * sizeof(real));
    }
    for (ptrdiff_t first = 0; first < a->n_out; first += TILE_STEP)
        for (ptrdiff_t i = 0; i < n; i++)
            for (ptrdiff_t c = first; c < PF_MIN(first + TILE_STEP, a->n_out); c++)
                r.out[i * a->n_out + c] = r.q[c * ld + i];
    int want_in = want_x || g->gy;
    (void)X(mlp_vjp)(&net, gtheta ? r.gtheta + d * a->n_in : NULL, want_in ? r.gin : NULL, r.out, r.memory, r.in, n);
    for (ptrdiff_t i = d * a->n_in; gtheta && i < l->n_theta; i++) gtheta[i] += a->mask[i] ? (double)r.gtheta[i] : 0;
    for (ptrdiff_t i = 0; gtheta && i < d * a->n_in; i++) {
        const real *of = r.gt + i / a->n_in * ld, *at = r.y + i % a->n_in * ld;
        double sum = 0;
        for (ptrdiff_t c = 0; c < n && a->mask[i]; c++) sum += (double)of[c] * (double)at[c];
        gtheta[i] += sum;
    }
    if (!want_in) return;
    for (ptrdiff_t c = 0; c < a->n_in; c++) {
        X(tile_product)(r.line, linear + c, r.gt, 0, 1, ld, d, 1, a->n_in, ld, ld);
        const real *at = r.y + c * ld;
        for (ptrdiff_t i = 0; i < n; i++) {
            int held = !(at[i] > -(real)NET_REACH && at[i] < (real)NET_REACH);
            real of = held ? 0 : r.gin[i * a->n_in + c];
            if (c >= a->n_y) g->x[(c - a->n_y) * g->ld + i] += of + r.line[i];
            else if (g->gy && !held) g->gy[i * a->n_y + c] += (double)(of + r.line[i]) / a->stats[a->n_y + c];
        }
    }
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static void X(autoregressive_write)(const X(layer) *l, pf_writer *w)
{
    const X(autoregressive) *a = (const X(autoregressive) *)l;
    pf_put_int(w, a->n_y);
    pf_put_int(w, a->bins);
    pf_put_int(w, a->net.layers - 1);
    for (int i = 1; i < a->net.layers; i++) pf_put_int(w, a->net.size[i]);
    pf_put_array(w, a->rank, l->d, sizeof *a->rank);
    pf_put_array(w, a->stats, 2 * a->n_y, sizeof *a->stats);
}

static pf_status X(autoregressive_read)(X(layer) **l, pf_reader *r, const pf_space *space, X(mesh) *mesh,
                                        ptrdiff_t classes)
{
    pf_network from = {0};
    ptrdiff_t hidden[MLP_LAYERS];
    double weights, before;
    (void)classes;
    if (mesh) return r->status = pf_fail(PF_BAD_FILE, "the file is damaged: a layer of tables, for fields");
    from.n_y = pf_get_int(r, 0, MOST_CONDITIONS);
    from.bins = pf_get_int(r, 1, RQP_BINS);
    from.n_hidden = (int)pf_get_int(r, 1, MLP_LAYERS - 1);
    before = (double)(space->d + from.n_y);
    weights = (double)space->d * before;
    for (int i = 0; i < from.n_hidden && !r->status; i++) {
        hidden[i] = pf_get_int(r, 1, 1 << 16);
        weights += (before + 1) * (double)hidden[i];
        before = (double)hidden[i];
    }
    weights += (before + 1) * (double)space->d * (double)RQP_SIZE(from.bins);
    if (!r->status && weights * sizeof(double) > (double)r->whole)
        r->status = pf_fail(PF_BAD_FILE, "the file is damaged: parameters of a layer are missing");
    int32_t *rank = pf_get_array(r, space->d, sizeof *rank);
    double *stats = pf_get_reals(r, 2 * from.n_y, sizeof *stats);
    from.rank = rank, from.stats = stats, from.hidden = hidden;
    pf_status status = r->status ? r->status : rank && stats ? X(autoregressive_new)(l, space->d, &from) : PF_NO_MEMORY;
    free(rank);
    free(stats);
    return status;
}

const X(layer_ops) X(autoregressive_ops) = {
    .kind = "autoregressive",
    .layout = COLUMNS,
    .sizes = X(autoregressive_sizes),
    .prepare = X(autoregressive_prepare),
    .forward = X(autoregressive_forward),
    .inverse = X(autoregressive_inverse),
    .vjp = X(autoregressive_vjp),
    .decay = X(autoregressive_decay),
    .write = X(autoregressive_write),
    .read = X(autoregressive_read),
    .destroy = X(autoregressive_destroy),
};
#endif
