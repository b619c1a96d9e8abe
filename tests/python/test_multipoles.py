"""Power spectra about a line of sight: multipoles of fields whose spectrum is known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

from pyflow import fields

MESHES = [(16, 12), (8, 10, 9)]


def power(k, mu):
    return (1 + 0.8 * mu**2) ** 2 / k


def modes(mesh, box, axis):
    """|k|, mu and modes of every mode of fftn, one after another."""
    k, mu = [], []
    for index in np.ndindex(*mesh):
        whole = (i if 2 * i <= n else i - n for i, n in zip(index, mesh, strict=True))
        f = [2 * np.pi * i / side for i, side in zip(whole, box, strict=True)]
        k.append(np.sqrt(np.dot(f, f)))
        mu.append(abs(f[axis]) / k[-1] if k[-1] else 0)
    return np.array(k), np.array(mu)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cosines_are_those_of_every_mode(mesh, axis):
    box = np.linspace(1, 2, len(mesh))
    half = (*[slice(None)] * (len(mesh) - 1), slice(mesh[-1] // 2 + 1))
    expected = modes(mesh, box, axis)[1].reshape(mesh)[half]
    assert_allclose(fields.cosines(mesh, box, axis), expected, atol=1e-12)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize("axis", [0, -1])
def test_multipoles_are_weighted_means_over_all_modes(mesh, axis):
    box = np.linspace(1, 2, len(mesh))
    x = np.random.default_rng(1).normal(size=(3, *mesh))
    k, mu = modes(mesh, box, axis)
    edges = 1.0001 * np.quantile(k[k > 0], [0.1, 0.5, 0.9])  # at no mode
    square = np.abs(np.fft.fftn(x, axes=range(1, x.ndim))).reshape(3, -1) ** 2
    square *= np.prod(box) / np.prod(mesh) ** 2
    expected = np.empty((3, 3, 2))
    for j, order in enumerate((0, 2, 4)):
        weight = (2 * order + 1) * special.eval_legendre(order, mu)
        if len(mesh) == 2:
            weight = (1 if order == 0 else 2) * special.eval_chebyt(order, mu)
        for b in range(2):
            inside = (k >= edges[b]) & (k < edges[b + 1])
            expected[:, j, b] = (square * weight)[:, inside].mean(axis=1)
    mean_k, found, count = fields.power_multipoles(x, box, axis, bins=edges)
    assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * abs(expected).max())
    same_k, monopole, same = fields.power_spectrum(x, box, edges)
    assert_allclose(found[:, 0], monopole)
    assert_allclose(mean_k, same_k)
    assert (count == same).all()
    one = fields.power_multipoles(x[0], box, axis, bins=edges)[1] if len(mesh) == 2 else found[0]
    assert_allclose(one, found[0])


def test_multipoles_of_redshift_space_are_kaiser_s():
    """P_2 / P_0 at high k, where a bin has modes in all directions."""
    x = fields.gaussian_field(power, (24, 24, 24), 30, box_size=24.0, seed=2, axis=1)
    k, found, _ = fields.power_multipoles(x, 24.0, 1, bins=[1.5, 2.0, 2.5, 3.0])
    b = 0.8
    expected = [1 + 2 * b / 3 + b * b / 5, 4 * b / 3 + 4 * b * b / 7, 8 * b * b / 35]
    scaled = found * k
    error = scaled.std(axis=0) / np.sqrt(len(x))
    tolerance = 4 * error + 0.02  # bins are wide, modes on a lattice
    assert (abs(scaled.mean(axis=0) - np.array(expected)[:, None]) < tolerance).all()
    assert error[1].max() < 0.1 * expected[1]
    turned = fields.power_multipoles(x, 24.0, 0, bins=[1.5, 3.0])[1].mean(axis=0)
    assert turned[1] < 0  # across the line of sight it looks squashed the other way


def test_anisotropic_density_is_that_of_the_modes():
    x = fields.gaussian_field(power, (4, 5, 6), 4, box_size=2.0, seed=3, axis=0)
    k, mu = modes((4, 5, 6), (2.0,) * 3, 0)
    k[0] = k[k > 0].min()
    c = power(k, mu) * k.size / 8
    square = np.abs(np.fft.fftn(x, axes=(1, 2, 3))).reshape(4, -1) ** 2 / k.size
    expected = -0.5 * (square / c + np.log(2 * np.pi * c)).sum(axis=1)
    assert_allclose(fields.gaussian_logp(x, power, 2.0, axis=0), expected)


def test_lognormal_fields_have_the_spectrum():
    def low(k, mu):
        return 0.01 * (1 + mu**2) ** 2 / (1 + k**2)

    x = fields.lognormal_field(low, (16, 16), 400, box_size=16.0, seed=4, axis=0)
    found = fields.power_multipoles(x, 16.0, 0, bins=[0.3, 1.0, 2.0])[1]
    k, modes = fields.wavenumbers((16, 16), 16.0)
    mu = fields.cosines((16, 16), 16.0, 0)
    for b, (lo, hi) in enumerate([(0.3, 1.0), (1.0, 2.0)]):
        inside = (k >= lo) & (k < hi)
        for j, m in enumerate((0, 2)):
            weight = modes * min(m + 1, 2) * special.eval_chebyt(m, mu) * low(k, mu)
            expected = weight[inside].sum() / modes[inside].sum()
            each = found[:, j, b]
            assert abs(each.mean() - expected) < 4 * each.std() / np.sqrt(len(each))
    assert np.isfinite(fields.lognormal_logp(x, low, 16.0, axis=0)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis": 2}, "axis: must be"),
        ({"multipoles": (0, 3)}, "multipoles: must be even"),
        ({"multipoles": ()}, "multipoles: must be even"),
        ({"multipoles": (-2,)}, "multipoles: must be"),
    ],
)
def test_bad_multipoles_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        fields.power_multipoles(np.random.default_rng(5).normal(size=(8, 8)), **options)
