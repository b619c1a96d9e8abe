"""Fields of which a range of |k| has a density: how modes outside of it are to be drawn."""

import numpy as np

from pyflow._arguments import real
from pyflow._window import dependence
from pyflow.fields import wavenumbers

BINS = 3  # of |k| next to the edge of the range, as wide as the lowest frequency
MEAN = 0.1  # of the level, for the mean alone
SLACK = 1e-9  # wave numbers are equal to rounding


def band(x, y, box, k_min, k_max):
    """Return the modes that a flow is of, and levels for the others, as the core takes them.

    The levels go on with the fields' power spectrum at either edge of the range, log P there being
    a polynomial of second degree in y. Where the mean alone is drawn its level is lower, and T has
    a knot for it (csrc/start.c): a mean that varies blurs pixels before layers can tell it from the
    rest, which costs fields far from Gaussian much of log p.

    Parameters
    ----------
    x : (n, *mesh) array
    y : (n, p) array or None
    box : tuple of float
    k_min, k_max : float or None

    Returns
    -------
    dict
        band_k, band_range, band_level: see csrc/band.c and pf_band in csrc/pyflow.h. Empty if all
        modes lie within.
    """
    low = 0.0 if k_min is None else real("k_min", k_min)
    high = np.inf if k_max is None else real("k_max", k_max)
    if not low >= 0:
        raise ValueError(f"k_min: must not be negative, but is {k_min}")
    if not high > 0:
        raise ValueError(f"k_max: must be positive, but is {k_max}")
    mesh = x.shape[1:]
    k, number = (a.ravel() for a in wavenumbers(mesh, box))
    inside = (k >= low * (1 - SLACK)) & (k <= high * (1 + SLACK))
    if not (inside & (k > 0)).any():
        raise ValueError(
            f"k_min, k_max: no mode of this mesh lies between {low:g} and {high:g}; its own are "
            f"{k[k > 0].min():.4g} to {k.max():.4g}"
        )
    if inside.all():
        return {}
    reach, basis, rows = dependence(len(x), y, k.size, np.random.default_rng(0))
    width = 2 * np.pi / max(box) * (1 + SLACK)
    known = inside & (k > 0)
    first, last = k[known].min(), k[known].max()
    below = (k - first) // width
    above = (last - k) // width
    level = np.zeros((basis.shape[1], 2))
    for side, (at, edge) in enumerate(((below, first), (above, last))):
        bins = [known & (at == b) for b in range(BINS)]
        bins = [b for b in bins if b.any()]
        level[:, side] = 0.5 * edge_power(x[rows], basis, k, number, bins, edge)
    drawn = k[~inside & (k < first)]
    if drawn.size and not drawn.any():
        level[0, 0] += np.log(MEAN)
    return {"band_k": np.array([low, high]), "band_range": reach, "band_level": level}


def edge_power(x, basis, k, number, bins, edge):
    """Return coefficients (terms,) of log P at the edge, log P linear in log k near it.

    P is the mean of |F x|^2 over the number of pixels.
    """
    count = np.array([number[b].sum() for b in bins])
    logs = np.empty((len(x), len(bins)))
    for i, one in enumerate(x):
        power = np.abs(np.fft.rfftn(one.astype(np.float64))).ravel() ** 2 / one.size
        mean = [(number[b] * power[b]).sum() for b in bins] / count
        logs[i] = np.log(np.maximum(mean, 1e-300))
    logs += 1 / count + 1 / (3 * count**2)  # of a mean of so many squares
    away = np.array([(number[b] * np.log(k[b])).sum() for b in bins] / count) - np.log(edge)
    n, weight = len(x), np.sqrt(count)
    design = np.concatenate(
        [np.repeat(basis, len(bins), axis=0), np.tile(away, n)[:, None]], axis=1
    )
    if len(bins) == 1:
        design = design[:, :-1]
    weight = np.tile(weight, n)
    found = np.linalg.lstsq(design * weight[:, None], logs.ravel() * weight, rcond=None)[0]
    return found[: basis.shape[1]]
