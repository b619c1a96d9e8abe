/* The weighted distribution of one number, as a histogram: its normal scores, its Wasserstein distance from N(0, 1),
 * its kernel-smoothed CDF and the spline that carries it to N(0, 1). Everything a sliced flow asks of a slice.
 *
 * A histogram is made in one streaming pass, without a sort; with bins well below the kernel's width nothing that
 * matters is lost. Weights are whole numbers (pf_fixed_weights), so that sums are exact and do not depend on their
 * order: over threads, chunks of a file or ranks. */
#ifndef PF_CDF1D_H
#define PF_CDF1D_H
#include "internal.h"

typedef struct {
    double lo, width; /* of the first bin's left edge; of one bin */
    ptrdiff_t bins;
} pf_grid;

/* fixed[n]: weight[n] as whole numbers that sum to about 2^52. weight must be >= 0, finite and not all zero. */
void pf_fixed_weights(int64_t *fixed, const double *weight, ptrdiff_t n);

/* count[label][bins] += weight; NULL weight: 1; NULL label: one class. What lies outside goes to the end bins. */
void pf32_cdf1d_count(int64_t *count, const float *v, const int64_t *weight, const int32_t *label, ptrdiff_t stride,
                      const pf_grid *grid, ptrdiff_t n);
void pf64_cdf1d_count(int64_t *count, const double *v, const int64_t *weight, const int32_t *label, ptrdiff_t stride,
                      const pf_grid *grid, ptrdiff_t n);

/* sums[2] += sum w v, sum w v^2; n is a multiple of 16 */
void pf32_cdf1d_sums(double *sums, const float *v, const double *w, ptrdiff_t n);
void pf64_cdf1d_sums(double *sums, const double *v, const double *w, ptrdiff_t n);

/* Normal scores Phi^-1(F) at the bins' edges, score[bins + 1]; returns sum_bins count (centre - score)^2 / total, the
 * squared W_2 distance from N(0, 1). */
double pf_cdf1d_scores(double *score, const int64_t *count, const pf_grid *grid);

/* The optimal transport of one histogram to another: to[bins + 1], the other's quantiles at F of the grid's edges, in
 * the place of normal scores. Returns the squared W_2 distance of the two. Where one has no mass: the identity, and 0. */
double pf_cdf1d_match(double *to, const int64_t *count, const pf_grid *grid, const int64_t *other,
                      const pf_grid *other_grid);

/* r[n] = v - score(F(v)): half the gradient of W_2^2, per unit of weight */
void pf32_cdf1d_residual(float *r, const float *v, const float *score, const pf_grid *grid, ptrdiff_t n);
void pf64_cdf1d_residual(double *r, const double *v, const double *score, const pf_grid *grid, ptrdiff_t n);

/* mean, standard deviation, and the quantiles at 1/4 and 3/4 */
typedef struct {
    double mean, sd, lower, upper;
    int64_t total;
} pf_moments;
pf_moments pf_cdf1d_moments(const int64_t *count, const pf_grid *grid);

typedef struct {
    ptrdiff_t m, edge; /* knots, of which this many are set aside for each tail */
    int kde;
    double bandwidth; /* of the kernel, in standard deviations */
    double alpha[2];  /* pull towards the identity: y <- (1 - alpha_0) y + alpha_0 x, slopes alike; ends by alpha_1 */
} pf_knots;

/* The spline that carries the distribution to N(0, 1): knots[3][m] = x, y, d (Dai & Seljak 2021, section 3.2, Eq. 13).
 * The knots' x are bin centres, at quantiles. work[4 bins]. */
void pf_cdf1d_fit(double *knots, const int64_t *count, const pf_grid *grid, const pf_knots *options, double *work);

/* The spline that carries the distribution to another one: equal quantiles, end slopes 1 (section 3.3). */
void pf_cdf1d_fit_match(double *knots, const int64_t *count, const pf_grid *grid, const int64_t *other,
                        const pf_grid *other_grid, const pf_knots *options);
#endif
