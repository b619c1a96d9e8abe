"""Every kernel of GIS against its slow twin in tests/reference, and against what it must obey."""

import os
import subprocess
import sys

import numpy as np
import pytest
from ckernels import Kernels, Layer
from numpy.testing import assert_allclose, assert_array_equal
from reference import cdf1d, layers, philox, rqs, stiefel
from reference.rqs import crowded_knots, some_knots
from scipy import special, stats

F32, F64 = np.float32, np.float64


@pytest.fixture(scope="module")
def kernels():
    return Kernels()


# ---- splines and layers: one table ---------------------------------------------------------------


def slices(rng, k, d):
    return np.linalg.qr(rng.normal(size=(d, k)))[0].T


BOUNDED = ["linear", "asinh", "logit", "above", "below"], [1, -1, -4, -6, 7], [2, 0.5, 5, 2, 0.7]

# name: (kind, d, classes, parameters)
TABLE = {
    "one column": ("sliced", 1, 1, lambda r: (None, some_knots(r, 1, 1))),
    "two knots": ("sliced", 2, 1, lambda r: (None, some_knots(r, 1, 2, m=2))),
    "crowded knots": ("sliced", 3, 1, lambda r: (None, crowded_knots(r, 1, 3))),
    "all columns": ("sliced", 4, 1, lambda r: (None, some_knots(r, 1, 4))),
    "columns, classes": ("sliced", 3, 3, lambda r: (None, some_knots(r, 3, 3))),
    "one slice": ("sliced", 5, 1, lambda r: (slices(r, 1, 5), some_knots(r, 1, 1))),
    "many slices": ("sliced", 9, 1, lambda r: (slices(r, 9, 9), some_knots(r, 1, 9, m=50))),
    "crowded slices": ("sliced", 4, 1, lambda r: (slices(r, 2, 4), crowded_knots(r, 1, 2))),
    "slices, classes": ("sliced", 4, 3, lambda r: (slices(r, 2, 4), some_knots(r, 3, 2))),
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
    # theta is that of the splines, then slices; or W, then the mean
    sliced = case.kind == "sliced"
    parameters = list(case.parameters)
    if sliced:
        parameters[1] = case.kernels.spline_theta(parameters[1])
    places = [
        (which, i)
        for which in ((1, 0) if sliced else (0, 1))
        if parameters[which] is not None
        for i in range(parameters[which].size)
    ]
    assert gtheta.size == len(places)
    for at in case.rng.permutation(len(places))[:60]:
        which, i = places[at]
        values, step = [], 1e-7
        for sign in (1, -1):
            moved = [None if p is None else p.copy() for p in parameters]
            moved[which].flat[i] += sign * step
            if sliced:
                moved[1] = np.apply_along_axis(rqs.knots, -1, moved[1])
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


# ---- random numbers and the normal distribution --------------------------------------------------

# Random123's known answers for philox4x32-10 (kat_vectors): counter, key, words.
PHILOX = {
    "zeros": (0, 0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": (2**64 - 1, 2**64 - 1, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": (
        0x85A308D3_243F6A88,
        0x03707344_13198A2E,
        0x299F31D0_A4093822,
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
}


@pytest.mark.parametrize(("counter", "stream", "key", "words"), PHILOX.values(), ids=PHILOX)
def test_philox_gives_the_known_answers(kernels, counter, stream, key, words):
    out = np.zeros(4, np.uint32)
    kernels.call("k_philox", out, key, stream, counter, result=None)
    assert " ".join(f"{w:08x}" for w in out.tolist()) == words
    assert philox.philox(key, stream, counter) == out.tolist()


def test_normals_are_their_twin_wherever_one_starts(kernels):
    key, stream = 2**63 + 5, 7 << 32
    whole = np.empty(101)
    kernels.call("k_normals", whole, key, stream, 0, 101, result=None)
    assert_allclose(whole, [philox.normal(key, stream, i) for i in range(101)], rtol=1e-13)
    for first in (1, 2, 37):
        part = np.empty(101 - first)
        kernels.call("k_normals", part, key, stream, first, len(part), result=None)
        assert_array_equal(part, whole[first:])


def test_normals_are_normal(kernels):
    z = np.empty(100_000)
    kernels.call("k_normals", z, 1, 2, 0, len(z), result=None)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    # neighbours, and the same number of neighbouring streams and keys, have nothing to do with it
    other, key = np.empty_like(z), np.empty_like(z)
    kernels.call("k_normals", other, 1, 3, 0, len(z), result=None)
    kernels.call("k_normals", key, 2, 2, 0, len(z), result=None)
    for a, b in ((z[1:], z[:-1]), (z, other), (z, key)):
        assert stats.pearsonr(a, b).pvalue > 1e-3


def test_uniform_integers_are_uniform(kernels):
    draw = [kernels.call("k_uniform_int", 3, 4, i, 7, result=_uint64()) for i in range(7000)]
    assert stats.chisquare(np.bincount(draw, minlength=7)).pvalue > 1e-3
    assert len(np.bincount(draw)) == 7


def _uint64():
    from ctypes import c_uint64

    return c_uint64


def test_normal_quantile_is_scipys(kernels):
    p = np.concatenate(
        [
            [5e-324, 1e-300, 1e-200, 1e-30, 1e-16, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 1 - 1e-16],
            [0.075, 0.925, np.nextafter(0.075, 0), np.nextafter(0.925, 1), np.exp(-25)],
            np.linspace(1e-5, 1 - 1e-5, 1001),
            np.logspace(-307, -1, 500),
        ]
    )
    z = np.empty_like(p)
    kernels.call("k_normal_quantile", z, p, len(p), result=None)
    # near 1/2 and near 1 the quantile is as good as p is: p - 1/2 or 1 - p is exact
    assert_allclose(z, special.ndtri(p), rtol=2e-15 * 10, atol=1e-16)


def test_normal_quantile_at_the_ends(kernels):
    p = np.array([0, 1, -0.1, 1.1, np.nan])
    z = np.empty_like(p)
    kernels.call("k_normal_quantile", z, p, len(p), result=None)
    assert_array_equal(z, [-np.inf, np.inf, np.nan, np.nan, np.nan])


def test_normal_cdf_is_scipys(kernels):
    x = np.linspace(-37, 9, 1001)
    p = np.empty_like(x)
    kernels.call("k_normal_cdf", p, x, len(x), result=None)
    assert_allclose(p, special.ndtr(x), rtol=1e-12)


# ---- one-dimensional distributions ---------------------------------------------------------------

SAMPLES = {
    "normal": lambda r, n: r.normal(size=n),
    "bimodal": lambda r, n: r.normal(size=n) * 0.3 + r.choice([-1, 1.5], n),
    "skewed": lambda r, n: r.gamma(2, size=n) - 2,
    "uniform": lambda r, n: r.uniform(-1.7, 1.7, n),
    "heavy": lambda r, n: np.clip(r.standard_t(3, n), -12, 12),
    "integers": lambda r, n: r.poisson(3, n) - 3.0,
}
LO, WIDTH, BINS = -16.0, 32 / 2048, 2048


@pytest.fixture(params=SAMPLES)
def sample(request):
    return SAMPLES[request.param](np.random.default_rng(5), 5000)


def histogram(kernels, v, weight=None, bins=BINS, dtype=F64):
    count = np.zeros(bins, np.int64)
    v = np.ascontiguousarray(v, dtype)
    grid = LO, WIDTH * BINS / bins
    kernels.real("count", dtype, count, v, weight, None, 0, *grid, bins, len(v), result=None)
    return count


def scores(kernels, count):
    score = np.empty(len(count) + 1)
    grid = LO, WIDTH * BINS / len(count), len(count)
    return score, kernels.call("k_scores", score, count, *grid, result=_double())


def _double():
    from ctypes import c_double

    return c_double


@pytest.mark.parametrize("dtype", [F32, F64])
def test_histogram_is_its_twin(kernels, sample, dtype):
    v = np.concatenate([sample, [-1e30, 1e30, LO, -LO]]).astype(dtype)
    expected = cdf1d.count(v.astype(float), None, LO, WIDTH, BINS)
    count = histogram(kernels, v, dtype=dtype)
    assert count.sum() == len(v)
    # float32 may put a number into the bin beside
    assert np.abs(np.cumsum(count - expected)).max() <= (0 if dtype == F64 else 2)


def test_histogram_of_classes_and_weights(kernels):
    rng = np.random.default_rng(6)
    v, label = rng.normal(size=1000), rng.integers(0, 3, 1000).astype(np.int32)
    weight = rng.integers(0, 5, 1000)
    count = np.zeros((3, BINS), np.int64)
    kernels.real("count", F64, count, v, weight, label, BINS, LO, WIDTH, BINS, 1000, result=None)
    for c in range(3):
        repeated = np.repeat(v[label == c], weight[label == c])
        assert_array_equal(count[c], histogram(kernels, repeated))


def test_fixed_weights(kernels):
    weight = np.random.default_rng(7).exponential(size=1000)
    fixed, other = np.empty(1000, np.int64), np.empty(1000, np.int64)
    for scale in (1.0, 1e-200, 1e250):
        kernels.call("k_fixed_weights", fixed, weight * scale, 1000, result=None)
        assert_allclose(fixed / 2**52, weight / weight.sum(), atol=2**-52)
    kernels.call("k_fixed_weights", other, np.full(1000, 3.7), 1000, result=None)
    assert len(set(other.tolist())) == 1


def test_scores_and_distance_are_their_twins(kernels, sample):
    count = histogram(kernels, sample)
    score, distance = scores(kernels, count)
    assert_allclose(score, cdf1d.scores(count), rtol=1e-9, atol=1e-9)
    assert_allclose(distance, cdf1d.distance(count, LO, WIDTH), rtol=1e-9)


def test_distance_is_that_of_the_sorted_sample(kernels, sample):
    _, distance = scores(kernels, histogram(kernels, sample))
    exact = cdf1d.exact_distance(sample)
    # a bin goes to one score, not to the range that its rows fill: with ties it is a wide one
    ties = len(np.unique(sample)) < 100
    assert abs(np.sqrt(distance) - np.sqrt(exact)) < (0.05 if ties else 0.02)


def test_distance_of_a_shifted_and_stretched_gaussian(kernels):
    n = 20000
    z = special.ndtri((np.arange(n) + 0.5) / n)
    for shift, stretch in ((0, 1), (0.7, 1), (0, 1.6), (-1, 0.4)):
        _, distance = scores(kernels, histogram(kernels, shift + stretch * z))
        assert_allclose(distance, shift**2 + (stretch - 1) ** 2, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (F32, 1e-3)])
def test_residual_is_its_twin(kernels, sample, dtype, tolerance):
    score, _ = scores(kernels, histogram(kernels, sample))
    v = np.concatenate([sample, [-40.0, 40.0]]).astype(dtype)
    r = np.empty_like(v)
    grid = LO, WIDTH, BINS, len(v)
    kernels.real("residual", dtype, r, v, score.astype(dtype), *grid, result=None)
    expected = cdf1d.residual(v.astype(float), score, LO, WIDTH)
    # within the width of a bin a score may rise steeply: float32 is off by its share of it
    assert np.mean(np.abs(r - expected) > tolerance * (1 + np.abs(expected))) < 1e-3


def test_residual_is_the_gradient_of_the_distance(kernels):
    """d W2^2(a.x) / d a = 2 mean(r x), against differences of the exact distance."""
    rng = np.random.default_rng(8)
    x = rng.gamma(2, size=(20000, 2)) - 2
    x[:, 1] += 0.5 * x[:, 0] ** 2
    for angle in (0.2, 1.1, 2.5):
        a = np.array([np.cos(angle), np.sin(angle)])
        v = np.ascontiguousarray(x @ a)
        score, _ = scores(kernels, histogram(kernels, v))
        r = np.empty_like(v)
        kernels.real("residual", F64, r, v, score, LO, WIDTH, BINS, len(v), result=None)
        step = 1e-5 * np.eye(2)
        numerical = [
            (cdf1d.exact_distance(x @ (a + s)) - cdf1d.exact_distance(x @ (a - s))) / 2e-5
            for s in step
        ]
        assert_allclose(2 * r @ x / len(x), numerical, rtol=0.02, atol=0.02)


def test_moments_are_their_twin(kernels, sample):
    count = histogram(kernels, sample)
    out = np.empty(4)
    kernels.call("k_moments", out, count, LO, WIDTH, BINS, result=None)
    assert_allclose(out, cdf1d.moments(count, LO, WIDTH), rtol=1e-10, atol=1e-12)
    assert_allclose(out[:2], [sample.mean(), sample.std()], atol=WIDTH)
    assert_allclose(out[2:], np.quantile(sample, [0.25, 0.75]), atol=2 * WIDTH)


def fit(kernels, count, m=60, edge=2, kde=1, bandwidth=0.18, alpha=(0.0, 0.0)):
    out = np.empty((3, m))
    options = m, edge, kde, float(bandwidth), *map(float, alpha)
    kernels.call("k_fit", out, count, LO, WIDTH, len(count), *options, result=None)
    return out


@pytest.mark.parametrize("kde", [1, 0])
@pytest.mark.parametrize("alpha", [(0, 0), (0.9, 0.95)])
def test_fit_is_its_twin(kernels, sample, kde, alpha):
    count = histogram(kernels, sample)
    mine = fit(kernels, count, kde=kde, alpha=alpha)
    expected = cdf1d.fit(count, LO, WIDTH, 60, 2, kde, 0.18, alpha)
    for a, b in zip(mine, expected, strict=True):
        assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kde", [1, 0])
def test_fit_makes_a_sample_gaussian(kernels, sample, kde):
    if len(np.unique(sample)) < 100:
        return  # whole numbers stay apart
    k = fit(kernels, histogram(kernels, sample), kde=kde)
    z, _ = kernels.spline("forward", sample, kernels.spline_theta(k))
    assert cdf1d.exact_distance(z) < 0.02 < cdf1d.exact_distance(sample) + 0.02
    assert abs(np.std(z) - 1) < 0.1


def test_fit_of_a_gaussian_is_the_identity(kernels):
    n = 200_000
    rng = np.random.default_rng(9)
    k = fit(kernels, histogram(kernels, rng.normal(size=n)), bandwidth=n**-0.2)
    x = np.linspace(-2.5, 2.5, 101)
    y, log_slope = kernels.spline("forward", x, kernels.spline_theta(k))
    # sampling error of a quantile: sqrt(F (1 - F) / n) / pdf, times 5
    error = np.sqrt(stats.norm.cdf(x) * stats.norm.sf(x) / n) / stats.norm.pdf(x)
    assert np.all(np.abs(y - x) < 5 * error + 2e-3)
    assert np.all(np.abs(log_slope) < 0.15)
    assert np.mean(np.abs(log_slope)) < 0.03


def test_fit_pulled_all_the_way_is_the_identity(kernels, sample):
    k = fit(kernels, histogram(kernels, sample), alpha=(1, 1))
    assert_allclose(k[1], k[0])
    assert_array_equal(k[2], 1)


def test_fit_does_not_see_the_scale_of_weights(kernels, sample):
    count = histogram(kernels, sample)
    assert_allclose(fit(kernels, 1_000_003 * count), fit(kernels, count), rtol=1e-10, atol=1e-12)


AWKWARD = {
    "one number": lambda: np.zeros(10),
    "two numbers": lambda: np.array([0.0, 1.0]),
    "far apart": lambda: np.concatenate([np.zeros(500), np.full(500, 10.0)]),
    "outlier": lambda: np.append(np.random.default_rng(0).normal(size=999) * 0.05, 15.9),
    "ends": lambda: np.repeat([-16.0, 15.99], 50),
}


@pytest.mark.parametrize("v", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize("kde", [1, 0])
def test_fit_of_awkward_samples_is_a_spline(kernels, v, kde):
    for m, edge in ((3, 0), (60, 3), (400, 9)):
        k = fit(kernels, histogram(kernels, v()), m=m, edge=edge, kde=kde)
        assert np.isfinite(k).all()
        assert np.all(np.diff(k[:2]) > 0)
        assert np.all(k[2] > 0)


# ---- slices --------------------------------------------------------------------------------------


def quadratic(rng, d):
    """F(a) = sum_k a_k M a_k: largest for the eigenvectors of the largest eigenvalues."""
    m = rng.normal(size=(d, d))
    m = m @ m.T
    return m, lambda a: np.sum((a @ m) * a), lambda a: 2 * a @ m


SHAPES = [
    (1, 2),
    (2, 2),
    (1, 6),
    (2, 9),
    (3, 7),
    (4, 7),
    (5, 5),
]  # solved by 2K equations, and by d


@pytest.mark.parametrize(("k", "d"), [*SHAPES, (33, 40), (70, 90)])  # by blocks of 32
def test_random_slices_are_orthonormal(kernels, k, d):
    a, b, z = np.empty((k, d)), np.empty((k, d)), np.empty(k * d)
    assert not kernels.call("k_stiefel_random", a, k, d, 3, 9)
    kernels.call("k_stiefel_random", b, k, d, 3, 10)
    kernels.call("k_normals", z, 3, 9, 0, k * d, result=None)
    assert_allclose(a @ a.T, np.eye(k), atol=1e-14)
    assert_allclose(a, stiefel.random(k, d, z), atol=1e-12)
    assert not np.allclose(a, b, atol=0.01)


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_search_is_its_twin_and_never_falls(kernels, k, d):
    rng = np.random.default_rng(10)
    _, value, gradient = quadratic(rng, d)
    start = slices(rng, k, d)
    before = value(start)
    for steps in range(4):
        a, best = kernels.ascend(start, value, gradient, steps)
        assert_allclose(a @ a.T, np.eye(k), atol=1e-13)
        assert_allclose(best, value(a), rtol=1e-12)
        assert best >= before
        before = best
        if k < d:  # for K = d the quadratic is constant: nothing to climb
            expected, expected_best = stiefel.ascend(start, value, gradient, steps)
            assert_allclose(a, expected, atol=1e-9)
            assert_allclose(best, expected_best, rtol=1e-10)


def test_search_slope_is_the_objectives(kernels):
    """The twin's curve starts with the slope |W|^2 / 2, stays orthonormal, and starts at a."""
    rng = np.random.default_rng(11)
    _, value, gradient = quadratic(rng, 6)
    a = slices(rng, 2, 6)
    t = 1e-6
    up, slope = stiefel.curve(a, gradient(a), t)
    down, _ = stiefel.curve(a, gradient(a), -t)
    assert_allclose((value(up) - value(down)) / 2 / t, slope, rtol=1e-5)
    far, _ = stiefel.curve(a, gradient(a), 3.0)
    assert_allclose(far @ far.T, np.eye(2), atol=1e-12)


@pytest.mark.parametrize(("k", "d"), [s for s in SHAPES if s[0] < s[1]])
def test_search_finds_the_known_best(kernels, k, d):
    rng = np.random.default_rng(12)
    m, value, gradient = quadratic(rng, d)
    a, best = kernels.ascend(slices(rng, k, d), value, gradient, 2000, 1e-12)
    assert_allclose(best, np.linalg.eigvalsh(m)[-k:].sum(), rtol=1e-6)
    assert_allclose(a @ a.T, np.eye(k), atol=1e-12)


def test_search_stops_where_there_is_nothing_to_climb(kernels):
    a = slices(np.random.default_rng(13), 2, 5)
    same, best = kernels.ascend(a, lambda a: 1.0, np.zeros_like, 100)
    assert_allclose(same, a, atol=1e-15)
    assert best == 1
