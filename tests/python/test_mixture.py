"""Mixtures of flows: one density, exactly that of its members, whatever a flow is asked."""

import copy
import json
import pickle
import struct
import zlib
from functools import cache

import flows
import numpy as np
import pytest
from conftest import banana
from hostile import fuzz
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

import pyflow
from pyflow.checks import simulations_of

NAMES = ["a", "b"]


def masked(seed):
    mask = np.ones(flows.MESH, bool)
    mask[:2, :3] = False
    return flows.symmetric(np.float64, True, mask=mask, seed=seed)


def beside(seed):
    x = flows.fields(100, 5)
    return pyflow.SymmetricFlow(
        x,
        condition_field=np.roll(x, 1, axis=2),
        box_size=flows.BOX,
        n_layers=2,
        filter_knots=6,
        epochs=2,
        seed=seed,
        verbose=False,
    )


def on(rows, **options):
    """GIS of other rows for every member."""
    x = banana(500, seed=1)
    return lambda seed: pyflow.GIS(
        x[seed * rows :], max_layers=3, seed=seed, verbose=False, **options
    )


MAKE = {
    "gis": on(100),
    "gis, labels": lambda seed: flows.gis(
        np.float64, seed=seed, labels=flows.side(banana(400, seed=1)), n_slices=2 + seed
    ),
    "gis, float32": lambda seed: flows.gis(np.float32, seed=seed, n_slices=1 + seed),
    "images": lambda seed: pyflow.GIS(
        flows.blobs(200, 1 + seed), image_shape=(5, 4, 2), max_layers=2, verbose=False
    ),
    "symmetric, y": lambda seed: flows.symmetric(np.float64, True, seed=seed, n_layers=1 + seed),
    "masked": masked,
    "condition_field": beside,
}


@cache
def made(kind):
    """The mixture of two members of this kind, with weights 3 : 1, and the members."""
    members = [MAKE[kind](0), MAKE[kind](1)]
    return pyflow.Mixture(members, weights=[3, 1]), members


@cache
def points(kind):
    """Points, and what they are conditioned on, as arguments."""
    y = np.random.default_rng(4).uniform([0.6, -0.9], [1.9, 0.9], size=(20, 2))
    if kind.startswith("gis"):
        x = banana(20, seed=3)
        return (x, flows.side(x)) if "labels" in kind else (x,), {}
    if kind == "images":
        return (flows.blobs(20, 3),), {}
    x = flows.fields(20, 5, y[:, 0])
    if kind == "condition_field":
        return (x,), {"condition_field": np.roll(x, 1, axis=2)}
    return (x, y), {}


every_kind = pytest.mark.parametrize("kind", MAKE)


@every_kind
def test_density_is_the_weighted_sum_of_the_members(kind):
    mixture, members = made(kind)
    given, more = points(kind)
    logs = np.array([member.evaluate_density(*given, **more) for member in members])
    exact = logsumexp(logs, axis=0, b=np.array([[0.75], [0.25]]))
    assert np.ptp(logs, axis=0).max() > 1e-3  # members differ
    assert_allclose(mixture.evaluate_density(*given, **more), exact, rtol=0, atol=1e-10)
    one = mixture.evaluate_density(*(a[3] for a in given), **{k: c[3] for k, c in more.items()})
    assert np.ndim(one) == 0
    assert one == pytest.approx(exact[3], abs=1e-9)


@pytest.mark.parametrize("d", [1, 2])
def test_integrates_to_one(d):
    x = np.random.default_rng(0).gamma(3, size=(400, d))
    members = [pyflow.GIS(x[k * 100 :], max_layers=3, seed=k, verbose=False) for k in range(3)]
    mixture = pyflow.Mixture(members, [0.5, 0.2, 0.3])
    at = np.linspace(-6, 24, 3001 if d == 1 else 601)
    mesh = np.stack(np.meshgrid(*[at] * d, indexing="ij"), axis=-1).reshape(-1, d)
    total = np.exp(mixture.evaluate_density(mesh)).sum() * (at[1] - at[0]) ** d
    assert total == pytest.approx(1, abs=2e-3)


