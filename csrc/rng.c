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
 * instructions, and has the same bits, whatever it is drawn with. */
enum { GROUP = 8 }; /* counters: as many as the widest vector holds */

/* cell[2 n] of counter[n] and stream[n], n a multiple of GROUP. Each 64-bit lane has a 32-bit word in its lower half
 * and anything in its upper one. Compilers don't see that the product of lower halves is one instruction; thus
 * intrinsics. */
#define CELLS(name, lanes, multiply)                                                                                   \
    static void name(uint64_t *cell, uint64_t key, const uint64_t *counter, const uint64_t *stream, ptrdiff_t n)       \
    {                                                                                                                  \
        typedef uint64_t vector __attribute__((vector_size(8 * lanes)));                                               \
        const vector zero = {0}, m0 = zero + 0xD2511F53u, m1 = zero + 0xCD9E8D57u, low = zero + 0xffffffffu;           \
        for (ptrdiff_t at = 0; at < n; at += lanes) {                                                                  \
            vector c0, c1, c2, c3;                                                                                     \
            memcpy(&c0, counter + at, sizeof c0);                                                                      \
            memcpy(&c2, stream + at, sizeof c2);                                                                       \
            c1 = c0 >> 32;                                                                                             \
            c3 = c2 >> 32;                                                                                             \
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

    static void cells(uint64_t *cell, uint64_t key, const uint64_t *counter, const uint64_t *stream, ptrdiff_t n)
{
    if (pf_simd_level == 5) cells_avx512(cell, key, counter, stream, n);
    else if (pf_simd_level == 2) cells_avx2(cell, key, counter, stream, n);
    else cells_base(cell, key, counter, stream, n);
}
#else
#define MULTIPLY(a, b) (((a)&low) * (b))
CELLS(cells, 2, MULTIPLY)
#endif

void pf_normal_rows(double *z, uint64_t key, uint64_t stream, uint64_t first, ptrdiff_t rows, ptrdiff_t n)
{
    uint64_t counter[PF_CELLS / 2], streams[PF_CELLS / 2], cell[PF_CELLS];
    double chunk[PF_CELLS];
    ptrdiff_t skip = first % 2, per_row = (skip + n + 1) / 2; /* numbers not wanted; counters */
    if (n < 1) return;
    for (ptrdiff_t row = 0, c = 0; row < rows;) {
        ptrdiff_t from_row = row, from_c = c, count = 0;
        for (; count < PF_CELLS / 2 && row < rows; count++) {
            counter[count] = first / 2 + (uint64_t)c;
            streams[count] = stream + (uint64_t)row;
            if (++c == per_row) row++, c = 0;
        }
        ptrdiff_t padded = (count + GROUP - 1) / GROUP * GROUP;
        for (ptrdiff_t i = count; i < padded; i++) counter[i] = streams[i] = 0;
        cells(cell, key, counter, streams, padded);
        pf_normal_quantiles(chunk, cell, 2 * padded);
        for (ptrdiff_t i = 0; i < count; from_row++, from_c = 0) {
            ptrdiff_t here = PF_MIN(per_row - from_c, count - i);
            ptrdiff_t begin = PF_MAX(2 * from_c, skip), end = PF_MIN(2 * (from_c + here), skip + n);
            memcpy(z + from_row * n + begin - skip, chunk + 2 * (i - from_c) + begin,
                   (size_t)(end - begin) * sizeof *z);
            i += here;
        }
    }
}

void pf_normals(double *z, uint64_t key, uint64_t stream, uint64_t first, ptrdiff_t n)
{
    pf_normal_rows(z, key, stream, first, 1, n);
}

uint64_t pf_uniform_int(uint64_t key, uint64_t stream, uint64_t i, uint64_t bound)
{
    uint32_t w[4];
    pf_philox(w, key, stream, i);
    return (uint64_t)(((unsigned __int128)((uint64_t)w[0] << 32 | w[1]) * bound) >> 64); /* bias below bound / 2^64 */
}
