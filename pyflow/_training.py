"""What fits have in common: their arguments, and one call of the core."""

import inspect
import json
import zlib

import numpy as np

from pyflow import _arguments, _checkpoint, _core, _tables
from pyflow._arguments import boolean, real, warn
from pyflow._progress import Progress, reporter
from pyflow.fields import wavenumbers
from pyflow.flow import NOISE, Flow, parameters_of
from pyflow.mixture import Mixture
from pyflow.posterior import warn_outside

# Arrays among the options; those that the data make of a mask, and of a range of modes, come after.
ARRAYS = ("noise_k", "noise_power", "noise_map", "mask")
ARRAYS += tuple(f"fill_{k}" for k in ("pixel", "neighbour", "range", "weight", "spread", "moments"))
ARRAYS += tuple(f"band_{k}" for k in ("k", "range", "level"))
# Options that say what is heard of a fit, not what comes of it.
WATCH = ("checkpoint_seconds", "callback_every", "callback_rows")
OBJECTIVES = {"likelihood": 0.0, "posterior": 1.0}


def run(
    fit,
    kind,
    name,
    data,
    given,
    note,
    tells=None,
    *,
    checkpoint,
    seed,
    progress,
    verbose,
    total=None,
    found=None,
    warn=warn,
    ranks=None,
    rows=(0, 0),
    **more,
):
    """Call a fit of the core with what every fit has: a checkpoint, progress, warnings.

    Parameters
    ----------
    fit : function of _core
    kind : str
        Of `_core.options`.
    name : str
        Of the fit, for the progress line.
    data : dict
        Arrays that the fit is of; None for what is not given.
    given : dict
        Options of the core that were given.
    note : dict
        What is to travel with the flow.
    tells : dict
        What else tells this fit from others, beside all options and data.
    checkpoint, seed, progress, verbose
        The caller's.
    total : callable, optional
        Gives the number of steps, or None, from all options.
    found : Flow, optional
        What the checkpoint holds, if that has been read.
    warn : callable
        Of what a fit warns: the message and the category.
    ranks : Ranks, optional
        That fit together, each with its part of the rows of a greedy fit, or all of another's.
    rows : (int, int)
        Of all ranks, of the training and of the validation data.
    **more
        What else the core is to be told.

    Returns
    -------
    Flow
        What a fit that ends early had reached is the exception's attribute `flow`; None before
        there is a layer.
    """
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: must be callable, not {progress!r}")
    boolean("verbose", verbose)
    given = {k: v for k, v in given.items() if v is not None} | {"seed": _arguments.seed(seed)}
    data = {k: v for k, v in data.items() if v is not None}
    data |= {k: given.pop(k) for k in ARRAYS if k in given}
    options = _core.options(kind, **given)
    tells = {k: v for k, v in options.items() if k not in WATCH} | (tells or {})
    greedy = kind in ("gis", "sig")
    if ranks:
        ranks.same("checkpoint: whether it is given", checkpoint is not None)
    seen = data if checkpoint is not None or not (ranks and greedy) else {}
    digest = _checkpoint.digest(tells, seen, ranks if greedy else None)
    note = {"pyflow": _core.__version__, **note, "fit": digest}
    if ranks:
        told = sorted(digest, key=lambda name: name.startswith(("data_", "y_")))  # others bend them
        ranks.same_each({"pyflow": note["pyflow"], **{name: digest[name] for name in told}})
        more["ranks"] = (ranks.sum, ranks.rank, ranks.size, *rows)
        name = f"{name} of {ranks.size} ranks"
    if checkpoint is not None:
        _checkpoint.check(checkpoint, seed)
        found = _checkpoint.resume(checkpoint, note, found)
        if ranks:  # nobody writes before all have read
            ranks.same("checkpoint: what is in it", found and zlib.crc32(found.to_bytes()))
        if found is not None and not found.unfinished:
            return found
        if found is not None and greedy:
            more["flow"] = found._core
        if greedy and ranks and ranks.rank:
            checkpoint = None  # the first rank writes it
    steps = total(options) if total else None
    with _checkpoint.mentioned(checkpoint), reporter(steps, verbose, progress, name) as report:
        try:
            core = fit(
                **data,
                **given,
                **more,
                checkpoint=checkpoint,
                note=json.dumps({**note, "unfinished": True}, allow_nan=False),
                progress=report and (lambda *values: report(Progress(*values))),
                warn=warn,
            )
        except BaseException as error:
            _tables.name_columns(error, note.get("columns"), note.get("names"))
            core = getattr(error, "flow", None)
            error.flow = Flow._of(core) if isinstance(core, _core.Flow) else None
            raise
    return Flow._of(core.with_note(json.dumps(note, allow_nan=False)))


