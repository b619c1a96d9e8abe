"""The benchmarks as modules: they lie beside the tests in a clone, and nowhere else."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "bench"


def load(name):
    """Return a module of `bench`; where that is not there, skip the tests that ask for it."""
    if not (FOLDER / f"{name}.py").exists():
        pytest.skip("the benchmarks are not here")
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
