"""Slices: random ones, and the search for the best."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from reference import stiefel


def slices(rng, k, d):
    return np.linalg.qr(rng.normal(size=(d, k)))[0].T


def quadratic(rng, d):
    """F(a) = sum_k a_k M a_k: largest for the eigenvectors of the largest eigenvalues."""
    m = rng.normal(size=(d, d))
    m = m @ m.T
    return m, lambda a: np.sum((a @ m) * a), lambda a: 2 * a @ m


SHAPES = [
    (1, 2),
    (2, 2),
    (1, 6),
    (2, 9),
    (3, 7),
    (4, 7),
    (5, 5),
]  # solved by 2K equations, and by d


@pytest.mark.parametrize(("k", "d"), [*SHAPES, (33, 40), (70, 90)])  # by blocks of 32
def test_random_slices_are_orthonormal(kernels, k, d):
    a, b, z = np.empty((k, d)), np.empty((k, d)), np.empty(k * d)
    assert not kernels.call("k_stiefel_random", a, k, d, 3, 9)
    kernels.call("k_stiefel_random", b, k, d, 3, 10)
    kernels.call("k_normals", z, 3, 9, 0, k * d, result=None)
    assert_allclose(a @ a.T, np.eye(k), atol=1e-14)
    assert_allclose(a, stiefel.random(k, d, z), atol=1e-12)
    assert not np.allclose(a, b, atol=0.01)


@pytest.mark.parametrize(("k", "d"), [(5, 5), (33, 40), (70, 90)])
def test_rows_that_are_nearly_parallel_become_orthonormal(kernels, k, d):
    """And each stays in the space of the rows before it and itself."""
    rng = np.random.default_rng(9)
    a = rng.normal(size=d) + 1e-5 * rng.normal(size=(k, d))
    q = a.copy()
    kernels.call("k_orthonormalise", q, k, d, result=None)
    assert_allclose(q @ q.T, np.eye(k), atol=1e-14)
    r = a @ q.T
    assert_allclose(r, np.tril(r), atol=1e-12 * np.abs(r).max())
    assert np.all(np.diag(r) > 0)


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_search_is_its_twin_and_never_falls(kernels, k, d):
    rng = np.random.default_rng(10)
    _, value, gradient = quadratic(rng, d)
    start = slices(rng, k, d)
    before = value(start)
    for steps in range(4):
        a, best = kernels.ascend(start, value, gradient, steps)
        assert_allclose(a @ a.T, np.eye(k), atol=1e-13)
        assert_allclose(best, value(a), rtol=1e-12)
        assert best >= before
        before = best
        if k < d:  # for K = d the quadratic is constant: nothing to climb
            expected, expected_best = stiefel.ascend(start, value, gradient, steps)
            assert_allclose(a, expected, atol=1e-9)
            assert_allclose(best, expected_best, rtol=1e-10)


def test_search_slope_is_the_objectives(kernels):
    """The twin's curve starts with the slope |W|^2 / 2, stays orthonormal, and starts at a."""
    rng = np.random.default_rng(11)
    _, value, gradient = quadratic(rng, 6)
    a = slices(rng, 2, 6)
    t = 1e-6
    up, slope = stiefel.curve(a, gradient(a), t)
    down, _ = stiefel.curve(a, gradient(a), -t)
    assert_allclose((value(up) - value(down)) / 2 / t, slope, rtol=1e-5)
    far, _ = stiefel.curve(a, gradient(a), 3.0)
    assert_allclose(far @ far.T, np.eye(2), atol=1e-12)


@pytest.mark.parametrize(("k", "d"), [s for s in SHAPES if s[0] < s[1]])
def test_search_finds_the_known_best(kernels, k, d):
    rng = np.random.default_rng(12)
    m, value, gradient = quadratic(rng, d)
    a, best = kernels.ascend(slices(rng, k, d), value, gradient, 2000, 1e-12)
    assert_allclose(best, np.linalg.eigvalsh(m)[-k:].sum(), rtol=1e-6)
    assert_allclose(a @ a.T, np.eye(k), atol=1e-12)


@pytest.mark.parametrize("tolerance", [0.3, 0.1, 0.01, 1e-3])
def test_search_ends_with_the_first_step_that_gains_too_little(kernels, tolerance):
    rng = np.random.default_rng(14)
    _, value, gradient = quadratic(rng, 7)
    start = slices(rng, 2, 7)
    steps, before = 0, value(start)
    while True:
        steps += 1
        expected, best = stiefel.ascend(start, value, gradient, steps)
        if best - before < tolerance * best:
            break
        before = best
    a, found = kernels.ascend(start, value, gradient, 100, tolerance)
    assert_allclose(found, best, rtol=1e-10)
    assert_allclose(a, expected, atol=1e-8)


@pytest.mark.parametrize("steps", [0, 5])
def test_search_mends_the_rounding_of_its_start(kernels, steps):
    rng = np.random.default_rng(15)
    _, value, gradient = quadratic(rng, 7)
    start = slices(rng, 2, 7) + 1e-9 * rng.normal(size=(2, 7))
    a, _ = kernels.ascend(start, value, gradient, steps)
    assert_allclose(a @ a.T, np.eye(2), atol=1e-14)


def test_search_stops_where_there_is_nothing_to_climb(kernels):
    a = slices(np.random.default_rng(13), 2, 5)
    same, best = kernels.ascend(a, lambda a: 1.0, np.zeros_like, 100)
    assert_allclose(same, a, atol=1e-15)
    assert best == 1
