"""Gas from dark matter: the density p(gas | dark matter) of maps, and samples of it.

    python examples/baryons.py --quick                # small maps, seconds
    python examples/baryons.py                        # 64 x 64, some minutes
    python examples/baryons.py --data DIR             # N-body maps, train.npz, from nbody_maps.py

Pairs of maps: c, the overdensity of the matter, and x = ln p, a gas-pressure-like field made of it:

    p = G_R [(1 + delta)^GAMMA] exp(s),

G_R a Gaussian smoothing of R = 1 pixel, s Gaussian scatter of standard deviation 0.2 that is
correlated over some two pixels: P(k) ~ (1 + (2 k)^2)^-2, k in 1/pixel. Real gas scatters for
reasons that the matter alone does not tell; so does this. The flow, `SymmetricFlow(x,
condition_field=c)`, does not know the recipe. Beside it stands what a deterministic mapping makes
of c: the powers u^n, n = 1 to 4, of u = ln(1.02 + delta), each by a filter F_n(|k|), added up, the
filters by least squares in bins of |k|; its density has Gaussian residuals with their own spectrum.

Maps are those of the N-body simulations of nbody_maps.py (2 x 2 pixels averaged), from --data or
the folder that $PYFLOW_NBODY_MAPS names; without, lognormal fields stand for them.
"""

import argparse
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nbody_posterior import draw_map, write

import pyflow
from pyflow import fields

GAMMA, SMOOTHING, SCATTER, CORRELATED = 1.6, 1.0, 0.2, 2.0
POWERS = 4
OUTPUT = Path(__file__).resolve().parent / "output"


class Pairs(NamedTuple):
    x: np.ndarray  # ln p
    c: np.ndarray  # delta


# ---- maps ----------------------------------------------------------------------------------------


def nbody(folder, side, count):
    """Overdensities (count, side, side), the last simulations last; None without the file."""
    path = Path(folder or "") / "train.npz"
    if not folder or not path.exists():
        return None
    with np.load(path) as file:
        maps = file["maps"][: count or None].astype(np.float32)
    n, size = len(maps), maps.shape[1] // side
    return maps.reshape(n, side, size, side, size).mean(axis=(2, 4))


def lognormal(side, count):
    return fields.lognormal_field(
        lambda k: 6 / (1 + (4 * k) ** 2), (side, side), count or 1000, box_size=side, seed=1
    ).astype(np.float32)


def scatter(side):
    """Power spectrum of s; the mean of a field has that of the lowest k."""
    k, modes = fields.wavenumbers((side, side), side)

    def shape(k):
        return (1 + (CORRELATED * k) ** 2) ** -2.0

    variance = (modes * shape(np.maximum(k, k[k > 0].min()))).sum() / side**2
    return lambda k: SCATTER**2 / variance * shape(k)


def smooth_gas(delta):
    """ln p without its scatter, for overdensities with pixels of length 1."""
    gas = fields.filtered(
        np.maximum(1 + delta, 0.01) ** GAMMA,
        lambda k: np.exp(-0.5 * (SMOOTHING * k) ** 2),
        delta.shape[1],
    )
    return np.log(np.maximum(gas, 1e-3))


def pressure(delta, seed):
    """ln p of the recipe."""
    side = delta.shape[1]
    s = fields.gaussian_field(scatter(side), (side, side), len(delta), box_size=side, seed=seed)
    return (smooth_gas(delta) + s).astype(np.float32)


def split(delta):
    """Training, validation and test pairs: the last tenth is for tests, the tenth before stops."""
    pairs = Pairs(pressure(delta, 2), delta)
    a, b = int(0.8 * len(delta)), int(0.9 * len(delta))
    return [Pairs(*(f[rows] for f in pairs)) for rows in (slice(a), slice(a, b), slice(b, None))]


# ---- the deterministic mapping -------------------------------------------------------------------


