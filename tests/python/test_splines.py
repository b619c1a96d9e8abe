"""The rational-quadratic splines: against their twin, and what they must be whatever theta is."""

import numpy as np
import pytest
from ckernels import Kernels
from numpy.testing import assert_allclose, assert_array_equal
from reference import rqs
from reference.rqs import crowded_knots, some_knots

F32, F64 = np.float32, np.float64


@pytest.fixture(scope="module")
def kernels():
    return Kernels()


@pytest.fixture(params=[0, 2, 5])
def level(request, kernels):
    """Hold the kernels at an instruction set, if the machine has it."""
    if request.param not in kernels.simd_levels():
        pytest.skip("this machine does not have it")
    before = kernels.call("k_simd", request.param)
    yield request.param
    kernels.call("k_simd", before)


KNOTS = {
    "some": some_knots,
    "two": lambda rng: some_knots(rng, m=2),
    "many": lambda rng: some_knots(rng, m=700),
    "crowded": crowded_knots,
}


@pytest.fixture(params=KNOTS)
def knots(request):
    return KNOTS[request.param](np.random.default_rng(1))


def points(rng, knots, n=300):
    spread = knots[0, -1] - knots[0, 0]
    outside = knots[0, [0, -1]] + [-0.3 * spread, 0.3 * spread]
    return np.concatenate([rng.uniform(*outside, n - 100), rng.normal(size=100), knots[0]])


# ---- against the twin ----------------------------------------------------------------------------


def test_theta_is_that_of_the_knots(kernels, knots):
    theta = kernels.spline_theta(knots)
    assert_allclose(rqs.knots(theta), knots, rtol=1e-12, atol=1e-12)
    for dtype in (F32, F64):
        eps = np.finfo(dtype).eps
        made = kernels.spline_knots(theta, dtype)
        assert_allclose(made[:2], knots[:2], rtol=4 * eps, atol=1e-12)
        assert_allclose(made[2], knots[2], rtol=100 * eps)


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (F32, 3e-4)])
def test_spline_is_its_twin(kernels, level, knots, dtype, tolerance):
    theta = kernels.spline_theta(knots)
    x = points(np.random.default_rng(2), knots).astype(dtype)
    y, log_slope = kernels.spline("forward", x, theta)
    expected, expected_log = rqs.forward(x, kernels.spline_knots(theta, dtype))
    assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
    assert_allclose(log_slope, expected_log, rtol=tolerance, atol=tolerance)


def test_inverse_is_its_twin(kernels, level, knots):
    y = np.random.default_rng(3).normal(scale=4, size=200)
    x, minus_log_slope = kernels.spline("inverse", y, kernels.spline_theta(knots))
    expected, expected_log = rqs.inverse(y, knots)
    assert_allclose(x, expected, rtol=1e-9, atol=1e-9)
    assert_allclose(minus_log_slope, expected_log, rtol=1e-8, atol=1e-8)


def test_spline_passes_through_its_knots_with_their_slopes(kernels, knots):
    theta = kernels.spline_theta(knots)
    for nudge in (-1e-9, 0, 1e-9):
        y, log_slope = kernels.spline("forward", knots[0] + nudge, theta)
        assert_allclose(y, knots[1], rtol=1e-8, atol=1e-8)
        assert_allclose(np.exp(log_slope), knots[2], rtol=1e-6)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_neighbours_change_nothing(kernels, level, knots, dtype):
    theta = kernels.spline_theta(knots)
    x = points(np.random.default_rng(7), knots)[:299].astype(dtype)
    other = x.copy()
    other[::7] = np.nan
    other.view(f"u{other.itemsize}")[::14] = 2 ** (8 * other.itemsize - 1) - 1  # the largest NaN
    for direction in ("forward", "inverse"):
        whole = kernels.spline(direction, x, theta)
        with np.errstate(invalid="ignore"):
            beside_nan = kernels.spline(direction, other, theta)
        for a, b, rest in zip(
            whole, beside_nan, kernels.spline(direction, x[5:].copy(), theta), strict=True
        ):
            assert_array_equal(a[5:], rest)
            assert np.isnan(b[::7]).all()
            keep = np.arange(len(x)) % 7 > 0
            assert_array_equal(a[keep], b[keep])


