"""Posteriors of simulators from few simulations, on public tasks, beside what others scored there.

    python bench/bench_sbi.py [--quick] [--simulations 1000] [--observations 3] [--samples 10000]

C2ST is how well a classifier tells a method's samples from those of the exact posterior: 0.5 is
not at all, 1 always; `sbi_tasks.py` has the tasks and says how it is defined. Methods get
simulations of theta from the prior, one set a seed, a tenth of them for validation, and default
settings, on one thread:

- npe: GIS(theta, condition=x), sampled at x_obs.
- nle: GIS(x, condition=theta), whose likelihood times the prior is sampled by `anneal`.
- joint: GIS of rows (theta, x), p(theta, x_obs) sampled likewise.
- gaussian: what a Gaussian with the simulations' moments says, cut off at the prior's box.
- npe5, nle5, joint5: mixtures of five fits.
- exact: the posterior itself; what C2ST finds here is chance.

"NPE", "NLE" and others in capitals are published means over the same observations, at 10,000
samples. Fewer samples train the classifier worse, which finds less: compare like with like.
Writes results/sbi.{json,md} after every task, and keeps there what earlier runs found in other
settings, tasks and methods.
"""

import argparse
import inspect
import json
import time
import warnings
from functools import partial

import numpy as np
from measure import RESULTS, duration, markdown, write
from sbi_tasks import PUBLISHED, TASKS, accepted, c2st

import pyflow

ANCHORS = "REJ-ABC", "NPE", "NLE", "NRE", "SNPE", "SNLE", "SNRE"
SIMULATE, DRAW, REFERENCE = range(3)  # what random numbers are for: none serve twice


def stream(what, seed):
    """Return a generator of its own for each use: equal noise would make two sets alike."""
    return np.random.default_rng([what, seed])


def split(*arrays):
    """Return the arrays' training rows, and those for validation, the last tenth."""
    cut = len(arrays[0]) - len(arrays[0]) // 10
    return [a[:cut] for a in arrays], [a[cut:] for a in arrays]


def anneal(excess, task, rng, n, rest=10, end=30):
    """Draw n samples of prior * exp(excess), by annealed sequential Monte Carlo.

    Particles start from the prior. The power of exp(excess) rises from 0 to 1 in steps that leave
    half of the particles effective; after each they are drawn anew, by weight, and moved `rest`
    times (the last time `end` times) by differential evolution: half of them by the difference of
    two of the other half, in full, to the next mode, every tenth time (ter Braak 2006).

    Parameters
    ----------
    excess : callable, (n, d) -> (n,)
        The target's log-density less the prior's, up to a constant; asked inside the prior alone.
    """
    theta, power = task.prior(rng, n), 0.0
    of = excess(theta)
    while power < 1:
        power, weights = next_power(of, power)
        places = (rng.uniform() + np.arange(n)) / n
        chosen = np.searchsorted(np.cumsum(weights), places * weights.sum(), side="right")
        chosen = np.minimum(chosen, n - 1)
        theta, of = theta[chosen], of[chosen]
        for _ in range(end if power == 1 else rest):
            order = rng.permutation(n)
            for half, others in ((order[::2], order[1::2]), (order[1::2], order[::2])):
                theta[half], of[half] = moved(
                    excess, task, rng, theta[half], of[half], theta[others], power
                )
    return theta


def next_power(of, power):
    """Return the next power, where half of the particles are effective, and their weights."""

    def weights(to):
        w = np.exp((to - power) * (of - of.max()))
        return w, w.sum() ** 2 / (w**2).sum()

    low, high = power, 1.0
    if weights(1.0)[1] < 0.5 * len(of):
        for _ in range(40):
            middle = 0.5 * (low + high)
            if weights(middle)[1] < 0.5 * len(of):
                high = middle
            else:
                low = middle
    return high, weights(high)[0]


def moved(excess, task, rng, theta, of, others, power):
    """Return particles after a Metropolis step along differences of others, and their excess."""
    n, d = theta.shape
    first, second = others[rng.integers(0, len(others), (2, n))]
    full = rng.uniform(size=(n, 1)) < 0.1
    length = np.where(full, 1.0, 2.38 / np.sqrt(2 * d) * rng.uniform(0, 1.5, (n, 1)))
    jitter = 1e-3 * others.std(axis=0) * rng.normal(size=(n, d))
    new = theta + length * (first - second) + jitter
    prior, ratio = task.log_prior(new), np.full(n, -np.inf)
    inside = np.isfinite(prior)
    of_new = np.full(n, -np.inf)
    of_new[inside] = excess(new[inside])
    here = power * of + task.log_prior(theta)
    ratio[inside] = power * of_new[inside] + prior[inside] - here[inside]
    yes = np.log(rng.uniform(size=n)) < ratio
    return np.where(yes[:, None], new, theta), np.where(yes, of_new, of)


def npe(task, theta, x, seed, n_models=1):
    (theta, x), (theta_val, x_val) = split(theta, x)
    flow = pyflow.GIS(
        theta,
        theta_val,
        condition=x,
        condition_validate=x_val,
        bounds=task.bounds,
        n_models=n_models,
        seed=seed,
        verbose=False,
    )
    return lambda x_obs, n: flow.sample(n, x_obs, seed=seed)[0]


def nle(task, theta, x, seed, n_models=1):
    (theta, x), (theta_val, x_val) = split(theta, x)
    flow = pyflow.GIS(
        x,
        x_val,
        condition=theta,
        condition_validate=theta_val,
        n_models=n_models,
        seed=seed,
        verbose=False,
    )

    def sampler(x_obs, n):
        def excess(theta):
            return flow.evaluate_density(np.tile(x_obs, (len(theta), 1)), theta)

        return anneal(excess, task, stream(DRAW, seed), n)

    return sampler


