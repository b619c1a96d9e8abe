"""Posteriors: the density of each parameter, and contours of every pair."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import _arguments
from pyflow._quadrature import Chain, Points
from pyflow.plots._contours import contour_levels, smooth_histogram, with_ends
from pyflow.plots._style import COLOURS, INK, drawing, parameter_label, percentages, shares
from pyflow.posterior import Posterior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

__all__ = ["posteriors"]

BINS = {1: 120, 2: 80}  # of a chain's marginals, along an axis
FAINT = 2e-3  # of the highest density: below that, nothing is drawn of a marginal


def __dir__():
    return __all__


def posteriors(
    posteriors: Posterior | Sequence[Posterior],
    labels: Sequence[str] | None = None,
    truth: Sequence[float] | None = None,
    *,
    masses: Sequence[float] = (0.68, 0.95),
    axes: Any = None,
    getdist: bool | None = None,
) -> Figure:
    """Draw posteriors over each other: the density of each parameter, and contours of every pair.

    All lines lie over all filled regions, so that no posterior hides another. Where the prior's
    bounds cut a density off, its curves go down and its contours are closed there. Those of a chain
    are smooth histograms; their contours hold the shares of the chain's own points.

    Parameters
    ----------
    posteriors : sequence of Posterior, or one
        Of the same parameters.
    labels : sequence of str, optional
        What each posterior is called.
    truth : (p,) sequence of float, optional
        A point to mark.
    masses : sequence of float
        What the contours hold.
    axes : (p, p) array of matplotlib axes, optional
        Where to draw, over what is there already. Without getdist.
    getdist : bool, optional
        Let getdist draw the densities of the posteriors' grids. Default: where it is installed, and
        no axes are given.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If posteriors are of different parameters, or there are more or fewer labels or axes than
        asked for, or `truth` is not finite.
    TypeError
        If they are no posteriors.
    ImportError
        If `getdist` is true and it is not installed.

    Examples
    --------
    >>> import pyflow
    >>> log_density = lambda y: -0.5 * (y**2).sum(axis=1)
    >>> wide = pyflow.Posterior(log_density, [(-9, 9)] * 2, ["a", "b"])
    >>> narrow = pyflow.Posterior(lambda y: 4 * log_density(y), [(-9, 9)] * 2, ["a", "b"])
    >>> figure = pyflow.plots.posteriors([wide, narrow], ["one map", "four"], getdist=False)
    >>> [axes.get_xlabel() for axes in figure.axes[2:]]
    ['a', 'b']
    """
    posteriors, labels = _named(posteriors, labels)
    names = posteriors[0].names
    p = len(names)
    if truth is not None:
        truth = np.asarray(truth, dtype=np.float64)
        if truth.shape != (p,) or not np.isfinite(truth).all():
            raise ValueError(f"truth: must be {p} finite numbers, not {truth}")
    masses = shares(masses)
    if axes is not None:
        axes = np.asarray(axes)
        if axes.size != p * p:
            raise ValueError(f"axes: must be {p} x {p}; there are {axes.size}")
        if getdist:
            raise ValueError("axes: getdist makes its own")
    if getdist is None:
        getdist = axes is None and importlib.util.find_spec("getdist") is not None
    draw = _by_getdist if _arguments.boolean("getdist", getdist) else _by_hand
    with drawing() as plt:
        return draw(plt, posteriors, labels, truth, masses, axes)


def _named(posteriors, labels):
    """Return lists of posteriors, of the same parameters, and of their labels or None."""
    posteriors = [posteriors] if isinstance(posteriors, Posterior) else list(posteriors)
    for post in posteriors:
        if not isinstance(post, Posterior):
            raise TypeError(f"posteriors: must hold pyflow.Posterior, not {type(post).__name__}")
    if not posteriors:
        raise ValueError("posteriors: there are none")
    for post in posteriors:
        if post.names != posteriors[0].names:
            raise ValueError(
                f"posteriors: are of {', '.join(post.names)} and {', '.join(posteriors[0].names)}"
            )
    labels = [labels] if isinstance(labels, str) else labels
    if labels is not None and len(labels) != len(posteriors):
        raise ValueError(f"labels: {len(labels)} labels for {len(posteriors)} posteriors")
    return posteriors, labels


def _limits(posteriors, truth):
    """Return where each parameter has density, (p, 2), the truth included, with a margin."""
    limits = []
    for j in range(len(posteriors[0].names)):
        ends = [] if truth is None else [truth[j]]
        for post in posteriors:
            (y,), density, _ = _marginal(post, (j,))
            ends += y[density > FAINT * density.max()][[0, -1]].tolist()
        margin = 0.05 * (max(ends) - min(ends))
        limits.append((min(ends) - margin, max(ends) + margin))
    return limits


def _marginal(post, which, masses=()):
    """Return nodes, density and levels of the marginal of some parameters, with its hard ends."""
    known = post._known
    bounds = known.bounds[list(which)]
    if not isinstance(known, Points):
        nodes, density = post.marginal(*which)
        levels = contour_levels(density, masses)
        closed = []
        for y, ends in zip(nodes, bounds, strict=True):
            reached = np.abs(y[[0, -1]] - ends) < 0.6 * (y[1] - y[0])
            closed.append([bool(end) for end in reached])
        return *with_ends(nodes, density, closed), levels
    # Scott's rule: the covariance of n points times n^(-2 / (d + 4)). Kish's number of points, of
    # which those of a chain are a third of an autocorrelation time apart.
    points, d = known.points[:, list(which)], len(which)
    centred = points - known.mass @ points
    n = 1 / np.sum(known.mass**2) / (3 if isinstance(known, Chain) else 1)
    cov = n ** (-2 / (d + 4)) * (centred.T * known.mass) @ centred
    edges, closed, step = [], [], []
    for j in range(d):
        order = np.argsort(points[:, j])
        last = np.searchsorted(np.cumsum(known.mass[order]), [1e-4, 1 - 1e-4])
        ends = points[order[np.minimum(last, len(order) - 1)], j]
        wide = ends + 3 * np.sqrt(cov[j, j]) * np.array([-1, 1])
        reached = [wide[0] < bounds[j, 0], wide[1] > bounds[j, 1]]
        closed.append(reached)
        edges.append(np.linspace(*np.clip(wide, *bounds[j]), BINS[d] + 1))
        step.append(edges[j][1] - edges[j][0])
    cov = cov / np.outer(step, step) + 0.25 * np.eye(d)
    beyond = [(x < e[0]) | (x > e[-1]) for x, e in zip(points.T, edges, strict=True)]
    mass = np.where(np.any(beyond, axis=0), 0, known.mass)
    return smooth_histogram(points, edges, closed, cov, masses, mass / mass.sum())


def _side(p):
    """Return the side of a figure for p parameters, in inches."""
    return 2.0 * p + 1.2


# ---- by ourselves --------------------------------------------------------------------------------


def _by_hand(plt, posteriors, labels, truth, masses, axes):
    names, limits = posteriors[0].names, _limits(posteriors, truth)
    p = len(names)
    if axes is None:
        size = (_side(p), _side(p))
        figure, axes = plt.subplots(p, p, figsize=size, squeeze=False, layout="constrained")
    else:
        axes = axes.reshape(p, p)
        figure = axes[0, 0].figure
        limits = [_joined(axes[j, j], limits[j]) for j in range(p)]
    before = len(_curves(axes[0, 0]))
    for k, post in enumerate(posteriors):
        colour = COLOURS[(before + k) % len(COLOURS)]
        for i in range(p):
            _curve(axes[i, i], post, i, colour, None if labels is None else labels[k])
            for j in range(i):
                _contours(axes[i, j], post, (j, i), masses, colour)
    for i in range(p):
        for j in range(p):
            _dress(axes[i, j], i, j, names, limits, truth)
    labelled = [line for line in _curves(axes[0, 0]) if not line.get_label().startswith("_")]
    title = _held(masses) if p > 1 else None
    if labelled:
        axes[0, -1].legend(handles=labelled, loc="upper right", title=title, alignment="left")
    elif p > 1:
        axes[0, -1].text(1, 1, title, ha="right", va="top", transform=axes[0, -1].transAxes)
    return figure


def _held(masses):
    return f"contours: {percentages(masses)}\nof the posterior"


def _curves(axes):
    return [line for line in axes.lines if line.get_gid() == "posterior"]


def _joined(axes, limits):
    """Return limits that hold what the axes show already, too."""
    if not axes.has_data():
        return limits
    lo, hi = axes.get_xlim()
    return min(lo, limits[0]), max(hi, limits[1])


def _curve(axes, post, i, colour, label):
    (y,), density, _ = _marginal(post, (i,))
    axes.plot(y, density / density.max(), color=colour, lw=1.5, label=label, gid="posterior")


def _contours(axes, post, which, masses, colour):
    """Draw the regions of two parameters, the first across: lines over what others fill."""
    (x, y), density, levels = _marginal(post, which, masses)
    axes.contourf(x, y, density.T, [levels[0], np.inf], colors=[colour], alpha=0.12, zorder=1)
    axes.contourf(x, y, density.T, [levels[-1], np.inf], colors=[colour], alpha=0.18, zorder=1)
    axes.contour(x, y, density.T, levels, colors=[colour], linewidths=1.2, zorder=2)


def _dress(axes, i, j, names, limits, truth):
    """Give the axes of row i and column j limits, labels and the truth."""
    if j > i:
        axes.set_axis_off()
        return
    axes.locator_params(nbins=4)
    if i == j:
        axes.set(ylim=(0, 1.08), yticks=[])
        axes.spines["left"].set_visible(False)
    else:
        axes.set_ylim(limits[i])
    axes.set_xlim(limits[j])
    if truth is not None:
        axes.axvline(truth[j], color=INK, lw=0.7, ls="--")
        if i > j:
            axes.axhline(truth[i], color=INK, lw=0.7, ls="--")
    p = len(names)
    axes.tick_params(labelbottom=i == p - 1, labelleft=j == 0 and i > 0)
    if i == p - 1:
        axes.set_xlabel(parameter_label(names[j]))
    if j == 0 and i > 0:
        axes.set_ylabel(parameter_label(names[i]))


# ---- by getdist ----------------------------------------------------------------------------------


def _by_getdist(plt, posteriors, labels, truth, masses, axes):
    from getdist import plots
    from matplotlib.ticker import MaxNLocator

    names, limits = posteriors[0].names, _limits(posteriors, truth)
    p = len(names)
    plotter = plots.get_subplot_plotter(width_inch=_side(p))
    plotter.settings.num_plot_contours = len(masses)
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(posteriors))]
    plotter.triangle_plot(
        [_gridded(post, masses) for post in posteriors],
        filled=[k == 0 for k in range(len(posteriors))],  # others would hide those before
        contour_colors=colours,
        contour_lws=1.2,
        line_args=[{"color": colour, "lw": 1.5} for colour in colours],
        legend_labels=labels,
        markers=None if truth is None else dict(zip(map(_key, range(p)), truth, strict=True)),
        marker_args={"color": INK, "lw": 0.7},
        param_limits={_key(j): limits[j] for j in range(p)},
    )
    for axes in plotter.fig.axes:  # Matplotlib 3.11 warns of getdist's own ticks
        axes.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
        if not axes.get_subplotspec().is_first_row():
            axes.yaxis.set_major_locator(MaxNLocator(4, prune="both"))
    for j in range(p):
        plotter.subplots[-1, j].set_xlabel(parameter_label(names[j]))
        if j:
            plotter.subplots[j, 0].set_ylabel(parameter_label(names[j]))
    if labels is None:
        for legend in list(plotter.fig.legends):  # names that nobody gave
            legend.remove()
    if plotter.fig.legends and p > 1:
        plotter.fig.legends[0].set_title(_held(masses))
    elif p > 1:
        plotter.fig.text(0.98, 0.98, _held(masses), ha="right", va="top")
    return plotter.fig


def _key(j):
    """Return what getdist knows a parameter by: names may hold what it takes for a pattern."""
    return f"y{j}"


def _gridded(post, masses):
    """Return getdist's samples of a posterior, whose densities are those of its grid."""
    from getdist import MCSamples
    from getdist.densities import Density1D, Density2D

    names = [_key(j) for j in range(len(post.names))]

    class Gridded(MCSamples):
        def get1DDensityGridData(self, name, **_):
            (x,), density, _ = _marginal(post, (names.index(name),))
            return Density1D(x, density / density.max())

        def get2DDensityGridData(self, across, upwards, **_):
            which = names.index(across), names.index(upwards)
            (x, y), density, levels = _marginal(post, which, masses)
            found = Density2D(x, y, density.T)
            found.contours = levels[::-1]
            return found

    y = post.sample(1000, seed=0)
    return Gridded(samples=y, names=names, labels=names, ignore_rows=1)  # it prints of none
