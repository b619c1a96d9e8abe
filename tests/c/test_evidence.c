/* log p(y|x) of a flow and its gradient, as fine-tuning estimates them, against integrals over dense grids of the
 * prior's box: with one to four conditions, and with posteriors of two peaks. The functions are file-local: their
 * source is included. */
#include "../../csrc/evidence.c"
#include "../../csrc/start.c"
#include "check.h"

enum { SIDE = 16, PIXELS = SIDE * SIDE, TRAIN = 1200, SOME = 4, MOST_Y = 4, DRAWS = 127 /* that fits use */ };

static double square(double x) { return x * x; }

/* log P(k): Chebyshev polynomials of log k, from -1 to 1, times `scale` y; the first `even` y enter through y^2. */
static double log_power(double k, const double *y, int n_y, int even, double scale)
{
    double t = fmin(2 * log(fmax(k / (2 * M_PI), 1)) / log(SIDE / 2) - 1, 1.2), term = 1, next = t, sum = 0;
    for (int j = 0; j < n_y; j++) {
        double last = term;
        sum += scale * term * (j < even ? 3 * square(y[j]) - 1.5 : y[j]);
        term = next;
        next = 2 * t * term - last;
    }
    return sum;
}

typedef struct {
    int n_y, even;
    double scale;
    double x[(TRAIN + SOME) * PIXELS], y[(TRAIN + SOME) * MOST_Y];
    pf64_flow *flow;
    pf64_data some; /* held out; of their y none is near the prior's ends */
} problem;

static void make_fields(problem *p)
{
    double z[PIXELS];
    pf64_filter *f;
    CHECK(pf64_filter_new(&f, 2, (ptrdiff_t[]){SIDE, SIDE}, (double[]){1, 1}, -1) == PF_OK, "%s", pf_message());
    double *t = PF_ALLOC(double, f->shells), *spectrum = PF_ALLOC(double, f->fft->spectrum),
           *work = PF_ALLOC(double, f->work);
    for (int i = 0; i < TRAIN + SOME; i++) {
        uint32_t word[4];
        double *y = p->y + i * p->n_y;
        pf_philox(word, 31, 2, (uint64_t)i);
        for (int j = 0; j < p->n_y; j++) {
            y[j] = word[j] * 0x1p-31 - 1;
            if (i >= TRAIN) y[j] = j < p->even ? copysign(0.4 + 0.3 * fabs(y[j]), y[j]) : 0.2 * y[j];
        }
        for (ptrdiff_t s = 0; s < f->shells; s++) t[s] = exp(0.5 * log_power(f->k[s], y, p->n_y, p->even, p->scale));
        pf_normals(z, 32, (uint64_t)i, 0, PIXELS);
        pf64_filter_apply(f, p->x + i * PIXELS, spectrum, z, t, work);
    }
    free(t), free(spectrum), free(work);
    pf64_filter_free(f);
}

static void fit_problem(problem *p, int n_y, int even, double scale)
{
    p->n_y = n_y;
    p->even = even;
    p->scale = scale;
    make_fields(p);
    pf_symmetric_options o;
    pf_symmetric_defaults(&o);
    o.n_layers = 1;
    o.psi_knots = 3;
    o.filter_knots = 8;
    o.train.hidden[0] = o.train.hidden[1] = 24;
    o.train.epochs = 40;
    o.train.learning_rate = 4e-3;
    pf64_data train = {.x = p->x, .y = p->y, .n = TRAIN, .n_y = n_y};
    p->some = (pf64_data){.x = p->x + TRAIN * PIXELS, .y = p->y + TRAIN * n_y, .n = SOME, .n_y = n_y};
    CHECK(pf64_symmetric_fit(&p->flow, &train, NULL, 2, (ptrdiff_t[]){SIDE, SIDE}, (double[]){1, 1}, &o) == PF_OK, "%s",
          pf_message());
}

/* ---- the truth: log of the mean of p(x|y) over the prior's box, by a sum over the nodes of a grid --------------- */

typedef struct {
    ptrdiff_t n;
    double *y, *logp;
    double log_cell; /* of a node, in units of the box */
} grid;

static void grid_free(grid *g) { free(g->y), free(g->logp); }

