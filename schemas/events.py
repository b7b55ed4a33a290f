"""Every event of refstream: one frozen payload per type, one envelope around all of them.

A record's value is a CloudEvents 1.0 event in structured JSON. `Event` is that envelope, `Event.data` one of the
payloads below, told apart by `type`. Payloads of the platform ignore fields they do not know, so that a newer
producer does not break an older refstream; what refstream writes has exactly the fields declared here.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, ParamSpec, TypeVar, get_args

import msgspec
import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from schemas.ids import Id
from schemas.moments import WIRE, Instant, NoOffset, format_instant, parse_instant
from schemas.money import Charge, ExactDecimal, Money, Rate

P = ParamSpec("P")
Model = TypeVar("Model", bound=BaseModel)

Interval = Literal["month", "year"]
MAX_QUANTITY_GB = 10**9  # times any provider's rate, still an integer that every JSON reader holds exactly


def _flag(value: Any) -> Any:
    return False if value is None else value


Flag = Annotated[bool, Field(strict=True), BeforeValidator(_flag, json_schema_input_type=bool | None)]
"""True or false; null is what a field left out is, false."""


class Payload(BaseModel):
    """The `data` of one type of event. `type` is what the envelope says, `subject` the business id it is about.

    Its errors never repeat what was written: a traceback is logged, and people's addresses are not.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True)
    type: ClassVar[str]


def made(kind: Callable[P, Model], *args: P.args, **fields: P.kwargs) -> Model:
    """A payload, or a part of one, of what our own rules decided: valid already, so it is not validated.

    `fields`: all of them, in the order of the class, of exactly their types. Whoever reads the record validates it.
    """
    data: Any = object.__new__(kind)  # type: ignore[arg-type]
    put = object.__setattr__
    put(data, "__dict__", fields)
    put(data, "__pydantic_fields_set__", set(fields))
    put(data, "__pydantic_extra__", None)
    put(data, "__pydantic_private__", None)
    return data  # type: ignore[no-any-return]


class _Charged(Payload):
    amount: Charge


# --- customers: written by the platform, keyed by customer ---------------------------------------------------------


class Click(BaseModel):
    """One click that the platform remembered itself. `code`: any text, since a visitor may write it into an address."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    code: Annotated[str, Field(strict=True)]
    clicked_at: Instant


class CustomerSignedUp(Payload):
    """A person became a customer. Evidence of who brought them: the click cookie, own clicks, a promo code."""

    type = "customer.signed_up"
    customer_id: Id
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    existing_customer: Flag = False
    click_token: str | None = None
    clicks: tuple[Click, ...] | None = None
    promo_code: str | None = None


class AccountCreated(Payload):
    """A customer owns a further account (a workspace, a company)."""

    type = "account.created"
    customer_id: Id
    account_id: Id
    name: str | None = None


class AccountClosed(Payload):
    type = "account.closed"
    customer_id: Id
    account_id: Id


class TrialStarted(Payload):
    type = "subscription.trial_started"
    customer_id: Id
    account_id: Id | None = None
    subscription_id: Id
    product_id: Id
    trial_ends_at: Instant


class SubscriptionActivated(Payload):
    type = "subscription.activated"
    customer_id: Id
    account_id: Id | None = None
    subscription_id: Id
    product_id: Id
    interval: Interval


class SubscriptionChanged(Payload):
    type = "subscription.changed"
    customer_id: Id
    subscription_id: Id
    change: Literal["upgrade", "downgrade"]
    product_id: Id | None = None


class SubscriptionCancelled(Payload):
    type = "subscription.cancelled"
    customer_id: Id
    subscription_id: Id
    reason: Literal["cancelled", "expired", "unpaid"] | None = None


# --- profiles: written by the platform, keyed by customer, compacted -----------------------------------------------


class CustomerProfile(Payload):
    """What pages show of a person; the latest holds, and a record without a value forgets the person."""

    type = "customer.profile"
    customer_id: Id
    name: str | None = None
    email: str | None = None
    phone: str | None = None


# --- payments: written by the platform, keyed by customer ----------------------------------------------------------


class PaymentPending(_Charged):
    type = "payment.pending"
    payment_id: Id
    customer_id: Id
    account_id: Id | None = None


class PaymentSucceeded(_Charged):
    """A customer paid. `trial` matters to active-referrals alone."""

    type = "payment.succeeded"
    payment_id: Id
    customer_id: Id
    account_id: Id | None = None
    subscription_id: Id | None = None
    product_id: Id | None = None
    product_family: str | None = None
    provider: str | None = None
    quantity_gb: Annotated[ExactDecimal, Field(ge=0, le=MAX_QUANTITY_GB)] | None = None
    interval: Interval | None = None
    trial: Flag = False


class PaymentFailed(Payload):
    type = "payment.failed"
    payment_id: Id
    customer_id: Id
    subscription_id: Id | None = None


class PaymentRefunded(_Charged):
    type = "payment.refunded"
    payment_id: Id
    customer_id: Id
    refund_id: Id


class PaymentDisputed(_Charged):
    type = "payment.disputed"
    payment_id: Id
    customer_id: Id
    dispute_id: Id


class DisputeClosed(Payload):
    type = "payment.dispute_closed"
    payment_id: Id
    customer_id: Id
    dispute_id: Id
    outcome: Literal["won", "lost"]


# --- clicks, programs, partners, referrals: written by attribution --------------------------------------------------


class ClickRecorded(Payload):
    """A person followed a partner's link (a top-level navigation)."""

    type = "click.recorded"
    visitor_id: Id
    code: str
    partner_id: Id
    program_id: Id


