"""Flows of fields in one process, told what to do by lines of JSON, as in worker.py.

    python field_worker.py pyflow THREADS
    python field_worker.py original THREADS

Times are [wall-clock seconds, processor seconds] around the flow's own call. pyflow's are taken in
turn with those of its Fourier transforms alone (fft_alone.c), so that both see the same machine.
`bench_symmetric.py` is the other end.
"""

import ctypes
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from worker import peak_memory, serve

ROOT = Path(__file__).resolve().parents[1]
LAYERS = 5  # pyflow's default
CONDITIONS = 2
OBSERVED = 0.7  # of the pixels in a window


def timed(function, *args, **kwargs):
    """Return [wall-clock seconds, processor seconds] of one call."""
    start = time.perf_counter(), time.process_time()
    function(*args, **kwargs)
    return [time.perf_counter() - start[0], time.process_time() - start[1]]


def white_fields(n, mesh, seed=0):
    """Return n fields of white noise, float32, whose scale and mean are their two parameters."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *mesh), dtype=np.float32)
    y = rng.uniform(size=(n, CONDITIONS))
    for field, (scale, mean) in zip(x, y, strict=True):
        field *= 0.5 + scale
        field += mean
    return x, y


class Transforms:
    """fft_alone.c, built against build/libpyflow.a."""

    def __init__(self, threads):
        library = ROOT / "build" / "bench" / f"fft_alone.{os.getpid()}.so"
        library.parent.mkdir(parents=True, exist_ok=True)
        packages = ["pkg-config", "--cflags", "--libs", "fftw3", "fftw3f", "openblas"]
        flags = subprocess.run(packages, capture_output=True, text=True, check=True).stdout
        sources = ["-Icsrc", "@csrc/cflags", "bench/fft_alone.c", "build/libpyflow.a"]
        subprocess.run(["make", "-s", "build/libpyflow.a"], cwd=ROOT, check=True)
        compiler = shlex.split(os.environ.get("CC", "cc"))
        command = [*compiler, "-shared", "-fPIC", "-o", library, *sources, *flags.split(), "-lm"]
        subprocess.run(command, cwd=ROOT, check=True)
        self.library = ctypes.CDLL(str(library))
        library.unlink()
        self.threads = threads

    def seconds(self, x, pairs):
        """Return [wall-clock, processor] seconds of `pairs` transforms and inverses per field."""
        mesh = (ctypes.c_ssize_t * (x.ndim - 1))(*x.shape[1:])
        seconds = (ctypes.c_double * 2)()
        at, n = ctypes.c_void_p(x.ctypes.data), ctypes.c_ssize_t(len(x))
        if self.library.fft_alone(seconds, at, x.ndim - 1, mesh, n, pairs, self.threads):
            raise RuntimeError("fft_alone failed")
        return list(seconds)


class Pyflow:
    """pyflow's default flow, conditional on two parameters.

    Every answer is {"flow": [[wall, processor], ...], "fft": [...]}, one pair for each repeat.
    """

    def __init__(self, threads):
        import pyflow

        pyflow.set_num_threads(threads)
        self.pyflow = pyflow
        self.threads = threads
        self.transforms = None
        self.flow = self.x = self.y = None

    def step(self, mesh, n, batch, repeats):
        """Time epochs of n / batch steps; the transforms of a step are those of two densities."""
        self.x, self.y = white_fields(n, mesh)
        self.transforms = self.transforms or Transforms(self.threads)
        answer = {"flow": [], "fft": [], "fields": n}
        last = None

        def progress(p):
            nonlocal last
            now = time.perf_counter(), time.process_time()
            if p.step > 1:  # the first is a warm-up
                answer["flow"].append([now[0] - last[0], now[1] - last[1]])
                answer["fft"].append(self.transforms.seconds(self.x, 2 * LAYERS))
            last = time.perf_counter(), time.process_time()

        self.flow = self.pyflow.SymmetricFlow(
            self.x,
            y_train=self.y,
            epochs=1 + repeats,
            batch=batch,
            start_fields=min(n, 16),
            progress=progress,
            verbose=False,
        )
        return answer

    def _in_turn(self, repeats, function, *args):
        answer = {"flow": [], "fft": [], "fields": len(self.x)}
        function(*args)
        for _ in range(repeats):
            answer["flow"].append(timed(function, *args))
            answer["fft"].append(self.transforms.seconds(self.x, LAYERS))
        return answer

    def density(self, repeats):
        """Time log p of the fields that `step` trained on."""
        return self._in_turn(repeats, self.flow.evaluate_density, self.x, self.y)

    def forward(self, repeats):
        return self._in_turn(repeats, self.flow.forward, self.x, self.y)

    def sample(self, repeats):
        return self._in_turn(repeats, self.flow.sample, len(self.x), self.y, 1)

    def inverse(self, repeats):
        return self._in_turn(repeats, self.flow.inverse, self.x, self.y)

    def axial(self, mesh, n, batch, repeats):
        """Time epochs of n / batch steps, and densities, of isotropic and axial flows in turn.

        Returns {"isotropic" or "axial": {kind: [[wall, processor], ...]}}.
        """
        x, y = white_fields(n, mesh)
        start = {"batch": batch, "start_fields": min(n, 16), "verbose": False}
        kinds = ("density, no conditions", "density", "step")
        answer = {name: {kind: [] for kind in kinds} for name in ("isotropic", "axial")}
        plain = {
            name: self.pyflow.SymmetricFlow(x, symmetry=name, epochs=0, **start) for name in answer
        }
        for _ in range(repeats):
            for name, times in answer.items():
                clock = []

                def progress(_, clock=clock):
                    clock.append([time.perf_counter(), time.process_time()])

                flow = self.pyflow.SymmetricFlow(
                    x, y_train=y, symmetry=name, epochs=2, progress=progress, **start
                )
                times["step"].append(np.subtract(clock[-1], clock[-2]).tolist())
                times["density"].append(timed(flow.evaluate_density, x, y))
                times["density, no conditions"].append(timed(plain[name].evaluate_density, x))
        return answer

    def beside_plain(self, mesh, n, batch, repeats, kind):
        """Time a plain flow and in turn one with a second field, or one of fields in a window.

        kind is "second field", "window", "white window" (filled with noise) or "noise map" (of
        which the other pixels are noisier). Returns
        {operation: [[processor seconds of the plain flow, of the other], ...]}.
        """
        x = white_fields(n, mesh)[0]
        fit, call = {}, {}
        if kind == "second field":
            fit = call = {"condition_field": x[::-1].copy()}
        else:
            observed = np.random.default_rng(0).random(mesh) < OBSERVED
            fit["fill"] = "noise" if kind == "white window" else "realisation"
            fit |= {"noise": 1.0 - observed} if kind == "noise map" else {"mask": observed}
        answer = {"step": [], "density": [], "sample": []}
        options = {"epochs": 2, "batch": batch, "start_fields": 16, "ndim": len(mesh)}
        for _ in range(repeats):
            flows, pair = [], []
            for more in ({}, fit):
                ends = []
                flows.append(
                    self.pyflow.SymmetricFlow(
                        x,
                        **options,
                        **more,
                        progress=lambda p, ends=ends: ends.append(time.process_time()),
                        verbose=False,
                    )
                )
                pair.append(ends[1] - ends[0])
            answer["step"].append(pair)
            pairs = list(zip(flows, ({}, call), strict=True))
            for name, seconds in (
                ("density", [timed(f.evaluate_density, x, **b)[1] for f, b in pairs]),
                ("sample", [timed(f.sample, n, seed=1, **b)[1] for f, b in pairs]),
            ):
                answer[name].append(seconds)
        return answer

    # ---- memory: peaks of this process, in bytes

    def fit_memory(self, mesh, n, path):
        before = peak_memory()
        x, y = white_fields(n, mesh)
        held = peak_memory()
        flow = self.pyflow.SymmetricFlow(
            x, y_train=y, epochs=1, batch=n, start_fields=n, verbose=False
        )
        peak = peak_memory()
        flow.save(path)
        return {"before": before, "held": held, "peak": peak, "data": x.nbytes}

    def density_memory(self, mesh, n, path):
        before = peak_memory()
        x, y = white_fields(n, mesh)
        held = peak_memory()
        self.pyflow.load(path).evaluate_density(x, y)
        return {"before": before, "held": held, "peak": peak_memory(), "data": x.nbytes}


class Original:
    """The PyTorch implementation, from the checkout that PYFLOW_BENCH_TRENF names.

    It has no conditions, which spares it the network, and no third dimension. Batches, optimiser
    and loop are those of its train.py.
    """

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        sys.path.insert(0, str(Path(os.environ["PYFLOW_BENCH_TRENF"]) / "src"))
        import trenf

        self.torch, self.trenf = torch, trenf
        self.model = self.optimizer = self.batches = None

    def setup(self, mesh, n, batch, psi_knots, filter_knots):
        torch = self.torch
        torch.manual_seed(0)
        self.model = self.trenf.InvariantFlowModel(
            image_shape=(1, *mesh),
            n_layers=LAYERS,
            n_kernel_knots=filter_knots,
            n_nonlinearity_knots=psi_knots,
        )
        self.optimizer = torch.optim.Adamax(self.model.parameters(), lr=1e-4)
        x, _ = white_fields(n, mesh)
        self.batches = torch.from_numpy((x - x.mean()) / x.std())[:, None].split(batch)
        return {}

    def _all(self, function):
        with self.torch.no_grad():
            for x in self.batches:
                function(x)

    def _train(self):
        for x in self.batches:
            self.optimizer.zero_grad()
            loss = -self.model(x)[1].mean()
            loss.backward()
            self.optimizer.step()

    def _repeat(self, repeats, function, *args):
        fields = sum(map(len, self.batches))
        return {"flow": [timed(function, *args) for _ in range(repeats)], "fields": fields}

    def density(self, repeats):
        return self._repeat(repeats, self._all, self.model)

    def sample(self, repeats):
        return self._repeat(repeats, self._all, lambda z: self.model(z=z, reverse=True))

    def step(self, repeats):
        return self._repeat(repeats, self._train)


if __name__ == "__main__":
    kinds = {"pyflow": Pyflow, "original": Original}
    serve(lambda: kinds[sys.argv[1]](int(sys.argv[2])))
