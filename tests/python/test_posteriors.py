"""Posteriors of many maps at once: those of one after another, whatever goes wrong among them."""

import pickle
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pyflow
from pyflow import _many, fields

PRIOR = [(0.6, 1.9), (-1.4, -0.6)]


def draw(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.uniform((0.5, -1.5), (2, -0.5), (n, 2))
    x = fields.gaussian_field(
        lambda k: y[:, 0, None, None] * k ** y[:, 1, None, None], (8, 8), box_size=8.0, seed=rng
    )
    return x, y


def fit(**options):
    x, y = draw(200, 1)
    known = {"n_layers": 1, "filter_knots": 8, "hidden": (8, 8), "epochs": 3, "box_size": 8.0}
    return pyflow.SymmetricFlow(x, y_train=y, names=["a", "b"], verbose=False, **known | options)


@pytest.fixture(scope="module")
def flow():
    return fit()


@pytest.fixture(scope="module")
def maps():
    return draw(12, 2)[0]


@pytest.fixture
def threads():
    yield pyflow.set_num_threads
    pyflow.set_num_threads(None)


def assert_same(found, expected):
    """All that a posterior knows and gives, bit for bit."""
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.names == theirs.names
        for name in ("bounds", "mean", "cov", "log_evidence"):
            assert_array_equal(getattr(mine, name), getattr(theirs, name))
        assert_array_equal(mine.sample(20, seed=1), theirs.sample(20, seed=1))
        assert mine.volume() == theirs.volume()
        at = theirs.mean
        assert mine.logp(at) == theirs.logp(at)
        assert pickle.loads(pickle.dumps(mine)).logp(at) == theirs.logp(at)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 16])
def test_they_are_those_of_one_after_another(flow, maps, threads, n_threads):
    threads(1)
    expected = [flow.posterior(x, PRIOR, temperature=0.7) for x in maps]
    threads(n_threads)
    assert_same(flow.posteriors(maps, PRIOR, temperature=0.7), expected)
    assert_same(flow.posteriors(list(maps[:1]), PRIOR, temperature=0.7), expected[:1])


def test_they_run_at_the_same_time(flow, maps, threads):
    """Two maps wait for each other in their priors: one after another they would not meet."""
    threads(2)
    meeting, met = threading.Barrier(2), threading.local()

    def prior(y):
        if not hasattr(met, "once"):
            met.once = True
            meeting.wait(timeout=30)
        return 0.0

    flow.posteriors(maps[:2], prior, bounds=PRIOR)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_each_map_has_its_own_noise_and_fixed_values(maps, threads, n_threads):
    threads(n_threads)
    flow = fit(noise=(0.1, 1.0), noise_condition=True)
    noise, a = np.linspace(0.2, 0.9, 12), np.linspace(0.7, 1.8, 12)
    found = flow.posteriors(maps, noise=noise, fixed={"a": a})
    ones = zip(maps, noise, a, strict=True)
    assert_same(found, [flow.posterior(x, noise=s, fixed={"a": v}) for x, s, v in ones])
    alike = flow.posteriors(maps, noise=0.5)
    assert_same(alike, [flow.posterior(x, noise=0.5) for x in maps])


def test_each_map_has_its_own_second_field(threads):
    threads(2)
    x, y = draw(60, 3)
    c = np.roll(x, 1, axis=1)
    options = {"n_layers": 1, "filter_knots": 6, "hidden": (4,), "epochs": 1, "verbose": False}
    flow = pyflow.SymmetricFlow(x, y_train=y, condition_field=c, **options)
    found = flow.posteriors(x[:4], condition_field=c[:4])
    expected = [flow.posterior(a, condition_field=b) for a, b in zip(x[:4], c[:4], strict=True)]
    assert_same(found, expected)


def test_of_a_mixture_and_by_chains(flow, maps, threads):
    pytest.importorskip("emcee")
    threads(2)
    both = pyflow.Mixture([flow, fit(epochs=1)])
    assert_same(both.posteriors(maps[:4]), [both.posterior(x) for x in maps[:4]])
    how = {"method": "emcee", "steps": 3000}
    rngs = np.random.default_rng(7), np.random.default_rng(7)  # goes on from map to map
    found = flow.posteriors(maps[:2], PRIOR, seed=rngs[0], **how)
    assert_same(found, [flow.posterior(x, PRIOR, seed=rngs[1], **how) for x in maps[:2]])


@pytest.mark.parametrize("n_threads", [1, 2])
def test_check_is_of_them(flow, maps, threads, n_threads):
    y = draw(12, 2)[1]
    threads(n_threads)
    found = flow.check(maps, y)
    posts = flow.posteriors(maps)
    assert_array_equal(found.credibility, [p.credibility(a) for p, a in zip(posts, y, strict=True)])


