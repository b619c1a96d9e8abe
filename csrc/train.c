/* The trainer's blocks: log p of a batch and its gradient, through any stack; noise; a new flow's network. The stages
 * of a fit are in fit.c. */
#ifndef real
#include "train.h"

double pf_uniform(uint64_t seed, uint64_t stream_, uint64_t i)
{
    return ((double)pf_uniform_int(seed, stream_, i, (uint64_t)1 << 52) + 0.5) * 0x1p-52;
}

#define TWICE "train.c"
#include "twice.h"
#else

/* ---- noise ------------------------------------------------------------------------------------------------ */

ptrdiff_t X(noise_scratch)(const X(flow) *f)
{
    ptrdiff_t reals = 2 * tile_whole(f->space.d); /* a point, and noise */
    if (f->noise_t && !f->noise_map)
        reals += tile_whole(f->mesh->filter->fft->spectrum) + tile_whole(f->mesh->filter->work);
    return tile_whole(reals * (ptrdiff_t)sizeof(real) / (ptrdiff_t)sizeof(double) + 1);
}

void X(add_noise)(real *x, const X(flow) *f, double sigma, uint64_t seed, uint64_t random, double *scratch)
{
    double z[256];
    ptrdiff_t d = f->space.d;
    real *noise = (real *)scratch, *spectrum = noise + tile_whole(d);
    for (ptrdiff_t i = 0; i < d; i += 256) {
        ptrdiff_t n = PF_MIN(256, d - i);
        pf_normals(z, seed, random, (uint64_t)i, n);
        for (ptrdiff_t j = 0; j < n; j++) noise[i + j] = (real)z[j];
    }
    if (f->noise_t && !f->noise_map)
        X(filter_apply)(f->mesh->filter, noise, spectrum, noise, f->noise_t,
                        spectrum + tile_whole(f->mesh->filter->fft->spectrum));
    for (ptrdiff_t i = 0; i < d && f->noise_map; i++) noise[i] *= f->noise_t[i];
    for (ptrdiff_t i = 0; i < d; i++) x[i] += (real)sigma * noise[i];
}

/* The standard deviation of the noise of a row of the data, in this epoch */
static double X(sigma)(const X(trainer) *t, ptrdiff_t row)
{
    const double *noise = t->flow->noise;
    double u = noise[0] < noise[1] ? pf_uniform(t->o->seed, stream(STREAM_SIGMA, t->epoch), (uint64_t)row) : 0;
    return noise[0] + u * (noise[1] - noise[0]);
}

/* ---- memory ----------------------------------------------------------------------------------------------- */

pf_status X(trainer_init)(X(trainer) *t, X(flow) *f, const pf_train_options *o, ptrdiff_t batch, ptrdiff_t n_y,
                          ptrdiff_t draws)
{
    const X(conditioner) *c = f->net;
    ptrdiff_t n_w = c ? c->net->n_w : 0, n_row = c ? c->n_row : 0;
    t->o = o;
    t->flow = f;
    t->n_y = n_y;
    t->tile = X(flow_tile_rows)(f);
    t->step = n_row ? NET_ROWS : PF_MAX(batch, t->tile);
    t->own = f->n_theta - n_row;
    if (draws) PF_TRY(X(evidence_new)(&t->evidence, n_y, draws));
    ptrdiff_t most = PF_MAX(batch, draws ? X(evidence_room)(t->evidence) + 1 : 0);
    ptrdiff_t room = PF_MAX(most, t->step), tiles = (t->step + t->tile - 1) / t->tile;
    int threads = f->space.d >= LARGE ? 1 : pf_max_threads(t->own ? PF_MIN(tiles, GROUPS) : tiles);
    t->noise_size = X(noise_scratch)(f);
    t->row = PF_ALLOC(ptrdiff_t, room);
    t->logp = PF_ALLOC(double, room);
    t->weight = PF_ALLOC(double, room);
    t->y = PF_ALLOC(double, t->step *(c ? c->n_y : 0));
    t->theta = PF_ALLOC(double, t->step *n_row);
    t->gtheta = PF_ALLOC(double, t->step *n_row);
    t->group = PF_ALLOC(double, t->own ? GROUPS * f->n_theta : 0);
    t->net_memory = PF_ALLOC(real, c ? X(conditioner_memory)(c) : 0);
    t->gw = PF_ALLOC(real, n_w);
    t->gw_part = PF_ALLOC(real, n_w);
    t->gbase = PF_ALLOC(double, f->n_theta);
    t->prepare = PF_ALLOC(real, X(flow_prepare_work)(f));
    t->noise = PF_ALLOC(double, t->noise_size *threads);
    if (!t->row || !t->logp || !t->weight || !t->y || !t->theta || !t->gtheta || !t->group || !t->net_memory ||
        !t->gw || !t->gw_part || !t->gbase || !t->prepare || !t->noise)
        return PF_NO_MEMORY;
    PF_TRY(X(adam_init)(&t->net, n_w));
    PF_TRY(pf64_adam_init(&t->base, f->n_theta));
    return X(workers_new)(&t->workers, f, t->tile, 1, 1, threads);
}

