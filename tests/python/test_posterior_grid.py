"""Posteriors on a grid that are no Gaussians, or have edges, against exact values; priors."""

import itertools
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, stats

import pyflow
from pyflow import fields
from pyflow.posterior import Posterior


def unit(y):
    return -0.5 * (y**2).sum(axis=1)


class Counted:
    """A log-density that counts its calls, and the points it was asked for."""

    def __init__(self, log_density):
        self.log_density, self.calls, self.points = log_density, 0, 0

    def __call__(self, y):
        self.calls += 1
        self.points += len(y)
        return self.log_density(y)


def hat(low, high):
    """Zero between these values of all parameters, -inf elsewhere."""
    return lambda y: np.where(((y > low) & (y < high)).all(axis=1), 0.0, -np.inf)


def area(sides, radius):
    """Content of a ball of p = sides dimensions."""
    return {1: 2.0, 2: np.pi, 3: 4 / 3 * np.pi}[sides] * radius**sides


def test_a_prior_with_an_edge_is_kept():
    """Half of a Gaussian: half of its area, moments of a half-normal along (1, 1)."""
    post = Posterior(
        unit, [(-9, 9)] * 2, log_prior=lambda y: np.where(y.sum(axis=1) < 0, 0.0, -np.inf)
    )
    for mass in (0.5, 0.68, 0.95):
        assert_allclose(post.volume(mass), -np.log(1 - mass) * np.pi, rtol=0.01)
    assert_allclose(post.mean, -stats.halfnorm.mean() / np.sqrt(2), atol=2e-3)
    along = np.array([1, 1]) / np.sqrt(2)
    assert_allclose(along @ post.cov @ along, stats.halfnorm.var(), rtol=0.005)
    assert_allclose(post.log_evidence, np.log(np.pi), atol=4e-3)
    sample = post.sample(20_000, seed=0)
    assert sample.sum(axis=1).max() < 0
    assert stats.kstest(-(sample @ along), stats.halfnorm.cdf).pvalue > 1e-3
    assert_allclose(post.credibility([[1.0, 0.5], [0.1, 0.0]]), 1, rtol=1e-12)
    assert_array_equal(post.logp([[1.0, 0.5]]), -np.inf)
    assert_allclose(post.credibility([-0.6, -0.8]), 1 - np.exp(-0.5), atol=0.01)


@pytest.mark.parametrize("how", ["log_prior", "log_density", "bounds"])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_normal_that_is_cut(p, how):
    cut, half = 0.003, stats.truncnorm(-9, 0.003)
    bounds = [(-9, cut if how == "bounds" else 9)] + [(-9, 9)] * (p - 1)

    def edge(y):
        return np.where(y[:, 0] < cut, 0.0, -np.inf)

    if how == "log_density":
        post = Posterior(lambda y: unit(y) + edge(y), bounds)
    else:
        post = Posterior(unit, bounds, log_prior=edge if how == "log_prior" else None)
    assert_allclose(post.mean, [half.mean()] + [0] * (p - 1), atol=0.01)
    assert_allclose(np.diag(post.cov), [half.var()] + [1] * (p - 1), rtol=0.01)
    assert_allclose(
        post.log_evidence, p / 2 * np.log(2 * np.pi) + stats.norm.logcdf(cut), atol=0.01
    )
    assert post.sample(5000, seed=1)[:, 0].max() <= cut


@pytest.mark.parametrize("how", ["log_prior", "log_density"])
@pytest.mark.parametrize(("p", "width"), [(1, 0.004), (2, 0.03), (3, 0.15)])
def test_top_hats_narrower_than_the_bounds(p, width, how):
    flat = hat(0.3, 0.3 + width)
    if how == "log_prior":
        post = Posterior(lambda y: 0.0, [(-1, 1)] * p, log_prior=flat)
    else:
        post = Posterior(flat, [(-1, 1)] * p)
    assert_allclose(post.mean, 0.3 + width / 2, atol=0.01 * width)
    assert_allclose(np.diag(post.cov), width**2 / 12, rtol=0.02)
    assert_allclose(post.log_evidence, p * np.log(width), atol=0.02)
    assert_allclose(post.volume(0.5), 0.5 * width**p, rtol=0.02)
    sample = post.sample(3000, seed=0)
    assert np.isfinite(flat(sample)).all()
    assert stats.kstest((sample[:, 0] - 0.3) / width, "uniform").pvalue > 1e-3


def test_a_strip_of_a_gaussian():
    post = Posterior(unit, [(-9, 9)] * 2, log_prior=lambda y: hat(0, 0.003)(y[:, :1]))
    assert_allclose(post.mean / [0.003, 1], [0.5, 0], atol=3e-3)
    assert_allclose(post.log_evidence, np.log(0.003 * np.sqrt(2 * np.pi)), atol=3e-3)
    assert_allclose(np.diag(post.cov), [0.003**2 / 12, 1], rtol=0.01)


