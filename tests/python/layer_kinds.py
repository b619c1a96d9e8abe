"""The layers of the table: how each is made and called, and its slow twin."""

from ctypes import c_char_p, c_int, c_ssize_t, c_void_p

import numpy as np
from ckernels import KINDS
from kernel_table import Kernel
from reference import layers, rqs

COLUMNS, ROWS, ANY = range(3)
TILE = 256  # the most points in a tile


class Layer(Kernel):
    """A layer in one precision: points x[n][d], logj[n]; theta as csrc/layers.h has it.

    With tables = n, theta[n][n_theta] holds parameters of every point's own.
    """

    parameters = log_determinant = pointwise = True
    tolerance = 1e-11, 3e-4
    few = 20  # points of which derivatives are taken
    classes = 1
    box = ()
    own_tables = False

    def __init__(self, kernels, dtype, d, *shape):
        super().__init__(kernels, dtype)
        self.d, self.shape = d, shape
        self.space = (d,)
        self.handle = c_void_p(self.make())
        if not self.handle:
            raise ValueError(kernels.message())
        self.n_theta = self.call("layer_n_theta", result=c_ssize_t)
        self.layout = self.call("layer_layout", result=c_int)

    def __del__(self):
        if getattr(self, "handle", None):
            self.call("release")

    def call(self, name, *args, result=None):
        return self.real(name, self.handle, *args, result=result)

    def slices(self, theta):
        """Return those of theta that are slices, [patches][K][d], a view; or None."""
        return None

    def kind(self):
        return self.call("layer_kind", result=c_char_p).decode()

    def labels(self, n):
        """Return the classes of the first n points, or None."""
        if self.classes == 1:
            return None
        return np.random.default_rng(5).integers(0, self.classes, n).astype(np.int32)

    def context(self, n):
        """Return the second fields of the first n points, or None."""
        return None

    def conditions(self, n):
        """Return y[n][n_y] of the first n points, or None."""
        return None

    def tile(self, x, theta, g=None, glogj=None, gtheta=None, **options):
        """Return x and logj[n] of one tile, and dL/dx; see layer_run in tests/kernels/layers.c.

        Options: layout, label, context, y, gy, inverse, want_x and pad, what stands beside the
        points of a tile.
        """
        n = len(x)
        tables = n if self.own_tables else 1
        theta = np.zeros(0) if theta is None else theta
        rows = padded(theta, tables, self.n_theta)
        grows = None if gtheta is None else padded(gtheta, tables, self.n_theta)
        x, logj, g = self.array(x), np.zeros(n), None if g is None else self.array(g)
        label, context, conditions = (
            options.get("label", self.labels(n)),
            options.get("context", self.context(n)),
            options.get("y", self.conditions(n)),
        )
        n_y = 0 if conditions is None else conditions.shape[1]
        context = None if context is None else self.array(context)
        layout = options.get("layout", self.layout)
        wrong = self.call(
            *("layer_run", x, logj, g, grows, glogj, rows, rows.shape[1], tables, label, context),
            *(conditions, n_y, options.get("gy")),
            COLUMNS if layout == ANY else layout,
            *(options.get("inverse", 0), options.get("want_x", 1), options.get("pad", np.nan), n),
            result=c_int,
        )
        assert not wrong
        if gtheta is not None:
            assert np.isnan(grows[:, self.n_theta :]).all()
            gtheta[:] = grows[:, : self.n_theta].ravel()
        return x, logj, g

    def tiles(self, x, theta, g=None, glogj=None, gtheta=None, **options):
        """Do the same with more points than a tile holds, one tile after another."""
        out, label, context = [], self.labels(len(x)), self.context(len(x))
        conditions = self.conditions(len(x))
        for first in range(0, len(x), TILE):
            part = slice(first, first + TILE)
            if label is not None:
                options["label"] = label[part].copy()
            if context is not None:
                options["context"] = context[part]
            if conditions is not None:
                options["y"] = conditions[part]
            of_part = (None if a is None else np.ascontiguousarray(a[part]) for a in (g, glogj))
            out.append(self.tile(x[part], theta, *of_part, gtheta, **options))
        return [None if a[0] is None else np.concatenate(a) for a in zip(*out, strict=True)]

    def forward(self, x, theta):
        return tuple(self.tiles(x, theta)[:2])

    def inverse(self, y, theta):
        x, minus_logj, _ = self.tiles(y, theta, inverse=1)
        return x, -minus_logj

    def vjp(self, x, theta, g, glogj, gtheta):
        return self.tiles(x, theta, g, glogj, gtheta)[2]

    def glogj(self, rng, logj):
        return rng.normal(size=logj.shape)

    def copy(self, n=-1, whole=1 << 20):
        """Return the handle of the layer read from what it wrote, and the bytes of that."""
        shape, size = np.array(self.space), np.zeros(1, np.int64)
        box = np.array([*self.box, *[0.0] * 3])
        of_space = len(shape), shape, box, self.classes
        copy = self.call("layer_copy", size, n, whole, *of_space, result=c_void_p)
        return copy, int(size[0])


