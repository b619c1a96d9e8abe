"""Layers trained together from the greedy start: never worse on validation rows."""

import numpy as np
import pytest
from conftest import banana
from flows import BOX, fields
from numpy.testing import assert_array_equal
from scipy import stats

import pyflow
from pyflow import _polish
from pyflow._members import fitted, gains

FAST = {"epochs": 30, "verbose": False}


def sine(n, seed):
    """Rows about a sine, and their exact log p."""
    x = np.random.default_rng(seed).normal(size=(n, 2))
    logp = stats.norm.logpdf(x).sum(axis=1) - np.log(0.3)
    x[:, 1] = 0.3 * x[:, 1] + np.sin(2 * x[:, 0])
    return x, logp


def few(x, **options):
    return pyflow.GIS(x, max_layers=5, n_slices=2, n_knots=12, verbose=False, **options)


def fit(train, validate, polish=True, data=None, note=None, how=None, **given):
    """What GIS does if its first layers are to be polished."""
    data = {"data_train": train, "data_validate": validate} | (data or {})
    known = {"checkpoint": None, "seed": 0, "progress": None, "verbose": False, "total": None}
    return fitted(
        1, _polish.chosen(polish), "gis", "GIS", data, given, note or {}, **known | (how or {})
    )


@pytest.fixture(scope="module")
def known():
    x, _ = sine(1200, seed=1)
    return x, sine(400, seed=2)[0], *sine(4000, seed=3)


# ---- a flow --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_layers_polished_come_near_a_known_density(known, dtype):
    x, validate, test, exact = known
    flow = few(x.astype(dtype))
    polished = flow.polish(x, validate, verbose=False)
    lost, before = (exact - polished.evaluate_density(test)), exact - flow.evaluate_density(test)
    assert before.mean() > 0.4
    assert -0.02 < lost.mean() < 0.2
    assert polished.layers == flow.layers
    assert polished.n_parameters == flow.n_parameters
    assert polished.dtype == dtype


def rows_of(kind):
    """A flow, and rows to train it on and to validate it by."""
    if kind == "noise":  # that a few rows show: there is nothing to learn
        x = np.random.default_rng(5).normal(size=(260, 4))
        return pyflow.GIS(x[:60], max_layers=3, verbose=False), x[:60], x[60:]
    x, validate = banana(300, seed=1), banana(150, seed=2)
    return pyflow.GIS(x, validate, max_layers=20, n_models=1, verbose=False), x, validate


@pytest.mark.parametrize("kind", ["noise", "banana"])
@pytest.mark.parametrize("rate", [None, 1e-4, 0.3])
def test_polish_never_lowers_validation_log_p(kind, rate):
    """It is the flow itself, or better by more than the standard error."""
    flow, x, validate = rows_of(kind)
    polished = flow.polish(x, validate, learning_rate=rate, **FAST)
    more = polished.evaluate_density(validate) - flow.evaluate_density(validate)
    if polished is not flow:
        assert more.mean() > more.std() / np.sqrt(len(more))
    elif kind == "banana" and rate is None:
        pytest.fail("there is something to gain")


def test_what_gains_less_than_its_error_is_not_kept(known, monkeypatch):
    """`gains` decides, from what each validation row gains."""
    x, validate, *_ = known
    flow, weight = few(x), np.linspace(0, 1, len(validate))
    asked = []
    monkeypatch.setattr(_polish, "gains", lambda *what: asked.append(what))
    assert flow.polish(x, validate, weight_validate=weight, **FAST) is flow
    monkeypatch.undo()
    polished = flow.polish(x, validate, weight_validate=weight, **FAST)
    more, given = asked[0]
    assert_array_equal(more, polished.evaluate_density(validate) - flow.evaluate_density(validate))
    assert_array_equal(given, weight)


def test_it_is_silent_where_nothing_is_gained(recwarn):
    flow, x, validate = rows_of("noise")
    assert flow.polish(x, validate, learning_rate=0.3, **FAST) is flow
    assert not recwarn.list


def test_the_same_call_gives_the_same_flow_and_another_seed_another(known):
    x, validate, *_ = known
    flow = few(x)
    one = flow.polish(x, validate, **FAST)
    assert one == flow.polish(x, validate, **FAST)
    assert one != flow.polish(x, validate, seed=1, **FAST)


def test_weights_decide(known):
    """Rows far off the sine lose what the others gain, unless they have no weight."""
    x, validate, *_ = known
    flow = few(x)
    polished = flow.polish(x, validate, **FAST)
    far = np.concatenate([validate, np.repeat([[3.0, 6.0]], 400, axis=0)])
    weight = np.repeat([1.0, 0.0], 400)
    same = flow.polish(x, far, weight_validate=weight, **FAST)
    assert_array_equal(same.evaluate_density(validate), polished.evaluate_density(validate))
    assert flow.polish(x, far, weight_validate=weight[::-1], **FAST) is flow


