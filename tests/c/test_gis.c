/* GIS through the C interface, in both precisions: fits of many shapes, evaluation, files cut short or altered,
 * interruption. Run under the sanitizers, where what the Python tests cannot see shows. */
#ifndef real
#include "check.h"
#include "file.h"

static int stop_at_3(void *user, const pf_progress *p) { return ++*(int *)user, p->step >= 3; }

static void test_normal(void)
{
    uint32_t w[4];
    pf_philox(w, 0, 0, 0);
    CHECK(w[0] == 0x6627e8d5 && w[1] == 0xe169c58d && w[2] == 0xbc57ac4c && w[3] == 0x9b00dbd8, "%x", w[0]);
    for (double x = -37; x < 8; x += 0.37) {
        double back = pf_normal_quantile(pf_normal_cdf(x));
        /* above 0, 1 - p carries p's rounding */
        double tolerance = x < 0 ? 1e-13 * fabs(x) + 1e-15 : 4e-16 / pf_normal_pdf(x);
        CHECK(fabs(back - x) < tolerance, "%g %g", x, back);
    }
    CHECK(pf_normal_quantile(0) == -INFINITY && pf_normal_quantile(1) == INFINITY, "ends");
    for (uint64_t i = 0; i < 1000; i++) CHECK(pf_uniform_int(1, 2, i, 3) < 3, "%d", (int)i);
}

static void test_bad_crc(void)
{
    /* CRC-64/WE, as catalogued, of "123456789" */
    CHECK(pf_crc64("123456789", 9) == 0x62ec59e3f1a4f00a, "%llx", (unsigned long long)pf_crc64("123456789", 9));
}

/* An interrupt check may be a signal's handler, which may do anything. */
static int change_threads(void *user)
{
    pf_set_num_threads(++*(int *)user % 2 ? 1 : 8);
    return 0;
}

static int changed_often(void *user, const pf_progress *p) { return (void)p, *(int *)user >= 20; }

#define TWICE "test_gis.c"
#include "twice.h"

int main(void)
{
    test_normal();
    test_bad_crc();
    pf32_test();
    pf64_test();
    return check_result();
}

#else

#define TOLERANCE (REAL_BITS == 32 ? 2e-3 : 1e-9)

static real *X(points)(ptrdiff_t n, ptrdiff_t d)
{
    real *x = PF_ALLOC(real, n * d);
    for (ptrdiff_t i = 0; i < n; i++) {
        double z[64];
        pf_normals(z, 11, (uint64_t)i, 0, d);
        for (ptrdiff_t j = 0; j < d; j++) x[i * d + j] = (real)(z[j] + (j ? 0.5 * z[0] * z[0] : 0));
    }
    return x;
}

static X(flow) *X(fit)(const real *x, const double *weight, const int32_t *label, ptrdiff_t n, ptrdiff_t d, int classes)
{
    pf_gis_options o;
    pf_gis_defaults(&o);
    o.max_layers = 3;
    o.n_classes = classes;
    X(data) train = {.x = x, .n = n, .weight = weight, .label = label};
    X(flow) *flow = NULL;
    CHECK(X(gis_fit)(&flow, &train, NULL, d, &o) == PF_OK, "%td x %td: %s", n, d, pf_message());
    return flow;
}

static void X(test_shapes)(void)
{
    static const ptrdiff_t shapes[][2] = {{2, 1}, {5, 2}, {100, 3}, {257, 17}, {1000, 1}, {700, 5}, {20, 30}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int classes = 0; classes <= 2; classes += 2) {
            ptrdiff_t n = shapes[s][0], d = shapes[s][1];
            real *x = X(points)(n, d), *z = PF_ALLOC(real, n * d), *back = PF_ALLOC(real, n * d);
            double *weight = PF_ALLOC(double, n), *logj = PF_ALLOC(double, 4 * n), worst = 0, worst_j = 0;
            double *minus = logj + n, *logp = logj + 2 * n, *sampled = logj + 3 * n;
            int32_t *label = PF_ALLOC(int32_t, n);
            for (ptrdiff_t i = 0; i < n; i++) weight[i] = (double)(1 + i % 3), label[i] = (int32_t)(i % 2);
            int32_t *used = classes ? label : NULL;
            X(flow) *flow = X(fit)(x, s % 2 ? weight : NULL, used, n, d, classes);
            CHECK(X(flow_forward)(flow, z, logj, x, NULL, used, n) == PF_OK, "%s", pf_message());
            CHECK(X(flow_inverse)(flow, back, minus, z, NULL, used, n) == PF_OK, "%s", pf_message());
            for (ptrdiff_t i = 0; i < n * d; i++) worst = fmax(worst, fabs((double)(back[i] - x[i])));
            for (ptrdiff_t i = 0; i < n; i++) worst_j = fmax(worst_j, fabs(logj[i] + minus[i]));
            CHECK(worst < TOLERANCE, "%td x %td: %g", n, d, worst);
            CHECK(worst_j < 10 * TOLERANCE * (double)d, "%td x %td: %g", n, d, worst_j);
            CHECK(X(flow_score)(flow, z, logp, x, NULL, used, n) == PF_OK, "%s", pf_message());
            CHECK(X(flow_sample)(flow, x, sampled, NULL, used, 5, 0, n) == PF_OK, "%s", pf_message());
            CHECK(X(flow_sample)(flow, z, NULL, NULL, used ? label + 1 : NULL, 5, 1, n - 1) == PF_OK, "%s",
                  pf_message());
            CHECK(!memcmp(z, x + d, (size_t)((n - 1) * d) * sizeof *z), "a row depends on where a sample starts");
            CHECK(X(flow_logp)(flow, logp, x, NULL, used, n) == PF_OK, "%s", pf_message());
            for (ptrdiff_t i = 0; i < n; i++) {
                /* a few rows leave gaps, which a map crosses so steeply that rounding moves the density */
                double off = fabs(logp[i] - sampled[i]);
                CHECK(n < 100 || off < 100 * TOLERANCE * (double)d, "%td x %td: %g", n, d, off);
            }
            X(flow_free)(flow);
            free(x), free(z), free(back), free(weight), free(logj), free(label);
        }
}

