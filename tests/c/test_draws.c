/* The integral of a density over the unit cube by draws, against the exact one: Gaussians down to 0.0003 of the cube's
 * width, correlated, at walls and in a corner of the cube, and bent. */
#include "../../csrc/draws.c"
#include "../../csrc/train.h"
#include "check.h"

enum { MOST_D = 4, SEEDS = 20 };

/* exp(log p) is a Gaussian of z, u = mean + root z, whose last number is less by bend (18 (sqrt(1 + z_0^2 / 9) - 1) -
 * 1): a parabola that goes over into a line. Shears leave the integral as it is. And in units of `rough` one standard
 * normal number more, another one for every point. */
typedef struct {
    ptrdiff_t d;
    double mean[MOST_D], root[MOST_D][MOST_D], bend, rough, log_volume;
    ptrdiff_t evaluations;
} gauss;

/* Standard deviations width, 2 width, width, ..., all correlations rho */
static gauss gauss_of(ptrdiff_t d, double width, double rho)
{
    gauss g = {.d = d, .log_volume = 0.5 * (double)d * PF_LOG_2PI};
    for (ptrdiff_t i = 0; i < d; i++) {
        for (ptrdiff_t j = 0; j <= i; j++) {
            double sum = (i == j ? 1 : rho) * width * width * (double)((1 + i % 2) * (1 + j % 2));
            for (ptrdiff_t k = 0; k < j; k++) sum -= g.root[i][k] * g.root[j][k];
            g.root[i][j] = i == j ? sqrt(sum) : sum / g.root[j][j];
        }
        g.log_volume += log(g.root[i][i]);
    }
    return g;
}

static pf_status gauss_logp(void *user, double *logp, const double *u, ptrdiff_t first, ptrdiff_t n)
{
    gauss *g = user;
    for (ptrdiff_t m = 0; m < n; m++) {
        double z[MOST_D], more;
        logp[m] = 0;
        for (ptrdiff_t i = 0; i < g->d; i++) {
            z[i] = u[m * g->d + i] - g->mean[i];
            for (ptrdiff_t j = 0; j < i; j++) z[i] -= g->root[i][j] * z[j];
            z[i] /= g->root[i][i];
        }
        if (g->bend > 0) z[g->d - 1] -= g->bend * (18 * (sqrt(1 + z[0] * z[0] / 9) - 1) - 1);
        for (ptrdiff_t i = 0; i < g->d; i++) logp[m] -= 0.5 * z[i] * z[i];
        pf_normals(&more, 5, 5, (uint64_t)(first + m), 1);
        logp[m] += g->rough * more;
    }
    g->evaluations += n;
    return PF_OK;
}

typedef enum { INSIDE, WALL, CORNER, BENT } place;
static const char *const places[] = {"inside", "at a wall", "in a corner", "bent"};

typedef struct {
    double rms, bias, worst, evaluations; /* of log Z; the last in units of the draws asked for */
    int unknown;
} found;

/* Where `which` is: SEEDS times elsewhere, with other draws */
static found try(ptrdiff_t d, ptrdiff_t draws, double width, double rho, place which, double b)
{
    found f = {0};
    pf_draws s = {0};
    CHECK(pf_draws_new(&s, d, draws) == PF_OK, "%s", pf_message());
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        gauss g = gauss_of(d, width, rho);
        pf_density p = {gauss_logp, &g, 7, seed};
        double reach = PF_MIN(12 * width, 0.5), truth = g.log_volume - 0.5 * (double)d * log(b);
        for (ptrdiff_t j = 0; j < d; j++) g.mean[j] = reach + pf_uniform(99, seed, (uint64_t)j) * (1 - 2 * reach);
        if (which == BENT) g.bend = 0.3;
        if (which == WALL) g.mean[d - 1] = (double)(seed % 2), truth -= log(2);
        if (which == CORNER) g.mean[0] = 0, g.mean[1] = 1, truth += log(0.25 - asin(rho) / (2 * M_PI));
        CHECK(pf_draw(&s, draws, &p) == PF_OK, "%s", pf_message());
        double error = pf_log_evidence(s.log_weight, s.logp, b, s.n) - truth;
        f.unknown += s.effective < PF_FEW;
        f.bias += error / SEEDS;
        f.rms += error * error / SEEDS;
        f.worst = PF_MAX(f.worst, fabs(error));
        f.evaluations += (double)g.evaluations / (double)(SEEDS * draws);
    }
    f.rms = sqrt(f.rms);
    pf_draws_clear(&s);
    if (getenv("VERBOSE"))
        printf("%td-D, %4td draws, width %-6g, correlation %-5g, %-11s, b = %g: off by %.3f, rms %.3f, at most %.2f; "
               "%.2f of the draws, %d not known\n",
               d, draws, width, rho, places[which], b, f.bias, f.rms, f.worst, f.evaluations, f.unknown);
    return f;
}

