"""The competitors: installing them, and running any estimator in a process of its own.

    python bench/peers.py install
    python bench/peers.py run original miniboone --layers 20 --threads 1

`run` fits one estimator to one table and prints JSON: seconds for the fit and for each layer, the
number of layers, log-likelihoods, and seconds to evaluate and to sample.

The peers live in build/peers, away from pyflow's own environment. `sinflow` comes from the package
index. The original implementation is on no index and has no licence to redistribute it: clone
https://github.com/biweidai/SINF and name the folder with --sinf or PYFLOW_BENCH_SINF.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
from data import REPOSITORY, load
from measure import cores, mean_se

FOLDER = REPOSITORY / "build" / "peers"
PYTHON = FOLDER / "venv" / "bin" / "python"
WORKER = Path(__file__).resolve().parent / "worker.py"
# torch is pinned: the original needs functions that PyTorch is about to remove.
REQUIREMENTS = ["torch==2.13.0", "numpy>=2", "scipy>=1.9", "sinflow==0.1.5"]
REQUIREMENTS += ["zuko==1.6.0", "pyvinecopulib==1.0.1"]
RIVALS = "nsf", "maf", "vine"  # what only rivals.py compares with
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class PeerError(RuntimeError):
    """What an estimator raised in its own process."""


def install():
    """Make build/peers/venv, once."""
    done = FOLDER / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS) + "\n"
    if done.exists() and done.read_text() == wanted:
        return
    print(f"installing {', '.join(REQUIREMENTS)} in {FOLDER}")
    venv.create(PYTHON.parent.parent, with_pip=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    done.write_text(wanted)


def _can_install(what):
    """Tell whether `install` succeeds, and say what is skipped if not."""
    try:
        install()
    except subprocess.CalledProcessError as error:
        print(f"{what} skipped: {error}")
        return False
    return True


def _is_checkout(variable, file):
    """Tell whether an environment variable names a folder with this file, and say so if not."""
    folder = os.environ.get(variable, "")
    if (Path(folder) / file).exists():
        return True
    print(f"original skipped: {variable} ({folder or 'not set'}) is no checkout of it")
    return False


def original_is_here():
    """Tell whether PYFLOW_BENCH_SINF names a checkout of the original, and say so if not."""
    return _is_checkout("PYFLOW_BENCH_SINF", "sinf/GIS.py")


def field_peer_is_here():
    """Tell whether PYFLOW_BENCH_TRENF names a checkout of trenf_implementation, and has a Python.

    Says so if not.
    """
    found = _is_checkout("PYFLOW_BENCH_TRENF", "src/trenf/model.py")
    return found and _can_install("original")


def installed_peers():
    """Install the peers and return the names of those that can run here."""
    if not _can_install("peers"):
        return []
    return ["original", "sinflow"] if original_is_here() else ["sinflow"]


class Process:
    """Another process that obeys lines of JSON (`worker.serve`), for use in a `with` statement.

    What it prints goes to build/peers/NAME.log.

    Parameters
    ----------
    name : str
        For messages and the log.
    python : path
    arguments : list
        The script and its arguments.
    threads : int
        For libraries that take their number from the environment.
    environment : dict of str, optional
        Further variables.
    """

    def __init__(self, name, python, arguments, threads, environment=None):
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.scratch = tempfile.TemporaryDirectory()
        self.log = open(FOLDER / f"{name}.log", "w")  # noqa: SIM115 (closed in __exit__)
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads)) | (environment or {})
        self.process = subprocess.Popen(
            [python, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **variables},
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.scratch.cleanup()

    def ask(self, do, **arguments):
        """Give a command and return its answer."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        answer = json.loads(line or '{"error": "the process ended"}')
        if "error" in answer:
            raise PeerError(f"{self.name}, {do}: {answer['error']} (see {self.log.name})")
        return answer


