"""Saved models: read back as they were, refused when they are not what was saved."""

import os
import stat
import struct

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
    (length,) = struct.unpack("<q", data[32:40])
    header = json.loads(data[40 : 40 + length])
    assert header["format"] == "pyflow"
    assert header["dtype"] == "float64"
    assert header["dim"] == 3
    assert header["layers"] == len(model)
    assert b"pickle" not in data


@given(data=st.data())
def test_cut_short(model, data):
    whole = model.to_bytes()
    n = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(pyflow.FileError, match=r"cut short|altered|not a pyflow model"):
        pyflow.Model.from_bytes(whole[:n])


@given(data=st.data())
def test_altered(model32, data):
    whole = bytearray(model32.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        i = data.draw(st.integers(0, len(whole) - 1))
        whole[i] ^= data.draw(st.integers(1, 255))
    assume(bytes(whole) != model32.to_bytes())
    with pytest.raises(pyflow.FileError):
        pyflow.Model.from_bytes(bytes(whole))


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
def small():
    x = np.random.default_rng(0).normal(size=(50, 2))
    return pyflow.GIS(x, max_layers=1, n_knots=5, verbose=False)


def resealed(data):
    return bytes(data[:-8]) + struct.pack("<Q", crc64(data[:-8]))


def test_a_right_check_sum_is_accepted(small):
    assert pyflow.Model.from_bytes(resealed(small.to_bytes())) == small


@given(data=st.data())
def test_altered_with_a_right_check_sum(small, test, data):
    """A made-up file may hold other numbers, but never crashes whoever reads it."""
    whole = bytearray(small.to_bytes())
    header = 40 + struct.unpack("<q", whole[32:40])[0]
    i = data.draw(st.integers(header, len(whole) - 9))
    whole[i] = data.draw(st.integers(0, 255))
    try:
        model = pyflow.Model.from_bytes(resealed(whole))
    except ValueError:
        return
    model.evaluate_density(np.zeros((3, model.dim)))
    model.sample(3, seed=1)


def test_sizes_whose_product_overflows(small):
    """2**30 classes of 2**30 slices of 16 knots: 3 * 2**64 numbers, or none at all in 64 bits."""
    whole = small.to_bytes()
    header = whole[: 40 + struct.unpack("<q", whole[32:40])[0]]
    sliced = struct.pack("<q3d5q", 2, 0, 0, 0, 0, 2**30, 16, 2**30, 0)
    sizes = struct.pack("<3q", 2**30, 2**30, 1)
    with pytest.raises(pyflow.FileError, match="damaged"):
        pyflow.Model.from_bytes(resealed(header + sizes + sliced + struct.pack("<2q8x", 0, 0)))


def test_a_newer_format(small):
    whole = bytearray(small.to_bytes())
    whole[8:16] = struct.pack("<q", 2**31)
    for data in (whole, resealed(whole)):
        with pytest.raises(pyflow.FileError, match="newer pyflow"):
            pyflow.Model.from_bytes(bytes(data))


def test_something_else(tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, np.zeros(100))
    with pytest.raises(pyflow.FileError, match=r"table\.npy: this is not a pyflow model"):
        pyflow.load(path)
    with pytest.raises(FileNotFoundError):
        pyflow.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        pyflow.load(tmp_path)
    with pytest.raises(pyflow.FileError):
        pyflow.Model.from_bytes(b"")
    with pytest.raises(TypeError):
        pyflow.Model.from_bytes("text")
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
    os.chmod(path, 0o600)
    model32.save(path)
    assert pyflow.load(path) == model32
    assert os.listdir(tmp_path) == ["model"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666 & ~mask
