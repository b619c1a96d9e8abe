"""`pyflow.sklearn`: what scikit-learn asks of an estimator, and what pyflow promises of it."""

import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import pyflow

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pyflow.sklearn import GISDensity


def quick(**options):
    return GISDensity(**{"max_layers": 3, "random_state": 0, **options})


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).multivariate_normal([1, -2], [[2, 1], [1, 1]], size=600)


@pytest.mark.filterwarnings("ignore")  # what the checks ask of odd tables
@parametrize_with_checks([GISDensity(max_layers=3)])
def test_what_scikit_learn_asks(estimator, check):
    check(estimator)


def test_options_are_those_of_the_fit_with_its_defaults():
    own = inspect.signature(GISDensity).parameters
    gis = inspect.signature(pyflow.GIS).parameters
    shared = set(own) - {"validation_fraction", "random_state", "verbose"}
    assert shared < set(gis)
    assert all(own[name].default == gis[name].default for name in shared)


def test_density_is_normalised_and_that_of_the_data(x):
    truth = stats.multivariate_normal([1, -2], [[2, 1], [1, 1]])
    density = quick().fit(x)
    logp = density.score_samples(x)
    assert (logp.shape, logp.dtype) == ((600,), np.float64)
    assert density.score(x) == logp.sum()
    assert abs(np.mean(logp - truth.logpdf(x))) < 0.1
    far = stats.multivariate_normal([1, -2], 4 * np.array([[2, 1], [1, 1]]))
    points = far.rvs(20000, random_state=1)
    assert_allclose(np.exp(density.score_samples(points) - far.logpdf(points)).mean(), 1, atol=0.05)


def test_samples_follow_the_data(x):
    density = quick().fit(x)
    drawn = density.sample(2000, random_state=1)
    assert drawn.shape == (2000, 2)
    for j in range(2):
        assert stats.ks_2samp(drawn[:, j], x[:, j]).pvalue > 1e-4
    assert_array_equal(density.sample(2000, random_state=1), drawn)
    assert not (density.sample(2000, random_state=2) == drawn).any()
    assert density.sample().shape == (1, 2)
    with pytest.raises(TypeError, match="^n_samples: must be an integer"):
        density.sample(1.5)


def test_the_same_random_state_gives_the_same_flow(x):
    first = quick().fit(x)
    assert quick().fit(x).flow_ == first.flow_
    assert quick(random_state=np.random.RandomState(0)).fit(x).flow_ == first.flow_
    assert quick(random_state=1).fit(x).flow_ != first.flow_
    again = pickle.loads(pickle.dumps(first))
    assert again.flow_ == first.flow_
    assert_array_equal(again.score_samples(x), first.score_samples(x))
    assert not hasattr(clone(first), "flow_")


@pytest.mark.parametrize(
    ("n", "fraction", "held_out"),
    [(1000, 0.2, 200), (1000, 0.0, 0), (20, 0.01, 5), (8, 0.2, 4), (3, 0.2, 1), (100, 0.9, 50)],
)
def test_rows_held_out(n, fraction, held_out):
    x = np.random.default_rng(n).normal(size=(n, 2))
    density = quick(validation_fraction=fraction)
    validate = density._held_out(x, seed=1)
    assert (validate.dtype, validate.shape) == (bool, (n,))
    assert validate.sum() == held_out
    assert_array_equal(density._held_out(x, seed=1), validate)
    if held_out > 5:
        assert (density._held_out(x, seed=2) != validate).any()


def test_rows_held_out_do_not_depend_on_values(x):
    """The last bits of a scaler's output differ between an array and a table."""
    assert_array_equal(quick()._held_out(x, seed=0), quick()._held_out(-np.exp(x), seed=0))


def test_equal_rows_are_held_out_together():
    x = np.repeat(np.random.default_rng(0).normal(size=(50, 2)), 4, axis=0)
    validate = quick()._held_out(x, seed=0).reshape(50, 4)
    assert (validate.all(axis=1) == validate.any(axis=1)).all()
    assert 36 <= validate.sum() <= 44


