"""Symmetric flows: the density p(x|y) of periodic fields, and posteriors of what shapes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import _arguments, _core, _ranks
from pyflow._arguments import boolean, warn
from pyflow._band import band
from pyflow._members import fitted
from pyflow._progress import Progress
from pyflow._training import (
    condition_names,
    conditions,
    noise_options,
    posterior_weight,
    reach,
    refuse_unknown,
    saved,
)
from pyflow._training import (
    epochs as all_epochs,
)
from pyflow._window import realisation
from pyflow.fields import box_lengths, checked, gaussian_field, window
from pyflow.flow import NOISE, Flow
from pyflow.layers import line_of_sight
from pyflow.mpi import Ranks
from pyflow.posterior import warn_outside

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["SymmetricFlow"]

FILLS = "realisation", "noise"


def __dir__():
    return __all__


def SymmetricFlow(  # a function with the name that the method has in the literature
    data_train: ArrayLike,
    data_validate: ArrayLike | None = None,
    y_train: ArrayLike | None = None,
    y_validate: ArrayLike | None = None,
    *,
    condition_field: ArrayLike | None = None,
    condition_field_validate: ArrayLike | None = None,
    condition_knots: int | None = None,
    ndim: int | None = None,
    box_size: float | Sequence[float] = 1.0,
    names: Sequence[str] | None = None,
    n_layers: int | None = None,
    psi_knots: int | None = None,
    filter_knots: int | None = None,
    symmetry: str = "isotropic",
    axis: int | None = None,
    mu_knots: int | None = None,
    mask: ArrayLike | None = None,
    fill: str = "realisation",
    k_min: float | None = None,
    k_max: float | None = None,
    couplings: int | None = None,
    coupling_channels: int | None = None,
    coupling_knots: int | None = None,
    patch_layers: int | None = None,
    patch_size: int | None = None,
    patch_slices: int | None = None,
    patch_knots: int | None = None,
    hidden: int | Sequence[int] | None = None,
    start_fields: int | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    patience: int | None = None,
    learning_rate: float | None = None,
    warmup: float | None = None,
    weight_decay: float | None = None,
    clip: float | None = None,
    noise: float | tuple[float, float] | ArrayLike | Callable[[Floats], ArrayLike] | None = None,
    noise_condition: bool = False,
    objective: str | float = "likelihood",
    posterior_epochs: int | None = None,
    posterior_rate: float | None = None,
    posterior_draws: int | None = None,
    calibrate: bool = False,
    n_models: int = 1,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float | None = None,
    seed: int | None = 0,
    progress: Callable[[Progress], object] | None = None,
    verbose: bool = True,
    comm: Any | None = None,
    **unknown: object,
) -> Flow:
    """Fit the density p(x), or p(x|y), of periodic fields whose statistics are the same everywhere.

    Each layer is a convolution with an isotropic kernel, done in Fourier space, and then a
    monotone function of every pixel: x <- Psi(F^-1 T(|k|) F x). T > 0 and Psi are splines. With
    conditions y, a neural network gives their knots as functions of y. The fit begins with what
    whitens and Gaussianises the fields, and goes on by maximum likelihood. The same arguments give
    the same flow, bit for bit, for any number of threads.

    Parameters
    ----------
    data_train : (n, n0, n1) or (n, n0, n1, n2) array-like of real numbers
        Fields on one periodic mesh. float32 and float16 give a
        float32 flow; anything else float64.
    data_validate : (m, n0, n1[, n2]) array-like, optional
        The flow kept is that of the epoch at which log p of these is highest.
    y_train, y_validate : (n, p), (m, p) array-like, optional
        What each field is conditioned on. Shape (n,) for a single parameter.
    condition_field, condition_field_validate : arrays like data_train, data_validate, optional
        A second field c of each, on the same mesh: the flow is p(x|c), or p(x|c, y). Before each
        layer x is shifted, x <- x + F^-1 S(|k|) F g(c), by splines S along |k|, of either sign, and
        g, a function of every pixel. They begin as the Wiener filter.
    condition_knots : int, optional
        Knots of g in each layer. Default 8.
    ndim : 2 or 3, optional
        Axes of the mesh. An array with as many axes is then a single field. Default: one less than
        the array has.
    box_size : float or sequence of float
        Length of the axes, in the user's units.
    names : sequence of str, optional
        What the conditions are called, for messages and plots. Default: the columns of the table
        y_train.
    n_layers : int, optional
        Default 5.
    psi_knots, filter_knots : int, optional
        Knots of Psi and of log T in each layer. Default 8 and 128.
    symmetry : "isotropic" or "axial"
        Axial flows have a line of sight, as fields in redshift space have: their T(|k|, |mu|)
        depends on the cosine mu of the angle between the mode and that axis as well.
    axis : int, optional
        Of axial flows: the axis of the mesh that is the line of sight. Default: the last.
    mu_knots : int, optional
        Of axial flows: knots of log T along mu^2, through which a polynomial goes, 2 to 4.
        Default 4.
    mask : (*mesh) array-like of bool, optional
        True where fields are observed: log p is the density of these pixels, and what stands in the
        others, NaN included, does not matter. A map that is not periodic is one whose margin is not
        observed: pad it.
    fill : "realisation" or "noise"
        How unobserved pixels are drawn so that layers have whole fields; their density is divided
        out. "realisation": given the observed ones, as those of a Gaussian field whose power
        spectrum depends on y (its logarithm a polynomial of second degree); "noise": white noise.
        Where `noise` is a map, "realisation" draws what pixels would be with the noise of the
        quietest one, given what they are. Neither knows of condition_field: with one, under a
        mask or a noise map, some of what it tells is lost.
    k_min, k_max : float, optional
        The flow is that of the modes k_min <= |k| <= k_max alone, |k| as in
        `pyflow.fields.wavenumbers`, and whatever fields have at other |k| does not matter: log p is
        the density of the coefficients of orthonormal real Fourier modes (F x / sqrt(pixels)), as
        many as there are modes within. For fields that have no power elsewhere, and so no
        density: overdensities of which every one has mean 0 (a k_min just above 0), maps that were
        smoothed or cut in Fourier space. The other modes are drawn, as white noise at the level
        that the power spectrum has at the edge, a polynomial of second degree in y, and their
        density is divided out (`draws` of `Flow.evaluate_density`). Samples have none of them, but
        for the training fields' mean. Not with a mask or a noise map.
    couplings : int, optional
        Layers on the symmetric ones in which large scales and small ones move each other, in turn:
        `pyflow.layers.Coupling`. They learn that small scales are stronger where large ones are
        high, which the others cannot; two take as long as five symmetric layers. For meshes of some
        8 pixels a side at least, more than four of them for 12. Default 0.
    coupling_channels, coupling_knots : int, optional
        Of each. Default 3 and 8.
    patch_layers : int, optional
        Layers that are not the same everywhere, on the symmetric ones: `pyflow.layers.Patch` of
        patches at random places, fitted as GIS fits them and then trained with the others. They
        learn what a window leaves (fill="noise" needs some ten). They do not depend on y.
        Default 0.
    patch_size, patch_slices, patch_knots : int, optional
        Side of a patch, slices of each and knots of their splines. Default 4, all pixels, 16.
    hidden : sequence of int, optional
        Units of the network's hidden layers. Default (512, 512).
    start_fields : int, optional
        Fields that the start looks at. Default 64.
    epochs : int, optional
        Passes through the training fields. Default 60; 0 keeps the start.
    batch : int, optional
        Fields in a mini-batch. Default 16.
    patience : int, optional
        Stop after this many epochs without improvement. Default 0: never. log p may stay
        below the start's for twenty epochs before it rises, so fewer would be too few.
    learning_rate : float, optional
        Adam's, at its highest. Default 8e-3.
    warmup : float, optional
        Fraction of the steps in which it rises. Default 0.05.
    weight_decay : float, optional
        Of the network's weights, in every step, times the learning rate. Default: batch / (3 n
        learning_rate) of n fields, so that weights are what the last three epochs made them;
        less in proportion where the last hidden layer is narrower than 512.
    clip : float, optional
        The longest gradient, in units of its running mean length. Default 3; 0 for any.
    noise : float, (float, float), callable or (*mesh) array, optional
        Standard deviation, or the range of it, of white noise added to the fields, afresh every
        epoch; or the power spectrum P(k) of Gaussian noise, as in `pyflow.fields.gaussian_field`;
        or a map (*mesh) of the standard deviation in every pixel.
        The flow is then that of the fields with noise.
    noise_condition : bool
        The standard deviation, drawn from its range, is one more condition, the last.
    objective : "likelihood", "posterior" or float
        A number w from 0, the likelihood, to 1, the posterior: when it is not 0, training on the
        likelihood is followed by fine-tuning on (1 - w) log p(x|y) + w log p(y|x), the prior
        uniform over the training range.
    posterior_epochs, posterior_rate, posterior_draws : int, float, int, optional
        Of that stage: epochs, learning rate, and conditions that stand for the prior, for every
        field and step. Defaults 5, 2e-4, and 127 for one or two parameters, three times as many
        (383, 1151, 3455, 10367) for each further one up to six; up to eight times as many where
        log p(y|x) is not right to 0.1 nats before. Fields where it is not then are trained on
        log p(x|y), with a warning.
    calibrate : bool
        Then fit the temperature of posteriors on the validation fields: `Flow.calibrate`.
    n_models : int, optional
        More than one: a `Mixture` of so many fits, each with another part of the simulations
        held out for validation: what `data_train` and `data_validate` hold together is split anew,
        each part as large as `data_validate`, or, without that, one of n_models parts, and at most
        a fifth. Parts are disjoint if they can be. Fields of equal y stay together.
        As many fits as there are threads run side by side; while they are unfinished, their
        checkpoints have `.0`, `.1`, ... behind the name. Default 1.
    checkpoint : str or os.PathLike, optional
        File for the unfinished fit, written every `checkpoint_seconds` (default 60) and when the
        fit is interrupted. If it is there the fit goes on from it, to the same flow as an
        uninterrupted one; at the end it holds that flow.
    checkpoint_seconds : float, optional
    seed : int or None
        0 <= seed < 2**64; None for a different one every time.
    progress : callable, optional
        Called with a `Progress` after every epoch. An exception that it raises stops the fit.
    verbose : bool
        Show a progress line on stderr: by tqdm if that is installed.
    comm : mpi4py.MPI.Comm, optional
        Fit with the other ranks of this communicator, each of which gives its own fields, with
        their conditions (any number, also none; those of rank 0, 1, ... one after another are the
        whole, and so are validation fields), and the same options. All get the same flow: bit for
        bit that of all fields on one machine, if their processors are alike. If a rank fails, all
        do, by a `pyflow.mpi.RankError` with its message. Every rank has all fields in memory, and
        takes its share of each batch: more ranks than a batch has tiles of fields (`batch`, 16 by
        default, of large fields) gain nothing. Rank 0 alone warns, reports progress, and writes
        the checkpoint, which all must be able to read.

    Returns
    -------
    Flow
        For more than one of `n_models` a `Mixture`.

    Raises
    ------
    ValueError, TypeError
        For fields or options that make no sense: the message names the argument. For fields without
        power at some |k|, less than 1e-12 of the pixels' variance per mode (in float32 n / 4 times
        that, n the pixels of the longest axis, beside what rounding leaves of pixels far from 0):
        it names those |k|, and k_min, k_max or noise as remedies.
    OSError
        If the checkpoint cannot be read, or not be written at the end.
    FileError
        If the checkpoint is no file of pyflow's, or damaged.
    KeyboardInterrupt
        On Ctrl-C, within a second or so. Once the start in closed form is made, what had been
        reached is the exception's attribute `flow`, as it is for an exception raised by `progress`;
        a note with it names the checkpoint that was left.

    Warns
    -----
    RuntimeWarning
        If training meets a NaN: the last good flow is returned. If a checkpoint cannot be
        written: the fit goes on.
    UserWarning
        If there is a single field, or an axis with a single pixel, or a cube that may be one
        field or many; if many pixels have the same
        value, and no noise is added: such fields have no density; if y_validate reaches beyond
        y_train.

    References
    ----------
    B. Dai and U. Seljak, "Translation and Rotation Equivariant Normalizing Flow (TRENF) for Optimal
    Cosmological Analysis", 2022, arXiv 2202.05282.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> y = np.random.default_rng(0).uniform(0.5, 2, 300)
    >>> power = lambda k: y[:, None, None] / k
    >>> x = pyflow.fields.gaussian_field(power, (16, 16), box_size=16.0, seed=1)
    >>> flow = pyflow.SymmetricFlow(x[:250], x[250:], y[:250], y[250:], box_size=16.0, n_layers=1,
    ...     filter_knots=16, hidden=(32, 32), epochs=10, verbose=False)
    >>> exact = pyflow.fields.gaussian_logp(x[250:], lambda k: power(k)[250:], box_size=16.0)
    >>> bool(abs(flow.evaluate_density(x[250:], y[250:]).mean() - exact.mean()) < 5)
    True
    """
    arguments = {k: v for k, v in locals().items() if k != "unknown"}
    if comm is not None and not isinstance(comm, Ranks):
        return _ranks.together(SymmetricFlow, arguments | unknown)
    refuse_unknown(SymmetricFlow, unknown)
    given = {k: v for k, v in locals().items() if k in _core.options("symmetric") and k != "seed"}
    own = {}  # fields that this rank was given
    if comm is not None:
        whole = partial(_ranks.whole, comm, own)
        data_train = whole(data_train, "data_train")
        data_validate = whole(data_validate, "data_validate")
        condition_field = whole(condition_field, "condition_field")
        condition_field_validate = whole(condition_field_validate, "condition_field_validate")
    data_train = _fields(data_train, "data_train", ndim, mask)
    mesh = data_train.shape[1:]
    if mask is not None:
        given["mask"] = window(mask, mesh).astype(np.uint8).ravel()
    if data_validate is not None:
        data_validate = _fields(data_validate, "data_validate", len(mesh), mask)
        if data_validate.shape[1:] != mesh:
            raise ValueError(
                f"data_validate: its fields have shape {data_validate.shape[1:]}, those of "
                f"data_train {mesh}"
            )
    along = line_of_sight(symmetry, axis, mu_knots, len(mesh))
    if along is not None:
        given["axis"], given["mu_knots"] = along
    box, table = box_lengths(box_size, len(mesh)), y_train
    n_train = own.get("data_train", len(data_train))
    n_validate = data_validate if data_validate is None else len(data_validate)
    n_validate = own.get("data_validate", n_validate)
    y_train, y_validate = conditions(y_train, y_validate, n_train, n_validate, ranks=comm)
    p = 0 if y_train is None else y_train.shape[1]
    given |= noise_options(noise, mesh, box)
    given["noise_condition"] = boolean("noise_condition", noise_condition)
    if noise_condition and not given["noise"][0] < given["noise"][1]:
        raise ValueError("noise_condition: noise must be a range, (low, high)")
    given["posterior_weight"] = posterior_weight(objective, p)
    if boolean("calibrate", calibrate) and y_validate is None:
        raise ValueError("calibrate: needs data_validate and y_validate")
    if calibrate and n_models != 1:
        raise ValueError(
            "calibrate: every field trains a member of n_models: calibrate the mixture on others, "
            "Mixture.calibrate"
        )
    names = condition_names(names, table, p)
    if comm is not None:
        comm.same("names", names)
    if y_validate is not None:
        warn_outside(names, *reach(y_train).T, reach(y_validate), "y_validate")
    if not given["noise"][1] > 0:
        _warn_discrete(data_train if mask is None else data_train[:, np.asarray(mask)])
    data = {"data_train": data_train, "data_validate": data_validate}
    data |= {"y_train": y_train, "y_validate": y_validate}
    data |= _second_fields(condition_field, condition_field_validate, data_train, data_validate)
    if condition_knots is not None:
        _arguments.integer("condition_knots", condition_knots, 2, 64)
        if condition_field is None:
            raise ValueError("condition_knots: are of a flow with a condition_field")
    if fill not in FILLS:
        names = " or ".join(map(repr, FILLS))
        raise ValueError(f"fill: must be {names}, not {fill!r}")
    if fill == "realisation" and (mask is not None or "noise_map" in given):
        seen = np.ones(mesh, bool) if mask is None else np.asarray(mask)
        how = _realisation(data_train, seen, y_train, box, noise, given)
        given |= {k: v.ravel() for k, v in how.items()}
    if k_min is not None or k_max is not None:
        if mask is not None or "noise_map" in given:
            raise ValueError("k_min, k_max: do not go together with a mask or a map of the noise")
        how = band(*_noisy(data_train, y_train, box, noise, given), box, k_min, k_max)
        given |= {k: v.ravel() for k, v in how.items()}
    flow = fitted(
        n_models,
        _core.symmetric_fit,
        "symmetric",
        "SymmetricFlow",
        data,
        given,
        {"names": names + [NOISE] * given["noise_condition"]},
        {"box_size": list(box), "calibrate": bool(calibrate)},
        checkpoint=checkpoint,
        seed=seed,
        progress=progress,
        verbose=verbose,
        total=all_epochs,
        box=box,
        ranks=comm,
    )
    if calibrate and flow.calibration is None:
        try:
            beside = flow._beside(condition_field_validate, len(data_validate))
            flow = flow._calibrated(data_validate, y_validate, 0, "data_validate", beside)
        except BaseException as error:
            error.flow = flow
            raise
    return saved(flow, checkpoint, comm)


def _realisation(x, mask, y, box, noise, given):
    """Return how pixels are drawn: of fields with the noise that they are to have."""
    if "noise_map" in given:
        return realisation(x, mask, y, box, given["axis"], given["noise_map"].reshape(mask.shape))
    x, y = _noisy(x, y, box, noise, given)
    return realisation(x, mask, y, box, given["axis"])


def _noisy(x, y, box, noise, given):
    """Return fields with the noise that they are to have, and their conditions."""
    n, (low, high) = len(x), given["noise"]
    if callable(noise):
        x = x + gaussian_field(noise, x.shape[1:], n, box_size=box, seed=0)
    elif high > 0:
        rng = np.random.default_rng(0)
        sigma = rng.uniform(low, high, (n, 1))
        x = x + sigma.reshape(n, *[1] * (x.ndim - 1)) * rng.standard_normal(x.shape)
        if given["noise_condition"]:
            y = sigma if y is None else np.concatenate([y, sigma], axis=1)
    return x, y


def _fields(x, name, ndim, mask=None):
    """Return training fields (n, mesh), checked, in float32 or float64; 0 where not observed."""
    x = _arguments.rows(x, name)
    shape = tuple(x.shape)
    if ndim is not None and _arguments.integer("ndim", ndim, 2, 3) == len(shape):
        x, shape = np.asarray(x)[None], (1, *shape)
    if len(shape) != (ndim + 1 if ndim else len(shape)) or len(shape) not in (3, 4):
        single = "; a single field is x[None]" if len(shape) == 2 else ""
        wanted = {2: "(n, n0, n1)", 3: "(n, n0, n1, n2)"}
        wanted = wanted[ndim] if ndim else " or ".join(wanted.values())
        raise ValueError(f"{name}: must have shape {wanted}; its shape is {shape}{single}")
    if 0 in shape:
        raise ValueError(f"{name}: is empty; its shape is {shape}")
    if np.asarray(x).dtype == np.float16:
        x = np.asarray(x, dtype=np.float32)
    if mask is not None and (name == "data_train" or np.shape(mask) == shape[1:]):
        x = np.asarray(x)
        x = np.where(window(mask, shape[1:]), x, x.dtype.type(0))
    x = np.ascontiguousarray(checked(x, name)[0])
    if name != "data_train":
        return x
    if ndim is None and len(set(shape)) == 1 and len(shape) == 3:
        warn(
            f"{name}: shape {shape} is taken for {shape[0]} fields of two axes; if it is one field "
            "of three, give ndim=3 (ndim=2 takes it so without this warning)"
        )
    if 1 in shape[1:]:
        warn(f"{name}: an axis of the mesh {shape[1:]} has a single pixel: is it meant to be one?")
    if shape[0] == 1:
        warn(f"{name}: holds a single field, which is all that will be known of their variety")
    known = x if mask is None else x[:, mask]
    if np.all(known == known.flat[0]):
        raise ValueError(f"{name}: the fields are constant: they have no density")
    return x


def _second_fields(train, validate, data_train, data_validate):
    """Return the second fields of training and validation fields, checked, as the core's data."""
    if train is None:
        if validate is not None:
            raise ValueError(
                "condition_field: is missing, although condition_field_validate is given"
            )
        return {}
    if (validate is None) != (data_validate is None):
        missing = "condition_field_validate" if validate is None else "data_validate"
        given = (
            "data_validate and condition_field are"
            if validate is None
            else ("condition_field_validate is")
        )
        raise ValueError(f"{missing}: is missing, although {given} given")
    found = {}
    pairs = {"condition_field": (train, data_train)}
    pairs["condition_field_validate"] = validate, data_validate
    for name, (c, x) in pairs.items():
        if c is None:
            continue
        found[name] = np.asarray(_arguments.rows(c, name))
        if found[name].shape != x.shape:
            raise ValueError(
                f"{name}: must have shape {x.shape}, a field for each; its shape is "
                f"{found[name].shape}"
            )
        found[name] = np.ascontiguousarray(checked(found[name], name)[0], x.dtype)
    return found


def _warn_discrete(x):
    """Warn of fields with few values, or one that many pixels have: they have no density."""
    pixels = x.reshape(-1)[:: x.size >> 16 | 1]  # an odd step, which meets every column
    _, counts = np.unique(pixels, return_counts=True)
    share = counts.max() / len(pixels)
    if counts.max() > 1 and (share > 0.1 or len(counts) < 0.01 * len(pixels)):
        warn(
            f"data_train: has {len(counts)} different values in {len(pixels)} pixels, one of them "
            f"in {share:.1%}: discrete fields have no density, and a fit sharpens its spikes "
            "without end; add noise of the values' spacing"
        )
