"""Distance of GIS from densities that are known exactly, against the number of training rows.

    python bench/truth.py [--quick]

KL(truth || model) = E_truth[log p_truth - log p_model] in nats, by Monte Carlo over fresh points
of the truth, with default settings and one validation row for every four training rows. Beside
it, the same mean over the 99 per cent of the points where the truth is densest: heavy tails
decide the first and not the second. Writes results/truth.{json,md,png}.
"""

import argparse

import numpy as np
from measure import RESULTS, markdown, mean_se, write

SIZES = (300, 1000, 3000, 10000, 30000)
CORE = 0.99  # share of the points that counts as the truth's core
LOG_2PI = np.log(2 * np.pi)


def log_normal(x, mean=0.0, std=1.0):
    """Return the log-density of N(mean, std^2) at x."""
    return -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * LOG_2PI


class Banana:
    """x_0 ~ N(0, 1), x_1 ~ N(x_0^2, 0.5^2)."""

    bounds = None

    def sample(self, rng, n):
        x = rng.standard_normal((n, 2))
        return np.column_stack([x[:, 0], x[:, 0] ** 2 + 0.5 * x[:, 1]])

    def logp(self, x):
        return log_normal(x[:, 0]) + log_normal(x[:, 1], x[:, 0] ** 2, 0.5)


class Ring:
    """Radius N(3, 0.3^2), any angle; a radius below zero, at 10 sigma, does not happen."""

    bounds = None

    def sample(self, rng, n):
        radius = 3 + 0.3 * rng.standard_normal(n)
        angle = rng.uniform(0, 2 * np.pi, n)
        return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])

    def logp(self, x):
        radius = np.hypot(x[:, 0], x[:, 1])
        return log_normal(radius, 3, 0.3) - np.log(2 * np.pi * radius)


class Mixture:
    """Four Gaussians of equal weight in five dimensions, 4 sigma apart."""

    bounds = None
    centres = 2 * np.sqrt(2) * np.eye(4, 5)

    def sample(self, rng, n):
        return self.centres[rng.integers(4, size=n)] + rng.standard_normal((n, 5))

    def logp(self, x):
        parts = [log_normal(x - centre).sum(axis=1) for centre in self.centres]
        return np.logaddexp.reduce(parts, axis=0) - np.log(4)


class Cauchy:
    """Two independent standard Cauchy variables."""

    bounds = None

    def sample(self, rng, n):
        return rng.standard_cauchy((n, 2))

    def logp(self, x):
        return -np.log(np.pi * (1 + x**2)).sum(axis=1)


class Gaussian:
    """A Gaussian of unit variances in ten dimensions; neighbouring columns correlate by 0.9."""

    bounds = None

    def sample(self, rng, n):
        x = rng.standard_normal((n, 10))
        for j in range(1, 10):
            x[:, j] = 0.9 * x[:, j - 1] + np.sqrt(0.19) * x[:, j]
        return x

    def logp(self, x):
        steps = log_normal(x[:, 1:], 0.9 * x[:, :-1], np.sqrt(0.19))
        return log_normal(x[:, 0]) + steps.sum(axis=1)


class Box:
    """Uniform in a box of three dimensions, whose bounds the fit is told."""

    bounds = ((0.0, 1.0), (-1.0, 1.0), (0.0, 10.0))

    def sample(self, rng, n):
        low, high = np.transpose(self.bounds)
        return rng.uniform(low, high, (n, 3))

    def logp(self, x):
        return np.full(len(x), -np.log(20.0))


TRUTHS = {
    "banana": Banana(),
    "ring": Ring(),
    "mixture": Mixture(),
    "Cauchy": Cauchy(),
    "Gaussian": Gaussian(),
    "box": Box(),
}


def divergence(truth, n, seed, points):
    """Fit GIS to n points of the truth.

    Returns the mean of log p_truth - log p_model over `points` new points, and the same over the
    `CORE` of them.
    """
    import pyflow

    rng = np.random.default_rng(seed)
    train, val, new = (truth.sample(rng, size) for size in (n, n // 4, points))
    model = pyflow.GIS(train, val, bounds=truth.bounds, seed=seed, verbose=False)
    logp = truth.logp(new)
    excess = logp - model.evaluate_density(new)
    core = logp >= np.quantile(logp, 1 - CORE)
    return float(excess.mean()), float(excess[core].mean())


def measure(name, sizes, seeds, points):
    """Return a list of {"n", "kl": [per seed], "core": [per seed]} for one truth."""
    curve = []
    for n in sizes:
        pairs = [divergence(TRUTHS[name], n, seed, points) for seed in range(seeds)]
        kl, core = np.transpose(pairs).tolist()
        curve.append({"n": n, "kl": kl, "core": core})
        print(name, n, f"KL {np.mean(kl):.4f}, core {np.mean(core):.4f}", flush=True)
    return curve


def report(curves):
    """Return the Markdown table: one line per truth, KL and core KL for each n."""
    sizes = [point["n"] for point in next(iter(curves.values()))]
    lines = []
    for name, curve in curves.items():
        for key, label in (("kl", name), ("core", f"{name}, core")):
            pairs = [mean_se(point[key]) for point in curve]
            lines.append([label, *(f"{mean:.4f} ± {se:.4f}" for mean, se in pairs)])
    return [markdown(["KL to the truth, nats", *(f"n = {n}" for n in sizes)], lines)]


def plot(curves):
    """Draw KL against n, and core KL, into results/truth.png."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    import pyflow

    titles = {"kl": "all points", "core": f"densest {CORE:.0%} of the points"}
    with pyflow.plots.style():
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, (key, title) in zip(axes, titles.items(), strict=True):
            for name, curve in curves.items():
                means, errors = zip(*(mean_se(point[key]) for point in curve), strict=True)
                n = [point["n"] for point in curve]
                axis.errorbar(n, means, errors, marker="o", ms=3, label=name)
            axis.set(xscale="log", yscale="log", xlabel="training rows", title=title)
            axis.xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_ylabel("KL(truth || GIS), nats")
        axes[1].legend()
        RESULTS.mkdir(exist_ok=True)
        figure.savefig(RESULTS / "truth.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 seeds, at most 3000 rows")
    parser.add_argument("--truths", nargs="+", default=list(TRUTHS), choices=list(TRUTHS))
    options = parser.parse_args()
    sizes, seeds = (SIZES[:3], 2) if options.quick else (SIZES, 5)
    points = 20000 if options.quick else 100000
    curves = {name: measure(name, sizes, seeds, points) for name in options.truths}
    plot(curves)
    write("truth", {"seeds": seeds, "points": points, "curves": curves}, report(curves))


if __name__ == "__main__":
    main()
