"""Priors that the training range cuts, and densities that are nowhere but in narrow parts."""

import itertools
import sys
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from pyflow._grid import Grid
from pyflow._quadrature import Chain, Quadrature
from pyflow.posterior import Posterior, prior_of

RANGES = np.array([[0.5, 2.0], [-1.5, -0.5]])
NAMES = ["a", "b"]
NEAR, FAR = stats.norm(1.2, 0.1), stats.norm(2.0, 0.3)  # half of it lies outside


def heard(prior, names=NAMES, ranges=RANGES, bounds=None):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        prior_of(prior, bounds, names, ranges)
    return [str(w.message) for w in seen]


def test_a_prior_that_the_training_range_cuts_is_warned_of():
    expected = "prior: 50 % of that of a lies outside of the training range, 0.5 to 2, and is cut"
    together = stats.multivariate_normal([2.0, -1.0], np.diag([0.09, 0.01]))
    kde = stats.gaussian_kde(together.rvs(4000, random_state=1).T)
    for prior in ([FAR, None], {"a": FAR}, {"a": FAR, "b": (-1, -0.6)}, together, kde):
        (message,) = heard(prior)
        name, share = message.split(" lies ")[0].split("prior: ")[1].split(" % of that of ")[::-1]
        assert name == "a"
        assert abs(float(share) - 50) < 2
        assert message.startswith(expected.split("%")[1], message.index("%") + 1)
    one = stats.gaussian_kde(FAR.rvs(4000, random_state=1))
    for prior in (FAR, one):
        assert len(heard(prior, NAMES[:1], RANGES[:1])) == 1


@pytest.mark.parametrize(("share", "warns"), [(0.004, 0), (0.012, 1)])
def test_one_per_cent_is_the_limit(share, warns):
    prior = stats.norm(2.0 + 0.2 * stats.norm.ppf(share), 0.2)
    assert_allclose(prior.sf(2.0), share)
    found = heard([prior, None])
    assert len(found) == warns
    assert all(f"{100 * share:.2g} %" in message for message in found)


def test_of_other_priors_nothing_is_said():
    kde = stats.gaussian_kde(NEAR.rvs(500, random_state=1))
    within = stats.multivariate_normal([1.2, -1.0], 1e-4 * np.eye(2))
    for prior in (None, [NEAR, None], {"b": stats.uniform(-1.4, 0.8)}, within, lambda y: 0.0):
        assert heard(prior) == []
    assert heard(kde, NAMES[:1], RANGES[:1]) == []
    assert heard([FAR, None], bounds=[(0, 9), (-2, 0)]) == []  # the user has said where to look
    # uniform over what the training sample was drawn from: its ends lie a little beyond
    assert heard([stats.uniform(0.48, 1.54), None]) == []

    class Own:
        def logpdf(self, y):
            return np.zeros(len(y))

    assert heard([Own(), None]) == []
    assert heard(Own(), NAMES[:1], RANGES[:1]) == []


def spikes(*middles, width):
    return lambda y: np.where(
        np.min([np.abs(y - m).max(axis=1) for m in middles], axis=0) < width, 0.0, -np.inf
    )


def falling(y):
    return -0.5 * (y**2).sum(axis=1)


@pytest.mark.parametrize("as_prior", [True, False])
@pytest.mark.parametrize(
    ("middles", "width"),
    [((0.1234, -0.6), w) for w in (3e-4, 1e-3, 3e-3)]
    + [((0.5012, 0.6604), 1e-4), ((-0.1777, -0.5838), 1.54e-4), ((-0.7463, 0.3674), 2.28e-4)],
)
def test_narrow_parts_are_right_or_said_to_be_missed(monkeypatch, as_prior, middles, width):
    monkeypatch.setitem(sys.modules, "emcee", None)
    parts = spikes(*middles, width=width)
    exact = np.log(2 * width * np.exp(-0.5 * np.square(middles)).sum())
    density, prior = (falling, parts) if as_prior else (lambda y: falling(y) + parts(y), None)
    found = None
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            found = Posterior(density, [(-1, 1)], log_prior=prior).log_evidence
        except ValueError as error:
            said = str(error)
    if seen:
        assert "give narrower bounds" in str(seen[0].message)
    elif found is None:
        assert "give bounds that are closer" in said
    else:
        assert_allclose(found, exact, atol=0.02)


