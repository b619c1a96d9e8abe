"""Slices on the Stiefel manifold (Dai & Seljak 2021, Algorithm 1); a[K][d] has orthonormal rows."""

import numpy as np


def curve(a, gradient, t):
    """The Cayley curve, by its definition, and the objective's slope along it at t = 0."""
    big_a, big_g = a.T, gradient.T
    w = big_g @ big_a.T - big_a @ big_g.T
    one = np.eye(len(w))
    at = np.linalg.solve(one - t / 2 * w, (one + t / 2 * w) @ big_a)
    return at.T, np.sum(w * w) / 2


def ascend(a, value, gradient, steps):
    """Climb: the step is halved until it gains 0.3 of what the slope promises, then doubled."""
    best, t = value(a), None
    for _ in range(steps):
        g = gradient(a)
        slope = curve(a, g, 0)[1]
        first, t = True, 0.5 / np.sqrt(slope) if t is None else t
        while value(curve(a, g, t)[0]) < best + 0.3 * t * slope:
            first, t = False, t / 2
        a = curve(a, g, t)[0]
        best, t = value(a), 2 * t if first else t
    return a, best


def random(k, d, normals):
    """Rows of a Gaussian matrix, made orthonormal: Q R with a positive diagonal of R."""
    q, r = np.linalg.qr(np.reshape(normals, (k, d)).T)
    return (q * np.sign(np.diag(r))).T
