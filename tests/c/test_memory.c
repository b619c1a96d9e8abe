/* Every allocation that every public call makes fails in turn, alone or with all after it: the call says PF_NO_MEMORY,
 * leaks nothing, leaves the library as it was, and hands out nothing, unless it is a fit that has something to save: a
 * flow whose tables are those of its parameters. Training that comes to nothing leaves the flow as it was. */
#ifndef real
#define _GNU_SOURCE
#include <unistd.h>

#include "allocator.h"
#include "blas.h"
#include "check.h"
#include "small.h"

int openblas_get_num_threads(void);

static struct {
    const char *name;
    ptrdiff_t injected, calls;
} counts;

static struct {
    unsigned char *bytes;
    size_t n;
} unfinished[2]; /* a symmetric fit, training of a flow by hand */

static void put_checkpoint(int i)
{
    FILE *f = fopen(small_checkpoint, "wb");
    CHECK(f && fwrite(unfinished[i].bytes, 1, unfinished[i].n, f) == unfinished[i].n && !fclose(f), "%s",
          small_checkpoint);
}

#define TWICE "test_memory.c"
#include "twice.h"

int main(void)
{
    int fd = mkstemp(small_checkpoint);
    if (fd < 0 || close(fd)) return perror(small_checkpoint), 1;
    pf_set_num_threads(2);
    pf32_test();
    pf64_test();
    unlink(small_checkpoint);
    printf("%td calls with %td failures\n", counts.calls, counts.injected);
    return check_result();
}

#else

/* What calls are given to work on: by GIS, the same with labels, by hand for rows and for fields, symmetric, the same
 * with y, fields by hand trained with y, of images by SIG; and their bytes. */
enum { X(GIS), X(LABELLED), X(TABLE), X(MIXED), X(SYM), X(SYM_Y), X(MIXED_Y), X(IMAGES), X(TABLE_Y), X(FLOWS) };
static X(flow) *X(flows)[X(FLOWS)];
static void *X(bytes)[X(FLOWS)];
static size_t X(n_bytes)[X(FLOWS)];

typedef struct {
    X(flow) *flow;
    void *bytes;
} X(made);

static void X(drop)(X(made) *m)
{
    X(flow_free)(m->flow);
    pf_free(m->bytes);
    *m = (X(made)){0};
}

/* ---- the calls to try ---- */

#define D X(small)
#define F(name) X(flows)[X(name)]
enum { X(ROWS) = SMALL_ROWS, X(MAPS) = SMALL_FIELDS };

static pf_status X(fit)(X(made) *m) { return X(small_gis)(&m->flow, 0); }
static pf_status X(fit_labelled)(X(made) *m) { return X(small_gis)(&m->flow, 1); }
static pf_status X(fit_more)(X(made) *m)
{
    X(flow) *flow = NULL;
    PF_TRY(X(flow_copy)(&flow, F(GIS), 3));
    pf_status status = X(small_gis_more)(&flow);
    CHECK(flow, "the flow that a fit goes on from was lost");
    m->flow = flow;
    return status;
}
static pf_status X(sym_fit)(X(made) *m) { return X(small_sym)(&m->flow, 2, small_mesh[0]); }
static pf_status X(band_fit)(X(made) *m) { return X(small_sym)(&m->flow, 3, small_mesh[1]); }
static pf_status X(sym_fit_new_mesh)(X(made) *m)
{
    static ptrdiff_t calls; /* plans of a mesh are made once: another mesh every time */
    ptrdiff_t mesh[2] = {2 + calls % 6, 2 + calls / 6 % 39};
    calls++;
    return X(small_sym)(&m->flow, 2, mesh);
}
static pf_status X(sym_fit_stopped)(X(made) *m)
{
    unlink(small_checkpoint);
    pf_status status = X(small_sym_y)(&m->flow, SMALL_STOPPED);
    return status == PF_INTERRUPTED ? PF_OK : status;
}
static pf_status X(sym_fit_resumed)(X(made) *m)
{
    put_checkpoint(0);
    return X(small_sym_y)(&m->flow, SMALL_WHOLE);
}

static pf_status X(fit_sig)(X(made) *m) { return X(small_sig)(&m->flow, 0); }
static pf_status X(fit_images)(X(made) *m) { return X(small_sig)(&m->flow, 1); }
static pf_status X(fit_more_images)(X(made) *m)
{
    X(flow) *flow = NULL;
    PF_TRY(X(flow_copy)(&flow, F(IMAGES), X(flow_layers)(F(IMAGES))));
    pf_status status = X(small_sig_more)(&flow);
    CHECK(flow, "the flow that a fit goes on from was lost");
    m->flow = flow;
    return status;
}

