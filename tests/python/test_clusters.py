"""GIS of modes far apart: clusters of rows, and the mixture of their fits."""

import numpy as np
import pytest
from conftest import banana
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_circles, make_friedman1, make_moons, make_swiss_roll

import pyflow
from pyflow import _clusters

N = 3000
CENTRES = np.array([[0, 0], [30, 2], [4, 25], [33, 38]], float)


def draw(n, seed, centres=CENTRES):
    rng = np.random.default_rng(seed)
    return centres[rng.integers(len(centres), size=n)] + rng.normal(size=(n, centres.shape[1]))


def squares(x, centres=CENTRES):
    return ((x[:, None] - centres) ** 2).sum(axis=2)


def exact(x, centres=CENTRES):
    n, d = centres.shape
    half = -0.5 * squares(x, centres)
    return np.logaddexp.reduce(half, axis=1) - np.log(n) - d / 2 * np.log(2 * np.pi)


def fit(*args, **options):
    return pyflow.GIS(*args, **{"autoregressive": False, "verbose": False} | options)


@pytest.fixture(scope="module")
def far():
    return fit(draw(N, 1), draw(600, 2))


# ---- the mixture ---------------------------------------------------------------------------------


def test_no_bridges(far):
    x, logp = far.sample(20_000, seed=1)
    assert len(far) == 16  # four of each cluster, as of any small table
    assert (squares(x).min(axis=1) > 36).mean() < 0.001
    assert_allclose(logp, far.evaluate_density(x))
    assert_allclose(np.bincount(squares(x).argmin(axis=1)) / len(x), 0.25, atol=0.03)


def test_log_p_is_near_the_truth(far):
    x = draw(4000, 3)
    assert (exact(x) - far.evaluate_density(x)).mean() < 0.03


def test_the_density_integrates_to_one(far):
    axis = np.arange(-8, 46, 0.1)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    assert_allclose(np.exp(far.evaluate_density(grid)).sum() * 0.01, 1, atol=0.005)


def test_eight_columns_and_uneven_shares():
    rng = np.random.default_rng(4)
    centres, share = rng.uniform(0, 40, (4, 8)), [0.5, 0.3, 0.15, 0.05]
    of = rng.choice(4, 8000, p=share)
    x = centres[of] + rng.normal(size=(8000, 8)) * np.array([0.3, 1, 1, 2])[of, None]
    flow = fit(x[:7000], x[7000:], max_layers=20)
    assert_allclose(flow.weights, share, atol=0.02)
    y, _ = flow.sample(5000, seed=1)
    assert (squares(y, centres).min(axis=1) > 16**2).mean() < 0.001


def middles(flow):
    return [member.sample(2000, seed=1)[0].mean(axis=0) for member in flow.members]


def test_members_are_the_fits_of_the_clusters(far):
    train, validate = draw(N, 1), draw(600, 2)
    of, held = squares(train).argmin(axis=1), squares(validate).argmin(axis=1)
    x = draw(500, 3)
    alone = [fit(train[of == k], validate[held == k]) for k in range(4)]
    alone = np.array([m.evaluate_density(x) for flow in alone for m in flow.members])
    members = [flow.evaluate_density(x) for flow in far.members]
    order = [CENTRES.tolist().index(np.round(c).tolist()) for c in middles(far)]
    which = 4 * np.array(order) + np.tile(range(4), 4)
    assert_array_equal(members, alone[which])
    assert_allclose(far.weights, np.bincount(of)[order] / N / 4)


def test_the_same_for_any_number_of_threads_and_any_units(far):
    pyflow.set_num_threads(3)
    try:
        assert fit(draw(N, 1), draw(600, 2)) == far
    finally:
        pyflow.set_num_threads(None)
    units, zero = np.array([1024.0, 2**-12]), np.array([3.0, -7.0])
    x = draw(N, 1)
    assert_array_equal(
        _clusters.find(x).nearest(x), _clusters.find(x * units + zero).nearest(x * units + zero)
    )


def test_weights_and_several_models():
    x, y = draw(1000, 1, CENTRES[:2]), draw(300, 2, CENTRES[:2])
    weight = np.where(x[:, 0] > 15, 3.0, 1.0)
    held = np.where(y[:, 0] > 15, 3.0, 1.0)
    known = {"weight_train": weight, "weight_validate": held, "max_layers": 4}
    flow = fit(x, y, **known)
    assert_allclose(np.sort(flow.weights), [0.25, 0.75], atol=0.03)
    flow = fit(x, y, max_layers=4, n_models=3)
    assert len(flow) == 6
    assert_allclose(flow.weights, 1 / 6, atol=0.01)


def test_float32_and_bounds():
    x, y = draw(1000, 1, CENTRES[:2]), draw(300, 2, CENTRES[:2])
    x, y = (np.abs(rows).astype(np.float32) for rows in (x, y))
    flow = fit(x, y, max_layers=4, bounds=[(0, None), (0, None)])
    assert len(flow) == 2
    assert flow.dtype == np.float32
    assert flow.evaluate_density([[-1.0, 3.0]])[0] == -np.inf


# ---- where the fit of all rows is kept -----------------------------------------------------------


