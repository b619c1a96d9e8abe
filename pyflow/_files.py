"""Files of tables, for the command line: CSV, NPY, NPZ, FITS, HDF5 and Parquet.

A table is a dict of columns (n,) by their names, or an array (n, ...) without names. What stands
behind a colon, as in `survey.h5:galaxies`, is a data set, an array or an extension of the file,
whose others stay as they are when one is written; `-` is standard input or output, which are CSV.
The libraries are imported when a file asks for them.
"""

import contextlib
import copy
import csv
import io
import os
import re
import shutil
import sys
import tempfile
import zipfile

import numpy as np

KINDS = {
    "csv": (".csv",),
    "npy": (".npy",),
    "npz": (".npz",),
    "fits": (".fits", ".fit", ".fits.gz"),
    "hdf5": (".h5", ".hdf5"),
    "parquet": (".parquet", ".pq"),
}
NEEDS = {"fits": "astropy", "hdf5": "h5py", "parquet": "pyarrow"}
SEPARATORS = {";": "semicolons", "\t": "tabs", " ": "blanks"}  # that are not taken
ARRAY = "data"  # what an array without names is called in a file of several


def place(name):
    """Return the kind of a table's file, its path, and the part of it that is meant, or None.

    Raises
    ------
    ValueError
        If the suffix is none of `KINDS`.
    """
    if name == "-":
        return "csv", name, None
    suffixes = "|".join(re.escape(suffix) for kind in KINDS.values() for suffix in kind)
    found = re.fullmatch(rf"(.+?({suffixes}))(?::(.+))?", name, re.IGNORECASE | re.DOTALL)
    if not found:
        known = ", ".join(kind[0] for kind in KINDS.values())
        raise ValueError(f"{name}: its suffix is none of {known}")
    kind = next(kind for kind, of in KINDS.items() if found[2].lower() in of)
    if found[3] and kind in ("csv", "npy", "parquet"):
        raise ValueError(f"{name}: a {kind.upper()} file has no parts to name behind a colon")
    return kind, found[1], found[3]


def need(name):
    """Refuse a file's name now if it cannot be read or written later: see `place`."""
    kind, _, _ = place(name)
    if kind in NEEDS:
        try:
            __import__(NEEDS[kind])
        except ImportError:
            raise ImportError(
                f"{name}: needs {NEEDS[kind]}: pip install {NEEDS[kind]}", name=NEEDS[kind]
            ) from None


def read(name):
    """Return the table in a file: a dict of columns, or an array."""
    need(name)
    kind, path, part = place(name)
    try:
        return READERS[kind](path, part)
    except MemoryError:
        raise
    except Exception as error:  # of one of six libraries
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise
        what = error.args[0] if isinstance(error, KeyError) and error.args else error
        if isinstance(error, UnicodeDecodeError):
            what = f"is not UTF-8: its byte {error.start} is no character"
        raise ValueError(f"{name}: {_in_short(what, kind)}") from None


def _in_short(what, kind):
    """Return what a library says, without advice that is for its own callers."""
    what = re.split(r"\. |; use |, use |\n| \(.*\btry\b", str(what))[0]
    if "pickle" in what:  # NumPy takes for one what begins as none of its files
        what = f"is no {kind.upper()} file, or holds Python's objects"
    return what


def same(given, output):
    """Whether writing the table `output` would write over the table, or the file, `given`.

    Links are followed. Of a file with several tables, one that is added or replaced leaves others.
    """
    (kind, path, part), (_, other, onto) = _place_of(given), _place_of(output)
    if "-" in (path, other) or not (os.path.exists(path) and os.path.exists(other)):
        return False
    if not os.path.samefile(path, other):
        return False
    if onto is None or kind not in SHARED:
        return True
    try:
        return SHARED[kind](path, part, onto)
    except Exception:  # it is no such file: reading it says so
        return True


def _place_of(name):
    """Return what `place` does; of a file of another kind its name, as it is."""
    try:
        return place(name)
    except ValueError:
        return None, name, None


