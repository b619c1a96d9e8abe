/* What every source file of the core may rely on. */
#ifndef PF_INTERNAL_H
#define PF_INTERNAL_H

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pyflow.h"

#define PF_MIN(a, b) ((a) < (b) ? (a) : (b))
#define PF_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Run-time dispatch of a hot kernel from one inline body:
 *
 *     PF_KERNEL void X(name_body)(real *y, ptrdiff_t n) { ... }
 *     PF_DISPATCH(X(name), (real *y, ptrdiff_t n), (y, n))
 *
 * defines X(name), which runs the body compiled for AVX-512, for AVX2 + FMA, or for the baseline. */
#define PF_KERNEL static inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__)
extern int pf_simd_level; /* 0 baseline, 2 AVX2 + FMA, 5 AVX-512; set when the library is loaded */
#if defined(__clang__)
#define PF_AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")))
#else
#define PF_AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,prefer-vector-width=512")))
#endif
#define PF_DISPATCH_(name, params, args)                                                                               \
    PF_AVX512 static void name##_avx512 params { name##_body args; }                                                   \
    __attribute__((target("avx2,fma"))) static void name##_avx2 params { name##_body args; }                           \
    static void name##_base params { name##_body args; }                                                               \
    void name params                                                                                                   \
    {                                                                                                                  \
        if (pf_simd_level == 5) name##_avx512 args;                                                                    \
        else if (pf_simd_level == 2) name##_avx2 args;                                                                 \
        else name##_base args;                                                                                         \
    }
#else
#define PF_DISPATCH_(name, params, args)                                                                               \
    void name params { name##_body args; }
#endif
#define PF_DISPATCH(name, params, args) PF_DISPATCH_(name, params, args) /* expands the name first */

/* ---- status.c: the first error's message is kept ---------------------------------------------------------- */

/* A public function that computes runs between pf_begin() and return pf_end(status). */
void pf_begin(void);
pf_status pf_end(pf_status status);
/* Records the message unless one is already there, and returns the status: return pf_fail(PF_BAD_ARGUMENT, "...") */
pf_status pf_fail(pf_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The message of what did not end a call goes to whoever watches a fit, and is forgotten. */
void pf_warn(const pf_watch *watch, pf_status status);
/* Tells the caller of a step done; PF_INTERRUPTED when they say stop. */
pf_status pf_progressed(const pf_watch *watch, const pf_progress *p);

/* ---- options.c: PF_BAD_ARGUMENT, with its name, for an option outside its limits ---------------------------- */
pf_status pf_check_options(const void *options, const pf_option *list);

#define PF_TRY(call)                                                                                                   \
    do {                                                                                                               \
        pf_status pf_try_status = (call);                                                                              \
        if (pf_try_status) return pf_try_status;                                                                       \
    } while (0)

/* 64-byte aligned memory for count items of size bytes; on failure NULL, and the message is set. Free with free(). */
void *pf_alloc(ptrdiff_t count, size_t size);
void *pf_calloc(ptrdiff_t count, size_t size);
#define PF_ALLOC(type, count) ((type *)pf_alloc((count), sizeof(type)))
#define PF_CALLOC(type, count) ((type *)pf_calloc((count), sizeof(type)))

double pf_seconds(void); /* monotonic clock */

/* ---- parallel.c: the one thread pool ---------------------------------------------------------------------- */

/* body(arg, block, thread) for block = 0 .. n_blocks - 1, on at most pf_get_num_threads() threads, in no fixed order.
 * A body may not fail; results that are summed go to arrays indexed by block, and are summed in block order, so that
 * nothing depends on the number of threads. Returns PF_INTERRUPTED, blocks left undone, when the caller's interrupt
 * check says so. thread < pf_max_threads(n_blocks).
 *
 * A body's own calls run serially in its thread, with thread = 0: pf_max_threads() is 1 there, and scratch memory of
 * one thread is enough. Only the body of a call of one block may use the other threads. No body is interrupted. */
pf_status pf_parallel(ptrdiff_t n_blocks, void (*body)(void *arg, ptrdiff_t block, int thread), void *arg);
/* The same for a loop in a kernel, which has nobody to tell of an interruption: there is none. */
void pf_parallel_kernel(ptrdiff_t n_blocks, void (*body)(void *arg, ptrdiff_t block, int thread), void *arg);
int pf_max_threads(ptrdiff_t n_blocks);
/* Between these two (pf_begin and pf_end call them) pf_set_num_threads() has no effect on the calling thread. */
void pf_hold_threads(void);
void pf_release_threads(void);
/* The caller's interrupt check, now. */
pf_status pf_check_interrupt(void);

/* The library's locks: all there are, so that a fork finds none of them taken, and nothing half done behind it. Nobody
 * takes one while they hold another. */
typedef enum {
    PF_LOCK_PLANS, /* FFTW's planner, and the plans */
    PF_LOCK_BLAS,  /* OpenBLAS's number of threads */
    PF_LOCK_POOL,
    PF_LOCKS
} pf_lock_of;
void pf_lock(pf_lock_of what);
void pf_unlock(pf_lock_of what);

/* ---- rng.c: counter-based random numbers (Salmon et al. 2011, Philox4x32-10) ------------------------------ */

/* Four random words that depend on (key, stream, counter) alone. */
void pf_philox(uint32_t out[4], uint64_t key, uint64_t stream, uint64_t counter);
/* n standard normal numbers, the numbers first .. first + n - 1 of (key, stream). */
void pf_normals(double *z, uint64_t key, uint64_t stream, uint64_t first, ptrdiff_t n);
/* z[rows][n]: the same of streams stream, stream + 1, ..., faster than row by row where n is small */
void pf_normal_rows(double *z, uint64_t key, uint64_t stream, uint64_t first, ptrdiff_t rows, ptrdiff_t n);
/* A uniform integer in 0 .. bound - 1: number i of (key, stream). */
uint64_t pf_uniform_int(uint64_t key, uint64_t stream, uint64_t i, uint64_t bound);

/* ---- normal.c: the normal distribution -------------------------------------------------------------------- */

double pf_normal_cdf(double x);
double pf_normal_quantile(double p); /* AS241 (Wichura 1988), full double precision; +-INFINITY at 0 and 1 */
double pf_normal_pdf(double x);
/* z[i] = the quantile of the middle of cell[i] of 2^52 equal cells of (0, 1), n at most PF_CELLS and a multiple of 16 */
enum { PF_CELLS = 256 };
void pf_normal_quantiles(double *z, const uint64_t *cell, ptrdiff_t n);
#define PF_LOG_2PI 1.8378770664093454836
/* An estimate x of this standard error, where N(0, width^2) was expected, times w^2 / (w^2 + error^2), w^2 the greater
 * of width^2 and x^2 - error^2, what x itself says of w: with width alone, what is far off would stay far off. */
double pf_shrunk(double x, double error, double width);

#endif
