"""Samples and latents of flows of random fields with known densities, against sampling errors.

All tests compare means over fields of vectors, one a field, such as its power spectrum in bins. The
covariance of these vectors is measured, so correlations of pixels and of bins are allowed for. What
deviates by as much as one time in 10,000 fails, and so must a spectrum that is 5 % off.
"""

from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

import pyflow
from pyflow import fields

UNLIKELY = 1e-4


class Case(NamedTuple):
    draw: object
    power: object
    mesh: tuple
    box: tuple


def power_law(k):
    return k**-1.5


def bend(k):
    return 1.5 / (1 + (2 * k) ** 2)


CASES = {
    "gaussian-2d": Case(fields.gaussian_field, power_law, (32, 24), (40.0, 24.0)),
    "gaussian-3d": Case(fields.gaussian_field, power_law, (12, 8, 10), (12.0, 8.0, 12.0)),
    "lognormal-2d": Case(fields.lognormal_field, bend, (32, 24), (40.0, 24.0)),
    "lognormal-3d": Case(fields.lognormal_field, bend, (12, 8, 10), (12.0, 8.0, 12.0)),
}


class Fitted(NamedTuple):
    flow: pyflow.Flow
    train: np.ndarray
    held_out: np.ndarray
    samples: np.ndarray
    box: tuple


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def fitted(request):
    draw, power, mesh, box = request.param
    x = draw(power, mesh, 1100, box_size=box, seed=1)
    train, validate, held_out = np.split(x, [600, 800])
    flow = pyflow.SymmetricFlow(
        train,
        validate,
        box_size=box,
        n_layers=3,
        filter_knots=16,
        epochs=20,
        batch=8,
        verbose=False,
    )
    return Fitted(flow, train, held_out, flow.sample(800, seed=3)[0], box)


def spectra(x, box):
    """log P(k) of every field in six bins of |k| with like numbers of modes."""
    k, modes = fields.wavenumbers(x.shape[1:], box)
    k = np.repeat(k.ravel(), modes.ravel())
    edges = np.quantile(k[k > 0], np.linspace(0, 1, 7))
    edges[[0, -1]] *= 0.999, 1.001
    return np.log(fields.power_spectrum(x, box, edges)[1])


def below(x, limits):
    """Fraction of every field's pixels below each limit."""
    x = x.reshape(len(x), -1)
    return np.stack([(x < limit).mean(axis=1) for limit in limits], axis=1)


def moments(x):
    x = x.reshape(len(x), -1).astype(float)
    return np.stack([(x**power).mean(axis=1) for power in (1, 2, 3, 4)], axis=1)


def chance(vectors, expected):
    """Return how likely the mean over fields is so far from expected, or from other fields'."""
    cov = np.cov(vectors.T) / len(vectors)
    if np.ndim(expected) == 2:
        cov += np.cov(expected.T) / len(expected)
        expected = expected.mean(axis=0)
    off = vectors.mean(axis=0) - expected
    return stats.chi2(len(off)).sf(off @ np.linalg.solve(cov, off))


def test_samples_have_the_power_spectrum(fitted):
    expected = spectra(fitted.train, fitted.box)
    assert chance(spectra(fitted.samples, fitted.box), expected) > UNLIKELY
    for off in (0.95, 1.05):
        assert chance(spectra(np.sqrt(off) * fitted.samples, fitted.box), expected) < UNLIKELY


def test_samples_have_the_distribution_of_pixels(fitted):
    limits = np.quantile(fitted.train, [0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99])
    expected = below(fitted.train, limits)
    assert chance(below(fitted.samples, limits), expected) > UNLIKELY
    for off in (0.95, 1.05):
        assert chance(below(off * fitted.samples, limits), expected) < UNLIKELY


def test_latents_of_held_out_fields_are_white(fitted):
    z, _ = fitted.flow.forward(fitted.held_out)
    noise = np.random.default_rng(1).normal(size=(3000, *z.shape[1:]))
    expected = spectra(noise, fitted.box)
    assert chance(spectra(z, fitted.box), expected) > UNLIKELY
    assert chance(spectra(np.sqrt(1.05) * z, fitted.box), expected) < UNLIKELY


def test_latents_of_held_out_fields_are_normal(fitted):
    z, _ = fitted.flow.forward(fitted.held_out)
    assert chance(moments(z), [0, 1, 0, 3]) > UNLIKELY
    limits = stats.norm.ppf([0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99])
    assert chance(below(z, limits), stats.norm.cdf(limits)) > UNLIKELY
    pixel = z.reshape(len(z), -1)
    assert stats.kstest(pixel[:, ::7].ravel(), "norm").pvalue > UNLIKELY
    # neighbours, and squares of neighbours: white Gaussian noise has no correlation of either
    beside = np.roll(z, 1, axis=1)
    for a, b in ((z, beside), (z**2 - 1, beside**2 - 1), (z, beside**2 - 1)):
        each = (a * b).reshape(len(z), -1).mean(axis=1)
        assert abs(stats.norm.isf(UNLIKELY / 2)) > abs(each.mean()) / stats.sem(each)
