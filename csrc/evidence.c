/* log p(y|x) = log p(x|y) + log prior(y) - log Z(x), Z = integral p(x|y') prior(y') dy', the prior uniform on the box
 * that the training conditions span. A posterior is a small part of it, and may be far from the true condition, so Z is
 * estimated by adaptive importance sampling (Cornuet et al. 2012, arXiv 0907.1254), which knows nothing of the truth:
 * see "draws" below. And the temperature of posteriors. */
#ifndef real
#include "train.h"

enum {
    ROUNDS = 5,          /* of draws */
    TRIES = 8,           /* points looked at for a draw, at most, until one is within the prior's box */
    CALIBRATE_DRAWS = 3, /* times as many for a temperature */
    MOST_TRIPLED = 6,    /* parameters up to which more of them need more draws */
};

static const double temperatures[2] = {1e-4, 1e2}; /* least and most that a calibration tries */

/* log Z = log sum_i weight_i p_i^b over draws 1 .. n - 1 */
static double log_evidence(const double *log_weight, const double *logp, double b, ptrdiff_t n)
{
    double most = -INFINITY, sum = 0;
    for (ptrdiff_t i = 1; i < n; i++) most = PF_MAX(most, log_weight[i] + b * logp[i]);
    for (ptrdiff_t i = 1; i < n; i++) sum += exp(log_weight[i] + b * logp[i] - most);
    return most + log(sum);
}

/* ---- draws of conditions
 *
 * Points u of the unit cube, which the prior's box is carried to. Round 0 covers the cube evenly. Every later round has
 * what was seen so far weighted by prior / density of the draws and by p(x|y)^b, b the largest in (0, 1] that leaves an
 * effective number of draws E. Its own draws are from Gaussians around the likeliest draw, which at a wall of the box
 * stays there whatever b is, where a mean recedes from it; around the mean once b = 1. Their covariance is
 * C(b) max(b, 1/E), what is expected of the posterior and of the error of the centre, widened by a factor and, for a
 * quarter of the draws, by another two. The density of the draws is the mixture of all rounds'. All are low-discrepancy
 * sequences, shifted at random. */

static const double widen[2] = {1.25, 2.5};

typedef struct {
    ptrdiff_t d;
    double *u;                      /* [draws][d] */
    double *centre[ROUNDS];         /* [d] */
    double *root[ROUNDS];           /* [d][d], lower triangular, covariance = root root^T */
    double number[ROUNDS][2];       /* points looked at, for either width */
    double log_volume[ROUNDS];      /* log|root| + d / 2 log(2 pi) */
    double *step, *scratch, *share; /* [d] of the low-discrepancy sequence, [2][d], [draws] */
    double *memory;
} proposals;

static ptrdiff_t round_start(ptrdiff_t round, ptrdiff_t draws) { return round * draws / ROUNDS; }

/* Draws for n_y parameters when the caller leaves it open: 127 for one or two, then three times as many for each. The
 * estimate is then off by a few hundredths of a nat where the posterior has one peak: tests/c/test_evidence.c. */
ptrdiff_t pf_default_draws(ptrdiff_t n_y)
{
    ptrdiff_t draws = 128;
    for (ptrdiff_t j = 2; j < PF_MIN(n_y, MOST_TRIPLED); j++) draws *= 3;
    return draws - 1;
}

static pf_status proposals_new(proposals *p, ptrdiff_t d, ptrdiff_t draws)
{
    ptrdiff_t size = draws * (d + 1) + ROUNDS * (d + d * d) + 3 * d;
    double *at = p->memory = PF_ALLOC(double, size), phi = 1.5;
    if (!at) return PF_NO_MEMORY;
    p->d = d;
    p->u = at, at += draws * d;
    p->share = at, at += draws;
    for (int r = 0; r < ROUNDS; r++) {
        p->centre[r] = at, at += d;
        p->root[r] = at, at += d * d;
    }
    p->scratch = at, at += 2 * d;
    p->step = at;
    for (int i = 0; i < 60; i++) phi = pow(1 + phi, 1 / (double)(d + 1)); /* phi^(d + 1) = phi + 1 */
    for (ptrdiff_t j = 0; j < d; j++) p->step[j] = pow(phi, -(double)(j + 1));
    return PF_OK;
}

