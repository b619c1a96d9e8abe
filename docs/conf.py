"""The documentation: `make docs` builds it, with warnings as errors."""

import os
import sys
from pathlib import Path

# One core is enough, and the figures are then the same everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pyflow  # noqa: E402

project = "pyflow"
author = "The pyflow developers"
copyright = author
version = release = pyflow.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["gallery", "README.md", "**/*.ipynb"]
default_role = "autolink"  # `Flow.sample` in a docstring is a link where that is a name
nitpicky = False

# Pages are MyST; numbers of lines with `$` are mathematics.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autosummary_imported_members = False
autodoc_typehints = "none"  # docstrings say shapes, which types do not
autodoc_member_order = "groupwise"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"\.py$",  # all are run
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": False,  # a failed one is a warning, thus an error, and all are named
    "download_all_examples": False,
    "show_memory": False,
    "ignore_repr_types": r"matplotlib\.figure\.Figure",  # shown, not named
    "show_signature": False,
    "remove_config_comments": True,
    "run_stale_examples": True,  # figures are those of this pyflow, whatever was built before
    "image_scrapers": ("gallery_figures.scraper",),
    "reset_modules": ("gallery_figures.reset",),
    "min_reported_time": 1,
}
sys.path.insert(0, str(Path(__file__).parent))

html_theme = "furo"
html_title = f"pyflow {version}"
html_static_path = []
html_copy_source = False
html_show_sourcelink = False


def escaped(app, what, name, obj, options, lines):
    """Keep bars and stars of docstrings, as in |k| and 2 * x, from being taken for markup."""
    in_code, literal = False, None  # inside a doctest; indentation above a literal block
    for i, line in enumerate(lines):
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if literal is not None and text and indent <= literal:
            literal = None
        in_code = bool(text) and (in_code or text.startswith(">>>"))
        if not in_code and literal is None and "``" not in line:
            lines[i] = line.replace("|", r"\|").replace("*", r"\*")
        if literal is None and text.endswith("::"):
            literal = indent


def skipped(app, what, name, obj, skip, options):
    """Leave out what scikit-learn adds to its estimators: its texts point into its own pages."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app):
    """Have docstrings escaped before napoleon reads them, at 500."""
    app.connect("autodoc-skip-member", skipped)
    app.connect("autodoc-process-docstring", escaped, priority=400)
