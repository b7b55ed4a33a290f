"""What the programs promise for a set of facts, worked out from all facts at once. Pure.

An independent, small and slow reading of two programs; it shares no code with the services but calendar arithmetic, so
that a misreading on either side shows as a difference. The numbers stand here as the programs' pages tell them.
Source: programs.md, keycrm and jupsoft.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from schemas.moments import DAY, add_months
from services.cli.demo.data import Customer, Partner, Payment

EARNING_MONTHS = 12
KEYCRM_TIERS = ((21, Fraction(30, 100)), (6, Fraction(20, 100)), (1, Fraction(10, 100)))
KEYCRM_SIGNUP_DAYS, KEYCRM_TOPUP_POINTS, KEYCRM_LEAST_WITHDRAWAL = 7, Fraction(20, 100), 5_000
JUPSOFT_RATE, JUPSOFT_SIGNUP_DAYS, JUPSOFT_HOLD_DAYS = Fraction(5, 100), 90, 90


@dataclass(slots=True)
class Share:
    """What one payment is worth to its partner now."""

    payment: Payment
    accrued: int
    reversed: int
    held: bool

    @property
    def left(self) -> int:
        return self.accrued - self.reversed

    @property
    def base_left(self) -> int:
        """What is left of the payment itself, after refunds and lost disputes."""
        return self.payment.minor - _returned(self.payment)


@dataclass(slots=True)
class Promise:
    """What a partner is promised; amounts in cents. `used`: payment id → what withdrawals and top-ups took of it."""

    clients: int = 0
    shares: list[Share] = field(default_factory=list)
    paid: int = 0
    topped_up: int = 0
    used: dict[str, int] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, int]:
        """The fields of a balance."""
        accrued, taken_back = sum(s.accrued for s in self.shares), sum(s.reversed for s in self.shares)
        pending = sum(share.left for share in self.shares if share.held)
        return {
            "accrued": accrued,
            "reversed": taken_back,
            "pending": pending,
            "processing": 0,
            "paid": self.paid,
            "topped_up": self.topped_up,
            "available": accrued - taken_back - pending - self.paid - self.topped_up,
        }

    @property
    def available(self) -> int:
        return self.figures["available"]

    def withdraw(self, minor: int) -> None:
        """The partner is paid `minor`."""
        self._take(minor)
        self.paid += minor

    def top_up(self, minor: int) -> int:
        """The partner uses `minor` for the account of its own: what that is worth there."""
        worth = Fraction(0)
        for share, taken in self._take(minor):
            worth += taken + KEYCRM_TOPUP_POINTS * share.base_left * Fraction(taken, share.left)
        self.topped_up += minor
        return round(worth)

    def _take(self, minor: int) -> list[tuple[Share, int]]:
        """The oldest first, as far as they are not held."""
        parts = []
        for share in sorted(self.shares, key=lambda s: (s.payment.at, s.payment.payment_id)):
            own = share.payment.payment_id
            free = 0 if share.held else share.left - self.used.get(own, 0)
            taken = min(minor, free)
            if taken > 0:
                parts.append((share, taken))
                self.used[own] = self.used.get(own, 0) + taken
                minor -= taken
        return parts


def promises(partners: Sequence[Partner], customers: Iterable[Customer], at: int) -> dict[str, Promise]:
    """What every partner is promised at an instant, before any withdrawal or top-up."""
    by_id = {partner.partner_id: partner for partner in partners}
    clients: dict[str, list[Customer]] = defaultdict(list)
    for customer in customers:
        partner = bound_to(by_id, customer)
        if partner is not None:
            clients[partner.partner_id].append(customer)
    return {
        partner.partner_id: _keycrm(own) if partner.program_id == "keycrm" else _jupsoft(own, at)
        for partner in partners
        for own in (clients[partner.partner_id],)
    }


# --- who brought the customer ---------------------------------------------------------------------------------------


def bound_to(partners: dict[str, Partner], customer: Customer) -> Partner | None:
    """The partner that a customer is bound to by its clicks, or None."""
    if customer.existing:
        return None
    clicks = sorted((click.at, click.partner_id) for click in customer.clicks if click.at <= customer.signed_up_at)
    winners = []
    firsts: dict[str, int] = {}
    for at, partner_id in clicks:
        if partners[partner_id].program_id == "keycrm":
            firsts.setdefault(partner_id, at)  # a later click on the same partner's link restarts nothing
    winners += [
        (at, "keycrm", partner_id)
        for partner_id, at in firsts.items()
        if customer.signed_up_at < at + KEYCRM_SIGNUP_DAYS * DAY and not _is_self(partners[partner_id], customer)
    ][:1]
    last = [(at, partner_id) for at, partner_id in clicks if partners[partner_id].program_id == "jupsoft"][-1:]
    winners += [
        (at, "jupsoft", partner_id)
        for at, partner_id in last
        if customer.signed_up_at < at + JUPSOFT_SIGNUP_DAYS * DAY and not _is_self(partners[partner_id], customer)
    ]
    return partners[min(winners)[2]] if winners else None


def _is_self(partner: Partner, customer: Customer) -> bool:
    return customer.email.strip().casefold() == partner.email.strip().casefold()


# --- keycrm: 10, 20, 30 % by the number of paying clients ------------------------------------------------------------


def _keycrm(customers: Sequence[Customer]) -> Promise:
    earning = [[payment for payment in customer.payments if _in_year(customer, payment)] for customer in customers]
    return tiered(earning, KEYCRM_TIERS)


def tiered(earning: Sequence[Sequence[Payment]], tiers: Sequence[tuple[int, Fraction]]) -> Promise:
    """A share of each payment, by the number of paying clients. `earning`: by client; `tiers`: the highest first."""
    firsts = sorted(min((p.at, p.payment_id) for p in payments) for payments in earning if payments)
    promise = Promise(clients=len(firsts))
    for payment in (payment for payments in earning for payment in payments):
        clients = bisect_right(firsts, (payment.at, payment.payment_id))  # this payment's client among them
        rate = next(rate for least, rate in tiers if clients >= least)
        promise.shares.append(share_of(payment, rate))
    return promise


def _in_year(customer: Customer, payment: Payment) -> bool:
    """Twelve months from the first account; from the signup while there is none."""
    created = [created_at for _, created_at in customer.accounts if created_at <= payment.at]
    start = min(created, default=customer.signed_up_at)
    return start <= payment.at < add_months(start, EARNING_MONTHS)


# --- jupsoft: 5 % of the first product, after 90 days ----------------------------------------------------------------


def _jupsoft(customers: Sequence[Customer], at: int) -> Promise:
    promise = Promise()
    for customer in customers:
        payments = sorted(
            (p for p in customer.payments if p.at >= customer.signed_up_at), key=lambda p: (p.at, p.payment_id)
        )
        if not payments:
            continue
        promise.clients += 1
        first = payments[0]
        hold_ends_at, sale = first.at + JUPSOFT_HOLD_DAYS * DAY, first.subscription
        ended_at = sale.cancelled_at if sale.cancelled_at is not None and sale.cancelled_at >= first.at else None
        left_early = ended_at is not None and ended_at < hold_ends_at
        for payment in payments:
            if payment is first or _still_earns(first, payment, ended_at):
                share = share_of(payment, JUPSOFT_RATE)
                if left_early:
                    share.reversed = share.accrued
                share.held = share.held or at < hold_ends_at
                promise.shares.append(share)
    return promise


def _still_earns(first: Payment, payment: Payment, ended_at: int | None) -> bool:
    sale = first.subscription
    if payment.subscription.product_id != sale.product_id or payment.at >= add_months(first.at, EARNING_MONTHS):
        return False
    if sale.interval == "month" and sale.downgraded_at is not None and first.at <= sale.downgraded_at <= payment.at:
        return False
    return ended_at is None or payment.at < ended_at


# --- refunds and disputes: alike in every program --------------------------------------------------------------------


def share_of(payment: Payment, rate: Fraction) -> Share:
    """What a payment is worth at a rate, as things stand."""
    accrued = round(payment.minor * rate)
    taken_back = round(Fraction(accrued * _returned(payment), payment.minor))
    held = any(dispute.closed_at is None for dispute in payment.disputes)
    return Share(payment, accrued, taken_back, held)


def _returned(payment: Payment) -> int:
    """What went back to the customer: refunds and lost disputes, together up to what was paid."""
    lost = [dispute.minor for dispute in payment.disputes if dispute.closed_at is not None and not dispute.won]
    return min(payment.minor, sum(refund.minor for refund in payment.refunds) + sum(lost))
