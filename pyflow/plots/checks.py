"""Whether posteriors hold what they say, and samples are like data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyflow.checks import Coverage, Spread, TwoSample
from pyflow.plots._style import BAND, DATA, INK, SAMPLES, drawing, parameter_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["coverage", "spread", "two_samples"]

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
            place.set_xlabel(f"rank of {parameter_label(name)}")
        places[2].set_ylabel("density")
        return figure


def two_samples(found: TwoSample) -> Figure:
    """Draw how a classifier tells two samples apart: its ROC curve, and its scores' ranks.

    Parameters
    ----------
    found : pyflow.checks.TwoSample
        What `pyflow.checks.two_sample_test` returns.

    Returns
    -------
    matplotlib.figure.Figure
        Scores are ranked within the fold they were held out with. The band holds 95 % of ROC curves
        at each point, of samples that are not told apart.

    Examples
    --------
    See `TwoSample.plot`.
    """
    if not isinstance(found, TwoSample):
        raise TypeError(f"found: must be a pyflow.checks.TwoSample, not {type(found).__name__}")
    ranks = np.empty(len(found.scores))
    rng = np.random.default_rng(0)
    for k in np.unique(found.fold):
        rows = np.flatnonzero(found.fold == k)
        order = np.lexsort([rng.random(len(rows)), found.scores[rows]])  # of equal ones, by chance
        ranks[rows[order]] = (np.arange(len(rows)) + 0.5) / len(rows)
    of_x, of_y = np.sort(ranks[~found.is_y]), np.sort(ranks[found.is_y])
    n = len(of_x)
    share = np.linspace(0, 1, 201)
    with drawing() as plt:
        figure, (roc, scores) = plt.subplots(1, 2, figsize=(5.6, 2.8), layout="constrained")
        wide = 1.96 * np.sqrt(2 * share * (1 - share) / n)  # both shares have an error
        roc.fill_between(share, share - wide, share + wide, color=BAND, lw=0)
        roc.plot([0, 1], [0, 1], color=INK, lw=0.7, ls="--")
        limits = np.concatenate([[2], np.sort(ranks)[::-1]])
        above = [1 - np.searchsorted(of, limits) / n for of in (of_x, of_y)]
        roc.plot(*above, color=SAMPLES, lw=1.5)
        roc.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        roc.set(xlabel="share of x above", ylabel="share of y above")
        roc.set_title(f"AUC {found.auc:.3f} ± {found.auc_error:.3f}")
        bins = int(np.clip(n // 20, 4, 20))
        scores.hist(of_x, bins, range=(0, 1), density=True, color=DATA, alpha=0.55, label="x")
        density = {"density": True, "histtype": "step", "color": SAMPLES, "lw": 1.5}
        scores.hist(of_y, bins, range=(0, 1), **density, label="y")
        scores.axhline(1, color=INK, lw=0.7, ls="--")
        scores.set(xlim=(0, 1), box_aspect=1, xlabel="rank of the score", ylabel="density")
        scores.set_ylim(0, 1.25 * scores.get_ylim()[1])
        scores.legend(loc="upper center", ncols=2)
        return figure


def spread(found: Spread) -> Figure:
    """Draw how wide samples are, compared with data, in every column.

    Parameters
    ----------
    found : pyflow.checks.Spread
        What `pyflow.checks.sample_spread` returns.

    Returns
    -------
    matplotlib.figure.Figure
        Bars are of two standard errors.

    Examples
    --------
    See `Spread.plot`.
    """
    if not isinstance(found, Spread):
        raise TypeError(f"found: must be a pyflow.checks.Spread, not {type(found).__name__}")
    d = len(found.names)
    with drawing() as plt:
        size = (float(np.clip(1.2 + 0.45 * d, 2.6, 12)), 2.8)
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        away = found.ratio * np.expm1(2 * found.error), -found.ratio * np.expm1(-2 * found.error)
        axes.axhline(1, color=INK, lw=0.7, ls="--")
        axes.errorbar(range(d), found.ratio, away[::-1], fmt="o", ms=4, lw=1.2, color=SAMPLES)
        every = -(-d // 40)
        names = found.names[::every]
        axes.set_xticks(range(0, d, every), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set(xlim=(-0.7, d - 0.3), ylabel="width of samples / data\n± 2 standard errors")
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
