"""Saved models: read back as they were, refused when they are not what was saved."""

import os
import shutil
import stat
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import pyflow


@pytest.mark.parametrize("name", ["model", "model32", "labelled"])
def test_load_gives_back_what_was_saved(name, request, tmp_path, test):
    model = request.getfixturevalue(name)
    path = tmp_path / "a model.pf"
    model.save(path)
    again = pyflow.load(path)
    label = None if model.labels is None else model.labels[0]
    assert again == model
    assert repr(again) == repr(model)
    assert again.layers == model.layers
    assert_array_equal(again.evaluate_density(test, label), model.evaluate_density(test, label))
    for key, value in model.history.items():
        assert_array_equal(again.history[key], value)
    assert path.read_bytes() == model.to_bytes()


def test_bounds_survive(tmp_path):
    x = np.random.default_rng(0).uniform(size=(300, 2))
    model = pyflow.GIS(x, bounds=[(0, 1), (0, None)], max_layers=2, verbose=False)
    model.save(str(tmp_path / "model"))
    again = pyflow.load(tmp_path / "model")
    assert again.evaluate_density([-1, 0.5]) == -np.inf
    assert_array_equal(again.sample(10, seed=1)[0], model.sample(10, seed=1)[0])


def test_the_header_is_json_and_without_code(model):
    import json

    data = model.to_bytes()
    assert data[:8] == b"\x93PYFLOW\n"
    (length,) = struct.unpack("<q", data[24:32])
    header = json.loads(data[32 : 32 + length])
    assert header["format"] == "pyflow"
    assert header["dtype"] == "float64"
    assert header["shape"] == [3]
    assert header["layers"] == len(model)
    assert b"pickle" not in data


@given(data=st.data())
def test_cut_short(model, data):
    whole = model.to_bytes()
    n = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(pyflow.FileError, match=r"cut short|altered|not a pyflow flow"):
        pyflow.Flow.from_bytes(whole[:n])


@given(data=st.data())
def test_altered(model32, data):
    whole = bytearray(model32.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        i = data.draw(st.integers(0, len(whole) - 1))
        whole[i] ^= data.draw(st.integers(1, 255))
    assume(bytes(whole) != model32.to_bytes())
    with pytest.raises(pyflow.FileError):
        pyflow.Flow.from_bytes(bytes(whole))


def crc64(data):
    """CRC-64 of ECMA-182, all bits inverted before and after; bit by bit."""
    crc = 2**64 - 1
    for byte in data:
        crc ^= byte << 56
        for _ in range(8):
            crc = (crc << 1) ^ (0x42F0E1EBA9EA3693 if crc >> 63 else 0)
            crc &= 2**64 - 1
    return crc ^ (2**64 - 1)


@pytest.fixture(scope="module")
def field_flow():
    x = np.random.default_rng(0).normal(size=(20, 8, 8))
    return pyflow.SymmetricFlow(x, n_layers=1, epochs=0, verbose=False)


@pytest.fixture(scope="module")
def small():
    x = np.random.default_rng(0).normal(size=(50, 2))
    return pyflow.GIS(x, max_layers=1, n_knots=5, verbose=False)


def resealed(data):
    return bytes(data[:-8]) + struct.pack("<Q", crc64(data[:-8]))


def test_a_right_check_sum_is_accepted(small):
    assert pyflow.Flow.from_bytes(resealed(small.to_bytes())) == small


@given(data=st.data())
def test_altered_with_a_right_check_sum(small, test, data):
    """A made-up file may hold other numbers, but never crashes whoever reads it."""
    whole = bytearray(small.to_bytes())
    header = 32 + struct.unpack("<q", whole[24:32])[0]
    i = data.draw(st.integers(header, len(whole) - 9))
    whole[i] = data.draw(st.integers(0, 255))
    try:
        model = pyflow.Flow.from_bytes(resealed(whole))
    except ValueError:
        return
    model.evaluate_density(np.zeros((3, model.dim)))
    model.sample(3, seed=1)


def test_sizes_whose_product_overflows(small):
    """2**30 classes of 2**30 slices of 16 knots: 3 * 2**64 numbers, or none at all in 64 bits."""
    whole = small.to_bytes()
    header = whole[: 32 + struct.unpack("<q", whole[24:32])[0]]
    space = struct.pack("<2q", 1, 2**30) + struct.pack("<q3d", 3, 0, 0, 0)
    sliced = struct.pack("<16s3q", b"sliced", 16, 2**30, 16)
    body = space + struct.pack("<2q", 2**30, 1) + sliced
    with pytest.raises(pyflow.FileError, match="splines are missing"):
        pyflow.Flow.from_bytes(resealed(header + body + struct.pack("<8q8x", *8 * [0])))


def test_a_newer_format(small):
    whole = bytearray(small.to_bytes())
    whole[8:16] = struct.pack("<q", 2**31)
    for data in (whole, resealed(whole)):
        with pytest.raises(pyflow.FileError, match="newer pyflow"):
            pyflow.Flow.from_bytes(bytes(data))


def test_something_else(tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, np.zeros(100))
    with pytest.raises(pyflow.FileError, match=r"table\.npy: this is not a pyflow flow"):
        pyflow.load(path)
    with pytest.raises(FileNotFoundError):
        pyflow.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        pyflow.load(tmp_path)
    with pytest.raises(pyflow.FileError):
        pyflow.Flow.from_bytes(b"")
    with pytest.raises(TypeError):
        pyflow.Flow.from_bytes("text")
    assert issubclass(pyflow.FileError, ValueError)


def test_saving_where_it_cannot_be(model, tmp_path):
    with pytest.raises(OSError, match="No such file"):
        model.save(tmp_path / "no folder" / "model")
    with pytest.raises(OSError, match="cannot write"):
        model.save(tmp_path)
    with pytest.raises(TypeError):
        model.save(None)
    with pytest.raises(ValueError, match="null"):
        model.save("a\0b")
    assert os.listdir(tmp_path) == []


def test_saving_replaces_the_whole_file(model, model32, tmp_path):
    path = tmp_path / "model"
    model.save(path)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666 & ~mask
    model32.save(path)
    assert pyflow.load(path) == model32
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_saving_keeps_a_files_mode(model32, tmp_path, mode):
    path = tmp_path / "model"
    path.touch()
    path.chmod(mode)
    model32.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert pyflow.load(path) == model32


def test_saving_follows_links(model32, field_flow, tmp_path):
    """Through two links, one of them to another folder; and through one that leads nowhere yet."""
    (tmp_path / "disk").mkdir()
    links = [tmp_path / "latest", tmp_path / "disk" / "current", tmp_path / "first"]
    for link, to in zip(links, ["disk/current", "model", "disk/new"], strict=True):
        link.symlink_to(to)
    (tmp_path / "disk" / "model").touch(0o600)
    model32.save(links[0])
    field_flow.save(links[2])
    assert all(link.is_symlink() for link in links)
    assert stat.S_IMODE((tmp_path / "disk" / "model").stat().st_mode) == 0o600
    assert pyflow.load(tmp_path / "disk" / "model") == model32
    assert pyflow.load(tmp_path / "disk" / "new") == field_flow
    assert sorted(os.listdir(tmp_path / "disk")) == ["current", "model", "new"]


def test_saving_into_what_is_no_file(model32, tmp_path):
    model32.save("/dev/null")
    assert not os.path.isfile("/dev/null")
    with pytest.raises(OSError, match="/dev/full: No space left"):
        model32.save("/dev/full")
    assert not os.path.isfile("/dev/full")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_bytes)
        model32.save(pipe)
    assert pyflow.Flow.from_bytes(read.result()) == model32
    assert pipe.is_fifo()


