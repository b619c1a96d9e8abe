"""The example of N-body maps: what a run with --quick does not show."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal

import pyflow

SCRIPT = Path(__file__).parents[2] / "examples" / "nbody_posterior.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the examples are not here")


@pytest.fixture(scope="module")
def nbody():
    spec = importlib.util.spec_from_file_location("nbody_posterior", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_says_where_the_maps_would_be(tmp_path):
    command = [sys.executable, SCRIPT, "--data", tmp_path / "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stdout
    assert str(tmp_path / "nowhere") in done.stdout


def test_simulations_are_in_one_part_only(nbody, tmp_path):
    sim = np.arange(300).repeat(4)
    x = np.random.default_rng(0).normal(size=(1200, 4, 4)).astype(np.float16)
    np.savez(tmp_path / "train.npz", maps=x, params=np.stack([sim, -sim], axis=1), sim=sim)
    np.savez(tmp_path / "fiducial.npz", maps=x[:8], sim=sim[:8])
    clean = nbody.load(tmp_path)
    for part, wanted in (("train", (0, 220)), ("validate", (220, 250)), ("test", (250, 300))):
        maps = getattr(clean, part)
        assert_array_equal(np.unique(maps.sim), np.arange(*wanted))
        assert_array_equal(maps.y, np.stack([maps.sim, -maps.sim], axis=1))
        assert_array_equal(maps.x, x[np.isin(sim, maps.sim)])
    noisy = nbody.with_noise(clean, 3.0)
    assert_array_equal(noisy.train.x, clean.train.x)
    assert abs((noisy.test.x - clean.test.x).std() - 3) < 0.1
    np.savez(tmp_path / "test.npz", maps=x[:4], params=np.full((4, 2), 0.5), sim=sim[:4])
    other = nbody.load(tmp_path)
    assert_array_equal(other.test.y, np.full((4, 2), 0.5))
    assert_array_equal(other.validate.sim, clean.validate.sim)


@pytest.fixture(scope="module")
def known(nbody):
    """Log spectra of five bins, Gaussian with a mean and a covariance that depend on y."""
    data = nbody.simulate()
    likelihood = nbody.SpectrumLikelihood(data, (3, 2))
    rng = np.random.default_rng(0)
    y = rng.uniform(*data.prior.T, size=(20000, 2))
    likelihood.degrees = 2, 1, 1
    likelihood.mean = rng.normal(size=(6, 5))
    likelihood.a = np.tril(rng.normal(size=(3, 5, 5)), -1)
    likelihood.v = 0.3 * rng.normal(size=(3, 5))
    mean, a, v = likelihood.at(y)
    e = rng.normal(size=mean.shape) * np.exp(v / 2)
    return likelihood, mean + np.linalg.solve(np.eye(5) - a, e[:, :, None])[:, :, 0], y


def test_spectrum_likelihood_is_a_gaussian(known):
    likelihood, s, y = known
    mean, a, v = likelihood.at(y[:20])
    logp = likelihood.logp(s[:20], (mean, a, v))
    for i in range(20):
        root = np.linalg.inv(np.eye(5) - a[i])
        cov = root @ np.diag(np.exp(v[i])) @ root.T
        assert_allclose(logp[i], multivariate_normal(mean[i], cov).logpdf(s[i]))


def test_spectrum_likelihood_is_recovered(nbody, known):
    likelihood, s, y = known
    fitted = nbody.SpectrumLikelihood(nbody.simulate(), (3, 2)).fit(s, y, likelihood.degrees)
    lost = likelihood.logp(s, likelihood.at(y)) - fitted.logp(s, fitted.at(y))
    assert abs(lost.mean()) < 0.02  # 75 numbers from 20,000 rows


def test_temperature_undoes_a_power_of_the_likelihood(nbody, known, monkeypatch):
    likelihood, s, y = known
    maps = nbody.Maps(np.arange(200), y[:200], np.arange(200))
    monkeypatch.setattr(likelihood, "spectra", lambda rows: s[rows])
    exact = likelihood.logp
    found = []
    for power in (0.5, 2):
        monkeypatch.setattr(likelihood, "logp", lambda s, at, power=power: power * exact(s, at))
        found.append(power * nbody.temperature(likelihood, maps))
    assert_allclose(found, 1, atol=0.2)
    assert_allclose(found[0], found[1], rtol=0.005)


def test_statistics_of_calibrated_posteriors(nbody):
    rng = np.random.default_rng(3)
    truth = rng.uniform(-1, 1, size=(400, 1))
    seen = truth + rng.normal(0, 0.1, size=truth.shape)
    prior = np.array([[-1.0, 1.0]])

    def posterior_of(i, sigma):
        return pyflow.Posterior(lambda y: -0.5 * ((y[:, 0] - seen[i]) / sigma) ** 2, prior)

    maps = nbody.Maps(seen, truth, np.arange(400))
    right, narrow = (
        nbody.statistics(nbody.summarise(lambda i, s=s: posterior_of(i, s), maps, prior), maps)
        for s in (0.1, 0.03)
    )
    for mass in (0.68, 0.95):
        held, error = right[f"{mass:.0%}".replace("%", " %")]
        assert abs(held - mass) < 4 * error
    assert narrow["68 %"][0] < 0.4
    for rank in ("credibility", "TARP"):
        assert right[rank] < 0.08 < narrow[rank]  # 0.068 is exceeded once in 20
    assert right["log p"][0] > narrow["log p"][0] + 1
    assert narrow["merit"] > 2 * right["merit"]
    assert abs(right["rms error"][0] - 0.1) < 0.015


@pytest.mark.slow
def test_maps_with_noise(tmp_path):
    command = [sys.executable, "-W", "error", SCRIPT, "--quick", "--noise", "0.2"]
    for again in ([], ["--flow", tmp_path / "flow.pyflow"]):
        done = subprocess.run(
            [*command, "--out", tmp_path, *again], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert "trained" not in done.stdout or not again
    assert len(list(tmp_path.glob("*.png"))) == 7
