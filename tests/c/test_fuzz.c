/* Made-up files: bytes of small models of all kinds, cut, lengthened and altered, with the check sum made good again or
 * not. Each is refused with PF_BAD_FILE, or gives a flow that computes log p and samples; without a crash, a hang, or
 * more memory than the file accounts for. The number in a message makes the same file again:
 *
 *     build/tests/test_fuzz              # 6,000 files of each model
 *     build/tests/test_fuzz 100000       # more
 *     build/tests/test_fuzz 0 NUMBER     # this one of each model */
#ifndef real
#define _GNU_SOURCE
#include <signal.h>
#include <unistd.h>

#include "allocator.h"
#include "check.h"
#include "file.h"
#include "small.h"

enum {
    PER_BYTE = 64,         /* bytes that a reader may hold for each of the file, */
    AT_LEAST = 64 * 1024,  /* and besides; */
    PER_PIXEL = 200,       /* and for each pixel of the mesh, which a file says in a few bytes. Files that say more */
    MOST_PIXELS = 1 << 16, /* than this are left out: a large mesh is nothing that a reader may refuse */
    EVALUATION = 64 << 20, /* what a few rows may take */
    SECONDS = 20,          /* for one file */
};

static struct {
    const char *model;
    uint64_t number;
    ptrdiff_t tried, read;
} now;

static uint64_t uniform(uint64_t *i, uint64_t bound) { return pf_uniform_int(now.number, 17, (*i)++, bound); }

static void hangs(int signal)
{
    (void)signal;
    printf("%s, file %llu takes more than %d seconds\n", now.model, (unsigned long long)now.number, SECONDS);
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
    memcpy(&header, bytes + 32, sizeof header);
    return 40 + (size_t)header;
}

static void overwrite(unsigned char *bytes, size_t n, uint64_t *i)
{
    size_t at = body_of(bytes) + 4 * (size_t)uniform(i, (n - 16 - body_of(bytes)) / 4);
    memcpy(bytes + at, odd + uniform(i, ODD), 8);
}

/* bytes[*n], with room for 64 more, becomes file number now.number of this model. Returns whether it may still be a
 * file: its check sum is right, and it is as long as it was. */
