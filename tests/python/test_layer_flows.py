"""Flows of layers: they do what their layers do, on any number of threads, and from a file too."""

import os
import subprocess
import sys
from ctypes import c_int, c_void_p

import numpy as np
import pytest
from kernel_table import F32, F64, Case
from layer_kinds import (
    TILE,
    Affine,
    Coupling,
    Scale,
    Shift,
    Sliced,
    Symmetric,
)
from layer_table import (
    TABLE,
    affine_theta,
    sliced_theta,
    symmetric_theta,
)
from numpy.testing import assert_allclose, assert_array_equal

BOTH = pytest.mark.parametrize("dtype", [F32, F64])


@pytest.fixture(params=TABLE)
def case(request, kernels):
    return Case(kernels, request.param, TABLE)


class Flow:
    """A flow of layers in one precision, for points x[n][d]."""

    def __init__(self, layers, thetas):
        self.layers, first = layers, layers[0]
        self.real, self.dtype, self.classes = first.real, first.dtype, first.classes
        space, box = first.space, [*first.box, *[1.0] * 3]
        theta = np.concatenate([np.zeros(0), *(t for t in thetas if t is not None)])
        handles = np.array([layer.handle.value for layer in layers], np.uintp)
        shape = len(space), np.array(space), np.array(box, float)
        classes = self.classes if self.classes > 1 else 0
        new = handles, len(layers), theta, *shape, classes
        self.handle = c_void_p(self.real("flow", *new, result=c_void_p))
        assert self.handle, first.kernels.message()

    def __del__(self):
        if getattr(self, "handle", None):
            self.real("flow_free", self.handle)

    def copy(self):
        """Return the flow that a file holds of it."""
        copy = object.__new__(Flow)
        copy.__dict__.update(self.__dict__, handle=None)
        copy.handle = c_void_p(self.real("flow_copy", self.handle, result=c_void_p))
        return copy

    def results(self, x, label=None, context=None, y=None):
        """Return z, logj, x again, its logj, the score and log p."""
        context = None if context is None else np.array(context, self.dtype, order="C")
        x = np.array(x, self.dtype, order="C")
        many = [np.full_like(x, np.nan) for _ in range(3)]
        one = [np.full(len(x), np.nan) for _ in range(3)]
        out = [a for pair in zip(many, one, strict=True) for a in pair]
        failed = self.real(
            "flow_run", self.handle, *out, x, label, context, y, len(x), result=c_int
        )
        assert not failed, self.layers[0].kernels.message()
        return out


def flow_of(case, dtype):
    layer = case.kernel(dtype)
    theta = case.theta
    if layer.own_tables:  # a flow has these from a network alone
        theta = theta[: layer.n_theta]
        layer.own_tables = False
    return layer, theta, Flow([layer], [theta])


@BOTH
def test_flow_of_one_layer_is_that_layer(case, dtype):
    layer, theta, flow = flow_of(case, dtype)
    n = len(case.x)
    given = layer.labels(n), layer.context(n), layer.conditions(n)
    z, logj, back, back_logj, score, logp = flow.results(case.x, *given)
    y, expected = layer.forward(case.x, theta)
    assert_array_equal(z, y)
    assert_array_equal(logj, expected)
    x, minus_logj, _ = layer.tiles(y, theta, inverse=1)
    assert_array_equal(back, x)
    assert_array_equal(back_logj, minus_logj)
    eps = np.finfo(dtype).eps
    normal = -0.5 * (np.sum(y.astype(F64) ** 2, axis=1) + layer.d * np.log(2 * np.pi))
    assert_allclose(logp, normal + logj, rtol=10 * eps, atol=10 * eps)
    gx = layer.vjp(case.x, theta, -y, np.ones(n), None)
    assert_array_equal(score, gx)


@BOTH
def test_threads_change_nothing(case, dtype):
    layer, _, flow = flow_of(case, dtype)
    x = case.x[np.arange(3 * TILE + 5) % len(case.x)]
    given = layer.labels(len(x)), layer.context(len(x)), layer.conditions(len(x))
    results = []
    for threads in (1, 2, 5):
        case.kernels.call("k_set_num_threads", threads)
        results.append(flow.results(x, *given))
    case.kernels.call("k_set_num_threads", 0)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_array_equal(a, b)


