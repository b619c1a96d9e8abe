/* Real Fourier transforms: see fft.h. The only file that calls FFTW.
 *
 * FFTW's own real transforms of rows run without SIMD and its choice between them, FFTW_MEASURE, changes the last bits
 * from one process to the next. So two real rows are transformed as one complex row, the two spectra separated by
 * symmetry, and the other axes transformed for many columns at once: FFTW_ESTIMATE then finds plans that are both fast
 * and the same every time. Seen for 128 x 128 floats, forward and back: 31 us, against 68 us (ESTIMATE) and 45 us
 * (MEASURE) for FFTW's r2c and c2r. Long columns would be read from memory over and over: they are transposed, some at
 * a time. Seen for 1024^2 and 256^3 floats: 3.2 and 8.3 ns a pixel, against 5.7 and 57 with the columns where they are.
 */
#ifndef real
#include <fftw3.h>
#include <stdatomic.h>

#include "fft.h"
#include "file.h"

static atomic_int measure;

void pf_fft_measure(int on) { atomic_store(&measure, on != 0); }

/* A wisdom file: FFTW's text for float, then for double. */

pf_status pf_fft_wisdom_save(const char *path)
{
    pf_begin();
    pf_lock(PF_LOCK_PLANS);
    char *texts[2] = {fftwf_export_wisdom_to_string(), fftw_export_wisdom_to_string()};
    pf_unlock(PF_LOCK_PLANS);
    pf_writer w = {0};
    for (int i = 0; i < 2; i++) {
        if (texts[i]) pf_put(&w, texts[i], strlen(texts[i]));
        else w.status = pf_fail(PF_NO_MEMORY, "out of memory");
        free(texts[i]);
    }
    if (!w.status) w.status = pf_file_write(path, w.bytes, w.n);
    free(w.bytes);
    return pf_end(w.status);
}

pf_status pf_fft_wisdom_load(const char *path)
{
    unsigned char *bytes;
    size_t n;
    pf_begin();
    pf_status status = pf_file_read(&bytes, &n, path);
    if (status) return pf_end(status);
    char *text = PF_CALLOC(char, (ptrdiff_t)n + 1), *second = NULL;
    if (text) {
        memcpy(text, bytes, n);
        second = strstr(text, "\n(fftw");
        if (second) *second++ = 0;
    }
    free(bytes);
    pf_lock(PF_LOCK_PLANS);
    char *before = fftwf_export_wisdom_to_string();
    int ok = second && before && fftwf_import_wisdom_from_string(text);
    if (ok && !fftw_import_wisdom_from_string(second)) { /* both or none */
        ok = 0;
        fftwf_forget_wisdom();
        fftwf_import_wisdom_from_string(before);
    }
    pf_unlock(PF_LOCK_PLANS);
    free(before);
    if (!text) status = PF_NO_MEMORY;
    else if (!ok) status = pf_fail(PF_BAD_FILE, "%s is damaged, or not wisdom of this version of FFTW", path);
    free(text);
    return pf_end(status);
}

enum {
    PAIRS = 4,   /* pairs of rows transformed together: what AVX wants, and little enough for the first-level cache */
    SHORT = 128, /* transforms along an axis that are no longer than this, or of arrays of no more bytes than */
    NEAR = 1 << 19,  /* this, are done where the numbers are; else */
    COLUMNS = 256,   /* so many bytes of every row are transposed, transformed and put back */
    TILE = 8,        /* rows transposed together */
    LARGE = 1 << 18, /* pixels of a mesh that several threads share */
    SHARES = 64,
};

#define TWICE "fft.c"
#include "twice.h"
#else

#if REAL_BITS == 32
#define FFTW(name) fftwf_##name
#else
#define FFTW(name) fftw_##name
#endif

static X(fft) *X(cache);

static void X(fft_free)(X(fft) *p)
{
    for (int back = 0; back < 2; back++) {
        if (p->row_plans[back]) FFTW(destroy_plan)(p->row_plans[back]);
        for (int a = 0; a < 2; a++)
            if (p->axes[a].plans[back]) FFTW(destroy_plan)(p->axes[a].plans[back]);
    }
    free(p);
}

