"""Layers: what a tile must not change, parameters on manifolds, shapes in files.

Twins, round trips, determinants and gradients of layers are in test_kernels.py, as all kernels'.
"""

from ctypes import c_double, c_int, c_ssize_t, c_void_p

import numpy as np
import pytest
from kernel_table import F32, F64, Case
from layer_kinds import (
    COLUMNS,
    ROWS,
    TILE,
    Affine,
    Autoregressive,
    Columns,
    Conditioned,
    Coupling,
    Example,
    Patch,
    Scale,
    Shift,
    Sliced,
    Symmetric,
)
from layer_table import (
    MANY,
    TABLE,
    psi_theta,
)
from numpy.testing import assert_allclose, assert_array_equal
from reference import psi

BOTH = pytest.mark.parametrize("dtype", [F32, F64])


@pytest.fixture(params=TABLE)
def case(request, kernels):
    return Case(kernels, request.param, TABLE)


def of_kind(*kinds):
    return pytest.mark.parametrize(
        "case", [name for name, line in TABLE.items() if issubclass(line[0], kinds)], indirect=True
    )


# ---- tiles ---------------------------------------------------------------------------------------


class Points:
    """Points with all that a tile has of each, and what becomes of them."""

    def __init__(self, layer, case, n):
        rng = np.random.default_rng(3)
        self.layer = layer
        self.own = layer.own_tables
        # the same points come again and again: wherever they are, their results must be the same
        again = np.arange(n) % len(case.x)
        self.x = case.x[again].copy()
        self.g, self.glogj = rng.normal(size=(n, layer.d)), rng.normal(size=n)
        self.label = rng.integers(0, layer.classes, n).astype(np.int32)
        fields = layer.context(len(case.x))
        self.context = np.zeros(n) if fields is None else fields[again]
        y = layer.conditions(len(case.x))
        self.y = np.zeros((n, 0)) if y is None else y[again]
        theta = np.zeros(0) if case.theta is None else case.theta
        self.theta = theta.reshape(-1, layer.n_theta)[again] if self.own else theta

    def __getitem__(self, rows):
        part = object.__new__(Points)
        part.layer, part.own = self.layer, self.own
        for name in ("x", "g", "glogj", "label", "context", "y"):
            setattr(part, name, getattr(self, name)[rows].copy())
        part.theta = self.theta[rows].copy() if self.own else self.theta
        return part

    def results(self, **options):
        """Return y, logj, dL/dx, and x and log-determinant of the inverse, of one tile."""
        options["label"], options["y"] = self.label, self.y
        if self.context.ndim > 1:
            options["context"] = self.context
        theta = self.theta.ravel()
        out = self.layer.tile(self.x, theta, self.g, self.glogj, **options)
        back = self.layer.tile(self.x, theta, inverse=1, **options)
        return [*out, *back[:2]]


def sizes(layer):
    return (1, 2, 5) if layer.layout == ROWS else (1, 15, 16, 17, TILE)


@BOTH
def test_result_does_not_depend_on_the_place_in_the_tile(case, at_every_level, dtype):
    layer, rng = case.kernel(dtype), np.random.default_rng(4)
    points = Points(layer, case, sizes(layer)[-1])
    for _ in at_every_level:
        whole = points.results()
        for n in sizes(layer):
            rows = rng.permutation(len(points.x))[:n]
            for a, b in zip(points[rows].results(), whole, strict=True):
                assert_array_equal(a, b[rows])


@BOTH
def test_result_does_not_depend_on_what_else_is_in_the_tile(case, at_every_level, dtype):
    layer = case.kernel(dtype)
    points = Points(layer, case, sizes(layer)[-1] - 1)  # so that columns have padding
    for _ in at_every_level:
        whole = points.results()
        for pad in (0.0, 1e30, np.inf):
            for a, b in zip(points.results(pad=pad), whole, strict=True):
                assert_array_equal(a, b)
        for other in (1e30, np.inf, np.nan):
            beside = points[:]
            beside.x[1::2] = beside.g[1::2] = beside.glogj[1::2] = other
            beside.context[1::2] = beside.y[1::2] = other
            beside.label[1::2] = (beside.label[1::2] + 1) % layer.classes
            for a, b in zip(beside.results(), whole, strict=True):
                assert_array_equal(a[::2], b[::2])


