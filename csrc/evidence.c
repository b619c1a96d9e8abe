/* log p(y|x) = log p(x|y) + log prior(y) - log Z(x), Z = integral p(x|y') prior(y') dy', the prior uniform on the box
 * that the training conditions span. A posterior is a small part of it, and may be far from the true condition, so Z is
 * estimated by adaptive importance sampling (Cornuet et al. 2012, arXiv 0907.1254), which knows nothing of the truth:
 * draws.c. And the temperature of posteriors. */
#ifndef real
#include "draws.h"
#include "train.h"

enum {
    CALIBRATE_DRAWS = 3, /* times as many for a temperature */
    MOST_TRIPLED = 6,    /* parameters up to which more of them need more draws */
};

static const double temperatures[2] = {1e-4, 1e2}; /* least and most that a calibration tries */

/* Draws for n_y parameters when the caller leaves it open: 127 for one or two, then three times as many for each. The
 * estimate is then off by a few hundredths of a nat where the posterior has one peak: tests/c/test_evidence.c. */
ptrdiff_t pf_default_draws(ptrdiff_t n_y)
{
    ptrdiff_t draws = 128;
    for (ptrdiff_t j = 2; j < PF_MIN(n_y, MOST_TRIPLED); j++) draws *= 3;
    return draws - 1;
}

/* Mean log p(y|x) at temperature b, from tables of counts[i] numbers of every field: its own condition's, the draws' */
static pf_status tempered(double *mean, const double *log_weight, const double *logp, const ptrdiff_t *counts, double b,
                          ptrdiff_t fields)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < fields; log_weight += counts[i], logp += counts[i], i++) {
        PF_TRY(pf_check_interrupt());
        sum += b * logp[0] - pf_log_evidence(log_weight + 1, logp + 1, b, counts[i] - 1);
    }
    *mean = sum / (double)fields;
    return PF_OK;
}

/* Standard error of log b at the best b, from tables as above, with the scatter of whole simulations: a field's score
 * is d log p(y|x) / d log b = b (l(y) - <l>), l = log p(x|y), and minus its derivative, summed where the scores cancel,
 * H = sum b^2 Var(l), means over the posterior with b. The error is sqrt(n / (n - 1) sum_s (sum of scores in s)^2) / H
 * for n simulations, and no less than 1 / sqrt(H), which it is where posteriors are right; at most the length of log
 * b's range. sum[fields]: work. simulation NULL: each field is its own. */
static double temperature_error(double *sum, const double *log_weight, const double *logp, const ptrdiff_t *counts,
                                const int32_t *simulation, double b, ptrdiff_t fields)
{
    double information = 0, square = 0, most = log(temperatures[1] / temperatures[0]);
    ptrdiff_t n = 0;
    memset(sum, 0, (size_t)fields * sizeof(double));
    for (ptrdiff_t i = 0; i < fields; log_weight += counts[i], logp += counts[i], i++) {
        ptrdiff_t s = simulation ? simulation[i] : i;
        double log_z = pf_log_evidence(log_weight + 1, logp + 1, b, counts[i] - 1), mean = 0, variance = 0;
        for (ptrdiff_t m = 1; m < counts[i]; m++) {
            double share = exp(log_weight[m] + b * logp[m] - log_z), l = logp[m] - logp[0];
            if (share == 0) continue;
            mean += share * l;
            variance += share * l * l;
        }
        information += b * b * PF_MAX(variance - mean * mean, 0);
        sum[s] -= b * mean;
        n = PF_MAX(n, s + 1);
    }
    for (ptrdiff_t s = 0; s < n; s++) square += sum[s] * sum[s];
    if (n < 2 || !(information > 0)) return most;
    square = PF_MAX((double)n / (double)(n - 1) * square, information);
    return PF_MIN(sqrt(square) / information, most);
}

/* Shares of draws in an evidence, as they count in its gradient: all that matter, or `most` of equal weight, each as
 * often as its share has it (systematic resampling): the mean is the same. u in (0, 1): the chance. */
static void choose(double *share, ptrdiff_t n, ptrdiff_t most, double u)
{
    double sum = 0, kept = 0, before = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        if (!most && share[i] < PF_MIN(1e-3, 0.1 / (double)n)) share[i] = 0;
        sum += share[i];
    }
    for (ptrdiff_t i = 0; i < n && sum > 0; i++) {
        kept += share[i] / sum;
        double times = floor((double)most * kept + u) - floor((double)most * before + u);
        share[i] = most ? times / (double)most : share[i] / sum;
        before = kept;
    }
}

