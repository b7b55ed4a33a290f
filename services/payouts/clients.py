"""Whose client a customer is (stage `payouts.clients`), for the ledger to look at when a partner pays for one.

Shape: referral.attributed → the customer's partner, once; whatever comes later changes nothing.
Source: programs.md, message-help ("The client must not be bound to another partner") and Binding.
"""

import msgspec

from schemas.events import Event, ReferralAttributed
from schemas.topics import REFERRALS
from services.runtime.stage import Change, Context, Stage


class Client(msgspec.Struct, frozen=True, omit_defaults=True):
    """A customer. `partner_id`: whom the customer is bound to, empty while nobody."""

    partner_id: str = ""


def step(context: Context[Client], state: Client, event: Event) -> Change[Client, Client]:
    """Learn a binding. Errors: none."""
    match event.data:
        case ReferralAttributed(partner_id=partner_id) if not state.partner_id:
            return Change(Client(partner_id))
        case _:
            return Change()


CLIENTS: Stage[Client, Client] = Stage("payouts.clients", reads=(REFERRALS,), empty=Client(), step=step)
