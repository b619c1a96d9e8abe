"""The examples, as modules whose parts can be called."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"


def there(name):
    """Return the mark of tests that need an example, which a wheel does not carry."""
    return pytest.mark.skipif(not (FOLDER / name).exists(), reason="the examples are not here")


def load(name):
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(f"{Path(name).stem}_example", FOLDER / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
