/* SIG through the C interface, in both precisions: the schedule, options that are refused, fits of many shapes,
 * interruption. Run under the sanitizers, where what the Python tests cannot see shows. */
#ifndef real
#include "check.h"
#include "small.h"

/* What the schedule should be: sizes of patches, the first of them the whole image. */
static void check_schedule(const ptrdiff_t *image, const ptrdiff_t *sizes, ptrdiff_t n_sizes)
{
    pf_sig_stage stages[64];
    ptrdiff_t n = pf_sig_schedule(stages, image), at = 0, colour = image[2] > 1;
    for (ptrdiff_t i = 0; i < n_sizes && at < n; i++)
        for (int one = 0; one <= (colour && sizes[i] <= 8); one++, at++) {
            pf_sig_stage s = stages[at];
            ptrdiff_t size = s.kernel[0] * s.kernel[1] * s.kernel[2], slices = (one ? 1 : 2) * sizes[i];
            CHECK(s.kernel[0] == (i ? sizes[i] : image[0]) && s.kernel[1] == (i ? sizes[i] : image[1]) &&
                      s.kernel[2] == (one ? 1 : image[2]),
                  "entry %td of (%td, %td, %td): kernel (%td, %td, %td)", at, image[0], image[1], image[2], s.kernel[0],
                  s.kernel[1], s.kernel[2]);
            CHECK(s.slices == PF_MIN(slices, size), "entry %td: %td slices", at, s.slices);
            CHECK(s.layers == (colour && !one ? 200 : 100), "entry %td: %td layers", at, s.layers);
        }
    CHECK(at == n, "%td of %td entries for (%td, %td, %td)", at, n, image[0], image[1], image[2]);
}

static void test_schedule(void)
{
    check_schedule((ptrdiff_t[]){28, 28, 1}, (ptrdiff_t[]){28, 14, 7, 6, 5, 4, 3, 2}, 8);
    check_schedule((ptrdiff_t[]){32, 32, 3}, (ptrdiff_t[]){32, 16, 8, 7, 6, 5, 4, 3, 2}, 9);
    check_schedule((ptrdiff_t[]){64, 64, 3}, (ptrdiff_t[]){64, 32, 16, 8, 7, 6, 5, 4, 3, 2}, 10);
    check_schedule((ptrdiff_t[]){7, 5, 3}, (ptrdiff_t[]){5, 4, 3, 2}, 4);
    check_schedule((ptrdiff_t[]){1, 9, 1}, (ptrdiff_t[]){1}, 1);
    check_schedule((ptrdiff_t[]){2, 2, 1}, (ptrdiff_t[]){2}, 1);
    check_schedule((ptrdiff_t[]){1, 1, 4}, (ptrdiff_t[]){1}, 1);
    for (ptrdiff_t side = 1; side < 100000; side += 1 + side / 7) {
        pf_sig_stage stages[64];
        ptrdiff_t n = pf_sig_schedule(stages, (ptrdiff_t[]){side, side, 3});
        CHECK(n > 0 && n <= 64 && stages[n - 1].kernel[0] == PF_MIN(side, 2), "%td entries for %td", n, side);
    }
}

typedef struct {
    ptrdiff_t calls, layers, rows, stop_at;
    int bits;
} heard;

static int hear(void *user, ptrdiff_t layers, const void *x, int bits, ptrdiff_t n)
{
    heard *h = user;
    h->calls++, h->layers = layers, h->rows = n, h->bits = bits;
    for (ptrdiff_t i = 0; i < n * 24; i++)
        CHECK(isfinite(bits == 32 ? ((const float *)x)[i] : ((const double *)x)[i]), "number %td of a sample", i);
    return layers == h->stop_at;
}

#define TWICE "test_sig.c"
#include "twice.h"

int main(void)
{
    int fd = mkstemp(small_checkpoint);
    if (fd < 0 || close(fd)) return perror(small_checkpoint), 1;
    test_schedule();
    pf32_test();
    pf64_test();
    unlink(small_checkpoint);
    return check_result();
}

#else

/* A call that is refused, for a reason that names what is wrong, and leaves the flow alone */
static void X(refused)(const pf_sig_options *o, ptrdiff_t d, const char *reason)
{
    X(flow) *flow = NULL;
    X(data) train = {.x = X(small).field, .n = SMALL_IMAGES};
    pf_status status = X(sig_fit)(&flow, &train, d, o);
    CHECK(status == PF_BAD_ARGUMENT && !flow && strstr(pf_message(), reason) == pf_message(), "%d: %s, not %s", status,
          pf_message(), reason);
    X(flow_free)(flow);
}

