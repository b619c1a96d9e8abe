"""Layers: forward maps x[n][d] to y[n][d] and log|det dy/dx|[n]; parameters come first."""

import itertools

import numpy as np
from scipy import interpolate

from reference import cspline, filter, mlp, psi, rqp, rqs


def sliced(slices, knots, x, label=None):
    """x + A (Psi(A^T x) - A^T x) (Dai & Seljak 2021, Eq. 11).

    slices[K][d] holds A's columns; knots[classes][K][3][M].
    """
    x = np.asarray(x, dtype=float)
    label = np.zeros(len(x), int) if label is None else label
    y, logj = x.copy(), np.zeros(len(x))
    for k, a in enumerate(slices):
        p = x @ a
        for c in range(len(knots)):
            mine = label == c
            moved, log_slope = rqs.forward(p[mine], knots[c][k])
            y[mine] += np.outer(moved - p[mine], a)
            logj[mine] += log_slope
    return y, logj


def patches(image, kernel, shift):
    """Return where the numbers of each patch stand in the flattened image, [patches][size]."""
    height, width, channels = image
    place = np.arange(height * width * channels).reshape(image)
    place = np.roll(place, (-shift[0], -shift[1]), axis=(0, 1))
    a, b, c = kernel
    return np.array(
        [
            place[i : i + a, j : j + b, k : k + c].ravel()
            for i in range(0, height - a + 1, a)
            for j in range(0, width - b + 1, b)
            for k in range(0, channels, c)
        ]
    )


def patch(rows, slices, knots, x, label=None):
    """Patch p, the numbers rows[p] of x, by a sliced layer: slices[p][K][d], knots[p]."""
    y, logj = np.array(x, dtype=float), np.zeros(len(x))
    for at, a, splines in zip(rows, slices, knots, strict=True):
        y[:, at], more = sliced(a, splines, y[:, at], label)
        logj += more
    return y, logj


def affine(w, mean, x):
    """W (x - mean)."""
    y = (np.asarray(x, dtype=float) - mean) @ np.asarray(w).T
    return y, np.full(len(y), np.linalg.slogdet(w)[1])


def column(kind, a, b, x):
    """One column by its fixed map, and log dz/dx."""
    if kind == "linear":
        return (x - a) / b, np.full(len(x), -np.log(b))
    if kind == "asinh":
        return np.arcsinh((x - a) / b), -np.log(np.hypot(x - a, b))
    if kind == "logit":
        return np.log((x - a) / (b - x)), np.log((b - a) / ((x - a) * (b - x)))
    # x = a +- b log(1 + exp(+-z))
    sign = 1 if kind == "above" else -1
    grown = np.exp(sign * (x - a) / b)
    return sign * np.log(grown - 1), np.log(grown / (grown - 1) / b)


def columns(kinds, a, b, x):
    """Each column on its own."""
    out = [column(*p) for p in zip(kinds, a, b, np.asarray(x, float).T, strict=True)]
    return np.stack([z for z, _ in out], axis=1), sum(log for _, log in out)


def scale(mean, scale, x):
    """One mean and one scale for all numbers."""
    return (np.asarray(x, float) - mean) / scale, np.full(len(x), -x.shape[1] * np.log(scale))


def sinh_arcsinh(log_delta, epsilon, x):
    """Each column by sinh(delta arcsinh x - epsilon) (Jones & Pewsey 2009)."""
    u = np.exp(log_delta) * np.arcsinh(x) - epsilon
    log_slope = log_delta + np.log(np.cosh(u)) - np.log(1 + x * x) / 2
    return np.sinh(u), log_slope.sum(axis=1)


def symmetric(field, theta, psi_knots, box, axis=None, mu_knots=1):
    """Psi(F^-1 T F x) and its log|det|, for one field (Dai & Seljak 2022).

    theta: Psi's 3 psi_knots, then the knots of log T against |k| / k_max: positions, values. With
    an axis as many values at each of mu_knots mu^2, with a polynomial through them.
    """
    positions, *values = theta[3 * psi_knots :].reshape(1 + mu_knots, -1)
    k, mu2, _ = filter.shells(field.shape, box, axis)
    knots, k = cspline.increasing(positions), k / max(k[-1], 1e-300)
    along = [cspline.spline(k, knots, v) for v in values]
    if axis is None:
        (log_t,) = along
    else:
        at = (1 - np.cos(np.pi * np.arange(mu_knots) / (mu_knots - 1))) / 2
        through = zip(np.transpose(along), mu2, strict=True)
        log_t = [interpolate.BarycentricInterpolator(at, v)(u) for v, u in through]
    u, log_det = filter.apply(field, np.exp(np.clip(log_t, -20, 20)), box, axis)
    y, log_slopes = psi.forward(u.ravel(), theta[: 3 * psi_knots])
    return y.reshape(field.shape), log_det + log_slopes


