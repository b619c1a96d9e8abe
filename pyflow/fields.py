"""Periodic fields: power spectra, pixel distributions, and random fields whose density is known.

Fields are arrays of shape (n, n0, n1) or (n, n0, n1, n2), n of them on one mesh; an array of shape
(n0, n1) is a single one, and a single field in three dimensions is `x[None]`. With box lengths L
and V their product, P(k) = V <|F x|^2> / N^2 for N pixels, F the unnormalised Fourier transform:
white noise of unit variance has P = V / N. Wave numbers are 2 pi m / L.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Box = float | Sequence[float]
    Floats = NDArray[np.float64]
    Power = Callable[..., ArrayLike] | float
    Seed = int | np.random.Generator | None

__all__ = [
    "bispectrum",
    "chi_squared",
    "cosines",
    "cross_correlation",
    "filtered",
    "gaussian_field",
    "gaussian_logp",
    "lognormal_field",
    "lognormal_logp",
    "pdf",
    "power_multipoles",
    "power_spectrum",
    "wavenumbers",
]


def __dir__():
    return __all__


def box_lengths(box_size, ndim):
    """Return box_size as a tuple of ndim positive lengths; an error names the argument."""
    try:
        box = np.asarray(box_size)
    except (TypeError, ValueError):  # ragged
        box = np.empty(0, object)
    if box.dtype.kind not in "iuf":
        raise TypeError(f"box_size: must be a number or one per axis, not {box_size!r}")
    if box.shape not in ((), (ndim,)):
        raise ValueError(f"box_size: must be a number or {ndim}, one per axis, not {box_size!r}")
    if not ((box > 0) & (box < np.inf)).all():
        raise ValueError(f"box_size: must be positive and finite, not {box_size!r}")
    if not ((box >= 1e-100) & (box <= 1e100)).all():  # volumes and squares of wave numbers
        raise ValueError(f"box_size: must be between 1e-100 and 1e100, not {box_size!r}")
    return tuple(np.broadcast_to(box, ndim).astype(np.float64).tolist())


def checked(x, name="x"):
    """Return x as real, finite fields (n, mesh), and whether it was a single one."""
    x = np.asarray(_arguments.rows(x, name))
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name}: must hold real numbers; its dtype is {x.dtype}")
    if x.ndim not in (2, 3, 4) or 0 in x.shape[-2:]:
        raise ValueError(
            f"{name}: must have shape (n, n0, n1), (n, n0, n1, n2) or (n0, n1); "
            f"its shape is {x.shape}"
        )
    if x.dtype != np.float32:
        x = x.astype(np.float64, copy=False)
    one = x.ndim == 2
    x = x[None] if one else x
    bad = ~np.isfinite(x).all(axis=tuple(range(1, x.ndim)))
    if bad.any():
        raise ValueError(f"{name}: field {int(bad.argmax())} has pixels that are NaN or infinite")
    return x, one


def axis_of(axis, ndim):
    """Return an axis of a mesh of ndim axes, counted from 0; negative ones count from the last."""
    return _arguments.integer("axis", axis, -ndim, ndim - 1) % ndim


def _mesh(mesh):
    mesh = tuple(_arguments.integer("mesh", n, 1) for n in mesh)
    if len(mesh) not in (2, 3):
        raise ValueError(f"mesh: must have two or three axes, not {len(mesh)}")
    return mesh


def _frequencies(n, length):
    """Return |k| along an axis of n pixels, in the order of `numpy.fft.fftn`."""
    return np.abs(2 * np.pi * np.fft.fftfreq(n, length / n))


def wavenumbers(mesh: Sequence[int], box_size: Box = 1.0) -> tuple[Floats, NDArray[np.int_]]:
    """Return |k| of every mode of `numpy.fft.rfftn`, and how many modes of `fftn` each stands for.

    Parameters
    ----------
    mesh : tuple of int
        Pixels along every axis.
    box_size : float or sequence of float
        Length of the axes.

    Returns
    -------
    k : (n0, ..., n_last // 2 + 1) float64 array
    modes : int array of the same shape
        2 where a mode and its complex conjugate are both meant, otherwise 1.

    Examples
    --------
    >>> import pyflow
    >>> k, modes = pyflow.fields.wavenumbers((4, 5), box_size=10.0)
    >>> k.shape, int(modes.sum())
    ((4, 3), 20)
    """
    mesh = _mesh(mesh)
    box = box_lengths(box_size, len(mesh))
    axes = [_frequencies(n, L) for n, L in zip(mesh, box, strict=True)]
    axes[-1] = axes[-1][: mesh[-1] // 2 + 1]
    square = sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True))
    modes = np.full(square.shape, 2)
    modes[..., 0] = 1
    if mesh[-1] % 2 == 0:
        modes[..., -1] = 1
    return np.sqrt(square), modes


def window(mask: ArrayLike, mesh: Sequence[int]) -> NDArray[np.bool_]:
    """Return a mask as a bool array of the shape of the mesh; an error names the argument."""
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"mask: must be boolean, True where observed; its dtype is {mask.dtype}")
    if mask.shape != tuple(mesh):
        raise ValueError(
            f"mask: must have the shape of a field, {tuple(mesh)}; its shape is {mask.shape}"
        )
    if not mask.any():
        raise ValueError("mask: no pixel is observed")
    return mask


def cosines(mesh: Sequence[int], box_size: Box = 1.0, axis: int = -1) -> Floats:
    """Return |mu| = |k_axis| / |k| of every mode of `numpy.fft.rfftn`; 0 for k = 0.

    Parameters
    ----------
    mesh : tuple of int
        Pixels along every axis.
    box_size : float or sequence of float
        Length of the axes.
    axis : int
        The line of sight.

    Returns
    -------
    (n0, ..., n_last // 2 + 1) float64 array

    Examples
    --------
    >>> import pyflow
    >>> pyflow.fields.cosines((2, 4)).round(2).tolist()
    [[0.0, 1.0, 1.0], [0.0, 0.71, 0.89]]
    """
    k, _ = wavenumbers(mesh, box_size)
    axis = axis_of(axis, k.ndim)
    along = _frequencies(mesh[axis], box_lengths(box_size, k.ndim)[axis])[: k.shape[axis]]
    along = along.reshape([-1 if a == axis else 1 for a in range(k.ndim)])
    return np.minimum(along / np.where(k > 0, k, 1), 1)


def power_spectrum(
    x: ArrayLike, box_size: Box = 1.0, bins: int | Sequence[float] | None = None
) -> tuple[Floats, Floats, NDArray[np.int_]]:
    """Return the power spectrum of every field, averaged in bins of |k|.

    Parameters
    ----------
    x : (n, mesh) array-like, or (n0, n1)
    box_size : float or sequence of float
        Length of the axes.
    bins : int or sequence of float, optional
        Bins of equal width, or their edges. Default: as wide as the lowest frequency and centred on
        its multiples, up to the lowest Nyquist frequency.

    Returns
    -------
    k : (n_bins,) float64 array
        Mean |k| of the modes in each bin.
    power : (n, n_bins) or (n_bins,) float64 array
        In units of the field squared times the box's volume.
    modes : (n_bins,) int array
        How many modes are in each bin, a mode and its conjugate counted as two. Bins without modes
        are left out.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).normal(size=(50, 32, 32))
    >>> k, power, modes = pyflow.fields.power_spectrum(x, box_size=100.0)
    >>> bool(np.all(abs(power.mean(axis=0) / (100.0**2 / 32**2) - 1) < 0.4))  # white noise
    True
    """
    k, power, modes, one = _binned(
        x, box_size, bins, lambda mesh, box: [np.ones_like(wavenumbers(mesh, box)[0])]
    )
    power = power[:, 0]
    return k, power[0] if one else power, modes


def power_multipoles(
    x: ArrayLike,
    box_size: Box = 1.0,
    axis: int = -1,
    multipoles: Sequence[int] = (0, 2, 4),
    bins: int | Sequence[float] | None = None,
) -> tuple[Floats, Floats, NDArray[np.int_]]:
    """Return multipoles of every field's power spectrum about a line of sight, in bins of |k|.

    P(k, mu) = sum_l P_l(k) L_l(mu), mu = k_axis / |k|, with Legendre polynomials L_l in three
    dimensions and L_l = cos(l arccos mu) in two: P_l is the mean of the power times (2 l + 1) L_l,
    in two dimensions times 2 L_l (1 for l = 0), over the modes of a bin. A bin with few modes, as
    those at the lowest |k|, has few mu, and its multipoles are mixtures.

    Parameters
    ----------
    x : (n, mesh) array-like, or (n0, n1)
    box_size : float or sequence of float
        Length of the axes.
    axis : int
        The line of sight. Default: the last.
    multipoles : sequence of int
        Which, each even, 0 to 20.
    bins : int or sequence of float, optional
        As in `power_spectrum`.

    Returns
    -------
    k : (n_bins,) float64 array
        Mean |k| of the modes in each bin.
    power : (n, n_multipoles, n_bins) or (n_multipoles, n_bins) float64 array
        In units of the field squared times the box's volume.
    modes : (n_bins,) int array
        As in `power_spectrum`.

    Raises
    ------
    ValueError
        If the axis is none of the mesh, or a multipole odd, negative or above 20.

    Examples
    --------
    A spectrum as in redshift space (Kaiser 1987), whose quadrupole in three dimensions is
    (4 beta / 3 + 4 beta^2 / 7) P(k):

    >>> import numpy as np, pyflow
    >>> power = lambda k, mu: (1 + 0.5 * mu**2) ** 2 / k
    >>> x = pyflow.fields.gaussian_field(power, (16, 16, 16), 200, seed=1, axis=-1)
    >>> k, power, _ = pyflow.fields.power_multipoles(x, multipoles=(0, 2), bins=[30, 50])
    >>> [round(float(p), 1) for p in power.mean(axis=0)[:, 0] * k]
    [1.4, 0.8]
    """
    multipoles = [_arguments.integer("multipoles", m, 0, 20) for m in multipoles]
    if not multipoles or any(m % 2 for m in multipoles):
        raise ValueError(f"multipoles: must be even numbers, one or more, not {multipoles}")

    def weights(mesh, box):
        mu = cosines(mesh, box, axis)
        if len(mesh) == 2:
            return np.stack([min(m + 1, 2) * np.cos(m * np.arccos(mu)) for m in multipoles])
        eye = np.eye(max(multipoles) + 1)
        return np.stack(
            [(2 * m + 1) * np.polynomial.legendre.legval(mu, eye[m]) for m in multipoles]
        )

    k, power, modes, one = _binned(x, box_size, bins, weights)
    return k, power[0] if one else power, modes


def _binned(x, box_size, bins, weights):
    """Return k, power (n, n_weights, n_bins), modes, and whether x is a single field.

    weights(mesh, box)[i] are what the power of every mode is multiplied with before it is averaged.
    """
    x, one = checked(x)
    mesh = x.shape[1:]
    box = box_lengths(box_size, len(mesh))
    k, modes = wavenumbers(mesh, box)
    edges = _edges(bins, mesh, box)
    where = np.digitize(k.ravel(), edges) - 1
    inside = (where >= 0) & (where < len(edges) - 1) & (k.ravel() > 0)
    where, weight, k = where[inside], modes.ravel()[inside], k.ravel()[inside]
    n_bins = len(edges) - 1
    count = np.bincount(where, weight, n_bins)
    factor = np.prod(box) / np.prod(mesh, dtype=float) ** 2
    factors = [w.ravel()[inside] * weight for w in weights(mesh, box)]
    power = np.empty((len(x), len(factors), n_bins))
    with np.errstate(invalid="ignore", divide="ignore"):
        for i, field in enumerate(x):
            square = np.abs(np.fft.rfftn(field.astype(np.float64))).ravel()[inside] ** 2
            for j, w in enumerate(factors):
                power[i, j] = factor * np.bincount(where, w * square, n_bins) / count
        mean_k = np.bincount(where, weight * k, n_bins) / count
    full = count > 0
    return mean_k[full], power[..., full], count[full].astype(int), one


def cross_correlation(
    a: ArrayLike,
    b: ArrayLike,
    box_size: Box = 1.0,
    bins: int | Sequence[float] | None = None,
) -> tuple[Floats, Floats, NDArray[np.int_]]:
    """Return how far pairs of fields agree, in bins of |k|: r = P_ab / sqrt(P_a P_b).

    Parameters
    ----------
    a, b : (n, mesh) array-likes, or (n0, n1)
    box_size : float or sequence of float
        Length of the axes.
    bins : int or sequence of float, optional
        As in `power_spectrum`.

    Returns
    -------
    k, r, modes
        As in `power_spectrum`; r, from -1 to 1, stands for the power.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> a, noise = np.random.default_rng(0).normal(size=(2, 100, 16, 16))
    >>> _, r, _ = pyflow.fields.cross_correlation(a, a + noise)  # half of the power is noise
    >>> bool(np.all(abs(r.mean(axis=0) - 0.5**0.5) < 0.05))
    True
    """
    a, b = checked(a, "a")[0], checked(b, "b")[0]
    if a.shape != b.shape:
        raise ValueError(f"b: has shape {b.shape}, a {a.shape}")
    a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
    (k, both, modes), (_, apart, _), (_, of_a, _), (_, of_b, _) = (
        power_spectrum(x, box_size, bins) for x in (a + b, a - b, a, b)
    )
    with np.errstate(invalid="ignore"):
        return k, (both - apart) / (4 * np.sqrt(of_a * of_b)), modes


def bispectrum(
    x: ArrayLike, box_size: Box = 1.0, bins: int | Sequence[float] | None = None
) -> tuple[Floats, Floats, NDArray[np.int_]]:
    """Return the bispectrum of every field, of triangles whose three sides lie in one bin of |k|.

    Unlike the power spectrum it tells a Gaussian field, of which it is zero, from filaments and
    peaks. B = V^2 <F x(k1) F x(k2) F x(k3)> / N^3 over k1 + k2 + k3 = 0, the mean over all
    triangles of a bin, by products of the field filtered to the bin (Scoccimarro, 1506.02729).

    Parameters
    ----------
    x : (n, mesh) array-like, or (n0, n1)
    box_size : float or sequence of float
        Length of the axes.
    bins : int or sequence of float, optional
        Bins of equal width, or their edges, up to two thirds of the lowest Nyquist frequency:
        beyond it, triangles of the mesh do not close in the plane. Default: bins three times as
        wide as the lowest frequency.

    Returns
    -------
    k : (n_bins,) float64 array
        Mean |k| of the modes in each bin.
    bispectrum : (n, n_bins) or (n_bins,) float64 array
        In units of the field cubed times the box's volume squared.
    triangles : (n_bins,) int array
        How many there are in each bin, their sides in order. Bins without any are left out.

    Raises
    ------
    ValueError
        If bins reach beyond two thirds of the Nyquist frequency, or another argument makes no
        sense: the message names it.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).exponential(size=(100, 32, 32))  # third cumulant: 2
    >>> k, b, triangles = pyflow.fields.bispectrum(x, box_size=32.0)
    >>> bool(np.all(abs(b.mean(axis=0) / 2 - 1) < 0.3))
    True
    """
    x, one = checked(x)
    mesh, axes = x.shape[1:], tuple(range(1, x.ndim))
    box = box_lengths(box_size, len(mesh))
    k, modes = wavenumbers(mesh, box)
    low, high = 2 * np.pi / max(box), min(np.pi * n / L for n, L in zip(mesh, box, strict=True))
    if bins is None or np.ndim(bins) == 0:
        count = max(int((2 / 3 * high - 0.5 * low) / (3 * low)), 1) if bins is None else bins
        count = _arguments.integer("bins", count, 1)
        top = 0.5 * low + 3 * low * count if bins is None else 2 / 3 * high
        edges = np.linspace(0.5 * low, min(top, 2 / 3 * high), count + 1)
    else:
        edges = _edges(bins, mesh, box)
    if not edges[-1] <= 2 / 3 * high * (1 + 1e-9):
        raise ValueError(f"bins: {edges[-1]:g} is beyond 2/3 of the Nyquist frequency, {high:g}")

    def cubes(spectra):
        """Sum over the mesh of the cube of what F^-1 leaves of (n, modes), times N squared."""
        y = np.fft.irfftn(spectra, mesh, axes)
        return (y**3).sum(axis=axes) * math.prod(mesh) ** 2

    spectra = np.fft.rfftn(x.astype(np.float64), axes=axes)
    volume, size = np.prod(box), np.prod(mesh, dtype=float)
    mean_k, mean_b, triangles = [], [], []
    for lo, hi in itertools.pairwise(edges):
        inside = (k >= lo) & (k < hi) & (k > 0)
        n = np.rint(cubes(inside[None].astype(float))[0])
        if n > 0:
            mean_k.append(np.average(k[inside], weights=modes[inside]))
            mean_b.append(cubes(np.where(inside, spectra, 0)) / n * (volume**2 / size**3))
            triangles.append(int(n))
    b = np.array(mean_b).reshape(len(mean_b), len(x)).T
    return np.array(mean_k), b[0] if one else b, np.array(triangles, dtype=int)


def filtered(x: ArrayLike, transfer: Callable[[Floats], ArrayLike], box_size: Box = 1.0) -> Floats:
    """Return fields convolved with an isotropic kernel: F^-1 T(|k|) F x.

    With T = P_xc / P_c it is the Wiener filter of c: the mean of x given c, for Gaussian fields.

    Parameters
    ----------
    x : (n, mesh) array-like, or (n0, n1)
    transfer : callable
        T of an array of |k|, 0 included; real.
    box_size : float or sequence of float
        Length of the axes.

    Returns
    -------
    float64 array of the shape of x

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).normal(size=(16, 16))
    >>> smooth = pyflow.fields.filtered(x, lambda k: np.exp(-0.5 * k**2), box_size=16.0)
    >>> bool(smooth.std() < 0.5 * x.std())
    True
    """
    x, one = checked(x)
    mesh, axes = x.shape[1:], tuple(range(1, x.ndim))
    k, _ = wavenumbers(mesh, box_lengths(box_size, len(mesh)))
    t = np.asarray(transfer(k), dtype=np.float64)
    if t.shape not in ((), k.shape) or not np.isfinite(t).all():
        raise ValueError(f"transfer: must be finite, of shape {k.shape}; its shape is {t.shape}")
    y = np.fft.irfftn(t * np.fft.rfftn(x.astype(np.float64), axes=axes), mesh, axes)
    return y[0] if one else y


def _edges(bins, mesh, box):
    """Return the edges of bins of |k|: see `power_spectrum`."""
    if bins is None or np.ndim(bins) == 0:
        low = 2 * np.pi / max(box)
        high = min(np.pi * n / L for n, L in zip(mesh, box, strict=True))
        if bins is None:
            edges = np.arange(0.5, max(high / low, 1) + 0.5 + 1e-9) * low
            return edges if len(edges) > 1 else np.array([0.5, 1.5]) * low
        return np.linspace(0.5 * low, high, _arguments.integer("bins", bins, 1) + 1)
    edges = np.asarray(bins, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError("bins: edges must increase, and there must be two or more")
    return edges


def chi_squared(
    z: ArrayLike, box_size: Box = 1.0, bins: int | Sequence[float] | None = None
) -> tuple[Floats, Floats, NDArray[np.int_]]:
    """Return chi^2 of latent fields, scale by scale: which part of log p is whose.

    chi^2 = sum |F z|^2 / N over the modes of a bin of |k|. With log p(x|y) = log N(z; 0, I) + logj,
    z and logj from `Flow.forward`, bins that hold all modes (edges 0, ..., infinity) add up to
    log p(x|y) = sum of -1/2 (chi^2 + modes log 2 pi) + logj (Parseval). Where x is of the flow's
    distribution, chi^2 has the chi-squared distribution of as many degrees of freedom as there are
    modes, in every bin, independently: (chi^2 - modes) / sqrt(2 modes) is its deviation. Too little
    power is as unlikely as too much, although it makes log p greater. Of a flow with a mask, z are
    of pixels that were drawn, too, the same for all fields: one field's are right, and those of
    many are not independent of each other.

    Parameters
    ----------
    z : (n, mesh) array-like, or (n0, n1)
        From `Flow.forward`.
    box_size : float or sequence of float
        Length of the axes.
    bins : int or sequence of float, optional
        As in `power_spectrum`. The mean, k = 0, counts in a bin whose lower edge is 0.

    Returns
    -------
    k : (n_bins,) float64 array
        Mean |k| of the modes in each bin.
    chi2 : (n, n_bins) or (n_bins,) float64 array
    modes : (n_bins,) int array
        How many modes are in each bin, a mode and its conjugate counted as two. Bins without modes
        are left out.

    Raises
    ------
    ValueError
        If z is not fields, not real or not finite, or edges do not increase.

    Examples
    --------
    Noise of 20 % more power on small scales is noticed there:

    >>> import numpy as np, pyflow
    >>> power = lambda k: np.where(k < 20, 1, 1.2) / 1024
    >>> z = pyflow.fields.gaussian_field(power, (32, 32), 200, seed=1)
    >>> k, chi2, modes = pyflow.fields.chi_squared(z, bins=[0, 20, 60, np.inf])
    >>> deviation = (chi2 - modes) / np.sqrt(2 * modes)
    >>> (abs(deviation.mean(axis=0)) > 1).tolist()
    [False, True, True]
    """
    z, one = checked(z, "z")
    mesh = z.shape[1:]
    box = box_lengths(box_size, len(mesh))
    k, modes = (values.ravel() for values in wavenumbers(mesh, box))
    edges = _edges(bins, mesh, box)
    n_bins = len(edges) - 1
    where = np.digitize(k, edges) - 1
    inside = (where >= 0) & (where < n_bins)
    where, k, modes = where[inside], k[inside], modes[inside]
    count = np.bincount(where, modes, n_bins)
    chi2 = np.empty((len(z), n_bins))
    for field, row in zip(z, chi2, strict=True):
        square = np.abs(np.fft.rfftn(field.astype(np.float64))).ravel()[inside] ** 2
        row[:] = np.bincount(where, modes * square, n_bins) / field.size
    full = count > 0
    mean_k = np.bincount(where, modes * k, n_bins)[full] / count[full]
    chi2 = chi2[:, full]
    return mean_k, chi2[0] if one else chi2, count[full].astype(int)


def pdf(
    x: ArrayLike,
    bins: int | Sequence[float] = 50,
    limits: tuple[float, float] | None = None,
) -> tuple[Floats, Floats]:
    """Return the distribution of the pixels of all fields together.

    Parameters
    ----------
    x : (n, mesh) array-like, or (n0, n1)
    bins : int or sequence of float
        How many, or their edges.
    limits : (float, float), optional
        Where the bins begin and end. Default: the least and the most of x.

    Returns
    -------
    centre : (n_bins,) float64 array
    density : (n_bins,) float64 array
        Its integral over the bins is one.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).normal(size=(100, 16, 16))
    >>> centre, density = pyflow.fields.pdf(x, bins=[-0.5, 0.5])
    >>> centre.tolist(), density.tolist()
    ([0.0], [1.0])
    """
    x, _ = checked(x)
    x = x.astype(np.float64, copy=False)  # the edges are of the dtype of x
    density, edges = np.histogram(x, bins=bins, range=limits, density=True)
    return 0.5 * (edges[1:] + edges[:-1]), density


# ---- random fields -------------------------------------------------------------------------------


def _eigenvalues(power, mesh, box, axis):
    """Variance of every mode in units of white noise's: the covariance matrix's eigenvalues.

    They are P(k) N / V, or P(k, mu) N / V with an axis. The mean, k = 0, has the power of the
    lowest frequency, at mu = 0.
    """
    k, modes = wavenumbers(mesh, box)
    lowest = k[k > 0].min() if k.size > 1 else 1.0
    mu = () if axis is None else (cosines(mesh, box, axis),)
    k = np.where(k > 0, k, lowest)
    spectrum = np.asarray(power(k, *mu) if callable(power) else power, dtype=np.float64)
    if not callable(power) and spectrum.ndim:
        raise TypeError("power: must be a function of |k|, or a number")
    try:
        spectrum = np.broadcast_to(spectrum, np.broadcast_shapes(spectrum.shape, k.shape))
    except ValueError:
        raise ValueError(
            f"power: gives shape {spectrum.shape} for wave numbers of shape {k.shape}"
        ) from None
    if spectrum.ndim > k.ndim + 1:
        raise ValueError(f"power: gives {spectrum.ndim} dimensions, at most {k.ndim + 1} will do")
    if not (np.isfinite(spectrum).all() and (spectrum > 0).all()):
        raise ValueError("power: must be positive and finite at every |k| of the mesh")
    return spectrum * (np.prod(mesh, dtype=float) / np.prod(box)), modes


def _coloured(eigenvalues, mesh, n, seed):
    rng = _arguments.generator(seed)
    axes = tuple(range(1, len(mesh) + 1))
    white = rng.standard_normal((n, *mesh))
    return np.fft.irfftn(np.fft.rfftn(white, axes=axes) * np.sqrt(eigenvalues), mesh, axes)


def _count(n, eigenvalues, mesh):
    given = eigenvalues.shape[0] if eigenvalues.ndim > len(mesh) else None
    n = (1 if given is None else given) if n is None else _arguments.integer("n", n, 0)
    if given not in (None, n):
        raise ValueError(f"n: is {n}, but power gives {given} spectra")
    return n


def _normal(g, eigenvalues, modes):
    """Log-density of Gaussian fields g."""
    axes = tuple(range(1, g.ndim))
    square = np.abs(np.fft.rfftn(g, axes=axes)) ** 2 / np.prod(g.shape[1:], dtype=float)
    terms = square / eigenvalues + np.log(2 * np.pi * eigenvalues)
    return -0.5 * (modes * terms).sum(axis=axes)


def gaussian_field(
    power: Power,
    mesh: Sequence[int],
    n: int | None = None,
    *,
    box_size: Box = 1.0,
    seed: Seed = None,
    axis: int | None = None,
) -> Floats:
    """Draw Gaussian random fields of mean zero with a given power spectrum.

    Parameters
    ----------
    power : callable or float
        P(k) of an array of |k| > 0; or one number, white noise. It may also give one spectrum per
        field: an array of the shape of k, with an axis of length n before. The mean of the field,
        k = 0, is given the power of the lowest frequency. With an axis: P(k, mu) of arrays of |k|
        and of |mu| (mu = 0 for the mean).
    mesh : tuple of int
        Pixels along every axis, two or three.
    n : int, optional
        How many. Default: one per spectrum. The result has this axis even for one field.
    box_size : float or sequence of float
        Length of the axes.
    seed : int or numpy.random.Generator, optional
    axis : int, optional
        The line of sight, an axis of the mesh: mu = k_axis / |k|.

    Returns
    -------
    (n, mesh) float64 array

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = pyflow.fields.gaussian_field(lambda k: k**-2.0, (32, 32), 100, box_size=1.0, seed=1)
    >>> k, power, _ = pyflow.fields.power_spectrum(x)
    >>> bool(np.all(abs(power.mean(axis=0) * k**2 - 1) < 0.2))
    True
    """
    mesh = _mesh(mesh)
    eigenvalues, _ = _eigenvalues(power, mesh, box_lengths(box_size, len(mesh)), axis)
    return _coloured(eigenvalues, mesh, _count(n, eigenvalues, mesh), seed)


def gaussian_logp(
    x: ArrayLike,
    power: Power,
    box_size: Box = 1.0,
    *,
    axis: int | None = None,
    mask: ArrayLike | None = None,
    noise: ArrayLike | None = None,
) -> Floats | float:
    """Return the exact log-density of Gaussian random fields: see `gaussian_field`.

    The covariance matrix is diagonal in Fourier space with eigenvalues c = P(k) N / V, so that
    log p(x) = -1/2 sum_k [|F x|^2 / (N c) + log(2 pi c)], over all N modes. Under a mask, or with
    noise of a level of its own in every pixel, it is a dense matrix, whose Cholesky factor is made
    for each spectrum: seconds for some thousand pixels.

    Parameters
    ----------
    x : (n, mesh) array-like, or (n0, n1)
    power : callable or float
        As in `gaussian_field`.
    box_size : float or sequence of float
    axis : int, optional
        As in `gaussian_field`.
    mask : (*mesh) array-like of bool, optional
        True where the field is observed: the density is that of these pixels, and what stands in
        the others does not matter.
    noise : float or (*mesh) array-like, optional
        Standard deviation of independent Gaussian noise that x has beside the field.

    Returns
    -------
    (n,) float64 array, or float for one field
        In nats. With m spectra for one field: (m,).

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).normal(size=(8, 8))
    >>> logp = pyflow.fields.gaussian_logp(x, 1.0, box_size=8.0)  # white noise of unit variance
    >>> bool(np.isclose(logp, -0.5 * (x**2 + np.log(2 * np.pi)).sum()))
    True
    """
    if mask is not None:
        x = np.asarray(_arguments.rows(x, "x"))
        mask = window(mask, x.shape[-np.ndim(mask) :])
        x = np.where(mask, x, 0)
    x, one = checked(x)
    mesh = x.shape[1:]
    eigenvalues, modes = _eigenvalues(power, mesh, box_lengths(box_size, len(mesh)), axis)
    if mask is not None or noise is not None:
        sigma = _noise(noise, mesh)
        mask = np.ones(mesh, bool) if mask is None else window(mask, mesh)
        logp = _dense(x[:, mask].astype(np.float64, copy=False), eigenvalues, mask, sigma[mask])
        return float(logp[0]) if one and len(logp) == 1 else logp
    logp = _normal(x.astype(np.float64, copy=False), eigenvalues, modes)
    return float(logp[0]) if one and len(logp) == 1 else logp


def _noise(noise, mesh):
    """Return the noise's standard deviation in every pixel."""
    sigma = np.asarray(0.0 if noise is None else noise)
    if sigma.dtype.kind not in "iuf" or sigma.shape not in ((), tuple(mesh)):
        raise ValueError(f"noise: must be a number or a map of shape {tuple(mesh)}")
    if not (np.isfinite(sigma).all() and (sigma >= 0).all()):
        raise ValueError("noise: must be finite and not negative")
    return np.broadcast_to(sigma.astype(np.float64), mesh)