class ProgramPublished(Payload):
    """A version of a program document is in force from `effective_at` on (the first from the beginning of time)."""

    type = "program.published"
    program_id: Id
    version: int
    effective_at: Instant
    document: dict[str, Any]


class PartnerActivated(Payload):
    type = "partner.activated"
    partner_id: Id
    program_id: Id
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    activated_at: Instant


class LinkCreated(Payload):
    type = "link.created"
    partner_id: Id
    program_id: Id
    code: str
    url: str
    destination: str


class PromoCodeCreated(Payload):
    type = "promo_code.created"
    partner_id: Id
    program_id: Id
    code: str


class AccountsOrdered(Payload):
    type = "accounts.ordered"
    partner_id: Id
    program_id: Id
    account_ids: tuple[Id, ...]
    effective_at: Instant


class RetentionRequested(Payload):
    type = "retention.requested"
    claim_id: Id
    partner_id: Id
    program_id: Id
    customer_id: Id
    evidence: str


class RetentionApproved(Payload):
    type = "retention.approved"
    claim_id: Id
    partner_id: Id
    program_id: Id
    customer_id: Id


class RetentionRejected(Payload):
    type = "retention.rejected"
    claim_id: Id
    partner_id: Id
    program_id: Id
    customer_id: Id
    reason: str


Method = Literal["click", "promo_code", "retention"]
DeclineReason = Literal[
    "no_click",
    "invalid_token",
    "unknown_code",
    "program_disabled",
    "partner_inactive",
    "existing_customer",
    "self_referral",
    "window_expired",
    "already_referred",
]


class ReferralAttributed(Payload):
    """A customer is bound to one partner under one program version, for ever."""

    type = "referral.attributed"
    customer_id: Id
    partner_id: Id
    program_id: Id
    program_version: int
    method: Method
    attributed_at: Instant


class ReferralDeclined(Payload):
    type = "referral.declined"
    customer_id: Id
    reason: DeclineReason
    program_id: Id | None = None
    partner_id: Id | None = None


# --- commissions: written by commission, keyed by partner (by customer where there is none) ------------------------

