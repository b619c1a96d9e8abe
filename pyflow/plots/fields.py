"""Pictures of fields: maps, pixels and power spectra of data beside samples, and latent maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments
from pyflow.fields import bispectrum, box_lengths, checked, pdf, power_spectrum
from pyflow.plots._style import (
    BAND,
    DATA,
    INK,
    SAMPLES,
    TRAIN,
    drawing,
    gaussian,
    interval,
    key,
    span,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    Box = float | Sequence[float]

__all__ = ["bispectra", "field_pdf", "latent_map", "maps", "power_spectra"]

MOST = 5.0  # of a ratio, that is shown
ROWS = ("data", "samples of the model")


def __dir__():
    return __all__


def _fields(x, name):
    """Return x as real, finite fields (n, mesh)."""
    x, _ = checked(x, name)
    if 0 in x.shape:
        raise ValueError(f"{name}: is empty; its shape is {x.shape}")
    return x


def _both(data, samples):
    data, samples = _fields(data, "data"), _fields(samples, "samples")
    if data.shape[1:] != samples.shape[1:]:
        raise ValueError(
            f"samples: its fields have shape {samples.shape[1:]}, those of data {data.shape[1:]}"
        )
    return data, samples


# ---- maps ----------------------------------------------------------------------------------------


def maps(
    data: ArrayLike,
    samples: ArrayLike | None = None,
    *,
    count: int = 4,
    plane: int | None = None,
    transform: Callable[[NDArray], ArrayLike] | None = None,
    titles: Sequence[str] | None = None,
    label: str | None = None,
    limits: tuple[float, float] | None = None,
    box_size: Box | None = None,
    unit: str = "",
    cmap: str = "magma",
) -> Figure:
    """Draw maps side by side: data above, samples below, in one scale of colours.

    Parameters
    ----------
    data : (n, mesh) array-like, or (n0, n1)
        A single field in three dimensions is `data[None]`.
    samples : (m, mesh) array-like, or (n0, n1), optional
        On the same mesh.
    count : int
        How many of each to draw, at most: the first.
    plane : int, optional
        For fields in three dimensions: which plane of the first axis to draw. Default: the mean
        along that axis.
    transform : callable, optional
        Gives what is drawn, an array of the shape of the array it is given: `numpy.log1p`, say. Of
        planes, or means, in three dimensions.
    titles : sequence of str, optional
        One for each column.
    label : str, optional
        What the colours stand for. Default: "field", or what `transform` is called, of the field.
    limits : (float, float), optional
        Of the colours. Default: what holds 99.8% of the pixels of the data that are drawn. Arrows
        at the ends of the bar tell of pixels beyond.
    box_size : float or sequence of float, optional
        Length of the axes of the fields. Default: no ticks.
    unit : str
        Of `box_size`.
    cmap : str or matplotlib.colors.Colormap

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If fields are not of one mesh, not real or not finite, before or after `transform`, or an
        option makes no sense: the message names the argument.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = pyflow.fields.lognormal_field(1e-4, (32, 32), 6, seed=1)
    >>> figure = pyflow.plots.maps(x[:3], x[3:], transform=np.log1p, label="log(1 + x)")
    >>> len(figure.axes)  # six maps, and the bar of the colours
    7
    """
    count = _arguments.integer("count", count, 1)
    given = {"data": _fields(data, "data")}
    if samples is not None:
        given["data"], given["samples"] = _both(data, samples)
    frame = _frame(given["data"].shape[1:], box_size)
    rows = [_pictures(x[:count], name, plane, transform) for name, x in given.items()]
    across = max(map(len, rows))
    if titles is not None and len(titles) != across:
        raise ValueError(f"titles: {len(titles)} titles for {across} columns")
    scale = _scale(rows[0], limits)
    with drawing() as plt:
        tall = 1.9 * min(max(frame[3] / frame[1], 0.3), 3)
        size = (1.9 * across + 1.3, tall * len(rows) + (0.5 if box_size is None else 0.8))
        figure, grid = plt.subplots(
            len(rows), across, figsize=size, squeeze=False, layout="constrained"
        )
        for i, row in enumerate(rows):
            for axes, picture in zip(grid[i], row, strict=False):
                image = axes.imshow(picture, extent=frame, origin="lower", cmap=cmap, **scale)
                _ticks(axes, box_size is not None, unit)
            for axes in grid[i, len(row) :]:
                axes.remove()
            if len(rows) > 1:
                grid[i, 0].set_ylabel(ROWS[i])
        for axes, title in zip(grid[0], titles or (), strict=False):
            axes.set_title(title)
        _bar(image, figure.axes, size, rows, _colour_label(transform) if label is None else label)
    return figure


def _colour_label(transform):
    """Return what colours stand for: a transform without a name is said to be one."""
    if transform is None:
        return "field"
    name = getattr(transform, "__name__", "<lambda>")
    return "transformed field" if name.startswith("<") else f"{name}(field)"


def _pictures(x, name, plane, transform):
    """Return the two-dimensional arrays to draw, (n, rows, columns)."""
    if x.ndim == 4:
        if plane is not None:
            plane = _arguments.integer("plane", plane, 0, x.shape[1] - 1)
        x = x.mean(axis=1) if plane is None else x[:, plane]
    elif plane is not None:
        raise ValueError("plane: these fields have two dimensions")
    if transform is None:
        return x
    with np.errstate(all="ignore"):
        pictures = np.asarray(transform(x))
    if pictures.shape != x.shape or pictures.dtype.kind not in "biuf":
        raise ValueError(
            f"transform: must give real numbers of shape {x.shape}; it gave {pictures.dtype} of "
            f"shape {pictures.shape}"
        )
    if not np.isfinite(pictures).all():
        raise ValueError(f"transform: gives NaN or infinity, of {name}")
    return pictures


def _frame(mesh, box_size):
    """Return where a map's edges lie, in pixels or in the units of the box."""
    box = mesh if box_size is None else box_lengths(box_size, len(mesh))
    return (0, box[-1], 0, box[-2])


