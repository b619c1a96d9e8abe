"""Two samples: a classifier's AUC, its error and its p-value, and how wide samples are."""

import importlib

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from pictures import check_drawn
from scipy import special, stats
from sklearn import metrics
from sklearn.ensemble import RandomForestClassifier
from sklearn.naive_bayes import GaussianNB

import pyflow
from pyflow.checks import sample_spread, two_sample_test

BAYES = GaussianNB()


class Line:
    """The classifier whose score is the first column, as if that were all there is to know."""

    def get_params(self, deep=True):
        return {}

    def fit(self, x, y):
        return self

    def decision_function(self, x):
        return x[:, 0]

    def predict(self, x):
        return x[:, 0] > 0


def pair(n, shift=0.0, width=1.0, seed=0, d=2):
    x, y = np.random.default_rng(seed).normal(size=(2, n, d))
    return x, width * y + shift


def test_equal_distributions_are_not_told_apart():
    """Neither by too high an AUC nor with too small an error."""
    z, small = [], 0
    for seed in range(40):
        found = two_sample_test(*pair(60, seed=seed), BAYES, seed=seed)
        z.append((found.auc - 0.5) / found.auc_error)
        small += found.p_value < 0.2
    assert abs(np.mean(z)) < 0.5
    assert 0.5 < np.std(z) < 1.3
    assert small < 17


def test_a_known_auc():
    """Of N(0, 1) and N(s, 1) by their one column: Phi(s / sqrt 2)."""
    found = two_sample_test(*pair(4000, 0.8, d=1), Line())
    assert_allclose(found.auc, special.ndtr(0.8 / np.sqrt(2)), atol=0.02)
    assert_allclose(found.accuracy, special.ndtr(0.4), atol=0.02)
    assert found.p_value < 1e-6
    scores = [
        metrics.roc_auc_score(found.is_y[found.fold == k], found.scores[found.fold == k])
        for k in range(5)
    ]
    assert_allclose(found.auc, np.mean(scores))


def test_the_error_is_that_of_independent_samples():
    """For a classifier that learns nothing it is sqrt(1 + K / (K - 1)) times the scatter."""
    found = [two_sample_test(*pair(100, 0.5, seed=s, d=1), Line()) for s in range(200)]
    scatter = np.std([f.auc for f in found])
    assert_allclose(np.mean([f.auc_error for f in found]), 1.5 * scatter, rtol=0.2)
    assert_allclose(found[0].accuracy_error, np.sqrt(0.24 / 200), rtol=0.1)


def test_differences_are_found_by_the_forest():
    forest = RandomForestClassifier(12, min_samples_leaf=3, random_state=0)
    found = two_sample_test(*pair(200, width=2.5), forest)
    assert found.auc > 0.6
    assert found.p_value < 0.01
    assert f"AUC {found.auc:.3f}" in str(found)
    by_default = two_sample_test(*pair(40, 3.0))
    assert by_default.auc > 0.95


def test_permutations_give_a_p_value():
    far = two_sample_test(*pair(60, 1.5), BAYES, folds=2, permutations=19)
    assert far.p_value == 1 / 20
    options = {"folds": 2, "permutations": 9}
    near = [two_sample_test(*pair(40, seed=s), BAYES, **options, seed=s).p_value for s in range(12)]
    assert set(np.round(10 * np.array(near), 6)) <= set(range(1, 11))
    assert 0.25 < np.mean(near) < 0.85  # 0.55 of uniform ones


def test_samples_told_apart_wholly():
    found = two_sample_test(*pair(40, 50.0), BAYES)
    assert found.auc == found.accuracy == 1
    assert 0 < found.auc_error < 0.1
    assert found.accuracy_error > 0
    assert found.p_value < 1e-6
    check_drawn(found.plot())


def test_copies_are_called_out():
    pytest.importorskip("sklearn")
    x, y = pair(100)
    assert "share rows" in str(two_sample_test(x, x))
    for samples in ((x, y), (x, y + 3)):
        assert "share rows" not in str(two_sample_test(*samples, BAYES))


def test_shapes_sizes_and_tables():
    x, y = pair(90, 2.0, d=6)
    as_images = two_sample_test(x.reshape(-1, 2, 3), y.reshape(-1, 2, 3), BAYES)
    assert as_images.auc == two_sample_test(x, y, BAYES).auc
    assert len(two_sample_test(x, y[:50], BAYES).scores) == 100
    tables = pd.DataFrame(x, columns=list("abcdef")), pd.DataFrame(y, columns=list("abcdef"))
    other = two_sample_test(tables[0], tables[1][list("fedcba")], BAYES)
    assert other.auc == as_images.auc
    assert two_sample_test(x[:, 0], y[:, 0], BAYES).auc > 0.8
    constant = np.column_stack([x, np.ones(90)]), np.column_stack([y, np.ones(90)])
    assert np.isfinite(two_sample_test(*constant, BAYES).auc)


