"""
Survey data: masks and redshift space
=====================================

A survey does not see the whole map, and takes velocities for distances. ``mask=`` is for the
first, ``symmetry="axial"`` for the second. Both on Gaussian fields, where the truth is known.
"""

import numpy as np

import pyflow

size, mesh = 32.0, (32, 32)
rng = np.random.default_rng(0)
y = rng.uniform(0.5, 2, size=(400, 1))  # amplitudes


def power(k):
    return y[:, :, None] * (1 + k) ** -2.0


x = pyflow.fields.gaussian_field(power, mesh, box_size=size, seed=1)

# %%
# **A window.** True where the survey sees; what stands elsewhere, NaN included, does not matter.
# Maps that are not periodic are one case of it: pad them, and let the mask be False there.

mask = np.ones(mesh, bool)
mask[:4] = mask[:, :4] = False  # an edge
i, j = np.indices(mesh)
mask &= (i - 20) ** 2 + (j - 12) ** 2 > 16  # a bright star
seen = np.where(mask, x, np.nan)

flow = pyflow.SymmetricFlow(
    seen[:280],
    seen[280:320],
    y[:280],
    y[280:320],
    mask=mask,
    box_size=size,
    hidden=(32, 32),
    n_layers=2,
    filter_knots=16,
    epochs=12,
    names=["amplitude"],
    verbose=False,
)

# %%
# Unobserved pixels are drawn given their neighbours, and their density divided out; so log p is
# that of the observed pixels alone. The exact one is a dense Gaussian's.

logp = flow.evaluate_density(seen[320:], y[320:], seed=1)
exact = pyflow.fields.gaussian_logp(
    seen[320:], lambda k: y[320:, :, None] * (1 + k) ** -2.0, box_size=size, mask=mask
)
print(f"{mask.mean():.0%} observed: {logp.mean():.1f}, exact {exact.mean():.1f} nats")

# %%
# Samples are whole fields; cut them by the mask to compare.

samples, _ = flow.sample(4, y[320:324], seed=1)
figure = pyflow.plots.maps(
    np.where(mask, x[320:324], 0), np.where(mask, samples, 0), label="field in the window"
)
figure.set_label("Observed fields above, samples below, in the window")
figure

# %%
# A posterior of one map, and whether those of held-out maps hold what they say.

post = flow.posterior(seen[320], [(0.5, 2)])
print(post.mean, np.sqrt(post.cov.ravel()), "true:", y[320])
print(flow.check(seen[320:], y[320:], prior=[(0.5, 2)]))

# %%
# **Noise** that is known belongs to the fit: ``noise=0.3`` adds white noise of that standard
# deviation to the training fields, afresh every epoch; a function of k is its power spectrum; a
# map is a level for each pixel.
#
# **Redshift space.** The spectrum depends on mu, the cosine of the angle to the line of sight.
# ``symmetry="axial"`` has filters T(k, mu); ``axis=`` is the line of sight.


def kaiser(k, mu):
    return (1 + mu**2) ** 2 / k  # Kaiser 1987, beta = 1


z = pyflow.fields.gaussian_field(kaiser, mesh, 400, box_size=size, axis=-1, seed=2)
options = {"box_size": size, "n_layers": 1, "epochs": 15, "verbose": False}
axial = pyflow.SymmetricFlow(z[:300], z[300:350], symmetry="axial", axis=-1, **options)
isotropic = pyflow.SymmetricFlow(z[:300], z[300:350], **options)
test = z[350:]
exact = pyflow.fields.gaussian_logp(test, kaiser, box_size=size, axis=-1).mean()
for name, flow in {"axial": axial, "isotropic": isotropic}.items():
    print(f"{name:10s} {flow.evaluate_density(test).mean() - exact:8.2f} nats from the exact log p")

# %%
# The multipoles of samples and of fields tell the same: an isotropic flow has no quadrupole.

k, data, _ = pyflow.fields.power_multipoles(test, box_size=size, axis=-1)
print("quadrupole over monopole, mean over k")
for name, flow in {"axial": axial, "isotropic": isotropic}.items():
    _, power, _ = pyflow.fields.power_multipoles(
        flow.sample(200, seed=1)[0], box_size=size, axis=-1
    )
    mean = power.mean(axis=0)
    print(f"{name:10s} {np.nanmean(mean[1] / mean[0]):5.2f}")
mean = data.mean(axis=0)
print(f"{'fields':10s} {np.nanmean(mean[1] / mean[0]):5.2f}")
