"""The benchmark of simulation-based inference: tasks, exact posteriors, C2ST and its sampler."""

import inspect

import benches
import numpy as np
import pytest
from scipy import stats

import pyflow

TASKS = "two_moons", "slcp", "gaussian_linear", "gaussian_linear_uniform", "gaussian_mixture"
QUICK = [name for name in TASKS if name != "slcp"]


@pytest.fixture(scope="module")
def bench():
    return benches.load("bench_sbi")


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def chi_squared(name, theta, x):
    """Return what is chi-squared of rows (theta, x), the degrees, by formulas written out anew."""
    if name == "two_moons":
        p = x[:, 0] + np.abs(theta.sum(axis=1)) / np.sqrt(2) - 0.25
        q = x[:, 1] - (theta[:, 1] - theta[:, 0]) / np.sqrt(2)
        assert (p > 0).all()
        return ((np.hypot(p, q) - 0.1) / 0.01) ** 2, 1
    if name == "slcp":
        gaps = x.reshape(-1, 4, 2) - theta[:, None, :2]
        s1, s2, rho = theta[:, 2] ** 2, theta[:, 3] ** 2, np.tanh(theta[:, 4])
        off = rho * s1 * s2
        cov = np.array([[s1**2, off], [off, s2**2]]).transpose(2, 0, 1)
        return np.einsum("nki,nij,nkj->n", gaps, np.linalg.inv(cov), gaps), 8
    return ((x - theta) ** 2).sum(axis=1) / 0.1, 10


@pytest.mark.parametrize("name", [name for name in TASKS if name != "gaussian_mixture"])
def test_published_observations_and_simulations_have_the_tasks_noise(bench, rng, name):
    task = bench.TASKS[name]
    theta = np.array(bench.PUBLISHED["tasks"][name]["parameters"])
    assert np.isfinite(task.log_prior(theta)).all()
    value, degrees = chi_squared(name, theta, task.observations)
    assert stats.kstest(value, stats.chi2(degrees).cdf).pvalue > 1e-3
    theta = task.prior(rng, 4000)
    value, _ = chi_squared(name, theta, task.simulate(rng, theta))
    assert stats.kstest(value, stats.chi2(degrees).cdf).pvalue > 1e-3


