"""Payouts over HTTP: the real app and the real fold, over a log and a memory in this process."""

import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from schemas import events
from schemas.events import Event, Payload, ProgramPublished, Reversal, Standing
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import Programs, shipped
from services.payouts import STAGES, api
from services.payouts.state import AccrualRow, Returned
from services.payouts.statement import harmless, lines
from services.runtime.http import Commands
from services.runtime.metrics import Metrics
from services.runtime.simulate import MemoryReader, World
from tests.http_fakes import FakeReader, bearer, resources_over, settings

MARCH = parse_instant("2025-03-01T00:00:00Z")
DESTINATION = "UA903052992990004149123456789"
PLATFORM, ADMIN = ("platform", "platform"), ("admin", "admin")


class Payouts:
    """What a test publishes and asks. Without `by`, the partner in the path asks; every POST has its own key."""

    def __init__(self, client: TestClient, world: World) -> None:
        self.client, self.world, self._numbers = client, world, count(1)

    def happened(self, *payloads: Payload, at: int = MARCH) -> None:
        self.world.publish(*(Event(f"e{next(self._numbers)}", "/t", at, data) for data in payloads))
        self.client.portal.call(self.world._run)  # type: ignore[union-attr]

    def get(self, path: str, by: tuple[str, str] | None = None, accept: str = "*/*", **query: Any) -> Response:
        headers = {**bearer(*(by or _own(path))), "Accept": accept}
        return self.client.get(f"/payouts{path}", headers=headers, params=query)

    def post(self, path: str, body: Any = None, by: tuple[str, str] | None = None, key: str = "") -> Response:
        headers = {**bearer(*(by or _own(path))), "Idempotency-Key": key or f"key-{next(self._numbers)}"}
        return self.client.post(f"/payouts{path}", headers=headers, json=body)

    def withdraw(self, minor: int = 5000, partner: str = "p-1", **more: Any) -> Response:
        body = {"program_id": "keycrm", "amount": usd(minor), "destination": DESTINATION, **more}
        return self.post(f"/partners/{partner}/withdrawals", body)


def _own(path: str) -> tuple[str, str]:
    return "partner", path.split("/")[2]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """One app for all tests; each gives it a world of its own."""
    with TestClient(api.create_app(settings(), resources_over(FakeReader()))) as client:
        yield client


