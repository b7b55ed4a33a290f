"""Publishes W1's payments at a steady rate, in a process of its own.

    python -m services.cli.bench.pace RATE SECONDS CUSTOMERS FIRST

What is due is published every 10 ms, however long Kafka takes: it never waits for an answer. FIRST: how many payments
to leave out, which were published before.
"""

import asyncio
import sys
import time
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer

from schemas.ids import partition_of
from schemas.topics import PAYMENTS
from services.cli.bench.workload import Workload
from services.runtime.settings import Settings

TICK_SECONDS = 0.01


async def pace(settings: Settings, rate: float, seconds: float, customers: int, first: int) -> None:
    count = int(rate * seconds)
    records = islice(Workload(first + count, customers).payments(), first, first + count)
    async with AIOKafkaProducer(**settings.kafka_client_options(), acks="all", enable_idempotence=True) as producer:
        began, published, sent = time.monotonic(), 0, list[Any]()
        while published < count:
            due = min(count, int((time.monotonic() - began) * rate))
            batches: dict[int, Any] = {}
            for key, value in islice(records, due - published):
                partition = partition_of(key, settings.partitions)
                batch = batches.setdefault(partition, producer.create_batch())
                if batch.append(key=key.encode(), value=value, timestamp=None) is None:
                    sent.append(await producer.send_batch(batch, PAYMENTS.name, partition=partition))
                    batch = batches[partition] = producer.create_batch()
                    batch.append(key=key.encode(), value=value, timestamp=None)
            sent += [await producer.send_batch(each, PAYMENTS.name, partition=at) for at, each in batches.items()]
            published = due
            await asyncio.sleep(TICK_SECONDS)
        await asyncio.gather(*sent)


if __name__ == "__main__":
    rate, seconds, customers, first = sys.argv[1:]
    asyncio.run(pace(Settings.load(), float(rate), float(seconds), int(customers), int(first)))
