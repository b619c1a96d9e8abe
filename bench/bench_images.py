"""Makers of images side by side: what an hour of training gives on two cores.

    python bench/bench_images.py --quick              # minutes; figures mean nothing
    python bench/bench_images.py --minutes 60         # MNIST; an hour for every method
    python bench/bench_images.py --data fashion
    python bench/bench_images.py --methods vae gan    # the others keep their earlier figures

Writes results/images-DATA.json and .md, and the samples to build/bench/images. See README.md for
what is measured and how.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from data import REPOSITORY
from measure import RESULTS, cores, markdown, write
from peers import PYTHON, PeerError, Process, installed_peers

import pyflow
from pyflow import datasets, metrics

FOLDERS = {
    "mnist": REPOSITORY.parent / "shared" / "data" / "mnist",
    "fashion": Path("/usr/share/datasets/fashion-mnist"),  # Debian's dataset-fashion-mnist
}
SAMPLES = REPOSITORY / "build" / "bench" / "images"
WORKER = Path(__file__).resolve().parent / "image_worker.py"
NAMES = {
    "sig": "pyflow.SIG",
    "equal": "pyflow.SIG, as many layers as the original",
    "original": "SIG by its authors",
    "gan": "WGAN-GP",
    "vae": "variational autoencoder",
    "swf": "sliced Wasserstein flow",
    "gaussian": "Gaussian of the same covariance",
    "floor": "training images (the floor)",
}
PATCH = 7, (28, 28)


class SkippedError(RuntimeError):
    """Why a method does not run here."""


def load_images(folder):
    """Return the training and the test images of MNIST or Fashion-MNIST."""
    return [datasets.mnist(folder, split)[0][..., 0] for split in ("train", "test")]


# ---- Methods: each returns samples, (n, 28, 28) uint8, and a record with "minutes" ---------------


def sig(images, n, threads, layers=None):
    """pyflow's SIG with its defaults, or with so many layers."""
    if not hasattr(pyflow, "SIG"):
        raise SkippedError("this pyflow has no SIG")
    pyflow.set_num_threads(threads)
    options = {} if layers is None else {"max_layers": layers}
    start = time.perf_counter()
    flow = pyflow.SIG(images, image_shape=(28, 28, 1), seed=0, verbose=False, **options)
    fitted = time.perf_counter()
    x, _ = flow.sample(n, seed=1)
    record = {
        "minutes": (fitted - start) / 60,
        "sample_seconds": time.perf_counter() - fitted,
        "layers": len(flow.layers),
    }
    return np.clip(x, 0, 255).astype(np.uint8).reshape(n, 28, 28), record


def gaussian(images, n):
    """A Gaussian of the images' mean and covariance, clipped to grey levels."""
    start = time.perf_counter()
    x = images.reshape(len(images), -1).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    root = vectors * np.sqrt(np.maximum(values, 0))
    x = np.random.default_rng(0).standard_normal((n, len(root))) @ root.T + x.mean(axis=0)
    samples = np.clip(x.round(), 0, 255).astype(np.uint8).reshape(n, 28, 28)
    return samples, {"minutes": (time.perf_counter() - start) / 60}


def floor(images, n):
    return images[:n], {"minutes": 0.0}


def peer(method, images, n, options, peers):
    """A method of image_worker.py, in its own process and environment."""
    if not peers or (method == "original" and "original" not in peers):
        raise SkippedError("not installed")
    settings = {}
    if method == "gan":
        settings = {"rate": options.gan_rate}
    elif method == "original" and options.quick:
        settings = {"search_steps": 5}
    out = str(SAMPLES / f"{options.data}-{method}.npy")
    arguments = [WORKER, method, str(options.threads)]
    with Process(f"images-{method}", PYTHON, arguments, options.threads) as process:
        path = str(Path(process.scratch.name) / "images.npy")
        np.save(path, images)
        record = process.ask(
            "make", images=path, out=out, minutes=options.minutes, n=n, options=settings
        )
    return np.load(out), {**record, **settings}


