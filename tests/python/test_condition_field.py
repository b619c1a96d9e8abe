"""Symmetric flows of p(x|c): a second field c of each point, on the same mesh."""

import os
import pickle
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow
from pyflow import fields
from pyflow.layers import Scale, Shift, Sliced, Symmetric

MESH, BOX = (12, 16), (6.0, 8.0)
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])


class Pairs(NamedTuple):
    x: np.ndarray
    c: np.ndarray
    mean: np.ndarray  # of x, given c
    logp: np.ndarray  # exact, of x given c


def of_c(k):
    return k**-1.5


def transfer(k):
    return 0.8 / (1 + (k / 1.5) ** 2)


def residual(k):
    return 0.05 * k**-0.5


def gaussian(n, seed, mesh=MESH, box=BOX, mean=0.0, scale=1.0):
    """Gaussian fields x = W c + r, of c in other units: (c - mean) / scale."""
    c = fields.gaussian_field(of_c, mesh, n, box_size=box, seed=seed)
    r = fields.gaussian_field(residual, mesh, n, box_size=box, seed=seed + 1)
    wiener = fields.filtered(c, transfer, box)
    logp = fields.gaussian_logp(r, residual, box)
    return Pairs(wiener + r, mean + scale * c, wiener, logp)


def fit(train, **options):
    small = {"n_layers": 2, "psi_knots": 4, "filter_knots": 8, "epochs": 2, "hidden": (8,)}
    given = {"condition_field": train.c, "box_size": BOX, "verbose": False}
    return pyflow.SymmetricFlow(train.x, **small | given | options)


TRAIN = gaussian(60, 1)
HELD_OUT = gaussian(20, 3)


@pytest.fixture(scope="module")
def flow():
    return fit(TRAIN)


def entropy(x):
    """log p of white noise of the same variance, on average."""
    return -0.5 * x[0].size * (1 + np.log(2 * np.pi * x.var()))


# ---- truth ---------------------------------------------------------------------------------------


@BOTH
def test_gaussian_fields_of_known_spectra(dtype):
    """The start alone, in other units of c: log p is the exact one, the mean the Wiener filter."""
    mesh, box = (64, 64), 64.0
    train, test = (gaussian(*of, mesh, box, mean=1000.0, scale=20.0) for of in ((200, 1), (50, 3)))
    flow = pyflow.SymmetricFlow(
        train.x.astype(dtype),
        condition_field=train.c.astype(dtype),
        box_size=box,
        n_layers=2,
        filter_knots=24,
        start_fields=200,
        epochs=0,
        verbose=False,
    )
    logp = flow.evaluate_density(test.x, condition_field=test.c)
    lost = (test.logp.mean() - logp.mean()) / (test.logp.mean() - entropy(test.x))
    assert abs(lost) < 2e-4
    # and field by field, so that c is really looked at
    assert np.corrcoef(logp, test.logp)[0, 1] > 0.999

    draws, _ = flow.sample(600, seed=5, condition_field=test.c[0])
    k, r, _ = fields.cross_correlation(draws.mean(axis=0), test.mean[0], box)
    signal = transfer(k) ** 2 * of_c(k) > residual(k) / 3
    assert signal.sum() > 5
    assert r[0, signal].min() > 0.99
    _, power, _ = fields.power_spectrum(draws - test.mean[0], box)
    assert_allclose(power.mean(axis=0), residual(k), rtol=0.1)


def test_without_the_second_field_less_is_known(flow):
    alone = fit(TRAIN, condition_field=None)
    logp = flow.evaluate_density(HELD_OUT.x, condition_field=HELD_OUT.c)
    assert logp.mean() > alone.evaluate_density(HELD_OUT.x).mean() + 10
    assert logp.mean() < HELD_OUT.logp.mean() + 3


