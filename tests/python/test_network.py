"""The conditioning network and Adam against their slow twins, and against what they must obey."""

from ctypes import c_double, c_ssize_t, c_void_p

import numpy as np
import pytest
from ckernels import REALS
from numpy.testing import assert_allclose, assert_array_equal
from reference import adam, mlp

F32, F64 = np.float32, np.float64


class Network:
    """A network with normal weights and biases; `sizes` has inputs, hidden units and outputs."""

    def __init__(self, kernels, dtype, sizes):
        self.kernels, self.dtype, self.sizes = kernels, np.dtype(dtype), sizes
        hidden = np.array(sizes[1:-1], np.intp)
        new = sizes[0], hidden, len(hidden), sizes[-1]
        self.handle = c_void_p(kernels.real("mlp_new", dtype, *new, result=c_void_p))
        n_w = self.call("mlp_n_w", result=c_ssize_t)
        at = self.call("mlp_weights", result=c_void_p)
        buffer = (np.ctypeslib.as_ctypes_type(self.dtype) * n_w).from_address(at)
        self.w = np.ctypeslib.as_array(buffer)
        rng = np.random.default_rng(n_w)
        for weights, bias in mlp.split(self.w, sizes):
            weights[:] = rng.normal(scale=1.5 / np.sqrt(weights.shape[1]), size=weights.shape)
            bias[:] = rng.normal(size=bias.shape)
        self.x, self.gout = (rng.normal(size=(33, n)).astype(dtype) for n in (sizes[0], sizes[-1]))

    def __del__(self):
        self.call("mlp_free", result=None)

    def call(self, name, *args, **kwargs):
        return self.kernels.real(name, self.dtype, self.handle, *args, **kwargs)

    def run(self, rows=slice(None)):
        """Return out, dL/dw and dL/dx for those of the 33 rows."""
        x, gout = np.array(self.x[rows]), np.array(self.gout[rows])
        out, gw, gx = (np.full_like(a, np.nan) for a in (gout, self.w, x))
        assert not self.call("mlp", out, gw, gx, gout, x, len(x)), self.kernels.message()
        return out, gw, gx

    def twin(self, rows=slice(None)):
        w, x, gout = (np.asarray(a, float) for a in (self.w, self.x[rows], self.gout[rows]))
        return mlp.forward(w, self.sizes, x)[1], *mlp.vjp(w, self.sizes, x, gout)


# Blocks, vectors and pieces of every length: whole, with numbers left over, and of one number
SIZES = [
    (1, 1, 1),
    (2, 96, 192),
    (3, 7, 8, 9),
    (5, 300, 131, 203),
    (17, 97, 95, 33, 1),
]


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("rows", [1, 2, 5, 33])
def test_network_is_its_twin(kernels, level, sizes, dtype, rows):
    network = Network(kernels, dtype, sizes)
    for ours, twin in zip(network.run(slice(rows)), network.twin(slice(rows)), strict=True):
        error = np.abs(ours - twin).max() / np.abs(twin).max()
        assert error < (2e-6 if dtype == F32 else 5e-15)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("sizes", [*SIZES, (2, 512, 512, 1400)], ids=str)
def test_rows_do_not_see_each_other(kernels, level, sizes, dtype):
    """A row gives the same bits alone, among any number of others, and at any place."""
    network = Network(kernels, dtype, sizes)
    out, _, gx = network.run()
    assert np.isfinite(out).all()
    assert np.isfinite(gx).all()
    order = np.random.default_rng(1).permutation(33)
    subsets = [slice(n) for n in (1, 3, 16, 31, 32)] + [slice(i, i + 1) for i in range(33)]
    for rows in [*subsets, order, order[:6]]:
        some, _, gx_some = network.run(rows)
        assert_array_equal(some, out[rows])
        assert_array_equal(gx_some, gx[rows])


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("rows", [1, 33])
def test_threads_change_nothing(kernels, dtype, rows):
    network = Network(kernels, dtype, (2, 512, 512, 1400))
    results = []
    for threads in (1, 2, 5):
        kernels.call("k_set_num_threads", threads)
        results.append(network.run(slice(rows)))
    kernels.call("k_set_num_threads", 0)
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            assert_array_equal(a, b)


def test_gradient_by_finite_differences(kernels):
    network = Network(kernels, F64, (3, 30, 25, 40))
    rng = np.random.default_rng(2)
    _, gw, gx = network.run()
    for a, g in ((network.w, gw), (network.x, gx)):
        direction, before, value = rng.normal(size=a.shape), a.copy(), []
        for h in (1e-5, -1e-5):
            a[:] = before + h * direction
            value.append(np.sum(network.run()[0] * network.gout))
        a[:] = before
        assert_allclose(np.sum(g * direction), (value[0] - value[1]) / 2e-5, rtol=1e-7)


def test_single_precision_is_near_double(kernels):
    single, double = (Network(kernels, dtype, (2, 512, 512, 140)) for dtype in (F32, F64))
    double.w[:], double.x, double.gout = single.w, single.x.astype(F64), single.gout.astype(F64)
    for a, b in zip(single.run(), double.run(), strict=True):
        assert np.abs(a - b).max() < 2e-6 * np.abs(b).max()


