"""Questions about the points of Dask arrays: answered block by block, when Dask says."""

import numpy as np


def is_lazy(x):
    """Whether x is a Dask array, which nobody has to import to ask."""
    return type(x).__module__.startswith("dask.array")


def of_blocks(ask, x, own_shape, like_points, dtype, beside):
    """Return what `ask` returns for all points, as a Dask array with a block for each of theirs.

    Parameters
    ----------
    ask : callable
        Of points and, by name, of what is beside them. Answers of points do not depend on others.
    x : Dask array, (n, *shape)
        A point is never torn apart: axes other than the first become one block.
    own_shape : tuple
        Of a point.
    like_points : bool
        Answers have the shape of points; otherwise they are one number each.
    dtype : dtype
        Of answers.
    beside : dict of str to (array, tuple)
        y or condition_field: of all points, or one for each, of NumPy or of Dask; and the shape of
        that of one point.
    """
    import dask.array as da

    if x.shape == tuple(own_shape):  # one point: nothing to spread
        return ask(
            np.asarray(x), **{name: np.asarray(value) for name, (value, _) in beside.items()}
        )
    x = x.rechunk(dict.fromkeys(range(1, x.ndim), -1))
    axes = tuple(range(x.ndim))
    arguments, names, same, none = [x, axes], [], {}, {}
    for name, (value, one) in beside.items():
        if not _of_each(value.shape, one, x.shape[0], name):
            same[name] = none[name] = np.asarray(value)
            continue
        none[name] = np.empty((0, *value.shape[1:]), value.dtype)
        if not is_lazy(value):
            value = da.from_array(value, chunks=(x.chunks[0], *value.shape[1:]))
        value = value.rechunk(dict.fromkeys(range(1, value.ndim), -1))
        own = tuple(x.ndim + len(names) * x.ndim + i for i in range(value.ndim - 1))
        names.append(name)
        arguments += [value, (0, *own)]
    ask(np.zeros((0, *x.shape[1:]), x.dtype), **none)  # refuses now, not in a worker

    def block(points, *others):
        return ask(points, **same, **dict(zip(names, others, strict=True)))

    return da.blockwise(
        block,
        axes if like_points else (0,),
        *arguments,
        dtype=dtype,
        meta=np.empty((0,) * (x.ndim if like_points else 1), dtype),
        concatenate=True,
        align_arrays=True,
    )


def _of_each(shape, one, n, name):
    """Return whether an array has a row for each of n points, or not but one for all.

    n is NaN, as Dask has it, where nobody knows.
    """
    if shape == one or (one == (1,) and shape == ()):
        return False
    rows, rest = shape[:1], shape[1:]
    if (
        rows
        and rest in (one, () if one == (1,) else one)
        and (rows[0] == n or np.isnan(n + rows[0]))
    ):
        return True
    each, every = ", ".join(map(str, (n, *one))), "a single one" if one == () else str(one)
    raise ValueError(
        f"{name}: must have shape ({each}{'' if one else ','}), a row for each point, or {every} "
        f"for all; its shape is {shape}"
    )
