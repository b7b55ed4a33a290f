"""Every error is a problem document with a stable code, and no error says more than it should."""

import asyncio
from collections.abc import Iterator
from typing import Literal

import msgspec
import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from redis.exceptions import ConnectionError as RedisUnreachable
from starlette.types import Message, Receive, Scope, Send

from schemas.ids import Id
from schemas.money import PositiveMoney
from schemas.programs import NotYetPublished
from services.runtime.http import AsOf, Body, Moment, NoBody, TheCaller, not_found
from services.runtime.http.bodies import LATEST
from services.runtime.http.middleware import LimitBody, nesting
from services.runtime.reader import Rebuilding
from services.runtime.stage import Change, Stage
from tests.http_fakes import FakeReader, app_over, bearer

router = APIRouter()


class Nothing(msgspec.Struct, frozen=True):
    """The state of a stage that remembers nothing."""


STAGE: Stage[Nothing, Nothing] = Stage("payouts.ledger", (), Nothing(), lambda context, state, event: Change())


class Wish(Body):
    program_id: Id
    amount: PositiveMoney
    at: Moment | None = None


ERRORS: dict[str, Exception] = {
    "rebuilding": Rebuilding("commission.sales:3"),
    "not_yet_published": NotYetPublished("keycrm version 7"),
    "redis": RedisUnreachable("redis://:password@10.0.0.1"),
    "fault": RuntimeError("a detail of the inside"),
}


@router.post("/wishes")
async def wish(body: Wish, who: TheCaller) -> Wish:
    return body


@router.post("/settle")
async def settle(who: TheCaller, body: NoBody | None = None) -> dict[str, str]:
    return {}


@router.get("/things/{thing_id}")
async def thing(thing_id: Id, who: TheCaller, as_of: AsOf = None) -> dict[str, int | None]:
    if thing_id in ERRORS:
        raise ERRORS[thing_id]
    if thing_id == "absent":
        raise not_found()
    return {"as_of": as_of}


@router.get("/public")
async def public() -> dict[str, str]:
    return {}


@router.post("/public")
async def public_wish(body: Wish) -> Wish:
    return body


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app, _ = app_over("payouts", router, FakeReader())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


GOOD = {"program_id": "keycrm", "amount": {"minor": 100, "currency": "USD"}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**GOOD, "extra": 1}, "extra"),
        ({**GOOD, "program_id": "no spaces"}, "program_id"),
        ({"amount": GOOD["amount"]}, "program_id"),
        ({**GOOD, "amount": {"minor": "100", "currency": "USD"}}, "amount.minor"),
        ({**GOOD, "amount": {"minor": 1.5, "currency": "USD"}}, "amount.minor"),
        ({**GOOD, "amount": {"minor": 0, "currency": "USD"}}, "amount.minor"),
        ({**GOOD, "amount": {"minor": 10**30, "currency": "USD"}}, "amount.minor"),
        ({**GOOD, "at": "2026-01-01T00:00:00"}, "at"),
        ({**GOOD, "at": 1767225600}, "at"),
        ({**GOOD, "at": "9999-12-31T23:59:59Z"}, "at"),
        ([], "body"),
        ("text", "body"),
    ],
)
def test_refused_field_is_named(client: TestClient, body: object, field: str) -> None:
    answer = client.post("/payouts/wishes", json=body, headers=bearer())
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, document["code"], document["status"]) == (422, "invalid", 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert document["errors"][0]["message"]


def test_every_refused_field_is_named_at_once(client: TestClient) -> None:
    errors = client.post("/payouts/wishes", json={"x": 1}, headers=bearer()).json()["errors"]
    assert {error["field"] for error in errors} == {"program_id", "amount", "x"}


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 60_000, b'{"a": NaN'])
def test_unreadable_body_is_invalid(client: TestClient, raw: bytes) -> None:
    answer = client.post("/payouts/wishes", content=raw, headers={**bearer(), "Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["errors"][0]["field"] == "body"


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"{}"])
@pytest.mark.parametrize("token", [{}, bearer(exp=1), bearer(iss="another"), {"Authorization": "Basic eDp5"}])
def test_who_may_not_call_learns_nothing_of_a_body(client: TestClient, raw: bytes, token: dict[str, str]) -> None:
    for path in ("/payouts/wishes", "/payouts/settle"):
        answer = client.post(path, content=raw, headers={**token, "Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe"])
