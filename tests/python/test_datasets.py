"""IDX files and MNIST: made here in their format, cut short, altered, and hostile."""

import gzip
import struct

import numpy as np
import pytest
from hostile import fuzz, refused
from numpy.testing import assert_array_equal

import pyflow
from pyflow import FileError, datasets
from pyflow.datasets import idx

# ---- IDX -----------------------------------------------------------------------------------------

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def to_idx(x):
    x = np.asarray(x)
    header = struct.pack(f">BBBB{x.ndim}I", 0, 0, CODES[x.dtype.str[1:]], x.ndim, *x.shape)
    return header + x.astype(x.dtype.newbyteorder(">")).tobytes()


def numbers(dtype, shape):
    x = np.random.default_rng(1).integers(-(2**31), 2**31, size=shape)
    return (x / 7).astype(dtype) if dtype[0] == "f" else x.astype(dtype)


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (0, 28, 28), (1,) * 8])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_gives_back_what_was_written(tmp_path, dtype, shape, packed):
    x = numbers(dtype, shape)
    path = tmp_path / ("plain" if packed else "looks.gz")  # the name does not matter
    path.write_bytes(gzip.compress(to_idx(x)) if packed else to_idx(x))
    for given in (path, str(path)):
        back = datasets.read_idx(given)
        assert_array_equal(back, x)
        assert back.dtype == x.dtype
        assert back.dtype.isnative
        back[...] = 0  # it is the caller's own


@pytest.mark.parametrize("packed", [False, True])
def test_idx_cut_short_anywhere_or_longer_is_refused(tmp_path, packed):
    whole = to_idx(numbers("i2", (2, 3)))
    whole = gzip.compress(whole) if packed else whole
    path = tmp_path / "file"
    for content in [*(whole[:k] for k in range(len(whole))), whole + b"\1", whole + b"more"]:
        path.write_bytes(content)
        with refused(path):
            datasets.read_idx(path)


def test_idx_with_an_altered_checksum_is_refused(tmp_path):
    content = bytearray(gzip.compress(to_idx(numbers("u1", (20,)))))
    content[-6] ^= 1
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FileError, match="damaged gzip file: CRC"):
        datasets.read_idx(tmp_path / "file")


HOSTILE = {
    "2**40 bytes": struct.pack(">BBBB2I", 0, 0, 8, 2, 2**20, 2**20),
    "2**96 elements": struct.pack(">BBBB3I", 0, 0, 14, 3, *[2**32 - 1] * 3),
    "none, but vast": struct.pack(">BBBB4I", 0, 0, 8, 4, 0, *[2**32 - 1] * 3),
    "255 axes": struct.pack(">BBBB255I", 0, 0, 8, 255, *[1] * 255) + b"\1",
    "no axes": b"\0\0\x08\0\1",
    "unknown type": b"\0\0\x0a\1\0\0\0\1\1",
    "another file": b"\x89PNG\r\n\x1a\n",
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_hostile_idx_headers(tmp_path, content, pack):
    path = tmp_path / "file"
    path.write_bytes(pack(content))
    with refused(path):
        datasets.read_idx(path)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    bomb = gzip.compress(bytes(50_000_000))
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(to_idx(np.zeros(3, "u1"))) + bomb)
    with refused(path, "goes on after its array"):
        datasets.read_idx(path)
    path.write_bytes(gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 10**9)) + bomb[:200])
    with refused(path, "is cut short"):
        datasets.read_idx(path)


def test_altered_idx_is_read_or_refused(tmp_path):
    content = to_idx(numbers("i2", (2, 3)))
    errors = 0
    for pack in (bytes, gzip.compress):
        for altered in fuzz(pack(content), 300):
            (tmp_path / "file").write_bytes(altered)
            try:
                assert datasets.read_idx(tmp_path / "file").nbytes < 1000
            except FileError:
                errors += 1
    assert errors > 300


def test_idx_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        datasets.read_idx(tmp_path / "nothing")


# ---- MNIST ---------------------------------------------------------------------------------------

IMAGES = numbers("u1", (7, 4, 5))
LABELS = np.array([3, 1, 4, 1, 5, 9, 255], np.uint8)


def write_mnist(folder, images=IMAGES, labels=LABELS, name="train-{}-ubyte", pack=bytes):
    folder.mkdir(exist_ok=True)
    (folder / name.format("images-idx3")).write_bytes(pack(to_idx(images)))
    (folder / name.format("labels-idx1")).write_bytes(pack(to_idx(labels)))


@pytest.mark.parametrize(
    ("name", "split", "pack"),
    [
        ("train-{}-ubyte", "train", bytes),
        ("train-{}-ubyte.gz", "train", gzip.compress),
        ("t10k-{}-ubyte.gz", "test", gzip.compress),
        ("test-{}-ubyte", "test", bytes),
    ],
)
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("prefix", ["", "emnist-letters-"])
def test_mnist_under_its_usual_names(tmp_path, name, split, pack, dot, prefix):
    class Name(str):
        def format(self, kind):
            return prefix + str.format(self, kind.replace("-", dot))

    write_mnist(tmp_path, name=Name(name), pack=pack)
    images, labels = datasets.mnist(tmp_path, split, prefix=prefix)
    assert_array_equal(images, IMAGES[..., None])
    assert_array_equal(labels, LABELS)
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    other = "test" if split == "train" else "train"
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: has no {prefix}t"):
        datasets.mnist(tmp_path, other, prefix=prefix)
    if prefix:
        with pytest.raises(FileNotFoundError, match="files of prefix 'emnist-letters-'"):
            datasets.mnist(tmp_path, split)
    else:
        assert_array_equal(datasets.fashion_mnist(tmp_path, split)[0], images)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, LABELS[:-1], "labels-idx1-ubyte: must hold 7 labels"),
        (IMAGES, IMAGES, "labels-idx1-ubyte: must hold 7 labels"),
        (IMAGES, LABELS.astype("f4"), "labels-idx1-ubyte: .* float32"),
        (LABELS, LABELS, r"images-idx3-ubyte: must hold images.* \(7,\)"),
        (IMAGES.astype("i2"), LABELS, "images-idx3-ubyte: must hold images, uint8.* int16"),
    ],
)
def test_files_that_are_not_of_images_and_labels(tmp_path, images, labels, message):
    write_mnist(tmp_path, images, labels)
    with pytest.raises(FileError, match=f"^{tmp_path}/train-{message}"):
        datasets.mnist(tmp_path)


def test_where_mnist_is_not(tmp_path, monkeypatch):
    with pytest.raises(TypeError, match="^folder: .*downloads none"):
        datasets.mnist(None)
    with pytest.raises(FileNotFoundError, match="nothing"):
        datasets.mnist(tmp_path / "nothing")
    for read in (datasets.mnist, datasets.fashion_mnist, datasets.cifar10):
        with pytest.raises(ValueError, match="^split: must be 'train' or 'test', not 'val'"):
            read(tmp_path, "val")
    monkeypatch.setattr(idx, "DEBIAN", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="^folder: .*dataset-fashion-mnist"):
        datasets.fashion_mnist()
    monkeypatch.setattr(idx, "DEBIAN", str(tmp_path))
    write_mnist(tmp_path)
    assert_array_equal(datasets.fashion_mnist()[1], LABELS)


def test_the_module_is_exported():
    assert pyflow.datasets is datasets
    assert dir(datasets) == datasets.__all__
    assert sorted(datasets.__all__) == datasets.__all__
    for name in datasets.__all__:
        assert ">>> " in getattr(datasets, name).__doc__