@pytest.mark.parametrize("name", ["exponential", "square"])
def test_functions_of_the_second_field_are_learned(name):
    """x = W exp(c) + r, and x = W c^2 + r, which has no correlation with c."""
    function = {"exponential": lambda c: np.exp(0.7 * c), "square": np.square}[name]
    pairs = []
    for seed, n in ((1, 300), (3, 60)):
        c = fields.gaussian_field(lambda k: 4 * np.exp(-(k**2)), MESH, n, box_size=BOX, seed=seed)
        r = fields.gaussian_field(0.02, MESH, n, box_size=BOX, seed=seed + 1)
        x = fields.filtered(function(c), lambda k: np.exp(-(k**2) / 8), BOX) + r
        pairs.append(Pairs(x, c, None, fields.gaussian_logp(r, 0.02, BOX)))
    train, test = pairs
    flow = fit(train, epochs=60, learning_rate=2e-2)
    alone = fit(train, epochs=10, condition_field=None)
    logp = flow.evaluate_density(test.x, condition_field=test.c).mean()
    blind = alone.evaluate_density(test.x).mean()
    assert (test.logp.mean() - logp) / (test.logp.mean() - blind) < 0.1


def test_line_of_sight():
    """The residual knows a direction, the filter of c does not."""

    def kaiser(k, mu):
        return 0.05 / k * (1 + mu**2) ** 2

    pairs = []
    for seed, n in ((1, 200), (3, 60)):
        c = fields.gaussian_field(of_c, MESH, n, box_size=BOX, seed=seed)
        r = fields.gaussian_field(kaiser, MESH, n, box_size=BOX, seed=seed + 1, axis=0)
        logp = fields.gaussian_logp(r, kaiser, BOX, axis=0)
        pairs.append(Pairs(fields.filtered(c, transfer, BOX) + r, c, None, logp))
    train, test = pairs
    many = {"epochs": 0, "start_fields": 200, "filter_knots": 12}
    flow = fit(train, symmetry="axial", axis=0, **many)
    isotropic = fit(train, **many)
    logp, worse = (
        f.evaluate_density(test.x, condition_field=test.c).mean() for f in (flow, isotropic)
    )
    size = test.logp.mean() - entropy(test.x)
    assert (test.logp.mean() - logp) / size < 0.015
    assert (test.logp.mean() - worse) / size > 0.05


def test_three_dimensions():
    mesh, box = (8, 6, 4), (4.0, 3.0, 2.0)
    train, test = (gaussian(*of, mesh, box) for of in ((200, 1), (50, 3)))
    flow = fit(train, box_size=box, epochs=0, start_fields=200, filter_knots=24)
    logp = flow.evaluate_density(test.x, condition_field=test.c)
    lost = (test.logp.mean() - logp.mean()) / (test.logp.mean() - entropy(test.x))
    assert abs(lost) < 0.03
    z, _ = flow.forward(test.x, condition_field=test.c)
    assert_allclose(flow.inverse(z, condition_field=test.c)[0], test.x, atol=1e-9)


# ---- laws ----------------------------------------------------------------------------------------


def test_there_and_back(flow):
    x, c = HELD_OUT.x, HELD_OUT.c
    z, logj = flow.forward(x, condition_field=c)
    back, minus_logj = flow.inverse(z, condition_field=c)
    assert_allclose(back, x, atol=1e-10)
    assert_allclose(minus_logj, -logj, rtol=1e-11)
    normal = -0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=(1, 2))
    assert_allclose(flow.evaluate_density(x, condition_field=c), normal + logj, rtol=1e-11)
    other, _ = flow.forward(x, condition_field=c[::-1])
    assert abs(other - z).max() > 0.1


def test_samples(flow):
    c = HELD_OUT.c
    x, logp = flow.sample(20, seed=7, condition_field=c)
    assert_allclose(flow.evaluate_density(x, condition_field=c), logp, rtol=1e-10)
    z = np.array([flow.forward(a, condition_field=b)[0] for a, b in zip(x, c, strict=True)])
    assert_array_equal(flow.sample(5, seed=7, condition_field=c[:5])[0], x[:5])
    one, _ = flow.sample(20, seed=7, condition_field=c[3])
    assert_array_equal(one[3], x[3])
    assert_allclose(flow.forward(one, condition_field=c[3])[0], z, atol=1e-10)  # the same noise
    alone = flow.evaluate_density(x[2], condition_field=c[2])
    assert alone == pytest.approx(logp[2], rel=1e-10)
    assert flow.sample(0, condition_field=c[:0])[0].shape == (0, *MESH)


