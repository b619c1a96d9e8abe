"""Survey windows: masks, and how pixels that are not observed are to be filled in."""

import numpy as np

NEAR = 32  # pixels that an unobserved one is drawn from
FEWEST = 4  # fields for each term of a polynomial in the conditions
DESIGN = 3  # conditions at which weights are found, for each term
AT_ONCE = 512  # fields, or pixels, that are worked on together


def window(mask, mesh):
    """Return a mask as a bool array of the shape of the mesh."""
    mask = np.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"mask: must be boolean, True where observed; its dtype is {mask.dtype}")
    if mask.shape != tuple(mesh):
        raise ValueError(
            f"mask: must have the shape of a field, {tuple(mesh)}; its shape is {mask.shape}"
        )
    if not mask.any():
        raise ValueError("mask: no pixel is observed")
    return mask


def realisation(x, mask, y, box, axis=None, noise=0.0):
    """Return the weights by which unobserved pixels are drawn, as the core takes them.

    They are those of a Gaussian field with the two-point function of the observed pixels, for which
    that is the same everywhere, as a function of y, and each unobserved pixel is drawn given the
    nearest ones that are there by then: observed, or drawn before it (Vecchia 1988).

    Parameters
    ----------
    x : (n, *mesh) array
    mask : (*mesh) array of bool
    y : (n, p) array or None
    box : tuple of float
    axis : int, optional
        The line of sight, of fields that are not isotropic.
    noise : float or (*mesh) array
        Variance of what is to be added to the fields.

    Returns
    -------
    dict
        fill_pixel, fill_neighbour, fill_range, fill_weight: see csrc/fill.c.
    """
    pixel, neighbour = drawn_from(mask, box)
    terms = None if y is None else (y.shape[1] + 1) * (y.shape[1] + 2) // 2
    if y is None or len(x) < FEWEST * terms:
        y = np.empty((len(x), 0))
    least, most = (y.min(axis=0), y.max(axis=0)) if y.size else (np.empty(0), np.empty(0))
    reach = np.stack([0.5 * (least + most), 0.5 * (most - least)])
    u = (y - reach[0]) / reach[1]
    basis = monomials(u)
    correlation = two_point(x, mask, basis, box, axis, noise)
    design = u[:: max(len(u) // (DESIGN * basis.shape[1]), 1)] if y.size else u[:1]
    found = [
        weights_of(positive(np.tensordot(b, correlation, 1), mask.shape), pixel, neighbour)
        for b in monomials(design)
    ]
    found = np.reshape(found, (len(design), -1))
    polynomial = np.linalg.lstsq(monomials(design), found, rcond=None)[0]
    return {
        "fill_pixel": pixel.astype(np.int32),
        "fill_neighbour": neighbour.astype(np.int32),
        "fill_range": reach,
        "fill_weight": polynomial,
    }


def monomials(u):
    """Return 1, u_j and u_j u_l, j <= l, of every row of u (n, p): (n, terms)."""
    j, m = np.triu_indices(u.shape[1])
    return np.concatenate([np.ones((len(u), 1)), u, u[:, j] * u[:, m]], axis=1)


def two_point(x, mask, basis, box, axis, noise):
    """Return the covariance of pixels at every separation: coefficients (terms, *mesh) of the basis.

    Pairs of observed pixels, averaged over all that are as far apart, in all fields; in units of
    the variance of a pixel.
    """
    axes = tuple(range(1, x.ndim))
    known = x[:, mask].astype(np.float64)
    mean, solve = known.mean(), np.linalg.pinv(basis)
    spectra = 0
    for first in range(0, len(x), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        field = np.zeros((len(x[part]), *mask.shape))
        field[:, mask] = known[part] - mean
        power = np.abs(np.fft.rfftn(field, axes=axes)) ** 2
        spectra = spectra + np.tensordot(solve[:, part], power, 1)
    products = np.fft.irfftn(spectra, mask.shape, axes)
    pairs = np.fft.irfftn(np.abs(np.fft.rfftn(mask.astype(float))) ** 2, mask.shape)
    group = separations(mask.shape, box, axis)
    count = np.bincount(group.ravel(), np.round(pairs).ravel())
    sums = [np.bincount(group.ravel(), p.ravel()) for p in products]
    mean_product = np.divide(sums, count, where=count > 0, out=np.zeros((len(sums), len(count))))
    correlation = mean_product[:, group]
    extra = np.zeros(mask.shape)
    extra[(0,) * mask.ndim] = 1
    correlation[0] += extra * noise if np.ndim(noise) == 0 else noise
    variance = known.var() + (noise if np.ndim(noise) == 0 else noise[(0,) * mask.ndim])
    return correlation / variance


def separations(mesh, box, axis):
    """Return which separations on a periodic mesh are of one kind, as numbers from 0 on."""
    along = [
        np.minimum(i, n - i) * (L / n)
        for i, n, L in zip(np.indices(mesh), mesh, box, strict=True)
    ]
    line = 0 if axis is None else along[axis]
    across = sum(a**2 for i, a in enumerate(along) if i != axis)
    scale = 1e-9 * max(box)
    _, first = np.unique(np.round(np.sqrt(across) / scale), return_inverse=True)
    _, second = np.unique(np.round(np.broadcast_to(line, mesh) / scale), return_inverse=True)
    both = first.reshape(mesh) * (second.max() + 1) + second.reshape(mesh)
    return np.unique(both, return_inverse=True)[1].reshape(mesh)


def positive(correlation, mesh):
    """Return the nearest covariance whose power spectrum is positive."""
    power = np.fft.rfftn(correlation).real
    floor = 1e-5 * np.abs(power).max()
    return np.fft.irfftn(np.maximum(power, floor), mesh)


def drawn_from(mask, box):
    """Return unobserved pixels in the order in which they are drawn, (n,), and from which, (n, m).

    Coarse grids come first, so that a pixel's neighbours lie all around it.
    """
    mesh = mask.shape
    at = np.indices(mesh).reshape(mask.ndim, -1)
    level = np.min([np.where(a > 0, a & -a, 1 << 30) for a in at], axis=0)
    pixel = np.flatnonzero(~mask.ravel())
    pixel = pixel[np.argsort(-level[pixel], kind="stable")]
    rank = np.full(mask.size, -1)
    rank[pixel] = np.arange(len(pixel))
    near = min(NEAR, mask.size - len(pixel))
    offsets = np.indices(mesh).reshape(mask.ndim, -1)
    away = sum(
        (np.minimum(o, n - o) * (L / n)) ** 2
        for o, n, L in zip(offsets, mesh, box, strict=True)
    )
    neighbour = np.full((len(pixel), near), np.flatnonzero(mask.ravel())[0])
    found = np.zeros(len(pixel), int)
    for offset in offsets[:, np.argsort(away, kind="stable")[1:]].T:
        open_ = np.flatnonzero(found < near)
        if not len(open_):
            break
        other = [(at[i][pixel[open_]] + o) % n for i, (o, n) in enumerate(zip(offset, mesh, strict=True))]
        other = np.ravel_multi_index(other, mesh)
        there = rank[other] < open_  # observed, or drawn before
        rows = open_[there]
        neighbour[rows, found[rows]] = other[there]
        found[rows] += 1
    return pixel, neighbour


def weights_of(correlation, pixel, neighbour):
    """Return w and log sigma, (n, m + 1), of pixels given their neighbours."""
    mesh, near = correlation.shape, neighbour.shape[1]
    out = np.empty((len(pixel), near + 1))

    def between(a, b):
        apart = [
            (i - j) % n
            for i, j, n in zip(np.unravel_index(a, mesh), np.unravel_index(b, mesh), mesh, strict=True)
        ]
        return correlation[tuple(apart)]

    variance = correlation[(0,) * len(mesh)]
    for first in range(0, len(pixel), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        of, to = pixel[part, None], neighbour[part]
        cross = between(of, to)
        inner = between(to[:, :, None], to[:, None, :]) + 1e-6 * variance * np.eye(near)
        w = np.linalg.solve(inner, cross[..., None])[..., 0]
        left = variance - (w * cross).sum(axis=1)
        out[part, :near] = w
        out[part, near] = 0.5 * np.log(np.maximum(left, 1e-6 * variance))
    return out
