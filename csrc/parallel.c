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

#define WAKING 50e-6 /* seconds of work for others that are worth waking them */

/* ---- how many threads ------------------------------------------------------------------------------------- */

static atomic_int wanted_threads;     /* 0: the default */
static _Thread_local int own_threads; /* 0: as all */
static atomic_int forked;             /* a child of fork() has none of its parent's threads; it stays alone */

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

void pf_set_own_threads(int n) { own_threads = n > 0 ? n : 0; }

int pf_get_num_threads(void)
{
    if (atomic_load(&forked)) return 1;
    int n = own_threads ? own_threads : atomic_load(&wanted_threads);
    return n > 0 ? n : default_threads();
}

/* A call keeps the number it began with: its scratch memory is as many threads' as that. */
static _Thread_local int calls, threads_of_call;

/* The bodies that this thread is in, and those of them that are one block of several: there every call is serial. */
static _Thread_local int bodies, shared;

void pf_hold_threads(void)
{
    if (calls++ == 0) threads_of_call = pf_get_num_threads();
}

void pf_release_threads(void) { calls--; }

int pf_max_threads(ptrdiff_t n_blocks)
{
    if (shared) return 1;
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
    if (!interrupt_check || bodies) return PF_OK; /* a body may not fail; it is asked again when that has ended */
    double now = pf_seconds();
    if (now - interrupt_last < 0.05) return PF_OK;
    interrupt_last = now;
    return interrupt_check(interrupt_user) ? pf_fail(PF_INTERRUPTED, "interrupted") : PF_OK;
}

/* ---- the library's locks ---------------------------------------------------------------------------------- */

/* A fork takes all of them, so that the child's memory holds nothing half done, and finds them free. The one that
 * others may hold for long comes first: meanwhile nobody waits for the rest. */
static pthread_mutex_t locks[PF_LOCKS] = {[0 ... PF_LOCKS - 1] = PTHREAD_MUTEX_INITIALIZER};

void pf_lock(pf_lock_of what) { pthread_mutex_lock(locks + what); }
void pf_unlock(pf_lock_of what) { pthread_mutex_unlock(locks + what); }

/* ---- the pool --------------------------------------------------------------------------------------------- */

typedef void (*block_body)(void *arg, ptrdiff_t block, int thread);

typedef struct job {
    block_body body;
    void *arg;
    ptrdiff_t n_blocks;
    int interruptible;
    atomic_ptrdiff_t next; /* block */
    ptrdiff_t done;        /* blocks, by the calling thread */
    int helpers, wanted;   /* helpers that have joined: their thread numbers are 1, 2, ...; and how many may */
    int busy;              /* helpers that have not left yet */
    pthread_cond_t left;
    struct job *link;
} job;

static pthread_mutex_t *const pool = locks + PF_LOCK_POOL; /* of everything below and of the jobs' counts */
static pthread_cond_t offered = PTHREAD_COND_INITIALIZER;
static job *jobs;         /* those that may still be joined */
static int workers;       /* threads there are */
static atomic_int offers; /* counts jobs offered, for helpers that look before they sleep */

static void run_block(const job *j, ptrdiff_t block, int thread)
{
    int several = j->n_blocks > 1;
    bodies++;
    shared += several;
    j->body(j->arg, block, thread);
    shared -= several;
    bodies--;
}

static job *joinable(void)
{
    for (job *j = jobs; j; j = j->link)
        if (j->helpers < j->wanted && atomic_load(&j->next) < j->n_blocks) return j;
    return NULL;
}

