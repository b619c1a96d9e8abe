"""The table of kernels: how each is called, its slow twin, and numbers to try it on."""

from ctypes import c_double, c_ssize_t, c_void_p

import numpy as np
from reference import cdf1d, cspline, fft, filter, psi, rqp, rqs

F32, F64 = np.float32, np.float64


class Kernel:
    """A kernel in one precision, for numbers x and parameters theta, given in double.

    forward(x, theta) returns y and logj, the log-determinant as the kernel has it: a number, one
    for each x, or None. inverse(y, theta) returns x and the same logj. twin is forward, slowly.
    vjp(x, theta, g, glogj, gtheta) returns dL/dx (None: x is not differentiated), with g = dL/dy
    and glogj = dL/dlogj, and adds dL/dtheta to gtheta unless that is None.
    """

    float32 = True  # False: there is it in double only
    parameters = False
    tolerance = 1e-12, 1e-5  # in either precision, of the largest number; where relative, of each
    relative = False
    pointwise = False  # y_i depends on x_i alone: a number, or a point
    shared = False  # threads may share it
    log_determinant = False
    in_place = False  # y may lie where x does
    step = 1e-6  # of a parameter, in differences
    few = 301  # x_i of which derivatives are taken
    inverse = vjp = None

    def __init__(self, kernels, dtype):
        self.kernels, self.dtype = kernels, np.dtype(dtype)
        self.put_in_place = False

    def real(self, name, *args, result=None):
        return self.kernels.real(name, self.dtype, *args, result=result)

    def array(self, x):
        """Return a copy in this precision."""
        return np.array(x, self.dtype, order="C")

    def out(self, x):
        """Return where the result goes: an array of NaN, or x itself."""
        return x if self.put_in_place else np.full_like(x, np.nan)

    def glogj(self, rng, logj):
        """Return a dL/dlogj that vjp can be asked for."""
        return np.zeros_like(logj)


class Exp(Kernel):
    """y = exp(x)."""

    float32 = False
    pointwise = in_place = relative = True
    tolerance = (1e-15,)

    def forward(self, x, theta):
        x = self.array(x)
        y = self.out(x)
        self.kernels.call("k_exp", y, x, len(x), result=None)
        return y, None

    def twin(self, x, theta):
        return np.exp(np.clip(x, -700, 700)), None


class Increasing(Kernel):
    """Ascending numbers from free ones."""

    float32 = False

    def forward(self, x, theta):
        p = np.full_like(x, np.nan)
        self.kernels.call("k_increasing", p, x, len(x), result=None)
        return p, None

    def inverse(self, y, theta):
        a = np.full_like(y, np.nan)
        self.kernels.call("k_increasing_inverse", a, y, len(y), result=None)
        return a, None

    def vjp(self, x, theta, g, glogj, gtheta):
        ga, p = np.zeros_like(x), self.forward(x, theta)[0]
        self.kernels.call("k_increasing_vjp", ga, g, p, len(x), result=None)
        return ga

    def twin(self, x, theta):
        return cspline.increasing(x), None


class CSpline(Kernel):
    """theta is the knots' positions, then their values; x ascends."""

    float32, pointwise, parameters = False, True, True

    def forward(self, x, theta):
        y, (p, v) = np.full_like(x, np.nan), theta.reshape(2, -1)
        self.kernels.call("k_cspline", y, x, p, v, len(p), len(x), result=None)
        return y, None

    def vjp(self, x, theta, g, glogj, gtheta):
        (p, v), (gp, gv) = theta.reshape(2, -1), gtheta.reshape(2, -1)
        self.kernels.call("k_cspline_vjp", gp, gv, g, x, p, v, len(p), len(x), result=None)

    def twin(self, x, theta):
        return cspline.spline(x, *theta.reshape(2, -1)), None


