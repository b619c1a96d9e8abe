"""Distances between sets, against known truths, SciPy and scikit-learn."""

import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import sqrtm
from scipy.signal import correlate
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from sklearn.metrics import roc_auc_score

import pyflow
from pyflow import metrics

DATA = Path(pyflow.__file__).parent / "data"


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def with_moments(rng, n, mean, covariance):
    """n points whose sample mean and covariance are exactly these."""
    x = rng.normal(size=(n, len(mean)))
    x -= x.mean(axis=0)
    x = np.linalg.solve(np.linalg.cholesky(np.cov(x.T)), x.T).T
    return x @ np.linalg.cholesky(covariance).T + mean


# ---- Fréchet distance ----------------------------------------------------------------------------


def test_frechet_distance_of_gaussians_with_common_axes(rng):
    axes = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    s1, s2 = np.array([1.0, 2, 3, 4]), np.array([2.0, 2, 0.5, 7])
    shift = np.array([1.0, -2, 0, 3])
    x = with_moments(rng, 50, np.zeros(4), axes * s1**2 @ axes.T)
    y = with_moments(rng, 70, shift, axes * s2**2 @ axes.T)
    truth = (shift**2).sum() + ((s1 - s2) ** 2).sum()
    assert metrics.frechet_distance(x, y) == pytest.approx(truth, rel=1e-12)
    assert metrics.frechet_distance(y, x) == pytest.approx(truth, rel=1e-12)


def test_frechet_distance_is_that_of_sqrtm(rng):
    x = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))
    y = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 1
    c1, c2 = np.cov(x.T), np.cov(y.T)
    gap = x.mean(axis=0) - y.mean(axis=0)
    truth = gap @ gap + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert metrics.frechet_distance(x, y) == pytest.approx(truth, rel=1e-10)


def test_frechet_distance_where_covariances_are_singular(rng):
    """On orthogonal lines C1 C2 = 0; a set lies at no distance from itself."""
    t = rng.normal(size=(30, 1))
    x, y = t * [1.0, 0, 0, 0], t * [0, 2.0, 0, 0]
    truth = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + 5 * t.var(ddof=1)
    assert metrics.frechet_distance(x, y) == pytest.approx(truth, rel=1e-12)
    few = rng.normal(size=(5, 40))
    assert 0 <= metrics.frechet_distance(few, few[::-1]) < 1e-5


def test_frechet_distance_of_features_in_batches_and_of_statistics(rng):
    x, y = rng.integers(0, 256, (2, 103, 6, 6), np.uint8)
    sizes = []

    def features(batch):
        assert batch.dtype == np.uint8
        assert batch.shape[1:] == (6, 6)
        sizes.append(len(batch))
        return batch.reshape(len(batch), -1)[:, :5] / np.float32(255)

    distance = metrics.frechet_distance(x, y, features, batch=10)
    assert sizes == 2 * (10 * [10] + [3])
    f, g = (np.float64(features(z)) for z in (x, y))
    assert distance == pytest.approx(metrics.frechet_distance(f, g), rel=1e-12)
    stats = g.mean(axis=0), np.cov(g.T)
    assert distance == pytest.approx(metrics.frechet_distance(x, stats, features), rel=1e-10)
    assert distance == pytest.approx(metrics.frechet_distance(stats, f), rel=1e-10)


class Tensor:
    """What a PyTorch tensor shows of itself to NumPy's users."""

    def __init__(self, values):
        self.values = values

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.values


def test_features_may_be_tensors(rng):
    x, y = rng.normal(size=(2, 50, 3))
    tensors = metrics.frechet_distance(x, y, features=Tensor)
    assert tensors == metrics.frechet_distance(x, y)


BAD_FEATURES = [
    (lambda x: x[:-1], r"features: must return an array of shape \(4, k\)"),
    (lambda x: x[:, 0], r"features: must return .* the shape is \(4,\)"),
    (lambda x: x[:, :0], r"features: must return"),
    (lambda x: x[:, : len(x)], r"shape \(2, 4\) for 2 rows of x; the shape is \(2, 2\)"),
    (lambda x: x.astype(str), "features: must return real numbers"),
    (lambda x: np.where(x == 9, np.nan, x), "features: those of row 1 of x are NaN"),
]


