"""Tasks of simulation-based inference whose posteriors are known, and how samples are judged.

The tasks are those of the benchmark of Lueckmann et al. 2021 (arXiv 2101.04653): theta is drawn
from a prior, the simulator draws x, and p(theta | x_obs) is wanted for each of ten observations.
`sbi_tasks.json` holds the observations and what methods scored there, as published. The posteriors
here are exact: independent draws, no chains.
"""

import json
import warnings
from pathlib import Path

import numpy as np

PUBLISHED = json.loads((Path(__file__).parent / "sbi_tasks.json").read_text(encoding="utf-8"))


class Task:
    """theta (n, d) from a prior, x (n, p) from a simulator, and draws of p(theta | x_obs).

    The prior is uniform in |theta_j| < `bound`; a task of another prior has bound None.
    """

    name: str
    d: int
    bound: float | None

    @property
    def observations(self):
        """Return the ten published observations (10, p)."""
        return np.array(PUBLISHED["tasks"][self.name]["observation"])

    @property
    def bounds(self):
        """Return the prior's box (d, 2), or None."""
        return None if self.bound is None else np.tile([-self.bound, self.bound], (self.d, 1))

    def prior(self, rng, n):
        return rng.uniform(-self.bound, self.bound, (n, self.d))

    def log_prior(self, theta):
        inside = (np.abs(theta) < self.bound).all(axis=1)
        return np.where(inside, -self.d * np.log(2 * self.bound), -np.inf)

    def simulate(self, rng, theta):
        raise NotImplementedError

    def posterior(self, rng, x, n):
        raise NotImplementedError


def accepted(n, draw, keep):
    """Return the first n rows of `draw(m)` for which `keep` is true."""
    rows, found = [], 0
    while found < n:
        new = draw(2 * n)
        rows.append(new[keep(new)])
        found += len(rows[-1])
    return np.concatenate(rows)[:n]


class TwoMoons(Task):
    """A crescent around (-|theta_1 + theta_2|, theta_2 - theta_1) / sqrt 2."""

    name, d, bound = "two_moons", 2, 1.0

    def noise(self, rng, n):
        angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, n), rng.normal(0.1, 0.01, n)
        return np.column_stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)])

    @staticmethod
    def centre(theta):
        plus, minus = theta[:, 0] + theta[:, 1], theta[:, 1] - theta[:, 0]
        return np.column_stack([-np.abs(plus), minus]) / np.sqrt(2)

    def simulate(self, rng, theta):
        return self.centre(theta) + self.noise(rng, len(theta))

    def posterior(self, rng, x, n):
        """Solve for theta where the noise is given: both signs of theta_1 + theta_2 are as likely.

        theta -> centre keeps areas, and so the density is that of the noise, inside the box.
        """

        def draw(m):
            gap = self.noise(rng, m) - x
            plus = np.where(gap[:, 0] >= 0, gap[:, 0], np.nan) * rng.choice([-1.0, 1.0], m)
            return np.column_stack([plus + gap[:, 1], plus - gap[:, 1]]) / np.sqrt(2)

        return accepted(n, draw, lambda theta: (np.abs(theta) < self.bound).all(axis=1))


class GaussianLinear(Task):
    """x ~ N(theta, 0.1 I) in ten dimensions, theta ~ N(0, 0.1 I)."""

    name, d, bound = "gaussian_linear", 10, None
    variance = 0.1

    def prior(self, rng, n):
        return rng.normal(0, np.sqrt(self.variance), (n, self.d))

    def log_prior(self, theta):
        constant = 0.5 * self.d * np.log(2 * np.pi * self.variance)
        return -0.5 * (theta**2).sum(axis=1) / self.variance - constant

    def simulate(self, rng, theta):
        return rng.normal(theta, np.sqrt(self.variance))

    def posterior(self, rng, x, n):
        return rng.normal(x / 2, np.sqrt(self.variance / 2), (n, self.d))


class GaussianLinearUniform(Task):
    """x ~ N(theta, 0.1 I) in ten dimensions, theta uniform."""

    name, d, bound = "gaussian_linear_uniform", 10, 1.0
    variance = 0.1

    def simulate(self, rng, theta):
        return rng.normal(theta, np.sqrt(self.variance))

    def posterior(self, rng, x, n):
        from scipy.special import ndtr, ndtri

        sigma = np.sqrt(self.variance)
        low, high = ndtr((-self.bound - x) / sigma), ndtr((self.bound - x) / sigma)
        return x + sigma * ndtri(rng.uniform(low, high, (n, self.d)))


class GaussianMixture(Task):
    """x ~ N(theta, I) or N(theta, 0.01 I), each in half of the cases."""

    name, d, bound = "gaussian_mixture", 2, 10.0

    @staticmethod
    def around(rng, centre, n):
        return centre + rng.choice([1.0, 0.1], (n, 1)) * rng.normal(size=(n, 2))

    def simulate(self, rng, theta):
        return self.around(rng, theta, len(theta))

    def posterior(self, rng, x, n):
        inside = lambda theta: (np.abs(theta) < self.bound).all(axis=1)  # noqa: E731
        return accepted(n, lambda m: self.around(rng, x, m), inside)