def _dense(x, eigenvalues, mask, sigma):
    """Log-density of the observed pixels x (n, pixels) of Gaussian fields with noise."""
    spectra = eigenvalues.reshape(-1, *eigenvalues.shape[-mask.ndim :])
    n = max(len(x), len(spectra))
    if 1 not in (len(x), len(spectra)) and len(x) != len(spectra):
        raise ValueError(f"power: gives {len(spectra)} spectra for {len(x)} fields")
    at = np.stack(np.nonzero(mask))
    apart = tuple((a[:, None] - a) % m for a, m in zip(at, mask.shape, strict=True))
    logp = np.empty(n)
    for i, one in enumerate(spectra):
        mine = x if len(spectra) == 1 else x[i : i + 1] if len(x) > 1 else x
        covariance = np.fft.irfftn(one, mask.shape, range(mask.ndim))[apart] + np.diag(sigma**2)
        root = np.linalg.cholesky(covariance)
        square = (np.linalg.solve(root, mine.T) ** 2).sum(axis=0)
        log_det = 2 * np.log(np.diag(root)).sum() + len(root) * np.log(2 * np.pi)
        logp[slice(None) if len(spectra) == 1 else slice(i, i + 1)] = -0.5 * (square + log_det)
    return logp


def _lognormal(power, mesh, box, axis):
    """Eigenvalues of the Gaussian field under a lognormal one, and its variance."""
    eigenvalues, modes = _eigenvalues(power, mesh, box, axis)
    axes = tuple(range(-len(mesh), 0))
    correlation = np.fft.irfftn(eigenvalues, mesh, axes)  # <x x'> of the lognormal field
    if not (correlation > -1).all():
        raise ValueError("power: no lognormal field has it: its correlation function reaches -1")
    gaussian = np.log1p(correlation)
    under = np.fft.rfftn(gaussian, axes=axes).real
    if not (under > 0).all():
        raise ValueError("power: no lognormal field has it: the Gaussian field's is not positive")
    variance = gaussian[(..., *[slice(0, 1)] * len(mesh))]
    return under, modes, variance