@pytest.mark.parametrize(("features", "message"), BAD_FEATURES)
def test_features_that_return_something_else(features, message):
    x = np.arange(30.0).reshape(6, 5)
    with pytest.raises(ValueError, match=message):
        metrics.frechet_distance(x, x, features, batch=4)


def test_frechet_distance_says_what_is_wrong(rng):
    x = rng.normal(size=(10, 3))
    bad = x.copy()
    bad[4, 1] = np.nan
    eye = np.eye(3)
    cases = [
        ((bad, x), ValueError, "x: row 4 has values that are NaN"),
        ((x, bad), ValueError, "y: row 4"),
        ((x[:1], x), ValueError, "x: the number of rows must be at least 2, not 1"),
        ((x, x[:, :2]), ValueError, "y: has 2 features, but x has 3"),
        ((x, x.astype(complex)), ValueError, "y: must hold real numbers"),
        ((x[:, 0], x), ValueError, "x: must have shape"),
        ((x[:, :0], x), ValueError, "x: must have shape"),
        ((x, x, 5), TypeError, "features: must be a function"),
        ((x, x[:1], abs), ValueError, "y: the number of rows must be at least 2, not 1"),
        ((3.0, x, abs), TypeError, "x: must be a set"),
        ((x, x, None, 0), ValueError, "batch: must be at least 1"),
        ((x, (eye, eye)), ValueError, "y: mean and covariance must have shapes"),
        ((x, (eye[0], eye, eye)), ValueError, "y: a tuple must be"),
        ((x, (eye[0], eye[:2])), ValueError, "y: mean and covariance must have shapes"),
        ((x, (eye[0], np.triu(eye + 1))), ValueError, "y: the covariance must be symmetric"),
        ((x, (eye[0], -eye)), ValueError, "y: the covariance has a negative variance"),
        ((x, (bad[4], eye)), ValueError, "y: the mean: row 1 .* NaN"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            metrics.frechet_distance(*arguments)


# ---- Features of the small network ---------------------------------------------------------------


def network_by_correlation(image, network):
    """The features of one image, one channel at a time with SciPy, in double."""
    with np.load(DATA / f"lenet_{network}.npz") as p:
        p = {name: p[name].astype(np.float64) for name in p.files}
    maps = np.pad(np.clip(image, 0, 255) / 255, 2)[None]
    for layer in ("c1", "c2"):
        weight, bias = p[f"{layer}.weight"], p[f"{layer}.bias"]
        out = []
        for kernels, b in zip(weight, bias, strict=True):
            pairs = zip(maps, kernels, strict=True)
            full = sum(correlate(m, k, "valid", "direct") for m, k in pairs) + b
            corners = [full[i::2, j::2] for i, j in product((0, 1), repeat=2)]
            out.append(np.maximum(np.max(corners, axis=0), 0))
        maps = np.array(out)
    return np.maximum(p["f1.weight"] @ maps.ravel() + p["f1.bias"], 0)


@pytest.mark.parametrize("network", ["mnist", "fashion"])
def test_lenet_is_the_network(network, rng):
    images = rng.integers(0, 256, (19, 28, 28), np.uint8)  # more than one batch, and a part
    images[3] = 0
    truth = np.array([network_by_correlation(image, network) for image in images])
    lenet = metrics.LeNet(network)
    features = lenet(images)
    assert features.shape == (19, 64)
    assert features.dtype == np.float64
    assert abs(truth).max() > 1
    np.testing.assert_allclose(features, truth, rtol=0, atol=2e-6 * abs(truth).max())


def test_lenet_takes_images_in_any_shape_and_dtype(rng):
    lenet = metrics.LeNet()
    images = rng.integers(0, 256, (5, 28, 28), np.uint8)
    features = lenet(images)
    for x in (
        images[..., None],
        images.reshape(5, 784),
        images.astype(np.float64),
        images.astype(np.float32).reshape(5, 784),
        np.where(images == 0, -40, np.where(images == 255, 300, images.astype(int))),  # is clipped
    ):
        np.testing.assert_array_equal(lenet(x), features)
    assert lenet(images[:0]).shape == (0, 64)


def test_lenet_says_what_is_wrong(rng):
    lenet = metrics.LeNet()
    with pytest.raises(ValueError, match="network: must be 'mnist' or 'fashion', not 'cifar'"):
        metrics.LeNet("cifar")
    for shape in [(784,), (28, 28), (3, 32, 32), (3, 28, 28, 3), (1, 1, 28, 28)]:
        with pytest.raises(ValueError, match="images: must have shape"):
            lenet(np.zeros(shape, np.uint8))
    nan = np.full((3, 784), 7.0)
    nan[2, 5] = np.nan
    with pytest.raises(ValueError, match="images: row 2"):
        lenet(nan)
    with pytest.warns(UserWarning, match="images: no value exceeds 1"):
        lenet(rng.uniform(size=(3, 784)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lenet(np.zeros((3, 784)))  # black


# ---- Sliced Wasserstein distance -----------------------------------------------------------------


def unit_vectors(n, d, seed):
    a = np.random.default_rng(seed).standard_normal((n, d))
    return a / np.linalg.norm(a, axis=1, keepdims=True)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 60), (35, 12), (7, 1)])
def test_sliced_wasserstein_of_order_one_is_the_mean_of_scipys(n, m, rng):
    x, y = rng.normal(size=(n, 5)), rng.exponential(size=(m, 5))
    slices = unit_vectors(20, 5, seed=3)
    truth = np.mean([wasserstein_distance(x @ a, y @ a) for a in slices])
    got = metrics.sliced_wasserstein(x, y, n_slices=20, p=1, seed=3)
    assert got == pytest.approx(truth, rel=1e-12)
    assert metrics.sliced_wasserstein(y, x, 20, 1, 3) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_sets_of_different_sizes_are_compared_as_if_repeated(p, rng):
    """Repeating every row leaves a quantile function as it is."""
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(8, 3)) + 1
    repeated = metrics.sliced_wasserstein(np.repeat(x, 2, 0), np.repeat(y, 3, 0), 50, p)
    assert metrics.sliced_wasserstein(x, y, 50, p) == pytest.approx(repeated, rel=1e-12)


