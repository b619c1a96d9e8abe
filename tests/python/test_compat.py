"""Scripts in the style of the original implementation run with another import."""

import inspect
import pickle
import sys
import types

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import pyflow
from pyflow.compat import GIS, SINF


@pytest.fixture(scope="module")
def model(train, validate):
    return GIS(train, validate, 9, verbose=False)


# ---- PyTorch, or what is seen of it --------------------------------------------------------------


def likeness():
    """A module that has of PyTorch what pyflow uses."""
    torch = types.ModuleType("torch_likeness")

    class Device:
        pass

    class Tensor:
        def __init__(self, x, requires_grad=False):
            self.x, self.shape, self.dtype = x, x.shape, f"torch.{x.dtype}"
            self.requires_grad, self.device = requires_grad, torch.cpu

        def detach(self):
            return Tensor(self.x)

        def to(self, device):
            assert device is torch.cpu
            return self

        def cpu(self):
            return self

        def numpy(self):
            if self.requires_grad:
                raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
            return self.x

        def item(self):
            return self.x.item()

        def mean(self):
            return Tensor(self.x.mean(keepdims=True))

        def __neg__(self):
            return Tensor(-self.x)

        def requires_grad_(self, value=True):
            return Tensor(self.x, value)

        def __array__(self, dtype=None, copy=None):
            return self.numpy()

        def __len__(self):
            return len(self.x)

    Device.__module__ = Tensor.__module__ = "torch_likeness"
    torch.Tensor, torch.cpu, state = Tensor, Device(), [np.random.default_rng(0)]

    def manual_seed(seed):
        state[0] = np.random.default_rng(seed)

    torch.manual_seed = manual_seed
    torch.randint = lambda most, shape: Tensor(state[0].integers(most, size=shape))
    torch.from_numpy = Tensor
    torch.is_grad_enabled = lambda: True
    return torch


@pytest.fixture(params=["likeness", "torch"])
def torch(request, monkeypatch):
    if request.param == "torch":
        return pytest.importorskip("torch")
    module = likeness()
    monkeypatch.setitem(sys.modules, "torch_likeness", module)
    return module


def test_a_script_with_tensors(torch, train, validate):
    """Fit, evaluate, transform, sample, go on: tensors go in, and tensors come out."""
    data_train, data_validate = (torch.from_numpy(x.astype(np.float32)) for x in (train, validate))
    weight = torch.from_numpy(np.ones(len(train), np.float32))
    model = GIS(data_train, data_validate, 4, weight, Whiten=False, nocuda=True, verbose=False)
    model = model.requires_grad_(False).to("cpu").eval()
    assert model.flow.dtype == np.float32
    results = [
        model.evaluate_density(data_validate),
        model(data_validate)[0],
        *model.forward(data_validate, start=0, end=2),
        *model.transform(data_validate, 0, None),
        *model.inverse(data_validate),
        model.score(data_validate),
        *model.sample(20, device=data_train.device),
        *model.sample(20),
    ]
    for result in results:
        assert isinstance(result, torch.Tensor)
        assert np.isfinite(result.numpy()).all()
    assert_array_equal(results[0].numpy(), model.flow.evaluate_density(validate.astype(np.float32)))
    assert_allclose(model.loss(data_validate).item(), -results[0].numpy().mean())
    longer = GIS(data_train, iteration=len(model.layer) + 2, model=model, verbose=False)
    assert len(longer.layer) == len(model.layer) + 2


def test_samples_follow_the_seed_of_torch(torch, train):
    model = GIS(torch.from_numpy(train), None, 2, verbose=False)
    drawn = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        drawn.append(model.sample(9)[0].numpy())
    assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).all()


def test_gradients_do_not_flow(torch, train):
    model = GIS(train, None, 2, verbose=False)
    x = torch.from_numpy(train[:5].copy()).requires_grad_(True)
    for call in (model.evaluate_density, model.forward, model.inverse):
        with pytest.raises(NotImplementedError, match=r"^data: requires a gradient"):
            call(x)
        call(x.detach())
    assert_array_equal(model.score(x).numpy(), model.score(train[:5]))


# ---- arguments -----------------------------------------------------------------------------------


def test_arguments_have_the_names_and_the_order_of_the_original():
    theirs = """data_train data_validate iteration weight_train weight_validate K M KDE b_factor
        alpha bounds edge_bins ndata_A MSWD_max_iter NBfirstlayer Whiten batchsize nocuda patch
        shape model verbose"""
    assert " ".join(inspect.signature(GIS).parameters) == " ".join(theirs.split())


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [
        ({"K": 2}, {"n_slices": 2}),
        ({"M": 30}, {"n_knots": 30}),
        ({"KDE": False}, {"kde": False}),
        ({"b_factor": 1.5}, {"bandwidth_factor": 1.5}),
        ({"alpha": (0.5, 0.9)}, {"alpha": (0.5, 0.9)}),
        (
            {"bounds": [[None, None]] * 2 + [[0, None]]},
            {"bounds": [(None, None)] * 2 + [(0, None)]},
        ),
        ({"edge_bins": 2}, {"edge_knots": 2}),
        ({"ndata_A": 200}, {"slice_points": 200}),
        ({"MSWD_max_iter": 3}, {"slice_steps": 3}),
        ({"NBfirstlayer": False}, {"marginal_first": False}),
        ({"Whiten": False}, {"whiten": False}),
        ({"batchsize": 64, "nocuda": True, "patch": False, "shape": [28, 28, 1]}, {}),
    ],
)
def test_options_mean_what_they_meant(train, theirs, mine):
    plain = pyflow.GIS(train, max_layers=6, verbose=False)
    expected = pyflow.GIS(train, max_layers=6, verbose=False, **mine)[:6]
    found = GIS(train, None, 6, verbose=False, **theirs)
    logp = expected.evaluate_density(train)
    assert_array_equal(found.flow.evaluate_density(train), logp)
    assert (not mine) == bool(np.array_equal(plain[:6].evaluate_density(train), logp))


