"""GIS: a density from data, fitted layer by layer."""

from __future__ import annotations

import json
import os
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pyflow import _arguments, _checkpoint, _core
from pyflow._arguments import boolean, integer, real
from pyflow._progress import reporter
from pyflow.model import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

# The original implementation's spellings (https://github.com/biweidai/SINF), and what has no
# meaning here.
ORIGINAL = {
    "iteration": "max_layers",
    "K": "n_slices",
    "M": "n_knots",
    "KDE": "kde",
    "b_factor": "bandwidth_factor",
    "edge_bins": "edge_knots",
    "ndata_A": "slice_points",
    "MSWD_max_iter": "slice_steps",
    "NBfirstlayer": "marginal_first",
    "Whiten": "whiten",
}
MOST_LAYERS = 2000  # sliced layers of a fit with validation data and without max_layers; as in C
IGNORED = ("batchsize", "nocuda", "shape")

# name: (check, further arguments of the check)
OPTIONS = {
    "max_layers": (integer, 1),
    "patience": (integer, 1),
    "min_improvement": (real,),
    "n_slices": (integer, 1),
    "n_knots": (integer, 1),
    "kde": (boolean,),
    "bandwidth_factor": (real,),
    "edge_knots": (integer, 0),
    "slice_points": (integer, 1),
    "slice_steps": (integer, 0),
    "marginal_first": (boolean,),
    "whiten": (boolean,),
}


class Progress(NamedTuple):
    """What a `progress` function is told after every layer.

    Attributes
    ----------
    layer : int
        Layers so far.
    best : int
        Layers of the best model so far.
    logp_train, logp_validate : float
        Mean log p of the training and the validation data, in nats; NaN without validation data.
    distance : float
        Root-mean-square sliced Wasserstein distance from a unit Gaussian along the layer's slices.
    """

    layer: int
    best: int
    logp_train: float
    logp_validate: float
    distance: float


