"""Pictures of tables show what they are given."""

import sys
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from pictures import area, band_of, check_drawn, heights, shares_inside
from scipy import stats
from scipy.spatial.distance import pdist

import pyflow
from pyflow import checks, plots
from pyflow.plots._contours import hard_ends
from pyflow.plots._style import COLOURS


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


# ---- hard ends, names and notes ------------------------------------------------------------------


def with_ends(n, seed):
    """Columns that begin at 2, lie between 0 and 1, and have no ends."""
    rng = np.random.default_rng(seed)
    return np.stack([2 + rng.exponential(size=n), rng.uniform(size=n), rng.normal(size=n)], axis=1)


@pytest.mark.parametrize("n", [300, 1000, 100_000])
def test_hard_ends_are_found_where_they_are(n):
    for seed in range(20):
        x = with_ends(n, seed)
        ends = [hard_ends(column) for column in x.T]
        assert ends[0] == (x[:, 0].min(), None)
        assert ends[1] == (x[:, 1].min(), x[:, 1].max())
        assert ends[2] == (None, None)


@pytest.mark.parametrize(
    "bounds", [None, [(2, None), (0, 1), None], {"b": (0, 1), "a": (2, np.inf)}]
)
def test_contours_end_at_hard_ends(bounds):
    """They are closed along them, hold their shares, and no bin lies across an end."""
    data, samples = with_ends(5000, 0), with_ends(20_000, 1)
    figure = plots.pairs(data, samples, names="abc", bounds=bounds)
    check_drawn(figure)
    grid = {(place.rowspan.start, place.colspan.start): axes for axes, place in places(figure)}
    ends = [(2, None), (0, 1), (None, None)]
    for (i, j), axes in grid.items():
        if i == j:
            for patch in axes.patches:
                middle = np.linspace(*axes.get_xlim(), 2 * len(heights(patch)) + 1)[1::2]
                for end, way in zip(ends[i], (1, -1), strict=True):
                    if end is not None:
                        beyond = way * (middle - end) < 0
                        assert beyond.any()
                        assert (heights(patch)[beyond] == 0).all()
                        assert heights(patch)[~beyond][::way][0] > 0.7  # a whole bin
            continue
        for contours, x in zip(axes.collections, (data, samples), strict=True):
            shares = shares_inside(contours, x[:, [j, i]])
            assert_allclose(shares, [0.95, 0.68, 0.3], atol=0.03)
            loops = contours.get_paths()[0].to_polygons(closed_only=False)
            outer = np.concatenate(loops)
            for column, across in ((j, outer[:, 0]), (i, outer[:, 1])):
                low, high = ends[column]
                if low is not None:
                    assert_allclose(across.min(), low, atol=2e-3)
                if high is not None:
                    assert_allclose(across.max(), high, atol=2e-3)
            for loop in loops:
                assert_allclose(loop[0], loop[-1])


def test_samples_beyond_an_end_of_the_data_are_drawn():
    data, samples = with_ends(5000, 0)[:, [0, 2]], with_ends(5000, 1)[:, [0, 2]]
    samples[:, 0] = 2 + np.random.default_rng(2).normal(scale=0.5, size=5000)
    first, lower, _ = plots.pairs(data, samples, bounds=[(2, None), None]).axes
    filled, lines = lower.collections
    assert filled.get_paths()[0].vertices[:, 0].min() > 1.99
    assert lines.get_paths()[0].vertices[:, 0].min() < 1.5
    assert heights(first.patches[1])[0] > 0


def test_wrong_bounds():
    x = with_ends(200, 0)
    for bounds, message in (
        ([(0, 1)], "bounds: 1 pairs for 3"),
        ({"d": (0, 1)}, "bounds: there is no column called 'd'"),
        ([None, (0, 0.5), None], "bounds: column 1 of data goes from"),
        ([None, (1, 0), None], "bounds: must rise"),
    ):
        for draw in (plots.pairs, plots.marginals):
            with pytest.raises(ValueError, match=message):
                draw(x, x, names="abc", bounds=bounds)


