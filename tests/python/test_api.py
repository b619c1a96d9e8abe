"""What the Python layer promises: models, fits, options, errors."""

import ast
import copy
import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import pyflow
from pyflow import _core


def fit(*args, **options):
    return pyflow.GIS(*args, verbose=False, **options)


def same(a, b):
    """Whether two models are the same, apart from what is noted of how they came about."""
    return a._core.with_note("").to_bytes() == b._core.with_note("").to_bytes()


# ---- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "model32"])
def test_density_is_that_of_the_latent_point_times_the_jacobian(name, test, request):
    model = request.getfixturevalue(name)
    z, logj = model.forward(test)
    expected = stats.norm.logpdf(z.astype(float)).sum(axis=1) + logj
    assert_allclose(model.evaluate_density(test), expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "tolerance"), [("model", 1e-9), ("model32", 2e-3)])
def test_inverse_undoes_forward(name, tolerance, test, request):
    model = request.getfixturevalue(name)
    z, logj = model.forward(test)
    x, back = model.inverse(z)
    assert_allclose(x, test, rtol=tolerance, atol=tolerance)
    assert_allclose(back, -logj, atol=10 * tolerance)


def test_sample_knows_its_density(model):
    x, logp = model.sample(500, seed=4)
    assert_allclose(model.evaluate_density(x), logp, atol=1e-9)


def test_sample_follows_the_data(model):
    x, _ = model.sample(2000, seed=1)
    from conftest import banana

    for mine, true in zip(x.T, banana(2000, seed=9).T, strict=True):
        assert stats.ks_2samp(mine, true).pvalue > 1e-4


def test_seeds(model):
    x, _ = model.sample(50, seed=7)
    assert_array_equal(model.sample(20, seed=7)[0], x[:20])
    assert not np.any(model.sample(50, seed=8)[0] == x)
    assert not np.any(model.sample(50)[0] == model.sample(50)[0])
    assert_array_equal(model.sample(3, seed=2**64 - 1)[0], model.sample(3, seed=2**64 - 1)[0])


def test_score_is_the_gradient(model, test):
    score, logp = model.score(test[:20], with_logp=True)
    assert_allclose(logp, model.evaluate_density(test[:20]), rtol=1e-12)
    step = 1e-5
    for j in range(3):
        up, down = test[:20].copy(), test[:20].copy()
        up[:, j] += step
        down[:, j] -= step
        slope = (model.evaluate_density(up) - model.evaluate_density(down)) / (2 * step)
        assert_allclose(score[:, j], slope, rtol=1e-3, atol=1e-3)


METHODS = ["evaluate_density", "forward", "inverse", "score"]


@pytest.mark.parametrize("method", METHODS)
def test_one_point_is_a_row(model, test, method):
    many, one = getattr(model, method)(test), getattr(model, method)(test[5])
    if not isinstance(many, tuple):
        many, one = (many,), (one,)
    for rows, row in zip(many, one, strict=True):
        assert np.shape(row) == rows.shape[1:]
        assert_array_equal(row, rows[5])


def test_no_rows(model):
    nothing = np.empty((0, 3))
    assert model.evaluate_density(nothing).shape == (0,)
    assert model.score(nothing).shape == (0, 3)
    assert [a.shape for a in model.forward(nothing)] == [(0, 3), (0,)]
    assert [a.shape for a in model.sample(0)] == [(0, 3), (0,)]


@pytest.mark.parametrize(("name", "dtype"), [("model", np.float64), ("model32", np.float32)])
def test_types_and_shapes_of_results(name, dtype, test, request):
    model = request.getfixturevalue(name)
    assert model.dtype == dtype
    for points, logs in (
        model.forward(test),
        model.inverse(test),
        model.sample(len(test)),
        model.score(test, with_logp=True),
    ):
        assert (points.dtype, points.shape) == (dtype, test.shape)
        assert (logs.dtype, logs.shape) == (np.float64, test.shape[:1])
    assert model.evaluate_density(test).dtype == np.float64


def test_float32_and_float64_agree(model, model32, test):
    assert_allclose(model32.evaluate_density(test), model.evaluate_density(test), atol=0.5)
    assert abs(np.mean(model32.evaluate_density(test) - model.evaluate_density(test))) < 0.02


