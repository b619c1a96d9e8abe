"""Every kernel of the table against its slow twin, and against what it must obey."""

import threading

import kernel_table
import layer_table
import numpy as np
import pytest
from kernel_table import F32, F64, Case
from numpy.testing import assert_allclose, assert_array_equal

TABLE = kernel_table.TABLE | layer_table.TABLE


@pytest.fixture
def case(request, kernels):
    return Case(kernels, request.param, TABLE)


def every(*wanted):
    """Run a test on the kernels of the table that have all these attributes."""
    kinds = {name: kind for name, (kind, _, _) in TABLE.items()}
    names = [name for name, kind in kinds.items() if all(getattr(kind, a) for a in wanted)]
    return pytest.mark.parametrize("case", names, indirect=True)


def close(a, b, tolerance):
    """Equal but for rounding, seen from the largest of these numbers."""
    assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max(initial=0)))


def close_logj(a, b, tolerance, n):
    assert (a is None) == (b is None)
    if a is not None:
        close(a, b, tolerance * max(1, np.sqrt(n)))


@every()
def test_kernel_is_its_twin(case):
    kernel = case.kernel()
    y, logj = kernel.forward(case.x, case.theta)
    expected, expected_logj = kernel.twin(case.x, case.theta)
    if kernel.relative:
        assert_allclose(y, expected, rtol=kernel.tolerance[0])
    else:
        close(y, expected, kernel.tolerance[0])
    close_logj(logj, expected_logj, kernel.tolerance[0], case.x.size)


@every("inverse")
def test_inverse_undoes_forward(case):
    for dtype in case.dtypes:
        kernel = case.kernel(dtype)
        y, logj = kernel.forward(case.x, case.theta)
        back, logj_back = kernel.inverse(y, case.theta)
        tolerance = 10 * kernel.tolerance[dtype == F32]
        assert y.size == 1 or y.shape != case.x.shape or not np.allclose(y, case.x, atol=0.05)
        close(back, case.x, tolerance)
        close_logj(logj_back, logj, tolerance, case.x.size)


def differences(f, at, step):
    """Return df/dat by central differences; f gives a number or an array."""
    out = []
    for i in range(at.size):
        up, down = at.copy(), at.copy()
        up.flat[i] += step
        down.flat[i] -= step
        out.append((f(up) - f(down)) / (up.flat[i] - down.flat[i]))
    return np.array(out)


@every("inverse", "log_determinant")
def test_log_determinant_is_that_of_the_jacobian(case):
    kernel, x = case.kernel(), case.some[:40] if case.kind.pointwise else case.x
    jacobian = differences(lambda at: kernel.forward(at, case.theta)[0].ravel(), x, 1e-6)
    sign, log_det = np.linalg.slogdet(jacobian)
    assert sign == 1
    assert_allclose(np.sum(kernel.forward(x, case.theta)[1]), log_det, rtol=1e-7, atol=1e-7)


@every("vjp")
def test_vjp_is_the_gradient(case):
    kernel, at, (g, glogj, gtheta) = case.kernel(), case.some, case.gradients(case.some)

    def loss(x, theta):
        y, logj = kernel.forward(x, theta)
        return np.sum(g * y) + (0 if logj is None else np.sum(glogj * logj))

    gx = kernel.vjp(at, case.theta, g, glogj, gtheta)
    if gx is not None:
        expected = differences(lambda x: loss(x, case.theta), at, 1e-6).reshape(at.shape)
        close(gx, expected, 1e-6)
    if gtheta is not None:
        expected = differences(lambda theta: loss(at, theta), case.theta, kernel.step)
        close(gtheta, expected, 1e-6)


@every("vjp", "parameters")
def test_vjp_adds_to_the_gradient_of_the_parameters_or_leaves_it(case):
    g, glogj, gtheta = case.gradients()
    for dtype in case.dtypes:
        kernel = case.kernel(dtype)
        zero, start = gtheta.copy(), case.rng.normal(size=gtheta.shape)
        added = start.copy()
        gx = kernel.vjp(case.x, case.theta, g, glogj, zero)
        kernel.vjp(case.x, case.theta, g, glogj, added)
        assert_allclose(added, start + zero, rtol=1e-12, atol=1e-12 * np.abs(zero).max())
        if gx is not None:
            assert_array_equal(kernel.vjp(case.x, case.theta, g, glogj, None), gx)


