"""Slices and networks: one density of both, in the shares that rows ask for which neither has seen.

Greedy slices and autoregressive networks err in different places: slices on smooth dependences,
networks where rows are few or lie in lumps. So their mixture is as a rule better than either, and
one number has to be chosen: the weight under which held-out rows are likeliest (stacking: Smyth and
Wolpert 1999, "Linearly combining density estimators via stacking").
"""

import numpy as np

from pyflow._members import gains, held_out, of_data
from pyflow.mixture import Mixture

LEAST = 0.01  # of the weight: a flow of less is left out
HALVINGS = 50  # of the interval that the weight lies in


def stacked(slices, networks, data, seed, n_models=1, single=None):
    """Return the mixture of a flow and another one, or the former if rows do not gain by it.

    They gain if the mean log p of held-out rows rises by more than its standard error.

    Parameters
    ----------
    slices : Flow
        Of one fit, or the mixture of several.
    networks : callable
        Given their number and `first` of `_members.fitted`, returns as many fits to the same rows:
        each sees the rows that its twin of the others has seen.
    data : dict
        What `slices` was fitted to.
    seed : int
        Of that fit.
    n_models : int
        How many fits to mix where `single` is given.
    single : Flow, optional
        Of the training rows alone. Where it is given, the validation rows' log p under it tells,
        not that of the rows which each member of `slices` held out.
    """
    members = getattr(slices, "members", (slices,)) if single is None else (single,)

    def weighed(others):
        """Return the weight of the other kind, of so many members, or 0 if rows do not gain."""
        a = logs(others, held)
        a, b, w, at = (np.concatenate(x[: len(a)]) for x in (a, one, weight, rows))
        of_other = share(a, b, w)
        # Parts may overlap: what a row gains is the mean of what it gains in each.
        more = np.bincount(at, w * (mixed(a, b, of_other) - b))
        w = np.bincount(at, w)
        seen = w > 0
        return of_other if gains(more[seen] / w[seen], w[seen]) else 0

    try:
        rows, held = zip(*held_out(data, len(members), seed), strict=True)
        weight = [part.get("weight_validate", np.ones(len(part["data_validate"]))) for part in held]
        one = logs(members, held)
        other = networks(len(members), lambda first: weighed([first]) > LEAST)
        of_other = weighed(getattr(other, "members", (other,))) if other else 0
        if of_other > LEAST and single is not None and n_models > 1:
            other = networks(n_models, None)
    except BaseException as error:
        if isinstance(error, ValueError) and of_data(error):  # too few rows for networks, say
            return slices
        error.flow = slices
        raise
    if of_other <= LEAST:
        return slices
    return other if of_other >= 1 - LEAST else Mixture([slices, other], [1 - of_other, of_other])


def logs(flows, held):
    """Return log p of the rows that each flow's fit held out."""
    pairs = zip(flows, held, strict=False)
    return [flow.evaluate_density(part["data_validate"]) for flow, part in pairs]


def mixed(a, b, w):
    """Return log(w e^a + (1 - w) e^b)."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log(w) + a, np.log1p(-w) + b)


def share(a, b, weight):
    """Return the w in [0, 1] that maximises the weighted sum of log(w e^a + (1 - w) e^b).

    The sum is concave: its slope, sum_i weight_i (r_i - 1) / (w r_i + 1 - w) with r = e^(a - b),
    falls with w.
    """
    low, high = 0.0, 1.0
    top = np.maximum(a, b)
    up, down = np.exp(a - top), np.exp(b - top)
    for _ in range(HALVINGS):
        w = 0.5 * (low + high)
        rises = weight @ ((up - down) / (w * up + (1 - w) * down)) > 0
        low, high = (w, high) if rises else (low, w)
    return 0.5 * (low + high)
