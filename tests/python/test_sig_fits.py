"""Fits of SIG as calls: checkpoints, interruption, going on, callbacks, wrong arguments."""

import signal

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_sig import QUICK, curved, pictures

import pyflow

TABLE, IMAGES = curved(300, 1), pictures(80, 2)
LABELS = np.array(["a", "b"] * 40)
DISK = "scratch"  # stands for a folder of the test's

FITS = {
    "a table": ((TABLE,), {"max_layers": 4}),
    "float32, bounds": (
        (np.exp(TABLE).astype(np.float32),),
        {"max_layers": 3, "bounds": [(0, None)] * 3},
    ),
    "labels and weights": (
        (TABLE,),
        {
            "max_layers": 3,
            "labels": np.arange(300) % 3,
            "weight_train": np.linspace(0, 2, 300),
        },
    ),
    "images": ((IMAGES,), {"schedule": QUICK}),
    "images, labels, on disk": (
        (IMAGES,),
        {"schedule": QUICK[1:], "labels": LABELS, "scratch": DISK, "slice_points": 60},
    ),
    "one column": ((TABLE[:, :1],), {"max_layers": 3}),
}


class Stop(Exception):
    pass


def fit(*args, **options):
    return pyflow.SIG(*args, verbose=False, **options)


def stop_at(layers, error=Stop):
    def stop(p):
        if p.step >= layers:
            raise error

    return stop


@pytest.fixture(params=FITS.values(), ids=FITS)
def one(request, tmp_path):
    args, options = request.param
    if options.get("scratch") == DISK:
        options = options | {"scratch": tmp_path}
    return args, options


# ---- checkpoints ---------------------------------------------------------------------------------


def test_an_interrupted_fit_goes_on(one, tmp_path):
    (args, options), path, seen = one, tmp_path / "checkpoint", []
    whole = fit(*args, progress=seen.append, **options)
    assert [p.step for p in seen] == list(range(1, len(seen) + 1))
    for layers in (1, 2, len(seen)):
        with pytest.raises(Stop) as error:
            fit(*args, checkpoint=path, progress=stop_at(layers), **options)
        left = pyflow.load(path)
        assert left == error.value.flow
        assert left.unfinished
        assert len(left.history["distance"]) == layers
        assert_array_equal(left.history["distance"], whole.history["distance"][:layers])
        again = []
        assert fit(*args, checkpoint=path, progress=again.append, **options) == whole
        assert [p[1] for p in again] == [p.step for p in seen[layers:]]
        assert pyflow.load(path).to_bytes() == whole.to_bytes()
        assert fit(*args, checkpoint=path, progress=lambda p: 1 / 0, **options) == whole
        path.unlink()
    assert not list(tmp_path.iterdir())


def test_many_interruptions_and_another_callback(tmp_path):
    path, whole = tmp_path / "checkpoint", fit(TABLE, max_layers=5)
    for layers in (1, 2, 4):
        with pytest.raises(Stop):
            fit(
                TABLE,
                max_layers=5,
                checkpoint=path,
                progress=stop_at(layers),
                callback=lambda *_: None,
                callback_every=layers,
                callback_rows=2,
            )
    assert fit(TABLE, max_layers=5, checkpoint=path) == whole


def test_checkpoints_are_written_as_the_fit_goes(tmp_path):
    path, seen = tmp_path / "checkpoint", []

    def look(p):
        flow = pyflow.load(path)
        seen.append(len(flow.history["distance"]) == p.step)
        assert np.isfinite(flow.evaluate_density(IMAGES + 0.5)).all()

    fit(IMAGES, schedule=QUICK, checkpoint=path, checkpoint_seconds=0, progress=look)
    assert seen == [True] * 6


OTHERS = {
    "seed": {"seed": 1},
    "schedule": {"schedule": QUICK[:2]},
    "dequantize": {"dequantize": False},
    "data_train": {"data_train": IMAGES[::-1]},
    "labels": {"labels": LABELS},
    "alpha": {"alpha": (0.5, 0.5)},
    "weight_train": {"weight_train": np.ones(80)},
    "n_sample": {"n_sample": 90},
    "model": {"model": fit(IMAGES, schedule=QUICK, max_layers=1)},
}