class Mapping:
    """x = sum over n of F_n(|k|) u^n, by least squares in bins of |k|; its residuals Gaussian."""

    def __init__(self, train, bins=24):
        mesh = train.x.shape[1:]
        k, _ = fields.wavenumbers(mesh, mesh[0])
        edges = np.linspace(0, k.max() * 1.001, bins)[1:]
        found = np.where(k > 0, 1 + np.digitize(k, edges), 0)  # the mean is a bin of its own
        self.bin = np.unique(found, return_inverse=True)[1].reshape(k.shape)
        self.moments = [
            (f.mean(), f.std()) for f in (self.u(train.c) ** n for n in range(1, POWERS + 1))
        ]
        self.mean = train.x.mean(dtype=float)
        basis, target = self.basis(train.c), np.fft.rfft2(train.x - self.mean)
        self.filters = np.zeros((POWERS, self.bin.max() + 1))
        for b in range(self.bin.max() + 1):
            here = self.bin == b
            a = basis[:, :, here].reshape(POWERS, -1)
            normal = (a @ a.conj().T).real
            ridge = 1e-6 * np.trace(normal) * np.eye(POWERS)
            self.filters[:, b] = np.linalg.solve(
                normal + ridge, (a @ target[:, here].ravel().conj()).real
            )
        power = np.abs(np.fft.rfft2(train.x - self(train.c))) ** 2 / np.prod(mesh)
        power = power.mean(axis=0)
        self.power = np.array([power[self.bin == b].mean() for b in range(self.bin.max() + 1)])

    @staticmethod
    def u(c):
        return np.log(np.maximum(c, -1) + 1.02).astype(float)

    def basis(self, c):
        powers = zip(range(1, POWERS + 1), self.moments, strict=True)
        return np.stack([np.fft.rfft2((self.u(c) ** n - mean) / std) for n, (mean, std) in powers])

    def __call__(self, c):
        spectrum = (self.filters[:, self.bin][:, None] * self.basis(c)).sum(axis=0)
        return self.mean + np.fft.irfft2(spectrum, c.shape[1:])

    def logp(self, pairs):
        """log p of x given c, if the residuals are Gaussian."""
        mesh = pairs.x.shape[1:]
        _, modes = fields.wavenumbers(mesh, mesh[0])
        square = np.abs(np.fft.rfft2(pairs.x - self(pairs.c))) ** 2 / np.prod(mesh)
        variance = self.power[self.bin]
        return -0.5 * (modes * (square / variance + np.log(2 * np.pi * variance))).sum(axis=(1, 2))


# ---- results -------------------------------------------------------------------------------------


def compared(test, flow, mapping, draws):
    """Return what is drawn and printed of the test maps: a dict of arrays."""
    side = test.x.shape[1]
    sampled, _ = flow.sample(len(test.x), seed=3, condition_field=test.c)
    mean = np.mean(
        [flow.sample(len(test.x), seed=10 + i, condition_field=test.c)[0] for i in range(draws)],
        axis=0,
    )
    mapped = mapping(test.c)
    bins = np.linspace(0.5 * 2 * np.pi / side, np.pi, 17)
    maps = {"true": test.x, "sampled": sampled, "mapped": mapped, "mean of samples": mean}
    found = {"maps": maps, "r": {}, "ln p": {}, "p": {}, "pdf": {}}
    for name, x in maps.items():
        found["k"], r, _ = fields.cross_correlation(x, test.x, side, bins)
        found["r"][name] = r.mean(axis=0)
        for of, field in ("ln p", x), ("p", np.exp(np.clip(x.astype(float), -10, 10))):
            found[of][name] = fields.power_spectrum(field, side, bins)[1].mean(axis=0)
        found["pdf"][name] = fields.pdf(
            x, bins=50, limits=tuple(np.quantile(test.x, [1e-4, 0.9999]))
        )
    return found


