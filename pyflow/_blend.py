"""The core of a mixture: flows of the core, asked as if they were one; and its file."""

import json
import math
import struct
import zlib
from types import GetSetDescriptorType

import numpy as np

from pyflow import _core

# Attributes of the core that members have of their own; all others are those of the mixture too.
OWN = ("layers", "n_layers", "n_parameters", "slices", "range")
OWN += ("note", "temperature", "unfinished")
SAME = [k for k, v in vars(_core.Flow).items() if isinstance(v, GetSetDescriptorType)]
SAME = [k for k in SAME if k not in OWN]
# What the notes of members say alike.
NOTED = ("columns", "image_shape", "dequantized", "names", "labels", "x_range")

# A file: this, its version, the length of the header, the header (JSON), the members' own files one
# after another, and the CRC-32 of all before it. Numbers are little-endian integers of 8 bytes.
MAGIC = b"\x93PYFMIX\n"
VERSION = 1


class Blend:
    """The density sum_k w_k p_k(x), with the attributes and methods of `_core.Flow`.

    `Flow` asks its core for densities, scores and draws, and all else it can do follows from them:
    so it serves a mixture unchanged. Every question is one call of each member's core.

    Parameters
    ----------
    cores : sequence of _core.Flow
        Alike: see `differences`.
    weights : sequence of float
        Positive, their sum 1.
    note : str
        JSON, as that of a flow.
    temperature : float
    """

    __slots__ = ("cores", "note", "temperature", "weights")

    def __init__(self, cores, weights, note, temperature=1.0):
        self.cores, self.weights = tuple(cores), np.asarray(weights, np.float64)
        self.note, self.temperature = note, temperature

    def __getattr__(self, name):
        if name in SAME:
            return getattr(self.cores[0], name)
        raise AttributeError(f"the core of a mixture has no {name}")

    layers = property(lambda self: sum((core.layers for core in self.cores), ()))
    n_layers = property(lambda self: len(self.layers))
    slices = property(lambda self: sum(core.slices for core in self.cores))
    n_parameters = property(lambda self: sum(core.n_parameters for core in self.cores))
    unfinished = property(lambda self: any(core.unfinished for core in self.cores))

    @property
    def range(self):
        """Least and most (2, n_conditions) of what any member was trained on."""
        ranges = np.stack([core.range for core in self.cores])
        return np.stack([ranges[:, 0].min(axis=0), ranges[:, 1].max(axis=0)])

    # ---- the density -----------------------------------------------------------------------------

    def _shares(self, logs):
        """Return log(w_k p_k), and log sum_k w_k p_k, of the members' log p (K, ...)."""
        logs = np.asarray(logs)
        logs = logs + np.log(self.weights).reshape(-1, *[1] * (logs.ndim - 1))
        return logs, np.logaddexp.reduce(logs, axis=0)

    def evaluate_density(self, x, **how):
        """Return log p of points, (n,), or of a single one."""
        return self._shares([core.evaluate_density(x, **how) for core in self.cores])[1]

    def evaluate_at(self, x, y, **how):
        """Return log p of n points at m conditions, (n, m)."""
        return self._shares([core.evaluate_at(x, y, **how) for core in self.cores])[1]

    def _score(self, question, x, known, ask=None):
        """Return sum_k r_k grad log p_k, r_k = w_k p_k / p the share of member k, and log p.

        `ask`, of a core, question, x and what is known, stands for the core's own method.
        """
        ask = ask or (lambda core, question, x, known: getattr(core, question)(x, **known))
        scores, logs = zip(*(ask(core, question, x, known) for core in self.cores), strict=True)
        logs, logp = self._shares(logs)
        total = 0.0
        for score, log in zip(scores, logs, strict=True):
            share = np.exp(log - np.where(np.isfinite(logp), logp, 0.0))  # 0 where p is
            total = total + score * share.reshape(*share.shape, *[1] * (score.ndim - share.ndim))
        return total.astype(scores[0].dtype), logp

    def score(self, x, **known):
        """Return d log p / dx, and log p."""
        return self._score("score", x, known)

    def score_parameters(self, x, **known):
        """Return d log p / dy, and log p."""
        return self._score("score_parameters", x, known)

    def chosen(self, n, seed):
        """Return the member (n,) that each point of a sample is drawn from.

        A function of the seed and the point's number.
        """
        u = np.random.default_rng([seed, len(self.cores)]).random(n)
        return np.searchsorted(np.cumsum(self.weights)[:-1], u, side="right")

    def sample(self, n, seed=0, **known):
        """Return points, and their log p. What is known is of each of the n points.

        Point i is that of a member's own sample whose number is how many points before i are that
        member's: a longer sample begins with the shorter one, as that of a flow does. The first
        member has the caller's seed, the others have their own: their draws are independent.
        """
        chosen = self.chosen(n, seed)
        x = np.empty((n, *self.shape), self.dtype)
        for k, core in enumerate(self.cores):
            rows = np.flatnonzero(chosen == k)
            own = np.random.SeedSequence([seed, k]).generate_state(1, np.uint64)[0] if k else seed
            some = {name: values[rows] for name, values in known.items()}
            x[rows] = core.sample(len(rows), **some, seed=int(own))[0]
        return x, self.evaluate_density(x, **known)

    def calibrate(self, x, y, simulation, width, seed=0, **known):
        """Return it with its best temperature, and what `_core.Flow.calibrate` says of that."""
        first, *others = self.cores
        flow, *found = first.calibrate(
            x, y, simulation, width, seed, **known, others=tuple(others), weights=self.weights
        )
        return Blend(self.cores, self.weights, self.note, flow.temperature), *found

    # ---- others like it --------------------------------------------------------------------------

    def with_note(self, note):
        """Return the same with another note."""
        return Blend(self.cores, self.weights, note, self.temperature)

    def to_bytes(self):
        """Return what a file holds."""
        members = [core.to_bytes() for core in self.cores]
        header = {
            "format": "pyflow mixture",
            "version": VERSION,
            "dtype": str(self.dtype),
            "shape": list(self.shape),
            "lengths": [len(member) for member in members],
            "weights": self.weights.tolist(),
            "temperature": self.temperature,
            "note": json.loads(self.note),
        }
        header = json.dumps(header, allow_nan=False).encode()
        whole = b"".join([MAGIC, struct.pack("<qq", VERSION, len(header)), header, *members])
        return whole + struct.pack("<q", zlib.crc32(whole))

    def save(self, path):
        """Write it to a file: aside, then renamed."""
        _core.save_bytes(path, self.to_bytes())


