"""Cosmological parameters from N-body maps: a symmetric flow against the power spectrum.

    python examples/nbody_posterior.py                       # a small set of maps, made now
    python examples/nbody_posterior.py --data DIR            # the full set: ten minutes
    python examples/nbody_posterior.py --flow FILE --figures # a flow trained before; with pictures
    python examples/nbody_posterior.py --noise 0.5           # all maps with white noise
    python examples/nbody_posterior.py --quick               # small lognormal maps, half a minute

The experiment of Dai & Seljak 2022 (arXiv 2202.05282) on 128 x 128 maps of the matter in a box of
512 Mpc/h, four for each of 300 pairs of omega_m and sigma_8, which nbody_maps.py --full makes in
hours. They are read from --data, or from the folder that $PYFLOW_NBODY_MAPS names; without either,
nbody_maps.py makes a small set of 60 simulations in about a minute, which shows how it is done: too
few for good posteriors. A flow p(map|parameters) is trained on simulations 0 to 219 (the first 11
of 15); those up to 249 (the next tenth) stop the training and give the temperature of its
posteriors; the others are what the results are of, or those of test.npz if the folder of maps has
one. (Settings were compared on 220 to 299: test.npz is the blind test.) Beside it stands the
posterior given the power spectrum, learned from the same maps.

Prints log p per pixel of validation and test maps; and for both posteriors, as they are and
calibrated: how many truths the 68 % and 95 % regions hold, how far ranks of the truth are from
uniform (the largest difference of cumulative distributions, for the credibility of the truth and
for distances from random points, TARP), mean log p(truth|map), the median figure of merit (one over
the 68 % area), and mean and rms errors of posterior means; then the same for 40 maps of the
fiducial cosmology. Standard errors treat a simulation's four maps as one. Writes flow, results and
pictures to a folder, where per-map results are found again by the next run with the same flow and
maps.
"""

import argparse
import io
import json
import os
import sys
import time
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

import pyflow
from pyflow import fields

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "output"
SMALL_MAPS = OUTPUT / "nbody_maps"

# Everything to be tuned. `training` goes to pyflow.SymmetricFlow as it is. With a network smaller
# than the default log p is higher here and posteriors are better: 220 simulations fill the plane of
# the parameters sparsely. objective="posterior" would be fine-tuning on log p(y|x).
SETTINGS = {
    "training": {"hidden": (64, 64), "couplings": 4},
    "bins": (5, 15),  # of k: as wide as the lowest frequency, then evenly in log k
    "samples": 10_000,  # of the flow, for their statistics
}
SMALL = {"training": {"hidden": (16, 16)}, "bins": (4, 8), "samples": 1000}  # for the small set
QUICK = {
    "training": {
        "n_layers": 2,
        "psi_knots": 6,
        "filter_knots": 16,
        "hidden": (64, 64),
        "epochs": 12,
        "objective": 0.5,
        "posterior_epochs": 2,
        "posterior_draws": 15,
        "seed": 0,
    },
    "bins": (3, 7),
    "samples": 500,
}


# ---- maps ----------------------------------------------------------------------------------------


class Maps(NamedTuple):
    x: np.ndarray  # (n, side, side) float32: overdensity
    y: np.ndarray  # (n, 2): parameters
    sim: np.ndarray  # (n,): simulation that a map is from


class Data(NamedTuple):
    train: Maps
    validate: Maps
    test: Maps
    fiducial: Maps
    names: tuple
    prior: np.ndarray  # (2, 2): lower and upper bounds
    box_size: float
    unit: str  # of the box
    noise: float = 0.0  # standard deviation; in all maps but train.x


def split(maps, ends, fiducial, **about):
    """Return data split by simulation: up to ends[0], up to ends[1], and beyond."""
    part = np.searchsorted(ends, maps.sim, side="right")
    return Data(*(Maps(*(a[part == i] for a in maps)) for i in range(3)), fiducial, **about)


def find_maps(folder=None):
    """Return the folder of the N-body maps: this, $PYFLOW_NBODY_MAPS, or one of a small set."""
    folder = Path(folder or os.environ.get("PYFLOW_NBODY_MAPS") or SMALL_MAPS)
    if (folder / "train.npz").exists():
        return folder
    if folder != SMALL_MAPS:
        raise FileNotFoundError(f"the N-body maps, train.npz and fiducial.npz, are not in {folder}")
    import nbody_maps

    print(f"making a small set of maps in {folder}: about a minute", flush=True)
    nbody_maps.make(folder)
    return folder


