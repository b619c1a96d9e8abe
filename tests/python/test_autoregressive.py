"""Flows of autoregressive layers: who depends on whom, derivatives, files, training, bad input."""

import functools
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow
from pyflow import _core
from pyflow.layers import Affine, Autoregressive, Bounds, Scale, Sliced, Symmetric

F32, F64 = np.float32, np.float64
BOTH = pytest.mark.parametrize("dtype", [F32, F64])


def data(n, seed, d=3):
    """Return x and y: a banana whose place, width and bend depend on y."""
    rng = np.random.default_rng(seed)
    y = rng.uniform([-1, -6], [3, 2], size=(n, 2))
    y[:2] = [-1, -6], [3, 2]  # all data have the same range
    z = rng.normal(size=(n, d))
    x = z + y[:, :1]
    x[:, 1:] = 0.5 * z[:, 1:] * np.exp(0.1 * y[:, 1:]) + 0.3 * x[:, :1] ** 2
    return x, y


X, Y = data(400, 1)
TEST, TEST_Y = data(50, 2)

# the layers, by whether they look at y
RANKS = {
    "autoregressive": [(0, 1, 2), (2, 0, 1)],
    "two ranks": [(0, 1, 0), (1, 0, 1)],
    "one rank": [(0, 0, 0), (0, 0, 0)],
}
KINDS = [(name, given) for name in RANKS for given in (False, True) if given or name != "one rank"]
EVERY = pytest.mark.parametrize(
    ("ranks", "given"), KINDS, ids=[f"{name}{', y' * given}" for name, given in KINDS]
)


@functools.cache
def flow_of(ranks, given, dtype=F64):
    """Return a flow that was trained a little, so that its networks say something."""
    y = Y if given else None
    layers = [Autoregressive(r, (7, 6), 4, y) for r in RANKS[ranks]]
    flow = pyflow.Flow([Scale(1, 2), *layers], shape=3, dtype=dtype, seed=4)
    return train(flow, y_train=y, epochs=5, learning_rate=0.02)


def train(flow, x=X, **options):
    how = {"epochs": 3, "batch": 100, "learning_rate": 0.01, "verbose": False}
    return flow.train(x.astype(flow.dtype), **how | options)


def conditions(given, y=TEST_Y):
    return (y,) if given else ()


def jacobian(f, x, h=1e-6):
    """Return df_i/dx_j, [n][i][j], by central differences."""
    step = h * np.eye(x.shape[1])
    return np.stack([(f(x + s) - f(x - s)) / (2 * h) for s in step], axis=-1)


# ---- what a flow says ----------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [(0, 1, 2), (2, 0, 1), (1, 0, 1), (0, 0, 0)])
def test_columns_depend_on_those_of_lower_rank_and_on_the_conditions(ranks):
    layer = Autoregressive(ranks, (9, 8), 4, Y)
    flow = train(pyflow.Flow([layer], shape=3), y_train=Y, epochs=5, learning_rate=0.02)
    of_x = jacobian(lambda x: flow.forward(x, TEST_Y)[0], TEST)
    of_y = jacobian(lambda y: flow.forward(TEST, y)[0], TEST_Y)
    back, _ = flow.inverse(TEST, TEST_Y)
    of_z = jacobian(lambda z: flow.inverse(z, TEST_Y)[0], TEST)
    hears = np.array([[i == j or ranks[i] < ranks[j] for i in range(3)] for j in range(3)])
    for of in (of_x, of_z):
        assert_array_equal(of[:, ~hears], 0)
        assert (np.abs(of[:, hears]).max(axis=0) > 1e-3).all()
    assert (np.abs(of_y).max(axis=0) > 1e-3).all()
    assert_allclose(flow.forward(back, TEST_Y)[0], TEST, atol=1e-9)


