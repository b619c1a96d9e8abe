"""The core's kernels, built with tests/kernels/*.c into one library and called through ctypes."""

import ctypes
import os
import shlex
import subprocess
import sys
import sysconfig
from ctypes import CFUNCTYPE, POINTER, c_double, c_int, c_uint64, c_void_p
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

    def spline_theta(self, knots):
        """Return theta[..., 3 m] of the splines through knots[..., 3, m]."""
        knots = np.array(knots, float, order="C")
        *shape, _, m = knots.shape
        theta = np.empty((*shape, 3 * m))
        for k, t in zip(knots.reshape(-1, 3, m), theta.reshape(-1, 3 * m), strict=True):
            self.call("k_rqs_theta", t, k, m, result=None)
        return theta

    def spline_knots(self, theta, dtype):
        """Return the knots[3, m] that are made of theta[3 m]."""
        theta = np.ascontiguousarray(theta, float)
        knots = np.empty((3, len(theta) // 3), dtype)
        self.real("rqs_knots", dtype, knots, theta, knots.shape[1], result=None)
        return knots

    def spline(self, direction, x, theta):
        """Return y and log slope in the precision of x; direction is "forward" or "inverse"."""
        theta = np.ascontiguousarray(theta, float)
        y, slope = np.empty_like(x), np.empty(len(x))
        shape = len(theta) // 3, len(x)
        self.real(f"rqs_{direction}", x.dtype, y, slope, x, theta, *shape, result=None)
        return y, np.log(slope) if direction == "forward" else -np.log(slope)

    def spline_vjp(self, x, g, gl, theta, gtheta):
        """Return dL/dx, for dL/dy = g and dL/dlog y' = gl; gtheta += dL/dtheta, or None."""
        theta = np.ascontiguousarray(theta, float)
        g, gl = np.array(g, x.dtype), np.ascontiguousarray(gl, float)
        shape = len(theta) // 3, len(x)
        self.real("rqs_vjp", x.dtype, g, gtheta, gl, x, theta, *shape, result=None)
        return g

    def column(self, direction, x, kind, a, b):
        """Return what one column's map makes of x, and the logarithm of its slope."""
        x, slope, logj = x.copy(), np.ones(len(x)), np.zeros(len(x))
        column = KINDS.index(kind), float(a), float(b)
        self.real(f"column_{direction}", x.dtype, x, slope, logj, *column, len(x), result=None)
        sign = {"forward": 1, "inverse": -1}[direction]
        return x, np.log(slope) + logj + sign * self.call(
            "k_column_constant", *column, result=c_double
        )

    def column_vjp(self, x, g, gl, kind, a, b):
        """Return dL/dx, for dL/dz = g and dL/d log(dz/dx) = gl."""
        g, gl = np.array(g, x.dtype), np.ascontiguousarray(gl, float)
        column = KINDS.index(kind), float(a), float(b)
        self.real("column_vjp", x.dtype, g, gl, x, *column, len(x), result=None)
        return g

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


if __name__ == "__main__":
    sys.stdout.write(f"{build()}\n")
