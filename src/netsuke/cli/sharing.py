"""Many images over processes: one at first, and all cores once that is worth their start."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from time import monotonic

from netsuke.cli import console
from netsuke.cli.reading import Entry, Job, Line, Settings, Worker
from netsuke.errors import OptionError

WORTH = 2.0  # seconds of work that must be left for processes to be started
TRIED = 0.5  # seconds after which that is judged
AHEAD = 4  # tasks a process that wait for it: bounds what is in memory


def cores() -> int:
    """Those that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS, not on Windows
        return os.cpu_count() or 1


def entries(plan: Line, settings: Settings, jobs: int) -> Iterator[Entry]:
    """The entry of every job, in order. `jobs` processes share the work where over WORTH seconds of it are left.

    Raises OptionError for fewer than one job, and what Worker raises.
    """
    if jobs < 1:
        raise OptionError(f"--jobs must be at least 1; got {jobs}")
    worker, start = Worker(settings), monotonic()
    line = iter(plan)
    for done, job in enumerate(line):
        spent = monotonic() - start
        if jobs > 1 and done and spent > TRIED and spent / done * (plan.total - done) > WORTH:
            yield from _shared(chain([job], line), settings, jobs)
            return
        yield worker(job)


_WORKER: Worker | None = None


def _start(settings: Settings) -> None:
    import signal

    import cv2

    global _WORKER
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    cv2.setNumThreads(1)
    _WORKER = Worker(settings)


def _work(job: Job) -> Entry:
    assert _WORKER is not None
    return _WORKER(job)


def _pool(settings: Settings, jobs: int) -> ProcessPoolExecutor:
    import multiprocessing

    context = multiprocessing.get_context("spawn")  # a fork would inherit the threads of the runtimes
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(settings,))


def _shared(line: Iterable[Job], settings: Settings, jobs: int) -> Iterator[Entry]:
    """In order, with AHEAD jobs a process under way; a job that kills its process costs only itself."""
    line = iter(line)
    waiting: deque[tuple[Job, Future[Entry]]] = deque()
    pool = _pool(settings, jobs)
    try:
        while True:
            for job in islice(line, AHEAD * jobs - len(waiting)):
                waiting.append((job, _given(pool, job)))
            if not waiting:
                return
            job, future = waiting.popleft()
            try:
                yield future.result()
            except BrokenProcessPool:
                pool.shutdown(cancel_futures=True)
                yield _alone(job, settings)
                pool = _pool(settings, jobs)
                again = [late for late, _ in waiting]
                waiting = deque((late, _given(pool, late)) for late in again)
    finally:
        pool.shutdown(cancel_futures=True)


def _given(pool: ProcessPoolExecutor, job: Job) -> Future[Entry]:
    """The job's answer to come. A process that this starts inherits that Ctrl-C waits, until it knows to ignore it."""
    with console.whole():
        return pool.submit(_work, job)


def _alone(job: Job, settings: Settings) -> Entry:
    """The job in a process of its own, which it may kill."""
    with _pool(settings, 1) as pool:
        try:
            return _given(pool, job).result()
        except BrokenProcessPool:
            error = f"{job.task.label}: reading it ended the process; it may need more memory than there is"
            return {"file": job.task.name, "results": [], "error": error}
