"""The note that travels with a flow: JSON of what the core does not know."""

import itertools
import json
import math

import numpy as np

from pyflow import _core


def _strings(value, n):
    return (
        isinstance(value, list) and len(value) == n and all(isinstance(name, str) for name in value)
    )


def _classes(value, n):
    """Whether the value is n labels, sorted and of one kind."""
    if not isinstance(value, list) or len(value) != n or not n:
        return False
    kinds = {type(label) for label in value}
    if len(kinds) != 1 or not kinds <= {str, int, float, bool}:
        return False
    return all(a < b for a, b in itertools.pairwise(value))


def _image_shape(value, n):
    """Whether the value is height, width and channels of images of n numbers."""
    good = isinstance(value, list) and len(value) == 3
    return good and all(type(v) is int and v > 0 for v in value) and math.prod(value) == n


def _calibration(value):
    numbers = {"points": int, "before": float, "after": float}
    more = {"simulations": int, "best": float, "error": float}  # that older files do not have
    return (
        isinstance(value, dict)
        and set(value) in (set(numbers), set(numbers | more))
        and all(
            type(number) in ((numbers | more)[k], int) and math.isfinite(number)
            for k, number in value.items()
        )
    )


def read_note(core):
    """Return a flow's note, checked, and the sorted labels of its classes or None.

    Raises
    ------
    FileError
        If it is not what a flow of this core could have: the file it comes from was altered.
    """
    try:
        note = json.loads(core.note or "{}")
    except (ValueError, RecursionError):
        note = None
    good = isinstance(note, dict)
    checks = {
        "columns": lambda v: _strings(v, core.dim),
        "names": lambda v: _strings(v, core.n_conditions),
        "image_shape": lambda v: _image_shape(v, core.dim),
        "dequantized": lambda v: isinstance(v, bool),
        "labels": lambda v: _classes(v, core.n_classes),
        "calibration": _calibration,
        "unfinished": lambda v: isinstance(v, bool),
        "fit": lambda v: isinstance(v, dict),
    }
    good = good and all(check(note[key]) for key, check in checks.items() if key in note)
    if not good or (core.n_classes > 0) != ("labels" in note):
        raise _core.FileError("the file is damaged: its note is not one of this flow")
    return note, np.asarray(note["labels"]) if "labels" in note else None
