"""Coverage, ranks and TARP of posteriors that are known, and temperatures with an error."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pictures import check_drawn

import pyflow
from pyflow import _autoregressive, fields
from pyflow.checks import Coverage, coverage, coverage_of_samples

WIDTHS = np.array([0.02, 0.05])
BOX = np.array([[-1.0, 1.0], [-2.0, 2.0]])


class Gaussian:
    """The posterior N(mean, diag(widths^2)), exactly: two independent parameters."""

    bounds, names = BOX, ("a", "b")

    def __init__(self, mean, widths):
        self.mean, self.widths, self.cov = mean, widths, np.diag(widths**2)

    def logp(self, y):
        inside = ((y >= BOX[:, 0]) & (y <= BOX[:, 1])).all()
        z = (y - self.mean) / self.widths
        norm = np.log(2 * np.pi * self.widths.prod())
        return -0.5 * z @ z - norm if inside else -np.inf

    def credibility(self, y):
        z = (y - self.mean) / self.widths
        return -np.expm1(-0.5 * z @ z)

    def sample(self, n, seed):
        return self.mean + self.widths * np.random.default_rng(seed).normal(size=(n, 2))


def worlds(n, seed=0, widths=WIDTHS):
    """Truths well inside the box, and what is seen of them."""
    rng = np.random.default_rng(seed)
    y = rng.uniform(*(0.7 * BOX).T, size=(n, 2))
    return y, y + widths * rng.normal(size=y.shape)


def checked(n=400, factor=1.0, shift=0.0, seed=0, **options):
    y, seen = worlds(n, seed)
    posts = (Gaussian(at + shift * WIDTHS, factor * WIDTHS) for at in seen)
    return coverage(posts, y, seed=seed, **options)


def test_exact_posteriors_are_found_right():
    found = checked()
    assert found.simulations == 400
    for level in (0.1, 0.5, 0.68, 0.95):
        share, error = found.held(level)
        assert_allclose(error, np.sqrt(level * (1 - level) / 400), rtol=0.25)
        assert abs(share - level) < 3.5 * error
    assert found.p_values["credibility"] > 0.01
    assert found.p_values["tarp"] > 0.01
    assert (found.p_values["ranks"] > 0.01).all()
    assert_allclose((found.z**2).mean(axis=0), 1, atol=0.25)
    entropy = 1 + np.log(2 * np.pi * WIDTHS.prod())
    assert_allclose(found.log_posterior.mean(), -entropy, atol=0.2)
    assert found.verdict == "right within errors"


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.6, "too narrow"), (1.6, "too wide"), (1.0, "right within errors")]
)
def test_wrong_widths_are_found(factor, verdict):
    found = checked(factor=factor)
    expected = -np.expm1(factor**2 * np.log(0.32))  # of Gaussians of two parameters
    share, error = found.held(0.68)
    assert abs(share - expected) < 4 * error
    assert found.verdict == verdict
    assert f"their regions are {verdict}" in str(found)
    wrong = factor != 1
    for p in (found.p_values["credibility"], *found.p_values["ranks"], found.p_values["tarp"]):
        assert (p < 0.01) == wrong
    assert_allclose((found.z**2).mean(axis=0), factor**-2, rtol=0.25)


def test_a_bias_is_found():
    found = checked(shift=0.7)
    assert (found.p_values["ranks"] < 0.001).all()
    assert found.p_values["credibility"] < 0.01
    assert str(found).count("too high") == 2
    assert str(checked(shift=-0.7)).count("too low") == 2
    assert "too high" not in str(checked())


def test_p_values_of_right_posteriors_are_uniform():
    """Also where the four maps of a simulation have much in common."""
    rng = np.random.default_rng(1)
    for maps in (1, 4):
        small = []
        for seed in range(120):
            common, own = rng.normal(size=(25, 1)), rng.normal(size=(25, maps))
            u = ((0.8 * common + 0.6 * own).ravel()[:, None] > LINE).mean(axis=1)
            found = checked_values(u, np.repeat(np.arange(25), maps), seed)
            small.append(found.p_values["tarp"] < 0.2)
        assert abs(np.mean(small) - 0.2) < 0.13


LINE = np.sort(np.random.default_rng(0).normal(size=20_000))


def checked_values(u, simulation, seed=0):
    return Coverage(u, u[:, None], u, 0 * u, 0 * u[:, None], simulation, ["a"], seed)


def test_maps_of_a_simulation_count_once():
    u = np.random.default_rng(3).random(40)
    once, copied = checked_values(u, range(40)), np.repeat(u, 9)
    labelled = checked_values(copied, np.repeat(np.arange(40), 9))
    apart = checked_values(copied, np.arange(360))
    for level in (0.3, 0.68):
        assert_allclose(labelled.held(level), once.held(level), rtol=1e-12)
        assert labelled.held(level)[1] > 2.5 * apart.held(level)[1]
    assert labelled.p_values["tarp"] == once.p_values["tarp"] > apart.p_values["tarp"]


def test_equal_truths_are_one_simulation():
    y, seen = worlds(30)
    twice, posts = np.repeat(y, 2, axis=0), [Gaussian(at, WIDTHS) for at in seen for _ in "ab"]
    found = coverage(posts, twice)
    assert found.simulations == 30
    assert_array_equal(found.simulation[::2], found.simulation[1::2])
    assert coverage(posts, twice, simulation=np.arange(60)).simulations == 60
    names = np.repeat([f"run {i % 5}" for i in range(30)], 2)
    assert coverage(posts, twice, simulation=names).simulations == 5


def test_truths_outside_of_the_prior_are_warned_of():
    y, seen = worlds(20)
    y[3, 1] = 2.5
    with pytest.warns(UserWarning, match="y: 1 of 20 truths lie outside of the prior"):
        found = coverage([Gaussian(at, WIDTHS) for at in seen], y)
    assert found.log_posterior[3] == -np.inf
    for values in (found.credibility, found.ranks, found.tarp, found.z):
        assert np.isfinite(values).all()
    assert "nan" not in str(found)


def test_few_simulations_have_honest_errors():
    one = checked_values(np.array([0.9]), [7])
    assert one.held(0.68)[1] > 0.2
    assert one.verdict == "right within errors"
    assert "nan" not in str(one)
    check_drawn(one.plot())


def test_bad_input_names_the_argument():
    y, seen = worlds(4)
    posts = [Gaussian(at, WIDTHS) for at in seen]
    for known, match in [
        ({"y": y[:3]}, "y: there are 3 truths, and more posteriors"),
        ({"y": np.tile(y, (2, 1))}, "y: there are 8 truths for 4 posteriors"),
        ({"y": y[:, :1]}, r"y: must have shape \(n, 2\)"),
        ({"y": y * np.nan}, "y: is NaN or infinite in row 0"),
        ({"y": y[:0]}, "y: must have shape"),
        ({"y": y.astype(str)}, "y: must hold real numbers"),
        ({"y": y, "simulation": [1, 2]}, r"simulation: must have shape \(4,\)"),
        ({"y": y, "simulation": [1, 2, 3, np.nan]}, "simulation: a label is not finite"),
    ]:
        with pytest.raises(ValueError, match=match):
            coverage(posts, **known)
    for level in (0, 1, -3):
        with pytest.raises(ValueError, match="level: must be between 0 and 1"):
            coverage(posts, y).held(level)


def test_truths_are_matched_by_name():
    pd = pytest.importorskip("pandas")
    y, seen = worlds(40)
    posts = [Gaussian(at, WIDTHS) for at in seen]
    expected = coverage(posts, y)
    table = pd.DataFrame({"b": y[:, 1], "id": "x", "a": y[:, 0]})
    for named in (table, {"b": y[:, 1], "a": y[:, 0]}):
        found = coverage(iter(posts), named)
        assert_array_equal(found.z, expected.z)
        assert found.names == ("a", "b")
    with pytest.raises(ValueError, match="y: has no column 'a'"):
        coverage(posts, {"b": y[:, 1], "c": y[:, 0]})
    posts[3].names = ("b", "a")
    with pytest.raises(ValueError, match="posteriors: number 3 is of b, a, the first of a, b"):
        coverage(posts, y)


def test_what_is_wrong_with_truths_is_said_before_the_first_posterior():
    def never():
        raise ZeroDivisionError
        yield

    with pytest.raises(ValueError, match="y: is NaN"):
        coverage(never(), [[np.nan]])


def test_the_figure_shows_the_curves():
    found = checked(60, factor=0.5)
    figure = found.plot()
    check_drawn(figure)
    cover, tarp, *ranks = figure.axes
    assert len(ranks) == 2
    for axes, values in ((cover, found.credibility), (tarp, found.tarp)):
        t, share = axes.lines[-1].get_data()
        assert_allclose(share, [(values <= at).mean() for at in t])
    low, high = np.sort(cover.collections[0].get_paths()[0].vertices[:, 1])[[0, -1]]
    assert (low, high) == (0, 1)
    for axes, values in zip(ranks, found.ranks.T, strict=True):
        density, edges, _ = axes.patches[0].get_data()
        assert_allclose(density, np.histogram(values, edges, density=True)[0])
    with pytest.raises(TypeError, match=r"found: must be a pyflow\.checks\.Coverage, not list"):
        pyflow.plots.coverage([found])


# ---- of draws alone ------------------------------------------------------------------------------


def draws_of(factor=1.0, shift=0.0, n=300, draws=199, seed=0):
    """Draws of posteriors that are Gaussian, correlated, and as wide as they should be or not."""
    y, seen = worlds(n, seed)
    rng = np.random.default_rng(seed + 1)
    drawn = factor * WIDTHS * rng.normal(size=(n, draws, 2)) + (seen + shift * WIDTHS)[:, None]
    turn = np.array([[1.0, 2.0], [0.0, 1.0]])  # the same for truths
    logp = -0.5 * (((drawn - seen[:, None]) / (factor * WIDTHS)) ** 2).sum(axis=2)
    true = -0.5 * (((y - seen) / (factor * WIDTHS)) ** 2).sum(axis=1)
    return drawn @ turn, y @ turn, {"logp": logp, "logp_true": true}


@pytest.mark.parametrize("with_logp", [False, True])
@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.6, "too narrow"), (1.6, "too wide"), (1.0, "right within errors")]
)
def test_draws_say_what_posteriors_say(factor, verdict, with_logp):
    draws, y, logp = draws_of(factor)
    found = coverage_of_samples(draws, y, **(logp if with_logp else {}), names=["a", "b"])
    expected = -np.expm1(factor**2 * np.log(0.32))
    share, error = found.held(0.68)
    assert abs(share - expected) < 4 * error
    assert found.verdict == verdict
    for p in (found.p_values["credibility"], *found.p_values["ranks"], found.p_values["tarp"]):
        assert (p < 0.01) == (factor != 1)
    assert_allclose((found.z**2).mean(axis=0), factor**-2, rtol=0.25)
    assert ("log p(y|x)" in str(found)) == with_logp
    assert np.isnan(found.log_posterior).all() != with_logp
    assert "nan" not in str(found)


def test_credibility_of_few_draws_is_uniform():
    """The truth is one more draw: with nine, credibilities in tenths are equally likely."""
    for options in ({}, {"logp": True}):
        draws, y, logp = draws_of(n=800, draws=9)
        found = coverage_of_samples(draws, y, **(logp if options else {}))
        count = np.bincount((10 * found.credibility).astype(int), minlength=10)
        assert ((count - 80) ** 2 / 80).sum() < 30  # of nine degrees of freedom


def test_draws_with_a_bias_or_in_a_generator():
    draws, y, _ = draws_of(shift=0.7)
    biased = coverage_of_samples((d for d in draws), y, bounds=[(-3, 3), (-6, 6)])
    assert (biased.p_values["ranks"] < 0.001).all()
    assert "too high" in str(biased)
    again = coverage_of_samples(list(draws), y, bounds=[(-3, 3), (-6, 6)])
    assert_array_equal(again.tarp, biased.tarp)
    one = coverage_of_samples(draws[:, :, 0], y[:, 0], simulation=np.arange(300) // 3)
    assert one.ranks.shape == (300, 1)
    assert one.simulations == 100


def test_draws_are_matched_by_name():
    pd = pytest.importorskip("pandas")
    draws, y, _ = draws_of(n=30)
    expected = coverage_of_samples(draws, y, names=["a", "b"])
    frames = [pd.DataFrame(d[:, ::-1], columns=["b", "a"]) for d in draws]
    truths = pd.DataFrame(y, columns=["a", "b"])
    other = pd.DataFrame({"b": y[:, 1], "id": "x", "a": y[:, 0]})
    ways = (
        ((frames, truths), {}),
        ((draws, truths), {}),
        ((draws, other), {"names": ["a", "b"]}),
        ((frames, other), {"names": ["a", "b"]}),
        ((frames, y), {"names": ["a", "b"]}),
    )
    for args, how in ways:
        found = coverage_of_samples(*args, **how)
        assert_array_equal(found.ranks, expected.ranks)
        assert found.names == ("a", "b")
    frames[0] = frames[0][["a", "b"]]
    assert_array_equal(coverage_of_samples(frames, y).ranks, expected.ranks)  # as the first
    assert coverage_of_samples(frames, truths, names=["A", "B"]).names == ("A", "B")
    with pytest.raises(ValueError, match="samples: has no column 'c'"):
        coverage_of_samples(frames, truths.rename(columns={"b": "c"}))


def test_draws_are_refused_by_name():
    draws, y, logp = draws_of(n=5)
    good = {"samples": draws, "y": y} | logp
    for known, match in [
        ({"y": y[:4]}, "logp_true: must be 4 numbers"),
        ({"y": y[:4], "logp_true": None}, "logp: and logp_true go together"),
        ({"samples": draws[:4]}, "y: there are 5 truths for 4 samples"),
        ({"samples": np.tile(draws, (2, 1, 1))}, "y: there are 5 truths, and more samples"),
        ({"samples": draws[:, :, :1]}, r"samples: must have shape \(draws, 2\)"),
        ({"samples": draws * np.nan}, "samples: sample 0 is NaN"),
        ({"samples": draws.astype(str)}, "samples: must hold real numbers"),
        ({"logp": logp["logp"][:3]}, "logp: must be 199 numbers for sample 3"),
        ({"logp": np.tile(logp["logp"], (2, 1))}, "logp: there are more than the 5 samples"),
        ({"bounds": [(0, 1)]}, r"bounds: must have shape \(2, 2\)"),
        ({"names": ["a"]}, "names: 1 names for 2 parameters"),
    ]:
        with pytest.raises(ValueError, match=match):
            coverage_of_samples(**(good | known))
    with pytest.raises(TypeError, match="^names: must be strings, not 5"):
        coverage_of_samples(**good, names=5)


def test_a_flow_of_parameters_is_checked(monkeypatch):
    monkeypatch.setattr(_autoregressive, "STEPS", 60)
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(760, 2))
    data = theta + rng.normal(size=theta.shape)
    parts = {"condition": data[:500], "condition_validate": data[500:600]}
    flow = pyflow.GIS(theta[:500], theta[500:600], **parts, n_models=1, verbose=False)
    x, y = theta[600:], data[600:].clip(*flow.y_range.T)
    found = flow.check_draws(x, y, draws=99, seed=1)
    share, error = found.held(0.68)
    assert abs(share - 0.68) < 4 * error
    assert_array_equal(found.log_posterior, flow.evaluate_density(x, y))
    assert_array_equal(flow.check_draws(x, y, draws=99, seed=1).ranks, found.ranks)
    wrong = flow.check_draws(x, y[::-1], draws=99)  # data of other truths
    assert wrong.p_values["credibility"] < 0.001
    assert wrong.verdict == "too narrow"
    assert flow.check_draws(x[:4], y[0], draws=99).simulations == 4


def test_a_density_is_checked_on_rows(model, test):
    found = model.check_draws(test, draws=199)
    assert found.ranks.shape == test.shape
    assert found.p_values["credibility"] > 1e-3
    narrow = model.check_draws(1.5 * test + 1, draws=99)
    assert narrow.p_values["credibility"] < 1e-3
    x = np.random.default_rng(0).normal(size=(20, 4, 4))
    of_fields = pyflow.SymmetricFlow(x, epochs=0, verbose=False)
    with pytest.raises(ValueError, match="check_draws: is for tables"):
        of_fields.check_draws(x)


# ---- of flows ------------------------------------------------------------------------------------


def draw(n, seed, scatter=0.0):
    rng = np.random.default_rng(seed)
    y = rng.uniform(0.5, 2, (n, 1))
    x = fields.gaussian_field(lambda k: y[:, :, None] / k, (8, 8), box_size=8.0, seed=rng)
    return x * np.exp(scatter * rng.normal(size=(n, 1, 1))), y


@pytest.fixture(scope="module")
def flow():
    """A flow that does not know of the scatter, whose posteriors are too narrow."""
    x, y = draw(300, 1, 0.2)
    options = {"n_layers": 1, "filter_knots": 8, "hidden": (16, 16), "epochs": 15, "box_size": 8.0}
    return pyflow.SymmetricFlow(x, y_train=y, names=["amplitude"], verbose=False, **options)


def test_check_is_of_the_flows_posteriors(flow):
    x, y = draw(40, 2, 0.2)
    y = np.clip(y, 0.6, 1.9)
    found = flow.check(x, y, prior=[(0.6, 1.9)], temperature=0.5)
    for i in (0, 17):
        post = flow.posterior(x[i], [(0.6, 1.9)], temperature=0.5)
        assert found.credibility[i] == post.credibility(y[i])
        assert found.log_posterior[i] == post.logp(y[i])
        assert_allclose(found.z[i], (post.mean - y[i]) / np.sqrt(np.diag(post.cov)))
    assert found.names == ("amplitude",)
    again = flow.check(x, y, prior=[(0.6, 1.9)], temperature=0.5)
    assert_array_equal(again.tarp, found.tarp)
    assert flow.check(x, y[:, 0], simulation=np.arange(40) // 4).simulations == 10


def test_check_takes_the_noise_of_each_map():
    x, y = draw(100, 3)
    options = {"noise": (0.1, 1.0), "noise_condition": True, "hidden": (8,), "epochs": 2}
    flow = pyflow.SymmetricFlow(x, y_train=y, box_size=8.0, n_layers=1, verbose=False, **options)
    noise = np.linspace(0.2, 0.9, 5)
    found = flow.check(x[:5], y[:5], noise=noise)
    posts = [flow.posterior(a, noise=s) for a, s in zip(x, noise, strict=False)]
    assert_allclose(found.log_posterior, [p.logp(at) for p, at in zip(posts, y, strict=False)])
    for bad in (None, noise[:2]):
        with pytest.raises(ValueError, match="noise: "):
            flow.check(x[:5], y[:5], noise=bad)


def test_check_refuses_by_name(flow):
    x, y = draw(6, 4)
    for known, match in [
        ({"x": x[0], "y": y[:1]}, "x: must have shape"),
        ({"x": x, "y": y[:5]}, r"y: must have shape \(6, 1\)"),
        ({"x": x, "y": y, "simulation": [1]}, "simulation: must have shape"),
        ({"x": x, "y": y, "noise": 1.0}, "noise: is no condition"),
        ({"x": x, "y": y, "fixed": {"nbar": 1.0}}, "fixed: 'nbar' is none"),
        ({"x": x, "y": y, "prior": [(1, 0)]}, "prior: 1.0 is not below 0.0"),
        ({"x": x * np.nan, "y": y}, "x: .* NaN"),
    ]:
        with pytest.raises(ValueError, match=match):
            flow.check(**known)
    with pytest.raises(ValueError, match="check: this flow was fitted without y"):
        pyflow.SymmetricFlow(x, epochs=0, verbose=False).check(x, y)


def log_tables(flow, x, y, b):
    """d log p(y|x) / d log b of every field, and b^2 Var(log p(x|y)): on a fine grid."""
    grid = np.linspace(*flow.y_range[0], 4001)[:, None]
    logs = np.stack([flow.evaluate_density(np.tile(a, (4001, 1, 1)), grid) for a in x])
    share = np.exp(b * (logs - logs.max(axis=1, keepdims=True)))
    share /= share.sum(axis=1, keepdims=True)
    mean = (share * logs).sum(axis=1)
    variance = (share * (logs - mean[:, None]) ** 2).sum(axis=1)
    return b * (flow.evaluate_density(x, y) - mean), b**2 * variance


def test_the_error_of_a_temperature_is_that_of_simulations(flow):
    x, y = draw(40, 5, 0.2)
    labels = np.arange(40) // 4
    found = flow.calibrate(x, y, simulation=labels).calibration
    score, information = log_tables(flow, x, y, found["best"])
    assert abs(score.sum()) < 0.05 * np.abs(score).sum()
    sums = np.bincount(labels, score)
    square = max(10 / 9 * (sums**2).sum(), information.sum())
    assert_allclose(found["error"], np.sqrt(square) / information.sum(), rtol=0.1)
    assert found["simulations"] == 10


def test_copies_do_not_determine_a_temperature_better(flow):
    x, y = draw(12, 6, 0.2)
    once = flow.calibrate(x, y).calibration
    copies = np.repeat(x, 8, axis=0), np.repeat(y, 8, axis=0)
    together = flow.calibrate(*copies).calibration
    apart = flow.calibrate(*copies, simulation=np.arange(96)).calibration
    assert together["simulations"] == 12
    assert apart["error"] < 0.5 * together["error"]
    assert together["error"] > 0.6 * once["error"]


def test_few_simulations_leave_the_temperature_near_one(flow):
    many, some = (flow.calibrate(*draw(n, 7, 0.2)) for n in (300, 12))
    for good in (many, some):
        found = good.calibration
        assert found["before"] <= found["after"]
        log_b, error = np.log(found["best"]), found["error"]
        width = max(0.3**2, log_b**2 - error**2)
        shrunk = log_b * width / (width + error**2)
        assert_allclose(np.log(good.temperature), shrunk, rtol=1e-10)
    assert many.temperature < 0.85
    assert many.calibration["error"] < 0.15
    assert some.calibration["error"] > 3 * many.calibration["error"]
    x, y = draw(1, 8)
    with pytest.warns(UserWarning, match="of 1 different y hardly|undetermined"):
        one = flow.calibrate(x, y)
    assert abs(np.log(one.temperature)) < 0.01
    with pytest.raises(ValueError, match="simulation: must have shape"):
        flow.calibrate(x, y, simulation=[1, 2])


def test_calibrations_of_older_files_are_read(flow):
    import json

    old = {"points": 5, "before": 0.25, "after": 0.5}
    core = flow._core.with_note(json.dumps(flow._note | {"calibration": old}))
    assert pyflow.Flow.from_bytes(core.to_bytes()).calibration == old
