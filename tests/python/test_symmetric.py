"""Symmetric flows of fields whose density is known, their posteriors, and what is refused."""

import copy
import inspect
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import pyflow
from pyflow import _core, fields
from pyflow.posterior import Posterior

BOX = 32.0
MESH = (32, 32)
PRIOR = np.array([[0.5, 2.0], [-2.0, -1.0]])
NAMES = ("amplitude", "slope")


def spectrum(y):
    """P(k; A, n) = A k^n at each row of y."""
    amplitude, slope = (np.asarray(y)[..., j, None, None] for j in (0, 1))
    return lambda k: amplitude * k**slope


def gaussian(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.uniform(*PRIOR.T, size=(n, 2))
    return fields.gaussian_field(spectrum(y), MESH, box_size=BOX, seed=rng), y


def exact_logp(x, y):
    return fields.gaussian_logp(x, spectrum(y), BOX)


def exact_posterior(x):
    return Posterior(lambda y: exact_logp(x, y), PRIOR)


def fit(*args, **options):
    defaults = {"n_layers": 2, "psi_knots": 4, "filter_knots": 8, "hidden": (16,), "epochs": 2}
    return pyflow.SymmetricFlow(*args, **defaults | {"verbose": False} | options)


@pytest.fixture(scope="module")
def data():
    """Training, validation and test fields, with what they are conditioned on."""
    return {
        name: gaussian(n, seed)
        for seed, (name, n) in enumerate([("train", 1000), ("validate", 300), ("test", 100)])
    }


@pytest.fixture(scope="module")
def flow(data):
    """p(x|y), float32."""
    (x, y), (x_validate, y_validate) = data["train"], data["validate"]
    return fit(
        x.astype(np.float32),
        x_validate,
        y,
        y_validate,
        hidden=(64, 64),
        epochs=40,
        box_size=BOX,
        names=NAMES,
    )


@pytest.fixture(scope="module")
def flow64(data):
    """The same in float64, hardly trained: for laws that hold whatever the flow."""
    x, y = data["train"]
    return fit(x[:100], y_train=y[:100], box_size=BOX)


@pytest.fixture(scope="module")
def oblong():
    """p(x), float64, in three dimensions with unequal sides, one of them odd, and pixels alike."""
    x = fields.gaussian_field(lambda k: 1 / k, (6, 5, 6), 40, box_size=(12.0, 10.0, 12.0), seed=3)
    return fit(x**3, box_size=(12.0, 10.0, 12.0)), x**3


# ---- truth ---------------------------------------------------------------------------------------


def test_density_is_nearly_the_exact_one(flow, data):
    x, y = data["test"]
    exact = exact_logp(x, y)
    white = stats.norm(0, data["train"][0].std()).logpdf(x).sum(axis=(1, 2))
    lost = (exact - flow.evaluate_density(x, y)).mean()
    assert lost < 0.005 * (exact - white).mean()


def test_unconditional_density_is_nearly_the_exact_one():
    y = [1.0, -1.5]
    x = fields.gaussian_field(spectrum(y), MESH, 600, box_size=BOX, seed=1)
    flow = fit(x[:400], x[400:500], box_size=BOX, epochs=10)
    exact = exact_logp(x[500:], y)
    white = stats.norm(0, x.std()).logpdf(x[500:]).sum(axis=(1, 2))
    lost = (exact - flow.evaluate_density(x[500:])).mean()
    assert lost < 0.005 * (exact - white).mean()
    assert flow.names == ()


def test_lognormal_density_is_nearly_the_exact_one():
    def power(k):
        return 2 / (1 + (2 * k) ** 2)

    x = fields.lognormal_field(power, MESH, 600, box_size=BOX, seed=1)
    flow = fit(x[:400], x[400:500], box_size=BOX, epochs=30, psi_knots=16, batch=4)
    exact = fields.lognormal_logp(x[500:], power, BOX)
    gauss = fields.gaussian_logp(x[500:], power, BOX)  # what the power spectrum alone would give
    lost = (exact - flow.evaluate_density(x[500:])).mean()
    assert lost < 0.05 * (exact - gauss).mean()


def test_posterior_is_nearly_the_exact_one(flow, data):
    shifts, widths, merits, inside = [], [], [], []
    for x, y in zip(data["test"][0][:25], data["test"][1], strict=False):
        mine, exact = flow.posterior(x, PRIOR), exact_posterior(x)
        sigma = np.sqrt(np.diag(exact.cov))
        shifts.append((mine.mean - exact.mean) / sigma)
        widths.append(np.sqrt(np.diag(mine.cov)) / sigma)
        merits.append(mine.figure_of_merit(0.68) / exact.figure_of_merit(0.68))
        inside.append(mine.credibility(y) < 0.68)
    # A thousand maps of 32 x 32 leave each map's posterior shifted by a fraction of its width.
    assert np.all(np.sqrt(np.mean(np.square(shifts), axis=0)) < 0.5)
    assert np.all(np.abs(np.mean(shifts, axis=0)) < 0.2)
    assert_allclose(np.mean(widths, axis=0), 1, atol=0.1)
    assert abs(np.mean(merits) - 1) < 0.1
    assert 0.4 < np.mean(inside) < 0.9  # 0.68 +- 3 standard errors


def test_several_fields_of_one_condition_say_more(flow):
    y = [1.0, -1.5]
    x = fields.gaussian_field(spectrum(y), MESH, 4, box_size=BOX, seed=8)
    together, one = flow.posterior(x, PRIOR), flow.posterior(x[0], PRIOR)
    assert_allclose(np.diag(one.cov) / np.diag(together.cov), 4, rtol=0.6)
    points = np.array([[0.9, -1.4], [1.2, -1.7]])
    sums = [flow.evaluate_density(x, point).sum() for point in points]
    assert_allclose(np.diff(together.logp(points)), np.diff(sums), atol=0.05)


def test_temperature_and_callable_prior(flow, data):
    x = data["test"][0][np.argmin(np.abs(data["test"][1] - [1.2, -1.5]).sum(axis=1))]
    cold, warm = flow.posterior(x, PRIOR), flow.posterior(x, PRIOR, temperature=0.25)
    assert np.all(np.diag(warm.cov) > 1.5 * np.diag(cold.cov))
    flat = flow.posterior(x, lambda y: np.zeros(len(y)), bounds=PRIOR)
    assert_allclose(flat.mean, cold.mean)
    centre, sigma = np.array([1.0, -1.5]), 1e-3
    narrow = flow.posterior(x, lambda y: -0.5 * (((y - centre) / sigma) ** 2).sum(axis=1))
    assert_allclose(narrow.mean, centre, atol=sigma)
    assert_allclose(np.sqrt(np.diag(narrow.cov)), sigma, rtol=0.1)


def test_posterior_beside_the_edge_of_its_prior(flow, data):
    x = data["test"][0][0]
    free = flow.posterior(x, PRIOR)
    prior = PRIOR.copy()
    prior[0, 1] = free.mean[0]  # cuts the posterior in half
    half = flow.posterior(x, prior)
    assert abs(half.log_evidence - free.log_evidence - np.log(0.5)) < 0.2
    assert half.sample(1000, seed=0)[:, 0].max() <= prior[0, 1]
    assert half.logp([free.mean[0] + 1e-6, free.mean[1]]) == -np.inf


def test_samples_have_the_power_spectrum(flow):
    y = np.array([1.4, -1.7])
    x, logp = flow.sample(400, y, seed=2)
    _, power, modes = fields.power_spectrum(x, BOX)
    expected = fields.power_spectrum(
        fields.gaussian_field(spectrum(y), MESH, 4000, box_size=BOX, seed=7), BOX
    )[1].mean(axis=0)
    error = np.sqrt(2 / modes / len(x) + 2 / modes / 4000)
    assert_allclose(power.mean(axis=0) / expected, 1, atol=4 * error.max() + 0.06)
    assert_allclose(flow.evaluate_density(x, y), logp, rtol=1e-4)


def test_latents_are_white_and_normal(flow, data):
    x, y = data["test"]
    z, _ = flow.forward(x, y)
    _, power, _ = fields.power_spectrum(z, BOX)
    assert_allclose(power.mean(axis=0) / (BOX**2 / z[0].size), 1, atol=0.08)
    assert stats.kstest(z[::10].ravel().astype(float), "norm").statistic < 0.02


def test_calibration_leaves_a_good_flow_nearly_alone(data):
    x, y = data["validate"]
    flow = fit(*data["train"][:1], y_train=data["train"][1], box_size=BOX, epochs=15)
    good = flow.calibrate(x, y)
    assert 0.6 < good.temperature < 1.3
    assert flow.temperature == 1
    assert_array_equal(good.evaluate_density(x, y), flow.evaluate_density(x, y))
    wide, narrow = good.posterior(x[0], temperature=1), good.posterior(x[0])
    assert (narrow.cov[0, 0] > wide.cov[0, 0]) == (good.temperature < 1)
    assert pickle.loads(pickle.dumps(good)).temperature == good.temperature
    assert "temperature" in repr(good)
    assert "temperature" not in repr(flow)


def test_calibration_says_what_it_gained():
    (x, y), (held, at) = scaled_noise(300, 1, 0.3), scaled_noise(100, 2, 0.3)
    flow = fit(x, y_train=y, n_layers=1, filter_knots=6, epochs=10)
    good = flow.calibrate(held, at)
    assert flow.calibration is None
    for b, gain in ((1.0, "before"), (None, "after")):
        posts = [flow.posterior(a, temperature=b or good.temperature) for a in held]
        log_z = [post.log_evidence - np.log(np.ptp(flow.y_range)) for post in posts]
        logp = (b or good.temperature) * flow.evaluate_density(held, at) - log_z
        assert_allclose(good.calibration[gain], logp.mean(), atol=0.02)
    assert good.calibration["points"] == 100
    assert pickle.loads(pickle.dumps(good)).calibration == good.calibration
    assert f"{good.calibration['after']:.3f} nats, 100 points" in repr(good)


def test_a_temperature_that_is_not_determined_is_warned_of():
    x, y = scaled_noise(300, 1, 0.0)
    flow = fit(x, y_train=y, n_layers=1, filter_knots=6, epochs=10)
    some = np.linspace(-0.99, 0.99, 5001)
    order = np.argsort(flow.posterior(x[0]).logp(some[:, None]))
    for at in some[order[[0, -1]]]:  # the truth is where the posterior is lowest, or highest
        with pytest.warns(UserWarning, match="x: 1 points .* at an end of its range") as caught:
            flow.calibrate(x[:1], [at])
        assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="x: 100 points of 5 different y hardly determine"):
        flow.calibrate(x[:100], np.round(2 * y[:100]) / 2.1)
    with pytest.warns(UserWarning, match="data_validate: 3 points .* temperature") as caught:
        fit(x[3:], x[:3], y[3:], y[:3], n_layers=1, filter_knots=6, calibrate=True)
    assert caught[0].filename == fit.__code__.co_filename


