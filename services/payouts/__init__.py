"""Payouts: what partners have earned, what they may take, and what they took.

The ledger reads activations of partners, everybody's own accounts, who is forgotten, commissions, bonuses and its own
commands; writes `payouts` and the internal `client-payments`; keyed by partner id. Remembers one row per accrual,
withdrawal, top-up, deposit and client payment, and running totals per program and currency. `payouts.clients` reads
`referrals`, keyed by customer id, and remembers whose client each is.
"""

from typing import Any

from schemas.topics import COMMANDS_PAYOUTS, COMMISSIONS, CUSTOMERS, FORGOTTEN, PARTNERS, REWARDS
from services.payouts.clients import CLIENTS
from services.payouts.rules import row_ids, step
from services.payouts.state import Person, Row, WithdrawalRow
from services.runtime.settings import Settings
from services.runtime.stage import Stage

LEDGER = Stage(
    name="payouts.ledger",
    reads=(PARTNERS, CUSTOMERS, FORGOTTEN, COMMISSIONS, REWARDS, COMMANDS_PAYOUTS),
    empty=Person(),
    step=step,
    row=Row,
    row_ids=row_ids,
    personal=(WithdrawalRow,),
)
STAGES: tuple[Stage[Any, Any], ...] = (LEDGER, CLIENTS)


def stages(settings: Settings) -> tuple[Stage[Any, Any], ...]:
    """The stages of the service. Nothing here depends on a setting."""
    return STAGES