@pytest.mark.parametrize("n_threads", [1, 2])
def test_errors_name_the_map(flow, maps, threads, n_threads):
    threads(n_threads)
    bad = maps.copy()
    bad[7, 1, 2] = np.nan
    for ask in (flow.posteriors, lambda x: flow.check(x, draw(12, 2)[1])):
        with pytest.raises(ValueError, match="x: field 7, pixel 10 is NaN") as caught:
            ask(bad)
        if hasattr(caught.value, "add_note"):
            assert caught.value.__notes__ == ["The posterior is that of map 7 of x."]
    with pytest.raises(ValueError, match=r"noise: is no condition"):
        flow.posteriors(maps, noise=0.5)
    with pytest.raises(ValueError, match=r"fixed: 'a': must be a number, or 12 of them"):
        flow.posteriors(maps, fixed={"a": [1.0, 2.0]})
    with pytest.raises(ValueError, match="x: must have shape"):
        flow.posteriors(maps[0])
    with pytest.raises(ValueError, match="posteriors: this flow was fitted without y"):
        pyflow.SymmetricFlow(maps, epochs=0, verbose=False).posteriors(maps)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_warnings_come_once_to_the_caller(flow, maps, threads, n_threads):
    """Of the prior, which all share; and of a posterior with the map that it is of."""
    threads(n_threads)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        flow.posteriors(maps[:4], [(0.6, 9.0), PRIOR[1]])
    assert [str(w.message).split(" = ")[0] for w in seen] == ["prior: a"]
    assert seen[0].filename == __file__
    pytest.importorskip("emcee")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        flow.posteriors(maps[:2], PRIOR, method="emcee", steps=20)
    for i, warning in enumerate(seen):
        assert "chain is too short" in str(warning.message)
        assert str(warning.message).endswith(f"(map {i} of x)")
    assert len(seen) == 2


def test_threads_do_as_numpy_is_told(flow, maps, threads):
    threads(2)

    def prior(y):
        return np.log(y[:, 0] - 9.0)  # of a negative number

    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        flow.posteriors(maps, prior, bounds=PRIOR)


@pytest.mark.parametrize("ends", ["ctrl-c", "error"])
def test_the_rest_ends_at_once(flow, maps, threads, ends):
    """On Ctrl-C chains of thousands of steps, whose calls of the core are short, stop within one.

    An error waits for the maps before, and is raised in their order; those behind are left.
    """
    pytest.importorskip("emcee")
    threads(2)
    method = {"ctrl-c": "emcee", "error": "grid"}[ends]
    asked = []

    def prior(y):
        asked.append(len(y))
        if len(asked) == 5:
            if ends == "ctrl-c":
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            else:
                raise OSError("of the prior")
        time.sleep(0.02)
        return 0.0

    many = np.tile(maps, (20, 1, 1))
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt if ends == "ctrl-c" else OSError):
        flow.posteriors(many, prior, bounds=PRIOR, method=method)
    assert len(asked) < 60  # of some 2,400, or of thousands for each map
    assert threading.active_count() == before


def test_a_check_that_fails_leaves_nothing_running(flow, maps, threads, monkeypatch):
    threads(2)
    before = threading.active_count()
    many, y = np.tile(maps, (20, 1, 1)), np.tile(draw(12, 2)[1], (20, 1))

    class Wrong(Exception):
        pass

    def failing(*_):
        raise Wrong

    monkeypatch.setattr(pyflow.Posterior, "credibility", failing)
    with pytest.raises(Wrong) as caught:
        flow.check(many, y)
    assert caught.tb is not None  # and with it the frames
    assert threading.active_count() == before


def test_few_answers_wait_and_none_is_kept(threads):
    """Arguments are read when they are needed, in the caller's thread; answers are handed on."""
    threads(2)
    read, here = [], threading.get_ident()

    def arguments():
        for i in range(100):
            assert threading.get_ident() == here
            read.append(i)
            yield (i,)

    for i, (answer, heard) in enumerate(_many.in_order(lambda i: (i, []), arguments(), 9)):
        assert answer == (i, [])
        assert heard == []
        assert len(read) <= i + 2 * _many.AHEAD + 1
    assert len(read) == 100


def test_a_posterior_holds_no_other_map(flow, maps):
    posts = flow.posteriors(maps)
    assert len(pickle.dumps(posts[0])) < len(pickle.dumps(posts))
    held = posts[0]._known._log_density.x
    while held.base is not None:
        held = held.base
    assert held.size == maps[0].size
