"""Small tables: test log p of GIS and its rivals, and whether samples are as wide as data.

    python bench/tables.py [--quick] [--seeds 3] [--autoregressive] [--tables concrete 1000]

The tables of `../shared/data/tabular` that are there, MINIBOONE, and made here Friedman's first
(ten uniform columns and a smooth function of five, with noise: the truth is known) and near-
dependent ones: 100 columns of 5 factors, Student t with 4 degrees, and noise from 1e-4 to 1. GIS
with default settings, or of autoregressive layers, one thread; a Gaussian with the training rows'
moments; of tables of up to 2,000 rows and 50 columns, scikit-learn's mixture and kernel density as
in learning_curves.py. "Ahead": the mean row-by-row difference from the best rival, and its standard
error. "Wide": the range of samples between the 5 and 95 % quantiles, over that of validation and
test rows, in the median column. "AUC": how well random forests tell samples from as many validation
and test rows, out of bag; 0.5 is not at all. Writes results/tables.{json,md}.
"""

import argparse
import time

import data
import learning_curves
import numpy as np
from measure import markdown, write

import pyflow

NAMED = "housing", "concrete", "wine", "stock", "bike", "elevators"
FACTORS = 500, 2000, 8000
FRIEDMAN = 1000, 10_000
SAMPLES = 20_000
SMALL = 2000, 50  # rows and columns of a table that slow rivals fit


def shared(name):
    """Return a table of the shared ones, in the split that is stored."""
    path = data.SHARED / f"{name}.npz"
    if not path.exists():
        raise data.MissingTableError(f"it is not in {data.SHARED}")
    z = np.load(path)
    return data.Table(name, z["train"], z["validate"], z["test"])


def factors(n):
    """Return n training rows, a fifth as many for validation, and 2,000, near a plane."""
    rng = np.random.default_rng(0)
    loadings, noise = rng.normal(size=(5, 100)), np.exp(rng.uniform(np.log(1e-4), 0, 100))
    x = [
        rng.standard_t(4, size=(m, 5)) @ loadings + rng.normal(size=(m, 100)) * noise
        for m in (n, n // 5, 2000)
    ]
    mean, std = x[0].mean(axis=0), x[0].std(axis=0)
    return data.Table(f"{n} x 100 of 5 factors", *((part - mean) / std for part in x))


def friedman(n):
    """Return n training rows of x and y(x), a fifth as many for validation, and 4,000."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(n + n // 5 + 4000, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    y += 10 * x[:, 3] + 5 * x[:, 4] + rng.normal(size=len(x))
    rows = np.column_stack([x, y])
    return data.Table(f"Friedman, {n:,} rows", rows[:n], rows[n:-4000], rows[-4000:])


def gaussian(table, seed):
    """Return log p of the test rows under a Gaussian with the training rows' moments."""
    train = table.train.astype(np.float64)
    root = np.linalg.cholesky(np.cov(train.T))
    z = np.linalg.solve(root, (table.test - train.mean(axis=0)).T)
    constant = np.log(np.diag(root)).sum() + 0.5 * len(z) * np.log(2 * np.pi)
    return -0.5 * (z**2).sum(axis=0) - constant


def wide(x, other):
    ends = [np.diff(np.percentile(rows, [5, 95], axis=0), axis=0)[0] for rows in (x, other)]
    return np.median(ends[0] / ends[1])


def auc(x, other):
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score

    n = min(len(x), len(other))
    rows, of = np.concatenate([x[:n], other[:n]]), np.repeat([0, 1], n)
    forest = RandomForestClassifier(500, min_samples_leaf=3, oob_score=True, random_state=0)
    return roc_auc_score(of, forest.fit(rows, of).oob_decision_function_[:, 1])


def measure(table, seeds, rivals, options):
    """Return the row of a table, and its record."""
    logp, seconds, widths, aucs = [], [], [], []
    held_out = np.concatenate([table.val, table.test])
    for seed in range(seeds):
        start = time.process_time()
        flow = pyflow.GIS(table.train, table.val, seed=seed, verbose=False, **options)
        seconds.append(time.process_time() - start)
        logp.append(flow.evaluate_density(table.test))
        x, _ = flow.sample(SAMPLES, seed=seed)
        widths.append(wide(x, held_out))
        aucs.append(auc(x, held_out))
    small = len(table.train) <= SMALL[0] and table.train.shape[1] <= SMALL[1]
    slow = () if small else {"mixture", "kernel density"}
    others = {name: rival(table, 0) for name, rival in rivals.items() if name not in slow}
    best = max(others.values(), key=np.mean)
    lead = np.mean(logp, axis=0) - best
    error = lead.std(ddof=1) / np.sqrt(len(lead))
    means = np.mean(logp, axis=1)
    record = {
        "logp": means.tolist(),
        "seconds": seconds,
        "wide": widths,
        "auc": aucs,
        "lead": [lead.mean(), error],
        "rivals": {name: float(other.mean()) for name, other in others.items()},
    }
    row = [
        table.name,
        f"{len(table.train):,} x {table.train.shape[1]}",
        f"{means.mean():.2f} ({means.min():.2f} to {means.max():.2f})",
        *(f"{others[name].mean():.2f}" if name in others else "" for name in rivals),
        f"{lead.mean():.2f} ± {error:.2f}",
        f"{np.mean(widths):.2f}",
        f"{np.mean(aucs):.2f}",
        f"{np.median(seconds):.1f} s",
    ]
    return row, record


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four tables, one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--autoregressive", action="store_true")
    parser.add_argument("--tables", nargs="*", help="names, or rows of those made here")
    options = parser.parse_args()
    pyflow.set_num_threads(1)
    rivals = {
        "Gaussian": gaussian,
        "mixture": learning_curves.mixture,
        "kernel density": learning_curves.kde,
    }
    makers = [(shared, name) for name in NAMED] + [(data.load, "miniboone")]
    makers += [(friedman, n) for n in FRIEDMAN] + [(factors, n) for n in FACTORS]
    if options.tables is not None:
        makers = [(make, what) for make, what in makers if str(what) in options.tables]
    of = {"autoregressive": True} if options.autoregressive else {}
    rows, record = [], {}
    for make, what in makers[:4] if options.quick else makers:
        try:
            table = make(what)
        except data.MissingTableError as error:
            print(f"{what} skipped: {error}")
            continue
        row, record[table.name] = measure(table, 1 if options.quick else options.seeds, rivals, of)
        rows.append(row)
        print(" | ".join(row), flush=True)
    header = ["table", "rows x columns", "GIS (seeds)", *rivals, "ahead", "wide", "AUC", "fit"]
    write("tables", {"seeds": options.seeds, **record}, [markdown(header, rows)])


if __name__ == "__main__":
    main()