def test_outside_the_bounds_of_one_member_the_other_counts():
    x = np.random.default_rng(0).uniform(size=(400, 1))
    left = pyflow.GIS(x, bounds=[(0, 1)], max_layers=1, verbose=False)
    right = pyflow.GIS(x + 1, bounds=[(1, 2)], max_layers=1, verbose=False)
    mixture = pyflow.Mixture([left, right])
    assert mixture.evaluate_density([0.5]) == left.evaluate_density([0.5]) + np.log(0.5)
    assert mixture.evaluate_density([3.0]) == -np.inf
    sample, logp = mixture.sample(400, seed=1)
    assert np.isfinite(logp).all()
    assert 150 < (sample > 1).sum() < 250


@pytest.mark.parametrize("kind", ["gis", "symmetric, y", "images", "condition_field"])
def test_score_is_the_gradient(kind):
    mixture, _ = made(kind)
    given, more = points(kind)
    x, rest = given[0], given[1:]
    score, logp = mixture.score(x, *rest, **more, with_logp=True)
    assert_allclose(logp, mixture.evaluate_density(*given, **more), rtol=0, atol=1e-10)
    along = np.random.default_rng(1).normal(size=x.shape)
    step = 1e-6 * along
    up, down = (mixture.evaluate_density(x + s, *rest, **more) for s in (step, -step))
    slope = (up - down) / 2e-6
    exact = (score * along).reshape(len(x), -1).sum(axis=1)
    assert np.median(abs(slope - exact)) < 1e-4 * abs(exact).max()
    assert (
        mixture.score(x[0], *(y[0] for y in rest), **{k: c[0] for k, c in more.items()}).shape
        == (x.shape[1:])
    )


def test_score_of_parameters_is_the_gradient():
    mixture, _ = made("symmetric, y")
    (x, y), _ = points("symmetric, y")
    score = mixture.score_parameters(x, y)
    for j in range(2):
        step = 1e-6 * np.eye(2)[j]
        slope = mixture.evaluate_density(x, y + step) - mixture.evaluate_density(x, y - step)
        assert_allclose(score[:, j], slope / 2e-6, rtol=1e-4, atol=1e-4)


@every_kind
def test_a_longer_sample_begins_with_the_shorter_one(kind):
    mixture, _ = made(kind)
    given, more = points(kind)
    known = given[1:]
    x, logp = mixture.sample(20, *known, seed=5, **more)
    some = {k: c[:7] for k, c in more.items()}
    short, _ = mixture.sample(7, *(y[:7] for y in known), seed=5, **some)
    assert_array_equal(short, x[:7])
    assert x.shape == (20, *mixture.shape)
    assert x.dtype == mixture.dtype
    assert_array_equal(logp, mixture.evaluate_density(x, *known, **more))
    assert not np.array_equal(mixture.sample(20, *known, seed=6, **more)[0], x)
    assert mixture.sample(0, *(y[:0] for y in known), **{k: c[:0] for k, c in more.items()})[
        0
    ].shape == (0, *mixture.shape)


def test_a_sample_is_of_the_members_by_their_weights():
    x = np.random.default_rng(0).normal(size=(500, 1))
    low, high = (pyflow.GIS(x + c, max_layers=1, verbose=False) for c in (-20, 20))
    mixture = pyflow.Mixture([low, high, low], [0.5, 0.2, 0.3])
    sample = mixture.sample(20_000, seed=1)[0][:, 0]
    assert (sample > 0).mean() == pytest.approx(0.2, abs=0.01)
    assert len(np.unique(sample)) == len(sample)  # no two members share their noise
    above, below = sample[sample > 0] - 20, sample[sample < 0] + 20
    assert above.std() == pytest.approx(below.std(), abs=0.05)


def test_other_conditions_give_the_same_choice_of_members():
    mixture, members = made("symmetric, y")
    a, _ = mixture.sample(30, [1.0, 0.0], seed=2)
    b, _ = mixture.sample(30, [1.001, 0.0], seed=2)
    assert abs(a - b).max() < 0.1
    first, _ = members[0].sample(30, [1.0, 0.0], seed=2)
    of_first = np.flatnonzero(mixture._core.chosen(30, 2) == 0)
    assert 10 < len(of_first) < 30
    assert_array_equal(a[of_first], first[: len(of_first)])


