"""Rewards keeps what is not money: bonuses, credits and the claims on them.

Reads `partners`, `payouts`, commission's `sales` and its own commands (by partner), `referrals` (by customer). Writes
`rewards`.
"""

from typing import Any

from services.rewards.rules import CUSTOMERS, WALLETS
from services.runtime.settings import Settings
from services.runtime.stage import Stage


def stages(settings: Settings) -> tuple[Stage[Any, Any], ...]:
    """By partner: the wallet. By customer: the signup bonus."""
    return (WALLETS, CUSTOMERS)
