"""Arguments on their way to the core: seeds, and options that do not exist."""

import importlib

import numpy as np
import pytest

import pyflow
from pyflow import _arguments


def test_generators_are_seeds():
    """Each draw takes 64 bits of them: the same for the same state, others the next time."""
    for make in (np.random.default_rng, np.random.RandomState):
        ours, theirs = make(5), make(5)
        drawn = [_arguments.seed(ours) for _ in range(20)]
        assert drawn == [int.from_bytes(theirs.bytes(8), "little") for _ in range(20)]
        assert len(set(drawn)) == 20
        assert 2**63 < max(drawn) < 2**64
    sequence = np.random.SeedSequence(5)
    assert _arguments.seed(sequence) == _arguments.seed(np.random.SeedSequence(5))
    assert _arguments.seed(sequence.spawn(1)[0]) != _arguments.seed(sequence)
    assert _arguments.seed(np.uint64(2**64 - 1)) == 2**64 - 1
    assert _arguments.seed(None) != _arguments.seed(None)


def test_everything_that_draws_takes_a_generator(model):
    post = pyflow.Posterior(lambda y: -0.5 * y[:, 0] ** 2, [(-9, 9)])
    flow = pyflow.SymmetricFlow(
        np.random.default_rng(0).normal(size=(9, 8, 8)), epochs=0, verbose=False
    )
    for draw in (
        lambda seed: model.sample(5, seed=seed)[0],
        lambda seed: flow.sample(5, seed=seed)[0],
        lambda seed: post.sample(5, seed=seed),
        lambda seed: pyflow.fields.gaussian_field(1.0, (4, 4), seed=seed),
    ):
        rng = np.random.default_rng(3)
        first, second = draw(rng), draw(rng)
        assert (first != second).all()
        assert (first == draw(np.random.default_rng(3))).all()


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1", [1, 2]])
def test_what_is_no_seed(seed):
    for refuse in (_arguments.seed, _arguments.generator):
        with pytest.raises((TypeError, ValueError), match="^seed: must be"):
            refuse(seed)


def test_a_generator_goes_on_and_a_seed_begins():
    rng = np.random.default_rng(1)
    assert _arguments.generator(rng) is rng
    assert _arguments.generator(7).random() == np.random.default_rng(7).random()


def test_an_option_that_is_misspelt():
    known = ("max_layers", "n_slices", "kde", "bandwidth_factor")
    for name, meant in (
        ("bandwith_factor", "bandwidth_factor"),
        ("KDE", "kde"),
        ("nslices", "n_slices"),
    ):
        error = _arguments.unknown_option("GIS", name, known)
        assert type(error) is TypeError
        assert str(error) == f"GIS() has no option {name!r}; did you mean {meant!r}?"
    assert str(_arguments.unknown_option("GIS", "tempo", known)) == "GIS() has no option 'tempo'"


PUBLIC = (
    "compat fft fields mpi plots plots.compared plots.courses plots.fields plots.tables "
    "plots.triangle posterior threads"
)


@pytest.mark.parametrize("name", PUBLIC.split())
def test_only_what_is_public_is_shown(name):
    """Completion offers no np, no TYPE_CHECKING."""
    module = importlib.import_module(f"pyflow.{name}")
    assert dir(module) == sorted(module.__all__)
    for each in module.__all__:
        assert getattr(module, each).__module__.startswith("pyflow.")
