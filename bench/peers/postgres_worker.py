"""W1 as a worker on PostgreSQL: all state in tables, a database transaction for every 500 records or fewer.

    python postgres_worker.py KAFKA DSN

Exactly once: a decision is stored beside the position of the record that it is about, and outputs go out with the
positions in one Kafka transaction every 100 ms. What is read again after a crash is published again from its row; any
other repeat is dropped. Decides in the order of arrival; a payment without a referral is put by.
"""

import signal
import sys
import time
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import orjson
import psycopg
from confluent_kafka import Consumer, Producer, TopicPartition

BATCH, COMMIT_SECONDS = 500, 0.1
SCHEMA = """
CREATE TABLE IF NOT EXISTS referrals (
  customer_id text PRIMARY KEY, partner_id text NOT NULL, program_id text NOT NULL, program_version int NOT NULL,
  attributed_at timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS partners (
  partner_id text PRIMARY KEY, clients int NOT NULL DEFAULT 0, balance bigint NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS clients (partner_id text, customer_id text, PRIMARY KEY (partner_id, customer_id));
CREATE TABLE IF NOT EXISTS decisions (
  payment_id text PRIMARY KEY, partition int NOT NULL, position bigint NOT NULL, number bigserial,
  partner_id text NOT NULL, event text NOT NULL);
CREATE TABLE IF NOT EXISTS waiting (payment_id text PRIMARY KEY, customer_id text NOT NULL, event jsonb NOT NULL);
"""
Event = dict[str, Any]
Said = tuple[str, bytes]
"""Partner id and event."""

stopping = False


def stop(*_: object) -> None:
    global stopping
    stopping = True


# --- deciding -------------------------------------------------------------------------------------------------------


def envelope(kind: str, id_: str, at: str, data: Event) -> bytes:
    head = {"specversion": "1.0", "id": id_, "source": "/commission", "type": kind, "time": at}
    return orjson.dumps({**head, "datacontenttype": "application/json", "data": data})


def about(paid: Event, by: tuple[Any, ...]) -> Event:
    named = {name: paid["data"].get(name) for name in ("payment_id", "customer_id", "account_id")}
    return named | {"partner_id": by[0], "program_id": by[1], "program_version": by[2]}


def accrued(paid: Event, by: tuple[Any, ...], clients: int) -> tuple[int, bytes]:
    rate = Decimal("0.30" if clients >= 21 else "0.20" if clients >= 6 else "0.10")
    base = paid["data"]["amount"]
    minor = int((base["minor"] * rate).quantize(Decimal(1), ROUND_HALF_EVEN))
    id_ = f"com-{paid['data']['payment_id']}"
    amount = {"minor": minor, "currency": base["currency"]}
    data = {"commission_id": id_, **about(paid, by), "base": base, "rate": str(rate), "amount": amount}
    return minor, envelope("commission.accrued", id_, paid["time"], data | {"available_at": paid["time"]})


def declined(paid: Event, by: tuple[Any, ...]) -> bytes:
    id_ = f"dec-{paid['data']['payment_id']}"
    return envelope("commission.declined", id_, paid["time"], about(paid, by) | {"reason": "outside_window"})


def earns(paid: Event, bound: datetime) -> bool:
    try:
        end = bound.replace(year=bound.year + 1)
    except ValueError:  # 29 February
        end = bound.replace(year=bound.year + 1, day=28)
    return bound <= datetime.fromisoformat(paid["time"]) < end


# --- the database ---------------------------------------------------------------------------------------------------


def bind(database: Any, events: list[Event]) -> None:
    columns = ("customer_id", "partner_id", "program_id", "program_version", "attributed_at")
    with database.transaction(), database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO referrals SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], "
            "%s::timestamptz[]) ON CONFLICT DO NOTHING",
            [[event["data"][name] for event in events] for name in columns],
        )


def decide(database: Any, events: list[Event]) -> list[Said]:
    """One transaction; what is to be said, in order."""
    first: dict[str, Event] = {}
    for event in events:
        first.setdefault(event["data"]["payment_id"], event)
    with database.transaction(), database.cursor() as cursor:
        customers = list({event["data"]["customer_id"] for event in events})
        cursor.execute(
            "SELECT customer_id, partner_id, program_id, program_version, attributed_at FROM referrals "
            "WHERE customer_id = ANY(%b)",
            [customers],
        )
        referrals = {row[0]: row[1:] for row in cursor}
        cursor.execute(
            "SELECT payment_id, partition, position, partner_id, event FROM decisions WHERE payment_id = ANY(%b) "
            "ORDER BY number",
            [list(first)],
        )
        known = {row[0]: row[1:] for row in cursor}
        new = [event for payment_id, event in first.items() if payment_id not in known]
        _put_by(cursor, [event for event in new if event["data"]["customer_id"] not in referrals])
        places = {event["place"] for event in events}
        again = [(row[2], row[3].encode()) for row in known.values() if (row[0], row[1]) in places]
        return again + _priced(cursor, [e for e in new if e["data"]["customer_id"] in referrals], referrals)


def _put_by(cursor: Any, early: list[Event]) -> None:
    if early:
        rows = [(e["data"]["payment_id"], e["data"]["customer_id"], orjson.dumps(e["data"]).decode()) for e in early]
        cursor.executemany("INSERT INTO waiting VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", rows)


