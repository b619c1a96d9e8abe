/* The Fourier transforms of a symmetric flow and nothing else: the floor that bench_symmetric.py measures flows against.
 * Built against build/libpyflow.a, so that the plans and the thread pool are the same; called through ctypes. */
#include <time.h>

#include "fft.h"

typedef struct {
    const pf32_fft *plan;
    const float *x;
    float *memory[64]; /* of a thread: field, spectrum, scratch */
    int pairs;
} job;

static double clock_of(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void transform(void *arg, ptrdiff_t field, int thread)
{
    const job *j = arg;
    const pf32_fft *p = j->plan;
    float *y = j->memory[thread], *spectrum = y + (p->pixels + 15) / 16 * 16, *work = spectrum + p->spectrum;
    for (int i = 0; i < j->pairs; i++) {
        pf32_fft_forward(p, spectrum, i ? y : j->x + field * p->pixels, work);
        pf32_fft_inverse(p, y, spectrum, work);
    }
}

/* Each of n fields x[n][mesh] forward and back `pairs` times; seconds[2]: wall clock, processor. */
__attribute__((visibility("default"))) int fft_alone(double seconds[2], const float *x, int ndim, const ptrdiff_t *mesh,
                                                     ptrdiff_t n, int pairs, int threads)
{
    pf_set_num_threads(threads);
    threads = PF_MIN(pf_max_threads(n), 64);
    job j = {.plan = pf32_fft_plan(ndim, mesh), .x = x, .pairs = pairs};
    int failed = !j.plan;
    for (int t = 0; t < threads && !failed; t++) {
        ptrdiff_t size = (j.plan->pixels + 15) / 16 * 16 + j.plan->spectrum + j.plan->work;
        j.memory[t] = PF_CALLOC(float, size);
        failed = !j.memory[t];
    }
    if (!failed) {
        double wall = clock_of(CLOCK_MONOTONIC), cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
        failed = pf_parallel(n, transform, &j) != PF_OK;
        seconds[0] = clock_of(CLOCK_MONOTONIC) - wall;
        seconds[1] = clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    }
    for (int t = 0; t < threads; t++) free(j.memory[t]);
    return failed;
}
