/* Training from beginning to end: epochs of Adam, in stages - on log p(x|y), then, if asked for, on log p(y|x) - with a
 * record, checkpoints, and the best on validation data kept. */
#ifndef real
#include <unistd.h>

#include "train.h"

#define EPOCHS_KEPT 3.0      /* which a network's weights remember by default, */
#define OWN_EPOCHS_KEPT 24.0 /* the same of networks that are in layers */
#define WIDE 512.0           /* with this many hidden units or more */
#define MOST_LEFT_OUT 9e15

enum {
    MOST_EPOCHS = 1 << 23, /* of a checkpoint: streams of random numbers have 24 bits for them */
    /* The gradient of log p(y|x) is that of log p(x|y) at the true y, itself like one draw of the posterior, less its
     * mean over the posterior: of so few draws, that adds little to the variance, and takes half the time of all. */
    GRADIENT_DRAWS = 15,
};

static void put_adam(pf_writer *out, ptrdiff_t steps, const void *m, const void *v, ptrdiff_t n, size_t size)
{
    pf_put_int(out, steps);
    pf_put_array(out, m, n, size);
    pf_put_array(out, v, n, size);
}

static ptrdiff_t get_adam(pf_reader *in, void *m, void *v, ptrdiff_t n, size_t size)
{
    ptrdiff_t steps = pf_get_int(in, 0, (int64_t)1 << 53);
    pf_get_into(in, m, n, size);
    pf_get_into(in, v, n, size);
    return steps;
}

#define TWICE "fit.c"
#include "twice.h"
#else

/* ---- steps ------------------------------------------------------------------------------------------------ */

static void X(clear_gradient)(X(trainer) *t)
{
    memset(t->gbase, 0, (size_t)t->flow->n_theta * sizeof(double));
    t->gw_empty = 1;
}

/* Layers that stay as they are have no gradient; on a manifold it is its part in the tangent space. */
static void X(constrain)(X(trainer) *t)
{
    const X(flow) *f = t->flow;
    for (ptrdiff_t l = 0; l < f->n_layers; l++) {
        const X(layer) *layer = f->layers[l];
        double *g = t->gbase + f->at[l];
        if (t->o->frozen && t->o->frozen[l]) memset(g, 0, (size_t)layer->n_theta * sizeof(double));
        else if (layer->ops->project) layer->ops->project(layer, g, f->theta + f->at[l]);
    }
}

/* Served layers that stay as they are; *most: all there are */
static ptrdiff_t X(served_frozen)(ptrdiff_t *most, const X(flow) *f, const int *frozen)
{
    ptrdiff_t count = *most = 0;
    for (ptrdiff_t l = 0; l < f->n_layers && f->net; l++) {
        *most += X(served)(f, l);
        count += X(served)(f, l) && frozen && frozen[l];
    }
    return count;
}

static pf_status X(step)(X(trainer) *t, double rate)
{
    X(flow) *f = t->flow;
    double square, net_square = 0;
    ptrdiff_t served;
    int net_stays = X(served_frozen)(&served, f, t->o->frozen) == served;
    if (t->gw_empty && f->net) memset(t->gw, 0, (size_t)f->net->net->n_w * sizeof(real));
    X(constrain)(t);
    PF_TRY(pf64_adam_square(&square, &t->base, t->gbase));
    if (f->net) PF_TRY(X(adam_square)(&net_square, &t->net, t->gw));
    double factor = pf_clip(&t->mean_length, sqrt(square + net_square), t->o->clip);
    if (!isfinite(square + net_square)) return pf_fail(PF_DEGENERATE, "training met a gradient that is not finite");
    PF_TRY(pf64_adam_step(&t->base, f->theta, t->gbase, factor, rate, 0));
    if (f->net && !net_stays) PF_TRY(X(adam_step)(&t->net, f->net->net->w, t->gw, factor, rate, t->o->weight_decay));
    for (ptrdiff_t l = 0; l < f->n_layers; l++) {
        const X(layer) *layer = f->layers[l];
        if (t->o->frozen && t->o->frozen[l]) continue;
        if (layer->ops->decay) layer->ops->decay(layer, f->theta + f->at[l], 1 - rate * t->o->weight_decay);
        if (layer->ops->retract) layer->ops->retract(layer, f->theta + f->at[l]);
    }
    X(flow_prepare)(f, t->prepare);
    return PF_OK;
}

