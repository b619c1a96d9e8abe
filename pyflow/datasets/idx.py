"""IDX files: MNIST and the sets that were made like it."""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow._core import FileError

if TYPE_CHECKING:
    from typing import Literal

    from numpy.typing import NDArray

    Path = str | os.PathLike[str]
    Images = NDArray[np.uint8]
    Labels = NDArray[np.int64]
    Split = Literal["train", "test"]

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
GZIP = b"\x1f\x8b"
INFLATED = 1032  # bytes that a byte of a gzip file can stand for, at most
DEBIAN = "/usr/share/datasets/fashion-mnist"
PARTS = {"train": ("train",), "test": ("t10k", "test")}


def __dir__():
    return ["fashion_mnist", "mnist", "read_idx"]


def checked_split(split):
    """Return split; an error names the argument."""
    if split not in ("train", "test"):
        raise ValueError(f"split: must be 'train' or 'test', not {split!r}")
    return split


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array of an IDX file, plain or compressed by gzip.

    Which of the two is told from its first bytes. Memory is asked for as data come, never because
    the header says so.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    array
        Of the shape and the dtype that the file states (uint8, int8, int16, int32, float32 or
        float64), in the machine's byte order.

    Raises
    ------
    FileError
        If it is no IDX file, is cut short, or goes on after the array. A subclass of ValueError.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile, pyflow
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels.idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
    ...     pyflow.datasets.read_idx(path)
    array([5, 0, 4], dtype=uint8)
    """
    with open(path, "rb") as file:
        packed = file.read(2) == GZIP
        file.seek(0)
        size = os.fstat(file.fileno()).st_size
        try:
            if not packed:
                return _array(file, size)
            with gzip.GzipFile(fileobj=file) as stream:
                return _array(stream, INFLATED * size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileError(f"{os.fspath(path)}: is a damaged gzip file: {error}") from None
        except FileError as error:
            raise FileError(f"{os.fspath(path)}: {error}") from None


def _array(stream, most):
    """Read an IDX file from a stream of at most that many bytes.

    It is 0, 0, the type, the number of axes d; d lengths, big-endian, of 4 bytes; the elements,
    big-endian, the last axis fastest.
    """
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in DTYPES or start[3] == 0:
        raise FileError(f"is not an IDX file: it begins with {start!r}")
    lengths = stream.read(4 * start[3])
    if len(lengths) < 4 * start[3]:
        raise FileError("is cut short, within its header")
    shape = tuple(np.frombuffer(lengths, ">u4").tolist())
    dtype = np.dtype(DTYPES[start[2]])
    size = math.prod(shape) * dtype.itemsize
    states = f"its header states {size} bytes, shape {shape} of {dtype}"
    if size > most:
        raise FileError(f"is cut short or no IDX file: {states}")
    data = bytearray()
    while len(data) < size:
        piece = stream.read(min(size - len(data), 1 << 20))
        if not piece:
            raise FileError(f"is cut short: {states}, and {len(data)} follow")
        data += piece
    if stream.read(1):  # which also lets gzip compare its checksum
        raise FileError(f"goes on after its array: {states}")
    try:
        return np.ndarray(shape, dtype.newbyteorder(">"), data).astype(dtype, copy=False)
    except ValueError as error:  # more axes than NumPy has, or lengths beyond it beside a zero
        raise FileError(f"is not for NumPy: {states}: {error}") from None


def mnist(folder: Path, split: Split = "train", *, prefix: str = "") -> tuple[Images, Labels]:
    """Return images and labels of MNIST, or of a set in the same four files.

    They are train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte: MNIST, Fashion-MNIST, KMNIST. Each may end in .gz, may have a dot where
    the usual name has its second hyphen, and may have test for t10k. The images of EMNIST, for
    which `prefix` is "emnist-letters-" or the like, are stored transposed:
    `images.transpose(0, 2, 1, 3)` are upright.

    Parameters
    ----------
    folder : str or os.PathLike
        Where the files are; pyflow downloads none.
    split : {"train", "test"}
    prefix : str
        What the names of the files begin with.

    Returns
    -------
    images : (n, height, width, 1) uint8 array
        MNIST has 60,000 and 10,000 of 28 x 28.
    labels : (n,) int64 array

    Raises
    ------
    FileError
        If a file is damaged, or does not hold images, or labels, one for each image.
    FileNotFoundError
        If a file is not there.

    Examples
    --------
    >>> import pathlib, tempfile, pyflow
    >>> with tempfile.TemporaryDirectory() as folder:  # one image of 1 x 2 pixels
    ...     files = {
    ...         "t10k-images-idx3-ubyte": [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 9, 255],
    ...         "t10k-labels-idx1-ubyte": [0, 0, 8, 1, 0, 0, 0, 1, 7],
    ...     }
    ...     for name, content in files.items():
    ...         _ = pathlib.Path(folder, name).write_bytes(bytes(content))
    ...     images, labels = pyflow.datasets.mnist(folder, "test")
    >>> images.shape, images[0, 0, :, 0].tolist(), labels.tolist()
    ((1, 1, 2, 1), [9, 255], [7])
    """
    parts = PARTS[checked_split(split)]
    if folder is None:
        raise TypeError("folder: must be where the four files are; pyflow downloads none")
    paths = [_find(folder, parts, kind, prefix) for kind in ("images-idx3", "labels-idx1")]
    images, labels = map(read_idx, paths)
    if images.dtype != np.uint8 or images.ndim != 3:
        what = f"{images.dtype} of shape {images.shape}"
        raise FileError(f"{paths[0]}: must hold images, uint8 of shape (n, height, width): {what}")
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        what = f"{labels.dtype} of shape {labels.shape}"
        raise FileError(f"{paths[1]}: must hold {len(images)} labels, uint8 of one axis: {what}")
    return images[..., None], labels.astype(np.int64)


def _find(folder, parts, kind, prefix):
    """Return the path of the file of images or labels; one that is not packed comes first."""
    there = set(os.listdir(folder))
    for part in parts:
        for dot in ("-", "."):
            for end in ("", ".gz"):
                name = f"{prefix}{part}-{kind.replace('-', dot)}-ubyte{end}"
                if name in there:
                    return os.path.join(folder, name)
    pattern = re.compile(r"(.*?)(train|t10k|test)-images[-.]idx3-ubyte(\.gz)?")
    other = sorted({m[1] for m in map(pattern.fullmatch, there) if m} - {prefix})
    hint = f"; there are files of prefix {', '.join(map(repr, other))}" if other else ""
    name = f"{prefix}{parts[0]}-{kind}-ubyte"
    raise FileNotFoundError(f"{os.fspath(folder)}: has no {name} or {name}.gz{hint}")


def fashion_mnist(folder: Path | None = None, split: Split = "train") -> tuple[Images, Labels]:
    """Return images and labels of Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747).

    Parameters
    ----------
    folder : str or os.PathLike, optional
        Where the four files are. Default: where the package `dataset-fashion-mnist` of Debian and
        Ubuntu puts them, /usr/share/datasets/fashion-mnist.
    split : {"train", "test"}

    Returns
    -------
    images : (60000 or 10000, 28, 28, 1) uint8 array
    labels : (60000 or 10000,) int64 array
        T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot.

    Raises
    ------
    FileError, FileNotFoundError
        As in `mnist`.

    Examples
    --------
    >>> import pyflow
    >>> try:
    ...     images, labels = pyflow.datasets.fashion_mnist(split="test")
    ... except FileNotFoundError:
    ...     pass  # sudo apt-get install dataset-fashion-mnist
    ... else:
    ...     assert images.shape == (10000, 28, 28, 1)
    """
    checked_split(split)
    if folder is None:
        folder = DEBIAN
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"folder: {folder} is not there; it comes with Debian's and Ubuntu's package "
                "dataset-fashion-mnist (sudo apt-get install dataset-fashion-mnist). Elsewhere, "
                "give the folder of the four files"
            )
    return mnist(folder, split)
