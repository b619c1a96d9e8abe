"""What a report of a fault should say of the machine and of the libraries."""

from __future__ import annotations

from pyflow import _core
from pyflow.threads import get_num_threads

__all__ = ["show_versions"]

# What pyflow or its users' tables may need, by the names of the distributions.
OPTIONAL = (
    "arviz",
    "astropy",
    "dask",
    "emcee",
    "getdist",
    "h5py",
    "joblib",
    "matplotlib",
    "mpi4py",
    "pandas",
    "Pillow",
    "polars",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "tqdm",
)
AVX2 = {"avx2", "fma"}
AVX512 = {"avx512f", "avx512dq", "avx512vl", "avx512bw"}


def __dir__():
    return __all__


def show_versions(*, as_dict: bool = False) -> dict[str, str | None] | None:
    """Print the versions of pyflow, of the libraries that it uses, and of Python; and the machine.

    For reports of faults. Optional packages are looked for, and not imported.

    Parameters
    ----------
    as_dict : bool
        Return it instead.

    Returns
    -------
    dict of str to str or None, or None
        None of an optional package that is not installed, and of what cannot be found out.

    Examples
    --------
    >>> import pyflow
    >>> pyflow.show_versions()
    pyflow ...
    >>> import numpy as np
    >>> pyflow.show_versions(as_dict=True)["numpy"] == np.__version__
    True
    """
    found = _found()
    if as_dict:
        return found
    width = max(map(len, found))
    for name, value in found.items():
        absent = "not installed" if name in OPTIONAL else "unknown"
        print(f"{name:{width}}  {absent if value is None else value}")
    return None


def _found():
    # Imported here, because importing pyflow is to be quick.
    import platform
    from importlib import metadata

    import numpy as np

    found = {
        "pyflow": _core.__version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "processor": _processor(),
        "instructions": _instructions(),
        "threads": str(get_num_threads()),
        "numpy": np.__version__,
        **_libraries(),
    }
    for name in OPTIONAL:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _libraries():
    """Return the versions that FFTW and OpenBLAS, as the core is linked to them, say they have."""
    import ctypes

    found = {"fftw": None, "openblas": None}
    try:
        core = ctypes.CDLL(_core.__file__)  # it is loaded: this finds its symbols, and libraries'
    except OSError:
        return found
    try:
        text = ctypes.addressof(ctypes.c_char.in_dll(core, "fftw_version"))
        found["fftw"] = ctypes.string_at(text).decode().removeprefix("fftw-")
    except ValueError:
        pass
    try:
        core.openblas_get_config.restype = ctypes.c_char_p
        config = core.openblas_get_config().decode()
        found["openblas"] = config.strip().removeprefix("OpenBLAS ")
    except AttributeError:
        pass
    return found


def _cpuinfo(key):
    """Return what Linux says of the first processor, or None."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return None
    return next((value.strip() for name, _, value in lines if name.strip() == key), None)


def _processor():
    import platform

    return _cpuinfo("model name") or platform.processor() or platform.machine() or None


def _instructions():
    """Return the instruction set of the core's kernels, found as the core finds it (status.c)."""
    import os
    import re

    flags = _cpuinfo("flags")
    if flags is None:
        return None
    flags = set(flags.split())
    limit = os.environ.get("PYFLOW_SIMD", "")
    most = int(re.match(r"\d*", limit)[0] or 0) if limit else 5
    name = "baseline"
    if flags >= AVX2 and most >= 2:
        name = "AVX-512" if flags >= AVX512 and most >= 5 else "AVX2"
    return f"{name} (PYFLOW_SIMD={limit})" if limit else name
