"""Symmetric flows: the density p(x|y) of periodic fields, and posteriors of what shapes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pyflow import _arguments, _checkpoint, _core
from pyflow._arguments import boolean, integer, real, warn
from pyflow._progress import reporter
from pyflow._saved import Saved
from pyflow.fields import box_lengths, checked, wavenumbers
from pyflow.posterior import Posterior, bounds_of, warn_outside

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Values = Floats | float  # one for each field

# name: (check, further arguments of the check)
OPTIONS = {
    "n_layers": (integer, 1, 1000),
    "psi_knots": (integer, 2, 63),
    "filter_knots": (integer, 2, 4096),
    "start_fields": (integer, 1),
    "epochs": (integer, 0),
    "batch": (integer, 1),
    "patience": (integer, 0),
    "learning_rate": (real,),
    "warmup": (real,),
    "weight_decay": (real,),
    "clip": (real,),
    "posterior_epochs": (integer, 0),
    "posterior_rate": (real,),
    "posterior_draws": (integer, 10, 65535),
    "checkpoint_seconds": (real,),
}
OBJECTIVES = {"likelihood": 0.0, "posterior": 1.0}
NOISE = "noise"  # what the noise's standard deviation is called when it is a condition
TEMPERATURES = 1e-4, 1e2  # least and most that the core's calibration tries
FEW = 10  # conditions that say little of a temperature


class FieldProgress(NamedTuple):
    """What a `progress` function is told after every epoch of `SymmetricFlow`.

    Attributes
    ----------
    epoch : int
        Epochs so far, over all stages; 0 is the start in closed form.
    best : int
        The best epoch so far.
    logp_train, logp_validate : float
        Mean log p(x|y), in nats per pixel; NaN where it is not known.
    objective : float
        What the best epoch is best by. While training on the likelihood `logp_validate`, without
        validation fields `logp_train`: nats per pixel. While fine-tuning on the posterior the mean
        log p(y|x) / prior(y) of the same fields: nats per field.
    seconds : float
        Since the fit began.
    """

    epoch: int
    best: int
    logp_train: float
    logp_validate: float
    objective: float
    seconds: float


def _words(p):
    """Return what the progress line says."""
    words = f"log p {p.logp_train:.4f} per pixel"
    if not np.isnan(p.logp_validate):
        words = f"log p {p.logp_train:.4f}, validation {p.logp_validate:.4f} per pixel"
    if not np.isnan(p.objective) and p.objective not in (p.logp_train, p.logp_validate):
        words += f", log p(y|x) {p.objective:.3f} per field"
    return f"{words}, best at {p.best}"


def SymmetricFlow(  # a function with the name that the method has in the literature
    x_train: ArrayLike,
    x_validate: ArrayLike | None = None,
    y_train: ArrayLike | None = None,
    y_validate: ArrayLike | None = None,
    *,
    box_size: float | Sequence[float] = 1.0,
    names: Sequence[str] | None = None,
    n_layers: int | None = None,
    psi_knots: int | None = None,
    filter_knots: int | None = None,
    hidden: int | Sequence[int] | None = None,
    start_fields: int | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    patience: int | None = None,
    learning_rate: float | None = None,
    warmup: float | None = None,
    weight_decay: float | None = None,
    clip: float | None = None,
    noise: float | tuple[float, float] | Callable[[Floats], ArrayLike] | None = None,
    noise_condition: bool = False,
    objective: str | float = "likelihood",
    posterior_epochs: int | None = None,
    posterior_rate: float | None = None,
    posterior_draws: int | None = None,
    calibrate: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float | None = None,
    seed: int | None = 0,
    progress: Callable[[FieldProgress], object] | None = None,
    verbose: bool = True,
) -> FieldModel:
    """Fit the density p(x), or p(x|y), of periodic fields whose statistics are the same everywhere.

    Each layer is a convolution with an isotropic kernel, done in Fourier space, and then a
    monotone function of every pixel: x <- Psi(F^-1 T(|k|) F x). T > 0 and Psi are splines. With
    conditions y, a neural network gives their knots as functions of y. The fit begins with what
    whitens and Gaussianises the fields, and goes on by maximum likelihood. The same arguments give
    the same flow, bit for bit, for any number of threads.

    Parameters
    ----------
    x_train : (n, n0, n1) or (n, n0, n1, n2) array-like of real numbers
        Fields on one periodic mesh. float32 gives a float32 flow; anything else float64.
    x_validate : (m, n0, n1[, n2]) array-like, optional
        The flow kept is that of the epoch at which log p of these is highest.
    y_train, y_validate : (n, p), (m, p) array-like, optional
        What each field is conditioned on. Shape (n,) for a single parameter.
    box_size : float or sequence of float
        Length of the axes, in the user's units.
    names : sequence of str, optional
        What the conditions are called, for messages and plots.
    n_layers : int, optional
        Default 5.
    psi_knots, filter_knots : int, optional
        Knots of Psi and of log T in each layer. Default 8 and 128.
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
        Of the network's weights. Default 0.01.
    clip : float, optional
        The longest gradient, in units of its running mean length. Default 3; 0 for any.
    noise : float, (float, float) or callable, optional
        Standard deviation, or the range of it, of white noise added to the fields, afresh every
        epoch; or the power spectrum P(k) of Gaussian noise, as in `pyflow.fields.gaussian_field`.
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
        (383, 1151, 3455, 10367) for each further one up to six: log p(y|x) is then off by some
        hundredths of a nat, where fewer can miss whole nats.
    calibrate : bool
        Then fit the temperature of posteriors on the validation fields: `FieldModel.calibrate`.
    checkpoint : str or os.PathLike, optional
        File for the unfinished fit, written every `checkpoint_seconds` (default 60) and when the
        fit is interrupted. If it is there the fit goes on from it, to the same flow as an
        uninterrupted one; at the end it holds that flow.
    checkpoint_seconds : float, optional
    seed : int or None
        0 <= seed < 2**64; None for a different one every time.
    progress : callable, optional
        Called with a `FieldProgress` after every epoch. An exception that it raises stops the fit.
    verbose : bool
        Show a progress line on stderr: by tqdm if that is installed.

    Returns
    -------
    FieldModel

    Raises
    ------
    ValueError, TypeError
        For fields or options that make no sense: the message names the argument.
    OSError
        If the checkpoint cannot be written or read.
    KeyboardInterrupt
        On Ctrl-C, within a second or so. Once the start in closed form is made, what had been
        reached is the exception's attribute `flow`, as it is for an exception raised by `progress`;
        a note with it names the checkpoint that was left.

    Warns
    -----
    RuntimeWarning
        If training meets a NaN: the last good flow is returned.
    UserWarning
        If there is a single field, or an axis with a single pixel; if many pixels have the same
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
    x_train = _fields(x_train, "x_train")
    mesh = x_train.shape[1:]
    if x_validate is not None:
        x_validate = _fields(x_validate, "x_validate")
        if x_validate.shape[1:] != mesh:
            raise ValueError(
                f"x_validate: its fields have shape {x_validate.shape[1:]}, those of x_train {mesh}"
            )
    box = box_lengths(box_size, len(mesh))
    y_train, y_validate = _training_conditions(y_train, y_validate, x_train, x_validate)
    p = 0 if y_train is None else y_train.shape[1]
    options = _options(
        p,
        hidden=hidden,
        noise=_noise(noise, mesh, box),
        noise_condition=noise_condition,
        objective=objective,
        n_layers=n_layers,
        psi_knots=psi_knots,
        filter_knots=filter_knots,
        start_fields=start_fields,
        epochs=epochs,
        batch=batch,
        patience=patience,
        learning_rate=learning_rate,
        warmup=warmup,
        weight_decay=weight_decay,
        clip=clip,
        posterior_epochs=posterior_epochs,
        posterior_rate=posterior_rate,
        posterior_draws=posterior_draws,
        checkpoint_seconds=checkpoint_seconds,
    )
    if boolean("calibrate", calibrate) and y_validate is None:
        raise ValueError("calibrate: needs x_validate and y_validate")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: must be callable, not {progress!r}")
    boolean("verbose", verbose)
    given_seed, seed = seed, _arguments.seed(seed)
    names = _arguments.names(names, p, "conditions")
    note = {"names": names + [NOISE] * options["noise_condition"]}
    if 1 in mesh:
        warn(f"x_train: an axis of the mesh {mesh} has a single pixel: is it meant to be one?")
    if len(x_train) == 1:
        warn("x_train: holds a single field, which is all that will be known of their variety")
    if y_validate is not None:
        warn_outside(names, *_reach(y_train).T, _reach(y_validate), "y_validate")
    if np.all(x_train == x_train.flat[0]):
        raise ValueError("x_train: the fields are constant: they have no density")
    if not options["noise"][1] > 0:
        _warn_discrete(x_train)

    data = {
        "x_train": x_train,
        "x_validate": x_validate,
        "y_train": y_train,
        "y_validate": y_validate,
    }
    fit = _core.symflow_defaults() | options | {"box_size": box, "calibrate": bool(calibrate)}
    fit |= {"names": note["names"], "objective": fit.pop("posterior_weight"), "seed": seed}
    fit.pop("checkpoint_seconds")
    note["fit"] = _checkpoint.digest(fit, data)
    if checkpoint is not None:
        _checkpoint.check(checkpoint, given_seed)
        found = _checkpoint.resume(checkpoint, note)
        if found is not None and not found._core.unfinished:
            return found
        options["checkpoint"] = checkpoint
    total = fit["epochs"] + fit["posterior_epochs"] * (fit["objective"] > 0)
    with (
        _checkpoint.mentioned(checkpoint),
        reporter(total, verbose, progress, "SymmetricFlow", "epoch", _words) as report,
    ):
        try:
            core = _core.symflow_fit(
                x_train,
                x_validate,
                y_train,
                y_validate,
                box=box,
                seed=seed,
                note=json.dumps(note),
                progress=report and (lambda *values: report(FieldProgress(*values))),
                **options,
            )
        except BaseException as error:
            if isinstance(getattr(error, "flow", None), _core.SymFlow):
                error.flow = FieldModel(error.flow)
            raise
    model = FieldModel(core)
    try:
        with _checkpoint.mentioned(checkpoint):
            if calibrate:
                model = model._calibrated(x_validate, y_validate, 0, "x_validate")
            if checkpoint is not None:
                model.save(checkpoint)
    except BaseException as error:
        error.flow = model
        raise
    return model


