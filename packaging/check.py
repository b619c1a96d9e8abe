"""Fit, sample and read back with the package that was built, on Debian's NumPy."""

import numpy as np

import pyflow

rng = np.random.default_rng(0)
x = rng.standard_normal((600, 2)) @ [[1.0, 0.4], [0.0, 0.8]]
flow = pyflow.GIS(x[:500], x[500:], n_models=1, max_layers=5)
samples, logp = flow.sample(10, seed=0)
assert np.allclose(flow.evaluate_density(samples), logp)
print("pyflow", pyflow.__version__, "NumPy", np.__version__)
