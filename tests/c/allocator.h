/* An allocator that counts what the library holds, and fails when it is told to. One file of a program includes it; the
 * program is linked with --wrap for the six functions (see the Makefile), so that the calls of the test and of
 * libpyflow.a come here, and those of other libraries do not. */
#ifndef ALLOCATOR_H
#define ALLOCATOR_H
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Blocks that are in use, in a table of open addressing; guarded by a lock, since kernels allocate in threads too. */
enum { ALLOCATOR_ROOM = 1 << 16 };
static struct {
    pthread_mutex_t lock;
    void *block[ALLOCATOR_ROOM];
    size_t size[ALLOCATOR_ROOM];
    ptrdiff_t blocks;     /* in use */
    size_t bytes, most;   /* in use, and the most that were */
    size_t refused_above; /* a larger block is never given; 0: any */
    ptrdiff_t calls;      /* since somebody set it to 0 */
    ptrdiff_t fail_at;    /* this call fails, counted from 0; -1: none */
    int fail_on;          /* and all calls after it */
    int failed;           /* how often one did */
} allocator = {.lock = PTHREAD_MUTEX_INITIALIZER, .fail_at = -1};

static size_t allocator_place(const void *block)
{
    size_t i = (size_t)((uintptr_t)block / 16 * 0x9E3779B97F4A7C15u >> 48);
    while (allocator.block[i] && allocator.block[i] != block) i = (i + 1) % ALLOCATOR_ROOM;
    return i;
}

static void *allocator_add(void *block, size_t size)
{
    if (!block) return NULL;
    pthread_mutex_lock(&allocator.lock);
    if (++allocator.blocks > ALLOCATOR_ROOM / 2) abort();
    size_t i = allocator_place(block);
    allocator.block[i] = block;
    allocator.size[i] = size;
    allocator.bytes += size;
    if (allocator.bytes > allocator.most) allocator.most = allocator.bytes;
    pthread_mutex_unlock(&allocator.lock);
    return block;
}

/* Returns the block's size, 0 if it is not ours (a string that FFTW has made, say). */
static size_t allocator_remove(void *block)
{
    size_t size = 0;
    pthread_mutex_lock(&allocator.lock);
    size_t i = allocator_place(block), gap = i;
    if (block && allocator.block[i]) {
        size = allocator.size[i];
        allocator.blocks--;
        allocator.bytes -= size;
        allocator.block[i] = NULL;
        /* those behind it that can be nearer to their places move up */
        while (allocator.block[gap = (gap + 1) % ALLOCATOR_ROOM]) {
            void *moved = allocator.block[gap];
            size_t moved_size = allocator.size[gap];
            allocator.block[gap] = NULL;
            size_t to = allocator_place(moved);
            allocator.block[to] = moved;
            allocator.size[to] = moved_size;
        }
    }
    pthread_mutex_unlock(&allocator.lock);
    return size;
}

static int allocator_fails(size_t size)
{
    pthread_mutex_lock(&allocator.lock);
    ptrdiff_t call = allocator.calls++, at = allocator.fail_at;
    int fails = call == at || (at >= 0 && call > at && allocator.fail_on) ||
                (allocator.refused_above && size > allocator.refused_above);
    allocator.failed += fails;
    pthread_mutex_unlock(&allocator.lock);
    if (fails) errno = ENOMEM;
    return fails;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *block, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **block, size_t alignment, size_t size);
void __real_free(void *block);

void *__wrap_malloc(size_t size) { return allocator_fails(size) ? NULL : allocator_add(__real_malloc(size), size); }

void *__wrap_calloc(size_t n, size_t size)
{
    return allocator_fails(n * size) ? NULL : allocator_add(__real_calloc(n, size), n * size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return allocator_fails(size) ? NULL : allocator_add(__real_aligned_alloc(alignment, size), size);
}

int __wrap_posix_memalign(void **block, size_t alignment, size_t size)
{
    if (allocator_fails(size)) return ENOMEM;
    int failed = __real_posix_memalign(block, alignment, size);
    if (!failed) allocator_add(*block, size);
    return failed;
}

void *__wrap_realloc(void *block, size_t size)
{
    if (allocator_fails(size)) return NULL;
    size_t before = allocator_remove(block);
    void *grown = __real_realloc(block, size);
    allocator_add(grown ? grown : block, grown ? size : before);
    return grown;
}

void __wrap_free(void *block)
{
    allocator_remove(block);
    __real_free(block);
}
#endif