def GIS(  # a function with the name that the method has in the literature
    data_train: ArrayLike,
    data_validate: ArrayLike | None = None,
    *,
    max_layers: int | None = None,
    patience: int | None = None,
    min_improvement: float | None = None,
    n_slices: int | None = None,
    n_knots: int | None = None,
    kde: bool | None = None,
    bandwidth_factor: float | None = None,
    alpha: tuple[float, float] | None = None,
    edge_knots: int | None = None,
    slice_points: int | None = None,
    slice_steps: int | None = None,
    marginal_first: bool | None = None,
    whiten: bool | None = None,
    bounds: Sequence[tuple[float | None, float | None]] | ArrayLike | None = None,
    weight_train: ArrayLike | None = None,
    weight_validate: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    labels_validate: ArrayLike | None = None,
    seed: int | None = 0,
    model: Model | None = None,
    scratch: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float | None = None,
    progress: Callable[[Progress], object] | None = None,
    verbose: bool = True,
    **original: object,
) -> Model:
    """Fit a density to data: Gaussianizing iterative slicing.

    Layer by layer, the directions along which the data are furthest from a Gaussian are found, and
    the data made Gaussian along them. With validation data, layers are added until their
    log-likelihood has not risen for `patience` layers, and the model is cut back to the best;
    otherwise `max_layers` must be given. The data are never changed, and the same arguments give
    the same model, bit for bit, for any number of threads.

    Parameters
    ----------
    data_train : (n, d) array-like of real numbers
        float32 data give a float32 model; everything else is converted to float64. A
        `numpy.memmap`, or a two-dimensional object with a NumPy dtype that can be cut (an HDF5 or
        Zarr data set), is read a block of rows at a time and never copied whole.
    data_validate : (m, d) array-like of real numbers, optional
        Rows that are not trained on. Where more than one in a hundred is in data_train too, each
        of those is used on one side only, and a UserWarning says so.
    max_layers : int, optional
        Stop at this many sliced layers (the model has up to five more, the first ones). With
        validation data too, whichever stops first; the best is kept. Default 2000.
    patience : int, optional
        Layers to wait for an improvement on the validation data. Default 10. The paper's is 5.
    min_improvement : float, optional
        What counts as one, in nats. Default 0.
    n_slices : int, optional
        Slices of each layer, K <= d. Default d if d <= 8 or n < 20 d, but at most 128; otherwise 8.
    n_knots : int, optional
        Spline knots of each slice, M. Default sqrt(n), between 50 and 200.
    kde : bool, optional
        Smooth the distribution along each slice with a Gaussian kernel. Default True.
    bandwidth_factor : float, optional
        Width of that kernel, in n^(-1/5) standard deviations. Default 1.2. The paper's is 1.
    alpha : (float, float), optional
        Pull of the splines towards the identity, and of their slopes beyond the last knots: from 0
        (none) to almost 1 (Eq. 13 of the paper). Default 1 - step and 1 - 0.03 step, with
        step = min(0.011 (n / d)^0.45, 0.5): a layer's step is long where rows per column are many.
        The paper's is 1 - 0.02 log10(n) and 1 - 0.001 log10(n).
    edge_knots : int, optional
        Knots set aside for each tail.
    slice_points : int, optional
        Rows that the search for slices looks at. Default 1e5 log10(d).
    slice_steps : int, optional
        The most steps that it takes; 0 for random slices. Default n / d, at most 200.
    marginal_first : bool, optional
        Begin with a layer that treats each column on its own (naive Bayes). Default True.
    whiten : bool, optional
        Then remove the columns' correlations. Default True.
    bounds : (d, 2) sequence, optional
        Lower and upper bound of each column; None or infinity where there is none. The density is
        zero outside. Data may lie on a bound, but not beyond. A model to go on from keeps its own.
    weight_train, weight_validate : (n,), (m,) array-like, optional
        Weights of the rows, not negative. The effective sample size takes the place of n
        everywhere.
    labels, labels_validate : (n,), (m,) array-like of numbers or strings, optional
        Discrete classes: the slices are shared, and each label has its own splines. The model is
        p(x | label).
    seed : int or None, optional
        0 <= seed < 2**64; None for a different one every time.
    model : Model, optional
        Go on from this model. It is not changed.
    scratch : str or os.PathLike, optional
        Folder for a temporary file that holds the working copy of the data (as large as they are)
        instead of memory. Default: memory, but `tempfile.gettempdir()` for data that are read a
        block at a time.
    checkpoint : str or os.PathLike, optional
        File for the unfinished model, written every `checkpoint_seconds` (default 60) and when the
        fit is interrupted. If it is there, the fit goes on from it, to the model that an
        uninterrupted fit gives. When the fit is done it holds the finished model. A file of another
        fit is refused.
    progress : callable, optional
        Called with a `Progress` after every layer. An exception that it raises stops the fit.
    verbose : bool, optional
        Show a progress line on stderr: by tqdm if that is installed.
    **original
        The original implementation's spellings are accepted too, with the same meaning: `iteration`
        (max_layers), `K` (n_slices), `M` (n_knots), `KDE` (kde), `b_factor` (bandwidth_factor),
        `edge_bins` (edge_knots), `ndata_A` (slice_points), `MSWD_max_iter` (slice_steps),
        `NBfirstlayer` (marginal_first), `Whiten` (whiten). `batchsize`, `nocuda` and `shape` have
        no meaning here and are ignored.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        For data or options that make no sense: the message names the argument. Among others: data
        that are not finite, a constant column, or columns that are linearly dependent have no
        density.
    TypeError
        For an option of the wrong type, one that does not exist, or one given in both spellings.
    OSError
        If the scratch folder or the checkpoint cannot be written or read.
    KeyboardInterrupt
        On Ctrl-C, within a second; a note with it names the checkpoint that was left.

    References
    ----------
    B. Dai and U. Seljak, "Sliced iterative normalizing flows", ICML 2021, arXiv 2007.00674:
    section 3, Algorithms 1 and 3.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(600, 2))
    >>> x[:, 1] += x[:, 0] ** 2
    >>> model = pyflow.GIS(x[:500], x[500:], verbose=False)
    >>> model.dim
    2
    >>> x_new, logp = model.sample(1000, seed=0)
    """
    options = _options(
        {
            "max_layers": max_layers,
            "patience": patience,
            "min_improvement": min_improvement,
            "n_slices": n_slices,
            "n_knots": n_knots,
            "kde": kde,
            "bandwidth_factor": bandwidth_factor,
            "edge_knots": edge_knots,
            "slice_points": slice_points,
            "slice_steps": slice_steps,
            "marginal_first": marginal_first,
            "whiten": whiten,
        },
        original,
    )
    if data_validate is None and "max_layers" not in options:
        raise ValueError(
            "data_validate, max_layers: give validation data, or the number of layers, or both"
        )
    if alpha is not None:
        options["alpha"] = _alpha(alpha)
    if model is not None and not isinstance(model, Model):
        raise TypeError(f"model: must be a pyflow.Model, not {type(model).__name__}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: must be callable, not {progress!r}")
    options["seed"] = _arguments.seed(seed)

    train = _arguments.rows(data_train, "data_train")
    validate = None if data_validate is None else _arguments.rows(data_validate, "data_validate")
    if validate is None and (weight_validate is not None or labels_validate is not None):
        name = "weight_validate" if weight_validate is not None else "labels_validate"
        raise ValueError(f"{name}: given without data_validate")
    if bounds is not None:
        options["bounds"] = _bounds(bounds)
    given = {"weight_train": weight_train, "weight_validate": weight_validate}
    given = {k: _arguments.rows(v, k) for k, v in given.items() if v is not None}
    values, classes = _classes(labels, labels_validate, validate is not None, model)
    given.update(classes)

    note = _note(options, {"data_train": train, "data_validate": validate, **given}, values, model)
    if checkpoint is not None:
        _checkpoint.check(checkpoint, seed)
        found = _checkpoint.resume(checkpoint, note)
        if found is not None:
            if not found._note.get("unfinished"):
                return found
            model = found
    if scratch is None and (_is_read_in_blocks(train) or _is_read_in_blocks(validate)):
        import tempfile  # here, because it takes a third of pyflow's import time

        scratch = tempfile.gettempdir()
    if checkpoint_seconds is not None:
        options["checkpoint_seconds"] = real("checkpoint_seconds", checkpoint_seconds)

    with (
        _checkpoint.mentioned(checkpoint),
        reporter(_most_layers(options), boolean("verbose", verbose), progress) as report,
    ):
        core = _core.fit(
            train,
            validate,
            **options,
            **given,
            n_classes=0 if values is None else len(values),
            model=None if model is None else model._core,
            scratch=scratch,
            progress=report and (lambda *p: report(Progress(*p))),
            warn=_arguments.warn,
            checkpoint=checkpoint,
            note=json.dumps({**note, "unfinished": True}, allow_nan=False),
            stream=_is_read_in_blocks(train) or _is_read_in_blocks(validate),
        )
    fitted = Model(core.with_note(json.dumps(note, allow_nan=False)))
    if "max_layers" not in options and fitted.layers.count("sliced") >= MOST_LAYERS - 10:
        _arguments.warn(
            f"the fit stopped at {MOST_LAYERS} layers while the validation data still gained: a "
            "column of many equal values (integers, flags) has no density and gains without end, "
            "unless uniform noise of its spacing is added; otherwise give max_layers",
            RuntimeWarning,
        )
    if checkpoint is not None:
        fitted.save(checkpoint)
    return fitted


