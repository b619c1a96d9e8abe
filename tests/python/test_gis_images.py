"""GIS of images: patches, noise between grey levels, bits per dimension."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import pyflow
from pyflow import FileError

DIGITS = load_digits().images.astype(np.uint8)[np.random.default_rng(0).permutation(1797)]
TRAIN, VALIDATE, TEST = DIGITS[:1200], DIGITS[1200:1500], DIGITS[1500:]
QUICK = {"dequantize": 17, "image_shape": (8, 8), "max_layers": 30, "verbose": False}


@pytest.fixture(scope="module")
def digits():
    return pyflow.GIS(TRAIN, VALIDATE, **QUICK)


def test_patches_beat_whole_rows(digits):
    """What is near in an image depends on each other: at equal layers."""
    noise = np.random.default_rng(1).random
    rows = [x.reshape(-1, 64) + noise((len(x), 64)) for x in (TRAIN, VALIDATE)]
    whole = pyflow.GIS(*rows, bounds=[(0, 17)] * 64, max_layers=30, verbose=False)
    bits = digits.bits_per_dimension(TEST).mean()
    assert bits < whole.bits_per_dimension(TEST.reshape(-1, 64)).mean() - 0.03
    assert 1.5 < bits < np.log2(17)  # below uniform grey levels; above any that was published


def test_kernels_alternate(digits):
    assert digits.shape == (8, 8, 1)
    first = digits.layers.index("patch")
    assert set(digits.layers[first:-1]) == {"patch"}
    splines = np.diff([digits[:k].slices for k in range(first, len(digits))])
    assert list(splines[:4]) == [4 * 8, 16 * 4] * 2 or list(splines[:4]) == [4 * 16, 16 * 4] * 2


def test_bits_are_log_density_with_noise(digits):
    """The bits of whole numbers are those of the numbers with their noise; floats have none."""
    noisy = TEST + 0.5
    expected = -digits.evaluate_density(noisy) / np.log(2) / 64
    np.testing.assert_allclose(digits.bits_per_dimension(noisy), expected)
    one, other = (digits.bits_per_dimension(TEST, seed=s) for s in (0, 1))
    assert not np.allclose(one, other)
    assert abs(one.mean() - other.mean()) < 0.1
    np.testing.assert_array_equal(one, digits.bits_per_dimension(TEST.reshape(-1, 64), seed=0))


def test_pixels_stay_within_levels(digits):
    x, logp = digits.sample(500, seed=1)
    assert x.shape == (500, 8, 8, 1)
    assert x.min() >= 0
    assert x.max() <= 17
    np.testing.assert_allclose(digits.evaluate_density(x), logp, rtol=2e-3, atol=0.5)
    outside = np.full((8, 8), 17.5)
    assert digits.evaluate_density(outside) == -np.inf


def test_shapes_are_one_and_the_same(digits):
    for x in (TRAIN.reshape(-1, 64), TRAIN[..., None]):
        again = pyflow.GIS(x, VALIDATE, **{**QUICK, "image_shape": (8, 8, 1)})
        np.testing.assert_array_equal(again.evaluate_density(TEST), digits.evaluate_density(TEST))


def test_classes_and_colour():
    """Patches hold all channels; labels give each class its own splines."""
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 600)
    x = rng.integers(0, 100, (600, 5, 6, 3)) + 100 * label[:, None, None, None]
    x = x.astype(np.uint8)
    flow = pyflow.GIS(x, image_shape=(5, 6, 3), labels=label, max_layers=2, verbose=False)
    own, other = (flow.evaluate_density(x + 0.5, y).mean() for y in (label, 1 - label))
    assert own > other + 10
    assert flow.sample(50, 1, seed=0)[0].mean() > flow.sample(50, 0, seed=0)[0].mean() + 50


def test_the_file_keeps_the_shape(digits, tmp_path):
    digits.save(tmp_path / "digits.flow")
    loaded = pyflow.load(tmp_path / "digits.flow")
    assert loaded.shape == (8, 8, 1)
    np.testing.assert_array_equal(loaded.evaluate_density(TEST), digits.evaluate_density(TEST))
    bad = digits._core.with_note(digits._core.note.replace("[8, 8, 1]", "[8, 9, 1]"))
    with pytest.raises(FileError, match="note"):
        pyflow.Flow._of(bad)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image_shape": (8, 9)}, ValueError, "data_train: must have shape"),
        ({"image_shape": 8}, TypeError, "image_shape"),
        ({"image_shape": (8,)}, ValueError, "image_shape"),
        ({"dequantize": 1}, ValueError, "dequantize"),
        ({"dequantize": "yes"}, TypeError, "dequantize"),
        ({"bounds": [(0, 17)] * 64}, ValueError, "bounds"),
        ({"data_validate": VALIDATE[:, :4]}, ValueError, "data_validate: must have shape"),
        ({"data_train": TRAIN.astype(complex)}, TypeError, "data_train"),
        ({"dequantize": 10}, ValueError, "data_train: row"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=f"^{message}"):
        pyflow.GIS(**{"data_train": TRAIN, "data_validate": VALIDATE, **QUICK, **change})


def test_noise_is_for_images():
    with pytest.raises(ValueError, match=r"^dequantize: is for images"):
        pyflow.GIS(TRAIN.reshape(-1, 64), max_layers=1, dequantize=True, verbose=False)


@pytest.mark.parametrize("fit", [pyflow.GIS, pyflow.SIG])
def test_noise_is_added_where_the_fit_added_it(fit):
    """Bits per dimension treat images as the fit did, whatever their dtype."""
    known = {"image_shape": (8, 8), "verbose": False}
    if fit is pyflow.GIS:
        known |= {"max_layers": 2}
        with_noise = fit(TRAIN, **known, dequantize=17)
    else:
        known |= {"schedule": [(2, None, 5)], "n_sample": 500}
        with_noise = fit(TRAIN, **known)
    expected = with_noise.bits_per_dimension(TEST)
    for same in (TEST.astype(np.int64), TEST.astype(np.float32), TEST.astype(np.float64)):
        np.testing.assert_allclose(with_noise.bits_per_dimension(same), expected, atol=0.5)
        assert abs(with_noise.bits_per_dimension(same).mean() - expected.mean()) < 0.01
    continuous = fit(TRAIN + np.random.default_rng(0).random(TRAIN.shape), **known)
    plain = -continuous.evaluate_density(TEST) / np.log(2) / 64
    np.testing.assert_array_equal(continuous.bits_per_dimension(TEST), plain)
    with_noise = pyflow.Flow.from_bytes(with_noise.to_bytes())
    np.testing.assert_array_equal(with_noise.bits_per_dimension(TEST), expected)


def test_noise_is_for_whole_numbers():
    x = TRAIN.astype(np.float32)
    assert pyflow.GIS(x, **{**QUICK, "max_layers": 1}).dtype == np.float32
    x[7, 3, 3] += 0.25
    with pytest.raises(ValueError, match=r"^data_train: image 7 is not of whole numbers"):
        pyflow.GIS(x, **QUICK)
    x[7, 3, 3] = np.nan
    with pytest.raises(ValueError, match=r"^data_train: row 7, column 27 is NaN"):
        pyflow.GIS(x, **QUICK)


def test_a_fit_goes_on_with_the_images_of_its_flow(digits):
    """Image shape and patches come from the flow."""
    first = pyflow.GIS(TRAIN, VALIDATE, **{**QUICK, "max_layers": 1})
    again = pyflow.GIS(TRAIN, VALIDATE, max_layers=3, dequantize=17, model=first, verbose=False)
    assert again.shape == (8, 8, 1)
    assert again.layers[-3:] == ("patch", "patch", "scale")
    again = again[:-1]
    np.testing.assert_array_equal(
        again.evaluate_density(TEST + 0.5), digits[: len(again)].evaluate_density(TEST + 0.5)
    )


@pytest.mark.parametrize("fit", [pyflow.GIS, pyflow.SIG])
@pytest.mark.parametrize("wrong", [np.zeros(192), np.zeros(()), np.zeros((2, 8, 8))])
def test_data_without_an_axis_of_images_are_refused(fit, wrong):
    with pytest.raises(ValueError, match=r"^data_train: must have shape \(n, 8, 8, 3\)"):
        fit(wrong, image_shape=(8, 8, 3), verbose=False, max_layers=1)


@pytest.mark.parametrize("fit", [pyflow.GIS, pyflow.SIG])
def test_a_checkpoint_is_of_one_shape(fit, tmp_path):
    """The same numbers as images of another shape are another fit."""
    x = np.random.default_rng(0).normal(size=(200, 16))
    known = {"max_layers": 1, "verbose": False, "checkpoint": tmp_path / "fit.flow"}
    fit(x, image_shape=(4, 4), **known)
    with pytest.raises(ValueError, match="image_shape"):
        fit(x, image_shape=(2, 8), **known)
