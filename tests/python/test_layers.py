"""Every layer of a stack against its slow twin, and against what it must obey."""

import os
import subprocess
import sys

import numpy as np
import pytest
from ckernels import Layer
from kernel_table import crowded, knots
from numpy.testing import assert_allclose, assert_array_equal
from reference import layers

F32, F64 = np.float32, np.float64


def slices(rng, k, d):
    return np.linalg.qr(rng.normal(size=(d, k)))[0].T


BOUNDED = ["linear", "asinh", "logit", "above", "below"], [1, -1, -4, -6, 7], [2, 0.5, 5, 2, 0.7]

# name: (kind, d, classes, parameters)
TABLE = {
    "one column": ("sliced", 1, 1, lambda r: (None, knots(r, 1, 1))),
    "two knots": ("sliced", 2, 1, lambda r: (None, knots(r, 1, 2, m=2))),
    "crowded knots": ("sliced", 3, 1, lambda r: (None, crowded(r, 1, 3))),
    "all columns": ("sliced", 4, 1, lambda r: (None, knots(r, 1, 4))),
    "columns, classes": ("sliced", 3, 3, lambda r: (None, knots(r, 3, 3))),
    "one slice": ("sliced", 5, 1, lambda r: (slices(r, 1, 5), knots(r, 1, 1))),
    "many slices": ("sliced", 9, 1, lambda r: (slices(r, 9, 9), knots(r, 1, 9, m=50))),
    "crowded slices": ("sliced", 4, 1, lambda r: (slices(r, 2, 4), crowded(r, 1, 2))),
    "slices, classes": ("sliced", 4, 3, lambda r: (slices(r, 2, 4), knots(r, 3, 2))),
    "affine": ("affine", 4, 1, lambda r: (r.normal(size=(4, 4)) + 2 * np.eye(4), r.normal(size=4))),
    "affine, flipped": ("affine", 2, 1, lambda r: (np.array([[0, 2.0], [1, 0.3]]), np.ones(2))),
    "column maps": ("columns", 5, 1, lambda r: BOUNDED),
}


class Case:
    """A layer of the table with points; every test sees the same ones."""

    def __init__(self, kernels, name):
        self.kernels = kernels
        self.kind, self.d, self.classes, make = TABLE[name]
        self.rng = np.random.default_rng(sum(name.encode()))
        self.parameters = make(self.rng)

    def points(self, n):
        x = self.rng.normal(scale=1.5, size=(n, self.d))
        if self.kind == "columns":
            x[:, 2] = self.rng.uniform(-3.99, 4.99, n)
            x[:, 3] = np.clip(x[:, 3], -5.9, None)
            x[:, 4] = np.clip(x[:, 4], None, 6.9)
        label = self.rng.integers(0, self.classes, n) if self.classes > 1 else None
        return x, label

    def layer(self, dtype=F64, parameters=None):
        return Layer(self.kernels, self.kind, dtype, self.d, *(parameters or self.parameters))

    def twin(self, x, label):
        if self.kind != "sliced":
            return getattr(layers, self.kind)(*self.parameters, x)
        a, k = self.parameters
        return layers.sliced(np.eye(self.d) if a is None else a, k, x, label)


@pytest.fixture(params=TABLE)
def case(request, kernels):
    return Case(kernels, request.param)


def test_layer_is_its_twin(case):
    x, label = case.points(400)  # more than one tile, the last one not full
    y, logj = case.layer().forward(x, label)
    expected, expected_logj = case.twin(x, label)
    assert_allclose(y, expected, rtol=1e-11, atol=1e-11)
    assert_allclose(logj, expected_logj, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-11), (F32, 3e-4)])
def test_inverse_undoes_forward(case, dtype, tolerance):
    layer = case.layer(dtype)
    x, label = case.points(400)
    y, logj = layer.forward(x, label)
    back, minus_logj = layer.inverse(y, label)
    assert not np.allclose(y, x, atol=0.05)
    assert_allclose(back, x, rtol=tolerance, atol=tolerance)
    assert_allclose(minus_logj, -logj, rtol=tolerance, atol=10 * tolerance)


def numerical_jacobian(layer, x, label, step=1e-6):
    columns = []
    for j in range(x.shape[1]):
        at = np.zeros_like(x)
        at[:, j] = step
        columns.append(
            (layer.forward(x + at, label)[0] - layer.forward(x - at, label)[0]) / 2 / step
        )
    return np.stack(columns, axis=2)


def test_log_determinant_is_that_of_the_jacobian(case):
    layer = case.layer()
    x, label = case.points(40)
    numerical = np.linalg.slogdet(numerical_jacobian(layer, x, label))[1]
    assert_allclose(layer.forward(x, label)[1], numerical, rtol=1e-5, atol=1e-6)


def loss(layer, x, label, g, glogj):
    y, logj = layer.forward(x, label)
    return np.sum(g * y) + np.sum(glogj * logj)


