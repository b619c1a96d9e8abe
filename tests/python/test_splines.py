"""Splines: at their knots, at their ends and beyond them, and with parameters far out."""

import numpy as np
import pytest
from kernel_table import F32, F64, RQS, CSpline, Increasing, Psi, crowded, psi_theta
from kernel_table import knots as some_knots
from numpy.testing import assert_allclose, assert_array_equal
from reference import psi, rqs

# ---- rational-quadratic splines ------------------------------------------------------------------

KNOTS = {
    "some": some_knots,
    "two": lambda rng: some_knots(rng, m=2),
    "many": lambda rng: some_knots(rng, m=700),
    "crowded": crowded,
}


@pytest.fixture(params=KNOTS)
def knots(request):
    return KNOTS[request.param](np.random.default_rng(1))


def points(rng, knots, n=300):
    spread = knots[0, -1] - knots[0, 0]
    outside = knots[0, [0, -1]] + [-0.3 * spread, 0.3 * spread]
    return np.concatenate([rng.uniform(*outside, n - 100), rng.normal(size=100), knots[0]])


def test_theta_is_that_of_the_knots(kernels, knots):
    theta = kernels.spline_theta(knots)
    assert_allclose(rqs.knots(theta), knots, rtol=1e-12, atol=1e-12)
    for dtype in (F32, F64):
        eps = np.finfo(dtype).eps
        made = kernels.spline_knots(theta, dtype)
        assert_allclose(made[:2], knots[:2], rtol=4 * eps, atol=1e-12)
        assert_allclose(made[2], knots[2], rtol=100 * eps)


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


# ---- and for any theta ---------------------------------------------------------------------------

N_KNOTS = 12
ALTERNATE = np.where(np.arange(N_KNOTS) % 2, 1.0, -1.0)


def theta_of(x, y, slopes):
    return np.concatenate([np.broadcast_to(np.asarray(a, float), N_KNOTS) for a in (x, y, slopes)])


def offset(first, gaps):
    return np.concatenate([[first], np.broadcast_to(float(gaps), N_KNOTS - 1)])


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
        f"random {seed}": np.random.default_rng(seed).uniform(-s, s, 3 * N_KNOTS)
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

    gtheta = np.zeros(len(theta))
    gx = kernels.spline_vjp(x, np.ones(len(x)), np.ones(len(x)), theta, gtheta)
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


# ---- psi: the same, of few knots -----------------------------------------------------------------

M = pytest.mark.parametrize("m", [2, 8, 17, 63])
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-12), (F32, 1e-5)])


@M
@PRECISIONS
def test_psi_passes_through_its_knots_with_their_slopes(
    kernels, at_every_level, m, dtype, tolerance
):
    theta = psi_theta(np.random.default_rng(m), m)
    x, y, slope = psi.knots(theta)
    for _ in at_every_level:
        kernel = Psi(kernels, dtype)
        exactly = x.astype(dtype)
        for at in (np.nextafter(exactly, dtype(-99)), exactly, np.nextafter(exactly, dtype(99))):
            assert_allclose(kernel.forward(at, theta)[0], y, atol=10 * tolerance)
            for j in range(m):
                log_slope = kernel.forward(at[j : j + 1], theta)[1]
                assert_allclose(log_slope, np.log(slope[j]), atol=100 * tolerance)
        assert_allclose(kernel.inverse(y.astype(dtype), theta)[0], x, atol=10 * tolerance)


@M
@PRECISIONS
def test_psi_is_straight_beyond_its_knots(kernels, at_every_level, m, dtype, tolerance):
    """And there only the knot at that end counts."""
    theta = psi_theta(np.random.default_rng(m), m)
    kx, ky, slope = psi.knots(theta)
    distance = np.array([1e-3, 0.1, 1, 30, 1e4, 1e12, 1e30])
    for end, sign in ((0, -1), (m - 1, 1)):
        x = (kx[end] + sign * distance).astype(dtype)
        beyond = x.astype(F64) - kx[end]
        for _ in at_every_level:
            kernel = Psi(kernels, dtype)
            y, logj = kernel.forward(x, theta)
            assert_allclose(y, ky[end] + slope[end] * beyond, rtol=tolerance, atol=10 * tolerance)
            assert_allclose(logj, len(x) * np.log(slope[end]), atol=10 * tolerance)
            back, logj_back = kernel.inverse(y, theta)
            assert_allclose(back, x, rtol=10 * tolerance, atol=100 * tolerance)
            assert_allclose(logj_back, logj, atol=10 * tolerance)
            g, gtheta = np.linspace(1, 2, 5), np.zeros(3 * m)
            gx = kernel.vjp(x[:5], theta, g, 1, gtheta)
            assert_allclose(gx, g * slope[end], rtol=10 * tolerance)
            # x_j and y_j move with every step up to them; the slope is exp(theta)
            step = np.diff(kx, prepend=kx[0] - 1), np.diff(ky, prepend=ky[0] - 1)
            before = np.arange(m) <= end
            expected = [
                -slope[end] * g.sum() * step[0] * before,
                g.sum() * step[1] * before,
                np.where(np.arange(m) == end, slope[end] * np.sum(g * beyond[:5]) + 5, 0),
            ]
            assert_allclose(
                gtheta.reshape(3, m), expected, rtol=100 * tolerance, atol=100 * tolerance
            )