def test_first_layers_are_a_model(model, train, validate, test):
    assert len(model[:0]) == 0
    assert_allclose(model[:0].evaluate_density(test), stats.norm.logpdf(test).sum(axis=1))
    history = model.history
    for k in range(1, len(model) + 1):
        part = model[:k]
        assert len(part) == k
        assert_allclose(part.evaluate_density(train).mean(), history["logp_train"][k - 1])
        assert_allclose(part.evaluate_density(validate).mean(), history["logp_validate"][k - 1])
    assert len(model[:-1]) == len(model) - 1
    assert model[:] == model[: len(model) + 5] == model


def test_early_stopping_keeps_the_best_layers(train, validate):
    seen = []
    model = fit(train, validate, n_models=1, patience=3, progress=seen.append)
    logp = [p.logp_validate for p in seen]
    best = int(np.argmax(logp))
    assert len(model[:-1]) == seen[best].step  # the last layer is that of the best flow's latents
    assert len(seen) == best + 1 + 3
    assert model.history["logp_validate"][-2] == max(logp)


def test_min_improvement_stops_earlier(train, validate):
    one = {"n_models": 1}
    assert len(fit(train, validate, min_improvement=0.05, **one)) < len(fit(train, validate, **one))


@pytest.mark.parametrize("bad", [slice(1, 3), slice(None, None, 2), slice(None, None, -1)])
def test_other_slices_are_refused(model, bad):
    with pytest.raises(ValueError, match=r"flow\[:k\]"):
        model[bad]
    with pytest.raises(TypeError, match=r"flow\[:k\]"):
        model[0]
    with pytest.raises(TypeError):
        iter(model)


def test_equality_copies_and_pickles(model, model32, test):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(model, protocol))
        assert again == model
        assert hash(again) == hash(model)
        assert_array_equal(again.evaluate_density(test), model.evaluate_density(test))
    for duplicate in (copy.copy(model), copy.deepcopy(model), copy.deepcopy([model])[0]):
        assert duplicate == model
    assert pickle.loads(pickle.dumps(model._core)).to_bytes() == model.to_bytes()
    assert model != model32
    assert model != model[:-1]
    assert model != "model"


def test_models_do_not_change(model):
    for name in ("dim", "dtype", "layers", "labels", "history", "anything"):
        with pytest.raises(AttributeError):
            setattr(model, name, 1)
    before = model.to_bytes()
    model.history["logp_train"][:] = 0
    assert model.to_bytes() == before
    assert model.history["logp_train"].any()


def test_repr_says_what_it_is(model, labelled):
    text = repr(model)
    assert "shape=(3,)" in text
    assert f"layers={len(model)}" in text
    assert "float64" in text
    assert f"{model.history['logp_validate'][-1]:.4g}" in text
    assert "classes=2" in repr(labelled)
    assert repr(model[:0])


def test_counts_of_layers_and_slices(train):
    model = fit(train, max_layers=4, n_slices=2, marginal_first=False, whiten=True)
    assert model.layers.count("sliced") == 4
    assert model.layers.count("affine") == 1
    assert model.slices == 4 * 2
    assert len(model.layers) == len(model) == len(model.history["distance"])


def test_models_come_from_fits_and_files_alone():
    with pytest.raises(TypeError):
        pyflow.Flow(None)
    with pytest.raises(TypeError):
        _core.Flow()


# ---- labels --------------------------------------------------------------------------------------


def test_each_label_has_its_own_density(labelled, test):
    assert_array_equal(labelled.labels, ["left", "right"])
    left, right = (labelled.evaluate_density(test, label) for label in ("left", "right"))
    assert np.mean(left > right) > 0.2
    assert np.mean(left < right) > 0.2
    mixed = np.where(np.arange(len(test)) % 2, "left", "right")
    expected = np.where(mixed == "left", left, right)
    assert_array_equal(labelled.evaluate_density(test, mixed), expected)
    assert labelled.evaluate_density(test[0], "left") == left[0]
    x, logp = labelled.sample(400, "left", seed=1)
    assert np.mean(x[:, 0] < 0) > 0.9
    assert_allclose(labelled.evaluate_density(x, "left"), logp, atol=1e-9)