class Worker(Process):
    """An estimator in a process of its own.

    Every call returns the worker's answer as a dict, in which "seconds" is the wall-clock time of
    the estimator's own call.

    Parameters
    ----------
    estimator : {"pyflow", "original", "sinflow", "nsf", "maf", "vine"}
    threads : int
    """

    def __init__(self, estimator, threads):
        python = sys.executable if estimator == "pyflow" else PYTHON
        super().__init__(estimator, python, [WORKER, estimator, str(threads)], threads)

    def _save(self, name, x):
        path = Path(self.scratch.name) / f"{name}.npy"
        np.save(path, x)
        return str(path)

    def threads(self, n):
        """Change the number of threads."""
        return self.ask("threads", n=n)

    def fit(self, train, val=None, **options):
        """Fit; the answer has "layers" and, for the original, "layer_seconds"."""
        paths = {"train": self._save("train", train)}
        if val is not None:
            paths["val"] = self._save("val", val)
        return self.ask("fit", **paths, options=options)

    def fit_synthetic(self, n, d, n_val=0, **options):
        """Fit to a table that the worker makes for itself; the answer has "memory" in bytes."""
        return self.ask("fit_synthetic", n=n, d=d, n_val=n_val, options=options)

    def evaluate(self, x):
        """Time the log-densities of the rows of x."""
        return self.ask("evaluate", x=self._save("x", x))

    def logp(self, x):
        """Return the log-densities of the rows of x, shape (n,)."""
        out = str(Path(self.scratch.name) / "logp.npy")
        self.ask("evaluate", x=self._save("x", x), out=out)
        return np.load(out)

    def sample(self, n):
        """Time the drawing of n samples."""
        return self.ask("sample", n=n)

    def samples(self, n):
        """Return n samples, shape (n, d)."""
        out = str(Path(self.scratch.name) / "samples.npy")
        self.ask("sample", n=n, out=out)
        return np.load(out)

    def floor(self, n, d, slices):
        """Time the matrix products of one layer on n rows of d columns."""
        return self.ask("floor", n=n, d=d, slices=slices)


def layer_limit(estimator, layers):
    """Return the options that stop a fit after `layers` layers (None: its own default)."""
    if layers is None:
        return {}
    names = {"pyflow": "max_layers", "original": "iteration", "sinflow": "n_transforms"}
    return {names[estimator]: layers}


def rows_like(x, n):
    """Return n rows, those of x over and over."""
    return x[np.arange(n) % len(x)]


def run_peer(estimator, table, threads, rows, layers=None):
    """Fit one estimator to one table and measure it once.

    Returns
    -------
    dict
        The answer of the fit, and "logp": {part: [mean, standard error]} of the validation and
        test rows, "evaluate_seconds" and "sample_seconds" for `rows` rows (None: it failed).
    """
    with Worker(estimator, threads) as worker:
        record = worker.fit(table.train, table.val, **layer_limit(estimator, layers))
        parts = {"val": table.val, "test": table.test}
        record["logp"] = {part: mean_se(worker.logp(x)) for part, x in parts.items()}
        record["rows"] = rows
        record["evaluate_seconds"] = worker.evaluate(rows_like(table.train, rows))["seconds"]
        try:
            record["sample_seconds"] = worker.sample(rows)["seconds"]
        except PeerError as error:
            print(error, file=sys.stderr)
            record["sample_seconds"] = None
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sinf", help="checkout of the original (default: $PYFLOW_BENCH_SINF)")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("install", help="install the peers in build/peers")
    run = actions.add_parser("run", help="fit one estimator to one table, print JSON")
    run.add_argument("estimator", choices=["pyflow", "original", "sinflow", *RIVALS])
    run.add_argument("table", help="a table of data.py")
    run.add_argument("--layers", type=int, help="stop after so many (default: the estimator's own)")
    run.add_argument("--threads", type=int, default=cores())
    run.add_argument("--rows", type=int, default=10000, help="rows to evaluate and to sample")
    options = parser.parse_args()
    if options.action == "run" and options.layers and options.estimator in RIVALS:
        run.error(f"--layers: {options.estimator} has none to count")
    if options.sinf:
        os.environ["PYFLOW_BENCH_SINF"] = options.sinf
    peers = installed_peers()
    if options.action == "install":
        return
    if options.estimator not in ("pyflow", *peers, *(RIVALS if peers else ())):
        sys.exit(1)
    table = load(options.table)
    record = run_peer(options.estimator, table, options.threads, options.rows, options.layers)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