EXAMPLE = Path(__file__).parents[2] / "examples" / "known_fields.py"


def scaled_noise(n, seed, scatter):
    """White noise of standard deviation exp(y / 2), times a factor of its own for every field."""
    rng = np.random.default_rng(seed)
    y = rng.uniform(-1, 1, size=(n, 1))
    factor = np.exp(0.5 * y + scatter * rng.normal(size=(n, 1)))
    return factor[:, :, None] * rng.normal(size=(n, 8, 8)), y


@pytest.mark.parametrize("scatter", [0.0, 0.3])
def test_objectives_and_calibration(scatter):
    """Without scatter all agree on the exact posterior. No symmetric flow has such a factor, which
    is the same everywhere in a field: its likelihood is wrong then, and its posterior too narrow.
    """
    (x, y), (x_val, y_val) = (scaled_noise(600, 1, scatter), scaled_noise(300, 2, scatter))
    x_test, y_test = scaled_noise(200, 3, scatter)
    options = {"n_layers": 1, "filter_knots": 6, "epochs": 20}
    tuning = {"posterior_epochs": 20, "posterior_rate": 1e-2, "posterior_draws": 20}
    logp, held = {}, {}
    for name, more in {
        "likelihood": {},
        "posterior": {"objective": "posterior", **tuning},
        "calibrated": {"calibrate": True},
    }.items():
        flow = fit(x, x_val, y, y_val, **options, **more)
        posts = [flow.posterior(a, [(-1, 1)]) for a in x_test]
        logp[name] = np.mean([p.logp(b) for p, b in zip(posts, y_test, strict=True)])
        levels = np.array([p.credibility(b) for p, b in zip(posts, y_test, strict=True)])
        held[name] = np.mean(levels < 0.68), np.mean(levels < 0.95)
    if scatter == 0:
        square = (x_test**2).sum(axis=(1, 2))

        def exact(y, i):
            return -0.5 * (square[i] * np.exp(-y[:, 0]) + 64 * y[:, 0])

        best = [
            Posterior(lambda y, i=i: exact(y, i), [(-1, 1)]).logp(b) for i, b in enumerate(y_test)
        ]
        assert_allclose(list(logp.values()), np.mean(best), atol=0.06)
    else:
        assert held["likelihood"][0] < 0.4
        assert logp["posterior"] > logp["likelihood"] + 1.5
        assert logp["calibrated"] > logp["likelihood"] + 1.5
    for name in ("posterior", "calibrated"):
        assert_allclose(held[name], (0.68, 0.95), atol=0.1)


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the examples are not here")
def test_example_prints_its_table():
    command = [sys.executable, "-W", "error", EXAMPLE, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [
        line for line in done.stdout.splitlines() if re.match(r" *(gauss|lognor|redshift)", line)
    ]
    lost = [float(line.split("%")[0].split()[-1]) for line in rows]
    assert len(lost) == 6
    assert max(lost) < 1  # per cent


# ---- laws ----------------------------------------------------------------------------------------

MOVES = {
    "shift": lambda x: np.roll(x, (3, 5), axis=(-2, -1)),
    "flip": lambda x: np.flip(x, axis=-1),
    "turn": lambda x: np.rot90(x, axes=(-2, -1)),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_symmetry(flow64, data, move):
    x, y = data["test"]
    z, logj = flow64.forward(x[:5], y[:5])
    moved, moved_logj = flow64.forward(move(x[:5]), y[:5])
    assert_allclose(moved, move(z), atol=1e-11)
    assert_allclose(moved_logj, logj, rtol=1e-11)
    assert_allclose(
        flow64.evaluate_density(move(x[:5]), y[:5]), flow64.evaluate_density(x[:5], y[:5])
    )


def test_symmetry_in_three_dimensions(oblong):
    flow, x = oblong
    logp = flow.evaluate_density(x)
    for moved in (
        np.roll(x, (1, 2, 3), axis=(1, 2, 3)),
        np.flip(x, axis=2),
        np.swapaxes(x, 1, 3),  # sides of the same length
    ):
        assert_allclose(flow.evaluate_density(moved), logp, rtol=1e-11)


def test_there_and_back(flow, flow64, oblong, data):
    x, y = data["test"]
    for model, tolerance in ((flow64, 1e-9), (flow, 2e-3)):
        z, logj = model.forward(x, y)
        assert z.dtype == model.dtype
        back, minus_logj = model.inverse(z, y)
        assert_allclose(back, x, atol=tolerance)
        assert_allclose(minus_logj, -logj, atol=1000 * tolerance)
        normal = stats.norm.logpdf(z.astype(float)).sum(axis=(1, 2))
        assert_allclose(model.evaluate_density(x, y), normal + logj, rtol=1e-5)
    model, x = oblong
    assert_allclose(model.inverse(model.forward(x)[0])[0], x, atol=1e-9)


def test_jacobian_in_three_dimensions(oblong):
    flow, x = oblong
    step, n = 1e-5, x[0].size
    moves = step * np.eye(n).reshape(n, *x[0].shape)
    up, down = flow.forward(x[0] + moves)[0], flow.forward(x[0] - moves)[0]
    _, logdet = np.linalg.slogdet((up - down).reshape(n, n) / (2 * step))
    assert_allclose(flow.forward(x[0])[1], logdet, rtol=1e-5)


def test_score_is_the_gradient(flow64, data):
    x, y = data["test"][0][0], data["test"][1][0]
    score, logp = flow64.score(x, y, with_logp=True)
    assert_allclose(logp, flow64.evaluate_density(x, y))
    rng = np.random.default_rng(0)
    for _ in range(5):
        step = 1e-5 * (score / score.std() + rng.normal(size=x.shape))
        slope = flow64.evaluate_density(x + step, y) - flow64.evaluate_density(x - step, y)
        assert_allclose((score * step).sum() * 2, slope, rtol=1e-3)


def test_score_of_parameters_is_the_gradient(flow64, data):
    x, y = data["test"][0][0], np.array([1.1, -1.4])
    score, logp = flow64.score_parameters(x, y, with_logp=True)
    assert_allclose(logp, flow64.evaluate_density(x, y))
    for j, step in enumerate(1e-5 * np.eye(2)):
        slope = flow64.evaluate_density(x, y + step) - flow64.evaluate_density(x, y - step)
        assert_allclose(score[j], slope / 2e-5, rtol=1e-4)


def test_fisher_information_is_saturated(flow):
    # <s s^T> of the exact score: 1/2 sum_k (d log P / dy)(d log P / dy)^T
    y = np.array([1.2, -1.5])
    x = fields.gaussian_field(spectrum(y), MESH, 400, box_size=BOX, seed=9)
    score = flow.score_parameters(x, y)
    k, modes = fields.wavenumbers(MESH, BOX)
    slope = np.log(np.where(k > 0, k, k[k > 0].min()))
    gradient = np.stack([np.full(k.shape, 1 / y[0]), slope])
    exact = 0.5 * np.einsum("aij,bij,ij->ab", gradient, gradient, modes)
    mine = score.T @ score / len(score)
    assert_allclose(np.linalg.det(mine) / np.linalg.det(exact), 1, atol=0.35)


# ---- arrays, seeds, threads, files ---------------------------------------------------------------


def test_one_field_and_many(flow, data):
    x, y = data["test"]
    for name in ("evaluate_density", "forward", "inverse", "score", "score_parameters"):
        many, one = getattr(flow, name)(x[:3], y[:3]), getattr(flow, name)(x[1], y[1])
        if not isinstance(many, tuple):
            many, one = (many,), (one,)
        for rows, row in zip(many, one, strict=True):
            assert np.shape(row) == rows.shape[1:]
            assert_array_equal(row, rows[1])
    assert flow.evaluate_density(x[:0], y[:0]).shape == (0,)
    assert flow.sample(0, y[0])[0].shape == (0, *MESH)
    assert_array_equal(
        flow.evaluate_density(x[:3], y[0]), flow.evaluate_density(x[:3], np.tile(y[0], (3, 1)))
    )


def test_kinds_of_arrays(flow64, data):
    x, y = data["test"][0][:4], data["test"][1][:4]
    expected = flow64.evaluate_density(x, y)
    assert_array_equal(flow64.evaluate_density(x.tolist(), y.tolist()), expected)
    assert_array_equal(flow64.evaluate_density(np.asfortranarray(x), y), expected)
    assert_array_equal(flow64.evaluate_density(np.repeat(x, 2, axis=0)[::2], y), expected)
    assert_array_equal(
        flow64.evaluate_density(x.byteswap().view(x.dtype.newbyteorder()), y), expected
    )
    before = x.copy()
    flow64.score(x, y)
    assert_array_equal(x, before)


def test_one_condition_may_be_a_vector():
    y = np.linspace(0.5, 2, 60)
    x = fields.gaussian_field(lambda k: y[:, None, None] / k, (8, 8), seed=1)
    flow = fit(x, y_train=y)
    assert flow == fit(x, y_train=y[:, None])
    expected = flow.evaluate_density(x, y[:, None])
    assert_array_equal(flow.evaluate_density(x, y), expected)
    assert_array_equal(flow.evaluate_density(x, 1.0), flow.evaluate_density(x, [1.0]))
    assert flow.posterior(x[30]).mean.shape == (1,)


def test_three_conditions():
    rng = np.random.default_rng(0)
    y = rng.uniform(0, 1, (200, 3))
    mean, scale = 3 * y[:, 0, None, None], 0.5 + y[:, 1, None, None]
    x = mean + scale * rng.normal(size=(200, 8, 8))
    flow = fit(x, y_train=y, epochs=40, hidden=(32,))
    post = flow.posterior(x[0])
    assert post.cov.shape == (3, 3)
    assert abs(post.mean[0] - y[0, 0]) < 0.3
    assert post.cov[2, 2] > 0.04  # nothing is known of the third: 1 / 12
    four = fit(x, y_train=np.column_stack([y, y[:, 0] ** 2]), epochs=0)
    with pytest.raises(ValueError, match="method: a grid serves 1 to 3 parameters, not 4"):
        four.posterior(x[0], method="grid")


def test_seeds(flow, data):
    y = data["test"][1][:5]
    x, _ = flow.sample(5, y, seed=7)
    assert_array_equal(flow.sample(3, y[:3], seed=7)[0], x[:3])
    assert not np.any(flow.sample(5, y, seed=8)[0] == x)
    z = flow.forward(x, y)[0]
    other = flow.forward(*[flow.sample(5, y[::-1], seed=7)[0], y[::-1]])[0]
    assert_allclose(z, other, atol=5e-3)  # the same latents in other worlds
    train = data["train"][0][:60]
    assert fit(train, seed=1) == fit(train, seed=1)
    assert fit(train, seed=1) != fit(train, seed=2)


def test_threads_do_not_matter(data):
    (x, y), test = data["train"], data["test"]
    results = []
    for n in (1, 3):
        pyflow.set_num_threads(n)
        try:
            flow = fit(
                x[:100],
                test[0],
                y[:100],
                test[1],
                objective=0.5,
                posterior_epochs=1,
                box_size=BOX,
            )
            results.append((flow.to_bytes(), flow.score(*test), flow.sample(9, y[0], seed=1)[0]))
        finally:
            pyflow.set_num_threads(None)
    for one, three in zip(*results, strict=True):
        assert_array_equal(one, three)


def test_many_python_threads_at_once(flow, data):
    x, y = data["test"]
    expected, found = flow.evaluate_density(x, y), []
    threads = [
        threading.Thread(target=lambda: found.append(flow.evaluate_density(x, y))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for logp in found:
        assert_array_equal(logp, expected)
    assert len(found) == 4


def test_files_pickles_and_copies(flow, flow64, oblong, tmp_path):
    for one in (flow, flow64, oblong[0]):
        one.save(tmp_path / "flow.pf")
        for again in (
            pyflow.load(tmp_path / "flow.pf"),
            pickle.loads(pickle.dumps(one)),
            copy.deepcopy(one),
            pyflow.Flow.from_bytes(one.to_bytes()),
        ):
            assert again == one
            assert hash(again) == hash(one)
            assert again.names == one.names
            assert repr(again) == repr(one)
            assert_array_equal(again.history["logp_train"], one.history["logp_train"])
    assert pickle.loads(pickle.dumps(flow._core)).to_bytes() == flow.to_bytes()
    assert flow != flow64
    assert flow != "flow"
    damaged = bytearray(flow.to_bytes())
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(pyflow.FileError):
        pyflow.Flow.from_bytes(damaged)
    with pytest.raises(pyflow.FileError):
        pyflow.Flow.from_bytes(flow.to_bytes()[:-9])


def standard_normal(y):
    return -0.5 * (y**2).sum(axis=1)


def test_posteriors_are_pickled(flow, data):
    x, points = data["test"][0][0], data["test"][1][:20]
    noisy = fit(X, y_train=Y, noise=(0.1, 0.2), noise_condition=True, epochs=0)
    for post, y in (
        (flow.posterior(x, PRIOR), points),
        (flow.posterior(x, standard_normal, bounds=PRIOR), points),
        (noisy.posterior(X[0], noise=0.15), Y[:, None]),
        (Posterior(standard_normal, [(-9, 9)] * 4), np.ones((1, 4))),
    ):
        again = pickle.loads(pickle.dumps(post))
        assert_array_equal(again.mean, post.mean)
        assert_array_equal(again.cov, post.cov)
        assert_array_equal(again.logp(y), post.logp(y))
        assert_array_equal(again.sample(9, seed=1), post.sample(9, seed=1))
        assert again.names == post.names
        assert again.volume() == post.volume()
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(flow.posterior(x, lambda y: standard_normal(y), bounds=PRIOR))


def test_what_a_flow_says_of_itself(flow, oblong):
    text = repr(flow)
    for part in ("shape=(32, 32)", "amplitude", "slope", "float32", str(flow.n_parameters)):
        assert part in text
    assert flow.box_size == (BOX, BOX)
    assert flow.layers == ("scale", "symmetric", "symmetric")
    assert_allclose(flow.y_range, PRIOR, atol=0.02)
    assert oblong[0].n_parameters == 2 * (3 * 4 + 2 * 8)
    assert oblong[0].shape == (6, 5, 6)
    logp = flow.history["logp_validate"]
    assert len(logp) == 40
    assert logp.max() > logp[0]
    with pytest.raises(AttributeError):
        flow.shape = (1, 2)


def test_default_flow_has_the_published_size():
    x = np.random.default_rng(0).normal(size=(4, 8, 8))
    assert pyflow.SymmetricFlow(x, epochs=0, verbose=False).n_parameters == 1400


OPTIONS = sorted(
    set(_core.options("symmetric"))
    - {"seed", "hidden", "noise", "noise_condition", "posterior_weight"}
)


def test_options_are_the_core_s():
    own = inspect.signature(pyflow.SymmetricFlow).parameters
    assert set(OPTIONS) <= set(own)
    assert all(own[name].default is None for name in OPTIONS)


# ---- training ------------------------------------------------------------------------------------


def test_progress(data, capsys):
    seen = []
    x, y = data["train"]
    flow = fit(
        x[:64],
        x[64:96],
        y[:64],
        y[64:96],
        epochs=3,
        objective="posterior",
        posterior_epochs=2,
        progress=seen.append,
        box_size=BOX,
    )
    assert [p.step for p in seen] == [0, 1, 2, 3, 3, 4, 5]  # each stage begins by looking
    assert len(flow.history["logp_train"]) == 5
    per_pixel = flow.evaluate_density(x[64:96], y[64:96]).mean() / x[0].size
    best = max(seen[4:], key=lambda p: p.objective)
    assert np.isclose(per_pixel, best.logp_validate)
    assert [p.best for p in seen[4:]] == sorted(p.best for p in seen[4:])
    for p in seen[:4]:
        assert p.objective == p.logp_validate
    log_z = [flow.posterior(a).log_evidence for a in x[64:96]]
    log_z -= np.log(np.ptp(flow.y_range, axis=1)).sum()
    gain = flow.evaluate_density(x[64:96], y[64:96]) - log_z  # log p(y|x) / prior, of each field
    assert abs(gain.mean() - best.objective) < 0.1
    assert capsys.readouterr().err == ""
    fit(x[:64], epochs=2, verbose=True)
    said = capsys.readouterr().err
    assert "SymmetricFlow" in said
    assert re.search(r"log p -?\d+\.\d+, best at 2", said)
    assert "log p(y|x)" not in said
    fit(x[:20], y_train=y[:20], objective=1.0, posterior_epochs=1, verbose=True)
    assert re.search(r", log p\(y\|x\) \S+, best at", capsys.readouterr().err)


def test_draws_that_stand_for_the_prior_grow_with_the_parameters():
    rng = np.random.default_rng(0)
    y = rng.uniform(0, 1, (24, 3))
    x = y[:, :1, None] + rng.normal(size=(24, 4, 4))
    tuned = {"epochs": 1, "objective": "posterior", "posterior_epochs": 1}
    for p, draws in ((2, 127), (3, 383)):
        flows = [fit(x, y_train=y[:, :p], **tuned, posterior_draws=n) for n in (None, draws, 50)]
        default, same, other = [flow.evaluate_density(x, y[:, :p]) for flow in flows]
        assert_array_equal(default, same)
        assert not np.array_equal(default, other)
    with pytest.raises(ValueError, match="posterior_draws: must be between 10 and 65535"):
        fit(x, y_train=y, **tuned, posterior_draws=1 << 40)


def test_a_batch_is_no_larger_than_the_data():
    flows = [fit(X, batch=batch) for batch in (len(X), 1 << 50)]
    assert_array_equal(*[flow.evaluate_density(X) for flow in flows])


def test_patience_stops_early(data):
    x = data["train"][0]
    flow = fit(x[:20], x[20:60], epochs=300, patience=3, learning_rate=0.05, box_size=BOX)
    logp = flow.history["logp_validate"]
    assert len(logp) < 300
    assert_allclose(flow.evaluate_density(x[20:60]).mean() / x[0].size, logp.max(), atol=1e-5)


def test_exceptions_from_progress_stop_the_fit_and_nothing_is_lost(data):
    def stop(p):
        if p.step == 2:
            raise RuntimeError("enough")

    x = data["train"][0]
    with pytest.raises(RuntimeError, match="enough") as caught:
        fit(x[:50], epochs=50, progress=stop)
    assert isinstance(caught.value.flow, pyflow.Flow)
    assert len(caught.value.flow.history["logp_train"]) == 2
    assert np.isfinite(caught.value.flow.evaluate_density(x[:3])).all()


INTERRUPTED = """
import signal, sys, time
import numpy as np, pyflow
x = np.random.default_rng(0).normal(size=(400, 64, 64))
ready = lambda p: print("ready", flush=True) if p.step == 1 else None
try:
    pyflow.SymmetricFlow(x, epochs=100000, verbose=False, progress=ready)
except KeyboardInterrupt as error:
    print("stopped", error.flow.shape, flush=True)
"""


def test_ctrl_c_stops_the_fit_at_once():
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopped (64, 64)\n"
        assert time.monotonic() - start < 5  # a second, on a machine that is not busy
        assert process.wait(20) == 0


def test_nan_in_training_keeps_the_last_good_flow(data):
    x, y = data["train"][0][:40].astype(np.float32), data["train"][1][:40]
    with pytest.warns(RuntimeWarning, match="last good flow") as caught:
        flow = fit(x, y_train=y, epochs=20, learning_rate=1e3, clip=0.0, box_size=BOX)
    assert caught[0].filename == fit.__code__.co_filename
    assert np.isfinite(flow.evaluate_density(x, y)).all()


def test_noise_is_learned(data):
    x, y = data["train"]
    quiet = fit(x[:300], y_train=y[:300], box_size=BOX, epochs=5)
    noisy = fit(x[:300], y_train=y[:300], box_size=BOX, epochs=5, noise=0.7)
    test, at = data["test"]
    added = test + 0.7 * np.random.default_rng(1).normal(size=test.shape)
    exact = fields.gaussian_logp(added, lambda k: spectrum(at)(k) + 0.7**2, BOX)
    assert noisy.evaluate_density(added, at).mean() > quiet.evaluate_density(added, at).mean()
    assert abs(noisy.evaluate_density(added, at).mean() - exact.mean()) < 10


def test_noise_of_a_given_spectrum_is_learned(data):
    x, y = data["train"]
    (test, at), rng = data["test"], np.random.default_rng(1)

    def noise(k):
        return 3 * np.exp(-((k / 2) ** 2)) + 0.1

    flow = fit(x[:300], y_train=y[:300], box_size=BOX, epochs=20, noise=noise)
    for power, reached in ((noise, True), (2 * 0.5**2, False)):  # the right noise, and a white one
        added = test + fields.gaussian_field(power, MESH, len(test), box_size=BOX, seed=rng)
        at_k = power if callable(power) else lambda k, power=power: power
        exact = fields.gaussian_logp(added, lambda k, p=at_k: spectrum(at)(k) + p(k), BOX)
        lost = (exact - flow.evaluate_density(added, at)).mean()
        assert (lost < 10) == reached, lost
    with pytest.raises(ValueError, match="noise: its power must be positive"):
        fit(x[:9], noise=lambda k: k - 1, box_size=BOX)
    with pytest.raises(ValueError, match="noise: gave shape"):
        fit(x[:9], noise=lambda k: np.ones(3))


def test_calibration_adds_the_noise_of_training(data):
    (x, y), (test, at) = data["train"], data["validate"]
    options = {"y_train": y[:500], "box_size": BOX, "epochs": 30, "filter_knots": 8}
    for noise in ({"noise": 2.0}, {"noise": (1.9, 2.1), "noise_condition": True}):
        flow = fit(x[:500], **options, **noise).calibrate(test, at)
        assert 0.75 < flow.temperature < 1.3
    with pytest.raises(ValueError, match=r"y: must have shape \(300, 2\)"):
        flow.calibrate(test, at[:, :1])


def test_noise_as_a_condition(data):
    x, y = data["train"]
    flow = fit(
        x[:300],
        y_train=y[:300],
        box_size=BOX,
        names=NAMES,
        noise=(0.1, 1.0),
        noise_condition=True,
        epochs=10,
    )
    assert flow.names == (*NAMES, "noise")
    test, at = data["test"]
    added = test + np.random.default_rng(1).normal(size=test.shape)
    sigmas = np.array([0.2, 0.5, 1.0])
    for maps, best in ((test, 0.2), (added, 1.0)):
        logp = [
            flow.evaluate_density(maps, np.column_stack([at, np.full(len(at), sigma)])).mean()
            for sigma in sigmas
        ]
        assert sigmas[np.argmax(logp)] == best

    def exact(x):  # white noise of unit variance has P(k) = 1 in this box
        def logp(y):
            return fields.gaussian_logp(x, lambda k: spectrum(y)(k) + 1, BOX)

        return Posterior(logp, PRIOR)

    truth = [exact(x) for x in added[:10]]
    for sigma, reached in ((1.0, True), (0.2, False)):  # the right one, and another
        mine = [flow.posterior(x, PRIOR, noise=sigma) for x in added[:10]]
        shift = [
            (a.mean - b.mean) / np.sqrt(np.diag(b.cov)) for a, b in zip(mine, truth, strict=True)
        ]
        assert (np.sqrt(np.mean(np.square(shift))) < 1) == reached
    assert mine[0].names == NAMES
    with pytest.raises(ValueError, match="noise: this flow needs"):
        flow.posterior(test[0])
    with pytest.warns(UserWarning, match="noise = 3 lies outside"):
        flow.posterior(test[0], noise=3.0)


# ---- what is refused -----------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(20, 8, 8))
Y = np.linspace(0, 1, 20)
HOLE = X.copy()
HOLE[3, 2, 1] = np.nan

REFUSED = {
    "a field": ((X[0],), {}, r"data_train: .*a single field is x\[None\]"),
    "one axis": ((X[0, 0],), {}, "data_train: must have shape"),
    "empty": ((X[:0],), {}, "data_train: is empty"),
    "complex": ((X + 1j,), {}, "data_train: must hold real numbers"),
    "words": ((np.full((2, 2, 2), "a"),), {}, "data_train: must hold real numbers"),
    "nan": ((HOLE,), {}, "data_train: field 3 has pixels that are NaN or infinite"),
    "nan to validate": ((X, HOLE), {}, "data_validate: field 3"),
    "other mesh": ((X, X[:, :4]), {}, "data_validate: its fields have shape"),
    "constant": ((np.ones((5, 8, 8)),), {}, "data_train: the fields are constant"),
    "y rows": ((X,), {"y_train": Y[:5]}, "y_train: must have shape"),
    "y nan": ((X,), {"y_train": np.where(Y > 0.5, np.nan, Y)}, "y_train: is NaN"),
    "y constant": ((X,), {"y_train": np.ones(20)}, "y_train: column 0 is constant"),
    "y complex": ((X,), {"y_train": Y + 1j}, "y_train: must hold real"),
    "y to validate": ((X, X), {"y_train": Y}, "y_validate: is missing"),
    "y only to validate": ((X, X), {"y_validate": Y}, "y_train: is missing"),
    "no data to validate": ((X,), {"y_train": Y, "y_validate": Y}, "data_validate: is missing"),
    "y widths": (
        (X, X),
        {"y_train": Y, "y_validate": np.column_stack([Y, Y])},
        r"y_validate: must have shape \(20, 1\); its shape is \(20, 2\)",
    ),
    "no box": ((X,), {"box_size": 0}, "box_size: must be positive"),
    "negative box": ((X,), {"box_size": (1, -1)}, "box_size: must be positive"),
    "nan box": ((X,), {"box_size": np.nan}, "box_size: must be positive"),
    "box axes": ((X,), {"box_size": (1, 1, 1)}, "box_size: must be a number or 2"),
    "no axes": ((X,), {"box_size": ()}, "box_size: must be a number or 2"),
    "huge box": ((X,), {"box_size": 1e300}, "box_size: must be between"),
    "tiny box": ((X,), {"box_size": (1, 1e-200)}, "box_size: must be between"),
    "names": ((X,), {"names": ["a"]}, "names: 1 names for 0 conditions"),
    "names alike": (
        (X,),
        {"y_train": np.stack([Y, Y**2], 1), "names": ["a"] * 2},
        "names: must differ",
    ),
    "noise": ((X,), {"noise": -1}, "noise: must be a standard deviation"),
    "noise range": ((X,), {"noise": (2, 1)}, "noise: must be a standard deviation"),
    "noise condition": ((X,), {"noise": 1, "noise_condition": True}, "noise_condition: noise"),
    "hidden": ((X,), {"hidden": []}, "hidden: must be 1 to 6 layers"),
    "posterior": ((X,), {"objective": 0.5}, "objective: there is no y_train"),
    "weight": ((X,), {"y_train": Y, "objective": 2}, "objective: the posterior's weight"),
    "calibrate": ((X,), {"y_train": Y, "calibrate": True}, "calibrate: needs data_validate"),
    "warmup": ((X,), {"warmup": 1.0}, "warmup: must be at least 0 and less than 1"),
    "seed": ((X,), {"seed": -1}, "seed: must be between"),
}


@pytest.mark.parametrize(("args", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_fits_are_refused_by_name(args, options, message):
    with pytest.raises(ValueError, match=message):
        fit(*args, **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("box_size", box) for box in ("10", b"10", True, 1j, None, {}, [(1, 1), 1], ("1", 1))],
        *[("names", names) for names in (5, [5], ["a", None], b"a")],
        *[("noise", lambda k, power=power: power) for power in ("loud", 1j, None, [True])],
        *[("noise", noise) for noise in ("loud", 1j, [1, "loud"])],
    ],
)
def test_arguments_of_other_types_are_refused_by_name(name, value):
    with pytest.raises(TypeError, match=f"^{name}: must "):
        fit(X, y_train=Y, **{name: value})


def test_a_noise_that_fails_is_named():
    with pytest.raises(ValueError, match=r"^noise: .*ZeroDivisionError") as caught:
        fit(X, noise=lambda k: 1 / 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_options_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        fit(X, y_train=Y, **{name: -1})
    with pytest.raises(TypeError, match=f"^{name}: "):
        fit(X, y_train=Y, **{name: "many"})


def test_a_single_training_field_is_warned_of():
    with pytest.warns(UserWarning, match="data_train: holds a single field"):
        flow = fit(X[:1])
    assert np.isfinite(flow.evaluate_density(X)).all()


def test_discrete_fields_are_warned_of():
    rng = np.random.default_rng(0)
    counts, smooth = rng.poisson(20, (40, 16, 16)), rng.normal(size=(40, 16, 16))
    many = rng.normal(size=(5, 128, 128)).astype(np.float32)
    for x in (counts, np.maximum(smooth, -1), np.round(many, 1)):
        with pytest.warns(UserWarning, match="data_train: has .* different values") as caught:
            fit(x, epochs=0)
        assert caught[0].filename == fit.__code__.co_filename
        fit(x, epochs=0, noise=0.5)
    for x in (many, np.repeat(X[:3], 2, axis=0), X[:2, :1, :2]):
        pyflow.symmetric._warn_discrete(x)


def test_bad_fields_and_conditions_are_refused(flow, oblong, data):
    x, y = data["test"][0][:3], data["test"][1][:3]
    for bad, message in (
        (x[:, :5], r"x: must have shape \(n, 32, 32\)"),
        (x[0, 0], "x: must have shape"),
        (x + 1j, "x: must hold real numbers"),
        (np.where(x == x[1, 0, 0], np.nan, x), "x: field 1"),
    ):
        for method in (flow.evaluate_density, flow.forward, flow.score, flow.score_parameters):
            with pytest.raises(ValueError, match=message):
                method(bad, y)
        if bad.shape == x.shape:
            with pytest.raises(ValueError, match=message):
                flow.posterior(bad, PRIOR)
    with pytest.raises(ValueError, match="z: must have shape"):
        flow.inverse(x[:, :5], y)
    for bad, message in (
        (None, "y: this flow is conditional; it needs amplitude, slope"),
        (y[:, :1], "y: must have shape"),
        (y[:2], "y: must have shape"),
        (np.full_like(y, np.nan), "y: is NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            flow.evaluate_density(x, bad)
        with pytest.raises(ValueError, match=message):
            flow.sample(3, bad)
    for call in (
        lambda: oblong[0].evaluate_density(oblong[1], [1.0]),
        lambda: oblong[0].score_parameters(oblong[1], [1.0]),
        lambda: oblong[0].calibrate(oblong[1], [1.0]),
        lambda: oblong[0].posterior(oblong[1]),
    ):
        with pytest.raises(ValueError, match="without"):
            call()


def test_conditions_outside_the_training_range_are_warned_of(flow, data):
    x = data["test"][0][0]
    for call in (
        lambda: flow.evaluate_density(x, [3.0, -1.5]),
        lambda: flow.sample(1, [3.0, -1.5]),
        lambda: flow.score_parameters(x, [3.0, -1.5]),
    ):
        with pytest.warns(UserWarning, match="y: amplitude = 3 lies outside") as caught:
            call()
        assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="prior: slope = -3 to -1 lies outside") as caught:
        flow.posterior(x, [(0.5, 2.0), (-3.0, -1.0)])
    assert caught[0].filename == __file__
    for slope in ((-0.9, -0.5), (-3.0, -2.5)):
        with pytest.warns(UserWarning, match="prior: slope = .* lies wholly outside"):
            flow.posterior(x, [(0.5, 2.0), slope])


def test_validation_conditions_outside_the_training_range_are_warned_of():
    with pytest.warns(UserWarning, match="y_validate: depth = 0 to 1 lies outside .* 0 to 0.47"):
        fit(X[:10], X[10:], Y[:10], np.linspace(0, 1, 10), names="depth", epochs=0)


def test_bad_posteriors_are_refused(flow, data):
    x = data["test"][0][0]
    for options, message in (
        ({"prior": [(0.5, 2.0)]}, r"prior: must have shape \(2, 2\)"),
        ({"prior": [(2.0, 0.5), (-2, -1)]}, "prior: 2.0 is not below 0.5"),
        ({"prior": [(0.5, np.inf), (-2, -1)]}, "prior: must be finite"),
        ({"prior": PRIOR, "bounds": PRIOR}, "bounds: are for a callable prior"),
        ({"prior": lambda y: y, "bounds": PRIOR}, "prior: gave shape"),
        ({"prior": lambda y: np.nan * y[:, 0]}, "prior: gave NaN"),
        ({"prior": lambda y: np.full(len(y), -np.inf)}, "prior: the posterior is zero"),
        ({"temperature": 0}, "temperature: must be positive"),
        ({"noise": 1.0}, "noise: is no condition"),
        ({"grid": 2}, "grid: must be between"),
    ):
        with pytest.raises(ValueError, match=message):
            flow.posterior(x, **options)
    post = flow.posterior(x, PRIOR)
    for call, message in (
        (lambda: post.logp([1.0]), "y: must have shape"),
        (lambda: post.logp([1.0, np.nan]), "y: is NaN"),
        (lambda: post.figure_of_merit(1.0), "mass: must be between"),
        (lambda: post.sample(-1), "n: must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