#define TWICE "evidence.c"
#include "twice.h"
#else

struct X(evidence) {
    double *y; /* conditions [room + 1][n_y]: a point's own, then those drawn */
    pf_draws draws;
    X(trainer) *t; /* while it draws */
};

pf_status X(evidence_new)(X(evidence) **evidence, ptrdiff_t n_y, ptrdiff_t draws)
{
    X(evidence) *e = *evidence = PF_CALLOC(X(evidence), 1);
    if (!e) return PF_NO_MEMORY;
    PF_TRY(pf_draws_new(&e->draws, n_y, draws));
    e->y = PF_ALLOC(double, (e->draws.room + 1) * n_y);
    return e->y ? PF_OK : PF_NO_MEMORY;
}

void X(evidence_free)(X(evidence) *e)
{
    if (!e) return;
    free(e->y);
    pf_draws_clear(&e->draws);
    free(e);
}

ptrdiff_t X(evidence_room)(const X(evidence) *e) { return e->draws.room; }

/* log p of the field at points of the cube that the prior's box is carried to; with the first, at its own condition */
static pf_status X(logp_in_cube)(void *user, double *logp, const double *u, ptrdiff_t first, ptrdiff_t n)
{
    X(evidence) *e = user;
    X(trainer) *t = e->t;
    const X(conditioner) *c = t->flow->net;
    const double *least = c->stats + 2 * c->n_y, *most = c->stats + 3 * c->n_y;
    ptrdiff_t n_y = t->n_y, from = first ? first + 1 : 0, to = first + n + 1;
    double *y = e->y + (first + 1) * n_y;
    for (ptrdiff_t i = 0; i < n * n_y; i++) y[i] = least[i % n_y] + (most[i % n_y] - least[i % n_y]) * u[i];
    for (ptrdiff_t i = from; i < to; i++) t->row[i] = t->row[0], t->weight[i] = 0;
    for (ptrdiff_t i = from; i < to; i += NET_ROWS)
        PF_TRY(X(trainer_block)(t, i, PF_MIN(NET_ROWS, to - i), e->y + i * n_y));
    if (!isfinite(t->logp[0])) return pf_fail(PF_DEGENERATE, "a point's log p is not finite");
    memcpy(logp, t->logp + first + 1, (size_t)n * sizeof(double));
    return PF_OK;
}

/* Log p of row 0 of the batch at its own condition, then at conditions drawn where its posterior is: t->evidence->y
 * holds the conditions, t->evidence->draws the weights of all but the first, t->logp the log p(x|y). */
static pf_status X(try_conditions)(X(trainer) *t, ptrdiff_t draws)
{
    X(evidence) *e = t->evidence;
    ptrdiff_t row = t->row[0];
    pf_density p = {X(logp_in_cube), e, t->o->seed, stream(STREAM_DRAWS, t->epoch << 32 | row)};
    e->t = t;
    memcpy(e->y, t->data->y + row * t->n_y, (size_t)t->n_y * sizeof(double));
    return pf_draw(&e->draws, draws, &p);
}

static pf_status X(unknown)(const X(trainer) *t, ptrdiff_t unknown, ptrdiff_t row)
{
    return pf_fail(PF_DEGENERATE,
                   "log p(y|x) is not known of %td of %td points, such as %td: too few of %td draws of y count; their "
                   "posteriors have many peaks, or are very much narrower than the range of y_train",
                   unknown, t->data->n, row, t->evidence->draws.room);
}

pf_status X(posterior)(X(trainer) *t, double *log_posterior, double *log_likelihood, ptrdiff_t draws, double weight)
{
    X(evidence) *e = t->evidence;
    pf_draws *s = &e->draws;
    ptrdiff_t n_y = t->n_y, count = 0;
    PF_TRY(X(try_conditions)(t, draws));
    int known = s->effective >= PF_FEW;
    double log_z = known ? pf_log_evidence(s->log_weight, s->logp, 1, s->n) : NAN;
    *log_likelihood = t->logp[0];
    *log_posterior = t->logp[0] - log_z;
    if (weight == 0) return PF_OK;
    double *share = s->share;
    for (ptrdiff_t i = 0; i < s->n; i++) share[i] = known ? exp(s->log_weight[i] + s->logp[i] - log_z) : 0;
    choose(share, s->n, t->gradient_draws,
           pf_uniform(t->o->seed, stream(STREAM_CHOICE, t->epoch), (uint64_t)t->row[0]));
    t->factor = weight;
    for (ptrdiff_t i = 0; i <= s->n; i++) {
        double r = i ? -t->o->posterior_weight * share[i - 1] : 1;
        if (r != 0) {
            memmove(e->y + count * n_y, e->y + i * n_y, (size_t)n_y * sizeof(double));
            t->weight[count++] = r;
        }
        if (count < NET_ROWS && i < s->n) continue;
        if (!count) continue;
        PF_TRY(X(trainer_block)(t, 0, count, e->y));
        count = 0;
    }
    return PF_OK;
}

