"""Monthly discounts over HTTP: the real app and the real folds, over a log and a memory in this process."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from schemas import events, internal
from schemas.events import Event, Payload, ProgramPublished
from schemas.moments import DAY, format_instant, micros, parse_instant
from schemas.programs import shipped
from services.rewards import api, stages
from services.rewards.calendar import verification_day
from services.rewards.day_timer import Due, days_reached
from services.runtime.http import Commands
from services.runtime.http.resources import Resources
from services.runtime.metrics import Metrics
from services.runtime.simulate import MemoryReader, World
from tests.http_fakes import FakeReader, bearer, resources_over, settings

PROGRAM = "active-referrals"
NOW = micros(settings().now())
LONG_AGO, BOUND = parse_instant("2024-06-01T00:00:00Z"), parse_instant("2025-01-01T00:00:00Z")
PLATFORM, ADMIN = ("platform", "platform"), ("admin", "admin")


class Rewards:
    """What a test publishes and asks."""

    def __init__(self, client: TestClient, world: World) -> None:
        self.client, self.world, self._numbers = client, world, count(1)

    def run(self) -> None:
        self.client.portal.call(self.world._run)  # type: ignore[union-attr]

    def happened(self, *payloads: Payload, at: int = BOUND) -> None:
        self.world.publish(*(Event(f"e{next(self._numbers)}", "/t", at, data) for data in payloads))
        self.run()

    def day(self, month: str) -> None:
        day = verification_day(self.world.programs, PROGRAM, month)
        assert day is not None
        for partition, event in enumerate(days_reached(Due(PROGRAM, day), self.world.partitions)):
            self.world.publish(event, partition=partition)
        self.run()

    def get(self, path: str, by: tuple[str, str] = ("partner", "p-1"), **query: Any) -> Response:
        return self.client.get(f"/rewards{path}", headers=bearer(*by), params=query)

    def post(self, path: str, body: Any, by: tuple[str, str] = ADMIN, key: str = "") -> Response:
        headers = {**bearer(*by), "Idempotency-Key": key or f"key-{next(self._numbers)}"}
        return self.client.post(f"/rewards{path}", headers=headers, json=body)

    def verify(self, date: str, **more: Any) -> Response:
        return self.post("/verifications", {"program_id": PROGRAM, "date": date}, **more)

    def use(self, invoice: str, issued_at: str, minor: int = 5000, account: str = "a-1", **more: Any) -> Response:
        body = {"invoice_id": invoice, "issued_at": issued_at, "amount": {"minor": minor, "currency": "USD"}}
        return self.post(f"/accounts/{account}/discount/use", body, **{"by": PLATFORM, **more})


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(api.create_app(settings(), resources_over(FakeReader()))) as client:
        yield client


@pytest.fixture
def rewards(client: TestClient) -> Rewards:
    """p-1 has two companies and 6 active referrals; p-2 is a partner with nothing. Published now: nothing is due."""
    return _rewards(client, NOW)


def _rewards(client: TestClient, since: int) -> Rewards:
    world = World(stages(settings()))
    reader: Any = MemoryReader(world)

    async def write(event: Event, key: str) -> None:
        world.publish(event)
        await world._run()

    commands = Commands("rewards", settings(), reader, write, Metrics("api"), wait_seconds=0.3)
    feed: Any = world.feed
    client.app.state.resources = Resources(settings(), reader, feed, commands)  # type: ignore[attr-defined]
    made = Rewards(client, world)
    for program in shipped():
        document = program.as_document()
        at = since if program.program_id == PROGRAM else 0
        told = ProgramPublished(program_id=program.program_id, version=1, effective_at=at, document=document)
        made.happened(told, at=at)
    made.happened(
        *(events.PartnerActivated(partner_id=p, program_id=PROGRAM, activated_at=LONG_AGO) for p in ("p-1", "p-2")),
        *(events.AccountCreated(customer_id="p-1", account_id=account) for account in ("a-1", "a-2")),
        *(
            internal.ReferralActivity(
                partner_id="p-1", program_id=PROGRAM, customer_id=f"c{n}", active=((BOUND + n, None),)
            )
            for n in range(6)
        ),
    )
    return made


def test_a_month_is_verified_and_shown(rewards: Rewards) -> None:
    asked = rewards.verify("2025-02-28", key="once")
    assert asked.status_code == 202
    rewards.day("2025-02")
    answer = rewards.client.get(asked.headers["location"], headers=bearer(*ADMIN))
    shown = {"program_id": PROGRAM, "month": "2025-02", "as_of": "2025-02-28T00:00:00Z"}
    assert answer.json() == {**shown, "partners": 2, "assigned": 1, "withheld": 0, "lapsed": 0}
    assert rewards.verify("2025-02-28", key="once").json() == rewards.verify("2025-02-28").json() == answer.json()
    assert rewards.verify("2025-02-27", key="once").json()["code"] == "idempotency_key_reused"
    assignment = {"account_id": "a-1", "referrals_counted": 6, "percent": 5, "status": "assigned"}
    assert rewards.get("/partners/p-1/discounts", month="2025-02").json() == {
        **shown,
        "active_referrals": 6,
        "assignments": [assignment],
        "withheld": None,
    }


@pytest.mark.parametrize(
    ("program_id", "date", "status", "code"),
    [
        (PROGRAM, "2025-02-27", 422, "not_a_verification_day"),
        (PROGRAM, "2025-13-28", 422, "not_a_verification_day"),
        (PROGRAM, "9000-01-28", 422, "not_a_verification_day"),
        (PROGRAM, "28.02.2025", 422, "invalid"),
        (PROGRAM, "２０２５-02-28", 422, "invalid"),
        (PROGRAM, "2025-02-٢٨", 422, "invalid"),
        ("unheard-of", "2025-02-28", 404, "not_found"),
    ],
)
def test_only_a_day_that_verifies_a_month_and_has_come_is_verified(
    rewards: Rewards, program_id: str, date: str, status: int, code: str
) -> None:
    answer = rewards.post("/verifications", {"program_id": program_id, "date": date})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_roles(rewards: Rewards) -> None:
    for by in (PLATFORM, ("partner", "p-1")):
        assert rewards.verify("2025-02-28", by=by).json()["code"] == "forbidden"
    for by in (ADMIN, ("partner", "p-1")):
        assert rewards.use("i", "2025-03-01T00:00:00Z", by=by).json()["code"] == "forbidden"
    foreign = rewards.get("/partners/p-1/discounts", by=("partner", "p-2"))
    absent = rewards.get("/partners/absent/discounts", by=("partner", "p-2"))
    assert (foreign.status_code, foreign.content) == (404, absent.content)
    assert rewards.get("/partners/p-1/discounts", by=PLATFORM).status_code == 200
    assert rewards.get("/partners/nobody/discounts", by=ADMIN).status_code == 404


def test_an_invoice_takes_the_discount_once_whatever_the_key(rewards: Rewards) -> None:
    rewards.day("2025-02")
    first = rewards.use("i-1", "2025-03-15T00:00:00Z")
    shown = {name: first.json()[name] for name in ("percent", "discount", "amount")}
    usd = {"currency": "USD"}
    assert (first.status_code, shown) == (
        200,
        {"percent": 5, "discount": {"minor": 250, **usd}, "amount": {"minor": 4750, **usd}},
    )
    assert rewards.use("i-1", "2025-03-15T00:00:00Z").content == first.content
    second = rewards.use("i-2", "2025-03-16T00:00:00Z")
    assert (second.json()["percent"], second.json()["amount"]) == (0, {"minor": 5000, **usd})
    (used,) = rewards.get("/partners/p-1/discounts", month="2025-02").json()["assignments"]
    assert used["status"] == "used"
    history = rewards.get("/partners/p-1/history").json()["items"]
    assert [(each["type"], each["month"]) for each in history] == [
        ("discount.used", "2025-02"),
        ("discount.assigned", "2025-02"),
    ]


def test_an_invoice_that_was_answered_nothing_stays_so(rewards: Rewards) -> None:
    assert rewards.use("i-1", "2025-03-15T00:00:00Z").json()["percent"] == 0
    rewards.day("2025-02")
    assert rewards.use("i-1", "2025-03-15T00:00:00Z").json()["percent"] == 0
    assert rewards.use("i-2", "2025-03-15T00:00:00Z").json()["percent"] == 5


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"account": "nobodys"}, 404, "not_found"),
        ({"issued_at": format_instant(NOW + DAY)}, 422, "invalid"),
        ({"minor": -1}, 422, "invalid"),
        ({"issued_at": "2025-03-15"}, 422, "invalid"),
    ],
)
def test_what_no_invoice_can_be_is_refused(rewards: Rewards, more: dict[str, Any], status: int, code: str) -> None:
    answer = rewards.use(**{"invoice": "i-1", "issued_at": "2025-03-15T00:00:00Z", **more})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_an_invoice_waits_for_the_verification_that_it_falls_under(client: TestClient) -> None:
    rewards = _rewards(client, parse_instant("2025-02-01T00:00:00Z"))
    assert rewards.use("i-1", "2025-02-27T00:00:00Z").json()["percent"] == 0
    early = rewards.use("i-2", "2025-03-01T00:00:00Z")
    assert (early.status_code, early.json()["code"], early.headers["retry-after"]) == (503, "rebuilding", "1")
    rewards.day("2025-02")
    assert rewards.use("i-2", "2025-03-01T00:00:00Z").json()["percent"] == 5


def test_without_a_month_the_next_verification_is_shown_as_a_preview(rewards: Rewards) -> None:
    shown = rewards.get("/partners/p-1/discounts").json()
    assert shown["assignments"] == [
        {"account_id": "a-1", "referrals_counted": 6, "percent": 5, "status": "preview"},
    ]
    past = rewards.get("/partners/p-1/discounts", month="2025-01").json()
    coming = rewards.get("/partners/p-1/discounts", month="2090-01").json()
    assert (past["as_of"], past["active_referrals"]) == ("2025-01-28T00:00:00Z", 6)
    assert (coming["month"], coming["active_referrals"]) == ("2090-01", 6)
    assert rewards.get("/partners/p-1/discounts", month="2024-12").json()["active_referrals"] == 0


def test_who_becomes_a_partner_after_a_month_was_decided_has_no_part_in_it(rewards: Rewards) -> None:
    rewards.day("2025-02")
    rewards.happened(
        events.PartnerActivated(partner_id="p-3", program_id=PROGRAM, activated_at=LONG_AGO),
        events.PaymentPending.model_validate(
            {"payment_id": "x", "customer_id": "p-3", "amount": {"minor": 1, "currency": "USD"}}
        ),
    )
    own = ("partner", "p-3")
    assert rewards.get("/partners/p-3/discounts", by=own, month="2025-02").json()["withheld"] is None
    assert rewards.get("/partners/p-3/discounts", by=own, month="2025-03").json()["withheld"] == "pending_payment"


@pytest.mark.parametrize("month", ["2025", "2025-13", "2025-2", "february", "2025-02-28", "２０２５-02", "2025-٠٢"])
def test_a_month_is_written_as_one(rewards: Rewards, month: str) -> None:
    answer = rewards.get("/partners/p-1/discounts", month=month)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "month")


def test_a_partner_of_several_programs_names_one(rewards: Rewards) -> None:
    (keycrm,) = (program for program in shipped() if program.program_id == "keycrm")
    rewards.happened(
        ProgramPublished(program_id="keycrm", version=1, effective_at=NOW, document=keycrm.as_document()), at=NOW
    )
    rewards.happened(events.PartnerActivated(partner_id="p-1", program_id="keycrm", activated_at=LONG_AGO))
    assert rewards.get("/partners/p-1/discounts").json()["code"] == "program_required"
    assert rewards.get("/partners/p-1/discounts", program_id=PROGRAM).status_code == 200
    assert rewards.get("/partners/p-1/discounts", program_id="keycrm").status_code == 404
