"""The example of gas and dark matter: its parts; CI runs the whole of it with --quick."""

import itertools
import sys

import example_script
import numpy as np
import pytest
from numpy.testing import assert_allclose

from pyflow import fields

NAME = "baryons.py"
pytestmark = example_script.there(NAME)


@pytest.fixture(scope="module")
def baryons():
    sys.path.insert(0, str(example_script.FOLDER))  # it imports another example
    try:
        return example_script.load(NAME)
    finally:
        sys.path.pop(0)


def test_recipe(baryons):
    """What is left of ln p without the smooth gas is scatter of the spectrum that it says."""
    delta = baryons.lognormal(16, 400)
    s = baryons.pressure(delta, 1) - baryons.smooth_gas(delta)
    assert s.std() == pytest.approx(baryons.SCATTER, rel=0.03)
    edges = [0.3, 0.8, 1.6, 3.0]
    _, power, _ = fields.power_spectrum(s, 16.0, edges)
    k, modes = fields.wavenumbers((16, 16), 16.0)
    for found, (low, high) in zip(power.mean(axis=0), itertools.pairwise(edges), strict=True):
        here = modes * ((k >= low) & (k < high))
        expected = (here * baryons.scatter(16)(k)).sum() / here.sum()
        assert found == pytest.approx(expected, rel=0.1)
    logp = fields.gaussian_logp(s, baryons.scatter(16), 16.0)
    assert logp.std() == pytest.approx(16 / np.sqrt(2), rel=0.15)


def test_mapping_is_the_least_squares_one(baryons):
    """Of ln p that is such a mapping, nearly all is found; its density is that of the residuals."""
    delta = baryons.lognormal(16, 150)
    u = np.log(1.02 + delta)
    exact = fields.filtered(u + 0.3 * u**2, lambda k: 1 / (1 + k**2), 16.0)
    noise = fields.gaussian_field(0.01, (16, 16), 150, box_size=16.0, seed=2)
    pairs = baryons.Pairs((exact + noise).astype(np.float32), delta)
    mapping = baryons.Mapping(pairs)
    assert np.std(mapping(delta) - exact) < 0.1 * exact.std()
    assert_allclose(mapping.power, 0.01, rtol=0.4)
    exact_logp = fields.gaussian_logp(noise, 0.01, 16.0)
    assert mapping.logp(pairs).mean() == pytest.approx(exact_logp.mean(), abs=12)


def test_maps_are_averaged(baryons, tmp_path):
    maps = np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float16)
    np.savez(tmp_path / "train.npz", maps=maps)
    found = baryons.nbody(tmp_path, 4, 3)
    assert found.shape == (3, 4, 4)
    assert found[1, 2, 3] == pytest.approx(maps[1, 4:6, 6:8].astype(float).mean(), abs=1e-3)
    assert baryons.nbody(tmp_path / "nowhere", 4, None) is None
    assert baryons.nbody(None, 4, None) is None
