"""Use an installed pyflow and make sure that it brought its own libraries.

Run by wheel.py in a fresh environment.
"""

import re
import sys
from pathlib import Path

import numpy as np

import pyflow

CARRIED = re.compile(r"^lib(fftw3f?|openblas|blas|lapack|gfortran|quadmath)[^/]*\.so")
NEEDED = ("libfftw3-", "libfftw3f-", "libopenblas")


def main():
    prefix = Path(sys.prefix).resolve()
    assert prefix in Path(pyflow.__file__).resolve().parents, pyflow.__file__

    if hasattr(pyflow, "GIS"):
        rng = np.random.default_rng(0)
        x = rng.standard_normal((1000, 3)) @ rng.standard_normal((3, 3))
        model = pyflow.GIS(x[:800], x[800:], n_models=1, max_layers=50)
        samples, logp = model.sample(10)
        assert samples.shape == (10, 3)
        assert np.isfinite(logp).all()

    with open("/proc/self/maps") as maps:
        words = (line.rstrip("\n").split(maxsplit=5) for line in maps)
        loaded = {Path(w[5]) for w in words if len(w) == 6}
    libraries = {path for path in loaded if CARRIED.match(path.name)}
    foreign = sorted(str(path) for path in libraries if prefix not in path.parents)
    assert not foreign, f"loaded from outside the environment: {foreign}"
    ours = sorted(path.name for path in libraries if path.parent.name == "pyflow_sinf.libs")
    absent = [name for name in NEEDED if not any(file.startswith(name) for file in ours)]
    assert not absent, f"{absent} not among the libraries that were loaded: {ours}"
    print(f"pyflow {pyflow.__version__}, NumPy {np.__version__}: own {', '.join(ours)}")


if __name__ == "__main__":
    main()
