"""Posteriors of weak-lensing maps: a flow beside Hamiltonian Monte Carlo, which is the truth.

    python bench/bench_lensing.py                          # 64 x 64; hours
    python bench/bench_lensing.py --quick                  # 16 x 16: to see that it works
    python bench/bench_lensing.py --maps 1000 --settings default decay=0.1
    python bench/bench_lensing.py --published ../shared/data/lensing/reference.npz

The maps are those of examples/lensing.py. For some of them lensing_worker.py samples the posterior
of the parameters and of every Gaussian mode of the field, with numpyro, in an environment of its
own, build/lensing/venv, in which the simulator is written in jax: it is checked that its maps are
the same. Chains and flows are kept in build/lensing, and made once.

Flows are fitted to so many maps each (nine tenths of them train, a tenth stops the training), in
one thread. The table has, of --test fresh maps, drawn from the prior: log p(x|y) and log p(y|x) in
nats a map, and how many truths the 68 % and 95 % regions hold, with standard errors; of the maps
that have chains: how far the flow's mean is from the chain's, in the chain's standard deviations
(root mean square over maps and parameters), and the geometric means over maps of the ratios of
standard deviations and of areas (the root of the determinant of the covariance).

--published makes a chain for the map of the simulator that ours follows, beside its authors' own:
they agree if the simulators do.
"""

import argparse
import os
import subprocess
import sys
import time
import venv
import warnings
from pathlib import Path

import numpy as np
from data import REPOSITORY

import pyflow
from pyflow import checks

sys.path.insert(0, str(REPOSITORY / "examples"))
import lensing

FOLDER = REPOSITORY / "build" / "lensing"
PYTHON = FOLDER / "venv" / "bin" / "python"
REQUIREMENTS = ["numpyro==0.22.0", "jax[cpu]==0.10.2", "numpy>=2", "scipy>=1.12"]
SETTINGS = {
    "default": {},
    "64,64 decay=1": {"hidden": (64, 64), "weight_decay": 1.0},
    "decay=0.1": {"weight_decay": 0.1},
    "decay=1": {"weight_decay": 1.0},
    "decay=10": {"weight_decay": 10.0},
    "fresh noise": {"noise": True},  # the level that is known, added to clean maps every epoch
}
HEADS = {
    "maps": 6,
    "settings": 14,
    "log p(x|y)": 11,
    "log p(y|x)": 13,
    "68 %": 11,
    "95 %": 11,
    "off": 5,
    "std: omega_c, sigma_8": 21,
    "area": 5,
    "fit": 6,
}


# ---- the truth -----------------------------------------------------------------------------------


def install():
    """Make build/lensing/venv, once."""
    done, wanted = FOLDER / "requirements.txt", "\n".join(REQUIREMENTS) + "\n"
    if done.exists() and done.read_text() == wanted:
        return
    print(f"installing {', '.join(REQUIREMENTS)} in {FOLDER}", flush=True)
    venv.create(PYTHON.parent.parent, with_pip=True, clear=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    done.write_text(wanted)


def chains(name, observed, warmup, samples):
    """Return draws (n, chains * samples, 2) of the posteriors of maps, made now or before."""
    given, out = FOLDER / f"observed_{name}.npz", FOLDER / f"chains_{name}.npz"
    want = {"observed": observed, "warmup": warmup, "samples": samples}
    if not kept(given, out, want):
        FOLDER.mkdir(parents=True, exist_ok=True)
        install()
        np.savez(given, **want)
        out.unlink(missing_ok=True)
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "examples")])
        one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        worker = Path(__file__).resolve().parent / "lensing_worker.py"
        subprocess.run(
            [PYTHON, worker, given, out],
            env=os.environ | {"PYTHONPATH": path, "XLA_FLAGS": one},
            check=True,
        )
    with np.load(out) as file:
        found = {
            key: file[key][: len(observed)] for key in ("y", "r_hat", "diverging", "effective")
        }
    print(
        f"{len(observed)} chains: R-hat {found['r_hat'].max():.3f} at most, effective draws "
        f"{found['effective'].min():.0f} at least, diverging {found['diverging'].mean():.1%}"
    )
    return found["y"].reshape(len(observed), -1, 2)


def kept(given, out, want):
    """Tell whether there are chains of these maps, of others after them too."""
    if not (given.exists() and out.exists()):
        return False
    n = len(want["observed"])
    with np.load(given) as file, np.load(out) as done:
        same = len(done["y"]) >= n and np.array_equal(file["observed"][:n], want["observed"])
        return same and all(int(file[key]) == want[key] for key in ("warmup", "samples"))


def published(path):
    """Print moments of the chain of sbi_lens and of one for the same map made here."""
    chain = lensing.reference(path, 128)
    if chain is None:
        return
    mine = chains("reference", chain.observed[None], 300, 500)[0]
    for name, y in {"published": chain.y, "here": mine}.items():
        cells = [f"{a:.4f} +- {b:.4f}" for a, b in zip(y.mean(axis=0), y.std(axis=0), strict=True)]
        correlation, area = np.corrcoef(y.T)[0, 1], np.sqrt(np.linalg.det(np.cov(y.T)))
        print(f"{name:10} {', '.join(cells)}, correlation {correlation:.3f}, area {area:.3g}")


