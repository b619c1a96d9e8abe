"""Pictures of tables, fields, images and posteriors: data beside samples, latents beside noise.

Every function that draws returns a `matplotlib.figure.Figure`, which pyplot does not know: a
notebook shows it as the value of a cell, and `figure.savefig` writes it to a file. `style` gives
other figures the same look. matplotlib is imported when the first one is called.
"""

from pyflow.plots._style import parameter_label, style
from pyflow.plots.checks import coverage, spread, two_samples
from pyflow.plots.compared import bispectra, field_pdf, power_spectra
from pyflow.plots.courses import history
from pyflow.plots.fields import latent_map, maps
from pyflow.plots.images import image_grid
from pyflow.plots.tables import latent, marginals, pairs
from pyflow.plots.triangle import posteriors

__all__ = [
    "bispectra",
    "coverage",
    "field_pdf",
    "history",
    "image_grid",
    "latent",
    "latent_map",
    "maps",
    "marginals",
    "pairs",
    "parameter_label",
    "posteriors",
    "power_spectra",
    "spread",
    "style",
    "two_samples",
]


def __dir__():
    return __all__