/* The middles of equal cells of the box, `side` along each axis */
static grid box_grid(const pf64_flow *f, int side)
{
    grid g = {.n = 1};
    for (int j = 0; j < f->net->n_y; j++) g.n *= side;
    g.y = PF_ALLOC(double, g.n * f->net->n_y);
    g.logp = PF_ALLOC(double, g.n);
    g.log_cell = -log((double)g.n);
    const double *least = f->net->stats + 2 * f->net->n_y, *most = f->net->stats + 3 * f->net->n_y;
    for (ptrdiff_t i = 0; i < g.n; i++)
        for (ptrdiff_t j = f->net->n_y - 1, at = i; j >= 0; j--, at /= side)
            g.y[i * f->net->n_y + j] = least[j] + ((double)(at % side) + 0.5) / side * (most[j] - least[j]);
    return g;
}

static double grid_log_z(grid *g, const pf64_flow *f, const double *x)
{
    double most = -INFINITY, sum = 0;
    CHECK(pf64_flow_logp_at(f, g->logp, x, g->y, 1, g->n) == PF_OK, "%s", pf_message());
    for (ptrdiff_t i = 0; i < g->n; i++) most = fmax(most, g->logp[i]);
    for (ptrdiff_t i = 0; i < g->n; i++) sum += exp(g->logp[i] - most);
    return most + log(sum) + g->log_cell;
}

/* A grid along the principal axes of a posterior of one peak, to 4 standard deviations: the trapezoidal rule is then
 * exact to some 3e-4. Earlier grids find the axes; what they do not resolve counts as a quarter of their step. */
static grid peak_grid(const pf64_flow *f, const double *x)
{
    enum { COARSE = 10, FINE = 12, ROUNDS_ = 5 };
    const double reach = 4;
    ptrdiff_t d = f->net->n_y, outside = 0;
    const double *least = f->net->stats + 2 * d, *most = f->net->stats + 3 * d;
    double mean[MOST_Y], root[MOST_Y][MOST_Y] = {{0}}, step = 1;
    grid g = box_grid(f, COARSE);
    for (ptrdiff_t j = 0; j < d; j++) root[j][j] = (most[j] - least[j]) / COARSE;
    for (int round = 0; round < ROUNDS_; round++) {
        double log_z = grid_log_z(&g, f, x) - g.log_cell, cov[MOST_Y][MOST_Y] = {{0}};
        memset(mean, 0, sizeof mean);
        for (ptrdiff_t i = 0; i < g.n; i++)
            for (ptrdiff_t j = 0; j < d; j++) mean[j] += exp(g.logp[i] - log_z) * g.y[i * d + j];
        for (ptrdiff_t j = 0; j < d; j++)
            for (ptrdiff_t k = 0; k <= j; k++) {
                for (ptrdiff_t i = 0; i < g.n; i++)
                    cov[j][k] += exp(g.logp[i] - log_z) * (g.y[i * d + j] - mean[j]) * (g.y[i * d + k] - mean[k]);
                for (ptrdiff_t l = 0; l <= k; l++) cov[j][k] += square(step / 4) * root[j][l] * root[k][l];
            }
        grid_free(&g);
        ptrdiff_t m = round < ROUNDS_ - 1 ? COARSE : FINE;
        step = 2 * reach / (double)(m - 1);
        g = (grid){.n = 1, .log_cell = (double)d * log(step)};
        for (ptrdiff_t j = 0; j < d; j++) {
            g.n *= m;
            for (ptrdiff_t k = 0; k <= j; k++) {
                double sum = cov[j][k];
                for (ptrdiff_t l = 0; l < k; l++) sum -= root[j][l] * root[k][l];
                root[j][k] = k < j ? sum / root[k][k] : sqrt(sum);
            }
            g.log_cell += log(root[j][j] / (most[j] - least[j]));
        }
        g.y = PF_ALLOC(double, g.n *d);
        g.logp = PF_ALLOC(double, g.n);
        for (ptrdiff_t i = 0; i < g.n; i++)
            for (ptrdiff_t j = 0; j < d; j++) {
                g.y[i * d + j] = mean[j];
                for (ptrdiff_t k = 0, at = i; k <= j; k++, at /= m)
                    g.y[i * d + j] += root[j][k] * (-reach + step * (double)(at % m));
            }
    }
    for (ptrdiff_t i = 0; i < g.n * d; i++) outside += !(g.y[i] > least[i % d] && g.y[i] < most[i % d]);
    CHECK(!outside, "%td of %td nodes are outside of the box", outside, g.n);
    return g;
}

