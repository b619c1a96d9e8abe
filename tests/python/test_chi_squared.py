"""Latent fields against white noise, scale by scale."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import pyflow
from pyflow import fields

MESHES = [((8, 6), (2.0, 3.0)), ((7, 9), (1.0, 1.0)), ((4, 6, 5), (2.0, 3.0, 4.0))]
ALL = [0, 4, 7, 11, np.inf]


@pytest.mark.parametrize(("mesh", "box"), MESHES)
def test_it_is_the_sum_over_all_modes(mesh, box):
    z = np.random.default_rng(0).normal(size=(3, *mesh)) + 0.5
    axes = [2 * np.pi * np.fft.fftfreq(n, L / n) for n, L in zip(mesh, box, strict=True)]
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    square = np.abs(np.fft.fftn(z, axes=range(1, z.ndim))) ** 2 / np.prod(mesh)
    bins = [(k >= low) & (k < high) for low, high in pairwise(ALL)]
    bins = [inside for inside in bins if inside.any()]
    mean_k, chi2, modes = fields.chi_squared(z, box, ALL)
    assert_allclose(chi2, np.stack([square[:, inside].sum(axis=1) for inside in bins], axis=1))
    assert_allclose(mean_k, [k[inside].mean() for inside in bins])
    assert_array_equal(modes, [inside.sum() for inside in bins])
    assert_array_equal(fields.chi_squared(z.astype(np.float32), box, ALL)[1].dtype, np.float64)
    if len(mesh) == 2:
        assert_array_equal(fields.chi_squared(z[0], box, ALL)[1], chi2[0])


@pytest.mark.parametrize(("mesh", "box"), MESHES)
@pytest.mark.parametrize("bins", [None, 3, [1.0, 4.0, 8.0]])
def test_it_is_the_power_spectrum_over_white_noise_s(mesh, box, bins):
    z = np.random.default_rng(0).normal(size=(3, *mesh))
    k, power, modes = fields.power_spectrum(z, box, bins)
    mine_k, chi2, mine = fields.chi_squared(z, box, bins)
    assert_allclose(mine_k, k)
    assert_array_equal(mine, modes)
    assert_allclose(chi2, power * modes * np.prod(mesh) / np.prod(box))


def test_white_noise_follows_the_chi_squared_distribution():
    """In every bin, independently; the mean and the Nyquist frequencies are one mode each."""
    z = np.random.default_rng(1).normal(size=(3000, 6, 4))
    _, chi2, modes = fields.chi_squared(z, 1.0, [0, 1, 8, 14, np.inf])
    assert modes[0] == 1
    for row, degrees in zip(chi2.T, modes, strict=True):
        assert stats.kstest(row, stats.chi2(degrees).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(chi2.T) - np.eye(4)).max() < 0.08


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bins_add_up_to_log_p(dtype):
    y = np.random.default_rng(0).uniform(0.5, 2, 60)
    x = fields.lognormal_field(
        lambda k: y[:, None, None] / (1 + k**2), (8, 8), box_size=8.0, seed=1
    )
    flow = pyflow.SymmetricFlow(
        x.astype(dtype), y_train=y, box_size=8.0, hidden=(8,), epochs=2, verbose=False
    )
    z, logj = flow.forward(x[:5], y[:5])
    _, chi2, modes = fields.chi_squared(z, 8.0, [0, 1, 2, 3, np.inf])
    logp = -0.5 * (chi2 + modes * np.log(2 * np.pi)).sum(axis=1) + logj
    assert_allclose(logp, flow.evaluate_density(x[:5], y[:5]), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(4),), "z: must have shape"),
        ((np.full((2, 2), np.nan),), "z: field 0 has pixels"),
        ((np.ones((4, 4)), 0), "box_size: must be positive"),
        ((np.ones((4, 4)), 1, [2, 1]), "bins: edges"),
        ((np.ones((4, 4)), 1, 0), "bins: must be at least 1"),
    ],
)
def test_bad_fields_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fields.chi_squared(*arguments)
