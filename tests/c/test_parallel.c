/* The thread pool: every block once and by whom, calls within calls, interruption, and forks. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "fft.h"

enum { THREADS = 4, BLOCKS = 1000 };

/* ---- blocks and threads ----------------------------------------------------------------------------------- */

typedef struct {
    atomic_int times[BLOCKS], here[THREADS]; /* how often a block was run; who is in the body now */
    atomic_int wrong, pause;
} record;

static void keep_record(void *arg, ptrdiff_t block, int thread)
{
    record *r = arg;
    if (thread < 0 || thread >= THREADS || atomic_fetch_add(r->here + thread, 1)) atomic_fetch_add(&r->wrong, 1);
    else {
        atomic_fetch_add(r->times + block, 1);
        if (r->pause) usleep(100);
        atomic_fetch_sub(r->here + thread, 1);
    }
}

static void test_every_block_once(void)
{
    static record r;
    for (int n = 0; n <= BLOCKS; n = n < 5 ? n + 1 : 10 * n)
        for (int pause = 0; pause < 2; pause++)
            for (int again = 0; again < 3; again++) {
                memset(&r, 0, sizeof r);
                r.pause = pause;
                CHECK(pf_parallel(n, keep_record, &r) == PF_OK, "%s", pf_message());
                int once = 1;
                for (int i = 0; i < BLOCKS; i++) once &= r.times[i] == (i < n);
                CHECK(once && !r.wrong, "%d blocks: %d had a thread number that another thread had", n, r.wrong);
            }
}

/* A block that ends when all others have begun: side by side or never. */
typedef struct {
    int blocks;
    atomic_int begun, late;
} meeting;

static void meet(void *arg, ptrdiff_t block, int thread)
{
    meeting *m = arg;
    (void)block, (void)thread;
    double start = pf_seconds();
    atomic_fetch_add(&m->begun, 1);
    while (atomic_load(&m->begun) < m->blocks) {
        usleep(50);
        if (pf_seconds() - start > 10) {
            atomic_fetch_add(&m->late, 1);
            return;
        }
    }
}

/* Whether so many blocks meet; each number of blocks is new to the pool. */
static int meets(int blocks)
{
    meeting m = {.blocks = blocks};
    pf_parallel(blocks, meet, &m);
    return !m.late;
}

static void test_long_blocks_run_side_by_side(void)
{
    for (int blocks = 2; blocks <= THREADS; blocks++) CHECK(meets(blocks), "%d blocks", blocks);
    CHECK(meets(THREADS), "known to be long");
}

static void test_omp_num_threads(void)
{
    int before = pf_get_num_threads();
    pf_set_num_threads(0);
    setenv("OMP_NUM_THREADS", "3", 1);
    CHECK(pf_get_num_threads() == 3 && pf_max_threads(100) == 3 && pf_max_threads(2) == 2, "%d", pf_get_num_threads());
    CHECK(meets(3), "three threads");
    setenv("OMP_NUM_THREADS", "1", 1);
    CHECK(pf_get_num_threads() == 1, "%d", pf_get_num_threads());
    for (const char *const *bad = (const char *const[]){"0", "-2", "", "many", NULL}; *bad; bad++) {
        setenv("OMP_NUM_THREADS", *bad, 1);
        CHECK(pf_get_num_threads() >= 1, "OMP_NUM_THREADS=%s: %d", *bad, pf_get_num_threads());
    }
    unsetenv("OMP_NUM_THREADS");
    pf_set_num_threads(before);
}

/* ---- calls within calls ----------------------------------------------------------------------------------- */

typedef struct {
    pthread_t owner;
    atomic_int runs, wrong, most;
} nest;

static void inner(void *arg, ptrdiff_t block, int thread)
{
    nest *n = arg;
    (void)block;
    atomic_fetch_add(&n->runs, 1);
    if (thread || !pthread_equal(n->owner, pthread_self())) atomic_fetch_add(&n->wrong, 1);
}

