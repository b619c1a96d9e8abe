"""Hamiltonian Monte Carlo of a density with hard bounds, by its score.

    python examples/hmc.py            # half a minute
    python examples/hmc.py --quick    # fewer layers and steps, seconds

A flow draws independent samples by itself; its score serves what has no such way: a likelihood
times a prior, or a density with some of its variables held. To see that it is right, here it is
used on a density whose draws are known: GIS of a table of three columns, one of which is positive
and piles up at zero, one between zero and one.

Particles x with momenta v, of unit mass, move by dx/dt = v, dv/dt = d log p / dx in steps of
leapfrog (Duane et al. 1987; Neal 2011, arXiv 1206.1901), and the end of a path is taken with
probability min(1, p exp(-v^2 / 2) / that of its beginning). Outside of the bounds log p is -inf and
the score is asked to be zero there (`outside="zero"`): a path that ends outside is refused, and one
that comes back is not. Many chains move at once, one row each.

Prints means and widths of every column, of the chains and of direct samples, with the difference in
standard errors, which allow for the chains' autocorrelation; draws both.
"""

import argparse
from pathlib import Path

import numpy as np

import pyflow

BOUNDS = np.array([[-np.inf, np.inf], [0.0, np.inf], [0.0, 1.0]])
NAMES = ["x", "positive", "share"]
CHAINS = 400
STEP = 0.15  # in units of the columns' widths


def table(n, seed):
    """Return n rows: a Gaussian, an exponential whose scale goes with it, and a share of both."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    positive = rng.exponential(np.exp(0.3 * x))
    return np.stack([x, positive, rng.beta(1.2, 1 + 0.5 * positive)], axis=1)


def fit(n, layers):
    """Return the flow of such a table."""
    train, validate = table(n, 1), table(n // 4, 2)
    options = {"bounds": BOUNDS, "max_layers": layers, "n_models": 1, "polish": False}
    return pyflow.GIS(train, validate, autoregressive=False, verbose=False, **options)


def leapfrog(score, x, v, step, steps):
    """Return positions and momenta after so many steps, and log p there."""
    slope, logp = score(x)
    for _ in range(steps):
        v = v + 0.5 * step * slope
        x = x + step * v
        slope, logp = score(x)
        v = v + 0.5 * step * slope
    return x, v, logp


def hmc(score, x, n, step, steps, rng):
    """Return chains (n, *x.shape) that begin at the rows of x, and the share of paths taken."""
    logp = score(x)[1]
    chain, taken = np.empty((n, *x.shape)), 0.0
    for i in range(n):
        v = rng.normal(size=x.shape)
        here = step * rng.uniform(0.7, 1.3)  # paths of one length may come back to where they began
        y, w, log = leapfrog(score, x, v, here, steps)
        gain = log - logp - 0.5 * (w**2 - v**2).sum(axis=1)
        take = np.log(1 - rng.random(len(x))) < gain
        x, logp = np.where(take[:, None], y, x), np.where(take, log, logp)
        chain[i], taken = x, taken + take.mean() / n
    return chain, taken


def moments(chain):
    """Return means and widths (2, d), and their errors, of chains (n, chains, d)."""
    mean, width = chain.mean(axis=(0, 1)), chain.std(axis=(0, 1))
    each = np.stack([chain.mean(axis=0), ((chain - mean) ** 2).mean(axis=0) / (2 * width)])
    return np.stack([mean, width]), each.std(axis=1, ddof=1) / np.sqrt(each.shape[1])


def sample(flow, n, steps, rng):
    """Return chains of the flow, with their share of paths taken; a third are burnt in.

    Columns are in units of their widths. Chains begin at random in the middle of these.
    """
    drawn = flow.sample(500, seed=3)[0]
    centre, scale = drawn.mean(axis=0), drawn.std(axis=0)

    def score(z):
        slope, logp = flow.score(centre + scale * z, with_logp=True, outside="zero")
        return scale * slope, logp

    start = np.clip(centre + 0.2 * scale * rng.normal(size=(CHAINS, len(scale))), *BOUNDS.T)
    chain, taken = hmc(score, (start - centre) / scale, n + n // 2, STEP, steps, rng)
    return centre + scale * chain[n // 2 :], taken


def draw(direct, chain):
    """Return a figure of the density of every column."""
    from matplotlib.figure import Figure

    with pyflow.plots.style() as colours:
        figure = Figure(figsize=(8.6, 2.8), layout="constrained")
        panels = figure.subplots(1, len(NAMES))
        for one, name, x, y, bounds in zip(panels, NAMES, direct.T, chain.T, BOUNDS, strict=True):
            low, high = np.quantile(x, [0, 0.998])
            edges = np.linspace(max(low, bounds[0]), min(high, bounds[1]), 41)
            filled = {"color": colours["data"], "alpha": 0.55, "lw": 0}
            one.hist(x, edges, density=True, **filled, label="direct samples")
            shape = {"histtype": "step", "color": colours["samples"], "lw": 1.5}
            one.hist(y, edges, density=True, **shape, label="Hamiltonian Monte Carlo")
            one.set(xlabel=name, xlim=edges[[0, -1]])
        panels[0].set_ylabel("density")
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=2)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer layers and steps")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "output", metavar="DIR")
    arguments = parser.parse_args()
    quick = arguments.quick

    flow = fit(1000 if quick else 8000, 4 if quick else 20)
    rng = np.random.default_rng(4)
    chain, taken = sample(flow, 100 if quick else 400, 6, rng)
    paths = f"{chain.shape[1]} chains of {len(chain)} paths"
    print(
        f"{flow}\n{paths}, {100 * taken:.0f} % of them taken; all within the bounds: "
        f"{bool(((chain >= BOUNDS[:, 0]) & (chain <= BOUNDS[:, 1])).all())}"
    )

    direct = flow.sample(20000, seed=5)[0]
    found, errors = moments(chain)
    true, of_true = moments(direct.reshape(-1, 200, direct.shape[1]))
    off = (found - true) / np.hypot(errors, of_true)
    print(
        f"\n{'':10}{'mean, HMC':>12}{'direct':>10}{'off by':>9}{'width, HMC':>13}{'direct':>10}"
        f"{'off by':>9}"
    )
    for j, name in enumerate(NAMES):
        print(
            f"{name:10}{found[0, j]:12.3f}{true[0, j]:10.3f}{off[0, j]:7.1f} σ"
            f"{found[1, j]:13.3f}{true[1, j]:10.3f}{off[1, j]:7.1f} σ"
        )

    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "hmc.png"
    figure = draw(direct, chain.reshape(-1, len(NAMES)))
    with pyflow.plots.style():
        figure.savefig(path)
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
