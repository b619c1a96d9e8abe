"""Maps with physics that the training lacked: which scores of a flow notice?

    python examples/unseen_physics.py             # a small set of maps, made now
    python examples/unseen_physics.py --data DIR  # the full set, as for nbody_posterior.py: minutes
    python examples/unseen_physics.py --quick     # small lognormal maps, seconds

A flow p(x|y) is trained on N-body maps on 64 x 64 pixels. Maps of simulations that no fit has seen
are scored as they are, and with one feature more:

smoothed    by a Gaussian of 0.2 pixels' standard deviation, 1.6 Mpc/h;
shot noise  of 400 particles in a pixel of mean density, 5 % of that: Poisson counts over 400, made
            continuous by uniform noise of one count;
baryons     less power on small scales, as feedback makes it, by 20 % at most: every mode times
            (1 - 0.2 s)^(1/2), s = k^2 / (k^2 + k0^2), k0 = 0.2 h/Mpc, on larger scales than in
            simulations (van Daalen et al. 2011), because these pixels see no smaller ones;
phases      of a Gaussian field, at random, with each map's own amplitudes of all modes.

The parameters of an observed map are not known: every map is scored at its posterior's mean, so
that what other parameters can explain is no surprise. The scores:

log p           log p(x|y), which depends on y more than on any feature.
log p, given y  the same less what held-out maps of such a y have, a quadratic in log y.
latent          log N(z; 0, I) of the latent map z.
by scale        chi^2 of z in bins of |k| (pyflow.fields.chi_squared), all together: minus the
                squared Mahalanobis distance of their deviations from those of held-out maps.
all             the same with 'log p, given y' as one bin more.

The quadratic, the means and the covariance are of the validation simulations; p-values are ranks
among one half of the test simulations (pyflow.metrics.p_values; two-sided but for the last two
scores), of maps of the other half. Prints for every feature and score the AUROC of p-values, maps
with the feature against those without, and the share of maps with p < 0.05, which without a feature
should be 5 %. Writes the table and a picture.
"""

import json

import nbody_posterior as nbody
import numpy as np
from observables import FULL, QUICK, SMALL, coarse, options_of, posterior

import pyflow
from pyflow import fields

N_BINS = 8


# ---- features ------------------------------------------------------------------------------------


def filtered(x, transfer):
    """Return maps with every mode multiplied by transfer(|k|), k in units of pixels^-1."""
    k, _ = fields.wavenumbers(x.shape[1:], x.shape[1:])
    return np.fft.irfftn(np.fft.rfftn(x, axes=(1, 2)) * transfer(k), x.shape[1:], (1, 2))


def smoothed(x, pixel, rng):
    return filtered(x, lambda k: np.exp(-0.5 * (0.2 * k) ** 2))


def shot_noise(x, pixel, rng, count=400):
    mean = count * np.maximum(1 + x, 0)
    return (rng.poisson(mean) + rng.random(x.shape) - 0.5) / count - 1


def baryons(x, pixel, rng, strength=0.2, k0=0.2):
    def transfer(k):
        square = (k / pixel) ** 2
        return np.sqrt(1 - strength * square / (square + k0**2))

    return filtered(x, transfer)


def phases(x, pixel, rng):
    """Return maps whose modes have random phases, and the amplitudes that they had."""
    modes, noise = (np.fft.rfftn(a, axes=(1, 2)) for a in (x, rng.normal(size=x.shape)))
    noise[:, 0, 0] = modes[:, 0, 0]  # means stay
    return np.fft.irfftn(np.abs(modes) * np.exp(1j * np.angle(noise)), x.shape[1:], (1, 2))


FEATURES = {
    "none": lambda x, pixel, rng: x,
    "smoothed": smoothed,
    "shot noise": shot_noise,
    "baryons": baryons,
    "phases": phases,
}
TITLES = {name: name for name in FEATURES} | {"none": "as trained"}
SCORES = ("log p", "log p, given y", "latent", "by scale", "all")
TWO_SIDED = SCORES[:3]


