"""Smooth densities of points, with hard ends where they have them, and what contours hold."""

from __future__ import annotations

import numpy as np

REACH = 3  # of a smoothing kernel, in standard deviations


def contour_levels(density, masses, share=None):
    """Return the levels, rising, inside which these shares of a density lie.

    `share`, of the shape of density, is what every cell holds: of a histogram that was smoothed,
    the share of the points themselves, because smoothing makes a narrow density wider. Shares that
    all cells together do not hold have no level.
    """
    order = np.argsort(-density, axis=None, kind="stable")
    inside = np.cumsum((density / density.sum() if share is None else share).ravel()[order])
    last = np.searchsorted(inside, sorted(masses, reverse=True))
    levels = density.ravel()[order[last[last < len(order)]]]
    return np.unique(levels)  # equal levels, of a spike in one bin, cannot be drawn


def hard_ends(x):
    """Return (least, most) of points x (n,): None where the density falls off before.

    An end is hard if the density of the outermost hundredth of the points, ten at least, is more
    than 0.3 of that of the middle half. Of fewer than 200 points, where a Gaussian might have such
    ends by chance, none is looked for.
    """
    if len(x) < 200:
        return None, None
    part = max(10, len(x) // 100) / len(x)
    least, low, *middle, high, most = np.quantile(x, [0, part, 0.25, 0.75, 1 - part, 1])
    width = part * (middle[1] - middle[0]) / (0.3 * 0.5)
    hard = [0 < low - least < width, 0 < most - high < width]
    return least if hard[0] else None, most if hard[1] else None


def smoothed(counts, cov, closed):
    """Convolve a histogram with a Gaussian of covariance cov (d, d), in bins.

    `closed`, (d, 2): whether nothing lies beyond the first and the last bin of an axis, where the
    histogram is then continued by its mirror image; otherwise by zeros.
    """
    cov = np.atleast_2d(cov)
    reach = np.ceil(REACH * np.sqrt(np.diag(cov))).astype(int)
    grid = np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij")
    offset = np.stack([g.ravel() for g in grid])
    kernel = np.exp(-0.5 * np.sum(offset * np.linalg.solve(cov, offset), axis=0))
    kernel = (kernel / kernel.sum()).reshape(grid[0].shape)
    padded = counts
    for axis, (r, ends) in enumerate(zip(reach, closed, strict=True)):
        for end, mirrored in enumerate(ends):
            pad = [(0, 0)] * counts.ndim
            pad[axis] = (r, 0) if end == 0 else (0, r)
            padded = np.pad(padded, pad, mode="symmetric" if mirrored else "constant")
    shape, axes = padded.shape, range(counts.ndim)
    product = np.fft.rfftn(padded) * np.fft.rfftn(kernel, shape, axes=axes)
    result = np.fft.irfftn(product, shape, axes=axes)
    inside = tuple(slice(2 * r, 2 * r + n) for r, n in zip(reach, counts.shape, strict=True))
    result = result[inside]
    return np.where(result > 1e-12 * result.max(), result, 0)  # less is rounding


def with_ends(nodes, density, closed):
    """Return nodes and density of cells, continued to their hard ends and to zero just beyond.

    Contours are then closed along the ends, and curves go down there.
    """
    nodes = list(nodes)
    for axis, ends in enumerate(closed):
        step = nodes[axis][1] - nodes[axis][0] if len(nodes[axis]) > 1 else 0.0
        for end, hard in enumerate(ends):
            if not hard:
                continue
            outer = np.take(density, [-end], axis=axis)
            at = nodes[axis][-end] + (end - 0.5) * step + np.array([-1e-6, 0, 1e-6]) * step
            at, rows = (at[1:], [outer, 0 * outer]) if end else (at[:2], [0 * outer, outer])
            parts = [nodes[axis], at] if end else [at, nodes[axis]]
            nodes[axis] = np.concatenate(parts)
            density = np.concatenate([density, *rows] if end else [*rows, density], axis=axis)
    return nodes, density


def smooth_histogram(points, edges, closed, cov, masses, weights=None):
    """Return nodes and a density of points (n, d), and the levels that hold shares of them.

    Parameters
    ----------
    edges : list of (m_j + 1,) array
        Of equal bins.
    closed, cov
        As of `smoothed`.
    masses : sequence of float
    weights : (n,) array, optional
        Their sum is one, as that of n equal ones is by default.
    """
    weights = np.full(len(points), 1 / len(points)) if weights is None else weights
    share = np.histogramdd(points, edges, weights=weights)[0]
    density = smoothed(share, cov, closed)
    levels = contour_levels(density, masses, share)
    nodes, density = with_ends([(e[1:] + e[:-1]) / 2 for e in edges], density, closed)
    return nodes, density, levels
