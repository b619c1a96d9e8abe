"""Arguments on their way to the core: numbers, arrays, labels."""

import math
import operator
import os
import sys
import warnings
from collections.abc import Mapping

import numpy as np

from pyflow import _many, _tables


def warn(message, category=UserWarning):
    """Warn, at the first line outside the package; what `_many` asks is heard of by its caller."""
    if _many.kept(message, category):
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("pyflow."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def integer(name, value, least, most=None):
    """Return value as an int; an error names the argument."""
    try:
        number = operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name}: must be an integer, not {value!r} ({kind})") from None
    if number < least or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name}: must be {limits}, not {number}")
    return number


def real(name, value):
    """Return value as a finite float; an error names the argument."""
    try:
        number = None if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None:
        raise TypeError(f"{name}: must be a number, not {value!r}")
    if not math.isfinite(number):
        raise ValueError(f"{name}: must be finite, not {number}")
    return number


def names(names, p, what, name="names"):
    """Return names as a list of p str: what parameters, or conditions, are called.

    p : int or None
        None: any number of names, which are given.
    name : str
        What the argument is called in errors.
    """
    if names is None:
        return [f"y{j}" for j in range(p)]
    try:
        given = [names] if isinstance(names, str) else list(names)
    except TypeError:
        raise TypeError(f"{name}: must be strings, not {names!r}") from None
    for each in given:
        if not isinstance(each, str):
            raise TypeError(f"{name}: must be strings, not {each!r}")
    if p is not None and len(given) != p:
        raise ValueError(f"{name}: {len(given)} names for {p} {what}")
    if len(set(given)) != len(given):
        raise ValueError(f"{name}: must differ, not {given}")
    return [str(each) for each in given]


def boolean(name, value):
    """Return value as a bool; an error names the argument."""
    if isinstance(value, (bool, np.bool_, int)) and value in (0, 1):
        return bool(value)
    raise TypeError(f"{name}: must be True or False, not {value!r}")


def seed(value):
    """Return an integer below 2**64: fresh entropy for None, 64 bits drawn from a generator."""
    if value is None:
        return int.from_bytes(os.urandom(8), "little")
    if isinstance(value, np.random.Generator | np.random.RandomState):
        return int.from_bytes(value.bytes(8), "little")
    if isinstance(value, np.random.SeedSequence):
        return int(value.generate_state(1, np.uint64)[0])
    return integer("seed", value, 0, 2**64 - 1)


def generator(value):
    """Return a numpy.random.Generator: one that is given goes on, anything else is a seed."""
    given = isinstance(value, np.random.Generator)
    return value if given else np.random.default_rng(seed(value))


def unknown_option(function, name, known):
    """Return the TypeError for an option that a function does not have, with the likeliest meant.

    Parameters
    ----------
    function, name : str
    known : iterable of str
        The options that there are.
    """
    import difflib  # here, because few fits need it

    like = {option.lower(): option for option in known}
    near = difflib.get_close_matches(name.lower(), like, 1)
    hint = f"; did you mean {like[near[0]]!r}?" if near else ""
    return TypeError(f"{function}() has no option {name!r}{hint}")


def rows(x, name):
    """Return x as an array, or as a two-dimensional object with a NumPy dtype that can be cut.

    Nothing that NumPy can view is copied. PyTorch tensors are taken off their graph and their
    device; the columns of tables are put side by side.
    """
    if type(x) is np.ndarray and x.dtype.kind not in "OV":
        return x
    table = _tables.array(x, name)
    if table is not None:
        return table
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ValueError(f"{name}: has masked values; fill them or leave those rows out")
    if hasattr(x, "detach"):
        x = x.detach()
        return x.cpu().numpy() if hasattr(x, "cpu") else np.asarray(x)
    if len(getattr(x, "shape", ())) == 2 and isinstance(getattr(x, "dtype", None), np.dtype):
        return x
    try:
        return np.asarray(x)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: cannot be made an array of numbers: {error}") from None


def classes(values, label, name, whose):
    """Return the index of every label among the sorted values, as int32.

    Parameters
    ----------
    values : (n_classes,) array, sorted
    label : array
    name, whose : str
        What the labels, and the values, are called in the message of the ValueError for an unknown
        label.
    """
    if (values.dtype.kind == "U") != (label.dtype.kind == "U"):
        unknown = np.ones(label.shape, bool)
    else:
        index = np.minimum(np.searchsorted(values, label), len(values) - 1)
        unknown = values[index] != label
    if unknown.any():
        known = ", ".join(map(repr, values[:10].tolist())) + (", ..." if len(values) > 10 else "")
        wrong = label[unknown].reshape(-1)[0].item()
        raise ValueError(f"{name}: {wrong!r} is not among {whose} ({known})")
    return index.astype(np.int32)


def labels(label, name):
    """Return labels as an array of booleans, integers, floats or strings."""
    label = np.asarray(rows(label, name))
    if label.dtype.kind == "O" and all(isinstance(value, str) for value in label.flat):
        label = label.astype(str)
    if label.dtype.kind not in "biufU":
        raise ValueError(
            f"{name}: must be numbers or strings, one for each row; the dtype is {label.dtype}"
        )
    if label.dtype.kind == "f" and not np.isfinite(label).all():
        raise ValueError(f"{name}: a label is not finite")
    return label


def bounds(pairs, columns=None):
    """Return bounds as float64, infinite for None; the core checks the shape and the order.

    Parameters
    ----------
    pairs : sequence of pairs, or dict of pairs by columns' names
    columns : sequence of str, optional
        What the columns are called. Those that a dict leaves out have no bounds.
    """
    if isinstance(pairs, Mapping):
        pairs = _bounds_of(pairs, columns)
    try:
        if not hasattr(pairs, "dtype"):
            open_ends = (-np.inf, np.inf)
            pairs = [
                [e if b is None else float(b) for b, e in zip(pair, open_ends, strict=True)]
                for pair in pairs
            ]
        return np.asarray(rows(pairs, "bounds"), dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            "bounds: must be a pair (lower, upper) for each column, None where there is no bound"
        ) from None


def _bounds_of(named, columns):
    """Return a pair for each column, of a dict."""
    if columns is None:
        raise ValueError(
            "bounds: a dict is for columns with names, which these are not; give a pair (lower, "
            "upper) for each column"
        )
    named = {str(name): pair for name, pair in named.items()}
    for name, pair in named.items():
        if name not in columns:
            known = ", ".join(map(repr, columns))
            raise ValueError(f"bounds: there is no column {name!r} among {known}")
        try:
            [b is None or float(b) for _, b in zip("12", pair, strict=True)]
        except (TypeError, ValueError):
            raise ValueError(
                f"bounds: of column {name!r}, must be a pair (lower, upper), None where there is "
                f"no bound, not {pair!r}"
            ) from None
    return [named.get(name, (None, None)) for name in columns]