def test_a_flow_of_classes_is_polished(known):
    x, validate, test, exact = known
    label, label_validate, label_test = (np.where(a[:, 0] > 0, "r", "l") for a in known[:3])
    flow = few(x, labels=label)
    polished = flow.polish(x, validate, labels=label, labels_validate=label_validate, **FAST)
    more = polished.evaluate_density(test, label_test) - flow.evaluate_density(test, label_test)
    assert more.mean() > 0.1
    assert (exact + np.log(2) - polished.evaluate_density(test, label_test)).mean() > -0.02


def test_bounds_stay(known):
    x, validate = (1 / (1 + np.exp(-a)) for a in known[:2])
    flow = few(x, bounds=[(0, 1)] * 2)
    polished = flow.polish(x, validate, **FAST)
    assert polished is not flow
    assert polished.evaluate_density([1.5, 0.5]) == -np.inf
    points, _ = polished.sample(500, seed=1)
    assert points.min() >= 0
    assert points.max() <= 1


def test_a_greedy_fit_goes_on_from_a_polished_flow(known):
    x, validate, *_ = known
    polished = few(x).polish(x, validate, **FAST)
    more = pyflow.GIS(x, validate, model=polished, n_models=1, verbose=False)
    gain = more.evaluate_density(validate) - polished.evaluate_density(validate)
    assert gain.mean() > -1e-6


def test_flows_that_are_not_greedy_are_polished_too():
    """Conditions, and layers that have neither slices nor knots of that kind."""
    y = np.random.default_rng(0).uniform(0.5, 2, 160)
    x = fields(160, 1, y)
    few = {"box_size": BOX, "hidden": (8,), "n_layers": 1, "epochs": 1, "verbose": False}
    flow = pyflow.SymmetricFlow(x[:100], y_train={"amplitude": y[:100]}, **few)
    polished = flow.polish(x[:100], x[100:], y[:100], y[100:], **FAST)
    more = polished.evaluate_density(x[100:], y[100:]) - flow.evaluate_density(x[100:], y[100:])
    assert polished.names == ("amplitude",)
    assert more.mean() > 0.1


def test_progress_ends_it(known):
    class Stop(Exception):
        pass

    def stop(p):
        if p.step == 2:
            raise Stop

    x, validate, *_ = known
    with pytest.raises(Stop) as caught:
        few(x).polish(x, validate, progress=stop, **FAST)
    assert isinstance(caught.value.flow, pyflow.Flow)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data_validate": None}, ValueError, "data_validate: must be given"),
        ({"batch": 0}, ValueError, "batch: "),
        ({"batch": 2.5}, TypeError, "batch: "),
        ({"epochs": 0}, ValueError, "epochs: "),
        ({"learning_rate": -1.0}, ValueError, "learning_rate: "),
        ({"learning_rate": "fast"}, TypeError, "learning_rate: "),
        ({"data_train": np.zeros((5, 3))}, ValueError, "data_train: "),
        ({"data_train": np.zeros((0, 2))}, ValueError, "data_train: has no rows"),
        ({"weight_validate": np.ones(3)}, ValueError, "weight_validate: "),
        ({"y_train": np.zeros(1200), "y_validate": np.zeros(400)}, ValueError, "y_train: "),
        ({"labels": np.zeros(1200)}, ValueError, "labels: "),
    ],
)
def test_wrong_arguments_are_named(known, options, error, message):
    arguments = {"data_train": known[0], "data_validate": known[1]} | FAST | options
    with pytest.raises(error, match=message):
        few(known[0]).polish(**arguments)


def test_a_mixture_is_not_polished(known):
    flow = few(known[0])
    with pytest.raises(TypeError, match="members"):
        pyflow.Mixture([flow, flow]).polish(known[0], known[1])


# ---- a greedy fit that begins with polished layers -----------------------------------------------


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch):
    monkeypatch.setattr(_polish, "STEPS", 3000)


@pytest.fixture(scope="module")
def table():
    """Rows that greedy layers come to know slowly: three columns, each a sine of the last."""

    def draw(n, seed):
        x = np.random.default_rng(seed).normal(size=(n, 3))
        logp = stats.norm.logpdf(x).sum(axis=1) - 2 * np.log(0.1)
        for j in (1, 2):
            x[:, j] = 0.1 * x[:, j] + np.sin(3 * x[:, j - 1])
        return x, logp

    return draw(1500, 1)[0], draw(500, 2)[0], *draw(4000, 3)


def test_a_fit_from_polished_layers_is_better_where_rows_are_many(table):
    x, validate, test, exact = table
    plain = pyflow.GIS(x, validate, n_models=1, max_layers=60, verbose=False)
    polished = fit(x, validate, max_layers=60)
    gain = polished.evaluate_density(test) - plain.evaluate_density(test)
    assert gain.mean() > 5 * gain.std() / np.sqrt(len(gain))
    assert (exact - polished.evaluate_density(test)).mean() > -0.02


