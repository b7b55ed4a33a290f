"""A year of a made-up platform: partners, customers, and everything that the customers did. Pure, from a seed.

Two kinds of partners. Most have customers drawn at random: they buy, upgrade, leave, come back, are refunded, dispute.
A few have customers made by hand, so that one rule of the program shows in one figure.
Times are microseconds since 1970 UTC, amounts minor units of USD. Names are numbers: nobody is meant.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from schemas.moments import DAY, SECOND

HOUR = 3_600 * SECOND
SPAN_DAYS = 400
"""How far the history goes back: a little more than a year, so that windows of 12 months end within it."""

PROGRAM_IDS = ("keycrm", "jupsoft")
CUSTOMERS_PER_PARTNER, MOST_PARTNERS, LEAST_PARTNERS = 50, 60, 18
HOLD_DAYS = 90  # jupsoft's; a hold that ends while the demo runs would be read before or after its end


@dataclass(frozen=True, slots=True)
class Partner:
    """`shows`: the rule that its customers were made for; empty where they were drawn.

    `more_accounts`: accounts besides the first. `is_brought`: its signup is one of the facts, as somebody's customer.
    """

    partner_id: str
    program_id: str
    account_id: str
    name: str
    email: str
    joined_at: int
    shows: str = ""
    more_accounts: tuple[str, ...] = ()
    is_brought: bool = False


@dataclass(frozen=True, slots=True)
class Click:
    partner_id: str
    at: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """`downgraded_at`, `upgraded_at`, `cancelled_at`: None where that never happened."""

    subscription_id: str
    product_id: str
    interval: Literal["month", "year"]
    activated_at: int
    upgraded_at: int | None = None
    downgraded_at: int | None = None
    cancelled_at: int | None = None


@dataclass(frozen=True, slots=True)
class Refund:
    refund_id: str
    at: int
    minor: int


@dataclass(frozen=True, slots=True)
class Dispute:
    dispute_id: str
    opened_at: int
    minor: int
    closed_at: int | None = None
    won: bool = False


@dataclass(frozen=True, slots=True)
class Payment:
    payment_id: str
    at: int
    minor: int
    account_id: str
    subscription: Subscription
    refunds: tuple[Refund, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class Customer:
    """`clicks`: what the platform remembered, or what stands in the cookie `click_token`.

    `promo_code`: empty for none.
    """

    customer_id: str
    name: str
    email: str
    signed_up_at: int
    clicks: tuple[Click, ...] = ()
    click_token: str | None = None
    promo_code: str = ""
    existing: bool = False
    accounts: tuple[tuple[str, int], ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    payments: tuple[Payment, ...] = ()


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who will click real links, one after the other, and then sign up. `number`: of the later customer."""

    number: int
    partner_ids: tuple[str, ...]
    program_id: str


@dataclass(frozen=True, slots=True)
class History:
    """What there is before the first HTTP request: partners, their customers so far, and who is about to come."""

    run: str
    seed: int
    now: int
    partners: tuple[Partner, ...]
    customers: tuple[Customer, ...]
    visitors: tuple[Visitor, ...]


def history(*, seed: int, customers: int, visitors: int, now: int, run: str) -> History:
    """The made-up platform. `run`: what every id begins with, so that one stack can take several runs.

    Deterministic in its arguments. `customers` counts the visitors too.
    """
    rng = random.Random(seed)  # noqa: S311 (a seed to repeat)
    maker = _Maker(rng, run, now)
    handmade = list(_handmade(maker))
    drawn = tuple(_drawn_partners(maker, customers, len(handmade)))
    own = [customer for _, made in handmade for customer in made]
    number = len(own)
    while number < customers - visitors:
        number += 1
        own.append(maker.drawn(number, drawn))
    coming = tuple(maker.visitor(number + 1 + index, drawn) for index in range(visitors))
    return History(run, seed, now, (*(partner for partner, _ in handmade), *drawn), tuple(own), coming)


def arrived(history: History, visitor: Visitor, clicks: Sequence[Click], click_token: str, now: int) -> Customer:
    """The customer that a visitor became: signed up after the last click, bought at once, all before `now`.

    Deterministic in its arguments. `clicks`: when the visitor clicked.
    """
    maker = _Maker(random.Random(f"{history.seed}:{visitor.number}"), history.run, now)  # noqa: S311
    step = (now - clicks[-1].at) // 4
    signed_up_at = clicks[-1].at + step
    customer = replace(maker.person(visitor.number, signed_up_at), clicks=tuple(clicks), click_token=click_token)
    account = (f"{customer.customer_id}.a1", signed_up_at + step)
    product, minor = maker.product(visitor.program_id)
    paid_at = signed_up_at + 2 * step
    bought = Subscription(f"{customer.customer_id}.s1", product, "month", paid_at)
    payment = Payment(f"{customer.customer_id}.p1", paid_at, minor, account[0], bought)
    return replace(customer, accounts=(account,), subscriptions=(bought,), payments=(payment,))


