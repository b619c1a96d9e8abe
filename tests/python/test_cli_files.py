"""Files of tables that the command line reads and writes."""

import os

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pyflow import _files

N = 50
FORMATS = {
    "csv": None,
    "npz": None,
    "fits": "astropy",
    "h5": "h5py",
    "h5:group/set": "h5py",
    "parquet": "pyarrow",
}


def columns():
    rng = np.random.default_rng(0)
    return {"a": rng.normal(size=N), "b": rng.normal(size=N), "n": np.arange(N)}


@pytest.mark.parametrize("suffix", FORMATS)
def test_tables_come_back_as_they_were_written(tmp_path, suffix):
    if FORMATS[suffix]:
        pytest.importorskip(FORMATS[suffix])
    x = columns()
    name = f"{tmp_path}/x.{suffix}"
    _files.write(name, x)
    back = _files.read(name)
    assert list(back) == ["a", "b", "n"]
    for k in x:
        assert_array_equal(back[k], x[k])
        assert back[k].dtype.isnative
    assert os.listdir(tmp_path) == [f"x.{suffix}".split(":")[0]]  # and nothing beside it


@pytest.mark.parametrize("suffix", ["npy", "npz", "h5"])
def test_arrays_of_any_shape_come_back(tmp_path, suffix):
    if suffix == "h5":
        pytest.importorskip("h5py")
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    _files.write(f"{tmp_path}/x.{suffix}", x)
    assert_array_equal(_files.read(f"{tmp_path}/x.{suffix}"), x, strict=True)


def test_structured_arrays_are_tables(tmp_path):
    x = np.rec.fromarrays([np.arange(3.0).astype(">f8"), np.arange(3)], names=["a", "b"])
    np.save(tmp_path / "x.npy", np.asarray(x), allow_pickle=False)
    back = _files.read(f"{tmp_path}/x.npy")
    assert_array_equal(back["a"], [0, 1, 2])
    assert back["a"].dtype == np.float64


def test_one_data_set_beside_others(tmp_path):
    h5py = pytest.importorskip("h5py")
    name = f"{tmp_path}/x.h5"
    with h5py.File(name, "w") as file:
        file["deep/one"] = np.eye(3)
        file["two"] = np.arange(6.0).reshape(3, 2)
        file["pairs"] = np.array([(1, 2.0)], dtype=[("a", int), ("b", float)])
    assert_array_equal(_files.read(f"{name}:deep/one"), np.eye(3))
    assert_array_equal(_files.read(f"{name}:deep"), np.eye(3))
    assert list(_files.read(f"{name}:pairs")) == ["a", "b"]
    with pytest.raises(ValueError, match=r"x.h5: name one of .*two"):
        _files.read(name)
    with pytest.raises(ValueError, match="no 'three' among"):
        _files.read(f"{name}:three")
    _files.write(f"{name}:two", np.eye(2))
    assert_array_equal(_files.read(f"{name}:two"), np.eye(2))
    assert_array_equal(_files.read(f"{name}:deep/one"), np.eye(3))  # the others stay


def test_extensions_of_fits(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    first, second = (
        fits.BinTableHDU(np.rec.fromarrays([np.full(2, v)], names=["a"]), name=name)
        for v, name in ((1.0, "ONE"), (2.0, "TWO"))
    )
    image = fits.PrimaryHDU(np.eye(3))
    fits.HDUList([image, first, second]).writeto(tmp_path / "x.fits")
    name = f"{tmp_path}/x.fits"
    for part, value in (("", 1), (":ONE", 1), (":2", 2), (":two", 2)):
        assert_array_equal(_files.read(name + part)["a"], [value] * 2)
    assert_array_equal(_files.read(f"{name}:0"), np.eye(3))


TEXTS = {
    "names": ("a,b\n1,2\n3,4\n", {"a": [1, 3], "b": [2, 4]}),
    "a comment": ("# a, b\n1, 2\n", {"a": [1], "b": [2]}),
    "quotes, other line ends": ('"a, b",c\r\n1,2\r\n', {"a, b": [1], "c": [2]}),
    "a mark of the byte order": ("\ufeffa\n1\n", {"a": [1]}),
    "no names": ("1,2\n3,4\n", [[1, 2], [3, 4]]),
    "text beside numbers": ("id,a\nx,1\ny,\n", {"id": ["x", "y"], "a": [1, np.nan]}),
    "no rows": ("a,b\n", {"a": [], "b": []}),
    "infinity": ("a\n-inf\n", {"a": [-np.inf]}),
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS)
def test_csv(tmp_path, text, expected):
    (tmp_path / "x.csv").write_bytes(text.encode())
    back = _files.read(f"{tmp_path}/x.csv")
    if isinstance(expected, list):
        assert_array_equal(back, expected)
    else:
        assert list(back) == list(expected)
        for k, v in expected.items():
            assert_array_equal(back[k], v)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "x.csv: is empty"),
        ("x.csv", "a,b\n1,2\n3\n", "x.csv: .*columns"),
        ("x.csv", "a,a\n1,2\n", "two of its columns are called 'a'"),
        ("x.npy", "no array", "x.npy: "),
        ("x.npz", "no archive", "x.npz: "),
        ("x.doc", "", "x.doc: its suffix is none of .csv, .npy"),
        ("x.csv:part", "", "has no parts"),
    ],
)
def test_files_that_are_no_tables(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name.split(":")[0]).write_text(content)
    with pytest.raises(ValueError, match=message):
        _files.read(name)


def test_what_fails_while_it_is_written_leaves_the_old_file(tmp_path):
    name = f"{tmp_path}/x.csv"
    _files.write(name, {"a": np.arange(3.0)})
    with pytest.raises(ValueError, match="shorter"):
        _files.write(name, {"a": np.arange(3.0), "b": np.arange(2.0)})
    assert_array_equal(_files.read(name)["a"], [0, 1, 2])
    assert os.listdir(tmp_path) == ["x.csv"]
