"""Pictures of tables: data beside samples, latent points beside a Gaussian, the course of a fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments, _tables
from pyflow.plots._style import (
    BAND,
    DATA,
    INK,
    SAMPLES,
    TRAIN,
    contour_levels,
    drawing,
    gaussian,
    key,
    span,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from pyflow.flow import Flow


__all__ = ["history", "latent", "marginals", "pairs"]


def __dir__():
    return __all__


def _table(x, name):
    """Return x as a finite float64 array (n, dim)."""
    x = np.asarray(_arguments.rows(x, name))
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name}: must hold real numbers; its dtype is {x.dtype}")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name}: must have shape (n, dim), not empty; its shape is {x.shape}")
    x = x.astype(np.float64, copy=False)
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0].tolist()
        raise ValueError(f"{name}: row {row}, column {column} is {x[row, column]}")
    return x


def _pair_of_tables(data, samples, columns, names, most):
    """Return the columns of data and samples to draw, by default the first, and their names."""
    own = _tables.names(data, "data")
    samples = _table(_tables.matched(samples, "samples", own), "samples")
    data = _table(data, "data")
    d = data.shape[1]
    if d != samples.shape[1]:
        raise ValueError(f"samples: has {samples.shape[1]} columns where data has {d}")
    names = own if names is None else list(map(str, names))
    if names is not None and len(names) != d:
        raise ValueError(f"names: {len(names)} names for {d} columns")
    columns = _columns(columns, names, d, most)
    names = [f"$x_{{{j}}}$" if names is None else names[j] for j in columns]
    return data[:, columns], samples[:, columns], names


def _columns(columns, names, d, most):
    """Return the numbers of columns, which may be given by name. Default: the first."""
    if columns is None:
        return list(range(min(d, most)))
    numbers = []
    for column in [columns] if isinstance(columns, str) else columns:
        if isinstance(column, str):
            if column not in (names or ()):
                raise ValueError(f"columns: there is none called {column!r}")
            column = names.index(column)
        numbers.append(_arguments.integer("columns", column, 0, d - 1))
    if not numbers:
        raise ValueError("columns: there are none")
    return numbers


def _histograms(axes, data, samples, limits, bins):
    """Draw two densities of one column over each other."""
    edges = np.linspace(*limits, bins + 1)
    for x, style in (
        (data, {"histtype": "stepfilled", "color": DATA, "alpha": 0.55, "lw": 0}),
        (samples, {"histtype": "step", "color": SAMPLES, "lw": 1.3}),
    ):
        _density(axes, x, edges, **style)
    axes.set(xlim=limits, yticks=[])
    axes.spines["left"].set_visible(False)


def _density(axes, x, edges, **style):
    """Draw a histogram whose area is the share of x inside its edges; return the heights."""
    # not density=True, which would count what lies beyond the edges as if it were inside
    weights = np.full(len(x), 1 / (len(x) * (edges[1] - edges[0])))
    return axes.hist(x, edges, weights=weights, **style)[0]


def marginals(
    data: ArrayLike,
    samples: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    columns: Sequence[int | str] | None = None,
    bins: int = 60,
) -> Figure:
    """Draw the distribution of each column: data filled, samples as a line.

    Parameters
    ----------
    data, samples : (n, dim), (m, dim) array-like
        Finite. Of two tables with names the columns are paired by name.
    names : sequence of dim str, optional
        What the axes are called. Default: the names of the columns of data, if it has any.
    columns : sequence of int or str, optional
        Which columns to draw. Default: the first 25.
    bins : int
        Bins of each histogram.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> rng = np.random.default_rng(0)
    >>> figure = pyflow.plots.marginals(rng.normal(size=(500, 3)), rng.normal(size=(500, 3)))
    >>> len(figure.axes)
    3
    """
    data, samples, names = _pair_of_tables(data, samples, columns, names, most=25)
    count = len(names)
    across = count if count <= 4 else math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    with drawing() as plt:
        size = (max(2.4 * across, 3.6), 1.7 * down + 0.4)
        figure, grid = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
        for axes in grid.flat[count:]:
            axes.remove()
        for j, axes in enumerate(grid.flat[:count]):
            _histograms(axes, data[:, j], samples[:, j], span(data[:, j]), bins)
            axes.set_xlabel(names[j])
        figure.legend(handles=key(), loc="outside upper center", ncols=2)
    return figure


def _smooth(counts, sigma):
    """Convolve a two-dimensional histogram with a Gaussian, sigma in bins."""
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        counts = np.apply_along_axis(np.convolve, axis, counts, kernel, mode="same")
    return counts


def pairs(
    data: ArrayLike,
    samples: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    columns: Sequence[int | str] | None = None,
    masses: Sequence[float] = (0.3, 0.68, 0.95),
    bins: int = 50,
) -> Figure:
    """Draw every pair of columns: data as filled contours, samples as lines.

    On the diagonal are the distributions of each.

    Parameters
    ----------
    data, samples : (n, dim), (m, dim) array-like
        Finite. Of two tables with names the columns are paired by name.
    names : sequence of dim str, optional
        What the axes are called. Default: the names of the columns of data, if it has any.
    columns : sequence of int or str, optional
        Which columns to draw. Default: the first 6.
    masses : sequence of float
        The shares of the points that the contours hold.
    bins : int
        Bins of the histograms, along each axis.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> rng = np.random.default_rng(0)
    >>> figure = pyflow.plots.pairs(rng.normal(size=(500, 3)), rng.normal(size=(500, 3)))
    >>> len(figure.axes)
    6
    """
    data, samples, names = _pair_of_tables(data, samples, columns, names, most=6)
    count = len(names)
    limits = [span(column) for column in data.T]
    with drawing() as plt:
        size = 1.6 * count + 0.8
        figure, grid = plt.subplots(
            count, count, figsize=(size, size), squeeze=False, layout="constrained"
        )
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
        for i in range(count):
            for j in range(count):
                axes = grid[i, j]
                if j > i:
                    axes.remove()
                    continue
                axes.locator_params(nbins=4, prune="both")
                axes.tick_params(labelleft=j == 0 and i > 0, labelbottom=i == count - 1)
                if i == j:
                    _histograms(axes, data[:, i], samples[:, i], limits[i], bins)
                else:
                    _pair(
                        axes,
                        data[:, [j, i]],
                        samples[:, [j, i]],
                        [limits[j], limits[i]],
                        masses,
                        bins,
                    )
                if i == count - 1:
                    axes.set_xlabel(names[j])
                if j == 0 and i > 0:
                    axes.set_ylabel(names[i])
        figure.align_labels()
        figure.legend(handles=key(), loc="upper right" if count > 1 else "outside upper center")
    return figure


def _pair(axes, data, samples, limits, masses, bins):
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("data", ["#dfe3ea", DATA, "#5c6784"])
    density, levels, middles = _smooth_histogram(data, limits, masses, bins)
    shades = shades(np.linspace(0, 1, len(levels)))
    if len(levels):
        axes.contourf(*middles, density, [*levels, 2 * density.max()], colors=shades)
    density, levels, middles = _smooth_histogram(samples, limits, masses, bins)
    if len(levels):
        axes.contour(*middles, density, levels, colors=SAMPLES, linewidths=1)
    axes.set(xlim=limits[0], ylim=limits[1])


def _smooth_histogram(points, limits, masses, bins):
    """Return a density (y, x) of points (n, 2), levels that hold shares of them, and x and y."""
    counts, *edges = np.histogram2d(*points.T, bins, limits)
    density = _smooth(counts.T, sigma=1.5 * bins / 50)
    levels = contour_levels(density, masses, counts.T / len(points))
    return density, levels, [(e[1:] + e[:-1]) / 2 for e in edges]


def latent(z: ArrayLike, *, columns: Sequence[int | str] | None = None, bins: int = 60) -> Figure:
    """Draw latent points beside the unit Gaussian that they should follow.

    Left: the distribution of every column (thin lines) and of all together. Middle: quantiles of
    every column less those of the Gaussian, with the band in which 95% of the columns of a Gaussian
    sample of this size lie at each quantile. Right: |z|^2, which follows a chi-squared distribution
    with dim degrees of freedom.

    Parameters
    ----------
    z : (n, dim) array-like
        From `Flow.forward`, of data the flow has not seen.
    columns : sequence of int or str, optional
        Which columns to draw in the first two. Default: the first 25.
    bins : int
        Bins of each histogram.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> figure = pyflow.plots.latent(np.random.default_rng(0).normal(size=(500, 3)))
    >>> len(figure.axes)
    3
    """
    names, z = _tables.names(z, "z"), _table(z, "z")
    columns = _columns(columns, names, z.shape[1], 25)
    with drawing() as plt:
        figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3), layout="constrained")
        _latent_columns(axes[0], z, columns, bins)
        _latent_quantiles(axes[1], z, columns)
        _latent_radius(axes[2], z, bins)
    return figure


def _latent_columns(axes, z, columns, bins):
    limits = (-4.2, 4.2)
    edges = np.linspace(*limits, bins + 1)
    for j in columns:
        _density(axes, z[:, j], edges, histtype="step", color=DATA, lw=0.6, alpha=0.6)
    _density(axes, z.reshape(-1), edges, histtype="step", color=SAMPLES, lw=1.5)
    t = np.linspace(*limits, 400)
    axes.plot(t, gaussian(t), color=INK, lw=1, ls="--", label="N(0, 1)")
    axes.plot([], [], color=SAMPLES, lw=1.5, label="all columns")
    axes.plot([], [], color=DATA, lw=1, label="each column")
    axes.set(xlabel="$z$", yticks=[], xlim=limits, title="latent columns")
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.spines["left"].set_visible(False)
    axes.legend(loc="upper left", fontsize=7.5)


def _latent_quantiles(axes, z, columns):
    from statistics import NormalDist  # takes long to load

    n = len(z)
    p = (np.arange(min(n, 400)) + 0.5) / min(n, 400)
    quantiles = np.array([NormalDist().inv_cdf(q) for q in p])
    band = 1.96 * np.sqrt(p * (1 - p) / n) / gaussian(quantiles)  # of a sample's quantiles
    axes.fill_between(quantiles, -band, band, color=BAND, lw=0, label="95% of a sample")
    axes.axhline(0, color=INK, lw=1, ls="--")
    most = 2.5 * band.max()
    for j in columns:
        difference = np.quantile(z[:, j], p) - quantiles
        most = max(most, 1.1 * min(np.abs(difference[1:-1]).max(initial=0), 1.5))
        axes.plot(quantiles, difference, color=SAMPLES, lw=0.9, alpha=0.7)
    axes.plot([], [], color=SAMPLES, lw=1, label="each column")
    axes.set(xlabel="quantile of N(0, 1)", ylim=(-most, most))
    axes.set_title("latent quantile less Gaussian quantile")
    axes.legend(loc="upper left", fontsize=7.5)


def _latent_radius(axes, z, bins):
    d = z.shape[1]
    square = np.sum(z * z, axis=1)
    limits = (0, 1.15 * np.quantile(square, 0.998))
    edges = np.linspace(*limits, bins + 1)
    heights = _density(axes, square, edges, histtype="step", color=SAMPLES, lw=1.5)
    t = np.linspace(0, limits[1], 401)[1:]
    log_chi2 = (d / 2 - 1) * np.log(t) - t / 2 - math.lgamma(d / 2) - d / 2 * math.log(2)
    axes.plot([], [], color=SAMPLES, lw=1.5, label="latent points")
    axes.plot(t, np.exp(log_chi2), color=INK, lw=1, ls="--", label=rf"$\chi^2_{{{d}}}$")
    top = heights.max() if d < 2 else max(heights.max(), np.exp(log_chi2).max())
    axes.set(xlabel="$|z|^2$", xlim=limits, yticks=[], ylim=(0, 1.1 * top))
    axes.set_title("distance from the origin")
    axes.spines["left"].set_visible(False)
    axes.legend()


def history(flow: Flow) -> Figure:
    """Draw the log-likelihood after each layer of a fit of GIS, or after each epoch of training.

    Below it, for layers, the sliced distance. Of a flow of GIS that was trained: the epochs. Of a
    mixture: those of all members.

    Parameters
    ----------
    flow : Flow

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the flow has no history: a fit without layers, or epochs.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).gamma(2, size=(500, 2))
    >>> figure = pyflow.plots.history(pyflow.GIS(x, max_layers=3, verbose=False))
    >>> len(figure.axes)
    2
    """
    records = flow.history if isinstance(flow.history, tuple) else (flow.history,)
    if not all(len(record["epoch"]) for record in records):
        raise ValueError("flow: has no history")
    trained = any(record["epoch"].any() for record in records)
    if trained:
        records = [{k: v[record["epoch"] > 0] for k, v in record.items()} for record in records]
    step, unit = "epoch" if trained else "layer", "nats"
    if len(flow.shape) > 1:
        unit = "nats per pixel"
    few = max(len(record["epoch"]) for record in records) <= 60
    mark = {"marker": "o", "markersize": 3} if few else {}
    with drawing() as plt:
        if trained:
            figure, above = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
            below = above
        else:
            figure, (above, below) = plt.subplots(
                2, 1, figsize=(6.4, 4.6), sharex=True, height_ratios=(2, 1), layout="constrained"
            )
            for record in records:
                _distances(below, record["distance"], mark)
        _likelihoods(above, records, mark)
        above.set_ylabel(f"mean log p ({unit})")
        below.set_xlabel(step)
        below.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _likelihoods(axes, records, mark):
    values = []
    for record in records:
        train, validate = record["logp_train"], record["logp_validate"]
        at = np.arange(1, len(train) + 1)
        axes.plot(at, train, color=TRAIN, lw=1.2, label="training data", **mark)
        seen = np.isfinite(validate)
        if seen.any():
            axes.plot(at, validate, color=SAMPLES, lw=1.2, label="validation data", **mark)
            best = int(np.nanargmax(validate))
            label = f"best: {validate[best]:.4g}" if len(records) == 1 else "best of each member"
            axes.plot(at[best], validate[best], "o", ms=8, mfc="none", mec=SAMPLES, label=label)
        values += [train, validate[seen]]
    low, top = np.nanquantile(np.concatenate(values), [0.12, 1])  # the first steps are far larger
    margin = 0.08 * (top - low) or 0.1
    axes.set_ylim(low - margin, top + margin)
    lines = {line.get_label(): line for line in axes.lines}  # one of those of all members
    axes.legend(lines.values(), lines.keys())


def _distances(axes, distance, mark):
    at = np.arange(1, len(distance) + 1)
    seen = np.isfinite(distance) & (distance > 0)
    axes.semilogy(at[seen], distance[seen], color=INK, lw=1.2, **mark)
    axes.set_ylabel("sliced distance")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(lambda x, _: f"{x:.2g}" if f"{x:.0e}"[0] in "235" else "")