def test_a_gradient_is_that_of_the_parameters_alone_where_no_other_is_wanted(case):
    for dtype in (F32, F64):
        layer = case.kernel(dtype)
        points = Points(layer, case, sizes(layer)[-1])
        both, alone = (np.zeros(points.theta.size) for _ in range(2))
        beside = {"label": points.label, "y": points.y}
        if points.context.ndim > 1:
            beside["context"] = points.context
        way = points.x, points.theta.ravel(), points.g, points.glogj
        gx = layer.tile(*way, both, **beside)[2]
        layer.tile(*way, alone, **beside, want_x=0)
        assert_array_equal(alone, both)
        assert_array_equal(layer.tile(*way, None, **beside)[2], gx)
        # want_x = 0 and no gtheta: nothing is asked for, and nothing fails
        layer.tile(*way, None, **beside, want_x=0)


@of_kind(Conditioned)
def test_a_gradient_of_the_conditions_is_added(case):
    """Differences; and where they are so far out that they count as nearer, there is none."""
    layer = case.kernel()
    points = Points(layer, case, 5)
    points.y[3] = 3 + 2 * 10.5

    def loss(y):
        z, logj, _ = layer.tile(points.x, points.theta, y=y)
        return np.sum(points.g * z) + np.sum(points.glogj * logj)

    way = points.x, points.theta, points.g, points.glogj
    for want_x, gtheta in ((1, None), (0, np.zeros(layer.n_theta))):
        start = np.random.default_rng(1).normal(size=points.y.shape)
        gy = start.copy()
        layer.tile(*way, gtheta, y=points.y, gy=gy, want_x=want_x)
        got = gy - start
        assert_array_equal(got[3], 0)
        for at in np.ndindex(*points.y.shape):
            step = np.zeros_like(points.y)
            step[at] = 1e-6
            expected = (loss(points.y + step) - loss(points.y - step)) / 2e-6
            assert_allclose(got[at], expected, rtol=1e-5, atol=1e-6)


def test_psi_of_a_large_field_is_mapped_in_parts(kernels):
    """More pixels than one thread's share: behind a filter of ones, Psi of the whole field."""
    knots, rng = 5, np.random.default_rng(8)
    layer = Symmetric(kernels, F64, (420, 320), (1, 1), knots, 2)
    theta = psi_theta(rng, knots)
    filtered = np.concatenate([theta, np.zeros(4)])  # log T = 0
    x, g = rng.normal(size=(2, 1, 420 * 320))
    glogj, gtheta = np.array([0.7]), np.zeros(filtered.size)
    y, logj, gx = layer.tile(x, filtered, g, glogj, gtheta)
    expected, log_slopes = psi.forward(x[0], theta)
    assert_allclose(y[0], expected, atol=1e-10)
    assert_allclose(logj, log_slopes, rtol=1e-11)
    back, minus_logj, _ = layer.tile(y, filtered, inverse=1)
    assert_allclose(back, x, atol=1e-9)
    assert_allclose(minus_logj, -logj, rtol=1e-10)

    def loss(x, theta):
        y, log_slopes = psi.forward(x[0], theta)
        return np.sum(g * y) + glogj[0] * log_slopes

    for dx, dtheta in (rng.normal(size=x.shape), 0 * theta), (0 * x, rng.normal(size=theta.size)):
        h = 1e-6
        above, below = (loss(x + step * dx, theta + step * dtheta) for step in (h, -h))
        got = np.sum(gx * dx) + np.sum(gtheta[: theta.size] * dtheta)
        assert got == pytest.approx((above - below) / (2 * h), rel=1e-5)


