"""Fits and evaluation on the ranks of a cluster, by mpi4py: most need no more than `comm=`."""

from __future__ import annotations

import math
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from pyflow import _arguments, _core

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

__all__ = ["RankError", "Ranks", "gathered"]


MOST = 1 << 30  # bytes of rows that a rank passes to others, or is passed
SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]


def __dir__():
    return __all__


class RankError(RuntimeError):
    """Another rank has failed, and with it what all ranks do together: its message is here.

    Examples
    --------
    >>> from pyflow.mpi import RankError
    >>> raise RankError("rank 2: ValueError: data_train: row 7, column 0 is NaN")
    Traceback (most recent call last):
        ...
    pyflow.mpi.RankError: rank 2: ValueError: data_train: row 7, column 0 is NaN
    """


class Ranks:
    """What ranks do together, as a context: if one of them fails, all do, and none waits for it.

    Before ranks exchange anything, each says whether it has come so far. One that has left the
    context by an exception says that instead, and the others raise a `RankError` with its message.
    What ends a process itself (a crash, a kill) is for `mpiexec` to see.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        Of mpi4py. All its ranks must enter and leave the context, and call what is below in the
        same order.

    Examples
    --------
    >>> from pyflow.mpi import Ranks
    >>> from mpi4py import MPI  # doctest: +SKIP
    >>> with Ranks(MPI.COMM_WORLD) as ranks:  # doctest: +SKIP
    ...     rows = sum(ranks.gather(len(x)))
    """

    def __init__(self, comm: Any):
        if not (callable(getattr(comm, "allgather", None)) and hasattr(comm, "Allreduce")):
            raise TypeError(f"comm: must be a communicator of mpi4py, not {comm!r}")
        self.comm, self.rank, self.size = comm, comm.Get_rank(), comm.Get_size()
        self._ended, self._signals = False, _Signals()

    def __enter__(self) -> Ranks:
        self._signals.take_over()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if self._ended:  # all know
                return
            if error is None:
                self._agree("the end")
            else:
                self._ended = True
                with self._signals.whole_step():
                    self.comm.allgather((None, f"{kind.__name__}: {error}"))
        finally:
            self._signals.give_back()

    def _agree(self, step, value=None):
        """Exchange values of one step; raise what a rank has raised that did not come to it."""
        with self._signals.whole_step():
            everyone = self.comm.allgather((step, value))
        for rank, (other, what) in enumerate(everyone):
            if other is None:
                self._ended = True
                raise RankError(f"rank {rank}: {what}")
        if any(other != step for other, _ in everyone):
            self._ended = True
            raise RankError(f"ranks do different things: {sorted({o for o, _ in everyone})}")
        return [what for _, what in everyone]

    def gather(self, value: Any, name: str = "a value") -> list[Any]:
        """Return the values of all ranks, small ones that can be pickled, in their order.

        What is called otherwise on other ranks is not mixed up with it, but an error.
        """
        return self._agree(name, value)

    def same(self, name: str, value: Any) -> Any:
        """Return a value that must be the same on all ranks."""
        self.same_each({name: value})
        return value

    def same_each(self, values: dict[str, Any]) -> None:
        """Refuse values, by their names, that are not the same on all ranks."""
        everyone = self.gather(values, "what must be the same: " + ", ".join(values))
        for name in dict.fromkeys(name for one in everyone for name in one):
            each = [one.get(name) for one in everyone]
            if any(value != each[0] for value in each):
                told = ", ".join(f"{v!r} on rank {i}" for i, v in enumerate(each[:8]))
                raise ValueError(f"{name}: must be the same on all ranks, not {told}")

    def sum(self, memory: memoryview) -> None:
        """Add int64 numbers over ranks, in place: what the core asks for."""
        from mpi4py import MPI

        numbers = np.frombuffer(memory, np.int64)
        with self._signals.whole_step():
            self._agree(f"sum of {len(numbers)}")
            self.comm.Allreduce(MPI.IN_PLACE, numbers, MPI.SUM)

    def _alike(self, x, name):
        """Check rows of all ranks; return where those of each begin, and the end of all."""
        shape = x.shape[1] if x.ndim == 2 else x.shape[1:]
        self.same_each({f"{name}: its columns": shape, f"{name}: its dtype": str(x.dtype)})
        return np.cumsum([0, *self.gather(len(x), f"rows of {name}")])

    def whole(self, x: NDArray[Any], name: str) -> NDArray[Any]:
        """Return the rows of all ranks, one after another: the same on each.

        Parameters
        ----------
        x : (n, ...) array
            The rows that this rank was given: any number, also none.
        name : str
            In messages.

        Returns
        -------
        (sum of all n, ...) array
        """
        ends = self._alike(x, name)
        found = np.empty((ends[-1], *x.shape[1:]), x.dtype)
        found[ends[self.rank] : ends[self.rank + 1]] = x
        step = max(MOST // max(found[:1].nbytes, 1), 1)
        with self._signals.whole_step():
            self._agree(f"all rows of {name}")
            for rank in range(self.size):
                for first in range(ends[rank], ends[rank + 1], step):
                    rows = found[first : min(first + step, ends[rank + 1])]
                    self.comm.Bcast(rows.reshape(-1).view(np.uint8), rank)
        return found

    def part(self, x: Any, name: str, columns: int, bits: int) -> tuple[Any, int]:
        """Return this rank's part of the rows of all ranks, and how many all have.

        Parameters
        ----------
        x : (n, ...) array, or what can be cut as such
            The rows that this rank was given: those of all ranks, one after another, are the whole.
            Any number, also none.
        name : str
            In messages.
        columns : int
            Of a table for GIS; 0 for images, and for SIG.
        bits : int
            Of the flow's numbers, 32 or 64.

        Returns
        -------
        rows : (m, ...) object that can be cut
            From row `rows.first` of all on, as `_core.ranks_first_row` has it. Nothing is copied
            but the few rows that other ranks gave.
        n_all : int
        """
        ends = self._alike(x, name)
        n_all, size = int(ends[-1]), self.size
        cuts = [_core.ranks_first_row(n_all, columns, bits, r, size) for r in range(size + 1)]
        first = ends[self.rank]
        lo, hi = max(cuts[self.rank], first), min(cuts[self.rank + 1], first + len(x))
        own = (lo - first, hi - first) if lo < hi else (0, 0)
        kept = own[1] - own[0]
        passed = max(len(x), cuts[self.rank + 1] - cuts[self.rank]) - kept
        if passed * math.prod(x.shape[1:]) * x.dtype.itemsize > MOST:
            raise ValueError(f"{name}: ranks have too different numbers of rows to even them out")
        sent = [None] * size
        for rank in range(size):
            lo, hi = max(cuts[rank], first), min(cuts[rank + 1], first + len(x))
            if lo < hi and rank != self.rank:
                sent[rank] = np.asarray(x[lo - first : hi - first])
        with self._signals.whole_step():
            self._agree(f"passed rows of {name}")
            got = self.comm.alltoall(sent)
        before = [rows for rows in got[: self.rank] if rows is not None]
        after = [rows for rows in got[self.rank + 1 :] if rows is not None]
        return _Rows(before, x, own, after, cuts[self.rank]), n_all


class _Signals:
    """Signals that the caller handles, Ctrl-C among them: none interrupts a step that all take.

    Half of it would leave the other ranks waiting.
    """

    def __init__(self):
        self.handlers, self.held, self.depth = {}, {}, 0

    def heard(self, number, frame):
        if self.depth:
            self.held[number] = frame
        else:
            self.handlers[number](number, frame)

    def take_over(self):
        """Stand before the caller's handlers, which Python calls in the main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if callable(handler := signal.getsignal(number)):
                self.handlers[number] = handler
                signal.signal(number, self.heard)

    def give_back(self):
        for number, handler in self.handlers.items():
            if signal.getsignal(number) == self.heard:
                signal.signal(number, handler)

    @contextmanager
    def whole_step(self):
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            while self.held and not self.depth:
                number = max(self.held, key=lambda number: number != signal.SIGINT)
                self.handlers[number](number, self.held.pop(number))  # Ctrl-C last: it raises


class _Rows:
    """Some of the rows of x, with others before and after them: rows that can be cut."""

    def __init__(self, before, x, own, after, first):
        self.dtype, self.first = x.dtype, first
        self.pieces = [(rows, 0, len(rows)) for rows in before]
        self.pieces += [(x, *own)] + [(rows, 0, len(rows)) for rows in after]
        self.starts = np.cumsum([0, *(end - start for _, start, end in self.pieces)])
        self.shape = (int(self.starts[-1]), *x.shape[1:])
        self.ndim = len(self.shape)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        lo, hi, _ = key.indices(len(self))
        parts = [np.empty((0, *self.shape[1:]), self.dtype)]
        for (x, start, end), at in zip(self.pieces, self.starts, strict=False):
            a, b = max(lo - at, 0), min(hi - at, end - start)
            if a < b:
                parts.append(np.asarray(x[int(start + a) : int(start + b)]))
        return parts[-1] if len(parts) == 2 else np.concatenate(parts)


def gathered(comm: Any, values: ArrayLike) -> NDArray[Any]:
    """Return what all ranks have, one after another: densities of each rank's own rows, say.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    values : (n, ...) array-like
        Of this rank: any number, also none.

    Returns
    -------
    (sum of all n, ...) array
        The same on every rank.

    Raises
    ------
    RankError
        If another rank has failed.

    Examples
    --------
    >>> from pyflow.mpi import gathered
    >>> from mpi4py import MPI  # doctest: +SKIP
    >>> logp = gathered(MPI.COMM_WORLD, flow.evaluate_density(own_rows))  # doctest: +SKIP
    """
    with Ranks(comm) as ranks:
        values = np.asarray(_arguments.rows(values, "values"))
        if not values.ndim:
            raise ValueError("values: must have shape (n, ...); their shape is ()")
        return ranks.whole(values, "values")
