"""Folders of images, arrays that NumPy saved, and crops of photographs."""

import io
import sys
import zipfile

import numpy as np
import pytest
from hostile import fuzz, refused
from numpy.testing import assert_array_equal

from pyflow import FileError, datasets
from pyflow.datasets import crops

Image = pytest.importorskip("PIL.Image")


def picture(height=6, width=8, channels=3, seed=0):
    shape = (height, width, channels)[: 2 if channels == 1 else 3]
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def write(path, x=None, **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(picture() if x is None else x).save(path, **options)
    return path


# ---- folders -------------------------------------------------------------------------------------


def test_images_are_read_in_the_order_of_their_paths(tmp_path):
    names = ["10.png", "9.bmp", "a/z.PPM", "b/1.tif", "b/a/1.png"]
    pictures = [picture(seed=i) for i in range(len(names))]
    for name, x in reversed(list(zip(names, pictures, strict=True))):
        write(tmp_path / name, x)
    (tmp_path / "list.csv").write_text("1,2")
    (tmp_path / ".hidden.png").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "1.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    x = datasets.image_folder(tmp_path)
    assert x.dtype == np.uint8
    assert_array_equal(x, pictures)
    assert_array_equal(datasets.image_folder(str(tmp_path), limit=2), x[:2])
    assert_array_equal(datasets.image_folder(tmp_path, limit=99), x)


def test_crops_are_central(tmp_path):
    x = picture(218, 178)
    write(tmp_path / "1.png", x)
    assert_array_equal(datasets.image_folder(tmp_path, crop=148)[0], x[35:183, 15:163])
    assert_array_equal(datasets.image_folder(tmp_path, 140, 140)[0], x[39:179, 19:159])
    assert_array_equal(datasets.image_folder(tmp_path, 178)[0], x[20:198])


def test_sizes(tmp_path):
    x = picture(12, 12)
    write(tmp_path / "1.png", x)
    small = datasets.image_folder(tmp_path, 4)[0]
    means = x.reshape(4, 3, 4, 3, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 1  # averages over areas
    flat = np.full((5, 9, 3), 77, np.uint8)
    write(tmp_path / "1.png", flat)
    for size in (3, 5, 20):
        assert_array_equal(datasets.image_folder(tmp_path, size), np.full((1, size, size, 3), 77))


def test_channels(tmp_path):
    grey = picture(channels=1)
    write(tmp_path / "1.png", grey)
    write(tmp_path / "2.png", np.stack([grey] * 3, axis=-1))
    write(tmp_path / "3.png", np.dstack([grey, grey, grey, picture(channels=1, seed=1)]))
    assert_array_equal(datasets.image_folder(tmp_path, channels=1), [grey[..., None]] * 3)
    assert_array_equal(datasets.image_folder(tmp_path), [np.stack([grey] * 3, axis=-1)] * 3)


def test_images_are_turned_as_their_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    write(tmp_path / "1.png", exif=exif)
    assert_array_equal(datasets.image_folder(tmp_path)[0], np.rot90(picture(), -1))


def test_folders_as_classes(tmp_path):
    for i, name in enumerate(
        ["dog/1.png", "dog/deep/2.png", "cat/3.png", "cat/4.png", "cat/5.png"]
    ):
        write(tmp_path / name, picture(seed=i))
    (tmp_path / "list.csv").write_text("1,2")
    x, y, names = datasets.image_folder(tmp_path, labels=True)
    assert names == ["cat", "dog"]
    assert y.dtype == np.int64
    assert_array_equal(y, [0, 0, 0, 1, 1])
    assert_array_equal(x, [picture(seed=i) for i in (2, 3, 4, 0, 1)])
    x, y, _ = datasets.image_folder(tmp_path, labels=True, limit=2)
    assert_array_equal(y, [0, 0, 1, 1])
    assert_array_equal(x, [picture(seed=i) for i in (2, 3, 0, 1)])
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/none: has no images"):
        datasets.image_folder(tmp_path, labels=True)
    write(tmp_path / "6.png")
    with pytest.raises(ValueError, match=f"^labels: {tmp_path}/6.png is in no folder"):
        datasets.image_folder(tmp_path, labels=True)
    (tmp_path / "dog/deep/2.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/dog/deep: has no folders"):
        datasets.image_folder(tmp_path / "dog/deep", labels=True)


def test_images_of_two_sizes_are_named(tmp_path):
    write(tmp_path / "1.png")
    path = write(tmp_path / "2.png", picture(6, 7))
    with refused(path, "is 7 x 6 pixels, and those before it 8 x 6: give size"):
        datasets.image_folder(tmp_path)
    assert datasets.image_folder(tmp_path, 4).shape == (2, 4, 4, 3)
    (tmp_path / "1.png").unlink()
    with refused(path, "is 7 x 6 pixels, less than crop=7"):
        datasets.image_folder(tmp_path, 4, 7)


def test_broken_images_are_named(tmp_path):
    write(tmp_path / "1.png")
    for end in (".png", ".jpg", ".bmp", ".gif", ".tif", ".ppm", ".webp"):
        path = write(tmp_path / f"2{end}", picture(40, 40))
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], whole[:9], b"text", b""):
            path.write_bytes(content)
            with refused(path, "is damaged, or no image"):
                datasets.image_folder(tmp_path, 4)
        path.unlink()
    for other in ("PCX", "EPS"):  # for which Pillow starts Ghostscript
        with open(path, "wb") as file:
            Image.fromarray(picture()).save(file, other)
        with refused(path, "is damaged, or no image"):
            datasets.image_folder(tmp_path, 4)