def _fields(x, name):
    """Return training fields, checked, in float32 or float64."""
    x = _arguments.rows(x, name)
    if len(x.shape) not in (3, 4):
        single = "; a single field is x[None]" if len(x.shape) == 2 else ""
        raise ValueError(
            f"{name}: must have shape (n, n0, n1) or (n, n0, n1, n2); its shape is "
            f"{tuple(x.shape)}{single}"
        )
    if 0 in x.shape:
        raise ValueError(f"{name}: is empty; its shape is {tuple(x.shape)}")
    return np.ascontiguousarray(checked(x, name)[0])


def _warn_discrete(x):
    """Warn of fields with few values, or one that many pixels have: they have no density."""
    pixels = x.reshape(-1)[:: x.size >> 16 | 1]  # an odd step, which meets every column
    _, counts = np.unique(pixels, return_counts=True)
    share = counts.max() / len(pixels)
    if counts.max() > 1 and (share > 0.1 or len(counts) < 0.01 * len(pixels)):
        warn(
            f"x_train: has {len(counts)} different values in {len(pixels)} pixels, one of them in "
            f"{share:.1%}: discrete fields have no density, and a fit sharpens its spikes without "
            "end; add noise of the values' spacing"
        )


def _numbers(y, name):
    """Return y as a finite float64 array."""
    y = np.asarray(_arguments.rows(y, name))
    if y.dtype.kind not in "biuf":
        raise ValueError(f"{name}: must hold real numbers; its dtype is {y.dtype}")
    y = y.astype(np.float64)
    if not np.isfinite(y).all():
        raise ValueError(f"{name}: is NaN or infinite in row {np.argwhere(~np.isfinite(y))[0][0]}")
    return y


