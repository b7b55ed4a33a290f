"""What one payment is worth under a program's terms, as far as its own customer decides it: pure, no rate yet.

`Frame` is what decides all of a customer's payments, seen under the program that prices the referral. As long as a new
event leaves it as it was, and says of no subscription what it is for, no other payment's decision can have changed.
Source: programs.md, jupsoft, keycrm and the general rules.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from msgspec import Struct

from schemas.events import PaymentDecline
from schemas.moments import DAY, add_months
from schemas.programs import Programs
from schemas.programs.terms import (
    Credits,
    IntegratorAccount,
    MonthlyDiscount,
    Program,
    Provider,
    Retention,
    Share,
    SignupBonus,
    WelcomeBonus,
)
from services.commission.state import Binding, Customer, Payment, Place, SubscriptionStep

Span = tuple[int, int | None]
"""A half-open span of time `[from, until)`; no `until`: open."""


class Frame(Struct, frozen=True):
    """What decides a customer's payments under a program's share.

    `first`: the place of the customer's own first payment since the binding, the qualified sale, with its product and
    subscription;
    `earning`: the spans of time in which payments earn by date; `ended_at`, `downgraded_at`: when the sale's
    subscription ended or was downgraded for good; `hold_until`: until when accruals are pending.
    """

    binding: Binding
    share: Share
    earning: tuple[Span, ...]
    first: Place | None = None
    first_product: str | None = None
    hold_until: int | None = None
    ended_at: int | None = None
    downgraded_at: int | None = None

    @property
    def left_at(self) -> int | None:
        """When the customer left before the hold ended, if so."""
        if self.ended_at is None or self.hold_until is None or self.ended_at >= self.hold_until:
            return None
        return self.ended_at


class Purchases(Struct, frozen=True):
    """What decides a customer's payments under a program's credits: the first purchase of each product family.

    Since the binding, in event time; the first also when it earned nothing.
    """

    binding: Binding
    earning: tuple[Span, ...]
    firsts: tuple[tuple[str, Place], ...] = ()

    def first_of(self, product_family: str) -> Place | None:
        return dict(self.firsts).get(product_family)


Seen = Frame | Purchases


def frame(programs: Programs, customer: Customer) -> Seen | None:
    """The customer's frame, or None where no share and no credits price the customer's payments.

    Errors: NotYetPublished while the version that bound the customer has not been read.
    """
    binding = customer.binding
    if binding is None or not binding.partner_id:
        return None
    bound = programs.version(binding.program_id, binding.program_version)
    share = bound.term(Share)
    if share is None:
        return _purchases(bound, binding, customer.payments.values())
    first = _first_own(customer, binding.attributed_at)
    earning = _earning(share, binding, customer, first)
    if first is None:
        return Frame(binding, share, earning)
    hold_until = first.at + share.hold_days * DAY if share.hold_days is not None else None
    if not (share.first_product_only or share.ends_with_subscription or share.ends_with_downgrade_of):
        return Frame(binding, share, earning, first.place, None, hold_until)
    product = product_of(customer, first)
    sale = _SaleOf(first, product, customer)
    return Frame(
        binding,
        share,
        earning,
        first.place,
        product if share.first_product_only else None,
        hold_until,
        sale.ended_at() if share.ends_with_subscription else None,
        sale.downgraded_at(share.ends_with_downgrade_of) if share.ends_with_downgrade_of else None,
    )


def _first_own(customer: Customer, since: int) -> Payment | None:
    """The customer's first payment from an instant on, those that a partner made left out."""
    first: Payment | None = None
    for payment in customer.payments.values():
        at = payment.at
        if at >= since and payment.paid_by is None and (first is None or at <= first.at):
            first = payment if first is None or payment.place < first.place else first
    return first


def stays(seen: Seen | None, before: Customer, after: Customer, touched: Collection[str]) -> bool:
    """Whether `seen`, the frame of `after`, is certain to be the frame of `before` as well, told without computing it.

    `touched`: every payment in which the two customers differ. Nothing else of the facts may have changed, and the
    first payment is the same one if each that changed comes later, in both. Most events are such a later payment.
    """
    if (
        before.binding != after.binding
        or before.accounts is not after.accounts
        or before.steps is not after.steps
        or before.signed_up_at != after.signed_up_at
    ):
        return False
    if seen is None or not touched:
        return True
    if isinstance(seen, Purchases) or seen.first is None:
        return False
    first = seen.first
    return all(
        payment.place > first
        for customer in (before, after)
        for payment_id in touched
        if (payment := customer.payments.get(payment_id)) is not None
    )


