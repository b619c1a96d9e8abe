"""Types of the extension module. The package's functions and classes are what to use."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__version__: str

class FileError(ValueError): ...

@final
class Flow:
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def box(self) -> tuple[float, ...] | None: ...
    @property
    def k_range(self) -> tuple[float, float] | None: ...
    @property
    def dim(self) -> int: ...
    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def n_layers(self) -> int: ...
    @property
    def n_classes(self) -> int: ...
    @property
    def n_conditions(self) -> int: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def slices(self) -> int: ...
    @property
    def mask(self) -> NDArray[np.bool_] | None: ...
    @property
    def range(self) -> NDArray[np.float64]: ...
    @property
    def note(self) -> str: ...
    @property
    def temperature(self) -> float: ...
    @property
    def unfinished(self) -> bool: ...
    @property
    def noise_condition(self) -> bool: ...
    @property
    def condition_field(self) -> bool: ...
    def evaluate_density(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        condition_field: ArrayLike | None = None,
        draws: int = 1,
        seed: int = 0,
    ) -> Any: ...
    def evaluate_at(
        self,
        x: ArrayLike,
        y: ArrayLike,
        labels: ArrayLike | None = None,
        condition_field: ArrayLike | None = None,
        draws: int = 1,
        seed: int = 0,
    ) -> NDArray[np.float64]: ...
    def forward(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        condition_field: ArrayLike | None = None,
    ) -> tuple[NDArray[Any], Any]: ...
    def inverse(
        self,
        z: ArrayLike,
        y: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        condition_field: ArrayLike | None = None,
    ) -> tuple[NDArray[Any], Any]: ...
    def score(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        condition_field: ArrayLike | None = None,
    ) -> tuple[NDArray[Any], Any]: ...
    def score_parameters(
        self,
        x: ArrayLike,
        y: ArrayLike,
        labels: None = None,
        condition_field: ArrayLike | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def sample(
        self,
        n: int,
        y: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        seed: int = 0,
        first: int = 0,
        condition_field: ArrayLike | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.float64]]: ...
    def calibrate(
        self,
        x: ArrayLike,
        y: ArrayLike,
        simulation: ArrayLike,
        width: float,
        seed: int = 0,
        condition_field: ArrayLike | None = None,
        others: tuple[Flow, ...] = (),
        weights: ArrayLike | None = None,
    ) -> tuple[Flow, float, float, float, float]: ...
    def truncate(self, n_layers: int) -> Flow: ...
    def history(self) -> NDArray[np.float64]: ...
    def parameters(self, layer: int) -> NDArray[np.float64]: ...
    def with_note(self, note: str) -> Flow: ...
    def to_bytes(self) -> bytes: ...
    def save(self, path: str | bytes | PathLike[Any]) -> None: ...
    def __copy__(self) -> Flow: ...
    def __deepcopy__(self, memo: Any, /) -> Flow: ...

def gis_fit(
    *,
    data_train: ArrayLike,
    data_validate: ArrayLike | None = None,
    weight_train: ArrayLike | None = None,
    weight_validate: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    labels_validate: ArrayLike | None = None,
    n_classes: int = 0,
    flow: Flow | None = None,
    bounds: ArrayLike | None = None,
    image: tuple[int, int, int] | None = None,
    scratch: str | bytes | PathLike[Any] | None = None,
    stream: bool = False,
    progress: Callable[..., object] | None = None,
    warn: Callable[[str], object] | None = None,
    checkpoint: str | bytes | PathLike[Any] | None = None,
    note: str | None = None,
    ranks: tuple[Callable[[memoryview], object], int, int, int, int] | None = None,
    **options: Any,
) -> Flow: ...
def ranks_first_row(rows: int, d: int, bits: int, rank: int, size: int) -> int: ...
def sig_fit(
    *,
    data_train: ArrayLike,
    weight_train: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    n_classes: int = 0,
    flow: Flow | None = None,
    image: tuple[int, int, int] | None = None,
    schedule: ArrayLike | None = None,
    bounds: ArrayLike | None = None,
    scratch: str | bytes | PathLike[Any] | None = None,
    stream: bool = False,
    callback: Callable[[int, NDArray[Any]], object] | None = None,
    progress: Callable[..., object] | None = None,
    warn: Callable[[str], object] | None = None,
    checkpoint: str | bytes | PathLike[Any] | None = None,
    note: str | None = None,
    ranks: tuple[Callable[[memoryview], object], int, int, int, int] | None = None,
    **options: Any,
) -> Flow: ...
def sig_schedule(
    height: int, width: int, channels: int
) -> list[tuple[int, tuple[int, int, int], int]]: ...
def symmetric_fit(
    *,
    data_train: ArrayLike,
    data_validate: ArrayLike | None = None,
    y_train: ArrayLike | None = None,
    y_validate: ArrayLike | None = None,
    condition_field: ArrayLike | None = None,
    condition_field_validate: ArrayLike | None = None,
    box: ArrayLike,
    mask: ArrayLike | None = None,
    fill_pixel: ArrayLike | None = None,
    fill_neighbour: ArrayLike | None = None,
    fill_range: ArrayLike | None = None,
    fill_weight: ArrayLike | None = None,
    fill_spread: ArrayLike | None = None,
    fill_moments: ArrayLike | None = None,
    noise_map: ArrayLike | None = None,
    noise_k: ArrayLike | None = None,
    noise_power: ArrayLike | None = None,
    progress: Callable[..., object] | None = None,
    warn: Callable[[str], object] | None = None,
    checkpoint: str | bytes | PathLike[Any] | None = None,
    note: str | None = None,
    ranks: tuple[Callable[[memoryview], object], int, int, int, int] | None = None,
    **options: Any,
) -> Flow: ...
def train(
    *,
    flow: Flow,
    data_train: ArrayLike,
    data_validate: ArrayLike | None = None,
    y_train: ArrayLike | None = None,
    y_validate: ArrayLike | None = None,
    condition_field: ArrayLike | None = None,
    condition_field_validate: ArrayLike | None = None,
    weight_train: ArrayLike | None = None,
    weight_validate: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    labels_validate: ArrayLike | None = None,
    frozen: ArrayLike | None = None,
    noise_map: ArrayLike | None = None,
    noise_k: ArrayLike | None = None,
    noise_power: ArrayLike | None = None,
    progress: Callable[..., object] | None = None,
    warn: Callable[[str], object] | None = None,
    checkpoint: str | bytes | PathLike[Any] | None = None,
    note: str | None = None,
    **options: Any,
) -> Flow: ...
def compose(
    layers: Sequence[tuple[Any, ...]],
    *,
    shape: Sequence[int],
    box: Sequence[float] | None = None,
    n_classes: int = 0,
    bits: int = 64,
    flow: Flow | None = None,
) -> Flow: ...
def options(fit: str, /, **given: Any) -> dict[str, Any]: ...
def from_bytes(bytes: bytes | bytearray | memoryview, /) -> Flow: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def work(threads: int = 0, stopper: Callable[[], object] | None = None) -> None: ...
def save_bytes(
    path: str | bytes | PathLike[Any], bytes: bytes | bytearray | memoryview
) -> None: ...
def fft_measure(on: bool) -> None: ...
def save_wisdom(path: str | bytes | PathLike[Any]) -> None: ...
def load_wisdom(path: str | bytes | PathLike[Any]) -> None: ...
