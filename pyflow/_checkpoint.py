"""Checkpoints of fits: files of unfinished models, and whose they are."""

import json
import math
import os
import zlib
from contextlib import contextmanager

import numpy as np

from pyflow._core import FileError
from pyflow.flow import load

CHUNK = 1 << 22  # numbers


def check_sum(x, total=0):
    """Return a check sum of all of x, which may lie on disk: any other data are noticed.

    total: that of what is before x.
    """
    rows = max(CHUNK // max(math.prod(x.shape[1:]), 1), 1)
    for first in range(0, x.shape[0], rows):
        total = zlib.crc32(np.asarray(x[first : first + rows]).tobytes(), total)
    return total


def digest(options, data, ranks=None):
    """Return what is kept of a fit's arguments: enough to tell it from another.

    Of data whose parts ranks have, one after another, it is that of the whole.
    """
    fit = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    for name, x in {**options, **data}.items():
        if hasattr(x, "dtype") and x.shape:
            rows, total = x.shape[0], 0
            if not (ranks and name in data):
                total = check_sum(x)
            else:
                rows = sum(ranks.gather(rows, f"rows of {name}"))
                for rank in range(ranks.size):
                    own = rank == ranks.rank and check_sum(x, total)
                    total = ranks.gather(own, f"check sum of {name}")[rank]
            fit[name] = {"shape": [rows, *x.shape[1:]], "dtype": str(x.dtype), "crc32": total}
    return fit


def check(checkpoint, seed):
    """Refuse now what would lose a long fit later."""
    if not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"checkpoint: must be a path, not {checkpoint!r}")
    if os.path.isdir(os.path.abspath(checkpoint)):
        raise IsADirectoryError(
            f"checkpoint: {os.fspath(checkpoint) or '.'} is a folder; name a file in it"
        )
    folder = os.path.dirname(os.path.abspath(checkpoint))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise OSError(
            f"checkpoint: cannot write {os.fspath(checkpoint)}: no such folder, or not ours"
        )
    if seed is None:
        raise ValueError("seed: with a checkpoint it must be a number: other seeds, another fit")


@contextmanager
def mentioned(checkpoint):
    """Say with the exception that ends a fit, if it left a checkpoint, how to go on.

    As a note: what Python 3.10 knows nothing of.
    """
    try:
        yield
    except BaseException as error:
        if checkpoint is not None and os.path.exists(checkpoint) and hasattr(error, "add_note"):
            error.add_note(f"The same call goes on from the checkpoint {os.fspath(checkpoint)!r}.")
        raise


def member_file(checkpoint, k):
    """Return the file of the unfinished fit of a mixture's member k."""
    return f"{os.fsdecode(checkpoint)}.{k}"


def forget_members(checkpoint, n):
    """Remove the files of n members: the mixture is in the file that was named."""
    for k in range(n):
        if os.path.exists(member_file(checkpoint, k)):
            os.unlink(member_file(checkpoint, k))


def resume(checkpoint, note, model=None):
    """Return the model of a checkpoint of the same fit, or None if there is no file yet.

    model: what the file holds, if that has been read.
    """
    if model is None and not os.path.exists(checkpoint):
        return None
    try:
        model = load(checkpoint) if model is None else model
    except FileError as error:
        raise FileError(f"checkpoint: {error}") from None
    theirs, ours = model._note.get("fit", {}), json.loads(json.dumps(note))["fit"]
    different = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
    if model._note.get("labels") != note.get("labels"):
        different.append("labels")
    if different:
        raise ValueError(
            f"checkpoint: {os.fspath(checkpoint)} belongs to another fit: "
            f"{', '.join(different)} differ{'s' if len(different) == 1 else ''}; remove it or "
            "name another file"
        )
    return model