def test_altered_images_are_read_or_named(tmp_path):
    path = write(tmp_path / "1.png")
    errors = []
    for altered in fuzz(path.read_bytes(), 200):
        path.write_bytes(altered)
        try:
            assert datasets.image_folder(tmp_path, 4).shape == (1, 4, 4, 3)
        except FileError as error:
            errors.append(str(error).startswith(f"{path}: "))
    assert all(errors)
    assert len(errors) > 50


def test_deep_images_and_bombs_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "1.png", np.full((4, 4), 40000, np.uint16))
    with refused(path, "has more than 8 bits a channel"):
        datasets.image_folder(tmp_path)
    write(path, picture(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with refused(path, "is damaged, or no image: .*decompression bomb"):
        datasets.image_folder(tmp_path)


WRONG = {
    "size": ({"size": 0}, ValueError, "size: must be"),
    "size of two": ({"size": (4, 4)}, TypeError, "size: must be an integer"),
    "crop": ({"crop": -1}, ValueError, "crop: must be"),
    "channels": ({"channels": 2}, ValueError, "channels: must be 3 or 1"),
    "channels 4": ({"channels": 4}, ValueError, "channels: must be"),
    "limit": ({"limit": 0}, ValueError, "limit: must be"),
    "labels": ({"labels": "yes"}, TypeError, "labels: must be True or False"),
}


@pytest.mark.parametrize(("options", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(tmp_path, options, error, message):
    write(tmp_path / "1.png")
    with pytest.raises(error, match=f"^{message}"):
        datasets.image_folder(tmp_path, **options)


def test_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}: has no images"):
        datasets.image_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        datasets.image_folder(tmp_path / "nothing")
    with pytest.raises(NotADirectoryError):
        datasets.image_folder(write(tmp_path / "1.png"))


def test_without_pillow(tmp_path, monkeypatch):
    write(tmp_path / "1.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"needs Pillow: .*pyflow-sinf\[images\]"):
        datasets.image_folder(tmp_path)


# ---- NumPy's files -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "?", "<f4", ">f8", "<i2"])
@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 1), (5, 4, 3, 3), (5, 4, 4, 12), (0, 2, 2)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_gives_what_was_saved(tmp_path, dtype, shape, order):
    x = np.asarray(np.random.default_rng(0).integers(256, size=shape).astype(dtype), order=order)
    images = x if x.ndim == 4 else x[..., None]
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x)
    np.savez_compressed(tmp_path / "two.npz", x=x, y=np.zeros(3))
    for back in (
        datasets.npy(tmp_path / "x.npy"),
        datasets.npy(str(tmp_path / "x.npz")),
        datasets.npy(tmp_path / "two.npz", "x"),
    ):
        assert_array_equal(back, images)
        assert back.dtype == x.dtype
    assert isinstance(datasets.npy(tmp_path / "x.npy"), np.memmap) == (x.size > 0)


def test_which_array_of_npz(tmp_path):
    path = tmp_path / "two.npz"
    np.savez(path, x=np.zeros((2, 3, 3)), y=np.zeros(2))
    with pytest.raises(ValueError, match=f"^key: {path} holds 2 arrays: give one of 'x', 'y'"):
        datasets.npy(path)
    with pytest.raises(ValueError, match=f"^key: {path} has no 'z'; it has 'x', 'y'"):
        datasets.npy(path, "z")
    with refused(path, r"must have shape .*\(2,\)"):
        datasets.npy(path, "y")
    np.save(tmp_path / "one.npy", np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="^key: .*one.npy holds one array, without a name"):
        datasets.npy(tmp_path / "one.npy", "x")


NOT_IMAGES = {
    "objects": (np.full((2, 2, 2), None), ""),
    "text": (np.full((2, 2, 2), "a"), "must hold real numbers"),
    "complex": (np.zeros((2, 2, 2), complex), "must hold real numbers"),
    "records": (np.zeros((2, 2, 2), [("r", "u1")]), "must hold real numbers"),
    "rows": (np.zeros((2, 2)), "must have shape"),
    "five axes": (np.zeros((2, 2, 2, 2, 2)), "must have shape"),
    "no pixels": (np.zeros((2, 0, 2)), "must have shape"),
    "channels first": (np.zeros((2, 3, 8, 8)), ".*channels first"),
}


@pytest.mark.parametrize(("x", "message"), NOT_IMAGES.values(), ids=NOT_IMAGES)
@pytest.mark.parametrize("save", [np.save, np.savez])
def test_arrays_that_are_no_images(tmp_path, x, message, save):
    path = tmp_path / "file.np"
    with open(path, "wb") as file:
        save(file, x)
    with refused(path, message):
        datasets.npy(path)


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_damaged_npy(tmp_path, save):
    with io.BytesIO() as file:
        save(file, picture())
        whole = file.getvalue()
    path = tmp_path / "file"
    for k in (0, 3, 7, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:k])
        with refused(path):
            datasets.npy(path)
    errors = []
    for altered in fuzz(whole, 300):
        path.write_bytes(altered)
        try:
            assert datasets.npy(path).ndim == 4
        except FileError as error:
            errors.append(str(error).startswith(f"{path}: "))
    assert all(errors)
    assert len(errors) > 50
    if save is np.save:
        path.write_bytes(whole + b"\0")
        with refused(path, "must hold numbers: .*and 145 follow"):
            datasets.npy(path)


def npy_header(shape):
    with io.BytesIO() as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file.getvalue()


@pytest.mark.parametrize("shape", [(2**20, 2**10, 2**10), (2**40, 2**40, 2**40), (-1, -1, 9)])
def test_hostile_npy_headers(tmp_path, shape):
    path = tmp_path / "file"
    path.write_bytes(npy_header(shape) + bytes(9))
    with refused(path):
        datasets.npy(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_header(shape) + bytes(9))
    with refused(path):
        datasets.npy(path)


def test_a_hostile_length_in_npz(tmp_path):
    length = 0xF0000000
    path = tmp_path / "file"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_header((1, 1, length - 128)) + bytes(9))
    whole = bytearray(path.read_bytes())
    at = whole.rindex(b"PK\1\2") + 24  # that of the member, in the archive's directory
    whole[at : at + 4] = length.to_bytes(4, "little")
    path.write_bytes(whole)
    with refused(path, f"is cut short: x.npy would have {length} bytes"):
        datasets.npy(path)