@pytest.mark.parametrize(
    "move",
    [
        lambda a: np.roll(a, (3, -5), axis=(1, 2)),
        lambda a: a[:, ::-1],
        lambda a: a[:, :, ::-1],
    ],
    ids=["shifted", "flipped", "flipped along the other axis"],
)
def test_moving_both_fields_leaves_log_p_alone(flow, move):
    x, c = HELD_OUT.x, HELD_OUT.c
    logp = flow.evaluate_density(x, condition_field=c)
    assert_allclose(flow.evaluate_density(move(x), condition_field=move(c)), logp, rtol=1e-9)
    for apart in ((move(x), c), (x, move(c))):
        less = flow.evaluate_density(apart[0], condition_field=apart[1])
        assert (logp - less).min() > 5


def test_score_is_the_gradient(flow):
    x, c = HELD_OUT.x[:3], HELD_OUT.c[:3]
    score, logp = flow.score(x, condition_field=c, with_logp=True)
    assert_allclose(logp, flow.evaluate_density(x, condition_field=c), rtol=1e-12)
    step = 1e-5 * np.random.default_rng(0).normal(size=x.shape)
    up, down = (flow.evaluate_density(x + s, condition_field=c) for s in (step, -step))
    assert_allclose((score * 2 * step).sum(axis=(1, 2)), up - down, rtol=1e-5, atol=1e-8)


def test_precisions_agree(flow):
    single = fit(Pairs(TRAIN.x.astype(np.float32), TRAIN.c, None, None))
    assert single.dtype == np.float32
    x, c = HELD_OUT.x, HELD_OUT.c
    logp = flow.evaluate_density(x, condition_field=c)
    assert_allclose(single.evaluate_density(x, condition_field=c), logp, rtol=1e-3)
    a, b = (f.sample(4, seed=1, condition_field=c[0])[0] for f in (single, flow))
    assert_allclose(a, b, atol=2e-3)


@BOTH
def test_threads_change_nothing(dtype):
    train = Pairs(TRAIN.x.astype(dtype), TRAIN.c.astype(dtype), None, None)
    flows, results = [], []
    for threads in (1, 2, 5):
        pyflow.set_num_threads(threads)
        flows.append(fit(train))
        given = {"condition_field": HELD_OUT.c}
        results.append(
            [
                flows[-1].evaluate_density(HELD_OUT.x, **given),
                flows[-1].score(HELD_OUT.x, **given),
                flows[-1].sample(20, seed=1, **given)[0],
            ]
        )
    pyflow.set_num_threads(None)
    assert flows[0] == flows[1] == flows[2]
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_array_equal(a, b)


def test_points_are_independent(flow):
    """Whatever memory c lies in, and however many points there are."""
    x, c = HELD_OUT.x, HELD_OUT.c
    logp = flow.evaluate_density(x, condition_field=c)
    for i in (0, 7, 19):
        assert flow.evaluate_density(x[i], condition_field=c[i]) == logp[i]
    for same in (c.tolist(), np.asfortranarray(c), np.stack([c, c], axis=-1)[..., 0]):
        assert_array_equal(flow.evaluate_density(x, condition_field=same), logp)
    many = np.resize(x, (3000, *MESH)).astype(np.float32)  # converted in chunks
    beside = np.resize(c, many.shape)
    got = flow.evaluate_density(many, condition_field=beside)
    assert_array_equal(got[:20], flow.evaluate_density(many[:20], condition_field=c))
    assert_array_equal(got[2000:2020], got[:20])