def saved(flow, checkpoint, ranks=None):
    """Save a finished flow to the checkpoint, if there is one, and return it."""
    if checkpoint is not None and not (ranks and ranks.rank):
        with _checkpoint.mentioned(checkpoint):
            try:
                flow.save(checkpoint)
                _checkpoint.forget_members(checkpoint, len(getattr(flow, "members", ())))
            except BaseException as error:
                error.flow = flow
                raise
    return flow


def epochs(options):
    """Return how many epochs training takes, in all stages."""
    return options["epochs"] + options["posterior_epochs"] * (options["posterior_weight"] > 0)


def refuse_unknown(function, unknown):
    """Refuse options that a function does not have, with the likeliest meant."""
    for name in unknown:
        known = [p for p in inspect.signature(function).parameters if p not in ("self", "unknown")]
        raise _arguments.unknown_option(function.__name__, name, known)


# ---- arguments -----------------------------------------------------------------------------------


def classes(labels, labels_validate, has_validate, known, whose, ranks=None):
    """Return the sorted labels and the arguments of the core, or None and nothing.

    Parameters
    ----------
    labels, labels_validate
        The caller's.
    has_validate : bool
    known : array or None
        The classes of the flow that the fit goes on from.
    whose : str
        What that is called in messages; "" if there is none.
    ranks : Ranks, optional
        Whose labels these are.
    """
    if ranks:
        ranks.same("labels: whether they are given", labels is not None)
    if labels is None:
        if labels_validate is not None:
            raise ValueError("labels_validate: given without labels")
        if known is not None:
            raise ValueError(f"labels: {whose} has classes, and needs a label for each point")
        return None, {}
    if whose and known is None:
        raise ValueError(f"labels: {whose} has no classes")
    if has_validate and labels_validate is None:
        raise ValueError("labels_validate: must be given, since labels are")
    labels = _arguments.labels(labels, "labels")
    values = np.unique(labels) if known is None else known
    if ranks and known is None:
        each = [v for v in ranks.gather(values, "labels") if len(v)] or [values]
        if len({v.dtype.kind in "US" for v in each}) > 1:
            raise ValueError("labels: are numbers on some ranks, and strings on others")
        values = np.unique(np.concatenate(each))
        labels = labels if len(labels) else labels.astype(values.dtype)
    of = "labels" if known is None else f"the labels of {whose}"
    given = {"labels": _arguments.classes(values, labels, "labels", of)}
    if has_validate:
        labels = _arguments.labels(labels_validate, "labels_validate")
        given["labels_validate"] = _arguments.classes(values, labels, "labels_validate", of)
    return values, given


def known_classes(model):
    """Return what `classes` asks of a flow that a fit goes on from, None if there is none."""
    if model is not None and not isinstance(model, Flow):
        raise TypeError(f"model: must be a pyflow.Flow, not {type(model).__name__}")
    if isinstance(model, Mixture):
        raise TypeError(
            "model: is a mixture: a fit goes on from one of its members (or n_models=1)"
        )
    return (None, "") if model is None else (model.labels, "the flow to go on from")


def greedy(columns, shape, values, bounds, model, noisy):
    """Return what the greedy fits, GIS and SIG, tell alike: the note, the core, the checkpoint.

    Parameters
    ----------
    columns : sequence of str or None
        Names of a table's columns.
    shape : (int, int, int) or None
        Of an image.
    values : array or None
        The sorted labels.
    bounds : sequence or dict, or None
        The caller's, of every column.
    model : Flow or None
        To go on from.
    noisy : bool or None
        Whether images are made continuous.

    Returns
    -------
    note, more, tells : dict
    """
    note, more, tells = {}, {}, {}
    if columns is not None:
        note["columns"] = list(columns)
    if shape is not None:
        note["image_shape"] = tells["image_shape"] = list(shape)
        note["dequantized"] = tells["dequantize"] = noisy
        more["image"] = shape
    if values is not None:
        note["labels"] = values.tolist()
        more["n_classes"] = len(values)
    if bounds is not None:
        more["bounds"] = _arguments.bounds(bounds, columns)
        tells["bounds"] = [
            [b if np.isfinite(b) else None for b in p] for p in more["bounds"].tolist()
        ]
    if model is not None:
        more["flow"] = model._core
        tells["model"] = zlib.crc32(model.to_bytes())
    return note, more, tells


