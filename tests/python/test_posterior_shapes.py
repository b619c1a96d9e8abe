"""Posteriors that are cut, bent or narrow, against their exact values, from few evaluations."""

import pickle
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from pyflow.posterior import Posterior


def unit(y):
    return -0.5 * (y**2).sum(axis=1)


def where(inside):
    return np.where(inside, 0.0, -np.inf)


def counted(log_density):
    """Return the log-density, and a list of how many points every call of it had."""
    calls = []

    def count(y):
        calls.append(len(y))
        return log_density(y)

    return count, calls


@pytest.mark.parametrize("as_prior", [True, False])
def test_half_a_gaussian(as_prior):
    def half(y):
        return where(y.sum(axis=1) < 0)

    error = 0.01 if as_prior else 0.05  # a likelihood with edges is evaluated at fewer points
    if as_prior:
        post = Posterior(unit, [(-6, 6)] * 2, log_prior=half)
    else:
        post = Posterior(lambda y: unit(y) + half(y), [(-6, 6)] * 2)
    assert_allclose(post.log_evidence, np.log(np.pi), atol=error)
    assert_allclose(post.mean, [-(np.pi**-0.5)] * 2, atol=error)
    for mass in (0.5, 0.68):
        assert_allclose(post.volume(mass), -np.pi * np.log(1 - mass), rtol=error)
    sample = post.sample(10_000, seed=0)
    assert (sample.sum(axis=1) < 0).all()
    across = -sample.sum(axis=1) / np.sqrt(2)
    assert stats.kstest(across, stats.halfnorm.cdf).statistic < max(0.02, error)
    assert post.credibility([1.0, 1.0]) == 1
    assert post.logp([1.0, 1.0]) == -np.inf
    nodes, density = post.marginal(0)
    cdf = stats.norm.cdf(-nodes[0])
    assert_allclose(density, 2 * stats.norm.pdf(nodes[0]) * cdf, atol=0.02)


def test_one_combination_of_three_is_known_well():
    axes = stats.ortho_group.rvs(3, random_state=1)
    log_density, calls = counted(lambda y: unit(y @ axes / [1, 1, 0.01]))
    post = Posterior(log_density, [(-8, 8)] * 3)
    volume = 4 / 3 * np.pi * stats.chi2(3).ppf(0.68) ** 1.5 * 0.01
    assert_allclose(post.figure_of_merit(), 1 / volume, rtol=0.01)
    assert_allclose(axes.T @ post.cov @ axes, np.diag([1, 1, 1e-4]), atol=2e-3)
    assert_allclose(np.linalg.det(post.cov), 1e-4, rtol=0.01)
    assert sum(calls) <= 3000


def test_two_parameters_of_correlation_0_9999():
    cov = np.array([[1, 0.9999], [0.9999, 1]])
    log_density, calls = counted(stats.multivariate_normal(cov=cov).logpdf)
    post = Posterior(log_density, [(-8, 8)] * 2)
    assert_allclose(post.cov, cov, rtol=2e-3)
    assert_allclose(np.linalg.det(post.cov), np.linalg.det(cov), rtol=5e-3)
    assert_allclose(post.log_evidence, 0, atol=1e-3)
    assert sum(calls) <= 600
    cut = Posterior(log_density, [(-8, 8), (-8, 0)])
    assert_allclose(cut.log_evidence, np.log(0.5), atol=0.01)
    assert_allclose(cut.mean[1], -np.sqrt(2 / np.pi), atol=0.01)


@pytest.mark.parametrize("width", [0.2, 0.15, 0.1])
def test_banana(width):
    def bent(y):
        return -0.5 * (y[:, 0] ** 2 + ((y[:, 1] - y[:, 0] ** 2) / width) ** 2)

    post = Posterior(bent, [(-4, 4)] * 2)
    axis = np.linspace(-4, 4, 4001)
    y = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(bent(y))
    evidence = np.log(density.sum() * 0.002**2)
    density /= density.sum()
    mean = density @ y
    assert_allclose(post.log_evidence, evidence, atol=0.01)
    assert_allclose(post.mean, mean, atol=0.01)
    assert_allclose(post.cov, (density * (y - mean).T) @ (y - mean), atol=0.01)
    order = np.cumsum(np.sort(density)[::-1])
    assert_allclose(post.volume(), np.searchsorted(order, 0.68) * 0.002**2, rtol=0.02)


def test_a_normal_cut_far_in_its_wing():
    post = Posterior(
        lambda y: -0.5 * y[:, 0] ** 2, [(-9, 9)], log_prior=lambda y: where(y[:, 0] > 3)
    )
    exact = stats.truncnorm(3, 9)
    assert_allclose(post.mean, exact.mean(), atol=1e-3)
    assert_allclose(post.cov, [[exact.var()]], rtol=0.01)
    post = Posterior(lambda y: -0.5 * y[:, 0] ** 2, [(0.003, 9)])
    assert_allclose(post.mean, stats.truncnorm(0.003, 9).mean(), atol=1e-3)


@pytest.mark.parametrize("as_prior", [True, False])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_top_hat(p, as_prior):
    low, high = 0.31, 0.74

    def hat(y):
        return where(((y > low) & (y < high)).all(axis=1))

    how = {"log_prior": hat} if as_prior else {}
    post = Posterior((lambda y: 0.0) if as_prior else hat, [(-1, 1)] * p, **how)
    assert_allclose(post.mean, (low + high) / 2, atol=0.01)
    assert_allclose(post.log_evidence, p * np.log(high - low), atol=0.03 * p)
    assert np.isfinite(hat(post.sample(2000, seed=0))).all()
    assert np.isfinite(post.cov).all()


def test_few_evaluations():
    for p, most in ((1, 100), (2, 300), (3, 2500)):
        log_density, calls = counted(
            lambda y: unit((y - 0.1) / 0.2) - 0.3 * ((y - 0.1) ** 3).sum(1)
        )
        Posterior(log_density, [(-3, 3)] * p)
        assert sum(calls) <= most
        assert len(calls) <= 8


def test_pickle():
    post = Posterior(unit, [(-6, 6)] * 2, log_prior=partial(np.sum, axis=1))
    same = pickle.loads(pickle.dumps(post))
    assert (same.sample(5, seed=1) == post.sample(5, seed=1)).all()
    assert_allclose(same.mean, 1, atol=1e-3)
