"""CIFAR-10 in all its forms, made here; cut short, altered, and hostile."""

import bz2
import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from hostile import fuzz, refused
from numpy.testing import assert_array_equal

from pyflow import FileError, datasets
from pyflow.datasets import cifar

NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
# Two in each batch.
PICTURES = np.random.default_rng(1).integers(
    256, size=(12, 32, 32, 3), dtype=np.uint8
)  # two in each batch
CLASSES = np.arange(12) % 10
PLANES = PICTURES.transpose(0, 3, 1, 2).reshape(12, 3072)


def binary(rows):
    return b"".join(bytes([CLASSES[i]]) + PLANES[i].tobytes() for i in rows)


def python2(rows, classes=CLASSES):
    """What cPickle of Python 2 wrote of {"labels": [...], "data": array, ...}, protocol 2."""

    def text(s):
        return b"U" + bytes([len(s)]) + s

    def number(i):
        return b"K" + bytes([i]) if i < 256 else b"J" + struct.pack("<i", i)

    pixels = PLANES[list(rows)].tobytes()
    shape = b"M" + struct.pack("<H", len(rows)) + b"M\0\x0c\x86"
    minus = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\nq\x0e" + text(b"u1") + b"K\0K\1\x87q\x10Rq\x11"
    dtype += b"(K\3" + text(b"|") + b"NNN" + 2 * minus + b"K\0tq\x13b"
    return b"".join(
        [
            b"\x80\2}q\1(" + text(b"batch_label") + b"q\2" + text(b"batch 1 of 5") + b"q\3",
            text(b"labels") + b"q\4]q\5(" + b"".join(number(classes[i]) for i in rows) + b"e",
            text(b"data") + b"q\6cnumpy.core.multiarray\n_reconstruct\nq\7cnumpy\nndarray\nq\x08",
            b"K\0\x85q\t" + text(b"b") + b"q\n\x87q\x0bRq\x0c(K\1" + shape + b"q\r" + dtype,
            b"\x89T" + struct.pack("<i", len(pixels)) + pixels + b"tq\x14b",
            text(b"filenames") + b"q\x15]q\x16(" + text(b"a.png") + b"q\x17" + b"h\x17e",
            b"u.",
        ]
    )


def python3(protocol, key=str, order="C"):
    def batch(rows):
        data = np.array(PLANES[list(rows)], order=order)
        return pickle.dumps(
            {key("labels"): CLASSES[list(rows)].tolist(), key("data"): data}, protocol
        )

    return batch


FORMS = {
    "binary": (binary, ".bin", "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    "Python 2": (python2, "", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
}
for protocol in (2, 3, 4):
    FORMS[f"protocol {protocol}"] = (python3(protocol), *FORMS["Python 2"][1:])
FORMS["bytes"] = (python3(4, str.encode), *FORMS["Python 2"][1:])
FORMS["Fortran"] = (python3(4, order="F"), *FORMS["Python 2"][1:])


def contents(form):
    batch, end, *_ = FORMS[form]
    return {name + end: batch(range(2 * i, 2 * i + 2)) for i, name in enumerate(NAMES)}


def write_tar(path, members, mode="w:gz"):
    """Write a tar archive of (name or TarInfo, content)."""
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def check_cifar(path):
    for split, rows in (("train", slice(10)), ("test", slice(10, 12))):
        images, labels = datasets.cifar10(path, split)
        assert_array_equal(images, PICTURES[rows])
        assert_array_equal(labels, CLASSES[rows])
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)