@pytest.fixture
def payouts(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Payouts:
    """p-1 has an account and 60.00 USD of keycrm; p-2 is a partner of keycrm with nothing."""
    monkeypatch.setattr(api, "ACTIVATION_LOOKS", 1)
    world = World(STAGES)
    reader: Any = MemoryReader(world)

    async def write(event: Event, key: str) -> None:
        world.publish(event)
        await world._run()

    commands = Commands("payouts", settings(), reader, write, Metrics("api"))
    client.app.state.resources = resources_over(reader, commands)  # type: ignore[attr-defined]
    made = Payouts(client, world)
    made.happened(*(published(program.program_id) for program in shipped()), at=0)
    made.happened(
        *(activated(partner, "keycrm") for partner in ("p-1", "p-2")),
        events.AccountCreated(customer_id="p-1", account_id="own-1"),
        accrued("pay-1", 6000),
    )
    return made


def published(program_id: str) -> ProgramPublished:
    (program,) = (program for program in shipped() if program.program_id == program_id)
    return ProgramPublished(program_id=program_id, version=1, effective_at=0, document=program.as_document())


def activated(partner: str, program: str) -> events.PartnerActivated:
    return events.PartnerActivated(partner_id=partner, program_id=program, activated_at=MARCH)


def accrued(payment: str, minor: int, program: str = "keycrm", currency: str = "USD", at: int = MARCH) -> Payload:
    how = Standing(
        accrued_at=at,
        base=Money(minor=minor * 10, currency=currency),
        amount=Money(minor=minor, currency=currency),
        available_at=at,
    )
    same = {"base": how.base, "amount": how.amount, "available_at": at}
    return events.CommissionAccrued(**_ids(payment, program), rate="0.10", standing=how, **same)


def refunded(payment: str, minor: int, of: int, at: int) -> Payload:
    taken = Reversal(reversal_id="r-1", reversed_at=at, amount=Money(minor=minor, currency="USD"), reason="refund")
    how = Standing(
        accrued_at=MARCH,
        base=Money(minor=of * 10, currency="USD"),
        amount=Money(minor=of, currency="USD"),
        available_at=MARCH,
        refunded_minor=minor * 10,
        reversals=(taken,),
    )
    return events.CommissionReversed(
        **_ids(payment, "keycrm"), reversal_id="r-1", amount=taken.amount, reason="refund", standing=how
    )


def _ids(payment: str, program: str) -> dict[str, Any]:
    own = {"commission_id": f"c-{payment}", "payment_id": payment, "customer_id": "c-1", "partner_id": "p-1"}
    return {**own, "program_id": program, "program_version": 1}


def usd(minor: int) -> dict[str, Any]:
    return {"minor": minor, "currency": "USD"}


# --- balance --------------------------------------------------------------------------------------------------------


def test_a_balance_has_every_field_as_money(payouts: Payouts) -> None:
    payouts.withdraw()
    (book,) = payouts.get("/partners/p-1/balance").json()["balances"]
    nothing = dict.fromkeys(("reversed", "pending", "paid", "topped_up", "deposits", "spent"), usd(0))
    some = {"accrued": usd(6000), "processing": usd(5000), "available": usd(1000)}
    assert book == {"program_id": "keycrm", "currency": "USD", **nothing, **some}


def test_a_balance_looks_back(payouts: Payouts) -> None:
    payouts.happened(refunded("pay-1", 1500, 6000, MARCH + 2 * DAY))
    at = ("2025-03-01T00:00:00Z", "2025-03-02T00:00:00Z", "2025-03-04T00:00:00Z")
    then = [payouts.get("/partners/p-1/balance", as_of=each).json()["balances"] for each in at]
    assert [[book["available"]["minor"] for book in books] for books in then] == [[], [6000], [4500]]


def test_a_balance_looks_ahead_as_far_as_times_go(payouts: Payouts) -> None:
    ahead = [
        payouts.get("/partners/p-1/balance", as_of=f"{year}-12-31T23:59:59Z").json() for year in (2100, 9998, 9999)
    ]
    assert ahead == [payouts.get("/partners/p-1/balance").json()] * 3


def test_a_partner_always_sees_its_own_balance_and_nobody_elses(payouts: Payouts) -> None:
    assert payouts.get("/partners/p-2/balance").json() == {"balances": []}
    assert payouts.get("/partners/nobody/balance").json() == {"balances": []}
    foreign = payouts.get("/partners/p-1/balance", by=("partner", "p-2"))
    absent = payouts.get("/partners/absent/balance", by=("partner", "p-2"))
    assert (foreign.status_code, foreign.content) == (404, absent.content)


@pytest.mark.parametrize("by", [PLATFORM, ADMIN])
@pytest.mark.parametrize("what", ["balance", "statement", "withdrawals"])
def test_platform_and_admin_read_everybodys_but_not_of_the_unknown(payouts: Payouts, by: Any, what: str) -> None:
    assert payouts.get(f"/partners/p-1/{what}", by=by).status_code == 200
    assert payouts.get(f"/partners/nobody/{what}", by=by).status_code == 404


def test_a_clock_that_went_back_is_answered_from_the_rows(payouts: Payouts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "totals", lambda person, at: None)
    assert payouts.get("/partners/p-1/balance").json()["balances"][0]["available"] == usd(6000)


# --- withdrawals ----------------------------------------------------------------------------------------------------


def test_what_a_partner_asks_is_decided_by_the_latest_version_that_its_api_knows(payouts: Payouts) -> None:
    payouts.client.app.state.resources.programs_feed.programs = Programs.of(*shipped())  # type: ignore[attr-defined]
    asked = {"program_id": "keycrm", "amount": usd(1000)}
    payouts.withdraw()
    payouts.post("/partners/p-1/topups", {**asked, "account_id": "own-1"})
    payouts.post("/partners/p-1/deposits", {**asked, "method": "card"})
    client = {"customer_id": "c-1", "integration": "kommo", "interval": "month", "list_price": usd(1)}
    payouts.post("/partners/p-1/client-payments", {"program_id": "keycrm", **client})
    versions = [event.data.program_version for event in payouts.world.events("commands.payouts")]  # type: ignore[attr-defined]
    assert versions == [1] * 4


def test_a_withdrawal_goes_its_way(payouts: Payouts) -> None:
    asked = payouts.withdraw(comment="March")
    assert (asked.status_code, asked.json()["status"]) == (201, "processing")
    own = asked.json()["withdrawal_id"]
    paid = payouts.post(f"/withdrawals/{own}/pay", by=ADMIN)
    assert (paid.status_code, paid.json()["status"]) == (200, "paid")
    again = payouts.post(f"/withdrawals/{own}/pay", by=ADMIN)
    assert (again.status_code, again.json()["code"]) == (409, "already_settled")
    (item,) = payouts.get("/partners/p-1/withdrawals").json()["items"]
    assert item["paid_at"] == item["settled_at"] == paid.json()["paid_at"]
    shown = {name: item[name] for name in ("withdrawal_id", "amount", "destination", "comment", "status")}
    expected = {"amount": usd(5000), "destination": "6789", "comment": "March", "status": "paid"}
    assert shown == {"withdrawal_id": own, **expected}
    written = {event.type for event in payouts.world.events("payouts")}
    assert written == {"withdrawal.requested", "withdrawal.paid"}


def test_only_the_end_of_a_destination_is_shown_and_none_of_it_to_the_platform(payouts: Payouts) -> None:
    answers = [payouts.withdraw(), payouts.get("/partners/p-1/withdrawals", by=ADMIN)]
    assert all(DESTINATION not in answer.text and "6789" in answer.text for answer in answers)
    assert "6789" not in payouts.get("/partners/p-1/withdrawals", by=PLATFORM).text


def test_a_partner_cancels_its_own_withdrawal_alone(payouts: Payouts) -> None:
    own = payouts.withdraw().json()["withdrawal_id"]
    foreign = payouts.post(f"/withdrawals/{own}/cancel", by=("partner", "p-2"))
    absent = payouts.post("/withdrawals/wd_absent/cancel", by=("partner", "p-2"))
    assert (foreign.status_code, foreign.content) == (404, absent.content)
    assert payouts.post(f"/withdrawals/{own}/cancel", by=("partner", "p-1")).json()["status"] == "cancelled"
    assert payouts.get("/partners/p-1/balance").json()["balances"][0]["available"] == usd(6000)


def test_a_rejection_says_why(payouts: Payouts) -> None:
    own = payouts.withdraw().json()["withdrawal_id"]
    assert payouts.post(f"/withdrawals/{own}/reject", {}, by=ADMIN).status_code == 422
    assert payouts.post(f"/withdrawals/{own}/reject", {"reason": "no such bank"}, by=ADMIN).status_code == 200
    (item,) = payouts.get("/partners/p-1/withdrawals").json()["items"]
    assert (item["status"], item["reason"], item["paid_at"]) == ("rejected", "no such bank", None)


@pytest.mark.parametrize(
    ("by", "path"),
    [
        (PLATFORM, "/partners/p-1/withdrawals"),
        (ADMIN, "/partners/p-1/withdrawals"),
        (ADMIN, "/partners/p-1/topups"),
        (ADMIN, "/partners/p-1/deposits"),
        (("partner", "p-1"), "/withdrawals/{}/pay"),
        (PLATFORM, "/withdrawals/{}/pay"),
        (("partner", "p-1"), "/withdrawals/{}/reject"),
        (ADMIN, "/withdrawals/{}/cancel"),
        (("partner", "p-1"), "/deposits/{}/confirm"),
    ],
)
def test_a_role_does_only_what_is_its_own(payouts: Payouts, by: Any, path: str) -> None:
    own = payouts.withdraw().json()["withdrawal_id"]
    bodies = {
        "withdrawals": {"program_id": "keycrm", "amount": usd(5000), "destination": DESTINATION},
        "topups": {"program_id": "keycrm", "amount": usd(1), "account_id": "own-1"},
        "deposits": {"program_id": "keycrm", "amount": usd(1), "method": "card"},
        "reject": {"reason": "because"},
    }
    answer = payouts.post(path.format(own), bodies.get(path.split("/")[-1]), by=by)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"amount": usd(0)}, "amount"),
        ({"amount": usd(-5000)}, "amount"),
        ({"amount": {"minor": 50.5, "currency": "USD"}}, "amount.minor"),
        ({"amount": {"minor": 5000, "currency": "usd"}}, "amount.currency"),
        ({"amount": {**usd(5000), "minors": 1}}, "amount.minors"),
        ({"destination": "123"}, "destination"),
        ({"destination": None}, "destination"),
        ({"note": "x"}, "note"),
    ],
)
def test_a_body_that_is_not_valid_names_the_field(payouts: Payouts, more: dict[str, Any], field: str) -> None:
    answer = payouts.withdraw(**more)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["errors"][0]["field"].startswith(field)


