"""Commands: one key, one decision, however often it is sent."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Request
from fastapi.testclient import TestClient
from starlette.responses import Response

from schemas.commands import Answered, RequestTopup, SettleWithdrawal
from schemas.events import Event, event_json, parse_event
from schemas.ids import Id
from schemas.money import PositiveMoney
from services.runtime.http import Body, NoBody, TheCaller, TheCommands, ThePartner
from tests.http_fakes import FakeFold, FakeReader, app_over, bearer

router = APIRouter()
PATH = "/payouts/partners/p-1/topups"
BODY = {"program_id": "keycrm", "account_id": "a-1", "amount": {"minor": 100, "currency": "USD"}}


class Topup(Body):
    program_id: Id
    account_id: Id
    amount: PositiveMoney


@router.post("/partners/{partner_id}/topups", status_code=201)
async def topup(request: Request, partner_id: Id, body: Topup, who: ThePartner, commands: TheCommands) -> Response:
    return await commands.run(request, who, (), RequestTopup, body, partner_id=partner_id)


@router.post("/withdrawals/{withdrawal_id}/pay")
async def pay(
    request: Request, withdrawal_id: Id, who: TheCaller, commands: TheCommands, body: NoBody | None = None
) -> Response:
    fields = {"withdrawal_id": withdrawal_id, "outcome": "paid"}
    return await commands.run(request, who, (), SettleWithdrawal, body, partner_id="p-1", **fields)


@router.put("/partners/{partner_id}/topups")
async def put(request: Request, partner_id: Id, body: Topup, who: TheCaller, commands: TheCommands) -> Response:
    return await commands.run(request, who, (), RequestTopup, body, partner_id=partner_id)


class World:
    """An app, its fold, and what the fold decides next."""

    def __init__(self) -> None:
        self.decision: tuple[int, dict[str, Any]] | None = (201, {"topup_id": "top_1"})
        self.reader = FakeReader()
        self.fold: FakeFold
        app, self.fold = app_over("payouts", router, self.reader, lambda event: self.decision)
        self.client = TestClient(app)

    def post(self, key: str | None = "k", body: Any = BODY, path: str = PATH, **who: Any) -> Any:
        headers = bearer(**who) | ({"Idempotency-Key": key} if key is not None else {})
        return self.client.post(path, json=body, headers=headers)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    with world.client:
        yield world


def test_command_is_written_as_an_event_and_answered_with_its_decision(world: World) -> None:
    answer = world.post()
    assert (answer.status_code, answer.json()) == (201, {"topup_id": "top_1"})
    (event,) = world.fold.written
    assert event.source == "/payouts"
    assert parse_event(event_json(event)) == event
    assert isinstance(event.data, RequestTopup)
    assert (event.data.partner_id, event.data.caller, event.data.amount.minor) == ("p-1", "partner:p-1", 100)


def test_same_key_and_body_get_the_first_answer_again(world: World) -> None:
    first = world.post()
    world.decision = (409, {"code": "insufficient_balance", "detail": "no"})
    again = world.post(body=dict(reversed(BODY.items())))
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert len(world.fold.written) == 1


def test_refusal_is_a_problem_and_is_repeated_too(world: World) -> None:
    world.decision = (409, {"code": "insufficient_balance", "detail": "Not enough.", "available": 5})
    first = world.post()
    world.decision = (201, {})
    again = world.post()
    assert first.headers["content-type"] == "application/problem+json"
    assert first.json() == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "code": "insufficient_balance",
        "detail": "Not enough.",
        "available": 5,
    }
    assert again.content == first.content


def test_same_key_with_another_body_is_refused(world: World) -> None:
    world.post()
    other = world.post(body={**BODY, "account_id": "a-2"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_same_key_with_another_body_is_refused_when_both_were_written_before_either_was_decided(world: World) -> None:
    world.decision = None
    world.post()
    (first,) = world.fold.written
    world.decision = (201, {"topup_id": "top_1"})
    decide = world.fold.decide

    def decide_in_order(event: Event) -> tuple[int, dict[str, Any]] | None:
        world.fold.settle(first.data, decide(first))  # type: ignore[arg-type]
        return decide(event)

    world.fold.decide = decide_in_order
    assert world.post(body={**BODY, "account_id": "a-2"}).json()["code"] == "idempotency_key_reused"


def test_command_of_a_person_who_was_forgotten_stays_answered_and_nobody_is_told_what(world: World) -> None:
    world.decision = None
    where = world.post().headers["Location"]
    (event,) = world.fold.written
    forgotten = Answered(command_id=event.id, body_hash="", caller="", status=410, body={})
    world.reader.decided[event.id] = forgotten
    answers = [world.post(), world.post(body={**BODY, "account_id": "a-2"}), world.client.get(where, headers=bearer())]
    assert [answer.status_code for answer in answers] == [410, 410, 410]
    assert len(world.fold.written) == 1


def test_key_counts_for_one_caller_and_one_path(world: World) -> None:
    world.post()
    world.post(path="/payouts/partners/p-2/topups", sub="p-2")
    world.post(path="/payouts/withdrawals/w-1/pay", body=None, role="admin", sub="a")
    world.post(path="/payouts/withdrawals/w-1/pay", body=None, role="admin", sub="b")
    world.post(path="/payouts/withdrawals/w-2/pay", body=None, role="admin", sub="b")
    assert len({event.id for event in world.fold.written}) == len(world.fold.written) == 5


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 400, "idempotency_key_required"),
        ("", 422, "invalid"),
        ("k" * 256, 422, "invalid"),
        ("a\tb", 422, "invalid"),
        ("k" * 255, 201, None),
        ("with spaces ~!", 201, None),
    ],
)
def test_idempotency_key_has_1_to_255_printable_characters(
    world: World, key: str | None, status: int, code: str | None
) -> None:
    answer = world.post(key=key)
    assert (answer.status_code, answer.json().get("code")) == (status, code)
    assert bool(world.fold.written) == (status == 201)


def test_put_needs_no_key_and_is_a_new_command_each_time(world: World) -> None:
    for _ in range(2):
        assert world.client.put(PATH, json=BODY, headers=bearer()).status_code == 201
    assert len({event.id for event in world.fold.written}) == 2


@pytest.mark.parametrize(
    "decision", [(201, {"topup_id": "top_1"}), (409, {"code": "account_not_owned", "detail": "x"})]
)
def test_undecided_command_is_answered_202_and_later_as_the_post_would_have(
    world: World, decision: tuple[int, dict[str, Any]]
) -> None:
    world.decision = None
    pending = world.post()
    assert pending.status_code == 202
    where = pending.headers["Location"]
    assert where.startswith("/payouts/commands/")
    assert world.client.get(where, headers=bearer()).status_code == 202
    (event,) = world.fold.written
    world.fold.settle(event.data, decision)  # type: ignore[arg-type]
    later, again = world.client.get(where, headers=bearer()), world.post()
    assert (later.status_code, later.content) == (again.status_code, again.content)
    assert later.status_code == decision[0]


def test_location_remembers_which_body_it_was_for(world: World) -> None:
    world.decision = None
    world.post()
    where = world.post(body={**BODY, "account_id": "a-2"}).headers["Location"]
    world.fold.settle(world.fold.written[0].data, (201, {}))  # type: ignore[arg-type]
    assert world.client.get(where, headers=bearer()).json()["code"] == "idempotency_key_reused"


def test_command_of_another_caller_is_not_found_decided_or_not(world: World) -> None:
    world.decision = None
    where = world.post().headers["Location"]
    others = [bearer(sub="p-2"), bearer("admin", "p-1"), bearer("platform", "p-1")]
    assert [world.client.get(where, headers=other).status_code for other in others] == [404, 404, 404]
    world.fold.settle(world.fold.written[0].data, (201, {}))  # type: ignore[arg-type]
    assert [world.client.get(where, headers=other).status_code for other in others] == [404, 404, 404]
    assert world.client.get(where).status_code == 401
    assert world.client.get("/payouts/commands/cmd_unknown", headers=bearer()).status_code == 404


def test_state_that_is_rebuilt_answers_503_and_writes_nothing(world: World) -> None:
    world.reader.rebuilding = True
    answer = world.post()
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, "rebuilding", "1")
    assert not world.fold.written


def test_rebuild_that_begins_after_the_write_leaves_the_command_pending(world: World) -> None:
    def decide(event: Event) -> None:
        world.reader.rebuilding = True

    world.fold.decide = decide
    assert world.post().status_code == 202


def test_field_that_the_command_does_not_have_is_a_fault_and_not_lost_in_silence(world: World) -> None:
    @router.post("/wrong")
    async def wrong(request: Request, who: TheCaller, commands: TheCommands) -> Response:
        return await commands.run(request, who, (), RequestTopup, partner_id="p-1", acount_id="a-1")

    app, fold = app_over("payouts", router, world.reader)
    with TestClient(app) as client, pytest.raises(TypeError, match="acount_id"):
        client.post("/payouts/wrong", headers={**bearer(), "Idempotency-Key": "k"})
    assert not fold.written