class Psi(Kernel):
    """theta is 3 m free numbers; logj the sum over all x, with this weight in the loss."""

    pointwise = parameters = log_determinant = in_place = True
    tolerance = 1e-13, 2e-6

    def __init__(self, kernels, dtype, weight=None):
        super().__init__(kernels, dtype)
        self.weight = weight

    def run(self, name, x, theta):
        x = self.array(x)
        y = self.out(x)
        logj = self.real(name, y, x, theta, len(theta) // 3, len(x), result=c_double)
        return y, np.array(logj)

    def forward(self, x, theta):
        return self.run("psi_forward", x, theta)

    def inverse(self, y, theta):
        return self.run("psi_inverse", y, theta)

    def vjp(self, x, theta, g, glogj, gtheta):
        g = self.array(g)
        shape = len(theta) // 3, len(x)
        self.real("psi_vjp", g, gtheta, float(glogj), self.array(x), theta, *shape)
        return g

    def glogj(self, rng, logj):
        return np.array(rng.normal() if self.weight is None else self.weight)

    def twin(self, x, theta):
        return psi.forward(x, theta)


class RQS(Kernel):
    """theta is 3 m free numbers."""

    pointwise = parameters = log_determinant = True
    tolerance = 1e-11, 2e-4  # close to a hundred bins
    step = 3e-8  # a wide gap moves all the narrow ones beyond it

    def forward(self, x, theta):
        return self.kernels.spline("forward", self.array(x), theta)

    def inverse(self, y, theta):
        x, minus_logj = self.kernels.spline("inverse", self.array(y), theta)
        return x, -minus_logj

    def vjp(self, x, theta, g, glogj, gtheta):
        return self.kernels.spline_vjp(self.array(x), g, glogj, theta, gtheta)

    def glogj(self, rng, logj):
        return rng.normal(size=logj.shape)

    def twin(self, x, theta):
        return rqs.forward(x, rqs.knots(theta))


class RQP(Kernel):
    """theta[n][3 bins + 1]: a spline of every point's own; n is a multiple of 16."""

    parameters = log_determinant = in_place = True
    tolerance = 1e-11, 3e-4

    def __init__(self, kernels, dtype, bins):
        super().__init__(kernels, dtype)
        self.bins = bins

    def run(self, x, theta, inverse):
        x, log_slope = self.array(x), np.full(len(x), np.nan, self.dtype)
        y = self.out(x)
        given = self.array(theta), self.bins, inverse, len(x)
        self.real("rqp_map", y, log_slope, x, *given, result=None)
        return y, log_slope.astype(F64)

    def forward(self, x, theta):
        return self.run(x, theta, 0)

    def inverse(self, y, theta):
        x, minus_logj = self.run(y, theta, 1)
        return x, -minus_logj

    def vjp(self, x, theta, g, glogj, gtheta):
        g, gq = self.array(g), np.full(theta.size, np.nan, self.dtype)
        given = self.array(glogj), self.array(x), self.array(theta)
        self.real("rqp_vjp", g, gq, *given, self.bins, len(x), result=None)
        if gtheta is not None:
            gtheta += gq
        return g

    def glogj(self, rng, logj):
        return rng.normal(size=logj.shape)

    def twin(self, x, theta):
        return rqp.forward(x, theta.reshape(len(x), -1))


class Residual(Kernel):
    """v less its normal score; theta is the scores at the edges of bins of width 1 from -8."""

    pointwise = parameters = True

    def forward(self, x, theta):
        r, bins = np.full(len(x), np.nan, self.dtype), len(theta) - 1
        self.real("residual", r, self.array(x), self.array(theta), -8.0, 1.0, bins, len(x))
        return r, None

    def twin(self, x, theta):
        return cdf1d.residual(x, theta, -8.0, 1.0), None


class FFT(Kernel):
    """y is the half spectrum, real and imaginary parts in turn."""

    shared = True

    def __init__(self, kernels, dtype, *n):
        super().__init__(kernels, dtype)
        self.n, shape = n, np.array(n, np.int64)
        self.plan = c_void_p(self.real("fft_plan", len(n), shape, result=c_void_p))
        if not self.plan:
            raise ValueError(kernels.message())
        self.ld = self.real("fft_ld", self.plan, result=c_ssize_t)

    def forward(self, x, theta):
        y = np.full((*self.n[:-1], 2 * self.ld), np.nan, self.dtype)
        self.real("fft_forward", self.plan, y, self.array(x))
        return y, None

    def inverse(self, y, theta):
        x = np.full(self.n, np.nan, self.dtype)
        self.real("fft_inverse", self.plan, x, self.array(y))
        return x, None

    def twin(self, x, theta):
        return fft.forward(x, self.ld).view(float), None


class Filter(Kernel):
    """theta is T of every shell."""

    shared = parameters = log_determinant = in_place = True

    def __init__(self, kernels, dtype, n, box, axis=None):
        super().__init__(kernels, dtype)
        self.axis = axis
        self.n, self.box, shape = n, np.array(box, float), np.array(n, np.int64)
        where = len(n), shape, self.box, -1 if axis is None else axis
        self.handle = c_void_p(self.real("filter_new", *where, result=c_void_p))
        if not self.handle:
            raise ValueError(kernels.message())
        shells = self.real("filter_shells", self.handle, result=c_ssize_t)
        self.k, self.modes = np.empty(shells), np.empty(shells)
        self.real("filter_modes", self.handle, self.k, self.modes)
        self.mu2 = np.zeros(shells)
        if axis is not None:
            self.real("filter_mu2", self.handle, self.mu2)

    def __del__(self):
        if getattr(self, "handle", None):
            self.real("filter_free", self.handle)

    def forward(self, x, theta):
        x = self.array(x)
        y = self.out(x)
        self.real("filter_apply", self.handle, y, x, self.array(theta))
        return y, np.array(np.sum(self.modes * np.log(theta)))

    def inverse(self, y, theta):
        x, minus_logj = self.forward(y, 1 / theta)
        return x, -minus_logj

    def vjp(self, x, theta, g, glogj, gtheta, want_x=1):
        g, theta = self.array(g), self.array(theta)
        self.real("filter_vjp", self.handle, g, gtheta, self.array(x), theta, want_x)
        return g

    def power(self, x):
        out = np.zeros_like(self.k)
        self.real("filter_power", self.handle, out, self.array(x))
        return out

    def twin(self, x, theta):
        return filter.apply(x, theta, self.box, self.axis)


# ---- numbers to try them on ----------------------------------------------------------------------


def psi_theta(rng, m):
    """Return parameters of a spline near the identity on -2.5 to 2.5."""
    theta = rng.normal(scale=0.3, size=(3, m))
    theta[:2] += np.log(5 / (m - 1))
    theta[:2, 0] = rng.normal(scale=0.3, size=2) - 2.5
    return theta.ravel()


def knots(rng, *shape, m=7):
    """Return random splines of shape[...][3][m] that stay near the identity."""
    x = np.cumsum(rng.uniform(0.1, 1, (*shape, m)), axis=-1)
    y = np.cumsum(rng.uniform(0.1, 1, (*shape, m)), axis=-1)
    d = np.exp(rng.uniform(-0.7, 0.7, (*shape, m)))
    return np.stack([x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True), d], axis=-2)


