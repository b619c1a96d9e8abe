"""Plans of Fourier transforms: estimated and measured ones, and what FFTW knows, in files."""

import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow

MESHES = (24, 20), (6, 10, 9)


@pytest.fixture(autouse=True)
def estimated_afterwards():
    yield
    pyflow.measure_ffts(False)


@pytest.fixture(scope="module")
def flows():
    """Flows of either precision, as bytes, with fields."""
    made = []
    for mesh in MESHES:
        for dtype in (np.float32, np.float64):
            x = pyflow.fields.gaussian_field(lambda k: 1 / k, mesh, 20, seed=1).astype(dtype)
            made.append((pyflow.SymmetricFlow(x, epochs=1, verbose=False).to_bytes(), x))
    return made


def latent(flows):
    return [pyflow.Flow.from_bytes(data).forward(x)[0] for data, x in flows]


def test_measured_plans_give_the_same_within_rounding(flows):
    estimated = latent(flows)
    pyflow.measure_ffts(True)
    for measured, expected in zip(latent(flows), estimated, strict=True):
        tolerance = 1e-4 if measured.dtype == np.float32 else 1e-12
        assert_allclose(measured, expected, rtol=tolerance, atol=tolerance)
    pyflow.measure_ffts(False)
    for again, expected in zip(latent(flows), estimated, strict=True):
        assert_array_equal(again, expected)


def in_another_process(folder, flows, script):
    """Run a script there in which `flows` and `latent` are as here; return the arrays it saves."""
    np.savez(
        folder / "flows.npz",
        **{f"x{i}": x for i, (_, x) in enumerate(flows)},
        **{f"b{i}": np.frombuffer(data, np.uint8) for i, (data, _) in enumerate(flows)},
    )
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
import numpy as np, pyflow
from pathlib import Path
folder = Path({str(folder)!r})
saved = np.load(folder / "flows.npz")
flows = [(saved[f"b{{i}}"].tobytes(), saved[f"x{{i}}"]) for i in range({len(flows)})]

def latent(flows):
    return [pyflow.Flow.from_bytes(data).forward(x)[0] for data, x in flows]

def keep(name, arrays):
    np.savez(folder / name, *arrays)
{textwrap.dedent(script)}
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def arrays(path):
    with np.load(path) as saved:
        return list(saved.values())


def test_wisdom_goes_to_another_process(flows, tmp_path):
    """There plans are those measured here; and estimated ones know nothing of it."""
    in_another_process(
        tmp_path,
        flows,
        """
        pyflow.measure_ffts(True)
        keep("first.npz", latent(flows))
        pyflow.save_wisdom(folder / "wisdom")
        """,
    )
    in_another_process(
        tmp_path,
        flows,
        """
        pyflow.save_wisdom(folder / "none")
        pyflow.load_wisdom(folder / "wisdom")
        keep("estimated.npz", latent(flows))
        pyflow.save_wisdom(folder / "loaded")
        pyflow.measure_ffts(True)
        keep("second.npz", latent(flows))
        pyflow.save_wisdom(folder / "used")
        """,
    )
    none, wisdom, loaded, used = (
        set((tmp_path / name).read_text().splitlines())
        for name in ("none", "wisdom", "loaded", "used")
    )
    assert len(wisdom) > len(none) + 4 * len(MESHES)
    assert wisdom == loaded == used
    for first, second in zip(
        arrays(tmp_path / "first.npz"), arrays(tmp_path / "second.npz"), strict=True
    ):
        assert_array_equal(first, second)
    for estimated, here in zip(arrays(tmp_path / "estimated.npz"), latent(flows), strict=True):
        assert_array_equal(estimated, here)


