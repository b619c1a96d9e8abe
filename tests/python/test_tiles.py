"""Tiles: loading, turning, storing, and the products and sums that layers make of them."""

from ctypes import c_double, c_int, c_ssize_t

import numpy as np
import pytest
from kernel_table import F32, F64
from layer_kinds import (
    COLUMNS,
    ROWS,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

BOTH = pytest.mark.parametrize("dtype", [F32, F64])
LAYOUTS = pytest.mark.parametrize("layout", [COLUMNS, ROWS], ids=["columns", "rows"])


def whole(n):
    return -(-n // 16) * 16


def through(kernels, rows, layout, turns):
    """Return the rows again, the tile's memory [lines][ld], log p, and whether all are finite."""
    n, d = rows.shape
    memory = np.zeros(max(n * whole(d), d * whole(n)), rows.dtype)
    out, logp = np.empty_like(rows), np.empty(n)
    given = out, memory, rows, logp, layout, turns, n, d
    finite = kernels.real("tile_through", rows.dtype, *given, result=c_int)
    assert finite in (0, 1)  # -1: written past the end
    lines, length = (n, d) if (layout == ROWS) ^ (turns % 2) else (d, n)
    return out, memory[: lines * whole(length)].reshape(lines, whole(length)), logp, bool(finite)


@BOTH
@LAYOUTS
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 40), (17, 5), (16, 16), (33, 70), (256, 3)])
def test_tile_is_loaded_turned_and_stored(kernels, dtype, layout, turns, n, d):
    rows = np.random.default_rng(1).normal(size=(n, d)).astype(dtype)
    out, memory, logp, finite = through(kernels, rows, layout, turns)
    assert finite
    assert_array_equal(out, rows)
    in_rows = (layout == ROWS) ^ (turns % 2)
    if in_rows:
        assert_array_equal(memory[:, :d], rows)
    else:
        assert_array_equal(memory[:, :n], rows.T)
        assert_array_equal(memory[:, n:], 0)  # what pads columns
    assert_allclose(logp, stats.norm.logpdf(rows.astype(F64)).sum(axis=1), rtol=1e-13)


@BOTH
@LAYOUTS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_seen(kernels, dtype, layout, bad):
    for place in (0, 1, 36, 84):
        rows = np.ones((17, 5), dtype)
        rows.flat[place] = bad
        assert not through(kernels, rows, layout, 0)[3]
    rows.flat[84] = np.finfo(dtype).max
    assert through(kernels, rows, layout, 0)[3]


def test_rows_of_a_tile_fill_the_cache_and_no_more(kernels):
    for dtype in (F32, F64):
        for d in (1, 2, 20, 64, 100, 1000, 10**6):
            rows = kernels.real("tile_rows", dtype, d, result=c_ssize_t)
            assert rows % 16 == 0
            assert 32 <= rows <= 256
            bytes_of = rows * d * np.dtype(dtype).itemsize
            assert bytes_of <= 128 * 1024 or rows == 32
            assert 2 * bytes_of > 128 * 1024 - 2 * 16 * d * 8 or rows == 256


SHAPES = [(1, 16, 1), (3, 32, 5), (4, 16, 9), (7, 256, 20), (21, 48, 21), (2, 64, 0)]


@BOTH
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("add", [0, 1])
def test_product_is_numpys(kernels, at_every_level, dtype, m, n, k, transposed, add):
    rng = np.random.default_rng(1)
    a = rng.normal(size=(k, m) if transposed else (m, k)).astype(dtype)
    x = np.full((k, n + 16), np.nan, dtype)
    x[:, :n] = rng.normal(size=(k, n))
    start = rng.normal(size=(m, n + 32)).astype(dtype)
    strides = (1, m) if transposed else (k, 1)
    expected = (a.T if transposed else a).astype(F64) @ x[:, :n] + (start[:, :n] if add else 0)
    for _ in at_every_level:
        y = start.copy()
        kernels.real("tile_product", dtype, y, a, x, add, m, n, k, *strides, n + 32, n + 16)
        eps = np.finfo(dtype).eps * (k + 1)
        assert_allclose(y[:, :n], expected, rtol=eps, atol=8 * eps)
        assert_array_equal(y[:, n:], start[:, n:])


@BOTH
def test_a_column_of_a_product_depends_on_that_column_alone(kernels, at_every_level, dtype):
    rng, (m, n, k) = np.random.default_rng(2), (7, 64, 30)
    a, x = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
    for _ in at_every_level:
        results = []
        for columns in (np.arange(n), rng.permutation(n), rng.permutation(n)[:16]):
            part, y = x[:, columns].copy(), np.zeros((m, len(columns)), dtype)
            sizes = m, len(columns), k, k, 1, len(columns), len(columns)
            kernels.real("tile_product", dtype, y, a, part, 0, *sizes)
            results.append((columns, y))
        for columns, y in results[1:]:
            assert_array_equal(y, results[0][1][:, columns])


@BOTH
@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 1, 1), (3, 2, 5), (2, 7, 16), (5, 5, 37), (3, 4, 256)]
)
def test_outer_product_is_numpys(kernels, at_every_level, dtype, m, k, n):
    rng = np.random.default_rng(3)
    a, b = (np.full((rows, whole(n) + 16), np.nan, dtype) for rows in (m, k))
    a[:, :n], b[:, :n] = rng.normal(size=(m, n)), rng.normal(size=(k, n))
    start = rng.normal(size=(m, k))
    expected = start + a[:, :n].astype(F64) @ b[:, :n].T.astype(F64)
    for _ in at_every_level:
        g = start.copy()
        kernels.real("tile_outer", dtype, g, a, b, m, k, n, a.shape[1], b.shape[1])
        assert_allclose(
            g, expected, rtol=1e-6 if dtype == F32 else 1e-14, atol=np.finfo(dtype).eps * n
        )


@BOTH
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000])
def test_sums_and_scales_are_numpys(kernels, at_every_level, dtype, n):
    x = np.random.default_rng(4).normal(size=n).astype(dtype)
    for _ in at_every_level:
        square = kernels.real("sum_squares", dtype, x, n, result=c_double)
        assert_allclose(square, np.sum(x.astype(F64) ** 2), rtol=1e-14)
        for y in (np.full(n + 1, np.nan, dtype), np.append(x, np.nan).astype(dtype)):
            at = x if np.isnan(y[:1]).all() else y  # apart, or in place
            kernels.real("scale_shift", dtype, y, at, 2.5, -0.75, n)
            assert_allclose(y[:n], 2.5 * x.astype(F64) - 0.75, rtol=1e-6, atol=1e-6)
            assert np.isnan(y[n])


@pytest.mark.parametrize("n", [1, 2, 3, 10, 70])
def test_inverse_is_numpys(kernels, n):
    rng = np.random.default_rng(5)
    a = rng.normal(size=(n, n))
    inverse = a.copy()
    log_det = kernels.call("k_inverse", inverse, n, result=c_double)
    assert_allclose(inverse, np.linalg.inv(a), rtol=1e-9, atol=1e-9)
    assert_allclose(log_det, np.linalg.slogdet(a)[1], rtol=1e-12, atol=1e-12)
    assert kernels.call("k_inverse", np.diag(np.arange(float(n))), n, result=c_double) == -np.inf
