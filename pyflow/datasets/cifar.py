"""CIFAR-10, from its archives or what was unpacked of them."""

from __future__ import annotations

import gzip
import os
import posixpath
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np

from pyflow._core import FileError
from pyflow.datasets.idx import GZIP, checked_split

if TYPE_CHECKING:
    from pyflow.datasets.idx import Images, Labels, Path, Split

FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
PIXELS = 3 * 32 * 32
# Bounds on what is read, some way above what there is.
BATCH = 40_000_000  # bytes; 31,035,704
UNPACKED = 300_000_000  # bytes of an archive; 186 million
OPCODES = 1_000_000  # of a pickle; 60,000


def __dir__():
    return ["cifar10"]


def cifar10(path: Path, split: Split = "train") -> tuple[Images, Labels]:
    """Return images and labels of CIFAR-10 (Krizhevsky 2009).

    The pickles of the Python version are not unpickled: their dicts, lists, strings and arrays are
    read, and anything else in them is an error. Archives are not unpacked to disk.

    Parameters
    ----------
    path : str or os.PathLike
        An archive, cifar-10-binary.tar.gz or cifar-10-python.tar.gz; a folder unpacked of it,
        cifar-10-batches-bin or cifar-10-batches-py; or the folder that any of the four is in.
    split : {"train", "test"}

    Returns
    -------
    images : (50000 or 10000, 32, 32, 3) uint8 array
        In the order of the files.
    labels : (50000 or 10000,) int64 array
        Airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.

    Raises
    ------
    FileError
        If a file is damaged, larger than CIFAR-10's, or holds anything else.
    FileNotFoundError
        If the files are not there.

    Examples
    --------
    >>> import pathlib, tempfile, pyflow
    >>> with tempfile.TemporaryDirectory() as folder:  # a bird, all blue
    ...     record = bytes([2]) + bytes(2048) + bytes([255]) * 1024
    ...     _ = pathlib.Path(folder, "test_batch.bin").write_bytes(record)
    ...     images, labels = pyflow.datasets.cifar10(folder, "test")
    >>> images.shape, images[0, 31, 31].tolist(), labels.tolist()
    ((1, 32, 32, 3), [0, 0, 255], [2])
    """
    train = checked_split(split) == "train"
    names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    images, labels = [], []
    for where, data in _batches(path, names):
        try:
            pixels, classes = (_records if where.endswith(".bin") else _pickled)(data)
        except FileError as error:
            raise FileError(f"{where}: {error}") from None
        images.append(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(classes.astype(np.int64))
    return np.concatenate(images), np.concatenate(labels)


def _batches(path, names):
    """Yield the path and the content of every batch; binary batches end in .bin."""
    path = os.fspath(path)
    if not os.path.isdir(path):
        yield from _archived(path, names)
        return
    for folder in (path, *(os.path.join(path, folder) for folder in FOLDERS)):
        for end in (".bin", ""):
            files = [os.path.join(folder, name + end) for name in names]
            if any(map(os.path.isfile, files)):
                for where in files:
                    with open(where, "rb") as file:
                        yield where, _whole(file, os.fstat(file.fileno()).st_size, where)
                return
    for archive in (os.path.join(path, archive) for archive in ARCHIVES):
        if os.path.isfile(archive):
            yield from _archived(archive, names)
            return
    raise FileNotFoundError(
        f"{path}: has neither {names[0]}.bin nor {names[0]}, none of the folders "
        f"{', '.join(FOLDERS)}, and none of the archives {', '.join(ARCHIVES)}"
    )


def _whole(file, size, where):
    if size > BATCH:
        raise FileError(f"{where}: is larger than any batch of CIFAR-10")
    return file.read(size)


class _Bounded:
    """A stream of which no more than UNPACKED bytes can be read."""

    def __init__(self, stream):
        self.stream, self.left = stream, UNPACKED

    def read(self, size):
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise EOFError("it unpacks to more than CIFAR-10 has")
        return data


def _archived(path, names):
    """Yield the path and the content of every batch in an archive, in the order of names."""
    import tarfile  # here, as pickletools, because importing pyflow should not take longer for it

    found = {}
    with open(path, "rb") as file:
        packed = file.read(2) == GZIP
        file.seek(0)
        stream = _Bounded(gzip.GzipFile(fileobj=file) if packed else file)
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:  # forward only
                for member in tar:
                    name = posixpath.basename(member.name)
                    stem = name.removesuffix(".bin")
                    if stem not in names or not member.isreg() or member.issparse():
                        continue
                    if stem in found:
                        raise FileError(f"{path}: has two files {name}")
                    where = f"{path}: {member.name}"
                    found[stem] = where, _whole(tar.extractfile(member), member.size, where)
            while stream.read(1 << 20):  # to the end, where gzip compares its checksum
                pass
        except FileError:
            raise
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, ValueError, zlib.error) as error:
            raise FileError(f"{path}: is a damaged archive, or none: {error}") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise FileError(f"{path}: has no {', '.join(missing)}, with or without .bin")
    for name in names:
        yield found[name]


