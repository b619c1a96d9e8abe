"""Fits that the ranks of a cluster share: see `pyflow.mpi`, and pf_ranks in C."""

import warnings

import numpy as np

from pyflow import _arguments
from pyflow._images import Images
from pyflow.mpi import Ranks


def together(fit, arguments):
    """Call a fit as one of the ranks of its argument `comm`, which it is given as `Ranks`.

    The first rank alone tells: it warns, shows progress, and calls what the caller wants called.
    """
    with Ranks(arguments["comm"]) as ranks, warnings.catch_warnings():
        if arguments["seed"] is None:
            raise ValueError("seed: must be a number, the same on all ranks, for a fit with comm")
        if ranks.rank:
            warnings.simplefilter("ignore")
            quiet = {"verbose": False, "progress": None, "callback": None}
            arguments = arguments | {k: v for k, v in quiet.items() if k in arguments}
        return fit(**arguments | {"comm": ranks})


def refuse(**given):
    """Refuse what a fit on several ranks does not have, if it is given."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise ValueError(f"{name}: is not for a fit with comm")


def parts(ranks, data, columns):
    """Return each rank's part of arrays whose rows are those of all ranks, one after another.

    Parameters
    ----------
    ranks : Ranks
    data : dict
        Arrays by their names, or None: "data_train", and others with a row for each of its rows;
        those whose names end with "_validate" have the rows of "data_validate".
    columns : int
        Of a table for GIS; 0 for images, and for SIG.

    Returns
    -------
    data : dict
    all : list of int
        Rows of all ranks, of training and of validation data.
    """
    found, n_all = {}, [0, 0]
    # tiles are those of the flow's precision, whatever else is beside the training rows
    bits = 32 if data["data_train"].dtype in (np.float32, np.float16) else 64
    for name, x in data.items():
        ranks.same(f"{name}: whether it is given", x is not None)
        if x is None:
            continue
        validate = name.endswith("_validate")
        rows = data["data_validate" if validate else "data_train"]
        if not x.shape:
            raise ValueError(f"{name}: must have a row for each point; its shape is ()")
        if not name.startswith("data_") and x.ndim != 1:
            raise ValueError(f"{name}: must have shape (n,); its shape is {x.shape}")
        if len(x) != len(rows):
            raise ValueError(f"{name}: has length {len(x)}; the data have {len(rows)} rows")
        images = isinstance(x, Images)
        part, n_all[validate] = ranks.part(x.x if images else x, name, columns, bits)
        found[name] = x.part(part) if images else part if part.ndim > 1 else np.asarray(part[:])
    return found, n_all


def whole(ranks, own, x, name):
    """Return the rows of all ranks, on every rank, of an array-like or None; own[name]: of x."""
    if not ranks.same(f"{name}: whether it is given", x is not None):
        return None
    x = np.asarray(_arguments.rows(x, name))
    if not x.shape:
        raise ValueError(f"{name}: must have a field for each point; its shape is ()")
    own[name] = len(x)
    return ranks.whole(x, name)
