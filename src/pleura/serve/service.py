"""From the bytes that a client sends to an answer: decoded, predicted and written within the limits."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

from pleura.data.in_memory import radiograph_in
from pleura.data.radiograph import pixels_of
from pleura.decision.levels import refuse_unless_kept
from pleura.decision.triplet import Triplet
from pleura.dicom.limits import SETTING, max_pixels
from pleura.dicom.read import Radiograph
from pleura.dicom.results import Algorithm
from pleura.errors import InputError
from pleura.files import file_with
from pleura.inference.prediction import Prediction
from pleura.serve.batching import Batcher
from pleura.serve.metrics import Metrics
from pleura.serve.problems import ProblemError
from pleura.serve.settings import ServeSettings
from pleura.serve.uploads import Held

T = TypeVar("T")
WORKERS = 2
"""Threads that decode radiographs and write answers, beside the net's."""


class Model(Protocol):
    """What the service needs of a `Predictor`."""

    triplet: Triplet

    @property
    def algorithm(self) -> Algorithm:
        """What the results are by."""

    def predict_radiographs(self, radiographs: Sequence[Radiograph]) -> list[Prediction]:
        """Find pneumothorax on radiographs that are already read, as one batch."""


class Service:
    """One model, and the work that it is given."""

    def __init__(self, model: Model, settings: ServeSettings) -> None:
        self.algorithm, self.settings, limits = model.algorithm, settings, settings.limits
        self.triplet = model.triplet
        self.metrics = Metrics(self.algorithm)
        self.held = Held(limits.held_bytes)
        self.stopping = False
        """Nothing new is taken."""
        self.taken = self._decoding = 0
        self._pixels = _Room(limits.pixels_in_flight)
        self._batcher = Batcher(
            model.predict_radiographs,
            settings.batch_size,
            limits.batch_wait_s,
            lambda: self._decoding,
            self.metrics.batch,
        )
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="pleura-work")
        self._net: asyncio.Task[None] | None = None
        self.metrics.gauge("pleura_queue_length", "Radiographs taken and not answered.", lambda: self.taken)
        self.metrics.gauge("pleura_queue_limit", "From which on they are refused.", lambda: limits.queue)
        self.metrics.gauge("pleura_held_bytes", "Of uploads.", lambda: self.held.bytes)
        self.metrics.gauge("pleura_stopping", "1 while nothing new is taken.", lambda: self.stopping)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Predict what is taken, for as long as the context lasts."""
        self._net = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            self._net.cancel()
            self._workers.shutdown(wait=False, cancel_futures=True)

    @property
    def is_alive(self) -> bool:
        """Whether what is taken can be predicted."""
        return self._net is not None and not self._net.done()

    def refuse_if_full(self) -> None:
        """Refuse before a body is read. Raises: ProblemError (busy)."""
        if self.taken >= self.settings.limits.queue:
            wait_s = max(1, math.ceil(self.taken * self._batcher.seconds))
            raise ProblemError(
                "busy", f"{self.taken} radiographs wait already; send it again later", retry_after_s=wait_s
            )

    def refuse_unless_kept(self, objects: Sequence[str]) -> None:
        """Refuse an object in which the model's decision rule would not find its mask. Raises: ProblemError."""
        try:
            if "probabilities" in objects:
                refuse_unless_kept(self.triplet)
        except InputError as error:
            raise ProblemError("no-object", str(error)) from error

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place in the queue. Raises: ProblemError (busy)."""
        self.refuse_if_full()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def answer(self, content: bytes | bytearray, write: Callable[[Prediction], T], with_grey: bool = False) -> T:
        """Predict the radiograph in the bytes of a file, and return what `write` makes of the prediction.

        content: freed once it is decoded, if the caller has no other use for it. with_grey: as
        `pleura.data.radiograph.read_radiograph`.
        Raises: ProblemError (unreadable, too-many-pixels, too-slow, and those of `write`).
        """
        limit_s, only = self.settings.limits.answer_s, [content]
        del content
        try:
            async with asyncio.timeout(limit_s):
                return await self._answer(only, write, with_grey)
        except TimeoutError as error:
            raise ProblemError("too-slow", f"there was no answer within {limit_s:g} s", retry_after_s=10) from error

    async def _answer(self, only: list[bytes | bytearray], write: Callable[[Prediction], T], with_grey: bool) -> T:
        clock = asyncio.get_running_loop().time
        pixels = await self.work(_pixels, only[0])
        if pixels > max_pixels():
            raise ProblemError(
                "too-many-pixels",
                f"its header says {pixels} pixels, and a radiograph may have {max_pixels()} here; {SETTING} of the "
                "service sets another limit",
            )
        async with self._pixels.of(pixels):
            times = [clock()]
            radiograph = await self._decoded(only.pop(), with_grey)
            times.append(clock())
            prediction = (await self._batcher.predict(radiograph)).at_prevalence(self.settings.prevalence)
            self.metrics.image(prediction.is_positive)
            times.append(clock())
            made = await self.work(write, prediction)
        for number, stage in enumerate(("decode", "predict", "write"), start=1):
            self.metrics.stage(stage, [*times, clock()][number] - times[number - 1])
        return made

    async def _decoded(self, content: bytes | bytearray, with_grey: bool) -> Radiograph:
        self._decoding += 1
        try:
            return await self.work(_decode, content, with_grey)
        except InputError as error:
            raise ProblemError("unreadable", str(error)) from error
        finally:
            self._decoding -= 1

    async def work(self, do: Callable[..., T], *arguments: object) -> T:
        """Do something in a thread that may take a moment, such as taking a large body apart."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, do, *arguments)


# Each has a file of its own: a thread goes on reading after the request that it was for has been given up.
def _pixels(content: bytes | bytearray) -> int:
    with file_with(content) as path:
        return pixels_of(path)


def _decode(content: bytes | bytearray, with_grey: bool) -> Radiograph:
    with file_with(content) as path:
        return radiograph_in(path, "file", with_grey)


class _Room:
    """Room for so much at a time, first come, first served; what is more than all of it has it alone."""

    def __init__(self, size: int) -> None:
        self._size, self._free = size, size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def of(self, amount: int) -> AsyncIterator[None]:
        """Wait for room, and have it for as long as the context lasts."""
        amount = min(amount, self._size)
        if self._waiting or amount > self._free:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((amount, future))
            try:
                await future
            except asyncio.CancelledError:
                was_given = future.done() and not future.cancelled()
                self._give(amount if was_given else 0)
                raise
        else:
            self._free -= amount
        try:
            yield
        finally:
            self._give(amount)

    def _give(self, amount: int) -> None:
        self._free += amount
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            wanted, future = self._waiting.popleft()
            if not future.done():
                self._free -= wanted
                future.set_result(None)
