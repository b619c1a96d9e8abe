"""Pictures of images: grids of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments
from pyflow.plots._style import INK, drawing, interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

__all__ = ["image_grid"]

CELL = 0.55  # inches that an image of a figure of its own takes


def __dir__():
    return __all__


def image_grid(
    images: ArrayLike,
    rows: int | None = None,
    columns: int | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    row_labels: Sequence[object] | None = None,
    column_labels: Sequence[object] | None = None,
    limits: tuple[float, float] | None = None,
    gap: int = 1,
    cmap: str = "gray",
) -> Figure:
    """Draw images side by side, row by row, the first pixel of each in its upper left corner.

    Parameters
    ----------
    images : (n, height, width), (n, height, width, 1) or (n, height, width, 3) array-like
        Grey or red, green and blue. Samples of a flow of images may be given as they come.
    rows, columns : int, optional
        Of the grid. The first rows * columns images are drawn; cells without an image are left
        blank. Default: as many as hold all, and nearly a square.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a figure of its own.
    title : str, optional
    row_labels, column_labels : sequence, optional
        What stands beside every row, and above every column.
    limits : (float, float), optional
        Values that are black and white; what lies beyond is drawn as these. Default: those of 8
        bits, 0 and 255, for colour images of uint8; for others what holds 99.8% of the pixels.
    gap : int
        Pixels left blank between images.
    cmap : str or matplotlib.colors.Colormap
        The colours of grey levels.

    Returns
    -------
    matplotlib.figure.Figure
        Of `ax`, if that is given.

    Raises
    ------
    ValueError
        If images are not of one of these shapes, not real or not finite, or an option makes no
        sense: the message names the argument.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    >>> figure = pyflow.plots.image_grid(images, columns=5, row_labels="abcd")
    >>> figure.axes[0].images[0].get_array().shape  # 4 x 5 images and the gaps, in red, green, blue
    (35, 44, 4)
    """
    x = _images(images)
    rows, columns = _cells(len(x), rows, columns)
    gap = _arguments.integer("gap", gap, 0)
    x = x[: rows * columns]
    for name, labels, cells in (
        ("row_labels", row_labels, rows),
        ("column_labels", column_labels, columns),
    ):
        if labels is not None and len(labels) != cells:
            raise ValueError(f"{name}: {len(labels)} labels for {cells} {name[:-7]}s")
    low, high = _limits(x, limits)
    with np.errstate(over="ignore"):
        level = np.clip((x - low) / (high - low), 0, 1)
    with drawing() as plt:
        colours = plt.get_cmap(cmap)(level[..., 0]) if x.shape[3] == 1 else level
        height, width = (side + gap for side in x.shape[1:3])
        picture = np.zeros((rows * height - gap, columns * width - gap, 4))  # blank: transparent
        for cell, image in enumerate(colours):
            top, left = cell // columns * height, cell % columns * width
            where = picture[top : top + height - gap, left : left + width - gap]
            where[..., : image.shape[2]] = image
            where[..., 3] = 1
        if ax is None:
            size = CELL * columns * max(1, width / height), CELL * rows * max(1, height / width)
            longest = max(
                len(str(label)) for label in (*([] if row_labels is None else row_labels), "")
            )
            lines = (title is not None) + (column_labels is not None)
            size = size[0] + 0.1 + 0.08 * longest, size[1] + 0.1 + 0.25 * lines
            figure = plt.figure(figsize=(max(size[0], 1.5), size[1]), layout="compressed")
            ax = figure.add_subplot()
        ax.imshow(picture)
        ax.spines[:].set_visible(False)
        ax.tick_params(
            length=0, top=False, labeltop=True, labelbottom=False, labelsize=8, colors=INK
        )
        middle = (height - gap - 1) / 2, (width - gap - 1) / 2
        ax.set_yticks(np.arange(rows) * height + middle[0] if row_labels is not None else [])
        ax.set_xticks(np.arange(columns) * width + middle[1] if column_labels is not None else [])
        ax.set_yticklabels([] if row_labels is None else map(str, row_labels))
        ax.set_xticklabels([] if column_labels is None else map(str, column_labels))
        if title is not None:
            ax.set_title(title, fontsize=9, color=INK)
        return ax.get_figure()


def _images(images):
    """Return images (n, height, width, 1 or 3), real and finite."""
    x = np.asarray(_arguments.rows(images, "images"))
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3) or 0 in x.shape:
        raise ValueError(
            "images: must have shape (n, height, width), or (n, height, width, channels) with 1 or "
            f"3 channels; the shape is {np.shape(images)}"
        )
    if x.dtype.kind not in "biuf":
        raise ValueError(f"images: must hold real numbers; its dtype is {x.dtype}")
    bad = ~np.isfinite(x).all(axis=(1, 2, 3))
    if bad.any():
        raise ValueError(f"images: image {int(bad.argmax())} has values that are NaN or infinite")
    return x


def _cells(n, rows, columns):
    """Return how many rows and columns the grid of n images has."""
    if rows is not None:
        rows = _arguments.integer("rows", rows, 1)
    if columns is not None:
        columns = _arguments.integer("columns", columns, 1)
    elif rows is None:
        columns = math.ceil(math.sqrt(n))
    else:
        columns = -(-n // rows)
    return -(-n // columns) if rows is None else rows, columns


def _limits(x, limits):
    if limits is not None:
        return interval(limits)
    if x.dtype == np.uint8 and x.shape[3] == 3:
        return 0.0, 255.0
    low, high = np.quantile(x.astype(np.float64), [0.001, 0.999])
    if low == high:
        low, high = float(x.min()), float(x.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)