void X(add_posterior)(X(trainer) *t, double *sum, double log_posterior)
{
    if (isfinite(log_posterior)) *sum += log_posterior, t->known++;
    else if (!t->unknown++) t->first_unknown = t->row[0];
}

double X(mean_posterior)(X(trainer) *t, double sum)
{
    double mean = sum / (double)t->known;
    if (t->unknown) pf_warn(&t->o->watch, X(unknown)(t, t->unknown, t->first_unknown));
    t->left_out = t->unknown;
    t->known = t->unknown = 0;
    return mean;
}

/* ---- temperature ------------------------------------------------------------------------------------------ */

/* Log p at drawn conditions and their weights, of all points in a row; a point's first is its own condition. */
typedef struct {
    double *log_weight, *logp;
    ptrdiff_t n, room;
} X(table);

static pf_status X(table_append)(X(table) *to, const pf_draws *s, double own)
{
    ptrdiff_t n = to->n + s->n + 1;
    if (n > to->room) {
        ptrdiff_t room = n + n / 2;
        X(table) more = {PF_ALLOC(double, room), PF_ALLOC(double, room), to->n, room}, old = *to;
        if (more.log_weight && more.logp && old.n) {
            memcpy(more.log_weight, old.log_weight, (size_t)old.n * sizeof(double));
            memcpy(more.logp, old.logp, (size_t)old.n * sizeof(double));
        }
        *to = more;
        free(old.log_weight);
        free(old.logp);
        if (!more.log_weight || !more.logp) return PF_NO_MEMORY;
    }
    to->log_weight[to->n] = 0;
    to->logp[to->n++] = own;
    memcpy(to->log_weight + to->n, s->log_weight, (size_t)s->n * sizeof(double));
    memcpy(to->logp + to->n, s->logp, (size_t)s->n * sizeof(double));
    to->n = n;
    return PF_OK;
}

static pf_status X(tabulate)(X(table) *table, ptrdiff_t *counts, X(trainer) *t, ptrdiff_t draws)
{
    const pf_draws *s = &t->evidence->draws;
    for (ptrdiff_t i = 0; i < t->data->n; i++) {
        t->row[0] = i;
        PF_TRY(X(try_conditions)(t, draws));
        if (s->effective < PF_FEW) return X(unknown)(t, 1, i);
        PF_TRY(X(table_append)(table, s, t->logp[0]));
        counts[i] = s->n + 1;
    }
    return PF_OK;
}

/* The b with the largest mean log p(y|x), which has one maximum: golden section in log b. */
static pf_status X(best_temperature)(double *best, const double *log_weight, const double *logp,
                                     const ptrdiff_t *counts, ptrdiff_t n)
{
    const double golden = 0.6180339887498949;
    double lo = log(temperatures[0]), hi = log(temperatures[1]);
    double a = hi - golden * (hi - lo), b = lo + golden * (hi - lo), at_a, at_b;
    PF_TRY(tempered(&at_a, log_weight, logp, counts, exp(a), n));
    PF_TRY(tempered(&at_b, log_weight, logp, counts, exp(b), n));
    for (int step = 0; step < 60; step++) {
        if (at_a < at_b) {
            lo = a, a = b, at_a = at_b, b = lo + golden * (hi - lo);
            PF_TRY(tempered(&at_b, log_weight, logp, counts, exp(b), n));
        } else {
            hi = b, b = a, at_b = at_a, a = hi - golden * (hi - lo);
            PF_TRY(tempered(&at_a, log_weight, logp, counts, exp(a), n));
        }
    }
    *best = exp(0.5 * (lo + hi));
    return PF_OK;
}

/* The flow's temperature, and what flow_calibrate_simulations says of it, from tables. The best log b is
 * shrunk by its error. Mean log p(y|x) is concave in b: between 1 and the best b it
 * is nowhere below that at 1. */
