/* The search for slices: gradient ascent along Cayley curves of the Stiefel manifold, with a backtracking line search
 * (Dai & Seljak 2021, Algorithm 1; Wen & Yin 2013). With slices as columns of A in R^(d x K), gradient G and
 * W = G A^T - A G^T = U V^T, U = [G, A], V = [A, -G], the curve
 *
 *     A(t) = (I - t/2 W)^-1 (I + t/2 W) A = A + t U (I - t/2 V^T U)^-1 V^T A
 *
 * keeps A^T A = I and starts uphill: dF/dt = |W|^2 / 2. It takes a solve of 2K equations; of d where d < 2K. */
#include "stiefel.h"

#include "blas.h"

/* Gram and Schmidt's way, modified, once over n rows. */
static void gram_schmidt(double *a, ptrdiff_t n, ptrdiff_t d)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        for (ptrdiff_t j = 0; j < i; j++) {
            double dot = 0;
            for (ptrdiff_t c = 0; c < d; c++) dot += a[i * d + c] * a[j * d + c];
            for (ptrdiff_t c = 0; c < d; c++) a[i * d + c] -= dot * a[j * d + c];
        }
        double norm = 0;
        for (ptrdiff_t c = 0; c < d; c++) norm += a[i * d + c] * a[i * d + c];
        norm = 1 / sqrt(norm);
        for (ptrdiff_t c = 0; c < d; c++) a[i * d + c] *= norm;
    }
}

/* By blocks of rows, so that for large K nearly all of it is matrix products; and twice, which is enough. */
void pf_stiefel_orthonormalise(double *a, ptrdiff_t k, ptrdiff_t d)
{
    enum { BLOCK = 32 };
    double dot[BLOCK * BLOCK];
    for (ptrdiff_t i = 0; i < k; i += BLOCK) {
        double *rows = a + i * d;
        ptrdiff_t n = PF_MIN(k - i, BLOCK);
        for (int pass = 0; pass < 2; pass++) {
            for (ptrdiff_t j = 0; j < i; j += BLOCK) {
                pf64_gemm(dot, rows, a + j * d, 0, 1, 0, n, BLOCK, d, BLOCK, d, d);
                for (ptrdiff_t c = 0; c < n * BLOCK; c++) dot[c] = -dot[c];
                pf64_gemm(rows, dot, a + j * d, 0, 0, 1, n, d, BLOCK, d, BLOCK, d);
            }
            gram_schmidt(rows, n, d);
        }
    }
}

pf_status pf_stiefel_random(double *a, ptrdiff_t k, ptrdiff_t d, uint64_t seed, uint64_t stream)
{
    pf_normals(a, seed, stream, 0, k * d);
    pf_stiefel_orthonormalise(a, k, d);
    return PF_OK;
}

/* Pair by pair of slices: what a pair changes, orthonormal slices do not see in the products of the others. */
void pf_stiefel_project(double *g, const double *a, ptrdiff_t k, ptrdiff_t d)
{
    for (ptrdiff_t i = 0; i < k; i++)
        for (ptrdiff_t j = 0; j <= i; j++) {
            double ij = 0, ji = 0;
            for (ptrdiff_t c = 0; c < d; c++) ij += a[i * d + c] * g[j * d + c], ji += a[j * d + c] * g[i * d + c];
            double half = 0.5 * (ij + ji) * (i == j ? 0.5 : 1);
            for (ptrdiff_t c = 0; c < d; c++) {
                g[i * d + c] -= half * a[j * d + c];
                g[j * d + c] -= half * a[i * d + c];
            }
        }
}

typedef struct {
    ptrdiff_t k, d, r; /* r = 2 K rows of U and V, or d */
    double *u, *v;     /* [2K][d] */
    double *vu, *va;   /* [r][r] V^T U or W; [r][K] V^T A */
    double *m, *s;     /* [r][r], [r][d or K] scratch of a solve */
    double slope;      /* dF/dt at t = 0 */
} curve;

