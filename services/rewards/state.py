"""What rewards remembers: per partner bonuses, purchases, claims; per customer whether the signup bonus was granted.

Times are microseconds since 1970 UTC, amounts minor units of the currency beside them, credits whole.
"""

from typing import Literal

from msgspec import Struct

ClaimStatus = Literal["requested", "fulfilled", "failed"]


class BonusUse(Struct, frozen=True, array_like=True):
    """A part of a bonus that paid for a client."""

    at: int
    minor: int
    payment_id: str
    customer_id: str


class Bonus(Struct, frozen=True, array_like=True):
    """A partner's bonus: usable until `expires_at`; it is no money and is never withdrawn.

    `uses`: what was paid from it, adding up to `minor − remaining`. `expired`: the end was said.
    """

    bonus_id: str
    program_id: str
    currency: str
    granted_at: int
    minor: int
    remaining: int
    expires_at: int
    uses: tuple[BonusUse, ...] = ()
    expired: bool = False


class Purse(Struct, frozen=True, array_like=True):
    """Credits of one program. `entries`: how many credited purchases and claims make the balance up."""

    balance: int = 0
    entries: int = 0


class Wallet(Struct, frozen=True, array_like=True):
    """A partner's wallet. `programs`: those that the partner is active in.

    `unsettled`: (program, currency, use) of bonuses whose grant has not been read yet. `payouts_until`: the latest time
    of a payouts event. `purses`: by program, where there are credits.
    """

    programs: tuple[str, ...] = ()
    bonuses: tuple[Bonus, ...] = ()
    unsettled: tuple[tuple[str, str, BonusUse], ...] = ()
    payouts_until: int = 0
    purses: dict[str, Purse] = {}


# --- rows of a wallet -----------------------------------------------------------------------------------------------


class Taken(Struct, frozen=True, array_like=True):
    """What a refund or a lost dispute (`id`) takes back."""

    id: str
    at: int
    credits: int
    reason: Literal["refund", "dispute_lost"]

    @property
    def cause(self) -> str:
        """Which fact it is: a refund and a dispute may have the same id."""
        return f"{self.reason}|{self.id}"


class Told(Struct, frozen=True, array_like=True):
    """What was last said of a purchase. `turn` counts the sayings; `left` is what granted − reversed come to."""

    turn: int = 0
    granted: bool = False
    credits: int = 0
    taken: dict[str, int] = {}
    left: int = 0


class Purchase(Struct, frozen=True, array_like=True, tag="purchase"):
    """A purchase as its customer's facts state it. `credits`: None when it earns none any more."""

    payment_id: str
    customer_id: str
    program_id: str
    paid_at: int
    credits: int | None
    taken: tuple[Taken, ...] = ()
    told: Told = Told()

    @property
    def left(self) -> int:
        return 0 if self.credits is None else self.credits - sum(part.credits for part in self.taken)


class Claim(Struct, frozen=True, array_like=True, tag="claim"):
    """`credits` were taken for `gb` GB of a provider; given back when the claim fails."""

    claim_id: str
    program_id: str
    provider: str
    gb: int
    credits: int
    requested_at: int
    status: ClaimStatus = "requested"
    settled_at: int | None = None


Row = Purchase | Claim


def purchase_row(payment_id: str) -> str:
    return f"p:{payment_id}"


def claim_row(claim_id: str) -> str:
    """The row of a claim, and the name under which its partner is found."""
    return f"claim:{claim_id}"


# --- a customer (stage rewards.customers) ---------------------------------------------------------------------------


class NewCustomer(Struct, frozen=True, array_like=True):
    """A referred customer. `bonus_id`: the signup bonus, once granted."""

    bonus_id: str = ""
