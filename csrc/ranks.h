/* What the ranks of a cluster tell each other when they fit together. Nothing is done where `ranks` is NULL: all rows
 * are here. See pf_ranks in pyflow.h. */
#ifndef PF_RANKS_H
#define PF_RANKS_H
#include "internal.h"

/* int64_t x[n], or the bits of x[n] that one rank has and that are zero on the others: the sum over ranks. */
pf_status pf_ranks_sum(const pf_ranks *ranks, void *x, ptrdiff_t n);
/* x[n], 8 bytes each, of the first rank, for all */
pf_status pf_ranks_share(const pf_ranks *ranks, void *x, ptrdiff_t n);
/* Rows of all ranks, of the training (0) or the validation data (1), of which n are here */
ptrdiff_t pf_ranks_rows(const pf_ranks *ranks, ptrdiff_t n, int which);
/* The first rank writes files; others read them. */
int pf_ranks_writes(const pf_ranks *ranks);
#endif
