"""The pointwise function of a symmetric layer: a rational-quadratic spline of 3 m free numbers."""

import numpy as np

from reference import cspline, rqs


def knots(theta):
    """Knots as rqs.py has them: x and y ascending, slopes by their logarithms, clamped alike."""
    x, y, d = np.reshape(theta, (3, -1))
    slope = np.exp(np.clip(d, -cspline.LOG_MOST, cspline.LOG_MOST))
    return np.stack([cspline.increasing(x), cspline.increasing(y), slope])


def forward(x, theta):
    """Psi(x) and the sum of log Psi'(x)."""
    y, log_slope = rqs.forward(x, knots(theta))
    return y, np.sum(log_slope)


def inverse(y, theta):
    """Psi^-1(y), each number by bisection, and the sum of log Psi' there."""
    x, minus_log_slope = rqs.inverse(y, knots(theta))
    return x, -np.sum(minus_log_slope)
