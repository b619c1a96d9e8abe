"""What the commands of the command line do: each takes the arguments that were parsed."""

import errno
import json
import os

import numpy as np

from pyflow import _arguments, _checkpoint, _files, _tables, plots
from pyflow._members import USUAL
from pyflow.flow import load
from pyflow.gis import GIS
from pyflow.mixture import Mixture
from pyflow.threads import set_num_threads

FRACTION = 0.2  # of the rows, held out
SHOWN = 20000  # samples of a picture, and most rows


class ArgumentsError(Exception):
    """Arguments that do not go together."""


def fit(args):
    """Fit a model and save it."""
    _start(args, [args.table, args.validate])
    if args.validate and args.validation_fraction is not None:
        raise ArgumentsError("--validation-fraction: is for a fit without --validate")
    fraction = FRACTION if args.validation_fraction is None else args.validation_fraction
    if not 0 <= fraction < 1:
        raise ValueError(f"--validation-fraction: must be at least 0 and below 1, not {fraction}")
    train = _parts(_read(args.table), args)
    if args.validate:
        validate = _parts(_read(args.validate), args, "--validate")
    else:
        train, validate = _split(train, fraction, args)
    _few(_length(train["x"]), train["x"])
    names = {"x": "data", "y": "condition", "weight": "weight", "labels": "labels"}
    given = {f"{names[k]}_train": v for k, v in train.items()}
    given |= {f"{names[k]}_validate": v for k, v in validate.items()}
    for name, part in given.items():
        rows = args.told.get(name, (None, None))[0]
        args.told[name] = rows, list(part) if isinstance(part, dict) else None
    for name in ("condition", "labels"):
        if f"{name}_train" in given:
            given[name] = given.pop(f"{name}_train")
            args.told[name] = args.told.pop(f"{name}_train")
    options = ("n_models", "max_layers", "patience", "polish", "autoregressive", "checkpoint")
    how = {k: getattr(args, k) for k in options if getattr(args, k) is not None}
    if args.bounds:
        how["bounds"] = _bounds(args.bounds, train["x"])
    model = GIS(**given, **how, seed=args.seed or 0, verbose=not args.quiet)
    model.save(args.output)
    counts = {"rows_train": _length(train["x"]), "rows_validate": _length(validate.get("x", ()))}
    _end(args, {"model": args.output, **_described(model), **counts}, f"{args.output}: {model!r}")


def logp(args):
    """Write the log-density of each row."""
    _start(args, [args.model, args.table])
    model = load(args.model)
    x, y = _points(_read(args.table), model, args)
    logs = np.atleast_1d(model.evaluate_density(x, y))
    _files.write(args.output, {"logp": logs})
    mean, outside = logs.mean() if len(logs) else np.nan, int(np.isneginf(logs).sum())
    found = {"output": args.output, "rows": len(logs), "mean_logp": mean, "outside": outside}
    _end(args, found, f"{args.output}: {len(logs)} rows, of mean log p {mean:.6g}")


def sample(args):
    """Write points drawn from a model."""
    _start(args, [args.model])
    model = load(args.model)
    x, logs = model.sample(args.n, _values(args, model), seed=args.seed)
    if x.ndim == 2:
        table = dict(zip(_columns(model), x.T, strict=True))
        if args.logp:
            if "logp" in table:
                raise ValueError("--logp: the model has a column of that name")
            table["logp"] = logs
        elif model.columns is None and args.output != "-":
            table = x
    elif args.logp:
        raise ValueError("--logp: is for tables; of fields and images see pyflow logp")
    else:
        table = x
    _files.write(args.output, table)
    found = {"output": args.output, "rows": len(x), "mean_logp": logs.mean() if len(x) else np.nan}
    _end(args, found, f"{args.output}: {len(x)} rows")


def info(args):
    """Say what a model is."""
    _start(args, [args.model])
    found = {"model": args.model, **_described(load(args.model))}
    args.quiet = False
    told = found | {"bounds": [_interval(*each) for each in found["bounds"].items()]}
    lines = (f"{k.replace('_', ' ')}: {_text(v)}" for k, v in told.items() if v)
    _end(args, found, "\n".join(lines))


def _interval(name, ends):
    """Return words on a column's bounds."""
    low, high = ends
    return f"{name} [{-np.inf if low is None else low:g}, {np.inf if high is None else high:g}]"