static void outer(void *arg, ptrdiff_t block, int thread)
{
    nest *total = arg, own = {.owner = pthread_self()};
    (void)block, (void)thread;
    usleep(200);
    own.most = pf_max_threads(BLOCKS);
    own.wrong = pf_parallel(BLOCKS, inner, &own) != PF_OK;
    pf_parallel_kernel(BLOCKS, inner, &own);
    atomic_fetch_add(&total->runs, own.runs);
    atomic_fetch_add(&total->wrong, own.wrong);
    if (own.most > total->most) total->most = own.most;
}

static void outer_alone(void *arg, ptrdiff_t block, int thread)
{
    int *met = arg;
    (void)block;
    CHECK(pf_max_threads(BLOCKS) == THREADS && thread == 0, "%d %d", pf_max_threads(BLOCKS), thread);
    meeting m = {.blocks = THREADS};
    pf_parallel_kernel(THREADS, meet, &m);
    *met = !m.late;
}

static void test_nested_calls(void)
{
    nest n = {.most = 0};
    CHECK(pf_parallel(20, outer, &n) == PF_OK, "%s", pf_message());
    CHECK(n.runs == 20 * 2 * BLOCKS && !n.wrong && n.most == 1, "%d runs, %d wrong, %d", n.runs, n.wrong, n.most);
    CHECK(pf_max_threads(BLOCKS) == THREADS, "%d", pf_max_threads(BLOCKS));
    int met = 0;
    CHECK(pf_parallel(1, outer_alone, &met) == PF_OK && met, "a call of one block is in the way of those within it");
}

/* ---- interruption and failure ----------------------------------------------------------------------------- */

static int stop(void *user)
{
    int *asked = user;
    ++*asked;
    return 1;
}

static void slow(void *arg, ptrdiff_t block, int thread)
{
    atomic_int *runs = arg;
    (void)block, (void)thread;
    usleep(1000);
    atomic_fetch_add(runs, 1);
}

/* In a body and in a kernel nobody is asked; what is nested is done to its end. */
static void nested_slow(void *arg, ptrdiff_t block, int thread)
{
    (void)block, (void)thread;
    if (pf_parallel(300, slow, arg)) CHECK(0, "%s", "a body was interrupted");
}

static void test_interruption(void)
{
    int asked = 0;
    for (int threads = 1; threads <= THREADS; threads += THREADS - 1) {
        pf_set_num_threads(threads);
        atomic_int runs = 0;
        pf_set_interrupt(stop, &asked);
        pf_begin();
        CHECK(pf_end(pf_parallel(BLOCKS, slow, &runs)) == PF_INTERRUPTED, "%d threads", threads);
        CHECK(runs > 0 && runs < BLOCKS && asked == 1 && !strcmp(pf_message(), "interrupted"), "%d", runs);
        for (int blocks = 1; blocks <= 2; blocks++) {
            runs = asked = 0;
            pf_set_interrupt(stop, &asked);
            CHECK(pf_parallel(blocks, nested_slow, &runs) == PF_INTERRUPTED, "%d threads", threads);
            CHECK(runs % 300 == 0 && runs && asked == 1, "%d runs, asked %d times", runs, asked);
        }
        runs = asked = 0;
        pf_set_interrupt(stop, &asked);
        pf_parallel_kernel(100 * THREADS, slow, &runs);
        CHECK(runs == 100 * THREADS && !asked, "%d runs, asked %d times", runs, asked);
        pf_set_interrupt(NULL, NULL);
        CHECK(pf_get_num_threads() == threads && pf_max_threads(BLOCKS) == threads, "%d", pf_get_num_threads());
        CHECK(pf_parallel(2, slow, &runs) == PF_OK && runs == 100 * THREADS + 2, "%d", runs);
        asked = 0;
    }
}

/* A call keeps the number of threads that it began with; when it has ended, well or badly, the new number holds. */
static void test_a_call_keeps_its_threads(void)
{
    pf_begin();
    pf_set_num_threads(2);
    CHECK(pf_max_threads(BLOCKS) == THREADS, "%d", pf_max_threads(BLOCKS));
    CHECK(pf_fft_wisdom_load("/nowhere/wisdom") == PF_IO_ERROR, "%s", pf_message()); /* a call within it, that fails */
    CHECK(pf_max_threads(BLOCKS) == THREADS, "%d", pf_max_threads(BLOCKS));
    pf_end(PF_BAD_ARGUMENT);
    CHECK(pf_max_threads(BLOCKS) == 2, "%d", pf_max_threads(BLOCKS));
    pf_set_num_threads(THREADS);
}

