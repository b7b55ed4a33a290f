"""Commands: what the HTTP APIs write to their service's command topic, and the answers that the folds give.

A command is an event like any other (`command.…`), keyed by whom it concerns, so it is decided in the log's order.
`Answer` is the decision: the HTTP status and body that the caller gets, now and whenever the same key is sent again.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.events import Interval, Payload, register
from schemas.ids import Id
from schemas.moments import Instant
from schemas.money import Charge, Money


class Command(Payload):
    """What every command carries. `body_hash` tells a repeat from another body under the same Idempotency-Key."""

    command_id: str
    body_hash: str
    caller: str = Field(description="role and subject of the token, like partner:p-1")
    partner_id: Id


class UnderTerms(Command):
    """A command that is decided by a program's terms, those in force at its time.

    `program_version`: the latest version that the API knew; the fold decides no earlier than it knows that one.
    """

    program_id: Id
    program_version: int | None = None


# --- attribution ----------------------------------------------------------------------------------------------------


class ActivatePartner(UnderTerms):
    type = "command.activate_partner"
    accepted_terms: bool
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    activated_at: Instant | None = None


class CreateLink(UnderTerms):
    """`public_url` is the address that the link's URL begins with, as it was when the partner asked.

    `seed` is what the code derives from: a hash of the command's id with a secret of the API, so that each sending of
    the command asks for the same code, and nobody can reckon it.
    """

    type = "command.create_link"
    destination: str | None = None
    public_url: str
    seed: str | None = None


class CreatePromoCode(UnderTerms):
    """`seed`: as of a link, for a partner who names no `code`."""

    type = "command.create_promo_code"
    code: str | None = None
    seed: str | None = None


class OrderAccounts(UnderTerms):
    type = "command.order_accounts"
    account_ids: tuple[Id, ...]
    effective_at: Instant | None = None


class RequestRetention(UnderTerms):
    type = "command.request_retention"
    customer_id: Id
    evidence: str


class SettleRetention(Command):
    type = "command.settle_retention"
    claim_id: Id
    approve: bool
    reason: str | None = None


class PublishProgram(Command):
    """`partner_id` holds the program id here: a program is published in the log's order of its own key."""

    type = "command.publish_program"
    document: dict[str, Any]
    only_first: bool = False


# --- rewards --------------------------------------------------------------------------------------------------------


class RequestClaim(UnderTerms):
    type = "command.request_claim"
    provider: str


class SettleClaim(Command):
    type = "command.settle_claim"
    claim_id: Id
    fulfil: bool


class VerifyMonth(Command):
    """`partner_id` holds the program id here: a month is verified for all of its partners. `month`: like 2026-02."""

    type = "command.verify_month"
    month: str


class UseDiscount(Command):
    """An invoice takes the discount that its account has; `partner_id` is the account's owner."""

    type = "command.use_discount"
    account_id: Id
    invoice_id: Id
    issued_at: Instant
    amount: Charge


# --- payouts --------------------------------------------------------------------------------------------------------


class RequestWithdrawal(UnderTerms):
    type = "command.request_withdrawal"
    amount: Money
    destination: Annotated[str, Field(min_length=4, max_length=256)]
    comment: str | None = None


class SettleWithdrawal(Command):
    type = "command.settle_withdrawal"
    withdrawal_id: Id
    outcome: Literal["paid", "rejected", "cancelled"]
    reason: str | None = None


class RequestTopup(UnderTerms):
    type = "command.request_topup"
    account_id: Id
    amount: Money


class RequestDeposit(UnderTerms):
    type = "command.request_deposit"
    amount: Money
    method: Literal["card", "invoice"]


class ConfirmDeposit(Command):
    type = "command.confirm_deposit"
    deposit_id: Id


class PayForClient(UnderTerms):
    type = "command.pay_for_client"
    customer_id: Id
    account_id: Id | None = None
    integration: str
    interval: Interval
    list_price: Charge
    use_bonus: bool = False


class Answered(Payload):
    """A command's decision, kept on the log so that a rebuild repeats it instead of deciding again."""

    type = "command.answered"
    command_id: str
    body_hash: str
    caller: str
    status: int
    body: dict[str, Any]


register(
    ActivatePartner,
    CreateLink,
    CreatePromoCode,
    OrderAccounts,
    RequestRetention,
    SettleRetention,
    PublishProgram,
    RequestClaim,
    SettleClaim,
    VerifyMonth,
    UseDiscount,
    RequestWithdrawal,
    SettleWithdrawal,
    RequestTopup,
    RequestDeposit,
    ConfirmDeposit,
    PayForClient,
    Answered,
)
