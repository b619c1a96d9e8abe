"""Random numbers and the normal distribution, against their twins and SciPy."""

from ctypes import c_uint64

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import philox
from scipy import special, stats

CELLS = 2**52
KEY, STREAM = 2**63 + 5, 7 << 32 | 9
STARTS = 0, 2**33 - 40, 2**64 - 1000  # the counter's lower word runs over in the second

# Random123's known answers for philox4x32-10 (kat_vectors): counter, key, words.
PHILOX = {
    "zeros": (0, 0, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": (2**64 - 1, 2**64 - 1, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": (
        0x85A308D3_243F6A88,
        0x03707344_13198A2E,
        0x299F31D0_A4093822,
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
}


@pytest.mark.parametrize(("counter", "stream", "key", "words"), PHILOX.values(), ids=PHILOX)
def test_philox_gives_the_known_answers(kernels, counter, stream, key, words):
    out = np.zeros(4, np.uint32)
    kernels.call("k_philox", out, key, stream, counter, result=None)
    assert " ".join(f"{w:08x}" for w in out.tolist()) == words
    assert philox.philox(key, stream, counter) == out.tolist()


def normals(kernels, first, n, key=KEY, stream=STREAM):
    z = np.full(n + 1, np.nan)
    kernels.call("k_normals", z, key, stream, first, n, result=None)
    assert np.isnan(z[n])
    return z[:n]


@pytest.mark.parametrize("first", STARTS)
def test_normals_are_their_twin(kernels, at_every_level, first):
    expected = [philox.normal(KEY, STREAM, first + i) for i in range(100)]
    for _ in at_every_level:
        assert_allclose(normals(kernels, first, 100), expected, rtol=2e-15)


@pytest.mark.parametrize("first", STARTS)
def test_a_number_is_the_same_whatever_is_drawn_with_it(kernels, at_every_level, first):
    for _ in at_every_level:
        whole = normals(kernels, first, 600)
        assert len(set(whole.tolist())) == 600
        for skip in [*range(20), 255, 256, 257]:
            for n in (0, 1, 2, 15, 16, 17, 33, 255, 256, 257, 300):
                start = (first + skip) % 2**64
                assert_array_equal(normals(kernels, start, n), whole[skip : skip + n])


def test_every_bit_of_key_stream_and_counter_makes_other_numbers(kernels):
    words, start = set(), [0x0123456789ABCDEF, 0xFEDCBA9876543210, 0x5555AAAA33339999]
    changed = [(0, 0), *((which, 1 << bit) for which in range(3) for bit in range(64))]
    for which, bit in changed:
        at = start.copy()
        at[which] ^= bit
        out = np.zeros(4, np.uint32)
        kernels.call("k_philox", out, *at, result=None)
        words.update(out.tolist())
    assert len(words) == 4 * len(changed)


def test_every_key_and_stream_has_numbers_of_its_own(kernels):
    """Normals and whole numbers alike; also with key and stream exchanged."""
    values = [0, 1, 2, 3, 2**32, 2**32 + 1, 2**63, 2**64 - 1]
    pairs = [(key, stream) for key in values for stream in values]
    z = np.concatenate([normals(kernels, 0, 4, *pair) for pair in pairs])
    assert len(set(z.tolist())) == 4 * len(pairs)
    whole = [i for pair in pairs for i in draw(kernels, *pair, 4, 2**64 - 1)]
    assert len(set(whole)) == 4 * len(pairs)


def test_normals_are_normal(kernels):
    z = np.empty(100_000)
    kernels.call("k_normals", z, 1, 2, 0, len(z), result=None)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    # neighbours, and the same number of neighbouring streams and keys, have nothing to do with it
    other, key = np.empty_like(z), np.empty_like(z)
    kernels.call("k_normals", other, 1, 3, 0, len(z), result=None)
    kernels.call("k_normals", key, 2, 2, 0, len(z), result=None)
    for a, b in ((z[1:], z[:-1]), (z, other), (z, key)):
        assert stats.pearsonr(a, b).pvalue > 1e-3


def draw(kernels, key, stream, n, bound):
    return [kernels.call("k_uniform_int", key, stream, i, bound, result=c_uint64) for i in range(n)]


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 1000, 10**6 + 3, 2**32 + 1, 3 * 2**60, 2**64 - 1])
def test_uniform_integers_are_their_twin_and_uniform(kernels, bound):
    """Remainders of a division by 3 x 2^60 would be: one third of them too often."""
    drawn = draw(kernels, 3, 4, 4000, bound)
    assert drawn[:50] == [philox.uniform_int(3, 4, i, bound) for i in range(50)]
    assert max(drawn) < bound
    if bound <= 1000:
        counts = np.bincount(drawn, minlength=bound)
        assert len(counts) == bound
        assert bound == 1 or stats.chisquare(counts).pvalue > 1e-3
    else:
        assert stats.kstest([i / bound for i in drawn], "uniform").pvalue > 1e-3