def test_noise_of_the_mixture(bench, rng):
    task = bench.TASKS["gaussian_mixture"]
    theta = np.array(bench.PUBLISHED["tasks"][task.name]["parameters"])
    drawn = task.prior(rng, 4000)
    for gap in (task.observations - theta, task.simulate(rng, drawn) - drawn):
        radius = np.hypot(*gap.T)  # one scale for both columns
        cdf = lambda r: 0.5 * sum(stats.rayleigh(scale=s).cdf(r) for s in (1, 0.1))  # noqa: E731
        assert stats.kstest(radius, cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", QUICK)
def test_theta_ranks_anywhere_among_draws_of_its_posterior(bench, rng, name):
    """Theta and draws of p(theta | x) are exchangeable, near the box's faces too."""
    task = bench.TASKS[name]
    theta = task.prior(rng, 1500)
    x = task.simulate(rng, theta)
    draws = np.array([task.posterior(rng, one, 9) for one in x])
    for what in (lambda t: t[..., 0], lambda t: t[..., -1], lambda t: (t**2).sum(axis=-1)):
        ranks = (what(draws) < what(theta)[:, None]).sum(axis=1)
        assert stats.chisquare(np.bincount(ranks, minlength=10)).pvalue > 1e-3


def test_posterior_of_two_moons_has_the_noise(bench, rng):
    """There too where some noise cannot be: |theta_1 + theta_2| is not negative."""
    task = bench.TASKS["two_moons"]
    for x in (*task.observations[:3], np.array([0.3, 0.1])):
        draws = task.posterior(rng, x, 4000)
        value, _ = chi_squared(task.name, draws, np.tile(x, (len(draws), 1)))
        assert stats.kstest(value, stats.chi2(1).cdf).pvalue > 1e-3


def test_posterior_of_slcp_is_that_of_weighted_prior_draws(bench, rng):
    """Points so wide that the box cuts m and s: the mean of each column, by importance sampling."""
    task = bench.TASKS["slcp"]
    x = np.array([4.0, 3, -1, 2, 3, -4, -2, 1])
    draws = task.posterior(rng, x, 20_000)
    theta = task.prior(rng, 200_000)
    value, _ = chi_squared("slcp", theta, np.tile(x, (len(theta), 1)))
    logp = -0.5 * value - 4 * np.log(theta[:, 2] ** 2 * theta[:, 3] ** 2 / np.cosh(theta[:, 4]))
    weights = np.exp(logp - logp.max())
    weights /= weights.sum()
    assert 1 / (weights**2).sum() > 5000
    for of in (lambda t: t, np.abs, lambda t: t[:, [0, 2]] * t[:, [1, 4]]):
        here, there = of(draws), of(theta)
        mean = weights @ there
        error = np.sqrt(weights**2 @ (there - mean) ** 2 + here.var(axis=0) / len(here))
        assert (np.abs(here.mean(axis=0) - mean) < 4 * error).all()


def test_c2st_of_gaussians_is_the_best_rule(bench, rng):
    """Cut halfway, N(0, 1) and N(1, 1) are told apart in Phi(1/2) of the cases."""
    x, y = rng.normal(size=(2, 400, 1))
    assert bench.c2st(x, y) == pytest.approx(0.5, abs=0.04)
    assert bench.c2st(1e3 * x, 1e3 * (y + 1)) == pytest.approx(stats.norm.cdf(0.5), abs=0.04)


def test_annealing_finds_both_moons(bench, rng):
    task = bench.TASKS["two_moons"]
    x = task.observations[0]

    def excess(theta):
        p, q = (x - task.centre(theta)).T - [[0.25], [0.0]]
        radius = np.hypot(p, q)
        return np.where(p > 0, stats.norm.logpdf(radius, 0.1, 0.01) - np.log(radius), -np.inf)

    found = bench.anneal(excess, task, rng, 2000)
    truth = task.posterior(rng, x, 2000)
    for what in (lambda t: t.sum(axis=1), lambda t: t[:, 0] - t[:, 1]):
        assert stats.ks_2samp(what(found), what(truth)).pvalue > 1e-3


def test_annealing_with_a_prior_that_is_not_flat(bench, rng):
    task = bench.TASKS["gaussian_linear"]
    x = task.observations[0]
    found = bench.anneal(lambda theta: -5 * ((x - theta) ** 2).sum(axis=1), task, rng, 4000)
    assert found.mean(axis=0) == pytest.approx(x / 2, abs=0.02)
    assert np.cov(found.T) == pytest.approx(0.05 * np.eye(10), abs=0.006)


@pytest.mark.filterwarnings("ignore:.*outside of the training range")
@pytest.mark.parametrize(
    "method",
    [
        pytest.param("npe", marks=pytest.mark.slow),
        pytest.param("nle", marks=pytest.mark.slow),
        "joint",
        "gaussian",
        "exact",
    ],
)
def test_methods_find_a_gaussian_posterior(bench, rng, method):
    if method in bench.CONDITIONAL and "condition" not in inspect.signature(pyflow.GIS).parameters:
        pytest.skip("GIS takes no condition")
    task = bench.TASKS["gaussian_linear"]
    theta = task.prior(rng, 1000)
    sampler = bench.METHODS[method](task, theta, task.simulate(rng, theta), 0)
    samples = sampler(task.observations[0], 1000)
    assert samples.shape == (1000, 10)
    assert samples.mean(axis=0) == pytest.approx(task.observations[0] / 2, abs=0.1)
    assert samples.std(axis=0) == pytest.approx(np.sqrt(0.05), rel=0.2)
