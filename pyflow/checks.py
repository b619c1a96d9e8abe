"""Whether posteriors, and samples, are what they say.

Coverage, ranks and TARP of posteriors over known simulations; a classifier's AUC between two
samples, and how wide they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import _arguments, _tables
from pyflow._two_samples import Spread, TwoSample, sample_spread, two_sample_test
from pyflow.posterior import Posterior, bounds_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "Coverage",
    "Spread",
    "TwoSample",
    "coverage",
    "coverage_of_samples",
    "sample_spread",
    "two_sample_test",
]

DRAWS = 999  # of a posterior, that its truth is ranked among
FLIPS = 1999  # of the signs of simulations, for a p-value
ODD = 0.01  # p-values below this are called out: there are several
SURE = 2.0  # standard errors from which a width is called wrong; of a mean one more


def __dir__():
    return __all__


class Coverage:
    """How often posteriors of simulations hold their truths: what `Flow.check` returns.

    If posteriors are what they say, and truths are draws from the prior, then `credibility`, every
    column of `ranks`, and `tarp` are uniform between 0 and 1. All maps of a simulation together
    count as one: its maps share its weight, and standard errors and p-values come from the scatter
    of whole simulations.

    Parameters
    ----------
    credibility, tarp, log_posterior : (n,) array-like
    ranks, z : (n, p) array-like
    simulation : (n,) array-like
        What each map is of: a label.
    names : sequence of str
        What the parameters are called.
    seed : int
        Of the p-values.

    Attributes
    ----------
    credibility : (n,) float64 array
        Mass of the smallest region of each posterior that reaches the truth
        (`Posterior.credibility`); of draws without densities, of ellipses.
    ranks : (n, p) float64 array
        Of the truth of each parameter among draws of its posterior, 0 to 1: simulation-based
        calibration (Talts et al. 2018, arXiv 1804.06788).
    tarp : (n,) float64 array
        Share of draws of the posterior that are closer than the truth to a random point of the
        prior's box, in units of that box (Lemos et al. 2023, arXiv 2302.03026).
    log_posterior : (n,) float64 array
        log p(y|x) of the truth, in nats; -inf outside of the prior; NaN where it is not known.
    z : (n, p) float64 array
        (mean - truth) / standard deviation, of each posterior.
    simulation : (n,) int array
        Number of the simulation that each map is of.
    simulations : int
        How many there are.
    names : tuple of str
    p_values : dict
        Of uniformity: "credibility" and "tarp", floats, and "ranks", a (p,) array. See `p_value`.

    Examples
    --------
    Posteriors of the mean of a Gaussian, right and half as wide:

    >>> import numpy as np, pyflow
    >>> from pyflow.checks import coverage
    >>> rng = np.random.default_rng(1)
    >>> y = rng.uniform(-1, 1, (200, 1))
    >>> x = y + 0.1 * rng.normal(size=y.shape)
    >>> def posteriors(width):
    ...     for seen in x:
    ...         yield pyflow.Posterior(lambda y: -0.5 * ((y[:, 0] - seen) / width)**2, [(-1, 1)])
    >>> coverage(posteriors(0.1), y).verdict
    'right within errors'
    >>> coverage(posteriors(0.05), y).verdict
    'too narrow'
    """

    def __init__(
        self,
        credibility: ArrayLike,
        ranks: ArrayLike,
        tarp: ArrayLike,
        log_posterior: ArrayLike,
        z: ArrayLike,
        simulation: ArrayLike,
        names: Iterable[str],
        seed: int | None = 0,
    ):
        self.credibility = np.asarray(credibility, dtype=np.float64)
        self.ranks = np.asarray(ranks, dtype=np.float64)
        self.tarp = np.asarray(tarp, dtype=np.float64)
        self.log_posterior = np.asarray(log_posterior, dtype=np.float64)
        self.z = np.asarray(z, dtype=np.float64)
        _, self.simulation = np.unique(np.asarray(simulation), return_inverse=True)
        self.simulations = int(self.simulation.max()) + 1
        self.names = tuple(names)
        self._maps = np.bincount(self.simulation)
        seed = _arguments.seed(seed)
        self.p_values: dict[str, Any] = {
            "credibility": self.p_value(self.credibility, seed),
            "ranks": np.array([self.p_value(column, seed) for column in self.ranks.T]),
            "tarp": self.p_value(self.tarp, seed),
        }

    def by_simulation(self, values: ArrayLike) -> Floats:
        """Return the mean of the values (n, ...) of each simulation's maps, (simulations, ...)."""
        values = np.asarray(values, dtype=np.float64)
        total = np.zeros((self.simulations, *values.shape[1:]))
        np.add.at(total, self.simulation, values)
        return total / self._maps.reshape(-1, *[1] * (values.ndim - 1))

    def held(self, level: float) -> tuple[float, float]:
        """Return the share of truths inside the regions of this mass, and its standard error.

        Parameters
        ----------
        level : float
            Between 0 and 1.

        Returns
        -------
        share, error : float
            The error is that of resampling whole simulations, one more that holds its truth and
            one that does not among them (Agresti & Coull 1998): it is never zero.

        Examples
        --------
        >>> import numpy as np
        >>> from pyflow.checks import Coverage
        >>> u = (np.arange(100) + 0.5) / 100
        >>> even = Coverage(u, u[:, None], u, 0 * u, 0 * u[:, None], range(100), ["a"])
        >>> share, error = even.held(0.68)
        >>> share, round(error, 3)
        (0.68, 0.046)
        """
        level = _arguments.real("level", level)
        if not 0 < level < 1:
            raise ValueError(f"level: must be between 0 and 1, not {level}")
        inside = self.by_simulation(self.credibility <= level)
        both = np.append(inside, [0.0, 1.0])
        return float(inside.mean()), float(both.std() / np.sqrt(len(both)))

    def p_value(self, values: ArrayLike, seed: int | None = 0) -> float:
        """Return how often uniform values are as far from uniform as these (n,).

        How far is the Cramer-von Mises distance, the integral of (F(t) - t)^2, of their cumulative
        distribution F. Each simulation adds a function of t to F - t whose expectation is zero if
        they are uniform; the p-value comes from giving these functions random signs, which
        keeps what maps of one simulation have in common (a wild bootstrap; Liu 1988).

        Examples
        --------
        See `p_values`, which holds those of `credibility`, `ranks` and `tarp`.
        """
        t = (np.arange(100) + 0.5) / 100
        off = self.by_simulation((np.asarray(values)[:, None] <= t) - t)
        rng = np.random.default_rng(_arguments.seed(seed))
        signs = rng.integers(0, 2, (FLIPS, len(off))) * 2 - 1
        far = (off.sum(axis=0) ** 2).sum()
        chance = ((signs @ off) ** 2).sum(axis=1)
        return float((1 + (chance >= far * (1 - 1e-12)).sum()) / (1 + FLIPS))

    def _mean(self, values):
        """Return the mean of values (n,), and its standard error: of one simulation, infinite."""
        each = self.by_simulation(values)
        error = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.inf
        return float(each.mean()), float(error)

    @property
    def verdict(self) -> str:
        """What the credibilities say of the regions: a few plain words.

        "too narrow" or "too wide" if their mean is more than two standard errors from 1/2;
        otherwise "right within errors", or "of another shape than they say" where they are not
        uniform all the same (p < 0.01).

        Examples
        --------
        See the class.
        """
        mean, error = self._mean(self.credibility)
        if abs(mean - 0.5) > SURE * error:
            return "too narrow" if mean > 0.5 else "too wide"
        odd = self.p_values["credibility"] < ODD
        return "of another shape than they say" if odd else "right within errors"

    def __str__(self) -> str:
        n, s = len(self.credibility), self.simulations
        lines = [f"Posteriors of {n} maps of {s} simulations: their regions are {self.verdict}."]
        for level in (0.68, 0.95):
            share, error = self.held(level)
            lines.append(
                f"  {100 * level:.0f} % regions hold {100 * share:.1f} ± {100 * error:.1f} % "
                f"of the truths"
            )
        for j, name in enumerate(self.names):
            mean, error = self._mean(self.z[:, j])
            width = np.sqrt(self._mean(self.z[:, j] ** 2)[0])
            line = f"  {name}: means are off by {mean:+.2f} ± {error:.2f} standard deviations"
            off = abs(mean) > (SURE + 1) * error
            line += f", too {'high' if mean > 0 else 'low'}" if off else ""
            line += f"; by {width:.2f} in the root mean square"
            lines.append(line)
        ranks = ", ".join(f"{p:.2g}" for p in self.p_values["ranks"])
        lines.append(
            f"  uniform with p = {self.p_values['credibility']:.2g} (credibility), "
            f"{ranks} (ranks), {self.p_values['tarp']:.2g} (TARP)"
        )
        mean = self.by_simulation(self.log_posterior).mean()
        if not np.isnan(mean):
            lines.append(f"  mean log p(y|x): {mean:.3f} nats")
        return "\n".join(lines)

    __repr__ = __str__

    def plot(self) -> Figure:
        """Draw coverage against credibility, the TARP curve, and histograms of ranks.

        Bands hold 95 % of such curves, or bars, of so many simulations with right posteriors.

        Returns
        -------
        matplotlib.figure.Figure

        Examples
        --------
        >>> import numpy as np
        >>> from pyflow.checks import Coverage
        >>> u = np.random.default_rng(1).random((5, 60))
        >>> found = Coverage(u[0], u[1:3].T, u[3], u[4], u[1:3].T, np.arange(60), ["a", "b"])
        >>> [axes.get_xlabel() for axes in found.plot().axes]
        ['credibility', 'TARP credibility', 'rank of a', 'rank of b']
        """
        from pyflow import plots

        return plots.coverage(self)


