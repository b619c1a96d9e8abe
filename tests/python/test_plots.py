"""Pictures show what they are given."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import pyflow
from pyflow import fields, plots


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


@pytest.mark.parametrize("validation", [True, False])
def test_history_of_a_flow_of_fields(validation):
    x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 30, seed=1)
    flow = pyflow.SymmetricFlow(x[:20], x[20:] if validation else None, epochs=4, verbose=False)
    figure = plots.history(flow)
    check_drawn(figure)
    (axes,) = figure.axes
    assert_allclose(axes.lines[0].get_data(), [np.arange(1, 5), flow.history["logp_train"]])
    if validation:
        assert_allclose(axes.lines[1].get_ydata(), flow.history["logp_validate"])
    assert axes.get_xlabel() == "epoch"
    assert "per pixel" in axes.get_ylabel()


def test_history_of_no_epochs_is_refused():
    x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 30, seed=1)
    with pytest.raises(ValueError, match="model"):
        plots.history(pyflow.SymmetricFlow(x, epochs=0, verbose=False))


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


# ---- fields --------------------------------------------------------------------------------------


def power(k):
    return 1 / (1 + k)


def gaussian_fields(mesh, n, seed, box_size=10.0):
    return fields.gaussian_field(power, mesh, n, box_size=box_size, seed=seed)


def band_of(collection):
    """The x, the lower and the upper edge of what fill_between drew."""
    vertices = collection.get_paths()[0].vertices
    x = np.unique(vertices[:, 0])
    ends = [vertices[vertices[:, 0] == value, 1] for value in x]
    return x, np.array([e.min() for e in ends]), np.array([e.max() for e in ends])


def test_maps_are_those_given():
    data, samples = gaussian_fields((9, 14), 5, seed=0), gaussian_fields((9, 14), 2, seed=1)
    figure = plots.maps(
        data,
        samples,
        count=3,
        titles=["a", "b", "c"],
        label="what",
        transform=np.arcsinh,
        box_size=(5, 7),
        unit="m",
    )
    check_drawn(figure)
    *drawn, bar = figure.axes
    pictures = [axes.images[0] for axes in drawn]
    for picture, x in zip(pictures, [*data[:3], *samples], strict=True):
        assert_allclose(picture.get_array(), np.arcsinh(x))
        assert picture.get_extent() == [0, 7, 0, 5]
        assert picture.origin == "lower"
    assert len({picture.get_clim() for picture in pictures}) == 1
    assert [axes.get_title() for axes in drawn] == ["a", "b", "c", "", ""]
    assert [drawn[i].get_ylabel() for i in (0, 3)] == ["data", "samples of the model"]
    assert drawn[3].get_xlabel() == "m"
    assert bar.get_ylabel() == "what"


def test_maps_of_three_dimensions_are_planes_or_means():
    x = gaussian_fields((5, 7, 4), 2, seed=0)
    for plane, expected in ((None, x.mean(axis=1)), (3, x[:, 3])):
        figure = plots.maps(x, plane=plane)
        check_drawn(figure)
        for axes, picture in zip(figure.axes, expected, strict=False):
            assert_allclose(axes.images[0].get_array(), picture)


def test_colours_tell_of_pixels_beyond():
    x = np.linspace(0, 1, 64).reshape(1, 8, 8)
    assert plots.maps(x, limits=(0, 1)).axes[1]._colorbar.extend == "neither"
    assert plots.maps(x, x + 1, limits=(0, 1)).axes[2]._colorbar.extend == "max"
    assert plots.maps(x, limits=(0.1, 0.9)).axes[1]._colorbar.extend == "both"


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("mesh", [(15, 8), (5, 6, 7)])
def test_field_pdf(mesh, log):
    data, samples = gaussian_fields(mesh, 12, seed=0), 1.5 * gaussian_fields(mesh, 9, seed=1)
    limits, bins = tuple(np.quantile(data, [0.02, 0.95])), 11
    figure = plots.field_pdf(data, samples, bins=bins, limits=limits, log=log, label="delta")
    check_drawn(figure)
    above, below = figure.axes
    width = (limits[1] - limits[0]) / bins
    counts = [np.histogram(x, bins, limits)[0] / (x.size * width) for x in (data, samples)]
    for patch, expected in zip(above.patches, counts, strict=True):
        assert_allclose(patch.get_data().values, expected)
    assert above.get_yscale() == ("log" if log else "linear")
    assert_allclose(below.lines[0].get_ydata(), counts[1] / counts[0])
    each = np.array([np.histogram(x, bins, limits)[0] / (x.size * width) for x in data])
    x, lo, hi = band_of(below.collections[0])
    assert_allclose(x, below.lines[0].get_xdata())
    assert_allclose((hi - lo) / 2, stats.sem(each, axis=0) / counts[0])
    assert_allclose((hi + lo) / 2, 1)
    assert below.get_xlabel() == "delta"


def test_difference_of_distributions():
    data, samples = gaussian_fields((16, 16), 9, seed=0), gaussian_fields((16, 16), 9, seed=1)
    above, below = plots.field_pdf(data, samples, ratio=False).axes
    true, mine = (patch.get_data().values for patch in above.patches)
    assert_allclose(below.lines[0].get_ydata(), mine - true, atol=1e-12)
    lo, hi = below.get_ylim()
    assert lo < np.median(mine - true) < hi


def share_within_two_errors(below, centre=1):
    """Of the points of a lower panel, those within two errors of their difference."""
    (x, lo, hi), (_, low, high) = map(band_of, below.collections[:2])
    y = np.interp(x, *below.lines[0].get_data())
    error = np.hypot((hi - lo) / 2, (high - low) / 2)
    return np.mean(np.abs(y - centre) < 2 * error)


def test_errors_are_those_of_the_ratio():
    """Two sets of fields of one law differ by two errors in 5% of the bins."""
    data, samples = gaussian_fields((32, 32), 80, seed=0), gaussian_fields((32, 32), 60, seed=1)
    figures = [
        plots.field_pdf(data, samples, limits=(-0.8, 0.8)),
        plots.power_spectra(data, samples, 10.0),
    ]
    for figure in figures:
        assert share_within_two_errors(figure.axes[1]) > 0.8
    others = 1.1 * samples
    assert share_within_two_errors(plots.power_spectra(data, others, 10.0).axes[1]) < 0.3


@pytest.mark.parametrize("mesh", [(21, 16), (8, 9, 10)])
def test_power_spectra(mesh):
    data = gaussian_fields(mesh, 200, seed=0)
    figure = plots.power_spectra(data, 2 * data[:50], 10.0, unit="Mpc")
    check_drawn(figure)
    above, below = figure.axes
    k, mean = above.lines[0].get_data()
    assert_allclose(mean, power(k), rtol=0.15)
    assert_allclose(above.lines[1].get_ydata() / mean, 4, rtol=0.4)
    assert_allclose(below.lines[0].get_ydata(), above.lines[1].get_ydata() / mean)
    _, lo, hi = band_of(above.collections[0])
    single = fields.power_spectrum(data, 10.0)[1]
    assert_allclose(np.mean((single >= lo) & (single <= hi), axis=0), 0.68, atol=0.02)
    for axes in (above, below):
        assert axes.get_xscale() == "log"
    assert f"[(Mpc)$^{len(mesh)}$]" in above.get_ylabel()
    assert "[(Mpc)$^{-1}$]" in below.get_xlabel()


def test_power_spectra_of_fields_most_of_which_are_constant():
    data = np.zeros((10, 8, 8))
    data[0] = gaussian_fields((8, 8), 1, seed=0)[0]
    check_drawn(plots.power_spectra(data, data, 1.0))


def test_the_band_of_white_noise():
    """It is the chi-squared distribution's, and 95% of white noise lies inside."""
    n, mesh = 3, (40, 33)
    z = np.random.default_rng(0).normal(size=(n, *mesh))
    picture, _, right, _ = plots.latent_map(z, 5.0).axes
    assert_allclose(picture.images[0].get_array(), z[0])
    k, mean = right.lines[0].get_data()
    modes = fields.power_spectrum(z, 5.0)[2]
    x, lo, hi = band_of(right.collections[0])
    assert_allclose(x, k)
    for edge, p in ((lo, 0.025), (hi, 0.975)):
        assert_allclose(edge, stats.chi2.ppf(p, n * modes) / (n * modes), rtol=2e-3)
    assert np.mean((mean > lo) & (mean < hi)) > 0.85
    expected = fields.power_spectrum(z, 5.0)[1].mean(axis=0) * z[0].size / 25
    assert_allclose(mean, expected)


