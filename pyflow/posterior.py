"""Posteriors of up to three parameters, integrated on a grid that finds its own place."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import _arguments

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

GRID = {1: (65, 129), 2: (21, 41), 3: (11, 25)}  # nodes per axis: on the way, and at the end
MOST = {1: 1025, 2: 161, 3: 61}
DEPTH = {
    1: 14.0,
    2: 14.0,
    3: 16.0,
}  # nats below the highest node that still belong to the posterior
KEEP = {1: 0.05, 2: 0.03, 3: 0.03}  # of the nodes, at least, are kept on the way
FINE = 4  # nodes of the refined grid, on which contours are measured, per node


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


class Posterior:
    """A probability density of one to three parameters, known through its logarithm.

    The log-density is evaluated on a coarse grid over the bounds, then on grids over the region
    that holds the mass, until that no longer shrinks and is resolved.

    Parameters
    ----------
    log_density : callable
        Of (m, p) points inside the bounds, the log-density up to a constant, (m,); -inf is allowed.
    bounds : (p, 2) array-like
        Lower and upper bound of each parameter. The density is zero outside.
    names : sequence of str, optional
        What the parameters are called.
    grid : int, optional
        Nodes along each axis of the final grid. Default 129, 41, 25 for 1, 2, 3 parameters; more
        where the density is narrower than they resolve.

    Attributes
    ----------
    mean : (p,) float64 array
    cov : (p, p) float64 array
    log_evidence : float
        Logarithm of the integral of the density given.
    bounds : (p, 2) float64 array
    names : tuple of str

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
        grid: int | None = None,
    ):
        self.bounds = bounds_of(bounds, "bounds")
        p = len(self.bounds)
        if not 1 <= p <= 3:
            raise ValueError(f"bounds: a grid serves 1 to 3 parameters, not {p}")
        if names is None:
            names = [f"y{j}" for j in range(p)]
        self.names = tuple(map(str, names))
        if len(self.names) != p:
            raise ValueError(f"names: {len(self.names)} names for {p} parameters")
        self._log_density = log_density
        nodes = GRID[p][1] if grid is None else _arguments.integer("grid", grid, 5, 4097)
        self._find(nodes, grid is None)
        mass = self._mass
        self.mean = np.array([(mass * y).sum() for y in self._points.T])
        centred = self._points - self.mean
        self.cov = (centred * mass[:, None]).T @ centred

    # ---- the grid --------------------------------------------------------------------------------

    def _evaluate(self, axes):
        """Log-density at the nodes of a grid, of its shape."""
        points = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
        logs = np.asarray(self._log_density(points), dtype=np.float64)
        if logs.shape != (len(points),):
            raise ValueError(
                f"log_density: gave shape {logs.shape} for {len(points)} points, not one each"
            )
        if np.isnan(logs).any() or (logs == np.inf).any():
            raise ValueError("log_density: gave NaN or infinity inside the bounds")
        return points, logs.reshape([len(a) for a in axes])

    def _find(self, nodes, adapt):
        p = len(self.bounds)
        box, coarse = self.bounds.copy(), GRID[p][0]
        for _ in range(200):
            axes = [np.linspace(lo, hi, coarse) for lo, hi in box]
            _, logs = self._evaluate(axes)
            if not np.isfinite(logs.max()):
                raise ValueError("prior: the posterior is zero everywhere on the grid")
            # Far from its peak a narrow density is best where it is least bad: never just one node.
            few = max(int(KEEP[p] * logs.size), 3)
            inside = logs > logs.max() - DEPTH[p]
            narrow = inside.sum() < few
            if narrow:
                inside = (logs >= np.sort(logs, axis=None)[-few]) & np.isfinite(logs)
            smaller = np.empty_like(box)
            for j, axis in enumerate(axes):
                where = np.flatnonzero(inside.any(axis=tuple(i for i in range(p) if i != j)))
                smaller[j] = axis[max(where[0] - 1, 0)], axis[min(where[-1] + 1, len(axis) - 1)]
                width = box[j, 1] - box[j, 0]
                if where[0] == 0 and box[j, 0] > self.bounds[j, 0]:  # it may go on beyond
                    smaller[j, 0] = max(box[j, 0] - 0.4 * width, self.bounds[j, 0])
                if where[-1] == len(axis) - 1 and box[j, 1] < self.bounds[j, 1]:
                    smaller[j, 1] = min(box[j, 1] + 0.4 * width, self.bounds[j, 1])
            moved = (smaller[:, 0] < box[:, 0]) | (smaller[:, 1] > box[:, 1])
            moved |= (smaller[:, 1] - smaller[:, 0]) < 0.75 * (box[:, 1] - box[:, 0])
            box = smaller
            if moved.any():
                continue
            if not narrow or 2 * coarse - 1 > MOST[p]:
                break
            coarse = 2 * coarse - 1
        while True:
            self._axes = [np.linspace(lo, hi, nodes) for lo, hi in box]
            self._points, self._logs = self._evaluate(self._axes)
            top = self._logs.max()
            weight = np.ones(())
            for axis in self._axes:  # the trapezoidal rule
                w = np.full(nodes, axis[1] - axis[0])
                w[[0, -1]] /= 2
                weight = weight[..., None] * w
            mass = np.exp(self._logs - top) * weight
            self.log_evidence = float(top + np.log(mass.sum()))
            self._mass = (mass / mass.sum()).ravel()
            if not adapt or 2 * nodes - 1 > MOST[p] or self._resolved():
                break
            nodes = 2 * nodes - 1
        if self._mass.max() > 0.5:
            warnings.warn(
                "the posterior is narrower than the grid resolves: give narrower bounds",
                RuntimeWarning,
                stacklevel=4,
            )
        for j, axis in enumerate(self._axes):
            for end, bound in zip((0, -1), self.bounds[j], strict=True):
                if axis[end] != bound and self._logs.take(end, axis=j).max() > top - 4:
                    warnings.warn(
                        f"the posterior of {self.names[j]} reaches beyond the grid that was found "
                        "for it: give narrower bounds",
                        RuntimeWarning,
                        stacklevel=4,
                    )

    def _resolved(self):
        """Whether no axis has nodes further apart than 0.8 conditional standard deviations."""
        mean = self._mass @ self._points
        centred = self._points - mean
        cov = (centred * self._mass[:, None]).T @ centred
        step = np.array([axis[1] - axis[0] for axis in self._axes])
        try:
            inverse = np.linalg.inv(cov / np.outer(step, step))
        except np.linalg.LinAlgError:
            return False
        return bool(np.all(np.diag(inverse) < 1 / 0.64))

    # ---- what it says ----------------------------------------------------------------------------

    def logp(self, y: ArrayLike) -> NDArray[np.float64] | float:
        """Return the normalised log-density of points.

        Parameters
        ----------
        y : (m, p) or (p,) array-like

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
        y = np.asarray(y, dtype=np.float64)
        p = len(self.bounds)
        if y.ndim not in (1, 2) or y.shape[-1] != p:
            raise ValueError(f"y: must have shape (m, {p}) or ({p},); its shape is {y.shape}")
        points = np.atleast_2d(y)
        if np.isnan(points).any():
            raise ValueError("y: is NaN")
        inside = ((points >= self.bounds[:, 0]) & (points <= self.bounds[:, 1])).all(axis=1)
        logp = np.full(len(points), -np.inf)
        if inside.any():
            logp[inside] = np.asarray(self._log_density(points[inside])) - self.log_evidence
        return float(logp[0]) if y.ndim == 1 else logp

    def sample(self, n: int, seed: int | None = None) -> NDArray[np.float64]:
        """Draw parameters from the posterior.

        Parameters
        ----------
        n : int
        seed : int, optional

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
        y = self._points[rng.choice(len(self._mass), n, p=self._mass)]
        step = np.array([axis[1] - axis[0] for axis in self._axes])
        y = y + step * (rng.random(y.shape) - rng.random(y.shape))  # linear between the nodes
        for j, axis in enumerate(self._axes):  # half of the hat at either end lies outside
            y[:, j] = axis[0] + np.abs(y[:, j] - axis[0])
            y[:, j] = axis[-1] - np.abs(axis[-1] - y[:, j])
        return y

    def _contour(self):
        """Log-densities on the refined grid, from high to low, and the mass above each."""
        if not hasattr(self, "_sorted"):
            logs = np.maximum(self._logs - self._logs.max(), -60.0)
            for axis in range(logs.ndim):
                logs = _refined(logs, axis)
            cell = math.prod((a[1] - a[0]) / FINE for a in self._axes)
            fine = np.sort(logs.ravel())[::-1]
            density = np.exp(fine)
            self._sorted = fine, np.cumsum(density) / density.sum(), cell
        return self._sorted

    def volume(self, mass: float = 0.68) -> float:
        """Return the size of the smallest region that holds this much mass.

        A length, an area or a volume, for one, two or three parameters.

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
        _, above, cell = self._contour()
        i = int(np.searchsorted(above, mass))
        before = above[i - 1] if i else 0.0
        return float(cell * (i + (mass - before) / (above[i] - before)))

    def figure_of_merit(self, mass: float = 0.68) -> float:
        """Return the inverse of the area inside the contour that holds this much mass.

        With one parameter of the length, with three of the volume. A figure of merit says nothing
        unless the posterior is calibrated: see `credibility`.

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
        logs = np.asarray(self.logp(y)) + self.log_evidence - self._logs.max()
        fine, above, _ = self._contour()
        count = len(fine) - np.searchsorted(fine[::-1], np.maximum(logs, -60.0), side="left")
        mass = np.concatenate([[0.0], above])[count]
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
            At the nodes. Its sum times the volume of a cell is one.

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
        others = tuple(j for j in range(p) if j not in kept)
        density = self._mass.reshape(self._logs.shape).sum(axis=others)
        density = density.transpose(np.argsort(np.argsort(kept)))
        for i in range(len(kept)):
            ends = np.ones(density.shape[i])
            ends[[0, -1]] = 2  # a node at the end of the grid stands for half a cell
            density = np.moveaxis(np.moveaxis(density, i, -1) * ends, -1, i)
        logs = np.log(np.maximum(density / density.max(), np.exp(-60.0)))
        for axis in range(len(kept)):
            logs = _refined(logs, axis)
        axes = [self._axes[j] for j in kept]
        density = np.exp(logs)
        density /= density.sum() * math.prod((a[1] - a[0]) / FINE for a in axes)
        return [_middles(a) for a in axes], density

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

    def __repr__(self) -> str:
        width = np.sqrt(np.diag(self.cov))
        parts = [
            f"{name}={mean:.4g}±{sigma:.2g}"
            for name, mean, sigma in zip(self.names, self.mean, width, strict=True)
        ]
        return f"pyflow.Posterior({', '.join(parts)})"