# ---- gradients -----------------------------------------------------------------------------------


def test_vjp_is_the_gradient(kernels, level, knots):
    rng = np.random.default_rng(4)
    theta, x = kernels.spline_theta(knots), points(rng, knots, 200)[:200]
    g, gl = rng.normal(size=(2, len(x)))

    def loss(x, theta):
        y, log_slope = kernels.spline("forward", x, theta)
        return g * y + gl * log_slope

    gx, gtheta = kernels.spline_vjp(x, g, gl, theta)
    step = 1e-6 * (1 + np.abs(x))
    assert_allclose(
        gx, (loss(x + step, theta) - loss(x - step, theta)) / 2 / step, rtol=1e-4, atol=1e-4
    )
    m = len(theta) // 3
    places = {0, m - 1, m, 2 * m - 1, 2 * m, 3 * m - 1, *rng.integers(0, 3 * m, 40).tolist()}
    for i in places:
        at = np.zeros(len(theta))
        at[i] = 1e-6
        slope = np.sum(loss(x, theta + at) - loss(x, theta - at)) / 2 / at[i]
        assert_allclose(gtheta[i], slope, rtol=1e-4, atol=1e-6 * max(np.abs(gtheta).max(), 10))


def test_vjp_adds_and_is_the_same_without_theta(kernels, level, knots):
    rng = np.random.default_rng(5)
    theta, x = kernels.spline_theta(knots), points(rng, knots)
    for dtype in (F64, F32):
        g, gl, at = *rng.normal(size=(2, len(x))), x.astype(dtype)
        gx, whole = kernels.spline_vjp(at, g, gl, theta)
        assert_array_equal(gx, kernels.spline_vjp(at, g, gl, theta, want_theta=False)[0])
        halves = [
            kernels.spline_vjp(at[rows], g[rows], gl[rows], theta)[1]
            for rows in (slice(0, 130), slice(130, len(x)))
        ]
        assert_allclose(sum(halves), whole, rtol=1e-9, atol=1e-9 * np.abs(whole).max())


def test_float32_gradients_are_those_of_float64_rounded(kernels, level, knots):
    rng = np.random.default_rng(6)
    theta = kernels.spline_theta(knots)
    x = points(rng, knots)[:300].astype(F32)  # none on a knot, where curvature jumps
    g, gl = rng.normal(size=(2, len(x))).astype(F32)
    gx, gtheta = kernels.spline_vjp(x, g, gl, theta)
    gx64, gtheta64 = kernels.spline_vjp(x.astype(F64), g, gl, theta)
    assert np.mean(np.abs(gx - gx64) > 2e-3 * (1 + np.abs(gx64))) < 0.02
    assert np.abs(gtheta - gtheta64).max() < 0.02 * np.abs(gtheta64).max()


# ---- any theta is a spline -----------------------------------------------------------------------

M = 12
ALTERNATE = np.where(np.arange(M) % 2, 1.0, -1.0)


def theta_of(x, y, slopes):
    return np.concatenate([np.broadcast_to(np.asarray(a, float), M) for a in (x, y, slopes)])


def offset(first, gaps):
    return np.concatenate([[first], np.broadcast_to(float(gaps), M - 1)])


