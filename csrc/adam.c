/* Adam: see adam.h. */
#ifndef real
#include "adam.h"

enum { BLOCK = 16384 };

static ptrdiff_t blocks_of(ptrdiff_t n) { return (n + BLOCK - 1) / BLOCK; }

double pf_cosine_schedule(ptrdiff_t step, ptrdiff_t total, double warmup)
{
    double rise = warmup * (double)total, at = (double)step + 0.5;
    if (at < rise) return at / rise;
    return 0.5 * (1 + cos(M_PI * (at - rise) / ((double)total - rise)));
}

double pf_clip(double *mean, double length, double clip)
{
    double factor = clip > 0 && *mean > 0 && length > clip * *mean ? clip * *mean / length : 1;
    *mean = *mean > 0 ? 0.98 * *mean + 0.02 * factor * length : length;
    return factor;
}

#define TWICE "adam.c"
#include "twice.h"
#else

pf_status X(adam_init)(X(adam) *a, ptrdiff_t n)
{
    a->n = n;
    a->steps = 0;
    a->m = PF_CALLOC(real, n);
    a->v = PF_CALLOC(real, n);
    a->part = PF_CALLOC(double, blocks_of(n));
    return a->m && a->v && a->part ? PF_OK : PF_NO_MEMORY;
}

void X(adam_clear)(X(adam) *a)
{
    free(a->m);
    free(a->v);
    free(a->part);
}

typedef struct {
    X(adam) *adam;
    real *w;
    const real *g;
    double factor, rate, decay;
} X(adam_job);

PF_KERNEL void X(adam_sum_body)(double *sum, const real *g, ptrdiff_t n)
{
    double part[16] = {0};
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) part[l] += (double)g[i + l] * (double)g[i + l];
    *sum = 0;
    for (; i < n; i++) *sum += (double)g[i] * (double)g[i];
    for (int l = 0; l < 16; l++) *sum += part[l];
}
PF_DISPATCH(X(adam_sum), (double *sum, const real *g, ptrdiff_t n), (sum, g, n))

static void X(square_block)(void *arg, ptrdiff_t block, int thread)
{
    (void)thread;
    X(adam_job) *job = arg;
    ptrdiff_t at = block * BLOCK;
    X(adam_sum)(job->adam->part + block, job->g + at, PF_MIN(BLOCK, job->adam->n - at));
}

pf_status X(adam_square)(double *square, X(adam) *a, const real *g)
{
    X(adam_job) job = {.adam = a, .g = g};
    *square = 0;
    PF_TRY(pf_parallel(blocks_of(a->n), X(square_block), &job));
    for (ptrdiff_t b = 0; b < blocks_of(a->n); b++) *square += a->part[b];
    return PF_OK;
}

/* m and v forget at 0.9 and 0.999; rate holds their corrections for the short history of the first steps. */
PF_KERNEL void X(adam_update_body)(real *restrict w, real *restrict m, real *restrict v, const real *restrict g,
                                   real factor, real rate, real shrink, real epsilon, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        real a = factor * g[i];
        m[i] += (real)0.1 * (a - m[i]);
        v[i] += (real)0.001 * (a * a - v[i]);
        w[i] = shrink * w[i] + rate * m[i] / (R(sqrt)(v[i]) + epsilon);
    }
}
PF_DISPATCH(X(adam_update),
            (real * w, real *m, real *v, const real *g, real factor, real rate, real shrink, real epsilon, ptrdiff_t n),
            (w, m, v, g, factor, rate, shrink, epsilon, n))

static void X(step_block)(void *arg, ptrdiff_t block, int thread)
{
    (void)thread;
    X(adam_job) *job = arg;
    X(adam) *a = job->adam;
    ptrdiff_t at = block * BLOCK;
    double t = (double)a->steps, first = 1 - pow(0.9, t), second = sqrt(1 - pow(0.999, t));
    X(adam_update)(job->w + at, a->m + at, a->v + at, job->g + at, (real)job->factor,
                   (real)(job->rate * second / first), (real)PF_MAX(1 - job->rate * job->decay, 0),
                   (real)(1e-8 * second), PF_MIN(BLOCK, a->n - at));
}

pf_status X(adam_step)(X(adam) *a, real *w, const real *g, double factor, double rate, double decay)
{
    a->steps++;
    X(adam_job) job = {.adam = a, .w = w, .g = g, .factor = factor, .rate = rate, .decay = decay};
    return pf_parallel(blocks_of(a->n), X(step_block), &job);
}
#endif
