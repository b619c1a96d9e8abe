"""
Images
======

SIG, the sliced iterative generator, moves noise to images, first the whole image, then ever
smaller patches. GIS gives their density. The images here are scikit-learn's 8 x 8 digits, so that
both fits take seconds; the schedules of real use are longer.
"""

import numpy as np
from sklearn.datasets import load_digits

import pyflow

digits = load_digits()
images = digits.images.astype(np.uint8)  # (1797, 8, 8), grey levels 0 to 16

# %%
# The default schedule has hundreds of layers, and takes a minute for these images; here are 48, in
# the same proportions. Labels make it a generator of each digit.

flow = pyflow.SIG(
    images,
    labels=digits.target,
    schedule=pyflow.image_schedule((8, 8), layers=48),
    verbose=False,
)
x, logp = flow.sample(100, np.repeat(np.arange(10), 10), seed=1)  # ten of each digit
x = np.clip(np.floor(x), 0, 16).astype(np.uint8)
figure = pyflow.plots.image_grid(x, rows=10, columns=10, title="samples")
figure.set_label("A grid of a hundred samples, ten of each digit")
figure

# %%
# How far are they from the images? The sliced Wasserstein distance, beside that of a hundred
# images from the others.

flat = images.reshape(-1, 64)[np.random.default_rng(0).permutation(len(images))]
print("samples     ", pyflow.metrics.sliced_wasserstein(x.reshape(100, -1), flat))
print("images alone", pyflow.metrics.sliced_wasserstein(flat[:100], flat[100:]))

# %%
# Are they copies? Beside each sample its nearest training image.

index, _ = pyflow.metrics.nearest(x[::10].reshape(10, -1), flat)
index = np.ravel(index)
both = np.concatenate([x[::10].reshape(10, 8, 8), flat[index].reshape(10, 8, 8)])
figure = pyflow.plots.image_grid(both, rows=2, columns=10, row_labels=["sample", "nearest"])
figure.set_label("Samples above, the nearest training image below")
figure

# %%
# **Densities.** Grey levels are integers, which have no density: ``dequantize`` adds uniform noise
# of one level, and bits per dimension are those of the integers. Fewer are better. The fit is cut
# at 40 layers for time; go on to where it stops.

density = pyflow.GIS(
    images[:1300],
    images[1300:1500],
    image_shape=(8, 8),
    dequantize=17,
    max_layers=40,
    verbose=False,
)
bits = density.bits_per_dimension(images[1500:])
print(f"{bits.mean():.2f} bits per dimension; as many as grey levels need: {np.log2(17):.2f}")

# %%
# A density knows images by their pixels, not by what they show: see what the README says of odd
# images before you use one as a detector.

upside_down = density.bits_per_dimension(images[1500:, ::-1])
print("AUROC, upside down:", round(pyflow.metrics.auroc(-bits, -upside_down), 2))
