"""Fields without power at some k: they are refused, or their density is that of the other modes."""

import pickle
import re
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow
from pyflow import fields

F32, F64 = np.float32, np.float64
MESH, BOX = (16, 16), 10.0
AXES = {2: (1, 2), 3: (1, 2, 3)}


def gaussian(power, n, mesh=MESH, seed=1):
    return fields.gaussian_field(power, mesh, n, box_size=BOX, seed=seed)


def cut(x, low=0.0, high=np.inf):
    """The modes low <= |k| <= high of fields."""
    mesh = x.shape[1:]
    k, _ = fields.wavenumbers(mesh, BOX)
    modes = np.fft.rfftn(x.astype(F64), axes=AXES[len(mesh)]) * ((k >= low) & (k <= high))
    return np.fft.irfftn(modes, mesh, AXES[len(mesh)])


def without_mean(x):
    return x - x.mean(axis=tuple(range(1, x.ndim)), keepdims=True)


def fit(x, y=None, **options):
    known = {"n_layers": 1, "filter_knots": 16, "hidden": (16,), "epochs": 0, "box_size": BOX}
    return pyflow.SymmetricFlow(x, y_train=y, **known | {"verbose": False} | options)


def spectrum(k):
    return (1 + k) ** -2.0


def exact(x, power, low=0.0, high=np.inf):
    """log p of the orthonormal modes low <= |k| <= high of Gaussian fields, and their number."""
    n = x[0].size
    k, modes = fields.wavenumbers(x.shape[1:], BOX)
    inside = (k >= low) & (k <= high)
    variance = power(k[inside]) * n / BOX ** (x.ndim - 1)  # of a mode, as white noise has it
    square = np.abs(np.fft.rfftn(x.astype(F64), axes=AXES[x.ndim - 1])[:, inside]) ** 2 / n
    each = square / variance + np.log(2 * np.pi * variance)
    return -0.5 * (modes[inside] * each).sum(axis=-1), modes[inside].sum()


# ---- fields without a density are refused, by name and with what to do ---------------------------

STEEP = gaussian(lambda k: k**-4.0, 40, (32, 32))
LOGNORMAL = np.exp(gaussian(lambda k: 3 * k**-2.0, 40, (32, 32)))
EMPTY = {
    "mean": (without_mean(STEEP), "k = 0 (all have the same mean):"),
    "overdensity": (
        LOGNORMAL / LOGNORMAL.mean(axis=(1, 2), keepdims=True) - 1,
        "k = 0 (all have the same mean):",
    ),
    "relative density": (
        LOGNORMAL / LOGNORMAL.mean(axis=(1, 2), keepdims=True),
        "k = 0 (all have the same mean):",
    ),
    "cut": (cut(STEEP, 0, 6.0), "k = 6.188 to 14.22:"),
    "band": (cut(STEEP, 1.0, 6.0), "k = 0 to 0.8886 and at k = 6.188 to 14.22:"),
    "smoothed": (fields.filtered(STEEP, lambda k: np.exp(-((k / 1.6) ** 2)), BOX), "k = "),
    "cut in three dimensions": (
        cut(gaussian(lambda k: k**-2.0, 8, (12, 12, 12)), 0, 4.0),
        "k = 4.023 to 6.53:",
    ),
}


def refused(x, **options):
    with pytest.raises(ValueError, match="^data_train: the fields have no power") as error:
        fit(x, **options)
    return str(error.value)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("symmetry", ["isotropic", "axial"])
@pytest.mark.parametrize("name", EMPTY)
def test_empty_shells_are_refused_and_the_advice_helps(name, symmetry, dtype):
    x, where = EMPTY[name]
    x = x.astype(dtype)
    message = refused(x, symmetry=symmetry)
    assert f"beyond rounding at {where}" in message
    advice = {k: float(v) for k, v in re.findall(r"(k_m\w+)=([\d.]+)", message)}
    assert advice
    flow = fit(x, symmetry=symmetry, **advice)
    assert np.isfinite(flow.evaluate_density(x)).all()
    assert flow.k_range == (advice.get("k_min", 0), advice.get("k_max", np.inf))
    noisy = fit(x, symmetry=symmetry, noise=1e-2 * x.std())
    assert noisy.k_range is None