def test_npy_never_unpickles(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "mark"), "w"))

    path = tmp_path / "file"
    x = np.empty((1, 1, 1), object)
    x[0, 0, 0] = Attack()
    for save in (np.save, np.savez):
        with open(path, "wb") as file:
            save(file, x)
        with refused(path):
            datasets.npy(path)
    path.write_bytes(x.dumps())
    with refused(path, "is neither an .npy nor an .npz file"):
        datasets.npy(path)
    assert not (tmp_path / "mark").exists()


# ---- photographs ---------------------------------------------------------------------------------


@pytest.fixture
def scenes(monkeypatch):
    """Two photographs whose pixels say where they are: rows in red, columns in green."""
    shapes = {"train": (300, 500), "test": (200, 100)}

    def scene(split):
        height, width = shapes[split]
        rows, columns = np.mgrid[:height, :width] // 2
        blue = np.full((height, width), 100 if split == "train" else 200)
        return [np.stack([rows, columns, blue], axis=-1).astype(np.uint8)]

    monkeypatch.setattr(crops, "_scenes", scene)
    return scene


def test_crops_are_pieces_of_photographs(scenes):
    x = datasets.photographs(400, 16)
    assert_array_equal(x[..., 2], 100)
    step = np.diff(x[..., 0].astype(float), axis=1).mean(axis=(1, 2))  # half the scale
    mirrored = np.diff(x[..., 1].astype(float), axis=2).mean(axis=(1, 2))
    scale = np.round(2 * step)
    assert set(scale) == {1, 2, 3, 4}
    assert np.abs(step - scale / 2).max() < 0.05
    assert np.abs(np.abs(mirrored) - scale / 2).max() < 0.05
    assert 0.4 < np.mean(mirrored < 0) < 0.6
    for axis, most in ((0, 149), (1, 249)):  # everywhere, to the edges
        assert x[..., axis].min() < 5
        assert x[..., axis].max() > most - 5
    assert_array_equal(datasets.photographs(50, 16, "test")[..., 2], 200)
    assert np.diff(datasets.photographs(50, 100, "test")[..., 0].astype(int), axis=1).max() == 1


