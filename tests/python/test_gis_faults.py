"""GIS on what careless users give: outliers, dependent columns, rows used twice, odd labels."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import stats

import pyflow

precisions = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def fit(*args, **options):
    return pyflow.GIS(*args, verbose=False, **options)


def curved(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 2))
    x[:, 1] += 0.5 * x[:, 0] ** 2
    return x


def curved_logp(x):
    return stats.norm.logpdf(x[:, 0]) + stats.norm.logpdf(x[:, 1] - 0.5 * x[:, 0] ** 2)


# ---- linearly dependent columns ------------------------------------------------------------------


def with_sum(noise):
    def table(rng):
        x = rng.normal(size=(1500, 3))
        x[:, 2] = x[:, 0] + x[:, 1] + noise * x[:, 2]
        return x

    return table


def heavy(rng):
    x = rng.standard_cauchy((1500, 3))
    x[:, 2] = x[:, 0] - x[:, 1]
    return x


DEPENDENT = {
    "parts of a whole": lambda rng: rng.dirichlet([1, 1, 1], 1500),
    "a sum": with_sum(0),
    "heavy tails": heavy,
    "twelve columns": lambda rng: rng.normal(size=(1500, 11)) @ rng.normal(size=(11, 12)),
}


@precisions
@pytest.mark.parametrize("offset", [0, 1e3])
@pytest.mark.parametrize("table", DEPENDENT.values(), ids=DEPENDENT)
def test_dependent_columns_are_always_refused(table, offset, dtype):
    for seed in range(20):
        x = (table(np.random.default_rng(seed)) + offset).astype(dtype)
        with pytest.raises(ValueError, match=r"^data_train: columns .* linearly dependent"):
            fit(x, max_layers=1)


def test_dependent_columns_are_refused_within_bounds():
    x = np.random.default_rng(0).dirichlet([1, 1, 1], 1500)
    with pytest.raises(ValueError, match="linearly dependent"):
        fit(x, max_layers=1, bounds=[(0, 1)] * 3)


@pytest.mark.parametrize("offset", [0, 1e3])
@pytest.mark.parametrize(("dtype", "noise"), [(np.float64, 1e-4), (np.float32, 1e-3)])
def test_nearly_dependent_columns_are_fitted(offset, dtype, noise):
    for seed in range(20):
        x = (with_sum(noise)(np.random.default_rng(seed)) + offset).astype(dtype)
        for options in ({}, {"marginal_first": False}):
            assert np.isfinite(fit(x, max_layers=1, **options).evaluate_density(x)).all()


# ---- outliers and large numbers ------------------------------------------------------------------

OUTLIER = {
    "default": {},
    "no marginals": {"marginal_first": False},
    "no whitening": {"whiten": False},
    "bounds": {"bounds": [(0, None), (0, None)]},
}


@precisions
@pytest.mark.parametrize("value", [1e4, 1e8, 1e12, 1e30])
@pytest.mark.parametrize("options", OUTLIER.values(), ids=OUTLIER)
def test_one_outlier_costs_the_other_rows_little(options, value, dtype):
    change = np.exp if "bounds" in options else np.asarray
    x, y, z = (change(curved(n, n)).astype(dtype) for n in (1500, 500, 3000))
    clean = fit(x, y, max_layers=20, **options).evaluate_density(z).mean()
    x[7] = value
    model = fit(x, y, max_layers=20, **options)
    assert abs(model.evaluate_density(z).mean() - clean) < 0.1
    assert np.isfinite(model.evaluate_density(x)).all()
    assert np.isfinite(model.sample(1000, seed=0)[0]).all()


@pytest.mark.filterwarnings("ignore:data_train. .*equal values")
def test_a_spike_does_not_set_the_scale():
    # most of both columns is one number: the others are as wide as they are
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 2)) * (rng.uniform(size=(2000, 2)) < 0.2)
    x[3] = 1e9
    model = fit(x, max_layers=3)
    others = x[(x != 0).all(axis=1) & (x < 1e9).all(axis=1)]
    assert model.evaluate_density(others).mean() > -12


@precisions
@pytest.mark.parametrize("which", ["train", "validate"])
def test_numbers_too_large_for_the_precision_are_named(which, dtype):
    limit = 1e36 if dtype == np.float32 else 1e150
    for value in (-3 * limit, 30 * limit):
        data = {"train": curved(300, 0).astype(dtype), "validate": curved(300, 1).astype(dtype)}
        data[which][260, 1] = value
        with pytest.raises(
            ValueError,
            match=rf"^data_{which}: row 260, column 1 is {dtype(value):g}".replace("+", r"\+"),
        ):
            fit(data["train"], data["validate"])
    x = (curved(300, 0) * 0.1 * limit / 10).astype(dtype)
    model = fit(x, max_layers=2)
    assert np.isfinite(model.evaluate_density(x)).all()
    assert np.isfinite(model.sample(1000, seed=0)[0]).all()


@pytest.mark.parametrize("which", ["train", "validate"])
def test_a_row_too_far_out_is_named(which):
    data = {"train": 1e-155 * curved(300, 0), "validate": 1e-155 * curved(300, 1)}
    data[which][260, 1] = 1
    with pytest.raises(ValueError, match=rf"^data_{which}: row 260, column 1 is 1, .*: too far"):
        fit(data["train"], data["validate"])


@precisions
@pytest.mark.parametrize("which", ["train", "validate"])
def test_the_first_row_that_is_not_finite_is_named(which, dtype):
    data = {"train": curved(9000, 0).astype(dtype), "validate": curved(9000, 1).astype(dtype)}
    data[which][[1234, 5000, 8999], [1, 0, 1]] = np.nan
    with pytest.raises(ValueError, match=rf"^data_{which}: row 1234, column 1 is NaN"):
        fit(data["train"], data["validate"])


# ---- going on from a model -----------------------------------------------------------------------


def test_other_bounds_than_those_of_the_model_are_refused():
    x = np.exp(curved(400, 0))
    bounds = [(0, None), (0, 1e4)]
    model = fit(x, max_layers=1, bounds=bounds)
    same = fit(x, max_layers=2, bounds=bounds, model=model)
    assert_array_equal(
        same.evaluate_density(x), fit(x, max_layers=2, model=model).evaluate_density(x)
    )
    for other in ([(0, None), (None, 1e4)], [(0, None), (0, 2e4)], [(-1, None), (0, 1e4)]):
        with pytest.raises(ValueError, match="^bounds: of column .* in the flow to go on from"):
            fit(x, max_layers=2, bounds=other, model=model)
    open_model = fit(x, max_layers=1)
    assert (
        len(fit(x, max_layers=2, bounds=[(None, None)] * 2, model=open_model))
        == len(open_model) + 1
    )
    with pytest.raises(ValueError, match="^bounds: of column 0, the lower one is 0, but -inf"):
        fit(x, max_layers=2, bounds=bounds, model=open_model)


@pytest.mark.parametrize("d", [1, 2, 12])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_max_layers_counts_layers_whose_slices_were_searched(d, before, after):
    x = np.random.default_rng(0).gamma(2, size=(400, d))
    first = fit(x, max_layers=3, marginal_first=before)
    marginal = before or d == 1
    assert first.layers.count("sliced") == 3 + marginal
    more = fit(x, max_layers=5, marginal_first=after, model=first)
    assert more.layers == (*first.layers, "sliced", "sliced")
    assert fit(x, max_layers=3, marginal_first=after, model=more).layers == more.layers


# ---- rows in both the training and the validation data -------------------------------------------


def chain(n, seed):
    """A Metropolis chain, in which rejected steps repeat a row, shuffled."""
    rng = np.random.default_rng(seed)
    x = np.repeat(curved(n, seed), rng.geometric(0.3, n), axis=0)[:n]
    return rng.permutation(x)


TWICE = {
    "the same rows": lambda: (x := curved(1000, 0), x),
    "some of the same rows": lambda: (curved(1000, 0)[:700], curved(1000, 0)[400:]),
    "a shuffled chain": lambda: (chain(2000, 0)[:1500], chain(2000, 0)[1500:]),
}


def by_hand(x, y):
    """The fit of different rows, four in five of them to train on."""
    rows = np.random.default_rng(0).permutation(np.unique(np.concatenate([x, y]), axis=0))
    return fit(*np.split(rows, [4 * len(rows) // 5]), n_models=1)


@precisions
@pytest.mark.parametrize("make", TWICE.values(), ids=TWICE)
def test_rows_in_both_are_counted_and_used_once(make, dtype):
    x, y = (a.astype(dtype) for a in make())
    rows = set(map(bytes, x))
    both = sum(bytes(row) in rows for row in y)
    with pytest.warns(
        UserWarning, match=f"^data_validate: {both} of its {len(y)} rows are in data_train"
    ):
        model = fit(x, y)
    z = curved(5000, 99).astype(dtype)
    loss, lost = (np.mean(curved_logp(z) - f.evaluate_density(z)) for f in (model, by_hand(x, y)))
    assert loss < lost + 0.05
    # rows that are not quite the same gain on and on
    nearly = y + 1e-6 * np.random.default_rng(1).normal(size=y.shape).astype(dtype)
    unseen = fit(x, nearly, max_layers=400)
    assert 2 * model.layers.count("sliced") < unseen.layers.count("sliced")


@pytest.mark.filterwarnings("ignore:data_train. .*equal values")
def test_columns_of_few_values_stop_early():
    x = np.random.default_rng(0).integers(2, size=(400, 2)).astype(float)
    with pytest.warns(UserWarning, match="^data_validate: 100 of its 100 .* stops after 4 layers"):
        model = fit(x[:300], x[300:], patience=4)
    assert model.layers.count("sliced") <= 1 + 4
    with pytest.warns(UserWarning, match="stops after 7 layers"):
        assert fit(x[:300], x[300:], max_layers=7).layers.count("sliced") <= 1 + 7


def test_rows_are_the_same_only_with_label_and_weight():
    # warnings are errors here
    x = curved(400, 0)
    label = np.zeros(400, int)
    weight = np.repeat([0.0, 1], 200)
    fit(
        np.r_[x, x[:1]],
        np.r_[x, x[:1]],
        labels=np.r_[label, 1],
        labels_validate=np.r_[label + 1, 0],
        max_layers=1,
    )
    fit(x, x, weight_train=weight, weight_validate=1 - weight, max_layers=1)
    few = np.r_[curved(900, 1), x[:100]]  # a tenth: measured tables have such, and they do no harm
    fit(x, few, max_layers=1)


def test_a_listener_that_raises_stops_the_fit():
    x = curved(300, 0)
    with pytest.raises(UserWarning, match="^data_validate: 300 of its 300"):
        fit(x, x)


# ---- labels, and few rows ------------------------------------------------------------------------


def test_labels_of_hardly_a_row_each_are_refused():
    x = curved(300, 0)
    label = np.random.default_rng(0).normal(size=300)
    with pytest.raises(ValueError, match="^labels: 300 different ones in 300 rows .* ranges"):
        fit(x, labels=label, max_layers=1)
    with pytest.raises(ValueError, match="^labels: 200 different ones in 300 rows"):
        fit(x, labels=np.arange(300) % 200, max_layers=1)
    model = fit(x, labels=np.digitize(label, [-1, 0, 1]), max_layers=1)
    assert len(model.labels) == 4


@precisions
def test_fewer_rows_than_columns_give_a_sane_density(dtype):
    rng = np.random.default_rng(0)
    for n, d in ((2, 3), (3, 5), (4, 30)):
        x = (5 + 2 * rng.normal(size=(n, d))).astype(dtype)
        model = fit(x, max_layers=5)
        sample, logp = model.sample(2000, seed=0)
        assert np.isfinite(logp).all()
        # where the rows are, and as wide
        width = x.max(axis=0) - x.min(axis=0)
        middle = np.abs(np.median(sample, axis=0) - np.median(x, axis=0))
        assert np.all(middle < width)
        assert np.all(
            np.quantile(sample, 0.9, axis=0) - np.quantile(sample, 0.1, axis=0) < 5 * width
        )
        # not a spike on every row
        assert model.evaluate_density(x).mean() + np.log(width).sum() < d


def test_spikes_are_warned_of_by_name(tmp_path):
    """Flags, limits and small whole numbers; not rounded numbers, nor rows without a weight."""
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2000, 4))
    x[:, 1] = x[:, 1] > 0.7
    x[:, 2] = np.clip(x[:, 2], -1.2, 9)
    x[:, 3] = np.round(x[:, 3], 2)
    table = pd.DataFrame(x, columns=["u", "flag", "cut", "v"])
    told = (
        r"^data_train: 7.% of column 1 \('flag'\) are 0, 1.% of column 2 \('cut'\) are -1.2: equal"
    )
    with pytest.warns(UserWarning, match=told):
        fit(table, max_layers=1)
    np.save(tmp_path / "x.npy", x)
    with pytest.warns(UserWarning, match="% of column 1 are 0, "):
        fit(np.load(tmp_path / "x.npy", mmap_mode="r"), max_layers=1)
    fit(x[:, [0, 3]], max_layers=1)  # warnings are errors here
    x[::2, 0] = 3
    fit(x[:, [0, 3]], max_layers=1, weight_train=np.arange(2000) % 2)


class OnDisk:
    """Rows that can be cut, and are no array."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.ndim = x, x.shape, x.dtype, 2

    def __len__(self):
        return len(self.x)

    def __getitem__(self, key):
        return self.x[key]


