/* Fourier transforms of real periodic fields, in 2-D and 3-D: fft.c is the only caller of FFTW.
 *
 * A field x[n0][n1] or x[n0][n1][n2] has the half spectrum F[n0][ld] or F[n0][n1][ld]: along the last axis only the
 * frequencies 0 .. half - 1 are kept, half = n_last / 2 + 1, and `ld - half` numbers of padding, which are zero, end a
 * row. Complex numbers are pairs of reals. F_k = sum_r x_r exp(-2 pi i k r / n); the inverse divides by the number of
 * pixels. */
#ifndef PF_FFT_H
#define PF_FFT_H
#include "internal.h"

#define TWICE "fft.h"
#include "twice.h"
#elif defined(real)

typedef struct X(fft) {
    int ndim, measured;
    ptrdiff_t n[3], pixels, rows; /* rows = pixels / n_last */
    ptrdiff_t half, ld;
    ptrdiff_t spectrum, work;  /* reals in a spectrum; in the scratch memory of a transform: */
    ptrdiff_t shares, scratch; /* at most so many threads work at a mesh, each with so many reals */
    ptrdiff_t row_ld;
    void *row_plans[2]; /* there and back */
    struct {
        ptrdiff_t n, stride;   /* transforms of length n, `stride` of them side by side */
        ptrdiff_t columns, ld; /* of them at a time, transposed to [columns][ld]; ld 0: in place */
        void *plans[2];
    } axes[2]; /* all but the last: the slowest one last */
    struct X(fft) *next;
} X(fft);

/* The plan for a mesh, made once and kept; NULL on failure. Threads may share it: a transform writes only to what
 * it is given. All arrays but x come from pf_alloc, or start a multiple of 64 bytes into such a block. */
const X(fft) *X(fft_plan)(int ndim, const ptrdiff_t *n);
void X(fft_forward)(const X(fft) *plan, real *spectrum, const real *x, real *work);
/* the spectrum is destroyed */
void X(fft_inverse)(const X(fft) *plan, real *x, real *spectrum, real *work);
#endif
