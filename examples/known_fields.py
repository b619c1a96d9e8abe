"""Fields whose density is known, Gaussian and lognormal: how near does a symmetric flow come?

    python examples/known_fields.py             # 128 x 128 with 1,000 maps, 64^3 with 200
    python examples/known_fields.py --quick     # small fields: to see that all works
    python examples/known_fields.py lognormal-3d --maps 100 --layers 5

Gaussian fields have P(k; A, n) = A k^n, lognormal ones P(k; A, n) = A (1 + (2 k)^2)^(n/2), those
in redshift space P(k, mu; A, beta) = A (1 + beta mu^2)^2 k^-1.5 and an axial flow. The table has,
for fields that no training has seen: how much log p is lost, in per cent of the entropy difference
to white noise; for the posterior of (A, n) how far its mean is from the exact one's, in the exact
one's standard deviations, mean and rms over the fields; the ratio of figures of merit; and how
often the 68 % and 95 % regions hold the truth (in brackets: those of the exact posterior).
"""

import argparse
import time

import numpy as np
from numpy.polynomial import chebyshev

import pyflow
from pyflow import fields


def power_law(k, amplitude, slope):
    return amplitude * k**slope


def flat_then_steep(k, amplitude, slope):
    return amplitude * (1 + (2 * k) ** 2) ** (slope / 2)


def kaiser(k, mu, amplitude, beta):
    return amplitude * (1 + beta * mu**2) ** 2 * k**-1.5


# name: (how to draw, log p, spectrum, axes, bounds of the uniform prior of A and n, or beta)
GAUSSIAN = fields.gaussian_field, fields.gaussian_logp, power_law
REDSHIFT = fields.gaussian_field, fields.gaussian_logp, kaiser
LOGNORMAL = fields.lognormal_field, fields.lognormal_logp, flat_then_steep
ROWS = {
    "gaussian-2d": (*GAUSSIAN, 2, [[0.5, 2.0], [-2.0, -1.0]]),
    "gaussian-3d": (*GAUSSIAN, 3, [[0.5, 2.0], [-2.0, -1.0]]),
    "lognormal-2d": (*LOGNORMAL, 2, [[1.0, 4.0], [-3.0, -1.5]]),
    "lognormal-3d": (*LOGNORMAL, 3, [[4.0, 16.0], [-3.0, -1.5]]),
    "redshift-2d": (*REDSHIFT, 2, [[0.5, 2.0], [0.2, 1.5]]),
    "redshift-3d": (*REDSHIFT, 3, [[0.5, 2.0], [0.2, 1.5]]),
}
SETTINGS = {
    "n_layers": 2,
    "psi_knots": 8,
    "filter_knots": 16,
    "hidden": (64, 64),
    "learning_rate": 6e-3,
}
BATCH = {2: 4, 3: 1}  # small: what few large fields say of (A, n) is learned in many steps
BLOCK = 8  # fields that are drawn, or spectra tried, at once
REACH = 6  # sigma around its mode in which a posterior is looked at


