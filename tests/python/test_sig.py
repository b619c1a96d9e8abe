"""SIG: what it makes of known distributions, and laws that hold for every fit."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import pyflow
from pyflow.metrics import sliced_wasserstein


def fit(x, image_shape=None, **options):
    return pyflow.SIG(x, image_shape, verbose=False, **options)


def curved(n, seed, d=3):
    x = np.random.default_rng(seed).normal(size=(n, d))
    x[:, 1:] += 0.5 * x[:, :1] ** 2
    return x


def pictures(n, seed, shape=(6, 5)):
    """Images of a blob at a random place, of 8 bits."""
    rng = np.random.default_rng(seed)
    at = rng.uniform(0.2, 0.8, size=(n, 2)) * shape[:2]
    i, j = np.indices(shape[:2])
    away = (i - at[:, :1, None]) ** 2 + (j - at[:, 1:, None]) ** 2
    x = 200 * np.exp(-away / 3) + rng.uniform(0, 30, size=away.shape)
    if len(shape) == 3:
        x = x[..., None] * np.linspace(1, 0.4, shape[2])
    return x.astype(np.uint8)


QUICK = [(2, None, 8), (2, 3, 4), (2, 2, 2)]  # a schedule for small images

# ---- distributions that are known ----------------------------------------------------------------


def ring(n, rng):
    angle, radius = rng.uniform(0, 2 * np.pi, n), rng.normal(2, 0.2, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def moons(n, rng):
    t, side = rng.uniform(0, np.pi, n), rng.integers(0, 2, n)
    x = np.where(side, 1 - np.cos(t), np.cos(t))
    y = np.where(side, 0.5 - np.sin(t), np.sin(t))
    return np.stack([x, y], axis=1) + 0.1 * rng.normal(size=(n, 2))


def mixture(n, rng):
    means = np.array([[-2.0, 0], [2, 1], [0, -2]])
    return means[rng.integers(0, 3, n)] + 0.4 * rng.normal(size=(n, 2))


TOYS = {"ring": ring, "moons": moons, "mixture": mixture}


@pytest.mark.parametrize("draw", TOYS.values(), ids=TOYS)
def test_samples_are_as_near_to_the_truth_as_another_true_sample(draw):
    rng = np.random.default_rng(1)
    x, held_out = draw(2000, rng), draw(8000, rng)
    flow = fit(x, max_layers=30)

    def away(y):
        return sliced_wasserstein(y, held_out, 50)

    mine = np.mean([away(flow.sample(2000, seed=i)[0]) for i in range(6)])
    floor = np.mean([away(draw(2000, rng)) for _ in range(6)])
    # of a fit to 2000 points no more can be asked than that they themselves have the distance
    assert mine < 1.3 * np.hypot(floor, away(x))
    assert flow.history["distance"][-1] < 0.2 * flow.history["distance"][0]
    gaussian = rng.normal(size=(2000, 2)) * x.std(axis=0) + x.mean(axis=0)
    assert mine < 0.4 * away(gaussian)


def test_a_gaussian_has_its_density():
    rng = np.random.default_rng(2)
    cov = np.array([[2.0, 1.2], [1.2, 1.0]])
    x = rng.multivariate_normal([1, -2], cov, 4000)
    flow = fit(x, max_layers=10, n_knots=10, edge_knots=2)
    y = rng.multivariate_normal([1, -2], cov, 4000)
    gap = stats.multivariate_normal.logpdf(y, [1, -2], cov) - flow.evaluate_density(y)
    assert -0.02 < gap.mean() < 0.1


@pytest.mark.parametrize("labelled", [False, True])
def test_density_integrates_to_one(labelled):
    x = ring(1000, np.random.default_rng(3))
    y = np.arange(1000) % 2
    flow = fit(x, max_layers=4, **({"labels": y} if labelled else {}))
    at = np.linspace(-6, 6, 801)
    grid = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)
    for label in (0, 1) if labelled else (None,):
        total = np.exp(flow.evaluate_density(grid, label)).sum() * (at[1] - at[0]) ** 2
        assert_allclose(total, 1, atol=0.01)


FLOWS = {
    "a table": lambda: fit(curved(500, 4), max_layers=5),
    "images": lambda: fit(pictures(300, 5).astype(float), schedule=QUICK),
    "colour": lambda: fit(
        pictures(600, 6, (4, 3, 3)).astype(float),
        schedule=[(2, (2, 2, 1), 3), (1, 2, 5)],
        n_knots=8,
    ),
}


@pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS)
def test_log_determinant_is_that_of_the_numerical_jacobian(make):
    flow = make()
    x = flow.sample(5, seed=1)[0].reshape(5, -1)
    z, logj = flow.forward(x)
    step = 1e-6 * np.std(x)
    moves = step * np.eye(flow.dim)
    for i in range(5):
        up, down = (flow.forward(x[i] + s * moves)[0] for s in (1, -1))
        sign, expected = np.linalg.slogdet((up - down) / (2 * step))
        assert sign > 0
        assert_allclose(logj[i], expected, rtol=1e-4, atol=1e-3)
    back, minus = flow.inverse(z)
    assert_allclose(back, x, atol=1e-8 * np.std(x))
    assert_allclose(minus, -logj, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_that_of_the_data(dtype):
    x = curved(500, 7)
    flow, exact = fit(x.astype(dtype), max_layers=5), fit(x, max_layers=5)
    assert flow.dtype == dtype
    a, b = (f.sample(2000, seed=1)[0] for f in (flow, exact))
    assert a.dtype == dtype
    assert sliced_wasserstein(a, b, 50) < 0.1 * x.std()
    images = pictures(100, 8)
    for given, expected in (
        (images, np.float32),
        (images.astype(np.uint16), np.float32),
        (images.astype(">f4"), np.float32),
        (images.astype(np.int32), np.float64),
        (images.astype(float), np.float64),
    ):
        assert fit(given, schedule=[(1, None, 2)]).dtype == expected


# ---- seeds, threads, order -----------------------------------------------------------------------

CASES = {
    "a table": lambda: ((curved(1500, 9),), {"max_layers": 4, "slice_points": 600}),
    "labels and weights": lambda: (
        (curved(600, 10),),
        {
            "max_layers": 4,
            "labels": np.arange(600) % 3,
            "weight_train": np.linspace(0.1, 2, 600),
        },
    ),
    "bounds, float32": lambda: (
        (np.exp(curved(500, 11)).astype(np.float32),),
        {"max_layers": 4, "bounds": [(0, None)] * 3},
    ),
    "images": lambda: ((pictures(150, 12),), {"schedule": QUICK, "n_sample": 700}),
    "images with labels": lambda: (
        (pictures(150, 13, (4, 5, 2)),),
        {"schedule": [(2, None, 8), (2, (2, 2, 1), 2)], "labels": ["a", "b", "c"] * 50},
    ),
    "many patches": lambda: (
        (pictures(100, 14, (9, 9)).astype(float),),
        {"schedule": [(3, 2, 2)], "dequantize": True},
    ),
}
every_case = pytest.mark.parametrize("make", CASES.values(), ids=CASES)


@every_case
def test_fits_depend_on_the_seed_and_not_on_threads(make):
    args, options = make()
    flows = []
    try:
        for threads, seed in ((1, 0), (2, 0), (2, 1)):
            pyflow.set_num_threads(threads)
            flows.append(fit(*args, seed=seed, **options))
    finally:
        pyflow.set_num_threads(None)
    one, two, other = flows
    assert one.to_bytes() == two.to_bytes()
    y = None if one.labels is None else one.labels[0]
    a, b = (f.sample(50, y, seed=3)[0] for f in (one, other))
    assert not np.any(a == b)
    assert sliced_wasserstein(a, b, 50) < 2 * np.std(a)


def test_names_of_labels_do_not_matter():
    """With the labels renamed each class has the density that it had, whatever their order."""
    x, label = curved(600, 15), np.arange(600) % 3
    x += label[:, None]
    names = np.array(["z", "a", "m"])
    known = {"max_layers": 4, "slice_steps": 0}
    a, b = fit(x, labels=label, **known), fit(x, labels=names[label], **known)
    assert_array_equal(a.evaluate_density(x, label), b.evaluate_density(x, names[label]))


def test_rows_and_their_labels_shuffled_within_classes_give_the_same_densities_shuffled():
    """Row i of the data tells row i of the sample its class, and nothing else of it.

    So an order in which the classes of rows stay where they are is the same fit, but for the
    rounding of sums; any other is another draw of the sample.
    """
    rng = np.random.default_rng(16)
    x, label = curved(900, 17), np.arange(900) % 3
    x += label[:, None]
    order = np.arange(900)
    for c in range(3):
        order[label == c] = rng.permutation(order[label == c])
    known = {"max_layers": 3, "slice_steps": 0, "n_knots": 30}
    a, b = fit(x, labels=label, **known), fit(x[order], labels=label, **known)
    assert_allclose(
        b.evaluate_density(x[order], label), a.evaluate_density(x, label)[order], atol=1e-3
    )
    shuffled = rng.permutation(900)
    c = fit(x[shuffled], labels=label[shuffled], **known)
    again, other = (f.sample(900, label, seed=1)[0] for f in (a, c))
    assert not np.any(again == other)
    assert sliced_wasserstein(again, other, 50) < 0.1 * x.std()


# ---- labels and weights --------------------------------------------------------------------------


@pytest.mark.parametrize("n_sample", [None, 500])
def test_samples_of_a_class_look_like_it(n_sample):
    """Sorted by class, too, and with a sample smaller than the data: each class has its share."""
    rng = np.random.default_rng(18)
    label = np.repeat(["a", "b", "c"], [600, 300, 100])
    mean = {"a": -3.0, "b": 0.0, "c": 5.0}
    x = rng.normal(size=(1000, 2)) * 0.5 + np.array([mean[c] for c in label])[:, None]
    x[:, 1] *= np.where(label == "b", 3, 1)
    flow = fit(x, labels=label, max_layers=10, n_sample=n_sample)
    for c in "abc":
        own = flow.sample(500, c, seed=1)[0]
        floor = sliced_wasserstein(x[label == c][::2], x[label == c][1::2], 50)
        away = sliced_wasserstein(own, x[label == c], 50)
        assert away < 5 * floor
        for other in set("abc") - {c}:
            assert away < 0.3 * sliced_wasserstein(own, x[label == other], 50)
    mixed = flow.sample(1000, label, seed=2)[0]
    assert_array_equal(mixed[:600], flow.sample(600, "a", seed=2)[0])


def test_a_class_that_the_sample_has_not_does_no_harm():
    x = curved(400, 19)
    label = np.zeros(400, int)
    label[200] = 1
    flow = fit(x, labels=label, max_layers=5, n_sample=100)
    assert np.isfinite(flow.evaluate_density(x, label)).all()
    own = flow.sample(500, 0, seed=1)[0]
    assert sliced_wasserstein(own, x, 50) < 0.5 * x.std()
    assert np.abs(flow.sample(500, 1, seed=1)[0]).max() < 50


def test_whole_weights_are_repeated_rows():
    x = curved(500, 20)
    weight = np.random.default_rng(21).integers(0, 4, 500)
    repeated = np.repeat(x, weight, axis=0)
    known = {"max_layers": 4, "slice_steps": 0, "n_knots": 30, "n_sample": 3000}
    a = fit(x, weight_train=weight, **known)
    b = fit(repeated, **known)
    c = fit(x, **known)
    used = x[weight > 0]
    right, wrong = (np.abs(f.evaluate_density(used) - b.evaluate_density(used)) for f in (a, c))
    assert right.mean() < 1e-3
    assert wrong.mean() > 20 * right.mean()
    assert_allclose(
        fit(x, weight_train=np.full(500, 0.3), **known).evaluate_density(x),
        c.evaluate_density(x),
        rtol=1e-6,
        atol=1e-6,
    )


def test_rows_of_no_weight_do_not_count_wherever_they_are():
    """Nor do blocks of them, although the search looks at but some blocks of rows."""
    x, far = curved(600, 22), curved(6000, 23) + 50
    both = np.concatenate([far[:3000], x, far[3000:]])
    weight = np.repeat([0.0, 1, 0], [3000, 600, 3000])
    for points in (1, 300, 20_000):
        flow = fit(both, weight_train=weight, max_layers=20, slice_points=points, n_sample=4000)
        assert sliced_wasserstein(flow.sample(1000, seed=1)[0], x, 50) < 0.2


# ---- how the data come ---------------------------------------------------------------------------


class OnDisk:
    """Like a data set in a file: it has a shape and a dtype, and can be cut."""

    def __init__(self, x):
        self.x, self.shape, self.dtype = x, x.shape, x.dtype

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        return self.x[rows]


@pytest.mark.parametrize("kind", ["table", "images", "float images"])
def test_data_may_lie_on_disk(kind, tmp_path):
    x = curved(700, 24) if kind == "table" else pictures(700, 25)
    x = x.astype(np.float32) if "float" in kind else x
    known = {"max_layers": 3} if kind == "table" else {"schedule": [(1, None, 4), (1, 3, 2)]}
    expected = fit(x, **known)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for given in (mapped, OnDisk(x), np.asfortranarray(x), x[::-1][::-1], x.tolist()):
        if kind == "float images" and isinstance(given, list):
            continue  # of float64
        if kind == "images" and isinstance(given, list):
            given = np.array(given).astype(np.uint8)
        assert fit(given, **known).to_bytes() == expected.to_bytes()
    assert fit(mapped, scratch=tmp_path, **known).to_bytes() == expected.to_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, bool, np.int32])
def test_noise_is_a_function_of_seed_row_and_pixel(dtype):
    top = 1 if dtype is bool else np.iinfo(dtype).max
    x = np.full((40, 3, 7), top, dtype)
    x[::2] = 0
    for shape in ((40, 3, 7), (30, 4, 7)):  # pixels that four divides, and not
        images = pyflow._images.Images(np.resize(x, shape), True, 5, "x")
        whole = images[:]
        assert whole.dtype == images.dtype
        assert_array_equal(np.floor(whole), np.resize(x, shape).reshape(shape[0], -1))
        assert np.all(whole > np.floor(whole))
        for size in (1, 7, 16):
            parts = [images[i : i + size] for i in range(0, shape[0], size)]
            assert_array_equal(np.concatenate(parts), whole)
        other = pyflow._images.Images(np.resize(x, shape), True, 6, "x")[:]
        assert np.mean(other == whole) < 0.05
        noise = whole - np.floor(whole)
        assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.6
    assert_array_equal(pyflow._images.Images(x, False, 5, "x")[:], x.reshape(40, -1))


def test_pixels_of_samples_are_whole_when_rounded_down():
    x = pictures(300, 26) // 64  # 0 to 3
    flow = fit(x, schedule=[(6, None, 10), (6, 3, 5)], n_sample=4000)
    samples = np.floor(flow.sample(1000, seed=1)[0][..., 0])
    pixels = [np.bincount(np.clip(a, 0, 9).astype(int).ravel(), minlength=10) for a in (samples, x)]
    assert_allclose(pixels[0] / samples.size, pixels[1] / x.size, atol=0.06)


# ---- images of all sizes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(7, 5, 3), (1, 6, 1), (6, 1, 1), (2, 2, 1), (3, 3, 2), (1, 1, 4), (1, 2, 1), (14, 2)]
)
def test_images_of_any_sides(shape):
    """By the schedule that there is for them, cut short so that every stage has a layer."""
    three = shape if len(shape) == 3 else (*shape, 1)
    x = np.random.default_rng(27).integers(0, 256, size=(60, *shape), dtype=np.uint8)
    flow = fit(x, shape, max_layers=2)
    assert flow.shape == three
    smallest = min(2, *three[:2])
    schedule = [(1, None, 2), (1, smallest, 1), (1, (smallest, smallest, 1), 1)]
    flow = fit(x, shape, schedule=schedule)
    assert len(flow) == 4
    y = x + 0.5
    z, logj = flow.forward(y)
    assert z.shape == y.shape
    back, minus = flow.inverse(z)
    assert_allclose(back, y, atol=0.05)
    assert_allclose(minus, -logj, atol=0.05)
    samples, logp = flow.sample(20, seed=1)
    assert samples.shape == (20, *three)
    assert_allclose(flow.evaluate_density(samples), logp, atol=0.1)
    rows = y.reshape(60, -1)
    for given in (y, rows, y.reshape(60, *three)):
        assert_array_equal(flow.evaluate_density(given), flow.evaluate_density(rows))
        assert_allclose(flow.evaluate_density(given[3]), flow.evaluate_density(rows)[3], rtol=1e-5)
        assert flow.score(given).shape == given.shape
        assert flow.bits_per_dimension(given).shape == (60,)
    assert fit(rows.astype(x.dtype) * 0 + x.reshape(60, -1), shape, schedule=schedule) == flow


def test_few_and_equal_images():
    two = pictures(2, 28)
    flow = fit(two, schedule=[(20, None, 10)])
    samples = np.floor(flow.sample(50, seed=1)[0][..., 0])
    away = np.abs(samples[:, None] - two).mean(axis=(2, 3)).min(axis=1)
    assert np.median(away) < 0.6 * np.abs(two[0].astype(float) - two[1]).mean()
    black = fit(np.zeros((50, 4, 4), np.uint8), schedule=[(2, None, 4)])
    x = black.sample(500, seed=1)[0]
    assert abs(x.mean() - 0.5) < 0.05
    assert np.mean((x > -0.2) & (x < 1.2)) > 0.9


TABLES = {
    "heavy tails": lambda r: r.standard_cauchy((500, 2)),
    "whole numbers": lambda r: r.poisson(3, size=(500, 2)),
    "zeros and ones": lambda r: np.stack([r.integers(0, 2, 500), r.normal(size=500)], axis=1),
    "one column": lambda r: r.gamma(2, size=(300, 1)),
    "two rows": lambda r: np.array([[0.0], [1.0]]),
    "three rows of two": lambda r: r.normal(size=(3, 2)),
    "more columns than rows": lambda r: r.normal(size=(20, 30)),
    "scales apart": lambda r: r.normal(size=(300, 2)) * [1e-9, 1e9],
    "an outlier": lambda r: np.concatenate([r.normal(size=(500, 2)), [[1e6, -1e6]]]),
    "repeated rows": lambda r: np.repeat(r.normal(size=(10, 2)), 30, axis=0),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_awkward_tables_are_sampled(make, dtype):
    x = make(np.random.default_rng(29)).astype(dtype)
    flow = fit(x, max_layers=6)
    samples, logp = flow.sample(500, seed=1)
    assert np.isfinite(samples).all()
    assert np.isfinite(logp).all()
    assert np.isfinite(flow.evaluate_density(x)).all()
    z, _ = flow.forward(samples)  # equal values have no density, and are near none
    scale = np.quantile(np.abs(samples), 0.9, axis=0) + 1e-30
    good = 0.9 if dtype == np.float64 else 0.5
    assert np.quantile(np.abs(flow.inverse(z)[0] - samples) / scale, good) < 1e-2
    edge = 0.01 * np.ptp(x, axis=0)  # which half the sample is beyond, where all numbers are edges
    inside = (samples >= x.min(axis=0) - edge) & (samples <= x.max(axis=0) + edge)
    assert np.all(inside.mean(axis=0) > 0.5)


# ---- bounds --------------------------------------------------------------------------------------


def test_bounds_hold():
    rng = np.random.default_rng(30)
    x = np.stack([rng.uniform(size=400), rng.exponential(size=400)], axis=1)
    known = {"bounds": [(0, 1), (0, None)], "max_layers": 10}
    flow = fit(x, **known)
    samples = flow.sample(3000, seed=1)[0]
    assert samples.min() >= 0
    assert samples[:, 0].max() <= 1
    assert sliced_wasserstein(samples, x, 50) < 0.15
    assert_array_equal(flow.evaluate_density([[1.1, 1], [0.5, -0.1]]), -np.inf)
    for model in (None, flow):
        bad = x.copy()
        bad[123, 0] = 1.01
        with pytest.raises(ValueError, match=r"^data_train: row 123, column 0 .* outside"):
            fit(bad, **known | {"max_layers": 12}, model=model)
    for bounds in ([(0, 2), (0, None)], [(None, None)] * 2):
        with pytest.raises(ValueError, match="^bounds: of column 0, the .* flow to go on from"):
            fit(x, model=flow, bounds=bounds, max_layers=12)
    assert len(fit(x, model=flow, max_layers=12)) == 13


@pytest.mark.parametrize("kind", ["gis", "sig"])
def test_splines_cover_rows_that_the_search_did_not_look_at(kind):
    """In sorted data the tiles that the search looks at span a small part of the range."""
    x = np.sort(np.random.default_rng(1).uniform(-1, 1, 20_000))
    x = np.stack([x, x], axis=1) + 0.01 * np.random.default_rng(2).normal(size=(20_000, 2))
    known = {"slice_points": 256, "verbose": False}
    if kind == "gis":
        flow = pyflow.GIS(x, max_layers=3, marginal_first=False, alpha=(0, 0), **known)
    else:
        flow = pyflow.SIG(x, max_layers=12, n_sample=20_000, **known)
    sample, _ = flow.sample(20_000, seed=1)
    parts = [0.001, 0.1, 0.5, 0.9, 0.999]
    assert_allclose(np.quantile(sample, parts, axis=0), np.quantile(x, parts, axis=0), atol=0.05)


def test_the_first_layers_of_a_generator_have_no_history():
    """Steps are in the order of the fit, layers are not: none of them is of the first layers."""
    x = np.random.default_rng(1).gamma(2, size=(500, 2))
    flow = pyflow.SIG(x, max_layers=4, verbose=False)
    assert len(flow.history["distance"]) == 4
    assert len(flow[:3].history["distance"]) == 0
    assert len(flow[: len(flow)].history["distance"]) == 4
    gis = pyflow.GIS(x, max_layers=4, verbose=False)
    assert_array_equal(gis[:3].history["distance"], gis.history["distance"][:3])


def test_the_published_schedule_is_the_default():
    """As many layers as the default has give the flow of the default, layer by layer."""
    published = pyflow.image_schedule((28, 28, 1), 800)
    assert [kernel[:2] for _, kernel, _ in published] == [
        (k, k) for k in (28, 14, 7, 6, 5, 4, 3, 2)
    ]
    assert {layers for layers, _, _ in published} == {100}
    rng = np.random.default_rng(0)
    for shape, most in (((4, 5, 1), 300), ((3, 3, 3), 600)):
        images = rng.integers(0, 256, (30, *shape), dtype=np.uint8)
        options = {"n_sample": 40, "n_knots": 20, "edge_knots": 2, "slice_steps": 0}
        mine, default = (
            pyflow.SIG(images, schedule=schedule, verbose=False, **options)
            for schedule in (pyflow.image_schedule(shape, most), None)
        )
        assert_array_equal(mine.history["distance"], default.history["distance"])
        assert_array_equal(mine.sample(9, seed=1)[0], default.sample(9, seed=1)[0])
        assert sum(layers for layers, *_ in pyflow.image_schedule(shape, 40)) in range(35, 46)
    assert pyflow.image_schedule((4, 5)) == pyflow.image_schedule((4, 5, 1), 300)
    assert pyflow.image_schedule((1, 9)) == [(100, (1, 9, 1), 2)]
    with pytest.raises(ValueError, match=r"^image_shape"):
        pyflow.image_schedule((4,))
    with pytest.raises(ValueError, match=r"^layers"):
        pyflow.image_schedule((4, 4), 0)
