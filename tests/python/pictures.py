"""What tests read off a picture."""

import numpy as np


def area(patch):
    """The area under a histogram that was drawn as one outline."""
    x, y = patch.get_path().vertices.T
    return abs(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2))


def check_drawn(figure):
    """It can be drawn, and every axis has a finite range that is not empty."""
    figure.canvas.draw()
    assert figure.axes
    for axes in figure.axes:
        for low, high in (axes.get_xlim(), axes.get_ylim()):
            assert np.isfinite([low, high]).all()
            assert low != high


def band_of(collection):
    """The x, the lower and the upper edge of what fill_between drew."""
    vertices = collection.get_paths()[0].vertices
    x = np.unique(vertices[:, 0])
    ends = [vertices[vertices[:, 0] == value, 1] for value in x]
    return x, np.array([e.min() for e in ends]), np.array([e.max() for e in ends])


def shares_inside(contours, points):
    """The shares of points inside every level that was drawn, the outermost first.

    The path of a filled region begins at its outer boundary.
    """
    return [path.contains_points(points).mean() for path in contours.get_paths()]


def heights(patch):
    """The heights of a histogram that `Axes.hist` drew as one outline: the tops of its steps."""
    x, y = patch.get_path().vertices.T
    n = np.argmax(x)  # the outline goes there in pairs of points, and back along the base if filled
    return y[1 : n + 1 : 2]
