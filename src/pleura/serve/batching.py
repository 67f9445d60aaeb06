"""Micro-batching: one thread runs the net, on what has been decoded by then."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pleura.dicom.read import Radiograph
from pleura.inference.prediction import Prediction


class Batcher:
    """Collects radiographs for the net. They wait for others only while some are coming, and `wait_s` at most."""

    def __init__(
        self,
        predict: Callable[[Sequence[Radiograph]], list[Prediction]],
        batch_size: int,
        wait_s: float,
        coming: Callable[[], int],
        observe: Callable[[int, float], None],
    ) -> None:
        """coming: how many radiographs are being decoded. observe: takes the size of a batch, and its seconds."""
        self._predict, self._batch_size, self._wait_s = predict, batch_size, wait_s
        self._coming, self._observe = coming, observe
        self._waiting: deque[tuple[Radiograph, asyncio.Future[Prediction]]] = deque()
        self._arrived = asyncio.Event()
        self._net = ThreadPoolExecutor(1, thread_name_prefix="pleura-net")
        self.seconds = 1.0
        """That the last radiograph took in the net: what a client is told to wait."""

    async def predict(self, radiograph: Radiograph) -> Prediction:
        """Return the prediction of one radiograph. Raises: whatever the predictor raises."""
        future: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._waiting.append((radiograph, future))
        self._arrived.set()
        return await future

    async def run(self) -> None:
        """Predict what arrives, until cancelled."""
        try:
            while True:
                await self._arrived.wait()
                await self._complete()
                await self._run(self._batch())  # without a name here, which would keep it until the next one comes
        finally:
            self._net.shutdown(wait=False, cancel_futures=True)

    def _batch(self) -> list[tuple[Radiograph, asyncio.Future[Prediction]]]:
        batch = [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]
        if not self._waiting:
            self._arrived.clear()
        return [pair for pair in batch if not pair[1].done()]  # of a client that is gone, nothing is predicted

    async def _complete(self) -> None:
        """Wait until the batch is full, nothing more is coming, or the time is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_s
        while len(self._waiting) < self._batch_size and self._coming() and (left := until - loop.time()) > 0:
            await asyncio.sleep(min(left, 0.001))

    async def _run(self, batch: list[tuple[Radiograph, asyncio.Future[Prediction]]]) -> None:
        if not batch:
            return
        loop = asyncio.get_running_loop()
        started = loop.time()
        done = loop.run_in_executor(self._net, self._predict, [radiograph for radiograph, _ in batch])
        await asyncio.wait([done])
        self.seconds = (loop.time() - started) / len(batch)
        self._observe(len(batch), loop.time() - started)
        error = done.exception()
        if error is not None and len(batch) > 1:  # which of them it is shows one by one
            for pair in batch:
                await self._run([pair])
            return
        for number, (_, future) in enumerate(batch):
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result()[number])
