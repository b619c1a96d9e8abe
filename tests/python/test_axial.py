"""Axial flows: fields with a line of sight, whose density is known, and what symmetry is left."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow
from pyflow import fields
from pyflow.layers import Symmetric

SIDE = 32
PRIOR = np.array([[0.5, 2.0], [0.2, 1.5]])


def kaiser(amplitude, beta):
    """P(k, mu) = A (1 + beta mu^2)^2 k^-1.5 (Kaiser 1987)."""
    a, b = (np.asarray(v, float)[..., None, None] for v in (amplitude, beta))
    return lambda k, mu: a * (1 + b * mu**2) ** 2 * k**-1.5


def fit(x, *args, **options):
    known = {"n_layers": 1, "psi_knots": 4, "filter_knots": 8, "epochs": 8, "verbose": False}
    return pyflow.SymmetricFlow(x, *args, **known | {"box_size": x.shape[1]} | options)


def white(x):
    """Log p of white noise with the fields' variance, on average."""
    return -0.5 * x[0].size * np.log(2 * np.pi * np.e * x.var())


def random_flow(mesh, axis, seed=1, dtype=np.float64, **options):
    """Return a flow of one axial layer whose log T has no symmetry but its own, and some fields."""
    x = np.random.default_rng(seed).normal(size=(20, *mesh))
    for a in range(len(mesh)):  # smooth, and more so along the axis
        for _ in range(3 if a == axis % len(mesh) else 1):
            x = x + 0.7 * np.roll(x, 1, axis=1 + a)
    x = x.astype(dtype)
    return fit(x, symmetry="axial", axis=axis, epochs=0, **options), x[:3]


# ---- truth ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redshift_space():
    x = fields.gaussian_field(kaiser(1, 1), (SIDE, SIDE), 900, box_size=SIDE, seed=1, axis=0)
    return np.split(x, [500, 600])


def test_density_in_redshift_space_is_nearly_the_exact_one(redshift_space):
    """And an isotropic flow's is not: it loses what the quadrupole knows."""
    train, validate, test = redshift_space
    exact = fields.gaussian_logp(test, kaiser(1, 1), SIDE, axis=0)
    gain = exact.mean() - white(test)
    lost = {
        s: (exact - fit(train, validate, symmetry=s, axis=a).evaluate_density(test)).mean() / gain
        for s, a in (("axial", 0), ("isotropic", None))
    }
    assert lost["axial"] < 1.5e-3
    assert lost["isotropic"] > 0.1


def test_start_is_nearly_the_exact_one_in_three_dimensions():
    def power(k, mu):
        return (1 + mu**2) ** 2 / k

    mesh, box = (12, 10, 8), (12.0, 10.0, 8.0)
    x = fields.gaussian_field(power, mesh, 300, box_size=box, seed=2, axis=1)
    exact = fields.gaussian_logp(x[200:], power, box, axis=1)
    gain = exact.mean() - white(x)
    known = {"box_size": box, "epochs": 0, "symmetry": "axial", "start_fields": 200}
    right, wrong = (fit(x[:200], axis=axis, **known) for axis in (1, 2))
    assert (exact - right.evaluate_density(x[200:])).mean() < 0.02 * gain
    assert (exact - wrong.evaluate_density(x[200:])).mean() > 0.05 * gain


def test_an_axis_costs_isotropic_fields_nothing():
    x = fields.gaussian_field(lambda k: k**-1.5, (SIDE, SIDE), 900, box_size=SIDE, seed=3)
    train, validate, test = np.split(x, [500, 600])
    axial, isotropic = (
        fit(train, validate, symmetry=s).evaluate_density(test).mean()
        for s in ("axial", "isotropic")
    )
    gain = fields.gaussian_logp(test, lambda k: k**-1.5, SIDE).mean() - white(test)
    assert axial > isotropic - 1e-3 * gain