/* Sums over the n points of the batch of weights and of weighted log p; gradient: of the latter, over what the weights
 * of n points are on average. */
static pf_status X(likelihood)(X(trainer) *t, double *sum, double *weights, ptrdiff_t n, int gradient)
{
    const double *w = t->data->weight;
    *sum = *weights = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        *weights += w ? w[t->row[i]] : 1;
        t->weight[i] = gradient ? w ? w[t->row[i]] : 1 : 0;
    }
    t->factor = 1 / (t->mean_weight * (double)n); /* batches of small weight move the flow less */
    for (ptrdiff_t first = 0; first < n; first += t->step)
        PF_TRY(X(trainer_block)(t, first, PF_MIN(t->step, n - first), NULL));
    for (ptrdiff_t i = 0; i < n; i++)
        if (!w) *sum += t->logp[i];
        else if (w[t->row[i]] > 0) *sum += w[t->row[i]] * t->logp[i];
    return isfinite(*sum) ? PF_OK : pf_fail(PF_DEGENERATE, "training met a point whose log p is not finite");
}

/* Means over all points of log p(x|y) and, with draws, of log p(y|x). */
static pf_status X(evaluate)(X(trainer) *t, double *logp, double *posterior, const X(data) *data, ptrdiff_t draws)
{
    ptrdiff_t epoch = t->epoch, step = draws ? 1 : t->step;
    double sum = 0, total = 0, posterior_sum = 0;
    pf_status status = PF_OK;
    t->data = data;
    t->epoch = 0; /* the same noise and draws every time; training's epochs count from 1 */
    for (ptrdiff_t i = 0; i < data->n && !status; i += step) {
        ptrdiff_t n = PF_MIN(step, data->n - i);
        double part = 0, weights = 1, one = 0;
        for (ptrdiff_t j = 0; j < n; j++) t->row[j] = i + j;
        status = draws ? X(posterior)(t, &one, &part, draws, 0) : X(likelihood)(t, &part, &weights, n, 0);
        sum += part;
        total += weights;
        if (draws && !status) X(add_posterior)(t, &posterior_sum, one);
    }
    t->epoch = epoch;
    PF_TRY(status);
    *logp = sum / total;
    *posterior = X(mean_posterior)(t, posterior_sum);
    return PF_OK;
}

/* What training changes, put aside or back. */
static void X(keep)(double *theta, real *w, const X(flow) *f)
{
    memcpy(theta, f->theta, (size_t)f->n_theta * sizeof(double));
    if (f->net) memcpy(w, f->net->net->w, (size_t)f->net->net->n_w * sizeof(real));
}

static void X(restore)(X(flow) *f, const double *theta, const real *w)
{
    memcpy(f->theta, theta, (size_t)f->n_theta * sizeof(double));
    if (f->net) memcpy(f->net->net->w, w, (size_t)f->net->net->n_w * sizeof(real));
}

/* ---- checkpoints: what an unfinished fit goes on from is its flow->state, a pf_writer's bytes ------------------ */

typedef struct {
    int stage;                   /* 0: the likelihood, 1: the posterior as well */
    ptrdiff_t epoch, best_epoch; /* done in this stage; the best one, counted over all stages */
    double best, *theta;         /* objective and parameters of the best */
    ptrdiff_t left_out;          /* points whose evidence it does not know */
    real *w;
} X(stage);

static pf_status X(state_write)(X(trainer) *t, const X(stage) *s)
{
    X(flow) *f = t->flow;
    ptrdiff_t n_w = t->net.n;
    double numbers[3] = {s->best, t->mean_length, (double)s->left_out};
    pf_writer out = {0};
    pf_put_int(&out, s->stage);
    pf_put_int(&out, s->epoch);
    pf_put_int(&out, s->best_epoch);
    pf_put_int(&out, t->epoch);
    pf_put_array(&out, numbers, 3, sizeof(double));
    pf_put_array(&out, f->theta, f->n_theta, sizeof(double));
    pf_put_array(&out, f->net ? f->net->net->w : NULL, n_w, sizeof(real));
    put_adam(&out, t->base.steps, t->base.m, t->base.v, f->n_theta, sizeof(double));
    put_adam(&out, t->net.steps, t->net.m, t->net.v, n_w, sizeof(real));
    if (out.status) {
        free(out.bytes);
        return out.status;
    }
    free(f->state);
    f->state = out.bytes;
    f->n_state = (ptrdiff_t)out.n;
    return PF_OK;
}

