"""Pictures of fields show what they are given."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from pictures import band_of, check_drawn
from scipy import special, stats

from pyflow import fields, plots


def power(k):
    return 1 / (1 + k)


def gaussian_fields(mesh, n, seed, box_size=10.0):
    return fields.gaussian_field(power, mesh, n, box_size=box_size, seed=seed)


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


def test_the_bar_of_colours_tells_of_a_transform():
    x = gaussian_fields((5, 7), 1, seed=0)
    for transform, label in (
        (None, "field"),
        (np.arcsinh, "arcsinh(field)"),
        (lambda y: y**2, "transformed field"),
    ):
        assert plots.maps(x, transform=transform).axes[-1].get_ylabel() == label


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
    assert above.get_ylabel() == f"$P(k)$  [Mpc$^{{{len(mesh)}}}$]"
    assert below.get_xlabel() == "$k$  [Mpc$^{-1}$]"


@pytest.mark.parametrize(
    ("unit", "over", "square"),
    [
        ("Mpc/h", "$h$/Mpc", "(Mpc/$h$)$^{2}$"),
        ("kpc", "kpc$^{-1}$", "kpc$^{2}$"),
        ("$h^{-1}$ Mpc", "($h^{-1}$ Mpc)$^{-1}$", "($h^{-1}$ Mpc)$^{2}$"),
    ],
)
def test_units_of_wave_numbers(unit, over, square):
    x = gaussian_fields((8, 8), 3, seed=0)
    above, below = plots.power_spectra(x, x, 10.0, unit=unit).axes
    assert above.get_ylabel() == f"$P(k)$  [{square}]"
    for axes in (below, plots.bispectra(x, x, 10.0, unit=unit).axes[1]):
        assert axes.get_xlabel() == f"$k$  [{over}]"
    assert plots.latent_map(x, 10.0, unit=unit).axes[2].get_xlabel() == f"$k$  [{over}]"


def test_spectra_in_pairs():
    """What a pair shares cancels: its error is that of a single field's own scatter."""
    n = 100
    amplitude = np.exp(np.random.default_rng(2).normal(size=n))[:, None, None]
    data = amplitude * gaussian_fields((16, 16), n, seed=0)
    samples = 1.05 * amplitude * gaussian_fields((16, 16), n, seed=1)
    _, p, modes = fields.power_spectrum(data, 10.0)
    q = fields.power_spectrum(samples, 10.0)[1]
    below = plots.power_spectra(data, samples, 10.0, paired=True).axes[1]
    _, lo, hi = band_of(below.collections[0])
    y = below.lines[0].get_ydata()
    assert_allclose(y, np.exp(np.mean(np.log(q / p), axis=0)))
    error = np.std(np.log(q / p), axis=0, ddof=1) / np.sqrt(n)
    assert_allclose(np.log([lo, hi]), [-error, error])
    # of a spectrum of M modes, which come in pairs of one: log chi^2 of M degrees of freedom
    assert_allclose(error, np.sqrt(2 * special.polygamma(1, modes / 2) / n), rtol=0.25)
    assert np.all(np.abs(np.log(y / 1.05**2)) < 3.5 * error)
    _, low, high = band_of(plots.power_spectra(data, samples, 10.0).axes[1].collections[0])
    assert np.all(high[-3:] - low[-3:] > 5 * (hi - lo)[-3:])

    below = plots.bispectra(data, samples, 10.0, paired=True).axes[1]
    _, lo, hi = band_of(below.collections[0])
    assert_allclose(hi, -lo)
    with pytest.raises(ValueError, match="paired: needs a sample for every field"):
        plots.power_spectra(data, samples[1:], paired=True)


def test_pairs_without_power_have_no_ratio():
    data = gaussian_fields((8, 8), 5, seed=0)
    samples = data.copy()
    data[0], samples[1] = 0, 0
    figure = plots.power_spectra(data, samples, paired=True)
    check_drawn(figure)
    assert_allclose(figure.axes[1].lines[0].get_ydata(), 1)


def test_a_single_pair_with_power_has_no_error():
    data = gaussian_fields((8, 8), 3, seed=0)
    samples = 1.3 * data
    samples[1:] = 0
    below = plots.power_spectra(data, samples, paired=True).axes[1]
    assert not below.collections[0].get_paths()
    assert below.get_legend() is None
    assert_allclose(below.lines[0].get_ydata(), 1.69)


def test_no_ratio_is_cut_off():
    """Neither at the lowest k, nor where it is high; one beyond five has a mark at the top."""
    data = gaussian_fields((16, 16), 20, seed=0)
    k, p, _ = fields.power_spectrum(data, 10.0)
    for factor in (0.3, 1.0, 2.0):
        samples = factor * gaussian_fields((16, 16), 3, seed=1)
        q = fields.power_spectrum(samples, 10.0)[1].mean(axis=0) / p.mean(axis=0)
        below = plots.power_spectra(data, samples, 10.0).axes[1]
        lo, hi = below.get_ylim()
        assert lo < q.min()
        assert hi > min(q.max(), 5)
        assert below.get_xlim()[0] < k[0]
        marks = [line.get_xdata() for line in below.lines if line.get_marker() == "^"]
        assert (set(k[q > 5]) <= set(marks[0])) if marks else not (q > 5).any()


def test_power_spectra_of_fields_most_of_which_are_constant():
    data = np.zeros((10, 8, 8))
    data[0] = gaussian_fields((8, 8), 1, seed=0)[0]
    figure = plots.power_spectra(data, data, 1.0)
    check_drawn(figure)
    line = figure.axes[0].lines[0]
    assert_allclose(line.get_ydata(), fields.power_spectrum(data[0])[1] / 10)


def test_power_spectra_of_a_box_of_unequal_sides():
    data, box = gaussian_fields((8, 12), 5, seed=0), (4.0, 30.0)
    k, spectra, _ = fields.power_spectrum(data, box)
    line = plots.power_spectra(data, data, box).axes[0].lines[0]
    assert_allclose(line.get_data(), [k, spectra.mean(axis=0)])
    z = np.random.default_rng(0).normal(size=(3, 8, 12))
    picture, _, right, _ = plots.latent_map(z, box).axes
    assert picture.images[0].get_extent() == [0, 30, 0, 4]
    k, spectra, _ = fields.power_spectrum(z, box)
    assert_allclose(right.lines[0].get_data(), [k, spectra.mean(axis=0) * 96 / 120])


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
    (reference,) = middle.lines
    assert_allclose(reference.get_ydata(), stats.norm.pdf(reference.get_xdata()))
    x, lo, hi = band_of(middle.collections[0])
    assert_allclose((hi + lo)[30] / 2, stats.norm.pdf(x[30]))
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
    figure = plots.maps(constant)
    check_drawn(figure)
    assert (figure.axes[0].images[0].get_array() == 1).all()
    figure = plots.field_pdf(constant, constant)
    check_drawn(figure)
    for patch in figure.axes[0].patches:
        density, edges, _ = patch.get_data()
        assert_allclose(np.sum(density * np.diff(edges)), 1)
        assert edges[0] < 1 < edges[-1]


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
