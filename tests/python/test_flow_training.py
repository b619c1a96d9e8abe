"""Training of any stack: known densities, resumption, options, constraints."""

import functools

import numpy as np
import pytest
from conftest import banana
from flows import BOX, MESH, fields, gis, parameters, side, stack, symmetric
from numpy.testing import assert_allclose, assert_array_equal

import pyflow
from pyflow import _core
from pyflow.layers import Affine, Bounds, Sliced, Symmetric

Y = parameters(120, 2)
X = fields(120, 1, Y[:, 0])
V, VY = fields(60, 7, parameters(60, 8)[:, 0]), parameters(60, 8)


LOGP = ("logp_train", "logp_validate")


class Stop(Exception):
    pass


def train(flow, x=X, **options):
    return flow.train(x, **{"epochs": 3, "learning_rate": 4e-3, "verbose": False} | options)


def plain(flow):
    """A flow's bytes without its note and what it was told of its fit."""
    return flow._core.with_note("").to_bytes()


def stop_after(reports):
    left = iter(range(reports - 1))

    def stop(p):
        if next(left, None) is None:
            raise Stop

    return stop


# ---- a known density -----------------------------------------------------------------------------


def power(k):
    return 2 / (1 + k**2)


@pytest.fixture(scope="module")
def gaussian():
    """Fields of a known density, training, validation and test, and log p of the last."""
    x = pyflow.fields.gaussian_field(power, MESH, 9000, box_size=BOX, seed=1)
    exact = pyflow.fields.gaussian_logp(x[8000:], power, box_size=BOX)
    return x[:6000], x[6000:8000], x[8000:], exact


def four_kinds(x, dtype, labels=None):
    """Whitening of the wrong scale, three sliced layers, a symmetric one."""
    whitening = Affine.whitening(x)
    layers = [Affine(0.7 * whitening.matrix, whitening.mean), *3 * [Sliced(4, 6)], Symmetric(4, 8)]
    return pyflow.Flow(layers, shape=MESH, box_size=BOX, labels=labels, dtype=dtype, seed=1)


# A whitening of 48 numbers from 6000 fields is 48 * 49 / 4 / 6000 = 0.1 nats short of the truth.
SHORT = 0.4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_composed_flow_reaches_a_known_density(gaussian, dtype):
    x, validate, test, exact = gaussian
    flow = four_kinds(x, dtype)
    before = (exact - flow.evaluate_density(test)).mean()
    flow = train(flow, x, data_validate=validate, batch=200, epochs=8, learning_rate=3e-3)
    lost = (exact - flow.evaluate_density(test)).mean()
    assert before > 3
    assert -0.1 < lost < SHORT
    z, _ = flow.forward(test)
    assert abs(z.std() - 1) < 0.02


def test_a_composed_flow_with_noise_is_that_of_noisy_fields(gaussian):
    x, validate, test, _ = gaussian
    noise = 0.8
    rng = np.random.default_rng(5)
    flow = four_kinds(x + noise * rng.normal(size=x.shape), np.float64)
    known = {"data_validate": validate, "batch": 200, "epochs": 8, "learning_rate": 3e-3}
    flow = train(flow, x, noise=noise, **known)
    noisy = test + noise * rng.normal(size=test.shape)
    volume = np.prod(BOX) / np.prod(MESH)
    exact = pyflow.fields.gaussian_logp(noisy, lambda k: power(k) + noise**2 * volume, box_size=BOX)
    assert -0.1 < (exact - flow.evaluate_density(noisy)).mean() < SHORT


def test_a_composed_flow_learns_classes(gaussian):
    """Two classes that differ in their scale: the splines of each know it."""
    x, validate, test, exact = gaussian
    scale = {"low": 0.8, "high": 1.25}
    names = np.array(list(scale))
    of = [names[np.arange(len(a)) % 2] for a in (x, validate, test)]
    factor = [np.array([scale[c] for c in label])[:, None, None] for label in of]
    layers = [Affine.whitening(x), Sliced(0, 4), Symmetric(4, 8)]
    flow = pyflow.Flow(layers, shape=MESH, box_size=BOX, labels=names)
    flow = train(
        flow,
        x * factor[0],
        data_validate=validate * factor[1],
        labels=of[0],
        labels_validate=of[1],
        batch=200,
        epochs=10,
        learning_rate=1e-2,
    )
    exact = exact - X[0].size * np.log(factor[2].ravel())
    right = flow.evaluate_density(test * factor[2], of[2])
    wrong = flow.evaluate_density(test * factor[2], of[2][::-1])
    assert -0.1 < (exact - right).mean() < 1.5
    assert right.mean() > wrong.mean() + 3


