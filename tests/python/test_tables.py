"""Tables with names: their columns are found by name, and whatever is numeric in them is taken."""

import io
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pyflow
from pyflow import _arguments, _tables

NAMES = ("a", "b", "c")
X = np.random.default_rng(0).normal(size=(7, 3))


def structured(x, names=NAMES, dtype=">f8"):
    table = np.zeros(len(x), [(name, dtype) for name in names])
    for name, column in zip(names, x.T, strict=True):
        table[name] = column
    return table


def fits(x, names=NAMES):
    columns = zip(names, x.T, strict=True)
    return records(*({"name": name, "format": "D", "array": column} for name, column in columns))


def records(*columns):
    """The records of a binary table, written to a file and read again: big-endian."""
    io_fits = pytest.importorskip("astropy.io.fits")
    file = io.BytesIO()
    io_fits.BinTableHDU.from_columns([io_fits.Column(**c) for c in columns]).writeto(file)
    file.seek(0)
    with io_fits.open(file) as found:
        return found[1].data.copy()


def dataset(x, names=NAMES):
    """What HDF5 shows of a compound data set: it has a dtype, and is cut by name."""

    class Dataset:
        table = structured(x, names)
        dtype, shape = table.dtype, table.shape

        def __getitem__(self, key):
            return self.table[key]

    return Dataset()


def by_columns(module, function):
    """Make a table of another library from a dict of columns."""

    def make(x, names=NAMES):
        found = pytest.importorskip(module)
        return getattr(found, function)(dict(zip(names, x.T.copy(), strict=True)))

    return make


TABLES = {
    "structured": structured,
    "record array": lambda x, names=NAMES: structured(x, names).view(np.recarray),
    "dict": lambda x, names=NAMES: dict(zip(names, x.T, strict=True)),
    "data set": dataset,
    "pandas": by_columns("pandas", "DataFrame"),
    "astropy": by_columns("astropy.table", "Table"),
    "QTable": by_columns("astropy.table", "QTable"),
    "polars": by_columns("polars", "DataFrame"),
    "pyarrow": by_columns("pyarrow", "table"),
    "FITS": fits,
}


@pytest.fixture(params=TABLES.values(), ids=TABLES)
def table(request):
    return request.param


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


def test_tables_are_arrays_with_names(table):
    made = table(X)
    assert _tables.names(made, "x") == NAMES
    found = _arguments.rows(made, "x")
    assert_array_equal(found, X)
    assert found.dtype.kind == "f"


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 0, 2]])
def test_columns_are_found_by_name(table, order):
    made = table(X[:, order], [NAMES[j] for j in order])
    assert_array_equal(_arguments.rows(_tables.matched(made, "x", NAMES), "x"), X)
    part = _tables.matched(made, "x", ["c", "a"])  # what else there is is left out
    assert_array_equal(_arguments.rows(part, "x"), X[:, [2, 0]])


def test_columns_that_are_missing_are_named(table):
    with pytest.raises(ValueError, match=r"^x_new: has no column 'd', 'e'; it has 'a', 'b', 'c'"):
        _tables.matched(table(X), "x_new", ["a", "d", "e"])


