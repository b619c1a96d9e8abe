"""Files that are not what they say."""

import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest

from pyflow import FileError


@contextmanager
def refused(path, message="", memory=20e6):
    """What is done within must raise a FileError that names the path, and need little memory."""
    tracemalloc.start()
    with pytest.raises(FileError, match=f"^{path}: {message}"):
        yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < memory


def fuzz(content, n, seed=0):
    """Yield n contents, each with a few bytes altered, or cut, or put in."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        altered = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(altered)))
            new = bytes(rng.integers(256, size=rng.integers(3), dtype=np.uint8))
            altered[at : at + int(rng.integers(3))] = new
        yield bytes(altered)
