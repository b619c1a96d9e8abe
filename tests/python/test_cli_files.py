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
    "names that are numbers": ("0,1\n5,6\n", {"0": [5], "1": [6]}),
    "one name that is a number": ("0\n0.5\n", {"0": [0.5]}),
    "a column of whole numbers": ("0\n3\n", [[0], [3]]),
    "numbers that are no names": ("0,1.0\n5,6\n", [[0, 1], [5, 6]]),
    "# within a line": ("id,a\nA#1,1\n#2 of B,2\nB#2,3\n", {"id": ["A#1", "B#2"], "a": [1, 3]}),
    "comments among rows": ("a,b\n1,2\n# 3,4\n  #\n5,6\n", {"a": [1, 5], "b": [2, 6]}),
    "comments above names": ("# of a survey\n# here\na,b\n1,2\n", {"a": [1], "b": [2]}),
    "comments above numbers": ("# of a survey\n1,2\n", [[1, 2]]),
    "a comment is the header of text": ("# id,a\nx,1\n", {"id": ["x"], "a": [1]}),
    "a comment alone": ("# a,b\n", {"a": [], "b": []}),
    "a row that is left out": ("# 1,2\n3,4\n", [[3, 4]]),
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


@pytest.mark.parametrize("d", [1, 3])
def test_columns_without_names_of_pandas(tmp_path, d):
    pandas = pytest.importorskip("pandas")
    x = np.random.default_rng(0).normal(size=(N, d))
    pandas.DataFrame(x).to_csv(tmp_path / "x.csv", index=False)
    back = _files.read(f"{tmp_path}/x.csv")
    assert list(back) == [str(j) for j in range(d)]
    assert_array_equal(_files.stacked(back).reshape(N, d), x)


def test_what_numpy_writes(tmp_path):
    x = np.random.default_rng(0).normal(size=(N, 2))
    np.savetxt(tmp_path / "x.csv", x, delimiter=",", header="a,b")
    back = _files.read(f"{tmp_path}/x.csv")
    assert_array_equal(np.stack([back["a"], back["b"]], axis=1), x)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "x.csv: is empty"),
        ("x.csv", "# 1\n", "x.csv: is empty"),
        ("x.csv", "a,b\n1,2 # here\n3\n", "x.csv: .*columns"),
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


PARTS = {"npz": None, "fits": "astropy", "fits.gz": "astropy", "h5": "h5py"}


@pytest.mark.parametrize("suffix", PARTS)
def test_a_part_is_written_beside_the_others(tmp_path, suffix):
    if PARTS[suffix]:
        pytest.importorskip(PARTS[suffix])
    name, x = f"{tmp_path}/x.{suffix}", columns()
    for part, factor in (("a", 1), ("b", 2), ("a", 3)):
        _files.write(f"{name}:{part}", {k: factor * v for k, v in x.items()})
    for part, factor in (("a", 3), ("b", 2)):
        back = _files.read(f"{name}:{part}")
        assert list(back) == list(x)
        for k, v in x.items():
            assert_array_equal(back[k], factor * v)
    with pytest.raises((KeyError, ValueError)):
        _files.read(f"{name}:c")
    assert os.listdir(tmp_path) == [f"x.{suffix}"]


def test_other_arrays_of_an_archive_stay(tmp_path):
    name = f"{tmp_path}/x.npz"
    np.savez_compressed(name, a=np.arange(3), b=np.eye(2))
    _files.write(f"{name}:c", np.ones((2, 3)))
    _files.write(f"{name}:a", np.zeros((1, 2)))
    with np.load(name) as file:
        assert sorted(file) == ["a", "b", "c"]
        assert_array_equal(file["b"], np.eye(2))
        assert_array_equal(file["c"], np.ones((2, 3)))
        assert_array_equal(file["a"], np.zeros((1, 2)))
    _files.write(name, {"file": np.arange(2)})  # which savez takes for its own
    assert_array_equal(_files.read(name)["file"], [0, 1])


