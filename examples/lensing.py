"""Weak lensing: omega_c and sigma_8 from one noisy convergence map, by a flow of simulated maps.

    python examples/lensing.py                # 2,000 maps of 128 x 128 pixels: some ten minutes
    python examples/lensing.py --average 2    # averaged to 64 x 64: two minutes
    python examples/lensing.py --quick        # shows that it runs, not how well

The simulator is a lognormal one, of 5 x 5 degrees with periodic borders. For a flat LCDM cosmology,
of which the density of cold dark matter, omega_c, and sigma_8 are unknown:

1.  The power spectrum of convergence, C(l), by Limber's approximation, for galaxies at redshifts
    n(z) ~ z^(1/2) exp(-z^2), from the matter power spectrum of Eisenstein & Hu 1998
    (astro-ph/9709112) and halofit (Takahashi et al. 2012, arXiv 1208.2701).
2.  White noise z of unit variance, a number for each pixel, is coloured to a Gaussian field g whose
    correlation function is log(1 + xi / s^2), with that of convergence, xi, and a shift s.
3.  The convergence is s (exp(g - var(g) / 2) - 1): lognormal, never below -s, with spectrum C(l).
4.  To every pixel comes the noise of the galaxies' shapes, sigma_e / sqrt(galaxies in it).

It follows, step by step, the simulator sbi_lens (github DifferentiableUniverseInitiative/sbi_lens,
commit b2517a4, MIT licence) on jax_cosmo 0.1.0: C(l) differs by 0.3 % at most. Its authors have
published their posterior for a map of 128 x 128 pixels, by Hamiltonian Monte Carlo over z and both
parameters. If map and chain are in --reference, the flow's posterior for that map is compared with
them. bench/bench_lensing.py makes such chains for maps of this simulator.

Prints what posteriors of fresh maps hold (Flow.check), and draws a map, a posterior and coverage.
"""

import argparse
import functools
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nbody_posterior import draw_coverage, draw_regions, write
from numpy.polynomial import chebyshev
from scipy.integrate import cumulative_simpson, simpson
from scipy.special import hyp2f1
from scipy.stats import gaussian_kde

import pyflow

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "output" / "lensing"
REFERENCE = HERE.parents[1] / "shared" / "data" / "lensing" / "reference.npz"

NAMES = ("omega_c", "sigma_8")
PRIOR = np.array([[0.3, 0.8], [0.05, 0.05]])  # normal: means, standard deviations
OMEGA_B, HUBBLE, N_S = 0.0486, 0.6774, 0.9667  # of baryons; h; of the primordial spectrum
T_CMB = 2.7255  # K
DEGREES = 5.0  # of a side of the map
GALAXIES, SIGMA_E = 30.0, 0.2  # per square arcminute; of an ellipticity
Z_MAX = 10.0  # of galaxies
HUBBLE_LENGTH = 2997.92458  # c / H_0, Mpc/h
# Of pyflow.SymmetricFlow. A network smaller than the default, which few maps determine.
SETTINGS = {"hidden": (64, 64), "weight_decay": 1.0}
QUICK = {"n_layers": 2, "psi_knots": 6, "filter_knots": 16, "hidden": (32, 32), "epochs": 20}
# sbi_lens looks C(l) up in a table, linearly; these are its nodes within our maps.
ELL = np.logspace(0, 4.5, 128)[50:112]
# sigma_8 counts modes of these k, h/Mpc, as in jax_cosmo: of all it is 0.1 to 0.3 % more.
K_SIGMA_8 = np.exp([-4.0, 3.0])
# log C(l) is a polynomial of the parameters within 5 standard deviations, of these degrees.
BOX = np.stack([PRIOR[0] - 5 * PRIOR[1], PRIOR[0] + 5 * PRIOR[1]], axis=1)
NODES = 11, 7

# Shift of the lognormal, by powers of (omega_m - 0.3) / 0.1 and (sigma_8 - 0.8) / 0.2.
SHIFT = {
    (0, 0): 0.030000,
    (1, 0): 0.006607,
    (2, 0): -0.000698,
    (3, 0): 0.000190,
    (0, 1): -0.000032,
    (1, 1): 0.000569,
    (2, 1): 0.000204,
    (0, 2): 0.000621,
    (1, 2): 0.000149,
    (0, 3): -0.000116,
}