TABLES = {"pairs": plots.pairs, "marginals": plots.marginals}  # of data and samples
FIELDS = {"maps": plots.maps, "power_spectra": plots.power_spectra}
PLOTS = (*TABLES, "latent", "history", *FIELDS, "images")
PICTURES = "png", "pdf", "svg", "jpg", "jpeg", "eps", "ps", "tif", "tiff", "webp"
SIDE_BY_SIDE = 8  # images in a row


def plot(args):
    """Draw rows of a table and samples from a model."""
    _start(args, [args.model, args.table])
    suffix = os.path.splitext(args.output)[1][1:].lower() or "png"
    if suffix not in PICTURES:
        raise ValueError(f"-o: a picture is one of .{', .'.join(PICTURES)}, not .{suffix}")
    model = load(args.model)
    x, y = _points(_read(args.table), model, args)
    args.kind = args.kind or next(iter(_pictures(model)))
    if args.kind == "history":
        figure = plots.history(model)
    else:
        chosen = _chosen(_length(x), args.seed)
        x, y = (_cut(part, chosen) for part in (_array(x, model), y))
        figure = _drawn(args, model, x, y)
    with _files.replaced(args.output) as new:
        figure.savefig(new, format=suffix, dpi=150)
    _end(args, {"output": args.output, "kind": args.kind, "rows": _length(x)}, None)


def _pictures(model):
    """Return what pictures there are of a model's points, beside "history"; the usual one first."""
    if model._note.get("image_shape"):
        return ("images",)
    return (*TABLES, "latent") if len(model.shape) == 1 else tuple(FIELDS)


def _drawn(args, model, x, y):
    """Return the picture of points x, given y; most have samples beside them."""
    pictures = _pictures(model)
    if args.kind not in pictures:
        what = {"images": "images", "maps": "fields"}.get(pictures[0], "tables")
        raise ValueError(
            f"--kind: {args.kind} is no picture of {what}, which the model is of; take "
            f"{', '.join(pictures)} or history"
        )
    if args.show and args.kind not in (*TABLES, "latent"):
        raise ArgumentsError("--show: fields and images have no columns")
    if args.kind == "images":
        x, y = x[:SIDE_BY_SIDE], _cut(y, slice(SIDE_BY_SIDE))
        both = x.reshape(-1, *model.shape), model.sample(len(x), y, seed=args.seed)[0]
        return plots.image_grid(np.concatenate(both), rows=2, row_labels=["data", "samples"])
    if args.kind in FIELDS:
        more = {} if model.box_size is None else {"box_size": model.box_size}
        return FIELDS[args.kind](x, model.sample(len(x), y, seed=args.seed)[0], **more)
    names = _columns(model)
    shown = _known(args.show, names, "--show")
    if args.kind == "latent":
        return plots.latent(model.forward(x, y)[0], columns=shown)
    samples, _ = model.sample(SHOWN if y is None else len(x), y, seed=args.seed)
    return TABLES[args.kind](x, samples, names=names, columns=shown)


def posterior(args):
    """Write points drawn from a posterior of the parameters, and say what it is."""
    _start(args, [args.model, args.data])
    _arguments.integer("--samples", args.samples, 1)
    model = load(args.model)
    table = _read(args.data)
    if isinstance(table, dict) and args.columns is None:  # it may hold the truths too
        truths = {k: v for k, v in table.items() if k in model.names}
        table = {k: v for k, v in table.items() if k not in truths} or table
        differ = [name for name, v in truths.items() if v.size and (v != v[0]).any()]
        if differ and not args.each:
            _arguments.warn(
                f"x: its rows differ in {', '.join(differ)}, and are taken to share one set of "
                "parameters; --each is one posterior for each"
            )
    x = _array(_x(table, model, args), model)
    how = {"temperature": args.temperature, "method": args.method, "seed": args.seed}
    if args.fixed:
        how["fixed"] = {k: v for k, (v,) in _named("--fixed", args.fixed, 1).items() if k}
        if len(how["fixed"]) < len(args.fixed):
            raise ArgumentsError("--fixed: is NAME=NUMBER")
    prior = args.prior and _named("--prior", args.prior, 2)
    if prior and None in prior:
        prior = prior[None]
    if args.each:
        posts = model.posteriors(x, prior=prior, **how)
    else:
        posts = [model.posterior(x, prior=prior, **how)]
    if args.output:
        drawn = [post.sample(args.samples, seed=args.seed) for post in posts]
        columns = dict(zip(posts[0].names, np.concatenate(drawn).T, strict=True))
        if args.each:
            if "row" in columns:
                raise ValueError("--each: the model has a parameter of the name row")
            columns = {"row": np.repeat(np.arange(len(posts)), args.samples), **columns}
        _files.write(args.output, columns)
    found = {"rows": _length(x)}
    if args.each:
        found["posteriors"] = [{"row": i, **_found(post)} for i, post in enumerate(posts)]
    else:
        found |= _found(posts[0])
    text = [f"row {i}: {line}" for i, post in enumerate(posts) for line in _lines(post)]
    if not args.each:
        text = _lines(posts[0])
        if found["rows"] > 1:
            text.insert(0, f"of {found['rows']} rows that share their parameters:")
    _end(args, {**found, "output": args.output}, "\n".join(text))


