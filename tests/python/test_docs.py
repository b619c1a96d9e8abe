"""The Python that the pages of the documentation show: it runs, and says what the pages say."""

import re
from pathlib import Path

import matplotlib
import pytest

import pyflow

matplotlib.use("agg")

ROOT = Path(__file__).parents[2]
# The first page's is the README's, and of default settings: half a minute.
PAGES = [p for p in sorted((ROOT / "docs").glob("*.md")) if p.name != "index.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = {page.stem: BLOCK.findall(page.read_text(encoding="utf-8")) for page in PAGES}


@pytest.mark.parametrize("page", [name for name, blocks in SHOWN.items() if blocks])
def test_pages_run(page, capsys, tmp_path, monkeypatch):
    if page == "parallel":
        pytest.importorskip("joblib")
        pytest.importorskip("dask.array")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in SHOWN[page]:
        exec(compile(block, f"docs/{page}.md", "exec"), names)
        # `print(...)  # what it prints`
        said = re.findall(r"^print\(.*\.verdict\)  # (.*)$", block, re.MULTILINE)
        printed = capsys.readouterr().out.splitlines()
        assert [line for line in printed if line in said] == said
    assert not list(tmp_path.iterdir())


def test_the_reference_names_all_that_is_public():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = set()
    for part in text.split(".. currentmodule:: ")[1:]:
        module = part.split("\n")[0]
        listed |= {f"{module}.{name}" for name in re.findall(r"^   (\w+)$", part, re.MULTILINE)}
    modules = {"datasets", "fields", "layers", "metrics", "plots"}
    public = {f"pyflow.{name}" for name in set(pyflow.__all__) - modules - {"__version__"}}
    from pyflow import checks, compat, mpi, sklearn

    for module in (checks, compat, mpi, sklearn, *(getattr(pyflow, name) for name in modules)):
        public |= {f"{module.__name__}.{name}" for name in module.__all__}
    assert listed == public


def test_versions_agree():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", text, re.MULTILINE) == [pyflow.__version__]
