"""Coupling layers: fields whose small scales are stronger where their large ones are high."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow
from pyflow import fields
from pyflow.layers import Coupling, Symmetric

F32, F64 = np.float32, np.float64
SIDE = 24
K_SPLIT = 0.225 * np.pi * np.sqrt(2)


def modulated(n, seed, strength=0.6, mesh=(SIDE, SIDE)):
    """Return fields of white noise whose large scales are moved by their small ones, and log p.

    x_large = z_large + strength F^-1 [z_small^2]_large: log p(x) is that of z, white noise.
    """
    z = np.random.default_rng(seed).normal(size=(n, *mesh))
    small = fields.filtered(z, lambda k: 1.0 * (k > K_SPLIT), box_size=mesh)
    moved = fields.filtered(small**2, lambda k: 1.0 * ((k > 0) & (k < K_SPLIT)), box_size=mesh)
    logp = -0.5 * np.sum(z**2 + np.log(2 * np.pi), axis=tuple(range(1, z.ndim)))
    return z + strength * moved, logp


def modulation(x):
    """Return how the power of small scales goes with the field on large ones."""
    mesh = x.shape[1:]
    small = fields.filtered(x, lambda k: 1.0 * (k > K_SPLIT), box_size=mesh)
    _, r, _ = fields.cross_correlation(small**2, x, mesh, [0.1, 0.9 * K_SPLIT])
    return r.mean()


def fit(x, y=None, **options):
    known = {"n_layers": 1, "psi_knots": 4, "filter_knots": 8, "hidden": (16,), "epochs": 12}
    known |= {"box_size": x.shape[1:], "verbose": False}
    return pyflow.SymmetricFlow(x, y_train=y, **known | options)


def test_couplings_find_what_convolutions_cannot():
    """Log p is exact; white noise has no modulation, and the fields' power is nearly flat."""
    x, _ = modulated(600, 0)
    test, exact = modulated(300, 1)
    plain, coupled = fit(x), fit(x, couplings=1)
    assert coupled.layers == ("scale", "symmetric", "coupling")
    lost = [(exact - f.evaluate_density(test)).mean() for f in (plain, coupled)]
    assert lost[0] > 8
    assert lost[1] < 0.25 * lost[0]
    r = modulation(test)
    assert r > 0.3
    assert abs(modulation(plain.sample(300)[0])) < 0.5 * r
    assert modulation(coupled.sample(300)[0]) > 0.7 * r


def test_how_much_they_modulate_depends_on_the_conditions():
    y = np.repeat([0.0, 0.8], 400)
    x = np.concatenate([modulated(400, i, s)[0] for i, s in enumerate((0.0, 0.8))])
    flow = fit(x, y, couplings=1)
    none, strong = (modulation(flow.sample(200, y=s)[0]) for s in (0.0, 0.8))
    assert abs(none) < 0.12
    assert strong > 0.3


@pytest.mark.parametrize("mesh", [(12, 10), (6, 5, 8)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-11), (F32, 1e-4)])
def test_flows_with_couplings_keep_the_symmetries(mesh, dtype, tolerance):
    axes = tuple(range(1, len(mesh) + 1))
    x = modulated(60, 2, mesh=mesh)[0].astype(dtype)
    flow = fit(x, couplings=3, epochs=2)
    z, logj = flow.forward(x)
    for other in (np.roll(x, (3, 4), axes[:2]), np.flip(x, 1), np.flip(x, axes[-1])):
        assert_allclose(flow.forward(other)[1], logj, atol=100 * tolerance * abs(logj).max())
    moved = flow.forward(np.roll(x, (3, 4), axes[:2]))[0]
    assert_allclose(moved, np.roll(z, (3, 4), axes[:2]), atol=100 * tolerance)
    back, _ = flow.inverse(z)
    assert_allclose(back, x, atol=300 * tolerance)
    assert_allclose(z.mean(axes), flow[:2].forward(x)[0].mean(axes), atol=10 * tolerance)