def load(folder):
    """Return the N-body maps. Simulations of test.npz, if it is there, replace the last sixth."""

    def read(name):
        with np.load(folder / name) as file:
            x = file["maps"].astype(np.float32)
            y = file["params"] if "params" in file.files else np.tile([0.3, 0.8], (len(x), 1))
            return Maps(x, y.astype(float), file["sim"])

    maps = read("train.npz")
    sims = np.unique(maps.sim)
    ends = [sims[round(len(sims) * part)] for part in (11 / 15, 5 / 6)]  # of 300: 220 and 250
    data = split(
        maps,
        ends,
        read("fiducial.npz"),
        names=("omega_m", "sigma_8"),
        prior=np.array([[0.2, 0.5], [0.5, 1.1]]),  # what the simulations were drawn from
        box_size=512.0,
        unit="Mpc/h",
    )
    return data._replace(test=read("test.npz")) if (folder / "test.npz").exists() else data


def settings_for(data):
    """Return SETTINGS, or SMALL for few simulations, which do not reach the edges of the prior."""
    if len(np.unique(data.train.sim)) >= 100:
        return SETTINGS
    warnings.filterwarnings("ignore", ".* lies outside of the training range", UserWarning)
    return SMALL


def simulate():
    """Return small lognormal maps: amplitude and steepness of their spectrum for a cosmology."""
    prior = np.array([[0.5, 2.0], [0.7, 1.2]])

    def draw(y, seed):
        def power(k):
            amplitude, steepness = y.T[:, :, None, None]
            return amplitude * (1 + (2 * k) ** 2) ** -steepness

        x = fields.lognormal_field(power, (32, 32), box_size=32.0, seed=seed)
        return Maps(x.astype(np.float32), y, np.arange(len(y)) // 4)

    y = np.random.default_rng(1).uniform(*prior.T, size=(150, 2)).repeat(4, axis=0)
    return split(
        draw(y, 2),
        (120, 135),
        draw(np.tile([1.0, 1.0], (8, 1)), 3),
        names=("amplitude", "steepness"),
        prior=prior,
        box_size=32.0,
        unit="",
    )


def noisy(x, sigma, seed):
    noise = np.random.default_rng(seed).standard_normal(x.shape, dtype=np.float32)
    return x + np.float32(sigma) * noise


def with_noise(data, sigma):
    """Return data with white noise in all maps but train.x: the flow adds its own to those."""
    parts = {
        name: getattr(data, name)._replace(x=noisy(getattr(data, name).x, sigma, seed))
        for seed, name in enumerate(("validate", "test", "fiducial"))
    }
    return data._replace(noise=sigma, **parts)


# ---- the flow ------------------------------------------------------------------------------------


def train(clean, noise, settings, verbose):
    """Return the flow, not yet calibrated."""
    return pyflow.SymmetricFlow(
        clean.train.x,
        clean.validate.x,
        clean.train.y,
        clean.validate.y,
        box_size=clean.box_size,
        names=clean.names,
        noise=noise,
        verbose=verbose,
        **settings["training"],
    )


# ---- the power spectrum --------------------------------------------------------------------------


class SpectrumLikelihood:
    """p(s|y) of s = log P(k) in bins, a Gaussian whose mean and covariance depend on y.

    The mean is a polynomial in log y. The covariance is known bin by bin, given the bins below it
    (the modified Cholesky decomposition): r = s - mean(y) has
        r_j = sum_(i<j) a_ij(y) r_i + e_j,    var e_j = exp v_j(y),
    with polynomials a_ij and v_j.
    """

    def __init__(self, data, bins):
        self.prior, self.box_size = data.prior, data.box_size
        low, side = 2 * np.pi / data.box_size, data.train.x.shape[1]
        even = np.arange(0.5, bins[0] + 1)
        top = side / np.sqrt(2) + 0.01  # the corner of the mesh: all modes but the mean
        self.edges = low * np.append(even, np.geomspace(even[-1], top, bins[1] + 1)[1:])

    def spectra(self, x):
        """log P of maps, (n, bins)."""
        return np.log(fields.power_spectrum(x, self.box_size, self.edges)[1])

    def terms(self, y, degree):
        """All products of powers of log y up to a degree, (n, terms)."""
        low, high = np.log(self.prior.T)
        u, v = (2 * (np.log(y) - low) / (high - low) - 1).T
        return np.stack(
            [u**i * v**j for i in range(degree + 1) for j in range(degree + 1 - i)], axis=1
        )

    def fit(self, s, y, degrees):
        """Fit polynomials of these degrees: of the mean, of a, of v."""
        self.degrees = degrees
        mean, a, v = (self.terms(y, degree) for degree in degrees)
        self.mean = np.linalg.lstsq(mean, s, rcond=None)[0]
        r = s - mean @ self.mean
        bins = s.shape[1]
        self.a, self.v = np.zeros((a.shape[1], bins, bins)), np.zeros((v.shape[1], bins))
        for j in range(bins):
            below = (a[:, :, None] * r[:, None, :j]).reshape(len(r), -1)
            weight = np.ones((len(r), 1))
            for _ in range(3):  # least squares with the variance, and the variance
                fit = np.linalg.lstsq(below * weight, r[:, j] * weight[:, 0], rcond=None)[0]
                square = (r[:, j] - below @ fit) ** 2
                even = np.full(len(r), np.log(square.mean()))
                self.v[:, j] = np.linalg.lstsq(v, even, rcond=None)[0]
                for _ in range(20):  # maximum likelihood
                    ratio = square * np.exp(-v @ self.v[:, j])
                    self.v[:, j] += np.linalg.lstsq(v, ratio - 1, rcond=None)[0]
                weight = np.exp(-0.5 * v @ self.v[:, j])[:, None]
            self.a[:, j, :j] = fit.reshape(a.shape[1], j)
        return self

    def at(self, y):
        """Mean, a and v at points y."""
        mean, a, v = (self.terms(y, degree) for degree in self.degrees)
        return mean @ self.mean, np.einsum("na,aij->nij", a, self.a), v @ self.v

    def to_bytes(self):
        return b"".join(a.tobytes() for a in (self.edges, self.mean, self.a, self.v))

    def logp(self, s, at):
        """log p(s|y) of spectra (n, bins) or (bins,), at (n,) points."""
        mean, a, v = at
        r = s - mean
        e = r - np.einsum("nij,nj->ni", a, r)
        return -0.5 * (e**2 * np.exp(-v) + v + np.log(2 * np.pi)).sum(axis=1)


def train_spectrum(data, bins):
    """Return the likelihood of power spectra whose degrees suit the validation maps best."""
    likelihood = SpectrumLikelihood(data, bins)
    s = likelihood.spectra(noisy(data.train.x, data.noise, 3) if data.noise else data.train.x)
    held_out = likelihood.spectra(data.validate.x)
    scores = {}
    for degrees in [(m, a, v) for m in (1, 2, 3) for a in (0, 1) for v in (0, 1, 2)]:
        likelihood.fit(s, data.train.y, degrees)
        logp = likelihood.logp(held_out, likelihood.at(data.validate.y))
        scores[degrees] = logp.mean()
    return likelihood.fit(s, data.train.y, max(scores, key=scores.get))


def temperature(likelihood, maps, nodes=81):
    """The power of the likelihood at which mean log p(y|x) of these maps is highest."""
    axes = [np.linspace(*bounds, nodes) for bounds in likelihood.prior]
    at = likelihood.at(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2))
    s = likelihood.spectra(maps.x)
    truth = likelihood.logp(s, likelihood.at(maps.y))
    logs = np.stack([likelihood.logp(row, at) for row in s])
    top = logs.max(axis=1, keepdims=True)

    def score(b):
        evidence = b * top[:, 0] + np.log(np.exp(b * (logs - top)).mean(axis=1))
        return (b * truth - evidence).mean()

    low, high = 0.01, 10.0
    while high / low > 1.001:  # it is concave in b
        third = (high / low) ** (1 / 3)
        if score(low * third) < score(high / third):
            low *= third
        else:
            high /= third
    return float(np.sqrt(low * high))


