"""One density estimator in one process, told what to do by lines of JSON.

    python worker.py ESTIMATOR THREADS

Each line on stdin is a command, `{"do": NAME, ...arguments}`; each line on stdout is its answer.
Arrays travel as .npy files, named in the command. Whatever the estimator prints goes to stderr.
The clock runs around the estimator's own call only: not around imports, files or conversions.

`peers.Worker` is the other end. The estimators are adapters to one interface: `fit`, `evaluate`,
`sample` and `set_threads`; `fit` returns what it knows of the model that it made.
"""

import copy
import json
import os
import sys
import time
import types
import warnings
from functools import partial

import numpy as np


class Pyflow:
    """pyflow's GIS."""

    def __init__(self):
        import pyflow

        self.pyflow = pyflow
        self.model = None

    def set_threads(self, n):
        self.pyflow.set_num_threads(n)

    def prepare(self, x):
        return x

    def fit(self, train, val, **options):
        self.model = self.pyflow.GIS(train, val, n_models=1, verbose=False, **options)

    def describe(self):
        kinds = self.model.layers
        first = max((i + 1 for i, kind in enumerate(kinds) if kind != "sliced"), default=0)
        return {
            "layers": len(kinds),
            "first_layers": first,  # marginals and whitening: `max_layers` counts those that follow
            "slices": self.model.slices,
            "val_logp": self.model.history["logp_validate"].tolist(),
        }

    def evaluate(self, x):
        return self.model.evaluate_density(x)

    def sample(self, n):
        return self.model.sample(n, seed=1)[0]


class OutOfTimeError(Exception):
    """Stops the original between two layers."""


class Original:
    """The authors' PyTorch implementation, from the checkout that PYFLOW_BENCH_SINF names.

    Made to run, from outside, on a current PyTorch without a GPU:
    - `sinf.load_data` is an empty module: it imports torchvision, h5py and pandas for nothing here;
    - `SINF.add_layer` notes the time at which each layer was finished, and stops a fit that has
      taken `limit` seconds of processor time, with the layers that it has;
    - it transforms its input in place, and so gets a copy.
    """

    def __init__(self):
        import torch

        warnings.filterwarnings("ignore", message="torch.qr is deprecated")
        sys.path.insert(0, os.environ["PYFLOW_BENCH_SINF"])
        sys.modules["sinf.load_data"] = types.ModuleType("sinf.load_data")
        from sinf import GIS

        self.torch = torch
        self.gis = GIS
        self.model = None
        self.finished = []
        self.deadline = np.inf
        self.stopped = False
        add_layer = GIS.SINF.add_layer

        def add_layer_and_note_time(model, *args, **kwargs):
            self.finished.append(time.perf_counter())
            self.model = add_layer(model, *args, **kwargs)
            if time.process_time() > self.deadline:
                raise OutOfTimeError
            return self.model

        GIS.SINF.add_layer = add_layer_and_note_time

    def set_threads(self, n):
        self.torch.set_num_threads(n)

    def prepare(self, x):
        return self.torch.tensor(x)

    def fit(self, train, val, seed=0, limit=np.inf, **options):
        self.torch.manual_seed(seed)
        self.finished = [time.perf_counter()]
        self.deadline = time.process_time() + limit
        try:
            self.model = self.gis.GIS(train, val, nocuda=True, **options)
        except OutOfTimeError:
            self.stopped = True

    def describe(self):
        return {
            "layers": len(self.model.layer),
            "stopped": self.stopped,
            "layer_seconds": np.diff(self.finished).round(4).tolist(),
        }

    def evaluate(self, x):
        with self.torch.no_grad():
            return self.model.evaluate_density(x).numpy()

    def sample(self, n):
        with self.torch.no_grad():
            return self.model.sample(n, device=self.torch.device("cpu"))[0].numpy()


class Sinflow:
    """The NumPy package `sinflow`. It draws its own validation rows: as many as it is given."""

    def __init__(self):
        import sinflow

        self.sinflow = sinflow
        self.model = None

    def set_threads(self, n):
        """Do nothing: NumPy took its number of threads from the environment."""

    def prepare(self, x):
        return x.astype(np.float64)

    def fit(self, train, val, seed=0, **options):
        np.random.seed(seed)
        share = len(val) / (len(train) + len(val))
        self.model = self.sinflow.Flow(validation_fraction=share, verbose=True, **options)
        self.model.fit(np.concatenate([train, val]))

    def describe(self):
        return {"layers": len(self.model.transforms)}

    def evaluate(self, x):
        return self.model.log_prob(x)

    def sample(self, n):
        return self.model.sample(n)