def _training_conditions(y_train, y_validate, x_train, x_validate):
    if y_train is None:
        if y_validate is not None:
            raise ValueError("y_train: is missing, although y_validate is given")
        return None, None
    y = []
    for values, x, which in ((y_train, x_train, "train"), (y_validate, x_validate, "validate")):
        name = f"y_{which}"
        if values is None:
            if x is not None:
                raise ValueError(f"{name}: is missing, although y_train is given")
            y.append(None)
            continue
        if x is None:
            raise ValueError(f"x_{which}: is missing, although {name} is given")
        values = _numbers(values, name)
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2 or len(values) != len(x) or values.shape[1] == 0:
            raise ValueError(
                f"{name}: must have shape ({len(x)}, p), a row for each field; "
                f"its shape is {values.shape}"
            )
        y.append(np.ascontiguousarray(values))
    if y[1] is not None and y[1].shape[1] != y[0].shape[1]:
        raise ValueError(
            f"y_validate: has {y[1].shape[1]} columns where y_train has {y[0].shape[1]}"
        )
    for j, column in enumerate(y[0].T):
        if column.min() == column.max():
            raise ValueError(f"y_train: column {j} is constant")
    return y


def _reach(y):
    """Least and most of every column of y (n, p), as (p, 2)."""
    return np.stack([y.min(axis=0), y.max(axis=0)], axis=1)


