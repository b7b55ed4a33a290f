"""active-referrals in the demo: referrals who are active, and the discounts of a month. Pure.

The promise is a small reading of its own of the program; it shares no code with the services.
Source: programs.md, active-referrals.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction

from schemas.moments import DAY, add_months, format_instant, micros, moment
from services.cli.demo.data import HOUR, Partner
from services.cli.demo.lines import Fact, money
from services.cli.demo.scene import member

PROGRAM_ID = "active-referrals"
VERIFICATION_DAY, PLACES = 28, 20
SCALE = ((20, 40), (15, 20), (10, 10), (5, 5), (0, 0))
TRIAL_DAYS = 14


@dataclass(frozen=True, slots=True)
class Referral:
    """`activated_at`: None for a trial only. `payments`: time, and whether it was for the trial."""

    customer_id: str
    partner_id: str
    signed_up_at: int
    activated_at: int | None = None
    cancelled_at: int | None = None
    payments: tuple[tuple[int, bool], ...] = ()

    @property
    def trial_ends_at(self) -> int:
        return self.signed_up_at + TRIAL_DAYS * DAY


@dataclass(frozen=True, slots=True)
class Invoice:
    invoice_id: str
    account_id: str
    issued_at: int
    minor: int


@dataclass(frozen=True, slots=True)
class Played:
    """`as_of`: the verification's instant. `orders`: partner id → the accounts in the order it chose.

    `pending`: partners with a payment of their own that is neither through nor failed.
    """

    program_id: str
    as_of: int
    partners: tuple[Partner, ...]
    referrals: tuple[Referral, ...]
    orders: Mapping[str, tuple[str, ...]]
    pending: tuple[str, ...]
    invoices: tuple[Invoice, ...]

    @property
    def date(self) -> str:
        return moment(self.as_of).strftime("%Y-%m-%d")

    @property
    def month(self) -> str:
        return self.date[: len("2026-02")]


def last_verification(now: int) -> int:
    """The most recent verification day that has begun."""
    today = moment(now)
    day = micros(datetime(today.year, today.month, VERIFICATION_DAY, tzinfo=UTC))
    return day if day <= now else add_months(day, -1)


def played(run: str, now: int) -> Played:
    """Partners and referrals, under a program of the run's own. Deterministic in its arguments."""
    program_id, as_of = f"{run}.{PROGRAM_ID}", last_verification(now)
    shows = (
        "25 active over two companies: 20 and 5; trials, cancelled ones not",
        "15 active; the second company was put first",
        "7 active, but a pending payment: withheld",
        "4 active: too few",
    )
    joined_at = as_of - 200 * DAY
    all_in, chosen, waiting, few = (
        _with_two_companies(member(run, f"companies{number}", program_id, joined_at, text))
        for number, text in enumerate(shows, 1)
    )
    referrals = [
        _active(run, partner, number, as_of)
        for partner, count in ((all_in, 25), (chosen, 15), (waiting, 7), (few, 4))
        for number in range(1, count + 1)
    ]
    trial = replace(_active(run, all_in, 26, as_of), activated_at=None, payments=())
    left = replace(_active(run, all_in, 27, as_of), cancelled_at=as_of - DAY)
    unpaid = _active(run, all_in, 28, as_of)
    unpaid = replace(unpaid, payments=((unpaid.signed_up_at + DAY, True),))
    issued_at = min(now, as_of + HOUR)
    first, second = all_in.account_id, chosen.more_accounts[0]
    return Played(
        program_id,
        as_of,
        (all_in, chosen, waiting, few),
        (*referrals, trial, left, unpaid),
        {chosen.partner_id: (second, chosen.account_id)},
        (waiting.partner_id,),
        (
            Invoice(f"{first}.invoice1", first, issued_at, 10_000),
            Invoice(f"{first}.invoice2", first, issued_at, 10_000),
            Invoice(f"{second}.invoice1", second, issued_at, 4_950),
            Invoice(f"{chosen.account_id}.invoice1", chosen.account_id, issued_at, 4_950),
        ),
    )