def _scale(pictures, limits):
    """Return the limits of the colours, as arguments of imshow."""
    if limits is None:
        lo, hi = np.quantile(pictures, [0.001, 0.999])
        lo, hi = (lo, hi) if lo < hi else (lo - 0.5, hi + 0.5)
    else:
        lo, hi = interval(limits)
    return {"vmin": lo, "vmax": hi}


def _ticks(axes, shown, unit):
    if not shown:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return
    axes.locator_params(nbins=4)
    axes.label_outer()
    if unit and axes.get_subplotspec().is_last_row():
        axes.set_xlabel(unit)


def _bar(image, axes, size, rows, label):
    """Draw the bar of the colours beside axes of a size, with arrows if pixels lie beyond it."""
    beyond = (min(row.min() for row in rows) < image.norm.vmin) + 2 * (
        max(row.max() for row in rows) > image.norm.vmax
    )
    extend = ("neither", "min", "max", "both")[beyond]
    width, height = np.divide(size, 0.15)  # so wide is the bar, in inches
    figure = image.get_figure()
    figure.colorbar(
        image, ax=axes, label=label, extend=extend, fraction=1 / width, aspect=height, pad=0.02
    )


# ---- data against samples ------------------------------------------------------------------------


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
    data, samples = _both(data, samples)
    bins = _arguments.integer("bins", bins, 1)
    log, ratio = _arguments.boolean("log", log), _arguments.boolean("ratio", ratio)
    limits = span(data, 0.0005) if limits is None else interval(limits)
    edges = np.linspace(*limits, bins + 1)
    densities = [np.stack([_density(field, edges) for field in x]) for x in (data, samples)]
    with drawing() as plt:
        figure, (above, below) = _two(plt)
        _outlines(above, edges, *(density.mean(axis=0) for density in densities), log)
        above.set_ylabel("density")
        _tell_beyond(above, samples, limits, "samples")
        figure.legend(handles=key(), loc="outside upper center", ncols=2)
        _compare(below, (edges[1:] + edges[:-1]) / 2, *densities, ratio)
        below.set(xlabel=label, xlim=limits)
    return figure


