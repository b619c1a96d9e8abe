"""The last layer of GIS: latents of rows that were not trained on get the size of a Gaussian's."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow


def curved(n, seed, d=8):
    x = np.random.default_rng(seed).normal(size=(n, d))
    x[:, 1:] += 0.5 * x[:, :1] ** 2
    return x


def fit(*args, **options):
    return pyflow.GIS(*args, **{"n_models": 1, "verbose": False} | options)


def size(flow, x):
    return np.sqrt(np.mean(flow.forward(x)[0] ** 2))


FEW = curved(300, 0), curved(100, 1)


def test_held_out_latents_and_samples_are_as_wide_as_data():
    flow, new = fit(*FEW), curved(20000, 2)
    before = flow[:-1]
    assert flow.layers[-1] == "scale"
    assert "scale" not in before.layers
    assert size(before, new) > 1.06
    assert 0 < size(flow, new) - 1 < 0.8 * (size(before, new) - 1)
    assert flow.evaluate_density(new).mean() > before.evaluate_density(new).mean() + 0.02
    narrow, wide = (
        np.std(f.sample(20000, seed=1)[0][:, 1:]) / new[:, 1:].std() for f in (before, flow)
    )
    assert narrow < wide


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_log_p_of_the_validation_rows_rises_and_is_what_the_history_says(dtype, weighted):
    x, y = (part.astype(dtype) for part in FEW)
    w, v = (np.random.default_rng(3).uniform(0, 2, len(part)).round() for part in FEW)
    given = {"weight_train": w, "weight_validate": v} if weighted else {}
    flow = fit(x, y, **given)
    w, v = (w, v) if weighted else (None, None)
    logp = [np.average(flow.evaluate_density(p), weights=q) for p, q in ((x, w), (y, v))]
    assert_allclose(flow.history["logp_train"][-1], logp[0], rtol=1e-5)
    assert_allclose(flow.history["logp_validate"][-1], logp[1], rtol=1e-5)
    assert logp[1] > np.average(flow[:-1].evaluate_density(y), weights=v)


def test_by_what_they_are_divided():
    flow = fit(*FEW)
    before = flow[:-1]
    r = np.mean(before.forward(FEW[1])[0] ** 2, axis=1)
    log, error = 0.5 * np.log(r.mean()), 0.5 * max(r.std() / r.mean(), 0.5) / np.sqrt(len(r))
    width = max(0.1**2, log**2 - error**2)  # shrunk as calibrate's temperature is
    expected = np.exp(log * width / (width + error**2))
    divided = before.forward(FEW[1])[0] / flow.forward(FEW[1])[0]
    assert_allclose(divided, expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_of_a_gaussian_nothing_changes_beyond_chance(seed):
    x = np.random.default_rng(seed).normal(size=(9000, 3))
    flow = fit(x[:6000], x[6000:])
    by = size(flow[:-1], x[6000:]) / size(flow, x[6000:])
    assert abs(np.log(by)) < 3 / np.sqrt(2 * 3000 * 3)


def test_few_validation_rows_hardly_count():
    """Five rows know the size of eight latents to 11 per cent, and it is right to 1 per cent."""
    logs = []
    for s in range(12):
        few = curved(5, s + 100)
        flow = fit(curved(20000, s), few, max_layers=2, seed=s)
        logs.append([np.log(size(flow[:-1], few)), np.log(size(flow[:-1], few) / size(flow, few))])
    found, divided = np.std(logs, axis=0)
    assert divided < 0.7 * found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [30, 1e4, 1e12])
def test_one_wild_validation_row_does_not_set_the_size(value, dtype):
    x, y, new = (part.astype(dtype) for part in (*FEW, curved(3000, 2)))
    y[3, 1] = value
    flow = fit(x, y, max_layers=20)
    assert flow.layers[-1] == "scale"
    before = flow[:-1]
    assert flow.evaluate_density(y).mean() >= before.evaluate_density(y).mean()
    assert flow.evaluate_density(new).mean() > before.evaluate_density(new).mean() - 0.02


def test_only_what_a_fit_makes_anew_is_taken_off():
    first = [pyflow.layers.Bounds([(None, None)] * 8), pyflow.layers.Sliced(0, 8)]
    by_hand = pyflow.Flow(first, shape=8)
    divided, moved = (
        pyflow.Flow([*first, pyflow.layers.Scale(mean, 3.0)], shape=8) for mean in (0.0, 1.0)
    )
    expected = fit(*FEW, max_layers=3, model=by_hand)
    assert expected.layers[-1] == "scale"
    z = fit(*FEW, max_layers=3, model=divided).forward(FEW[1])[0]
    assert_array_equal(z, expected.forward(FEW[1])[0])
    with pytest.raises(ValueError, match="^model: it has a scale layer"):
        fit(*FEW, max_layers=3, model=moved)


def test_a_fit_that_goes_on_does_it_anew():
    short = fit(*FEW, max_layers=2, patience=99)
    longer = fit(*FEW, max_layers=4, patience=99, model=short)
    whole = fit(*FEW, max_layers=4, patience=99)
    assert longer.layers.count("scale") == 1
    assert_allclose(longer.evaluate_density(FEW[1]), whole.evaluate_density(FEW[1]), rtol=1e-12)


def test_none_without_validation_rows():
    assert "scale" not in fit(FEW[0], max_layers=3).layers
