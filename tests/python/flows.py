"""Small flows of every kind, for laws that hold for all of them."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from conftest import banana

import pyflow
from pyflow.layers import Affine, Scale, Sliced, Symmetric

MESH, BOX = (6, 8), (6.0, 8.0)


class Case(NamedTuple):
    flow: pyflow.Flow
    x: np.ndarray  # points that it was not fitted to
    y: Any  # their labels or parameters, or None


def fields(n, seed, scale=None):
    """n Gaussian fields with P(k) = scale / k, cubed a little."""
    scale = np.ones(n) if scale is None else scale
    x = pyflow.fields.gaussian_field(
        lambda k: scale[:, None, None] / k, MESH, n, box_size=BOX, seed=seed
    )
    return x + 0.02 * x**3


def parameters(n, seed):
    return np.random.default_rng(seed).uniform([0.5, -1], [2, 1], size=(n, 2))


def side(x):
    return np.where(x.reshape(len(x), -1)[:, 0] > 0, "right", "left")


def gis(dtype, **options):
    x = banana(400, seed=1).astype(dtype)
    return pyflow.GIS(x, max_layers=3, verbose=False, **options)


def blobs(n, seed):
    """n images of 5 x 4, with two channels: a blob at a random place, and noise."""
    rng = np.random.default_rng(seed)
    i, j = np.indices((5, 4))[:, None]
    at = rng.uniform(0, 4, size=(2, n, 1, 1))
    blob = 9 * np.exp(-((i - at[0]) ** 2 + (j - at[1]) ** 2) / 2)
    return np.stack([blob, -0.5 * blob], axis=-1) + rng.normal(size=(n, 5, 4, 2))


def sig(dtype, **options):
    return pyflow.SIG(banana(400, seed=1).astype(dtype), max_layers=3, verbose=False, **options)


def sig_images(dtype):
    schedule = [(1, None, 6), (1, 3, 4), (1, (2, 2, 1), 2)]
    return pyflow.SIG(blobs(300, seed=1).astype(dtype), schedule=schedule, verbose=False)


def symmetric(dtype, conditional, **options):
    y = parameters(120, 2)
    x = fields(120, 1, y[:, 0]).astype(dtype)
    known = {"n_layers": 2, "psi_knots": 4, "filter_knots": 6, "hidden": (8,), "epochs": 3}
    given = {"y_train": y, "names": ["amplitude", "nothing"]} if conditional else {}
    return pyflow.SymmetricFlow(x, **known | {"box_size": BOX, "verbose": False} | given | options)


def stack(x, dtype, labels=None):
    return pyflow.Flow(
        [
            Affine.whitening(x),
            *3 * [Sliced(5, 6)],
            Symmetric(4, 6),
            Scale(0.1, 0.9),
            Symmetric(3, 5),
            Sliced(0, 4),
        ],
        shape=MESH,
        box_size=BOX,
        labels=labels,
        dtype=dtype,
        seed=3,
    )


def composed(dtype, kind):
    y = parameters(120, 2)
    x = fields(120, 1, y[:, 0]).astype(dtype)
    given = {"labels": {"labels": side(x)}, "y": {"y_train": y, "hidden": (8,)}}.get(kind, {})
    flow = stack(x, dtype, side(x) if kind == "labels" else None)
    return flow.train(x, epochs=3, learning_rate=4e-3, verbose=False, **given)


def _make(name, dtype):
    x, y = banana(50, seed=3), None
    if name == "gis":
        flow = gis(dtype)
    elif name == "gis, labels":
        flow, y = gis(dtype, labels=side(banana(400, seed=1))), side(x)
    elif name == "gis, bounds":
        flow = gis(dtype, bounds=[(None, None), (-60, None), (0, 99)])
    elif name == "sig":
        flow = sig(dtype)
    elif name == "sig, labels":
        flow, y = sig(dtype, labels=side(banana(400, seed=1))), side(x)
    elif name == "sig, images":
        flow, x = sig_images(dtype), blobs(50, seed=3)
    else:
        y = parameters(50, 4)
        x = fields(50, 5, y[:, 0])
        if name == "symmetric":
            flow, y = symmetric(dtype, False), None
        elif name == "symmetric, y":
            flow = symmetric(dtype, True)
        elif name == "symmetric, noise":
            noise = {"noise": (0.1, 0.3), "noise_condition": True}
            flow = symmetric(dtype, True, **noise).calibrate(x, y)
            y = np.column_stack([y, np.linspace(0.11, 0.29, 50)])
        elif name == "symmetric, coloured noise":
            flow, y = symmetric(dtype, False, noise=lambda k: 0.1 / (1 + k)), None
        elif name == "axial, y":
            flow = symmetric(dtype, True, symmetry="axial", axis=0, noise=lambda k: 0.1 / (1 + k))
        elif name == "composed":
            flow, y = composed(dtype, ""), None
        elif name == "composed, labels":
            flow, y = composed(dtype, "labels"), side(x)
        elif name == "composed, y":
            flow = composed(dtype, "y")
    x = x.astype(dtype)
    if y is not None and y.dtype.kind == "f":
        y = np.clip(y, *flow.y_range.T)
    return Case(flow, x, y)


NAMES = (
    "gis",
    "gis, labels",
    "gis, bounds",
    "sig",
    "sig, labels",
    "sig, images",
    "symmetric",
    "symmetric, y",
    "symmetric, noise",
    "symmetric, coloured noise",
    "axial, y",
    "composed",
    "composed, labels",
    "composed, y",
)
KINDS = [(name, dtype) for name in NAMES for dtype in (np.float32, np.float64)]
IDS = [f"{name}, {dtype.__name__}" for name, dtype in KINDS]


@cache
def case(name, dtype):
    """The flow of this kind, and points with what they are conditioned on."""
    return _make(name, dtype)


def some(y, rows):
    return None if y is None else y[rows]


def methods(flow, y):
    """What maps points of this flow: functions of x and y that give tuples of arrays."""
    parametric = y is not None and y.dtype.kind == "f"
    calls = {
        "evaluate_density": lambda x, y: (flow.evaluate_density(x, y),),
        "forward": flow.forward,
        "inverse": lambda x, y: flow.inverse(np.clip(x, -2, 2), y),
        "score": lambda x, y: flow.score(x, y, with_logp=True),
    }
    if parametric:
        calls["score_parameters"] = lambda x, y: flow.score_parameters(x, y, with_logp=True)
    return calls
