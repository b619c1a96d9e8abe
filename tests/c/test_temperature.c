/* log p(y|x) of a flow, and the temperature of posteriors, against integrals over a fine grid and the exact density. */
#include "check.h"
#include "train.h"

/* Gaussian fields with log P(k) = y_0 + y_1 log(k / 6), y uniform in [-1, 1]^2: their posterior is known. */
enum { SIDE_P = 32, PIXELS_P = SIDE_P * SIDE_P, FIELDS_P = 440, TRAIN_P = 400, HELD_P = FIELDS_P - TRAIN_P };

static double log_power(double k, const double *y) { return y[0] + y[1] * log(fmax(k / (2 * M_PI), 1) / 6); }

/* log of the mean of exp(b log_p[n][n]) over the square; log p at the best point is taken off first. */
static double log_mean(const double *log_p, double b, ptrdiff_t n)
{
    double most = -INFINITY, sum = 0;
    for (ptrdiff_t i = 0; i < n * n; i++) most = fmax(most, log_p[i]);
    for (ptrdiff_t i = 0; i < n * n; i++) sum += exp(b * (log_p[i] - most)) / (double)(n * n);
    return b * most + log(sum);
}

/* The flow's log p(y|x), as fine-tuning and calibration estimate it, against the integral of its log p(x|y) on a fine
 * grid: at the true y; at the y of other fields, far out in the tails; and with b. And against the exact one. */
