"""Whether two samples are of one distribution: a classifier's AUC, and how wide they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyflow import _arguments, _tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

BOOTSTRAPS = 200  # of a spread's error


class TwoSample(NamedTuple):
    """How well a classifier tells two samples apart: what `two_sample_test` returns.

    Attributes
    ----------
    auc : float
        Area under the ROC curve: how often a row of y, chosen at random, is given a higher score
        than a row of x; the mean over folds. 0.5: no better than by chance; 1: every time.
    auc_error : float
        Its standard error: that of the rows of each fold (DeLong et al. 1988), and more because
        folds share training rows, by a factor of (1 + folds / (folds - 1))^(1/2) (Nadeau & Bengio
        2003). It is rather too large than too small.
    accuracy : float
        Share of rows that are given to their own sample: the C2ST of Lopez-Paz & Oquab (2017, arXiv
        1610.06545). 0.5: no better than by chance.
    accuracy_error : float
        Its standard error, that of a binomial share.
    p_value : float
        How often samples of one distribution have as high an AUC: from the errors of the AUC, or
        from permutations where they were asked for.
    scores : (2 n,) float64 array
        Of every row, from the classifier that did not see it.
    is_y : (2 n,) bool array
        Which rows are of y.
    fold : (2 n,) int array
        Which fold each row was held out with. Scores of different folds are of different
        classifiers.

    Examples
    --------
    See `two_sample_test`.
    """

    auc: float
    auc_error: float
    accuracy: float
    accuracy_error: float
    p_value: float
    scores: Floats
    is_y: NDArray[np.bool_]
    fold: NDArray[np.intp]

    def __str__(self) -> str:
        return (
            f"Two samples of {len(self.is_y) // 2} rows: AUC {self.auc:.3f} ± {self.auc_error:.3f},"
            f" accuracy {self.accuracy:.3f} ± {self.accuracy_error:.3f} (0.5: not told apart);"
            f" p = {self.p_value:.2g}"
            + "; an AUC so far below 0.5 is that of samples that share rows, or copies of them"
            * (self.auc < 0.5 - 3 * self.auc_error)
        )

    def plot(self) -> Figure:
        """Draw the ROC curve, and the scores of both samples.

        Returns
        -------
        matplotlib.figure.Figure

        Examples
        --------
        >>> import numpy as np
        >>> from pyflow.checks import two_sample_test
        >>> x = np.random.default_rng(0).normal(size=(2, 200, 2))
        >>> [axes.get_xlabel() for axes in two_sample_test(x[0], x[1] + 1).plot().axes]
        ['share of x above', 'rank of the score']
        """
        from pyflow import plots

        return plots.two_samples(self)


def two_sample_test(
    x: ArrayLike,
    y: ArrayLike,
    classifier: Any = None,
    *,
    folds: int = 5,
    permutations: int = 0,
    seed: int | None = 0,
) -> TwoSample:
    """Return how well a classifier tells two samples apart, on rows that it was not trained on.

    An AUC of 0.5 says that this classifier finds no difference, not that there is none. Rows must
    be independent: copies of a row, or points of a chain, that fall into different folds are
    recognised. For samples of a flow, x are rows that the fit has not seen, neither in training nor
    in validation.

    Parameters
    ----------
    x, y : (n, ...) and (m, ...) array-like
        Of the larger sample as many rows are taken as the smaller has, at random. Columns of y are
        matched to those of x where both have names. All are standardised for the classifier.
    classifier : scikit-learn classifier, optional
        With `predict_proba` or `decision_function`. It is cloned for every fold. Default: a random
        forest of 100 trees, with leaves of 3 rows at least.
    folds : int
        Of the cross-validation, stratified.
    permutations : int
        How often rows are given to the samples at random, and all is done again, for a p-value that
        needs no assumption; it takes as many times as long, and is no smaller than
        1 / (1 + permutations). Default: none, and the p-value is that of a normal distribution of
        the AUC.
    seed : int or None
        Of the rows that are taken, the folds, the default classifier, and permutations.

    Returns
    -------
    TwoSample

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If samples are of different columns, are not finite, or have fewer rows than folds ask for.

    Examples
    --------
    Two Gaussians, and one of another width:

    >>> import numpy as np
    >>> from pyflow.checks import two_sample_test
    >>> rng = np.random.default_rng(1)
    >>> x, y = rng.normal(size=(2, 200, 2))
    >>> same, wide = two_sample_test(x, y), two_sample_test(x, 2 * y)
    >>> bool(abs(same.auc - 0.5) < 3 * same.auc_error), bool(wide.auc > 0.6)
    (True, True)
    >>> same.p_value > 0.01, wide.p_value < 1e-3
    (True, True)
    """
    x, y, _ = _both(x, y, "x", "y")
    folds = _arguments.integer("folds", folds, 2)
    permutations = _arguments.integer("permutations", permutations, 0)
    n = min(len(x), len(y))
    if n < 2 * folds:
        raise ValueError(f"folds: {folds} of two rows of each sample need {2 * folds}, not {n}")
    rng = np.random.default_rng(_arguments.seed(seed))
    rows = np.concatenate([z if len(z) == n else z[rng.permutation(len(z))[:n]] for z in (x, y)])
    centre, scale = rows.mean(axis=0), rows.std(axis=0)
    rows = (rows - centre) / np.where(scale > 0, scale, 1.0)
    is_y = np.repeat([False, True], n)
    fold = np.concatenate([rng.permutation(n) % folds for _ in range(2)])
    make = _maker(classifier, int(rng.integers(2**31)))
    scores, right = _held_out(make, rows, is_y, fold)
    auc, error = _auc(scores, is_y, fold)
    if permutations:
        count = 0
        for _ in range(permutations):
            other = np.empty(2 * n, bool)
            for k in range(folds):  # within folds, which keeps as many rows of both in each
                other[fold == k] = rng.permutation(is_y[fold == k])
            count += _auc(_held_out(make, rows, other, fold)[0], other, fold)[0] >= auc
        p_value = (1 + count) / (1 + permutations)
    else:
        p_value = 0.5 * math.erfc((auc - 0.5) / (error * math.sqrt(2)))
    share = float(right.mean())
    spread = math.sqrt(max(share * (1 - share), 0.25 / n) / (2 * n))
    return TwoSample(auc, error, share, spread, float(p_value), scores, is_y, fold)


def _both(x, y, name, other):
    """Return two samples as float64 rows, and the names of their columns or None."""
    names, others = _tables.names(x, name), _tables.names(y, other)
    if names is not None and others is not None:
        y = _tables.matched(y, other, names)
    found = []
    for rows, what in ((x, name), (y, other)):
        rows = np.asarray(_arguments.rows(rows, what))
        if rows.dtype.kind not in "biuf":
            raise ValueError(f"{what}: must hold real numbers; its dtype is {rows.dtype}")
        if rows.ndim < 1 or not rows.size:
            raise ValueError(f"{what}: must have shape (n, ...), n > 0; its shape is {rows.shape}")
        rows = rows.reshape(len(rows), -1).astype(np.float64)
        if not np.isfinite(rows).all():
            row = int(np.argwhere(~np.isfinite(rows))[0, 0])
            raise ValueError(f"{what}: is NaN or infinite in row {row}")
        found.append(rows)
    if found[0].shape[1] != found[1].shape[1]:
        raise ValueError(
            f"{other}: has {found[1].shape[1]} columns where {name} has {found[0].shape[1]}"
        )
    return *found, others if names is None else names


def _maker(classifier, seed):
    """Return a function that gives a new classifier."""
    try:
        from sklearn.base import clone
        from sklearn.ensemble import RandomForestClassifier
    except ImportError:
        raise ImportError(
            "two_sample_test: needs scikit-learn: pip install scikit-learn, or "
            "'pyflow-sinf[sklearn]'"
        ) from None
    if classifier is None:
        classifier = RandomForestClassifier(100, min_samples_leaf=3, random_state=seed)
    if not (hasattr(classifier, "predict_proba") or hasattr(classifier, "decision_function")):
        raise TypeError(
            "classifier: must have predict_proba or decision_function, as scikit-learn's have, not "
            f"{type(classifier).__name__}"
        )
    return lambda: clone(classifier)


def _held_out(make, rows, is_y, fold):
    """Return the scores of rows, and whether they are given to their own sample."""
    scores, right = np.empty(len(rows)), np.empty(len(rows), bool)
    for k in range(fold.max() + 1):
        test = fold == k
        fitted = make().fit(rows[~test], is_y[~test])
        if hasattr(fitted, "predict_proba"):
            scores[test] = fitted.predict_proba(rows[test])[:, 1]
        else:
            scores[test] = fitted.decision_function(rows[test])
        right[test] = fitted.predict(rows[test]) == is_y[test]
    return scores, right


def _auc(scores, is_y, fold):
    """Return the mean AUC over folds, and its standard error.

    Of m scores a_i and n scores b_j, AUC = mean_ij [b_j > a_i] + [b_j = a_i] / 2 has the variance
    Var_i(mean_j) / m + Var_j(mean_i) / n (DeLong et al. 1988). Those of folds are not independent:
    each fold's rows have trained the classifiers of the others. Each counts as if it had a part of
    its variance, as large as test rows are to training rows, in common with all others (Nadeau &
    Bengio 2003).
    """
    folds = fold.max() + 1
    mean = variance = 0.0
    for k in range(folds):
        a, b = (np.sort(scores[(fold == k) & (is_y == one)]) for one in (False, True))
        above = 1 - 0.5 * sum(np.searchsorted(b, a, side=s) for s in ("left", "right")) / len(b)
        below = 0.5 * sum(np.searchsorted(a, b, side=s) for s in ("left", "right")) / len(a)
        mean += above.mean() / folds
        own = above.var(ddof=1) / len(a) + below.var(ddof=1) / len(b)
        least = 1 / (4 * len(a) * len(b))  # of scores that are all told apart: not none
        variance += max(own, least) / folds
    return float(mean), math.sqrt(variance * (1 / folds + 1 / (folds - 1)))


# ---- how wide they are ---------------------------------------------------------------------------


class Spread(NamedTuple):
    """How wide samples are, compared with data, in every column: what `sample_spread` returns.

    Attributes
    ----------
    ratio : (d,) float64 array
        Of the ranges between two quantiles; 1: as wide.
    error : (d,) float64 array
        Standard error of its logarithm, from both samples' rows; NaN where these may have no width.
    names : tuple of str
        What the columns are called.

    Examples
    --------
    See `sample_spread`.
    """

    ratio: Floats
    error: Floats
    names: tuple[str, ...]

    def __str__(self) -> str:
        known = np.isfinite(self.ratio) & (self.ratio > 0) & np.isfinite(self.error)
        left = f"{len(known) - known.sum()} of {len(known)} columns, of few values, are left out"
        if not known.any():
            return f"Samples and data are not compared: {left}"
        with np.errstate(divide="ignore", invalid="ignore"):
            far = np.abs(np.log(np.where(known, self.ratio, 1))) / self.error
        worst = int(np.argmax(np.where(known, np.nan_to_num(far, posinf=np.inf), -1)))
        return (
            f"Samples are {np.median(self.ratio[known]):.3f} times as wide as data in the median"
            f" column; furthest off, in its errors, {self.names[worst]}: {self.ratio[worst]:.3f} ±"
            f" {self.ratio[worst] * self.error[worst]:.3f}" + f"; {left}" * (not known.all())
        )

    def plot(self) -> Figure:
        """Draw the ratio of every column, with its error.

        Returns
        -------
        matplotlib.figure.Figure

        Examples
        --------
        >>> import numpy as np
        >>> from pyflow.checks import sample_spread
        >>> x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
        >>> sample_spread(x, y).plot().axes[0].get_ylabel().splitlines()
        ['width of samples / data', '± 2 standard errors']
        """
        from pyflow import plots

        return plots.spread(self)


def sample_spread(
    samples: ArrayLike,
    data: ArrayLike,
    quantiles: Sequence[float] = (0.05, 0.95),
    *,
    seed: int | None = 0,
) -> Spread:
    """Return how wide samples are, compared with data, in every column.

    Samples of a flow that learned its training rows by heart are too narrow, or have spikes; those
    of one that learned too little are too wide. Compare with data that the fit has not seen.

    Parameters
    ----------
    samples, data : (n, ...) and (m, ...) array-like
    quantiles : (float, float)
        Between which the range of each is taken.
    seed : int or None
        Of the resampling that gives the errors.

    Returns
    -------
    Spread
        Where data do not vary between the quantiles the ratio is infinite, or NaN if samples do not
        either.

    Raises
    ------
    ValueError
        If they are of different columns, not finite, or quantiles do not rise from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from pyflow.checks import sample_spread
    >>> x, y = np.random.default_rng(0).normal(size=(2, 4000, 2))
    >>> sample_spread(x * [1, 2], y).ratio.round(1)
    array([1., 2.])
    """
    ends = [_arguments.real("quantiles", q) for q in quantiles]
    if len(ends) != 2 or not 0 <= ends[0] < ends[1] <= 1:
        raise ValueError(f"quantiles: must be two that rise, from 0 to 1, not {quantiles!r}")
    data, samples, names = _both(data, samples, "data", "samples")
    rng = np.random.default_rng(_arguments.seed(seed))

    def width(x):
        return np.diff(np.quantile(x, ends, axis=0), axis=0)[0]

    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = width(samples) / width(data)
        variance = 0.0
        for x in (samples, data):
            other = [np.log(width(x[rng.integers(0, len(x), len(x))])) for _ in range(BOOTSTRAPS)]
            variance = variance + np.var(other, axis=0)
    names = names or tuple(f"x{j}" for j in range(len(ratio)))
    return Spread(ratio, np.sqrt(variance), names)
