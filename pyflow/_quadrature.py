"""What a posterior is known through: weighted points, of a grid (_grid.py), draws or a chain.

The integral of f over the parameters is sum_i volume_i f(points_i), with the volumes of a grid's
cells, or with those of the bridge estimator. All that a posterior says of itself follows from
points, their log-densities and volumes.
"""

from __future__ import annotations

import math

import numpy as np

from pyflow._arguments import warn

SEARCH = 1024, 1 << 17  # points looked at first, and at most until enough have a density
WALKERS = 64, 8  # at least, and per parameter
STAGE_STEPS = 4  # and p more, of the walkers at every power of the density on their way to 1
ACCEPTED = 0.1  # of these steps, at least; else they are made shorter, so many times at most:
SHORTER = 24
ROUNDS = 6  # of all powers, at most: while walkers find what is LITTLE nats above all known points,
LITTLE, BEHIND = 2, 5  # and others are behind by so many, once and for every axis
LENGTH, BURN = 30, 5  # of the chain kept, and of what goes before, in autocorrelation times
STEPS = 10000  # at most
FREEDOM = 5.0  # degrees of freedom of the Student-t that the chain is bridged to
PROPOSALS = 4096
BINS = 40  # of a chain's marginals, along an axis


class Quadrature:
    """Points of a density within bounds, and the volume that each stands for.

    Attributes
    ----------
    points : (m, p) float64 array
    logs : (m,) float64 array
        Log-density, up to a constant.
    volume : (m,) float64 array
    mass : (m,) float64 array
        Of the density, their sum 1.
    log_evidence, log_evidence_error : float
    """

    log_evidence_error = 0.0

    def __init__(self, log_density, bounds, names, log_prior=None):
        self._log_density, self.bounds, self.names = log_density, bounds, names
        self._log_prior = log_prior

    def density(self, points):
        """Log-density of (m, p) points with the prior, (m,); -inf outside the bounds."""
        logs = self.prior(points)
        inside = np.isfinite(logs)
        logs[inside] += self.likelihood(points[inside])
        return logs

    def prior(self, points):
        """Log-prior of (m, p) points, (m,): 0 without one; -inf outside the bounds."""
        inside = ((points >= self.bounds[:, 0]) & (points <= self.bounds[:, 1])).all(axis=1)
        logs = np.where(inside, 0.0, -np.inf)
        if self._log_prior is not None and inside.any():
            logs[inside] = self._log_prior(points[inside])
        return logs

    def likelihood(self, points):
        """Return what `log_density` gives of (m, p) points inside the bounds, (m,)."""
        if not len(points):
            return np.empty(0)
        logs = np.asarray(self._log_density(points), dtype=np.float64)
        if logs.shape not in ((), (len(points),)):
            raise ValueError(
                f"log_density: gave shape {logs.shape} for {len(points)} points, not one each"
            )
        if np.isnan(logs).any() or (logs == np.inf).any():
            raise ValueError("log_density: gave NaN or infinity inside the bounds")
        return np.broadcast_to(logs, len(points))

    def keep(self, points, logs, volume):
        """Take these as the points."""
        self.points, self.logs, self.volume, self.top = points, logs, volume, logs.max()
        mass = np.exp(logs - self.top) * volume
        self.log_evidence = float(self.top + np.log(mass.sum()))
        self.mass = mass / mass.sum()

    def _pick(self, u):
        """Return which points have the mass add up to more than u (n,), in [0, 1)."""
        above = np.cumsum(self.mass)
        return np.searchsorted(above / above[-1], u, side="right")

    def moments(self):
        """Mean (p,) and covariance (p, p)."""
        mean = self.mass @ self.points
        centred = self.points - mean
        return mean, (centred * self.mass[:, None]).T @ centred

    def contour(self):
        """Log-densities from high to low, and the mass and the volume down to each."""
        order = np.argsort(-self.logs, kind="stable")
        return self.logs[order], np.cumsum(self.mass[order]), np.cumsum(self.volume[order])


def generator(p):
    """Return the step (p,) of a low-discrepancy sequence: powers of 1/g, g^(p + 1) = g + 1."""
    g = 1.5
    for _ in range(60):
        g = (1 + g) ** (1 / (p + 1))
    return g ** -np.arange(1.0, p + 1)