@pytest.mark.parametrize("form", FORMS)
def test_cifar_in_all_its_forms(tmp_path, form):
    *_, folder, archive = FORMS[form]
    files = contents(form)
    (tmp_path / folder).mkdir()
    for name, content in files.items():
        (tmp_path / folder / name).write_bytes(content)
    check_cifar(tmp_path / folder)
    check_cifar(tmp_path)
    packed = tmp_path / "packed"
    packed.mkdir()
    # In any order, and with members around that are none of a reader's business.
    members = [(f"{folder}/{name}", content) for name, content in reversed(files.items())]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo(f"{folder}/{next(iter(files))}")
        info.type, info.linkname = kind, "/etc/passwd"
        members.insert(0, (info, b""))
    members = [("/etc/odd", b"1"), ("../../odd", b"2"), *members, ("x" * 300, b"3")]
    write_tar(packed / archive, members)
    check_cifar(packed)
    check_cifar(packed / archive)
    write_tar(packed / "plain.tar", members, "w")
    check_cifar(packed / "plain.tar")
    assert sorted(os.listdir(packed)) == sorted([archive, "plain.tar"])


def test_cifar_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}: has neither data_batch_1.bin"):
        datasets.cifar10(tmp_path)
    with pytest.raises(FileNotFoundError):
        datasets.cifar10(tmp_path / "nothing")
    for name, content in contents("binary").items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_3.bin"):
        datasets.cifar10(tmp_path)


@pytest.mark.parametrize("content", [b"", binary([0])[:-1], b"\x0a" + bytes(3072)])
def test_damaged_binary_batches(tmp_path, content):
    path = tmp_path / "test_batch.bin"
    path.write_bytes(content)
    with refused(path):
        datasets.cifar10(tmp_path, "test")


def refuses_archive(path, message):
    with refused(path, message):
        datasets.cifar10(path, "test")


def test_damaged_and_hostile_archives(tmp_path, monkeypatch):
    path = tmp_path / "archive"
    good = ("cifar-10-batches-bin/test_batch.bin", binary([0]))
    for members, message in (
        ([], "has no test_batch"),
        ([("a/data_batch_1.bin", binary([0]))], "has no test_batch"),
        ([good, good], "has two files test_batch.bin"),
        ([good, ("elsewhere/test_batch", python2([0]))], "has two files test_batch"),
    ):
        write_tar(path, members)
        refuses_archive(path, message)
    info = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    info.size = 10**12  # what it holds ends long before
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    refuses_archive(path, "")
    info.type = tarfile.XHDTYPE
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    refuses_archive(path, "")
    info.size = -512
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    refuses_archive(path, "")
    write_tar(path, [good])
    whole = path.read_bytes()
    for k in (0, 1, 2, 10, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:k])
        refuses_archive(path, "")
    for altered in (bz2.compress(whole), whole[:-8] + b"\0\0\0\0" + whole[-4:], b"text" * 500):
        path.write_bytes(altered)
        refuses_archive(path, "is a damaged archive, or none")
    monkeypatch.setattr(cifar, "UNPACKED", 4_000_000)
    monkeypatch.setattr(cifar, "BATCH", 1_000_000)
    write_tar(path, [("zeros", bytes(5_000_000)), good])
    refuses_archive(path, ".*unpacks to more than CIFAR-10 has")
    write_tar(path, [("test_batch.bin", bytes(3073 * 1000))])
    refuses_archive(path, "test_batch.bin: is larger than any batch")


