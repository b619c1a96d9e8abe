"""Images from noise, and which images are odd: SIG and GIS on sets of images.

    python examples/images.py                    # 8 x 8 digits of scikit-learn: a few minutes
    python examples/images.py --quick            # few layers, to see that all works
    python examples/images.py --per-class        # p(image | class): a class is asked for
    python examples/images.py --data fashion     # hours; --layers 100 --images 5000: minutes
    python examples/images.py --data mnist --flow FILE --density FILE    # flows that were fitted

MNIST is read from --folder, or from ../shared/data/mnist; Fashion-MNIST from the Debian package
dataset-fashion-mnist; the photographs are 32 x 32 crops in colour of those that scikit-learn and
scikit-image carry.

SIG makes images: how near its samples are to the test set is compared with how near training images
are. GIS gives densities: bits per dimension of the test set, and how well they tell its images from
others (AUROC: 1 if always, 0.5 if as a coin does). Flows and figures go to a folder.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import pyflow
from pyflow import datasets, metrics
from pyflow.plots import image_grid, style

OUTPUT = Path(__file__).parent / "output"
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
FILM = (1, 10, 50, 100, 200, 500, 800)  # layers after which the sample is kept
QUICK = {"images": 1000, "layers": 28, "density_layers": 10}
PHOTOGRAPHS = 20_000


# ---- data ----------------------------------------------------------------------------------------


class Images(NamedTuple):
    name: str
    x: np.ndarray  # (n, height, width, channels) uint8, for training
    labels: np.ndarray | None
    test: np.ndarray
    test_labels: np.ndarray | None
    levels: int  # of grey: pixels are 0 to levels - 1

    def first(self, n):
        """Return the set with n images at most for training, and for the test."""
        return Images(self.name, *(a if a is None else a[:n] for a in self[1:5]), self.levels)


def digits():
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    x, labels = found.images.astype(np.uint8)[order, :, :, None], found.target[order]
    return Images("digits", x[:1497], labels[:1497], x[1497:], labels[1497:], 17)


def photographs():
    x, test = (
        datasets.photographs(PHOTOGRAPHS),
        datasets.photographs(PHOTOGRAPHS // 10, split="test"),
    )
    return Images("photographs", x, None, test, None, 256)


def load(name, folder=None):
    """Return a set of images by name; FileNotFoundError says what is missing."""
    if name in ("digits", "photographs"):
        return {"digits": digits, "photographs": photographs}[name]()
    if name == "mnist":
        parts = [datasets.mnist(folder or MNIST, split) for split in ("train", "test")]
    else:
        parts = [datasets.fashion_mnist(split=split) for split in ("train", "test")]
    return Images(name, *parts[0], *parts[1], 256)


def like(images, levels, data):
    """Return images of so many grey levels in the size, channels and levels of a set."""
    from PIL import Image  # matplotlib needs it

    height, width, channels = data.x.shape[1:]
    grey = np.clip(np.rint(images[..., 0] * (255 / (levels - 1))), 0, 255).astype(np.uint8)
    how = Image.Resampling.BICUBIC if height > grey.shape[1] else Image.Resampling.BOX
    if grey.shape[1:] != (height, width):
        grey = np.stack([np.asarray(Image.fromarray(a).resize((width, height), how)) for a in grey])
    levelled = np.rint(grey * ((data.levels - 1) / 255)).astype(np.uint8)
    return np.repeat(levelled[..., None], channels, axis=3)


def odd_ones(data, folder=None):
    """Return {name: images} that are not like the set, as many as its test images at most."""
    odd = {"mirrored": data.test[:, :, ::-1], "upside down": data.test[:, ::-1]}
    for name in ("digits", "mnist", "fashion"):
        if name == data.name:
            continue
        try:
            other = load(name, folder)
        except (FileNotFoundError, ImportError) as error:
            print(f"{name} is left out: {error}")
            continue
        x = np.concatenate([other.x, other.test]) if name == "digits" else other.test
        odd[name] = like(x[: len(data.test)], other.levels, data)
    return odd


def whole(x, levels):
    """Return samples as the images of whole numbers that they stand for."""
    return np.clip(np.floor(x), 0, levels - 1).astype(np.uint8)


# ---- flows ---------------------------------------------------------------------------------------


def generator(data, layers=None, per_class=False, **options):
    """Fit SIG; return the flow and the film, {layers: images on their way from noise}."""
    film, last = {}, {}

    def keep(number, x):
        last.clear()
        last[number] = np.array(x[:64])
        if number in FILM:
            film.update(last)

    flow = pyflow.SIG(
        data.x,
        labels=data.labels if per_class else None,
        schedule=pyflow.image_schedule(data.x.shape[1:], layers),
        callback=keep,
        callback_every=1,
        **options,
    )
    return flow, film | last


def density(data, layers=None, **options):
    """Fit GIS; the last tenth of the training images says when to stop."""
    x, validate = np.split(data.x, [len(data.x) - len(data.x) // 10])
    return pyflow.GIS(
        x, validate, image_shape=x.shape[1:], dequantize=data.levels, max_layers=layers, **options
    )


def draw(flow, data, n, seed=1):
    """Return n samples, of the classes of the first n training images if the flow has classes."""
    y = None if flow.labels is None else np.resize(data.labels, n)
    return whole(flow.sample(n, y, seed=seed)[0], data.levels)


def between(flow, ends, y, levels, steps=8):
    """Return images (pairs, steps, ...) on the way from one latent point to another.

    The way keeps to the shell where latent points are: it is part of a great circle, with the
    distance from the centre changing evenly.

    Parameters
    ----------
    flow : pyflow.Flow
    ends : (2, pairs, height, width, channels) array
        Latent points.
    y : (pairs,) labels, or None
    levels : int
        Of grey.
    steps : int
    """
    a, b = np.reshape(ends, (2, len(ends[0]), -1))
    size_a, size_b = (np.linalg.norm(z, axis=1, keepdims=True) for z in (a, b))
    cosine = (a * b).sum(axis=1, keepdims=True) / (size_a * size_b)
    angle = np.arccos(np.clip(cosine, -1, 1))
    images = []
    for t in np.linspace(0, 1, steps):
        direction = np.sin((1 - t) * angle) * (a / size_a) + np.sin(t * angle) * (b / size_b)
        z = direction / np.sin(angle) * ((1 - t) * size_a + t * size_b)
        images.append(flow.inverse(z.reshape(ends[0].shape).astype(flow.dtype), y)[0])
    return whole(np.stack(images, axis=1), levels)


def pairs_of_test_images(flow, data, pairs=8, seed=0):
    """Return test images (2, pairs, ...), their latent points, and the labels: one for each pair.

    Of a flow without classes the labels are None, and a pair is of any two.
    """
    rng = np.random.default_rng(seed)
    if flow.labels is None:
        x, y = data.test[rng.choice(len(data.test), (2, pairs), replace=False)], None
    else:
        y = np.resize(flow.labels, pairs)
        rows = [np.flatnonzero(data.test_labels == label) for label in y]
        x = data.test[np.transpose([rng.choice(row, 2, replace=False) for row in rows])]
    return x, np.stack([flow.forward(end + np.float32(0.5), y)[0] for end in x]), y


# ---- measures ------------------------------------------------------------------------------------


def quality(samples, data):
    """Return how near samples, and as many training images, are to the test set.

    The first value is {measure: [of samples, of training images]}; the second, how far samples,
    and test images, are from the nearest training image (the median).
    """
    n = min(len(samples), len(data.x))
    patch = max(4, data.x.shape[1] // 4)
    sets = samples[:n], data.x[:n]
    found = {
        "sliced Wasserstein, images": [metrics.sliced_wasserstein(x, data.test) for x in sets],
        f"sliced Wasserstein, {patch} x {patch} patches": [
            metrics.sliced_wasserstein(x, data.test, patch=(patch, data.x.shape[1:])) for x in sets
        ],
    }
    if data.name in ("mnist", "fashion"):
        features = metrics.LeNet(data.name)
        found["Fréchet distance, LeNet"] = [
            metrics.frechet_distance(x, data.test, features=features) for x in sets
        ]
    near = [np.median(metrics.nearest(x[:500], data.x)[1]) for x in (samples, data.test)]
    return found, near


def oddness(flow, data, odd):
    """Return bits per dimension of the test images, and {name: (bits, AUROC)} of the others."""
    bits = flow.bits_per_dimension(data.test)
    others = {name: flow.bits_per_dimension(x) for name, x in odd.items()}
    return bits, {name: (b, metrics.auroc(-bits, -b)) for name, b in others.items()}


# ---- figures -------------------------------------------------------------------------------------


def canvas(rows, columns, size):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="compressed")
    figure.get_layout_engine().set(w_pad=0.1)
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw_film(film, data):
    """The moving sample after 1, 10, 50, ... layers."""
    rows = -(-len(film) // 4)
    columns = -(-len(film) // rows)
    figure, axes = canvas(rows, columns, (2.6 * columns, 2.8 * rows))
    for ax in axes.flat[len(film) :]:
        ax.remove()
    for ax, (number, x) in zip(axes.flat, sorted(film.items()), strict=False):
        title = f"{number} layer" + "s" * (number > 1)
        image_grid(whole(x, data.levels), 8, 8, ax=ax, title=title, limits=(0, data.levels - 1))
    return figure


def draw_samples(sets, data):
    """Grids side by side."""
    figure, axes = canvas(1, len(sets), (3.4 * len(sets), 3.6))
    for ax, (title, x) in zip(axes.flat, sets.items(), strict=True):
        image_grid(x, 10, 10, ax=ax, title=title, limits=(0, data.levels - 1))
    return figure


def draw_nearest(samples, data, columns=12):
    """Samples, and below each the training images nearest to it."""
    x = samples[:columns]
    index, _ = metrics.nearest(x, data.x, k=3)
    names = ["sample", "nearest", "second", "third"]
    rows = np.concatenate([x, *(data.x[i] for i in index.T)])
    return image_grid(rows, 4, columns, row_labels=names, limits=(0, data.levels - 1))


def draw_between(flow, data, pairs=8):
    """From sample to sample, and from test image to test image, on arcs in latent space.

    Latent points of test images lie outside the shell of the samples where the flow knows its few
    training images too well, and images between them are then poor.
    """
    x, z, y = pairs_of_test_images(flow, data, pairs)
    noise = np.random.default_rng(1).normal(size=z.shape)
    away = np.abs(flow.inverse(z[0], y)[0] - x[0] - 0.5).reshape(pairs, -1).max(axis=1)
    sizes = [np.sqrt((ends**2).mean()) for ends in (z, noise)]
    print(f"rms latent of test images {sizes[0]:.2f}, of samples {sizes[1]:.2f}; images come back")
    print(f"from latent space {np.median(away):.2g} grey levels off in their worst pixel (median)")
    figure, axes = canvas(1, 2, (8, 4.4))
    for ax, ends, kind in zip(axes.flat, (noise, z), ("samples", "test images"), strict=True):
        images = between(flow, ends, y, data.levels)
        image_grid(
            images.reshape(-1, *data.x.shape[1:]),
            *images.shape[:2],
            ax=ax,
            title=f"between {kind}",
            limits=(0, data.levels - 1),
        )
    return figure


def draw_classes(flow, data, each=12):
    y = np.repeat(flow.labels, each)
    x = whole(flow.sample(len(y), y, seed=2)[0], data.levels)
    labels = flow.labels
    return image_grid(
        x,
        len(labels),
        each,
        row_labels=labels,
        title="samples of each class",
        limits=(0, data.levels - 1),
    )


def draw_odd(bits, others, data):
    """Histograms of bits per dimension."""
    everything = np.concatenate([bits, *(b for b, _ in others.values())])
    low, high = np.quantile(everything[np.isfinite(everything)], [0.001, 0.99])
    edges = np.linspace(low, high, 60)
    with style() as colours:
        figure, axes = canvas(1, 1, (6.4, 3.6))
        ax = axes[0, 0]
        filled = {"color": colours["data"], "alpha": 0.55, "lw": 0, "label": "test"}
        ax.hist(np.clip(bits, low, high), edges, density=True, **filled)
        for k, (name, (b, area)) in enumerate(others.items()):
            line = {"histtype": "step", "color": f"C{k}", "lw": 1.4}
            label = f"{name}: AUROC {area:.3f}"
            ax.hist(np.clip(b, low, high), edges, density=True, label=label, **line)
        ax.set(xlabel="bits per dimension (and more: in the last bar)", ylabel="density")
        ax.set(xlim=(low, high), title=f"trained on {data.name}")
        ax.legend()
    return figure


def pictures(data, flow, film, samples, dense, scores):
    """Yield (name, figure); without a density (dense is None), those of the generator."""
    if film:
        yield "film", draw_film(film, data)
    sets = {"test images": data.test, "samples of SIG": samples}
    if dense is not None:
        sets["samples of GIS"] = draw(dense, data, 100)
    yield "samples", draw_samples(sets, data)
    yield "nearest", draw_nearest(samples, data)
    yield "between", draw_between(flow, data)
    if flow.labels is not None:
        yield "classes", draw_classes(flow, data)
    if dense is not None:
        yield "odd", draw_odd(*scores, data)


# ---- the whole -----------------------------------------------------------------------------------


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sets = ("digits", "mnist", "fashion", "photographs")
    parser.add_argument("--data", choices=sets, default="digits", help="default: digits")
    parser.add_argument("--quick", action="store_true", help="few images and layers")
    parser.add_argument(
        "--layers", type=int, help="of SIG in all, spread over the sizes of patches"
    )
    parser.add_argument("--density-layers", type=int, help="of GIS, at most; 0: no GIS")
    parser.add_argument("--images", type=int, metavar="N", help="training images to take")
    parser.add_argument("--per-class", action="store_true", help="SIG of each class")
    parser.add_argument("--samples", type=int, default=10_000, help="to measure; default 10000")
    parser.add_argument("--folder", type=Path, help="of the four files of MNIST")
    parser.add_argument("--flow", type=Path, metavar="FILE", help="SIG that was fitted before")
    parser.add_argument("--density", type=Path, metavar="FILE", help="GIS that was fitted before")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where flows and figures are written"
    )
    given = parser.parse_args()
    if given.quick:
        given.per_class = given.data != "photographs"
        for name, value in QUICK.items():
            if getattr(given, name) is None:
                setattr(given, name, value)
    if given.per_class and given.data == "photographs":
        parser.error("--per-class: the photographs have no classes")
    return given


def main():
    given = arguments()
    try:
        data = load(given.data, given.folder).first(given.images)
    except (FileNotFoundError, ImportError) as error:
        print(f"skipped: {error}")
        return
    out = given.out or OUTPUT / f"images_{data.name}{'_quick' * given.quick}"
    out.mkdir(parents=True, exist_ok=True)
    print(f"{data.name}: {len(data.x)} images of {data.x.shape[1:]}, {len(data.test)} to test")

    flow, film = None, {}
    if given.flow:
        flow = pyflow.load(given.flow)
        if (kept := given.flow.with_name("film.npz")).exists():
            film = {int(number): x for number, x in np.load(kept).items()}
    else:
        start = time.perf_counter()
        flow, film = generator(data, given.layers, given.per_class)
        print(f"SIG: {len(flow)} layers in {time.perf_counter() - start:.0f} s", flush=True)
        flow.save(out / "sig.pyflow")
        np.savez(out / "film.npz", **{str(number): x for number, x in film.items()})
    start = time.perf_counter()
    samples = draw(flow, data, given.samples)
    print(f"{len(samples)} samples in {time.perf_counter() - start:.1f} s")
    found, near = quality(samples, data)
    print(f"\n{'distance to the test set':40}   samples  training  ratio")
    for name, (mine, floor) in found.items():
        print(f"  {name:38} {mine:9.3f} {floor:9.3f} {mine / floor:6.2f}")
    print(
        f"nearest training image, median distance: {near[0]:.1f} from a sample, {near[1]:.1f} from"
    )
    print("a test image: were samples copies, theirs would be near 0\n")

    dense = scores = None
    if given.density_layers != 0 or given.density:
        if given.density:
            dense = pyflow.load(given.density)
        else:
            start = time.perf_counter()
            dense = density(data, given.density_layers)
            print(f"GIS: {len(dense)} layers in {time.perf_counter() - start:.0f} s", flush=True)
            dense.save(out / "gis.pyflow")
        odd = odd_ones(data, given.folder)
        scores = bits, others = oddness(dense, data, odd)
        generated = None if flow.labels is not None else oddness(flow, data, odd)[1]
        error = bits.std() / len(bits) ** 0.5
        print(f"bits per dimension of test images: {bits.mean():.3f} ± {error:.3f}")
        print("others:         bits   AUROC  by SIG's density")
        for name, (b, area) in others.items():
            by_sig = "" if generated is None else f"{generated[name][1]:6.3f}"
            print(f"  {name:12} {b.mean():6.3f}  {area:6.3f}  {by_sig}")

    print()
    for name, figure in pictures(data, flow, film, samples, dense, scores):
        with style():
            figure.savefig(out / f"{name}.png")
        print(f"wrote {out / name}.png")


if __name__ == "__main__":
    main()