static pf_status X(by_hand)(X(made) *m) { return X(small_table)(&m->flow); }
static pf_status X(by_hand_patches)(X(made) *m) { return X(small_patches)(&m->flow); }
static pf_status X(by_hand_y)(X(made) *m) { return X(small_autoregressive)(&m->flow); }
static pf_status X(by_hand_mixed)(X(made) *m) { return X(small_mixed)(&m->flow); }

/* A flow to train, when nothing fails yet; the call is the training alone. */
static pf_status X(train_table)(X(made) *m) { return X(small_train_table)(m->flow); }
static pf_status X(train_mixed)(X(made) *m)
{
    unlink(small_checkpoint);
    return X(small_train_mixed)(m->flow, SMALL_WHOLE);
}
static pf_status X(train_resumed)(X(made) *m)
{
    put_checkpoint(1);
    return X(small_train_mixed)(m->flow, SMALL_WHOLE);
}
static pf_status X(calibrate)(X(made) *m)
{
    X(data) held_out = {.x = D.field, .n = 2, .y = D.y, .n_y = SMALL_Y};
    return X(flow_calibrate)(m->flow, NULL, &held_out, 1);
}
static pf_status X(calibrate_mixture)(X(made) *m)
{
    X(flow) *const flows[2] = {F(MIXED_Y), F(MIXED_Y)};
    X(members) others = {.n = 2, .flow = flows, .weight = (double[]){1, 2, 3}};
    X(data) held_out = {.x = D.field, .n = 2, .y = D.y, .n_y = SMALL_Y};
    double found[4];
    return X(flow_calibrate_mixture)(m->flow, &others, found, &held_out, NULL, INFINITY, 1);
}
static pf_status X(note)(X(made) *m) { return X(flow_set_note)(m->flow, "\"a note\""); }
static pf_status X(add_layers)(X(made) *m)
{
    PF_TRY(X(flow_add_sliced)(m->flow, 1, 3, 5));
    PF_TRY(X(flow_add_affine)(m->flow, NULL, NULL));
    return X(flow_add_scale)(m->flow, 0, 1);
}

static pf_status X(f)(X(made) *m) { return (void)m, X(flow_forward)(F(GIS), D.z, D.log, D.x, NULL, NULL, X(ROWS)); }
static pf_status X(i)(X(made) *m) { return (void)m, X(flow_inverse)(F(GIS), D.z, D.log, D.x, NULL, NULL, X(ROWS)); }
static pf_status X(p)(X(made) *m) { return (void)m, X(flow_logp)(F(LABELLED), D.log, D.x, NULL, D.label, X(ROWS)); }
static pf_status X(s)(X(made) *m) { return (void)m, X(flow_score)(F(TABLE), D.z, D.log, D.x, NULL, D.label, X(ROWS)); }
static pf_status X(x)(X(made) *m)
{
    return (void)m, X(flow_sample)(F(TABLE), D.z, D.log, NULL, D.label, 1, 0, X(ROWS));
}
static pf_status X(sym_f)(X(made) *m)
{
    return (void)m, X(flow_forward)(F(SYM), D.out, D.log, D.field, NULL, NULL, X(MAPS));
}
static pf_status X(sym_i)(X(made) *m)
{
    return (void)m, X(flow_inverse)(F(MIXED_Y), D.out, D.log, D.field, X(small_y3)(), NULL, X(MAPS));
}
static pf_status X(sym_p)(X(made) *m)
{
    return (void)m, X(flow_logp)(F(MIXED_Y), D.log, D.field, X(small_y3)(), NULL, X(MAPS));
}
static pf_status X(sym_at)(X(made) *m)
{
    return (void)m, X(flow_logp_at)(F(MIXED_Y), D.log, D.field, X(small_y3)(), 2, X(MAPS));
}
static pf_status X(sym_s)(X(made) *m)
{
    return (void)m, X(flow_score)(F(SYM_Y), D.out, D.log, D.field, X(small_y3)(), NULL, X(MAPS));
}
static pf_status X(sym_sy)(X(made) *m)
{
    return (void)m, X(flow_score_parameters)(F(MIXED_Y), D.log + 9, D.log, D.field, X(small_y3)(), X(MAPS));
}
static pf_status X(table_sy)(X(made) *m)
{
    return (void)m, X(flow_score_parameters)(F(TABLE_Y), D.gy, D.log, D.x, D.y, X(MAPS));
}
static pf_status X(sym_x)(X(made) *m)
{
    return (void)m, X(flow_sample)(F(SYM_Y), D.out, D.log, X(small_y3)(), NULL, 1, 0, X(MAPS));
}

