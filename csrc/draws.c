/* Adaptive importance sampling (Cornuet et al. 2012, arXiv 0907.1254) of a density p on the unit cube: round 0 covers
 * the cube evenly. Every later round has what was seen so far weighted by 1 / density of the draws and by p^b, b the
 * largest in (0, 1] that leaves an effective number of draws E. Its own draws are from Gaussians around the likeliest
 * draw, which at a wall of the cube stays there whatever b is, where a mean recedes from it; around the mean once
 * b = 1. Their covariance is C(b) max(b, 1/E), what is expected of p and of the error of the centre, widened by a
 * factor and, for a quarter of the draws, by another two. Where b < 1 it is longer along the way that the centre came:
 * on its way up a ridge C(b) has only what is around it, and falls behind. The density of the draws is the mixture of
 * all rounds'. All are low-discrepancy sequences, shifted at random.
 *
 * The rounds end when one was drawn at b = 1 and the effective number of draws at b = 1 is PF_ENOUGH: then the integral
 * is right to 0.1 in the logarithm. A Gaussian of 0.0003 of the cube's width and a correlation of 0.999 takes some 10
 * to 20 rounds. What takes MOST_ROUNDS is known worse, as `effective` says. tests/c/test_draws.c has the figures. */
#include "draws.h"

#include "train.h"

enum {
    ROUNDS = 5,       /* that the draws asked for are in */
    MOST_ROUNDS = 40, /* of as many each */
    TRIES = 8,        /* points looked at for a draw, at most, until one is within the cube */
    STEPS = 10,       /* of the search for b, between two that differ by exp(LEAP) */
};

#define LEAP 1.4
#define LEAST_LOG_B (-46)
#define STRETCH 0.3 /* of the way of the centre, squared */
#define RIDGE 1e-5  /* of variances: correlations are no closer to 1 than that */

static const double widen[2] = {1.25, 2.5};

typedef struct pf_proposal {
    double *centre, *root; /* [d]; [d][d], lower triangular, covariance = root root^T */
    double number[2];      /* points looked at, for either width */
    double log_volume;     /* log|root| + d / 2 log(2 pi) */
} pf_proposal;

/* Draws of a round: at least what tells a covariance of d numbers from chance */
static ptrdiff_t round_size(ptrdiff_t draws, ptrdiff_t d)
{
    ptrdiff_t least = (ptrdiff_t)4 << PF_MIN(d, 6);
    return PF_MAX(draws / ROUNDS, least);
}

pf_status pf_draws_new(pf_draws *s, ptrdiff_t d, ptrdiff_t draws)
{
    double phi = 1.5;
    s->d = d;
    s->room = MOST_ROUNDS * round_size(draws, d);
    ptrdiff_t size = s->room * (d + 4) + MOST_ROUNDS * (d + d * d) + 3 * d;
    double *at = s->memory = PF_ALLOC(double, size);
    s->rounds = PF_CALLOC(pf_proposal, MOST_ROUNDS);
    if (!at || !s->rounds) return PF_NO_MEMORY;
    s->u = at, at += s->room * d;
    s->logp = at, at += s->room;
    s->density = at, at += s->room;
    s->log_weight = at, at += s->room;
    s->share = at, at += s->room;
    for (int r = 0; r < MOST_ROUNDS; r++) {
        s->rounds[r].centre = at, at += d;
        s->rounds[r].root = at, at += d * d;
    }
    s->scratch = at, at += 2 * d;
    s->step = at;
    for (int i = 0; i < 60; i++) phi = pow(1 + phi, 1 / (double)(d + 1)); /* phi^(d + 1) = phi + 1 */
    for (ptrdiff_t j = 0; j < d; j++) s->step[j] = pow(phi, -(double)(j + 1));
    return PF_OK;
}

void pf_draws_clear(pf_draws *s)
{
    free(s->memory);
    free(s->rounds);
}

