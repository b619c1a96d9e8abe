/* Made-up files: bytes of small flows of all kinds, cut, lengthened and altered, with the check sum made good again or
 * not. Each is refused with PF_BAD_FILE, or gives a flow that computes log p and samples; without a crash, a hang, or
 * more memory than the file accounts for. The number in a message makes the same file again:
 *
 *     build/tests/test_fuzz              # 4,000 files of each flow
 *     build/tests/test_fuzz 100000       # more
 *     build/tests/test_fuzz 0 NUMBER     # this one of each flow */
#ifndef real
#define _GNU_SOURCE
#include <signal.h>
#include <unistd.h>

#include "allocator.h"
#include "check.h"
#include "file.h"
#include "small.h"

enum {
    PER_BYTE = 64,        /* bytes that a reader may hold for each of the file, */
    AT_LEAST = 64 * 1024, /* and besides; */
    PER_NUMBER = 200,     /* and for each number of a point, which a file says in a few bytes, and so much again for */
    PER_TABLE = 16,       /* every layer. Files that say more numbers than this are left out: a large mesh is nothing */
    MOST_NUMBERS = 1 << 16, /* that a reader may refuse */
    EVALUATION = 64 << 20,  /* what a few rows may take */
    SECONDS = 20,           /* for one file */
};

static struct {
    const char *flow;
    uint64_t number;
    ptrdiff_t tried, read, resumed;
} now;

static uint64_t uniform(uint64_t *i, uint64_t bound) { return pf_uniform_int(now.number, 17, (*i)++, bound); }

static void hangs(int signal)
{
    (void)signal;
    printf("%s, file %llu takes more than %d seconds\n", now.flow, (unsigned long long)now.number, SECONDS);
    fflush(stdout);
    _exit(1);
}

/* ---- bytes altered ---- */

static const union {
    int64_t i;
    double d;
    float f[2];
} odd[] = {
    {.i = 0},
    {.i = 1},
    {.i = -1},
    {.i = 2},
    {.i = 3},
    {.i = 17},
    {.i = 1000},
    {.i = 65535},
    {.i = 1 << 20},
    {.i = 1 << 30},
    {.i = 1u << 31},
    {.i = (int64_t)1 << 40},
    {.i = INT64_MAX},
    {.i = INT64_MIN},
    {.i = (int64_t)1 << 61},
    {.d = NAN},
    {.d = INFINITY},
    {.d = -INFINITY},
    {.d = 1e300},
    {.d = -1e300},
    {.d = 1e-310},
    {.d = -1},
    {.d = 1e10},
    {.f = {NAN, NAN}},
    {.f = {INFINITY, 1}},
    {.f = {1, -INFINITY}},
    {.f = {3e38f, -3e38f}},
    {.f = {1e-40f, 0}},
    {.f = {-1, 1e10f}},
};
enum { ODD = sizeof odd / sizeof *odd };

static size_t body_of(const unsigned char *bytes) /* where the numbers begin, behind the JSON header */
{
    int64_t header;
    memcpy(&header, bytes + 24, sizeof header);
    return 32 + (size_t)header;
}

static void overwrite(unsigned char *bytes, size_t n, uint64_t *i)
{
    size_t at = body_of(bytes) + 4 * (size_t)uniform(i, (n - 16 - body_of(bytes)) / 4);
    memcpy(bytes + at, odd + uniform(i, ODD), 8);
}

/* A layer of another kind in place of one, of the same shape or, if told to, of none */
static void change_kind(unsigned char *bytes, size_t n, uint64_t *i)
{
    static const char kinds[][PF_SECTION_KIND] = {"columns", "scale",     "affine",        "sliced",
                                                  "patch",   "symmetric", "autoregressive"};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    size_t body = body_of(bytes), start = (size_t)uniform(i, n - body);
    for (size_t step = 0; step < n - body; step++) {
        size_t at = body + (start + step) % (n - body);
        for (int k = 0; k < KINDS && at + PF_SECTION_KIND + 8 <= n; k++) {
            if (memcmp(bytes + at, kinds[k], PF_SECTION_KIND)) continue;
            memcpy(bytes + at, kinds[uniform(i, KINDS)], PF_SECTION_KIND);
            if (uniform(i, 2)) memset(bytes + at + PF_SECTION_KIND, 0, 8);
            return;
        }
    }
}