# ---- scores --------------------------------------------------------------------------------------


class Judge:
    """Scores of maps whose parameters are not known; what they are expected to be is of `maps`."""

    def __init__(self, flow, maps, prior):
        self.flow, self.prior = flow, prior
        k, _ = fields.wavenumbers(flow.shape, flow.box_size)
        self.bins = np.append(np.quantile(k, np.linspace(0, 1, N_BINS + 1)[:-1] ** 2), np.inf)
        seen = self.look(maps)
        self.fit = np.linalg.lstsq(self.terms(seen["y"]), seen["log p"], rcond=None)[0]
        summary = self.summary(seen)
        self.centre, self.cov = summary.mean(axis=0), np.cov(summary.T)

    def look(self, x):
        """Return what is seen of maps: y, log p there, and chi^2 of all modes in bins of |k|."""
        y = [posterior(self.flow, a, self.prior).mean for a in x]
        z, logj = self.flow.forward(x, y)
        k, chi2, modes = fields.chi_squared(z, self.flow.box_size, self.bins)
        latent = -0.5 * (chi2 + modes * np.log(2 * np.pi)).sum(axis=1)
        return {
            "y": np.array(y),
            "log p": latent + logj,
            "latent": latent,
            "k": k,
            "deviation": (chi2 - modes) / np.sqrt(2 * modes),
        }

    def terms(self, y):
        """All products of powers of log y up to the second, (n, 6)."""
        low, high = np.log(self.prior.T)
        u, v = (2 * (np.log(y) - low) / (high - low) - 1).T
        return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)

    def summary(self, seen):
        """log p less what is expected given y, and the deviation of chi^2 in every bin."""
        return np.column_stack(
            [seen["log p"] - self.terms(seen["y"]) @ self.fit, seen["deviation"]]
        )

    def scores(self, seen):
        """Return an array of every score."""
        off = self.summary(seen) - self.centre
        square = [
            (a * np.linalg.solve(c, a.T).T).sum(axis=1)
            for a, c in ((off[:, 1:], self.cov[1:, 1:]), (off, self.cov))
        ]
        found = seen["log p"], off[:, 0], seen["latent"], -square[0], -square[1]
        return dict(zip(SCORES, found, strict=True))


# ---- all of it -----------------------------------------------------------------------------------


def halves(maps, count):
    """Return two maps of every simulation, `count` simulations at most: one half, and the other."""
    sims = np.unique(maps.sim)[:count]
    rows = np.concatenate([np.flatnonzero(maps.sim == s)[::2] for s in sims])
    even = np.isin(maps.sim[rows], sims[::2])
    return maps.x[rows[even]], maps.x[rows[~even]]


def judged(judge, reference, maps, pixel):
    """Return p-values by feature and score, and what is seen of maps, by feature."""
    rng = np.random.default_rng(5)
    held_out, p, seen = judge.scores(judge.look(reference)), {}, {}
    for feature, change in FEATURES.items():
        x = change(maps, pixel, rng).astype(np.float32)
        seen[feature] = judge.look(x)
        p[feature] = {
            name: pyflow.metrics.p_values(s, held_out[name], two_sided=name in TWO_SIDED)
            for name, s in judge.scores(seen[feature]).items()
        }
    return p, seen


def table(p):
    """Print and return, by feature and score, AUROC and the share of p-values below 0.05."""
    print(f"  {'':12}" + "".join(f"{name:>20}" for name in SCORES))
    rows = {}
    for feature, of in p.items():
        rows[feature] = {
            name: (pyflow.metrics.auroc(p["none"][name], of[name]), float(np.mean(of[name] < 0.05)))
            for name in SCORES
        }
        cells = [f"{auroc:.3f} ({low:.0%})" for auroc, low in rows[feature].values()]
        print(f"  {feature:12}" + "".join(f"{cell:>20}" for cell in cells))
    return rows


