"""What rewards remembers: per partner the bonuses, per customer whether the signup bonus was granted.

Times are microseconds since 1970 UTC, amounts minor units of the currency beside them.
"""

from msgspec import Struct


class Bonus(Struct, frozen=True, array_like=True):
    """A partner's bonus: usable until `expires_at`; it is no money and is never withdrawn."""

    bonus_id: str
    program_id: str
    currency: str
    granted_at: int
    minor: int
    remaining: int
    expires_at: int


class Wallet(Struct, frozen=True, array_like=True):
    """A partner's wallet. `programs`: those that the partner is active in."""

    programs: tuple[str, ...] = ()
    bonuses: tuple[Bonus, ...] = ()


class NewCustomer(Struct, frozen=True, array_like=True):
    """A referred customer. `bonus_id`: the signup bonus, once granted."""

    bonus_id: str = ""
