"""Kafka with SASL, TLS and ACLs, Redis with a user per service: each can do what it needs and nothing else.

The servers are real and have the shipped ACLs; every worker and every API runs as its own user. A journey goes through
all of them, and whoever steps out of line is refused.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

import schemas.programs
from schemas.topics import TOPICS
from services.cli.access import Principal, principals
from services.cli.service import Service
from services.cli.token import Role, signed
from services.local.child import Child
from services.local.ports import any_free
from services.runtime.settings import Settings
from tests.secured import Secured, secured

pytestmark = pytest.mark.infra

STRONG = "0123456789abcdef" * 4
EVERYBODY = {principal.name: principal for principal in principals()}
OF_SERVICES = [name for name in EVERYBODY if name.endswith(("-worker", "-api"))]
SECONDS = 120.0


@dataclass(frozen=True)
class Running:
    """Four workers and four APIs, each as its own user. `urls`: each API's address."""

    at: Secured
    environment: dict[str, str]
    urls: dict[str, str]
    children: dict[str, Child]

    def refstream(self, user: str, *arguments: str, told: str = "") -> "subprocess.CompletedProcess[str]":
        return _refstream(self.at, self.environment, user, *arguments, told=told)

    def request(self, method: str, path: str, role: Role, sub: str = "", body: Any = None) -> httpx.Response:
        settings = Settings(auth_secret=STRONG)  # type: ignore[arg-type]
        headers = {"authorization": f"Bearer {signed(settings, role, sub or role.value)}"}
        if body is not None:
            headers["idempotency-key"] = uuid.uuid4().hex
        service = path.split("/")[1]
        return httpx.request(method, self.urls[service] + path, headers=headers, json=body, timeout=20, trust_env=False)


