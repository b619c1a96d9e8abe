"""GIS with conditions, p(x|y): densities that are known, and laws of every fit."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, special, stats

import pyflow
from pyflow import _autoregressive
from pyflow._members import together

# Of Gaussian conditions some lie outside of the training range: of which it warns.
pytestmark = pytest.mark.filterwarnings("ignore:.* outside of the training range")

A = np.array([[1.0, -0.5], [0.5, 2.0]])
ROOT = np.array([[0.3, 0.0], [0.2, 0.4]])  # of the covariance of x given y


def fit(x, x_validate, y, y_validate, **options):
    options = {"n_models": 1, "verbose": False} | options
    return pyflow.GIS(x, x_validate, condition=y, condition_validate=y_validate, **options)


@pytest.fixture
def quick(monkeypatch):
    """Fits of a few epochs, for laws that hold of any."""
    monkeypatch.setattr(_autoregressive, "STEPS", 4)


@pytest.fixture
def rows(quick):
    """Training and validation rows of x and y."""
    x, y = linear(260, 6)
    return x[:200], x[200:], y[:200], y[200:].clip(-2, 2)


# ---- densities that are known --------------------------------------------------------------------


def linear(n, seed):
    """x is linear in y and Gaussian; so is y."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, 2))
    return y @ A.T + rng.normal(size=(n, 2)) @ ROOT.T, y


def linear_logp(x, y):
    return stats.multivariate_normal.logpdf(x - y @ A.T, cov=ROOT @ ROOT.T)


@pytest.fixture(scope="module")
def of_linear():
    x, y = linear(2000, 1)
    return fit(x[:1600], x[1600:], y[:1600], y[1600:])


def wave(n, seed):
    """x is a curve of y, with noise that grows with y."""
    rng = np.random.default_rng(seed)
    y = rng.uniform(-1, 1, n)
    return rng.normal(np.sin(3 * y), noise(y))[:, None], y


def noise(y):
    return 0.1 * np.exp(y)


@pytest.fixture(scope="module")
def of_wave():
    x, y = wave(1500, 1)
    return fit(x[:1200], x[1200:], y[:1200], y[1200:])


