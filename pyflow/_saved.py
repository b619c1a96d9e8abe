"""What all fitted models have in common: they never change, and are the bytes of their file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from pyflow import _core

if TYPE_CHECKING:
    import os

    import numpy as np
    from typing_extensions import Self


class Saved:
    """A fitted model around its object in the core: what `Model` and `FieldModel` are made from."""

    __slots__ = ("_core", "_note")

    _kind: ClassVar[type]  # the class of `_core`
    _made_by: ClassVar[str]  # the message for an object of another class
    _not_of_kind: ClassVar[str]  # the message for the bytes of another kind

    def __init__(self, core: Any):
        if not isinstance(core, self._kind):
            raise TypeError(self._made_by)
        self._core = core
        self._note = json.loads(core.note or "{}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self._core.dtype

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, for `pyflow.load`.

        The file holds numbers and a JSON header, no code, and ends with a check sum. It is written
        under another name and then renamed: whatever happens, `path` holds the old file or the new
        one.

        Parameters
        ----------
        path : str or os.PathLike

        Raises
        ------
        OSError
            If it cannot be written.

        Examples
        --------
        >>> import os, tempfile, numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> model = pyflow.GIS(x, max_layers=2, verbose=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(os.path.join(folder, "model.pf"))
        ...     pyflow.load(os.path.join(folder, "model.pf")) == model
        True

        >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 10, seed=1)
        >>> flow = pyflow.SymmetricFlow(x, epochs=2, verbose=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     flow.save(os.path.join(folder, "flow.pf"))
        ...     pyflow.load(os.path.join(folder, "flow.pf")) == flow
        True
        """
        self._core.save(path)

    def to_bytes(self) -> bytes:
        """Return what a saved file holds.

        Examples
        --------
        >>> import numpy as np, pyflow
        >>> x = np.random.default_rng(0).normal(size=(500, 2))
        >>> model = pyflow.GIS(x, max_layers=2, verbose=False)
        >>> pyflow.Model.from_bytes(model.to_bytes()) == model
        True

        >>> x = pyflow.fields.gaussian_field(lambda k: 1 / k, (8, 8), 10, seed=1)
        >>> flow = pyflow.SymmetricFlow(x, epochs=0, verbose=False)
        >>> pyflow.FieldModel.from_bytes(flow.to_bytes()) == flow
        True
        """
        return self._core.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """Return the model that `to_bytes` gave these bytes for.

        Raises
        ------
        FileError
            If they are cut short, altered, of a newer format, or no model of this class.

        Examples
        --------
        >>> import pyflow
        >>> pyflow.Model.from_bytes(b"something else")
        Traceback (most recent call last):
            ...
        pyflow.FileError: this is not a pyflow model: it begins with other bytes
        """
        core = _core.from_bytes(data)
        if not isinstance(core, cls._kind):
            raise _core.FileError(cls._not_of_kind)
        return cls(core)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Saved):
            return NotImplemented
        return self._core is other._core or self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __reduce__(self):
        return self.from_bytes, (self.to_bytes(),)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self
