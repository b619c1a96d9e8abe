"""Pictures of tables show what they are given."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pictures import area, band_of, check_drawn, heights, shares_inside
from scipy import stats

import pyflow
from pyflow import checks, plots


def bent(n, seed):
    """Rows of four columns: no pair of them is as likely with its columns swapped."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)) * [1, 1, 0.3, 2] + [0, 9, 0, 30]
    x[:, 2] += 0.5 * x[:, 0] ** 2
    x[:, 3] -= 1.5 * x[:, 0]
    return x


def density_of(x, edges):
    """Heights of a histogram of which what lies beyond the edges is a part."""
    return np.histogram(x, edges)[0] / (len(x) * np.diff(edges))


@pytest.mark.parametrize("d", [1, 3, 7])
def test_marginals(d):
    rng = np.random.default_rng(0)
    data, samples = rng.normal(size=(500, d)), rng.normal(1, 0.5, size=(400, d))
    names = [f"column {j}" for j in range(d)]
    figure = plots.marginals(data + np.arange(d), samples, names=names, bins=20)
    check_drawn(figure)
    assert [axes.get_xlabel() for axes in figure.axes] == names
    for j, axes in enumerate(figure.axes):
        filled, line = axes.patches
        edges = np.linspace(*axes.get_xlim(), 21)
        assert_allclose(heights(filled), density_of(data[:, j] + j, edges))
        assert_allclose(heights(line), density_of(samples[:, j], edges))
        assert np.mean((data[:, j] + j > edges[0]) & (data[:, j] + j < edges[-1])) > 0.98
        assert line.get_edgecolor() != filled.get_facecolor()


def test_pairs():
    """Column j lies across, column i upwards; contours hold their shares of data and of samples."""
    data, samples = bent(20_000, 0), 0.6 * bent(40_000, 1) + np.array([0.2, 0, 0.3, 10])
    names, columns = list("abcd"), [0, 2, 3]
    figure = plots.pairs(data, samples, names=names, columns=columns)
    check_drawn(figure)
    grid = {(place.rowspan.start, place.colspan.start): axes for axes, place in places(figure)}
    assert set(grid) == {(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)}
    for (i, j), axes in grid.items():
        if i == j:
            edges = np.linspace(*axes.get_xlim(), 51)
            for patch, x in zip(axes.patches, (data, samples), strict=True):
                assert_allclose(heights(patch), density_of(x[:, columns[i]], edges))
            continue
        which = [columns[j], columns[i]]
        filled, lines = axes.collections
        assert_allclose(shares_inside(filled, data[:, which]), [0.95, 0.68, 0.3], atol=0.03)
        assert_allclose(shares_inside(lines, samples[:, which]), [0.95, 0.68, 0.3], atol=0.03)
        assert shares_inside(lines, data[:, which])[1] < 0.55
    assert [grid[2, j].get_xlabel() for j in range(3)] == ["a", "c", "d"]
    assert [grid[i, 0].get_ylabel() for i in range(3)] == ["", "c", "d"]


def places(figure):
    return [(axes, axes.get_subplotspec()) for axes in figure.axes]


@pytest.mark.parametrize("masses", [(0.5,), (0.9, 0.1)])
def test_pairs_of_other_masses(masses):
    x = bent(20_000, 0)[:, [0, 2]]
    (lower,) = (axes for axes in plots.pairs(x, x, masses=masses).axes if axes.collections)
    for contours in lower.collections:
        assert_allclose(shares_inside(contours, x), sorted(masses, reverse=True), atol=0.03)


def test_contours_of_samples_half_of_which_lie_beyond():
    """The limits are those of the data: what holds 95% of these samples is not in the picture."""
    x = bent(20_000, 0)[:, :2]
    samples = x.copy()
    samples[::2] += 1e3
    (lower,) = (axes for axes in plots.pairs(x, samples).axes if axes.collections)
    filled, lines = lower.collections
    assert len(filled.levels) == 4
    assert_allclose(shares_inside(lines, samples), [0.3], atol=0.03)


def test_names_of_tables_are_those_of_the_axes():
    x = bent(300, 0)
    data = {name: x[:, j] for j, name in enumerate("abcd")}
    samples = {name: data[name] for name in "dbca"}  # in another order
    for draw in (plots.marginals, plots.pairs):
        figure = draw(data, samples, columns=["d", 1])
        assert [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()] == ["d", "b"]
        filled, line = figure.axes[0].patches
        assert_array_equal(heights(filled), heights(line))
        with pytest.raises(ValueError, match=r"samples: has no column 'd'"):
            draw(data, {name: data[name] for name in "abc"})
        with pytest.raises(ValueError, match=r"columns: there is none called 'e'"):
            draw(data, samples, columns=["e"])
    assert plots.marginals(data, x, names=list("efgh")).axes[0].get_xlabel() == "e"
    assert len(plots.latent(data, columns=["b"]).axes[1].lines) == 3  # one, zero, and the key's


