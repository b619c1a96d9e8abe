"""The progress line of a fit."""

import logging
import math
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import NamedTuple


class Progress(NamedTuple):
    """What a `progress` function is told after every step of a fit.

    Attributes
    ----------
    stage : str
        What a step is: "layer" or "epoch".
    step : int
        Layers so far, or epochs, over all stages; epoch 0 is the start.
    best : int
        The best step so far.
    logp_train, logp_validate : float
        Mean log p of the training and the validation data, in nats: of a row, or, for fields, of a
        pixel; NaN where it is not known.
    distance : float
        For a layer of GIS: root-mean-square sliced Wasserstein distance of the data from a unit
        Gaussian along its slices; of SIG, of the sample from the data. Else NaN.
    objective : float
        What the best step is best by: `logp_validate`, without validation data `logp_train`. While
        fine-tuning on the posterior the mean log p(y|x) / prior(y) of the same points, in nats. NaN
        for SIG.
    seconds : float
        Since the fit began.
    member : int
        Of a mixture of fits (`n_models`) that which took the step; else 0.
    """

    stage: str
    step: int
    best: int
    logp_train: float
    logp_validate: float
    distance: float
    objective: float
    seconds: float
    member: int = 0


class InTurn:
    """What fits that follow one another report, as of one."""

    def __init__(self, progress):
        self.progress, self.last, self.best = progress, (0, 0.0), (-math.inf, 0)

    def next(self, counted=0):
        """Return what the next fit is to report to, or None; some of its steps are counted."""
        if not self.progress:
            return None
        step, seconds = self.last[0] - counted, self.last[1]

        def report(*values):
            p = Progress(*values)
            self.last = step + p.step, seconds + p.seconds
            self.best = max(self.best, (p.objective, -self.last[0]))
            best = -self.best[1]
            self.progress(*p._replace(step=self.last[0], seconds=self.last[1], best=best))

        return report


LATER = 5  # seconds that a count takes before it is shown


@contextmanager
def counted(total, verbose, stage, name):
    """Give a function to call with how many are done, which shows a line if it takes long."""
    start, report, lines = time.monotonic(), None, ExitStack()

    def done(n):
        nonlocal report
        seconds = time.monotonic() - start
        if not verbose or seconds < LATER or (n == total and not report):
            return
        report = report or lines.enter_context(reporter(total, True, None, name))
        report(Progress(stage, n, n, *4 * (math.nan,), seconds))

    with lines:
        yield done


def _words(p):
    """Return what the line says of a `Progress`."""
    if all(map(math.isnan, (p.logp_train, p.distance))):  # nothing but counted
        return ""
    if p.logp_train != p.logp_train:  # NaN: SIG knows no densities
        return f"sliced distance {p.distance:.4f}"
    words = f"log p {p.logp_train:.4f}"
    if p.logp_validate == p.logp_validate:  # not NaN
        words += f", validation {p.logp_validate:.4f}"
    if p.objective == p.objective and p.objective not in (p.logp_train, p.logp_validate):
        words += f", log p(y|x) {p.objective:.3f}"
    return f"{words}, best at {p.best}"


@contextmanager
def reporter(total, verbose, progress, name, members=1):
    """Give a function to call with a `Progress` after every step, or None if nobody wants to know.

    Parameters
    ----------
    total : int or None
        Steps that the fit, or each member of several, will stop at, if that is known.
    verbose : bool
        Show a line.
    progress : callable or None
        The user's own function.
    name : str
        Of the fit.
    members : int
        How many fits there are of that name, side by side; `Progress.member` tells which.
    """
    line = _line(total, name, members) if verbose else None
    watchers = [w for w in (line and line.show, progress) if w]

    def report(p):
        for watch in watchers:
            watch(p)

    try:
        yield report if watchers else None
    finally:
        if line:
            line.close()


def _line(total, name, members):
    """Return a bar of tqdm where somebody watches and tqdm is installed, else plain lines."""
    if _on_terminal() or "ipykernel" in sys.modules:  # which a notebook's process imports
        try:
            from tqdm.auto import tqdm
        except ImportError:
            pass
        else:
            return _TqdmLine(tqdm, total, name, members)
    return _PlainLine(total, name, members)


def _on_terminal():
    return bool(getattr(sys.stderr, "isatty", bool)())


def _log(text):
    """Hand a line to the logger "pyflow" at level INFO, or write it on stderr.

    To the logger where a handler hears it, and then nowhere else. Not where logging is not set up,
    nor where only the root logger's level, which is WARNING unless it is set, is in the way: the
    fit was asked to say something. A level above INFO of "pyflow" itself means silence.
    """
    logger = logging.getLogger("pyflow")
    lets = logger.isEnabledFor(logging.INFO)
    if lets and _has_handlers(logger):
        logger.info("%s", text)
    elif (lets or logger.level == logging.NOTSET) and sys.stderr is not None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _has_handlers(logger):
    """Whether a handler other than a NullHandler gets what the logger lets through."""
    while logger is not None:
        if not all(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


class _TqdmLine:
    """A bar; of several members it counts the steps of all."""

    def __init__(self, tqdm, total, name, members):
        self.steps, self.members = [0] * members, members
        self.name = name if members == 1 else f"{name} x {members}"
        total = None if total is None else members * total
        self.bar = tqdm(desc=self.name, total=total, unit=" steps", mininterval=0.2)

    def show(self, p):
        self.bar.unit = f" {p.stage}s"
        words = _words(p)
        if self.members > 1:
            words = f"member {p.member + 1}: {p.stage} {p.step}, {words}"
        self.steps[p.member] = p.step
        self.bar.set_postfix_str(words, refresh=False)
        self.bar.update(sum(self.steps) - self.bar.n)

    def close(self):
        if self.bar.total is not None:
            self.bar.total = self.bar.n
        self.bar.refresh()
        self.bar.close()


def _pause(seconds):
    """Return the seconds between lines of a log, of a fit that has taken so many.

    Five in the first two minutes, then a 24th of the time, a minute at most: some 120 lines in an
    hour, whose last minute is always told of.
    """
    return min(max(5, seconds / 24), 60)


class _PlainLine:
    """One line that is rewritten on a terminal, and a line every few seconds in a log.

    In a log: see `_pause`.
    """

    def __init__(self, total, name, members):
        self.total, self.name, self.members = total, name, members
        self.start = self.shown = time.monotonic()
        self.terminal = _on_terminal()
        self.last = None

    def show(self, p):
        self.last = p
        now = time.monotonic()
        pause = 0.2 if self.terminal else _pause(self.shown - self.start)
        if now - self.shown >= pause:
            self.shown = now
            self.write()

    def write(self):
        of = f"/{self.total}" if self.total else ""
        seconds = time.monotonic() - self.start
        member = f"member {self.last.member + 1} of {self.members}, " if self.members > 1 else ""
        step = f"{member}{self.last.stage} {self.last.step}{of}"
        words = _words(self.last)
        text = f"{self.name}: {step}, {seconds:.0f} s{', ' if words else ''}{words}"
        if self.terminal:
            sys.stderr.write(f"\r{text:<79}")
            sys.stderr.flush()
        else:
            _log(text)

    def close(self):
        if self.last:
            self.write()
            if self.terminal:
                sys.stderr.write("\n")