def test_the_key_tells_of_levels_and_of_columns_left_out():
    x = np.random.default_rng(0).normal(size=(50, 27))
    (legend,) = plots.pairs(x, x).legends
    title = legend.get_title().get_text()
    assert title == "contours: 30, 68 and 95 % of points\nthe first 6 of 27 columns"
    (legend,) = plots.pairs(x, x, columns=[0, 1], masses=[0.5]).legends
    assert legend.get_title().get_text() == "contours: 50 % of points"
    assert plots.marginals(x, x).legends[0].get_title().get_text() == "the first 25 of 27 columns"
    assert plots.latent(x).axes[0].get_legend().get_title().get_text() == "25 of 27 columns"


def test_long_names_do_not_overlap():
    x = np.random.default_rng(0).normal(size=(50, 4))
    names = ["solvent accessible surface area", "a_name_with_underscores_in_it", *2 * ["w" * 40]]
    for draw in (plots.pairs, plots.marginals):
        figure = draw(x, x, names=names)
        figure.canvas.draw()
        labels = [axes.xaxis.label for axes in figure.axes if axes.get_xlabel()]
        assert [t.get_text().replace("\n", "") for t in labels][1:] == names[1:]
        boxes = [label.get_window_extent() for label in labels]
        for one, two in pairwise(boxes):
            assert not one.overlaps(two)


def test_parameters_that_are_known_are_written_in_latex():
    x = np.random.default_rng(0).normal(size=(50, 3))
    for draw in (plots.pairs, plots.marginals):
        figure = draw(x, x, names=["omega_m", "sigma_8", "area"])
        labels = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
        assert labels == [r"$\Omega_m$", r"$\sigma_8$", "area"]


# What the cones of those lack who are blind to red, green or blue (Machado et al. 2009).
BLIND = {
    "red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    "none": np.eye(3),
}


@pytest.mark.parametrize("blind", BLIND)
def test_colours_are_told_apart(blind):
    """Of CIE L*a*b*, in which two units are a difference that is just seen."""
    srgb = np.array([to_rgb(colour) for colour in COLOURS])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(BLIND[blind]), 0, 1)
    xyz = seen @ [[0.4339, 0.2126, 0.0178], [0.3762, 0.7152, 0.1095], [0.1899, 0.0722, 0.8728]]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f.T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
    assert pdist(lab).min() > 15


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
    figure = plots.history(model)
    above, below = figure.axes
    train, validate, best = above.lines
    record = model.history
    at = np.arange(1, len(model) + 1)
    assert_array_equal(train.get_data(), [at, record["logp_train"]])
    assert_array_equal(validate.get_data(), [at, record["logp_validate"]])
    layer = int(np.argmax(record["logp_validate"])) + 1
    assert_array_equal(best.get_data(), [[layer], [record["logp_validate"].max()]])
    assert best.get_marker() == "o"
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    expected = f"best: {record['logp_validate'].max():.4g}"
    assert named == ["training data", "validation data", expected]
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


def course(layers, start):
    """A record that begins far below, and whose validation data are best half way."""
    t = np.arange(layers) / layers
    logp = start * np.exp(-20 * t)
    return {
        "epoch": np.zeros(layers),
        "logp_train": logp + t,
        "logp_validate": logp + t - t**2,
        "distance": np.exp(-t),
    }


def fitted_as(*records):
    history = records[0] if len(records) == 1 else records
    return type("Fitted", (), {"history": history, "shape": (2,)})()


def test_the_first_layers_are_seen_and_so_is_the_rest():
    record = course(100, -50)
    above, _ = plots.history(fitted_as(record)).axes
    assert above.get_ylim()[0] < -49
    (inset,) = above.child_axes
    low, high = inset.get_ylim()
    late = np.concatenate([record["logp_train"][20:], record["logp_validate"][20:]])
    assert low < late.min()
    assert late.max() < high < low + 10
    for line, inner in zip(above.lines, inset.lines, strict=True):
        assert_array_equal(line.get_data(), inner.get_data())
    assert not plots.history(fitted_as(course(100, -0.5))).axes[0].child_axes  # of no use


