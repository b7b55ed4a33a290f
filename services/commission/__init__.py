"""Commission reacts to payments: who earns, at what rate, for how long; and takes it back on refunds.

Reads customers, payments, referrals and client payments (by customer) and its own `sales` (by partner).
Writes `commissions`.
"""

from typing import Any

from services.commission.partners import PARTNERS
from services.commission.sales import SALES
from services.runtime.settings import Settings
from services.runtime.stage import Stage


def stages(settings: Settings) -> tuple[Stage[Any, Any], ...]:
    """By customer: what each payment is. By partner: what it is worth."""
    return (SALES, PARTNERS)
