"""Training on log p(y|x) with a line of sight, and with noise of a known level in every field."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import pyflow
from pyflow import Posterior, fields

SIDE = 12
PRIOR = np.array([[0.5, 2.0], [0.2, 1.5]])
NOISE = (0.2, 1.0)
NAMES = ("amplitude", "beta")


def kaiser(y, noise=0.0):
    """P(k, mu) = A (1 + beta mu^2)^2 / k in pixels of length one, and white noise."""
    a, b = (v[:, None, None] for v in np.asarray(y, float).T)
    return lambda k, mu: a * (1 + b * mu**2) ** 2 / k + noise**2


def draw(n, seed, scatter=0.0):
    """Fields and what they are conditioned on; scatter gives each a factor of its own."""
    rng = np.random.default_rng(seed)
    y = rng.uniform(*PRIOR.T, size=(n, 2))
    x = fields.gaussian_field(kaiser(y), (SIDE, SIDE), box_size=SIDE, seed=rng, axis=0)
    return x * np.exp(scatter * rng.normal(size=(n, 1, 1))), y


def fit(scatter=0.0, **options):
    (x, y), (held_out, at) = draw(500, 1, scatter), draw(100, 2, scatter)
    known = {"symmetry": "axial", "axis": 0, "noise": NOISE, "noise_condition": True}
    known |= {"n_layers": 1, "psi_knots": 4, "filter_knots": 6, "hidden": (32,), "epochs": 6}
    known |= {"posterior_epochs": 12, "posterior_rate": 4e-3, "posterior_draws": 40}
    known |= {"names": NAMES, "box_size": SIDE, "verbose": False}
    return pyflow.SymmetricFlow(x, held_out, y, at, **known | options)


@pytest.fixture(scope="module")
def flows():
    return {w: fit(objective=w) for w in ("likelihood", 0.5, "posterior")}


@pytest.fixture(scope="module")
def noisy():
    """Return fields with noise of three levels, as a function of their scatter."""

    def draw_noisy(scatter):
        (x, y), sigma = draw(90, 3, scatter), np.repeat([0.25, 0.6, 0.95], 30)
        noise = np.random.default_rng(4).normal(size=x.shape)
        return x + sigma[:, None, None] * noise, y, sigma

    return draw_noisy


def posteriors(flow, maps, y, sigma):
    """log p(y|x) at the truth, its mean at every level; share of truths in 68 % regions."""
    posts = [flow.posterior(x, PRIOR, noise=s, grid=25) for x, s in zip(maps, sigma, strict=True)]
    logp = [post.logp(at) for post, at in zip(posts, y, strict=True)]
    inside = [post.credibility(at) < 0.68 for post, at in zip(posts, y, strict=True)]
    return np.reshape(logp, (3, -1)).mean(axis=1), np.mean(inside)


def test_posteriors_at_every_level_of_noise_are_nearly_the_exact_ones(flows, noisy):
    maps, y, sigma = noisy(0.0)

    def exact(at, x, s):
        return fields.gaussian_logp(x[None], kaiser(at, s), SIDE, axis=0)

    best = [
        Posterior(lambda at, x=x, s=s: exact(at, x, s), PRIOR, grid=25).logp(truth)
        for x, truth, s in zip(maps, y, sigma, strict=True)
    ]
    best = np.reshape(best, (3, -1)).mean(axis=1)
    for flow in flows.values():
        logp, inside = posteriors(flow, maps, y, sigma)
        assert (best - logp < 0.35).all()
        assert abs(inside - 0.68) < 0.15


def test_fine_tuning_mends_posteriors_at_every_level_of_noise(noisy):
    """No symmetric flow has a factor that is the same in all of a field: its likelihood is wrong,
    and its posteriors are too narrow, the more so the less noise there is.
    """
    found = {w: posteriors(fit(0.3, objective=w), *noisy(0.3)) for w in ("likelihood", "posterior")}
    (before, narrow), (after, held) = found.values()
    assert (after > before).all()
    assert (after - before).mean() > 2
    assert narrow < 0.5
    assert abs(held - 0.68) < 0.15


def test_axis_and_noise_stay_what_they_were(flows):
    """Fine-tuning keeps the line of sight: another orientation of the fields is another thing."""
    flow = flows["posterior"]
    assert flow.names == (*NAMES, "noise")
    assert_allclose(flow.y_range[2], NOISE, atol=0.02)
    x, y = draw(20, 7)
    at = np.column_stack([y, np.full(20, 0.3)])
    logp = flow.evaluate_density(x, at)
    assert_allclose(flow.evaluate_density(x[:, ::-1], at), logp)
    assert (logp > flow.evaluate_density(x.swapaxes(1, 2), at)).mean() > 0.8


def test_threads_do_not_matter():
    found = []
    try:
        for n in (1, 2):
            pyflow.set_num_threads(n)
            found.append(fit(objective="posterior", epochs=1, posterior_epochs=1))
    finally:
        pyflow.set_num_threads(None)
    assert found[0] == found[1]


def test_fine_tuning_by_train_goes_on_from_an_axial_flow_with_noise(noisy):
    flow, (x, y) = fit(0.3, epochs=2), draw(300, 8, 0.3)
    options = {"noise": NOISE, "posterior_epochs": 8, "posterior_rate": 4e-3, "verbose": False}
    tuned = flow.train(x, y_train=y, objective="posterior", epochs=0, **options)
    assert tuned.layers == flow.layers
    test = noisy(0.3)
    logp = [posteriors(f, *test)[0] for f in (flow, tuned)]
    assert (logp[1] > logp[0]).all()


LEVELS = np.where(np.arange(SIDE) < 8, 0.1, 0.5) * np.ones((SIDE, SIDE))
WINDOW = np.random.default_rng(9).random((SIDE, SIDE)) > 0.25


@pytest.mark.parametrize("kind", ["window", "noise map", "second field"])
def test_fine_tuning_mends_posteriors_of_other_observables(kind):
    """Each field has a factor of its own, which these flows cannot express: they are too sure."""
    (x, y), (held_out, at) = draw(500, 1, 0.3), draw(200, 2, 0.3)
    options = {"symmetry": "isotropic", "axis": None, "noise": None, "noise_condition": False}
    beside, at_call = {}, {}
    if kind == "window":
        options["mask"] = WINDOW
    if kind == "noise map":
        options["noise"] = LEVELS
    if kind == "second field":
        c, c_held_out = (0.5 * np.roll(v, 1, axis=1) for v in (x, held_out))
        beside = {"condition_field": c, "condition_field_validate": c_held_out}
        at_call = {"condition_field": c_held_out}
        x, held_out = x + c, held_out + c_held_out

    known = {"n_layers": 1, "psi_knots": 4, "filter_knots": 6, "hidden": (32,), "epochs": 6}
    known |= {"posterior_epochs": 8, "posterior_rate": 4e-3, "posterior_draws": 40}
    known |= {"names": NAMES, "box_size": SIDE, "verbose": False} | options | beside
    both = [
        pyflow.SymmetricFlow(x, held_out, y, at, **known, objective=w)
        for w in ("likelihood", "posterior")
    ]
    seen = held_out
    if kind == "noise map":
        seen = held_out + LEVELS * np.random.default_rng(5).normal(size=held_out.shape)
    prior = PRIOR[:, 0] + np.random.default_rng(6).random((400, 2)) * np.ptp(PRIOR, axis=1)

    def log_posterior(flow):
        logs = flow._core.evaluate_at(seen, np.concatenate([at, prior]), **at_call)
        truth, logs = logs[:, : len(at)].diagonal(), logs[:, len(at) :]
        most = logs.max(axis=1)
        evidence = most + np.log(np.mean(np.exp(logs - most[:, None]), axis=1))
        return (truth - evidence).mean()

    likelihood, posterior = map(log_posterior, both)
    assert posterior > likelihood + 3
    assert posterior > -0.5  # 0 is what the prior has