def test_posterior_of_redshift_space_is_nearly_the_exact_one():
    rng = np.random.default_rng(4)
    y = rng.uniform(*PRIOR.T, size=(640, 2))
    x = fields.gaussian_field(kaiser(*y.T), (16, 16), box_size=16, seed=rng, axis=-1)
    flow = fit(
        x[:560], x[560:620], y[:560], y[560:620], hidden=(32, 32), epochs=30, symmetry="axial"
    )
    off, merit = [], []
    for field in x[620:]:
        exact = pyflow.Posterior(
            lambda at, f=field: fields.gaussian_logp(f[None], kaiser(*at.T), 16, axis=-1), PRIOR
        )
        mine = flow.posterior(field, PRIOR)
        off.append((mine.mean - exact.mean) / np.sqrt(np.diag(exact.cov)))
        merit.append(mine.figure_of_merit(0.68) / exact.figure_of_merit(0.68))
    assert np.sqrt(np.mean(np.square(off), axis=0)).max() < 0.45
    assert abs(np.mean(off, axis=0)).max() < 0.25
    assert abs(np.mean(merit) - 1) < 0.15


# ---- symmetry ------------------------------------------------------------------------------------

KEPT = {
    "shift along both axes": lambda x: np.roll(x, (3, 5), (1, 2)),
    "shift along the first": lambda x: np.roll(x, 1, 1),
    "shift along the second": lambda x: np.roll(x, 1, 2),
    "reflection of the first": lambda x: x[:, ::-1],
    "reflection of the second": lambda x: x[:, :, ::-1],
}
CLOSE = {np.float32: 1e-4, np.float64: 1e-9}


def both_ways(flow, x, move):
    """Return z of moved fields and moved z."""
    return flow.forward(move(x))[0], move(flow.forward(x)[0])


