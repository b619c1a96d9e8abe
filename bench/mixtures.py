"""Mixtures of fits on different splits (`n_models`) beside single fits, on data that both share.

    python bench/mixtures.py [--quick] [--seeds 3]

Tables: test log p of GIS with default settings, one fit and mixtures of four and eight, on the
tables of `../shared/data/tabular` that are there, and on 4,000 rows of larger ones, a ninth of them
for validation. Fields: log p(y|x) of 60 new Gaussian maps of
32^2, power a (0.2 + k)^-s, y = (a, s) uniform in [0.5, 2] and [1, 3], from 300 maps, 50 of them
for validation; by quadrature around the truth. One thread; times are those of the processor.
Writes results/mixtures.{json,md}.
"""

import argparse
import time

import data
import numpy as np
import tables
from measure import markdown, mean_se, write

import pyflow

WHOLE = "wine", "concrete", "stock", "housing"
PARTS = "protein", "bike", "elevators"
ROWS = 3555, 445  # of a part, for training and for validation
SIZES = 1, 4, 8
NODES = 27  # along each axis
LEAST, MOST, REACH = np.array([0.5, 1.0]), np.array([2.0, 3.0]), np.array([0.5, 0.6])


def clocked(fit, *args, **options):
    """Return the processor's seconds, and what the fit gives."""
    start = time.process_time()
    flow = fit(*args, **options, verbose=False)
    return time.process_time() - start, flow


def table(name, seeds):
    """Return test log p and seconds of every size of mixture, (seeds, sizes) each."""
    whole = data.load(name) if name in data.FILES else tables.shared(name)
    logp, seconds = np.empty((2, seeds, len(SIZES)))
    for seed in range(seeds):
        x = whole.subset(*ROWS, seed) if name in PARTS else whole
        for j, n in enumerate(SIZES):
            given = {"n_models": n, "seed": seed}
            seconds[seed, j], flow = clocked(pyflow.GIS, x.train, x.val, **given)
            logp[seed, j] = flow.evaluate_density(x.test).mean()
    return logp, seconds


def maps(n, seed):
    """Return Gaussian maps (n, 32, 32), float32, and their y (n, 2)."""
    y = np.random.default_rng(seed).uniform(LEAST, MOST, (n, 2))
    x = pyflow.fields.gaussian_field(power(y), (32, 32), n, box_size=32.0, seed=seed + 1000)
    return x.astype(np.float32), y


def power(y):
    return lambda k: y[:, 0, None, None] * (0.2 + k) ** -y[:, 1, None, None]


def nodes(truth):
    """Return where a posterior is integrated, (m, 2), the truth last, and the size of a cell."""
    ends = np.maximum(truth - REACH, LEAST), np.minimum(truth + REACH, MOST)
    axes = [np.linspace(lo, hi, NODES) for lo, hi in zip(*ends, strict=True)]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.concatenate([mesh, truth[None]]), np.prod([axis[1] - axis[0] for axis in axes])


def told(logs, truths):
    """Return log p(y|x) and the truths' credibility, of log p(x|y) at all nodes, (n, m)."""
    found = []
    for log, truth in zip(logs, truths, strict=True):
        cell = nodes(truth)[1]
        p = np.exp(log - log.max())
        total = p[:-1].sum() * cell
        found.append([np.log(p[-1] / total), p[:-1][p[:-1] > p[-1]].sum() * cell / total])
    return np.array(found).T


def fields(hidden, seed, x, y):
    """Return log p(y|x), credibility and seconds of a flow, of four on average, and mixed."""
    train, truth = maps(300, seed)
    given = (train[:250], train[250:], truth[:250], truth[250:])
    how = {"box_size": 32.0, "hidden": hidden, "seed": seed}
    alone, flow = clocked(pyflow.SymmetricFlow, *given, **how)
    four, mixture = clocked(pyflow.SymmetricFlow, *given, **how, n_models=4)
    logs = [
        [f._core.evaluate_at(p[None], nodes(t)[0])[0] for p, t in zip(x, y, strict=True)]
        for f in (flow, *mixture.members)
    ]
    one, *members = (told(log, y) for log in logs)
    mixed = told(np.logaddexp.reduce(np.array(logs[1:]), axis=0), y)
    return one, np.mean(members, axis=0), mixed, four / alone


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tables alone, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    seeds = 1 if options.quick else options.seeds
    pyflow.set_num_threads(1)
    rows, record = [], {}
    for name in WHOLE + PARTS:
        try:
            logp, seconds = table(name, seeds)
        except data.MissingTableError as error:
            print(f"{name} skipped: {error}")
            continue
        record[name] = {"logp": logp.tolist(), "seconds": seconds.tolist()}
        ratio = np.median(seconds / seconds[:, :1], axis=0)
        means = [f"{m:.2f}" for m in logp.mean(axis=0)]
        rows.append([name, *means, *(f"{r:.1f}" for r in ratio[1:])])
    header = ["table", *(f"log p, {n}" for n in SIZES), *(f"time, {n}" for n in SIZES[1:])]
    sections = [markdown(header, rows)]
    if not options.quick:
        sections.append(report_fields(seeds, record))
    write("mixtures", {"seeds": seeds, **record}, sections)


def report_fields(seeds, record):
    x, y = maps(60, 99)
    logs = []
    for field, truth in zip(x, y, strict=True):
        at = nodes(truth)[0]
        same = np.broadcast_to(field, (len(at), 32, 32))
        logs.append(pyflow.fields.gaussian_logp(same, power(at), box_size=32.0))
    exact = told(logs, y)
    rows = [["exact", "", f"{exact[0].mean():.2f}", *held(exact[1]), ""]]
    for hidden in ((64, 64), (512, 512)):
        found = [fields(hidden, seed, x, y) for seed in range(seeds)]
        record[str(hidden)] = [[part.tolist() for part in f[:3]] + [f[3]] for f in found]
        for k, what in enumerate(("one", "each of four", "mixture of four")):
            values = np.array([f[k] for f in found])
            mean, error = mean_se((values[:, 0] - exact[0]).mean(axis=0))
            cost = f"{np.median([f[3] for f in found]):.1f}" if k == 2 else ""
            lost = f"{mean + exact[0].mean():.2f}, lost {-mean:.2f} ± {error:.2f}"
            rows.append([what, str(hidden), lost, *held(values[:, 1]), cost])
    return markdown(["flow", "network", "log p(y given x)", "68 %", "95 %", "time"], rows)


def held(credibility):
    """Return the shares of truths that regions of 68 and 95 % hold."""
    return [f"{(credibility <= level).mean():.0%}" for level in (0.68, 0.95)]


if __name__ == "__main__":
    main()