class SLCP(Task):
    """Four points of N(m, S), m = theta_1,2, S of s = theta_3,4^2 and correlation tanh theta_5.

    Simple likelihood, complex posterior: signs of theta_3 and theta_4 make four modes.
    """

    name, d, bound = "slcp", 5, 3.0
    cells = 120

    @staticmethod
    def root(shape):
        """Return the Cholesky factor of S (n, 2, 2) for theta_3 to theta_5 (n, 3)."""
        s1, s2, rho = shape[:, 0] ** 2, shape[:, 1] ** 2, np.tanh(shape[:, 2])
        root = np.zeros((len(shape), 2, 2))
        root[:, 0, 0], root[:, 1, 0] = s1, rho * s2
        root[:, 1, 1] = s2 / np.cosh(shape[:, 2])  # sqrt(1 - rho^2)
        return root

    def simulate(self, rng, theta):
        noise = rng.normal(size=(len(theta), 4, 2)) @ self.root(theta[:, 2:]).transpose(0, 2, 1)
        return (theta[:, None, :2] + noise).reshape(len(theta), 8)

    @staticmethod
    def log_shape(scatter, s3, s4, s5):
        """Return log p(theta_3, theta_4, theta_5 | x) + constant where m has no bounds.

        m integrates out: |S|^(-3/2) exp(-tr(S^-1 scatter) / 2), the scatter that of the four
        points about their mean, |S| = s1^2 s2^2 / cosh^2 theta_5. Arrays broadcast.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            s1, s2, cosh = s3**2, s4**2, np.cosh(s5)
            trace = scatter[0, 0] / s1**2 + scatter[1, 1] / s2**2
            trace = trace - 2 * np.tanh(s5) * scatter[0, 1] / (s1 * s2)
            logp = -3 * (np.log(s1) + np.log(s2) - np.log(cosh)) - 0.5 * cosh**2 * trace
        return np.where((s1 > 0) & (s2 > 0), logp, -np.inf)

    def posterior(self, rng, x, n):
        """Draw theta_3 to theta_5 by rejection in cells, then m ~ N(mean, S / 4), inside the box.

        A cell's ceiling is 1.5 times the density at the highest of its corners; a density above
        it would be an error.
        """
        points = x.reshape(4, 2)
        mean, scatter = points.mean(axis=0), 3 * np.cov(points.T)
        edges = [np.linspace(low, self.bound, self.cells + 1) for low in (0, 0, -self.bound)]
        top = self.log_shape(scatter, *np.meshgrid(*edges, indexing="ij", sparse=True))
        for axis in range(3):
            before, after = (np.take(top, range(i, i + self.cells), axis) for i in (0, 1))
            top = np.maximum(before, after)
        top = top.ravel() + np.log(1.5)
        heap = np.cumsum(np.exp(top - top.max()))
        low, width = np.array([e[0] for e in edges]), np.array([e[1] - e[0] for e in edges])

        def draw(m):
            cell = np.searchsorted(heap, rng.uniform(0, heap[-1], m), side="right")
            index = np.column_stack(np.unravel_index(cell, 3 * (self.cells,)))
            shape = low + width * (index + rng.uniform(size=(m, 3)))
            excess = self.log_shape(scatter, *shape.T) - top[cell]
            if (excess > 0).any():
                raise RuntimeError("SLCP: the density is above a cell's ceiling")
            noise = self.root(shape) @ rng.normal(size=(m, 2, 1)) / 2
            theta = np.column_stack([mean + noise[..., 0], shape])
            theta[:, 2:4] *= rng.choice([-1.0, 1.0], (m, 2))
            theta[np.log(rng.uniform(size=m)) > excess] = np.nan
            return theta

        return accepted(n, draw, lambda theta: (np.abs(theta) < self.bound).all(axis=1))


TASKS = {
    task.name: task
    for task in (TwoMoons(), SLCP(), GaussianLinear(), GaussianLinearUniform(), GaussianMixture())
}


def c2st(reference, samples, seed=1):
    """Return how well a classifier tells two sets apart: 0.5 is not at all, 1 always.

    As the benchmark defines it: rows are standardised by the reference's mean and standard
    deviation; the accuracy, in five-fold cross-validation, of scikit-learn's perceptron with two
    hidden layers of 10 d units.
    """
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    mean, std, d = reference.mean(axis=0), reference.std(axis=0, ddof=1), reference.shape[1]
    rows = (np.concatenate([reference, samples]) - mean) / std
    of = np.repeat([0, 1], [len(reference), len(samples)])
    classifier = MLPClassifier((10 * d, 10 * d), max_iter=10_000, random_state=seed)
    folds = KFold(5, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence
        return float(cross_val_score(classifier, rows, of, cv=folds).mean())