/* bytes[*n], with room for 64 more, becomes file number now.number of this flow. Returns whether it may still be a
 * file: its check sum is right, and it is as long as it was. */
static int alter(unsigned char *bytes, size_t *n)
{
    uint64_t i = 0;
    size_t body = body_of(bytes), before = *n;
    int sealed = uniform(&i, 8) != 0;
    switch (uniform(&i, 9)) {
    case 0:
        *n = uniform(&i, 2) ? (size_t)uniform(&i, *n) : *n - (size_t)uniform(&i, 40);
        sealed &= *n >= 8;
        break;
    case 1:
        for (size_t more = 1 + (size_t)uniform(&i, 64); more; more--) bytes[(*n)++] = (unsigned char)uniform(&i, 256);
        break;
    case 2: bytes[uniform(&i, *n)] ^= (unsigned char)(1 + uniform(&i, 255)); break;
    case 3:
        for (int c = 0; c < 3; c++) bytes[body + uniform(&i, *n - body)] = (unsigned char)uniform(&i, 256);
        break;
    case 4: { /* a part in another's place */
        size_t length = 8 * (1 + (size_t)uniform(&i, 8)), room = *n - 8 - body - length;
        memmove(bytes + body + uniform(&i, room), bytes + body + uniform(&i, room), length);
        break;
    }
    case 5: change_kind(bytes, *n, &i); break;
    case 6: overwrite(bytes, *n, &i); /* fall through */
    default: overwrite(bytes, *n, &i);
    }
    if (sealed) {
        uint64_t crc = pf_crc64(bytes, *n - 8);
        memcpy(bytes + *n - 8, &crc, 8);
    }
    return sealed && *n == before;
}

#define TWICE "test_fuzz.c"
#include "twice.h"

int main(int argc, char **argv)
{
    uint64_t files = argc > 1 ? strtoull(argv[1], NULL, 10) : 4000, only = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    int fd = mkstemp(small_checkpoint);
    if (fd < 0 || close(fd)) return perror(small_checkpoint), 1;
    signal(SIGALRM, hangs);
    allocator.refused_above = (size_t)1 << 28;
    pf_set_num_threads(1);
    pf32_test(files, only);
    pf64_test(files, only);
    unlink(small_checkpoint);
    printf("%td files, of which %td were read; training went on from %td\n", now.tried, now.read, now.resumed);
    CHECK(only || now.read > now.tried / 20, "hardly any file is still one: nothing was tried");
    CHECK(only || now.resumed, "training went on from no file");
    return check_result();
}

#else

/* Training goes on from an altered checkpoint, or refuses it; with the stage that it is of, and without. */
static void X(resume)(const unsigned char *bytes, size_t n, int mixed)
{
    for (int without = 0; without <= 1; without++) {
        small_fit kind = without ? SMALL_NO_POSTERIOR : SMALL_WHOLE;
        X(flow) *flow = NULL;
        double logp = NAN;
        FILE *f = fopen(small_checkpoint, "wb");
        CHECK(f && fwrite(bytes, 1, n, f) == n && !fclose(f), "%s", small_checkpoint);
        if (mixed) CHECK(!X(small_mixed)(&flow), "%s", pf_message());
        pf_status status = mixed ? X(small_train_mixed)(flow, kind) : X(small_sym_y)(&flow, kind);
        CHECK(status == PF_OK || status == PF_BAD_FILE || status == PF_BAD_ARGUMENT || status == PF_DEGENERATE,
              "%s, file %llu: status %d, %s", now.flow, (unsigned long long)now.number, status, pf_message());
        now.resumed += !status;
        const double *y = flow && X(flow_conditions)(flow) ? X(small_y3)() : NULL;
        if (flow && !status) status = X(flow_logp)(flow, &logp, X(small).field, y, NULL, 1);
        CHECK(!status || status != PF_NO_MEMORY, "%s, file %llu: %s", now.flow, (unsigned long long)now.number,
              pf_message());
        X(flow_free)(flow);
    }
}

