"""Other makers of 28 x 28 grey images in one process, told what to do by lines of JSON.

    python image_worker.py METHOD THREADS

As in worker.py; `bench_images.py` is the other end. Every method trains for a number of minutes and
writes its samples, uint8, to a file.

- vae: a variational autoencoder whose pixels are Gaussian, with the one variance that is the most
  likely (Rybkin et al. 2021, arXiv 2006.13202); samples are the decoder's means.
- gan: a Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028).
- swf: a sliced Wasserstein flow (Liutkus et al. 2019, arXiv 1806.08141) without noise.
- original: SIG by its authors, from the checkout that PYFLOW_BENCH_SINF names.

The networks of vae and gan have the sizes of InfoGAN's, as in Lucic et al. (2018, arXiv
1711.10337): two convolutions of 64 and 128 channels and a dense layer of 1,024, generator and
decoder the other way round from 62 latent values.
"""

import os
import sys
import time
import types
import warnings

import numpy as np
import torch
from torch import nn
from worker import serve

LATENT = 62


class Clock:
    """Counts steps and tells how much of the time is over, from 0 to 1."""

    def __init__(self, minutes):
        self.start, self.limit, self.steps = time.perf_counter(), 60 * minutes, 0

    def elapsed(self):
        return time.perf_counter() - self.start

    def ticks(self):
        """Yield the share of the time that is over, once for every step, until it is."""
        while (share := self.elapsed() / self.limit) < 1:
            yield share
            self.steps += 1

    def record(self):
        return {"minutes": self.elapsed() / 60, "steps": self.steps}


def batches(x, size):
    """Yield random batches of rows of x without end, every row once before any comes again."""
    while True:
        order = torch.randperm(len(x))
        for i in range(0, len(x) - size + 1, size):
            yield x[order[i : i + size]]


def grey(x):
    """Return images in 0..1 as uint8."""
    return (255 * x).round().clamp(0, 255).to(torch.uint8).reshape(-1, 28, 28).numpy()


def set_rate(optimiser, rate):
    for group in optimiser.param_groups:
        group["lr"] = rate


# ---- Networks ------------------------------------------------------------------------------------


def generator():
    """(n, LATENT) -> (n, 1, 28, 28) in 0..1."""
    return nn.Sequential(
        *(nn.Linear(LATENT, 1024), nn.BatchNorm1d(1024), nn.ReLU()),
        *(nn.Linear(1024, 128 * 49), nn.BatchNorm1d(128 * 49), nn.ReLU()),
        nn.Unflatten(1, (128, 7, 7)),
        *(nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Sigmoid()),
    )


def encoder(outputs, normalise):
    """(n, 1, 28, 28) -> (n, outputs); a critic's gradient penalty forbids batch normalisation."""

    def norm(make, channels):
        return [make(channels)] if normalise else []

    return nn.Sequential(
        *(nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(64, 128, 4, 2, 1), *norm(nn.BatchNorm2d, 128), nn.LeakyReLU(0.2)),
        nn.Flatten(),
        *(nn.Linear(128 * 49, 1024), *norm(nn.BatchNorm1d, 1024), nn.LeakyReLU(0.2)),
        nn.Linear(1024, outputs),
    )


@torch.no_grad()
def generate(network, n):
    network.eval()
    return np.concatenate([grey(network(torch.randn(500, LATENT))) for _ in range(0, n, 500)])[:n]