def test_the_fit_is_told_of_its_parts(x, monkeypatch):
    """Training and validation rows are the whole table, with their own weights."""
    told = {}

    def told_of(**options):
        told.update(options)
        return pyflow.GIS(**options)

    monkeypatch.setattr(pyflow.sklearn, "GIS", told_of)
    weight = np.arange(600.0) % 3
    quick(n_knots=60).fit(x, sample_weight=weight)
    whole = np.concatenate([told["data_train"], told["data_validate"]])
    own = np.concatenate([told["weight_train"], told["weight_validate"]])
    assert len(told["data_validate"]) == 80
    rows = np.column_stack([x, weight])[weight > 0]
    assert_array_equal(np.unique(np.column_stack([whole, own]), axis=0), np.unique(rows, axis=0))
    assert told["n_knots"] == 60
    assert not {"validation_fraction", "random_state"} & set(told)


def test_weights(x):
    weight = np.where(x[:, 0] > 1, 3.0, 1.0)
    mean = np.average(x[:, 0], weights=weight)
    drawn = quick().fit(x, sample_weight=weight).sample(4000, random_state=0)[:, 0]
    assert abs(drawn.mean() - mean) < 0.15 < mean - x[:, 0].mean()
    assert quick().fit(x, sample_weight=np.ones(600)).flow_.dim == 2
    with pytest.raises(ValueError, match="^sample_weight: must not be negative"):
        quick().fit(x, sample_weight=-weight)
    with pytest.raises(ValueError, match="one non-zero|^sample_weight: .* zero everywhere"):
        quick().fit(x, sample_weight=0 * weight)
    with pytest.raises(ValueError, match="^X: the 1 rows with weight"):
        quick().fit(x, sample_weight=np.eye(600)[0])


def test_single_precision_stays(x):
    density = quick().fit(x.astype(np.float32))
    assert density.flow_.dtype == density.sample(3).dtype == np.float32
    assert density.score_samples(x).dtype == np.float64
    assert quick().fit(x.round(2).tolist()).flow_.dtype == np.float64


def test_bounds(x):
    density = quick(bounds=[(x[:, 0].min(), None), (None, None)]).fit(x)
    below = [[x[:, 0].min() - 0.1, 0]]
    assert density.score_samples(below) == density.score(below) == -np.inf


def test_wrong_arguments(x):
    with pytest.raises(NotFittedError):
        GISDensity().score_samples(x)
    with pytest.raises(NotFittedError):
        GISDensity().sample()
    for fraction in (-0.1, 1, np.nan):
        with pytest.raises(ValueError, match="^validation_fraction: must be"):
            quick(validation_fraction=fraction).fit(x)
    with pytest.raises(ValueError, match="^validation_fraction, max_layers: give"):
        GISDensity(validation_fraction=0).fit(x)
    with pytest.raises(ValueError, match="^X: the 9 rows"):
        quick().fit(np.ones((9, 2)))
    with pytest.raises(ValueError, match="^X: column 1 is constant"):
        quick().fit(x * [1, 0])
    with pytest.raises(ValueError, match="^X: column 0 is .*, outside the bounds"):
        quick(bounds=[(0, None), (None, None)]).fit(x)
    with pytest.raises(ValueError, match="^n_knots: must be between"):
        quick(n_knots=1).fit(x)
    with pytest.raises(ValueError, match="^transform: must be one of"):
        quick().set_output(transform="numpy")


# ---- pipelines, searches, tables -----------------------------------------------------------------