def edge(n, seed):
    """Parameters between 0 and 1, and data y of them: p(x|y) is a posterior."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(n, 1))
    return x, x + 0.2 * rng.normal(size=(n, 1))


@pytest.fixture(scope="module")
def of_edge():
    x, y = edge(1000, 1)
    return fit(x[:800], x[800:], y[:800], y[800:], bounds=[(0, 1)])


def regression_logp(train, test):
    """Log-densities of a linear regression with Gaussian residuals."""
    x, y = train
    of = np.column_stack([np.ones(len(x)), y])
    slope = np.linalg.lstsq(of, x, rcond=None)[0]
    cov = np.atleast_2d(np.cov((x - of @ slope).T))
    x, y = test
    return stats.multivariate_normal.logpdf(
        x - np.column_stack([np.ones(len(x)), y]) @ slope, cov=cov
    )


def test_a_linear_gaussian_is_nearly_exact_and_the_network_does_no_harm(of_linear):
    x, y = linear(4000, 2)
    logp = of_linear.evaluate_density(x, y)
    assert (linear_logp(x, y) - logp).mean() < 0.05
    assert logp.mean() > regression_logp(linear(2000, 1), (x, y)).mean() - 0.03


def test_a_curve_with_noise_that_depends_on_the_condition(of_wave):
    x, y = wave(4000, 2)
    logp = of_wave.evaluate_density(x, y)
    gap = stats.norm.logpdf(x[:, 0], np.sin(3 * y), noise(y)) - logp
    assert gap.mean() < 0.2
    assert logp.mean() > regression_logp(wave(1500, 1), (x, y)).mean() + 0.5
    draws = of_wave.sample(4000, np.repeat([-0.9, 0.9], 2000), seed=3)[0].reshape(2, 2000)
    assert_allclose(draws.mean(axis=1), np.sin([-2.7, 2.7]), atol=0.1)
    assert_allclose(draws.std(axis=1), noise(np.array([-0.9, 0.9])), rtol=0.7)


def test_a_posterior_of_bounded_parameters(of_edge):
    x, y = edge(4000, 2)
    truth = stats.truncnorm(-y / 0.2, (1 - y) / 0.2, y, 0.2)
    assert (truth.logpdf(x)[:, 0] - of_edge.evaluate_density(x, y)).mean() < 0.1


# ---- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [-4.0, 0.3, 5.0])
def test_it_integrates_to_one_in_and_outside_of_the_training_range(of_wave, of_linear, of_edge, y):
    at = of_wave.sample(2000, [y], seed=1)[0]
    x = np.linspace(at.min() - 3 * np.ptp(at), at.max() + 3 * np.ptp(at), 20001)
    p = np.exp(of_wave.evaluate_density(x[:, None], [y]))
    assert abs(integrate.trapezoid(p, x) - 1) < 1e-3

    at = special.expit(np.linspace(-500, 500, 200001))  # what lies outside is pressed to a bound
    x = at[(at > 1e-150) & (at < 1)]
    p = np.exp(of_edge.evaluate_density(x[:, None], [y / 4]))
    assert abs(integrate.trapezoid(p, x) - 1) < 1e-3

    y = np.array([y, 0.5])
    at = of_linear.sample(2000, y, seed=1)[0]
    a, b = (np.linspace(c.min() - np.ptp(c), c.max() + np.ptp(c), 401) for c in at.T)
    x = np.stack(np.meshgrid(a, b, indexing="ij"), axis=-1).reshape(-1, 2)
    p = np.exp(of_linear.evaluate_density(x, y)).reshape(401, 401)
    assert abs(integrate.trapezoid(integrate.trapezoid(p, b), a) - 1) < 0.01


@pytest.mark.parametrize("y", [-1.0, 0.0, 0.5, 1.0, 3.0])
def test_bounds_hold_for_every_condition(of_edge, y):
    logp = of_edge.evaluate_density([[-0.01], [0.5], [1.01]], [y])
    assert_array_equal(np.isfinite(logp), [False, True, False])
    assert (logp[[0, 2]] == -np.inf).all()
    x, _ = of_edge.sample(2000, [y], seed=1)
    assert x.min() >= 0
    assert x.max() <= 1


def test_bounds_may_be_open_on_a_side(quick):
    x, y = linear(200, 1)
    x = np.exp(x)
    flow = fit(x[:150], x[150:], y[:150], y[150:], bounds=[(0, None), (None, None)])
    logp = flow.evaluate_density([[-0.1, 1], [1, -0.1]], [0, 0])
    assert_array_equal(np.isfinite(logp), [False, True])


def test_a_sample_knows_its_density(of_linear, of_wave):
    y = linear(500, 3)[1].clip(-2, 2)
    x, logp = of_linear.sample(500, y, seed=1)
    assert_allclose(of_linear.evaluate_density(x, y), logp, atol=1e-6)
    x, logp = of_wave.sample(500, [0.5], seed=1)
    assert_allclose(of_wave.evaluate_density(x, np.full(500, 0.5)), logp, atol=1e-6)
    z, logj = of_wave.forward(x, [0.5])
    assert_allclose(stats.norm.logpdf(z).sum(axis=1) + logj, logp, atol=1e-6)


def test_scores_are_the_slopes_of_the_density(of_linear):
    x, y = linear(200, 4)
    score, logp = of_linear.score(x, y, with_logp=True)
    of_y = of_linear.score_parameters(x, y)
    assert_allclose(logp, of_linear.evaluate_density(x, y), atol=1e-9)
    h = 1e-5
    for j, e in enumerate(h * np.eye(2)):
        slope = of_linear.evaluate_density(x + e, y) - of_linear.evaluate_density(x - e, y)
        assert_allclose(slope / (2 * h), score[:, j], rtol=0.02, atol=0.02)
        slope = of_linear.evaluate_density(x, y + e) - of_linear.evaluate_density(x, y - e)
        assert_allclose(slope / (2 * h), of_y[:, j], rtol=0.02, atol=0.02)


def test_posteriors_are_nearly_exact(of_linear):
    precision = np.linalg.inv(ROOT @ ROOT.T)
    cov = np.linalg.inv(np.eye(2) + A.T @ precision @ A)
    for x in linear(4, 5)[0]:
        post = of_linear.posterior(x, [stats.norm(), stats.norm()])
        exact = cov @ A.T @ precision @ x
        assert_allclose(post.mean, exact, atol=0.8 * np.sqrt(np.diag(cov)).min())
        assert_allclose(np.sqrt(np.diag(post.cov)), np.sqrt(np.diag(cov)), rtol=0.4)


def test_a_posterior_is_the_likelihood_of_all_its_points(of_linear, rows):
    x, y = linear(3, 7)
    at = np.linspace(-1, 1, 9)[:, None] * [1, 0.5] + y[0]
    for flow in (of_linear, fit(*rows, n_models=2)):
        each = np.array([flow.evaluate_density(x, of).sum() for of in at])
        post = flow.posterior(x, [(-9, 9), (-9, 9)]).logp(at)
        assert_allclose(post - post[0], each - each[0], atol=1e-6)


def test_posteriors_of_a_curve_cover(of_wave):
    x, y = wave(120, 5)
    found = of_wave.check(x, y, prior=[(-1, 1)])
    for level in (0.5, 0.68, 0.9):
        share, error = found.held(level)
        assert abs(share - level) < 4 * error
    at = np.linspace(-1, 1, 2001)
    exact = stats.norm.pdf(x[0, 0], np.sin(3 * at), noise(at))
    post = np.exp(of_wave.posterior(x[0], [(-1, 1)]).logp(at[1:-1, None]))
    exact = exact[1:-1] / exact.sum()
    assert 0.5 * np.abs(exact - post / post.sum()).sum() < 0.25  # total variation


# ---- what is given -------------------------------------------------------------------------------


def test_tables_keep_their_names_and_their_columns_any_order(rows):
    pandas = pytest.importorskip("pandas")
    x, x_validate, y, y_validate = rows

    def table(values, names):
        return pandas.DataFrame(values, columns=names)

    flow = fit(
        table(x, ["u", "v"]),
        table(x_validate, ["u", "v"])[["v", "u"]],
        table(y, ["omega", "sigma"]),
        table(y_validate, ["omega", "sigma"])[["sigma", "omega"]],
    )
    assert flow.columns == ("u", "v")
    assert flow.names == ("omega", "sigma")
    plain = fit(*rows)
    assert plain.names == ("y0", "y1")
    logp = plain.evaluate_density(x, y)
    assert_array_equal(flow.evaluate_density(x, y), logp)
    other = table(x, ["u", "v"])[["v", "u"]], table(y, ["omega", "sigma"])[["sigma", "omega"]]
    assert_array_equal(flow.evaluate_density(*other), logp)
    named = fit(
        x,
        x_validate,
        {"a": y[:, 0], "b": y[:, 1]},
        {"b": y_validate[:, 1]} | {"a": y_validate[:, 0]},
    )
    assert named.names == ("a", "b")
    assert_array_equal(named.evaluate_density(x, y), logp)
    with pytest.raises(ValueError, match="^condition_validate: has no column 'sigma'"):
        fit(x, x_validate, table(y, ["omega", "sigma"]), table(y_validate, ["omega", "tau"]))


def test_a_single_condition_needs_no_axis(rows):
    x, x_validate, y, y_validate = rows
    flow = fit(x, x_validate, y[:, 0], y_validate[:, 0])
    assert flow == fit(x, x_validate, y[:, :1], y_validate[:, :1])
    assert_array_equal(flow.evaluate_density(x, y[:, 0]), flow.evaluate_density(x, y[:, :1]))


def test_integers_are_numbers(rows):
    x, x_validate, y, y_validate = rows
    whole = [np.round(2 * of).astype(int) for of in (y, y_validate)]
    assert fit(x, x_validate, *whole) == fit(x, x_validate, *(of.astype(float) for of in whole))


def test_float32_is_nearly_float64(rows):
    x, x_validate, y, y_validate = rows
    single = fit(x.astype(np.float32), x_validate.astype(np.float32), y, y_validate)
    assert single.dtype == np.float32
    near = single.evaluate_density(x_validate, y_validate)
    assert_allclose(near, fit(*rows).evaluate_density(x_validate, y_validate), atol=0.05)


def test_rows_without_weight_do_not_matter(rows):
    x, x_validate, y, y_validate = rows
    rng = np.random.default_rng(0)
    place = np.sort(rng.choice(250, 200, replace=False))
    more, beside = 9 * rng.normal(size=(250, 2)), 1000 + rng.normal(size=(250, 2))
    more[place], beside[place] = x, y
    weight = np.zeros(250)
    weight[place] = 1
    flow = fit(more, x_validate, beside, y_validate, weight_train=weight)
    plain = fit(*rows)
    assert_array_equal(flow.y_range, plain.y_range)
    logp = plain.evaluate_density(x_validate, y_validate)
    assert_allclose(flow.evaluate_density(x_validate, y_validate), logp, atol=1e-6)


def test_weights_choose_among_two_dependences(quick):
    """Half of the rows rise with y, half fall: each is found by its weights."""
    rng = np.random.default_rng(0)
    y, sign = rng.normal(size=500), np.repeat([1, -1], 250)
    x = (sign * y + 0.1 * rng.normal(size=500))[:, None]
    order = rng.permutation(500)
    x, y, sign = x[order], y[order], sign[order]
    for way in (1, -1):
        weight = np.where(sign == way, 1.0, 1e-3)
        flow = fit(
            x[:400],
            x[400:],
            y[:400],
            y[400:],
            weight_train=weight[:400],
            weight_validate=weight[400:],
        )
        assert_allclose(flow.sample(500, [1.0], seed=1)[0].mean(), way, atol=0.3)


def test_a_condition_much_larger_than_the_others(rows):
    x, x_validate, y, y_validate = rows
    logp = fit(*rows).evaluate_density(x_validate, y_validate)
    for scale in ([1, 1e9], [1e-9, 1]):
        flow = fit(x, x_validate, y * scale, y_validate * scale)
        assert_allclose(flow.evaluate_density(x_validate, y_validate * scale), logp, atol=1e-4)
    far = np.array([0, 1e6])
    flow = fit(x, x_validate, y + far, y_validate + far)
    assert_allclose(flow.evaluate_density(x_validate, y_validate + far), logp, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("noise", [0, 1e-9])
def test_what_y_says_almost_exactly_has_a_finite_high_density(rows, noise, dtype):
    _, _, y, y_validate = rows
    rng = np.random.default_rng(0)
    x, x_validate = (
        np.column_stack([of[:, 0] + noise * rng.normal(size=len(of)), rng.normal(size=len(of))])
        for of in (y, y_validate)
    )
    flow = fit(x.astype(dtype), x_validate.astype(dtype), y, y_validate)
    logp = flow.evaluate_density(x_validate, y_validate)
    assert np.isfinite(logp).all()
    assert logp.mean() > stats.norm.logpdf(x_validate).sum(axis=1).mean() + 1
    assert np.isfinite(flow.score(x_validate, y_validate)).all()


def test_more_columns_than_rows(quick):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 30)), rng.normal(size=(20, 2)).clip(-1, 1)
    flow = fit(x[:12], x[12:], y[:12], y[12:])
    assert np.isfinite(flow.evaluate_density(x, y)).all()
    flow = fit(y[:12], y[12:], x[:12], x[12:])  # and more conditions than rows
    assert np.isfinite(flow.evaluate_density(y, x)).all()


# ---- the fit -------------------------------------------------------------------------------------


def test_a_mixture_of_two(rows):
    x, _, y, _ = rows
    both = fit(*rows, n_models=2)
    assert isinstance(both, pyflow.Mixture)
    each = [np.exp(flow.evaluate_density(x, y)) for flow in both.members]
    assert_allclose(both.evaluate_density(x, y), np.log(np.mean(each, axis=0)))
    assert len(fit(x, None, y, None, n_models=2)) == 2
    assert len(fit(*rows, n_models=None)) == 4


def test_every_member_sees_all_classes_that_are_conditions(rows):
    x, x_validate, y, y_validate = rows
    both = fit(x, x_validate, y[:, 0] > 0, y_validate[:, 0] > 0, n_models=3)
    for flow in both.members:
        assert_array_equal(flow.y_range, [[0, 1]])


def test_no_member_trains_on_what_it_is_validated_on():
    """Rows of equal parameters stay together, be they x or y; those of equal flags do not."""
    rng = np.random.default_rng(0)
    parameters, data = np.repeat(rng.normal(size=(100, 2)), 5, axis=0), rng.normal(size=(500, 1))
    for pair in ((parameters, data), (data, parameters)):
        group = together(dict(zip(("data_train", "y_train"), pair, strict=True)))
        assert_array_equal(np.bincount(group), np.full(100, 5))
        assert (group.reshape(100, 5) == group.reshape(100, 5)[:, :1]).all()
    group = together({"data_train": data, "y_train": (parameters > 0).astype(float)})
    assert len(np.unique(group)) == 500


def test_the_same_bits_for_any_number_of_threads(rows):
    threads = pyflow.get_num_threads()
    try:
        flows = []
        for n in (1, 2):
            pyflow.set_num_threads(n)
            flows.append((fit(*rows), fit(*rows, n_models=2)))
        assert flows[0] == flows[1]
    finally:
        pyflow.set_num_threads(threads)


def test_files_and_pickles(rows, tmp_path):
    x, _, y, _ = rows
    flow = fit(*rows)
    flow.save(tmp_path / "flow")
    for same in (pyflow.load(tmp_path / "flow"), pickle.loads(pickle.dumps(flow))):
        assert same == flow
        assert_array_equal(same.evaluate_density(x, y), flow.evaluate_density(x, y))


def test_a_checkpoint_holds_the_finished_flow(rows, tmp_path):
    x, x_validate, y, y_validate = rows
    path = tmp_path / "flow"
    told = []
    how = {"checkpoint": path, "bounds": [(None, 99), (-99, None)]}
    flow = fit(*rows, **how)
    assert pyflow.load(path) == flow
    assert not flow.unfinished
    assert fit(*rows, **how, progress=told.append) == flow
    assert not told
    others = {
        "bounds": lambda: fit(*rows, checkpoint=path),
        "seed": lambda: fit(*rows, **how, seed=1),
        "y_train": lambda: fit(x, x_validate, y + 1e-9, y_validate, **how),
        "data_validate": lambda: fit(x, x_validate + 1e-9, y, y_validate, **how),
        "another n_models": lambda: fit(*rows, **how, n_models=2),
        "alpha": lambda: pyflow.GIS(x, x_validate, n_models=1, verbose=False, **how),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"^checkpoint: .* belongs to another fit.*{name}"):
            other()


def test_an_interrupted_mixture_begins_anew(rows, tmp_path):
    """What later members learn of the first is in no file, so no file is left."""

    def stop(p):
        if p.member == 1 and p.step > 1:
            raise KeyboardInterrupt

    how = {"checkpoint": tmp_path / "flow", "n_models": 2}
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(*rows, **how, progress=stop)
    assert caught.value.flow is not None
    assert not list(tmp_path.iterdir())
    assert fit(*rows, **how) == fit(*rows, n_models=2)


def test_a_condition_that_is_constant_in_a_split_is_named(rows):
    x, x_validate, *_ = rows
    once = np.zeros(len(x))
    once[0] = 1
    with pytest.raises(ValueError, match="^condition: column 0 is constant in the rows of a fit"):
        fit(x, x_validate, once, np.zeros(len(x_validate)), n_models=4)


def test_progress_is_of_one_course(rows):
    heard = []
    flow = fit(*rows, progress=heard.append)
    steps = [p.step for p in heard]
    starts = [k for k in range(1, len(steps)) if steps[k] == steps[k - 1]]
    assert (steps[0], len(starts)) == (0, 1)  # two trainings
    assert set(np.diff(steps)) == {0, 1}
    assert (np.diff([p.seconds for p in heard]) >= 0).all()
    reached = np.array([p.logp_validate for p in heard])
    best = [steps[np.argmax(reached[: k + 1])] for k in range(len(steps))]
    assert [p.best for p in heard] == best
    _, x_validate, _, y_validate = rows
    assert_allclose(flow.evaluate_density(x_validate, y_validate).mean(), reached.max())


class Stop(Exception):
    pass


@pytest.mark.parametrize("training", [1, 2])
def test_what_was_reached_comes_with_the_exception(rows, training):
    """The better of both trainings: where the second has just begun, that is the first."""
    _, x_validate, _, y_validate = rows
    heard, starts = [], []

    def stop(p):
        if not heard or p.step == heard[-1].step:
            starts.append(len(heard))
        heard.append(p)
        if len(starts) == training and len(heard) > starts[-1] + 1:
            raise Stop

    with pytest.raises(Stop) as error:
        fit(*rows, progress=stop)
    flow = error.value.flow
    assert flow.unfinished
    assert flow.names == ("y0", "y1")
    reached = flow.evaluate_density(x_validate, y_validate).mean()
    assert_allclose(reached, max(p.logp_validate for p in heard))


def test_rows_far_outside_of_those_it_was_fitted_to_are_warned_of(of_wave):
    prior = [(-1, 1)]
    with pytest.warns(UserWarning, match="^x: column 0 = 30 lies outside of the training range, "):
        of_wave.posterior([30.0], prior)
    of_wave.posterior([0.3], prior)  # warnings are errors here
    with pytest.warns(UserWarning, match="^x: column 0 = ") as told:
        of_wave.posteriors([[30.0], [31.0], [0.3]], prior)
    assert [str(w.message).split(" lies ")[0] for w in told] == ["x: column 0 = 0.3 to 31"]


def test_a_posterior_of_rows_out_of_bounds_says_so(of_edge):
    with pytest.raises(ValueError, match="^x: row 0, column 0 is 1.5, outside the bounds"):
        of_edge.posterior([1.5], [(0, 1)])