class Attack:
    """What a pickle runs when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def put(index):
    return b"r" + struct.pack("<I", index)


PICKLES = {
    "list": pickle.dumps([1]),
    "no data": pickle.dumps({"labels": [1]}),
    "data is text": pickle.dumps({"labels": [1], "data": "text"}),
    "empty": python2([]),
    "label": python2([0], [10]),
    "label vast": python2([0], [2**31 - 1]),
    "labels few": pickle.dumps({"labels": [], "data": PLANES[:1]}, 4),
    "shape": pickle.dumps({"labels": [1], "data": PLANES[0]}, 4),
    "width": pickle.dumps({"labels": [1], "data": PLANES[:1, :3000]}, 4),
    "float": pickle.dumps({"labels": [1], "data": PLANES[:1].astype(float)}, 4),
    "objects": pickle.dumps({"labels": [1], "data": np.array([[print]])}, 4),
    "protocol 5": pickle.dumps({"labels": [1], "data": PLANES[:1]}, 5),
    "protocol 0": pickle.dumps({"labels": [1], "data": PLANES[:1]}, 0),
    "memo": b"\x80\2}" + put(2**32 - 1) + b".",
    "bytearray": b"\x80\5\x96" + struct.pack("<Q", 2**40) + b".",
    "frame": b"\x80\4\x95" + struct.pack("<Q", 2**63) + b".",
    "deep key": b"\x80\2}K\1" + b"\x85" * 200_000 + b"K\1s.",
    "doubled key": b"\x80\2}K\1" + b"q\0h\0\x86" * 60 + b"K\1s.",
    "doubled text": b"\x80\2c_codecs\nencode\nK\1" + b"q\0h\0\x86" * 60 + b"\x85R.",
    "new object": b"\x80\2cnumpy\nndarray\n)\x81.",
    "build a dict": python2([0])[:-1] + b"}b.",
    "call a dict": python2([0])[:-1] + b")R.",
    "build a name": b"\x80\2cnumpy\nndarray\n}b.",
    "extension": b"\x80\2\x82\1.",
    "persistent": b"\x80\2K\1Q.",
    "empty stack": b"\x80\2b.",
    "no mark": b"\x80\2(e0u.",
    "nothing": b"",
    "text": b"not a pickle at all",
}


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
def test_damaged_and_hostile_pickles(tmp_path, content):
    path = tmp_path / "test_batch"
    path.write_bytes(content)
    with refused(path):
        datasets.cifar10(tmp_path, "test")


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_run_nothing(tmp_path, protocol):
    path, mark = tmp_path / "test_batch", tmp_path / "mark"
    for attack in (
        Attack(os.mkdir, str(mark)),
        Attack(eval, f"__import__('os').mkdir({str(mark)!r})"),
        Attack(np.save, str(mark), 1),
        Attack(getattr, "text", "upper"),
    ):
        content = pickle.dumps({"labels": [attack], "data": PLANES[:1]}, protocol)
        path.write_bytes(content)
        with refused(path, "(asks for|has the opcode)"):
            datasets.cifar10(tmp_path, "test")
        assert os.listdir(tmp_path) == ["test_batch"]
    if protocol:
        pickle.loads(pickle.dumps(Attack(os.mkdir, str(mark)), protocol))
        assert mark.exists()  # so it would have been seen


def test_a_pickle_of_one_array_many_times(tmp_path):
    batch = python2([0])
    data = batch[batch.index(b"cnumpy.core") : batch.index(b"tq\x14b") + 4]
    # The 3 kB of one array, which is the state of 9,000 others, would be 30 MB.
    again = b"h\x07h\x0bRh\x14b"
    path = tmp_path / "test_batch"
    path.write_bytes(b"\x80\2" + data + again * 9000 + b".")
    with refused(path):
        datasets.cifar10(tmp_path, "test")


@pytest.mark.parametrize("form", ["Python 2", "protocol 4"])
def test_altered_pickles_are_read_or_refused(tmp_path, form):
    content = FORMS[form][0](range(2))
    pixels = content.index(PLANES[0].tobytes()[:9]) if form == "Python 2" else None
    path, errors = tmp_path / "test_batch", 0
    head = content[:pixels] if pixels else content[:150]
    for altered in fuzz(head, 500):
        path.write_bytes(altered + content[len(head) :])
        try:
            images, labels = datasets.cifar10(tmp_path, "test")
        except FileError:
            errors += 1
        else:
            assert images.shape[1:] == (32, 32, 3)
            assert labels.shape == images.shape[:1]
    assert errors > 150
    for k in range(0, len(content), 23):
        path.write_bytes(content[:k])
        with refused(path):
            datasets.cifar10(tmp_path, "test")
