/* Mixtures of flows where log p is asked for within the core: log sum_k w_k p_k(x|y), of the same points with the same
 * noise at the same conditions. */
#ifndef real
#include "train.h"

#define TWICE "mixture.c"
#include "twice.h"
#else

struct X(mixed) {
    ptrdiff_t n;
    X(trainer) *trainer; /* [n] */
    double *log_weight;  /* [n + 1], the first that of the trainer which this is part of */
};

void X(mixed_free)(X(mixed) *m)
{
    if (!m) return;
    for (ptrdiff_t k = 0; k < m->n; k++) X(trainer_clear)(m->trainer + k);
    free(m->trainer);
    free(m->log_weight);
    free(m);
}

static int X(go_together)(const X(flow) *a, const X(flow) *b)
{
    return a->space.d == b->space.d && a->space.ndim == b->space.ndim && a->classes == b->classes &&
           !memcmp(a->space.n, b->space.n, (size_t)a->space.ndim * sizeof *a->space.n) &&
           X(flow_conditions)(a) == X(flow_conditions)(b) && a->noise_condition == b->noise_condition &&
           !X(flow_context)(a) == !X(flow_context)(b);
}

/* The prior's box is that which the conditions of all span. */
static void X(widen_range)(X(flow) *f, const X(flow) *other)
{
    ptrdiff_t n_y = X(flow_conditions)(f);
    double *range = f->net ? f->net->stats + 2 * n_y : NULL;
    const double *wide = X(flow_range)(other);
    for (ptrdiff_t j = 0; j < n_y; j++) {
        range[j] = PF_MIN(range[j], wide[j]);
        range[n_y + j] = PF_MAX(range[n_y + j], wide[n_y + j]);
    }
}

pf_status X(trainer_mix)(X(trainer) *t, const X(members) *others)
{
    X(mixed) *m = t->mixed = PF_CALLOC(X(mixed), 1);
    if (!m) return PF_NO_MEMORY;
    m->trainer = PF_CALLOC(X(trainer), others->n);
    m->log_weight = PF_ALLOC(double, others->n + 1);
    if (!m->trainer || !m->log_weight) return PF_NO_MEMORY;
    for (ptrdiff_t k = 0; k <= others->n; k++) {
        if (!(others->weight[k] > 0) || !isfinite(others->weight[k]))
            return pf_fail(PF_BAD_ARGUMENT, "weights: number %td is not positive", k);
        m->log_weight[k] = log(others->weight[k]);
    }
    for (; m->n < others->n; m->n++) {
        X(flow) *f = others->flow[m->n];
        if (!X(go_together)(t->flow, f))
            return pf_fail(PF_BAD_ARGUMENT, "flows: number %td is of other points than the first", m->n + 1);
        PF_TRY(X(check_points)(t->data, f, X(flow_mask)(f), t->n_y, "held_out"));
        X(widen_range)(t->flow, f);
        m->trainer[m->n].data = t->data;
        pf_status status = X(trainer_init)(m->trainer + m->n, f, t->o, NET_ROWS, t->n_y, 0);
        if (status) {
            m->n++; /* to be cleared too */
            return status;
        }
    }
    return PF_OK;
}

/* t->logp of the block holds log p of the first member. */
pf_status X(mixed_block)(X(trainer) *t, ptrdiff_t first, ptrdiff_t n, const double *y)
{
    X(mixed) *m = t->mixed;
    double *logp = t->logp + first;
    for (ptrdiff_t i = 0; i < n; i++) logp[i] += m->log_weight[0];
    for (ptrdiff_t k = 0; k < m->n; k++) {
        X(trainer) *own = m->trainer + k;
        own->epoch = t->epoch;
        for (ptrdiff_t i = 0; i < n; i++) own->row[i] = t->row[first + i], own->weight[i] = 0;
        PF_TRY(X(trainer_block)(own, 0, n, y));
        for (ptrdiff_t i = 0; i < n; i++) {
            double a = logp[i], b = own->logp[i] + m->log_weight[k + 1], most = PF_MAX(a, b);
            logp[i] = most > -INFINITY ? most + log1p(exp(PF_MIN(a, b) - most)) : most;
            if (isnan(a) || isnan(b)) logp[i] = NAN;
        }
    }
    return PF_OK;
}
#endif