@pytest.mark.parametrize(("name", "options"), OTHERS.items(), ids=OTHERS)
def test_the_checkpoint_of_another_fit_is_refused(tmp_path, name, options):
    path = tmp_path / "checkpoint"
    known = {"data_train": IMAGES, "schedule": QUICK, "checkpoint": path}
    with pytest.raises(Stop):
        fit(**known, progress=stop_at(1))
    with pytest.raises(ValueError, match=rf"^checkpoint: .*another fit: .*\b{name}\b.* differ"):
        fit(**known | options)


def test_going_on_from_a_model_is_the_longer_fit(one):
    args, options = one
    whole = fit(*args, **options)
    start = fit(*args, **options | {"max_layers": 2})
    before = start.to_bytes()
    more = fit(*args, model=start, **options)
    assert start.to_bytes() == before
    assert_array_equal(more.history["distance"], whole.history["distance"])
    y = None if whole.labels is None else whole.labels[0]
    assert_array_equal(more.sample(50, y, seed=1)[0], whole.sample(50, y, seed=1)[0])
    assert more.layers == whole.layers
    assert more.shape == whole.shape
    assert fit(*args, model=more, **options).layers == whole.layers


def test_going_on_from_images_takes_them_as_rows_too():
    start = fit(IMAGES, schedule=QUICK, max_layers=2)
    more = fit(IMAGES.reshape(80, -1), schedule=QUICK, model=start)
    assert more.shape == (6, 5, 1)
    assert_array_equal(more.sample(9, seed=1)[0], fit(IMAGES, schedule=QUICK).sample(9, seed=1)[0])


# ---- callbacks, Ctrl-C ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_callback_sees_the_sample_move_to_the_data(dtype):
    x = (np.abs(TABLE) + 100).astype(dtype)
    seen = []
    known = {"callback_every": 3, "callback_rows": 1000, "bounds": [(99, None)] * 3}
    flow = fit(x, max_layers=7, callback=lambda *a: seen.append(a), **known)
    assert [layers for layers, _ in seen] == [0, 3, 6, 7]
    for _, sample in seen:
        assert sample.shape == (1000, 3)
        assert sample.dtype == dtype == flow.dtype
        assert sample.min() >= 99
    away = [pyflow.metrics.sliced_wasserstein(s, x, 50) for _, s in seen]
    assert away[1] < away[0]
    assert away[2] < 0.5 * away[0]
    # what is seen after six layers is a sample of the flow of six
    part = fit(x, max_layers=6, **known)
    z = part.forward(seen[2][1])[0]
    assert abs(z.mean()) < 0.1
    assert abs(z.std() - 1) < 0.1


def test_the_callback_sees_images_in_units_of_pixels():
    for x, shape in ((IMAGES, (6, 5, 1)), (pictures(50, 3, (4, 4, 3)), (4, 4, 3))):
        seen = []
        known = {"callback": lambda *a, s=seen: s.append(a), "callback_every": 2}
        flow = fit(x.reshape(len(x), -1), shape, schedule=[(5, 2, 2)], n_sample=77, **known)
        assert flow.shape == shape
        assert [layers for layers, _ in seen] == [0, 2, 4, 5]
        for _, sample in seen:
            assert sample.shape == (77, *shape)
        assert abs(seen[0][1].mean() - 0.5 * (int(x.max()) + int(x.min()))) < 20
        assert abs(seen[-1][1].mean() - x.mean()) < 20


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
def test_what_a_callback_raises_comes_out_with_what_was_reached(error):
    def stop(layers, x):
        if layers == 2:
            raise error("enough")

    for x, options in ((TABLE, {"max_layers": 9}), (IMAGES, {"schedule": QUICK})):
        with pytest.raises(error, match="enough") as caught:
            fit(x, callback=stop, callback_every=1, **options)
        flow = caught.value.flow
        assert flow.unfinished
        assert len(flow.history["distance"]) == 2
        assert flow.sample(5, seed=1)[0].shape == (5, *flow.shape)
        assert np.isfinite(flow.evaluate_density(x + 0.5)).all()
        options = options | {"max_layers": 2}
        assert_array_equal(flow.sample(5, seed=1)[0], fit(x, **options).sample(5, seed=1)[0])
    with pytest.raises(ZeroDivisionError) as caught:  # at 0, with nothing to hand out
        fit(TABLE, callback=lambda *_: 1 / 0)
    assert caught.value.flow is None


