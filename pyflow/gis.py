"""GIS: a density from data, fitted layer by layer."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import (
    _arguments,
    _autoregressive,
    _clusters,
    _core,
    _images,
    _polish,
    _ranks,
    _stack,
    _tables,
)
from pyflow._members import fitted, usual
from pyflow._progress import Progress
from pyflow._training import classes, greedy, known_classes, refuse_unknown, saved
from pyflow.flow import Flow
from pyflow.mpi import Ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike

    Bound = tuple[float | None, float | None]
    Bounds = Sequence[Bound] | Mapping[str, Bound] | ArrayLike

__all__ = ["GIS", "Progress"]

SPIKE, FEW_EQUAL = 0.1, 10  # share of rows with one value, and how many, that are warned of
LOOKED_AT, BLOCK = 20_000, 1000  # rows, in blocks spread over all
MOST_LAYERS = 4000  # sliced layers of a fit with validation data and without max_layers; as in C


def __dir__():
    return __all__


def GIS(  # a function with the name that the method has in the literature
    data_train: ArrayLike,
    data_validate: ArrayLike | None = None,
    *,
    condition: ArrayLike | None = None,
    condition_validate: ArrayLike | None = None,
    autoregressive: bool | None = None,
    polish: bool | str | None = None,
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
    bounds: Bounds | None = None,
    image_shape: Sequence[int] | None = None,
    dequantize: bool | int | None = None,
    weight_train: ArrayLike | None = None,
    weight_validate: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    labels_validate: ArrayLike | None = None,
    n_models: int | None = None,
    seed: int | None = 0,
    model: Flow | None = None,
    scratch: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float | None = None,
    progress: Callable[[Progress], object] | None = None,
    verbose: bool = True,
    comm: Any | None = None,
    **unknown: object,
) -> Flow:
    """Fit a density to data: Gaussianizing iterative slicing.

    Layer by layer, the directions along which the data are furthest from a Gaussian are found, and
    the data made Gaussian along them. With validation data, layers are added until their
    log-likelihood has not risen for `patience` layers, and the flow is cut back to the best;
    otherwise `max_layers` must be given. A last layer then divides by the size that latents of the
    validation data have (a few far out do not say), so that samples are as wide as data. Of a small
    table four such fits are mixed, by default: see `n_models`. Then autoregressive layers are
    fitted too, and are part of the mixture if held-out rows gain by it: see `autoregressive`. The
    data are never changed, and the same arguments give the same flow, bit for bit, for any number
    of threads.

    One flow leaves bridges between modes far apart. So where rows form clusters, with emptier space
    between, a fit of each is tried too, and their `Mixture` returned if validation rows are
    likelier by more than a standard error: of data in memory, without labels, images, `model`,
    `checkpoint` or n_models=1. This takes up to two or three times as long.

    Parameters
    ----------
    data_train : (n, d), or of images (n, height, width[, channels]), array-like of real numbers
        float32 and float16 data give a float32 flow; everything else is converted to float64. A
        `numpy.memmap`, or a two-dimensional object with a NumPy dtype that can be cut (an HDF5 or
        Zarr data set), is read a block of rows at a time and never copied whole.
    data_validate : (m, d) array-like of real numbers, optional
    condition, condition_validate : (n, p), (m, p) array-like of real numbers, optional
        Numbers y for each row, or (n,) of a single one: the flow is then p(x|y), normalised for
        every y, and takes y where it takes x. A likelihood, with x the data and y the parameters
        (`Flow.posterior`, `Flow.check`), or of simulations with x the parameters, within the bounds
        of their prior, and y the data a posterior (`Flow.sample`), for that prior alone. A table or
        a dict gives the conditions names. They are standardised, and beyond ten standard deviations
        a network hears no more of them: of columns with long tails give logarithms or ranks. Such
        flows have autoregressive layers.
    autoregressive : bool, optional
        True: in place of sliced layers, after a layer for each column, and a linear regression (on
        y and on the columns before), three layers `pyflow.layers.Autoregressive`, trained as
        `Flow.train` does until the validation data gain no more, with more and with less weight
        decay, of which the better is kept, that of the first of several fits for all. For smooth
        dependences between columns. Validation data, or `n_models`, must be given; options of
        layers and slices are not for it, nor labels, images, `model` and `scratch`; data on disk
        are copied to memory; a checkpoint is only written when it is done.
        False: slices alone. Default: True with a condition. Else both, where clusters are looked
        for (see above) and no option of layers and slices is given, of up to 50 columns: the flow
        is the `Mixture` of both kinds, with the weight under which held-out rows are likeliest
        (those that each member was not trained on; with clusters, the validation rows, under one
        fit of each kind), or of slices alone, if these rows gain less than a standard error, or
        those of the first of several fits do, or of networks alone, if they have all the weight.
        Takes five to fifty times as long as one fit of slices.
    polish : bool or "auto", optional
        Begin with ten layers, wide and of few knots, that are trained together as `Flow.polish`
        does it, and go on greedily from there: on thousands of rows nats better, as a rule, with
        fewer layers. "auto": fit without, too, and keep what is better of both on the validation
        data, by more than the standard error. Validation data, or `n_models`, must be given; not
        for images, nor with `model`; a checkpoint is only written when it is done. Default: "auto"
        where both kinds of layers are fitted by default (see `autoregressive`), else False.
    max_layers : int, optional
        Stop at this many sliced layers (the flow has up to three more, the first ones). With
        validation data too, whichever stops first; the best is kept. Default 4000.
    patience : int, optional
        Layers to wait for an improvement on the validation data. Default 100. The paper's is
        5, which often ends at a rest from which many more layers gain.
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
        The most steps that it takes; 0 for random slices. Default n / d, at most 200 (of images
        20).
    marginal_first : bool, optional
        Begin with a layer that treats each column on its own (naive Bayes). Default True. Unless it
        is given, whitening comes before that layer, with the covariance as little shrunk as
        validation data like, if they prefer this by more than 0.1 nats, and two standard errors,
        after forty layers: of tables whose columns nearly depend on each other. Both ways are tried
        first, in silence, on data of at least four training rows for every column, and up to 50,000
        training and as many validation rows, which are read twice more.
    whiten : bool, optional
        Then remove the columns' correlations. Default True.
    bounds : (d, 2) sequence, or dict, optional
        Lower and upper bound of each column; None or infinity where there is none. Of a table with
        names also a dict of pairs by name, where columns without bounds may be left out. The
        density is zero outside. Data may lie on a bound, but not beyond.
    image_shape : (height, width[, channels]), optional
        Rows of two axes are images, as data of more axes are: layers are made of patches, of 4 x 4
        and of 2 x 2 pixels in turn.
    dequantize : bool or int, optional
        Of images of whole numbers 0 to levels - 1: how many levels there are (True: 256 of 8 bits,
        65536 of 16). Uniform noise between 0 and 1 is added, and pixels are bounded by 0 and that
        number (a logit). Default: True for unsigned integers. `Flow.bits_per_dimension` gives what
        such flows are compared by.
    weight_train, weight_validate : (n,), (m,) array-like, optional
        Weights of the rows, not negative. The effective sample size takes the place of n
        everywhere.
    labels, labels_validate : (n,), (m,) array-like of numbers or strings, optional
        Discrete classes: the slices are shared, and each label has its own splines. The flow is
        p(x | label).
    n_models : int, optional
        More than one: a `Mixture` of so many fits, each with another part of the rows
        held out for validation: what `data_train` and `data_validate` hold together is split anew,
        each part as large as `data_validate`, or, without that, one of n_models parts, and at most
        a fifth. Parts are disjoint if they can be. Equal rows stay together, and so do rows of
        equal conditions where these have 30 values or more.
        As many fits as there are threads run side by side; while they are unfinished, their
        checkpoints have `.0`, `.1`, ... behind the name.
        Default: 4 of up to 100 columns and 4,000 training and validation rows together: they gain
        much, in seconds. Most of the four are trained on each validation row: give 1 for rows that
        depend on each other (of a time series, or augmented ones), and for a flow with layers and a
        latent space. Else 1: with `max_layers`, `model`, or the `checkpoint` of one fit; without
        validation data, or weights of both kinds of rows where there are weights; of images, and of
        data that are read a block at a time; where rows are in both, of which it warns; and, with a
        warning, where one of the four fails (in a column that is constant but for a row, say).
    seed : int or None, optional
        0 <= seed < 2**64; None for a different one every time.
    model : Flow, optional
        Go on from this flow. It is not changed. A last layer that only divides is made anew, or,
        without validation data, left out.
    scratch : str or os.PathLike, optional
        Folder for a temporary file that holds the working copy of the data (as large as they are)
        instead of memory. Default: memory, but `tempfile.gettempdir()` for data that are read a
        block at a time.
    checkpoint : str or os.PathLike, optional
        File for the unfinished fit, written every `checkpoint_seconds` (default 60) and when the
        fit is interrupted. If it is there, the fit goes on from it, to the flow that an
        uninterrupted fit gives. When the fit is done it holds the finished flow. A file of another
        fit is refused.
    progress : callable, optional
        Called with a `Progress` after every layer, and epoch of autoregressive ones, which are
        counted anew. An exception that it raises stops the fit.
    verbose : bool, optional
        Show a progress line on stderr: by tqdm if that is installed. Where stderr is no terminal, a
        line every five seconds, after some minutes every minute at least, to the logger "pyflow",
        level INFO, if `logging` is set up.
    comm : mpi4py.MPI.Comm, optional
        Fit together with other ranks of a cluster, each of which gives rows of its own (any number,
        also none; those of rank 0, 1, ... one after another are the whole, and so are validation
        rows), and the same options. All get the same flow: bit for bit that of all rows on one
        machine with n_models=1, autoregressive=False, polish=False, if their processors are alike.
        If a rank fails, all do, by a `pyflow.mpi.RankError` with its message. In memory a rank has
        its own rows and a working copy (of rows on disk that is in `scratch`), those of all ranks
        that the search for slices looks at (`slice_points`), and at first up to 72 bytes for every
        validation row of all ranks, 24 for every row with a weight. More than 64 ranks gain
        nothing: give each a node, or a processor. Of tables at most 512 columns; not with
        conditions, networks, `polish`, or more than one of `n_models`. Rank 0 alone warns, reports
        progress, and writes the checkpoint, which all must be able to read.

    Returns
    -------
    Flow
        For more than one of `n_models`, as of a small table by default, of clusters, or of both
        kinds of layers, a `Mixture`.

    Raises
    ------
    ValueError
        For data or options that make no sense: the message names the argument. Among others: data
        that are not finite, a constant column, or columns that are linearly dependent have no
        density; and, with conditions, validation rows must not be training rows.
    TypeError
        For an option of the wrong type, or one that does not exist.
    OSError
        If the scratch folder cannot be written, or the checkpoint cannot be read, or not be written
        at the end.
    FileError
        If the checkpoint is no file of pyflow's, or damaged.
    KeyboardInterrupt
        On Ctrl-C, within a second or so. What had been reached is the exception's attribute `flow`
        (None before there is a layer), as it is for an exception raised by `progress`; a note with
        it names the checkpoint that was left.

    Warns
    -----
    RuntimeWarning
        If a checkpoint cannot be written: the fit goes on. If the fit stopped at 4000 layers.
    UserWarning
        If a value is that of a tenth of a column's rows or more: a flag, a whole number, a limit.

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
    >>> flow = pyflow.GIS(x[:500], x[500:], verbose=False)
    >>> flow.dim
    2
    >>> x_new, logp = flow.sample(1000, seed=0)

    With conditions: a likelihood of simulations, and the posterior of their parameter.

    >>> y = rng.uniform(-1, 1, size=300)
    >>> x = np.column_stack([y, y**2]) + 0.2 * rng.normal(size=(300, 2))
    >>> flow = pyflow.GIS(x[:250], x[250:], condition={"shift": y[:250]},
    ...     condition_validate={"shift": y[250:]}, n_models=1, verbose=False)
    >>> post = flow.posterior([0.6, 0.36], prior=[(-1, 1)])
    >>> post.names, bool(abs(post.mean[0] - 0.6) < 0.2)
    (('shift',), True)
    """
    arguments = {k: v for k, v in locals().items() if k != "unknown"}
    if comm is not None and not isinstance(comm, Ranks):
        return _ranks.together(GIS, arguments | unknown)
    refuse_unknown(GIS, unknown)
    given = {k: v for k, v in arguments.items() if k in _core.options("gis") and k != "seed"}
    if comm is not None:
        several = None if n_models == 1 else n_models
        _ranks.refuse(
            condition=condition, autoregressive=autoregressive, polish=polish, n_models=several
        )
        n_models, autoregressive, polish = 1, False, False
        comm.same("data_validate: whether it is given", data_validate is not None)
    trained = condition is not None
    if autoregressive is not None:
        trained = _arguments.boolean("autoregressive", autoregressive) or trained
    if data_validate is None and max_layers is None and not trained and n_models in (None, 1):
        raise ValueError(
            "data_validate, max_layers: give validation data, or the number of layers, or both"
        )
    known = known_classes(model)
    if condition_validate is not None and condition is None:
        raise ValueError("condition_validate: given without condition")
    if data_validate is None and (weight_validate is not None or labels_validate is not None):
        name = "weight_validate" if weight_validate is not None else "labels_validate"
        raise ValueError(f"{name}: given without data_validate")
    noisy = None
    if image_shape is None and model is not None:
        image_shape = model._note.get("image_shape")
    shape = _images.image_shape(data_train, image_shape, "data_train")
    if shape is None:
        if dequantize is not None:
            raise ValueError("dequantize: is for images: give image_shape")
        columns = _tables.names(data_train, "data_train") if model is None else model.columns
        train = _arguments.rows(_tables.matched(data_train, "data_train", columns), "data_train")
        validate = _tables.matched(data_validate, "data_validate", columns)
        validate = None if validate is None else _arguments.rows(validate, "data_validate")
        _warn_spikes(train, weight_train, columns)
    else:
        columns, number = None, _arguments.seed(seed)
        if seed is not None:
            seed = number  # drawn once of a generator
        train = _images.opened(data_train, dequantize, number, "data_train")
        validate = None
        if data_validate is not None:
            _images.image_shape(data_validate, shape, "data_validate")
            other = (number + 1) % 2**64  # other noise
            validate = _images.opened(data_validate, dequantize, other, "data_validate")
        most = _images.levels(dequantize, train)
        if most is not None:
            if bounds is not None:
                raise ValueError("bounds: dequantize gives them")
            bounds = [(0, most)] * train.shape[1]
        noisy = train.noisy
    values, label_arrays = classes(labels, labels_validate, validate is not None, *known, comm)
    data = {"data_train": train, "data_validate": validate} | label_arrays
    weights = {"weight_train": weight_train, "weight_validate": weight_validate}
    data |= {k: _arguments.rows(v, k) for k, v in weights.items() if v is not None}

    def networks(data, n_models, first=None):
        how = {"checkpoint": checkpoint, "seed": seed, "progress": progress, "verbose": verbose}
        return _autoregressive.autoregressive(
            data, condition, condition_validate, bounds, columns, n_models, how, first
        )

    if trained:
        others = given | {"labels": labels, "model": model, "scratch": scratch, "polish": polish}
        others |= {"image_shape": shape, "dequantize": dequantize}
        for name, value in others.items():
            if value is not None:
                what = "a condition" if condition is not None else "autoregressive layers"
                raise ValueError(f"{name}: is not for a fit with {what}")
        return saved(networks(data, n_models), checkpoint)
    note, more, tells = greedy(columns, shape, values, bounds, model, noisy)
    stream = _is_read_in_blocks(train) or _is_read_in_blocks(validate)
    n_all = (0, 0)
    if comm is not None:
        comm.same("columns", columns)
        columns_of_tiles = 0 if shape else math.prod(train.shape[1:])
        data, n_all = _ranks.parts(comm, dict.fromkeys(weights) | data, columns_of_tiles)
    if scratch is None and stream and shape is None:
        import tempfile  # here, because it takes a third of pyflow's import time

        scratch = tempfile.gettempdir()
    plain = not (stream or shape or label_arrays) and validate is not None
    plain = plain and n_models != 1 and model is None and checkpoint is None
    if stream or shape is not None or max_layers is not None or model is not None:
        n_models = 1 if n_models is None else n_models

    # Who gives an option of slices means slices alone.
    slices_asked = any(v is not None for k, v in given.items() if k != "checkpoint_seconds")
    both = plain and autoregressive is None and not slices_asked
    both = both and len(train.shape) == 2 and train.shape[1] <= _autoregressive.WIDE
    seed = _arguments.seed(seed) if both else seed
    polish = "auto" if both and polish is None else polish
    greedy_fit = _polish.chosen(polish)
    if greedy_fit is not _core.gis_fit:
        tells["polish"] = str(polish)
        if len(train.shape) != 2:
            raise ValueError(f"data_train: must be rows x columns; its shape is {train.shape}")
        if shape is not None or model is not None:
            raise ValueError("polish: is not for images, nor for a fit that goes on from a model")

    def slices(n_models, data):
        return fitted(
            n_models,
            greedy_fit,
            "gis",
            "GIS",
            data,
            given,
            note,
            tells,
            checkpoint=checkpoint,
            seed=seed,
            progress=progress,
            verbose=verbose,
            total=None if polish else _most_layers,
            scratch=scratch,
            stream=stream,
            ranks=comm,
            rows=n_all,
            **more,
        )

    single = None
    if plain:
        flow, single = _clusters.fitted(slices, n_models, data)
    else:
        flow = slices(n_models, data)
    most = max(len(member) for member in getattr(flow, "members", [flow]))
    if max_layers is None and most >= MOST_LAYERS - 10:
        _arguments.warn(
            f"the fit stopped at {MOST_LAYERS} layers while the validation data still gained: a "
            "column of many equal values (integers, flags) has no density and gains without end, "
            "unless uniform noise of its spacing is added; otherwise give max_layers",
            RuntimeWarning,
        )
    if both:
        n = n_models or usual(data, None)
        flow = _stack.stacked(flow, partial(networks, data), data, seed, n, single)
    return saved(flow, checkpoint, comm)


def _warn_spikes(x, weight, columns):
    """Warn of columns of which many rows have the same value: they have no density there."""
    if len(x.shape) != 2 or x.dtype.kind not in "biuf":
        return
    n = len(x)
    if weight is not None:
        weight = np.asarray(_arguments.rows(weight, "weight_train"))
        if weight.dtype.kind not in "biuf" or weight.shape != (n,):
            return  # it is refused later
    few = range(0, n - BLOCK + 1, max((n - BLOCK) // (LOOKED_AT // BLOCK), 1))
    parts = [slice(i, i + BLOCK) for i in few] if n > LOOKED_AT else [slice(0, n)]
    x = np.concatenate([np.asarray(x[part]) for part in parts])
    if weight is not None:
        x = x[np.concatenate([weight[part] for part in parts]) > 0]
    told = []
    for j in range(x.shape[1]):
        values, counts = np.unique(x[x[:, j] == x[:, j], j], return_counts=True)
        if len(values) > 1 and counts.max() >= max(SPIKE * len(x), FEW_EQUAL):
            share = f"{counts.max() / len(x):.0%} of {_tables.column(j, columns)}"
            told.append(f"{share} are {values[counts.argmax()]:g}")
    if told:
        more = f" and {len(told) - 5} more columns" if len(told) > 5 else ""
        _arguments.warn(
            f"data_train: {', '.join(told[:5])}{more}: equal values have no density, and layers "
            "sharpen their spikes without end; add uniform noise of the values' spacing, or leave "
            "the column out (classes can be `labels`)"
        )


def _most_layers(options):
    """Return the number of layers that a progress bar can expect, or None."""
    first = bool(options["marginal_first"]) + options["whiten"] + 1
    return options["max_layers"] + first if options["max_layers"] else None


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
