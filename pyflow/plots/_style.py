"""What all pictures share: colours, style, ranges and contour levels."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

DATA = "#8d99ae"
SAMPLES = "#d1495b"
TRAIN = "#30638e"
INK = "#2b2d42"
BAND = "#e6e9ef"

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.dpi": 150,
}


@contextmanager
def drawing():
    """Give matplotlib.pyplot, with pyflow's style; afterwards it has no figures but those before.

    A figure that pyplot still knew would be shown a second time by a notebook, at the end of its
    cell, and never be freed. Those made here get a canvas of their own, which draws into memory.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("pyflow.plots needs matplotlib: pip install matplotlib") from None
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    before, active = plt.get_fignums(), plt.get_fignums() and plt.gcf().number
    try:
        with plt.rc_context(STYLE), np.errstate(under="ignore"):
            yield plt
    finally:
        for number in set(plt.get_fignums()) - set(before):
            figure = plt.figure(number)
            plt.close(figure)
            FigureCanvasAgg(figure)
        if active:
            plt.figure(active)


def key():
    """Return the handles of a legend that tells data, filled, from samples, a line."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    return [
        Patch(color=DATA, alpha=0.55, lw=0, label="data"),
        Line2D([], [], color=SAMPLES, lw=1.5, label="samples of the model"),
    ]


def span(x, cut=0.005):
    """Return where nearly all of x lies, with a margin."""
    lo, hi = np.quantile(x, [cut, 1 - cut])
    margin = 0.06 * (hi - lo) or 0.5
    return lo - margin, hi + margin


def interval(limits):
    """Return limits as two numbers that rise."""
    values = np.asarray(limits, dtype=np.float64)
    if values.shape != (2,) or not np.isfinite(values).all() or not values[0] < values[1]:
        raise ValueError(f"limits: must be two numbers, low and high, not {limits!r}")
    return values.tolist()


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


def gaussian(t):
    """Return the density of N(0, 1)."""
    return np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi)
