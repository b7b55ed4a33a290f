"""The demo's data are what a platform could have written, and its promise is what refstream pays."""

import asyncio
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from io import StringIO
from itertools import pairwise

import httpx
import pytest
from rich.console import Console

from schemas.events import parse_event
from schemas.moments import DAY, parse_instant
from services import payouts
from services.cli.demo.data import (
    HOUR,
    Click,
    Customer,
    Partner,
    Payment,
    Refund,
    Subscription,
    arrived,
    history,
)
from services.cli.demo.lines import CONFLICTS, customer_lines, partner_lines
from services.cli.demo.platform import Platform
from services.cli.demo.promise import Promise, Share, promises
from services.cli.demo.report import Compared, decimal, show
from services.payouts import ledger
from services.runtime.simulate import MemoryReader, World
from tests.demo_world import NOW, codes_of, everybody, folded, made_up
from tests.worlds import settings

START = parse_instant("2025-03-01T00:00:00Z")


# --- data -----------------------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_platform_and_another_run_other_ids() -> None:
    first, again, other = made_up(), made_up(), made_up(run="dother")
    assert first == again
    assert everybody(first) == everybody(again)
    ids = {customer.customer_id for customer in everybody(first)}
    assert not ids & {customer.customer_id for customer in everybody(other)}
    assert made_up(seed=2).customers != first.customers


def test_there_are_as_many_customers_as_were_asked_for() -> None:
    past = history(seed=3, customers=3_000, visitors=200, now=NOW, run="d")
    assert len(past.customers) + len(past.visitors) == 3_000
    assert len(past.partners) == 60


def test_every_line_is_an_event_of_the_platform_that_has_happened_already() -> None:
    past = made_up()
    lines = partner_lines(past.run, past.partners) + customer_lines(
        past.run, 1, everybody(past), codes_of(past.partners)
    )
    events = [parse_event(line) for line in lines]
    assert max(event.time for event in events) <= NOW
    assert len({event.id for event in events}) == len(events)
    assert {event.type for event in events} >= {
        "customer.signed_up",
        "account.created",
        "subscription.activated",
        "subscription.changed",
        "subscription.cancelled",
        "payment.succeeded",
        "payment.refunded",
        "payment.disputed",
        "payment.dispute_closed",
    }


def test_some_lines_come_twice_and_some_late() -> None:
    past = made_up()
    events = [parse_event(line) for line in customer_lines(past.run, 1, everybody(past), codes_of(past.partners))]
    contents = Counter((event.type, event.time, event.data.model_dump_json()) for event in events)
    assert sum(count - 1 for count in contents.values()) > 5
    times = [event.time for event in events]
    assert sum(later < earlier for earlier, later in pairwise(times)) > 20


def test_a_visitor_signs_up_after_the_click_and_has_bought_by_now() -> None:
    past = made_up()
    clicks = [Click(past.visitors[0].partner_ids[0], NOW - 1_000)]
    customer = arrived(past, past.visitors[0], clicks, "a token", NOW)
    times = [clicks[0].at, customer.signed_up_at, customer.accounts[0][1], customer.payments[0].at, NOW]
    assert times == sorted(set(times))
    assert customer.click_token == "a token"


def test_no_hold_ends_while_the_demo_runs() -> None:
    past = history(seed=5, customers=20_000, visitors=10, now=NOW, run="d")
    firsts = [customer.payments[0].at for customer in past.customers if customer.payments]
    assert not [at for at in firsts if NOW - HOUR < at + 90 * DAY < NOW + 2 * HOUR]


# --- the promise, by hand -------------------------------------------------------------------------------------------

ANN = Partner("ann", "keycrm", "ann-1", "Partner 1", "ann@d.example", START - DAY)
BEA = Partner("bea", "jupsoft", "bea-1", "Partner 2", "bea@d.example", START - DAY)