static void *work(void *unused)
{
    (void)unused;
    pthread_mutex_lock(pool);
    for (;;) {
        job *j = joinable();
        if (!j) {
            /* the next call often comes within microseconds, sooner than a sleeper wakes */
            int seen = atomic_load(&offers);
            pthread_mutex_unlock(pool);
            for (int i = 0; i < 2000 && atomic_load(&offers) == seen; i++) {
#if defined(__x86_64__)
                __builtin_ia32_pause();
#endif
            }
            pthread_mutex_lock(pool);
            while (!(j = joinable())) pthread_cond_wait(&offered, pool);
        }
        int thread = ++j->helpers;
        j->busy++;
        pthread_mutex_unlock(pool);
        for (ptrdiff_t b; (b = atomic_fetch_add(&j->next, 1)) < j->n_blocks;) run_block(j, b, thread);
        pthread_mutex_lock(pool);
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

static void before_fork(void)
{
    for (int i = 0; i < PF_LOCKS; i++) pf_lock((pf_lock_of)i);
}

static void after_fork(void)
{
    for (int i = PF_LOCKS - 1; i >= 0; i--) pf_unlock((pf_lock_of)i);
}

static void after_fork_in_child(void)
{
    atomic_fetch_add(&forked, 1);
    offered = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    jobs = NULL;
    workers = 0;
    after_fork();
}

__attribute__((constructor)) static void watch_fork(void)
{
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* Up to `most` blocks, by the calling thread. */
static pf_status run_blocks(job *j, ptrdiff_t most)
{
    pf_status status = PF_OK;
    for (ptrdiff_t b; most-- > 0 && !status && (b = atomic_fetch_add(&j->next, 1)) < j->n_blocks; j->done++) {
        run_block(j, b, 0);
        if (j->interruptible) status = pf_check_interrupt();
    }
    if (status) atomic_store(&j->next, j->n_blocks);
    return status;
}

static pf_status share_blocks(job *j)
{
    int forks = atomic_load(&forked);
    pthread_cond_init(&j->left, NULL);
    pthread_mutex_lock(pool);
    while (workers < j->wanted && hire()) workers++;
    j->link = jobs;
    jobs = j;
    atomic_fetch_add(&offers, 1);
    pthread_cond_broadcast(&offered);
    pthread_mutex_unlock(pool);

    pf_status status = run_blocks(j, j->n_blocks);
    /* The interrupt check may be where a process forks: in the child nobody does what helpers had begun. */
    if (atomic_load(&forked) != forks) return pf_fail(PF_INTERRUPTED, "the process was forked in the middle of a call");

    pthread_mutex_lock(pool);
    job **link = &jobs;
    while (*link != j) link = &(*link)->link;
    *link = j->link;
    while (j->busy) pthread_cond_wait(&j->left, pool);
    pthread_mutex_unlock(pool);
    pthread_cond_destroy(&j->left);
    return status;
}

/* What a block took in this thread's last calls with this body and this many blocks: the last time, or the time before
 * that halved, and so on, whichever is longest. Unknown, it is long. */
static double *block_seconds(const job *j)
{
    static _Thread_local struct {
        block_body body;
        ptrdiff_t n_blocks;
        double seconds;
    } known[64];
    uint64_t hash = ((uint64_t)(uintptr_t)j->body + (uint64_t)j->n_blocks) * 0x9E3779B97F4A7C15u >> 58;
    if (known[hash].body != j->body || known[hash].n_blocks != j->n_blocks) {
        known[hash].body = j->body;
        known[hash].n_blocks = j->n_blocks;
        known[hash].seconds = WAKING;
    }
    return &known[hash].seconds;
}

/* Waking somebody takes microseconds, so short calls do it alone. Which calls are short, the calls before them say: to
 * wait for the first block would make two long blocks take as long as on one thread. */
static pf_status run(job *j)
{
    j->wanted = pf_max_threads(j->n_blocks) - 1;
    if (!j->wanted) return run_blocks(j, j->n_blocks);

    double *seconds = block_seconds(j), rest = (double)(j->n_blocks - 1), start = pf_seconds();
    if (*seconds * rest < WAKING) {
        PF_TRY(run_blocks(j, 1));
        double first = pf_seconds() - start;
        *seconds = PF_MAX(first, *seconds / 2);
        if (first * rest < WAKING) return run_blocks(j, j->n_blocks);
    }
    pf_status status = share_blocks(j);
    double each = (pf_seconds() - start) / (double)PF_MAX(j->done, 1);
    *seconds = PF_MAX(each, *seconds / 2);
    return status;
}

pf_status pf_parallel(ptrdiff_t n_blocks, void (*body)(void *, ptrdiff_t, int), void *arg)
{
    return run(&(job){.body = body, .arg = arg, .n_blocks = n_blocks, .interruptible = 1});
}

void pf_parallel_kernel(ptrdiff_t n_blocks, void (*body)(void *, ptrdiff_t, int), void *arg)
{
    run(&(job){.body = body, .arg = arg, .n_blocks = n_blocks});
}