def _found(post):
    """Return what a posterior is, for `--json`."""
    return {
        "method": post.method,
        "names": post.names,
        "mean": post.mean,
        "sd": np.sqrt(np.diag(post.cov)),
        "cov": post.cov,
        "bounds": post.bounds,
        "log_evidence": post.log_evidence,
        "log_evidence_error": post.log_evidence_error,
    }


def _lines(post):
    """Return a line for each parameter."""
    rows = zip(post.names, post.mean, np.sqrt(np.diag(post.cov)), strict=True)
    return [f"{name} = {mean:.6g} +- {sd:.2g}" for name, mean, sd in rows]


# ---- what they have in common --------------------------------------------------------------------


def _start(args, inputs):
    """Refuse now what would fail in the end; set the threads."""
    output = getattr(args, "output", None)
    if args.threads is not None:
        set_num_threads(_arguments.integer("threads", args.threads, 1, 1024))
    if getattr(args, "seed", None) is not None:
        _arguments.seed(args.seed)
    if inputs.count("-") > 1:
        raise ArgumentsError("-: standard input is one table")
    for name in inputs[args.command != "fit" :]:  # the model comes first
        if name is not None:
            _files.need(name)
    if output is None:
        return
    if output == "-":
        if args.command in ("fit", "plot"):
            raise ArgumentsError("-o: - is for tables")
        if args.json:
            raise ArgumentsError("--json: and -o - both go to standard output")
        return
    path = output
    if args.command not in ("fit", "plot"):
        _files.need(output)
        _, path, _ = _files.place(output)
    _files.writable(path)
    for name in inputs:
        if name is not None and _files.same(name, output):
            raise ArgumentsError(f"-o: {output} would be written over, and is read")


def left(args):
    """Return words on the checkpoint that a fit left, or nothing."""
    checkpoint = getattr(args, "checkpoint", None)
    if not checkpoint:
        return ""
    members = range(args.n_models or USUAL)
    files = [checkpoint, *(_checkpoint.member_file(checkpoint, k) for k in members)]
    files = [file for file in files if os.path.exists(file)]
    if not files:
        return ""
    return f"; the same command goes on from the checkpoint {', '.join(files)}"


def _end(args, found, text):
    """Print one JSON object, or words unless there are to be none or stdout is the table's."""
    if args.json:
        print(json.dumps(_plain(found), allow_nan=False))
    elif text and not args.quiet and getattr(args, "output", None) != "-":
        print(text)


def _plain(x):
    """Return what JSON knows: null for what is not finite."""
    if isinstance(x, dict):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple | np.ndarray):
        return [_plain(v) for v in x]
    x = x.item() if isinstance(x, np.generic) else x
    return None if isinstance(x, float) and not np.isfinite(x) else x


def _described(model):
    """Return what a model is, for `info`."""
    members = getattr(model, "members", (model,))
    kinds = [kind for member in members for kind in member.layers]
    reached = {}
    for name in ("logp_train", "logp_validate"):
        each = [member._reached(name) for member in members]
        reached[name] = None if None in each else float(np.mean(each))
    return {
        "kind": type(model).__name__,
        "shape": list(model.shape),
        "columns": model.columns and list(model.columns),
        "bounds": _bounds_of(model, members),
        "conditions": list(model.names),
        "condition_ranges": dict(zip(model.names, model.y_range.tolist(), strict=False)),
        "labels": None if model.labels is None else model.labels.tolist(),
        "box_size": model.box_size and list(model.box_size),
        "dtype": str(model.dtype),
        "members": len(members) if isinstance(model, Mixture) else None,
        "weights": model.weights.tolist() if isinstance(model, Mixture) else None,
        "layers": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "parameters": model.n_parameters,
        **reached,  # nats; of a mixture the mean of its members'
        "temperature": model.temperature,
        "unfinished": model.unfinished,
        "pyflow": members[0]._note.get("pyflow"),
    }