/* Round r's points, at most `count`, to u[][d]; returns how many there are. */
static ptrdiff_t draw_round(proposals *p, double *u, int r, ptrdiff_t count, uint64_t seed, uint64_t random)
{
    ptrdiff_t d = p->d, kept = 0;
    double *z = p->scratch;
    p->number[r][0] = p->number[r][1] = 0;
    for (ptrdiff_t m = 0; kept < count && m < TRIES * count; m++) {
        int wide = m % 4 == 3, inside = 1;
        for (ptrdiff_t j = 0; j < d; j++) {
            double t = pf_uniform(seed, random, (uint64_t)(r * d + j)) + (double)(m + 1) * p->step[j];
            t -= floor(t);
            z[j] = r ? widen[wide] * pf_normal_quantile(PF_MIN(PF_MAX(t, 1e-12), 1 - 1e-12)) : t;
        }
        for (ptrdiff_t i = 0; i < d; i++) {
            double sum = r ? p->centre[r][i] : z[i];
            for (ptrdiff_t j = 0; j <= i && r; j++) sum += p->root[r][i * d + j] * z[j];
            u[kept * d + i] = sum;
            inside &= sum >= 0 && sum <= 1;
        }
        p->number[r][wide]++;
        kept += inside;
    }
    return kept;
}

/* log[n] = -log (number times density of the draws), of rounds 0 .. rounds - 1 */
static void weigh(double *log_weight, const proposals *p, int rounds, ptrdiff_t n)
{
    ptrdiff_t d = p->d;
    for (ptrdiff_t m = 0; m < n; m++) {
        double density = p->number[0][0] + p->number[0][1], *z = p->scratch;
        for (int r = 1; r < rounds; r++) {
            double square = 0;
            for (ptrdiff_t i = 0; i < d; i++) {
                z[i] = p->u[m * d + i] - p->centre[r][i];
                for (ptrdiff_t j = 0; j < i; j++) z[i] -= p->root[r][i * d + j] * z[j];
                z[i] /= p->root[r][i * d + i];
                square += z[i] * z[i];
            }
            for (int c = 0; c < 2; c++)
                density += p->number[r][c] *
                           exp(-0.5 * square / (widen[c] * widen[c]) - p->log_volume[r] - (double)d * log(widen[c]));
        }
        log_weight[m] = -log(density);
    }
}

/* share[n] = weights p^b, their sum 1; returns the effective number of them. */
static double temper(double *share, const double *log_weight, const double *logp, double b, ptrdiff_t n)
{
    double most = -INFINITY, sum = 0, square = 0;
    for (ptrdiff_t i = 0; i < n; i++) most = PF_MAX(most, log_weight[i] + b * logp[i]);
    for (ptrdiff_t i = 0; i < n; i++) sum += share[i] = exp(log_weight[i] + b * logp[i] - most);
    for (ptrdiff_t i = 0; i < n; i++) {
        share[i] /= sum;
        square += share[i] * share[i];
    }
    return 1 / square;
}

/* The centre and root of round r, from the n draws so far */
static void propose(proposals *p, int r, const double *log_weight, const double *logp, ptrdiff_t count, ptrdiff_t n)
{
    ptrdiff_t d = p->d;
    double *centre = p->centre[r], *root = p->root[r], *share = p->share, *z = p->scratch;
    double lo = log(1e-8), hi = 0, enough = (double)(d + 2) + (double)count / 8, b = 1;
    double effective = temper(share, log_weight, logp, b, n);
    ptrdiff_t best = 0;
    if (effective < enough) {
        for (int step = 0; step < 40; step++) {
            b = exp(0.5 * (lo + hi));
            if (temper(share, log_weight, logp, b, n) < enough) hi = log(b);
            else lo = log(b);
        }
        effective = temper(share, log_weight, logp, b = exp(lo), n);
    }
    memset(centre, 0, (size_t)d * sizeof(double));
    memset(root, 0, (size_t)(d * d) * sizeof(double));
    for (ptrdiff_t m = 0; m < n; m++)
        for (ptrdiff_t i = 0; i < d; i++) centre[i] += share[m] * p->u[m * d + i];
    for (ptrdiff_t m = 1; m < n; m++) best = logp[m] > logp[best] ? m : best;
    if (b < 1) memcpy(centre, p->u + best * d, (size_t)d * sizeof(double));
    double factor = PF_MAX(b, 1 / effective) / PF_MAX(1 - 1 / effective, 0.1);
    for (ptrdiff_t m = 0; m < n; m++) {
        for (ptrdiff_t i = 0; i < d; i++) z[i] = p->u[m * d + i] - centre[i];
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = 0; j <= i; j++) root[i * d + j] += factor * share[m] * z[i] * z[j];
    }
    p->log_volume[r] = 0.5 * (double)d * PF_LOG_2PI;
    for (ptrdiff_t i = 0; i < d; i++) { /* Cholesky, of a covariance with no more correlation than 0.999 */
        double ridge = 1e-3 * root[i * d + i] + 1e-12;
        root[i * d + i] += ridge;
        for (ptrdiff_t j = 0; j <= i; j++) {
            double sum = root[i * d + j];
            for (ptrdiff_t k = 0; k < j; k++) sum -= root[i * d + k] * root[j * d + k];
            root[i * d + j] = j < i ? sum / root[j * d + j] : sqrt(PF_MAX(sum, ridge));
        }
        p->log_volume[r] += log(root[i * d + i]);
    }
}

