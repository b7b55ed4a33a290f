"""What rewards shows of a partner's wallet. Pure."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.ids import Id
from schemas.moments import Instant
from schemas.money import Money
from services.rewards import bonuses
from services.rewards.state import Wallet


class CreditBalance(BaseModel):
    model_config = ConfigDict(frozen=True)
    program_id: Id
    balance: int = Field(description="whole credits; below 0 only after a refund")


class BonusShown(BaseModel):
    model_config = ConfigDict(frozen=True)
    bonus_id: Id
    program_id: Id
    remaining: Money
    expires_at: Instant


class WalletShown(BaseModel):
    """Credits and bonuses of one partner."""

    model_config = ConfigDict(frozen=True)
    credits: list[CreditBalance]
    bonuses: list[BonusShown] = Field(description="usable ones; an expired bonus is gone")


def wallet(state: Wallet, at: int) -> WalletShown:
    """The wallet at an instant: bonuses granted before it that expire after it."""
    usable = [bonus for bonus in state.bonuses if bonus.granted_at < at < bonus.expires_at]
    return WalletShown(
        credits=[],
        bonuses=[
            BonusShown(
                bonus_id=bonus.bonus_id,
                program_id=bonus.program_id,
                remaining=Money(minor=bonuses.remaining(bonus, at), currency=bonus.currency),
                expires_at=bonus.expires_at,
            )
            for bonus in sorted(usable, key=lambda bonus: (bonus.expires_at, bonus.bonus_id))
        ],
    )