def write(name, table):
    """Write a table, a dict of columns or an array, whole or not at all.

    A part of a file is added to it, or takes the place of what is called so; others stay.
    """
    need(name)
    kind, path, part = place(name)
    columns = table if isinstance(table, dict) else None
    if columns is None and table.ndim <= 2 and kind in ("csv", "fits", "parquet"):
        rows = table.reshape(len(table), -1)
        columns = {f"x{j}": rows[:, j] for j in range(rows.shape[1])}
    if columns is None and kind in ("csv", "fits", "parquet"):
        raise ValueError(f"{name}: takes columns; an array of shape {table.shape} goes to .npy")
    if name == "-":
        _write_csv(sys.stdout, columns)
        sys.stdout.flush()
        return
    writable(path)
    with replaced(path) as new:
        try:
            _write(kind, path, new, part, table, columns)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # of one of six libraries
            raise ValueError(f"{name}: {error}") from None


def _write(kind, path, new, part, table, columns):
    """Write to the file `new` what is to take the place of `path`."""
    if kind == "csv":
        with open(new, "w", encoding="utf-8", newline="") as file:
            _write_csv(file, columns)
    elif kind == "npy":
        with open(new, "wb") as file:
            np.save(file, table if columns is None else stacked(columns))
    elif kind == "npz":
        _write_npz(path, new, part, table)
    elif kind == "fits":
        _write_fits(path, new, part, columns)
    elif kind == "hdf5":
        _write_hdf5(path, new, part, table)
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(columns), new)


