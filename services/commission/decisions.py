"""The decision record of a payment: why it earned what it earned, or nothing. Pure.

Built from what the two stages remember, so it always tells the decision that holds; the `commissions` topic is the
trail that led there.
"""

from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.events import PaymentDecline
from schemas.ids import Id
from schemas.moments import Instant, format_instant
from schemas.money import decimal_amount, decimal_text
from schemas.programs import Programs
from schemas.programs.terms import Program
from services.commission.sales import is_decided
from services.commission.saying import reversals
from services.commission.state import Binding, Customer, Ladder, Payment, Sale, commission_id
from services.commission.terms import (
    Frame,
    Purchases,
    Seen,
    credits_of,
    frame,
    priced_by,
    product_of,
    provider_of,
    reasons,
)

Outcome = Literal["accrued", "credited", "declined", "waiting"]

RULES: dict[PaymentDecline, str] = {
    "integrator_paid": "The partner paid for this client; such a payment earns no commission.",
    "not_referred": "The customer was bound to no partner when the payment was made.",
    "program_disabled": "The program was off in the version that prices the payment.",
    "outside_window": "Payments earn within the program's window only.",
    "other_family": "Only purchases of the program's product family earn.",
    "not_first_purchase": "Only the customer's first purchase earns.",
    "other_product": "Only the product of the customer's first payment earns.",
    "downgraded": "Payments after a downgrade of the sale's subscription earn nothing.",
    "cancelled": "Payments after the end of the sale's subscription earn nothing.",
    "no_rate": "The program pays nothing on such a payment.",
}
CREDITS_RULE = (
    "Whole credits for the first purchase of the product family: GB × the provider's rate then, rounded down."
)
SHARE_RULE = "A share of the payment, at the rate of the partner's paying clients, this payment's client included."
WAITING_RULE = "A payment is decided when its customer's signup is."
COUNTING_RULE = "The customer's facts are decided; the partner's clients are being counted."


class Decision(BaseModel):
    """Why a payment was answered as it was."""

    model_config = ConfigDict(frozen=True)
    outcome: Outcome
    reason: PaymentDecline | None = Field(None, description="the first reason that holds")
    reasons: tuple[PaymentDecline, ...] | None = Field(None, description="all reasons that hold")
    payment_id: Id
    customer_id: Id
    occurred_at: Instant
    commission_id: Id | None = None
    program_id: Id | None = None
    program_version: int | None = None
    partner_id: Id | None = None
    rule: str
    inputs: dict[str, Any]
    arithmetic: tuple[str, ...] = Field(examples=[["100.00 USD × 0.10 = 10.00 USD"]])


def outcome_by_facts(programs: Programs, customer: Customer, payment: Payment) -> Outcome:
    """The outcome as far as the customer's facts tell it, for choosing records before they are built."""
    if not is_decided(customer, payment):
        return "waiting"
    seen = frame(programs, customer)
    if reasons(programs, customer, seen, payment):
        return "declined"
    return "accrued" if credits_of(programs, seen, payment) is None else "credited"


def of_program(programs: Programs, customer: Customer, program_id: str) -> Iterator[Payment]:
    """The customer's payments that a program decides: those since the binding under it, else those paid under it."""
    binding = customer.binding
    for payment in customer.payments.values():
        if binding is not None and binding.partner_id and payment.at >= binding.attributed_at:
            decides = binding.program_id
        else:
            decides = payment.paid_by.program_id if payment.paid_by else ""
        if decides == program_id:
            yield payment


