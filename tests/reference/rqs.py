"""Monotone rational-quadratic splines (Durkan et al. 2019, arXiv 1906.04032, Eqs. 4 to 8)."""

import numpy as np

LOG_MOST, FIRST_MOST = 30, 1e15


def knots(theta):
    """Return knots[3][m] of theta[3 m]: first number and log-increments of x, of y; log-slopes."""
    a = np.array(theta, float).reshape(3, -1)
    gaps = np.exp(np.clip(a, -LOG_MOST, LOG_MOST))
    gaps[:2, 0] = np.clip(a[:2, 0], -FIRST_MOST, FIRST_MOST)
    return np.concatenate([np.cumsum(gaps[:2], axis=1), gaps[2:]])


def theta(knots):
    """Return theta[3 m] of knots[3][m], within the bounds of logarithms."""
    x, y, d = knots
    return np.concatenate([x[:1], np.log(np.diff(x)), y[:1], np.log(np.diff(y)), np.log(d)])


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
