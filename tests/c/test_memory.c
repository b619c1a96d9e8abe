/* Every allocation that every public call makes fails in turn, alone or with all after it: the call says PF_NO_MEMORY,
 * leaks nothing, leaves the library as it was, and hands out nothing, unless it is a fit that has something to save. */
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

static unsigned char *checkpoint; /* of an unfinished fit */
static size_t n_checkpoint;

static void put_checkpoint(void)
{
    FILE *f = fopen(small_checkpoint, "wb");
    CHECK(f && fwrite(checkpoint, 1, n_checkpoint, f) == n_checkpoint && !fclose(f), "%s", small_checkpoint);
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

/* What calls are given to work on; and what they make. */
static X(model) *X(plain), *X(labelled);
static X(symflow) *X(flow), *X(flow_y);
static void *X(bytes)[4];
static size_t X(n_bytes)[4];

typedef struct {
    X(model) *model;
    X(symflow) *flow;
    void *bytes;
} X(made);

static void X(drop)(X(made) *m)
{
    X(model_free)(m->model);
    X(symflow_free)(m->flow);
    pf_free(m->bytes);
    *m = (X(made)){0};
}

/* ---- the calls to try ---- */

#define D X(small)
enum { X(ROWS) = SMALL_ROWS, X(MAPS) = SMALL_FIELDS };

static pf_status X(fit)(X(made) *m) { return X(small_gis)(&m->model, 0); }
static pf_status X(fit_labelled)(X(made) *m) { return X(small_gis)(&m->model, 1); }
static pf_status X(fit_more)(X(made) *m)
{
    X(model) *model = NULL;
    pf_status status = X(model_copy)(&model, X(plain), 3);
    if (status) return status;
    const X(model) *before = model;
    status = X(small_gis_more)(&model);
    CHECK(!status || model == before, "the model that a fit goes on from was lost");
    if (status) X(model_free)(model);
    else m->model = model;
    return status;
}
static pf_status X(forward)(X(made) *m) { return (void)m, X(model_forward)(X(plain), D.z, D.log, D.x, NULL, X(ROWS)); }
static pf_status X(inverse)(X(made) *m) { return (void)m, X(model_inverse)(X(plain), D.z, D.log, D.x, NULL, X(ROWS)); }
static pf_status X(logp)(X(made) *m) { return (void)m, X(model_logp)(X(labelled), D.log, D.x, D.label, X(ROWS)); }
static pf_status X(score)(X(made) *m)
{
    return (void)m, X(model_score)(X(labelled), D.z, D.log, D.x, D.label, X(ROWS));
}
static pf_status X(sample)(X(made) *m) { return (void)m, X(model_sample)(X(plain), D.z, D.log, NULL, 1, 0, X(ROWS)); }
static pf_status X(copy)(X(made) *m) { return X(model_copy)(&m->model, X(labelled), X(model_layers)(X(labelled))); }
static pf_status X(note)(X(made) *m) { return (void)m, X(model_set_note)(X(plain), "\"a note\""); }
static pf_status X(write)(X(made) *m)
{
    size_t n;
    return X(model_write)(X(labelled), &m->bytes, &n);
}
static pf_status X(read)(X(made) *m) { return X(model_read)(&m->model, X(bytes)[0], X(n_bytes)[0]); }
static pf_status X(read_labelled)(X(made) *m) { return X(model_read)(&m->model, X(bytes)[1], X(n_bytes)[1]); }
static pf_status X(save)(X(made) *m) { return (void)m, X(model_save)(X(plain), small_checkpoint); }
static pf_status X(load)(X(made) *m) { return X(model_load)(&m->model, small_checkpoint); }

static pf_status X(sym_fit)(X(made) *m) { return X(small_sym)(&m->flow, 2, small_mesh[0]); }
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
    put_checkpoint();
    return X(small_sym_y)(&m->flow, SMALL_WHOLE);
}
static const double *X(y3)(void) /* two numbers and the noise, for every field */
{
    static double y[3 * SMALL_FIELDS];
    for (int i = 0; i < 3 * SMALL_FIELDS; i++) y[i] = i % 3 < 2 ? D.y[i / 3 * 2 + i % 3] : 0.1;
    return y;
}
static pf_status X(sym_f)(X(made) *m)
{
    return (void)m, X(symflow_forward)(X(flow), D.out, D.log, D.field, NULL, X(MAPS));
}
static pf_status X(sym_i)(X(made) *m)
{
    return (void)m, X(symflow_inverse)(X(flow_y), D.out, D.log, D.field, X(y3)(), X(MAPS));
}
static pf_status X(sym_p)(X(made) *m) { return (void)m, X(symflow_logp)(X(flow_y), D.log, D.field, X(y3)(), X(MAPS)); }
static pf_status X(sym_at)(X(made) *m)
{
    return (void)m, X(symflow_logp_at)(X(flow_y), D.log, D.field, X(y3)(), 2, X(MAPS));
}
static pf_status X(sym_s)(X(made) *m)
{
    return (void)m, X(symflow_score)(X(flow_y), D.out, D.log, D.field, X(y3)(), X(MAPS));
}
static pf_status X(sym_sy)(X(made) *m)
{
    return (void)m, X(symflow_score_parameters)(X(flow_y), D.log + 9, D.log, D.field, X(y3)(), X(MAPS));
}
static pf_status X(sym_x)(X(made) *m)
{
    return (void)m, X(symflow_sample)(X(flow_y), D.out, D.log, X(y3)(), 1, 0, X(MAPS));
}
static pf_status X(sym_calibrate)(X(made) *m)
{
    pf_status status = X(symflow_copy)(&m->flow, X(flow_y));
    X(fields) held_out = {D.field, D.y, 2};
    if (!status) status = X(symflow_calibrate)(m->flow, NULL, &held_out, 1);
    if (status) X(drop)(m);
    return status;
}
static pf_status X(sym_copy)(X(made) *m) { return X(symflow_copy)(&m->flow, X(flow_y)); }
static pf_status X(sym_note)(X(made) *m) { return (void)m, X(symflow_set_note)(X(flow), "\"a note\""); }
static pf_status X(sym_write)(X(made) *m)
{
    size_t n;
    return X(symflow_write)(X(flow_y), &m->bytes, &n);
}
static pf_status X(sym_read)(X(made) *m) { return X(symflow_read)(&m->flow, X(bytes)[2], X(n_bytes)[2]); }
static pf_status X(sym_read_y)(X(made) *m) { return X(symflow_read)(&m->flow, X(bytes)[3], X(n_bytes)[3]); }
static pf_status X(sym_read_unfinished)(X(made) *m) { return X(symflow_read)(&m->flow, checkpoint, n_checkpoint); }
static pf_status X(sym_save)(X(made) *m) { return (void)m, X(symflow_save)(X(flow_y), small_checkpoint); }
static pf_status X(sym_load)(X(made) *m) { return X(symflow_load)(&m->flow, small_checkpoint); }
static pf_status X(wisdom_save)(X(made) *m) { return (void)m, pf_fft_wisdom_save(small_checkpoint); }
static pf_status X(wisdom_load)(X(made) *m) { return (void)m, pf_fft_wisdom_load(small_checkpoint); }