def test_damaged_wisdom_leaves_a_fresh_process_as_it_was(flows, tmp_path):
    """What it holds of one precision is not taken either; the good file is, afterwards."""
    in_another_process(
        tmp_path,
        flows,
        """
        pyflow.measure_ffts(True)
        latent(flows)
        pyflow.save_wisdom(folder / "wisdom")
        """,
    )
    text = (tmp_path / "wisdom").read_text()
    second = text.index("\n(fftw") + 1
    single, double = text[:second], text[second:]
    damaged = {
        "single": single,
        "double": double,
        "single, half of double": single + double[: len(double) // 2],
        "single, a line of double": single + double[: double.index("\n", 1) + 1],
        "half of single, double": single[: len(single) // 2] + "\n" + double,
        "of another version": text.replace("(fftw", "(fftx"),
        "double, of another version": single + double.replace("(fftw-", "(fftw-9"),
    }
    for i, wrong in enumerate(damaged.values()):
        assert wrong != text
        (tmp_path / f"damaged{i}").write_text(wrong)
    in_another_process(
        tmp_path,
        flows,
        f"""
        pyflow.save_wisdom(folder / "before")
        for i in range({len(damaged)}):
            try:
                pyflow.load_wisdom(folder / f"damaged{{i}}")
            except pyflow.FileError:
                pyflow.save_wisdom(folder / f"after{{i}}")
        keep("estimated.npz", latent(flows))
        pyflow.load_wisdom(folder / "wisdom")
        pyflow.save_wisdom(folder / "loaded")
        """,
    )

    def lines(name):
        return sorted((tmp_path / name).read_text().splitlines())

    assert len(lines("before")) < len(lines("wisdom")) == len(lines("loaded"))
    for i, what in enumerate(damaged):
        assert (tmp_path / f"after{i}").exists(), f"{what} was taken"
        assert lines(f"after{i}") == lines("before"), what
    assert lines("loaded") == lines("wisdom")
    for estimated, here in zip(arrays(tmp_path / "estimated.npz"), latent(flows), strict=True):
        assert_array_equal(estimated, here)


def test_bad_files(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(OSError, match=f"cannot read {missing}: No such file"):
        pyflow.load_wisdom(missing)
    with pytest.raises(OSError, match=f"cannot write {tmp_path}/none/wisdom: No such file"):
        pyflow.save_wisdom(tmp_path / "none" / "wisdom")
    good = tmp_path / "good"
    pyflow.save_wisdom(good)
    text = good.read_text()
    bad = tmp_path / "bad"
    halves = text.index("\n(fftw") + 1
    for damaged in ("", "nonsense", text[:halves], text[:-3], text[halves:] + text[:halves]):
        bad.write_text(damaged)
        with pytest.raises(pyflow.FileError, match=f"{bad} is damaged, or not wisdom"):
            pyflow.load_wisdom(bad)
        pyflow.save_wisdom(bad)
        assert sorted(bad.read_text().splitlines()) == sorted(text.splitlines())
    with pytest.raises(TypeError):
        pyflow.load_wisdom(3)
    with pytest.raises(TypeError, match="on: "):
        pyflow.measure_ffts("yes")


def test_planning_while_another_thread_transforms(flows, tmp_path):
    """Meshes that are new, measured, in some threads; a known one transformed in another."""
    data, x = flows[0]
    flow = pyflow.Flow.from_bytes(data)
    expected = flow.forward(x)[0]
    pyflow.measure_ffts(True)
    stop, failures, rounds = threading.Event(), [], 0

    def plan(first):
        try:
            for n in range(first, first + 6):
                fields = np.random.default_rng(n).normal(size=(4, n, 7))
                model = pyflow.SymmetricFlow(fields, epochs=0, verbose=False)
                back = model.inverse(model.forward(fields)[0])[0]
                assert_allclose(back, fields, atol=1e-6)
                pyflow.save_wisdom(tmp_path / f"wisdom{first}")
                pyflow.load_wisdom(tmp_path / f"wisdom{first}")
        except BaseException as error:
            failures.append(error)

    def transform():
        nonlocal rounds
        while not stop.is_set() or not rounds:
            rounds += 1
            if not np.array_equal(flow.forward(x)[0], expected):
                failures.append(rounds)

    planners = [threading.Thread(target=plan, args=(first,)) for first in (30, 50)]
    other = threading.Thread(target=transform)
    for thread in (other, *planners):
        thread.start()
    for thread in planners:
        thread.join()
    stop.set()
    other.join()
    assert not failures
