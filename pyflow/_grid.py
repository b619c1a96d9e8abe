"""A density of one to three parameters on a grid: from few evaluations of a smooth likelihood.

A *frame* is a box along the principal axes of the density, y = centre + axes z with |z_j| <= 1. In
it the log-likelihood is a polynomial, fitted to what was evaluated so far (`_fit`). A density too
narrow for the nodes of the frame, or for what the polynomial is worth there, is taken to a power
below one, and the next frame holds what that leaves (`_find`): the first is the bounds. In the last
the polynomial is checked at points drawn from the density, and stands for the likelihood at all
nodes of a fine grid (`_integrate`); what is no polynomial is evaluated at each of them instead.

The prior, of which the bounds are a part, is evaluated wherever the density is needed.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from pyflow._quadrature import SEARCH, Quadrature, generator

NODES = {1: (33, 65, 129), 2: (9, 13, 21), 3: (7, 9, 13)}  # of polynomials, per axis
SEEN = {1: 257, 2: 65, 3: 41}  # nodes per axis of the grids on the way
FINE = {1: (1024, 1 << 15), 2: (128, 1024), 3: (24, 96)}  # of the final one: at first, at most
AGREE = {1: 0.01, 2: 0.01, 3: 0.02}  # sigma that means of two of these may differ by
EXACT = {1: (256, 1 << 15), 2: (64, 256), 3: (32, 64)}  # the same, where no polynomial stands in
STAGES = 60  # frames at most
PATIENCE = 3  # frames that are no smaller than those before, until it takes more nodes
DEPTH = 12.0, 4.0  # nats below the peak that belong to the density, and to a low power of it
FACE = 0.75  # of that depth: a face of the frame that is higher cuts the density
FEW = 4  # nodes per axis, at least, that share the density of a frame
CHECKS = {1: 16, 2: 32, 3: 64}  # points at which a polynomial is checked
# Nats, rms, that a polynomial may be off where the density is high: by itself, and, of the most
# nodes, if draws of it are weighted by what it is off (`Draws`).
ERROR = {1: 5e-3, 2: 0.03, 3: 0.05}
ROUGH = {1: 5e-3, 2: 0.03, 3: 1.0}
SHRINK = 0.7, 0.3  # of a frame's volume: what makes a next one worth it; if it is good itself
EDGE = 10.0, 25.0  # nats: a hard edge runs between neighbours above the one and below the other
SCATTER = 8  # points in every cell that an edge runs through
MARGINAL = {1: (257,), 2: (129, 129), 3: (129, 65, 49)}  # nodes per axis of their marginals
NARROW = 0.1  # of a box: a support of less is looked for by itself
FOUND = 16, 32  # points of it that are looked for, at least, and that are kept, at most
LINES = {2: 129, 3: 25}  # and along each of the others, which are integrated over
BLOCK = 4096  # points at once: what a polynomial makes of them stays in the cache


class Grid(Quadrature):
    """A grid of one to three parameters that finds its own place.

    Attributes
    ----------
    unresolved : str or None
        What is wrong with it, if it does not know the density to a per cent or so.
    rough : bool
        Whether its polynomial is only good enough to draw from: see `Draws`.
    """

    unresolved, rough = None, False

    def __init__(self, log_density, bounds, names, log_prior=None, nodes=None):
        super().__init__(log_density, bounds, names, log_prior)
        p = len(bounds)
        self._looked = np.empty((0, p)), np.empty(0), np.empty(0)
        self._support, self._searched = np.empty((0, p)), False
        self._frame(bounds.mean(axis=1), np.diag(np.ptp(bounds, axis=1) / 2))
        self._find()
        self._settle(nodes)
        if self.unresolved is None and self._unseen():
            self.unresolved = "has narrow parts, some of which the grid does not see"
        del self._looked, self._support, self._searched

    # ---- frames ----------------------------------------------------------------------------------

    def _frame(self, centre, axes, inner=None):
        """Take y = centre + axes z, |z_j| <= 1; `inner` is a point inside the frame and bounds."""
        self._centre, self._axes = centre, axes
        self._inner = centre if inner is None else inner

    def _from_frame(self, z):
        return self._centre + z @ self._axes.T

    def _to_frame(self, y):
        return np.linalg.solve(self._axes, (y - self._centre).T).T

    def _pulled(self, y):
        """Move points (m, p) outside the bounds towards `_inner`, until they are inside."""
        away = y - self._inner
        room = np.where(away > 0, self.bounds[:, 1], self.bounds[:, 0]) - self._inner
        part = np.divide(room, away, out=np.ones_like(away), where=np.abs(away) > np.abs(room))
        y = self._inner + away * part.min(axis=1, keepdims=True)
        return np.clip(y, *self.bounds.T)

    # ---- the likelihood in a frame ---------------------------------------------------------------

    def _look(self, y):
        """Evaluate the likelihood at (m, p) points, and remember it."""
        new = y, self.likelihood(y), self.prior(y)
        self._looked = tuple(map(np.concatenate, zip(self._looked, new, strict=True)))
        return new[1:]

    def _fit(self, n):
        """Fit a polynomial of degree n - 2 to what was seen in the frame.

        `_polynomial` are its Chebyshev coefficients, all of an index that adds up to more being
        zero; None where the likelihood is zero somewhere. Returns log-likelihoods, what the
        polynomial makes of them, and log-priors.
        """
        y, logs, prior = self._looked
        z = self._to_frame(y)
        here = (np.abs(z) <= 1 + 1e-9).all(axis=1)
        z, logs, prior = z[here], logs[here], prior[here]
        self._polynomial = None
        if not np.isfinite(logs).all():
            return logs, logs, prior
        p = z.shape[1]
        degree = n - 2 if p > 1 else 3 * n // 4
        index = np.indices((degree + 1,) * p).reshape(p, -1)
        index = index[:, index.sum(axis=0) <= degree]
        basis = np.ones((len(z), index.shape[1]))
        for j in range(p):
            basis *= np.polynomial.chebyshev.chebvander(z[:, j], degree)[:, index[j]]
        possible = np.isfinite(prior)
        depth = -logs - np.where(possible, prior, 0)
        depth = np.where(possible, depth - depth[possible].min(initial=np.inf), 50.0)
        weight = 0.02 + np.exp(-depth / 5)
        top = logs.max()
        # By the normal equations: the least weight holds the condition number to some 50, and few
        # calls do not wait for other threads as the many of a decomposition do.
        weighted = basis * weight[:, None]
        product = weighted.T @ weighted
        product[np.diag_indices(len(product))] += 1e-14 * np.trace(product)
        found = np.linalg.solve(product, weighted.T @ ((logs - top) * weight))
        self._polynomial = np.zeros((degree + 1,) * p)
        self._polynomial[tuple(index)] = found
        self._polynomial[(0,) * p] += top
        return logs, basis @ found + top, prior

    def approximate(self, y):
        """Log-density of (m, p) points, by the polynomial if there is one."""
        if self._polynomial is None:
            return self.density(y)
        logs = self.prior(y)
        inside = np.flatnonzero(np.isfinite(logs))
        for some in np.array_split(inside, len(inside) // BLOCK + 1):
            values = self._polynomial
            for j, z in enumerate(self._to_frame(y[some]).T):
                values = np.polynomial.chebyshev.chebval(z, values, tensor=j == 0)
            logs[some] += values
        return logs

    def _grid(self, n):
        """Middles of the n^p cells of the frame, (n^p, p), and log-densities, (n,) * p."""
        p = len(self.bounds)
        axis = (2 * np.arange(n) + 1) / n - 1
        z = np.stack(np.meshgrid(*[axis] * p, indexing="ij"), axis=-1).reshape(-1, p)
        y = self._from_frame(z)
        if self._polynomial is None:
            return y, self.density(y).reshape((n,) * p)
        values = self._polynomial
        for _ in range(p):
            values = np.polynomial.chebyshev.chebval(axis, values)
        return y, values + self.prior(y).reshape((n,) * p)

    # ---- the way to the density ------------------------------------------------------------------

    def _find(self):
        """Choose the frame, and the polynomial or none, in which the density is integrated."""
        p, level, stalls, smallest = len(self.bounds), 0, 0, np.inf
        self._to_support(self.prior)
        for _ in range(STAGES):
            exact = level == len(NODES[p])
            if not exact:
                n = NODES[p][level]
                corner = -np.cos(np.pi * np.arange(n) / (n - 1))
                z = np.array(list(itertools.product(corner, repeat=p)))
                self._look(self._pulled(self._from_frame(z)))
                seen = self._fit(n)
                exact = self._polynomial is None
            if exact:
                self._polynomial, seen = None, (np.zeros(1),) * 3
            y, logs = self._grid(SEEN[p])
            thin = exact and not self._searched and np.isfinite(logs).mean() < NARROW
            if thin or logs.max() == -np.inf:
                self._to_support(self.density)
                self._searched = True
                continue
            power = self._power(logs, *seen)
            most = (ROUGH if level == len(NODES[p]) - 1 else ERROR)[p]
            good = power == 1 and not exact and _error(1.0, logs.max(), *seen) < most
            if self._next_frame(y, logs, power, SHRINK[int(good)]):
                size = abs(np.linalg.det(self._axes))
                stalls = 0 if size < SHRINK[0] * smallest else stalls + 1
                smallest = min(size, smallest)
                level = min(stalls // PATIENCE, len(NODES[p]))
                continue
            if exact:
                return
            error = self._found_error(y, logs) if good else np.inf
            if error < most:
                self.rough = error > ERROR[p]
                return
            level += 1
        self.unresolved = "is not found"

    def _power(self, logs, *seen):
        """Return the power, 1 if possible, of the density that nodes and polynomial resolve."""
        enough = min(FEW**logs.ndim, np.isfinite(logs).sum() / 2)
        top = logs.max()
        for power in 0.5 ** np.arange(64):
            weight = np.exp(power * (logs - top))
            effective = weight.sum() ** 2 / (weight**2).sum()
            if effective >= enough and power * _error(power, top, *seen) < 0.5:
                break
        return power

    def _next_frame(self, y, logs, power, shrink):
        """Take the frame of a power of the density at the nodes, if it is smaller or moved."""
        p, n = logs.ndim, len(logs)
        logs = power * (logs - logs.max())
        weight = np.exp(logs.ravel())
        mean = weight @ y / weight.sum()
        cov = (y - mean).T * weight @ (y - mean) / weight.sum()
        depth = max(power * DEPTH[0], DEPTH[1])
        inside, high = logs > -depth, logs > -depth * FACE
        reach, moved = [y[inside.ravel()]], False
        for j in range(p):  # what is at a face of the frame may go on beyond
            for end, sign in ((0, -1), (n - 1, 1)):
                face = np.moveaxis(np.arange(n**p).reshape(logs.shape), j, 0)[end]
                face = y[face[np.moveaxis(high, j, 0)[end]]]
                beyond = self._pulled(face + 0.8 * sign * self._axes[:, j])
                if len(face) and (sign * self._to_frame(beyond)[:, j] > 1 + 2 / n).any():
                    reach.append(beyond)
                    moved = True
        reach = np.concatenate(reach)
        sigma = np.sqrt(np.diag(cov)) + 1e-3 * np.abs(self._axes).sum(axis=1) / n
        principal = sigma[:, None] * np.linalg.eigh(cov / np.outer(sigma, sigma))[1]
        boxes = [self._box(axes, mean, reach, n) for axes in (np.diag(sigma), principal)]
        sizes = [abs(np.linalg.det(axes)) for _, axes in boxes]
        centre, axes = boxes[int(sizes[1] < SHRINK[0] * sizes[0])]
        if not moved and min(sizes) > shrink * abs(np.linalg.det(self._axes)):
            return False
        self._frame(centre, axes, mean)
        return True

    def _box(self, axes, origin, y, n):
        """Return centre and axes of the box that holds the cells of points, and no more bounds."""
        inverse = np.linalg.inv(axes)
        z = (y - origin) @ inverse.T
        margin = 3 / n * np.abs(inverse @ self._axes).sum(axis=1)
        corners = (np.array(list(itertools.product(*self.bounds))) - origin) @ inverse.T
        low = np.maximum(z.min(axis=0) - margin, corners.min(axis=0))
        high = np.minimum(z.max(axis=0) + margin, corners.max(axis=0))
        return origin + axes @ (0.5 * (low + high)), axes * (0.5 * (high - low))

    def _to_support(self, log_density):
        """Take the frame, along the axes, where this is finite, if that is little of the bounds.

        `_support` is then some of what was found of it.
        """
        p, n = len(self.bounds), 4096
        box = self.bounds
        while True:
            width = np.ptp(box, axis=1)
            y = box[:, 0] + width * ((np.arange(n)[:, None] + 0.5) * generator(p) % 1)
            y = y[np.isfinite(log_density(y))]
            if len(y) < FOUND[0] and n < SEARCH[1]:
                n *= 8
                continue
            if not len(y):
                raise ValueError(_nowhere(n))
            if len(y) > NARROW * n:
                break
            if box is self.bounds:
                some = np.linspace(0, len(y) - 1, min(len(y), FOUND[1])).astype(int)
                self._support = y[some]
            margin = 1.5 * width / n ** (1 / p)
            low, high = np.clip([y.min(axis=0) - margin, y.max(axis=0) + margin], *self.bounds.T)
            if np.prod((high - low) / width) > 0.8:
                break
            box = np.stack([low, high], axis=1)
        self._frame(box.mean(axis=1), np.diag(np.ptp(box, axis=1) / 2), y.mean(axis=0))

    def _unseen(self):
        """Whether a point of a narrow support, of high density, has no node that sees it."""
        y = self._support
        high = self.density(y) > self.top - DEPTH[1]
        n = len(self._nodes)
        place = np.floor((self._to_frame(y[high]) + 1) * n / 2).astype(int)
        inside = ((place >= 0) & (place < n)).all(axis=1)
        seen = np.isfinite(_neighbours(self._nodes, np.maximum))
        return not (inside.all() and seen[tuple(place.T)].all())

    def _found_error(self, y, logs):
        """Return what the polynomial is off at points drawn from the density, in nats, rms."""
        p, n, rng = logs.ndim, CHECKS[logs.ndim], np.random.default_rng(0)
        points = []
        for power in (1.0, 0.25):
            above = np.cumsum(np.exp(power * (logs.ravel() - logs.max())))
            chosen = np.searchsorted(above, above[-1] * (np.arange(n // 2) + 0.5) / (n // 2))
            points.append(y[chosen])
        jitter = rng.uniform(-1, 1, (n, p)) / len(logs)
        points = self._pulled(np.concatenate(points) + jitter @ self._axes.T)
        guess = self.approximate(points)
        found, prior = self._look(points)
        possible = np.isfinite(prior)
        found, prior = found[possible], prior[possible]
        return _error(1.0, logs.max(), found, guess[possible] - prior, prior)

    # ---- the fine grid ---------------------------------------------------------------------------

    def _settle(self, nodes):
        """Integrate on grids of twice as many nodes each, until two agree.

        The error of the second is then a third of their difference, or half at edges.
        """
        p = len(self.bounds)
        n, most = (EXACT if self._polynomial is None else FINE)[p]
        if nodes is not None:
            self._integrate(nodes)
            if self.mass.max() > 0.5:
                self.unresolved = "is narrower than the grid resolves"
            return
        before = self._integrate(n)
        while 2 * n <= most:
            n *= 2
            now = self._integrate(n)
            sigma = np.sqrt(np.diag(now[1]))
            with np.errstate(all="ignore"):  # a single node may have all: no sigma
                shift = np.abs(now[0] - before[0]) / sigma
                width = np.abs(now[1] - before[1]) / np.outer(sigma, sigma)
            near = AGREE[p]
            if max(shift.max(), width.max() / 2, abs(now[2] / before[2] - 1) / p) < near:
                return
            before = now
        self.unresolved = f"is not resolved by a grid of {n} nodes along each axis"

    def _integrate(self, n):
        """Take the grid of n^p nodes; return mean, covariance, and the volume of 68 %."""
        y, logs = self._grid(n)
        top = logs.max()
        if top == -np.inf:
            raise ValueError(_nowhere(logs.size))
        cell = abs(np.linalg.det(self._axes)) * (2 / n) ** logs.ndim
        highest, lowest = _neighbours(logs, np.maximum), _neighbours(logs, np.minimum)
        edge = ((highest > top - EDGE[0]) & (lowest < top - EDGE[1])).ravel()
        scattered = self._in_cells(np.repeat(y[edge], SCATTER, axis=0), n, np.random.default_rng(0))
        plain = ~edge & (logs.ravel() > top - EDGE[1])
        points = np.concatenate([y[plain], scattered])
        values = np.concatenate([logs.ravel()[plain], self.approximate(scattered)])
        volume = np.repeat([cell, cell / SCATTER], [plain.sum(), len(scattered)])
        some = values > top - EDGE[1]
        if not some.any():  # edges run through all cells, and between all points in them
            raise ValueError(_nowhere(logs.size))
        self.keep(points[some], values[some], volume[some])
        # For `sample` and `marginal`: cells, what the density in them is at most, and all nodes.
        self._cells = np.flatnonzero(highest > top - EDGE[1])
        self._height = highest.ravel()[self._cells]
        self._nodes = logs
        inside = ((y >= self.bounds[:, 0]) & (y <= self.bounds[:, 1])).all(axis=1)
        self._inside = inside.reshape(logs.shape)
        _, above, volume = self.contour()
        return *self.moments(), np.interp(0.68, above, volume)

    def _in_cells(self, middles, n, rng):
        """Return random points in the cells of these middles, (m, p)."""
        return middles + rng.uniform(-1, 1, middles.shape) / n @ self._axes.T

    def sample(self, n, rng):
        """Draw points (n, p): of cells, and one in each, kept as often as the density asks for."""
        side, p = len(self._nodes), len(self.bounds)
        above = np.cumsum(np.exp(self._height - self._height.max()))
        drawn, found, size = [np.empty((0, p))], 0, 256
        while found < n:
            chosen = np.searchsorted(above, above[-1] * rng.random(size), side="right")
            chosen = np.minimum(chosen, len(above) - 1)
            index = np.stack(np.unravel_index(self._cells[chosen], self._nodes.shape), axis=1)
            y = self._in_cells(self._from_frame((2 * index + 1) / side - 1), side, rng)
            kept = np.log(1 - rng.random(size)) < self.approximate(y) - self._height[chosen]
            drawn.append(y[kept])
            found, size = found + kept.sum(), min(2 * size, 1 << 14)
        return np.concatenate(drawn)[:n]

    def drawn(self, n, rng):
        """Draw points (n, p), and their log-densities (n,), by the polynomial if there is one."""
        y = self.sample(n, rng)
        return y, self.approximate(y)

    def marginal(self, *which):
        """Return nodes of these parameters, and the density of their marginal there.

        The others are integrated along lines on which they follow the covariance: in coordinates u
        of y = mean + root u, root being triangular, these parameters first.
        """
        p, k, side = len(self.bounds), len(which), len(self._nodes)
        order = [*which, *(j for j in range(p) if j not in which)]
        mean, cov = self.moments()
        mean, bounds, axes = mean[order], self.bounds[order], self._axes[order] / side
        root = np.linalg.cholesky(cov[np.ix_(order, order)])
        inside = self.points[self.logs > self.top - DEPTH[0]][:, order]

        def reach(points, cell):  # where the cells of points are
            margin = np.abs(cell).sum(axis=1)
            return points.min(axis=0) - margin, points.max(axis=0) + margin

        u_low, u_high = reach(
            np.linalg.solve(root, (inside - mean).T).T, np.linalg.solve(root, axes)
        )
        ends = np.clip(np.array(reach(inside, axes)), *bounds.T).T
        n = MARGINAL[p][k - 1]
        nodes = [low + (high - low) * (np.arange(n) + 0.5) / n for low, high in ends[:k]]
        y = list(np.meshgrid(*nodes, indexing="ij"))
        weight, u = np.ones(y[0].shape), []
        for j in range(p):
            middle = mean[j] + sum((root[j, i] * u[i] for i in range(j)), 0.0)
            if j >= k:
                low, high = (
                    np.clip(middle + root[j, j] * end[j], *bounds[j]) for end in (u_low, u_high)
                )
                lines = LINES[p]
                part = (np.arange(lines) + 0.5) / lines
                y = [a[..., None] + np.zeros(lines) for a in y]
                u = [a[..., None] for a in u]
                y.append(low[..., None] + (high - low)[..., None] * part)
                weight = (weight * (high - low))[..., None] / lines
                middle = middle[..., None]
            u.append((y[j] - middle) / root[j, j])
        points = np.empty((y[0].size, p))
        points[:, order] = np.stack([a.ravel() for a in y], axis=1)
        density = self._density(points).reshape(y[0].shape) * weight
        density = density.sum(axis=tuple(range(k, p)))
        return nodes, density / (density.sum() * math.prod(a[1] - a[0] for a in nodes))

    def _density(self, y):
        """Density of (m, p) points, the highest node's being 1.

        One that has no polynomial is linear between the nodes inside the bounds.
        """
        n, p = len(self._nodes), len(self.bounds)
        place = (self._to_frame(y) + 1) * n / 2 - 0.5
        out = (np.abs(place - (n - 1) / 2) > n / 2 + 1e-6).any(axis=1)
        if self._polynomial is not None:
            y = np.where(out[:, None], np.inf, y)
            return np.exp(self.approximate(y) - self.top)
        place = np.clip(place, 0, n - 1)
        base = np.minimum(place.astype(int), n - 2)
        part = place - base
        density = np.exp(self._nodes - self.top)
        total = share = 0.0
        for corner in itertools.product((0, 1), repeat=p):
            weight = np.where(corner, part, 1 - part).prod(axis=1)
            at = tuple((base + corner).T)
            total = total + weight * density[at]
            share = share + weight * self._inside[at]
        total = np.divide(total, share, out=np.zeros(len(y)), where=share > 1e-6)
        return np.where(out, 0.0, total)


def _nowhere(n):
    """Return what to say where a density is zero at all of n points."""
    return (
        f"prior: the posterior is zero everywhere on the grid, at {n} points: give bounds that are "
        "closer to where it is not"
    )


def _error(power, top, logs, guess, prior):
    """Root mean square error of guesses of log-likelihoods, where the density^power is high.

    Its square root is the weight: a fault at the bottom of the tails does no harm.
    """
    possible = np.isfinite(prior) & (logs != guess)
    if not possible.any():
        return 0.0
    logs, guess, prior = logs[possible], guess[possible], prior[possible]
    high = np.minimum(np.maximum(logs, guess) + prior - top, 0)
    weight = np.exp(0.5 * power * high)
    return float(np.sqrt((weight * (logs - guess) ** 2).sum() / max(weight.sum(), 1)))


def _neighbours(values, largest):
    """Return the largest, or smallest, of every node and all its neighbours."""
    for axis in range(values.ndim):
        values = np.moveaxis(values, axis, 0)
        padded = np.concatenate([values[:1], values, values[-1:]])
        values = largest(largest(padded[:-2], padded[2:]), values)
        values = np.moveaxis(values, 0, axis)
    return values