def test_latent_pixels():
    z = np.random.default_rng(1).normal(size=(20, 64, 64))
    _, middle, _, _ = plots.latent_map(z).axes
    density, edges, _ = middle.patches[0].get_data()
    assert_allclose(np.sum(density * np.diff(edges)), 1)
    x, lo, hi = band_of(middle.collections[0])
    core = np.abs(x) < 3
    assert np.mean((density >= lo) & (density <= hi), where=core) > 0.85
    z[0, 0, :41] = 100  # half a thousandth of the pixels
    middle = plots.latent_map(z).axes[1]
    assert "0.05% of the pixels" in middle.texts[0].get_text()
    assert np.sum(middle.patches[0].get_data().values * np.diff(edges)) < 1.2


def test_latent_maps_that_are_not_white_lie_outside():
    right = plots.latent_map(gaussian_fields((32, 32), 5, seed=0)).axes[2]
    _, lo, hi = band_of(right.collections[0])
    y = right.lines[0].get_ydata()
    assert np.mean((y > lo) & (y < hi)) < 0.3


RNG = np.random.default_rng(0)
ODD = {
    "one field, far away": (x := RNG.normal(size=(7, 5)), x + 1e4),
    "few pixels": (x := RNG.normal(size=(1, 2, 3)), x),
    "a line in half precision": (x := RNG.normal(size=(3, 1, 9)).astype(np.float16), -x),
    "three dimensions": (x := RNG.normal(size=(2, 3, 4, 5)), x + 1e-9),
    "integers, and constant samples": (RNG.integers(0, 3, size=(4, 8, 9)), np.ones((2, 8, 9))),
}