PaymentDecline = Literal[
    "integrator_paid",
    "not_referred",
    "program_disabled",
    "outside_window",
    "other_family",
    "not_first_purchase",
    "other_product",
    "downgraded",
    "cancelled",
    "no_rate",
]
ReversalReason = Literal["refund", "dispute_lost", "left_before_hold"] | PaymentDecline


class Reversal(BaseModel):
    """A part of an accrual that was taken back at an instant."""

    model_config = ConfigDict(frozen=True)
    reversal_id: Id
    reversed_at: Instant
    amount: Money
    reason: ReversalReason


class Hold(BaseModel):
    """What is left of an accrual is held from an instant on, until another or for the time being."""

    model_config = ConfigDict(frozen=True)
    held_from: Instant
    held_until: Instant | None = None


class Standing(BaseModel):
    """How a payment's commission stands after an event: the whole of it, so that a reader needs no earlier event.

    `amount` is the accrual (0 when the payment earns nothing), `reversals` what was taken back of it since, in order.
    """

    model_config = ConfigDict(frozen=True)
    accrued_at: Instant
    base: Money
    amount: Money
    available_at: Instant
    refunded_minor: int = 0
    reversals: tuple[Reversal, ...] = ()
    holds: tuple[Hold, ...] = ()


class _Commission(Payload):
    commission_id: Id
    payment_id: Id
    customer_id: Id
    account_id: Id | None = None
    partner_id: Id
    program_id: Id
    program_version: int


class CommissionAccrued(_Commission):
    type = "commission.accrued"
    base: Money
    rate: Rate
    amount: Money
    available_at: Instant
    standing: Standing


class CommissionAdjusted(_Commission):
    """`amount` is the signed difference of what is left of the accrual."""

    type = "commission.adjusted"
    adjustment_id: Id
    rate: Rate
    amount: Money
    available_at: Instant
    caused_by: str
    standing: Standing


class CommissionReversed(_Commission):
    """`amount` (above 0) was taken back. A payment's decline as reason undoes the accrual itself."""

    type = "commission.reversed"
    reversal_id: Id
    amount: Money
    reason: ReversalReason
    standing: Standing


class CommissionDeclined(Payload):
    type = "commission.declined"
    commission_id: Id
    payment_id: Id
    customer_id: Id
    account_id: Id | None = None
    partner_id: Id | None = None
    program_id: Id | None = None
    program_version: int | None = None
    reason: PaymentDecline


class CommissionHeld(_Commission):
    """An open dispute holds, or a won one releases, what is left of an accrual."""

    type = "commission.held"
    held: bool
    standing: Standing


class TierReached(Payload):
    type = "tier.reached"
    partner_id: Id
    program_id: Id
    paying_clients: int
    rate: Rate


class ActivityChanged(Payload):
    """When payments of a referral earn: the half-open spans `[from, until)` (no `until`: open)."""

    type = "activity.changed"
    partner_id: Id
    program_id: Id
    customer_id: Id
    earning: tuple[tuple[Instant, Instant | None], ...]


# --- rewards: written by rewards, keyed by partner (by customer for a customer's own bonus) ------------------------


class CreditGranted(Payload):
    """Whole credits for a purchase (0 where they round down to nothing).

    A second one for the same payment says what is added, when a rate of that time became known late: per payment
    granted − reversed is what is left.
    """

    type = "credit.granted"
    partner_id: Id
    program_id: Id
    customer_id: Id
    payment_id: Id
    credits: int


class CreditReversed(Payload):
    """Credits of a purchase were taken back, above 0. `cause`: the refund or the lost dispute that did it.

    `rate_corrected`: a lower rate of that time became known late.
    """

    type = "credit.reversed"
    partner_id: Id
    program_id: Id
    customer_id: Id
    payment_id: Id
    credits: int
    reason: ReversalReason | Literal["rate_corrected"]
    cause: Id | None = None


class _Claim(Payload):
    claim_id: Id
    partner_id: Id
    program_id: Id
    provider: str
    credits: int


class ClaimRequested(_Claim):
    type = "claim.requested"


