"""Posteriors of a few parameters: on a grid that finds its own place, or from a chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyflow import _arguments, _exports, _tables
from pyflow._grid import Grid
from pyflow._quadrature import Chain, Draws, import_emcee

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    Seed = int | np.random.Generator | np.random.SeedSequence | None

__all__ = ["Posterior"]

CUT = 0.01  # of a prior's mass, that the training range cuts off unsaid
SLACK = 0.02  # of the range beyond it: least and most of a sample never quite reach the ends
DRAWS = 10000  # of a prior of several parameters


def __dir__():
    return __all__


def bounds_of(bounds, name, n=None):
    """Return bounds as a (p, 2) float64 array; an error names the argument."""
    try:
        bounds = np.asarray(bounds, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: must be numbers of shape (p, 2): lower and upper bounds"
        ) from None
    if bounds.ndim != 2 or bounds.shape[1] != 2 or (n is not None and len(bounds) != n):
        p = "p" if n is None else n
        raise ValueError(f"{name}: must have shape ({p}, 2); its shape is {bounds.shape}")
    if not np.isfinite(bounds).all():
        raise ValueError(f"{name}: must be finite")
    for j, (least, most) in enumerate(bounds):
        if not least < most:
            raise ValueError(f"{name}: {least} is not below {most}, in row {j}")
    return bounds


def log_prior_of(prior, y, name="prior"):
    """Return what a callable prior says of (m, p) points, (m,): the same of all if it is a number.

    -inf is allowed; an error names the argument.
    """
    logs = np.asarray(prior(y), dtype=np.float64)
    if logs.shape not in ((), (len(y),)):
        raise ValueError(f"{name}: gave shape {logs.shape} for {len(y)} points, not one each")
    if np.isnan(logs).any() or (logs == np.inf).any():
        raise ValueError(f"{name}: gave NaN or infinity")
    return np.broadcast_to(logs, len(y))


class Prior(NamedTuple):
    """The log-density of a user's prior, checked; errors call it by its name."""

    log_density: Callable[[NDArray[np.float64]], ArrayLike]
    name: str

    def __call__(self, y):
        """Log-densities (m,) of (m, p) points."""
        return log_prior_of(self.log_density, y, self.name)


class Independent(NamedTuple):
    """The log-density of parameters that each have a distribution of their own, or None."""

    distributions: tuple[Any, ...]

    def __call__(self, y):
        """Log-densities (m,) of (m, p) points."""
        logs = np.zeros(len(y))
        for distribution, values in zip(self.distributions, y.T, strict=True):
            if distribution is not None:
                logs += distribution.logpdf(values)
        return logs


class Joint(NamedTuple):
    """The log-density of one distribution of all parameters: a single one's takes (m,) points."""

    distribution: Any

    def __call__(self, y):
        """Log-densities (m,) of (m, p) points."""
        points = y.T if hasattr(self.distribution, "dataset") else y  # as gaussian_kde takes them
        logs = np.asarray(self.distribution.logpdf(points))
        return logs[:, 0] if logs.shape == y.shape == (len(y), 1) else logs


def share_of(distribution, least, most):
    """Return the mass of a distribution of one parameter outside of a range; 0 if it is not known.

    That is 0 too where none lies more than `SLACK` of the range beyond it.
    """
    beyond = SLACK * (most - least)
    if hasattr(distribution, "cdf"):

        def outside(low, high):
            return float(distribution.cdf(low) + 1 - distribution.cdf(high))
    elif hasattr(distribution, "integrate_box_1d"):  # gaussian_kde

        def outside(low, high):
            return 1 - float(distribution.integrate_box_1d(low, high))
    else:
        return 0.0
    return outside(least, most) if outside(least - beyond, most + beyond) > 1e-9 else 0.0


def shares_of(distribution, ranges):
    """Return the same of each parameter, (p,), from draws of a distribution of scipy's."""
    if hasattr(distribution, "dataset"):
        y = distribution.resample(DRAWS, seed=0).T
    elif type(distribution).__module__.startswith("scipy.") and hasattr(distribution, "rvs"):
        y = distribution.rvs(DRAWS, random_state=0).reshape(DRAWS, -1)
    else:
        return np.zeros(len(ranges))
    least, most = np.transpose(ranges)
    beyond = SLACK * (most - least)
    far = ((y < least - beyond) | (y > most + beyond)).any(axis=0)
    return np.where(far, ((y < least) | (y > most)).mean(axis=0), 0.0)