def figure(test, found):
    """Draw a test pair, a sample and the deterministic mapping; below, what all test pairs have."""
    from matplotlib.figure import Figure

    maps = found["maps"]
    low, high = np.quantile(maps["true"][0], [0.002, 0.998])
    shown = {
        r"dark matter, ln(1 + $\delta$)": np.log(np.maximum(1.02 + test.c[0], 0.02)),
        "gas, ln p: true": maps["true"][0],
        "sampled, given the matter": maps["sampled"][0],
        "least squares": maps["mapped"][0],
    }
    with pyflow.plots.style() as colours:
        fig = Figure(figsize=(9.6, 5), layout="constrained")
        axes = fig.subplots(2, 4)
        for axis, (title, image) in zip(axes[0], shown.items(), strict=True):
            limits = {} if title.startswith("dark") else {"vmin": low, "vmax": high}
            draw_map(axis, image, title, **limits)
        styles = {
            "true": {"color": colours["data"], "lw": 3},
            "sampled": {"color": "C0"},
            "mapped": {"color": "C1", "ls": "--"},
            "mean of samples": {"color": "C2", "ls": ":", "lw": 2},
        }
        names = {"mapped": "least squares"}
        lines = {}
        for name, style in styles.items():
            if name != "true":
                (lines[name],) = axes[1, 0].plot(found["k"], found["r"][name], **style)
            if name == "mean of samples":
                continue
            for axis, of in zip(axes[1, 1:3], ("ln p", "p"), strict=True):
                (lines[name],) = axis.plot(found["k"], found[of][name] / found[of]["true"], **style)
            axes[1, 3].semilogy(*found["pdf"][name], **style)
        for axis in axes[1, :3]:
            axis.set_xlabel("$k$  [1/pixel]")
        axes[1, 0].set(title="correlation with the truth", ylim=(0, 1.02))
        for axis, of in zip(axes[1, 1:3], ("ln p", "p"), strict=True):
            top = max(1.2, 1.05 * np.max(found[of]["sampled"] / found[of]["true"]))
            axis.set(title=f"power of {of} / true one", ylim=(0, top))
        axes[1, 3].set(xlabel="ln p", title="density of pixels")
        labels = [names.get(name, name) for name in lines]
        fig.legend(lines.values(), labels, loc="outside lower center", ncols=len(lines))
    return fig


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small maps, few epochs")
    parser.add_argument("--data", metavar="DIR", help="folder of train.npz")
    parser.add_argument("--maps", type=int, metavar="N", help="use so many; default: all")
    parser.add_argument("--epochs", type=int, help="default 40")
    parser.add_argument("--layers", type=int, help="default 4")
    parser.add_argument("--threads", type=int, help="processor cores to use")
    parser.add_argument("--out", type=Path, default=OUTPUT / "baryons", metavar="DIR")
    given = parser.parse_args()
    pyflow.set_num_threads(given.threads)
    side, count = (16, given.maps or 200) if given.quick else (64, given.maps)
    folder = given.data or os.environ.get("PYFLOW_NBODY_MAPS")
    delta = nbody(folder, side, count)
    if delta is None:
        print(
            f"no N-body maps in {folder or '$PYFLOW_NBODY_MAPS'}: lognormal fields stand for them"
        )
        delta = lognormal(side, count)
    train, validate, test = split(delta)
    start = time.perf_counter()
    settings = {
        "n_layers": given.layers or (2 if given.quick else 4),
        "filter_knots": 16 if given.quick else 48,
        "epochs": given.epochs or (5 if given.quick else 40),
        "box_size": float(side),
        "verbose": False,
    }
    flow = pyflow.SymmetricFlow(
        train.x,
        validate.x,
        condition_field=train.c,
        condition_field_validate=validate.c,
        condition_knots=12,
        **settings,
    )
    seconds = time.perf_counter() - start
    blind = pyflow.SymmetricFlow(train.x, validate.x, **settings)
    mapping = Mapping(train)
    print(f"{flow}\n{len(train.x)} pairs, {seconds:.0f} s\n")
    pixels = side * side
    logp = {
        "p(x|c), flow": flow.evaluate_density(test.x, condition_field=test.c),
        "p(x|c), least squares and Gaussian residuals": mapping.logp(test),
        "p(x|c), exact": fields.gaussian_logp(test.x - smooth_gas(test.c), scatter(side), side),
        "p(x), flow": blind.evaluate_density(test.x),
    }
    print(f"log p of {len(test.x)} maps that no training has seen, nats per pixel")
    for name, values in logp.items():
        error = values.std() / len(values) ** 0.5 / pixels
        print(f"  {name:46s} {values.mean() / pixels:8.4f} +- {error:.4f}")
    found = compared(test, flow, mapping, 10 if given.quick else 30)
    print(
        "\nk [1/pixel]                          " + " ".join(f"{k:6.2f}" for k in found["k"][::3])
    )
    for name in ("sampled", "mean of samples", "mapped"):
        print(
            f"r with the true map: {name:16s}"
            + " ".join(f"{r:6.3f}" for r in found["r"][name][::3])
        )
    for of in ("ln p", "p"):
        for name in ("sampled", "mapped"):
            ratio = found[of][name] / found[of]["true"]
            row = f"P(k) of {of} over true: {name}"
            print(f"{row:37s}" + " ".join(f"{r:6.3f}" for r in ratio[::3]))
    given.out.mkdir(parents=True, exist_ok=True)
    write(figure(test, found), given.out / "baryons.png")
    print(f"\nwrote {given.out / 'baryons.png'}")


if __name__ == "__main__":
    main()
