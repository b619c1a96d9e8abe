"""The example of redshift space: its parts; CI runs the whole of it with --quick."""

import subprocess
import sys

import example_script
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow
from pyflow.layers import Symmetric

SCRIPT = example_script.FOLDER / "redshift_space.py"
pytestmark = example_script.there(SCRIPT.name)


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        return example_script.load(SCRIPT.name)
    finally:
        sys.path.remove(str(SCRIPT.parent))


def test_says_where_the_maps_would_be(tmp_path):
    command = [sys.executable, SCRIPT, "--data", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"there is no train_rsd.npz in {tmp_path}" in done.stderr


def test_maps_are_averaged_and_split_by_simulation(example, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, size=(40, 128, 128)).astype(np.float16)
    y, sim = rng.uniform(0.2, 0.5, size=(10, 2)).repeat(4, axis=0), np.arange(10).repeat(4)
    np.savez(tmp_path / "train_rsd.npz", maps=x, params=y, sim=sim)
    world = example.nbody(tmp_path, 64)
    for part, expected in (("train", range(7)), ("validate", [7]), ("test", [8, 9])):
        maps = getattr(world, part)
        assert_array_equal(np.unique(maps.sim), expected)
        assert_array_equal(maps.y, y[np.isin(sim, expected)])
    assert_allclose(world.maps.x[3, 5, 7], x[3, 10:12, 14:16].mean(dtype=float), rtol=1e-6)
    whole = example.nbody(tmp_path, 128)
    assert_array_equal(whole.maps.x, x)


def test_gaussianised_pixels_are_normal(example):
    world = example.gaussian(16, 60)
    world.train = world.train._replace(x=np.exp(world.train.x))
    g = world.gaussianised(world.train.x)
    assert abs(g.mean()) < 0.01
    assert abs(g.std() - 1) < 0.02
    assert np.all(np.diff(np.sort(g, axis=None)[:: g.size // 50]) > 0)


def test_a_flow_of_other_fields_is_off_by_many_errors(example):
    """White noise has no quadrupole: the samples' power is that, and the maps' their own."""
    world = example.gaussian(16, 100)
    flow = pyflow.Flow([Symmetric()], shape=(16, 16), box_size=16.0)
    one = {"y_train": world.train.y, "hidden": 4, "epochs": 1, "learning_rate": 1e-6}
    flow = flow.train(world.train.x, **one, verbose=False)
    within = np.clip(world.test.y, *flow.y_range.T)
    test = world.test._replace(y=within)
    k, mine, samples, error = example.spectra(world, test, flow, np.asarray)
    assert_allclose(mine, world.multipoles(test.x)[1].mean(axis=0))
    assert_allclose(samples[0], 1, rtol=0.15)
    assert np.all(abs(samples[1]) < 0.4)
    high = k > 1
    assert np.median(((mine - samples)[1] / error[1])[high]) > 3