def _density(x, edges):
    """Return the density in every bin; what lies beyond the edges counts in its norm."""
    return pdf(x[None] if x.ndim == 3 else x, [-np.inf, *edges, np.inf])[1][1:-1]


def _tell_beyond(axes, x, limits, what, least=0.005):
    """Write what share of pixels lies beyond the limits, where it is more than the least."""
    share = np.mean((x < limits[0]) | (x > limits[1]))
    if share > least:
        text = f"{100 * share:.3g}% of the {what}\nlie beyond"
        axes.text(0.99, 0.97, text, ha="right", va="top", fontsize=7.5, transform=axes.transAxes)


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
        lo, y, hi = np.exp(-error), np.exp(mean), np.exp(error)
    else:
        y, error = _mean(samples - data)
        lo, hi = -error, error
    centre = float(ratio)
    axes.fill_between(x, lo, hi, color=BAND, lw=0, label="standard error over pairs")
    axes.plot(x, y, color=SAMPLES, lw=1.3, **_marks(x))
    axes.axhline(centre, color=INK, lw=0.8, ls="--")
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
    data, samples = _both(data, samples)
    _vary(data, "power spectrum")
    paired = _paired(data, samples, paired)
    k, true, _ = _spectra(data, box_size, bins)
    _, mine, _ = _spectra(samples, box_size, bins)
    with drawing() as plt:
        figure, above = _over_k(plt, k, true, mine, unit, paired, ratio=True)
        above.set_yscale("log", nonpositive="mask")
        above.set_ylim(_decades(true, mine))
        above.set_ylabel("P(k)" + (f"  [{_to_the(unit, data.ndim - 1)}]" if unit else ""))
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
    data, samples = _both(data, samples)
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
        above.set_ylabel("Q(k) = B / 3 P$^2$")
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
    _wave_numbers(below, unit)
    return figure, above


def _spectra(x, box_size, bins=None):
    k, power, modes = power_spectrum(x, box_size, bins)
    if not len(k):
        raise ValueError("bins: no mode of these fields lies in them")
    return k, power, modes


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


def _wave_numbers(axes, unit):
    """Label the logarithmic axis of k, of which one decade at most may be seen."""
    axes.set_xlabel(f"k  [{_over(unit)}]" if unit else "k")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:.0e}"[0] in "235" else "")


def _over(unit):
    """Return one over a unit: h/Mpc of Mpc/h."""
    above, slash, below = unit.partition("/")
    if not slash:
        return _to_the(unit, -1)
    return f"{below}/{above}" if below.isalpha() and above.isalpha() else f"({unit})$^{{-1}}$"


def _to_the(unit, power):
    """Return a power of a unit, in brackets where it is more than a word."""
    return f"{unit if unit.isalpha() else f'({unit})'}$^{{{power}}}$"


# ---- latent maps ---------------------------------------------------------------------------------


