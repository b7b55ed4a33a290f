"""What is shown of monthly discounts. Pure."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.ids import Id
from schemas.moments import Instant, format_instant
from schemas.money import Money
from services.rewards.discounts import Outcome, Status, status
from services.rewards.facts import Person, Verification


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


class InvoiceShown(Shown):
    """What an invoice takes off. `amount`: what is left to pay."""

    invoice_id: Id
    account_id: Id
    program_id: Id | None
    month: str | None
    percent: int
    discount: Money
    amount: Money


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


def movements(verifications: Iterable[Verification]) -> list[tuple[int, str, dict[str, Any]]]:
    """Every discount movement of a partner for its history: (when, a unique name, the item), in no order.

    Items: `type` like `discount.assigned`, `occurred_at`, `program_id`, `month`, and what the movement is about.
    """
    found: list[tuple[int, str, dict[str, Any]]] = []
    for of in verifications:

        def add(at: int, kind: str, account_id: str = "", of: Verification = of, **more: Any) -> None:
            item = {"type": kind, "occurred_at": format_instant(at), "program_id": of.program_id, "month": of.month}
            own = {"account_id": account_id} if account_id else {}
            found.append((at, f"{kind}:{of.program_id}:{of.month}:{account_id}", {**item, **own, **more}))

        if of.withheld:
            add(of.as_of, "discount.withheld", reason="pending_payment")
        for discount in of.discounts:
            percent = discount.percent
            counted = discount.referrals_counted
            add(of.as_of, "discount.assigned", discount.account_id, percent=percent, referrals_counted=counted)
            if discount.lapsed_at is not None:
                add(discount.lapsed_at, "discount.lapsed", discount.account_id, percent=percent)
            if discount.invoice_id is not None:
                amount = {"minor": discount.off_minor, "currency": discount.currency}
                add(
                    discount.used_at,
                    "discount.used",
                    discount.account_id,
                    percent=percent,
                    invoice_id=discount.invoice_id,
                    amount=amount,
                )
    return found
