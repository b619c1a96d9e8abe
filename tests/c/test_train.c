/* Training of symmetric flows: known densities are reached, an interrupted fit goes on to the same bits, threads do not
 * matter, bad input is refused. */
#define _GNU_SOURCE
#include <unistd.h>

#include "check.h"
#include "train.h"

/* Gaussian fields with P(k) = amplitude / (1 + (k / 4)^2) (k in units of 2 pi / box), lognormal ones when sigma > 0; y
 * = log amplitude, uniform in [-1, 1], when it is asked for. Returns the exact log p of each. */
enum { SIDE = 24, FIELDS = 260, TRAIN = 200, PIXELS = SIDE * SIDE };

static void gaussian_fields(double *x, double *y, double *logp, double sigma)
{
    pf64_filter *f;
    ptrdiff_t n[2] = {SIDE, SIDE};
    double box[2] = {1, 1}, z[PIXELS], variance = 0, log_t = 0;
    CHECK(pf64_filter_new(&f, 2, n, box, -1) == PF_OK, "%s", pf_message());
    double *t = PF_ALLOC(double, f->shells), *spectrum = PF_ALLOC(double, f->fft->spectrum),
           *work = PF_ALLOC(double, f->work);
    for (ptrdiff_t s = 0; s < f->shells; s++) {
        double k = f->k[s] / (8 * M_PI), power = 1 / (1 + k * k);
        t[s] = sqrt(power);
        log_t += f->modes[s] * log(t[s]);
        variance += f->modes[s] * power / PIXELS;
    }
    for (int i = 0; i < FIELDS; i++) {
        double *field = x + i * PIXELS, scale = sigma > 0 ? sigma / sqrt(variance) : 1;
        if (y) {
            uint32_t word[4];
            pf_philox(word, 1, 2, (uint64_t)i);
            y[i] = word[0] * 0x1p-31 - 1;
            scale *= exp(0.5 * y[i]);
        }
        pf_normals(z, 11, (uint64_t)i, 0, PIXELS);
        logp[i] = -0.5 * (pf64_sum_squares(z, PIXELS) + PIXELS * PF_LOG_2PI) - log_t - PIXELS * log(scale);
        pf64_filter_apply(f, field, spectrum, z, t, work);
        for (int j = 0; j < PIXELS; j++) {
            field[j] *= scale;
            if (sigma > 0) {
                logp[i] -= field[j];
                field[j] = exp(field[j]);
            }
        }
    }
    free(t), free(spectrum), free(work);
    pf64_filter_free(f);
}

static int stop_at_two(void *user, const pf_progress *p)
{
    *(ptrdiff_t *)user = p->step;
    return p->step == 2;
}

/* The flow reaches the exact density of Gaussian and lognormal fields, with and without a condition, and of the latter
 * the derivative in the condition; its samples have the variance of the fields. */
static void test_fit(double sigma, int conditional)
{
    static double x[FIELDS * PIXELS], sample[TRAIN * PIXELS];
    double y[FIELDS], exact[FIELDS], logp[FIELDS], score[FIELDS];
    gaussian_fields(x, conditional ? y : NULL, exact, sigma);
    pf64_data train = {.x = x, .y = conditional ? y : NULL, .n = TRAIN, .n_y = conditional},
              validate = {.x = x + TRAIN * PIXELS, .y = conditional ? y + TRAIN : NULL, .n = 60, .n_y = conditional};
    pf64_flow *flow = NULL;
    pf_symmetric_options o;
    pf_symmetric_defaults(&o);
    o.n_layers = 2;
    o.filter_knots = 16;
    o.train.hidden[0] = o.train.hidden[1] = 32;
    o.train.epochs = conditional ? 40 : 12;
    o.train.learning_rate = 3e-3;
    pf_status status = pf64_symmetric_fit(&flow, &train, &validate, 2, (ptrdiff_t[]){SIDE, SIDE}, (double[]){1, 1}, &o);
    CHECK(status == PF_OK, "%s", pf_message());
    CHECK(pf64_flow_logp(flow, logp, validate.x, validate.y, NULL, 60) == PF_OK, "%s", pf_message());
    double short_of = 0, slope_error = 0, ratio[2] = {0};
    for (int i = 0; i < 60; i++) short_of += (exact[TRAIN + i] - logp[i]) / 60 / PIXELS;
    CHECK(short_of < 0.006 && short_of > -0.006, "sigma %g, conditional %d: %g nats per pixel", sigma, conditional,
          short_of);
    CHECK(pf64_flow_sample(flow, sample, NULL, train.y, NULL, 3, 0, TRAIN) == PF_OK, "%s", pf_message());
    for (int i = 0; i < TRAIN * PIXELS; i++) {
        ratio[0] += log(1e-3 + x[i] * x[i]);
        ratio[1] += log(1e-3 + sample[i] * sample[i]);
    }
    CHECK(fabs(ratio[1] - ratio[0]) < 0.05 * TRAIN * PIXELS, "%g", (ratio[1] - ratio[0]) / (TRAIN * PIXELS));
    if (conditional &&
        !(sigma > 0)) { /* log p = -q / 2 exp(-y) - PIXELS y / 2: the score is right to the noise of a few fields */
        CHECK(pf64_flow_score_parameters(flow, score, NULL, validate.x, validate.y, 60) == PF_OK, "%s", pf_message());
        for (int i = 0; i < 60; i++) slope_error += score[i] * score[i] / 60; /* its variance is PIXELS / 2 */
        CHECK(slope_error > 0.6 * PIXELS / 2 && slope_error < 1.8 * PIXELS / 2, "%g", slope_error);
    }
    if (conditional) { /* the likelihood is right, or nearly: there is little to temper */
        double gain[2], t;
        CHECK(pf64_flow_calibrate(flow, gain, &validate, 1) == PF_OK, "%s", pf_message());
        t = pf64_flow_temperature(flow);
        CHECK(t > 0.6 && t < 1.7 && gain[1] >= gain[0] && gain[1] > 1, "temperature %g, gain %g %g", t, gain[0],
              gain[1]);
    }
    pf64_flow_free(flow);
}