static int X(sound)(const double *x, const real *w, const X(trainer) *t)
{
    int sound = 1;
    for (ptrdiff_t i = 0; i < t->flow->n_theta; i++)
        sound &= isfinite(x[i]) && isfinite(t->base.m[i]) && t->base.v[i] >= 0;
    for (ptrdiff_t i = 0; i < t->net.n; i++) sound &= isfinite(w[i]) && isfinite(t->net.m[i]) && t->net.v[i] >= 0;
    return sound;
}

/* The flow, on entry the best, becomes the latest. What is read must fit these options. */
static pf_status X(state_read)(X(trainer) *t, X(stage) *s)
{
    X(flow) *f = t->flow;
    const pf_train_options *o = t->o;
    ptrdiff_t n_w = t->net.n;
    double numbers[3] = {0};
    pf_reader in = {.bytes = f->state, .n = (size_t)f->n_state, .whole = (size_t)f->n_state};
    s->stage = (int)pf_get_int(&in, 0, 1);
    s->epoch = pf_get_int(&in, 0, MOST_EPOCHS);
    s->best_epoch = pf_get_int(&in, 0, MOST_EPOCHS);
    t->epoch = pf_get_int(&in, s->epoch, s->stage ? MOST_EPOCHS : s->epoch);
    pf_get_into(&in, numbers, 3, sizeof(double));
    PF_TRY(in.status);
    if (s->best_epoch > t->epoch) return pf_fail(PF_BAD_FILE, "the file is damaged: its best epoch is to come");
    if (s->stage > (o->posterior_weight > 0) || s->epoch > (s->stage ? o->posterior_epochs : o->epochs))
        return pf_fail(PF_BAD_ARGUMENT, "checkpoint: the fit in it had other epochs, or another posterior_weight");
    s->best = numbers[0];
    t->mean_length = numbers[1];
    s->left_out = numbers[2] >= 0 && numbers[2] <= MOST_LEFT_OUT ? (ptrdiff_t)numbers[2] : 0;
    X(keep)(s->theta, s->w, f);
    pf_get_into(&in, f->theta, f->n_theta, sizeof(double));
    pf_get_into(&in, f->net ? f->net->net->w : NULL, n_w, sizeof(real));
    t->base.steps = get_adam(&in, t->base.m, t->base.v, f->n_theta, sizeof(double));
    t->net.steps = get_adam(&in, t->net.m, t->net.v, n_w, sizeof(real));
    PF_TRY(pf_file_close(&in));
    if (!(t->mean_length >= 0) || !X(sound)(f->theta, f->net ? f->net->net->w : NULL, t))
        return pf_fail(PF_BAD_FILE, "the file is damaged: its state of the training is not finite");
    X(flow_prepare)(f, t->prepare);
    return PF_OK;
}

/* The file holds the best flow as well as the state. That it cannot be written does not end a fit. */
static pf_status X(checkpoint)(X(trainer) *t, X(stage) *s)
{
    X(flow) *f = t->flow;
    double *theta = f->theta;
    real *w = f->net ? f->net->net->w : NULL;
    PF_TRY(X(state_write)(t, s));
    if (pf_seconds() - t->saved < t->o->checkpoint_seconds || !pf_ranks_writes(t->o->ranks)) return PF_OK;
    f->theta = s->theta;
    if (f->net) f->net->net->w = s->w;
    pf_status status = X(flow_save)(f, t->o->watch.checkpoint);
    if (status) pf_warn(&t->o->watch, status);
    f->theta = theta;
    if (f->net) f->net->net->w = w;
    t->saved = pf_seconds();
    return PF_OK;
}

/* ---- stages ----------------------------------------------------------------------------------------------- */

