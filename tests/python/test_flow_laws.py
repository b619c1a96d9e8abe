"""Laws of every flow, whatever fitted it: with labels and parameters, in both precisions."""

import copy
import pickle

import numpy as np
import pytest
from flows import IDS, KINDS, MESH, case, methods, some
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import pyflow
from pyflow.layers import Affine, Bounds, Scale, Sliced, Symmetric

one = pytest.fixture(params=KINDS, ids=IDS)(lambda request: case(*request.param))


def test_there_and_back(one):
    flow, x, y = one
    z, logj = flow.forward(x, y)
    back, minus_logj = flow.inverse(z, y)
    tolerance = 2e-3 if flow.dtype == np.float32 else 1e-9
    assert_allclose(back, x, rtol=tolerance, atol=tolerance)
    assert_allclose(minus_logj, -logj, rtol=tolerance, atol=10 * tolerance)
    assert z.dtype == back.dtype == flow.dtype
    assert logj.dtype == np.float64


def test_density_is_that_of_the_latent_point_times_the_jacobian(one):
    flow, x, y = one
    z, logj = flow.forward(x, y)
    normal = stats.norm.logpdf(z.astype(float)).reshape(len(z), -1).sum(axis=1)
    assert_allclose(flow.evaluate_density(x, y), normal + logj, rtol=1e-12, atol=1e-11)
    assert_allclose(flow.score(x, y, with_logp=True)[1], normal + logj, rtol=1e-12, atol=1e-11)


def test_a_sample_knows_its_density(one):
    flow, _, y = one
    x, logp = flow.sample(50, y, seed=1)
    tolerance = 0.2 if flow.dtype == np.float32 else 1e-8
    assert_allclose(flow.evaluate_density(x, y), logp, atol=tolerance)
    assert_array_equal(flow.sample(20, some(y, slice(20)), seed=1)[0], x[:20])
    for other in (flow.sample(50, y, seed=2), flow.sample(50, y), flow.sample(50, y)):
        assert not np.any(other[0] == x)


def test_parts_of_a_call_are_those_of_the_whole(one):
    flow, x, y = one
    for name, call in methods(flow, y).items():
        whole = call(x, y)
        for rows in (slice(0, 1), slice(1, 20), slice(20, 50), slice(17, 18)):
            for a, b in zip(call(x[rows], some(y, rows)), whole, strict=True):
                assert_array_equal(a, b[rows], err_msg=name)
    for n, first in ((17, 0), (20, 13), (1, 49)):
        labels = flow._conditions(y, 50)
        part = {k: v[first : first + n] for k, v in labels.items()}
        whole = flow._core.sample(50, **labels, seed=5)
        for a, b in zip(flow._core.sample(n, **part, seed=5, first=first), whole, strict=True):
            assert_array_equal(a, b[first : first + n])


def test_a_call_of_several_chunks_is_one_call():
    """Points of another dtype are converted 16 MiB at a time."""
    mesh, rng = (64, 64), np.random.default_rng(0)
    x, y = rng.normal(size=(40, *mesh)), rng.uniform(size=(40, 1))
    label = np.arange(40) % 2
    known = {"epochs": 1, "learning_rate": 0.05, "verbose": False}
    stack = pyflow.Flow([Sliced(0, 4), Scale(0, 2)], shape=mesh, labels=[0, 1])
    labelled = stack.train(x, labels=label, **known)
    conditional = pyflow.Flow([Symmetric(4, 6)], shape=mesh).train(x, y_train=y, hidden=4, **known)
    n = (16 << 20) // (8 * 64 * 64) + 40
    many = np.resize(x.astype(np.float32), (n, *mesh))
    for flow, all_y in ((labelled, np.resize(label, n)), (conditional, np.resize(y, (n, 1)))):
        all_y = all_y[::-1].copy()
        for name, call in methods(flow, all_y).items():
            if name in ("forward", "inverse", "score") and flow is conditional:
                continue  # the same code, and slow
            for a, b in zip(call(many, all_y), call(many.astype(float), all_y), strict=True):
                assert_array_equal(a, b, err_msg=name)


def test_copies_are_the_flow(one, tmp_path):
    flow, x, y = one
    flow.save(tmp_path / "flow")
    copies = [
        copy.copy(flow),
        copy.deepcopy(flow),
        pickle.loads(pickle.dumps(flow)),
        pyflow.load(tmp_path / "flow"),
        pyflow.Flow.from_bytes(flow.to_bytes()),
        flow[:],
        pyflow.Flow._of(flow._core.with_note(flow._core.note)),
    ]
    for again in copies:
        assert again == flow
        assert hash(again) == hash(flow)
        assert again.to_bytes() == flow.to_bytes()
        assert repr(again) == repr(flow)
        for name in ("shape", "dim", "box_size", "dtype", "layers", "slices", "n_parameters"):
            assert getattr(again, name) == getattr(flow, name)
        for name in ("columns", "names", "temperature", "calibration", "unfinished"):
            assert getattr(again, name) == getattr(flow, name)
        assert_array_equal(again.y_range, flow.y_range)
        assert_array_equal(again.labels, flow.labels)
        for a, b in zip(again.history.values(), flow.history.values(), strict=True):
            assert_array_equal(a, b)
        for name, call in methods(again, y).items():
            for a, b in zip(call(x, y), methods(flow, y)[name](x, y), strict=True):
                assert_array_equal(a, b, err_msg=name)
        assert_array_equal(
            again.sample(9, some(y, slice(9)), seed=1)[0],
            flow.sample(9, some(y, slice(9)), seed=1)[0],
        )
    core = pickle.loads(pickle.dumps(flow._core))
    assert core.to_bytes() == flow.to_bytes()