def padded(theta, tables, n_theta):
    """Return theta[tables][stride], of which n_theta count and the rest is NaN."""
    rows = np.full((tables, n_theta + (3 if tables > 1 else 0)), np.nan)
    rows[:, :n_theta] = theta.reshape(tables, n_theta)
    return rows


class Columns(Layer):
    parameters = False

    def make(self):
        kinds, a, b = self.shape
        kinds = np.array([KINDS.index(k) for k in kinds], np.int32)
        a, b = np.array(a, float), np.array(b, float)
        return self.real("columns", kinds, a, b, self.d, result=c_void_p)

    def twin(self, x, theta):
        return layers.columns(*self.shape, x)


class Scale(Layer):
    parameters = False

    def make(self):
        return self.real("scale", *map(float, self.shape), self.d, result=c_void_p)

    def twin(self, x, theta):
        return layers.scale(*self.shape, x)


class Affine(Layer):
    def make(self):
        return self.real("affine", self.d, result=c_void_p)

    def twin(self, x, theta):
        d = self.d
        return layers.affine(theta[: d * d].reshape(d, d), theta[d * d :], x)


class Sliced(Layer):
    """Of shape k (0: every column on its own), m, classes."""

    def make(self):
        self.k, self.m, self.classes = self.shape
        return self.real("sliced", self.d, *self.shape, result=c_void_p)

    def slices(self, theta):
        return theta[self.n_theta - self.k * self.d :].reshape(1, self.k, self.d)

    def twin(self, x, theta):
        k = self.k or self.d
        splines = theta[: self.classes * k * 3 * self.m].reshape(self.classes, k, -1)
        slices = theta[splines.size :].reshape(k, self.d) if self.k else np.eye(self.d)
        return layers.sliced(
            slices,
            [[rqs.knots(t) for t in of_class] for of_class in splines],
            x,
            self.labels(len(x)),
        )


class Labelled(Sliced):
    pointwise = False  # a point's class is given by its place


class Patch(Layer):
    """Of an image, kernel and shift, k (0: every number on its own), m, classes."""

    def __init__(self, kernels, dtype, image, *shape):
        self.image = image
        super().__init__(kernels, dtype, int(np.prod(image)), *shape)

    def make(self):
        self.kernel, self.shift, self.k, self.m, self.classes = self.shape
        where = np.array([*self.image, *self.kernel, *self.shift], np.int32)
        return self.real("patch", where, self.k, self.m, self.classes, result=c_void_p)

    def rows(self):
        return layers.patches(self.image, self.kernel, self.shift)

    def slices(self, theta):
        count, size = self.rows().shape
        each = theta.reshape(count, -1)
        return np.lib.stride_tricks.as_strided(
            each[:, each.shape[1] - self.k * size :],
            (count, self.k, size),
            (each.strides[0], 8 * size, 8),
        )

    def twin(self, x, theta):
        count, size = self.rows().shape
        k = self.k or size
        splines = theta.reshape(count, -1)[:, : self.classes * k * 3 * self.m]
        return layers.patch(
            self.rows(),
            self.slices(theta) if self.k else [np.eye(size)] * count,
            [
                [[rqs.knots(t) for t in one] for one in patch]
                for patch in splines.reshape(count, self.classes, k, -1)
            ],
            x,
            self.labels(len(x)),
        )


class LabelledPatch(Patch):
    pointwise = False  # as Labelled


