"""How alike two sets of points or images are, and how well scores tell two sets apart.

A set is an array (n, d), or (n, ...) with the values of a point, or an image, in the further axes.
Every function takes NumPy arrays and what NumPy can view: tensors of PyTorch on any device, tables.
"""

from __future__ import annotations

import math
import os.path
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments, _lenet

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Seed = int | np.random.Generator | None
    Statistics = tuple[ArrayLike, ArrayLike]

__all__ = [
    "LeNet",
    "auroc",
    "frechet_distance",
    "nearest",
    "p_values",
    "sliced_wasserstein",
]


def __dir__():
    return __all__


def _finite(x, name):
    """Return x as a real array without NaN or infinite values; the first axis counts points."""
    x = np.asarray(_arguments.rows(x, name))
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name}: must hold real numbers; its dtype is {x.dtype}")
    if x.ndim and x.dtype.kind == "f":
        bad = ~np.isfinite(x).all(axis=tuple(range(1, x.ndim)))
        if bad.any():
            raise ValueError(f"{name}: row {int(bad.argmax())} has values that are NaN or infinite")
    return x


def _points(x, name, least=1):
    """Return x as (n, d) real numbers, n at least `least`."""
    x = _finite(x, name)
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ValueError(f"{name}: must have shape (n, d) or (n, ...); its shape is {x.shape}")
    if len(x) < least:
        raise ValueError(f"{name}: the number of rows must be at least {least}, not {len(x)}")
    return x.reshape(len(x), math.prod(x.shape[1:]))


def _same_width(x, y, names):
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{names[1]}: must have as many values in a row as {names[0]}, {x.shape[1]}, "
            f"not {y.shape[1]}"
        )


# ---- Fréchet distance ----------------------------------------------------------------------------


def _features(x, name, features, batch):
    """Return the features of x, (n, k) float64."""
    if not callable(features):
        raise TypeError(f"features: must be a function of a batch of {name}, not {features!r}")
    try:
        n = len(x)
    except TypeError:
        raise TypeError(f"{name}: must be a set of points or images, not {x!r}") from None
    if n < 2:
        raise ValueError(f"{name}: the number of rows must be at least 2, not {n}")
    parts = []
    for start in range(0, n, batch):
        rows = x[start : start + batch]
        part = np.asarray(_arguments.rows(features(rows), "features"))
        good = part.ndim == 2 and len(part) == len(rows) and part.shape[1] > 0
        if not good or (parts and part.shape[1] != parts[0].shape[1]):
            k = parts[0].shape[1] if parts else "k"
            raise ValueError(
                f"features: must return an array of shape ({len(rows)}, {k}) for {len(rows)} rows "
                f"of {name}; the shape is {part.shape}"
            )
        if part.dtype.kind not in "biuf":
            raise ValueError(f"features: must return real numbers; the dtype is {part.dtype}")
        bad = ~np.isfinite(part).all(axis=1)
        if bad.any():
            row = start + int(bad.argmax())
            raise ValueError(f"features: those of row {row} of {name} are NaN or infinite")
        parts.append(part.astype(np.float64))
    return np.concatenate(parts)


def _statistics(x, name, features, batch):
    """Return the mean (k,) and the covariance (k, k) of the features of x, or x if it is both."""
    if isinstance(x, tuple):
        if len(x) != 2:
            raise ValueError(f"{name}: a tuple must be (mean, covariance), not of {len(x)} values")
        mean = _finite(x[0], f"{name}: the mean").astype(np.float64)
        covariance = _finite(x[1], f"{name}: the covariance").astype(np.float64)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"{name}: mean and covariance must have shapes (k,) and (k, k), not "
                f"{mean.shape} and {covariance.shape}"
            )
        if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-6 * abs(covariance).max()):
            raise ValueError(f"{name}: the covariance must be symmetric")
        if (np.diag(covariance) < 0).any():
            raise ValueError(f"{name}: the covariance has a negative variance")
        return mean, covariance
    if features is None:
        x = _points(x, name, least=2).astype(np.float64, copy=False)
    else:
        x = _features(x, name, features, batch)
    mean = x.mean(axis=0)
    x = x - mean
    return mean, x.T @ x / (len(x) - 1)


