"""What ranks of MPI gain, and what a fit of rows on disk costs each of them.

    python bench/cluster.py                        # 1 and 2 ranks of one thread each, in turn
    python bench/cluster.py --ranks 2 --rows 10000000 --kinds GIS --repeats 1

GIS is of `--rows` rows x 20 columns in a file, of which every rank reads its part; SIG of a
tenth as many rows in memory; SymmetricFlow of 400 maps of 64^2 with a condition. Prints seconds per
sliced layer, or epoch, and the largest peak of a rank's memory.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import pyflow

COLUMNS, BLOCK = 20, 1 << 18
FEW, MORE = 2, 6  # layers, or epochs: the difference is what one costs, without the start
OPEN_MPI = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


def table(path, rows):
    """Write rows of correlated, skewed columns, a block at a time."""
    file = np.lib.format.open_memmap(path, "w+", np.float32, (rows, COLUMNS))
    mix = np.random.default_rng(0).normal(size=(COLUMNS, COLUMNS))
    for first in range(0, rows, BLOCK):
        n = min(BLOCK, rows - first)
        x = np.random.default_rng(first + 1).gamma(2, size=(n, COLUMNS))
        file[first : first + n] = x @ mix
    file.flush()


def fit(kind, path, comm, steps):
    """Fit with so many layers or epochs; return seconds."""
    rows = np.load(path, mmap_mode="r")

    def own(x):
        return x[len(x) * comm.rank // comm.size : len(x) * (comm.rank + 1) // comm.size]

    shared = {"comm": comm, "verbose": False}
    if kind == "SymmetricFlow":
        y = np.random.default_rng(0).uniform(0.5, 2, 400)
        maps = pyflow.fields.gaussian_field(
            lambda k: y[:, None, None] / k, (64, 64), box_size=64.0, seed=1
        ).astype(np.float32)
    comm.Barrier()
    start = time.perf_counter()
    if kind == "GIS":
        scratch = os.path.dirname(path)
        pyflow.GIS(own(rows), max_layers=steps, scratch=scratch, **shared)
    elif kind == "SIG":
        pyflow.SIG(np.array(own(rows[: len(rows) // 10])), max_layers=steps, **shared)
    else:
        pyflow.SymmetricFlow(own(maps), None, own(y), box_size=64.0, epochs=steps, **shared)
    comm.Barrier()
    return time.perf_counter() - start


def worker(kind, path):
    """Be one of the ranks; the first prints what was measured."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    pyflow.set_num_threads(1)
    few, more = (fit(kind, path, comm, steps) for steps in (FEW, MORE))
    peak = comm.allreduce(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, MPI.MAX)
    if comm.rank == 0:
        print(json.dumps({"step": (more - few) / (MORE - FEW), "all": more, "peak": peak / 2**20}))


def measured(kind, path, ranks):
    """Run a worker on so many ranks."""
    command = ["mpiexec", "-n", str(ranks), sys.executable, __file__, "--worker", kind, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | OPEN_MPI
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def main(arguments):
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "table.npy"
        table(path, arguments.rows)
        for kind in arguments.kinds:
            found = {n: [] for n in arguments.ranks}
            for _ in range(arguments.repeats):
                for n in arguments.ranks:  # in turn: the machine may be shared
                    found[n].append(measured(kind, path, n))
            for n, runs in found.items():
                step, whole, peak = (
                    statistics.median(run[what] for run in runs) for what in ("step", "all", "peak")
                )
                unit = "epoch" if kind == "SymmetricFlow" else "layer"
                print(f"{kind}, {n} ranks: {step:.3g} s a {unit}, {whole:.3g} s, {peak:.2f} GiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--kinds", nargs="+", default=["GIS", "SIG", "SymmetricFlow"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="for the table and the working copies, 5 times the table")
    asked = parser.parse_args()
    if asked.worker:
        worker(*asked.worker)
    else:
        main(asked)