def test_a_composed_flow_learns_parameters():
    """P(k) = y power(k): the network on the symmetric layer knows y, whatever stands before it."""
    y = np.random.default_rng(2).uniform(0.5, 2, 4000)
    x = pyflow.fields.gaussian_field(
        lambda k: y[:, None, None] * power(k), MESH, 4000, box_size=BOX, seed=3
    )
    exact = pyflow.fields.gaussian_logp(
        x[3000:], lambda k: y[3000:, None, None] * power(k), box_size=BOX
    )
    flow = four_kinds(x[:2500], np.float32)
    flow = train(
        flow,
        x[:2500],
        data_validate=x[2500:3000],
        y_train=y[:2500],
        y_validate=y[2500:3000],
        hidden=(32,),
        batch=50,
        epochs=20,
        learning_rate=5e-3,
    )
    lost = (exact - flow.evaluate_density(x[3000:], y[3000:])).mean()
    assert -0.2 < lost < 1
    shuffled = flow.evaluate_density(x[3000:], y[3000:][::-1])
    assert (flow.evaluate_density(x[3000:], y[3000:]) - shuffled).mean() > 3


def test_weights_are_multiplicities(gaussian):
    """A point of weight 2 is two points, when all points are one batch; of weight 0 it is none."""
    x = gaussian[0][:90]
    weight = np.arange(90) % 3.0
    many = np.concatenate([x[weight >= w] for w in (1, 2)])
    known = {"epochs": 4, "batch": 1000, "clip": 0}
    a = train(four_kinds(gaussian[0], np.float64), x, weight_train=weight, **known)
    b = train(four_kinds(gaussian[0], np.float64), many, **known)
    assert_allclose(a.history["logp_train"], b.history["logp_train"], rtol=1e-9)
    assert_allclose(a.evaluate_density(x), b.evaluate_density(x), rtol=1e-6)
    validate = gaussian[1][:90]
    known |= {"data_validate": validate, "weight_validate": weight}
    weighted = train(four_kinds(gaussian[0], np.float64), x, **known)
    logp = weighted.evaluate_density(validate)
    mean = (weight * logp).sum() / weight.sum() / X[0].size
    assert_allclose(weighted.history["logp_validate"].max(), mean, rtol=1e-9)


@pytest.mark.parametrize("batch", [1, 4])
def test_weights_count_in_small_batches(batch):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-1, 0.5, (300, 1)), rng.normal(1, 0.5, (300, 1))])
    weight = np.repeat([30.0, 1], 300)
    known = {"epochs": 30, "batch": batch, "learning_rate": 0.01, "verbose": False}
    flow = pyflow.Flow([Affine()], shape=1).train(x, weight_train=weight, **known)
    mean = flow.inverse([[0.0]])[0][0, 0]
    assert abs(mean - np.average(x, weights=weight, axis=0)[0]) < 0.1


def test_bounds_hold_in_training():
    x = np.random.default_rng(0).uniform(size=(50, 1))
    flow = pyflow.Flow([Bounds([(0, 1)]), Sliced(n_knots=8)], shape=1)
    assert np.isfinite(train(flow, x).evaluate_density(x)).all()
    x[7] = 5
    with pytest.raises(ValueError, match="^data_train: row 7, column 0 is 5, outside the bounds"):
        train(flow, x)
    with pytest.raises(ValueError, match="^noise: would take data out of the flow's bounds"):
        train(flow, x[:7], noise=0.1)


def test_the_range_of_y_grows_with_what_is_trained_on():
    flow = train(start("", np.float64), y_train=Y, hidden=(8,))
    more = train(flow, y_train=3 * Y)
    assert more.y_range[0][1] == 3 * Y.max() > flow.y_range[0][1]


# ---- the same bits -------------------------------------------------------------------------------