@pytest.mark.parametrize("which", ODD)
def test_odd_fields_are_drawn(which):
    data, samples = ODD[which]
    check_drawn(plots.maps(data, samples))
    check_drawn(plots.field_pdf(data, samples))
    check_drawn(plots.field_pdf(data, samples, log=False, ratio=False))
    check_drawn(plots.power_spectra(data, samples))
    check_drawn(plots.latent_map(samples))


def test_constant_data_are_drawn():
    constant = np.ones((2, 7, 5))
    check_drawn(plots.maps(constant))
    check_drawn(plots.field_pdf(constant, constant))


X = np.random.default_rng(0).normal(size=(3, 6, 6))


@pytest.mark.parametrize("draw", [plots.maps, plots.field_pdf, plots.power_spectra])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0, 0], "must have shape"),
        (X[:0], "is empty"),
        (np.where(X > 2, np.nan, X), "NaN or infinite"),
        (X * np.inf, "NaN or infinite"),
        (X + 1j, "must hold real numbers"),
        (X.astype(str), "must hold real numbers"),
    ],
)
def test_wrong_fields(draw, x, message):
    with pytest.raises(ValueError, match=f"data: .*{message}"):
        draw(x, X)
    with pytest.raises(ValueError, match=f"samples: .*{message}"):
        draw(X, x)
    with pytest.raises(ValueError, match=f"z: .*{message}"):
        plots.latent_map(x)
    with pytest.raises(ValueError, match=r"samples: its fields have shape \(6, 5\)"):
        draw(X, X[:, :, :5])


@pytest.mark.parametrize(
    ("draw", "options", "message"),
    [
        (plots.maps, {"count": 0}, "count: must be"),
        (plots.maps, {"plane": 0}, "plane: these fields"),
        (plots.maps, {"titles": ["a"]}, "titles: 1 titles for 3"),
        (plots.maps, {"limits": (1, 0)}, "limits: must be two"),
        (plots.maps, {"box_size": -1}, "box_size: must be positive"),
        (plots.maps, {"transform": np.log}, "transform: gives NaN or infinity, of data"),
        (plots.maps, {"transform": np.sum}, "transform: must give"),
        (plots.field_pdf, {"bins": 0}, "bins: must be"),
        (plots.field_pdf, {"limits": (0, np.nan)}, "limits: must be two"),
        (plots.power_spectra, {"box_size": (1, 2, 3)}, "box_size: must be"),
        (plots.power_spectra, {"bins": [1e6, 1e7]}, "bins: no mode"),
    ],
)
def test_wrong_options(draw, options, message):
    with pytest.raises(ValueError, match=message):
        draw(X, X, **options)


def test_power_of_nothing_is_refused():
    with pytest.raises(ValueError, match="data: the fields are constant"):
        plots.power_spectra(0.1 + 0 * X, X)


# ---- posteriors ----------------------------------------------------------------------------------

NAMES = [r"$\Omega_m$", "sigma_8", "n*s"]


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
    assert [axes[1, j].get_xlabel() for j in (0, 1)] == NAMES[:2]
    assert axes[1, 0].get_ylabel() == NAMES[1]
    assert any(np.allclose(line.get_xdata(), 0.5) for line in axes[1, 0].lines)
    assert any(np.allclose(line.get_ydata(), -2) for line in axes[1, 0].lines)
    legends = [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]
    assert [text.get_text() for text in legends[0].get_texts()] == ["wide", "narrow"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("p", [1, 2, 3])
def test_posteriors_of_one_to_three_parameters(p, getdist):
    figure = plots.posteriors(posterior(1.0, p), masses=[0.5], getdist=getdist)
    check_drawn(figure)
    axes = by_place(figure)
    assert [axes[p - 1, j].get_xlabel() for j in range(p)] == NAMES[:p]
    check_drawn(plots.posteriors([posterior(1.0, p)] * 9, truth=[99.0] * p, getdist=getdist))


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


def test_pictures_of_fields_leave_the_style_of_others_alone(getdist):
    before = dict(plt.rcParams)
    plots.maps(X)
    plots.posteriors([posterior(1.0)], getdist=getdist)
    assert dict(plt.rcParams) == before