void X(trainer_clear)(X(trainer) *t)
{
    X(workers_clear)(&t->workers);
    X(evidence_free)(t->evidence);
    X(mixed_free)(t->mixed);
    free(t->row);
    free(t->logp);
    free(t->weight);
    free(t->y);
    free(t->theta);
    free(t->gtheta);
    free(t->group);
    free(t->net_memory);
    free(t->gw);
    free(t->gw_part);
    free(t->gbase);
    free(t->prepare);
    free(t->noise);
    X(adam_clear)(&t->net);
    pf64_adam_clear(&t->base);
}

/* ---- a block ---------------------------------------------------------------------------------------------- */

/* Points first .. of the batch as a tile, with their noise */
static void X(gather)(X(tile) *tile, int32_t *label, const real **context, uint64_t *random, const X(trainer) *t,
                      ptrdiff_t first, double *scratch)
{
    const X(flow) *f = t->flow;
    ptrdiff_t d = f->space.d, along = tile->layout == ROWS ? 1 : tile->ld, across = tile->layout == ROWS ? tile->ld : 1;
    real *point = (real *)scratch;
    if (tile->layout == COLUMNS) memset(tile->x, 0, (size_t)(d * tile->ld) * sizeof(real));
    for (ptrdiff_t i = 0; i < tile->n; i++) {
        ptrdiff_t row = t->row[first + i];
        double sigma = X(sigma)(t, row);
        memcpy(point, t->data->x + row * d, (size_t)d * sizeof(real));
        if (sigma > 0)
            X(add_noise)(point, f, sigma, t->o->seed, stream(STREAM_NOISE, t->epoch << 32 | row),
                         (double *)(point + tile_whole(d)));
        for (ptrdiff_t j = 0; j < d; j++) tile->x[j * along + i * across] = point[j];
        label[i] = t->data->label ? t->data->label[row] : 0;
        context[i] = t->data->context ? t->data->context + row * d : NULL;
        random[i] = stream(STREAM_FILL, t->epoch << 32 | row);
    }
    tile->seed = t->o->seed;
    tile->stream = random;
    if (t->data->label) tile->label = label;
    if (t->data->context) tile->context = context;
}

