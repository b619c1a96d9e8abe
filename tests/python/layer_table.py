"""The table of layers: how each is made, its slow twin, and points to try it on."""

from ctypes import c_char_p, c_int, c_ssize_t, c_void_p

import numpy as np
from ckernels import KINDS
from kernel_table import Kernel, crowded, knots, psi_theta
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


# ---- numbers to try them on ----------------------------------------------------------------------


def slices(rng, k, d):
    return np.linalg.qr(rng.normal(size=(d, k)))[0].T


BOUNDED = ["linear", "asinh", "logit", "above", "below"], [1, -1, -4, -6, 7], [2, 0.5, 5, 2, 0.7]
MANY = [["asinh", "linear", "asinh"] * 7, np.linspace(-1, 1, 21), np.linspace(0.5, 3, 21)]


def bounded_points(rng, n):
    x = rng.normal(scale=1.5, size=(n, 5))
    x[:, 2] = rng.uniform(-3.9, 4.9, n)
    x[:, 3] = np.clip(x[:, 3], -5.9, None)
    x[:, 4] = np.clip(x[:, 4], None, 6.9)
    return x


def points(d, n=301):
    return lambda rng: rng.normal(scale=1.5, size=(n, d))


def sliced_theta(rng, d, k, m, classes, make=knots):
    splines = make(rng, classes, k or d) if make is crowded else make(rng, classes, k or d, m=m)
    theta = [rqs.theta(s) for s in splines.reshape(-1, 3, m)]
    return np.concatenate([*theta, slices(rng, k, d).ravel() if k else []])


def affine_theta(rng, d):
    return np.concatenate([(rng.normal(size=(d, d)) + 2 * np.eye(d)).ravel(), rng.normal(size=d)])


def symmetric_theta(rng, psi_knots, filter_knots, axis=None, mu_knots=1):
    """Return parameters near the identity, of which a knot of the filter lies below k = 0."""
    positions = np.log(1.2 / filter_knots) + rng.normal(scale=0.2, size=filter_knots)
    positions[0] = -0.1
    values = rng.normal(scale=0.3, size=mu_knots * filter_knots)
    return np.concatenate([psi_theta(rng, psi_knots), positions, values])


def sliced(d, k, m, classes=1, make=knots, n=301):
    kind = Labelled if classes > 1 else Sliced
    n = 24 if classes > 1 else n
    return kind, (d, k, m, classes), points(d, n), lambda r: sliced_theta(r, d, k, m, classes, make)


def patch(image, kernel, shift, k, m, classes=1, n=140):
    count, size = layers.patches(image, kernel, shift).shape

    def theta(rng):
        return np.concatenate([sliced_theta(rng, size, k, m, classes) for _ in range(count)])

    arguments = image, kernel, shift, k, m, classes
    kind = LabelledPatch if classes > 1 else Patch
    return kind, arguments, points(int(np.prod(image)), n), theta


def symmetric(n, box, m=8, filter_knots=9, fields=140, axial=()):
    return (
        Symmetric,
        (n, box, m, filter_knots, *axial),
        points(int(np.prod(n)), fields),
        lambda r: symmetric_theta(r, m, filter_knots, *axial),
    )


def own_tables(n, box, m=8, filter_knots=9, fields=5, axial=()):
    def theta(rng):
        each = (symmetric_theta(rng, m, filter_knots, *axial) for _ in range(fields))
        return np.concatenate(list(each))

    arguments = n, box, m, filter_knots, *axial
    return OwnTables, arguments, points(int(np.prod(n)), fields), theta


def shift(n, box, p, filter_knots=9, fields=5, own=False):
    """c is about 3, with a standard deviation of 2; g and S are of either sign."""

    def one(rng):
        of_filter = symmetric_theta(rng, 2, filter_knots)[6:]
        return np.concatenate([rng.normal(size=len(p)), of_filter])

    def theta(rng):
        return np.concatenate([one(rng) for _ in range(fields if own else 1)])

    kind = OwnShift if own else Shift
    return kind, (n, box, p, filter_knots), points(int(np.prod(n)), fields), theta


def coupling(n, box, split, large, channels=2, knots=4, fields=140, own=False):
    def theta(rng):
        return rng.normal(scale=0.5, size=(fields if own else 1) * 2 * channels * knots)

    kind = OwnCoupling if own else Coupling
    arguments = n, box, split, large, channels, knots
    return kind, arguments, points(int(np.prod(n)), fields), theta


def autoregressive(ranks, hidden, bins, n_y=0, n=None):
    """Weights that the mask forbids are large: whoever hears of them is found out."""

    def theta(rng):
        masks = layers.masks(ranks, hidden, bins, n_y)
        scale = [0.3, *([0.5] * len(hidden)), 0.15]
        return np.concatenate(
            [
                np.where(np.ravel(m), size * rng.normal(size=np.size(m)), 1e3)
                for m, size in zip(masks, np.repeat(scale, [1, *[2] * len(hidden), 2]), strict=True)
            ]
        )

    kind = Conditioned if n_y else Autoregressive
    arguments = ranks, hidden, bins, n_y
    return kind, arguments, points(len(ranks), n or (24 if n_y else 150)), theta