def test_a_mixture_of_one_is_that_one():
    (x, y), _ = points("symmetric, y")
    _, (member, _) = made("symmetric, y")
    mixture = pyflow.Mixture([member])
    assert_array_equal(mixture.evaluate_density(x, y), member.evaluate_density(x, y))
    assert_array_equal(mixture.score(x, y), member.score(x, y))
    assert_array_equal(mixture.score_parameters(x, y), member.score_parameters(x, y))
    (a, logp), (b, own) = mixture.sample(9, y[0], 3), member.sample(9, y[0], 3)
    assert_array_equal(a, b)
    assert_allclose(logp, own, rtol=1e-12)


# ---- posteriors ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    """Two flows of fields with one parameter, and points that they have not seen."""
    y = np.random.default_rng(2).uniform(0.5, 2, size=200)
    x = flows.fields(200, 1, y)
    known = {"n_layers": 1, "psi_knots": 4, "filter_knots": 6, "hidden": (8,), "epochs": 4}
    known |= {"box_size": flows.BOX, "verbose": False, "names": ["amplitude"]}
    a = pyflow.SymmetricFlow(x[:80], y_train=y[:80], **known)
    b = pyflow.SymmetricFlow(x[40:100], y_train=y[40:100], seed=1, **known)
    return a, b, x[100:], y[100:]


def test_posterior_is_that_of_the_mixture(pair):
    a, b, x, _ = pair
    mixture = pyflow.Mixture([a, b], [0.3, 0.7])
    assert_array_equal(
        mixture.y_range[0],
        [min(a.y_range[0, 0], b.y_range[0, 0]), max(a.y_range[0, 1], b.y_range[0, 1])],
    )
    post = mixture.posterior(x[0])
    at = np.linspace(*mixture.y_range[0], 4001)[:, None]
    logs = [flow._core.evaluate_at(x[:1], at)[0] for flow in (a, b)]
    p = np.exp(logsumexp(logs, axis=0, b=[[0.3], [0.7]]) - logs[0].max())
    p /= p.sum()
    mean = (p * at[:, 0]).sum()
    assert post.names == ("amplitude",)
    assert post.mean[0] == pytest.approx(mean, abs=2e-3)
    assert post.cov[0, 0] == pytest.approx((p * (at[:, 0] - mean) ** 2).sum(), rel=0.02)


def test_calibration_is_that_of_the_mixture(pair):
    a, b, x, y = pair
    found = [pyflow.Mixture(m, w).calibrate(x, y) for m, w in (([a, b], [1, 3]), ([b, a], [3, 1]))]
    assert found[0].temperature == pytest.approx(found[1].temperature, rel=1e-9)
    assert type(found[0]) is pyflow.Mixture
    mixture = found[0]
    at = np.linspace(*mixture.y_range[0], 2001)[:, None]
    logs = mixture._core.evaluate_at(x, at)
    truths = mixture.evaluate_density(x, y)

    def gain(power):
        return (power * truths - logsumexp(power * logs, axis=1) + np.log(len(at))).mean()

    calibration = mixture.calibration
    assert calibration["before"] == pytest.approx(gain(1), abs=0.01)
    assert calibration["after"] == pytest.approx(gain(mixture.temperature), abs=0.01)
    best = max(np.linspace(0.3, 3, 271), key=gain)
    assert calibration["best"] == pytest.approx(best, abs=0.03)
    assert "temperature" in repr(mixture)
    assert pyflow.Flow.from_bytes(mixture.to_bytes()).calibration == calibration
    alone = a.calibrate(x, y)
    both = pyflow.Mixture([a, a]).calibrate(x, y)
    assert both.temperature == pytest.approx(alone.temperature, rel=1e-5)