/* One tile of the block: log p, and the way back where a gradient is wanted. log p's gradient is -z and 1 for logj. */
static void X(run_tile)(X(trainer) *t, ptrdiff_t start, double *group, int thread)
{
    const X(flow) *f = t->flow;
    X(worker) *worker = t->workers.workers + thread;
    ptrdiff_t n = PF_MIN(t->tile, t->count - start), n_row = f->net ? f->net->n_row : 0;
    double logj[TILE_MOST] = {0}, normal[TILE_MOST], *to = logj;
    const double *weight = t->weight + t->first + start;
    int32_t label[TILE_MOST];
    const real *context[TILE_MOST];
    uint64_t random[TILE_MOST];
    int gradient = 0;
    X(tile) tile = X(worker_tile)(&t->workers, worker, 0, n, X(flow_layout)(f, 0)), *tiles = &tile;
    X(gather)(&tile, label, context, random, t, t->first + start, t->noise + thread * t->noise_size);
    if (f->net) tile.n_y = f->net->n_y, tile.y = t->y + start * f->net->n_y;
    if (f->net) X(worker_prepare)(&t->workers, worker, t->theta + start * n_row, n);
    X(flow_forward_tiles)(&t->workers, worker, &tiles, &to, 1);
    X(tile_logp)(normal, &tile);
    for (ptrdiff_t i = 0; i < n; i++) {
        t->logp[t->first + start + i] = normal[i] + logj[i];
        gradient |= weight[i] != 0;
    }
    if (!gradient) return;
    ptrdiff_t along = tile.layout == ROWS ? 1 : tile.ld, across = tile.layout == ROWS ? tile.ld : 1;
    if (n == 1 && weight[0] == 1)
        X(scale_shift)(tile.x, tile.x, -1, 0, tile.layout == ROWS ? tile.d : tile.d * tile.ld);
    else
        for (ptrdiff_t i = 0; i < n; i++)
            for (ptrdiff_t j = 0; j < tile.d; j++) tile.x[j * along + i * across] *= (real)-weight[i];
    double *rows = f->net ? t->gtheta + start * n_row : NULL;
    X(flow_vjp_tile)(&t->workers, worker, &tile, group, rows, weight, 0);
}

/* A group of tiles; where all layers are served a tile is a group, whose gradient is its points' rows. */
static void X(run_group)(void *arg, ptrdiff_t g, int thread)
{
    X(trainer) *t = arg;
    ptrdiff_t tiles = (t->count + t->tile - 1) / t->tile;
    g += t->own_groups;
    double *group = t->own ? t->group + g * t->flow->n_theta : NULL;
    if (group) memset(group, 0, (size_t)t->flow->n_theta * sizeof(double));
    for (ptrdiff_t i = g * tiles / t->groups; i < (g + 1) * tiles / t->groups; i++)
        X(run_tile)(t, i * t->tile, group, thread);
}

/* All groups of the block, each on one of the ranks. */
static pf_status X(run_groups)(X(trainer) *t, int gradient)
{
    const X(flow) *f = t->flow;
    const pf_ranks *ranks = t->o->ranks;
    ptrdiff_t end = t->groups;
    t->own_groups = 0;
    if (ranks) {
        t->own_groups = ranks->rank * t->groups / ranks->size, end = (ranks->rank + 1) * t->groups / ranks->size;
        memset(t->logp + t->first, 0, (size_t)t->count * sizeof(double));
        if (t->own) memset(t->group, 0, (size_t)(t->groups * f->n_theta) * sizeof(double));
    }
    if (f->space.d < LARGE) PF_TRY(pf_parallel(end - t->own_groups, X(run_group), t));
    else
        for (ptrdiff_t g = t->own_groups; g < end; g++) {
            X(run_group)(t, g - t->own_groups, 0);
            PF_TRY(pf_check_interrupt());
        }
    PF_TRY(pf_ranks_sum(ranks, t->logp + t->first, t->count));
    if (gradient && t->own) PF_TRY(pf_ranks_sum(ranks, t->group, t->groups * f->n_theta));
    return gradient && f->net ? pf_ranks_sum(ranks, t->gtheta, t->count * f->net->n_row) : PF_OK;
}

/* Adds the block's gradients to gbase: groups in order, rows in order. */
static void X(add_gradients)(X(trainer) *t)
{
    const X(flow) *f = t->flow;
    for (ptrdiff_t g = 0; g < t->groups && t->own; g++)
        for (ptrdiff_t j = 0; j < f->n_theta; j++) t->gbase[j] += t->factor * t->group[g * f->n_theta + j];
    for (ptrdiff_t i = 0; i < t->count && f->net; i++) {
        double *row = t->gtheta + i * f->net->n_row;
        for (ptrdiff_t j = 0; j < f->net->n_row; j++) row[j] *= t->factor;
        for (ptrdiff_t l = 0; l < f->n_layers; l++) /* nor does a network change layers that stay as they are */
            if (t->o->frozen && t->o->frozen[l] && f->net->at[l] >= 0)
                memset(row + f->net->at[l], 0, (size_t)f->layers[l]->n_theta * sizeof(double));
        for (ptrdiff_t l = 0; l < f->n_layers; l++)
            for (ptrdiff_t j = 0; j < f->layers[l]->n_theta && f->net->at[l] >= 0; j++)
                t->gbase[f->at[l] + j] += row[f->net->at[l] + j];
    }
}