/* ---- the gradient along a direction of theta and of the network's weights ---------------------------------------- */

enum { DIRECTIONS = 5 };

static double along(uint64_t direction, ptrdiff_t i)
{
    double z;
    pf_normals(&z, 41, direction, (uint64_t)i, 1);
    return z;
}

static void move(pf64_flow *f, uint64_t direction, double step)
{
    for (ptrdiff_t i = 0; i < f->n_theta; i++) f->theta[i] += step * along(direction, i);
    for (ptrdiff_t i = 0; i < f->net->net->n_w; i++) f->net->net->w[i] += step * along(direction, f->n_theta + i);
}

static void clear_gradient(pf64_trainer *fit)
{
    memset(fit->gbase, 0, (size_t)fit->flow->n_theta * sizeof(double));
    fit->gw_empty = 1;
}

static double project(const pf64_trainer *fit, uint64_t direction)
{
    const pf64_flow *f = fit->flow;
    double sum = 0;
    for (ptrdiff_t i = 0; i < f->n_theta; i++) sum += fit->gbase[i] * along(direction, i);
    for (ptrdiff_t i = 0; i < f->net->net->n_w; i++) sum += fit->gw[i] * along(direction, f->n_theta + i);
    return sum;
}

/* (1 - w) log p(x|y) + w log p(y|x), which training climbs, at field i, its evidence from the grid */
static double objective(problem *p, grid *g, int i, double weight)
{
    double at_y, log_z = weight > 0 ? grid_log_z(g, p->flow, p->some.x + i * PIXELS) : 0;
    CHECK(pf64_flow_logp(p->flow, &at_y, p->some.x + i * PIXELS, p->some.y + i * p->n_y, NULL, 1) == PF_OK, "%s",
          pf_message());
    return at_y - weight * log_z;
}

static double exact_slope(problem *p, grid *g, int i, double weight, uint64_t direction)
{
    double h = 1e-6, up, down;
    move(p->flow, direction, h);
    up = objective(p, g, i, weight);
    move(p->flow, direction, -2 * h);
    down = objective(p, g, i, weight);
    move(p->flow, direction, h);
    return (up - down) / (2 * h);
}

typedef struct {
    double bias, error, slope_bias, slope_error, slope;
} accuracy;

/* The estimate and its gradient, with `seeds` sets of draws of each of `fields` fields, against the grids': the
 * estimate may be off by `bias` nats in the mean and by `error` rms, slopes by `slope_error` of their rms. The mean
 * slope must be right to five standard errors. */
static void measure(problem *p, grid (*make)(problem *p, int i), int fields, int seeds, int draws, double weight,
                    accuracy most)
{
    accuracy a = {0};
    pf_train_options o;
    pf_train_defaults(&o);
    o.posterior_weight = weight;
    pf64_trainer fit = {.data = &p->some};
    CHECK(pf64_trainer_init(&fit, p->flow, &o, NET_ROWS, p->n_y, draws) == PF_OK, "%s", pf_message());
    double n = (double)fields * seeds;
    for (int i = 0; i < fields; i++) {
        grid g = make(p, i);
        double log_z = grid_log_z(&g, p->flow, p->some.x + i * PIXELS), slope[DIRECTIONS], mean[DIRECTIONS] = {0};
        for (int d = 0; d < DIRECTIONS; d++) {
            slope[d] = exact_slope(p, &g, i, weight, (uint64_t)d);
            a.slope += square(slope[d]) / (fields * DIRECTIONS);
        }
        for (int s = 0; s < seeds; s++) {
            double estimate = NAN, at_y = NAN;
            fit.row[0] = i;
            fit.epoch = s + 1;
            clear_gradient(&fit);
            CHECK(pf64_posterior(&fit, &estimate, &at_y, draws, 1) == PF_OK, "%s", pf_message());
            double e = estimate - (at_y - log_z);
            a.bias += e / n;
            a.error += e * e / n;
            for (int d = 0; d < DIRECTIONS; d++) {
                e = project(&fit, (uint64_t)d) - slope[d];
                mean[d] += e / seeds;
                a.slope_error += e * e / (n * DIRECTIONS);
            }
        }
        for (int d = 0; d < DIRECTIONS; d++) a.slope_bias += square(mean[d]) / (fields * DIRECTIONS);
        grid_free(&g);
    }
    pf64_trainer_clear(&fit);
    a.error = sqrt(a.error);
    a.slope = sqrt(a.slope);
    a.slope_error = sqrt(a.slope_error) / a.slope;
    a.slope_bias = sqrt(a.slope_bias) / a.slope;
    double chance = 5 * a.slope_error / sqrt(seeds) / sqrt(sqrt(n * DIRECTIONS / seeds));
    CHECK(fabs(a.bias) < most.bias && a.error < most.error && a.slope_error < most.slope_error && a.slope_bias < chance,
          "%d conditions, the first %d even, %d draws, weight %g: log p(y|x) is off by %.3f, rms %.3f; slopes by %.3f, "
          "rms %.3f of them",
          p->n_y, p->even, draws, weight, a.bias, a.error, a.slope_bias, a.slope_error);
    if (getenv("VERBOSE"))
        printf(
            "%d conditions, %d even, %d draws, weight %g: off by %.3f, rms %.3f; slopes %.3g, off by %.3f, rms %.3f\n",
            p->n_y, p->even, draws, weight, a.bias, a.error, a.slope, a.slope_bias, a.slope_error);
}