# ---- posteriors ----------------------------------------------------------------------------------


def summarise(posterior_of, maps, prior, seed=0):
    """Return what posteriors say about every map: a dict of arrays, a row for each."""
    rng = np.random.default_rng(seed)
    width = prior[:, 1] - prior[:, 0]
    rows = {name: [] for name in ("mean", "merit", "credibility", "logp", "tarp")}
    for i, truth in enumerate(maps.y):
        post = posterior_of(i)
        rows["mean"].append(post.mean)
        rows["merit"].append(post.figure_of_merit(0.68))
        rows["credibility"].append(post.credibility(truth))
        rows["logp"].append(post.logp(truth))
        point = rng.uniform(*prior.T)
        away = np.linalg.norm((post.sample(1000, seed=i) - point) / width, axis=1)
        rows["tarp"].append(np.mean(away < np.linalg.norm((truth - point) / width)))
    return {name: np.array(values) for name, values in rows.items()}


def posteriors(flow, likelihood, maps, data, b):
    """Return functions of a map's number that give its posteriors, by name; b: temperatures."""
    s = likelihood.spectra(maps.x)

    def of_spectrum(i, power):
        return pyflow.Posterior(
            lambda y: power * likelihood.logp(s[i], likelihood.at(y)), data.prior, flow.names
        )

    return {
        "flow": lambda i: flow.posterior(maps.x[i], data.prior, temperature=1),
        "flow, calibrated": lambda i: flow.posterior(maps.x[i], data.prior),
        "spectrum": lambda i: of_spectrum(i, 1),
        "spectrum, calibrated": lambda i: of_spectrum(i, b["spectrum"]),
    }


