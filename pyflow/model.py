"""A fitted model: densities, samples, scores, and its file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import _arguments, _core
from pyflow._saved import Saved

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pyflow.symmetric import FieldModel

    Values = NDArray[np.float64] | np.float64  # one for each point

HISTORY = ("logp_train", "logp_validate", "distance")


class Model(Saved):
    """A probability density over `dim` real numbers, as a stack of invertible layers.

    The layers carry data x to latent points z that follow a unit Gaussian: log p(x) = log N(z; 0,
    I) + log|det dz/dx|. Models come from `GIS` and `load`. They never change, may be used from many
    threads at once, pickled, copied and compared; slices share their layers.

    All methods take points as any array-like of real numbers of shape (n, dim), or (dim,) for one
    point, and compute in the model's own precision, `dtype`. Log-densities and log-determinants are
    float64, in nats and in the units of the data. A model that was fitted with labels needs a label
    too: one for all points, or one for each.

    Attributes
    ----------
    dim : int
        Number of columns.
    dtype : numpy.dtype
        float32 or float64: the precision of the layers and of the points that come out.
    layers : tuple of str
        The kind of each layer, in the order in which data pass through them.
    slices : int
        One-dimensional splines of all layers together.
    labels : numpy.ndarray or None
        The labels the model was fitted with, sorted.
    history : dict of str to numpy.ndarray
        What the fit recorded after each layer: see the property.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> model = pyflow.GIS(x, max_layers=2, verbose=False)
    >>> model.evaluate_density(x).shape
    (500,)
    >>> points, logp = model.sample(3, seed=1)
    >>> points.shape
    (3, 2)
    """

    __slots__ = ("_labels",)

    _kind = _core.Model
    _made_by = "models are made by pyflow.GIS and pyflow.load"
    _not_of_kind = "this is a symmetric flow, not a model of GIS"

    def __init__(self, core: _core.Model):
        super().__init__(core)
        labels = self._note.get("labels")
        self._labels = None if labels is None else np.asarray(labels)

    # ---- what it is ------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Number of columns."""
        return self._core.dim

    @property
    def layers(self) -> tuple[str, ...]:
        """The kind of each layer."""
        return self._core.layers

    @property
    def slices(self) -> int:
        """One-dimensional splines of all layers together."""
        return self._core.slices

    @property
    def labels(self) -> NDArray[Any] | None:
        """The labels that the model was fitted with, sorted; None without.

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
    def history(self) -> dict[str, NDArray[np.float64]]:
        """What the fit recorded after each layer.

        Returns
        -------
        dict of str to (len(model),) float64 array
            `logp_train`, `logp_validate`: mean log p of the training and the validation data after
            this layer, in nats (NaN without validation data); `distance`: the root-mean-square
            sliced Wasserstein distance of the data from a unit Gaussian along the layer's slices,
            before the layer (NaN for layers without slices).

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).gamma(2, size=(500, 2))
        >>> history = pyflow.GIS(x, max_layers=2, verbose=False).history
        >>> bool(np.all(np.diff(history["logp_train"]) > 0))
        True
        """
        return dict(zip(HISTORY, self._core.history().T.copy(), strict=True))

    def __len__(self) -> int:
        return self._core.n_layers

    def __getitem__(self, key: slice) -> Model:
        """Return the model of the first k layers, model[:k]."""
        if not isinstance(key, slice):
            raise TypeError("a model is cut with a slice: model[:k] has its first k layers")
        start, stop, step = key.indices(len(self))
        if start != 0 or step != 1:
            raise ValueError("only the first layers make a model: model[:k]")
        return Model(self._core.truncate(stop))

    __iter__ = None

    def __repr__(self) -> str:
        kinds = ", ".join(f"{self.layers.count(k)} {k}" for k in dict.fromkeys(self.layers))
        parts = [f"dim={self.dim}", f"layers={len(self)}" + (f" ({kinds})" if kinds else "")]
        parts.append(f"dtype={self.dtype}")
        if self._labels is not None:
            parts.append(f"classes={len(self._labels)}")
        if len(self):
            *_, train = self.history["logp_train"]
            *_, validate = self.history["logp_validate"]
            parts += [f"logp_train={train:.4g}"] if np.isfinite(train) else []
            parts += [f"logp_validate={validate:.4g}"] if np.isfinite(validate) else []
        if self._note.get("unfinished"):
            parts.append("unfinished")
        return f"pyflow.Model({', '.join(parts)})"

    # ---- densities and samples -------------------------------------------------------------------

    def evaluate_density(self, x: ArrayLike, label: ArrayLike | None = None) -> Values:
        """Return the log-density of points.

        Parameters
        ----------
        x : (n, dim) or (dim,) array-like of real numbers
        label : scalar or (n,) array-like, optional
            For a model fitted with labels: the density is then p(x | label).

        Returns
        -------
        (n,) float64 array, or float for one point
            log p(x) in nats; -inf outside the model's bounds.

        Raises
        ------
        ValueError
            If x has another shape, is not real or not finite, or a label is missing or unknown.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(2000, 1))
        >>> model = pyflow.GIS(x, max_layers=1, verbose=False)
        >>> float(model.evaluate_density([0.0]))  # -log(2 pi) / 2 = -0.919
        -0.9...
        """
        return self._core.evaluate_density(*self._points(x, label))

    def sample(
        self,
        n: int,
        label: ArrayLike | None = None,
        seed: int | None = None,
        *,
        device: object = None,
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Draw a sample, and its log-densities.

        Parameters
        ----------
        n : int
            Number of points, 0 or more.
        label : scalar or (n,) array-like, optional
            For a model fitted with labels: what to draw.
        seed : int, optional
            0 <= seed < 2**64. Row i depends on (seed, i) alone, so that a longer sample begins with
            the shorter one. None draws a new sample every time.
        device
            Ignored: the original implementation's argument.

        Returns
        -------
        x : (n, dim) array of the model's dtype
        logp : (n,) float64 array

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> model = pyflow.GIS(x, max_layers=2, verbose=False)
        >>> a, logp = model.sample(100, seed=1)
        >>> b, _ = model.sample(10, seed=1)
        >>> bool((a[:10] == b).all()), bool(np.allclose(model.evaluate_density(a), logp))
        (True, True)
        """
        n = _arguments.integer("n", n, 0)
        return self._core.sample(n, self._classes(label, n), _arguments.seed(seed))

    def forward(self, x: ArrayLike, label: ArrayLike | None = None) -> tuple[NDArray[Any], Values]:
        """Carry data to the latent space, where they follow a unit Gaussian.

        Parameters
        ----------
        x : (n, dim) or (dim,) array-like of real numbers
        label : scalar or (n,) array-like, optional

        Returns
        -------
        z : (n, dim) or (dim,) array of the model's dtype
        logj : (n,) float64 array, or float for one point
            log|det dz/dx|.

        Raises
        ------
        ValueError
            As `evaluate_density`, and for points outside the model's bounds.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).gamma(2, size=(500, 2))
        >>> model = pyflow.GIS(x, max_layers=2, verbose=False)
        >>> z, logj = model.forward(x)
        >>> back, minus_logj = model.inverse(z)
        >>> bool(np.allclose(back, x)), bool(np.allclose(logj, -minus_logj))
        (True, True)
        """
        return self._core.forward(*self._points(x, label))

    def inverse(self, z: ArrayLike, label: ArrayLike | None = None) -> tuple[NDArray[Any], Values]:
        """Carry latent points to data: the inverse of `forward`.

        Parameters
        ----------
        z : (n, dim) or (dim,) array-like of real numbers
        label : scalar or (n,) array-like, optional

        Returns
        -------
        x : (n, dim) or (dim,) array of the model's dtype
        logj : (n,) float64 array, or float for one point
            log|det dx/dz|.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(3, size=(500, 2))
        >>> model = pyflow.GIS(x, max_layers=2, verbose=False)
        >>> centre, _ = model.inverse(np.zeros(2))
        >>> bool(np.all(abs(centre - 3) < 0.3))
        True
        """
        return self._core.inverse(*self._points(z, label, "z"))

    def score(
        self, x: ArrayLike, label: ArrayLike | None = None, *, with_logp: bool = False
    ) -> NDArray[Any] | tuple[NDArray[Any], Values]:
        """Return the gradient of the log-density, for Hamiltonian Monte Carlo and the like.

        Parameters
        ----------
        x : (n, dim) or (dim,) array-like of real numbers
        label : scalar or (n,) array-like, optional
        with_logp : bool
            Return log p too: it costs nothing more.

        Returns
        -------
        score : (n, dim) or (dim,) array of the model's dtype
            d log p / dx.
        logp : (n,) float64 array, or float for one point
            If with_logp.

        Raises
        ------
        ValueError
            As `forward`.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(2000, 1))
        >>> model = pyflow.GIS(x, max_layers=1, verbose=False)
        >>> bool(model.score([1.0])[0] < 0 < model.score([-1.0])[0])
        True
        """
        score, logp = self._core.score(*self._points(x, label))
        return (score, logp) if with_logp else score

    def _points(self, x, label, name="x"):
        x = _arguments.rows(x, name)
        if label is None:
            return x, None
        return x, self._classes(label, 1 if len(x.shape) < 2 else x.shape[0])

    def _classes(self, label, n):
        """Return the class of each of n points, or None for a model without labels."""
        if label is None:
            return None
        if self._labels is None:
            raise ValueError("label: this model was fitted without labels")
        label = _arguments.labels(label, "label")
        index = _arguments.classes(self._labels, label, "label", "the model's labels")
        return np.full(n, index) if index.ndim == 0 else index


def load(path: str | os.PathLike[str]) -> Model | FieldModel:
    """Read a model from a file that its `save` wrote, or from the checkpoint of a fit.

    Nothing in the file is executed, and all of it is checked.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    Model or FieldModel

    Raises
    ------
    FileError
        If the file is cut short, altered, of a newer format, or no model. A subclass of ValueError.
    OSError
        If it cannot be read.

    Examples
    --------
    See `Model.save`.
    """
    from pyflow.symmetric import FieldModel

    with open(path, "rb") as file:
        data = file.read()
    try:
        core = _core.from_bytes(data)
    except _core.FileError as error:
        raise _core.FileError(f"{os.fspath(path)}: {error}") from None
    return Model(core) if isinstance(core, _core.Model) else FieldModel(core)