static void count_up(void *user, pf_status status, const char *message)
{
    ++*(int *)user;
    CHECK(status == PF_IO_ERROR && strstr(message, "/nowhere"), "%d: %s", status, message);
}

/* The callback counts down, then stops the fit. */
static int count_down(void *user, const pf_progress *p)
{
    (void)p;
    return !--*(int *)user;
}

/* A fit that is interrupted after every report, and goes on, is bit for bit the one that was not. */
static void test_resume(const pf32_data *train, const pf32_data *validate, pf_symmetric_options o)
{
    pf32_flow *whole, *part;
    ptrdiff_t n[2] = {SIDE, SIDE};
    double box[2] = {1, 1}, noise_k[2] = {1, 100}, noise_power[2] = {0.1, 0.001};
    char path[] = "/tmp/pyflow-test-XXXXXX";
    void *bytes[2];
    size_t size[2];
    int left, parts = 0, fd = mkstemp(path);
    CHECK(fd >= 0, "no temporary file");
    close(fd);
    remove(path);
    o.train.noise_k = noise_k;
    o.train.noise_power = noise_power;
    o.train.noise_knots = 2;
    CHECK(pf32_symmetric_fit(&whole, train, validate, 2, n, box, &o) == PF_OK, "%s", pf_message());
    o.train.watch.checkpoint = path;
    o.train.watch.progress = count_down;
    o.train.watch.user = &left;
    for (pf_status status = PF_INTERRUPTED; status == PF_INTERRUPTED; parts++) {
        o.train.checkpoint_seconds = parts % 2 ? 0 : 1e9;
        left = 1;
        status = pf32_symmetric_fit(&part, train, validate, 2, n, box, &o);
        CHECK((status == PF_INTERRUPTED || !status) && part, "%d %s", status, pf_message());
        CHECK(pf32_flow_unfinished(part) == (status != PF_OK), "%d", status);
        if (status) pf32_flow_free(part);
    }
    CHECK(parts == 7, "%d", parts); /* four looks at the first stage, two at the second, and the end */
    CHECK(pf32_flow_write(whole, bytes, size) == PF_OK, "%s", pf_message());
    CHECK(pf32_flow_write(part, bytes + 1, size + 1) == PF_OK, "%s", pf_message());
    CHECK(size[0] == size[1] && !memcmp(bytes[0], bytes[1], size[0]), "the resumed fit is another");
    pf_free(bytes[0]);
    pf_free(bytes[1]);
    pf32_flow_free(part);
    left = 100; /* the file is still that of the last interruption */
    o.n_layers = 3;
    CHECK(pf32_symmetric_fit(&part, train, validate, 2, n, box, &o) == PF_BAD_ARGUMENT && !part, "%s", pf_message());
    CHECK(strstr(pf_message(), "another fit"), "%s", pf_message());
    o.n_layers = 2;
    CHECK(pf32_flow_save(whole, path) == PF_OK, "%s", pf_message());
    CHECK(pf32_symmetric_fit(&part, train, validate, 2, n, box, &o) == PF_OK && left == 100, "%s", pf_message());
    pf32_flow_free(part);
    CHECK(pf32_flow_load(&part, path) == PF_OK, "%s", pf_message());
    remove(path);
    CHECK(pf32_flow_train(part, train, validate, &o.train) == PF_OK && left < 100, "%s", pf_message());
    pf32_flow_free(part);
    pf32_flow_free(whole);
    o.train.watch.checkpoint = "/nowhere/at/all";
    o.train.checkpoint_seconds = 0;
    int warnings = 0;
    o.train.watch.progress = NULL;
    o.train.watch.warn = count_up;
    o.train.watch.user = &warnings;
    CHECK(pf32_symmetric_fit(&part, train, validate, 2, n, box, &o) == PF_OK && warnings == 6, "%d %s", warnings,
          pf_message());
    pf32_flow_free(part);
}