def frechet_distance(
    x: ArrayLike | Statistics,
    y: ArrayLike | Statistics,
    features: Callable[[Any], ArrayLike] | None = None,
    batch: int = 500,
) -> float:
    """Return the Fréchet distance between Gaussians fitted to the features of two sets.

    For means m and covariances C it is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared
    2-Wasserstein distance of the two Gaussians (Dowson & Landau 1982). In the features of an
    Inception network it is the FID (Heusel et al. 2017, arXiv 1706.08500).

    Parameters
    ----------
    x, y : (n, ...) array-like, or (mean, covariance)
        The two sets, of at least two rows each and not always of the same size; or, as a tuple,
        the mean (k,) and the covariance (k, k) of features that were computed before.
    features : callable, optional
        Takes up to `batch` rows of x or y as they are and returns their features (n, k): a NumPy
        array, or a tensor. Default: x and y are the features.
    batch : int
        Rows in one call of `features`.

    Returns
    -------
    float
        Never negative. It falls with the number of rows even for perfect samples: compare figures
        of equal numbers, 10,000 as a rule.

    Raises
    ------
    ValueError
        Too few rows, NaN, features of another shape; the message names the argument.

    Notes
    -----
    The published FID, in the network that defines it, from the package pytorch-fid::

        import torch
        from pytorch_fid.inception import InceptionV3

        network = InceptionV3().eval()

        @torch.no_grad()
        def inception(images):  # (n, height, width) uint8; for colour leave the last line's expand
            x = torch.as_tensor(images).float().div(255)[:, None]
            return network(x.expand(-1, 3, -1, -1))[0][:, :, 0, 0]

        fid = pyflow.metrics.frechet_distance(samples, test, features=inception, batch=50)

    Files of published statistics hold the mean and the covariance of a set's features::

        stats = np.load("statistics.npz")
        fid = pyflow.metrics.frechet_distance(
            samples, (stats["mu"], stats["sigma"]), features=inception, batch=50
        )

    Any other network that returns one vector for an image serves as well, such as torchvision's
    `inception_v3` with its last layer replaced by `torch.nn.Identity()`; its figures compare among
    each other only. So do those of `LeNet`, which needs no PyTorch.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).normal(size=(10000, 3))
    >>> round(pyflow.metrics.frechet_distance(x, 2 * x + 1), 1)  # 3 (1 + 1)
    6.0

    Images, in the features of a small network for 28 x 28 grey ones:

    >>> lenet = pyflow.metrics.LeNet("mnist")
    >>> noise = np.random.default_rng(0).integers(0, 256, (200, 28, 28), np.uint8)
    >>> pyflow.metrics.frechet_distance(noise, noise // 2, features=lenet) > 10
    True
    """
    batch = _arguments.integer("batch", batch, 1)
    mean_x, cov_x = _statistics(x, "x", features, batch)
    mean_y, cov_y = _statistics(y, "y", features, batch)
    if len(mean_x) != len(mean_y):
        raise ValueError(f"y: has {len(mean_y)} features, but x has {len(mean_x)}")
    # C1 C2 has the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2). Those that rounding has made
    # negative are zero.
    values, vectors = np.linalg.eigh(cov_x)
    root = vectors * np.sqrt(np.maximum(values, 0))
    product = np.linalg.eigvalsh(root.T @ cov_y @ root)
    trace = np.trace(cov_x) + np.trace(cov_y) - 2 * np.sqrt(np.maximum(product, 0)).sum()
    return max(float(((mean_x - mean_y) ** 2).sum() + trace), 0.0)