def _refstream(
    at: Secured, environment: dict[str, str], user: str, *arguments: str, told: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", *arguments],
        env=environment | at.environment(user),
        input=told,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("secured")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REFSTREAM_")}
    environment |= {
        "REFSTREAM_AUTH_SECRET": STRONG,
        "REFSTREAM_CLICK_SECRETS": json.dumps({"1": STRONG}),
        "REFSTREAM_DATA_SECRETS": json.dumps({"1": STRONG}),
        "REFSTREAM_DATA_DIR": str(folder / "data"),
        "REFSTREAM_PUBLIC_URL": "http://127.0.0.1:8080",
    }
    with secured(folder) as at:
        created = _refstream(at, environment, "operator", "topics", "--with-programs")
        assert created.returncode == 0, created.stderr
        ports = {service.value: any_free() for service in Service}
        children = {}
        try:
            for service in Service:
                for role in ("worker", "api"):
                    name = f"{service.value}-{role}"
                    own = {"REFSTREAM_READY_FILE": str(folder / name), "REFSTREAM_PORT": str(ports[service.value])}
                    command = [sys.executable, "-m", "services.cli.main", role, service.value]
                    log = folder / f"{name}.log"
                    children[name] = Child(name, command, log, environment | at.environment(name) | own)
            urls = {service: f"http://127.0.0.1:{port}" for service, port in ports.items()}
            for service in urls:
                _until(children, lambda service=service: _answers(f"{urls[service]}/{service}/readyz"))
            yield Running(at, environment, urls, children)
        finally:
            for child in children.values():
                child.terminate()
            for child in children.values():
                child.stop(15)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _until(children: dict[str, Child], holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := holds()):
        for child in children.values():
            assert child.exit_code is None, f"{child.name} ended:\n{child.log_tail()}"
        assert time.monotonic() < deadline, "\n".join(child.log_tail() for child in children.values())
        time.sleep(0.1)
    return found


def _event(kind: str, time_: str, **data: Any) -> str:
    event = {"specversion": "1.0", "id": uuid.uuid4().hex, "source": "/shop", "type": kind, "time": time_, "data": data}
    return json.dumps(event) + "\n"


# --- what each needs ------------------------------------------------------------------------------------------------


def test_a_journey_goes_through_all_services_and_nobody_is_refused_anything(running: Running) -> None:
    at = "2026-01-05T09:00:00Z"
    anna = _event("customer.signed_up", at, customer_id="anna")
    anna += _event("account.created", at, customer_id="anna", account_id="anna-crm")
    published = running.refstream("platform", "publish", "-", told=anna)
    assert published.returncode == 0, published.stderr

    def activated() -> httpx.Response | None:
        body = {
            "partner_id": "anna",
            "program_id": "keycrm",
            "accepted_terms": True,
            "activated_at": "2026-01-05T10:00:00Z",
        }
        answer = running.request("POST", "/attribution/partners", Role.platform, body=body)
        return answer if answer.is_success else None

    _until(running.children, activated)
    link = running.request("POST", "/attribution/partners/anna/links", Role.partner, "anna", {"program_id": "keycrm"})
    assert link.is_success, link.text
    code = link.json()["code"]
    followed = httpx.get(
        f"{running.urls['attribution']}/attribution/r/{code}", follow_redirects=False, timeout=10, trust_env=False
    )
    assert followed.status_code == 302
    click = {"code": code, "clicked_at": "2026-01-31T08:00:00Z"}
    bob = _event("customer.signed_up", "2026-02-01T12:00:00Z", customer_id="bob", clicks=[click])
    amount = {"minor": 4000, "currency": "USD"}
    bob += _event("payment.succeeded", "2026-02-02T12:00:00Z", payment_id="p-1", customer_id="bob", amount=amount)
    assert running.refstream("platform", "publish", "-", told=bob).returncode == 0

    def balance() -> str | None:
        answer = running.request("GET", "/payouts/partners/anna/balance", Role.partner, "anna")
        return answer.text if answer.is_success and '"minor":400' in answer.text.replace(" ", "") else None

    _until(running.children, balance)
    assert running.request("GET", "/commission/payments/p-1/decision", Role.admin).is_success
    assert running.request("GET", "/rewards/partners/anna/wallet", Role.partner, "anna").is_success
    assert _ends(running, "clicks") == 1
    with running.at.redis("admin") as admin:
        assert admin.acl_log() == []


def test_wrong_records_become_dead_letters_and_wrong_keys_are_put_back(running: Running) -> None:
    """What first readers write to topics of the platform, and to the dead letters."""
    cara = _event("customer.signed_up", "2026-01-06T09:00:00Z", customer_id="cara")
    paid = _event(
        "payment.succeeded",
        "2026-01-07T09:00:00Z",
        payment_id="p-cara",
        customer_id="cara",
        amount={"minor": 100, "currency": "USD"},
    )
    sent = [
        ("customers", b"wrong", cara),
        ("payments", b"wrong", paid),
        ("customers", b"x", "{}"),
        ("payments", b"x", "{}"),
    ]
    before = _ends(running, "customers") + _ends(running, "payments")

    async def produce() -> None:
        async with _producer(running.at, "platform") as producer:
            for topic, key, value in sent:
                await producer.send_and_wait(topic, value.encode(), key=key)

    _run(produce)
    _until(running.children, lambda: _ends(running, "dead-letters") >= 2)
    _until(running.children, lambda: _ends(running, "customers") + _ends(running, "payments") >= before + 6)
    listed = running.refstream("operator", "dead-letters", "list", "--json")
    assert {letter["topic"] for letter in json.loads(listed.stdout)} == {"customers", "payments"}
    replayed = running.refstream("operator", "dead-letters", "replay", "--all")
    assert replayed.returncode == 0, replayed.stderr


def test_the_operator_can_look_verify_and_rebuild(running: Running) -> None:
    compared = ["whatif", "--program", str(Path(schemas.programs.__file__).parent / "keycrm.json")]
    for command in (["topics"], ["status"], ["rebuild", "--yes"], ["verify"], compared):
        done = running.refstream("operator", *command)
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    with running.at.redis("admin") as admin:
        assert admin.acl_log() == []


def test_the_operator_can_rebuild_where_no_worker_runs(running: Running) -> None:
    running.children.pop("payouts-worker").stop(15)
    rebuilt = running.refstream("operator", "rebuild", "--yes", "--service", "payouts")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    balance = running.request("GET", "/payouts/partners/anna/balance", Role.partner, "anna")
    assert '"minor":400' in balance.text.replace(" ", "")


# --- and nothing else: Kafka ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERYBODY)
def test_a_principal_may_do_at_each_topic_what_the_table_says_and_nothing_else(running: Running, name: str) -> None:
    client = AdminClient(running.at.kafka_options(name))
    asked = client.describe_topics(
        TopicCollection([topic.name for topic in TOPICS]), include_authorized_operations=True, request_timeout=20
    )
    for topic, answer in asked.items():
        assert _allowed(answer) == _expected(EVERYBODY[name], topic), topic


def _allowed(answer: Any) -> set[str]:
    try:
        return {operation.name for operation in answer.result(timeout=30).authorized_operations}
    except Exception as refused:  # confluent's KafkaException around the broker's code
        assert "TOPIC_AUTHORIZATION_FAILED" in str(refused)
        return set()


def _expected(principal: Principal, topic: str) -> set[str]:
    operations = ("Read", "Write", "Create", "Describe", "DescribeConfigs")
    granted = {operation for operation in operations if topic in principal.may(operation)}
    if granted & {"Read", "Write"}:
        granted.add("Describe")
    return {AclOperation[{"DescribeConfigs": "DESCRIBE_CONFIGS"}.get(each, each.upper())].name for each in granted}


def _outside(name: str, operation: str) -> str:
    """The first topic on which the principal may not do something."""
    return next(topic.name for topic in TOPICS if topic.name not in EVERYBODY[name].may(operation))


@pytest.mark.parametrize("name", [*OF_SERVICES, "platform"])
def test_nobody_writes_or_reads_a_topic_that_is_not_theirs(running: Running, name: str) -> None:
    async def scene() -> None:
        async with _producer(running.at, name) as producer:
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(_outside(name, "Write"), b"{}", partition=0)

        for topic in _not_readable(name):
            consumer = AIOKafkaConsumer(
                topic, **_options(running.at, name), group_id=None, auto_offset_reset="earliest"
            )
            try:
                # A topic that it may not even see is not there for it.
                with pytest.raises((TopicAuthorizationFailedError, UnknownTopicOrPartitionError)):
                    await consumer.start()
                    await consumer.getone()
            finally:
                await consumer.stop()

    _run(scene)


def _not_readable(name: str) -> list[str]:
    """A topic that the principal has no part in, and one that it may write and not read, where there is one."""
    principal = EVERYBODY[name]
    only_written = [topic for topic in principal.may("Write") if topic not in principal.may("Read")]
    foreign = [topic.name for topic in TOPICS if topic.name not in {*principal.may("Write"), *principal.may("Read")}]
    return [foreign[0], *only_written[:1]]


@pytest.mark.parametrize("name", [*OF_SERVICES, "platform"])
def test_nobody_joins_the_group_of_another_service(running: Running, name: str) -> None:
    group = "commission" if name != "commission-worker" else "payouts"

    async def scene() -> None:
        consumer = AIOKafkaConsumer("programs", **_options(running.at, name), group_id=group)
        try:
            with pytest.raises(GroupAuthorizationFailedError):
                await consumer.start()
        finally:
            await consumer.stop()

    _run(scene)


@pytest.mark.parametrize("name", ["attribution-worker", "payouts-api", "platform"])
def test_nobody_but_the_operator_creates_topics_and_nobody_makes_users(running: Running, name: str) -> None:
    async def scene() -> int:
        admin = AIOKafkaAdminClient(**_options(running.at, name))
        await admin.start()
        try:
            answer = await admin.create_topics([NewTopic("mine", 1, 1)])
            return int(answer.topic_errors[0][1])
        finally:
            await admin.close()

    assert _run(scene) == TopicAuthorizationFailedError.errno


@pytest.mark.parametrize("how", ["no name", "wrong password", "no TLS"])
def test_a_stranger_gets_nothing_from_kafka(running: Running, how: str) -> None:
    options = _options(running.at, "operator")
    if how == "no name":
        options = {
            "bootstrap_servers": running.at.kafka,
            "security_protocol": "SSL",
            "ssl_context": options["ssl_context"],
        }
    elif how == "wrong password":
        options["sasl_plain_password"] = "guessed"  # pragma: allowlist secret
    else:
        options = {"bootstrap_servers": running.at.kafka}

    async def scene() -> None:
        consumer = AIOKafkaConsumer("programs", **options, request_timeout_ms=4000)
        try:
            with pytest.raises((KafkaError, OSError, TimeoutError)):
                await asyncio.wait_for(consumer.start(), 15)
        finally:
            await consumer.stop()

    _run(scene)


# --- and nothing else: Redis ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_SERVICES)
def test_nobody_touches_the_keys_of_another_service(running: Running, name: str) -> None:
    service, _, role = name.partition("-")
    own, other = (
        f"{{{service}.x:0}}:state",
        "{payouts.ledger:0}:state" if service != "payouts" else "{rewards.x:0}:rows",
    )
    with running.at.redis(name) as client:
        client.hget(own, "key")
        for command in (["HGET", other, "key"], ["HGETALL", other], ["HSCAN", other, 0]):
            _refused(client, *command)
        for command in (["HSET", other, "key", "1"], ["SET", "refstream:other", 1], ["SET", other, 1]):
            _refused(client, *command)
        for command in (
            ["KEYS", "*"],
            ["FLUSHALL"],
            ["CONFIG", "GET", "*"],
            ["ACL", "LIST"],
            ["UNLINK", other],
        ):
            _refused(client, *command)
        if role == "worker":
            client.unlink(own)  # to fold it again
        if role == "api":
            _refused(client, "SCAN", 0)
            _refused(client, "UNLINK", own)
            _refused(client, "HSET", own, "key", "1")
            with pytest.raises(redis.ResponseError, match=r"(?i)permission|ACL"):
                client.register_script("return redis.call('HSET', KEYS[1], 'a', 'b')")(keys=[own])


def _refused(client: "redis.Redis", *command: Any) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)