def crowded(rng, *shape):
    """Return splines most of whose knots lie in one cell of the search: it halves intervals."""
    k = knots(rng, *shape, m=40)
    k[..., 0, :] = np.sinh(np.linspace(-9, 9, 40))
    k[..., 1, :] = 2 * np.arcsinh(k[..., 0, :])
    k[..., 2, :] = 2 / np.cosh(np.linspace(-9, 9, 40))
    return k


def own_splines(rng, n, bins, spread=1.0):
    """Return theta of splines of n points: t, s, log widths, log heights, log slopes."""
    q = rng.normal(scale=spread, size=(n, 3 * bins + 1))
    q[:, :2] *= 0.5
    return q.ravel()


def cspline_inputs(rng, m):
    """Return points in every bin, and outside; and knots of widths from 0.01 to 1."""
    p = np.cumsum(np.exp(rng.uniform(np.log(0.01), 0, m))) - 1
    inside = rng.uniform(p[:-1], p[1:], (9, m - 1)).ravel()
    x = np.sort(np.concatenate([inside, [p[0] - 1, p[0] - 0.1, p[-1] + 0.1, p[-1] + 2]]))
    return x, np.concatenate([p, rng.normal(size=m)])


MESHES = {
    (4, 6): (1, 1),
    (5, 7): (2, 2),
    (6, 5): (3, 2),
    (7, 4): (1, 2.5),
    (1, 8): (1, 1),
    (9, 1): (2, 1),
    (1, 1): (1, 1),
    (2, 2): (1, 3),
    (3, 4, 5): (1, 1, 1),
    (4, 4, 4): (2, 2, 2),
    (5, 3, 2): (1, 2, 3),
    (4, 1, 6): (1, 1, 1),
    (1, 5, 3): (2, 1, 1),
    (2, 6, 1): (1, 1, 2),
    (17, 12): (1, 1),  # more rows than are transformed together
    (6, 8, 7): (3, 2, 1),
}
LARGE = (20, 33), (140, 1000)  # the last with columns by way of a buffer