def test_pixels_are_means_of_squares(monkeypatch):
    scene = picture(8, 8)
    monkeypatch.setattr(crops, "_scenes", lambda split: [scene])
    x = datasets.photographs(100, 4).astype(float)
    pieces = []
    for scale in (1, 2):
        for i in range(9 - 4 * scale):
            for j in range(9 - 4 * scale):
                part = scene[i : i + 4 * scale, j : j + 4 * scale]
                mean = part.reshape(4, scale, 4, scale, 3).mean(axis=(1, 3))
                pieces += [mean, mean[:, ::-1]]
    error = np.abs(x[:, None] - np.array(pieces)).max(axis=(2, 3, 4)).min(axis=1)
    assert error.max() <= 0.5
    assert len(np.unique(x, axis=0)) > 20


def test_crops_repeat_themselves(scenes):
    x = datasets.photographs(20, 8, seed=3)
    assert_array_equal(datasets.photographs(7, 8, seed=3), x[:7])
    assert (datasets.photographs(20, 8, seed=4) != x).any()
    rng = np.random.default_rng(3)
    assert_array_equal(datasets.photographs(20, 8, seed=rng), x)
    assert (datasets.photographs(20, 8, seed=rng) != x).any()
    assert datasets.photographs(0).shape == (0, 32, 32, 3)


def test_real_photographs(monkeypatch):
    pytest.importorskip("skimage")
    train, test = crops._scenes("train"), crops._scenes("test")
    assert (len(train), len(test)) == (4, 2)
    for i, scene in enumerate([*train, *test]):
        assert (scene.dtype, scene.ndim, scene.shape[2]) == (np.uint8, 3, 3)
        assert min(scene.shape) >= 3
        assert min(scene.shape[:2]) >= 300
        assert not any(np.array_equal(scene, other) for other in [*train, *test][:i])
    assert datasets.photographs(3, 300).std() > 10
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.warns(UserWarning, match="more are in scikit-image") as caught:
        x = datasets.photographs(3)
    assert caught[0].filename == __file__
    assert x.shape == (3, 32, 32, 3)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn and Pillow: .*\[images,sklearn\]"):
        datasets.photographs(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((-1,), "n: "), ((1, 0), "size: "), ((1, 301), "size: "), ((1, 8, "valid"), "split: ")],
)
def test_wrong_crops(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        datasets.photographs(*arguments)