def coverage(
    posteriors: Iterable[Posterior],
    y: ArrayLike,
    *,
    simulation: ArrayLike | None = None,
    seed: int | None = 0,
) -> Coverage:
    """Return how often posteriors hold their truths.

    Parameters
    ----------
    posteriors : iterable of Posterior, or of what has its methods
        `mean`, `cov`, `bounds`, `names`, `logp`, `credibility` and `sample` are used. One is
        looked at at a time: a generator never holds more.
    y : (n, p) array-like
        Their truths. The columns of a table are those that are called as the parameters of the
        posteriors are, in that order.
    simulation : (n,) array-like, optional
        Labels of the simulations. Default: equal rows of y are one simulation.
    seed : int
        Of the draws of posteriors, the reference points of TARP, and the p-values.

    Returns
    -------
    Coverage

    Raises
    ------
    ValueError
        If there are not as many posteriors as truths, or they are of other parameters, or of
        different ones.

    Warns
    -----
    UserWarning
        If truths lie outside of the bounds of their posteriors.

    Examples
    --------
    See `Coverage`.
    """
    if _tables.names(y, "y") is None:
        y = truths_of(y)  # before the first posterior, which may take long
    posteriors = iter(posteriors)
    first = list(islice(posteriors, 1))
    names = tuple(first[0].names) if first else None
    y = truths_of(_tables.matched(y, "y", names))
    simulation = simulations_of(simulation, y)
    n, p = y.shape
    rng = np.random.default_rng(_arguments.seed(seed))
    rows, outside, count = [], 0, 0
    for count, post in enumerate(chain(first, posteriors), 1):
        if count > n:
            raise ValueError(f"y: there are {n} truths, and more posteriors")
        if tuple(post.names) != names:
            raise ValueError(
                f"posteriors: number {count - 1} is of {', '.join(post.names)}, the first of "
                f"{', '.join(names)}"
            )
        if len(post.bounds) != p:
            raise ValueError(f"y: must have shape (n, {len(post.bounds)}); its shape is {y.shape}")
        at = y[count - 1]
        (least, most), sigma = np.transpose(post.bounds), np.sqrt(np.diag(post.cov))
        outside += bool((at < least).any() or (at > most).any())
        draws = post.sample(DRAWS, rng.integers(2**63))
        reference, scale = rng.uniform(least, most), most - least
        tarp = _rank(_distance(draws, reference, scale), _distance(at, reference, scale), rng)
        ranks = [_rank(draws[:, j], at[j], rng) for j in range(p)]
        z = (post.mean - at) / np.maximum(sigma, np.finfo(float).tiny)
        rows.append((float(post.credibility(at)), ranks, tarp, float(post.logp(at)), z))
    if count < n:
        raise ValueError(f"y: there are {n} truths for {count} posteriors")
    if outside:
        _arguments.warn(
            f"y: {outside} of {n} truths lie outside of the prior: no posterior holds them"
        )
    return Coverage(*zip(*rows, strict=True), simulation, names, seed)


