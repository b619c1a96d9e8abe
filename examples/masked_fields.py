"""Survey windows: flows of fields of which some pixels are not observed.

    python examples/masked_fields.py            # Gaussian fields; N-body maps if there
    python examples/masked_fields.py --quick    # seconds: shows that it runs, not how well
    python examples/masked_fields.py --data DIR # maps that examples/nbody_maps.py made

Gaussian fields whose amplitude is to be found, under a mask with an edge and holes: the exact
likelihood is a dense Gaussian of the observed pixels. Beside it, SymmetricFlow with the mask, by
constrained realisation and with white noise, and one that takes zeros for data. Then maps of the
logarithm of the density in N-body simulations, with noise that rises towards the edge of the
survey: posteriors under the window beside those of whole maps, on simulations held out.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

import pyflow

HERE = Path(__file__).resolve().parent
MAPS = HERE.parents[1] / "shared" / "data" / "nbody"
AMPLITUDES = 0.5, 2.0
BOX = 512.0  # Mpc/h, of the N-body maps
LEVEL = 0.68


class Size(NamedTuple):
    side: int
    train: int
    test: int
    epochs: int
    hidden: int


FULL = Size(64, 800, 100, 12, 64)
QUICK = Size(16, 200, 20, 2, 16)


def window(side, seed=0):
    """Return a mask: the survey's edge on two sides, and holes around bright stars."""
    rng = np.random.default_rng(seed)
    mask = np.ones((side, side), bool)
    mask[: side // 8] = mask[:, -side // 8 :] = False
    at = np.indices(mask.shape)
    for centre in rng.integers(0, side, (5, 2)):
        radius = rng.uniform(0.03, 0.08) * side
        mask[((at - centre[:, None, None]) ** 2).sum(axis=0) < radius**2] = False
    return mask


def apodised(side, least, most):
    """Return a noise level that rises towards the edge of the window."""
    i, j = np.indices((side, side)) / side
    depth = np.minimum(np.minimum(i - 1 / 8, 1 - i), np.minimum(j, 7 / 8 - j))
    return least + (most - least) * np.exp(-np.maximum(depth, 0) / 0.04)


def spectrum(k):
    return 1 / (1 + (2 * k) ** 2)


def moments(logp, at):
    """Return means and standard deviations of densities (n, m) of amplitudes at[m]."""
    p = np.exp(logp - logp.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    mean = p @ at
    return mean, np.sqrt(p @ at**2 - mean**2)


# ---- Gaussian fields -----------------------------------------------------------------------------


def gaussian(size):
    box, mask = float(size.side), window(size.side)
    n = size.train + 2 * size.test
    y = np.random.default_rng(1).uniform(*AMPLITUDES, n)
    x = pyflow.fields.gaussian_field(
        lambda k: y[:, None, None] * spectrum(k), mask.shape, box_size=box, seed=1
    ).astype(np.float32)
    train, validate, test = np.split(np.arange(n), [size.train, size.train + size.test])
    unit = pyflow.fields.gaussian_logp(x[test], spectrum, box, mask=mask)
    log_det = -2 * pyflow.fields.gaussian_logp(0 * x[:1], spectrum, box, mask=mask)
    square = -2 * unit - log_det

    def exact(a):
        return -0.5 * (square / a + log_det + mask.sum() * np.log(a))

    pixel = np.mean(x[train][:, mask] ** 2, axis=1).mean() / y[train].mean()
    white = np.sum(x[test][:, mask] ** 2, axis=1) / (pixel * y[test])
    white = -0.5 * (white + mask.sum() * np.log(2 * np.pi * pixel * y[test]))
    grid = np.linspace(*AMPLITUDES, 151)
    mean, width = moments(np.stack([exact(a) for a in grid], axis=1), grid)
    gain = (exact(y[test]) - white).mean()
    print(
        f"Gaussian fields of {mask.shape}, {mask.mean():.0%} observed; log p beyond white noise's:"
    )
    print(f"{'exact':>24}: {gain:8.1f} nats a field")
    known = {"epochs": size.epochs, "hidden": 2 * [size.hidden], "box_size": box, "verbose": False}
    kinds = {
        "constrained realisation": {"mask": mask},
        "white noise": {"mask": mask, "fill": "noise"},
        "zeros for data": {"noise": 0.01},
    }
    for kind, options in kinds.items():
        fields = x if "mask" in options else np.where(mask, x, 0)
        flow = pyflow.SymmetricFlow(
            fields[train], fields[validate], y[train], y[validate], **known, **options
        )
        lost = (exact(y[test]) - flow.evaluate_density(fields[test], y[test, None])).mean()
        at = [flow.evaluate_density(fields[test], [a]) for a in grid[::5]]
        mine, sigma = moments(np.stack(at, axis=1), grid[::5])
        off = np.sqrt(np.mean(((mine - mean) / width) ** 2))
        loss = f"{lost:8.1f} lost ({lost / gain:.2%})" if "mask" in options else f"{'-':>8}"
        print(
            f"{kind:>24}: {loss}; amplitude: off by {off:.2f} sigma, "
            f"width {np.mean(sigma / width):.2f} of the exact one"
        )


# ---- N-body maps ---------------------------------------------------------------------------------


def nbody(folder, size):
    path = Path(folder) / "train.npz"
    if not path.exists():
        print(f"N-body maps are not in {folder}: skipped")
        return
    with np.load(path) as data:
        maps, y, sim = data["maps"], data["params"].astype(float), data["sim"]
    by = maps.shape[1] // size.side
    maps = maps.astype(np.float32).reshape(len(maps), size.side, by, size.side, by).mean((2, 4))
    x = np.log(np.maximum(1 + maps, 0.02))
    order = np.random.default_rng(0).permutation(np.unique(sim))
    place = np.argsort(order)[np.searchsorted(np.unique(sim), sim)] / len(order)
    train, validate = np.flatnonzero(place < 0.8), np.flatnonzero((place >= 0.8) & (place < 0.9))
    test = np.flatnonzero(place >= 0.9)[: size.test]
    train = train[: size.train]
    mask, noise = window(size.side), apodised(size.side, 0.02, 0.4)
    known = {"box_size": BOX, "names": ["omega_m", "sigma_8"], "hidden": 2 * [size.hidden]}
    known |= {"epochs": size.epochs, "calibrate": True, "verbose": False}
    given = x[train], x[validate], y[train], y[validate]
    whole = pyflow.SymmetricFlow(*given, noise=0.02, **known)
    seen = pyflow.SymmetricFlow(*given, noise=noise, mask=mask, **known)
    rng = np.random.default_rng(2)
    print(f"N-body maps of {mask.shape}, {len(train)} to train on, {len(test)} held out:")
    white = rng.normal(size=x[test].shape).astype(np.float32)
    volumes = []
    for name, flow, level in (("whole maps", whole, 0.02), ("in the window", seen, noise)):
        data = x[test] + level * white
        posteriors = [flow.posterior(one, grid=33) for one in data]
        widths = np.mean([np.sqrt(np.diag(p.cov)) for p in posteriors], axis=0)
        inside = np.mean(
            [p.credibility(t) < LEVEL for p, t in zip(posteriors, y[test], strict=True)]
        )
        volumes.append(widths)
        print(
            f"{name:>24}: sigma of omega_m {widths[0]:.4f}, of sigma_8 {widths[1]:.4f}; "
            f"{inside:.0%} of the truths within {LEVEL:.0%} (temperature {flow.temperature:.2f})"
        )
    ratio = volumes[1] / volumes[0]
    print(f"{'posteriors wider by':>24}: {ratio[0]:.2f} and {ratio[1]:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", default=MAPS, help=f"folder of N-body maps; default {MAPS}")
    parser.add_argument("--only", choices=["gaussian", "nbody"])
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    if given.only != "nbody":
        gaussian(size)
    if given.only != "gaussian":
        nbody(given.data, size)


if __name__ == "__main__":
    main()