def test_normal_quantile_is_scipys(kernels):
    p = np.concatenate(
        [
            [5e-324, 1e-300, 1e-200, 1e-30, 1e-16, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 1 - 1e-16],
            [0.075, 0.925, np.nextafter(0.075, 0), np.nextafter(0.925, 1), np.exp(-25)],
            np.linspace(1e-5, 1 - 1e-5, 1001),
            np.logspace(-307, -1, 500),
        ]
    )
    z = np.empty_like(p)
    kernels.call("k_normal_quantile", z, p, len(p), result=None)
    # near 1/2 and near 1 the quantile is as good as p is: p - 1/2 or 1 - p is exact
    assert_allclose(z, special.ndtri(p), rtol=2e-15 * 10, atol=1e-16)


def test_normal_quantile_at_the_ends(kernels):
    p = np.array([0, 1, -0.1, 1.1, np.nan])
    z = np.empty_like(p)
    kernels.call("k_normal_quantile", z, p, len(p), result=None)
    assert_array_equal(z, [-np.inf, np.inf, np.nan, np.nan, np.nan])


def test_normal_cdf_is_scipys(kernels):
    x = np.linspace(-37, 9, 1001)
    p = np.empty_like(x)
    kernels.call("k_normal_cdf", p, x, len(x), result=None)
    assert_allclose(p, special.ndtr(x), rtol=1e-12)


# ---- many at a time ------------------------------------------------------------------------------


def quantiles(kernels, cells):
    """Return the quantiles of any number of cells, 256 at a time."""
    padded = np.zeros(-(-len(cells) // 256) * 256, np.uint64)
    padded[: len(cells)] = cells
    z = np.empty((len(padded) // 256, 256))
    for row, part in zip(z, padded.reshape(z.shape), strict=True):
        kernels.call("k_normal_quantiles", row, part, 256, result=None)
    return z.ravel()[: len(cells)]


@pytest.mark.parametrize("first", [0, 1, 6, 255])
def test_rows_are_streams(kernels, at_every_level, first):
    for rows, n in ((0, 3), (1, 1), (300, 1), (41, 2), (40, 3), (7, 64), (3, 257), (2, 700)):
        z = np.full((rows + 1, n), np.nan)
        kernels.call("k_normal_rows", z, KEY, STREAM, first, rows, n, result=None)
        assert np.isnan(z[rows]).all()
        for i in range(rows):
            assert_array_equal(z[i], normals(kernels, first, n, stream=STREAM + i))


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


def test_quantiles_are_scipys_odd_and_ascending(kernels, at_every_level):
    cells = cells_of_all_kinds()
    for _ in at_every_level:
        z = quantiles(kernels, cells)
        p = (cells + 0.5) / CELLS  # rounded where it has 53 bits, by half of its last
        assert_allclose(z, special.ndtri(p), rtol=2e-15)
        assert (np.diff(z) >= -2 * np.spacing(np.abs(z[1:]))).all()
        apart = np.diff(cells) > 1000
        assert (np.diff(z)[apart] > 0).all()
        assert_array_equal(quantiles(kernels, CELLS - 1 - cells), -z)


def test_quantiles_do_not_depend_on_their_neighbours(kernels, at_every_level):
    cells = np.random.default_rng(4).permutation(cells_of_all_kinds())
    for _ in at_every_level:
        z = quantiles(kernels, cells)
        for step in (1, 3, 7):
            assert_array_equal(quantiles(kernels, np.roll(cells, step)), np.roll(z, step))
        assert_array_equal(quantiles(kernels, np.sort(cells)), z[np.argsort(cells)])


def test_moments_and_tails_of_many_normals(kernels, at_every_level):
    """Twenty streams; a fault in one lane or in the tails alone would show in one of the three."""
    for _ in at_every_level:
        z = np.stack([normals(kernels, 3, 100_000, stream=s) for s in range(20)])
        lanes = z.reshape(20, -1, 16).transpose(2, 0, 1).reshape(16, -1)
        assert min(stats.kstest(lane, "norm").pvalue for lane in lanes) > 1e-4
        for limit in (1.4395, 3, 4):  # the middle ends at the first
            for side in (z < -limit, z > limit):
                expected = special.ndtr(-limit) * z.size
                assert abs(side.sum() - expected) < 5 * np.sqrt(expected)
        assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