/* All maps of two points; whatever the numbers are, those of a made-up flow. */
static pf_status X(evaluate)(const X(flow) *f)
{
    double log[2], logs[4], *y = NULL, *gy = NULL;
    int32_t label[2] = {0, 0}, *l = X(flow_classes)(f) ? label : NULL;
    ptrdiff_t size = X(flow_dim)(f), n_y = X(flow_conditions)(f), steps;
    real *x = PF_CALLOC(real, 2 * size), *out = PF_CALLOC(real, 2 * size);
    if (n_y) y = PF_CALLOC(double, 2 * n_y), gy = PF_CALLOC(double, 2 * n_y);
    if (l) label[1] = X(flow_classes)(f) - 1;
    for (ptrdiff_t i = 0; i < X(flow_layers)(f); i++) {
        const double *theta = X(flow_layer_theta)(f, i);
        for (ptrdiff_t j = 0; j < X(flow_layer_parameters)(f, i); j++) CHECK(isfinite(theta[j]), "%g", theta[j]);
    }
    X(flow_history)(f, &steps);
    pf_status status = X(flow_logp)(f, log, x, y, l, 2);
    if (!status) status = X(flow_sample)(f, out, log, y, l, 1, 0, 2);
    if (!status) status = X(flow_inverse)(f, out, log, x, y, l, 2);
    if (!status && n_y && !l) status = X(flow_logp_at)(f, logs, x, y, 2, 2);
    /* 0 may be outside the bounds, which these refuse */
    if (!status) status = X(flow_forward)(f, out, log, x, y, l, 2);
    if (!status) status = X(flow_score)(f, out, log, x, y, l, 2);
    if (!status && n_y && !l) status = X(flow_score_parameters)(f, gy, log, x, y, 2);
    if (status == PF_BAD_ARGUMENT && strstr(pf_message(), "outside the bounds")) status = PF_OK;
    free(x), free(out), free(y), free(gy);
    return status;
}

/* What is read has copies of any number of layers, which are written and read, and written alike again. */
static void X(copies)(const X(flow) *f)
{
    for (ptrdiff_t layers = 0; layers <= X(flow_layers)(f); layers++) {
        X(flow) *copy = NULL, *again = NULL;
        void *written = NULL, *second = NULL;
        size_t m = 0, n = 0;
        CHECK(!X(flow_copy)(&copy, f, layers) && !X(flow_write)(copy, &written, &m), "%s, file %llu: %s", now.flow,
              (unsigned long long)now.number, pf_message());
        CHECK(!X(flow_read)(&again, written, m), "%s, file %llu, a copy of %td layers: %s", now.flow,
              (unsigned long long)now.number, layers, pf_message());
        CHECK(again && !X(flow_write)(again, &second, &n) && n == m && !memcmp(written, second, n),
              "%s, file %llu, a copy of %td layers is another", now.flow, (unsigned long long)now.number, layers);
        X(flow_free)(copy), X(flow_free)(again);
        pf_free(written), pf_free(second);
    }
}

