"""Exact probability densities of data, and samples from them.

    import pyflow

    model = pyflow.GIS(train, validate)
    logp = model.evaluate_density(x)
    x, logp = model.sample(1000)

`GIS` fits a sliced iterative normalizing flow (Dai & Seljak 2021, arXiv 2007.00674) and returns a
`Model`; `Model.save` and `load` keep it in a file; `plots` draws it.

`SymmetricFlow` fits the density p(x|y) of periodic fields (Dai & Seljak 2022, arXiv 2202.05282) and
returns a `FieldModel`, whose `posterior` is that of the parameters y; `fields` holds power spectra
and random fields.
"""

from pyflow import fields, plots
from pyflow._core import FileError, __version__
from pyflow.fft import load_wisdom, measure_ffts, save_wisdom
from pyflow.gis import GIS, Progress
from pyflow.model import Model, load
from pyflow.posterior import Posterior
from pyflow.symmetric import FieldModel, FieldProgress, SymmetricFlow
from pyflow.threads import get_num_threads, set_num_threads

__all__ = [
    "GIS",
    "FieldModel",
    "FieldProgress",
    "FileError",
    "Model",
    "Posterior",
    "Progress",
    "SymmetricFlow",
    "__version__",
    "fields",
    "get_num_threads",
    "load",
    "load_wisdom",
    "measure_ffts",
    "plots",
    "save_wisdom",
    "set_num_threads",
]