pf_status X(trainer_block)(X(trainer) *t, ptrdiff_t first, ptrdiff_t n, const double *y)
{
    X(flow) *f = t->flow;
    X(conditioner) *c = f->net;
    int gradient = 0;
    ptrdiff_t tiles = (n + t->tile - 1) / t->tile;
    t->first = first;
    t->count = n;
    t->groups = t->own ? PF_MIN(tiles, GROUPS) : tiles;
    for (ptrdiff_t i = 0; i < n; i++) gradient |= t->weight[first + i] != 0;
    for (ptrdiff_t i = 0; i < n && c; i++) {
        ptrdiff_t row = t->row[first + i];
        for (ptrdiff_t j = 0; j < t->n_y; j++)
            t->y[i * c->n_y + j] = y ? y[i * t->n_y + j] : t->data->y[row * t->n_y + j];
        if (c->n_y > t->n_y) t->y[i * c->n_y + t->n_y] = X(sigma)(t, row);
    }
    if (c) PF_TRY(X(conditioner_rows)(c, t->theta, t->net_memory, f->theta, f->at, f->layers, t->y, n));
    if (c && gradient) memset(t->gtheta, 0, (size_t)(n * c->n_row) * sizeof(double));
    PF_TRY(X(run_groups)(t, gradient));
    if (t->mixed) return X(mixed_block)(t, first, n, y);
    if (!gradient) return PF_OK;
    X(add_gradients)(t);
    if (!c) return PF_OK;
    PF_TRY(X(conditioner_vjp)(c, NULL, t->gw_empty ? t->gw : t->gw_part, t->gtheta, t->net_memory, f->layers, n));
    for (ptrdiff_t i = 0; i < c->net->n_w && !t->gw_empty; i++) t->gw[i] += t->gw_part[i];
    t->gw_empty = 0;
    return PF_OK;
}

/* ---- a new flow ------------------------------------------------------------------------------------------- */

/* The filter that makes noise of this power spectrum of white noise; the mean of a field has the power of the lowest
 * frequency. */
pf_status X(set_noise)(X(flow) *f, const pf_train_options *o)
{
    for (ptrdiff_t i = 0; f->noise_map && o->noise_map && i < f->space.d; i++)
        if (f->noise_t[i] != (real)o->noise_map[i])
            return pf_fail(PF_BAD_ARGUMENT, "noise: this flow was made for another map of it; fit a new one");
    memcpy(f->noise, o->noise, sizeof f->noise);
    f->noise_condition = o->noise_condition;
    free(f->noise_t);
    f->noise_t = NULL;
    f->noise_map = 0;
    if (o->noise_map) {
        if (!f->mesh) return pf_fail(PF_BAD_ARGUMENT, "noise: a map is for fields");
        if (!(f->noise_t = PF_ALLOC(real, f->space.d))) return PF_NO_MEMORY;
        f->noise_map = 1;
        for (ptrdiff_t i = 0; i < f->space.d; i++) {
            if (!(o->noise_map[i] >= 0) || !isfinite((real)o->noise_map[i]))
                return pf_fail(PF_BAD_ARGUMENT, "noise: pixel %td of the map is %g", i, o->noise_map[i]);
            f->noise_t[i] = (real)o->noise_map[i];
        }
        return PF_OK;
    }
    if (!o->noise_knots) return PF_OK;
    if (!f->mesh) return pf_fail(PF_BAD_ARGUMENT, "noise: a power spectrum is for fields");
    for (ptrdiff_t i = 0; i < o->noise_knots; i++)
        if (!(o->noise_k[i] > (i ? o->noise_k[i - 1] : 0)) || !(o->noise_power[i] > 0) || !isfinite(o->noise_power[i]))
            return pf_fail(PF_BAD_ARGUMENT, "noise: its power is positive and finite, at ascending k > 0");
    const X(filter) *filter = f->mesh->filter;
    double per_volume = (double)f->space.d;
    ptrdiff_t at = 0;
    for (int i = 0; i < f->space.ndim; i++) per_volume /= f->space.box[i];
    f->noise_t = PF_ALLOC(real, filter->shells);
    if (!f->noise_t) return PF_NO_MEMORY;
    for (ptrdiff_t s = 0; s < filter->shells; s++) {
        double k = filter->k[PF_MAX(s, PF_MIN(1, filter->shells - 1))];
        while (at < o->noise_knots - 2 && o->noise_k[at + 1] < k) at++;
        ptrdiff_t next = PF_MIN(at + 1, o->noise_knots - 1);
        double span = o->noise_k[next] - o->noise_k[at], lo = log(o->noise_power[at]), hi = log(o->noise_power[next]);
        double u = span > 0 ? PF_MIN(PF_MAX((k - o->noise_k[at]) / span, 0), 1) : 0;
        f->noise_t[s] = (real)sqrt(per_volume * exp(lo + u * (hi - lo)));
    }
    return PF_OK;
}

