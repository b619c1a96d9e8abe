"""The same question of many points, several at a time: each in a thread of its own, all serial.

So what is done between calls of the core runs side by side as well, and at the end of a call nobody
waits for others. Whatever the number of threads, the answers are those of one after another.
"""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections import deque

from pyflow import _core

AHEAD = 4  # answers for every worker, at most, that wait for an earlier one
LOOK = 0.1  # seconds: a Ctrl-C just before the caller's thread began to wait does not wake it

_current = contextvars.ContextVar(
    "_current", default=None
)  # the question that this code is part of


class _Stopped(Exception):
    """Another question has failed, or all are to end."""


class _Question:
    """One of the questions, and the warnings of its answer, which the caller's thread is to give.

    What NumPy does with overflows, and whatever else is set for the caller, holds in its thread.
    """

    def __init__(self, ask, arguments, stop):
        self.ask, self.arguments, self.stop, self.warnings = ask, arguments, stop, []
        self.context = contextvars.copy_context()

    def check(self):
        if self.stop.is_set():
            raise _Stopped

    def answer(self):
        return self.context.run(self._answer)

    def answer_in_worker(self, threads):
        self.check()
        _core.work(threads, self.check)
        try:
            return self.answer()
        finally:
            _core.work()

    def _answer(self):
        _current.set(self)
        return self.ask(*self.arguments), self.warnings


def check():
    """End the question that this is part of, if all are to end: calls of the core may be short."""
    question = _current.get()
    if question is not None:
        question.check()


def asked():
    """Whether this is part of a question, one of many."""
    return _current.get() is not None


def kept(message, category):
    """Keep a warning for the caller's thread, and return True, if this is part of a question."""
    question = _current.get()
    if question is not None:
        question.warnings.append((message, category))
    return question is not None


def in_order(ask, arguments, workers):
    """Yield ask(*a) and its warnings, for every a of an iterable, in their order.

    The iterable is read in the caller's thread, not long before an answer is needed. An exception
    of `ask` is raised in place of its answer: the first of several, whatever the threads do.
    However this ends, what still runs ends at once.

    Parameters
    ----------
    ask : callable
    arguments : iterable of tuple
    workers : int
        Questions at a time, at most; there are no more than `get_num_threads()`.

    Yields
    ------
    answer : object
    warnings : list of (str, type)
        Messages and categories.
    """
    threads, stop = _core.get_num_threads(), threading.Event()
    workers = max(min(workers, threads), 1)
    questions = (_Question(ask, a, stop) for a in arguments)
    if workers == 1:
        for question in questions:
            yield question.answer()
        return
    from concurrent.futures import ThreadPoolExecutor, wait  # takes long to load

    waiting = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                for question in itertools.islice(questions, AHEAD * workers - len(waiting)):
                    waiting.append(pool.submit(question.answer_in_worker, threads // workers))
                if not waiting:
                    return
                answer = waiting.popleft()
                while not answer.done():
                    wait([answer], timeout=LOOK)
                yield answer.result()
        finally:
            stop.set()
