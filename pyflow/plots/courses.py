"""Pictures of the course of a fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pyflow.plots._style import COLOURS, INK, SAMPLES, TRAIN, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyflow.flow import Flow

__all__ = ["history"]


def __dir__():
    return __all__


def history(flow: Flow) -> Figure:
    """Draw the log-likelihood after each layer of a fit of GIS, or after each epoch of training.

    Below it, for layers, the sliced distance. Of a flow of GIS that was trained: the epochs. Of a
    mixture: those of all members, a colour for each. Where the first steps are far below the rest,
    the rest is drawn once more, in an inset.

    Parameters
    ----------
    flow : Flow

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the flow has no history: a fit without layers, or epochs.

    Examples
    --------
    >>> import numpy as np, pyflow
    >>> x = np.random.default_rng(0).gamma(2, size=(500, 2))
    >>> figure = pyflow.plots.history(pyflow.GIS(x, max_layers=3, verbose=False))
    >>> len(figure.axes)
    2
    """
    records = flow.history if isinstance(flow.history, tuple) else (flow.history,)
    if not all(len(record["epoch"]) for record in records):
        raise ValueError("flow: has no history")
    trained = any(record["epoch"].any() for record in records)
    if trained:
        records = [{k: v[record["epoch"] > 0] for k, v in record.items()} for record in records]
    step, unit = "epoch" if trained else "layer", "nats"
    if len(flow.shape) > 1:
        unit = "nats per pixel"
    few = max(len(record["epoch"]) for record in records) <= 60
    mark = {"marker": "o", "markersize": 3} if few else {}
    with drawing() as plt:
        if trained:
            figure, above = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
            below = above
        else:
            figure, (above, below) = plt.subplots(
                2, 1, figsize=(6.4, 4.8), sharex=True, height_ratios=(2, 1), layout="constrained"
            )
            for record, colour in zip(records, _members(plt, len(records), INK), strict=True):
                _distances(below, record["distance"], colour, mark)
        _likelihoods(plt, above, records, mark)
        zoom = _zoom(records)
        if zoom is not None:
            inner = above.inset_axes((0.42, 0.1, 0.57, 0.56))
            _likelihoods(plt, inner, records, mark)
            inner.set_ylim(zoom)
            inner.tick_params(labelsize=7)
            inner.spines[:].set_visible(True)
            inner.xaxis.get_major_locator().set_params(integer=True)
        handles = _history_key(plt, records)
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 4))
        above.set_ylabel(f"mean log p ({unit})")
        below.set_xlabel(step)
        below.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _members(plt, n, alone):
    """Return a colour for each of n members; of a single one, that given."""
    if n == 1:
        return [alone]
    if n <= len(COLOURS):
        return COLOURS[:n]
    return list(plt.get_cmap("viridis")(np.linspace(0, 0.95, n)))


def _likelihoods(plt, axes, records, mark):
    """Draw the course of every record: of members, dashed for training, one colour for each."""
    n = len(records)
    members = zip(records, _members(plt, n, TRAIN), _members(plt, n, SAMPLES), strict=True)
    for record, first, second in members:
        train, validate = record["logp_train"], record["logp_validate"]
        at = np.arange(1, len(train) + 1)
        axes.plot(at, train, color=first, lw=1.2, ls="-" if n == 1 else "--", **mark)
        if np.isfinite(validate).any():
            axes.plot(at, validate, color=second, lw=1.2, **mark)
            best = int(np.nanargmax(validate))
            axes.plot(at[best], validate[best], "o", ms=8, mfc="none", mec=second)


def _history_key(plt, records):
    from matplotlib.lines import Line2D

    def line(label, colour, **how):
        return Line2D([], [], color=colour, lw=1.2, label=label, **how)

    n, ring = len(records), {"marker": "o", "ms": 8, "mfc": "none", "ls": ""}
    validated = [r for r in records if np.isfinite(r["logp_validate"]).any()]
    many = n > 1
    handles = [line("training data", INK if many else TRAIN, ls="--" if many else "-")]
    if validated:
        best = f"best: {np.nanmax(validated[0]['logp_validate']):.4g}"
        handles.append(line("validation data", INK if many else SAMPLES))
        handles.append(line("best of each" if many else best, INK if many else SAMPLES, **ring))
    if many:
        colours = _members(plt, n, INK)
        shown = range(n) if n <= 8 else (0, n - 1)  # the colours between are in order
        handles += [line(f"member {m}", colours[m]) for m in shown]
    return handles


def _zoom(records):
    """Return limits without the first steps, where these are so far off that little else is seen.

    None where the rest is not small beside the whole, or is not all at the top.
    """
    rest, whole = [], []
    for record in records:
        for values in (record["logp_train"], record["logp_validate"]):
            rest.append(values[math.ceil(0.12 * len(values)) :])
            whole.append(values)
    rest, whole = np.concatenate(rest), np.concatenate(whole)
    if not np.isfinite(rest).any():
        return None
    low, top, least = np.nanmin(rest), np.nanmax(rest), np.nanmin(whole)
    if not 0 < top - low < 0.25 * (top - least):
        return None
    margin = 0.08 * (top - low)
    return low - margin, top + margin


def _distances(axes, distance, colour, mark):
    at = np.arange(1, len(distance) + 1)
    seen = np.isfinite(distance) & (distance > 0)
    axes.semilogy(at[seen], distance[seen], color=colour, lw=1.2, **mark)
    axes.set_ylabel("sliced distance")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(lambda x, _: f"{x:.2g}" if f"{x:.0e}"[0] in "235" else "")
