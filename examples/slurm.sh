#!/bin/bash
# A fit on four nodes by SLURM, a rank on each, with all cores of it as threads:
#
#     sbatch examples/slurm.sh table.npy flow.pyflow
#
# No more than 64 ranks: more gain nothing. Nodes should be alike; then the flow is the same, bit for
# bit, for any number of them. Memory of a rank: its rows twice, or once with the table on disk and
# GIS(scratch=), a folder on a disk of the node.
#SBATCH --job-name=pyflow
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --exclusive
#SBATCH --time=02:00:00
#SBATCH --output=%x-%j.log

set -euo pipefail
module load openmpi 2>/dev/null || true  # the MPI that mpi4py was built with
export TMPDIR=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}
# python -m mpi4py: an exception that nobody catches ends all ranks
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \
    python -m mpi4py examples/cluster.py "$@"
