"""GIS of autoregressive layers: each column alone, a linear regression, then networks.

Greedy layers build a location and a scale that depend on other columns, or on conditions y, slowly.
So p(x|y), and p(x) where that is wanted, is made of what is solved in closed form - each column's
own distribution, and a regression of the columns on y and on one another - and of autoregressive
layers on it, trained together by maximum likelihood. Where the truth is linear the start is best,
and validation data keep it.
"""

from functools import partial

import numpy as np

from pyflow import _core, _tables
from pyflow._members import fitted, gains, in_both
from pyflow._progress import InTurn
from pyflow._training import condition_names, greedy, reach
from pyflow.flow import parameters_of
from pyflow.layers import Autoregressive

LAYERS = 3  # autoregressive, with columns in one order and the other in turn
HIDDEN = 64, 64  # units of their networks
BATCH = 100  # rows
STEPS = 100  # of training, times the square root of the rows
RATE = 3e-3  # of Adam, at its highest
# How long a network's weights remember, in epochs (`Flow.train`): both are tried, and the better on
# validation rows is kept. What is smooth in y likes the first, what is detailed the other.
MEMORIES = 24.0, 150.0
WIDE = 50  # columns of more are not tried where it is not asked for: the time is their square
PATIENCE = 5  # training ends after one part of so many of all epochs without a gain, but not ten
WEAK = 1.0  # the regression's prior: as many rows without any dependence


def autoregressive(data, condition, condition_validate, bounds, columns, n_models, how, first=None):
    """Return p(x|y), `GIS(..., condition=y)`, or p(x), `GIS(..., autoregressive=True)`.

    Parameters
    ----------
    data : dict
        Of the rows and their weights.
    condition, condition_validate
        The caller's.
    bounds : (d, 2) array or None
    columns : sequence of str or None
    n_models : int
    how : dict
        checkpoint, seed, progress, verbose.
    first : callable, optional
        Given the first flow, it says whether more are worth the time, as in `_members.fitted`.
    """
    train, validate = data["data_train"], data["data_validate"]
    if validate is None and n_models in (None, 1):
        raise ValueError("data_validate: must be given where layers are trained, or n_models")
    for name, x in (("data_train", train), ("data_validate", validate)):
        if x is not None and (len(x.shape) != 2 or not x.shape[0]):
            raise ValueError(f"{name}: must be rows x columns; its shape is {x.shape}")
    note, more, tells = greedy(columns, None, None, bounds, None, None)
    if condition is not None:
        data = data | _conditions(condition, condition_validate, train, validate, note)
    memories = list(MEMORIES)  # of the first fit the better one is left, and serves all others
    return fitted(
        n_models,
        partial(_fit, memories=memories, hopes=first),
        "train",
        "GIS",
        data,
        {},
        note,
        tells,
        first=first or (lambda flow: True),
        total=None,
        **how,
        **more,
    )


def _conditions(condition, condition_validate, train, validate, note):
    """Return y of both kinds of rows, and put what they are called into the note."""
    known = _tables.names(condition, "condition")
    y = parameters_of(condition, "condition", None, len(train), each=True)
    _refuse_constant(y, "", known)
    note["names"] = condition_names(known, None, y.shape[1])
    known_range = reach(np.asarray(train))
    if np.isfinite(known_range).all():  # else the core says where it is not
        note["x_range"] = known_range.tolist()
    if validate is None:
        if condition_validate is not None:
            raise ValueError("condition_validate: given without data_validate")
        return {"y_train": y}
    if condition_validate is None:
        raise ValueError("condition_validate: must be given, since condition is")
    held = _tables.matched(condition_validate, "condition_validate", known)
    held = parameters_of(held, "condition_validate", y.shape[1], len(validate), each=True)
    return {"y_train": y, "y_validate": held}


def _refuse_constant(y, where, names=None):
    """Refuse conditions (n, p) that cannot be scaled to a variance of one."""
    for j, column in enumerate(y.T):
        what = f"condition: {_tables.column(j, names)}"
        if column.min() == column.max():
            raise ValueError(f"{what} is constant{where}")
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            variance = column.var()
        if not np.finfo(float).tiny <= variance < np.inf:  # of what lies beyond 1e+-150 or so
            raise ValueError(
                f"{what} goes from {column.min():g} to {column.max():g}{where}, "
                "whose variance is no number: give it other units"
            )


