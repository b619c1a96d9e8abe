"""Modes far apart: samples on bridges between them, and test log p beside the truth.

    python bench/modes.py [--quick] [--seeds 3]

Unit Gaussians at random in a cube of side 40, in 2, 4 and 8 columns: 16,000 training rows, 2,000
for validation, 4,000 for the test. "Bridges": the share of 20,000 samples further than 6 standard
deviations from every centre. "Short of the truth": mean test log p under the exact density less
that of the fit, in nats. One fit to all rows (`_clusters.find` made blind), and the default. One
thread; times are the processor's. Writes results/modes.{json,md}.
"""

import argparse
import time

import numpy as np
from measure import markdown, write

import pyflow
from pyflow import _clusters

SIDE, ROWS, SAMPLES = 40, (16000, 2000, 4000), 20000


def apart(x, centres):
    """Return the squared distance of each of x from each centre."""
    return ((x[:, None] - centres) ** 2).sum(axis=2)


def truth(x, centres):
    n, d = centres.shape
    half = -0.5 * apart(x, centres)
    return np.logaddexp.reduce(half, axis=1) - np.log(n) - d / 2 * np.log(2 * np.pi)


def measure(d, modes, seed):
    """Return bridges, nats short of the truth, seconds, and flows mixed: alone, and by default."""
    rng = np.random.default_rng([seed, d, modes])
    centres = rng.uniform(0, SIDE, (modes, d))
    train, validate, test = (
        centres[rng.integers(modes, size=n)] + rng.normal(size=(n, d)) for n in ROWS
    )
    exact, found, find = truth(test, centres), [], _clusters.find
    for look, options in ((lambda x: None, {"autoregressive": False}), (find, {})):
        _clusters.find = look
        start = time.process_time()
        flow = pyflow.GIS(train, validate, seed=seed, verbose=False, **options)
        seconds = time.process_time() - start
        x, _ = flow.sample(SAMPLES, seed=seed)
        bridges = (apart(x, centres).min(axis=1) > 36).mean()
        short = (exact - flow.evaluate_density(test)).mean()
        mixed = len(flow) if isinstance(flow, pyflow.Mixture) else 1
        found.append([bridges, short, seconds, mixed])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four modes, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    seeds = 1 if options.quick else options.seeds
    pyflow.set_num_threads(1)
    rows, record = [], {}
    for d in (2, 4, 8):
        for modes in (4,) if options.quick else (3, 4, 10):
            every = np.array([measure(d, modes, seed) for seed in range(seeds)])
            record[f"{d}, {modes}"] = every.tolist()
            alone, default = every.mean(axis=0)
            rows.append([str(d), str(modes)])
            rows[-1] += [f"{100 * of[0]:.2f} %" for of in (alone, default)]
            rows[-1] += [f"{of[1]:.3f}" for of in (alone, default)]
            rows[-1] += [f"{of[2]:.1f} s" for of in (alone, default)]
            rows[-1].append(", ".join(f"{k:.0f}" for k in every[:, 1, 3]))
            print(" | ".join(rows[-1]), flush=True)
    header = ["columns", "modes", "bridges, one fit", "default", "short of the truth, one fit"]
    header += ["default", "time, one fit", "default", "flows mixed"]
    write("modes", {"seeds": seeds, **record}, [markdown(header, rows)])


if __name__ == "__main__":
    main()