# ---- the flow ------------------------------------------------------------------------------------


def fit(side, maps, name, **options):
    """Return a flow of so many maps, and the seconds of processor time that it took.

    It is kept, and found again.
    """
    options |= SETTINGS[name]
    said = "_".join(f"{k}={v}" for k, v in options.items()).replace(" ", "")
    path = FOLDER / f"flow_{side}_{maps}_{said}.pyflow"
    if path.exists():
        return pyflow.load(path), float(path.with_suffix(".txt").read_text())
    x, y = lensing.simulate(maps, side, 1)
    end = maps - maps // 10
    if options.pop("noise", False):
        options["noise"] = lensing.noise_level(side)
        x[:end] = lensing.simulate(maps, side, 1, noise=False)[0][:end]
    known = {"box_size": lensing.DEGREES, "names": lensing.NAMES, "verbose": False}
    start = time.process_time()
    flow = pyflow.SymmetricFlow(x[:end], x[end:], y[:end], y[end:], **known, **options)
    seconds = time.process_time() - start
    FOLDER.mkdir(parents=True, exist_ok=True)
    flow.save(path)
    path.with_suffix(".txt").write_text(f"{seconds}\n")
    return flow, seconds


def posterior(flow, x):
    return flow.posterior(x, lensing.log_prior, grid=17)


def against(posteriors, draws):
    """Return offsets (n, 2) in standard deviations, and ratios: of those (n, 2), of areas (n,)."""
    offsets, widths, areas = [], [], []
    for post, y in zip(posteriors, draws, strict=True):
        cov = np.cov(y.T)
        sigma = np.sqrt(np.diag(cov))
        offsets.append((post.mean - y.mean(axis=0)) / sigma)
        widths.append(np.sqrt(np.diag(post.cov)) / sigma)
        areas.append(np.sqrt(np.linalg.det(post.cov) / np.linalg.det(cov)))
    return np.array(offsets), np.array(widths), np.array(areas)


def row(maps, name, flow, seconds, test, observed, draws):
    """Return the cells of the table."""
    x, y = test
    found = checks.coverage((posterior(flow, one) for one in x), y)
    logs = found.log_posterior[np.isfinite(found.log_posterior)]
    held = ["{:.0f} +- {:.0f} %".format(*(100 * v for v in found.held(m))) for m in (0.68, 0.95)]
    cells = [
        maps,
        name,
        f"{flow.evaluate_density(x, y).mean():.2f}",
        f"{logs.mean():.3f} +- {logs.std() / len(logs) ** 0.5:.3f}",
        *held,
    ]
    if not len(observed):
        return [*cells, "", "", "", f"{seconds:.0f} s"]
    offsets, widths, areas = against([posterior(flow, one) for one in observed], draws)
    cells += [
        f"{np.sqrt((offsets**2).mean()):.2f}",
        ", ".join(f"{v:.3f}" for v in np.exp(np.log(widths).mean(axis=0))),
        f"{np.exp(np.log(areas).mean()):.3f}",
        f"{seconds:.0f} s",
    ]
    return cells


def line(cells):
    return " | ".join(f"{c!s:>{w}}" for c, w in zip(cells, HEADS.values(), strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small and few: it works, no more")
    parser.add_argument("--side", type=int, default=64, help="pixels along a side")
    parser.add_argument("--maps", type=int, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--observed", type=int, default=9, help="maps with a chain; 0: none")
    parser.add_argument("--test", type=int, default=120, help="maps for coverage")
    parser.add_argument("--epochs", type=int, help="of SymmetricFlow")
    parser.add_argument("--seed", type=int, default=0, help="of SymmetricFlow")
    parser.add_argument("--published", type=Path, metavar="FILE", help="this chain alone")
    given = parser.parse_args()
    steps = 300, 600
    if given.quick:
        given.side, given.maps, given.observed, given.test = 16, [300], 2, 20
        given.epochs, steps = given.epochs or 10, (100, 100)
    pyflow.set_num_threads(1)
    # a normal prior has no edges: some parameters lie beyond all of the training's
    warnings.filterwarnings("ignore", ".* outside of the (training range|prior)", UserWarning)
    if given.published:
        published(given.published)
        return
    observed, _ = lensing.simulate(given.observed, given.side, 1000)
    draws = chains(given.side, observed, *steps) if given.observed else []
    test = lensing.simulate(given.test, given.side, 2000)
    options = {"seed": given.seed} | ({"epochs": given.epochs} if given.epochs else {})
    print(line(HEADS), flush=True)
    for maps in given.maps:
        for name in given.settings:
            flow, seconds = fit(given.side, maps, name, **options)
            cells = row(maps, name, flow, seconds, test, observed, draws)
            print(line(cells), flush=True)


if __name__ == "__main__":
    main()
