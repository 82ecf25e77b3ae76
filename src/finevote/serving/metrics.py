"""Counts and times of one process, as Prometheus reads them; a registry of its own."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from finevote.serving.batching import Told

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What a server counts. Names, keys and contents of requests are in none of it."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "finevote_requests", "Requests answered.", ["method", "path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "finevote_request_seconds",
            "From a request's head to its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._refusals = Counter("finevote_refusals", "Requests and images refused.", ["kind"], registry=registry)
        self._images = Counter("finevote_images", "Images answered.", registry=registry)
        self._batches = Histogram(
            "finevote_batch_images", "Images in a forward pass.", buckets=_SIZES, registry=registry
        )
        self._passes = Histogram("finevote_forward_seconds", "Of a forward pass.", buckets=_SECONDS, registry=registry)
        self._waiting = Gauge("finevote_images_waiting", "Images accepted and not yet answered.", registry=registry)
        self._in_flight = Gauge("finevote_requests_in_flight", "Requests being answered.", registry=registry)
        self._model = Info("finevote_model", "Which model is served.", registry=registry)

    def describe_model(self, *, name: str, sha256: str, version: str) -> None:
        """Say which model is served."""
        self._model.info({"name": name, "sha256": sha256, "finevote": version})

    def watch(self, *, num_waiting: Callable[[], float], num_in_flight: Callable[[], float]) -> None:
        """Say where the gauges look."""
        self._waiting.set_function(num_waiting)
        self._in_flight.set_function(num_in_flight)

    def count_request(self, *, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_refusal(self, kind: str) -> None:
        """Count a request or an image that was refused."""
        self._refusals.labels(kind).inc()

    def count_pass(self, told: Told) -> None:
        """Count a forward pass."""
        self._images.inc(told.num_images)
        self._batches.observe(told.num_images)
        self._passes.observe(told.seconds)

    def render(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self._registry)
