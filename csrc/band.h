/* Fields without power at some k have no density there: a check that says so. */
#ifndef PF_BAND_H
#define PF_BAND_H
#include "filter.h"
#include "internal.h"

#define TWICE "band.h"
#include "twice.h"
#elif defined(real)

/* PF_DEGENERATE, with the k where it is so, unless power[shells] is more than least everywhere. */
pf_status X(check_band)(const double *power, const X(filter) *f, double least);
#endif
