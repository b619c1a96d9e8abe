"""A density of a table too large for one machine: every rank of MPI has rows of its own.

    mpiexec -n 4 python examples/cluster.py table.npy flow.pyflow

The table is an .npy file of rows x columns that all ranks can read; none reads more than its part.
The flow is the same, bit for bit, for any number of ranks. examples/slurm.sh asks a cluster for
them. `--quick` makes a small table, and fits a few layers to it.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from mpi4py import MPI

import pyflow
from pyflow.mpi import gathered

HELD_OUT = 10  # one row in so many is validated on


def main(table, file, max_layers=None, verbose=True):
    comm = MPI.COMM_WORLD
    rows = np.load(table, mmap_mode="r")
    train = rows[: len(rows) - len(rows) // HELD_OUT]  # if rows are in any order: shuffle them
    validate = rows[len(train) :]
    flow = pyflow.GIS(
        part(train, comm),
        part(validate, comm),
        max_layers=max_layers,
        comm=comm,
        verbose=verbose,
    )
    logp = gathered(comm, flow.evaluate_density(part(validate, comm)))
    if comm.rank == 0:
        flow.save(file)
        print(f"{flow}\nmean log p of {len(logp)} rows held out: {logp.mean():.4f}")
    return flow


def part(rows, comm):
    """Return this rank's part of rows on disk."""
    return rows[len(rows) * comm.rank // comm.size : len(rows) * (comm.rank + 1) // comm.size]


def quick():
    """Fit a few layers to a small table, which rank 0 makes."""
    comm = MPI.COMM_WORLD
    with tempfile.TemporaryDirectory() as own:
        folder = Path(comm.bcast(own))
        if comm.rank == 0:
            np.save(folder / "table.npy", np.random.default_rng(0).gamma(2, size=(3000, 3)))
        comm.Barrier()
        main(folder / "table.npy", folder / "flow.pyflow", max_layers=4, verbose=False)
        comm.Barrier()  # before the folder goes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", help=".npy file of rows x columns")
    parser.add_argument("file", nargs="?", help="for the flow")
    parser.add_argument("--quick", action="store_true", help="a small table, made here")
    asked = parser.parse_args()
    if asked.quick:
        quick()
    elif asked.file is None:
        parser.error("give a table and a file, or --quick")
    else:
        main(asked.table, asked.file)
