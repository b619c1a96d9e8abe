"""Images on their way to a fit: rows of numbers, made continuous by noise where they are whole."""

import math

import numpy as np

from pyflow import _arguments


def image_sides(shape):
    """Return the caller's `image_shape` as (height, width, channels)."""
    try:
        sides = tuple(_arguments.integer("image_shape", n, 1) for n in shape)
    except TypeError:
        raise TypeError(f"image_shape: must be (height, width, channels), not {shape!r}") from None
    sides = sides + (1,) * (len(sides) == 2)
    if len(sides) != 3:
        raise ValueError(f"image_shape: must be (height, width, channels), not {sides}")
    return sides


def image_shape(data, shape, name):
    """Return (height, width, channels) of the points of data, or None for a table.

    Parameters
    ----------
    data : array-like of the shape (n, d), (n, height, width) or (n, height, width, channels)
    shape : sequence of int, or None
        The caller's `image_shape`.
    name : str
        What the argument is called.
    """
    axes = getattr(data, "shape", None)
    axes = tuple(np.shape(_arguments.rows(data, name)) if axes is None else axes)
    if shape is None:
        if len(axes) <= 2:
            return None
        if len(axes) > 4 or 0 in axes:
            raise ValueError(
                f"{name}: must have shape (n, d) or (n, height, width[, channels]), not {axes}"
            )
        shape = axes[1:]
    shape = image_sides(shape)
    flat = (math.prod(shape),)
    if axes[1:] not in [flat, shape] + [shape[:2]] * (shape[2] == 1):
        raise ValueError(
            f"{name}: must have shape (n, {', '.join(map(str, shape))}) or (n, {flat[0]}), "
            f"images of image_shape {shape}; its shape is {axes}"
        )
    return shape


class Images:
    """Images as rows of numbers, read a block at a time.

    Parameters
    ----------
    x : array, or what can be cut like one
    dequantize : bool
        Add uniform noise between 0 and 1, a function of the seed, the row and the pixel.
    seed : int
    name : str
        What the argument is called.
    dtype : numpy.dtype, optional
        float32 or float64. Default: what holds the numbers of x.

    Attributes
    ----------
    shape : (int, int)
    dtype : numpy.dtype
    """

    def __init__(self, x, dequantize, seed, name, dtype=None):
        self.x, self.noisy, self.seed, self.name = x, dequantize, seed, name
        self.first = getattr(x, "first", 0)  # row of those of all ranks
        self.shape = (x.shape[0], math.prod(x.shape[1:]))
        kind, size = x.dtype.kind, x.dtype.itemsize
        narrow = size <= 4 if kind == "f" else size < 4
        self.dtype = np.dtype(np.float32 if narrow else np.float64) if dtype is None else dtype
        # of the noise: with them x plus the most of it is below x + 1 in the flow's precision too
        self.bits = 7 if self.dtype == np.float32 and (kind == "f" or size > 1) else 15

    def __len__(self):
        return self.shape[0]

    def part(self, x):
        """Return others of the same kind, rows that ranks share."""
        return Images(x, self.noisy, self.seed, self.name, self.dtype)

    def __getitem__(self, rows):
        first, stop, _ = rows.indices(self.shape[0])
        x = np.asarray(self.x[first:stop]).reshape(stop - first, self.shape[1]).astype(self.dtype)
        if not self.noisy:
            return x
        part = ((x != np.floor(x)) & np.isfinite(x)).any(axis=1)
        if part.any():
            image = self.first + first + int(part.argmax())
            raise ValueError(
                f"{self.name}: image {image} is not of whole numbers, which dequantize is for"
            )
        return x + self._noise(self.first + first, len(x))

    def _noise(self, first, n):
        """Return the noise of n rows; Philox makes four words of each count."""
        words = -(-self.shape[1] // 4) * 4
        philox = np.random.Philox(key=self.seed).advance(first * (words // 4))
        raw = philox.random_raw(n * words).reshape(n, words)[:, : self.shape[1]]
        part = (raw >> np.uint64(64 - self.bits)) + 0.5
        return part.astype(self.dtype) / self.dtype.type(1 << self.bits)


def opened(data, dequantize, seed, name):
    """Return data as `Images`; dequantize None: if they are whole numbers."""
    plain = isinstance(getattr(data, "dtype", None), np.dtype) and hasattr(data, "shape")
    x = data if plain and not isinstance(data, np.ma.MaskedArray) else _arguments.rows(data, name)
    if x.dtype.kind not in "biuf":
        raise TypeError(f"{name}: must be real numbers; the dtype is {x.dtype}")
    noisy = x.dtype.kind in "biu" if dequantize is None else bool(dequantize)
    return Images(x, noisy, seed, name)


def levels(dequantize, x):
    """Return how many grey levels images have that are made continuous, or None."""
    if dequantize is None or isinstance(dequantize, bool | np.bool_):
        if not x.noisy:
            return None
        if x.x.dtype.kind == "u":
            return 1 << 8 * x.x.dtype.itemsize
        raise ValueError(
            f"dequantize: of images of {x.x.dtype} the number of grey levels is not known: give it"
        )
    return _arguments.integer("dequantize", dequantize, 2)