@pytest.mark.parametrize(
    "values", [[False, True], [-7, 12], [0.5, 2.0], ["a", "ö"], np.array([3, 200], np.uint8)]
)
def test_any_labels(train, values):
    side = (train[:, 0] > 0).astype(int)
    model = fit(train, labels=np.asarray(values)[side], max_layers=1)
    assert model.labels.tolist() == list(values)
    again = pickle.loads(pickle.dumps(model))
    assert again.labels.tolist() == list(values)
    reference = fit(train, labels=side, max_layers=1)
    for i in (0, 1):
        a = again.evaluate_density(train, values[i])
        assert_array_equal(a, reference.evaluate_density(train, i))


def test_wrong_labels(labelled, model, train, validate, test):
    with pytest.raises(ValueError, match=r"y: 'up' is not among the flow's labels"):
        labelled.evaluate_density(test, "up")
    with pytest.raises(ValueError, match=r"y: 1 is not among"):
        labelled.sample(3, 1)
    with pytest.raises(ValueError, match="y: must have shape"):
        labelled.evaluate_density(test, ["left", "right"])
    with pytest.raises(ValueError, match="y: this flow was fitted with labels"):
        labelled.evaluate_density(test)
    with pytest.raises(ValueError, match="y: this flow was fitted without"):
        model.evaluate_density(test, "left")
    label = np.arange(len(train)) % 2
    with pytest.raises(ValueError, match="labels: must have shape"):
        fit(train, labels=label[:-1], max_layers=1)
    with pytest.raises(ValueError, match="labels_validate: must be given"):
        fit(train, validate, labels=label)
    with pytest.raises(ValueError, match="labels_validate: 5 is not among labels"):
        fit(train, validate, labels=label, labels_validate=np.full(len(validate), 5))
    with pytest.raises(ValueError, match=r"labels: .* dtype is complex128"):
        fit(train, labels=label * 1j, max_layers=1)
    with pytest.raises(ValueError, match="labels: a label is not finite"):
        fit(train, labels=np.full(len(train), np.nan), max_layers=1)


# ---- fits ----------------------------------------------------------------------------------------


def test_a_fit_repeats_itself_for_any_number_of_threads(train, validate, test):
    threads = pyflow.get_num_threads()
    models, samples = [], []
    try:
        for n in (1, 2, 3):
            pyflow.set_num_threads(n)
            assert pyflow.get_num_threads() == n
            models.append(fit(train, validate, max_layers=5))
            samples.append([*models[-1].sample(5000, seed=1), models[-1].score(test)])
    finally:
        pyflow.set_num_threads(None)
    assert pyflow.get_num_threads() == threads
    assert models[0] == models[1] == models[2]
    for other in samples[1:]:
        for a, b in zip(samples[0], other, strict=True):
            assert_array_equal(a, b)


def test_other_seeds_give_other_models(train):
    assert not same(fit(train, max_layers=2, seed=1), fit(train, max_layers=2, seed=2))
    assert not same(fit(train, max_layers=2, seed=None), fit(train, max_layers=2, seed=None))


@pytest.mark.parametrize("n", [0, -1, 10**9, 1.5, "two"])
def test_wrong_numbers_of_threads(n):
    with pytest.raises((ValueError, TypeError), match=r"^n: must be"):
        pyflow.set_num_threads(n)


def test_weights_count(train):
    weight = np.where(train[:, 0] > 0, 1.0, 0.05)
    x, _ = fit(train, weight_train=weight, max_layers=3).sample(2000, seed=0)
    share = weight[train[:, 0] > 0].sum() / weight.sum()
    assert abs(np.mean(x[:, 0] > 0) - share) < 0.05
    assert same(
        fit(train, max_layers=3, weight_train=np.full(len(train), 0.25)),
        fit(train, max_layers=3, weight_train=np.full(len(train), 8.0)),
    )


def test_weights_of_validation_data_count(train, validate):
    weight = np.zeros(len(validate))
    weight[:50] = 3
    whole = fit(train, validate, weight_validate=weight, max_layers=3)
    part = fit(train, validate[:50], max_layers=3)
    assert_allclose(whole.history["logp_validate"], part.history["logp_validate"], rtol=1e-6)