def make(method, images, n, options, peers, records):
    if method == "sig":
        return sig(images, n, options.threads)
    if method == "equal":
        if "original" not in records:
            raise SkippedError("the original has not run")
        return sig(images, n, options.threads, records["original"]["layers"])
    if method == "gaussian":
        return gaussian(images, n)
    if method == "floor":
        return floor(images, n)
    return peer(method, images, n, options, peers)


# ---- Figures -------------------------------------------------------------------------------------


def score(samples, test, network):
    """How far samples are from the test set."""
    return {
        "lenet_fd": metrics.frechet_distance(samples, test, features=metrics.LeNet(network)),
        "sliced_w": metrics.sliced_wasserstein(samples, test),
        "sliced_w_patches": metrics.sliced_wasserstein(samples, test, patch=PATCH),
    }


def report(record):
    """Return the table as Markdown."""
    methods = record["methods"]

    def ratio(each, key):
        base = methods.get("floor", {}).get(key)
        return f"{each[key]:.2f}" + (f" ({each[key] / base:.2f})" if base else "")

    rows = [
        [
            NAMES[name],
            f"{each['minutes']:.1f}",
            str(each.get("layers", "")),
            f"{each['lenet_fd']:.2f}",
            ratio(each, "sliced_w"),
            ratio(each, "sliced_w_patches"),
        ]
        for name, each in sorted(methods.items(), key=lambda item: list(NAMES).index(item[0]))
    ]
    header = ["method", "minutes", "layers", "LeNet-FD", "sliced W", "sliced W, patches"]
    title = (
        f"{record['data']}: {record['n_samples']} samples against {record['n_test']} test images, "
        f"after training on {record['n_train']}; in brackets, times the floor."
    )
    quick = ["**--quick: these figures mean nothing.**"] if record["quick"] else []
    return [*quick, title, markdown(header, rows)]


def earlier(name, record):
    """Return the methods' records in results/NAME.json if they are of the same setting."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    same = all(found.get(key) == value for key, value in record.items())
    return found["methods"] if same else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few images, seconds of training")
    parser.add_argument("--minutes", type=float, help="of training (default: 60)")
    parser.add_argument("--data", default="mnist", choices=list(FOLDERS))
    parser.add_argument("--folder", type=Path, help="where its IDX files are")
    parser.add_argument("--methods", nargs="+", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--threads", type=int, default=cores(), help="of every method")
    parser.add_argument("--gan-rate", type=float, default=1e-4, help="default: the published 1e-4")
    parser.add_argument("--sinf", help="checkout of the original (default: $PYFLOW_BENCH_SINF)")
    options = parser.parse_args()
    if options.sinf:
        os.environ["PYFLOW_BENCH_SINF"] = options.sinf
    options.minutes = options.minutes or (0.3 if options.quick else 60)

    folder = options.folder or FOLDERS[options.data]
    try:
        train, test = load_images(folder)
    except FileNotFoundError as missing:
        sys.exit(f"{options.data}: {missing.filename} is not there; name its folder with --folder")
    n = 10000
    if options.quick:
        train, test, n = train[:5000], test[:2000], 2000
    setting = {
        "quick": options.quick,
        "data": options.data,
        "n_train": len(train),
        "n_test": len(test),
        "n_samples": n,
        "threads": options.threads,
        "patch": PATCH[0],
    }
    name = f"images-{options.data}"
    records = earlier(name, setting)
    SAMPLES.mkdir(parents=True, exist_ok=True)
    peers = installed_peers() if {"vae", "gan", "swf", "original"} & {*options.methods} else []
    # The original before what is stopped at its number of layers.
    for method in sorted(options.methods, key=lambda method: method == "equal"):
        try:
            samples, record = make(method, train, n, options, peers, records)
        except (SkippedError, PeerError) as error:
            print(f"{NAMES[method]} skipped: {error}")
            continue
        np.save(SAMPLES / f"{options.data}-{method}.npy", samples)
        records[method] = {**record, **score(samples, test, options.data)}
        record = {**setting, "methods": records}
        write(name, record, report(record))


if __name__ == "__main__":
    main()