@pytest.mark.parametrize("n", [(600, 450), (66, 65, 64)])
def test_couplings_of_a_large_field_that_threads_share(kernels, n):
    """More pixels than one thread transforms alone; A and C are constants, each on its side."""
    rng = np.random.default_rng(9)
    channels, knots = 2, 4
    layer = Coupling(kernels, F64, n, n, 0.3, 1, channels, knots)
    k = np.sqrt(sum(f**2 for f in np.meshgrid(*map(np.fft.fftfreq, n), indexing="ij")))
    low, high = (k > 0) & (k <= 0.3 * k.max()), k > 0.3 * k.max()

    def coupled(x, values):
        y = x.reshape(n)
        for a, c in values.reshape(channels, 2):
            u = a * np.fft.ifftn(high * np.fft.fftn(x.reshape(n))).real
            y = y + c * np.fft.ifftn(low * np.fft.fftn(np.sqrt(1 + u**2) - 1)).real
        return y.reshape(1, -1)

    x, g, dx = rng.normal(size=(3, 1, layer.d))
    values, dvalues = rng.normal(size=(2, 2 * channels))
    theta, gtheta = np.repeat(values, knots), np.zeros(layer.n_theta)
    y, _, gx = layer.tile(x, theta, g, np.zeros(1), gtheta)
    assert_allclose(y, coupled(x, values), atol=1e-11)
    assert_allclose(layer.tile(y, theta, inverse=1)[0], x, atol=1e-11)
    h = 1e-5
    above, below = (np.sum(g * coupled(x + s * dx, values + s * dvalues)) for s in (h, -h))
    got = np.sum(gx * dx) + np.sum(gtheta * np.repeat(dvalues, knots))
    assert got == pytest.approx((above - below) / (2 * h), rel=1e-6)


@BOTH
def test_slopes_of_many_columns_far_out_are_not_lost(kernels, dtype):
    """A double does not hold their product."""
    layer = Columns(kernels, dtype, 21, *MANY)
    z = np.full((3, 21), 79.0) * np.array([[1], [-1], [0.5]])
    x, logj, _ = layer.tile(z, None, inverse=1)
    with np.errstate(over="ignore"):
        slopes = [
            np.log(np.cosh(z)) + np.log(b) if kind == "asinh" else np.log(b) + 0 * z
            for kind, b in zip(MANY[0], MANY[2], strict=True)
        ]
    expected = np.sum([s[:, 0] for s in slopes], axis=0)
    assert np.abs(expected).max() > 1000  # exp() of which overflows
    assert_allclose(logj, expected, rtol=1e-6)
    assert_allclose(layer.tile(x, None)[1], -expected, rtol=1e-6)


@BOTH
def test_scale_is_the_same_in_either_layout(kernels, at_every_level, dtype):
    layer, rng = Scale(kernels, dtype, 5, 0.7, 2.5), np.random.default_rng(1)
    x, g, glogj = rng.normal(size=(17, 5)), rng.normal(size=(17, 5)), rng.normal(size=17)
    for _ in at_every_level:
        for inverse in (0, 1):
            one, two = (
                layer.tile(x, None, layout=layout, inverse=inverse) for layout in (COLUMNS, ROWS)
            )
            assert_array_equal(one[0], two[0])
            assert_array_equal(one[1], two[1])
        one, two = (layer.tile(x, None, g, glogj, layout=layout) for layout in (COLUMNS, ROWS))
        assert_array_equal(one[2], two[2])


# ---- parameters ----------------------------------------------------------------------------------


@of_kind(Sliced, Patch, Symmetric, Example, Autoregressive)
@BOTH
def test_whatever_theta_holds_there_is_a_map(case, dtype):
    layer, rng = case.kernel(dtype), np.random.default_rng(2)
    points = Points(layer, case, 3)
    rows = points.theta.reshape(-1, layer.n_theta)
    free = not_slices(layer)
    for size in (1.0, 30.0, 1000.0, 1e300):
        rows[:, free] = rng.uniform(-size, size, (len(rows), free.sum()))
        gtheta = np.zeros(rows.size)
        with np.errstate(over="ignore", invalid="ignore"):
            y, logj, gx = layer.tile(
                points.x, rows.ravel(), points.g, points.glogj, gtheta, label=points.label
            )
        if size == 1e300 and isinstance(layer, Autoregressive):
            continue  # sums of such weights are no numbers
        assert np.isfinite(logj).all()
        if size <= 30:
            assert np.isfinite(y).all()
            assert np.isfinite(gx).all()
            assert np.isfinite(gtheta).all()