def _gaussian_move(cov):
    """Return steps of a covariance, each walker's own: those of emcee's `GaussianMove` are one."""
    axes, sizes, _ = np.linalg.svd(cov)
    root = axes * np.sqrt(sizes)

    def proposed(coords, rng):
        return coords + rng.standard_normal(coords.shape) @ root.T, np.zeros(len(coords))

    return import_emcee().moves.MHMove(proposed)


def _largest_step(logs, most, enough):
    """Largest step up to `most` for which weights p^step leave an effective number `enough`."""

    def effective(step):
        weight = np.exp(step * (logs - logs.max()))
        return weight.sum() ** 2 / (weight**2).sum()

    if effective(most) >= enough:
        return most
    low, high = -700.0, math.log(most)
    for _ in range(60):
        middle = 0.5 * (low + high)
        if effective(math.exp(middle)) < enough:
            high = middle
        else:
            low = middle
    return math.exp(low)


def _autocorrelation_time(x):
    """Integrated autocorrelation time of (steps, walkers, quantities), the longest of them.

    The mean that is taken off is of all walkers: one that stays where it is makes the time long.
    The sum goes up to five times itself (Sokal 1997).
    """
    n, longest = len(x), 1.0
    x = x - x.mean(axis=(0, 1))
    for quantity in np.moveaxis(x, 2, 0):
        power = np.abs(np.fft.rfft(quantity, 2 * n, axis=0)) ** 2
        covariance = np.fft.irfft(power.mean(axis=1))[:n]
        if covariance[0] <= 0:  # it is constant
            continue
        times = 2 * np.cumsum(covariance / covariance[0]) - 1
        enough = np.arange(n) >= 5 * times
        longest = max(longest, times[enough.argmax() if enough.any() else -1])
    return float(longest)


def _smooth(values, axis):
    """Average over neighbours with weights 1 4 6 4 1, mirrored at the ends."""
    values = np.moveaxis(values, axis, 0)
    padded = np.concatenate([values[1::-1], values, values[:-3:-1]])
    n = len(values)
    total = sum(w * padded[i : i + n] for i, w in enumerate((1, 4, 6, 4, 1)))
    return np.moveaxis(total / 16, 0, axis)


def import_emcee():
    """Return emcee; an ImportError says how to get it."""
    try:
        import emcee
    except ImportError:
        raise ImportError(
            "method: chains, which posteriors of more than three parameters need, are emcee's: "
            "pip install emcee"
        ) from None
    return emcee


class Points(Quadrature):
    """Points that are spread as the density is, or nearly so."""

    def sample(self, n, rng):
        """Draw points (n, p), with replacement; each takes a number of the generator."""
        return self.drawn(n, rng)[0]

    def drawn(self, n, rng):
        """Draw points (n, p), and their log-densities (n,)."""
        which = self._pick(rng.random(n))
        return self.points[which], self.logs[which]

    def marginal(self, *which):
        """As of a grid, from a histogram."""
        edges = []
        for j in which:
            order = np.argsort(self.points[:, j])
            ends = np.searchsorted(np.cumsum(self.mass[order]), [1e-3, 1 - 1e-3])
            low, high = self.points[order[np.minimum(ends, len(order) - 1)], j]
            slack = 0.1 * (high - low)
            low, high = np.clip([low - slack, high + slack], *self.bounds[j])
            edges.append(np.linspace(low, high, BINS + 1))
        mass, _ = np.histogramdd(self.points[:, which], edges, weights=self.mass)
        for axis in range(len(which)):
            mass = _smooth(mass, axis)
        cell = math.prod(e[1] - e[0] for e in edges)
        return [0.5 * (e[1:] + e[:-1]) for e in edges], mass / (mass.sum() * cell)


class Draws(Points):
    """Draws of a grid whose polynomial is only near the density, weighted by what it is off.

    Importance sampling: n draws of the density q of the polynomial, each of which stands for the
    volume 1 / (n q).
    """

    def __init__(self, grid, n=PROPOSALS):
        super().__init__(grid._log_density, grid.bounds, grid.names, grid._log_prior)
        points = grid.sample(n, np.random.default_rng(0))
        log_q = grid.approximate(points) - grid.log_evidence
        self.keep(points, self.density(points), np.exp(-log_q) / n)
        self.log_evidence_error = float(np.sqrt(max((self.mass**2).sum() - 1 / n, 0.0)))


