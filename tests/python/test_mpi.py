"""Fits of rows that several ranks have, run by mpiexec."""

import json
import os
import shutil
import signal
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
import json, os, signal, sys, threading, time
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
    flows = getattr(flow, "members", [flow])
    return "".join(f._core.with_note("{}").to_bytes().hex() for f in flows)

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

# What else there is to fit; own: of an array, what is given to a rank
labels = np.where(x[:, 0] > rng.normal(size=len(x)), "a", "bc")
weights = rng.integers(0, 4, len(x)) * 0.3
images = (40 + 10 * np.cumsum(rng.normal(size=(900, 6, 6)), axis=2)).clip(0, 99).astype(np.uint8)
y = rng.uniform(0.5, 2, size=(300, 1))
wide = rng.gamma(2, size=(2000, 90))
fields = pyflow.fields.gaussian_field(
    lambda k: y[:, :, None] / k, (8, 8), box_size=8.0, seed=1
).astype("f4")
OTHERS = {
    "labels": lambda own, alone, kw: pyflow.GIS(
        own(x[:1500]), own(x[1500:2200]), labels=own(labels[:1500]),
        labels_validate=own(labels[1500:2200]), max_layers=2, slice_points=700, **alone, **kw,
    ),
    "weights": lambda own, alone, kw: pyflow.GIS(
        own(x[:1500]), own(x[1500:2200]), weight_train=own(weights[:1500]),
        weight_validate=own(weights[1500:2200]), max_layers=2, slice_points=900, **alone, **kw,
    ),
    "wide": lambda own, alone, kw: pyflow.GIS(  # tiles of 32 and of 64 bits differ
        own(wide[:1500].astype("f4")), own(wide[1500:]), labels=own(labels[:1500]),
        labels_validate=own(labels[1500:2000]), weight_train=own(weights[:1500]),
        max_layers=1, slice_points=400, slice_steps=2, **alone, **kw,
    ),
    "images": lambda own, alone, kw: pyflow.GIS(
        own(images[:600]), own(images[600:]), dequantize=100, max_layers=2, **alone, **kw
    ),
    "SIG": lambda own, alone, kw: pyflow.SIG(own(x[:3000]), max_layers=2, slice_points=800, **kw),
    "SIG of images": lambda own, alone, kw: pyflow.SIG(
        own(images), labels=own(labels[:900]), slice_points=500,
        schedule=[(1, None, 3), (1, 4, 3), (1, 2, 2)], **kw,
    ),
    "fields": lambda own, alone, kw: pyflow.SymmetricFlow(
        own(fields[:240]), own(fields[240:]), {"a": own(y[:240])[:, 0]}, {"a": own(y[240:])[:, 0]},
        box_size=8.0, n_layers=1, filter_knots=8, hidden=(8,), epochs=2, batch=70,
        objective="posterior", posterior_epochs=1, calibrate=True, **kw,
    ),
    "members": lambda own, alone, kw: pyflow.SymmetricFlow(
        own(fields[:200]), box_size=8.0, n_layers=1, filter_knots=8, epochs=2, n_models=2,
        patch_layers=1, noise=0.1, **kw,
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
for name, fit in OTHERS.items():
    flows[name] = core(fit(own, {}, {"comm": comm, "verbose": False}))
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
    del how["verbose"]
    for name, fit in names["OTHERS"].items():
        flows[name] = names["core"](fit(lambda x: x, how, {"verbose": False}))
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

def slowly(progress):
    time.sleep(0.2)

file = os.path.join(folder, "checkpoint")
if rank:  # which waits for the other most of the time
    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
told = {
    "ctrl-c": message(
        lambda: pyflow.GIS(half, progress=slowly, **{**kw, "max_layers": 40})
    ),
    "a number": message(lambda: pyflow.GIS(bad, own(validate), **kw)),
    "an argument": message(lambda: pyflow.GIS(half if rank else "rows", **kw)),
    "columns": message(lambda: pyflow.GIS(half[:, : 3 - rank], **kw)),
    "options": message(lambda: pyflow.GIS(half, seed=rank, **kw)),
    "validation": message(lambda: pyflow.GIS(half, None if rank else validate, **kw)),
    "progress": message(lambda: pyflow.GIS(half, progress=stop, **kw)),
    "bounds": message(lambda: pyflow.GIS(half, bounds=[(-9 - rank, 99)] * 3, **kw)),
    "labels": message(lambda: pyflow.GIS(half, labels=labels[:500] if rank else None, **kw)),
    "kinds": message(
        lambda: pyflow.GIS(half, labels=x[:500, 0] > 0 if rank else ["a"] * 500, **kw)
    ),
    "weights": message(
        lambda: pyflow.GIS(half, weight_train=half[:, 0] ** 2 if rank else None, **kw)
    ),
    "checkpoint": message(lambda: pyflow.SIG(half, checkpoint=file if rank else None, **kw)),
    "unknown": message(lambda: pyflow.SIG(half, **{"max_layer": 3} if rank else {}, **kw)),
    "gathered": message(lambda: pyflow.mpi.gathered(comm, 1.0 if rank else [1.0])),
    "networks": message(lambda: pyflow.GIS(half, autoregressive=True, **kw)),
    "few labels": message(lambda: pyflow.GIS(half, labels=labels[: 500 - rank], **kw)),
    "conditions": message(
        lambda: pyflow.SymmetricFlow(
            fields[:20], y_train=y[: 20 - rank], box_size=8.0, verbose=False, comm=comm
        )
    ),
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
    assert second["ctrl-c"] == "KeyboardInterrupt: "
    assert first["ctrl-c"] == "RankError: rank 1: KeyboardInterrupt: "
    assert second["unknown"].startswith("TypeError: SIG() has no option 'max_layer'")
    assert first["unknown"] == f"RankError: rank 1: {second['unknown']}"
    assert second["gathered"] == "ValueError: values: must have shape (n, ...); their shape is ()"
    assert second["few labels"] == "ValueError: labels: has length 499; the data have 500 rows"
    assert first["few labels"] == f"RankError: rank 1: {second['few labels']}"
    assert second["conditions"].startswith("ValueError: y_train: ")
    assert first["conditions"] == f"RankError: rank 1: {second['conditions']}"
    same = {
        "columns": "ValueError: data_train: its columns: must be the same on all ranks, not 3 on",
        "options": "ValueError: seed: must be the same on all ranks, not 0 on rank 0, 1 on rank 1",
        "bounds": "ValueError: bounds: must be the same on all ranks",
        "validation": "ValueError: data_validate: whether it is given: must be the same on all",
        "labels": "ValueError: labels: whether they are given: must be the same on all ranks",
        "kinds": "ValueError: labels: are numbers on some ranks, and strings on others",
        "weights": "ValueError: weight_train: whether it is given: must be the same on all ranks",
        "checkpoint": "ValueError: checkpoint: whether it is given: must be the same on all ranks",
        "networks": "ValueError: autoregressive: is not for a fit with comm",
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


CHECKPOINTS = """
kw = {"comm": comm, "verbose": False, "checkpoint_seconds": 0}
def stop(progress):
    if progress.step == (1 if stage == "fields" else 3):
        raise ZeroDivisionError
flows = {}
for stage in ("labels", "SIG of images", "fields"):
    file = os.path.join(folder, stage)
    try:
        flows[stage] = core(OTHERS[stage](own, {}, {"progress": STOP, "checkpoint": file, **kw}))
    except (ZeroDivisionError, pyflow.mpi.RankError) as error:
        flows[stage] = type(error).__name__
tell(flows)
"""


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_goes_on_with_any_number_of_ranks(alone, tmp_path):
    first, second = run(CHECKPOINTS.replace("STOP", "stop"), 2, tmp_path)
    assert set(first.values()) == {"ZeroDivisionError"}
    assert set(second.values()) == {"RankError"}
    stages = sorted(first)
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix == "") == stages
    assert all(pyflow.load(tmp_path / stage).unfinished for stage in stages)
    for _ in range(2):  # the second time all is there
        for each in run(CHECKPOINTS.replace("STOP", "None"), 3, tmp_path):
            assert each == {stage: alone[stage] for stage in stages}
    assert not any(pyflow.load(tmp_path / stage).unfinished for stage in stages)


def test_no_signal_of_a_step_is_lost():
    heard, signals = [], pyflow.mpi._Signals()

    def step():
        with signals.whole_step():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGUSR1)
            for _ in range(1000):
                heard.append("on")

    before = signal.signal(signal.SIGUSR1, lambda *of: heard.append("usr1"))
    interrupts = signal.getsignal(signal.SIGINT)
    signals.take_over()
    try:
        with pytest.raises(KeyboardInterrupt):
            step()
    finally:
        signals.give_back()
        own = signal.signal(signal.SIGUSR1, before)
    assert heard == ["on"] * 1000 + ["usr1"]
    own(signal.SIGUSR1, None)  # the caller's handlers are back
    assert heard[-2:] == ["usr1", "usr1"]
    assert signal.getsignal(signal.SIGINT) == interrupts


def test_a_handler_that_raises_leaves_ctrl_c_as_it_was():
    """Between steps too, and while handlers are changed: each still calls the caller's."""
    signals = pyflow.mpi._Signals()

    def stop(*of):
        raise SystemExit

    before, interrupts = signal.signal(signal.SIGTERM, stop), signal.getsignal(signal.SIGINT)
    try:
        signals.take_over()
        with pytest.raises(SystemExit), signals.whole_step():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        signals.give_back()
        assert signal.getsignal(signal.SIGINT) == interrupts
        assert signal.getsignal(signal.SIGTERM) == stop
    finally:
        signals.give_back()
        signal.signal(signal.SIGTERM, before)
