"""Payouts: what partners have earned, what they may take, and what they took.

Reads activations of partners, everybody's own accounts, commissions and its own commands; writes `payouts`; keyed by
partner id. Remembers one row per accrual, withdrawal, top-up and deposit, and running totals per program and currency.
"""

from typing import Any

from schemas.topics import COMMANDS_PAYOUTS, COMMISSIONS, CUSTOMERS, PARTNERS
from services.payouts.rules import row_ids, step
from services.payouts.state import Person, Row
from services.runtime.settings import Settings
from services.runtime.stage import Stage

LEDGER = Stage(
    name="payouts.ledger",
    reads=(PARTNERS, CUSTOMERS, COMMISSIONS, COMMANDS_PAYOUTS),
    empty=Person(),
    step=step,
    row=Row,
    row_ids=row_ids,
)
STAGES = (LEDGER,)


def stages(settings: Settings) -> tuple[Stage[Any, Any], ...]:
    """The stages of the service. Nothing here depends on a setting."""
    return STAGES