def _bounds_of(model, members):
    """Return the bounds that a table's model was fitted with: of each column that has any."""
    fits = [member._note.get("fit") or {} for member in members]
    pairs = next((fit["bounds"] for fit in fits if fit.get("bounds")), ())
    if len(model.shape) != 1 or len(pairs) != model.dim:
        return {}
    named = zip(_columns(model), pairs, strict=True)
    return {name: list(pair) for name, pair in named if pair[0] is not None or pair[1] is not None}


def _text(value):
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# ---- tables --------------------------------------------------------------------------------------


def _read(name):
    """Return the table in a file; an array (n,) is one column."""
    kind, path, _ = _files.place(name)
    if kind != "parquet" and os.path.isdir(path):  # one of Parquet is a table in parts
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    table = _files.read(name)
    if isinstance(table, dict):
        if not table:
            raise ValueError(f"{name}: has no columns")
        return table
    if not table.ndim:
        raise ValueError(f"{name}: holds a single number")
    return table[:, None] if table.ndim == 1 else table


def _length(x):
    return len(next(iter(x.values())) if isinstance(x, dict) else x)


def _names(table):
    """Return what the columns of a table are called: numbers, where they have no names."""
    return list(table) if isinstance(table, dict) else list(map(str, range(table.shape[1])))


def _pick(table, columns, option):
    """Return these columns of a table, or all of it for None."""
    if columns is None:
        return table
    if len(set(columns)) < len(columns):
        raise ArgumentsError(f"{option}: a column is there twice")
    if not isinstance(table, dict) and table.ndim != 2:
        raise ValueError(f"{option}: the array has shape {table.shape}, and no columns")
    numbers = _known(columns, _names(table), option)
    if isinstance(table, dict):
        return {name: table[name] for name in columns}
    return table[:, numbers]


def _known(columns, names, option):
    """Return the numbers of columns among names, or None for None."""
    if columns is None:
        return None
    for name in columns:
        if name not in names:
            raise ValueError(f"{option}: there is no column {name!r} among {', '.join(names)}")
    return [names.index(name) for name in columns]


def _rest(table, taken):
    """Return a table without these columns."""
    names = [name for name in _names(table) if name not in taken]
    if not names:
        raise ValueError(f"TABLE: has no columns beside {', '.join(taken)}")
    return _pick(table, names, "TABLE")


def _is_word(text):
    """Whether a text is no number, nor nothing."""
    try:
        float(text or "nan")
    except ValueError:
        return bool(text.strip())
    return False


def _parts(table, args, what="TABLE"):
    """Return what of a table a fit is of: x, and y, the labels and the weights, if there are."""
    parts, taken = {}, list(args.condition or ())
    if args.condition:
        parts["y"] = _numeric(_pick(table, args.condition, "--condition"), "--condition")
    if args.labels:
        parts["labels"] = _labels(_single(table, args.labels, "--labels"))
        taken.append(args.labels)
    if args.weights:
        weight = _pick(table, [args.weights], "--weights")
        parts["weight"] = _column(_numeric(weight, "--weights"))
        taken.append(args.weights)
    if args.columns is None:
        return {"x": _numeric(_rest(table, taken) if taken else table, what), **parts}
    both = [name for name in args.columns if name in taken]
    if both:
        raise ArgumentsError(f"--columns: {both[0]} is a condition, a label or a weight")
    return {"x": _numeric(_pick(table, args.columns, "--columns"), what), **parts}


def _single(table, column, option):
    """Return one column of a table as an array (n,)."""
    return _column(_pick(table, [column], option))


def _column(table):
    """Return the only column of a table as an array (n,)."""
    return next(iter(table.values())) if isinstance(table, dict) else table[:, 0]