static X(fft) *X(make_plan)(int ndim, const ptrdiff_t *n, int measured)
{
    X(fft) *p = PF_CALLOC(X(fft), 1);
    if (!p) return NULL;
    p->ndim = ndim;
    p->measured = measured;
    p->pixels = 1;
    for (int i = 0; i < ndim; i++) p->pixels *= p->n[i] = n[i];
    ptrdiff_t last = n[ndim - 1], buffer = 0;
    p->rows = p->pixels / last;
    p->half = last / 2 + 1;
    p->ld = (p->half + 3) / 4 * 4;
    if (p->ld * 2 * (ptrdiff_t)sizeof(real) % 512 == 0) p->ld += 4; /* a column would keep to few sets of the cache */
    p->spectrum = (2 * p->rows * p->ld + 15) / 16 * 16;
    p->row_ld = (last + 7) / 8 * 8;
    for (int a = 0; a < ndim - 1; a++) {
        ptrdiff_t length = n[ndim - 2 - a], stride = a ? n[1] * p->ld : p->ld, size = 2 * (ptrdiff_t)sizeof(real);
        int shared = p->pixels >= LARGE && a == ndim - 2; /* by threads, so that nobody does all columns */
        int in_place = length <= SHORT ? !shared || ndim == 3 : !shared && length * stride * size <= NEAR;
        p->axes[a].n = length;
        p->axes[a].stride = stride;
        p->axes[a].columns = !in_place ? COLUMNS / size : shared ? p->ld : stride;
        /* not a power of two: columns would keep to few sets of the cache */
        p->axes[a].ld = in_place ? 0 : (length + 7) / 8 * 8 + 8;
        if (!in_place) buffer = PF_MAX(buffer, 4 * p->axes[a].columns * p->axes[a].ld);
    }
    p->scratch = (PF_MAX(4 * PAIRS * p->row_ld + 2 * p->ld, buffer) + 15) / 16 * 16;
    /* a function of the mesh alone, whatever the number of threads; scratch memory is at most half a spectrum's */
    p->shares = p->pixels >= LARGE ? PF_MAX(PF_MIN(p->spectrum / 2 / p->scratch, SHARES), 1) : 1;
    p->work = p->shares * p->scratch;

    FFTW(complex) *spectrum = pf_alloc(p->spectrum, sizeof(real)), *work = pf_alloc(p->work, sizeof(real));
    FFTW(complex) *work2 = work + PAIRS * p->row_ld;
    unsigned effort = measured ? FFTW_MEASURE : FFTW_ESTIMATE;
    char *wisdom = measured ? NULL : FFTW(export_wisdom_to_string)();
    if (wisdom) FFTW(forget_wisdom)(); /* it would change what is estimated */
    int made = spectrum && work && (measured || wisdom), row[1] = {(int)last}, row_ld = (int)p->row_ld;
    for (int back = 0; back < 2 && made; back++) {
        int sign = back ? FFTW_BACKWARD : FFTW_FORWARD;
        p->row_plans[back] = FFTW(plan_many_dft)(1, row, PAIRS, work, NULL, 1, row_ld, work2, NULL, 1, row_ld, sign,
                                                 effort);
        made &= p->row_plans[back] != NULL;
        for (int a = 0; a < ndim - 1; a++) {
            int length[1] = {(int)p->axes[a].n}, stride = (int)p->axes[a].stride, ld = (int)p->axes[a].ld;
            int columns = (int)p->axes[a].columns;
            p->axes[a].plans[back] = ld ? FFTW(plan_many_dft)(1, length, columns, work, NULL, 1, ld,
                                                              work + columns * ld, NULL, 1, ld, sign, effort)
                                        : FFTW(plan_many_dft)(1, length, columns, spectrum, NULL, stride, 1, spectrum,
                                                              NULL, stride, 1, sign, effort);
            made &= p->axes[a].plans[back] != NULL;
        }
    }
    if (wisdom) {
        FFTW(forget_wisdom)();
        FFTW(import_wisdom_from_string)(wisdom);
    }
    free(wisdom);
    free(spectrum);
    free(work);
    if (made) return p;
    pf_fail(PF_NO_MEMORY, "FFTW made no plan for this mesh");
    X(fft_free)(p);
    return NULL;
}

