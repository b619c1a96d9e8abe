"""Fit a density to a real table: nine measurements of 45,730 protein structures.

    python examples/demo.py             # the whole fit
    python examples/demo.py --quick     # fewer rows and layers, to see that all works

The data are described in examples/data/README.md. Prints the mean log-likelihood of training,
validation and test data, and five samples; writes pictures.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import pyflow

DATA = Path(__file__).parent / "data" / "protein.npy"
NAMES = [
    "surface area",
    "non-polar area",
    "non-polar fraction",
    "non-polar part",
    "mass-weighted area",
    "area deviation",
    "Euclidean distance",
    "spatial constraints",
    "log(1 + RMSD)",
]


def load():
    """Return training, validation and test data, standardised, float32, and their mean and std.

    They are 80%, 10% and 10% of the rows.
    """
    x = np.load(DATA)
    x = x[np.random.RandomState(0).permutation(len(x))]
    train, validate, test = np.split(x, [int(0.8 * len(x)), int(0.9 * len(x))])
    mean, std = train.mean(axis=0), train.std(axis=0)
    return [(part - mean) / std for part in (train, validate, test)], mean, std


def pictures(model, test, mean, std):
    """Return {name: figure}, of data that the model has not seen, in the units of the file."""
    samples, _ = model.sample(10 * len(test), seed=1)
    z, _ = model.forward(test)
    test, samples = (mean + std * x for x in (test, samples))
    return {
        "marginals": pyflow.plots.marginals(test, samples, names=NAMES),
        "pairs": pyflow.plots.pairs(test, samples, names=NAMES, columns=[0, 2, 3, 6, 7, 8]),
        "latent": pyflow.plots.latent(z),
        "history": pyflow.plots.history(model),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows and layers")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "output", metavar="DIR")
    arguments = parser.parse_args()

    (train, validate, test), mean, std = load()
    if arguments.quick:
        train, validate = train[:4000], validate[:1000]
    n, d = train.shape
    print(
        f"protein table: {n} x {d} for training, {len(validate)} to validate, {len(test)} to test"
    )

    start = time.perf_counter()
    # One flow, for its layers and latent space; without n_models it is a mixture.
    model = pyflow.GIS(train, validate, max_layers=8 if arguments.quick else None, n_models=1)
    seconds = time.perf_counter() - start
    print(model)
    print(f"fitted in {seconds:.1f} s on {pyflow.get_num_threads()} thread(s)\n")

    print("log-likelihood per row, in nats: mean and its standard error")
    for name, x in (("training", train), ("validation", validate), ("test", test)):
        logp = model.evaluate_density(x)
        print(f"  {name:10} {logp.mean():8.3f} ± {logp.std() / len(x) ** 0.5:.3f}")

    samples, logp = model.sample(5, seed=0)
    print("\nfive samples, and their log-densities")
    for x, value in zip(samples, logp, strict=True):
        print("  " + " ".join(f"{number:7.3f}" for number in x) + f"   log p = {value:.3f}")

    import matplotlib

    matplotlib.use("Agg")  # to files, whether or not there is a screen
    arguments.out.mkdir(parents=True, exist_ok=True)
    print()
    for name, figure in pictures(model, test, mean, std).items():
        path = arguments.out / f"{name}.png"
        figure.savefig(path)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
