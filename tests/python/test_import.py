"""What `import pyflow` brings in: NumPy and the standard library, and of that little."""

import subprocess
import sys

import pytest

# Packages that only some calls need, and what takes long to load of the standard library and NumPy.
OPTIONAL = ["matplotlib", "scipy", "sklearn", "pandas", "tqdm", "getdist", "PIL", "mpi4py"]
SLOW = ["asyncio", "concurrent.futures.thread", "pathlib", "statistics", "numpy.polynomial"]


def loaded_by(statement):
    """Return the modules there are after it, in a process of its own."""
    code = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.fixture(scope="module")
def loaded():
    """What the import adds to NumPy's."""
    return loaded_by("import pyflow") - loaded_by("import numpy")


def test_pyflow_is_there(loaded):
    assert {"pyflow", "pyflow._core"} <= loaded


@pytest.mark.parametrize("module", OPTIONAL + SLOW)
def test_not_before_it_is_needed(loaded, module):
    """Each of them costs more time than the whole of pyflow."""
    assert module not in loaded


def test_nothing_else_from_outside(loaded):
    """What comes with pyflow beside NumPy is pyflow and the standard library."""
    tops = {name.partition(".")[0] for name in loaded}
    assert tops - set(sys.stdlib_module_names) == {"pyflow"}