/* Round r's points, at most `count`, to u[][d]; returns how many there are. */
static ptrdiff_t draw_round(pf_draws *s, int r, ptrdiff_t count, const pf_density *p)
{
    ptrdiff_t d = s->d, kept = 0;
    pf_proposal *q = s->rounds + r;
    double *z = s->scratch, *u = s->u + s->n * d;
    q->number[0] = q->number[1] = 0;
    for (ptrdiff_t m = 0; kept < count && m < TRIES * count; m++) {
        int wide = m % 4 == 3, inside = 1;
        for (ptrdiff_t j = 0; j < d; j++) {
            double t = pf_uniform(p->seed, p->stream, (uint64_t)(r * d + j)) + (double)(m + 1) * s->step[j];
            t -= floor(t);
            z[j] = r ? widen[wide] * pf_normal_quantile(PF_MIN(PF_MAX(t, 1e-12), 1 - 1e-12)) : t;
        }
        for (ptrdiff_t i = 0; i < d; i++) {
            double sum = r ? q->centre[i] : z[i];
            for (ptrdiff_t j = 0; j <= i && r; j++) sum += q->root[i * d + j] * z[j];
            u[kept * d + i] = sum;
            inside &= sum >= 0 && sum <= 1;
        }
        q->number[wide]++;
        kept += inside;
    }
    return kept;
}

/* Round r's share of the density at u[d], times the number of its points */
static double density_of(const pf_draws *s, int r, const double *u)
{
    ptrdiff_t d = s->d;
    const pf_proposal *q = s->rounds + r;
    double *z = s->scratch, square = 0, density = 0;
    if (!r) return q->number[0] + q->number[1];
    for (ptrdiff_t i = 0; i < d; i++) {
        z[i] = u[i] - q->centre[i];
        for (ptrdiff_t j = 0; j < i; j++) z[i] -= q->root[i * d + j] * z[j];
        z[i] /= q->root[i * d + i];
        square += z[i] * z[i];
    }
    for (int c = 0; c < 2; c++)
        density += q->number[c] *
                   exp(-0.5 * square / (widen[c] * widen[c]) - q->log_volume - (double)d * log(widen[c]));
    return density;
}

/* The weights once round r has its points: old ones are now points of one round more, new ones of all. */
static void weigh(pf_draws *s, int r, ptrdiff_t old)
{
    for (ptrdiff_t m = 0; m < s->n; m++) {
        if (m >= old) s->density[m] = 0;
        for (int i = m < old ? r : 0; i <= r; i++) s->density[m] += density_of(s, i, s->u + m * s->d);
        s->log_weight[m] = -log(s->density[m]);
    }
}

/* share[n] = weights p^b, their sum 1; returns the effective number of them. */
static double temper(pf_draws *s, double b)
{
    double most = -INFINITY, sum = 0, square = 0;
    for (ptrdiff_t i = 0; i < s->n; i++) most = PF_MAX(most, s->log_weight[i] + b * s->logp[i]);
    for (ptrdiff_t i = 0; i < s->n; i++) sum += s->share[i] = exp(s->log_weight[i] + b * s->logp[i] - most);
    for (ptrdiff_t i = 0; i < s->n; i++) {
        s->share[i] /= sum;
        square += s->share[i] * s->share[i];
    }
    return 1 / square;
}

/* The largest log b with an effective number of draws *effective >= enough, or near it: E falls with b, but not
 * everywhere. The shares are those of b. */
static double highest(pf_draws *s, double *effective, double enough)
{
    double lo = 0, hi = 0;
    while ((*effective = temper(s, exp(lo))) < enough && lo > LEAST_LOG_B) hi = lo, lo -= LEAP;
    if (lo == 0) return 0;
    for (int step = 0; step < STEPS; step++) {
        double middle = 0.5 * (lo + hi);
        if (temper(s, exp(middle)) < enough) hi = middle;
        else lo = middle;
    }
    *effective = temper(s, exp(lo));
    return lo;
}