# ---- conditions beside it ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_y():
    """Return a flow of p(x|c, y), y the residual's amplitude, and pairs with their y."""
    y = np.random.default_rng(0).uniform(0.5, 2, 300)
    c = fields.gaussian_field(of_c, MESH, 300, box_size=BOX, seed=1)
    r = fields.gaussian_field(lambda k: y[:, None, None] * residual(k), MESH, box_size=BOX, seed=2)
    x = fields.filtered(c, transfer, BOX) + r
    train, rest = slice(0, 250), slice(250, 300)
    flow = fit(
        Pairs(x[train], c[train], None, None), y_train=y[train], epochs=15, hidden=(32,), n_layers=1
    )
    return flow, x[rest], c[rest], y[rest]


def test_posterior(with_y):
    flow, x, c, y = with_y
    posts = [flow.posterior(a, condition_field=b) for a, b in zip(x, c, strict=True)]
    means, errors = (
        np.array([p.mean[0] for p in posts]),
        np.array([p.cov[0, 0] ** 0.5 for p in posts]),
    )
    assert np.mean(errors) < 0.2
    assert np.std((means - y) / errors) < 2
    assert flow.calibrate(x, y, condition_field=c).temperature == pytest.approx(1, abs=0.7)
    for call in (flow.posterior, lambda x: flow.calibrate(x, y)):
        with pytest.raises(ValueError, match="condition_field: this flow needs"):
            call(x)


def test_score_of_parameters(with_y):
    flow, x, c, y = with_y
    y = np.clip(y, 0.6, 1.9)
    score, logp = flow.score_parameters(x, y, condition_field=c, with_logp=True)
    assert_allclose(logp, flow.evaluate_density(x, y, condition_field=c), rtol=1e-12)
    up, down = (flow.evaluate_density(x, y + s, condition_field=c) for s in (1e-5, -1e-5))
    assert_allclose(score[:, 0], (up - down) / 2e-5, rtol=1e-4, atol=1e-4)


def test_fine_tuning_on_the_posterior(with_y):
    _, x, c, y = with_y
    flow = fit(
        Pairs(x, c, None, None),
        y_train=y,
        objective="posterior",
        posterior_epochs=1,
        posterior_draws=15,
        epochs=1,
    )
    assert np.isfinite(flow.evaluate_density(x, y, condition_field=c)).all()


# ---- training, files -----------------------------------------------------------------------------


def test_training_goes_on(flow):
    better = flow.train(
        TRAIN.x,
        HELD_OUT.x,
        condition_field=TRAIN.c,
        condition_field_validate=HELD_OUT.c,
        epochs=3,
        learning_rate=1e-3,
        verbose=False,
    )
    assert len(better.history["epoch"]) == len(flow.history["epoch"]) + 3
    last = better.history["logp_validate"][-3:].max() * np.prod(MESH)
    got = better.evaluate_density(HELD_OUT.x, condition_field=HELD_OUT.c).mean()
    assert got == pytest.approx(last, rel=1e-10)


@BOTH
def test_flow_composed_by_hand(dtype):
    """Layers of both layouts: tiles have several points, each with its c."""
    layers = [
        Scale(0.1, 0.9),
        Shift(0.0, TRAIN.c.std(), 6, 8),
        Sliced(3, 5),
        Shift(0.0, TRAIN.c.std(), 4, 4),
        Symmetric(4, 8),
    ]
    start = pyflow.Flow(layers, shape=MESH, box_size=BOX, dtype=dtype)
    assert start.condition_field
    flow = start.train(
        TRAIN.x, condition_field=TRAIN.c, epochs=20, learning_rate=2e-2, verbose=False
    )
    x, c = HELD_OUT.x, HELD_OUT.c
    logp = flow.evaluate_density(x, condition_field=c)
    assert logp.mean() > start.evaluate_density(x, condition_field=c).mean() + 50
    eps = 1e-10 if dtype == np.float64 else 1e-3
    for i in (0, 17):
        alone = flow.evaluate_density(x[i], condition_field=c[i])
        assert alone == pytest.approx(logp[i], rel=eps)
    z, _ = flow.forward(x, condition_field=c)
    assert_allclose(flow.inverse(z, condition_field=c)[0], x, atol=3 * eps)
    assert not start[:1].condition_field


