/* The one thread pool. A call hands out its blocks to whoever asks next: the calling thread works too, helpers join
 * when they wake up, and once no block is left nobody waits for a helper that has not begun one. So on a busy machine a
 * call takes no longer than on one thread; a barrier in which threads spin for each other (OpenMP's) can take ten times
 * that. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#include "internal.h"

/* ---- how many threads ------------------------------------------------------------------------------------- */

static atomic_int wanted_threads; /* 0: the default */
static atomic_int forked;         /* a child of fork() has none of its parent's threads; it stays alone */

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

/* A call keeps the number it began with: its scratch memory is as many threads' as that. */
static _Thread_local int calls, threads_of_call;

void pf_hold_threads(void)
{
    if (calls++ == 0) threads_of_call = pf_get_num_threads();
}

void pf_release_threads(void) { calls--; }

int pf_max_threads(ptrdiff_t n_blocks)
{
    int n = calls && !atomic_load(&forked) ? threads_of_call : pf_get_num_threads();
    return (int)PF_MAX(PF_MIN(n_blocks, n), 1);
}

/* ---- interruption ----------------------------------------------------------------------------------------- */

static _Thread_local int (*interrupt_check)(void *);
static _Thread_local void *interrupt_user;
static _Thread_local double interrupt_last;

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

/* ---- the pool --------------------------------------------------------------------------------------------- */

typedef struct job {
    void (*body)(void *arg, ptrdiff_t block, int thread);
    void *arg;
    ptrdiff_t n_blocks;
    atomic_ptrdiff_t next; /* block */
    int helpers, wanted;   /* helpers that have joined: their thread numbers are 1, 2, ...; and how many may */
    int busy;              /* helpers that have not left yet */
    pthread_cond_t left;
    struct job *link;
} job;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of everything below and of the jobs' counts */
static pthread_cond_t offered = PTHREAD_COND_INITIALIZER;
static job *jobs;         /* those that may still be joined */
static int workers;       /* threads there are */
static atomic_int offers; /* counts jobs offered, for helpers that look before they sleep */

static job *joinable(void)
{
    for (job *j = jobs; j; j = j->link)
        if (j->helpers < j->wanted && atomic_load(&j->next) < j->n_blocks) return j;
    return NULL;
}

static void *work(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        job *j = joinable();
        if (!j) {
            /* the next call often comes within microseconds, sooner than a sleeper wakes */
            int seen = atomic_load(&offers);
            pthread_mutex_unlock(&lock);
            for (int i = 0; i < 2000 && atomic_load(&offers) == seen; i++) {
#if defined(__x86_64__)
                __builtin_ia32_pause();
#endif
            }
            pthread_mutex_lock(&lock);
            while (!(j = joinable())) pthread_cond_wait(&offered, &lock);
        }
        int thread = ++j->helpers;
        j->busy++;
        pthread_mutex_unlock(&lock);
        for (ptrdiff_t b; (b = atomic_fetch_add(&j->next, 1)) < j->n_blocks;) j->body(j->arg, b, thread);
        pthread_mutex_lock(&lock);
        if (--j->busy == 0) pthread_cond_signal(&j->left);
    }
    return NULL;
}

/* One more worker. Signals are the business of the threads that were there before. */
static int hire(void)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, NULL, work, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed) pthread_detach(thread);
    return !failed;
}

static void after_fork(void)
{
    atomic_store(&forked, 1);
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    offered = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    jobs = NULL;
    workers = 0;
}

__attribute__((constructor)) static void watch_fork(void) { pthread_atfork(NULL, NULL, after_fork); }

static pf_status run_blocks(job *j, ptrdiff_t most)
{
    pf_status status = PF_OK;
    for (ptrdiff_t b; most-- > 0 && !status && (b = atomic_fetch_add(&j->next, 1)) < j->n_blocks;) {
        j->body(j->arg, b, 0);
        status = pf_check_interrupt();
    }
    if (status) atomic_store(&j->next, j->n_blocks);
    return status;
}

pf_status pf_parallel(ptrdiff_t n_blocks, void (*body)(void *, ptrdiff_t, int), void *arg)
{
    job j = {.body = body, .arg = arg, .n_blocks = n_blocks, .wanted = pf_max_threads(n_blocks) - 1};
    if (!j.wanted) return run_blocks(&j, n_blocks);

    /* The first block says whether the rest is worth waking somebody. */
    double start = pf_seconds();
    PF_TRY(run_blocks(&j, 1));
    if ((pf_seconds() - start) * (double)(n_blocks - 1) < 50e-6) return run_blocks(&j, n_blocks);

    pthread_cond_init(&j.left, NULL);
    pthread_mutex_lock(&lock);
    while (workers < j.wanted && hire()) workers++;
    j.link = jobs;
    jobs = &j;
    atomic_fetch_add(&offers, 1);
    pthread_cond_broadcast(&offered);
    pthread_mutex_unlock(&lock);

    pf_status status = run_blocks(&j, n_blocks);

    pthread_mutex_lock(&lock);
    job **link = &jobs;
    while (*link != &j) link = &(*link)->link;
    *link = j.link;
    while (j.busy) pthread_cond_wait(&j.left, &lock);
    pthread_mutex_unlock(&lock);
    pthread_cond_destroy(&j.left);
    return status;
}
