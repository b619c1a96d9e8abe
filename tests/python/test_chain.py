"""Posteriors from a chain, against Gaussians, other exact densities, the grid, and fields."""

import pickle
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

import pyflow
from pyflow import fields
from pyflow._quadrature import _autocorrelation_time
from pyflow.posterior import Posterior

pytest.importorskip("emcee")


def covariance(p, rho, scale):
    sigma = scale * np.arange(1.0, p + 1)
    return np.outer(sigma, sigma) * ((1 - rho) * np.eye(p) + rho)


def ball(p, mass):
    """Volume of the smallest region of a unit Gaussian that holds this mass."""
    radius = stats.chi2(p).ppf(mass) ** 0.5
    return np.pi ** (p / 2) / special.gamma(p / 2 + 1) * radius**p


def unit(y):
    """Log-density of a Gaussian; its evidence is (2 pi)^(p/2)."""
    return -0.5 * (y**2).sum(axis=1)


def bent(y):
    """Unit Gaussian, its second parameter scaled by 0.3 and moved along a parabola of the first."""
    z = y.copy()
    z[:, 1] = (y[:, 1] - 0.4 * (y[:, 0] ** 2 - 1)) / 0.3
    return unit(z)


def assert_close(post, mean, cov, log_evidence, noise=1.0):
    """Within about five standard errors of a chain of 2000 independent points."""
    sigma = np.sqrt(np.diag(cov))
    assert_allclose((post.mean - mean) / sigma, 0, atol=0.1 * noise)
    assert_allclose(
        post.cov / np.outer(sigma, sigma), cov / np.outer(sigma, sigma), atol=0.14 * noise
    )
    assert 0 < post.log_evidence_error < 0.05 * noise
    assert abs(post.log_evidence - log_evidence) < 5 * post.log_evidence_error


@pytest.mark.parametrize(
    ("p", "rho", "scale"), [(4, 0.0, 0.1), (5, 0.6, 1e-4), (6, 0.9, 1e-3), (10, 0.9, 1e-3)]
)
def test_gaussian_in_a_wide_box(p, rho, scale):
    mean, cov = np.linspace(0.3, 0.7, p), covariance(p, rho, scale)
    exact = stats.multivariate_normal(mean, cov)
    seen = []

    def log_density(y):
        seen.append(len(y))
        return np.atleast_1d(exact.logpdf(y)) - 3000.0

    post = Posterior(log_density, [(-5, 6)] * p, seed=1)
    assert post.method == "emcee"
    assert_close(post, mean, cov, -3000)
    assert_allclose(post.logp(mean), exact.logpdf(mean), atol=0.1)
    assert post.logp(mean + 10) == -np.inf
    for mass in (0.68, 0.95):
        volume = ball(p, mass) * np.sqrt(np.linalg.det(cov))
        assert_allclose(post.volume(mass), volume, rtol=0.03 * p)
        assert_allclose(post.figure_of_merit(mass), 1 / post.volume(mass))
    truth = exact.rvs(2000, random_state=0)
    distance = np.einsum("ij,jk,ik->i", truth - mean, np.linalg.inv(cov), truth - mean)
    assert_allclose(post.credibility(truth), stats.chi2(p).cdf(distance), atol=0.05)
    sample = post.sample(4000, seed=1)
    assert_allclose(np.cov(sample.T), cov, atol=0.15 * cov.max())
    assert sum(seen) < 20000 * p


