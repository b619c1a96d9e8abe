import os
import signal

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from ckernels import Kernels
from hypothesis import settings

import pyflow

# A shell's background jobs ignore Ctrl-C; processes that a test starts and interrupts must not.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeat", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


@pytest.fixture(scope="session")
def kernels():
    """The core's kernels, through ctypes."""
    return Kernels()


@pytest.fixture
def at_every_level(kernels):
    """Iterate, as often as wanted, over this machine's instruction sets, each of them set."""
    before = kernels.call("k_simd", -1)

    class Levels:
        def __iter__(self):
            for level in kernels.simd_levels():
                kernels.call("k_simd", level)
                yield level
                kernels.call("k_simd", before)

    yield Levels()
    kernels.call("k_simd", before)


@pytest.fixture(params=[0, 2, 5], ids=["baseline", "AVX2", "AVX-512"])
def level(request, kernels):
    """Hold the kernels at an instruction set, if the machine has it."""
    if request.param not in kernels.simd_levels():
        pytest.skip("this machine does not have it")
    before = kernels.call("k_simd", request.param)
    yield request.param
    kernels.call("k_simd", before)


def banana(n, seed):
    """n points of a curved density in three dimensions; the last column is independent."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    x[:, 1] = 0.6 * x[:, 1] + 0.7 * x[:, 0] ** 2
    x[:, 2] = np.exp(0.4 * x[:, 2])
    return x


@pytest.fixture(scope="session")
def train():
    return banana(600, seed=1)


@pytest.fixture(scope="session")
def validate():
    return banana(300, seed=2)


@pytest.fixture(scope="session")
def test():
    return banana(200, seed=3)


@pytest.fixture(scope="session")
def model(train, validate):
    """A float64 model of three columns."""
    return pyflow.GIS(train, validate, max_layers=8, verbose=False)


@pytest.fixture(scope="session")
def model32(train, validate):
    """The same in float32."""
    return pyflow.GIS(train.astype(np.float32), validate, max_layers=8, verbose=False)


@pytest.fixture(scope="session")
def labelled(train):
    """A model of p(x | label), the label being the side on which the first column lies."""
    label = np.where(train[:, 0] > 0, "right", "left")
    return pyflow.GIS(train, labels=label, max_layers=4, verbose=False)