def coverage_of_samples(
    samples: Iterable[ArrayLike],
    y: ArrayLike,
    *,
    logp: Iterable[ArrayLike] | None = None,
    logp_true: ArrayLike | None = None,
    bounds: ArrayLike | None = None,
    names: Iterable[str] | None = None,
    simulation: ArrayLike | None = None,
    seed: int | None = 0,
) -> Coverage:
    """Return how often posteriors hold their truths, of which there are draws alone.

    For posteriors of any origin. `Flow.check_draws` is this of a flow whose points are parameters.

    Parameters
    ----------
    samples : (n, draws, p) array-like, or iterable of (draws, p) array-likes
        Independent draws of each posterior, 99 or better 999 of them. One is looked at at a time: a
        generator never holds more. Columns of tables are matched to those of y.
    y : (n, p) array-like
        Their truths.
    logp : (n, draws) array-like, or iterable of (draws,) array-likes, optional
        Log-densities of the draws, up to a constant for each posterior. With them regions are those
        of highest density. Without, they are ellipses of the mean and the covariance of the draws
        and the truth together: right posteriors have uniform credibilities then too.
    logp_true : (n,) array-like, optional
        Log-densities of the truths; with logp, and of the same constants.
    bounds : (p, 2) array-like, optional
        The prior's box, from which TARP's reference points are drawn. Default: the range of y.
    names : sequence of str, optional
        What the parameters are called. Default: what the columns of y are called, or those of
        samples. Of a table y that has columns of these names those are taken, in this order.
    simulation, seed : optional
        As in `coverage`.

    Returns
    -------
    Coverage

    Raises
    ------
    ValueError
        If there are not as many samples, or logp, as truths, or of other shapes, or only one of
        logp and logp_true is given.

    Examples
    --------
    Draws of the mean of a Gaussian, right and twice as wide:

    >>> import numpy as np
    >>> from pyflow.checks import coverage_of_samples
    >>> rng = np.random.default_rng(2)
    >>> y = rng.uniform(-1, 1, (200, 2))
    >>> x = y + 0.1 * rng.normal(size=y.shape)
    >>> draws = rng.normal(size=(200, 500, 2))
    >>> coverage_of_samples(x[:, None] + 0.1 * draws, y).verdict
    'right within errors'
    >>> coverage_of_samples(x[:, None] + 0.2 * draws, y).verdict
    'too wide'
    """
    known = _tables.names(y, "y")
    if names is not None:
        names = _arguments.names(names, None, "parameters")
        if known is not None and set(names) <= set(known):
            y, known = _tables.matched(y, "y", names), tuple(names)
    y = truths_of(y)
    n, p = y.shape
    simulation = simulations_of(simulation, y)
    if (logp is None) != (logp_true is None):
        raise ValueError("logp: and logp_true go together")
    if logp_true is None:
        at_truths = np.full(n, np.nan)
    else:
        at_truths = np.asarray(_arguments.rows(logp_true, "logp_true"), dtype=np.float64)
        if at_truths.shape != (n,) or np.isnan(at_truths).any():
            raise ValueError(f"logp_true: must be {n} numbers; its shape is {at_truths.shape}")
    if names is not None:
        names = _arguments.names(names, p, "parameters")
    box = np.stack([y.min(axis=0), y.max(axis=0)], axis=1)
    box = box if bounds is None else bounds_of(bounds, "bounds", p)
    least, most = box.T
    scale = np.where(most > least, most - least, 1.0)
    rng = np.random.default_rng(_arguments.seed(seed))
    logs = None if logp is None else iter(logp)
    rows, count = [], 0
    for count, draws in enumerate(samples, 1):
        if count > n:
            raise ValueError(f"y: there are {n} truths, and more samples")
        own = _tables.names(draws, "samples")
        if known is None:  # y has no names: those of samples are as of the first, or as they say
            known = names if own is None or set(names or [None]) <= set(own) else own
        draws = _tables.matched(draws, "samples", known) if own is not None else draws
        at, draws = y[count - 1], _draws_of(draws, count - 1, p)
        mean, sigma = draws.mean(axis=0), draws.std(axis=0, ddof=1)
        if logs is None:
            far = _ellipses(np.vstack([draws, at]))
            credibility = _rank(far[:-1], far[-1], rng)
        else:
            values = np.asarray(next(logs, ()), dtype=np.float64)
            if values.shape != (len(draws),) or np.isnan(values).any():
                raise ValueError(
                    f"logp: must be {len(draws)} numbers for sample {count - 1}; its shape is "
                    f"{values.shape}"
                )
            credibility = _rank(-values, -at_truths[count - 1], rng)
        reference = rng.uniform(least, most)
        tarp = _rank(_distance(draws, reference, scale), _distance(at, reference, scale), rng)
        ranks = [_rank(draws[:, j], at[j], rng) for j in range(p)]
        z = (mean - at) / np.maximum(sigma, np.finfo(float).tiny)
        rows.append((credibility, ranks, tarp, at_truths[count - 1], z))
    if count < n:
        raise ValueError(f"y: there are {n} truths for {count} samples")
    if logs is not None and next(logs, None) is not None:
        raise ValueError(f"logp: there are more than the {n} samples")
    names = names or known or _arguments.names(None, p, "parameters")
    return Coverage(*zip(*rows, strict=True), simulation, names, seed)