def _with_two_companies(partner: Partner) -> Partner:
    return replace(partner, more_accounts=(f"{partner.partner_id}.a2",))


def _active(run: str, partner: Partner, number: int, as_of: int) -> Referral:
    signed_up_at = as_of - 60 * DAY + number * HOUR
    activated_at = signed_up_at + TRIAL_DAYS * DAY
    customer_id = f"{run}.{partner.partner_id.rpartition('.')[2]}-r{number:02}"
    return Referral(
        customer_id, partner.partner_id, signed_up_at, activated_at, payments=((activated_at + HOUR, False),)
    )


def facts(made: Played, codes: Mapping[str, str]) -> Iterator[Fact]:
    """What the referrals did, as a platform writes it; and the partners' pending payments."""
    for referral in made.referrals:
        yield from _facts(referral, codes)
    for partner_id in made.pending:
        of = {"customer_id": partner_id, "payment_id": f"{partner_id}.pending1", "amount": money(4_950, "USD")}
        yield made.as_of - DAY, "payment.pending", of


def _facts(referral: Referral, codes: Mapping[str, str]) -> Iterator[Fact]:
    own = {"customer_id": referral.customer_id}
    click = {"code": codes[referral.partner_id], "clicked_at": format_instant(referral.signed_up_at - HOUR)}
    yield referral.signed_up_at, "customer.signed_up", own | {"clicks": [click]}
    of = own | {"subscription_id": f"{referral.customer_id}.s1"}
    trial = {"product_id": "pro", "trial_ends_at": format_instant(referral.trial_ends_at)}
    yield referral.signed_up_at, "subscription.trial_started", of | trial
    if referral.activated_at is not None:
        yield referral.activated_at, "subscription.activated", of | {"product_id": "pro", "interval": "month"}
    if referral.cancelled_at is not None:
        yield referral.cancelled_at, "subscription.cancelled", of | {"reason": "cancelled"}
    for number, (at, trial_only) in enumerate(referral.payments, 1):
        paid = {"payment_id": f"{referral.customer_id}.p{number}", "trial": trial_only}
        yield at, "payment.succeeded", of | paid | {"amount": money(2_900, "USD")}


# --- the promise ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Month:
    """What a partner is promised for the month. `companies`: account → referrals counted, percent."""

    active: int
    companies: Mapping[str, tuple[int, int]]
    withheld: bool


def promises(made: Played) -> dict[str, Month]:
    """By partner."""
    return {partner.partner_id: _month(made, partner) for partner in made.partners}


def _month(made: Played, partner: Partner) -> Month:
    own = [each for each in made.referrals if each.partner_id == partner.partner_id]
    active = sum(_is_active(referral, made.as_of) for referral in own)
    if partner.partner_id in made.pending:
        return Month(active, {}, withheld=True)
    companies, left = {}, active
    for account_id in made.orders.get(partner.partner_id, (partner.account_id, *partner.more_accounts)):
        counted = min(left, PLACES)
        percent = next(percent for least, percent in SCALE if counted >= least)
        if percent:
            companies[account_id] = (counted, percent)
        left -= counted
    return Month(active, companies, withheld=False)


def _is_active(referral: Referral, at: int) -> bool:
    return (
        referral.activated_at is not None
        and max(referral.activated_at, referral.trial_ends_at) < at
        and (referral.cancelled_at is None or referral.cancelled_at >= at)
        and any(referral.trial_ends_at <= paid_at < at and not trial for paid_at, trial in referral.payments)
    )


def taken(months: Iterable[Month], invoices: Iterable[Invoice]) -> list[tuple[int, int]]:
    """By invoice: the percent that it takes, and what is left to pay. Each company's discount goes once."""
    percents = {account_id: percent for month in months for account_id, (_, percent) in month.companies.items()}
    answers = []
    for invoice in invoices:
        percent = percents.pop(invoice.account_id, 0)
        answers.append((percent, invoice.minor - round(Fraction(invoice.minor * percent, 100))))
    return answers
