"""The command line, run as its users run it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pyflow
from pyflow import _cli, _commands, _files

N = 300


def table(n=N, seed=0):
    """Columns a and b = a^2 + y + noise, y, and weights w."""
    rng = np.random.default_rng(seed)
    a, y, w = rng.normal(size=n), rng.uniform(-1, 1, n), rng.uniform(1, 2, n)
    return {"a": a, "b": a**2 + y + 0.3 * rng.normal(size=n), "y": y, "w": w}


def columns(*names):
    found = table()
    return {name: found[name] for name in names}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; return its exit code and what it wrote."""
    monkeypatch.chdir(tmp_path)

    def command(*argv, code=0):
        capsys.readouterr()
        found = _cli.main([*map(str, argv)])
        out, err = capsys.readouterr()
        assert found == code, err
        return out, err

    return command


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a table and models of it: of a and b, and of both given y."""
    folder = tmp_path_factory.mktemp("cli")
    path = {name: str(folder / name) for name in ("t.csv", "m.pf", "y.pf")}
    x = table()
    _files.write(path["t.csv"], x)
    ab = {k: x[k] for k in "ab"}
    pyflow.GIS(ab, max_layers=2, verbose=False).save(path["m.pf"])
    argv = ["fit", path["t.csv"], "-o", path["y.pf"], "--columns", "a,b", "--condition", "y"]
    assert _cli.main([*argv, "--n-models", "1", "--quiet"]) == 0
    return path


# ---- commands ------------------------------------------------------------------------------------


def test_fit_is_the_library_s(run, files):
    out, err = run("fit", files["t.csv"], "-o", "m.pf", "--columns", "a,b", "--max-layers", 2)
    assert re.match(r"GIS: layer \d+/5, 0 s, log p .*, validation ", err)
    assert out.startswith("m.pf: pyflow.Flow(shape=(2,)")
    model = pyflow.load("m.pf")
    rows = np.random.default_rng(0).permutation(N)
    held, kept = np.sort(rows[: N // 5]), np.sort(rows[N // 5 :])
    x = columns("a", "b")
    train, validate = ({k: v[part] for k, v in x.items()} for part in (kept, held))
    assert model == pyflow.GIS(train, validate, max_layers=2, verbose=False)
    assert model.columns == ("a", "b")


def test_fit_with_all_that_it_takes(run, files):
    _files.write("v.npz", table(100, seed=1))
    how = ["--validate", "v.npz", "--weights", "w", "--columns", "a,y", "--bounds", "y=-1,1"]
    how += ["--max-layers", 2, "--patience", 3, "--seed", 4, "--threads", 1, "--checkpoint", "c"]
    before = pyflow.get_num_threads()
    out, err = run("fit", files["t.csv"], "-o", "m.pf", *how, "--json")
    pyflow.set_num_threads(before)
    found, model = json.loads(out), pyflow.load("m.pf")
    assert err.startswith("GIS: layer ")
    x, v = table(), table(100, seed=1)
    same = pyflow.GIS(
        {k: x[k] for k in "ay"},
        {k: v[k] for k in "ay"},
        weight_train=x["w"],
        weight_validate=v["w"],
        bounds=[(None, None), (-1, 1)],
        max_layers=2,
        patience=3,
        seed=4,
        verbose=False,
    )
    assert model == same == pyflow.load("c")
    assert found["rows_train"] == N
    assert found["rows_validate"] == 100
    assert_allclose(found["logp_validate"], model.history["logp_validate"][-1])


def test_fit_without_validation_rows(run, files):
    how = ["--validation-fraction", 0, "--max-layers", 2, "--columns", "a,b", "--quiet"]
    assert run("fit", files["t.csv"], "-o", "m.pf", *how) == ("", "")
    assert pyflow.load("m.pf") == pyflow.load(files["m.pf"])


def test_arrays_have_numbered_columns(run):
    x = np.stack(list(columns("a", "b", "w").values()), axis=1)
    np.save("x.npy", x)
    how = ["--validation-fraction", 0, "--max-layers", 2, "--weights", 2, "--bounds", "1=-9,"]
    run("fit", "x.npy", "-o", "m.pf", "--quiet", *how)
    options = {"bounds": [(None, None), (-9, None)], "weight_train": x[:, 2]}
    model = pyflow.GIS(x[:, :2], max_layers=2, verbose=False, **options)
    assert pyflow.load("m.pf") == model
    run("logp", "m.pf", "x.npy", "--columns", "1,0", "-o", "l.npy")
    assert_array_equal(np.load("l.npy"), model.evaluate_density(x[:, [1, 0]]))
    run("sample", "m.pf", 5, "--seed", 3, "-o", "s.npy")
    assert_array_equal(np.load("s.npy"), model.sample(5, seed=3)[0])


def test_logp_and_sample_agree_with_the_model(run, files):
    model, x = pyflow.load(files["m.pf"]), columns("a", "b")
    out, err = run("logp", files["m.pf"], files["t.csv"])
    name, *logs = out.splitlines()
    assert (name, err) == ("logp", "")
    assert_array_equal(np.array(logs, float), model.evaluate_density(x))
    out, _ = run("logp", files["m.pf"], files["t.csv"], "-o", "l.npz", "--json")
    found = json.loads(out)
    assert found["rows"] == N
    assert found["mean_logp"] == model.evaluate_density(x).mean()
    run("sample", files["m.pf"], 7, "--seed", 5, "--logp", "-o", "s.csv")
    points, logs = model.sample(7, seed=5)
    back = _files.read("s.csv")
    assert list(back) == ["a", "b", "logp"]
    assert_array_equal(back["b"], points[:, 1])
    assert_array_equal(back["logp"], logs)


def test_rows_outside_the_bounds(run):
    _files.write("x.csv", {"a": np.linspace(0, 1, 50) ** 2})
    how = ["--validation-fraction", 0, "--max-layers", 1, "--bounds=a=0,1", "--quiet"]
    run("fit", "x.csv", "-o", "m.pf", *how)
    _files.write("x.csv", {"a": np.array([0.5, 2.0])})
    out, _ = run("logp", "m.pf", "x.csv", "-o", "l.csv", "--json")
    assert json.loads(out) == {"output": "l.csv", "rows": 2, "mean_logp": None, "outside": 1}
    assert _files.read("l.csv")["logp"][1] == -np.inf


def test_standard_input_and_output(tmp_path, files):
    def piped(given, *argv):
        argv = [sys.executable, "-m", "pyflow", *argv]
        done = subprocess.run(argv, input=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with open(files["t.csv"]) as file:
        text = file.read()
    model = str(tmp_path / "m.pf")
    how = ["--columns", "a,b", "--max-layers", "2", "--validation-fraction", "0"]
    piped(text, "fit", "-", "-o", model, *how)
    assert pyflow.load(model) == pyflow.load(files["m.pf"])
    drawn = piped("", "sample", model, "4", "--seed", "1")
    logs = piped(drawn, "logp", model, "-").split()[1:]
    expected = pyflow.load(model).sample(4, seed=1)[1]
    assert_allclose(np.array(logs, float), expected, rtol=1e-12)


def test_a_conditional_model(run, files):
    model, x = pyflow.load(files["y.pf"]), table()
    assert (model.columns, model.names) == (("a", "b"), ("y",))
    out, _ = run("logp", files["y.pf"], files["t.csv"])
    ab = {k: x[k] for k in "ab"}
    assert_array_equal(np.array(out.split()[1:], float), model.evaluate_density(ab, {"y": x["y"]}))
    renamed = {"shift": x["y"], "v": x["b"], "u": x["a"]}
    _files.write("r.csv", renamed)
    again, _ = run("logp", files["y.pf"], "r.csv", "--columns", "u,v", "--condition", "shift")
    assert again == out
    for values in ("-0.5", "y=-0.5"):
        run("sample", files["y.pf"], 5, "--seed", 2, "--condition", values, "-o", "s.npy")
        assert_array_equal(np.load("s.npy"), model.sample(5, [-0.5], seed=2)[0])
    _, err = run("sample", files["y.pf"], 5, code=1)
    assert err == "pyflow: error: --condition: this flow is conditional; it needs y\n"


def test_columns_that_are_named_are_taken_in_turn(run, files):
    """Whatever they are called: a header that is swapped is repaired by naming it as it is."""
    x = table(40)
    _files.write("good.csv", {k: x[k] for k in "aby"})
    _files.write("swapped.csv", {"b": x["a"], "a": x["b"], "y": x["y"]})
    swap = ["--columns", "b,a"]
    told = "columns: are taken in this order for the model's: b is its a, a is its b\n"
    for model in (files["m.pf"], files["y.pf"]):
        right, quiet = run("logp", model, "good.csv")
        assert quiet == ""
        assert run("logp", model, "good.csv", "--columns", "a,b") == (right, "")
        found, err = run("logp", model, "swapped.csv", *swap)
        assert found == right
        assert err == f"pyflow: warning: --{told}"
        assert run("logp", model, "good.csv", *swap)[0] != right

    right, _ = run("posterior", files["y.pf"], "good.csv", "--columns", "a,b")
    found, err = run("posterior", files["y.pf"], "swapped.csv", *swap)
    assert (found, err) == (right, f"pyflow: warning: --{told}")

    pytest.importorskip("matplotlib")
    run("plot", files["m.pf"], "good.csv", "-o", "right.png", "--columns", "a,b")
    _, err = run("plot", files["m.pf"], "swapped.csv", "-o", "found.png", *swap)
    assert err == f"pyflow: warning: --{told}"
    with open("right.png", "rb") as one, open("found.png", "rb") as other:
        assert one.read() == other.read()


def test_conditions_that_are_named_are_taken_in_turn(run):
    rng = np.random.default_rng(0)
    x, s, t = rng.normal(size=(3, 200))
    _files.write("t.csv", {"x": x + s, "s": s, "t": t})
    how = ["--condition", "s,t", "--n-models", 1, "--quiet"]
    run("fit", "t.csv", "-o", "m.pf", *how)
    _files.write("swapped.csv", {"x": x + s, "t": s, "s": t})
    right, _ = run("logp", "m.pf", "t.csv")
    found, err = run("logp", "m.pf", "swapped.csv", "--condition", "t,s")
    assert found == right
    assert err.startswith("pyflow: warning: --condition: are taken in this order")
    assert run("logp", "m.pf", "swapped.csv")[0] != right


def test_messages_name_the_columns_of_the_file(run, files):
    x = table(5)
    _files.write("t.csv", {"u": x["a"], "v": np.where(np.arange(5) == 3, np.inf, x["b"])})
    argv = ["posterior", files["y.pf"], "t.csv", "--columns", "u,v"]
    assert "DATA: row 3, column 'v' is infinite" in run(*argv, code=1)[1]


def test_posterior(run, files):
    _files.write("d.csv", {"a": np.array([0.3]), "b": np.array([0.5])})
    model = pyflow.load(files["y.pf"])
    post = model.posterior([0.3, 0.5], prior=[(-0.5, 0.9)])
    for prior in ("-0.5,0.9", "y=-0.5,0.9"):
        how = ["--prior", prior, "--samples", 50, "-o", "p.csv"]
        out, _ = run("posterior", files["y.pf"], "d.csv", *how, "--json")
        found = json.loads(out)
        assert found["names"] == ["y"]
        assert_allclose(found["mean"], post.mean)
        assert_allclose(found["cov"], post.cov)
        assert_allclose(found["bounds"], [[-0.5, 0.9]])
        assert_array_equal(_files.read("p.csv")["y"], post.sample(50, seed=0)[:, 0])
    out, _ = run("posterior", files["y.pf"], "d.csv")
    assert re.fullmatch(r"y = \S+ \+- \S+\n", out)


def test_info(run, files):
    out, _ = run("info", files["m.pf"])
    assert "columns: a, b\n" in out
    found = json.loads(run("info", files["y.pf"], "--json")[0])
    model = pyflow.load(files["y.pf"])
    assert found["conditions"] == ["y"]
    assert found["parameters"] == model.n_parameters
    assert sum(found["layers"].values()) == len(model)
    assert_allclose(found["condition_ranges"]["y"], model.y_range[0])
    both = pyflow.Mixture([pyflow.load(files["m.pf"])] * 2, [3, 1])
    both.save("both.pf")
    found = json.loads(run("info", "both.pf", "--json")[0])
    assert (found["kind"], found["members"], found["weights"]) == ("Mixture", 2, [0.75, 0.25])


@pytest.mark.parametrize("models", [1, 2])
def test_info_tells_bounds(run, files, models):
    how = ["--columns", "a,b,y", "--bounds", "y=-1,1", "--bounds", "b=,40", "--max-layers", 1]
    run("fit", files["t.csv"], "-o", "m.pf", *how, "--n-models", models, "--quiet")
    assert "\nbounds: b [-inf, 40], y [-1, 1]\n" in run("info", "m.pf")[0]
    found = json.loads(run("info", "m.pf", "--json")[0])
    assert found["bounds"] == {"b": [None, 40], "y": [-1, 1]}
    x = np.array([[0, 0, 0], [0, 40.1, 0], [0, 0, 1.1]])  # which are the model's
    assert np.isneginf(pyflow.load("m.pf").evaluate_density(x)).tolist() == [False, True, True]
    assert "bounds" not in run("info", files["m.pf"])[0]
    assert json.loads(run("info", files["m.pf"], "--json")[0])["bounds"] == {}


def test_a_fit_of_few_rows_warns(run):
    words = "pyflow: warning: TABLE: 3 rows are trained on, of 2 columns"
    how = ["-o", "m.pf", "--max-layers", 1, "--quiet", "--validation-fraction"]
    for rows, held_out, warns in ((3, 0, True), (4, 0, False), (4, 0.3, True)):
        _files.write("x.csv", {k: v[:rows] for k, v in columns("a", "b").items()})
        assert run("fit", "x.csv", *how, held_out)[1].startswith(words) == warns


@pytest.mark.parametrize("kind", ["pairs", "marginals", "latent", "history"])
def test_plots(run, files, kind):
    pytest.importorskip("matplotlib")
    run("plot", files["m.pf"], files["t.csv"], "-o", "p.png", "--kind", kind)
    with open("p.png", "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    assert os.listdir() == ["p.png"]


def test_plots_of_fields(run):
    pytest.importorskip("matplotlib")
    x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 20, seed=1)
    np.save("x.npy", x)
    pyflow.SymmetricFlow(x, epochs=0, verbose=False).save("m.pf")
    run("plot", "m.pf", "x.npy", "-o", "p.pdf", "--kind", "maps")
    run("plot", "m.pf", "x.npy", "-o", "q.pdf")  # maps are the usual
    _, err = run("plot", "m.pf", "x.npy", "-o", "r.pdf", "--kind", "pairs", code=1)
    assert err == (
        "pyflow: error: --kind: pairs is no picture of fields, which the model is of; take maps, "
        "power_spectra or history\n"
    )
    run("sample", "m.pf", 3, "-o", "s.npy")
    run("logp", "m.pf", "s.npy", "-o", "l.npy")
    assert np.load("s.npy").shape == (3, 8, 8)
    assert np.load("l.npy").shape == (3,)


def test_images(run):
    pytest.importorskip("matplotlib")
    x = np.random.default_rng(0).normal(size=(60, 4, 4)).cumsum(axis=2)
    np.save("x.npy", x)
    how = ["--validation-fraction", 0, "--max-layers", 2, "--quiet"]
    run("fit", "x.npy", "-o", "m.pf", *how)
    model = pyflow.load("m.pf")
    assert model.shape == (4, 4, 1)
    run("logp", "m.pf", "x.npy", "-o", "l.npy")
    assert_array_equal(np.load("l.npy"), model.evaluate_density(x))
    run("sample", "m.pf", 3, "--seed", 1, "-o", "s.npy")
    assert np.load("s.npy").shape == (3, 4, 4, 1)
    for kind in ([], ["--kind", "images"], ["--kind", "history"]):
        run("plot", "m.pf", "x.npy", "-o", "p.png", *kind)
    for kind in ("pairs", "maps", "latent"):
        _, err = run("plot", "m.pf", "x.npy", "-o", "q.png", "--kind", kind, code=1)
        assert err.startswith(f"pyflow: error: --kind: {kind} is no picture of images")


def test_rows_share_their_parameters_or_each_has_its_own(run, files):
    model, x = pyflow.load(files["y.pf"]), table(3, seed=1)
    ab, prior = np.column_stack([x["a"], x["b"]]), [(-1, 1)]
    _files.write("d.csv", {"a": x["a"], "b": x["b"]})
    how = ["posterior", files["y.pf"], "d.csv", "--prior=-1,1", "--samples", 50, "-o", "p.csv"]
    found = json.loads(run(*how, "--json")[0])
    assert_allclose(found["mean"], model.posterior(ab, prior=prior).mean)
    assert run(*how)[0].splitlines()[0] == "of 3 rows that share their parameters:"

    found = json.loads(run(*how, "--each", "--json")[0])
    assert found["rows"] == 3
    posts = [model.posterior(row, prior=prior) for row in ab]
    for i, (one, post) in enumerate(zip(found["posteriors"], posts, strict=True)):
        assert one["row"] == i
        assert_array_equal(one["mean"], post.mean)
    back = _files.read("p.csv")
    assert_array_equal(back["row"], np.repeat([0, 1, 2], 50))
    drawn = [post.sample(50, seed=0)[:, 0] for post in posts]
    assert_array_equal(back["y"], np.concatenate(drawn))
    lines = run(*how, "--each")[0].splitlines()
    assert [line.split(":")[0] for line in lines] == ["row 0", "row 1", "row 2"]


def test_rows_with_truths_that_differ_do_not_share_them(run, files):
    _files.write("d.csv", table(3, seed=1))
    argv = ["posterior", files["y.pf"], "d.csv", "--prior=-1,1", "--columns", "a,b"]
    assert run(*argv)[1] == ""  # who names the columns knows
    x = {k: v for k, v in table(3, seed=1).items() if k != "w"}
    _files.write("d.csv", x)
    _, err = run(*argv[:4])
    assert err.startswith("pyflow: warning: DATA: its rows differ in y, and are taken to share")
    assert run(*argv[:4], "--each")[1] == ""
    _files.write("d.csv", {**x, "y": np.zeros(3)})
    assert run(*argv[:4])[1] == ""


# ---- what goes wrong -----------------------------------------------------------------------------

USAGE = {
    "bounds in order": (
        ["fit", "t.csv", "-o", "m", "--bounds", "a=3,-3"],
        "--bounds: 3 of a is not below -3",
    ),
    "no name": (["posterior", "y.pf", "t.csv", "--fixed", "0.5"], "--fixed: is NAME=NUMBER"),
    "nothing": ([], "COMMAND"),
    "no such command": (["fly"], "invalid choice: 'fly'"),
    "no output": (["fit", "t.csv"], "-o/--output"),
    "a number that is none": (["fit", "t.csv", "-o", "m", "--seed", "x"], "--seed: invalid int"),
    "two outputs": (["logp", "m.pf", "t.csv", "--json"], "both go to standard output"),
    "a model to stdout": (["fit", "t.csv", "-o", "-"], "-o: - is for tables"),
    "two inputs": (["fit", "-", "--validate", "-", "-o", "m"], "standard input is one table"),
    "over the table": (["fit", "t.csv", "-o", "t.csv"], "-o: t.csv would be written over"),
    "bounds of one": (["fit", "t.csv", "-o", "m", "--bounds", "a=1"], "--bounds: .* 2 numbers"),
    "both splits": (
        ["fit", "t.csv", "-o", "m", "--validate", "t.csv", "--validation-fraction", "0.5"],
        "--validation-fraction: ",
    ),
    "a weight as a column": (
        ["fit", "t.csv", "-o", "m", "--columns", "a,w", "--weights", "w"],
        "--columns: w is a condition, a label or a weight",
    ),
}
ERRORS = {
    "no table": (["fit", "no.csv", "-o", "m"], "no.csv: No such file or directory"),
    "no model": (["info", "no.pf"], "no.pf: No such file"),
    "a folder of no table": (["fit", "folder.csv", "-o", "m"], "folder.csv: Is a directory"),
    "a folder of no HDF5": (["fit", "folder.h5", "-o", "m"], "folder.h5: Is a directory"),
    "an empty folder": (["fit", "folder.parquet", "-o", "m"], "folder.parquet: has no columns"),
    "a folder of no model": (["info", "folder.csv"], "folder.csv: Is a directory"),
    "no folder": (["fit", "t.csv", "-o", "no/m"], "no/m: there is no folder"),
    "a folder": (["fit", "t.csv", "-o", "."], r"\.: is a folder"),
    "no such column": (["fit", "t.csv", "-o", "m", "--columns", "a,c"], "no column 'c' among a, b"),
    "missing columns": (["logp", "m.pf", "other.csv"], "TABLE: has no column 'b'"),
    "text": (["fit", "text.csv", "-o", "m"], "TABLE: column 'id' is not numeric: row 0 is 'x'"),
    "no value": (["fit", "nan.csv", "-o", "m"], "TABLE: row 3, column 'b' is NaN"),
    "an option": (
        ["fit", "t.csv", "-o", "m", "--max-layers", "0"],
        "--max-layers: must be at least 1, not 0",
    ),
    "no end": (
        ["fit", "t.csv", "-o", "m", "--validation-fraction", "0", "--n-models", "1"],
        "--validate, --max-layers: give",
    ),
    "bounds": (
        ["fit", "t.csv", "-o", "m", "--bounds", "b=0,1", "--columns", "a,b"],
        "TABLE: row .*, column 'b' is .*outside the bounds",
    ),
    "no conditions": (["posterior", "m.pf", "t.csv"], "posterior: this flow was fitted without y"),
    "a size": (["sample", "m.pf", "-3"], "N: must be"),
    "no columns left": (["fit", "one.csv", "-o", "m", "--weights", "a"], "TABLE: has no columns"),
    "bounds of none": (
        ["fit", "t.csv", "-o", "m", "--bounds", "c=0,1"],
        "--bounds: .*'c' among a,",
    ),
    "threads": (["sample", "m.pf", "3", "--threads", "0"], "--threads: must be between 1"),
    "a picture": (["plot", "m.pf", "t.csv", "-o", "p.doc"], "-o: .* not .doc"),
    "a seed": (["fit", "t.csv", "-o", "m", "--seed", "-1"], "seed: "),
    "few rows": (["fit", "two.csv", "-o", "m"], "TABLE: has 2 rows, of which 0.2 is none"),
    "another condition": (["sample", "y.pf", "3", "--condition", "y=0,z=3"], "--condition: .*'z'"),
    "conditions of none": (["sample", "m.pf", "3", "--condition", "z=3"], "the model has no cond"),
    "a condition of none": (["logp", "m.pf", "t.csv", "--condition", "w"], "the model has no cond"),
    "a seed of samples": (["posterior", "y.pf", "no.csv", "--seed", "-1"], "--seed: must be"),
    "true": (
        ["fit", "true.csv", "-o", "m"],
        "TABLE: column 'b' is not numeric: row 0 is 'True'; write 1 for true and 0 for false",
    ),
    "true weights": (
        ["fit", "true.csv", "-o", "m", "--weights", "b"],
        "--weights: column 'b' .*1 for",
    ),
    "true conditions": (
        ["fit", "true.csv", "-o", "m", "--condition", "b"],
        "--condition: column 'b'",
    ),
    "true validation": (
        ["fit", "t.csv", "-o", "m", "--columns", "a,b", "--validate", "true.csv"],
        "--validate: column 'b' is not numeric",
    ),
    "true points": (["logp", "m.pf", "true.csv"], "TABLE: column 'b' is not numeric"),
    "true data": (["posterior", "y.pf", "true.csv"], "DATA: column 'b' is not numeric"),
    "a title": (
        ["fit", "title.csv", "-o", "m"],
        "row 0 is 'a'; if .* names, take out the line above",
    ),
    "samples": (["posterior", "y.pf", "t.csv", "--samples", "-3"], "--samples: must be at least 1"),
    "not FITS": (["fit", "no.fits", "-o", "m"], r"no.fits: No SIMPLE card found[^.]*"),
    "not HDF5": (["fit", "no.h5", "-o", "m"], "no.h5: "),
    "not NPY": (["fit", "no.npy", "-o", "m"], "no.npy: is no NPY file, or holds Python's objects"),
    "semicolons": (["fit", "semi.csv", "-o", "m"], "semi.csv: has semicolons between columns"),
    "a line above": (["fit", "above.csv", "-o", "m"], "above.csv: has one field .* title with #"),
    "Latin-1": (["fit", "latin.csv", "-o", "m"], "latin.csv: is not UTF-8: its byte 2 is no"),
    "a short row": (["fit", "short.csv", "-o", "m"], "short.csv: [^`]*"),
    "a field's": (
        ["plot", "m.pf", "t.csv", "-o", "p.png", "--kind", "maps"],
        "--kind: maps is no picture of tables",
    ),
    "no model's file": (["info", "t.csv"], "t.csv: "),
}


@pytest.fixture
def broken(run, files):
    """Tables that are in order, and such that are not."""
    shutil.copy(files["t.csv"], "t.csv")
    shutil.copy(files["m.pf"], "m.pf")
    x = columns("a", "b")
    shutil.copy(files["y.pf"], "y.pf")
    _files.write("one.csv", {"a": x["a"]})
    _files.write("two.csv", {k: v[:2] for k, v in x.items()})
    for suffix in ("csv", "h5", "parquet"):
        os.mkdir(f"folder.{suffix}")
    with open("above.csv", "w") as file:
        file.write("from X\na,b\n1,2\n")
    with open("latin.csv", "wb") as file:
        file.write(b"a,\xe9\n1,2\n")
    for name in ("no.fits", "no.h5", "no.npy", "semi.csv", "short.csv"):
        with open(name, "w") as file:
            file.write("a,b\n1,2\n3\n" if name == "short.csv" else "a;b\n1;2\n3;4\n")
    _files.write("true.csv", {"a": x["a"], "b": x["b"] > 0})
    with open("title.csv", "w") as file:
        file.write("of a survey, in 2020\na,b\n1,2\n3,4\n5,6\n")
    _files.write("other.csv", {"a": x["a"], "c": x["b"]})
    _files.write("text.csv", {"id": np.array(["x"] * N), "a": x["a"]})
    _files.write("nan.csv", {"a": x["a"], "b": np.where(np.arange(N) == 3, np.nan, x["b"])})
    return run


@pytest.mark.parametrize(("argv", "message"), USAGE.values(), ids=USAGE)
def test_usage(broken, argv, message):
    before = sorted(os.listdir())
    _, err = broken(*argv, code=2)
    assert re.search(message, err)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(("argv", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_line(broken, argv, message):
    before = sorted(os.listdir())
    out, err = broken(*argv, code=1)
    assert out == ""
    assert re.fullmatch(f"pyflow: error: .*{message}.*\n", err)
    assert sorted(os.listdir()) == before


def test_rows_of_a_message_are_those_of_the_file(run):
    x = columns("a", "b")
    for row in (3, 150, 299):
        broken = {"a": x["a"], "b": np.where(np.arange(N) == row, np.inf, x["b"])}
        _files.write("x.csv", broken)
        _, err = run("fit", "x.csv", "-o", "m", "--n-models", 1, "--no-autoregressive", code=1)
        assert err == f"pyflow: error: TABLE: row {row}, column 'b' is infinite\n"


def test_a_missing_library_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    _, err = run("logp", "m.pf", "x.h5", code=1)
    assert err == "pyflow: error: x.h5: needs h5py: pip install h5py\n"


def test_warnings_are_lines(run, files):
    argv = ["sample", files["y.pf"], 3, "--condition", "5", "-o", "s.csv", "--quiet"]
    _, err = run(*argv)
    assert re.fullmatch(r"pyflow: warning: --condition: y = 5 lies outside .*\n", err)


def test_a_pipe_that_is_closed_is_no_error_to_speak_of(files):
    argv = [sys.executable, "-m", "pyflow", "sample", files["m.pf"], "100000"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141  # as of other tools that SIGPIPE ends


@pytest.mark.skipif(not shutil.which("sh"), reason="no shell")
def test_no_standard_output_is_no_error(files):
    argv = [sys.executable, "-m", "pyflow", "info", files["m.pf"]]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *argv], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_messages_speak_of_options(run, files):
    """Arguments of Python within a sentence, too."""
    pytest.importorskip("matplotlib")
    pyflow.Mixture([pyflow.load(files["m.pf"])] * 2).save("both.pf")
    argv = ["plot", "both.pf", files["t.csv"], "--kind", "latent", "-o", "p.png"]
    assert run(*argv, code=1)[1] == (
        "pyflow: error: a mixture has no latent space of its own: fit with --n-models 1\n"
    )
    argv = ["fit", files["t.csv"], "--columns", "a,b", "-o", "m.pf", "--quiet"]
    _, err = run(*argv, "--max-layers", 2, "--validate", files["t.csv"])
    assert re.match(
        "pyflow: warning: --validate: 300 of its 300 rows are in the training rows", err
    )
    assert "data_" not in err
    _, err = run(*argv, "--polish", "--validation-fraction", 0, "--max-layers", 2, code=1)
    assert err.endswith("must be given where layers are polished, or --n-models\n")
    args = _cli.parser().parse_args(["fit", "t.csv", "-o", "m"])
    args.told = {}
    for python, here in {
        "weight_train: take polish=False, n_models": "--weights: take --no-polish, --n-models",
        "checkpoint: cannot write max_layers.pf": "--checkpoint: cannot write max_layers.pf",
        "labels: is 'n_models', give max_layers.": "--labels: is 'n_models', give --max-layers.",
        "the seed of columns": "the seed of columns",
        "data: classes can be `labels`, not `x`": "TABLE: classes can be --labels, not `x`",
    }.items():
        assert _cli._plain(python, args) == here


def kinds(n=200):
    """Rows of a and b, of a class "c d" far from the other, "e"; and the classes by number."""
    rng = np.random.default_rng(0)
    number = (np.arange(n) % 4 == 0).astype(int)
    x = {"a": rng.normal(size=n) + 10 * number, "b": rng.normal(size=n)}
    return x, number, np.array(["e", "c d"])[number]


def test_labels_of_a_model_of_the_library(run):
    x, number, _ = kinds()
    model = pyflow.GIS({"a": x["a"]}, labels=number, max_layers=1, verbose=False)
    model.save("m.pf")
    _files.write("x.csv", {"a": x["a"], "kind": number})
    for option in ("--labels", "--condition"):
        run("logp", "m.pf", "x.csv", option, "kind", "-o", "l.npy")
        assert_array_equal(np.load("l.npy"), model.evaluate_density(x["a"][:, None], number))
    for how in (["--label", 1], ["--label", "1.0"], ["--condition", 1]):
        run("sample", "m.pf", 3, *how, "--seed", 2, "-o", "s.csv")
        assert_array_equal(_files.read("s.csv")["a"], model.sample(3, 1, seed=2)[0][:, 0])


@pytest.mark.parametrize("suffix", ["csv", "fits", "h5", "parquet"])
def test_fit_with_labels(run, suffix):
    pytest.importorskip({"fits": "astropy", "h5": "h5py", "parquet": "pyarrow"}.get(suffix, "csv"))
    x, number, word = kinds()
    if suffix == "h5":
        import h5py

        with h5py.File("x.h5", "w") as file:
            file["a"], file["b"], file["kind"] = x["a"], x["b"], word.tolist()
    else:
        _files.write(f"x.{suffix}", {**x, "kind": word})
    how = ["--labels", "kind", "--max-layers", 2, "--seed", 3, "--quiet"]
    run("fit", f"x.{suffix}", "-o", "m.pf", *how)
    model = pyflow.load("m.pf")
    assert model.columns == ("a", "b")
    assert model.labels.tolist() == ["c d", "e"]
    logs, others = (model.evaluate_density(x, w) for w in (word, np.where(number, "e", "c d")))
    assert logs.mean() > others.mean() + 2

    run("logp", "m.pf", f"x.{suffix}", "--labels", "kind", "-o", "l.npy")
    assert_array_equal(np.load("l.npy"), logs)
    run("sample", "m.pf", 5, "--label", "c d", "--seed", 1, "-o", "s.npy")
    assert_array_equal(np.load("s.npy"), model.sample(5, "c d", seed=1)[0])
    assert json.loads(run("info", "m.pf", "--json")[0])["labels"] == ["c d", "e"]
    assert "labels: c d, e\n" in run("info", "m.pf")[0]


def test_each_class_has_rows_held_out(run):
    x, number, _ = kinds(40)
    _files.write("x.csv", {**x, "kind": number})
    out, _ = run("fit", "x.csv", "-o", "m.pf", "--labels", "kind", "--n-models", 1, "--json")
    found = json.loads(out)
    assert (found["rows_train"], found["rows_validate"], found["labels"]) == (32, 8, [0, 1])
    parts = {"x": x, "labels": number}
    held_out = _commands._held_out(parts, 0.2, np.random.default_rng(0))
    assert np.bincount(number[held_out]).tolist() == [6, 2]
    assert len(set(held_out)) == 8


def test_labels_are_refused(run):
    x, number, word = kinds()
    _files.write("x.csv", {**x, "kind": word})
    _files.write("y.csv", {**x, "kind": np.where(number, word, "new")})
    _files.write("z.csv", {**x, "kind": np.arange(200)})
    run("fit", "x.csv", "-o", "m.pf", "--labels", "kind", "--max-layers", 1, "--quiet")
    run("fit", "x.csv", "-o", "p.pf", "--columns", "a,b", "--max-layers", 1, "--quiet")
    known = "the model has classes, c d, e; "
    which = "'new' is not among the flow's labels ('c d', 'e')"
    for argv, words in {
        ("logp", "m.pf", "x.csv"): f"--labels: {known}say which column they are in",
        ("sample", "m.pf", 3): f"--label: {known}say which to draw",
        ("sample", "m.pf", 3, "--label", "new"): f"--label: {which}",
        ("logp", "m.pf", "y.csv", "--labels", "kind"): f"--labels: {which}",
        ("logp", "p.pf", "x.csv", "--labels", "kind"): "--labels: the model has no classes",
        ("sample", "p.pf", 3, "--label", "e"): "--label: the model has no classes",
        ("fit", "x.csv", "-o", "n", "--labels", "c"): "--labels: there is no column 'c' among",
        ("fit", "z.csv", "-o", "n", "--labels", "kind"): "--labels: has 200 classes in 200 rows: ",
        ("fit", "x.csv", "-o", "n", "--labels", "kind", "--validate", "y.csv"): (
            "--labels: 'new' is not among labels ('c d', 'e')"
        ),
        ("fit", "x.csv", "-o", "n", "--labels", "kind", "--condition", "b"): (
            "--labels: is not for a fit with a condition"
        ),
    }.items():
        _, err = run(*argv, code=1)
        assert err.startswith(f"pyflow: error: {words}")
    argv = ["fit", "x.csv", "-o", "n", "--labels", "kind", "--columns", "a,kind"]
    assert "--columns: kind is a condition, a label" in run(*argv, code=2)[1]


def test_plots_of_classes(run):
    pytest.importorskip("matplotlib")
    x, _, word = kinds()
    _files.write("x.csv", {**x, "kind": word})
    run("fit", "x.csv", "-o", "m.pf", "--labels", "kind", "--max-layers", 1, "--quiet")
    for kind in ("pairs", "latent"):
        run("plot", "m.pf", "x.csv", "--labels", "kind", "--kind", kind, "-o", f"{kind}.png")
        with open(f"{kind}.png", "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_a_process_that_is_interrupted_names_its_checkpoint(tmp_path):
    x = np.random.default_rng(0).normal(size=(2000, 4))
    np.save(tmp_path / "x.npy", x)
    argv = ["fit", "x.npy", "-o", "m.pf", "--checkpoint", "c.pf", "--threads", "1"]
    argv += ["--n-models", "1", "--max-layers", "4000", "--patience", "4000"]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *argv], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    process.stderr.readline()  # a layer has been fitted
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    expected = "pyflow: interrupted; the same command goes on from the checkpoint c.pf\n"
    assert err.splitlines(keepends=True)[-1] == expected
    assert sorted(os.listdir(tmp_path)) == ["c.pf", "x.npy"]


# The command line with a line for every layer.
SCRIPT = """
import sys
from pyflow import _cli, _progress
_progress._PlainLine.show = lambda self, p: (setattr(self, "last", p), self.write())
sys.exit(_cli.main())
"""


# ---- completion ----------------------------------------------------------------------------------


def completed(*words):
    """Return what bash offers for the last of these words."""
    script = 'eval "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _pyflow'
    script += '; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", made("bash"), *words], capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def made(shell):
    from pyflow import _completion

    return _completion.script(_cli.parser(), shell)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").touch()
    assert set(completed("pyflow", "")) >= {"fit", "logp", "sample", "info", "plot", "posterior"}
    assert completed("pyflow", "sa") == ["sample"]
    assert completed("pyflow", "fit", "--n") == ["--n-models", "--no-polish", "--no-autoregressive"]
    assert completed("pyflow", "fit", "t") == ["t.csv"]
    assert completed("pyflow", "plot", "--kind", "") == list(_commands.PLOTS)
    assert completed("pyflow", "fit", "x", "-o", "t") == ["t.csv"]
    assert completed("pyflow", "completion", "z") == ["zsh"]


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh")
def test_zsh_takes_its_script():
    subprocess.run(["zsh", "-n", "-c", made("zsh")], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_every_option(run, shell):
    out, _ = run("completion", shell)
    for option in ("--validation-fraction", "--no-polish", "--prior", "--kind", "power_spectra"):
        assert option in out


def test_help_tells_the_commands(run):
    out, _ = run("--help")
    assert "Exit codes" in out
    assert run("--version")[0] == f"pyflow {pyflow.__version__}\n"
