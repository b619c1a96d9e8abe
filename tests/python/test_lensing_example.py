"""The lensing example: its simulator against theory and against the one that it follows."""

import sys

import example_script
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import skew

import pyflow

NAME = "lensing.py"
pytestmark = example_script.there(NAME)
FIDUCIAL = 0.3, 0.8
# C(l) by jax_cosmo 0.1.0, whose Limber integral, halofit and transfer function are independent
ELL = [64.134, 302.214, 1545.17, 7900.195]
JAX_COSMO = {
    (0.3, 0.8): [6.3129e-9, 9.3745e-10, 1.256e-10, 7.6835e-12],
    (0.2, 0.9): [5.8209e-9, 7.7946e-10, 1.0256e-10, 5.8797e-12],
    (0.42, 0.68): [6.0262e-9, 9.8728e-10, 1.3188e-10, 8.7861e-12],
    (0.1, 0.7): [2.0556e-9, 1.7263e-10, 1.9253e-11, 1.3279e-12],
}


@pytest.fixture(scope="module")
def lensing():
    sys.path.insert(0, str(example_script.FOLDER))  # it imports another example
    try:
        return example_script.load(NAME)
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize("y", JAX_COSMO)
def test_spectrum_is_jax_cosmo_s(lensing, y):
    assert_allclose(lensing.convergence_spectrum(ELL, *y), JAX_COSMO[y], rtol=4e-3)


def test_table_is_the_spectrum(lensing):
    rng = np.random.default_rng(0)
    for y in rng.normal(*lensing.PRIOR, size=(5, 2)):
        exact = lensing.convergence_spectrum(lensing.ELL, *y)
        assert_allclose(lensing.spectrum(lensing.ELL, y, lensing.table()), exact, rtol=3e-4)


def test_growth_without_dark_energy(lensing):
    assert_allclose(lensing.growth(np.array([0.1, 0.5, 1]), 1.0), [0.1, 0.5, 1])


def test_large_scales_are_linear(lensing):
    """Halofit leaves k = 0.005 h/Mpc alone, and sigma_8 is the scatter in balls of 8 Mpc/h."""
    k, a = np.array([[0.005]]), np.array([1.0, 0.5])
    linear = lensing.linear_power(k, 0.3) * (0.8 * lensing.growth(a, 0.3)) ** 2
    assert_allclose(lensing.halofit(k, a, 0.3, 0.8), linear, rtol=0.01)
    k = np.linspace(*lensing.K_SIGMA_8, 400_001)
    x = 8 * k
    ball = 3 * (np.sin(x) - x * np.cos(x)) / x**3
    variance = np.trapezoid(k**2 * lensing.linear_power(k, 0.3) * ball**2, k) / (2 * np.pi**2)
    assert_allclose(variance, 1, rtol=1e-3)


@pytest.mark.parametrize(
    ("omega_m", "sigma_8", "value"),
    [
        (0.2875, 0.775, 0.0291793),  # entries of sbi_lens' table, at its places of them
        (0.3375, 0.725, 0.0324005),
        (0.2125, 0.975, 0.0235398),
        (0.45, 1.05, 0.0363619),  # beyond its edges
        (0.1, 0.5, 0.0242864),
    ],
)
def test_shift_is_the_table_s(lensing, omega_m, sigma_8, value):
    assert_allclose(lensing.shift(omega_m - lensing.OMEGA_B, sigma_8), value, rtol=2.5e-3)


def published(z, y, lensing):
    """The convergence by sbi_lens' recipe as it is written there: whole transforms, a power map."""
    n, size = len(z), np.radians(5.0)
    k = 2 * np.pi * np.fft.fftfreq(n, d=size / n)
    k = np.hypot(*np.meshgrid(k, k))
    power = np.interp(k, lensing.ELL, lensing.spectrum(lensing.ELL, np.array(y), lensing.table()))
    power[0, 0] = 0
    below = lensing.shift(*y)
    power = np.fft.ifft2(power * (n / size) ** 2).real
    power = np.abs(np.fft.fft2(np.log(1 + power / below**2)))
    power[0, 0] = 0
    field = np.fft.ifft2(np.fft.fft2(z) * np.sqrt(power)).real
    return below * (np.exp(field - np.var(field) / 2) - 1)


def test_maps_are_made_by_the_published_recipe(lensing):
    rng = np.random.default_rng(0)
    for side, y in ((16, FIDUCIAL), (24, (0.2, 0.9)), (15, (0.37, 0.7))):
        z = rng.standard_normal((side, side))
        found = lensing.convergence(z, np.array(y), lensing.table())
        assert_allclose(found, published(z, y, lensing), atol=1e-12)


def test_noise_is_the_published_one(lensing):
    assert_allclose(lensing.noise_level(128), 0.015579663857924725)
    clean, noisy = (lensing.simulate(40, 32, 3, FIDUCIAL, noise)[0] for noise in (False, True))
    noise = (noisy - clean).astype(float)
    assert abs(noise.std() / lensing.noise_level(32) - 1) < 4 / np.sqrt(2 * noise.size)
    assert abs(np.mean(noise * clean)) < 4 * noise.std() * clean.std() / np.sqrt(noise.size)


def test_maps_have_the_spectrum_of_the_theory(lensing):
    """In bins of l, within four standard errors; 2 % and less where there are many modes."""
    side = 32
    x, _ = lensing.simulate(400, side, 1, FIDUCIAL, noise=False)
    pixel = np.radians(lensing.DEGREES / side) ** 2
    power = np.abs(np.fft.rfft2(x.astype(float))) ** 2 / side**2 * pixel
    ell = lensing.wavenumbers(side)
    ratio = power / lensing.spectrum(ell, np.array(FIDUCIAL), lensing.table())
    for low, high in ((60, 150), (150, 400), (400, 800), (800, 1700)):
        each = ratio[:, (ell > low) & (ell < high)].mean(axis=1)
        error = each.std() / np.sqrt(len(each))
        assert error < 0.04
        assert abs(each.mean() - 1) < 4 * error