const X(fft) *X(fft_plan)(int ndim, const ptrdiff_t *n)
{
    if (ndim != 2 && ndim != 3) return pf_fail(PF_BAD_ARGUMENT, "fields have 2 or 3 axes, not %d", ndim), NULL;
    double pixels = 1;
    for (int i = 0; i < ndim; i++) {
        pixels *= (double)n[i];
        if (n[i] < 1 || pixels > 0x1p31)
            return pf_fail(PF_BAD_ARGUMENT, "axis %d of the mesh cannot have %td pixels", i, n[i]), NULL;
    }
    int measured = atomic_load(&measure);
    pf_lock(PF_LOCK_PLANS);
    X(fft) *p = X(cache);
    while (p && (p->measured != measured || p->ndim != ndim || memcmp(p->n, n, (size_t)ndim * sizeof *n))) p = p->next;
    if (!p && (p = X(make_plan)(ndim, n, measured))) {
        p->next = X(cache);
        X(cache) = p;
    }
    pf_unlock(PF_LOCK_PLANS);
    return p;
}

/* z[n] = a + i b */
PF_KERNEL void X(pack_body)(real *restrict z, const real *restrict a, const real *restrict b, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        z[2 * i] = a[i];
        z[2 * i + 1] = b[i];
    }
}
PF_DISPATCH(X(pack), (real * z, const real *a, const real *b, ptrdiff_t n), (z, a, b, n))

PF_KERNEL void X(unpack_body)(real *restrict a, real *restrict b, const real *restrict z, real scale, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        a[i] = scale * z[2 * i];
        b[i] = scale * z[2 * i + 1];
    }
}
PF_DISPATCH(X(unpack), (real * a, real *b, const real *z, real scale, ptrdiff_t n), (a, b, z, scale, n))

/* to[k] = from[n - k], k = first .. end - 1. A complex float moves as one 64-bit number, which vectorises. */
PF_KERNEL void X(mirror)(real *restrict to, const real *restrict from, ptrdiff_t n, ptrdiff_t first, ptrdiff_t end)
{
    for (ptrdiff_t k = first; k < end; k++) {
#if REAL_BITS == 32
        uint64_t z;
        memcpy(&z, from + 2 * (n - k), 8);
        memcpy(to + 2 * k, &z, 8);
#else
        to[2 * k] = from[2 * (n - k)];
        to[2 * k + 1] = from[2 * (n - k) + 1];
#endif
    }
}

/* The half spectra of the two rows that z[n] is the transform of: A_k = (Z_k + Z*_-k) / 2, B_k = (Z_k - Z*_-k) / 2i */
PF_KERNEL void X(separate_body)(real *restrict a, real *restrict b, real *restrict mirrored, const real *restrict z,
                                ptrdiff_t n, ptrdiff_t half)
{
    X(mirror)(mirrored, z, n, 1, half);
    mirrored[0] = z[0];
    mirrored[1] = z[1];
    for (ptrdiff_t k = 0; k < half; k++) {
        real re = z[2 * k], im = z[2 * k + 1], mre = mirrored[2 * k], mim = mirrored[2 * k + 1];
        a[2 * k] = (real)0.5 * (re + mre);
        a[2 * k + 1] = (real)0.5 * (im - mim);
        b[2 * k] = (real)0.5 * (im + mim);
        b[2 * k + 1] = (real)0.5 * (mre - re);
    }
}
PF_DISPATCH(X(separate), (real * a, real *b, real *mirrored, const real *z, ptrdiff_t n, ptrdiff_t half),
            (a, b, mirrored, z, n, half))

/* Its inverse: Z_k = A_k + i B_k, Z_-k = A*_k + i B*_k; A_0 and B_0 (and the middle ones, n even) are taken as real. */
PF_KERNEL void X(join_body)(real *restrict z, real *restrict mirrored, const real *restrict a, const real *restrict b,
                            ptrdiff_t n, ptrdiff_t half)
{
    for (ptrdiff_t k = 0; k < half; k++) {
        real are = a[2 * k], aim = a[2 * k + 1], bre = b[2 * k], bim = b[2 * k + 1];
        z[2 * k] = are - bim;
        z[2 * k + 1] = aim + bre;
        mirrored[2 * k] = are + bim;
        mirrored[2 * k + 1] = bre - aim;
    }
    z[0] = a[0];
    z[1] = b[0];
    if (n % 2 == 0) {
        z[n] = a[n];
        z[n + 1] = b[n];
    }
    X(mirror)(z, mirrored, n, half, n);
}
PF_DISPATCH(X(join), (real * z, real *mirrored, const real *a, const real *b, ptrdiff_t n, ptrdiff_t half),
            (z, mirrored, a, b, n, half))