@pytest.mark.parametrize("kind", [np.asarray, OnDisk])
def test_spikes_are_looked_for_in_all_rows(kind):
    rng = np.random.default_rng(6)
    ordered = np.repeat(rng.normal(size=100), 900)  # each value one hundredth of the rows
    x = np.stack([ordered, rng.normal(size=90_000)], axis=1)
    options = {"max_layers": 1, "marginal_first": False, "slice_points": 100}
    fit(kind(x), **options)  # warnings are errors here
    x[::4, 0] = 0
    with pytest.warns(UserWarning, match="2[56]% of column 0 are 0: "):
        fit(kind(x), **options)
    x[60_000:, 0] = np.where(np.arange(30_000) % 2, 0, x[60_000:, 1])
    x[:60_000, 0] = x[:60_000, 1]
    with pytest.warns(UserWarning, match="1.% of column 0 are 0: "):
        fit(kind(x), **options)
    x[:40_000] = np.nan
    with pytest.raises(ValueError, match="^data_train: row 0, column 0 is NaN"):
        fit(kind(x)[:40_000], **options)


@pytest.mark.parametrize("weight", [np.array(["a"] * 50), 3.0, [None] * 50])
def test_weights_that_are_none_are_refused_by_name(weight):
    with pytest.raises((ValueError, TypeError), match="^weight_train: must"):
        fit(np.tile(np.arange(2.0), (50, 1)), max_layers=1, weight_train=weight)
