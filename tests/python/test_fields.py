"""Power spectra, and random fields against dense covariance matrices."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from pyflow import fields


def gaussian(mean, cov):
    return stats.multivariate_normal(mean, cov, allow_singular=False).logpdf


MESHES = [((3, 4), (2.0, 3.0)), ((4, 5), (1.0, 1.0)), ((2, 3, 4), (2.0, 3.0, 4.0))]


def power(k):
    return 0.05 / (1 + (k / 3.0) ** 2)


def dense(mesh, box):
    """Covariance matrix of the pixels, from the definition: sum over modes of P / V cos(k r)."""
    axes = [2 * np.pi * np.fft.fftfreq(n, L / n) for n, L in zip(mesh, box, strict=True)]
    k = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
    size = np.sqrt((k**2).sum(axis=1))
    size[0] = size[1:].min()
    pixels = [np.arange(n) * L / n for n, L in zip(mesh, box, strict=True)]
    r = np.stack([a.ravel() for a in np.meshgrid(*pixels, indexing="ij")], axis=1)
    phase = (r[:, None, :] - r[None, :, :]) @ k.T
    return (power(size) * np.cos(phase)).sum(axis=-1) / np.prod(box)


@pytest.mark.parametrize(("mesh", "box"), MESHES)
def test_gaussian_fields(mesh, box):
    cov = dense(mesh, box)
    x = fields.gaussian_field(power, mesh, 20000, box_size=box, seed=0)
    flat = x.reshape(len(x), -1)
    assert_allclose(np.cov(flat.T), cov, atol=0.05 * cov.max())
    exact = gaussian(np.zeros(len(cov)), cov)
    assert_allclose(fields.gaussian_logp(x[:9], power, box), exact(flat[:9]), rtol=1e-9)


@pytest.mark.parametrize(("mesh", "box"), MESHES)
def test_lognormal_fields(mesh, box):
    cov = dense(mesh, box)
    under = np.log1p(cov)
    x = fields.lognormal_field(power, mesh, 40000, box_size=box, seed=0)
    flat = x.reshape(len(x), -1)
    assert x.min() > -1
    assert_allclose(flat.mean(axis=0), 0, atol=0.02)
    assert_allclose(np.cov(flat.T), cov, atol=0.1 * cov.max())
    g = np.log1p(flat[:9])
    exact = gaussian(-under[0, 0] / 2 * np.ones(len(cov)), under)(g) - g.sum(axis=1)
    assert_allclose(fields.lognormal_logp(x[:9], power, box), exact, rtol=1e-9)
    assert fields.lognormal_logp(x[:1] * 0 - 1, power, box)[0] == -np.inf


@pytest.mark.parametrize(("mesh", "box"), [((32, 24), (64.0, 60.0)), ((12, 11, 12), (9.0,) * 3)])
def test_power_spectrum(mesh, box):
    x = fields.gaussian_field(lambda k: 3 * k**-2.0, mesh, 300, box_size=box, seed=1)
    k, measured, modes = fields.power_spectrum(x, box, bins=12)
    assert measured.shape == (300, len(k))
    assert np.all(modes > 0)
    wave, weight = fields.wavenumbers(mesh, box)
    assert weight.sum() == np.prod(mesh)
    edges = np.linspace(2 * np.pi / max(box) / 2, wave.max() * 2, 2)
    assert fields.power_spectrum(x, box, bins=edges)[2].sum() == np.prod(mesh) - 1
    error = np.sqrt(2 / modes / 300)
    # P is steep within a bin: compare with its mean over the modes
    exact = [
        np.average(3 * wave[inside] ** -2.0, weights=weight[inside])
        for lo, hi in zip(*_edges(mesh, box, 12), strict=True)
        if (inside := (wave >= lo) & (wave < hi) & (wave > 0)).any()
    ]
    assert np.all(np.abs(measured.mean(axis=0) / exact - 1) < 5 * error + 1e-3)
    one = fields.power_spectrum(x[:1], box, bins=12)[1]
    assert_array_equal(one, measured[:1])


def _edges(mesh, box, n):
    high = min(np.pi * m / L for m, L in zip(mesh, box, strict=True))
    edges = np.linspace(np.pi / max(box), high, n + 1)
    return edges[:-1], edges[1:]


def test_parseval():
    x = np.random.default_rng(0).normal(size=(3, 8, 7))
    _, measured, modes = fields.power_spectrum(x, (2.0, 3.0), bins=[1e-9, 1e9])
    assert_allclose(measured[:, 0] * modes / 6.0, x.var(axis=(1, 2)))


def test_pdf():
    x = np.random.default_rng(0).normal(size=(1000, 16, 16))
    centre, density = fields.pdf(x, bins=40, limits=(-3, 3))
    assert_allclose(density * 0.9973, stats.norm.pdf(centre), atol=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fields.power_spectrum(np.ones(4)), "x: must have shape"),
        (lambda: fields.power_spectrum(np.full((2, 2), np.nan)), "x: field 0 has pixels"),
        (lambda: fields.power_spectrum(np.ones((4, 4)), 0), "box_size: must be positive"),
        (lambda: fields.power_spectrum(np.ones((4, 4)), 1, bins=[2, 1]), "bins: edges"),
        (lambda: fields.gaussian_field(lambda k: -k, (4, 4)), "power: must be positive"),
        (lambda: fields.gaussian_field(lambda k: k[:2], (4, 5)), "power: gives shape"),
        (lambda: fields.gaussian_field(power, (4,)), "mesh: must have two or three"),
        (lambda: fields.gaussian_field(power, (4, 4), -1), "n: must be at least"),
        (lambda: fields.lognormal_field(lambda k: 9 * k**3, (8, 8)), "power: no lognormal"),
    ],
)
def test_bad_fields(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mesh", "box"), [((8, 12), (2.0, 3.0)), ((6, 7, 8), 5.0), ((9, 4), 1.0)])
@pytest.mark.parametrize("bins", [None, 3, [-5.0, 4.0, 1e9]])
def test_a_constant_added_changes_no_power(mesh, box, bins):
    """k = 0 lies in no bin, not even in one that begins below it."""
    x = np.random.default_rng(0).normal(size=(3, *mesh))
    k, power, modes = fields.power_spectrum(x, box, bins)
    for c in (1e3, -7.0):
        shifted = fields.power_spectrum(x + c, box, bins)
        assert_allclose(shifted[1], power, rtol=1e-9)
        assert_array_equal(shifted[2], modes)
    assert k[0] >= 2 * np.pi / np.max(box) * (1 - 1e-12)
    if isinstance(bins, list):
        assert modes.sum() == np.prod(mesh) - 1
    flat = np.full((1, *mesh), 3.0)
    assert_allclose(fields.power_spectrum(flat, box, bins)[1], 0, atol=1e-20)


def test_float32_gives_what_its_copy_in_float64_gives():
    x = fields.lognormal_field(1e-3, (12, 10), 5, seed=1).astype(np.float32)
    for function in (
        lambda x: fields.power_spectrum(x, 3.0),
        lambda x: fields.pdf(x, 7),
        lambda x: fields.pdf(x, 7, (-0.5, 0.5)),
        lambda x: [fields.gaussian_logp(x, 1e-3)],
        lambda x: [fields.lognormal_logp(x, 1e-3)],
    ):
        for a, b in zip(function(x), function(x.astype(np.float64)), strict=True):
            assert a.dtype == b.dtype
            assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("mesh", "box"),
    [((8, 8), (1.0, 1.0)), ((16, 12), (2.0, 2.0)), ((8, 12), (2.0, 5.0)), ((6, 7, 8), (3.0,) * 3)],
)
def test_default_bins_end_at_the_nyquist_frequency(mesh, box):
    """They are centred on the multiples of the lowest frequency, up to the lowest Nyquist's."""
    axes = [2 * np.pi * np.fft.fftfreq(n, L / n) for n, L in zip(mesh, box, strict=True)]
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))).ravel()
    low = 2 * np.pi / max(box)
    nyquist = min(np.pi * n / L for n, L in zip(mesh, box, strict=True))
    centres = np.arange(1, int(nyquist / low + 1e-9) + 1) * low
    assert centres[-1] <= nyquist * (1 + 1e-9) < centres[-1] + low
    found, _, modes = fields.power_spectrum(np.ones((1, *mesh)), box)
    expected = [k[(k >= c - low / 2) & (k < c + low / 2)] for c in centres]
    expected = [inside for inside in expected if len(inside)]
    assert_array_equal(modes, [len(inside) for inside in expected])
    assert_allclose(found, [inside.mean() for inside in expected])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_axis_has_its_own_length(axis):
    """A wave along one axis has that axis' wave number, and the power of its square."""
    mesh, box, waves = (6, 8, 10), (2.0, 3.0, 7.0), 2
    position = np.arange(mesh[axis]) / mesh[axis]
    shape = [-1 if i == axis else 1 for i in range(3)]
    wave = np.cos(2 * np.pi * waves * position).reshape(shape) * np.ones(mesh)
    exact = 2 * np.pi * waves / box[axis]
    k, power, modes = fields.power_spectrum(wave[None], box, [0.999 * exact, 1.001 * exact])
    assert_allclose(k, exact)
    assert_allclose(power[0] * modes, np.prod(box) / 2)  # <x^2> V, of one bin alone
    wave_numbers, weight = fields.wavenumbers(mesh, box)
    place = tuple(1 if i == axis else 0 for i in range(3))
    assert_allclose(wave_numbers[place], 2 * np.pi / box[axis])
    assert weight[place] == (2 if axis == 2 else 1)


