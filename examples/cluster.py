"""A density of a table too large for one machine: every rank of MPI has rows of its own.

    mpiexec -n 4 python examples/cluster.py table.npy flow.pyflow

The table is an .npy file of rows x columns that all ranks can read; none reads more than its part.
The flow is the same, bit for bit, for any number of ranks. examples/slurm.sh asks a cluster for
them.
"""

import sys

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


if __name__ == "__main__":
    main(*sys.argv[1:])
