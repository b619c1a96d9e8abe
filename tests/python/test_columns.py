"""The fixed maps of single columns, against the same in extended precision."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

F32, F64, LONG = np.float32, np.float64, np.longdouble
EDGE = {F32: 1e-6, F64: 1e-12}  # how near to a bound a point counts as being
KINDS = "linear", "asinh", "logit", "above", "below"
COLUMNS = [(kind, *ab) for kind in KINDS for ab in ((0, 1), (-1, 1), (0.3, 7), (1e3, 1.5e3))]


def twin(x, kind, a, b):
    """Return z and log(dz/dx) in extended precision."""
    middle = LONG(a / 2 + b / 2)  # rounded as the kernel has it
    x, a, b = x.astype(LONG), LONG(a), LONG(b)
    if kind == "linear":
        return (x - a) / b, np.full(len(x), -np.log(b))
    if kind == "asinh":
        return np.arcsinh((x - a) / b), -np.log(np.hypot(x - a, b))
    if kind == "logit":
        u = (x - middle) / ((b - a) / 2)
        central = 2 * np.arctanh(np.clip(u, -0.5, 0.5))
        z = np.where(np.abs(u) < 0.5, central, np.log((x - a) / (b - x)))
        return z, np.log((b - a) / ((x - a) * (b - x)))
    sign = 1 if kind == "above" else -1
    y = sign * (x - a) / b
    return sign * (y + np.log(-np.expm1(-y))), -np.log(-np.expm1(-y)) - np.log(b)


def points(kind, a, b, dtype):
    """Return points of all sizes, of which none lies nearer to a bound than counts."""
    size = np.geomspace(1e-9, 1e9, 181)
    if kind == "logit":
        size = size[size < 0.5]
        x = np.concatenate([a + (b - a) * size, b - (b - a) * size])
        x = np.append(x, (a + b) / 2 + (b - a) / 2 * np.array([-1e-3, -1e-9, 0, 1e-9, 1e-3]))
    elif kind == "above":
        x = a + b * size
    elif kind == "below":
        x = a - b * size
    else:
        x = np.concatenate([a - b * size, [a], a + b * size])
    x = x.astype(dtype)
    near = np.full(len(x), np.inf)  # the distance from a bound
    if kind in ("logit", "above"):
        near = x.astype(F64) - a
    if kind in ("logit", "below"):
        near = np.minimum(near, (b if kind == "logit" else a) - x.astype(F64))
    return x[near > 2 * EDGE[dtype] * (b - a if kind == "logit" else b)]


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("kind", "a", "b"), COLUMNS)
def test_column_is_its_twin(kernels, level, kind, a, b, dtype):
    eps = np.finfo(dtype).eps
    x = points(kind, a, b, dtype)
    z, log_slope = kernels.column("forward", x, kind, a, b)
    expected, expected_log = twin(x, kind, a, b)
    # softplus^-1 crosses 0 where its argument is of size 1: there it is as exact as that
    allowed = 3 * eps * np.abs(expected) + (eps if kind in ("above", "below") else 0)
    assert np.all(np.abs(z - expected) <= allowed)
    allowed = 2 * eps * (1 + np.abs(expected_log) + abs(np.log(b)))
    assert np.all(np.abs(log_slope - expected_log) <= allowed)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("kind", "a", "b"), COLUMNS)
def test_inverse_undoes_forward(kernels, level, kind, a, b, dtype):
    eps = float(np.finfo(dtype).eps)
    z = np.concatenate([np.linspace(-20, 20, 1001), np.geomspace(1e-9, 1, 50)]).astype(dtype)
    if kind == "logit":
        z = z[np.abs(z) < 10]
    x, log_slope = kernels.column("inverse", z, kind, a, b)
    again, minus_log_slope = kernels.column("forward", x, kind, a, b)
    x, slope = x.astype(F64), np.exp(minus_log_slope)
    blur = 8 * eps * (1 + np.abs(z) + (abs(a) + np.abs(x) + b) * slope)  # x is rounded
    told = np.ones(len(x), bool)  # from a bound
    for end in {"logit": (a, b), "above": (a,), "below": (a,)}.get(kind, ()):
        told &= np.abs(x - end) > 10 * EDGE[dtype] * (1 + abs(a) + abs(b))
    assert np.mean(told) > 0.5
    assert np.all((np.abs(again.astype(F64) - z) <= blur)[told])
    assert np.all((np.abs(log_slope + minus_log_slope) <= blur + 8 * eps * abs(np.log(b)))[told])


@pytest.mark.parametrize(("kind", "a", "b"), COLUMNS)
def test_vjp_is_the_gradient(kernels, level, kind, a, b):
    rng = np.random.default_rng(0)
    u = rng.uniform(0.02, 0.98, 200)
    x = {"logit": a + (b - a) * u, "above": a + 3 * b * u, "below": a - 3 * b * u}.get(
        kind, a + 5 * b * (2 * u - 1)
    )
    g, gl = rng.normal(size=(2, len(x)))
    step = 1e-6 * (b - a if kind == "logit" else b)
    (up, log_up), (down, log_down) = (
        kernels.column("forward", x + s, kind, a, b) for s in (step, -step)
    )
    numerical = (g * (up - down) + gl * (log_up - log_down)) / 2 / step
    gx = kernels.column_vjp(x, g, gl, kind, a, b)
    assert_allclose(gx, numerical, rtol=1e-5, atol=1e-5 * np.abs(numerical).max())
    gx32 = kernels.column_vjp(x.astype(F32), g, gl, kind, a, b)
    moved = 1e-6 * abs(a) / b * np.abs(numerical).max()  # x is rounded
    assert_allclose(gx32, gx, rtol=1e-3, atol=1e-4 * np.abs(numerical).max() + 100 * moved)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("kind", "a", "b"), [c for c in COLUMNS if c[0] in KINDS[2:]])
def test_bounds_count_as_a_little_inside(kernels, level, kind, a, b, dtype):
    scale = b - a if kind == "logit" else b
    ends = [(a, -1)] if kind == "below" else [(a, 1)] + [(b, -1)] * (kind == "logit")
    for end, inwards in ends:
        x = (end - inwards * scale * np.array([0, 1e-30, 1e-3, 10])).astype(dtype)
        z, log_slope = kernels.column("forward", x, kind, a, b)
        gx = kernels.column_vjp(x, np.ones(4), np.ones(4), kind, a, b)
        edge = LONG(EDGE[dtype])
        if kind == "logit":
            expected, expected_log = np.log1p(-edge) - np.log(edge), -np.log(edge) - np.log1p(-edge)
        else:
            expected = np.abs(edge + np.log(-np.expm1(-edge)))
            expected_log = -np.log(-np.expm1(-edge))
        assert_allclose(z, -inwards * F64(expected), rtol=1e-6)
        assert_allclose(log_slope, F64(expected_log) - np.log(scale), rtol=1e-6, atol=1e-5)
        assert np.isfinite(gx).all()
        for far in (50, 90, 1e3, 1e30):  # and no sample is outside
            x, log_slope = kernels.column("inverse", np.array([-far, far], dtype), kind, a, b)
            assert np.all((x - end) * inwards >= 0)
            assert np.isfinite(log_slope).all()


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("kind", "a", "b"), COLUMNS)
def test_place_in_the_array_changes_nothing(kernels, level, kind, a, b, dtype):
    rng = np.random.default_rng(1)
    z, g, gl = rng.normal(size=(3, 301)).astype(dtype)
    x, _ = kernels.column("inverse", z, kind, a, b)

    def results(rows):
        g_rows, gl_rows = g[rows].copy(), gl[rows].astype(F64)
        return [
            *kernels.column("forward", x[rows].copy(), kind, a, b),
            *kernels.column("inverse", z[rows].copy(), kind, a, b),
            kernels.column_vjp(x[rows].copy(), g_rows, gl_rows, kind, a, b),
        ]

    whole = results(slice(0, 301))
    # as a vector has them, and as those left over at the end
    for rows in [slice(1, None), slice(5, None), *(slice(i, i + 3) for i in range(0, 299, 3))]:
        for one, other in zip(whole, results(rows), strict=True):
            assert_array_equal(one[rows], other)


FAR = {
    F32: np.array([1e12, 1e15, 1.1e15, 1e20, 1e30, 3e38]),
    F64: np.array([1e12, 1e15, 1.1e15, 1e20, 1e100, 1e160, 1e300]),
}


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(("a", "b"), [(0, 1), (3, 0.5), (-7, 40)])
def test_asinh_far_out(kernels, level, a, b, dtype):
    x = np.concatenate([-FAR[dtype], [0.1, 5.0], FAR[dtype]]).astype(dtype)
    z, log_slope = kernels.column("forward", np.tile(x, 40), "asinh", a, b)
    expected, expected_log = twin(x, "asinh", a, b)
    assert_allclose(z, np.tile(expected.astype(F64), 40), rtol=1e-6 if dtype == F32 else 1e-14)
    assert_allclose(log_slope, np.tile(expected_log.astype(F64), 40), rtol=1e-6, atol=1e-6)
    assert np.isfinite(kernels.column_vjp(x, np.ones(len(x)), np.ones(len(x)), "asinh", a, b)).all()
    # neighbours that are far out change nothing
    alone = kernels.column("forward", np.full(600, 5, dtype), "asinh", a, b)
    beside = np.full(600, 5, dtype)
    beside[::7] = FAR[dtype][-1]
    for one, two in zip(alone, kernels.column("forward", beside, "asinh", a, b), strict=True):
        assert_array_equal(one[1::7], two[1::7])


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_slopes_of_far_latents(kernels, level, kind, dtype):
    z = np.array([-300, -81, -80, -79, -30, 0.0, 30, 79, 80, 81, 300], LONG)
    x, log_slope = kernels.column("inverse", np.tile(z.astype(dtype), 30), kind, 0, 2)
    expected = {
        "asinh": np.log(np.cosh(z)),
        "logit": -np.log(2 + 2 * np.cosh(z)),
        "above": -np.logaddexp(0, -z),
        "below": -np.logaddexp(0, z),
    }[kind] + np.log(LONG(2))
    assert_allclose(log_slope, np.tile(expected.astype(F64), 30), rtol=2e-6, atol=2e-6)
    if dtype == F64:
        assert np.isfinite(x).all()