def test_ctrl_c():
    def press(p):
        if p.step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        fit(TABLE, progress=press)
    assert len(caught.value.flow.history["distance"]) in (2, 3)


# ---- schedules and wrong arguments ---------------------------------------------------------------


def test_schedules_have_many_forms():
    x = pictures(60, 4, (5, 4, 3))
    expected = fit(x, schedule=[(1, (2, 2, 3), 4), (1, (3, 2, 1), 3), (1, (5, 4, 3), 5)])
    for schedule in (
        [(1, 2, 4), (1, (3, 2, 1), 3), (1, None, 5)],
        [[1, (2, 2), 4], [0, 4, 1], [1, [3, 2, 1], 3], [1, (5, 4), 5]],
        iter([(np.int64(1), np.array([2, 2, 3]), 4), (1, (3, 2, 1), 3), (1, None, 5)]),
    ):
        flow = fit(x, schedule=schedule)
        assert flow.layers == expected.layers
        assert_array_equal(flow.sample(5, seed=1)[0], expected.sample(5, seed=1)[0])
    assert fit(x, schedule=[(3, 2, 4)], max_layers=1).layers == ("scale", "patch")
    table = fit(TABLE, schedule=[(1, None, 1), (1, None, 3)])
    assert table.layers == ("columns", "sliced", "sliced")
    assert [table[:k].slices for k in range(4)] == [0, 0, 3, 4]
    assert fit(TABLE, schedule=[(0, None, 1)]).layers == ("columns",)


def test_first_layers_are_the_last_that_were_fitted():
    flow = fit(IMAGES, schedule=QUICK)
    assert flow.layers == ("scale", *4 * ["patch"], *2 * ["sliced"])
    assert flow[:3].shape == flow.shape
    assert len(flow[:3]) == 3