class Chain(Points):
    """A Markov chain of emcee's walkers, bridged to a Student-t whose normalisation is known.

    The walkers start from the best of points spread evenly over the bounds, and follow powers of
    the density that rise to 1 (sequential Monte Carlo: Del Moral et al. 2006). They then
    take steps of differential evolution (ter Braak 2006; Nelson et al. 2013) until the chain is
    `LENGTH` autocorrelation times long.

    The points are those of the chain and draws of a Student-t of the chain's mean and
    covariance. A point stands for the volume 1 / (n p / Z + m q): n independent points of the
    chain, as many as its autocorrelation time says, m draws of density q, and Z the evidence that
    the integral of p then gives (Meng & Wong 1996; Kong et al. 2003).
    """

    def __init__(self, log_density, bounds, names, log_prior=None, seed=0, steps=None):
        super().__init__(log_density, bounds, names, log_prior)
        rng = np.random.default_rng(seed)
        self._walkers = max(WALKERS[0], WALKERS[1] * len(bounds))
        points, logs, share = self._run(self._start(rng), steps or STEPS)
        self._bridge(points, logs, share, rng)

    def _sampler(self, power, cov=None):
        """Return an ensemble that samples a power of the density.

        On their way to the density itself few walkers have many descendants, and steps along
        differences between walkers would never leave the subspace that these span: steps are then
        of a covariance that is given.
        """
        emcee = import_emcee()
        if cov is not None:
            moves = _gaussian_move(cov)
        else:  # a step of length one carries walkers from peak to peak
            moves = [(emcee.moves.DEMove(sigma=0.1), 0.9), (emcee.moves.DEMove(gamma0=1.0), 0.1)]
        return emcee.EnsembleSampler(
            self._walkers,
            len(self.bounds),
            lambda y: power * self.density(y),
            moves=moves,
            vectorize=True,
        )

    def _start(self, rng):
        """Walkers that are spread as the density is."""
        points, logs = self._search(rng)
        seed = np.random.RandomState(np.random.MT19937(rng.integers(2**63))).get_state()
        for _ in range(ROUNDS):
            start = self._annealed(points, logs, rng, seed)
            best = start.log_prob.argmax()
            found, left = start.log_prob[best] - logs.max(), np.ptp(start.log_prob)
            if found < LITTLE or left < BEHIND * (1 + points.shape[1]):
                break
            # a peak was climbed so late that walkers were left elsewhere: now it is known
            points = np.append(points, start.coords[best : best + 1], axis=0)
            logs, seed = np.append(logs, start.log_prob[best]), start.random_state
        return start

    def _search(self, rng):
        """Points spread evenly over the bounds, and their log-densities, all finite."""
        n, p = self._walkers, len(self.bounds)
        shift, done, looked = rng.random(p), 0, SEARCH[0]
        points, logs = np.empty((0, p)), np.empty(0)
        while True:
            more = self.bounds[:, 0] + np.ptp(self.bounds, axis=1) * (
                (shift + np.arange(done, looked)[:, None] * generator(p)) % 1
            )
            logs = np.concatenate([logs, self.density(more)])
            points = np.concatenate([points, more])
            points, logs = points[np.isfinite(logs)], logs[np.isfinite(logs)]
            if len(logs) >= n or looked >= SEARCH[1]:
                break
            done, looked = looked, 4 * looked
        if len(logs) < 2 * p + 2:
            raise ValueError(
                "prior: the posterior is zero, or nearly everywhere, within the bounds: "
                f"it is not at {len(logs)} points of {looked}"
            )
        return points, logs

    def _annealed(self, points, logs, rng, seed):
        """Walkers that start from points, and follow powers of the density that rise to 1."""
        emcee = import_emcee()
        n, p = self._walkers, points.shape[1]
        power, cov = 0.0, np.diag(np.ptp(self.bounds, axis=1) ** 2)
        while power < 1:
            step = _largest_step(logs, 1 - power, min(n, len(logs)) / 2)
            power = min(power + step, 1.0)
            share = np.exp(step * (logs - logs.max()))
            share /= share.sum()
            centred = points - share @ points
            cov = 0.01 * cov  # in case that all descend from one point
            cov += 2.38**2 / p * (centred * share[:, None]).T @ centred
            chosen = np.searchsorted(np.cumsum(share), (np.arange(n) + rng.random()) / n)
            chosen = np.minimum(chosen, len(logs) - 1)
            state = emcee.State(points[chosen], log_prob=power * logs[chosen], random_state=seed)
            for _ in range(SHORTER):
                sampler = self._sampler(power, cov)
                state = sampler.run_mcmc(state, STAGE_STEPS + p, skip_initial_state_check=True)
                if sampler.acceptance_fraction.mean() > ACCEPTED:
                    break
                cov = cov / 10  # that of points far around a narrow peak, which one of them met
            points, logs, seed = state.coords, state.log_prob / power, state.random_state
        return emcee.State(points, log_prob=logs, random_state=seed)

    def _run(self, start, most):
        """Points of the chain, their log-densities, and how much of an independent one each is."""
        sampler, steps, aim = self._sampler(1.0), 0, 200
        while True:
            aim = min(aim, most)
            start = sampler.run_mcmc(start, aim - steps, skip_initial_state_check=True)
            steps = aim
            points, logs = sampler.get_chain(), sampler.get_log_prob()
            both = np.concatenate([points, logs[..., None]], axis=2)
            tau = _autocorrelation_time(both[steps // 5 :])
            need = (LENGTH + BURN) * tau
            if steps >= need or steps >= most:
                break
            aim = math.ceil(max(1.2 * steps, min(1.05 * need, 3 * steps)))
        burn = int(min(BURN * tau, steps // 5))
        if steps < need:
            warn(
                f"the chain is too short: {steps} steps are {steps / tau:.0f} autocorrelation "
                f"times, not {LENGTH + BURN}; give more steps",
                RuntimeWarning,
            )
        self.steps, self.autocorrelation_time = steps, tau
        thin = max(int(min(tau, len(points)) / 3), 1)  # what lies between adds next to nothing
        points, logs = points[burn::thin], logs[burn::thin]
        self._kept = logs.shape  # steps and walkers
        share = max(thin / tau, 1 / len(points))
        return points.reshape(-1, points.shape[2]), logs.ravel(), share

    def walk(self):
        """Points of the chain (steps, walkers, p), burnt in and thinned, and log-densities."""
        n = math.prod(self._kept)  # `_bridge` keeps them first: all have a density
        points = self.points[:n].reshape(*self._kept, -1)
        return points.copy(), self.logs[:n].reshape(self._kept).copy()

    def _bridge(self, chain, logs, share, rng):
        """Take the points of the chain and of a Student-t, with their volumes."""
        p, n, m = chain.shape[1], share * len(chain), PROPOSALS
        mean, cov = chain.mean(axis=0), np.cov(chain.T).reshape(p, p)
        least = 1e-9 * np.diag(cov) + (1e-12 * np.ptp(self.bounds, axis=1)) ** 2
        root = np.linalg.cholesky(cov + np.diag(least)) * math.sqrt(1 - 2 / FREEDOM)
        z = rng.normal(size=(m, p)) / np.sqrt(rng.chisquare(FREEDOM, size=(m, 1)) / FREEDOM)
        points = np.concatenate([chain, mean + z @ root.T])
        logs = np.concatenate([logs, self.density(points[len(chain) :])])
        share = np.where(np.arange(len(points)) < len(chain), share, 1.0)
        inside = np.isfinite(logs)
        points, logs, share = points[inside], logs[inside], share[inside]

        square = (np.linalg.solve(root, (points - mean).T) ** 2).sum(axis=0)
        log_q = -(FREEDOM + p) / 2 * np.log1p(square / FREEDOM)
        log_q += math.lgamma((FREEDOM + p) / 2) - math.lgamma(FREEDOM / 2)
        log_q -= p / 2 * math.log(FREEDOM * math.pi) + np.log(np.diag(root)).sum()
        # The sum of shares of f = n p / Z / (n p / Z + m q) is n, and falls with Z.
        ratio = logs - log_q + math.log(n / m)
        low, high = ratio.min() - 40, ratio.max() + 40
        for _ in range(60):
            log_z = 0.5 * (low + high)
            f = 1 / (1 + np.exp(np.clip(log_z - ratio, -700, 700)))
            if (share * f).sum() > n:
                low = log_z
            else:
                high = log_z
        total = np.logaddexp(math.log(n) + logs - log_z, math.log(m) + log_q)
        self.keep(points, logs, share * np.exp(-total))
        both = max((share * f * (1 - f)).sum(), 1e-300)
        self.log_evidence_error = math.sqrt(max(1 / both - 1 / n - 1 / m, 0.0))
