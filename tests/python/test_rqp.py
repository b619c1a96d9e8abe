"""Splines of which every point has its own: at the knots, beyond them, and where bounds hold."""

import numpy as np
import pytest
from kernel_table import F32, F64, RQP, own_splines
from numpy.testing import assert_allclose, assert_array_equal
from reference import rqp

BOTH = pytest.mark.parametrize("dtype", [F32, F64])
BINS = pytest.mark.parametrize("bins", [1, 2, 5, 64])


def plain(n, bins, seed=1, spread=1.0):
    """Return q[n][size] with t = s = 0, so that u is x."""
    q = own_splines(np.random.default_rng(seed), n, bins, spread).reshape(n, -1)
    q[:, :2] = 0
    return q


@BINS
def test_a_spline_passes_through_its_knots_with_their_slopes(kernels, level, bins):
    n = 16 * (bins + 1)
    q = np.tile(plain(1, bins), (n, 1))
    x, y, slopes = rqp.knots(q[0])
    for nudge in (-1e-11, 0, 1e-11):
        for direction, at, to, log in ((0, x, y, np.log(slopes)), (1, y, x, -np.log(slopes))):
            given = np.tile(at + nudge, 16)
            moved, log_slope = RQP(kernels, F64, bins).run(given, q.ravel(), direction)
            assert_allclose(moved, np.tile(to, 16), atol=1e-7)
            assert_allclose(log_slope, np.tile(log, 16), atol=1e-5)


@BINS
@BOTH
def test_beyond_the_knots_it_is_a_straight_line(kernels, level, bins, dtype):
    far = np.finfo(dtype).max / 1e4
    u = np.array([-5.0001, 5.0001, 5, 7, -7, 1e3, -1e3, 1e10, -1e10, far, -far, *np.arange(5) + 6])
    q = own_splines(np.random.default_rng(2), 16, bins).reshape(16, -1)
    q[:, 0] = 0
    s = q[:, 1] = np.round(64 * q[:, 1]) / 64  # the same in either precision
    kernel = RQP(kernels, dtype, bins)
    x = (u * np.exp(s) * np.where(u == 5, 1 + 1e-6, 1)).astype(dtype)
    y, logj = kernel.forward(x, q.ravel())
    eps = 10 * np.finfo(dtype).eps
    assert_allclose(y, x * np.exp(-s), rtol=eps)
    assert_allclose(logj, -s, rtol=eps)
    back, logj_back = kernel.inverse(y, q.ravel())
    assert_allclose(back, x, rtol=eps)
    assert_allclose(logj_back, -s, rtol=eps)


@BINS
@BOTH
def test_gradients_of_what_is_far_out_are_those_of_a_line(kernels, level, bins, dtype):
    """Nothing overflows on the way, and nothing but t and s matters."""
    far = np.sqrt(np.finfo(dtype).max) * 100
    x = far * np.array([1, -1, 0.1, -0.1] * 4)
    q, gtheta = plain(16, bins), np.zeros(16 * (3 * bins + 1))
    gx = RQP(kernels, dtype, bins).vjp(x, q.ravel(), np.ones(16), np.full(16, 2.0), gtheta)
    assert_array_equal(gx, 1)
    of = gtheta.reshape(q.shape)
    assert_array_equal(of[:, 0], -1)
    assert_allclose(of[:, 1], -x, rtol=1e-6)
    assert_array_equal(of[:, 2:], 0)


@BINS
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (F32, 3e-3)])
def test_splines_of_any_parameters_are_monotone_and_have_an_inverse(
    kernels, level, bins, dtype, tolerance
):
    """Bins as narrow, and slopes as large and as small, as there can be."""
    rng, n = np.random.default_rng(3), 16 * 200
    kernel = RQP(kernels, dtype, bins)
    for spread in (1, 5, 30, 1e3):
        q = np.tile(plain(1, bins, rng.integers(99), spread), (n, 1)).ravel()
        x = np.sort(rng.uniform(-5.5, 5.5, n)).astype(dtype)
        x[-1], x[-2], x[0] = np.nextafter(dtype(5), dtype(0)), 5, -5
        x.sort()
        y, logj = kernel.forward(x, q)
        assert np.isfinite(logj).all()
        assert np.diff(y).min() > -1e-4 * (dtype == F32) - 1e-12
        back, logj_back = kernel.inverse(y, q)
        assert np.isfinite(logj_back).all()
        # rounding of y, as the inverse enlarges it, and of x
        allowed = tolerance + 100 * np.finfo(dtype).eps * np.exp(-logj)
        assert (abs(back - x) < allowed).all()
        assert abs(logj).max() < 25


@BOTH
def test_where_an_end_is_steep_the_inverse_is_as_exact(kernels, level, dtype):
    """The quadratic formula: one of its forms cancels where slopes at ends are far apart."""
    bins, n = 2, 16 * 20
    q = np.zeros((n, 3 * bins + 1))

    eps = np.finfo(dtype).eps
    for wide, low in ((1, 0), (0, 1)):
        for slope in (-7.0, 7.0):
            q[:, 2:6] = 0
            q[:, 2 + wide], q[:, 4 + low], q[:, 6] = 9, 9, slope
            x = np.linspace(-4.999, 4.999, n).astype(dtype)
            kernel = RQP(kernels, dtype, bins)
            y, logj = kernel.forward(x, q.ravel())
            back, _ = kernel.inverse(y, q.ravel())
            assert (abs(back - x) < 100 * eps * (1 + np.exp(-logj))).all()


@BOTH
def test_bounds_of_slopes_and_scales_hold_and_have_no_gradient(kernels, level, dtype):
    bins, n = 4, 16
    kernel, rng = RQP(kernels, dtype, bins), np.random.default_rng(4)
    for column, most, start in ((1, 30, 0), (3 + 2 * bins, 7, 0)):
        for sign in (1, -1):
            q = plain(n, bins)
            x = rng.uniform(-4, 4, n)
            if column == 1:
                x *= np.exp(30 * sign)
            q[:, column] = sign * (most + start)
            at = kernel.forward(x, q.ravel())
            q[:, column] = sign * (most + 50)
            beyond = kernel.forward(x, q.ravel())
            assert_array_equal(at, beyond)
            gtheta = np.zeros(q.size)
            gx = kernel.vjp(x, q.ravel(), np.ones(n), np.ones(n), gtheta)
            assert np.isfinite(gx).all()
            assert np.isfinite(gtheta).all()
            assert_array_equal(gtheta.reshape(q.shape)[:, column], 0)
            assert np.abs(gtheta).max() > 0


@BOTH
def test_points_do_not_see_each_other_and_what_is_no_number_stays_none(kernels, level, dtype):
    bins, n = 3, 32
    kernel, rng = RQP(kernels, dtype, bins), np.random.default_rng(5)
    x, q = rng.normal(size=n), plain(n, bins)
    whole = kernel.forward(x, q.ravel())
    x[::2] = np.nan
    q[1::4] = np.nan
    for a, b in zip(kernel.forward(x, q.ravel()), whole, strict=True):
        assert_array_equal(a[3::4], b[3::4])
    for run in (kernel.forward, kernel.inverse):
        y, _ = run(x, q.ravel())
        assert np.isnan(y[::2]).all()
        assert np.isnan(y[1::4]).all()