@pytest.mark.parametrize("dtype", [F32, F64])
def test_empty_shells_between_others_are_counted(dtype):
    x = cut(STEEP, 0, 6.0) + cut(STEEP, 7.0)
    message = refused(x.astype(dtype))
    k = np.unique(fields.wavenumbers((32, 32), BOX)[0].round(9))
    count = ((k > 6) & (k < 7)).sum()
    assert f"at {count} of the shells between" in message
    assert "k_m" not in message
    sight = np.fft.rfftn(STEEP, axes=(1, 2))
    sight[..., 5:] = 0  # along the line of sight alone
    message = refused(np.fft.irfftn(sight, (32, 32), (1, 2)).astype(dtype), symmetry="axial")
    assert "of the shells between" in message


def ordinary(dtype):
    rng = np.random.default_rng(0)
    yield "steep, 128^2", gaussian(lambda k: k**-4.0, 8, (128, 128)), {}
    yield "steep, 3-D", gaussian(lambda k: k**-4.0, 8, (16, 16, 16)), {}
    yield "white", rng.normal(size=(9, 12, 10)), {}
    yield "steep, axial", STEEP, {"symmetry": "axial"}
    yield "lognormal", LOGNORMAL, {}
    yield "lognormal, 3-D", np.exp(3 * gaussian(lambda k: k**-3.0, 9, (12, 12, 12))), {}
    yield "far from 0", 1e3 + STEEP / STEEP.std(), {}
    yield "counts", rng.poisson(3, (9, 16, 16)) + rng.uniform(size=(9, 16, 16)), {}
    yield "a single field", without_mean(STEEP)[:1], {}
    yield "a second field", STEEP, {"condition_field": LOGNORMAL.astype(dtype)}
    yield "mask", STEEP, {"mask": rng.random((32, 32)) > 0.1}
    yield "noise", cut(STEEP, 1.0, 6.0), {"noise": 0.01 * STEEP.std()}
    yield "a range of noise", cut(STEEP, 1.0, 6.0), {"noise": (0.0, STEEP.std())}
    if dtype == F64:
        yield "far from 0, in double", 1e6 + STEEP / STEEP.std(), {}


@pytest.mark.filterwarnings("ignore:data_train. (holds a single|shape)")
@pytest.mark.parametrize("dtype", [F32, F64])
def test_ordinary_fields_are_not_refused(dtype):
    for name, x, options in ordinary(dtype):
        flow = fit(x.astype(dtype), **options)
        assert flow.k_range is None, name


def test_threshold():
    """Power per mode of 1e-12 of the pixels' variance, in floats of 32 x 32 eight times that."""
    x, faint = cut(gaussian(1.0, 20, (32, 32)), 0, 6.0), cut(gaussian(1.0, 20, (32, 32), 2), 6.0)
    k, modes = fields.wavenumbers((32, 32), BOX)
    power = np.abs(np.fft.rfftn(faint, axes=(1, 2))) ** 2 / 32**2
    faint /= np.sqrt((modes * power).sum(axis=(1, 2)).mean() / modes[k > 6].sum())
    for dtype, least in ((F64, 1e-12), (F32, 8e-12)):
        with pytest.raises(ValueError, match="no power"):
            fit((x / x.std() + np.sqrt(0.1 * least) * faint).astype(dtype))
        fit((x / x.std() + np.sqrt(10 * least) * faint).astype(dtype))
    mean = np.random.default_rng(0).normal(size=(40, 1, 1))
    x = without_mean(STEEP) / STEEP.std()
    with pytest.raises(ValueError, match=r"same mean"):
        fit(x + 3e-7 * mean)
    fit(x + 3e-6 * mean)


# ---- the density of a range of modes -------------------------------------------------------------

RANGES = {"mean": (0.3, None), "low": (1.2, None), "high": (None, 3.2), "both": (0.9, 3.5)}


def edges(name):
    low, high = RANGES[name]
    return low or 0.0, high or np.inf


