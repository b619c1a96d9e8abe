"""What fails leaves everything as it was, says what failed, and loses nothing."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from conftest import banana
from flows import BOX, KINDS, MESH, case, fields, methods, parameters, stack

import pyflow
from pyflow import _core
from pyflow.layers import Affine, Sliced, Symmetric

Y = parameters(60, 2)
X = fields(60, 1, Y[:, 0])
TABLE = banana(200, seed=1)


class Stop(Exception):
    pass


def gis(x=TABLE, **options):
    return pyflow.GIS(x, verbose=False, **{"max_layers": 3} | options)


def sig(x=TABLE, **options):
    return pyflow.SIG(x, verbose=False, **{"max_layers": 3} | options)


def symmetric(x=X, **options):
    known = {"n_layers": 1, "psi_knots": 4, "filter_knots": 6, "hidden": (4,), "epochs": 4}
    return pyflow.SymmetricFlow(x, box_size=BOX, verbose=False, **known | options)


def trained(x=X, **options):
    return stack(X, np.float64).train(
        x, **{"epochs": 4, "learning_rate": 1e-3, "verbose": False} | options
    )


FITS = {"gis": gis, "sig": sig, "symmetric": symmetric, "trained": trained}
every_fit = pytest.mark.parametrize("fit", FITS.values(), ids=FITS)


# ---- the interpreter's lock ----------------------------------------------------------------------


def long_calls():
    """Calls of the core that take a second or so, each by another path."""
    gis_flow, _, _ = case("gis", np.float64)
    flow, _, _ = case("symmetric, y", np.float64)
    composed, _, _ = case("composed", np.float32)
    many = np.resize(TABLE, (300_000, 3))
    wrong = np.resize(TABLE, (300_000, 3)).astype(np.float32)
    x, y = np.resize(X, (6000, *MESH)), np.resize(Y, (6000, 2))
    table = np.resize(Y, (300, 2))
    return {
        "density of a table": lambda: gis_flow.evaluate_density(many),
        "converted": lambda: gis_flow.evaluate_density(wrong),
        "forward": lambda: gis_flow.forward(many),
        "inverse": lambda: gis_flow.inverse(many),
        "score": lambda: gis_flow.score(many),
        "sample": lambda: gis_flow.sample(300_000),
        "density of fields": lambda: flow.evaluate_density(x, y),
        "scores of parameters": lambda: flow.score_parameters(x, y),
        "posterior table": lambda: flow._core.evaluate_at(x[:300], table),
        "composed": lambda: composed.evaluate_density(x),
        "calibration": lambda: flow.calibrate(x[:60], y[:60]),
        "a fit of a table": lambda: gis(many[:20_000]),
        "SIG": lambda: sig(many[:20_000]),
        "a symmetric fit": lambda: symmetric(np.resize(X, (1500, *MESH)), epochs=10),
        "training": lambda: trained(np.resize(X, (3000, *MESH)), epochs=5),
    }


@pytest.mark.parametrize("name", long_calls())
@pytest.mark.filterwarnings("ignore")
def test_the_lock_is_free_during(name):
    """Held, it is so in every try; a machine that is busy with something else spoils but some."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)  # whoever holds the lock and does not give it up keeps it
    try:
        assert any(share_of_the_longest_pause(long_calls()[name]) < 0.5 for _ in range(5))
    finally:
        sys.setswitchinterval(interval)


def share_of_the_longest_pause(call):
    """Run call in a thread; the longest time in which this one could not run, as a part of it."""
    ticks, done = [], threading.Event()

    def work():
        try:
            call()
        finally:
            done.set()

    thread = threading.Thread(target=work)
    start = time.perf_counter()
    thread.start()
    while not done.is_set():
        ticks.append(time.perf_counter() - start)
        time.sleep(1e-4)
    took = time.perf_counter() - start
    thread.join()
    return np.diff([0, *ticks, took]).max() / took


# ---- nothing stays behind ------------------------------------------------------------------------


def failing(flow, x, y):
    """Calls that fail in the core, late."""
    bad = x.copy()
    bad[-1].flat[-1] = np.nan
    calls = [lambda call=call: call(bad, y) for call in methods(flow, y).values()]
    if flow.names:
        p = len(flow.names) - ("noise" in flow.names)
        calls.append(lambda: flow.calibrate(bad, y[:, :p]))
    return calls


@pytest.mark.parametrize(("name", "dtype"), KINDS)
def test_a_failure_changes_nothing(name, dtype):
    flow, x, y = case(name, dtype)
    before = flow.to_bytes(), flow.evaluate_density(x, y)
    pyflow.set_num_threads(2)
    try:
        for call in failing(flow, x, y):
            with pytest.raises(ValueError, match="^[xz]: .* NaN"):
                call()
            assert pyflow.get_num_threads() == 2
        assert flow.to_bytes() == before[0]
        np.testing.assert_array_equal(flow.evaluate_density(x, y), before[1])
    finally:
        pyflow.set_num_threads(None)


