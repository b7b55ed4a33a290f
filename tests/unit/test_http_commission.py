"""What commission's API shows of the state of its two stages."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from msgspec.structs import replace

from schemas.moments import DAY, format_instant, parse_instant
from schemas.programs import Programs, shipped
from services.commission.api import create_app
from services.commission.partners import PARTNERS, client_row, sale_row
from services.commission.sales import SALES
from services.commission.state import (
    Account,
    Binding,
    Client,
    Customer,
    Dispute,
    Ladder,
    Partner,
    Payment,
    Refund,
    Said,
    Sale,
    TakenBackPart,
)
from services.runtime.profiles import PERSONS, Contact, Profile
from tests.http_fakes import FakeReader, bearer, resources_over, settings

START = parse_instant("2025-03-01T00:00:00Z")


def _payment(payment_id: str, day: int, **other: Any) -> Payment:
    return Payment(payment_id, START + day * DAY, 10_000, "USD", f"evt-{payment_id}", "a1", **other)


def _sale(payment_id: str, day: int, **other: Any) -> Sale:
    at = START + day * DAY
    facts = {**_EARNS, "available_at": at, **other}
    return Sale(payment_id, "c1", "a1", "keycrm", 1, at, 10_000, "USD", **facts)


_EARNS: dict[str, Any] = {
    "reasons": (),
    "taken_back": (),
    "left_at": None,
    "holds": (),
    "said": Said(1, True, None, "0.10", 1_000),
}
REFUND = TakenBackPart("r1", START + 5 * DAY, 2_500, "refund")


@pytest.fixture
def reader() -> FakeReader:
    """One customer of partner p-1: p1 with a refund, p2 declined, p3 not folded by the partner's stage yet."""
    reader = FakeReader()
    refunded = _payment("p1", 1, refunds=(Refund("r1", START + 5 * DAY, 2_500),))
    reader.by_key[(SALES.name, "c1")] = Customer(
        binding=Binding("p-1", "keycrm", 1, START, "evt-bound"),
        signed_up_at=START,
        accounts=(Account("a1", START),),
        payments={"p1": refunded, "p2": _payment("p2", 500), "p3": _payment("p3", 3)},
    )
    reader.by_key[(PERSONS.name, "c1")] = Profile(signup=Contact("Ann"), accounts={"a1": "Workshop"})
    reader.by_key[(SALES.name, "c2")] = Customer(payments={"p9": _payment("p9", 0)})
    ladder = Ladder((6, 21), 1, ((START + DAY, "p1"),), (START + DAY, "p1"))
    reader.by_key[(PARTNERS.name, "p-1")] = Partner({"keycrm": ladder})
    reader.by_key[(PARTNERS.name, "p-several")] = Partner(programs=("keycrm", "message-help"))
    declined = {"reasons": ("outside_window",), "said": Said(1, False, "outside_window")}
    reader.rows_by_key[(PARTNERS.name, "p-1")] = {
        sale_row("p1"): _sale("p1", 1, taken_back=(REFUND,)),
        sale_row("p2"): _sale("p2", 500, **declined),
        client_row("keycrm", "c1"): Client("keycrm", "c1", (START + DAY, "p1")),
    }
    for payment_id, customer_id in (("p1", "c1"), ("p2", "c1"), ("p3", "c1"), ("p9", "c2")):
        reader.found[(SALES.name, f"payment:{payment_id}")] = customer_id
    return reader


@pytest.fixture
def client(reader: FakeReader) -> Iterator[TestClient]:
    app = create_app(settings(), resources_over(reader, programs=Programs.of(*shipped())))
    with TestClient(app) as client:
        yield client


def test_commissions_show_accruals_with_names_and_what_was_taken_back(client: TestClient) -> None:
    answer = client.get("/commission/partners/p-1/commissions", headers=bearer())
    assert answer.status_code == 200
    assert answer.json()["next_cursor"] is None
    (item,) = answer.json()["items"]
    assert item.pop("commission_id").startswith("com_")
    assert item == {
        "payment_id": "p1",
        "program_id": "keycrm",
        "customer_id": "c1",
        "customer_name": "Ann",
        "account_id": "a1",
        "account_name": "Workshop",
        "base": {"minor": 10_000, "currency": "USD"},
        "rate": "0.10",
        "amount": {"minor": 1_000, "currency": "USD"},
        "reversed": {"minor": 250, "currency": "USD"},
        "available_at": "2025-03-02T00:00:00Z",
        "occurred_at": "2025-03-02T00:00:00Z",
    }


@pytest.mark.parametrize(("days", "reversed_minor"), [(1, None), (2, 0), (5, 0), (6, 250)])
def test_commissions_as_of_count_what_lies_strictly_before(
    client: TestClient, days: int, reversed_minor: int | None
) -> None:
    query = {"as_of": format_instant(START + days * DAY)}
    items = client.get("/commission/partners/p-1/commissions", params=query, headers=bearer()).json()["items"]
    assert [item["reversed"]["minor"] for item in items] == ([] if reversed_minor is None else [reversed_minor])


def test_tier_tells_clients_rate_and_what_comes_next(client: TestClient) -> None:
    answer = client.get("/commission/partners/p-1/tier?program_id=keycrm", headers=bearer())
    assert answer.json() == {
        "program_id": "keycrm",
        "paying_clients": 1,
        "rate": "0.10",
        "next": {"clients": 6, "rate": "0.20"},
    }


def test_tier_of_a_partner_without_clients_is_the_first(client: TestClient) -> None:
    answer = client.get("/commission/partners/p-2/tier?program_id=message-help", headers=bearer(sub="p-2"))
    assert (answer.json()["paying_clients"], answer.json()["rate"]) == (0, "0.20")
    assert answer.json()["next"] == {"clients": 30, "rate": "0.30"}