@contextmanager
def threads(n):
    before = pyflow.get_num_threads()
    pyflow.set_num_threads(n)
    try:
        yield
    finally:
        pyflow.set_num_threads(before)


def scaled(y):
    return lambda k: y.reshape(-1, *[1] * np.ndim(k)) * spectrum(k)


@pytest.fixture(scope="module", params=[(r, t) for r in RANGES for t in (F32, F64)], ids=str)
def case(request):
    """A flow of fields whose amplitude is y, its range, and fields that have all modes."""
    name, dtype = request.param
    y = np.random.default_rng(3).uniform(1, 2, 340)
    x = fields.gaussian_field(scaled(y), MESH, box_size=BOX, seed=4)
    only = cut(x, *edges(name)).astype(dtype)
    low, high = RANGES[name]
    flow = fit(only[:300], y[:300], k_min=low, k_max=high, n_layers=2, epochs=3)
    return flow, edges(name), x[300:].astype(dtype), y[300:, None]


def test_nothing_outside_of_the_range_matters(case):
    flow, edge, x, y = case
    tight = 1e-3 if flow.dtype == F32 else 1e-8
    only = cut(x, *edge).astype(flow.dtype)
    for draws in (1, 3):
        logp = flow.evaluate_density(only, y, draws=draws)
        assert_allclose(flow.evaluate_density(x, y, draws=draws), logp, atol=tight * 256)
    z, logj = flow.forward(x, y)
    back, minus = flow.inverse(z, y)
    assert_allclose(without_mean(back), without_mean(only), atol=1e-5 if tight > 1e-8 else 1e-12)
    assert_allclose(-minus, logj, atol=tight * 256)


def test_samples_lie_in_the_range(case):
    flow, (low, high), _, y = case
    x, logp = flow.sample(len(y), y, seed=1)
    k, _ = fields.wavenumbers(MESH, BOX)
    power = (np.abs(np.fft.rfftn(without_mean(x).astype(F64), axes=(1, 2))) ** 2).mean(axis=0)
    outside = ((k < low) | (k > high)) & (k > 0)
    most = power.max() * (1e-11 if flow.dtype == F32 else 1e-25)
    assert power[outside].max(initial=0) < most < power[~outside & (k > 0)].min()
    assert_array_equal(logp, flow.evaluate_density(x, y))
    means = x.mean(axis=(1, 2))
    assert (np.ptp(means) < 1e-5) == (low > 0)


def test_scores_are_derivatives(case):
    flow, edge, x, y = case
    if flow.dtype == F32:
        pytest.skip("differences of floats say little")
    x, y = x[:3], y[:3]
    way = np.random.default_rng(0).normal(size=x.shape)
    score, logp = flow.score(x, y, with_logp=True)
    assert_allclose(logp, flow.evaluate_density(x, y))
    h = 1e-5
    slope = flow.evaluate_density(x + h * way, y) - flow.evaluate_density(x - h * way, y)
    assert_allclose((score * way).sum(axis=(1, 2)), slope / (2 * h), rtol=1e-5)
    assert_allclose(score, cut(score, *edge), atol=1e-10)
    slope = flow.evaluate_density(x, y + h) - flow.evaluate_density(x, y - h)
    assert_allclose(flow.score_parameters(x, y)[:, 0], slope / (2 * h), rtol=1e-5)


def test_files_and_copies_hold_the_range(case):
    flow, edge, x, y = case
    for copy in (pyflow.Flow.from_bytes(flow.to_bytes()), pickle.loads(pickle.dumps(flow))):
        assert copy == flow
        assert copy.k_range == edge
        assert_array_equal(copy.evaluate_density(x, y), flow.evaluate_density(x, y))
    assert flow.layers == ("band", "symmetric", "symmetric")


def test_damaged_files_are_refused(case):
    flow = case[0][:1]
    data = flow.to_bytes()
    for end in range(0, len(data), 7):
        with pytest.raises(pyflow.FileError):
            pyflow.Flow.from_bytes(data[:end])