def test_sliced_wasserstein_of_a_shift(rng):
    """Every slice has moved by a.s, whose mean square is |s|^2 / d."""
    x = rng.normal(size=(50, 4))
    shift = np.array([3.0, 0, -4, 0])
    slices = unit_vectors(2000, 4, seed=0)
    truth = np.sqrt(np.mean((slices @ shift) ** 2))
    got = metrics.sliced_wasserstein(x, x + shift, n_slices=2000)
    assert got == pytest.approx(truth, rel=1e-10)
    assert got == pytest.approx(5 / 2, rel=0.05)


def test_sliced_wasserstein_of_many_slices_is_that_of_its_parts(rng):
    """However many slices are taken at once, the same ones are."""
    x, y = rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    n = 1_200_000  # two chunks of 2^22 / 7
    truth = np.array(
        [
            np.mean(
                abs(np.sort(x @ a)[[0, 0, 1, 1, 2, 2]] - np.sort(y @ a)[[0, 1, 1, 2, 2, 3]]) ** 2
                @ (np.array([3, 1, 2, 2, 1, 3]) / 12)
            )
            for a in unit_vectors(2000, 2, seed=0)
        ]
    )
    few = metrics.sliced_wasserstein(x, y, 2000)
    assert few**2 == pytest.approx(truth.mean(), rel=1e-12)
    many = metrics.sliced_wasserstein(x, y, n)
    assert abs(many**2 - truth.mean()) < 5 * truth.std() / np.sqrt(2000)


def test_sliced_wasserstein_of_patches_sees_only_them(rng):
    """Of a shift by v in one pixel, a k x k patch sees v^2 / k^2 where it has that pixel."""
    x = rng.integers(0, 256, (30, 6, 7, 1), np.uint8)
    y = x.astype(np.float32)
    y[:, 0, 0] += 60  # in one of 5 x 6 squares of 2 x 2
    got = metrics.sliced_wasserstein(x, y, n_slices=20000, patch=(2, (6, 7)))
    assert got**2 == pytest.approx(60**2 / 4 / 30, rel=0.15)
    y[:, 0, 0] -= 60
    y[:, 3, 3] += 60  # in four of them
    got = metrics.sliced_wasserstein(x, y, n_slices=20000, patch=(2, (6, 7, 1)))
    assert got**2 == pytest.approx(4 * 60**2 / 4 / 30, rel=0.1)