def decision(
    programs: Programs, customer_id: str, customer: Customer, payment: Payment, sale: Sale | None, ladder: Ladder
) -> Decision:
    """The record of one payment. `sale`, `ladder`: what the partner's stage remembers of it, as far as it is there."""
    known: dict[str, Any] = {
        "payment_id": payment.payment_id,
        "customer_id": customer_id,
        "occurred_at": payment.at,
        "commission_id": commission_id(payment.payment_id),
    }
    binding = customer.binding
    if not is_decided(customer, payment):
        return Decision(
            outcome="waiting", rule=WAITING_RULE, inputs=_payment_inputs(customer, payment), arithmetic=(), **known
        )
    seen = frame(programs, customer)
    inputs = _payment_inputs(customer, payment) | _referral_inputs(customer, seen)
    why = reasons(programs, customer, seen, payment)
    if binding is None or "not_referred" in why:
        if payment.paid_by:
            known |= {"program_id": payment.paid_by.program_id, "program_version": payment.paid_by.program_version}
        return Decision(
            outcome="declined",
            reason=why[0],
            reasons=why,
            rule=RULES[why[0]],
            inputs=inputs,
            arithmetic=(),
            **known,
        )
    known |= {"partner_id": binding.partner_id, "program_id": binding.program_id}
    if isinstance(seen, Purchases):
        inputs |= _purchase_inputs(_pricing(programs, binding, payment, sale), seen, payment)
    if sale is None or not (sale.said.accrued or sale.said.reason or sale.credits is not None):
        known["program_version"] = binding.program_version
        return Decision(outcome="waiting", rule=COUNTING_RULE, inputs=inputs, arithmetic=(), **known)
    known["program_version"] = sale.program_version
    if sale.changed_by is not None:
        inputs["changed_by"] = sale.changed_by
    if sale.said.accrued:
        inputs |= _ladder_inputs(sale, ladder)
        return Decision(outcome="accrued", rule=SHARE_RULE, inputs=inputs, arithmetic=tuple(_arithmetic(sale)), **known)
    if sale.credits is not None:
        lines = tuple(_arithmetic_of_credits(sale, inputs))
        return Decision(outcome="credited", rule=CREDITS_RULE, inputs=inputs, arithmetic=lines, **known)
    told: tuple[Any, ...] = sale.reasons
    return Decision(
        outcome="declined", reason=told[0], reasons=told, rule=RULES[told[0]], inputs=inputs, arithmetic=(), **known
    )


# --- inputs ---------------------------------------------------------------------------------------------------------


def _payment_inputs(customer: Customer, payment: Payment) -> dict[str, Any]:
    own = {
        "amount": {"minor": payment.minor, "currency": payment.currency},
        "paid_at": format_instant(payment.at),
        "account_id": payment.account_id,
        "subscription_id": payment.subscription_id,
        "product_id": product_of(customer, payment),
        "refunds": [
            {"refund_id": r.refund_id, "at": format_instant(r.at), "minor": r.minor}
            for r in sorted(payment.refunds, key=lambda r: (r.at, r.refund_id))
        ],
        "disputes": [
            {
                "dispute_id": d.dispute_id,
                "opened_at": format_instant(d.opened_at),
                "closed_at": _time(d.closed_at),
                "won": d.won if d.closed_at is not None else None,
                "minor": d.minor,
            }
            for d in sorted(payment.disputes, key=lambda d: (d.opened_at, d.dispute_id))
        ],
        "paid_by": _paid_by(payment),
        "changed_by": payment.caused_by,
    }
    return {name: value for name, value in own.items() if value not in (None, [])}


def _paid_by(payment: Payment) -> dict[str, Any] | None:
    """How a partner paid for the customer."""
    by = payment.paid_by
    if by is None:
        return None
    amounts = {"list_price": by.list_minor, "charged": by.charged_minor, "from_bonus": by.from_bonus_minor}
    return {
        "partner_id": by.partner_id,
        "program_id": by.program_id,
        "integration": by.integration,
        "discount_rate": by.discount_rate,
        **{name: {"minor": minor, "currency": by.currency} for name, minor in amounts.items()},
    }


def _pricing(programs: Programs, binding: Binding, payment: Payment, sale: Sale | None) -> Program:
    """The version that priced the payment, as the decision that holds has it."""
    if sale is None:
        return priced_by(programs, binding, payment.at)
    return programs.version(sale.program_id, sale.program_version)


def _purchase_inputs(program: Program, seen: Purchases, payment: Payment) -> dict[str, Any]:
    """What of the purchase and of the version in force at it decides credits."""
    provider = provider_of(program, payment)
    first = seen.first_of(payment.product_family) if payment.product_family is not None else None
    own = {
        "product_family": payment.product_family,
        "provider": payment.provider,
        "quantity_gb": payment.quantity_gb,
        "program_enabled": program.enabled,
        "product_rate": decimal_text(provider.product_rate) if provider else None,
        "first_purchase_id": first[1] if first else None,
    }
    return {name: value for name, value in own.items() if value is not None}


