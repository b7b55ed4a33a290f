"""Where a name and an address may stand, and where not, on a whole running refstream: before and after `erase`.

One platform writes names and addresses to `profiles` alone and digests to the signups; another writes them into its
signups. Every topic, every byte of Redis, every log file and every metric is looked through.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from schemas import events
from schemas.events import Event, Payload
from schemas.ids import partition_of
from schemas.moments import DAY, micros
from schemas.money import Money
from schemas.topics import TOPICS
from services.cli.token import Role, signed
from services.runtime.codec import SEALED, Codec
from services.runtime.redis_client import connect
from services.runtime.settings import Settings
from services.runtime.topic_log import entries
from tests.e2e.conftest import Running
from tests.over_kafka import SERVICES, publish, settle

pytestmark = pytest.mark.infra

ANNA, BOB, CARL, EVE = "pd-anna", "pd-bob", "pd-carl", "pd-eve"
NAME, EMAIL, PHONE = "Canary Yellowfeather", "canary.yellow@feather.example", "380671112233"
OWN_NAME, OWN_EMAIL, OWN_PHONE = "Signup Redfeather", "signup.red@feather.example", "380674445566"
BANK, COMMENT = "UA0099CANARYACCOUNT7319", "for canary seed"
IN_PROFILES, IN_SIGNUPS, OF_PARTNER = (NAME, EMAIL, PHONE), (OWN_NAME, OWN_EMAIL, OWN_PHONE), (BANK, COMMENT)
START = micros(datetime.now(UTC) - timedelta(days=60))


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _event(name: str, data: Payload, days: int) -> Event:
    return Event(f"pd-{name}", "/test", START + days * DAY, data)


def _call(running: Running, path: str, body: dict[str, Any], role: Role, sub: str) -> Any:
    token = signed(running.settings, role, sub)
    headers = {"authorization": f"Bearer {token}", "idempotency-key": f"pd-{path}-{body}"[:100]}
    answer = httpx.post(running.url + path, json=body, headers=headers, timeout=20, trust_env=False)
    assert answer.is_success, answer.text
    return answer.json()


def _withdraw(running: Running, minor: int) -> str:
    money = {"minor": minor, "currency": "USD"}
    body = {"program_id": "keycrm", "amount": money, "destination": BANK, "comment": COMMENT}
    made = _call(running, f"/payouts/partners/{ANNA}/withdrawals", body, Role.partner, ANNA)
    return str(made["withdrawal_id"])


@pytest.fixture(scope="module")
def settled(running: Running) -> Running:
    """Anna brought bob (of the platform with profiles) and carl (whose signup has his address), who paid.

    She was paid once, and has asked a second time. Eve's signup cannot be read: a dead letter.
    """
    settings = running.settings
    digests = {"email": _digest(EMAIL), "phone": _digest(PHONE)}
    asyncio.run(
        publish(
            settings,
            [
                _event("anna", events.CustomerSignedUp(customer_id=ANNA), 0),
                _event("anna-crm", events.AccountCreated(customer_id=ANNA, account_id="pd-anna-crm"), 0),
            ],
        )
    )
    asyncio.run(settle(settings))
    joined = {"partner_id": ANNA, "program_id": "keycrm", "accepted_terms": True}
    joined["activated_at"] = _time(1)
    _call(running, "/attribution/partners", joined, Role.platform, "platform")
    body = {"program_id": "keycrm", "code": "PDANNA"}
    _call(running, f"/attribution/partners/{ANNA}/promo-codes", body, Role.partner, ANNA)
    paid = Money(minor=100_000, currency="USD")
    plain = {"name": OWN_NAME, "email": OWN_EMAIL, "phone": OWN_PHONE}
    asyncio.run(
        publish(
            settings,
            [
                _event("bob", events.CustomerSignedUp(customer_id=BOB, promo_code="PDANNA", **digests), 10),
                _event("bob-p", events.CustomerProfile(customer_id=BOB, name=NAME, email=EMAIL, phone=PHONE), 10),
                _event("carl", events.CustomerSignedUp(customer_id=CARL, promo_code="PDANNA", **plain), 11),
                _event(
                    "carl-crm", events.AccountCreated(customer_id=CARL, account_id="pd-carl-crm", name=OWN_NAME), 11
                ),
                _event("bob-1", events.PaymentSucceeded(customer_id=BOB, payment_id="pd-1", amount=paid), 20),
                _event("carl-1", events.PaymentSucceeded(customer_id=CARL, payment_id="pd-2", amount=paid), 20),
            ],
        )
    )
    asyncio.run(_write_unreadable(settings, digests))
    asyncio.run(settle(settings))
    first = _withdraw(running, 5_000)
    _call(running, f"/payouts/withdrawals/{first}/pay", {}, Role.admin, "admin")
    _withdraw(running, 6_000)
    asyncio.run(settle(settings))
    return running


def _time(days: int) -> str:
    return datetime.fromtimestamp((START + days * DAY) / 1e6, UTC).isoformat()


async def _write_unreadable(settings: Settings, digests: dict[str, str]) -> None:
    import orjson
    from aiokafka import AIOKafkaProducer

    data = {"customer_id": EVE, "existing_customer": "perhaps", **digests}
    record = {"specversion": "1.0", "id": "pd-eve", "source": "/test", "type": "customer.signed_up", "data": data}
    async with AIOKafkaProducer(**settings.kafka_client_options(), acks="all") as producer:
        value = orjson.dumps({**record, "time": _time(3)})
        partition = partition_of(EVE, settings.partitions)
        await producer.send_and_wait("customers", value, key=EVE.encode(), partition=partition)


# --- looking everywhere ---------------------------------------------------------------------------------------------


async def _in_redis(settings: Settings, *, opened: bool = False) -> AsyncIterator[tuple[str, bytes]]:
    """Every key and every value of Redis as bytes, of whatever kind; sealed ones as they are, or opened."""
    redis, codec = connect(settings.redis_url()), Codec.of(settings)
    try:
        async for key in redis.scan_iter(count=5_000):
            yield "key", key
            match await redis.type(key):
                case b"hash":
                    parts = await redis.hgetall(key)
                case b"string":
                    parts = {b"": await redis.get(key)}
                case b"list":
                    parts = dict(enumerate(await redis.lrange(key, 0, -1)))
                case b"set":
                    parts = dict(enumerate(await redis.smembers(key)))
                case b"zset":
                    parts = dict(await redis.zrange(key, 0, -1, withscores=True))
                case b"none":
                    continue  # an outbox that was sent and forgotten since
                case kind:
                    raise AssertionError(f"{key!r} is a {kind!r}")
            for name, value in parts.items():
                blob = value if isinstance(value, bytes) else str(value).encode()
                yield (
                    f"{key!r} {name!r}",
                    (name if isinstance(name, bytes) else b"")
                    + b" "
                    + (_opened(codec, key, name, blob) if opened else blob),
                )
    finally:
        await redis.aclose()


def _opened(codec: Codec, key: bytes, name: Any, blob: bytes) -> bytes:
    cell, _, rest = key.decode().partition(":rows:") if b":rows:" in key else (*key.decode().rsplit(":", 1), "")[:3]
    number, marker, sealed = blob.partition(b":" + SEALED)
    if marker and number.isdigit():  # an answer, behind the number of its outbox
        blob = SEALED + sealed
    place = (rest, name.decode()) if b":rows:" in key else (name.decode(),)
    return codec.plain(blob, cell, *place)


def _found_in_redis(settings: Settings, texts: tuple[str, ...], *, opened: bool = False) -> list[str]:
    async def found() -> list[str]:
        wanted = [text.encode() for text in texts]
        return [
            where async for where, value in _in_redis(settings, opened=opened) if any(text in value for text in wanted)
        ]

    return asyncio.run(found())


def _found_on_topics(settings: Settings, texts: tuple[str, ...]) -> Counter[str]:
    async def found() -> Counter[str]:
        wanted = [text.encode() for text in texts]
        hits: Counter[str] = Counter()
        async for entry in entries(settings, [topic.name for topic in TOPICS]):
            whole = b" ".join(
                [entry.key or b"", entry.value or b"", *(name.encode() + value for name, value in entry.headers)]
            )
            hits[entry.topic] += any(text in whole for text in wanted)
        return +hits

    return asyncio.run(found())


def _found_in_logs_and_metrics(running: Running, texts: tuple[str, ...]) -> list[str]:
    files = list((Path(running.environment["REFSTREAM_DATA_DIR"]) / "logs").glob("*"))
    assert len(files) > len(SERVICES)
    told = {file.name: file.read_text() for file in files}
    for service in SERVICES:
        answer = httpx.get(f"{running.url}/{service}/metrics", timeout=20, trust_env=False)
        assert "refstream" in answer.text
        told[f"metrics of {service}"] = answer.text
    return [where for where, content in told.items() if any(text in content for text in texts)]


def _shown(running: Running) -> dict[str, Any]:
    """What the pages show of anna's business."""
    asked = {
        "referrals": f"/attribution/partners/{ANNA}/referrals",
        "statistics": f"/attribution/partners/{ANNA}/statistics",
        "commissions": f"/commission/partners/{ANNA}/commissions",
        "balance": f"/payouts/partners/{ANNA}/balance",
        "statement": f"/payouts/partners/{ANNA}/statement",
        "withdrawals": f"/payouts/partners/{ANNA}/withdrawals",
        "bob": f"/attribution/customers/{BOB}/decision",
        "carl": f"/attribution/customers/{CARL}/decision",
        "pd-1": "/commission/payments/pd-1/decision",
        "pd-2": "/commission/payments/pd-2/decision",
    }
    return {name: running.get(path) for name, path in asked.items()}