class OnMesh(Layer):
    """Of fields of shape n in a box."""

    tolerance = 1e-11, 1e-4

    def __init__(self, kernels, dtype, n, box, *shape):
        self.mesh, self.box = n, box
        super().__init__(kernels, dtype, int(np.prod(n)), *shape)
        self.space = n

    def rows(self, x, theta):
        """Return the parameters of every field, which may be those of all."""
        return np.broadcast_to(theta.reshape(-1, self.n_theta), (len(x), self.n_theta))


class Symmetric(OnMesh):
    """Of fields of shape n in a box: knots of Psi and of the filter; axis and knots along it."""

    def __init__(self, kernels, dtype, n, box, *shape):
        self.axis = shape[2:] or (None, 1)
        super().__init__(kernels, dtype, n, box, *shape)

    def make(self):
        n, box = np.array(self.mesh), np.array(self.box, float)
        shape = self.shape if len(self.shape) == 4 else (*self.shape, -1, 1)
        return self.real("symmetric", len(n), n, box, *shape, result=c_void_p)

    def twin(self, x, theta):
        y, logj = zip(
            *(
                layers.symmetric(field.reshape(self.mesh), t, self.shape[0], self.box, *self.axis)
                for field, t in zip(x, self.rows(x, theta), strict=True)
            ),
            strict=True,
        )
        return np.reshape(y, x.shape), np.array(logj)


class OwnTables(Symmetric):
    """With parameters of every field's own."""

    own_tables = True
    pointwise = False  # for theta belongs to all of them


class Shift(OnMesh):
    """Of fields of shape n in a box: where g has knots, and how many S has."""

    pointwise = False  # a point's second field is given by its place

    def make(self):
        n, box = np.array(self.mesh), np.array(self.box, float)
        p, filter_knots = self.shape
        of = np.array(p, float), len(p), filter_knots
        return self.real("shift", len(n), n, box, *of, result=c_void_p)

    def context(self, n):
        return np.random.default_rng(7).normal(3, 2, size=(n, self.d))

    def twin(self, x, theta):
        each = zip(x, self.context(len(x)), self.rows(x, theta), strict=True)
        y = [
            layers.shift(f.reshape(self.mesh), c.reshape(self.mesh), t, self.shape[0], self.box)
            for f, c, t in each
        ]
        return np.reshape(y, x.shape), np.zeros(len(x))


class OwnShift(Shift):
    own_tables = True


class Coupling(OnMesh):
    """Of fields of shape n in a box: the split, whether large scales move, channels, knots."""

    def make(self):
        n, box = np.array(self.mesh), np.array(self.box, float)
        return self.real("coupling", len(n), n, box, *self.shape, result=c_void_p)

    def twin(self, x, theta):
        y = [
            layers.coupling(f.reshape(self.mesh), t, *self.shape[:3], self.box)
            for f, t in zip(x, self.rows(x, theta), strict=True)
        ]
        return np.reshape(y, x.shape), np.zeros(len(x))


class OwnCoupling(Coupling):
    own_tables = True
    pointwise = False


class Autoregressive(Layer):
    """Of ranks, units of hidden layers, bins and how many conditions there are."""

    def __init__(self, kernels, dtype, ranks, *shape):
        self.ranks = ranks
        super().__init__(kernels, dtype, len(ranks), *shape)

    def make(self):
        hidden, bins, n_y = self.shape
        self.stats = np.array([[3.0, 2.0, -10.0, 10.0]] * n_y).reshape(n_y, 4).T.copy()
        of_network = np.array(hidden, np.int64), len(hidden), bins, self.stats, n_y
        ranks = np.array(self.ranks, np.int32)
        return self.real("autoregressive", ranks, self.d, *of_network, result=c_void_p)

    def twin(self, x, theta):
        y = self.conditions(len(x))
        y = np.zeros((len(x), 0)) if y is None else (y - self.stats[0]) / self.stats[1]
        return layers.autoregressive(x, y, theta, self.ranks, *self.shape[:2])


class Conditioned(Autoregressive):
    pointwise = False  # a point's conditions are given by its place

    def conditions(self, n):
        return np.random.default_rng(8).normal(3, 2, size=(n, self.shape[2]))


class Example(Layer):
    def make(self):
        return self.real("example", self.d, result=c_void_p)

    def twin(self, x, theta):
        return layers.sinh_arcsinh(*theta.reshape(self.d, 2).T, x)