static void X(try)(unsigned char *bytes, size_t n, size_t body, int mixed, int may_be_read)
{
    X(flow) *f = NULL;
    small_space space = small_space_of(bytes + body, n > body ? n - body : 0);
    if (space.numbers > MOST_NUMBERS) return;
    size_t before = allocator.bytes;
    allocator.most = before;
    alarm(SECONDS);
    pf_status status = X(flow_read)(&f, bytes, n);
    double allowed = PER_BYTE * (double)n + AT_LEAST + (PER_NUMBER + PER_TABLE * space.layers) * space.numbers;
    double used = (double)(allocator.most - before);
    now.tried++;
    now.read += !status;
    CHECK(status == PF_BAD_FILE || (!status && may_be_read), "%s, file %llu: status %d, %s", now.flow,
          (unsigned long long)now.number, status, pf_message());
    CHECK(!status == !!f, "%s, file %llu: what is handed out", now.flow, (unsigned long long)now.number);
    CHECK(used <= allowed, "%s, file %llu: %zu bytes are read with %.0f of memory (%s)", now.flow,
          (unsigned long long)now.number, n, used, status ? "refused" : "accepted");
    if (f) {
        allocator.most = allocator.bytes;
        status = X(evaluate)(f);
        CHECK(!status || strstr(pf_message(), "too far out"), "%s, file %llu: %s", now.flow,
              (unsigned long long)now.number, pf_message());
        CHECK(allocator.most - before <= EVALUATION, "%s, file %llu: %zu bytes are needed for two rows", now.flow,
              (unsigned long long)now.number, allocator.most - before);
        if (now.number % 16 == 0) X(copies)(f);
        if (X(flow_unfinished)(f) && now.number % 8 == 0) X(resume)(bytes, n, mixed);
    }
    X(flow_free)(f);
    alarm(0);
}

static void X(try_flow)(const char *name, const X(flow) *f, int mixed, uint64_t files, uint64_t only)
{
    unsigned char *bytes = NULL;
    size_t n = 0;
    CHECK(f && !X(flow_write)(f, (void **)&bytes, &n), "%s: %s", name, pf_message());
    if (!bytes) return;
    unsigned char *altered = malloc(n + 64);
    size_t body = body_of(bytes);
    now.flow = name;
    memcpy(altered, bytes, n);
    now.number = 0;
    X(try)(altered, n, body, mixed, 1);
    for (now.number = only ? only : 1; now.number <= (only ? only : files); now.number++) {
        size_t length = n;
        memcpy(altered, bytes, n);
        int may_be_read = alter(altered, &length);
        if (length != n || memcmp(altered, bytes, n)) X(try)(altered, length, body, mixed, may_be_read);
    }
    free(altered);
    pf_free(bytes);
}

static void X(test)(uint64_t files, uint64_t only)
{
    static const char *const names[] = {
        "by GIS",
        "by GIS, with labels",
        "by hand",
        "fields by hand",
        "fields by hand, with y",
        "fields by hand, unfinished",
        "symmetric",
        "symmetric in 3-D",
        "symmetric with y",
        "symmetric, unfinished",
        "symmetric, unfinished posterior",
        "images by hand",
        "rows by hand, with y",
    };
    enum { N = sizeof names / sizeof *names };
    X(flow) *f[N] = {0};
    X(small_fill)();
    unlink(small_checkpoint);
    CHECK(!X(small_gis)(f, 0) && !X(small_gis)(f + 1, 1) && !X(small_table)(f + 2), "%s", pf_message());
    unlink(small_checkpoint);
    for (int i = 3; i < 6; i++) CHECK(!X(small_mixed)(f + i), "%s", pf_message());
    CHECK(!X(small_train_mixed)(f[4], SMALL_WHOLE), "%s", pf_message());
    unlink(small_checkpoint);
    CHECK(X(small_train_mixed)(f[5], SMALL_STOPPED) == PF_INTERRUPTED, "%s", pf_message());
    CHECK(!X(small_sym)(f + 6, 2, small_mesh[0]) && !X(small_sym)(f + 7, 3, small_mesh[1]), "%s", pf_message());
    CHECK(!X(small_patches)(f + N - 2) && !X(small_autoregressive)(f + N - 1), "%s", pf_message());
    for (int i = 8; i < N - 2; i++) {
        static const small_fit kinds[] = {SMALL_WHOLE, SMALL_STOPPED, SMALL_STOPPED_LATE};
        unlink(small_checkpoint);
        pf_status status = X(small_sym_y)(f + i, kinds[i - 8]);
        CHECK(status == (i == 8 ? PF_OK : PF_INTERRUPTED), "%s", pf_message());
    }
    for (int i = 0; i < N; i++) {
        char name[64];
        snprintf(name, sizeof name, "float%d %s", REAL_BITS, names[i]);
        X(try_flow)(name, f[i], i == 5, files, only);
        X(flow_free)(f[i]);
    }
}
#endif
