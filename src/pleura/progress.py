"""Progress on standard error: a bar on a terminal, else lines now and then; and the time a loop waits for its items."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Generic, TypeVar

Item = TypeVar("Item")


def track(
    items: Iterable[Item], description: str | None, total: int | None = None, done: int = 0, images: int = 0
) -> Iterator[Item]:
    """Yield the items and show how far along they are, with the time left; `pleura --quiet` shows nothing.

    Where standard error is no terminal, a line is written after half a minute, and then ever more seldom, at last every
    ten minutes: short work writes none.
    description: None shows nothing. done: how many of `total` an earlier run finished. images: how many images an item
    has, for images a second; 0 shows no speed.
    """
    quiet = description is None or logging.getLogger("pleura").level > logging.INFO
    total = len(items) if total is None and isinstance(items, Sized) else total
    if quiet or not sys.stderr.isatty():
        yield from items if quiet else _in_lines(items, description or "", total, done)
        return
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
    with Progress(*columns, TimeRemainingColumn(), speed, console=console) as progress:
        task = progress.add_task(description or "", total=total, completed=done, speed="")
        began = time.monotonic()
        for number, item in enumerate(items, start=1):
            yield item
            rate = f"{number * images / (time.monotonic() - began):.1f} images/s" if images else ""
            progress.update(task, advance=1, speed=rate)


FIRST_LINE_S, RARELY_S = 30.0, 600.0


def _in_lines(items: Iterable[Item], description: str, total: int | None, done: int) -> Iterator[Item]:
    pause_s = FIRST_LINE_S
    began = written = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - written < pause_s:
            continue
        written, pause_s = now, min(2 * pause_s, RARELY_S)
        left = ""
        if total is not None:
            left = f" of {total}, about {(now - began) / number * (total - done - number) / 60:.1f} min left"
        sys.stderr.write(f"{description}: {done + number}{left}\n")
        sys.stderr.flush()


class Waiting(Generic[Item]):
    """Yields the items of another iterable, and measures how long it waits for them."""

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
