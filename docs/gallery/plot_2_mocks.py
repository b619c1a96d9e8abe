"""
Mocks, and how to see that they are wrong
=========================================

Samples in place of data, "mocks", are as good as the question that is asked of them. A flow with
a fine likelihood can have samples that are too wide, or that lie where no data are. Here are four
looks, from the quickest to the sharpest, at mocks that are good and at mocks that are not.
"""

import numpy as np

import pyflow
from pyflow.checks import sample_spread, two_sample_test

rng = np.random.default_rng(0)


def draw(n):
    """Two columns on a ring, and a third that depends on the first."""
    radius, angle = 2 + 0.2 * rng.normal(size=n), rng.uniform(0, 2 * np.pi, n)
    x = radius * np.cos(angle)
    return np.column_stack([x, radius * np.sin(angle), np.exp(0.5 * x) * rng.gamma(3, size=n)])


train, validate, held_out = draw(2000), draw(500), draw(1000)

good = pyflow.GIS(
    train, validate, bounds=[(None, None), (None, None), (0, None)], n_models=1, verbose=False
)
bad = pyflow.GIS(train, max_layers=2, verbose=False)  # far too few layers
mocks = {
    "good": good.sample(1000, seed=1)[0],
    "two layers": bad.sample(1000, seed=1)[0],
}

# %%
# **One column at a time.** The quickest look, and one that sees little: the first layer of a flow
# gets these right already.

figure = pyflow.plots.marginals(held_out, mocks["two layers"])
figure.set_label("Distributions of single columns: held-out rows, and mocks of two layers")
figure

# %%
# Ranges of single columns, 5 to 95 %, over those of held-out rows: mocks of small and of nearly
# dependent tables may be too narrow.

for name, x in mocks.items():
    print(f"{name}: {sample_spread(x, held_out)}")

# %%
# **Pairs of columns.** The ring is filled in.

figure = pyflow.plots.pairs(held_out, mocks["two layers"])
figure.set_label("Pairs of columns: held-out rows, and mocks of two layers, which fill the ring")
figure

# %%

figure = pyflow.plots.pairs(held_out, mocks["good"])
figure.set_label("Pairs of columns: held-out rows, and mocks of the whole flow")
figure

# %%
# **A classifier.** Can a random forest tell mocks from held-out rows? Its AUC is 0.5 where it
# cannot, 1 where it always can. Take rows that the fit has not seen: a forest, too, is judged by
# rows that it has not seen, in turn.

for name, x in {**mocks, "other data, for comparison": draw(1000)}.items():
    print(f"{name}: {two_sample_test(held_out, x)}\n")

# %%
# **Held-out rows in the latent space.** The other way round: latents of rows that the fit has not
# seen follow N(0, I) if the flow is right. Squared distances from the origin are then chi-squared
# with d degrees of freedom.

z, _ = good.forward(held_out)
figure = pyflow.plots.latent(z)
figure.set_label("Latents of held-out rows beside a unit Gaussian")
figure

# %%

for name, flow in {"good": good, "two layers": bad}.items():
    z, _ = flow.forward(held_out)
    size = (z**2).sum(axis=1)
    print(f"{name:12s} mean |z|^2 {size.mean():.2f} (3), its variance {size.var():.2f} (6)")

# %%
# **Copies.** Mocks closer to training rows than other data are have been learnt by heart.

_, distance = pyflow.metrics.nearest(mocks["good"], train)
_, usual = pyflow.metrics.nearest(held_out, train)
print(
    f"median distance to the nearest training row: {np.median(distance):.3f}, of held-out rows "
    f"{np.median(usual):.3f}"
)