/* One epoch, from a random order of the training points: means of log p(x|y) and, with draws, of log p(y|x). */
static pf_status X(run_epoch)(X(trainer) *t, double *logp, double *posterior, const X(data) *train, ptrdiff_t epoch,
                              ptrdiff_t epochs, double rate, ptrdiff_t draws, ptrdiff_t *order)
{
    const pf_train_options *o = t->o;
    ptrdiff_t n = train->n, batches = (n + o->batch - 1) / o->batch;
    double sum = 0, total = 0, posterior_sum = 0, weight = 0;
    t->data = train;
    for (ptrdiff_t i = 0; i < n; i++) weight += train->weight ? train->weight[i] : 1;
    t->mean_weight = weight / (double)n;
    for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t j = (ptrdiff_t)pf_uniform_int(o->seed, stream(STREAM_ORDER, t->epoch), (uint64_t)i, (uint64_t)i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (ptrdiff_t b = 0; b < batches; b++) {
        ptrdiff_t from = b * n / batches, count = (b + 1) * n / batches - from;
        double part = 0, weights = 0, one = 0;
        X(clear_gradient)(t);
        if (!draws) {
            memcpy(t->row, order + from, (size_t)count * sizeof *order);
            PF_TRY(X(likelihood)(t, &part, &weights, count, 1));
            sum += part;
            total += weights;
        }
        for (ptrdiff_t i = 0; i < count && draws; i++) {
            t->row[0] = order[from + i];
            PF_TRY(X(posterior)(t, &one, &part, draws, 1 / (double)count));
            sum += part;
            total++;
            X(add_posterior)(t, &posterior_sum, one);
        }
        PF_TRY(X(step)(t, rate * pf_cosine_schedule((epoch - 1) * batches + b, epochs * batches, o->warmup)));
    }
    *logp = sum / total;
    *posterior = X(mean_posterior)(t, posterior_sum);
    return PF_OK;
}

/* Trains to the end of a stage, from s->epoch; s->epoch < 0: from its start, whose objective is not known yet. */
static pf_status X(run_stage)(X(trainer) *t, X(stage) *s, const X(data) *train, const X(data) *validate,
                              ptrdiff_t *order)
{
    const pf_train_options *o = t->o;
    X(flow) *f = t->flow;
    ptrdiff_t epochs = s->stage ? o->posterior_epochs : o->epochs, draws = s->stage ? o->posterior_draws : 0;
    ptrdiff_t validate_draws = draws ? VALIDATE_DRAWS * (draws + 1) - 1 : 0;
    double rate = s->stage ? o->posterior_rate : o->learning_rate;
    double unit = f->space.ndim > 1 ? 1 / (double)f->space.d : 1;
    pf_progress p = {.stage = "epoch", .logp_train = NAN, .logp_validate = NAN, .distance = NAN, .objective = NAN};
    while (s->epoch < epochs) {
        double mean = NAN, posterior = NAN;
        ptrdiff_t since = t->epoch - PF_MAX(s->best_epoch, t->epoch - s->epoch);
        if (o->patience && validate && since >= o->patience) break;
        s->epoch++;
        if (s->epoch) {
            t->epoch++;
            PF_TRY(X(run_epoch)(t, &mean, &posterior, train, s->epoch, epochs, rate, draws, order));
            p.logp_train = mean * unit;
            p.objective = draws ? posterior : p.logp_train;
        }
        if (validate) {
            PF_TRY(X(evaluate)(t, &mean, &posterior, validate, validate_draws));
            p.logp_validate = mean * unit;
            p.objective = draws ? posterior : p.logp_validate;
        }
        if (s->epoch) PF_TRY(X(flow_record)(f, (pf_step){(double)t->epoch, p.logp_train, p.logp_validate, NAN}));
        if (!validate) t->left_out = 0;
        int better = t->left_out != s->left_out ? t->left_out < s->left_out : p.objective > s->best;
        if (!validate || !s->epoch || better) {
            s->best = p.objective;
            s->left_out = t->left_out;
            if (s->epoch || !s->stage) s->best_epoch = t->epoch; /* a stage starts from the best of the one before */
            X(keep)(s->theta, s->w, f);
        }
        if (o->watch.checkpoint) PF_TRY(X(checkpoint)(t, s));
        p.step = t->epoch;
        p.best = s->best_epoch;
        p.seconds = pf_seconds() - t->start_time;
        PF_TRY(pf_progressed(&o->watch, &p));
    }
    return PF_OK;
}

/* All stages. The best on validation points, or the last, is what the flow is at the end, however training ends. */
static pf_status X(run_stages)(X(trainer) *t, int *trained, const X(data) *train, const X(data) *validate)
{
    X(flow) *f = t->flow;
    X(stage) s = {.epoch = -1};
    ptrdiff_t *order = PF_ALLOC(ptrdiff_t, train->n);
    s.theta = PF_ALLOC(double, f->n_theta);
    s.w = PF_ALLOC(real, t->net.n);
    pf_status status = s.theta && s.w && order ? PF_OK : PF_NO_MEMORY;
    if (!status) X(keep)(s.theta, s.w, f);
    if (!status && f->n_state) status = X(state_read)(t, &s);
    *trained = !status;
    while (!status) {
        status = X(run_stage)(t, &s, train, validate, order);
        X(restore)(f, s.theta, s.w);
        X(flow_prepare)(f, t->prepare);
        if (s.stage || !(t->o->posterior_weight > 0)) break;
        t->mean_length = 0;
        s.stage = 1;
        s.epoch = -1;
    }
    free(s.theta);
    free(s.w);
    free(order);
    return status;
}

/* ---- from beginning to end -------------------------------------------------------------------------------- */

static void X(swap)(X(flow) *a, X(flow) *b)
{
    X(flow) other = *a;
    *a = *b;
    *b = other;
}

/* The flow becomes that of the checkpoint, which must be of the same layers. */
static pf_status X(resume)(X(flow) *f, const char *path)
{
    X(flow) *found;
    PF_TRY(X(flow_load)(&found, path));
    int same = X(flow_alike)(f, found) && !f->net == !found->net;
    if (same && f->net)
        same = f->net->net->n_w == found->net->net->n_w && f->net->n_y == found->net->n_y &&
               f->net->net->layers == found->net->net->layers;
    if (same) X(swap)(f, found);
    X(flow_free)(found);
    return same ? PF_OK : pf_fail(PF_BAD_ARGUMENT, "checkpoint: %s is of another fit", path);
}

/* The weights of a wide network are an average of Adam's steps over the last EPOCHS_KEPT epochs. It is the time in
 * epochs that carries over from one size of data to another, so that decay is as 1 / n (Wang and Aitchison, arXiv
 * 2405.13698): few points are not learnt by heart, and many are learnt from. An output of a narrow network is a sum
 * of fewer weights, which need to be larger. */
static double X(default_decay)(const X(flow) *f, const pf_train_options *o, ptrdiff_t n)
{
    double rate = PF_MAX(o->learning_rate, o->posterior_weight > 0 ? o->posterior_rate : 0);
    int own = X(has_networks)(f);
    if (!(own || f->net) || !(rate > 0)) return 0;
    double width = own ? WIDE : (double)f->net->net->size[f->net->net->layers - 1];
    double kept = own ? OWN_EPOCHS_KEPT : EPOCHS_KEPT, share = PF_MIN(width / WIDE, 1);
    double forget = (double)o->batch / (kept * (double)n);
    return PF_MIN(share * forget / rate, 1e3);
}

static pf_status X(run)(X(flow) *f, int *trained, const X(data) *train, const X(data) *validate,
                        const pf_train_options *o, double start_time)
{
    X(trainer) t = {.start_time = start_time, .saved = start_time, .mean_weight = 1, .gradient_draws = GRADIENT_DRAWS};
    ptrdiff_t draws = o->posterior_weight > 0 ? VALIDATE_DRAWS * (o->posterior_draws + 1) : 0;
    pf_status status = X(trainer_init)(&t, f, o, o->batch, train->n_y, draws);
    if (!status) X(flow_prepare)(f, t.prepare);
    if (!status) status = X(run_stages)(&t, trained, train, validate);
    X(trainer_clear)(&t);
    int early = status == PF_INTERRUPTED || status == PF_NO_MEMORY;
    if (o->watch.checkpoint && early && f->n_state && pf_ranks_writes(o->ranks)) {
        pf_status saved = X(flow_save)(f, o->watch.checkpoint);
        status = saved ? saved : pf_fail(status, status == PF_INTERRUPTED ? "interrupted" : "out of memory");
    }
    if (!status || status == PF_DEGENERATE) X(flow_forget)(f);
    return status;
}

pf_status X(train)(X(flow) *f, int *trained, const X(data) *train, const X(data) *validate,
                   const pf_train_options *given, double start_time)
{
    pf_train_options options = *given, *o = &options;
    const char *path = o->watch.checkpoint;
    ptrdiff_t n_y = f->net ? f->net->n_y - f->noise_condition : train->n_y;
    /* by default; large tiles, as patches have them, are no reason for a large batch */
    ptrdiff_t batch = GROUPS * PF_MIN(X(flow_tile_rows)(f), X(tile_rows)(f->space.d));
    *trained = 0;
    PF_TRY(pf_check_options(o, pf_train_list));
    if (f->n_layers == 0) return pf_fail(PF_BAD_ARGUMENT, "the flow has no layers");
    if (o->noise[1] < o->noise[0])
        return pf_fail(PF_BAD_ARGUMENT, "noise: [%g, %g] is not a range of standard deviations", o->noise[0],
                       o->noise[1]);
    const double *bounds = X(layer_bounds)(f->layers[0]);
    for (ptrdiff_t j = 0; bounds && o->noise[1] > 0 && j < 2 * f->space.d; j++)
        if (isfinite(bounds[j])) return pf_fail(PF_BAD_ARGUMENT, "noise: would take data out of the flow's bounds");
    if (f->net && o->noise_condition != f->noise_condition)
        return pf_fail(PF_BAD_ARGUMENT, "noise_condition: the flow's network was made %s it",
                       f->noise_condition ? "with" : "without");
    ptrdiff_t served, frozen = X(served_frozen)(&served, f, o->frozen);
    if (frozen && frozen < served)
        return pf_fail(PF_BAD_ARGUMENT, "frozen: the layers that a network conditions stay all together, or none");
    if (train->n_y != n_y) return pf_fail(PF_BAD_ARGUMENT, "y_train: has %td columns, not %td", train->n_y, n_y);
    PF_TRY(X(check_points)(train, f, X(flow_mask)(f), n_y, "train"));
    if (validate) PF_TRY(X(check_points)(validate, f, X(flow_mask)(f), n_y, "validate"));
    if (o->posterior_weight > 0 && !n_y) return pf_fail(PF_BAD_ARGUMENT, "posterior_weight: there is no y");
    if (o->posterior_weight > 0 && (train->weight || (validate && validate->weight)))
        return pf_fail(PF_BAD_ARGUMENT, "posterior_weight: weights of points are for the likelihood alone");
    o->batch = PF_MIN(o->batch ? o->batch : batch, train->n);
    if (!o->posterior_draws) o->posterior_draws = pf_default_draws(n_y);
    PF_TRY(X(train_begin)(f, train, o));
    if (o->weight_decay < 0) o->weight_decay = X(default_decay)(f, o, train->n);
    if (path && !access(path, F_OK)) {
        PF_TRY(X(resume)(f, path));
        if (!f->n_state) { /* what the checkpoint holds is finished */
            *trained = 1;
            return PF_OK;
        }
    } else {
        X(flow_forget)(f); /* of another fit: training begins where the flow is */
        f->temperature = 1;
        if (o->watch.note) PF_TRY(X(flow_set_note)(f, o->watch.note));
    }
    PF_TRY(X(flow_own_tables)(f));
    return X(run)(f, trained, train, validate, o, start_time);
}

/* No epoch was better than the start. */
static int X(unchanged)(const X(flow) *f, const X(flow) *start)
{
    if (!f->net != !start->net || memcmp(f->theta, start->theta, (size_t)f->n_theta * sizeof(double))) return 0;
    return !f->net || !memcmp(f->net->net->w, start->net->net->w, (size_t)f->net->net->n_w * sizeof(real));
}

pf_status X(flow_train)(X(flow) *flow, const X(data) *train, const X(data) *validate, const pf_train_options *options)
{
    X(flow) *f;
    int trained = 0;
    double start_time = pf_seconds();
    pf_begin();
    pf_status status = X(flow_duplicate)(&f, flow, flow->n_layers); /* what comes to nothing changes nothing */
    if (status) return pf_end(status);
    status = X(train)(f, &trained, train, validate, options, start_time);
    if (!status && validate && X(unchanged)(f, flow)) f->n_history = flow->n_history; /* what is not its own goes */
    if (trained) X(swap)(flow, f);
    X(flow_free)(f);
    return pf_end(status);
}
#endif