def test_the_same_key_gives_the_first_answer_again(payouts: Payouts) -> None:
    body = {"program_id": "keycrm", "amount": usd(5000), "destination": DESTINATION}
    first, again = (payouts.post("/partners/p-1/withdrawals", body, key="once") for _ in range(2))
    assert (first.status_code, first.content) == (201, again.content)
    assert len(payouts.get("/partners/p-1/withdrawals").json()["items"]) == 1


def test_withdrawals_are_listed_newest_first_page_by_page(payouts: Payouts) -> None:
    payouts.happened(accrued("pay-2", 10_000))
    made = [payouts.withdraw().json()["withdrawal_id"] for _ in range(3)]
    first = payouts.get("/partners/p-1/withdrawals", limit=2).json()
    second = payouts.get("/partners/p-1/withdrawals", limit=2, cursor=first["next_cursor"]).json()
    assert [item["withdrawal_id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None


def test_a_program_that_the_partner_is_not_in_is_not_found(payouts: Payouts) -> None:
    assert payouts.withdraw(program_id="jupsoft").status_code == 404


# --- top-ups and deposits -------------------------------------------------------------------------------------------


def test_a_top_up_says_what_it_is_worth(payouts: Payouts) -> None:
    body = {"program_id": "keycrm", "account_id": "own-1", "amount": usd(1000)}
    answer = payouts.post("/partners/p-1/topups", body)
    assert answer.status_code == 201
    assert (answer.json()["amount"], answer.json()["credited"]) == (usd(1000), usd(3000))
    foreign = payouts.post("/partners/p-1/topups", {**body, "account_id": "other"})
    assert (foreign.status_code, foreign.json()["code"]) == (409, "account_not_owned")


def test_a_deposit_is_invoiced_and_then_confirmed(payouts: Payouts) -> None:
    payouts.happened(activated("p-1", "message-help"))
    eur = {"minor": 10_000, "currency": "EUR"}
    body = {"program_id": "message-help", "amount": eur, "method": "invoice"}
    asked = payouts.post("/partners/p-1/deposits", body)
    assert (asked.status_code, asked.json()["status"]) == (201, "invoiced")
    path = f"/deposits/{asked.json()['deposit_id']}/confirm"
    assert payouts.post(path, {}, by=PLATFORM).json()["status"] == "received"
    assert payouts.post(path, {}, by=PLATFORM).json()["code"] == "already_settled"
    books = payouts.get("/partners/p-1/balance").json()["balances"]
    assert [(book["program_id"], book["deposits"]) for book in books] == [("keycrm", usd(0)), ("message-help", eur)]


# --- statement ------------------------------------------------------------------------------------------------------


def test_a_statement_runs_from_the_oldest_line_and_ends_with_the_balance(payouts: Payouts) -> None:
    payouts.happened(refunded("pay-1", 500, 6000, MARCH + 2 * DAY), accrued("pay-2", 1000, at=MARCH + DAY))
    own = payouts.withdraw().json()["withdrawal_id"]
    payouts.post(f"/withdrawals/{own}/cancel", by=("partner", "p-1"))
    items = payouts.get("/partners/p-1/statement").json()["items"]
    told = [(item["kind"], item["reference"], item["amount"]["minor"], item["balance"]["minor"]) for item in items]
    assert told == [
        ("accrual", "pay-1", 6000, 6000),
        ("accrual", "pay-2", 1000, 7000),
        ("reversal", "pay-1", -500, 6500),
        ("withdrawal", own, -5000, 1500),
        ("withdrawal_cancelled", own, 5000, 6500),
    ]
    assert items[0]["occurred_at"] == "2025-03-01T00:00:00Z"


def test_a_statement_of_a_period_has_the_balance_of_before_in_it(payouts: Payouts) -> None:
    payouts.happened(accrued("pay-2", 1000, at=MARCH + DAY), accrued("pay-3", 100, at=MARCH + 2 * DAY))
    for period in (
        {"from": "2025-03-02", "to": "2025-03-03"},
        {"from": "2025-03-02T00:00:00Z", "to": "2025-03-02T00:00:01Z"},
    ):
        items = payouts.get("/partners/p-1/statement", **period).json()["items"]
        assert [(item["reference"], item["balance"]["minor"]) for item in items] == [("pay-2", 7000)]


@pytest.mark.parametrize("wrong", ["2025-02-30", "2025-03-01T00:00:00", "yesterday", "1"])
def test_a_period_that_is_none_names_its_parameter(payouts: Payouts, wrong: str) -> None:
    answer = payouts.get("/partners/p-1/statement", **{"from": wrong})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "from")


def test_each_program_and_currency_has_its_own_running_balance(payouts: Payouts) -> None:
    payouts.happened(accrued("pay-2", 700, "jupsoft"), accrued("pay-3", 80, currency="JPY"))
    items = payouts.get("/partners/p-1/statement").json()["items"]
    assert {item["reference"]: item["balance"]["minor"] for item in items} == {"pay-1": 6000, "pay-2": 700, "pay-3": 80}
    for query, reference in (({"program_id": "jupsoft"}, "pay-2"), ({"currency": "JPY"}, "pay-3")):
        (item,) = payouts.get("/partners/p-1/statement", **query).json()["items"]
        assert item["reference"] == reference


def test_a_statement_is_paged_oldest_first(payouts: Payouts) -> None:
    payouts.happened(*(accrued(f"pay-{number}", 100, at=MARCH + number) for number in range(2, 6)))
    references, cursor = [], {}
    while True:
        page = payouts.get("/partners/p-1/statement", limit=2, **cursor).json()
        references += [item["reference"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert references == [f"pay-{number}" for number in range(1, 6)]


def test_a_refund_that_comes_late_moves_no_other_line_to_another_place_in_the_statement() -> None:
    def places(*reversals: Returned) -> dict[int, tuple[int | str, ...]]:
        row = AccrualRow("pay-1", "keycrm", "USD", MARCH, 10_000, 1_000, MARCH, reversals=reversals)
        return {line.posting.at: line.place for line in lines([row])}

    early, later = Returned(MARCH + 1, 100, "refund"), Returned(MARCH + 2, 100, "refund")
    assert places(later)[later.returned_at] == places(early, later)[later.returned_at]


def test_a_statement_as_csv_has_a_header_and_decimal_amounts(payouts: Payouts) -> None:
    payouts.happened(refunded("pay-1", 501, 6000, MARCH + DAY), accrued("pay-2", 80, currency="JPY"))
    payouts.happened(accrued("pay-3", 1500, currency="KWD", at=MARCH + 1))
    answer = payouts.get("/partners/p-1/statement", accept="text/csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert list(rows[0]) == ["occurred_at", "kind", "program_id", "reference", "amount", "balance", "currency"]
    assert [(row["reference"], row["amount"], row["balance"], row["currency"]) for row in rows] == [
        ("pay-2", "80", "80", "JPY"),
        ("pay-1", "60.00", "60.00", "USD"),
        ("pay-3", "1.500", "1.500", "KWD"),
        ("pay-1", "-5.01", "54.99", "USD"),
    ]


@pytest.mark.parametrize("payment", ["@SUM", "-1"])
def test_an_id_in_the_csv_is_not_taken_for_a_formula(payouts: Payouts, payment: str) -> None:
    payouts.happened(accrued(payment, 100, at=MARCH + DAY))
    last = payouts.get("/partners/p-1/statement", accept="text/csv").text.splitlines()[-1]
    assert last.split(",")[3] == f"'{payment}"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM", "\t=1", "\r=1"])
def test_no_text_cell_begins_like_a_formula(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/csv", "text/csv"),
        ("text/html, text/csv;q=0.9, */*;q=0.1", "text/csv"),
        ("application/json, text/csv;q=0.5", "application/json"),
        ("text/csv;q=0", "application/json"),
    ],
)
def test_the_kind_of_statement_is_negotiated(payouts: Payouts, accept: str, kind: str) -> None:
    assert payouts.get("/partners/p-1/statement", accept=accept).headers["content-type"].startswith(kind)


# --- client payments ------------------------------------------------------------------------------------------------


@pytest.fixture
def integrator(payouts: Payouts) -> Payouts:
    """p-1 is in message-help too, with 100.00 EUR and the welcome bonus; c-9 is a customer of p-2."""
    binding = {"partner_id": "p-2", "program_id": "message-help", "program_version": 1, "method": "click"}
    bonus = {"bonus_id": "b-1", "partner_id": "p-1", "program_id": "message-help", "expires_at": 4 * 10**15}
    payouts.happened(
        activated("p-1", "message-help"),
        events.ReferralAttributed(customer_id="c-9", attributed_at=MARCH, **binding),
        events.BonusGranted(**bonus, amount=eur(50_000)),
    )
    body = {"program_id": "message-help", "amount": eur(10_000), "method": "card"}
    asked = payouts.post("/partners/p-1/deposits", body)
    assert (asked.status_code, asked.json()["status"]) == (201, "pending")
    assert payouts.post(f"/deposits/{asked.json()['deposit_id']}/confirm", {}, by=PLATFORM).status_code == 200
    return payouts


def eur(minor: int) -> dict[str, Any]:
    return {"minor": minor, "currency": "EUR"}


def pay_for(payouts: Payouts, customer: str = "c-1", minor: int = 4000, key: str = "", **more: Any) -> Response:
    fields = {"program_id": "message-help", "customer_id": customer, "integration": "kommo", "interval": "month"}
    return payouts.post("/partners/p-1/client-payments", {**fields, "list_price": eur(minor), **more}, key=key)


def euros(payouts: Payouts) -> dict[str, Any]:
    books = payouts.get("/partners/p-1/balance").json()["balances"]
    (book,) = (book for book in books if book["program_id"] == "message-help")
    return {name: book[name]["minor"] for name in ("deposits", "spent", "available")}


def test_a_client_is_paid_for_at_a_discount(integrator: Payouts) -> None:
    answer = pay_for(integrator)
    assert answer.status_code == 201
    shown = {name: answer.json()[name] for name in ("list_price", "discount_rate", "charged", "from_bonus")}
    assert shown == {"list_price": eur(4000), "discount_rate": "0.35", "charged": eur(2600), "from_bonus": eur(0)}
    assert euros(integrator) == {"deposits": 10_000, "spent": 2600, "available": 7400}
    (made,) = (event.data for event in integrator.world.events("payouts") if event.type == "client_payment.made")
    assert isinstance(made, events.ClientPaymentMade)
    assert (made.payment_id, made.partner_id) == (answer.json()["payment_id"], "p-1")


def test_a_client_payment_stands_in_the_statement(integrator: Payouts) -> None:
    own = pay_for(integrator).json()["payment_id"]
    last = integrator.get("/partners/p-1/statement", program_id="message-help").json()["items"][-1]
    assert (last["kind"], last["reference"], last["amount"], last["balance"]) == (
        "client_payment",
        own,
        eur(-2600),
        eur(7400),
    )


def test_the_bonus_pays_at_list_price_and_charges_nothing(integrator: Payouts) -> None:
    answer = pay_for(integrator, minor=30_000, use_bonus=True)
    assert (answer.json()["charged"], answer.json()["from_bonus"]) == (eur(0), eur(30_000))
    refused = pay_for(integrator, "c-2", 20_001, use_bonus=True)
    assert (refused.status_code, refused.json()["code"]) == (409, "bonus_not_applicable")
    assert euros(integrator) == {"deposits": 10_000, "spent": 0, "available": 10_000}


def test_another_partners_customer_is_as_absent_as_can_be(integrator: Payouts) -> None:
    foreign = pay_for(integrator, "c-9")
    assert (foreign.status_code, foreign.json()["code"]) == (404, "not_found")


def test_an_unknown_integration_names_the_field(integrator: Payouts) -> None:
    answer = pay_for(integrator, integration="hubspot")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["errors"][0]["field"] == "integration"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"list_price": eur(0)}, "list_price"),
        ({"list_price": eur(-1)}, "list_price"),
        ({"interval": "week"}, "interval"),
        ({"integration": ""}, "integration"),
        ({"use_bonus": "yes"}, "use_bonus"),
        ({"customer_id": "c 1"}, "customer_id"),
        ({"discount_rate": "0.99"}, "discount_rate"),
    ],
)
def test_a_client_payment_that_is_not_valid_names_the_field(
    integrator: Payouts, more: dict[str, Any], field: str
) -> None:
    answer = pay_for(integrator, **more)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["errors"][0]["field"].startswith(field)


