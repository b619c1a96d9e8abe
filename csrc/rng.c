/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror & Shaw, SC 2011). There is no state: number i of a
 * stream is a function of (key, stream, i), so a sample does not depend on threads, batches or what was drawn before. */
#include "internal.h"

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

/* The middle of one of 2^52 equal cells of (0, 1): never 0, never 1. */
static double uniform(uint32_t hi, uint32_t lo)
{
    uint64_t bits = ((uint64_t)hi << 32 | lo) >> 12;
    return ((double)bits + 0.5) * 0x1p-52;
}

void pf_normals(double *z, uint64_t key, uint64_t stream, uint64_t first, ptrdiff_t n)
{
    uint32_t w[4];
    for (ptrdiff_t i = 0; i < n; i++) {
        uint64_t number = first + (uint64_t)i;
        if (i == 0 || number % 2 == 0) pf_philox(w, key, stream, number / 2);
        z[i] = number % 2 ? pf_normal_quantile(uniform(w[2], w[3])) : pf_normal_quantile(uniform(w[0], w[1]));
    }
}

uint64_t pf_uniform_int(uint64_t key, uint64_t stream, uint64_t i, uint64_t bound)
{
    uint32_t w[4];
    pf_philox(w, key, stream, i);
    return (uint64_t)(((unsigned __int128)((uint64_t)w[0] << 32 | w[1]) * bound) >> 64); /* bias below bound / 2^64 */
}