def lognormal_field(
    power: Power,
    mesh: Sequence[int],
    n: int | None = None,
    *,
    box_size: Box = 1.0,
    seed: Seed = None,
    axis: int | None = None,
) -> Floats:
    """Draw lognormal random fields x > -1 of mean zero with a given power spectrum.

    x = exp(g - s^2 / 2) - 1 for a Gaussian field g of variance s^2, whose correlation function is
    log(1 + that of x) (Coles & Jones 1991).

    Parameters
    ----------
    power, mesh, n, box_size, seed, axis
        As in `gaussian_field`. The power spectrum is that of x.

    Returns
    -------
    (n, mesh) float64 array

    Raises
    ------
    ValueError
        If no lognormal field has this power spectrum.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> power = lambda k: 0.002 / (1 + (k / 30) ** 2)
    >>> x = pyflow.fields.lognormal_field(power, (32, 32), 200, seed=1)
    >>> k, measured, _ = pyflow.fields.power_spectrum(x)
    >>> low = k > 10
    >>> bool(x.min() > -1), bool(np.all(abs(measured.mean(axis=0) / power(k) - 1)[low] < 0.3))
    (True, True)
    """
    mesh = _mesh(mesh)
    under, _, variance = _lognormal(power, mesh, box_lengths(box_size, len(mesh)), axis)
    return np.expm1(_coloured(under, mesh, _count(n, under, mesh), seed) - variance / 2)