@pytest.mark.parametrize(
    ("log_density", "bounds"),
    [
        (unit, [(-0.5, 9)]),
        (bent, [(0.3, 6), (-4, 26), (-1, 2)]),
        (lambda y: np.where(y[:, 0] + y[:, 1] > 0.5, y.sum(axis=1), -np.inf), [(0, 1), (0, 2)]),
    ],
)
def test_grid_and_chain_agree(log_density, bounds):
    grid, chain = (Posterior(log_density, bounds, method=m) for m in ("grid", "emcee"))
    assert (grid.method, chain.method, grid.log_evidence_error) == ("grid", "emcee", 0)
    sigma = np.sqrt(np.diag(grid.cov))
    assert_allclose((chain.mean - grid.mean) / sigma, 0, atol=0.1)
    assert_allclose((chain.cov - grid.cov) / np.outer(sigma, sigma), 0, atol=0.12)
    error = 5 * chain.log_evidence_error + 0.01  # the grid's own, at a wall that is askew
    assert abs(chain.log_evidence - grid.log_evidence) < error
    for mass in (0.3, 0.68, 0.95):
        assert_allclose(chain.volume(mass), grid.volume(mass), rtol=0.1)
    points = grid.sample(1000, seed=0)
    assert_allclose(chain.credibility(points), grid.credibility(points), atol=0.05)
    drawn = chain.sample(3000, seed=0)
    for a, b in zip(points.T, drawn.T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-4


def test_walls():
    p, half = 5, stats.halfnorm
    post = Posterior(unit, [(0, 9)] * p)
    log_evidence = p / 2 * np.log(2 * np.pi) - p * np.log(2)
    assert_close(post, np.full(p, half.mean()), half.var() * np.eye(p), log_evidence, noise=2)
    assert_allclose(post.volume(0.68), ball(p, 0.68) / 2**p, rtol=0.2)
    assert post.sample(1000, seed=0).min() >= 0
    assert post.logp([1, 1, 1, 1, -1e-9]) == -np.inf


def test_bent():
    post = Posterior(bent, [(-6, 6), (-4, 26), (-6, 6), (-6, 6)])
    cov = np.diag([1, 0.09 + 0.16 * 2, 1, 1])
    assert_close(post, np.zeros(4), cov, 2 * np.log(2 * np.pi) + np.log(0.3), noise=2)
    assert_allclose(post.volume(0.68), 0.3 * ball(4, 0.68), rtol=0.15)
    assert_allclose(post.credibility([0, -0.4, 0, 1]), stats.chi2(4).cdf(1), atol=0.03)


def test_two_peaks():
    def log_density(y):
        return np.logaddexp(unit((y + 0.5) / 0.1), unit((y - 0.5) / 0.1) + np.log(2))

    post = Posterior(log_density, [(-2, 2)] * 4)
    assert abs(np.mean(post.sample(20000, seed=0)[:, 0] > 0) - 2 / 3) < 0.1
    exact = 2 * np.log(2 * np.pi * 0.01) + np.log(3)
    assert abs(post.log_evidence - exact) < 5 * post.log_evidence_error < 0.4


def test_flat():
    post = Posterior(lambda y: np.zeros(len(y)), [(0, 2), (1, 4), (0, 1), (0, 1)], seed=3)
    assert_close(post, [1, 2.5, 0.5, 0.5], np.diag([4, 9, 1, 1]) / 12, np.log(6), noise=1.5)
    assert_allclose(post.volume(0.5), 3, rtol=0.1)
    assert post.credibility([3, 2, 0.5, 0.5]) == 1


def test_ranks_are_uniform():
    """Of truths drawn from the posteriors, the mass above them is uniform, and every rank."""
    rng = np.random.default_rng(0)
    mass, ranks = [], []
    for seed in range(4):
        cov = stats.wishart(6, np.eye(4)).rvs(random_state=rng) / 6
        exact = stats.multivariate_normal(rng.uniform(-1, 1, 4), cov)
        post = Posterior(exact.logpdf, [(-1, 8), (-9, 1), (-9, 9), (-9, 9)], seed=seed)
        truth = exact.rvs(6000, random_state=rng)
        truth = truth[(truth[:, 0] > -1) & (truth[:, 1] < 1)][:400]
        mass.append(post.credibility(truth))
        sample = np.sort(post.sample(4000, seed=0), axis=0)
        ranks += [np.searchsorted(s, t) / 4000 for s, t in zip(sample.T, truth.T, strict=True)]
    for values in (*mass, *ranks):
        assert stats.kstest(values, "uniform").statistic < 0.1
    for values in (mass, ranks):
        assert stats.kstest(np.ravel(values), "uniform").statistic < 0.04


def test_evidence_is_as_uncertain_as_it_says():
    pulls = []
    for seed in range(10):
        post = Posterior(unit, [(0, 9), (-9, 9)], method="emcee", seed=seed)
        pulls.append((post.log_evidence - np.log(np.pi)) / post.log_evidence_error)
    low, high = np.sqrt(stats.chi2(10).ppf([1e-4, 1 - 1e-4]) / 10)
    assert low < np.sqrt(np.mean(np.square(pulls))) < high


def test_seeds():
    one, same, other, fresh = (Posterior(unit, [(-9, 9)] * 4, seed=s) for s in (7, 7, 8, None))
    assert_array_equal(one.mean, same.mean)
    assert_array_equal(one.sample(99, seed=0), same.sample(99, seed=0))
    assert one.log_evidence == same.log_evidence
    assert len({one.mean[0], other.mean[0], fresh.mean[0]}) == 3
    before = np.random.get_state()[1].copy()
    Posterior(unit, [(-9, 9)], method="emcee")
    assert_array_equal(np.random.get_state()[1], before)


def test_a_short_chain_is_warned_of():
    with pytest.warns(RuntimeWarning, match="the chain is too short: 60 steps are") as caught:
        post = Posterior(unit, [(-9, 9)] * 4, steps=60)
    assert caught[0].filename == __file__
    assert np.all(np.abs(post.mean) < 1)


def test_autocorrelation_time():
    """(1 + a) / (1 - a) of x_t = a x_(t - 1) + noise; long where walkers stay where they are."""
    rng, a = np.random.default_rng(0), 0.9
    x = np.zeros((4000, 30, 2))
    for t in range(1, len(x)):
        x[t] = [a, 0.0] * x[t - 1] + rng.normal(size=x[t].shape)
    assert_allclose(_autocorrelation_time(x), (1 + a) / (1 - a), rtol=0.1)
    assert_allclose(_autocorrelation_time(x[..., 1:]), 1, atol=0.1)
    assert _autocorrelation_time(x + np.sign(np.arange(30) - 15)[:, None] * 9) > 1000
    assert _autocorrelation_time(np.ones((100, 30, 1))) == 1


def test_density_that_is_zero_in_most_places():
    def log_density(y):
        inside = ((y > 0.4) & (y < 0.5)).all(axis=1)
        return np.where(inside, 0.0, -np.inf)

    post = Posterior(log_density, [(0, 1)] * 4)
    assert_allclose(post.mean, 0.45, atol=0.01)
    assert abs(post.log_evidence - 4 * np.log(0.1)) < 5 * post.log_evidence_error
    with pytest.raises(ValueError, match="prior: the posterior is zero"):
        Posterior(lambda y: np.full(len(y), -np.inf), [(0, 1)] * 4)


def test_emcee_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "emcee", None)
    with pytest.raises(ImportError, match="pip install emcee"):
        Posterior(unit, [(0, 1)] * 4)
    Posterior(unit, [(0, 1)] * 3)


