"""The outcome is a function of the set of events: any interleaving of topics and partitions, batch sizes, repeats and
owners that die give the same balances, and those that an independent reading of the rules gives.

Source: contract.md, Order.
"""

import random
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import events
from schemas.commands import ActivatePartner, CreatePromoCode
from schemas.events import Event, Payload
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import shipped
from schemas.programs.terms import EarningWindow, Program, Share, Tier
from services.runtime.simulate import World
from tests import oracle
from tests.oracle import Bought, Paid, Rules
from tests.worlds import balance, quick_balance, reads_as_written, trail_adds_up, world

START = parse_instant("2025-01-01T00:00:00Z")
PARTNERS = ("ann", "bea")
FAR = START + 2000 * DAY


def _program(program_id: str, share: Share) -> Program:
    model = next(program for program in shipped() if program.program_id == "jupsoft")
    return model.model_copy(update={"program_id": program_id, "terms": (share,)})


TIERED = _program(
    "tiered",
    Share(
        tiers=tuple(Tier(from_clients=n, rate=Decimal(rate)) for n, rate in ((1, "0.10"), (2, "0.15"), (4, "0.33"))),
        window=EarningWindow(months=1, starts="first_account"),
    ),
)
HELD = _program(
    "held",
    Share(
        tiers=(Tier(from_clients=1, rate=Decimal("0.05")),),
        window=EarningWindow(months=2, starts="first_payment"),
        first_product_only=True,
        hold_days=9,
        ends_with_subscription=True,
        ends_with_downgrade_of=("month",),
    ),
)
RULES = {
    "tiered": Rules([(1, Fraction(1, 10)), (2, Fraction(15, 100)), (4, Fraction(33, 100))], 1, True),
    "held": Rules([(1, Fraction(1, 20))], 2, False, True, 9, True, True),
}


def _money(minor: int) -> Money:
    return Money(minor=minor, currency="USD")


def _event(name: str, at: int, data: Payload) -> Event:
    return Event(name, "/platform", at, data)


def _setup(program_id: str) -> list[list[Event]]:
    def command(name: str, **fields: object) -> dict[str, object]:
        return {"command_id": name, "body_hash": "-", "caller": "platform:platform", "program_id": program_id, **fields}

    activate = [
        _event(f"on-{p}", 0, ActivatePartner.model_validate(command(f"on-{p}", partner_id=p, accepted_terms=True)))
        for p in PARTNERS
    ]
    promo = [
        _event(f"promo-{p}", 1, CreatePromoCode.model_validate(command(f"promo-{p}", partner_id=p, code=f"code-{p}")))
        for p in PARTNERS
    ]
    return [activate, promo]


@dataclass(frozen=True)
class History:
    """A set of events, and the same as the oracle reads it."""

    program_id: str
    customers: list[Bought]
    events: list[Event]