/* Mean, scale and range of every column of y, and of the noise where it is a condition */
static pf_status X(set_stats)(X(flow) *f, const X(data) *train)
{
    ptrdiff_t n_y = train->n_y, all = f->net->n_y;
    double *mean = f->net->stats, *scale = mean + all, *least = scale + all, *most = least + all;
    memset(mean, 0, (size_t)(2 * all) * sizeof(double));
    for (ptrdiff_t j = 0; j < n_y; j++) {
        least[j] = most[j] = train->y[j];
        for (ptrdiff_t i = 0; i < train->n; i++) {
            double y = train->y[i * n_y + j];
            mean[j] += y / (double)train->n;
            least[j] = PF_MIN(least[j], y);
            most[j] = PF_MAX(most[j], y);
        }
        for (ptrdiff_t i = 0; i < train->n; i++) {
            double d = train->y[i * n_y + j] - mean[j];
            scale[j] += d * d / (double)train->n;
        }
        scale[j] = sqrt(scale[j]);
        if (!isfinite(scale[j])) return pf_fail(PF_BAD_ARGUMENT, "y_train: column %td is too large", j);
        if (!(most[j] > least[j] && scale[j] > 0))
            return pf_fail(PF_BAD_ARGUMENT, "y_train: column %td is constant", j);
    }
    if (all > n_y) {
        mean[n_y] = 0.5 * (f->noise[0] + f->noise[1]);
        scale[n_y] = (f->noise[1] - f->noise[0]) / sqrt(12);
        least[n_y] = f->noise[0];
        most[n_y] = f->noise[1];
        if (!(scale[n_y] > 0)) return pf_fail(PF_BAD_ARGUMENT, "noise_condition: the range of the noise is empty");
    }
    return PF_OK;
}

/* What has been trained on becomes more. */
static void X(widen_range)(X(flow) *f, const X(data) *train)
{
    double *least = f->net->stats + 2 * f->net->n_y, *most = least + f->net->n_y;
    for (ptrdiff_t i = 0; i < train->n * train->n_y; i++) {
        ptrdiff_t j = i % train->n_y;
        least[j] = PF_MIN(least[j], train->y[i]);
        most[j] = PF_MAX(most[j], train->y[i]);
    }
}

