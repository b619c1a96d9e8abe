"""GIS as an estimator: densities with a known truth, and laws that hold for every fit."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, special, stats

import pyflow


def fit(*args, **options):
    return pyflow.GIS(*args, verbose=False, **options)


# ---- densities that are known --------------------------------------------------------------------


class Banana:
    bounds = None

    def sample(self, n, rng):
        x = rng.normal(size=(n, 2))
        x[:, 1] = 0.5 * x[:, 1] + 0.5 * x[:, 0] ** 2
        return x

    def logp(self, x):
        return stats.norm.logpdf(x[:, 0]) + stats.norm.logpdf(x[:, 1], 0.5 * x[:, 0] ** 2, 0.5)


class Ring:
    bounds = None

    def sample(self, n, rng):
        angle, radius = rng.uniform(0, 2 * np.pi, n), rng.normal(2, 0.3, n)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    def logp(self, x):
        radius = np.hypot(x[:, 0], x[:, 1])
        # a negative radius, 6.7 sigma away, is the opposite point
        return stats.norm.logpdf(radius, 2, 0.3) - np.log(2 * np.pi * radius)


class Mixture:
    bounds = None
    means = np.array([[-2.0, 0], [2, 1], [0, -2]])

    def sample(self, n, rng):
        return self.means[rng.integers(0, 3, n)] + 0.6 * rng.normal(size=(n, 2))

    def logp(self, x):
        parts = [stats.norm.logpdf(x, m, 0.6).sum(axis=1) for m in self.means]
        return special.logsumexp(parts, axis=0) - np.log(3)


class Cauchy:
    bounds = None

    def sample(self, n, rng):
        return rng.standard_cauchy((n, 2)) * [1, 3] + [0, 5]

    def logp(self, x):
        return stats.cauchy.logpdf(x, [0, 5], [1, 3]).sum(axis=1)


class Gaussian:
    bounds = None
    mean = np.array([1.0, -2, 0])
    cov = np.array([[2.0, 1.2, 0.3], [1.2, 1.0, 0.1], [0.3, 0.1, 0.5]])

    def sample(self, n, rng):
        return rng.multivariate_normal(self.mean, self.cov, n)

    def logp(self, x):
        return stats.multivariate_normal.logpdf(x, self.mean, self.cov)


class Box:
    bounds = ((0, 1), (-2, 2))

    def sample(self, n, rng):
        return rng.uniform([0, -2], [1, 2], (n, 2))

    def logp(self, x):
        return np.full(len(x), -np.log(4))


# truth, and the most that the Kullback-Leibler divergence may be, in nats, for 10,000 rows
TRUTHS = {
    "banana": (Banana(), 0.05),
    "ring": (Ring(), 0.08),
    "mixture": (Mixture(), 0.07),
    "cauchy": (Cauchy(), 0.05),
    "gaussian": (Gaussian(), 0.01),
    "box": (Box(), 0.05),
}


@pytest.fixture(scope="module")
def fitted():
    """fitted(name, n): a model of n rows, a fifth of them for validation; kept."""
    models = {}

    def get(name, n):
        if (name, n) not in models:
            truth, _ = TRUTHS[name]
            x = truth.sample(n, np.random.default_rng(n))
            models[name, n] = fit(x[: n * 4 // 5], x[n * 4 // 5 :], bounds=truth.bounds)
        return models[name, n]

    return get


def divergence(truth, model):
    """Kullback-Leibler divergence of the truth from the model, and its standard error."""
    x = truth.sample(5000, np.random.default_rng(1234))
    gap = truth.logp(x) - model.evaluate_density(x)
    return gap.mean(), gap.std() / np.sqrt(len(gap))


@pytest.mark.parametrize("name", TRUTHS)
def test_divergence_from_the_truth_falls_with_n(fitted, name):
    truth, most = TRUTHS[name]
    few, few_error = divergence(truth, fitted(name, 500))
    many, error = divergence(truth, fitted(name, 10_000))
    assert many > -4 * error  # a divergence is not negative
    assert many < most
    assert many < few + 4 * np.hypot(error, few_error)
    assert few < 12 * most + 0.05


def energy_test(a, b, rng, permutations=999):
    """p-value of the energy distance between two samples, by permutation."""
    both = np.concatenate([a, b])
    gap = np.sqrt(((both[:, None] - both) ** 2).sum(axis=2))
    total, n = gap.sum(), len(a)

    def distance(i):
        first = gap[i]
        within_a = first[:, i].sum()
        cross = first.sum() - within_a
        within_b = total - within_a - 2 * cross
        m = len(both) - n
        return 2 * cross / n / m - within_a / n**2 - within_b / m**2

    observed = distance(np.arange(n))
    others = [distance(rng.permutation(len(both))[:n]) for _ in range(permutations)]
    return (1 + np.sum(np.array(others) >= observed)) / (permutations + 1)


@pytest.mark.parametrize("name", TRUTHS)
def test_samples_are_those_of_the_truth(fitted, name):
    truth, _ = TRUTHS[name]
    rng = np.random.default_rng(77)
    mine = fitted(name, 10_000).sample(500, seed=3)[0]
    theirs = truth.sample(500, rng)
    if name == "cauchy":  # a distance needs a mean
        mine, theirs = np.arcsinh(mine), np.arcsinh(theirs)
    assert energy_test(mine, theirs, rng) > 0.002
    for a in rng.normal(size=(5, mine.shape[1])):
        assert stats.ks_2samp(mine @ a, theirs @ a).pvalue > 0.001


def test_the_two_sample_test_tells_samples_apart():
    rng = np.random.default_rng(5)
    ring, banana = (TRUTHS[name][0].sample(500, rng) for name in ("ring", "banana"))
    assert energy_test(ring, banana, rng) <= 0.002
    assert energy_test(ring[:250], ring[250:], rng) > 0.01


@pytest.mark.parametrize("name", TRUTHS)
def test_score_is_the_gradient(fitted, name):
    truth, _ = TRUTHS[name]
    model = fitted(name, 10_000)
    x = truth.sample(60, np.random.default_rng(8))
    if truth.bounds:
        x = np.clip(x, [0.02, -1.95], [0.98, 1.95])
    score, step = model.score(x), 1e-6
    for j in range(x.shape[1]):
        at = step * np.eye(x.shape[1])[j]
        slope = (model.evaluate_density(x + at) - model.evaluate_density(x - at)) / (2 * step)
        # a step may cross a knot, where the score jumps
        assert np.mean(np.abs(score[:, j] - slope) < 1e-4 * (1 + np.abs(slope))) > 0.95


# ---- densities integrate to one ------------------------------------------------------------------

LINES = {
    "normal": (lambda r: r.normal(size=800), None, (-np.inf, np.inf)),
    "gamma, unbounded": (lambda r: r.gamma(2, size=800), None, (-np.inf, np.inf)),
    "gamma, bounded": (lambda r: r.gamma(2, size=800), (0, None), (0, np.inf)),
    "below": (lambda r: 3 - r.exponential(size=800), (None, 3), (-np.inf, 3)),
    "interval": (lambda r: r.beta(2, 5, 800), (0, 1), (0, 1)),
    "cauchy": (lambda r: r.standard_cauchy(800), None, (-np.inf, np.inf)),
}


@pytest.mark.parametrize(("draw", "bounds", "support"), LINES.values(), ids=LINES)
def test_density_of_one_column_integrates_to_one(draw, bounds, support):
    x = draw(np.random.default_rng(2))[:, None]
    model = fit(x, max_layers=3, bounds=None if bounds is None else [bounds])
    # in u = (x - centre) / (|x - centre| + scale), from -1 to 1, by the middles of many cells
    centre, scale = np.median(x), np.subtract(*np.quantile(x, [0.75, 0.25]))
    edges = np.clip(np.array(support, float), -1e300, 1e300)
    lo, hi = (edges - centre) / (np.abs(edges - centre) + scale)
    n = 200_000
    u = lo + (hi - lo) * (np.arange(n) + 0.5) / n
    points = centre + scale * u / (1 - np.abs(u))
    density = np.exp(model.evaluate_density(points[:, None])) * scale / (1 - np.abs(u)) ** 2
    assert_allclose(density.sum() * (hi - lo) / n, 1, atol=2e-3)
    if np.isfinite(support[1]):
        assert model.evaluate_density([support[1] + 0.01]) == -np.inf


@pytest.mark.parametrize("name", ["banana", "ring", "mixture", "box"])
def test_density_of_two_columns_integrates_to_one(fitted, name):
    model = fitted(name, 500)
    (a, b), (c, d) = TRUTHS[name][0].bounds or ((-8, 8), (-9, 14))
    n = 700
    x, y = (lo + (hi - lo) * (np.arange(n) + 0.5) / n for lo, hi in ((a, b), (c, d)))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    total = np.exp(model.evaluate_density(grid)).mean() * (b - a) * (d - c)
    assert_allclose(total, 1, atol=5e-3)


# ---- laws of every fit ---------------------------------------------------------------------------


def correlated(n, seed, d=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    x[:, 1] = 0.6 * x[:, 1] + 0.7 * x[:, 0] ** 2
    x[:, -1] += np.exp(0.5 * x[:, 0])
    return x


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_density_does_not_depend_on_the_batch(dtype):
    x = correlated(1000, 1).astype(dtype)
    model = fit(x, max_layers=4)
    whole = model.evaluate_density(x)
    # a product of matrices of other shapes may round otherwise
    tolerance = 1e-11 if dtype == np.float64 else 1e-4
    for size in (1, 7, 16, 300):
        parts = [model.evaluate_density(x[i : i + size]) for i in range(0, 1000, size)]
        assert_allclose(np.concatenate(parts), whole, rtol=tolerance, atol=tolerance)
    order = np.random.default_rng(0).permutation(1000)
    assert_allclose(model.evaluate_density(x[order]), whole[order], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("weighted", [False, True])
def test_history_is_what_the_layers_give(weighted):
    x, y = correlated(800, 2), correlated(400, 3)
    rng = np.random.default_rng(4)
    w, v = (rng.exponential(size=n) if weighted else None for n in (800, 400))
    model = fit(x, y, max_layers=6, weight_train=w, weight_validate=v)
    history = model.history
    for k in range(1, len(model) + 1):
        part = model[:k]
        train = np.average(part.evaluate_density(x), weights=w)
        validate = np.average(part.evaluate_density(y), weights=v)
        assert_allclose(train, history["logp_train"][k - 1], rtol=1e-9)
        assert_allclose(validate, history["logp_validate"][k - 1], rtol=1e-9)
        assert_array_equal(part.history["distance"], history["distance"][:k])
    assert history["logp_validate"].argmax() == len(model) - 1
    sliced = np.array([name == "sliced" for name in model.layers])
    assert np.isfinite(history["distance"][sliced]).all()
    assert np.isnan(history["distance"][~sliced]).all()


def test_integer_weights_are_repeated_rows():
    x = correlated(400, 5)
    weight = np.random.default_rng(6).integers(0, 4, 400)
    # what is set by n_eff, (sum w)^2 / sum w^2, is given or turned off
    same = {"max_layers": 2, "n_knots": 40, "edge_knots": 1, "alpha": (0.5, 0.8), "whiten": False}
    same |= {"kde": False, "slice_steps": 0}
    a = fit(x, weight_train=weight, **same)
    b = fit(np.repeat(x, weight, axis=0), **same)
    used = x[weight > 0]
    assert_allclose(a.evaluate_density(used), b.evaluate_density(used), rtol=1e-6, atol=1e-6)


def test_equal_weights_are_none():
    x, y = correlated(500, 7), correlated(300, 8)
    a = fit(x, y, max_layers=4)
    b = fit(x, y, max_layers=4, weight_train=np.full(500, 0.3), weight_validate=np.full(300, 7))
    assert_allclose(b.evaluate_density(y), a.evaluate_density(y), rtol=1e-6, atol=1e-6)


def test_rows_of_no_weight_do_not_count():
    x = correlated(500, 9)
    weight = np.ones(500)
    weight[::5] = 0
    moved = x.copy()
    moved[::5] = 100
    options = {"max_layers": 3, "weight_train": weight}
    a, b = fit(moved, **options), fit(x, **options)
    assert_allclose(a.evaluate_density(x), b.evaluate_density(x), rtol=1e-9)


@pytest.mark.parametrize("options", [{}, {"labels": True}, {"weight_train": True}])
def test_fits_do_not_depend_on_threads(options):
    x = correlated(3000, 10)
    rng = np.random.default_rng(11)
    options = dict(options)
    if "labels" in options:
        options["labels"] = rng.integers(0, 3, 3000)
    if "weight_train" in options:
        options["weight_train"] = rng.exponential(size=3000)
    models = []
    try:
        for threads in (1, 2, 4):
            pyflow.set_num_threads(threads)
            models.append(fit(x, max_layers=3, **options))
    finally:
        pyflow.set_num_threads(None)
    assert models[0] == models[1] == models[2]


def test_going_on_never_loses_the_best():
    x, y = correlated(600, 12), correlated(300, 13)
    best = -np.inf
    model = None
    for layers in (1, 2, 4, 12):
        model = fit(x, y, max_layers=layers, model=model)
        now = model.evaluate_density(y).mean()
        assert now >= best - 1e-12
        best = now
    assert best > fit(x, y, max_layers=1).evaluate_density(y).mean()


# ---- slices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 6])
def test_the_axis_that_is_not_gaussian_is_found(d):
    rng = np.random.default_rng(14)
    n = 8000
    axis = rng.normal(size=d)
    axis /= np.linalg.norm(axis)
    x = rng.normal(size=(n, d))
    two_lumps = (rng.choice([-1, 1], n) + 0.3 * rng.normal(size=n)) / np.sqrt(1.09)
    x += np.outer(two_lumps - x @ axis, axis)
    options = {"max_layers": 1, "n_slices": 1, "marginal_first": False, "whiten": False}
    # a start may end on a lesser hill, of noise: the highest of a few is the axis
    models = [fit(x, slice_steps=200, seed=seed, **options) for seed in range(6)]
    model = max(models, key=lambda m: m.history["distance"][-1])
    assert model.layers[-1] == "sliced"
    # a layer with one slice moves points along it alone
    moved = model.forward(x[:200])[0] - model[:-1].forward(x[:200])[0]
    strength, directions = np.linalg.svd(moved)[1:]
    assert strength[1] < 1e-9 * strength[0]
    # the first layer divides each column by nearly one
    assert abs(directions[0] @ axis) > 0.99


# ---- labels --------------------------------------------------------------------------------------


def test_each_label_has_its_truth():
    rng = np.random.default_rng(15)
    names, scales, shifts = ["a", "b", "c"], [1, 0.5, 2], [-3, 0, 4]

    def draw(n, generator):
        c = generator.integers(0, 3, n)
        z = generator.normal(size=(n, 2))
        x = z * np.array(scales)[c, None] + np.array(shifts)[c, None]
        return x, np.array(names)[c]

    x, label = draw(9000, rng)
    y, label_y = draw(3000, rng)
    model = fit(x, y, labels=label, labels_validate=label_y)
    assert_array_equal(model.labels, names)
    for name, scale, shift in zip(names, scales, shifts, strict=True):
        points = shift + scale * rng.normal(size=(3000, 2))
        truth = stats.norm.logpdf(points, shift, scale).sum(axis=1)
        assert -0.02 < np.mean(truth - model.evaluate_density(points, name)) < 0.06
        mine = model.sample(2000, name, seed=1)[0]
        for column in mine.T:
            assert stats.kstest(column, stats.norm(shift, scale).cdf).pvalue > 1e-4
    # Bayes' theorem, for equal priors, against the truth's
    logs = np.stack([model.evaluate_density(y, name) for name in names], axis=1)
    right = [stats.norm.logpdf(y, m, s).sum(axis=1) for s, m in zip(scales, shifts, strict=True)]
    guess, best = np.argmax(logs, axis=1), np.argmax(right, axis=0)
    assert np.mean(guess == best) > 0.97


# ---- edges ---------------------------------------------------------------------------------------


def with_outlier(r):
    x = r.normal(size=(500, 2))
    x[7] = [1e6, -1e6]
    return x


EDGES = {
    "one column": lambda r: r.gamma(2, size=(300, 1)),
    "two columns": lambda r: r.normal(size=(300, 2)),
    "100 rows": lambda r: correlated(100, 1, d=5),
    "tiny": lambda r: r.normal(size=(5, 2)),
    "two rows": lambda r: np.array([[0.0], [1.0]]),
    "more columns than rows": lambda r: r.normal(size=(20, 30)),
    "repeated values": lambda r: np.round(r.normal(size=(500, 2)), 1),
    "repeated rows": lambda r: np.repeat(r.normal(size=(50, 2)), 10, axis=0),
    "whole numbers": lambda r: r.poisson(4, size=(500, 2)),
    "zeros and ones": lambda r: np.stack([r.integers(0, 2, 500), r.normal(size=500)], axis=1),
    "mostly one value": lambda r: r.normal(size=(500, 2)) * (r.uniform(size=(500, 2)) < 0.1),
    "heavy tails": lambda r: r.standard_cauchy((500, 2)),
    "very heavy tails": lambda r: np.sign(u := r.uniform(-1, 1, (500, 2))) / np.abs(u) ** 3,
    "an outlier": with_outlier,
    "huge": lambda r: 1e30 * r.normal(size=(300, 2)),
    "minute": lambda r: 1e-30 * r.normal(size=(300, 2)),
    "far from zero": lambda r: 1e4 + r.normal(size=(300, 2)),
    "scales apart": lambda r: r.normal(size=(300, 2)) * [1e-9, 1e9],
    "nearly dependent": lambda r: r.normal(size=(400, 1)) + 1e-3 * r.normal(size=(400, 2)),
}


@pytest.mark.filterwarnings("ignore:data_train. .*equal values")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("make", EDGES.values(), ids=EDGES)
def test_edges_give_densities(make, dtype):
    x = make(np.random.default_rng(16)).astype(dtype)
    model = fit(x, max_layers=4)
    assert np.isfinite(model.evaluate_density(x)).all()
    assert np.isfinite(model.history["logp_train"]).all()
    assert np.isfinite(model.score(x)).all()
    samples, logp = model.sample(1000, seed=0)
    assert np.isfinite(samples).all()
    assert np.isfinite(logp).all()
    # where the data lie, samples lie: each column's middle half is inside the data's range
    inside = (samples >= x.min(axis=0)) & (samples <= x.max(axis=0))
    assert np.all(inside.mean(axis=0) > 0.5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("column", [0, 2])
def test_a_constant_column_is_refused_by_number(column, dtype):
    x = correlated(200, 17).astype(dtype)
    x[:, column] = 3.25
    with pytest.raises(ValueError, match=rf"data_train: column {column} is constant \(3.25\)"):
        fit(x, max_layers=2)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_dependent_columns_are_refused_by_number(dtype):
    x = correlated(200, 18)
    x[:, 2] = 2 * x[:, 0] + 1
    with pytest.raises(ValueError, match=r"data_train: columns 0, 2 .*linearly dependent"):
        fit(x.astype(dtype), max_layers=2)
    # of rows without weight nothing is asked
    x[::4] = correlated(50, 21)
    with pytest.raises(ValueError, match=r"data_train: columns 0, 2 .*linearly dependent"):
        fit(x.astype(dtype), max_layers=2, weight_train=np.arange(200) % 4 > 0)
    model = fit(x.astype(dtype), max_layers=2)
    assert np.isfinite(model.evaluate_density(x)).all()


def test_units_do_not_matter():
    x = correlated(500, 19)
    scale, shift = np.array([1e3, 1e-3, 7]), np.array([5, -2, 1e2])
    a, b = fit(x, max_layers=3), fit(x * scale + shift, max_layers=3)
    expected = a.evaluate_density(x) - np.log(scale).sum()
    gap = b.evaluate_density(x * scale + shift) - expected
    # a row that rounding carries over the edge of a bin changes a histogram
    assert np.mean(np.abs(gap)) < 0.02


def test_expectation_by_quadrature_and_by_samples_agree():
    x = np.random.default_rng(20).gamma(3, size=(1000, 1))
    model = fit(x, max_layers=2, bounds=[(0, None)])
    mean, _ = integrate.quad(
        lambda v: v * np.exp(model.evaluate_density([v])), 1e-6, 60, limit=400, epsabs=1e-4
    )
    samples = model.sample(40_000, seed=1)[0]
    assert abs(samples.mean() - mean) < 5 * samples.std() / 200


def test_ties_do_not_gain_without_end():
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(2, size=400), rng.normal(size=400)], axis=1)
    told = pytest.warns(UserWarning, match="^data_train: 5.% of column 0 are .: equal values")
    with told, pytest.warns(RuntimeWarning, match="equal values"):
        model = pyflow.GIS(x[:300], x[300:], n_models=1, verbose=False)
    assert 3990 <= len(model.history["epoch"]) <= 4002
    z, _ = model.sample(20_000, seed=1)
    spikes = abs(z[:, 0] - np.round(z[:, 0])) < 0.05
    assert spikes.mean() > 0.95
    assert z[spikes, 0].round().mean() == pytest.approx(x[:300, 0].mean(), abs=0.05)
    ends = [np.quantile(rows[:, 1], [0.05, 0.95]) for rows in (z, x)]
    assert_allclose(*ends, atol=0.3)  # the other column is as it was


def test_a_class_of_many_rows_is_fitted_beside_classes_of_few():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], [1000, 4, 16])
    x = rng.normal(size=(len(label), 2)) + 2.0 * label[:, None]
    x[:, 1] += x[:, 0] ** 2
    test = rng.normal(size=(1000, 2))
    test[:, 1] += test[:, 0] ** 2
    model = pyflow.GIS(x, labels=label, max_layers=40, verbose=False)
    truth = -0.5 * test[:, 0] ** 2 - 0.5 * (test[:, 1] - test[:, 0] ** 2) ** 2 - np.log(2 * np.pi)
    assert (truth - model.evaluate_density(test, 0)).mean() < 0.2
    assert np.isfinite(model.evaluate_density(x, label)).all()