def _referral_inputs(customer: Customer, seen: Seen | None) -> dict[str, Any]:
    """What of the customer's history decides payments under the program."""
    binding = customer.binding
    if binding is None or not binding.partner_id:
        return {}
    own: dict[str, Any] = {"attributed_at": format_instant(binding.attributed_at), "bound_by": binding.caused_by}
    if isinstance(seen, Frame):
        own |= {
            "earns": [{"from": format_instant(since), "until": _time(until)} for since, until in seen.earning],
            "first_payment_id": seen.first[1] if seen.first else None,
            "first_product_id": seen.first_product,
            "hold_until": _time(seen.hold_until),
            "subscription_ended_at": _time(seen.ended_at),
            "downgraded_at": _time(seen.downgraded_at),
        }
    return {name: value for name, value in own.items() if value is not None}


def _ladder_inputs(sale: Sale, ladder: Ladder) -> dict[str, Any]:
    """How many paying clients there were at the payment's place; none where the program has one rate."""
    own: dict[str, Any] = {"rate": sale.said.rate, "available_at": format_instant(sale.available_at)}
    if ladder.depth:
        clients = max(1, bisect_right(ladder.firsts, sale.place))
        own["paying_clients" if clients < ladder.depth else "paying_clients_at_least"] = clients
    return own


def _time(at: int | None) -> str | None:
    return None if at is None else format_instant(at)


# --- arithmetic -----------------------------------------------------------------------------------------------------

EARNED = "{paid} × {rate} = {earned}"
CREDITED = "{gb} GB × {rate} credits per GB = {earned} credits"
CREDITED_LESS = "{gb} GB × {rate} credits per GB = {earned} credits, rounded down"
PART_BACK = "{earned} × {refunded} ÷ {paid} − {before} = {back} taken back: {reason} {cause}"
REST_BACK = "{earned} − {before} = {back} taken back: {reason}"
CREDITS_BACK = "{earned} credits × {refunded} ÷ {paid} − {before} = {back} taken back, rounded down: {reason} {cause}"
LEFT = "{earned} − {back} = {left} left"
CREDITS_LEFT = "{earned} − {back} = {left} credits left"
LINES = (EARNED, CREDITED, CREDITED_LESS, PART_BACK, REST_BACK, CREDITS_BACK, LEFT, CREDITS_LEFT)
"""Every line that arithmetic is made of."""


def _arithmetic_of_credits(sale: Sale, inputs: dict[str, Any]) -> Iterator[str]:
    """The credits earned and what was taken back of them, line by line."""

    def money(minor: int) -> str:
        return _amount(minor, sale.currency)

    earned, refunded, total = sale.credits or 0, 0, 0
    gb, rate = inputs["quantity_gb"], inputs["product_rate"]
    line = CREDITED if Fraction(gb) * Fraction(rate) == earned else CREDITED_LESS
    yield line.format(gb=gb, rate=rate, earned=earned)
    for part in sale.taken_back:
        refunded, back = min(sale.minor, refunded + part.minor), part.credits or 0
        why = {"reason": part.reason, "cause": part.id}
        shares = {"refunded": money(refunded), "paid": money(sale.minor)}
        yield CREDITS_BACK.format(earned=earned, before=total, back=back, **shares, **why)
        total += back
    if total:
        yield CREDITS_LEFT.format(earned=earned, back=total, left=earned - total)


def _arithmetic(sale: Sale) -> Iterator[str]:
    """The accrual and what was taken back of it, line by line."""

    def money(minor: int) -> str:
        return _amount(minor, sale.currency)

    amount, total = sale.said.amount, 0
    paid, earned = money(sale.minor), money(amount)
    yield EARNED.format(paid=paid, rate=sale.said.rate, earned=earned)
    causes = {part.cause: part for part in sale.taken_back}
    for back in reversals(sale, amount)[0]:
        part = causes.get(back.cause)
        told = {"earned": earned, "before": money(total), "back": money(back.minor), "reason": back.reason}
        if part is None:
            yield REST_BACK.format(**told)
        else:
            yield PART_BACK.format(**told, refunded=money(back.refunded), paid=paid, cause=part.id)
        total += back.minor
    if total:
        yield LEFT.format(earned=earned, back=money(total), left=money(amount - total))


def _amount(minor: int, currency: str) -> str:
    return f"{decimal_amount(minor, currency)} {currency}"