def test_validation_data_decide(monkeypatch):
    """Halves of one Gaussian are a worse description of it, and of few rows each."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(150, 3)), rng.normal(size=(400, 3))
    halves = _clusters.Clusters(np.eye(3)[:2], np.array([0, 1]), np.zeros(3), np.ones(3))
    monkeypatch.setattr(_clusters, "find", lambda x: halves)
    plain = fit(x, y)
    two = fit(x, y, n_models=2, max_layers=2)
    monkeypatch.setattr(_clusters, "find", lambda x: None)
    assert two == fit(x, y, n_models=2, max_layers=2)
    assert plain == fit(x, y)


def test_a_cluster_without_a_density_or_validation_rows():
    """Two columns that are equal in one cluster alone; and one that no validation row is in."""
    x, y = draw(1000, 1, CENTRES[:2]), draw(300, 2, CENTRES[:2])
    low = x[:, 0] < 15
    same = x.copy()
    same[low, 1] = same[low, 0]
    assert len(_clusters.find(same)) == 2
    assert type(fit(same, y, max_layers=4)) is pyflow.Flow
    assert type(fit(x, y[y[:, 0] < 15], max_layers=4)) is pyflow.Flow


def test_a_cluster_whose_weights_are_zero():
    x, y = draw(1000, 1, CENTRES[:2]), draw(300, 2, CENTRES[:2])
    weights = {"weight_train": np.ones(1000), "weight_validate": 1.0 * (y[:, 0] > 15)}
    assert type(fit(x, y, **weights, max_layers=2)) is pyflow.Flow


def test_wrong_arguments_are_refused_all_the_same():
    x, y = draw(1000, 1, CENTRES[:2]), draw(300, 2, CENTRES[:2])
    with pytest.raises(ValueError, match="n_models: must be at least 1"):
        fit(x, y, max_layers=2, n_models=0)
    with pytest.raises(ValueError, match="data_validate: "):
        fit(x, y[:, :1], max_layers=2)
    y[3, 1] = np.nan
    with pytest.raises(ValueError, match="data_validate: .*row 3"):
        fit(x, y, max_layers=2)


def test_what_was_reached_when_it_ends_early(monkeypatch):
    """The fit of all rows, once that is there."""
    x, y = draw(1000, 1, CENTRES[:2]), draw(300, 2, CENTRES[:2])
    steps = []

    def stop_in_a_cluster(p):
        steps.append(p.step)
        if steps[-1] < max(steps):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        fit(x, y, max_layers=4, progress=stop_in_a_cluster)
    monkeypatch.setattr(_clusters, "find", lambda x: None)
    assert error.value.flow == fit(x, y, max_layers=4)


def one_cluster(name, rng):
    """Return rows in which nothing is far from the rest."""
    z = rng.normal(size=(N, 4))
    angle = rng.uniform(0, 2 * np.pi, N)
    of = rng.integers(2, size=N)
    return {
        "a Gaussian": lambda: z,
        "a Gaussian in one column": lambda: z[:, :1],
        "few rows": lambda: z[:200, :2],
        "uniform": lambda: rng.uniform(size=(N, 2)),
        "uniform in one column": lambda: rng.uniform(size=(N, 1)),
        "Student t": lambda: rng.standard_t(2, size=(N, 4)),
        "Cauchy": lambda: rng.standard_cauchy(size=(N, 2)),
        "lognormal": lambda: np.exp(1.5 * z),
        "gamma": lambda: rng.gamma(0.3, size=(N, 3)),
        "a banana": lambda: banana(N, seed=1),
        "a ring": lambda: np.c_[np.cos(angle), np.sin(angle)] + 0.05 * z[:, :2],
        "moons that touch": lambda: make_moons(N, noise=0.25, random_state=0)[0],
        "circles that touch": lambda: make_circles(N, noise=0.05, factor=0.8, random_state=0)[0],
        "a swiss roll": lambda: make_swiss_roll(N, noise=0.3, random_state=0)[0],
        "friedman": lambda: np.column_stack(make_friedman1(N, n_features=5, random_state=0)),
        "two at three sigma": lambda: z + 3 * np.eye(4)[0] * of[:, None],
        "two at three sigma in two": lambda: z[:, :2] + [3, 0] * of[:, None],
        "a flag": lambda: np.c_[z[:, 1:], of],
        "a flag and a rare one": lambda: np.c_[z[:, 2:], of, rng.random(N) < 0.05],
        "a lattice": lambda: rng.integers(5, size=(N, 2)),
        "rounded": lambda: np.round(2 * z[:, :3]),
        "many zeros": lambda: np.where(z > 0.5, np.exp(z), 0),
        "factors": lambda: factors(rng),
    }[name]()


def factors(rng):
    loadings, noise = rng.normal(size=(5, 100)), np.exp(rng.uniform(np.log(1e-4), 0, 100))
    return rng.standard_t(4, size=(8000, 5)) @ loadings + rng.normal(size=(8000, 100)) * noise


ONE = [
    *("a Gaussian", "a Gaussian in one column", "few rows", "uniform", "uniform in one column"),
    *("Student t", "Cauchy", "lognormal", "gamma", "a banana", "a ring", "moons that touch"),
    *("circles that touch", "a swiss roll", "friedman", "two at three sigma"),
    *("two at three sigma in two", "a flag", "a flag and a rare one", "a lattice", "rounded"),
    *("many zeros", "factors"),
]


@pytest.mark.parametrize("name", ONE)
def test_one_cluster(name):
    for seed in range(3):
        assert _clusters.find(one_cluster(name, np.random.default_rng(seed))) is None
