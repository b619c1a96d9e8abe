"""How GIS begins: marginals first, or whitening first where validation rows prefer it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import stats

import pyflow
from pyflow import _core

MARGINALS, WHITENING = ("columns", "sliced", "affine"), ("columns", "affine", "sliced")


def factors(n, seed, d=30, factors=4, least=1e-3):
    """Return rows that are near a plane: factors and noise of very different size."""
    of = np.random.default_rng(0)
    loadings, noise = of.normal(size=(factors, d)), np.exp(of.uniform(np.log(least), 0, d))
    rng = np.random.default_rng(seed)
    return rng.standard_t(4, size=(n, factors)) @ loadings + noise * rng.normal(size=(n, d))


def fit(*args, **options):
    return pyflow.GIS(*args, **{"n_models": 1, "verbose": False} | options)


@pytest.mark.parametrize("n", [300, 2000])
def test_near_dependent_columns_are_whitened_first(n):
    train, validate, test = factors(n, 1), factors(n // 3, 2), factors(2000, 3)
    flow = fit(train, validate, max_layers=60)
    assert flow.layers[:2] == WHITENING[:2]
    gaussian = stats.multivariate_normal(train.mean(axis=0), np.cov(train.T)).logpdf(test)
    gain = flow.evaluate_density(test) - gaussian
    assert gain.mean() > -2 * gain.std() / np.sqrt(len(gain))
    other = fit(train, validate, max_layers=60, marginal_first=True)
    assert other.layers[:3] == MARGINALS
    assert flow.evaluate_density(test).mean() > other.evaluate_density(test).mean() + 5


def curved(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    x[:, 1:] += 0.5 * x[:, :1] ** 2
    return x


def test_otherwise_the_fit_is_that_of_marginals_first():
    x, y = curved(500, 0), curved(200, 1)
    flow, plain = fit(x, y), fit(x, y, marginal_first=True)
    assert flow.layers[:3] == MARGINALS
    assert_array_equal(flow.evaluate_density(y), plain.evaluate_density(y))


def test_the_race_is_not_heard_and_leaves_nothing(tmp_path):
    """One walk of the layers, one warning; the checkpoint and what goes on are the fit's."""
    x, y = factors(2000, 1), factors(700, 2)
    seen = []
    flow = fit(x, y, max_layers=6, progress=seen.append, checkpoint=tmp_path / "fit")
    steps = [p.step for p in seen]
    assert steps == sorted(set(steps))
    assert flow.layers[:2] == WHITENING[:2]
    assert pyflow.load(tmp_path / "fit").layers == flow.layers
    longer = fit(x, y, max_layers=9, model=flow)
    whole = fit(x, y, max_layers=9)
    assert_array_equal(longer.evaluate_density(y), whole.evaluate_density(y))
    both = np.concatenate([y[:60], x[:40]])
    with pytest.warns(UserWarning, match="are in data_train too") as warned:
        fit(x, both, max_layers=3)
    assert len(warned) == 1


def test_what_is_given_is_not_raced():
    x, y = factors(300, 1), factors(100, 2)
    assert fit(x, y, max_layers=2, whiten=False).layers[:3] == ("columns", "sliced", "sliced")
    assert fit(x, y, max_layers=2, marginal_first=True).layers[:3] == MARGINALS
    assert fit(x, y, max_layers=2, marginal_first=False).layers[:2] == ("columns", "affine")
    assert fit(x, max_layers=2).layers[:3] == MARGINALS


def test_a_fit_goes_on_from_any_of_its_layers_as_if_it_had_not_ended():
    """An interrupted one too: before the marginals it has columns alone, or whitened ones."""
    x, y = factors(2000, 1), factors(700, 2)
    whole = fit(x, y, max_layers=4)
    assert whole.layers[:3] == WHITENING
    for k in range(1, len(whole)):
        again = fit(x, y, max_layers=4, model=whole[:k])
        assert again.layers == whole.layers
        assert_array_equal(again.evaluate_density(y), whole.evaluate_density(y))


def test_the_race_does_not_depend_on_threads():
    x, y, flows = factors(2000, 1), factors(700, 2), []
    before = pyflow.get_num_threads()
    try:
        for n in (1, 2, 5):
            pyflow.set_num_threads(n)
            flows.append(fit(x, y, max_layers=4))
    finally:
        pyflow.set_num_threads(before)
    assert flows[0] == flows[1] == flows[2]


def test_a_race_ends_when_it_is_to(tmp_path):
    """Soon, without a flow and without a checkpoint."""
    asked = []

    def stop():
        asked.append(1)
        raise KeyboardInterrupt

    def work():
        _core.work(1, stop)
        try:
            fit(factors(2000, 1), factors(700, 2), checkpoint=tmp_path / "fit")
        finally:
            _core.work()

    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(work).exception()
    assert isinstance(error, KeyboardInterrupt)
    assert error.flow is None
    assert len(asked) == 1
    assert not list(tmp_path.iterdir())


def test_many_rows_are_not_raced():
    flow = fit(factors(300, 1), factors(50001, 2), max_layers=1)
    assert flow.layers[:2] == MARGINALS[:2]
    assert fit(factors(300, 1), factors(300, 2), max_layers=1).layers[:2] == WHITENING[:2]


def test_the_checkpoint_of_a_race_is_not_that_of_a_fit_without(tmp_path):
    path, x, y = tmp_path / "fit", curved(300, 0), curved(100, 1)
    fit(x, y, max_layers=1, checkpoint=path)
    with pytest.raises(ValueError, match="another fit: marginal_first differs"):
        fit(x, y, max_layers=1, checkpoint=path, marginal_first=True)