class ClaimFulfilled(_Claim):
    type = "claim.fulfilled"


class ClaimFailed(_Claim):
    type = "claim.failed"


class BonusGranted(Payload):
    """A bonus for a partner (`bonus_id`, `expires_at`) or, once, for a new customer: the platform applies it."""

    type = "bonus.granted"
    bonus_id: Id
    partner_id: Id
    program_id: Id
    customer_id: Id | None = None
    amount: Money
    expires_at: Instant | None = None


class BonusUsed(Payload):
    type = "bonus.used"
    bonus_id: Id
    partner_id: Id
    program_id: Id
    customer_id: Id
    payment_id: Id
    amount: Money


class BonusExpired(Payload):
    type = "bonus.expired"
    bonus_id: Id
    partner_id: Id
    program_id: Id
    amount: Money


class _Discount(Payload):
    partner_id: Id
    account_id: Id
    program_id: Id
    month: str
    percent: int


class DiscountAssigned(_Discount):
    type = "discount.assigned"
    referrals_counted: int
    assigned_at: Instant


class DiscountWithheld(Payload):
    type = "discount.withheld"
    partner_id: Id
    program_id: Id
    month: str
    reason: Literal["pending_payment"]


class DiscountUsed(_Discount):
    type = "discount.used"
    invoice_id: Id
    discount: Money
    amount: Money


class DiscountLapsed(_Discount):
    type = "discount.lapsed"


# --- payouts: written by payouts, keyed by partner -----------------------------------------------------------------


class _Withdrawal(Payload):
    withdrawal_id: Id
    partner_id: Id
    program_id: Id
    amount: Money


class WithdrawalRequested(_Withdrawal):
    type = "withdrawal.requested"
    destination: str
    comment: str | None = None


class WithdrawalPaid(_Withdrawal):
    type = "withdrawal.paid"


class WithdrawalRejected(_Withdrawal):
    type = "withdrawal.rejected"
    reason: str


class WithdrawalCancelled(_Withdrawal):
    type = "withdrawal.cancelled"


class TopupApplied(Payload):
    """Bonus money was used for the partner's own account, where it is worth `credited`."""

    type = "topup.applied"
    topup_id: Id
    partner_id: Id
    program_id: Id
    account_id: Id
    amount: Money
    credited: Money


class _Deposit(Payload):
    deposit_id: Id
    partner_id: Id
    program_id: Id
    amount: Money
    method: Literal["card", "invoice"]


class DepositInvoiced(_Deposit):
    type = "deposit.invoiced"


class DepositReceived(_Deposit):
    type = "deposit.received"


class ClientPaymentMade(Payload):
    """A partner paid for a client from the partner account."""

    type = "client_payment.made"
    payment_id: Id
    partner_id: Id
    program_id: Id
    customer_id: Id
    account_id: Id | None = None
    integration: str
    interval: Interval
    list_price: Money
    discount_rate: Rate
    charged: Money
    from_bonus: Money


# --- calendar -------------------------------------------------------------------------------------------------------


class DayReached(Payload):
    """A program's verification day has begun in its time zone; one record for each of the topic's `partitions`."""

    type = "day.reached"
    program_id: Id
    date: str
    partition: int | None = None
    partitions: int | None = None


PAYLOADS: dict[str, type[Payload]] = {}


def register(*payloads: type[Payload]) -> None:
    """Make payload types known to `parse_event`."""
    for payload in payloads:
        PAYLOADS[payload.type] = payload


def _leaves(base: type[Payload]) -> list[type[Payload]]:
    return [leaf for sub in base.__subclasses__() for leaf in ([sub] if "type" in vars(sub) else _leaves(sub))]


register(*_leaves(Payload))


class Event(msgspec.Struct, frozen=True):
    """The CloudEvents envelope. `time` is the event time that every rule uses, in microseconds since 1970 UTC."""

    id: str
    source: str
    time: int
    data: Payload

    @property
    def type(self) -> str:
        return self.data.type


