"""What GIS refuses where there are conditions: each error names the argument."""

import numpy as np
import pytest

import pyflow
from pyflow import _autoregressive


def fit(x, x_validate, y, y_validate, **options):
    options = {"n_models": 1, "verbose": False} | options
    return pyflow.GIS(x, x_validate, condition=y, condition_validate=y_validate, **options)


@pytest.fixture
def rows(monkeypatch):
    """Training and validation rows of x and y; fits are of a few epochs."""
    monkeypatch.setattr(_autoregressive, "STEPS", 4)
    rng = np.random.default_rng(0)
    y = rng.uniform(-1, 1, size=(260, 2))
    x = y + 0.3 * rng.normal(size=(260, 2))
    return x[:200], x[200:], y[:200], 0.9 * y[200:]


REFUSED = {
    "labels": {"labels": np.arange(200) % 2, "labels_validate": np.arange(60) % 2},
    "model": {"model": None},  # filled in below
    "n_slices": {"n_slices": 2},
    "max_layers": {"max_layers": 2},
    "patience": {"patience": 5},
    "alpha": {"alpha": (0.5, 0.5)},
    "whiten": {"whiten": False},
    "marginal_first": {"marginal_first": True},
    "image_shape": {"image_shape": (1, 2)},
    "scratch": {"scratch": "."},
    "checkpoint_seconds": {"checkpoint_seconds": 1.0},
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_of_sliced_layers_are_refused(rows, name):
    options = REFUSED[name]
    if name == "model":
        options = {"model": pyflow.GIS(rows[0], max_layers=1, verbose=False)}
    with pytest.raises(ValueError, match=f"^{name}: is not for a fit with a condition"):
        fit(*rows, **options)


def with_nan(x):
    return np.where(np.arange(len(x))[:, None] == 7, np.nan, x)


WRONG = {
    "other length": (
        lambda a, b, c, d: (a, b, c[:-1], d),
        r"condition: must have shape \(200, p\)",
    ),
    "other lengths": (lambda a, b, c, d: (a, b, c, d[:-1]), "condition_validate: must have shape"),
    "NaN": (lambda a, b, c, d: (a, b, with_nan(c), d), "condition: is NaN or infinite in row 7"),
    "NaNs": (lambda a, b, c, d: (a, b, c, with_nan(d)), "condition_validate: is NaN .* row 7"),
    "NaN in x": (lambda a, b, c, d: (with_nan(a), b, c, d), "data_train: row 7, column 0 is NaN"),
    "constant": (lambda a, b, c, d: (a, b, c * [1, 0], d), "condition: column 1 is constant"),
    "too large": (lambda a, b, c, d: (a, b, c * [1, 1e160], d), "condition: column 1 goes from"),
    "too small": (lambda a, b, c, d: (a, b, c * [1, 1e-200], d), "condition: column 1 goes from"),
    "constant x": (lambda a, b, c, d: (a * [1, 0], b, c, d), "data_train: column 1 is constant"),
    "text": (lambda a, b, c, d: (a, b, c.astype(str), d), "condition: must hold real numbers"),
    "no condition": (lambda a, b, c, d: (a, b, None, d), "condition_validate: given without cond"),
    "missing": (lambda a, b, c, d: (a, b, c, None), "condition_validate: must be given"),
    "fewer columns": (
        lambda a, b, c, d: (a, b, c, d[:, :1]),
        "condition_validate: must have shape",
    ),
    "no validation": (lambda a, b, c, d: (a, None, c, None), "data_validate: must be given"),
    "half of it": (lambda a, b, c, d: (a, None, c, d), "data_validate: must be given"),
    "empty": (lambda a, b, c, d: (a[:0], b, c[:0], d), "data_train: must be rows x columns"),
    "empty too": (lambda a, b, c, d: (a, b[:0], c, d[:0]), "data_validate: must be rows x columns"),
    "one axis": (lambda a, b, c, d: (a[:, 0], b, c, d), "data_train: must be rows x columns"),
    "images": (lambda a, b, c, d: (a[:, :, None], b, c, d), "data_validate: |image_shape: "),
    "rows twice": (lambda a, b, c, d: (a, a[:60], c, c[:60]), "data_validate: 60 of its 60 rows"),
    "dependent": (lambda a, b, c, d: (a[:, [0, 0]], b, c, d), "data_train: columns .* dependent"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_data_are_refused_by_name(rows, what):
    change, message = WRONG[what]
    with pytest.raises(ValueError, match=f"^({message})"):
        fit(*change(*rows))


def test_wrong_options_are_refused_by_name(rows):
    x, _, y, y_validate = rows
    with pytest.raises(ValueError, match="^condition_validate: given without data_validate"):
        fit(x, None, y, y_validate, n_models=2)
    with pytest.raises(ValueError, match="^weight_train: row 3 is -1"):
        fit(*rows, weight_train=np.where(np.arange(200) == 3, -1, 1))
    with pytest.raises(ValueError, match=r"^bounds: must have shape \(2, 2\)"):
        fit(*rows, bounds=[(0, 1)])
    with pytest.raises(ValueError, match="^data_train: row .* outside the bounds"):
        fit(*rows, bounds=[(0, 1), (0, 1)])
    with pytest.raises(TypeError, match="^progress: must be callable"):
        fit(*rows, progress=3)
    with pytest.raises(ValueError, match="^y: this flow is conditional"):
        fit(*rows).evaluate_density(x)


@pytest.mark.filterwarnings("error")
def test_parameters_with_several_data_are_no_rows_used_twice(rows):
    """Equal rows x, of other y, in training and validation: nothing is said of them."""
    x, _, y, _ = rows
    again = np.concatenate([x, x]), np.concatenate([y, y[::-1] / 2])
    flow = fit(again[0][:300], again[0][300:], again[1][:300], again[1][300:].clip(-2, 2))
    assert np.isfinite(flow.evaluate_density(x, y)).all()
