"""`show_versions`: what it says is so, and it imports nothing for it."""

import os
import re
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

import pyflow
from pyflow import _core, _versions
from pyflow._versions import show_versions


def test_it_prints_what_it_finds(capsys):
    assert pyflow.show_versions is show_versions
    assert show_versions() is None
    out, err = capsys.readouterr()
    assert err == ""
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    found = show_versions(as_dict=True)
    assert capsys.readouterr().out == ""
    assert list(lines) == list(found)
    for name, value in found.items():
        assert lines[name] in ([value] if value else ["not installed", "unknown"])


def test_what_it_says_is_so():
    found = show_versions(as_dict=True)
    assert found["pyflow"] == pyflow.__version__
    assert found["numpy"] == np.__version__
    assert found["python"].startswith(sys.version.split()[0])
    assert found["threads"] == str(pyflow.get_num_threads())
    for name in ("scipy", "pytest"):
        assert found.get(name) == (metadata.version(name) if name in _versions.OPTIONAL else None)


@pytest.mark.skipif(sys.platform != "linux", reason="the libraries may be linked otherwise")
@pytest.mark.parametrize("name", ["fftw", "openblas"])
def test_the_core_s_libraries_are_asked(name):
    assert re.match(r"\d+\.\d+", show_versions(as_dict=True)[name])


def test_the_instruction_set_is_the_core_s(kernels):
    level = {"baseline": 0, "AVX2": 2, "AVX-512": 5}
    before = kernels.call("k_simd", -1)
    assert before == level[show_versions(as_dict=True)["instructions"].split()[0]]


@pytest.mark.parametrize("limit", ["0", "2", "2x", "5", "none"])
def test_instructions_that_are_held_down(monkeypatch, limit):
    flags = "fpu avx2 fma avx512f avx512dq avx512vl avx512bw"
    monkeypatch.setattr(_versions, "_cpuinfo", {"flags": flags}.get)
    monkeypatch.setenv("PYFLOW_SIMD", limit)
    name = {"0": "baseline", "2": "AVX2", "2x": "AVX2", "5": "AVX-512", "none": "baseline"}[limit]
    assert _versions._instructions() == f"{name} (PYFLOW_SIMD={limit})"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("fpu sse2", "baseline"),
        ("avx2", "baseline"),
        ("avx2 fma avx512f", "AVX2"),
        ("fma avx2 avx512f avx512dq avx512vl avx512bw", "AVX-512"),
        (None, None),
    ],
)
def test_instructions_of_processors(monkeypatch, flags, name):
    monkeypatch.setattr(_versions, "_cpuinfo", {"flags": flags}.get)
    monkeypatch.delenv("PYFLOW_SIMD", raising=False)
    assert _versions._instructions() == name


def test_what_is_missing(monkeypatch, capsys):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr(_core, "__file__", "/nonexistent/core.so")
    show_versions()
    lines = dict(re.split(r"  +", line) for line in capsys.readouterr().out.splitlines())
    assert {lines[name] for name in _versions.OPTIONAL} == {"not installed"}
    assert lines["fftw"] == lines["openblas"] == "unknown"


def test_it_imports_no_optional_package():
    code = (
        "import sys; from pyflow._versions import show_versions; show_versions();"
        "sys.exit(any(name in sys.modules for name in "
        "('matplotlib', 'sklearn', 'pandas', 'scipy', 'emcee', 'getdist', 'astropy')))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == 0
    assert re.search(r"^threads +3$", run.stdout, re.MULTILINE)