@pytest.mark.parametrize("n", [60, 1500])
def test_the_better_of_both_is_kept(table, n):
    x, validate, *_ = table
    x, validate = x[:n], validate[: max(n // 3, 40)]
    plain = pyflow.GIS(x, validate, n_models=1, max_layers=30, verbose=False)
    best = fit(x, validate, polish="auto", max_layers=30)
    more = best.evaluate_density(validate) - plain.evaluate_density(validate)
    if np.any(more):
        assert gains(more)
        assert best == fit(x, validate, max_layers=30)
    else:
        assert n == 60


def test_progress_is_that_of_one_fit(table):
    heard = []
    fit(*table[:2], polish="auto", how={"progress": heard.append}, max_layers=12)
    steps, seconds = [p.step for p in heard], [p.seconds for p in heard]
    assert np.all(np.diff(steps) >= 0)
    assert np.all(np.diff(seconds) >= 0)
    assert {p.stage for p in heard} == {"layer", "epoch"}
    reached = [(p.objective, p.step) for p in heard]
    assert heard[-1].best in [step for logp, step in reached if logp == max(reached)[0]]


def test_rows_of_both_kinds_are_fitted_without(table):
    """They cannot say when training is to end; the plain fit warns, and knows what to do."""
    x = np.round(table[0], 1)
    with pytest.warns(UserWarning, match="are in data_train too"):
        flow = fit(x, x[:200], max_layers=12)
    with pytest.warns(UserWarning, match="are in data_train too"):
        plain = pyflow.GIS(x, x[:200], n_models=1, max_layers=12, verbose=False)
    assert_array_equal(flow.evaluate_density(x), plain.evaluate_density(x))


def test_labels_and_weights_are_those_of_all_its_fits(table):
    """Two classes: the second is that of rows around 5, of which those of no weight are not."""
    x, validate = (np.concatenate([a[:400], a[:400] + 5, a[:50]]) for a in table[:2])
    label = np.repeat(np.int32([0, 1, 1]), [400, 400, 50])
    weight = np.repeat([1.0, 1.0, 0.0], [400, 400, 50])
    data = {"labels": label, "labels_validate": label}
    data |= {"weight_train": weight, "weight_validate": weight}
    how = {"note": {"labels": [0, 1]}, "how": {"n_classes": 2}, "max_layers": 12}
    flow = fit(x, validate, "auto", data, **how)
    near, far = table[2][:500], table[2][:500] + 5
    for own, other, y in ((near, far, 0), (far, near, 1)):
        assert flow.evaluate_density(own, y).mean() > flow.evaluate_density(other, y).mean() + 10


@pytest.mark.parametrize("polish", [None, False])
def test_it_is_left_out_where_it_is_not_asked_for(table, polish):
    x, validate, *_ = table
    plain = pyflow.GIS(x, validate, n_models=1, max_layers=3, verbose=False)
    flow = fit(x, validate, polish, max_layers=3)
    assert_array_equal(flow.evaluate_density(x), plain.evaluate_density(x))


@pytest.mark.parametrize("polish", ["yes", 1, 0.5, [True, False]])
def test_what_polish_may_be(table, polish):
    with pytest.raises(ValueError, match="polish: must be True, False or"):
        fit(*table[:2], polish)


def test_validation_rows_must_be_there(table):
    with pytest.raises(ValueError, match="data_validate: must be given"):
        fit(table[0], None, max_layers=3)


def test_an_exception_leaves_what_there_is(table):
    """In each of the fits: of the first layers, of all together, of those that follow."""
    lengths = []
    for end in (3, 40, None):

        def stop(p, end=end):
            if p.step == end or (end is None and p.stage == "layer" and p.step > 100):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught:
            fit(*table[:2], how={"progress": stop})
        lengths.append(len(caught.value.flow))
        assert caught.value.flow.unfinished
    assert lengths[0] == 3
    assert lengths[0] < lengths[1] <= lengths[2]


def test_options_of_slices_are_those_of_the_first_layers_too():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 3)) ** 2
    known = {"n_models": 1, "max_layers": 8, "polish": True, "verbose": False}
    few = pyflow.GIS(x[:200], x[200:], **known, n_slices=1, n_knots=7)
    assert few.n_parameters < pyflow.GIS(x[:200], x[200:], **known).n_parameters / 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_train": np.zeros(30)}, "data_train: must be rows x columns"),
        ({"image_shape": (1, 2)}, "polish: is not for images"),
        ({"condition": np.arange(30.0)}, "polish: is not for a fit with a condition"),
        ({"polish": "always"}, 'polish: must be True, False or "auto"'),
    ],
)
def test_what_is_not_polished(options, message):
    x = np.random.default_rng(3).normal(size=(30, 2))
    known = {"data_train": x, "data_validate": x[:9] + 1, "polish": np.True_, "verbose": False}
    if "condition" in options:
        known["condition_validate"] = np.arange(9.0)
    with pytest.raises(ValueError, match=f"^{message}"):
        pyflow.GIS(**known | options)


def test_polish_may_be_a_numpy_bool():
    x = np.random.default_rng(3).normal(size=(200, 2))
    known = {"max_layers": 3, "n_models": 1, "verbose": False}
    one, other = (pyflow.GIS(x[:150], x[150:], polish=p, **known) for p in (True, np.True_))
    assert one == other
