"""
Fields and posteriors
=====================

Periodic fields whose statistics are the same everywhere and in all directions, conditioned on
parameters y: a symmetric flow is the field-level likelihood p(x|y). The fields here are Gaussian,
so that the exact likelihood is known.
"""

import numpy as np

import pyflow

rng = np.random.default_rng(0)
y = np.column_stack([rng.uniform(0.5, 2, 500), rng.uniform(-2.5, -1.5, 500)])
names, prior = ["amplitude", "slope"], [(0.5, 2), (-2.5, -1.5)]


def power(k, y=y):
    """A spectrum for each field, (n, mesh)."""
    amplitude, slope = np.atleast_2d(y).T[:, :, None, None]
    return amplitude * (1 + k) ** slope


x = pyflow.fields.gaussian_field(power, (32, 32), box_size=10.0, seed=1)  # (500, 32, 32)

# %%
# Some fields train, some say when to stop. A small network is enough for two parameters.

flow = pyflow.SymmetricFlow(
    x[:360],
    x[360:400],
    y[:360],
    y[360:400],
    box_size=10.0,
    hidden=(32, 32),
    n_layers=2,
    filter_knots=16,
    epochs=40,
    names=names,
    verbose=False,
)
flow

# %%
# Log p(x|y) beside the exact one, per field of 1,024 pixels.

logp = flow.evaluate_density(x[400:], y[400:])
exact = pyflow.fields.gaussian_logp(x[400:], lambda k: power(k, y[400:]), box_size=10.0)
print(f"{logp.mean():.1f}, exact {exact.mean():.1f} nats")

# %%
# Samples at the parameters of held-out fields: maps, and the mean power spectra.

samples, _ = flow.sample(100, y[400:], seed=1)
figure = pyflow.plots.maps(x[400:], samples, box_size=10.0)
figure.set_label("Four fields above, four samples below")
figure

# %%

figure = pyflow.plots.power_spectra(x[400:], samples, 10.0, paired=True)
figure.set_label("Mean power spectra of fields and of samples, and the mean ratio of pairs")
figure

# %%
# **A posterior of one field.** The prior is a box here; a log-density, SciPy's distributions or a
# dict by name do as well. Up to three parameters are integrated on a grid.

i = 400 + np.abs(y[400:] - [1.25, -2]).sum(axis=1).argmin()  # one far from the prior's edges
post = flow.posterior(x[i], prior)
truth = pyflow.Posterior(
    lambda y: pyflow.fields.gaussian_logp(
        np.repeat(x[i : i + 1], len(y), axis=0), lambda k: power(k, y), box_size=10.0
    ),
    prior,
    names,
)
print("flow ", post.mean, "±", np.sqrt(np.diag(post.cov)))
print("exact", truth.mean, "±", np.sqrt(np.diag(truth.cov)))

# %%

figure = pyflow.plots.posteriors([post, truth], ["flow", "exact"], truth=y[i], getdist=False)
figure.set_label("Posteriors of amplitude and slope by the flow and exact")
figure

# %%
# **Is it what it says?** Posteriors of held-out simulations, drawn from the prior, tell. The
# figure of merit of a posterior means little without this.

found = flow.check(x[400:], y[400:], prior=prior)
print(found)

# %%

figure = found.plot()
figure.set_label("Coverage, TARP and ranks, with the bands expected of so many simulations")
figure

# %%
# Posteriors that are too narrow, as those of flows of few fields are, can be calibrated on yet
# other simulations (``flow.calibrate(x, y)``), averaged over several fits (``n_models=4``), or
# given more fields to learn from.

# %%
# **One field given another.** ``condition_field=`` is a second field of each, on the same mesh: gas
# given dark matter, a map after given the map before. Here x is a blurred c with noise.

c = pyflow.fields.gaussian_field(lambda k: k**-1.5, (32, 32), 400, box_size=32.0, seed=1)
noise = pyflow.fields.gaussian_field(0.05, (32, 32), 400, box_size=32.0, seed=2)
blurred = pyflow.fields.filtered(c, lambda k: 1 / (1 + k**2), box_size=32.0)
x = blurred + noise
pair = pyflow.SymmetricFlow(
    x[:300],
    x[300:350],
    condition_field=c[:300],
    condition_field_validate=c[300:350],
    box_size=32.0,
    epochs=10,
    verbose=False,
)

# %%
# Its density is p(x|c), and asks for a c of each x. What is left of x, once c is known, is the
# noise, so the exact density is known; the same flow without c knows far less.

logp = pair.evaluate_density(x[350:], condition_field=c[350:])
exact = pyflow.fields.gaussian_logp(noise[350:], 0.05, box_size=32.0)
alone = pyflow.SymmetricFlow(x[:300], x[300:350], box_size=32.0, epochs=10, verbose=False)
print(f"{logp.mean():.1f} nats a field, exact {exact.mean():.1f}")
print(f"without c {alone.evaluate_density(x[350:]).mean():.1f}")

# %%
# Samples are of the c that they are given: one for each of several, or several for one. The mean of
# many is what c tells of x, their scatter the noise, of which a pixel has 0.224.

draws, _ = pair.sample(100, condition_field=c[350], seed=1)
scatter, off = draws.std(axis=0).mean(), (draws.mean(axis=0) - blurred[350]).std()
print(f"scatter {scatter:.3f}; the mean is {off:.3f} off ({scatter / 10:.3f} is due to 100 draws)")

# %%

samples, _ = pair.sample(50, condition_field=c[350:], seed=1)
figure = pyflow.plots.maps(x[350:], samples, box_size=32.0)
figure.set_label("Four fields above; below, a sample for the second field of each")
figure

# %%
# ``score``, ``posterior`` (then p(y|x, c)), ``calibrate`` and ``train`` take ``condition_field``
# too. Do not judge samples by eye alone: ``pyflow.fields.cross_correlation`` with c must be that of
# the data. ``examples/baryons.py`` is such a fit of gas and dark matter, with what goes wrong.

_, r, _ = pyflow.fields.cross_correlation(samples, c[350:], box_size=32.0)
_, r_data, _ = pyflow.fields.cross_correlation(x[350:], c[350:], box_size=32.0)
print(f"largest difference {np.abs(r.mean(axis=0) - r_data.mean(axis=0)).max():.3f}")