def everything(case, kernel):
    """Return y, logj, x again, dL/dx and dL/dtheta, what there is of them."""
    rng = np.random.default_rng(1)
    x = case.x.astype(F32).astype(F64)
    y, logj = kernel.forward(x, case.theta)
    out = {"y": y} if logj is None else {"y": y, "logj": logj}
    if kernel.inverse:
        out["x"], back_logj = kernel.inverse(y.astype(F32).astype(F64), case.theta)
        out["logj of x"] = back_logj
    if kernel.vjp:
        g = rng.normal(size=y.shape).astype(F32).astype(F64)
        glogj = None if logj is None else kernel.glogj(rng, logj)
        gtheta = None if case.theta is None else np.zeros_like(case.theta)
        out["gx"] = kernel.vjp(x, case.theta, g, glogj, gtheta)
        out["gtheta"] = gtheta
    return {name: a for name, a in out.items() if a is not None}


def same(one, other, tolerance, n):
    assert one.keys() == other.keys()
    for name in one:
        a, b = one[name], other[name]
        if name.startswith("logj"):
            close_logj(a, b, tolerance, n)
        elif name in ("y", "x"):
            close(a, b, tolerance)
        elif name == "gx" and a.dtype != b.dtype:
            # a point that rounding carries over a knot sees another curvature: a few may differ
            size = max(1, np.abs(b).max())
            assert np.mean(np.abs(a - b) > 100 * tolerance * size) < 0.02
            close(a, b, 0.05)
        else:
            close(a, b, 100 * tolerance)


@every("float32")
def test_float32_is_float64_rounded(case):
    one, two = (everything(case, case.kernel(dtype)) for dtype in (F32, F64))
    assert one["y"].dtype == F32
    same(one, two, case.kind.tolerance[1], case.x.size)


@every()
def test_instruction_sets_agree(case, at_every_level):
    first = {}
    for _ in at_every_level:
        for dtype in case.dtypes:
            result = everything(case, case.kernel(dtype))
            tolerance = case.kind.tolerance[dtype == F32]
            same(result, first.setdefault(dtype, result), tolerance, case.x.size)


@every("pointwise")
def test_parts_are_the_whole(case, at_every_level):
    """For any number of points, whatever a loop does with those left over at its end."""
    g, glogj, zero = case.gradients()
    for _ in at_every_level:
        for dtype in case.dtypes:
            kernel, n = case.kernel(dtype), len(case.x)
            loose = kernel.tolerance[dtype == F32]
            whole = in_parts(kernel, case, g, glogj, zero, [n])
            for size in (1, 7, 16, 37, 128):
                points, sums = in_parts(kernel, case, g, glogj, zero, [size, n - size])
                close(points, whole[0], 100 * np.finfo(dtype).eps)
                close(sums, whole[1], loose)


def in_parts(kernel, case, g, glogj, zero, sizes):
    """Return what belongs to a point, and sums over points, from calls for so many points each.

    That is y, x again and dL/dx; and logj, logj of the inverse and dL/dtheta.
    """
    points, logj, first = [], np.zeros(2), 0
    gtheta = np.zeros(0) if zero is None else zero.copy()
    for size in sizes:
        part = slice(first, first + size)
        first += size
        x = np.ascontiguousarray(case.x[part])
        results = [kernel.forward(x, case.theta)]
        if kernel.inverse:
            results.append(kernel.inverse(results[0][0], case.theta))
        each = [y for y, _ in results]
        logj[: len(results)] += [0 if log is None else np.sum(log) for _, log in results]
        if kernel.vjp:
            at = glogj[part] if np.ndim(glogj) else glogj
            gx = kernel.vjp(x, case.theta, g[part].copy(), at, gtheta)
            each += [] if gx is None else [gx]
        points.append(each)
    return np.concatenate(points, axis=1), np.concatenate([logj, gtheta])


@every("in_place")
def test_result_may_lie_where_the_input_does(case):
    for dtype in case.dtypes:
        apart, within = case.kernel(dtype), case.kernel(dtype)
        within.put_in_place = True
        y, logj = apart.forward(case.x, case.theta)
        assert_array_equal(within.forward(case.x, case.theta)[0], y)
        close_logj(within.forward(case.x, case.theta)[1], logj, 1e-15, 1)
        if apart.inverse:
            assert_array_equal(within.inverse(y, case.theta)[0], apart.inverse(y, case.theta)[0])


@every("shared")
def test_threads_may_share_it(case):
    """Two at once, on one plan, give what one gives alone: a call writes only to its own memory."""
    for dtype in case.dtypes:
        kernel = case.kernel(dtype)
        inputs = [case.x, case.rng.normal(size=case.x.shape)]
        alone = [kernel.forward(x, case.theta)[0] for x in inputs]
        differ = []

        def run(x, expected, kernel=kernel, differ=differ):
            for _ in range(20):
                y, _ = kernel.forward(x, case.theta)
                if not np.array_equal(y, expected):
                    differ.append(y)

        threads = [
            threading.Thread(target=run, args=pair) for pair in zip(inputs, alone, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not differ
