"""Fits on different splits of one data set, side by side: the members of a mixture."""

import os
import queue
import re
import threading

import numpy as np

from pyflow import _arguments, _checkpoint, _core
from pyflow._arguments import warn
from pyflow._blend import is_mixture
from pyflow._many import LOOK
from pyflow._progress import reporter
from pyflow._training import ARRAYS, run, saved
from pyflow.flow import load
from pyflow.mixture import Mixture

# What a fit is given of training points, and of validation points.
PAIRS = {
    "data_train": "data_validate",
    "y_train": "y_validate",
    "condition_field": "condition_field_validate",
    "weight_train": "weight_validate",
    "labels": "labels_validate",
}
SMALL, NARROW = 4000, 100  # training and validation rows, and columns, of which `USUAL` fits
USUAL = 4  # are made if their number is not given: it takes seconds
CLASSES = 30  # conditions of fewer values are classes
LEAST_PARTS = 5  # without validation data no more than one part of so many is held out
COPIES = 8  # of the points, that a fit may hold in memory
SHARE = 4  # fits side by side take no more of the machine's memory than one part of so many


def fitted(n_models, fit, kind, name, data, given, note, tells=None, *, first=None, **how):
    """Return what `run` does, or, for more than one model, the mixture of as many.

    Parameters
    ----------
    n_models : int or None
        1: `run` with all else as it is. More: see `splits`; each fit has another seed. None: what
        `usual` says; and 1 where more fail that one does not, such as for a column that is
        constant but for one row.
    fit, kind, name, data, given, note, tells, **how
        Of `run`.
    first : callable, optional
        Is given the first of more members, which is then fitted before the others; if it returns
        False, they are not.

    Returns
    -------
    Flow or Mixture, or None
        None where `first` returned False. Of a mixture that ends early the exception's attribute
        `flow` is that of what all members had reached.
    """
    by_default = n_models is None
    if by_default:
        n_models = usual(data, how["checkpoint"])
    plain = fit, kind, name, data, given, note, tells
    if _arguments.integer("n_models", n_models, 1) == 1:
        return run(*plain, **how)
    members = None
    try:
        members = _Members(n_models, (fit, kind, name), data, given, (note, tells), first, **how)
        return members.mixture()
    except ValueError as error:
        others = (members and members.stopped) or str(error).startswith("checkpoint")
        if not by_default or others:
            raise
        why = error
    if how["checkpoint"] is not None:
        _checkpoint.forget_members(how["checkpoint"], n_models)
    flow = run(*plain, **how)  # or it says what is wrong of the caller's own rows
    warn(f"n_models: this is one fit, because {n_models} of other rows fail: {why}")
    return flow


def usual(data, checkpoint):
    """Return how many fits there are to be if that is not said: `USUAL` of a small table, else 1.

    1, too, where the checkpoint holds one; and where more validation rows are training rows too
    than `pf_overlap` in C bears, of which one fit warns.
    """
    train, validate = data["data_train"], data["data_validate"]
    if checkpoint is not None and _holds_one_fit(checkpoint):
        return 1
    if any((data.get(name) is None) != (data.get(other) is None) for name, other in PAIRS.items()):
        return 1
    tables = train.ndim == 2 and train.shape[1:] == validate.shape[1:]
    numbers = {train.dtype.kind, validate.dtype.kind} <= {*"biuf"}
    if not (tables and numbers and 0 < train.shape[1] <= NARROW):
        return 1
    if len(train) + len(validate) > SMALL:
        return 1
    return 1 if in_both(train, validate) else USUAL


def in_both(train, validate):
    """Return how many validation rows are training rows too; 0 if C's overlap.c bears them."""
    group = equal_rows(np.concatenate([train, validate], dtype=np.float64))
    both = np.isin(group[len(train) :], group[: len(train)]).sum()
    return both if both > 3 + len(validate) // 10 else 0


def _holds_one_fit(checkpoint):
    try:
        with open(os.fspath(checkpoint), "rb") as file:
            return not is_mixture(file.read(64))
    except (OSError, TypeError):
        return False  # there is none yet, or it is refused later


