/* Fields that are smooth to rounding, cut in Fourier space, or less their own mean, have no density: training would
 * make T of their empty shells the larger the longer it goes on. */
#ifndef real
#include "band.h"

#include <stdio.h>

enum { TEXT = 80 };

/* " at k = 0", " at k = 1.5 to 3" */
static void range(char *to, double low, double high)
{
    int n = snprintf(to, TEXT, " at k = %.4g", low);
    if (high > low) snprintf(to + n, (size_t)(TEXT - n), " to %.4g", high);
}

#define TWICE "band.c"
#include "twice.h"
#else

pf_status X(check_band)(const double *power, const X(filter) *f, double least)
{
    const double *k = f->k;
    ptrdiff_t first = 0, last = f->shells - 1, between = 0;
    char low[TEXT] = "", high[TEXT] = "", inner[TEXT] = "", remedy[TEXT] = "noise=, which fills them";
    while (first < last && !(power[first] > least)) first++;
    while (last > first && !(power[last] > least)) last--;
    for (ptrdiff_t i = first; i < last; i++) between += !(power[i] > least);
    while (first > 0 && k[first - 1] == k[first]) between++, first--; /* a part of a |k|, along an axis */
    while (last < f->shells - 1 && k[last + 1] == k[last]) between++, last++;
    if (first == 0 && last == f->shells - 1 && !between) return PF_OK;
    if (first > 0) range(low, 0, k[first - 1]);
    if (last < f->shells - 1) range(high, k[last + 1], k[f->shells - 1]);
    if (between) snprintf(inner, TEXT, " at %td of the shells between", between);
    return pf_fail(PF_DEGENERATE,
                   "data_train: the fields have no power beyond rounding%s%s%s%s%s%s: they have no density there, and a "
                   "fit would sharpen it without end. Give %s",
                   low, *low && *high ? " and" : "", high, (*low || *high) && *inner ? " and" : "", inner,
                   first == 1 ? " (all have the same mean)" : "", remedy);
}
#endif
