"""What is shown of monthly discounts. Pure."""

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.ids import Id
from schemas.moments import Instant
from schemas.money import Money
from schemas.programs.terms import MonthlyDiscount
from services.rewards.discounts import Outcome, Share, Status, status
from services.rewards.facts import Month, Person, Verification
from services.rewards.views import Movement


class Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class AssignmentShown(Shown):
    account_id: Id
    referrals_counted: int
    percent: int
    status: Status


class DiscountsShown(Shown):
    """A month's discounts of a partner's companies: those above 0 %."""

    program_id: Id
    month: str = Field(examples=["2026-02"])
    as_of: Instant = Field(description="the verification's instant; of a preview, now")
    active_referrals: int
    assignments: list[AssignmentShown]
    withheld: Literal["pending_payment"] | None


class VerificationShown(Shown):
    """A month that was verified: counts over all partners. `partners`: active in the program at that day."""

    program_id: Id
    month: str = Field(examples=["2026-02"])
    as_of: Instant
    partners: int
    assigned: int
    withheld: int
    lapsed: int


class VerificationsShown(Shown):
    verifications: list[VerificationShown]


class CompanyShown(Shown):
    account_id: Id
    referrals_counted: int
    percent: int


class CompaniesShown(Shown):
    """A partner's open companies in order, and what a verification now would give each."""

    program_id: Id
    active_referrals: int
    referrals_per_account: int
    companies: list[CompanyShown]
    withheld: Literal["pending_payment"] | None


class InvoiceShown(Shown):
    """What an invoice takes off. `amount`: what is left to pay."""

    invoice_id: Id
    account_id: Id
    program_id: Id | None
    month: str | None
    percent: int
    discount: Money
    amount: Money


def companies(program_id: str, terms: MonthlyDiscount, found: Outcome, given: Iterable[Share]) -> CompaniesShown:
    return CompaniesShown(
        program_id=program_id,
        active_referrals=found.active_referrals,
        referrals_per_account=terms.referrals_per_account,
        companies=[
            CompanyShown(account_id=each.account_id, referrals_counted=each.referrals_counted, percent=each.percent)
            for each in given
        ],
        withheld="pending_payment" if found.withheld else None,
    )


def verified(program_id: str, month: str, as_of: int, of: Month) -> VerificationShown:
    """A month that every partner has decided."""
    return VerificationShown(
        program_id=program_id,
        month=month,
        as_of=as_of,
        partners=of.partners,
        assigned=of.assigned,
        withheld=of.withheld,
        lapsed=of.lapsed,
    )


def decided(person: Person, verification: Verification) -> DiscountsShown:
    """A month as it was decided, with how its discounts stand now."""
    return DiscountsShown(
        program_id=verification.program_id,
        month=verification.month,
        as_of=verification.as_of,
        active_referrals=verification.active_referrals,
        assignments=[
            AssignmentShown(
                account_id=discount.account_id,
                referrals_counted=discount.referrals_counted,
                percent=discount.percent,
                status=status(person, discount),
            )
            for discount in verification.discounts
        ],
        withheld="pending_payment" if verification.withheld else None,
    )


def nothing(program_id: str, month: str, as_of: int) -> DiscountsShown:
    """A month that was decided without the partner, who was none then."""
    return DiscountsShown(
        program_id=program_id, month=month, as_of=as_of, active_referrals=0, assignments=[], withheld=None
    )


def preview(program_id: str, month: str, as_of: int, found: Outcome) -> DiscountsShown:
    """What a verification as of an instant would give."""
    return DiscountsShown(
        program_id=program_id,
        month=month,
        as_of=as_of,
        active_referrals=found.active_referrals,
        assignments=[
            AssignmentShown(
                account_id=each.account_id,
                referrals_counted=each.referrals_counted,
                percent=each.percent,
                status="preview",
            )
            for each in found.shares
        ],
        withheld="pending_payment" if found.withheld else None,
    )


def movements(verifications: Iterable[Verification]) -> Iterator[Movement]:
    """Every discount movement of a partner, for the history, in no order."""
    for of in verifications:
        own = {"program_id": of.program_id, "month": of.month}
        if of.withheld:
            yield Movement(type="discount.withheld", occurred_at=of.as_of, reason="pending_payment", **own)
        for discount in of.discounts:
            what = {**own, "account_id": discount.account_id, "percent": discount.percent}
            yield Movement.model_validate(
                {
                    "type": "discount.assigned",
                    "occurred_at": of.as_of,
                    "referrals_counted": discount.referrals_counted,
                    **what,
                }
            )
            if discount.lapsed_at is not None:
                yield Movement.model_validate({"type": "discount.lapsed", "occurred_at": discount.lapsed_at, **what})
            if discount.invoice_id is not None:
                amount = Money(minor=discount.off_minor, currency=discount.currency)
                used = {"invoice_id": discount.invoice_id, "amount": amount, **what}
                yield Movement.model_validate({"type": "discount.used", "occurred_at": discount.used_at, **used})