def warn_cut(names, ranges, shares):
    """Warn, naming the parameter, where the training range cuts off much of a distribution."""
    for name, (least, most), share in zip(names, ranges, shares, strict=True):
        if share > CUT:
            _arguments.warn(
                f"prior: {100 * share:.2g} % of that of {name} lies outside of the training range, "
                f"{least:.6g} to {most:.6g}, and is cut off; bounds= may reach further"
            )


def prior_of(prior, bounds, names, ranges):
    """Return bounds (p, 2) and the log-density, or None where it is flat, of what users give.

    Parameters
    ----------
    prior : None, (p, 2) array-like, callable, distribution(s), or dict by name
    bounds : (p, 2) array-like or None
    names : sequence of str
    ranges : (p, 2) array
        Bounds where there are no others.
    """
    p = len(names)
    box = ranges.copy() if bounds is None else bounds_of(bounds, "bounds", p)
    if isinstance(prior, Mapping):
        for name in prior:
            if name not in names:
                raise ValueError(f"prior: {name!r} is none of the parameters {', '.join(names)}")
        parts = [prior.get(name) for name in names]
    elif isinstance(prior, list | tuple) and any(hasattr(part, "logpdf") for part in prior):
        parts = list(prior)
        if len(parts) != p:
            raise ValueError(f"prior: {len(parts)} distributions for {p} parameters")
    elif hasattr(prior, "logpdf"):
        one = hasattr(prior, "support")
        dim = getattr(prior, "dim", getattr(prior, "d", 1 if one else p))
        if dim != p:
            raise ValueError(
                f"prior: is of {dim} parameters, not {p}; give a list of distributions of one"
            )
        if bounds is None:
            shares = shares_of(prior, box) if p > 1 else [share_of(prior, *b) for b in box]
            warn_cut(names, box, shares)
        return box, Prior(Joint(prior), "prior")
    elif callable(prior):
        return box, Prior(prior, "prior")
    else:
        if bounds is not None:
            raise ValueError("bounds: are for a callable prior; prior gives them itself")
        return box if prior is None else bounds_of(prior, "prior", p), None
    for j, part in enumerate(parts):
        if part is not None and not hasattr(part, "logpdf"):
            box[j] = bounds_of([part], f"prior: {names[j]}", 1)[0]
            parts[j] = None
    if bounds is None:
        own = [
            0.0 if part is None else share_of(part, *b) for part, b in zip(parts, box, strict=True)
        ]
        warn_cut(names, box, own)
    flat = all(part is None for part in parts)
    return box, None if flat else Prior(Independent(tuple(parts)), "prior")


def method_of(method, p, grid, steps):
    """Return "grid" or "emcee"; refuse what the method makes nothing of."""
    if method is None:
        method = "grid" if p <= 3 else "emcee"
    if method not in ("grid", "emcee"):
        raise ValueError(f'method: must be "grid" or "emcee", not {method!r}')
    if method == "grid" and p > 3:
        raise ValueError(f"method: a grid serves 1 to 3 parameters, not {p}")
    if method == "grid" and steps is not None:
        raise ValueError("steps: are a chain's, not a grid's")
    if method == "emcee" and grid is not None:
        raise ValueError("grid: a chain has none")
    return method