@pytest.mark.parametrize(("p", "sigma", "most"), [(3, 0.01, 2000), (2, 0.00707, 300)])
def test_a_combination_that_is_known_well_costs_no_more(p, sigma, most):
    """A hundredth of the width of the others, along an axis askew; two of correlation 0.9999."""
    if p == 3:
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(p, p)))[0]
        cov = turn @ np.diag([1.0, 1.0, sigma**2]) @ turn.T
    else:
        cov = np.array([[1, 0.9999], [0.9999, 1]])
    inverse = np.linalg.inv(cov)
    density = Counted(lambda y: -0.5 * ((y @ inverse) * y).sum(axis=1))
    post = Posterior(density, [(-9, 9)] * p)
    assert density.points <= most
    assert density.calls <= 6
    radius = stats.chi2(p).ppf(0.68) ** 0.5
    exact = 1 / (area(p, radius) * np.sqrt(np.linalg.det(cov)))
    assert_allclose(post.figure_of_merit(0.68), exact, rtol=0.01)
    assert_allclose(post.mean, 0, atol=1e-3)
    assert_allclose(post.cov, cov, atol=1e-4)
    sample = post.sample(20_000, seed=0)
    assert stats.kstest(((sample @ inverse) * sample).sum(axis=1), stats.chi2(p).cdf).pvalue > 1e-3
    for which in itertools.combinations(range(p), 1):
        (nodes,), marginal = post.marginal(*which)
        width = cov[which[0], which[0]] ** 0.5
        assert_allclose(marginal * width, stats.norm.pdf(nodes / width), atol=5e-3)


def bent(valley, width):
    """Return a unit Gaussian y0, and y1 about valley(y0)."""
    return lambda y: -0.5 * (y[:, 0] ** 2 + ((y[:, 1] - valley(y[:, 0])) / width) ** 2)


@pytest.mark.parametrize("width", [0.2, 0.15, 0.1])
@pytest.mark.parametrize(
    "valley", [np.square, lambda a: np.cosh(1.2 * a) - 1], ids=["square", "cosh"]
)
def test_bananas(valley, width):
    log_density, box = bent(valley, width), [(-4, 4), (-4, 4)]
    post = Posterior(log_density, box)

    def moment(power):  # of y0, over what the bounds leave of every y1
        def f(a):
            low, high = ((end - valley(a)) / width for end in (-4, 4))
            return a**power * stats.norm.pdf(a) * (stats.norm.cdf(high) - stats.norm.cdf(low))

        return integrate.quad(f, -4, 4, points=[-2, 0, 2])[0]

    norm = moment(0)
    assert_allclose(post.log_evidence, np.log(norm * 2 * np.pi * width), atol=5e-3)
    assert_allclose(post.mean[0], 0, atol=5e-3)
    assert_allclose(post.cov[0, 0], moment(2) / norm, rtol=0.01)
    a, b = (np.linspace(-4, 4, n) for n in (1501, 4001))
    logs = log_density(np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2))
    logs = np.sort(logs)[::-1]
    above = np.cumsum(np.exp(logs))
    exact = np.searchsorted(above, 0.68 * above[-1]) * (a[1] - a[0]) * (b[1] - b[0])
    assert_allclose(post.volume(0.68), exact, rtol=0.01)
    sample = post.sample(10_000, seed=0)
    across = (sample[:, 1] - valley(sample[:, 0])) / width
    assert stats.kstest(across[sample[:, 1] < 3], "norm").pvalue > 1e-3


def test_two_peaks_in_two_dimensions():
    """One of them with twice the mass."""

    def log_density(y):
        return np.logaddexp(*(unit((y - m) / 0.1) + w for m, w in ((-0.5, 0), (0.5, np.log(2)))))

    post = Posterior(log_density, [(-2, 2)] * 2)
    assert_allclose(post.mean, 0.5 / 3, atol=2e-3)
    assert_allclose(post.log_evidence, np.log(3 * 2 * np.pi * 0.01), atol=5e-3)
    assert_allclose(np.mean(post.sample(20_000, seed=0)[:, 0] > 0), 2 / 3, atol=0.015)


def test_heavy_tails():
    cauchy, t = stats.cauchy, stats.multivariate_t([0, 0], np.eye(2), df=5)
    post = Posterior(lambda y: cauchy.logpdf(y[:, 0]), [(-100, 100)])
    assert_allclose(post.log_evidence, np.log(cauchy.cdf(100) - cauchy.cdf(-100)), atol=2e-3)
    assert_allclose(post.volume(0.5), 2 * np.tan(np.pi / 4 * np.exp(post.log_evidence)), rtol=0.01)
    post = Posterior(t.logpdf, [(-50, 50)] * 2)
    assert_allclose(post.log_evidence, 0, atol=2e-3)
    assert_allclose(np.diag(post.cov), 5 / 3, rtol=0.015)