def test_a_copy_is_trained_and_calibrated_like_the_original(one):
    flow, x, y = one
    again = pyflow.Flow.from_bytes(flow.to_bytes())
    given = {}
    if flow.labels is not None:
        given["labels"] = y
    elif y is not None:
        given["y_train"] = y[:, :2]
    known = {"epochs": 2, "learning_rate": 1e-3, "verbose": False}
    if "noise" in flow.names:
        known["noise"] = (0.1, 0.3)
    assert again.train(x, **known, **given) == flow.train(x, **known, **given)
    if flow.names:
        a, b = (f.calibrate(x, y[:, :2], seed=3) for f in (again, flow))
        assert a == b
        assert a.temperature == b.temperature != 1


def test_scores_are_gradients(one):
    flow, x, y = one
    if flow.dtype == np.float32:
        return check_float32_score(flow, x, y)
    step = 1e-6
    score = flow.score(x, y)
    direction = np.random.default_rng(0).normal(size=x.shape)
    up, down = (flow.evaluate_density(x + s * step * direction, y) for s in (1, -1))
    slope = (score * direction).reshape(len(x), -1).sum(axis=1)
    good = np.isclose(slope, (up - down) / (2 * step), rtol=1e-3, atol=1e-3)
    assert good.mean() > 0.95  # a knot of a spline may lie within the step
    if not flow.names:
        return None
    score, inside = flow.score_parameters(x, y), flow.y_range
    y = np.clip(y, inside[:, 0] + 1e-5, inside[:, 1] - 1e-5)
    score = flow.score_parameters(x, y)
    for j in range(y.shape[1]):
        move = step * np.eye(y.shape[1])[j]
        slope = (flow.evaluate_density(x, y + move) - flow.evaluate_density(x, y - move)) / 2e-6
        assert_allclose(score[:, j], slope, rtol=1e-3, atol=1e-3)
    return None


def check_float32_score(flow, x, y):
    """Against the same flow in float64, which has the same parameters."""
    score, logp = flow.score(x, y, with_logp=True)
    assert_allclose(logp, flow.evaluate_density(x, y), rtol=1e-6)
    assert np.isfinite(score).all()
    if flow.names:
        assert np.isfinite(flow.score_parameters(x, y)).all()


def test_first_layers_are_a_flow(one):
    flow, x, y = one
    assert flow[: len(flow)] == flow == flow[: len(flow) + 3]
    sizes = []
    for k in range(len(flow) + 1):
        part = flow[:k]
        assert part.layers == flow.layers[:k]
        sizes.append(part.n_parameters)
        at = y if part.names or part.labels is not None else None
        z, logj = part.forward(x, at)
        if k == 0:
            assert_array_equal(z, x)
            assert_array_equal(logj, 0)
        back = part.inverse(z, at)[0]
        tolerance = 2e-3 if flow.dtype == np.float32 else 1e-9
        assert_allclose(back, x, rtol=tolerance, atol=tolerance)
        assert pyflow.Flow.from_bytes(part.to_bytes()) == part
    assert sizes == sorted(sizes)
    assert sizes[-1] == flow.n_parameters


def test_first_layers_of_a_gis_flow_have_the_density_of_its_history():
    flow = case("gis", np.float64).flow
    from conftest import banana

    for k in range(1, len(flow) + 1):
        logp = flow[:k].evaluate_density(banana(400, seed=1)).mean()
        assert_allclose(logp, flow.history["logp_train"][k - 1], rtol=1e-10)


def test_far_off_conditions_give_finite_numbers():
    for name in ("symmetric, y", "symmetric, noise", "composed, y"):
        for dtype in (np.float32, np.float64):
            flow, x, y = case(name, dtype)
            for far in (1e4, -1e4, 1e30):
                at = np.full_like(y, far)
                for method, call in methods(flow, y).items():
                    with pytest.warns(UserWarning, match="lies? .*outside"):
                        results = call(x, at)
                    for a in results:
                        assert np.isfinite(a).all(), method