def test_an_api_counts_requests_and_worker_scripts_stay_with_their_cells(running: Running) -> None:
    with running.at.redis("payouts-api") as client:
        count = client.register_script("redis.call('INCRBY', KEYS[1], 1); return redis.call('PTTL', KEYS[1])")
        assert count(keys=["refstream:rate:partner/anna"]) == -1
    with running.at.redis("payouts-worker") as client, pytest.raises(redis.ResponseError):
        client.register_script("return redis.call('HGET', '{rewards.wallets:0}:state', 'a')")(keys=[])


def test_the_calendar_sees_how_far_others_are_and_not_what_they_know(running: Running) -> None:
    with running.at.redis("rewards-worker") as client:
        client.hmget("{attribution.people:0}:meta", ["commits"])
        client.hkeys("{commission.sales:0}:outbox")
        _refused(client, "HGETALL", "{commission.sales:0}:outbox")
        _refused(client, "HGET", "{attribution.people:0}:state", "anna")


@pytest.mark.parametrize("how", ["no name", "wrong password", "no TLS"])
def test_a_stranger_gets_nothing_from_redis(running: Running, how: str) -> None:
    port, trust = running.at.redis_port, f"ssl_ca_certs={running.at.authority}"
    url = {
        "no name": f"rediss://127.0.0.1:{port}/0?{trust}",
        "wrong password": f"rediss://operator:guessed@127.0.0.1:{port}/0?{trust}",  # pragma: allowlist secret
        "no TLS": f"redis://operator:{running.at.passwords['operator']}@127.0.0.1:{port}/0",
    }[how]
    with redis.Redis.from_url(url, socket_timeout=5) as client, pytest.raises(redis.RedisError):
        client.hget("{payouts.ledger:0}:state", "anna")


# --- the clients ----------------------------------------------------------------------------------------------------


def _options(at: Secured, name: str) -> dict[str, Any]:
    known = {key.removeprefix("REFSTREAM_").lower(): value for key, value in at.environment(name).items()}
    return Settings.model_validate(known).kafka_client_options()


def _producer(at: Secured, name: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(**_options(at, name), acks="all", request_timeout_ms=10_000)


def _ends(running: Running, topic: str) -> int:
    """How many records a topic has held."""

    async def scene() -> int:
        consumer = AIOKafkaConsumer(**_options(running.at, "operator"), group_id=None)
        await consumer.start()
        try:
            return sum((await consumer.end_offsets([TopicPartition(topic, at) for at in range(4)])).values())
        finally:
            await consumer.stop()

    return int(_run(scene))


def _run(scene: Callable[[], Any]) -> Any:
    return asyncio.run(asyncio.wait_for(scene(), 20))