def test_tier_as_of_counts_clients_before(client: TestClient) -> None:
    query = {"program_id": "keycrm", "as_of": format_instant(START + DAY)}
    assert client.get("/commission/partners/p-1/tier", params=query, headers=bearer()).json()["paying_clients"] == 0


def test_tier_without_program_is_of_the_only_one_or_refused(client: TestClient) -> None:
    assert client.get("/commission/partners/p-1/tier", headers=bearer()).json()["program_id"] == "keycrm"
    answer = client.get("/commission/partners/p-several/tier", headers=bearer(sub="p-several"))
    assert (answer.status_code, answer.json()["code"]) == (422, "program_required")
    assert client.get("/commission/partners/p-2/tier", headers=bearer(sub="p-2")).status_code == 404
    assert client.get("/commission/partners/p-1/tier?program_id=nothing", headers=bearer()).status_code == 404


def _decision(client: TestClient, payment_id: str) -> dict[str, Any]:
    answer = client.get(f"/commission/payments/{payment_id}/decision", headers=bearer("platform", "x"))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_decision_of_an_accrual_shows_its_arithmetic(client: TestClient) -> None:
    found = _decision(client, "p1")
    assert (found["outcome"], found["partner_id"], found["program_version"]) == ("accrued", "p-1", 1)
    assert "reason" not in found
    assert found["inputs"]["paying_clients"] == 1
    assert found["arithmetic"] == [
        "100.00 USD × 0.10 = 10.00 USD",
        "10.00 USD × 25.00 USD ÷ 100.00 USD − 0.00 USD = 2.50 USD taken back: refund r1",
        "10.00 USD − 2.50 USD = 7.50 USD left",
    ]


def test_arithmetic_counts_refunds_that_took_nothing_back_themselves(client: TestClient, reader: FakeReader) -> None:
    """Of 3 cents for 100 dollars, half is 2, five sixths are still 2, all is 3."""
    said = Said(1, True, None, "0.0003", 3)
    parts = [("r1", 5_000), ("r2", 3_333), ("r3", 1_667)]
    back = tuple(TakenBackPart(name, START + n * DAY, minor, "refund") for n, (name, minor) in enumerate(parts, 2))
    reader.rows_by_key[(PARTNERS.name, "p-1")][sale_row("p1")] = _sale("p1", 1, said=said, taken_back=back)
    assert _decision(client, "p1")["arithmetic"] == [
        "100.00 USD × 0.0003 = 0.03 USD",
        "0.03 USD × 50.00 USD ÷ 100.00 USD − 0.00 USD = 0.02 USD taken back: refund r1",
        "0.03 USD × 100.00 USD ÷ 100.00 USD − 0.02 USD = 0.01 USD taken back: refund r3",
        "0.03 USD − 0.03 USD = 0.00 USD left",
    ]


def test_decision_tells_refunds_and_disputes_in_order_of_time_whatever_arrived_first(
    client: TestClient, reader: FakeReader
) -> None:
    refunds = (Refund("r2", START + 9 * DAY, 100), Refund("r1", START + 5 * DAY, 2_500), Refund("r0", START, 1))
    disputes = (Dispute("d2", START + 4 * DAY, 100), Dispute("d1", START + 3 * DAY, 100))
    customer = reader.by_key[(SALES.name, "c1")]
    payments = {**customer.payments, "p1": _payment("p1", 1, refunds=refunds, disputes=disputes)}
    reader.by_key[(SALES.name, "c1")] = replace(customer, payments=payments)
    inputs = client.get("/commission/payments/p1/decision", headers=bearer("admin")).json()["inputs"]
    assert [refund["refund_id"] for refund in inputs["refunds"]] == ["r0", "r1", "r2"]
    assert [dispute["dispute_id"] for dispute in inputs["disputes"]] == ["d1", "d2"]


def test_decision_of_a_refusal_lists_all_reasons(client: TestClient) -> None:
    found = _decision(client, "p2")
    assert (found["outcome"], found["reason"], found["reasons"]) == ("declined", "outside_window", ["outside_window"])
    assert found["inputs"]["earns"][0]["until"] == "2026-03-01T00:00:00Z"


@pytest.mark.parametrize("payment_id", ["p3", "p9"])
def test_decision_that_is_not_there_yet_is_waiting(client: TestClient, payment_id: str) -> None:
    assert _decision(client, payment_id)["outcome"] == "waiting"


def test_decision_is_for_platform_and_admin_and_absent_for_unknown_payments(client: TestClient) -> None:
    assert client.get("/commission/payments/p1/decision", headers=bearer()).status_code == 403
    assert client.get("/commission/payments/p8/decision", headers=bearer("admin", "x")).status_code == 404


def test_decisions_of_a_program_are_listed_newest_first_and_by_outcome(client: TestClient) -> None:
    def listed(**query: str | int) -> list[str]:
        answer = client.get("/commission/decisions", params=query, headers=bearer("admin", "x"))
        assert answer.status_code == 200
        return [item["payment_id"] for item in answer.json()["items"]]

    assert listed(program_id="keycrm") == ["p2", "p3", "p1"]
    assert listed(program_id="keycrm", limit=1) == ["p2"]
    assert listed(program_id="keycrm", outcome="declined") == ["p2"]
    assert listed(program_id="jupsoft") == []
    assert client.get("/commission/decisions?program_id=keycrm", headers=bearer("platform", "x")).status_code == 403
    assert (
        client.get("/commission/decisions", headers=bearer("admin", "x")).json()["errors"][0]["field"] == "program_id"
    )