def test_a_table_in_another_order_has_the_same_density(table):
    """The hook: names at the fit, `matched` at every evaluation."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3)) * [0.01, 1, 30] + [0, 5, 100]
    names = _tables.names(table(x), "data_train")
    flow = pyflow.GIS(table(x), max_layers=2, verbose=False)
    other = table(x[:, [2, 0, 1]], ["c", "a", "b"])
    ordered = _tables.matched(other, "x", names)
    assert_array_equal(flow.evaluate_density(ordered), flow.evaluate_density(x))


def test_without_names_there_is_nothing_to_match(pandas):
    frame = pandas.DataFrame(X)  # columns 0, 1, 2
    for x in (X, X.tolist(), X[0], None):
        assert _tables.matched(x, "x", NAMES) is x
    assert _tables.matched(frame, "x", NAMES) is frame
    named = pandas.DataFrame(X, columns=list("def"))
    assert _tables.matched(named, "x", _tables.names(frame, "x")) is named
    assert _tables.matched(named, "x", None) is named
    swapped = _tables.matched(frame[[2, 0, 1]], "x", _tables.names(frame, "x"))
    assert_array_equal(swapped, X)


def test_parameters_are_found_by_name(table):
    y = np.abs(X)
    post = pyflow.Posterior(lambda y: -y @ [1, 2, 3], [(0, 30)] * 3, NAMES)
    swapped = table(y[:, [2, 0, 1]], ["c", "a", "b"])
    assert_array_equal(post.logp(swapped), post.logp(y))
    assert_array_equal(post.credibility(swapped), post.credibility(y))
    assert post.logp({"c": 3.0, "b": 2.0, "a": 1.0}) == post.logp([1, 2, 3])
    with pytest.raises(ValueError, match=r"^y: has no column 'b'"):
        post.logp(table(y, ["a", "c", "d"]))
    unnamed = pyflow.Posterior(lambda y: -y @ [1, 2, 3], [(0, 30)] * 3)
    assert_array_equal(unnamed.logp(table(y)), post.logp(y))


def test_two_columns_of_one_name(pandas):
    with pytest.raises(ValueError, match=r"^x: two of its columns are called 'a'"):
        _tables.names(pandas.DataFrame(X, columns=["a", "b", "a"]), "x")


def test_a_row_of_a_table(pandas):
    frame = pandas.DataFrame(X, columns=NAMES)
    row = frame[["c", "b", "a"]].iloc[2]
    assert_array_equal(_tables.matched(row, "y", NAMES), X[2])
    assert_array_equal(_tables.matched(row, "y", ["a", "c"]), X[2, [0, 2]])
    column = frame["a"]
    assert _tables.matched(column, "y", ["b"]) is column
    assert_array_equal(_arguments.rows(structured(X)[2], "x"), X[2])
    assert_array_equal(
        _arguments.rows(_tables.matched(structured(X)[2], "x", "ca"), "x"), X[2, ::-2]
    )


# ---- numbers of other kinds ----------------------------------------------------------------------


def test_numeric_columns_of_every_dtype(pandas):
    frame = pandas.DataFrame(
        {
            "bool": [True, False, True],
            "boolean": pandas.array([True, False, True], dtype="boolean"),
            "Int64": pandas.array([1, -2, 3], dtype="Int64"),
            "UInt8": pandas.array([1, 2, 255], dtype="UInt8"),
            "Float32": pandas.array([1.5, 2.5, -3.5], dtype="Float32"),
            "float32": np.array([1, 2, 3], np.float32),
            "category": pandas.Categorical([3, 1, 3]),
            "object": np.array([1, 2.5, True], object),
        }
    )
    expected = [
        [1, 1, 1, 1, 1.5, 1, 3, 1],
        [0, 0, -2, 2, 2.5, 2, 1, 2.5],
        [1, 1, 3, 255, -3.5, 3, 3, 1],
    ]
    found = _arguments.rows(frame, "x")
    assert_array_equal(found, expected)
    assert found.dtype == np.float64
    assert_array_equal(_arguments.rows(frame.to_numpy(), "x"), expected)  # an array of objects
    for j, name in enumerate(frame):
        column = _arguments.rows(frame[name], "x")  # a weight, or y
        assert_array_equal(np.asarray(column, float), np.array(expected)[:, j])
    assert _arguments.rows(frame[["bool", "float32"]], "x").dtype == np.float32


def test_frames_of_one_dtype_are_not_copied(pandas):
    for dtype in (np.float32, np.float64, np.int16):
        x = np.arange(12, dtype=dtype).reshape(4, 3)
        assert np.shares_memory(_arguments.rows(pandas.DataFrame(x, copy=False), "x"), x)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["x", "y", "z"], "string"),
        (["x", "y", "z"], "category"),
        (["1", "2", "3"], object),
        ([1 + 1j, 2, 3], complex),
        (["2020-01-01"] * 3, "datetime64[ns]"),
    ],
)
def test_columns_that_are_not_numeric_are_named(pandas, values, dtype):
    frame = pandas.DataFrame({"a": [1.0, 2, 3], "odd one": pandas.Series(values, dtype=dtype)})
    with pytest.raises(ValueError, match=r"^data: column 'odd one' is not numeric: its dtype is "):
        _arguments.rows(frame, "data")
    with pytest.raises(ValueError, match=r"^data: column 'odd one' is not numeric"):
        _tables.matched(frame, "data", ["odd one"])
    assert_array_equal(
        _arguments.rows(_tables.matched(frame, "data", ["a"]), "data"), [[1], [2], [3]]
    )


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64", "category", "string", object])
def test_missing_values_are_refused_by_column_and_row(pandas, dtype):
    values = ["x", None, "y", None] if dtype == "string" else [1, None, 0, None]
    frame = pandas.DataFrame({"a": np.zeros(4), "b": pandas.Series(values, dtype=dtype)})
    with pytest.raises(ValueError, match=r"^x: column 'b' has no value in row 1$"):
        _arguments.rows(frame, "x")
    with pytest.raises(ValueError, match=r"^labels has no value in row 1$"):
        _arguments.rows(frame["b"], "labels")


def test_missing_values_of_other_tables():
    message = r"^x: column 'b' has no value in row 2$"
    masked = np.ma.array(structured(X))
    masked["b"][2] = np.ma.masked
    with pytest.raises(ValueError, match=message):
        _arguments.rows(masked, "x")
    columns = {"a": [1, 2, 3], "b": [1, 2, None]}
    for module, function in (("polars", "DataFrame"), ("pyarrow", "table")):
        made = getattr(pytest.importorskip(module), function)(columns)
        with pytest.raises(ValueError, match=message):
            _arguments.rows(made, "x")
    made = pytest.importorskip("astropy.table").Table({"a": [1.0, 2, 3]}, masked=True)
    made["b"] = np.ma.array([1.0, 2, 3], mask=[0, 0, 1])
    with pytest.raises(ValueError, match=message):
        _arguments.rows(made, "x")


def test_other_columns_of_fits_and_records():
    """Scaled numbers are the true ones; text and arrays in a cell are refused by name."""
    unsigned = np.array([10, 11, 40000], np.uint16)  # stored less 32768
    table = records(
        {"name": "scaled", "format": "I", "bzero": 32768, "array": unsigned},
        {"name": "flag", "format": "L", "array": np.array([True, False, True])},
        {"name": "text", "format": "3A", "array": np.array(["x", "y", "z"])},
        {"name": "pair", "format": "2E", "array": np.ones((3, 2))},
    )
    found = _tables.matched(table, "x", ["flag", "scaled"])
    assert_array_equal(found, [[1, 10], [0, 11], [1, 40000]])
    for name, message in (("text", "is not numeric"), ("pair", r"holds arrays of shape (2,)")):
        with pytest.raises(ValueError, match=re.escape(f"x: column {name!r} {message}")):
            _tables.matched(table, "x", [name])


def test_labels_stay_what_they_are(pandas):
    """Strings, as objects or in a nullable dtype, are labels and no numbers."""
    for values in (["x", "y"], np.array(["x", "y"], object)):
        for dtype in ("string", "category", object):
            found = _arguments.labels(pandas.Series(values, dtype=dtype), "labels")
            assert_array_equal(found, ["x", "y"])
            assert found.dtype.kind == "U"


# ---- bounds by name ------------------------------------------------------------------------------


def bounded(n=300):
    rng = np.random.default_rng(5)
    return {"a": rng.uniform(0, 1, n), "b": rng.normal(size=n), "c": rng.gamma(2, size=n)}


PAIRS = [(0, 1), (None, None), (0, None)]
NAMED = {"c": (0, None), "a": np.array([0, 1])}  # in any order; b has none


@pytest.mark.parametrize(
    "options",
    [
        {"max_layers": 2},
        {"max_layers": 2, "n_models": 2},
        {"autoregressive": True, "n_models": 2},
        {"labels": np.arange(300) % 2, "max_layers": 1},
    ],
    ids=["one", "mixture", "networks", "labels"],
)
def test_bounds_by_name_are_those_in_order(options):
    x = bounded()
    if "autoregressive" in options:
        x = {k: v[:60] for k, v in x.items()}
    flow = pyflow.GIS(x, bounds=NAMED, verbose=False, **options)
    assert flow == pyflow.GIS(x, bounds=PAIRS, verbose=False, **options)


def test_bounds_by_name_of_any_table(pandas):
    x = bounded()
    flow = pyflow.GIS(x, bounds=PAIRS, max_layers=1, verbose=False)
    array = np.stack(list(x.values()), axis=1)
    tables = pandas.DataFrame(x), structured(array), by_columns("polars", "DataFrame")(array)
    for table in tables:
        assert flow == pyflow.GIS(table, bounds=NAMED, max_layers=1, verbose=False)
    numbered = pandas.DataFrame(array)  # columns 0, 1, 2
    by_number = {2: (0, None), 0: (0, 1)}
    assert pyflow.GIS(numbered, bounds=by_number, max_layers=1, verbose=False).columns == tuple(
        "012"
    )
    more = pyflow.GIS(x, bounds=NAMED, max_layers=1, model=flow, verbose=False)
    assert (more.sample(500, seed=1)[0][:, 0] < 1).all()
    free = (pyflow.GIS(x, max_layers=1, verbose=False, **how) for how in ({}, {"bounds": {}}))
    assert_array_equal(*(flow.evaluate_density(x) for flow in free))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"d": (0, 1)}, "bounds: there is no column 'd' among 'a', 'b', 'c'"),
        ({"a": 1}, "bounds: of column 'a', must be a pair (lower, upper), None where there is no"),
        ({"a": (0, 1, 2)}, "bounds: of column 'a', must be a pair"),
        ({"a": (0,)}, "bounds: of column 'a', must be a pair"),
        ({"a": (0, "x")}, "bounds: of column 'a', must be a pair"),
        ({"b": (3, 2)}, "bounds: of column 1 ('b'), 3 is not below 2"),
        ({"c": (1, None)}, "data_train: row "),
    ],
)
def test_bounds_by_name_that_are_refused(bounds, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        pyflow.GIS(bounded(), bounds=bounds, max_layers=1, verbose=False)


def test_bounds_by_name_want_names():
    x = np.stack(list(bounded().values()), axis=1)
    message = "^bounds: a dict is for columns with names"
    with pytest.raises(ValueError, match=message):
        pyflow.GIS(x, bounds=NAMED, max_layers=1, verbose=False)
    with pytest.raises(ValueError, match=message):
        pyflow.SIG(x, bounds=NAMED, max_layers=1, verbose=False)
    with pytest.raises(ValueError, match=message):
        pyflow.Flow([pyflow.layers.Bounds(NAMED)], shape=3)


# ---- messages name columns -----------------------------------------------------------------------


def broken(**columns):
    return {**bounded(), **columns}


NAN = broken(b=np.where(np.arange(300) == 7, np.nan, bounded()["b"]))
FAULTS = {
    "NaN": (NAN, r"row 7, column 1 \('b'\) is NaN"),
    "constant": (broken(c=np.ones(300)), r"column 2 \('c'\) is constant"),
    "dependent": (
        broken(c=bounded()["a"] + bounded()["b"]),
        r"columns \d \('\w'\), \d \('\w'\) \(and perhaps more\) are linearly dependent",
    ),
    "far": (
        broken(a=np.where(np.arange(300) == 9, 1e300, bounded()["a"])),
        r"row 9, column 0 \('a'\) is 1e",
    ),
}


@pytest.mark.parametrize(("x", "message"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("n_models", [1, 2])
def test_faults_of_a_fit_name_the_column(x, message, n_models):
    with pytest.raises(ValueError, match=f"^data_train: {message}"):
        pyflow.GIS(x, max_layers=2, n_models=n_models, verbose=False)
    array = np.stack(list(x.values()), axis=1)
    with pytest.raises(ValueError, match="column") as error:
        pyflow.GIS(array, max_layers=2, n_models=n_models, verbose=False)
    assert "'" not in str(error.value)  # nothing to name


def test_faults_of_validation_rows_and_conditions_name_the_column():
    x, y = bounded(), {"mass": np.linspace(0, 1, 300), "age": np.linspace(0, 1, 300) ** 2}
    with pytest.raises(ValueError, match=r"^data_validate: row 7, column 1 \('b'\) is NaN"):
        pyflow.GIS(x, NAN, n_models=1, max_layers=1, verbose=False)
    for fault, message in (
        (np.ones(300), r"column 1 \('age'\) is constant"),
        (NAN["b"], r"is NaN or infinite in row 7, column 1 \('age'\)"),
    ):
        with pytest.raises(ValueError, match=f"^condition: {message}"):
            pyflow.GIS(x, condition=y | {"age": fault}, n_models=2, verbose=False)


def test_faults_of_points_name_the_column():
    x = bounded()
    flow = pyflow.GIS(x, bounds=NAMED, max_layers=1, verbose=False)
    bare = pyflow.GIS(np.stack(list(x.values()), 1), bounds=PAIRS, max_layers=1, verbose=False)
    beyond = {k: v[:5] for k, v in broken(a=np.full(300, 2.0)).items()}
    for ask in (pyflow.Flow.evaluate_density, pyflow.Flow.score, pyflow.Flow.forward):
        with pytest.raises(ValueError, match=r"^x: row 7, column 1 \('b'\) is NaN"):
            ask(flow, NAN)
        with pytest.raises(ValueError, match=r"^x: row 7, column 1 is NaN"):
            ask(bare, np.stack(list(NAN.values()), 1))
    with pytest.raises(ValueError, match=r"^x: row 0, column 0 \('a'\) is 2, outside the bounds"):
        flow.score(beyond)


def test_faults_of_conditions_beside_points_name_the_column():
    x, y = bounded(60), {"mass": np.linspace(0, 1, 60), "age": np.linspace(0, 1, 60) ** 2}
    flow = pyflow.GIS(x, condition=y, n_models=2, verbose=False)
    y["mass"] = NAN["b"][:60]
    message = r"^y: is NaN or infinite in row 7, column 0 \('mass'\)"
    for table in (y, {"age": y["age"], "mass": y["mass"]}):
        with pytest.raises(ValueError, match=message):
            flow.evaluate_density(x, table)
    with pytest.raises(ValueError, match=message):
        flow.evaluate_density(x, np.stack(list(y.values()), axis=1))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("x: row 1, column 1 is NaN", "x: row 1, column 1 ('b') is NaN"),
        ("bounds: of column 1, 0 is not below", "bounds: of column 1 ('b'), 0 is not below"),
        ("x: columns 0, 1 (and", "x: columns 0 ('a'), 1 ('b') (and"),
        ("x: column 1 ('b') is NaN", None),
        ("x: columns 0 ('a'), 1 ('b') (and", None),
        ("x: column 10 is NaN", None),
        ("y: column 0 is constant", "y: column 0 ('m') is constant"),
        ("weight_train: column 0", None),
        ("x: has 2 columns where", None),
        ("no argument of column 1", None),
    ],
)
def test_names_behind_numbers(message, expected):
    error = ValueError(message, 3)
    _tables.name_columns(error, ("a", "b"), ("m",))
    assert error.args == (expected or message, 3)
    for columns, conditions in ((None, ()), (("0", "1"), ("y0",))):  # what has no names
        bare = ValueError(message)
        _tables.name_columns(bare, columns, conditions)
        assert bare.args == (message,)