class _Stopped(Exception):
    """Another member's fit has failed, or all are to end: so does this one."""


class _Members:
    def __init__(
        self,
        n,
        what,
        data,
        given,
        notes,
        first,
        *,
        checkpoint,
        seed,
        progress,
        verbose,
        total,
        **more,
    ):
        if progress is not None and not callable(progress):
            raise TypeError(f"progress: must be callable, not {progress!r}")
        if checkpoint is not None:
            _checkpoint.check(checkpoint, seed)
        self.n, self.what, self.given, self.notes, self.more = n, what, given, notes, more
        self.first, self.checkpoint, self.seed = first, checkpoint, _arguments.seed(seed)
        self.progress, self.verbose = progress, _arguments.boolean("verbose", verbose)
        self.n_train = len(data["data_train"])
        self.data, self.inside = parted(data, n, self.seed)
        plain = {k: v for k, v in given.items() if v is not None and k not in ARRAYS}
        self.steps = total(_core.options(what[1], **plain)) if total else None  # of each
        self.reached = [None] * n  # flows
        self.told = set()  # warnings that were given
        self.stopped = False  # by an exception of the caller's `progress`
        self.found = self._resumed()

    def _resumed(self):
        """Return the mixture in the checkpoint, or None if there is none yet."""
        if self.checkpoint is None or not os.path.exists(self.checkpoint):
            return None
        try:
            found = load(self.checkpoint)
        except _core.FileError as error:
            raise _core.FileError(f"checkpoint: {error}") from None
        if not isinstance(found, Mixture) or len(found) != self.n or found.unfinished:
            what = "has not ended" if found.unfinished else "has another n_models"
            raise ValueError(
                f"checkpoint: {os.fspath(self.checkpoint)} belongs to another fit, which {what}; "
                "remove it or name another file"
            )
        return found

    def mixture(self):
        """Fit all members and mix them; or return None if the first tells not to."""
        workers = side_by_side(self.n, sum(x.nbytes for x in self.data.values()))
        workers = 1 if self.more.get("ranks") else workers
        listening = self.verbose or self.progress
        begun = self._checkpoints()
        with reporter(self.steps, self.verbose, None, self.what[2], self.n) as self.show:
            try:
                rest = range(self.n)
                if self.first is not None:
                    self._fit(0, listening and self._report, self._warn)
                    if not self.first(self.reached[0]):
                        return None
                    rest = rest[1:]
                if workers == 1:
                    for k in rest:
                        self._fit(k, listening and self._report, self._warn)
                else:
                    self._fit_side_by_side(rest, workers, listening)
                return Mixture(self.reached)
            except BaseException as error:
                error.flow = self._so_far()
                refused = isinstance(error, ValueError) and str(error).startswith("checkpoint: ")
                if refused:  # it is of another fit: nothing of this one stays
                    for file in set(self._checkpoints()) - set(begun):
                        os.unlink(file)
                self._mention(error)
                raise

    def _checkpoints(self):
        """Return the files of unfinished members that there are."""
        if self.checkpoint is None:
            return []
        files = [_checkpoint.member_file(self.checkpoint, k) for k in range(self.n)]
        return [file for file in files if os.path.exists(file)]

    def _fit(self, k, report, warn):
        """Fit member k and keep what it reaches; report(k, Progress), warn(k, ...) hear of it."""
        inside, data = self.inside[k], {}
        for train, validate in PAIRS.items():
            if train in self.data:
                data[train], data[validate] = self.data[train][~inside], self.data[train][inside]
        checkpoint, found = self.checkpoint, None
        if self.found is not None:
            found = self.found.members[k]
        elif self.first is not None:
            checkpoint = None  # what later fits learn of the first is in no file
        elif checkpoint is not None:
            checkpoint = _checkpoint.member_file(checkpoint, k)
        try:
            flow = run(
                *self.what,
                data,
                self.given,
                *self.notes,
                checkpoint=checkpoint,
                found=found,
                seed=(self.seed + k) % 2**64,
                progress=report and (lambda p: report(k, p)),
                verbose=False,
                warn=lambda *what: warn(k, *what),
                **self.more,
            )
            self.reached[k] = flow
            if self.found is None:
                saved(flow, checkpoint, self.more.get("ranks"))
        except BaseException as error:
            if self.reached[k] is None:
                self.reached[k] = getattr(error, "flow", None)
            if isinstance(error, ValueError) and error.args:
                error.args = (self._in_their_rows(k, str(error.args[0])), *error.args[1:])
            raise

    def _fit_side_by_side(self, members, workers, listening):
        """Fit members in threads of their own. What they tell is heard in this one."""
        events, stop = queue.SimpleQueue(), threading.Event()
        threads = max(_core.get_num_threads() // workers, 1)

        def stopper():
            if stop.is_set():
                raise _Stopped

        def tell(what):
            return lambda *arguments: events.put((what, arguments))

        def work(k):
            stopper()
            _core.work(threads, stopper)
            try:
                self._fit(k, listening and tell(self._report), tell(self._warn))
            finally:
                _core.work()

        from concurrent.futures import ThreadPoolExecutor  # takes long to load

        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(work, k) for k in members]
            try:
                for future in futures:
                    future.add_done_callback(lambda f: events.put((f.result, ())))
                ended = 0
                while ended < len(futures):
                    try:
                        what, arguments = events.get(timeout=LOOK)
                    except queue.Empty:
                        continue
                    what(*arguments)  # of a fit that failed the result raises
                    ended += not arguments
            finally:
                stop.set()

    def _report(self, k, p):
        p = p._replace(member=k)
        if self.show:
            self.show(p)
        if self.progress:
            try:
                self.progress(p)
            except BaseException:
                self.stopped = True
                raise

    def _warn(self, k, message, category=UserWarning):
        message = self._in_their_rows(k, message)
        if message not in self.told:
            self.told.add(message)
            warn(message, category)

    def _in_their_rows(self, k, message):
        """Return a message of member k with the caller's row in place of its own."""
        named = re.match(r"(\w+): .*?\b(?:row|field) (\d+)", message)
        pair = next((pair for pair in PAIRS.items() if named and named[1] in pair), None)
        if pair is None:
            return message
        rows = np.flatnonzero(self.inside[k] == (named[1] == pair[1]))
        if int(named[2]) >= len(rows):
            return message
        row = int(rows[int(named[2])])
        held_out = row >= self.n_train  # by the caller
        between = message[len(named[1]) : named.start(2)]
        return f"{pair[held_out]}{between}{row - self.n_train * held_out}{message[named.end(2) :]}"

    def _so_far(self):
        flows = [flow for flow in self.reached if flow is not None]
        try:
            return Mixture(flows) if flows else None
        except ValueError:  # one has not got its conditions yet
            return None

    def _mention(self, error):
        """Say with an exception that there are checkpoints, once."""
        files = self._checkpoints()
        if files and hasattr(error, "add_note") and not getattr(error, "__notes__", None):
            error.add_note(f"The same call goes on from the checkpoints {', '.join(files)}.")