SOME = np.arange(80)
WRONG = {
    "one image": ({"data_train": IMAGES[:1]}, ValueError, "data_train: one row"),
    "one image without its axis": (
        {"data_train": IMAGES[0], "image_shape": (6, 5)},
        ValueError,
        "data_train: must have shape",
    ),
    "no images": ({"data_train": IMAGES[:0]}, ValueError, "data_train: "),
    "no rows": ({"data_train": TABLE[:0]}, ValueError, "data_train: "),
    "no columns": ({"data_train": TABLE[:, :0]}, ValueError, "data_train: "),
    "one axis": ({"data_train": TABLE[:, 0]}, ValueError, "data_train: must be two-dim"),
    "five axes": (
        {"data_train": np.zeros((9, 2, 2, 2, 2))},
        ValueError,
        "data_train: must have shape",
    ),
    "no pixels": ({"data_train": np.zeros((9, 0, 3))}, ValueError, "data_train: must have shape"),
    "other shape": ({"image_shape": (5, 6)}, ValueError, "data_train: must have shape"),
    "shape of a number": ({"image_shape": 30}, TypeError, "image_shape: "),
    "shape of floats": ({"image_shape": (6.0, 5)}, TypeError, "image_shape: "),
    "shape of one": ({"image_shape": (30,)}, ValueError, "image_shape: "),
    "shape below 1": ({"image_shape": (-6, -5)}, ValueError, "image_shape: "),
    "complex": ({"data_train": IMAGES * 1j}, TypeError, "data_train: must be real"),
    "complex table": ({"data_train": TABLE * 1j}, (TypeError, ValueError), "data_train: "),
    "objects": ({"data_train": IMAGES.astype(object)}, TypeError, "data_train: "),
    "strings": ({"data_train": IMAGES.astype(str)}, TypeError, "data_train: "),
    "table of strings": ({"data_train": TABLE.astype(str)}, (TypeError, ValueError), "data_train"),
    "ragged": ({"data_train": [[1, 2], [3]]}, ValueError, "data_train: "),
    "ragged images": (
        {"data_train": [[1, 2], [3]], "image_shape": (1, 2)},
        ValueError,
        "data_train: ",
    ),
    "masked": (
        {"data_train": np.ma.masked_less(IMAGES, 9)},
        ValueError,
        "data_train: has masked values",
    ),
    "NaN": (
        {"data_train": np.where(SOME[:, None, None] == 7, np.nan, IMAGES)},
        ValueError,
        "data_train: row 7, column 0 is NaN",
    ),
    "infinite": ({"data_train": TABLE + np.inf}, ValueError, "data_train: row 0, column 0 is inf"),
    "too large": ({"data_train": IMAGES * 1e200}, ValueError, "data_train: row .* too large"),
    "all black": (
        {"data_train": np.zeros((9, 4, 4))},
        ValueError,
        "data_train: all pixels of all images are 0",
    ),
    "constant column": (
        {"data_train": TABLE * [1, 0, 1]},
        ValueError,
        "data_train: column 1 is constant",
    ),
    "labels": ({"labels": SOME[:-1] % 2}, ValueError, "labels: must have shape"),
    "labels of two axes": ({"labels": IMAGES[:, :, 0] % 2}, ValueError, "labels: must have shape"),
    "labels that are none": ({"labels": SOME}, ValueError, "labels: 80 different"),
    "labels NaN": ({"labels": SOME * np.nan}, ValueError, "labels: "),
    "weights": ({"weight_train": np.ones(3)}, ValueError, "weight_train: must have shape"),
    "weights below 0": ({"weight_train": -np.ones(80)}, ValueError, "weight_train: row 0"),
    "weight of one": ({"weight_train": SOME == 3}, ValueError, "data_train: one row"),
    "n_sample": ({"n_sample": 1}, ValueError, "n_sample: must be at least 2"),
    "n_knots": ({"n_knots": 2}, ValueError, "n_knots: must be between 3"),
    "alpha": ({"alpha": (0, 1)}, ValueError, "alpha: must be"),
    "slices": ({"data_train": TABLE, "n_slices": 4}, ValueError, "n_slices: 4 is not between"),
    "slices of images": ({"n_slices": 4}, ValueError, "n_slices: is for tables"),
    "slices twice": (
        {"data_train": TABLE, "n_slices": 2, "schedule": [(1, None, 1)]},
        ValueError,
        "n_slices: ",
    ),
    "max_layers": ({"max_layers": 0}, ValueError, "max_layers: must be"),
    "a number": ({"schedule": 5}, TypeError, "schedule: must be"),
    "empty": ({"schedule": []}, ValueError, "schedule: is empty"),
    "too short": ({"schedule": [(1, 2)]}, ValueError, "schedule: entries are"),
    "flat": ({"schedule": (1, 2, 2)}, ValueError, "schedule: entries are"),
    "large": ({"schedule": [(1, 6, 2)]}, ValueError, "schedule: patches of .6, 6, 1., entry 0"),
    "channels": ({"schedule": [(1, (2, 2, 2), 2)]}, ValueError, "schedule: .* all or 1"),
    "no kernel": ({"schedule": [(1, 0, 2)]}, ValueError, "schedule: kernel: must be at least 1"),
    "flat kernel": ({"schedule": [(1, (0, 2), 2)]}, ValueError, "schedule: kernel: "),
    "kernel of four": ({"schedule": [(1, (2, 2, 1, 1), 2)]}, ValueError, "schedule: a kernel is"),
    "kernel of floats": ({"schedule": [(1, 2.5, 2)]}, TypeError, "schedule: kernel: "),
    "slices of patches": ({"schedule": [(1, 2, 5)]}, ValueError, "schedule: slices: .* and 4"),
    "layers": ({"schedule": [(-1, 2, 2)]}, ValueError, "schedule: layers: must be"),
    "many": ({"schedule": 65 * [(1, 2, 2)]}, ValueError, "schedule: has 65 entries"),
    "of a table": ({"data_train": TABLE, "schedule": [(1, 2, 2)]}, ValueError, "schedule: kernels"),
    "dequantize": ({"dequantize": 17}, TypeError, "dequantize: must be True or False"),
    "noise of a table": ({"data_train": TABLE, "dequantize": True}, ValueError, "dequantize: "),
    "bounds": ({"bounds": [(0, 1)] * 30}, ValueError, "bounds: are for tables"),
    "bounds of two": ({"data_train": TABLE, "bounds": [(0, 1)] * 2}, ValueError, "bounds: "),
    "bounds turned": (
        {"data_train": TABLE, "bounds": [(9, -9)] * 3},
        ValueError,
        "bounds: of column 0, 9 is not below -9",
    ),
    "outside": (
        {"data_train": TABLE, "bounds": [(0, 1)] * 3},
        ValueError,
        "data_train: row .* outside the bounds",
    ),
    "model": ({"model": 3}, TypeError, "model: must be a pyflow.Flow"),
    "other model": ({"model": fit(TABLE, max_layers=1)}, ValueError, "model: it has 3 columns"),
    "model's labels": (
        {"model": fit(IMAGES, schedule=QUICK, max_layers=1), "labels": LABELS},
        ValueError,
        "labels: the flow to go on from has no classes",
    ),
    "callback": ({"callback": 3}, TypeError, "callback: must be callable"),
    "progress": ({"progress": 3}, TypeError, "progress: must be callable"),
    "callback_every": ({"callback_every": 0}, ValueError, "callback_every: must be"),
    "seed": ({"seed": -1}, ValueError, "seed: must be"),
    "scratch": ({"scratch": "/nowhere/at/all"}, OSError, "scratch: cannot make a file"),
    "scratch of a number": ({"scratch": 3}, TypeError, ""),
    "checkpoint": ({"checkpoint": "/nowhere/file"}, OSError, "checkpoint: cannot write"),
    "verbose": ({"verbose": 3}, TypeError, "verbose: must be"),
}


