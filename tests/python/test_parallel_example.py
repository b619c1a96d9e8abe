"""The example of what runs side by side; CI runs the whole of it with --quick."""

import re

import example_script
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pyflow

pytestmark = example_script.there("parallel.py")


@pytest.fixture
def example():
    pytest.importorskip("dask.array")
    pytest.importorskip("joblib")
    return example_script.load("parallel.py")


def test_all_ways_give_the_same(example, monkeypatch, capsys):
    # A process cannot import the example by its name, which joblib asks for.
    monkeypatch.setattr(example, "processes_of_joblib", example.threads_of_joblib)
    monkeypatch.setattr(example, "PART", 300)
    before = pyflow.get_num_threads()
    flow, logp = example.main(1000, jobs=2, layers=2)
    assert pyflow.get_num_threads() == before
    x = np.random.default_rng(1).gamma(2, size=(1000, 4))
    assert_array_equal(logp, flow.evaluate_density(x))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1000 rows, one thread: ")
    assert len(lines) == 5
    assert all(re.search(r" s, [\d.]+ times as fast; the same$", line) for line in lines[1:])


def test_a_way_that_differs_is_no_success(example, monkeypatch):
    monkeypatch.setattr(example, "PART", 300)
    blocks = example.blocks_of_dask

    def other(flow, rows, jobs):
        return blocks(flow, rows, jobs) + 1e-12

    for name in ("processes_of_joblib", "blocks_of_dask"):
        monkeypatch.setattr(example, name, other)
    with pytest.raises(AssertionError, match="other"):
        example.main(1000, jobs=2, layers=2)