/* to[columns][ld] = from[n][stride] transposed, complex numbers. `back`: from = to */
static void X(transpose)(real *to, real *from, ptrdiff_t n, ptrdiff_t stride, ptrdiff_t columns, ptrdiff_t ld, int back)
{
    for (ptrdiff_t first = 0; first < n; first += TILE)
        for (ptrdiff_t c = 0; c < columns; c++)
            for (ptrdiff_t i = first; i < PF_MIN(first + TILE, n); i++) {
                real *a = to + 2 * (c * ld + i), *b = from + 2 * (i * stride + c);
                if (back) memcpy(b, a, 2 * sizeof(real));
                else memcpy(a, b, 2 * sizeof(real));
            }
}

/* x[n][stride] along its first axis, in place: its columns, so many at a time, from number `first` to `end` */
static void X(transform_axis)(const X(fft) *p, int axis, int back, real *x, ptrdiff_t first, ptrdiff_t end, real *work)
{
    ptrdiff_t n = p->axes[axis].n, stride = p->axes[axis].stride, columns = p->axes[axis].columns,
              ld = p->axes[axis].ld;
    void *plan = p->axes[axis].plans[back];
    real *in = work, *out = work + 2 * columns * ld;
    for (ptrdiff_t at = first * columns; at < PF_MIN(end * columns, stride); at += columns) {
        ptrdiff_t count = PF_MIN(columns, stride - at); /* the plan does more: whatever is there */
        if (!ld) FFTW(execute_dft)(plan, (FFTW(complex) *)(x + 2 * at), (FFTW(complex) *)(x + 2 * at));
        else {
            X(transpose)(in, x + 2 * at, n, stride, count, ld, 0);
            FFTW(execute_dft)(plan, (FFTW(complex) *)in, (FFTW(complex) *)out);
            X(transpose)(out, x + 2 * at, n, stride, count, ld, 1);
        }
    }
}

/* How often transform_axis does so many columns */
static ptrdiff_t X(column_groups)(const X(fft) *p, int axis)
{
    return (p->axes[axis].stride + p->axes[axis].columns - 1) / p->axes[axis].columns;
}

/* Rows in groups of PAIRS pairs; in the last group the last row stands in for those that are missing. */
static void X(transform_rows)(const X(fft) *p, real *spectrum, const real *x, ptrdiff_t rows, real *work)
{
    ptrdiff_t n = p->n[p->ndim - 1], last = rows - 1, row = 2 * p->row_ld, ld = 2 * p->ld;
    real *packed = work, *z = work + PAIRS * row, *mirrored = z + PAIRS * row;
    for (ptrdiff_t first = 0; first <= last; first += 2 * PAIRS) {
        for (ptrdiff_t i = 0; i < PAIRS; i++) {
            ptrdiff_t a = PF_MIN(first + 2 * i, last), b = PF_MIN(a + 1, last);
            X(pack)(packed + i * row, x + a * n, x + b * n, n);
        }
        FFTW(execute_dft)(p->row_plans[0], (FFTW(complex) *)packed, (FFTW(complex) *)z);
        for (ptrdiff_t i = 0; i < PAIRS && first + 2 * i <= last; i++) {
            ptrdiff_t a = first + 2 * i;
            real *out = spectrum + a * ld, *next = a < last ? out + ld : packed;
            X(separate)(out, next, mirrored, z + i * row, n, p->half);
            for (ptrdiff_t k = 2 * p->half; k < ld; k++) out[k] = 0;
            if (a < last)
                for (ptrdiff_t k = 2 * p->half; k < ld; k++) next[k] = 0;
        }
    }
}

