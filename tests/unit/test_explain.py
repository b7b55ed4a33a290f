"""What `explain` says: plain words about what the real folds decided, asked for over the real APIs."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from schemas.moments import format_instant
from services.cli import explain_words as words
from services.cli.demo.data import History
from services.cli.edge import Edge
from services.cli.explain import Api, ExplainRefused, Found
from services.cli.main import app as refstream
from services.commission.api import create_app as commission_app
from services.payouts.api import create_app as payouts_app
from services.rewards.api import create_app as rewards_app
from services.runtime.simulate import MemoryReader, World
from tests.demo_world import NOW, everybody, folded, made_up
from tests.http_fakes import bearer, resources_over, settings

LATER = format_instant(NOW)


@cache
def _played() -> tuple[History, World]:
    past = made_up()
    return past, folded(past, everybody(past))


@pytest.fixture(autouse=True, scope="module")
def _played_first() -> None:
    """The world runs a loop of its own: before the tests, which have one."""
    _played()


@asynccontextmanager
async def _asking(role: str = "admin") -> AsyncIterator[Api]:
    """The APIs over the folded demo, asked by somebody of this role."""
    from services.attribution.api import create_app as attribution_app

    made = _played()[1]
    resources = resources_over(MemoryReader(made), programs=made.programs)  # type: ignore[arg-type]
    then = round(NOW / 1e6 - time.time())
    resources = replace(resources, settings=settings(local=True, clock_offset=then))

    async def no_click(*_: Any) -> None: ...

    apps = {
        "attribution": attribution_app(settings(), resources, no_click),
        "commission": commission_app(settings(), resources),
        "rewards": rewards_app(settings(), resources),
        "payouts": payouts_app(settings(), resources),
    }
    for app in apps.values():
        app.state.resources = resources
    transport = httpx.ASGITransport(app=Edge(apps))
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=bearer(role, role)) as http:
        yield Api(http, LATER)


async def _explained(name: str) -> list[Found]:
    async with _asking() as api:
        return await api.by_id(name)


def _of(shows: str) -> tuple[str, str]:
    """The partner that shows a rule, and its first customer."""
    past, _ = _played()
    partner = next(partner for partner in past.partners if partner.shows.startswith(shows))
    customer = next(c for c in past.customers if c.clicks and c.clicks[0].partner_id == partner.partner_id)
    return partner.partner_id, customer.customer_id


async def _says(name: str, kind: str) -> str:
    return next("\n".join(found.says) for found in await _explained(name) if found.kind == kind)


async def test_a_refunded_payment_is_explained_with_rule_rate_arithmetic_and_refund() -> None:
    partner_id, customer_id = _of("refund of 30 %")
    said = await _says(f"{customer_id}.p1", "payment")
    assert f"earns 10.00 USD for partner {partner_id}; 7.00 USD left." in said
    for part in ("keycrm, version 1", "100.00 USD × 0.10 = 10.00 USD", "1 paying client at this payment: rate 0.10"):
        assert part in said
    assert "30.00 USD at " in said and f"{customer_id}.p1.r1" in said
    assert f"bound to partner {partner_id} by click" in said


@pytest.mark.parametrize(
    ("shows", "payment", "why"),
    [
        ("other product", "p3", "it is for another product than the customer's first"),
        ("self-referral", "p1", "the customer was bound to no partner then"),
        ("left after", "p5", "the sale's subscription had ended before"),
        ("monthly plan", "p3", "the plan had been downgraded before"),
        ("payments earn for 12", "p3", "it was paid outside the time in which payments earn"),
    ],
)
async def test_a_payment_that_earns_nothing_says_why(shows: str, payment: str, why: str) -> None:
    said = await _says(f"{_of(shows)[1]}.{payment}", "payment")
    assert f"earns nothing: {why}." in said


async def test_an_open_dispute_and_a_customer_who_left_show_in_the_words() -> None:
    assert "open: what is left is held" in await _says(f"{_of('open dispute')[1]}.p2", "payment")
    left = await _says(f"{_of('left before')[1]}.p1", "payment")
    assert "0.00 USD left" in left
    assert "the sale's subscription ended" in left


@pytest.mark.parametrize(
    ("shows", "why"),
    [
        ("self-referral", "Partner and customer are one"),
        ("signup 8 days", "The deciding click was too long before the signup."),
        ("had an account", "The customer had an account before"),
        ("6th paying", "is bound to partner"),
    ],
)
async def test_a_signup_says_who_it_is_bound_to_or_why_to_nobody(shows: str, why: str) -> None:
    assert why in await _says(_of(shows)[1], "customer")


async def test_a_balance_is_the_sum_that_is_shown() -> None:
    partner_id, _ = _of("90 days' hold")
    said = await _says(partner_id, "partner")
    assert "jupsoft: 0.00 USD available" in said
    assert "on hold      10.00 USD of 2 payments" in said
    partner_id, _ = _of("open dispute")
    assert "disputed     10.00 USD held by open disputes" in await _says(partner_id, "partner")


async def test_a_partner_is_explained_before_its_own_signup() -> None:
    assert [found.kind for found in await _explained(_of("6th paying")[0])] == ["partner", "customer"]


async def test_a_commission_is_found_in_its_partners_list() -> None:
    partner_id, customer_id = _of("refund of 30 %")
    async with _asking() as api:
        payment = await api.payment(f"{customer_id}.p1")
        assert payment is not None
        (found,) = await api.of_partner(payment.facts["decision"]["commission_id"], partner_id)
        assert found.says == payment.says
        assert await api.of_partner("com_of_nobody", partner_id) == []


async def test_an_unknown_id_names_nothing_whatever_it_looks_like() -> None:
    for name in ("nobody", "a/b?c#d", "../programs", "x" * 200, "ü"):
        assert await _explained(name) == []


async def test_a_token_that_may_not_ask_is_refused_with_what_was_answered() -> None:
    async with _asking("partner") as api:
        with pytest.raises(ExplainRefused, match="403 forbidden"):
            await api.payment("p")


def test_records_show_money_as_people_write_it_and_no_control_characters() -> None:
    data = {"amount": {"minor": 1250, "currency": "USD"}, "payment_id": "p-1", "comment": "\x1b[2J"}
    record = {"topic": "payments", "position": "0:1", "time": LATER, "type": "payment.succeeded", "data": data}
    text = "\n".join(words.records([record]))
    assert "amount 12.50 USD, payment_id p-1" in text
    assert "\x1b" not in text


def test_a_withdrawal_and_a_top_up_tell_their_rule() -> None:
    usd = {"minor": 5_000, "currency": "USD"}
    own = {"id": "w", "partner_id": "ann", "program_id": "keycrm", "amount": usd}
    events = [{"type": "withdrawal.requested", "time": LATER}, {"type": "withdrawal.rejected", "time": LATER}]
    told = own | {"status": "rejected", "reason": "no such account", "events": events, "minimums": [usd]}
    said = words.withdrawal(told)
    assert said[0] == "Withdrawal w of partner ann: 50.00 USD, rejected."
    assert any("no such account" in line for line in said)
    assert any("withdrawals from 50.00 USD" in line for line in said)
    credited = {"minor": 15_000, "currency": "USD"}
    said = words.topup(own | {"account_id": "a", "time": LATER, "credited": credited, "points": "0.20"})
    assert any("50.00 USD + 100.00 USD = 150.00 USD" in line for line in said)


@pytest.mark.parametrize(
    ("from_bonus", "how"),
    [(0, "list price 10.00 EUR, discount rate 0.35: 6.50 EUR charged"), (1000, "10.00 EUR from the welcome bonus")],
)
def test_a_client_payment_says_which_partner_paid_and_how(from_bonus: int, how: str) -> None:
    def eur(minor: int) -> dict[str, Any]:
        return {"minor": minor, "currency": "EUR"}

    paid_by = {"partner_id": "p-1", "integration": "amo", "discount_rate": "0.35"}
    amounts = {"list_price": eur(1000), "charged": eur(650), "from_bonus": eur(from_bonus)}
    decision = {
        "payment_id": "cp_1",
        "customer_id": "c-1",
        "outcome": "declined",
        "reason": "integrator_paid",
        "rule": "A rule.",
        "inputs": {"amount": eur(650), "paid_at": LATER, "paid_by": {**paid_by, **amounts}},
        "arithmetic": [],
    }
    told = "\n".join(words.payment(decision, None, LATER))
    assert "the partner paid for this client" in told
    assert f"partner p-1, amo: {how}" in told


def test_with_nobody_to_ask_the_cure_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("REFSTREAM_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(refstream, ["explain", "p-1"])
    assert result.exit_code == 1
    assert "nobody to ask: start the local stack" in result.stderr
    assert json.dumps(result.stdout) == '""'