def unmoved(programs: Programs, seen: Seen | None, before: Customer, after: Customer, touched: Collection[str]) -> bool:
    """Whether no decision but those on `touched` payments can differ between two states of a customer.

    `seen`: the frame of `after`. Where the product decides, a subscription's step may say what a payment was for.
    """
    if stays(seen, before, after, touched):
        return True
    by_product = isinstance(seen, Frame) and seen.share.first_product_only
    if before.binding != after.binding or (by_product and before.steps is not after.steps):
        return False
    return seen == frame(programs, before)


def _purchases(bound: Program, binding: Binding, payments: Iterable[Payment]) -> Purchases | None:
    """The frame of a program that pays credits, or that a later version may make pay credits.

    A payment now would earn until the first purchase of the family that the version of the binding names.
    """
    terms = bound.term(Credits)
    if terms is None and bound.pricing == "at_binding":
        return None
    firsts: dict[str, Place] = {}
    for payment in payments:
        family = payment.product_family
        if family is not None and payment.at >= binding.attributed_at and payment.paid_by is None:
            firsts[family] = min(payment.place, firsts.get(family, payment.place))
    first = firsts.get(terms.product_family) if terms else None
    earning: Span = (binding.attributed_at, first[0] if first else None)
    return Purchases(binding, (earning,) if terms else (), tuple(sorted(firsts.items())))


def _earning(share: Share, binding: Binding, customer: Customer, first: Payment | None) -> tuple[Span, ...]:
    """When payments earn by date, before any end of a subscription."""
    bound = binding.attributed_at
    if share.window is None:
        return ((bound, None),)
    months = share.window.months
    match share.window.starts:
        case "first_payment":
            return ((bound, add_months(first.at, months) if first else None),)
        case "first_account":
            signup = customer.signed_up_at if customer.signed_up_at is not None else bound
            account = min((a.created_at for a in customer.accounts), default=None)
            before = add_months(signup, months)
            if account is None:
                return ((signup, before),)
            own = (account, add_months(account, months))
            return ((signup, min(before, account)), own) if account > signup else (own,)
        case _:
            assert_never(share.window.starts)


@dataclass(frozen=True, slots=True)
class _SaleOf:
    """The first payment's subscription; of one that names none, any that was for its product then."""

    first: Payment
    product: str | None
    customer: Customer

    def _is_ours(self, step: SubscriptionStep) -> bool:
        if self.first.subscription_id is not None:
            return step.subscription_id == self.first.subscription_id
        own = _product_of(self.customer, step.subscription_id, self.first.at)
        return self.product is not None and own == self.product

    def _earliest(self, kind: str, intervals: tuple[str, ...] = ()) -> int | None:
        """When our subscription first made a step of a kind, at or after the first payment."""
        times = (
            step.at
            for step in self.customer.steps
            if step.kind == kind
            and step.at >= self.first.at
            and self._is_ours(step)
            and (not intervals or self._interval(step) in intervals)
        )
        return min(times, default=None)

    def _interval(self, step: SubscriptionStep) -> str:
        """The plan's interval at a step: the subscription's, else the payment's; a plan that never said is monthly."""
        known = [s for s in self.customer.steps if s.subscription_id == step.subscription_id and s.interval]
        until = [s for s in known if s.at <= step.at]
        if until:
            return max(until, key=lambda s: s.at).interval or "month"
        return (min(known, key=lambda s: s.at).interval if known else self.first.interval) or "month"

    def ended_at(self) -> int | None:
        return self._earliest("cancelled")

    def downgraded_at(self, intervals: tuple[str, ...]) -> int | None:
        return self._earliest("downgrade", intervals)


def product_of(customer: Customer, payment: Payment) -> str | None:
    """The product a payment is for: its own, else its subscription's at that time."""
    if payment.product_id is not None or payment.subscription_id is None:
        return payment.product_id
    return _product_of(customer, payment.subscription_id, payment.at)


_LIFE = {"trial": 0, "activated": 1, "upgrade": 2, "downgrade": 2, "cancelled": 3}
"""Steps of one subscription at one instant follow on each other like this, in whatever order they arrive."""


def _product_of(customer: Customer, subscription_id: str, at: int) -> str | None:
    """What a subscription was for at an instant; before its first step, what it was for then."""
    steps = [s for s in customer.steps if s.subscription_id == subscription_id and s.product_id]
    steps.sort(key=lambda s: (s.at, _LIFE[s.kind]))
    until = [s for s in steps if s.at <= at]
    return (until[-1] if until else steps[0]).product_id if steps else None


