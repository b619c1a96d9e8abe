"""Monotone rational-quadratic splines (Durkan et al. 2019, arXiv 1906.04032, Eqs. 4 to 8)."""

import numpy as np

LOG_MOST, FIRST_MOST = 30, 1e15


def knots(theta):
    """Return knots[3][m] of theta[3 m]: first number and log-increments of x, of y; log-slopes."""
    a = np.array(theta, float).reshape(3, -1)
    gaps = np.exp(np.clip(a, -LOG_MOST, LOG_MOST))
    gaps[:2, 0] = np.clip(a[:2, 0], -FIRST_MOST, FIRST_MOST)
    return np.concatenate([np.cumsum(gaps[:2], axis=1), gaps[2:]])


def some_knots(rng, *shape, m=7):
    """Return random splines [...][3][m] that stay near the identity."""
    x = np.cumsum(rng.uniform(0.1, 1, (*shape, m)), axis=-1)
    y = np.cumsum(rng.uniform(0.1, 1, (*shape, m)), axis=-1)
    d = np.exp(rng.uniform(-0.7, 0.7, (*shape, m)))
    return np.stack([x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True), d], axis=-2)


def crowded_knots(rng, *shape):
    """Return splines most of whose knots lie in one of many equal cells."""
    k = some_knots(rng, *shape, m=40)
    k[..., 0, :] = np.sinh(np.linspace(-9, 9, 40))
    k[..., 1, :] = 2 * np.arcsinh(k[..., 0, :])
    k[..., 2, :] = 2 / np.cosh(np.linspace(-9, 9, 40))
    return k


def forward(x, knots):
    """Return y and log dy/dx of numbers x, for knots[3][m] = x, y, slopes; linear outside."""
    kx, ky, kd = np.asarray(knots, dtype=float)
    y, log_slope = np.empty(len(x)), np.empty(len(x))
    for i, v in enumerate(np.asarray(x, dtype=float)):
        if v < kx[0] or v >= kx[-1]:
            end = 0 if v < kx[0] else -1
            y[i] = ky[end] + kd[end] * (v - kx[end])
            log_slope[i] = np.log(kd[end])
            continue
        j = np.flatnonzero(kx <= v)[-1]
        w, h = kx[j + 1] - kx[j], ky[j + 1] - ky[j]
        s, xi = h / w, (v - kx[j]) / w
        rest = 1 - xi
        below = s + (kd[j + 1] + kd[j] - 2 * s) * xi * rest
        y[i] = ky[j] + h * (s * xi**2 + kd[j] * xi * rest) / below
        above = s**2 * (kd[j + 1] * xi**2 + 2 * s * xi * rest + kd[j] * rest**2)
        log_slope[i] = np.log(above / below**2)
    return y, log_slope


def inverse(y, knots):
    """Return x and log dx/dy, by halving the interval: no formula in common with the kernel."""
    kx, ky, kd = np.asarray(knots, dtype=float)
    y = np.asarray(y, dtype=float)
    reach = 1 + np.abs(y - ky[0]) / kd[0] + np.abs(y - ky[-1]) / kd[-1]
    lo, hi = kx[0] - reach, kx[-1] + reach
    for _ in range(200):
        middle = (lo + hi) / 2
        low = forward(middle, knots)[0] < y
        lo, hi = np.where(low, middle, lo), np.where(low, hi, middle)
    return middle, -forward(middle, knots)[1]