class Zuko:
    """A flow of the PyTorch package `zuko`, trained as its documentation does, with early stopping.

    Five transforms with networks of (64, 64), of splines with 8 bins for NSF; Adam at 3e-3 in
    batches of 128. A rate that has not improved the validation rows for 20 epochs is divided by 3,
    three times, from the best weights so far, which are kept. While a third of `limit` seconds of
    processor time is left, the same is tried with a decay of weights, and in batches of 32; the fit
    that validates best counts.
    """

    SETTINGS = (
        {},
        {"decay": 0.3},
        {"batch": 32},
    )

    def __init__(self, kind):
        import torch
        import zuko

        self.torch = torch
        self.kind = {"nsf": partial(zuko.flows.NSF, bins=8), "maf": zuko.flows.MAF}[kind]
        self.model = None

    def set_threads(self, n):
        self.torch.set_num_threads(n)

    def prepare(self, x):
        return self.torch.tensor(x, dtype=self.torch.float32)

    def fit(self, train, val, seed=0, limit=300.0):
        start, best = time.process_time(), -np.inf
        self.tried = {}
        for setting in self.SETTINGS:
            left = limit - (time.process_time() - start)
            if left < limit / 3:
                break
            self.torch.manual_seed(seed)
            model, score, stopped = self._train(train, val, left, **setting)
            self.tried[str(setting)] = score
            if score > best:
                best, self.model, self.stopped = score, model, stopped

    def _train(self, train, val, limit, decay=0.0, batch=128):
        torch, rate, deadline = self.torch, 3e-3, time.process_time() + limit
        model = self.kind(train.shape[1], transforms=5, hidden_features=(64, 64))
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
        weights, best = copy.deepcopy(model.state_dict()), -np.inf
        for drop in range(4):
            model.load_state_dict(weights)
            for group in optimizer.param_groups:
                group["lr"] = rate / 3**drop
            waited = 0
            while waited < 20 and time.process_time() < deadline:
                for rows in torch.randperm(len(train)).split(batch):
                    loss = -model().log_prob(train[rows]).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                    optimizer.step()
                with torch.no_grad():
                    score = float(model().log_prob(val).mean())
                waited += 1
                if score > best:
                    weights, best, waited = copy.deepcopy(model.state_dict()), score, 0
        model.load_state_dict(weights)
        return model, best, time.process_time() >= deadline

    def describe(self):
        return {"tried": self.tried, "stopped": self.stopped}

    def evaluate(self, x):
        with self.torch.no_grad():
            return np.concatenate([self.model().log_prob(rows).numpy() for rows in x.split(1000)])

    def sample(self, n):
        with self.torch.no_grad():
            return self.model().sample((n,)).numpy()


class Vine:
    """A vine copula of all families, and kernel densities of columns, by `pyvinecopulib`.

    Defaults: families by AIC, no truncation, local constant kernel copulas. If less than a third
    of `limit` seconds of processor time has gone, local quadratic ones and, of families by mBICV, a
    truncated vine too; the fit that validates best counts. A fit is not interrupted.
    """

    SETTINGS = (
        {},
        {"nonparametric_method": "quadratic"},
        {"selection_criterion": "mbicv", "select_trunc_lvl": True},
    )

    def __init__(self):
        import pyvinecopulib

        self.vines = pyvinecopulib
        self.n_threads = 1
        self.model = None

    def set_threads(self, n):
        self.n_threads = n

    def prepare(self, x):
        return x.astype(np.float64)

    def fit(self, train, val, seed=0, limit=300.0):
        start, best = time.process_time(), -np.inf
        self.tried = {}
        for setting in self.SETTINGS:
            controls = self.vines.FitControlsVinecop(num_threads=self.n_threads, **setting)
            model = self.vines.Vinedist.from_data(train, controls)
            score = self.tried[str(setting)] = float(model.logpdf(val).mean())
            if self.model is None or score > best:
                best, self.model = score, model
            if time.process_time() - start > limit / 3:
                break

    def describe(self):
        return {"tried": self.tried, "stopped": False}

    def evaluate(self, x):
        return self.model.logpdf(x)

    def sample(self, n):
        return self.model.sample(n, seeds=[1])