class Posterior:
    """A probability density of a few parameters, known through its logarithm.

    Up to three parameters are integrated on a grid along the principal axes of the density. A
    smooth log-density needs 100 to 1,000 evaluations for two parameters, some thousands for three:
    a polynomial stands for it on the grid, if that agrees at points drawn from the density. Of
    three parameters one that nearly agrees is what 4,096 points are drawn from, which are weighted
    by what it is off. A density that no polynomial serves, or that is -inf somewhere in the region
    of the mass, is evaluated at every node. A second peak that is far away and narrower than the
    first can be missed: `method="emcee"` looks at 1,024 points or more to begin with. What no grid
    resolves is warned of, and sampled by emcee if that is installed, as more parameters always are
    (`pip install emcee`; Foreman-Mackey et al.
    2013, arXiv 1202.3665): 64 walkers or more find the mass from all over the bounds, and the chain
    is as long as its autocorrelation time asks for. All below is the same for both; a chain's noise
    is some 0.02 standard deviations in the mean, and a few per cent in volumes. A posterior can be
    pickled if its log-density can.

    Parameters
    ----------
    log_density : callable
        Of (m, p) points inside the bounds, the log-density up to a constant, (m,), or a number for
        all of them; -inf is allowed, but a prior with an edge is better given as `log_prior`.
    bounds : (p, 2) array-like
        Lower and upper bound of each parameter. The density is zero outside.
    names : sequence of str, optional
        What the parameters are called.
    method : {"grid", "emcee"}, optional
        Default: the grid for up to three parameters.
    log_prior : callable or distribution, optional
        As log_density, and added to it. It should be cheap: it is evaluated wherever the density
        is needed, never interpolated, and may have edges.
    grid : int, optional
        Nodes along each axis of the final grid. Default: 2048, 256, 48 for 1, 2, 3 parameters, and
        twice as many as long as that changes mean, covariance or volume by a per cent or so.
    seed : int or numpy.random.Generator, optional
        Of the chain: the same seed gives the same chain. None: another one every time.
    steps : int, optional
        Most steps of the chain, of 64 points or more. Default 10000. A warning says when it ends
        too short.

    Attributes
    ----------
    mean : (p,) float64 array
    cov : (p, p) float64 array
    log_evidence : float
        Logarithm of the integral of the density given, with the prior.
    log_evidence_error : float
        Its standard error; 0 on a grid. A chain's evidence comes from bridging the chain to
        draws of a Student-t of its mean and covariance (Meng & Wong 1996). The error knows nothing
        of peaks that no walker has found.
    bounds : (p, 2) float64 array
    names : tuple of str
    method : str

    Raises
    ------
    ImportError
        If emcee is needed and missing.

    Warns
    -----
    RuntimeWarning
        If a grid does not know the density to a per cent or so, or a chain is too short.

    Examples
    --------
    >>> import numpy as np
    >>> from pyflow.posterior import Posterior
    >>> post = Posterior(lambda y: -0.5 * (y**2).sum(axis=1) / 0.01, [(-1, 1), (-2, 2)])
    >>> bool(np.allclose(post.cov, 0.01 * np.eye(2), atol=1e-5))
    True
    >>> round(1 / post.figure_of_merit(0.68), 3)  # pi 0.01 2.279, the area of a Gaussian's ellipse
    0.072
    """

    def __init__(
        self,
        log_density: Callable[[NDArray[np.float64]], ArrayLike],
        bounds: ArrayLike,
        names: Sequence[str] | None = None,
        *,
        log_prior: Callable[[NDArray[np.float64]], ArrayLike] | None = None,
        method: str | None = None,
        grid: int | None = None,
        seed: Seed = 0,
        steps: int | None = None,
    ):
        self.bounds = bounds_of(bounds, "bounds")
        p = len(self.bounds)
        if not p:
            raise ValueError("bounds: there are no parameters")
        self.names = tuple(_arguments.names(names, p, "parameters"))
        self.method = method_of(method, p, grid, steps)
        seed = _arguments.seed(seed)
        nodes = None if grid is None else _arguments.integer("grid", grid, 5, 4097)
        steps = None if steps is None else _arguments.integer("steps", steps, 20)
        if hasattr(log_prior, "logpdf"):
            log_prior = Joint(log_prior)
        if log_prior is not None and not isinstance(log_prior, Prior):
            log_prior = Prior(log_prior, "log_prior")
        of = log_density, self.bounds, self.names, log_prior
        with np.errstate(under="ignore"):  # far from its peak a density is zero
            if self.method == "grid":
                self._known = Grid(*of, nodes)
                if self._known.unresolved:
                    self._hand_over(of, seed, nodes is None)
                elif self._known.rough:
                    self._known = Draws(self._known)
            else:
                self._known = Chain(*of, seed, steps)
            self.mean, self.cov = self._known.moments()
        self.log_evidence = self._known.log_evidence
        self.log_evidence_error = self._known.log_evidence_error

    def _hand_over(self, of, seed, chain):
        """Warn of a grid that does not resolve the density; take a chain if that can be had."""
        wrong = f"grid: the posterior of {', '.join(self.names)} {self._known.unresolved}"
        try:
            import_emcee()
        except ImportError:
            chain = False
        if chain:
            _arguments.warn(f"{wrong}; it is sampled by emcee instead", RuntimeWarning)
            self.method, self._known = "emcee", Chain(*of, seed)
        else:
            advice = 'give narrower bounds, or method="emcee"'
            _arguments.warn(f"{wrong}: {advice}", RuntimeWarning)

    # ---- what it says ----------------------------------------------------------------------------

    def logp(self, y: ArrayLike) -> NDArray[np.float64] | float:
        """Return the normalised log-density of points.

        Of a chain, the normalisation is the estimate `log_evidence`: every value is off by the same
        amount, some `log_evidence_error`.

        Parameters
        ----------
        y : (m, p) or (p,) array-like
            Of a table the columns are found by the names of the parameters, if these have any.

        Returns
        -------
        (m,) float64 array, or float for one point
            In nats; -inf outside the bounds.

        Examples
        --------
        >>> from pyflow.posterior import Posterior
        >>> post = Posterior(lambda y: -0.5 * y[:, 0] ** 2, [(-10, 10)])
        >>> round(post.logp([0.0]), 3), post.logp([11.0])
        (-0.919, -inf)
        """
        y = _arguments.rows(_tables.matched(y, "y", self.names), "y")
        y = np.asarray(y, dtype=np.float64)
        p = len(self.bounds)
        if y.ndim not in (1, 2) or y.shape[-1] != p:
            raise ValueError(f"y: must have shape (m, {p}) or ({p},); its shape is {y.shape}")
        points = np.atleast_2d(y)
        if np.isnan(points).any():
            raise ValueError("y: is NaN")
        logp = self._known.density(points) - self.log_evidence
        return float(logp[0]) if y.ndim == 1 else logp

    def sample(self, n: int, seed: Seed = None) -> NDArray[np.float64]:
        """Draw parameters from the posterior; of a chain, from its points, with replacement.

        Parameters
        ----------
        n : int
        seed : int or numpy.random.Generator, optional
            A longer sample begins with the shorter one. None draws a new sample every time.

        Returns
        -------
        (n, p) float64 array

        Examples
        --------
        >>> from pyflow.posterior import Posterior
        >>> post = Posterior(lambda y: -0.5 * y[:, 0] ** 2, [(-10, 10)])
        >>> y = post.sample(5000, seed=1)
        >>> y.shape, bool(abs(y.std() - 1) < 0.05)
        ((5000, 1), True)
        """
        n = _arguments.integer("n", n, 0)
        rng = np.random.default_rng(_arguments.seed(seed))
        with np.errstate(under="ignore"):
            return self._known.sample(n, rng)

    def _contour(self):
        """Log-densities from high to low, and the mass and the volume down to each."""
        if not hasattr(self, "_sorted"):
            self._sorted = self._known.contour()
        return self._sorted

    def volume(self, mass: float = 0.68) -> float:
        """Return the size of the smallest region that holds this much mass.

        A length, an area or a volume, for one, two or three parameters or more.

        Examples
        --------
        >>> from pyflow.posterior import Posterior
        >>> post = Posterior(lambda y: 0 * y[:, 0], [(0, 2)])
        >>> round(post.volume(0.5), 2)
        1.0
        """
        mass = _arguments.real("mass", mass)
        if not 0 < mass < 1:
            raise ValueError(f"mass: must be between 0 and 1, not {mass}")
        _, above, volume = self._contour()
        return float(np.interp(mass, np.append(0.0, above), np.append(0.0, volume)))

    def figure_of_merit(self, mass: float = 0.68) -> float:
        """Return the inverse of the area inside the contour that holds this much mass.

        With one parameter of the length, with three or more of the volume. A figure of merit says
        nothing unless the posterior is calibrated: see `credibility`.

        Examples
        --------
        >>> from pyflow.posterior import Posterior
        >>> post = Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-9, 9), (-9, 9)])
        >>> round(post.figure_of_merit(0.68), 2)  # 1 / (2 pi log(1 / 0.32))
        0.14
        """
        return 1 / self.volume(mass)

    def credibility(self, y: ArrayLike) -> NDArray[np.float64] | float:
        """Return the mass of the smallest region that reaches a point.

        Over many simulations whose true parameters are drawn from the prior it is uniform if the
        posteriors are calibrated: the 68 % regions then hold 68 % of the truths.

        Parameters
        ----------
        y : (m, p) or (p,) array-like

        Returns
        -------
        (m,) float64 array, or float for one point

        Examples
        --------
        >>> from pyflow.posterior import Posterior
        >>> post = Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-9, 9), (-9, 9)])
        >>> round(post.credibility([1.0, 0.0]), 2)  # 1 - exp(-1 / 2)
        0.39
        """
        logs = np.asarray(self.logp(y)) + self.log_evidence
        order, above, _ = self._contour()
        above = np.append(0.0, above)
        count = [len(order) - np.searchsorted(order[::-1], logs, side=s) for s in ("left", "right")]
        mass = np.minimum(0.5 * (above[count[0]] + above[count[1]]), 1.0)  # of equal ones, half
        return float(mass) if np.ndim(mass) == 0 else mass

    def marginal(
        self, *parameters: int | str
    ) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        """Return the density of some of the parameters, integrated over the others.

        Parameters
        ----------
        *parameters : int or str
            Their numbers, or names.

        Returns
        -------
        nodes : list of (m_j,) float64 array
            The values of each on a regular grid, that holds nearly all the mass.
        density : (m_0, ...) float64 array
            At the nodes. Its sum times the volume of a cell is one. Of a chain, from a smooth
            histogram.

        Examples
        --------
        >>> from pyflow.posterior import Posterior
        >>> post = Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-9, 9), (-9, 9)], ["a", "b"])
        >>> (b,), density = post.marginal("b")
        >>> round(float(density.max()), 2)  # 1 / sqrt(2 pi)
        0.4
        """
        p = len(self.bounds)
        kept = [self.names.index(j) if j in self.names else j for j in parameters]
        kept = [_arguments.integer("parameters", j, 0, p - 1) for j in kept]
        if not kept or len(set(kept)) < len(kept):
            raise ValueError(f"parameters: must be different ones, at least one, not {parameters}")
        with np.errstate(under="ignore"):
            return self._known.marginal(*kept)

    def plot(
        self,
        truth: Sequence[float] | None = None,
        *,
        masses: Sequence[float] = (0.68, 0.95),
        axes: Any = None,
    ) -> Figure:
        """Draw the posterior: marginals, and contours of every pair of parameters.

        Parameters
        ----------
        truth : (p,) sequence of float, optional
            A point to mark.
        masses : sequence of float
            What the contours hold.
        axes : (p, p) array of matplotlib axes, optional
            Where to draw, over what is there already.

        Returns
        -------
        matplotlib.figure.Figure

        Examples
        --------
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from pyflow.posterior import Posterior
        >>> post = Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-9, 9), (-9, 9)])
        >>> type(post.plot(truth=[0, 0])).__name__
        'Figure'
        """
        from pyflow import plots

        return plots.posteriors([self], truth=truth, masses=masses, axes=axes, getdist=False)

    # ---- for other packages ----------------------------------------------------------------------

    def to_getdist(
        self, n: int = 10000, seed: Seed = None, *, labels: Sequence[str] | None = None
    ) -> Any:
        """Return draws as getdist's samples.

        They know the bounds, which getdist's densities then end at, and count as independent: those
        of a chain are its points, drawn with replacement.

        Parameters
        ----------
        n : int
        seed : int or numpy.random.Generator, optional
            As in `sample`: the same draws.
        labels : (p,) sequence of str, optional
            What to write at axes, in LaTeX, with or without dollars. Default: the names, upright
            unless they are LaTeX.

        Returns
        -------
        getdist.MCSamples
            Its parameters have the names of these; "_" stands for spaces, "*" and "?", which
            getdist refuses in them. `loglikes` are -log p, normalised; of a grid with a polynomial
            (see the class) by that.

        Raises
        ------
        ImportError
            If getdist is not installed.

        Examples
        --------
        >>> from pyflow.posterior import Posterior
        >>> post = Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(0, 9), (-9, 9)], ["a", "b"])
        >>> samples = post.to_getdist(5000, seed=1)  # doctest: +SKIP
        >>> samples.mean("a").round(1), samples.getLower("a")  # doctest: +SKIP
        (np.float64(0.8), 0.0)
        """
        return _exports.to_getdist(self, n, seed, labels)

    def to_arviz(
        self, chains: int | None = None, draws: int | None = None, seed: Seed = None
    ) -> Any:
        """Return draws as ArviZ keeps them.

        A posterior on a grid gives independent draws, in as many chains as are asked for: what
        ArviZ says of their convergence says nothing. A chain (`method="emcee"`) gives itself, its
        walkers as chains, without what was burnt in, and thinned.

        Parameters
        ----------
        chains, draws : int, optional
            Of a grid. Default 4 chains of 1,000.
        seed : int or numpy.random.Generator, optional
            Of a grid, as in `sample`.

        Returns
        -------
        arviz.InferenceData, or xarray.DataTree from ArviZ 1 on
            The group `posterior` holds a variable of each parameter, (chain, draw), `sample_stats`
            the log-density as it was given, with the prior, `lp`.

        Raises
        ------
        ImportError
            If ArviZ is not installed.
        ValueError
            If chains or draws are given for a chain.

        Examples
        --------
        >>> from pyflow.posterior import Posterior
        >>> post = Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-9, 9)] * 2, ["a", "b"])
        >>> data = post.to_arviz(chains=2, draws=500, seed=1)  # doctest: +SKIP
        >>> data.posterior["a"].shape  # doctest: +SKIP
        (2, 500)
        """
        return _exports.to_arviz(self, chains, draws, seed)

    def to_emcee(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        group: str = "mcmc",
        steps: int | None = None,
        walkers: int | None = None,
        seed: Seed = None,
    ) -> Any:
        """Return an emcee backend that holds draws as an ensemble's chain.

        A chain (`method="emcee"`) is that ensemble itself, without what was burnt in, and thinned.
        A posterior on a grid has none: walkers are then independent draws, and every step is too,
        so that autocorrelation times are 1 or so and every step counts as accepted. Either way an
        `emcee.EnsembleSampler` with this backend goes on from the last step.

        Parameters
        ----------
        path : str or os.PathLike, optional
            Of an HDF5 file (needs h5py); otherwise the backend is in memory.
        group : str
            What the chain is called in the file.
        steps, walkers : int, optional
            Of a grid. Default: 500 steps of 32 walkers, or of twice as many as parameters.
        seed : int or numpy.random.Generator, optional
            Of a grid, as in `sample`, and of a sampler that goes on.

        Returns
        -------
        emcee.backends.Backend or emcee.backends.HDFBackend
            `get_log_prob` gives the log-density as it was given, with the prior.

        Raises
        ------
        ImportError
            If emcee is not installed, or h5py for a path.
        FileExistsError
            If the file holds a chain of that name.
        ValueError
            If steps or walkers are given for a chain, or walkers are fewer than emcee takes.

        Examples
        --------
        >>> from pyflow.posterior import Posterior
        >>> post = Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-9, 9)] * 2)
        >>> backend = post.to_emcee(steps=50, walkers=8, seed=1)
        >>> backend.get_chain().shape, backend.get_chain(flat=True).shape
        ((50, 8, 2), (400, 2))
        """
        return _exports.to_emcee(self, path, group, steps, walkers, seed)

    def __repr__(self) -> str:
        width = np.sqrt(np.diag(self.cov))
        parts = [
            f"{name}={mean:.4g}±{sigma:.2g}"
            for name, mean, sigma in zip(self.names, self.mean, width, strict=True)
        ]
        return f"pyflow.Posterior({', '.join(parts)})"

    def _repr_html_(self) -> str:
        from pyflow import _html

        return _html.of_posterior(self)


def warn_outside(names, least, most, bounds, what, slack=SLACK):
    """Warn, naming the parameters, where bounds (p, 2) reach beyond the training range.

    `slack` of the range beyond is let be.
    """
    for name, lo, hi, (below, above) in zip(names, least, most, bounds, strict=True):
        beyond = slack * (hi - lo)
        if below < lo - beyond or above > hi + beyond:
            reach = f"{below:.6g}" if below == above else f"{below:.6g} to {above:.6g}"
            wholly = "wholly " if below < above and (above <= lo or below >= hi) else ""
            _arguments.warn(
                f"{what}: {name} = {reach} lies {wholly}outside of the training range, "
                f"{lo:.6g} to {hi:.6g}"
            )
