"""Lines of a fit in a log: through `logging` where it is set up, on stderr where it is not."""

import logging
import re
import sys
from contextlib import contextmanager

import numpy as np
import pytest

import pyflow
from pyflow import _progress

NAN = float("nan")
LINE = r"GIS: layer 5, \d+ s, log p -1\.5000, best at 1"


class Heard(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture(autouse=True)
def loggers():
    """The root logger and pyflow's, as in a script that has not set them up."""
    found = [logging.getLogger(), logging.getLogger("pyflow")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in found]
    for logger, level in zip(found, (logging.WARNING, logging.NOTSET), strict=True):
        logger.handlers[:] = []
        logger.setLevel(level)
    yield found
    for logger, (handlers, level, propagate) in zip(found, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def tell(members=1):
    with _progress.reporter(None, True, None, "GIS", members) as report:
        for step in range(1, 6):
            report(pyflow.Progress("layer", step, 1, -1.5, NAN, NAN, -1.5, 0.0, members - 1))


@contextmanager
def heard(logger, level=logging.NOTSET):
    handler = Heard()
    logger.addHandler(handler)
    if level:
        logger.setLevel(level)
    yield handler.records


@pytest.mark.parametrize("which", [0, 1])
def test_who_has_set_up_logging_has_the_lines_there_and_nowhere_else(loggers, which, capfd):
    with heard(loggers[which], logging.INFO) as records:
        tell()
    assert [(r.name, r.levelno) for r in records] == [("pyflow", logging.INFO)]
    assert re.fullmatch(LINE, records[0].getMessage())
    assert capfd.readouterr() == ("", "")


def test_without_logging_the_lines_are_on_stderr(loggers, capfd):
    tell()
    assert re.fullmatch(LINE + "\n", capfd.readouterr().err)
    loggers[1].addHandler(logging.NullHandler())
    tell()
    assert re.fullmatch(LINE + "\n", capfd.readouterr().err)


def test_a_root_logger_that_only_hears_warnings_takes_no_line_from_stderr(loggers, capfd):
    with heard(loggers[0]) as records:
        tell()
    assert not records
    assert re.fullmatch(LINE + "\n", capfd.readouterr().err)


def test_a_level_of_pyflow_s_own_is_obeyed(loggers, capfd):
    loggers[1].setLevel(logging.WARNING)
    with heard(loggers[0], logging.INFO) as records:
        tell()
    assert not records
    assert capfd.readouterr().err == ""


def test_a_logger_cut_off_from_the_root_is_not_heard_there(loggers, capfd):
    loggers[1].propagate = False
    with heard(loggers[0], logging.INFO) as records:
        tell()
    assert not records
    assert re.fullmatch(LINE + "\n", capfd.readouterr().err)


def test_a_process_without_stderr_can_log(loggers, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with heard(loggers[1], logging.INFO) as records:
        tell()
    assert len(records) == 1


def test_a_line_says_which_member_it_is_of(capfd):
    tell(members=4)
    assert capfd.readouterr().err.startswith("GIS: member 4 of 4, layer 5, ")


def test_steps_of_a_mixture_are_those_of_the_member(capfd):
    x = np.random.default_rng(0).normal(size=(300, 2))
    pyflow.GIS(x, n_models=3, max_layers=2)
    line = capfd.readouterr().err.splitlines()[-1]
    member, step, total = map(
        int, re.match(r"GIS: member (\d) of 3, layer (\d+)/(\d+)", line).groups()
    )
    assert 1 <= member <= 3
    assert step <= total == 5


def test_the_bar_counts_the_steps_of_all_members(monkeypatch):
    from test_progress import Stream

    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", stream := Stream(True))
    with _progress.reporter(5, True, None, "GIS", 2) as report:
        for member in range(2):
            for step in range(1, 6):
                report(pyflow.Progress("layer", step, 1, -1.5, NAN, NAN, -1.5, 0.0, member))
    text = stream.getvalue()
    assert "GIS x 2" in text
    assert "10/10" in text
    assert "member 2: layer 5, log p -1.5000" in text
