"""Any array of real numbers will do, and none is changed."""

import gc
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.testing import assert_array_equal

import pyflow

REAL = "?bBhHiIlLqQefdg"


@st.composite
def layouts(draw, values):
    """The same numbers in some dtype, byte order, order in memory, stride, and writable or not."""
    type_code = draw(st.sampled_from(REAL))
    order = draw(st.sampled_from("<>"))
    dtype = np.dtype(type_code).newbyteorder(order)
    n, d = values.shape
    kind = draw(st.sampled_from(["C", "F", "rows", "columns", "backwards", "offset", "unaligned"]))
    if dtype.kind in "bu":
        values = np.abs(values)
    with np.errstate(invalid="ignore"):
        plain = np.array(values, dtype)
    if kind == "C":
        x = plain
    elif kind == "F":
        x = np.asfortranarray(plain)
    elif kind == "rows":
        x = np.repeat(plain, 3, axis=0)[1::3]
    elif kind == "columns":
        x = np.repeat(plain, 2, axis=1)[:, ::2]
    elif kind == "backwards":
        x = plain[::-1, ::-1].copy()[::-1, ::-1]
    elif kind == "offset":
        x = np.zeros((n + 2, d + 2), dtype)
        x = x[1:-1, 1:-1]
        x[:] = plain
    else:
        buffer = np.zeros(plain.nbytes + 1, np.uint8)
        x = buffer[1:].view(dtype).reshape(n, d)
        x[:] = plain
    x.flags.writeable = draw(st.booleans())
    return x


def points(rows, columns, low=-3, high=3):
    return npst.arrays(
        np.float64, st.tuples(rows, st.just(columns)), elements=st.integers(low, high)
    )


@given(data=st.data())
def test_evaluation_sees_the_numbers_alone(model, model32, data):
    x = data.draw(layouts(data.draw(points(st.integers(0, 20), 3))))
    before = x.tobytes()
    for each, dtype in ((model, np.float64), (model32, np.float32)):
        plain = np.ascontiguousarray(x, dtype=dtype)
        assert_array_equal(each.evaluate_density(x), each.evaluate_density(plain))
        for method in ("forward", "inverse"):
            for a, b in zip(getattr(each, method)(x), getattr(each, method)(plain), strict=True):
                assert_array_equal(a, b)
        assert_array_equal(each.score(x), each.score(plain))
    assert x.tobytes() == before


@given(data=st.data())
def test_fits_see_the_numbers_alone(data):
    values = np.random.default_rng(data.draw(st.integers(0, 5))).integers(0, 100, size=(60, 2))
    x = data.draw(layouts(values))
    if x.dtype.kind == "b":
        return
    before = x.tobytes()
    model = pyflow.GIS(x[20:], x[:20], max_layers=2, verbose=False)
    assert x.tobytes() == before
    dtype = np.float32 if x.dtype.kind == "f" and x.dtype.itemsize <= 4 else np.float64
    assert model.dtype == dtype
    plain = np.ascontiguousarray(x, dtype=dtype)
    other = pyflow.GIS(plain[20:], plain[:20], max_layers=2, verbose=False)
    assert_array_equal(model.evaluate_density(plain), other.evaluate_density(plain))


@given(data=st.data())
def test_vectors_in_any_layout(data):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(50, 2)), rng.integers(1, 5, size=(50, 1))
    laid = data.draw(layouts(weight))[:, 0]
    before = laid.tobytes()
    a = pyflow.GIS(x, weight_train=laid, max_layers=2, verbose=False)
    b = pyflow.GIS(x, weight_train=laid.astype(np.float64), max_layers=2, verbose=False)
    assert_array_equal(a.evaluate_density(x), b.evaluate_density(x))
    assert laid.tobytes() == before


@pytest.mark.filterwarnings("ignore:data_train. .*equal values")
@given(
    x=npst.arrays(
        st.sampled_from([np.float32, np.float64]),
        npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30),
        elements=st.sampled_from([-1e30, -2.5, -1, 0, 0, 0, 1, 1, 3, 1e-30, np.nan, np.inf]),
    )
)
def test_ties_outliers_and_nan_never_give_nan(x):
    """A fit either works, and everything that comes out is finite, or names what is wrong."""
    try:
        model = pyflow.GIS(x, max_layers=2, verbose=False)
    except ValueError as error:
        assert str(error).startswith("data_train: ")  # noqa: PT017
        return
    assert np.isfinite(x).all()
    samples, logp = model.sample(50, seed=0)
    assert not np.isnan(samples).any()
    assert not np.isnan(logp).any()
    assert not np.isnan(model.evaluate_density(x)).any()


