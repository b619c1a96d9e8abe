"""How many threads pyflow uses."""

from __future__ import annotations

from pyflow import _core
from pyflow._arguments import integer

MOST = 1024

__all__ = ["get_num_threads", "set_num_threads"]


def __dir__():
    return __all__


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that fits and evaluations may use.

    Results are the same, bit for bit, for any number. It holds for the whole process; in a child
    made by `fork` one thread is used whatever was set.

    Parameters
    ----------
    n : int or None
        At least 1; None restores the default: `OMP_NUM_THREADS` if that is set, otherwise the cores
        that this process may use.

    Examples
    --------
    >>> import pyflow
    >>> pyflow.set_num_threads(1)
    >>> pyflow.get_num_threads()
    1
    >>> pyflow.set_num_threads(None)
    """
    _core.set_num_threads(0 if n is None else integer("n", n, 1, MOST))


def get_num_threads() -> int:
    """Return the number of threads that fits and evaluations may use.

    Examples
    --------
    >>> import pyflow
    >>> pyflow.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()