def in_span(spans: tuple[Span, ...], at: int) -> bool:
    return any(start <= at and (until is None or at < until) for start, until in spans)


def reasons(programs: Programs, customer: Customer, seen: Seen | None, payment: Payment) -> tuple[PaymentDecline, ...]:
    """Why the payment earns nothing: all reasons that hold, the first one first; none when it earns.

    Source: contract.md, `commission.declined`: the order of the reasons.
    """
    binding = customer.binding
    found: list[PaymentDecline] = ["integrator_paid"] if payment.paid_by else []
    if binding is None:
        assert found, "the customer's own payment is decided when the signup is"
        return tuple(found)
    if not binding.partner_id or payment.at < binding.attributed_at:
        return (*found, "not_referred")
    program = priced_by(programs, binding, payment.at)
    if not program.enabled:
        found.append("program_disabled")
    if seen is None:
        found.append("no_rate")
        return tuple(found)
    if isinstance(seen, Purchases):
        return (*found, *_reasons_of_a_purchase(program, seen, payment))
    if not in_span(seen.earning, payment.at):
        found.append("outside_window")
    if seen.share.first_product_only and seen.first and product_of(customer, payment) != seen.first_product:
        found.append("other_product")
    is_sale = payment.place == seen.first
    if not is_sale and seen.downgraded_at is not None and payment.at >= seen.downgraded_at:
        found.append("downgraded")
    if not is_sale and seen.ended_at is not None and payment.at >= seen.ended_at:
        found.append("cancelled")
    return tuple(found)


def _reasons_of_a_purchase(program: Program, seen: Purchases, payment: Payment) -> tuple[PaymentDecline, ...]:
    """Why a purchase earns no credits, the switch aside.

    Source: programs.md, proxy-credits: only the first purchase of the product family earns, other families do not
    count; a provider without a rate, or a purchase without a quantity, earns nothing.
    """
    terms = program.term(Credits)
    if terms is None:
        return ("no_rate",)
    found: list[PaymentDecline] = []
    if payment.product_family != terms.product_family:
        found.append("other_family")
    elif payment.place != seen.first_of(terms.product_family):
        found.append("not_first_purchase")
    if payment.quantity_gb is None or provider_of(program, payment) is None:
        found.append("no_rate")
    return tuple(found)


def provider_of(program: Program, payment: Payment) -> Provider | None:
    """The rates of the payment's provider in a program's version, or None where it has none."""
    return program.providers.get(payment.provider) if payment.provider is not None else None


def credits_of(programs: Programs, seen: Seen | None, payment: Payment) -> int | None:
    """The whole credits of a payment that no reason declines, rounded down once; None where it earns no credits.

    Units: credits = GB × credits per GB, exact. Less than one credit is 0 credits, and earned all the same.
    """
    if not isinstance(seen, Purchases):
        return None
    provider = provider_of(priced_by(programs, seen.binding, payment.at), payment)
    if provider is None or payment.quantity_gb is None:
        return None
    return int(Fraction(payment.quantity_gb) * Fraction(provider.product_rate))


def priced_by(programs: Programs, binding: Binding, at: int) -> Program:
    """The program version that prices a payment: the binding's, or the one in force at the event."""
    bound = programs.version(binding.program_id, binding.program_version)
    return bound if bound.pricing == "at_binding" else programs.at(binding.program_id, at) or bound


def earning_spans(seen: Seen | None, customer: Customer) -> tuple[Span, ...]:
    """When a payment of this referral earns: the spans by date, cut at the end of the sale's subscription."""
    if seen is None:
        return ()
    if isinstance(seen, Purchases):
        return seen.earning
    ends = [end for end in (seen.ended_at, seen.downgraded_at) if end is not None]
    bound = seen.binding.attributed_at
    cut: list[Span] = []
    for start, until in seen.earning:
        limits = [limit for limit in (until, *ends) if limit is not None]
        begin, end = max(start, bound), min(limits, default=None)
        if end is None or begin < end:
            cut.append((begin, end))
    return tuple(cut)


def earns_by(program: Program) -> str:
    """The kind of terms under which the program's payments earn, in words."""
    for term in program.terms:
        match term:
            case Share():
                return "share"
            case Credits():
                return "credits"
            case SignupBonus() | IntegratorAccount() | WelcomeBonus() | Retention() | MonthlyDiscount():
                continue
            case _:
                assert_never(term)
    return "none"
