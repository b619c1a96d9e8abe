"""Pictures of tables: data beside samples, latent points beside a Gaussian."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments, _tables
from pyflow.plots._contours import hard_ends, smooth_histogram
from pyflow.plots._style import (
    BAND,
    DATA,
    INK,
    SAMPLES,
    drawing,
    gaussian,
    key,
    parameter_label,
    percentages,
    shares,
    span,
    wrapped,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    Bounds = (
        Sequence[tuple[float | None, float | None] | None]
        | Mapping[str, tuple[float | None, float | None]]
        | None
    )


__all__ = ["latent", "marginals", "pairs"]


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


def _pair_of_tables(data, samples, columns, names, bounds, bins, most):
    """Return the columns of data and samples to draw, their names, axes, and a note if not all."""
    own = _tables.names(data, "data")
    samples = _table(_tables.matched(samples, "samples", own), "samples")
    data = _table(data, "data")
    d = data.shape[1]
    if d != samples.shape[1]:
        raise ValueError(f"samples: has {samples.shape[1]} columns where data has {d}")
    names = own if names is None else list(map(str, names))
    if names is not None and len(names) != d:
        raise ValueError(f"names: {len(names)} names for {d} columns")
    bounds = _bounds(bounds, names, d)
    note = f"the first {most} of {d} columns" if columns is None and d > most else ""
    columns = _columns(columns, names, d, most)
    for j in columns:
        (low, high), least, most = bounds[j], data[:, j].min(), data[:, j].max()
        if (low is not None and least < low) or (high is not None and most > high):
            raise ValueError(f"bounds: column {j} of data goes from {least:g} to {most:g}")
    names = [f"$x_{{{j}}}$" if names is None else parameter_label(names[j]) for j in columns]
    axis = [_Axis(data[:, j], samples[:, j], bounds[j], bins) for j in columns]
    return data[:, columns], samples[:, columns], names, axis, note


def _bounds(bounds, names, d):
    """Return (low, high) of each of d columns, None where there is none."""
    if bounds is None:
        return [(None, None)] * d
    if hasattr(bounds, "keys"):
        for name in bounds:
            if name not in (names or ()):
                raise ValueError(f"bounds: there is no column called {name!r}")
        bounds = [bounds.get(name) for name in names]
    if len(bounds) != d:
        raise ValueError(f"bounds: {len(bounds)} pairs for {d} columns")
    found = []
    for pair in bounds:
        low, high = (None, None) if pair is None else pair
        low, high = (
            None if end is None or math.isinf(end) else _arguments.real("bounds", end)
            for end in (low, high)
        )
        if low is not None and high is not None and not low < high:
            raise ValueError(f"bounds: must rise; {low:g} is not below {high:g}")
        found.append((low, high))
    return found


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


class _Axis:
    """The bins of a column, which start at its hard ends, and where its axis begins and ends.

    Attributes
    ----------
    limits : (float, float)
        Two bins of 50 beyond hard ends, where samples may lie that should not.
    edges : (m,) array
        From one limit to the other.
    """

    def __init__(self, data, samples, bounds, bins):
        lo, hi = span(data)
        half = 0.5 * (hi - lo) / bins
        least, most = samples.min(), samples.max()
        low, high = hard_ends(data)
        # Of ends that were found, the samples' own may lie a little further out.
        low = min(low, least) if low is not None and least > low - half else low
        high = max(high, most) if high is not None and most < high + half else high
        low, high = (
            found if end is None else end for found, end in zip((low, high), bounds, strict=True)
        )
        # One that is not in the picture is of no matter.
        low = low if low is not None and lo <= low < hi else None
        high = high if high is not None and lo < high <= hi else None
        self.ends = {
            "data": (low, high),
            "samples": (
                None if low is None or least < low else low,
                None if high is None or most > high else high,
            ),
        }
        start, stop = lo if low is None else low, hi if high is None else high
        if high is not None:
            stop += 1e-9 * (stop - start)  # the greatest is in the last bin
        self._step = (stop - start) / bins
        margin = math.ceil(0.04 * bins)
        first = 0 if low is None else -margin
        last = bins if high is None else bins + margin
        self.edges = start + self._step * np.arange(first, last + 1)
        self.limits = self.edges[0], self.edges[-1]

    def bins(self, which, reach):
        """Return equal bins of the data or samples, `reach` bins beyond where there is no end."""
        low, high = self.ends[which]
        step = self._step
        start = self.edges[0] - reach * step if low is None else low
        stop = self.edges[-1] + reach * step if high is None else high
        count = max(round((stop - start) / step), 1)
        slack = 1e-9 * (stop - start)
        return np.linspace(start, stop + (slack if high is not None else 0), count + 1)


def _histograms(axes, data, samples, edges):
    """Draw two densities of one column over each other."""
    for x, style in (
        (data, {"histtype": "stepfilled", "color": DATA, "alpha": 0.55, "lw": 0}),
        (samples, {"histtype": "step", "color": SAMPLES, "lw": 1.3}),
    ):
        _density(axes, x, edges, **style)
    axes.set(xlim=edges[[0, -1]], yticks=[])
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
    bounds: Bounds = None,
) -> Figure:
    """Draw the distribution of each column, in its own units: data filled, samples as a line.

    Parameters
    ----------
    data, samples : (n, dim), (m, dim) array-like
        Finite. Of two tables with names the columns are paired by name.
    names : sequence of dim str, optional
        What the axes are called. Default: the names of the columns of data, if it has any.
    columns : sequence of int or str, optional
        Which columns to draw. Default: the first 25; the figure says so if there are more.
    bins : int
        Bins of each histogram.
    bounds : sequence of dim (low, high) or None, or mapping of them by name, optional
        Ends of the columns, where bins start; None and infinity for no end. Default: the least and
        the greatest of the data, where their density does not fall off before.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the tables do not match or are not finite, data lie beyond their bounds, or an option
        makes no sense: the message names the argument.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> rng = np.random.default_rng(0)
    >>> figure = pyflow.plots.marginals(rng.normal(size=(500, 3)), rng.normal(size=(500, 3)))
    >>> len(figure.axes)
    3
    """
    bins = _arguments.integer("bins", bins, 1)
    data, samples, names, axis, note = _pair_of_tables(
        data, samples, columns, names, bounds, bins, most=25
    )
    count = len(names)
    across = count if count <= 4 else math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    with drawing() as plt:
        size = (max(2.4 * across, 3.6), 1.7 * down + 0.4)
        figure, grid = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
        for axes in grid.flat[count:]:
            axes.remove()
        for j, axes in enumerate(grid.flat[:count]):
            _histograms(axes, data[:, j], samples[:, j], axis[j].edges)
            axes.set_xlabel(wrapped(names[j], 20))
        figure.legend(handles=key(), loc="outside upper center", ncols=2, title=note or None)
    return figure


def pairs(
    data: ArrayLike,
    samples: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    columns: Sequence[int | str] | None = None,
    masses: Sequence[float] = (0.3, 0.68, 0.95),
    bins: int = 50,
    bounds: Bounds = None,
) -> Figure:
    """Draw every pair of columns: data as filled contours, samples as lines.

    On the diagonal are the distributions of each. Densities are smooth, and end at the bounds.

    Parameters
    ----------
    data, samples : (n, dim), (m, dim) array-like
        Finite. Of two tables with names the columns are paired by name.
    names : sequence of dim str, optional
        What the axes are called. Default: the names of the columns of data, if it has any.
    columns : sequence of int or str, optional
        Which columns to draw. Default: the first 6; the figure says so if there are more.
    masses : sequence of float
        The shares of the points that the contours hold.
    bins : int
        Bins of the histograms, along each axis.
    bounds : sequence of dim (low, high) or None, or mapping of them by name, optional
        Ends of the columns: see `marginals`. Samples beyond them are drawn too.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        As `marginals`.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> rng = np.random.default_rng(0)
    >>> figure = pyflow.plots.pairs(rng.normal(size=(500, 3)), rng.normal(size=(500, 3)))
    >>> len(figure.axes)
    6
    """
    bins, masses = _arguments.integer("bins", bins, 2), shares(masses)
    data, samples, names, axis, note = _pair_of_tables(
        data, samples, columns, names, bounds, bins, most=6
    )
    count = len(names)
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
                axes.locator_params(nbins=4 if count < 4 else 3, prune="both")
                axes.tick_params(labelleft=j == 0 and i > 0, labelbottom=i == count - 1)
                if i == j:
                    _histograms(axes, data[:, i], samples[:, i], axis[i].edges)
                else:
                    which = [j, i]
                    _pair(axes, data[:, which], samples[:, which], [axis[j], axis[i]], masses, bins)
                if i == count - 1:
                    axes.set_xlabel(wrapped(names[j], 13))
                if j == 0 and i > 0:
                    axes.set_ylabel(wrapped(names[i], 13))
        figure.align_labels()
        lines = [f"contours: {percentages(masses)} of points"] * (count > 1) + [note] * bool(note)
        figure.legend(
            handles=key(),
            loc="upper right" if count > 2 else "outside upper center",  # where there is room
            title="\n".join(lines) or None,
            alignment="left",
        )
    return figure


def _pair(axes, data, samples, axis, masses, bins):
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("data", ["#dfe3ea", DATA, "#5c6784"])
    nodes, density, levels = _smooth(data, "data", axis, masses, bins)
    shades = shades(np.linspace(0, 1, len(levels)))
    if len(levels):
        axes.contourf(*nodes, density.T, [*levels, 2 * density.max()], colors=shades)
    nodes, density, levels = _smooth(samples, "samples", axis, masses, bins)
    if len(levels):
        axes.contour(*nodes, density.T, levels, colors=SAMPLES, linewidths=1)
    axes.set(xlim=axis[0].limits, ylim=axis[1].limits)


def _smooth(points, which, axis, masses, bins):
    """Return nodes, density and levels; fewer points are smoothed more, as n^(-1/6) says."""
    sigma = 1.5 * bins / 50 * np.clip((20_000 / len(points)) ** (1 / 6), 1, 2)
    edges = [a.bins(which, math.ceil(3 * sigma)) for a in axis]
    closed = [[end is not None for end in a.ends[which]] for a in axis]
    return smooth_histogram(points, edges, closed, sigma**2 * np.eye(2), masses)


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
    bins = _arguments.integer("bins", bins, 1)
    with drawing() as plt:
        figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3), layout="constrained")
        _latent_columns(axes[0], z, columns, bins)
        if len(columns) < z.shape[1]:
            axes[0].get_legend().set_title(f"{len(columns)} of {z.shape[1]} columns")
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
