"""The facts as JSON lines of CloudEvents, as a platform's producers would write them. Pure, from a seed.

Producers are not tidy, and neither are these lines: some events come twice under another envelope id, some come long
after later ones, and a few repeat a payment with another amount, which refstream puts on the dead letters.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from schemas.moments import SECOND, format_instant
from services.cli.demo.data import Customer, Partner, Payment

SOURCE = "/demo/platform"
REPEATED, LATE = 0.02, 0.03
MOST_PLACES_LATE = 3_000
CONFLICTS = 3

Fact = tuple[int, str, dict[str, Any]]
"""Event time, type, data."""


def partner_lines(run: str, partners: Iterable[Partner]) -> list[bytes]:
    """Partners are customers of the platform with an account of their own; who is brought signs up among the others."""
    facts: list[Fact] = []
    for partner in partners:
        if partner.is_brought:
            continue
        own = {"customer_id": partner.partner_id}
        facts.append((partner.joined_at, "customer.signed_up", own | {"name": partner.name, "email": partner.email}))
        for index, account_id in enumerate((partner.account_id, *partner.more_accounts)):
            facts.append((partner.joined_at + index * SECOND, "account.created", own | {"account_id": account_id}))
    return [_line(f"{run}.partner-event{number}", *fact) for number, fact in enumerate(facts, 1)]


def customer_lines(
    run: str, seed: int, customers: Iterable[Customer], codes: Mapping[str, str], more: Iterable[Fact] = ()
) -> list[bytes]:
    """Everything that customers did. `codes`: partner id → the code of the partner's link; `more`: further facts."""
    rng = random.Random(seed)  # noqa: S311 (a seed to repeat)
    facts = [fact for customer in customers for fact in customer_facts(customer, codes)]
    facts += more
    facts.sort(key=lambda fact: fact[0])
    placed = [
        (index + (rng.randint(1, MOST_PLACES_LATE) if rng.random() < LATE else 0), fact)
        for index, fact in enumerate(facts)
    ]
    placed += [
        (index + rng.randint(0, MOST_PLACES_LATE), fact) for index, fact in enumerate(facts) if rng.random() < REPEATED
    ]
    placed.sort(key=lambda each: each[0])
    ordered = [fact for _, fact in placed] + list(_conflicts(rng, facts))
    return [_line(f"{run}.event{number}", *fact) for number, fact in enumerate(ordered, 1)]


def _conflicts(rng: random.Random, facts: list[Fact]) -> Iterator[Fact]:
    """Payments that come again with another amount; the first in the log holds."""
    paid = [fact for fact in facts if fact[1] == "payment.succeeded"]
    for at, kind, data in rng.sample(paid, min(CONFLICTS, len(paid))):
        amount = {"minor": data["amount"]["minor"] + 1, "currency": data["amount"]["currency"]}
        yield at, kind, data | {"amount": amount}


def _line(event_id: str, at: int, kind: str, data: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": SOURCE,
            "type": kind,
            "time": format_instant(at),
            "datacontenttype": "application/json",
            "data": data,
        }
    )


def customer_facts(customer: Customer, codes: Mapping[str, str]) -> Iterator[Fact]:
    """Everything that one customer did."""
    own = {"customer_id": customer.customer_id}
    yield customer.signed_up_at, "customer.signed_up", own | _signup(customer, codes)
    for account_id, created_at in customer.accounts:
        name = f"Workspace of {customer.name.lower()}"
        yield created_at, "account.created", own | {"account_id": account_id, "name": name}
    for bought in customer.subscriptions:
        of = own | {"subscription_id": bought.subscription_id}
        plan = {"product_id": bought.product_id, "interval": bought.interval}
        yield bought.activated_at, "subscription.activated", of | plan
        if bought.upgraded_at is not None:
            yield bought.upgraded_at, "subscription.changed", of | {"change": "upgrade"}
        if bought.downgraded_at is not None:
            yield bought.downgraded_at, "subscription.changed", of | {"change": "downgrade"}
        if bought.cancelled_at is not None:
            yield bought.cancelled_at, "subscription.cancelled", of | {"reason": "cancelled"}
    for payment in customer.payments:
        yield from _payment_facts(own, payment)


def _signup(customer: Customer, codes: Mapping[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = {"name": customer.name, "email": customer.email}
    if customer.existing:
        told["existing_customer"] = True
    if customer.promo_code:
        told["promo_code"] = customer.promo_code
    if customer.click_token is not None:
        told["click_token"] = customer.click_token
    elif customer.clicks:
        told["clicks"] = [
            {"code": codes[click.partner_id], "clicked_at": format_instant(click.at)} for click in customer.clicks
        ]
    return told


def _payment_facts(own: dict[str, str], payment: Payment) -> Iterator[Fact]:
    of = own | {"payment_id": payment.payment_id}
    bought = payment.subscription
    paid = {
        "account_id": payment.account_id,
        "subscription_id": bought.subscription_id,
        "product_id": bought.product_id,
        "interval": bought.interval,
        "amount": money(payment.minor, payment.currency),
    }
    yield payment.at, "payment.succeeded", of | paid
    for refund in payment.refunds:
        yield (
            refund.at,
            "payment.refunded",
            of | {"refund_id": refund.refund_id, "amount": money(refund.minor, payment.currency)},
        )
    for dispute in payment.disputes:
        about = of | {"dispute_id": dispute.dispute_id}
        yield dispute.opened_at, "payment.disputed", about | {"amount": money(dispute.minor, payment.currency)}
        if dispute.closed_at is not None:
            outcome = "won" if dispute.won else "lost"
            yield dispute.closed_at, "payment.dispute_closed", about | {"outcome": outcome}


def money(minor: int, currency: str) -> dict[str, Any]:
    """An amount as events and bodies have it."""
    return {"minor": minor, "currency": currency}