def joint(task, theta, x, seed, n_models=1):
    train, val = (np.column_stack(rows) for rows in split(theta, x))
    bounds = np.full((train.shape[1], 2), [-np.inf, np.inf])
    if task.bounds is not None:
        bounds[: task.d] = task.bounds
    flow = pyflow.GIS(train, val, bounds=bounds, n_models=n_models, seed=seed, verbose=False)

    def sampler(x_obs, n):
        def excess(theta):
            rows = np.column_stack([theta, np.tile(x_obs, (len(theta), 1))])
            return flow.evaluate_density(rows) - task.log_prior(theta)

        return anneal(excess, task, stream(DRAW, seed), n)

    return sampler


def gaussian(task, theta, x, seed):
    d, mean = task.d, np.concatenate([theta.mean(axis=0), x.mean(axis=0)])
    cov = np.cov(np.column_stack([theta, x]).T)
    gain = np.linalg.solve(cov[d:, d:], cov[d:, :d]).T
    root = np.linalg.cholesky(cov[:d, :d] - gain @ cov[d:, :d])

    def sampler(x_obs, n):
        rng, centre = stream(DRAW, seed), mean[:d] + gain @ (x_obs - mean[d:])
        return accepted(
            n,
            lambda m: centre + rng.normal(size=(m, d)) @ root.T,
            lambda rows: np.isfinite(task.log_prior(rows)),
        )

    return sampler


def exact(task, theta, x, seed):
    return lambda x_obs, n: task.posterior(stream(DRAW, seed), x_obs, n)


METHODS = {
    **{method.__name__: method for method in (npe, nle, joint, gaussian, exact)},
    **{f"{method.__name__}5": partial(method, n_models=5) for method in (npe, nle, joint)},
}
DEFAULT = "npe", "nle", "joint", "gaussian"
CONDITIONAL = "npe", "nle", "npe5", "nle5"


def measure(task, options):
    """Return C2ST (seeds, observations) and seconds of fits and of draws for each method."""
    found = {name: {"c2st": [], "fit": [], "draw": []} for name in options.methods}
    for seed in range(options.seeds):
        rng = stream(SIMULATE, seed)
        theta = task.prior(rng, options.simulations)
        x = task.simulate(rng, theta)
        for name, of in found.items():
            start = time.process_time()
            sampler = METHODS[name](task, theta, x, seed)
            of["fit"].append(time.process_time() - start)
            of["c2st"].append([])
            for i, x_obs in enumerate(task.observations[: options.observations]):
                start = time.process_time()
                samples = sampler(x_obs, options.samples)
                of["draw"].append(time.process_time() - start)
                reference = task.posterior(stream(REFERENCE, i), x_obs, options.samples)
                of["c2st"][-1].append(c2st(reference, samples))
            print(f"{task.name} {name} {seed}: {np.round(of['c2st'][-1], 3)}", flush=True)
    return found


def report(run):
    """Return the Markdown tables of one setting: C2ST, and processor times."""
    tasks, observations = run["tasks"], run["setting"]["observations"]
    methods = [name for name in METHODS if any(name in found for found in tasks.values())]
    scores, times = [], []
    for task, found in tasks.items():
        others = PUBLISHED["tasks"][task]["c2st"].get(str(run["setting"]["simulations"]), {})
        score, spent = [task.replace("_", " ")], [task.replace("_", " ")]
        for name in methods:
            of = found.get(name)
            score.append(f"{np.mean(of['c2st']):.3f}" if of else "")
            fit, draw = (np.median(of[what]) if of else None for what in ("fit", "draw"))
            spent.append(f"{duration(fit)}, {duration(draw)}")
        for name in ANCHORS:
            score.append(f"{np.mean(others[name][:observations]):.3f}" if others else "")
        scores.append(score)
        times.append(spent)
    setting = ", ".join(f"{value} {what}" for what, value in run["setting"].items())
    return [
        f"C2ST: {setting}. In capitals: published, 10000 samples.",
        markdown(["task", *methods, *ANCHORS], scores),
        "Processor time of a fit, and of the samples for one observation.",
        markdown(["task", *methods], times),
    ]


def earlier():
    """Return the runs in results/sbi.json, one for each setting."""
    path = RESULTS / "sbi.json"
    return json.loads(path.read_text())["runs"] if path.exists() else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one observation, 1,000 samples")
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--observations", type=int, default=3, help="of the ten, the first")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=DEFAULT)
    options = parser.parse_args()
    if options.quick:
        options.observations, options.samples, options.seeds = 1, 1000, 1
    if "condition" not in inspect.signature(pyflow.GIS).parameters:
        print(f"{', '.join(CONDITIONAL)} are skipped: this pyflow's GIS takes no condition")
        options.methods = [name for name in options.methods if name not in CONDITIONAL]
    pyflow.set_num_threads(1)
    # Of a random split, and of a prior that simulations fill, some lie a little outside of others.
    warnings.filterwarnings("ignore", ".*outside of the training range")
    names = "simulations", "observations", "samples", "seeds"
    setting = {name: getattr(options, name) for name in names}
    runs = earlier()
    run = next((run for run in runs if run["setting"] == setting), None)
    if run is None:
        run = {"setting": setting, "tasks": {}}
        runs.append(run)
    for name in options.tasks:
        found = run["tasks"].setdefault(name, {})
        found.update(measure(TASKS[name], options))
        write("sbi", {"runs": runs}, [block for each in runs for block in report(each)])


if __name__ == "__main__":
    main()
