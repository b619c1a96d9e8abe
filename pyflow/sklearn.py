"""GIS as an estimator of scikit-learn: for its pipelines, searches and cross-validation.

scikit-learn is imported here alone, and this module by nothing else: `import pyflow.sklearn`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import _arguments
from pyflow._members import equal_rows, splits
from pyflow.gis import GIS

try:
    from sklearn import get_config
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted
except ImportError as error:
    raise ImportError(
        f"pyflow.sklearn needs scikit-learn 1.2 or later ({error}): pip install scikit-learn"
    ) from error
try:
    from sklearn.utils.validation import validate_data
except ImportError:  # before 1.6

    def validate_data(estimator, X, **how):
        return estimator._validate_data(X, **how)


if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from pyflow.gis import Bounds

__all__ = ["GISDensity"]

DTYPES = [np.float64, np.float32]  # that flows have; all else becomes the first
LEAST = 5  # rows to validate with, of ten or more
OUTPUTS = ("default", "pandas", "polars")


def __dir__():
    return __all__


class GISDensity(DensityMixin, BaseEstimator):
    """The density of a table by `pyflow.GIS`, as an estimator of scikit-learn.

    It is used as `sklearn.neighbors.KernelDensity` is, also as the last step of a pipeline, and
    holds out rows of its own for validation: choose options by cross-validation of `score`, whose
    rows no fit has seen. Densities are of the columns that the estimator is given: after a scaler
    in a pipeline, of the scaled ones.

    Parameters
    ----------
    validation_fraction : float
        Of the rows, that are held out to say when to stop: at least 0 and less than 1, and at least
        5 rows of 10 or more, but never more than half. Equal rows stay together. 0: none; then give
        `max_layers`.
    n_models, autoregressive, polish, max_layers, patience, min_improvement, n_slices, n_knots, \
