"""Tables whose columns have names: which they are, in which order, and the numbers in them.

A table is known by what it can do, so that none of the libraries is imported: structured arrays of
NumPy, records of a FITS file and compound data sets of HDF5 by the names in their dtype; tables of
pandas, polars, pyarrow and astropy by the attribute that lists their columns; a dict by its keys.
`table[label]` is a column of each of them. All else is an array without names.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import numpy as np

LISTS = ("colnames", "column_names", "columns")  # astropy; pyarrow; pandas and polars
NUMBERS = "biuf"  # kinds of dtype
# What an argument's columns are called by, where a message begins with its name.
POINTS = ("x", "data", "data_train", "data_validate", "bounds")
CONDITIONS = ("y", "y_train", "y_validate", "condition", "condition_validate")


def _labels(x):
    """Return what the columns of a table are called there, or None for anything else."""
    if isinstance(x, Mapping):
        return list(x)
    fields = getattr(getattr(x, "dtype", None), "names", None)
    if fields is not None:
        return list(fields)
    if isinstance(x, np.ndarray) or not hasattr(x, "__getitem__"):
        return None
    for attribute in LISTS:
        labels = getattr(x, attribute, None)
        if labels is not None and not callable(labels):
            return list(labels)
    return None


def names(x, name):
    """Return the names of the columns of a table, or None if they have none.

    Parameters
    ----------
    x : object
    name : str
        What the argument is called in the ValueError for two columns of one name.
    """
    labels = _labels(x)
    return None if labels is None else _distinct(labels, name)


def _distinct(labels, name):
    """Return labels as a tuple of str, each of which there is once."""
    found = tuple(map(str, labels))
    if len(set(found)) < len(found):
        twice = next(column for j, column in enumerate(found) if column in found[:j])
        raise ValueError(f"{name}: two of its columns are called {twice!r}")
    return found


def matched(x, name, known):
    """Return x with the columns that are known by these names, in this order.

    A table that has all of them is cut to them and put in order; so is a row of a pandas table. An
    array has no names and comes back as it is. So does a table whose columns are numbered from 0 if
    the known are not, and any table if the known were numbered (as parameters without names are, y0
    and so on): there are then no names to compare.

    Parameters
    ----------
    x : object
    name : str
        What the argument is called in the ValueError that says which columns are missing.
    known : sequence of str, or None
        The names of the columns that something was fitted to.
    """
    if known is None or x is None:
        return x
    known = tuple(known)
    labels = _labels(x)
    if labels is None:
        return _matched_row(x, name, known)
    given = _distinct(labels, name)
    if given == known or (set(given) != set(known) and (_numbered(given) or _numbered(known))):
        return x
    missing = [column for column in known if column not in given]
    if missing:
        raise ValueError(
            f"{name}: has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, given))}, and is asked for {', '.join(map(repr, known))}"
        )
    return _numbers(x, name, [labels[given.index(column)] for column in known])


def _numbered(columns):
    """Whether these are what columns without names are called: 0, 1, ... or y0, y1, ..."""
    return any(columns == tuple(f"{y}{j}" for j in range(len(columns))) for y in ("", "y"))


def _matched_row(x, name, known):
    """Return a pandas series in order if it is a row of a table: if its index holds the names."""
    index = getattr(x, "index", None)
    if len(getattr(x, "shape", ())) != 1 or index is None or callable(index):
        return x
    if not all(column in index for column in known) or len(set(index)) < len(index):
        return x
    index = list(index)
    return _column(x, name)[[index.index(column) for column in known]]


def array(x, name):
    """Return a table as an array (n, columns), its row as an array (columns,).

    Arrays and series of objects that are all numbers become float64. None for all else.

    Parameters
    ----------
    x : object
    name : str
        What the argument is called in the ValueError for a column that is not numeric or has
        missing values.
    """
    labels = _labels(x)
    if labels is not None:
        return _numbers(x, name, labels)
    if type(x) is np.ndarray:
        return _floats(x)
    return _series(x, name) if len(getattr(x, "shape", ())) == 1 else None


def _series(x, name):
    """Return a series of nullable or of objects as an array if it is numeric, or else None."""
    dtype = getattr(x, "dtype", None)
    if (isinstance(dtype, np.dtype) and dtype.kind != "O") or _missing(x) is None:
        return None
    try:
        return _column(x, name)
    except ValueError:
        if _missing(x).any():
            raise
        return None


def _numbers(x, name, labels):
    """Return the columns with these labels as an array, of the one dtype that holds them all."""
    dtypes = list(getattr(x, "dtypes", ()))  # one for each column, of pandas
    if dtypes and all(d == dtypes[0] and isinstance(d, np.dtype) for d in dtypes):
        whole = np.asarray(x) if labels == _labels(x) else np.asarray(x[labels])
        if whole.dtype.kind in NUMBERS:
            return whole
    if not labels:
        raise ValueError(f"{name}: has no columns")
    columns = [_column(x[label], f"{name}: column {str(label)!r}") for label in labels]
    return np.stack(columns, axis=-1)


def _column(values, what):
    """Return one column as an array of numbers; `what` begins the messages."""
    missing = _missing(values)
    if missing is not None and missing.any():
        raise ValueError(f"{what} has no value in row {int(missing.argmax())}")
    column = _plain(values)
    if column.ndim > 1:
        raise ValueError(f"{what} holds arrays of shape {column.shape[1:]}, not numbers")
    column = _floats(column)
    if column.dtype.kind not in NUMBERS:
        kind = getattr(values, "dtype", column.dtype)
        raise ValueError(f"{what} is not numeric: its dtype is {kind}")
    return column


def _floats(column):
    """Return an array of objects as float64 if all are numbers, and all else as it is."""
    if column.dtype.kind != "O" or any(isinstance(v, str | bytes) for v in column.flat):
        return column
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError):
        return column


def _missing(values):
    """Return where a column has no value, or None if it cannot say."""
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.getmaskarray(values)
    for method in ("isna", "is_null"):  # pandas; polars and pyarrow
        if hasattr(values, method):
            return np.asarray(getattr(values, method)(), dtype=bool)
    return None


def _plain(values):
    """Return a column as NumPy has it."""
    dtype = getattr(values, "dtype", None)
    plain = getattr(dtype, "numpy_dtype", None)  # of Int64, boolean and the like
    if isinstance(plain, np.dtype) and plain.kind in NUMBERS:
        return values.to_numpy(dtype=plain)
    return np.asarray(values)


# ---- messages ------------------------------------------------------------------------------------


def name_columns(error, columns, conditions=None):
    """Put names behind the columns' numbers in the message of an exception: column 1 ('b').

    Parameters
    ----------
    error : Exception
        Of a message that begins with the argument's name; else nothing is done.
    columns, conditions : sequence of str, or None
        What columns of points, and of conditions, are called.
    """
    if not error.args or not isinstance(error.args[0], str):
        return
    text = error.args[0]
    argument = text.partition(":")[0]
    known = columns if argument in POINTS else conditions if argument in CONDITIONS else None
    if known:
        unnamed = r"\b(?:column \d+|columns \d+, \d+)\b(?! \(['\"])"
        text = re.sub(unnamed, lambda m: _with_names(m[0], known), text)
        error.args = (text, *error.args[1:])


def _with_names(text, known):
    """Return "columns 1 ('b'), 2 ('c')" of "columns 1, 2"."""
    found = [int(number) for number in re.findall(r"\d+", text)]
    if max(found) >= len(known) or _numbered(tuple(known)):  # of something else, or no names
        return text
    return re.sub(r"\d+", lambda m: f"{m[0]} ({known[int(m[0])]!r})", text)


def column(j, known):
    """Return "column 1 ('b')", or "column 1" where columns have no names (None)."""
    return _with_names(f"column {j}", known or ())


def naming_columns(method):
    """Return a method of a flow whose messages name the columns that the flow knows by name."""

    @functools.wraps(method)
    def asked(self, *args, **how):
        try:
            return method(self, *args, **how)
        except ValueError as error:
            name_columns(error, self.columns, self.names)
            raise

    return asked
