"""Cubic splines with free knots, one number at a time, and ascending numbers from free ones."""

import numpy as np

LOG_MOST = 9.0


def increasing(a):
    """p_0 = a_0, p_j = p_(j-1) + exp(a_j); a logarithm beyond +-9 counts as that."""
    p = [a[0]]
    for log_step in a[1:]:
        p.append(p[-1] + np.exp(min(max(log_step, -LOG_MOST), LOG_MOST)))
    return np.array(p)


def slopes(p, v):
    """Of the parabola through a knot and its two neighbours; at the ends, of the last chord."""
    out = []
    for j in range(len(p)):
        near = slice(max(j - 1, 0), j + 2)
        degree = len(p[near]) - 1
        out.append(np.polyfit(p[near] - p[j], v[near], degree)[-2])
    return np.array(out)


def spline(x, p, v):
    """Hermite's cubic between two knots: by values and slopes at its ends; constant outside."""
    d, y = slopes(p, v), []
    for at in x:
        if at < p[0] or at >= p[-1]:
            y.append(v[0] if at < p[0] else v[-1])
            continue
        j = np.flatnonzero(p <= at)[-1]
        w = p[j + 1] - p[j]
        t = (at - p[j]) / w
        values = (1 + 2 * t) * (1 - t) ** 2 * v[j] + t**2 * (3 - 2 * t) * v[j + 1]
        y.append(values + w * (t * (1 - t) ** 2 * d[j] - t**2 * (1 - t) * d[j + 1]))
    return np.array(y)