def latent_map(
    z: ArrayLike, box_size: Box = 1.0, *, bins: int = 60, plane: int = 0, unit: str = ""
) -> Figure:
    """Draw latent fields beside the white noise that they should be.

    Left: the first of them. Middle: the distribution of the pixels of all, N(0, 1) and the band in
    which 95% of the bars lie for independent pixels. Right: the mean power spectrum over that of
    white noise, and the band in which 95% of the points lie: the power of M modes of n fields
    follows a chi-squared distribution with n M degrees of freedom.

    Parameters
    ----------
    z : (n, mesh) array-like, or (n0, n1)
        From `Flow.forward`, of fields the flow has not seen.
    box_size : float or sequence of float
        Length of the axes.
    bins : int
        Bins of the histogram.
    plane : int
        For fields in three dimensions: which plane of the first axis to draw.
    unit : str
        Of `box_size`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If z is not fields, not real or not finite, or an option makes no sense: the message names
        the argument.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> z = np.random.default_rng(0).normal(size=(10, 32, 32))
    >>> figure = pyflow.plots.latent_map(z, 100.0)
    >>> len(figure.axes)  # three, and the bar of the colours
    4
    """
    z = _fields(z, "z")
    picture = _pictures(z[:1], "z", plane if z.ndim == 4 else plane or None, None)
    frame = _frame(z.shape[1:], box_size)
    bins = _arguments.integer("bins", bins, 1)
    k, power, modes = _spectra(z, box_size)
    power *= z[0].size / np.prod(box_lengths(box_size, z.ndim - 1))
    with drawing() as plt:
        figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
        image = axes[0].imshow(
            picture[0], extent=frame, origin="lower", cmap=_diverging(), vmin=-3, vmax=3
        )
        _ticks(axes[0], True, unit)
        axes[0].set_title("latent map")
        _bar(image, axes[0], (3.5, 3.2), [picture], "z")
        _noise_pixels(axes[1], z, bins)
        _noise_power(axes[2], k, power.mean(axis=0), len(z) * modes)
        _wave_numbers(axes[2], unit)
    return figure


def _diverging():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("latent", [TRAIN, "#f7f7f7", SAMPLES])


def _noise_pixels(axes, z, bins):
    """Draw the histogram of all pixels on a logarithmic axis, beside N(0, 1)."""
    end = float(np.clip(1.05 * np.abs(z).max(), 4.5, 8))
    edges = np.linspace(-end, end, bins + 1)
    centre, width, one = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0], 1 / z.size
    share = gaussian(centre) * width
    scatter = 1.96 * np.sqrt(share * one)
    floor = 0.3 * one / width
    lo, hi = (np.maximum((share + s * scatter) / width, floor) for s in (-1, 1))
    axes.fill_between(centre, lo, hi, color=BAND, lw=0, label="95% of white noise")
    axes.stairs(
        _density(z, edges), edges, color=SAMPLES, lw=1.5, label="latent pixels", baseline=None
    )
    axes.plot(centre, gaussian(centre), color=INK, lw=1, ls="--", label="N(0, 1)")
    axes.set(xlabel="z", title="latent pixels", xlim=(-end, end), yscale="log", ylim=(floor, 20))
    axes.legend(loc="upper left", fontsize=7.5, ncols=2)
    _tell_beyond(axes, z, (-end, end), "pixels", least=0)


def _noise_power(axes, k, power, freedom):
    """Draw a power spectrum over white noise's, with the band for that many degrees of freedom."""
    lo, hi = (_chi_squared(sigma, freedom) / freedom for sigma in (-1.96, 1.96))
    axes.fill_between(k, lo, hi, color=BAND, lw=0, label="95% of white noise")
    axes.plot(k, power, color=SAMPLES, lw=1.3, label="latent fields", marker="o", ms=2.5)
    axes.axhline(1, color=INK, lw=1, ls="--")
    low, top = min(lo.min(), power.min()), max(hi.max(), power.max())
    margin = 0.1 * (top - low)
    axes.set(
        xscale="log",
        xlim=(k[0] / 1.08, k[-1] * 1.08),
        ylim=(max(low - margin, 0), top + 2 * margin),
    )
    axes.set_title("latent power / white noise's")
    axes.legend(loc="upper right", fontsize=7.5)


def _chi_squared(sigma, freedom):
    """Return quantiles of the chi-squared distribution, at that of N(0, 1) (Wilson & Hilferty)."""
    ninth = 2 / (9 * freedom)
    return freedom * np.maximum(1 - ninth + sigma * np.sqrt(ninth), 0) ** 3