def test_results_do_not_depend_on_threads_or_other_fields():
    x = cut(gaussian(spectrum, 60), 0.3, 4.0)
    flows, densities = [], []
    for n in (1, 2):
        with threads(n):
            flows.append(fit(x, k_min=0.3, k_max=4.0, epochs=2))
            densities.append(flows[-1].evaluate_density(x, draws=2))
    assert flows[0] == flows[1]
    assert_array_equal(*densities)
    assert_array_equal(flows[0].evaluate_density(x[7:8], draws=2), densities[0][7:8])


# ---- against exact densities ---------------------------------------------------------------------


@pytest.mark.parametrize("mesh", [(24, 20), (10, 8, 12)])
@pytest.mark.parametrize("name", RANGES)
def test_density_is_the_exact_one_of_the_modes(name, mesh):
    low, high = edges(name)
    x = cut(gaussian(spectrum, 500, mesh), low, high)
    low, high = RANGES[name]
    logp = {}
    for dtype in (F32, F64):
        flow = fit(x[:400].astype(dtype), k_min=low, k_max=high, n_layers=2, epochs=10)
        logp[dtype] = flow.evaluate_density(x[400:], draws=4)
    truth, modes = exact(x[400:], spectrum, *edges(name))
    assert 0 < modes < x[0].size
    assert abs((truth - logp[F64]).mean()) < 2e-3 * modes
    assert (truth - logp[F64]).std() < 0.1 * truth.std()
    assert_allclose(logp[F32], logp[F64], atol=1e-3 * modes)
    white = -0.5 * modes * (np.log(2 * np.pi * x.var() * x[0].size / modes) + 1)
    assert truth.mean() - white > 0.02 * modes  # what the spectrum tells is ten times as much


def test_posterior_is_the_exact_one_in_both_precisions():
    """Of amplitude and slope, in fields without a mean and without small scales."""
    low, high, n = 0.3, 3.6, 1000
    rng = np.random.default_rng(5)
    y = np.stack([rng.uniform(1, 2, n), rng.uniform(1.5, 2.5, n)], axis=1)

    def power(y):
        return lambda k: y[:, :1] * (1 + k) ** -y[:, 1:]

    x = fields.gaussian_field(
        lambda k: power(y)(k.ravel()).reshape(n, *k.shape), MESH, box_size=BOX, seed=6
    )
    x = cut(x, low, high)
    grid = np.stack(np.meshgrid(*[np.linspace(a, a + 1, 41) for a in (1, 1.5)]), -1).reshape(-1, 2)

    def moments(logs):
        p = np.exp(logs - logs.max())
        p /= p.sum()
        mean = p @ grid
        return mean, np.sqrt(p @ (grid - mean) ** 2)

    found = {}
    for dtype in (F32, F64):
        flow = fit(
            x[:800].astype(dtype),
            y[:800],
            data_validate=x[800:900],
            y_validate=y[800:900],
            k_min=low,
            k_max=high,
            n_layers=2,
            hidden=(32, 32),
            epochs=30,
        )
        found[dtype] = flow._core.evaluate_at(x[900:].astype(dtype), grid)
    off, width = [], []
    for i, field in enumerate(x[900:]):
        mean, sigma = moments(
            exact(np.broadcast_to(field, (len(grid), *MESH)), power(grid), low, high)[0]
        )
        mine = {dtype: moments(found[dtype][i]) for dtype in found}
        assert_allclose(mine[F32][0], mine[F64][0], atol=0.2 * sigma.min())
        assert_allclose(mine[F32][1], mine[F64][1], rtol=0.2)
        off.append((mine[F64][0] - mean) / sigma)
        width.append(mine[F64][1] / sigma)
    assert np.sqrt(np.mean(np.square(off), axis=0)).max() < 0.4
    assert_allclose(np.mean(width, axis=0), 1, atol=0.05)


