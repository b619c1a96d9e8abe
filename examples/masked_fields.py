"""Survey windows: flows of fields of which some pixels are not observed.

    python examples/masked_fields.py            # Gaussian fields; N-body maps if there
    python examples/masked_fields.py --quick    # seconds: shows that it runs, not how well
    python examples/masked_fields.py --data DIR # maps that examples/nbody_maps.py made

Gaussian fields whose amplitude is to be found, under a mask with an edge and holes, without noise
and with noise that rises towards the edge: the exact likelihood is a dense Gaussian of the observed
pixels. Beside it, SymmetricFlow with the mask, by constrained realisation and with white noise, and
flows that do not know of the mask, or of where the noise is. Then maps of the logarithm of the
density in N-body simulations with that noise: posteriors under the window beside those of whole
maps, on simulations held out.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nbody_posterior import draw_map, draw_regions, write
from scipy.integrate import cumulative_trapezoid, trapezoid
from scipy.interpolate import CubicSpline
from scipy.stats import norm

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
# flows of Gaussian fields: the first is the one in the picture
PLAIN = {
    "constrained realisation": {},
    "white noise": {"fill": "noise"},
    "white noise, 8 patches": {"fill": "noise", "patch_layers": 8},
    "zeros for data": {"zeros": True, "noise": 0.01},
}


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
    p /= trapezoid(p, at, axis=1)[:, None]
    mean = trapezoid(p * at, at, axis=1)
    return mean, np.sqrt(trapezoid(p * at**2, at, axis=1) - mean**2)


def noisy(noise):
    """Return flows of fields with a noise map, the first for the picture."""
    level = float(np.sqrt(np.mean(noise[window(len(noise))] ** 2)))
    return {
        "the map": {"noise": noise},
        "white noise, 8 patches": {"noise": noise, "fill": "noise", "patch_layers": 8},
        "its mean power": {"noise": level},
    }


# ---- Gaussian fields -----------------------------------------------------------------------------


def gaussian(size, noise, kinds):
    """Compare flows, {name: options}, with the truth; return what a picture needs.

    noise is the standard deviation in every pixel, or 0. Options with "zeros" make fields whose
    unobserved pixels are 0, and no mask.
    """
    box, mask = float(size.side), window(size.side)
    n = size.train + 3 * size.test
    rng = np.random.default_rng(1)
    y = rng.uniform(*AMPLITUDES, n)
    x = pyflow.fields.gaussian_field(
        lambda k: y[:, None, None] * spectrum(k), mask.shape, box_size=box, seed=1
    ).astype(np.float32)
    train, validate, test = np.split(np.arange(n), [size.train, size.train + size.test])
    x[test] += noise * rng.standard_normal(x[test].shape, dtype=np.float32)
    grid = np.geomspace(*AMPLITUDES, 31)  # log p is smooth: a spline does between
    fine = np.geomspace(*AMPLITUDES, 601)
    exact = [
        pyflow.fields.gaussian_logp(
            x[test], lambda k, a=a: a * spectrum(k), box, mask=mask, noise=noise
        )
        for a in grid
    ]
    exact = CubicSpline(grid, np.stack(exact, axis=1), axis=1)
    at_truth = exact(y[test]).diagonal()
    exact = exact(fine)
    mean, width = moments(exact, fine)
    pixel = (x[train][:, mask] ** 2).mean() / y[train].mean()
    sigma = np.sqrt(pixel * y[test, None] + np.broadcast_to(noise, mask.shape)[mask] ** 2)
    white = norm(0, sigma).logpdf(x[test][:, mask]).sum(axis=1)
    gain = (at_truth - white).mean()
    noisy = "noise that rises towards the edge" if np.any(noise) else "no noise"
    print(f"Gaussian fields of {mask.shape}, {mask.mean():.0%} observed, {noisy}:")
    print(
        f"{'exact':>24}: log p {gain:.1f} nats a field beyond white pixels'; "
        f"{inside(exact, fine, y[test])}"
    )
    known = {"epochs": size.epochs, "hidden": 2 * [size.hidden], "box_size": box, "verbose": False}
    quiet = mask & (noise < 1.01 * np.min(noise) + 1e-9)
    picture = {"grid": fine, "truth": y[test], "exact": exact, "quiet": quiet}
    for kind, options in kinds.items():
        options = dict(options)
        zeros = options.pop("zeros", False)
        fields = x
        if zeros:
            fields = np.where(mask, x, 0)
            fields[test] += options["noise"] * rng.standard_normal(x[test].shape, dtype=np.float32)
        options |= {} if zeros else {"mask": mask}
        flow = pyflow.SymmetricFlow(
            fields[train], fields[validate], y[train], y[validate], **known, **options
        )
        lost = (at_truth - flow.evaluate_density(fields[test], y[test, None])).mean()
        mine = np.stack([flow.evaluate_density(fields[test], [a]) for a in grid], axis=1)
        mine = CubicSpline(grid, mine, axis=1)(fine)
        my_mean, my_width = moments(mine, fine)
        off = (my_mean - mean) / width
        loss = "of another space" if zeros else f"{lost:.1f} lost ({lost / gain:.2%})"
        print(
            f"{kind:>24}: log p {loss}; amplitude off by {np.sqrt(np.mean(off**2)):.2f} sigma "
            f"(mean {off.mean():+.2f}), width {np.mean(my_width / width):.2f} of the exact one; "
            f"{inside(mine, fine, y[test])}"
        )
        if "map" not in picture:
            row = test[abs(y[test] - np.mean(AMPLITUDES)).argmin()]  # a fill alone knows no y
            picture |= {"flow": flow, "map": x[row], "y": y[row], "mine": mine}
    return picture


def inside(logp, at, truth):
    """Say how many truths lie within the central 68 and 95 per cent of densities (n, m)."""
    p = np.exp(logp - logp.max(axis=1, keepdims=True))
    p = cumulative_trapezoid(p, at, axis=1, initial=0)
    rank = np.array([np.interp(t, at, row / row[-1]) for row, t in zip(p, truth, strict=True)])
    held = (f"{np.mean(abs(rank - 0.5) < level / 2):.0%}" for level in (LEVEL, 0.95))
    return "68, 95 % regions hold " + ", ".join(held)


# ---- N-body maps ---------------------------------------------------------------------------------


def nbody(folder, size):
    """Compare posteriors of whole maps with those in a window; return what a picture needs."""
    paths = [Path(folder) / name for name in ("train.npz", "train_more.npz")]
    paths = [path for path in paths if path.exists()]
    if not paths:
        print(f"N-body maps are not in {folder}: skipped")
        return None
    parts = [coarse(path, size.side) for path in paths]
    x, y, sim = (np.concatenate(part) for part in zip(*parts, strict=True))
    # of the last file, or else a tenth of the simulations, nothing trains
    first = len(parts[0][0]) if len(parts) > 1 else len(x)
    order = np.random.default_rng(0).permutation(np.unique(sim[:first]))
    place = np.argsort(order)[np.searchsorted(np.unique(sim[:first]), sim[:first])] / len(order)
    train, validate = np.flatnonzero(place < 0.8), np.flatnonzero((place >= 0.8) & (place < 0.9))
    test = np.arange(first, len(x)) if len(parts) > 1 else np.flatnonzero(place >= 0.9)
    within = np.all((y[test] > y[train].min(axis=0)) & (y[test] < y[train].max(axis=0)), axis=1)
    train, test = train[: size.train], test[within][: 3 * size.test]
    mask, noise = window(size.side), apodised(size.side, 0.02, 0.4)
    known = {"box_size": BOX, "names": ["omega_m", "sigma_8"], "hidden": 2 * [size.hidden]}
    known |= {"epochs": size.epochs, "calibrate": True, "verbose": False}
    given = x[train], x[validate], y[train], y[validate]
    flows = {
        "whole maps": (pyflow.SymmetricFlow(*given, noise=0.02, **known), 0.02),
        "in the window": (pyflow.SymmetricFlow(*given, noise=noise, mask=mask, **known), noise),
    }
    white = np.random.default_rng(2).normal(size=x[test].shape).astype(np.float32)
    print(f"N-body maps of {mask.shape}, {len(train)} to train on, {len(test)} held out:")
    found, mean = {}, []
    for name, (flow, level) in flows.items():
        posts = [flow.posterior(one, grid=33) for one in x[test] + level * white]
        found[name] = posts[0]
        sigma = np.array([np.sqrt(np.diag(p.cov)) for p in posts])
        away = (np.array([p.mean for p in posts]) - y[test]) / sigma
        mass = np.array([p.credibility(t) for p, t in zip(posts, y[test], strict=True)])
        mean.append(sigma.mean(axis=0))
        held = (f"{np.mean(mass < level):.0%} in {level:.0%}" for level in (LEVEL, 0.95))
        print(
            f"{name:>24}: sigma of omega_m {mean[-1][0]:.4f}, of sigma_8 {mean[-1][1]:.4f}; truths "
            f"{' and '.join(held)} regions (of {LEVEL:.0%}: +- {binomial(LEVEL, len(mass)):.0%}); "
            f"(mean - truth) / sigma: {away[:, 0].mean():+.2f} +- {away[:, 0].std():.2f} and "
            f"{away[:, 1].mean():+.2f} +- {away[:, 1].std():.2f}; "
            f"temperature {flow.temperature:.2f}"
        )
    ratio = mean[1] / mean[0]
    print(f"{'posteriors wider by':>24}: {ratio[0]:.2f} and {ratio[1]:.2f}")
    return {"posteriors": found, "truth": y[test[0]]}


def coarse(path, side):
    """Return log-densities of maps averaged to side x side, their parameters and simulations."""
    with np.load(path) as data:
        maps, y, sim = data["maps"], data["params"].astype(float), data["sim"]
    by = maps.shape[1] // side
    maps = maps.astype(np.float32).reshape(len(maps), side, by, side, by).mean((2, 4))
    return np.log(np.maximum(1 + maps, 0.02)), y, sim


def binomial(p, n):
    return np.sqrt(p * (1 - p) / n)


# ---- the picture ---------------------------------------------------------------------------------


def draw(seen, maps):
    """Draw a field in a window, filled in, and a sample; posteriors beside the exact ones.

    seen is what `gaussian` returned, maps what `nbody` did, or None.
    """
    from matplotlib.figure import Figure

    flow, x, y = seen["flow"], seen["map"], [seen["y"]]
    filled = flow[:1].forward(x[None])[0][0]
    known = flow.mask
    filled = np.polyval(np.polyfit(filled[seen["quiet"]], x[seen["quiet"]], 1), filled)
    pictures = {
        "observed": np.where(known, x, np.nan),
        "without the noise, filled in": filled,
        "sample of the flow": flow.sample(1, y, seed=1)[0][0],
    }
    limits = np.nanquantile(pictures["observed"], [0.005, 0.995])
    with pyflow.plots.style() as colours:
        figure = Figure(figsize=(8.6, 5.9), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(1, 1))
        for axes, (name, image) in zip(above.subplots(1, 3), pictures.items(), strict=True):
            axes.set_facecolor("0.8")
            draw_map(axes, image, name, vmin=limits[0], vmax=limits[1])
        left, right = below.subplots(1, 2)
        grid = seen["grid"]
        rows = np.argsort(seen["truth"])[:: max(len(seen["truth"]) // 5, 1)][:5]
        styles = {
            "exact": ("exact", {"color": colours["data"], "lw": 3}),
            "mine": ("flow", {"color": colours["samples"], "lw": 1.3}),
        }
        for i, row in enumerate(rows):
            for logp, (name, style) in styles.items():
                p = np.exp(seen[logp][row] - seen[logp][row].max())
                p /= trapezoid(p, grid)
                left.plot(grid, p, **style, label=name if i == 0 else None)
        left.set(xlabel="amplitude", ylabel="posterior", title="Gaussian fields in the window")
        left.set(xlim=AMPLITUDES, ylim=(0, None))
        left.legend()
        if maps is None:
            right.set_axis_off()
            return figure
        draw_regions(right, list(maps["posteriors"].values()), maps["truth"])
        for k, name in enumerate(maps["posteriors"]):
            right.plot([], [], color=f"C{k}", label=name)
        right.set_title("an N-body map: 68 and 95 %")
        right.legend()
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", default=MAPS, help=f"folder of N-body maps; default {MAPS}")
    parser.add_argument("--out", type=Path, help="folder for the picture")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    out = given.out or HERE / "output" / ("masked_fields" + "_quick" * given.quick)
    gaussian(size, 0.0, PLAIN)
    noise = apodised(size.side, 0.05, 1.0)
    seen = gaussian(size, noise, noisy(noise))
    maps = nbody(given.data, size)
    out.mkdir(parents=True, exist_ok=True)
    write(draw(seen, maps), out / "masked_fields.png")
    print(f"wrote {out / 'masked_fields.png'}")


if __name__ == "__main__":
    main()