# ---- options -------------------------------------------------------------------------------------


def _options(given, original):
    """Return the options that were given, checked, under their own names."""
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in original.items():
        if name == "patch":
            if boolean("patch", value):
                raise NotImplementedError(
                    "patch: layers for images are not there yet; leave it out, or give patch=False"
                )
        elif name in ORIGINAL:
            mine = ORIGINAL[name]
            if mine in options:
                raise TypeError(f"{mine}: given twice, as {mine} and as {name}")
            if value is not None:
                options[mine] = value
        elif name not in IGNORED:
            raise TypeError(f"GIS() has no option {name!r}")
    for name, value in options.items():
        check, *limits = OPTIONS[name]
        options[name] = check(name, value, *limits)
    return options


def _alpha(alpha):
    try:
        inside, outside = (float(a) for a in alpha)
    except (TypeError, ValueError):
        raise ValueError(f"alpha: must be two numbers, not {alpha!r}") from None
    if not (0 <= inside <= 1 and 0 <= outside <= 1):
        raise ValueError(f"alpha: must be between 0 and 1, not {alpha!r}")
    return inside, outside


def _bounds(bounds):
    """Return bounds as float64, infinite for None; the core checks the shape and the order."""
    try:
        if not hasattr(bounds, "dtype"):
            open_ends = (-np.inf, np.inf)
            bounds = [
                [e if b is None else float(b) for b, e in zip(pair, open_ends, strict=True)]
                for pair in bounds
            ]
        return np.asarray(_arguments.rows(bounds, "bounds"), dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            "bounds: must be a pair (lower, upper) for each column, None where there is no bound"
        ) from None


def _classes(labels, labels_validate, has_validate, model):
    """Return the sorted labels and the arguments of the core, or None and nothing."""
    known = None if model is None else model.labels
    if labels is None:
        if labels_validate is not None:
            raise ValueError("labels_validate: given without labels")
        if known is not None:
            raise ValueError("labels: the model to go on from was fitted with labels")
        return None, {}
    if model is not None and known is None:
        raise ValueError("labels: the model to go on from was fitted without labels")
    if has_validate and labels_validate is None:
        raise ValueError("labels_validate: must be given, since labels are")
    labels = _arguments.labels(labels, "labels")
    values = np.unique(labels) if known is None else known
    whose = "labels" if known is None else "the model's labels"
    given = {"label_train": _arguments.classes(values, labels, "labels", whose)}
    if has_validate:
        labels_validate = _arguments.labels(labels_validate, "labels_validate")
        given["label_validate"] = _arguments.classes(
            values, labels_validate, "labels_validate", whose
        )
    return values, given


def _most_layers(options):
    """Return the number of layers that a progress bar can expect, or None."""
    if "max_layers" not in options:
        return None
    first = {**_core.gis_defaults(), **options}
    return options["max_layers"] + first["marginal_first"] + first["whiten"] + 1


def _is_read_in_blocks(x):
    """Whether x is on disk, or otherwise not in memory."""
    if x is None:
        return False
    while isinstance(x, np.ndarray):
        if isinstance(x, np.memmap) and x._mmap is not None:
            return True
        if x.base is None:
            return False
        x = x.base
    return hasattr(x, "dtype")


# ---- what travels with the model, and checkpoints ------------------------------------------------


def _note(options, data, values, model):
    """Return what is kept of the arguments: enough to tell one fit from another."""
    if "bounds" in options:
        pairs = options["bounds"].tolist()
        options = {**options, "bounds": [[b if np.isfinite(b) else None for b in p] for p in pairs]}
    fit = _checkpoint.digest(options, data)
    if model is not None:
        fit["model"] = zlib.crc32(model.to_bytes())
    note = {"pyflow": _core.__version__, "fit": fit}
    if values is not None:
        note["labels"] = values.tolist()
    return note
