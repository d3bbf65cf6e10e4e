"""Work over many small items on every core, with progress for whatever takes longer than a moment."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_FIRST_LINE_AFTER = 2.0  # seconds of silence: short work prints nothing
_LINE_EVERY = 5.0  # seconds between two plain lines
_work: Callable[[int, int], Any]  # in a worker process: what it was forked to do


def cores() -> int:
    """Return how many cores this process may use: its CPU affinity, not the size of the machine.

    Example:
        >>> cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ranges(
    function: Callable[[int, int], T], count: int, *, what: str, chunk: int = 512, unit: str = "images"
) -> Iterator[T]:
    """Yield ``function(start, stop)`` for consecutive ranges that cover ``range(count)``, in order.

    The ranges run in forked worker processes, one for each core, because Python-level work on small images
    does not scale with threads. What ``function`` closes over is inherited, not pickled, and it may write
    into memory shared with its parent; only its return value travels. It must use nothing but NumPy, Pillow
    and the standard library, which is what makes forking safe beside a loaded torch. Where a process cannot
    be forked, threads do the same.

    Example:
        >>> list(map_ranges(lambda start, stop: stop - start, 5, what="Counting", chunk=2))
        [2, 2, 1]
    """
    starts = range(0, count, chunk)
    stops = [min(start + chunk, count) for start in starts]
    workers = min(cores(), len(starts))
    if workers <= 1:
        yield from progress(map(function, starts, stops), stops, what=what, unit=unit)
        return
    pool, call = _pool(function, workers)
    try:
        yield from progress(pool.map(call, starts, stops), stops, what=what, unit=unit)
    finally:
        pool.shutdown(cancel_futures=True)


def progress(items: Iterable[T], done: list[int], *, what: str, unit: str = "images") -> Iterator[T]:
    """Yield ``items``, showing that ``done[i]`` units are finished after item ``i``.

    A bar on a terminal; elsewhere a line every few seconds. Nothing at all for work under two seconds.
    """
    began = time.monotonic()
    total = done[-1] if done else 0
    if sys.stderr.isatty():
        yield from _bar(items, done, total, what)
        return
    next_line = began + _FIRST_LINE_AFTER
    for item, finished in zip(items, done, strict=True):
        yield item
        now = time.monotonic()
        if now >= next_line:
            left = (now - began) * (total - finished) / finished
            print(f"{what}: {finished:,} of {total:,} {unit}, {left:.0f} s left", file=sys.stderr, flush=True)
            next_line = now + _LINE_EVERY


def _bar(items: Iterable[T], done: list[int], total: int, what: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        for item, finished in zip(items, done, strict=True):
            yield item
            bar.update(task, completed=finished)


def _pool(function: Callable[[int, int], T], workers: int) -> tuple[Executor, Callable[[int, int], T]]:
    """Return a pool of ``workers`` and what to submit to it."""
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    if not can_fork or multiprocessing.current_process().daemon:  # a daemon may have no children
        return ThreadPoolExecutor(workers), function
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(workers, context, initializer=_install, initargs=(function,)), _call


def _install(function: Callable[[int, int], Any]) -> None:
    global _work
    _work = function


def _call(start: int, stop: int) -> Any:
    return _work(start, stop)
