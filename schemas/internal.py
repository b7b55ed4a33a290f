"""Events between refstream's own stages, on internal topics. No platform reads them; they may change with a version."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.events import Hold, Interval, Method, Payload, PaymentDecline, register
from schemas.ids import Id
from schemas.moments import Instant
from schemas.money import Money, Rate


class TakenBack(BaseModel):
    """A refund, or a lost dispute, of a payment: `minor` of what was paid, at an instant.

    `credits`: what it takes back of the credits that the payment earned, 0 where rounding leaves nothing.
    """

    model_config = ConfigDict(frozen=True)
    id: Id
    at: Instant
    minor: Annotated[int, Field(ge=0)]
    reason: Literal["refund", "dispute_lost"]
    credits: Annotated[int, Field(ge=0)] | None = None


class SaleStated(Payload):
    """How one payment stands for its partner, as far as its customer's facts decide: the whole of it, each time.

    The partner's stage adds what depends on the partner's other clients (the rate) and says the difference to before.
    `left_at`: the customer left before the hold ended, what was left of the accrual then is taken back.
    `credits`: whole credits that the payment earns instead of money (0 counts as earned); none: no credits.
    """

    type = "sale.stated"
    payment_id: Id
    customer_id: Id
    account_id: Id | None = None
    partner_id: Id
    program_id: Id
    program_version: int
    paid_at: Instant
    base: Money
    reasons: tuple[PaymentDecline, ...] = ()
    available_at: Instant
    taken_back: tuple[TakenBack, ...] = ()
    left_at: Instant | None = None
    holds: tuple[Hold, ...] = ()
    credits: Annotated[int, Field(ge=0)] | None = None
    caused_by: str  # last: two statements are the same where all before it is


class CodeRequested(Payload):
    """A partner asks for a code (a link's or a promo code); the code's own key decides who was first."""

    type = "code.requested"
    code: str
    kind: Literal["link", "promo_code"]
    partner_id: Id
    program_id: Id
    destination: str | None = None
    url: str | None = None
    shown: str | None = Field(None, description="a promo code as the partner wrote it; `code` is what is compared")
    command_id: str
    body_hash: str
    caller: str


class ReferralListed(Payload):
    """A customer was bound to a partner: an entry of the partner's list of referrals.

    `method`: how; after a retention the signup is not one that the partner brought.
    """

    type = "referral.listed"
    partner_id: Id
    program_id: Id
    customer_id: Id
    attributed_at: Instant
    signed_up_at: Instant
    method: Method | None = None


class ClickCounted(Payload):
    """A recorded click, on its way from the visitor's key to the partner's statistics."""

    type = "click.counted"
    partner_id: Id
    program_id: Id
    clicked_at: Instant


class BindingRequested(Payload):
    """An approved retention asks for the customer; the customer's own key decides whether it is free."""

    type = "binding.requested"
    claim_id: Id
    partner_id: Id
    program_id: Id
    program_version: int
    customer_id: Id
    command_id: str
    body_hash: str
    caller: str


class PersonForgotten(Payload):
    """A person is to be forgotten for good. `profiles` is compacted and may lose that; this record stays."""

    type = "person.forgotten"
    person_id: Id


class ClientPaid(Payload):
    """A partner paid for a client, on its way to the client's key: such a payment earns no commission.

    `bound`: the client was bound to the partner when payouts decided, so the binding is on its way to every reader.
    """

    type = "client.paid"
    payment_id: Id
    customer_id: Id
    account_id: Id | None = None
    partner_id: Id
    program_id: Id
    program_version: int
    integration: str
    interval: Interval
    list_price: Money
    discount_rate: Rate
    charged: Money
    from_bonus: Money
    bound: bool


class ReferralActivity(Payload):
    """When a referral of a program with a monthly discount is active: all its half-open spans, each time."""

    type = "referral.activity"
    partner_id: Id
    program_id: Id
    customer_id: Id
    active: tuple[tuple[Instant, Instant | None], ...]


class VerificationDue(Payload):
    """A month is to be verified for one partner, as of an instant."""

    type = "verification.due"
    partner_id: Id
    program_id: Id
    month: str
    as_of: Instant


class VerificationStarted(Payload):
    """One of `partitions` cells has asked all its partners, `partners` of them, to verify a month."""

    type = "verification.started"
    program_id: Id
    month: str
    partition: int
    partitions: int
    partners: int


class VerifiedDiscount(BaseModel):
    """What a verification gave to one account, or what lapsed at it."""

    model_config = ConfigDict(frozen=True)
    account_id: Id
    month: str
    percent: int
    referrals_counted: int


class VerificationDone(Payload):
    """One partner's month as it was decided, the whole of it, so that a rebuild need not decide again."""

    type = "verification.done"
    partner_id: Id
    program_id: Id
    month: str
    as_of: Instant
    active_referrals: int
    assigned: tuple[VerifiedDiscount, ...] = ()
    lapsed: tuple[VerifiedDiscount, ...] = ()
    withheld: bool = False


register(
    SaleStated,
    CodeRequested,
    ReferralListed,
    ClickCounted,
    BindingRequested,
    PersonForgotten,
    ClientPaid,
    ReferralActivity,
    VerificationDue,
    VerificationStarted,
    VerificationDone,
)
