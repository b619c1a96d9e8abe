"""Posteriors for getdist, ArviZ and emcee, and scores for samplers that step over bounds."""

import builtins
import sys
import warnings

import numpy as np
import pytest
from conftest import banana
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import pyflow
from pyflow import _autoregressive

BOUNDS = np.array([[0.0, 9.0], [-9.0, 9.0]])
NAMES = ("omega m", "s_8*")
HALF = stats.halfnorm()


def log_density(y):
    """Half of a Gaussian, whose integral is pi, times a number."""
    return 3 - 0.5 * (y**2).sum(axis=1)


@pytest.fixture(scope="module")
def grid():
    return pyflow.Posterior(log_density, BOUNDS, NAMES)


@pytest.fixture(scope="module")
def chain():
    return pyflow.Posterior(log_density, BOUNDS, NAMES, method="emcee")


@pytest.fixture(params=["grid", "chain"])
def post(request):
    return request.getfixturevalue(request.param)


def has_moments(y, atol):
    assert_allclose(y.mean(axis=0), [HALF.mean(), 0], atol=atol)
    assert_allclose(y.std(axis=0), [HALF.std(), 1], atol=atol)


# ---- getdist -------------------------------------------------------------------------------------


def test_getdist_has_the_draws_the_bounds_and_the_densities(post, capsys):
    pytest.importorskip("getdist")
    samples = post.to_getdist(6000, seed=1)
    assert capsys.readouterr().out == ""
    assert_array_equal(samples.samples, post.sample(6000, seed=1))
    assert_allclose(-samples.loglikes, post.logp(samples.samples), atol=1e-4)
    assert samples.getParamNames().list() == ["omega_m", "s_8_"]
    assert samples.getParamNames().labels() == [r"\mathrm{omega\ m}", r"\mathrm{s\_8*}"]
    assert [samples.getLower("omega_m"), samples.getUpper("s_8_")] == [0, 9]
    assert samples.getEffectiveSamples() == pytest.approx(6000)
    density = samples.get1DDensity("omega_m").Prob([0.0, 0.5, 1.5])
    expected = HALF.pdf([0.0, 0.5, 1.5])  # without the bound the first would be half as high
    assert_allclose(density / density[1], expected / expected[1], atol=0.25)
    assert_allclose(samples.mean("omega_m"), HALF.mean(), atol=0.04)


def test_getdist_takes_any_names():
    pytest.importorskip("getdist")
    names = ["a b", "a*b", r"$\alpha$", r"\Omega_m", "100%"]
    post = pyflow.Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-9, 9)] * 5, names)
    samples = post.to_getdist(100)
    known = samples.getParamNames()
    assert known.list() == ["a_b", "a_b_", r"$\alpha$", r"\Omega_m", "100%"]
    assert known.labels()[2:] == [r"\alpha", r"\Omega_m", r"\mathrm{100\%}"]
    assert_allclose(samples.mean(r"\Omega_m"), samples.samples[:, 3].mean())
    labels = [rf"\theta_{j}" for j in range(5)]
    assert post.to_getdist(100, labels=labels).getParamNames().labels() == labels
    with pytest.raises(ValueError, match="^labels: 2 names for 5"):
        post.to_getdist(labels=["a", "b"])


# ---- ArviZ ---------------------------------------------------------------------------------------


