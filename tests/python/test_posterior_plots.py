"""Pictures of posteriors show what they are given."""

import sys
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose
from pictures import check_drawn
from scipy import spatial

import pyflow
from pyflow import plots

NAMES = [r"$\Omega_m$", "sigma_8", "n*s"]
LATEX = [r"$\Omega_m$", r"$\sigma_8$", "n*s"]


def posterior(width, p=2, mean=0.0):
    widths = width * np.arange(1, p + 1)

    def log_density(y):
        return -0.5 * (((y - mean) / widths) ** 2).sum(axis=1)

    return pyflow.Posterior(log_density, [(-30, 30)] * p, NAMES[:p])


@pytest.fixture(params=[False, True], ids=["own", "getdist"])
def getdist(request):
    if request.param:
        pytest.importorskip("getdist")
    return request.param


def by_place(figure):
    """The axes of a figure by row and column."""
    places = {}
    for axes in figure.axes:
        place = axes.get_subplotspec()
        places[place.rowspan.start, place.colspan.start] = axes
    return places


def test_contours_hold_their_mass(getdist, capsys):
    """Those of a Gaussian are ellipses, sqrt(-2 log(1 - mass)) standard deviations away."""
    figure = plots.posteriors(
        [posterior(1.0), posterior(0.3)], ["wide", "narrow"], [0.5, -2.0], getdist=getdist
    )
    check_drawn(figure)
    axes = by_place(figure)
    reaches = set()
    for contours in axes[1, 0].collections:
        for path in contours.get_paths():
            if len(path.vertices) > 8:
                x, y = path.vertices.T
                assert_allclose(np.ptp(y), 2 * np.ptp(x), rtol=0.03)
                reaches.add(round(np.ptp(x) / 2, 2))
    for width in (1.0, 0.3):
        for mass in (0.68, 0.95):
            expected = width * np.sqrt(-2 * np.log(1 - mass))
            assert min(abs(reach / expected - 1) for reach in reaches) < 0.03
    curve = axes[0, 0].lines[0]
    assert_allclose(curve.get_ydata(), np.exp(-0.5 * curve.get_xdata() ** 2), atol=2e-3)
    assert [axes[1, j].get_xlabel() for j in (0, 1)] == LATEX[:2]
    assert axes[1, 0].get_ylabel() == LATEX[1]
    assert any(np.allclose(line.get_xdata(), 0.5) for line in axes[1, 0].lines)
    assert any(np.allclose(line.get_ydata(), -2) for line in axes[1, 0].lines)
    legends = [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]
    assert [text.get_text() for text in legends[0].get_texts()] == ["wide", "narrow"]
    assert "68 and 95 %" in legends[0].get_title().get_text()
    assert capsys.readouterr().out == ""


COV = np.array([[1.0, 0.6, -0.3], [0.6, 4.0, 0.0], [-0.3, 0.0, 0.25]])
MEAN = np.array([1.0, -3.0, 5.0])


def correlated():
    inverse = np.linalg.inv(COV)

    def log_density(y):
        return -0.5 * np.einsum("ij,jk,ik->i", y - MEAN, inverse, y - MEAN)

    return pyflow.Posterior(log_density, [(-12, 12)] * 3, NAMES)


@pytest.mark.parametrize("masses", [(0.68, 0.95), (0.5,)])
def test_each_pair_of_parameters_has_its_own_contours(masses, getdist):
    """Column j lies across and row i upwards: ellipses of that part of the covariance."""
    axes = by_place(plots.posteriors(correlated(), masses=masses, truth=MEAN, getdist=getdist))
    for i in range(3):
        for j in range(i):
            inverse = np.linalg.inv(COV[np.ix_([j, i], [j, i])])
            radii = set()
            for contours in axes[i, j].collections:
                if contours.filled and not getdist:  # which draws no lines but the outermost
                    continue
                for path in contours.get_paths():
                    for loop in path.to_polygons(closed_only=False):
                        y = loop - MEAN[[j, i]]
                        radius = np.sqrt(np.einsum("ij,jk,ik->i", y, inverse, y))
                        assert np.ptp(radius) < 0.12 * radius.mean()
                        radii.add(radius.mean())
            for mass in masses:
                expected = np.sqrt(-2 * np.log(1 - mass))
                assert min(abs(radius / expected - 1) for radius in radii) < 0.03
        x, y = axes[i, i].lines[0].get_data()
        assert_allclose(y, np.exp(-0.5 * (x - MEAN[i]) ** 2 / COV[i, i]), atol=5e-3)
        lo, hi = axes[i, i].get_xlim()
        assert lo < MEAN[i] - 2 * np.sqrt(COV[i, i]) < MEAN[i] + 2 * np.sqrt(COV[i, i]) < hi


@pytest.mark.parametrize("p", [1, 2, 3])
def test_posteriors_of_one_to_three_parameters(p, getdist):
    figure = plots.posteriors(posterior(1.0, p), masses=[0.5], getdist=getdist)
    check_drawn(figure)
    axes = by_place(figure)
    assert [axes[p - 1, j].get_xlabel() for j in range(p)] == LATEX[:p]
    figure = plots.posteriors([posterior(1.0, p)] * 9, truth=[99.0] * p, getdist=getdist)
    check_drawn(figure)
    axes = by_place(figure)
    for j in range(p):  # a truth far away is in the picture, and so are all nine
        lo, hi = axes[j, j].get_xlim()
        assert lo < -2.5 * (j + 1) < 99 < hi
        assert sum(np.ptp(line.get_xdata()) > 1 for line in axes[j, j].lines) == 9


