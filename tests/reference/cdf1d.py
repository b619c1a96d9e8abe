"""The distribution of one number, as a histogram count[bins] over [lo, lo + bins width]."""

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import norm


def centres(count, lo, width):
    """Middles of the bins."""
    return lo + width * (np.arange(len(count)) + 0.5)


def count(v, weight, lo, width, bins):
    """Histogram; what lies outside goes to the end bins."""
    b = np.clip(np.floor((v - lo) / width), 0, bins - 1).astype(int)
    return np.bincount(b, weights=weight, minlength=bins)


def scores(count):
    """Phi^-1(F) at the edges of the bins; a quarter of an average mass at the ends."""
    end = min(0.25 / np.count_nonzero(count), 0.25)
    below = np.concatenate([[0], np.cumsum(count)]) / np.sum(count)
    return ndtri(np.where(below == 0, end, np.where(below == 1, 1 - end, below)))


def distance(count, lo, width):
    """Square of the Wasserstein distance from N(0, 1): a bin's score is its edges' mean."""
    z = scores(count)
    r = centres(count, lo, width) - (z[1:] + z[:-1]) / 2
    return np.average(r**2, weights=count)


def residual(v, score, lo, width):
    """What is v less its normal score, from a straight line through the edges' scores."""
    return v - np.interp(v, lo + width * np.arange(len(score)), score)


def exact_distance(v):
    """Square of the Wasserstein distance of a sample from N(0, 1): integral (x - z)^2 dF.

    Row i of the sorted sample goes to the quantiles between i/n and (i+1)/n, whose mean and
    whose mean square are known.
    """
    v = np.sort(v)
    z = ndtri(np.arange(len(v) + 1) / len(v))
    pdf = norm.pdf(z)
    moment = np.where(np.isfinite(z), z, 0) * pdf
    mean, square = len(v) * (pdf[:-1] - pdf[1:]), 1 + len(v) * (moment[:-1] - moment[1:])
    return np.mean(v**2 - 2 * v * mean + square)


def moments(count, lo, width):
    """Mean, standard deviation, and the quantiles at 1/4 and 3/4: of the bins' middles."""
    x = centres(count, lo, width)
    mean = np.average(x, weights=count)
    sd = np.sqrt(np.average((x - mean) ** 2, weights=count))
    below = np.cumsum(count) - count
    return mean, sd, *(x[below <= q * np.sum(count)][-1] for q in (0.25, 0.75))


def fit(count, lo, width, m, edge, kde, bandwidth, alpha):
    """Knots of the spline that carries the distribution to N(0, 1) (Dai & Seljak 2021, sec. 3.2).

    Quantile knots at bin centres; y = Phi^-1 of the smoothed CDF, times the width of a Gaussian
    smoothed alike; slopes by the chain rule, or a parabola's without smoothing; end slopes by
    regression beyond the last knot; then all pulled to the identity.
    """
    x, mass = centres(count, lo, width), count / np.sum(count)
    bins = len(count)
    _, sd, lower, upper = moments(count, lo, width)
    quartiles = (upper - lower) / 1.3489795
    sigma = min(sd, quartiles) if quartiles > 0 else sd
    h, scale = bandwidth * sigma, np.sqrt(1 + (bandwidth * sigma / sd) ** 2) if kde else 1

    gap = x[:, None] - x
    if kde:
        f, g = ndtr(gap / h) @ mass, ndtr(-gap / h) @ mass
        density = norm.pdf(gap / h) @ mass / h
    else:
        f = np.cumsum(mass) - mass / 2
        g, density = 1 - f, mass / width
    least = 1e-300  # far from all mass
    y = scale * np.where(f < g, ndtri(np.maximum(f, least)), -ndtri(np.maximum(g, least)))

    start = 1 / (m - 2 * edge + 1)
    tail = start * np.arange(1, edge + 1) / (edge + 1)
    levels = np.concatenate([tail, start * np.arange(1, m - 2 * edge + 1), 1 - tail[::-1]])
    below = np.cumsum(count) / np.sum(count)
    at = np.minimum([np.count_nonzero(below < q) for q in levels], bins - 1)
    for j in range(1, m):
        at[j] = max(at[j], at[j - 1] + 1)
    for j in range(m):
        at[m - 1 - j] = min(at[m - 1 - j], bins - 1 - j)

    ends = []
    for b, beyond in ((at[0], np.arange(bins) < at[0]), (at[-1], np.arange(bins) > at[-1])):
        dx = (x - x[b])[beyond]
        xy = np.sum((mass[beyond] * dx * (y[beyond] - y[b]))[mass[beyond] > 0])
        ends.append(xy / np.sum(mass[beyond] * dx**2) if xy > 0 else 1)

    kx, ky = x[at], y[at]
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        kd = density[at] * scale / norm.pdf(ky / scale)
    for j in range(1, m):
        ky[j] = max(ky[j], ky[j - 1] + 1e-3 * (kx[j] - kx[j - 1]) / sigma)
    if not kde:
        h = np.diff(kx)
        chord = np.diff(ky) / h
        kd[1:-1] = (chord[:-1] * h[1:] + chord[1:] * h[:-1]) / (h[1:] + h[:-1])
    kd[[0, -1]] = ends
    pull = np.full(m, alpha[0])
    pull[[0, -1]] = alpha[1]
    kd = (1 - pull) * np.clip(kd, 1e-3 / sigma, 1e3 / sigma) + pull
    return np.stack([kx, (1 - alpha[0]) * ky + alpha[0] * kx, kd])