static void X(test_refusals)(void)
{
    static const ptrdiff_t images[][3] = {
        {4, 3, 1}, {4, 3, 3}, {-4, -3, 2}, {4, 0, 2}, {1, 0, 0}, {1 << 30, 1 << 30, 1}, {4, 3, -2}, {24, 1, 0}};
    static const pf_sig_stage wrong[] = {{1, {5, 2, 2}, 2}, {1, {2, 4, 2}, 2}, {1, {2, 2, 3}, 2},  {1, {2, 0, 2}, 2},
                                         {1, {2, 2, 1}, 5}, {1, {2, 2, 1}, 0}, {-1, {2, 2, 1}, 1}, {1, {-2, 2, 1}, 1}};
    pf_sig_options o;
    for (size_t i = 0; i < sizeof images / sizeof *images; i++) {
        X(small_sig_options)(&o, 1);
        memcpy(o.image, images[i], sizeof o.image);
        X(refused)(&o, 24, "image_shape");
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        X(small_sig_options)(&o, 1);
        o.stages = wrong + i, o.n_stages = 1;
        X(refused)(&o, 24, "schedule");
    }
    X(small_sig_options)(&o, 1);
    o.n_stages = 65;
    X(refused)(&o, 24, "schedule");
    memset(o.image, 0, sizeof o.image);
    o.n_stages = 2;
    X(refused)(&o, 24, "schedule");
    for (const pf_option *list = pf_sig_list; list->name; list++) {
        if (list->kind != PF_SIZE) continue;
        X(small_sig_options)(&o, 1);
        *(ptrdiff_t *)((char *)&o + list->offset) = -2;
        X(refused)(&o, 24, list->name);
    }
    X(small_sig_options)(&o, 1);
    o.n_classes = 2;
    X(refused)(&o, 24, "labels_train");
    o.n_classes = -1;
    X(refused)(&o, 24, "n_classes");
    o.n_classes = 0;
    X(refused)(&o, 0, "data_train");
}

static void X(test_fits)(void)
{
    for (int images = 0; images < 2; images++) {
        X(flow) *flow = NULL;
        CHECK(!X(small_sig)(&flow, images), "%s", pf_message());
        enum { N = 20 };
        ptrdiff_t d = X(flow_dim)(flow);
        real *x = PF_ALLOC(real, N * d), *z = PF_ALLOC(real, N * d);
        double logp[N], again[N];
        const int32_t *label = images ? NULL : X(small).label;
        CHECK(!X(flow_sample)(flow, x, logp, NULL, label, 1, 0, N), "%s", pf_message());
        CHECK(!X(flow_logp)(flow, again, x, NULL, label, N), "%s", pf_message());
        CHECK(!X(flow_forward)(flow, z, NULL, x, NULL, label, N), "%s", pf_message());
        CHECK(!X(flow_inverse)(flow, z, NULL, z, NULL, label, N), "%s", pf_message());
        for (ptrdiff_t i = 0; i < N; i++)
            CHECK(fabs(logp[i] - again[i]) < (REAL_BITS == 32 ? 0.3 : 1e-6), "log p %g, %g", logp[i], again[i]);
        for (ptrdiff_t i = 0; i < N * d; i++)
            CHECK(fabs((double)(z[i] - x[i])) < (REAL_BITS == 32 ? 0.02 : 1e-7), "%g comes back as %g", x[i], z[i]);
        free(x), free(z);
        X(flow_free)(flow);
    }
}

/* Stopped by whoever is shown the sample: at the start with nothing, later with the layers that there are. */
static void X(test_stopping)(void)
{
    X(data) train = {.x = X(small).field, .n = SMALL_IMAGES};
    for (ptrdiff_t stop_at = -1; stop_at <= 2; stop_at++) {
        heard h = {.stop_at = stop_at};
        X(flow) *flow = NULL;
        pf_sig_options o;
        X(small_sig_options)(&o, 1);
        o.watch.user = &h;
        o.watch.warn = NULL;
        o.show = hear;
        o.show_rows = 7;
        unlink(small_checkpoint);
        pf_status status = X(sig_fit)(&flow, &train, 24, &o);
        CHECK(status == (stop_at < 0 ? PF_OK : PF_INTERRUPTED), "%d: %s", status, pf_message());
        CHECK(h.calls == (stop_at < 0 ? 3 : stop_at + 1) && h.rows == 7 && h.bits == REAL_BITS,
              "%td calls with %td rows of %d bits", h.calls, h.rows, h.bits);
        ptrdiff_t layers = flow ? X(flow_layers)(flow) : 0;
        CHECK(layers == (stop_at < 0 ? 3 : stop_at ? 1 + stop_at : 0), "stopped at %td: %td layers", stop_at, layers);
        X(flow_free)(flow);
        flow = NULL;
        CHECK(stop_at < 1 || (!X(flow_load)(&flow, small_checkpoint) && X(flow_layers)(flow) == layers), "%s",
              pf_message());
        X(flow_free)(flow);
    }
}

static void X(test)(void)
{
    X(small_fill)();
    X(test_refusals)();
    X(test_fits)();
    X(test_stopping)();
}
#endif
