"""Survey windows: flows of fields of which some pixels are not observed."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import philox
from scipy import stats
from scipy.interpolate import CubicSpline
from test_fields import dense

import pyflow
from pyflow import fields
from pyflow._window import Modes, realisation
from pyflow.layers import Bounds, Fill, Patch, Scale, Sliced, Symmetric

MESH, BOX = (6, 8), (6.0, 8.0)
F32, F64 = np.float32, np.float64


def holes(mesh, seed=0, part=0.3):
    return np.random.default_rng(seed).random(mesh) > part


MASK = holes(MESH)


def spectrum(k):
    return 1 / (1 + (2 * k) ** 2)


def simulated(n, seed, mesh=MESH, box=BOX, mask=MASK):
    """Amplitudes, and fields with NaN where they are not observed."""
    y = np.random.default_rng(seed).uniform(0.5, 2, n)
    x = fields.gaussian_field(
        lambda k: y[:, None, None] * spectrum(k), mesh, box_size=box, seed=seed
    )
    x[:, ~mask] = np.nan
    return x, y


def fit(x, y=None, mask=MASK, **options):
    known = {"n_layers": 2, "psi_knots": 4, "filter_knots": 8, "hidden": (16,), "epochs": 2}
    known |= {"box_size": BOX, "patch_layers": 1, "patch_size": 2, "patch_knots": 4}
    return pyflow.SymmetricFlow(x, y_train=y, mask=mask, **known | {"verbose": False} | options)


# pixels drawn given others, as white noise, and given themselves where they are noisier than others
KINDS = [(fill, dtype) for fill in ("realisation", "noise", "noise map") for dtype in (F32, F64)]
NOISE = np.where(holes(MESH, 5, 0.5), 0.1, np.random.default_rng(6).uniform(0.2, 1, MESH))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}, {kind[1].__name__}")
def case(request):
    """A flow, fields and parameters."""
    fill, dtype = request.param
    how = {"noise": NOISE} if fill == "noise map" else {"fill": fill}
    x, y = simulated(200, 1)
    flow = fit(x.astype(dtype), y, names=["amplitude"], **how)
    x, y = simulated(20, 2)
    return flow, x.astype(dtype), np.clip(y, *flow.y_range[0])[:, None]


# ---- truth ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mesh", "box"), [((4, 5), (1.0, 1.5)), ((2, 3, 4), (2.0, 3.0, 4.0))])
def test_exact_density_is_that_of_a_dense_gaussian(mesh, box):
    rng, mask = np.random.default_rng(0), holes(mesh)
    x, sigma = rng.normal(size=(3, *mesh)), rng.uniform(0.1, 1, mesh)
    known = x[:, mask]
    x[:, ~mask] = np.nan

    def power(k):
        return 0.05 / (1 + (k / 3.0) ** 2)

    covariance = dense(mesh, box)
    part = np.ix_(mask.ravel(), mask.ravel())
    for noise, more in ((None, 0), (0.3, 0.09 * np.eye(mask.size)), (sigma, sigma.ravel() ** 2)):
        more = np.diag(more) if np.ndim(more) == 1 else more
        c = (covariance + more)[part]
        expected = stats.multivariate_normal(np.zeros(len(c)), c).logpdf(known)
        logp = fields.gaussian_logp(x, power, box, mask=mask, noise=noise)
        assert_allclose(logp, expected, rtol=1e-8)
        one = fields.gaussian_logp(x[:1], power, box, mask=mask, noise=noise)
        assert_allclose(one, expected[:1], rtol=1e-8)
    scale = np.array([1.0, 2.0, 0.5]).reshape(3, *[1] * len(mesh))
    many = fields.gaussian_logp(x, lambda k: scale * power(k), box, mask=mask)
    each = [
        fields.gaussian_logp(x[i], lambda k, i=i: scale[i] * power(k), box, mask=mask)
        if len(mesh) == 2
        else many[i]
        for i in range(3)
    ]
    assert_allclose(many, each)
    periodic = fields.gaussian_logp(np.nan_to_num(x), power, box)
    assert_allclose(fields.gaussian_logp(np.nan_to_num(x), power, box, noise=0.0), periodic)


def test_density_and_posterior_are_nearly_the_exact_ones():
    mesh, box, n = (16, 16), 16.0, 1000
    mask = holes(mesh, part=0.1)
    mask[:2], mask[:, 13:], mask[5:9, 4:8] = False, False, False
    x, y = simulated(n + 250, 3, mesh, box, mask)
    train, validate, test = slice(n), slice(n, n + 150), slice(n + 150, None)
    options = {"box_size": box, "patch_layers": 0, "epochs": 20, "filter_knots": 16}
    flow = fit(
        x[train].astype(F32),
        y[train],
        mask,
        data_validate=x[validate],
        y_validate=y[validate],
        **options,
    )
    grid = np.linspace(0.5, 2, 61)
    unit = fields.gaussian_logp(x[test], spectrum, box, mask=mask)
    log_det = -2 * fields.gaussian_logp(0 * x[:1], spectrum, box, mask=mask)
    square = -2 * unit - log_det  # of the field in units of its covariance

    def exact(a):
        return -0.5 * (square / a + log_det + mask.sum() * np.log(a))

    sigma = np.sqrt(y[test] * np.nanvar(x[train] / np.sqrt(y[train])[:, None, None]))
    white = stats.norm(0, sigma[:, None]).logpdf(x[test][:, mask]).sum(axis=1)
    gain = (exact(y[test]) - white).mean()
    lost = (exact(y[test]) - flow.evaluate_density(x[test], y[test, None], draws=10)).mean()
    assert lost < 0.01 * gain
    noise = fit(x[train].astype(F32), y[train], mask, fill="noise", **options | {"epochs": 0})
    assert (exact(y[test]) - noise.evaluate_density(x[test], y[test, None])).mean() > 0.1 * gain

    def moments(logs):
        p = np.exp(logs - logs.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        mean = p @ grid
        return mean, np.sqrt(p @ grid**2 - mean**2)

    mean, width = moments(np.stack([exact(a) for a in grid], axis=1))
    mine, my_width = moments(flow._core.evaluate_at(x[test], grid[:, None]))
    assert_allclose(np.mean(my_width / width), 1, atol=0.1)
    assert np.sqrt(np.mean(((mine - mean) / width) ** 2)) < 0.6


def test_density_of_one_pixel_integrates_to_one():
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    x = fields.gaussian_field(spectrum, (3, 4), 300, box_size=4.0, seed=1)
    flow = fit(np.where(mask, x, np.nan), mask=mask, box_size=4.0)
    at = np.zeros((801, 3, 4))
    at[:, 1, 2] = np.linspace(-5, 5, 801)
    p = np.exp(flow.evaluate_density(at, draws=400))
    assert_allclose(np.trapezoid(p, at[:, 1, 2]), 1, atol=0.1)
    exact = stats.norm(0, x.std()).pdf(at[:, 1, 2])
    assert np.trapezoid(abs(p - exact), at[:, 1, 2]) < 0.25


def test_more_draws_are_nearer_to_the_mean_over_all():
    x, _ = simulated(200, 1)
    flow = fit(x, fill="noise", patch_layers=0)
    all_ = flow.evaluate_density(x[:30], draws=2000)
    one, many = (
        np.std([flow.evaluate_density(x[:30], draws=d, seed=s) - all_ for s in range(5)])
        for d in (1, 30)
    )
    assert many < 0.6 * one
    logs = np.stack([flow.evaluate_density(x[:5], draws=d + 1) for d in range(2)])
    second = np.log(2 * np.exp(logs[1] - logs[0]) - 1) + logs[0]  # of the second draw alone
    assert np.isfinite(second).all()
    assert np.all(abs(second - logs[0]) > 1e-6)


# ---- the layer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F32, F64])
def test_white_fill_leaves_the_observed_pixels(dtype):
    x = np.random.default_rng(0).normal(2, 3, size=(5, *MESH))
    flow = pyflow.Flow([Fill(MASK, 0.7, 2.5)], shape=MESH, dtype=dtype)
    z, logj = flow.forward(np.where(MASK, x, np.inf))
    e = np.array([philox.normal(0, 0, i) for i in range((~MASK).sum())])
    rtol = 1e-5 if dtype == F32 else 1e-12
    assert_allclose(z[:, MASK], (x[:, MASK] - 0.7) / 2.5, rtol=rtol, atol=rtol)
    assert_allclose(z[:, ~MASK], np.tile(e, (5, 1)), rtol=rtol)
    assert_allclose(logj, -MASK.sum() * np.log(2.5) - stats.norm.logpdf(e).sum(), rtol=rtol)
    expected = stats.norm(0.7, 2.5).logpdf(x[:, MASK]).sum(axis=1)
    for draws in (1, 3):
        assert_allclose(flow.evaluate_density(x, draws=draws), expected, rtol=rtol)
    back, minus_logj = flow.inverse(z)
    assert_allclose(back[:, MASK], x[:, MASK], rtol=10 * rtol)
    assert np.isnan(back[:, ~MASK]).all()
    assert_allclose(minus_logj, -logj, rtol=rtol)


@pytest.mark.parametrize("noise", [None, NOISE], ids=["holes", "holes and noise"])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_realisation_is_drawn_pixel_by_pixel(dtype, noise):
    """Against its slow twin, in the middle of the conditions' range."""
    x, y = simulated(200, 1)
    x = np.where(MASK, x, 0).astype(dtype)
    how = realisation(x, MASK, y[:, None], BOX, noise=0.0 if noise is None else noise)
    n, (mean, scale) = len(how["fill_pixel"]), how["fill_moments"]
    assert n == (~MASK | (noise is not None and NOISE > 0.1)).sum()
    weight, spread = how["fill_weight"].reshape(6 // 2, n, -1)[0], how["fill_spread"]
    flow = fit(x, y, epochs=0, noise=noise)[:1]
    z, logj = flow.forward(x[:4])
    v = np.where(MASK, (x[:4] - mean) / scale, np.nan).reshape(4, -1)
    expected = -MASK.sum() * np.log(scale)
    for i, (pixel, near) in enumerate(zip(how["fill_pixel"], how["fill_neighbour"], strict=True)):
        e, (*w, log_sigma) = philox.normal(0, 0, i), weight[i]
        assert not np.isnan(v[:, near]).any()
        assert near.tolist() == list(dict.fromkeys(near.tolist()))
        seen = v[:, pixel].copy()
        v[:, pixel] = v[:, near] @ w + np.exp(log_sigma) * e
        expected = expected + log_sigma - stats.norm.logpdf(e)
        if spread[i]:
            expected += stats.norm.logpdf(seen, v[:, pixel], spread[i])
            assert spread[i] * scale == pytest.approx(np.sqrt(NOISE.flat[pixel] ** 2 - 0.01))
    rtol = 1e-4 if dtype == F32 else 1e-10
    assert_allclose(z.reshape(4, -1), v, rtol=rtol, atol=rtol)
    assert_allclose(logj, expected, rtol=rtol, atol=rtol)
    back, _ = flow.inverse(z)
    for i, pixel in enumerate(how["fill_pixel"]):
        noise = [philox.normal(0, row, MASK.size + i) for row in range(4)]
        v[:, pixel] += spread[i] * np.array(noise) if spread[i] else np.nan
    assert_allclose(back.reshape(4, -1), mean + scale * v, rtol=rtol, atol=rtol)


def test_realisation_is_of_the_field_around_it():
    """The conditional mean and width of a hole, from the true covariance."""
    mesh, box = (12, 12), (12.0, 12.0)
    mask = np.ones(mesh, bool)
    mask[4:6, 4:6] = False
    x = fields.gaussian_field(spectrum, mesh, 2000, box_size=box, seed=1)
    how = realisation(x, mask, None, box)
    first = how["fill_pixel"][0]
    c = np.fft.irfftn(fields._eigenvalues(spectrum, mesh, box, None)[0], mesh, (0, 1))
    at = np.indices(mesh).reshape(2, -1)
    full = c[tuple((a[:, None] - a) % n for a, n in zip(at, mesh, strict=True))]
    know = np.flatnonzero(mask.ravel())
    w = np.linalg.solve(full[np.ix_(know, know)], full[know, first])
    sigma = np.sqrt(full[first, first] - w @ full[know, first]) / np.sqrt(c[0, 0])
    got = np.zeros(mask.size)
    got[how["fill_neighbour"][0]] = how["fill_weight"][0, 0, :-1]
    assert np.exp(how["fill_weight"][0, 0, -1]) == pytest.approx(sigma, rel=0.03)
    expected = np.zeros(mask.size)
    expected[know] = w
    wrong = got - expected  # how far off the mean is, in units of the field
    assert np.sqrt(wrong @ full @ wrong / c[0, 0]) < 0.1


def test_scores_are_gradients(case):
    flow, x, y = case
    score, logp = flow.score(x, y, with_logp=True)
    assert_array_equal(score[:, ~MASK], 0)
    assert_allclose(logp, flow.evaluate_density(x, y), rtol=1e-6)
    by_y = flow.score_parameters(x, y)
    assert np.isfinite(by_y).all()
    if flow.dtype == F32:
        return
    h, y = 1e-6, np.clip(y, flow.y_range[0, 0] + 1e-5, flow.y_range[0, 1] - 1e-5)
    step = np.where(MASK, np.random.default_rng(0).normal(size=x.shape), 0)
    score, by_y = flow.score(x, y), flow.score_parameters(x, y)
    up, down = (flow.evaluate_density(x + s * h * step, y) for s in (1, -1))
    slope = (score * step)[:, MASK].sum(axis=1)
    assert_allclose(slope, (up - down) / (2 * h), rtol=1e-5, atol=1e-4)
    up, down = (flow.evaluate_density(x, y + s * h) for s in (1, -1))
    assert_allclose(by_y[:, 0], (up - down) / (2 * h), rtol=1e-5, atol=1e-4)


# ---- laws ----------------------------------------------------------------------------------------


def test_what_stands_in_unobserved_pixels_does_not_matter(case):
    flow, x, y = case
    for other in (0, np.inf, -1e30, np.float32(3)):
        filled = np.where(MASK, x, other).astype(flow.dtype)
        for name in ("evaluate_density", "forward", "score", "score_parameters"):
            for a, b in zip(getattr(flow, name)(x, y), getattr(flow, name)(filled, y), strict=True):
                assert_array_equal(a, b)
    train, y = simulated(60, 4)
    options = {"fill": "noise", "epochs": 1}
    rubbish = np.where(MASK, train, np.random.default_rng(0).normal(size=train.shape))
    assert fit(train, y, **options) == fit(rubbish, y, **options)
    assert fit(train, y) == fit(rubbish, y)
    known = {"epochs": 1, "learning_rate": 1e-3, "verbose": False}
    flow = fit(train, y, epochs=0)
    assert flow.train(train, y_train=y, **known) == flow.train(rubbish, y_train=y, **known)
    assert flow.calibrate(train, y) == flow.calibrate(rubbish, y)
    bad = x.copy()
    bad[3, 0, np.flatnonzero(MASK[0])[0]] = np.nan
    for call in (flow.evaluate_density, flow.forward, flow.score):
        with pytest.raises(ValueError, match="x: field 3, pixel .* is NaN"):
            call(bad, y[:20])
    with pytest.raises(ValueError, match="data_train: field 3"):
        fit(bad, y[:20])


def test_samples_are_of_observed_pixels(case):
    flow, _, y = case
    x, logp = flow.sample(20, y, seed=1)
    assert np.isnan(x[:, ~MASK]).all()
    assert np.isfinite(x[:, MASK]).all()
    assert_array_equal(logp, flow.evaluate_density(x, y))
    assert_array_equal(flow.sample(7, y[:7], seed=1)[0], x[:7])


def test_there_and_back(case, request):
    flow, x, y = case
    z, logj = flow.forward(x, y)
    back, minus_logj = flow.inverse(z, y)
    rtol = 2e-3 if flow.dtype == F32 else 1e-8
    noisy = "noise map" in request.node.callspec.params["case"]
    quiet = MASK & (NOISE == 0.1) if noisy else MASK  # the others have noise of their own
    assert_allclose(back[:, quiet], x[:, quiet], rtol=rtol, atol=rtol)
    assert np.isfinite(back[:, MASK]).all()
    assert np.isnan(back[:, ~MASK]).all()
    if not noisy:
        assert_allclose(minus_logj, -logj, rtol=rtol, atol=10 * rtol)
    normal = stats.norm.logpdf(z.astype(float)).sum(axis=(1, 2))
    assert_allclose(flow.evaluate_density(x, y), normal + logj, rtol=1e-10)


def test_a_density_does_not_depend_on_other_points(case):
    flow, x, y = case
    whole = flow.evaluate_density(x, y, draws=3)
    for rows in (slice(0, 1), slice(17, 18), slice(3, 20)):
        assert_array_equal(flow.evaluate_density(x[rows], y[rows], draws=3), whole[rows])
    assert flow.evaluate_density(x[5], y[5], draws=3) == whole[5]
    at = flow._core.evaluate_at(x[:4], y[:3], draws=3)
    assert_allclose(at[0, 0], whole[0], rtol=1e-9)
    first = flow._core.evaluate_at(x[[1, 1]], y[1:2], draws=3)[:, 0]
    assert first[0] == flow.evaluate_density(x[1], y[1], draws=3)
    assert first[1] != first[0]  # maps that share y have draws of their own
    other = flow.evaluate_density(x, y, seed=1)
    assert not np.any(other == flow.evaluate_density(x, y))


def test_copies_are_the_flow(case, tmp_path):
    flow, x, y = case
    flow.save(tmp_path / "flow")
    for again in (pyflow.load(tmp_path / "flow"), pickle.loads(pickle.dumps(flow)), flow[:]):
        assert again == flow
        assert_array_equal(again.mask, MASK)
        assert_array_equal(again.evaluate_density(x, y), flow.evaluate_density(x, y))
    for k in range(1, len(flow) + 1):
        part = flow[:k]
        assert_array_equal(part.mask, MASK)
        assert np.isfinite(part.evaluate_density(x, y if part.names else None)).all()
    assert flow[:0].mask is None
    assert fit(simulated(30, 1)[0], mask=np.ones(MESH, bool) * MASK).mask.dtype == bool


def test_threads_do_not_matter(case):
    flow, x, y = case
    train, given = simulated(60, 4)
    options = {"noise": 0.1, "epochs": 1}
    before = pyflow.get_num_threads()
    try:
        for n in (1, 2):
            pyflow.set_num_threads(n)
            now = fit(train.astype(flow.dtype), given, **options), flow.evaluate_density(x, y)
            if n == 1:
                first = now
        assert first[0] == now[0]
        assert_array_equal(first[1], now[1])
    finally:
        pyflow.set_num_threads(before)


def test_a_fit_goes_on_from_its_checkpoint(tmp_path):
    x, y = simulated(60, 4)
    path = tmp_path / "fit"

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 2:
            raise Stop

    whole = fit(x, y, epochs=4)
    with pytest.raises(Stop):
        fit(x, y, epochs=4, checkpoint=path, checkpoint_seconds=0, progress=stop)
    assert pyflow.load(path).unfinished
    assert fit(x, y, epochs=4, checkpoint=path) == whole
    with pytest.raises(ValueError, match="checkpoint: "):
        fit(x, y, MASK & holes(MESH, 9), epochs=4, checkpoint=path)


def test_noise_is_drawn_afresh_in_training():
    """Of rows of one field: otherwise an epoch would be like the one before."""
    x, _ = simulated(60, 4)
    flow = fit(x, fill="noise", patch_layers=0, epochs=3, learning_rate=0.0)
    assert len(set(flow.history["logp_train"])) == 3
    valid = fit(x, fill="noise", epochs=3, learning_rate=0.0, data_validate=x[:20])
    assert len(set(valid.history["logp_validate"])) == 1


def test_what_symmetry_the_mask_leaves():
    """Stripes: fields moved along them are as likely; across them, other pixels are seen."""
    mask = np.ones((8, 8), bool)
    mask[2:4] = False
    x = fields.gaussian_field(spectrum, (8, 8), 400, box_size=8.0, seed=1)
    flow = fit(x, mask=mask, box_size=8.0, patch_layers=0, epochs=5)
    rolled = [np.roll(x[:100], (i, j), (1, 2)) for i, j in ((0, 0), (0, 3), (3, 0))]
    here, along, across = (flow.evaluate_density(r, draws=30) for r in rolled)
    assert np.std(along - here) < 0.3
    assert np.std(across - here) > 3
    patches = fit(x, mask=mask, box_size=8.0, patch_layers=4, epochs=5)
    assert np.std(patches.evaluate_density(rolled[1]) - patches.evaluate_density(x[:100])) > 0.3


def test_three_dimensions_and_a_line_of_sight():
    mesh, box = (4, 5, 6), (4.0, 5.0, 6.0)
    mask = holes(mesh)
    x = fields.gaussian_field(lambda k, mu: spectrum(k) * (1 + mu**2), mesh, 200, axis=-1, seed=1)
    x[:, ~mask] = np.nan
    options = {"box_size": box, "symmetry": "axial", "fill": "realisation"}
    flow = fit(x, mask=mask, **options)
    assert np.isfinite(flow.evaluate_density(x[:5])).all()
    assert flow.sample(3, seed=0)[0].shape == (3, *mesh)


# ---- noise that is a map -------------------------------------------------------------------------


def test_density_and_posterior_with_a_noise_map_are_nearly_the_exact_ones():
    """Of maps without a mask, of which a half is four times as noisy as the other."""
    mesh, box, n = (16, 16), 16.0, 800
    noise = np.where(np.arange(16) < 7, 0.1, 0.4) * np.ones(mesh)
    x, y = simulated(n + 200, 3, mesh, box, np.ones(mesh, bool))
    test = x[n:] + noise * np.random.default_rng(0).normal(size=x[n:].shape)
    options = {"box_size": box, "patch_layers": 0, "epochs": 20, "filter_knots": 16}
    flow = fit(x[:n].astype(F32), y[:n], None, noise=noise, **options)
    grid = np.geomspace(0.5, 2, 16)

    exact = [
        fields.gaussian_logp(test, lambda k, a=a: a * spectrum(k), box, noise=noise) for a in grid
    ]
    exact = CubicSpline(grid, np.stack(exact, axis=1), axis=1)
    at_truth = exact(y[n:]).diagonal()
    sigma = np.sqrt(y[:n].mean() * np.var(x[:n] / np.sqrt(y[:n])[:, None, None]) + noise**2)
    alike = stats.norm(0, sigma).logpdf(test).sum(axis=(1, 2))
    gain = (at_truth - alike).mean()
    lost = (at_truth - flow.evaluate_density(test, y[n:, None], draws=10)).mean()
    assert abs(lost) < 0.02 * gain

    def moments(logp):
        p = np.exp(logp - logp.max(axis=1, keepdims=True))
        total = np.trapezoid(p, grid)
        mean = np.trapezoid(p * grid, grid) / total
        return mean, np.sqrt(np.trapezoid(p * grid**2, grid) / total - mean**2)

    mean, width = moments(exact(grid))
    mine, my_width = moments(flow._core.evaluate_at(test.astype(F32), grid[:, None]))
    assert_allclose(np.mean(my_width / width), 1, atol=0.1)
    assert np.sqrt(np.mean(((mine - mean) / width) ** 2)) < 0.6


def test_samples_have_the_noise_of_every_pixel():
    """Fields of nothing but noise: their density is known."""
    mesh, sigma = (4, 4), np.linspace(0.5, 2, 16).reshape(4, 4)
    x = np.random.default_rng(0).normal(scale=0.01, size=(2000, 4, 4))
    options = {"box_size": 4.0, "noise": sigma, "patch_layers": 0, "epochs": 10, "mask": None}
    held_out = sigma * np.random.default_rng(1).normal(size=(1000, *mesh))
    exact = stats.norm(0, sigma).logpdf(held_out).sum(axis=(1, 2))
    alike = stats.norm(0, np.sqrt(np.mean(sigma**2))).logpdf(held_out).sum(axis=(1, 2))
    for more, share in (({}, 0.01), ({"fill": "noise", "patch_layers": 2}, 0.2)):
        flow = fit(x, **options | more)
        lost = (exact - flow.evaluate_density(held_out, draws=30)).mean()
        assert lost < share * (exact - alike).mean()
        assert_allclose(flow.sample(4000, seed=0)[0].std(axis=0), sigma, rtol=0.1 + share)


def test_noise_of_a_spectrum_under_a_mask_is_that_noise():
    """Whatever the fields' units."""
    mesh, mask = (12, 12), holes((12, 12))
    lost = []
    for unit in (1.0, 0.01):
        power = lambda k: unit**2 * spectrum(k)  # noqa: B023, E731
        noise = lambda k: unit**2 * 0.2 / (1 + k)  # noqa: B023, E731
        x = fields.gaussian_field(power, mesh, 500, box_size=12.0, seed=1)
        flow = fit(x, mask=mask, noise=noise, box_size=12.0, patch_layers=0, epochs=10)
        both = lambda k: power(k) + noise(k)  # noqa: B023, E731
        x = fields.gaussian_field(both, mesh, 200, box_size=12.0, seed=2)
        exact = fields.gaussian_logp(x, both, 12.0, mask=mask)
        lost.append((exact - flow.evaluate_density(x, draws=10)).mean())
    assert max(lost) < 1
    assert_allclose(*lost, atol=0.3)


@pytest.mark.parametrize("given", [True, False])
def test_noise_of_a_level_that_is_a_condition(given):
    """With parameters beside it, or alone."""
    mesh, mask = (12, 12), holes((12, 12))
    x, y = simulated(600, 1, mesh, 12.0, np.ones(mesh, bool))
    options = {"noise": (0.02, 1.0), "noise_condition": True, "box_size": 12.0, "patch_layers": 0}
    if not given:
        x /= np.sqrt(y)[:, None, None]
    flow = fit(x, y if given else None, mask, epochs=10, **options)
    for sigma in (0.05, 0.9):
        a = np.full(200, 1.0)
        at = fields.gaussian_field(spectrum, mesh, 200, box_size=12.0, seed=2)
        at += sigma * np.random.default_rng(3).normal(size=at.shape)
        exact = fields.gaussian_logp(at, spectrum, 12.0, mask=mask, noise=sigma)
        conditions = np.stack([a, sigma * a], axis=1)[:, 0 if given else 1 :]
        lost = (exact - flow.evaluate_density(at, conditions, draws=10)).mean()
        assert abs(lost) < 0.6


def test_axial_realisations_of_long_boxes_have_a_mean():
    mesh, box = (8, 16), (8.0, 16.0)
    modes = Modes(mesh, box, 1)
    x = fields.gaussian_field(1.0, mesh, 100, box_size=box, seed=1)
    logs = modes.regress(x, np.ones((100, 1)))
    assert modes.correlation(logs[0]).sum() > 0.1  # the power of k = 0


def test_weights_depend_on_no_more_conditions_than_they_can():
    x, _ = simulated(500, 1)
    y = np.random.default_rng(0).uniform(size=(500, 13))
    assert np.isfinite(fit(x, y, epochs=0).evaluate_density(x[:3], y[:3])).all()


def test_a_flow_is_not_trained_with_another_noise_map():
    x, _ = simulated(60, 1)
    flow = fit(x, noise=NOISE, epochs=0)
    assert flow.train(x, noise=NOISE, epochs=1, verbose=False)
    with pytest.raises(ValueError, match="^noise: this flow was made for another map"):
        flow.train(x, noise=2 * NOISE, epochs=1, verbose=False)


def test_a_flow_of_a_noise_map_is_saved(tmp_path):
    x, _ = simulated(60, 1)
    for more in ({}, {"fill": "noise"}):
        flow = fit(x, noise=NOISE, **more)
        flow.save(tmp_path / "flow")
        assert pyflow.load(tmp_path / "flow") == flow
        assert flow[:1]._core.to_bytes() == pyflow.Flow.from_bytes(flow[:1].to_bytes()).to_bytes()


# ---- bad input -----------------------------------------------------------------------------------


def test_bad_windows_are_refused_by_name():
    x, y = simulated(30, 1)
    for options, error, message in (
        ({"mask": MASK[:, :-1]}, ValueError, "mask: must have the shape of a field"),
        ({"mask": MASK[None]}, ValueError, "mask: must have the shape of a field"),
        ({"mask": MASK.astype(int)}, TypeError, "mask: must be boolean"),
        ({"mask": MASK.astype(float)}, TypeError, "mask: must be boolean"),
        ({"mask": np.zeros(MESH, bool)}, ValueError, "mask: no pixel is observed"),
        ({"mask": "all"}, TypeError, "mask: must be boolean"),
        ({"fill": "zeros"}, ValueError, "fill: must be 'realisation' or 'noise'"),
        ({"patch_layers": -1}, ValueError, "patch_layers: "),
        ({"patch_size": 0}, ValueError, "patch_size: "),
        ({"noise": np.ones((2, 2))}, ValueError, "noise: a map has the shape of a field"),
        ({"noise": -np.ones(MESH)}, ValueError, "noise: must be finite, not negative"),
        ({"noise": np.zeros(MESH)}, ValueError, "noise: must be finite, not negative"),
        ({"data_validate": x[:, :-1]}, ValueError, "data_validate: "),
    ):
        with pytest.raises(error, match=f"^{message}"):
            fit(x, **{"mask": MASK} | options)
    constant = np.where(MASK, 1.0, np.random.default_rng(0).normal(size=x.shape))
    with pytest.raises(ValueError, match="data_train: the fields are constant"):
        fit(constant)
    flow = fit(x, y)
    for call in (flow.evaluate_density, flow.posterior):
        for draws in (0, -1):
            with pytest.raises(ValueError, match="draws: must be at least 1"):
                call(x[:2], draws=draws)
    for layers in ([Scale(), Fill(MASK)], [Fill(MASK), Fill(MASK)]):
        with pytest.raises(ValueError, match="mask: must be the first layer"):
            pyflow.Flow(layers, shape=MESH)
    with pytest.raises(ValueError, match="bounds: must be the first layer"):
        pyflow.Flow([Fill(MASK), Bounds([(0, 1)] * MASK.size)], shape=MESH)
    with pytest.raises(ValueError, match="scale: "):
        pyflow.Flow([Fill(MASK, 0, 0)], shape=MESH)
    masked = pyflow.Flow([Fill(MASK.ravel())], shape=MASK.size)
    for more in (pyflow.GIS, pyflow.SIG):
        with pytest.raises(ValueError, match="model: it has a"):
            more(np.zeros((9, MASK.size)), model=masked, max_layers=1, verbose=False)
    with pytest.raises(ValueError, match="mask: must have the shape of a field"):
        fields.gaussian_logp(x, 1.0, mask=MASK[:-1])


@pytest.mark.parametrize("dtype", [F32, F64])
def test_fill_by_hand_goes_with_other_layers(dtype):
    x, _ = simulated(100, 1)
    patch = Patch((*MESH, 1), 2, n_slices=2, n_knots=4)
    layers = [Fill(MASK), Symmetric(4, 6), Sliced(3, 4), patch]
    flow = pyflow.Flow(layers, shape=MESH, box_size=BOX, dtype=dtype)
    trained = flow.train(x, epochs=3, verbose=False)
    assert trained.evaluate_density(x).mean() > flow.evaluate_density(x).mean()
    assert trained.layers == ("fill", "symmetric", "sliced", "patch")


def test_damaged_files_are_refused():
    flow = fit(simulated(60, 1)[0], epochs=0)
    data = flow.to_bytes()
    for end in range(0, len(data), 997):
        with pytest.raises(pyflow.FileError):
            pyflow.Flow.from_bytes(data[:end])
