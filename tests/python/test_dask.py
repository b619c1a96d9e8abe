"""Points in Dask arrays: answers are arrays of Dask, block by block what whole arrays give."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pyflow

da = pytest.importorskip("dask.array")


@pytest.fixture(scope="module")
def flows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)).astype(np.float32)
    flow = pyflow.GIS(x, max_layers=1, verbose=False)
    labelled = pyflow.GIS(x, max_layers=1, labels=np.arange(500) % 2, verbose=False)
    mixture = pyflow.Mixture([flow, pyflow.GIS(x, max_layers=2, seed=1, verbose=False)])
    return {"flow": flow, "mixture": mixture, "labelled": labelled}


@pytest.fixture
def points():
    return np.random.default_rng(1).normal(size=(103, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["flow", "mixture"])
@pytest.mark.parametrize("chunks", [(40, 3), (25, 2)])
def test_blocks_give_what_the_whole_gives(flows, points, name, chunks):
    flow, lazy = flows[name], da.from_array(points, chunks=chunks)
    logp = flow.evaluate_density(lazy)
    assert isinstance(logp, da.Array)
    assert logp.chunks == (lazy.chunks[0],)
    assert (logp.dtype, logp.shape, type(logp._meta)) == (np.float64, (103,), np.ndarray)
    assert_array_equal(logp.compute(scheduler="threads"), flow.evaluate_density(points))
    score, beside = flow.score(lazy, with_logp=True)
    assert (score.dtype, score.shape) == (np.float32, (103, 3))
    assert score.chunks == (lazy.chunks[0], (3,))
    assert_array_equal(score.compute(scheduler="synchronous"), flow.score(points))
    assert_array_equal(beside, logp)


def test_nothing_is_computed_until_it_is_asked_for(flows):
    def never(_):
        raise ZeroDivisionError

    lazy = da.ones((2 * 10**6, 3), chunks=(10**6, 3), dtype=np.float32).map_blocks(
        never, dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    logp = flows["flow"].evaluate_density(lazy)
    assert logp.numblocks == (2,)
    with pytest.raises(ZeroDivisionError):
        logp.compute(scheduler="synchronous")


def test_labels_go_with_their_points(flows, points):
    labels = np.random.default_rng(2).integers(0, 2, 103)
    flow, lazy = flows["labelled"], da.from_array(points, chunks=(40, 3))
    expected = flow.evaluate_density(points, labels)
    assert_array_equal(flow.evaluate_density(lazy, labels), expected)
    assert_array_equal(flow.evaluate_density(lazy, da.from_array(labels, chunks=30)), expected)
    assert_array_equal(flow.evaluate_density(lazy, 1), flow.evaluate_density(points, 1))


def test_another_shape_is_refused_at_once(flows):
    with pytest.raises(ValueError, match="x: has 4 columns where the flow has 3"):
        flows["flow"].evaluate_density(da.zeros((10, 4), chunks=(5, 4)))


def test_a_single_point_is_a_number(flows, points):
    value = flows["flow"].evaluate_density(da.from_array(points[0], chunks=2))
    assert value == flows["flow"].evaluate_density(points[0])


@pytest.fixture(scope="module")
def conditional():
    rng = np.random.default_rng(0)
    y = rng.uniform(size=(300, 2))
    x = y @ rng.normal(size=(2, 3)) + rng.normal(size=(300, 3))
    parts = {"condition": y[:240], "condition_validate": y[240:]}
    flow = pyflow.GIS(x[:240], x[240:], **parts, n_models=1, verbose=False)
    return flow, x, y


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 3])
def test_one_condition_is_that_of_all_points(conditional, n, chunk):
    flow, x, _ = conditional
    lazy = da.from_array(x[:n], chunks=(min(chunk, n), 3))
    for one in ([0.3, 0.7], np.array([0.3, 0.7]), da.from_array(np.array([0.3, 0.7]), chunks=1)):
        expected = flow.evaluate_density(x[:n], [0.3, 0.7])
        assert_array_equal(flow.evaluate_density(lazy, one), expected)


def test_conditions_of_each_point_are_of_any_kind(conditional):
    flow, x, y = conditional
    lazy = da.from_array(x[:10], chunks=(4, 2))
    expected = flow.evaluate_density(x[:10], y[:10])
    kinds = (
        y[:10],
        y[:10].tolist(),
        dict(zip(flow.names, y[:10].T, strict=True)),
        da.from_array(y[:10], chunks=(3, 1)),
    )
    for each in kinds:
        assert_array_equal(flow.evaluate_density(lazy, each), expected)
        assert_array_equal(flow.score(lazy, each, with_logp=True)[1], expected)


def test_conditions_of_other_lengths_are_refused_at_once(flows, conditional, points):
    flow, x, y = conditional
    lazy = da.from_array(x[:6], chunks=(2, 3))
    for wrong in (y[:2], y[:5], y[:6, :1], y[0, :1], 0.5, da.from_array(y[:5], chunks=(2, 2))):
        for ask in (flow.evaluate_density, flow.score):
            with pytest.raises(ValueError, match=r"y: must have shape \(6, 2\), .*its shape is"):
                ask(lazy, wrong)
    lazy = da.from_array(points[:99], chunks=(33, 3))
    for wrong in (np.zeros(33, int), np.zeros((99, 1), int), da.zeros(98, dtype=int)):
        with pytest.raises(ValueError, match=r"y: must have shape \(99,\), .*its shape is"):
            flows["labelled"].evaluate_density(lazy, wrong)
    with pytest.raises(ValueError, match="y: this flow was fitted without"):
        flows["flow"].evaluate_density(lazy, 1)
    with pytest.raises(ValueError, match="y: .*needs"):
        flow.evaluate_density(da.from_array(x[:6], chunks=(2, 3)))
    with pytest.raises(ValueError, match="y: 7 is not among"):
        flows["labelled"].evaluate_density(lazy, 7)
    with pytest.raises(ValueError, match="condition_field: this flow was fitted without"):
        flows["flow"].evaluate_density(lazy, condition_field=points[:99])


def test_second_fields_go_with_their_points():
    x = pyflow.fields.gaussian_field(1.0, (8, 8), 60, box_size=8.0, seed=1)
    c = x + pyflow.fields.gaussian_field(1.0, (8, 8), 60, box_size=8.0, seed=2)
    flow = pyflow.SymmetricFlow(
        x[:50], x[50:], condition_field=c[:50], condition_field_validate=c[50:], epochs=1,
        box_size=8.0, n_models=1, verbose=False
    )  # fmt: skip
    lazy = da.from_array(x[:8], chunks=(3, 8, 4))
    for one in (c[:8], c[0]):
        expected = flow.evaluate_density(x[:8], condition_field=one)
        assert_array_equal(flow.evaluate_density(lazy, condition_field=one), expected)
    with pytest.raises(ValueError, match=r"condition_field: must have shape \(8, 8, 8\)"):
        flow.evaluate_density(lazy, condition_field=c[:3])


def test_chunks_of_unknown_length(flows, points):
    lazy = da.from_array(points, chunks=(40, 3))
    lazy = lazy[lazy[:, 0] > 0]
    logp = flows["labelled"].evaluate_density(lazy, 1)
    assert_array_equal(logp, flows["labelled"].evaluate_density(points[points[:, 0] > 0], 1))


@pytest.mark.parametrize("mixed", [False, True])
def test_points_outside_the_bounds(mixed):
    x = np.abs(np.random.default_rng(0).normal(size=(200, 2)))
    how = {"bounds": [(0, None)] * 2, "max_layers": 1, "n_models": 1, "verbose": False}
    flow = pyflow.GIS(x, **how)
    flow = pyflow.Mixture([flow, pyflow.GIS(x[:150], **how)]) if mixed else flow
    points = np.array([[0.5, 1], [-1, 1], [1, 1]])
    lazy = da.from_array(points, chunks=(1, 2))
    expected = flow.score(points, outside="zero", with_logp=True)
    for found, known in zip(
        flow.score(lazy, outside="zero", with_logp=True), expected, strict=True
    ):
        assert_array_equal(found, known)
    with pytest.raises(ValueError, match="outside: must be"):
        flow.score(lazy, outside="nowhere")
    with pytest.raises(ValueError, match="bounds"):
        flow.score(lazy).compute(scheduler="synchronous")