def pointwise(c, p, v):
    """A cubic spline through knots (p, v), straight beyond them."""
    p, v, slopes = (
        np.asarray(p, float),
        np.asarray(v, float),
        cspline.slopes(np.asarray(p, float), v),
    )
    low, high = np.minimum(c - p[0], 0), np.maximum(c - p[-1], 0)
    return cspline.spline(c, p, v) + slopes[0] * low + slopes[-1] * high


def shift(field, c, theta, p, box):
    """x + F^-1 S(|k|) F g(c), for one field and its second one.

    theta: g at its knots p, then the knots of S against |k| / k_max: positions, values.
    """
    positions, values = theta[len(p) :].reshape(2, -1)
    n = field.shape
    k = [2 * np.pi * np.fft.fftfreq(m, side / m) for m, side in zip(n, box, strict=True)]
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*k, indexing="ij"))).ravel()
    s = cspline.spline(k / max(k.max(), 1e-300), cspline.increasing(positions), values).reshape(n)
    g = pointwise(c.ravel(), p, theta[: len(p)]).reshape(n)
    shifted = np.fft.ifftn(s * np.fft.fftn(g))
    assert np.abs(shifted.imag).max() < 1e-12 * (1 + np.abs(shifted).max())
    return field + shifted.real


def coupling(field, theta, split, large, channels, box):
    """x + sum_j F^-1 C_j F phi(F^-1 A_j F x), phi(u) = sqrt(1 + u^2) - 1, for one field.

    theta[channels][2][knots]: A_j and C_j at knots evenly along their side of k = split k_max.
    """
    n = field.shape
    k = [2 * np.pi * np.fft.fftfreq(m, side / m) for m, side in zip(n, box, strict=True)]
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*k, indexing="ij"))).ravel()
    k /= k.max()
    below, above = (k > 0) & (k <= split), k > split
    y = np.fft.fftn(field)
    for a, c in theta.reshape(channels, 2, -1):
        sides = ((above, split, 1, a), (below, 0, split, c))
        if not large:
            sides = ((below, 0, split, a), (above, split, 1, c))
        of_a, of_c = (
            np.where(side, cspline.spline(k, np.linspace(start, end, len(v)), v), 0).reshape(n)
            for side, start, end, v in sides
        )
        u = np.fft.ifftn(of_a * np.fft.fftn(field)).real
        y = y + of_c * np.fft.fftn(np.sqrt(1 + u**2) - 1)
    return np.fft.ifftn(y).real


def masks(ranks, hidden, bins, n_y):
    """Return what of theta counts: of L, then of every layer of the network W and b, as 0 and 1.

    A unit hears of those of the layer before whose degree is no larger: inputs have degree 0 (y)
    and 1 + rank (x), outputs the rank of their column, hidden units all that lie between in turn.
    """
    inputs = np.array([0] * n_y + [1 + r for r in ranks])
    least = 0 if n_y or max(ranks) == 0 else 1
    between = np.arange(least, max(max(ranks) + 1, least + 1))
    degrees = [inputs, *(between[np.arange(m) * len(between) // m] for m in hidden)]
    degrees.append(np.repeat(ranks, 3 * bins + 1))
    out = [inputs <= np.array(ranks)[:, None]]
    for before, after in itertools.pairwise(degrees):
        out += [before <= after[:, None], np.ones(len(after), bool)]
    return out


def autoregressive(x, y, theta, ranks, hidden, bins):
    """S_j((x_j - t_j) exp(-s_j)), all from L (y, x) and a masked network of (y, x); y standardised.

    theta: L[d][n_y + d], then the network's weights (mlp.py), with those that count for nothing.
    """
    n, d = x.shape
    n_y = y.shape[1]
    counts = np.concatenate([np.ravel(m) for m in masks(ranks, hidden, bins, n_y)])
    theta = np.where(counts, theta, 0)
    y = np.clip(y, -10, 10)
    linear = theta[: d * (n_y + d)].reshape(d, -1)
    sizes = n_y + d, *hidden, d * (3 * bins + 1)
    inputs = np.concatenate([y, np.clip(x, -10, 10)], axis=1)
    q = mlp.forward(theta[linear.size :], sizes, inputs)[1].reshape(n, d, -1)
    q[:, :, 0] += np.concatenate([y, x], axis=1) @ linear.T
    z, log_slopes = rqp.forward(x.ravel(), q.reshape(n * d, -1))
    return z.reshape(n, d), log_slopes.reshape(n, d).sum(axis=1)
