"""Mixtures of flows: one density from several fits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import _arguments, _core
from pyflow._blend import NOTED, Blend, differences, read
from pyflow.flow import Flow

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["Mixture"]


def __dir__():
    return __all__


class Mixture(Flow):
    """The probability density sum_k w_k p_k(x), or p_k(x|y), of several flows p_k.

    Fits of the same data on different splits into training and validation data differ by chance,
    and their mixture is as a rule better than each: `GIS` gives one of four for a small table, and
    `GIS(..., n_models=8)` and `SymmetricFlow(..., n_models=4)` make such. A mixture does what a
    `Flow` does, exactly, at the cost of all its members: densities and their gradients, samples,
    posteriors of the parameters (whose likelihood is that of the mixture), `check`, `calibrate`,
    files, pickles. What is of one flow alone raises a TypeError, and is asked of a member: the
    latent space (`members[0].forward`, `inverse`), the first layers (`members[0][:k]`) and `train`.
    Where the members have different bounds, the density is zero outside of all, and `score` is of
    points inside each of them.

    Parameters
    ----------
    flows : sequence of Flow
        Of the same points: of one shape, box, dtype and mask, and conditioned on the same. A
        mixture among them stands for its members. Temperatures that they are calibrated to are
        not used.
    weights : (K,) array-like, optional
        Positive; they are divided by their sum. Default: equal ones.

    Attributes
    ----------
    members : tuple of Flow
    weights : (K,) float64 array
        Their sum is 1.
    layers, slices, n_parameters
        Of all members together.
    y_range : (p, 2) float64 array
        The least and most that any member was trained on.
    history : tuple of dict
        `Flow.history` of each member.

    Raises
    ------
    ValueError, TypeError
        If the flows do not go together, or a weight is not positive.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).gamma(2, size=(600, 2))
    >>> a = pyflow.GIS(x[:400], x[400:], n_models=1, verbose=False)
    >>> b = pyflow.GIS(x[200:], x[:200], n_models=1, verbose=False)
    >>> both = pyflow.Mixture([a, b], weights=[3, 1])
    >>> p = 0.75 * np.exp(a.evaluate_density(x)) + 0.25 * np.exp(b.evaluate_density(x))
    >>> bool(np.allclose(both.evaluate_density(x), np.log(p)))
    True
    >>> len(both), both.weights
    (2, array([0.75, 0.25]))
    """

    __slots__ = ()

    def __init__(self, flows: Sequence[Flow], weights: ArrayLike | None = None):
        flows = list(flows) if isinstance(flows, Iterable) else [flows]
        for flow in flows:
            if not isinstance(flow, Flow):
                raise TypeError(f"flows: must be of pyflow.Flow, not {type(flow).__name__}")
        if not flows:
            raise ValueError("flows: there are none")
        cores, shares = [], []
        for k, (flow, weight) in enumerate(zip(flows, _shares(weights, len(flows)), strict=True)):
            different = differences(flows[0], flow)
            if different:
                raise ValueError(
                    f"flows: {', '.join(different)} of flow {k} differ from those of the first"
                )
            own = flow.weights if isinstance(flow, Mixture) else [1.0]
            cores += flow._core.cores if isinstance(flow, Mixture) else [flow._core]
            shares += [weight * share for share in own]
        note = {k: v for k, v in flows[0]._note.items() if k in NOTED}
        self._set(Blend(cores, _shares(shares, len(shares)), json.dumps(note)))

    @property
    def members(self) -> tuple[Flow, ...]:
        """The flows that it is a mixture of.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> flow = pyflow.GIS(x, max_layers=1, verbose=False)
        >>> pyflow.Mixture([flow, flow]).members[1] == flow
        True
        """
        return tuple(Flow._of(core) for core in self._core.cores)

    @property
    def weights(self) -> Floats:
        """What each member's density is multiplied by, (K,); their sum is 1."""
        return self._core.weights.copy()

    @property
    def history(self) -> tuple[dict[str, Floats], ...]:
        """What the fit of each member recorded: see `Flow.history`."""
        return tuple(flow.history for flow in self.members)

    def __len__(self) -> int:
        return len(self._core.cores)

    def __getitem__(self, key: Any) -> Flow:
        raise _of_one("has no first layers to cut")

    def train(self, *args: Any, **kwargs: Any) -> Flow:
        """Refuse: each member can be trained on its own, and the results mixed.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> both = pyflow.Mixture([pyflow.GIS(x, max_layers=1, verbose=False)] * 2)
        >>> trained = [flow.train(x, epochs=1, verbose=False) for flow in both.members]
        >>> both = pyflow.Mixture(trained, both.weights)
        """
        raise _of_one("is not trained, but its members are, and mixed again")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: each member has a latent space of its own.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> both = pyflow.Mixture([pyflow.GIS(x, max_layers=1, verbose=False)] * 2)
        >>> z, logj = both.members[1].forward(x)
        """
        raise _of_one("has no latent space of its own")

    def inverse(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, as `forward` does."""
        raise _of_one("has no latent space of its own")

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Mixture:
        """Return the mixture that `to_bytes` gave these bytes for.

        Raises
        ------
        FileError
            If they are cut short, altered, of a newer format, or no mixture.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> both = pyflow.Mixture([pyflow.GIS(x, max_layers=1, verbose=False)] * 2)
        >>> pyflow.Mixture.from_bytes(both.to_bytes()) == both
        True
        """
        core = read(data)
        flow = cls._of(core)
        for k, member in enumerate(flow.members):
            different = differences(flow, member)
            if different:
                raise _core.FileError(
                    f"the file is damaged: {', '.join(different)} of member {k} are not the "
                    "mixture's"
                )
        return flow

    def __repr__(self) -> str:
        parts = [f"{len(self)} flows", f"shape={self.shape}"]
        if self.box_size is not None:
            parts.append(f"box_size={self.box_size}")
        if np.ptp(self.weights):
            parts.append(f"weights=({', '.join(f'{w:.3g}' for w in self.weights)})")
        parts.append(f"layers={'+'.join(str(len(flow)) for flow in self.members)}")
        parts.append(f"parameters={self.n_parameters}")
        parts += self._told()
        for name in ("logp_train", "logp_validate"):
            each = [flow._reached(name) for flow in self.members]
            if None not in each:
                parts.append(f"{name}={np.mean(each):.4g} of a member")
        if self.unfinished:
            parts.append("unfinished")
        return f"pyflow.Mixture({', '.join(parts)})"

    def _repr_html_(self) -> str:
        from pyflow import _html

        return _html.of_mixture(self)


def _of_one(what):
    """Return the error for what only a single flow does."""
    return TypeError(f"a mixture {what}: take model.members[k], or fit with n_models=1")


def _shares(weights, n):
    """Return n weights, whose sum is 1."""
    if weights is None:
        return np.full(n, 1 / n)
    weights = np.asarray(_arguments.rows(weights, "weights"))
    if weights.dtype.kind not in "biuf" or weights.shape != (n,):
        raise ValueError(f"weights: must be {n} numbers, one for each flow, not {weights!r}")
    weights = weights.astype(np.float64)
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError("weights: must be positive and finite")
    weights /= weights.max()
    weights /= weights.sum()
    if not (weights > 0).all():
        raise ValueError("weights: differ by too many orders of magnitude")
    return weights
