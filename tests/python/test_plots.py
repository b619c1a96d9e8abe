"""Pictures show what they are given."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

import pyflow
from pyflow import plots


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def area(patch):
    """The area under a histogram that was drawn as one outline."""
    x, y = patch.get_path().vertices.T
    return abs(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2))


@pytest.mark.parametrize("d", [1, 3, 7])
def test_marginals(d):
    rng = np.random.default_rng(0)
    data, samples = rng.normal(size=(500, d)), rng.normal(3, size=(400, d))
    names = [f"column {j}" for j in range(d)]
    figure = plots.marginals(data, samples, names=names)
    assert [axes.get_xlabel() for axes in figure.axes] == names
    for j, axes in enumerate(figure.axes):
        filled, line = axes.patches
        assert_allclose(area(filled), 1, rtol=0.02)
        lo, hi = axes.get_xlim()
        assert lo < np.median(data[:, j]) < hi
        assert line.get_edgecolor() != filled.get_facecolor()
    figure.canvas.draw()


def test_pairs():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(3000, 4)) * [1, 1, 5, 1]
    figure = plots.pairs(data, data[:1000], columns=[0, 2, 3])
    assert len(figure.axes) == 6
    figure.canvas.draw()
    lower = next(axes for axes in figure.axes if axes.collections)
    # The outer contour holds 95%: of a Gaussian, out to 2.45 standard deviations.
    filled = lower.collections[0]
    x, y = filled.get_paths()[0].vertices.T
    assert_allclose([np.abs(x).max(), np.abs(y).max()], [2.45, 5 * 2.45], rtol=0.25)


@pytest.mark.parametrize("d", [1, 2, 9])
def test_latent_of_a_gaussian_lies_in_its_band(d):
    z = np.random.default_rng(0).normal(size=(4000, d))
    _, middle, right = plots.latent(z).axes
    band = middle.collections[0].get_paths()[0].vertices
    for line in middle.lines:
        x, y = line.get_data()
        if len(x) > 2:
            limit = np.interp(x, *band[np.argsort(band[:, 0])].T)
            assert np.mean(np.abs(y) < np.abs(limit) * 1.5) > 0.8
    assert_allclose(area(right.patches[0]), 1, rtol=0.03)


def test_latent_of_something_else_does_not():
    z = np.random.default_rng(0).normal(0.3, 1.2, size=(4000, 2))
    middle = plots.latent(z).axes[1]
    y = middle.lines[1].get_ydata()
    assert np.abs(np.median(y) - 0.3) < 0.1


def test_history(model):
    above, below = plots.history(model).axes
    train, validate = (above.lines[i].get_ydata() for i in (0, 1))
    assert_allclose(train, model.history["logp_train"])
    assert_allclose(validate, model.history["logp_validate"])
    lowest, highest = above.get_ylim()
    assert lowest < highest
    assert highest > model.history["logp_train"].max()
    distance = model.history["distance"]
    assert_allclose(below.lines[0].get_ydata(), distance[np.isfinite(distance) & (distance > 0)])


def check_drawn(figure):
    """It can be drawn, and every axis has a finite range that is not empty."""
    figure.canvas.draw()
    assert figure.axes
    for axes in figure.axes:
        for low, high in (axes.get_xlim(), axes.get_ylim()):
            assert np.isfinite([low, high]).all()
            assert low != high


def test_history_without_validation_data(train):
    check_drawn(plots.history(pyflow.GIS(train, max_layers=1, verbose=False)))


def test_odd_tables_are_drawn():
    """Integers, ties, few points, samples far away."""
    rng = np.random.default_rng(0)
    few = rng.integers(0, 3, size=(5, 2))
    tied = np.repeat(rng.normal(size=(10, 2)), 100, axis=0)
    for data in (few, tied):
        for samples in (data, data + 1e6):
            check_drawn(plots.pairs(data, samples))
            check_drawn(plots.marginals(data, samples))
        check_drawn(plots.latent(data))


def test_wrong_tables():
    x = np.zeros((10, 2))
    with pytest.raises(ValueError, match="samples: has 3 columns where data has 2"):
        plots.pairs(x, np.zeros((10, 3)))
    with pytest.raises(ValueError, match="data: must have shape"):
        plots.marginals(x[0], x)
    with pytest.raises(ValueError, match="names: 1 names for 2 columns"):
        plots.marginals(x, x, names=["a"])
    with pytest.raises(ValueError, match="columns: must be between 0 and 1"):
        plots.marginals(x, x, columns=[2])
    with pytest.raises(ValueError, match="z: must have shape"):
        plots.latent([])


def test_the_style_of_others_is_left_alone():
    before = dict(plt.rcParams)
    plots.latent(np.zeros((10, 2)) + np.arange(10)[:, None])
    assert dict(plt.rcParams) == before


def test_matplotlib_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="needs matplotlib"):
        plots.latent(np.zeros((3, 1)))
