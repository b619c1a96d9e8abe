"""Maps in redshift space: a flow that knows the line of sight beside one that does not.

    python examples/redshift_space.py              # N-body maps, or small Gaussian ones
    python examples/redshift_space.py --data DIR   # train_rsd.npz of another folder
    python examples/redshift_space.py --quick      # small Gaussian maps, half a minute

In redshift space matter that falls towards an overdensity moves it along the line of sight, so that
its map looks squashed there: the power spectrum P(k, mu) depends on the cosine mu of the angle
between a mode and that axis. The N-body maps are of 100 pairs of omega_m and sigma_8, four for
each, 128 x 128 pixels of 4 Mpc/h, averaged 2 x 2 unless --side 128 is given; the line of sight is
the second axis of a map. They are looked for in ../shared/data/nbody. Without them Gaussian maps
with P(k, mu; A, beta) = A (1 + beta mu^2)^2 k^-1.5 (Kaiser 1987) stand in their place.

Two flows p(map|parameters), symmetry="axial" and "isotropic", are trained on the first 70 of 100
simulations; the next ten stop the training and give the temperature of posteriors. Prints, of the
last twenty: log p per pixel of both flows; monopole and quadrupole of the power of samples at the
parameters of the maps, against the maps'; and what the posteriors are worth. Standard errors treat
a simulation's maps as one. Writes flows and redshift_space.png to a folder, where the flows are
found again by the next run with the same maps and settings.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from nbody_posterior import (
    Maps,
    clustered,
    draw_map,
    draw_regions,
    statistics,
    summarise,
    table,
    write,
)
from scipy.stats import norm

import pyflow
from pyflow import fields

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared" / "data" / "nbody"
COLOURS = {"axial": "C0", "isotropic": "C1"}  # of pyflow.plots.style()
SETTINGS = {"hidden": (16, 16), "filter_knots": 24}  # few: there are 70 pairs of parameters
QUICK = {"n_layers": 1, "psi_knots": 4, "filter_knots": 12, "hidden": (32, 32), "epochs": 30}
DRAWS = 4  # samples for each map


# ---- maps ----------------------------------------------------------------------------------------


class World:
    """Maps, split by simulation into training, validation and test."""

    def __init__(self, maps, names, prior, box_size, unit):
        sims = np.unique(maps.sim)
        ends = [sims[len(sims) * part // 10] for part in (7, 8)]
        part = np.searchsorted(ends, maps.sim, side="right")
        self.maps = maps
        self.train, self.validate, self.test = (
            Maps(*(a[part == i] for a in maps)) for i in range(3)
        )
        self.names, self.prior, self.box_size, self.unit = names, prior, box_size, unit
        low, side = 2 * np.pi / box_size, maps.x.shape[1]
        self.edges = low * np.append([0.5, 1.5, 2.5], np.geomspace(3.5, side / 2, 8))

    def multipoles(self, x):
        """k, and monopole and quadrupole (n, 2, bins) of maps."""
        k, power, _ = fields.power_multipoles(x, self.box_size, -1, (0, 2), self.edges)
        return k, power

    def gaussianised(self, x):
        """Return maps whose pixels went through the function that makes those of train Gaussian."""
        pixels = np.sort(self.train.x, axis=None)
        pixels = pixels[:: len(pixels) // 10_000 + 1]
        return np.interp(x, pixels, norm.ppf((np.arange(len(pixels)) + 0.5) / len(pixels)))


def nbody(folder, side):
    with np.load(folder / "train_rsd.npz") as file:
        x, y, sim = file["maps"].astype(np.float32), file["params"].astype(float), file["sim"]
    block = x.shape[1] // side
    x = x.reshape(len(x), side, block, side, block).mean(axis=(2, 4))
    prior = np.array([[0.2, 0.5], [0.5, 1.1]])
    return World(Maps(x, y, sim), ("omega_m", "sigma_8"), prior, 512.0, "Mpc/h")


def gaussian(side, n):
    prior = np.array([[0.5, 2.0], [0.2, 1.5]])
    y = np.random.default_rng(1).uniform(*prior.T, size=(n, 2))
    amplitude, beta = y.T[:, :, None, None]

    def power(k, mu):
        return amplitude * (1 + beta * mu**2) ** 2 * k**-1.5

    x = fields.gaussian_field(power, (side, side), box_size=float(side), seed=2, axis=-1)
    maps = Maps(x.astype(np.float32), y, np.arange(n))
    return World(maps, ("A", "beta"), prior, float(side), "")


# ---- what is compared ----------------------------------------------------------------------------


def train(world, symmetry, settings, folder):
    """Return a calibrated flow; one that an earlier run left in the folder is found again."""
    start = time.perf_counter()
    known = {"box_size": world.box_size, "names": world.names, "verbose": False}
    flow = pyflow.SymmetricFlow(
        world.train.x,
        world.validate.x,
        world.train.y,
        world.validate.y,
        symmetry=symmetry,
        calibrate=True,
        checkpoint=folder / f"{symmetry}_{world.maps.x.shape[1]}.pyflow",
        **known | settings,
    )
    print(f"{symmetry}: {time.perf_counter() - start:.0f} s, temperature {flow.temperature:.2f}")
    return flow


def log_densities(flows, test):
    """Print log p per pixel of test maps."""
    logp = {name: flow.evaluate_density(test.x, test.y) for name, flow in flows.items()}
    logp["axial - isotropic"] = logp["axial"] - logp["isotropic"]
    print("log p per pixel of test maps")
    for name, values in logp.items():
        mean, error = clustered(values / test.x[0].size, test.sim)
        print(f"  {name:20}{mean:9.5f} ± {error:.5f}")


def spectra(world, maps, flow, transform):
    """Return k, multipoles of maps and of samples at their parameters, (2, bins) each, and errors.

    The errors, of the differences, are those of the mean over simulations.
    """
    k, mine = world.multipoles(transform(maps.x))
    draws = (flow.sample(len(maps.y), maps.y, seed=i)[0] for i in range(DRAWS))
    samples = np.mean([world.multipoles(transform(x))[1] for x in draws], axis=0)
    error = np.empty(mine.shape[1:])
    for at in np.ndindex(error.shape):
        error[at] = clustered((samples - mine)[(slice(None), *at)], maps.sim)[1]
    return k, mine.mean(axis=0), samples.mean(axis=0), error


def quadrupoles(world, flow):
    """Print quadrupoles over monopoles, and how many standard errors samples are off.

    Those of test maps differ from those of training maps, as each has twenty, or seventy,
    simulations: what the flow makes of all is beside them.
    """
    kinds = {"maps": np.asarray, "maps with Gaussian pixels": world.gaussianised}
    for kind, transform in kinds.items():
        print(f"quadrupole / monopole of {kind}\n{'':10}{'test':>24}{'all':>27}")
        print(f"{'k':>10}" + 2 * f"{'maps':>9}{'samples':>9}{'off':>9}")
        of = [spectra(world, maps, flow, transform) for maps in (world.test, world.maps)]
        for i, k in enumerate(of[0][0]):
            cells = ""
            for _, mine, samples, error in of:
                off = (samples - mine)[1, i] / error[1, i]
                ratios = (f"{p[1, i] / p[0, i]:9.3f}" for p in (mine, samples))
                cells += "".join(ratios) + f"{off:+9.1f}"
            print(f"{k:10.4f}{cells}")


def posteriors(world, flows):
    """Print what posteriors of test maps, calibrated, say of the truth."""
    rows = {}
    for name, flow in flows.items():
        found = summarise(
            lambda i, f=flow: f.posterior(world.test.x[i], world.prior), world.test, world.prior
        )
        rows[name] = statistics(found, world.test)
    print(f"posteriors of {len(world.test.x)} test maps")
    table(rows, world.names, ranks=True)


# ---- the picture ---------------------------------------------------------------------------------


def draw(world, flows):
    """Draw a test map and samples at its parameters, multipoles, and its posteriors.

    The map is the one whose parameters are nearest to the middle of the prior.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    with pyflow.plots.style() as colours:
        figure = Figure(figsize=(8.6, 5.9), layout="constrained")
        grid = figure.subfigures(2, 1, height_ratios=(1, 1.1))
        test = world.test
        away = (test.y - world.prior.mean(axis=1)) / np.ptp(world.prior, axis=1)
        row = np.abs(away).sum(axis=1).argmin()
        pictures = {"test map": test.x[row]}
        for name, flow in flows.items():
            pictures[f"{name} sample"] = flow.sample(1, test.y[row], seed=3)[0][0]
        limits = np.quantile(world.gaussianised(test.x[row]), [0.002, 0.998])
        shades = {"vmin": limits[0], "vmax": limits[1]}
        for axes, (name, x) in zip(grid[0].subplots(1, 3), pictures.items(), strict=True):
            draw_map(axes, world.gaussianised(x).T, name, **shades)
            axes.set_ylabel("line of sight" if name == "test map" else "")
        panels = grid[1].subplots(1, 3)
        kinds = {"power of maps": np.asarray, "with Gaussian pixels": world.gaussianised}
        for axes, (kind, transform) in zip(panels, kinds.items(), strict=False):
            for name, flow in flows.items():
                k, mine, samples, error = spectra(world, test, flow, transform)
                for pole, style in ((0, "--"), (1, "-")):
                    label = f"{name}, {('monopole', 'quadrupole')[pole]}"
                    axes.plot(k, k * samples[pole], style, color=COLOURS[name], label=label)
                    if name == "axial":
                        bars = {"color": colours["ink"], "lw": 0, "elinewidth": 1, "markersize": 3}
                        bars["label"] = "" if pole else "test maps"
                        axes.errorbar(k, k * mine[pole], k * error[pole], fmt="o", **bars)
            axes.axhline(0, color=colours["ink"], lw=0.5)
            units = (r"  [$h$/Mpc]", r"  [Mpc/$h$]") if world.unit else ("", "")
            axes.set(xscale="log", title=kind)
            axes.set(xlabel=f"$k${units[0]}", ylabel=rf"$k\,P_\ell(k)${units[1]}")
            ticks = [at for at in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2) if k[0] < at < k[-1]]
            axes.set_xticks(ticks, [f"{at:g}" for at in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
        draw_regions(
            panels[2],
            [flow.posterior(test.x[row], world.prior) for flow in flows.values()],
            test.y[row],
        )
        panels[2].set_title("posteriors of this map: 68 and 95 %")
        handles = panels[0].get_legend_handles_labels()
        grid[1].legend(*handles, loc="outside lower center", ncols=5)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small Gaussian maps, few epochs")
    parser.add_argument("--data", type=Path, default=SHARED, metavar="DIR", help="of train_rsd.npz")
    parser.add_argument("--side", type=int, choices=(64, 128), default=64, help="pixels of a map")
    parser.add_argument("--threads", type=int, help="processor cores to use")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the flows and the picture")
    arguments = parser.parse_args()
    pyflow.set_num_threads(arguments.threads)
    if arguments.quick:
        world, settings = gaussian(16, 300), QUICK
    elif (arguments.data / "train_rsd.npz").exists():
        world, settings = nbody(arguments.data, arguments.side), SETTINGS
    elif arguments.data != SHARED:
        parser.error(f"there is no train_rsd.npz in {arguments.data}")
    else:
        print("no N-body maps here: Gaussian ones")
        world, settings = gaussian(32, 1000), QUICK
    out = arguments.out or HERE / "output" / ("redshift_space" + "_quick" * arguments.quick)
    out.mkdir(parents=True, exist_ok=True)
    flows = {name: train(world, name, settings, out) for name in COLOURS}
    log_densities(flows, world.test)
    quadrupoles(world, flows["axial"])
    posteriors(world, flows)
    write(draw(world, flows), out / "redshift_space.png")
    print(f"wrote {out / 'redshift_space.png'}")


if __name__ == "__main__":
    main()