def test_calibration_adds_the_noise_of_the_fit():
    case = flows.case("symmetric, noise", np.float64)
    y = case.y[:, :2]
    alone = case.flow.calibrate(case.x, y)
    three = pyflow.Mixture([case.flow] * 3).calibrate(case.x, y)
    assert three.temperature == pytest.approx(alone.temperature, rel=1e-5)
    assert three.calibration["before"] == pytest.approx(alone.calibration["before"], abs=1e-6)


def test_check_goes_through_the_mixture(pair):
    a, b, x, y = pair
    mixture = pyflow.Mixture([a, b])
    found = mixture.check(x[:10], y[:10])
    post = mixture.posterior(x[3])
    assert found.simulations == len(np.unique(simulations_of(None, y[:10, None])))
    assert found.log_posterior[3] == pytest.approx(post.logp([y[3]]), abs=1e-9)


def test_a_window_of_draws():
    mixture, members = made("masked")
    (x, y), _ = points("masked")
    for draws in (1, 8):
        logs = [f.evaluate_density(x, y, draws=draws, seed=2) for f in members]
        exact = logsumexp(logs, axis=0, b=[[0.75], [0.25]])
        assert_allclose(mixture.evaluate_density(x, y, draws=draws, seed=2), exact, atol=1e-9)
    assert np.isnan(mixture.sample(2, y[:2])[0][:, ~mixture.mask]).all()


def test_bits_of_images():
    mixture, _ = made("images")
    (x,), _ = points("images")
    assert_allclose(mixture.bits_per_dimension(x), -mixture.evaluate_density(x) / np.log(2) / 40)


# ---- what it is ----------------------------------------------------------------------------------


def test_what_it_says_of_itself():
    mixture, members = made("gis")
    assert len(mixture) == 2
    assert mixture.members == tuple(members)
    assert_array_equal(mixture.weights, [0.75, 0.25])
    mixture.weights[0] = 9
    assert mixture.weights[0] == 0.75
    assert mixture.n_parameters == sum(member.n_parameters for member in members)
    assert mixture.layers == members[0].layers + members[1].layers
    for own, member in zip(mixture.history, members, strict=True):
        assert_array_equal(own["logp_train"], member.history["logp_train"])
    assert repr(mixture).startswith("pyflow.Mixture(2 flows, shape=(3,), weights=(0.75, 0.25), ")
    reached = np.mean([member.history["logp_train"][-1] for member in members])
    assert f"logp_train={reached:.4g} of a member" in repr(mixture)
    assert not mixture.unfinished


def test_mixtures_in_a_mixture_stand_for_their_members():
    mixture, members = made("gis")
    nested = pyflow.Mixture([mixture, members[1]], [1, 1])
    assert nested.members == (*members, members[1])
    assert_allclose(nested.weights, [0.375, 0.125, 0.5])


def test_columns_and_labels_are_kept(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(banana(300, seed=1), columns=["u", "v", "w"])
    flow = pyflow.GIS(table, max_layers=2, verbose=False)
    mixture = pyflow.Mixture([flow, flow])
    assert mixture.columns == ("u", "v", "w")
    turned = table[["w", "u", "v"]]
    assert_array_equal(mixture.evaluate_density(turned), mixture.evaluate_density(table.to_numpy()))
    labelled, _ = made("gis, labels")
    assert_array_equal(labelled.labels, ["left", "right"])


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (lambda: pyflow.GIS(banana(99, seed=1)[:, :2], max_layers=1, verbose=False), "shape, dim"),
        (lambda: MAKE["gis, float32"](0), "dtype"),
        (lambda: MAKE["gis, labels"](0), "n_classes, labels"),
    ],
)
def test_flows_that_do_not_go_together(flow, message):
    _, members = made("gis")
    with pytest.raises(ValueError, match=f"^flows: {message} of flow 1 differ from"):
        pyflow.Mixture([members[0], flow()])


def test_names_must_be_the_same(pair):
    a, *_ = pair
    y = np.linspace(0.5, 2, 30)
    other = pyflow.SymmetricFlow(
        flows.fields(30, 1, y), y_train=y, box_size=flows.BOX, hidden=(4,), epochs=0, verbose=False
    )
    with pytest.raises(ValueError, match="^flows: names of flow 1"):
        pyflow.Mixture([a, other])


