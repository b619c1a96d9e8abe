"""The core's kernels, built with tests/kernels/*.c into one library and called through ctypes."""

import ctypes
import os
import shlex
import subprocess
import sys
import sysconfig
from ctypes import CFUNCTYPE, POINTER, c_double, c_int, c_ssize_t, c_uint64, c_void_p
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "tests/kernels").glob("*.c"))
LIBRARY = ROOT / "build/tests/kernels.so"
KINDS = "linear", "asinh", "logit", "above", "below"
REALS = {np.dtype(np.float32): "k32_", np.dtype(np.float64): "k64_"}


def build():
    """Return the path of the shared library, made again if something it is made of is newer."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    archive = ROOT / "build/libpyflow.a"
    subprocess.run(["make", "-s", str(archive.relative_to(ROOT))], cwd=ROOT, env=env, check=True)
    made_of = [*SOURCES, archive, *ROOT.glob("csrc/*.h"), *ROOT.glob("tests/kernels/*.h")]
    if not LIBRARY.exists() or any(p.stat().st_mtime > LIBRARY.stat().st_mtime for p in made_of):
        LIBRARY.parent.mkdir(parents=True, exist_ok=True)
        cc = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[:1]
        libraries = ["pkg-config", "--cflags", "--libs", "fftw3", "fftw3f", "openblas"]
        flags = subprocess.run(libraries, capture_output=True, text=True, check=True).stdout.split()
        aside = LIBRARY.with_suffix(f".{os.getpid()}")
        sources = ["-Icsrc", "-Itests/kernels", "@csrc/cflags", *map(str, SOURCES), str(archive)]
        command = [*cc, "-shared", "-fPIC", *sources, *flags, "-lm", "-o", str(aside)]
        subprocess.run(command, cwd=ROOT, check=True)
        aside.replace(LIBRARY)  # so that two test runs at once do not load half a file
    return LIBRARY


def _convert(a):
    """Return what ctypes passes: an array's address, a whole number in 64 bits."""
    if isinstance(a, np.ndarray):
        assert a.flags.c_contiguous
        return c_void_p(a.ctypes.data)
    if a is None or isinstance(a, (int, np.integer)):
        return None if a is None else c_uint64(int(a))
    return c_double(a) if isinstance(a, float) else a


class Kernels:
    """call(name, ...) for any wrapper, with arrays for pointers; and layers as objects."""

    def __init__(self):
        self.library = ctypes.CDLL(str(build()))
        self.library.k_message.restype = ctypes.c_char_p

    def call(self, name, *args, result=c_int):
        """Call a wrapper whose name is whole, k_philox."""
        function = getattr(self.library, name)
        function.restype = result
        return function(*map(_convert, args))

    def real(self, name, dtype, *args, result=c_int):
        """Call a wrapper of one precision."""
        return self.call(REALS[np.dtype(dtype)] + name, *args, result=result)

    def message(self):
        """Return what the last call that failed said, once."""
        text = self.library.k_message().decode()
        self.library.k_forget_message()
        return text

    def simd_levels(self):
        """The instruction sets that this machine has, the plainest first."""
        most = self.call("k_simd", -1)
        return [level for level in (0, 2, 5) if level <= most]

    def spline(self, direction, x, knots):
        """Return y and log slope in the precision of x; direction is "forward" or "inverse"."""
        knots = np.ascontiguousarray(knots, x.dtype)
        y, slope = np.empty_like(x), np.empty(len(x))
        shape = knots.shape[-1], len(x)
        if self.real(f"rqs_{direction}", x.dtype, y, slope, x, knots, *shape):
            raise ValueError(self.message())
        return y, np.log(slope) if direction == "forward" else -np.log(slope)

    def ascend(self, a, value, gradient, steps, tolerance=0.0):
        """Climb from a[K][d]; value(a) and gradient(a) are Python functions."""
        a = np.array(a, dtype=float, order="C")
        array = np.ctypeslib.as_array

        def call_gradient(g, at):
            array(g, a.shape)[:] = gradient(array(at, a.shape).copy())

        pointer = POINTER(c_double)
        value_type = CFUNCTYPE(c_double, pointer)
        gradient_type = CFUNCTYPE(None, pointer, pointer)
        best = np.empty(1)
        callbacks = (
            value_type(lambda at: float(value(array(at, a.shape).copy()))),
            gradient_type(call_gradient),
        )
        assert not self.call("k_stiefel_ascend", a, best, *a.shape, steps, tolerance, *callbacks)
        return a, best[0]