/* The centre and root of round r, from the draws so far; returns b. */
static double propose(pf_draws *s, int r, ptrdiff_t count)
{
    ptrdiff_t d = s->d, best = 0;
    pf_proposal *q = s->rounds + r;
    double *centre = q->centre, *root = q->root, *share = s->share, *z = s->scratch;
    double effective, b = exp(highest(s, &effective, (double)(d + 2) + (double)count / 8));
    memset(centre, 0, (size_t)d * sizeof(double));
    memset(root, 0, (size_t)(d * d) * sizeof(double));
    for (ptrdiff_t m = 0; m < s->n; m++)
        for (ptrdiff_t i = 0; i < d; i++) centre[i] += share[m] * s->u[m * d + i];
    for (ptrdiff_t m = 1; m < s->n; m++) best = s->logp[m] > s->logp[best] ? m : best;
    if (b < 1) memcpy(centre, s->u + best * d, (size_t)d * sizeof(double));
    double factor = PF_MAX(b, 1 / effective) / PF_MAX(1 - 1 / effective, 0.1);
    for (ptrdiff_t m = 0; m < s->n; m++) {
        for (ptrdiff_t i = 0; i < d; i++) z[i] = s->u[m * d + i] - centre[i];
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = 0; j <= i; j++) root[i * d + j] += factor * share[m] * z[i] * z[j];
    }
    for (ptrdiff_t i = 0; i < d && b < 1 && r > 1; i++)
        for (ptrdiff_t j = 0; j <= i; j++)
            root[i * d + j] += STRETCH * (centre[i] - q[-1].centre[i]) * (centre[j] - q[-1].centre[j]);
    q->log_volume = 0.5 * (double)d * PF_LOG_2PI;
    for (ptrdiff_t i = 0; i < d; i++) { /* Cholesky */
        double ridge = RIDGE * root[i * d + i] + 1e-14;
        root[i * d + i] += ridge;
        for (ptrdiff_t j = 0; j <= i; j++) {
            double sum = root[i * d + j];
            for (ptrdiff_t k = 0; k < j; k++) sum -= root[i * d + k] * root[j * d + k];
            root[i * d + j] = j < i ? sum / root[j * d + j] : sqrt(PF_MAX(sum, ridge));
        }
        q->log_volume += log(root[i * d + i]);
    }
    return b;
}

pf_status pf_draw(pf_draws *s, ptrdiff_t draws, const pf_density *p)
{
    ptrdiff_t size = round_size(draws, s->d);
    double b = 0;
    s->n = 0;
    s->effective = 0;
    for (int r = 0; r < MOST_ROUNDS && s->effective < PF_ENOUGH; r++) {
        ptrdiff_t old = s->n;
        if (r) b = propose(s, r, size);
        ptrdiff_t count = draw_round(s, r, size, p);
        PF_TRY(p->logp(p->user, s->logp + old, s->u + old * s->d, old, count));
        s->n += count;
        for (ptrdiff_t i = old; i < s->n; i++)
            if (s->logp[i] == -INFINITY) s->logp[i] = -1e300; /* a density of 0, whose powers are finite */
            else if (!isfinite(s->logp[i])) return pf_fail(PF_DEGENERATE, "a point's log p is not finite");
        weigh(s, r, old);
        if (s->effective > 0 || (b == 1 && s->n >= draws / ROUNDS * ROUNDS)) s->effective = temper(s, 1);
    }
    return PF_OK;
}

double pf_log_evidence(const double *log_weight, const double *logp, double b, ptrdiff_t n)
{
    double most = -INFINITY, sum = 0;
    for (ptrdiff_t i = 0; i < n; i++) most = PF_MAX(most, log_weight[i] + b * logp[i]);
    for (ptrdiff_t i = 0; i < n; i++) sum += exp(log_weight[i] + b * logp[i] - most);
    return most + log(sum);
}