/* ---- forks ------------------------------------------------------------------------------------------------ */

/* The exit status of a child, -1 if it takes longer than any machine needs. */
static int status_of(pid_t child)
{
    int status;
    for (double start = pf_seconds(); pf_seconds() - start < 30; usleep(1000))
        if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return -1;
}

static void fill(void *arg, ptrdiff_t block, int thread)
{
    float *x = arg;
    (void)thread;
    x[block] = (float)(block % 17);
}

/* A mesh that is new to the planner, there and back. */
static int transform(ptrdiff_t n0)
{
    ptrdiff_t n[2] = {n0, 24};
    const pf32_fft *p = pf32_fft_plan(2, n);
    if (!p) return 2;
    float *x = PF_ALLOC(float, p->pixels), *s = PF_ALLOC(float, p->spectrum), *w = PF_ALLOC(float, p->work), worst = 0;
    pf_parallel(p->pixels, fill, x);
    pf32_fft_forward(p, s, x, w);
    pf32_fft_inverse(p, x, s, w);
    for (ptrdiff_t i = 0; i < p->pixels; i++) worst = fmaxf(worst, fabsf(x[i] - (float)(i % 17)));
    free(x), free(s), free(w);
    return worst > 1e-4f;
}

typedef struct {
    atomic_int stop, wrong;
    ptrdiff_t first;
} planner;

static void *plan_meshes(void *arg)
{
    planner *p = arg;
    for (ptrdiff_t n = p->first; !p->stop; n++) p->wrong += transform(n) != 0;
    return NULL;
}

static void test_forks_while_others_plan(void)
{
#ifdef __SANITIZE_ADDRESS__
    return; /* a child may find the locks of the sanitizer's own malloc() taken */
#endif
    for (int measured = 0; measured < 2; measured++) {
        pf_fft_measure(measured);
        planner planners[2] = {{.first = measured ? 20 : 2000}, {.first = measured ? 220 : 12000}};
        pthread_t threads[2];
        for (int i = 0; i < 2; i++) pthread_create(threads + i, NULL, plan_meshes, planners + i);
        for (int i = 0; i < (measured ? 4 : 40); i++) {
            usleep(500 + 137 * (useconds_t)i);
            pid_t child = fork();
            if (!child) {
                pf_fft_measure(0);
                _exit(transform(1000 + i));
            }
            int status = status_of(child);
            CHECK(status == 0, "child %d: %d", i, status);
            if (status) break;
        }
        for (int i = 0; i < 2; i++) {
            planners[i].stop = 1;
            pthread_join(threads[i], NULL);
            CHECK(!planners[i].wrong, "%d", planners[i].wrong);
        }
    }
    pf_fft_measure(0);
}

/* A process that forks in its interrupt check, as a signal's handler may: the child has lost what its parent's threads
 * were at, and says so; the parent goes on. */
static pid_t forked_in_check;

static int fork_once(void *user)
{
    int *done = user;
    if (!*done) {
        *done = 1;
        forked_in_check = fork();
    }
    return 0;
}

static void test_a_fork_within_a_call(void)
{
    int done = 0;
    atomic_int runs = 0;
    pf_set_interrupt(fork_once, &done);
    pf_status status = pf_parallel(400, slow, &runs);
    pf_set_interrupt(NULL, NULL);
    if (done && !forked_in_check) _exit(status == PF_INTERRUPTED ? transform(50) : 3);
    CHECK(done && status == PF_OK && runs == 400, "%d %d %d", done, status, runs);
    int child = status_of(forked_in_check);
    CHECK(child == 0, "%d", child);
}

int main(void)
{
    pf_set_num_threads(THREADS);
    test_every_block_once();
    test_long_blocks_run_side_by_side();
    test_omp_num_threads();
    test_nested_calls();
    test_interruption();
    test_a_call_keeps_its_threads();
    test_forks_while_others_plan();
    test_a_fork_within_a_call();
    return check_result();
}