@PRECISIONS
@pytest.mark.parametrize("kind", [Psi, RQS])
def test_splines_are_undone_where_they_are_nearly_flat(
    kernels, at_every_level, kind, dtype, tolerance
):
    """Rounding makes the root of the inverse a little negative there: it gives no NaN."""
    rng = np.random.default_rng(7)
    parameters = [psi_theta(rng, 8) for _ in range(50)]
    for theta in parameters:
        theta[16:] = rng.choice([-9.0, 0.0, 9.0], 8)
    for _ in at_every_level:
        kernel = kind(kernels, dtype)
        for theta in parameters:
            knots = psi.knots(theta)
            y = knots[1].astype(dtype)
            y = np.sort(
                np.concatenate([np.nextafter(y, dtype(99)), np.nextafter(y, dtype(-99)), y])
            )
            with np.errstate(divide="ignore", invalid="ignore"):  # float32 loses such slopes
                x, _ = kernel.inverse(y, theta)
                again, _ = kernel.forward(x, theta)
            assert np.all(np.diff(x) >= -0.01)
            assert_allclose(again, y, atol=1000 * tolerance)


def test_psi_of_millions_of_numbers(kernels, at_every_level):
    """More than are summed before the sums are emptied, of vectors and of exponents."""
    rng = np.random.default_rng(4)
    theta, n = psi_theta(rng, 8), 2**20 // 300 + 20
    x, g = rng.normal(size=(2, 300))
    for _ in at_every_level:
        for dtype, tolerance in ((F64, 1e-10), (F32, 1e-5)):
            kernel = Psi(kernels, dtype)
            one, many = np.zeros(24), np.zeros(24)
            kernel.vjp(x, theta, g, 1, one)
            kernel.vjp(np.tile(x, n), theta, np.tile(g, n), 1, many)
            assert_allclose(many / n, one, rtol=tolerance, atol=tolerance * np.abs(one).max())
            y, logj = kernel.forward(x, theta)
            y_many, logj_many = kernel.forward(np.tile(x, n), theta)
            assert_array_equal(y_many, np.tile(y, n))
            assert_allclose(logj_many, n * logj, rtol=tolerance)
            assert_allclose(kernel.inverse(y_many, theta)[1], n * logj, rtol=10 * tolerance)


# ---- logarithms out of range ---------------------------------------------------------------------

FAR = [9.0, 9.5, 50.0, 1e4, np.inf]


@pytest.mark.parametrize("far", [*FAR, *(-f for f in FAR)])
def test_steps_out_of_range_count_as_the_last_in_range(kernels, far):
    kernel = Increasing(kernels, F64)
    for j in range(1, 5):
        a = np.array([0.3, -1.0, 0.2, 0.5, -0.7])
        a[j] = far
        clipped = np.clip(a, -9, 9)
        p, _ = kernel.forward(a, None)
        assert_array_equal(p, kernel.forward(clipped, None)[0])
        assert np.all(np.diff(p) > 0)
        assert_allclose(p[j] - p[j - 1], np.exp(np.clip(far, -9, 9)), rtol=1e-10)
        g = np.arange(1.0, 6.0)
        assert_array_equal(
            kernel.vjp(a, None, g, None, None), kernel.vjp(clipped, None, g, None, None)
        )
    free = np.array([far if np.isfinite(far) else 1e300, 0.1])
    assert kernel.forward(free, None)[0][0] == free[0]  # where the first number lies is free


