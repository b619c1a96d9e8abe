"""Posteriors: the density of each parameter, and contours of every pair."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import _arguments
from pyflow.plots._style import DATA, INK, SAMPLES, TRAIN, contour_levels, drawing
from pyflow.posterior import Posterior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

__all__ = ["posteriors"]

COLOURS = (SAMPLES, TRAIN, "#e09f3e", "#3d8168", "#7d5ba6", DATA)
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
    masses = sorted(_arguments.real("masses", mass) for mass in masses)
    if not masses or not 0 < masses[0] <= masses[-1] < 1:
        raise ValueError(f"masses: must be between 0 and 1, not {masses}")
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
            (y,), density = post.marginal(j)
            ends += y[density > FAINT * density.max()][[0, -1]].tolist()
        margin = 0.05 * (max(ends) - min(ends))
        limits.append((min(ends) - margin, max(ends) + margin))
    return limits


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
                _contours(axes[i, j], post, j, i, masses, colour)
    for i in range(p):
        for j in range(p):
            _dress(axes[i, j], i, j, names, limits, truth)
    labelled = [line for line in _curves(axes[0, 0]) if not line.get_label().startswith("_")]
    if labelled:
        axes[0, -1].legend(handles=labelled, loc="upper right")
    return figure


def _curves(axes):
    return [line for line in axes.lines if line.get_gid() == "posterior"]


def _joined(axes, limits):
    """Return limits that hold what the axes show already, too."""
    if not axes.has_data():
        return limits
    lo, hi = axes.get_xlim()
    return min(lo, limits[0]), max(hi, limits[1])


def _curve(axes, post, i, colour, label):
    (y,), density = post.marginal(i)
    axes.plot(y, density / density.max(), color=colour, lw=1.5, label=label, gid="posterior")


def _contours(axes, post, i, j, masses, colour):
    """Draw the regions of parameters i, across, and j, upwards."""
    (x, y), density = post.marginal(i, j)
    levels = contour_levels(density, masses)
    axes.contourf(x, y, density.T, [levels[0], np.inf], colors=[colour], alpha=0.15)
    axes.contourf(x, y, density.T, [levels[-1], np.inf], colors=[colour], alpha=0.2)
    axes.contour(x, y, density.T, levels, colors=[colour], linewidths=1.2)


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
        axes.set_xlabel(names[j])
    if j == 0 and i > 0:
        axes.set_ylabel(names[i])


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
        filled=True,
        contour_colors=colours,
        legend_labels=labels,
        markers=None if truth is None else dict(zip(map(_key, range(p)), truth, strict=True)),
        marker_args={"color": INK, "lw": 0.7},
        param_limits={_key(j): limits[j] for j in range(p)},
    )
    for axes in plotter.fig.axes:  # Matplotlib 3.11 warns of getdist's own ticks
        axes.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
        if not axes.get_subplotspec().is_first_row():
            axes.yaxis.set_major_locator(MaxNLocator(4, prune="both"))
    for j in range(p):
        plotter.subplots[-1, j].set_xlabel(names[j])
        if j:
            plotter.subplots[j, 0].set_ylabel(names[j])
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
            (x,), density = post.marginal(names.index(name))
            return Density1D(x, density / density.max())

        def get2DDensityGridData(self, across, upwards, **_):
            (x, y), density = post.marginal(names.index(across), names.index(upwards))
            found = Density2D(x, y, density.T)
            found.contours = contour_levels(density, masses)[::-1]
            return found

    y = post.sample(1000, seed=0)
    return Gridded(samples=y, names=names, labels=names, ignore_rows=1)  # it prints of none
