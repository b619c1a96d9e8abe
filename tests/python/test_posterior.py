"""Posteriors on a grid, against Gaussians."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from pyflow.posterior import Posterior, log_prior_of


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
    assert sum(seen) < 2001 + {1: 200, 2: 600, 3: 3500}[p]  # of `logp` and `credibility`


def test_a_posterior_that_no_grid_resolves_is_warned_of(monkeypatch):
    """Two needles that differ in their parameters, a thousand widths apart; without a chain."""
    monkeypatch.setitem(sys.modules, "emcee", None)

    def needles(y):
        return np.logaddexp(*(-0.5 * (((y - m) / 1e-3) ** 2).sum(axis=1) for m in (-0.5, 0.5)))

    with pytest.warns(RuntimeWarning, match=r"^grid: the posterior of y0, y1 is .*give narrower"):
        Posterior(needles, [(-1, 1)] * 2)


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
    """On the diagonal are the marginals, and the truth is in all; more is drawn over it."""
    mean, cov = np.linspace(0.3, 0.7, p), covariance(p, 0.5, 0.1)
    post = Posterior(gaussian(mean, cov), [(-9, 9)] * p)
    figure = post.plot(truth=mean)
    grid = np.array(figure.axes).reshape(p, p)
    for i in range(p):
        x, y = grid[i, i].lines[0].get_data()
        assert_allclose(y, np.exp(-0.5 * (x - mean[i]) ** 2 / cov[i, i]), atol=5e-3)
        for j in range(i + 1):
            assert grid[i, j].axison
            marks = grid[i, j].lines[-1 if i == j else -2 :]
            assert_array_equal(marks[0].get_xdata(), mean[j])
            if i > j:
                assert_array_equal(marks[1].get_ydata(), mean[i])
        for j in range(i + 1, p):
            assert not grid[i, j].axison
    before = [len(axes.lines) for axes in grid.flat]
    assert post.plot(axes=np.array(figure.axes)) is figure
    for k, axes in enumerate(grid.flat):
        assert len(axes.lines) == before[k] + (k % (p + 1) == 0)


@pytest.mark.parametrize("method", ["grid", "emcee"])
def test_a_longer_sample_begins_with_the_shorter(method):
    if method == "emcee":
        pytest.importorskip("emcee")
    post = Posterior(gaussian(np.zeros(2), covariance(2, 0.5, 1)), [(-9, 9)] * 2, method=method)
    long = post.sample(1000, seed=1)
    for n in (0, 1, 5, 7, 999):
        assert_array_equal(post.sample(n, seed=1), long[:n])
    assert (post.sample(1000, seed=2) != long).any(axis=1).mean() > 0.9
    assert (post.sample(5) != post.sample(5)).any()
    rng = np.random.default_rng(1)
    assert (post.sample(5, seed=rng) != post.sample(5, seed=rng)).any()


def test_samples_follow_the_density():
    """Every parameter's distribution, and both of their walls: of a density that is cut."""
    post = Posterior(lambda y: -y[:, 0] - 2 * y[:, 1], [(0, 30), (0, 30)])
    sample = post.sample(20_000, seed=0)
    assert stats.kstest(sample[:, 0], "expon").pvalue > 1e-3
    assert stats.kstest(2 * sample[:, 1], "expon").pvalue > 1e-3
    assert abs(stats.spearmanr(*sample.T).statistic) < 0.03


def test_a_number_is_the_density_of_all_points():
    post = Posterior(lambda y: 0.0, [(0, 2), (1, 4)])
    assert_allclose(post.log_evidence, np.log(6))
    y = np.zeros((3, 2))
    assert_array_equal(log_prior_of(lambda y: 1, y), [1, 1, 1])
    assert_array_equal(log_prior_of(lambda y: y[:, 0] - np.inf, y), [-np.inf] * 3)
    for prior, message in (
        (lambda y: y, r"gave shape \(3, 2\) for 3 points"),
        (lambda y: y[:1, 0], r"gave shape \(1,\) for 3 points"),
        (lambda y: np.nan, "gave NaN or infinity"),
        (lambda y: np.inf, "gave NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=f"^prior: {message}"):
            log_prior_of(prior, y)


@pytest.mark.parametrize("method", ["grid", "emcee"])
def test_numpy_may_raise_whatever_it_likes(method):
    """Far from the peak a density is less than the least number: no error, and no other result."""
    if method == "emcee":
        pytest.importorskip("emcee")

    def narrow(y):
        return -0.5 * ((y / 1e-3) ** 2).sum(axis=1)

    def everything():
        post = Posterior(narrow, [(-9, 9)] * 2, method=method, steps=None)
        return [
            post.mean,
            post.cov,
            post.sample(9, seed=1),
            post.volume(),
            post.credibility(np.zeros(2)),
            post.logp(np.ones((1, 2))),
            *post.marginal(0)[0],
            post.marginal(0, 1)[1],
        ]

    expected = everything()
    with np.errstate(all="raise"):
        state = np.geterr()
        found = everything()
        assert np.geterr() == state
    for a, b in zip(found, expected, strict=True):
        assert_array_equal(a, b)


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


def test_a_kernel_density_as_a_prior():
    chain = np.random.default_rng(0).normal([0.2, -0.1], 0.1, size=(300, 2))
    kde = stats.gaussian_kde(chain.T)
    post = Posterior(lambda y: 0.0, [(-1, 1)] * 2, log_prior=kde)
    assert_allclose(post.mean, chain.mean(axis=0), atol=0.005)
    assert_allclose(post.logp([0.2, -0.1]), kde.logpdf([0.2, -0.1])[0], atol=0.02)
