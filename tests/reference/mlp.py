"""The conditioning network; w holds W_l[out][in] and b_l[out], layer after layer."""

import itertools

import numpy as np


def split(w, sizes):
    """Return [(W_l, b_l)] for layers of these sizes, inputs and outputs among them."""
    layers = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers.append((w[: n_in * n_out].reshape(n_out, n_in), w[n_in * n_out :][:n_out]))
        w = w[(n_in + 1) * n_out :]
    assert len(w) == 0
    return layers


def sigmoid(h):
    return 1 / (1 + np.exp(-h))


def forward(w, sizes, x):
    """Return what enters every layer, and the output: h = W a + b, a = h sigmoid(h)."""
    inputs = [x]
    for weights, bias in split(w, sizes):
        h = inputs[-1] @ weights.T + bias
        inputs.append(h * sigmoid(h))
    return inputs[:-1], h


def vjp(w, sizes, x, gout):
    """Return dL/dw and dL/dx for dL/dout = gout, by the chain rule, the last layer first."""
    inputs, _ = forward(w, sizes, x)
    g, gw = gout, []
    for (weights, bias), a in reversed(list(zip(split(w, sizes), inputs, strict=True))):
        h = a @ weights.T + bias
        if g is not gout:
            s = sigmoid(h)
            g = g * (s + h * s * (1 - s))
        gw = [np.einsum("ri,rj->ij", g, a).ravel(), g.sum(0), *gw]
        g = g @ weights
    return np.concatenate(gw), g