# ---- the theory ----------------------------------------------------------------------------------


def transfer(k, omega_m):
    """Return T(k) of matter, with baryons and their wiggles: Eisenstein & Hu 1998; k in h/Mpc.

    The numbers of equations are theirs.
    """
    theta = (T_CMB / 2.7) ** 2
    w_m, w_b, fb = omega_m * HUBBLE**2, OMEGA_B * HUBBLE**2, OMEGA_B / omega_m
    k_eq = 0.0746 * w_m / theta / HUBBLE  # (3)
    z_eq = 2.5e4 * w_m / theta**2  # (2)
    b1 = 0.313 * w_m**-0.419 * (1 + 0.607 * w_m**0.674)  # (4)
    b2 = 0.238 * w_m**0.223
    z_d = 1291 * w_m**0.251 / (1 + 0.659 * w_m**0.828) * (1 + b1 * w_b**b2)
    r_d, r_eq = (31.5 * w_b / theta**2 * 1000 / z for z in (z_d, z_eq))  # (5)
    ratio = (np.sqrt(1 + r_d) + np.sqrt(r_d + r_eq)) / (1 + np.sqrt(r_eq))
    sound = 2 / (3 * k_eq) * np.sqrt(6 / r_eq) * np.log(ratio)  # (6), Mpc/h
    silk = 1.6 * w_b**0.52 * w_m**0.73 * (1 + (10.4 * w_m) ** -0.95) / HUBBLE  # (7)

    def t_0(alpha, beta):  # (10), (19), (20)
        q = k / (13.41 * k_eq)
        c = 14.2 / alpha + 386 / (1 + 69.9 * q**1.08)
        log = np.log(np.e + 1.8 * beta * q)
        return log / (log + c * q**2)

    a1 = (46.9 * w_m) ** 0.670 * (1 + (32.1 * w_m) ** -0.532)  # (11)
    a2 = (12.0 * w_m) ** 0.424 * (1 + (45.0 * w_m) ** -0.582)
    alpha_c = a1**-fb * a2 ** -(fb**3)
    b1 = 0.944 / (1 + (458 * w_m) ** -0.708)  # (12)
    beta_c = 1 / (1 + b1 * ((1 - fb) ** ((0.395 * w_m) ** -0.0266) - 1))
    f = 1 / (1 + (k * sound / 5.4) ** 4)  # (18)
    cold = f * t_0(1, beta_c) + (1 - f) * t_0(alpha_c, beta_c)  # (17)
    y = (1 + z_eq) / (1 + z_d)  # (14), (15)
    root = np.sqrt(1 + y)
    g = y * (-6 * root + (2 + 3 * y) * np.log((root + 1) / (root - 1)))
    alpha_b = 2.07 * k_eq * sound * (1 + r_d) ** -0.75 * g
    beta_b = 0.5 + fb + (3 - 2 * fb) * np.sqrt((17.2 * w_m) ** 2 + 1)  # (24)
    beta_node = 8.41 * w_m**0.435  # (23)
    s = sound / np.cbrt(1 + (beta_node / (k * sound)) ** 3)  # (22)
    baryons = t_0(1, 1) / (1 + (k * sound / 5.2) ** 2)  # (21)
    baryons += alpha_b / (1 + (beta_b / (k * sound)) ** 3) * np.exp(-((k / silk) ** 1.4))
    return fb * baryons * np.sinc(k * s / np.pi) + (1 - fb) * cold  # (16)


def linear_power(k, omega_m):
    """Return P(k) of matter today for sigma_8 = 1, (Mpc/h)^3."""

    def shape(k):
        return k**N_S * transfer(k, omega_m) ** 2

    q = np.geomspace(*K_SIGMA_8, 1025)
    x = 8 * q
    ball = 3 * (np.sin(x) - x * np.cos(x)) / x**3
    variance = simpson(q**3 * shape(q) * ball**2, x=np.log(q)) / (2 * np.pi**2)
    return shape(k) / variance


