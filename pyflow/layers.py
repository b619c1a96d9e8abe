"""Layers to compose a flow of by hand: `pyflow.Flow([...], shape=...)`.

Each is a small frozen description; the layer itself lies in the flow. All but `Affine` with a
matrix, `Scale` and `Bounds` are the identity until they are trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import _arguments, _core
from pyflow._arguments import integer, real
from pyflow.fields import axis_of, box_lengths, window

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "Affine",
    "Autoregressive",
    "Bounds",
    "Coupling",
    "Fill",
    "Patch",
    "Scale",
    "Shift",
    "Sliced",
    "Symmetric",
]


def __dir__():
    return __all__


@dataclass(frozen=True)
class Scale:
    """x <- (x - mean) / scale, the same for all numbers of a point. It is not trained.

    Attributes
    ----------
    mean, scale : float
        In the units of the data; scale > 0.

    Examples
    --------
    >>> import pyflow
    >>> flow = pyflow.Flow([pyflow.layers.Scale(1.0, 2.0)], shape=1)
    >>> float(flow.forward([[5.0]])[0][0, 0])
    2.0
    """

    mean: float = 0.0
    scale: float = 1.0

    def _core(self, shape, seed):
        return "scale", real("mean", self.mean), real("scale", self.scale)


@dataclass(frozen=True)
class Fill:
    """Fields of which some pixels are not observed: the flow is then that of the others.

    Observed pixels become (x - mean) / scale; what stands in the others does not matter, and they
    are filled with white noise of unit variance, whose density is divided out. The first layer; it
    is not trained. `pyflow.SymmetricFlow(mask=...)` has one that fills in a Gaussian field's own.

    Attributes
    ----------
    mask : (*shape) array-like of bool
        True where observed.
    mean, scale : float
        In the units of the data; scale > 0.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> mask = np.array([[True, True], [True, False]])
    >>> flow = pyflow.Flow([pyflow.layers.Fill(mask)], shape=(2, 2))
    >>> float(flow.evaluate_density([[0, 0], [0, np.nan]]))  # -3 log(2 pi) / 2
    -2.75...
    """

    mask: Any
    mean: float = 0.0
    scale: float = 1.0

    def _core(self, shape, seed):
        mask = window(self.mask, shape).astype(np.uint8).ravel()
        return "fill", mask, real("mean", self.mean), real("scale", self.scale)


@dataclass(frozen=True)
class Affine:
    """x <- W (x - mean).

    Attributes
    ----------
    matrix : (d, d) array-like, optional
        W. Default: the identity.
    mean : (d,) array-like, optional
        Default: 0.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).normal(3, 2, size=(1000, 2))
    >>> flow = pyflow.Flow([pyflow.layers.Affine.whitening(x)], shape=2)
    >>> z, _ = flow.forward(x)
    >>> bool(np.allclose(np.cov(z.T), np.eye(2)))
    True
    """

    matrix: Any = None
    mean: Any = None

    @classmethod
    def whitening(cls, x: ArrayLike) -> Affine:
        """Return the layer that gives these points mean 0 and covariance I: W = cov^(-1/2).

        Parameters
        ----------
        x : (n, *shape) array-like of real numbers
            More points than a point has numbers.

        Raises
        ------
        ValueError
            If their covariance is singular.
        """
        x = np.asarray(_arguments.rows(x, "x"), dtype=np.float64)
        x = x.reshape(len(x), -1)
        values, vectors = np.linalg.eigh(np.cov(x, rowvar=False).reshape(x.shape[1], -1))
        if not values[0] > 1e-12 * values[-1]:
            raise ValueError(f"x: the covariance of its {len(x)} points is singular")
        return cls((vectors / np.sqrt(values)) @ vectors.T, x.mean(axis=0))

    def _core(self, shape, seed):
        return "affine", self.matrix, None if self.mean is None else np.ravel(self.mean)


@dataclass(frozen=True)
class Bounds:
    """Each number from within its bounds to the whole line. The first layer; it is not trained.

    Attributes
    ----------
    bounds : (d, 2) sequence
        Lower and upper bound of each; None or infinity where there is none.

    Examples
    --------
    >>> import pyflow
    >>> flow = pyflow.Flow([pyflow.layers.Bounds([(0, 1)])], shape=1)
    >>> flow.evaluate_density([[1.5]])
    array([-inf])
    """

    bounds: Any

    def _core(self, shape, seed):
        return "bounds", _arguments.bounds(self.bounds)


@dataclass(frozen=True)
class Sliced:
    """x <- x + A (Psi(A^T x) - A^T x), monotone splines Psi along orthonormal slices A.

    The slices are random at first (seed of the flow), the splines the identity, with knots from -3
    to 3. Dai & Seljak 2021, Eq. 11.

    Attributes
    ----------
    n_slices : int, optional
        K <= d; 0 for A = I: every number on its own. Default: 8, or d where that is less.
    n_knots : int
        M, of each spline.

    Examples
    --------
    >>> import pyflow
    >>> pyflow.Flow([pyflow.layers.Sliced(2, 8)], shape=3).n_parameters
    54
    """

    n_slices: int | None = None
    n_knots: int = 16

    def _core(self, shape, seed):
        dim = int(np.prod(shape))
        k = min(8, dim) if self.n_slices is None else integer("n_slices", self.n_slices, 0, dim)
        return "sliced", k, integer("n_knots", self.n_knots, 2, 65535), seed


@dataclass(frozen=True)
class Patch:
    """Each patch of an image by a sliced layer of its own, with its own slices and splines.

    The image is rolled by the shift and cut into patches. Where the kernel does not divide a side,
    the pixels left over stay; another layer, with another shift, moves them. Points are rows of
    height x width x channels numbers in C order: `images.reshape(n, -1)`. Slices and splines begin
    as those of `Sliced`. The hierarchical approach of Dai & Seljak 2021.

    Attributes
    ----------
    image_shape : tuple of int
        (height, width) or (height, width, channels).
    kernel : int or tuple of int
        Side of a patch, or (height, width), of all channels; or (height, width, channels), where 1
        channel gives each channel patches of its own.
    shift : tuple of int
        By how many rows and columns the image is rolled: the first patch begins there. Patches that
        reach over the image's end go on at its beginning.
    n_slices : int, optional
        K of each patch, at most its numbers; 0 for A = I. Default: 8, or all where those are fewer.
    n_knots : int
        M, of each spline.

    Examples
    --------
    >>> import pyflow
    >>> image = 8, 8, 1
    >>> layers = [pyflow.layers.Patch(image, 4), pyflow.layers.Patch(image, 4, shift=(2, 2))]
    >>> pyflow.Flow(layers, shape=64).slices
    64
    """

    image_shape: Sequence[int]
    kernel: int | Sequence[int]
    shift: Sequence[int] = (0, 0)
    n_slices: int | None = None
    n_knots: int = 16

    def _core(self, shape, seed):
        image = _sizes("image_shape", self.image_shape, (2, 3), [_LARGEST] * 3)
        if len(image) == 2:
            image = (*image, 1)
        dim = int(np.prod(shape))
        if np.prod(image, dtype=float) != dim:
            raise ValueError(
                f"image_shape: an image of {image} has not the {dim} numbers of a point"
            )
        kernel = (self.kernel, self.kernel) if np.ndim(self.kernel) == 0 else self.kernel
        kernel = _sizes("kernel", kernel, (2, 3), image)
        if len(kernel) == 2:
            kernel = (*kernel, image[2])
        last = [n - 1 for n in image[:2]]
        shift = _sizes("shift", self.shift, (2,), last, least=0)
        size = int(np.prod(kernel))
        k = min(8, size) if self.n_slices is None else integer("n_slices", self.n_slices, 0, size)
        splines = k, integer("n_knots", self.n_knots, 2, 65535)
        return "patch", (image, kernel, shift), splines, seed


_LARGEST = 2**31 - 1


def _sizes(name, sizes, axes, most, least=1):
    """Return integers between least and most[axis], as many as one of axes."""
    if np.ndim(sizes) != 1 or len(sizes) not in axes:
        raise ValueError(f"{name}: must be {' or '.join(map(str, axes))} integers, not {sizes!r}")
    return tuple(integer(name, n, least, m) for n, m in zip(sizes, most, strict=False))


@dataclass(frozen=True)
class Symmetric:
    """x <- Psi(F^-1 T(|k|) F x), for fields: a convolution with an isotropic kernel, then a spline.

    With a line of sight, T(|k|, |mu|), mu = k_axis / |k|: log T is a spline along |k| and a
    polynomial in mu^2. The layer can be conditioned on parameters. Dai & Seljak 2022.

    Attributes
    ----------
    psi_knots, filter_knots : int
        Knots of Psi, and of log T along |k|.
    symmetry : "isotropic" or "axial"
    axis : int, optional
        Of axial layers: the axis of the mesh that is the line of sight. Default: the last.
    mu_knots : int, optional
        Of axial layers: points mu^2 from 0 to 1 at which log T has knots, 2 to 4. Default: 4.

    Examples
    --------
    >>> import pyflow
    >>> pyflow.Flow([pyflow.layers.Symmetric(8, 32)], shape=(16, 16)).n_parameters
    88
    """

    psi_knots: int = 8
    filter_knots: int = 32
    symmetry: str = "isotropic"
    axis: int | None = None
    mu_knots: int | None = None

    def _core(self, shape, seed):
        knots = integer("psi_knots", self.psi_knots, 2, 63)
        along = line_of_sight(self.symmetry, self.axis, self.mu_knots, len(shape))
        return "symmetric", knots, integer("filter_knots", self.filter_knots, 2, 4096), along


@dataclass(frozen=True)
class Shift:
    """x <- x + F^-1 S(|k|) F g(c), for fields: c is a second field of each, `condition_field`.

    g is a spline of each pixel, straight beyond its knots, S one along |k|, of either sign. The
    layer can be conditioned on parameters. Dai & Seljak 2022, whose S is this one times T.

    Attributes
    ----------
    mean, scale : float
        Of the pixels of c: g begins as (c - mean) / scale, with knots within three scales of the
        mean, and S as 0.
    knots, filter_knots : int
        Knots of g, and of S along |k|.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> c = pyflow.fields.gaussian_field(1.0, (8, 8), 200, box_size=8.0, seed=1)
    >>> x = c + pyflow.fields.gaussian_field(0.1, (8, 8), 200, box_size=8.0, seed=2)
    >>> layers = [pyflow.layers.Shift(filter_knots=4), pyflow.layers.Symmetric(4, 4)]
    >>> flow = pyflow.Flow(layers, shape=(8, 8), box_size=8.0)
    >>> flow = flow.train(x, condition_field=c, epochs=20, learning_rate=0.05, verbose=False)
    >>> mean, _ = flow.inverse(np.zeros((8, 8)), condition_field=c[0])
    >>> bool(abs(mean - c[0]).max() < 0.3)
    True
    """

    mean: float = 0.0
    scale: float = 1.0
    knots: int = 8
    filter_knots: int = 32

    def _core(self, shape, seed):
        knots = integer("knots", self.knots, 2, 64)
        filter_knots = integer("filter_knots", self.filter_knots, 2, 4096)
        return "shift", knots, filter_knots, (real("mean", self.mean), real("scale", self.scale))


def line_of_sight(
    symmetry: str, axis: int | None, mu_knots: int | None, ndim: int
) -> tuple[int, int] | None:
    """Return axis, from 0 on, and mu_knots of an axial layer, or None for an isotropic one."""
    if symmetry not in SYMMETRIES:
        names = " or ".join(map(repr, SYMMETRIES))
        raise ValueError(f"symmetry: must be {names}, not {symmetry!r}")
    along = axis_of(-1 if axis is None else axis, ndim), 4
    if mu_knots is not None:
        along = along[0], integer("mu_knots", mu_knots, 2, 4)
    if symmetry == "axial":
        return along
    for name, value in (("axis", axis), ("mu_knots", mu_knots)):
        if value is not None:
            raise ValueError(f"{name}: is {value!r}, but only symmetry='axial' has it")
    return None


SYMMETRIES = "isotropic", "axial"


@dataclass(frozen=True)
class Coupling:
    """x <- x + sum_j F^-1 C_j(|k|) F phi(F^-1 A_j(|k|) F x), for fields: scales move each other.

    phi(u) = sqrt(1 + u^2) - 1. Where the large scales move, C_j is 0 for |k| above `split` and A_j
    below; where the small ones do, the other way round: an additive coupling (Dinh, Krueger &
    Bengio 2014, arXiv 1410.8516) between bands of modes, equivariant under translations and
    rotations, of log-determinant 0. It knows what convolutions and functions of single pixels do
    not: that small scales are stronger where large ones are high. The mean of a field stays. The
    layer can be conditioned on parameters.

    Attributes
    ----------
    split : float
        Between 0 and 1, of the largest |k| on the mesh.
    moves : "large" or "small"
        Scales.
    channels, knots : int
        How many A_j and C_j, 1 to 64; knots of each, evenly along its side of |k|, 2 to 256.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> layers = [pyflow.layers.Coupling(moves="large"), pyflow.layers.Coupling(moves="small")]
    >>> pyflow.Flow(layers, shape=(16, 16)).n_parameters
    96
    """

    split: float = 0.225
    moves: str = "large"
    channels: int = 3
    knots: int = 8

    def _core(self, shape, seed):
        if self.moves not in ("large", "small"):
            raise ValueError(f"moves: must be 'large' or 'small', not {self.moves!r}")
        channels, knots = (
            integer("channels", self.channels, 1, 64),
            integer("knots", self.knots, 2, 256),
        )
        return "coupling", channels, knots, (real("split", self.split), self.moves == "large")


@dataclass(frozen=True)
class Autoregressive:
    """x_j <- S_j((x_j - t_j) exp(-s_j)), all three from a network of the columns before and of y.

    For tables. S_j is a rational-quadratic spline between -5 and 5, and the identity beyond; a
    masked network sees to it that column j depends on columns of lower rank alone, so that the
    determinant is a product, and the inverse takes as many passes as there are ranks. A masked
    autoregressive flow (Papamakarios et al. 2017, arXiv 1705.07057) with neural splines (Durkan et
    al. 2019, arXiv 1906.04032).

    Attributes
    ----------
    ranks : (d,) sequence of int, optional
        From 0 on. All different: autoregressive; two of them: a coupling layer; all 0, with
        conditions: each column on its own. Default: 0, 1, ..., d - 1.
    hidden : tuple of int
        Units of the network's hidden layers, at most 7.
    bins : int
        Of each spline, 1 to 64.
    y : (n, p) array-like of real numbers, optional
        Conditions, as in training: their mean, scale and range are kept. Default: none.
    linear : (d, p + d) array-like, optional
        What is in t beside the network: linear in y, standardised, and x. Default: 0.
    log_scale : (d,) array-like, optional
        What s is at first. Default: 0.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> rng = np.random.default_rng(0)
    >>> y = rng.uniform(-1, 1, size=(1000, 1))
    >>> x = np.sin(3 * y) + 0.1 * rng.normal(size=(1000, 1))
    >>> flow = pyflow.Flow([pyflow.layers.Autoregressive(hidden=(16,), y=y)], shape=1)
    >>> flow = flow.train(x, y_train=y, epochs=60, batch=100, learning_rate=0.01, verbose=False)
    >>> bool(flow.evaluate_density([[1.0]], [[np.pi / 6]])[0] > 0.5)
    True
    """

    ranks: Sequence[int] | None = None
    hidden: Sequence[int] = (64, 64)
    bins: int = 8
    y: Any = None
    linear: Any = None
    log_scale: Any = None

    def _core(self, shape, seed):
        dim = int(np.prod(shape))
        ranks = range(dim) if self.ranks is None else self.ranks
        for name, sizes in ("ranks", ranks), ("hidden", self.hidden):
            if np.ndim(sizes) != 1:
                raise ValueError(f"{name}: must be a sequence of integers, not {sizes!r}")
        ranks = np.array([integer("ranks", r, 0, dim - 1) for r in ranks], np.int32)
        if len(ranks) != dim:
            raise ValueError(f"ranks: has {len(ranks)} numbers for {dim} columns")
        hidden = tuple(integer("hidden", n, 1, 65536) for n in self.hidden)
        for name, start in ("linear", self.linear), ("log_scale", self.log_scale):
            if start is not None and not np.isfinite(np.asarray(start, float)).all():
                raise ValueError(f"{name}: must be finite")
        stats = None
        if self.y is not None:
            y = np.asarray(_arguments.rows(self.y, "y"), dtype=np.float64)
            if y.ndim != 2 or not y.size:
                raise ValueError(f"y: must have shape (n, p), not {y.shape}")
            if not np.isfinite(y).all():
                raise ValueError("y: must be finite")
            stats = np.stack([y.mean(axis=0), y.std(axis=0), y.min(axis=0), y.max(axis=0)])
        bins = integer("bins", self.bins, 1, 64)
        return "autoregressive", (ranks, hidden, bins), (stats, self.linear, self.log_scale), seed


Layer = (
    Fill | Scale | Affine | Bounds | Sliced | Patch | Symmetric | Shift | Coupling | Autoregressive
)


def composed(
    layers: Sequence[Layer],
    shape: int | Sequence[int],
    box_size: float | Sequence[float],
    classes: Any,
    dtype: Any,
    seed: int,
) -> _core.Flow:
    """Return the core's flow of these layers."""
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype: must be float32 or float64, not {dtype}")
    shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    shape = tuple(integer("shape", n, 1, 2**31 - 1) for n in shape)
    if not 1 <= len(shape) <= 3:
        raise ValueError(f"shape: must have 1 to 3 axes, not {len(shape)}")
    if isinstance(layers, Layer):
        raise TypeError(f"layers: must be a sequence of layers, as [{layers!r}]")
    layers = list(layers)
    for layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(f"layers: must be of pyflow.layers, not {layer!r}")
        if classes is not None and getattr(layer, "y", None) is not None:
            raise ValueError("labels: a flow of classes is not conditioned on y as well")
    return _core.compose(
        [layer._core(shape, seed) for layer in layers],
        shape=shape,
        box=None if len(shape) == 1 else box_lengths(box_size, len(shape)),
        n_classes=0 if classes is None else len(classes),
        bits=8 * dtype.itemsize,
    )