def test_bounds_are_those_that_the_data_can_tell_apart():
    """As a float32, 0.1 is more than 0.1: data on a bound lie on it, and so do samples."""
    x = np.linspace(0, 0.1, 400, dtype=np.float32).reshape(-1, 1)
    assert float(x.max()) > 0.1
    model = fit(x, max_layers=2, bounds=[(0, 0.1)])
    assert np.isfinite(model.evaluate_density(x)).all()
    ends, _ = model.inverse(np.linspace(-60, 60, 400, dtype=np.float32).reshape(-1, 1))
    assert ends.min() == 0
    assert ends.max() == x.max()
    model.forward(ends)
    assert model.evaluate_density(np.array([[0.11]])) == -np.inf


def test_bounds_hold(train):
    box = np.random.default_rng(0).uniform([0, -3, 2], [1, 5, 4], size=(800, 3))
    model = fit(box, max_layers=3, bounds=[(0, 1), (-3, None), (None, 4)])
    x, logp = model.sample(5000, seed=0)
    assert np.all((x[:, 0] >= 0) & (x[:, 0] <= 1) & (x[:, 1] >= -3) & (x[:, 2] <= 4))
    assert np.isfinite(logp).all()
    outside = np.array([[1.01, 0, 3], [0.5, -3.01, 3], [0.5, 0, 4.01]])
    assert_array_equal(model.evaluate_density(outside), -np.inf)
    with pytest.raises(ValueError, match=r"x: row 0, column 0 is 1.01, outside the bounds"):
        model.forward(outside)
    for spelling in (
        [(0, 1), (-3, np.inf), (-np.inf, 4)],
        np.array([[0, 1], [-3, np.inf], [-np.inf, 4]]),
    ):
        assert same(fit(box, max_layers=3, bounds=spelling), model)
    assert same(fit(train, max_layers=1, bounds=[(None, None)] * 3), fit(train, max_layers=1))


def test_going_on_from_a_model(train, validate):
    short = fit(train, max_layers=2)
    before = short.to_bytes()
    longer = fit(train, max_layers=5, model=short)
    assert same(longer, fit(train, max_layers=5))
    assert short.to_bytes() == before
    better = fit(train, validate, model=short)
    assert better.history["logp_validate"].argmax() == len(better) - 1


def test_progress_is_told_of_every_layer(train, validate):
    seen = []
    model = fit(train, validate, max_layers=4, progress=seen.append)
    assert all(isinstance(p, pyflow.Progress) for p in seen)
    assert [p.step for p in seen] == sorted({p.step for p in seen})
    history = model.history
    for p in seen[: len(model) - 1]:
        assert p.logp_train == history["logp_train"][p.step - 1]
        assert p.logp_validate == history["logp_validate"][p.step - 1]
        assert 1 <= p.best <= p.step


def test_silence_and_speech(train, validate, capfd):
    pyflow.GIS(train, validate, max_layers=2, verbose=False)
    assert capfd.readouterr() == ("", "")
    pyflow.GIS(train, validate, max_layers=2)
    out, err = capfd.readouterr()
    assert out == ""
    assert "GIS" in err
    assert "validation" in err