/* With the draws and their densities as they are, the gradient is that of (1 - w) log p(x|y) + w log p(y|x); draws of
 * next to no weight are left out, as posterior() does. */
static void test_frozen(problem *p, double weight)
{
    pf_train_options o;
    pf_train_defaults(&o);
    o.posterior_weight = weight;
    pf64_trainer fit = {.data = &p->some};
    CHECK(pf64_trainer_init(&fit, p->flow, &o, NET_ROWS, p->n_y, DRAWS) == PF_OK, "%s", pf_message());
    pf_draws *s = &fit.evidence->draws;
    double at_y, estimate, slope[DIRECTIONS], error = 0, size = 0;
    fit.row[0] = 0;
    CHECK(pf64_try_conditions(&fit, DRAWS) == PF_OK && s->effective >= PF_ENOUGH, "%td draws", s->n);
    double *y = PF_ALLOC(double, (s->n + 1) * p->n_y), *logp = PF_ALLOC(double, s->n + 1);
    memcpy(y, fit.evidence->y, (size_t)((s->n + 1) * p->n_y) * sizeof(double));
    double log_z = pf_log_evidence(s->log_weight, s->logp, 1, s->n);
    for (ptrdiff_t i = 0; i < s->n; i++)
        if (exp(s->log_weight[i] + s->logp[i] - log_z) < PF_MIN(1e-3, 0.1 / (double)s->n)) s->log_weight[i] = -INFINITY;
    for (int d = 0; d < DIRECTIONS; d++) {
        double side[2], h = 1e-8; /* log T has a kink in theta where an end knot passes a shell */
        for (int i = 0; i < 2; i++) {
            move(p->flow, (uint64_t)d, i ? -2 * h : h);
            CHECK(pf64_flow_logp_at(p->flow, logp, p->some.x, y, 1, s->n + 1) == PF_OK, "%s", pf_message());
            side[i] = logp[0] - weight * pf_log_evidence(s->log_weight, logp + 1, 1, s->n);
        }
        move(p->flow, (uint64_t)d, h);
        slope[d] = (side[0] - side[1]) / (2 * h);
    }
    clear_gradient(&fit);
    CHECK(pf64_posterior(&fit, &estimate, &at_y, DRAWS, 1) == PF_OK, "%s", pf_message());
    for (int d = 0; d < DIRECTIONS; d++) {
        error += square(project(&fit, (uint64_t)d) - slope[d]);
        size += square(slope[d]);
    }
    error = sqrt(error / size);
    CHECK(error < 1e-5, "%d conditions, weight %g: the gradient is off by %g of itself", p->n_y, weight, error);
    free(y), free(logp);
    pf64_trainer_clear(&fit);
}

/* Draws chosen for a gradient: as many as are asked for, with repeats, each as often as its share has it to within one,
 * and in the mean over chance, exactly. */
