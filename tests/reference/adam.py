"""Adam (Kingma & Ba 2015, Algorithm 1), up the gradient, with decoupled weight decay."""

import numpy as np


def steps(w, gradients, rate, decay):
    """Return w after a step along each gradient."""
    w, m, v = np.array(w, float), 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        w = w + rate * (m_hat / (np.sqrt(v_hat) + 1e-8) - decay * w)
    return w