def growth(a, omega_m):
    """Return the growth factor of linear fluctuations; 1 today."""

    def d(a):
        return a * hyp2f1(1 / 3, 1, 11 / 6, -(a**3) * (1 - omega_m) / omega_m)

    return d(a) / d(1.0)


def halofit(k, a, omega_m, sigma_8):
    """Return the matter power spectrum at k (..., n), scale factors a (n,), (Mpc/h)^3."""
    d = sigma_8 * growth(a, omega_m)
    q = np.geomspace(1e-3, 1e3, 257)
    square = q**3 * linear_power(q, omega_m) / (2 * np.pi**2)  # variance per unit of log k

    def variance(r, *weights):  # of fields smoothed by Gaussians of radii r (m,)
        smooth = square * np.exp(-((q * r[:, None]) ** 2))
        return [simpson(smooth * w((q * r[:, None]) ** 2), x=np.log(q)) for w in weights]

    # r with variance 1, and slope and curvature of the variance there
    radii = np.geomspace(1e-3, 20, 129)
    log_variance = np.log(variance(radii, lambda y2: 1)[0])
    r = np.exp(np.interp(2 * np.log(d), -log_variance, np.log(radii)))
    slope, curve = variance(r, lambda y2: 2 * y2, lambda y2: 4 * (y2 - y2**2))
    slope, curve = slope * d**2, curve * d**2
    n, c = slope - 3, slope**2 + curve
    omega = omega_m / (omega_m + (1 - omega_m) * a**3)  # of matter, then
    f1, f2, f3 = omega**-0.0307, omega**-0.0585, omega**0.0743
    poly = np.polynomial.polynomial.polyval
    a_n = 10 ** (poly(n, [1.5222, 2.8553, 2.3706, 0.9903, 0.2250]) - 0.6038 * c)
    b_n = 10 ** (poly(n, [-0.5642, 0.5864, 0.5716]) - 1.5474 * c)
    c_n = 10 ** (poly(n, [0.3698, 2.0404, 0.8161]) + 0.5869 * c)
    gamma = 0.1971 - 0.0843 * n + 0.8460 * c
    alpha = np.abs(6.0835 + 1.3373 * n - 0.1959 * n**2 - 5.5274 * c)
    beta = poly(n, [2.0379, -0.7354, 0.3157, 1.2490, 0.3980]) - 0.1682 * c
    nu = 10 ** (5.2105 + 3.6902 * n)
    linear = k**3 * linear_power(k, omega_m) * d**2 / (2 * np.pi**2)
    y = k * r
    two_halos = linear * (1 + linear) ** beta / (1 + alpha * linear) * np.exp(-y / 4 - y**2 / 8)
    one_halo = a_n * y ** (3 * f1) / (1 + b_n * y**f2 + (c_n * f3 * y) ** (3 - gamma))
    return 2 * np.pi**2 / k**3 * (two_halos + one_halo / (1 + nu / y**2))


def convergence_spectrum(ell, omega_c, sigma_8):
    """Return C(l) of convergence: integral of (W / chi)^2 P((l + 1/2) / chi) over distance chi.

    W = 3/2 omega_m (H_0/c)^2 (1 + z) chi times the mean of 1 - chi/chi' over galaxies behind.
    """
    omega_m = omega_c + OMEGA_B

    def expansion(z):
        return np.sqrt(omega_m * (1 + z) ** 3 + 1 - omega_m)

    root = np.linspace(0, np.sqrt(Z_MAX), 1025)[1:]  # of z: n(z) is smooth in it
    z, dz = root**2, 2 * root
    chi = HUBBLE_LENGTH * cumulative_simpson(dz / expansion(z), x=root, initial=0)
    chi += HUBBLE_LENGTH * z[0]
    n = np.sqrt(z) * np.exp(-(z**2)) * dz
    n /= simpson(n, x=root)
    ahead = [cumulative_simpson(f, x=root, initial=0) for f in (n, n / chi)]
    number, weight = (f[-1] - f for f in ahead)
    w = 1.5 * omega_m / HUBBLE_LENGTH**2 * (1 + z) * chi * (number - chi * weight)
    use = slice(7, None, 8)  # of these, for the integral over chi
    z, dz, chi, w, root = (f[use] for f in (z, dz, chi, w, root))
    ell = np.asarray(ell)[:, None]
    matter = halofit((ell + 0.5) / chi, 1 / (1 + z), omega_m, sigma_8)
    total = simpson(matter * (w / chi) ** 2 * HUBBLE_LENGTH / expansion(z) * dz, x=root, axis=1)
    ell = ell[:, 0]  # the next factor is that of a curved sky
    return total * (ell - 1) * ell * (ell + 1) * (ell + 2) / (ell + 0.5) ** 4