def draw(maps, pixel, p, seen, unit):
    """Draw one map with each feature, the deviations of chi^2, and p-values."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator

    with pyflow.plots.style() as colours:
        shades = dict(zip(FEATURES, (colours["data"], "C0", "C1", "C2", "C3"), strict=True))
        figure = Figure(figsize=(9.6, 5.4), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08)
        above, below = figure.subfigures(2, 1, height_ratios=(1, 1.5))
        lo, hi = np.quantile(maps[0], [0.005, 0.995])
        panels = above.subplots(1, len(FEATURES))
        for panel, (name, change) in zip(panels, FEATURES.items(), strict=True):
            x = change(maps[:1], pixel, np.random.default_rng(5))[0]
            nbody.draw_map(panel, x, TITLES[name], vmin=lo, vmax=hi)
        scale, ranks = below.subplots(1, 2)
        for name, shade in shades.items():
            k, deviation = seen[name]["k"], seen[name]["deviation"]
            low, middle, high = np.quantile(deviation, [0.16, 0.5, 0.84], axis=0)
            if name == "none":
                scale.fill_between(k, low, high, color=colours["band"], lw=0)
            scale.plot(k, middle, color=shade, marker="o", ms=3, label=TITLES[name])
            values = np.sort(p[name]["all"])
            share = np.arange(1, len(values) + 1) / len(values)
            ranks.step(values, share, color=shade, where="post")
        line = {"color": colours["ink"], "lw": 0.7, "ls": "--"}
        scale.axhline(0, **line)
        scale.set(xscale="log", xlabel="$k$  [$h$/Mpc]" if unit else "$k$")
        scale.set_yscale("symlog", linthresh=3)
        scale.yaxis.set_major_locator(FixedLocator([-30, -10, -3, -1, 0, 1, 3, 10, 30, 100]))
        for axis in (scale.xaxis, scale.yaxis):
            axis.set_major_formatter("{x:g}")
        scale.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:.0e}"[0] in "235" else "")
        scale.margins(y=0.1)
        scale.set(ylabel=r"$(\chi^2 - N) / \sqrt{2N}$,  $N$ modes", title="latent maps: medians")
        handles = scale.get_legend_handles_labels()
        below.legend(*handles, loc="outside lower center", ncols=len(FEATURES))
        ranks.plot([0, 1], [0, 1], **line)
        ranks.set(xlabel="p-value by log p, given y, and by scale", ylabel="share of maps below")
        ranks.set(xlim=(0, 1), ylim=(0, 1.02), title="p-values")
    return figure


def main():
    parser = options_of(__doc__.splitlines()[0])
    arguments = parser.parse_args()
    pyflow.set_num_threads(arguments.threads)
    if arguments.quick:
        data, options = nbody.simulate(), QUICK | {"epochs": 12}
    else:
        try:
            data = nbody.load(nbody.find_maps(arguments.data))
        except FileNotFoundError as error:
            parser.error(str(error))
        options = FULL if nbody.settings_for(data) is nbody.SETTINGS else SMALL
    train, validate, test = (coarse(m) for m in (data.train, data.validate, data.test))
    out = arguments.out or nbody.OUTPUT / ("unseen_physics" + "_quick" * arguments.quick)
    out.mkdir(parents=True, exist_ok=True)

    options = options | {"names": data.names, "box_size": data.box_size, "verbose": False}
    flow = pyflow.SymmetricFlow(train.x, validate.x, train.y, validate.y, **options)
    print(flow)
    judge = Judge(flow, validate.x[::2], data.prior)
    reference, maps = halves(test, arguments.test)
    pixel = data.box_size / maps.shape[1]
    p, seen = judged(judge, reference, maps, pixel)
    print(f"AUROC, and share of p < 0.05: {len(maps)} maps each; ranks among {len(reference)}")
    rows = table(p)
    (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")

    nbody.write(draw(maps, pixel, p, seen, data.unit), out / "unseen_physics.png")
    print(f"wrote {out / 'results.json'} and {out / 'unseen_physics.png'}")


if __name__ == "__main__":
    main()