static void test_choice(void)
{
    enum { N = 40, MOST = 7, CHANCES = 1000 };
    double share[N], mean[N] = {0}, got[N], sum = 0;
    for (int i = 0; i < N; i++) sum += share[i] = exp(3 * along(9, i));
    for (int c = 0; c < CHANCES; c++) {
        double total = 0, apart = 0;
        memcpy(got, share, sizeof got);
        choose(got, N, MOST, (c + 0.5) / CHANCES);
        for (int i = 0; i < N; i++) {
            total += got[i];
            mean[i] += got[i] / CHANCES;
            apart = fmax(apart, fabs(got[i] - share[i] / sum));
        }
        CHECK(fabs(total - 1) < 1e-12 && apart < 1.0 / MOST, "%g, %g", total, apart);
    }
    for (int i = 0; i < N; i++) CHECK(fabs(mean[i] - share[i] / sum) < 2.0 / CHANCES, "%g %g", mean[i], share[i] / sum);
}

static char told[1000];
static void tell(void *user, pf_status status, const char *message)
{
    (void)user;
    CHECK(status == PF_DEGENERATE, "%d", (int)status);
    snprintf(told, sizeof told, "%s", message);
}

/* Where log p(y|x) has thousands of peaks its evidence is not known. Training says so, and goes on with log p(x|y). */
static void test_unknown(problem *p)
{
    const double larger = 100;
    double log_posterior[SOME], likelihood, size = 0, difference = 0;
    pf_train_options o;
    pf_train_defaults(&o);
    o.posterior_weight = 1;
    o.watch.warn = tell;
    pf64_trainer fit = {.data = &p->some};
    for (ptrdiff_t i = 0; i < p->flow->net->net->n_w; i++) p->flow->net->net->w[i] *= larger;
    pf_status status = pf64_log_posterior(log_posterior, p->flow, &p->some, DRAWS, 7);
    CHECK(status == PF_DEGENERATE && strstr(pf_message(), "log p(y|x) is not known of 1 of 4 points"), "%s",
          pf_message());
    status = pf64_flow_calibrate(p->flow, NULL, &p->some, 7);
    CHECK(status == PF_DEGENERATE && strstr(pf_message(), "log p(y|x) is not known"), "%s", pf_message());
    CHECK(pf64_trainer_init(&fit, p->flow, &o, NET_ROWS, p->n_y, DRAWS) == PF_OK, "%s", pf_message());
    clear_gradient(&fit);
    fit.row[0] = 0;
    CHECK(!pf64_posterior(&fit, log_posterior, &likelihood, DRAWS, 1) && isnan(*log_posterior), "%s", pf_message());
    double *gradient = PF_ALLOC(double, p->flow->n_theta), sum = 0;
    memcpy(gradient, fit.gbase, (size_t)p->flow->n_theta * sizeof(double));
    clear_gradient(&fit);
    fit.weight[0] = fit.factor = 1;
    CHECK(!pf64_trainer_block(&fit, 0, 1, NULL), "%s", pf_message());
    for (ptrdiff_t i = 0; i < p->flow->n_theta; i++) {
        size += square(fit.gbase[i]);
        difference += square(fit.gbase[i] - gradient[i]);
    }
    CHECK(size > 0 && difference < 1e-20 * size, "%g of %g", difference, size);
    pf64_add_posterior(&fit, &sum, *log_posterior);
    pf64_add_posterior(&fit, &sum, 2);
    pf64_add_posterior(&fit, &sum, 4);
    CHECK(pf64_mean_posterior(&fit, sum) == 3 && strstr(told, "not known of 1 of 4 points"), "%s", told);
    told[0] = 0;
    pf64_add_posterior(&fit, &sum, 0);
    CHECK(pf64_mean_posterior(&fit, sum) == 6 && !told[0], "%s", told);
    free(gradient);
    pf64_trainer_clear(&fit);
}

static grid fine_line(problem *p, int i) { return (void)i, box_grid(p->flow, 400); }
static grid fine_square(problem *p, int i) { return (void)i, box_grid(p->flow, 80); }
static grid around_peak(problem *p, int i) { return peak_grid(p->flow, p->some.x + i * PIXELS); }

static int always(void *user) { return (void)user, 1; }

