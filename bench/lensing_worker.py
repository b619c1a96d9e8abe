"""Hamiltonian Monte Carlo over every Gaussian mode of a convergence map: run by bench_lensing.py.

    build/lensing/venv/bin/python bench/lensing_worker.py IN.npz OUT.npz

IN has maps `observed` (n, side, side), `warmup` and `samples`, numbers of steps of each of two
chains. The posterior p(y, z|x), of the parameters y and the white noise z that the simulator makes
a map of, is sampled by the no-U-turn sampler of numpyro (Hoffman & Gelman 2014, arXiv 1111.4246;
Phan, Pradhan & Jankowiak 2019, arXiv 1912.11554): its draws of y, (n, chains, samples, 2), go to
OUT, with R-hat, the effective number of draws, and how often trajectories diverged. Forgetting z
costs nothing: this is the truth for that map.
"""

import sys
import time

import jax
import lensing
import numpy as np
import numpyro
from jax import numpy as jnp
from numpyro import distributions as dist
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS, init_to_value

jax.config.update("jax_enable_x64", True)


def model(observed, coefficients, level):
    side = len(observed)
    u = numpyro.sample("u", dist.Normal(jnp.zeros(2), 1.0))
    z = numpyro.sample("z", dist.Normal(jnp.zeros((side, side)), 1.0))
    y = numpyro.deterministic("y", lensing.PRIOR[0] + lensing.PRIOR[1] * u)
    field = lensing.convergence(z, y, coefficients, xp=jnp)
    numpyro.sample("x", dist.Normal(field, level), obs=observed)


def twins_agree(side, coefficients, n=5):
    """Raise AssertionError unless jax makes the maps that NumPy makes, of the same z and y."""
    rng = np.random.default_rng(0)
    for y in rng.normal(*lensing.PRIOR, size=(n, 2)):
        z = rng.standard_normal((side, side))
        by_numpy = lensing.convergence(z, y, coefficients)
        by_jax = lensing.convergence(jnp.asarray(z), jnp.asarray(y), coefficients, xp=jnp)
        np.testing.assert_allclose(by_jax, by_numpy, rtol=0, atol=1e-10)


def main():
    given, out = sys.argv[1:]
    with np.load(given) as file:
        observed, warmup, samples = (file[key] for key in ("observed", "warmup", "samples"))
    side, coefficients = observed.shape[1], lensing.table()
    twins_agree(side, coefficients)
    sampler = MCMC(
        NUTS(
            model,
            dense_mass=[("u",)],
            max_tree_depth=8,
            init_strategy=init_to_value(values={"u": jnp.zeros(2), "z": jnp.zeros((side, side))}),
        ),
        num_warmup=int(warmup),
        num_samples=int(samples),
        num_chains=2,
        chain_method="sequential",
        progress_bar=False,
    )
    found = {name: [] for name in ("y", "r_hat", "effective", "diverging", "seconds", "steps")}
    for i, x in enumerate(observed):
        start = time.perf_counter()
        arguments = jnp.asarray(x, float), jnp.asarray(coefficients), lensing.noise_level(side)
        sampler.run(jax.random.PRNGKey(i), *arguments, extra_fields=("diverging", "num_steps"))
        y = np.asarray(sampler.get_samples(group_by_chain=True)["y"])
        extra = sampler.get_extra_fields()
        row = {
            "y": y,
            "r_hat": split_gelman_rubin(y),
            "effective": effective_sample_size(y),
            "diverging": np.mean(extra["diverging"]),
            "seconds": time.perf_counter() - start,
            "steps": np.mean(extra["num_steps"]),
        }
        for name, value in row.items():
            found[name].append(value)
        print(
            f"map {i}: {row['seconds']:.0f} s, R-hat {row['r_hat'].max():.3f}, effective draws "
            f"{row['effective'].min():.0f}, diverging {row['diverging']:.3f}, "
            f"{row['steps']:.0f} steps each",
            flush=True,
        )
        np.savez(out, **{name: np.array(values) for name, values in found.items()})


if __name__ == "__main__":
    main()
