"""What holds for every fit of GIS: weights, seeds, bounds, defaults, labels."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow

precisions = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def fit(*args, **options):
    return pyflow.GIS(*args, verbose=False, **options)


def curved(n, seed, d=3):
    x = np.random.default_rng(seed).normal(size=(n, d))
    x[:, 1:] += 0.5 * x[:, :1] ** 2
    return x


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 3, 11])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("kept", [0.9, 0.4])
def test_rows_of_zero_weight_are_rows_left_out(d, labelled, kept):
    rng = np.random.default_rng(d)
    x, y, z = curved(5200, 0, d), curved(900, 1, d), curved(500, 2, d)
    weights = {"train": rng.uniform(size=5200) < kept, "validate": rng.uniform(size=900) < kept}
    labels = {"train": rng.integers(0, 2, 5200), "validate": rng.integers(0, 2, 900)}
    t, v = weights["train"], weights["validate"]
    with_zeros = {"weight_train": t, "weight_validate": v}
    without, label = {}, {}
    if labelled:
        with_zeros |= {"labels": labels["train"], "labels_validate": labels["validate"]}
        without = {"labels": labels["train"][t], "labels_validate": labels["validate"][v]}
        label = {"y": 1}
    a = fit(x, y, max_layers=3, patience=99, **with_zeros)
    b = fit(x[t], y[v], max_layers=3, patience=99, **without)
    assert a.layers == b.layers
    assert_allclose(a.history["logp_train"], b.history["logp_train"], rtol=1e-5)
    # in what order sums are made differs: a row may fall into the next bin
    assert np.mean(np.abs(a.evaluate_density(z, **label) - b.evaluate_density(z, **label))) < 1e-3


# ---- seeds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"slice_steps": 0}, {"slice_points": 600}, {}])
def test_another_seed_gives_another_fit_and_the_same_seed_the_same(options):
    x = curved(3000, 0)
    a, again, b = (
        fit(x, max_layers=2, n_slices=2, seed=seed, **options).evaluate_density(x)
        for seed in (1, 1, 2)
    )
    assert_array_equal(a, again)
    assert not np.array_equal(a, b)


def test_every_layer_has_slices_of_its_own():
    # a layer of one slice moves points along it alone
    x = curved(1000, 0, d=6)
    model = fit(x, max_layers=6, n_slices=1, slice_steps=0, marginal_first=False, whiten=False)
    axes = []
    for k in range(len(model) - 6, len(model)):
        moved = model[: k + 1].forward(x)[0] - model[:k].forward(x)[0]
        axes.append(np.linalg.svd(moved, full_matrices=False)[2][0])
    for a, b in itertools.combinations(axes, 2):
        assert abs(a @ b) < 0.99


# ---- bounds --------------------------------------------------------------------------------------


@precisions
@pytest.mark.parametrize("which", ["train", "validate"])
@pytest.mark.parametrize(("beyond", "ok"), [(-0.01, 0), (1.01, 1)])
@pytest.mark.parametrize("bound", [(0, 1), (0, None), (None, 1)])
@pytest.mark.parametrize("going_on", [False, True])
def test_bounds_hold_at_both_ends_for_all_rows(bound, beyond, ok, which, going_on, dtype):
    rng = np.random.default_rng(0)
    data = {"train": rng.uniform(size=(300, 2)), "validate": rng.uniform(size=(300, 2))}
    data = {name: x.astype(dtype) for name, x in data.items()}
    options = {"max_layers": 1, "bounds": [(None, None), bound]}
    if going_on:
        options = {"max_layers": 2, "model": fit(*data.values(), **options)}
    data[which][123, 1] = ok
    assert np.isfinite(fit(*data.values(), **options).history["logp_train"]).all()
    data[which][123, 1] = beyond
    if bound[beyond > 0] is None:
        assert np.isfinite(fit(*data.values(), **options).history["logp_train"]).all()
    else:
        with pytest.raises(ValueError, match=rf"^data_{which}: row 123, column 1 .* outside"):
            fit(*data.values(), **options)


# ---- defaults ------------------------------------------------------------------------------------


def documented(n, d):
    """The defaults as GIS's docstring says them."""
    step = min(0.011 * (n / d) ** 0.45, 0.5)
    return {
        "max_layers": 4000,
        "patience": 100,
        "min_improvement": 0,
        "n_slices": d if d <= 8 else min(d, 128) if n < 20 * d else 8,
        "n_knots": int(min(max(np.sqrt(n), 50), 200)),
        "kde": True,
        "bandwidth_factor": 1.2,
        "alpha": (1 - step, 1 - 0.03 * step),
        "slice_points": int(1e5 * np.log10(max(d, 10))),
        "slice_steps": int(min(max(n / d, 1), 200)),
        "whiten": True,
        "seed": 0,
    }


@pytest.mark.parametrize(("n", "d"), [(300, 2), (700, 9), (100, 12), (6000, 3), (101_000, 1)])
def test_a_default_is_its_documented_value(n, d):
    x, y = curved(n, 0, d), curved(400, 1, d)
    options = documented(n, d)
    limit = {"max_layers": 2} if n > 5000 else {"n_models": 1}
    plain = fit(x, y, **limit)
    assert_array_equal(
        fit(x, y, **{**options, **limit}).evaluate_density(y), plain.evaluate_density(y)
    )
    for name, value in options.items():
        if name not in limit:
            one = fit(x, y, **limit, **{name: value})
            assert_array_equal(one.evaluate_density(y), plain.evaluate_density(y), err_msg=name)


# ---- labels --------------------------------------------------------------------------------------


@precisions
def test_labels_matter_in_every_pass(dtype):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 2000)
    x = (curved(2000, 0) * (1 + label[:, None])).astype(dtype)
    model = fit(x[:1500], x[1500:], labels=label[:1500], labels_validate=label[1500:], max_layers=3)
    z = x[1500:]
    ways = {
        "evaluate_density": lambda c: model.evaluate_density(z, c),
        "forward": lambda c: model.forward(z, c)[0],
        "logj": lambda c: model.forward(z, c)[1],
        "inverse": lambda c: model.inverse(z, c)[0],
        "score": lambda c: model.score(z, c),
        "sample": lambda c: model.sample(500, c, seed=0)[0],
        "logp of samples": lambda c: model.sample(500, c, seed=0)[1],
    }
    for name, way in ways.items():
        zero, one, mixed = way(0), way(1), way(label[1500:])
        assert np.mean(zero != one) > 0.9, name
        expected = np.where(label[1500:].reshape((-1,) + (1,) * (zero.ndim - 1)), one, zero)
        assert_allclose(mixed, expected, rtol=1e-3, atol=1e-3, err_msg=name)
    # in the fit: with other labels, of either part, it gains less
    other = 1 - label[1500:]
    judged = fit(x[:1500], z, labels=label[:1500], labels_validate=other, max_layers=3, patience=9)
    assert len(judged) < len(model)  # what a class's splines gain is another class's loss
    shuffled = fit(x[:1500], labels=rng.permutation(label[:1500]), max_layers=3)
    assert shuffled.history["logp_train"][-1] < model.history["logp_train"][-1] - 0.1
