"""Crops of the few photographs that come with other packages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments
from pyflow.datasets.idx import checked_split

if TYPE_CHECKING:
    from pyflow.datasets.idx import Images, Split

    Seed = int | np.random.Generator | None

# Of scikit-learn, then of scikit-image: those in colour that its wheels carry.
SCENES = {"train": ("china.jpg",), "test": ("flower.jpg",)}
MORE = {"train": ("astronaut", "chelsea", "stereo_motorcycle"), "test": ("coffee",)}
SCALES = 4


def __dir__():
    return ["photographs"]


def photographs(n: int, size: int = 32, split: Split = "train", seed: Seed = 0) -> Images:
    """Return random crops of photographs: colour images to try things on where there are no others.

    The photographs are those of scikit-learn (`sklearn.datasets.load_sample_images`; it needs
    Pillow) and of scikit-image (`skimage.data`): a temple, an astronaut, a cat and a motorcycle for
    training, a flower and a cup of coffee for the test. Without scikit-image there are the temple
    and the flower alone, and a warning. Crops are taken at any place, of a large photograph more
    often than of a small one; at one of the scales 1 to 4, a pixel being the mean of a square of so
    many; and mirrored or not.

    So few photographs differ: crops for the test are of other colours and textures than those for
    training, more so than in CIFAR-10 or CelebA.

    Parameters
    ----------
    n : int
        How many.
    size : int
        Height and width, at most 300.
    split : {"train", "test"}
        They have no photograph in common.
    seed : int or numpy.random.Generator, optional
        The crops of a smaller n are the first of a larger one.

    Returns
    -------
    (n, size, size, 3) uint8 array

    Raises
    ------
    ImportError
        If scikit-learn or Pillow is not installed.

    Examples
    --------
    >>> import pyflow
    >>> x = pyflow.datasets.photographs(100, size=16)
    >>> x.shape, x.dtype
    ((100, 16, 16, 3), dtype('uint8'))
    """
    n = _arguments.integer("n", n, 0)
    size = _arguments.integer("size", size, 1, 300)
    # S[i, j] is the sum of the pixels above and left of (i, j): sums of squares are differences.
    sums = [np.pad(scene, ((1, 0), (1, 0), (0, 0))) for scene in _scenes(checked_split(split))]
    sums = [s.cumsum(axis=0, dtype=np.int64).cumsum(axis=1) for s in sums]
    area = np.cumsum([s[1:, 1:, 0].size for s in sums])
    rng = _arguments.generator(seed)
    crops = np.empty((n, size, size, 3), np.uint8)
    for crop in crops:
        s = sums[np.searchsorted(area, rng.integers(area[-1]), side="right")]
        height, width = s.shape[0] - 1, s.shape[1] - 1
        scale = rng.integers(1, min(SCALES, height // size, width // size) + 1)
        side = scale * size
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        corners = s[top : top + side + 1 : scale, left : left + side + 1 : scale]
        squares = np.diff(np.diff(corners, axis=0), axis=1)
        mean = (squares + scale**2 // 2) // scale**2  # rounded
        crop[:] = mean[:, ::-1] if rng.integers(2) else mean
    return crops


def _scenes(split):
    """Return the photographs, (height, width, 3) uint8 arrays of at least 300 x 300."""
    try:
        from sklearn.datasets import load_sample_image

        scenes = [load_sample_image(name) for name in SCENES[split]]
    except ImportError:
        raise ImportError(
            "pyflow.datasets.photographs needs scikit-learn and Pillow: "
            'pip install "pyflow-sinf[images,sklearn]"'
        ) from None
    try:
        import skimage.data
    except ImportError:
        _arguments.warn(
            "photographs: the crops come from one photograph; more are in scikit-image, "
            "which is not installed"
        )
        return scenes
    for name in MORE[split]:
        scene = getattr(skimage.data, name)()
        scenes.append(scene[0] if name == "stereo_motorcycle" else scene)  # its left image
    return scenes
