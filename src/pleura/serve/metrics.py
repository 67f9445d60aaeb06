"""What the service counts and times, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from pleura.dicom.results import Algorithm

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one service. No label holds anything that a client sends."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._registry = CollectorRegistry()
        with_registry: Any = {"registry": self._registry}
        self._requests = Counter("pleura_requests", "Requests answered.", ["route", "status"], **with_registry)
        self._latency = Histogram(
            "pleura_request_seconds", "From a request's headers to the end of its answer.", ["route"],
            buckets=_SECONDS, **with_registry,
        )  # fmt: skip
        self._refusals = Counter("pleura_refusals", "Refused, by the code of the problem.", ["reason"], **with_registry)
        self._images = Counter("pleura_images", "Radiographs predicted, by what was found.", ["found"], **with_registry)
        self._stages = Histogram(
            "pleura_stage_seconds", "Of one radiograph: decode, wait for the net and pass it, write the answer.",
            ["stage"], buckets=_SECONDS, **with_registry,
        )  # fmt: skip
        self._net = Histogram("pleura_net_seconds", "Of one batch in the net.", buckets=_SECONDS, **with_registry)
        self._batches = Histogram(
            "pleura_batch_size", "Radiographs that passed the net together.", buckets=(1, 2, 4, 8, 16), **with_registry
        )
        self._gauges: list[Gauge] = []
        model = Info("pleura_model", "The model that predicts.", **with_registry)
        model.info({"name": algorithm.name, "version": algorithm.version, "weights_sha256": algorithm.weights_sha256})
        ProcessCollector(**with_registry)
        GCCollector(**with_registry)

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show a number as it is whenever it is asked for."""
        gauge = Gauge(name, meaning, registry=self._registry)
        gauge.set_function(value)
        self._gauges.append(gauge)

    def request(self, route: str, status: int, seconds: float, code: str | None) -> None:
        """Count an answered request. code: of the problem, where it was refused."""
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)
        if code is not None:
            self._refusals.labels(code).inc()

    def image(self, found: bool) -> None:
        """Count a predicted radiograph."""
        self._images.labels("pneumothorax" if found else "nothing").inc()

    def stage(self, stage: str, seconds: float) -> None:
        """Time a part of one radiograph's way."""
        self._stages.labels(stage).observe(seconds)

    def batch(self, size: int, seconds: float) -> None:
        """Count a batch that passed the net."""
        self._batches.observe(size)
        self._net.observe(seconds)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)