@EVERY
def test_densities_are_those_of_the_jacobian_and_inverses_undo(ranks, given):
    flow, y = flow_of(ranks, given), conditions(given)
    z, logj = flow.forward(TEST, *y)
    _, expected = np.linalg.slogdet(jacobian(lambda x: flow.forward(x, *y)[0], TEST))
    assert_allclose(logj, expected, atol=1e-5)
    normal = -0.5 * np.sum(z**2 + np.log(2 * np.pi), axis=1)
    assert_allclose(flow.evaluate_density(TEST, *y), normal + logj, rtol=1e-12)
    back, minus_logj = flow.inverse(z, *y)
    assert_allclose(back, TEST, atol=1e-8)
    assert_allclose(minus_logj, -logj, atol=1e-7)


@EVERY
def test_scores_are_derivatives(ranks, given):
    """Of more rows than one tile, or a block of tiles, holds."""
    x, y = data(1300, 3)
    flow = flow_of(ranks, given)
    near = {"rtol": 1e-4, "atol": 1e-5}
    some = np.arange(0, 1300, 37)
    score, logp = flow.score(x, *conditions(given, y), with_logp=True)
    assert_allclose(logp, flow.evaluate_density(x, *conditions(given, y)), rtol=1e-12)
    at = conditions(given, y[some])
    expected = jacobian(lambda x: flow.evaluate_density(x, *at), x[some])
    assert_allclose(score[some], expected, **near)
    if given:
        score, logp = flow.score_parameters(x, y, with_logp=True)
        assert_allclose(logp, flow.evaluate_density(x, y), rtol=1e-12)
        expected = jacobian(lambda y: flow.evaluate_density(x[some], y), y[some])
        assert_allclose(score[some], expected, **near)
        parts = [flow.score_parameters(x[i : i + 1], y[i : i + 1]) for i in some]
        assert_array_equal(score[some], np.concatenate(parts))


@EVERY
@BOTH
def test_a_row_has_the_same_bits_alone_and_for_any_number_of_threads(ranks, given, dtype):
    x, y = data(700, 3)
    x, flow = x.astype(dtype), flow_of(ranks, given, dtype)

    def everything(rows):
        at = conditions(given, y[rows])
        out = [*flow.forward(x[rows], *at), *flow.inverse(0.3 * x[rows], *at)]
        out += [*flow.score(x[rows], *at, with_logp=True), flow.evaluate_density(x[rows], *at)]
        return out + ([flow.score_parameters(x[rows], *at)] if given else [])

    results = []
    try:
        for threads in (1, 2, 3):
            pyflow.set_num_threads(threads)
            results.append(everything(slice(None)))
    finally:
        pyflow.set_num_threads(None)
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert_array_equal(a, b)
    for rows in (slice(0, 1), slice(300, 301), slice(301, 699, 7), slice(699, 700)):
        for a, b in zip(everything(rows), results[0], strict=True):
            assert_array_equal(a, b[rows])


def test_densities_at_other_conditions_are_those_of_each():
    flow = flow_of("autoregressive", True)
    table = flow._core.evaluate_at(TEST, TEST_Y[:7])
    for j in range(7):
        each = flow.evaluate_density(TEST, np.tile(TEST_Y[j], (len(TEST), 1)))
        assert_array_equal(table[:, j], each)


def test_samples_have_the_density_that_is_said_of_them():
    flow, y = flow_of("autoregressive", True), np.tile([[1.5, -1.0]], (4000, 1))
    x, logp = flow.sample(4000, y=y, seed=3)
    assert_allclose(logp, flow.evaluate_density(x, y), atol=1e-6)
    z, _ = flow.forward(x, y)
    assert_allclose(np.cov(z.T), np.eye(3), atol=0.12)
    assert_allclose(z.mean(axis=0), 0, atol=0.08)