def clustered(values, sim):
    """Mean, and its standard error if maps of a simulation are not independent."""
    means = np.array([values[sim == i].mean() for i in np.unique(sim)])
    return values.mean(), means.std(ddof=1) / np.sqrt(len(means))


def from_uniform(values):
    """The largest difference of cumulative distributions (Kolmogorov and Smirnov's distance)."""
    values, n = np.sort(values), len(values)
    return max(np.max(np.arange(1, n + 1) / n - values), np.max(values - np.arange(n) / n))


def statistics(result, maps):
    """Return what a row of the table says; pairs are a number and its standard error."""
    error = result["mean"] - maps.y
    return {
        "68 %": clustered(result["credibility"] <= 0.68, maps.sim),
        "95 %": clustered(result["credibility"] <= 0.95, maps.sim),
        "credibility": from_uniform(result["credibility"]),
        "TARP": from_uniform(result["tarp"]),
        "log p": clustered(result["logp"], maps.sim),
        "merit": float(np.median(result["merit"])),
        "mean error": error.mean(axis=0).tolist(),
        "rms error": np.sqrt((error**2).mean(axis=0)).tolist(),
    }


def table(rows, names, ranks):
    """Print rows of statistics; those of ranks mean little unless truths are from the prior."""
    heads = ["68 % region", "95 % region", *["cred.", "TARP"] * ranks, "log p(y|x)", "merit"]
    heads += [f"{name}: mean, rms" for name in names]
    widths = [max(len(head), 13) + 2 if " " in head else 7 for head in heads]
    print(f"  {'':20}" + "".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True)))
    for name, row in rows.items():
        cells = [f"{100 * row[m][0]:.1f} ± {100 * row[m][1]:.1f}" for m in ("68 %", "95 %")]
        cells += [f"{row[rank]:.3f}" for rank in ("credibility", "TARP") if ranks]
        cells += [f"{row['log p'][0]:.2f} ± {row['log p'][1]:.2f}", f"{row['merit']:.0f}"]
        errors = zip(row["mean error"], row["rms error"], strict=True)
        cells += [f"{mean:+.4f}, {rms:.4f}" for mean, rms in errors]
        print(f"  {name:20}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)))


# ---- pictures ------------------------------------------------------------------------------------


COLOURS = {"flow": "C0", "spectrum": "C1"}  # of pyflow.plots.style()


def pictures(flow, likelihood, data, b, results, n_samples):
    """Yield names and figures."""
    yield "samples", draw_samples(flow, data)
    fiducial = data.fiducial
    samples, _ = flow.sample(n_samples, fiducial.y[0], seed=2)  # 10,000 are 0.7 GB
    yield "pdf", pyflow.plots.field_pdf(fiducial.x, samples, label="overdensity")
    yield "power", pyflow.plots.power_spectra(fiducial.x, samples, data.box_size, unit=data.unit)
    del samples
    yield "latent", draw_latent(flow, data)
    of = posteriors(flow, likelihood, fiducial, data, b)
    pair = [of[f"{kind}, calibrated"](0) for kind in COLOURS]
    yield "posterior", pyflow.plots.posteriors(pair, list(COLOURS), fiducial.y[0], getdist=False)
    yield "fiducial", draw_fiducial(of, fiducial)
    yield "calibration", draw_calibration(results, data)


def write(figure, path):
    """Write a picture in few colours, which keeps maps small."""
    from PIL import Image  # matplotlib needs it

    with io.BytesIO() as buffer, pyflow.plots.style():
        figure.savefig(buffer, dpi=100)
        few = Image.open(buffer).convert("RGB").quantize(256, method=1, dither=0)
        few.save(path, optimize=True)


def draw_samples(flow, data):
    """Draw test maps of three cosmologies, and samples of one latent map at their parameters."""
    width = np.ptp(data.prior, axis=1)
    places = data.prior[:, 0] + width * [[0.2, 0.2], [0.33, 0.5], [0.8, 0.8]]
    rows = [np.abs((data.test.y - place) / width).sum(axis=1).argmin() for place in places]
    y = data.test.y[rows]
    samples = [flow.sample(1, at, seed=1)[0][0] for at in y]
    names = [pyflow.plots.parameter_label(name) for name in data.names]
    return pyflow.plots.maps(
        data.test.x[rows],
        np.stack(samples),
        transform=lambda x: np.log10(np.maximum(1 + x, 0.1)),
        limits=(-0.6, 0.9),
        titles=["\n".join(f"{n} = {v:.2f}" for n, v in zip(names, at, strict=True)) for at in y],
        label=r"$\log_{10}$(1 + overdensity)",
    )


def draw_latent(flow, data):
    """Draw a test map in the latent space, beside white noise."""
    z, _ = flow.forward(data.test.x[0], data.test.y[0])
    return pyflow.plots.latent_map(z, data.box_size, unit=data.unit)


def draw_map(axes, x, title, **options):
    """Draw a map without a frame."""
    axes.imshow(x, origin="lower", **options)
    axes.set(title=title, xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_regions(axes, posts, truth):
    """Draw the 68 % and 95 % regions of posteriors of two parameters, in C0, C1 and so on."""
    from matplotlib.figure import Figure

    panels = Figure().subplots(2, 2)  # the other three, of each parameter, are not shown
    panels[1, 0] = axes
    pyflow.plots.posteriors(posts, truth=truth, axes=panels, getdist=False)


def draw_coverage(axes, curves, n, sigmas=1):
    """Draw how many truths regions hold, and so many standard errors of n independent ones.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    curves : list of (credibilities, options)
        What `Posterior.credibility` says of truths, and options of `Axes.plot`.
    n : int
    sigmas : float
    """
    with pyflow.plots.style() as colours:
        mass = np.linspace(0, 1, 101)
        error = sigmas * np.sqrt(mass * (1 - mass) / n)
        label = "standard error" if sigmas == 1 else f"{sigmas} standard errors"
        axes.fill_between(
            mass, mass - error, mass + error, color=colours["band"], lw=0, label=label
        )
        axes.plot([0, 1], [0, 1], color=colours["ink"], lw=0.7, ls="--")
        for credibility, options in curves:
            axes.plot(mass, (credibility[:, None] <= mass).mean(axis=0), **options)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set(xlabel="mass of the region", ylabel="share of truths inside")


def draw_fiducial(of, maps, count=4):
    """Draw posteriors of fiducial maps, each of another simulation: 68 % and 95 % regions."""
    import matplotlib.pyplot as plt

    rows = np.unique(maps.sim, return_index=True)[1][:count]
    size = {"figsize": (2.2 * len(rows) + 0.6, 2.7), "layout": "constrained"}
    with pyflow.plots.style():
        figure, axes = plt.subplots(1, len(rows), sharex=True, sharey=True, squeeze=False, **size)
        limits = []
        for panel, i in zip(axes[0], rows, strict=True):
            posts = [of[f"{kind}, calibrated"](i) for kind in COLOURS]
            draw_regions(panel, posts, maps.y[i])
            limits.append([*panel.get_xlim(), *panel.get_ylim()])
            panel.label_outer()
        (x0, y0), (x1, y1) = np.min(limits, axis=0)[::2], np.max(limits, axis=0)[1::2]
        panel.set(xlim=(x0, x1), ylim=(y0, y1))  # of all
        lines = [axes[0, 0].plot([], [], color=colour)[0] for colour in COLOURS.values()]
        names = [f"{kind}: 68 and 95 %" for kind in COLOURS]
        figure.legend(lines, names, loc="outside upper center", ncols=len(lines))
    return figure


def draw_calibration(results, data):
    """Draw how many truths regions hold, against how many they should."""
    import matplotlib.pyplot as plt

    curves = []
    for name, result in results["test"].items():
        style = {"ls": "-" if "calibrated" in name else ":", "color": COLOURS[name.split(",")[0]]}
        curves.append((result["credibility"], {"label": name, **style}))
    with pyflow.plots.style():
        figure, axes = plt.subplots(figsize=(4.2, 3.9), layout="constrained")
        draw_coverage(axes, curves, len(np.unique(data.test.sim)))
        axes.legend()
    return figure


# ---- all of it -----------------------------------------------------------------------------------


def cached(path, key, compute):
    """Return compute(), a dict of arrays, or what it gave an earlier run with the same key."""
    if path.exists():
        with np.load(path) as file:
            if str(file["key"]) == key:
                return {name: file[name] for name in file.files if name != "key"}
    result = compute()
    np.savez_compressed(path, key=key, **result)
    return result


def evaluate(flow, likelihood, data, b, out):
    """Return what all posteriors say: {"test" or "fiducial": {posterior: arrays}}."""
    results = {"test": {}, "fiducial": {}}
    for part, found in results.items():
        maps = getattr(data, part)
        for name, posterior_of in posteriors(flow, likelihood, maps, data, b).items():
            of = flow if name.startswith("flow") else likelihood
            key = f"{zlib.crc32(of.to_bytes()):08x} {zlib.crc32(maps.x):08x} {b}"
            path = out / f"{part}_{name.replace(', ', '_')}.npz"
            found[name] = cached(
                path, key, lambda f=posterior_of, m=maps: summarise(f, m, data.prior)
            )
    return results


def log_densities(flow, data):
    """Print and return log p per pixel of validation and test maps, with standard errors."""
    result = {}
    for part in ("validate", "test"):
        maps = getattr(data, part)
        logp = flow.evaluate_density(maps.x, maps.y) / maps.x[0].size
        result[part] = clustered(logp, maps.sim)
        print(f"log p per pixel, {part:8} {result[part][0]:9.5f} ± {result[part][1]:.5f}")
    return result


def report(results, data):
    """Print and return the tables of test and fiducial maps."""
    tables = {}
    for part, found in results.items():
        maps = getattr(data, part)
        tables[part] = {name: statistics(arrays, maps) for name, arrays in found.items()}
        print(f"{len(maps.x)} {part} maps of {len(np.unique(maps.sim))} simulations")
        table(tables[part], data.names, ranks=part == "test")
    return tables


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small maps made here, few epochs")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="train.npz, fiducial.npz[, test.npz]"
    )
    parser.add_argument("--flow", type=Path, metavar="FILE", help="a flow trained before")
    parser.add_argument("--noise", type=float, default=0.0, metavar="SIGMA", help="white noise")
    parser.add_argument("--figures", action="store_true", help="draw pictures too")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results are written")
    arguments = parser.parse_args()
    quick, noise = arguments.quick, arguments.noise
    if quick:
        clean, settings = simulate(), QUICK
    else:
        try:
            clean = load(find_maps(arguments.data))
        except FileNotFoundError as error:
            parser.error(str(error))
        settings = settings_for(clean)
    data = with_noise(clean, noise) if noise else clean
    small = "_quick" * quick or "_small" * (settings is SMALL)
    name = "nbody" + small + (f"_noise{noise:g}" if noise else "")
    out = arguments.out or OUTPUT / name
    out.mkdir(parents=True, exist_ok=True)

    start = time.perf_counter()
    if arguments.flow:
        flow = pyflow.load(arguments.flow)
    else:
        flow = train(clean, noise, settings, sys.stderr.isatty())
        print(f"trained in {time.perf_counter() - start:.0f} s")
    flow = flow.calibrate(clean.validate.x, clean.validate.y)  # with noise of its own
    flow.save(out / "flow.pyflow")
    print(flow)
    logp = log_densities(flow, data)
    likelihood = train_spectrum(data, settings["bins"])
    b = {"flow": flow.temperature, "spectrum": temperature(likelihood, data.validate)}
    print(f"power spectrum: degrees of mean, coefficients, variances {likelihood.degrees}")
    print(f"temperatures: flow {b['flow']:.3f}, power spectrum {b['spectrum']:.3f}\n")

    start = time.perf_counter()
    results = evaluate(flow, likelihood, data, b, out)
    tables = report(results, data)
    print(f"posteriors in {time.perf_counter() - start:.0f} s")
    summary = {"noise": noise, "settings": settings, "log p per pixel": logp, "temperatures": b}
    (out / "results.json").write_text(json.dumps(summary | tables, indent=1) + "\n")
    print(f"wrote {out / 'results.json'}")

    if arguments.figures or quick:
        import matplotlib

        matplotlib.use("Agg")
        for name, figure in pictures(flow, likelihood, data, b, results, settings["samples"]):
            write(figure, out / f"{name}.png")
            print(f"wrote {out / name}.png")


if __name__ == "__main__":
    main()