class World:
    """Fields of one kind with pixels of length one, and what is known of them."""

    def __init__(self, name, side):
        self.draw_some, self.logp_of, self.shape, ndim, prior = ROWS[name]
        self.mesh, self.box = (side,) * ndim, float(side)
        self.prior = np.array(prior)
        self.axis = {"axis": -1} if self.shape is kaiser else {}
        self.symmetry = "axial" if self.axis else "isotropic"

    def spectrum(self, y):
        """P(k; A, n), or P(k, mu; A, beta), at each row of y."""
        amplitude, slope = (y[(..., j, *[None] * len(self.mesh))] for j in (0, 1))
        return lambda *k_mu: self.shape(*k_mu, amplitude, slope)

    def draw(self, n, seed):
        rng = np.random.default_rng(seed)
        y = rng.uniform(*self.prior.T, size=(n, 2))
        x = np.empty((n, *self.mesh), np.float32)
        for i in range(0, n, BLOCK):
            power = self.spectrum(y[i : i + BLOCK])
            some = self.draw_some(power, self.mesh, box_size=self.box, seed=rng, **self.axis)
            x[i : i + BLOCK] = some
        return x, y

    def logp(self, x, y):
        """Return the exact log p of fields, or of one field (1, mesh) at many y."""
        blocks = range(0, len(y), BLOCK)
        parts = [
            self.logp_of(
                x[i : i + BLOCK] if len(x) > 1 else x,
                self.spectrum(y[i : i + BLOCK]),
                self.box,
                **self.axis,
            )
            for i in blocks
        ]
        return np.concatenate(parts)

    def white(self, y):
        """Return minus the entropy of white noise with the fields' variance, at each y."""
        k, modes = fields.wavenumbers(self.mesh, self.box)
        k.flat[0] = k[k > 0].min()
        pixels = np.prod(self.mesh)
        mu = [fields.cosines(self.mesh, self.box)] * len(self.axis)
        variance = [(modes * self.spectrum(at)(k, *mu)).sum() / pixels for at in y]
        return -0.5 * pixels * np.log(2 * np.pi * np.e * np.array(variance))


def posterior(logp, prior, nodes=8):
    """Return the posterior, with log p a polynomial through nodes x nodes points around it.

    Far from the mode that is a coarse guide: the box shrinks by a factor of four at most.
    """
    knots = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    u = np.stack(np.meshgrid(knots, knots, indexing="ij"), axis=-1).reshape(-1, 2)
    box, last = prior, False
    while True:
        middle, half = box.mean(axis=1), np.diff(box)[:, 0] / 2
        values = logp(middle + half * u)
        coefficients = np.linalg.solve(basis(u), values - values.max())

        def log_density(y, middle=middle, half=half, coefficients=coefficients):
            return basis((y - middle) / half) @ coefficients

        post = pyflow.Posterior(log_density, box)
        if last:
            return post
        reach = REACH * np.sqrt(np.diag(post.cov))
        last = np.all(reach > half / 4)
        reach = np.maximum(reach, half / 4)
        box = np.clip([post.mean - reach, post.mean + reach], *prior.T).T


def basis(u):
    """Chebyshev polynomials at points in [-1, 1]^2, as many as there are points in `posterior`."""
    return chebyshev.chebvander2d(*u.T, [7, 7])


def compare(world, flow, x, y):
    """Rows of: how far means of A, n are off; ratio of figures of merit; credibility of truths."""
    rows = []
    for field, truth in zip(x[:, None], y, strict=True):
        exact = posterior(lambda at, field=field: world.logp(field, at), world.prior)
        mine = posterior(
            lambda at, field=field: flow.evaluate_density(
                np.broadcast_to(field, (len(at), *world.mesh)), at
            ),
            world.prior,
        )
        rows.append(
            [
                *(mine.mean - exact.mean) / np.sqrt(np.diag(exact.cov)),
                mine.figure_of_merit(0.68) / exact.figure_of_merit(0.68),
                mine.credibility(truth),
                exact.credibility(truth),
            ]
        )
    return np.array(rows).T


COLUMNS = (
    ("fields", 13),
    ("mesh", 9),
    ("train", 6),
    ("log p lost", 16),
    ("A off, sigma", 15),
    ("n off, sigma", 15),
    ("figure of merit", 16),
    ("in 68 %", 10),
    ("in 95 %", 10),
)