# name: (layer, its arguments, what makes x, what makes theta)
LAYERS = {
    "columns": (Columns, (5, *BOUNDED), lambda r: bounded_points(r, 301), None),
    "many columns": (Columns, (21, *MANY), points(21), None),
    "columns, the last straight": (
        Columns,
        (2, ["asinh", "linear"], [0, 1], [0.5, 3]),
        points(2),
        None,
    ),
    "scale": (Scale, (3, 0.7, 2.5), points(3), None),
    "affine": (Affine, (4,), points(4), lambda r: affine_theta(r, 4)),
    "affine, one column": (Affine, (1,), points(1), lambda r: np.array([-2.0, 0.3])),
    "affine, flipped": (Affine, (2,), points(2), lambda r: np.array([0, 2, 1, 0.3, 1, 1])),
    "affine, 17 columns": (Affine, (17,), points(17), lambda r: affine_theta(r, 17)),
    "sliced, one column": sliced(1, 0, 7),
    "sliced, two knots": sliced(2, 0, 2),
    "sliced, no slices": sliced(4, 0, 7),
    "sliced, no slices, crowded": sliced(3, 0, 40, make=crowded),
    "sliced, no slices, classes": sliced(3, 0, 7, classes=3),
    "sliced, more classes than points of a tile": sliced(2, 1, 4, classes=300),
    "sliced, one slice": sliced(5, 1, 7),
    "sliced, K = d": sliced(9, 9, 50),
    "sliced, crowded": sliced(4, 2, 40, make=crowded),
    "sliced, classes": sliced(4, 2, 7, classes=3),
    "patch, 2 x 2 of 4 x 4": patch((4, 4, 1), (2, 2, 1), (0, 0), 3, 5),
    "patch, shifted, each channel": patch((5, 4, 2), (2, 2, 1), (4, 1), 2, 5),
    "patch, sides not divided": patch((7, 5, 3), (3, 2, 3), (2, 4), 4, 4),
    "patch, sides not divided, each channel": patch((7, 5, 3), (3, 2, 1), (6, 3), 2, 3),
    "patch, no slices": patch((3, 4, 1), (3, 2, 1), (1, 1), 0, 5),
    "patch, classes": patch((4, 5, 1), (2, 2, 1), (1, 3), 2, 4, classes=3, n=24),
    "patch, the whole image": patch((2, 2, 2), (2, 2, 2), (1, 0), 3, 7),
    "patch, of one number": patch((2, 3, 1), (1, 1, 1), (0, 0), 1, 4),
    "symmetric, 4 x 6": symmetric((4, 6), (1, 1)),
    "symmetric, 5 x 3": symmetric((5, 3), (2, 1), m=17, filter_knots=2),
    "symmetric, 3 x 4 x 2": symmetric((3, 4, 2), (1, 2, 1), m=2, filter_knots=30),
    "symmetric, a table a field": own_tables((4, 6), (1, 1)),
    "symmetric, 3-D, a table a field": own_tables((3, 2, 4), (1, 2, 1), m=3, filter_knots=4),
    "symmetric, axis 0 of 4 x 6": symmetric((4, 6), (1, 1), axial=(0, 4)),
    "symmetric, axis 1 of 4 x 6": symmetric((4, 6), (1, 1), axial=(1, 2)),
    "symmetric, axis 1 of 5 x 3": symmetric((5, 3), (2, 1), m=3, filter_knots=2, axial=(1, 3)),
    "symmetric, axis 0 of 3 x 4 x 2": symmetric((3, 4, 2), (1, 2, 1), m=2, axial=(0, 3)),
    "symmetric, axis 1 of 3 x 4 x 2": symmetric((3, 4, 2), (1, 2, 1), m=2, axial=(1, 4)),
    "symmetric, axis 2 of 2 x 3 x 4": symmetric((2, 3, 4), (1, 1, 1), m=2, axial=(2, 4)),
    "symmetric, an axis, a table a field": own_tables((4, 5), (1, 1), axial=(1, 4)),
    "shift, 4 x 6": shift((4, 6), (1, 1), (0, 1, 3, 3.5, 6)),
    "shift, two knots, 5 x 3": shift((5, 3), (2, 1), (2, 4), filter_knots=2),
    "shift, 3 x 4 x 2": shift((3, 4, 2), (1, 2, 1), tuple(np.linspace(-1, 7, 12)), 30),
    "shift, more pixels than a block": shift((20, 17), (1, 1), (1, 2, 5), fields=2),
    "shift, a table a field": shift((4, 6), (1, 1), (0, 2, 3, 7), own=True),
    "coupling, 4 x 6": coupling((4, 6), (1, 1), 0.5, 1),
    "coupling, the small scales move, 5 x 3": coupling((5, 3), (2, 1), 0.6, 0, 3, 2),
    "coupling, 3 x 4 x 2": coupling((3, 4, 2), (1, 2, 1), 0.7, 1, 1, 9),
    "coupling, a table a field": coupling((4, 6), (1, 1), 0.4, 0, fields=5, own=True),
    "autoregressive": autoregressive((0, 1, 2), (8,), 3),
    "autoregressive, other ways round": autoregressive((2, 0, 3, 1), (7, 5), 2),
    "autoregressive, two ranks": autoregressive((1, 0, 1, 0, 0), (6,), 4),
    "autoregressive, ranks left out": autoregressive((0, 2, 2), (5, 1, 4), 2),
    "autoregressive, one column": autoregressive((0,), (3,), 5),
    "autoregressive, one bin": autoregressive((1, 0), (4,), 1),
    "autoregressive, fewer units than ranks": autoregressive((0, 1, 2, 3, 4), (2,), 2),
    "autoregressive, y": autoregressive((1, 2, 0), (8,), 3, 2),
    "autoregressive, one rank, y": autoregressive((0, 0, 0), (5, 4), 2, 1),
    "autoregressive, two ranks, y": autoregressive((0, 1), (6,), 3, 3),
    "autoregressive, one column, y": autoregressive((0,), (4,), 2, 2),
    "example": (Example, (3,), points(3), lambda r: r.normal(scale=0.4, size=6)),
}


def inputs(x, theta):
    return lambda rng: (x(rng), theta(rng) if theta else None)


TABLE = {
    name: (kind, arguments, inputs(x, theta))
    for name, (kind, arguments, x, theta) in LAYERS.items()
}