def _customer(number: int, partner: Partner, *days: int, minor: int = 10_000, clicked: int = 1) -> Customer:
    own = f"c{number}"
    signed_up_at = START + number * HOUR
    bought = Subscription(f"{own}-s", "crm", "month", signed_up_at)
    payments = tuple(Payment(f"{own}-p{day}", signed_up_at + day * DAY, minor, f"{own}-a", bought) for day in days)
    return Customer(
        own,
        f"Customer {number}",
        f"{own}@d.example",
        signed_up_at,
        clicks=(Click(partner.partner_id, signed_up_at - clicked * DAY),),
        accounts=((f"{own}-a", signed_up_at),),
        subscriptions=(bought,),
        payments=payments,
    )


def _promised(*customers: Customer, partner: Partner = ANN, days: int = 500) -> Promise:
    return promises((ANN, BEA), customers, START + days * DAY)[partner.partner_id]


def test_the_sixth_client_raises_the_rate_for_later_payments_of_all() -> None:
    customers = [_customer(number, ANN, 1, 31) for number in range(6)]
    assert _promised(*customers).figures["accrued"] == 5 * 1_000 + 2_000 + 6 * 2_000


@pytest.mark.parametrize(("clicked", "accrued"), [(6, 1_000), (7, 0), (8, 0)])
def test_a_keycrm_signup_must_come_within_7_days(clicked: int, accrued: int) -> None:
    assert _promised(_customer(1, ANN, 1, clicked=clicked)).figures["accrued"] == accrued


def test_a_later_click_restarts_no_window_and_the_earliest_first_click_wins() -> None:
    late = _customer(1, ANN, 1, clicked=8)
    again = replace(late, clicks=(*late.clicks, Click("ann", late.signed_up_at - DAY)))
    assert _promised(again).figures["accrued"] == 0
    both = _customer(2, ANN, 1, clicked=3)
    both = replace(both, clicks=(*both.clicks, Click("bea", both.signed_up_at - 5 * DAY)))
    assert _promised(both).clients == 0
    assert _promised(both, partner=BEA).clients == 1


def test_who_signs_itself_up_or_had_an_account_earns_nobody_anything() -> None:
    itself = replace(_customer(1, ANN, 1), email=" ANN@d.example ")
    known = replace(_customer(2, ANN, 1), existing=True)
    assert _promised(itself, known).figures["accrued"] == 0


def test_keycrm_pays_for_12_months_from_the_first_account() -> None:
    assert len(_promised(_customer(1, ANN, 1, 364, 365, 400)).shares) == 2


def test_refunds_take_back_their_share_rounded_half_even() -> None:
    customer = _customer(1, ANN, 1, minor=50)  # 5 cents
    refund = (Refund("r", customer.payments[0].at + DAY, 5),)  # 10 %: half a cent
    customer = replace(customer, payments=(replace(customer.payments[0], refunds=refund),))
    assert _promised(customer).figures["reversed"] == 0
    more = (*refund, Refund("r2", customer.payments[0].at + DAY, 45))
    customer = replace(customer, payments=(replace(customer.payments[0], refunds=more),))
    assert _promised(customer).figures["available"] == 0


def test_a_top_up_is_worth_20_points_more_of_the_payment() -> None:
    promise = _promised(_customer(1, ANN, 1))
    assert promise.available == 1_000
    assert promise.top_up(1_000) == 3_000
    assert promise.available == 0


def test_a_top_up_after_a_withdrawal_uses_what_is_left_oldest_first() -> None:
    payment = Payment("p", START, 10_000, "a", Subscription("s", "crm", "month", START))
    promise = Promise(
        shares=[Share(payment, 1_000, 0, False), Share(replace(payment, payment_id="q"), 2_000, 0, False)]
    )
    promise.withdraw(500)
    worth = 1_000 + Fraction(20, 100) * (10_000 * Fraction(500, 1_000) + 10_000 * Fraction(500, 2_000))
    assert promise.top_up(1_000) == round(worth)
    assert promise.available == 1_500


