"""How the Fourier transforms of symmetric flows are planned, by FFTW."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyflow import _core
from pyflow._arguments import boolean

if TYPE_CHECKING:
    import os

__all__ = ["load_wisdom", "measure_ffts", "save_wisdom"]


def __dir__():
    return __all__


def measure_ffts(on: bool) -> None:
    """Say whether Fourier transforms are planned by measuring, or by estimate.

    Estimated plans are the default: they are the same every time, so that the same seed gives the
    same flow, bit for bit. Measured plans may differ from one process to the next, and with them
    the last bits of every result. To measure takes up to a second for a mesh. What it saved of the
    time of the transforms alone, on one thread of an AMD Zen 4 core in float32: less than a tenth
    for 128^2, 1024^2 and 128^3 pixels, a quarter for 256^2, a fifth for 1000^2.

    It holds for the whole process and for flows fitted, loaded or copied from now on.

    Parameters
    ----------
    on : bool

    Examples
    --------
    >>> import pyflow
    >>> x = pyflow.fields.gaussian_field(1.0, (16, 18), 20, seed=1)
    >>> pyflow.measure_ffts(True)
    >>> flow = pyflow.SymmetricFlow(x, epochs=2, verbose=False)
    >>> pyflow.measure_ffts(False)
    """
    _core.fft_measure(boolean("on", on))


def save_wisdom(path: str | os.PathLike[str]) -> None:
    """Write to a file what FFTW has measured in this process, for `load_wisdom` in another.

    It is FFTW's own text, for this version of FFTW and this kind of machine.

    Parameters
    ----------
    path : str or os.PathLike
        Is replaced if it is there.

    Raises
    ------
    OSError
        If it cannot be written.

    Examples
    --------
    >>> import os, tempfile, pyflow
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "wisdom")
    ...     pyflow.save_wisdom(path)
    ...     pyflow.load_wisdom(path)
    """
    _core.save_wisdom(path)


def load_wisdom(path: str | os.PathLike[str]) -> None:
    """Read what `save_wisdom` wrote: measured plans then take no time, and are the same ones.

    It serves flows fitted, loaded or copied from now on, after `measure_ffts(True)`. Estimated
    plans stay what they are.

    Parameters
    ----------
    path : str or os.PathLike

    Raises
    ------
    OSError
        If it cannot be read.
    FileError
        If it is damaged, or of another version of FFTW.

    Examples
    --------
    See `save_wisdom`.
    """
    _core.load_wisdom(path)