def test_it_starts_as_a_regression_of_the_standardised_conditions_and_the_columns():
    linear, log_scale = np.random.default_rng(5).normal(size=(3, 5)), np.array([0.3, -1, 0])
    layer = Autoregressive((1, 0, 2), (8,), 3, Y, linear, log_scale)
    flow = pyflow.Flow([layer], shape=3)
    of = np.column_stack([(TEST_Y - Y.mean(axis=0)) / Y.std(axis=0), TEST])
    used = linear * [[1, 1, 0, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]
    z, logj = flow.forward(TEST, TEST_Y)
    assert_allclose(z, (TEST - of @ used.T) * np.exp(-log_scale), atol=1e-12)
    assert_allclose(logj, -log_scale.sum(), rtol=1e-12)


@BOTH
def test_what_is_far_out_has_a_density_or_is_refused(dtype):
    flow = flow_of("autoregressive", True, dtype)
    far = np.sqrt(np.finfo(dtype).max) / 1e6
    for sign in (1, -1):
        x, y = np.full((3, 3), sign * far, dtype), TEST_Y[:3]
        assert np.isfinite(flow.evaluate_density(x, y)).all()
        assert np.isfinite(flow.score(x, y)).all()
        assert np.isfinite(flow.score_parameters(x, y)).all()
    huge = np.full((3, 3), np.finfo(dtype).max)
    assert not np.isnan(flow.evaluate_density(huge, TEST_Y[:3])).any()
    far_y, x = np.full((3, 2), 1e300), TEST[:3].astype(dtype)
    with pytest.warns(UserWarning, match="outside of the training range"):
        assert np.isfinite(flow.evaluate_density(x, far_y)).all()
    with pytest.warns(UserWarning, match="outside of the training range"):
        assert_array_equal(flow.score_parameters(x, far_y), 0)


# ---- files and parts -----------------------------------------------------------------------------


@EVERY
@BOTH
def test_files_and_pickles_hold_the_flow(ranks, given, dtype, tmp_path):
    flow, y = flow_of(ranks, given, dtype), conditions(given)
    flow.save(tmp_path / "flow")
    x = TEST.astype(dtype)
    for copy in (pyflow.load(tmp_path / "flow"), pickle.loads(pickle.dumps(flow))):
        assert copy == flow
        assert copy.names == flow.names
        assert_array_equal(copy.y_range, flow.y_range)
        assert_array_equal(copy.evaluate_density(x, *y), flow.evaluate_density(x, *y))


def test_the_first_layers_are_a_flow():
    flow = flow_of("autoregressive", True)
    assert flow.layers == ("scale", "autoregressive", "autoregressive")
    with pytest.raises(ValueError, match="y: this flow was fitted without"):
        flow[:1].forward(TEST, TEST_Y)
    part, one = flow[:2], flow[:1]
    z, logj = part.forward(TEST, TEST_Y)
    first, first_logj = one.forward(TEST)
    layer = train(
        pyflow.Flow([Autoregressive(RANKS["autoregressive"][0], (7, 6), 4, Y)], shape=3),
        y_train=Y,
        epochs=0,
    )
    assert layer.n_parameters == part.n_parameters  # a scale layer has none
    back, minus_logj = part.inverse(z, TEST_Y)
    assert_allclose(back, TEST, atol=1e-8)
    assert_allclose(minus_logj, -logj, atol=1e-7)
    assert np.abs(logj - first_logj).max() > 0.01
    assert_array_equal(part._core.parameters(1), flow._core.parameters(1))
    assert_array_equal(flow[:3].forward(TEST, TEST_Y)[0], flow.forward(TEST, TEST_Y)[0])
    assert_array_equal(part.y_range, flow.y_range)
    assert not np.array_equal(first, z)


def test_more_layers_come_on_those_with_conditions():
    """Other kinds too; the flow's conditions stay, and the sum of the layers is what it says."""
    flow = flow_of("autoregressive", True)
    more = [Affine(2 * np.eye(3)), Autoregressive(None, (4,), 2), Sliced(2, 4)]
    more += [Autoregressive((0, 0, 0), (4,), 2, Y)]
    core = _core.compose([m._core((3,), 1) for m in more], shape=(3,), flow=flow._core)
    grown = pyflow.Flow._of(core)
    z, logj = flow.forward(TEST, TEST_Y)
    # all but the first of them are the identity until they are trained
    w, more_logj = grown.forward(TEST, TEST_Y)
    assert_allclose(w, 2 * z, rtol=1e-10, atol=1e-10)
    assert_allclose(more_logj, logj + 3 * np.log(2), atol=1e-10)
    assert_array_equal(grown.y_range, flow.y_range)
    trained = train(grown, y_train=Y)
    at = {"rtol": 1e-4, "atol": 1e-5}
    expected = jacobian(lambda y: trained.evaluate_density(TEST, y), TEST_Y)
    assert_allclose(trained.score_parameters(TEST, TEST_Y), expected, **at)
    assert trained.evaluate_density(X, Y).mean() > grown.evaluate_density(X, Y).mean()


# ---- training ------------------------------------------------------------------------------------


def test_it_learns_a_conditional_density_better_than_one_without_conditions():
    x, y = data(3000, 5)
    test, test_y = data(1000, 6)
    z = test.copy()
    z[:, 0] -= test_y[:, 0]
    width = 0.5 * np.exp(0.1 * test_y[:, 1:])
    z[:, 1:] = (test[:, 1:] - 0.3 * test[:, :1] ** 2) / width
    exact = -0.5 * np.sum(z**2 + np.log(2 * np.pi), axis=1) - 2 * np.log(width[:, 0])
    reached = {}
    for given in (True, False):
        layers = [Affine.whitening(x)]
        layers += [
            Autoregressive(r, (24,), 6, y if given else None) for r in ((0, 1, 2), (2, 1, 0))
        ]
        flow = pyflow.Flow(layers, shape=3)
        flow = train(flow, x, y_train=y if given else None, epochs=40, learning_rate=0.01)
        logp = flow.evaluate_density(test, *conditions(given, test_y))
        reached[given] = (exact - logp).mean()
    assert 0 < reached[True] < 0.2
    assert reached[False] > reached[True] + 0.3


@EVERY
@BOTH
def test_a_step_moves_all_that_counts_and_gains(ranks, given, dtype):
    """Adam's first goes by the gradient's sign: as far for all but weights that are masked."""
    flow, rate = flow_of(ranks, given, dtype), 1e-4
    y = Y if given else None
    one = train(flow, y_train=y, epochs=1, batch=400, learning_rate=rate, weight_decay=0, warmup=0)
    for layer in (1, 2):
        before, after = (np.array(f._core.parameters(layer)) for f in (flow, one))
        moved = np.abs(after - before)
        assert 0.1 * rate < moved.max() <= 1.01 * rate
        assert np.mean(moved > 0.99 * moved.max()) > 0.3
    gained = one.evaluate_density(X.astype(dtype), *conditions(given, Y)).mean()
    assert gained > flow.evaluate_density(X.astype(dtype), *conditions(given, Y)).mean()


def test_frozen_layers_stay():
    flow = flow_of("autoregressive", True)
    for frozen in ([True, True, False], [False, False, True]):
        trained = train(flow, y_train=Y, frozen=frozen, weight_decay=0.5)
        for layer in (1, 2):
            same = np.array_equal(trained._core.parameters(layer), flow._core.parameters(layer))
            assert same == frozen[layer]


def test_decay_shrinks_the_weights_of_the_network_alone():
    """By the product of 1 - rate decay over steps; the rates' sum is how far the outputs' go."""
    hidden, bins, d, p = (5, 4), 3, 3, 2
    start = Autoregressive(None, hidden, bins, Y, 0.1 * np.ones((d, p + d)), 0.2 * np.ones(d))
    flow = pyflow.Flow([start], shape=d)
    assert flow.n_parameters == flow._core.parameters(0).size
    linear = slice(0, d * (p + d))
    outputs = slice(flow.n_parameters - d * (3 * bins + 1), None)  # their biases
    weights = slice(linear.stop, outputs.start)
    how = {"y_train": Y, "epochs": 3, "batch": 400, "learning_rate": 1e-9, "warmup": 0}
    before, kept, shrunk = (
        np.array(f._core.parameters(0))
        for f in (flow, *(train(flow, **how, weight_decay=w) for w in (0, 1e3)))
    )
    for part in (linear, outputs):
        assert_allclose(shrunk[part], kept[part], rtol=1e-12)
        assert np.abs(before[part]).max() > 0.05
    rates = np.abs(kept - before)[linear].max()
    assert rates > 1e-10
    large = np.abs(kept[weights]) > 0.1
    assert large.sum() > 10
    assert_allclose(shrunk[weights][large] / kept[weights][large] - 1, -1e3 * rates, rtol=1e-2)


class Stop(Exception):
    pass


@EVERY
@BOTH
def test_an_interrupted_training_goes_on(tmp_path, ranks, given, dtype):
    path, y = tmp_path / "checkpoint", Y if given else None
    layers = [Autoregressive(r, (5,), 3, y) for r in RANKS[ranks]]
    flow = pyflow.Flow(layers, shape=3, dtype=dtype)
    how = {"y_train": y, "weight_decay": 0.1, "epochs": 4, "frozen": [False, False]}
    whole = train(flow, **how)

    def stop(p):
        if p.step == 2:
            raise Stop

    with pytest.raises(Stop):
        train(flow, checkpoint=path, checkpoint_seconds=0, progress=stop, **how)
    assert pyflow.load(path).unfinished
    steps = []
    again = train(flow, checkpoint=path, progress=lambda p: steps.append(p.step), **how)
    assert min(steps) > 2
    assert again == whole
    assert whole != train(flow, **how | {"weight_decay": 0})


@BOTH
def test_threads_do_not_change_training(dtype):
    flows = []
    try:
        for threads in (1, 2, 3):
            pyflow.set_num_threads(threads)
            flows.append(train(flow_of("autoregressive", True, dtype), y_train=Y, batch=150))
    finally:
        pyflow.set_num_threads(None)
    assert flows[0] == flows[1] == flows[2]


# ---- bad input -----------------------------------------------------------------------------------

BAD = {
    "a rank too many": ({"ranks": (0, 1, 2, 3)}, "ranks"),
    "a rank too few": ({"ranks": (0, 1)}, "ranks: has 2 numbers for 3 columns"),
    "a rank as large as the columns are many": ({"ranks": (0, 1, 3)}, "ranks"),
    "a negative rank": ({"ranks": (0, 1, -1)}, "ranks"),
    "no hidden layer": ({"hidden": ()}, "hidden"),
    "eight hidden layers": ({"hidden": (4,) * 8}, "hidden"),
    "twenty hidden layers": ({"hidden": (4,) * 20}, "hidden"),
    "a hidden layer without units": ({"hidden": (4, 0)}, "hidden"),
    "too many units": ({"hidden": (65537,)}, "hidden"),
    "no bin": ({"bins": 0}, "bins"),
    "too many bins": ({"bins": 65}, "bins"),
    "y without columns of its own": ({"y": Y[:, 0]}, "y"),
    "y without rows": ({"y": Y[:0]}, "y"),
    "y without columns": ({"y": Y[:, :0]}, "y"),
    "a column of y that is constant": ({"y": 0 * Y}, "conditions: .* column 0"),
    "y that is no number": ({"y": np.where(Y > 1, np.nan, Y)}, "y|conditions"),
    "y that is infinite": ({"y": np.where(Y > 1, np.inf, Y)}, "y|conditions"),
    "linear without the conditions": ({"y": Y, "linear": np.zeros((3, 3))}, "linear"),
    "linear with conditions that there are not": ({"linear": np.zeros((3, 5))}, "linear"),
    "linear, a row": ({"linear": np.zeros(3)}, "linear"),
    "log_scale, two numbers": ({"log_scale": np.zeros(2)}, "log_scale"),
    "linear that is no number": ({"linear": np.full((3, 3), np.nan)}, "linear"),
    "log_scale that is no number": ({"log_scale": np.full(3, np.inf)}, "log_scale"),
}


@pytest.mark.parametrize(("what", "name"), BAD.values(), ids=BAD)
@BOTH
def test_bad_shapes_name_the_argument(what, name, dtype):
    with pytest.raises(ValueError, match=f"^({name})"):
        pyflow.Flow([Autoregressive(**{"hidden": (4,)} | what)], shape=3, dtype=dtype)


@pytest.mark.parametrize(
    "what", [{"hidden": (4.5,)}, {"hidden": 4}, {"ranks": ("a", 1, 2)}, {"bins": 2.5}, {"ranks": 1}]
)
def test_what_is_no_whole_number_is_told(what):
    with pytest.raises((TypeError, ValueError), match=f"^{next(iter(what))}"):
        pyflow.Flow([Autoregressive(**what)], shape=3)


def test_a_flow_with_conditions_asks_for_them():
    flow = flow_of("autoregressive", True)
    for ask in (flow.forward, flow.inverse, flow.evaluate_density, flow.score):
        with pytest.raises((TypeError, ValueError), match="y: .*needs|y"):
            ask(TEST)
        with pytest.raises(ValueError, match="y"):
            ask(TEST, TEST_Y[:, :1])
        with pytest.raises(ValueError, match="y"):
            ask(TEST, np.where(TEST_Y > 1, np.nan, TEST_Y))
    with pytest.raises((TypeError, ValueError), match="y"):
        flow.sample(3)
    with pytest.raises(ValueError, match="y_train: this flow is conditional"):
        train(flow)
    with pytest.raises(ValueError, match="y_train"):
        train(flow, y_train=Y[:, :1])
    without = flow_of("autoregressive", False)
    with pytest.raises(ValueError, match="y: this flow was fitted without"):
        without.forward(TEST, TEST_Y)
    with pytest.raises(ValueError, match="y: none of the layers can be conditioned"):
        train(without, y_train=Y)


def test_layers_of_different_conditions_are_no_flow():
    layers = [Autoregressive(None, (4,), 2, Y), Autoregressive(None, (4,), 2, Y[:, :1])]
    for order in (layers, layers[::-1]):
        with pytest.raises(ValueError, match=r"conditions: there are \d of the layer, and \d of"):
            pyflow.Flow(order, shape=3)


def test_labels_and_conditions_are_no_flow():
    with pytest.raises(ValueError, match="labels: a flow of classes is not conditioned on y"):
        pyflow.Flow([Autoregressive(None, (4,), 2, Y)], shape=3, labels=[0, 1])
    side = (X[:, 0] > 0).astype(int)
    flow = pyflow.Flow([Autoregressive(None, (4,), 2)], shape=3, labels=side)
    assert np.isfinite(train(flow, labels=side).evaluate_density(X, side)).all()


def test_fields_have_no_such_layers():
    for layers in ([Autoregressive()], [Symmetric(4, 4), Autoregressive()]):
        with pytest.raises(ValueError, match="autoregressive layers are for tables"):
            pyflow.Flow(layers, shape=(4, 4))


def test_bounds_come_before_them():
    flow = pyflow.Flow([Bounds([(-9, None)] * 3), Autoregressive(None, (4,), 2, Y)], shape=3)
    trained = train(flow, y_train=Y)
    assert trained.evaluate_density([[-10, 0, 0]], [[0, 0]]) == -np.inf
    with pytest.raises(ValueError, match="bounds"):
        pyflow.Flow([Autoregressive(), Bounds([(0, 1)] * 3)], shape=3)