def line(cells):
    padded = (f"{cell:>{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True))
    return " ".join(padded)


def row(name, side, maps, test, options):
    """Fit a flow, compare, and return the table's cells, the flow, and the seconds of the fit."""
    world = World(name, side)
    (x, y), (x_validate, y_validate) = world.draw(maps, 1), world.draw(max(maps // 5, 20), 2)
    start = time.perf_counter()
    known = {"box_size": side, "symmetry": world.symmetry, "verbose": False}
    flow = pyflow.SymmetricFlow(x, x_validate, y, y_validate, names=["A", "n"], **known | options)
    seconds = time.perf_counter() - start
    x, y = world.draw(test, 3)
    exact = world.logp(x, y)
    lost = exact - flow.evaluate_density(x, y)
    gain = exact.mean() - world.white(y).mean()
    *shifts, merit, mine, true = compare(world, flow, x, y)
    cells = [
        name,
        " x ".join(map(str, world.mesh)) if len(world.mesh) == 2 else f"{side}^3",
        str(maps),
        f"{lost.mean():.2f}, {100 * lost.mean() / gain:.3f} %",
        *(f"{s.mean():+.3f}, {np.sqrt((s**2).mean()):.3f}" for s in shifts),
        f"{merit.mean():.3f} +- {merit.std():.3f}",
        *(f"{np.mean(mine < mass):.0%} ({np.mean(true < mass):.0%})" for mass in (0.68, 0.95)),
    ]
    return cells, flow, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small fields, few epochs")
    parser.add_argument("--side", type=int, help="pixels along a side; default 128, in 3-D 64")
    parser.add_argument("--maps", type=int, help="fields to train with; default 1000, in 3-D 200")
    parser.add_argument("--test", type=int, help="fields to test with; default 100, in 3-D 30")
    parser.add_argument("--threads", type=int, help="processor cores to use")
    parser.add_argument("--defaults", action="store_true", help="SymmetricFlow's own settings")
    for name in ("n-layers", "psi-knots", "filter-knots", "epochs", "batch"):
        parser.add_argument(f"--{name}", type=int, help="of SymmetricFlow")
    for name in ("learning-rate", "weight-decay"):
        parser.add_argument(f"--{name}", type=float, help="of SymmetricFlow")
    parser.add_argument("--hidden", type=int, nargs="+", help="of SymmetricFlow")
    given = vars(parser.parse_args())
    for name in given["rows"]:
        if name not in ROWS:
            parser.error(f"ROW: {name} is none of {', '.join(ROWS)}")
    pyflow.set_num_threads(given["threads"])
    sizes = {2: (128, 1000, 100), 3: (64, 200, 30)}
    flow_options = {} if given["defaults"] else dict(SETTINGS)
    if given["quick"]:
        sizes = {2: (32, 300, 10), 3: (12, 200, 10)}
        flow_options["epochs"] = 30
    known = set(SETTINGS) | {"batch", "weight_decay", "epochs"}
    flow_options |= {name: given[name] for name in known if given[name] is not None}
    said = [f"{name}={value}" for name, value in sorted(flow_options.items())]
    if not given["defaults"] and given["batch"] is None:
        said.append(f"batch={BATCH[2]} in 2-D, {BATCH[3]} in 3-D")
    print(f"SymmetricFlow({', '.join(said)})\n\n{line([title for title, _ in COLUMNS])}")
    for name in given["rows"] or ROWS:
        side, maps, test = (
            given[key] or size
            for key, size in zip(("side", "maps", "test"), sizes[ROWS[name][3]], strict=True)
        )
        batch = {} if given["defaults"] else {"batch": BATCH[ROWS[name][3]]}
        cells, flow, seconds = row(name, side, maps, test, batch | flow_options)
        print(f"{line(cells)}   ({flow.n_parameters} parameters, {seconds:.0f} s)", flush=True)
    print(
        "\nlog p lost: in nats, and in per cent of the entropy difference to white noise.\n"
        "off: of the posterior's mean, in the exact one's sigma: mean and rms over test fields.\n"
        "figure of merit: ratio to the exact posterior's, mean and scatter over the test fields.\n"
        "in 68 %, 95 %: truths inside these regions (inside the exact posterior's)."
    )


if __name__ == "__main__":
    main()