def _without_names(shown: dict[str, Any]) -> dict[str, Any]:
    personal = {"name", "email", "phone", "customer_name", "account_name", "destination", "comment"}
    return {
        page: {
            **body,
            "items": [
                {field: value for field, value in item.items() if field not in personal} for item in body["items"]
            ],
        }
        if "items" in body
        else body
        for page, body in shown.items()
    }


def _events_said(settings: Settings) -> list[tuple[str, bytes | None]]:
    """Everything on the topics that the platform reads, in order per partition."""

    async def said() -> list[tuple[str, bytes | None]]:
        names = [topic.name for topic in TOPICS if not topic.internal and topic.writer not in ("platform",)]
        return [(f"{e.topic}-{e.partition}-{e.offset}", e.value) async for e in entries(settings, names)]

    return sorted(asyncio.run(said()))


# --- what holds -----------------------------------------------------------------------------------------------------


def test_a_person_is_shown_sealed_and_forgotten_for_good(settled: Running) -> None:
    running, settings = settled, settled.settings
    before = _shown(running)
    names = {item["customer_id"]: item["name"] for item in before["referrals"]["items"]}
    assert names == {BOB: NAME, CARL: OWN_NAME}
    assert {item["customer_name"] for item in before["commissions"]["items"]} == {NAME, OWN_NAME}
    assert _found_on_topics(settings, IN_PROFILES) == {"profiles": 1}
    assert _found_on_topics(settings, IN_SIGNUPS) == {"customers": 2}
    assert _found_in_redis(settings, (*IN_PROFILES, *IN_SIGNUPS, *OF_PARTNER)) == []
    assert len(_found_in_redis(settings, IN_PROFILES, opened=True)) == 1  # one place
    assert len(_found_in_redis(settings, IN_SIGNUPS, opened=True)) == 1
    assert _found_in_redis(settings, OF_PARTNER, opened=True)
    assert _found_in_logs_and_metrics(running, (*IN_PROFILES, *IN_SIGNUPS, *OF_PARTNER)) == []
    said = _events_said(settings)

    for person in (BOB, CARL, ANNA):
        erased = running.refstream("erase", person, "--yes")
        assert erased.returncode == 0, erased.stdout + erased.stderr
        assert not any(text in erased.stdout + erased.stderr for text in (*IN_PROFILES, *IN_SIGNUPS, *OF_PARTNER))
    assert "1 withdrawals are under way" in erased.stdout
    _holds(running, before, said)

    late = events.CustomerProfile(customer_id=BOB, name=NAME, email=EMAIL, phone=PHONE)
    asyncio.run(publish(settings, [_event("bob-late", late, 30)]))
    asyncio.run(settle(settings))
    _holds(running, before, said)

    rebuilt = running.refstream("rebuild", "--yes")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    _holds(running, before, said)
    verified = running.refstream("verify", "--service", "attribution", "--service", "payouts")
    assert verified.returncode == 0, verified.stdout + verified.stderr

    (open_one,) = [each for each in before["withdrawals"]["items"] if each["status"] == "processing"]
    _call(running, f"/payouts/withdrawals/{open_one['withdrawal_id']}/pay", {}, Role.admin, "admin")
    assert _found_in_redis(settings, OF_PARTNER, opened=True) == []