def test_files(flow, tmp_path):
    flow.save(tmp_path / "flow.pf")
    x, c = HELD_OUT.x, HELD_OUT.c
    for copy in (
        pyflow.load(tmp_path / "flow.pf"),
        pickle.loads(pickle.dumps(flow)),
        pyflow.Flow.from_bytes(flow.to_bytes()),
    ):
        assert copy == flow
        assert copy.condition_field
        assert_array_equal(
            copy.evaluate_density(x, condition_field=c),
            flow.evaluate_density(x, condition_field=c),
        )
    assert "condition_field" in repr(flow)
    assert flow.layers == ("scale", *2 * ("shift", "symmetric"))
    data = flow.to_bytes()
    for cut in (len(data) // 2, len(data) - 1):
        with pytest.raises(pyflow.FileError):
            pyflow.Flow.from_bytes(data[:cut])


def test_checkpoint(tmp_path):
    path, whole = tmp_path / "checkpoint", fit(TRAIN, epochs=4)

    def stop(step):
        if step.step == 2:
            raise RuntimeError("enough")

    kept = {"checkpoint": path, "checkpoint_seconds": 0}
    with pytest.raises(RuntimeError, match="enough"):
        fit(TRAIN, epochs=4, progress=stop, **kept)
    assert os.path.exists(path)
    with pytest.raises(ValueError, match="condition_field differs"):
        fit(TRAIN._replace(c=TRAIN.c + 1), epochs=4, **kept)
    assert fit(TRAIN, epochs=4, **kept) == whole


# ---- bad input -----------------------------------------------------------------------------------


def hole(c, value=np.nan):
    c = c.copy()
    c[7, 3, 2] = value
    return c


BAD_FITS = {
    "another mesh": ({"condition_field": TRAIN.c[:, :6]}, "condition_field: must have shape"),
    "another number": ({"condition_field": TRAIN.c[:-1]}, "condition_field: must have shape"),
    "a single field": ({"condition_field": TRAIN.c[0]}, "condition_field: must have shape"),
    "NaN": ({"condition_field": hole(TRAIN.c)}, "condition_field: field 7 has pixels"),
    "infinite": ({"condition_field": hole(TRAIN.c, np.inf)}, "condition_field: field 7 has pixels"),
    "constant": ({"condition_field": 0 * TRAIN.c + 3}, "condition_field: the fields are constant"),
    "complex": ({"condition_field": TRAIN.c * 1j}, "condition_field: must hold real numbers"),
    "strings": ({"condition_field": TRAIN.c.astype(str)}, "condition_field: must hold real"),
    "none for validation": (
        {"data_validate": HELD_OUT.x},
        "condition_field_validate: is missing, although data_validate",
    ),
    "none for training": (
        {
            "data_validate": HELD_OUT.x,
            "condition_field": None,
            "condition_field_validate": HELD_OUT.c,
        },
        "condition_field: is missing",
    ),
    "no validation": ({"condition_field_validate": HELD_OUT.c}, "data_validate: is missing"),
    "another number for validation": (
        {"data_validate": HELD_OUT.x, "condition_field_validate": HELD_OUT.c[1:]},
        "condition_field_validate: must have shape",
    ),
    "knots without": ({"condition_field": None, "condition_knots": 5}, "condition_knots: are"),
    "one knot": ({"condition_knots": 1}, "condition_knots: must be between 2 and 64"),
}


@pytest.mark.parametrize(("options", "message"), BAD_FITS.values(), ids=BAD_FITS)
def test_bad_input_of_a_fit(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        fit(TRAIN, **options)


BAD_FIELDS = {
    "missing": (None, "this flow needs a second field"),
    "another mesh": (HELD_OUT.c[:, :6], "must have shape"),
    "another number": (HELD_OUT.c[:-1], "must have shape"),
    "transposed": (HELD_OUT.c[0].T, "must have shape"),
    "NaN": (hole(HELD_OUT.c), "field 7 has pixels that are NaN or infinite"),
    "too large for float32": (HELD_OUT.c * 1e60, "field 0 has pixels that are NaN or infinite"),
    "strings": (HELD_OUT.c.astype(str), "must hold real numbers"),
}


@pytest.mark.parametrize(("c", "message"), BAD_FIELDS.values(), ids=BAD_FIELDS)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_bad_input_of_a_flow(c, message):
    flow = fit(Pairs(TRAIN.x.astype(np.float32), TRAIN.c, None, None), epochs=0)
    x = HELD_OUT.x
    for call in (
        lambda: flow.evaluate_density(x, condition_field=c),
        lambda: flow.forward(x, condition_field=c),
        lambda: flow.inverse(x, condition_field=c),
        lambda: flow.score(x, condition_field=c),
        lambda: flow.sample(20, condition_field=c),
        lambda: flow.train(x, condition_field=c, epochs=1, verbose=False),
    ):
        with pytest.raises(ValueError, match=f"^condition_field: {message}"):
            call()


def test_flows_without_refuse_it(flow):
    alone = fit(TRAIN, condition_field=None, epochs=0)
    x, c = HELD_OUT.x, HELD_OUT.c
    for call in (
        lambda: alone.evaluate_density(x, condition_field=c),
        lambda: alone.sample(20, condition_field=c),
        lambda: alone.train(x, condition_field=c, epochs=1, verbose=False),
        lambda: pyflow.GIS(x[:, 0, :2], max_layers=1, verbose=False).evaluate_density(
            x[:, 0, :2], condition_field=c
        ),
    ):
        with pytest.raises(ValueError, match="condition_field: this flow was fitted without"):
            call()
    for given, name in (
        ({"condition_field_validate": c}, "condition_field_validate: given without data_validate"),
        ({"data_validate": x}, "condition_field_validate: this flow needs"),
    ):
        with pytest.raises(ValueError, match=name):
            flow.train(x, condition_field=c, epochs=1, verbose=False, **given)


def test_a_second_field_tells_of_masked_ones():
    """Unobserved pixels are drawn without c, which costs some of what c tells."""
    box = {"box_size": 16.0}
    c = pyflow.fields.gaussian_field(lambda k: k**-1.5, (16, 16), 400, seed=1, **box)
    known = pyflow.fields.filtered(c, lambda k: 1 / (1 + k**2), **box)
    x = known + pyflow.fields.gaussian_field(0.1, (16, 16), 400, seed=2, **box)
    mask = np.ones((16, 16), bool)
    mask[3:8, 4:10] = False
    seen = np.where(mask, x, np.nan)
    how = {"mask": mask, "n_layers": 2, "filter_knots": 16, "epochs": 5, "verbose": False} | box
    alone = pyflow.SymmetricFlow(seen[:300], **how)
    flow = pyflow.SymmetricFlow(seen[:300], condition_field=c[:300], patch_layers=1, **how)
    assert flow.layers == ("fill", "shift", "symmetric", "shift", "symmetric", "patch")
    beside = {"condition_field": c[300:]}
    logp = flow.evaluate_density(seen[300:], **beside)
    exact = pyflow.fields.gaussian_logp((x - known)[300:], 0.1, mask=mask, **box)
    assert alone.evaluate_density(seen[300:]).mean() + 10 < logp.mean() < exact.mean()
    sample, _ = flow.sample(100, seed=1, **beside)
    assert_array_equal(np.isnan(sample), np.broadcast_to(~mask, sample.shape))
    again = pyflow.Flow.from_bytes(flow.to_bytes())
    assert_array_equal(again.evaluate_density(seen[300:], **beside), logp)
    many = flow.evaluate_density(seen[300:], draws=8, **beside)
    assert many.mean() > logp.mean()
