/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror & Shaw, SC 2011). There is no state: number i of a
 * stream is a function of (key, stream, i), so a sample does not depend on threads, batches or what was drawn before. */
#include "internal.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

void pf_philox(uint32_t out[4], uint64_t key, uint64_t stream, uint64_t counter)
{
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = (uint32_t)stream,
             c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Numbers 2 c and 2 c + 1 of a stream are the normal quantiles of the words of counter c, of 52 bits each: as so many
 * equal cells of (0, 1). Counters are done side by side, in whole groups, so that a number is the outcome of the same
 * instructions, and has the same bits, wherever one starts. */
enum { GROUP = 8 }; /* counters */

/* cell[2 counters], counters a multiple of GROUP. Each 64-bit lane has a word of a counter in its lower half and
 * anything in its upper one. Compilers don't see that the product of lower halves is one instruction; thus intrinsics.
 */
#define CELLS(name, lanes, multiply)                                                                                   \
    static void name(uint64_t *cell, uint64_t key, uint64_t stream, uint64_t counter, ptrdiff_t counters)              \
    {                                                                                                                  \
        typedef uint64_t vector __attribute__((vector_size(8 * lanes)));                                               \
        const vector zero = {0}, m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u, low = zero + 0xffffffffu;           \
        for (ptrdiff_t at = 0; at < counters; at += lanes) {                                                           \
            vector c0 = zero, c1, c2 = zero + stream, c3 = zero + (stream >> 32);                                      \
            for (int i = 0; i < lanes; i++) c0[i] = counter + (uint64_t)(at + i);                                      \
            c1 = c0 >> 32;                                                                                             \
            uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);                                                   \
            for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {                           \
                vector p0 = multiply(c0, m0), p1 = multiply(c2, m1);                                                   \
                c0 = p1 >> 32 ^ c1 ^ k0;                                                                               \
                c1 = p1;                                                                                               \
                c2 = p0 >> 32 ^ c3 ^ k1;                                                                               \
                c3 = p0;                                                                                               \
            }                                                                                                          \
            vector even = (c0 << 32 | (c1 & low)) >> 12, odd = (c2 << 32 | (c3 & low)) >> 12;                          \
            for (int i = 0; i < lanes; i++) cell[2 * (at + i)] = even[i], cell[2 * (at + i) + 1] = odd[i];             \
        }                                                                                                              \
    }

#if defined(__x86_64__) && defined(__GNUC__)
#define MULTIPLY_2(a, b) ((vector)_mm_mul_epu32((__m128i)(a), (__m128i)(b)))
#define MULTIPLY_4(a, b) ((vector)_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
#define MULTIPLY_8(a, b) ((vector)_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
CELLS(cells_base, 2, MULTIPLY_2)
__attribute__((target("avx2,fma"))) CELLS(cells_avx2, 4, MULTIPLY_4) PF_AVX512 CELLS(cells_avx512, 8, MULTIPLY_8)

    static void cells(uint64_t *cell, uint64_t key, uint64_t stream, uint64_t counter, ptrdiff_t counters)
{
    if (pf_simd_level == 5) cells_avx512(cell, key, stream, counter, counters);
    else if (pf_simd_level == 2) cells_avx2(cell, key, stream, counter, counters);
    else cells_base(cell, key, stream, counter, counters);
}
#else
#define MULTIPLY(a, b) (((a)&low) * (b))
CELLS(cells, 2, MULTIPLY)
#endif

void pf_normals(double *z, uint64_t key, uint64_t stream, uint64_t first, ptrdiff_t n)
{
    uint64_t cell[PF_CELLS];
    double chunk[PF_CELLS];
    for (ptrdiff_t skip = first % 2; n > 0; skip = 0) {
        ptrdiff_t count = PF_MIN(n, PF_CELLS - skip), counters = (skip + count + 2 * GROUP - 1) / (2 * GROUP) * GROUP;
        cells(cell, key, stream, first / 2, counters);
        pf_normal_quantiles(chunk, cell, 2 * counters);
        memcpy(z, chunk + skip, (size_t)count * sizeof *z);
        z += count;
        n -= count;
        first += (uint64_t)count;
    }
}

uint64_t pf_uniform_int(uint64_t key, uint64_t stream, uint64_t i, uint64_t bound)
{
    uint32_t w[4];
    pf_philox(w, key, stream, i);
    return (uint64_t)(((unsigned __int128)((uint64_t)w[0] << 32 | w[1]) * bound) >> 64); /* bias below bound / 2^64 */
}