@pytest.mark.parametrize("dtype", [F32, F64])
def test_saturated_units(kernels, level, dtype):
    """silu is h far above zero and next to 0 far below: nothing overflows."""
    network = Network(kernels, dtype, (1, 2, 2))
    network.w[:] = 1, 1, 0, 0, 1, 0, 0, 1, 0, 0
    for x, out, slope in ((3e4, 3e4, 1), (-3e4, 0, 0), (0, 0, 0.5)):
        network.x[:] = x
        network.gout[:] = 1
        got, _, gx = network.run()
        assert_allclose(got, np.full_like(got, out), rtol=1e-6, atol=1e-28)
        assert_allclose(gx, np.full_like(gx, 2 * slope), rtol=1e-6, atol=1e-28)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_first_weights(kernels, dtype):
    """Normal numbers of variance 2 / inputs from a stream a layer; the last layer gives 0."""
    network = Network(kernels, dtype, (2, 300, 5, 7))
    network.w[:] = 0
    network.call("mlp_draw", 3, 10, result=None)
    *hidden, (last, last_bias) = mlp.split(network.w, network.sizes)
    for i, (weights, bias) in enumerate(hidden):
        normals = np.empty(weights.size)
        kernels.call("k_normals", normals, 3, 10 + i, 0, normals.size, result=None)
        expected = normals.reshape(weights.shape) * np.sqrt(2 / weights.shape[1])
        assert_allclose(weights, expected, rtol=1e-6 if dtype == F32 else 1e-15)
        assert not bias.any()
    assert not last.any()
    assert not last_bias.any()
    assert not network.run()[0].any()


# ---- Adam ----------------------------------------------------------------------------------------


def climb(kernels, w, g, factor, rate, decay):
    w, square = w.copy(), np.empty(len(g))
    at = REALS[w.dtype] + "adam"
    assert not kernels.call(at, w, square, g, factor, rate, decay, len(g), w.size)
    return w, square


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("n", [1, 13, 40_001])
def test_adam_is_its_twin(kernels, level, dtype, n):
    rng = np.random.default_rng(n)
    w = rng.normal(size=n).astype(dtype)
    g = (rng.normal(size=(20, n)) * np.exp(rng.normal(scale=4, size=n))).astype(dtype)
    ours, square = climb(kernels, w, g, 0.7, 0.01, 0.3)
    twin = adam.steps(w, 0.7 * g.astype(float), 0.01, 0.3)
    tolerance = 1e-6 if dtype == F32 else 1e-14
    assert_allclose(ours, twin, rtol=0, atol=tolerance * np.abs(twin).max())
    assert_allclose(square, np.sum(g.astype(float) ** 2, axis=1), rtol=1e-12)


def test_adam_on_threads(kernels):
    rng = np.random.default_rng(5)
    w, g = rng.normal(size=300_000), rng.normal(size=(3, 300_000))
    results = []
    for threads in (1, 2, 5):
        kernels.call("k_set_num_threads", threads)
        results.append(climb(kernels, w, g, 1.0, 0.1, 0.0))
    kernels.call("k_set_num_threads", 0)
    for w_result, square in results[1:]:
        assert_array_equal(w_result, results[0][0])
        assert_array_equal(square, results[0][1])


def test_adam_steps(kernels):
    """The first step is the rate, whatever the length of the gradient; without gradient, none."""
    a = np.array([3.0, -200.0])
    first, _ = climb(kernels, np.zeros(2), a[None], 1.0, 0.01, 0.0)
    assert_allclose(first, 0.01 * np.sign(a), rtol=1e-8)
    still, _ = climb(kernels, a, np.zeros((5, 2)), 1.0, 0.01, 0.0)
    assert_array_equal(still, a)


def test_schedule(kernels):
    """A rise over the first tenth, then half a cosine: symmetric about its half, to zero."""
    rate = np.array(
        [kernels.call("k_cosine_schedule", i, 100, 0.1, result=c_double) for i in range(100)]
    )
    assert_allclose(rate[:10], (np.arange(10) + 0.5) / 10)
    assert_allclose(rate[10:], (1 + np.cos(np.pi * (np.arange(90) + 0.5) / 90)) / 2)
    assert_allclose(rate[10:] + rate[:9:-1], 1)


def test_clip(kernels):
    """A gradient is at most `clip` times the running mean of lengths, which counts it as such."""
    mean = np.zeros(1)

    def factor(length, clip):
        return kernels.call("k_clip", mean, float(length), float(clip), result=c_double)

    assert factor(10, 2) == 1
    assert mean == 10
    assert factor(15, 2) == 1
    assert_allclose(mean, 0.98 * 10 + 0.02 * 15)
    before = mean[0]
    assert_allclose(factor(1000, 2), 2 * before / 1000)
    assert_allclose(mean, (0.98 + 0.04) * before)
    assert factor(1e9, 0) == 1