WAYS = {
    "alone": {},
    "validated": {"data_validate": V},
    "patience": {"data_validate": V, "patience": 2, "epochs": 30, "learning_rate": 0.02},
    "clip": {"clip": 0.5},
    "noise": {"noise": 0.3},
    "a range of noise": {"noise": (0.1, 0.5), "data_validate": V},
    "coloured noise": {"noise": lambda k: 0.1 / (1 + k)},
    "weights": {"weight_train": np.linspace(0, 1, 120)},
    "labels": {"labels": side(X), "data_validate": V, "labels_validate": side(V)},
    "parameters": {"y_train": Y, "hidden": (8,)},
    "noise as a condition": {
        "y_train": Y,
        "hidden": (8, 8),
        "noise": (0.1, 0.5),
        "noise_condition": True,
    },
    "parameters and noise, validated": {
        "y_train": Y,
        "data_validate": V,
        "y_validate": np.clip(VY, Y.min(0), Y.max(0)),
        "hidden": 8,
        "noise": (0.1, 0.5),
        "noise_condition": True,
    },
    "noise alone as a condition": {"hidden": 8, "noise": (0.1, 0.5), "noise_condition": True},
    "posterior": {
        "y_train": Y,
        "data_validate": V,
        "y_validate": np.clip(VY, Y.min(axis=0), Y.max(axis=0)),
        "hidden": (8,),
        "objective": 0.5,
        "posterior_epochs": 2,
        "posterior_draws": 20,
    },
    "frozen": {"frozen": [True, False, True, False, False, False, True, False]},
    "one at a time": {"batch": 1},
    "an odd batch": {"batch": 37},
    "all at once": {"batch": 1000},
}


