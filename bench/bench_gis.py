"""GIS side by side with its peers, and how its own cost grows.

    python bench/bench_gis.py --quick     # minutes
    python bench/bench_gis.py             # an hour or more: the original runs to its end

Writes results/gis.json and results/gis.md. See README.md for what is measured and how.
"""

import argparse
import json
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import data
import scaling
from gis_report import report
from measure import cores, interleaved, mean_se, write
from peers import PeerError, Worker, installed_peers, layer_limit, rows_like
from scaling import median_seconds

BASELINE = Path(__file__).resolve().parent / "original.json"
SECTIONS = ("peers", "slice", "threads", "size", "memory", "import")


class Plan(NamedTuple):
    """How much to measure."""

    original_layers: int | None  # where the original is stopped, to be extrapolated; None: nowhere
    fits: int  # of pyflow; peers are fitted once
    repeats: int  # of everything short
    rows: int  # to evaluate and to sample
    sizes: tuple  # n of the scaling runs
    dimensions: tuple
    memory_rows: int


FULL = Plan(
    original_layers=None,
    fits=3,
    repeats=5,
    rows=20000,
    sizes=(20000, 40000, 80000, 160000, 320000),
    dimensions=(8, 16, 32, 64),
    memory_rows=2_000_000,
)
QUICK = Plan(
    original_layers=10,
    fits=1,
    repeats=3,
    rows=5000,
    sizes=(10000, 20000, 40000),
    dimensions=(8, 16, 32),
    memory_rows=500_000,
)


def compare(table, peers, threads, plan):
    """Fit, evaluate and sample with pyflow and its peers on one table, in turn.

    "equal" is pyflow again, stopped where it is as good as the original: see `fit_equal`.
    Returns {estimator: record}; the records of peers hold the ratios of both to them.
    """
    limits = {"original": layer_limit("original", plan.original_layers)}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, threads)) for name in ("pyflow", *peers)}
        tasks = {
            name: partial(worker.fit, table.train, table.val, **limits.get(name, {}))
            for name, worker in workers.items()
        }
        records = fit_records(tasks, {n: plan.fits if n == "pyflow" else 1 for n in tasks})
        add_likelihoods(records, workers, table)
        full = full_run(table.name) if plan.original_layers else records.get("original")
        if full and "original" in peers:
            equal = stack.enter_context(Worker("pyflow", threads))
            records.update(fit_equal(equal, records["pyflow"], full, table, plan))
            workers.update({"equal": equal} if "equal" in records else {})
        add_throughput(records, workers, table, plan)
    if plan.original_layers and "original" in peers:
        extrapolate(records["original"], full)
    for name in peers:
        mine = ("pyflow", "equal") if name == "original" else ("pyflow",)
        records[name]["ratios"] = {
            who: ratios(records[who], records[name]) for who in mine if who in records
        }
    return records


def fit_records(tasks, repeats):
    """Run fits in turn; return the last answer of each, with the median of its seconds."""
    return {
        name: {**answers[-1], "seconds": median_seconds(answers), "fits": len(answers)}
        for name, answers in interleaved(tasks, repeats).items()
    }


def fit_equal(worker, mine, original, table, plan):
    """Fit pyflow with as few layers as it takes to be as good as the original.

    That is the first layer after which its validation log p was at least the original's. Returns
    {"equal": record}, or nothing where pyflow does not get there.
    """
    target = original["logp"]["val"][0]
    good = [i for i, logp in enumerate(mine["val_logp"]) if logp >= target]
    if not good:
        print(f"{table.name}: pyflow does not reach the original's validation log p, {target:.3f}")
        return {}
    layers = max(1, good[0] + 1 - mine["first_layers"])
    fit = partial(worker.fit, table.train, table.val, max_layers=layers)
    records = fit_records({"equal": fit}, plan.fits)
    test = worker.logp(table.test)
    records["equal"]["logp"] = {"val": mean_se(worker.logp(table.val)), "test": mean_se(test)}
    return records


