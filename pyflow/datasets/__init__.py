"""Image sets that people have, as arrays: nothing is downloaded.

Images come as uint8 arrays of shape (n, height, width, channels), 1 channel or 3, so that
`x.shape[1:]` is an image's shape; labels as int64 arrays of shape (n,). Files are read with
suspicion: what is cut short, altered, or claims to hold more than it does is a `pyflow.FileError`
that begins with the path.

| Set | Function |
| --- | --- |
| MNIST, Fashion-MNIST, KMNIST, EMNIST | `mnist`, `fashion_mnist`, and `read_idx` for one file |
| CIFAR-10 | `cifar10` |
| CelebA, and any folder of images | `image_folder` |
| Arrays of NumPy | `npy` |
| None of them: crops of the photographs that scikit-learn and scikit-image carry | `photographs` |
"""

from pyflow.datasets.cifar import cifar10
from pyflow.datasets.crops import photographs
from pyflow.datasets.files import image_folder, npy
from pyflow.datasets.idx import fashion_mnist, mnist, read_idx

__all__ = [
    "cifar10",
    "fashion_mnist",
    "image_folder",
    "mnist",
    "npy",
    "photographs",
    "read_idx",
]


def __dir__():
    return __all__