def _numeric(table, what):
    """Return a table; the first text in it is refused, with its row and the likely remedy."""
    for name, column in table.items() if isinstance(table, dict) else ():
        if column.dtype.kind not in "SUO" or column.ndim != 1:
            continue
        words = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in column.tolist()]
        text = [i for i, v in enumerate(words) if isinstance(v, str) and _is_word(v)]
        if not text:
            continue
        row, word = text[0], words[text[0]]
        remedy = ""
        if word.lower() in ("true", "false"):
            remedy = "; write 1 for true and 0 for false"
        elif text == [0] and len(words) > 1:
            remedy = "; if that row is the columns' names, take out the line above it"
        word = repr(word if len(word) < 40 else word[:37] + "...")
        raise ValueError(f"{what}: column {name!r} is not numeric: row {row} is {word}{remedy}")
    return table


def _labels(column):
    """Return classes as they are called: CSV has whole numbers as floats, FITS and HDF5 bytes."""
    if column.dtype.kind == "S":
        return np.char.decode(column, "utf-8")
    if column.dtype.kind == "O":
        return np.array([v.decode() if isinstance(v, bytes) else v for v in column.tolist()])
    whole = column.dtype.kind == "f" and np.isfinite(column).all() and (column % 1 == 0).all()
    return column.astype(np.int64) if whole else column


def _few(n, x):
    """Warn where a fit has hardly more rows than the columns have directions."""
    d = len(x) if isinstance(x, dict) else x.shape[1] if x.ndim == 2 else 0
    if n < d + 2:
        _arguments.warn(
            f"data_train: {n} rows are trained on, of {d} columns: of fewer than {d + 2} not even "
            "a covariance is known, and the density says little"
        )


def _cut(x, rows):
    """Return rows of a table or an array; None of None."""
    if isinstance(x, dict):
        return {name: column[rows] for name, column in x.items()}
    return x if x is None else x[rows]


def _split(parts, fraction, args):
    """Return parts of training and of validation rows, drawn at random; and note which they are."""
    held_out = _held_out(parts, fraction, np.random.default_rng(args.seed or 0))
    if not len(held_out):
        return parts, {}
    kept = np.setdiff1d(np.arange(_length(parts["x"])), held_out)
    rows = {"train": kept, "validate": np.sort(held_out)}
    for which, own in rows.items():
        args.told |= {f"{k}_{which}": (own, None) for k in ("data", "weight", "condition")}
    return tuple({k: _cut(x, own) for k, x in parts.items()} for own in rows.values())


def _held_out(parts, fraction, rng):
    """Return the rows that are held out: of each class, if there are any, a fraction."""
    order = rng.permutation(_length(parts["x"]))
    if "labels" not in parts:
        if fraction and not round(fraction * len(order)):
            raise ValueError(
                f"TABLE: has {len(order)} rows, of which {fraction:g} is none to hold out; give "
                "more rows, or others by --validate"
            )
        return order[: round(fraction * len(order))]
    values, index, counts = np.unique(parts["labels"], return_inverse=True, return_counts=True)
    each = [order[index[order] == k][: round(fraction * n)] for k, n in enumerate(counts)]
    held_out = np.concatenate(each)
    if fraction and not len(held_out):
        raise ValueError(
            f"--labels: has {len(values)} classes in {len(order)} rows: too few of each to hold "
            "any out"
        )
    return held_out


def _points(table, model, args):
    """Return what of a table a model is asked for: x, and y or None."""
    asked, y = args.condition, None
    if model.labels is not None:
        asked = [args.labels] if args.labels else asked
        if not asked:
            raise ValueError(f"--labels: {_classes(model)}; say which column they are in")
        y = _labels(_single(table, asked[0], "--labels"))
    elif args.labels:
        raise ValueError("--labels: the model has no classes")
    elif asked and not model.names:
        raise ValueError("--condition: the model has no conditions")
    elif asked is None and isinstance(table, dict) and set(model.names) <= set(table):
        asked = list(model.names)
    if asked and model.labels is None:
        y = _numeric(_pick(table, asked, "--condition"), "--condition")
        if args.condition:
            y = _in_turn(y, "y", model.names, args)
    elif model.names and not asked:
        names = ", ".join(model.names)
        raise ValueError(f"--condition: the model is of {names}; say which columns they are")
    return _x(_rest(table, asked) if asked and args.columns is None else table, model, args), y


