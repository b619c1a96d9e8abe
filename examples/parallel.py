"""Log-densities of many rows side by side: threads of pyflow, workers of joblib, blocks of Dask.

    python examples/parallel.py --rows 1000000 --jobs 4

The rows are on disk, and read a part at a time. Every way gives the numbers that one thread gives,
bit for bit, and is timed; processes have to be started first, which is a part of their time.
`--quick` takes few rows.
"""

import argparse
import tempfile
import time
from pathlib import Path

import dask
import dask.array as da
import joblib
import numpy as np

import pyflow

PART = 50_000  # rows


def model(layers):
    """Return a flow of four columns."""
    x = np.random.default_rng(0).gamma(2, size=(4000, 4))
    return pyflow.GIS(x, max_layers=layers, verbose=False)


def one_thread(flow, rows, jobs):
    pyflow.set_num_threads(1)
    return flow.evaluate_density(rows)


def threads_of_pyflow(flow, rows, jobs):
    pyflow.set_num_threads(jobs)
    return flow.evaluate_density(rows)


def by_joblib(flow, rows, jobs, backend):
    """Part by part: a flow is pickled for a process, rows on disk are told by their place."""
    pyflow.set_num_threads(1)  # of this process, so of workers that are threads; see `density`
    parts = (rows[i : i + PART] for i in range(0, len(rows), PART))
    work = joblib.Parallel(n_jobs=jobs, backend=backend)
    return np.concatenate(work(joblib.delayed(density)(flow, part) for part in parts))


def density(flow, part):
    pyflow.set_num_threads(1)  # of a worker that is a process; or set OMP_NUM_THREADS
    return flow.evaluate_density(part)


def processes_of_joblib(flow, rows, jobs):
    return by_joblib(flow, rows, jobs, "loky")


def threads_of_joblib(flow, rows, jobs):
    return by_joblib(flow, rows, jobs, "threading")


def blocks_of_dask(flow, rows, jobs):
    """Nothing is computed before `compute` asks; then the blocks at work are in memory."""
    pyflow.set_num_threads(1)
    logp = flow.evaluate_density(da.from_array(rows, chunks=(PART, -1)))
    with dask.config.set(scheduler="threads", num_workers=jobs):
        return logp.compute()


def main(n, jobs=None, layers=100):
    flow, jobs = model(layers), jobs or pyflow.get_num_threads()
    ways = threads_of_pyflow, threads_of_joblib, processes_of_joblib, blocks_of_dask
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npy"
        np.save(file, np.random.default_rng(1).gamma(2, size=(n, 4)))
        rows = np.load(file, mmap_mode="r")
        expected, alone = timed(one_thread, flow, rows, 1)
        print(f"{n} rows, one thread: {alone:.2f} s; {jobs} at a time:")
        try:
            for way in ways:
                logp, seconds = timed(way, flow, rows, jobs)
                assert np.array_equal(logp, expected), way.__name__
                name = way.__name__.replace("_", " ")
                print(f"{name:20} {seconds:6.2f} s, {alone / seconds:.1f} times as fast; the same")
        finally:
            pyflow.set_num_threads(None)
    return flow, expected


def timed(way, *what):
    start = time.perf_counter()
    return way(*what), time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, help="at a time (as many as there are cores)")
    parser.add_argument("--quick", action="store_true", help="few rows, two at a time")
    asked = parser.parse_args()
    if asked.quick:
        main(120_000, 2, 10)
    else:
        main(asked.rows, asked.jobs)
