"""Fits of rows that several ranks have, run by mpiexec."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyflow

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec")
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec")

# Open MPI runs more ranks than there are cores, and as root, only if it is told so.
MORE_THAN_CORES = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
COMMON = """
import json, os, sys
import numpy as np
import pyflow
from mpi4py import MPI
comm = MPI.COMM_WORLD
pyflow.set_num_threads(1)
rank, size, folder = comm.rank, comm.size, sys.argv[1]
rng = np.random.default_rng(0)
x = rng.normal(size=(26_000, 3))
x[:, 1] += x[:, 0] ** 2
x[:, 2] = np.exp(x[:, 2])

def core(flow):
    return flow._core.with_note("{}").to_bytes().hex()

def own(a):
    "This rank's rows: some have many, some none."
    cuts = [0, *np.sort(np.random.default_rng(size + len(a)).integers(0, len(a) + 1, size - 1))]
    return a[cuts[rank] : [*cuts, len(a)][rank + 1]]

def tell(what):
    with open(os.path.join(folder, f"{rank}.json"), "w") as file:
        json.dump(what, file)

TABLES = {
    "alone": (x[:1500], None, {"max_layers": 1, "slice_points": 600}),
    "groups": (
        x[:20_000].astype("f4"),
        x[20_000:],
        {"max_layers": 1, "marginal_first": True, "slice_points": 1000},
    ),
    "overlap": (x[:1000], x[600:1200], {"max_layers": 1, "marginal_first": True}),
    "few": (
        x[:200],
        x[200:300],
        {"max_layers": 2, "patience": 2, "bounds": [(None, None)] * 2 + [(0, None)]},
    ),
}
"""

FITS = """
flows = {}
for name, (train, validate, options) in TABLES.items():
    if name == "groups":  # on disk
        np.save(os.path.join(folder, f"{rank}.npy"), own(train))
        mine = np.load(os.path.join(folder, f"{rank}.npy"), mmap_mode="r")
    else:
        mine = own(train)
    theirs = None if validate is None else own(validate)
    flows[name] = core(pyflow.GIS(mine, theirs, comm=comm, verbose=False, **options))
logp = pyflow.mpi.gathered(comm, np.arange(3.0 * rank, 3.0 * rank + rank))
tell({"flows": flows, "gathered": logp.tolist()})
"""


def run(script, n, folder):
    """Run a script on n ranks; return what each told."""
    for file in folder.glob("*.json"):
        file.unlink()
    path = os.pathsep.join(
        [str(Path(pyflow.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [MPIEXEC, "-n", str(n), sys.executable, "-W", "ignore", "-c", COMMON + script, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **MORE_THAN_CORES, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    told = sorted(folder.glob("*.json"), key=lambda file: int(file.stem))
    return [json.loads(file.read_text()) for file in told]


@pytest.fixture(scope="module")
def alone():
    """What one process without ranks fits."""
    names = {}
    source = COMMON.replace("from mpi4py import MPI", "import types")
    source = source.replace("MPI.COMM_WORLD", "types.SimpleNamespace(rank=0, size=1)")
    before = pyflow.get_num_threads()
    exec(source.replace("sys.argv[1]", "None"), names)
    how = {"n_models": 1, "autoregressive": False, "polish": False, "verbose": False}
    flows = {
        name: names["core"](pyflow.GIS(train, validate, **options, **how))
        for name, (train, validate, options) in names["TABLES"].items()
    }
    pyflow.set_num_threads(before)
    return flows


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n", [2, 4])
def test_the_model_does_not_depend_on_the_number_of_ranks(alone, n, tmp_path):
    told = run(FITS, n, tmp_path)
    assert len(told) == n
    for each in told:
        assert set(each["flows"]) == set(alone)
        for name, flow in each["flows"].items():
            assert flow == alone[name], name
        assert each["gathered"] == [3.0 * r + i for r in range(n) for i in range(r)]


FAILURES = """
def message(fit):
    try:
        fit()
        return "nothing failed"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

train, validate = x[:1000], x[1000:1400]
half = train[500 * rank : 500 * (rank + 1)].copy()
kw = {"max_layers": 2, "verbose": False, "comm": comm}
bad = half.copy()
if rank == 1:
    bad[300, 2] = np.nan

def stop(progress):
    if progress.step == 3:
        raise ZeroDivisionError("enough")

told = {
    "a number": message(lambda: pyflow.GIS(bad, own(validate), **kw)),
    "an argument": message(lambda: pyflow.GIS(half if rank else "rows", **kw)),
    "columns": message(lambda: pyflow.GIS(half[:, : 3 - rank], **kw)),
    "options": message(lambda: pyflow.GIS(half, seed=rank, **kw)),
    "validation": message(lambda: pyflow.GIS(half, None if rank else validate, **kw)),
    "progress": message(lambda: pyflow.GIS(half, progress=stop, **kw)),
    "labels": message(lambda: pyflow.GIS(half, labels=np.zeros(500, int), **kw)),
    "no rows": message(lambda: pyflow.GIS(half[:0], **kw)),
    "constant": message(lambda: pyflow.GIS(half * [1, 1, 0], **kw)),
    "none": message(lambda: pyflow.GIS(half, **kw)),
}
tell(told)
"""


def test_a_rank_that_fails_ends_the_others(tmp_path):
    first, second = run(FAILURES, 2, tmp_path)
    nan = "ValueError: data_train: row 800, column 2 is NaN"
    assert second["a number"] == nan
    assert first["a number"] == f"RankError: rank 1: {nan}"
    assert first["an argument"].startswith("ValueError: data_train")
    assert second["an argument"] == f"RankError: rank 0: {first['an argument']}"
    assert first["progress"] == "ZeroDivisionError: enough"
    assert second["progress"] == "RankError: rank 0: ZeroDivisionError: enough"
    same = {
        "columns": "ValueError: data_train: its columns: must be the same on all ranks, not 3 on",
        "options": "ValueError: options: must be the same on all ranks",
        "validation": "ValueError: data_validate: whether it is given: must be the same on all",
        "labels": "ValueError: labels: is not for a fit with comm",
        "no rows": "ValueError: data_train: there are no rows",
        "constant": "ValueError: data_train: column 2 is constant",
        "none": "nothing failed",
    }
    for name, text in same.items():
        assert first[name].startswith(text), first[name]
        assert second[name].startswith(text), second[name]


def test_the_example(tmp_path):
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(1000, 2)))
    example = Path(__file__).parents[2] / "examples" / "cluster.py"
    script = f"""
import runpy
main = runpy.run_path({str(example)!r})["main"]
flow = main({str(tmp_path / "table.npy")!r}, {str(tmp_path / "flow.pyflow")!r}, 1, False)
tell(flow.to_bytes().hex())
"""
    told = run(script, 2, tmp_path)
    flow = pyflow.load(tmp_path / "flow.pyflow")
    assert told == [flow.to_bytes().hex()] * 2


def test_another_communicator_is_refused():
    with pytest.raises(TypeError, match="comm: must be a communicator of mpi4py, not 'world'"):
        pyflow.GIS(np.zeros((10, 2)), max_layers=1, comm="world")
