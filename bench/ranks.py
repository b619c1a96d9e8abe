"""Simulation-based calibration of two moons: how many truths lie in the middle 68 % of posteriors.

    python bench/ranks.py [--quick] [--fits 10] [--truths 2000] [--simulations 1000]

Each fit, one flow p(theta|x) within the prior's bounds, has simulations of its own, a fifth more to
validate on, and is asked of fresh ones, whose x lies within the range of its simulations': the rank
of the true theta among 99 draws. A right posterior's share is 68 %, with a binomial error of
sqrt(0.68 * 0.32 / truths). One thread. Writes results/ranks.{json,md}.
"""

import argparse

import numpy as np
from measure import markdown, write
from sbi_tasks import TASKS

import pyflow

DRAWS, MASS = 99, 0.68


def measure(seed, simulations, truths):
    """Return the share of truths in the middle `MASS`, of each parameter."""
    task, rng = TASKS["two_moons"], np.random.default_rng(seed)
    theta = task.prior(rng, simulations * 6 // 5)
    x = task.simulate(rng, theta)
    flow = pyflow.GIS(
        theta[:simulations],
        theta[simulations:],
        condition=x[:simulations],
        condition_validate=x[simulations:],
        bounds=task.bounds,
        n_models=1,
        verbose=False,
    )
    new = task.prior(rng, 2 * truths)
    x_new = task.simulate(rng, new)
    known = ((x_new > x.min(axis=0)) & (x_new < x.max(axis=0))).all(axis=1)
    new, x_new = new[known][:truths], x_new[known][:truths]
    draws, _ = flow.sample(len(new) * DRAWS, y=np.repeat(x_new, DRAWS, axis=0), seed=seed)
    ranks = (draws.reshape(len(new), DRAWS, task.d) < new[:, None]).sum(axis=1)
    return np.mean(np.abs(ranks - DRAWS / 2) < MASS * (DRAWS + 1) / 2, axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two fits, 300 truths")
    parser.add_argument("--fits", type=int, default=10)
    parser.add_argument("--truths", type=int, default=2000)
    parser.add_argument("--simulations", type=int, default=1000)
    options = parser.parse_args()
    if options.quick:
        options.fits, options.truths = 2, 300
    pyflow.set_num_threads(1)
    shares = np.array(
        [measure(k, options.simulations, options.truths) for k in range(options.fits)]
    )
    rows = [[str(k), *(f"{100 * s:.1f} %" for s in of)] for k, of in enumerate(shares)]
    error = shares.std(axis=0, ddof=1) / np.sqrt(options.fits)
    means = [
        f"{100 * m:.1f} ± {100 * e:.1f} %" for m, e in zip(shares.mean(axis=0), error, strict=True)
    ]
    rows.append(["mean", *means])
    rows.append(["scatter", *(f"{100 * s:.1f} %" for s in shares.std(axis=0, ddof=1))])
    binomial = np.sqrt(MASS * (1 - MASS) / options.truths)
    table = markdown(["fit", "theta_1", "theta_2"], rows)
    words = f"Binomial error of a share: {100 * binomial:.1f} %."
    write("ranks", {**vars(options), "shares": shares.tolist()}, [table, words])


if __name__ == "__main__":
    main()
