"""The examples of what surveys see, and of unseen physics: their parts against known truths."""

import sys

import example_script
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow
from pyflow import fields

pytestmark = [example_script.there("observables.py"), example_script.there("unseen_physics.py")]


@pytest.fixture(scope="module")
def examples():
    with pytest.MonkeyPatch.context() as patch:  # each imports another
        patch.syspath_prepend(str(example_script.FOLDER))
        yield [example_script.load(name) for name in ("observables.py", "unseen_physics.py")]
        for name in ("known_fields", "nbody_posterior", "observables"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def maps():
    def power(k):
        return 0.2 / (1 + k**2)

    return fields.lognormal_field(power, (32, 32), 200, box_size=32.0, seed=1)


def test_galaxies_are_poisson_and_their_noise_is_of_one_size(examples):
    """2 sqrt(n + u) has nearly unit variance, that of counts is nbar (1 + b d); none below 0."""
    populate, rng = examples[0].populate, np.random.default_rng(0)
    for delta, nbar, mean in ((0.2, 5.0, 6.5), (0.2, 30.0, 39.0), (-0.9, 5.0, 0.0)):
        x = populate(np.full((4, 200, 200), delta, np.float32), nbar, rng)
        count = np.floor((x.astype(float) / 2) ** 2)
        assert_allclose(count.mean(), mean, rtol=0.02)
        assert_allclose(count.var(), mean, rtol=0.03)
        if mean:
            assert_allclose(x.var(), 1, atol=0.2 if mean < 10 else 0.05)
    one_each = populate(np.zeros((2, 100, 100), np.float32), [1.0, 30.0], rng)
    assert_allclose(((one_each / 2) ** 2).mean(axis=(1, 2)), [1.5, 30.5], rtol=0.05)


def test_shape_noise_adds_its_variance(examples, maps):
    x = maps.astype(np.float32)
    seen = examples[0].shear(x, 0.7, np.random.default_rng(0))
    assert seen.dtype == np.float32
    assert_allclose((seen - x).std(), 0.7, rtol=0.01)


def test_pixels_are_averaged_and_simulations_taken_once(examples):
    observables, unseen = examples
    x = np.random.default_rng(0).normal(size=(6, 256, 256))
    maps = observables.nbody.Maps(x, np.arange(12).reshape(6, 2), np.array([1, 1, 2, 2, 5, 5]))
    coarse = observables.coarse(maps)
    assert_allclose(coarse.x[3, 5, 7], x[3, 20:24, 28:32].mean())
    assert observables.coarse(coarse).x is coarse.x
    assert_array_equal(observables.one_of_each(coarse, 2).y, [[0, 1], [4, 5]])
    reference, others = unseen.halves(coarse, 3)  # of simulations 1 and 5, and of 2
    assert_array_equal(reference, coarse.x[[0, 4]])
    assert_array_equal(others, coarse.x[[2]])


def test_posteriors_through_fewer_points_are_the_flow_s(examples):
    observables, rng = examples[0], np.random.default_rng(2)
    y = rng.uniform(0.5, 2, (400, 2))
    x = np.sqrt(y[:, :1, None]) * rng.normal(size=(400, 8, 8))
    known = {"hidden": (16,), "n_layers": 1, "filter_knots": 6, "epochs": 5, "verbose": False}
    noise = {"noise": (0.1, 1.0), "noise_condition": True}
    names = ("a", "b", observables.DEPTH)
    lensing = pyflow.SymmetricFlow(x, y_train=y, names=names[:2], **noise, **known)
    galaxies = pyflow.SymmetricFlow(
        x, y_train=np.column_stack([y, rng.uniform(0, 1.5, 400)]), names=names, **known
    )
    prior = lensing.y_range[:2]
    for flow, name, level in ((lensing, "lensing", 0.4), (galaxies, "galaxies", 6.0)):
        observable = observables.OBSERVABLES[name]
        for field in x[:3]:
            few = observables.posterior(flow, field, prior, observable.condition(level))
            whole = flow.posterior(field, prior, **observable.known(level))
            width = np.sqrt(np.diag(whole.cov))
            assert_allclose((few.mean - whole.mean) / width, 0, atol=0.2)
            assert_allclose(np.sqrt(np.diag(few.cov)) / width, 1, atol=0.2)


def test_features_change_what_they_should(examples, maps):
    unseen, rng = examples[1], np.random.default_rng(0)
    k, before, _ = fields.power_spectrum(maps, 32.0)
    suppressed = 1 - 0.2 * k**2 / (k**2 + 0.2**2)  # pixels of length one
    for name, ratio in (("smoothed", np.exp(-((0.2 * k) ** 2))), ("baryons", suppressed)):
        _, after, _ = fields.power_spectrum(unseen.FEATURES[name](maps, 1.0, rng), 32.0)
        assert_allclose(after.mean(axis=0) / before.mean(axis=0), ratio, rtol=0.02)
    half = unseen.baryons(maps, 0.5, rng)  # k in units of half a pixel's
    _, after, _ = fields.power_spectrum(half, 32.0)
    suppressed = 1 - 0.2 * (2 * k) ** 2 / ((2 * k) ** 2 + 0.2**2)
    assert_allclose(after.mean(axis=0) / before.mean(axis=0), suppressed, rtol=0.02)
    noise = unseen.shot_noise(maps, 1.0, rng) - maps
    assert abs(noise.mean()) < 1e-3
    assert_allclose(noise.var(), 1 / 400 + 1 / 12 / 400**2, rtol=0.03)
    shuffled = unseen.phases(maps, 1.0, rng)
    assert_allclose(fields.power_spectrum(shuffled, 32.0)[1], before)
    assert_allclose(shuffled.mean(axis=(1, 2)), maps.mean(axis=(1, 2)))
    skewness = [np.mean(((x - x.mean()) / x.std()) ** 3) for x in (maps, shuffled)]
    assert abs(skewness[1]) < 0.1 * skewness[0]


def test_scores_tell_what_a_flow_was_not_trained_for(examples):
    """White fields of variance y: more power in one bin of |k| is seen, another y is not."""
    unseen, rng = examples[1], np.random.default_rng(1)
    y = rng.uniform(0.5, 2, (700, 2))
    x = np.sqrt(y[:, :1, None]) * rng.normal(size=(700, 8, 8))
    flow = pyflow.SymmetricFlow(
        x[:400], y_train=y[:400], hidden=(16,), n_layers=1, filter_knots=6, epochs=8, verbose=False
    )
    judge = unseen.Judge(flow, x[400:500], flow.y_range)
    held_out, inside = (judge.scores(judge.look(a)) for a in (x[500:600], x[600:]))
    outside = judge.scores(judge.look(unseen.filtered(x[600:], lambda k: 1 + (k > 2.5))))
    for name in ("by scale", "all"):
        p_in, p_out = (pyflow.metrics.p_values(s[name], held_out[name]) for s in (inside, outside))
        assert 0.3 < p_in.mean() < 0.7
        assert pyflow.metrics.auroc(p_in, p_out) > 0.8