def test_tables_of_conditions_are_matched_by_name():
    flow, x, y = case("symmetric, y", np.float64)
    expected = flow.evaluate_density(x, y)
    for order in (("amplitude", "nothing"), ("nothing", "amplitude")):
        table = np.empty(len(y), dtype=[(name, float) for name in order])
        table["amplitude"], table["nothing"] = y.T
        assert_array_equal(flow.evaluate_density(x, table), expected)
        known = {"epochs": 1, "learning_rate": 1e-3, "verbose": False}
        trained = flow.train(x, y_train=table, **known)
        assert_array_equal(
            trained.evaluate_density(x, table),
            flow.train(x, y_train=y, **known).evaluate_density(x, y),
        )
        assert_array_equal(flow.calibrate(x, table).temperature, flow.calibrate(x, y).temperature)
    with pytest.raises(ValueError, match="y: "):
        flow.evaluate_density(x, table[["amplitude"]])
    new = pyflow.SymmetricFlow(x, y_train=table, n_layers=1, epochs=0, verbose=False)
    assert new.names == ("nothing", "amplitude")


# ---- composed by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_by_hand_are_what_they_say(dtype):
    rng = np.random.default_rng(0)
    x, w, mean = rng.normal(size=(30, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    z, logj = pyflow.Flow([Affine(w, mean)], shape=3, dtype=dtype).forward(x)
    assert_allclose(z, (x - mean) @ w.T, rtol=tolerance, atol=tolerance)
    assert_allclose(logj, np.linalg.slogdet(w)[1], rtol=tolerance)
    z, logj = pyflow.Flow([Scale(2, 4)], shape=3, dtype=dtype).forward(x)
    assert_allclose(z, (x - 2) / 4, rtol=tolerance, atol=tolerance)
    assert_allclose(logj, -3 * np.log(4))
    for layers in ([Affine()], [Scale()], [Sliced(2, 8)], [Sliced(0, 8)], [Sliced(3, 2)]):
        flow = pyflow.Flow(3 * layers, shape=3, dtype=dtype)
        assert_allclose(flow.forward(x)[0], x, atol=tolerance)
        assert_allclose(flow.forward(x)[1], 0, atol=tolerance)
    field = rng.normal(size=(5, *MESH))
    flow = pyflow.Flow([Symmetric(4, 6), Sliced(4, 5), Symmetric()], shape=MESH, dtype=dtype)
    assert_allclose(flow.forward(field)[0], field, atol=10 * tolerance)
    bounded = pyflow.Flow([Bounds([(0, 1), (None, 2), (None, None)])], shape=3, dtype=dtype)
    inside = np.column_stack([rng.uniform(0.1, 0.9, 9), rng.uniform(-3, 1.9, 9), x[:9, 2]])
    assert np.isfinite(bounded.evaluate_density(inside)).all()
    for j, out in ((0, -0.1), (0, 1.1), (1, 2.1)):
        outside = inside.copy()
        outside[:, j] = out
        assert_array_equal(bounded.evaluate_density(outside), -np.inf)


def test_wrong_layers_are_refused_by_name():
    for layers, more, error, message in (
        (["sliced"], {}, TypeError, "layers: must be of pyflow.layers"),
        ([Sliced(4, 8)], {}, ValueError, "n_slices: must be between 0 and 3"),
        ([Sliced(2, 1)], {}, ValueError, "n_knots: must be"),
        ([Symmetric()], {}, ValueError, "symmetric layers are for fields"),
        ([Symmetric(1, 8)], {"shape": MESH}, ValueError, "psi_knots: must be"),
        ([Scale(0, 0)], {}, ValueError, "scale: must be positive"),
        ([Scale(np.nan, 1)], {}, ValueError, "mean: must be finite"),
        ([Affine(np.ones((2, 2)))], {}, ValueError, "matrix: must have shape"),
        ([Affine(np.full((3, 3), np.nan))], {}, ValueError, "matrix: is not finite"),
        ([Affine(None, [1, 2])], {}, ValueError, "mean: must have shape"),
        ([Sliced(2, 8), Bounds([(0, 1)] * 3)], {}, ValueError, "bounds: "),
        ([Bounds([(1, 0)] * 3)], {}, ValueError, "bounds: "),
        ([], {"shape": 0}, ValueError, "shape: must be between 1"),
        ([], {"shape": (2, 2, 2, 2)}, ValueError, "shape: must have 1 to 3 axes"),
        ([], {"dtype": np.int32}, ValueError, "dtype: must be float32 or float64"),
        ([], {"shape": MESH, "box_size": -1}, ValueError, "box_size: must be positive"),
    ):
        with pytest.raises(error, match=f"^{message}"):
            pyflow.Flow(layers, **{"shape": 3} | more)


def test_slices_of_layers_differ_and_depend_on_the_seed():
    def slices(seed):
        flow = pyflow.Flow(3 * [Sliced(2, 4)], shape=5, seed=seed)
        return [flow._core.parameters(l)[-10:].reshape(2, 5) for l in range(3)]

    first, same, other = slices(1), slices(1), slices(2)
    for l in range(3):
        assert_allclose(first[l] @ first[l].T, np.eye(2), atol=1e-12)
        assert_array_equal(first[l], same[l])
        assert not np.any(first[l] == other[l])
        assert not np.any(first[l] == first[l - 1])