static const struct {
    const char *name;
    pf_status (*call)(X(made) *);
    int keeps;     /* blocks that stay with the library: plans */
    int hands_out; /* the best flow so far, when it fails */
} X(calls)[] = {
    {"fit", X(fit), 0, 0},
    {"fit with labels, weights, bounds, validation, note and checkpoint", X(fit_labelled), 0, 0},
    {"fit that goes on from a model, working copy in a file", X(fit_more), 0, 0},
    {"forward", X(forward), 0, 0},
    {"inverse", X(inverse), 0, 0},
    {"log p", X(logp), 0, 0},
    {"score", X(score), 0, 0},
    {"sample", X(sample), 0, 0},
    {"copy", X(copy), 0, 0},
    {"note", X(note), 0, 0},
    {"write", X(write), 0, 0},
    {"read", X(read), 0, 0},
    {"read with labels", X(read_labelled), 0, 0},
    {"save", X(save), 0, 0},
    {"load", X(load), 0, 0},
    {"symmetric fit", X(sym_fit), 0, 1},
    {"symmetric fit to a new mesh", X(sym_fit_new_mesh), 1, 1},
    {"symmetric fit, stopped", X(sym_fit_stopped), 0, 1},
    {"symmetric fit, resumed", X(sym_fit_resumed), 0, 1},
    {"symmetric forward", X(sym_f), 0, 0},
    {"symmetric inverse", X(sym_i), 0, 0},
    {"symmetric log p", X(sym_p), 0, 0},
    {"symmetric log p at many y", X(sym_at), 0, 0},
    {"symmetric score", X(sym_s), 0, 0},
    {"symmetric score of y", X(sym_sy), 0, 0},
    {"symmetric sample", X(sym_x), 0, 0},
    {"symmetric calibrate", X(sym_calibrate), 0, 0},
    {"symmetric copy", X(sym_copy), 0, 0},
    {"symmetric note", X(sym_note), 0, 0},
    {"symmetric write", X(sym_write), 0, 0},
    {"symmetric read", X(sym_read), 0, 0},
    {"symmetric read with y", X(sym_read_y), 0, 0},
    {"symmetric read, unfinished", X(sym_read_unfinished), 0, 0},
    {"symmetric save", X(sym_save), 0, 0},
    {"symmetric load", X(sym_load), 0, 0},
    {"wisdom save", X(wisdom_save), 0, 0},
    {"wisdom load", X(wisdom_load), 0, 0},
};
#undef D

