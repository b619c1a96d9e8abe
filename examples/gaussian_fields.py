"""Gaussian and lognormal fields, whose densities are known: how near does a symmetric flow come?

    python examples/gaussian_fields.py             # 128 x 128, 1,000 maps to train
    python examples/gaussian_fields.py --quick     # 32 x 32, fewer epochs: to see that all works

Gaussian fields have P(k; A, n) = A k^n. Prints, for held-out maps, how much log p is lost of what
there is to gain over white noise; for the posterior of (A, n) how far its mean is from the exact
one, the ratio of figures of merit, and how often the 68 % and 95 % regions hold the truth; and what
the density of lognormal fields of one spectrum loses.
"""

import argparse
import time

import numpy as np

import pyflow
from pyflow import fields

PRIOR = np.array([[0.5, 2.0], [-2.0, -1.0]])


def spectrum(y):
    """P(k; A, n) at each row of y."""
    amplitude, slope = (y[..., j, None, None] for j in (0, 1))
    return lambda k: amplitude * k**slope


def draw(n, side, seed):
    rng = np.random.default_rng(seed)
    y = rng.uniform(*PRIOR.T, size=(n, 2))
    x = np.empty((n, side, side), np.float32)
    for i in range(0, n, 100):
        part = y[i : i + 100]
        x[i : i + 100] = fields.gaussian_field(
            spectrum(part), (side, side), box_size=side, seed=rng
        )
    return x, y


def white(x, train):
    """Mean log-density of x as white noise, with the training maps' mean and variance."""
    variance = train.var(dtype=np.float64)
    square = ((x - train.mean(dtype=np.float64)) ** 2).mean() / variance
    return -0.5 * x[0].size * (square + np.log(2 * np.pi * variance))


def posteriors(flow, x, y, side):
    rows = []
    for field, truth in zip(x, y, strict=True):
        mine = flow.posterior(field, PRIOR)

        def exact_logp(at, field=field):
            blocks = [at[i : i + 64] for i in range(0, len(at), 64)]
            return np.concatenate(
                [np.atleast_1d(fields.gaussian_logp(field, spectrum(b), side)) for b in blocks]
            )

        exact = pyflow.Posterior(exact_logp, PRIOR)
        sigma = np.sqrt(np.diag(exact.cov))
        rows.append(
            [
                *(mine.mean - exact.mean) / sigma,
                mine.figure_of_merit(0.68) / exact.figure_of_merit(0.68),
                mine.credibility(truth),
                exact.credibility(truth),
            ]
        )
    return np.array(rows).T


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small maps, few epochs")
    parser.add_argument("--side", type=int, help="pixels along a side of the maps")
    parser.add_argument("--maps", type=int, default=1000, help="maps to train with")
    parser.add_argument("--epochs", type=int, help="epochs of training")
    parser.add_argument("--test", type=int, help="maps to test with")
    arguments = parser.parse_args()
    quick = arguments.quick
    side = arguments.side or (32 if quick else 128)
    epochs = arguments.epochs or (20 if quick else 60)
    n_test = arguments.test or (10 if quick else 60)

    (x, y), (x_validate, y_validate) = draw(arguments.maps, side, 1), draw(300, side, 2)
    x_test, y_test = draw(max(n_test, 100), side, 3)
    start = time.perf_counter()
    flow = pyflow.SymmetricFlow(
        x,
        x_validate,
        y,
        y_validate,
        box_size=side,
        names=["A", "n"],
        n_layers=2,
        psi_knots=4,
        filter_knots=8,
        hidden=(64, 64),
        epochs=epochs,
        verbose=False,
    )
    print(f"{flow}\nfitted in {time.perf_counter() - start:.1f} s\n")

    exact = fields.gaussian_logp(x_test, spectrum(y_test), side)
    lost = exact - flow.evaluate_density(x_test, y_test)
    gain = exact.mean() - white(x_test, x)
    amplitude, slope, merit, mine, true = posteriors(flow, x_test[:n_test], y_test[:n_test], side)
    print(f"Gaussian fields, {side} x {side}, {arguments.maps} to train; {n_test} posteriors")
    print(f"  log p lost, of what white noise leaves       {100 * lost.mean() / gain:8.3f} %")
    for name, shift in (("A", amplitude), ("n", slope)):
        rms = np.sqrt((shift**2).mean())
        words = f"  posterior mean of {name} - exact, sigma: mean    "
        print(f"{words} {shift.mean():8.3f}, rms {rms:.3f}")
    print(f"  figure of merit / exact: mean                {merit.mean():8.3f} ± {merit.std():.3f}")
    for mass in (0.68, 0.95):
        print(
            f"  truths in the {mass:.0%} region                   {np.mean(mine < mass):8.0%}"
            f"   (exact posterior {np.mean(true < mass):.0%})"
        )

    def power(k):
        return 2 / (1 + (2 * k) ** 2)

    x = fields.lognormal_field(power, (side, side), 600, box_size=side, seed=4)
    flow = pyflow.SymmetricFlow(
        x[:400], x[400:500], box_size=side, n_layers=2, epochs=epochs, batch=4, verbose=False
    )
    exact = fields.lognormal_logp(x[500:], power, side).mean()
    lost = exact - flow.evaluate_density(x[500:]).mean()
    print(f"lognormal fields, {side} x {side}, 400 to train")
    print(
        f"  log p lost, of what white noise leaves       "
        f"{100 * lost / (exact - white(x[500:], x[:400])):8.3f} %"
    )
    spectrum_alone = exact - fields.gaussian_logp(x[500:], power, side).mean()
    print(f"  log p lost, of what the spectrum leaves      {100 * lost / spectrum_alone:8.3f} %")


if __name__ == "__main__":
    main()