def test_iterations_are_layers_of_all_kinds(train, validate):
    for n in (1, 2, 5):
        assert len(GIS(train, None, n, verbose=False).layer) == n
    best = GIS(train, validate, 5, verbose=False)
    gained = pyflow.GIS(train, validate, max_layers=5, verbose=False).history["logp_validate"]
    assert len(best.layer) == gained[:5].argmax() + 1


def test_patches_are_pyflows():
    x = np.random.default_rng(5).normal(size=(300, 16)).cumsum(axis=1)
    model = GIS(x, None, 6, patch=True, shape=[4, 4, 1], verbose=False)
    expected = pyflow.GIS(x, image_shape=(4, 4), max_layers=6, verbose=False)[:6]
    assert "patch" in model.flow.layers
    assert_array_equal(model.evaluate_density(x), expected.evaluate_density(x))
    z, logj = model(x)
    back, minus_logj = model.inverse(z)
    assert_allclose(back, x, atol=1e-8)
    assert_allclose(logj, -minus_logj, atol=1e-6)
    assert model.sample(7)[0].shape == model.score(x[:7]).shape == (7, 16)
    with pytest.raises(ValueError, match=r"^shape: "):
        GIS(x, None, 1, patch=True)


# ---- a model in parts ----------------------------------------------------------------------------


def test_a_whole_model_is_pyflows(model, test):
    flow = model.flow
    assert isinstance(model, SINF)
    assert (model.ndim, len(model.layer)) == (3, len(flow))
    assert_array_equal(model.evaluate_density(test), flow.evaluate_density(test))
    for mine, theirs in (
        (model(test), flow.forward(test)),
        (model.transform(test, 0, None), flow.forward(test)),
        (model.inverse(test), flow.inverse(test)),
        (model.transform(test, None, 0), flow.inverse(test)),
    ):
        for a, b in zip(mine, theirs, strict=True):
            assert_array_equal(a, b)
    assert_array_equal(model.score(test), flow.score(test))
    one = model.evaluate_density(test[0])
    assert one.shape == (1,)
    assert model(test[0])[0].shape == (1, 3)


@pytest.mark.parametrize(("start", "end"), [(0, 4), (2, 5), (3, None), (-3, None), (2, -1), (4, 4)])
def test_layers_from_start_to_end(model, test, start, end):
    n = len(model.layer)
    first, last = start % n, n if end is None else end % n
    x, before = model.forward(test, 0, start) if start else (test, np.zeros(len(test)))
    z, logj = model.forward(x, start, end)
    whole, total = model.flow[:last].forward(test) if last else (test, np.zeros(len(test)))
    assert_allclose(z, whole, atol=1e-9)
    assert_allclose(before + logj, total, atol=1e-8)
    one_by_one, sum_logj = x, 0
    for layer in model.layer[first:last]:
        one_by_one, more = layer(one_by_one)
        sum_logj = sum_logj + more
    assert_allclose(one_by_one, z, atol=1e-8)
    assert_allclose(sum_logj, logj, atol=1e-8)
    assert_allclose(
        model.evaluate_density(x, start, end), stats.norm.logpdf(z).sum(axis=1) + logj, atol=1e-8
    )
    back, minus = model.inverse(z, last, first)
    assert_allclose(back, x, atol=1e-8)
    assert_allclose(minus, -logj, atol=1e-8)
    for a, b in zip(model.transform(z, last, first), (back, minus), strict=True):
        assert_array_equal(a, b)


def test_samples_between_layers(model):
    x, logp = model.sample(4000)
    assert_allclose(logp, model.evaluate_density(x))
    x, logp = model.sample(50, start=3)
    assert_allclose(logp, model.flow[:3].evaluate_density(x))
    z, logp = model.sample(50, end=3)
    assert_allclose(logp, model.evaluate_density(z, start=3), atol=1e-8)
    noise, logp = model.sample(4000, start=2, end=2)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert_allclose(logp, stats.norm.logpdf(noise).sum(axis=1), atol=1e-8)
    noise, logp = model.sample(4000, start=0)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert_allclose(logp, stats.norm.logpdf(noise).sum(axis=1))


def test_a_model_is_cut_by_its_list_of_layers(model, test):
    again = pickle.loads(pickle.dumps(model))
    again.layer = again.layer[:2]
    assert len(again.layer) == 2
    assert_array_equal(again.evaluate_density(test), model.flow[:2].evaluate_density(test))
    for layers in (model.layer[1:], model.layer[::-1], [1, 2]):
        with pytest.raises(NotImplementedError, match=r"^layer: "):
            again.layer = layers


def test_what_cannot_be_done_says_so(model, test):
    for call, error, message in (
        (lambda: model.forward(test, 3, 1), ValueError, "start, end: 3 is beyond 1"),
        (lambda: model.inverse(test, 1, 3), ValueError, "start, end: 1 is before 3"),
        (lambda: model.sample(3, 1, 3), ValueError, "start, end: 1 is before 3"),
        (lambda: model.forward(test, 0, 99), ValueError, "end: must be between"),
        (lambda: model.score(test, start=1), NotImplementedError, "score: "),
        (lambda: model.forward(test, param=test), NotImplementedError, "param: "),
        (lambda: model.inverse(test, d_dz=test), NotImplementedError, "d_dz: "),
    ):
        with pytest.raises(error, match=f"^{message}"):
            call()
