"""Noise that is known: cosmological parameters from lensing and galaxy maps, deep and shallow.

    python examples/observables.py             # a small set of maps, made now
    python examples/observables.py --data DIR  # the full set, as for nbody_posterior.py: minutes
    python examples/observables.py --quick     # small lognormal maps, seconds

Two things that surveys see of the overdensity d, on 64 x 64 pixels:

lensing   d + noise: the convergence in units of that of d = 1, with white Gaussian shape noise of
          standard deviation sigma, from 0.1 to 1. The fit adds it afresh in every epoch.
galaxies  n from a Poisson distribution of mean nbar (1 + b d), or 0 where that is negative, b = 1.5
          and nbar from 1 to 32 galaxies in a pixel. Counts have no density: with u uniform in
          [0, 1), the flow is that of 2 sqrt(n + u), whose shot noise is nearly Gaussian and of unit
          variance at every nbar (Anscombe 1948). Each map is populated a few times to train on.

One flow p(x|y, level) of each serves all levels: sigma, or log10 nbar, is a condition beside the
parameters y. It is known of a survey, so that posteriors are of y alone: flow.posterior(x, prior,
noise=sigma), flow.posterior(x, prior, fixed={"log10 nbar": 0.5}). Those of the picture are made so;
the table is of hundreds, which are found through fewer points (`posterior`).

The validation simulations stop the fit and give the power of the likelihood that makes posteriors
best, one for all levels (`calibrate=True`: log10 nbar counts as one of y there).

Prints for every level, over maps of simulations that no fit has seen, one of each: how many truths
the 68 % and 95 % regions hold (with standard errors), how far credibilities of truths and TARP's
ranks are from uniform, log p(truth|map), the median figure of merit and the errors of posterior
means. Writes the table and a picture. Maps and helpers are those of nbody_posterior.py.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import known_fields
import nbody_posterior as nbody
import numpy as np

import pyflow

BIAS = 1.5
DEPTH = "log10 nbar"
POPULATED = 3  # times that each map is, for training
FULL = {"hidden": (64, 64)}
SMALL = {"hidden": (32, 32)}
QUICK = {"hidden": (32, 32), "n_layers": 2, "filter_knots": 16}
EPOCHS = {"lensing": 40, "galaxies": 12}  # passes through maps, and through thrice as many
QUICK_EPOCHS = {"lensing": 12, "galaxies": 4}


class Observable(NamedTuple):
    levels: tuple  # what posteriors are looked at for, from the least noise to the most
    label: str  # of a level
    symbol: str  # the same in pictures
    observe: Callable  # (maps, level, rng) -> what is seen of them at one level, or one level each
    fit: Callable  # (data, **options) -> the flow
    condition: Callable  # level -> the last condition of the flow
    known: Callable  # level -> what Flow.posterior is told of it


# ---- lensing -------------------------------------------------------------------------------------


def shear(x, sigma, rng):
    """Return maps with shape noise."""
    return x + np.float32(sigma) * rng.standard_normal(x.shape, dtype=np.float32)


def fit_lensing(data, **options):
    return pyflow.SymmetricFlow(
        data.train.x,
        data.validate.x,
        data.train.y,
        data.validate.y,
        names=data.names,
        noise=(0.1, 1.0),
        noise_condition=True,
        **options,
    )


# ---- galaxies ------------------------------------------------------------------------------------


def populate(x, nbar, rng):
    """Return maps of 2 sqrt(n + u); nbar is a number or one for each."""
    mean = np.reshape(nbar, (-1, 1, 1)) * np.maximum(1 + BIAS * x, 0)
    return (2 * np.sqrt(rng.poisson(mean) + rng.random(x.shape))).astype(np.float32)


def fit_galaxies(data, **options):
    rng, given = np.random.default_rng(1), []
    for maps, times in ((data.train, POPULATED), (data.validate, 1)):
        x, y = maps.x.repeat(times, axis=0), maps.y.repeat(times, axis=0)
        depth = rng.uniform(0, 1.5, len(x))
        given.append((populate(x, 10**depth, rng), np.column_stack([y, depth])))
    (x, y), (held_out, at) = given
    return pyflow.SymmetricFlow(x, held_out, y, at, names=(*data.names, DEPTH), **options)


OBSERVABLES = {
    "lensing": Observable(
        (0.1, 0.3, 1.0),
        "sigma",
        r"$\sigma$",
        shear,
        fit_lensing,
        float,
        lambda sigma: {"noise": sigma},
    ),
    "galaxies": Observable(
        (30, 6, 1.2),
        "nbar",
        r"$\bar n$",
        populate,
        fit_galaxies,
        np.log10,
        lambda nbar: {"fixed": {DEPTH: np.log10(nbar)}},
    ),
}


# ---- posteriors ----------------------------------------------------------------------------------


def coarse(maps):
    """Return maps on half the mesh, and half of that, until it has 64 pixels along a side."""
    x = maps.x
    while x.shape[1] > 64:
        x = x.reshape(len(x), x.shape[1] // 2, 2, -1, 2).mean(axis=(2, 4))
    return maps._replace(x=x)


def one_of_each(maps, count):
    """Return the first map of every simulation, of `count` simulations at most."""
    rows = np.unique(maps.sim, return_index=True)[1][:count]
    return nbody.Maps(*(values[rows] for values in maps))


def posterior(flow, x, prior, *known):
    """Return a map's posterior at known values of the last conditions, as flow.posterior's.

    That of a polynomial through log p at 64 points around its mode, where flow.posterior evaluates
    log p at some two thousand: means are within a fifth of a standard deviation.
    """

    def logp(y):
        conditions = np.column_stack([y, np.tile(known, (len(y), 1))])
        logs = flow.evaluate_density(np.broadcast_to(x, (len(y), *x.shape)), conditions)
        return flow.temperature * logs

    return known_fields.posterior(logp, prior)


def seen_at(observable, maps, level):
    """Return what is seen of maps at a level."""
    return observable.observe(maps.x, level, np.random.default_rng(2))


def draw(found, maps, data):
    """Draw a map at every level, its posteriors, and how many truths regions hold."""
    from matplotlib.figure import Figure

    i = np.abs((maps.y - data.prior.mean(axis=1)) / np.ptp(data.prior, axis=1)).sum(axis=1).argmin()
    size = {"squeeze": False, "width_ratios": (1, 1, 1, 1.5, 1.5)}
    with pyflow.plots.style():
        figure = Figure(figsize=(9.6, 2.3 * len(found)), layout="constrained")
        grid = figure.subplots(len(found), 5, **size)
        for row, (name, (observable, flow, results)) in zip(grid, found.items(), strict=True):
            posts, curves = [], []
            for panel, level in zip(row, observable.levels, strict=False):
                seen = seen_at(observable, maps, level)
                lo, hi = np.quantile(seen[i], [0.005, 0.995])
                label = f"{observable.symbol} = {level:g}"
                nbody.draw_map(panel, seen[i], f"{name}, {label}", vmin=lo, vmax=hi)
                posts.append(flow.posterior(seen[i], data.prior, **observable.known(level)))
                curves.append((results[level]["credibility"], {"label": label}))
            nbody.draw_regions(row[3], posts, maps.y[i])
            nbody.draw_coverage(row[4], curves, len(maps.y))
            lines, labels = row[4].get_legend_handles_labels()
            row[4].legend(lines[1:], labels[1:], loc="lower right", handlelength=1.2)
        grid[0, 3].set_title("68 % and 95 % regions")
        grid[0, 4].set_title("calibration")
    return figure


# ---- all of it -----------------------------------------------------------------------------------


def options_of(description):
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small maps made here, few epochs")
    parser.add_argument("--data", type=Path, metavar="DIR", help="as for nbody_posterior.py")
    parser.add_argument("--test", type=int, default=120, help="simulations to test with, at most")
    parser.add_argument("--threads", type=int, help="processor cores to use")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results are written")
    return parser


def main():
    parser = options_of(__doc__.splitlines()[0])
    arguments = parser.parse_args()
    quick = arguments.quick
    pyflow.set_num_threads(arguments.threads)
    if quick:
        data, options, epochs = nbody.simulate(), QUICK, QUICK_EPOCHS
    else:
        try:
            data = nbody.load(nbody.find_maps(arguments.data))
        except FileNotFoundError as error:
            parser.error(str(error))
        full = nbody.settings_for(data) is nbody.SETTINGS
        options, epochs = FULL if full else SMALL, EPOCHS
    data = data._replace(**{part: coarse(getattr(data, part)) for part in ("train", "validate")})
    test = one_of_each(coarse(data.test), arguments.test)
    out = arguments.out or nbody.OUTPUT / ("observables" + "_quick" * quick)
    out.mkdir(parents=True, exist_ok=True)

    found, tables = {}, {}
    for name, observable in OBSERVABLES.items():
        about = {
            "epochs": epochs[name],
            "box_size": data.box_size,
            "calibrate": True,
            "verbose": False,
        }
        flow = observable.fit(data, **options, **about)
        print(f"{name}: {flow}")
        results = {}
        for level in observable.levels:
            seen, known = seen_at(observable, test, level), observable.condition(level)
            results[level] = nbody.summarise(
                lambda i, f=flow, x=seen, at=known: posterior(f, x[i], data.prior, at),
                test,
                data.prior,
            )
        rows = {
            f"{observable.label} = {v:g}": nbody.statistics(r, test) for v, r in results.items()
        }
        nbody.table(rows, data.names, ranks=True)
        print(flush=True)
        tables[name], found[name] = rows, (observable, flow, results)
    (out / "results.json").write_text(json.dumps(tables, indent=1) + "\n")

    nbody.write(draw(found, test, data), out / "observables.png")
    print(f"wrote {out / 'results.json'} and {out / 'observables.png'}")


if __name__ == "__main__":
    main()
