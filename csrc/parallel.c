/* The one thread pool. The only file that knows OpenMP. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "internal.h"

static atomic_int wanted_threads; /* 0: the default */
static atomic_int forked;         /* OpenMP's threads do not survive fork(): a child that used them would hang */

static _Thread_local int (*interrupt_check)(void *);
static _Thread_local void *interrupt_user;
static _Thread_local double interrupt_last;

static void after_fork(void) { atomic_store(&forked, 1); }

__attribute__((constructor)) static void watch_fork(void) { pthread_atfork(NULL, NULL, after_fork); }

static int default_threads(void)
{
    const char *env = getenv("OMP_NUM_THREADS");
    int n = env ? atoi(env) : 0;
    if (n > 0) return n;
    cpu_set_t cpus; /* what taskset, cgroups' cpusets and batch systems leave us, not what the machine has */
    if (sched_getaffinity(0, sizeof cpus, &cpus) == 0) return PF_MAX(CPU_COUNT(&cpus), 1);
    return 1;
}

void pf_set_num_threads(int n) { atomic_store(&wanted_threads, n > 0 ? n : 0); }

int pf_get_num_threads(void)
{
    if (atomic_load(&forked)) return 1;
    int n = atomic_load(&wanted_threads);
    return n > 0 ? n : default_threads();
}

void pf_set_interrupt(int (*check)(void *), void *user)
{
    interrupt_check = check;
    interrupt_user = user;
    interrupt_last = pf_seconds();
}

pf_status pf_check_interrupt(void)
{
    if (!interrupt_check) return PF_OK;
    double now = pf_seconds();
    if (now - interrupt_last < 0.05) return PF_OK;
    interrupt_last = now;
    return interrupt_check(interrupt_user) ? pf_fail(PF_INTERRUPTED, "interrupted") : PF_OK;
}

int pf_max_threads(ptrdiff_t n_blocks)
{
    int n = pf_get_num_threads();
    return (int)PF_MAX(PF_MIN(n_blocks, n), 1);
}

pf_status pf_parallel(ptrdiff_t n_blocks, void (*body)(void *, ptrdiff_t, int), void *arg)
{
    int threads = pf_max_threads(n_blocks);
    pf_status status = PF_OK;
    if (threads == 1) {
        for (ptrdiff_t b = 0; b < n_blocks && !status; b++) {
            body(arg, b, 0);
            status = pf_check_interrupt();
        }
        return status;
    }
#if defined(_OPENMP)
    atomic_ptrdiff_t next = 0;
#pragma omp parallel num_threads(threads)
    {
        int thread = omp_get_thread_num();
        for (;;) {
            ptrdiff_t b = atomic_fetch_add(&next, 1);
            if (b >= n_blocks) break;
            body(arg, b, thread);
            if (thread == 0 && pf_check_interrupt()) { /* thread 0 is the caller, whose check this is */
                status = PF_INTERRUPTED;
                atomic_store(&next, n_blocks);
            }
        }
    }
#endif
    return status;
}