def test_density_of_lognormal_fields_relative_to_their_mean():
    """1 + x = exp(g) / its mean: p(x) = p(modes of ln(1 + x), k > 0) / prod (1 + x).

    As r = m (1 + x) has p(x) = int sqrt(N) m^(N - 1) p_r(m (1 + x)) dm, N pixels.
    """
    g = gaussian(lambda k: 2 * spectrum(k), 700)
    x = np.exp(g)
    x = x / x.mean(axis=(1, 2), keepdims=True) - 1
    logs = np.log1p(x[600:])
    truth, modes = exact(logs, lambda k: 2 * spectrum(k), 0.3)
    truth -= logs.sum(axis=(1, 2))
    flow = fit(x[:600], k_min=0.3, n_layers=3, epochs=20)
    lost = (truth - flow.evaluate_density(x[600:], draws=4)).mean()
    assert -0.5 < lost < 0.01 * modes
    convolution = fit(x[:600], k_min=0.3, psi_knots=2)
    assert (truth - convolution.evaluate_density(x[600:])).mean() > 5 * max(lost, 0.5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k_min": -1.0}, ValueError, "k_min: must not be negative"),
        ({"k_max": 0.0}, ValueError, "k_max: must be positive"),
        ({"k_min": "low"}, TypeError, "k_min: "),
        ({"k_max": np.nan}, ValueError, "k_max: "),
        ({"k_min": 3.0, "k_max": 2.0}, ValueError, "k_min, k_max: no mode"),
        ({"k_max": 0.1}, ValueError, "k_min, k_max: no mode"),
        ({"k_max": 2.0, "mask": np.eye(16) == 0}, ValueError, "k_min, k_max: do not go together"),
        ({"k_max": 2.0, "noise": np.eye(16)}, ValueError, "k_min, k_max: do not go together"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        fit(gaussian(spectrum, 9), **options)


def test_a_range_of_all_modes_is_none():
    x = gaussian(spectrum, 9)
    assert fit(x, k_min=0, k_max=1e3) == fit(x)


def test_range_goes_with_noise_and_second_fields():
    x, rng = cut(gaussian(spectrum, 200), 0.3, 4.0), np.random.default_rng(0)
    options = {"k_min": 0.3, "k_max": 4.0, "n_layers": 2, "epochs": 5}
    flow = fit(x, noise=(0.1, 0.3), noise_condition=True, hidden=(16,), **options)
    assert flow.names == ("noise",)
    sigma = rng.uniform(0.1, 0.3, (200, 1))
    noisy = x + sigma[:, :, None] * rng.normal(size=x.shape)
    n = x[0].size
    total = [
        exact(f, lambda k, s=s: spectrum(k) + s**2 * BOX**2 / n, 0.3, 4.0)[0][0]
        for f, (s,) in zip(noisy[:, None], sigma, strict=True)
    ]
    modes = exact(x, spectrum, 0.3, 4.0)[1]
    assert abs((total - flow.evaluate_density(noisy, sigma, draws=4)).mean()) < 0.01 * modes
    c = gaussian(spectrum, 200, seed=7)
    y = cut(c, 0.3, 4.0) + 0.3 * x
    flow = fit(y, condition_field=c, filter_knots=128, **options | {"epochs": 20})
    told = flow.evaluate_density(y, condition_field=c, draws=4)
    truth, modes = exact(0.3 * x, lambda k: 0.09 * spectrum(k), 0.3, 4.0)
    assert abs((truth - told).mean()) < 0.02 * modes


def test_axial_fields():
    def power(k, mu):
        return spectrum(k) * (1 + mu**2) ** 2

    x = fields.gaussian_field(power, MESH, 500, box_size=BOX, seed=1, axis=-1)
    k, modes = fields.wavenumbers(MESH, BOX)
    inside = (k > 0.3) & (k < 3.6)
    variance = (power(k, fields.cosines(MESH, BOX)) * x[0].size / BOX**2)[inside]
    square = np.abs(np.fft.rfftn(x[400:], axes=(1, 2))[:, inside]) ** 2 / x[0].size
    each = square / variance + np.log(2 * np.pi * variance)
    truth = -0.5 * (modes[inside] * each).sum(axis=1)
    flow = fit(x[:400], k_min=0.3, k_max=3.6, symmetry="axial", n_layers=2, epochs=10)
    lost = (truth - flow.evaluate_density(x[400:], draws=4)).mean()
    assert abs(lost) < 0.02 * modes[inside].sum()
