"""The filter y = F^-1 T(|k|) F x, or T(|k|, |mu|), one mode of the whole spectrum after another.

mu = k_axis / |k|, 0 for k = 0; without an axis it is 0 everywhere.
"""

import numpy as np


def modes(n, box, axis=None):
    """Yield |k|, mu^2 of every mode of a mesh, and the mode itself: exp(i k r) at every pixel."""
    for index in np.ndindex(*n):
        k2, along, wave = 0.0, 0.0, np.ones(())
        for a, (i, pixels, side) in enumerate(zip(index, n, box, strict=True)):
            frequency = i if i <= pixels // 2 else i - pixels
            k2 += (2 * np.pi * frequency / side) ** 2
            if a == axis:
                along = (2 * np.pi * frequency / side) ** 2
            wave = np.multiply.outer(wave, np.exp(2j * np.pi * i * np.arange(pixels) / pixels))
        yield np.sqrt(k2), along / k2 if k2 else 0.0, wave


def shells(n, box, axis=None):
    """The distinct |k| and mu^2, in order of |k|, then of mu^2, and how many modes have them."""
    k, mu2, count = [], [], []
    each = [(value, u) for value, u, _ in modes(n, box, axis)]
    for value, u in sorted((float(f"{value:.9e}"), round(u, 9)) for value, u in each):
        if not k or (value, u) != (k[-1], mu2[-1]):
            k.append(value)
            mu2.append(u)
            count.append(0)
        count[-1] += 1
    exact = [nearest(*zip(*each, strict=True), *shell) for shell in zip(k, mu2, strict=True)]
    k, mu2 = np.array([each[i] for i in exact]).T
    return k, mu2, np.array(count)


def nearest(k, mu2, value, u):
    """Which of the shells is nearest to a mode."""
    far = np.abs(np.array(k) - value) / (1e-300 + max(k)) + np.abs(np.array(mu2) - u)
    return np.argmin(far)


def apply(x, t, box, axis=None):
    """Return y and log|det dy/dx|, for t[shells]."""
    k, mu2, _ = shells(x.shape, box, axis)
    y, log_det = np.zeros(x.shape, complex), 0.0
    for value, u, wave in modes(x.shape, box, axis):
        here = t[nearest(k, mu2, value, u)]
        y += here * np.vdot(wave, x) * wave / x.size
        log_det += np.log(here)
    assert np.abs(y.imag).max() < 1e-12 * (1 + np.abs(y).max())
    return y.real, log_det


def power(x, box, axis=None):
    """The sum of |F x|^2 over the modes of each shell."""
    k, mu2, _ = shells(x.shape, box, axis)
    out = np.zeros(len(k))
    for value, u, wave in modes(x.shape, box, axis):
        out[nearest(k, mu2, value, u)] += np.abs(np.vdot(wave, x)) ** 2
    return out