ESTIMATORS = {
    "pyflow": Pyflow,
    "original": Original,
    "sinflow": Sinflow,
    "nsf": partial(Zuko, "nsf"),
    "maf": partial(Zuko, "maf"),
    "vine": Vine,
}


def matrix_products(n, d, slices, repeats):
    """Time the least that a sliced layer must do: the products `y = x A` and `y A^T`, in float32.

    Rows go through in blocks that stay in cache, as in `csrc`; the best of three block sizes
    counts. Returns seconds for n rows and one layer of that many slices.
    """
    rng = np.random.default_rng(0)
    a = np.linalg.qr(rng.standard_normal((d, slices)))[0].astype(np.float32)
    x = rng.standard_normal((n, d), dtype=np.float32)
    sizes = [256, 1024, 4096] * repeats
    return min(_products_in_blocks(x, a, size) for size in sizes)


def _products_in_blocks(x, a, size):
    a_t = np.ascontiguousarray(a.T)
    y = np.empty((size, a.shape[1]), np.float32)
    step = np.empty((size, a.shape[0]), np.float32)
    start = time.perf_counter()
    for i in range(0, len(x) - size + 1, size):
        block = x[i : i + size]
        np.matmul(block, a, out=y)
        np.matmul(y, a_t, out=step)
    return (time.perf_counter() - start) * len(x) / (len(x) // size * size)


def synthetic_table(n, d, seed=0):
    """Make an (n, d) float32 table with curved structure, using one column of scratch memory."""
    x = np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)
    for j in range(1, d):
        x[:, j] += 2 * np.sin(x[:, j - 1])
    return x


def peak_memory():
    """Return the largest resident size of this process so far, in bytes.

    Linux's VmHWM where there is one: `ru_maxrss` of a new process starts at the size of the
    process that launched it.
    """
    try:
        with open("/proc/self/status") as status:
            lines = [line for line in status if line.startswith("VmHWM")]
        return int(lines[0].split()[1]) * 1024
    except (OSError, IndexError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Commands:
    """What a worker can be told to do. Each method takes JSON values and returns them."""

    def __init__(self, estimator, threads):
        self.estimator = ESTIMATORS[estimator]()
        self.estimator.set_threads(threads)

    def threads(self, n):
        self.estimator.set_threads(n)
        return {}

    def fit(self, train, val=None, options=None):
        """Fit to the rows in two .npy files."""
        tables = [self.estimator.prepare(np.load(path)) for path in (train, val) if path]
        return self._fit(*tables, options=options)

    def _fit(self, train, val=None, options=None):
        start, processor = time.perf_counter(), time.process_time()
        self.estimator.fit(train, val, **(options or {}))
        return {
            "seconds": time.perf_counter() - start,
            "processor_seconds": time.process_time() - processor,
            **self.estimator.describe(),
        }

    def evaluate(self, x, out=None):
        """Evaluate log p of the rows in a .npy file, and write it to another when asked."""
        x = self.estimator.prepare(np.load(x))
        start = time.perf_counter()
        logp = self.estimator.evaluate(x)
        elapsed = time.perf_counter() - start
        if out:
            np.save(out, np.asarray(logp, dtype=np.float64))
        return {"seconds": elapsed, "rows": len(x)}

    def sample(self, n, out=None):
        """Draw samples, and write them to a .npy file when asked."""
        start = time.perf_counter()
        x = self.estimator.sample(n)
        elapsed = time.perf_counter() - start
        if out:
            np.save(out, np.asarray(x, dtype=np.float32))
        return {"seconds": elapsed, "rows": n}

    def floor(self, n, d, slices, repeats=3):
        return {"seconds": matrix_products(n, d, slices, repeats)}

    def fit_synthetic(self, n, d, n_val=0, options=None):
        """Fit to a synthetic table made here, and tell the memory that it took."""
        before = peak_memory()
        x = synthetic_table(n + n_val, d)
        held = peak_memory()
        answer = self._fit(x[:n], x[n:] if n_val else None, options)
        memory = {"before": before, "held": held, "peak": peak_memory(), "data": x.nbytes}
        return {**answer, "memory": memory}


def serve(make_commands):
    """Answer the lines of stdin until they end; `make_commands()` gives the object that obeys."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    commands = make_commands()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(commands, command.pop("do"))(**command)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(lambda: Commands(sys.argv[1], int(sys.argv[2])))