@given(data=st.data(), bad=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_number_that_is_not_finite_is_found(model, data, bad):
    x = data.draw(points(st.integers(1, 700), 3))
    i, j = data.draw(st.integers(0, len(x) - 1)), data.draw(st.integers(0, 2))
    x[i, j] = bad
    word = "NaN" if np.isnan(bad) else "infinite"
    with pytest.raises(ValueError, match=f"^x: row {i}, column {j} is {word}$"):
        model.evaluate_density(x)


# ---- arrays that are not in memory ---------------------------------------------------------------


class Shelf:
    """A table as HDF5 and Zarr show it: it can be cut, and counts what is read."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.most = x, x.shape, x.dtype, 0

    def __getitem__(self, key):
        part = self.x[key]
        self.most = max(self.most, len(part))
        return part.tolist() if len(part) % 2 else part  # any array-like will do

    def __len__(self):
        return len(self.x)


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "i2"])
def test_memory_maps_are_read_in_blocks(tmp_path, dtype):
    x = np.random.default_rng(0).normal(scale=50, size=(3000, 3)).astype(dtype)
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", dtype=dtype, mode="r", shape=x.shape)
    shelf = Shelf(x)
    plain = pyflow.GIS(x[500:], x[:500], max_layers=3, verbose=False)
    for data in (mapped, mapped[:], np.asarray(mapped), shelf):
        model = pyflow.GIS(data[500:], data[:500], max_layers=3, verbose=False, scratch=tmp_path)
        assert_array_equal(model.evaluate_density(data), plain.evaluate_density(x))
    assert shelf.most < 1000 or len(x) == shelf.most  # the last evaluation may read it in one go
    assert os.listdir(tmp_path) == ["x"]


def test_rows_that_cannot_be_read(train):
    class Broken(Shelf):
        def __getitem__(self, key):
            if key.start > 300:
                raise ZeroDivisionError("the shelf broke")
            return super().__getitem__(key)

    with pytest.raises(ZeroDivisionError, match="the shelf broke"):
        pyflow.GIS(Broken(train), max_layers=2, verbose=False)

    class Short(Shelf):
        def __getitem__(self, key):
            return self.x[key.start : key.start + 1]

    with pytest.raises(ValueError, match=r"data_train: points .* did not come as"):
        pyflow.GIS(Short(train), max_layers=2, verbose=False)
    assert pyflow.GIS(train, max_layers=1, verbose=False)


def test_long_tables_are_converted_in_chunks(model):
    """Rows beyond the first chunk come out right, and keep their numbers in messages."""
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, size=(800_000, 3)).astype(np.int8)
    few = np.r_[0:5, 650_000:650_005, len(x) - 5 : len(x)]
    assert_array_equal(model.evaluate_density(x)[few], model.evaluate_density(x[few]))
    x = x.astype(np.float16)
    x[-1, 1] = np.nan
    with pytest.raises(ValueError, match=r"x: row (\d+), column 1 is NaN.*number (\d+)") as error:
        model.evaluate_density(x)
    import re

    assert sum(int(n) for n in re.findall(r"(?:row|number) (\d+)", str(error.value))) == len(x) - 1


# ---- results and memory --------------------------------------------------------------------------


def test_results_are_new_arrays(model, test):
    for result in (*model.forward(test), *model.inverse(test), model.score(test)):
        assert not np.shares_memory(result, test)
        result[...] = 0
    assert model.history["logp_train"] is not model.history["logp_train"]


def test_references_are_given_back(model, test):
    weight = np.ones(len(test))
    counts = [sys.getrefcount(a) for a in (test, weight, model._core)]
    for _ in range(3):
        model.evaluate_density(test)
        model.score(test[:, ::-1])
        pyflow.GIS(
            test, 1.01 * test, weight_train=weight, model=model, max_layers=12, verbose=False
        )
        with pytest.raises(ValueError, match="weight"):
            pyflow.GIS(test, weight_train=weight[:-1], max_layers=1, verbose=False)
        with pytest.raises(ValueError, match="x: "):
            model.evaluate_density(test[:, :2])
    assert [sys.getrefcount(a) for a in (test, weight, model._core)] == counts


def resident():
    """Bytes of memory that this process holds."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_does_not_grow():
    """Every round makes and drops about 10 MB, in each of the ways that arrays come and go."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100_000, 4))
    swapped = (1.01 * x).astype(">f8")
    label = np.arange(len(x)) % 2
    model = pyflow.GIS(x[:500], max_layers=1, verbose=False)
    long = pyflow.GIS(x[:500], max_layers=20, slice_steps=0, n_knots=200, verbose=False)
    few = {"max_layers": 1, "slice_steps": 0, "n_knots": 10, "verbose": False}

    def round_(i):
        fitted = pyflow.GIS(x, swapped, labels=label, labels_validate=label, **few)
        fitted.evaluate_density(x, label)
        model.forward(swapped)
        model.score(x)
        model.sample(len(x), seed=i)
        for _ in range(10):
            pyflow.Flow.from_bytes(long.to_bytes())
        for bad in (x[:, :3], x * np.nan):
            with pytest.raises(ValueError, match="x: "):
                model.evaluate_density(bad)
        with pytest.raises(ValueError, match="data_train: "):
            pyflow.GIS(x * [1, 1, 1, 0], **few)

    for i in range(5):
        round_(i)
    before = resident()
    for i in range(25):
        round_(i)
    assert resident() - before < 25e6  # one array of each round would be 80 MB
