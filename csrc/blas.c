/* The only file that calls OpenBLAS and LAPACK. */
#include <cblas.h>

#include "blas.h"
#include "internal.h"

/* LAPACK, column-major, as OpenBLAS exports it. */
void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
             const int *lwork, int *iwork, const int *liwork, int *info);
void dgesv_(const int *n, const int *nrhs, double *a, const int *lda, int *ipiv, double *b, const int *ldb, int *info);
void dgetrf_(const int *m, const int *n, double *a, const int *lda, int *ipiv, int *info);
void dgetri_(const int *n, double *a, const int *lda, const int *ipiv, double *work, const int *lwork, int *info);

static int users, threads_before;

void pf_blas_serial_begin(void)
{
    pf_lock(PF_LOCK_BLAS);
    if (users++ == 0) {
        threads_before = openblas_get_num_threads();
        if (threads_before != 1) openblas_set_num_threads(1);
    }
    pf_unlock(PF_LOCK_BLAS);
}

void pf_blas_serial_end(void)
{
    pf_lock(PF_LOCK_BLAS);
    if (--users == 0 && threads_before != 1) openblas_set_num_threads(threads_before);
    pf_unlock(PF_LOCK_BLAS);
}

void pf32_gemm(float *c, const float *a, const float *b, int trans_a, int trans_b, int accumulate, ptrdiff_t m,
               ptrdiff_t n, ptrdiff_t k, ptrdiff_t ldc, ptrdiff_t lda, ptrdiff_t ldb)
{
    cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans, trans_b ? CblasTrans : CblasNoTrans, (int)m, (int)n,
                (int)k, 1, a, (int)lda, b, (int)ldb, (float)accumulate, c, (int)ldc);
}

void pf64_gemm(double *c, const double *a, const double *b, int trans_a, int trans_b, int accumulate, ptrdiff_t m,
               ptrdiff_t n, ptrdiff_t k, ptrdiff_t ldc, ptrdiff_t lda, ptrdiff_t ldb)
{
    cblas_dgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans, trans_b ? CblasTrans : CblasNoTrans, (int)m, (int)n,
                (int)k, 1, a, (int)lda, b, (int)ldb, (double)accumulate, c, (int)ldc);
}

int pf_eigh(double *w, double *a, ptrdiff_t n)
{
    int size = (int)n, lwork = (int)(1 + 6 * n + 2 * n * n), liwork = (int)(3 + 5 * n), info = -1;
    double *work = PF_ALLOC(double, lwork);
    int *iwork = PF_ALLOC(int, liwork);
    /* column i of LAPACK's column-major result is row i of ours */
    if (work && iwork) dsyevd_("V", "L", &size, a, &size, w, work, &lwork, iwork, &liwork, &info);
    free(work);
    free(iwork);
    return info;
}

int pf_solve(double *b, double *a, ptrdiff_t n, ptrdiff_t m)
{
    int size = (int)n, nrhs = (int)m, info = -1;
    int *pivot = PF_ALLOC(int, n);
    double *at = PF_ALLOC(double, n *n), *bt = PF_ALLOC(double, n *m);
    if (pivot && at && bt) {
        for (ptrdiff_t i = 0; i < n; i++) {
            for (ptrdiff_t j = 0; j < n; j++) at[j * n + i] = a[i * n + j];
            for (ptrdiff_t j = 0; j < m; j++) bt[j * n + i] = b[i * m + j];
        }
        dgesv_(&size, &nrhs, at, &size, pivot, bt, &size, &info);
        for (ptrdiff_t i = 0; i < n; i++)
            for (ptrdiff_t j = 0; j < m; j++) b[i * m + j] = bt[j * n + i];
    }
    free(pivot);
    free(at);
    free(bt);
    return info;
}

/* To LAPACK a is transposed, and so is the inverse that it gives. */
double pf_inverse(double *a, ptrdiff_t n, double *work)
{
    int size = (int)n, info = 0, *pivot = (int *)(work + n);
    double log_det = 0;
    dgetrf_(&size, &size, a, &size, pivot, &info);
    for (ptrdiff_t i = 0; i < n; i++) log_det += log(fabs(a[i * n + i]));
    if (!info) dgetri_(&size, a, &size, pivot, work, &size, &info);
    return info ? -INFINITY : log_det;
}
