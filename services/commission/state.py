"""What commission remembers: per customer the facts that decide a payment, per partner the sales and the clients.

Times are microseconds since 1970 UTC, amounts minor units of the currency beside them.
"""

from typing import Literal

from msgspec import Struct

from schemas.ids import derived_id
from services.runtime.repeats import Seen

Place = tuple[int, str]
"""A place in time: the instant and, for ties, the business id."""


def commission_id(payment_id: str) -> str:
    """One commission per payment, whoever earns it and however often it is decided anew."""
    return derived_id("com", payment_id)


# --- a customer (stage commission.sales) -----------------------------------------------------------------------------


class Account(Struct, frozen=True, array_like=True):
    account_id: str
    created_at: int


class SubscriptionStep(Struct, frozen=True, array_like=True):
    """One step of a subscription's life. `interval` and `product_id` where the step names them."""

    subscription_id: str
    at: int
    kind: Literal["trial", "activated", "upgrade", "downgrade", "cancelled"]
    product_id: str | None = None
    interval: str | None = None
    trial_ends_at: int | None = None


class Refund(Struct, frozen=True, array_like=True):
    refund_id: str
    at: int
    minor: int


class Dispute(Struct, frozen=True, array_like=True):
    """`closed_at` and `won` once it has ended."""

    dispute_id: str
    opened_at: int
    minor: int
    closed_at: int | None = None
    won: bool = False


class PaidByPartner(Struct, frozen=True, array_like=True):
    """A partner paid for the customer. `bound`: the customer was bound to that partner then, as payouts knew."""

    partner_id: str
    program_id: str
    program_version: int
    integration: str
    currency: str
    list_minor: int
    discount_rate: str
    charged_minor: int
    from_bonus_minor: int
    bound: bool


class Payment(Struct, frozen=True, array_like=True):
    """A successful payment. `caused_by`: the id of the event that changed it last.

    `paid_by`: where a partner paid it from the partner account; what the platform says of the same payment holds then.
    """

    payment_id: str
    at: int
    minor: int
    currency: str
    caused_by: str
    account_id: str | None = None
    subscription_id: str | None = None
    product_id: str | None = None
    product_family: str | None = None
    provider: str | None = None
    quantity_gb: str | None = None
    interval: str | None = None
    refunds: tuple[Refund, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    paid_by: PaidByPartner | None = None

    @property
    def place(self) -> Place:
        return (self.at, self.payment_id)


class Binding(Struct, frozen=True, array_like=True):
    """What attribution decided. `partner_id` is empty for a declined signup."""

    partner_id: str
    program_id: str
    program_version: int
    attributed_at: int
    caused_by: str


class Parked(Struct, frozen=True, array_like=True):
    """A record that waits for its payment (or a dispute's end for its beginning), as it came."""

    payment_id: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    appended_at: int


class Customer(Struct, frozen=True, array_like=True):
    """All facts of one customer. `told`: payment id → digest of what was last said of it."""

    binding: Binding | None = None
    signed_up_at: int | None = None
    accounts: tuple[Account, ...] = ()
    steps: tuple[SubscriptionStep, ...] = ()
    payments: dict[str, Payment] = {}
    parked: tuple[Parked, ...] = ()
    seen: Seen = {}
    told: dict[str, bytes] = {}
    told_earning: bytes = b""


# --- a partner (stage commission.partners) ---------------------------------------------------------------------------


class TakenBackPart(Struct, frozen=True, array_like=True):
    id: str
    at: int
    minor: int
    reason: Literal["refund", "dispute_lost"]
    credits: int | None = None

    @property
    def cause(self) -> str:
        """Which fact it is: a refund and a dispute may have the same id."""
        return f"{self.reason}|{self.id}"


class Said(Struct, frozen=True, array_like=True):
    """What was last said of a payment's commission. `turn` counts the sayings; `reason` is why it was declined.

    `reversals`: what took something back → when, and how much; `refunded`: how much of the base that was. `accruals`:
    how often it accrued, each time but the first after a decline.
    """

    turn: int = 0
    accrued: bool = False
    reason: str | None = None
    rate: str = "0"
    amount: int = 0
    available_at: int = 0
    reversals: dict[str, tuple[int, int]] = {}
    refunded: int = 0
    holds: tuple[tuple[int, int | None], ...] = ()
    accruals: int = 0

    @property
    def left(self) -> int:
        return self.amount - sum(minor for _, minor in self.reversals.values())


class Sale(Struct, frozen=True, array_like=True, tag="sale"):
    """One payment as its customer's facts state it, and what was said of it.

    `credits`: what it earns instead of money, if so; said on the topic `rewards`, by rewards. `changed_by`: the id of
    the event that changed an earlier decision last, None where there was one decision only.
    """

    payment_id: str
    customer_id: str
    account_id: str | None
    program_id: str
    program_version: int
    paid_at: int
    minor: int
    currency: str
    reasons: tuple[str, ...]
    available_at: int
    taken_back: tuple[TakenBackPart, ...]
    left_at: int | None
    holds: tuple[tuple[int, int | None], ...]
    said: Said = Said()
    credits: int | None = None
    changed_by: str | None = None

    @property
    def place(self) -> Place:
        return (self.paid_at, self.payment_id)

    @property
    def accrues(self) -> bool:
        return not self.reasons and self.credits is None


class Client(Struct, frozen=True, array_like=True, tag="client"):
    """A paying client under one program: the place of the first payment that accrued."""

    program_id: str
    customer_id: str
    first: Place


class Ladder(Struct, frozen=True, array_like=True):
    """A partner's paying clients under one program, as far as rates need them.

    `begins`: with how many clients a tier begins, the lowest aside, in order, under any version that priced a sale;
    `firsts`: the earliest clients' places in order, as many as the highest of those (`depth`); `latest`: the latest
    place of any sale that accrued; `reached`: the highest tier that was told.
    """

    begins: tuple[int, ...] = ()
    clients: int = 0
    firsts: tuple[Place, ...] = ()
    latest: Place = (0, "")
    reached: int = 1

    @property
    def depth(self) -> int:
        return self.begins[-1] if self.begins else 0


class Partner(Struct, frozen=True, array_like=True):
    """`programs`: those that the partner is active in; `ladders`: by program, where there were sales."""

    ladders: dict[str, Ladder] = {}
    programs: tuple[str, ...] = ()


Row = Sale | Client
