"""How pyflow's own cost grows: with threads, rows and dimensions; its memory and its import.

Every function returns a record for JSON; `bench_gis.py` runs them all and writes the report.
"""

import statistics
import subprocess
import sys
from functools import partial

import numpy as np
from measure import interleaved, slope
from peers import Worker

GIB = 2**30
LAYERS = 5  # of the models whose size is varied: enough to be measured, the same for all
SLICED_ONLY = {"marginal_first": False, "whiten": False}


def median_seconds(answers):
    """Return the median of the "seconds" of a worker's answers."""
    return statistics.median(answer["seconds"] for answer in answers)


def slice_cost(rows, repeats):
    """Time evaluation and sampling on one thread, next to their matrix products alone.

    The model has 4 `LAYERS` layers of K slices in d dimensions; the floor is what BLAS takes for
    `x A` and `y A^T` of one such layer. All in ns per (row x slice); returns a list of
    {"d", "slices", "evaluate_ns", "sample_ns", "floor_ns"}.
    """
    return [_slice_cost(d, slices, rows, repeats) for d, slices in ((9, 8), (43, 8), (64, 64))]


def _slice_cost(d, slices, rows, repeats):
    layers = 4 * LAYERS
    x = np.random.default_rng(0).standard_normal((rows, d), dtype=np.float32)
    with Worker("pyflow", 1) as worker:
        worker.fit_synthetic(5000, d, n_slices=slices, max_layers=layers, **SLICED_ONLY)
        tasks = {
            "evaluate": partial(worker.evaluate, x),
            "sample": partial(worker.sample, rows),
            "floor": partial(worker.floor, rows, d, slices),
        }
        seconds = {
            name: median_seconds(answers) for name, answers in interleaved(tasks, repeats).items()
        }
    per = 1e-9 * rows * slices
    return {
        "d": d,
        "slices": slices,
        "evaluate_ns": seconds["evaluate"] / layers / per,
        "sample_ns": seconds["sample"] / layers / per,
        "floor_ns": seconds["floor"] / per,
    }


def thread_scaling(table, counts, repeats, rows):
    """Time the same fit and the same evaluation with each number of threads, in turn.

    Returns {"fit": {threads: seconds}, "evaluate": {threads: seconds}}.
    """
    x = table.train[:rows]

    def with_threads(n, task):
        worker.threads(n)
        return task()

    def fit():
        return worker.fit(table.train, table.val, max_layers=LAYERS)

    def evaluate():
        return worker.evaluate(x)

    record = {}
    with Worker("pyflow", max(counts)) as worker:
        for name, task in (("fit", fit), ("evaluate", evaluate)):
            tasks = {n: lambda n=n, task=task: with_threads(n, task) for n in counts}
            times = interleaved(tasks, repeats)
            record[name] = {n: median_seconds(answers) for n, answers in times.items()}
    return record


def size_scaling(sizes, dimensions, repeats):
    """Time fits of `LAYERS` layers on synthetic tables, one thread: over n, then over d with K = d.

    Returns a list of {"n", "d", "slices", "seconds"} for each of "rows" and "dimensions", and the
    exponents of n and of d K in the power laws that fit them: 1 is linear.
    """
    middle = sizes[len(sizes) // 2]
    cases = {
        "rows": [{"n": n, "d": 16, "slices": 8} for n in sizes],
        "dimensions": [{"n": middle, "d": d, "slices": d} for d in dimensions],
    }
    with Worker("pyflow", 1) as worker:
        for series in cases.values():
            tasks = {i: lambda case=case: _fit_case(worker, case) for i, case in enumerate(series)}
            for i, answers in interleaved(tasks, repeats).items():
                series[i]["seconds"] = median_seconds(answers)
    exponents = {
        "n": slope([c["n"] for c in cases["rows"]], [c["seconds"] for c in cases["rows"]]),
        "d K": slope(
            [c["d"] * c["slices"] for c in cases["dimensions"]],
            [c["seconds"] for c in cases["dimensions"]],
        ),
    }
    return {**cases, "exponents": exponents}


def _fit_case(worker, case):
    options = {"n_slices": case["slices"], "max_layers": LAYERS, **SLICED_ONLY}
    return worker.fit_synthetic(case["n"], case["d"], **options)


def peak_memory(n, d, threads):
    """Measure the peak memory of a fit, in copies of its (n, d) float32 table.

    A fresh process makes the table, so that nothing is held twice; what it held before (the
    interpreter, NumPy, pyflow) is subtracted, and the table itself counts as one copy.
    """
    with Worker("pyflow", threads) as worker:
        answer = worker.fit_synthetic(n, d, max_layers=LAYERS)
    memory = answer["memory"]
    copies = (memory["peak"] - memory["before"]) / memory["data"]
    return {"n": n, "d": d, "copies": copies, **memory}


def huge_fit(n, d, threads):
    """Time a default fit to n rows, a tenth of them for validation, and measure its memory."""
    with Worker("pyflow", threads) as worker:
        answer = worker.fit_synthetic(n - n // 10, d, n_val=n // 10)
    gib = answer["memory"]["peak"] / GIB
    return {"n": n, "d": d, "threads": threads, "peak_gib": gib, **answer}


def import_time(repeats):
    """Time `import pyflow` after `import numpy`, each time in a new process; the median."""
    code = (
        "import time, numpy; start = time.perf_counter(); import pyflow;"
        "print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-c", code]
    times = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(repeats)
    ]
    return {"seconds": statistics.median(times), "runs": times}
