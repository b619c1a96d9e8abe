"""Conditions that are known, of which there is no posterior: the noise's level, and fixed ones."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import pyflow
from pyflow import Posterior

BOX = 8.0
PRIOR = [(0.5, 2.0)]
NAMES = ("nbar", "amplitude")


def draw(n, seed):
    """White fields of variance amplitude + 1 / nbar, as shot noise adds to it."""
    rng = np.random.default_rng(seed)
    y = rng.uniform((0.5, 0.5), (4.0, 2.0), size=(n, 2))
    deviation = np.sqrt(y[:, 1] + 1 / y[:, 0])
    return deviation[:, None, None] * rng.normal(size=(n, 8, 8)), y


@pytest.fixture(scope="module")
def flow():
    x, y = draw(800, 1)
    known = {"n_layers": 1, "psi_knots": 4, "filter_knots": 4, "hidden": (32, 32), "epochs": 20}
    return pyflow.SymmetricFlow(
        x[:700], x[700:], y[:700], y[700:], names=NAMES, box_size=BOX, verbose=False, **known
    )


def test_posterior_at_a_known_condition_is_nearly_the_exact_one(flow):
    x, y = draw(30, 2)
    off, width = {"right": [], "wrong": []}, []
    for field, (nbar, _) in zip(x, y, strict=True):

        def exact(at, field=field, nbar=nbar):
            variance = at[:, 0] + 1 / nbar
            return -0.5 * ((field**2).sum() / variance + field.size * np.log(variance))

        truth = Posterior(exact, PRIOR)
        for name, at in (("right", nbar), ("wrong", 4.5 - nbar)):
            mine = flow.posterior(field, PRIOR, fixed={"nbar": at})
            off[name].append((mine.mean - truth.mean) / np.sqrt(truth.cov[0]))
        assert mine.names == ("amplitude",)
        width.append(flow.posterior(field, PRIOR, fixed={"nbar": nbar}).cov / truth.cov)
    rms = {name: np.sqrt(np.mean(np.square(values))) for name, values in off.items()}
    assert rms["right"] < 0.3 < 1 < rms["wrong"]
    assert abs(np.mean(width) - 1) < 0.2


@pytest.mark.parametrize(("name", "value"), [("nbar", 1.7), ("amplitude", 0.9)])
def test_a_fixed_condition_cuts_the_posterior_of_all(flow, name, value):
    """Along the cut both differ by a constant, whichever the condition is, whatever the prior."""
    x = draw(3, 3)[0]  # three fields that share y
    j, box = NAMES.index(name), np.array([(0.5, 4.0), (0.5, 2.0)])
    other = 1 - j
    at = np.linspace(*box[other], 7)
    both = np.empty((7, 2))
    both[:, j], both[:, other] = value, at
    cut = flow.posterior(x, box).logp(both)
    for prior in ({"prior": box[[other]]}, {"prior": lambda y: 0.0, "bounds": box[[other]]}, {}):
        post = flow.posterior(x, **prior, fixed={name: value})
        assert post.names == (NAMES[other],)
        assert np.ptp(post.logp(at[1:-1, None]) - cut[1:-1]) < 1e-6
    same = pickle.loads(pickle.dumps(post))
    assert_allclose(same.logp(at[1:-1, None]), post.logp(at[1:-1, None]))


def test_a_fixed_condition_and_the_noise(flow):
    x, y = draw(500, 4)
    with pytest.raises(ValueError, match="noise: is no condition"):
        flow.posterior(x[0], fixed={"nbar": 1.0}, noise=0.5)
    known = {"noise": (0.1, 0.5), "noise_condition": True, "names": NAMES, "epochs": 0}
    noisy = pyflow.SymmetricFlow(x, y_train=y, hidden=(8,), n_layers=1, verbose=False, **known)
    post = noisy.posterior(x[0], PRIOR, noise=0.3, fixed={"nbar": 1.0})
    at = np.linspace(0.6, 1.9, 5)
    exact = noisy.evaluate_density(
        np.tile(x[0], (5, 1, 1)), np.column_stack([np.full(5, 1.0), at, np.full(5, 0.3)])
    )
    assert np.ptp(post.logp(at[:, None]) - exact) < 1e-6
    with pytest.raises(ValueError, match="fixed: 'noise' is none of the parameters nbar, amplit"):
        noisy.posterior(x[0], noise=0.3, fixed={"noise": 0.3})


@pytest.mark.parametrize(
    ("fixed", "error", "message"),
    [
        ({"depth": 1.0}, ValueError, "fixed: 'depth' is none of the parameters nbar, amplitude"),
        ({"nbar": np.nan}, ValueError, "fixed: must be finite"),
        ({"nbar": "deep"}, TypeError, "fixed: must be a"),
        (["nbar"], TypeError, "fixed: must be a dict of names and numbers"),
        ({"nbar": 1.0, "amplitude": 1.0}, ValueError, "fixed: all parameters are known"),
    ],
)
def test_bad_fixed_conditions_are_refused(flow, fixed, error, message):
    with pytest.raises(error, match=message):
        flow.posterior(np.ones((8, 8)), fixed=fixed)


def test_priors_are_of_the_free_conditions(flow):
    with pytest.raises(ValueError, match=r"prior: must have shape \(1, 2\)"):
        flow.posterior(np.ones((8, 8)), [(0.5, 4.0), (0.5, 2.0)], fixed={"nbar": 1.0})
    with pytest.warns(UserWarning, match="fixed: nbar = 9 lies outside of the training range"):
        flow.posterior(np.ones((8, 8)), PRIOR, fixed={"nbar": 9.0})
    with pytest.warns(UserWarning, match="prior: amplitude = 0.5 to 3 lies outside"):
        flow.posterior(np.ones((8, 8)), [(0.5, 3.0)], fixed={"nbar": 1.0})