@pytest.mark.parametrize("move", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", CLOSE)
def test_shifts_and_reflections_are_kept(dtype, axis, move):
    flow, x = random_flow((8, 8), axis, dtype=dtype)
    of_moved, moved = both_ways(flow, x, move)
    assert of_moved.dtype == dtype
    assert_allclose(of_moved, moved, atol=CLOSE[dtype])
    assert abs(of_moved - flow.forward(x)[0]).max() > 0.1
    assert_allclose(flow.evaluate_density(move(x)), flow.evaluate_density(x), rtol=CLOSE[dtype])


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_rotations_about_the_axis_alone_are_kept(axis, dtype):
    flow, x = random_flow((6, 6, 6), axis, dtype=dtype)
    for about in range(3):
        plane = [1 + a for a in range(3) if a != about]
        of_moved, moved = both_ways(flow, x, lambda x, p=plane: np.rot90(x, axes=p))
        if about == axis % 3:
            assert_allclose(of_moved, moved, atol=CLOSE[dtype])
        else:
            assert abs(of_moved - moved).max() > 0.1


def test_a_swap_of_axes_is_broken():
    flow, x = random_flow((8, 8), 0)
    of_moved, moved = both_ways(flow, x, lambda x: x.swapaxes(1, 2))
    assert abs(of_moved - moved).max() > 0.1


def test_an_axis_swapped_in_the_fields_and_in_the_flow_is_the_same():
    layers = ([Symmetric(4, 6, "axial", axis)] for axis in (0, 1))
    x = np.random.default_rng(5).normal(size=(30, 8, 8))
    x[:, 1:] += 0.5 * x[:, :-1]
    first, second = (pyflow.Flow(one, shape=(8, 8)) for one in layers)
    known = {"epochs": 3, "verbose": False}
    a = first.train(x, **known).evaluate_density(x)
    b = second.train(x.swapaxes(1, 2).copy(), **known).evaluate_density(x.swapaxes(1, 2))
    assert_allclose(a, b, rtol=1e-6)


# ---- training, threads, files, and what is refused -----------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_matter(dtype):
    y = np.random.default_rng(8).uniform(*PRIOR.T, size=(60, 2))
    x = fields.gaussian_field(kaiser(*y.T), (8, 8), box_size=8, seed=9, axis=0).astype(dtype)
    whole = np.random.default_rng(10).normal(size=(1, 96, 96, 130)).astype(dtype)
    found = []
    try:
        for n in (1, 2, 3):
            pyflow.set_num_threads(n)
            tuned = {"objective": 0.5, "posterior_epochs": 1, "posterior_draws": 20}
            flow = fit(
                x[:50],
                x[50:],
                y[:50],
                y[50:],
                symmetry="axial",
                axis=0,
                hidden=8,
                epochs=2,
                **tuned,
            )
            large = pyflow.Flow([Symmetric(4, 6, "axial", 1)], shape=whole.shape[1:], dtype=dtype)
            large = large.train(whole, epochs=2, verbose=False)  # a field that threads share
            found.append((flow.to_bytes(), flow.evaluate_density(x, y), large.to_bytes()))
    finally:
        pyflow.set_num_threads(None)
    for more in found[1:]:
        for one, other in zip(found[0], more, strict=True):
            assert_array_equal(one, other)


def test_training_on_the_posterior():
    """Fine-tuning moves log p(y|x) of fields that it has seen up, as it is told to."""
    rng = np.random.default_rng(11)
    y = rng.uniform(*PRIOR.T, size=(120, 2))
    x = fields.gaussian_field(kaiser(*y.T), (8, 8), box_size=8, seed=rng, axis=1)
    layers = [Symmetric(4, 6, "axial"), Symmetric(4, 6, "axial")]
    known = {"y_train": y, "hidden": 16, "epochs": 20, "verbose": False}
    first = pyflow.Flow(layers, shape=(8, 8), box_size=8.0)
    plain = first.train(x, **known)
    tuned = first.train(x, **known, objective="posterior", posterior_epochs=10, posterior_rate=2e-3)
    gains = [
        np.mean([flow.posterior(f).logp(at) for f, at in zip(x[:30], y[:30], strict=True)])
        for flow in (plain, tuned)
    ]
    assert gains[1] > gains[0] + 0.05


def test_files_keep_the_axis():
    flow, x = random_flow((6, 8), 0, mu_knots=3)
    copy = pyflow.Flow.from_bytes(flow.to_bytes())
    assert_array_equal(copy.evaluate_density(x), flow.evaluate_density(x))
    assert copy.to_bytes() == flow.to_bytes()


def test_the_identity_until_it_is_trained():
    x = np.random.default_rng(6).normal(size=(3, 5, 4, 6))
    layers = [Symmetric(4, 6, "axial", axis) for axis in (0, 1, -1)] + [Symmetric(4, 6)]
    z, logj = pyflow.Flow(layers, shape=x.shape[1:]).forward(x)
    assert_allclose(z, x, atol=1e-12)
    assert_allclose(logj, 0, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symmetry": "axial", "axis": 2}, "axis: must be"),
        ({"symmetry": "axial", "axis": -3}, "axis: must be"),
        ({"symmetry": "axial", "axis": 2**40}, "axis: must be"),
        ({"symmetry": "spherical"}, "symmetry: must be 'isotropic' or 'axial', not 'spherical'"),
        ({"axis": 1}, "axis: is 1, but only symmetry='axial' has it"),
        ({"mu_knots": 4}, "mu_knots: is 4, but only symmetry='axial' has it"),
        ({"symmetry": "axial", "mu_knots": 5}, "mu_knots: must be between 2 and 4"),
        ({"symmetry": "axial", "mu_knots": 1}, "mu_knots: must be between 2 and 4"),
    ],
)
def test_bad_axes_are_refused_by_name(options, message):
    x = np.random.default_rng(7).normal(size=(20, 8, 8))
    with pytest.raises(ValueError, match=message):
        fit(x, **options)
    with pytest.raises(ValueError, match=message.partition(" between")[0]):
        pyflow.Flow([Symmetric(4, 6, **options)], shape=(8, 8))
