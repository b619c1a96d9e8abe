"""N-body maps of the matter in the universe, for nbody_posterior.py: a particle-mesh code in NumPy.

    python examples/nbody_maps.py                       # a small set: a minute of one core
    python examples/nbody_maps.py --full --out DIR      # the full set: 3 hours of one core

The full set is that of the README: maps of 128 x 128 pixels in a box of 512 Mpc/h, four for each of
300 pairs of omega_m in [0.2, 0.5] and sigma_8 in [0.5, 1.1] (a Latin hypercube), and 40 of ten more
simulations at omega_m = 0.3, sigma_8 = 0.8. The small set has 64 x 64 pixels, 60 + 4 simulations,
and forces on the coarser mesh. --simulations, --seed and --first make other sets, to test on.
--redshift-space makes the same maps as an observer sees them who takes velocities for distances:
train_rsd.npz, for redshift_space.py; the line of sight is the second axis of a map.

A simulation, in Mpc/h and with H0 = 1: a Gaussian field with the power spectrum of Eisenstein & Hu
1998 (astro-ph/9709112), scaled to sigma_8; displacements in second-order Lagrangian perturbation
theory at a = 0.1; then steps of equal length in a to a = 1 that kick and drift particles with the
factors of FastPM (Feng et al. 2016, arXiv 1603.00476), which give linear growth for any number of
steps. Particles are painted to the mesh, and forces read from it, by cloud-in-cell weights. A map
is the overdensity, rho / mean(rho) - 1, of a slab of a quarter of the box, averaged along its
normal: twelve slabs along three axes, of which four are kept.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import fft, integrate
from scipy.stats import qmc

BOX = 512.0  # Mpc/h
PRIOR = np.array([[0.2, 0.5], [0.5, 1.1]])  # omega_m, sigma_8
FIDUCIAL = 0.3, 0.8
OMEGA_B, HUBBLE, TILT, T_CMB = 0.049, 0.67, 0.96, 2.7255
START = 0.1  # scale factor
SLABS, MAPS = 4, 4  # along an axis; kept of a simulation

K = np.geomspace(1e-4, 50, 4096)  # h/Mpc, of tables


class Size(NamedTuple):
    side: int  # particles, and pixels of a map, along an axis
    finer: int  # cells of the force mesh for each
    steps: int
    simulations: int
    fiducial: int  # simulations


SMALL = Size(64, 1, 6, 60, 4)
FULL = Size(128, 2, 10, 300, 10)


# ---- cosmology: flat, with a cosmological constant -----------------------------------------------


class Cosmology:
    def __init__(self, omega_m, sigma_8):
        self.omega_m = omega_m
        self.lna = np.linspace(np.log(1e-3), 0, 1000)
        # D and D2 = -3/7 D^2 at first, and their derivatives with respect to ln a
        first = np.array([1, 1, -3 / 7 * 1e-3, -6 / 7 * 1e-3]) * 1e-3
        span = self.lna[[0, -1]]
        solution = integrate.solve_ivp(
            self.growing, span, first, t_eval=self.lna, rtol=1e-8, atol=1e-14
        )
        d = solution.y[0, -1]
        self.table = solution.y / np.array([d, d, d * d, d * d])[:, None]
        power = K**TILT * self.transfer(K) ** 2
        x = 8 * K
        window = 3 * (np.sin(x) - x * np.cos(x)) / x**3
        variance = np.trapezoid(K**3 * power * window**2, np.log(K)) / (2 * np.pi**2)
        self.power = power * sigma_8**2 / variance  # (Mpc/h)^3, today, at K

    def growing(self, lna, growth):
        """Linear and second-order growth: d/dlna of (D, dD/dlna, D2, dD2/dlna)."""
        matter = self.omega_m * np.exp(-3 * lna)
        matter /= matter + 1 - self.omega_m
        d, v, d2, v2 = growth
        drag = 2 - 1.5 * matter
        return v, -drag * v + 1.5 * matter * d, v2, -drag * v2 + 1.5 * matter * (d2 - d * d)

    def growth(self, a, order=1):
        """D, with D = 1 today, or D2."""
        return np.interp(np.log(a), self.lna, self.table[2 * order - 2])

    def momentum(self, a, order=1):
        """a^3 E dD/da, the growth of momenta."""
        hubble = np.sqrt(self.omega_m * a**-3 + 1 - self.omega_m)
        return a * a * hubble * np.interp(np.log(a), self.lna, self.table[2 * order - 1])

    def transfer(self, k):
        """Equations 2 to 24 of Eisenstein & Hu 1998; their names."""
        om, ob = self.omega_m * HUBBLE**2, OMEGA_B * HUBBLE**2
        fb, theta = ob / om, T_CMB / 2.7
        fc = 1 - fb
        k = k * HUBBLE  # 1/Mpc
        z_eq, k_eq = 2.5e4 * om * theta**-4, 7.46e-2 * om * theta**-2
        b1 = 0.313 * om**-0.419 * (1 + 0.607 * om**0.674)
        b2 = 0.238 * om**0.223
        z_d = 1291 * om**0.251 / (1 + 0.659 * om**0.828) * (1 + b1 * ob**b2)
        r_d, r_eq = (31.5 * ob * theta**-4 * 1e3 / z for z in (z_d, z_eq))
        ratio = (np.sqrt(1 + r_d) + np.sqrt(r_d + r_eq)) / (1 + np.sqrt(r_eq))
        s = 2 / (3 * k_eq) * np.sqrt(6 / r_eq) * np.log(ratio)
        k_silk = 1.6 * ob**0.52 * om**0.73 * (1 + (10.4 * om) ** -0.95)
        q = k / (13.41 * k_eq)

        def pressureless(alpha, beta):
            c = 14.2 / alpha + 386 / (1 + 69.9 * q**1.08)
            log = np.log(np.e + 1.8 * beta * q)
            return log / (log + c * q * q)

        a1 = (46.9 * om) ** 0.67 * (1 + (32.1 * om) ** -0.532)
        a2 = (12 * om) ** 0.424 * (1 + (45 * om) ** -0.582)
        alpha_c = a1**-fb * a2 ** -(fb**3)
        b1 = 0.944 / (1 + (458 * om) ** -0.708)
        beta_c = 1 / (1 + b1 * (fc ** ((0.395 * om) ** -0.0266) - 1))
        f = 1 / (1 + (k * s / 5.4) ** 4)
        cold = f * pressureless(1, beta_c) + (1 - f) * pressureless(alpha_c, beta_c)

        y = (1 + z_eq) / (1 + z_d)
        root = np.sqrt(1 + y)
        g = y * (-6 * root + (2 + 3 * y) * np.log((root + 1) / (root - 1)))
        alpha_b = 2.07 * k_eq * s * (1 + r_d) ** -0.75 * g
        beta_b = 0.5 + fb + (3 - 2 * fb) * np.sqrt((17.2 * om) ** 2 + 1)
        s_tilde = s / (1 + (8.41 * om**0.435 / (k * s)) ** 3) ** (1 / 3)
        baryons = pressureless(1, 1) / (1 + (k * s / 5.2) ** 2)
        baryons += alpha_b / (1 + (beta_b / (k * s)) ** 3) * np.exp(-((k / k_silk) ** 1.4))
        return fb * baryons * np.sinc(k * s_tilde / np.pi) + fc * cold


# ---- particles and meshes, float32 ---------------------------------------------------------------


def frequencies(n):
    """k along three axes of the half spectrum of an n^3 mesh."""
    full, half = (
        np.float32(2 * np.pi / BOX) * f(n, 1 / n).astype(np.float32)
        for f in (np.fft.fftfreq, np.fft.rfftfreq)
    )
    return full[:, None, None], full[None, :, None], half[None, None, :]


def initial(cosmology, n, seed):
    """Positions and momenta (3, n^3) at START, from a lattice."""
    noise = np.random.default_rng(seed).standard_normal((n, n, n), dtype=np.float32)
    k = frequencies(n)
    k2 = sum(axis**2 for axis in k)
    k2[0, 0, 0] = 1
    log_power = np.interp(0.5 * np.log(k2), np.log(K), np.log(cosmology.power))
    delta = fft.rfftn(noise) * np.sqrt(np.exp(log_power) * (n / BOX) ** 3).astype(np.float32)
    delta[0, 0, 0] = 0
    phi = -delta / k2
    # an odd derivative at the highest frequency of an even mesh is undefined: zero
    gradient = [np.where(np.abs(axis) < np.pi * n / BOX * 0.9999, axis, 0) for axis in k]

    def field(spectrum):
        return fft.irfftn(spectrum, s=(n, n, n))

    second = [field(-axis * axis * phi) for axis in k]
    source = second[0] * second[1] + second[0] * second[2] + second[1] * second[2]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        source -= field(-gradient[i] * gradient[j] * phi) ** 2
    phi2 = -fft.rfftn(source) / k2
    phi2[0, 0, 0] = 0

    x, p = np.empty((3, n**3), np.float32), np.empty((3, n**3), np.float32)
    lattice = np.indices((n, n, n), dtype=np.float32).reshape(3, -1)
    for i, axis in enumerate(gradient):
        one, two = field(-1j * axis * phi).ravel(), field(1j * axis * phi2).ravel()
        x[i] = cosmology.growth(START) * one + cosmology.growth(START, 2) * two
        p[i] = cosmology.momentum(START) * one + cosmology.momentum(START, 2) * two
        x[i] += (lattice[i] + 0.5) * np.float32(BOX / n)
    return x % np.float32(BOX), p


def corners(x, m):
    """For the eight cells that share each particle: their numbers in an m^3 mesh, and weights."""
    place = x * np.float32(m / BOX)
    low = place.astype(np.int32)
    above = place - low
    cells = np.stack([low % m, (low + 1) % m])
    weights = np.stack([1 - above, above])
    for a, b, c in product((0, 1), repeat=3):
        number = (cells[a, 0] * m + cells[b, 1]) * m + cells[c, 2]
        yield number, weights[a, 0] * weights[b, 1] * weights[c, 2]


def painted(shares, m):
    """Particles in each cell."""
    mesh = np.zeros(m**3, np.float32)
    for number, weight in shares:
        mesh += np.bincount(number, weight, m**3)
    return mesh.reshape(m, m, m)


def overdensity(x, n):
    return painted(corners(x, n), n) * np.float32(n**3 / x.shape[1]) - 1


def kick(p, x, m, factor):
    """Add factor times the gradient of the inverse Laplacian of minus the overdensity to p."""
    shares = list(corners(x, m))
    k = frequencies(m)
    k2 = sum(axis**2 for axis in k)
    k2[0, 0, 0] = np.inf
    spectrum = fft.rfftn(painted(shares, m)) * np.float32(m**3 / x.shape[1]) / k2
    u = fft.irfftn(spectrum, s=(m, m, m))
    scale = np.float32(factor * m / BOX / 12)
    for i in range(3):  # differences of four points
        near = np.roll(u, -1, i) - np.roll(u, 1, i)
        far = np.roll(u, -2, i) - np.roll(u, 2, i)
        force = (scale * (8 * near - far)).ravel()
        for number, weight in shares:
            p[i] += weight * force[number]


def simulate(cosmology, size, seed):
    """Positions and momenta (3, side^3) of particles today."""
    x, p = initial(cosmology, size.side, seed)
    m = size.side * size.finer
    growth, momentum = cosmology.growth, cosmology.momentum
    a = np.linspace(START, 1, size.steps + 1)
    middle = 0.5 * (a[1:] + a[:-1])
    kick(p, x, m, (momentum(middle[0]) - momentum(a[0])) / growth(a[0]))
    for start, half, end, then in zip(a, middle, a[1:], [*middle[1:], 1.0], strict=False):
        x += np.float32((growth(end) - growth(start)) / momentum(half)) * p
        x %= np.float32(BOX)
        kick(p, x, m, (momentum(then) - momentum(half)) / growth(end))
    return x, p


def in_redshift_space(x, p, axis):
    """Positions with distances along an axis taken from velocities: x + v / H, today x + p."""
    x = x.copy()
    x[axis] = (x[axis] + p[axis]) % np.float32(BOX)
    return x


def maps_of(number, y, seed, size, redshift_space=False):
    """Return maps (MAPS, side, side) of a simulation, float16: 0.004 off at the highest peaks."""
    x, p = simulate(Cosmology(*y), size, seed)
    n, slabs = size.side, []
    for axis in range(3):  # across the slabs
        if redshift_space and axis != 1:  # the line of sight is the last of the other axes
            delta = overdensity(in_redshift_space(x, p, 1 if axis == 2 else 2), n)
        elif axis == 0:
            delta = overdensity(x, n)
        slabs.append(np.moveaxis(delta, axis, 0).reshape(SLABS, n // SLABS, n, n))
    slabs = np.concatenate([each.mean(axis=1, dtype=float) for each in slabs])
    return slabs[[(5 * number + 7 * i) % len(slabs) for i in range(MAPS)]].astype(np.float16)


# ---- sets of maps --------------------------------------------------------------------------------


def write(path, y, size, seed, first, pool, redshift_space=False):
    """Write maps of simulations at y, numbered from first: aside, then renamed."""
    numbers = np.arange(len(y))
    seeds = 100_000 * seed + numbers
    one = partial(maps_of, size=size, redshift_space=redshift_space)
    maps = np.concatenate(list(pool.map(one, numbers, y, seeds)))
    aside = path.with_suffix(".part.npz")
    params, sim = y.repeat(MAPS, axis=0), (first + numbers).repeat(MAPS)
    np.savez_compressed(aside, maps=maps, params=params, sim=sim)
    aside.replace(path)


def make(folder, size=SMALL, seed=1, first=0, jobs=None, redshift_space=False):
    """Write train.npz and fiducial.npz to a folder; train.npz, the last, says that all is there.

    In redshift space, train_rsd.npz alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    y = qmc.scale(qmc.LatinHypercube(d=2, seed=seed).random(size.simulations), *PRIOR.T)
    jobs = jobs or len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(jobs) as pool:
        if redshift_space:
            write(folder / "train_rsd.npz", y, size, seed, first, pool, redshift_space)
            return
        if size.fiducial:
            fiducial = np.tile(FIDUCIAL, (size.fiducial, 1))
            write(folder / "fiducial.npz", fiducial, size, seed + 1, 0, pool)
        write(folder / "train.npz", y, size, seed, first, pool)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve().parent
    parser.add_argument("--full", action="store_true", help="128 x 128 maps of 300 simulations")
    parser.add_argument(
        "--quick", action="store_true", help="two simulations, to output/nbody_quick"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: output/nbody_maps")
    parser.add_argument("--simulations", type=int, metavar="N", help="instead of 60, or 300")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first simulation")
    parser.add_argument("--redshift-space", action="store_true", help="train_rsd.npz alone")
    parser.add_argument("--jobs", type=int, help="processes; as many as processors")
    arguments = parser.parse_args()
    size = FULL if arguments.full else SMALL
    if arguments.quick:
        size = size._replace(simulations=2)
    if arguments.simulations is not None:
        size = size._replace(simulations=arguments.simulations)
    folder = "nbody_quick" if arguments.quick else "nbody_maps"
    out = arguments.out or here / "output" / folder
    start = time.perf_counter()
    space = arguments.redshift_space
    make(out, size, arguments.seed, arguments.first, arguments.jobs, space)
    path = out / ("train_rsd.npz" if space else "train.npz")
    print(f"wrote {path} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
