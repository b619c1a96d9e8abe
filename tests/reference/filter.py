"""The isotropic filter y = F^-1 T(|k|) F x, one mode of the whole spectrum after another."""

import numpy as np


def modes(n, box):
    """Yield |k| of every mode of a mesh, and the mode itself: exp(i k r) at every pixel."""
    for index in np.ndindex(*n):
        k2, wave = 0.0, np.ones(())
        for i, pixels, side in zip(index, n, box, strict=True):
            frequency = i if i <= pixels // 2 else i - pixels
            k2 += (2 * np.pi * frequency / side) ** 2
            wave = np.multiply.outer(wave, np.exp(2j * np.pi * i * np.arange(pixels) / pixels))
        yield np.sqrt(k2), wave


def shells(n, box):
    """The distinct |k|, ascending, and how many modes have each."""
    k, count = [], []
    for value in sorted(value for value, _ in modes(n, box)):
        if not k or value > k[-1] * (1 + 1e-9):
            k.append(value)
            count.append(0)
        count[-1] += 1
    return np.array(k), np.array(count)


def apply(x, t, box):
    """Return y and log|det dy/dx|, for t[shells]."""
    k, _ = shells(x.shape, box)
    y, log_det = np.zeros(x.shape, complex), 0.0
    for value, wave in modes(x.shape, box):
        here = t[np.argmin(np.abs(k - value))]
        y += here * np.vdot(wave, x) * wave / x.size
        log_det += np.log(here)
    assert np.abs(y.imag).max() < 1e-12 * (1 + np.abs(y).max())
    return y.real, log_det


def power(x, box):
    """The sum of |F x|^2 over the modes of each shell."""
    k, _ = shells(x.shape, box)
    out = np.zeros(len(k))
    for value, wave in modes(x.shape, box):
        out[np.argmin(np.abs(k - value))] += np.abs(np.vdot(wave, x)) ** 2
    return out
