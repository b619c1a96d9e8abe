"""Pictures of data beside samples of fields: pixels, power spectra and bispectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments
from pyflow.fields import bispectrum, power_spectrum
from pyflow.plots._fields import ROWS, both, density, spectra, tell_beyond, to_the, wave_numbers
from pyflow.plots._style import BAND, DATA, INK, SAMPLES, drawing, interval, key, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    Box = float | Sequence[float]

__all__ = ["bispectra", "field_pdf", "power_spectra"]

MOST = 5.0  # of a ratio, that is shown


def __dir__():
    return __all__


def field_pdf(
    data: ArrayLike,
    samples: ArrayLike,
    *,
    bins: int = 60,
    limits: tuple[float, float] | None = None,
    log: bool = True,
    ratio: bool = True,
    label: str = "pixel",
) -> Figure:
    """Draw the distribution of the pixels: data filled, samples as a line.

    Below is the ratio of the two, or their difference. The grey band is the standard error of the
    data's mean over fields, the red one that of the samples; both are taken from the scatter
    between fields, as if these were independent. A single field has none.

    Parameters
    ----------
    data, samples : (n, mesh), (m, mesh) array-like, or (n0, n1)
        On one mesh.
    bins : int
        Bins of the histogram.
    limits : (float, float), optional
        Where it begins and ends. Default: where 99.9% of the pixels of the data lie. Pixels beyond
        count in the densities.
    log : bool
        A logarithmic axis of densities.
    ratio : bool
        Below: samples / data if true, otherwise samples - data.
    label : str
        What the pixels are.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If fields are not of one mesh, not real or not finite, or an option makes no sense: the
        message names the argument.

    Examples
    --------
    >>> import pyflow
    >>> x = pyflow.fields.lognormal_field(1e-4, (32, 32), 60, seed=1)
    >>> figure = pyflow.plots.field_pdf(x[:30], x[30:])
    >>> len(figure.axes)
    2
    """
    data, samples = both(data, samples)
    bins = _arguments.integer("bins", bins, 1)
    log, ratio = _arguments.boolean("log", log), _arguments.boolean("ratio", ratio)
    limits = span(data, 0.0005) if limits is None else interval(limits)
    edges = np.linspace(*limits, bins + 1)
    densities = [np.stack([density(field, edges) for field in x]) for x in (data, samples)]
    with drawing() as plt:
        figure, (above, below) = _two(plt)
        _outlines(above, edges, *(density.mean(axis=0) for density in densities), log)
        above.set_ylabel("density")
        tell_beyond(above, samples, limits, "samples")
        figure.legend(handles=key(), loc="outside upper center", ncols=2)
        _compare(below, (edges[1:] + edges[:-1]) / 2, *densities, ratio)
        below.set(xlabel=label, xlim=limits)
    return figure


def _two(plt):
    return plt.subplots(
        2, 1, figsize=(5.2, 4.6), sharex=True, height_ratios=(2.2, 1), layout="constrained"
    )


def _outlines(axes, edges, data, samples, log):
    axes.stairs(data, edges, fill=True, color=DATA, alpha=0.55, lw=0)
    axes.stairs(samples, edges, baseline=None, color=SAMPLES, lw=1.3)
    drawn = np.concatenate([data, samples])
    top = drawn.max() or 1.0
    if log:
        least = drawn[drawn > 0].min(initial=top)
        axes.set(yscale="log", ylim=(max(least / 2, 1e-12 * top), 2 * top))
    else:
        axes.set_ylim(0, 1.1 * top)


def _mean(values):
    """Return the mean over fields, and its standard error: NaN for a single field."""
    n = len(values)
    error = values.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(values.shape[1], np.nan)
    return values.mean(axis=0), error


def _compare(axes, x, data, samples, ratio, whole=False):
    """Draw samples / data or samples - data, (fields, bins) of both, with the errors of means.

    Limits hold all of them if `whole`, otherwise most of what is well known.
    """
    (mean, error), (mine, own) = _mean(data), _mean(samples)
    unit = np.where(mean > 0, mean, np.nan) if ratio else 1.0
    centre = float(ratio)
    y = mine / unit if ratio else mine - mean
    error, own = error / unit, own / unit
    axes.fill_between(x, centre - error, centre + error, color=BAND, lw=0)
    axes.fill_between(x, y - own, y + own, color=SAMPLES, alpha=0.25, lw=0)
    axes.plot(x, y, color=SAMPLES, lw=1.3, **_marks(x))
    axes.axhline(centre, color=INK, lw=0.8, ls="--")
    if len(data) > 1 or len(samples) > 1:
        axes.fill_between([], [], color=BAND, label="standard error of the mean")
        axes.legend(loc="best", fontsize=7)
    if whole:
        _show_all(axes, x, centre, ratio, y - own, y, y + own, centre - error, centre + error)
    else:
        axes.set_ylim(_around(centre, y, error, error < 0.3 if ratio else np.ones(len(y), bool)))
    axes.set_ylabel("samples / data" if ratio else "samples - data")


def _compare_pairs(axes, x, data, samples, ratio):
    """Draw the mean over pairs of log(sample / data), as a ratio, or of sample - data."""
    if ratio:
        power = (data > 0) & (samples > 0)
        each = np.log(np.where(power, samples, 1) / np.where(power, data, 1))
        pairs = power.sum(axis=0)  # one without power has no ratio
        mean = np.where(pairs > 0, each.sum(axis=0) / np.maximum(pairs, 1), np.nan)
        square = (np.where(power, each - mean, 0) ** 2).sum(axis=0)
        error = np.sqrt(square / np.maximum(pairs - 1, 1) / np.maximum(pairs, 1))
        error = np.where(pairs > 1, error, np.nan)  # of a single pair nobody knows it
        lo, y, hi = np.exp(-error), np.exp(mean), np.exp(error)
    else:
        y, error = _mean(samples - data)
        lo, hi = -error, error
    centre = float(ratio)
    axes.fill_between(x, lo, hi, color=BAND, lw=0)
    axes.plot(x, y, color=SAMPLES, lw=1.3, **_marks(x))
    axes.axhline(centre, color=INK, lw=0.8, ls="--")
    if np.isfinite(error).any():
        axes.fill_between([], [], color=BAND, label="standard error over pairs")
        axes.legend(loc="best", fontsize=7)
    _show_all(axes, x, centre, ratio, lo, y, hi)
    axes.set_ylabel("sample / data, in pairs" if ratio else "sample - data, in pairs")


def _show_all(axes, x, centre, ratio, *curves):
    """Let the axes hold all curves; marks at the top tell where a ratio is greater than MOST."""
    values = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    lo, hi = min(values.min(initial=centre), centre), max(values.max(initial=centre), centre)
    if ratio:
        lo, hi = max(lo, 0), min(hi, MOST)
    margin = 0.08 * (hi - lo) or 0.1
    axes.set_ylim(lo - margin, hi + margin)
    above = np.any([np.nan_to_num(curve, nan=0) > MOST for curve in curves], axis=0)
    if ratio and above.any():
        top = np.full(above.sum(), hi + margin)
        axes.plot(x[above], top, "^", color=SAMPLES, ms=5, clip_on=False)


def _around(centre, y, error, known):
    """Return limits that show most of y and of the band centre +- error, where y is well known."""
    seen = np.isfinite(y)
    seen = seen & known if (seen & known).any() else seen
    band = error[seen & np.isfinite(error)]
    lo, hi = np.quantile(y[seen], [0.02, 0.98]) if seen.any() else (centre, centre)
    lo = min(lo, centre - 1.5 * band.max(initial=0))
    hi = max(hi, centre + 1.5 * band.max(initial=0))
    margin = 0.2 * (hi - lo) or 0.1
    return lo - margin, hi + margin


def power_spectra(
    data: ArrayLike,
    samples: ArrayLike,
    box_size: Box = 1.0,
    *,
    bins: int | Sequence[float] | None = None,
    unit: str = "",
    paired: bool = False,
) -> Figure:
    """Draw the mean power spectra of data and samples, and their ratio.

    Above, the bands hold the middle 68% of single fields. Below, they are the standard errors of
    the means over fields, taken from the scatter between fields as if these were independent: grey
    of the data, red of the samples. A single field has none. Where fields are of many conditions
    (cosmologies, say), that scatter is mostly between conditions: draw a sample at the condition of
    each field, and say `paired=True`.

    Parameters
    ----------
    data, samples : (n, mesh), (m, mesh) array-like, or (n0, n1)
        On one mesh.
    box_size : float or sequence of float
        Length of the axes.
    bins : int or sequence of float, optional
        Bins of equal width, or their edges: see `pyflow.fields.power_spectrum`.
    unit : str
        Of `box_size`: of "Mpc/h", wave numbers are in h/Mpc and powers of fields in two dimensions
        in (Mpc/h)^2. The field itself is taken to have none.
    paired : bool
        Whether each sample is of the condition of the field of data in the same place. Below is
        then the geometric mean over pairs of sample / data, in which what they share cancels, and
        the band around 1 is its standard error.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If fields are not of one mesh, not real or not finite, if those of data are constant, if
        pairs are asked for and there are not as many samples as data, or an option makes no sense:
        the message names the argument.

    Examples
    --------
    >>> import pyflow
    >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (32, 32), 60, box_size=100.0, seed=1)
    >>> figure = pyflow.plots.power_spectra(x[:30], x[30:], 100.0, unit="Mpc/h")
    >>> len(figure.axes)
    2
    """
    data, samples = both(data, samples)
    _vary(data, "power spectrum")
    paired = _paired(data, samples, paired)
    k, true, _ = spectra(data, box_size, bins)
    _, mine, _ = spectra(samples, box_size, bins)
    with drawing() as plt:
        figure, above = _over_k(plt, k, true, mine, unit, paired, ratio=True)
        above.set_yscale("log", nonpositive="mask")
        above.set_ylim(_decades(true, mine))
        above.set_ylabel("$P(k)$" + (f"  [{to_the(unit, data.ndim - 1)}]" if unit else ""))
    return figure


def bispectra(
    data: ArrayLike,
    samples: ArrayLike,
    box_size: Box = 1.0,
    *,
    bins: int | Sequence[float] | None = None,
    unit: str = "",
    paired: bool = False,
) -> Figure:
    """Draw the mean equilateral bispectra of data and samples, and their difference.

    Drawn is Q = B(k) / (3 P(k)^2), without units, P the mean power spectrum of the data. It shows
    what is wrong with filaments and peaks where spectra and pixels agree. Bands as in
    `power_spectra`.

    Parameters
    ----------
    data, samples : (n, mesh), (m, mesh) array-like, or (n0, n1)
        On one mesh.
    box_size : float or sequence of float
        Length of the axes.
    bins : int or sequence of float, optional
        See `pyflow.fields.bispectrum`.
    unit : str
        Of `box_size`.
    paired : bool
        As of `power_spectra`: the band of the difference is then its standard error over pairs.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        As `power_spectra`.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (32, 32), 60, box_size=100.0, seed=1)
    >>> figure = pyflow.plots.bispectra(np.exp(x[:30] / x.std()), x[30:], 100.0, unit="Mpc/h")
    >>> len(figure.axes)
    2
    """
    data, samples = both(data, samples)
    _vary(data, "bispectrum")
    paired = _paired(data, samples, paired)
    k, true, _ = bispectrum(data, box_size, bins)
    if not len(k):
        raise ValueError("bins: no triangle of these fields lies in them")
    at, power, _ = power_spectrum(data, box_size)
    unit_b = 3 * np.interp(k, at, power.mean(axis=0)) ** 2
    true, mine = true / unit_b, bispectrum(samples, box_size, bins)[1] / unit_b
    with drawing() as plt:
        figure, above = _over_k(plt, k, true, mine, unit, paired, ratio=False)
        above.axhline(0, color=INK, lw=0.8, ls=":")
        above.set_ylabel("$Q(k) = B / 3 P^2$")
    return figure


def _vary(data, what):
    """Refuse fields that are all constant."""
    if np.all(np.ptp(data.reshape(len(data), -1), axis=1) == 0):
        raise ValueError(f"data: the fields are constant: they have no {what}")


def _paired(data, samples, paired):
    """Return whether fields are compared in pairs, of which there must be two."""
    paired = _arguments.boolean("paired", paired)
    if paired and not len(data) == len(samples) > 1:
        raise ValueError(
            f"paired: needs a sample for every field of data, two at least, not {len(samples)} "
            f"for {len(data)}"
        )
    return paired


def _over_k(plt, k, data, samples, unit, paired, ratio):
    """Draw what (fields, bins) both have at k, and compare it below; return figure and axes."""
    figure, (above, below) = _two(plt)
    for values, colour, name in ((data, DATA, ROWS[0]), (samples, SAMPLES, ROWS[1])):
        _spread(above, k, values, colour, name)
    above.set_xscale("log")
    above.legend()
    if paired:
        _compare_pairs(below, k, data, samples, ratio)
    else:
        _compare(below, k, data, samples, ratio, whole=True)
    below.set_xlim(k[0] / 1.08, k[-1] * 1.08)
    wave_numbers(below, unit)
    return figure, above


def _marks(x):
    """Return how a curve of a few points is drawn, so that they are seen."""
    return {"marker": "o", "ms": 3} if len(x) < 12 else {}


def _spread(axes, k, power, colour, name):
    """Draw the mean of power spectra (n, bins), and the band of the middle 68% of them."""
    mean = power.mean(axis=0)
    if len(power) > 1:
        band = np.quantile(power, [0.16, 0.84], axis=0)
        axes.fill_between(k, *band, color=colour, alpha=0.25, lw=0)
        name += ": mean, and 68% of fields"
    axes.plot(k, mean, color=colour, lw=1.6, label=name, **_marks(k))


def _decades(data, samples):
    """Return limits of a logarithmic axis; samples with next to no power may lie beyond."""
    bands = [
        np.vstack([np.quantile(power, [0.16, 0.5, 0.84], axis=0), power.mean(axis=0)])
        for power in (data, samples)
    ]
    true, mine = (band[band > 0] for band in bands)
    lo, hi = true.min(), true.max()
    mine = mine[(mine > 1e-3 * lo) & (mine < 1e3 * hi)]
    return min(lo, mine.min(initial=lo)) / 1.5, max(hi, mine.max(initial=hi)) * 1.5