pf_status X(train_begin)(X(flow) *f, const X(data) *train, const pf_train_options *o)
{
    int n_hidden = 0, conditions = train->n_y || o->noise_condition;
    PF_TRY(X(set_noise)(f, o));
    if (f->net) X(widen_range)(f, train);
    if (f->net || !conditions) return PF_OK;
    int any = 0;
    for (ptrdiff_t l = 0; l < f->n_layers; l++) any |= f->layers[l]->ops->conditional;
    if (!any) return pf_fail(PF_BAD_ARGUMENT, "y: none of the layers can be conditioned (symmetric layers can)");
    while (n_hidden < PF_HIDDEN_MOST && o->hidden[n_hidden]) n_hidden++;
    PF_TRY(X(conditioner_new)(&f->net, f->layers, f->n_layers, train->n_y + o->noise_condition, o->hidden, n_hidden));
    X(mlp_draw)(f->net->net, o->seed, stream(STREAM_WEIGHTS, 0));
    PF_TRY(X(set_stats)(f, train));
    return X(flow_own_tables)(f);
}

/* A flow that is made of the data has no layers yet that say what they need. */
static pf_status X(check_context)(const X(data) *data, const X(flow) *f, const char *name)
{
    const char *of = strcmp(name, "validate") ? "" : "_validate";
    if (f->n_layers && !X(flow_context)(f) != !data->context)
        return pf_fail(PF_BAD_ARGUMENT, "condition_field%s: %s", of,
                       data->context ? "this flow has no layers that see it" : "this flow needs one for every point");
    for (ptrdiff_t i = 0; i < data->n && data->context; i++) {
        PF_TRY(pf_check_interrupt());
        if (!X(all_finite)(data->context + i * f->space.d, f->space.d))
            return pf_fail(PF_BAD_ARGUMENT, "condition_field%s: field %td has pixels that are NaN or infinite", of, i);
    }
    return PF_OK;
}

pf_status X(check_points)(const X(data) *data, const X(flow) *f, const unsigned char *observed, ptrdiff_t n_y,
                          const char *name)
{
    ptrdiff_t d = f->space.d;
    const char *what = f->space.ndim > 1 ? "field" : "row";
    const double *bounds = f->n_layers ? X(layer_bounds)(f->layers[0]) : NULL;
    if (data->n_y < 0) return pf_fail(PF_BAD_ARGUMENT, "y_%s: has %td columns", name, data->n_y);
    if (!data->x || data->n < 1) return pf_fail(PF_BAD_ARGUMENT, "data_%s: there are no points", name);
    if (n_y && (!data->y || data->n_y != n_y))
        return pf_fail(PF_BAD_ARGUMENT, "y_%s: has %td columns, not %td", name, data->y ? data->n_y : 0, n_y);
    for (ptrdiff_t i = 0; i < data->n; i++) {
        PF_TRY(pf_check_interrupt());
        for (ptrdiff_t j = 0; j < d; j++)
            if (!isfinite(data->x[i * d + j]) && (!observed || observed[j]))
                return pf_fail(PF_BAD_ARGUMENT, "data_%s: %s %td has numbers that are NaN or infinite", name, what, i);
        for (ptrdiff_t j = 0; j < d && bounds; j++)
            if (data->x[i * d + j] < (real)bounds[2 * j] || data->x[i * d + j] > (real)bounds[2 * j + 1])
                return pf_fail(PF_BAD_ARGUMENT, "data_%s: %s %td, column %td is %g, outside the bounds [%g, %g]", name,
                               what, i, j, (double)data->x[i * d + j], bounds[2 * j], bounds[2 * j + 1]);
    }
    for (ptrdiff_t i = 0; i < data->n * n_y; i++)
        if (!isfinite(data->y[i]))
            return pf_fail(PF_BAD_ARGUMENT, "y_%s: row %td, column %td is not finite", name, i / n_y, i % n_y);
    if (!f->classes != !data->label)
        return pf_fail(PF_BAD_ARGUMENT,
                       data->label ? "labels_%s: this flow has no classes" : "labels_%s: every point needs a label",
                       name);
    for (ptrdiff_t i = 0; i < data->n && data->label; i++)
        if (data->label[i] < 0 || data->label[i] >= f->classes)
            return pf_fail(PF_BAD_ARGUMENT, "labels_%s: %d of row %td is not between 0 and %d", name, data->label[i], i,
                           f->classes - 1);
    PF_TRY(X(check_context)(data, f, name));
    return X(check_weights)(data, name);
}
#endif
