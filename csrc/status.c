/* Status codes, messages, memory, the clock, and which instructions this processor has. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "blas.h"
#include "internal.h"

static _Thread_local char message[512];
static _Thread_local pf_status first; /* the failure that the message is of */

const char *pf_message(void) { return message; }

void pf_begin(void)
{
    message[0] = 0;
    first = PF_OK;
    pf_blas_serial_begin();
    pf_hold_threads();
}

pf_status pf_end(pf_status status)
{
    pf_release_threads();
    pf_blas_serial_end();
    /* A function that got nothing from another may take its data or its file for the reason. */
    return status && first == PF_NO_MEMORY ? first : status;
}

pf_status pf_fail(pf_status status, const char *format, ...)
{
    if (!message[0]) {
        first = status;
        va_list args;
        va_start(args, format);
        vsnprintf(message, sizeof message, format, args);
        va_end(args);
    }
    return status;
}

void pf_warn(const pf_watch *watch, pf_status status)
{
    if (watch->warn) watch->warn(watch->user, status, message);
    message[0] = 0;
    first = PF_OK;
}

pf_status pf_progressed(const pf_watch *watch, const pf_progress *p)
{
    int stop = watch->progress && watch->progress(watch->user, p);
    message[0] = 0; /* of calls of this library that the listener made */
    first = PF_OK;
    return stop ? pf_fail(PF_INTERRUPTED, "interrupted") : PF_OK;
}

void *pf_alloc(ptrdiff_t count, size_t size)
{
    void *p = NULL;
    size_t bytes;
    if (count < 0 || __builtin_mul_overflow((size_t)count, size, &bytes) || bytes > PTRDIFF_MAX - 64 ||
        posix_memalign(&p, 64, bytes + !bytes)) {
        pf_fail(PF_NO_MEMORY, "out of memory: %.4g GiB were needed", (double)count * (double)size / (1 << 30));
        return NULL;
    }
    return p;
}

void *pf_calloc(ptrdiff_t count, size_t size)
{
    void *p = pf_alloc(count, size);
    if (p) memset(p, 0, (size_t)count * size);
    return p;
}

void pf_free(void *bytes) { free(bytes); }

double pf_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#if defined(__x86_64__) && defined(__GNUC__)
int pf_simd_level;

/* PYFLOW_SIMD=0 or 2 in the environment holds the kernels back, so that one machine can test them all. */
__attribute__((constructor)) static void find_simd_level(void)
{
    const char *limit = getenv("PYFLOW_SIMD");
    int most = limit && *limit ? atoi(limit) : 5;
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    pf_simd_level = avx512 && most >= 5 ? 5 : avx2 && most >= 2 ? 2 : 0;
}
#endif
