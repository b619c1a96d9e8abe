"""Equilateral bispectra: triangles one by one, shot noise, and fields of known bispectrum."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pyflow import fields, plots

EDGES = [0.3, 0.9, 1.4]


@pytest.mark.parametrize(
    ("mesh", "box"), [((12, 9), (12.0, 11.0)), ((8, 7, 6), (10.5, 10.0, 8.5))], ids=str
)
def test_triangles_one_by_one(mesh, box):
    x = np.random.default_rng(1).exponential(size=(2, *mesh))
    spectra = np.fft.fftn(x, axes=tuple(range(1, x.ndim)))
    modes = list(np.ndindex(*mesh))
    whole = [[i if 2 * i <= n else i - n for i, n in zip(m, mesh, strict=True)] for m in modes]
    length = np.linalg.norm(2 * np.pi * np.array(whole) / np.array(box), axis=1)
    k, b, triangles = fields.bispectrum(x, box, EDGES)
    assert b.shape == (2, len(k)) == (2, 2)
    for i, (lo, hi) in enumerate(itertools.pairwise(EDGES)):
        side = {m for m, k in zip(modes, length, strict=True) if lo <= k < hi}
        closed = [
            (p, q, r)
            for p, q in itertools.product(side, side)
            if (r := tuple(-(a + c) % n for a, c, n in zip(p, q, mesh, strict=True))) in side
        ]
        product = sum(
            np.prod([spectra[(slice(None), *m)] for m in three], axis=0) for three in closed
        )
        assert triangles[i] == len(closed)
        expected = product.real / len(closed) * np.prod(box) ** 2 / np.prod(mesh, dtype=float) ** 3
        assert_allclose(b[:, i], expected, rtol=1e-10)


def test_known_fields():
    """Independent pixels of third cumulant c have B = c (V / N)^2; a Gaussian field has none."""
    rng = np.random.default_rng(0)
    _, b, _ = fields.bispectrum(rng.exponential(size=(400, 24, 24)), 48.0)
    assert np.all(abs(b.mean(axis=0) - 2 * 4**2) < 4 * b.std(axis=0) / 20)
    g = fields.gaussian_field(lambda k: k**-1.5, (24, 24), 400, box_size=48.0, seed=2)
    _, b, _ = fields.bispectrum(g, 48.0)
    assert np.all(abs(b.mean(axis=0)) < 4 * b.std(axis=0) / 20)
    # x = g + a (g^2 - <g^2>): B = 2 a (P1 P2 + P2 P3 + P3 P1), 6 a P^2 of equal P, where a is small
    white = rng.normal(size=(3000, 12, 12))
    _, b, _ = fields.bispectrum(white + 0.02 * white**2, 12.0)
    assert np.all(abs(b.mean(axis=0) - 6 * 0.02) < 4 * b.std(axis=0) / 3000**0.5)


def test_bins_and_units():
    x = np.random.default_rng(0).exponential(size=(3, 32, 32))
    k, b, triangles = fields.bispectrum(x, 32.0)
    high = 2 / 3 * np.pi
    assert len(k) == 3
    assert np.all(np.diff(k) > 0)
    assert k[-1] < high
    far, of_far, same = fields.bispectrum(10 * x, 320.0)
    assert_allclose(far, k / 10)
    assert_allclose(of_far, 1e3 * 1e4 * b)
    assert np.array_equal(same, triangles)
    one = fields.bispectrum(x[0], 32.0)[1]
    assert one.shape == k.shape
    assert_allclose(one, b[0], rtol=1e-10)
    assert len(fields.bispectrum(x, 32.0, bins=6)[0]) == 6
    assert len(fields.bispectrum(x, 32.0, bins=[1e-9, 2e-9])[0]) == 0
    with pytest.raises(ValueError, match="bins: 3 is beyond 2/3 of the Nyquist"):
        fields.bispectrum(x, 32.0, bins=[0.1, 3.0])
    with pytest.raises(ValueError, match="x: field 0 has pixels"):
        fields.bispectrum(np.full((4, 4), np.nan))


def test_picture_shows_what_spectra_hide():
    """Log-normal fields, and Gaussian ones of the same spectrum."""
    g = fields.gaussian_field(lambda k: 0.3 / k, (32, 32), 60, box_size=32.0, seed=3)
    data = np.exp(g)
    phases = np.exp(1j * np.angle(np.fft.rfft2(np.random.default_rng(4).normal(size=data.shape))))
    samples = np.fft.irfft2(np.abs(np.fft.rfft2(data)) * phases, data.shape[1:])
    above, below = plots.bispectra(data, samples, 32.0, unit="Mpc").axes
    of_data, of_samples = (line.get_ydata() for line in above.lines[:2])
    assert np.all(of_data > 0.2)
    assert np.all(abs(of_samples) < 0.5 * of_data)
    assert_allclose(below.lines[0].get_ydata(), of_samples - of_data)
    with pytest.raises(ValueError, match="data: the fields are constant"):
        plots.bispectra(0 * data, data)
    with pytest.raises(ValueError, match="bins: no triangle"):
        plots.bispectra(data, data, bins=[1e-9, 2e-9])