@pytest.mark.parametrize("radius", [0.3, 0.6])
def test_a_thin_ring_is_right_or_said_to_be_missed(monkeypatch, radius):
    monkeypatch.setitem(sys.modules, "emcee", None)
    for width in (1e-4, 3e-4, 1e-3):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            post = Posterior(
                lambda y: y[:, 0],
                [(-1, 1)] * 2,
                log_prior=lambda y, w=width: np.where(
                    np.abs(np.hypot(*y.T) - radius) < w, 0.0, -np.inf
                ),
            )
        exact = np.log(2 * width * 2 * np.pi * radius * np.i0(radius))
        assert seen or abs(post.log_evidence - exact) < 0.03


def test_both_parts_of_a_prior_are_found():
    """The first 4,096 points of the search meet but one of two small squares."""
    post = Posterior(
        lambda y: 0.0, [(-1, 1)] * 2, log_prior=spikes((0.1234, 0.1234), (-0.6, -0.6), width=0.01)
    )
    assert_allclose(post.mean, (0.1234 - 0.6) / 2, atol=0.01)
    assert_allclose(post.log_evidence, np.log(2 * 0.02**2), atol=0.05)


def test_a_part_that_only_a_node_is_in_is_refused():
    """The middle of five nodes, and no point between them."""
    grid = Grid(lambda y: 0.0, np.array([[-1.0, 1.0]]), ["a"])
    grid._log_prior = spikes(0.0, width=1e-3)
    with pytest.raises(ValueError, match="zero everywhere on the grid, at 5 points: give bounds"):
        grid._integrate(5)


def test_a_support_that_is_not_found_says_what_to_do():
    for how in ({"log_prior": spikes((0.1, 0.2), width=1e-5)}, {}):
        density = falling if how else spikes((0.1, 0.2), width=1e-5)
        with pytest.raises(ValueError, match="zero everywhere on the grid, .*give bounds that are"):
            Posterior(density, [(-1, 1)] * 2, **how)


@pytest.mark.parametrize("seed", range(4))
def test_walkers_leave_the_one_point_that_met_a_peak_above_a_plateau(seed):
    """Of points that all descend from one, differences lead nowhere: shorter steps do."""
    pytest.importorskip("emcee")
    mean, sd = np.array([0.262, 0.794]), np.array([0.022, 0.042])

    def log_density(y):
        return np.logaddexp(-0.5 * (((y - mean) / sd) ** 2).sum(axis=1), -21.0)

    post = Posterior(log_density, [(0, 5), (0, 10)], method="emcee", seed=seed)
    assert_allclose(post.mean, mean, atol=0.005)
    assert_allclose(np.sqrt(np.diag(post.cov)), sd, rtol=0.1)
    assert abs(post.log_evidence - np.log(2 * np.pi * sd.prod())) < 0.1


def unstarted(log_density, bounds, walkers=64):
    """A chain before its walkers have started."""
    pytest.importorskip("emcee")
    chain = object.__new__(Chain)
    Quadrature.__init__(chain, log_density, np.array(bounds, float), ["a"] * len(bounds))
    chain._walkers = walkers
    return chain


def test_steps_are_shortened_until_some_are_accepted():
    """All points are one, which has met a peak a million times narrower than the bounds."""
    chain = unstarted(lambda y: -0.5 * ((y - 0.3) / 1e-6).clip(-1e8, 1e8)[:, 0] ** 2, [(0, 1)])
    rng, points = np.random.default_rng(3), np.full((64, 1), 0.3 + 2e-6)
    seed = np.random.RandomState(4).get_state()
    start = chain._annealed(points, chain.density(points), rng, seed)
    assert len(np.unique(start.coords)) > 16
    assert np.all(np.abs(start.coords - 0.3) < 6e-6)


def test_powers_begin_again_where_a_peak_was_climbed_late(monkeypatch):
    """From the best point that is known by then, besides all others."""
    mean, sd = np.linspace(0.2, 0.6, 4), np.linspace(0.02, 0.04, 4)
    calls, annealed = [], Chain._annealed

    def spied(self, points, logs, rng, seed):
        calls[-1].append((points, logs))
        return annealed(self, points, logs, rng, seed)

    monkeypatch.setattr(Chain, "_annealed", spied)
    for seed in range(6):
        calls.append([])
        peak = unstarted(
            lambda y: np.logaddexp(-0.5 * (((y - mean) / sd) ** 2).sum(axis=1), -40.0), [(0, 2)] * 4
        )
        peak._start(np.random.default_rng(seed))
    again = [rounds for rounds in calls if len(rounds) > 1]
    assert again
    for rounds in again:
        for (points, logs), (more, found) in itertools.pairwise(rounds):
            assert_allclose(more[:-1], points)
            assert found[-1] > logs.max() + 2
            assert_allclose(found[-1], peak.density(more[-1:])[0])
