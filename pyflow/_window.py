"""Survey windows: how pixels that are not observed, or noisier than others, are to be drawn."""

import numpy as np

from pyflow.fields import cosines, wavenumbers

NEAR = 32  # pixels that an unobserved one is drawn from
FEWEST = 4  # fields for each term of a polynomial in the conditions
DESIGN = 3  # conditions at which weights are found, for each term
FIELDS = 200  # fields for each term that the spectrum is found from,
FEW = 8  # at least so many, and no more than have
LARGEST = 1 << 23  # pixels
ROUNDS = 6  # of filling in
MU_BINS = 4
CONDITIONS = 12  # that weights may depend on, at most
AT_ONCE = 512  # pixels whose weights are found together
LEAST = 1e-5  # variance of noise, over that of pixels, that is worth drawing a pixel for


def dependence(n, y, size, rng):
    """Choose the fields that what is drawn is made of, and how it depends on their conditions.

    Conditions that are too many, or of too few fields, are left out.

    Parameters
    ----------
    n : int
        Number of fields.
    y : (n, p) array or None
    size : int
        Numbers that a field has.
    rng : numpy.random.Generator

    Returns
    -------
    reach : (2, p) array
        Centre and half width of the conditions.
    basis : (len(rows), terms) array
        Their `monomials`, of the fields chosen.
    rows : int array
    """
    y = np.empty((n, 0)) if y is None else y
    enough = max(LARGEST // size, FEW)
    if y.shape[1] > CONDITIONS or min(n, enough) < FEWEST * monomials(y[:1]).shape[1]:
        y = y[:, :0]
    least, most = (y.min(axis=0), y.max(axis=0)) if y.size else (np.empty(0), np.empty(0))
    reach = np.stack([0.5 * (least + most), 0.5 * (most - least)])
    basis = monomials((y - reach[0]) / reach[1])
    rows = rng.permutation(n)[: min(max(FIELDS * basis.shape[1], FEW), enough)]
    return reach, basis[rows], rows


def realisation(x, mask, y, box, axis=None, noise=0.0):
    """Return the weights by which pixels are drawn, as the core takes them.

    They are those of a Gaussian field whose power spectrum is a function of y, and each pixel that
    is not observed is drawn given the nearest ones that are there by then: observed, or drawn
    before it (Vecchia 1988). Where the noise differs from pixel to pixel, the field is that with as
    much as the least noisy one has; noisier pixels are drawn given themselves and their neighbours.
    The spectrum is found by filling fields in and looking at them, in turn (stochastic EM), log
    P(k) a polynomial of second degree in y.

    Parameters
    ----------
    x : (n, *mesh) array
    mask : (*mesh) array of bool
    y : (n, p) array or None
    box : tuple of float
    axis : int, optional
        The line of sight, of fields that are not isotropic.
    noise : (*mesh) array or float
        Standard deviation of white noise that is to be added to the fields.

    Returns
    -------
    dict
        fill_pixel, fill_neighbour, fill_range, fill_weight, fill_spread, fill_moments: see
        csrc/fill.c and pf_fill in csrc/pyflow.h.
    """
    rng = np.random.default_rng(0)
    reach, basis, rows = dependence(len(x), y, mask.size, rng)
    known = x[rows][:, mask].astype(np.float64)
    noise = np.broadcast_to(noise, mask.shape)
    quiet = noise[mask].min()
    known += quiet * rng.standard_normal(known.shape)
    mean, scale = known.mean(), known.std()
    if not scale > 0:
        raise ValueError("data_train: the fields are constant: they have no density")
    field = np.zeros((len(rows), mask.size))
    field[:, mask.ravel()] = (known - mean) / scale
    modes = Modes(mask.shape, box, axis)
    design = basis[:: max(len(basis) // (DESIGN * basis.shape[1]), 1)]
    spread = np.where(mask, np.sqrt(noise**2 - quiet**2, where=mask, out=np.zeros(mask.shape)), 0)
    spread = spread.ravel() / scale
    spread[spread**2 < LEAST] = 0

    def weights(pixel, neighbour, spread):
        """Return coefficients (terms, n, near + 1) of w and log sigma."""
        found = [
            weights_of(modes.correlation(b @ log_power), pixel, neighbour, spread) for b in design
        ]
        weight = np.linalg.lstsq(design, np.reshape(found, (len(design), -1)), rcond=None)[0]
        return weight.reshape(design.shape[1], *found[0].shape)

    pixel, neighbour = drawn_from(mask, box)
    weight, share = None, mask.mean()
    for _ in range(ROUNDS if len(pixel) else 1):
        if weight is not None:
            fill_in(field, pixel, neighbour, basis, weight, rng)
        log_power = modes.regress(field.reshape(-1, *mask.shape), basis) - np.log(
            share
        ) * modes.one(basis)
        share = 1.0
        weight = weights(pixel, neighbour, 0 * spread)
    if spread.any():
        pixel, neighbour = drawn_from(mask, box, spread.reshape(mask.shape) > 0)
        weight = weights(pixel, neighbour, spread)
    return {
        "fill_pixel": pixel.astype(np.int32),
        "fill_neighbour": neighbour.astype(np.int32),
        "fill_range": reach,
        "fill_weight": weight,
        "fill_spread": spread[pixel],
        "fill_moments": np.array([mean, scale]),
    }


def fill_in(field, pixel, neighbour, basis, weight, rng):
    """Draw the unobserved pixels of fields (n, pixels), in place."""
    for i, (p, near) in enumerate(zip(pixel, neighbour, strict=True)):
        w = basis @ weight[:, i]
        e = rng.standard_normal(len(field))
        field[:, p] = np.einsum("nj,nj->n", w[:, :-1], field[:, near]) + np.exp(w[:, -1]) * e


def monomials(u):
    """Return 1, u_j and u_j u_l, j <= l, of every row of u (n, p): (n, terms)."""
    j, m = np.triu_indices(u.shape[1])
    return np.concatenate([np.ones((len(u), 1)), u, u[:, j] * u[:, m]], axis=1)


class Modes:
    """The modes of a mesh in bins of |k|, and with a line of sight of |mu|.

    log P is linear in k between the bins' means.
    """

    def __init__(self, mesh, box, axis):
        self.mesh = mesh
        k, number = wavenumbers(mesh, box)
        low = 2 * np.pi / max(box)
        self.mu = np.zeros(k.shape, int)
        if axis is not None:
            self.mu = np.minimum((cosines(mesh, box, axis) * MU_BINS).astype(int), MU_BINS - 1)
        width = np.maximum(np.floor(k / low + 0.5), 1)
        self.mu[k == 0] = self.mu.flat[np.where(k > 0, k, np.inf).argmin()]
        both = (width + self.mu * (width.max() + 1)).ravel()
        _, self.bin = np.unique(both, return_inverse=True)
        self.k, self.number = k, number.ravel()
        inside = self.number * (k.ravel() > 0)  # the mean has the power of the lowest frequency
        self.count = np.maximum(np.bincount(self.bin, inside), 1)
        self.centre = np.bincount(self.bin, inside * k.ravel()) / self.count
        self.of_mu = np.zeros(len(self.count), int)
        self.of_mu[self.bin] = self.mu.ravel()
        self.inside = inside

    def one(self, basis):
        """Return coefficients of a constant."""
        return np.eye(basis.shape[1])[0][:, None] * np.ones(len(self.count))

    def regress(self, field, basis):
        """Return coefficients (terms, bins) of the logarithm of the mean power of fields."""
        logs = np.empty((len(field), len(self.count)))
        for i, one in enumerate(field):
            power = np.abs(np.fft.rfftn(one)).ravel() ** 2 / one.size
            mean = np.bincount(self.bin, self.inside * power) / self.count
            logs[i] = np.log(np.maximum(mean, 1e-300))
        logs += 1 / self.count + 1 / (3 * self.count**2)  # of a mean of so many squares
        return np.linalg.lstsq(basis, logs, rcond=None)[0]

    def correlation(self, log_power):
        """Return the covariance of pixels at every separation, (*mesh)."""
        logs = np.empty(self.k.shape)
        for m in np.unique(self.mu):
            of = np.flatnonzero(self.of_mu == m)
            of = of[np.argsort(self.centre[of])]
            here = self.mu == m
            logs[here] = np.interp(self.k[here], self.centre[of], log_power[of])
        return np.fft.irfftn(np.exp(logs), self.mesh, range(len(self.mesh)))


def drawn_from(mask, box, noisy=None):
    """Return pixels in the order in which they are drawn, (n,), and from which, (n, m).

    Noisy ones (*mesh) come before unobserved ones, and of each coarse grids first, so that a
    pixel's neighbours lie all around it. Noisy pixels are among their own neighbours.
    """
    mesh, seen = mask.shape, mask.ravel()
    at = np.indices(mesh).reshape(mask.ndim, -1)
    level = np.min([np.where(a > 0, a & -a, 1 << 30) for a in at], axis=0)
    pixel = np.flatnonzero(~seen if noisy is None else ~seen | noisy.ravel())
    pixel = pixel[np.lexsort((-level[pixel], ~seen[pixel]))]
    rank = np.full(mask.size, -1)
    rank[pixel] = np.arange(len(pixel))
    near = min(NEAR, seen.sum())
    away = sum((np.minimum(o, n - o) * (L / n)) ** 2 for o, n, L in zip(at, mesh, box, strict=True))
    neighbour = np.full((len(pixel), near), np.flatnonzero(seen)[0])
    found = np.zeros(len(pixel), int)
    for offset in at[:, np.argsort(away, kind="stable")].T:
        open_ = np.flatnonzero(found < near)
        if not len(open_):
            break
        other = [
            (at[i][pixel[open_]] + o) % n for i, (o, n) in enumerate(zip(offset, mesh, strict=True))
        ]
        other = np.ravel_multi_index(other, mesh)
        there = seen[other] | (rank[other] < open_)  # observed, or drawn before
        rows = open_[there]
        neighbour[rows, found[rows]] = other[there]
        found[rows] += 1
    return pixel, neighbour


def weights_of(correlation, pixel, neighbour, spread):
    """Return w and log sigma, (n, m + 1), of pixels given their neighbours.

    spread (pixels,) is the standard deviation of the noise of those that are not drawn yet.
    """
    mesh, near = correlation.shape, neighbour.shape[1]
    out = np.empty((len(pixel), near + 1))
    rank = np.full(correlation.size, -1)
    rank[pixel] = np.arange(len(pixel))
    at = np.indices(mesh).reshape(len(mesh), -1)

    def between(a, b):
        return correlation[tuple((i[a] - i[b]) % n for i, n in zip(at, mesh, strict=True))]

    variance = correlation[(0,) * len(mesh)]
    for first in range(0, len(pixel), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        of, to = pixel[part, None], neighbour[part]
        cross = between(of, to)
        inner = between(to[:, :, None], to[:, None, :]) + 1e-6 * variance * np.eye(near)
        noise = np.where(rank[to] >= rank[of], spread[to] ** 2, 0)
        inner[:, range(near), range(near)] += noise
        w = np.linalg.solve(inner, cross[..., None])[..., 0]
        left = variance - (w * cross).sum(axis=1)
        out[part, :near] = w
        out[part, near] = 0.5 * np.log(np.maximum(left, 1e-6 * variance))
    return out