def test_vjp_of_the_input_is_the_gradient(case):
    layer = case.layer()
    x, label = case.points(40)
    g, glogj = case.rng.normal(size=x.shape), case.rng.normal(size=len(x))
    gx, _ = layer.vjp(x, g, glogj, label)
    step = 1e-6
    for j in range(case.d):
        at = np.zeros_like(x)
        at[:, j] = step
        (up, logj_up), (down, logj_down) = (
            layer.forward(x + at, label),
            layer.forward(x - at, label),
        )
        slope = np.sum(g * (up - down), axis=1) + glogj * (logj_up - logj_down)
        assert_allclose(gx[:, j], slope / 2 / step, rtol=1e-5, atol=1e-5)


def test_vjp_of_the_parameters_is_the_gradient(case):
    if case.kind == "columns":
        assert case.layer().vjp(*[np.ones((1, 5))] * 2, np.ones(1))[1].size == 0
        return
    x, label = case.points(60)
    g, glogj = case.rng.normal(size=x.shape), case.rng.normal(size=len(x))
    _, gtheta = case.layer().vjp(x, g, glogj, label)
    # theta is knots, then slices; or W, then the mean
    order = (1, 0) if case.kind == "sliced" else (0, 1)
    places = [
        (which, i)
        for which in order
        if case.parameters[which] is not None
        for i in range(case.parameters[which].size)
    ]
    assert gtheta.size == len(places)
    for at in case.rng.permutation(len(places))[:60]:
        which, i = places[at]
        values, step = [], 1e-6 * max(1, abs(case.parameters[which].flat[i]))
        for sign in (1, -1):
            moved = [None if p is None else p.copy() for p in case.parameters]
            moved[which].flat[i] += sign * step
            values.append(loss(case.layer(parameters=moved), x, label, g, glogj))
        slope = (values[0] - values[1]) / 2 / step
        assert_allclose(gtheta[at], slope, rtol=1e-4, atol=1e-6 * max(np.abs(gtheta).max(), 10))


def test_vjp_adds_to_the_parameters_gradient(case):
    x, label = case.points(300)
    g, glogj = case.rng.normal(size=x.shape), case.rng.normal(size=len(x))
    layer = case.layer()
    whole = layer.vjp(x, g, glogj, label)[1]
    halves = [
        layer.vjp(x[rows], g[rows], glogj[rows], None if label is None else label[rows])[1]
        for rows in (slice(0, 130), slice(130, 300))
    ]
    assert_allclose(sum(halves), whole, rtol=1e-9, atol=1e-9)


def test_float32_is_float64_rounded(case):
    x, label = case.points(400)
    x = x.astype(F32).astype(F64)
    g, glogj = case.rng.normal(size=x.shape), case.rng.normal(size=len(x))
    one, two = case.layer(F32), case.layer(F64)
    for a, b in zip(one.forward(x, label), two.forward(x, label), strict=True):
        assert_allclose(a, b, rtol=2e-4, atol=2e-4)
    gx, gtheta = one.vjp(x, g, glogj, label)
    gx64, gtheta64 = two.vjp(x, g, glogj, label)
    # a point that rounding carries over a knot sees another curvature: a few may differ
    assert np.mean(np.abs(gx - gx64) > 2e-3 * (1 + np.abs(gx64))) < 0.02
    assert_allclose(gtheta, gtheta64, rtol=0.02, atol=0.02 * np.abs(gtheta64).max(initial=1))


@pytest.mark.parametrize("dtype", [F32, F64])
def test_threads_change_nothing(case, dtype):
    x, label = case.points(3000)
    layer = case.layer(dtype)
    results = []
    for threads in (1, 2, 5):
        case.kernels.call("k_set_num_threads", threads)
        results.append(layer.model(x, label, case.classes if case.classes > 1 else 0))
    case.kernels.call("k_set_num_threads", 0)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_array_equal(a, b)


def test_instruction_sets_agree(case):
    x, label = case.points(500)
    g, glogj = case.rng.normal(size=x.shape), case.rng.normal(size=len(x))
    levels, results = case.kernels.simd_levels(), []
    for level in levels:
        before = case.kernels.call("k_simd", level)
        for dtype in (F64, F32):
            layer = case.layer(dtype)
            y, logj = layer.forward(x, label)
            results.append((y, logj, layer.inverse(y, label)[0], layer.vjp(x, g, glogj, label)[0]))
        case.kernels.call("k_simd", before)
    for i, result in enumerate(results[2:]):
        for a, b in zip(results[i % 2][:3], result[:3], strict=True):
            assert_allclose(
                a, b, **[{"rtol": 1e-11, "atol": 1e-11}, {"rtol": 3e-4, "atol": 3e-4}][i % 2]
            )
        if i % 2 == 0:
            assert_allclose(results[0][3], result[3], rtol=1e-9, atol=1e-9)


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