static pf_status X(copy)(X(made) *m) { return X(flow_copy)(&m->flow, F(LABELLED), X(flow_layers)(F(LABELLED))); }
static pf_status X(copy_y)(X(made) *m) { return X(flow_copy)(&m->flow, F(MIXED_Y), X(flow_layers)(F(MIXED_Y))); }
static pf_status X(copy_part)(X(made) *m) { return X(flow_copy)(&m->flow, F(MIXED_Y), 3); }
static pf_status X(copy_table_y)(X(made) *m) { return X(flow_copy)(&m->flow, F(TABLE_Y), 2); }
static pf_status X(write)(X(made) *m)
{
    size_t n;
    return X(flow_write)(F(LABELLED), &m->bytes, &n);
}
static pf_status X(write_y)(X(made) *m)
{
    size_t n;
    return X(flow_write)(F(MIXED_Y), &m->bytes, &n);
}
static pf_status X(read)(X(made) *m) { return X(flow_read)(&m->flow, X(bytes)[X(GIS)], X(n_bytes)[X(GIS)]); }
static pf_status X(read_table)(X(made) *m) { return X(flow_read)(&m->flow, X(bytes)[X(TABLE)], X(n_bytes)[X(TABLE)]); }
static pf_status X(read_sym)(X(made) *m) { return X(flow_read)(&m->flow, X(bytes)[X(SYM)], X(n_bytes)[X(SYM)]); }
static pf_status X(read_y)(X(made) *m) { return X(flow_read)(&m->flow, X(bytes)[X(MIXED_Y)], X(n_bytes)[X(MIXED_Y)]); }
static pf_status X(read_table_y)(X(made) *m)
{
    return X(flow_read)(&m->flow, X(bytes)[X(TABLE_Y)], X(n_bytes)[X(TABLE_Y)]);
}
static pf_status X(read_unfinished)(X(made) *m) { return X(flow_read)(&m->flow, unfinished[1].bytes, unfinished[1].n); }
static pf_status X(save)(X(made) *m) { return (void)m, X(flow_save)(F(SYM_Y), small_checkpoint); }
static pf_status X(load)(X(made) *m) { return X(flow_load)(&m->flow, small_checkpoint); }
static pf_status X(wisdom_save)(X(made) *m) { return (void)m, pf_fft_wisdom_save(small_checkpoint); }
static pf_status X(wisdom_load)(X(made) *m) { return (void)m, pf_fft_wisdom_load(small_checkpoint); }

