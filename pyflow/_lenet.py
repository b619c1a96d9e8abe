"""The small convolutional network whose activations `metrics.LeNet` gives."""

import numpy as np

BATCH = 16  # images whose patches, 4 MB, are made at once


class Network:
    """Two layers of 5 x 5 kernels, each followed by ReLU and a 2 x 2 maximum, and a dense one.

    Channels are the last axis throughout. The layer after that, of the classes, is left out.

    Parameters
    ----------
    path : str or Path
        Weights, an .npz file: c1, c2 of shapes (channels, channels before, 5, 5), f1 (64, 800).
    """

    def __init__(self, path):
        with np.load(path) as file:
            conv1, conv2, dense = file["c1.weight"], file["c2.weight"], file["f1.weight"]
            self.biases = file["c1.bias"], file["c2.bias"], file["f1.bias"]
        # In the order of the patches below.
        self.conv1 = conv1.reshape(16, 25).T.copy()
        self.conv2 = conv2.transpose(2, 3, 1, 0).reshape(400, 32)
        self.dense = dense.reshape(64, 32, 25).transpose(2, 1, 0).reshape(800, 64)

    def __call__(self, images):
        """Return the (n, 64) float64 activations of images (n, 28, 28), 0..255."""
        out = np.empty((len(images), 64))
        for start in range(0, len(images), BATCH):
            out[start : start + BATCH] = self._forward(images[start : start + BATCH])
        return out

    def _forward(self, images):
        n, biases = len(images), self.biases
        padded = np.zeros((n, 32, 32), np.float32)
        padded[:, 2:30, 2:30] = np.clip(images.astype(np.float32), 0, 255) / np.float32(255)
        patches = np.empty((5, 5, n, 28, 28), np.float32)
        for i in range(5):
            for j in range(5):
                patches[i, j] = padded[:, i : i + 28, j : j + 28]
        z = patches.reshape(25, -1).T @ self.conv1  # (n 28 28, 16)
        z = _pool(z.reshape(n, 28, 28, 16), biases[0])
        # (n, 10, 10, 5, 5 * 16): the five pixels of a patch's row lie side by side.
        rows = np.lib.stride_tricks.sliding_window_view(z.reshape(n, 14, 224), (5, 80), (1, 2))
        z = rows[:, :, ::16].reshape(n * 100, 400) @ self.conv2
        z = _pool(z.reshape(n, 10, 10, 32), biases[1])
        return np.maximum(z.reshape(n, 800) @ self.dense + biases[2], 0)


def _pool(z, bias):
    """2 x 2 maximum of z (n, h, w, channels), plus the bias, or 0 where that is negative."""
    z = np.maximum(z[:, ::2], z[:, 1::2])
    return np.maximum(np.maximum(z[:, :, ::2], z[:, :, 1::2]) + bias, 0)