@pytest.fixture(params=["arviz", "arviz_base"])
def arviz(request, monkeypatch):
    """ArviZ, also with what its version 1 takes its `from_dict` from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # before version 1 it warns of that
        module = pytest.importorskip(request.param)
    monkeypatch.setitem(sys.modules, "arviz", module)
    return module


def test_arviz_has_chains_of_draws(post, arviz):
    data = post.to_arviz(seed=2)
    y = np.stack([np.asarray(data["posterior"][name]) for name in NAMES], axis=-1)
    assert list(data["posterior"].data_vars) == list(NAMES)
    assert data["posterior"][NAMES[0]].dims == ("chain", "draw")
    lp = np.asarray(data["sample_stats"]["lp"])
    assert_allclose(lp.ravel(), log_density(y.reshape(-1, 2)), atol=1e-4)
    has_moments(y.reshape(-1, 2), 0.1)
    if post.method == "grid":
        assert y.shape == (4, 1000, 2)
        assert post.to_arviz(2, 30)["posterior"].sizes == {"chain": 2, "draw": 30}
        return
    walk = post.to_emcee().get_chain()
    assert_array_equal(y, walk.swapaxes(0, 1))
    y[:] = np.nan
    data["posterior"][NAMES[0]].values[:] = np.nan
    assert np.isfinite(post.sample(1000)).all()
    with pytest.raises(ValueError, match="draws: are those of the chain"):
        post.to_arviz(draws=3)


# ---- emcee ---------------------------------------------------------------------------------------


def test_emcee_has_walkers(post):
    pytest.importorskip("emcee")
    backend = post.to_emcee(seed=3)
    walk, logs = backend.get_chain(), backend.get_log_prob()
    flat = backend.get_chain(flat=True)
    assert walk.shape == (*logs.shape, 2) == (backend.iteration, *backend.shape)
    assert_allclose(logs.ravel(), log_density(flat), atol=1e-4)
    has_moments(flat, 0.1)
    share = backend.accepted / backend.iteration
    if post.method == "grid":
        assert walk.shape == (500, 32, 2)
        assert_array_equal(flat, post.sample(16000, seed=3))
        assert (share == 1).all()
        assert_allclose(backend.get_autocorr_time(tol=0), 1, atol=0.3)
        assert post.to_emcee(steps=7, walkers=4).get_chain().shape == (7, 4, 2)
        with pytest.raises(ValueError, match="walkers: must be at least 4, not 3"):
            post.to_emcee(walkers=3)
    else:
        kept = (walk[1:] == walk[:-1]).all(axis=2).mean(axis=0) * (len(walk) - 1) / len(walk)
        assert_allclose(share, 1 - kept)
        assert 0 < kept.mean() < 1
        with pytest.raises(ValueError, match="walkers: are those of the chain"):
            post.to_emcee(walkers=80)


def test_a_sampler_goes_on_from_the_last_step(post, tmp_path):
    emcee = pytest.importorskip("emcee")
    pytest.importorskip("h5py")
    path = tmp_path / "chain.h5"
    backend, memory = post.to_emcee(path, seed=3), post.to_emcee(seed=3)
    assert isinstance(backend, emcee.backends.HDFBackend)
    for name in ("get_chain", "get_log_prob"):
        assert_array_equal(getattr(backend, name)(), getattr(memory, name)())
    assert_array_equal(backend.accepted, memory.accepted)

    def logs(y):
        inside = ((y > BOUNDS[:, 0]) & (y < BOUNDS[:, 1])).all(axis=1)
        return np.where(inside, log_density(y), -np.inf)

    for known in (backend, memory):
        steps = known.iteration
        sampler = emcee.EnsembleSampler(known.shape[0], 2, logs, vectorize=True, backend=known)
        sampler.run_mcmc(None, 5)
        assert known.get_chain().shape[0] == steps + 5
    assert_array_equal(backend.get_chain(), memory.get_chain())
    with pytest.raises(FileExistsError, match="chain.h5 holds a chain called 'mcmc' already"):
        post.to_emcee(path)
    assert post.to_emcee(path, group="again").get_chain().shape == memory.get_chain()[:-5].shape


@pytest.mark.parametrize(("name", "extra"), [("getdist", "plot"), ("arviz", "arviz")])
def test_what_is_missing_is_named(grid, name, extra, monkeypatch):
    there = builtins.__import__

    def missing(module, *args, **kwargs):
        if module == name:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return there(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=rf"to_{name}: needs {name}: .*pyflow-sinf\[{extra}\]"):
        getattr(grid, f"to_{name}")()


# ---- scores outside of bounds --------------------------------------------------------------------


@pytest.fixture(scope="module")
def bounded():
    def fit(top, **options):
        x = np.clip(banana(500, seed=1), [-2, -2, 0.1], [2, 4, 3]) * top
        box = np.array([(-2, 2), (-2, 4), (0.1, 3)]) * top
        return pyflow.GIS(x, bounds=box, max_layers=2, n_models=1, verbose=False, **options)

    return fit


POINTS = np.array([[0.5, 0.3, 0.7], [2.5, 0.3, 0.7], [-0.5, 0.1, 1.2], [0.5, 0.3, -0.7]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_outside_of_bounds_the_score_is_zero_if_asked(bounded, dtype):
    flow = bounded(1.0)
    if dtype == np.float32:
        x = banana(900, seed=1)
        x = x[(np.abs(x) < 2).all(axis=1) & (x[:, 2] > 0)].astype(dtype)
        box = [(-2, 2)] * 2 + [(0, 2)]
        flow = pyflow.GIS(x, bounds=box, max_layers=2, n_models=1, verbose=False)
    score, logp = flow.score(POINTS, with_logp=True, outside="zero")
    assert score.dtype == flow.dtype == dtype
    assert_array_equal(logp == -np.inf, [False, True, False, True])
    assert_array_equal(score[[1, 3]], 0)
    inside, logs = flow.score(POINTS[[0, 2]], with_logp=True)
    assert_array_equal(score[[0, 2]], inside)
    assert_array_equal(logp[[0, 2]], logs)
    assert inside.all()
    assert_array_equal(flow.score(POINTS[[0, 2]], outside="zero"), inside)
    assert_array_equal(flow.score(POINTS[[1, 3]], outside="zero"), 0)
    one, log = flow.score(POINTS[1], with_logp=True, outside="zero")
    assert one.shape == (3,)
    assert not one.any()
    assert log == -np.inf
    assert_array_equal(flow.score(POINTS[0], outside="zero"), inside[0])


def test_other_faults_are_refused_all_the_same(bounded):
    flow = bounded(1.0)
    with pytest.raises(ValueError, match="row 1, column 0 is 2.5, outside the bounds"):
        flow.score(POINTS)
    for bad in (POINTS * np.nan, POINTS[:, :2]):
        with pytest.raises(ValueError, match=r"x: (row 0, column 0 is NaN|has 2 columns)"):
            flow.score(bad, outside="zero")
    with pytest.raises(ValueError, match='outside: must be "raise" or "zero", not None'):
        flow.score(POINTS, outside=None)


def test_conditions_go_with_their_points(monkeypatch):
    monkeypatch.setattr(_autoregressive, "STEPS", 4)
    rng = np.random.default_rng(0)
    y = rng.uniform(1, 2, (400, 1))
    x = rng.beta(y, 2, size=(400, 2))
    options = {"condition": y[:300], "condition_validate": y[300:], "bounds": [(0, 1)] * 2}
    flow = pyflow.GIS(x[:300], x[300:], **options, n_models=1, verbose=False)
    x, y = np.array([[-1, 0.5], [0.3, 0.6], [0.2, 7.0], [0.3, 0.6]]), np.array([1, 1.2, 1.5, 1.8])
    for question in (flow.score, flow.score_parameters):
        score, logp = question(x, y[:, None], with_logp=True, outside="zero")
        assert_array_equal(score[[0, 2]], 0)
        assert_array_equal(logp[[0, 2]], -np.inf)
        inside, logs = question(x[[1, 3]], y[[1, 3], None], with_logp=True)
        assert_array_equal(score[[1, 3]], inside)
        assert_array_equal(logp[[1, 3]], logs)
        assert (inside[0] != inside[1]).all()
        with pytest.raises(ValueError, match="outside the bounds"):
            question(x, y[:, None])


def test_members_of_a_mixture_have_bounds_of_their_own(bounded):
    wide, narrow = bounded(1.0), bounded(0.7)
    flow = pyflow.Mixture([wide, narrow], [0.25, 0.75])
    x = np.array([[0.5, 0.3, 0.7], [1.8, 0.3, 0.7], [2.5, 0.3, 0.7]])
    score, logp = flow.score(x, with_logp=True, outside="zero")
    assert_allclose(logp[:2], flow.evaluate_density(x[:2]))
    assert_allclose(score[1], wide.score(x[1]))
    assert_allclose(logp[1], np.log(0.25) + wide.evaluate_density(x[1]))
    assert_allclose(score[0], flow.score(x[0]))
    assert_array_equal(score[2], 0)
    assert logp[2] == -np.inf
    with pytest.raises(ValueError, match="outside the bounds"):
        flow.score(x[1:2])
