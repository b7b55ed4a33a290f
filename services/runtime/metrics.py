"""Every metric of the HTTP APIs, with its meaning. Labels never hold ids: they would grow without end."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram


def _requests(registry: CollectorRegistry) -> Counter:
    return Counter(
        "refstream_http_requests_total",
        "Requests answered, by route template, method and status.",
        ("service", "route", "method", "status"),
        registry=registry,
    )


def _request_seconds(registry: CollectorRegistry) -> Histogram:
    return Histogram(
        "refstream_http_request_seconds",
        "Time from a request's first byte to the end of its answer.",
        ("service", "route", "method"),
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
        registry=registry,
    )


def _commands(registry: CollectorRegistry) -> Counter:
    return Counter(
        "refstream_commands_total",
        "Commands written, by type and outcome: done, pending (none after 5 s) or the code of the refusal.",
        ("service", "type", "outcome"),
        registry=registry,
    )


@dataclass(frozen=True)
class Metrics:
    """The metrics of one app. Each app has its own registry, so that several can live in one process."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    request_seconds: Histogram = field(init=False)
    commands: Counter = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "requests", _requests(self.registry))
        object.__setattr__(self, "request_seconds", _request_seconds(self.registry))
        object.__setattr__(self, "commands", _commands(self.registry))
