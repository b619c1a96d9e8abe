"""What notebooks show of flows, mixtures and posteriors."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import pyflow
from pyflow import _html
from pyflow.posterior import Posterior


def shown(thing):
    """Return the title, and the tables as lists of rows of text; the HTML is well-formed."""
    text = thing._repr_html_()
    for word in ("color", "<style", "<script", "http", "class="):  # the page's own look
        assert word not in text
    tree = ET.fromstring(text)
    tables = [
        [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
        for table in tree.iter("table")
    ]
    assert all(len({len(row) for row in table}) == 1 for table in tables)
    return tree.find("strong").text, *tables


def test_a_flow(train, validate):
    flow = pyflow.GIS(train, validate, max_layers=3, n_models=1, verbose=False)
    title, table = shown(flow)
    assert title == "pyflow.Flow"
    rows = dict(table)
    assert rows["shape"] == "(3,)"
    assert rows["layers"].startswith(f"{len(flow)}: 1 columns, ")
    assert rows["parameters"] == f"{flow.n_parameters:,}"
    assert rows["dtype"] == "float64"
    for kind, key in {"training": "logp_train", "validation": "logp_validate"}.items():
        assert float(rows[f"log p per row, {kind}"]) == float(f"{flow.history[key][-1]:.4g}")
    assert not {"columns", "classes", "given y", "unfinished", "box size"} & set(rows)
    assert dict(shown(flow[:0])[1])["layers"] == "0"


def test_a_mixture(train, validate):
    mixture = pyflow.Mixture(
        [pyflow.GIS(train, validate, max_layers=k, n_models=1, verbose=False) for k in (1, 3)],
        weights=[3, 1],
    )
    title, whole, members = shown(mixture)
    assert title == "pyflow.Mixture of 2 flows"
    assert dict(whole)["parameters"] == f"{mixture.n_parameters:,}"
    assert members[0][:4] == ["member", "weight", "layers", "parameters"]
    for k, flow in enumerate(mixture.members):
        logs = [flow.history[key][-1] for key in ("logp_train", "logp_validate")]
        row = [k, ("0.75", "0.25")[k], len(flow), f"{flow.n_parameters:,}"]
        assert members[1 + k] == [*map(str, row), *(f"{value:.4g}" for value in logs)]


def test_what_a_flow_is_given(labelled, train):
    assert dict(shown(labelled)[1])["classes"] == "left, right"
    x = pyflow.fields.gaussian_field(1.0, (8, 8), 20, box_size=(2.0, 3.0), seed=1)
    y = np.linspace(0, 1, 20)
    flow = pyflow.SymmetricFlow(
        x, y_train=y[:, None], names=["a&b"], box_size=(2.0, 3.0), epochs=1, verbose=False
    )
    rows = dict(shown(flow)[1])
    assert rows["given y"] == "a&b"
    assert rows["box size"] == "2 x 3"
    assert "log p per pixel, training" in rows


def test_names_are_escaped_and_not_too_many(train):
    name = "<script>alert('&amp;')</script>"
    table = {name: train[:, 0], "b": train[:, 1]}
    flow = pyflow.GIS(table, max_layers=1, verbose=False)
    assert dict(shown(flow)[1])["columns"] == f"{name}, b"
    wide = {
        f"c{j}": column for j, column in enumerate(np.random.default_rng(0).normal(size=(20, 90)))
    }
    flow = pyflow.GIS(wide, max_layers=1, verbose=False)
    assert dict(shown(flow)[1])["columns"].endswith("c11, and 8 more")
    post = Posterior(lambda y: -0.5 * (y**2).sum(axis=1), [(-9, 9)], ["<i>"])
    assert shown(post)[1][1][0] == "<i>"


def test_a_posterior():
    mean, sigma = np.array([0.3112345, 70.0]), np.array([1e-3, 2.0])
    post = Posterior(
        lambda y: stats.norm(mean, sigma).logpdf(y).sum(axis=1),
        [(0, 1), (50, 90)],
        ["omega_m", "h"],
    )
    title, table, more = shown(post)
    assert title == "pyflow.Posterior"
    assert table[0] == ["parameter", "mean", "std", "central 68 %"]
    assert table[1] == ["omega_m", "0.31123", "0.001", "0.31024 to 0.31223"]
    assert table[2][:3] == ["h", "70", "2"]
    assert dict(more)["method"] == "grid"
    assert abs(float(dict(more)["log evidence"])) < 1e-3


@pytest.mark.parametrize(
    ("truth", "bounds"),
    [
        (stats.norm(1, 0.5), (-4, 6)),
        (stats.uniform(0, 1), (0, 1)),
        (stats.expon(), (0, 30)),
        (stats.truncnorm(-1, 0.5), (-1, 0.5)),
    ],
    ids=["normal", "uniform", "exponential", "cut"],
)
def test_intervals_are_quantiles(truth, bounds):
    post = Posterior(lambda y: truth.logpdf(y[:, 0]), [bounds])
    for mass in (0.1, 0.68, 0.95):
        low, high = _html.interval(post, 0, mass)
        assert_allclose(truth.cdf([low, high]), [(1 - mass) / 2, (1 + mass) / 2], atol=2e-3)


def test_intervals_of_a_chain():
    pytest.importorskip("emcee")
    truth = stats.norm(1, 0.5)
    post = Posterior(lambda y: truth.logpdf(y[:, 0]), [(-4, 6)], method="emcee", seed=1)
    assert_allclose(truth.cdf(_html.interval(post, 0)), [0.16, 0.84], atol=0.02)
    evidence = dict(shown(post)[2])["log evidence"]
    assert "±" in evidence
