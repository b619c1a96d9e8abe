"""The table of layers, with points to try each on."""

import numpy as np
from kernel_table import crowded, knots, psi_theta
from layer_kinds import (
    Affine,
    Autoregressive,
    Columns,
    Conditioned,
    Coupling,
    Example,
    Labelled,
    LabelledPatch,
    OwnCoupling,
    OwnShift,
    OwnTables,
    Patch,
    Scale,
    Shift,
    Sliced,
    Symmetric,
)
from reference import layers, rqs

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