class LeNet:
    """Features of 28 x 28 grey images in a small fixed network, for `frechet_distance`.

    They are the 64 activations before the last layer of a convolutional network (two layers of
    5 x 5 kernels, each followed by a 2 x 2 maximum, and one dense layer) that was trained to
    classify MNIST or Fashion-MNIST. Distances in them compare between methods on the same images,
    not with published values of the FID. 10,000 images against the 10,000 of the test set:

    =============================================  =====  =======
    images                                         mnist  fashion
    =============================================  =====  =======
    first 10,000 training images (the floor)        1.55     0.13
    training images + noise of 20 grey levels       13.0     19.6
    50 principal components' reconstructions        74.3     38.3
    Gaussian of the same mean and covariance         523      145
    =============================================  =====  =======

    (Those of Fashion-MNIST are for a random split.)

    Parameters
    ----------
    network : {"mnist", "fashion"}
        What the network was trained on.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> lenet = pyflow.metrics.LeNet("mnist")
    >>> lenet(np.zeros((5, 28, 28), np.uint8)).shape
    (5, 64)

    A flow's samples against the test set::

        pyflow.metrics.frechet_distance(samples, test, features=pyflow.metrics.LeNet("mnist"))
    """

    def __init__(self, network: str = "mnist"):
        if network not in ("mnist", "fashion"):
            raise ValueError(f"network: must be 'mnist' or 'fashion', not {network!r}")
        self.network = network
        self._activations = _lenet.Network(
            os.path.join(os.path.dirname(__file__), "data", f"lenet_{network}.npz")
        )

    def __repr__(self):
        return f"LeNet({self.network!r})"

    def __call__(self, images: ArrayLike) -> Floats:
        """Return the features of images.

        Parameters
        ----------
        images : (n, 28, 28), (n, 28, 28, 1) or (n, 784) array-like
            Grey levels 0..255 of any real dtype; what lies outside is clipped.

        Returns
        -------
        (n, 64) float64 array
        """
        x = _finite(images, "images")
        if x.shape[1:] not in ((28, 28), (28, 28, 1), (784,)):
            raise ValueError(
                "images: must have shape (n, 28, 28), (n, 28, 28, 1) or (n, 784); "
                f"the shape is {x.shape}"
            )
        if x.dtype.kind == "f" and x.size and 0 < x.max() <= 1:
            _arguments.warn("images: no value exceeds 1, but the grey levels meant are 0..255")
        return self._activations(x.reshape(-1, 28, 28))


# ---- Sliced Wasserstein distance -----------------------------------------------------------------


def _merged_quantiles(n, m):
    """Where the quantile functions of n and of m values are constant together.

    Returns indices into the sorted values of both, and the probabilities of the pieces.
    """
    if n == m:
        return slice(None), slice(None), np.full(n, 1 / n)
    # The steps are at i / n and j / m: in units of 1 / (n m), so that equal ones are equal.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    starts = np.concatenate([[0], ends[:-1]])
    return starts // m, starts // n, (ends - starts) / (n * m)


def _directions(rng, count, d, patch):
    """Random unit vectors (count, d), zero outside a random square of the image for patches."""
    if patch is None:
        vectors = rng.standard_normal((count, d))
    else:
        kernel, (height, width, channels) = patch
        images = np.zeros((count, height, width, channels))
        for image in images:
            row = rng.integers(height - kernel + 1)
            column = rng.integers(width - kernel + 1)
            square = image[row : row + kernel, column : column + kernel]
            square[:] = rng.standard_normal(square.shape)
        vectors = images.reshape(count, d)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _patch(patch, d):
    """Return patch as (kernel, (height, width, channels)); an error names the argument."""
    try:
        kernel, shape = patch
        shape = tuple(shape)
    except (TypeError, ValueError):
        raise TypeError(f"patch: must be (kernel, image_shape), not {patch!r}") from None
    shape = tuple(_arguments.integer("patch", n, 1) for n in shape)
    if len(shape) not in (2, 3) or np.prod(shape) != d:
        raise ValueError(
            f"patch: image_shape must be (height, width) or (height, width, channels) of {d} "
            f"values in all, not {shape}"
        )
    kernel = _arguments.integer("patch", kernel, 1, min(shape[:2]))
    return kernel, shape if len(shape) == 3 else (*shape, 1)