def _x(table, model, args):
    """Return the points of a table: those of --columns in turn, else what has the model's names."""
    if args.columns is not None:
        table = _numeric(_pick(table, args.columns, "--columns"), "x")
        return _in_turn(table, "x", model.columns, args)
    if not isinstance(table, dict):
        return table
    args.told["x"] = None, list(model.columns or table)
    if model.columns and set(model.columns) <= set(table):
        table = {name: table[name] for name in model.columns}
    return _numeric(table, "x")


def _in_turn(table, name, known, args):
    """Return columns in the order in which they were asked for, which is the model's.

    So that a table whose header is wrong can be read right; if the names are the model's own in
    another order, a warning says what is taken for what.

    Parameters
    ----------
    table : dict or (n, columns) array
    name : str
        What the argument is called in the library, x or y.
    known : sequence of str, or None
        The model's names.
    args : argparse.Namespace
    """
    if not isinstance(table, dict):
        return table
    given, known = list(table), list(known or ())
    args.told[name] = None, given
    if given != known and set(given) == set(known):
        pairs = ", ".join(f"{a} is its {b}" for a, b in zip(given, known, strict=True) if a != b)
        option = "columns" if name == "x" else name
        _arguments.warn(f"{option}: are taken in this order for the model's: {pairs}")
    return _tables.array(table, name)


def _array(x, model):
    """Return points of a model as an array."""
    x = _tables.matched(x, "x", model.columns)
    found = _tables.array(x, "x")
    return x if found is None else found


def _columns(model):
    """Return the names of the columns of a table's model."""
    return list(model.columns or (f"x{j}" for j in range(model.dim)))


def _chosen(n, seed):
    """Return which of n rows are drawn: all, or `SHOWN` of them at random."""
    if n <= SHOWN:
        return slice(None)
    return np.sort(np.random.default_rng(seed).choice(n, SHOWN, replace=False))


# ---- values --------------------------------------------------------------------------------------


def _numbers(option, text, empty=False):
    """Return the numbers between commas; None for what is left out, if it may be."""
    try:
        return [None if empty and not word.strip() else float(word) for word in text.split(",")]
    except ValueError:
        raise ArgumentsError(f"{option}: {text!r} is no list of numbers") from None


def _named(option, texts, count, empty=False):
    """Return a dict of lists of `count` numbers by name, of NAME=NUMBERS.

    Where none has a name, their list is that of None.
    """
    found = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        numbers = _numbers(option, numbers, empty)
        if len(numbers) != count:
            raise ArgumentsError(f"{option}: {text!r} should have {count} numbers")
        if name in found and name:
            raise ArgumentsError(f"{option}: {name} is there twice")
        if name:
            found[name] = numbers
        else:
            found.setdefault(None, []).append(numbers)
    if None in found and len(found) > 1:
        raise ArgumentsError(f"{option}: name all of them, or none")
    return found


def _bounds(texts, x):
    """Return bounds for each column of x."""
    names = _names(x)
    given = _named("--bounds", texts, 2, empty=True)
    for name, each in given.items():
        for low, high in [each] if name is not None else each:
            if None not in (low, high) and not low < high:
                whose = f" of {name}" if name is not None else ""
                raise ArgumentsError(f"--bounds: {low:g}{whose} is not below {high:g}")
    if None in given:
        return given[None]
    _known(given, names, "--bounds")
    return [given.get(name, (None, None)) for name in names]


def _classes(model):
    """Return words on what classes a model has."""
    known = model.labels.tolist()
    return f"the model has classes, {', '.join(map(str, known[:10]))}{', ...' * (len(known) > 10)}"


def _values(args, model):
    """Return what a sample is conditioned on: numbers by name or in turn, or a label."""
    text = args.condition if args.label is None else args.label
    if model.labels is not None:
        if text is None:
            raise ValueError(f"--label: {_classes(model)}; say which to draw")
        return next((label for label in model.labels.tolist() if _is_called(label, text)), text)
    if args.label is not None:
        raise ValueError("--label: the model has no classes")
    if text is None:
        return None
    if not model.names:
        raise ValueError("--condition: the model has no conditions")
    if "=" not in text:
        return _numbers("--condition", text)
    given = _named("--condition", text.split(","), 1)
    _known(given, list(model.names), "--condition")
    return {name: values[0] for name, values in given.items()}


def _is_called(label, text):
    """Whether a text is a label: 1, 1.0 and 1e0 are the number 1."""
    if isinstance(label, str):
        return label == text
    try:
        return str(label) == text or float(label) == float(text)
    except ValueError:
        return False
