"""What partners would have earned under another document: computed by hand, and as it was over every golden journey."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.events import Event, PaymentRefunded, PaymentSucceeded, ReferralAttributed
from schemas.internal import ClientPaid
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import Programs, shipped
from schemas.programs.terms import Program
from services.cli.main import app
from services.cli.whatif import _print, _rows
from services.commission.sales import SALES
from services.commission.whatif import Had, Line, Supposed, Unpublished, WhatIf
from services.runtime.simulate import MemoryReader, World
from tests.journey import Journey, journeys
from tests.worlds import examples, told, verify_asked, world

JANUARY, MARCH, MAY = (parse_instant(f"2026-0{month}-01T00:00:00Z") for month in (1, 3, 5))
ANNA, CREDITS = Line("anna", "commissions", "USD"), Line("anna", "credits", "")


def changed(program_id: str, **fields: Any) -> Program:
    """The shipped document with other values; `tiers` and `providers` of its first terms."""
    document = next(each for each in shipped() if each.program_id == program_id).as_document()
    if tiers := fields.pop("tiers", None):
        document["terms"][0]["tiers"] = [{"from_clients": n, "rate": rate} for n, rate in tiers]
    return Program.model_validate(document | fields)


def bound(made: World, customer: str, at: int, program_id: str = "keycrm", partner: str = "anna") -> None:
    referral = ReferralAttributed(
        customer_id=customer,
        partner_id=partner,
        program_id=program_id,
        program_version=1,
        method="click",
        attributed_at=at,
    )
    made.publish(Event(f"bound-{customer}", "/attribution", at, referral))


def paid(made: World, customer: str, payment: str, at: int, minor: int, **more: Any) -> None:
    data = PaymentSucceeded(payment_id=payment, customer_id=customer, amount=Money(minor=minor, currency="USD"), **more)
    made.publish(Event(f"evt-{payment}", "/platform", at, data))


def refunded(made: World, customer: str, payment: str, at: int, minor: int) -> None:
    amount = Money(minor=minor, currency="USD")
    data = PaymentRefunded(payment_id=payment, customer_id=customer, refund_id=f"r-{payment}", amount=amount)
    made.publish(Event(f"evt-r-{payment}", "/platform", at, data))


def whatif(made: World, document: Program, since: int | None = None, until: int | None = None) -> WhatIf:
    compared = WhatIf(made.programs, Supposed(made.programs, document, since, until))

    async def read() -> None:
        async for customer_id, customer in MemoryReader(made).all_states(SALES):
            compared.take(customer_id, customer)
            compared.take(customer_id, customer)  # a scan may give a key twice

    asyncio.run(read())
    return compared


def differences(*of: Any) -> dict[Line, tuple[int, int]]:
    had, would = whatif(*of).had()
    return {at: (had[at], would[at]) for at in sorted({*had, *would})}


@pytest.fixture
def two_clients() -> World:
    """Bob, bound in January, pays 40.00 in March, of which 10.00 is refunded, and 20.00 in May; Carl, bound in March,
    pays 100.00 in May."""
    made = world()
    bound(made, "bob", JANUARY)
    bound(made, "carl", MARCH)
    paid(made, "bob", "b-1", MARCH, 4000)
    refunded(made, "bob", "b-1", MARCH + DAY, 1000)
    paid(made, "bob", "b-2", MAY + DAY, 2000)
    paid(made, "carl", "c-1", MAY, 10_000)
    return made.run()


def test_another_rate_prices_every_payment_and_its_refunds(two_clients: World) -> None:
    # 10 %: 400 - 100 + 200 + 1000. 15 %: 600 - 150 + 300 + 1500.
    assert differences(two_clients, changed("keycrm", tiers=[(1, "0.15")])) == {ANNA: (1500, 2250)}


def test_other_tiers_are_climbed_by_all_clients_in_order_of_time(two_clients: World) -> None:
    # From the 2nd client, Carl on 1 May, 50 %: 300 (10 %) + 1000 + 5000.
    tiers = [(1, "0.10"), (2, "0.50")]
    assert differences(two_clients, changed("keycrm", tiers=tiers)) == {ANNA: (1500, 6300)}


def test_a_program_priced_at_the_binding_prices_the_referrals_of_the_time(two_clients: World) -> None:
    document = changed("keycrm", tiers=[(1, "0.20")])
    assert differences(two_clients, document, None, MARCH) == {ANNA: (1500, 2000)}  # Bob's alone
    assert differences(two_clients, document, MARCH, None) == {ANNA: (1500, 2500)}  # Carl's alone
    assert differences(two_clients, document, MARCH + 1, None) == {ANNA: (1500, 1500)}


def test_switched_off_nobody_would_have_earned(two_clients: World) -> None:
    assert differences(two_clients, changed("keycrm", enabled=False)) == {ANNA: (1500, 0)}


def test_a_program_priced_at_the_event_prices_the_purchases_of_the_time() -> None:
    made = world()
    document = next(each for each in shipped() if each.program_id == "proxy-credits").as_document()
    provider = next(iter(document["providers"]))
    rates = document["providers"][provider]
    dearer = {provider: rates | {"product_rate": str(3 * float(rates["product_rate"]))}}
    for customer, at in (("bob", MARCH), ("carl", MAY)):
        bound(made, customer, JANUARY, "proxy-credits")
        more = {"product_family": "residential", "provider": provider, "quantity_gb": "4"}
        paid(made, customer, f"p-{customer}", at, 1000, **more)
    refunded(made, "carl", "p-carl", MAY + DAY, 500)
    made.run()
    each = int(4 * float(rates["product_rate"]))
    had, treble = each + each // 2, changed("proxy-credits", providers=dearer)
    assert differences(made, treble) == {CREDITS: (had, 3 * had)}
    assert differences(made, treble, MARCH, MAY) == {CREDITS: (had, 3 * each + each // 2)}
    assert differences(made, treble, MAY, None) == {CREDITS: (had, each + 3 * each // 2)}
    assert differences(made, changed("keycrm")) == {}


def charged(made: World, customer: str, at: int, list_minor: int, charged_minor: int, from_bonus: int = 0) -> None:
    price, cost, bonus = (Money(minor=minor, currency="EUR") for minor in (list_minor, charged_minor, from_bonus))
    data = ClientPaid(
        payment_id=f"cp-{customer}-{at}",
        partner_id="anna",
        program_id="message-help",
        program_version=1,
        customer_id=customer,
        integration="amo",
        interval="month",
        list_price=price,
        discount_rate="0.35",
        charged=cost,
        from_bonus=bonus,
        bound=False,
    )
    made.publish(Event(f"evt-{customer}-{at}", "/payouts", at, data))


def test_payments_for_clients_cost_what_the_documents_discounts_say() -> None:
    made = world()
    charged(made, "bob", JANUARY, 10_000, 0, from_bonus=10_000)  # a client like others, and free
    charged(made, "carl", MARCH, 10_000, 6500)
    charged(made, "dora", MAY, 10_001, 6501)
    charged(made, "carl", MAY + DAY, 10_000, 6500)
    made.run()
    document = next(each for each in shipped() if each.program_id == "message-help").as_document()
    integrator = next(term for term in document["terms"] if term["kind"] == "integrator_account")
    integrator["families"]["crm"]["discounts"] = [
        {"from_clients": 1, "rate": "0.1"},
        {"from_clients": 3, "rate": "0.5"},
    ]
    cheaper, at = changed("message-help", terms=document["terms"]), Line("anna", "client payments", "EUR")
    # Carl is the 2nd client: 90.00; Dora the 3rd: 50.005, half to even 50.00; Carl again, of three: 50.00.
    assert differences(made, cheaper) == {at: (-19_501, -19_000)}
    assert differences(made, cheaper, MAY, MAY + 1) == {at: (-19_501, -18_000)}
    without = [term for term in document["terms"] if term["kind"] != "integrator_account"]
    assert differences(made, changed("message-help", terms=without)) == {at: (-19_501, -19_501)}


def test_a_program_that_nobody_published_has_no_referrals() -> None:
    with pytest.raises(Unpublished):
        Supposed(Programs(), shipped()[0])


@pytest.mark.parametrize("journey", journeys(), ids=lambda journey: journey.name)
def test_as_it_was_is_what_was_said(journey: Journey) -> None:
    """The other half of the comparison: whatever a journey holds, deciding anew gives what stands."""
    made = world(1, programs=examples())
    for phase in journey.phases():
        made.publish(*phase)
        verify_asked(made.run())
    found = Had()
    for program_id in made.programs:
        versions = made.programs.versions(program_id)
        had, would = whatif(made, versions[-1][1]).had()
        if len(versions) == 1:
            assert would == had
        found.update({at: minor for at, minor in had.items() if minor})
    assert found == _said(made)


def _said(made: World) -> Had:
    said = Had()
    for event in told(made, "commissions", "rewards", "payouts"):
        data = event["data"]
        match event["type"]:
            case "commission.accrued" | "commission.adjusted" | "commission.reversed" as kind:
                sign = -1 if kind == "commission.reversed" else 1
                said[Line(data["partner_id"], "commissions", data["amount"]["currency"])] += (
                    sign * data["amount"]["minor"]
                )
            case "credit.granted":
                said[Line(data["partner_id"], "credits", "")] += data["credits"]
            case "credit.reversed":
                said[Line(data["partner_id"], "credits", "")] -= data["credits"]
            case "client_payment.made":
                said[Line(data["partner_id"], "client payments", data["charged"]["currency"])] -= data["charged"][
                    "minor"
                ]
    return Had({at: minor for at, minor in said.items() if minor})


# --- the command ----------------------------------------------------------------------------------------------------


def test_it_prints_who_differs_and_what_all_have(two_clients: World, capsys: pytest.CaptureFixture[str]) -> None:
    bound(two_clients, "dora", JANUARY, partner="zoe")
    two_clients.run()
    compared = whatif(two_clients, changed("keycrm", tiers=[(1, "0.15")]))
    _print("keycrm", compared.payments, list(_rows(*compared.had())))
    printed = capsys.readouterr().out
    assert "keycrm: 3 payments of 1 partners decided again" in printed
    assert "anna" in printed
    assert "15.00" in printed
    assert "22.50" in printed
    assert "+7.50" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "2026-13-01"], "no day like"),
        (["--from", "2026-W01-1"], "no day like"),
        (["--to", "tomorrow"], "no time like"),
        (["--from", "2026-02-01T00:00:00"], "no day like"),
        (["--from", "2026-02-02", "--to", "2026-02-02"], "is not after"),
    ],
)
def test_a_time_that_is_none_is_refused_with_the_cure(arguments: list[str], says: str, tmp_path: Path) -> None:
    file = tmp_path / "program.json"
    file.write_text(json.dumps(changed("keycrm").as_document()))
    result = CliRunner().invoke(app, ["whatif", "--program", str(file), *arguments])
    assert result.exit_code != 0
    assert says in " ".join(result.output.replace("│", " ").split())


def test_a_document_at_fault_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "program.json"
    file.write_text('{\n "program_id": "keycrm",\n "enabled": "perhaps"\n}')
    result = CliRunner().invoke(app, ["whatif", "--program", str(file)])
    assert result.exit_code == 1
    assert f"{file}:3: enabled:" in result.output
