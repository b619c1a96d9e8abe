"""Held-out log-likelihood against the number of training rows: GIS, kernel density, mixture.

    python bench/learning_curves.py [--quick] [--original]

All see the same rows. GIS (default settings) fits the training rows and stops on the validation
rows. The rivals are scikit-learn's, tuned as well as those rows allow: the kernel density pools
both sets and takes the bandwidth that cross-validates best; the Gaussian mixture fits the training
rows and takes the number of components, the kind of covariance and its floor that validate best.
Every seed draws other rows. Writes results/learning_curves.{json,md,png}.
"""

import argparse
import itertools
import warnings
from functools import partial

import data
import numpy as np
from measure import RESULTS, markdown, mean_se, write

SIZES = (100, 300, 1000, 3000, 10000)
TEST_ROWS = 5000
NAMES = {"gis": "GIS", "kde": "kernel density", "mixture": "Gaussian mixture", "original": "SINF"}


def gis(table, seed):
    """Return log p of the test rows under pyflow's GIS with default settings."""
    import pyflow

    model = pyflow.GIS(table.train, table.val, seed=seed, verbose=False)
    return model.evaluate_density(table.test)


def original(table, seed):
    """Return log p of the test rows under the original GIS with default settings."""
    from peers import Worker

    with Worker("original", threads=1) as worker:  # small fits: more threads only slow it down
        worker.fit(table.train, table.val, seed=seed)
        return worker.logp(table.test)


def kde(table, seed):
    """Return log p of the test rows under a Gaussian kernel density with the best bandwidth.

    The bandwidth maximises the log-likelihood in five-fold cross-validation, to 5 per cent.
    """
    from scipy.optimize import minimize_scalar
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neighbors import KernelDensity

    x = np.concatenate([table.train, table.val]).astype(np.float64)
    folds = KFold(5, shuffle=True, random_state=seed)

    def estimator(log_bandwidth):
        return KernelDensity(bandwidth=np.exp(log_bandwidth), rtol=1e-4)

    def loss(log_bandwidth):
        return -cross_val_score(estimator(log_bandwidth), x, cv=folds).mean()

    bounds = (np.log(0.02), np.log(3.0))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.05}).x
    return estimator(best).fit(x).score_samples(table.test.astype(np.float64))


def mixture(table, seed):
    """Return log p of the test rows under the Gaussian mixture that validates best."""
    train, val = table.train.astype(np.float64), table.val.astype(np.float64)
    best, best_score = None, -np.inf
    for covariance, floor in itertools.product(("full", "tied", "diag", "spherical"), (1e-6, 1e-2)):
        for model in mixtures_of_growing_size(train, covariance, floor, seed):
            score = model.score(val)
            if score > best_score:
                best, best_score = model, score
    return best.score_samples(table.test.astype(np.float64))


def mixtures_of_growing_size(train, covariance, floor, seed):
    """Yield mixtures of 1, 2, 3, 4, 6, 8, 12, ... components, up to 96 or a third of the rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    counts = sorted({a * 2**b for a in (1, 3) for b in range(7)})
    for n in (n for n in counts if n <= min(96, len(train) // 3)):
        model = GaussianMixture(n, covariance_type=covariance, reg_covar=floor, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            yield model.fit(train)


def sizes_for(table, largest):
    """Return the training sizes to try on a table: those of `SIZES` that it has, and all it has."""
    limit = min(len(table.train), largest)
    return sorted({n for n in SIZES if n <= limit} | ({limit} if limit < SIZES[-1] else set()))


def curve(name, estimators, seeds, largest):
    """Measure one table.

    Returns a list of {"n", estimator: [mean log p of the test rows for each seed], ...}.
    """
    points = []
    for n in sizes_for(data.load(name), largest):
        point = {"n": n, **{estimator: [] for estimator in estimators}}
        for seed in range(seeds):
            whole = data.load(name, seed=seed)
            table = whole.subset(n, n_val=max(n // 5, 20), seed=seed)
            table = table._replace(test=whole.test[:TEST_ROWS])
            for estimator, fit in estimators.items():
                point[estimator].append(float(np.mean(fit(table, seed))))
        points.append(point)
        print(name, n, {e: f"{np.mean(point[e]):.3f}" for e in estimators}, flush=True)
    return points


def verdict(point, rivals):
    """Compare GIS with the better rival, seed by seed.

    Returns the rival, the mean difference of log p, its standard error, and "win", "tie" (within
    two standard errors) or "lose".
    """
    rival = max(rivals, key=lambda name: np.mean(point[name]))
    lead, error = mean_se(np.subtract(point["gis"], point[rival]))
    if not abs(lead) > 2 * error:
        return rival, lead, error, "tie"
    return rival, lead, error, "win" if lead > 0 else "lose"


def report(curves, estimators):
    """Return the Markdown blocks: the tally, then one line for each table and size."""
    rivals = [name for name in ("kde", "mixture") if name in estimators]
    lines, tally = [], {"win": 0, "tie": 0, "lose": 0}
    for name, points in curves.items():
        for point in points:
            rival, lead, error, word = verdict(point, rivals)
            tally[word] += 1
            means = [mean_se(point[e]) for e in estimators]
            cells = [f"{mean:.3f} ± {se:.3f}" for mean, se in means]
            lead = f"{lead:+.3f} ± {error:.3f} ({NAMES[rival]})"
            lines.append([name, point["n"], *cells, lead, word])
    header = ["table", "rows", *(NAMES[e] for e in estimators), "GIS - better rival", ""]
    summary = "GIS against the better rival: " + ", ".join(f"{n} {w}" for w, n in tally.items())
    return [summary + " (two standard errors over seeds).", markdown(header, lines)]


def plot(curves, estimators):
    """Draw one panel per table into results/learning_curves.png."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    import pyflow

    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    with pyflow.plots.style():
        figure = Figure(figsize=(2.4 * columns, 2.2 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat[len(curves) :]:
            axis.remove()
        for axis, (name, points) in zip(axes.flat, curves.items(), strict=False):
            for estimator in estimators:
                means, errors = zip(*(mean_se(p[estimator]) for p in points), strict=True)
                n = [p["n"] for p in points]
                axis.errorbar(n, means, errors, marker="o", ms=3, capsize=2, label=NAMES[estimator])
            axis.set(xscale="log", title=name, xlabel="training rows")
            axis.xaxis.set_minor_formatter(NullFormatter())
        axes[0, 0].set_ylabel("test log p, nats")
        handles = axes[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=len(handles[0]))
        RESULTS.mkdir(exist_ok=True)
        figure.savefig(RESULTS / "learning_curves.png")


def main():
    everything = [*data.FILES, *data.SCIKIT_LEARN]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 seeds, at most 300 rows")
    parser.add_argument("--original", action="store_true", help="also the original GIS (slow)")
    parser.add_argument("--seeds", type=int, help="default: 5")
    parser.add_argument("--tables", nargs="+", default=everything, choices=everything)
    options = parser.parse_args()
    seeds = options.seeds or (2 if options.quick else 5)
    estimators = {"gis": gis, "kde": kde, "mixture": mixture}
    if options.original:
        estimators["original"] = original
    measure = partial(
        curve, estimators=estimators, seeds=seeds, largest=300 if options.quick else 10000
    )
    curves = {table.name: measure(table.name) for table in data.available(options.tables)}
    plot(curves, estimators)
    write("learning_curves", {"seeds": seeds, "curves": curves}, report(curves, estimators))


if __name__ == "__main__":
    main()