# ---- latent points -------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 9])
def test_curves_of_latent_points(d):
    """What is drawn of points, and of the distributions that they should follow."""
    z = np.random.default_rng(0).normal(0.3, 1.2, size=(500, d))
    left, middle, right = plots.latent(z, bins=30).axes
    edges = np.linspace(-4.2, 4.2, 31)
    assert len(left.patches) == d + 1
    for patch, x in zip(left.patches, [*z.T, z.ravel()], strict=True):
        assert_allclose(heights(patch), density_of(x, edges))
    reference = left.lines[0]
    assert_allclose(reference.get_ydata(), stats.norm.pdf(reference.get_xdata()))

    curves = [line.get_data() for line in middle.lines if len(line.get_xdata()) > 2]
    for (x, y), column in zip(curves, z.T, strict=True):
        p = stats.norm.cdf(x)
        assert_allclose(p, (np.arange(400) + 0.5) / 400)
        assert_allclose(y, np.quantile(column, p) - x, atol=1e-9)
    assert_allclose(middle.lines[0].get_ydata(), 0)

    square = (z**2).sum(axis=1)
    edges = np.linspace(0, 1.15 * np.quantile(square, 0.998), 31)
    assert_allclose(heights(right.patches[0]), density_of(square, edges))
    t, y = next(line.get_data() for line in right.lines if len(line.get_xdata()))
    assert_allclose(y, stats.chi2.pdf(t, d))


def test_the_band_of_latent_quantiles():
    """Of many columns of a Gaussian, 95% lie inside at every quantile."""
    z = np.random.default_rng(0).normal(size=(300, 400))
    middle = plots.latent(z, columns=range(400)).axes[1]
    x, low, high = band_of(middle.collections[0])
    assert_allclose(high, -low)
    curves = np.array([line.get_ydata() for line in middle.lines if len(line.get_xdata()) > 2])
    inside = np.mean((curves > low) & (curves < high), axis=0)
    assert len(curves) == 400
    assert_allclose(inside[np.abs(x) < 2], 0.95, atol=0.04)


# ---- the course of a fit -------------------------------------------------------------------------


def test_history(model):
    above, below = plots.history(model).axes
    train, validate, best = above.lines
    record = model.history
    at = np.arange(1, len(model) + 1)
    assert_array_equal(train.get_data(), [at, record["logp_train"]])
    assert_array_equal(validate.get_data(), [at, record["logp_validate"]])
    layer = int(np.argmax(record["logp_validate"])) + 1
    assert_array_equal(best.get_data(), [[layer], [record["logp_validate"].max()]])
    assert best.get_marker() == "o"
    assert f"{record['logp_validate'].max():.4g}" in best.get_label()
    lowest, highest = above.get_ylim()
    assert lowest < record["logp_validate"].max() < highest
    assert highest > record["logp_train"].max()
    seen = record["distance"] > 0
    assert_array_equal(below.lines[0].get_data(), [at[seen], record["distance"][seen]])


def test_the_best_layer_is_not_the_last():
    """The mark is where the validation data say, wherever that is."""

    class Fitted:
        shape = (2,)
        history = {  # noqa: RUF012
            "epoch": np.zeros(5),
            "logp_train": np.array([1.0, 2, 3, 4, 5]),
            "logp_validate": np.array([1.0, 4, 2, np.nan, 3]),
            "distance": np.full(5, 0.1),
        }

    best = plots.history(Fitted()).axes[0].lines[2]
    assert_array_equal(best.get_data(), [[2], [4]])


def test_history_without_validation_data(train):
    fitted = pyflow.GIS(train, max_layers=1, verbose=False)
    figure = plots.history(fitted)
    check_drawn(figure)
    (line,) = figure.axes[0].lines  # no validation data, and no best layer
    assert_array_equal(line.get_ydata(), fitted.history["logp_train"])


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
    with pytest.raises(ValueError, match="flow"):
        plots.history(pyflow.SymmetricFlow(x, epochs=0, verbose=False))


# ---- odd tables, wrong tables --------------------------------------------------------------------

FEW = np.random.default_rng(0).integers(0, 3, size=(5, 2))
TIED = np.repeat(np.random.default_rng(1).normal(size=(10, 2)), 100, axis=0)