def test_patches_hold_all_channels(rng):
    x = rng.normal(size=(40, 3, 3, 2))
    y = rng.normal(size=(40, 3, 3, 2)) + 1
    whole = metrics.sliced_wasserstein(x, y, n_slices=300, seed=1, patch=(3, (3, 3, 2)))
    # A patch as large as the image is the image: the slices are other ones.
    assert whole == pytest.approx(metrics.sliced_wasserstein(x, y, n_slices=300, seed=2), rel=0.1)
    y = x.copy()
    y[..., 1] += 3
    shift = metrics.sliced_wasserstein(x, y, n_slices=20000, patch=(1, (3, 3, 2)))
    assert shift**2 == pytest.approx(9 / 2, rel=0.05)


def test_sliced_wasserstein_says_what_is_wrong(rng):
    x = rng.normal(size=(10, 12))
    bad = x.copy()
    bad[3] = np.inf
    cases = [
        ((bad, x), {}, ValueError, "x: row 3"),
        ((x, bad), {}, ValueError, "y: row 3"),
        ((x, x[:, 1:]), {}, ValueError, "y: must have as many values in a row as x, 12, not 11"),
        ((x, x[:0]), {}, ValueError, "y: the number of rows must be at least 1, not 0"),
        ((x, x), {"n_slices": 0}, ValueError, "n_slices"),
        ((x, x), {"p": 0.5}, ValueError, "p: must be at least 1"),
        ((x, x), {"p": "two"}, TypeError, "p: must be a number"),
        ((x, x), {"patch": 2}, TypeError, r"patch: must be \(kernel, image_shape\)"),
        ((x, x), {"patch": (2, 12)}, TypeError, r"patch: must be \(kernel, image_shape\)"),
        ((x, x), {"patch": (2, (3, 3))}, ValueError, "patch: image_shape must be"),
        ((x, x), {"patch": (2, (12,))}, ValueError, "patch: image_shape must be"),
        ((x, x), {"patch": (4, (3, 4))}, ValueError, "patch: must be between 1 and 3, not 4"),
        ((x, x), {"patch": (1.5, (3, 4))}, TypeError, "patch: must be an integer"),
    ]
    for arguments, options, error, message in cases:
        with pytest.raises(error, match=message):
            metrics.sliced_wasserstein(*arguments, **options)


# ---- Nearest rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, bool])
def test_nearest_is_that_of_all_distances(dtype, rng):
    """Few grey levels have many ties, of which the first row counts."""
    reference = rng.integers(0, 3, (300, 2, 4)).astype(dtype)
    x = rng.integers(0, 3, (100, 2, 4)).astype(dtype)
    index, distance = metrics.nearest(x, reference, k=4)
    truth = cdist(x.reshape(100, -1).astype(float), reference.reshape(300, -1).astype(float))
    order = np.argsort(truth, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(distance, np.take_along_axis(truth, order, 1), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e25])
def test_nearest_where_single_precision_cannot_tell(scale, rng):
    """Rows far from where most are, closer to each other than float32's |x|^2 resolves."""
    reference = np.concatenate([rng.normal(size=(500, 6)), 1000 + rng.normal(size=(500, 6)) / 50])
    reference = (reference * scale).astype(np.float32)
    x = reference[500:] + np.float32(scale * 1e-3) * rng.normal(size=(500, 6)).astype(np.float32)
    index, distance = metrics.nearest(x, reference)
    truth = cdist(x.astype(float) / scale, reference.astype(float) / scale)
    np.testing.assert_array_equal(index[:, 0], truth.argmin(axis=1))
    np.testing.assert_allclose(distance[:, 0] / scale, truth.min(axis=1), rtol=1e-6)


def test_nearest_finds_copies(rng):
    reference = rng.integers(0, 256, (2000, 28, 28), np.uint8)
    rows = rng.permutation(2000)[:50]
    index, distance = metrics.nearest(reference[rows], reference)
    np.testing.assert_array_equal(index[:, 0], rows)
    assert not distance.any()
    index, distance = metrics.nearest(reference[:3], reference[:1])
    assert index.tolist() == [[0]] * 3
    assert distance[0] == 0
    index, distance = metrics.nearest(reference[:0], reference)
    assert index.shape == distance.shape == (0, 1)


