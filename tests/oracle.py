"""An independent reading of the rules for share programs: slow, from the whole set of events at once.

Shares no code with the services beyond dates and rounding, so that a misreading shows as a difference.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction

from schemas.moments import DAY, add_months


@dataclass
class Rules:
    """What a share program says, in plain numbers."""

    tiers: list[tuple[int, Fraction]]
    months: int
    from_first_account: bool
    first_product_only: bool = False
    hold_days: int | None = None
    ends_with_subscription: bool = False
    ends_with_monthly_downgrade: bool = False


@dataclass
class Paid:
    payment_id: str
    at: int
    minor: int
    subscription_id: str | None
    product_id: str | None
    interval: str | None = None
    refunds: list[tuple[int, str, int]] = field(default_factory=list)
    disputes: list[tuple[int, int, int | None, bool, str]] = field(
        default_factory=list
    )  # opened, minor, closed, won, id


@dataclass
class Bought:
    """Everything that one customer did. `signed_up_at` is also when the customer was bound."""

    customer_id: str
    partner_id: str
    signed_up_at: int
    accounts: list[int] = field(default_factory=list)
    activated: list[tuple[str, int, str]] = field(default_factory=list)  # subscription, at, interval
    products: list[tuple[str, int, int, str]] = field(default_factory=list)  # subscription, at, place then, product
    cancelled: list[tuple[str, int]] = field(default_factory=list)
    downgraded: list[tuple[str, int]] = field(default_factory=list)
    payments: list[Paid] = field(default_factory=list)


def declined(rules: Rules, customer: Bought, payment: Paid) -> str | None:
    """The first reason why a payment earns nothing, or None."""
    if payment.at < customer.signed_up_at:
        return "not_referred"
    first = _first(customer)
    if not _in_window(rules, customer, payment.at, first):
        return "outside_window"
    if rules.first_product_only and _product(customer, payment) != _product(customer, first):
        return "other_product"
    if payment is first:
        return None
    down = _downgraded_at(customer, first) if rules.ends_with_monthly_downgrade else None
    if down is not None and payment.at >= down:
        return "downgraded"
    end = _ended_at(customer, first) if rules.ends_with_subscription else None
    return "cancelled" if end is not None and payment.at >= end else None


def _first(customer: Bought) -> Paid:
    since = [p for p in customer.payments if p.at >= customer.signed_up_at]
    return min(since, key=lambda p: (p.at, p.payment_id))


def _product(customer: Bought, payment: Paid) -> str | None:
    """The payment's own, else what its subscription was for then: the last step until then, or the first of all."""
    if payment.product_id is not None:
        return payment.product_id
    known = sorted(
        (at, place, product) for sub, at, place, product in customer.products if sub == payment.subscription_id
    )
    until = [product for at, _, product in known if at <= payment.at]
    return until[-1] if until else known[0][2] if known else None


def _in_window(rules: Rules, customer: Bought, at: int, first: Paid) -> bool:
    if not rules.from_first_account:
        return at < add_months(first.at, rules.months)
    account = min(customer.accounts, default=None)
    start = account if account is not None and account <= at else customer.signed_up_at
    return start <= at < add_months(start, rules.months)


def _ended_at(customer: Bought, first: Paid) -> int | None:
    return min((at for sub, at in customer.cancelled if sub == first.subscription_id and at >= first.at), default=None)


def _downgraded_at(customer: Bought, first: Paid) -> int | None:
    times = []
    for sub, at in customer.downgraded:
        if sub != first.subscription_id or at < first.at:
            continue
        known = sorted((when, interval) for s, when, interval in customer.activated if s == sub)
        before = [interval for when, interval in known if when <= at]
        plan = before[-1] if before else known[0][1] if known else first.interval
        if plan != "year":
            times.append(at)
    return min(times, default=None)


def balances(rules: Rules, customers: list[Bought], at: int, before: int | None = None) -> dict[str, dict[str, int]]:
    """Per partner: accrued, reversed, pending, available; events at `before` or later do not count yet."""
    firsts: dict[str, list[tuple[int, str]]] = defaultdict(list)
    earning: list[tuple[Bought, Paid]] = []
    for customer in customers:
        own = [p for p in customer.payments if declined(rules, customer, p) is None]
        earning += [(customer, p) for p in own]
        if own:
            firsts[customer.partner_id].append(min((p.at, p.payment_id) for p in own))
    result: dict[str, dict[str, int]] = {}
    for customer, payment in earning:
        if before is not None and payment.at >= before:
            continue
        place = (payment.at, payment.payment_id)
        clients = sum(first <= place for first in firsts[customer.partner_id])
        rate = [rate for least, rate in rules.tiers if least <= clients][-1]
        figures = result.setdefault(customer.partner_id, dict.fromkeys(("accrued", "reversed", "pending"), 0))
        accrued = round(payment.minor * rate)
        back = _taken_back(rules, customer, payment, accrued, before)
        figures["accrued"] += accrued
        figures["reversed"] += back
        if _is_held(rules, customer, payment, at, before):
            figures["pending"] += accrued - back
    for figures in result.values():
        figures["available"] = figures["accrued"] - figures["reversed"] - figures["pending"]
    return result


def _taken_back(rules: Rules, customer: Bought, payment: Paid, accrued: int, before: int | None) -> int:
    first = _first(customer)
    end = _ended_at(customer, first) if rules.ends_with_subscription else None
    left = rules.hold_days is not None and end is not None and end < first.at + rules.hold_days * DAY
    if left and (before is None or max(end or 0, payment.at) < before):
        return accrued
    losses = payment.refunds + [
        (closed, dispute_id, minor)
        for _, minor, closed, won, dispute_id in payment.disputes
        if closed is not None and not won
    ]
    counted = [minor for when, _, minor in losses if before is None or max(when, payment.at) < before]
    refunded = min(payment.minor, sum(counted))
    return round(Fraction(accrued * refunded, payment.minor)) if payment.minor else 0


def _is_held(rules: Rules, customer: Bought, payment: Paid, at: int, before: int | None) -> bool:
    if rules.hold_days is not None and max(payment.at, _first(customer).at + rules.hold_days * DAY) > at:
        return True
    for opened, _, closed, _, _ in payment.disputes:
        if before is None and closed is None:
            return True
        if before is not None and opened < before and (closed is None or closed > before):
            return True
    return False
