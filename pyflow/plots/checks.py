"""Whether posteriors hold what they say: coverage, TARP and ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyflow.checks import Coverage
from pyflow.plots._style import BAND, DATA, INK, SAMPLES, drawing, known_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["coverage"]

WORLDS = 1000  # sets of right posteriors, for the bands


def __dir__():
    return __all__


def coverage(found: Coverage) -> Figure:
    """Draw coverage against credibility, the TARP curve, and a histogram of each parameter's ranks.

    Parameters
    ----------
    found : pyflow.checks.Coverage
        What `Flow.check` returns.

    Returns
    -------
    matplotlib.figure.Figure
        Bands hold 95 % of such curves, or bars, of so many simulations with right posteriors.

    Examples
    --------
    See `Coverage.plot`.
    """
    if not isinstance(found, Coverage):
        raise TypeError(f"found: must be a pyflow.checks.Coverage, not {type(found).__name__}")
    n, p = found.simulations, len(found.names)
    right = np.random.default_rng(0).random((WORLDS, n))
    with drawing() as plt:
        rows, columns = (1, 2 + p) if p <= 2 else (2, max(2, p))
        size = (2.6 * columns, 2.6 * rows)
        figure, axes = plt.subplots(*(rows, columns), figsize=size, layout="constrained")
        axes = axes.ravel()
        places = [*axes[:2], *(axes[2:] if rows == 1 else axes[columns : columns + p])]
        for unused in set(axes) - set(places):
            unused.remove()
        _curve(places[0], found, found.credibility, right, "credibility")
        _curve(places[1], found, found.tarp, right, "TARP credibility")
        places[0].set_ylabel("share of truths inside")
        bins = int(np.clip(n // 8, 4, 20))
        for place, name, ranks in zip(places[2:], found.names, found.ranks.T, strict=True):
            _histogram(place, found, ranks, right, bins)
            place.set_xlabel(f"rank of {known_label(name)}")
        places[2].set_ylabel("density")
        return figure


def _band(curves):
    """Return where 95 % of the curves (m, ...) lie, (2, ...)."""
    return np.quantile(curves, [0.025, 0.975], axis=0)


def _curve(axes, found, values, right, label):
    """Draw the cumulative distribution of values beside that of uniform ones, right (m, n)."""
    t = np.linspace(0, 1, 101)
    each = np.sort(right, axis=1)
    band = _band([np.searchsorted(row, t, side="right") / len(row) for row in each])
    axes.fill_between(t, *band, color=BAND, lw=0)
    axes.plot([0, 1], [0, 1], color=INK, lw=0.7, ls="--")
    share = found.by_simulation(values[:, None] <= t).mean(axis=0)
    axes.plot(t, share, color=SAMPLES, lw=1.5)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=label, aspect="equal")


def _histogram(axes, found, ranks, right, bins):
    """Draw the density of ranks beside the range of that of uniform ones, right (m, n)."""
    edges = np.linspace(0, 1, bins + 1)

    def inside(values):
        return np.minimum((bins * values).astype(int), bins - 1)[..., None] == np.arange(bins)

    band = _band([inside(row).mean(axis=0) for row in right]) * bins
    axes.fill_between([0, 1], band[0].min(), band[1].max(), color=BAND, lw=0)
    density = found.by_simulation(inside(ranks)).mean(axis=0) * bins
    axes.stairs(density, edges, color=DATA, fill=True, alpha=0.55)
    axes.axhline(1, color=INK, lw=0.7, ls="--")
    axes.set(xlim=(0, 1), ylim=(0, None), box_aspect=1)