@PRECISIONS
@pytest.mark.parametrize("far", [9.0, 9.5, 700.0, np.inf, -9.0, -9.5, -700.0, -np.inf])
def test_slopes_out_of_range_count_as_the_last_in_range(kernels, dtype, tolerance, far):
    """And whatever the parameters, the spline is one: finite, rising, and undone."""
    rng = np.random.default_rng(5)
    kernel, x = Psi(kernels, dtype), np.linspace(-6, 6, 101)
    held = np.delete(np.arange(24), [0, 8])  # where the first knot lies is free
    for j in range(24):
        theta = psi_theta(rng, 8)
        theta[j] = far if j in held else np.clip(far, -3, 3)
        clipped = theta.copy()
        clipped[held] = np.clip(theta[held], -9, 9)
        (y, logj), (other, other_logj) = kernel.forward(x, theta), kernel.forward(x, clipped)
        assert_array_equal(y, other)
        assert logj == other_logj
        assert np.isfinite(logj)
        assert np.all(np.diff(y) >= 0)
        gradients = np.zeros(24), np.zeros(24)
        g = np.ones(101)
        gx = [
            kernel.vjp(x, at, g, 1, into)
            for at, into in zip((theta, clipped), gradients, strict=True)
        ]
        assert_array_equal(*gx)
        assert_array_equal(*gradients)
        assert np.isfinite(gradients[0]).all()
        if dtype == F64:
            assert_allclose(kernel.inverse(y, theta)[0], x, atol=1e-6)


# ---- cubic splines -------------------------------------------------------------------------------


@pytest.fixture
def cubic(kernels):
    rng = np.random.default_rng(6)
    return CSpline(kernels, F64), np.cumsum(rng.uniform(0.2, 1, 9)), rng.normal(size=9)


def test_cubic_spline_is_constant_outside_its_knots(cubic):
    """There only the value at that end counts."""
    kernel, p, v = cubic
    theta, x = np.append(p, v), np.array([-1e300, p[0] - 1, np.nextafter(p[0], -9)])
    above = np.array([p[-1], np.nextafter(p[-1], 99), p[-1] + 1, 1e300])
    for end, at in ((0, x), (-1, above)):
        assert_array_equal(kernel.forward(at, theta)[0], v[end])
        gtheta, g = np.zeros(18), np.arange(1.0, len(at) + 1)
        kernel.vjp(at, theta, g, None, gtheta)
        expected = np.zeros(18)
        expected[9 if end == 0 else 17] = g.sum()
        assert_array_equal(gtheta, expected)


def test_cubic_spline_passes_through_its_knots(cubic):
    kernel, p, v = cubic
    theta = np.append(p, v)
    assert_array_equal(kernel.forward(p, theta)[0], v)
    below, above = (kernel.forward(np.nextafter(p, side), theta)[0] for side in (-99, 99))
    assert_allclose(below, v, atol=1e-13)
    assert_allclose(above, v, atol=1e-13)


def test_cubic_spline_of_a_straight_line_is_that_line(cubic):
    kernel, p, _ = cubic
    x = np.linspace(p[0], p[-1], 99)
    assert_allclose(kernel.forward(x, np.append(p, 3 - 2 * p))[0], 3 - 2 * x, atol=1e-13)


def test_what_a_knot_changes_is_within_two_knots_of_it(cubic):
    kernel, p, v = cubic
    x = np.linspace(p[0] - 1, p[-1] + 1, 501)
    y, _ = kernel.forward(x, np.append(p, v))
    for j in range(9):
        for step_p, step_v in ((0, 0.1), (0.05, 0)):
            moved_p, moved_v = p.copy(), v.copy()
            moved_p[j] += step_p
            moved_v[j] += step_v
            moved, _ = kernel.forward(x, np.append(moved_p, moved_v))
            near = (x > p[max(j - 2, 0)]) & (x < p[min(j + 2, 8)])
            near |= (x < p[0]) & (j == 0) | (x > p[-1]) & (j == 8)
            assert_array_equal(moved[~near], y[~near])
            assert not np.array_equal(moved[near], y[near])


# ---- exp -----------------------------------------------------------------------------------------


def test_exp_stays_finite(kernels):
    x = np.array([-np.inf, -1e9, -700.5, -700, 0, 700, 700.5, 1e9, np.inf])
    y = np.empty_like(x)
    kernels.call("k_exp", y, x, len(x), result=None)
    assert_allclose(y, np.exp(np.clip(x, -700, 700)), rtol=1e-15)
    assert y[4] == 1
