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
