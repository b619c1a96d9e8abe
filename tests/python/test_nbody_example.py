"""The example of N-body maps: what a run with --quick does not show."""

import importlib
import os
import subprocess
import sys

import example_script
import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from pictures import band_of
from scipy.stats import multivariate_normal

import pyflow

SCRIPT = example_script.FOLDER / "nbody_posterior.py"
pytestmark = example_script.there(SCRIPT.name)


@pytest.fixture(scope="module")
def nbody():
    return example_script.load(SCRIPT.name)


@pytest.mark.parametrize("how", ["option", "environment"])
def test_says_where_the_maps_would_be(tmp_path, how):
    folder = str(tmp_path / "nowhere")
    command = [sys.executable, SCRIPT, *(["--data", folder] if how == "option" else [])]
    environment = os.environ | ({"PYFLOW_NBODY_MAPS": folder} if how == "environment" else {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"are not in {folder}" in done.stderr


def test_small_set_is_made_once(nbody, simulator, tmp_path, monkeypatch, capsys):
    """Without a folder, maps are made, which load() reads, and found again."""
    tiny = simulator.Size(side=8, finer=1, steps=2, simulations=15, fiducial=2)
    monkeypatch.setattr(simulator.make, "__defaults__", (tiny, 1, 0, 2, False))
    monkeypatch.setattr(nbody, "SMALL_MAPS", tmp_path / "made")
    monkeypatch.delenv("PYFLOW_NBODY_MAPS", raising=False)
    folder = nbody.find_maps()
    assert nbody.find_maps() == folder
    assert capsys.readouterr().out.count("making") == 1
    data = nbody.load(folder)
    parts = [len(np.unique(getattr(data, part).sim)) for part in ("train", "validate", "test")]
    assert parts == [11, 1, 3]
    assert data.fiducial.x.shape == (8, 8, 8)
    assert_array_equal(data.fiducial.y, np.tile([0.3, 0.8], (8, 1)))
    assert np.all((data.train.y > data.prior[:, 0]) & (data.train.y < data.prior[:, 1]))
    assert sorted(path.name for path in folder.iterdir()) == ["fiducial.npz", "train.npz"]
    monkeypatch.setenv("PYFLOW_NBODY_MAPS", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        nbody.find_maps()


@pytest.fixture
def simulator(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("nbody_maps")


def test_growth_without_dark_energy(simulator):
    """With omega_m = 1: D = a, D2 = -3/7 a^2, a^3 E dD/da = a^(3/2)."""
    cosmology = simulator.Cosmology(1.0, 0.8)
    for a in (0.05, 0.3, 1):
        assert_allclose(cosmology.growth(a), a, rtol=1e-4)
        assert_allclose(cosmology.growth(a, 2), -3 / 7 * a**2, rtol=1e-4)
        assert_allclose(cosmology.momentum(a), a**1.5, rtol=1e-4)
        assert_allclose(cosmology.momentum(a, 2), -6 / 7 * a**2.5, rtol=1e-4)


def test_simulated_fields_have_linear_power_on_large_scales(simulator):
    """Within a few per cent: the lowest frequencies grow by D, ten times from the start."""
    cosmology, n = simulator.Cosmology(0.3, 0.8), 32
    size = simulator.Size(side=n, finer=1, steps=5, simulations=1, fiducial=0)
    delta = simulator.overdensity(simulator.simulate(cosmology, size, seed=3)[0], n)
    assert abs(delta.mean()) < 1e-4
    x, _ = simulator.initial(cosmology, n, seed=3)
    first = np.fft.rfftn(simulator.overdensity(x, n)) / cosmology.growth(simulator.START)
    last = np.fft.rfftn(delta)
    k = np.sqrt(sum(axis**2 for axis in simulator.frequencies(n)))
    low = (k > 0) & (k < 0.03)
    ratio = np.sum(last[low] * first[low].conj()).real / np.sum(np.abs(first[low]) ** 2)
    assert abs(ratio - 1) < 0.05
    modes = np.abs(first) ** 2 * simulator.BOX**3 / n**6  # P(k), one number each
    expected = np.exp(np.interp(np.log(k[low]), np.log(simulator.K), np.log(cosmology.power)))
    count = low.sum()
    assert abs(np.mean(modes[low] / expected) - 1) < 5 * np.sqrt(2 / count)


def test_redshift_space_is_kaiser_s_on_large_scales(simulator):
    """Overdensities there are 1 + f mu^2 times those in real space, f = dln D / dln a."""
    cosmology, n = simulator.Cosmology(0.3, 0.5), 32
    size = simulator.Size(side=n, finer=1, steps=5, simulations=1, fiducial=0)
    x, p = simulator.simulate(cosmology, size, seed=3)
    growth = np.log(cosmology.growth(1) / cosmology.growth(0.98)) / np.log(1 / 0.98)
    assert abs(growth - 0.3**0.55) < 0.02
    k = simulator.frequencies(n)
    real = np.fft.rfftn(simulator.overdensity(x, n))
    for axis in range(3):
        seen = np.fft.rfftn(simulator.overdensity(simulator.in_redshift_space(x, p, axis), n))
        square = sum(f**2 for f in k)
        mu2 = k[axis] ** 2 / np.where(square > 0, square, 1)
        for inside, expected in ((mu2 > 0.99, 1 + growth), (mu2 < 0.01, 1)):
            at = inside & (square > 0) & (square < 0.03**2)
            ratio = np.sum(seen[at] * real[at].conj()).real / np.sum(np.abs(real[at]) ** 2)
            assert abs(ratio / expected - 1) < 0.04


def test_maps_in_redshift_space_have_the_line_of_sight_last(simulator, monkeypatch):
    """Of all slabs, whichever axis is across: particles on a plane move off it along that axis."""
    n = 8
    size = simulator.Size(side=n, finer=1, steps=1, simulations=1, fiducial=0)
    lattice = (np.indices((n,) * 3, dtype=np.float32).reshape(3, -1) + 0.25) * simulator.BOX / n
    p = np.ones_like(lattice) * np.array([[0.0], [30.0], [60.0]], np.float32)
    monkeypatch.setattr(simulator, "simulate", lambda *_: (lattice, p))
    monkeypatch.setattr(simulator, "MAPS", 12)
    moved = []
    monkeypatch.setattr(
        simulator, "overdensity", lambda x, n: moved.append(x - lattice) or np.zeros((n,) * 3)
    )
    assert simulator.maps_of(0, (0.3, 0.8), 1, size, True).shape == (12, n, n)
    across = [np.unique(np.nonzero(shift)[0]).tolist() for shift in moved]
    assert across == [[2], [1]]  # slabs across axes 0 and 1, then across axis 2


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


def test_regions_and_coverage_are_drawn_as_pyflow_draws(nbody):
    """Regions hold their masses of either posterior; coverage is a cumulative distribution."""
    covariances = [np.diag([0.04, 0.01]), np.array([[0.01, 0.008], [0.008, 0.01]])]
    laws = [multivariate_normal([0.5, 0.5], cov) for cov in covariances]
    prior = [(-1, 2), (-1, 2)]
    posts = [pyflow.Posterior(law.logpdf, prior, ["omega_m", "sigma_8"]) for law in laws]
    regions, coverage = Figure().subplots(1, 2)
    with pyflow.plots.style():
        nbody.draw_regions(regions, posts, [0.4, 0.6])
    assert [regions.get_xlabel(), regions.get_ylabel()] == [r"$\Omega_m$", r"$\sigma_8$"]
    lines = [drawn for drawn in regions.collections if not drawn.get_fill()]
    assert len(lines) == len(laws)
    for drawn, law, colour in zip(lines, laws, ("C0", "C1"), strict=True):
        points = law.rvs(4000, random_state=0)
        inside = [path.contains_points(points).mean() for path in drawn.get_paths()]
        assert_allclose(sorted(inside), [0.68, 0.95], atol=0.03)
        with pyflow.plots.style():
            assert same_color(drawn.get_edgecolor()[0], colour)
    credibility = np.array([0.1, 0.2, 0.2, 0.9])
    nbody.draw_coverage(coverage, [(credibility, {"label": "these"})], 25, sigmas=2)
    x, y = coverage.lines[-1].get_data()
    assert_allclose(np.interp([0.05, 0.5, 0.99], x, y), [0, 0.75, 1])
    x, low, high = band_of(coverage.collections[0])
    assert_allclose((high - low)[x == 0.5], 2 * 2 * 0.1)


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