@functools.cache
def table():
    """Return the coefficients (NODES, len(ELL)) of log C(l), a Chebyshev series in the parameters.

    It takes two seconds, and is right to 2e-4.
    """
    knots = [np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in NODES]
    u = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1).reshape(-1, 2)
    centre, half = BOX.mean(axis=1), np.diff(BOX)[:, 0] / 2
    values = np.log([convergence_spectrum(ELL, *y) for y in centre + half * u])
    basis = chebyshev.chebvander2d(*u.T, [n - 1 for n in NODES])
    return np.linalg.solve(basis, values).reshape(*NODES, len(ELL))


def chebyshev_series(u, n):
    """Return the first n Chebyshev polynomials of a number, as a list."""
    terms = [1.0, u]
    while len(terms) < n:
        terms.append(2 * u * terms[-1] - terms[-2])
    return terms


# ---- the simulator -------------------------------------------------------------------------------
# What a map is made of is written for any library that has NumPy's functions, xp: bench_lensing.py
# differentiates it by jax.


def wavenumbers(side):
    """Return l of the modes of a map, in the order of rfft2."""
    lowest = 2 * np.pi / np.radians(DEGREES)
    x, y = np.fft.fftfreq(side, 1 / side), np.fft.rfftfreq(side, 1 / side)
    return lowest * np.hypot(x[:, None], y)


def shift(omega_c, sigma_8, xp=np):
    """Return how far below zero convergence can be: a fit, to 0.2 %, of the table of sbi_lens.

    The edges of that table, at omega_m = 0.3875 and sigma_8 = 0.625 and 0.975, hold beyond them.
    """
    u = xp.clip((omega_c + OMEGA_B - 0.3) / 0.1, -0.875, 0.875)
    v = xp.clip((sigma_8 - 0.8) / 0.2, -0.875, 0.875)
    return sum(c * u**i * v**j for (i, j), c in SHIFT.items())


def spectrum(ell, y, coefficients, xp=np):
    """Return C(l) from the table, at y = (omega_c, sigma_8)."""
    low, high = BOX.T
    u, v = 2 * (y - low) / (high - low) - 1
    first, second = (chebyshev_series(t, n) for t, n in zip((u, v), NODES, strict=True))
    weights = xp.stack([a * b * xp.ones(()) for a in first for b in second])
    logs = weights @ coefficients.reshape(-1, len(ELL))
    return xp.interp(ell, ELL, xp.exp(logs))


def convergence(z, y, coefficients, xp=np):
    """Return the convergence without noise (side, side) that z (side, side) becomes at y."""
    side = len(z)
    area = np.radians(DEGREES / side) ** 2
    ell = wavenumbers(side)
    below = shift(*y, xp=xp)
    power = xp.where(ell > 0, spectrum(ell, y, coefficients, xp), 0.0) / area
    correlation = xp.fft.irfft2(power, (side, side))
    gaussian = abs(xp.fft.rfft2(xp.log(1 + correlation / below**2)).real)
    colour = xp.where(ell > 0, xp.sqrt(gaussian), 0.0)
    g = xp.fft.irfft2(xp.fft.rfft2(z) * colour, (side, side))
    return below * (xp.exp(g - g.var() / 2) - 1)


def noise_level(side):
    """Return the standard deviation of a pixel's noise."""
    return SIGMA_E / np.sqrt(GALAXIES * (60 * DEGREES / side) ** 2)


