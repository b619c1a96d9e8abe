"""The tables the benchmarks measure on, and their one split.

Every table is cut 80/10/10 into training, validation and test rows, in the order of
`numpy.random.RandomState(seed).permutation(n)`, seed 0 unless said otherwise; standardised with
the mean and standard deviation of its training rows; and stored as float32. Log-likelihoods are
in nats per row of that scale.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared" / "data" / "tabular"
SHIPPED = REPOSITORY / "examples" / "data"

# name -> file name
FILES = {"miniboone": "miniboone_first1523.npy", "protein": "protein.npy"}
# Tables that come with scikit-learn: measured ones, and generated ones of any size.
SCIKIT_LEARN = ("wine", "diabetes", "breast_cancer", "digits_pca", "swiss_roll", "friedman")


class MissingTableError(LookupError):
    """A table that is not on this machine."""


class Table(NamedTuple):
    """A split table: three float32 arrays of shape (rows, d)."""

    name: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def subset(self, n_train, n_val, seed):
        """Return the table with fewer training and validation rows, drawn without replacement."""
        rng = np.random.default_rng(seed)
        train = self.train[rng.permutation(len(self.train))[:n_train]]
        val = self.val[rng.permutation(len(self.val))[:n_val]]
        return self._replace(train=train, val=val)


def split(name, x, seed=0):
    """Cut and standardise the rows of `x`, shape (n, d), as the module docstring says."""
    x = np.asarray(x, dtype=np.float64)
    x = x[np.random.RandomState(seed).permutation(len(x))]
    parts = np.split(x, [int(0.8 * len(x)), int(0.9 * len(x))])
    mean, std = parts[0].mean(axis=0), parts[0].std(axis=0)
    return Table(name, *(((part - mean) / std).astype(np.float32) for part in parts))


def load(name, seed=0):
    """Load and split a table of `FILES` or `SCIKIT_LEARN`.

    Raises
    ------
    MissingTableError
        The table is not on this machine.
    """
    if name in SCIKIT_LEARN:
        return split(name, scikit_learn_rows(name), seed)
    for folder in (SHARED, SHIPPED):
        path = folder / FILES[name]
        if path.exists():
            return split(name, np.load(path), seed)
    raise MissingTableError(f"{name} skipped: {FILES[name]} is not in {SHARED}")


def available(names):
    """Yield the tables that are here, and say which are not."""
    for name in names:
        try:
            yield load(name)
        except MissingTableError as missing:
            print(missing)


def scikit_learn_rows(name):
    """Return the rows of a table that scikit-learn ships or generates, shape (n, d), float64."""
    from sklearn import datasets

    if name == "diabetes":
        return dequantised(np.delete(datasets.load_diabetes(scaled=False).data, 1, axis=1))  # sex
    if name == "digits_pca":
        images = datasets.load_digits().data
        axes = np.linalg.svd(images - images.mean(axis=0), full_matrices=False)[2]
        return images @ axes[:16].T
    if name == "swiss_roll":
        return datasets.make_swiss_roll(20000, noise=0.3, random_state=0)[0]
    if name == "friedman":
        x, y = datasets.make_friedman1(20000, n_features=5, noise=0.5, random_state=0)
        return np.column_stack([x, y])
    return dequantised(getattr(datasets, f"load_{name}")().data)


def dequantised(x):
    """Spread rounded values evenly over their last digit, so that a density exists."""
    steps = [np.diff(np.unique(column)).min() for column in x.T]
    return x + np.random.default_rng(0).uniform(-0.5, 0.5, x.shape) * steps
