"""Showing how far a run is: a bar on a terminal, a line now and then in a log."""

import time
from collections.abc import Callable, Iterator, Sized
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item", covariant=True)

_LINE_SECONDS = 5.0
_BAR_SECONDS = 0.25


class SizedIterable(Sized, Protocol[Item]):
    """Anything with a length that can be walked: a list, a tensor, a `DataLoader`."""

    def __iter__(self) -> Iterator[Item]: ...


def track(
    items: SizedIterable[Item],
    *,
    title: str,
    done: int = 0,
    total: int | None = None,
    status: Callable[[], str] = lambda: "",
) -> Iterator[Item]:
    """Yield ``items`` and show progress through a run that they are a part of, on standard error.

    Args:
        items: what is left of this part, for example the batches of an epoch.
        title: the part's name, such as ``epoch 2/8``.
        done: items of the run before this part.
        total: items of the whole run, for the estimate of the time left; default: this part alone.
        status: called when something is shown, at most four times a second, for what stands beside the bar.

    Example:
        >>> list(track([1, 2, 3], title="counting"))
        [1, 2, 3]
    """
    console = Console(stderr=True)
    whole = total or done + len(items)
    show = _bar if console.is_terminal else _lines
    return show(console, items, title, done, whole, status)


def _bar(
    console: Console, items: SizedIterable[Item], title: str, done: int, total: int, status: Callable[[], str]
) -> Iterator[Item]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total, completed=done, status="")
        shown = time.monotonic()
        for count, item in enumerate(items, start=done + 1):
            yield item
            if time.monotonic() - shown > _BAR_SECONDS:
                progress.update(task, completed=count, status=status())
                shown = time.monotonic()


def _lines(
    console: Console, items: SizedIterable[Item], title: str, done: int, total: int, status: Callable[[], str]
) -> Iterator[Item]:
    begin = shown = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown > _LINE_SECONDS:
            minutes, seconds = divmod(round((now - begin) / count * (total - done - count)), 60)
            line = f"{title}: {count / len(items):.0%} {status()} ETA {minutes}:{seconds:02d}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            shown = now