class Unreadable(ValueError):
    """A record that is no event. `reason` and `field` are what its dead letter says."""

    def __init__(self, reason: str, field: str = "", message: str = "") -> None:
        super().__init__(f"{reason} {field} {message}".strip())
        self.reason, self.field = reason, field


class UnknownType(Exception):
    """An event of a type that this version does not know: ignored and counted."""


class Envelope(BaseModel):
    """What a record must have before its type is looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    specversion: Literal["1.0"]
    id: Annotated[str, Field(strict=True, min_length=1)]
    source: Annotated[str, Field(strict=True, min_length=1)]
    type: Annotated[str, Field(strict=True, min_length=1)]
    time: Any = None
    data: Any = None


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def _unreadable(error: ValidationError, prefix: str) -> Unreadable:
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    reason = "time_without_offset" if isinstance(cause, NoOffset) else "invalid_field"
    return Unreadable(reason, _dotted((prefix, *first["loc"]) if prefix else first["loc"]), first["msg"])


def parse_event(value: bytes | None) -> Event:
    """The event in a record's value.

    Errors: Unreadable (not_json, not_cloudevent, time_without_offset, invalid_field) with the dotted field;
    UnknownType for a well-formed event of a type that is not ours.
    """
    try:
        raw = orjson.loads(value or b"")
    except orjson.JSONDecodeError as error:
        raise Unreadable("not_json", message=str(error)) from None
    _check_envelope(raw)
    payload, data = PAYLOADS.get(raw["type"]), raw.get("data")
    if payload is None:
        raise UnknownType(raw["type"])
    try:
        time = parse_instant(raw.get("time"))
    except NoOffset as error:
        raise Unreadable("time_without_offset", "time", str(error)) from None
    except ValueError as error:
        raise Unreadable("invalid_field", "time", str(error)) from None
    if type(data) is not dict:
        raise Unreadable("invalid_field", "data", "an event's data is an object")
    try:
        read = payload.__pydantic_validator__.validate_python(data, context=WIRE)
    except ValidationError as error:
        raise _unreadable(error, "data") from None
    return Event(raw["id"], raw["source"], time, read)


def _check_envelope(raw: Any) -> None:
    """Whether decoded JSON is a CloudEvent, as `Envelope` says: looked at by hand, it names the fault where one is."""
    if type(raw) is dict and raw.get("specversion") == "1.0":
        own, source, kind = raw.get("id"), raw.get("source"), raw.get("type")
        if own and source and kind and type(own) is type(source) is type(kind) is str:
            return
    try:
        Envelope.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise Unreadable("not_cloudevent", _dotted(first["loc"]), first["msg"]) from None


def event_json(event: Event, written: bytes | None = None) -> bytes:
    """The event as a record's value: CloudEvents 1.0, structured JSON, no field that holds nothing.

    `written`: the `data_json` of its data, where that is at hand.
    """
    envelope = orjson.dumps(
        {
            "specversion": "1.0",
            "id": event.id,
            "source": event.source,
            "type": event.type,
            "time": format_instant(event.time),
            "datacontenttype": "application/json",
        }
    )
    return b'%b,"data":%b}' % (envelope[:-1], written or data_json(event.data))


def data_json(data: Payload) -> bytes:
    """The data of an event as it stands in a record: in the order of its fields, no field that holds nothing."""
    if _is_open(type(data)):
        return orjson.dumps(data.model_dump(mode="json", exclude_none=True))
    return data.__pydantic_serializer__.to_json(data, exclude_none=True)


@cache
def _is_open(payload: type[Payload]) -> bool:
    """Whether a payload holds JSON of any shape (a program document, an answer's body)."""
    return any(field.annotation == dict[str, Any] for field in payload.model_fields.values())


REASONS_FOR_PAYMENTS: tuple[str, ...] = get_args(PaymentDecline)
"""Decline reasons in the order in which they are looked at: the first that holds is given."""