LEAKS = """
    import sys, warnings
    sys.path[:0] = {path!r}
    import numpy as np, pyflow
    from flows import KINDS, case, methods
    from test_flow_failures import FITS, X, TABLE, Stop, failing
    warnings.simplefilter("ignore")

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def stop(p):
        raise Stop

    calls = []
    for name, dtype in KINDS:
        flow, x, y = case(name, dtype)
        many = np.resize(x, (2000, *x.shape[1:]))
        at = None if y is None else np.resize(y, (2000, *y.shape[1:]))
        calls += failing(flow, many, at)[:-1] if flow.names else failing(flow, many, at)
        calls += [lambda flow=flow: pyflow.Flow.from_bytes(flow.to_bytes()[:-9] + bytes(9))]
        calls += [lambda flow=flow: flow.save("/nowhere/at/all")]
    for name, fit in FITS.items():
        x = TABLE if name in ("gis", "sig") else X
        x = np.resize(x, (1500, *x.shape[1:]))
        bad = x.copy()
        bad[-1].flat[-1] = np.nan
        calls += [lambda fit=fit, x=x: fit(x, progress=stop), lambda fit=fit, bad=bad: fit(bad)]
        if name != "sig":
            calls += [lambda fit=fit, x=x: fit(x, data_validate=x[:, :1])]

    def all_fail():
        for call in calls:
            try:
                call()
            except (ValueError, Stop, OSError):
                continue
            raise AssertionError("it did not fail")

    for _ in range(3):
        all_fail()
    before = resident()
    for _ in range(6):
        all_fail()
    print((resident() - before) / 6)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
def test_nothing_leaks_where_it_fails():
    """Each of some hundred calls allocates a tenth of a megabyte or more."""
    path = [os.path.dirname(__file__), *sys.path]
    script = textwrap.dedent(LEAKS.format(path=path))
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 100_000  # bytes a round


# ---- the first exception, and what had been reached ----------------------------------------------


@every_fit
def test_what_progress_raises_is_what_comes_out(fit):
    seen = []

    def stop(p):
        seen.append(p)
        if len(seen) == 2:
            raise Stop("first")

    with pytest.raises(Stop, match="first") as caught:
        fit(progress=stop)
    flow = caught.value.flow
    assert isinstance(flow, pyflow.Flow)
    assert flow.unfinished
    assert len(seen) == 2
    x = TABLE if fit in (gis, sig) else X
    assert np.isfinite(flow.evaluate_density(x)).all()
    assert pyflow.get_num_threads() > 0


def test_what_had_been_reached_is_trained_on_as_any_flow(tmp_path):
    """Its state is that of another training, which has no part in this one."""
    for number, fit in enumerate((symmetric, trained)):
        path = tmp_path / f"checkpoint {number}"

        def stop(p):
            if p.step == 2:
                raise Stop

        with pytest.raises(Stop) as caught:
            fit(checkpoint=path, progress=stop)
        for left in (caught.value.flow, pyflow.load(path)):
            seen = []
            known = {"learning_rate": 1e-3, "verbose": False, "data_validate": X}
            for epochs in (1, 3):
                again = left.train(X, **known, epochs=epochs, progress=seen.append)
                assert not again.unfinished
                start = left.evaluate_density(X).mean() / X[0].size
                np.testing.assert_allclose(seen[0].logp_validate, start, rtol=1e-9)
                assert [p.step for p in seen] == list(range(epochs + 1))
                np.testing.assert_array_equal(again.history["epoch"], [1, 2, *range(1, epochs + 1)])
                seen.clear()


@every_fit
def test_a_warning_that_is_an_error_ends_the_fit_as_such(fit, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    seen = []

    def progress(p):
        seen.append(p)
        shutil.rmtree(folder)

    with pytest.raises(RuntimeWarning, match="cannot write") as caught:
        fit(checkpoint=folder / "file", checkpoint_seconds=0, progress=progress)
    assert len(seen) == 1  # it was not asked again
    assert isinstance(caught.value.flow, pyflow.Flow)


@every_fit
def test_a_checkpoint_that_cannot_be_written_is_warned_of_and_the_fit_goes_on(fit, tmp_path):
    """A folder that is away for a while; and one that never comes back."""
    folder, total = tmp_path / "folder", []
    fit(progress=total.append)
    for comes_back in (True, False):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        seen = []

        def progress(p, seen=seen, comes_back=comes_back):
            seen.append(p)
            if len(seen) == 1:
                shutil.rmtree(folder)
            if len(seen) == len(total) and comes_back:
                folder.mkdir()

        known = {"checkpoint": folder / "file", "checkpoint_seconds": 0, "progress": progress}

        def run(known=known, comes_back=comes_back):
            if comes_back:
                return fit(**known)
            with pytest.raises(OSError, match="cannot write") as error:
                fit(**known)
            return error.value.flow

        with pytest.warns(RuntimeWarning, match="cannot write") as caught:
            flow = run()
        assert len(caught) >= (1 if fit in (gis, sig) else len(total) - 2)
        assert caught[0].filename == __file__
        assert flow == fit()
        assert not flow.unfinished
        assert len(seen) == len(total)


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dtype"), KINDS)
def test_a_note_that_is_not_of_this_flow_is_refused(name, dtype):
    flow, _, _ = case(name, dtype)
    note = json.loads(flow._core.note)
    wrong = [
        [1],
        3,
        "text",
        None,
        note | {"labels": 3},
        note | {"labels": [1, 2, 3]},
        note | {"names": "amplitude"},
        note | {"names": ["a", "b", "c", "d"]},
        note | {"columns": ["a"]},
        note | {"columns": 1},
        note | {"calibration": 1.5},
        note | {"calibration": {"points": 1}},
        note | {"calibration": {"points": 1, "before": "0", "after": 1.0}},
        note | {"unfinished": 1},
        note | {"fit": [1]},
    ]
    if flow.labels is not None:
        wrong += [{k: v for k, v in note.items() if k != "labels"}]
        wrong += [note | {"labels": bad} for bad in (["right", "left"], ["a", 1], ["a", "a"], [])]
    for bad in [json.dumps(bad) for bad in wrong] + ["{", '{"labels": NaN}', "[" * 1000]:
        data = flow._core.with_note(bad).to_bytes()
        with pytest.raises(pyflow.FileError, match="damaged"):
            pyflow.Flow.from_bytes(data)


def test_a_stage_that_is_not_in_the_options_is_not_gone_on_with(tmp_path):
    """The core itself refuses the state of a posterior stage when there is to be none."""
    path = str(tmp_path / "checkpoint")
    known = {"data_train": X, "y_train": Y, "hidden": (4,), "checkpoint": path, "epochs": 2}
    tuned = {"posterior_weight": 0.5, "posterior_epochs": 3, "posterior_draws": 20}

    def progress(stage, step, *_):
        if step == 3:
            raise Stop

    def fit(**more):
        if "box" in more:
            return _core.symmetric_fit(**known, n_layers=1, filter_knots=6, **more)
        flow = pyflow.Flow([pyflow.layers.Symmetric(4, 6)], shape=MESH)._core
        return _core.train(flow=flow, **known, **more)

    for box in ({"box": np.array(BOX)}, {}):
        with pytest.raises(Stop):
            fit(**tuned, **box, progress=progress)
        for other in ({}, tuned | {"posterior_epochs": 0}, tuned | {"posterior_weight": 0}):
            with pytest.raises(ValueError, match="^checkpoint: .* posterior_weight"):
                fit(**other, **box)
        assert not fit(**tuned, **box).unfinished
        os.remove(path)


@pytest.mark.parametrize("name", ["data_train", "y_train", "flow", "seed", "frozen", "labels"])
def test_the_checkpoint_of_another_training_is_refused(tmp_path, name):
    path = tmp_path / "checkpoint"
    labels = (X[:, 0, 0] > 0) if name == "labels" else None
    known = {"checkpoint": path, "epochs": 2, "verbose": False, "hidden": (4,)}
    known |= {"labels": labels} if name == "labels" else {"y_train": Y}
    flow = stack(X, np.float64, labels)
    flow.train(X, **known)
    before, x = path.read_bytes(), X
    if name == "data_train":
        x = X + 1e-9
    elif name == "flow":
        flow = stack(X + 1, np.float64)
    else:
        known[name] = {
            "y_train": Y + 1e-9,
            "seed": 1,
            "frozen": [True] + [False] * 7,
            "labels": ~(X[:, 0, 0] > 0),
        }[name]
    with pytest.raises(ValueError, match=rf"^checkpoint: .*another fit: .*\b{name}\b.* differ"):
        flow.train(x, **known)
    assert path.read_bytes() == before


WRONG = {
    "no data": ({"data_train": X[:0]}, "data_train: "),
    "another mesh": ({"data_train": X[:, :2]}, "data_train: must have shape"),
    "one field": ({"data_train": X[0]}, "data_train: is a single point"),
    "NaN": ({"data_train": np.where(X[3, 0, 0] == X, np.nan, X)}, "data_train: field 3"),
    "validation": ({"data_validate": X[:, 1:]}, "data_validate: must have shape"),
    "validation NaN": ({"data_validate": X * np.nan}, "data_validate: field 0"),
    "weights": ({"weight_train": np.ones(5)}, "weight_train: must have shape"),
    "weights below 0": ({"weight_train": -np.ones(60)}, "weight_train: row 0 is -1"),
    "no weights": ({"weight_train": np.zeros(60)}, "weight_train: all weights are zero"),
    "weights of nothing": ({"weight_validate": np.ones(60)}, "weight_validate: "),
    "labels": ({"labels": np.zeros(60)}, "labels: this flow has no classes"),
    "labels of nothing": ({"labels_validate": np.zeros(60)}, "labels_validate: "),
    "y rows": ({"y_train": Y[:5]}, "y_train: must have shape"),
    "y constant": ({"y_train": Y * [1, 0]}, "y_train: column 1 is constant"),
    "y too large": ({"y_train": Y * 1e200}, "y_train: column 0 is too large"),
    "y of nothing": ({"y_validate": Y}, "y_train: is missing"),
    "y and no points": ({"y_train": Y, "y_validate": Y}, "data_validate: is missing"),
    "names": ({"y_train": Y, "names": ["a"]}, "names: 1 names for 2"),
    "frozen": ({"frozen": [True]}, "frozen: has 1 entries for 8 layers"),
    "noise": ({"noise": (2, 1)}, "noise: must be a standard deviation"),
    "noise condition": ({"noise_condition": True}, "noise_condition: "),
    "objective": ({"objective": "posterior"}, "objective: there is no y_train"),
    "weighted posterior": (
        {"y_train": Y, "objective": 0.5, "weight_train": np.ones(60)},
        "posterior_weight: weights",
    ),
    "hidden": ({"y_train": Y, "hidden": []}, "hidden: must be"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_of_training_are_named(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        stack(X, np.float64).train(**{"data_train": X, "epochs": 1, "verbose": False} | options)


def test_what_cannot_be_conditioned_or_trained_says_so():
    flow, _, _ = case("gis", np.float64)
    with pytest.raises(ValueError, match=r"^y_train: |layers"):
        flow.train(TABLE, y_train=TABLE[:, :1], epochs=1, verbose=False)
    with pytest.raises(ValueError, match="layers"):
        pyflow.Flow([], shape=3).train(TABLE, epochs=1, verbose=False)
    labelled, _, _ = case("gis, labels", np.float64)
    with pytest.raises(ValueError, match="^labels: this flow has classes"):
        labelled.train(TABLE, epochs=1, verbose=False)
    conditional, _, _ = case("symmetric, y", np.float64)
    with pytest.raises(ValueError, match="^y_train: this flow is conditional; it needs amplitude"):
        conditional.train(X, epochs=1, verbose=False)
    with pytest.raises(ValueError, match="^y_train: must have shape"):
        conditional.train(X, y_train=Y[:, :1], epochs=1, verbose=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_so_far_out_that_all_overflows(dtype):
    """Their density is 0, and what has no value is refused, by row."""
    flow = pyflow.Flow([Symmetric()], shape=(4, 4), dtype=dtype)
    x = np.zeros((3, 4, 4), dtype)
    x[1] = np.finfo(dtype).max
    logp = flow.evaluate_density(x)
    assert logp[1] == -np.inf
    assert np.isfinite(logp[[0, 2]]).all()
    for method in (flow.score, flow.forward):
        with pytest.raises(ValueError, match="^x: field 1 is too far out for this precision"):
            method(x)


def test_layers_that_make_no_flow():
    with pytest.raises(ValueError, match="^matrix: is singular"):
        pyflow.Flow([Affine([[1, 2], [2, 4]])], shape=2)
    with pytest.raises(TypeError, match="^layers: must be a sequence"):
        pyflow.Flow(Sliced(), shape=2)
    with pytest.raises(ValueError, match="^labels: there are none"):
        pyflow.Flow([Sliced()], shape=2, labels=[])
    assert pyflow.Flow([Sliced()], shape=2).slices == 2


def test_noise_that_is_a_condition_is_given():
    x = np.random.default_rng(0).normal(size=(20, 4, 4))
    flow = pyflow.Flow([Symmetric()], shape=(4, 4))
    known = {"epochs": 1, "hidden": (4,), "verbose": False}
    flow = flow.train(x, noise=(0.1, 0.3), noise_condition=True, **known)
    with pytest.raises(ValueError, match="^noise: this flow is conditional on it"):
        flow.train(x, epochs=1, verbose=False)