def _records(data):
    """Return pixels (n, 3072) and labels (n,) of the binary version: a label, then its pixels."""
    if len(data) == 0 or len(data) % (1 + PIXELS):
        raise FileError(f"has {len(data)} bytes, not a multiple of {1 + PIXELS}: is cut short")
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + PIXELS)
    if rows[:, 0].max() > 9:
        raise FileError("must hold labels from 0 to 9")
    return rows[:, 1:], rows[:, 0]


# ---- the Python version --------------------------------------------------------------------------


def _pickled(data):
    """Return pixels (n, 3072) and labels (n,) of the Python version: a pickled dict of both."""
    try:
        with warnings.catch_warnings():  # of opcodes that are refused
            warnings.simplefilter("ignore")
            batch = _interpreted(data)
        pixels, labels = batch["data"].array(), batch["labels"]
    except FileError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise FileError(
            f"is no pickle of CIFAR-10, or is cut short: {type(error).__name__}: {error}"
        ) from None
    if pixels.ndim != 2 or pixels.shape[1] != PIXELS or len(pixels) == 0:
        raise FileError(f"must hold data of shape (n, {PIXELS}), not {pixels.shape}")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise FileError(f"must hold a list of {len(pixels)} labels")
    if not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise FileError("must hold labels from 0 to 9")
    return pixels, np.array(labels)


class _Array:
    """A uint8 array: NumPy's pickles make an empty one first, and then give it its state."""

    state = None

    def array(self):
        _, shape, dtype, fortran, data = self.state
        if dtype is not _BYTES:
            raise FileError("must hold an array of uint8, and no other")
        order = "F" if fortran else "C"
        return np.frombuffer(data.encode("latin-1"), np.uint8).reshape(shape, order=order)


class _Global(str):
    """The name of something that a pickle would have imported."""


_BYTES = object()  # the dtype uint8
_RECONSTRUCT = {f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core")}
_NAMES = {*_RECONSTRUCT, "numpy ndarray", "numpy dtype", "_codecs encode"}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE"),
    *("SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _interpreted(data):
    """Return what a pickle of dicts, lists, strings, integers and byte arrays of NumPy holds.

    It knows the few opcodes that these consist of, and stand-ins of the names that arrays import,
    so that a file can neither import nor call anything. Not `pickle.Unpickler` with a `find_class`
    of few names: to that, a file can still give a memo of 2**32 entries, or a key that takes
    forever to hash. Byte strings become str, in Latin-1.
    """
    import pickletools

    stack, marks, memo = [], [], {}

    def cut(start):
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if count > OPCODES:
            raise FileError("has more in it than a batch of CIFAR-10")
        if name in _LITERALS:
            is_bytes = isinstance(argument, bytes)
            stack.append(argument.decode("latin-1") if is_bytes else argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack.append(tuple(cut(-_TUPLES[name])))
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(cut(marks.pop())))
        elif name in ("APPEND", "APPENDS"):
            items = cut(-1 if name == "APPEND" else marks.pop())
            list.extend(stack[-1], items)
        elif name in ("SETITEM", "SETITEMS"):
            items = cut(-2 if name == "SETITEM" else marks.pop())
            for key, value in zip(items[::2], items[1::2], strict=True):
                if type(key) is not str:
                    raise FileError(f"has a key that is not a string: {type(key).__name__}")
                dict.__setitem__(stack[-1], key, value)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            wanted = argument if name == "GLOBAL" else " ".join(cut(-2))
            if wanted not in _NAMES:
                raise FileError(f"asks for {wanted.replace(' ', '.')}, which no batch needs")
            stack.append(_Global(wanted))
        elif name == "REDUCE":
            stack.append(_reduced(*cut(-2)))
        elif name == "BUILD":
            (state,) = cut(-1)
            if type(stack[-1]) is _Array:
                stack[-1].state = state
            elif stack[-1] is not _BYTES:
                raise FileError("builds what no batch needs")
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise FileError(f"has the opcode {name}, which no batch needs")


def _reduced(function, arguments):
    """Return what a pickle would have got by a call; an error for all but three functions."""
    if type(function) is _Global:
        if function in _RECONSTRUCT:
            return _Array()
        if function == "numpy dtype" and arguments[0] in ("u1", "|u1", "B"):
            return _BYTES
        if function == "_codecs encode":
            return arguments[0]
    raise FileError("calls what no batch needs, or has an array that is not of uint8")
