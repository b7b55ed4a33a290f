"""No work at all: every record of `payments` again on `commissions`. The limit of what a client library can do.

    python copy_loop.py confluent|aiokafka KAFKA [--transactions]

With --transactions outputs and positions go out together, every 100 ms, exactly once.
"""

import asyncio
import signal
import sys
import time
from typing import Any

COMMIT_SECONDS = 0.1
TAKEN = 5_000
stopping = False


def stop(*_: object) -> None:
    global stopping
    stopping = True


_consumed = False


def consumed() -> None:
    """Says once when the first record came."""
    global _consumed
    if not _consumed:
        _consumed = True
        print(f"FIRST {int(time.time() * 1000)}", flush=True)


def confluent(kafka: str, transactions: bool) -> None:
    from confluent_kafka import Consumer, Producer

    options = {"bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 5, "batch.size": 256 * 1024}
    options |= {"partitioner": "murmur2_random", "queue.buffering.max.messages": 500_000}
    producer = Producer(options | ({"transactional.id": "copy"} if transactions else {}))
    if transactions:
        producer.init_transactions(30)
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "copy", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        | {"queued.min.messages": 100_000}
    )
    consumer.subscribe(["payments"])
    began: float | None = None
    while not stopping:
        messages = [message for message in consumer.consume(TAKEN, 0.05) if message.error() is None]
        if messages:
            consumed()
            if transactions and began is None:
                producer.begin_transaction()
                began = time.monotonic()
            for message in messages:
                producer.produce("commissions", message.value(), message.key())
            producer.poll(0)
        if began is not None and time.monotonic() - began >= COMMIT_SECONDS:
            at = [position for position in consumer.position(consumer.assignment()) if position.offset >= 0]
            producer.send_offsets_to_transaction(at, consumer.consumer_group_metadata())
            producer.commit_transaction()
            began = None
    consumer.close()


async def aiokafka(kafka: str, transactions: bool) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    own: dict[str, Any] = {"transactional_id": "copy"} if transactions else {"enable_idempotence": True}
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", linger_ms=0, max_batch_size=256 * 1024, **own)
    consumer = AIOKafkaConsumer(
        "payments",
        bootstrap_servers=kafka,
        group_id="copy",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    await producer.start()
    await consumer.start()
    began: float | None = None
    positions: dict[Any, int] = {}
    while not stopping:
        fetched = await consumer.getmany(timeout_ms=50, max_records=TAKEN)
        if fetched:
            consumed()
            if transactions and began is None:
                await producer.begin_transaction()
                began = time.monotonic()
            sent = [await _copied(producer, at.partition, messages) for at, messages in fetched.items()]
            positions |= {at: messages[-1].offset + 1 for at, messages in fetched.items()}
            if not transactions:
                await asyncio.gather(*(each for some in sent for each in some))
        if began is not None and time.monotonic() - began >= COMMIT_SECONDS:
            await producer.send_offsets_to_transaction(positions, "copy")
            await producer.commit_transaction()
            began = None
    await consumer.stop()
    await producer.stop()


async def _copied(producer: Any, partition: int, messages: list[Any]) -> list[Any]:
    """Whole batches, packed here: cheaper than a record at a time."""
    sent, batch = [], producer.create_batch()
    for message in messages:
        if batch.append(key=message.key, value=message.value, timestamp=None) is None:
            sent.append(await producer.send_batch(batch, "commissions", partition=partition))
            batch = producer.create_batch()
            batch.append(key=message.key, value=message.value, timestamp=None)
    return [*sent, await producer.send_batch(batch, "commissions", partition=partition)]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    library, bootstrap, *more = sys.argv[1:]
    if library == "confluent":
        confluent(bootstrap, bool(more))
    else:
        asyncio.run(aiokafka(bootstrap, bool(more)))