def conditions(y_train, y_validate, n_train, n_validate, p=None, ranks=None):
    """Return y_train and y_validate as the core takes them, None for what is not there.

    n_validate is None without validation data. Of ranks, those of all.
    """
    if ranks:
        ranks.same("y_train: whether it is given", y_train is not None)
    if y_train is None:
        if y_validate is not None:
            raise ValueError("y_train: is missing, although y_validate is given")
        return None, None
    if y_validate is None and n_validate is not None:
        raise ValueError("y_validate: is missing, although y_train is given")
    if y_validate is not None and n_validate is None:
        raise ValueError("data_validate: is missing, although y_validate is given")
    names = _tables.names(y_train, "y_train")
    y_train = parameters_of(y_train, "y_train", p, n_train, each=True)
    y_train = ranks.whole(y_train, "y_train") if ranks else y_train
    for j, column in enumerate(y_train.T):
        if column.min() == column.max():
            raise ValueError(f"y_train: {_tables.column(j, names)} is constant")
    if y_validate is not None:
        y_validate = _tables.matched(y_validate, "y_validate", names)
        p = y_train.shape[1]
        y_validate = parameters_of(y_validate, "y_validate", p, n_validate, each=True)
        y_validate = ranks.whole(y_validate, "y_validate") if ranks else y_validate
    return y_train, y_validate


def condition_names(names, y_train, p):
    """Return what p conditions are called: as given, or as the columns of the table y_train."""
    if names is None and y_train is not None:
        names = _tables.names(y_train, "y_train")
    return _arguments.names(names, p, "conditions")


def reach(y):
    """Least and most of every column of y (n, p), as (p, 2)."""
    return np.stack([y.min(axis=0), y.max(axis=0)], axis=1)


def noise_options(noise, shape, box):
    """Return the core's options for a number, a range of two, a map, or the spectrum of fields."""
    if callable(noise):
        if box is None:
            raise TypeError(f"noise: a power spectrum is for fields, not {noise!r}")
        k, _ = wavenumbers(shape, box)
        k = np.unique(k[k > 0]) if k.size > 1 else np.ones(1)
        try:
            power = np.asarray(noise(k))
        except Exception as error:
            raise ValueError(f"noise: as a function of k it fails: {error!r}") from error
        if power.dtype.kind not in "iuf":
            raise TypeError(f"noise: must give real numbers; the dtype is {power.dtype}")
        if power.shape not in ((), k.shape):
            raise ValueError(f"noise: gave shape {power.shape} for wave numbers of shape {k.shape}")
        if not (np.isfinite(power).all() and (power > 0).all()):
            raise ValueError(
                "noise: its power must be positive and finite at every |k| of the mesh"
            )
        power = np.ascontiguousarray(np.broadcast_to(power, k.shape), np.float64)
        return {"noise": (1.0, 1.0), "noise_k": k, "noise_power": power}
    if noise is None:
        return {"noise": (0.0, 0.0)}
    if np.ndim(noise) > 1:
        if box is None:
            raise TypeError("noise: a map of the noise is for fields")
        noise = np.asarray(noise)
        if noise.dtype.kind not in "iuf":
            raise TypeError(f"noise: must hold real numbers; its dtype is {noise.dtype}")
        if noise.shape != tuple(shape):
            raise ValueError(
                f"noise: a map has the shape of a field, {tuple(shape)}; its shape is {noise.shape}"
            )
        if not (np.isfinite(noise).all() and (noise >= 0).all() and (noise > 0).any()):
            raise ValueError("noise: must be finite, not negative and not zero everywhere")
        return {"noise": (1.0, 1.0), "noise_map": noise.astype(np.float64).ravel()}
    values = [noise] if np.ndim(noise) == 0 else list(noise)
    if len(values) not in (1, 2):
        raise ValueError(f"noise: must be a number, a range of two, or P(k), not {noise!r}")
    lo, hi = real("noise", values[0]), real("noise", values[-1])
    if not 0 <= lo <= hi:
        raise ValueError(
            f"noise: must be a standard deviation >= 0, or two of them, low and high, not {noise!r}"
        )
    return {"noise": (lo, hi)}