def _draws_of(draws, number, p):
    """Return draws of a posterior as a float64 array (draws, p)."""
    draws = np.asarray(_arguments.rows(draws, "samples"))
    if draws.dtype.kind not in "biuf":
        raise ValueError(f"samples: must hold real numbers; the dtype is {draws.dtype}")
    draws = draws[:, None] if draws.ndim == 1 and p == 1 else draws
    if draws.ndim != 2 or draws.shape[1] != p or len(draws) < 2:
        raise ValueError(
            f"samples: must have shape (draws, {p}), two at least; the shape of sample {number} is "
            f"{draws.shape}"
        )
    if not np.isfinite(draws).all():
        raise ValueError(f"samples: sample {number} is NaN or infinite somewhere")
    return draws.astype(np.float64)


def _ellipses(y):
    """Return squared distances (m,) of points (m, p) from their mean, by their covariance."""
    y = y - y.mean(axis=0)
    scale = y.std(axis=0)
    y = y / np.where(scale > 0, scale, 1.0)
    return ((y @ np.linalg.pinv(y.T @ y / len(y), hermitian=True)) * y).sum(axis=1)


def _distance(y, reference, scale):
    return np.sqrt((((y - reference) / scale) ** 2).sum(axis=-1))


def _rank(draws, truth, rng):
    """Return the rank of a truth among draws, from 0 to 1: uniform if it is one more draw."""
    below, equal = (draws < truth).sum(), (draws == truth).sum()
    return (below + (1 + equal) * rng.random()) / (1 + len(draws))


def truths_of(y):
    """Return truths as a float64 array (n, p), n > 0, without NaN; an error names the argument."""
    y = np.asarray(_arguments.rows(y, "y"))
    if y.dtype.kind not in "biuf":
        raise ValueError(f"y: must hold real numbers; its dtype is {y.dtype}")
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or not y.size:
        raise ValueError(f"y: must have shape (n, p), n > 0; its shape is {y.shape}")
    if not np.isfinite(y).all():
        row = int(np.argwhere(~np.isfinite(y))[0, 0])
        raise ValueError(f"y: is NaN or infinite in row {row}")
    return y.astype(np.float64)


def simulations_of(simulation, y):
    """Return the number of the simulation of each row of y (n, p): equal rows, without labels."""
    if simulation is None:
        return np.unique(y, axis=0, return_inverse=True)[1].reshape(-1)
    simulation = _arguments.labels(simulation, "simulation")
    if simulation.shape != (len(y),):
        raise ValueError(
            f"simulation: must have shape ({len(y)},), a label for each map; "
            f"its shape is {simulation.shape}"
        )
    return np.unique(simulation, return_inverse=True)[1]
