"""The example of images: its parts at tiny sizes; CI runs the whole of it with --quick."""

import sys

import example_script
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pictures import check_drawn

import pyflow

pytestmark = example_script.there("images.py")


@pytest.fixture(scope="module")
def example():
    return example_script.load("images.py")


@pytest.fixture(scope="module")
def digits(example):
    return example.load("digits").first(400)


@pytest.fixture(scope="module")
def fitted(example, digits):
    return example.generator(digits, 14, per_class=True, verbose=False)


@pytest.fixture(scope="module")
def dense(example, digits):
    return example.density(digits, 4, verbose=False)


def test_parts_of_the_digits_are_disjoint(example, digits):
    whole = example.load("digits")
    assert len(whole.x) + len(whole.test) == 1797
    assert (len(whole.labels), len(whole.test_labels)) == (len(whole.x), len(whole.test))
    assert_array_equal(digits.x, whole.x[:400])
    assert_array_equal(digits.labels, whole.labels[:400])
    assert whole.x.max() == whole.levels - 1
    ones = digits.x[digits.labels == 1].mean(axis=0) - digits.x[digits.labels == 0].mean(axis=0)
    assert ones[4, 4, 0] > 5  # the labels are those of the images: zeros are hollow


def test_images_of_other_sets_take_the_shape(example, digits):
    grey = np.full((3, 28, 28, 1), np.array([0, 128, 255]).reshape(3, 1, 1, 1), np.uint8)
    small = example.like(grey, 256, digits)
    assert_array_equal(small, np.full((3, 8, 8, 1), np.array([0, 8, 16]).reshape(3, 1, 1, 1)))
    colour = digits._replace(x=np.zeros((1, 32, 32, 3), np.uint8), levels=256)
    large = example.like(digits.x[:5], 17, colour)
    assert large.shape == (5, 32, 32, 3)
    assert_allclose(large.mean() / 255, digits.x[:5].mean() / 16, atol=0.03)
    same = example.like(digits.x, 17, digits)
    assert_array_equal(same, digits.x)


def test_sets_that_are_missing_are_told(example, digits, tmp_path, capsys, monkeypatch):
    odd = example.odd_ones(digits, tmp_path)
    assert_array_equal(odd["mirrored"][3, :, :, 0], np.fliplr(digits.test[3, :, :, 0]))
    assert_array_equal(odd["upside down"][3, :, :, 0], np.flipud(digits.test[3, :, :, 0]))
    assert "mnist" not in odd
    assert "mnist is left out" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["images.py", "--data", "mnist", "--folder", str(tmp_path)])
    example.main()
    assert capsys.readouterr().out.startswith(f"skipped: {tmp_path}: has no train-images")


@pytest.fixture(scope="module")
def without_classes(example, digits):
    return example.generator(digits, 14, verbose=False)[0]


def test_interpolation_begins_and_ends_at_images(example, digits, without_classes):
    x, z, y = example.pairs_of_test_images(without_classes, digits, pairs=5)
    assert y is None
    images = example.between(without_classes, z, y, digits.levels, steps=4)
    assert images.shape == (5, 4, 8, 8, 1)
    same = (images[:, [0, -1]].swapaxes(0, 1) == x).all(axis=(2, 3, 4))
    assert same.sum() >= 8  # of 10: where float32 undoes all layers
    assert all((images[:, step] != end).any() for step in (1, 2) for end in x)


def test_interpolation_keeps_to_the_shell(example):
    """With the identity for a flow: half-way between orthogonal points of one length is as far."""
    flow = pyflow.Flow([pyflow.layers.Affine(np.eye(4))], shape=(4,))
    ends = np.zeros((2, 1, 4))
    ends[0, 0, 0] = ends[1, 0, 2] = 90.0
    images = example.between(flow, ends, None, 256, steps=3)
    assert_array_equal(images[0], [[90, 0, 0, 0], [63, 0, 63, 0], [0, 0, 90, 0]])


def test_interpolation_within_a_class(example, digits, fitted):
    x, z, y = example.pairs_of_test_images(fitted[0], digits, pairs=12)
    assert_array_equal(y, np.arange(12) % 10)
    labels = {a.tobytes(): label for a, label in zip(digits.test, digits.test_labels, strict=True)}
    assert [[labels[a.tobytes()] for a in end] for end in x] == [y.tolist()] * 2
    images = example.between(fitted[0], z, y, digits.levels, steps=3)
    index, _ = pyflow.metrics.nearest(images[:, 1], digits.x)
    assert (digits.labels[index[:, 0]] == y).mean() > 0.5


def test_film_goes_from_noise_to_images(example, digits, fitted):
    film = fitted[1]
    assert set(film) == {1, 10}
    far = [
        pyflow.metrics.sliced_wasserstein(x, digits.x, n_slices=200)
        for x in (film[1], film[10], example.draw(fitted[0], digits, 64))
    ]
    assert far[0] > 1.5 * far[1] > 0
    assert far[0] > 1.5 * far[2]


def test_samples_are_of_their_class(example, digits, fitted):
    """The nearest training images of samples mostly have the label that was asked for."""
    x = example.draw(fitted[0], digits, 200)
    index, _ = pyflow.metrics.nearest(x, digits.x)
    assert (digits.labels[index[:, 0]] == digits.labels[:200]).mean() > 0.6


def test_measures(example, digits, dense):
    found, (mine, test) = example.quality(digits.x[::-1], digits)
    for same, floor in found.values():
        assert_allclose(same, floor)  # the same set in another order
    assert mine == 0
    assert test > 5
    black = np.zeros_like(digits.x)
    assert all(a > 5 * b for a, b in example.quality(black, digits)[0].values())
    noise = np.random.default_rng(0).integers(0, 17, digits.test.shape, dtype=np.uint8)
    bits, others = example.oddness(dense, digits, {"noise": noise, "same": digits.test})
    assert bits.mean() < np.log2(17)
    assert others["noise"][1] > 0.99
    assert others["same"][1] == 0.5


def test_pictures(example, digits, fitted, without_classes, dense):
    samples = example.draw(fitted[0], digits, 100)
    scores = example.oddness(dense, digits, {"upside down": digits.test[:, ::-1]})
    figures = dict(example.pictures(digits, *fitted, samples, dense, scores))
    assert set(figures) == {"film", "samples", "nearest", "between", "classes", "odd"}
    for figure in figures.values():
        check_drawn(figure)
    names = {name for name, _ in example.pictures(digits, without_classes, {}, samples, None, None)}
    assert names == {"samples", "nearest", "between"}
