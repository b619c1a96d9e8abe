"""Pictures of tables, fields and posteriors: data beside samples, and a latent space beside noise.

Every function returns a `matplotlib.figure.Figure`; matplotlib is imported when the first one is
called.
"""

from pyflow.plots.fields import field_pdf, latent_map, maps, power_spectra
from pyflow.plots.tables import history, latent, marginals, pairs
from pyflow.plots.triangle import posteriors

__all__ = [
    "field_pdf",
    "history",
    "latent",
    "latent_map",
    "maps",
    "marginals",
    "pairs",
    "posteriors",
    "power_spectra",
]