@pytest.mark.parametrize("data", [FEW, TIED], ids=["few integers", "ties"])
def test_odd_tables_are_drawn(data):
    """All of the data are seen, and samples that lie far away are not."""
    for samples, share in ((data, 1), (data + 1e6, 0)):
        for figure in (plots.pairs(data, samples), plots.marginals(data, samples)):
            check_drawn(figure)
            for axes in figure.axes:
                if axes.patches:
                    filled, line = axes.patches
                    width = np.ptp(axes.get_xlim()) / len(heights(line))
                    assert_allclose(area(filled), 1, rtol=1e-9)
                    assert_allclose(heights(line).sum() * width, share, rtol=1e-9)
                else:
                    assert len(axes.collections) == 1 + share  # no lines of what is not there
    figure = plots.latent(data)
    check_drawn(figure)
    assert_allclose(area(figure.axes[2].patches[0]), 1, rtol=0.03)


def test_wrong_tables():
    x = np.zeros((10, 2))
    with pytest.raises(ValueError, match="samples: has 3 columns where data has 2"):
        plots.pairs(x, np.zeros((10, 3)))
    with pytest.raises(ValueError, match="data: must have shape"):
        plots.marginals(x[0], x)
    with pytest.raises(ValueError, match="data: must hold real numbers"):
        plots.marginals(x + 1j, x)
    with pytest.raises(ValueError, match="names: 1 names for 2 columns"):
        plots.marginals(x, x, names=["a"])
    for columns in ([2], [-1], [0, 2]):
        for draw in (plots.marginals, plots.pairs, lambda a, b, **how: plots.latent(a, **how)):
            with pytest.raises(ValueError, match="columns: must be between 0 and 1"):
                draw(x, x, columns=columns)
    with pytest.raises(ValueError, match="columns: there are none"):
        plots.pairs(x, x, columns=[])
    with pytest.raises(ValueError, match="z: must have shape"):
        plots.latent([])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(value):
    x = bent(50, 0)
    wrong = x.copy()
    wrong[7, 2] = wrong[8, 0] = value
    for draw in (plots.pairs, plots.marginals):
        with pytest.raises(ValueError, match=f"^data: row 7, column 2 is {value}$"):
            draw(wrong, x)
        with pytest.raises(ValueError, match=f"^samples: row 7, column 2 is {value}$"):
            draw(x, wrong)
    with pytest.raises(ValueError, match=f"^z: row 7, column 2 is {value}$"):
        plots.latent(wrong)


# ---- matplotlib and its state --------------------------------------------------------------------


def draw_all():
    """Draw one of each kind of picture."""
    x = np.random.default_rng(0).normal(size=(3, 6, 6))
    table = x.reshape(-1, 3)
    post = pyflow.Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-9, 9)] * 2)
    history = {name: np.arange(3.0) for name in ("logp_train", "logp_validate", "distance")}
    history["epoch"] = np.zeros(3)
    return {
        "history": plots.history(type("Fitted", (), {"history": history, "shape": (2,)})),
        "latent": plots.latent(table),
        "marginals": plots.marginals(table, table),
        "pairs": plots.pairs(table, table),
        "field_pdf": plots.field_pdf(x, x),
        "image_grid": plots.image_grid(x),
        "latent_map": plots.latent_map(x),
        "maps": plots.maps(x),
        "power_spectra": plots.power_spectra(x, x),
        "bispectra": plots.bispectra(x, x),
        "posteriors": plots.posteriors(post),
        "coverage": plots.coverage(checks.coverage([post] * 12, np.linspace([-1, -2], [1, 2], 12))),
        "spread": plots.spread(checks.sample_spread(table, table)),
        "two_samples": plots.two_samples(checks.two_sample_test(table, -table)),
    }


def test_pyplot_has_no_figures_of_ours():
    """A notebook would show them twice; they can still be drawn and saved."""
    mine = plt.figure()
    other = plt.figure()
    before = plt.get_fignums()
    plt.figure(mine.number)
    figures = draw_all()
    assert set(figures) == set(plots.__all__)
    assert plt.get_fignums() == before
    assert plt.gcf() is mine
    for figure in figures.values():
        check_drawn(figure)
        assert np.ptp(np.asarray(figure.canvas.buffer_rgba())) > 100
    post = pyflow.Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-9, 9)] * 2)
    axes = other.subplots(2, 2)
    assert post.plot(axes=axes) is other
    assert plt.fignum_exists(other.number)  # the user's own stays
    plt.close(mine)
    plt.close(other)


def test_pyplot_has_no_figures_after_a_failure():
    before = plt.get_fignums()
    with pytest.raises(ValueError, match="colormap|cmap"):
        plots.maps(np.zeros((1, 4, 4)), cmap="no such map")
    assert plt.get_fignums() == before


def test_the_style_of_others_is_left_alone():
    before = dict(plt.rcParams)
    draw_all()
    assert dict(plt.rcParams) == before


def test_matplotlib_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="needs matplotlib"):
        plots.latent(np.zeros((3, 1)))