def not_slices(layer):
    """Return which parameters may be any numbers."""
    free = np.ones(layer.n_theta)
    if layer.slices(free) is not None:
        layer.slices(free)[:] = 0
    return free == 1


def test_a_matrix_without_an_inverse_has_density_zero(kernels):
    for w in (np.zeros((3, 3)), np.ones((3, 3)), np.diag([1.0, 2.0, 0.0])):
        for dtype in (F32, F64):
            theta = np.concatenate([w.ravel(), [1, 2, 3]])
            y, logj, _ = Affine(kernels, dtype, 3).tile(np.ones((2, 3)), theta)
            assert_array_equal(logj, -np.inf)
            assert_allclose(y, (1 - theta[9:]) @ w.T * np.ones((2, 1)), rtol=1e-6)


@of_kind(Sliced, Patch)
def test_a_projected_gradient_is_tangent_to_the_slices(case):
    layer, rng = case.kernel(), np.random.default_rng(1)
    once = rng.normal(size=layer.n_theta)
    before = once.copy()
    layer.call("layer_project", once, case.theta)
    assert_array_equal(once[not_slices(layer)], before[not_slices(layer)])
    for a, g, whole in zip(*map(layer.slices, (case.theta, once, before)), strict=True):
        # tangent: A^T G is skew; what was taken away is normal: S A with a symmetric S
        assert_allclose(a @ g.T + g @ a.T, 0, atol=1e-13)
        taken = (whole - g) @ a.T
        assert_allclose(taken, taken.T, atol=1e-13)
        assert_allclose(taken @ a, whole - g, atol=1e-13)
        normal = rng.normal(size=(layer.k, layer.k))
        assert_allclose(np.sum(g * ((normal + normal.T) @ a)), 0, atol=1e-12)
    twice = once.copy()
    layer.call("layer_project", twice, case.theta)
    assert_allclose(twice, once, atol=1e-13)


@of_kind(Sliced, Patch)
def test_retracted_slices_are_orthonormal(case):
    layer, rng = case.kernel(), np.random.default_rng(1)
    free = not_slices(layer)
    same = case.theta.copy()
    layer.call("layer_retract", same)
    assert_allclose(same, case.theta, atol=1e-14)
    step = 1e-5 * rng.normal(size=layer.n_theta)
    layer.call("layer_project", step, case.theta)
    moved = case.theta + step
    layer.call("layer_retract", moved)
    assert_array_equal(moved[free], (case.theta + step)[free])
    assert_allclose(moved, case.theta + step, atol=1e-8)  # to second order in the step
    far = case.theta + 3 * rng.normal(size=layer.n_theta)
    layer.call("layer_retract", far)
    for near, b in zip(layer.slices(moved), layer.slices(far), strict=True):
        assert_allclose(near @ near.T, np.eye(layer.k), atol=1e-14)
        assert_allclose(b @ b.T, np.eye(layer.k), atol=1e-13)


def test_other_parameters_are_on_no_manifold(case):
    layer = case.kernel()
    if layer.slices(np.zeros(layer.n_theta)) is not None:
        return
    theta, g = np.random.default_rng(1).normal(size=(2, layer.n_theta))
    before = theta.copy(), g.copy()
    layer.call("layer_project", g, theta)
    layer.call("layer_retract", theta)
    assert_array_equal((theta, g), before)