/* ---- what holds after each ---- */

/* A density that was computed before anything failed is computed again, the same bits. */
static void X(check_usable)(double expected[2], const char *name, ptrdiff_t k)
{
    double got[2];
    pf_status status = X(model_logp)(X(plain), got, X(small).x, NULL, 1);
    if (!status) status = X(symflow_logp)(X(flow_y), got + 1, X(small).field, X(y3)(), 1);
    CHECK(!status && !memcmp(got, expected, sizeof got), "float%d %s, allocation %td: the library afterwards: %s",
          REAL_BITS, name, k, pf_message());
}

static void X(check_handed_out)(const X(symflow) *flow, const char *name, ptrdiff_t k)
{
    double logp = NAN;
    pf_status status = X(symflow_logp)(flow, &logp, X(small).field, X(symflow_conditions)(flow) ? X(y3)() : NULL, 1);
    CHECK(!status && isfinite(logp), "float%d %s, allocation %td: log p = %g, %s", REAL_BITS, name, k, logp,
          pf_message());
}

static void X(try)(size_t c, int fail_on)
{
    const char *name = X(calls)[c].name;
    double expected[2];
    X(made) made = {0};
    X(model_logp)(X(plain), expected, X(small).x, NULL, 1);
    X(symflow_logp)(X(flow_y), expected + 1, X(small).field, X(y3)(), 1);
    int blas_threads = openblas_get_num_threads();
    counts.calls++;
    CHECK(!X(calls)[c].call(&made), "float%d %s: %s", REAL_BITS, name, pf_message());
    X(drop)(&made);
    for (ptrdiff_t k = 0;; k++) {
        ptrdiff_t blocks = allocator.blocks;
        allocator.calls = allocator.failed = 0;
        allocator.fail_on = fail_on;
        allocator.fail_at = k;
        pf_status status = X(calls)[c].call(&made);
        allocator.fail_at = -1;
        if (!allocator.failed) {
            CHECK(!status, "float%d %s: %s", REAL_BITS, name, pf_message());
            X(drop)(&made);
            break;
        }
        counts.injected++;
        CHECK(status == PF_NO_MEMORY, "float%d %s, allocation %td: status %d, %s", REAL_BITS, name, k, status,
              pf_message());
        CHECK(*pf_message(), "float%d %s, allocation %td: no message", REAL_BITS, name, k);
        CHECK(!made.model && !made.bytes && (!made.flow || X(calls)[c].hands_out),
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

static void X(test)(void)
{
    X(small_fill)();
    unlink(small_checkpoint);
    X(symflow) *stopped = NULL;
    CHECK(X(small_sym_y)(&stopped, SMALL_STOPPED) == PF_INTERRUPTED, "%s", pf_message());
    CHECK(!X(symflow_write)(stopped, (void **)&checkpoint, &n_checkpoint), "%s", pf_message());
    X(symflow_free)(stopped);
    unlink(small_checkpoint);
    CHECK(!X(small_gis)(&X(plain), 0) && !X(small_gis)(&X(labelled), 1), "%s", pf_message());
    unlink(small_checkpoint);
    CHECK(!X(small_sym)(&X(flow), 2, small_mesh[0]) && !X(small_sym_y)(&X(flow_y), SMALL_WHOLE), "%s", pf_message());
    CHECK(!X(model_write)(X(plain), X(bytes), X(n_bytes)), "%s", pf_message());
    CHECK(!X(model_write)(X(labelled), X(bytes) + 1, X(n_bytes) + 1), "%s", pf_message());
    CHECK(!X(symflow_write)(X(flow), X(bytes) + 2, X(n_bytes) + 2), "%s", pf_message());
    CHECK(!X(symflow_write)(X(flow_y), X(bytes) + 3, X(n_bytes) + 3), "%s", pf_message());
    for (size_t c = 0; c < sizeof X(calls) / sizeof *X(calls); c++)
        for (int fail_on = 0; fail_on <= 1; fail_on++) X(try)(c, fail_on);
    for (int i = 0; i < 4; i++) pf_free(X(bytes)[i]);
    pf_free(checkpoint);
    X(model_free)(X(plain)), X(model_free)(X(labelled));
    X(symflow_free)(X(flow)), X(symflow_free)(X(flow_y));
}
#endif