def test_bounds_by_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).uniform(size=(200, 2)), columns=["a", "b"])
    density = clone(quick(bounds={"b": (0, 1)})).fit(frame)
    assert density.flow_ == quick(bounds=[(None, None), (0, 1)]).fit(frame).flow_
    outside = density.score_samples(frame.assign(b=2.0))
    assert (outside == -np.inf).all()
    with pytest.raises(ValueError, match="^bounds: there is no column 'c' among 'a', 'b'"):
        quick(bounds={"c": (0, 1)}).fit(frame)
    with pytest.raises(ValueError, match="^bounds: a dict is for columns with names"):
        quick(bounds={"b": (0, 1)}).fit(frame.to_numpy())
    with pytest.raises(ValueError, match=r"^X: column 1 \('b'\) is .*, outside the bounds"):
        quick(bounds={"b": (0, 0.5)}).fit(frame)


def test_pipeline_gives_the_density_of_what_its_scaler_gives(x):
    scaler = StandardScaler().fit(x)
    pipe = make_pipeline(StandardScaler(), quick()).fit(x)
    alone = quick().fit(scaler.transform(x))
    assert_array_equal(pipe.score_samples(x), alone.score_samples(scaler.transform(x)))
    assert pipe.score(x) == alone.score(scaler.transform(x))
    plain = pipe.score_samples(x) - np.log(scaler.scale_).sum()  # of the data before the scaler
    truth = stats.multivariate_normal([1, -2], [[2, 1], [1, 1]]).logpdf(x)
    assert abs(np.mean(plain - truth)) < 0.1


def test_search_finds_the_better_option(x):
    curved = np.column_stack([x[:, 0], x[:, 1] + x[:, 0] ** 2])
    search = GridSearchCV(quick(), {"max_layers": [1, 12]}, cv=3).fit(curved)
    assert search.best_params_ == {"max_layers": 12}
    assert search.score(curved) == search.best_estimator_.score(curved)
    scores = cross_val_score(quick(max_layers=12), curved, cv=3)
    assert_allclose(scores.mean(), search.best_score_)


def test_tables_keep_their_names(x):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(x, columns=["mass", "age"])
    density = quick().fit(table)
    assert density.feature_names_in_.tolist() == ["mass", "age"]
    assert density.flow_.columns == ("mass", "age")
    assert_array_equal(density.score_samples(table), quick().fit(x).score_samples(x))
    with pytest.raises(ValueError, match="feature names"):
        density.score_samples(table.rename(columns={"age": "size"}))
    assert isinstance(density.sample(2), np.ndarray)
    drawn = clone(density.set_output(transform="pandas")).fit(table).sample(4, random_state=0)
    assert list(drawn) == ["mass", "age"]
    assert_array_equal(drawn, density.set_output(transform="default").sample(4, random_state=0))
    assert density.score_samples(drawn).shape == (4,)


def test_pipeline_of_tables(x):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(x, columns=["mass", "age"])
    pipe = make_pipeline(StandardScaler(), quick()).set_output(transform="pandas").fit(table)
    assert pipe[-1].feature_names_in_.tolist() == ["mass", "age"]
    plain = make_pipeline(StandardScaler(), quick()).fit(x)
    assert_allclose(pipe.score_samples(table), plain.score_samples(x), atol=1e-6)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_tables_where_scikit_learn_is_set_to_them(x, kind):
    library = pytest.importorskip(kind)
    import sklearn

    if kind == "polars" and tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 4):
        pytest.skip("scikit-learn does not know polars")
    density = quick().fit(x)
    with sklearn.config_context(transform_output=kind):
        drawn = density.sample(3, random_state=0)
    assert isinstance(drawn, library.DataFrame)
    assert list(drawn.columns) == ["x0", "x1"]
    assert_array_equal(drawn.to_numpy(), density.sample(3, random_state=0))


def test_only_what_is_public_is_shown():
    assert dir(pyflow.sklearn) == pyflow.sklearn.__all__ == ["GISDensity"]


def test_nothing_else_imports_scikit_learn():
    code = "import sys, pyflow, pyflow.compat; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_scikit_learn():
    code = "import sys; sys.modules['sklearn'] = None; import pyflow.sklearn"
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert run.returncode == 1
    assert "pip install scikit-learn" in run.stderr