def lognormal_logp(
    x: ArrayLike, power: Power, box_size: Box = 1.0, *, axis: int | None = None
) -> Floats | float:
    """Return the exact log-density of lognormal random fields: see `lognormal_field`.

    Parameters
    ----------
    x : (n, mesh) array-like, or (n0, n1)
    power : callable or float
        As in `lognormal_field`.
    box_size : float or sequence of float
    axis : int, optional
        As in `lognormal_field`.

    Returns
    -------
    (n,) float64 array, or float for one field
        In nats; -inf where a pixel is -1 or less.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> power = lambda k: 0.002 / (1 + (k / 30) ** 2)
    >>> x = pyflow.fields.lognormal_field(power, (16, 16), 5, seed=1)
    >>> pyflow.fields.lognormal_logp(x, power).shape
    (5,)
    """
    x, one = checked(x)
    mesh = x.shape[1:]
    under, modes, variance = _lognormal(power, mesh, box_lengths(box_size, len(mesh)), axis)
    inside = x.reshape(len(x), -1).min(axis=1) > -1
    safe = np.where(inside.reshape(-1, *[1] * len(mesh)), x.astype(np.float64, copy=False), 0)
    log = np.log1p(safe)
    logp = _normal(log + variance / 2, under, modes) - log.reshape(len(x), -1).sum(axis=1)
    logp = np.where(inside, logp, -np.inf)
    return float(logp[0]) if one and len(logp) == 1 else logp