def _noise(noise, mesh, box):
    """Return the core's options for a number, a range of two, or a power spectrum."""
    if callable(noise):
        k, _ = wavenumbers(mesh, box)
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
    values = [noise] if np.ndim(noise) == 0 else list(noise)
    if len(values) not in (1, 2):
        raise ValueError(f"noise: must be a number, a range of two, or P(k), not {noise!r}")
    lo, hi = real("noise", values[0]), real("noise", values[-1])
    if not 0 <= lo <= hi:
        raise ValueError(f"noise: must be standard deviations, low and high, not {noise!r}")
    return {"noise": (lo, hi)}


def _weight(objective, p):
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


def _options(p, *, hidden, noise, noise_condition, objective, **given):
    """Return the core's options: those that were given, checked."""
    options = {}
    for name, value in given.items():
        if value is None:
            continue
        check, *limits = OPTIONS[name]
        options[name] = check(name, value, *limits)
        if check is real and options[name] < 0:
            raise ValueError(f"{name}: must not be negative, not {value}")
    if options.get("warmup", 0) >= 1:
        raise ValueError(f"warmup: must be less than 1, not {options['warmup']}")
    options["posterior_weight"] = _weight(objective, p)
    if hidden is not None:
        hidden = [hidden] if np.ndim(hidden) == 0 else list(hidden)
        if not 1 <= len(hidden) <= 6:
            raise ValueError(f"hidden: must be 1 to 6 layers, not {len(hidden)}")
        options["hidden"] = tuple(integer("hidden", units, 1, 1 << 16) for units in hidden)
    options.update(noise)
    options["noise_condition"] = boolean("noise_condition", noise_condition)
    if noise_condition and not noise["noise"][0] < noise["noise"][1]:
        raise ValueError("noise_condition: noise must be a range, (low, high)")
    return options


class _LogPosterior(NamedTuple):
    """The function sum_i power log p(x_i|y, known) + log prior(y) of (m, p) parameters y.

    Attributes
    ----------
    core : SymFlow
    x : (n, mesh) array
    known : (0,) or (1,) array
        The noise's standard deviation, for a flow that it is a condition of.
    power : float
    log_prior : callable or None
    """

    core: _core.SymFlow
    x: NDArray[Any]
    known: Floats
    power: float
    log_prior: Callable[[Floats], ArrayLike] | None

    def __call__(self, y: Floats) -> Floats:
        known = np.broadcast_to(self.known, (len(y), len(self.known)))
        logs = self.power * self.core.logp_at(self.x, np.hstack([y, known])).sum(axis=0)
        if self.log_prior is None:
            return logs
        extra = np.asarray(self.log_prior(y), dtype=np.float64)
        if extra.shape != (len(y),):
            raise ValueError(f"prior: gave shape {extra.shape} for {len(y)} points")
        if np.isnan(extra).any() or (extra == np.inf).any():
            raise ValueError("prior: gave NaN or infinity")
        return logs + extra