/* Loops over fields that no thread pool interrupts: a check of the caller's is heard at every field. */
static void test_interrupts(void)
{
    enum { FIELDS = 3, PSI = 3, FILTER = 8 };
    static double x[FIELDS * PIXELS];
    double y[FIELDS] = {0, 1, 2}, theta[2 * FILTER], mean = NAN, centre, scale;
    ptrdiff_t counts[FIELDS] = {2, 2, 2};
    pf64_data data = {.x = x, .y = y, .n = FIELDS, .n_y = 1};
    pf64_flow *f;
    pf_symmetric_options o;
    pf_symmetric_defaults(&o);
    o.filter_knots = FILTER;
    pf_normals(x, 51, 0, 0, FIELDS * PIXELS);
    CHECK(!pf64_flow_new(&f, 2, (ptrdiff_t[]){SIDE, SIDE}, (double[]){1, 1}, 0), "%s", pf_message());
    CHECK(!pf64_flow_add_symmetric(f, PSI, FILTER), "%s", pf_message());
    const pf64_filter *filter = f->mesh->filter;
    pf64_start s = {.flow = f, .mesh = f->mesh, .mu_knots = 1, .o = &o, .n = FIELDS, .x = x};
    s.power = PF_ALLOC(double, filter->shells);
    s.position = PF_ALLOC(double, FILTER);
    s.work = PF_ALLOC(double, filter->work);
    for (int on = 0; on < 2; on++) {
        pf_status heard[4], expected = on ? PF_INTERRUPTED : PF_OK;
        for (int i = 0; i < 4; i++) {
            pf_set_interrupt(on ? always : NULL, NULL);
            usleep(60000); /* it is asked every 50 ms, at most */
            if (i == 0) heard[i] = pf64_check_points(&data, f, NULL, 1, "train");
            if (i == 1) heard[i] = pf64_standard(&centre, &scale, f, &data, NULL);
            if (i == 2) heard[i] = pf64_start_filter(theta, &s, 0);
            if (i == 3) heard[i] = tempered(&mean, x, x + PIXELS, counts, 1, FIELDS);
            CHECK(heard[i] == expected, "loop %d: %d", i, (int)heard[i]);
        }
    }
    pf_set_interrupt(NULL, NULL);
    CHECK(isfinite(mean), "%g", mean);
    free(s.power), free(s.position), free(s.work);
    pf64_flow_free(f);
}

int main(void)
{
    problem *p = PF_ALLOC(problem, 1);
    if (!p) return 1;
    pf_set_num_threads(1);
    fit_problem(p, 1, 0, 1);
    test_frozen(p, 1);
    measure(p, fine_line, 4, 8, 127, 1, (accuracy){.bias = 0.01, .error = 0.04, .slope_error = 0.1});
    measure(p, fine_line, 4, 8, 127, 0.4, (accuracy){.bias = 0.01, .error = 0.04, .slope_error = 0.03});
    pf64_flow_free(p->flow);
    fit_problem(p, 2, 0, 1);
    test_frozen(p, 0.4);
    measure(p, fine_square, 3, 8, 127, 1, (accuracy){.bias = 0.03, .error = 0.1, .slope_error = 0.15});
    test_unknown(p);
    pf64_flow_free(p->flow);
    fit_problem(p, 1, 1, 1); /* y and -y are alike: what is there of two peaks takes more draws to find */
    test_frozen(p, 1);
    measure(p, fine_line, 4, 16, 127, 1, (accuracy){.bias = 0.15, .error = 0.5, .slope_error = 0.4});
    measure(p, fine_line, 4, 16, 383, 1, (accuracy){.bias = 0.04, .error = 0.14, .slope_error = 0.15});
    pf64_flow_free(p->flow);
    fit_problem(p, 2, 1, 1); /* and more beside another condition */
    measure(p, fine_square, 3, 8, 1023, 1, (accuracy){.bias = 0.2, .error = 0.35, .slope_error = 0.2});
    pf64_flow_free(p->flow);
    fit_problem(p, 3, 0, 3.5);
    measure(p, around_peak, 2, 8, (int)pf_default_draws(3), 1,
            (accuracy){.bias = 0.03, .error = 0.08, .slope_error = 0.2});
    pf64_flow_free(p->flow);
    fit_problem(p, 4, 0, 2.5); /* posteriors fill some 1e-5 of the box */
    test_frozen(p, 1);
    measure(p, around_peak, 2, 8, (int)pf_default_draws(4), 1,
            (accuracy){.bias = 0.04, .error = 0.08, .slope_error = 0.15});
    pf64_flow_free(p->flow);
    CHECK(pf_default_draws(1) == DRAWS && pf_default_draws(2) == DRAWS && pf_default_draws(5000) < 65535, "%td",
          pf_default_draws(5000));
    test_choice();
    test_interrupts();
    free(p);
    if (!check_failures) puts("log p(y|x): all tests passed");
    return check_result();
}