@pytest.mark.parametrize(
    "weights", [[1], [1, 2, 3], [1, -1], [1, 0], [1, np.nan], ["a", "b"], 1, [1e-200, 1e200]]
)
def test_weights_that_make_no_sense(weights):
    with pytest.raises(ValueError, match="^weights: "):
        pyflow.Mixture(made("gis")[1], weights)


def test_what_is_no_flow():
    with pytest.raises(ValueError, match="^flows: there are none"):
        pyflow.Mixture([])
    for wrong in ([1], "ab", 3):
        with pytest.raises(TypeError, match="^flows: must be of pyflow.Flow"):
            pyflow.Mixture(wrong)


def test_what_a_mixture_cannot():
    mixture, _ = made("gis")
    x = banana(50, seed=1)
    asked = (
        lambda: mixture[:1],
        lambda: mixture.train(x),
        lambda: mixture.forward(x),
        lambda: mixture.inverse(x),
    )
    for ask in asked:
        with pytest.raises(TypeError, match=r"^a mixture .*: take model.members\[k\].* n_models=1"):
            ask()
    for fit in (pyflow.GIS, pyflow.SIG):
        with pytest.raises(TypeError, match="^model: is a mixture"):
            fit(x, model=mixture, max_layers=1, verbose=False)


def test_its_history_is_drawn_of_all_members():
    mixture, members = made("gis")
    figure = pyflow.plots.history(mixture)
    above, below = figure.axes
    assert len(above.lines) == len(below.lines) == 2
    for line, member in zip(above.lines, members, strict=True):
        assert_array_equal(line.get_ydata(), member.history["logp_train"])
    colours = {line.get_color() for line in above.lines}
    assert len(colours) == 2
    assert colours == {line.get_color() for line in below.lines}
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["training data", "member 0", "member 1"]


# ---- files ---------------------------------------------------------------------------------------


@every_kind
def test_a_file_and_a_pickle_give_it_back(kind, tmp_path):
    mixture, members = made(kind)
    path = tmp_path / "mixture.pf"
    mixture.save(path)
    for again in (pyflow.load(path), pickle.loads(pickle.dumps(mixture))):
        assert type(again) is pyflow.Mixture
        assert again == mixture
        assert hash(again) == hash(mixture)
        assert repr(again) == repr(mixture)
        assert again.members == tuple(members)
        assert_array_equal(again.weights, mixture.weights)
    assert path.read_bytes() == mixture.to_bytes()
    assert copy.copy(mixture) is copy.deepcopy(mixture) is mixture
    assert mixture != members[0]
    assert mixture != pyflow.Mixture(members)


def test_a_file_is_replaced_as_a_whole(tmp_path):
    mixture, members = made("gis")
    path = tmp_path / "flow.pf"
    members[0].save(path)
    mixture.save(path)
    assert pyflow.load(path) == mixture
    assert [p.name for p in tmp_path.iterdir()] == ["flow.pf"]
    with pytest.raises(OSError, match="cannot write"):
        mixture.save(tmp_path / "no folder" / "flow.pf")


def test_a_flow_is_no_mixture():
    _, members = made("gis")
    with pytest.raises(pyflow.FileError, match="no.* pyflow mixture"):
        pyflow.Mixture.from_bytes(members[0].to_bytes())


def parts(content):
    """The header of a mixture's bytes, and the members' bytes."""
    (length,) = struct.unpack("<q", content[16:24])
    return json.loads(content[24 : 24 + length]), content[24 + length : -8]


def packed(header, members, version=1):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    whole = content_magic() + struct.pack("<qq", version, len(header)) + header + members
    return sealed(whole)


def content_magic():
    return made("gis")[0].to_bytes()[:8]


def sealed(whole):
    return whole + struct.pack("<q", zlib.crc32(whole))


def test_the_helpers_of_these_tests_make_the_same_bytes():
    content = made("gis")[0].to_bytes()
    assert packed(*parts(content)) == content