@pytest.mark.parametrize(("mesh", "box"), MESHES)
def test_filtered_fields(mesh, box):
    """Against the circulant matrix of the kernel; a spectrum is filtered by the square."""
    kernel = dense(mesh, box) * np.prod(box) / np.prod(mesh)
    x = np.random.default_rng(0).normal(size=(3, *mesh))

    def transfer(k):
        return power(np.where(k > 0, k, k[k > 0].min()))

    y = fields.filtered(x, transfer, box)
    assert_allclose(y.reshape(3, -1), x.reshape(3, -1) @ kernel.T, atol=1e-12)
    if len(mesh) == 2:
        assert_array_equal(fields.filtered(x[0], transfer, box), y[0])
    with pytest.raises(ValueError, match="transfer: "):
        fields.filtered(x, lambda k: k[0], box)
    with pytest.raises(ValueError, match="transfer: "), np.errstate(divide="ignore"):
        fields.filtered(x, lambda k: 1 / k, box)


def test_cross_correlation():
    rng, box, bins = np.random.default_rng(1), (3.0, 4.0), [0.1, 3, 6, 9]
    a, b = rng.normal(size=(2, 5, 8, 10))
    k, r, modes = fields.cross_correlation(a, b, box, bins)
    at, number = fields.wavenumbers((8, 10), box)
    fa, fb = np.fft.rfftn(a, axes=(1, 2)), np.fft.rfftn(b, axes=(1, 2))
    for i, (low, high) in enumerate(itertools.pairwise(bins)):
        here = number * ((at >= low) & (at < high))
        cross, of_a, of_b = (
            (here * (p.conj() * q).real).sum(axis=(1, 2)) for p, q in ((fa, fb), (fa, fa), (fb, fb))
        )
        assert_allclose(r[:, i], cross / np.sqrt(of_a * of_b), atol=1e-12)
        assert modes[i] == here.sum()
        assert k[i] == pytest.approx((here * at).sum() / here.sum())
    assert_allclose(fields.cross_correlation(a[0], -a[0], box)[1], -1)
    with pytest.raises(ValueError, match="b: has shape"):
        fields.cross_correlation(a, b[:4])