def test_maps_are_lognormal(lensing):
    """Log(1 + convergence / shift) is Gaussian: mean -var/2 of each map; its field is not."""
    x, _ = lensing.simulate(200, 32, 2, FIDUCIAL, noise=False)
    below = lensing.shift(*FIDUCIAL)
    assert x.min() > -below
    ratio = x.astype(float) / below
    each = ratio.mean(axis=(1, 2))
    assert abs(each.mean()) < 4 * each.std() / np.sqrt(len(each))
    g = np.log1p(ratio)
    assert_allclose(g.mean(axis=(1, 2)), -g.var(axis=(1, 2)) / 2, atol=1e-5)
    by_map = skew(g.reshape(len(g), -1), axis=1)
    assert abs(by_map.mean()) < 4 * by_map.std() / np.sqrt(len(by_map))
    sigma = np.sqrt(np.expm1(g.var(axis=(1, 2)).mean()))
    assert_allclose(skew(ratio.ravel()), sigma * (3 + sigma**2), rtol=0.1)


def test_maps_are_reproducible(lensing):
    x, y = lensing.simulate(200, 8, 1)
    again, same = lensing.simulate(200, 8, 1)
    assert_array_equal(again, x)
    assert_array_equal(same, y)
    assert not np.array_equal(lensing.simulate(200, 8, 2)[0], x)
    error = lensing.PRIOR[1] / np.sqrt(len(y))
    assert np.all(np.abs(y.mean(axis=0) - lensing.PRIOR[0]) < 4 * error)
    assert_allclose(y.std(axis=0), lensing.PRIOR[1], rtol=4 / np.sqrt(2 * len(y)))


def test_pixels_are_averaged(lensing):
    x = np.arange(96.0).reshape(2, 4, 12)[:, :, :4].copy()
    found = lensing.averaged(x, 2)
    assert found.shape == (2, 2, 2)
    assert found[1, 0, 1] == x[1, :2, 2:].mean()
    assert_array_equal(lensing.averaged(x, 1), x)
    assert_array_equal(lensing.averaged(x[0], 4), [[x[0].mean()]])


@pytest.fixture
def chain(tmp_path, lensing):
    """Return the path of a file like the published one, of a small map."""
    rng = np.random.default_rng(0)
    path = tmp_path / "reference.npz"
    np.savez(
        path,
        observed=lensing.simulate(1, 16, 3, FIDUCIAL)[0][0],
        chain=rng.multivariate_normal(FIDUCIAL, [[4e-4, -3e-4], [-3e-4, 9e-4]], 20_000),
        truth_fiducial=np.array(FIDUCIAL),
        noise_std=lensing.noise_level(16),
    )
    return path


def test_published_chain_is_found_or_skipped(lensing, chain, capsys):
    found = lensing.reference(chain, 16)
    assert found.observed.shape == (16, 16)
    assert found.y.shape == (20_000, 2)
    assert lensing.reference(chain, 32) is None
    assert lensing.reference(chain.parent / "nowhere.npz", 16) is None
    said = capsys.readouterr().out
    assert "(16, 16) pixels" in said
    assert "nowhere.npz: skipped" in said
    with np.load(chain) as file:
        np.savez(chain, **{k: file[k] for k in file.files if k != "noise_std"}, noise_std=1.0)
    with pytest.raises(ValueError, match="its noise"):
        lensing.reference(chain, 16)


def test_posterior_beside_a_chain(lensing, chain, capsys):
    """Of Gaussians that are the chain's but for a shift, and a factor of their width."""
    y = lensing.reference(chain, 16).y
    mean, inverse = y.mean(axis=0), np.linalg.inv(np.cov(y.T))
    for scale, shift, off, width, area in (
        (1, 0.5, "+0.50", "1.000", "1.000"),
        (2, 1, "+1.00", "2.000", "4.000"),
    ):
        centre = mean + shift * y.std(axis=0)

        def log_density(at, centre=centre, scale=scale):
            return -0.5 * np.einsum("ni,ij,nj->n", at - centre, inverse, at - centre) / scale**2

        lensing.against(pyflow.Posterior(log_density, [(0, 0.6), (0.5, 1.1)]), y)
        said = capsys.readouterr().out
        assert said.count(f"off by {off} of its widths, {width} times as wide") == 2
        assert f"{area} of the chain's" in said


def test_runs_beside_a_chain(lensing, chain, tmp_path, monkeypatch, capsys):
    """CI runs --quick without one."""
    arguments = ["--quick", "--reference", str(chain), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(lensing, "QUICK", lensing.QUICK | {"epochs": 2})
    monkeypatch.setattr(sys, "argv", [NAME, *arguments, "--test", "5", "--average", "2"])
    lensing.main()
    assert "of the chain's" in capsys.readouterr().out
    assert pyflow.load(tmp_path / "out" / "flow.pyflow").shape == (8, 8)
    assert (tmp_path / "out" / "lensing.png").stat().st_size > 10_000
    again = [
        *arguments,
        "--test",
        "5",
        "--average",
        "2",
        "--flow",
        str(tmp_path / "out" / "flow.pyflow"),
    ]
    monkeypatch.setattr(sys, "argv", [NAME, *again])
    lensing.main()
    assert "300 maps" not in capsys.readouterr().out
