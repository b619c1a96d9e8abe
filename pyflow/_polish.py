"""All layers of a greedy flow trained together, and greedy fits that begin with a few such layers.

A greedy layer does what is best at its place, not what is best for the layers behind it. Trained
together by maximum likelihood from there, ten wide layers of few knots do on thousands of rows what
hundreds or thousands of greedy ones do not. Of many layers there is little to gain; of few rows,
little that validation rows confirm.
"""

from functools import partial

import numpy as np

from pyflow import _arguments, _core
from pyflow._members import gains
from pyflow._progress import InTurn
from pyflow._training import trained
from pyflow.mixture import Mixture

SLICED = {"sliced", "patch"}  # layers of splines
GREEDY = SLICED | {"columns", "affine", "scale"}  # all that GIS and SIG make
# How far a step may go: knots move, and those of the layers behind with them, by less than a bin.
# The rate of Adam at its highest is REACH over layers times knots.
REACH = 1.0
# What `Flow.train` has besides
NOT_ASKED = "condition_field", "condition_field_validate", "frozen", "names", "checkpoint"
NOT_ASKED += "noise", "noise_condition"
STEPS, LEAST_EPOCHS = 120, 10  # of training, the former times the square root of the rows
BATCH = 128  # points
PATIENCE = 4  # training ends after one part of so many of all epochs without a gain
# The layers that a greedy fit begins with if they are to be polished: wide, and of few knots.
LAYERS, SLICES, KNOTS = 10, 16, 20
# What the trainer takes of a greedy fit's arguments
SHARED = "data_train", "data_validate", "weight_train", "weight_validate"
SHARED += "labels", "labels_validate", "seed", "note", "warn"


def polished(flow, data_train, data_validate, epochs, batch, learning_rate, **how):
    """Return `flow` with all layers trained together, or itself: `Flow.polish`."""
    if isinstance(flow, Mixture):
        raise TypeError(
            "a mixture is not polished, but its members are, and mixed again: "
            "Mixture([m.polish(...) for m in model.members], model.weights)"
        )
    if data_validate is None:
        raise ValueError("data_validate: must be given: it decides how long layers are trained")
    if how["y_train"] is not None and not flow._core.n_conditions:
        raise ValueError("y_train: this flow has no conditions: `train` gives it some")
    n = flow._points(data_train, "data_train")[1]
    if not n:
        raise ValueError("data_train: has no rows")
    options = _options(flow._core, n, epochs, batch, learning_rate)
    result = trained(
        flow,
        data_train,
        data_validate,
        **how | options,
        **dict.fromkeys(NOT_ASKED),
        objective="likelihood",
        warn_unchanged=False,
    )
    y = how["labels_validate"] if how["y_validate"] is None else how["y_validate"]
    before, after = (f.evaluate_density(data_validate, y) for f in (flow, result))
    return result if gains(after - before, how["weight_validate"]) else flow


def _options(core, n, epochs=None, batch=None, learning_rate=None):
    """Return the trainer's options for a flow of the core and n points."""
    batch = min(BATCH if batch is None else _arguments.integer("batch", batch, 1), n)
    if epochs is None:
        epochs = max(round(STEPS * batch / np.sqrt(max(n, 1))), LEAST_EPOCHS)
    epochs = _arguments.integer("epochs", epochs, 1)
    layers = sum(kind in SLICED for kind in core.layers)
    if learning_rate is None and layers and set(core.layers) <= GREEDY:
        knots = max((core.n_parameters / core.slices - core.dim) / 3, 2)  # (x, y, slope), direction
        learning_rate = min(REACH / (layers * knots), 1e-2)
    patience = max(epochs // PATIENCE, LEAST_EPOCHS)
    return {"epochs": epochs, "batch": batch, "patience": patience, "learning_rate": learning_rate}


def chosen(polish):
    """Return the fit, a function of the core's kind, that `GIS(..., polish=)` asks for."""
    if isinstance(polish, str) and polish == "auto":
        return partial(fit, both=True)
    if polish is not None and not isinstance(polish, (bool, np.bool_)):
        raise ValueError(f'polish: must be True, False or "auto", not {polish!r}')
    return fit if polish else _core.gis_fit


def fit(both=False, **arguments):
    """Fit a flow whose first layers are polished: a function of the core's kind, as `gis_fit` is.

    Parameters
    ----------
    both : bool
        Fit without polishing too, and keep that, unless the mean log p of validation rows gains
        more than its standard error.
    **arguments
        Of `_core.gis_fit`. Nothing is written to a checkpoint. A fit that goes on from a flow has
        its first layers already, and validation rows that are training rows too cannot say when
        training is to end: these are fitted as without polishing.
    """
    if "flow" in arguments:
        return _core.gis_fit(**arguments)
    if "data_validate" not in arguments:
        raise ValueError("data_validate: must be given where layers are polished, or n_models")
    arguments["checkpoint"] = None
    told = InTurn(arguments["progress"])
    few = _few(arguments, told)
    if few is None:
        return _core.gis_fit(**arguments | {"progress": told.next()})
    polished = _polished(few, arguments, told)
    if not both:
        return polished
    x, beside = arguments["data_validate"], {}
    if "labels_validate" in arguments:
        beside["labels"] = arguments["labels_validate"]
    try:
        plain = _core.gis_fit(**arguments | {"progress": told.next()})
        more = polished.evaluate_density(x, **beside) - plain.evaluate_density(x, **beside)
        return polished if gains(more, arguments.get("weight_validate")) else plain
    except BaseException as error:
        error.flow = polished
        raise


def _few(arguments, told):
    """Fit the first layers greedily; None where rows are in both kinds of data."""
    heard = []
    few = {
        "n_slices": arguments.get("n_slices", min(arguments["data_train"].shape[1], SLICES)),
        "n_knots": arguments.get("n_knots", KNOTS),
        "max_layers": min(LAYERS, arguments.get("max_layers", LAYERS)),
        "progress": told.next(),
        "warn": lambda *what: heard.append(what),
    }
    flow = _core.gis_fit(**arguments | few)
    return None if heard else flow


def _polished(flow, arguments, told):
    """Train the first layers together, and add greedy ones."""
    shared = {name: arguments[name] for name in SHARED if name in arguments}
    options = _options(flow, len(arguments["data_train"]))
    flow = _core.train(flow=flow, **shared, **options, progress=told.next())
    return _core.gis_fit(**arguments | {"flow": flow, "progress": told.next(flow.n_layers)})