kde, bandwidth_factor, alpha, edge_knots, slice_points, slice_steps, marginal_first, whiten, bounds
        As in `pyflow.GIS`; `bounds` may be by name if the estimator is fitted to a table with
        names. None is its default. To search over options quickly, give n_models=1 or `max_layers`.
    random_state : int, numpy.random.RandomState or None
        Of the split and of the fit: the same int gives the same flow, bit for bit. None: another
        one every time.
    verbose : bool
        Show a progress line on stderr.

    Attributes
    ----------
    flow_ : pyflow.Flow or pyflow.Mixture
        The fitted density, with all that it can do.
    n_features_in_ : int
    feature_names_in_ : (d,) array of str
        Names of the columns, if the estimator was fitted to a table with names.

    Examples
    --------
    >>> import numpy as np
    >>> from pyflow.sklearn import GISDensity
    >>> x = np.random.default_rng(0).normal(size=(400, 2))
    >>> x[:, 1] += x[:, 0] ** 2
    >>> density = GISDensity(max_layers=4, random_state=0).fit(x)
    >>> density.score_samples(x[:3]).shape, density.sample(5, random_state=1).shape
    ((3,), (5, 2))

    In a pipeline, with options chosen by cross-validation:

    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> pipe = make_pipeline(StandardScaler(), GISDensity(random_state=0))
    >>> search = GridSearchCV(pipe, {"gisdensity__max_layers": [1, 10]}, cv=2).fit(x)
    >>> search.best_params_
    {'gisdensity__max_layers': 10}
    """

    def __init__(
        self,
        *,
        validation_fraction: float = 0.2,
        n_models: int | None = None,
        autoregressive: bool | None = None,
        polish: bool | str | None = None,
        max_layers: int | None = None,
        patience: int | None = None,
        min_improvement: float | None = None,
        n_slices: int | None = None,
        n_knots: int | None = None,
        kde: bool | None = None,
        bandwidth_factor: float | None = None,
        alpha: tuple[float, float] | None = None,
        edge_knots: int | None = None,
        slice_points: int | None = None,
        slice_steps: int | None = None,
        marginal_first: bool | None = None,
        whiten: bool | None = None,
        bounds: Bounds | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ):
        self.validation_fraction = validation_fraction
        self.n_models = n_models
        self.autoregressive = autoregressive
        self.polish = polish
        self.max_layers = max_layers
        self.patience = patience
        self.min_improvement = min_improvement
        self.n_slices = n_slices
        self.n_knots = n_knots
        self.kde = kde
        self.bandwidth_factor = bandwidth_factor
        self.alpha = alpha
        self.edge_knots = edge_knots
        self.slice_points = slice_points
        self.slice_steps = slice_steps
        self.marginal_first = marginal_first
        self.whiten = whiten
        self.bounds = bounds
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> GISDensity:
        """Fit the density.

        Parameters
        ----------
        X : (n, d) array-like of real numbers, or table
            float32 gives a float32 flow, all else a float64 one.
        y : ignored
        sample_weight : (n,) array-like, optional
            Not negative. Rows without weight are left out.

        Returns
        -------
        GISDensity
            Itself.

        Raises
        ------
        ValueError, TypeError
            As `pyflow.GIS`; the message names the argument.

        Examples
        --------
        >>> import numpy as np
        >>> from pyflow.sklearn import GISDensity
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> density = GISDensity(n_models=1, patience=3).fit(x, sample_weight=np.exp(-x[:, 0] ** 2))
        >>> len(density.flow_) > 1
        True
        """
        X = validate_data(self, X, dtype=DTYPES, ensure_min_samples=2)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
            if (sample_weight < 0).any() or not sample_weight.any():
                raise ValueError("sample_weight: must not be negative, nor zero everywhere")
            X, sample_weight = X[sample_weight > 0], sample_weight[sample_weight > 0]
        rng = check_random_state(self.random_state)
        validate = self._held_out(X, seed=_arguments.seed(rng))
        data = {"data_train": X[~validate]}
        if validate.any():
            data["data_validate"] = X[validate]
        names = getattr(self, "feature_names_in_", None)
        if names is not None:
            data = {k: dict(zip(names, rows.T, strict=True)) for k, rows in data.items()}
        if sample_weight is not None:
            data["weight_train"] = sample_weight[~validate]
            if validate.any():
                data["weight_validate"] = sample_weight[validate]
        own = ("validation_fraction", "random_state")
        options = {k: v for k, v in self.get_params().items() if k not in own}
        try:
            self.flow_ = GIS(**data, **options, seed=_arguments.seed(rng))
        except ValueError as error:  # it numbers the rows of a part of X
            message = re.sub(r"^data_(train|validate): (row \d+, )?", "X: ", str(error))
            raise ValueError(message) from error
        return self

    def _held_out(self, X, seed):
        """Return which rows of X (n, d) are for validation, as (n,) bool."""
        n = len(X)
        fraction = _arguments.real("validation_fraction", self.validation_fraction)
        if not 0 <= fraction < 1:
            raise ValueError(
                f"validation_fraction: must be at least 0 and less than 1, not {fraction}"
            )
        if fraction == 0:
            if self.max_layers is None and self.n_models in (None, 1):
                raise ValueError(
                    "validation_fraction, max_layers: give a fraction above 0, or the number of "
                    "layers"
                )
            return np.zeros(n, bool)
        group = equal_rows(X)
        if n < 2 or not group.any():
            raise ValueError(f"X: the {n} rows with weight are equal: they have no density")
        # Numbered as they first appear: the last bits of values do not change the split.
        _, first = np.unique(group, return_index=True)
        group = np.argsort(np.argsort(first))[group]
        held_out = max(min(max(round(fraction * n), LEAST), n // 2), 1)
        return splits(group, held_out, 1, seed)[0]

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the log-density of each row.

        Parameters
        ----------
        X : (n, d) array-like of real numbers, or table

        Returns
        -------
        (n,) float64 array
            log p in nats; -inf outside of `bounds`.

        Examples
        --------
        See `GISDensity`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=DTYPES, reset=False)
        return self.flow_.evaluate_density(X)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Return the sum of the rows' log-densities, as `KernelDensity.score` does.

        Parameters
        ----------
        X : (n, d) array-like of real numbers, or table
        y : ignored

        Returns
        -------
        float

        Examples
        --------
        >>> import numpy as np
        >>> from pyflow.sklearn import GISDensity
        >>> x = np.random.default_rng(0).normal(size=(300, 1))
        >>> density = GISDensity(max_layers=2, random_state=0).fit(x)
        >>> bool(density.score(x) == density.score_samples(x).sum())
        True
        """
        return float(self.score_samples(X).sum())

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> Any:
        """Draw rows from the density.

        Parameters
        ----------
        n_samples : int
        random_state : int, numpy.random.RandomState or None
            The same int gives the same rows; None others every time.

        Returns
        -------
        (n_samples, d) array, or table
            In the flow's precision. A table after `set_output`.

        Examples
        --------
        See `set_output`.
        """
        check_is_fitted(self)
        n_samples = _arguments.integer("n_samples", n_samples, 0)
        seed = _arguments.seed(check_random_state(random_state))
        x, _ = self.flow_.sample(n_samples, seed=seed)
        how = get_config().get("transform_output", "default")
        how = getattr(self, "_sklearn_output_config", {}).get("transform", how)
        names = getattr(self, "feature_names_in_", [f"x{j}" for j in range(x.shape[1])])
        if how == "pandas":
            import pandas

            return pandas.DataFrame(x, columns=names)
        if how == "polars":
            import polars

            return polars.DataFrame(x, schema=list(names))
        return x

    def set_output(self, *, transform: str | None = None) -> GISDensity:
        """Say what `sample` returns, in the words that transformers of scikit-learn use.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"}, optional
            An array, or a table with the names of the columns. None changes nothing. Until it is
            given, `sklearn.set_config(transform_output=...)` says.

        Returns
        -------
        GISDensity
            Itself.

        Examples
        --------
        >>> import numpy as np
        >>> from pyflow.sklearn import GISDensity
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> density = GISDensity(max_layers=2).fit(x).set_output(transform="pandas")
        >>> list(density.sample(10).columns)
        ['x0', 'x1']
        """
        if transform is not None:
            if transform not in OUTPUTS:
                raise ValueError(f"transform: must be one of {OUTPUTS}, not {transform!r}")
            self._sklearn_output_config = {"transform": transform}  # `clone` knows this attribute
        return self
