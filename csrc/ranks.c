/* Fits whose rows are spread over the ranks of a cluster: what they tell each other. See pf_ranks in pyflow.h. */
#include "ranks.h"

pf_status pf_ranks_sum(const pf_ranks *ranks, void *x, ptrdiff_t n)
{
    enum { AT_ONCE = 1 << 24 };
    for (char *at = x; ranks && n > 0; at += (size_t)AT_ONCE * 8, n -= AT_ONCE)
        if (ranks->sum(ranks->user, at, PF_MIN(n, AT_ONCE)))
            return pf_fail(PF_INTERRUPTED, "interrupted: another rank has failed, or this one");
    return PF_OK;
}

pf_status pf_ranks_share(const pf_ranks *ranks, void *x, ptrdiff_t n)
{
    if (ranks && ranks->rank) memset(x, 0, (size_t)n * 8);
    return pf_ranks_sum(ranks, x, n);
}

ptrdiff_t pf_ranks_rows(const pf_ranks *ranks, ptrdiff_t n, int which) { return ranks ? ranks->rows[which] : n; }

int pf_ranks_writes(const pf_ranks *ranks) { return !ranks || !ranks->rank; }