@functools.cache
def start(way, dtype):
    return stack(X, dtype, side(X) if way == "labels" else None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("way", WAYS)
def test_threads_do_not_matter(way, dtype):
    flows = []
    try:
        for threads in (1, 2, 3):
            pyflow.set_num_threads(threads)
            flows.append(train(start(way, dtype), **WAYS[way]))
    finally:
        pyflow.set_num_threads(None)
    assert flows[0] == flows[1] == flows[2]
    assert plain(flows[0]) != plain(start(way, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_training_goes_on(tmp_path, way, dtype):
    path, seen, options = tmp_path / "checkpoint", [], WAYS[way]
    flow = start(way, dtype)
    whole = train(flow, progress=seen.append, **options)
    for reports in {1, 2, len(seen) // 2 + 1, len(seen) - 1, len(seen)}:
        for seconds in (0, 1e9):
            with pytest.raises(Stop) as caught:
                train(
                    flow,
                    checkpoint=path,
                    checkpoint_seconds=seconds,
                    progress=stop_after(reports),
                    **options,
                )
            left = pyflow.load(path)
            assert left.unfinished
            assert caught.value.flow == left
            assert len(left.history["epoch"]) == seen[reports - 1].step
            again = []
            assert train(flow, checkpoint=path, progress=again.append, **options) == whole
            assert [str(p._replace(seconds=0)) for p in again] == [
                str(p._replace(seconds=0)) for p in seen[reports:]
            ]
            assert pyflow.load(path) == whole
            assert not whole.unfinished
            assert train(flow, checkpoint=path, progress=lambda p: 1 / 0, **options) == whole
            path.unlink()


@pytest.mark.parametrize("way", WAYS)
def test_history_is_what_progress_said(way):
    seen, options = [], WAYS[way]
    flow = train(start(way, np.float64), progress=seen.append, **options)
    posterior = options.get("posterior_epochs", 0)
    steps = [p for a, p in zip([None, *seen], seen, strict=False) if a and p.step == a.step + 1]
    assert seen[0].step == 0
    assert [p.step for p in steps] == list(range(1, seen[-1].step + 1))
    assert len(seen) == len(steps) + 1 + (posterior > 0)
    history = flow.history
    assert_array_equal(history["epoch"], [p.step for p in steps])
    for name in ("logp_train", "logp_validate", "distance"):
        assert_array_equal(history[name], [getattr(p, name) for p in steps])
    assert np.isnan(history["distance"]).all()
    assert np.isnan(seen[0].logp_train)
    for p in seen:
        assert p.stage == "epoch"
        assert p.best <= p.step
    if "data_validate" in options and "noise" not in options:
        best = max(seen[-posterior - 1 :] if posterior else seen, key=lambda p: p.objective)
        y = options.get("y_validate", options.get("labels_validate"))
        assert_allclose(flow.evaluate_density(V, y).mean() / V[0].size, best.logp_validate)


# ---- every option counts -------------------------------------------------------------------------

TUNED = {
    "y_train": Y,
    "hidden": (8,),
    "objective": 0.5,
    "posterior_epochs": 2,
    "posterior_draws": 20,
}
OTHER = {
    "epochs": ({}, 4),
    "batch": ({}, 7),
    "learning_rate": ({}, 1e-3),
    "warmup": ({}, 0.5),
    "clip": ({}, 0.3),
    "seed": ({}, 1),
    "noise": ({}, 0.1),
    "weight_train": ({}, np.linspace(0, 1, 120)),
    "frozen": ({}, [False, True] + 6 * [False]),
    "patience": ({"data_validate": V, "epochs": 30, "learning_rate": 0.02}, 1),
    "hidden": ({"y_train": Y}, (9,)),
    "weight_decay": ({"y_train": Y, "hidden": (8,)}, 0.5),
    "noise_condition": ({"y_train": Y, "hidden": (8,), "noise": (0.1, 0.2)}, True),
    "objective": (TUNED, 0.9),
    "posterior_epochs": (TUNED, 3),
    "posterior_rate": (TUNED, 1e-3),
    "posterior_draws": (TUNED, 300),
}


@pytest.mark.parametrize("name", OTHER)
def test_every_option_of_training_counts(name):
    base, value = OTHER[name]
    flow = start("", np.float64)
    first, again = (train(flow, **base) for _ in range(2))
    assert first == again
    assert plain(train(flow, **base | {name: value})) != plain(first)


def test_these_are_all_options_of_training():
    known = set(_core.options("train")) - {"checkpoint_seconds", "posterior_weight"}
    assert known <= set(OTHER)


SYMMETRIC = {
    "n_layers": 1,
    "psi_knots": 5,
    "filter_knots": 7,
    "start_fields": 20,
    **{k: OTHER[k][1] for k in ("epochs", "batch", "learning_rate", "warmup", "clip", "seed")},
    **{k: OTHER[k][1] for k in ("hidden", "weight_decay", "noise")},
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_every_option_of_symmetric_flows_counts(name):
    base = plain(symmetric(np.float64, True))
    assert plain(symmetric(np.float64, True)) == base
    assert plain(symmetric(np.float64, True, **{name: SYMMETRIC[name]})) != base


GIS = {
    "n_slices": 2,
    "n_knots": 30,
    "kde": False,
    "bandwidth_factor": 1.5,
    "alpha": (0.5, 0.5),
    "edge_knots": 5,
    "slice_points": 100,
    "slice_steps": 0,
    "marginal_first": False,
    "whiten": False,
    "bounds": [(None, None), (None, None), (0, None)],
    "weight_train": np.linspace(0, 1, 400),
    "labels": np.arange(400) % 2,
    "seed": 1,
}


@pytest.mark.parametrize("name", GIS)
def test_every_option_of_gis_counts(name):
    base = plain(gis(np.float64))
    assert plain(gis(np.float64)) == base
    assert plain(gis(np.float64, **{name: GIS[name]})) != base


def test_these_are_all_options_of_gis():
    stop = {"max_layers", "patience", "min_improvement", "checkpoint_seconds"}
    assert set(_core.options("gis")) - stop <= set(GIS)
    x, validate = banana(400, seed=1), banana(200, seed=2)
    lengths = [
        len(pyflow.GIS(x, validate, n_models=1, verbose=False, **more).history["epoch"])
        for more in ({}, {"max_layers": 1}, {"min_improvement": 0.1})
    ]
    assert lengths[1] < lengths[0]
    assert lengths[2] < lengths[0]


# ---- learning rate 0 -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:data_validate. no epoch")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_moves_at_learning_rate_0(dtype):
    flow = start("", dtype)

    def said(**more):
        """What progress says, from the start on, as a history."""
        steps = []
        known = {"learning_rate": 0, "epochs": 4, "data_validate": V, "progress": steps.append}
        trained = train(flow, **known | more)
        return trained, {k: np.array([getattr(p, k) for p in steps[1:]]) for k in LOGP}

    trained, history = said()
    assert_allclose(trained.evaluate_density(V), flow.evaluate_density(V), rtol=1e-6, atol=1e-5)
    for name, x in zip(LOGP, (X, V), strict=True):
        expected = flow.evaluate_density(x).mean() / X[0].size
        assert_allclose(history[name], expected, rtol=1e-6)
    for more in ({"noise": 0.5}, {"noise": (0.2, 0.5)}, {"noise": lambda k: 1 / (1 + k)}):
        _, noisy = said(**more)
        assert len(set(noisy["logp_train"])) == 4  # other noise in every epoch
        assert np.ptp(noisy["logp_validate"]) < 1e-12  # the same, but for the slices' rounding
    with_y = {"y_train": Y, "hidden": (8,), "learning_rate": 0, "epochs": 4}
    conditional = train(flow, **with_y)
    assert_allclose(conditional.history["logp_train"], history["logp_train"], rtol=1e-5)


# ---- constraints ---------------------------------------------------------------------------------


def test_slices_stay_orthonormal():
    """Over 10,000 steps, with which rounding errors that are not mended grow."""
    x = np.random.default_rng(0).gamma(2, size=(20, 4))
    known = {"epochs": 500, "batch": 1, "learning_rate": 0.02, "verbose": False}
    flow = pyflow.Flow([Sliced(3, 4), Sliced(4, 3), Sliced(1, 4)], shape=4)
    trained = flow.train(x, **known)
    for layer, k in enumerate((3, 4, 1)):
        a, before = (f._core.parameters(layer)[-4 * k :].reshape(k, 4) for f in (trained, flow))
        assert_allclose(a @ a.T, np.eye(k), atol=1e-12)
        assert np.abs(a - before).max() > 1e-2
    assert trained.evaluate_density(x).mean() > flow.evaluate_density(x).mean()


def test_what_gains_nothing_changes_nothing():
    flow = pyflow.GIS(X.reshape(len(X), -1)[:, :3], max_layers=2, verbose=False)
    x = X.reshape(len(X), -1)[:, :3]
    with pytest.warns(UserWarning, match="^data_validate: no epoch gained anything on it"):
        trained = train(flow, x, data_validate=x, learning_rate=100)
    assert_array_equal(trained.evaluate_density(x), flow.evaluate_density(x))
    assert_array_equal(trained.history["logp_train"], flow.history["logp_train"])


@pytest.mark.filterwarnings("ignore:data_validate. no epoch")
@pytest.mark.parametrize("rate", [1e-3, 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_a_gis_flow_never_ends_below_its_start(dtype, rate):
    x, validate = (banana(n, seed=seed).astype(dtype) for seed, n in ((1, 400), (2, 300)))
    flow = pyflow.GIS(x, validate, n_models=1, verbose=False)
    trained = flow.train(x, validate, epochs=5, batch=50, learning_rate=rate, verbose=False)
    before, after = (f.evaluate_density(validate).mean() for f in (flow, trained))
    assert after >= before - 1e-6 * abs(before)
    assert len(trained.history["epoch"]) == len(flow.history["epoch"]) + 5 * (after > before)
    assert trained.layers == flow.layers
    assert trained.evaluate_density(x[:1] + 1e3) > -np.inf


def test_a_gis_flow_gains_by_training():
    x, validate, test = (banana(n, seed=s) for s, n in ((1, 3000), (2, 1000), (3, 3000)))
    flow = pyflow.GIS(x, max_layers=2, verbose=False)
    trained = flow.train(x, validate, epochs=10, batch=100, learning_rate=2e-3, verbose=False)
    gain = trained.evaluate_density(test).mean() - flow.evaluate_density(test).mean()
    assert gain > 0.02


@pytest.mark.parametrize("conditional", [False, True])
def test_frozen_layers_stay(conditional):
    flow = start("", np.float64)
    given = {"y_train": Y, "hidden": (8,)} if conditional else {}
    for frozen in ([True] * 4 + [False] * 4, [False] * 4 + [True] * 4, [True, False] * 4):
        trained = train(flow, frozen=frozen, learning_rate=0.05, **given)
        for layer, stays in enumerate(frozen):
            a, b = (f._core.parameters(layer) for f in (flow, trained))
            if len(a):
                assert np.array_equal(a, b) == stays, layer
    # nor does the network change what is frozen: layer 4 and 6 are those that it serves
    if conditional:
        trained = train(flow, frozen=[False] * 6 + [True, False], learning_rate=0.05, **given)
        upto = [trained[:k].forward(X, Y)[0] for k in (6, 7)]
        alone = flow[:7].forward(flow[:6].inverse(upto[0])[0])[0]
        assert_allclose(upto[1], alone, atol=1e-9)
        again = train(trained, frozen=[True] * 8, learning_rate=0.05, y_train=Y)
        assert_array_equal(again.evaluate_density(X, Y), trained.evaluate_density(X, Y))
        with pytest.raises(ValueError, match="frozen: the layers that a network conditions"):
            train(trained, frozen=[False] * 6 + [True, False], y_train=Y)


def test_a_calibrated_flow_that_is_trained_is_not_calibrated():
    flow = train(start("", np.float64), y_train=Y, hidden=(8,)).calibrate(X, Y)
    assert flow.temperature != 1
    trained = train(flow, y_train=Y)
    assert trained.temperature == 1
    assert trained.calibration is None
    part = flow[:-1]
    assert part.temperature == 1
    assert part.calibration is None