/* The network's first weights are numbers that no sample of the same seed is made of. */
static void test_first_weights(const pf32_data *train, pf_symmetric_options o)
{
    pf32_flow *flow;
    o.train.epochs = 0;
    o.train.posterior_weight = 0;
    o.train.noise_condition = 0;
    CHECK(pf32_symmetric_fit(&flow, train, NULL, 2, (ptrdiff_t[]){SIDE, SIDE}, (double[]){1, 1}, &o) == PF_OK, "%s",
          pf_message());
    for (uint64_t row = 0; row < 10; row++) {
        double z;
        pf_normals(&z, o.train.seed, row, 0, 1);
        CHECK(fabs(sqrt(0.5) * (double)flow->net->net->w[0] - z) > 1e-6, "%g is that of row %d", z, (int)row);
    }
    CHECK(flow->net->net->w[0] != 0, "no weights");
    pf32_flow_free(flow);
}

/* The same fit with one thread and three, bit for bit; interrupted, it is the best so far; bad input is refused. */
static void test_fit_laws(void)
{
    static double x[FIELDS * PIXELS];
    static float x32[FIELDS * PIXELS];
    double y[FIELDS], exact[FIELDS], p[2][FIELDS];
    ptrdiff_t n[2] = {SIDE, SIDE}, reached = 0;
    double box[2] = {1, 1};
    gaussian_fields(x, y, exact, 0);
    for (int i = 0; i < FIELDS * PIXELS; i++) x32[i] = (float)x[i];
    pf32_data train = {.x = x32, .y = y, .n = 60, .n_y = 1},
              validate = {.x = x32 + 60 * PIXELS, .y = y + 60, .n = 20, .n_y = 1};
    pf_symmetric_options o;
    pf_symmetric_defaults(&o);
    o.n_layers = 2;
    o.filter_knots = 12;
    o.train.hidden[0] = o.train.hidden[1] = 20;
    o.train.epochs = 3;
    o.train.batch = 40;
    o.train.noise[1] = 0.1;
    o.train.posterior_weight = 1;
    o.train.posterior_epochs = 1;
    for (int noise = 0; noise < 2; noise++) {
        o.train.noise_condition = noise;
        double y2[2 * FIELDS];
        for (int i = 0; i < FIELDS; i++) y2[2 * i] = y[i], y2[2 * i + 1] = 0.05;
        for (int t = 0; t < 2; t++) {
            pf32_flow *flow = NULL;
            pf_set_num_threads(t ? 3 : 1);
            CHECK(pf32_symmetric_fit(&flow, &train, &validate, 2, n, box, &o) == PF_OK, "%s", pf_message());
            CHECK(pf32_flow_logp(flow, p[t], x32, noise ? y2 : y, NULL, 50) == PF_OK, "%s", pf_message());
            pf32_flow_free(flow);
        }
        CHECK(!memcmp(p[0], p[1], 50 * sizeof(double)), "threads change the fit: %g", p[0][0] - p[1][0]);
    }
    pf_set_num_threads(0);
    test_resume(&train, &validate, o);
    test_first_weights(&train, o);
    pf32_flow *flow = NULL;
    o.train.watch.progress = stop_at_two;
    o.train.watch.user = &reached;
    CHECK(pf32_symmetric_fit(&flow, &train, &validate, 2, n, box, &o) == PF_INTERRUPTED && flow && reached == 2, "%td",
          reached);
    pf32_flow_free(flow);
    o.train.watch.progress = NULL;
    o.train.learning_rate = 1e3;
    CHECK(pf32_symmetric_fit(&flow, &train, &validate, 2, n, box, &o) == PF_DEGENERATE && flow, "%s", pf_message());
    if (!flow) return;
    double at[2] = {y[0], 0.05}; /* and the noise: the start is what is left */
    CHECK(pf32_flow_logp(flow, p[0], x32, at, NULL, 1) == PF_OK && fabs(p[0][0] - exact[0]) < 0.5 * PIXELS,
          "%g, not %g", p[0][0], exact[0]);
    pf32_flow_free(flow);
    o.train.learning_rate = 1e-3;
    for (int i = 0; i < FIELDS; i++) y[i] = 2;
    CHECK(pf32_symmetric_fit(&flow, &train, NULL, 2, n, box, &o) == PF_BAD_ARGUMENT && strstr(pf_message(), "column 0"),
          "%s", pf_message());
    box[1] = 0;
    CHECK(pf32_symmetric_fit(&flow, &train, NULL, 2, n, box, &o) == PF_BAD_ARGUMENT, "%s", pf_message());
    box[1] = 1;
    o.train.posterior_weight = 0;
    o.train.noise_condition = 0;
    for (int i = 0; i < FIELDS * PIXELS; i++) x32[i] = 3;
    train.y = NULL;
    train.n_y = 0;
    o.train.noise[1] = 0;
    CHECK(pf32_symmetric_fit(&flow, &train, NULL, 2, n, box, &o) == PF_DEGENERATE && strstr(pf_message(), "constant"),
          "%s", pf_message());
}

int main(void)
{
    test_fit(0, 0);
    test_fit(0.8, 0);
    test_fit(0, 1);
    test_fit(0.8, 1);
    test_fit_laws();
    if (!check_failures) puts("training: all tests passed");
    return check_result();
}