static void test_gaussians(void)
{
    static const double widths[] = {0.03, 0.01, 0.003, 0.001, 0.0003}, rhos[] = {0, 0.95, 0.99, 0.999};
    for (int d = 1; d <= MOST_D; d++)
        for (int w = 0; w < 5; w++)
            for (int r = 0; r < (d > 1 ? 4 : 1); r++)
                for (place which = INSIDE; which <= (d > 1 ? BENT : WALL); which++) {
                    found f = try(d, pf_default_draws(d), widths[w], rhos[r], which, 1);
                    CHECK(f.rms < 0.13 && fabs(f.bias) < 0.07 && f.worst < 0.6 && !f.unknown && f.evaluations < 5,
                          "%d-D, width %g, correlation %g, %s: log Z off by %.3f, rms %.3f, at most %.3f; %d not "
                          "known; %.2f times the draws",
                          d, widths[w], rhos[r], places[which], f.bias, f.rms, f.worst, f.unknown, f.evaluations);
                }
}

/* Posteriors as they mostly are take no more draws than were asked for, or next to none. */
static void test_ordinary(void)
{
    for (int d = 1; d <= MOST_D; d++)
        for (int wide = 0; wide < 2; wide++) {
            found f = try(d, pf_default_draws(d), wide ? 0.1 : 0.03, 0, INSIDE, 1);
            CHECK(f.evaluations < 1.1, "%d-D: %.2f times the draws", d, f.evaluations);
        }
}

/* However few were asked for */
static void test_few(void)
{
    for (int d = 1; d <= 3; d++) {
        found f = try(d, 10, 0.003, d > 1 ? 0.95 : 0, INSIDE, 1);
        CHECK(f.rms < 0.15 && !f.unknown, "%d-D, 10 draws: rms %.3f, %d not known", d, f.rms, f.unknown);
    }
}

/* Temperatures: of a power of the density too */
static void test_powers(void)
{
    for (int d = 1; d <= 3; d++)
        for (double b = 0.25; b <= 4; b *= 4) {
            found f = try(d, 3 * pf_default_draws(d), 0.001, d > 1 ? 0.95 : 0, INSIDE, b);
            CHECK(f.rms < 0.15, "%d-D, b = %g: rms %.3f", d, b, f.rms);
        }
}

/* exp(4 N(0, 1)) at every point: no number of draws counts as ENOUGH. That is said, after as many as there is room. */
static void test_unknown(void)
{
    pf_draws s = {0};
    gauss g = gauss_of(2, 0.2, 0);
    pf_density p = {gauss_logp, &g, 7, 1};
    g.mean[0] = g.mean[1] = 0.5, g.rough = 4;
    CHECK(pf_draws_new(&s, 2, 127) == PF_OK && pf_draw(&s, 127, &p) == PF_OK, "%s", pf_message());
    CHECK(s.effective < PF_FEW && s.n > 0.9 * (double)s.room && s.n <= s.room, "%g after %td draws of %td", s.effective,
          s.n, s.room);
    pf_draws_clear(&s);
}

int main(void)
{
    test_gaussians();
    test_ordinary();
    test_few();
    test_powers();
    test_unknown();
    if (!check_failures) puts("draws: all tests passed");
    return check_result();
}