@pytest.mark.parametrize(
    ("p", "options", "message"),
    [
        (4, {"method": "grid"}, "method: a grid serves 1 to 3 parameters, not 4"),
        (2, {"method": "nuts"}, "method: must be"),
        (4, {"grid": 9}, "grid: a chain has none"),
        (2, {"steps": 99}, "steps: are a chain's"),
        (4, {"steps": 1}, "steps: must be at least"),
        (4, {"seed": -1}, "seed: must be"),
    ],
)
def test_bad_arguments(p, options, message):
    with pytest.raises(ValueError, match=message):
        Posterior(unit, [(0, 1)] * p, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_densities(value):
    with pytest.raises(ValueError, match="log_density: gave NaN or infinity"):
        Posterior(lambda y: np.full(len(y), value), [(0, 1)] * 4)
    with pytest.raises(ValueError, match="log_density: gave shape"):
        Posterior(lambda y: y, [(0, 1)] * 4)


def test_plot_and_pickle():
    post = Posterior(unit, [(0, 9)] + [(-9, 9)] * 3, names=list("abcd"))
    figure = post.plot(truth=np.ones(4))
    grid = np.array(figure.axes).reshape(4, 4)
    for i in range(4):
        x, y = grid[i, i].lines[0].get_data()
        exact = np.exp(-0.5 * x**2)
        assert_allclose(y[x > 0.4], exact[x > 0.4], atol=0.15)  # it is smooth, and a is not at 0
        assert grid[3, i].get_xlabel() == "abcd"[i]
        for j in range(i):
            assert_array_equal(grid[i, j].lines[0].get_xdata(), 1)
            x, y = np.concatenate([p.vertices for p in grid[i, j].collections[-1].get_paths()]).T
            assert (x.min() > -1e-6) == (j == 0)  # that lies across; its wall is at 0
            assert 1.9 < np.abs(y).max() < 3.2
            assert y.min() < -1.9
    assert post.plot(axes=grid) is figure
    assert len(grid[1, 1].lines) == 3  # two curves, one truth
    (axis,), density = post.marginal(0)
    assert_allclose(density, 2 * stats.norm.pdf(axis), atol=0.1)
    assert_allclose(density.sum() * (axis[1] - axis[0]), 1, atol=0.01)
    (across, up), density = post.marginal("c", "a")
    expected = stats.norm.pdf(across)[:, None] * 2 * stats.norm.pdf(up)
    assert_allclose(density, expected, atol=0.1)
    assert "d=" in repr(post)
    again = pickle.loads(pickle.dumps(post))
    assert_array_equal(again.mean, post.mean)
    assert_array_equal(again.logp(np.ones((1, 4))), post.logp(np.ones((1, 4))))


# ---- fields --------------------------------------------------------------------------------------

BOX, MESH = 16.0, (16, 16)
PRIOR = [(-1, 1)] * 4


def power(y):
    """log P(k) is a cubic in log k, its Chebyshev coefficients y."""
    y = np.asarray(y)[..., None, None, :]
    low, high = np.log(2 * np.pi / BOX), np.log(np.pi)
    return lambda k: np.exp(
        np.polynomial.chebyshev.chebval(
            2 * (np.log(k) - low) / (high - low) - 1, np.moveaxis(y, -1, 0), tensor=False
        )
    )


def test_flow_of_four_parameters():
    """Training on 4000 fields leaves a tenth of a posterior's width uncertain."""
    rng = np.random.default_rng(0)
    y = rng.uniform(-1, 1, (4000, 4))
    x = fields.gaussian_field(power(y), MESH, box_size=BOX, seed=rng)
    form = {"n_layers": 1, "psi_knots": 2, "filter_knots": 8, "hidden": (64,)}
    flow = pyflow.SymmetricFlow(
        x[:-2],
        y_train=y[:-2],
        box_size=BOX,
        names=list("abcd"),
        epochs=40,
        learning_rate=4e-3,
        verbose=False,
        **form,
    )
    shifts, widths, volumes = [], [], []
    for field in x[-2:]:
        mine = flow.posterior(field, PRIOR)
        exact = Posterior(lambda y, x=field: fields.gaussian_logp(x, power(y), BOX), PRIOR)
        sigma = np.sqrt(np.diag(exact.cov))
        assert np.all(sigma < 0.3)  # half of the prior's
        shifts.append((mine.mean - exact.mean) / sigma)
        widths.append(np.sqrt(np.diag(mine.cov)) / sigma)
        volumes.append(np.log(mine.volume(0.68) / exact.volume(0.68)))
        assert abs(mine.log_evidence - exact.log_evidence) < 0.6
    assert np.sqrt(np.mean(np.square(shifts))) < 0.2
    assert abs(np.mean(widths) - 1) < 0.06
    assert abs(np.mean(volumes)) < 0.2
    assert mine.names == ("a", "b", "c", "d")
    with pytest.warns(RuntimeWarning, match="the chain is too short") as caught:
        flow.posterior(x[0], PRIOR, steps=50)
    assert caught[0].filename == __file__