def test_bad_input_names_the_argument():
    x, y = pair(30)
    for args, options, match in [
        ((x, y[:, :1]), {}, "y: has 1 columns where x has 2"),
        ((x * np.nan, y), {}, "x: is NaN or infinite in row 0"),
        ((x, y.astype(str)), {}, "y: must hold real numbers"),
        ((x, y[:0]), {}, "y: must have shape"),
        ((x, y[:9]), {}, "folds: 5 of two rows of each sample need 10, not 9"),
        ((x, y), {"folds": 1}, "folds: must be at least 2"),
    ]:
        with pytest.raises(ValueError, match=match):
            two_sample_test(*args, BAYES, **options)
    with pytest.raises(TypeError, match="classifier: must have predict_proba"):
        two_sample_test(x, y, object())


def test_the_roc_curve_is_drawn():
    found = two_sample_test(*pair(200, 1.0), BAYES)
    figure = found.plot()
    check_drawn(figure)
    below, above = figure.axes[0].lines[-1].get_data()
    order = np.argsort(below, kind="stable")
    assert_allclose(np.trapezoid(above[order], below[order]), found.auc, atol=0.02)
    assert f"{found.auc:.3f}" in figure.axes[0].get_title()
    with pytest.raises(TypeError, match=r"found: must be a pyflow\.checks\.TwoSample, not str"):
        pyflow.plots.two_samples("no")


def test_without_scikit_learn_it_says_so(monkeypatch):
    real = importlib.import_module("builtins").__import__

    def missing(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr("builtins.__import__", missing)
    with pytest.raises(ImportError, match=r"pip install scikit-learn, or 'pyflow-sinf\[sklearn\]'"):
        two_sample_test(*pair(30), BAYES)


# ---- how wide samples are ------------------------------------------------------------------------


def test_spread_is_the_ratio_of_ranges():
    data, samples = pair(3000, width=np.array([1.0, 1.5, 0.7]), d=3)
    found = sample_spread(samples, data)
    expected = np.diff(np.percentile(samples, [5, 95], axis=0), axis=0)[0]
    expected /= np.diff(np.percentile(data, [5, 95], axis=0), axis=0)[0]
    assert_allclose(found.ratio, expected)
    assert_allclose(found.ratio, [1, 1.5, 0.7], rtol=0.08)
    # Var of a quantile: q (1 - q) / (n f^2)
    z, n = stats.norm.ppf(0.95), 3000
    one = (2 * 0.05 * 0.95 - 2 * 0.05**2) / (n * stats.norm.pdf(z) ** 2) / (2 * z) ** 2
    assert_allclose(found.error, np.sqrt(2 * one), rtol=0.3)
    assert f"x1: {found.ratio[1]:.3f}" in str(found)
    check_drawn(found.plot())
    assert [t.get_text() for t in found.plot().axes[0].get_xticklabels()] == ["x0", "x1", "x2"]
    wider = sample_spread(samples, data, (0.25, 0.75))
    assert not np.allclose(wider.ratio, found.ratio)
    assert_allclose(wider.ratio, [1, 1.5, 0.7], rtol=0.12)


def test_spread_keeps_names_and_refuses_by_name():
    data, samples = pair(200)
    table = pd.DataFrame(data, columns=["a", "b"])
    assert sample_spread(samples, table).names == ("a", "b")
    assert sample_spread(table, samples).names == ("a", "b")
    for bad in ((0.9, 0.1), (0.1,), (-0.1, 0.9)):
        with pytest.raises(ValueError, match="quantiles: must be two that rise"):
            sample_spread(samples, data, bad)
    with pytest.raises(ValueError, match="samples: has 1 columns where data has 2"):
        sample_spread(samples[:, :1], data)
    with pytest.raises(TypeError, match=r"found: must be a pyflow\.checks\.Spread, not list"):
        pyflow.plots.spread([1])


def test_columns_of_few_values_have_no_width():
    data, samples = pair(400, width=np.array([1.0, 1.5, 1, 1, 1]), d=5)
    rare = np.random.default_rng(3).random((2, 400)) < 0.05
    for x, flag in ((data, rare[0]), (samples, rare[1])):
        x[:, 2], x[:, 3] = 1, flag
    data[:, 4] = 0
    found = sample_spread(samples, data)
    text = str(found)
    assert "nan" not in text
    assert "inf" not in text
    assert f"are {np.median(found.ratio[:2]):.3f} times" in text
    assert f"x1: {found.ratio[1]:.3f}" in text
    assert "3 of 5 columns, of few values, are left out" in text
    check_drawn(found.plot())
    nothing = sample_spread(samples[:, 2:3], data[:, 2:3])
    assert str(nothing).startswith("Samples and data are not compared: 1 of 1 columns")
    halves = np.repeat([0.0, 1.0], 200)[:, None]
    assert "x0: 2.000 ± 0.000" in str(sample_spread(2 * halves, halves))
    assert "left out" not in str(sample_spread(samples[:, :2], data[:, :2]))