@BOTH
def test_flow_comes_back_from_its_file(case, dtype):
    layer, _, flow = flow_of(case, dtype)
    copy = flow.copy()
    if layer.kind() == "example":  # no kind of the library's
        assert not copy.handle
        assert "no kind that is known" in case.kernels.message()
        return
    assert copy.handle, case.kernels.message()
    n = len(case.x)
    given = case.x, layer.labels(n), layer.context(n), layer.conditions(n)
    for a, b in zip(flow.results(*given), copy.results(*given), strict=True):
        assert_array_equal(a, b)


def mixed(kernels, dtype, n=(4, 6)):
    """Return layers of both layouts, with their parameters."""
    rng, box = np.random.default_rng(5), [1.0] * len(n)
    d = int(np.prod(n))
    layers = [
        (Symmetric(kernels, dtype, n, box, 8, 9), symmetric_theta(rng, 8, 9)),
        (Scale(kernels, dtype, d, 0.3, 1.7), None),
        (Sliced(kernels, dtype, d, 3, 7, 1), sliced_theta(rng, d, 3, 7, 1)),
        (Affine(kernels, dtype, d), 0.3 * affine_theta(rng, d)),
        (Shift(kernels, dtype, n, box, (1, 3, 4), 5), 0.3 * rng.normal(size=13)),
        (Coupling(kernels, dtype, n, box, 0.6, 1, 2, 4), 0.3 * rng.normal(size=16)),
        (Symmetric(kernels, dtype, n, box, 5, 4), symmetric_theta(rng, 5, 4)),
    ]
    return zip(*layers, strict=True)


@pytest.mark.parametrize("n", [(4, 6), (5, 5), (3, 2, 4)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-11), (F32, 3e-4)])
def test_layers_of_both_layouts_follow_each_other(kernels, n, dtype, tolerance):
    layers, thetas = mixed(kernels, dtype, n)
    x = np.random.default_rng(6).normal(size=(45, layers[0].d))  # tiles of 16, the last of 13
    flow = Flow(list(layers), thetas)
    context = next(layer for layer in layers if isinstance(layer, Shift)).context(len(x))
    z, logj, back, back_logj, score, logp = flow.results(x, None, context)
    y, expected = layers[0].array(x), np.zeros(len(x))
    kept = []
    for layer, theta in zip(layers, thetas, strict=True):
        kept.append(y)
        y, more = layer.forward(y, theta)
        expected += more
    assert_allclose(z, y, rtol=tolerance, atol=tolerance)
    assert_allclose(logj, expected, rtol=tolerance, atol=tolerance)
    assert_allclose(back, x, rtol=100 * tolerance, atol=100 * tolerance)
    assert_allclose(back_logj, -logj, rtol=100 * tolerance, atol=100 * tolerance)
    g = -y
    for layer, theta, at in reversed(list(zip(layers, thetas, kept, strict=True))):
        g = layer.vjp(at, theta, g, np.ones(len(x)), None)
    size = np.abs(g).max()
    assert_allclose(score, g, rtol=tolerance, atol=100 * tolerance * size)
    for a, b in zip(
        flow.copy().results(x, None, context), flow.results(x, None, context), strict=True
    ):
        assert_array_equal(a, b)
    alone = flow.results(x[20:21], None, context[20:21])
    for a, b in zip(alone, (z, logj, back, back_logj, score, logp), strict=True):
        assert_array_equal(a[0], b[20])


PRINT_DENSITIES = """
import numpy as np, pyflow
x = np.random.default_rng(0).gamma(3, size=(3000, 3))
model = pyflow.GIS(x, max_layers=3, verbose=False)
logp = model.evaluate_density(x)
print(*logp[:300].tolist(), *model.sample(50, seed=1)[0].ravel().tolist())
"""


def test_instruction_sets_agree_on_a_fit():
    results = [
        subprocess.run(
            [sys.executable, "-c", PRINT_DENSITIES],
            env={**os.environ, "PYFLOW_SIMD": level},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for level in ("0", "2", "5")
    ]
    numbers = [np.array(r.split(), float) for r in results]
    assert len(numbers[0]) == 450
    # a row that rounding carries over the edge of a bin changes a count by one in 3000
    for other in numbers[1:]:
        assert_allclose(other, numbers[0], rtol=2e-2, atol=2e-2)
        assert np.mean(np.abs(other - numbers[0])) < 2e-3
