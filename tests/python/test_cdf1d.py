"""One-dimensional distributions: histograms, scores, distances and the splines fitted to them."""

from ctypes import c_double

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import cdf1d
from scipy import special, stats

F32, F64 = np.float32, np.float64
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
    return score, kernels.call("k_scores", score, count, *grid, result=c_double)


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


def test_fit_bounds_its_slopes(kernels):
    """Between 1e-3 and 1e3 standard deviations: four fifths in one narrow bin would be steeper."""
    bins, moments, k = 8192, np.empty(4), np.empty((3, 21))
    count = np.zeros(bins, np.int64)
    count[[256, bins // 2, bins - 256]] = 10, 80, 10
    kernels.call("k_moments", moments, count, LO, 32 / bins, bins, result=None)
    options = 21, 0, 0, 0.18, 0.0, 0.0
    kernels.call("k_fit", k, count, LO, 32 / bins, bins, *options, result=None)
    slope = k[2] * moments[1]
    assert_allclose(slope.max(), 1e3)
    assert slope.min() > 1e-3 * (1 - 1e-9)


# ---- from one distribution to another ------------------------------------------------------------


def ranged(v, bins):
    """A histogram over the range of v, as the two-sided search lays it; and its lo and width."""
    lo, hi = v.min() - 1e-6, v.max() + 1e-6
    width = (hi - lo) / bins
    return cdf1d.count(v, None, lo, width, bins), (lo, width)


def match(kernels, count, grid, other, other_grid):
    to = np.empty(len(count) + 1)
    args = count, *map(float, grid), len(count), other, *map(float, other_grid), len(other)
    return to, kernels.call("k_match", to, *args, result=c_double)


def fit_match(kernels, count, grid, other, other_grid, m=60, edge=5, alpha=(0.0, 0.0)):
    knots = np.empty((3, m))
    args = count, *map(float, grid), len(count), other, *map(float, other_grid), len(other)
    kernels.call("k_fit_match", knots, *args, m, edge, *map(float, alpha), result=None)
    return knots


OTHERS = {
    "itself": lambda v, r: v,
    "shifted and stretched": lambda v, r: 3 - 2 * v[: len(v) // 2],
    "a gaussian": lambda v, r: r.normal(size=3000),
    "two values": lambda v, r: r.integers(0, 2, 2000) * 5.0,
}


@pytest.fixture(params=OTHERS)
def other(request, sample):
    return OTHERS[request.param](sample, np.random.default_rng(3))


@pytest.mark.parametrize("bins", [(256, 256), (1024, 300)])
def test_match_and_its_splines_are_their_twins(kernels, sample, other, bins):
    a, b = ranged(sample, bins[0]), ranged(other, bins[1])
    to, distance = match(kernels, *a, *b)
    expected, square = cdf1d.match(*a, *b)
    assert_allclose(to, expected, rtol=1e-9, atol=1e-9)
    assert_allclose(distance, square, rtol=1e-9, atol=1e-12)
    for options in ((60, 5, (0.0, 0.0)), (3, 0, (0.0, 0.0)), (40, 0, (0.5, 0.9))):
        mine = fit_match(kernels, *a, *b, *options)
        assert_allclose(mine, cdf1d.fit_match(*a, *b, *options), rtol=1e-7, atol=1e-9)


def test_match_is_the_optimal_transport_of_sorted_samples(kernels, sample, other):
    if len(np.unique(sample)) < 100:
        return  # a bin of many equal values goes to one place, the middle of where they belong
    v, w = sample[:2000], other[:1500]
    (count, grid), second = ranged(v, 2048), ranged(w, 2048)
    to, distance = match(kernels, count, grid, *second)
    exact, image = cdf1d.exact_transport(v, w)
    assert_allclose(np.sqrt(distance), np.sqrt(exact), rtol=0.01, atol=0.02 * np.std(w))
    if len(np.unique(w)) > 100:  # it is as far back
        back = match(kernels, *second, count, grid)[1]
        assert_allclose(np.sqrt(back), np.sqrt(distance), atol=0.03 * np.std(w))
    u = np.clip((v - grid[0]) / grid[1], 0, 2047.999)
    moved = to[u.astype(int)] + (u % 1) * (to[u.astype(int) + 1] - to[u.astype(int)])
    assert np.quantile(np.abs(moved - image), 0.97) < 0.05 * np.std(w)


@pytest.mark.parametrize("bins", [2, 17, 256, 2048])
def test_a_distribution_is_at_no_distance_from_itself(kernels, sample, bins):
    """Nor from itself with other weights' units; gaps, one and two values are no exception."""
    for v in (sample, sample[:30], np.zeros(5), np.array([0.0, 1.0]), np.arange(7.0)):
        count, grid = ranged(v, bins)
        for factor in (1, 3, 7, 1_000_003):
            to, distance = match(kernels, count, grid, factor * count, grid)
            edges = grid[0] + grid[1] * np.arange(bins + 1)
            used = count > 0
            span = edges[-1] - edges[0]
            assert_allclose(to[:-1][used], edges[:-1][used], atol=1e-9 * span)
            assert distance < 1e-18 * span**2 + 1e-30 or distance < (1e-9 * span) ** 2
            x, y, _ = fit_match(kernels, count, grid, factor * count, grid, 30, 3)
            assert np.quantile(np.abs(x - y), 0.9) < 1e-4 * span


def test_a_distribution_without_mass_is_matched_by_the_identity(kernels):
    (count, grid), none = ranged(np.arange(10.0), 16), np.zeros(16, np.int64)
    edges = grid[0] + grid[1] * np.arange(17)
    for a, b in ((count, none), (none, count), (none, none)):
        to, distance = match(kernels, a, grid, b, grid)
        assert distance == 0
        assert_allclose(to, edges)


def test_match_of_shifted_gaussians_is_their_known_distance(kernels):
    z = special.ndtri((np.arange(20_000) + 0.5) / 20_000)
    a = ranged(z, 1024)
    for shift, stretch in ((0, 1), (2, 1), (0, 3), (-4, 0.2)):
        distance = match(kernels, *a, *ranged(shift + stretch * z, 700))[1]
        assert_allclose(np.sqrt(distance), np.hypot(shift, stretch - 1), rtol=2e-3, atol=1e-2)


def test_splines_carry_one_sample_to_the_other(kernels, sample, other):
    a, b = ranged(sample, 2048), ranged(other, 2048)
    x, y, d = knots = fit_match(kernels, *a, *b, 100, 10)
    assert np.isfinite(knots).all()
    assert np.all(np.diff(x) > 0)
    assert np.all(np.diff(y) > 0)
    assert np.all(d > 0)
    assert_array_equal(d[[0, -1]], 1)
    if min(len(np.unique(sample)), len(np.unique(other))) < 100:
        return  # equal values stay together
    moved, slope = kernels.spline("forward", sample, kernels.spline_theta(knots))
    scale = np.std(other)
    assert np.sqrt(cdf1d.exact_transport(moved[:2000], other[:1500])[0]) < max(
        0.02 * scale, 1.5 * np.sqrt(cdf1d.exact_transport(other[:1500], other[1500:])[0])
    )
    outside = np.array([x[0] - 1, x[-1] + 1])
    moved, slope = kernels.spline("forward", outside, kernels.spline_theta(knots))
    assert_allclose(slope, 0, atol=1e-6)
    assert_allclose(moved, [y[0] - 1, y[-1] + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("v", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize("w", AWKWARD.values(), ids=AWKWARD)
def test_splines_between_awkward_samples_are_splines(kernels, v, w):
    for m, edge in ((3, 0), (60, 10), (400, 10)):
        x, y, d = fit_match(kernels, *ranged(v(), 2048), *ranged(w(), 2048), m, edge)
        assert np.isfinite([x, y, d]).all()
        assert np.all(np.diff(x) > 0)
        assert np.all(np.diff(y) > 0)
        assert np.all(d > 0)