def posterior_weight(objective, p):
    """Return the weight of the posterior in an objective."""
    if not isinstance(objective, str):
        weight = real("objective", objective)
    elif objective in OBJECTIVES:
        weight = OBJECTIVES[objective]
    else:
        names = " or ".join(map(repr, OBJECTIVES))
        raise ValueError(f"objective: must be {names} or a weight, not {objective!r}")
    if not 0 <= weight <= 1:
        raise ValueError(f"objective: the posterior's weight must be 0 to 1, not {objective}")
    if weight > 0 and not p:
        raise ValueError("objective: there is no y_train, and so no posterior")
    return weight


def trained(
    flow,
    data_train,
    data_validate,
    y_train,
    y_validate,
    condition_field,
    condition_field_validate,
    weight_train,
    weight_validate,
    labels,
    labels_validate,
    frozen,
    names,
    noise,
    noise_condition,
    objective,
    checkpoint,
    seed,
    progress,
    verbose,
    warn_unchanged=True,
    **given,
):
    """Train a flow: `Flow.train`."""
    core, box = flow._core, flow.box_size
    table = y_train
    data_train, n_train = flow._points(data_train, "data_train")
    n_validate = None
    if data_validate is not None:
        data_validate, n_validate = flow._points(data_validate, "data_validate")
    if flow.mask is not None:  # what stands elsewhere makes no other fit
        data_train = np.where(flow.mask, data_train, 0)
        data_validate = None if data_validate is None else np.where(flow.mask, data_validate, 0)
    p = core.n_conditions - core.noise_condition if core.n_conditions else None
    if p and y_train is None:
        raise ValueError(f"y_train: this flow is conditional; it needs {', '.join(flow.names[:p])}")
    if core.n_conditions:
        y_train = _tables.matched(y_train, "y_train", flow.names[:p])
    y_train, y_validate = conditions(y_train, y_validate, n_train, n_validate, p)
    if core.noise_condition and noise is None:
        raise ValueError("noise: this flow is conditional on it; give its range")
    given |= noise_options(noise, flow.shape, box)
    given["noise_condition"] = core.noise_condition if noise_condition is None else noise_condition
    n_y = 0 if y_train is None else y_train.shape[1]
    given["posterior_weight"] = posterior_weight(objective, n_y)
    kept = ("columns", "image_shape", "dequantized", "names", "labels")
    note = {k: v for k, v in flow._note.items() if k in kept}
    if core.n_conditions:
        note["names"] = list(flow.names)
    else:
        found = condition_names(names, table, n_y) + [NOISE] * bool(given["noise_condition"])
        note["names"] = found
    if y_validate is not None:
        warn_outside(note["names"][:n_y], *reach(y_train).T, reach(y_validate), "y_validate")
    whose = "this flow"
    _, label_arrays = classes(labels, labels_validate, n_validate is not None, flow._labels, whose)
    if label_arrays and (n_y or given["noise_condition"]):
        raise ValueError("y_train: a flow of classes is not conditioned on parameters as well")
    data = {"data_train": data_train, "data_validate": data_validate} | label_arrays
    data |= {"y_train": y_train, "y_validate": y_validate}
    data |= flow._beside(condition_field, n_train)
    if data_validate is None and condition_field_validate is not None:
        raise ValueError("condition_field_validate: given without data_validate")
    if data_validate is not None:
        data |= flow._beside(condition_field_validate, n_validate, "condition_field_validate")
    if data_validate is None and weight_validate is not None:
        raise ValueError("weight_validate: given without data_validate")
    weights = {"weight_train": weight_train, "weight_validate": weight_validate}
    data |= {k: _arguments.rows(v, k) for k, v in weights.items() if v is not None}
    if frozen is not None:
        frozen = [int(boolean("frozen", layer)) for layer in frozen]
        if len(frozen) != len(flow):
            raise ValueError(f"frozen: has {len(frozen)} entries for {len(flow)} layers")
    tells = {"flow": zlib.crc32(flow.to_bytes()), "frozen": frozen}
    result = run(
        _core.train,
        "train",
        "train",
        data,
        given,
        note,
        tells,
        checkpoint=checkpoint,
        seed=seed,
        progress=progress,
        verbose=verbose,
        total=epochs,
        flow=core,
        frozen=frozen,
    )
    unchanged = len(result.history["epoch"]) == len(core.history())
    if data_validate is not None and unchanged and warn_unchanged:
        _arguments.warn(
            "data_validate: no epoch gained anything on it, and the flow stays as it was: "
            "try another learning_rate, or more epochs"
        )
    return saved(result, checkpoint)
