"""Exact probability densities of data, and samples from them.

    import pyflow

    flow = pyflow.GIS(train, validate)
    logp = flow.evaluate_density(x)
    x, logp = flow.sample(1000)

`GIS` fits a sliced iterative normalizing flow (Dai & Seljak 2021, arXiv 2007.00674) to a table,
`SIG` a generator of images by the same authors' method.
`SymmetricFlow` fits the density p(x|y) of periodic fields (Dai & Seljak 2022, arXiv 2202.05282).
All give a `Flow`, as does `Flow([...])` of `layers` composed by hand: densities, samples,
posteriors of the parameters y, training, and a file that `load` reads. Several make a `Mixture`,
which `GIS` gives of small tables, and other fits with `n_models`. `plots` draws them; `fields`
holds power spectra and random fields; `datasets` reads sets of images; `compat` the calls of the
original implementation; `pyflow.sklearn`, imported by itself, an estimator of scikit-learn.
"""

try:
    from pyflow._core import FileError, __version__
except ModuleNotFoundError as error:
    if error.name != "pyflow._core":
        raise
    raise ModuleNotFoundError(
        f"pyflow._core: {__path__[0]} are the sources, without what is compiled of them: start "
        "Python in another folder to have what pip installed, or run `make ext` in the clone",
        name=error.name,
    ) from None

from pyflow import datasets, fields, layers, metrics, plots
from pyflow._progress import Progress
from pyflow._versions import show_versions
from pyflow.fft import load_wisdom, measure_ffts, save_wisdom
from pyflow.flow import Flow, load
from pyflow.gis import GIS
from pyflow.mixture import Mixture
from pyflow.posterior import Posterior
from pyflow.sig import SIG, image_schedule
from pyflow.symmetric import SymmetricFlow
from pyflow.threads import get_num_threads, set_num_threads

__all__ = [
    "GIS",
    "SIG",
    "FileError",
    "Flow",
    "Mixture",
    "Posterior",
    "Progress",
    "SymmetricFlow",
    "__version__",
    "datasets",
    "fields",
    "get_num_threads",
    "image_schedule",
    "layers",
    "load",
    "load_wisdom",
    "measure_ffts",
    "metrics",
    "plots",
    "save_wisdom",
    "set_num_threads",
    "show_versions",
]


def __dir__():
    return __all__
