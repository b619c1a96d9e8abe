"""Posteriors on a grid, against Gaussians; random fields, against dense matrices."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from pyflow import fields
from pyflow.posterior import Posterior


def gaussian(mean, cov):
    return stats.multivariate_normal(mean, cov, allow_singular=False).logpdf


def covariance(p, rho, scale):
    sigma = scale * np.arange(1.0, p + 1)
    return np.outer(sigma, sigma) * ((1 - rho) * np.eye(p) + rho)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize(("scale", "rho"), [(0.1, 0.0), (0.1, 0.9), (1e-4, 0.0), (1e-3, 0.6)])
def test_gaussian_in_a_wide_box(p, rho, scale):
    mean, cov = np.linspace(0.3, 0.7, p), covariance(p, rho, scale)
    seen = []

    def log_density(y):
        seen.append(len(y))
        return np.atleast_1d(gaussian(mean, cov)(y)) + 3

    post = Posterior(log_density, [(-5, 6)] * p)
    assert_allclose(post.mean, mean, atol=1e-3 * scale)
    assert_allclose(post.cov, cov, rtol=1e-3, atol=1e-4 * scale**2)
    assert_allclose(post.log_evidence, 3, atol=1e-3)
    assert_allclose(post.logp(mean), gaussian(mean, cov)(mean), atol=1e-3)
    for mass in (0.68, 0.95):
        radius = stats.chi2(p).ppf(mass) ** 0.5
        ball = {1: 2, 2: np.pi, 3: 4 / 3 * np.pi}[p]
        volume = ball * radius**p * np.sqrt(np.linalg.det(cov))
        assert_allclose(post.volume(mass), volume, rtol=0.02)
        assert_allclose(post.figure_of_merit(mass), 1 / volume, rtol=0.02)
    truth = np.random.default_rng(0).multivariate_normal(mean, cov, 2000)
    distance = np.einsum("ij,jk,ik->i", truth - mean, np.linalg.inv(cov), truth - mean)
    assert_allclose(post.credibility(truth), stats.chi2(p).cdf(distance), atol=0.02)
    sample = post.sample(4000, seed=1)
    assert_allclose(np.cov(sample.T).reshape(p, p), cov, rtol=0.15, atol=0.1 * cov.max())
    assert sum(seen) < {1: 3000, 2: 30000, 3: 300000}[p]


def test_a_posterior_that_is_not_found_is_warned_of():
    mean, cov = np.linspace(0.3, 0.7, 3), covariance(3, 0.9, 1e-4)
    with pytest.warns(RuntimeWarning, match="give narrower bounds"):
        Posterior(gaussian(mean, cov), [(-5, 6)] * 3)


def test_two_peaks():
    def log_density(y):
        return np.logaddexp(*(-0.5 * ((y[:, 0] - m) / 0.1) ** 2 for m in (-2, 2)))

    post = Posterior(log_density, [(-9, 9)])
    assert_allclose(post.mean, 0, atol=1e-3)
    assert_allclose(post.volume(0.68), 4 * 0.1 * stats.norm.ppf(0.84), rtol=0.03)


def test_flat():
    post = Posterior(lambda y: np.zeros(len(y)), [(0, 2), (1, 4)], names=["a", "b"])
    assert_allclose(post.mean, [1, 2.5])
    assert_allclose(post.log_evidence, np.log(6))
    assert_allclose(post.volume(0.5), 3, rtol=0.01)
    sample = post.sample(2000, seed=0)
    assert stats.kstest(sample[:, 0] / 2, "uniform").pvalue > 1e-3
    assert "a=1" in repr(post)


def test_marginal():
    """Of a Gaussian: a Gaussian of the same columns of the covariance, whatever their order."""
    cov = np.array([[1.0, 0.6, -0.3], [0.6, 2.0, 0.0], [-0.3, 0.0, 0.5]])
    post = Posterior(gaussian(np.zeros(3), cov), [(-9, 9)] * 3, names=["a", "b", "c"])
    for which in ([1], [2, 0], [1, 2, 0]):
        nodes, density = post.marginal(*which)
        points = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
        exact = stats.multivariate_normal(cov=cov[np.ix_(which, which)]).pdf(points)
        assert_allclose(density, exact, atol=0.02 * exact.max())
        named, same = post.marginal(*(post.names[j] for j in which))
        assert_allclose(same, density)
        assert_allclose(named[0], nodes[0])
    for which, error in (
        ([], ValueError),
        ([0, 0], ValueError),
        ([3], ValueError),
        (["d"], TypeError),
    ):
        with pytest.raises(error, match="parameters:"):
            post.marginal(*which)


def test_marginal_of_a_density_that_ends_at_the_bounds():
    post = Posterior(lambda y: np.zeros(len(y)), [(0, 2), (1, 5)])
    for which, exact in (([0], 1 / 2), ([1], 1 / 4), ([1, 0], 1 / 8)):
        assert_allclose(post.marginal(*which)[1], exact, rtol=1e-6)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_plot(p):
    post = Posterior(gaussian(np.zeros(p), np.eye(p)), [(-9, 9)] * p)
    figure = post.plot(truth=np.zeros(p))
    assert len(figure.axes) == p * p
    assert post.plot(axes=np.array(figure.axes)) is figure
    import matplotlib.pyplot as plt

    plt.close(figure)


@pytest.mark.parametrize(
    ("bounds", "options", "message"),
    [
        ([(0, 1)] * 4, {"method": "grid"}, "method: a grid serves"),
        ([(1, 0)], {}, "bounds: 1.0 is not below"),
        ([(0, 1)], {"names": ["a", "b"]}, "names: 2 names"),
        ([(0, 1)], {"grid": 1}, "grid: must be"),
    ],
)
def test_bad_arguments(bounds, options, message):
    with pytest.raises(ValueError, match=message):
        Posterior(lambda y: y[:, 0], bounds, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_densities(value):
    with pytest.raises(ValueError, match="log_density: gave NaN or infinity"):
        Posterior(lambda y: np.full(len(y), value), [(0, 1)])
    with pytest.raises(ValueError, match="log_density: gave shape"):
        Posterior(lambda y: y, [(0, 1)])


# ---- fields --------------------------------------------------------------------------------------

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