static void test_posterior(void)
{
    enum { GRID = 64, FINE = 128, SOME = 12 };
    static double x[FIELDS_P * PIXELS_P], grid[GRID * GRID][2], log_p[SOME][GRID * GRID], exact[GRID * GRID],
        fine[FINE * FINE][2], fine_p[4][FINE * FINE];
    double y[FIELDS_P][2], far[SOME][2], z[PIXELS_P], estimate[SOME], at_y[SOME], gain[2];
    pf64_filter *f;
    CHECK(pf64_filter_new(&f, 2, (ptrdiff_t[]){SIDE_P, SIDE_P}, (double[]){1, 1}, -1) == PF_OK, "%s", pf_message());
    double *t = PF_ALLOC(double, f->shells), *power = PF_ALLOC(double, f->shells),
           *spectrum = PF_ALLOC(double, f->fft->spectrum), *work = PF_ALLOC(double, f->work);
    for (int i = 0; i < FIELDS_P; i++) {
        uint32_t word[4];
        pf_philox(word, 21, 2, (uint64_t)i);
        for (int j = 0; j < 2; j++) y[i][j] = word[j] * 0x1p-31 - 1;
        for (ptrdiff_t s = 0; s < f->shells; s++) t[s] = exp(0.5 * log_power(f->k[s], y[i]));
        pf_normals(z, 22, (uint64_t)i, 0, PIXELS_P);
        pf64_filter_apply(f, x + i * PIXELS_P, spectrum, z, t, work);
    }
    pf64_flow *flow = NULL;
    pf_symmetric_options o;
    pf_symmetric_defaults(&o);
    o.n_layers = 1;
    o.filter_knots = 12;
    o.train.hidden[0] = o.train.hidden[1] = 32;
    o.train.epochs = 40;
    o.train.learning_rate = 3e-3;
    pf64_data train = {.x = x, .y = y[0], .n = TRAIN_P, .n_y = 2},
              held = {.x = x + TRAIN_P * PIXELS_P, .y = y[TRAIN_P], .n = HELD_P, .n_y = 2},
              some = {.x = held.x, .y = held.y, .n = SOME, .n_y = 2},
              wrong = {.x = held.x, .y = far[0], .n = SOME, .n_y = 2};
    CHECK(pf64_symmetric_fit(&flow, &train, NULL, 2, (ptrdiff_t[]){SIDE_P, SIDE_P}, (double[]){1, 1}, &o) == PF_OK,
          "%s", pf_message());
    const double *range = pf64_flow_range(flow);
    for (int i = 0; i < GRID * GRID; i++) {
        grid[i][0] = range[0] + (i / GRID + 0.5) / GRID * (range[2] - range[0]);
        grid[i][1] = range[1] + (i % GRID + 0.5) / GRID * (range[3] - range[1]);
    }
    CHECK(pf64_flow_logp_at(flow, log_p[0], some.x, grid[0], SOME, GRID * GRID) == PF_OK, "%s", pf_message());
    for (int i = 0; i < SOME; i++)
        for (int j = 0; j < 2; j++) far[i][j] = held.y[2 * ((i + 5) % SOME) + j];
    for (int is_wrong = 0; is_wrong < 2; is_wrong++)
        for (int draws = 127; draws <= 383; draws += 256) {
            const pf64_data *at = is_wrong ? &wrong : &some;
            double mean = 0, square = 0;
            CHECK(pf64_log_posterior(estimate, flow, at, draws, 7) == PF_OK, "%s", pf_message());
            CHECK(pf64_flow_logp(flow, at_y, at->x, at->y, NULL, SOME) == PF_OK, "%s", pf_message());
            for (int i = 0; i < SOME; i++) {
                double error = estimate[i] - (at_y[i] - log_mean(log_p[i], 1, GRID));
                mean += error / SOME;
                square += error * error / SOME;
                if (is_wrong) CHECK(estimate[i] < -5, "%g", estimate[i]);
            }
            CHECK(fabs(mean) < (draws < 200 ? 0.05 : 0.02), "%d draws, %d: off by %g nats", draws, is_wrong, mean);
            CHECK(sqrt(square) < (draws < 200 ? 0.15 : 0.05), "%d draws, %d: off by %g nats", draws, is_wrong,
                  sqrt(square));
        }
    double short_of = 0; /* of the exact log p(y|x), the prior that of the training y's range */
    CHECK(pf64_flow_logp(flow, at_y, some.x, some.y, NULL, SOME) == PF_OK, "%s", pf_message());
    for (int i = 0; i < SOME; i++) {
        for (ptrdiff_t s = 0; s < f->shells; s++) power[s] = 0;
        pf64_filter_power(f, power, some.x + i * PIXELS_P, work);
        double truth = 0;
        for (int g = -1; g < GRID * GRID; g++) {
            double sum = 0;
            for (ptrdiff_t s = 0; s < f->shells; s++) {
                double l = log_power(f->k[s], g < 0 ? some.y + 2 * i : grid[g]);
                sum -= 0.5 * (f->modes[s] * l + power[s] / PIXELS_P * exp(-l));
            }
            if (g < 0) truth = sum;
            else exact[g] = sum;
        }
        short_of += (truth - log_mean(exact, 1, GRID) - at_y[i] + log_mean(log_p[i], 1, GRID)) / SOME;
    }
    CHECK(fabs(short_of) < 0.2, "%g nats", short_of);
    CHECK(pf64_flow_calibrate(flow, gain, &held, 1) == PF_OK, "%s", pf_message());
    double b = pf64_flow_temperature(flow);
    CHECK(b > 0.75 && b < 1.35, "temperature %g, gain %g %g", b, gain[0], gain[1]);
    CHECK(pf64_flow_calibrate(flow, gain, &some, 1) == PF_OK, "%s", pf_message());
    b = pf64_flow_temperature(flow);
    for (int c = 0; c < 4; c++) { /* gain[0] at b = 1, gain[1] at b, and no better nearby */
        double mean = 0, at = c < 2 ? (c ? b : 1) : b * (c > 2 ? 1.1 : 1 / 1.1);
        for (int i = 0; i < SOME; i++) mean += (at * at_y[i] - log_mean(log_p[i], at, GRID)) / SOME;
        if (c < 2) CHECK(fabs(gain[c] - mean) < 0.03, "b = %g: %g, not %g", at, gain[c], mean);
        else CHECK(mean < gain[1] + 0.01, "b = %g: %g, and %g at %g", b, gain[1], mean, at);
    }
    /* posteriors that peak elsewhere, by a few of their widths: the temperature is low, and as the grid has it */
    for (int i = 0; i < SOME; i++)
        for (int j = 0; j < 2; j++) far[i][j] = 0.9 * some.y[2 * i + j] + (i % 2 ? 0.1 : -0.1);
    CHECK(pf64_flow_calibrate(flow, gain, &wrong, 1) == PF_OK, "%s", pf_message());
    b = pf64_flow_temperature(flow);
    CHECK(pf64_flow_logp(flow, at_y, wrong.x, wrong.y, NULL, SOME) == PF_OK, "%s", pf_message());
    double best[2] = {-INFINITY, 0};
    for (double at = b / 4; at < 4 * b; at *= 1.05) {
        double mean = 0;
        for (int i = 0; i < SOME; i++) mean += (at * at_y[i] - log_mean(log_p[i], at, GRID)) / SOME;
        if (mean > best[0]) best[0] = mean, best[1] = at;
    }
    CHECK(b < 0.5 && fabs(log(b / best[1])) < 0.1 && fabs(gain[1] - best[0]) < 0.03, "b = %g: %g, not %g: %g", b,
          gain[1], best[1], best[0]);
    /* posteriors piled up in the corners of the prior's box: they peak outside it */
    double corner[4][2];
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 2; j++) corner[i][j] = i >> j & 1 ? 1.05 : -1.05;
        for (ptrdiff_t s = 0; s < f->shells; s++) t[s] = exp(0.5 * log_power(f->k[s], corner[i]));
        pf_normals(z, 23, (uint64_t)i, 0, PIXELS_P);
        pf64_filter_apply(f, x + i * PIXELS_P, spectrum, z, t, work);
        for (int j = 0; j < 2; j++) corner[i][j] *= 0.9;
    }
    for (int i = 0; i < FINE * FINE; i++) {
        fine[i][0] = range[0] + (i / FINE + 0.5) / FINE * (range[2] - range[0]);
        fine[i][1] = range[1] + (i % FINE + 0.5) / FINE * (range[3] - range[1]);
    }
    pf64_data corners = {.x = x, .y = corner[0], .n = 4, .n_y = 2};
    CHECK(pf64_flow_logp_at(flow, fine_p[0], x, fine[0], 4, FINE * FINE) == PF_OK, "%s", pf_message());
    CHECK(pf64_flow_logp(flow, at_y, x, corner[0], NULL, 4) == PF_OK, "%s", pf_message());
    CHECK(pf64_log_posterior(estimate, flow, &corners, 255, 7) == PF_OK, "%s", pf_message());
    for (int i = 0; i < 4; i++) {
        double on_grid = at_y[i] - log_mean(fine_p[i], 1, FINE);
        CHECK(fabs(estimate[i] - on_grid) < 0.2, "corner %d: %g, not %g", i, estimate[i], on_grid);
    }
    free(t), free(power), free(spectrum), free(work);
    pf64_filter_free(f);
    pf64_flow_free(flow);
}

int main(void)
{
    test_posterior();
    if (!check_failures) puts("temperature: all tests passed");
    return check_result();
}