@pytest.mark.parametrize(("p", "points"), [(1, 100), (2, 300), (3, 2300)])
def test_smooth_posteriors_need_few_evaluations(p, points):
    """Gamma densities, one of them cut by a bound: their logarithms are no polynomials."""
    gamma = stats.gamma(40, scale=0.015)
    density = Counted(lambda y: gamma.logpdf(y).sum(axis=1))
    post = Posterior(density, [(0.55, 3)] + [(0.1, 3)] * (p - 1))
    assert density.calls <= 7
    assert density.points <= points
    grid = np.linspace(0.55, 3, 100_001)
    weight = gamma.pdf(grid) / gamma.pdf(grid).sum()
    mean = weight @ grid
    sigma = np.sqrt(weight @ grid**2 - mean**2)
    assert_allclose(post.mean, [mean] + [gamma.mean()] * (p - 1), atol=0.01 * sigma)
    assert_allclose(np.diag(post.cov), [sigma**2] + [gamma.var()] * (p - 1), rtol=0.015)


def test_a_density_is_evaluated_exactly_across_its_own_edge():
    """Samples stop at it, and nothing is NaN."""

    def log_density(y):
        inside = (y**2).sum(axis=1) < 1
        return np.where(inside, y[:, 0], -np.inf)

    post = Posterior(log_density, [(-2, 2)] * 2)
    exact = integrate.quad(lambda a: np.exp(a) * 2 * np.sqrt(1 - a**2), -1, 1)[0]
    assert_allclose(post.log_evidence, np.log(exact), atol=0.01)
    sample = post.sample(5000, seed=0)
    assert (sample**2).sum(axis=1).max() < 1
    values = [post.mean, post.cov, post.marginal(0)[1], post.marginal(0, 1)[1], post.volume()]
    assert all(np.isfinite(v).all() for v in values)


def test_a_wrong_log_prior_is_named():
    for prior, message in (
        (lambda y: y, r"log_prior: gave shape"),
        (lambda y: np.nan, "log_prior: gave NaN"),
        (lambda y: -np.inf, "prior: the posterior is zero everywhere"),
    ):
        with pytest.raises(ValueError, match=message):
            Posterior(unit, [(-9, 9)] * 2, log_prior=prior)


# ---- priors of users -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flow():
    rng = np.random.default_rng(0)
    y = np.stack([rng.uniform(0.5, 2, 150), rng.uniform(-1, 1, 150)], axis=1)

    def power(k):
        a, b = y.T[:, :, None, None]
        return a * k**b

    x = fields.gaussian_field(power, (8, 8), box_size=8.0, seed=1)
    form = {"n_layers": 1, "filter_knots": 8, "hidden": (16, 16), "epochs": 4}
    flow = pyflow.SymmetricFlow(x, y_train=y, box_size=8.0, names=["a", "b"], verbose=False, **form)
    return flow, x[0]


def test_priors_of_all_kinds(flow):
    """They are the same functions: and then so are the posteriors."""
    flow, x = flow
    box = flow.y_range.copy()
    normal, beta = stats.norm(1.1, 0.2), stats.norm(0.2, 0.3)
    both = stats.multivariate_normal([1.1, 0.2], np.diag([0.04, 0.09]))

    def density(y):
        return normal.logpdf(y[:, 0]) + beta.logpdf(y[:, 1])

    def same(prior, other, **how):
        one, two = flow.posterior(x, prior, **how), flow.posterior(x, other)
        assert_allclose(one.mean, two.mean, atol=1e-9)
        assert_allclose(one.log_evidence, two.log_evidence, atol=1e-9)
        assert_array_equal(one.bounds, two.bounds)

    same([normal, beta], density)
    same(both, density)
    same({"b": beta, "a": normal}, density)
    same({"b": beta}, lambda y: beta.logpdf(y[:, 1]))
    same(lambda y: 0.0, None)
    same({"a": (0.7, 1.5)}, [(0.7, 1.5), box[1]])
    same({"a": normal, "b": (-0.5, 0.5)}, {"b": (-0.5, 0.5), "a": normal})
    same([normal, (-0.5, 0.5)], {"b": (-0.5, 0.5), "a": normal})
    same([stats.uniform(0.7, 0.8), beta], {"a": stats.uniform(0.7, 0.8), "b": beta})
    assert flow.posterior(x, [stats.uniform(0.7, 0.8), beta]).sample(999, seed=0)[:, 0].min() > 0.7
    again = pickle.loads(pickle.dumps(flow.posterior(x, [normal, beta])))
    assert_array_equal(again.sample(9, seed=1), flow.posterior(x, [normal, beta]).sample(9, seed=1))


@pytest.mark.parametrize(
    ("prior", "bounds", "message"),
    [
        ({"c": (0, 1)}, None, "prior: 'c' is none of the parameters a, b"),
        ({"a": (1, 0)}, None, "prior: a: 1.0 is not below"),
        ({"a": 3}, None, "prior: a: must have shape"),
        ([stats.norm()], None, "prior: 1 distributions for 2"),
        (stats.norm(), None, "prior: is of 1 parameters, not 2"),
        (stats.multivariate_normal(np.zeros(3)), None, "prior: is of 3 parameters, not 2"),
        ([(0, 1), (1, 2)], [(0, 1), (1, 2)], "bounds: are for"),
    ],
)
def test_bad_priors(flow, prior, bounds, message):
    with pytest.raises(ValueError, match=message):
        flow[0].posterior(flow[1], prior, bounds=bounds)
