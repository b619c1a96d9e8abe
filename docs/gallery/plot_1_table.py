"""
A density for a table
=====================

A table of numbers, rows by columns: what is the probability density of a row, and what do new
rows look like? The table here is 2,000 rows of the protein set of ``examples/data``, nine
columns, nearly dependent on each other.
"""

from pathlib import Path

import numpy as np
from scipy import stats

import pyflow

here = next(p for p in Path.cwd().resolve().parents if (p / "examples" / "data").is_dir())
table = np.load(here / "examples" / "data" / "protein.npy")
rng = np.random.default_rng(0)
table = table[rng.permutation(len(table))[:2000]]
train, validate, test = table[:1500], table[1500:1750], table[1750:]

# %%
# Training rows make the layers; validation rows say when to stop. Rows that neither has seen say
# how good it is. ``n_models=1`` is one fit of slices, a matter of a second or some. Without it,
# ``GIS(train, validate)`` fits four flows of two kinds to a table as small as this one, and mixes
# them: better, in half a minute to two.

flow = pyflow.GIS(train, validate, n_models=1, verbose=False)
flow

# %%
# Log-densities are in nats, and of the table's own units: two of them are compared on the same
# rows only. Beside it, the simplest of all rivals, a Gaussian. The error is that of the
# difference, row by row, which is much smaller than that of either mean.

logp = flow.evaluate_density(test)
mean, scale = train.mean(axis=0), train.std(axis=0)
u, v = (train - mean) / scale, (test - mean) / scale
gaussian = stats.multivariate_normal(np.zeros(9), np.cov(u.T)).logpdf(v) - np.log(scale).sum()
lead = logp - gaussian
print(f"flow {logp.mean():.2f}, Gaussian {gaussian.mean():.2f} nats")
print(f"ahead by {lead.mean():.2f} ± {lead.std() / np.sqrt(len(lead)):.2f} nats per row")

# %%
# What each layer gained. Training rows become likelier for ever; the flow ends where validation
# rows no longer do.

history = pyflow.plots.history(flow)
history.set_label("Log-likelihood of training and validation rows against the number of layers")
history

# %%
# New rows, each with its log-density. The same seed gives the same rows.

samples, logp_samples = flow.sample(5000, seed=1)
np.allclose(flow.evaluate_density(samples), logp_samples)

# %%
# Data are the filled contours, samples the lines. Look at such a picture before you use samples in
# place of data; :doc:`plot_2_mocks` says how to look closer.

pairs = pyflow.plots.pairs(table, samples, columns=[0, 2, 4, 6])
pairs.set_label("Contours of four columns of the table, and of samples")
pairs

# %%
# The latent space: a flow carries rows to points that should follow N(0, I), and back.

z, logj = flow.forward(test)
back, _ = flow.inverse(z)
np.abs((back - test) / scale).max()  # in standard deviations; float32

# %%
# A file holds numbers and no code; it is checked when it is read.

flow.save("protein.pyflow")
again = pyflow.load("protein.pyflow")
Path("protein.pyflow").unlink()
again == flow

# %%
# **Bounds.** Columns that cannot leave a range are given as such: the density is zero outside, and
# samples stay inside.

waits = rng.gamma(0.8, size=(2000, 2))  # positive, and densest at zero
bounded = pyflow.GIS(
    waits[:1600], waits[1600:], bounds=[(0, None), (0, None)], n_models=1, verbose=False
)
print(bounded.sample(5000, seed=1)[0].min() >= 0)
print(bounded.evaluate_density([[-0.1, 1.0]]))

# %%
# **Classes.** ``labels=`` gives p(x | label), with shared slices and splines of each class.

kind = (table[:, 0] > np.median(table[:, 0])).astype(int)
classes = pyflow.GIS(
    table[:1500, 1:],
    table[1500:1750, 1:],
    labels=kind[:1500],
    labels_validate=kind[1500:1750],
    max_layers=60,
    verbose=False,
)
odds = classes.evaluate_density(test[:, 1:], 1) - classes.evaluate_density(test[:, 1:], 0)
print(f"right class in {np.mean((odds > 0) == kind[1750:]):.0%} of the test rows")
