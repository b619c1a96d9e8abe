"""The calls of the original implementation of GIS, in its own spelling, on top of pyflow.

For scripts that were written for https://github.com/biweidai/SINF: change the import to

    from pyflow.compat import GIS

and `GIS(data_train, data_validate, iteration, ...)` takes the original's arguments in the
original's order and gives a model with the original's calls. PyTorch tensors may go in, and then
tensors come out, on the device that they came from; arrays give arrays.

What is different:

- An option that is not given has pyflow's default, which fits better: see `pyflow.GIS`. It is one
  fit always: mixtures have no layers.
- Everything is computed on the processor. `batchsize` and `nocuda` have no meaning.
- Log-densities and log-determinants are float64.
- Gradients do not flow through a model, and a tensor that asks for them is refused: `score` gives
  d log p / dx.
- Layers that depend on parameters (`param`) raise NotImplementedError.
- `add_layer` and `delete_layer` are not there: `model.layer = model.layer[:k]` cuts a model.

`model.flow` is pyflow's own model, with all that it can do.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from pyflow import _arguments
from pyflow import gis as _gis

__all__ = ["GIS", "SINF"]


def __dir__():
    return __all__


def GIS(
    data_train: Any,
    data_validate: Any = None,
    iteration: int | None = None,
    weight_train: Any = None,
    weight_validate: Any = None,
    K: int | None = None,
    M: int | None = None,
    KDE: bool | None = None,
    b_factor: float | None = None,
    alpha: tuple[float, float] | None = None,
    bounds: Any = None,
    edge_bins: int | None = None,
    ndata_A: int | None = None,
    MSWD_max_iter: int | None = None,
    NBfirstlayer: bool | None = None,
    Whiten: bool | None = None,
    batchsize: int | None = None,
    nocuda: bool = False,
    patch: bool = False,
    shape: Any = None,
    model: SINF | None = None,
    verbose: bool = True,
) -> SINF:
    """Fit a density to data: `pyflow.GIS` with the arguments of the original implementation.

    Parameters
    ----------
    data_train : (n, d) tensor or array-like
    data_validate : (m, d) tensor or array-like, optional
    iteration : int, optional
        Layers of the model, at most, all kinds counted: a longer fit is cut, and pyflow's last
        layer, the size of latents, is then missing. Needed without validation data.
    weight_train, weight_validate : (n,), (m,) tensor or array-like, optional
    K, M, KDE, b_factor, alpha, bounds, edge_bins, ndata_A, MSWD_max_iter, NBfirstlayer, Whiten
        In `pyflow.GIS`: n_slices, n_knots, kde, bandwidth_factor, alpha, bounds, edge_knots,
        slice_points, slice_steps, marginal_first, whiten.
    batchsize, nocuda
        Ignored.
    patch : bool
        Layers of patches of images, which are rows of `shape`, (height, width, channels).
    shape : sequence of int, optional
        Without patches it is ignored.
    model : SINF, optional
        Go on from this model. It is not changed: the longer one is returned.
    verbose : bool

    Returns
    -------
    SINF

    Raises
    ------
    ValueError, TypeError
        As `pyflow.GIS`.

    Examples
    --------
    >>> import numpy as np
    >>> from pyflow.compat import GIS
    >>> x = np.random.default_rng(0).gamma(2, size=(500, 2))
    >>> model = GIS(x, None, 5, verbose=False)
    >>> len(model.layer)
    5
    >>> z, logj = model(x)
    >>> back, _ = model.inverse(z)
    >>> bool(np.allclose(back, x))
    True
    """
    image = {}
    if _arguments.boolean("patch", patch):
        if shape is None:
            raise ValueError("shape: must be given, since patch is")
        image = {"image_shape": shape, "dequantize": False}
    options = {
        "max_layers": iteration,
        "n_slices": K,
        "n_knots": M,
        "kde": KDE,
        "bandwidth_factor": b_factor,
        "edge_knots": edge_bins,
        "slice_points": ndata_A,
        "slice_steps": MSWD_max_iter,
        "marginal_first": NBfirstlayer,
        "whiten": Whiten,
    }
    flow = _gis.GIS(
        data_train,
        data_validate,
        **{name: value for name, value in options.items() if value is not None},
        alpha=alpha,
        bounds=bounds,
        weight_train=weight_train,
        weight_validate=weight_validate,
        n_models=1,
        model=getattr(model, "flow", model),
        verbose=verbose,
        **image,
    )
    if iteration is not None and len(flow) > iteration:  # `max_layers` counts sliced ones alone
        gained = flow.history["logp_validate"][:iteration]
        flow = flow[: iteration if data_validate is None else int(gained.argmax()) + 1]
    torch = _torch(data_train)
    return SINF(flow, None if torch is None else data_train.device)


class SINF:
    """A fitted model with the calls of the original implementation; `GIS` makes it.

    Layers `start` to `end` of it are a range as of a list: negative numbers count from the end.
    `param` must be None.

    Attributes
    ----------
    flow : pyflow.Flow
    ndim : int
        Number of columns.
    layer : list
        The layers. Setting it to the first ones of them, `model.layer = model.layer[:k]`, cuts the
        model.
    """

    def __init__(self, flow: Any, device: Any = None):
        self.flow = flow
        self._device = device  # of the tensors that it was fitted to, or None for arrays

    @property
    def ndim(self) -> int:
        """Number of columns."""
        return self.flow.dim

    @property
    def layer(self) -> list[_Layer]:
        """The layers, each of them a model of one layer."""
        return [_Layer(self, i) for i in range(len(self.flow))]

    @layer.setter
    def layer(self, layers: Any) -> None:
        mine = all(isinstance(a, _Layer) and a.model.flow == self.flow for a in layers)
        if not mine or [a.index for a in layers] != list(range(len(layers))):
            raise NotImplementedError("layer: a model can be cut to its first layers, no more")
        self.flow = self.flow[: len(layers)]

    def forward(self, data, start: int = 0, end: int | None = None, param: None = None):
        """Carry data through layers `start` to `end`: (z, log|det dz/dx|)."""
        _no_param(param)
        start, end = self._place("start", start), self._place("end", end)
        if start > end:
            raise ValueError(f"start, end: {start} is beyond {end}; inverse goes backwards")
        return self._through(data, start, end)

    def inverse(self, data, start: int | None = None, end: int = 0, d_dz=None, param: None = None):
        """Carry latent points back from layer `start` to `end`: (x, log|det dx/dz|)."""
        _no_param(param)
        if d_dz is not None:
            raise NotImplementedError("d_dz: derivatives are not carried back")
        start, end = self._place("start", start), self._place("end", end)
        if start < end:
            raise ValueError(f"start, end: {start} is before {end}; forward goes that way")
        return self._through(data, start, end)

    def transform(self, data, start: int | None, end: int | None, param: None = None):
        """Go from layer `start` to `end`, forward or backward; None is the end of all layers."""
        _no_param(param)
        return self._through(data, self._place("start", start), self._place("end", end))

    def __call__(self, data, start: int = 0, end: int | None = None, param: None = None):
        """Do as `forward`."""
        return self.forward(data, start, end, param)

    def evaluate_density(self, data, start: int = 0, end: int | None = None, param: None = None):
        """Return log p of data, (n,), under layers `start` to `end` alone."""
        _no_param(param)
        start, end = self._place("start", start), self._place("end", end)
        if start == 0 and end > 0:
            return _like(data, self.flow[:end].evaluate_density(_points(data)))
        z, logj = self._through(_points(data), start, end)
        return _like(data, logj + _normal(z))

    def loss(self, data, start: int = 0, end: int | None = None, param: None = None):
        """Return the mean of -log p."""
        return -self.evaluate_density(data, start, end, param).mean()

    def score(self, data, start: int = 0, end: int | None = None, param: None = None):
        """Return d log p / dx, (n, ndim), of the first `end` layers."""
        _no_param(param)
        start, end = self._place("start", start), self._place("end", end)
        if start or not end:
            raise NotImplementedError("score: only of layers from the first on")
        return _like(data, self.flow[:end].score(_points(data, any_tensor=True)))

    def sample(
        self, nsample: int, start: int | None = None, end: int = 0, device: Any = None, param=None
    ):
        """Draw a sample and its log-densities: N(0, I) carried back from layer `start` to `end`.

        With tensors it follows PyTorch's seed, and they are put on `device`, by default that of the
        training data.
        """
        _no_param(param)
        start, end = self._place("start", start), self._place("end", end)
        if start < end:
            raise ValueError(f"start, end: {start} is before {end}")
        torch = _torch_of(self._device)
        seed = None if torch is None else int(torch.randint(2**63 - 1, (1,)).item())
        if start:
            x, logp = self.flow[:start].sample(nsample, seed=seed)
            x = x.reshape(nsample, self.ndim)
        else:
            x = np.random.default_rng(seed).normal(size=(nsample, self.ndim))
            logp = _normal(x)
        if end:
            x, logj = self.flow[:end].forward(x)
            logp = logp - logj
        if torch is None:
            return x, logp
        device = self._device if device is None else device
        return torch.from_numpy(x).to(device), torch.from_numpy(logp).to(device)

    # What a PyTorch module is asked for, which changes nothing here.

    def to(self, *device: Any, **options: Any) -> SINF:
        """Return the model: it is computed on the processor, whatever the device."""
        return self

    cuda = cpu = float = double = eval = train = requires_grad_ = to

    def __repr__(self) -> str:
        return f"pyflow.compat.SINF({self.flow!r})"

    # ---- on the way ------------------------------------------------------------------------------

    def _place(self, name, value):
        """Return a place between layers, from 0 to their number."""
        n = len(self.flow)
        if value is None:
            return n
        place = _arguments.integer(name, value, -n, n)
        return place + n if place < 0 else place

    def _through(self, data, start, end):
        """Carry points that lie before layer `start` to where they lie before layer `end`.

        All that a model can be cut to is its first layers: points go back through the first
        `start`, and then through the first `end`.
        """
        points = _points(data)
        logj = np.zeros(len(points))
        if start != end:
            if start:
                points, logj = self.flow[:start].inverse(points)
            if end:
                points, more = self.flow[:end].forward(points)
                logj = logj + more
        return _like(data, points), _like(data, logj)


class _Layer:
    """A layer of a model, as the original's list of layers holds it."""

    def __init__(self, model: SINF, index: int):
        self.model, self.index = model, index

    def forward(self, data, param: None = None):
        """Carry data through the layer."""
        return self.model.forward(data, self.index, self.index + 1, param)

    def inverse(self, data, d_dz=None, param: None = None):
        """Carry data back."""
        return self.model.inverse(data, self.index + 1, self.index, d_dz, param)

    __call__ = forward

    def __repr__(self) -> str:
        return f"layer {self.index}: {self.model.flow.layers[self.index]}"


