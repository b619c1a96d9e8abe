"""What a fit says of itself while it runs: a bar where somebody watches, a few lines in a log."""

import io
import itertools
import re
import sys

import pytest

import pyflow
from pyflow import _progress

NAN = float("nan")


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def clock(monkeypatch):
    """A time that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def said(monkeypatch, stream, steps, clock=None, seconds=0.0):
    """What a fit of so many steps writes, each taking so many seconds."""
    monkeypatch.setattr(sys, "stderr", stream)
    with _progress.reporter(steps, True, None, "GIS") as report:
        for step in range(1, steps + 1):
            if clock:
                clock[0] += seconds
            report(pyflow.Progress("layer", step, 1, -1.5, NAN, NAN, -1.5, 0.0))
    return stream.getvalue()


def test_a_log_has_few_lines(monkeypatch, clock):
    # 100 s, 17 minutes, 8 hours
    for seconds, least, most in ((0.1, 19, 22), (1.0, 50, 80), (30.0, 450, 600)):
        text = said(monkeypatch, Stream(False), 1000, clock, seconds)
        lines = text.splitlines()
        assert least <= len(lines) <= most
        assert "\r" not in text
        assert "%|" not in text  # a bar
        for line in lines:
            assert re.fullmatch(r"GIS: layer \d+/1000, \d+ s, log p -1\.5000, best at 1", line)
        at = [int(re.search(r", (\d+) s", line)[1]) for line in lines]
        gaps = [b - a for a, b in zip([0, *at], at[:-1], strict=False)]
        assert min(gaps) >= 5
        assert max(gaps) <= max(60, seconds) + seconds + 1  # never long in silence
        early = [gap for gap, a in zip(gaps, at, strict=False) if a <= 120]
        assert max(early) <= max(5, seconds) + 1
        assert lines[-1].startswith("GIS: layer 1000/1000")


def test_a_short_fit_says_one_line_in_a_log(monkeypatch, clock):
    assert said(monkeypatch, Stream(False), 4, clock, 1.0).count("\n") == 1


def test_a_log_s_line_comes_every_five_seconds(monkeypatch, clock):
    lines = said(monkeypatch, Stream(False), 61, clock, 1.0).splitlines()
    steps = [int(re.search(r"layer (\d+)/", line)[1]) for line in lines]
    assert steps == [*range(5, 61, 5), 61]


def test_a_terminal_has_a_bar(monkeypatch):
    pytest.importorskip("tqdm")
    text = said(monkeypatch, Stream(True), 5)
    assert "5/5" in text
    assert "log p -1.5000" in text
    assert "\r" in text


def test_a_terminal_without_tqdm_has_a_line_that_is_rewritten(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    text = said(monkeypatch, Stream(True), 5)
    assert text.startswith("\rGIS: layer 5/5")
    assert text.count("\n") == 1


def test_a_notebook_has_a_bar(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    assert "5/5" in said(monkeypatch, Stream(False), 5)


def test_any_stream_will_do(monkeypatch, train):
    class Bare:
        """A stream that only knows how to write, as loggers put in stderr's place."""

        text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    stream = Bare()
    monkeypatch.setattr(sys, "stderr", stream)
    pyflow.GIS(train, max_layers=1)
    assert stream.text.startswith("GIS: layer 4/4")
    monkeypatch.setattr(sys, "stderr", None)
    pyflow.GIS(train, max_layers=1)


# ---- what is counted -----------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [False, True])
def test_a_count_is_shown_if_it_takes_long(slow, monkeypatch, capsys):
    clock = itertools.count(0, 3.0 if slow else 0.1)
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(clock))
    for verbose in (True, False):
        with _progress.counted(4, verbose, "map", "posteriors") as done:
            for i in range(4):
                done(i + 1)
        told = capsys.readouterr().err
        assert bool(told) == (slow and verbose)
        assert not told or re.search(r"^posteriors: map 4/4, \d+ s$", told, re.MULTILINE)