def _fit(
    *,
    data_train,
    data_validate,
    seed,
    note,
    progress,
    warn,
    memories,
    hopes=None,
    y_train=None,
    y_validate=None,
    bounds=None,
    checkpoint=None,
    **weights,
):
    """Fit p(x|y), or p(x) without y: a function of the core's kind, for `run`.

    Of `memories` only the best is left. They are tried as long as what hopes(flow) says is true.
    """
    heard = []
    first = _columns(data_train, data_validate, bounds, seed, heard, weights)
    if heard:
        _refuse_overlap(data_train, data_validate, y_train, y_validate)
    if "weight_train" in weights:  # nor do y's mean, scale and range see rows that have none
        kept = np.asarray(weights["weight_train"]) != 0
        data_train = np.asarray(data_train[:])[kept]
        y_train = None if y_train is None else y_train[kept]
        weights["weight_train"] = np.asarray(weights["weight_train"])[kept]
    if y_train is not None:
        _refuse_constant(y_train, " in the rows of a fit")
    flow = _start(first, data_train, y_train, weights.get("weight_train"), seed)
    n, best = len(data_train), None
    batch = min(BATCH, n)
    epochs = max(round(STEPS * np.sqrt(n) * batch / n), 1)
    told = InTurn(progress)

    def better(flow):
        """Return the better of this and the best so far: mean and rows' log p, and the flow."""
        logp = flow.evaluate_density(data_validate, y_validate)
        reached = np.average(logp, weights=weights.get("weight_validate"))
        return (reached, logp, flow) if best is None or reached > best[0] else best

    tried = tuple(memories)
    for memory in tried:
        try:
            trained = _core.train(
                flow=flow,
                data_train=data_train,
                data_validate=data_validate,
                y_train=y_train,
                y_validate=y_validate,
                **weights,
                epochs=epochs,
                batch=batch,
                patience=max(epochs // PATIENCE, 10),
                learning_rate=RATE,
                weight_decay=batch / (memory * n * RATE),
                frozen=[kind != "autoregressive" for kind in flow.layers],
                seed=seed,
                note=note,
                progress=told.next(),
                warn=warn,
            )
        except BaseException as error:
            if getattr(error, "flow", None) is not None:
                *_, error.flow = better(error.flow)
            raise
        if (found := better(trained)) is not best:
            best, chosen = found, memory
        if hopes is not None and memory != tried[-1] and not hopes(trained):
            break
    memories[:] = [chosen]
    _, logp, trained = best
    more = logp - flow.evaluate_density(data_validate, y_validate)
    return trained if gains(more, weights.get("weight_validate")) else flow


def _refuse_overlap(x, x_validate, y, y_validate):
    """Refuse validation rows that are training rows too; equal x with other y are not."""
    rows = [x[:], x_validate[:]]
    if y is not None:
        rows = [np.column_stack(pair) for pair in zip(rows, (y, y_validate), strict=True)]
    both = in_both(*rows)
    if both:
        raise ValueError(
            f"data_validate: {both} of its {len(x_validate)} rows are in data_train too: "
            "give rows that are not trained on. Columns of few values (integers, flags) have no "
            "density, unless uniform noise of the values' spacing is added"
        )


def _columns(train, validate, bounds, seed, heard, weights):
    """Return the layers that GIS begins with: each column becomes N(0, 1). Warnings are heard."""
    more = {} if bounds is None else {"bounds": bounds}
    first = _core.gis_fit(
        data_train=train,
        data_validate=validate,
        **weights,
        **more,
        max_layers=1,
        marginal_first=True,
        whiten=False,
        n_slices=1,
        slice_steps=0,
        seed=seed,
        warn=lambda message, *_: heard.append(message),
    )
    columns = first.layers.count("columns")
    return first.truncate(columns + (first.layers[columns : columns + 1] == ("sliced",)))


def _start(first, x, y, weight, seed):
    """Return the flow before training, a regression in its first autoregressive layer."""
    z = np.asarray(first.forward(np.ascontiguousarray(x))[0], dtype=np.float64)
    weight = np.ones(len(z)) if weight is None else weight * len(z) / weight.sum()
    known = z if y is None else np.column_stack([(y - y.mean(axis=0)) / y.std(axis=0), z])
    d, p = z.shape[1], known.shape[1] - z.shape[1]
    linear, log_scale = np.zeros((d, p + d)), np.zeros(d)
    for j in range(d):
        of = known[:, : p + j]
        normal = (of.T * weight) @ of + WEAK * np.eye(p + j)
        linear[j, : p + j] = np.linalg.solve(normal, of.T @ (weight * z[:, j]))
        rest = z[:, j] - of @ linear[j, : p + j]
        log_scale[j] = 0.5 * np.log((weight @ rest**2 + WEAK) / (len(z) + WEAK))
    order = list(range(d))
    layers = [Autoregressive(order, HIDDEN, y=y, linear=linear, log_scale=log_scale)]
    layers += [Autoregressive(order[:: (-1) ** k], HIDDEN, y=y) for k in range(1, LAYERS)]
    return _core.compose(
        [layer._core((d,), (seed + k) % 2**64) for k, layer in enumerate(layers)],
        shape=(d,),
        bits=8 * np.dtype(first.dtype).itemsize,
        flow=first,
    )