/* Mean log p(y|x) at temperature b, from tables [fields][room] */
static pf_status tempered(double *mean, const double *log_weight, const double *logp, const ptrdiff_t *counts, double b,
                          ptrdiff_t fields, ptrdiff_t room)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < fields; i++, log_weight += room, logp += room) {
        PF_TRY(pf_check_interrupt());
        sum += b * logp[0] - log_evidence(log_weight, logp, b, counts[i]);
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
                                const int32_t *simulation, double b, ptrdiff_t fields, ptrdiff_t room)
{
    double information = 0, square = 0, most = log(temperatures[1] / temperatures[0]);
    ptrdiff_t n = 0;
    memset(sum, 0, (size_t)fields * sizeof(double));
    for (ptrdiff_t i = 0; i < fields; i++, log_weight += room, logp += room) {
        ptrdiff_t s = simulation ? simulation[i] : i;
        double log_z = log_evidence(log_weight, logp, b, counts[i]), mean = 0, variance = 0;
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

#define TWICE "evidence.c"
#include "twice.h"
#else

struct X(evidence) {
    double *draws; /* conditions y[draws + 1][n_y], then the logarithms of their weights */
    proposals proposals;
};

pf_status X(evidence_new)(X(evidence) **evidence, ptrdiff_t n_y, ptrdiff_t draws)
{
    X(evidence) *e = *evidence = PF_CALLOC(X(evidence), 1);
    if (!e || !(e->draws = PF_ALLOC(double, (draws + 1) * (n_y + 1)))) return PF_NO_MEMORY;
    return proposals_new(&e->proposals, n_y, draws);
}

void X(evidence_free)(X(evidence) *e)
{
    if (!e) return;
    free(e->draws);
    free(e->proposals.memory);
    free(e);
}

/* Log p of row 0 of the batch at its own condition, then at conditions drawn where its posterior is: e->draws holds
 * conditions y[n][n_y], then the log-weights of all but the first, t->logp the log p(x|y). */
static pf_status X(try_conditions)(X(trainer) *t, ptrdiff_t *n, ptrdiff_t draws)
{
    const X(conditioner) *c = t->flow->net;
    proposals *p = &t->evidence->proposals;
    ptrdiff_t row = t->row[0], n_y = t->n_y, done = 0;
    double *y = t->evidence->draws, *log_weight = y + (draws + 1) * n_y;
    const double *least = c->stats + 2 * c->n_y, *most = c->stats + 3 * c->n_y;
    memcpy(y, t->data->y + row * n_y, (size_t)n_y * sizeof(double));
    for (ptrdiff_t i = 0; i <= draws; i++) t->row[i] = row, t->weight[i] = 0;
    *n = 1;
    for (int r = 0; r < ROUNDS; r++) {
        ptrdiff_t count = round_start(r + 1, draws) - round_start(r, draws);
        if (r) propose(p, r, log_weight + 1, t->logp + 1, count, *n - 1);
        double *u = p->u + (*n - 1) * n_y;
        count = draw_round(p, u, r, count, t->o->seed, stream(STREAM_DRAWS, t->epoch << 32 | row));
        for (ptrdiff_t i = 0; i < count * n_y; i++)
            y[*n * n_y + i] = least[i % n_y] + (most[i % n_y] - least[i % n_y]) * u[i];
        *n += count;
        for (; done < *n; done = PF_MIN(done + NET_ROWS, *n))
            PF_TRY(X(trainer_block)(t, done, PF_MIN(NET_ROWS, *n - done), y + done * n_y));
        for (ptrdiff_t i = 0; i < *n; i++)
            if (!isfinite(t->logp[i])) return pf_fail(PF_DEGENERATE, "a point's log p is not finite");
        weigh(log_weight + 1, p, r + 1, *n - 1);
    }
    return PF_OK;
}

pf_status X(posterior)(X(trainer) *t, double *log_posterior, double *log_likelihood, ptrdiff_t draws, double weight)
{
    ptrdiff_t n_y = t->n_y, n, count = 0;
    double *y = t->evidence->draws, *log_weight = y + (draws + 1) * n_y;
    PF_TRY(X(try_conditions)(t, &n, draws));
    double log_z = log_evidence(log_weight, t->logp, 1, n);
    *log_likelihood = t->logp[0];
    *log_posterior = t->logp[0] - log_z;
    if (weight == 0) return PF_OK;
    double kept = 0;                    /* of the draws' weights: those that matter */
    for (ptrdiff_t i = 1; i < n; i++) { /* trainer_block() overwrites logp */
        log_weight[i] = exp(log_weight[i] + t->logp[i] - log_z);
        if (log_weight[i] < PF_MIN(1e-3, 0.1 / (double)n)) log_weight[i] = 0;
        kept += log_weight[i];
    }
    t->factor = weight;
    for (ptrdiff_t i = 0; i < n; i++) {
        double r = i ? -t->o->posterior_weight * log_weight[i] / kept : 1;
        if (r != 0) {
            memmove(y + count * n_y, y + i * n_y, (size_t)n_y * sizeof(double));
            t->weight[count++] = r;
        }
        if (count < NET_ROWS && i < n - 1) continue;
        if (!count) continue;
        PF_TRY(X(trainer_block)(t, 0, count, y));
        count = 0;
    }
    return PF_OK;
}

/* ---- temperature ------------------------------------------------------------------------------------------ */

/* Tables of log p at drawn conditions and of their weights, for every point: [n][room]. */
static pf_status X(tables)(double *log_weight, double *logp, ptrdiff_t *counts, X(trainer) *t, ptrdiff_t room)
{
    for (ptrdiff_t i = 0; i < t->data->n; i++) {
        t->row[0] = i;
        PF_TRY(X(try_conditions)(t, counts + i, room - 1));
        memcpy(log_weight + i * room, t->evidence->draws + room * t->n_y, (size_t)room * sizeof(double));
        memcpy(logp + i * room, t->logp, (size_t)room * sizeof(double));
    }
    return PF_OK;
}

/* The b with the largest mean log p(y|x), which has one maximum: golden section in log b. */
static pf_status X(best_temperature)(double *best, const double *log_weight, const double *logp,
                                     const ptrdiff_t *counts, ptrdiff_t n, ptrdiff_t room)
{
    const double golden = 0.6180339887498949;
    double lo = log(temperatures[0]), hi = log(temperatures[1]);
    double a = hi - golden * (hi - lo), b = lo + golden * (hi - lo), at_a, at_b;
    PF_TRY(tempered(&at_a, log_weight, logp, counts, exp(a), n, room));
    PF_TRY(tempered(&at_b, log_weight, logp, counts, exp(b), n, room));
    for (int step = 0; step < 60; step++) {
        if (at_a < at_b) {
            lo = a, a = b, at_a = at_b, b = lo + golden * (hi - lo);
            PF_TRY(tempered(&at_b, log_weight, logp, counts, exp(b), n, room));
        } else {
            hi = b, b = a, at_b = at_a, a = hi - golden * (hi - lo);
            PF_TRY(tempered(&at_a, log_weight, logp, counts, exp(a), n, room));
        }
    }
    *best = exp(0.5 * (lo + hi));
    return PF_OK;
}

/* The flow's temperature, and what flow_calibrate_simulations says of it, from tables. The best log b of error e is
 * multiplied by w^2 / (w^2 + e^2), w^2 the greater of width^2 and log^2 b - e^2, what b itself says of w: with width
 * alone a flow that is far off would stay over-confident. Mean log p(y|x) is concave in b: between 1 and the best b it
 * is nowhere below that at 1. */
static pf_status X(set_temperature)(X(flow) *f, double *found, double *sum, const double *log_weight,
                                    const double *logp, const ptrdiff_t *counts, const int32_t *simulation,
                                    double width, ptrdiff_t n, ptrdiff_t room)
{
    double best;
    PF_TRY(X(best_temperature)(&best, log_weight, logp, counts, n, room));
    double error = temperature_error(sum, log_weight, logp, counts, simulation, best, n, room);
    double wide = PF_MAX(width, sqrt(PF_MAX(log(best) * log(best) - error * error, 0)));
    double b = exp(log(best) / (1 + (error / wide) * (error / wide)));
    PF_TRY(tempered(found, log_weight, logp, counts, 1, n, room));
    PF_TRY(tempered(found + 1, log_weight, logp, counts, b, n, room));
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
    ptrdiff_t room = CALIBRATE_DRAWS * (pf_default_draws(n_y) + 1);
    double *log_weight = PF_ALLOC(double, data->n *room), *logp = PF_ALLOC(double, data->n *room),
           *sum = PF_ALLOC(double, data->n);
    ptrdiff_t *counts = PF_ALLOC(ptrdiff_t, data->n);
    pf_status status = log_weight && logp && counts && sum ? X(trainer_init)(&t, f, &o, NET_ROWS, n_y, room - 1)
                                                           : PF_NO_MEMORY;
    if (!status && others) status = X(trainer_mix)(&t, others);
    if (!status) status = X(tables)(log_weight, logp, counts, &t, room);
    if (!status) status = X(set_temperature)(f, found, sum, log_weight, logp, counts, simulation, width, data->n, room);
    X(trainer_clear)(&t);
    free(log_weight);
    free(logp);
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
    }
    X(trainer_clear)(&t);
    return pf_end(status);
}
#endif