@pytest.mark.parametrize("filter_knots", [2, 3, 9, 32, 100])
@BOTH
def test_smoothing_is_symmetric(kernels, at_every_level, dtype, filter_knots):
    layer = Symmetric(kernels, dtype, (2, 2), (1, 1), 3, filter_knots)
    rng, n, tolerance = np.random.default_rng(1), layer.n_theta, 10 * np.finfo(dtype).eps
    x, y = rng.normal(size=(2, 4, n + 5)).astype(dtype)
    for _ in at_every_level:
        sx, sy = x.copy(), y.copy()
        for rows in (sx, sy):
            assert layer.call("layer_smooth", rows, n + 5, 4, result=c_int)
        # Psi's parameters and what lies between rows stay, and a row sees no other
        for rows, smooth in ((x, sx), (y, sy)):
            assert_array_equal(rows[:, :9], smooth[:, :9])
            assert_array_equal(rows[:, n:], smooth[:, n:])
            one = rows[2:3].copy()
            layer.call("layer_smooth", one, n + 5, 1)
            assert_array_equal(one[0], smooth[2])
        part = slice(9, n)
        assert_allclose(
            np.sum(sx[:, part].astype(F64) * y[:, part], axis=1),
            np.sum(x[:, part].astype(F64) * sy[:, part], axis=1),
            rtol=tolerance,
            atol=tolerance * n,
        )
        # a constant is smooth, and stays; positions and values do not mix
        flat = np.zeros((1, n), dtype)
        flat[0, 9 : 9 + filter_knots] = 2
        smooth = flat.copy()
        layer.call("layer_smooth", smooth, n, 1)
        assert_allclose(smooth, flat, rtol=tolerance, atol=tolerance)


def test_only_filters_are_smoothed(case):
    layer = case.kernel()
    theta = np.ones((1, max(layer.n_theta, 1)))
    smooths = layer.call("layer_smooth", theta, layer.n_theta, 1, result=c_int)
    assert smooths == isinstance(layer, (Symmetric, Shift))
    conditional = isinstance(layer, (Symmetric, Shift, Coupling))
    assert layer.call("layer_conditional", result=c_int) == conditional


# ---- shapes --------------------------------------------------------------------------------------

BAD = {
    "more slices than columns": (Sliced, (3, 4, 7, 1), "n_slices"),
    "one knot": (Sliced, (3, 1, 1, 1), "n_knots"),
    "too many knots": (Sliced, (3, 1, 65536, 1), "n_knots"),
    "more slices than numbers of a patch": (
        Patch,
        ((4, 4, 1), (2, 2, 1), (0, 0), 5, 7, 1),
        "n_slices",
    ),
    "one knot of a patch": (Patch, ((4, 4, 1), (2, 2, 1), (0, 0), 2, 1, 1), "n_knots"),
    "a kernel larger than the image": (
        Patch,
        ((4, 4, 1), (5, 2, 1), (0, 0), 2, 7, 1),
        "kernel: height 5",
    ),
    "a part of the channels": (
        Patch,
        ((4, 4, 3), (2, 2, 2), (0, 0), 2, 7, 1),
        "kernel: has 1 or all 3 channels, not 2",
    ),
    "a shift as far as the image": (
        Patch,
        ((4, 4, 1), (2, 2, 1), (0, 4), 2, 7, 1),
        "shift: 4",
    ),
    "an image without columns": (
        Patch,
        ((4, 0, 1), (2, 2, 1), (0, 0), 2, 7, 1),
        "image_shape: width is 0",
    ),
    "one knot of psi": (Symmetric, ((2, 2), (1, 1), 1, 9), "psi_knots"),
    "too many knots of psi": (Symmetric, ((2, 2), (1, 1), 64, 9), "psi_knots"),
    "one knot of the filter": (Symmetric, ((2, 2), (1, 1), 8, 1), "filter_knots"),
    "one knot of g": (Shift, ((2, 2), (1, 1), (1,), 9), "condition_knots"),
    "too many knots of g": (Shift, ((2, 2), (1, 1), range(65), 9), "condition_knots"),
    "one knot of S": (Shift, ((2, 2), (1, 1), (1, 2), 1), "filter_knots"),
    "knots of g that do not ascend": (Shift, ((2, 2), (1, 1), (1, 1), 9), "condition_field"),
    "knots of g that are not finite": (Shift, ((2, 2), (1, 1), (1, np.inf), 9), "condition_field"),
    "a split at k = 0": (Coupling, ((8, 8), (1, 1), 0.0, 1, 2, 4), "split"),
    "a split at the largest k": (Coupling, ((8, 8), (1, 1), 1.0, 1, 2, 4), "split"),
    "no mode below the split": (
        Coupling,
        ((8, 8), (1, 1), 0.1, 1, 2, 4),
        "no mode of the mesh lies below split",
    ),
    "no channel": (Coupling, ((8, 8), (1, 1), 0.5, 1, 0, 4), "channels"),
    "too many channels": (Coupling, ((8, 8), (1, 1), 0.5, 1, 65, 4), "channels"),
    "one knot of A and C": (Coupling, ((8, 8), (1, 1), 0.5, 1, 2, 1), "knots"),
    "too many knots of A and C": (Coupling, ((8, 8), (1, 1), 0.5, 1, 2, 257), "knots"),
    "a negative rank": (Autoregressive, ((0, -1), (4,), 2, 0), "ranks: -1"),
    "more ranks than columns": (Autoregressive, ((0, 2), (4,), 2, 0), "ranks: 2"),
    "no bin": (Autoregressive, ((0, 1), (4,), 0, 0), "bins: 0"),
    "too many bins": (Autoregressive, ((0, 1), (4,), 65, 0), "bins: 65"),
    "no hidden layer": (Autoregressive, ((0, 1), (), 2, 0), "hidden"),
    "too many hidden layers": (Autoregressive, ((0, 1), (4,) * 8, 2, 0), "hidden"),
    "a hidden layer without units": (Autoregressive, ((0, 1), (4, 0), 2, 0), "hidden: layer 1"),
    "too many units": (Autoregressive, ((0, 1), (65537,), 2, 0), "hidden: layer 0"),
    "too many conditions": (Autoregressive, ((0, 1), (4,), 2, 4097), "n_conditions: 4097"),
    "too many knots of the filter": (Symmetric, ((2, 2), (1, 1), 8, 4097), "filter_knots"),
}


