"""How many fits GIS mixes where that is not said: four of a small table, otherwise one."""

import pickle

import numpy as np
import pytest
from conftest import banana
from numpy.testing import assert_array_equal

import pyflow
from pyflow import _members

TRAIN, VALIDATE = banana(240, seed=1), banana(80, seed=2)
LABELS = {"labels": np.arange(240) % 2, "labels_validate": np.arange(80) % 2}
IMAGES = np.random.default_rng(0).normal(size=(90, 2, 2))


def fit(data_train=TRAIN, data_validate=VALIDATE, **options):
    return pyflow.GIS(data_train, data_validate, **{"patience": 2, "verbose": False} | options)


@pytest.fixture
def small(monkeypatch):
    """Only up to 320 rows and three columns are few."""
    monkeypatch.setattr(_members, "SMALL", 320)
    monkeypatch.setattr(_members, "NARROW", 3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data_train": TRAIN.astype(np.float32)},
        {"data_train": TRAIN.tolist()},
        LABELS,
        {"weight_train": np.linspace(0.5, 1, 240), "weight_validate": np.ones(80)},
        {"bounds": [(None, None), (None, None), (0, None)]},
        {"whiten": False, "n_slices": 2},
        {"progress": print},
    ],
)
def test_four_of_a_small_table(options, small, capsys):
    flow = fit(**options)
    assert type(flow) is pyflow.Mixture
    assert len(flow) == 4
    assert flow == fit(**options | {"n_models": 4})


@pytest.mark.parametrize(
    "options",
    [
        {"data_train": banana(241, seed=1)},
        {
            "data_train": np.c_[TRAIN, TRAIN[::-1, 1]],
            "data_validate": np.c_[VALIDATE, TRAIN[:80, 1]],
        },
        {"max_layers": 2},
        {"data_validate": None, "max_layers": 2},
        {"model": pyflow.GIS(TRAIN, max_layers=1, verbose=False)},
        {"data_train": IMAGES[:60], "data_validate": IMAGES[60:]},
        {"data_train": TRAIN[:, :2], "data_validate": VALIDATE[:, :2], "image_shape": (1, 2)},
        {"weight_train": np.linspace(0.5, 1, 240)},
    ],
)
def test_otherwise_one(options, small):
    flow = fit(**options)
    assert type(flow) is pyflow.Flow
    assert flow == fit(**options | {"n_models": 1})


def test_one_of_data_that_are_read_in_blocks(tmp_path):
    np.save(tmp_path / "x.npy", TRAIN)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert type(fit(mapped)) is pyflow.Flow
    assert type(fit(np.array(mapped))) is pyflow.Mixture


def test_one_of_rows_that_are_in_both():
    few = np.concatenate([VALIDATE[:70], TRAIN[:10]])
    assert type(fit(TRAIN, few)) is pyflow.Mixture
    many = np.concatenate([VALIDATE[:60], TRAIN[:20]])
    with pytest.warns(UserWarning, match="^data_validate: 20 of its 80 rows are in data_train"):
        assert type(fit(TRAIN, many)) is pyflow.Flow


def test_what_is_small():
    """The documented limits."""
    for rows, columns, n in ((4000, 100, 4), (4001, 1, 1), (10, 101, 1)):
        x = np.random.default_rng(0).normal(size=(rows, columns))
        assert _members.usual({"data_train": x[3:], "data_validate": x[:3]}, None) == n


def test_it_does_not_depend_on_threads():
    before, found = pyflow.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            pyflow.set_num_threads(n)
            found.append(fit())
    finally:
        pyflow.set_num_threads(before)
    assert type(found[0]) is pyflow.Mixture
    assert found[0] == found[1] == found[2]


# ---- where four fail that one does not -----------------------------------------------------------


def rare():
    """Rows, of a column that is constant but for one, which one of four fits holds out."""
    x, validate = TRAIN.copy(), VALIDATE.copy()
    x[:, 2] = validate[:, 2] = 1
    x[0, 2] = 2
    return x, validate