def add_likelihoods(records, workers, table):
    """Add [mean, standard error] of log p, and pyflow's lead over each peer on the test rows."""
    test = {}
    for name, worker in workers.items():
        test[name] = worker.logp(table.test)
        records[name]["logp"] = {
            "val": mean_se(worker.logp(table.val)),
            "test": mean_se(test[name]),
        }
        records[name]["lead"] = mean_se(test["pyflow"] - test[name])


def add_throughput(records, workers, table, plan):
    """Add the median seconds to evaluate and to sample `plan.rows` rows."""
    x = rows_like(table.train, plan.rows)
    times = interleaved({n: partial(w.evaluate, x) for n, w in workers.items()}, plan.repeats)
    for name, answers in times.items():
        records[name]["evaluate_seconds"] = median_seconds(answers)
    times = interleaved(
        {n: partial(sample_or_none, w, plan.rows) for n, w in workers.items()}, plan.repeats
    )
    for name, answers in times.items():
        done = [answer for answer in answers if answer]
        records[name]["sample_seconds"] = median_seconds(done) if done else None


def sample_or_none(worker, n):
    """Time n samples; None where the estimator fails at it, as the original does now and then."""
    try:
        return worker.sample(n)
    except PeerError as error:
        print(error)
        return None


def full_run(name):
    """Return the recorded run of the original on a table, from `original.json`."""
    return json.loads(BASELINE.read_text())[name]


def extrapolate(record, full):
    """Turn a run of the original that was stopped early into its full run.

    The full run has its layers, its log-likelihoods, and the seconds that it had taken after some
    numbers of layers. Fit time grows as it did there; evaluation and sampling grow with the number
    of layers.
    """
    growth = full["seconds"] / full["seconds_after"][str(len(record["layer_seconds"]))]
    layers = full["layers"] / record["layers"]
    record["extrapolated_from"] = record["layers"]
    record["seconds"] *= growth
    record["evaluate_seconds"] *= layers
    if record["sample_seconds"] is not None:
        record["sample_seconds"] *= layers
    record["layers"] = full["layers"]
    record["logp"] = full["logp"]
    record["note"] = full["note"]
    del record["lead"]


def ratios(mine, other):
    """Return how many times faster `mine` is; None where the other failed."""
    keys = {"fit": "seconds", "evaluate": "evaluate_seconds", "sample": "sample_seconds"}
    return {
        what: other[key] / mine[key] if other[key] is not None else None
        for what, key in keys.items()
    }


def measure(options):
    """Run the chosen sections and return their record."""
    plan = QUICK if options.quick else FULL
    record = {"quick": options.quick, "threads_used": options.threads}
    tables = list(data.available(options.tables))
    if "peers" in options.sections:
        peers = installed_peers()
        record["tables"] = {t.name: compare(t, peers, options.threads, plan) for t in tables}
    if "slice" in options.sections:
        record["slice"] = scaling.slice_cost(plan.rows, plan.repeats)
    if "threads" in options.sections and tables:
        counts = [1, 2] if cores() > 1 else [1]
        record["threads"] = scaling.thread_scaling(tables[-1], counts, plan.repeats, plan.rows)
    if "size" in options.sections:
        record["size"] = scaling.size_scaling(plan.sizes, plan.dimensions, plan.repeats)
    if "memory" in options.sections:
        record["memory"] = scaling.peak_memory(plan.memory_rows, 20, options.threads)
    if "import" in options.sections:
        record["import"] = scaling.import_time(4 * plan.repeats)
    if options.huge:
        record["huge"] = scaling.huge_fit(5_000_000, 20, options.threads)
    return record, plan


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller; the original stopped early")
    parser.add_argument("--huge", action="store_true", help="also fit a table of 5 million x 20")
    parser.add_argument("--threads", type=int, default=cores(), help="of every estimator")
    parser.add_argument("--tables", nargs="+", default=list(data.FILES), choices=list(data.FILES))
    parser.add_argument("--sections", nargs="*", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--sinf", help="checkout of the original (default: $PYFLOW_BENCH_SINF)")
    options = parser.parse_args()
    if options.sinf:
        os.environ["PYFLOW_BENCH_SINF"] = options.sinf
    record, plan = measure(options)
    write("gis", record, report(record, plan.rows))


if __name__ == "__main__":
    main()