def test_paying_for_clients_is_the_partners_own(integrator: Payouts) -> None:
    body = {"program_id": "message-help", "customer_id": "c-1", "integration": "amo", "interval": "month"}
    for by, status in ((PLATFORM, 403), (ADMIN, 403), (("partner", "p-2"), 404)):
        answer = integrator.post("/partners/p-1/client-payments", {**body, "list_price": eur(1)}, by=by)
        assert answer.status_code == status


def test_parallel_client_payments_never_overdraw(integrator: Payouts) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: pay_for(integrator, key=f"parallel-{number}"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
    assert euros(integrator) == {"deposits": 10_000, "spent": 7800, "available": 2200}


def test_parallel_uses_of_the_bonus_never_exceed_it(integrator: Payouts) -> None:
    def use(number: int) -> Response:
        return pay_for(integrator, f"c-1{number}", 20_000, key=f"bonus-{number}", use_bonus=True)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(use, range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [409] * 4


def test_the_same_key_pays_once(integrator: Payouts) -> None:
    first, again = (pay_for(integrator, key="once") for _ in range(2))
    assert (first.status_code, first.content) == (201, again.content)
    assert euros(integrator)["spent"] == 2600


def test_whoever_pays_with_the_bonus_waits_for_its_grant(payouts: Payouts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Activated so lately that rewards has not spoken yet: the grant is looked for again before anything is decided."""
    has = payouts.client.app.state.resources  # type: ignore[attr-defined]
    payouts.client.app.state.resources = resources_over(  # type: ignore[attr-defined]
        has.reader, has.commands, Programs.of(*shipped())
    )
    payouts.happened(activated("p-1", "message-help"))
    bonus = {"bonus_id": "b-1", "partner_id": "p-1", "program_id": "message-help", "expires_at": 4 * 10**15}
    granted = events.BonusGranted(**bonus, amount=eur(50_000))
    looks = []

    async def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            payouts.world.publish(Event("late", "/t", MARCH, granted))
            await payouts.world._run()

    monkeypatch.setattr(api, "ACTIVATION_LOOKS", 3)
    monkeypatch.setattr(api, "_wait", wait)
    assert pay_for(payouts, use_bonus=True).status_code == 201
    assert looks == [api.LOOK_SECONDS]