HOSTILE = {
    "zeros": theta_of(0, 0, 0),
    "least": theta_of(-1000, -1000, -1000),
    "most": theta_of(1000, 1000, 1000),
    "largest": theta_of(1.7e308, 1.7e308, 1.7e308),
    "steep": theta_of(-1000, 1000, 0),
    "flat": theta_of(1000, -1000, 0),
    "steep and flat": theta_of(40 * ALTERNATE, -40 * ALTERNATE, 0),
    "ends far steeper than chords": theta_of(0, 0, 1000),
    "ends far flatter than chords": theta_of(0, 0, -1000),
    "ends alternate": theta_of(0, 0, 1000 * ALTERNATE),
    "ends alternate, mildly": theta_of(0, 0, 9 * ALTERNATE),
    "all alternate": theta_of(1000 * ALTERNATE, 1000 * ALTERNATE, 1000 * ALTERNATE),
    "crowded at an offset": theta_of(offset(1e6, -9), offset(-3, -1), 0),
    "crowded both ways": theta_of(offset(1e6, -9), offset(-1e7, -9), 0),
    "crowded images": theta_of(offset(0, 0), offset(1e8, -20), 0),
    "far off": theta_of(offset(1e300, 0), offset(-1e300, 0), 0),
    **{
        f"random {seed}": np.random.default_rng(seed).uniform(-s, s, 3 * M)
        for seed, s in enumerate([10, 30, 100, 1000, 1000, 1e6])
    },
    "random, many": np.random.default_rng(6).uniform(-1000, 1000, 3 * 600),
    "random, two": np.random.default_rng(7).uniform(-1000, 1000, 3 * 2),
}


def everywhere(knots):
    """Return ascending points: the knots, in every bin and at its ends, and far outside."""
    x = knots[0].astype(float)
    t = np.array([0, 1e-12, 1e-6, 1e-3, 0.1, 0.25, 0.5, 0.75, 0.9, 1 - 1e-3, 1 - 1e-6])
    inside = (x[:-1, None] + t * np.diff(x)[:, None]).ravel()
    out = np.array([1e-6, 1e-3, 1, 1e3, 1e6]) * max(1, np.abs(x[[0, -1]]).max() * 1e-3)
    x = np.concatenate([x[0] - out, inside, [x[-1]], x[-1] + out])
    return np.unique(x.astype(knots.dtype))


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("theta", HOSTILE.values(), ids=HOSTILE)
def test_any_theta_is_a_spline(kernels, level, theta, dtype):
    eps = float(np.finfo(dtype).eps)
    knots = kernels.spline_knots(theta, dtype)
    assert np.all(np.diff(knots[:2], axis=1) > 0)
    assert np.isfinite(knots).all()
    x = everywhere(knots)
    y, log_slope = kernels.spline("forward", x, theta)
    slope, y64 = np.exp(log_slope), y.astype(float)
    rounding = eps * (np.abs(y64) + slope * np.abs(x))  # of y, and of x as y feels it
    assert np.isfinite(y).all()
    assert np.isfinite(log_slope).all()
    assert np.all(np.diff(y64) >= -8 * (rounding[1:] + rounding[:-1]))

    back, minus_log_slope = kernels.spline("inverse", y, theta)
    assert np.isfinite(back).all()
    assert np.isfinite(minus_log_slope).all()
    between = back, ((x.astype(float) + back) / 2).astype(dtype)
    others = [kernels.spline("forward", v, theta)[1] for v in between]
    flattest = np.exp(np.min([log_slope, *others], axis=0))
    assert np.all(np.abs(back.astype(float) - x) <= 16 * eps * (np.abs(x) + np.abs(y64) / flattest))

    gx, gtheta = kernels.spline_vjp(x, np.ones(len(x)), np.ones(len(x)), theta)
    assert np.isfinite(gx).all()
    assert np.isfinite(gtheta).all()


@pytest.mark.parametrize("theta", HOSTILE.values(), ids=HOSTILE)
def test_log_slope_of_any_theta_is_that_of_the_curve(kernels, level, theta):
    knots = kernels.spline_knots(theta, F64)
    width, height = np.diff(knots[0]), np.diff(knots[1])
    for t in (0.1, 0.3, 0.5, 0.8):
        x, step = knots[0, :-1] + t * width, 1e-4 * width
        up, down = (kernels.spline("forward", x + s, theta)[0] for s in (step, -step))
        y, log_slope = kernels.spline("forward", x, theta)
        numerical, rise = (up - down) / 2 / step, 2 * step * np.exp(log_slope)
        resolved = (1e-9 * np.abs(x) < step) & (1e-12 * np.abs(y) < rise) & (height > 0)
        assert_allclose(np.log(numerical[resolved]), log_slope[resolved], atol=2e-3)