def exact_transport(v, w):
    """Square of the Wasserstein distance of two samples, and where v's rows go: means of quantiles.

    Integral (Q_v - Q_w)^2, of rows repeated to be as many on both sides.
    """
    order = np.argsort(v, kind="stable")
    n, m = len(v), len(w)
    many = np.lcm(n, m)
    many_v, many_w = np.repeat(v[order], many // n), np.repeat(np.sort(w), many // m)
    to = np.empty(n)
    to[order] = many_w.reshape(n, -1).mean(axis=1)
    return np.mean((many_v - many_w) ** 2), to


def quantiles(count, lo, width, levels, from_above=False):
    """Of a histogram, even within a bin; at a gap the end before it, or the start after it."""
    edges = lo + width * np.arange(len(count) + 1)
    used = np.flatnonzero(count)
    below = np.concatenate([[0], np.cumsum(count)]) / np.sum(count)
    # the part of a level that rounding takes or adds is no mass
    levels = np.asarray(levels, float) * (1 + 1e-14 if from_above else 1 - 1e-14)
    side = "right" if from_above else "left"
    bins = used[np.minimum(np.searchsorted(below[used + 1], levels, side), len(used) - 1)]
    part = (levels - below[bins]) / (below[bins + 1] - below[bins])
    return edges[bins] + width * np.clip(part, 0, 1)


def match(count, grid, other, other_grid):
    """Quantiles of the other at the edges of the bins, and the squared distance of the two.

    grid: (lo, width). Where a bin follows an empty one, from above.
    """
    below = np.concatenate([[0], np.cumsum(count)]) / np.sum(count)
    end = quantiles(other, *other_grid, below)
    end[0] = quantiles(other, *other_grid, 0)
    to = end.copy()
    starts = np.flatnonzero((count[1:] > 0) & (count[:-1] == 0)) + 1
    to[starts] = quantiles(other, *other_grid, below[starts], from_above=True)
    r = centres(count, *grid) - (to[:-1] + end[1:]) / 2
    return to, np.average(r**2, weights=count)


def fit_match(count, grid, other, other_grid, m, edge, alpha):
    """Knots of the spline that carries one histogram to the other (Dai & Seljak 2021, sec. 3.3).

    Quantiles to quantiles at equal levels; slopes of parabolas, 1 at the ends; pulled to the
    identity.
    """
    start = 1 / (m - 2 * edge + 1)
    tail = start * np.arange(1, edge + 1) / (edge + 1)
    levels = np.concatenate([tail, start * np.arange(1, m - 2 * edge + 1), 1 - tail[::-1]])
    x, y = quantiles(count, *grid, levels), quantiles(other, *other_grid, levels)
    least = 1e-4
    for j in range(1, m):
        x[j] = max(x[j], x[j - 1] + least * max(y[j] - y[j - 1], least * other_grid[1]))
        y[j] = max(y[j], y[j - 1] + least * (x[j] - x[j - 1]))
    h = np.diff(x)
    chord = np.diff(y) / h
    d = np.ones(m)
    d[1:-1] = (chord[:-1] * h[1:] + chord[1:] * h[:-1]) / (h[1:] + h[:-1])
    pull = np.full(m, alpha[0])
    pull[[0, -1]] = alpha[1]
    return np.stack([x, (1 - alpha[0]) * y + alpha[0] * x, (1 - pull) * d + pull])
