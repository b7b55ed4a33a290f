"""The demo's other scenes (proxy-credits, message-help, active-referrals): promised by hand, and by the real folds."""

import asyncio
from fractions import Fraction
from io import StringIO

import pytest
from rich.console import Console

from schemas.events import parse_event
from schemas.moments import format_instant, parse_instant
from services.cli.demo import discounts, integrators, purchases
from services.cli.demo.lines import customer_lines
from services.cli.demo.report import show_answers, show_scene
from services.cli.demo.scene import Answer, Scored
from services.rewards import discounts_views
from services.rewards.people import PEOPLE
from services.runtime.simulate import MemoryReader
from tests.demo_world import NOW, codes_of, scenes
from tests.worlds import balance, told, wallet

# --- the promises, by hand ------------------------------------------------------------------------------------------


def _named(short: str) -> str:
    return f"dtest.{short}"


def test_credits_come_of_the_first_residential_purchase_in_whole_ones_and_claims_need_enough() -> None:
    promised, endings = purchases.promises(purchases.played("dtest", NOW))
    first, a, b, refunded = (promised[_named(f"proxy{number}")] for number in (1, 2, 3, 4))
    assert (first.friends, first.granted, first.claimed, first.balance) == (2, 10 + 22, 10, 22)
    assert (a.granted, b.granted, b.balance) == (10, 15, 5)
    assert (refunded.granted, refunded.taken_back, refunded.balance) == (10, 2, 8)
    assert endings == ["fulfilled", "failed", "fulfilled", "insufficient_credits", "insufficient_credits"]


def test_client_payments_cost_less_from_the_fifth_client_and_the_bonus_pays_whole_months_of_new_ones() -> None:
    accounts, priced = integrators.promises(integrators.played("dtest", NOW, 1))
    assert [(each.rate, each.charged) for each in priced[:6]] == [
        *[(Fraction(35, 100), 28_080)] * 4,
        (Fraction(40, 100), 25_920),
        (Fraction(35, 100), 6_499),
    ]
    refused = [each.refused for each in priced[6:]]
    assert refused == ["insufficient_balance", "", "bonus_not_applicable", "bonus_not_applicable", ""]
    assert [each.from_bonus for each in priced[6:]] == [0, 43_200, 0, 0, 5_000]
    assert (accounts[_named("messages3")].available, accounts[_named("messages4")].bonus) == (5_261, 1_800)


def test_a_promo_code_wins_over_a_click_and_brings_each_new_client_a_bonus() -> None:
    accounts, _ = integrators.promises(integrators.played("dtest", NOW, 1))
    promo = accounts[_named("messages2")]
    assert (promo.earned.clients, promo.new_clients) == (3, 2)  # one of four had an account before
    assert accounts[_named("messages1")].earned.clients == integrators.GENERATED_CLIENTS


def test_the_thirtieth_paying_client_earns_30_percent() -> None:
    accounts, _ = integrators.promises(integrators.played("dtest", NOW, 1))
    rates = {round(100 * share.accrued / share.payment.minor) for share in accounts[_named("messages1")].earned.shares}
    assert rates == {20, 30}


def test_active_referrals_fill_the_companies_in_their_order() -> None:
    months = discounts.promises(discounts.played("dtest", NOW))
    all_in, chosen, waiting, few = (months[_named(f"companies{number}")] for number in (1, 2, 3, 4))
    own = _named("companies")
    assert (all_in.active, all_in.companies) == (25, {f"{own}1.a1": (20, 40), f"{own}1.a2": (5, 5)})
    assert (chosen.active, chosen.companies) == (15, {f"{own}2.a2": (15, 20)})
    assert (waiting.active, waiting.companies, waiting.withheld) == (7, {}, True)
    assert (few.active, few.companies, few.withheld) == (4, {}, False)


def test_a_discount_is_taken_once() -> None:
    made = discounts.played("dtest", NOW)
    taken = discounts.taken(discounts.promises(made).values(), made.invoices)
    assert taken == [(40, 6_000), (0, 10_000), (20, 3_960), (0, 4_950)]


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-02-27T23:59:59Z", "2026-01-28T00:00:00Z"),
        ("2026-02-28T00:00:00Z", "2026-02-28T00:00:00Z"),
        ("2026-03-31T12:00:00Z", "2026-03-28T00:00:00Z"),
        ("2026-01-05T12:00:00Z", "2025-12-28T00:00:00Z"),
    ],
)
def test_the_month_is_the_last_that_can_be_verified(now: str, day: str) -> None:
    assert format_instant(discounts.last_verification(parse_instant(now))) == day


@pytest.mark.parametrize("now", ["2026-02-28T00:00:05Z", "2026-03-27T23:59:00Z"])
def test_every_fact_has_happened_already(now: str) -> None:
    at = parse_instant(now)
    parts = purchases.played("d", at), integrators.played("d", at, 1), discounts.played("d", at)
    codes = codes_of(partner for part in parts for partner in part.partners)
    more = [*purchases.facts(parts[0].friends, codes), *discounts.facts(parts[2], codes)]
    lines = customer_lines("d", 1, parts[1].customers, codes, more)
    assert max(parse_event(line).time for line in lines) < at
    assert all(invoice.issued_at <= at for invoice in parts[2].invoices)


# --- the promises against the real folds ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_the_real_folds_give_what_is_promised(seed: int) -> None:
    made, of = scenes(seed, crashes=0.02)
    before_claims, _ = purchases.promises(purchases.Played(of.purchases.partners, of.purchases.friends, ()))
    for partner_id, promise in before_claims.items():
        assert [credit["balance"] for credit in wallet(made, partner_id)] == [promise.balance]
    accounts, _ = integrators.promises(of.integrators)
    for partner_id, account in accounts.items():
        book = balance(made, partner_id, integrators.PROGRAM_ID, "EUR") or {"accrued": 0, "reversed": 0}
        promised = account.earned.figures
        assert [book[name] for name in ("accrued", "reversed")] == [promised["accrued"], promised["reversed"]]
    bonuses = [each for each in told(made, "rewards") if each["type"] == "bonus.granted"]
    new = [each["data"]["partner_id"] for each in bonuses if each["data"].get("customer_id")]
    assert {partner_id: new.count(partner_id) for partner_id in accounts} == {
        partner_id: account.new_clients for partner_id, account in accounts.items()
    }
    for partner_id, month in discounts.promises(of.discounts).items():
        person = asyncio.run(MemoryReader(made).state(PEOPLE, partner_id))
        (known,) = person.verifications
        shown = discounts_views.decided(person, known)
        companies = {each.account_id: (each.referrals_counted, each.percent) for each in shown.assignments}
        assert (shown.active_referrals, companies) == (month.active, month.companies)
        assert (shown.withheld == "pending_payment") == month.withheld


# --- the report -----------------------------------------------------------------------------------------------------


def test_answers_and_figures_that_differ_are_counted_and_named() -> None:
    ann = purchases.played("dtest", NOW).partners[0]
    console = Console(file=StringIO(), width=140)
    answers = [Answer("a claim", "fulfilled", "fulfilled"), Answer("another", "failed", "fulfilled")]
    assert show_answers(console, answers) == 1
    scored = Scored(ann, {"balance": "22", "friends": "2"}, {"balance": "23"})
    assert show_scene(console, "proxy-credits", [scored]) == 2
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "another: DIFFERS: promised failed, refstream fulfilled" in text
    assert "proxy1 balance: promised 22, refstream 23" in text
    assert "proxy1 friends: promised 2, refstream nothing" in text