static const struct {
    const char *name;
    pf_status (*call)(X(made) *);
    int keeps;     /* blocks that stay with the library: plans */
    int hands_out; /* the best flow so far, when it fails */
    int given;     /* 1 + the flow that it is given a copy of, and changes */
} X(calls)[] = {
    {"fit", X(fit), 0, 1, 0},
    {"fit with labels, weights, bounds, validation, note and checkpoint", X(fit_labelled), 0, 1, 0},
    {"fit that goes on from a flow, working copy in a file", X(fit_more), 0, 1, 0},
    {"SIG with labels, weights, bounds, note, checkpoint and callback", X(fit_sig), 0, 1, 0},
    {"SIG of images", X(fit_images), 0, 1, 0},
    {"SIG that goes on from a flow, data and sample in files", X(fit_more_images), 0, 1, 0},
    {"symmetric fit", X(sym_fit), 0, 1, 0},
    {"symmetric fit of a range of modes", X(band_fit), 0, 1, 0},
    {"symmetric fit to a new mesh", X(sym_fit_new_mesh), 1, 1, 0},
    {"symmetric fit, stopped", X(sym_fit_stopped), 0, 1, 0},
    {"symmetric fit, resumed", X(sym_fit_resumed), 0, 1, 0},
    {"layers by hand", X(by_hand), 0, 0, 0},
    {"layers by hand, for images", X(by_hand_patches), 0, 0, 0},
    {"layers by hand, for rows with y", X(by_hand_y), 0, 0, 0},
    {"layers by hand, for fields", X(by_hand_mixed), 0, 0, 0},
    {"training with labels, weights and a frozen layer", X(train_table), 0, 1, 1 + X(TABLE)},
    {"training of layers of both layouts, with y and a checkpoint", X(train_mixed), 0, 1, 1 + X(MIXED)},
    {"training, resumed", X(train_resumed), 0, 1, 1 + X(MIXED)},
    {"calibrate", X(calibrate), 0, 1, 1 + X(MIXED_Y)},
    {"calibrate a mixture", X(calibrate_mixture), 0, 1, 1 + X(MIXED_Y)},
    {"note", X(note), 0, 1, 1 + X(GIS)},
    {"more layers", X(add_layers), 0, 1, 1 + X(GIS)},
    {"forward", X(f), 0, 0, 0},
    {"inverse", X(i), 0, 0, 0},
    {"log p", X(p), 0, 0, 0},
    {"score", X(s), 0, 0, 0},
    {"sample", X(x), 0, 0, 0},
    {"forward, fields", X(sym_f), 0, 0, 0},
    {"inverse, fields", X(sym_i), 0, 0, 0},
    {"log p, fields", X(sym_p), 0, 0, 0},
    {"log p at many y", X(sym_at), 0, 0, 0},
    {"score, fields", X(sym_s), 0, 0, 0},
    {"score of y", X(sym_sy), 0, 0, 0},
    {"score of y, rows", X(table_sy), 0, 0, 0},
    {"sample, fields", X(sym_x), 0, 0, 0},
    {"copy", X(copy), 0, 0, 0},
    {"copy with y", X(copy_y), 0, 0, 0},
    {"copy of the first layers", X(copy_part), 0, 0, 0},
    {"copy of the first layers, rows with y", X(copy_table_y), 0, 0, 0},
    {"write", X(write), 0, 0, 0},
    {"write with y", X(write_y), 0, 0, 0},
    {"read", X(read), 0, 0, 0},
    {"read with labels", X(read_table), 0, 0, 0},
    {"read, rows with y", X(read_table_y), 0, 0, 0},
    {"read, symmetric", X(read_sym), 0, 0, 0},
    {"read with y", X(read_y), 0, 0, 0},
    {"read, unfinished", X(read_unfinished), 0, 0, 0},
    {"save", X(save), 0, 0, 0},
    {"load", X(load), 0, 0, 0},
    {"wisdom, saved", X(wisdom_save), 0, 0, 0},
    {"wisdom, loaded", X(wisdom_load), 0, 0, 0},
};
#undef D
#undef F

/* ---- all of their failures ---- */

/* Log p of a point of what the flow is for */
static pf_status X(logp_of)(double *logp, const X(flow) *f)
{
    const real *x = X(flow_dim)(f) > SMALL_D ? X(small).field : X(small).x;
    return X(flow_logp)(f, logp, x, X(flow_conditions)(f) ? X(small_y3)() : NULL,
                        X(flow_classes)(f) ? X(small).label : NULL, 1);
}

static void X(check_usable)(const double *expected, const char *name, ptrdiff_t k)
{
    double got;
    for (int i = 0; i < X(FLOWS); i++) {
        pf_status status = X(logp_of)(&got, X(flows)[i]);
        CHECK(!status && got == expected[i], "float%d %s, allocation %td: the library afterwards: %s", REAL_BITS, name,
              k, pf_message());
    }
}

/* A flow that was handed out, or changed, is one whose log p is that of its parameters; and if training came to nothing
 * it is the flow that it was. */
static void X(check_handed_out)(const X(flow) *flow, const char *name, ptrdiff_t k)
{
    double logp = NAN, again = NAN;
    X(flow) *read = NULL;
    void *bytes = NULL;
    size_t n = 0;
    pf_status status = X(logp_of)(&logp, flow);
    CHECK(!status && isfinite(logp), "float%d %s, allocation %td: log p = %g, %s", REAL_BITS, name, k, logp,
          pf_message());
    CHECK(!X(flow_write)(flow, &bytes, &n) && !X(flow_read)(&read, bytes, n), "float%d %s, allocation %td: %s",
          REAL_BITS, name, k, pf_message());
    status = read ? X(logp_of)(&again, read) : PF_BAD_FILE;
    CHECK(!status && again == logp, "float%d %s, allocation %td: log p = %.17g, %.17g of its parameters", REAL_BITS,
          name, k, logp, again);
    X(flow_free)(read);
    pf_free(bytes);
}

static pf_status X(call)(size_t c, X(made) *made, ptrdiff_t fail_at, int fail_on)
{
    int given = X(calls)[c].given - 1;
    if (given >= 0)
        CHECK(!X(flow_copy)(&made->flow, X(flows)[given], X(flow_layers)(X(flows)[given])), "%s", pf_message());
    allocator.calls = allocator.failed = small_warned = 0;
    allocator.fail_on = fail_on;
    allocator.fail_at = fail_at;
    pf_status status = X(calls)[c].call(made);
    allocator.fail_at = -1;
    return status;
}

