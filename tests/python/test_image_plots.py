"""Grids of images show what they are given, where it belongs."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose
from pictures import check_drawn

from pyflow import plots

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (7, 4, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)


def drawn(figure):
    check_drawn(figure)
    (axes,) = figure.axes
    return np.asarray(axes.images[0].get_array())


@pytest.mark.parametrize("images", [GREY, GREY[..., None], COLOUR], ids=["hw", "hw1", "hw3"])
@pytest.mark.parametrize("gap", [0, 2])
def test_every_image_is_in_its_cell(images, gap):
    picture = drawn(plots.image_grid(images, 3, 2, gap=gap, limits=(0, 255)))
    assert picture.shape == (3 * 4 + 2 * gap, 2 * 5 + gap, 4)
    x = images.reshape(7, 4, 5, -1)
    for i in range(6):
        top, left = i // 2 * (4 + gap), i % 2 * (5 + gap)
        cell = picture[top : top + 4, left : left + 5]
        assert_allclose(cell[..., :3], np.broadcast_to(x[i] / 255, (4, 5, 3)), atol=1e-6)
        assert (cell[..., 3] == 1).all()
    assert (picture[..., 3] == 0).sum() == picture[..., 3].size - 6 * 20  # gaps are transparent


@pytest.mark.parametrize(
    ("rows", "columns", "cells"),
    [(None, None, (3, 3)), (2, None, (2, 4)), (None, 7, (1, 7)), (4, 2, (4, 2)), (1, 2, (1, 2))],
)
def test_shape_of_the_grid(rows, columns, cells):
    figure = plots.image_grid(
        GREY, rows, columns, gap=0, row_labels=range(cells[0]), column_labels=range(cells[1])
    )
    picture = drawn(figure)
    assert picture.shape[:2] == (4 * cells[0], 5 * cells[1])
    assert (picture[..., 3] == 1).sum() == 20 * min(7, cells[0] * cells[1])
    axes = figure.axes[0]
    assert_allclose(axes.get_yticks(), np.arange(cells[0]) * 4 + 1.5)
    assert_allclose(axes.get_xticks(), np.arange(cells[1]) * 5 + 2)
    assert [t.get_text() for t in axes.get_xticklabels()] == [str(i) for i in range(cells[1])]


def test_limits():
    """By default outliers do not darken the rest, and colours of 8 bits are as they are."""
    grey = np.linspace(0, 16, 4 * 32 * 32).reshape(4, 32, 32)
    grey[0, 0, 0] = -1e30
    picture = drawn(plots.image_grid(grey, 2, 2, gap=0))
    assert picture[0, 0, 0] == 0
    assert picture[-1, -1, 0] == 1
    assert_allclose(picture[..., 0].mean(), 0.5, atol=0.01)
    assert_allclose(drawn(plots.image_grid(COLOUR // 4, gap=0)).max(), 1)  # alpha
    assert drawn(plots.image_grid(COLOUR // 4, gap=0))[..., :3].max() < 64 / 255 + 1e-9
    assert_allclose(
        drawn(plots.image_grid(np.full((1, 2, 2), 7), cmap="gray_r"))[..., 0], 0.5, atol=0.01
    )


def test_draws_into_axes_of_others():
    figure, axes = plt.subplots(1, 2)
    assert plots.image_grid(GREY, ax=axes[1], title="title") is figure
    assert axes[1].get_title() == "title"
    assert not axes[0].images
    plt.close(figure)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((3, 64)), {}, "images: must have shape"),
        (np.zeros((3, 8, 8, 2)), {}, "images: must have shape"),
        (np.zeros((0, 8, 8)), {}, "images: must have shape"),
        (np.zeros((3, 8, 8), complex), {}, "images: must hold real numbers"),
        (np.where(np.arange(3)[:, None, None] == 1, np.nan, np.zeros((3, 2, 2))), {}, "image 1 "),
        (GREY, {"rows": 0}, "rows: must be at least 1"),
        (GREY, {"columns": 0}, "columns: must be at least 1"),
        (GREY, {"gap": -1}, "gap: must be at least 0"),
        (GREY, {"limits": (1, 1)}, "limits: must be two numbers"),
        (GREY, {"row_labels": "ab"}, "row_labels: 2 labels for 3 rows"),
        (GREY, {"column_labels": "ab"}, "column_labels: 2 labels for 3 columns"),
    ],
)
def test_bad_arguments(images, options, message):
    with pytest.raises(ValueError, match=message):
        plots.image_grid(images, **options)