HOSTILE = {
    "no weights": lambda h: h | {"weights": []},
    "other number of weights": lambda h: h | {"weights": [1.0]},
    "negative weight": lambda h: h | {"weights": [2.0, -1.0]},
    "infinite weight": lambda h: h | {"weights": [float("inf"), 0.5]},
    "weights of text": lambda h: h | {"weights": ["a", "b"]},
    "weights above one": lambda h: h | {"weights": [0.9, 0.9]},
    "weights no list": lambda h: h | {"weights": 3},
    "huge length": lambda h: h | {"lengths": [2**62, 1]},
    "no lengths": lambda h: {k: v for k, v in h.items() if k != "lengths"},
    "lengths moved": lambda h: h | {"lengths": [h["lengths"][0] + 8, h["lengths"][1] - 8]},
    "lengths too short": lambda h: h | {"lengths": [n - 8 for n in h["lengths"]]},
    "negative length": lambda h: h | {"lengths": [-1, sum(h["lengths"]) + 1]},
    "lengths of bool": lambda h: h | {"lengths": [True, sum(h["lengths"]) - 1]},
    "temperature": lambda h: h | {"temperature": -1.0},
    "temperature text": lambda h: h | {"temperature": "1"},
    "note no dict": lambda h: h | {"note": []},
    "note of another flow": lambda h: h | {"note": {"columns": ["a"]}},
    "note with labels": lambda h: h | {"note": {"labels": [1, 2]}},
    "columns that members lack": lambda h: h | {"note": {"columns": ["a", "b", "c"]}},
    "no object": lambda h: [],
    "no JSON": lambda h: b"{",
    "deep": lambda h: b"[" * 100_000,
    "not a number": lambda h: json.dumps(h | {"temperature": float("nan")}).encode(),
    "not UTF-8": lambda h: b"\xff\xfe",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_header_that_makes_no_sense(what, tmp_path):
    header, members = parts(made("gis")[0].to_bytes())
    path = tmp_path / "hostile.pf"
    path.write_bytes(packed(HOSTILE[what](header), members))
    with pytest.raises(pyflow.FileError, match=f"^{path}: "):
        pyflow.load(path)


def test_members_that_do_not_go_together():
    header, members = parts(made("gis")[0].to_bytes())
    other = MAKE["gis, float32"](0).to_bytes()
    first = members[: header["lengths"][0]]
    content = packed(header | {"lengths": [len(first), len(other)]}, first + other)
    with pytest.raises(pyflow.FileError, match="dtype of member 1"):
        pyflow.Flow.from_bytes(content)
    inner = made("gis")[0].to_bytes()  # a mixture within a mixture is none
    content = packed(header | {"lengths": [len(first), len(inner)]}, first + inner)
    with pytest.raises(pyflow.FileError):
        pyflow.Flow.from_bytes(content)


def test_cut_altered_or_newer():
    content = made("gis")[0].to_bytes()
    for n in [0, 1, 8, 16, 24, 31, 40, len(content) // 2, len(content) - 1]:
        with pytest.raises(pyflow.FileError):
            pyflow.Flow.from_bytes(content[:n])
    for altered in fuzz(content, 60):
        if altered != content:
            with pytest.raises(pyflow.FileError):
                pyflow.Flow.from_bytes(altered)
    header, members = parts(content)
    with pytest.raises(pyflow.FileError, match="newer pyflow: its format is 7"):
        pyflow.Flow.from_bytes(packed(header, members, version=7))
    with pytest.raises(pyflow.FileError, match="header"):
        pyflow.Flow.from_bytes(packed(header, members, version=-1))


def test_altered_with_the_right_check_sum():
    """Whatever a header says, a file is read as it was or refused."""
    content = made("gis")[0].to_bytes()
    end = 24 + struct.unpack("<q", content[16:24])[0]
    for altered in fuzz(content[8:end], 200):
        whole = sealed(content[:8] + altered + content[end:-8])
        try:
            flow = pyflow.Flow.from_bytes(whole)
        except pyflow.FileError:
            continue
        assert flow.members == made("gis")[0].members
        assert abs(flow.weights.sum() - 1) < 1e-6
