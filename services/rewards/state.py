"""What rewards remembers: per partner the bonuses, per customer whether the signup bonus was granted.

Times are microseconds since 1970 UTC, amounts minor units of the currency beside them.
"""

from msgspec import Struct


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


class Wallet(Struct, frozen=True, array_like=True):
    """A partner's wallet. `programs`: those that the partner is active in.

    `unsettled`: (program, currency, use) of bonuses whose grant has not been read yet. `payouts_until`: the latest time
    of a payouts event.
    """

    programs: tuple[str, ...] = ()
    bonuses: tuple[Bonus, ...] = ()
    unsettled: tuple[tuple[str, str, BonusUse], ...] = ()
    payouts_until: int = 0


class NewCustomer(Struct, frozen=True, array_like=True):
    """A referred customer. `bonus_id`: the signup bonus, once granted."""

    bonus_id: str = ""