class Layer:
    """A layer in one precision; parameters as the twins in reference/layers.py take them."""

    def __init__(self, kernels, kind, dtype, d, *parameters):
        self.kernels, self.dtype, self.d = kernels, np.dtype(dtype), d
        self.handle = getattr(self, f"_{kind}")(*parameters)
        assert self.handle, kernels.message()

    def __del__(self):
        if getattr(self, "handle", None):
            self._real("release", result=None)

    def _real(self, name, *args, result=c_int):
        handle = c_void_p(self.handle)
        return self.kernels.real(name, self.dtype, handle, *args, result=result)

    def _sliced(self, slices, knots):
        classes, k, _, m = knots.shape
        slices = None if slices is None else np.ascontiguousarray(slices, self.dtype)
        knots = np.ascontiguousarray(knots, self.dtype)
        shape = self.d, k, m, classes
        return self.kernels.real("sliced", self.dtype, slices, knots, *shape, result=c_void_p)

    def _affine(self, w, mean):
        w, mean = (np.ascontiguousarray(a, float) for a in (w, mean))
        inverse, log_det = np.linalg.inv(w), float(np.linalg.slogdet(w)[1])
        parameters = w, inverse, mean, log_det, self.d
        return self.kernels.real("affine", self.dtype, *parameters, result=c_void_p)

    def _columns(self, kinds, a, b):
        kinds = np.array([KINDS.index(k) for k in kinds], np.int32)
        a, b = (np.array(p, float) for p in (a, b))
        return self.kernels.real("columns", self.dtype, kinds, a, b, self.d, result=c_void_p)

    def _map(self, x, label, inverse):
        x, logj = np.array(x, self.dtype, order="C"), np.zeros(len(x))
        label = None if label is None else np.ascontiguousarray(label, np.int32)
        self._real("map", x, logj, label, inverse, len(x), result=None)
        return x, logj

    def forward(self, x, label=None):
        return self._map(x, label, 0)

    def inverse(self, x, label=None):
        return self._map(x, label, 1)

    def vjp(self, x, g, glogj, label=None):
        """Return dL/dx and dL/dtheta, for dL/dy = g and dL/dlogj = glogj."""
        g, x = np.array(g, self.dtype, order="C"), np.ascontiguousarray(x, self.dtype)
        gtheta = np.zeros(self._real("n_theta", result=c_ssize_t))
        label = None if label is None else np.ascontiguousarray(label, np.int32)
        self._real("vjp", g, gtheta, np.ascontiguousarray(glogj), x, label, len(x), result=None)
        return g, gtheta

    def model(self, x, label=None, classes=0):
        """Return z, logj, score and log p of a model of this layer."""
        real, x = self.kernels.real, np.ascontiguousarray(x, self.dtype)
        label = None if label is None else np.ascontiguousarray(label, np.int32)
        layers = np.array([self.handle], np.uintp)
        model = real("model", self.dtype, layers, 1, self.d, classes, result=c_void_p)
        z, score, logj, logp = (
            np.empty_like(x),
            np.empty_like(x),
            np.empty(len(x)),
            np.empty(len(x)),
        )
        at = c_void_p(model)
        failed = real("model_forward", self.dtype, at, z, logj, x, label, len(x))
        failed |= real("model_score", self.dtype, at, score, logp, x, label, len(x))
        real("model_free", self.dtype, at, result=None)
        assert not failed, self.kernels.message()
        return z, logj, score, logp


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