def _drawn_partners(maker: "_Maker", customers: int, handmade: int) -> Iterator[Partner]:
    count = min(MOST_PARTNERS, max(LEAST_PARTNERS, customers // CUSTOMERS_PER_PARTNER)) - handmade
    for number in range(handmade + 1, handmade + 1 + count):
        yield maker.partner(number, "jupsoft" if number % 5 < 2 else "keycrm")


class _Maker:
    """Draws people and what they did."""

    def __init__(self, rng: random.Random, run: str, now: int) -> None:
        self.rng, self.run, self.now = rng, run, now

    def before(self, least_days: float, most_days: float) -> int:
        """An instant so long ago, to the millisecond."""
        days = self.rng.uniform(least_days, most_days)
        return (self.now - round(days * DAY)) // 1000 * 1000

    def ago(self, days: float) -> int:
        return self.before(days, days)

    def partner(self, number: int, program_id: str, shows: str = "") -> Partner:
        partner_id = f"{self.run}.partner{number:02}"
        joined_at = self.before(SPAN_DAYS + 5, SPAN_DAYS + 20)
        return Partner(
            partner_id,
            program_id,
            f"{partner_id}.a1",
            f"Partner {number}",
            f"partner{number}@{self.run}.example",
            joined_at,
            shows,
        )

    def person(self, number: int, signed_up_at: int) -> Customer:
        return Customer(
            f"{self.run}.c{number:05}", f"Customer {number}", f"customer{number}@{self.run}.example", signed_up_at
        )

    def product(self, program_id: str) -> tuple[str, int]:
        """A product and its price for a month."""
        if program_id == "keycrm":
            return "crm", self.rng.choice((1900, 3950, 7999, 12905))
        return self.rng.choice((("mail", 999), ("backup", 2499), ("office", 4955)))

    def visitor(self, number: int, partners: Sequence[Partner]) -> Visitor:
        first = self._one_of(partners)
        several = [first.partner_id]
        if self.rng.random() < 0.2:
            several.append(self._one_of(partners).partner_id)
        return Visitor(number, tuple(dict.fromkeys(several)), first.program_id)

    def _one_of(self, partners: Sequence[Partner]) -> Partner:
        """A partner; a few bring most of the customers."""
        return partners[min(int(len(partners) * self.rng.random() ** 2), len(partners) - 1)]

    # --- customers drawn at random --------------------------------------------------------------------------------

    def drawn(self, number: int, partners: Sequence[Partner]) -> Customer:
        partner = self._one_of(partners)
        customer = self.person(number, self.before(1, SPAN_DAYS) + HOUR)
        clicks = self._clicks(customer, partner, partners)
        chance = self.rng.random()
        if chance < 0.01:
            customer = replace(customer, email=partner.email.upper())  # signs itself up: a self-referral
        elif chance < 0.03:
            customer = replace(customer, existing=True)
        elif chance < 0.06:
            clicks = ()
        customer = replace(customer, clicks=clicks)
        return self._buying(customer, partner.program_id)

    def _clicks(self, customer: Customer, partner: Partner, partners: Sequence[Partner]) -> tuple[Click, ...]:
        """Mostly one click, some days before the signup; sometimes too old, sometimes another partner's as well."""
        window = 7 if partner.program_id == "keycrm" else 90
        days = self.rng.uniform(0.01, window * 1.05)
        clicks = [Click(partner.partner_id, customer.signed_up_at - round(days * DAY))]
        if self.rng.random() < 0.1:
            later = customer.signed_up_at - round(self.rng.uniform(0.01, 1) * days * DAY)
            clicks.append(Click(self._one_of(partners).partner_id, later))
        if self.rng.random() < 0.1:
            clicks.append(Click(partner.partner_id, customer.signed_up_at - round(days / 2 * DAY)))
        return tuple(replace(click, at=click.at // 1000 * 1000) for click in clicks)

    def _buying(self, customer: Customer, program_id: str) -> Customer:
        account = (f"{customer.customer_id}.a1", customer.signed_up_at + self._seconds(60, 20 * 3600))
        if account[1] >= self.now:
            return customer
        customer = replace(customer, accounts=(account,))
        starts_at = self._clear_of_now(account[1] + self._seconds(60, 20 * 86_400))
        if self.rng.random() < 0.15 or starts_at >= self.now:
            return customer  # never buys
        product, price = self.product(program_id)
        customer = self._subscribed(customer, product, price, starts_at, self.rng.random() < 0.07)
        chance, first = self.rng.random(), customer.subscriptions[0]
        if chance < 0.08:  # a second product
            again = first.activated_at + self._seconds(5 * 86_400, 90 * 86_400)
            other, other_price = self.product(program_id)
            customer = self._subscribed(customer, other, other_price, again, False)
        elif chance < 0.14 and first.cancelled_at is not None:  # buys the same again
            again = first.cancelled_at + self._seconds(5 * 86_400, 60 * 86_400)
            customer = self._subscribed(customer, first.product_id, price, again, False)
        return customer

    def _clear_of_now(self, at: int) -> int:
        """No hold that begins then ends while the demo runs."""
        ends_at = at + HOLD_DAYS * DAY
        return at + 3 * HOUR if self.now - HOUR <= ends_at < self.now + 2 * HOUR else at

    def _seconds(self, least: int, most: int) -> int:
        return self.rng.randint(least * 1000, most * 1000) * 1000

    def _subscribed(self, customer: Customer, product: str, price: int, starts_at: int, yearly: bool) -> Customer:
        """One more subscription, with its payments."""
        if starts_at >= self.now:
            return customer
        number = len(customer.subscriptions) + 1
        stays = self.rng.uniform(5, 900)
        ends_at = starts_at + round(stays * DAY)
        bought = Subscription(
            f"{customer.customer_id}.s{number}",
            product,
            "year" if yearly else "month",
            starts_at,
            upgraded_at=self._sometimes(0.05, starts_at, ends_at),
            downgraded_at=self._sometimes(0.05, starts_at, ends_at),
            cancelled_at=ends_at if ends_at < self.now else None,
        )
        due, payments = starts_at, list(customer.payments)
        while due < min(ends_at, self.now - HOUR):
            grown = bought.upgraded_at is not None and bought.upgraded_at <= due
            minor = (price * 3 // 2 if grown else price) * (10 if yearly else 1)
            payment_id = f"{customer.customer_id}.p{len(payments) + 1}"
            payment = Payment(payment_id, due, minor, customer.accounts[0][0], bought)
            payments.append(self._regretted(payment))
            due += (365 if yearly else 30) * DAY + self._seconds(0, 3 * 3600)
        return replace(customer, subscriptions=(*customer.subscriptions, bought), payments=tuple(payments))

    def _sometimes(self, chance: float, since: int, until: int) -> int | None:
        at = since + round(self.rng.uniform(0.05, 1) * (until - since))
        return at // 1000 * 1000 if self.rng.random() < chance and at < self.now - HOUR else None

    def _regretted(self, payment: Payment) -> Payment:
        """Some payments are refunded, in whole or in parts; a few are disputed."""
        chance = self.rng.random()
        if chance < 0.03:
            return replace(payment, refunds=tuple(self._refunds(payment)))
        if chance < 0.04:
            return replace(payment, disputes=tuple(self._disputes(payment)))
        return payment

    def _refunds(self, payment: Payment) -> Iterator[Refund]:
        left, at = payment.minor, payment.at
        for number in range(1, self.rng.randint(1, 2) + 1):
            at += self._seconds(3600, 20 * 86_400)
            minor = left if self.rng.random() < 0.4 else self.rng.randint(0, left)
            if at < self.now and minor:
                yield Refund(f"{payment.payment_id}.r{number}", at, minor)
                left -= minor

    def _disputes(self, payment: Payment) -> Iterator[Dispute]:
        opened_at = payment.at + self._seconds(86_400, 20 * 86_400)
        closed_at = opened_at + self._seconds(5 * 86_400, 40 * 86_400)
        if opened_at < self.now:
            closed = closed_at if closed_at < self.now and self.rng.random() < 0.8 else None
            won = closed is not None and self.rng.random() < 0.5
            yield Dispute(f"{payment.payment_id}.d1", opened_at, payment.minor, closed, won)


# --- customers made by hand: one rule each --------------------------------------------------------------------------


def _handmade(maker: _Maker) -> Iterator[tuple[Partner, list[Customer]]]:
    """Partners whose customers show one rule each. Numbers go on over all of them."""
    number = 0

    def customers(
        partner: Partner, count: int = 1, clicked_days_before: float = 2, days_ago: float = 200
    ) -> list[Customer]:
        nonlocal number
        made = []
        for index in range(count):
            number += 1
            customer = maker.person(number, maker.ago(days_ago - index))
            click = Click(partner.partner_id, customer.signed_up_at - round(clicked_days_before * DAY))
            account = (f"{customer.customer_id}.a1", customer.signed_up_at + HOUR)
            made.append(replace(customer, clicks=(click,), accounts=(account,)))
        return made

    tier = maker.partner(1, "keycrm", "6th paying client: 20 % from then on")
    yield tier, [_paying(each, "crm", 10_000, (1, 31)) for each in customers(tier, 6)]

    refund = maker.partner(2, "keycrm", "refund of 30 % takes back 30 % of the commission")
    (one,) = customers(refund)
    paid = _paying(one, "crm", 10_000, (1, 31))
    yield refund, [_changed(paid, 0, refunds=(Refund(f"{one.customer_id}.p1.r1", maker.ago(190), 3_000),))]

    dispute = maker.partner(3, "keycrm", "open dispute holds what it is about")
    (one,) = customers(dispute, days_ago=40)
    paid = _paying(one, "crm", 10_000, (1, 31))
    yield dispute, [_changed(paid, 1, disputes=(Dispute(f"{one.customer_id}.p2.d1", maker.ago(3), 10_000),))]

    itself = maker.partner(4, "keycrm", "self-referral declined")
    (one,) = customers(itself)
    yield itself, [replace(_paying(one, "crm", 10_000, (1, 31)), email=f"  {itself.email.upper()}")]

    late = maker.partner(5, "keycrm", "signup 8 days after the first click: window over")
    (one,) = customers(late, clicked_days_before=8)
    again = Click(late.partner_id, one.signed_up_at - DAY)
    yield late, [_paying(replace(one, clicks=(*one.clicks, again)), "crm", 10_000, (1, 31))]

    year = maker.partner(6, "keycrm", "payments earn for 12 months from the first account")
    (one,) = customers(year, days_ago=390)
    yield year, [_paying(one, "crm", 10_000, (1, 360, 372, 380))]

    hold = maker.partner(7, "jupsoft", "90 days' hold: pending until then")
    (one,) = customers(hold, days_ago=40)
    yield hold, [_paying(one, "office", 10_000, (1, 31))]

    left = maker.partner(8, "jupsoft", "left before the hold's end: all of it taken back")
    (one,) = customers(left)
    yield left, [_left(_paying(one, "office", 10_000, (1, 31)), 45)]

    stayed = maker.partner(9, "jupsoft", "left after the hold's end: what was earned stays")
    (one,) = customers(stayed)
    paid = _left(_paying(one, "office", 10_000, (1, 31, 61, 91)), 100)
    back = Subscription(f"{one.customer_id}.s2", "office", "month", one.signed_up_at + 120 * DAY)
    again_paid = Payment(f"{one.customer_id}.p5", back.activated_at, 10_000, one.accounts[0][0], back)
    yield stayed, [replace(paid, subscriptions=(*paid.subscriptions, back), payments=(*paid.payments, again_paid))]

    other = maker.partner(10, "jupsoft", "other product earns nothing")
    (one,) = customers(other)
    paid = _paying(one, "office", 10_000, (1, 31))
    second = Subscription(f"{one.customer_id}.s2", "backup", "month", one.signed_up_at + 5 * DAY)
    second_paid = Payment(f"{one.customer_id}.p3", second.activated_at, 5_000, one.accounts[0][0], second)
    yield other, [replace(paid, subscriptions=(*paid.subscriptions, second), payments=(*paid.payments, second_paid))]

    known = maker.partner(11, "jupsoft", "had an account before: declined")
    (one,) = customers(known)
    yield known, [replace(_paying(one, "office", 10_000, (1, 31)), existing=True)]

    smaller = maker.partner(12, "jupsoft", "monthly plan downgraded: nothing from then on")
    (one,) = customers(smaller)
    yield smaller, [_downgraded(_paying(one, "office", 10_000, (1, 31, 61, 91, 121)), 50)]


def _paying(customer: Customer, product: str, minor: int, days: Iterable[int]) -> Customer:
    """One subscription, paid so many days after the signup."""
    times = [customer.signed_up_at + day * DAY for day in days]
    bought = Subscription(f"{customer.customer_id}.s1", product, "month", times[0])
    payments = tuple(
        Payment(f"{customer.customer_id}.p{number}", at, minor, customer.accounts[0][0], bought)
        for number, at in enumerate(times, 1)
    )
    return replace(customer, subscriptions=(bought,), payments=payments)


def _changed(
    customer: Customer, index: int, refunds: tuple[Refund, ...] = (), disputes: tuple[Dispute, ...] = ()
) -> Customer:
    payments = list(customer.payments)
    payments[index] = replace(payments[index], refunds=refunds, disputes=disputes)
    return replace(customer, payments=tuple(payments))


def _left(customer: Customer, days: int) -> Customer:
    """The subscription ended so many days after the signup."""
    return _with_first(customer, replace(customer.subscriptions[0], cancelled_at=customer.signed_up_at + days * DAY))


def _downgraded(customer: Customer, days: int) -> Customer:
    return _with_first(customer, replace(customer.subscriptions[0], downgraded_at=customer.signed_up_at + days * DAY))


def _with_first(customer: Customer, subscription: Subscription) -> Customer:
    payments = tuple(replace(payment, subscription=subscription) for payment in customer.payments)
    return replace(customer, subscriptions=(subscription,), payments=payments)
