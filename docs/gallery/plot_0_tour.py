"""
A ten-minute tour
=================

Data first: points on a ring, rows by columns. A table of yours does as well, from NumPy, pandas,
polars, pyarrow or astropy.
"""

import numpy as np

import pyflow

rng = np.random.default_rng(0)
radius, angle = 2 + 0.3 * rng.normal(size=3000), rng.uniform(0, 2 * np.pi, 3000)
x = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
train, validate, test = x[:2000], x[2000:2500], x[2500:]

# %%
# **Fit.** Training rows make the layers, validation rows say when to stop. ``n_models=1`` is one
# flow, in a second or some; without it, you get a mixture of several, which is better and takes
# longer.

flow = pyflow.GIS(train, validate, n_models=1, verbose=False)
flow

# %%
# **Densities** are exact and normalised: log p in nats. Here the truth is known.

true = -0.5 * ((radius - 2) / 0.3) ** 2 - np.log(0.3 * np.sqrt(2 * np.pi) * 2 * np.pi * radius)
logp = flow.evaluate_density(test)
print(f"mean log p {logp.mean():.3f}, of the truth {true[2500:].mean():.3f}")

# %%
# **Samples**, each with its log p.

samples, logp_samples = flow.sample(3000, seed=1)
figure = pyflow.plots.pairs(x, samples, names=["x", "y"])
figure.set_label("A ring: contours of data, filled, and of samples, lines")
figure

# %%
# **Scores**, d log p / dx, for Hamiltonian Monte Carlo; **latents**, which follow N(0, I), and the
# way back.

print(flow.score(test[:2]))
z, logj = flow.forward(test)
again, _ = flow.inverse(z)
print(np.abs(again - test).max())

# %%
# **Files** hold numbers and no code: ``flow.save("ring.pyflow")``, ``pyflow.load("ring.pyflow")``.
# Pickle and copy work too.

pyflow.Flow.from_bytes(flow.to_bytes()) == flow

# %%
# **Conditions.** Give numbers y for each row and the density is p(x|y). With x the data of a
# simulator and y its parameters it is a likelihood, and has posteriors. A few epochs of networks
# take some seconds.

y = rng.uniform(-1, 1, size=(800, 1))
data = y + 0.2 * rng.normal(size=(800, 2))
likelihood = pyflow.GIS(
    data[:600],
    data[600:],
    condition=y[:600],
    condition_validate=y[600:],
    n_models=1,
    verbose=False,
)
posterior = likelihood.posterior([0.3, 0.4], prior=[(-1, 1)])
print("posterior", posterior.mean, "±", np.sqrt(posterior.cov[0]))
print("exact     [0.35] ±", np.array([0.2 / np.sqrt(2)]))

# %%
# **Fields.** Periodic maps whose statistics are the same everywhere have flows of their own.

maps = pyflow.fields.gaussian_field(lambda k: (1 + k) ** -2.0, (32, 32), 300, box_size=10.0, seed=1)
field_flow = pyflow.SymmetricFlow(
    maps[:250], maps[250:], box_size=10.0, n_layers=1, epochs=10, verbose=False
)
figure = pyflow.plots.maps(maps, field_flow.sample(4, seed=1)[0], box_size=10.0)
figure.set_label("Four fields above, four samples below")
figure

# %%
# On from here: the other :doc:`tutorials <index>`, :doc:`/which`, and, before you trust any of it,
# :doc:`/wrong`.
