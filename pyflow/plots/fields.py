"""Pictures of fields: maps of data beside samples, and latent maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments
from pyflow.fields import box_lengths
from pyflow.plots._fields import (
    ROWS,
    as_fields,
    both,
    density,
    spectra,
    tell_beyond,
    wave_numbers,
    written,
)
from pyflow.plots._style import BAND, INK, SAMPLES, TRAIN, drawing, gaussian, interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    Box = float | Sequence[float]

__all__ = ["latent_map", "maps"]


def __dir__():
    return __all__


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
    given = {"data": as_fields(data, "data")}
    if samples is not None:
        given["data"], given["samples"] = both(data, samples)
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
        axes.set_xlabel(written(unit))


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
    z = as_fields(z, "z")
    picture = _pictures(z[:1], "z", plane if z.ndim == 4 else plane or None, None)
    frame = _frame(z.shape[1:], box_size)
    bins = _arguments.integer("bins", bins, 1)
    k, power, modes = spectra(z, box_size)
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
        wave_numbers(axes[2], unit)
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
        density(z, edges), edges, color=SAMPLES, lw=1.5, label="latent pixels", baseline=None
    )
    axes.plot(centre, gaussian(centre), color=INK, lw=1, ls="--", label="N(0, 1)")
    axes.set(xlabel="z", title="latent pixels", xlim=(-end, end), yscale="log", ylim=(floor, 20))
    axes.legend(loc="upper left", fontsize=7.5, ncols=2)
    tell_beyond(axes, z, (-end, end), "pixels", least=0)


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
