"""Fourier transforms and filters: which modes there are, and what each of them does."""

import numpy as np
import pytest
from kernel_table import F32, F64, FFT, MESHES, Filter
from numpy.testing import assert_allclose, assert_array_equal
from reference import fft, filter

EACH = pytest.mark.parametrize("n", MESHES, ids=str)
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-12), (F32, 1e-5)])


@EACH
@PRECISIONS
def test_any_half_spectrum_is_transformed_back_as_its_twin(kernels, n, dtype, tolerance):
    """Also one that no real field has: of two modes that should be mirror images, the mean."""
    kernel = FFT(kernels, dtype, *n)
    rng = np.random.default_rng(1)
    spectrum = np.zeros((*n[:-1], kernel.ld), complex)
    half = n[-1] // 2 + 1
    spectrum[..., :half] = rng.normal(size=(*n[:-1], half, 2)).view(complex)[..., 0]
    x, _ = kernel.inverse(spectrum.view(float), None)
    assert_allclose(x, fft.inverse(spectrum, n), atol=tolerance)


@EACH
@PRECISIONS
def test_half_spectrum_ends_in_zeros(kernels, n, dtype, tolerance):
    kernel = FFT(kernels, dtype, *n)
    assert kernel.ld >= n[-1] // 2 + 1
    y, _ = kernel.forward(np.ones(n), None)
    assert_array_equal(y[..., 2 * (n[-1] // 2 + 1) :], 0)
    expected = np.zeros_like(y)
    expected.flat[0] = np.prod(n)
    assert_allclose(y, expected, atol=np.prod(n) * tolerance)


@EACH
def test_shells_are_the_distinct_wavenumbers(kernels, n):
    kernel = Filter(kernels, F64, n, MESHES[n])
    k, _, modes = filter.shells(n, MESHES[n])
    assert_allclose(kernel.k, k, rtol=1e-12)
    assert_array_equal(kernel.modes, modes)
    assert np.sum(kernel.modes) == np.prod(n)
    assert kernel.k[0] == 0
    assert kernel.modes[0] == 1  # k = 0 is alone


@EACH
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shells_with_an_axis_are_the_distinct_wavenumbers_and_cosines(kernels, n, axis):
    if axis >= len(n):
        with pytest.raises(ValueError, match=f"axis: the mesh has no axis {axis}, but {len(n)}"):
            Filter(kernels, F64, n, MESHES[n], axis)
        return
    kernel = Filter(kernels, F64, n, MESHES[n], axis)
    k, mu2, modes = filter.shells(n, MESHES[n], axis)
    assert_allclose(kernel.k, k, rtol=1e-12)
    assert_allclose(kernel.mu2, mu2, rtol=1e-12, atol=1e-15)
    assert_array_equal(kernel.modes, modes)
    assert np.sum(kernel.modes) == np.prod(n)


def matrix(kernel, t):
    """Return the map of a field, with its pixels in a row, as a matrix."""
    unit = np.eye(int(np.prod(kernel.n)))
    return np.stack([kernel.forward(e.reshape(kernel.n), t)[0].ravel() for e in unit], axis=1)


@EACH
def test_a_shell_is_as_many_dimensions_as_it_has_modes(kernels, n):
    """With T = 2 there and 1 elsewhere: each mode of the half spectrum but its edges is two."""
    kernel = Filter(kernels, F64, n, MESHES[n])
    for s in range(len(kernel.k)):
        t = np.ones(len(kernel.k))
        t[s] = 2
        m, one = matrix(kernel, t), np.eye(int(np.prod(n)))
        assert_allclose((m - one) @ (m - 2 * one), 0, atol=1e-12)  # eigenvalues are 1 and 2
        assert_allclose(np.trace(m - one), kernel.modes[s], atol=1e-10)  # and so often 2
        assert_allclose(kernel.forward(np.ones(n), t)[1], kernel.modes[s] * np.log(2))


@EACH
def test_a_filter_is_its_own_adjoint(kernels, n):
    kernel = Filter(kernels, F64, n, MESHES[n])
    t = np.random.default_rng(2).uniform(0.5, 2, len(kernel.k))
    m = matrix(kernel, t)
    assert_allclose(m, m.T, atol=1e-13)


@EACH
@PRECISIONS
def test_the_mean_is_a_shell_of_its_own(kernels, n, dtype, tolerance):
    """T(0) multiplies the mean of a field, and nothing else sees it."""
    kernel, rng = Filter(kernels, dtype, n, MESHES[n]), np.random.default_rng(3)
    t, size = rng.uniform(0.5, 2, len(kernel.k)), np.prod(n)
    t[0] = -3.5
    x, g = rng.normal(size=n) + 2, rng.normal(size=n) + 1
    y = kernel.forward(np.full(n, 2.0), np.abs(t))[0]
    assert_allclose(y, 7, rtol=tolerance)
    t[0] = 1e3
    before = kernel.forward(x - x.mean(), t)[0]
    t[0] = 3.5
    assert_allclose(kernel.forward(x - x.mean(), t)[0], before, atol=1000 * tolerance)
    y = kernel.forward(x, t)[0]
    assert_allclose(np.mean(y, dtype=float), 3.5 * x.mean(), rtol=10 * tolerance)
    gt = np.zeros_like(t)
    gx = kernel.vjp(x, t, g, None, gt)
    assert_allclose(gt[0], x.sum() * g.sum() / size, rtol=100 * tolerance, atol=100 * tolerance)
    assert_allclose(np.mean(gx, dtype=float), 3.5 * g.mean(), rtol=100 * tolerance)


@EACH
@PRECISIONS
def test_gradient_of_t_alone(kernels, n, dtype, tolerance):
    kernel, rng = Filter(kernels, dtype, n, MESHES[n]), np.random.default_rng(4)
    t, x, g = rng.uniform(0.5, 2, len(kernel.k)), rng.normal(size=n), rng.normal(size=n)
    both, alone = np.zeros_like(t), np.zeros_like(t)
    kernel.vjp(x, t, g, None, both)
    kernel.vjp(x, t, g, None, alone, want_x=0)
    assert_array_equal(both, alone)
    # dL/dt_s of L = sum g y is L with T = 1 in that shell alone
    expected = [np.sum(g * kernel.forward(x, row)[0]) for row in np.eye(len(t)) + 1e-30]
    assert_allclose(both, expected, atol=100 * tolerance)


@EACH
@PRECISIONS
def test_power_is_its_twin_and_adds_up(kernels, n, dtype, tolerance):
    kernel, x = Filter(kernels, dtype, n, MESHES[n]), np.random.default_rng(5).normal(size=n)
    power = kernel.power(x)
    assert_allclose(power, filter.power(x, MESHES[n]), rtol=100 * tolerance, atol=tolerance)
    assert_allclose(np.sum(power), x.size * np.sum(x**2), rtol=10 * tolerance)  # Parseval


@pytest.mark.parametrize("side", [0.0, -1.0, np.inf, np.nan])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_bad_box_is_refused_by_name(kernels, axis, side):
    box = [1.0, 2.0, 3.0]
    box[axis] = side
    with pytest.raises(ValueError, match=f"box_size of axis {axis} is"):
        Filter(kernels, F64, (2, 3, 4), box)


@pytest.mark.parametrize("n", [(4,), (2, 2, 2, 2), (0, 4), (4, -1), (2**16, 2**16)], ids=str)
def test_a_bad_mesh_is_refused(kernels, n):
    with pytest.raises(ValueError, match="axis|axes"):
        FFT(kernels, F64, *n)