def _priced(cursor: Any, events: list[Event], referrals: dict[str, tuple[Any, ...]]) -> list[Said]:
    paying = [(event, referrals[event["data"]["customer_id"]]) for event in events]
    pairs = list({(by[0], event["data"]["customer_id"]) for event, by in paying if earns(event, by[3])})
    partners, new_clients = _locked(cursor, pairs)
    rows, said = [], []
    for event, by in paying:
        customer = event["data"]["customer_id"]
        if earns(event, by[3]):
            partner = partners[by[0]]
            partner[0] += (by[0], customer) in new_clients
            new_clients.discard((by[0], customer))
            minor, value = accrued(event, by, partner[0])
            partner[1] += minor
        else:
            value = declined(event, by)
        rows.append((event["data"]["payment_id"], *event["place"], by[0], value.decode()))
        said.append((by[0], value))
    _store(cursor, partners, rows)
    return said


def _locked(cursor: Any, pairs: list[tuple[str, str]]) -> tuple[dict[str, list[int]], set[tuple[str, str]]]:
    """The partners' clients and balances, locked, and which of the pairs are new clients."""
    if not pairs:
        return {}, set()
    owners = sorted({partner for partner, _ in pairs})
    cursor.execute("INSERT INTO partners (partner_id) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", [owners])
    cursor.execute(
        "SELECT partner_id, clients, balance FROM partners WHERE partner_id = ANY(%s) ORDER BY partner_id FOR UPDATE",
        [owners],
    )
    partners = {row[0]: [row[1], row[2]] for row in cursor}
    cursor.execute(
        "INSERT INTO clients SELECT * FROM unnest(%b::text[], %b::text[]) ON CONFLICT DO NOTHING "
        "RETURNING partner_id, customer_id",
        [[partner for partner, _ in pairs], [customer for _, customer in pairs]],
    )
    return partners, set(cursor.fetchall())


def _store(cursor: Any, partners: dict[str, list[int]], rows: list[tuple[Any, ...]]) -> None:
    if partners:
        clients, balances = ([each[column] for each in partners.values()] for column in (0, 1))
        cursor.execute(
            "UPDATE partners SET clients = moved.clients, balance = moved.balance FROM "
            "unnest(%s::text[], %s::int[], %s::bigint[]) AS moved (id, clients, balance) WHERE partner_id = moved.id",
            [list(partners), clients, balances],
        )
    if rows:
        with cursor.copy("COPY decisions (payment_id, partition, position, partner_id, event) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


# --- Kafka ----------------------------------------------------------------------------------------------------------


class Worker:
    """Reads referrals to their end before any payment, then both as they come."""

    def __init__(self, kafka: str, dsn: str) -> None:
        self._database = psycopg.connect(dsn, autocommit=True)
        self._database.execute(SCHEMA)
        common = {"bootstrap.servers": kafka}
        self._consumer = Consumer(
            common
            | {"group.id": "w1", "auto.offset.reset": "earliest", "enable.auto.commit": False}
            | {"queued.min.messages": 20_000}
        )
        self._producer = Producer(
            common
            | {"transactional.id": "w1", "linger.ms": 5, "batch.size": 256 * 1024, "partitioner": "murmur2_random"}
        )
        self._producer.init_transactions(30)
        self._referrals_end: dict[int, int] = {}
        self._held: list[TopicPartition] = []
        self._began: float | None = None
        self._consumed = False
        self._consumer.subscribe(["referrals", "payments"], on_assign=self._assigned)

    def _assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        consumer.assign(partitions)
        for at in (each for each in partitions if each.topic == "referrals"):
            end = consumer.get_watermark_offsets(at)[1]
            if max(consumer.committed([at])[0].offset, 0) < end:
                self._referrals_end[at.partition] = end
        if self._referrals_end:
            self._held = [at for at in partitions if at.topic == "payments"]
            consumer.pause(self._held)

    def run(self) -> None:
        while not stopping:
            messages = [each for each in self._consumer.consume(BATCH, 0.05) if each.error() is None]
            if messages:
                self._begin()
                self._fold(messages)
            if self._began is not None and time.monotonic() - self._began >= COMMIT_SECONDS:
                self._commit()
        if self._began is not None:
            self._commit()
        self._consumer.close()

    def _begin(self) -> None:
        if not self._consumed:
            self._consumed = True
            print(f"FIRST {int(time.time() * 1000)}", flush=True)
        if self._began is None:
            self._producer.begin_transaction()
            self._began = time.monotonic()

    def _fold(self, messages: list[Any]) -> None:
        referrals = [each for each in messages if each.topic() == "referrals"]
        if referrals:
            bind(self._database, [orjson.loads(each.value()) for each in referrals])
            for each in referrals:
                if each.offset() + 1 >= self._referrals_end.get(each.partition(), sys.maxsize):
                    del self._referrals_end[each.partition()]
            if self._held and not self._referrals_end:
                self._consumer.resume(self._held)
                self._held = []
        payments = [
            orjson.loads(each.value()) | {"place": (each.partition(), each.offset())}
            for each in messages
            if each.topic() == "payments"
        ]
        if payments:
            for partner_id, value in decide(self._database, payments):
                self._producer.produce("commissions", value, partner_id)
            self._producer.poll(0)

    def _commit(self) -> None:
        at = [position for position in self._consumer.position(self._consumer.assignment()) if position.offset >= 0]
        self._producer.send_offsets_to_transaction(at, self._consumer.consumer_group_metadata())
        self._producer.commit_transaction()
        self._began = None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    Worker(sys.argv[1], sys.argv[2]).run()