def test_other_extensions_stay(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    name = f"{tmp_path}/x.fits"
    image = fits.ImageHDU(np.arange(6.0).reshape(2, 3), name="MAP")
    image.scale("int16", bscale=0.5)
    image.header["NOTE"] = "kept"
    packed = fits.CompImageHDU(np.arange(64.0).reshape(8, 8), name="PACKED")
    table = fits.BinTableHDU(np.rec.fromarrays([np.arange(4)], names=["a"]), name="OLD")
    primary = fits.PrimaryHDU(np.eye(2))
    primary.header["SURVEY"] = "x"
    fits.HDUList([primary, image, packed, table]).writeto(name)
    with fits.open(name, do_not_scale_image_data=True) as file:
        assert file["MAP"].header["BSCALE"] == 0.5
        before = [hdu.data.copy() for hdu in file[:3]]
    _files.write(f"{name}:3", {"z": np.ones(2)})  # by its number: the name stays
    _files.write(f"{name}:new", {"y": np.zeros(2)})
    _files.write(f"{name}:5", {"w": np.zeros(1)})
    with fits.open(name, do_not_scale_image_data=True) as file:
        assert [hdu.name for hdu in file] == ["PRIMARY", "MAP", "PACKED", "OLD", "NEW", ""]
        for hdu, x in zip(file[:3], before, strict=True):
            assert_array_equal(hdu.data, x)
        assert (file[0].header["SURVEY"], file["MAP"].header["NOTE"]) == ("x", "kept")
        assert file["MAP"].header["BSCALE"] == 0.5
    assert list(_files.read(f"{name}:old")) == ["z"]
    for part in ("0", "7", "primary"):
        with pytest.raises(ValueError, match=f"x.fits:{part}: a table is an extension from 1 to 6"):
            _files.write(f"{name}:{part}", {"z": np.ones(2)})
    assert list(_files.read(f"{name}:new")) == ["y"]


def test_a_group_with_others_is_not_replaced(tmp_path):
    pytest.importorskip("h5py")
    name = f"{tmp_path}/x.h5"
    _files.write(f"{name}:a/b", columns())
    with pytest.raises(ValueError, match="x.h5:a: 'a' holds other tables: b"):
        _files.write(f"{name}:a", columns())
    with pytest.raises(ValueError, match="x.h5:a/b/n/c: "):  # which is a data set
        _files.write(f"{name}:a/b/n/c", columns())
    assert_array_equal(_files.read(f"{name}:a/b")["n"], np.arange(N))


def test_links_stay_links(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "x.csv").symlink_to("folder/real.csv")
    for x in (np.arange(2.0), np.arange(3.0)):  # the first makes the file
        _files.writable(f"{tmp_path}/x.csv")
        _files.write(f"{tmp_path}/x.csv", {"a": x})
        assert (tmp_path / "x.csv").is_symlink()
        assert not (tmp_path / "folder/real.csv").is_symlink()
        assert_array_equal(_files.read(f"{tmp_path}/folder/real.csv")["a"], x)
    (tmp_path / "y.csv").symlink_to("nowhere/real.csv")
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        _files.writable(f"{tmp_path}/y.csv")


SAME = {
    ("x.csv", "x.csv"): True,
    ("x.csv", "link.csv"): True,
    ("x.csv", "other.csv"): False,
    ("-", "x.csv"): False,
    ("model.pyflow", "model.pyflow"): True,
    ("nothing", "x.csv"): False,
    ("x.npz:a", "x.npz"): True,  # all of it is written over
    ("x.npz:a", "x.npz:a"): True,
    ("x.npz:a", "x.npz:b"): False,
    ("x.npz", "x.npz:a"): True,
    ("x.npz", "x.npz:new"): False,
    ("x.fits", "x.fits:A"): True,  # the first table
    ("x.fits", "x.fits:b"): False,
    ("x.fits:a", "x.fits:1"): True,
    ("x.fits:a", "x.fits:2"): False,
    ("x.fits:a", "x.fits:new"): False,
    ("x.h5:g/a", "x.h5:/g/a/"): True,
    ("x.h5:g/a", "x.h5:g"): True,  # which holds it
    ("x.h5:g/a", "x.h5:g/b"): False,
    ("x.h5:g/a", "x.h5:g/a/n"): True,  # a column of it
    ("x.h5:g/a", "x.h5:g/a/new"): False,
    ("x.h5:g/a", "x.h5:g/aa"): False,
    ("x.h5", "x.h5:g"): True,
    ("x.h5", "x.h5:new"): False,
}


@pytest.mark.parametrize(("given", "output"), SAME)
def test_the_table_that_is_read_is_told_from_others(tmp_path, monkeypatch, given, output):
    monkeypatch.chdir(tmp_path)
    kind = _files.place(output)[0] if output != "model.pyflow" else None
    if kind in _files.NEEDS:
        pytest.importorskip(_files.NEEDS[kind])
        for part in ("a", "b"):
            _files.write(
                f"{output.split(':')[0]}:{'g/' if kind == 'hdf5' else ''}{part}", columns()
            )
    np.savez("x.npz", a=np.eye(2), b=np.eye(2))
    for name in ("x.csv", "other.csv", "model.pyflow"):
        (tmp_path / name).touch()
    (tmp_path / "link.csv").symlink_to("x.csv")
    assert _files.same(given, output) is SAME[given, output]


def test_a_name_with_a_blank_is_one_column_of_text(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("galaxy type\nspiral\nelliptical\n")
    assert list(_files.read(str(path))["galaxy type"]) == ["spiral", "elliptical"]
    path.write_text("a b\n1 2\n3 x\n")
    with pytest.raises(ValueError, match="has blanks between columns in place of commas"):
        _files.read(str(path))