static void X(try)(size_t c, int fail_on)
{
    const char *name = X(calls)[c].name;
    double expected[X(FLOWS)];
    X(made) made = {0};
    for (int i = 0; i < X(FLOWS); i++) X(logp_of)(expected + i, X(flows)[i]);
    int blas_threads = openblas_get_num_threads();
    counts.calls++;
    CHECK(!X(call)(c, &made, -1, 0), "float%d %s: %s", REAL_BITS, name, pf_message());
    X(drop)(&made);
    for (ptrdiff_t k = 0;; k++) {
        ptrdiff_t blocks = allocator.blocks;
        pf_status status = X(call)(c, &made, k, fail_on);
        if (!allocator.failed) {
            CHECK(!status, "float%d %s: %s", REAL_BITS, name, pf_message());
            X(drop)(&made);
            break;
        }
        counts.injected++;
        CHECK(status == PF_NO_MEMORY || (!status && small_warned), "float%d %s, allocation %td: status %d, %s",
              REAL_BITS, name, k, status, pf_message());
        CHECK(!status || *pf_message(), "float%d %s, allocation %td: no message", REAL_BITS, name, k);
        CHECK(!made.bytes && (!made.flow || !status || X(calls)[c].hands_out),
              "float%d %s, allocation %td: something was handed out", REAL_BITS, name, k);
        if (made.flow) X(check_handed_out)(made.flow, name, k);
        X(drop)(&made);
        ptrdiff_t more = allocator.blocks - blocks;
        CHECK(more == 0 || (more > 0 && more <= X(calls)[c].keeps), "float%d %s, allocation %td: %td blocks leaked",
              REAL_BITS, name, k, more);
        X(check_usable)(expected, name, k);
        pf_set_num_threads(3); /* would have no effect in a call that has not ended */
        CHECK(pf_max_threads(100) == 3 && openblas_get_num_threads() == blas_threads,
              "float%d %s, allocation %td: %d and %d threads", REAL_BITS, name, k, pf_max_threads(100),
              openblas_get_num_threads());
        pf_set_num_threads(2);
    }
}

static void X(make_unfinished)(int i)
{
    X(flow) *flow = NULL;
    unlink(small_checkpoint);
    if (i) CHECK(!X(small_mixed)(&flow), "%s", pf_message());
    pf_status status = i ? X(small_train_mixed)(flow, SMALL_STOPPED) : X(small_sym_y)(&flow, SMALL_STOPPED);
    CHECK(status == PF_INTERRUPTED && X(flow_unfinished)(flow), "%s", pf_message());
    CHECK(!X(flow_write)(flow, (void **)&unfinished[i].bytes, &unfinished[i].n), "%s", pf_message());
    X(flow_free)(flow);
    unlink(small_checkpoint);
}

static void X(test)(void)
{
    X(flow) **f = X(flows);
    X(small_fill)();
    for (int i = 0; i < 2; i++) X(make_unfinished)(i);
    CHECK(!X(small_gis)(f + X(GIS), 0) && !X(small_gis)(f + X(LABELLED), 1), "%s", pf_message());
    CHECK(!X(small_table)(f + X(TABLE)) && !X(small_mixed)(f + X(MIXED)), "%s", pf_message());
    unlink(small_checkpoint);
    CHECK(!X(small_sym)(f + X(SYM), 2, small_mesh[0]) && !X(small_sym_y)(f + X(SYM_Y), SMALL_WHOLE), "%s",
          pf_message());
    unlink(small_checkpoint);
    CHECK(!X(small_mixed)(f + X(MIXED_Y)) && !X(small_train_mixed)(f[X(MIXED_Y)], SMALL_WHOLE), "%s", pf_message());
    CHECK(!X(small_sig)(f + X(IMAGES), 1) && !X(small_autoregressive)(f + X(TABLE_Y)), "%s", pf_message());
    for (int i = 0; i < X(FLOWS); i++)
        CHECK(f[i] && !X(flow_write)(f[i], X(bytes) + i, X(n_bytes) + i), "%s", pf_message());
    if (check_failures) return;
    for (size_t c = 0; c < sizeof X(calls) / sizeof *X(calls); c++)
        for (int fail_on = 0; fail_on <= 1; fail_on++) X(try)(c, fail_on);
    for (int i = 0; i < X(FLOWS); i++) {
        pf_free(X(bytes)[i]);
        X(flow_free)(f[i]);
    }
    for (int i = 0; i < 2; i++) pf_free(unfinished[i].bytes);
}
#endif
