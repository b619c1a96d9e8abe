"""What pictures of fields share: fields as they were given, their pixels, spectra and units."""

from __future__ import annotations

import re

import numpy as np

from pyflow.fields import checked, pdf, power_spectrum

ROWS = ("data", "samples of the model")


def as_fields(x, name):
    """Return x as real, finite fields (n, mesh)."""
    x, _ = checked(x, name)
    if 0 in x.shape:
        raise ValueError(f"{name}: is empty; its shape is {x.shape}")
    return x


def both(data, samples):
    data, samples = as_fields(data, "data"), as_fields(samples, "samples")
    if data.shape[1:] != samples.shape[1:]:
        raise ValueError(
            f"samples: its fields have shape {samples.shape[1:]}, those of data {data.shape[1:]}"
        )
    return data, samples


def density(x, edges):
    """Return the density in every bin; what lies beyond the edges counts in its norm."""
    return pdf(x[None] if x.ndim == 3 else x, [-np.inf, *edges, np.inf])[1][1:-1]


def tell_beyond(axes, x, limits, what, least=0.005):
    """Write what share of pixels lies beyond the limits, where it is more than the least."""
    share = np.mean((x < limits[0]) | (x > limits[1]))
    if share > least:
        text = f"{100 * share:.3g}% of the {what}\nlie beyond"
        axes.text(0.99, 0.97, text, ha="right", va="top", fontsize=7.5, transform=axes.transAxes)


def spectra(x, box_size, bins=None):
    k, power, modes = power_spectrum(x, box_size, bins)
    if not len(k):
        raise ValueError("bins: no mode of these fields lies in them")
    return k, power, modes


def wave_numbers(axes, unit):
    """Label the logarithmic axis of k, of which one decade at most may be seen."""
    axes.set_xlabel(f"$k$  [{_over(unit)}]" if unit else "$k$")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:.0e}"[0] in "235" else "")


def written(unit):
    """Return a unit as text: the h of Mpc/h is a number, and slanted."""
    return re.sub(r"\bh\b", "$h$", unit) if "pc" in unit and "$" not in unit else unit


def _over(unit):
    """Return one over a unit, as text: h/Mpc of Mpc/h."""
    above, slash, below = unit.partition("/")
    if not slash:
        return to_the(unit, -1)
    if below.isalpha() and above.isalpha():
        return written(f"{below}/{above}")
    return f"({written(unit)})$^{{-1}}$"


def to_the(unit, power):
    """Return a power of a unit as text, in brackets where it is more than a word."""
    return f"{unit if unit.isalpha() else f'({written(unit)})'}$^{{{power}}}$"
