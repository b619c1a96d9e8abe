"""GIS of rows that the ranks of a cluster have: see `pyflow.mpi` and pf_ranks in pyflow.h."""

import json
import os

import numpy as np

from pyflow import _arguments, _core, _tables
from pyflow._progress import Progress, reporter
from pyflow._training import greedy
from pyflow.flow import Flow

# Options of GIS that a fit on several ranks does not have
NOT_SHARED = ("condition", "autoregressive", "polish", "image_shape", "dequantize", "weight_train")
NOT_SHARED += ("weight_validate", "labels", "n_models", "model", "checkpoint")


def fitted(
    comm,
    data_train,
    data_validate,
    given,
    refused,
    *,
    bounds,
    scratch,
    seed,
    progress,
    verbose,
):
    """Return the flow that all ranks fit together; arguments are those of `GIS`.

    given: options of the core. refused: what was given of NOT_SHARED.
    """
    from pyflow.mpi import Ranks

    with Ranks(comm) as ranks:
        if refused:
            raise ValueError(f"{next(iter(refused))}: is not for a fit with comm")
        if seed is None:
            raise ValueError("seed: must be a number, the same on all ranks, for a fit with comm")
        if progress is not None and not callable(progress):
            raise TypeError(f"progress: must be callable, not {progress!r}")
        verbose = _arguments.boolean("verbose", verbose)
        given = {k: v for k, v in given.items() if v is not None}
        given["seed"] = _arguments.seed(seed)
        options = _core.options("gis", **given)
        ranks.same("version of pyflow", _core.__version__)
        ranks.same("options", json.dumps({k: str(v) for k, v in options.items()}))
        columns = ranks.same("columns", _tables.names(data_train, "data_train"))
        note, more, _ = greedy(columns, None, None, bounds, None, None)
        ranks.same("bounds", None if bounds is None else more["bounds"].tolist())
        whole = ranks.same("data_validate: whether it is given", data_validate is not None)
        data, rows, on_disk = {}, [0, 0], False
        for i, (name, x) in enumerate((("train", data_train), ("validate", data_validate))):
            if i and not whole:
                break
            name = f"data_{name}"
            x = _arguments.rows(_tables.matched(x, name, columns), name)
            on_disk |= not isinstance(x, np.ndarray) or isinstance(x, np.memmap)
            data[name], rows[i] = ranks.part(x, name)
        if scratch is None and on_disk:
            import tempfile  # here, because it takes long

            scratch = tempfile.gettempdir()
        first = ranks.rank == 0
        note = {"pyflow": _core.__version__, **note}
        steps = options["max_layers"] or None
        heard = progress if first else None
        with reporter(steps, verbose and first, heard, f"GIS of {ranks.size} ranks") as report:
            core = _core.gis_fit(
                **data,
                **given,
                **more,
                scratch=None if scratch is None else os.fspath(scratch),
                ranks=(ranks.sum, ranks.rank, ranks.size, *rows),
                note=json.dumps({**note, "unfinished": True}, allow_nan=False),
                progress=report and (lambda *values: report(Progress(*values))),
                warn=_arguments.warn if first else None,
            )
        return Flow._of(core.with_note(json.dumps(note, allow_nan=False)))
