"""One-dimensional splines: at their knots, at their ends and beyond, and with knots that are bad."""

import numpy as np
import pytest
from kernel_table import F32, F64, crowded, knots
from numpy.testing import assert_allclose
from reference import rqs


@pytest.mark.parametrize("make", [knots, crowded])
def test_spline_inverse_is_its_twin(kernels, make):
    rng = np.random.default_rng(1)
    k = make(rng)
    y = rng.normal(scale=4, size=200)
    x, minus_log_slope = kernels.spline("inverse", y, k)
    expected, expected_log = rqs.inverse(y, k)
    assert_allclose(x, expected, rtol=1e-9, atol=1e-9)
    assert_allclose(minus_log_slope, expected_log, rtol=1e-8, atol=1e-8)


def test_spline_passes_through_its_knots_with_their_slopes(kernels):
    k = knots(np.random.default_rng(2))
    for nudge in (-1e-9, 0, 1e-9):
        y, log_slope = kernels.spline("forward", k[0] + nudge, k)
        assert_allclose(y, k[1], atol=1e-8)
        assert_allclose(np.exp(log_slope), k[2], rtol=1e-6)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_spline_rises_everywhere(kernels, dtype):
    rng = np.random.default_rng(3)
    for make in (knots, crowded):
        k = make(rng)
        x = np.unique(np.concatenate([np.linspace(-30, 30, 20001), k[0]]).astype(dtype))
        y, log_slope = kernels.spline("forward", x, k)
        assert np.all(np.diff(y.astype(float)) > -1e-5 * (dtype == F32) * (1 + np.abs(y[1:])))
        assert np.isfinite(log_slope).all()


BAD_KNOTS = {
    "x falls": ([0, 2, 1], [0, 1, 2], [1, 1, 1]),
    "x stands": ([0, 1, 1], [0, 1, 2], [1, 1, 1]),
    "y falls": ([0, 1, 2], [0, 2, 1], [1, 1, 1]),
    "y stands": ([0, 1, 2], [0, 0, 1], [1, 1, 1]),
    "flat": ([0, 1, 2], [0, 1, 2], [1, 0, 1]),
    "slope falls": ([0, 1, 2], [0, 1, 2], [1, 1, -1]),
    "NaN": ([0, np.nan, 2], [0, 1, 2], [1, 1, 1]),
    "infinite": ([0, 1, np.inf], [0, 1, 2], [1, 1, 1]),
    "infinite slope": ([0, 1, 2], [0, 1, 2], [1, np.inf, 1]),
    "one knot": ([0], [0], [1]),
}


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("bad", BAD_KNOTS.values(), ids=BAD_KNOTS)
def test_bad_knots_are_refused(kernels, bad, dtype):
    with pytest.raises(ValueError, match="knots"):
        kernels.spline("forward", np.zeros(1, dtype), np.array(bad, float))