/* The curve through a[K][d] with gradient g[K][d]. */
static void curve_start(curve *c, const double *a, const double *g)
{
    ptrdiff_t k = c->k, d = c->d;
    c->slope = 0;
    if (c->r == d) { /* W itself */
        pf64_gemm(c->vu, g, a, 1, 0, 0, d, d, k, d, d, d);
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = 0; j < i; j++) {
                double w = c->vu[i * d + j] - c->vu[j * d + i];
                c->vu[i * d + j] = w;
                c->vu[j * d + i] = -w;
                c->slope += w * w;
            }
        for (ptrdiff_t i = 0; i < d; i++) c->vu[i * d + i] = 0;
        return;
    }
    for (ptrdiff_t i = 0; i < k * d; i++) {
        c->u[i] = g[i], c->u[k * d + i] = a[i];
        c->v[i] = a[i], c->v[k * d + i] = -g[i];
    }
    pf64_gemm(c->vu, c->v, c->u, 0, 1, 0, 2 * k, 2 * k, d, 2 * k, d, d);
    pf64_gemm(c->va, c->v, a, 0, 1, 0, 2 * k, k, d, k, d, d);
    /* |W|^2 / 2 = tr(U V^T V U^T) / 2 = |G|^2 - tr((A^T G)^2), from the blocks of V^T U = [A'G, A'A; -G'G, -G'A] */
    for (ptrdiff_t i = 0; i < k; i++) {
        c->slope -= c->vu[(k + i) * 2 * k + i];
        for (ptrdiff_t j = 0; j < k; j++) c->slope -= c->vu[i * 2 * k + j] * c->vu[j * 2 * k + i];
    }
}

/* out[K][d] = A(t) */
static pf_status curve_at(curve *c, double *out, const double *a, double t)
{
    ptrdiff_t k = c->k, d = c->d, r = c->r;
    for (ptrdiff_t i = 0; i < r * r; i++) c->m[i] = -0.5 * t * c->vu[i];
    for (ptrdiff_t i = 0; i < r; i++) c->m[i * r + i] += 1;
    if (r == d) { /* (I - t/2 W) A(t) = (I + t/2 W) A, with A's columns in the rows of a */
        pf64_gemm(c->s, c->vu, a, 0, 1, 0, d, k, d, k, d, d);
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = 0; j < k; j++) c->s[i * k + j] = a[j * d + i] + 0.5 * t * c->s[i * k + j];
        if (pf_solve(c->s, c->m, d, k))
            return pf_fail(PF_NO_MEMORY, "the search for slices failed to solve its equations");
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t j = 0; j < k; j++) out[j * d + i] = c->s[i * k + j];
        return PF_OK;
    }
    memcpy(c->s, c->va, (size_t)(r * k) * sizeof *c->s);
    if (pf_solve(c->s, c->m, r, k)) return pf_fail(PF_NO_MEMORY, "the search for slices failed to solve its equations");
    for (ptrdiff_t i = 0; i < r * k; i++) c->s[i] *= t;
    memcpy(out, a, (size_t)(k * d) * sizeof *out);
    pf64_gemm(out, c->s, c->u, 1, 0, 1, k, d, r, d, k, d);
    return PF_OK;
}

pf_status pf_stiefel_ascend(double *a, double *value, ptrdiff_t k, ptrdiff_t d, ptrdiff_t steps, double tolerance,
                            const pf_slice_objective *objective)
{
    curve c = {.k = k, .d = d, .r = PF_MIN(2 * k, d)};
    ptrdiff_t r = c.r;
    double *memory = PF_ALLOC(double, 2 * k * d + 4 * k * d + 2 * r * r + r * k + r * k);
    if (!memory) return PF_NO_MEMORY;
    double *g = memory, *next = g + k * d;
    c.u = next + k * d, c.v = c.u + 2 * k * d, c.vu = c.v + 2 * k * d, c.m = c.vu + r * r, c.va = c.m + r * r;
    c.s = c.va + r * k;

    const double enough = 0.3; /* part of the first-order gain that a step must reach */
    pf_status status = objective->value(objective->user, value, a);
    double t = 0;
    for (ptrdiff_t step = 0; step < steps && !status; step++) {
        status = objective->gradient(objective->user, g, a);
        if (status) break;
        curve_start(&c, a, g);
        if (!(c.slope > 0) || !isfinite(c.slope)) break;
        if (step == 0) t = 0.5 / sqrt(c.slope); /* turn by about half a radian */
        double before = *value;
        int tries = 0;
        for (; tries < 30; tries++, t *= 0.5) {
            status = curve_at(&c, next, a, t);
            if (!status) status = objective->value(objective->user, value, next);
            if (status || *value >= before + enough * t * c.slope) break;
        }
        if (status || tries == 30) break;
        memcpy(a, next, (size_t)(k * d) * sizeof *a);
        if (*value - before < tolerance * *value) break;
        if (tries == 0) t *= 2;
    }
    pf_stiefel_orthonormalise(a, k, d);
    free(memory);
    return status;
}