def test_no_posterior_hides_another(getdist):
    """Lines lie over what is filled; with getdist, whose filling is dense, the first alone is."""
    posts = [posterior(0.5), posterior(1.0), posterior(2.0)]
    axes = by_place(plots.posteriors(posts, getdist=getdist))[1, 0]
    filled = [c for c in axes.collections if getattr(c, "filled", False)]
    lines = [c for c in axes.collections if not getattr(c, "filled", True)]
    if getdist:
        assert len(filled) == 1
        assert all(line.get_zorder() >= filled[0].get_zorder() for line in lines)
        order = axes.collections
        assert max(order.index(c) for c in filled) < min(map(order.index, lines[-2:]))
    else:
        assert len(filled) == 6
        assert len(lines) == 3
        assert max(c.get_zorder() for c in filled) < min(c.get_zorder() for c in lines)


@cache
def cut_off(p):
    """A quarter, or so, of a Gaussian."""
    scale = np.arange(1, p + 1)
    return pyflow.Posterior(lambda y: -0.5 * ((y / scale) ** 2).sum(axis=1), [(0, 12)] * p)


@pytest.mark.parametrize("p", [2, 4])
def test_densities_that_the_prior_cuts_off_end_there(p, getdist):
    """Curves go down at the bound, and contours are closed loops that run along it.

    Those of a chain, of four parameters, are nearly as smooth: their hull adds little to them.
    """
    if p == 4:
        pytest.importorskip("emcee")
    scale = np.arange(1, p + 1)
    figure = plots.posteriors(cut_off(p), masses=[0.9], getdist=getdist)
    check_drawn(figure)
    axes = by_place(figure)
    for i in range(p):
        x, y = axes[i, i].lines[0].get_data()
        assert y[0] == 0
        assert_allclose(x[:2], 0, atol=1e-3)
        assert y[1] > 0.9
        assert_allclose(y[1:], np.exp(-0.5 * (x[1:] / scale[i]) ** 2), atol=0.2 if p == 4 else 5e-3)
        for j in range(i):
            (path,) = axes[i, j].collections[-1].get_paths()
            (loop,) = path.to_polygons(closed_only=False)  # no islands
            assert_allclose(loop[0], loop[-1])
            assert_allclose(loop.min(axis=0), 0, atol=1e-3)
            across = np.sqrt(-2 * np.log(0.1))
            assert_allclose(loop.max(axis=0), across * scale[[j, i]], rtol=0.2 if p == 4 else 0.03)
            x, y = loop.T
            area = 0.5 * abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1)))
            assert area / spatial.ConvexHull(loop).volume > 0.96


def test_contours_of_a_chain_that_hold_nearly_all():
    pytest.importorskip("emcee")
    axes = by_place(plots.posteriors(cut_off(4), masses=[0.9999], getdist=False))
    assert len(axes[1, 0].collections[-1].levels) == 1


def test_axes_keep_what_they_show():
    figure = posterior(1.0, mean=-3.0).plot()
    axes = np.array(figure.axes)
    before = axes[0].get_xlim()
    assert posterior(1.0, mean=9.0).plot(axes=axes) is figure
    assert axes[0].get_xlim()[0] == before[0]
    assert axes[0].get_xlim()[1] > 11
    first, second = axes[0].lines
    assert first.get_color() != second.get_color()


def test_posteriors_without_getdist(monkeypatch):
    monkeypatch.setitem(sys.modules, "getdist", None)
    assert len(plots.posteriors([posterior(1.0)]).axes) == 4
    with pytest.raises(ImportError, match="getdist"):
        plots.posteriors([posterior(1.0)], getdist=True)


def test_wrong_posteriors():
    post = posterior(1.0)
    for arguments, options, message in (
        (([],), {}, "posteriors: there are none"),
        (([post, posterior(1.0, 3)],), {}, "posteriors: are of"),
        (([post], ["a", "b"]), {}, "labels: 2 labels for 1"),
        (([post], None, [1.0]), {}, "truth: must be 2"),
        (([post], None, [1.0, np.nan]), {}, "truth: must be 2"),
        (([post],), {"masses": [1.0]}, "masses: must be"),
        (([post],), {"masses": []}, "masses: must be"),
        (([post],), {"axes": [None]}, "axes: must be 2 x 2"),
    ):
        with pytest.raises(ValueError, match=message):
            plots.posteriors(*arguments, **options)
    with pytest.raises(TypeError, match="posteriors: must hold"):
        plots.posteriors([post.mean])


def test_the_style_of_others_is_left_alone(getdist):
    before, open_before = dict(plt.rcParams), plt.get_fignums()
    plots.posteriors([posterior(1.0)], getdist=getdist)
    assert dict(plt.rcParams) == before
    assert plt.get_fignums() == open_before