def _no_param(param):
    if param is not None:
        raise NotImplementedError("param: layers that depend on parameters are not here")


def _normal(z):
    """Return log N(z; 0, I) of (n, d) points."""
    z = np.asarray(z, dtype=np.float64)
    return -0.5 * ((z**2).sum(axis=1) + z.shape[1] * math.log(2 * math.pi))


# ---- tensors -------------------------------------------------------------------------------------


def _torch(x):
    """Return PyTorch if x is one of its tensors, or None; it is not imported."""
    return _torch_of(x) if hasattr(x, "detach") else None


def _torch_of(x):
    package = type(x).__module__.partition(".")[0]
    return sys.modules[package] if package.startswith("torch") else None


def _points(x, any_tensor=False):
    """Return points as an array (n, d); one of shape (d,) as (1, d)."""
    if not any_tensor and getattr(x, "requires_grad", False) and _torch(x).is_grad_enabled():
        raise NotImplementedError(
            "data: requires a gradient, and none flows through this model: use model.score, or "
            "data.detach()"
        )
    x = np.asarray(_arguments.rows(x, "data"))
    return x[None] if x.ndim == 1 else x


def _like(x, result):
    """Return a result as a tensor where x is one."""
    torch = _torch(x)
    return result if torch is None else torch.from_numpy(result).to(x.device)
