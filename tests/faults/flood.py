"""Publishing much, and what is not refstream's own way of writing: librdkafka, with any compression and any header."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from schemas.events import Event, event_json
from schemas.ids import partition_of
from schemas.topics import TOPIC_OF
from services.runtime.settings import Settings
from tests.faults.garbage import CODECS, Garbage

FLUSH_SECONDS = 300
Placed = Callable[[Garbage, tuple[str, int, int]], None]


def publish_ten_times(settings: Settings, phases: Sequence[Sequence[Event]], rng: random.Random) -> int:
    """Each event ten times, all mixed; only the first ones of each phase keep their order. Answers how many."""
    order: list[tuple[float, int, Event]] = []
    for phase in phases:
        for at, event in zip(sorted(rng.random() for _ in phase), phase, strict=True):
            order += [(moment, len(order), event) for moment in (at, *(rng.uniform(at, 1) for _ in range(9)))]
    order.sort(key=lambda each: each[:2])
    producer = _producer(settings, "none", linger=50)
    lost: list[str] = []
    for _, _, event in order:
        topic = TOPIC_OF[type(event.data)]
        key = topic.key(event.data)
        told = {"key": key, "partition": partition_of(key, settings.partitions), "on_delivery": _complain(lost)}
        _produce(producer, topic.name, event_json(event), **told)
    assert producer.flush(FLUSH_SECONDS) == 0
    assert lost == []
    return len(order)


def publish_garbage(settings: Settings, records: Iterable[Garbage], placed: Placed) -> None:
    """Write garbage as it is. `placed` is told where each record stands: topic, partition, offset."""
    producers = {codec: _producer(settings, codec, linger=5) for codec in CODECS}
    lost: list[str] = []
    for one in records:

        def written(error: KafkaError | None, message: Message, one: Garbage = one) -> None:
            if error:
                lost.append(f"{error} {one}")
            else:
                placed(one, (one.topic, int(message.partition() or 0), int(message.offset() or 0)))

        told = {"key": one.key, "partition": one.partition, "headers": list(one.headers), "on_delivery": written}
        _produce(producers[one.codec], one.topic, one.value, **told)
    assert [producer.flush(FLUSH_SECONDS) for producer in producers.values()] == [0] * len(producers)
    assert lost == []


def _producer(settings: Settings, codec: str, linger: int) -> Producer:
    return Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap(),
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": codec,
            "linger.ms": linger,
            "message.max.bytes": 1_048_576,
        }
    )


def _produce(producer: Producer, topic: str, value: bytes | None, **told: Any) -> None:
    while True:
        try:
            producer.produce(topic, value, **told)
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.1)


def _complain(lost: list[str]) -> Callable[[KafkaError | None, Message], None]:
    def written(error: KafkaError | None, _: Message) -> None:
        if error:
            lost.append(str(error))

    return written