products = st.sampled_from(["erp", "hrm"])
moments = st.integers(0, 80).map(lambda half_days: START + half_days * DAY // 2)
amounts = st.one_of(st.integers(0, 20), st.integers(1, 99_999))


@st.composite
def histories(draw: st.DrawFn, program_id: str) -> History:
    customers, made = [], []
    for number in range(draw(st.integers(1, 6))):
        customer, own = _customer(draw, f"c{number}", program_id)
        customers.append(customer)
        made += own
    return History(program_id, customers, made)


def _customer(draw: st.DrawFn, cid: str, program_id: str) -> tuple[Bought, list[Event]]:
    partner = draw(st.sampled_from(PARTNERS))
    customer = Bought(cid, partner, draw(moments.map(lambda at: min(at, START + 10 * DAY))))
    signup = events.CustomerSignedUp(customer_id=cid, promo_code=f"code-{partner}")
    made = [_event(f"{cid}-up", customer.signed_up_at, signup)]
    for number, at in enumerate(draw(st.lists(moments, max_size=2))):
        customer.accounts.append(at)
        made.append(
            _event(f"{cid}-a{number}", at, events.AccountCreated(customer_id=cid, account_id=f"{cid}-a{number}"))
        )
    if program_id == "held":
        made += _subscriptions(draw, customer)
    for number in range(draw(st.integers(0, 4))):
        made += _payment(draw, customer, f"{cid}-p{number}")
    return customer, made


def _subscriptions(draw: st.DrawFn, customer: Bought) -> list[Event]:
    cid, made = customer.customer_id, []
    for sub in ("s1", "s2"):
        name = f"{cid}-{sub}"
        if draw(st.booleans()):
            at, product, interval = draw(moments), draw(products), draw(st.sampled_from(["month", "year"]))
            customer.activated.append((name, at, interval))
            customer.products.append((name, at, 1, product))
            step = events.SubscriptionActivated(
                customer_id=cid, subscription_id=name, product_id=product, interval=interval
            )
            made.append(_event(f"{name}-on", at, step))
        if draw(st.booleans()):
            at = draw(moments)
            customer.cancelled.append((name, at))
            made.append(_event(f"{name}-x", at, events.SubscriptionCancelled(customer_id=cid, subscription_id=name)))
        if draw(st.booleans()):
            at, to = draw(moments), draw(st.none() | products)
            customer.downgraded.append((name, at))
            customer.products += [] if to is None else [(name, at, 2, to)]
            down = events.SubscriptionChanged(customer_id=cid, subscription_id=name, change="downgrade", product_id=to)
            made.append(_event(f"{name}-d", at, down))
    return made


def _payment(draw: st.DrawFn, customer: Bought, name: str) -> list[Event]:
    cid = customer.customer_id
    sub, product = draw(st.sampled_from(["s1", "s2"])), draw(st.none() | products)
    paid = Paid(name, draw(moments), draw(amounts), f"{cid}-{sub}", product)
    customer.payments.append(paid)
    success = events.PaymentSucceeded(
        payment_id=name,
        customer_id=cid,
        subscription_id=paid.subscription_id,
        product_id=product,
        amount=_money(paid.minor),
    )
    made = [_event(name, paid.at, success)]
    for number in range(draw(st.integers(0, 2))):
        at, minor, refund_id = draw(moments), draw(st.integers(0, paid.minor + 5)), f"{name}-{number}"
        paid.refunds.append((at, refund_id, minor))
        refund = events.PaymentRefunded(payment_id=name, customer_id=cid, refund_id=refund_id, amount=_money(minor))
        made.append(_event(f"{refund_id}r", at, refund))
    for number in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        opened, minor, dispute_id = draw(moments), draw(st.integers(0, paid.minor)), f"{name}-{number}"  # as a refund's
        closed = draw(st.none() | moments.map(partial(max, opened)))
        won = draw(st.booleans())
        paid.disputes.append((opened, minor, closed, won, dispute_id))
        ids = {"payment_id": name, "customer_id": cid, "dispute_id": dispute_id}
        made.append(_event(f"{dispute_id}o", opened, events.PaymentDisputed(**ids, amount=_money(minor))))
        if closed is not None:
            outcome = "won" if won else "lost"
            made.append(
                _event(f"{dispute_id}c", closed, events.DisputeClosed.model_validate({**ids, "outcome": outcome}))
            )
    return made


def _played(history: History, seed: int, crashes: float = 0.0, repeats: bool = False) -> World:
    made = world(seed, partitions=3, crashes=crashes, programs=(TIERED, HELD))
    for phase in _setup(history.program_id):
        made.publish(*phase)
        made.run()
    order = list(history.events)
    random.Random(seed).shuffle(order)
    made.publish(*order, *(order if repeats else ()))
    return made.run()


def _check(history: History, made: World) -> None:
    rules = RULES[history.program_id]
    for at, before in [(FAR, None)] + [(START + days * DAY, START + days * DAY) for days in (3, 10, 17, 25, 41)]:
        wanted = oracle.balances(rules, history.customers, at, before)
        for partner in PARTNERS:
            got = balance(made, partner, history.program_id, at=before) if before else None
            if before is None:
                got = balance(made, partner, history.program_id, at=FAR)
            if partner not in wanted:
                assert got is None
                continue
            assert got is not None
            assert {name: got[name] for name in wanted[partner]} == wanted[partner], (partner, before)
    for partner in PARTNERS:
        full = balance(made, partner, history.program_id, at=FAR)
        quick = quick_balance(made, partner, FAR).get((history.program_id, "USD"))
        assert quick == (full and (full["accrued"], full["reversed"], full["available"]))


@pytest.mark.parametrize("program_id", ["tiered", "held"])
def test_balances_follow_from_the_set_of_events(program_id: str) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(history=histories(program_id), seed=st.integers(0, 10**6), crashes=st.sampled_from([0.0, 0.2]))
    def holds(history: History, seed: int, crashes: float) -> None:
        made = _played(history, seed, crashes, repeats=seed % 3 == 0)
        _check(history, made)
        trail_adds_up(made)
        reads_as_written(made)

    holds()
