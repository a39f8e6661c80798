"""What a server counts, in Prometheus' terms."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """One registry a server, so that several in a process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("wam_requests", "Requests by what became of them", ["outcome"], registry=registry)
        self.turned_away = Counter(
            "wam_turned_away", "Connections that were not let in, by reason", ["reason"], registry=registry
        )
        self.sessions = Gauge("wam_sessions", "Sessions that are open", registry=registry)
        self.viewers = Gauge("wam_viewers", "Live pages that are open", registry=registry)
        self.batch = Histogram(
            "wam_batch_size", "Observations in a call", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.infer_seconds = Histogram("wam_infer_seconds", "A call of the policy", buckets=SECONDS, registry=registry)
        self.queue_seconds = Histogram("wam_queue_seconds", "Waiting for it", buckets=SECONDS, registry=registry)
        self.request_seconds = Histogram(
            "wam_request_seconds", "From a request's frame to its answer's", buckets=SECONDS, registry=registry
        )
        for outcome in ("answered", "refused", "failed", "vanished"):
            self.requests.labels(outcome)

    def called(self, batch: int, seconds: float) -> None:
        """A call of the policy came back."""
        self.batch.observe(batch)
        self.infer_seconds.observe(seconds)

    def outcome(self, name: str, count: int = 1) -> None:
        """answered; refused: the client's fault; failed: the server's; vanished: nobody was left to be answered."""
        self.requests.labels(name).inc(count)

    def text(self) -> bytes:
        return generate_latest(self.registry)