def test_saving_to_standard_output(model32, tmp_path):
    """Into a pipe, and with the output sent to a file."""
    model32.save(tmp_path / "model")
    save = [
        sys.executable,
        "-c",
        "import pyflow, sys; pyflow.load(sys.argv[1]).save('/dev/stdout')",
        tmp_path / "model",
    ]
    piped = subprocess.run(save, stdout=subprocess.PIPE, timeout=60, check=True).stdout
    assert pyflow.Flow.from_bytes(piped) == model32
    with open(tmp_path / "out", "wb") as file:
        subprocess.run(save, stdout=file, timeout=60, check=True)
    assert pyflow.load(tmp_path / "out") == model32


# On a disk of 64 kB, or with files limited to 20 kB: one model fits, the other does not.
FULL = """
import os, resource, signal, sys
import numpy as np, pyflow
from pathlib import Path
here = Path(sys.argv[1])
rng = np.random.default_rng(0)
model = pyflow.GIS(rng.normal(size=(50, 2)), max_layers=1, n_knots=5, verbose=False)
large = pyflow.GIS(rng.normal(size=(2000, 30)), max_layers=3, verbose=False)
assert len(large.to_bytes()) > 65536 > 20000 > len(model.to_bytes())
if sys.argv[2] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
(here / "disk").mkdir(exist_ok=True)
(here / "link").symlink_to("disk/model")
for path in here / "disk" / "model", here / "link":
    for before in False, True:
        if before:
            model.save(path)
        try:
            large.save(path)
            sys.exit("saved all the same")
        except OSError as error:
            print(error)
        assert os.listdir(here / "disk") == ["model"] * before, os.listdir(here / "disk")
        assert sorted(os.listdir(here)) == ["disk", "link"]
        if before:
            assert pyflow.load(here / "disk" / "model") == model
            (here / "disk" / "model").unlink()
"""


@pytest.mark.parametrize(("how", "says"), [("limit", "File too large"), ("tmpfs", "No space left")])
def test_a_full_disk(tmp_path, how, says):
    """An old file stays as it was; nothing is left beside it, nor beside what a link leads to."""
    run = [sys.executable, "-c", FULL, tmp_path, how]
    if how == "tmpfs":
        # a mount that nobody else sees
        (tmp_path / "disk").mkdir()
        mount = 'mount -t tmpfs -o size=64k none "$0" && exec "$@"'
        run = ["unshare", "-rm", "sh", "-c", mount, tmp_path / "disk", *run]
        probe = [*run[:6], "true"]
        if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(says) == 4, done.stdout
