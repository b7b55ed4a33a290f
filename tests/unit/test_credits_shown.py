"""What the APIs of commission and attribution show of a program that pays credits, over the real folds."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from schemas.events import Click, CustomerSignedUp, Event, ProgramPublished
from schemas.ids import derived_id
from schemas.moments import DAY, parse_instant
from schemas.programs import Programs, shipped
from services.attribution.api import create_app as attribution_app
from services.attribution.codes import LINK_BYTES, derived_code
from services.attribution.state import Person, Referral
from services.attribution.views import referral_shown
from services.commission.api import create_app as commission_app
from services.runtime.http import Resources
from services.runtime.profiles import Contact
from services.runtime.settings import Settings
from services.runtime.simulate import MemoryReader, World
from tests.http_fakes import bearer, resources_over, settings
from tests.journey import journeys
from tests.worlds import world

PC = "proxy-credits"
START = parse_instant("2026-02-01T00:00:00Z")


def _played(name: str) -> World:
    (journey,) = (journey for journey in journeys() if journey.name == f"{PC}-{name}")
    made = world()
    for phase in journey.phases():
        made.publish(*phase)
        made.run()
    return made


def _client(made: World, app: Any) -> Iterator[TestClient]:
    reader: Any = MemoryReader(made)
    with TestClient(app(settings(), resources_over(reader, programs=made.programs))) as client:
        yield client


@pytest.fixture(scope="module", params=["only-the-first"])
def only_the_first(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    yield from _client(_played(request.param), commission_app)


def _decision(client: TestClient, payment_id: str) -> dict[str, Any]:
    answer = client.get(f"/commission/payments/{payment_id}/decision", headers=bearer("platform", "x"))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_decision_of_a_credited_purchase_shows_rate_quantity_and_arithmetic(only_the_first: TestClient) -> None:
    found = _decision(only_the_first, f"{PC}-only-the-first.p1")
    assert (found["outcome"], found["program_id"], found["program_version"]) == ("credited", PC, 1)
    assert found["partner_id"] == f"{PC}-only-the-first.anna"
    assert {name: found["inputs"][name] for name in ("product_family", "provider", "quantity_gb", "product_rate")} == {
        "product_family": "residential",
        "provider": "packetstream",
        "quantity_gb": "2",
        "product_rate": "5",
    }
    assert found["inputs"]["first_purchase_id"] == f"{PC}-only-the-first.p1"
    assert found["arithmetic"] == ["2 GB × 5 credits per GB = 10 credits"]


@pytest.mark.parametrize(
    ("payment", "reasons"),
    [
        ("dc", ["other_family"]),
        ("p2", ["not_first_purchase"]),
        ("n1", ["no_rate"]),
        ("q1", ["no_rate"]),
        ("q2", ["not_first_purchase", "no_rate"]),
    ],
)
def test_decision_of_a_declined_purchase_lists_all_reasons(
    only_the_first: TestClient, payment: str, reasons: list[str]
) -> None:
    found = _decision(only_the_first, f"{PC}-only-the-first.{payment}")
    assert (found["outcome"], found["reason"], found["reasons"]) == ("declined", reasons[0], reasons)


def test_an_admin_sees_every_referred_purchase_by_outcome(only_the_first: TestClient) -> None:
    def listed(**query: str) -> list[str]:
        answer = only_the_first.get("/commission/decisions", params=query, headers=bearer("admin", "x"))
        return [item["payment_id"].rpartition(".")[2] for item in answer.json()["items"]]

    assert listed(program_id=PC, outcome="credited") == ["p1"]
    assert sorted(listed(program_id=PC)) == ["dc", "n1", "n2", "p1", "p2", "q1", "q2"]
    assert listed(program_id=PC, outcome="accrued") == listed(program_id=PC, outcome="waiting") == []


def test_arithmetic_of_refunds_adds_up_to_what_is_left() -> None:
    for client in _client(_played("refunds"), commission_app):
        assert _decision(client, f"{PC}-refunds.p1")["arithmetic"] == [
            "2 GB × 5 credits per GB = 10 credits",
            f"10 credits × 3.00 USD ÷ 9.00 USD − 0 = 3 taken back, rounded down: refund {PC}-refunds.r1",
            f"10 credits × 6.00 USD ÷ 9.00 USD − 3 = 3 taken back, rounded down: refund {PC}-refunds.r2",
            f"10 credits × 9.00 USD ÷ 9.00 USD − 6 = 4 taken back, rounded down: refund {PC}-refunds.r3",
            "10 − 10 = 0 credits left",
        ]


def test_arithmetic_says_where_it_was_rounded_down() -> None:
    for client in _client(_played("first-purchase"), commission_app):
        lines = _decision(client, f"{PC}-first-purchase.p2")["arithmetic"]
        assert lines == ["2.59 GB × 5 credits per GB = 12 credits, rounded down"]


def test_a_credited_purchase_makes_no_paying_client_and_no_commission() -> None:
    for client in _client(_played("first-purchase"), commission_app):
        anna = f"{PC}-first-purchase.anna"
        tier = client.get(f"/commission/partners/{anna}/tier", headers=bearer(sub=anna)).json()
        assert tier == {"program_id": PC, "paying_clients": 0, "rate": "0", "next": None}
        assert client.get(f"/commission/partners/{anna}/commissions", headers=bearer(sub=anna)).json()["items"] == []


# --- the page Referrals ---------------------------------------------------------------------------------------------


def _pages(own: Settings, resources: Resources) -> FastAPI:
    async def no_click(event: Event, key: str) -> None:
        raise AssertionError("nobody clicks here")

    return attribution_app(own, resources, no_click)


def _statuses(made: World, partner_id: str, **query: str) -> dict[str, str]:
    for client in _client(made, _pages):
        answer = client.get(
            f"/attribution/partners/{partner_id}/referrals", params=query, headers=bearer(sub=partner_id)
        )
        return {item["customer_id"].rpartition(".")[2]: item["status"] for item in answer.json()["items"]}
    raise AssertionError("no client")


def test_a_referral_is_active_until_its_first_purchase_of_the_family() -> None:
    made, anna = _played("only-the-first"), f"{PC}-only-the-first.anna"
    assert set(_statuses(made, anna).values()) == {"inactive"}
    assert set(_statuses(made, anna, as_of="2026-02-02T12:00:00Z").values()) == {"active"}  # another family was bought
    assert set(_statuses(made, anna, as_of="2026-02-03T00:00:00Z").values()) == {"inactive"}


def test_no_referral_is_active_while_the_program_is_off() -> None:
    made = _played("chain")
    (program,) = (program for program in shipped() if program.program_id == PC)
    off = ProgramPublished(
        program_id=PC,
        version=2,
        effective_at=START + 10 * DAY,
        document=program.model_copy(update={"enabled": False}).as_document(),
    )
    at = START + 4 * DAY
    click = Click(code=derived_code(f"{PC}-chain.b-link", LINK_BYTES), clicked_at=at)
    made.publish(Event("signup", "/platform", at, CustomerSignedUp(customer_id="new", clicks=(click,))))
    made.run()
    made.publish(Event(derived_id("published", PC, 2), "/attribution", off.effective_at, off))
    made.run()
    assert _statuses(made, f"{PC}-chain.b")["new"] == "inactive"
    assert _statuses(made, f"{PC}-chain.b", as_of="2026-02-10T00:00:00Z")["new"] == "active"


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ({}, {}, "active"),
        ({}, {"enabled": False}, "inactive"),
        ({}, {"enabled": False, "pricing": "at_binding"}, "inactive"),
        ({"pricing": "at_binding"}, {"enabled": False}, "active"),
        ({}, {"providers": {}}, "inactive"),
        ({"terms": [{"kind": "retention"}], "providers": {}, "pricing": "at_binding"}, {}, "inactive"),
    ],
)
def test_a_referral_is_active_by_the_version_that_would_price_a_payment(
    first: dict[str, Any], second: dict[str, Any], status: str
) -> None:
    (program,) = (program for program in shipped() if program.program_id == PC)
    programs = Programs()
    for number, change in enumerate((first, second), 1):
        version = ProgramPublished(
            program_id=PC, version=number, effective_at=START + number * DAY, document=program.as_document() | change
        )
        programs = programs.with_version(version)
    referral = Referral("bob", PC, listed=True, attributed_at=START)
    at = START + 3 * DAY
    assert referral_shown(referral, Person(), Contact(), programs, at, None).status == status
