"""Posteriors as what getdist, ArviZ and emcee keep samples in."""

import inspect
import re

import numpy as np

from pyflow import _arguments

CHAINS, DRAWS = 4, 1000  # of a grid's independent draws, for ArviZ
WALKERS, STEPS = 32, 500  # for emcee, and at least twice as many walkers as parameters


def _import(module, method, extra=None):
    """Return a module; an ImportError says how to get it."""
    try:
        return __import__(module, fromlist=["*"])
    except ImportError as error:
        together = f", or 'pyflow-sinf[{extra}]'" if extra else ""
        raise ImportError(
            f"{method}: needs {module}: pip install {module}{together} ({error})"
        ) from None


def plain(names):
    """Return names that getdist takes: without spaces and what it reads as a pattern."""
    found = []
    for name in names:
        short = re.sub(r"[\s*?]+", "_", name) or "_"
        while short in found:
            short += "_"
        found.append(short)
    return found


def latex(name):
    """Return a name as LaTeX in mathematical mode, as it is if it seems to be that already."""
    inner = re.fullmatch(r"\$([^$]*)\$", name)
    if inner or re.search(r"[\\^{}]", name):
        return inner[1] if inner else name
    text = re.sub(r"([_$#%&])", r"\\\1", name).replace(" ", r"\ ")
    return rf"\mathrm{{{text}}}"


def to_getdist(post, n, seed, labels):
    """Return getdist.MCSamples: see `Posterior.to_getdist`."""
    getdist = _import("getdist", "to_getdist", "plot")
    n = _arguments.integer("n", n, 1)
    if labels is None:
        labels = post.names
    labels = _arguments.names(labels, len(post.names), "parameters", "labels")
    y, logs = drawn(post, n, seed)
    names = plain(post.names)
    found = getdist.MCSamples(
        names=names,
        labels=[latex(label) for label in labels],
        ranges=dict(zip(names, post.bounds.tolist(), strict=True)),
        sampler="uncorrelated",
    )
    found.setSamples(y, loglikes=-logs)  # given above, it prints that no burn-in was removed
    found.updateBaseStatistics()
    return found


def to_arviz(post, chains, draws, seed):
    """Return arviz.InferenceData, or DataTree: see `Posterior.to_arviz`."""
    arviz = _import("arviz", "to_arviz", "arviz")
    y, logs = ensemble(post, {"draws": draws, "chains": chains}, (DRAWS, CHAINS), seed)
    groups = {
        "posterior": {name: y[:, :, j].T for j, name in enumerate(post.names)},
        "sample_stats": {"lp": logs.T},
    }
    if "posterior" in inspect.signature(arviz.from_dict).parameters:  # before ArviZ 1
        return arviz.from_dict(**groups)
    return arviz.from_dict(groups)


def to_emcee(post, path, group, steps, walkers, seed):
    """Return an emcee backend: see `Posterior.to_emcee`."""
    emcee = _import("emcee", "to_emcee", "sampler")
    p = len(post.names)
    if walkers is not None:
        _arguments.integer("walkers", walkers, 2 * p)  # emcee refuses fewer
    if path is None:
        backend = emcee.backends.Backend()
    else:
        _import("h5py", "to_emcee: path")
        backend = emcee.backends.HDFBackend(path, name=group)
        if backend.initialized:
            raise FileExistsError(f"path: {path} holds a chain called {group!r} already")
    given = {"steps": steps, "walkers": walkers}
    y, logs = ensemble(post, given, (STEPS, max(WALKERS, 2 * p)), seed)
    moved = np.ones(y.shape[:2], bool)
    if post.method == "emcee":
        moved[1:] = (y[1:] != y[:-1]).any(axis=2)
    backend.reset(y.shape[1], p)
    backend.grow(len(y), None)
    if path is None:
        backend.chain[:], backend.log_prob[:] = y, logs
        backend.iteration = len(y) - 1
    else:  # all at once: `save_step` opens the file for every step
        with backend.open("a") as file:
            file[group]["chain"][:], file[group]["log_prob"][:] = y, logs
            file[group].attrs["iteration"] = len(y) - 1
    state = np.random.RandomState(_arguments.seed(seed) % 2**32).get_state()
    last = emcee.State(y[-1], log_prob=logs[-1], random_state=state)
    backend.save_step(last, moved.sum(axis=0))  # of all steps
    return backend


def drawn(post, n, seed):
    """Return n draws (n, p) and their normalised log-densities (n,)."""
    rng = np.random.default_rng(_arguments.seed(seed))
    with np.errstate(under="ignore"):
        y, logs = post._known.drawn(n, rng)
    return y, logs - post.log_evidence


def ensemble(post, given, sizes, seed):
    """Return points (steps, walkers, p) and log-densities as they were given (steps, walkers).

    Parameters
    ----------
    post : Posterior
    given : dict
        What the caller calls steps and walkers, and their numbers or None: for independent draws. A
        chain has its own.
    sizes : (int, int)
        Where they are None.
    """
    if post.method == "emcee":
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name}: are those of the chain, of a posterior that is one")
        return post._known.walk()
    steps, walkers = (
        _arguments.integer(name, size if value is None else value, 1)
        for (name, value), size in zip(given.items(), sizes, strict=True)
    )
    y, logs = drawn(post, steps * walkers, seed)
    logs = logs + post.log_evidence
    return y.reshape(steps, walkers, -1), logs.reshape(steps, walkers)
