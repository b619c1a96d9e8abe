"""Layers of patches: which pixels they move, how they follow a roll, training, files."""

import struct

import numpy as np
import pytest
from layer_kinds import (
    TILE,
)
from numpy.testing import assert_allclose, assert_array_equal
from reference import layers
from test_files import resealed

import pyflow
from pyflow.layers import Affine, Patch

BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64])
UNEVEN = (7, 5, 3)
# of 7 x 5 x 3: rows and columns, of each channel and of all
KERNELS = [(3, 2, 1), (3, 2, 3), (2, 4), 5, (7, 5, 3)]


def curved(flow, seed=0):
    """Return the flow with splines that are not the identity, in every patch others."""
    rng = np.random.default_rng(seed)
    x = rng.gamma(2, size=(60, flow.dim)) - 2
    y = {} if flow.labels is None else {"labels": np.resize(flow.labels, 60)}
    return flow.train(x, epochs=8, batch=20, learning_rate=0.05, verbose=False, **y)


def rolled(x, image, shift):
    return np.roll(x.reshape(-1, *image), shift, axis=(1, 2)).reshape(x.shape)


@pytest.mark.parametrize("kernel", KERNELS)
def test_only_whole_patches_move(kernel):
    whole = (kernel, kernel) if np.ndim(kernel) == 0 else kernel
    whole = (*whole, 3) if len(whole) == 2 else whole
    x = np.random.default_rng(1).normal(size=(TILE + 5, 105))
    for shift in ((0, 0), (2, 1), (6, 4)):
        flow = curved(pyflow.Flow([Patch(UNEVEN, kernel, shift, 2, 5)], shape=105))
        of_patch = layers.patches(UNEVEN, whole, shift)
        assert flow.slices == 2 * len(of_patch)
        assert len(of_patch) == np.prod([n // k for n, k in zip(UNEVEN, whole, strict=True)])
        moved = np.zeros(105, bool)
        moved[of_patch] = True
        assert moved.sum() == of_patch.size
        z, _ = flow.forward(x)
        back, _ = flow.inverse(z)
        assert_array_equal(z[:, ~moved], x[:, ~moved])
        assert_array_equal(back[:, ~moved], x[:, ~moved])
        assert (np.abs(z - x).max(axis=0) > 1e-3)[moved].all()
        # of a patch depends on that patch alone
        for rows in of_patch:
            other = x.copy()
            other[:, rows] += 1
            changed = (flow.forward(other)[0] != z).any(axis=0)
            assert_array_equal(np.flatnonzero(changed), np.sort(rows))


@pytest.mark.parametrize("kernel", [(3, 2, 1), (3, 2, 3)])
def test_a_rolled_image_through_a_layer_rolled_too(kernel):
    x = np.random.default_rng(1).normal(size=(20, 105))
    step, (height, width) = (4, 3), UNEVEN[:2]
    for shift in ((0, 0), (5, 4)):
        on = (shift[0] + step[0]) % height, (shift[1] + step[1]) % width
        # the same splines: parameters stand patch after patch, wherever the image is rolled to
        flow = curved(pyflow.Flow([Patch(UNEVEN, kernel, shift, 2, 5)], shape=105))
        other = pyflow.Flow.from_bytes(with_shift(flow, shift, on))
        for name in ("forward", "inverse"):
            expected, logj = getattr(flow, name)(x)
            got, logj_rolled = getattr(other, name)(rolled(x, UNEVEN, step))
            assert_array_equal(got, rolled(expected, UNEVEN, step))
            assert_array_equal(logj_rolled, logj)
            assert np.abs(got - getattr(flow, name)(rolled(x, UNEVEN, step))[0]).max() > 0.1


def shape_of(flow):
    """Return where in a flow's bytes the shape of its first patch layer stands, and its numbers."""
    data = flow.to_bytes()
    at = data.index(b"patch".ljust(16, b"\0")) + 24
    return data, at, list(struct.unpack("<10q", data[at : at + 80]))


def with_shift(flow, before, shift):
    data, at, shape = shape_of(flow)
    assert shape[6:8] == list(before)
    return resealed(
        data[:at] + struct.pack("<10q", *shape[:6], *shift, *shape[8:]) + data[at + 80 :]
    )


# ---- tiles and threads ---------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("labels", [None, ["a", "b", "c"]])
def test_any_number_of_images_at_once(dtype, labels):
    """Blocks of many tiles go patch by patch; so do parts of a tile, and images alone."""
    image = 6, 5, 2
    flow = pyflow.Flow(
        [Patch(image, 2, (1, 0), 3, 6), Patch(image, (3, 2, 1), (4, 2), 0, 5)],
        shape=60,
        labels=labels,
        dtype=dtype,
    )
    flow = curved(flow)
    n = 17 * TILE + 3
    x = np.random.default_rng(2).normal(size=(n, 60)).astype(dtype)
    y = None if labels is None else np.resize(labels, n)
    whole = {name: getattr(flow, name)(x, y) for name in ("forward", "inverse")}
    logp, score = flow.evaluate_density(x, y), flow.score(x, y)
    sample = flow.sample(n, y, seed=3)
    try:
        for threads in (1, 2, 3):
            pyflow.set_num_threads(threads)
            for rows in (slice(None), slice(0, 2 * TILE), slice(5, 6), slice(n - 40, n)):
                part = None if y is None else y[rows]
                for name, results in whole.items():
                    for a, b in zip(getattr(flow, name)(x[rows], part), results, strict=True):
                        assert_array_equal(a, b[rows])
                assert_array_equal(flow.evaluate_density(x[rows], part), logp[rows])
                assert_array_equal(flow.score(x[rows], part), score[rows])
            for a, b in zip(flow.sample(n, y, seed=3), sample, strict=True):
                assert_array_equal(a, b)
    finally:
        pyflow.set_num_threads(None)
    tolerance = 2e-3 if dtype == np.float32 else 1e-10
    back, minus_logj = flow.inverse(
        *([whole["forward"][0]] if y is None else [whole["forward"][0], y])
    )
    assert_allclose(back, x, atol=tolerance, rtol=tolerance)
    assert_allclose(minus_logj, -whole["forward"][1], atol=10 * tolerance)


# ---- training ------------------------------------------------------------------------------------


def images(n, seed, scale=1.0):
    """4 x 4 images of 2 x 2 blocks: the square of a normal number in each, and noise."""
    rng = np.random.default_rng(seed)
    block = rng.normal(size=(n, 2, 2)) ** 2
    return scale * (np.kron(block, np.ones((1, 2, 2))) + 0.3 * rng.normal(size=(n, 4, 4)))


@BOTH
def test_training_raises_the_likelihood_and_slices_stay_orthonormal(dtype):
    x, validate, test = (images(n, s).astype(dtype) for s, n in enumerate((3000, 1000, 1000)))
    x, validate, test = (a.reshape(len(a), -1) for a in (x, validate, test))
    stack = [Affine(np.eye(16) / x.std(), np.full(16, x.mean()))]
    stack += [Patch((4, 4), 2, (i % 2, i % 2), 4, 8) for i in range(6)]
    flow = pyflow.Flow(stack, shape=16, dtype=dtype, seed=2)
    known = {"epochs": 12, "batch": 100, "learning_rate": 1e-2, "verbose": False}
    trained = flow.train(x, validate, frozen=[True] + [False] * 6, **known)
    gaussian = pyflow.Flow([Affine.whitening(x)], shape=16, dtype=dtype)
    before, after, linear = (f.evaluate_density(test).mean() for f in (flow, trained, gaussian))
    assert after > before + 3
    assert after > linear  # patches know more than the covariance
    for layer in range(1, 7):
        of = [f._core.parameters(layer).reshape(4, -1)[:, -16:] for f in (flow, trained)]
        start, end = (a.reshape(4, 4, 4) for a in of)
        assert_allclose(
            end @ end.transpose(0, 2, 1), np.broadcast_to(np.eye(4), end.shape), atol=1e-12
        )
        assert (np.abs(end - start).max(axis=(1, 2)) > 1e-2).all()  # in each patch
    assert pyflow.Flow.from_bytes(trained.to_bytes()) == trained


def test_labels_have_splines_of_their_own():
    scale = {"low": 0.5, "high": 2.0}
    names = np.resize(list(scale), 2000)
    factor = np.array([scale[name] for name in names])[:, None, None]
    x = (images(2000, 1) * factor).reshape(2000, -1)
    flow = pyflow.Flow([Patch((4, 4), 2, n_slices=4, n_knots=6)] * 2, shape=16, labels=names)
    known = {"epochs": 10, "batch": 100, "learning_rate": 2e-2, "verbose": False}
    flow = flow.train(x[:1000], labels=names[:1000], **known)
    test, y = x[1000:], names[1000:]
    right, wrong = flow.evaluate_density(test, y), flow.evaluate_density(test, y[::-1])
    assert (y != y[::-1]).all()
    assert right.mean() > wrong.mean() + 3
    order = np.random.default_rng(3).permutation(1000)
    assert_array_equal(flow.evaluate_density(test[order], y[order]), right[order])


def test_slices_are_random_in_every_patch_and_layer():
    known = {"n_slices": 3, "n_knots": 4}
    flow = pyflow.Flow(
        [Patch((4, 6), 2, **known), Patch((4, 6), 2, (1, 1), **known)], shape=24, seed=5
    )
    other = pyflow.Flow([Patch((4, 6), 2, **known)], shape=24, seed=6)
    slices = [
        f._core.parameters(layer).reshape(6, -1)[:, -12:]
        for f, layer in ((flow, 0), (flow, 1), (other, 0))
    ]
    assert len(np.unique(np.concatenate(slices).round(12), axis=0)) == 18
    x = np.random.default_rng(0).normal(size=(10, 24))
    z, logj = flow.forward(x)  # the identity at first
    assert_allclose(z, x, atol=1e-14)
    assert_allclose(logj, 0, atol=1e-13)


# ---- what is refused -----------------------------------------------------------------------------

BAD = {
    "another image": (((4, 6),), "image_shape: an image of .* has not the 60 numbers"),
    "one axis": ((60,), "image_shape: must be 2 or 3 integers"),
    "four axes": (((1, 5, 4, 3),), "image_shape: must be 2 or 3 integers"),
    "no columns": (((5, 0, 3),), "image_shape: must be between 1 and"),
    "a large kernel": (((5, 4, 3), 5), "kernel: must be between 1 and 4, not 5"),
    "a kernel of nothing": (((5, 4, 3), (2, 0)), "kernel: must be between 1 and 4, not 0"),
    "a kernel of one side": (((5, 4, 3), (2,)), "kernel: must be 2 or 3 integers"),
    "two of three channels": (((5, 4, 3), (2, 2, 2)), "kernel: has 1 or all 3 channels, not 2"),
    "a large shift": (((5, 4, 3), 2, (0, 4)), "shift: must be between 0 and 3, not 4"),
    "a shift backwards": (((5, 4, 3), 2, (-1, 0)), "shift: must be between 0 and 4, not -1"),
    "one shift": (((5, 4, 3), 2, 1), "shift: must be 2 integers"),
    "many slices": (((5, 4, 3), 2, (0, 0), 13), "n_slices: must be between 0 and 12, not 13"),
    "one knot": (((5, 4, 3), 2, (0, 0), 2, 1), "n_knots: must be"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_named(arguments, message):
    arguments = arguments if len(arguments) > 1 else (*arguments, 2)
    with pytest.raises(ValueError, match=f"^{message}"):
        pyflow.Flow([Patch(*arguments)], shape=60)


def test_numbers_that_are_no_integers():
    for arguments in ((("4", 4), 2), ((4, 4), 2.5), ((4, 4), 2, (0.5, 0))):
        with pytest.raises(TypeError, match=r"^(image_shape|kernel|shift): "):
            pyflow.Flow([Patch(*arguments)], shape=16)


def test_a_flow_on_a_mesh_may_have_patches():
    flow = pyflow.Flow([Patch((4, 6), 2, (1, 1), 0, 4)], shape=(4, 6))
    x = np.random.default_rng(0).normal(size=(3, 4, 6))
    assert_allclose(flow.forward(x)[0], x, atol=1e-14)
    assert pyflow.Flow.from_bytes(flow.to_bytes()) == flow


# image and kernel, height, width, channels in turn; the shift; K and M
HOSTILE = {
    "another image": ([3, 2, 4, 2, 2, 1, 0, 0, 2, 4], "do not fit the flow's points"),
    "an image of as many numbers by overflow": (
        [2**31 + 4, 2, 4, 2, 2, 2, 0, 0, 2, 4],
        "damaged",
    ),
    "a large kernel": ([4, 5, 4, 2, 2, 2, 0, 0, 2, 4], "damaged"),
    "a kernel of nothing": ([4, 0, 4, 2, 2, 2, 0, 0, 2, 4], "damaged"),
    "a part of the channels": ([2, 2, 4, 2, 4, 2, 0, 0, 2, 4], "do not fit the flow's points"),
    "a large shift": ([4, 2, 4, 2, 2, 2, 4, 0, 2, 4], "damaged"),
    "a negative shift": ([4, 2, 4, 2, 2, 2, 0, -1, 2, 4], "damaged"),
    "more slices than numbers": ([4, 2, 4, 2, 2, 2, 0, 0, 9, 4], "damaged"),
    "too many knots": ([4, 2, 4, 2, 2, 2, 0, 0, 2, 65536], "damaged"),
    "more knots than there are": ([4, 2, 4, 2, 2, 2, 0, 0, 2, 60000], "splines are missing"),
    "more patches than there are": ([4, 1, 4, 1, 2, 1, 0, 0, 1, 1000], "splines are missing"),
    "other patches": ([4, 1, 4, 2, 2, 2, 0, 0, 2, 4], "damaged"),
}


@pytest.mark.parametrize(("shape", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_shape_that_a_file_makes_up_is_refused(shape, message):
    flow = pyflow.Flow([Patch((4, 4, 2), 2, (0, 0), 2, 4)], shape=32)
    data, at, right = shape_of(flow)
    assert right == [4, 2, 4, 2, 2, 2, 0, 0, 2, 4]
    made_up = data[:at] + struct.pack("<10q", *shape) + data[at + 80 :]
    with pytest.raises(pyflow.FileError, match=message):
        pyflow.Flow.from_bytes(resealed(made_up))