static int alter(unsigned char *bytes, size_t *n)
{
    uint64_t i = 0;
    size_t body = body_of(bytes), before = *n;
    int sealed = uniform(&i, 8) != 0;
    switch (uniform(&i, 8)) {
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
    case 5: overwrite(bytes, *n, &i); /* fall through */
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
    uint64_t files = argc > 1 ? strtoull(argv[1], NULL, 10) : 6000, only = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    int fd = mkstemp(small_checkpoint);
    if (fd < 0 || close(fd)) return perror(small_checkpoint), 1;
    signal(SIGALRM, hangs);
    allocator.refused_above = (size_t)1 << 28;
    pf_set_num_threads(1);
    pf32_test(files, only);
    pf64_test(files, only);
    unlink(small_checkpoint);
    printf("%td files, of which %td were read\n", now.tried, now.read);
    CHECK(only || now.read > now.tried / 20, "hardly any file is still one: nothing was tried");
    return check_result();
}

#else

/* ---- what files are read as ---- */

typedef struct {
    X(model) *model;
    X(symflow) *flow;
} X(read);

static pf_status X(read_any)(X(read) *r, const void *bytes, size_t n, int kind)
{
    return kind == PF_KIND_LAYERS ? X(model_read)(&r->model, bytes, n) : X(symflow_read)(&r->flow, bytes, n);
}

/* A fit goes on from an altered checkpoint, or refuses it; with the stage that it is of, and without. */
static void X(resume)(const unsigned char *bytes, size_t n)
{
    for (int without = 0; without <= 1; without++) {
        X(symflow) *flow = NULL;
        FILE *f = fopen(small_checkpoint, "wb");
        CHECK(f && fwrite(bytes, 1, n, f) == n && !fclose(f), "%s", small_checkpoint);
        pf_status status = X(small_sym_y)(&flow, without ? SMALL_NO_POSTERIOR : SMALL_WHOLE);
        CHECK(status == PF_OK || status == PF_BAD_FILE || status == PF_BAD_ARGUMENT || status == PF_DEGENERATE,
              "%s, file %llu: status %d, %s", now.model, (unsigned long long)now.number, status, pf_message());
        X(symflow_free)(flow);
    }
}

/* log p and samples of two rows or fields; whatever they are, numbers of a made-up flow. */
static pf_status X(evaluate)(const X(read) *r)
{
    double logp[2], *y = NULL;
    int32_t label[2] = {0, 0};
    ptrdiff_t size = r->model ? X(model_dim)(r->model) : 1;
    for (int i = 0; r->flow && i < X(symflow_ndim)(r->flow); i++) size *= X(symflow_mesh)(r->flow)[i];
    ptrdiff_t n_y = r->flow ? X(symflow_conditions)(r->flow) : 0;
    real *x = PF_CALLOC(real, 2 * size);
    if (n_y) y = PF_CALLOC(double, 2 * n_y);
    if (r->model) {
        int32_t *l = X(model_classes)(r->model) ? label : NULL;
        pf_status status = X(model_logp)(r->model, logp, x, l, 2);
        if (!status) status = X(model_sample)(r->model, x, logp, l, 1, 0, 2);
        free(x);
        return status;
    }
    pf_status status = X(symflow_logp)(r->flow, logp, x, y, 2);
    if (!status) status = X(symflow_sample)(r->flow, x, logp, y, 1, 0, 2);
    free(x), free(y);
    return status;
}

static void X(try)(unsigned char *bytes, size_t n, size_t body, int kind, int may_be_read)
{
    X(read) r = {0};
    double pixels = kind == PF_KIND_SYMFLOW && n > body + 32 ? small_pixels(bytes + body) : 0;
    if (pixels > MOST_PIXELS) return;
    size_t before = allocator.bytes;
    allocator.most = before;
    alarm(SECONDS);
    pf_status status = X(read_any)(&r, bytes, n, kind);
    double allowed = PER_BYTE * (double)n + AT_LEAST + PER_PIXEL * pixels;
    double used = (double)(allocator.most - before);
    now.tried++;
    now.read += !status;
    CHECK(status == PF_BAD_FILE || (!status && may_be_read), "%s, file %llu: status %d, %s", now.model,
          (unsigned long long)now.number, status, pf_message());
    CHECK(status ? !r.model && !r.flow : r.model || r.flow, "%s, file %llu: what is handed out", now.model,
          (unsigned long long)now.number);
    CHECK(used <= allowed, "%s, file %llu: %zu bytes are read with %.0f of memory (%s)", now.model,
          (unsigned long long)now.number, n, used, status ? "refused" : "accepted");
    if (!status) {
        allocator.most = allocator.bytes;
        status = X(evaluate)(&r);
        CHECK(!status, "%s, file %llu: %s", now.model, (unsigned long long)now.number, pf_message());
        CHECK(allocator.most - before <= EVALUATION, "%s, file %llu: %zu bytes are needed for two rows", now.model,
              (unsigned long long)now.number, allocator.most - before);
    }
    if (r.flow && X(symflow_unfinished)(r.flow) && now.number % 16 == 0) X(resume)(bytes, n);
    X(model_free)(r.model);
    X(symflow_free)(r.flow);
    alarm(0);
}

static void X(try_model)(const char *name, unsigned char *bytes, size_t n, int kind, uint64_t files, uint64_t only)
{
    unsigned char *altered = malloc(n + 64);
    size_t body = body_of(bytes);
    now.model = name;
    memcpy(altered, bytes, n);
    now.number = 0;
    X(try)(altered, n, body, kind, 1);
    for (now.number = only ? only : 1; now.number <= (only ? only : files); now.number++) {
        size_t length = n;
        memcpy(altered, bytes, n);
        int may_be_read = alter(altered, &length);
        if (length != n || memcmp(altered, bytes, n)) X(try)(altered, length, body, kind, may_be_read);
    }
    free(altered);
    pf_free(bytes);
}

static void X(test)(uint64_t files, uint64_t only)
{
    X(model) *models[2] = {0};
    X(symflow) *flows[5] = {0};
    void *bytes;
    size_t n;
    X(small_fill)();
    unlink(small_checkpoint);
    CHECK(!X(small_gis)(models, 0) && !X(small_gis)(models + 1, 1), "%s", pf_message());
    unlink(small_checkpoint);
    CHECK(!X(small_sym)(flows, 2, small_mesh[0]) && !X(small_sym)(flows + 1, 3, small_mesh[1]), "%s", pf_message());
    CHECK(!X(small_sym_y)(flows + 2, SMALL_WHOLE), "%s", pf_message());
    unlink(small_checkpoint);
    CHECK(X(small_sym_y)(flows + 3, SMALL_STOPPED) == PF_INTERRUPTED, "%s", pf_message());
    unlink(small_checkpoint);
    CHECK(X(small_sym_y)(flows + 4, SMALL_STOPPED_LATE) == PF_INTERRUPTED, "%s", pf_message());
    static const char *const names[] = {
        REAL_BITS == 32 ? "float32 layers" : "float64 layers",
        REAL_BITS == 32 ? "float32 layers with labels" : "float64 layers with labels",
        REAL_BITS == 32 ? "float32 symmetric" : "float64 symmetric",
        REAL_BITS == 32 ? "float32 symmetric in 3-D" : "float64 symmetric in 3-D",
        REAL_BITS == 32 ? "float32 symmetric with y" : "float64 symmetric with y",
        REAL_BITS == 32 ? "float32 symmetric, unfinished" : "float64 symmetric, unfinished",
        REAL_BITS == 32 ? "float32 symmetric, unfinished posterior" : "float64 symmetric, unfinished posterior",
    };
    for (int i = 0; i < 7; i++) {
        pf_status status = i < 2 ? X(model_write)(models[i], &bytes, &n) : X(symflow_write)(flows[i - 2], &bytes, &n);
        CHECK(!status, "%s", pf_message());
        X(try_model)(names[i], bytes, n, i < 2 ? PF_KIND_LAYERS : PF_KIND_SYMFLOW, files, only);
    }
    for (int i = 0; i < 2; i++) X(model_free)(models[i]);
    for (int i = 0; i < 5; i++) X(symflow_free)(flows[i]);
}
#endif
