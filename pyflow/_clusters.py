"""Clusters of rows with emptier space between them.

A flow is one continuous map: between modes far apart it leaves bridges, on which samples lie. A
mixture of flows, one for each cluster, has none. Clusters are looked for in haste, and gladly
found: validation data decide.
"""

from __future__ import annotations

import numpy as np

from pyflow import _arguments
from pyflow._members import gains, of_data, usual
from pyflow.mixture import Mixture

ROWS = 2000  # that clusters are looked for among
NEIGHBOURS = 10  # a row's distance to this one tells how dense its surroundings are
LEAST_SHARE = 0.02  # of the rows, in a cluster
LEAST_ROWS = 5  # in a cluster, for each column
LEAST_VALIDATE = 10  # rows of a cluster's validation data
DOUBLINGS = 1  # of density from the gap around a cluster to its inside
CLOSE = 1e-5  # of the columns' ranges: rows that are nearer may as well be equal
WIDER = 1.1  # times as far apart as inside a cluster are rows across the gap, at least
FAR = 1e100  # in columns' ranges


def fitted(fit, n_models, data):
    """Return fit(n_models, data), or, if that is better, a mixture of fits to each cluster.

    It is better if the mean log p of the validation data is higher by more than its standard error,
    row by row, with one model each. Returned, too, is that mixture of one model each, or None.

    Parameters
    ----------
    fit : callable
        Of a number of models and data.
    n_models : int or None
    data : dict of arrays
        `data_train` and `data_validate`, and perhaps `weight_train` and `weight_validate`.
    """
    if n_models is not None:
        _arguments.integer("n_models", n_models, 1)
    try:
        clusters = find(data["data_train"])
    except KeyboardInterrupt as error:
        error.flow = None
        raise
    if clusters is None:
        return fit(n_models, data), None
    whole = fit(1, data)  # which also checks the data
    if n_models is None and usual(data, None) == 1:
        n_models = 1  # of each cluster too, however small
    try:
        parts = split(data, clusters)
        single, x = mixed(fit, 1, parts), data["data_validate"]
        if single is None or not gains(
            single.evaluate_density(x) - whole.evaluate_density(x), data.get("weight_validate")
        ):
            return (whole if n_models == 1 else fit(n_models, data)), None
        return (n_models != 1 and mixed(fit, n_models, parts)) or single, single
    except BaseException as error:
        error.flow = whole
        raise


def split(data, clusters):
    """Return the data of each cluster."""
    of = {"train": clusters.nearest(data["data_train"])}
    of["validate"] = clusters.nearest(data["data_validate"])
    return [
        {name: x[of[name.split("_")[1]] == k] for name, x in data.items()}
        for k in range(len(clusters))
    ]


def mixed(fit, n_models, parts):
    """Return the mixture of fits to each part, or None if one has no density of its own."""
    if min(len(part["data_validate"]) for part in parts) < LEAST_VALIDATE:
        return None
    try:
        flows = [fit(n_models, part) for part in parts]
    except ValueError as error:  # columns dependent in this cluster, weights that are zero, say
        if of_data(error):
            return None
        raise
    weights = [part.get("weight_train", np.ones(len(part["data_train"]))) for part in parts]
    return Mixture(flows, [weight.sum(dtype=np.float64) for weight in weights])


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


def find(x):
    """Return the clusters of x (n, d), or None if there is but one.

    The columns are shifted and scaled to equal ranges, so their units say nothing. Rows are points
    of a tree: the shortest that joins them all, by distances that are no less than those of either
    end to its tenth neighbour (mutual reachability: Campello et al. 2013). Its edges join clusters
    in the order of their lengths, except where both are clusters already: of many rows, which vary
    in every column, and the edge is that much longer than is usual inside that the space across
    must be emptier (as Chazal et al. 2013, "Persistence-based clustering in Riemannian manifolds").
    How distances grow as density falls is seen from the fifth to the tenth neighbour: so it depends
    on the dimension that the rows have in truth, not on the number of columns.
    """
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        return None
    n, d = x.shape
    pick = np.arange(n)
    if n > ROWS:
        pick = np.sort(np.random.default_rng(0).choice(n, ROWS, replace=False, shuffle=False))
    least = max(LEAST_SHARE * len(pick), LEAST_ROWS * d * len(pick) / max(n, 1), NEIGHBOURS + 1)
    if d == 0 or len(pick) < 2 * least or not np.isfinite(x[pick]).all():
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        middle, scale = ranges(x[pick].astype(np.float64))
        rows = scaled(x[pick], middle, scale)
    if not (np.abs(rows) < FAR).all():
        return None
    of = joined(rows, *tree(rows), least)
    return Clusters(rows, of, middle, scale) if of.any() else None


def ranges(x):
    """Return the middle and the width of the columns of x, most of the rows: (d,) both."""
    low, middle, high = np.percentile(x, [5, 50, 95], axis=0)
    width = high - low
    return middle, np.where(width > 0, width, np.maximum(np.ptp(x, axis=0), np.finfo(float).tiny))


def scaled(x, middle, scale):
    return (np.asarray(x, np.float64) - middle) / scale


def tree(x):
    """Return the shortest tree of points x (m, d), and how far each one's neighbours are.

    Returns
    -------
    edges : (m - 1, 2) int array
        In the order of their lengths.
    lengths : (m - 1,) array
    core : (m,) array
        Distances to the tenth neighbour.
    growth : (m,) array
        log of these over the distances to the fifth: what halving the density adds.
    """
    m, k = len(x), NEIGHBOURS
    square = (x**2).sum(axis=1)
    far = x @ x.T
    far *= -2
    far += square
    far += square[:, None]
    np.maximum(far, CLOSE**2, out=far)
    half, core = np.partition(far, (k // 2, k), axis=1)[:, [k // 2, k]].T
    np.maximum(far, core, out=far)
    # Prim: `best` is how far each point is from the tree, `via` from which of its points.
    best, via = np.full(m, np.inf), np.zeros(m, int)
    outside = np.ones(m, bool)
    edges, lengths, at = np.empty((m - 1, 2), int), np.empty(m - 1), 0
    for step in range(m - 1):
        outside[at] = False
        best[at] = np.inf
        away = np.maximum(far[at], core[at])
        nearer = (away < best) & outside
        best[nearer], via[nearer] = away[nearer], at
        at = int(best.argmin())
        edges[step], lengths[step] = (via[at], at), best[at]
    order = np.argsort(lengths, kind="stable")
    growth = np.log(core / half) / 2
    return edges[order], np.sqrt(lengths[order]), np.sqrt(core), growth


def joined(x, edges, lengths, core, growth, least):
    """Return the cluster (m,) of each point, the largest 0, of points and what `tree` returns."""
    at, inside = np.arange(len(core)), [[i] for i in range(len(core))]
    # In one column there is no way around a gap that is there by chance.
    doublings = DOUBLINGS * (2 if x.shape[1] == 1 else 1)

    def is_one(points, length):
        if len(points) < least or np.ptp(x[points], axis=0).min() <= CLOSE:
            return False
        wider = max(doublings * growth[points].mean(), np.log(WIDER))
        return np.log(length / np.median(core[points])) >= wider

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