def test_they_are_the_identity_at_first():
    x = modulated(20, 3)[0]
    flow = fit(x, couplings=6, epochs=0)
    assert_allclose(flow.evaluate_density(x), flow[:2].evaluate_density(x), rtol=1e-12)


@pytest.mark.parametrize(("channels", "knots"), [(64, 2), (64, 256), (5, 8)])
@pytest.mark.parametrize("moves", ["large", "small"])
def test_they_start_well_with_more_channels_than_shells(moves, channels, knots):
    flow = pyflow.Flow([Coupling(0.4, moves, channels, knots)], shape=(8, 8))
    x = np.random.default_rng(4).normal(size=(40, 8, 8)) ** 2
    before = flow.evaluate_density(x).mean()
    after = flow.train(x, epochs=5, learning_rate=0.03, verbose=False).evaluate_density(x).mean()
    assert after > before + 0.1


@pytest.mark.parametrize(("dtype", "far"), [(F32, 1e15), (F64, 1e140)])
def test_what_is_far_out_has_a_density(dtype, far):
    """Couplings grow no faster than x does: log p as the square of it, and nothing overflows."""
    x = modulated(40, 5)[0].astype(dtype)
    flow = fit(x, couplings=2, epochs=1)
    one, two = (flow.evaluate_density(x[:3] * dtype(a * far)) for a in (1, 1e4))
    assert_allclose(two, 1e8 * one, rtol=1e-4)


@pytest.mark.parametrize("mesh", [(600, 450), (66, 65, 64)])
def test_threads_that_share_a_large_field_change_no_bit(mesh):
    x, results = modulated(2, 6, mesh=mesh)[0].astype(F32), []
    for threads in (1, 2):
        pyflow.set_num_threads(threads)
        flow = fit(x, couplings=2, epochs=2, batch=1)
        results.append((*flow.forward(x), flow.sample(1, seed=0)[0]))
    pyflow.set_num_threads(None)
    for one, two in zip(*results, strict=True):
        assert_array_equal(one, two)


def test_large_scales_and_small_ones_take_turns():
    flow = pyflow.Flow([Coupling(0.5), Coupling(0.5, "small"), Symmetric(4, 4)], shape=(8, 8))
    x = np.random.default_rng(0).normal(size=(50, 8, 8))
    x += 0.3 * x**2
    flow = flow.train(x, epochs=3, learning_rate=0.1, verbose=False)
    k = fields.wavenumbers((8, 8), 1.0)[0]
    large = k <= 0.5 * k.max()
    for n, moves in ((1, large), (2, ~large)):
        before = np.fft.rfft2(flow[: n - 1].forward(x)[0] if n > 1 else x)
        change = abs(np.fft.rfft2(flow[:n].forward(x)[0]) - before)
        assert change[:, moves & (k > 0)].min() > 1e-6
        assert change[:, ~moves | (k == 0)].max() < 1e-12


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Coupling(moves="up"), "moves"),
        (Coupling(split=0.0), "split"),
        (Coupling(split=float("nan")), "split"),
        (Coupling(split=np.nextafter(1, 0)), "split: 1 leaves no room for 8 knots"),
        (Coupling(channels=0), "channels"),
        (Coupling(knots=1), "knots"),
        (Coupling(split=0.01), "couplings: no mode of the mesh lies below split"),
    ],
)
def test_couplings_that_make_no_sense(layer, name):
    with pytest.raises(ValueError, match=name):
        pyflow.Flow([layer], shape=(8, 8))


def test_couplings_are_for_fields():
    with pytest.raises(ValueError, match="coupling layers are for fields"):
        pyflow.Flow([Coupling()], shape=8)
    x = np.random.default_rng(0).normal(size=(10, 4, 4))
    with pytest.raises(ValueError, match="couplings"):
        fit(x, couplings=-1)
    with pytest.raises(ValueError, match=r"couplings: no mode .* the mesh is too small"):
        fit(x[:, :3, :3], couplings=1)
