"""SIG: a generator of images and other data, fitted layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pyflow import _arguments, _core, _images, _ranks, _tables
from pyflow._training import classes, greedy, known_classes, refuse_unknown, run, saved
from pyflow.flow import Flow
from pyflow.mpi import Ranks

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from pyflow._progress import Progress

__all__ = ["SIG", "image_schedule"]


def __dir__():
    return __all__


def SIG(
    data_train: ArrayLike,
    image_shape: Sequence[int] | None = None,
    *,
    labels: ArrayLike | None = None,
    schedule: Sequence[tuple[int, Any, int]] | None = None,
    max_layers: int | None = None,
    n_slices: int | None = None,
    n_knots: int | None = None,
    edge_knots: int | None = None,
    alpha: tuple[float, float] | None = None,
    n_sample: int | None = None,
    slice_points: int | None = None,
    slice_steps: int | None = None,
    dequantize: bool | None = None,
    bounds: Sequence[tuple[float | None, float | None]] | ArrayLike | None = None,
    weight_train: ArrayLike | None = None,
    seed: int | None = 0,
    model: Flow | None = None,
    scratch: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float | None = None,
    callback: Callable[[int, NDArray[Any]], object] | None = None,
    callback_every: int | None = None,
    callback_rows: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    verbose: bool = True,
    comm: Any | None = None,
    **unknown: object,
) -> Flow:
    """Fit a generator to data: the sliced iterative generator.

    A sample of a unit Gaussian is moved to the data, layer by layer: along the directions in which
    the two differ most, the sample's quantiles are carried to those of the data. The flow is made
    of these moves. It gives samples that look like the data. Its densities are those of a fit
    without any regularisation, which knows the training data too well, and in float32 hundreds of
    layers do not lead back from every point: take `GIS` for densities.

    Parameters
    ----------
    data_train : (n, d), (n, height, width) or (n, height, width, channels) array-like
        A table, or images. Images of 8 or 16 bits, or in float32, give a float32 flow. A
        `numpy.memmap`, or what can be cut like one, is read a block of images at a time.
    image_shape : (height, width[, channels]), optional
        What a row of a table of images is. Without it data of two axes are a table.
    labels : (n,) array-like of numbers or strings, optional
        Discrete classes: the slices are shared, and each label has its own splines. The flow is
        p(x | label).
    schedule : sequence of (layers, kernel, slices), optional
        How many layers of which patches, with how many slices each; kernel is a size, (height,
        width), (height, width, channels), or None for the whole. The channels are all, or 1: each
        has patches of its own. Default for images: the published one, `image_schedule`; for
        tables: 100 layers.
    max_layers : int, optional
        Stop after this many, of the first sizes of patches; `image_schedule(shape, layers)` has
        fewer of every size.
    n_slices : int, optional
        Slices of each layer of a table. Default d if d <= 8, else d / 2 between 8 and 128.
    n_knots : int, optional
        Spline knots of each slice, M. Default 200 sqrt(n / 60000), between 50 and 200, but for
        less than 200 points of a class a fourth of them, or 10. The paper's is 400.
    edge_knots : int, optional
        Knots set aside for each tail, as far as there are points for them. Default 10.
    alpha : (float, float), optional
        Pull of the splines towards the identity, and of their end slopes, from 0 to almost 1.
        Default (0, 0).
    n_sample : int, optional
        Points of the sample that is moved. Default 6 n.
    slice_points : int, optional
        Points, of data and sample each, that the search for slices looks at. Default 20000.
    slice_steps : int, optional
        The most steps that it takes; 0 for random slices. Default 20, unless steps gain little
        before; more are taken as long as they gain anything. The paper's is 200.
    dequantize : bool, optional
        Add uniform noise between 0 and 1 to the pixels. Default: for images of whole numbers.
        Pixels of a sample are then grey levels when rounded down and clipped to their range.
    bounds : (d, 2) sequence, optional
        For tables: lower and upper bound of each column, as in `GIS`.
    weight_train : (n,) array-like, optional
        Weights of the points, not negative.
    seed : int or None, optional
        0 <= seed < 2**64; None for a different one every time.
    model : Flow, optional
        Go on from this flow, an earlier result for the same data and options with fewer layers. It
        is not changed.
    scratch : str or os.PathLike, optional
        Folder for temporary files that hold data and sample (7 times as large as the data in
        float32) instead of memory.
    checkpoint, checkpoint_seconds
        As in `GIS`: a file that the unfinished fit is written to, and that the same call goes on
        from.
    callback : callable, optional
        callback(layers, sample) is called before the first layer and after every `callback_every`
        (default 10) layers, with the first `callback_rows` (default 100) points of the moving
        sample, in the units and the shape of the data, and after the last. Point i has the label of
        point i of the data. An exception that it raises stops the fit.
    progress : callable, optional
        Called with a `Progress` after every layer; `distance` is the sliced Wasserstein distance of
        sample and data along the layer's slices, before it.
    verbose : bool, optional
        Show a progress line on stderr.
    comm : mpi4py.MPI.Comm, optional
        Fit with the other ranks of this communicator, each with rows of its own, as `GIS` does. A
        rank has its own part of the data and of the sample. Rank 0 alone warns, reports progress,
        writes the checkpoint, and calls `callback`, with those of the rows asked for that it has.

    Returns
    -------
    Flow
        Its points have the shape of an image where data are images. Layers stand in the order in
        which data pass through them: those that were fitted last come first, so that flow[:k] is no
        earlier stage of the fit. It takes 8 bytes for each of its parameters in a file.

    Raises
    ------
    ValueError, TypeError, OSError, FileError, KeyboardInterrupt
        As `GIS`. Ctrl-C waits for the patch that is being fitted.

    References
    ----------
    B. Dai and U. Seljak, "Sliced iterative normalizing flows", ICML 2021, arXiv 2007.00674:
    section 3, Algorithms 1 and 2; the schedule is that of its appendix.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> rng = np.random.default_rng(0)
    >>> angle = rng.uniform(0, 2 * np.pi, 1000)
    >>> ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.05 * rng.normal(size=(1000, 2))
    >>> flow = pyflow.SIG(ring, max_layers=30, verbose=False)
    >>> x, logp = flow.sample(1000, seed=1)
    >>> bool(abs(np.hypot(*x.T).mean() - 1) < 0.05)
    True
    """
    arguments = {k: v for k, v in locals().items() if k != "unknown"}
    if comm is not None and not isinstance(comm, Ranks):
        return _ranks.together(SIG, arguments | unknown)
    refuse_unknown(SIG, unknown)
    given = {k: v for k, v in locals().items() if k in _core.options("sig") and k != "seed"}
    known = known_classes(model)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: must be callable, not {callback!r}")
    number = _arguments.seed(seed)
    if seed is not None:
        seed = number  # drawn once of a generator
    columns, noisy = None, None
    if image_shape is None and model is not None:
        image_shape = model._note.get("image_shape")
    shape = _images.image_shape(data_train, image_shape, "data_train")
    if shape is None:
        columns = _tables.names(data_train, "data_train") if model is None else model.columns
        train = _arguments.rows(_tables.matched(data_train, "data_train", columns), "data_train")
        if dequantize:
            raise ValueError("dequantize: is for images: give image_shape")
    else:
        if bounds is not None:
            raise ValueError("bounds: are for tables")
        if dequantize is not None:
            dequantize = _arguments.boolean("dequantize", dequantize)
        train = _images.opened(data_train, dequantize, number, "data_train")
        noisy = train.noisy
    if n_slices is not None and (shape is not None or schedule is not None):
        raise ValueError("n_slices: is for tables without a schedule, which has the slices in it")
    rows = None if schedule is None else _schedule(schedule, shape, train.shape[1])
    most = image_schedule(shape) if schedule is None and shape is not None else rows
    values, label_arrays = classes(labels, None, False, *known, comm)
    data, n_all = {"data_train": train} | label_arrays, (0, 0)
    if weight_train is not None:
        data["weight_train"] = _arguments.rows(weight_train, "weight_train")
    if comm is not None:
        comm.same("columns", columns)
        data, n_all = _ranks.parts(comm, {"weight_train": None} | data, 0)
    note, more, tells = greedy(columns, shape, values, bounds, model, noisy)
    if rows is not None:
        more["schedule"], tells["schedule"] = rows, rows.tolist()
    if callback is not None:
        more["callback"] = (
            callback
            if shape is None
            else lambda layers, x: callback(layers, x.reshape(len(x), *shape))
        )
    fitted = run(
        _core.sig_fit,
        "sig",
        "SIG",
        data,
        given,
        note,
        tells,
        checkpoint=checkpoint,
        seed=seed,
        progress=progress,
        verbose=verbose,
        total=lambda options: _most_layers(options, most),
        scratch=scratch,
        stream=shape is not None,
        ranks=comm,
        rows=n_all,
        **more,
    )
    return saved(fitted, checkpoint, comm)


def image_schedule(
    image_shape: Sequence[int], layers: int | None = None
) -> list[tuple[int, tuple[int, int, int], int]]:
    """Return the published schedule of `SIG` for images, to look at or to change.

    The whole image, halves of it while they are larger than some 8 pixels, then every size down to
    2, with 2 size slices of a patch. Patches of colour images come with all channels, and those of
    up to 8 pixels then with one each, with size slices.

    Parameters
    ----------
    image_shape : (height, width[, channels])
    layers : int, optional
        Layers in all, in the same proportions, at least one of each size. Default: 100 of each
        size, 200 of patches with more than one channel.

    Returns
    -------
    list of (layers, (height, width, channels), slices)

    References
    ----------
    B. Dai and U. Seljak, arXiv 2007.00674, appendix.

    Examples
    --------
    >>> import pyflow
    >>> pyflow.image_schedule((8, 8), layers=40)[:2]
    [(6, (8, 8, 1), 16), (6, (7, 7, 1), 14)]
    """
    shape = _images.image_sides(image_shape)
    schedule = _core.sig_schedule(*shape)
    if layers is None:
        return schedule
    share = _arguments.integer("layers", layers, 1) / sum(n for n, _, _ in schedule)
    return [(max(1, round(share * n)), *rest) for n, *rest in schedule]


def _schedule(schedule, shape, d):
    """Return a schedule as the core takes it: rows of layers, kernel[3], slices."""
    rows = []
    try:
        schedule = list(schedule)
    except TypeError:
        raise TypeError(
            f"schedule: must be a sequence of (layers, kernel, slices), not {schedule!r}"
        ) from None
    for entry in schedule:
        try:
            layers, kernel, slices = entry
        except (TypeError, ValueError):
            raise ValueError(
                f"schedule: entries are (layers, kernel, slices), not {entry!r}"
            ) from None
        if kernel is None:
            kernel = (0, 0, 0) if shape is None else shape
        elif shape is None:
            raise ValueError("schedule: kernels are for images: give image_shape")
        elif np.ndim(kernel) == 0:
            kernel = (kernel, kernel, shape[2])
        else:
            kernel = tuple(kernel) + (shape[2],) * (len(kernel) == 2)
            if len(kernel) != 3:
                raise ValueError(
                    f"schedule: a kernel is (height, width[, channels]), not {kernel!r}"
                )
        if shape is not None:
            kernel = [_arguments.integer("schedule: kernel", n, 1) for n in kernel]
        size = d if shape is None else math.prod(kernel)
        layers = _arguments.integer("schedule: layers", layers, 0)
        slices = _arguments.integer("schedule: slices", slices, 1, size)
        rows.append([layers, *kernel, slices])
    if not rows:
        raise ValueError("schedule: is empty")
    return np.array(rows, dtype=np.float64)


def _most_layers(options, schedule):
    """Return the number of layers that a progress bar can expect, or None."""
    most = [options["max_layers"]] if options["max_layers"] else []
    most += [int(sum(layers for layers, *_ in schedule))] if schedule is not None else []
    return min(most, default=None)