def sliced_wasserstein(
    x: ArrayLike,
    y: ArrayLike,
    n_slices: int = 1000,
    p: float = 2,
    seed: Seed = 0,
    patch: tuple[int, Sequence[int]] | None = None,
) -> float:
    """Return the sliced Wasserstein distance of two sets.

    (mean over unit vectors a of W_p(a x, a y)^p)^(1/p), where W_p^p of two sets of numbers is the
    integral of |F^-1(t) - G^-1(t)|^p over the probabilities t, F^-1 and G^-1 their quantile
    functions (Bonneel et al. 2015). The integral is exact for sets of any two sizes; the mean is
    over `n_slices` random vectors.

    Parameters
    ----------
    x, y : (n, ...) array-like
        Of as many values in a row, in the same units.
    n_slices : int
        How many vectors.
    p : float
        At least 1.
    seed : int or numpy.random.Generator, optional
        Of the vectors. Distances compare best between calls with the same seed.
    patch : (int, image_shape), optional
        For images of shape (height, width) or (height, width, channels): every vector is zero
        but in one square of that side, all channels of it, whose place is random. It is the
        distance between patches at the same place, averaged over places.

    Returns
    -------
    float
        In the units of x. It is not zero for two samples of one distribution: compare with what a
        part of the true data gives.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).normal(size=(5000, 2))
    >>> round(pyflow.metrics.sliced_wasserstein(x, x + [3, 4]), 1)  # 5 <cos^2>^(1/2) = 5 / 2^(1/2)
    3.5

    Images, and their 4 x 4 patches:

    >>> images = np.random.default_rng(0).integers(0, 256, (1000, 8, 8), np.uint8)
    >>> floor = pyflow.metrics.sliced_wasserstein(images[:500], images[500:], patch=(4, (8, 8)))
    >>> pyflow.metrics.sliced_wasserstein(images, images // 2, patch=(4, (8, 8))) > 5 * floor
    True
    """
    x, y = _points(x, "x"), _points(y, "y")
    _same_width(x, y, ("x", "y"))
    n_slices = _arguments.integer("n_slices", n_slices, 1)
    p = _arguments.real("p", p)
    if p < 1:
        raise ValueError(f"p: must be at least 1, not {p}")
    rng, d = _arguments.generator(seed), x.shape[1]
    patch = None if patch is None else _patch(patch, d)
    dtype = np.result_type(x, y, np.float32)
    x, y = x.astype(dtype, copy=False), y.astype(dtype, copy=False)
    of_x, of_y, weight = _merged_quantiles(len(x), len(y))
    total, left = 0.0, n_slices
    chunk = max(1, 2**22 // max(len(x) + len(y), d))  # tens of MB at once
    while left:
        count = min(left, chunk)
        a = _directions(rng, count, d, patch).astype(dtype)
        gap = np.sort(a @ x.T)[:, of_x] - np.sort(a @ y.T)[:, of_y]
        total += float((np.abs(gap, dtype=np.float64) ** p @ weight).sum())
        left -= count
    return (total / n_slices) ** (1 / p)


# ---- Nearest neighbours --------------------------------------------------------------------------


def nearest(
    x: ArrayLike, reference: ArrayLike, k: int = 1
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the rows of a reference set nearest to every row of x.

    Shows beside samples the training images most like them: whether any was copied.

    Parameters
    ----------
    x : (n, ...) array-like
    reference : (m, ...) array-like
        Of as many values in a row as x.
    k : int
        How many, at most m.

    Returns
    -------
    index : (n, k) int array
        Rows of reference, the nearest first; of equally near ones the first.
    distance : (n, k) float64 array
        Euclidean.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> index, distance = pyflow.metrics.nearest([[0.0, 4.0]], [[9.0, 9.0], [3.0, 0.0], [0.0, 5.0]])
    >>> index.tolist(), distance.tolist()
    ([[2]], [[1.0]])
    """
    x, reference = _points(x, "x", least=0), _points(reference, "reference")
    _same_width(x, reference, ("x", "reference"))
    k = _arguments.integer("k", k, 1, len(reference))
    # |x - r|^2 = |x|^2 + |r|^2 - 2 x.r, in `dtype` and of values within -2..2, is off by less than
    # `slack` (|x|^2 + |r|^2) from rounding. Those that may be among the nearest for all that is
    # known then are computed again in double. A scale that is a power of two rounds nothing.
    dtype = np.result_type(x, reference, np.float32)
    centre = reference.mean(axis=0, dtype=np.float64).astype(dtype)
    r = np.subtract(reference, centre, dtype=dtype)
    farthest = max(-r.min(), r.max(), abs(x - centre).max(initial=0))
    scale = np.ldexp(1.0, np.frexp(farthest)[1] - 1)
    r /= dtype.type(scale)
    square_r = np.einsum("ij,ij->i", r, r)
    slack = 4 * (x.shape[1] + 8) * np.finfo(dtype).eps
    index = np.empty((len(x), k), np.intp)
    distance = np.empty((len(x), k))
    chunk = max(1, 2**23 // len(reference))
    for start in range(0, len(x), chunk):
        rows = np.subtract(x[start : start + chunk], centre, dtype=dtype) / dtype.type(scale)
        square = square_r - 2 * (rows @ r.T)  # but for |x|^2, the same in a row
        kth = np.partition(square, k - 1, axis=1)[:, k - 1]
        limit = kth + slack * (np.einsum("ij,ij->i", rows, rows) + square_r.max())
        for i, (row, most) in enumerate(zip(square, limit, strict=True), start):
            near = np.flatnonzero(row <= most)
            gap = (reference[near].astype(np.float64) - x[i]) / scale
            exact = np.einsum("ij,ij->i", gap, gap)
            order = np.argsort(exact, kind="stable")[:k]
            index[i], distance[i] = near[order], np.sqrt(exact[order]) * scale
    return index, distance


# ---- Telling two sets apart ----------------------------------------------------------------------


def auroc(scores_in: ArrayLike, scores_out: ArrayLike) -> float:
    """Return how well scores tell points inside a distribution from points outside of it.

    The area under the receiver operating characteristic: the probability that a random score of
    `scores_in` is greater than one of `scores_out`, ties counted half.

    Parameters
    ----------
    scores_in, scores_out : (n,) and (m,) array-like
        Such as log-densities of a flow, of points that are like its training data and points that
        are not. They may be infinite.

    Returns
    -------
    float
        1 where they are told apart, 1/2 where scores say nothing.

    Examples
    --------
    >>> import pyflow
    >>> pyflow.metrics.auroc([3.0, 2.0], [1.0, 2.0])  # three pairs in order and one tie, of four
    0.875
    """
    inside, outside = _scores(scores_in, "scores_in"), np.sort(_scores(scores_out, "scores_out"))
    below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
    return float(below.mean() / (2 * len(outside)))


def p_values(
    scores: ArrayLike, held_out: ArrayLike, *, two_sided: bool = False
) -> Floats | np.float64:
    """Return how likely points like the held-out ones have scores as low.

    p = (1 + #{held-out scores <= score}) / (1 + n): the rank of a score among itself and the n
    held-out ones. For a point of their distribution p <= a with a probability of a at most,
    whatever the scores are and however the model that gives them errs, as long as it saw neither
    that point nor the held-out ones (conformal p-values: Vovk et al. 2005; Bates et al. 2023,
    arXiv 2104.08279). The least that n can tell of is 1 / (1 + n).

    Parameters
    ----------
    scores : (m,) array-like, or float
        Such as log p of observed fields. They may be infinite.
    held_out : (n,) array-like
        Scores of points that the model was not trained on, nor chosen by.
    two_sided : bool
        Scores that are too high count as much: twice the lesser of the p-values of either side, at
        most 1. A smooth field can have a higher log p than any that a flow was trained on.

    Returns
    -------
    (m,) float64 array, or float for a single score

    Raises
    ------
    ValueError
        If there are no scores, or they are NaN; the message names the argument.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> held_out = np.random.default_rng(0).normal(size=999)
    >>> pyflow.metrics.p_values([-9.0, 9.0], held_out).tolist()
    [0.001, 1.0]
    >>> pyflow.metrics.p_values([-9.0, 9.0], held_out, two_sided=True).tolist()
    [0.002, 0.002]
    """
    one = np.ndim(_arguments.rows(scores, "scores")) == 0
    scores = _scores([scores] if one else scores, "scores")
    held_out = np.sort(_scores(held_out, "held_out"))
    n = len(held_out)
    p = (1 + np.searchsorted(held_out, scores, "right")) / (1 + n)
    if _arguments.boolean("two_sided", two_sided):
        above = (1 + n - np.searchsorted(held_out, scores, "left")) / (1 + n)
        p = np.minimum(2 * np.minimum(p, above), 1)
    return p[0] if one else p


def _scores(given, name):
    """Return scores as real numbers (n,), at least one; an error names the argument."""
    values = np.asarray(_arguments.rows(given, name))
    if values.dtype.kind not in "biuf" or values.ndim != 1 or not len(values):
        raise ValueError(
            f"{name}: must be one real number or more, of shape (n,); the shape is "
            f"{values.shape}, the dtype {values.dtype}"
        )
    if np.isnan(values).any():
        raise ValueError(f"{name}: score {int(np.isnan(values).argmax())} is NaN")
    return values