def test_jupsoft_holds_for_90_days_and_takes_all_back_from_who_leaves_before() -> None:
    stays = _customer(1, BEA, 1)
    assert _promised(stays, partner=BEA, days=50).figures["pending"] == 500
    assert _promised(stays, partner=BEA, days=100).available == 500
    for day, available in ((30, 0), (120, 1_000)):
        bought = replace(stays.subscriptions[0], cancelled_at=stays.signed_up_at + day * DAY)
        paid = [Payment(f"p{at}", stays.signed_up_at + at * DAY, 10_000, "a", bought) for at in (1, 20, 200)]
        left = replace(stays, subscriptions=(bought,), payments=tuple(paid))
        assert _promised(left, partner=BEA).available == available


# --- the promise against the real folds -----------------------------------------------------------------------------


def _answered(made: World, partner: Partner) -> dict[str, int]:
    """A partner's balance as the ledger has it at NOW."""
    rows = asyncio.run(MemoryReader(made).rows(payouts.LEDGER, partner.partner_id))
    book = ledger.balance(rows.values(), NOW, None).get((partner.program_id, "USD"))
    if book is None:
        return {}
    names = ("accrued", "reversed", "processing", "paid", "topped_up")
    return {name: getattr(book.sums, name) for name in names} | {"pending": book.pending, "available": book.available}


@pytest.mark.parametrize("seed", [1, 2])
def test_the_real_folds_pay_what_is_promised(seed: int) -> None:
    past = made_up(seed)
    customers = everybody(past)
    made = folded(past, customers, seed, crashes=0.02)
    promised = promises(past.partners, customers, NOW)
    compared = [
        Compared(p, promised[p.partner_id], _answered(made, p), promised[p.partner_id].clients) for p in past.partners
    ]
    assert {each.partner.partner_id: each.differences for each in compared if each.differences} == {}
    assert sum(each.balance.get("accrued", 0) for each in compared) > 100_000
    letters = {(r.key, dict(r.headers)["reason"]) for n in range(made.partitions) for r in made.log["dead-letters", n]}
    assert [reason for _, reason in letters] == [b"conflicting_repeat"] * CONFLICTS


# --- the report -----------------------------------------------------------------------------------------------------


def test_a_figure_that_differs_is_counted_and_named() -> None:
    promise = _promised(_customer(1, ANN, 1))
    right = dict(promise.figures)
    console = Console(file=StringIO(), width=140)
    assert show(console, [Compared(ANN, promise, right, 1), Compared(BEA, Promise(), {}, 0)]) == 0
    wrong = right | {"accrued": 1_001, "available": 1_001}
    assert show(console, [Compared(ANN, promise, wrong, 1), Compared(BEA, Promise(), {}, 2)]) == 3
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "ann accrued: promised 10.00, refstream 10.01" in text
    assert "bea paying clients: promised 0, refstream 2" in text


def test_cents_are_written_as_dollars() -> None:
    assert [decimal(minor) for minor in (0, 5, -1, 1_234_567)] == ["0.00", "0.05", "-0.01", "12,345.67"]


# --- HTTP -----------------------------------------------------------------------------------------------------------


def test_what_a_service_cannot_do_now_is_asked_for_again_as_the_same_command() -> None:
    asked: list[httpx.Request] = []

    def answered(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) < 3:
            return httpx.Response(503, headers={"Retry-After": "0"})
        return httpx.Response(200, json={"code": "abc"})

    async def activated() -> str:
        platform = Platform("http://refstream.test", settings(), httpx.MockTransport(answered))
        async with platform:
            return await platform.activate(made_up().partners[0])

    assert asyncio.run(activated()) == "abc"
    assert len({request.headers["Idempotency-Key"] for request in asked[:3]}) == 1
    assert len(asked) == 4