class FieldModel(Saved):
    """The density p(x|y) of periodic fields: what `SymmetricFlow` gives.

    Flows never change, may be used from many threads at once, pickled, copied and compared. All
    methods take fields as arrays of shape (n, mesh), or mesh for a single one, and conditions y
    of shape (n, p), or (p,) for all fields. log-densities are float64, in nats.

    Attributes
    ----------
    mesh : tuple of int
        Pixels along every axis.
    box_size : tuple of float
        Length of every axis.
    dtype : numpy.dtype
        float32 or float64.
    names : tuple of str
        The conditions. Empty for p(x).
    y_range : (p, 2) float64 array
        Their least and most in training.
    n_layers : int
    n_parameters : int
        How many numbers were trained.
    temperature : float
        Power of the likelihood in posteriors: 1 unless calibrated.
    calibration : dict or None
        What `calibrate` found: see the property.
    history : dict of str to numpy.ndarray
        What the fit recorded after each epoch: see the property.

    Examples
    --------
    >>> import pyflow
    >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (16, 16), 100, seed=1)
    >>> flow = pyflow.SymmetricFlow(x, epochs=2, verbose=False)
    >>> flow
    pyflow.FieldModel(mesh=(16, 16), box_size=(1.0, 1.0), layers=5, parameters=1400, ...)
    >>> fields, logp = flow.sample(3, seed=1)
    >>> fields.shape
    (3, 16, 16)
    """

    __slots__ = ()

    _kind = _core.SymFlow
    _made_by = "field models are made by pyflow.SymmetricFlow and pyflow.load"
    _not_of_kind = "this is a model of table rows, not of fields: use pyflow.load"

    # ---- what it is ------------------------------------------------------------------------------

    mesh = property(lambda self: self._core.mesh)
    box_size = property(lambda self: self._core.box)
    n_layers = property(lambda self: self._core.n_layers)
    n_parameters = property(lambda self: self._core.n_parameters)
    temperature = property(lambda self: self._core.temperature)
    y_range = property(lambda self: self._core.range.T.copy())

    @property
    def names(self) -> tuple[str, ...]:
        """What the conditions are called.

        Examples
        --------
        >>> import pyflow
        >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 10, seed=1)
        >>> pyflow.SymmetricFlow(x, epochs=0, verbose=False).names
        ()
        """
        p = self._core.conditions
        return tuple(self._note.get("names") or [f"y{j}" for j in range(p)])

    @property
    def calibration(self) -> dict[str, Any] | None:
        """What the temperature gained on the fields that it was fitted to.

        Returns
        -------
        dict or None
            `fields`: how many; `before`, `after`: mean log p(y|x) / prior(y), in nats per field,
            at temperature 1 and at the one fitted. None for a flow that is not calibrated.

        Examples
        --------
        See `calibrate`.
        """
        found = self._note.get("calibration")
        return None if found is None else dict(found)

    @property
    def history(self) -> dict[str, Floats]:
        """What the fit recorded after each epoch.

        Returns
        -------
        dict of str to (epochs,) float64 array
            `logp_train`, `logp_validate`: mean log p(x|y) per pixel, in nats; NaN without
            validation fields.

        Examples
        --------
        >>> import pyflow
        >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 10, seed=1)
        >>> pyflow.SymmetricFlow(x, epochs=3, verbose=False).history["logp_train"].shape
        (3,)
        """
        train, validate = self._core.history().T.copy()
        return {"logp_train": train, "logp_validate": validate}

    def __repr__(self) -> str:
        parts = [
            f"mesh={self.mesh}",
            f"box_size={self.box_size}",
            f"layers={self.n_layers}",
            f"parameters={self.n_parameters}",
        ]
        if self.names:
            parts.append(f"y=({', '.join(self.names)})")
        parts.append(f"dtype={self.dtype}")
        if self.temperature != 1:
            parts.append(f"temperature={self.temperature:.3g}")
        if self.calibration:
            gain = "calibration={before:.3f} to {after:.3f} nats, {fields} fields"
            parts.append(gain.format(**self.calibration))
        for name, values in self.history.items():
            best = np.nanmax(values) if np.isfinite(values).any() else np.nan
            parts += [f"{name}={best:.5g}"] if np.isfinite(best) else []
        if self._core.unfinished:
            parts.append("unfinished")
        return f"pyflow.FieldModel({', '.join(parts)})"

    # ---- arguments -------------------------------------------------------------------------------

    def _fields(self, x, name="x"):
        """Return fields (n, mesh), and whether it was a single one."""
        x = _arguments.rows(x, name)
        mesh, shape = self.mesh, tuple(x.shape)
        one = shape == mesh
        if not one and (len(shape) != len(mesh) + 1 or shape[1:] != mesh):
            wanted = ", ".join(map(str, mesh))
            raise ValueError(
                f"{name}: must have shape (n, {wanted}), or ({wanted}) for a single field; "
                f"its shape is {shape}"
            )
        x = np.asarray(x)
        if x.dtype.kind not in "biuf":
            raise ValueError(f"{name}: must hold real numbers; its dtype is {x.dtype}")
        return (x[None] if one else x), one

    def _conditions(self, y, n):
        """Return conditions (n, p), or None for a flow without."""
        p = self._core.conditions
        if not p:
            if y is not None:
                raise ValueError("y: this flow was fitted without")
            return None
        if y is None:
            raise ValueError(f"y: this flow is conditional; it needs {', '.join(self.names)}")
        y = self._row(_numbers(y, "y"), p)
        if y.ndim > 2 or y.shape[-1] != p or (y.ndim == 2 and len(y) != n):
            raise ValueError(
                f"y: must have shape ({n}, {p}), or ({p},) for all fields "
                f"({', '.join(self.names)}); its shape is {y.shape}"
            )
        if y.size:
            self._warn_outside(np.atleast_2d(y))
        return np.ascontiguousarray(np.broadcast_to(y, (n, p)))

    def _warn_outside(self, y):
        """Warn where y (n, p), the first p conditions, reaches beyond the training range."""
        p = y.shape[1]
        warn_outside(self.names[:p], *self._core.range[:, :p], _reach(y), "y")

    @staticmethod
    def _row(y, p):
        """Make sense of a number, or of one number per field, for a single condition."""
        if y.ndim == 0 and p == 1:
            return y[None]
        if y.ndim == 1 and p == 1 and len(y) != 1:
            return y[:, None]
        return y if y.ndim else y[None]

    def _map(self, name, x, y, argument="x"):
        x, one = self._fields(x, argument)
        results = getattr(self._core, name)(x, self._conditions(y, len(x)))
        if not one:
            return results
        if not isinstance(results, tuple):
            return float(results[0])
        return results[0][0], float(results[1][0])

    # ---- densities and samples -------------------------------------------------------------------

    def evaluate_density(self, x: ArrayLike, y: ArrayLike | None = None) -> Values:
        """Return the log-density of fields.

        Parameters
        ----------
        x : (n, mesh) or (mesh) array-like of real numbers
        y : (n, p) or (p,) array-like, optional
            For a conditional flow. A warning names a parameter that lies outside of the training
            range.

        Returns
        -------
        (n,) float64 array, or float for a single field
            log p(x|y) of the whole field, in nats.

        Raises
        ------
        ValueError
            If x has another shape, is not real or not finite, or y is missing or of another width.

        Examples
        --------
        >>> import pyflow
        >>> x = pyflow.fields.gaussian_field(1.0, (8, 8), 200, box_size=8.0, seed=1)
        >>> flow = pyflow.SymmetricFlow(x, box_size=8.0, epochs=5, verbose=False)
        >>> exact = pyflow.fields.gaussian_logp(x, 1.0, box_size=8.0)
        >>> bool(abs((flow.evaluate_density(x) - exact).mean()) < 3)
        True
        """
        return self._map("logp", x, y)

    def forward(self, x: ArrayLike, y: ArrayLike | None = None) -> tuple[NDArray[Any], Values]:
        """Carry fields to the latent space, where they are white Gaussian noise of unit variance.

        Parameters
        ----------
        x, y
            As in `evaluate_density`.

        Returns
        -------
        z : array of the shape of x and the flow's dtype
        logj : (n,) float64 array, or float for a single field
            log|det dz/dx|.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 10, seed=1)
        >>> flow = pyflow.SymmetricFlow(x, epochs=2, verbose=False)
        >>> z, logj = flow.forward(x)
        >>> back, minus_logj = flow.inverse(z)
        >>> bool(np.allclose(back, x)), bool(np.allclose(logj, -minus_logj))
        (True, True)
        """
        return self._map("forward", x, y)

    def inverse(self, z: ArrayLike, y: ArrayLike | None = None) -> tuple[NDArray[Any], Values]:
        """Carry latent fields to fields: the inverse of `forward`.

        Parameters
        ----------
        z : (n, mesh) or (mesh) array-like of real numbers
        y : (n, p) or (p,) array-like, optional

        Returns
        -------
        x : array of the shape of z and the flow's dtype
        logj : (n,) float64 array, or float for a single field
            log|det dx/dz|.

        Examples
        --------
        See `forward`.
        """
        return self._map("inverse", z, y, "z")

    def sample(
        self, n: int, y: ArrayLike | None = None, seed: int | None = None
    ) -> tuple[NDArray[Any], Floats]:
        """Draw fields, and their log-densities.

        Parameters
        ----------
        n : int
        y : (n, p) or (p,) array-like, optional
            For a conditional flow: what to draw.
        seed : int, optional
            0 <= seed < 2**64. Field i is made of latent noise that depends on (seed, i) alone: with
            the same seed, other y give the same noise in other worlds. None draws a new sample
            every time.

        Returns
        -------
        x : (n, mesh) array of the flow's dtype
        logp : (n,) float64 array

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 10, seed=1)
        >>> flow = pyflow.SymmetricFlow(x, epochs=2, verbose=False)
        >>> fields, logp = flow.sample(5, seed=1)
        >>> bool(np.allclose(flow.evaluate_density(fields), logp))
        True
        """
        n = integer("n", n, 0)
        return self._core.sample(n, self._conditions(y, n), _arguments.seed(seed))

    def score(self, x: ArrayLike, y: ArrayLike | None = None, *, with_logp: bool = False) -> Any:
        """Return the gradient of the log-density with respect to the field, d log p / dx.

        Parameters
        ----------
        x, y
            As in `evaluate_density`.
        with_logp : bool
            Return log p too: it costs nothing more.

        Returns
        -------
        score : array of the shape of x and the flow's dtype
        logp : (n,) float64 array, or float for a single field
            If with_logp.

        Examples
        --------
        >>> import pyflow
        >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 10, seed=1)
        >>> pyflow.SymmetricFlow(x, epochs=2, verbose=False).score(x).shape
        (10, 8, 8)
        """
        score, logp = self._map("score", x, y)
        return (score, logp) if with_logp else score

    def score_parameters(self, x: ArrayLike, y: ArrayLike, *, with_logp: bool = False) -> Any:
        """Return d log p(x|y) / dy: for Fisher information and Hamiltonian Monte Carlo.

        Parameters
        ----------
        x, y
            As in `evaluate_density`.
        with_logp : bool
            Return log p too: it costs nothing more.

        Returns
        -------
        score : (n, p) float64 array, or (p,) for a single field
        logp : (n,) float64 array, or float for a single field
            If with_logp.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> y = np.random.default_rng(0).uniform(0.5, 2, 100)
        >>> x = pyflow.fields.gaussian_field(lambda k: y[:, None, None] / k, (8, 8), seed=1)
        >>> flow = pyflow.SymmetricFlow(x, y_train=y, hidden=(8, 8), epochs=2, verbose=False)
        >>> flow.score_parameters(x, y).shape
        (100, 1)
        """
        if not self._core.conditions:
            raise ValueError("y: this flow was fitted without")
        score, logp = self._map("score_parameters", x, y)
        return (score, logp) if with_logp else score

    # ---- posteriors ------------------------------------------------------------------------------

    def posterior(
        self,
        x: ArrayLike,
        prior: ArrayLike | Callable[[Floats], ArrayLike] | None = None,
        *,
        bounds: ArrayLike | None = None,
        temperature: float | None = None,
        noise: float | None = None,
        method: str | None = None,
        grid: int | None = None,
        seed: int | None = 0,
        steps: int | None = None,
    ) -> Posterior:
        """Return the posterior of the parameters, p(y|x) ~ p(x|y)^temperature p(y).

        Parameters
        ----------
        x : (n, mesh) or (mesh) array-like
            One field, or several that share one y.
        prior : (p, 2) array-like or callable, optional
            Lower and upper bounds of a uniform prior; or a function of (m, p) points that gives
            their log-densities, (m,). Default: uniform over the training range. A warning names a
            parameter for which it is wider than that.
        bounds : (p, 2) array-like, optional
            For a callable prior: where to look. Default: the training range.
        temperature : float, optional
            Default: the flow's own, 1 unless it is calibrated. 0.5 widens a Gaussian posterior by
            the square root of two.
        noise : float, optional
            For a flow that the noise is a condition of: its standard deviation, which is known.
        method, grid, seed, steps : optional
            See `Posterior`: up to three parameters are integrated on a grid, more are sampled by
            emcee.

        Returns
        -------
        Posterior

        Raises
        ------
        ValueError
            Among others, for a flow without conditions.
        ImportError
            For more than three parameters, if emcee is missing.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> y = np.random.default_rng(0).uniform(0.5, 2, 300)
        >>> power = lambda k: y[:, None, None] / k
        >>> x = pyflow.fields.gaussian_field(power, (16, 16), box_size=16.0, seed=1)
        >>> flow = pyflow.SymmetricFlow(x, y_train=y, box_size=16.0, names=["amplitude"],
        ...     n_layers=1, filter_knots=16, hidden=(32, 32), epochs=10, verbose=False)
        >>> post = flow.posterior(x[0], prior=[(0.5, 2.0)])
        >>> bool(abs(post.mean[0] / y[0] - 1) < 0.4)
        True
        """
        if not self._core.conditions:
            raise ValueError("posterior: this flow was fitted without y")
        p, noisy = self._parameters()
        if not p:
            raise ValueError("posterior: this flow was fitted without y, but for the noise")
        x, _ = self._fields(x)
        if not len(x):
            raise ValueError("x: there are no fields")
        known = np.empty(0)
        if noisy:
            if noise is None:
                raise ValueError("noise: this flow needs its standard deviation")
            known = np.array([real("noise", noise)])
            warn_outside((NOISE,), *self._core.range[:, -1:], [known.repeat(2)], "noise")
        elif noise is not None:
            raise ValueError("noise: is no condition of this flow")
        least, most = self._core.range[:, :p]
        log_prior = None
        if callable(prior):
            log_prior = prior
            box = np.stack([least, most], axis=1) if bounds is None else bounds
            box = bounds_of(box, "bounds", p)
        elif bounds is not None:
            raise ValueError("bounds: are for a callable prior; prior gives them itself")
        else:
            box = bounds_of(np.stack([least, most], axis=1) if prior is None else prior, "prior", p)
        warn_outside(self.names[:p], least, most, box, "prior")
        power = self.temperature if temperature is None else real("temperature", temperature)
        if not power > 0:
            raise ValueError(f"temperature: must be positive, not {power}")

        log_density = _LogPosterior(self._core, x, known, power, log_prior)
        how = {"method": method, "grid": grid, "seed": seed, "steps": steps}
        return Posterior(log_density, box, self.names[:p], **how)

    def calibrate(self, x: ArrayLike, y: ArrayLike, seed: int | None = 0) -> FieldModel:
        """Return this flow with the temperature at which posteriors of these fields are best.

        That is the power b of the likelihood with the largest mean log p(y|x) over held-out
        fields, the prior uniform over the training range. log p(x|y) itself stays as it is. It is
        evaluated at 383 conditions for every field, from three parameters on at three times as many
        for each (`posterior_draws` of `SymmetricFlow`).

        Parameters
        ----------
        x : (n, mesh) array-like
            Fields that the flow was not trained on, of parameters drawn from the prior. If the flow
            was trained with noise, they come without: it is added here.
        y : (n, p) array-like
            The noise's standard deviation is not among them.
        seed : int

        Returns
        -------
        FieldModel
            Its `calibration` says what that gained.

        Warns
        -----
        UserWarning
            If the temperature is at an end of its range, 1e-4 to 100, or the fields are of fewer
            than ten different y: they do not determine it.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> y = np.random.default_rng(0).uniform(0.5, 2, 300)
        >>> power = lambda k: y[:, None, None] / k
        >>> x = pyflow.fields.gaussian_field(power, (8, 8), box_size=8.0, seed=1)
        >>> flow = pyflow.SymmetricFlow(x[:200], y_train=y[:200], box_size=8.0, n_layers=1,
        ...     filter_knots=8, hidden=(16, 16), epochs=5, verbose=False)
        >>> flow = flow.calibrate(x[200:], y[200:])
        >>> 0.3 < flow.temperature < 3
        True
        >>> flow.calibration["fields"], flow.calibration["after"] >= flow.calibration["before"]
        (100, True)
        """
        p, _ = self._parameters()
        if not p:
            raise ValueError("y: this flow was fitted without")
        x, _ = self._fields(x)
        if not len(x):
            raise ValueError("x: there are no fields")
        x, _ = checked(x)
        y = self._row(_numbers(y, "y"), p)
        y = y[None] if y.ndim == 1 and len(x) == 1 else y
        if y.shape != (len(x), p):
            raise ValueError(f"y: must have shape ({len(x)}, {p}); its shape is {y.shape}")
        self._warn_outside(y)
        return self._calibrated(x, y, _arguments.seed(seed), "x")

    def _calibrated(self, x, y, seed, name):
        """Return the flow with its temperature; warnings call the fields by this name."""
        core, before, after = self._core.calibrate(x, y, seed)
        found = {"fields": len(x), "before": before, "after": after}
        flow = FieldModel(core.with_note(json.dumps(self._note | {"calibration": found})))
        least, most = TEMPERATURES
        different = len(np.unique(y, axis=0))
        if not 1.01 * least < flow.temperature < most / 1.01:
            warn(
                f"{name}: {len(x)} fields leave the temperature of posteriors undetermined: it is "
                f"at an end of its range, {flow.temperature:.3g}"
            )
        elif different < FEW:
            warn(
                f"{name}: {len(x)} fields of {different} different y hardly determine the "
                f"temperature of posteriors: it is {flow.temperature:.3g}"
            )
        return flow

    def _parameters(self):
        """Return how many conditions are parameters, and whether the last is the noise's."""
        noisy = self._core.noise_condition
        return self._core.conditions - noisy, noisy
