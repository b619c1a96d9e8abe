"""Fourier transforms of real fields, by the matrices that define them.

A half spectrum keeps frequencies 0 .. n // 2 of the last axis; a row is padded with zeros to ld.
"""

import numpy as np


def matrix(n):
    """exp(-2 pi i k r / n)."""
    k = np.arange(n)
    return np.exp(-2j * np.pi * (np.outer(k, k) % n) / n)


def forward(x, ld):
    """F_k = sum_r x_r exp(-2 pi i k r / n), of shape [..., ld]."""
    for axis, n in enumerate(x.shape):
        x = np.moveaxis(np.tensordot(matrix(n), x, (1, axis)), 0, axis)
    half = x.shape[-1] // 2 + 1
    out = np.zeros((*x.shape[:-1], ld), complex)
    out[..., :half] = x[..., :half]
    return out


def inverse(spectrum, n):
    """x of shape n: the mean of F_k exp(2 pi i k r / n) over all modes k.

    A mode that is not its own mirror image stands for two, of which the real part is the sum.
    """
    half = n[-1] // 2 + 1
    x = spectrum[..., :half] * np.where(np.arange(half) * 2 % n[-1] == 0, 1, 2)
    for axis in range(len(n) - 1):
        x = np.moveaxis(np.tensordot(matrix(n[axis]).conj(), x, (1, axis)), 0, axis)
    return (x @ matrix(n[-1]).conj()[:half]).real / np.prod(n)