@pytest.mark.filterwarnings("ignore:data_train. .*equal values")
@pytest.mark.parametrize("threads", [1, 2])
def test_one_where_four_fail(threads, tmp_path):
    before = pyflow.get_num_threads()
    pyflow.set_num_threads(threads)
    try:
        with pytest.warns(UserWarning, match="^n_models: this is one fit, .* column 2 is constant"):
            flow = fit(*rare(), checkpoint=tmp_path / "fit")
        assert flow == fit(*rare(), n_models=1)
        assert [path.name for path in tmp_path.iterdir()] == ["fit"]
        # warnings are errors here: four are not tried again
        assert fit(*rare(), checkpoint=tmp_path / "fit") == flow
        with pytest.raises(ValueError, match="column 2 is constant"):
            fit(*rare(), n_models=4)
    finally:
        pyflow.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_of_the_listener_is_no_failure(threads):
    before, heard = pyflow.get_num_threads(), []

    def listen(p):
        heard.append(p.member)
        raise ValueError("enough")

    pyflow.set_num_threads(threads)
    try:
        with pytest.raises(ValueError, match="^enough"):
            fit(progress=listen)
    finally:
        pyflow.set_num_threads(before)
    assert len(heard) == 1


def test_what_is_wrong_is_said_as_of_one_fit():
    holed = TRAIN.copy()
    holed[7, 1] = np.nan
    for wrong, message in (
        (holed, "^data_train: row 7, column 1 is NaN"),
        (TRAIN[:, :2], "^data_validate: "),
        (TRAIN[0], "^data_train: "),
        (TRAIN.astype(str), "^data_train: "),
    ):
        with pytest.raises(ValueError, match=message):
            fit(wrong)
    with pytest.raises(ValueError, match="^data_train: column 2 is constant"):
        fit(TRAIN * [1, 1, 0], VALIDATE * [1, 1, 0])
    with pytest.raises(ValueError, match="^data_validate, max_layers: give validation data"):
        fit(data_validate=None)


# ---- checkpoints ---------------------------------------------------------------------------------


class Stop(Exception):
    pass


def interrupt(path, after, **options):
    steps = []

    def stop(p):
        steps.append(p)
        if len(steps) == after:
            raise Stop

    with pytest.raises(Stop):
        fit(checkpoint=path, checkpoint_seconds=0, progress=stop, **options)


@pytest.mark.parametrize("after", [1, 9])
def test_four_go_on_from_a_checkpoint(after, tmp_path):
    interrupt(tmp_path / "fit", after)
    flow = fit(checkpoint=tmp_path / "fit")
    assert flow == fit()
    assert pyflow.load(tmp_path / "fit") == flow
    assert fit(checkpoint=tmp_path / "fit") == flow


def test_one_goes_on_from_the_checkpoint_of_one(tmp_path):
    interrupt(tmp_path / "fit", 3, n_models=1)
    assert fit(checkpoint=tmp_path / "fit") == fit(n_models=1)


def test_checkpoints_of_other_fits_are_refused_and_stay(tmp_path):
    interrupt(tmp_path / "fit", 9)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert files
    with pytest.raises(ValueError, match="^checkpoint: .* belongs to another fit: data_"):
        fit(TRAIN[1:], checkpoint=tmp_path / "fit")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


# ---- in place of a flow --------------------------------------------------------------------------


def test_it_does_what_a_flow_does(tmp_path):
    pandas = pytest.importorskip("pandas")
    names = ["u", "v", "w"]
    flow = fit(*(pandas.DataFrame(rows, columns=names) for rows in (TRAIN, VALIDATE)))
    assert flow.dim == 3
    assert flow.columns == tuple(names)
    logp = flow.evaluate_density(VALIDATE)
    x, own = flow.sample(50, seed=1)
    assert x.shape == (50, 3)
    assert_array_equal(own, flow.evaluate_density(x))
    assert flow.score(x).shape == (50, 3)
    flow.save(tmp_path / "flow")
    for again in (pyflow.load(tmp_path / "flow"), pickle.loads(pickle.dumps(flow))):
        assert_array_equal(again.evaluate_density(VALIDATE), logp)
    assert len(pyflow.plots.history(flow).axes) == 2
    said = repr(flow)
    assert said.startswith("pyflow.Mixture(4 flows, shape=(3,), layers=")
    assert "logp_validate=" in said


def test_what_is_of_one_flow_says_how_to_get_one():
    flow = fit()
    for ask in (
        lambda: flow[:2],
        lambda: flow.forward(TRAIN),
        lambda: flow.inverse(TRAIN),
        lambda: flow.train(TRAIN),
        lambda: pyflow.GIS(TRAIN, VALIDATE, model=flow),
    ):
        with pytest.raises(TypeError, match="n_models=1"):
            ask()
