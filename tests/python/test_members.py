"""n_models: fits on different splits of the points, side by side, as one mixture."""

import re
import signal
import threading
import time

import flows
import numpy as np
import pytest
from conftest import banana
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import pyflow
from pyflow import _members
from pyflow._members import equal_rows, splits

TRAIN, VALIDATE = banana(240, seed=1), banana(80, seed=2)


def gis(**options):
    known = {"data_train": TRAIN, "data_validate": VALIDATE, "n_models": 4, "max_layers": 3}
    return pyflow.GIS(**known | {"verbose": False} | options)


def y_of(n, seed, maps=1):
    return np.repeat(np.random.default_rng(seed).uniform(0.5, 2, -(-n // maps)), maps)[:n]


def symmetric(n_models=3, maps=1, **options):
    y = y_of(60, 1, maps)
    x = flows.fields(60, 3, y)
    known = {"n_layers": 1, "psi_knots": 4, "filter_knots": 6, "hidden": (4,), "epochs": 2}
    known |= {"box_size": flows.BOX, "verbose": False, "n_models": n_models}
    return pyflow.SymmetricFlow(x[:48], x[48:], y[:48], y[48:], **known | options)


@pytest.fixture
def threads():
    yield pyflow.set_num_threads
    pyflow.set_num_threads(None)


@pytest.fixture
def seen(monkeypatch):
    """What each member is fitted to; the fits are not made."""
    found = []
    flow = pyflow.GIS(TRAIN, max_layers=1, verbose=False)

    def run(*args, **how):
        found.append(args[3] | {"seed": how["seed"]})
        return flow

    monkeypatch.setattr(_members, "run", run)
    monkeypatch.setattr(_members, "side_by_side", lambda n, size: 1)
    return found


# ---- the mixture ---------------------------------------------------------------------------------


def test_one_model_is_the_plain_fit():
    plain = pyflow.GIS(TRAIN, VALIDATE, max_layers=3, verbose=False)
    assert gis(n_models=1).to_bytes() == plain.to_bytes()
    assert type(gis(n_models=1)) is pyflow.Flow
    assert symmetric(1).to_bytes() == symmetric(np.int64(1)).to_bytes()
    assert type(symmetric(1)) is pyflow.Flow


@pytest.mark.parametrize("fit", [gis, symmetric])
def test_the_same_for_any_number_of_threads(fit, threads):
    threads(1)
    one = fit()
    assert type(one) is pyflow.Mixture
    for n in (2, 3):
        threads(n)
        assert fit() == one
    assert fit(seed=1) != one


def test_members_are_the_fits_of_their_splits():
    mixture = gis()
    x = np.concatenate([TRAIN, VALIDATE])
    inside = splits(equal_rows(x), 80, 4, 0)
    for k, member in enumerate(mixture.members):
        alone = pyflow.GIS(x[~inside[k]], x[inside[k]], max_layers=3, seed=k, verbose=False)
        assert_array_equal(alone.evaluate_density(x), member.evaluate_density(x))
    assert_allclose(mixture.weights, 0.25)
    assert (np.diff([m.history["logp_validate"][-1] for m in mixture.members]) != 0).all()


def test_a_mixture_of_small_data_is_better():
    test, gained = banana(2000, seed=3), []
    for seed in range(10, 13):
        x = banana(300, seed=seed)
        given = {"data_train": x[:240], "data_validate": x[240:], "max_layers": None}
        one, four = (gis(**given, n_models=n).evaluate_density(test).mean() for n in (1, 4))
        gained.append(four - one)
    assert np.mean(gained) > 0.01


def test_symmetric_flows():
    mixture = symmetric()
    assert len(mixture) == 3
    y = y_of(60, 1)
    assert_allclose(mixture.y_range, [[y.min(), y.max()]], rtol=1e-12)
    post = mixture.posterior(flows.fields(1, 9))
    assert 0.5 < post.mean[0] < 2


def test_without_validation_data():
    mixture = pyflow.GIS(TRAIN, n_models=3, max_layers=4, verbose=False)
    assert all(np.isfinite(m.history["logp_validate"]).all() for m in mixture.members)
    mixture = pyflow.GIS(TRAIN, n_models=2, patience=1, verbose=False)
    assert len(mixture) == 2


def test_tables_weights_labels_and_images():
    labels, other = np.arange(240) % 3, np.arange(80) % 3
    weights = np.linspace(0.5, 1, 240)
    mixture = gis(
        labels=labels, labels_validate=other, weight_train=weights, weight_validate=weights[:80]
    )
    assert_array_equal(mixture.labels, [0, 1, 2])
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(TRAIN, columns=["u", "v", "w"])
    turned = pandas.DataFrame(VALIDATE, columns=["u", "v", "w"])[["w", "v", "u"]]
    named = gis(data_train=table, data_validate=turned)
    assert named.columns == named.members[2].columns == ("u", "v", "w")
    assert_array_equal(named.evaluate_density(TRAIN), gis().evaluate_density(TRAIN))
    blobs = np.clip(flows.blobs(150, 1)[..., 0] * 10, 0, 255).astype(np.uint8)
    images = pyflow.GIS(blobs[:100], blobs[100:], n_models=2, max_layers=2, verbose=False)
    assert images.shape == (5, 4, 1)
    assert np.isfinite(images.bits_per_dimension(blobs)).all()


def test_float32_stays(threads):
    mixture = gis(data_train=TRAIN.astype(np.float32))
    assert mixture.dtype == np.float32


# ---- splits --------------------------------------------------------------------------------------


@given(st.integers(20, 200), st.integers(2, 8), st.floats(0.05, 0.6), st.integers(0, 9))
def test_parts_are_as_large_as_they_are_to_be_and_disjoint_if_they_can(n, k, share, seed):
    held_out = max(int(share * n), 1)
    inside = splits(np.arange(n), held_out, k, seed)
    assert inside.shape == (k, n)
    assert_array_equal(inside.sum(axis=1), held_out)
    times = inside.sum(axis=0)
    if k * held_out <= n:
        assert times.max() <= 1
    else:  # as even as can be
        assert np.ptp(times) <= 1
    assert_array_equal(inside, splits(np.arange(n), held_out, k, seed))


@given(st.integers(4, 40), st.integers(2, 5), st.integers(0, 9))
def test_groups_stay_together(groups, k, seed):
    rng = np.random.default_rng(seed)
    group = np.sort(
        rng.permutation(np.concatenate([np.arange(groups), rng.integers(groups, size=60)]))
    )
    n = len(group)
    try:
        inside = splits(group, n // k, k, seed)
    except ValueError as error:
        few = "too few" in str(error) and groups < 4 * k
        if not few:
            raise
        return
    for part in inside:
        assert not set(group[part]) & set(group[~part])
    assert inside.sum(axis=0).max() <= 1
    largest = np.bincount(group).max()
    assert (abs(inside.sum(axis=1) - n // k) <= 2 * largest).all()


def test_every_split_trains_on_all_classes():
    labels = np.array([0] * 30 + [1] * 6 + [2])
    inside = splits(np.arange(37), 9, 4, 3, labels)
    for part in inside:
        assert set(labels[~part]) == {0, 1, 2}
        assert 1 <= (labels[part] == 1).sum() <= 2
    assert not inside[:, -1].any()  # the only one of its class


def test_a_class_that_shares_its_rows_with_another_is_trained_on():
    group, labels = np.repeat(np.arange(10), 2), np.array([0, 1] + [1, 1] * 9)
    for part in splits(group, 6, 4, 0, labels):
        assert set(labels[~part]) == {0, 1}


def test_equal_rows_stay_together(seen):
    x = np.repeat(TRAIN[:80], 3, axis=0)
    gis(data_train=x, data_validate=x[:30])
    assert [s["seed"] for s in seen] == [0, 1, 2, 3]
    for data in seen:
        train = {row.tobytes() for row in data["data_train"]}
        assert not train & {row.tobytes() for row in data["data_validate"]}
        assert len(data["data_train"]) + len(data["data_validate"]) == 270


def test_maps_of_a_simulation_stay_together(seen):
    symmetric(n_models=4, maps=4)
    assert len(seen) == 4
    for data in seen:
        assert not set(data["y_train"].ravel()) & set(data["y_validate"].ravel())
        assert len(data["y_train"]) == len(data["data_train"]) == 48
    held_out = np.concatenate([data["y_validate"].ravel() for data in seen])
    assert len(set(held_out)) == 12
    assert len(held_out) == 48


def test_what_belongs_to_a_point_goes_with_it(seen):
    x, y = flows.fields(60, 3), y_of(60, 1)
    x[:, 0, 0] = y
    known = {"condition_field": 2 * x[:48], "condition_field_validate": 2 * x[48:], "n_models": 3}
    pyflow.SymmetricFlow(x[:48], x[48:], y[:48], y[48:], verbose=False, **known)
    for data in seen:
        for c, x, y in (
            ("condition_field", "data_train", "y_train"),
            ("condition_field_validate", "data_validate", "y_validate"),
        ):
            assert_array_equal(data[c], 2 * data[x])
            assert_array_equal(data[x][:, 0, 0], data[y][:, 0])


# ---- while they run ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2])
def test_progress_says_which_member(n, threads, capsys):
    threads(n)
    main, steps, where = threading.get_ident(), {}, set()

    def watch(p):
        where.add(threading.get_ident())
        steps.setdefault(p.member, []).append(p.step)

    gis(progress=watch, verbose=True)
    assert where == {main}
    assert sorted(steps) == [0, 1, 2, 3]
    assert all(each == sorted(each) for each in steps.values())
    line = capsys.readouterr().err.splitlines()[-1]
    member, last = map(int, re.match(r"GIS: member (\d) of 4, layer (\d+)/", line).groups())
    assert steps[member - 1][-1] == last


class Stop(Exception):
    pass


@pytest.mark.parametrize("n", [1, 2])
def test_an_exception_of_progress_ends_all(n, threads):
    threads(n)
    calls = []

    def stop(p):
        calls.append(p)
        if len(calls) == 3:
            raise Stop

    with pytest.raises(Stop) as caught:
        gis(progress=stop, max_layers=50, patience=50)
    flow = caught.value.flow
    assert isinstance(flow, pyflow.Mixture)
    assert 1 <= len(flow) <= 4
    assert np.isfinite(flow.evaluate_density(TRAIN)).all()
    assert len(calls) == 3


@pytest.mark.parametrize("n", [1, 2])
def test_ctrl_c_ends_all(n, threads):
    threads(n)
    begun = []

    def interrupt(p):
        if not begun:
            begun.append(time.monotonic())
            main = threading.main_thread().ident
            threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()

    x = banana(20_000, seed=1)
    with pytest.raises(KeyboardInterrupt) as caught:
        gis(
            data_train=x,
            data_validate=x[:4000] + 0.1,
            max_layers=5000,
            patience=5000,
            progress=interrupt,
        )
    assert time.monotonic() - begun[0] < 20
    assert caught.value.flow is None or isinstance(caught.value.flow, pyflow.Mixture)
    assert threading.active_count() < 4


@pytest.mark.parametrize("n", [1, 2])
def test_a_warning_is_given_once_and_here(n, threads, monkeypatch):
    threads(n)
    real = _members.run

    def run(*args, warn, **how):
        warn("the data are odd", RuntimeWarning)
        return real(*args, warn=warn, **how)

    monkeypatch.setattr(_members, "run", run)
    with pytest.warns(RuntimeWarning, match="the data are odd") as caught:
        gis()
    assert [(w.filename, str(w.message)) for w in caught] == [(__file__, "the data are odd")]


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(("which", "row"), [("data_train", 7), ("data_validate", 3)])
def test_a_bad_row_is_named_as_the_caller_has_it(n, which, row, threads):
    threads(n)
    given = {"data_train": TRAIN.copy(), "data_validate": VALIDATE.copy()}
    given[which][row, 1] = np.nan
    with pytest.raises(ValueError, match=rf"^{which}: .*\b{row}\b"):
        gis(**given)
    given[which][row, 1] = -50
    with pytest.raises(ValueError, match=rf"^{which}: .*\b{row}\b.*bounds"):
        gis(**given, bounds=[(None, None), (-20, None), (None, None)])


# ---- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("fit", [gis, symmetric])
def test_an_interrupted_mixture_goes_on(n, fit, threads, tmp_path):
    threads(n)
    path = tmp_path / "fit.pf"
    whole = fit()
    calls = []

    def stop(p):
        calls.append(p)
        if len(calls) == 6:
            raise Stop

    with pytest.raises(Stop) as caught:
        fit(checkpoint=path, checkpoint_seconds=0, progress=stop)
    assert not path.exists()
    assert list(tmp_path.glob("fit.pf.?"))
    assert any(
        "goes on from" in note for note in getattr(caught.value, "__notes__", ["goes on from"])
    )
    again = fit(checkpoint=path)
    assert_array_equal(
        [m.evaluate_density(*points_of(fit)) for m in again.members],
        [m.evaluate_density(*points_of(fit)) for m in whole.members],
    )
    assert pyflow.load(path) == again
    assert [p.name for p in tmp_path.iterdir()] == ["fit.pf"]


def points_of(fit):
    if fit is gis:
        return (VALIDATE,)
    y = y_of(20, 4)
    return flows.fields(20, 5, y), np.clip(y, 0.7, 1.8)


def test_a_finished_mixture_is_not_fitted_again(tmp_path, monkeypatch):
    path = tmp_path / "fit.pf"
    first = gis(checkpoint=path)

    def fail(*args, **how):
        raise AssertionError("fitted again")

    monkeypatch.setattr(pyflow._core, "gis_fit", fail)
    assert gis(checkpoint=path) == first
    with pytest.raises(
        ValueError, match=f"^checkpoint: {path} belongs to another fit, which has another"
    ):
        gis(checkpoint=path, n_models=3)
    with pytest.raises(ValueError, match=f"^checkpoint: {path} belongs to another fit: .*patience"):
        gis(checkpoint=path, patience=3)
    with pytest.raises(ValueError, match=f"^checkpoint: {path} belongs to another fit"):
        gis(checkpoint=path, n_models=1)
    assert [p.name for p in tmp_path.iterdir()] == ["fit.pf"]


def test_a_plain_fit_is_no_checkpoint_of_a_mixture(tmp_path):
    gis(n_models=1, checkpoint=tmp_path / "fit.pf")
    with pytest.raises(
        ValueError, match=r"^checkpoint: .* belongs to another fit, which has another"
    ):
        gis(checkpoint=tmp_path / "fit.pf")
    with pytest.raises(ValueError, match="^seed: with a checkpoint"):
        gis(checkpoint=tmp_path / "other.pf", seed=None)
    (tmp_path / "damaged.pf").write_bytes(b"something")
    with pytest.raises(pyflow.FileError, match=f"^checkpoint: {tmp_path}/damaged.pf: "):
        gis(checkpoint=tmp_path / "damaged.pf")


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_models": 0}, ValueError, "n_models: must be at least 1"),
        ({"n_models": 1.5}, TypeError, "n_models: must be an integer"),
        ({"n_models": "4"}, TypeError, "n_models: must be an integer"),
        ({"progress": 3}, TypeError, "progress: must be callable"),
        ({"verbose": 3}, TypeError, "verbose: must be True or False"),
        ({"seed": -1}, ValueError, "seed: "),
        ({"weight_train": np.ones(240)}, ValueError, "weight_validate: must be given"),
        ({"weight_validate": np.ones(80)}, ValueError, "weight_train: must be given"),
        ({"data_validate": VALIDATE[:, :2]}, ValueError, "data_validate: its points have shape"),
        ({"data_train": TRAIN[:1]}, ValueError, "data_train: "),
        (
            {"data_train": np.ones((240, 3)), "data_validate": np.zeros((80, 3))},
            ValueError,
            "n_models: 2 different",
        ),
        ({"data_train": TRAIN.astype(complex)}, ValueError, "data_train: "),
        ({"max_layers": -1}, ValueError, "max_layers: "),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        gis(**options)


def test_calibration_needs_points_that_train_nothing():
    with pytest.raises(ValueError, match="^calibrate: every field trains a member"):
        symmetric(calibrate=True)


def test_zeros_of_either_sign_are_equal():
    assert_array_equal(equal_rows(np.array([[0.0, 1], [-0.0, 1], [2, 1]])), [0, 0, 1])


def test_lengths_are_checked_before_points_are_pooled():
    x = np.random.default_rng(0).normal(size=(60, 2))
    for options in ({"weight_train": np.ones(59)}, {"labels": np.ones(59, int)}):
        with pytest.raises(ValueError, match=f"^{next(iter(options))}: must have 60 rows"):
            pyflow.GIS(x, n_models=2, **options)
    with pytest.raises(ValueError, match="^data_train: must have 0 rows, at least one"):
        pyflow.GIS(x[:0], n_models=2)


def test_too_few_simulations():
    with pytest.raises(ValueError, match="^n_models: 2 different points, or simulations, are too"):
        symmetric(n_models=8, maps=30)


def test_members_of_a_range_of_modes():
    x = np.random.default_rng(0).normal(size=(40, 8, 8))
    x -= x.mean(axis=(1, 2), keepdims=True)
    flow = pyflow.SymmetricFlow(
        x, box_size=8.0, k_min=0.5, n_models=2, n_layers=1, epochs=1, verbose=False
    )
    assert flow.k_range == flow.members[0].k_range
    logp = [member.evaluate_density(x[:3]) for member in flow.members]
    assert_allclose(flow.evaluate_density(x[:3]), np.logaddexp(*logp) - np.log(2), rtol=1e-6)
    assert np.all(abs(flow.sample(2, seed=1)[0].mean(axis=(1, 2))) < 1e-6)
