"""Folders of images, and arrays of images that NumPy saved."""

from __future__ import annotations

import math
import os
import warnings
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from pyflow import _arguments
from pyflow._core import FileError
from pyflow.datasets.idx import INFLATED

if TYPE_CHECKING:
    from typing import Literal

    from numpy.typing import NDArray

    from pyflow.datasets.idx import Images, Labels, Path

FORMATS = {  # as Pillow calls them; not all that it knows: some start other programs
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
ENDINGS = tuple(end for ends in FORMATS.values() for end in ends)


def __dir__():
    return ["image_folder", "npy"]


@overload
def image_folder(
    path: Path,
    size: int | None = None,
    crop: int | None = None,
    channels: int = 3,
    limit: int | None = None,
    *,
    labels: Literal[False] = False,
) -> Images: ...


@overload
def image_folder(
    path: Path,
    size: int | None = None,
    crop: int | None = None,
    channels: int = 3,
    limit: int | None = None,
    *,
    labels: Literal[True],
) -> tuple[Images, Labels, list[str]]: ...


def image_folder(path, size=None, crop=None, channels=3, limit=None, *, labels=False):
    """Return the images in a folder and the folders within it, in the order of their paths.

    Files that end in .bmp, .gif, .jpg, .jpeg, .pbm, .pgm, .png, .pnm, .ppm, .tif, .tiff or .webp
    are read, each turned as its camera says; other files, and hidden ones, are left out. An image
    is cut to its central square of `crop` pixels, then shrunk by averages over areas, or enlarged
    bicubically, to `size` pixels. It needs Pillow: `pip install "pyflow-sinf[images]"`.

    CelebA, whose images are 178 pixels wide and 218 high, is most often cut to 148 or to 140 pixels
    and shrunk to 64: `image_folder("img_align_celeba", size=64, crop=148)`.

    Parameters
    ----------
    path : str or os.PathLike
    size : int, optional
        Height and width of the result. Default: those of the images after `crop`, which must then
        be the same for all.
    crop : int, optional
        Height and width of the central square. Default: the largest there is if `size` is given,
        so that nothing is distorted; else the whole image.
    channels : {3, 1}
        Colour, or its luminance (ITU-R 601-2). What is transparent counts as opaque.
    limit : int, optional
        Read the first so many images alone; with `labels`, of every class.
    labels : bool
        Whether the folders directly in `path` are classes. Images in `path` itself are an error
        then.

    Returns
    -------
    images : (n, height, width, channels) uint8 array
    labels : (n,) int64 array
        With `labels`: the place of an image's class among the names.
    names : list of str
        With `labels`: the names of the folders, sorted.

    Raises
    ------
    FileError
        If an image is damaged, smaller than `crop`, has 16 or 32 bits a channel, or is not of the
        shape of those before it. The message begins with its path.
    FileNotFoundError
        If there are no images.
    ImportError
        If Pillow is not installed.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np, pyflow
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         pathlib.Path(folder, name).mkdir()
    ...         Image.new("RGB", (178, 218), "red").save(pathlib.Path(folder, name, "1.png"))
    ...     faces = pyflow.datasets.image_folder(folder, size=64, crop=148)
    ...     x, y, names = pyflow.datasets.image_folder(folder, 32, labels=True)
    >>> faces.shape, x.shape, y.tolist(), names
    ((2, 64, 64, 3), (2, 32, 32, 3), [0, 1], ['cat', 'dog'])
    """
    size = size if size is None else _arguments.integer("size", size, 1, 65535)
    crop = crop if crop is None else _arguments.integer("crop", crop, 1, 65535)
    limit = limit if limit is None else _arguments.integer("limit", limit, 1)
    if _arguments.integer("channels", channels, 1, 3) == 2:
        raise ValueError("channels: must be 3 or 1, not 2")
    path = os.fspath(path)
    if not _arguments.boolean("labels", labels):
        return _images(_walk(path, limit), size, crop, channels)
    names, files, y = _classes(path), [], []
    for k, name in enumerate(names):
        files += _walk(os.path.join(path, name), limit)
        y += [k] * (len(files) - len(y))
    return _images(files, size, crop, channels), np.array(y, np.int64), names


def _classes(path):
    names = []
    for name in sorted(os.listdir(path)):
        if name.startswith("."):
            continue
        if os.path.isdir(os.path.join(path, name)):
            names.append(name)
        elif name.lower().endswith(ENDINGS):
            raise ValueError(f"labels: {os.path.join(path, name)} is in no folder of a class")
    if not names:
        raise FileNotFoundError(f"{path}: has no folders, one for each class")
    return names


def _walk(path, limit):
    """Return the paths of the images in a folder and below, sorted."""

    def fail(error):
        raise error

    files = []
    for folder, below, names in os.walk(path, onerror=fail):
        below[:] = [name for name in below if not name.startswith(".")]
        files += [
            os.path.join(folder, name)
            for name in names
            if name.lower().endswith(ENDINGS) and not name.startswith(".")
        ]
    if not files:
        raise FileNotFoundError(f"{path}: has no images; those end in {', '.join(ENDINGS)}")
    return sorted(files)[:limit]


def _images(files, size, crop, channels):
    """Return (n, height, width, channels) of n files."""
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError:
        raise ImportError(
            'pyflow.datasets.image_folder needs Pillow: pip install "pyflow-sinf[images]"'
        ) from None
    images = None
    for i, path in enumerate(files):
        with open(path, "rb") as file:
            try:
                with PIL.Image.open(file, formats=list(FORMATS)) as image:
                    if image.mode.startswith(("I", "F")):
                        raise FileError(f"has more than 8 bits a channel: mode {image.mode}")
                    image = PIL.ImageOps.exif_transpose(image)
                    image = _shaped(image.convert("RGB" if channels == 3 else "L"), size, crop)
            except FileError as error:
                raise FileError(f"{path}: {error}") from None
            except Exception as error:  # a decoder raises whatever it meets
                raise FileError(f"{path}: is damaged, or no image: {error}") from None
        if images is None:
            images = np.empty((len(files), image.height, image.width, channels), np.uint8)
        if (image.height, image.width) != images.shape[1:3]:
            raise FileError(
                f"{path}: is {image.width} x {image.height} pixels, and those before it "
                f"{images.shape[2]} x {images.shape[1]}: give size"
            )
        images[i] = np.asarray(image).reshape(images.shape[1:])
    return images


def _shaped(image, size, crop):
    """Return an image cut to its central square and scaled."""
    from PIL.Image import Resampling

    width, height = image.size
    if crop is None and size is not None:
        crop = min(width, height)
    if crop is not None:
        if crop > min(width, height):
            raise FileError(f"is {width} x {height} pixels, less than crop={crop}")
        left, top = (width - crop) // 2, (height - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
    if size in (None, crop):
        return image
    return image.resize((size, size), Resampling.BOX if size < crop else Resampling.BICUBIC)


def npy(path: Path, key: str | None = None) -> NDArray[Any]:
    """Return the images in a file that `numpy.save` or `numpy.savez` wrote.

    What `numpy.save` wrote is mapped into memory: it may be larger than that, and is read as it is
    used. Nothing is unpickled.

    Parameters
    ----------
    path : str or os.PathLike
    key : str, optional
        Which array of an .npz file. Default: the only one.

    Returns
    -------
    (n, height, width, channels) array, read-only if mapped
        Of the dtype in the file. Images without a last axis get one, of a single channel.

    Raises
    ------
    FileError
        If the file is damaged, or holds no real numbers of shape (n, height, width) or (n, height,
        width, channels). What looks like channels first, (n, 3, height, width), is refused.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np, pyflow
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "digits.npy")
    ...     np.save(path, np.zeros((10, 8, 8), np.uint8))
    ...     x = pyflow.datasets.npy(path)
    >>> x.shape, x.dtype
    ((10, 8, 8, 1), dtype('uint8'))
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        start = file.read(6)
        file.seek(0)
        try:
            if start == b"\x93NUMPY":
                if key is not None:
                    raise _KeyError(f"key: {path} holds one array, without a name")
                layout = _layout(file, os.fstat(file.fileno()).st_size)
                x = np.memmap(file, mode="r", offset=file.tell(), **layout)
            elif start[:4] == b"PK\x03\x04":
                x = _member(file, path, key)
            else:
                raise FileError("is neither an .npy nor an .npz file")
        except _KeyError as error:
            raise ValueError(*error.args) from None
        except MemoryError:
            raise
        except Exception as error:  # zipfile and NumPy raise whatever they meet
            what = "" if isinstance(error, FileError) else "is damaged: "
            raise FileError(f"{path}: {what}{error}") from None
    if x.dtype.kind not in "biuf":
        raise FileError(f"{path}: must hold real numbers; its dtype is {x.dtype}")
    if x.ndim not in (3, 4) or 0 in x.shape[1:]:
        raise FileError(
            f"{path}: must have shape (n, height, width) or (n, height, width, channels); "
            f"its shape is {x.shape}"
        )
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] > 4:
        raise FileError(
            f"{path}: its shape {x.shape} looks like channels first; "
            'numpy.load(path, mmap_mode="r").transpose(0, 2, 3, 1) puts them last'
        )
    return x if x.ndim == 4 else x[..., None]


class _KeyError(ValueError):
    """That the argument key is wrong, not the file."""


def _member(file, path, key):
    """Return an array of an .npz file."""
    import zipfile  # here, because importing pyflow should not take longer for it

    with zipfile.ZipFile(file) as archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        known = ", ".join(map(repr, infos))
        if key is None and len(infos) != 1:
            raise _KeyError(f"key: {path} holds {len(infos)} arrays: give one of {known}")
        if key is not None and key not in infos:
            raise _KeyError(f"key: {path} has no {key!r}; it has {known}")
        info = infos[key] if key is not None else next(iter(infos.values()))
        if info.file_size > INFLATED * os.fstat(file.fileno()).st_size:
            raise FileError(f"is cut short: {info.filename} would have {info.file_size} bytes")
        with archive.open(info) as member:
            layout = _layout(member, info.file_size)
            data = bytearray(info.file_size - member.tell())
            if member.readinto(data) < len(data) or member.read(1):
                raise FileError(f"is cut short, within {info.filename}")
    return np.ndarray(buffer=data, **layout)


def _layout(file, size):
    """Read the header of an .npy file of that many bytes; the array must be what follows."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise FileError(f"is of NPY's version {version}, which arrays of numbers are not")
    with warnings.catch_warnings():  # that Python 2 wrote it
        warnings.simplefilter("ignore")
        read = getattr(np.lib.format, "read_array_header_{}_{}".format(*version))
        shape, fortran, dtype = read(file)
    states = dtype.itemsize * math.prod(shape)
    follow = size - file.tell()
    if dtype.hasobject or states != follow:
        raise FileError(
            f"must hold numbers: its header states {dtype} of shape {shape}, {states} bytes, and "
            f"{follow} follow"
        )
    return {"shape": shape, "dtype": dtype, "order": "F" if fortran else "C"}