def _holds(running: Running, before: dict[str, Any], said: list[tuple[str, bytes | None]]) -> None:
    """Nobody is shown or kept any more, and everything else is as it was."""
    settings, after = running.settings, _shown(running)
    assert _without_names(after) == _without_names(before)
    for item in after["referrals"]["items"]:
        assert (item["name"], item["email"], item["phone"]) == (None, None, None)
    for item in after["commissions"]["items"]:
        assert (item["customer_name"], item["account_name"]) == (None, None)
    by_status = {item["status"]: (item["destination"], item["comment"]) for item in after["withdrawals"]["items"]}
    assert by_status == {"paid": (None, None), "processing": (BANK[-4:], COMMENT)}
    assert _events_said(settings) == said
    assert _found_in_redis(settings, (*IN_PROFILES, *IN_SIGNUPS), opened=True) == []
    assert _found_in_redis(settings, OF_PARTNER) == []
    assert set(_found_on_topics(settings, IN_PROFILES)) <= {"profiles"}
    assert _found_in_logs_and_metrics(running, (*IN_PROFILES, *IN_SIGNUPS, *OF_PARTNER)) == []


def test_an_id_that_nobody_has_is_refused(settled: Running) -> None:
    refused = settled.refstream("erase", "pd-nobody", "--yes")
    assert refused.returncode == 1
    assert "nothing is known of pd-nobody" in refused.stdout
    assert _found_on_topics(settled.settings, ("pd-nobody",)) == {}