def test_unreadable_body_of_a_public_route_is_invalid_without_a_token(client: TestClient, raw: bytes) -> None:
    answer = client.post("/payouts/public", content=raw, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_body_without_content_type_is_invalid(client: TestClient) -> None:
    assert client.post("/payouts/wishes", content=b'{"a": 1}', headers=bearer()).status_code == 422


@pytest.mark.parametrize(("body", "status"), [(None, 200), ({}, 200), ({"x": 1}, 422)])
def test_post_that_needs_no_body_takes_none_or_an_empty_one(client: TestClient, body: object, status: int) -> None:
    assert client.post("/payouts/settle", json=body, headers=bearer()).status_code == status


def test_body_over_the_limit_is_too_large(client: TestClient) -> None:
    for content in (b" " * 65_537, iter([b" " * 40_000, b" " * 40_000])):
        answer = client.post("/payouts/wishes", content=content, headers=bearer())
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"program_id": ' + b"[" * 32 + b"]" * 32 + b"}", "deep"),
        (b"[" * 60_000, "deep"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "deep"),
        ('{"a":' + "[" * 40 + "]" * 40 + "}", "UTF-8"),
        ("\u2222" + '{"a":' + "[" * 40 + "]" * 40 + "}", "UTF-8"),
    ],
)
def test_deep_body_is_invalid_before_anything_parses_it(
    client: TestClient, raw: bytes | str, message: Literal["deep", "UTF-8"]
) -> None:
    content = raw.encode("utf-16") if isinstance(raw, str) else raw
    answer = client.post("/payouts/wishes", content=content, headers={**bearer(), "Content-Type": "application/json"})
    (error, *_) = answer.json()["errors"]
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert message in error["message"]


@pytest.mark.parametrize(
    ("body", "deep"),
    [(b"", 0), (b"1", 0), (b"{}", 1), (b"[[],[[]]]", 3), (b'"[[["', 0), (b'["\\"[["]', 1), (b'{"[":{"]":[1]}}', 3)],
)
def test_nesting_counts_brackets_outside_of_texts(body: bytes, deep: int) -> None:
    assert nesting(body) == deep


async def test_slow_body_and_a_caller_who_hangs_up_are_given_up() -> None:
    reached: list[Message] = []
    answered: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(await receive())

    async def dripping() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def hanging_up() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answered.append(message)

    scope = {"type": "http", "method": "POST", "headers": []}
    for receive in (dripping, hanging_up):
        await LimitBody(app, body_seconds=0.1)(scope, receive, send)
    starts = [message for message in answered if message["type"] == "http.response.start"]
    assert [(start["status"], dict(start["headers"])[b"connection"]) for start in starts] == [(408, b"close")] * 2
    assert not reached


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("as_of=2026-01-01T00:00:00", "as_of"),
        ("as_of=2026-01-01", "as_of"),
        ("as_of=1767225600", "as_of"),
        ("as_off=2026-01-01T00:00:00Z", "as_off"),
    ],
)
def test_refused_query_parameter_is_named(client: TestClient, query: str, field: str) -> None:
    answer = client.get(f"/payouts/things/t?{query}", headers=bearer())
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, [field])


def test_time_with_offset_is_read_as_microseconds(client: TestClient) -> None:
    answer = client.get("/payouts/things/t", params={"as_of": "1970-01-01T01:00:01+01:00"}, headers=bearer())
    assert answer.json() == {"as_of": 1_000_000}


def test_a_time_at_the_calendars_end_is_one_to_look_from(client: TestClient) -> None:
    shown = [
        client.get("/payouts/things/t", params={"as_of": text}, headers=bearer()).json()["as_of"]
        for text in ("9998-12-31T23:59:59.999999Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z")
    ]
    assert shown == [LATEST] * 3
    assert client.get("/payouts/things/t?as_of=9999-12-31T23:59:59-00:01", headers=bearer()).status_code == 422


def test_public_route_takes_parameters_that_others_have_added(client: TestClient) -> None:
    assert client.get("/payouts/public?utm_source=mail").status_code == 200


@pytest.mark.parametrize(
    ("thing_id", "status", "code"),
    [
        ("rebuilding", 503, "rebuilding"),
        ("not_yet_published", 503, "rebuilding"),
        ("redis", 503, "unavailable"),
        ("fault", 500, "internal"),
        ("absent", 404, "not_found"),
    ],
)
def test_what_goes_wrong_inside_is_a_problem_without_the_inside(
    client: TestClient, thing_id: str, status: int, code: str
) -> None:
    answer = client.get(f"/payouts/things/{thing_id}", headers=bearer())
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert str(ERRORS.get(thing_id, "nothing of this")) not in answer.text


def test_unknown_route_and_method_are_problems(client: TestClient) -> None:
    unknown, method = client.get("/payouts/unknown"), client.delete("/payouts/public")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert (method.status_code, method.json()["code"], method.headers["allow"]) == (405, "method_not_allowed", "GET")


def test_answers_are_neither_cached_nor_sniffed(client: TestClient) -> None:
    answer = client.get("/payouts/things/t", headers=bearer())
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


def test_readiness_needs_open_cells_and_liveness_does_not() -> None:
    reader = FakeReader()
    app, _ = app_over("payouts", router, reader, stages=(STAGE,))
    with TestClient(app) as client:
        assert client.get("/payouts/readyz").status_code == 200
        reader.rebuilding = True
        assert client.get("/payouts/readyz").json()["code"] == "rebuilding"
        assert client.get("/payouts/healthz").status_code == 200


def test_metrics_count_by_route_template(client: TestClient) -> None:
    client.get("/payouts/things/one", headers=bearer())
    client.get("/payouts/things/two", headers=bearer())
    text = client.get("/payouts/metrics").text
    assert 'route="/payouts/things/{thing_id}"' in text
    assert "things/one" not in text
