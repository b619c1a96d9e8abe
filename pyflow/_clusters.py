"""Clusters of rows with almost empty space between them.

A flow is one continuous map: between modes far apart it leaves bridges, on which samples lie. A
mixture of flows, one for each cluster, has none.
"""

from __future__ import annotations

import numpy as np

ROWS = 2000  # that clusters are looked for among
NEIGHBOURS = 10  # a row's distance to this one tells how dense its surroundings are
LEAST_SHARE = 0.02  # of the rows, in a cluster
LEAST_ROWS = 20  # in a cluster, for each column
EMPTIER = 50.0  # times less dense than inside a cluster is the gap around it
WIDER = 1.5  # times as far apart as inside a cluster are rows across the gap around it


class Clusters:
    """Where clusters are.

    Parameters
    ----------
    rows : (m, d) array
        Some of the data, on the scale below.
    of : (m,) int array
        The cluster of each.
    middle, scale : (d,) arrays
    """

    def __init__(self, rows, of, middle, scale):
        self.rows, self.of, self.middle, self.scale = rows, of, middle, scale
        self.half = (rows**2).sum(axis=1) / 2

    def __len__(self):
        return int(self.of.max()) + 1

    def nearest(self, x):
        """Return the cluster (n,) of the row that each of x (n, d) is nearest to."""
        found = np.empty(len(x), int)
        for at in range(0, len(x), ROWS):
            part = scaled(x[at : at + ROWS], self.middle, self.scale)
            found[at : at + ROWS] = self.of[(self.half - part @ self.rows.T).argmin(axis=1)]
        return found


def find(x, seed=0):
    """Return the clusters of x (n, d), or None if there is but one.

    The columns are shifted and scaled to equal ranges, so their units say nothing. Rows are points
    of a tree: the shortest that joins them all, by distances that are no less than those of either
    end to its tenth neighbour (mutual reachability, Campello et al. 2013). Its edges join clusters
    in the order of their lengths, except where both are clusters already: large, and the edge so
    much longer than is usual inside of them that the space across must be almost empty
    (as by Chazal et al. 2013, "Persistence-based clustering in Riemannian manifolds").

    Parameters
    ----------
    x : (n, d) array
    seed : int
        Of the rows that are looked at, if there are many.
    """
    n, d = x.shape
    pick = np.arange(n)
    if n > ROWS:
        pick = np.sort(np.random.default_rng(seed).choice(n, ROWS, replace=False))
    rows = np.asarray(x[pick], np.float64)
    least = max(LEAST_SHARE, LEAST_ROWS * d / n) * len(rows)
    if len(rows) < 2 * max(least, NEIGHBOURS + 1):
        return None
    middle, scale = ranges(rows)
    rows = scaled(rows, middle, scale)
    apart = max(WIDER, EMPTIER ** (1 / d))
    of = joined(*tree(rows), max(least, NEIGHBOURS + 1), apart)
    return Clusters(rows, of, middle, scale) if of.any() else None


def ranges(x):
    """Return the middle and the width of the columns of x, most of the rows: (d,) both."""
    low, middle, high = np.percentile(x, [5, 50, 95], axis=0)
    width = high - low
    return middle, np.where(width > 0, width, np.maximum(np.ptp(x, axis=0), np.finfo(float).tiny))


def scaled(x, middle, scale):
    return ((x - middle) / scale).astype(np.float32)


def tree(x):
    """Return the shortest tree of points x (m, d), and the distance to each one's neighbour.

    Returns
    -------
    edges : (m - 1, 2) int array
        In the order of their lengths.
    lengths : (m - 1,) array
    core : (m,) array
        Distances to the tenth neighbour.
    """
    m = len(x)
    square = (x**2).sum(axis=1)
    far = square[:, None] + square - 2 * (x @ x.T)
    core = np.partition(far, NEIGHBOURS, axis=1)[:, NEIGHBOURS]
    np.maximum(far, core, out=far)
    # Prim: `best` is how far each point is from the tree, `via` from which of its points.
    best, via = np.full(m, np.inf, far.dtype), np.zeros(m, int)
    outside = np.ones(m, bool)
    edges, lengths, at = np.empty((m - 1, 2), int), np.empty(m - 1), 0
    for k in range(m - 1):
        outside[at] = False
        best[at] = np.inf
        away = np.maximum(far[at], core[at])
        nearer = (away < best) & outside
        best[nearer], via[nearer] = away[nearer], at
        at = int(best.argmin())
        edges[k], lengths[k] = (via[at], at), best[at]
    order = np.argsort(lengths, kind="stable")
    lengths, core = (np.sqrt(np.maximum(v, 0)) for v in (lengths, core))
    return edges[order], lengths[order], core


def joined(edges, lengths, core, least, apart):
    """Return the cluster of each point, (m,): what is left unjoined, in order of size."""
    at, inside = np.arange(len(core)), [[i] for i in range(len(core))]

    def is_one(points, length):
        return len(points) >= least and length >= apart * np.median(core[points])

    for (i, j), length in zip(edges, lengths, strict=True):
        one, other = sorted((at[i], at[j]), key=lambda k: len(inside[k]))
        if not (is_one(inside[one], length) and is_one(inside[other], length)):
            at[inside[one]] = other
            inside[other] += inside[one]
            inside[one] = []
    order = sorted(range(len(core)), key=lambda k: -len(inside[k]))
    rank = np.empty(len(core), int)
    rank[order] = np.arange(len(core))
    return rank[at]
