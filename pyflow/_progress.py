"""The progress line of a fit."""

import sys
import time
from contextlib import contextmanager


def _words(p):
    """Return what the line says of a `Progress` of GIS."""
    words = f"log p {p.logp_train:.4f}"
    if p.logp_validate == p.logp_validate:  # not NaN
        words += f", validation {p.logp_validate:.4f}, best at {p.best}"
    return words


@contextmanager
def reporter(total, verbose, progress, name="GIS", unit="layer", words=_words):
    """Give a function to call with a `Progress` after every step, or None if nobody wants to know.

    Parameters
    ----------
    total : int or None
        Steps that the fit will stop at, if that is known.
    verbose : bool
        Show a line.
    progress : callable or None
        The user's own function.
    name, unit : str
        Of the fit, and of its steps: the field of `Progress` that counts them.
    words : callable
        Gives what the line says of a `Progress`.
    """
    line = _line(total, name, unit, words) if verbose and sys.stderr is not None else None
    watchers = [w for w in (line and line.show, progress) if w]

    def report(p):
        for watch in watchers:
            watch(p)

    try:
        yield report if watchers else None
    finally:
        if line:
            line.close()


def _line(total, name, unit, words):
    """Return a bar of tqdm where somebody watches and tqdm is installed, else plain lines."""
    if _on_terminal() or "ipykernel" in sys.modules:  # which a notebook's process imports
        try:
            from tqdm.auto import tqdm
        except ImportError:
            pass
        else:
            return _TqdmLine(tqdm, total, name, unit, words)
    return _PlainLine(total, name, unit, words)


def _on_terminal():
    return bool(getattr(sys.stderr, "isatty", bool)())


class _TqdmLine:
    def __init__(self, tqdm, total, name, unit, words):
        self.unit, self.words = unit, words
        self.bar = tqdm(desc=name, total=total, unit=f" {unit}s", mininterval=0.2)

    def show(self, p):
        self.bar.set_postfix_str(self.words(p), refresh=False)
        self.bar.update(getattr(p, self.unit) - self.bar.n)

    def close(self):
        if self.bar.total is not None:
            self.bar.total = self.bar.n
        self.bar.refresh()
        self.bar.close()


class _PlainLine:
    """One line that is rewritten on a terminal, and a line now and then in a log.

    In a log the first comes after ten seconds, and the next ones when the fit has taken a tenth
    longer, but not within ten seconds: some thirty in an hour, and fifty in a night.
    """

    def __init__(self, total, name, unit, words):
        self.total, self.name, self.unit, self.words = total, name, unit, words
        self.start = self.shown = time.monotonic()
        self.terminal = _on_terminal()
        self.last = None

    def show(self, p):
        self.last = p
        now = time.monotonic()
        pause = 0.2 if self.terminal else max(10, 0.1 * (self.shown - self.start))
        if now - self.shown >= pause:
            self.shown = now
            self.write()

    def write(self):
        of = f"/{self.total}" if self.total else ""
        seconds = time.monotonic() - self.start
        step = f"{self.unit} {getattr(self.last, self.unit)}{of}"
        text = f"{self.name}: {step}, {seconds:.0f} s, {self.words(self.last)}"
        sys.stderr.write(f"\r{text:<79}" if self.terminal else text + "\n")
        sys.stderr.flush()

    def close(self):
        if self.last:
            self.write()
            if self.terminal:
                sys.stderr.write("\n")
