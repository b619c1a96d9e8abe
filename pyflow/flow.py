"""A flow: densities, samples, scores and posteriors of it, its file, and its training."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyflow import _arguments, _core, _dask, _many, _tables
from pyflow._arguments import integer, real, warn
from pyflow._blend import is_mixture, zero_outside
from pyflow._images import Images
from pyflow._notes import read_note
from pyflow._progress import counted
from pyflow.checks import Coverage, coverage, coverage_of_samples, simulations_of
from pyflow.layers import composed
from pyflow.posterior import Posterior, prior_of, warn_outside

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pyflow._progress import Progress
    from pyflow.layers import Layer

    Floats = NDArray[np.float64]
    Values = Floats | np.float64  # one for each point

__all__ = ["Flow", "load"]

HISTORY = ("epoch", "logp_train", "logp_validate", "distance")
NOISE = "noise"  # what the noise's standard deviation is called when it is a condition
TEMPERATURES = 1e-4, 1e2  # least and most that the core's calibration tries
FEW = 10  # conditions that say little of a temperature
LARGE = 1 << 18  # pixels of a field that the core's threads share, and that fills memory
FAR = 0.25  # of the range of training rows beyond it, where a likelihood is no more than a guess
WIDTH = 0.3  # of what is expected of a temperature's logarithm before simulations tell


def __dir__():
    return __all__


class _LogLikelihood(NamedTuple):
    """The function sum_i power log p(x_i|y, known) of (m, p) parameters y.

    Attributes
    ----------
    core : _core.Flow
    x : (n, *shape) array
    beside : dict
        The second fields of x, for a flow that is conditioned on them.
    known : (n_conditions,) array
        All conditions: what is known, and NaN for those that are y.
    power : float
    draws : int
    """

    core: _core.Flow
    x: NDArray[Any]
    beside: dict[str, NDArray[Any]]
    known: Floats
    power: float
    draws: int = 1

    def __call__(self, y: Floats) -> Floats:
        _many.check()
        conditions = np.tile(self.known, (len(y), 1))
        conditions[:, np.isnan(self.known)] = y
        if "autoregressive" in self.core.layers:  # its tables are not of y: many at a time
            x = np.tile(self.x, (len(y), 1))
            logs = self.core.evaluate_density(x, y=conditions.repeat(len(self.x), axis=0))
            return self.power * logs.reshape(len(y), -1).sum(axis=1)
        logs = self.core.evaluate_at(self.x, conditions, **self.beside, draws=self.draws)
        return self.power * logs.sum(axis=0)


class Flow:
    """A probability density p(x), or p(x|y), as a stack of invertible layers.

    The layers carry a point x to a latent point z that follows a unit Gaussian: log p(x) =
    log N(z; 0, I) + log|det dz/dx|. A point is a row of a table, of shape (d,), or a field on a
    periodic mesh, (n0, n1) or (n0, n1, n2). `GIS` and `SymmetricFlow` fit flows, `load` reads them,
    and `Flow([...])` composes one of layers that are the identity until `train` is called. Flows
    never change: they may be used from many threads at once, pickled, copied and compared.

    All methods take points as any array-like of real numbers of shape (n, *shape), or shape for a
    single one, and compute in the flow's own precision, `dtype`; a table with named columns is
    matched to those of the training data. Log-densities and log-determinants are float64, in nats
    and in the units of the data. What a conditional flow is conditioned on is `y`: for a flow of
    classes labels, one for all points or one for each; for other flows parameters, of shape (n, p),
    or (p,) for all points. A flow that was fitted with a second field c of each point, on the same
    mesh, is given it as `condition_field`, of shape (n, *shape), or shape for all points.

    Parameters
    ----------
    layers : sequence of `pyflow.layers` dataclasses
        In the order in which data pass through them.
    shape : int or tuple of int
        Shape of one point: the number of columns of a table, or a mesh of two or three axes.
    box_size : float or sequence of float
        Lengths of a mesh's axes, in the user's units.
    labels : sequence, optional
        The classes, for a flow of them: each has splines of its own in sliced layers.
    dtype : float32 or float64
    seed : int
        Of the random slices.

    Attributes
    ----------
    shape : tuple of int
        Shape of one point; (height, width, channels) of an image.
    dim : int
        How many numbers that is.
    box_size : tuple of float or None
        Lengths of a mesh's axes; None for tables.
    dtype : numpy.dtype
        float32 or float64.
    mask : numpy.ndarray of bool or None
        Where fields are observed: log p is the density of these pixels, and what stands in the
        others does not matter.
    k_range : (float, float) or None
        Least and most |k| of the modes that log p is the density of; None: of all.
    layers : tuple of str
        The kind of each layer, in the order in which data pass through them.
    slices : int
        One-dimensional splines of all sliced layers together.
    n_parameters : int
        Parameters of all layers and of the network that conditions them.
    columns : tuple of str or None
        Names of the columns of the table that the flow was fitted to.
    labels : numpy.ndarray or None
        The classes that the flow was fitted with, sorted.
    names : tuple of str
        What the parameters that the flow is conditioned on are called. Empty for p(x).
    y_range : (p, 2) float64 array
        Their least and most in training.
    condition_field : bool
        Whether the flow is p(x|c), or p(x|c, y), and every point needs a second field c.
    temperature : float
        Power of the likelihood in posteriors: 1 unless calibrated.
    calibration : dict or None
        What `calibrate` found: see the property.
    history : dict of str to numpy.ndarray
        What the fit recorded: see the property.
    unfinished : bool
        Whether it comes from a fit that ended early.

    Examples
    --------
    A flow for tables, and one for fields:

    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> flow = pyflow.GIS(x, max_layers=2, verbose=False)
    >>> flow.evaluate_density(x).shape
    (500,)
    >>> points, logp = flow.sample(3, seed=1)
    >>> points.shape
    (3, 2)

    >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (16, 16), 100, seed=1)
    >>> flow = pyflow.SymmetricFlow(x, epochs=2, verbose=False)
    >>> flow
    pyflow.Flow(shape=(16, 16), box_size=(1.0, 1.0), layers=6 (1 scale, 5 symmetric), ...)

    One composed by hand, and trained:

    >>> from pyflow.layers import Affine, Sliced
    >>> x = np.random.default_rng(0).gamma(2, size=(400, 2))
    >>> flow = pyflow.Flow([Affine.whitening(x), Sliced(2, 8), Sliced(2, 8)], shape=2)
    >>> trained = flow.train(x, epochs=5, verbose=False)
    >>> bool(trained.evaluate_density(x).mean() > flow.evaluate_density(x).mean())
    True
    """

    __slots__ = ("_core", "_labels", "_note")

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        shape: int | Sequence[int],
        box_size: float | Sequence[float] = 1.0,
        labels: ArrayLike | None = None,
        dtype: Any = np.float64,
        seed: int | None = 0,
    ):
        classes = None if labels is None else np.unique(_arguments.labels(labels, "labels"))
        core = composed(layers, shape, box_size, classes, dtype, _arguments.seed(seed))
        if classes is not None and not len(classes):
            raise ValueError("labels: there are none")
        note = {} if classes is None else {"labels": classes.tolist()}
        self._set(core.with_note(json.dumps(note)))

    def _set(self, core):
        self._core = core
        self._note, self._labels = read_note(core)

    @classmethod
    def _of(cls, core: _core.Flow) -> Flow:
        """Wrap what the core has made."""
        flow = cls.__new__(cls)
        flow._set(core)
        return flow

    # ---- what it is ------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one point: (d,), a mesh, or (height, width, channels) of an image.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> images = np.random.default_rng(0).integers(0, 256, (200, 4, 4), dtype=np.uint8)
        >>> pyflow.SIG(images, max_layers=1, verbose=False).shape
        (4, 4, 1)
        """
        return tuple(self._note.get("image_shape", self._core.shape))

    dim = property(lambda self: self._core.dim)
    box_size = property(lambda self: self._core.box)
    dtype = property(lambda self: self._core.dtype)
    mask = property(lambda self: self._core.mask)
    k_range = property(lambda self: self._core.k_range)
    layers = property(lambda self: self._core.layers)
    slices = property(lambda self: self._core.slices)
    n_parameters = property(lambda self: self._core.n_parameters)
    temperature = property(lambda self: self._core.temperature)
    condition_field = property(lambda self: self._core.condition_field)
    y_range = property(lambda self: self._core.range.T.copy())

    @property
    def unfinished(self) -> bool:
        """Whether it comes from a fit that ended early: from a checkpoint, or from an exception."""
        return bool(self._note.get("unfinished")) or self._core.unfinished

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the columns of the table that the flow was fitted to, if they had names."""
        columns = self._note.get("columns")
        return None if columns is None else tuple(columns)

    @property
    def labels(self) -> NDArray[Any] | None:
        """The classes that the flow was fitted with, sorted; None without.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(300, 1))
        >>> colour = np.where(x[:, 0] > 0, "red", "blue")
        >>> pyflow.GIS(x, labels=colour, max_layers=1, verbose=False).labels
        array(['blue', 'red'], dtype='<U4')
        """
        return None if self._labels is None else self._labels.copy()

    @property
    def names(self) -> tuple[str, ...]:
        """What the parameters that the flow is conditioned on are called.

        Examples
        --------
        >>> import pyflow
        >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 10, seed=1)
        >>> pyflow.SymmetricFlow(x, epochs=0, verbose=False).names
        ()
        """
        return tuple(self._note.get("names") or [f"y{j}" for j in range(self._core.n_conditions)])

    @property
    def calibration(self) -> dict[str, Any] | None:
        """What the temperature gained on the points that it was fitted to.

        Returns
        -------
        dict or None
            `points`, `simulations`: how many; `before`, `after`: mean log p(y|x) / prior(y), in
            nats per point, at temperature 1 and at the flow's; `best`: the temperature before it
            was shrunk, and `error`, the standard error of its logarithm, at most 13.8. None for a
            flow that is not calibrated. Flows of older files have no simulations, best and error.

        Examples
        --------
        See `calibrate`.
        """
        found = self._note.get("calibration")
        return None if found is None else dict(found)

    @property
    def history(self) -> dict[str, Floats]:
        """What the fit recorded after each layer, or after each epoch of training.

        Returns
        -------
        dict of str to (steps,) float64 array
            `epoch`: its number, 0 for a layer; `logp_train`, `logp_validate`: mean log p of the
            training and the validation data, in nats: of a row, or, for fields, of a pixel (NaN
            without validation data, and for SIG); of an epoch, log p of the training data is that
            of every batch before its step; `distance`: for layers of GIS, the root-mean-square
            sliced Wasserstein distance of the data from a unit Gaussian along the layer's slices,
            before the layer (else NaN); of SIG, of the sample from the data, in the order in which
            layers were fitted, the last of which data pass first.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).gamma(2, size=(500, 2))
        >>> history = pyflow.GIS(x, max_layers=2, verbose=False).history
        >>> bool(np.all(np.diff(history["logp_train"]) > 0))
        True

        >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 10, seed=1)
        >>> pyflow.SymmetricFlow(x, epochs=3, verbose=False).history["epoch"]
        array([1., 2., 3.])
        """
        return dict(zip(HISTORY, self._core.history().T.copy(), strict=True))

    def __len__(self) -> int:
        return self._core.n_layers

    def __getitem__(self, key: slice) -> Flow:
        """Return the flow of the first k layers, flow[:k]."""
        if not isinstance(key, slice):
            raise TypeError("a flow is cut with a slice: flow[:k] has its first k layers")
        start, stop, step = key.indices(len(self))
        if start != 0 or step != 1:
            raise ValueError("only the first layers make a flow: flow[:k]")
        core = self._core.truncate(stop)
        if stop < len(self):  # what is said of the whole is not said of a part
            drop = {"calibration", "fit"} if core.n_conditions else {"calibration", "fit", "names"}
            note = {k: v for k, v in self._note.items() if k not in drop}
            core = core.with_note(json.dumps(note))
        return Flow._of(core)

    __iter__ = None

    def __repr__(self) -> str:
        kinds = ", ".join(f"{self.layers.count(k)} {k}" for k in dict.fromkeys(self.layers))
        parts = [f"shape={self.shape}"]
        if self.box_size is not None:
            parts.append(f"box_size={self.box_size}")
        parts.append(f"layers={len(self)}" + (f" ({kinds})" if kinds else ""))
        parts.append(f"parameters={self.n_parameters}")
        parts += self._told()
        for name in ("logp_train", "logp_validate"):
            reached = self._reached(name)
            if reached is not None:
                parts.append(f"{name}={reached:.4g}")
        if self.unfinished:
            parts.append("unfinished")
        return f"pyflow.Flow({', '.join(parts)})"

    def _repr_html_(self) -> str:
        from pyflow import _html

        return _html.of_flow(self)

    def _reached(self, name):
        """Return what the fit reached of the history's log p of this name, or None."""
        values = self.history[name]
        if not len(values) or not np.isfinite(values[-1]):
            return None
        return np.nanmax(values) if self.history["epoch"][-1] else values[-1]

    def _told(self):
        """Return what `repr` says of conditions, precision and temperature."""
        parts = []
        if self.names:
            parts.append(f"y=({', '.join(self.names)})")
        if self.condition_field:
            parts.append("condition_field")
        if self._labels is not None:
            parts.append(f"classes={len(self._labels)}")
        parts.append(f"dtype={self.dtype}")
        if self.temperature != 1:
            parts.append(f"temperature={self.temperature:.3g}")
        if self.calibration:
            gain = "calibration={before:.3f} to {after:.3f} nats, {points} points"
            parts.append(gain.format(**self.calibration))
        return parts

    # ---- arguments -------------------------------------------------------------------------------

    def _points(self, x, name="x"):
        """Return points as the core reads them, and how many they are."""
        x = self._flat(_arguments.rows(_tables.matched(x, name, self.columns), name))
        return x, self._count(x, name)

    def _flat(self, x):
        """Return images as the rows that they are to the core; an only channel needs no axis."""
        shape = self._note.get("image_shape")
        if shape is None or (len(x.shape) <= 2 and x.shape[-1:] == (self.dim,)):
            return x
        for image in (tuple(shape), tuple(shape[:2]))[: 1 + (shape[2] == 1)]:
            if x.shape[-len(image) :] == image and len(x.shape) - len(image) in (0, 1):
                return np.reshape(x, (*x.shape[: -len(image)], self.dim))
        return x

    def _shaped(self, x, shape):
        """Return rows as the images that they were given as."""
        return x.reshape(shape) if "image_shape" in self._note else x

    def _count(self, x, name):
        """Return how many points x holds, which has an axis for that, or not for a single one."""
        axes = len(x.shape) - len(self._core.shape)
        if axes not in (0, 1):
            one = ", ".join(map(str, self.shape))
            comma = "," if len(self.shape) == 1 else ""
            raise ValueError(
                f"{name}: must have shape (n, {one}), or ({one}{comma}) for a single point; "
                f"its shape is {x.shape}"
            )
        return x.shape[0] if axes else 1

    def _beside(self, c, n, name="condition_field"):
        """Return the second fields of n points, for the core: a dict."""
        if not self.condition_field:
            if c is not None:
                raise ValueError(f"{name}: this flow was fitted without")
            return {}
        shape = self._core.shape
        if c is None:
            raise ValueError(
                f"{name}: this flow needs a second field of shape {shape} for each point"
            )
        c = np.asarray(_arguments.rows(c, name))
        if c.shape == shape:
            c = np.broadcast_to(c, (n, *shape))
        if c.shape != (n, *shape):
            raise ValueError(
                f"{name}: must have shape {(n, *shape)}, a field for each point, or {shape} for "
                f"all; its shape is {c.shape}"
            )
        return {name: c}

    def _conditions(self, y, n, condition_field=None):
        """Return what the core is to be told of n points beside them: a dict."""
        return self._parametric(y, n) | self._beside(condition_field, n)

    def _parametric(self, y, n):
        if y is None:
            if self._core.n_conditions:
                raise ValueError(f"y: this flow is conditional; it needs {', '.join(self.names)}")
            if self._labels is not None:
                raise ValueError(
                    "y: this flow was fitted with labels, and needs one for each point"
                )
            return {}
        if self._labels is not None:
            label = _arguments.labels(y, "y")
            index = _arguments.classes(self._labels, label, "y", "the flow's labels")
            if index.shape not in ((), (n,)):
                raise ValueError(
                    f"y: must have shape ({n},), or be a single label; its shape is {index.shape}"
                )
            return {"labels": np.full(n, index) if index.ndim == 0 else index}
        p = self._core.n_conditions
        if not p:
            raise ValueError("y: this flow was fitted without")
        y = parameters_of(_tables.matched(y, "y", self.names), "y", p, n)
        if y.size:
            self._warn_outside(y)
        return {"y": y}

    def _warn_outside(self, y):
        """Warn where y (n, p), the first p conditions, reaches beyond the training range."""
        p = y.shape[1]
        reach = np.stack([y.min(axis=0), y.max(axis=0)], axis=1)
        warn_outside(self.names[:p], *self._core.range[:, :p], reach, "y")

    def _lazily(self, y, condition_field):
        """Return what is beside the points of a Dask array, and the shape of that of one point."""
        found = {}
        if y is not None:
            labelled, p = self._labels is not None, self._core.n_conditions
            if not labelled and not p:
                raise ValueError("y: this flow was fitted without")
            if not _dask.is_lazy(y):
                y = _tables.matched(y, "y", None if labelled else self.names)
                y = np.asarray(_arguments.labels(y, "y") if labelled else _arguments.rows(y, "y"))
            found["y"] = y, () if labelled else (p,)
        if condition_field is not None:
            if not self.condition_field:
                raise ValueError("condition_field: this flow was fitted without")
            if not _dask.is_lazy(condition_field):
                condition_field = np.asarray(_arguments.rows(condition_field, "condition_field"))
            found["condition_field"] = condition_field, tuple(self._core.shape)
        return found

    # ---- densities and samples -------------------------------------------------------------------

    @_tables.naming_columns
    def evaluate_density(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        condition_field: ArrayLike | None = None,
        draws: int = 1,
        seed: int | None = 0,
    ) -> Values:
        """Return the log-density of points.

        Parameters
        ----------
        x : (n, *shape) or shape array-like of real numbers
            They are taken as they are: images of whole numbers that the fit added noise to want it
            here too, as `bits_per_dimension` adds it. Of a Dask array a Dask array is returned,
            which has a block for each block of points.
        y : optional
            For a conditional flow: parameters (n, p) or (p,), or labels (n,) or a single one. A
            warning names a parameter that lies outside of the training range.
        condition_field : (n, *shape) or shape array-like, optional
            For a flow that was fitted with one: the second field of each point, or of all.
        draws : int
            For a flow with a mask, a noise map or a range of |k|, whose unobserved or noisier
            pixels, or other modes, are drawn:
            log p is the log of the mean of p over so many draws. More are more exact. They are the
            same for all points, so that a density does not depend on others: errors of many points
            have a part in common, which their mean keeps. (`posterior` has others for each point.)
        seed : int or None
            Of the draws.

        Returns
        -------
        (n,) float64 array, or float for a single point
            log p(x) or log p(x|y) in nats; -inf outside the flow's bounds.

        Raises
        ------
        ValueError
            If x has another shape, is not real or not finite, or y is missing, unknown or of
            another width.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(2000, 1))
        >>> flow = pyflow.GIS(x, max_layers=1, verbose=False)
        >>> float(flow.evaluate_density([0.0]))  # -log(2 pi) / 2 = -0.919
        -0.9...

        >>> x = pyflow.fields.gaussian_field(1.0, (8, 8), 200, box_size=8.0, seed=1)
        >>> flow = pyflow.SymmetricFlow(x, box_size=8.0, epochs=5, verbose=False)
        >>> exact = pyflow.fields.gaussian_logp(x, 1.0, box_size=8.0)
        >>> bool(abs((flow.evaluate_density(x) - exact).mean()) < 3)
        True
        """
        how = {"draws": integer("draws", draws, 1), "seed": _arguments.seed(seed)}
        if _dask.is_lazy(x):
            ask = partial(self.evaluate_density, **how)
            beside = self._lazily(y, condition_field)
            return _dask.of_blocks(ask, x, self.shape, False, np.float64, beside)
        x, n = self._points(x)
        return self._core.evaluate_density(x, **self._conditions(y, n, condition_field), **how)

    def bits_per_dimension(
        self, x: ArrayLike, y: ArrayLike | None = None, *, seed: int | None = 0
    ) -> Values:
        """Return the bits that a flow of images needs for each number of an image.

        Parameters
        ----------
        x : (n, *shape) or shape array-like
            Images as the flow was fitted to. Where the fit added noise to whole numbers
            (`dequantize`), whole numbers get it here too, so that the bits bound those of the whole
            numbers from above (Theis et al. 2016, arXiv 1511.01844).
        y : optional
            As in `evaluate_density`.
        seed : int or None
            Of the noise.

        Returns
        -------
        (n,) float64 array, or float for a single image
            -log2 p(x) / dim.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> images = np.random.default_rng(0).integers(0, 256, (500, 4, 4), dtype=np.uint8)
        >>> flow = pyflow.GIS(images, image_shape=(4, 4), max_layers=2, verbose=False)
        >>> bool(abs(flow.bits_per_dimension(images).mean() - 8) < 0.5)  # of uniform noise
        True
        """
        x, n = self._points(x)
        x, seed = np.asarray(x), _arguments.seed(seed)
        if self._note.get("dequantized") and (x == np.floor(x)).all():
            rows = Images(x.reshape(n, self.dim), True, seed, "x", self.dtype)
            x = rows[:].reshape(x.shape)
        return self.evaluate_density(x, y) / (-np.log(2) * self.dim)

    @_tables.naming_columns
    def sample(
        self,
        n: int,
        y: ArrayLike | None = None,
        seed: int | None = None,
        *,
        condition_field: ArrayLike | None = None,
    ) -> tuple[NDArray[Any], Floats]:
        """Draw a sample, and its log-densities.

        Parameters
        ----------
        n : int
            Number of points, 0 or more.
        y : optional
            For a conditional flow: what to draw, as in `evaluate_density`.
        seed : int or numpy.random.Generator, optional
            0 <= seed < 2**64. Point i is made of latent noise that depends on (seed, i) alone: a
            longer sample begins with the shorter one, and other y give the same noise in other
            worlds. None draws a new sample every time: what is drawn is fresh unless a seed is
            given, where a fit is the same unless another is.
        condition_field : (n, *shape) or shape array-like, optional
            For a flow that was fitted with one: n fields, for a draw of each, or one, for n draws.

        Returns
        -------
        x : (n, *shape) array of the flow's dtype
            NaN in pixels that are not observed.
        logp : (n,) float64 array

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> flow = pyflow.GIS(x, max_layers=2, verbose=False)
        >>> a, logp = flow.sample(100, seed=1)
        >>> b, _ = flow.sample(10, seed=1)
        >>> bool((a[:10] == b).all()), bool(np.allclose(flow.evaluate_density(a), logp))
        (True, True)
        """
        n = integer("n", n, 0)
        known = self._conditions(y, n, condition_field)
        x, logp = self._core.sample(n, **known, seed=_arguments.seed(seed))
        if self.mask is not None or self.k_range is not None:  # whatever was drawn of the others
            logp = self._core.evaluate_density(x, **known)
        return x.reshape(n, *self.shape), logp

    @_tables.naming_columns
    def forward(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        condition_field: ArrayLike | None = None,
    ) -> tuple[NDArray[Any], Values]:
        """Carry points to the latent space, where they follow a unit Gaussian.

        Parameters
        ----------
        x, y, condition_field
            As in `evaluate_density`.

        Returns
        -------
        z : array of the shape of x and the flow's dtype
        logj : (n,) float64 array, or float for a single point
            log|det dz/dx|; for a flow with a mask or a range of |k| less the log-density of what
            was drawn in pixels that are not observed, where `inverse` leaves NaN, or in other
            modes, of which it leaves nothing.

        Raises
        ------
        ValueError
            As `evaluate_density`, and for points outside the flow's bounds.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).gamma(2, size=(500, 2))
        >>> flow = pyflow.GIS(x, max_layers=2, verbose=False)
        >>> z, logj = flow.forward(x)
        >>> back, minus_logj = flow.inverse(z)
        >>> bool(np.allclose(back, x)), bool(np.allclose(logj, -minus_logj))
        (True, True)
        """
        shape = np.shape(x)
        x, n = self._points(x)
        z, logj = self._core.forward(x, **self._conditions(y, n, condition_field))
        return self._shaped(z, shape), logj

    def inverse(
        self,
        z: ArrayLike,
        y: ArrayLike | None = None,
        *,
        condition_field: ArrayLike | None = None,
    ) -> tuple[NDArray[Any], Values]:
        """Carry latent points to data: the inverse of `forward`.

        Pixels that a flow with a mask does not observe are NaN. Where its noise is a map, noise is
        drawn for the noisier pixels, anew for every row, and the way back gives other z there.

        Parameters
        ----------
        z : (n, *shape) or shape array-like of real numbers
        y, condition_field : optional
            As in `evaluate_density`.

        Returns
        -------
        x : array of the shape of z and the flow's dtype
        logj : (n,) float64 array, or float for a single point
            log|det dx/dz|.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(3, size=(500, 2))
        >>> flow = pyflow.GIS(x, max_layers=2, verbose=False)
        >>> centre, _ = flow.inverse(np.zeros(2))
        >>> bool(np.all(abs(centre - 3) < 0.3))
        True
        """
        shape = np.shape(z)
        z = self._flat(_arguments.rows(z, "z"))
        n = self._count(z, "z")
        x, logj = self._core.inverse(z, **self._conditions(y, n, condition_field))
        return self._shaped(x, shape), logj

    @_tables.naming_columns
    def score(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        condition_field: ArrayLike | None = None,
        with_logp: bool = False,
        outside: str = "raise",
    ) -> Any:
        """Return the gradient of the log-density, for Hamiltonian Monte Carlo and the like.

        Parameters
        ----------
        x, y, condition_field
            As in `evaluate_density`.
        with_logp : bool
            Return log p too: it costs nothing more.
        outside : {"raise", "zero"}
            What becomes of points outside the flow's bounds: a ValueError, or a score of zero and
            log p = -inf, as a sampler wants that steps over a bound and is sent back.

        Returns
        -------
        score : array of the shape of x and the flow's dtype
            d log p / dx; 0 in pixels that are not observed. Of a flow with a mask or a range of
            |k|, that of the first draw.
        logp : (n,) float64 array, or float for a single point
            If with_logp.

        Raises
        ------
        ValueError
            As `forward`; with outside="zero" not for points outside the bounds.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(2000, 1))
        >>> flow = pyflow.GIS(x, max_layers=1, bounds=[(-9, 9)], verbose=False)
        >>> bool(flow.score([1.0])[0] < 0 < flow.score([-1.0])[0])
        True
        >>> flow.score([10.0], outside="zero", with_logp=True)
        (array([0.]), np.float64(-inf))
        """
        if _dask.is_lazy(x):
            ask = partial(self.score, outside=_known_outside(outside))
            beside = self._lazily(y, condition_field)
            score = _dask.of_blocks(ask, x, self.shape, True, self.dtype, beside)
            if not with_logp:
                return score
            return score, self.evaluate_density(x, y, condition_field=condition_field)
        shape = np.shape(x)
        x, n = self._points(x)
        known = self._conditions(y, n, condition_field)
        score, logp = self._gradient("score", x, known, outside)
        score = self._shaped(score, shape)
        return (score, logp) if with_logp else score

    def _gradient(self, question, x, known, outside):
        """Return a score that the core is asked for, and log p: see `score` of points outside."""
        if _known_outside(outside) == "zero":
            return zero_outside(self._core, question, x, known)
        return getattr(self._core, question)(x, **known)

    @_tables.naming_columns
    def score_parameters(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        condition_field: ArrayLike | None = None,
        with_logp: bool = False,
        outside: str = "raise",
    ) -> Any:
        """Return d log p(x|y) / dy: for Fisher information and Hamiltonian Monte Carlo.

        Parameters
        ----------
        x, y, condition_field
            As in `evaluate_density`; y are parameters.
        with_logp : bool
            Return log p too: it costs nothing more.
        outside : {"raise", "zero"}
            As in `score`: what becomes of points x outside the flow's bounds.

        Returns
        -------
        score : (n, p) float64 array, or (p,) for a single point
        logp : (n,) float64 array, or float for a single point
            If with_logp.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> y = np.random.default_rng(0).uniform(0.5, 2, 100)
        >>> x = pyflow.fields.gaussian_field(lambda k: y[:, None, None] / k, (8, 8), seed=1)
        >>> flow = pyflow.SymmetricFlow(x, y_train=y, hidden=(8, 8), epochs=2, verbose=False)
        >>> flow.score_parameters(x, y).shape
        (100, 1)
        """
        if not self._core.n_conditions:
            raise ValueError("y: this flow was fitted without")
        x, n = self._points(x)
        known = self._conditions(y, n, condition_field)
        score, logp = self._gradient("score_parameters", x, known, outside)
        return (score, logp) if with_logp else score

    # ---- posteriors ------------------------------------------------------------------------------

    @_tables.naming_columns
    def posterior(
        self,
        x: ArrayLike,
        prior: ArrayLike | Callable[[Floats], ArrayLike] | Mapping[str, Any] | Any = None,
        *,
        bounds: ArrayLike | None = None,
        temperature: float | None = None,
        noise: float | None = None,
        draws: int = 1,
        fixed: Mapping[str, float] | None = None,
        method: str | None = None,
        grid: int | None = None,
        seed: int | None = 0,
        steps: int | None = None,
        condition_field: ArrayLike | None = None,
    ) -> Posterior:
        """Return the posterior of the parameters, p(y|x) ~ p(x|y)^temperature p(y).

        Parameters
        ----------
        x : (n, *shape) or shape array-like
            One point, or several that share one y.
        prior : optional
            Lower and upper bounds of a uniform prior, (p, 2); a function of (m, p) points that
            gives their log-densities, (m,), or a number for all; a frozen distribution of scipy's,
            or whatever has `logpdf`: one of all parameters, or a list of one for each; or a dict
            that gives parameters, by name, a distribution or (low, high). Default, of parameters
            that a dict leaves out, too: uniform over the training range. A warning names a
            parameter for which it is wider than that, or a distribution of which the training range
            cuts off more than 1 %.
        bounds : (p, 2) array-like, optional
            For functions and distributions: where to look; the prior is zero outside. Default: the
            training range. Of a function that is -inf but for a small part of it they must be near
            that part: what is too narrow to be found is an error, or a warning.
        temperature : float, optional
            Default: the flow's own, 1 unless it is calibrated. 0.5 widens a Gaussian posterior by
            the square root of two.
        noise : float, optional
            For a flow that the noise is a condition of: its standard deviation, which is known.
        draws : int
            For a flow with a mask or a range of |k|: see `evaluate_density`.
        fixed : dict of str to float, optional
            Other conditions that are known, by name, such as the mean number of galaxies in a
            pixel. The posterior, and the prior, are of the remaining ones, in their order.
            (`calibrate`, and training with objective="posterior", take them for parameters.)
        method, grid, seed, steps : optional
            See `Posterior`: up to three parameters are integrated on a grid, more are sampled by
            emcee.
        condition_field : optional
            As in `evaluate_density`: the posterior is p(y|x, c).

        Returns
        -------
        Posterior

        Raises
        ------
        ValueError
            Among others, for a flow without conditions.
        ImportError
            For more than three parameters, if emcee is missing.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> y = np.random.default_rng(0).uniform(0.5, 2, 300)
        >>> power = lambda k: y[:, None, None] / k
        >>> x = pyflow.fields.gaussian_field(power, (16, 16), box_size=16.0, seed=1)
        >>> flow = pyflow.SymmetricFlow(x, y_train=y, box_size=16.0, names=["amplitude"],
        ...     n_layers=1, filter_knots=16, hidden=(32, 32), epochs=10, verbose=False)
        >>> post = flow.posterior(x[0], prior=[(0.5, 2.0)])
        >>> bool(abs(post.mean[0] / y[0] - 1) < 0.4)
        True

        With the depth of a survey, `nbar`, as a condition beside it, which is known of every map:

        >>> y = np.random.default_rng(0).uniform(0.5, 2, (300, 2))
        >>> power = lambda k: y[:, 0, None, None] / k + 1 / y[:, 1, None, None]
        >>> x = pyflow.fields.gaussian_field(power, (16, 16), box_size=16.0, seed=1)
        >>> flow = pyflow.SymmetricFlow(x, y_train=y, box_size=16.0, names=["amplitude", "nbar"],
        ...     n_layers=1, filter_knots=16, hidden=(32, 32), epochs=10, verbose=False)
        >>> flow.posterior(x[0], prior=[(0.5, 2.0)], fixed={"nbar": y[0, 1]}).names
        ('amplitude',)
        """
        if not self._core.n_conditions:
            raise ValueError("posterior: this flow was fitted without y")
        p, _ = self._parameters()
        if not p:
            raise ValueError("posterior: this flow was fitted without y, but for the noise")
        x, n = self._points(x)
        if not n:
            raise ValueError("x: is empty")
        beside = self._beside(condition_field, n)
        x = np.asarray(x).reshape(n, *self.shape) if np.size(x) == n * self.dim else x
        known = self._known(noise, fixed)
        free = np.flatnonzero(np.isnan(known))
        names, (least, most) = [self.names[j] for j in free], self._core.range[:, free]
        box, log_prior = prior_of(prior, bounds, names, np.stack([least, most], axis=1))
        warn_outside(names, least, most, box, "prior")
        power = self.temperature if temperature is None else real("temperature", temperature)
        if not power > 0:
            raise ValueError(f"temperature: must be positive, not {power}")

        log_density = _LogLikelihood(
            self._core, x, beside, known, power, integer("draws", draws, 1)
        )
        if not _many.asked():  # of many maps all are warned of once
            self._warn_x(x)
        if len(self.shape) == 1 and np.isneginf(log_density(box.mean(axis=1)[None]))[0]:
            conditions = known.copy()
            conditions[free] = box.mean(axis=1)
            one = getattr(self, "members", [self])[0]
            one.forward(x, conditions)  # refuses what lies out of bounds, by its number
        how = {"method": method, "grid": grid, "seed": seed, "steps": steps}
        return Posterior(log_density, box, names, log_prior=log_prior, **how)

    def posteriors(
        self,
        x: ArrayLike,
        prior: ArrayLike | Callable[[Floats], ArrayLike] | Mapping[str, Any] | Any = None,
        *,
        bounds: ArrayLike | None = None,
        temperature: float | None = None,
        noise: ArrayLike | None = None,
        draws: int = 1,
        fixed: Mapping[str, ArrayLike] | None = None,
        method: str | None = None,
        grid: int | None = None,
        seed: int | None = 0,
        steps: int | None = None,
        condition_field: ArrayLike | None = None,
        verbose: bool = True,
    ) -> list[Posterior]:
        """Return the posterior of each of many maps: those of `posterior`, bit for bit.

        As many maps at a time as there are threads (`pyflow.set_num_threads`), in threads of
        Python's: a prior that is a function must bear to be called from several.

        Parameters
        ----------
        x : (n, *shape) array-like
            Maps, each with a y of its own.
        prior, bounds, temperature, draws, method, grid, steps : optional
            As in `posterior`, of all maps.
        noise, fixed : optional
            As in `posterior`; their values may also be of shape (n,), one for each map.
        seed : int, optional
            As in `posterior`, the same for each map.
        condition_field : (n, *shape) or shape array-like, optional
            For a flow that sees a second field of each map.
        verbose : bool, optional
            Show on stderr how many are done, if it takes more than some seconds.

        Returns
        -------
        list of Posterior

        Raises
        ------
        ValueError, ImportError
            As `posterior`; a note with the exception says which map it is of.
        KeyboardInterrupt
            On Ctrl-C, within a second or so.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> y = np.random.default_rng(0).uniform(0.5, 2, 300)
        >>> power = lambda k: y[:, None, None] / k
        >>> x = pyflow.fields.gaussian_field(power, (16, 16), box_size=16.0, seed=1)
        >>> flow = pyflow.SymmetricFlow(x, y_train=y, box_size=16.0, names=["amplitude"],
        ...     n_layers=1, filter_knots=16, hidden=(32, 32), epochs=10, verbose=False)
        >>> posts = flow.posteriors(x[:20], prior=[(0.5, 2.0)])
        >>> mean = np.array([post.mean[0] for post in posts])
        >>> bool(np.corrcoef(mean, y[:20])[0, 1] > 0.8)
        True
        >>> bool(mean[3] == flow.posterior(x[3], prior=[(0.5, 2.0)]).mean[0])
        True
        """
        if not self._parameters()[0]:
            raise ValueError("posteriors: this flow was fitted without y")
        x, n = self._simulated(x)
        noise, fixed = self._each("noise", noise, n), self._each_fixed(fixed, n)
        beside = self._beside(condition_field, n)
        how = {"bounds": bounds, "temperature": temperature, "draws": draws}
        how |= {"method": method, "grid": grid, "steps": steps}
        return list(self._posteriors(x, n, prior, noise, fixed, beside, seed, how, verbose))

    def _warn_x(self, x):
        """Warn of observed rows far outside of the rows that a likelihood was fitted to."""
        known = self._note.get("x_range")
        if known is not None and len(x):
            names = self.columns or [f"column {j}" for j in range(self.dim)]
            seen = np.stack([np.min(x, axis=0), np.max(x, axis=0)], axis=1)
            warn_outside(names, *np.transpose(known), seen, "x", FAR)

    def _known(self, noise, fixed):
        """Return all conditions (n_conditions,) for a posterior, NaN where they are not known."""
        p, noisy = self._parameters()
        known = np.full(self._core.n_conditions, np.nan)
        if noisy:
            if noise is None:
                raise ValueError("noise: this flow needs its standard deviation")
            known[p] = real("noise", noise)
            if known[p] < 0:
                raise ValueError(f"noise: must be a standard deviation >= 0, not {noise!r}")
        elif noise is not None:
            raise ValueError("noise: is no condition of this flow")
        if not isinstance(fixed, Mapping | None):
            raise TypeError(f"fixed: must be a dict of names and numbers, not {fixed!r}")
        for name, value in (fixed or {}).items():
            if name not in self.names[:p]:
                raise ValueError(
                    f"fixed: {name!r} is none of the parameters {', '.join(self.names[:p])}"
                )
            known[self.names.index(name)] = real("fixed", value)
        if not np.isnan(known).any():
            raise ValueError("fixed: all parameters are known, and a posterior has none")
        for j in np.flatnonzero(~np.isnan(known)):
            what = "noise" if j == p else "fixed"
            warn_outside(self.names[j:][:1], *self._core.range[:, [j]], [known[[j, j]]], what)
        return known

    def check(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        simulation: ArrayLike | None = None,
        prior: ArrayLike | Callable[[Floats], ArrayLike] | None = None,
        temperature: float | None = None,
        noise: ArrayLike | None = None,
        fixed: Mapping[str, ArrayLike] | None = None,
        draws: int = 1,
        condition_field: ArrayLike | None = None,
        seed: int | None = 0,
        verbose: bool = True,
    ) -> Coverage:
        """Return how often posteriors of held-out simulations hold their truths.

        Coverage of the smallest regions, ranks of the truths (Talts et al. 2018, arXiv 1804.06788)
        and TARP (Lemos et al. 2023, arXiv 2302.03026), from one posterior for each map. They say
        something of truths that are draws from the prior, of maps that neither training nor
        `calibrate` have seen.

        Parameters
        ----------
        x : (n, *shape) array-like of real numbers
        y : (n, p) array-like
            Their true parameters, without those of `fixed`; shape (n,) for a single one.
        simulation : (n,) array-like, optional
            Labels of the simulations that maps are of: all maps of one count once. Default: equal
            rows of y are one simulation.
        prior, temperature, draws, condition_field, seed : optional
            As in `posterior`.
        noise, fixed : optional
            As in `posterior`; their values may also be of shape (n,), one for each map.
        verbose : bool, optional
            Show on stderr how many are done, if it takes more than some seconds.

        Returns
        -------
        Coverage
            What it says in plain words is its text; `plot()` draws it.

        Warns
        -----
        UserWarning
            If truths lie outside of the prior.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> y = np.random.default_rng(0).uniform(0.5, 2, 300)
        >>> power = lambda k: y[:, None, None] / k
        >>> x = pyflow.fields.gaussian_field(power, (16, 16), box_size=16.0, seed=1)
        >>> flow = pyflow.SymmetricFlow(x[:250], y_train=y[:250], box_size=16.0, n_layers=1,
        ...     filter_knots=16, hidden=(32, 32), epochs=20, verbose=False)
        >>> found = flow.check(x[250:], y[250:], prior=[(0.5, 2.0)])
        >>> found.ranks.shape, found.simulations
        ((50, 1), 50)
        >>> share, error = found.held(0.68)
        >>> bool(abs(share - 0.68) < 5 * error)
        True
        """
        if not self._parameters()[0]:
            raise ValueError("check: this flow was fitted without y")
        x, n = self._simulated(x)
        noise, fixed = self._each("noise", noise, n), self._each_fixed(fixed, n)
        free = [name for name in self.names[: self._parameters()[0]] if name not in fixed]
        y = parameters_of(_tables.matched(y, "y", free), "y", len(free), n, each=True)
        simulation = simulations_of(simulation, y)
        beside = self._beside(condition_field, n)
        how = {"temperature": temperature, "draws": draws}
        asked = x, n, prior, noise, fixed, beside, seed, how, verbose
        with closing(self._posteriors(*asked)) as posts:
            return coverage(posts, y, simulation=simulation, seed=seed)

    def check_draws(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        draws: int = 999,
        simulation: ArrayLike | None = None,
        seed: int | None = 0,
    ) -> Coverage:
        """Return how often regions of p(x|y) hold points x that are known.

        For flows whose points are parameters and whose conditions are data, p(parameters|data):
        such a flow is the posterior itself, and this says what `check` says of a likelihood's.
        For any other flow of a table it says whether p(x|y), or p(x), is right about rows that it
        has not seen. Regions are those of highest density.

        Parameters
        ----------
        x : (n, d) array-like of real numbers
            Points that neither training nor validation have seen.
        y : optional
            As in `evaluate_density`, one for each point.
        draws : int
            For each point.
        simulation : (n,) array-like, optional
            Labels of what counts once. Default: equal rows of x are one.
        seed : int or None
            Of the draws, and of all that is random in `pyflow.checks.coverage_of_samples`.

        Returns
        -------
        Coverage

        Raises
        ------
        ValueError
            As `evaluate_density`, and for a flow of fields.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> theta = np.random.default_rng(0).normal(size=(700, 2))
        >>> data = theta + np.random.default_rng(1).normal(size=theta.shape)
        >>> flow = pyflow.GIS(theta[:400], theta[400:500], condition=data[:400],
        ...     condition_validate=data[400:500], n_models=1, verbose=False)
        >>> found = flow.check_draws(theta[500:], data[500:].clip(*flow.y_range.T))
        >>> share, error = found.held(0.68)
        >>> bool(abs(share - 0.68) < 4 * error)
        True
        """
        if len(self._core.shape) > 1:
            raise ValueError("check_draws: is for tables, not for fields")
        draws = integer("draws", draws, 2)
        x, n = self._points(x)
        x = np.asarray(x).reshape(n, self.dim)
        known = self._conditions(y, n)
        logs = np.reshape(self._core.evaluate_density(x, **known), n)
        rng = np.random.default_rng(_arguments.seed(seed))
        logp = []

        def drawn():
            for i in range(n):
                one = {k: v[[i] * draws] for k, v in known.items()}
                points, found = self._core.sample(draws, **one, seed=int(rng.integers(2**63)))
                logp.append(found)
                yield points

        return coverage_of_samples(
            drawn(),
            x,
            logp=(logp.pop() for _ in range(n)),  # of the draws that came last
            logp_true=logs,
            names=self.columns or [f"x{j}" for j in range(self.dim)],
            simulation=simulation,
            seed=seed,
        )

    def _posteriors(self, x, n, prior, noise, fixed, beside, seed, how, verbose):
        """Yield the posterior of each of n maps, several at a time: see `posteriors`."""

        def asked():
            for i in range(n):
                known = {k: c[i] for k, c in beside.items()}
                known |= {} if noise is None else {"noise": noise[i]}
                known |= {"fixed": {k: v[i] for k, v in fixed.items()}} if fixed else {}
                # a generator as seed gives each map another, in their order
                yield np.array(x[i]), known | {"seed": _arguments.seed(seed)}

        def ask(one, known):
            return self.posterior(one, prior, **known, **how)

        told, verbose = set(), _arguments.boolean("verbose", verbose)
        self._warn_x(x)
        several = n if self.dim < LARGE else 1
        with (
            closing(_many.in_order(ask, asked(), several)) as found,
            counted(n, verbose, "map", "posteriors") as done,
        ):
            for i in range(n):
                try:
                    post, warnings = next(found)
                except Exception as error:
                    _name_map(error, i)
                    raise
                for message, category in warnings:
                    if category is RuntimeWarning:  # of this posterior, not of what all share
                        message += f" (map {i} of x)"
                    if message not in told:
                        told.add(message)
                        warn(message, category)
                done(i + 1)
                yield post

    def _each_fixed(self, fixed, n):
        if not isinstance(fixed, Mapping | None):
            raise TypeError(f"fixed: must be a dict of names and numbers, not {fixed!r}")
        return {k: self._each(f"fixed: {k!r}", v, n) for k, v in (fixed or {}).items()}

    @staticmethod
    def _each(name, value, n):
        """Return one number, or one for each of n maps, as (n,) numbers; None stays."""
        if value is None:
            return None
        value = np.asarray(_arguments.rows(value, name))
        if value.dtype.kind not in "biuf" or value.shape not in ((), (n,)):
            raise ValueError(f"{name}: must be a number, or {n} of them, not {value!r}")
        return np.broadcast_to(value, n).astype(np.float64)

    def calibrate(
        self,
        x: ArrayLike,
        y: ArrayLike,
        seed: int | None = 0,
        *,
        simulation: ArrayLike | None = None,
        condition_field: ArrayLike | None = None,
    ) -> Flow:
        """Return this flow with the temperature at which posteriors of these points are best.

        That is the power b of the likelihood with the largest mean log p(y|x) over held-out
        points, the prior uniform over the training range, shrunk to 1 where few simulations
        determine it: log b is multiplied by s^2 / (s^2 + error^2), of its standard error over whole
        simulations and s = 0.3, or s^2 = log^2 b - error^2 where that is more. So the mean stays
        above what it is without. log p(x|y) itself stays as it is. It is
        evaluated at 383 conditions for every point, from three parameters on at three times as many
        for each (`posterior_draws` of `train`).

        Parameters
        ----------
        x : (n, *shape) array-like
            Points that the flow was not trained on, of parameters drawn from the prior. If the flow
            was trained with noise, they come without: it is added here.
        y : (n, p) array-like
            The noise's standard deviation is not among them.
        seed : int
        simulation : (n,) array-like, optional
            Labels of the simulations that points are of. Default: equal rows of y are one.
        condition_field : optional
            As in `evaluate_density`.

        Returns
        -------
        Flow
            Its `calibration` says what that gained.

        Warns
        -----
        UserWarning
            If the temperature is at an end of its range, 1e-4 to 100, or the points are of fewer
            than ten different y: they do not determine it.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> y = np.random.default_rng(0).uniform(0.5, 2, 300)
        >>> power = lambda k: y[:, None, None] / k
        >>> x = pyflow.fields.gaussian_field(power, (8, 8), box_size=8.0, seed=1)
        >>> flow = pyflow.SymmetricFlow(x[:200], y_train=y[:200], box_size=8.0, n_layers=1,
        ...     filter_knots=8, hidden=(16, 16), epochs=5, verbose=False)
        >>> flow = flow.calibrate(x[200:], y[200:])
        >>> 0.3 < flow.temperature < 3
        True
        >>> flow.calibration["points"], flow.calibration["after"] >= flow.calibration["before"]
        (100, True)
        """
        p, _ = self._parameters()
        if not p:
            raise ValueError("y: this flow was fitted without")
        x, n = self._simulated(x)
        y = parameters_of(_tables.matched(y, "y", self.names[:p]), "y", p, n, each=True)
        self._warn_outside(y)
        beside = self._beside(condition_field, n)
        return self._calibrated(x, y, _arguments.seed(seed), "x", beside, simulation)

    def _calibrated(self, x, y, seed, name, beside, simulation=None):
        """Return the flow with its temperature; warnings call the points by this name."""
        simulation = simulations_of(simulation, np.asarray(y)).astype(np.int32)
        try:
            core, *found = self._core.calibrate(x, y, simulation, WIDTH, seed, **beside)
        except ValueError as error:
            raise ValueError(str(error).replace("data_held_out:", f"{name}:", 1)) from None
        found = dict(zip(("before", "after", "best", "error"), found, strict=True))
        found |= {"points": len(y), "simulations": int(simulation.max()) + 1}
        flow = self._of(core.with_note(json.dumps(self._note | {"calibration": found})))
        least, most = TEMPERATURES
        different = len(np.unique(y, axis=0))
        if not 1.01 * least < found["best"] < most / 1.01:
            warn(
                f"{name}: {len(y)} points leave the temperature of posteriors undetermined: it is "
                f"at an end of its range, {found['best']:.3g}, and shrunk to {flow.temperature:.3g}"
            )
        elif different < FEW:
            warn(
                f"{name}: {len(y)} points of {different} different y hardly determine the "
                f"temperature of posteriors: it is {flow.temperature:.3g}"
            )
        return flow

    def _simulated(self, x):
        """Return held-out points (n, *shape), n > 0, and n."""
        x, n = self._points(x)
        if not n or len(x.shape) == len(self.shape):
            raise ValueError(
                f"x: must have shape (n, *{self.shape}), n > 0; its shape is {x.shape}"
            )
        return x, n

    def _parameters(self):
        """Return how many conditions are parameters, and whether the last is the noise's."""
        noisy = self._core.noise_condition
        return self._core.n_conditions - noisy, noisy

    # ---- training --------------------------------------------------------------------------------

    def train(
        self,
        data_train: ArrayLike,
        data_validate: ArrayLike | None = None,
        y_train: ArrayLike | None = None,
        y_validate: ArrayLike | None = None,
        *,
        condition_field: ArrayLike | None = None,
        condition_field_validate: ArrayLike | None = None,
        weight_train: ArrayLike | None = None,
        weight_validate: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        labels_validate: ArrayLike | None = None,
        frozen: Sequence[bool] | None = None,
        names: Sequence[str] | None = None,
        hidden: int | Sequence[int] | None = None,
        epochs: int | None = None,
        batch: int | None = None,
        patience: int | None = None,
        learning_rate: float | None = None,
        warmup: float | None = None,
        weight_decay: float | None = None,
        clip: float | None = None,
        noise: float
        | tuple[float, float]
        | ArrayLike
        | Callable[[Floats], ArrayLike]
        | None = None,
        noise_condition: bool | None = None,
        objective: str | float = "likelihood",
        posterior_epochs: int | None = None,
        posterior_rate: float | None = None,
        posterior_draws: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float | None = None,
        seed: int | None = 0,
        progress: Callable[[Progress], object] | None = None,
        verbose: bool = True,
        **unknown: object,
    ) -> Flow:
        """Return this flow with all its layers trained together, by maximum likelihood.

        Training goes on from the parameters as they are, by Adam. Slices stay orthonormal. The same
        arguments give the same flow, bit for bit, for any number of threads.

        Parameters
        ----------
        data_train : (n, *shape) array-like of real numbers
        data_validate : (m, *shape) array-like, optional
            The flow kept is that of the epoch at which log p of these is highest, the start
            included.
        y_train, y_validate : (n, p), (m, p) array-like, optional
            Parameters that each point is conditioned on; shape (n,) for a single one. A flow
            without conditions gets a network for the layers that can be conditioned (symmetric
            ones), which leaves it as it is at first.
        condition_field, condition_field_validate : (n, *shape), (m, *shape) array-like, optional
            For a flow that sees a second field of each point.
        weight_train, weight_validate : (n,), (m,) array-like, optional
            Weights of the points, not negative.
        labels, labels_validate : (n,), (m,) array-like, optional
            For a flow of classes.
        frozen : sequence of bool, optional
            For each layer, whether its parameters stay as they are. Layers that a network already
            conditions stay all together, or none of them.
        names : sequence of str, optional
            What the parameters are called. Default: those of the table y_train.
        hidden : sequence of int, optional
            Units of a new network's hidden layers. Default (512, 512).
        epochs : int, optional
            Passes through the training data. Default 60.
        batch : int, optional
            Points in a mini-batch. Default 16 fields, or 16 tiles of rows, some 4,096: on tables of
            a few thousand rows 64 learns more in an epoch.
        patience : int, optional
            Stop after this many epochs without improvement. Default 0: never.
        learning_rate, warmup : float, optional
            Adam's rate at its highest, default 8e-3, and the fraction of the steps in which it
            rises to that, default 0.05; then it falls along half a cosine.
        weight_decay : float, optional
            Of the network's weights, in every step, times the learning rate. Default: batch / (3 n
            learning_rate) of n points, so that weights are what the last three epochs made them;
            less in proportion where the last hidden layer is narrower than 512. Of the networks of
            autoregressive layers: batch / (24 n learning_rate).
        clip : float, optional
            The longest gradient, in units of its running mean length. Default 3; 0 for any.
        noise : float, (float, float), callable or (*mesh) array, optional
            Standard deviation, or the range of it, of white noise added to the data, afresh every
            epoch; or, for fields, the power spectrum P(k) of Gaussian noise, as in
            `pyflow.fields.gaussian_field`, or a map of the standard deviation, which must be that
            which the flow was fitted with, if it was. The flow is then that of the data with noise.
            Default: none; data that have their noise already need no more.
        noise_condition : bool, optional
            The standard deviation, drawn from its range, is one more condition, the last.
        objective : "likelihood", "posterior" or float
            A number w from 0, the likelihood, to 1, the posterior: when it is not 0, training on
            the likelihood is followed by fine-tuning on (1 - w) log p(x|y) + w log p(y|x), the
            prior uniform over the training range.
        posterior_epochs, posterior_rate, posterior_draws : int, float, int, optional
            Of that stage: epochs, learning rate, and conditions that stand for the prior, for every
            point and step. Defaults 5, 2e-4, and 127 for one or two parameters, three times as many
            (383, 1151, 3455, 10367) for each further one up to six; up to eight times as many where
            log p(y|x) is not right to 0.1 nats before. Points where it is not then are trained on
            log p(x|y), with a warning.
        checkpoint : str or os.PathLike, optional
            File for the unfinished training, written every `checkpoint_seconds` (default 60) and
            when it is interrupted. If it is there the training goes on from it, to the same flow as
            uninterrupted; at the end it holds that flow.
        checkpoint_seconds : float, optional
        seed : int or None
            0 <= seed < 2**64; None for a different one every time.
        progress : callable, optional
            Called with a `Progress` after every epoch. An exception that it raises ends training.
        verbose : bool
            Show a progress line on stderr: by tqdm if that is installed.

        Returns
        -------
        Flow

        Raises
        ------
        ValueError, TypeError
            For data or options that make no sense: the message names the argument.
        OSError
            If the checkpoint cannot be read, or not be written at the end.
        FileError
            If it is no file of pyflow's, or damaged.
        KeyboardInterrupt
            On Ctrl-C, within a second or so. What had been reached is the exception's attribute
            `flow`, as it is for an exception raised by `progress`; a note with it names the
            checkpoint that was left.

        Warns
        -----
        RuntimeWarning
            If training meets a NaN: the last good flow is returned. If a checkpoint cannot be
            written: training goes on.
        UserWarning
            If y_validate reaches beyond y_train. If no epoch gained anything on `data_validate`:
            the flow is then as it was, history included.

        Examples
        --------
        A whitening, three sliced layers and a symmetric one, for fields:

        >>> import numpy as np, pyflow
        >>> from pyflow.layers import Affine, Sliced, Symmetric
        >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 300, box_size=8.0, seed=1)
        >>> layers = [Affine.whitening(x[:200]), *3 * [Sliced(4, 8)], Symmetric(4, 8)]
        >>> flow = pyflow.Flow(layers, shape=(8, 8), box_size=8.0)
        >>> flow = flow.train(x[:200], x[200:], epochs=3, learning_rate=1e-2, verbose=False)
        >>> flow.history["logp_validate"].shape
        (3,)
        """
        arguments = {k: v for k, v in locals().items() if k not in ("self", "unknown")}
        from pyflow._training import refuse_unknown, trained

        refuse_unknown(Flow.train, unknown)
        return trained(self, **arguments)

    def polish(
        self,
        data_train: ArrayLike,
        data_validate: ArrayLike,
        y_train: ArrayLike | None = None,
        y_validate: ArrayLike | None = None,
        *,
        weight_train: ArrayLike | None = None,
        weight_validate: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        labels_validate: ArrayLike | None = None,
        epochs: int | None = None,
        batch: int | None = None,
        learning_rate: float | None = None,
        seed: int | None = 0,
        progress: Callable[[Progress], object] | None = None,
        verbose: bool = True,
    ) -> Flow:
        """Return this flow with all its layers trained together, if validation data gain.

        It is `train` with options for flows of `GIS`, and keeps what surely gains alone. A flow of
        few layers, wide and of few knots, gains most: it is then small and fast, and on thousands
        of rows better than a greedy one of a thousand layers, as a rule; `GIS(..., model=flow)`
        adds layers to it. Of a flow of hundreds of layers there is little to gain.

        Parameters
        ----------
        data_train : (n, *shape) array-like of real numbers
        data_validate : (m, *shape) array-like
            Points that neither the fit nor this has trained on: the flow kept is that of the epoch
            at which their log p is highest. If its mean gains no more than its standard error,
            point by point, this flow itself is returned.
        y_train, y_validate, weight_train, weight_validate, labels, labels_validate : optional
            As in `train`.
        epochs : int, optional
            The most passes through the training data. Default: 120 steps times the square root of
            n, but at least ten passes. After a quarter of them without an improvement training
            ends.
        batch : int, optional
            Points in a mini-batch. Default 128.
        learning_rate : float, optional
            Adam's rate at its highest. Default: 1 / (layers times knots), at most 0.01, so that
            knots do not leap over one another.
        seed, progress, verbose
            As in `train`.

        Returns
        -------
        Flow

        Raises
        ------
        ValueError, TypeError
            For data or options that make no sense: the message names the argument. A mixture is not
            polished, but its members are, and mixed again.
        KeyboardInterrupt
            As in `train`.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(900, 2))
        >>> x[:, 1] = 0.3 * x[:, 1] + np.sin(2 * x[:, 0])
        >>> flow = pyflow.GIS(x[:600], x[600:], max_layers=5, n_slices=2, n_knots=12, verbose=False)
        >>> better = flow.polish(x[:600], x[600:], verbose=False)
        >>> gain = better.evaluate_density(x[600:]) - flow.evaluate_density(x[600:])
        >>> len(better) == len(flow), bool(gain.mean() > 0.1)
        (True, True)
        """
        arguments = {k: v for k, v in locals().items() if k != "self"}
        from pyflow._polish import polished

        return polished(self, **arguments)

    # ---- files -----------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the flow to a file, for `pyflow.load`.

        The file holds numbers and a JSON header, no code, and ends with a check sum. It is written
        under another name and then renamed: whatever happens, `path` holds the old file or the new
        one.

        Parameters
        ----------
        path : str or os.PathLike

        Raises
        ------
        OSError
            If it cannot be written.

        Examples
        --------
        >>> import os, tempfile, numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> flow = pyflow.GIS(x, max_layers=2, verbose=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     flow.save(os.path.join(folder, "flow.pf"))
        ...     pyflow.load(os.path.join(folder, "flow.pf")) == flow
        True
        """
        self._core.save(path)

    def to_bytes(self) -> bytes:
        """Return what a saved file holds.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> flow = pyflow.GIS(x, max_layers=2, verbose=False)
        >>> pyflow.Flow.from_bytes(flow.to_bytes()) == flow
        True
        """
        return self._core.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Flow:
        """Return the flow that `to_bytes` gave these bytes for.

        Raises
        ------
        FileError
            If they are cut short, altered, of a newer format, or no flow.

        Examples
        --------
        >>> import pyflow
        >>> pyflow.Flow.from_bytes(b"something else")
        Traceback (most recent call last):
            ...
        pyflow.FileError: this is not a pyflow flow: it begins with other bytes
        """
        if is_mixture(data):
            from pyflow.mixture import Mixture  # which is a Flow

            return Mixture.from_bytes(data)
        return cls._of(_core.from_bytes(data))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Flow):
            return NotImplemented
        return self._core is other._core or self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __reduce__(self):
        return self.from_bytes, (self.to_bytes(),)

    def __copy__(self) -> Flow:
        return self

    def __deepcopy__(self, memo: object) -> Flow:
        return self


def _name_map(error, i):
    """Say which of several maps an exception is of, where each was asked for alone."""
    if isinstance(error, ValueError) and error.args:
        own = re.sub(r"^(x|condition_field): field 0\b", rf"\1: field {i}", str(error.args[0]))
        error.args = own, *error.args[1:]
    if hasattr(error, "add_note"):
        error.add_note(f"The posterior is that of map {i} of x.")


def _known_outside(outside):
    """Return what is to become of points outside the bounds, if it is known: see `Flow.score`."""
    if outside not in ("raise", "zero"):
        raise ValueError(f'outside: must be "raise" or "zero", not {outside!r}')
    return outside


def parameters_of(y, name, p, n, each=False):
    """Return parameters as a C-contiguous float64 array (n, p).

    Parameters
    ----------
    y : (n, p) or, unless `each`, (p,) array-like
        For a single parameter (n,), and, unless `each`, a number.
    name : str
        What the argument is called in errors.
    p, n : int
        p = None: as many columns as y has.
    """
    known, y = _tables.names(y, name), np.asarray(_arguments.rows(y, name))
    if y.dtype.kind not in "biuf":
        raise ValueError(f"{name}: must hold real numbers; its dtype is {y.dtype}")
    given, y = y.shape, y.astype(np.float64)
    if not np.isfinite(y).all():
        row, *column = np.argwhere(~np.isfinite(y))[0] if y.ndim else [0]
        where = f", {_tables.column(column[0], known)}" if y.ndim == 2 else ""
        raise ValueError(f"{name}: is NaN or infinite in row {row}{where}")
    if p in (None, 1) and y.ndim == 1 and (each or len(y) != 1):
        y = y[:, None]
    if each and y.ndim == 1 and n == 1:
        y = y[None]
    if not each and y.ndim < 2:
        y = np.broadcast_to(np.atleast_1d(y), (n, max(y.size, 1)))
    if y.ndim != 2 or len(y) != n or y.shape[1] == 0 or p not in (None, y.shape[1]):
        single = "" if each else f", or ({p},) for all points"
        raise ValueError(
            f"{name}: must have shape ({n}, {'p' if p is None else p}){single}; "
            f"its shape is {given}"
        )
    return np.ascontiguousarray(y)


def load(path: str | os.PathLike[str]) -> Flow:
    """Read a flow from a file that its `save` wrote, or from the checkpoint of a fit.

    Nothing in the file is executed, and all of it is checked.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    Flow
        A `Mixture` if that was saved.

    Raises
    ------
    FileError
        If the file is cut short, altered, of a newer format, or no flow. A subclass of ValueError.
    OSError
        If it cannot be read.

    Examples
    --------
    See `Flow.save`.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        return Flow.from_bytes(data)
    except _core.FileError as error:
        raise _core.FileError(f"{os.fspath(path)}: {error}") from None