def filter_inputs(rng, n):
    box = MESHES[n]
    return rng.normal(size=n), np.exp(rng.normal(scale=0.5, size=len(filter.shells(n, box)[0])))


# name: (kernel, its arguments, what makes x and theta from a random generator)
TABLE = {
    "exp": (Exp, (), lambda r: (r.uniform(-40, 40, 301), None)),
    "exp, far": (Exp, (), lambda r: (r.uniform(-800, 800, 301), None)),
    "increasing": (Increasing, (), lambda r: (r.normal(size=9), None)),
    "increasing, one": (Increasing, (), lambda r: (r.normal(size=1), None)),
    "residual": (
        Residual,
        (),
        lambda r: (r.normal(scale=5, size=301), np.cumsum(r.uniform(0.2, 1, 17)) - 5),
    ),
    **{
        f"cspline, {m} knots": (CSpline, (), lambda r, m=m: cspline_inputs(r, m))
        for m in (2, 3, 4, 9)
    },
    # as many as fill registers, one less, one more; most
    **{
        f"psi, {m} knots": (
            Psi,
            (),
            lambda r, m=m: (r.normal(scale=1.5, size=301), psi_theta(r, m)),
        )
        for m in (2, 3, 7, 8, 15, 16, 17, 31, 32, 63)
    },
    **{
        f"psi, {m} knots, weight {w}": (
            Psi,
            (w,),
            lambda r, m=m: (r.normal(scale=1.5, size=301), psi_theta(r, m)),
        )
        for m in (8, 17)
        for w in (0, 1, -2.5)
    },
    **{
        f"rqs, {m} knots": (
            RQS,
            (),
            lambda r, m=m: (r.normal(scale=2, size=301), rqs.theta(knots(r, m=m))),
        )
        for m in (2, 3, 8, 50)
    },
    "rqs, crowded": (RQS, (), lambda r: (r.normal(scale=2, size=301), rqs.theta(crowded(r)))),
    **{
        f"rqp, {bins} bins": (
            RQP,
            (bins,),
            lambda r, bins=bins: (r.normal(scale=3, size=48), own_splines(r, 48, bins)),
        )
        for bins in (1, 2, 8, 64)
    },
    **{
        f"fft, {' x '.join(map(str, n))}": (FFT, n, lambda r, n=n: (r.normal(size=n), None))
        for n in (*MESHES, *LARGE)
    },
    **{
        f"filter, {' x '.join(map(str, n))}": (
            Filter,
            (n, MESHES[n]),
            lambda r, n=n: filter_inputs(r, n),
        )
        for n in MESHES
    },
}


class Case:
    """A line of a table; every test sees the same numbers."""

    def __init__(self, kernels, name, table=TABLE):
        self.kernels = kernels
        self.kind, self.arguments, inputs = table[name]
        self.rng = np.random.default_rng(sum(name.encode()))
        self.x, self.theta = inputs(self.rng)
        # where derivatives are taken one number after another
        self.some = self.x[: self.kind.few] if self.kind.pointwise else self.x
        self.dtypes = (F64, F32) if self.kind.float32 else (F64,)

    def kernel(self, dtype=F64):
        return self.kind(self.kernels, dtype, *self.arguments)

    def gradients(self, x=None):
        """Return dL/dy, dL/dlogj and the start of dL/dtheta, as vjp takes them."""
        kernel = self.kernel()
        y, logj = kernel.forward(self.x if x is None else x, self.theta)
        g = self.rng.normal(size=y.shape)
        glogj = None if logj is None else kernel.glogj(self.rng, logj)
        return g, glogj, None if self.theta is None else np.zeros_like(self.theta)