def _refined(logs, axis):
    """Cubic interpolation along an axis, at the middles of FINE parts of every cell."""
    logs = np.moveaxis(logs, axis, 0)
    padded = np.concatenate([2 * logs[:1] - logs[1:2], logs, 2 * logs[-1:] - logs[-2:-1]])
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    parts = []
    for k in range(FINE):
        t = (k + 0.5) / FINE
        cubic = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
        parts.append(np.clip(cubic, np.minimum(b, c) - 1, np.maximum(b, c) + 1))
    fine = np.stack(parts, axis=1).reshape(-1, *logs.shape[1:])
    return np.moveaxis(fine, 0, axis)


def _middles(axis):
    """Return the points at which `_refined` interpolates."""
    t = (np.arange(FINE * (len(axis) - 1)) + 0.5) / FINE
    return axis[0] + t * (axis[1] - axis[0])


def warn_outside(names, least, most, bounds, what, stacklevel):
    """Warn, naming the parameters, where bounds (p, 2) reach beyond the training range.

    A fiftieth of the range beyond is let be: the least and most of a sample from a prior never
    quite reach its ends.
    """
    for name, lo, hi, (below, above) in zip(names, least, most, bounds, strict=True):
        slack = 0.02 * (hi - lo)
        if below < lo - slack or above > hi + slack:
            reach = f"{below:.6g}" if below == above else f"{below:.6g} to {above:.6g}"
            warnings.warn(
                f"{what}: {name} = {reach} lies outside of the training range, "
                f"{lo:.6g} to {hi:.6g}",
                UserWarning,
                stacklevel=stacklevel + 1,
            )
