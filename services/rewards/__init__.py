"""Rewards keeps what is not money: bonuses, credits and the claims on them, monthly discounts.

Reads `partners`, `payouts`, commission's `sales` and its own commands (by partner), `referrals` (by customer). Writes
`rewards`.

Monthly discounts have stages of their own: `people` (customers, payments, referrals, partners, actives, commands)
says who is an active referral and what a partner gets, `verifications` (partners, calendar, commands) when a month is
verified.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from schemas.programs import Programs
from services.rewards.people import PEOPLE
from services.rewards.rules import CUSTOMERS, WALLETS
from services.rewards.verifications import VERIFICATIONS
from services.runtime.settings import Settings
from services.runtime.stage import Stage


def stages(settings: Settings) -> tuple[Stage[Any, Any], ...]:
    """By partner: the wallet. By customer: the signup bonus. Monthly discounts: by person, and by program."""
    return (WALLETS, CUSTOMERS, PEOPLE, VERIFICATIONS)


def timers(settings: Settings, programs: Callable[[], Programs]) -> tuple[Callable[[], Awaitable[None]], ...]:
    """What the worker does by the clock: the days that verify a month."""
    from services.rewards.day_timer import DayTimer

    return (DayTimer(settings, programs).run,)