static void X(test_file)(void)
{
    real *x = X(points)(200, 3);
    X(flow) *flow = X(fit)(x, NULL, NULL, 200, 3, 0), *again = NULL;
    unsigned char *bytes, *second;
    size_t n, m;
    CHECK(X(flow_write)(flow, (void **)&bytes, &n) == PF_OK, "%s", pf_message());
    CHECK(pf_flow_bits(bytes, n) == REAL_BITS, "precision");
    CHECK(X(flow_read)(&again, bytes, n) == PF_OK, "%s", pf_message());
    CHECK(X(flow_write)(again, (void **)&second, &m) == PF_OK, "%s", pf_message());
    CHECK(m == n && !memcmp(bytes, second, n), "a flow read and written again is another");
    X(flow_free)(again);
    for (size_t cut = 0; cut < n; cut += cut < 64 ? 1 : n / 50 + 1)
        CHECK(X(flow_read)(&again, bytes, cut) == PF_BAD_FILE && !again, "cut to %zu bytes", cut);
    /* every altered byte is seen; with the check sum made good again, nothing worse than a refusal happens */
    for (size_t i = 0; i < n; i += i < 300 ? 1 : n / 200 + 1) {
        bytes[i] ^= 0x81;
        CHECK(X(flow_read)(&again, bytes, n) == PF_BAD_FILE && !again, "byte %zu altered", i);
        uint64_t crc = pf_crc64(bytes, n - 8);
        if (i < n - 8) memcpy(bytes + n - 8, &crc, 8);
        pf_status status = X(flow_read)(&again, bytes, n);
        CHECK(status == PF_OK || status == PF_BAD_FILE || status == PF_NO_MEMORY, "%d", status);
        if (!status) X(flow_logp)(again, (double[2]){0}, x, NULL, NULL, 2), X(flow_free)(again);
        again = NULL;
        bytes[i] ^= 0x81;
        memcpy(bytes + n - 8, second + n - 8, 8);
    }
    pf_free(bytes), pf_free(second), X(flow_free)(flow), free(x);
}

static void X(test_refusals)(void)
{
    real *x = X(points)(300, 2), keep;
    X(flow) *flow = NULL;
    X(data) train = {.x = x, .n = 300};
    pf_gis_options o;
    pf_gis_defaults(&o);
    CHECK(X(gis_fit)(&flow, &train, NULL, 2, &o) == PF_BAD_ARGUMENT && !flow, "no end to the layers");
    CHECK(strstr(pf_message(), "max_layers"), "%s", pf_message());
    o.max_layers = 5;
    keep = x[301], x[301] = (real)NAN;
    CHECK(X(gis_fit)(&flow, &train, NULL, 2, &o) == PF_BAD_ARGUMENT && !flow, "NaN");
    CHECK(strstr(pf_message(), "row 150, column 1 is NaN"), "%s", pf_message());
    x[301] = keep;
    for (int i = 0; i < 300; i++) x[2 * i + 1] = 4;
    CHECK(X(gis_fit)(&flow, &train, NULL, 2, &o) == PF_DEGENERATE && !flow, "constant");
    CHECK(strstr(pf_message(), "column 1"), "%s", pf_message());
    for (int i = 0; i < 300; i++) x[2 * i + 1] = x[(2 * i + 7) % 600 / 2 * 2];
    int told = 0;
    o.watch.progress = stop_at_3, o.watch.user = &told;
    CHECK(X(gis_fit)(&flow, &train, NULL, 2, &o) == PF_INTERRUPTED && flow, "%s", pf_message());
    CHECK(told >= 1 && flow && X(flow_layers)(flow) == 3, "told %d times", told);
    o.watch.progress = NULL;
    CHECK(X(gis_fit)(&flow, &train, NULL, 2, &o) == PF_OK, "%s", pf_message());
    CHECK(X(flow_layers)(flow) > 3, "going on added nothing");
    X(flow_free)(flow), free(x);
}

/* The scratch memory of a call is that of the threads it began with: seen under the address sanitizer. */
static void X(test_changing_the_number_of_threads)(void)
{
    enum { N = 20000, D = 5 };
    int changes = 0;
    real *x = X(points)(N, D);
    X(flow) *flow = NULL;
    X(data) train = {.x = x, .n = N};
    pf_gis_options o;
    pf_gis_defaults(&o);
    o.max_layers = 100000;
    o.watch.progress = changed_often, o.watch.user = &changes;
    pf_set_num_threads(1);
    pf_set_interrupt(change_threads, &changes);
    CHECK(X(gis_fit)(&flow, &train, NULL, D, &o) == PF_INTERRUPTED, "%s", pf_message());
    pf_set_interrupt(NULL, NULL);
    pf_set_num_threads(0);
    X(flow_free)(flow), free(x);
}

static void X(test)(void)
{
    X(test_shapes)();
    X(test_file)();
    X(test_refusals)();
    X(test_changing_the_number_of_threads)();
}
#undef TOLERANCE
#endif