def test_nearest_says_what_is_wrong(rng):
    x = rng.normal(size=(10, 3))
    for arguments, message in [
        ((x, x[:, 1:]), "reference: must have as many values in a row as x, 3, not 2"),
        ((x, x[:0]), "reference: the number of rows must be at least 1"),
        ((x * np.nan, x), "x: row 0"),
        ((x, x * np.nan), "reference: row 0"),
        ((x, x, 11), "k: must be between 1 and 10, not 11"),
    ]:
        with pytest.raises(ValueError, match=message):
            metrics.nearest(*arguments)


# ---- Telling two sets apart ----------------------------------------------------------------------


def test_auroc_is_that_of_scikit_learn(rng):
    inside, outside = rng.normal(size=300) + 1, rng.normal(size=200)
    for a, b in [(inside, outside), (inside.round(), outside.round())]:  # the latter with ties
        truth = roc_auc_score(np.repeat([1, 0], [300, 200]), np.concatenate([a, b]))
        assert metrics.auroc(a, b) == pytest.approx(truth, rel=1e-12)
        assert metrics.auroc(b, a) == pytest.approx(1 - truth, rel=1e-12)


def test_auroc_of_what_is_told_apart_and_of_what_is_not():
    assert metrics.auroc([1, 2], [0.5, -np.inf]) == 1
    assert metrics.auroc([-np.inf], [0.5]) == 0
    assert metrics.auroc([3, 3, 3], [3, 3]) == 0.5
    assert metrics.auroc([-np.inf], [-np.inf]) == 0.5


def test_auroc_says_what_is_wrong():
    for arguments, message in [
        (([], [1.0]), "scores_in: must be one real number or more"),
        (([1.0], [[1.0]]), r"scores_out: must be .* \(1, 1\)"),
        ((["a"], [1.0]), "scores_in: must be"),
        (([1.0], [1.0, np.nan]), "scores_out: score 1 is NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            metrics.auroc(*arguments)


def test_p_values_are_ranks(rng):
    held_out = rng.normal(size=40).round(1)  # with ties
    scores = np.append(rng.normal(size=30).round(1), [-np.inf, np.inf])
    low = [1 + 40 * stats.percentileofscore(held_out, s, "weak") / 100 for s in scores]
    high = [41 - 40 * stats.percentileofscore(held_out, s, "strict") / 100 for s in scores]
    np.testing.assert_allclose(metrics.p_values(scores, held_out), np.array(low) / 41)
    both = np.minimum(2 * np.minimum(low, high) / 41, 1)
    np.testing.assert_allclose(metrics.p_values(scores, held_out, two_sided=True), both)
    assert metrics.p_values(scores[3], held_out) == metrics.p_values(scores, held_out)[3]


@pytest.mark.parametrize("two_sided", [False, True])
def test_p_values_are_uniform_where_scores_are_alike(two_sided, rng):
    """P(p <= a) <= a, and not much less, for any scores."""
    p = [
        metrics.p_values(s[0], s[1:], two_sided=two_sided)
        for s in np.exp(3 * rng.normal(size=(4000, 40)))
    ]
    for a in (0.05, 0.1, 0.3, 0.5):
        share, error = np.mean(np.array(p) <= a + 1e-12), np.sqrt(a * (1 - a) / 4000)
        assert a - 1 / 40 - 4 * error < share < a + 4 * error


def test_p_values_say_what_is_wrong():
    for arguments, message in [
        (([], [1.0]), "scores: must be one real number or more"),
        ((1.0, []), "held_out: must be one real number or more"),
        ((["a"], [1.0]), "scores: must be"),
        ((np.nan, [1.0]), "scores: score 0 is NaN"),
        ((1.0, [1.0, np.nan]), "held_out: score 1 is NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            metrics.p_values(*arguments)


def test_only_what_is_public_is_shown():
    assert dir(metrics) == sorted(metrics.__all__)
    assert "metrics" in pyflow.__all__
