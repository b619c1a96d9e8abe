/* Matrix products and small dense linear algebra: blas.c is the only caller of OpenBLAS and LAPACK. */
#ifndef PF_BLAS_H
#define PF_BLAS_H
#include <stddef.h>

/* OpenBLAS must not start threads inside ours, nor keep one when it is shared with NumPy: serial between begin and end.
 */
void pf_blas_serial_begin(void);
void pf_blas_serial_end(void);

/* Row-major c[m][n] = a[m][k] b[k][n] (+ c when accumulate), with leading dimensions; trans_a: a is a[k][m]. */
void pf32_gemm(float *c, const float *a, const float *b, int trans_a, int trans_b, int accumulate, ptrdiff_t m,
               ptrdiff_t n, ptrdiff_t k, ptrdiff_t ldc, ptrdiff_t lda, ptrdiff_t ldb);
void pf64_gemm(double *c, const double *a, const double *b, int trans_a, int trans_b, int accumulate, ptrdiff_t m,
               ptrdiff_t n, ptrdiff_t k, ptrdiff_t ldc, ptrdiff_t lda, ptrdiff_t ldb);

/* Symmetric a[n][n] = V diag(w) V^T: w ascending, row i of a becomes eigenvector i. Returns 0, or LAPACK's info. */
int pf_eigh(double *w, double *a, ptrdiff_t n);

/* b[n][m] <- a^-1 b, a[n][n] is overwritten. Returns 0, or LAPACK's info when a is singular. */
int pf_solve(double *b, double *a, ptrdiff_t n, ptrdiff_t m);

/* a[n][n] <- a^-1; returns log|det a|, -INFINITY when there is no inverse (a is then anything). work[2 n] */
double pf_inverse(double *a, ptrdiff_t n, double *work);
#endif