@pytest.mark.parametrize("n", [2, 12])
def test_members_of_a_mixture_are_told_apart(n):
    figure = plots.history(fitted_as(*(course(20, -1 - m) for m in range(n))))
    check_drawn(figure)
    above, below = figure.axes
    trained, validated = above.lines[::3], above.lines[1::3]
    for lines in (trained, validated, below.lines):
        assert len({tuple(np.atleast_1d(line.get_color())) for line in lines}) == n
    for one, two in zip(trained, validated, strict=True):
        assert_array_equal(one.get_color(), two.get_color())
        assert one.get_linestyle() != two.get_linestyle()


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


@pytest.mark.parametrize(
    "draw", [plots.marginals, plots.pairs, lambda a, b, **h: plots.latent(a, **h)]
)
def test_wrong_numbers_of_bins(draw):
    x = bent(50, 0)
    for bins in (2.5, "a", None):
        with pytest.raises(TypeError, match="bins: must be an integer"):
            draw(x, x, bins=bins)
    for bins in (0, -3):
        with pytest.raises(ValueError, match="bins: must be at least"):
            draw(x, x, bins=bins)
    check_drawn(draw(x, x, bins=2))


def test_wrong_masses():
    x = bent(50, 0)
    post = pyflow.Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-5, 5)] * 2)
    for draw in (
        lambda **how: plots.pairs(x, x, **how),
        lambda **how: plots.posteriors(post, **how),
    ):
        for masses in ((1.5,), (-0.5, 0.5), (0, 0.5), (0.5, 1), (), (np.nan,)):
            with pytest.raises(ValueError, match="masses: must be"):
                draw(masses=masses)
        for masses in (0.5, ("a",), None):
            with pytest.raises(TypeError, match="masses: must be"):
                draw(masses=masses)


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
    assert set(figures) == set(plots.__all__) - {"parameter_label", "style"}
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


def test_figures_of_others_in_our_style():
    """Axes of a user's own have the look of ours, and rcParams are afterwards as before."""
    before = dict(plt.rcParams)
    ours = plots.power_spectra(*np.random.default_rng(0).normal(size=(2, 3, 8, 8))).axes[0]
    with plots.style() as colours:
        theirs = Figure().subplots()
        theirs.set(xlabel="k", ylabel="p")
        lines = [theirs.plot([0, 1])[0] for _ in COLOURS]
        theirs.legend(lines[:1], ["a"])
    assert dict(plt.rcParams) == before
    with pytest.raises(ValueError, match="^z: "), plots.style():
        plots.latent(["data"])
    assert dict(plt.rcParams) == before
    for look in (
        lambda axes: [axes.spines[side].get_visible() for side in ("top", "right", "left")],
        lambda axes: [axes.spines[side].get_edgecolor() for side in ("bottom", "left")],
        lambda axes: axes.spines["left"].get_linewidth(),
        lambda axes: [axes.yaxis.label.get_size(), axes.yaxis.label.get_color()],
        lambda axes: [t.get_size() for t in axes.yaxis.get_majorticklabels()[:1]],
        lambda axes: axes.title.get_size(),
        lambda axes: axes.get_legend().get_frame_on(),
    ):
        assert look(theirs) == look(ours)
    assert [line.get_color() for line in lines] == list(COLOURS)
    drawn = [line.get_color() for line in ours.lines]
    assert [colours["data"], colours["samples"]] == drawn
    assert all(to_hex(colour) == colour for colour in colours.values())


def test_labels_of_parameters():
    assert plots.parameter_label("omega_m") == r"$\Omega_m$"
    assert plots.parameter_label("sigma_8") == r"$\sigma_8$"
    assert plots.parameter_label("my sigma_8") == "my sigma_8"


@pytest.mark.parametrize("missing", ["matplotlib", "matplotlib.pyplot"])
def test_matplotlib_is_asked_for_by_name(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match="needs matplotlib"):
        plots.latent(np.zeros((3, 1)))
    if missing == "matplotlib":
        with pytest.raises(ImportError, match="needs matplotlib"), plots.style():
            pass