def simulate(n, side, seed, y=None, noise=True):
    """Return n maps (n, side, side), float32, and their parameters (n, 2): drawn from the prior."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(*PRIOR, size=(n, 2))
    y = drawn if y is None else np.broadcast_to(np.asarray(y, float), (n, 2))
    x = np.empty((n, side, side), np.float32)
    for i in range(n):
        x[i] = convergence(rng.standard_normal((side, side)), y[i], table())
        shapes = rng.standard_normal((side, side))
        x[i] += noise_level(side) * shapes if noise else 0
    return x, y


def averaged(x, block):
    """Return maps (..., side, side) with blocks of block x block pixels averaged."""
    *n, side, _ = x.shape
    few = side // block
    return x.reshape(*n, few, block, few, block).mean(axis=(-3, -1))


def log_prior(y):
    """Return the log-density of the prior at points (m, 2), up to a constant."""
    return -0.5 * (((y - PRIOR[0]) / PRIOR[1]) ** 2).sum(axis=1)


# ---- results -------------------------------------------------------------------------------------


class Chain(NamedTuple):
    observed: np.ndarray  # (side, side)
    y: np.ndarray  # (n, 2): draws of the posterior
    truth: np.ndarray  # (2,)


def reference(path, side):
    """Return the published map and chain, or None, and say why."""
    if not path.exists():
        print(f"no published chain in {path}: skipped (--reference)")
        return None
    with np.load(path) as file:
        chain = Chain(file["observed"], file["chain"].astype(float), file["truth_fiducial"])
        level = float(file["noise_std"])
    if chain.observed.shape != (side, side):
        print(f"the published map has {chain.observed.shape} pixels, not {side, side}: skipped")
        return None
    if abs(level / noise_level(side) - 1) > 1e-6:
        raise ValueError(f"{path}: its noise, {level}, is not {noise_level(side)}")
    return chain


def fit(side, n, block, seed=1, **options):
    """Return a flow of n maps, averaged: nine tenths train, a tenth says when to stop."""
    x, y = simulate(n, side, seed)
    x = averaged(x, block)
    end = n - n // 10
    options = {"box_size": DEGREES, "names": NAMES, "verbose": False} | options
    return pyflow.SymmetricFlow(x[:end], x[end:], y[:end], y[end:], **options)


def against(post, y):
    """Print the posterior beside draws y (n, 2) of the one that is right."""
    sigma, widths = y.std(axis=0), np.sqrt(np.diag(post.cov))
    for j, name in enumerate(NAMES):
        print(
            f"  {name}: {post.mean[j]:.4f} +- {widths[j]:.4f}, chain {y[:, j].mean():.4f} +- "
            f"{sigma[j]:.4f}: off by {(post.mean[j] - y[:, j].mean()) / sigma[j]:+.2f} of its "
            f"widths, {widths[j] / sigma[j]:.3f} times as wide"
        )
    area = np.sqrt(np.linalg.det(post.cov) / np.linalg.det(np.cov(y.T)))
    print(f"  area, by covariances: {area:.3f} of the chain's")


def draw_chain(axis, y):
    """Draw the 68 % and 95 % regions of draws y (n, 2), which fill them."""
    density = gaussian_kde(y.T)
    at = density(y.T)
    low, high = y.min(axis=0), y.max(axis=0)
    grid = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), 160).T
    points = np.stack(np.meshgrid(*grid), axis=-1)
    height = density(points.reshape(-1, 2).T).reshape(160, 160)
    for level in np.quantile(at, [0.05, 0.32]):
        axis.contourf(*grid, height, [level, np.inf], colors=["C1"], alpha=0.2, zorder=1)
    axis.contour(*grid, height, np.quantile(at, [0.05, 0.32]), colors="C1", zorder=2)


def figure(side, post, truth, chain, found):
    """Draw a map, without and with noise, a posterior, and the coverage of others."""
    from matplotlib.figure import Figure

    with pyflow.plots.style():
        fig = Figure(figsize=(7.6, 6.2), layout="constrained")
        above, below = fig.subfigures(2, 1, height_ratios=(1, 1.1))
        axes = above.subplots(1, 2)
        titles = "convergence", "with the noise of shapes"
        shown = {"vmin": -0.03, "vmax": 0.05, "extent": (0, DEGREES, 0, DEGREES)}
        for axis, noise, title in zip(axes, (False, True), titles, strict=True):
            image = axis.imshow(simulate(1, side, 5, PRIOR[0], noise)[0][0], **shown)
            axis.set(title=title, xlabel="degrees")
        above.colorbar(image, ax=axes, label=r"$\kappa$", extend="both", shrink=0.9, pad=0.02)
        axis, coverage = below.subplots(1, 2)
        draw_regions(axis, [post], truth)
        axis.plot([], [], color="C0", label="flow")
        if chain is not None:
            draw_chain(axis, chain.y)
            axis.plot([], [], color="C1", label="Hamiltonian Monte Carlo")
        title = "a map" if chain is None else "the published map"
        axis.set_title(f"posteriors of {title}: 68 and 95 %")
        axis.legend()
        draw_coverage(coverage, [(found.credibility, {"label": "flow"})], found.simulations, 2)
        coverage.set_title(f"posteriors of {found.simulations} fresh maps")
        coverage.legend()
    return fig


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small maps, few epochs")
    parser.add_argument("--side", type=int, help="pixels along a side; default 128")
    parser.add_argument("--average", type=int, metavar="N", help="blocks of N x N pixels first")
    parser.add_argument("--maps", type=int, help="to fit with; default 2000")
    parser.add_argument("--test", type=int, help="fresh maps; default 100")
    parser.add_argument("--hidden", type=int, nargs="+", help="of SymmetricFlow")
    parser.add_argument("--weight-decay", type=float, help="of SymmetricFlow")
    parser.add_argument("--reference", type=Path, default=REFERENCE, metavar="FILE")
    parser.add_argument(
        "--flow", type=Path, metavar="FILE", help="a flow of such maps, fitted before"
    )
    parser.add_argument("--threads", type=int, help="processor cores to use")
    parser.add_argument("--out", type=Path, default=OUTPUT, metavar="DIR")
    given = parser.parse_args()
    pyflow.set_num_threads(given.threads)
    # a normal prior has no edges: some parameters lie beyond all of the training's
    warnings.filterwarnings("ignore", ".* outside of the (training range|prior)", UserWarning)
    defaults = (16, 1, 300, 30) if given.quick else (128, 1, 2000, 100)
    side, block, maps, test = (
        getattr(given, name) or default
        for name, default in zip(("side", "average", "maps", "test"), defaults, strict=True)
    )
    if side % block:
        parser.error(f"--average: {side} pixels are no multiple of {block}")
    given.out.mkdir(parents=True, exist_ok=True)
    chain = reference(given.reference, side)
    if given.flow:
        flow = pyflow.load(given.flow)
        if flow.shape != (side // block, side // block):
            parser.error(f"--flow: is of maps {flow.shape}")
    else:
        start = time.perf_counter()
        options = dict(QUICK if given.quick else SETTINGS)
        for name in ("hidden", "weight_decay"):
            if getattr(given, name) is not None:
                options[name] = getattr(given, name)
        flow = fit(side, maps, block, **options)
        print(f"{maps} maps, simulated and fitted in {time.perf_counter() - start:.0f} s")
        flow.save(given.out / "flow.pyflow")
    print(flow)
    x, y = simulate(test, side, 2)
    found = flow.check(averaged(x, block), y, prior=log_prior)
    print(f"\n{found}")
    if chain is None:
        x, truth = simulate(1, side, 5, PRIOR[0])[0][0], PRIOR[0]
    else:
        x, truth = chain.observed, chain.truth
    post = flow.posterior(averaged(x, block), log_prior)
    if chain is not None:
        print(f"\nThe posterior of the published map, beside its chain of {len(chain.y)} draws:")
        against(post, chain.y)
    write(figure(side, post, truth, chain, found), given.out / "lensing.png")
    print(f"\nwrote {given.out / 'lensing.png'}")


if __name__ == "__main__":
    main()
