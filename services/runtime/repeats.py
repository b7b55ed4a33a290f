"""Repeats: an event is identified by its type and business id, and counts once per key.

The same content again changes nothing; other content under the same id is a conflict, of which the first holds.
Source: contract.md, Repeats.
"""

import hashlib
from enum import Enum

from schemas import events
from schemas.events import Event, data_json

Seen = dict[bytes, bytes]
"""Per key: digest of an event's identity → digest of its content (8 bytes each)."""


class Repeat(Enum):
    NEW = "new"
    SAME = "same"
    CONFLICT = "conflict"


def _digest(told: bytes) -> bytes:
    return hashlib.blake2b(told, digest_size=8).digest()


def identity(event: Event) -> str:
    """What makes two events the same one. A subscription step, or a failed payment: type, id and time."""
    match event.data:
        case events.PaymentSucceeded(payment_id=own) | events.PaymentPending(payment_id=own):
            pass
        case events.PaymentRefunded(refund_id=own):
            pass
        case events.PaymentDisputed(dispute_id=own) | events.DisputeClosed(dispute_id=own):
            pass
        case events.PaymentFailed(payment_id=own):
            own = f"{own}@{event.time}"
        case (
            events.TrialStarted(subscription_id=own)
            | events.SubscriptionActivated(subscription_id=own)
            | events.SubscriptionChanged(subscription_id=own)
            | events.SubscriptionCancelled(subscription_id=own)
        ):
            own = f"{own}@{event.time}"
        case events.AccountCreated(account_id=own) | events.AccountClosed(account_id=own):
            pass
        case events.CustomerSignedUp(customer_id=own):
            pass
        case _:
            own = event.id
    return f"{event.type}|{own}"


def content(event: Event) -> bytes:
    """What a repeat must say again: the time and the data, as refstream would write them."""
    return b"%d|%b" % (event.time, data_json(event.data))


def forgotten(seen: Seen, event: Event) -> Seen:
    """What has been seen without an event that cannot count: it may come again, mended, under the same id."""
    mark = _digest(identity(event).encode())
    return {each: told for each, told in seen.items() if each != mark}


def judge(seen: Seen, event: Event) -> tuple[Repeat, Seen]:
    """Whether the event is new, a repeat or a conflict; and what has been seen then."""
    mark, told = _digest(identity(event).encode()), _digest(content(event))
    before = seen.get(mark)
    if before is None:
        return Repeat.NEW, {**seen, mark: told}
    return (Repeat.SAME if before == told else Repeat.CONFLICT), seen