@pytest.mark.parametrize(("kind", "shape", "name"), BAD.values(), ids=BAD)
@BOTH
def test_bad_shapes_are_refused(kernels, kind, shape, name, dtype):
    with pytest.raises(ValueError, match=name):
        kind(kernels, dtype, *shape)


def test_what_is_known_of_a_layer(case):
    layer = case.kernel()
    slices = layer.call("layer_slices", result=c_ssize_t)
    patches = layer.call("layer_patches", None, result=c_ssize_t)
    if isinstance(layer, Patch):
        rows = np.full(layer.rows().shape, -1, np.int32)
        layer.call("layer_patches", rows)
        assert_array_equal(rows, layer.rows())
        assert (patches, slices) == (len(rows), layer.k or rows.shape[1])
    else:
        assert patches == 0
        assert slices == ((layer.k or layer.d) if isinstance(layer, Sliced) else 0)
    bounds = layer.call("layer_bounds", result=c_void_p)
    assert bool(bounds) == isinstance(layer, Columns)
    if bounds:
        at = np.ctypeslib.as_array((c_double * (2 * layer.d)).from_address(bounds))
        kinds, a, b = layer.shape
        for kind, low, high, (lo, hi) in zip(kinds, a, b, at.reshape(-1, 2), strict=True):
            assert lo == (low if kind in ("logit", "above") else -np.inf)
            assert hi == ({"logit": high, "below": low}.get(kind, np.inf))


@BOTH
def test_layer_comes_back_from_its_bytes(case, dtype):
    layer = case.kernel(dtype)
    handle, size = layer.copy()
    assert handle, case.kernels.message()
    copy = object.__new__(type(layer))
    copy.__dict__.update(layer.__dict__, handle=c_void_p(handle))
    assert copy.kind() == layer.kind()
    assert copy.call("layer_n_theta", result=c_ssize_t) == layer.n_theta
    n = 5
    for a, b in zip(*(Points(at, case, n).results() for at in (layer, copy)), strict=True):
        assert_array_equal(a, b)
    for part in range(size):  # cut off anywhere
        assert not layer.copy(part)[0]
        assert "damaged" in case.kernels.message()


@of_kind(Affine, Sliced, Patch, Autoregressive)
def test_layer_larger_than_its_file_is_refused(case):
    layer = case.kernel()
    assert layer.copy(whole=8 * layer.n_theta)[0]
    assert not layer.copy(whole=4 * layer.n_theta - 1)[0]
    assert "missing" in case.kernels.message()
