"""Questions about the points of Dask arrays: answered block by block, when Dask says."""

import numpy as np


def is_lazy(x):
    """Whether x is a Dask array, which nobody has to import to ask."""
    return type(x).__module__.startswith("dask.array")


def of_blocks(ask, x, own_shape, like_points, dtype, **beside):
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
    **beside
        y or condition_field: of all points, or one for each, as an array of any kind; or None.
    """
    import dask.array as da

    if x.shape == tuple(own_shape):  # one point: nothing to spread
        return ask(np.asarray(x), **{k: v for k, v in beside.items() if v is not None})
    x = x.rechunk(dict.fromkeys(range(1, x.ndim), -1))
    if not any(v is not None for v in beside.values()):
        ask(np.zeros((0, *x.shape[1:]), x.dtype))  # refuses another shape now, not in a worker
    axes = tuple(range(x.ndim))
    arguments, names, same = [x, axes], [], {}
    for name, value in beside.items():
        if value is None:
            continue
        width = np.shape(value)
        each = is_lazy(value) or (width[:1] == x.shape[:1] and width != tuple(own_shape))
        if not each:
            same[name] = value
            continue
        if not is_lazy(value):
            value = da.from_array(np.asarray(value), chunks=(x.chunks[0], *width[1:]))
        value = value.rechunk(dict.fromkeys(range(1, value.ndim), -1))
        own = tuple(x.ndim + len(names) * x.ndim + i for i in range(value.ndim - 1))
        names.append(name)
        arguments += [value, (0, *own)]

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
