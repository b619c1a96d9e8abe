"""All layers of a greedy flow trained together, and greedy fits that begin with a few such layers.

A greedy layer does what is best at its place, not what is best for the layers behind it. Trained
together by maximum likelihood from there, ten wide layers of few knots do on thousands of rows what
hundreds or thousands of greedy ones do not. Of many layers there is little to gain; of few rows,
little that validation rows confirm.
"""

import numpy as np

from pyflow import _core
from pyflow._members import gains
from pyflow._training import trained

SLICED = "sliced", "patch"  # layers of splines
# How far a step may go: knots move, and those of the layers behind with them, by less than a bin.
# The rate of Adam at its highest is REACH over layers times knots.
REACH = 1.6
STEPS, LEAST_EPOCHS = 8000, 10  # of training
BATCH = 128  # points
PATIENCE = 4  # training ends after one part of so many of all epochs without a gain
# The layers that a greedy fit begins with if they are to be polished: wide, and of few knots.
LAYERS, SLICES, KNOTS = 10, 16, 20


def polished(flow, data_train, data_validate, epochs, batch, learning_rate, **how):
    """Return `flow` with all layers trained together, or itself: `Flow.polish`."""
    if data_validate is None:
        raise ValueError("data_validate: must be given: it decides how long layers are trained")
    n = flow._points(data_train, "data_train")[1]
    options = _options(flow._core, n, epochs, batch, learning_rate)
    how |= dict.fromkeys(("condition_field", "condition_field_validate", "frozen", "names"))
    result = trained(
        flow,
        data_train,
        data_validate,
        noise=None,
        noise_condition=None,
        objective="likelihood",
        checkpoint=None,
        warn_unchanged=False,
        **how,
        **options,
    )
    more = [
        f.evaluate_density(data_validate, _known(how, "y_validate", "labels_validate"))
        for f in (flow, result)
    ]
    return result if gains(more[1] - more[0], how["weight_validate"]) else flow


def _known(how, *names):
    """Return what densities are conditioned on, or None."""
    return next((how[name] for name in names if how[name] is not None), None)


def _options(core, n, epochs=None, batch=None, learning_rate=None):
    """Return the trainer's options for a flow of the core and n points."""
    batch = min(BATCH if batch is None else batch, n)
    if epochs is None:
        epochs = max(round(STEPS * batch / max(n, 1)), LEAST_EPOCHS)
    layers = sum(kind in SLICED for kind in core.layers)
    if learning_rate is None and layers:
        knots = max((core.n_parameters / core.slices - core.dim) / 3, 2)  # (x, y, slope), direction
        learning_rate = min(REACH / (layers * knots), 1e-2)
    patience = max(epochs // PATIENCE, LEAST_EPOCHS)
    return {"epochs": epochs, "batch": batch, "patience": patience, "learning_rate": learning_rate}