def test_a_plain_line_without_tqdm(train, capfd, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # importing it now fails
    pyflow.GIS(train, max_layers=2)
    err = capfd.readouterr().err
    assert re.fullmatch(r"GIS: layer 5/5, \d+ s, log p -?\d+\.\d+, best at 5\n", err)


# ---- tensors -------------------------------------------------------------------------------------


class Tensor:
    """What pyflow can see of a PyTorch tensor that is on a graph and on a device."""

    def __init__(self, x, attached=True):
        self.x, self.attached, self.shape, self.dtype = x, attached, x.shape, "torch.float32"

    def detach(self):
        return Tensor(self.x, attached=False)

    def cpu(self):
        return self

    def numpy(self):
        if self.attached:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self.x

    def __array__(self, dtype=None, copy=None):
        return self.numpy()


def test_tensors_are_taken_off_their_graph(train, validate):
    as_tensor, x = Tensor(train.astype(np.float32)), train.astype(np.float32)
    weight = np.linspace(1, 2, len(train)).astype(np.float32)
    flow = fit(as_tensor, Tensor(validate), weight_train=Tensor(weight), max_layers=1)
    assert same(flow, fit(x, validate, weight_train=weight, max_layers=1))
    assert_array_equal(flow.evaluate_density(as_tensor), flow.evaluate_density(x))


# ---- errors --------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(100, 2))


def with_value(value, i=3, j=1):
    x = X.copy()
    x[i, j] = value
    return x


WRONG = {
    "no end": ({"max_layers": None}, ValueError, "data_validate, max_layers: give"),
    "one-dimensional": (
        {"data_train": X[:, 0]},
        ValueError,
        r"data_train: .*two-dimensional.*\(100,\)",
    ),
    "five-dimensional": (
        {"data_train": np.zeros((9, 2, 2, 2, 2))},
        ValueError,
        "data_train: must have shape",
    ),
    "a number": ({"data_train": 3.0}, ValueError, "data_train: .*two-dimensional"),
    "nothing": ({"data_train": None}, ValueError, "data_train: "),
    "no rows": ({"data_train": X[:0]}, ValueError, "data_train: there are no rows"),
    "one row": ({"data_train": X[:1]}, ValueError, "data_train: "),
    "no columns": ({"data_train": X[:, :0]}, ValueError, "data_train: has no columns"),
    "NaN": ({"data_train": with_value(np.nan)}, ValueError, "data_train: row 3, column 1 is NaN"),
    "infinite": (
        {"data_train": with_value(-np.inf)},
        ValueError,
        "data_train: row 3, column 1 is infinite",
    ),
    "constant": ({"data_train": X * [1, 0]}, ValueError, "data_train: column 1 .*"),
    "masked": (
        {"data_train": np.ma.masked_less(X, -1)},
        ValueError,
        "data_train: has masked values",
    ),
    "complex": (
        {"data_train": X + 0j},
        ValueError,
        "data_train: must hold real numbers.*complex128",
    ),
    "objects": (
        {"data_train": np.full(X.shape, {})},
        ValueError,
        "data_train: ",
    ),
    "strings": ({"data_train": X.astype(str)}, ValueError, "data_train: must hold real numbers"),
    "dates": ({"data_train": X.astype("M8[s]")}, ValueError, "data_train: must hold real numbers"),
    "ragged": ({"data_train": [[1, 2], [3]]}, ValueError, "data_train: cannot be made an array"),
    "validation width": (
        {"data_validate": X[:, :1]},
        ValueError,
        "data_validate: has 1 columns where .* has 2",
    ),
    "validation ndim": ({"data_validate": X[0]}, ValueError, "data_validate: is a single point"),
    "validation empty": ({"data_validate": X[:0]}, ValueError, "data_validate: there are no rows"),
    "validation NaN": (
        {"data_validate": with_value(np.nan)},
        ValueError,
        "data_validate: row 3, column 1 is NaN",
    ),
    "weights negative": ({"weight_train": -np.ones(100)}, ValueError, "weight_train: row 0 is -1"),
    "weights NaN": (
        {"weight_train": with_value(np.nan)[:, 1] ** 2},
        ValueError,
        "weight_train: row 3 is nan",
    ),
    "weights zero": (
        {"weight_train": np.zeros(100)},
        ValueError,
        "weight_train: all weights are zero",
    ),
    "weights short": (
        {"weight_train": np.ones(99)},
        ValueError,
        r"weight_train: must have shape \(100,\).*\(99,\)",
    ),
    "weights wide": (
        {"weight_train": np.ones((100, 1))},
        ValueError,
        "weight_train: must have shape",
    ),
    "weights of nothing": (
        {"weight_validate": np.ones(100)},
        ValueError,
        "weight_validate: given without data_validate",
    ),
    "labels of nothing": (
        {"labels_validate": np.ones(100)},
        ValueError,
        "labels_validate: given without",
    ),
    "bounds short": ({"bounds": [(None, None)]}, ValueError, r"bounds: must have shape \(2, 2\)"),
    "bounds flat": ({"bounds": [0, 1]}, ValueError, "bounds: must be a pair"),
    "bounds triple": ({"bounds": [(0, 1, 2), (0, 1, 2)]}, ValueError, "bounds: must be a pair"),
    "bounds order": ({"bounds": [(-9, 9), (9, -9)]}, ValueError, "bounds: of column 1"),
    "bounds NaN": ({"bounds": [(-9, 9), (np.nan, 9)]}, ValueError, "bounds: of column 1"),
    "bounds left": (
        {"bounds": [(-9, 9), (0, None)]},
        ValueError,
        "data_train: row .*, column 1 is .*outside the bounds",
    ),
    "n_slices many": ({"n_slices": 3}, ValueError, "n_slices: 3 is not between 1 and .*2"),
    "n_slices none": ({"n_slices": 0}, ValueError, "n_slices: must be at least 1, not 0"),
    "n_slices real": ({"n_slices": 1.5}, TypeError, "n_slices: must be an integer, not 1.5"),
    "n_knots few": ({"n_knots": 1}, ValueError, "n_knots: must be between 3 and 1024, not 1"),
    "n_knots many": (
        {"n_knots": 10**7},
        ValueError,
        "n_knots: must be between 3 and 1024, not 10000000",
    ),
    "n_knots huge": ({"n_knots": 10**30}, (ValueError, OverflowError), "."),
    "max_layers": ({"max_layers": 0}, ValueError, "max_layers: must be at least 1"),
    "patience": ({"patience": 0}, ValueError, "patience: must be at least 1"),
    "min_improvement": (
        {"min_improvement": -1},
        ValueError,
        "min_improvement: must be at least 0, not -1",
    ),
    "bandwidth": (
        {"bandwidth_factor": 0},
        ValueError,
        "bandwidth_factor: must be between 0.001 and 1000, not 0",
    ),
    "bandwidth vast": (
        {"bandwidth_factor": 1e300},
        ValueError,
        "bandwidth_factor: must be between .* not 1e.300",
    ),
    "bandwidth NaN": ({"bandwidth_factor": np.nan}, ValueError, "bandwidth_factor: must be finite"),
    "bandwidth text": ({"bandwidth_factor": "1"}, TypeError, "bandwidth_factor: must be a number"),
    "alpha above": ({"alpha": (1.5, 0)}, ValueError, "alpha: "),
    "alpha below": (
        {"alpha": (0, -0.1)},
        ValueError,
        "alpha: must be at least 0 and less than 1, not -0.1",
    ),
    "alpha NaN": ({"alpha": (0, np.nan)}, ValueError, "alpha: must be finite"),
    "alpha one": ({"alpha": 0.5}, ValueError, "alpha: must be two numbers"),
    "alpha three": ({"alpha": (0.5, 0.5, 0.5)}, ValueError, "alpha: must be two numbers"),
    "edge_knots": ({"edge_knots": -1}, ValueError, "edge_knots: must be at least 0"),
    "slice_points": ({"slice_points": 0}, ValueError, "slice_points: must be at least 1"),
    "slice_steps": ({"slice_steps": -1}, ValueError, "slice_steps: must be at least 0"),
    "kde": ({"kde": "no"}, TypeError, "kde: must be True or False"),
    "verbose": ({"verbose": "no"}, TypeError, "verbose: must be True or False"),
    "seed negative": ({"seed": -1}, ValueError, "seed: must be between"),
    "seed huge": ({"seed": 2**64}, ValueError, "seed: must be between"),
    "seed real": ({"seed": 0.5}, TypeError, "seed: must be an integer"),
    "model": ({"model": "model"}, TypeError, "model: must be a pyflow.Flow"),
    "progress": ({"progress": 3}, TypeError, "progress: must be callable"),
    "unknown": ({"n_slice": 3}, TypeError, "GIS.. .*'n_slice'"),
    "scratch": ({"scratch": "/nonexistent/folder"}, OSError, "scratch: "),
    "checkpoint": ({"checkpoint": "/nonexistent/folder/file"}, OSError, "/nonexistent/folder/file"),
}


@pytest.mark.parametrize(("options", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(options, error, message):
    options = {"data_train": X, "max_layers": 1, "verbose": False, **options}
    with pytest.raises(error, match=f"^{message}" if error is not OSError else message):
        pyflow.GIS(**options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_perfectly_correlated_columns_work_or_are_refused(dtype):
    x = np.stack([X[:, 0], 2 * X[:, 0], X[:, 1]], axis=1).astype(dtype)
    try:
        model = fit(x, max_layers=2)
    except ValueError as error:
        assert "dependent" in str(error)  # noqa: PT017
    else:
        samples, logp = model.sample(100, seed=0)
        assert np.isfinite(samples).all()
        assert np.isfinite(logp).all()
        assert np.isfinite(model.evaluate_density(x)).all()


def test_a_model_of_other_columns(model):
    with pytest.raises(ValueError, match=r"^model: it has 3 columns"):
        fit(X, max_layers=1, model=model)


def test_going_on_with_or_without_labels(model, labelled, train):
    with pytest.raises(ValueError, match=r"^labels: the flow to go on from has classes"):
        fit(train, max_layers=6, model=labelled)
    with pytest.raises(ValueError, match=r"^labels: the flow .* has no classes"):
        fit(train, max_layers=6, model=model, labels=np.arange(len(train)) % 2)


WRONG_POINTS = {
    "width": (X, r"x: has 2 columns where the flow has 3"),
    "width of a point": (
        X[0],
        r"x: must have shape \(n, 3\), or \(3,\) for a single point; .*\(2,\)",
    ),
    "three-dimensional": (np.zeros((1, 1, 3)), r"x: must have shape \(n, 3\)"),
    "a number": (1.0, r"x: must have shape"),
    "NaN": ([[0, 0, 0], [0, np.nan, 0]], "x: row 1, column 1 is NaN"),
    "infinite": ([np.inf, 0, 0], "x: row 0, column 0 is infinite"),
    "complex": (np.zeros((2, 3), complex), "x: must hold real numbers"),
    "strings": ([["a", "b", "c"]], "x: must hold real numbers"),
    "None": (None, "x: "),
}


@pytest.mark.parametrize(("x", "message"), WRONG_POINTS.values(), ids=WRONG_POINTS)
@pytest.mark.parametrize("method", METHODS)
def test_wrong_points_are_named(model, method, x, message):
    if method == "inverse":
        message = "z" + message[1:]
    with pytest.raises(ValueError, match=f"^{message}"):
        getattr(model, method)(x)


@pytest.mark.parametrize("n", [-1, 1.5, "3", None])
def test_wrong_sizes_of_samples(model, n):
    with pytest.raises((ValueError, TypeError), match=r"^n: must be"):
        model.sample(n)


def test_too_large_samples(model):
    with pytest.raises((MemoryError, ValueError)):
        model.sample(2**62)


# ---- the extension module ------------------------------------------------------------------------


def test_defaults_are_those_of_the_documentation():
    defaults = _core.options("gis")
    own = inspect.signature(pyflow.GIS).parameters
    assert set(defaults) <= set(own)
    assert all(own[name].default is None for name in set(defaults) - {"seed"})
    text = " ".join(pyflow.GIS.__doc__.split())
    for name, words in {
        "patience": "Default {}.",
        "min_improvement": "Default {:g}.",
        "kde": "Default {}.",
        "bandwidth_factor": "Default {:g}.",
        "whiten": "Default {}.",
        "checkpoint_seconds": "(default {:g})",
    }.items():
        start = text.index(f"`{name}`" if name.startswith("check") else f" {name} : ")
        assert words.format(defaults[name]) in text[start : start + 300], name


def test_stubs_are_complete():
    tree = ast.parse(Path(_core.__file__).with_name("_core.pyi").read_text())
    kinds = ast.ClassDef, ast.FunctionDef
    stub = {node.name: node for node in tree.body if isinstance(node, kinds)}
    public = {name for name in dir(_core) if not name.startswith("_")}
    assert set(stub) == public
    members = {node.name for node in stub["Flow"].body}
    assert members - {"__copy__", "__deepcopy__"} == {
        name for name in vars(_core.Flow) if not name.startswith("_")
    }
    flow = pyflow.GIS(X, max_layers=1, verbose=False)._core
    common = {"data_train": X, "epochs": 0, "max_layers": 1, "box": (1.0,), "flow": flow}
    for name in ("gis_fit", "sig_fit", "symmetric_fit", "train"):
        known = {argument.arg for argument in stub[name].args.kwonlyargs}
        given = {k: v for k, v in common.items() if k in known}
        for argument in known - set(given):
            # A keyword that the fit does not know makes it say so.
            with pytest.raises((TypeError, ValueError, KeyError)) as error:
                getattr(_core, name)(**given, **{argument: object(), "no_such_option": 1})
            assert f"option {argument!r}" not in str(error.value), argument
