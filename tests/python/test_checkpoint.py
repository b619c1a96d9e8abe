"""A fit that was interrupted goes on to the model that an uninterrupted one gives."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from conftest import banana

import pyflow
from pyflow import _checkpoint


def gaussian(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 3)) @ [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


FITS = {
    "stopped by validation data": {"patience": 2},
    "stopped by the number of layers": {"data_validate": None, "max_layers": 4},
    "both": {"max_layers": 3},
    "no marginal layer": {"max_layers": 3, "marginal_first": False},
    "sliced layers alone": {"max_layers": 3, "marginal_first": False, "whiten": False},
    "bounds, weights and labels": {
        "max_layers": 3,
        "bounds": [(None, None), (None, None), (0, None)],
        "weight_train": np.linspace(0.1, 2, 300),
        "labels": np.arange(300) % 3,
        "labels_validate": np.arange(150) % 3,
    },
    "float32": {"max_layers": 3, "data_train": banana(300, seed=1).astype(np.float32)},
    "a marginal layer that gains nothing": {
        "marginal_first": True,
        "patience": 1,
        "min_improvement": 0.3,
        "data_train": gaussian(300, seed=1),
        "data_validate": gaussian(150, seed=2),
    },
    "one column": {
        "max_layers": 3,
        "data_train": banana(300, seed=1)[:, :1],
        "data_validate": banana(150, seed=2)[:, :1],
    },
}


class Stop(Exception):
    pass


def fit(**options):
    data = {"data_train": banana(300, seed=1), "data_validate": banana(150, seed=2)}
    return pyflow.GIS(**{"n_models": 1, "verbose": False, **data, **options})


def interrupt(path, layers, **options):
    """A fit that is stopped after this many layers."""

    def stop(p):
        if p.step >= layers:
            raise Stop

    with pytest.raises(Stop):
        fit(checkpoint=path, progress=stop, **options)


@pytest.mark.parametrize("options", FITS.values(), ids=FITS)
def test_an_interrupted_fit_goes_on(tmp_path, options):
    path, seen = tmp_path / "checkpoint", []
    whole = fit(progress=seen.append, **options)
    assert len(seen) >= 3
    for p in [*seen[:3], *seen[3 :: len(seen) // 3], seen[-1]]:
        interrupt(path, p.step, **options)
        unfinished = pyflow.load(path)
        assert len(unfinished) == p.step
        assert "unfinished" in repr(unfinished)
        assert fit(checkpoint=path, **options) == whole
        assert pyflow.load(path) == whole
        path.unlink()


def test_check_sums_are_of_the_data_however_they_are_read():
    class Rows:  # like a data set in a file
        def __init__(self, x):
            self.x, self.shape, self.dtype, self.reads = x, x.shape, x.dtype, 0

        def __getitem__(self, rows):
            self.reads += 1
            return self.x[rows]

    for shape in ((1000, 3), (_checkpoint.CHUNK, 2)):
        x = np.zeros(shape, np.float32)
        rows = Rows(x)
        before = _checkpoint.check_sum(x)
        assert _checkpoint.check_sum(rows) == before
        assert 1 <= rows.reads <= 3
        x[-1, -1] = 1
        assert _checkpoint.check_sum(x) != before
    x = np.zeros((1000, 3))
    x[17] = 1  # all of a small table counts
    assert _checkpoint.check_sum(x) != _checkpoint.check_sum(np.zeros((1000, 3)))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
def test_an_interruption_says_how_to_go_on(tmp_path):
    path = tmp_path / "checkpoint"

    def stop(p):
        raise KeyboardInterrupt

    for fit_ in (fit, fit_fields):
        with pytest.raises(KeyboardInterrupt) as error:
            fit_(checkpoint=path, progress=stop)
        (note,) = error.value.__notes__
        assert "same call" in note
        assert repr(str(path)) in note
        path.unlink()
        with pytest.raises(KeyboardInterrupt) as error:
            fit_(progress=stop)
        assert not hasattr(error.value, "__notes__")


def test_many_interruptions(tmp_path):
    path = tmp_path / "checkpoint"
    for layers in (2, 3, 4, 6):
        interrupt(path, layers, max_layers=5)
    assert fit(checkpoint=path, max_layers=5) == fit(max_layers=5)


def test_going_on_from_a_model_and_then_from_its_checkpoint(tmp_path):
    path, start = tmp_path / "checkpoint", fit(max_layers=2)
    whole = fit(max_layers=6, model=start)
    interrupt(path, len(start) + 2, max_layers=6, model=start)
    assert fit(max_layers=6, model=start, checkpoint=path) == whole


def test_a_finished_fit_is_not_repeated(tmp_path):
    path, seen = tmp_path / "checkpoint", []
    first = fit(max_layers=3, checkpoint=path)
    assert fit(max_layers=3, checkpoint=path, progress=seen.append) == first == fit(max_layers=3)
    assert seen == []


def test_checkpoints_are_written_as_the_fit_goes(tmp_path):
    path, layers = tmp_path / "checkpoint", []

    def look(p):
        layers.append((len(pyflow.load(path)), p.step))

    fit(max_layers=4, checkpoint=path, checkpoint_seconds=0, progress=look)
    assert len(layers) > 4
    assert all(written == reached for written, reached in layers)
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_a_killed_fit_goes_on(tmp_path):
    """Without any chance to say farewell: the last checkpoint is whole."""
    path = tmp_path / "checkpoint"
    script = """
        import os, signal, sys
        sys.path[:0] = sys.argv[2:]
        import pyflow
        from test_checkpoint import fit

        def kill(p):
            if p.step >= 5:
                os.kill(os.getpid(), signal.SIGKILL)

        fit(max_layers=6, checkpoint=sys.argv[1], checkpoint_seconds=0, progress=kill)
    """
    here = os.path.dirname(__file__)
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script), path, here, *sys.path])
    assert run.returncode < 0
    assert len(pyflow.load(path)) == 5
    assert fit(max_layers=6, checkpoint=path) == fit(max_layers=6)


OTHERS = {
    "n_slices": {"n_slices": 1},
    "max_layers": {"max_layers": 5},
    "alpha": {"alpha": (0.9, 0.9)},
    "seed": {"seed": 1},
    "bounds": {"bounds": [(-99, 99)] * 3},
    "weight_train": {"weight_train": np.ones(300)},
    "data_train": {"data_train": banana(300, seed=5)},
    "data_validate": {"data_validate": banana(160, seed=2)},
    "labels": {"labels": np.ones(300), "labels_validate": np.ones(150)},
}


@pytest.mark.parametrize(("name", "options"), OTHERS.items(), ids=OTHERS)
@pytest.mark.parametrize("finished", [False, True])
def test_the_checkpoint_of_another_fit_is_refused(tmp_path, name, options, finished):
    path = tmp_path / "checkpoint"
    if finished:
        fit(max_layers=2, checkpoint=path)
    else:
        interrupt(path, 3, max_layers=2)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"^checkpoint: .*another fit: .*\b{name}\b.* differ"):
        fit(**{"max_layers": 2, "checkpoint": path, **options})
    assert path.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint"
    interrupt(path, 3, max_layers=2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(pyflow.FileError, match="checkpoint: the file is cut short"):
        fit(max_layers=2, checkpoint=path)


def test_an_exception_is_not_lost_when_the_checkpoint_cannot_be_written(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()

    def stop(p):
        folder.rmdir()
        raise Stop

    with pytest.raises(Stop) as error:
        fit(max_layers=3, checkpoint=folder / "file", progress=stop)
    assert isinstance(error.value.__context__, OSError)
    assert "cannot write" in str(error.value.__context__)


def test_checkpoints_that_cannot_be_written_are_refused_before_the_fit(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 2))
    for path, error, message in (
        (tmp_path / "no" / "fit", OSError, "no such folder"),
        (tmp_path, OSError, "is a folder"),
        ("", OSError, "is a folder"),
        (3, TypeError, "must be a path"),
    ):
        with pytest.raises(error, match=f"^checkpoint: .*{message}"):
            pyflow.GIS(x, max_layers=1, checkpoint=path, verbose=False)
        with pytest.raises(error, match=f"^checkpoint: .*{message}"):
            fit_fields(checkpoint=path)
    with pytest.raises(ValueError, match="seed"):
        pyflow.GIS(x, max_layers=1, checkpoint=tmp_path / "fit", seed=None, verbose=False)


# ---- fields --------------------------------------------------------------------------------------


def fit_fields(**options):
    rng = np.random.default_rng(0)
    y = rng.uniform(0.5, 2, size=(60, 1))
    x = np.sqrt(y[:, :, None]) * rng.normal(size=(60, 8, 8))
    data = {"data_train": x[:40], "data_validate": x[40:], "y_train": y[:40], "y_validate": y[40:]}
    defaults = {"n_layers": 1, "filter_knots": 6, "psi_knots": 4, "hidden": 8, "epochs": 4}
    return pyflow.SymmetricFlow(**data | defaults | {"verbose": False} | options)


def stop_at_report(number):
    left = iter(range(number - 1))

    def stop(p):
        if next(left, None) is None:
            raise Stop

    return stop


FIELD_FITS = {
    "likelihood": {},
    "posterior": {"objective": 0.5, "posterior_epochs": 2, "posterior_draws": 20},
    "patience": {"patience": 1, "epochs": 50, "learning_rate": 0.1},
    "noise": {"noise": (0.1, 0.3), "noise_condition": True},
    "noise of a spectrum": {"noise": lambda k: 0.01 / (1 + k)},
    "no conditions": {"y_train": None, "y_validate": None, "data_validate": None},
    "calibrated": {"calibrate": True},
}


@pytest.mark.parametrize("options", FIELD_FITS.values(), ids=FIELD_FITS)
def test_an_interrupted_fit_of_fields_goes_on(tmp_path, options):
    path, seen = tmp_path / "checkpoint", []
    whole = fit_fields(progress=seen.append, **options)
    for reports in {1, 2, len(seen) - 1, len(seen)}:
        with pytest.raises(Stop):
            fit_fields(checkpoint=path, progress=stop_at_report(reports), **options)
        unfinished = pyflow.load(path)
        assert "unfinished" in repr(unfinished)
        assert len(unfinished.history["logp_train"]) == seen[reports - 1].step
        again = []
        assert fit_fields(checkpoint=path, progress=again.append, **options) == whole
        assert str([p[:5] for p in again]) == str([p[:5] for p in seen[reports:]])  # NaNs as well
        assert pyflow.load(path) == whole
        assert "unfinished" not in repr(whole)
        assert fit_fields(checkpoint=path, progress=lambda p: 1 / 0, **options) == whole
        path.unlink()


def test_checkpoints_of_other_fits_of_fields_are_refused(tmp_path):
    path = tmp_path / "checkpoint"
    fit_fields(checkpoint=path)
    for options, name in (
        ({"epochs": 5}, "epochs"),
        ({"seed": 1}, "seed"),
        ({"y_train": np.linspace(0.5, 2, 40)}, "y_train"),
        ({"noise": 0.1}, "noise"),
        ({"box_size": 2.0}, "box_size"),
    ):
        with pytest.raises(ValueError, match=f"another fit: {name} differs"):
            fit_fields(checkpoint=path, **options)
    with pytest.raises(OSError, match="no such folder"):
        fit_fields(checkpoint=tmp_path / "nowhere" / "file")
    with pytest.raises(ValueError, match="seed: with a checkpoint"):
        fit_fields(checkpoint=path, seed=None)
    path.write_bytes(b"something else")
    with pytest.raises(pyflow.FileError, match="checkpoint"):
        fit_fields(checkpoint=path)
