"""The search for slices of SIG beside that of its authors: seconds, and how good the slices are.

    python bench/bench_slices.py --sinf DIR                # 60,000 images of MNIST
    python bench/bench_slices.py --sinf DIR --images 10000

After some layers of SIG, both look for the K slices of one more layer, for the whole image and for
patches, with as many steps (published: 200; pyflow's default: 20). The original is maxKSWDdirection
on all images and as many of the sample (of one patch, times the patches); pyflow's is a whole
layer, with splines and the moving of a sample six times as large. The distance is that of test
images from a fresh sample along the slices, which neither has seen. Writes results/slices.json and
.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_images import FOLDERS, load_images
from measure import cores, markdown, write
from peers import PYTHON, installed_peers

import pyflow

ORIGINAL = """
import sys, time, numpy as np, torch
sys.path.insert(0, sys.argv[1])
from sinf.SlicedWasserstein import maxKSWDdirection
given = np.load(sys.argv[2])
torch.set_num_threads(int(sys.argv[4]))
torch.manual_seed(0)
x, z = torch.from_numpy(given["x"]), torch.from_numpy(given["z"])
start = time.perf_counter()
a, _ = maxKSWDdirection(x, z, K=int(given["k"]), maxiter=int(given["steps"]))
seconds = time.perf_counter() - start
np.savez(sys.argv[3], a=a.T.numpy(), seconds=seconds)
"""


def distance(a, x, z):
    """Root-mean-square Wasserstein distance of x and z, equally many, along the slices a (k, d)."""
    return float(np.sqrt(np.mean((np.sort(x @ a.T, axis=0) - np.sort(z @ a.T, axis=0)) ** 2)))


def of_pyflow(images, before, kernel, k, columns, steps):
    """Return the slices of one more layer (of the patch with these columns), and its seconds."""
    times = []
    flow = pyflow.SIG(
        images,
        schedule=[(len(before) - 1, None, 28), (2, kernel, k)],
        slice_steps=steps,
        model=before,
        progress=lambda p: times.append(time.perf_counter()),
        verbose=False,
    )
    # of two more layers: the slices of the first, which stands third, behind the scale and the
    # second, and end its parameters; the seconds of the second
    theta, d = flow._core.parameters(2), len(columns)
    return theta[-k * d :].reshape(k, d), times[1] - times[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60000)
    parser.add_argument("--layers", type=int, default=5, help="of SIG before the search")
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 200], help="of the search")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--folder", type=Path, default=FOLDERS["mnist"])
    parser.add_argument("--sinf", default=os.environ.get("PYFLOW_BENCH_SINF"))
    arguments = parser.parse_args()
    if not arguments.sinf:
        sys.exit("--sinf: name a clone of https://github.com/biweidai/SINF")
    installed_peers()
    pyflow.set_num_threads(arguments.threads)
    train, test = load_images(arguments.folder)
    train = train[: arguments.images]
    before = pyflow.SIG(train, schedule=[(arguments.layers, None, 28)], verbose=False)
    rng = np.random.default_rng(0)

    def rows(images):
        return (
            (images.reshape(len(images), -1) + rng.random((len(images), 784))) / 128 - 1
        ).astype("f4")

    x, fresh = rows(train), rows(test)
    z = (before.sample(len(x) + len(fresh), seed=1)[0].reshape(-1, 784) / 128 - 1).astype("f4")
    z, z_fresh = z[: len(x)], z[len(x) :]
    table = []
    for kernel, k in ((28, 56), (7, 14)):
        pixels = np.arange(784).reshape(28, 28)[-kernel:, -kernel:].ravel()
        patches = (28 // kernel) ** 2
        for steps in arguments.steps:
            with tempfile.TemporaryDirectory() as folder:
                given, found = Path(folder, "given.npz"), Path(folder, "found.npz")
                np.savez(given, x=x[:, pixels], z=z[:, pixels], k=k, steps=steps)
                command = [PYTHON, "-c", ORIGINAL, arguments.sinf, given, found]
                subprocess.run([*command, str(arguments.threads)], check=True)
                theirs = dict(np.load(found))
            ours, seconds = of_pyflow(
                train, before, None if kernel == 28 else kernel, k, pixels, steps
            )
            row = {
                "kernel": kernel,
                "slices": k,
                "steps": steps,
                "original_seconds": float(theirs["seconds"]) * patches,
                "pyflow_seconds": seconds,
                "original_distance": distance(theirs["a"], fresh[:, pixels], z_fresh[:, pixels]),
            }
            if kernel == 28:  # of patches, pyflow's are rolled by a random shift
                row["pyflow_distance"] = distance(ours, fresh, z_fresh)
            table.append(row)
            print(row, flush=True)
    heads = list(table[0])  # of whole images, which have all of them
    body = [[f"{row[h]:.4g}" if h in row else "" for h in heads] for row in table]
    record = {"images": len(train), "threads": arguments.threads, "rows": table}
    write("slices", record, [markdown(heads, body)])


if __name__ == "__main__":
    main()
