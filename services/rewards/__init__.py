"""Rewards keeps what is not money: bonuses now, credits, claims and monthly discounts on the same stages.

Reads `partners` and `payouts` (by partner) and `referrals` (by customer). Writes `rewards`.
"""

from typing import Any

from services.rewards.rules import CUSTOMERS, WALLETS
from services.runtime.settings import Settings
from services.runtime.stage import Stage


def stages(settings: Settings) -> tuple[Stage[Any, Any], ...]:
    """By partner: the wallet. By customer: the signup bonus."""
    return (WALLETS, CUSTOMERS)
