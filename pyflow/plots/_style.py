"""What all pictures share: colours, style, names and ranges."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = "#8d99ae"
SAMPLES = "#d1495b"
TRAIN = "#30638e"
INK = "#2b2d42"
BAND = "#e6e9ef"
# One for each of several things: told apart by the colour-blind too, and INK last.
COLOURS = (SAMPLES, TRAIN, "#edae49", "#4fb0a5", "#8e6bbf", INK)
# What colours mean in all pictures.
MEANING = {"data": DATA, "samples": SAMPLES, "train": TRAIN, "ink": INK, "band": BAND}

# What parameters of cosmology are called in LaTeX.
KNOWN = {
    "omega_m": r"$\Omega_m$",
    "Omega_m": r"$\Omega_m$",
    "omega_b": r"$\Omega_b$",
    "Omega_b": r"$\Omega_b$",
    "omega_c": r"$\Omega_c$",
    "Omega_c": r"$\Omega_c$",
    "omega_k": r"$\Omega_k$",
    "Omega_k": r"$\Omega_k$",
    "omega_lambda": r"$\Omega_\Lambda$",
    "Omega_lambda": r"$\Omega_\Lambda$",
    "sigma_8": r"$\sigma_8$",
    "sigma8": r"$\sigma_8$",
    "s_8": "$S_8$",
    "S_8": "$S_8$",
    "S8": "$S_8$",
    "h": "$h$",
    "h_0": "$H_0$",
    "H_0": "$H_0$",
    "H0": "$H_0$",
    "n_s": "$n_s$",
    "ns": "$n_s$",
    "a_s": "$A_s$",
    "A_s": "$A_s$",
    "w": "$w$",
    "w_0": "$w_0$",
    "w0": "$w_0$",
    "w_a": "$w_a$",
    "wa": "$w_a$",
    "m_nu": r"$\sum m_\nu$",
    "tau": r"$\tau$",
    "f_nl": r"$f_\mathrm{NL}$",
    "f_NL": r"$f_\mathrm{NL}$",
}

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "contour.linewidth": 1.2,
    "image.cmap": "magma",
    "savefig.dpi": 150,
}


@contextmanager
def style() -> Iterator[dict[str, str]]:
    """Give what is drawn within a `with` block the look of pyflow's own pictures.

    Sizes of letters, lines, axes and colours are set in matplotlib's `rcParams`, for all threads,
    and are afterwards what they were before. The colours "C0", "C1" and so on, which curves have in
    turn, are told apart by the colour-blind too. Save a figure within the block: ticks and titles
    that are made as late as that are then alike.

    Yields
    ------
    dict of str
        Colours, by what they mean in pyflow's pictures: of "data" (filled), "samples" and "train"
        (lines), "ink" (letters and lines that are there for comparison) and "band" (what chance
        does, filled).

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import pyflow
    >>> from matplotlib.figure import Figure
    >>> with pyflow.plots.style() as colours:
    ...     axes = Figure(figsize=(3, 2)).subplots()
    ...     line = axes.axhline(1, color=colours["ink"], ls="--")
    ...     label = axes.set_xlabel(pyflow.plots.parameter_label("omega_m"))
    >>> axes.spines["top"].get_visible()
    False
    """
    try:
        from matplotlib import rc_context
    except ImportError:
        raise _lacking() from None
    with rc_context(STYLE):
        yield dict(MEANING)


def _lacking():
    return ImportError("pyflow.plots needs matplotlib: pip install matplotlib")


@contextmanager
def drawing():
    """Give matplotlib.pyplot, with pyflow's style; afterwards it has no figures but those before.

    A figure that pyplot still knew would be shown a second time by a notebook, at the end of its
    cell, and never be freed. Those made here get a canvas of their own, which draws into memory.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise _lacking() from None
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    before, active = plt.get_fignums(), plt.get_fignums() and plt.gcf().number
    try:
        with style(), np.errstate(under="ignore"):
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


def shares(masses):
    """Return what contours are to hold, rising: at least one, between 0 and 1."""
    try:
        values = sorted(_arguments.real("masses", mass) for mass in masses)
    except TypeError:
        raise TypeError(f"masses: must be numbers, not {masses!r}") from None
    if not values or not 0 < values[0] <= values[-1] < 1:
        raise ValueError(f"masses: must be between 0 and 1, not {values}")
    return values


def interval(limits):
    """Return limits as two numbers that rise."""
    values = np.asarray(limits, dtype=np.float64)
    if values.shape != (2,) or not np.isfinite(values).all() or not values[0] < values[1]:
        raise ValueError(f"limits: must be two numbers, low and high, not {limits!r}")
    return values.tolist()


def parameter_label(name: str) -> str:
    r"""Return how a parameter is written in pictures.

    Parameters
    ----------
    name : str
        "omega_m", "sigma_8" and other parameters of cosmology become LaTeX; other names stay as
        they are.

    Returns
    -------
    str

    Examples
    --------
    >>> import pyflow
    >>> [pyflow.plots.parameter_label(name) for name in ("omega_m", "sigma_8", "beta")]
    ['$\\Omega_m$', '$\\sigma_8$', 'beta']
    """
    return KNOWN.get(name, name)


def wrapped(name, width):
    """Return a name in lines of about `width` characters, broken at blanks, - and _."""
    if "$" in name or len(name) <= width:
        return name
    lines = textwrap.wrap(name.replace("_", "_\0 "), max(int(width), 4))
    return "\n".join(lines).replace("\0 ", "").replace("\0", "")


def percentages(masses):
    """Return shares as text: 30, 68 and 95 %."""
    *first, last = [f"{100 * mass:.4g}" for mass in sorted(set(masses))]
    return f"{', '.join(first)} and {last} %" if first else f"{last} %"


def gaussian(t):
    """Return the density of N(0, 1)."""
    return np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi)