static pf_status X(set_temperature)(X(flow) *f, double *found, double *sum, const double *log_weight,
                                    const double *logp, const ptrdiff_t *counts, const int32_t *simulation,
                                    double width, ptrdiff_t n)
{
    double best;
    PF_TRY(X(best_temperature)(&best, log_weight, logp, counts, n));
    double error = temperature_error(sum, log_weight, logp, counts, simulation, best, n);
    double b = exp(pf_shrunk(log(best), error, width));
    PF_TRY(tempered(found, log_weight, logp, counts, 1, n));
    PF_TRY(tempered(found + 1, log_weight, logp, counts, b, n));
    found[2] = best, found[3] = error;
    f->temperature = b;
    return PF_OK;
}

static pf_status X(calibrate)(X(flow) *f, const X(members) *others, double *found, const X(data) *data,
                              const int32_t *simulation, double width, uint64_t seed)
{
    pf_train_options o;
    pf_train_defaults(&o);
    o.seed = seed;
    ptrdiff_t n_y = X(flow_conditions)(f) - f->noise_condition;
    if (!n_y) return pf_fail(PF_BAD_ARGUMENT, "y: this flow was fitted without");
    PF_TRY(X(check_points)(data, f, X(flow_mask)(f), n_y, "held_out"));
    X(trainer) t = {.data = data};
    ptrdiff_t draws = CALIBRATE_DRAWS * (pf_default_draws(n_y) + 1) - 1;
    X(table) table = {0};
    double *sum = PF_ALLOC(double, data->n);
    ptrdiff_t *counts = PF_ALLOC(ptrdiff_t, data->n);
    pf_status status = counts && sum ? X(trainer_init)(&t, f, &o, NET_ROWS, n_y, draws) : PF_NO_MEMORY;
    ptrdiff_t both = 2 * X(flow_conditions)(f); /* a calibration that fails leaves the range of conditions as it was */
    double *range = f->net->stats + both, *before = PF_ALLOC(double, both);
    if (!before) status = PF_NO_MEMORY;
    else memcpy(before, range, (size_t)both * sizeof(double));
    if (!status && others) status = X(trainer_mix)(&t, others);
    if (!status) status = X(tabulate)(&table, counts, &t, draws);
    if (!status)
        status = X(set_temperature)(f, found, sum, table.log_weight, table.logp, counts, simulation, width, data->n);
    X(trainer_clear)(&t);
    if (status && before) memcpy(range, before, (size_t)both * sizeof(double));
    free(before);
    free(table.log_weight);
    free(table.logp);
    free(counts);
    free(sum);
    return status;
}

pf_status X(flow_calibrate)(X(flow) *flow, double *gain, const X(data) *held_out, uint64_t seed)
{
    double found[4];
    pf_status status = X(flow_calibrate_simulations)(flow, found, held_out, NULL, INFINITY, seed);
    if (!status && gain) memcpy(gain, found, 2 * sizeof(double));
    return status;
}

pf_status X(flow_calibrate_mixture)(X(flow) *flow, const X(members) *others, double *found, const X(data) *held_out,
                                    const int32_t *simulation, double width, uint64_t seed)
{
    pf_begin();
    if (!(width > 0)) return pf_end(pf_fail(PF_BAD_ARGUMENT, "width: must be positive, not %g", width));
    for (ptrdiff_t i = 0; simulation && i < held_out->n; i++)
        if (simulation[i] < 0 || simulation[i] >= held_out->n)
            return pf_end(pf_fail(PF_BAD_ARGUMENT, "simulation: is not 0 .. n - 1 of point %td", i));
    return pf_end(X(calibrate)(flow, others, found, held_out, simulation, width, seed));
}

pf_status X(flow_calibrate_simulations)(X(flow) *flow, double *found, const X(data) *held_out,
                                        const int32_t *simulation, double width, uint64_t seed)
{
    return X(flow_calibrate_mixture)(flow, NULL, found, held_out, simulation, width, seed);
}

pf_status X(log_posterior)(double *log_posterior, X(flow) *flow, const X(data) *data, ptrdiff_t draws, uint64_t seed)
{
    pf_begin();
    pf_train_options o;
    pf_train_defaults(&o);
    o.seed = seed;
    X(trainer) t = {.data = data};
    pf_status status = X(trainer_init)(&t, flow, &o, NET_ROWS, flow->net->n_y - flow->noise_condition, draws);
    for (ptrdiff_t i = 0; i < data->n && !status; i++) {
        double logp;
        t.row[0] = i;
        status = X(posterior)(&t, log_posterior + i, &logp, draws, 0);
        if (!status && !isfinite(log_posterior[i])) status = X(unknown)(&t, 1, i);
    }
    X(trainer_clear)(&t);
    return pf_end(status);
}
#endif