@pytest.mark.parametrize(("change", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(change, error, message):
    known = {"data_train": IMAGES, "max_layers": 1, "verbose": False}
    with np.errstate(all="ignore"), pytest.raises(error, match=f"^{message}"):
        pyflow.SIG(**known | change)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match=r"^SIG\(\) has no option 'n_slice'; did you mean"):
        fit(TABLE, n_slice=3)


def test_few_points_are_enough_of_a_sample():
    for n_sample in (2, 3, 20):
        flow = fit(TABLE, max_layers=3, n_sample=n_sample)
        assert np.isfinite(flow.sample(50, seed=1)[0]).all()
        assert np.isfinite(flow.evaluate_density(TABLE)).all()


def test_images_that_are_trained_stay_images():
    flow = fit(IMAGES, schedule=QUICK, max_layers=2)
    known = {"epochs": 1, "learning_rate": 1e-4, "verbose": False}
    trained = flow.train(IMAGES + 0.5, **known)
    assert trained.shape == flow.shape == (6, 5, 1)
    assert trained == flow.train(IMAGES.reshape(80, -1) + 0.5, **known)
    assert_allclose(
        flow.bits_per_dimension(IMAGES + 0.5),
        -flow.evaluate_density(IMAGES + 0.5) / 30 / np.log(2),
    )


def test_more_steps_find_better_slices():
    """More than the default's, that is: a search ends early where steps gain little."""
    first = [
        fit(IMAGES.reshape(len(IMAGES), -1), (6, 5, 1), schedule=[(1, None, 5)], slice_steps=steps)
        for steps in (0, 20, 200)
    ]
    random, default, long = (flow.history["distance"][0] for flow in first)
    assert 1.2 * random < default < long


def test_models_of_another_fit_are_refused():
    """Each fit goes on from flows of layers that it makes itself."""
    table = {"max_layers": 2, "verbose": False}
    gis, sig = pyflow.GIS(TABLE, **table), pyflow.SIG(IMAGES, n_sample=100, **table)
    with pytest.raises(ValueError, match=r"^model: it has a affine layer, which SIG does not know"):
        pyflow.SIG(TABLE, model=gis, **table)
    with pytest.raises(ValueError, match=r"^model: it has a scale layer, which GIS does not know"):
        pyflow.GIS(IMAGES, model=sig, **table)