static void X(transform_rows_back)(const X(fft) *p, real *x, const real *spectrum, ptrdiff_t rows, real *work)
{
    ptrdiff_t n = p->n[p->ndim - 1], last = rows - 1, row = 2 * p->row_ld, ld = 2 * p->ld;
    real *packed = work, *z = work + PAIRS * row, *mirrored = z + PAIRS * row, scale = 1 / (real)p->pixels;
    for (ptrdiff_t first = 0; first <= last; first += 2 * PAIRS) {
        for (ptrdiff_t i = 0; i < PAIRS; i++) {
            ptrdiff_t a = PF_MIN(first + 2 * i, last), b = PF_MIN(a + 1, last);
            X(join)(packed + i * row, mirrored, spectrum + a * ld, spectrum + b * ld, n, p->half);
        }
        FFTW(execute_dft)(p->row_plans[1], (FFTW(complex) *)packed, (FFTW(complex) *)z);
        for (ptrdiff_t i = 0; i < PAIRS && first + 2 * i <= last; i++) {
            ptrdiff_t a = first + 2 * i;
            X(unpack)(x + a * n, a < last ? x + (a + 1) * n : packed, z + i * row, scale, n);
        }
    }
}

/* Threads share first rows, in 3-D slab by slab with the axis before the last, while a slab is in the cache; and then
 * the columns of the slowest axis. On the way back it is the other way round. */
typedef struct {
    const X(fft) *p;
    const real *in; /* the field, on the way there */
    real *out;      /* the field, on the way back; else NULL */
    real *spectrum, *work;
    ptrdiff_t items, blocks; /* slabs, or groups of rows or columns; and the parts that they are shared out in */
} X(task);

static void X(share)(X(task) *t, ptrdiff_t items, void (*body)(void *, ptrdiff_t, int))
{
    t->items = items;
    t->blocks = PF_MIN(items, t->p->shares);
    if (t->blocks == 1) body(t, 0, 0);
    else pf_parallel_kernel(t->blocks, body, t);
}

static void X(some_rows)(void *arg, ptrdiff_t block, int thread)
{
    const X(task) *t = arg;
    const X(fft) *p = t->p;
    ptrdiff_t n = p->n[p->ndim - 1], unit = p->ndim == 3 ? p->n[1] : 2 * PAIRS;
    ptrdiff_t first = block * t->items / t->blocks * unit;
    ptrdiff_t end = PF_MIN((block + 1) * t->items / t->blocks * unit, p->rows),
              step = p->ndim == 3 ? unit : end - first;
    real *work = t->work + thread * p->scratch;
    for (ptrdiff_t row = first; row < end; row += step) {
        real *spectrum = t->spectrum + 2 * row * p->ld;
        if (p->ndim == 3 && t->out) X(transform_axis)(p, 0, 1, spectrum, 0, X(column_groups)(p, 0), work);
        if (t->out) X(transform_rows_back)(p, t->out + row * n, spectrum, step, work);
        else X(transform_rows)(p, spectrum, t->in + row * n, step, work);
        if (p->ndim == 3 && !t->out) X(transform_axis)(p, 0, 0, spectrum, 0, X(column_groups)(p, 0), work);
    }
}

static void X(some_columns)(void *arg, ptrdiff_t block, int thread)
{
    const X(task) *t = arg;
    X(transform_axis)(t->p, t->p->ndim - 2, t->out != NULL, t->spectrum, block * t->items / t->blocks,
                      (block + 1) * t->items / t->blocks, t->work + thread * t->p->scratch);
}

static ptrdiff_t X(row_units)(const X(fft) *p)
{
    return p->ndim == 3 ? p->n[0] : (p->rows + 2 * PAIRS - 1) / (2 * PAIRS);
}

void X(fft_forward)(const X(fft) *p, real *spectrum, const real *x, real *work)
{
    X(task) t = {.p = p, .in = x, .spectrum = spectrum, .work = work};
    X(share)(&t, X(row_units)(p), X(some_rows));
    X(share)(&t, X(column_groups)(p, p->ndim - 2), X(some_columns));
}

void X(fft_inverse)(const X(fft) *p, real *x, real *spectrum, real *work)
{
    X(task) t = {.p = p, .out = x, .spectrum = spectrum, .work = work};
    X(share)(&t, X(column_groups)(p, p->ndim - 2), X(some_columns));
    X(share)(&t, X(row_units)(p), X(some_rows));
}
#undef FFTW
#endif
