"""The benchmark of simulation-based calibration: a right posterior has the share that is due."""

import benches
import numpy as np
import pytest

import pyflow


@pytest.fixture(scope="module")
def bench():
    return benches.load("ranks")


class Exact:
    """The exact posterior in the place of a flow, and one of wrong width."""

    def __init__(self, task, width=1.0):
        self.task, self.width = task, width

    def sample(self, n, y, seed):
        rng = np.random.default_rng([seed, 1])
        draws = [self.task.posterior(rng, x, 99) for x in y[::99]]
        drawn = np.concatenate(draws)
        middle = np.repeat([d.mean(axis=0) for d in draws], 99, axis=0)
        return middle + self.width * (drawn - middle), None


@pytest.mark.parametrize(("width", "low", "high"), [(1, 0.6, 0.76), (0.5, 0, 0.55), (2, 0.8, 1)])
def test_shares_are_those_of_the_posterior(bench, monkeypatch, width, low, high):
    task = bench.TASKS["two_moons"]
    monkeypatch.setattr(pyflow, "GIS", lambda *args, **options: Exact(task, width))
    shares = bench.measure(0, 1000, 200)  # binomial error 0.033
    assert shares.shape == (2,)
    assert ((shares >= low) & (shares <= high)).all()


@pytest.mark.slow
def test_a_flow_s_shares_are_near(bench):
    shares = bench.measure(1, 1000, 300)
    assert (np.abs(shares - 0.68) < 0.12).all()