@contextlib.contextmanager
def replaced(path):
    """Give the path of a file to write, which then takes the place of `path`, or is removed.

    A link stays one, to the new file.
    """
    path = os.path.realpath(path)
    folder, base = os.path.split(path)
    handle, new = tempfile.mkstemp(prefix=".", suffix=f".{base}", dir=folder)
    os.close(handle)
    try:
        yield new
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(new, os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o666 & ~mask)
        os.replace(new, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def writable(path):
    """Refuse now a path that could not be written after a long computation."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{path}: is a folder, or no file that can be replaced")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path}: cannot write in {folder}")


def stacked(columns):
    """Return columns side by side, or the only one as it is."""
    found = list(columns.values())
    return found[0] if len(found) == 1 else np.stack(found, axis=1)


def _native(x):
    """Return numbers in the byte order of the machine."""
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def _named(x):
    """Return a structured array as a dict of columns, and all else as it is."""
    if x.dtype.names is None:
        return _native(x)
    return {name: _native(np.asarray(x[name])) for name in x.dtype.names}


def _of_parts(parts, part, what):
    """Return one of several arrays, by name or as the only one, or all as the columns of a table.

    parts: a dict of arrays, or of what gives them when it is cut with [()].
    """
    if part is not None:
        if part not in parts:
            raise ValueError(f"there is no {part!r} among {', '.join(parts) or 'nothing'}")
        return _named(np.asarray(parts[part][()]))
    if len(parts) == 1:
        name, found = next(iter(parts.items()))
        found = _named(np.asarray(found[()]))
        alone = name == ARRAY or isinstance(found, dict) or found.ndim > 1
        return found if alone else {name: found}
    found = {name: np.asarray(x[()]) for name, x in parts.items()}
    if (
        not found
        or {x.ndim for x in found.values()} != {1}
        or len(set(map(len, found.values()))) > 1
    ):
        known = ", ".join(parts) or "none"
        raise ValueError(f"name one of its {what} behind a colon; there are: {known}")
    return {name: _native(x) for name, x in found.items()}


# ---- CSV -----------------------------------------------------------------------------------------


def _read_csv(path, part):
    """Return columns by the names in the first line, or an array if that has numbers already."""
    if path == "-":
        text = sys.stdin.read()
    else:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
    header, text = _header(text.lstrip("\ufeff \t\r\n"))
    names = [name.strip() for name in header]
    numbered = all(map(_is_number, names))
    if names == [str(j) for j in range(len(names))] and (len(names) > 1 or "." in text):
        numbered = False  # but what pandas calls columns without names
    if not numbered:
        text = text[_end_of_line(text) :]
    how = {"delimiter": ",", "quotechar": '"', "ndmin": 2, "comments": None}
    if not text.strip():
        rows = np.empty((0, len(names)))
    else:
        try:
            rows = np.loadtxt(io.StringIO(text), **how)
        except ValueError:
            rows = np.loadtxt(io.StringIO(text), **how, dtype=str)
    if len(names) == rows.shape[1] == 1 and rows.dtype.kind == "U":
        for separator, word in SEPARATORS.items():
            if separator in names[0] and all(separator in row for row in rows[:, 0]):
                raise ValueError(f"has {word} between columns in place of commas")
    if len(names) == 1 and rows.shape[1] > 1:
        raise ValueError(
            f"has one field in its first line and {rows.shape[1]} in others: begin a title with #"
        )
    if rows.shape[1] != len(names):
        raise ValueError(f"has {len(names)} names in its first line and {rows.shape[1]} columns")
    if numbered and rows.dtype.kind == "f":
        return rows
    names = [f"x{j}" for j in range(len(names))] if numbered else names
    if len(set(names)) < len(names):
        twice = next(name for j, name in enumerate(names) if name in names[:j])
        raise ValueError(f"two of its columns are called {twice!r}")
    return {name: _numbers(rows[:, j]) for j, name in enumerate(names)}


def _header(text):
    """Return the fields of the first line, and the text without the comments.

    Lines that begin with # are comments, but the first line of all is the header if the first of
    the others has as many fields: `numpy.savetxt` writes it so.
    """
    comment = r"(?m)^[ \t]*#.*\n?"
    body = re.sub(comment, "", text).lstrip()
    above, first = (_fields(part[: _end_of_line(part)].lstrip("# \t")) for part in (text, body))
    named = text.startswith("#") and not all(map(_is_number, above))
    if named and len(first) in (0, len(above)):
        return above, "\n" + body
    if not first:
        raise ValueError("is empty")
    return first, body


def _end_of_line(text):
    return text.find("\n") + 1 or len(text)


def _fields(line):
    return next(csv.reader([line.rstrip("\r\n")], skipinitialspace=True), [])


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(column):
    """Return a column of text as numbers, NaN where it is empty, or as text if it is that."""
    if column.dtype.kind == "f":
        return np.ascontiguousarray(column)
    column = np.char.strip(column)
    try:
        return np.where(column == "", "nan", column).astype(np.float64)
    except ValueError:
        return column


def _write_csv(file, columns):
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(columns)
    lists = [np.asarray(x).tolist() for x in columns.values()]  # repr of each: all its digits
    lines.writerows(zip(*lists, strict=True))


# ---- others --------------------------------------------------------------------------------------


def _read_npy(path, part):
    return _named(np.load(path, allow_pickle=False))


def _read_npz(path, part):
    with np.load(path, allow_pickle=False) as file:
        return _of_parts(dict(file), part, "arrays")


def _write_npz(path, new, part, table):
    """Write to the file `new`; where a part is named, beside what `path` holds of others."""
    if part is not None:
        table = {
            part: np.rec.fromarrays([*table.values()], names=[*table])
            if isinstance(table, dict)
            else table
        }
    elif not isinstance(table, dict):
        table = {ARRAY: table}
    with zipfile.ZipFile(new, "w") as file:
        if part is not None and os.path.exists(path):
            with zipfile.ZipFile(path) as old:
                for member in old.infolist():
                    if member.filename == f"{part}.npy":
                        continue
                    with old.open(member) as here, file.open(copy.copy(member), "w") as there:
                        shutil.copyfileobj(here, there)
        for name, x in table.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as target:
                np.lib.format.write_array(target, np.asanyarray(x), allow_pickle=False)


def _shared_npz(path, part, onto):
    """Whether an array that is written is the one that is read, or, of all, one of them."""
    with np.load(path, allow_pickle=False) as file:
        return onto == part if part is not None else onto in file.files


def _read_fits(path, part):
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(path) as file:
        hdu = file[_extension(file, part)]
        if hdu.data is None:
            raise ValueError("holds no data there")
        if not hasattr(hdu, "columns"):
            return _native(np.array(hdu.data))
        table = Table.read(hdu)
        return {name: _filled(table[name]) for name in table.colnames}


def _extension(file, part):
    """Return the number of an extension by its name or number; None: of the first table."""
    if part is not None:
        return int(part) if part.isdigit() else file.index_of(part)
    tables = [j for j, hdu in enumerate(file) if hasattr(hdu, "columns")]
    return (tables or [j for j, hdu in enumerate(file) if hdu.data is not None] or [0])[0]


def _write_fits(path, new, part, columns):
    """Write to the file `new`; where a part is named, beside what `path` holds of others."""
    from astropy.io import fits

    made = fits.BinTableHDU(np.rec.fromarrays([*columns.values()], names=[*columns]))
    if part is not None and not part.isdigit():
        made.name = part
    if part is None or not os.path.exists(path):
        _check_extension(part, 1)
        fits.HDUList([fits.PrimaryHDU(), made]).writeto(new, overwrite=True)
        return
    how = {"disable_image_compression": True, "do_not_scale_image_data": True, "memmap": False}
    with fits.open(path, **how) as file:
        try:
            at = _extension(file, part)
        except KeyError:
            at = len(file)
        _check_extension(at, len(file))
        if at < len(file):
            made.name, made.ver = file[at].name, file[at].ver
            file[at] = made
        else:
            file.append(made)
        file.writeto(new, overwrite=True, output_verify="ignore")


def _check_extension(part, following):
    """Refuse numbers of extensions that no table can have; the one after the last is new."""
    part = "0" if str(part).upper() == "PRIMARY" else str(part)
    if part.isdigit() and not 1 <= int(part) <= following:
        raise ValueError(f"a table is an extension from 1 to {following} there, not {part}")


def _shared_fits(path, part, onto):
    """Whether the extension that is written is the one that is read."""
    from astropy.io import fits

    with fits.open(path) as file:
        try:
            return _extension(file, part) == _extension(file, onto)
        except KeyError:
            return False


def _filled(column):
    """Return a column of astropy's as an array, NaN where it has no value."""
    if np.ma.getmaskarray(column).any():
        column = np.ma.asarray(column).astype(np.float64).filled(np.nan)
    return _native(np.array(column))


def _read_hdf5(path, part):
    import h5py

    with h5py.File(path, "r") as file:
        if part is not None and part not in file:
            raise ValueError(f"there is no {part!r} among {', '.join(file) or 'nothing'}")
        found = file if part is None else file[part]
        while isinstance(found, h5py.Group) and len(found) == 1:
            name = next(iter(found))
            if isinstance(found[name], h5py.Dataset):
                break
            found = found[name]
        if isinstance(found, h5py.Dataset):
            return _named(found[()])
        sets = {name: x for name, x in found.items() if isinstance(x, h5py.Dataset)}
        if len(sets) < len(found):
            raise ValueError(f"name one of its data sets behind a colon: {', '.join(found)}")
        return _of_parts(sets, None, "data sets")


def _write_hdf5(path, new, part, table):
    """Write to the file `new`; where a part is named, beside what `path` holds of others."""
    import h5py

    if part is not None and os.path.exists(path):
        shutil.copyfile(path, new)
    with h5py.File(new, "a" if part is not None and os.path.getsize(new) else "w") as file:
        if part is not None and part in file:
            old = file[part]
            if isinstance(old, h5py.Group) and any(isinstance(x, h5py.Group) for x in old.values()):
                raise ValueError(f"{part!r} holds other tables: {', '.join(old)}")
            del file[part]
        if isinstance(table, dict):
            group = file if part is None else file.create_group(part)
            for name, column in table.items():
                group[name] = column
        else:
            file[part or ARRAY] = table


def _shared_hdf5(path, part, onto):
    """Whether a data set or group that is written is what is read, holds it, or is a part of it."""
    import h5py

    part, onto = (f"/{(name or '').strip('/')}/".replace("//", "/") for name in (part, onto))
    if part.startswith(onto):
        return True
    with h5py.File(path, "r") as file:
        return onto.startswith(part) and onto in file


def _read_parquet(path, part):
    from pyarrow import parquet

    table = parquet.read_table(path)
    names = [name for name in table.column_names if not name.startswith("__index_level_")]
    return {name: np.asarray(table[name].to_numpy()) for name in names}


READERS = {
    "csv": _read_csv,
    "npy": _read_npy,
    "npz": _read_npz,
    "fits": _read_fits,
    "hdf5": _read_hdf5,
    "parquet": _read_parquet,
}
SHARED = {"npz": _shared_npz, "fits": _shared_fits, "hdf5": _shared_hdf5}