def vae(images, minutes, n):
    """Minimise -log p(x|z) + KL(q(z|x) || N(0, 1)); Adam, its rate falling from 1e-3 to 0."""
    x = torch.from_numpy(images).float()[:, None] / 255
    encode, decode = encoder(2 * LATENT, normalise=True), generator()
    parameters = [*encode.parameters(), *decode.parameters()]
    optimiser, clock = torch.optim.Adam(parameters, fused=True), Clock(minutes)
    for share, batch in zip(clock.ticks(), batches(x, 128), strict=False):
        set_rate(optimiser, 1e-3 * (1 - share))
        mean, log_s = encode(batch).chunk(2, dim=1)
        kl = 0.5 * (mean**2 + (2 * log_s).exp() - 2 * log_s - 1).sum()
        z = mean + log_s.exp() * torch.randn_like(mean)
        variance = ((decode(z) - batch) ** 2).mean()
        loss = (kl + 0.5 * batch.numel() * variance.log()) / len(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return generate(decode, n), clock.record()


def gradient_penalty(critic, real, fake):
    share = torch.rand(len(real), 1, 1, 1)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


def gan(images, minutes, n, rate):
    """Five steps of the critic to one of the generator; Adam, its rate falling to 0."""
    x = torch.from_numpy(images).float()[:, None] / 255
    critic, make = encoder(1, normalise=False), generator()
    of_critic, of_maker = (
        torch.optim.Adam(network.parameters(), betas=(0.5, 0.9), fused=True)
        for network in (critic, make)
    )
    clock, size = Clock(minutes), 64
    for share, real in zip(clock.ticks(), batches(x, size), strict=False):
        set_rate(of_critic, rate * (1 - share))
        with torch.no_grad():
            fake = make(torch.randn(size, LATENT))
        loss = critic(fake).mean() - critic(real).mean()
        loss = loss + 10 * gradient_penalty(critic, real, fake)
        of_critic.zero_grad()
        loss.backward()
        of_critic.step()
        if clock.steps % 5 == 4:
            set_rate(of_maker, rate * (1 - share))
            of_maker.zero_grad()
            (-critic(make(torch.randn(size, LATENT))).mean()).backward()
            of_maker.step()
    return generate(make, n), clock.record()


# ---- Flows ---------------------------------------------------------------------------------------


@torch.no_grad()
def swf(images, minutes, n, slices=32):
    """Move n particles from N(0, 1) to the data by 1-D optimal transport along random slices.

    The slices of a step are orthonormal and each is transported all the way; the quantiles are
    those of all images, between which the particles' are interpolated.
    """
    x = torch.from_numpy(images).float().flatten(1) / 128 - 1
    particles = torch.randn(n, x.shape[1])
    at = (torch.arange(n) + 0.5) / n * len(x) - 0.5  # among the sorted projections of x
    below = at.floor().clamp(0, len(x) - 1).long()
    above = (below + 1).clamp(max=len(x) - 1)
    share = (at - below).clamp(0, 1)[:, None]
    clock = Clock(minutes)
    for _ in clock.ticks():
        a = torch.linalg.qr(torch.randn(x.shape[1], slices))[0]
        target = (x @ a).sort(dim=0).values
        target = target[below] * (1 - share) + target[above] * share
        place = particles @ a
        move = torch.empty_like(place)
        values, order = place.sort(dim=0)
        move.scatter_(0, order, target - values)
        particles += move @ a.T
    return grey((particles + 1) * 128 / 255), clock.record()


def import_original():
    """Import the authors' SIG without what it does not need here.

    `sinf.load_data` and `sinf.fid_score` import torchvision, h5py and pandas, and so are empty
    modules.
    """
    warnings.filterwarnings("ignore", message="torch.qr is deprecated")
    sys.path.insert(0, os.environ["PYFLOW_BENCH_SINF"])
    sys.modules["sinf.load_data"] = types.ModuleType("sinf.load_data")
    sys.modules["sinf.fid_score"] = types.ModuleType("sinf.fid_score")
    sys.modules["sinf.fid_score"].evaluate_fid_score = None
    from sinf import SIG

    return SIG


@torch.no_grad()
def original(images, minutes, n, search_steps=200):
    """As many layers of the published MNIST schedule as are begun in the time.

    100 layers for each size of patches, K twice the size. The slice search has its published
    number of steps unless told otherwise. The n samples go through each layer as it is made.
    """
    sig = import_original()
    data = sig.preprocess(images)
    state = sig.SINF(ndim=784).requires_grad_(False), torch.randn(6 * len(data), 784)
    state = (*state, torch.randn(n, 784))
    sizes = (size for size in (28, 14, 7, 6, 5, 4, 3, 2) for _ in range(100))
    clock, layer_minutes = Clock(minutes), []
    for _, size in zip(clock.ticks(), sizes, strict=False):
        patch = {}
        if size < 28:
            shift = torch.randint(28, (2,)).tolist()
            patch = {
                "layer_type": "patch",
                "shape": [28, 28, 1],
                "kernel": [size, size, 1],
                "shift": shift,
            }
        before = clock.elapsed()
        model, sample, sample_test = state
        with torch.enable_grad():
            state = sig.add_one_layer_inverse(
                *(model, data, sample, 2 * size, len(data), 6 * len(data)),
                sample_test=sample_test,
                batchsize=10000,
                MSWD_max_iter=search_steps,
                **patch,
            )
        layer_minutes.append(round((clock.elapsed() - before) / 60, 3))
    record = {**clock.record(), "layers": len(state[0].layer), "layer_minutes": layer_minutes}
    return sig.toimage(state[2], (28, 28)), record


METHODS = {"vae": vae, "gan": gan, "swf": swf, "original": original}


class Commands:
    """What a worker can be told to do."""

    def __init__(self, method, threads):
        torch.set_num_threads(threads)
        self.method = METHODS[method]

    def make(self, images, out, minutes, n, options):
        """Train on the images in a .npy file, (m, 28, 28) uint8; write n samples to another."""
        torch.manual_seed(0)
        np.random.seed(0)
        samples, record = self.method(np.load(images), minutes, n, **options)
        np.save(out, samples)
        return record


if __name__ == "__main__":
    serve(lambda: Commands(sys.argv[1], int(sys.argv[2])))