def zero_outside(core, question, x, known):
    """Return a score of points, and log p: 0 and -inf outside the bounds, which a core refuses.

    Parameters
    ----------
    core : _core.Flow or Blend
        Members of a mixture may have bounds of their own.
    question : {"score", "score_parameters"}
    x : (n, *shape) or shape array-like
    known : dict
        What the core is told of each of the n points.
    """
    if isinstance(core, Blend):
        return core._score(question, x, known, zero_outside)
    ask, refused = getattr(core, question), None
    try:
        return ask(x, **known)
    except ValueError as error:
        refused = error
    logp = core.evaluate_density(x, **known)
    log = np.reshape(logp, -1).copy()
    inside = np.flatnonzero(log > -np.inf)
    if len(inside) == len(log):  # it is something else
        raise refused
    rows, some = np.reshape(x, (-1, *core.shape)), {k: v[inside] for k, v in known.items()}
    found, log[inside] = ask(rows[inside], **some)
    score = np.zeros((len(rows), *found.shape[1:]), found.dtype)
    score[inside] = found
    return (score, log) if np.ndim(logp) else (score[0], log[0])


def differences(flow, other):
    """Return the names of what keeps two flows out of one mixture."""
    found = [k for k in SAME if not np.array_equal(getattr(flow._core, k), getattr(other._core, k))]
    return found + [k for k in NOTED if flow._note.get(k) != other._note.get(k)]


# ---- reading -------------------------------------------------------------------------------------


def is_mixture(data):
    """Whether bytes begin as those of a mixture."""
    return bytes(memoryview(data).cast("B")[: len(MAGIC)]) == MAGIC


def _damaged(what):
    return _core.FileError(f"the file is damaged: {what}")


def _not_a_number(text):
    raise ValueError(f"{text} is no number of JSON")


def read(data):
    """Return the `Blend` in these bytes.

    Nothing is allocated that is not there, and all is checked but whether members go together.

    Raises
    ------
    FileError
    """
    view = memoryview(data).cast("B")
    if not is_mixture(view):
        raise _core.FileError("this is not a pyflow mixture: it begins with other bytes")
    at = len(MAGIC) + 16
    if len(view) < at + 8:
        raise _core.FileError(f"the file is cut short: {len(view)} bytes")
    version, length = struct.unpack("<qq", view[len(MAGIC) : at])
    if version > VERSION:
        raise _core.FileError(
            f"the file was written by a newer pyflow: its format is {version}, this one reads up "
            f"to {VERSION}"
        )
    end = len(view) - 8
    if struct.unpack("<q", view[end:])[0] != zlib.crc32(view[:end]):
        raise _core.FileError("the file is cut short or altered: its check sum is wrong")
    if version != VERSION or not 0 <= length <= end - at:
        raise _damaged("its header makes no sense")
    try:
        header = json.loads(bytes(view[at : at + length]), parse_constant=_not_a_number)
    except (ValueError, RecursionError):
        raise _damaged("its header is not JSON") from None
    lengths, weights, note, temperature = _checked(header)
    at += length
    if sum(lengths) != end - at:
        raise _damaged("it is not as long as its members")
    cores = []
    for n in lengths:
        cores.append(_core.from_bytes(view[at : at + n]))
        at += n
    return Blend(cores, weights, json.dumps(note), temperature)


def _checked(header):
    """Return lengths, weights, note and temperature of a header if they make sense."""

    def numbers(values, kind):
        good = isinstance(values, list) and values and all(type(v) is kind for v in values)
        return good and all(math.isfinite(v) and v > 0 for v in values)

    if not isinstance(header, dict):
        raise _damaged("its header is not JSON of a mixture")
    lengths, weights = header.get("lengths"), header.get("weights")
    if not numbers(lengths, int) or not numbers(weights, float) or len(lengths) != len(weights):
        raise _damaged("its members or their weights make no sense")
    if abs(sum(weights) - 1) > 1e-9:
        raise _damaged("the weights do not add up to one")
    if not numbers([header.get("temperature")], float) or not isinstance(header.get("note"), dict):
        raise _damaged("a temperature or a note makes no sense")
    return lengths, weights, header["note"], header["temperature"]
