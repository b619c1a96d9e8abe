"""The report of the rivals: assembled from stored results, and refused of other rows."""

import json
import sys

import benches
import numpy as np
import pytest
from numpy.testing import assert_allclose

import pyflow


@pytest.fixture(scope="module")
def bench():
    return benches.load("rivals")


@pytest.fixture
def here(bench, tmp_path, monkeypatch):
    """The benchmark with a folder of its own and one table, of three columns."""
    rng = np.random.default_rng(0)
    parts = (rng.normal(3, 2, (n, 3)).astype(np.float32) for n in (60, 20, 40))
    table = bench.data.Table("a table", *parts)
    monkeypatch.setattr(bench, "STORED", tmp_path / "rivals.json")
    monkeypatch.setattr(bench, "ROWS", tmp_path / "rivals.npz")
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys.modules["measure"], "RESULTS", tmp_path / "results")
    monkeypatch.setattr(bench, "makers", lambda: {"small": lambda: table})
    monkeypatch.setattr(bench, "installed_peers", list)
    yield bench, table, tmp_path / "results"
    pyflow.set_num_threads(None)


def gaussian(table):
    """Return log p of the test rows under the Gaussian of the training rows, by SciPy."""
    from scipy import stats

    mean, cov = table.train.mean(axis=0, dtype=float), np.cov(table.train.T.astype(float))
    return stats.multivariate_normal(mean, cov).logpdf(table.test)


def test_rivals_are_fitted_once_and_their_density_is_in_the_tables_own_units(here):
    bench, table, _ = here
    bench.fit_rivals(["small"], ["Gaussian", "kde"], 9)
    records, rows = bench.stored()
    assert_allclose(rows["small/Gaussian"], gaussian(table), rtol=1e-4)
    mean, error = records["small"]["fits"]["Gaussian"]["logp"]
    assert_allclose(mean, gaussian(table).mean(), rtol=1e-4)
    assert_allclose(error, gaussian(table).std(ddof=1) / np.sqrt(40), rtol=1e-3)
    before = bench.STORED.stat().st_mtime_ns, bench.ROWS.read_bytes()
    bench.fit_rivals(["small"], ["Gaussian", "kde"], 9)
    assert before == (bench.STORED.stat().st_mtime_ns, bench.ROWS.read_bytes())


def test_what_the_limit_stopped_is_fitted_again_with_more_time_alone(bench):
    assert not bench.is_done(None, 5)
    assert bench.is_done({"limit": 5}, 10)
    for record in ({"limit": 5, "stopped": True}, {"limit": 5, "failed": "the process ended"}):
        assert bench.is_done(record, 5)
        assert not bench.is_done(record, 6)


def test_results_of_other_rows_are_refused(here, monkeypatch):
    bench, table, _ = here
    bench.fit_rivals(["small"], ["Gaussian"], 9)
    other = table._replace(test=table.test + np.float32(0.01))
    monkeypatch.setattr(bench, "makers", lambda: {"small": lambda: other})
    with pytest.raises(SystemExit, match="other rows"):
        bench.fit_rivals(["small"], ["Gaussian"], 9)


def test_report_names_the_best_and_what_is_within_one_paired_error_of_it(bench):
    rng = np.random.default_rng(1)
    common = rng.normal(0, 100, 400)  # rows differ much more than estimators do
    rows = {
        "pyflow": common + 1,
        "nsf": common + 1 + rng.normal(-0.005, 0.3, 400),
        "maf": common + rng.normal(0, 0.3, 400),
    }
    gaps = bench.behind(rows)
    assert gaps["pyflow"] == (0, 0) or gaps["nsf"] == (0, 0)
    assert_allclose(gaps["maf"][0] - gaps["pyflow"][0], 1, atol=0.1)
    assert gaps["maf"][1] < 0.05
    of = {name: ({"logp": bench.mean_se(r), "seconds": 1.0}, r) for name, r in rows.items()}
    of["vine"] = {"failed": "out of time"}, None
    of["maf"][0]["stopped"] = True
    logp = bench.report({"a table": of})[1].splitlines()
    assert logp[0] == "| table | pyflow | NSF | MAF | vine copula |"
    cells = logp[2].split(" | ")
    assert cells[1].startswith("**")
    assert not cells[3].startswith("**")
    assert cells[3].endswith("†")
    assert cells[4] == "failed |"


def test_infinitely_bad_rows_cost_an_estimator_the_lead_and_nothing_else(bench):
    rows = {"kde": np.array([5.0, -np.inf]), "nsf": np.zeros(2), "maf": -np.ones(2)}
    gaps = bench.behind(rows)
    assert gaps["kde"][0] == np.inf
    assert gaps["nsf"] == (0, 0)
    assert gaps["maf"] == (1, 0)


def test_the_command_puts_pyflow_beside_what_is_stored(here, monkeypatch):
    bench, table, folder = here
    bench.fit_rivals(["small"], ["Gaussian"], 9)
    monkeypatch.setattr(bench, "OURS", {"pyflow": {"max_layers": 2}})
    monkeypatch.setattr(sys, "argv", ["rivals.py", "--quick", "--tables", "small"])
    bench.main()
    assert (folder / "rivals.png").stat().st_size > 10_000
    record = json.loads((folder / "rivals.json").read_text())
    assert set(record["tables"]["a table"]) == {"pyflow", "Gaussian"}
    assert record["seeds"] == 1
    text = (folder / "rivals.md").read_text()
    assert f"{gaussian(table).mean():.2f}" in text
