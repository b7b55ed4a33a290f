"""Credits over HTTP: the real app and the real fold, over a log and a memory in this process."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from schemas import events
from schemas.events import Event, Payload, ProgramPublished
from schemas.internal import SaleStated, TakenBack
from schemas.moments import DAY, SECOND, format_instant, micros, parse_instant
from schemas.money import Money
from schemas.programs import shipped
from services.rewards import api, stages, views
from services.rewards.state import Purchase, Taken, Wallet
from services.runtime.http import Commands
from services.runtime.metrics import Metrics
from services.runtime.programs import ProgramsFeed
from services.runtime.simulate import MemoryReader, World
from tests.http_fakes import FakeReader, bearer, resources_over, settings

MARCH = parse_instant("2025-03-01T00:00:00Z")
PC = "proxy-credits"
PLATFORM, ADMIN = ("platform", "platform"), ("admin", "admin")
RATES = {
    "exact": {"product_rate": "1", "redemption_rate": "3.2"},
    "packetstream": {"product_rate": "5", "redemption_rate": "6"},
}


class Rewards:
    """What a test publishes and asks. Without `by`, p-1 asks; every POST has its own key."""

    def __init__(self, client: TestClient, world: World, feed: ProgramsFeed) -> None:
        self.client, self.world, self.feed, self._numbers = client, world, feed, count(1)

    def happened(self, *payloads: Payload, at: int = MARCH) -> None:
        self.world.publish(*(Event(f"e{next(self._numbers)}", "/t", at, data) for data in payloads))
        self.client.portal.call(self.world._run)  # type: ignore[union-attr]

    def published(self, version: int, program_id: str = PC, since: int = 0, **changes: Any) -> None:
        (program,) = (program for program in shipped() if program.program_id == program_id)
        document = {**program.as_document(), **changes}
        made = ProgramPublished(program_id=program_id, version=version, effective_at=since, document=document)
        self.happened(made, at=since)
        self.feed.programs = self.feed.programs.with_version(made)

    def get(self, path: str, by: tuple[str, str] = ("partner", "p-1"), **query: Any) -> Response:
        return self.client.get(f"/rewards{path}", headers=bearer(*by), params=query)

    def post(self, path: str, body: Any = None, by: tuple[str, str] = ("partner", "p-1"), key: str = "") -> Response:
        headers = {**bearer(*by), "Idempotency-Key": key or f"key-{next(self._numbers)}"}
        return self.client.post(f"/rewards{path}", headers=headers, json=body)

    def claim(self, provider: str = "packetstream", key: str = "", **more: Any) -> Response:
        return self.post("/partners/p-1/claims", {"program_id": PC, "provider": provider, **more}, key=key)

    def settle(self, claim_id: str, how: str, by: tuple[str, str] = PLATFORM) -> Response:
        return self.post(f"/claims/{claim_id}/{how}", by=by)

    @property
    def balance(self) -> int:
        (credit,) = self.get("/partners/p-1/wallet").json()["credits"]
        return int(credit["balance"])


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """One app for all tests; each gives it a world of its own."""
    with TestClient(api.create_app(settings(), resources_over(FakeReader()))) as client:
        yield client


@pytest.fixture
def rewards(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Rewards:
    """p-1 is in proxy-credits and has 15 credits for a purchase."""
    monkeypatch.setattr(api, "ACTIVATION_LOOKS", 1)
    world = World(stages(settings()))
    reader: Any = MemoryReader(world)

    async def write(event: Event, key: str) -> None:
        world.publish(event)
        await world._run()

    commands = Commands("rewards", settings(), reader, write, Metrics("api"), wait_seconds=0.3)
    resources = resources_over(reader, commands)
    client.app.state.resources = resources  # type: ignore[attr-defined]
    made = Rewards(client, world, resources.programs_feed)
    made.published(1, providers=RATES)
    made.published(1, "keycrm")
    made.happened(activated("p-1", PC))
    made.happened(sold("pay-1", 15))
    return made


def activated(partner: str, program: str) -> events.PartnerActivated:
    return events.PartnerActivated(partner_id=partner, program_id=program, activated_at=MARCH)


def sold(payment: str, earned: int | None, at: int = MARCH, back: tuple[tuple[int, int], ...] = ()) -> SaleStated:
    return SaleStated(
        payment_id=payment,
        customer_id=f"c-{payment}",
        partner_id="p-1",
        program_id=PC,
        program_version=1,
        paid_at=at,
        base=Money(minor=1400, currency="USD"),
        reasons=() if earned is not None else ("not_first_purchase",),
        available_at=at,
        taken_back=tuple(
            TakenBack(id=f"r{number}", at=when, minor=1, reason="refund", credits=taken)
            for number, (when, taken) in enumerate(back)
        ),
        credits=earned,
        caused_by="e",
    )


def test_wallet_holds_what_purchases_earned_and_as_of_what_lies_strictly_before(rewards: Rewards) -> None:
    rewards.happened(sold("pay-1", 15, back=((MARCH + DAY, 4),)))
    assert rewards.get("/partners/p-1/wallet").json() == {"credits": [{"program_id": PC, "balance": 11}], "bonuses": []}
    for at, shown in ((MARCH, []), (MARCH + 1, [15]), (MARCH + DAY, [15]), (MARCH + DAY + 1, [11])):
        body = rewards.get("/partners/p-1/wallet", as_of=format_instant(at)).json()
        assert [credit["balance"] for credit in body["credits"]] == shown


def test_purchase_that_earns_no_more_leaves_no_entry(rewards: Rewards) -> None:
    rewards.happened(sold("pay-1", None))
    assert rewards.get("/partners/p-1/wallet").json()["credits"] == []
    assert rewards.get("/partners/p-1/history").json()["items"] == []


def test_store_shows_rates_prices_and_what_can_be_claimed(rewards: Rewards) -> None:
    rewards.happened(sold("pay-1", 5))
    assert rewards.get("/partners/p-1/store", program_id=PC).json() == {
        "program_id": PC,
        "balance": 5,
        "offers": [
            {"provider": "exact", "credits_per_gb": "3.2", "gb": 1, "credits": 4, "claimable": True},
            {"provider": "packetstream", "credits_per_gb": 6, "gb": 1, "credits": 6, "claimable": False},
        ],
    }


def test_store_of_a_program_that_is_off_offers_nothing_to_claim(rewards: Rewards) -> None:
    rewards.published(2, since=MARCH, providers=RATES, enabled=False)
    assert [offer["claimable"] for offer in rewards.get("/partners/p-1/store").json()["offers"]] == [False, False]


def test_store_asks_for_the_program_of_a_partner_in_several(rewards: Rewards) -> None:
    assert rewards.get("/partners/p-1/store").json()["program_id"] == PC
    rewards.happened(activated("p-1", "keycrm"))
    assert rewards.get("/partners/p-1/store").json()["code"] == "program_required"
    assert rewards.claim(program_id=None).json()["code"] == "program_required"
    assert rewards.get("/partners/p-1/store", program_id="keycrm").json()["offers"] == []


def test_claim_takes_its_credits_at_once(rewards: Rewards) -> None:
    answer = rewards.claim()
    assert answer.status_code == 201
    body = answer.json()
    assert {name: body[name] for name in ("program_id", "provider", "gb", "credits", "status", "settled_at")} == {
        "program_id": PC,
        "provider": "packetstream",
        "gb": 1,
        "credits": 6,
        "status": "requested",
        "settled_at": None,
    }
    assert rewards.balance == 9


def test_claim_repeated_under_its_key_is_the_same_claim(rewards: Rewards) -> None:
    first = rewards.claim(key="k")
    assert rewards.claim(key="k").json() == first.json()
    assert rewards.balance == 9
    assert rewards.claim("exact", key="k").json()["code"] == "idempotency_key_reused"


def test_claim_that_was_answered_is_so_again_whatever_its_checks_would_say_now(rewards: Rewards) -> None:
    body = {"provider": "exact"}
    first = rewards.post("/partners/p-1/claims", body, key="k")
    rewards.happened(activated("p-1", "keycrm"))
    assert rewards.post("/partners/p-1/claims", body).json()["code"] == "program_required"
    again = rewards.post("/partners/p-1/claims", body, key="k")
    assert (again.status_code, again.content) == (201, first.content)
    assert rewards.claim(program_id="absent", key="k").json()["code"] == "idempotency_key_reused"
    assert rewards.balance == 11


def test_claim_of_the_only_program_needs_no_program_id(rewards: Rewards) -> None:
    assert rewards.post("/partners/p-1/claims", {"provider": "exact"}).json()["credits"] == 4


def test_refusals_come_in_their_order_and_change_nothing(rewards: Rewards) -> None:
    rewards.happened(sold("pay-1", 3))
    assert rewards.claim().json()["code"] == "insufficient_credits"
    assert rewards.claim("nobody").json()["code"] == "no_rate"
    rewards.published(2, since=MARCH, providers=RATES, enabled=False)
    assert rewards.claim("nobody").json()["code"] == "program_disabled"
    assert rewards.balance == 3
    assert len(rewards.get("/partners/p-1/history").json()["items"]) == 1


def test_claim_costs_what_the_rate_in_force_says(rewards: Rewards) -> None:
    dear = {"packetstream": {"product_rate": "5", "redemption_rate": "12"}}
    tomorrow = micros(settings().now()) + DAY
    rewards.published(2, since=tomorrow, providers=dear)
    assert rewards.claim().json()["credits"] == 6
    rewards.published(3, since=tomorrow - 2 * DAY, providers=dear)
    assert rewards.claim().json()["code"] == "insufficient_credits"


def test_claims_are_the_partners_own(rewards: Rewards) -> None:
    body = {"program_id": PC, "provider": "packetstream"}
    assert rewards.post("/partners/p-1/claims", body, by=("partner", "p-2")).status_code == 404
    assert rewards.post("/partners/p-1/claims", body, by=ADMIN).status_code == 403
    assert rewards.post("/partners/p-2/claims", body, by=("partner", "p-2")).status_code == 404
    assert rewards.claim(gb=2).json()["errors"][0]["field"] == "gb"


@pytest.mark.parametrize(("how", "status", "balance"), [("fulfil", "fulfilled", 9), ("fail", "failed", 15)])
def test_claim_is_settled_once_by_the_platform(rewards: Rewards, how: str, status: str, balance: int) -> None:
    claim_id = rewards.claim().json()["claim_id"]
    assert rewards.settle(claim_id, how, by=("partner", "p-1")).status_code == 403
    answer = rewards.settle(claim_id, how)
    assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert rewards.balance == balance
    for again in ("fulfil", "fail"):
        assert rewards.settle(claim_id, again).json()["code"] == "already_settled"
    assert rewards.balance == balance


def test_unknown_claim_is_not_found(rewards: Rewards) -> None:
    assert rewards.settle("claim_none", "fulfil").status_code == 404


def test_claims_wait_until_a_debt_is_filled(rewards: Rewards) -> None:
    rewards.claim()
    rewards.happened(sold("pay-1", 15, back=((MARCH + DAY, 15),)))
    assert rewards.balance == -6
    rewards.happened(sold("pay-2", 11))
    assert rewards.claim().json()["code"] == "insufficient_credits"
    rewards.happened(sold("pay-3", 1))
    assert rewards.claim().status_code == 201
    assert rewards.balance == 0


def test_history_shows_every_movement_newest_first_and_in_pages(rewards: Rewards) -> None:
    rewards.happened(sold("pay-1", 15, back=((MARCH + 2 * SECOND, 4), (MARCH + 3 * SECOND, 0))))
    failed, other = (rewards.claim("exact").json()["claim_id"] for _ in range(2))
    rewards.settle(failed, "fail")
    items = rewards.get("/partners/p-1/history").json()["items"]
    assert [(item["type"], item["credits"]) for item in items] == [
        ("claim.failed", 4),
        ("claim.requested", 4),
        ("claim.requested", 4),
        ("credit.reversed", 4),
        ("credit.granted", 15),
    ]
    assert items[1]["claim_id"] == other
    assert items[3] == {
        "type": "credit.reversed",
        "occurred_at": "2025-03-01T00:00:02Z",
        "program_id": PC,
        "credits": 4,
        "payment_id": "pay-1",
        "customer_id": "c-pay-1",
        "reason": "refund",
        "cause": "r0",
    }
    paged: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        page = rewards.get("/partners/p-1/history", limit=2, **cursor).json()
        paged += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert paged == items
    assert rewards.get("/partners/p-1/history", program_id="keycrm").json()["items"] == []
    assert rewards.get("/partners/p-1/history", by=("partner", "p-2")).status_code == 404


def test_a_refund_and_a_dispute_of_one_id_and_moment_are_two_lines_of_the_history() -> None:
    taken = (Taken("x", MARCH + DAY, 4, "refund"), Taken("x", MARCH + DAY, 4, "dispute_lost"))
    purchase = Purchase("pay-1", "c-1", PC, MARCH, 15, taken)
    found = list(views.history(Wallet(), [purchase], MARCH))
    assert len({views.movement_key(each) for each in found}) == len(found) == 3
