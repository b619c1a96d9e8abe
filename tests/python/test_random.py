"""Normal numbers drawn side by side, at every SIMD level, against their twin and SciPy."""

import numpy as np
import pytest
from ckernels import Kernels
from numpy.testing import assert_allclose, assert_array_equal
from reference import philox
from scipy import special, stats

CELLS = 2**52
KEY, STREAM = 2**63 + 5, 7 << 32 | 9
STARTS = 0, 2**33 - 40, 2**64 - 1000  # the counter's lower word runs over in the second


@pytest.fixture(scope="module")
def kernels():
    return Kernels()


@pytest.fixture(params=[0, 2, 5], ids=["baseline", "AVX2", "AVX-512"])
def level(kernels, request):
    if request.param not in kernels.simd_levels():
        pytest.skip("not on this machine")
    before = kernels.call("k_simd", request.param)
    yield request.param
    kernels.call("k_simd", before)


def normals(kernels, first, n, key=KEY, stream=STREAM):
    z = np.full(n + 1, np.nan)
    kernels.call("k_normals", z, key, stream, first, n, result=None)
    assert np.isnan(z[n])
    return z[:n]


def quantiles(kernels, cells):
    """Return the quantiles of any number of cells, 256 at a time."""
    padded = np.zeros(-(-len(cells) // 256) * 256, np.uint64)
    padded[: len(cells)] = cells
    z = np.empty((len(padded) // 256, 256))
    for row, part in zip(z, padded.reshape(z.shape), strict=True):
        kernels.call("k_normal_quantiles", row, part, 256, result=None)
    return z.ravel()[: len(cells)]


@pytest.mark.parametrize("first", STARTS)
def test_normals_are_their_twin(kernels, level, first):
    z = normals(kernels, first, 100)
    assert_allclose(z, [philox.normal(KEY, STREAM, first + i) for i in range(100)], rtol=2e-15)


@pytest.mark.parametrize("first", STARTS)
def test_a_number_is_the_same_whatever_is_drawn_with_it(kernels, level, first):
    whole = normals(kernels, first, 600)
    for skip in [*range(20), 255, 256, 257]:
        for n in (0, 1, 2, 15, 16, 17, 33, 255, 256, 257, 300):
            start = (first + skip) % 2**64
            assert_array_equal(normals(kernels, start, n), whole[skip : skip + n])


def cells_of_all_kinds():
    rng = np.random.default_rng(3)
    edge = round(0.075 * CELLS)  # where the middle begins
    far = round(np.exp(-25) * CELLS)  # where the far tail ends
    lower = np.concatenate(
        [
            np.arange(200),
            np.unique(np.geomspace(1, CELLS / 2 - 1, 5000).astype(np.uint64)),
            [c + i for c in (edge, far, round(1.4e-11 * CELLS)) for i in range(-50, 50)],
            CELLS // 2 - 1 - np.arange(100),
            rng.integers(0, CELLS // 2, 5000),
        ]
    )
    return np.unique(lower.astype(np.uint64))


def test_quantiles_are_scipys_odd_and_ascending(kernels, level):
    cells = cells_of_all_kinds()
    z = quantiles(kernels, cells)
    p = (cells + 0.5) / CELLS  # rounded where it has 53 bits, by half of its last
    assert_allclose(z, special.ndtri(p), rtol=2e-15)
    assert (np.diff(z) >= -2 * np.spacing(np.abs(z[1:]))).all()
    apart = np.diff(cells) > 1000
    assert (np.diff(z)[apart] > 0).all()
    assert_array_equal(quantiles(kernels, CELLS - 1 - cells), -z)


def test_quantiles_do_not_depend_on_their_neighbours(kernels, level):
    cells = np.random.default_rng(4).permutation(cells_of_all_kinds())
    z = quantiles(kernels, cells)
    for step in (1, 3, 7):
        assert_array_equal(quantiles(kernels, np.roll(cells, step)), np.roll(z, step))
    assert_array_equal(quantiles(kernels, np.sort(cells)), z[np.argsort(cells)])


def test_moments_and_tails_of_many_normals(kernels, level):
    """Twenty streams; a fault in one lane or in the tails alone would show in one of the three."""
    z = np.stack([normals(kernels, 3, 100_000, stream=s) for s in range(20)])
    lanes = z.reshape(20, -1, 16).transpose(2, 0, 1).reshape(16, -1)
    assert min(stats.kstest(lane, "norm").pvalue for lane in lanes) > 1e-4
    for limit in (1.4395, 3, 4):  # the middle ends at the first
        for side in (z < -limit, z > limit):
            expected = special.ndtr(-limit) * z.size
            assert abs(side.sum() - expected) < 5 * np.sqrt(expected)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