def side_by_side(n, size):
    """Return how many of n fits of so many bytes of data are to run at a time."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // SHARE
    return max(min(n, _core.get_num_threads(), memory // (COPIES * max(size, 1))), 1)


# ---- splits --------------------------------------------------------------------------------------


def parted(data, n, seed):
    """Return training and validation points put together, and which each of n fits holds out."""
    found, n_train = pooled(data), len(data["data_train"])
    rows = len(found["data_train"])
    held_out = rows - n_train or max(round(rows / max(n, LEAST_PARTS)), 1)
    return found, splits(together(found), held_out, n, seed, found.get("labels"))


def held_out(data, n, seed):
    """Return, for each of n fits, which points it holds out, and a dict of them."""
    if n == 1:
        own = {k: data[k] for k in PAIRS.values() if data.get(k) is not None}
        return [(np.arange(len(data["data_validate"])), own)]
    found, inside = parted(data, n, seed)
    return [
        (np.flatnonzero(part), {PAIRS[name]: x[part] for name, x in found.items()})
        for part in inside
    ]


def pooled(data):
    """Return training and validation points put together, by the names of the training points."""
    found = {}
    for train, validate in PAIRS.items():
        parts = [data[name] for name in (train, validate) if data.get(name) is not None]
        if not parts:
            continue
        if len(parts) == 1 and data.get("data_validate") is not None:
            missing = validate if data.get(train) is not None else train
            raise ValueError(
                f"{missing}: must be given: n_models puts training and validation data together"
            )
        parts = [np.asarray(part[:]) for part in parts]
        for name, part in zip((train, validate), parts, strict=False):
            if part.dtype.kind not in "biuf":
                raise ValueError(f"{name}: must be real numbers; the dtype is {part.dtype}")
            rows = len(data["data_train" if name == train else "data_validate"])
            if part.ndim < 1 or len(part) != rows or not rows:
                raise ValueError(f"{name}: must have {rows} rows, at least one, not {part.shape}")
            if part.shape[1:] != parts[0].shape[1:]:
                raise ValueError(
                    f"{name}: its points have shape {part.shape[1:]}, those of {train} "
                    f"{parts[0].shape[1:]}"
                )
        dtype = parts[0].dtype if parts[0].dtype.kind == "f" or train == "labels" else np.float64
        found[train] = np.concatenate(parts, dtype=dtype, casting="unsafe")
    return found


def of_data(error):
    """Whether a ValueError is of the rows that a fit was given, or of how many they are."""
    return str(error).startswith(("data_", "weight_", "n_models"))


def gains(more, weight=None):
    """Whether the mean of what each row gains is above 0 by more than its standard error."""
    weight = np.ones(len(more)) if weight is None else np.asarray(weight, dtype=np.float64)
    weight = weight / weight.sum()
    mean = weight @ more
    return bool(mean > np.sqrt(weight**2 @ (more - mean) ** 2))


def together(data):
    """Return the number of each pooled point, the same for those that are not to be torn apart.

    Those of equal y. Of a table, of equal x if these are fewer: parameters may be either. But what
    has few values, as flags have, are classes, of which every fit is to see all.
    """
    x = data["data_train"]
    groups = [
        equal_rows(data[k].reshape(len(x), -1)) for k in ("y_train", "data_train") if k in data
    ]
    if x.ndim > 2:
        return groups[0]
    return min([g for g in groups if g.max() + 1 >= CLASSES] or groups[-1:], key=np.max)


def equal_rows(x):
    """Return the number of each row of x (n, d), the same for equal ones."""
    x = np.ascontiguousarray(x + 0)  # -0.0 becomes 0.0
    whole = x.view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).reshape(-1)
    return np.unique(whole, return_inverse=True)[1].reshape(-1)


def splits(group, held_out, n_models, seed, labels=None):
    """Return which points each of n_models fits holds out, as (n_models, n) bool.

    Groups of points lie in random order on a circle, those of each class spread evenly; model k
    holds out the groups whose middle is on the arc of so many points from k n / n_models on. So
    parts are disjoint if they can be, and otherwise overlap as little as they can.

    Parameters
    ----------
    group : (n,) int array
        Numbers 0 .. of what is not to be torn apart.
    held_out : int
        Points that each fit holds out, more or less if groups are larger than one.
    n_models : int
    seed : int
    labels : (n,) int array, optional
        Classes, of which every fit is trained on all.
    """
    n, size = len(group), np.bincount(group)
    kind = np.zeros(len(size), int)
    if labels is not None:
        kind[group] = labels
    order = np.random.default_rng([seed, n_models]).permutation(len(size))
    place = np.empty(len(size))
    for c in np.unique(kind):
        own = order[kind[order] == c]
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    order = order[np.argsort(place[order], kind="stable")]
    middle = np.empty(len(size))
    middle[order] = np.cumsum(size[order]) - size[order] / 2
    found = []
    for k in range(n_models):
        inside = ((middle - k * n / n_models) % n < held_out)[group]
        for c in [] if labels is None else np.unique(labels):
            if inside[labels == c].all():
                inside[labels == c] = False
        if not inside.any() or inside.all():
            raise ValueError(
                f"n_models: {len(size)} different points, or simulations, are too few for "
                f"{n_models} splits that hold out {held_out} of {n} points"
            )
        found.append(inside)
    return np.array(found)
