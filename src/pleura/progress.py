"""Progress bars on standard error, silent where nobody watches a terminal; and how long a loop waits for its items."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import Generic, TypeVar

Item = TypeVar("Item")


def track(
    items: Iterable[Item], description: str | None, total: int | None = None, done: int = 0, images: int = 0
) -> Iterator[Item]:
    """Yield the items and show how far along they are, with the time left.

    description: None shows nothing. done: items of `total` that an earlier run finished. images: in each item, to show
    images a second.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    speed = TextColumn("{task.fields[speed]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    hidden = description is None or not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), speed, console=console, disable=hidden) as progress:
        total = len(items) if total is None and isinstance(items, Sized) else total
        task = progress.add_task(description or "", total=total, completed=done, speed="")
        began = time.monotonic()
        for number, item in enumerate(items, start=1):
            yield item
            rate = f"{number * images / (time.monotonic() - began):.1f} images/s" if images else ""
            progress.update(task, advance=1, speed=rate)


class Waiting(Generic[Item]):
    """Yields the items of another iterable, and counts the seconds in which it had to wait for them."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.items = items
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Item]:
        iterator = iter(self.items)
        while True:
            began = time.monotonic()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited_s += time.monotonic() - began
            yield item
