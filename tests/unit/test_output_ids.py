"""Events that say different things have different ids, whatever ids the platform gives its own.

Source: contract.md, Repeats ("by its type and business id, not by the event's `id`") and "Output ids derive from what
caused them".
"""

from collections import Counter

from schemas import events
from schemas.events import Event, Payload
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from services.runtime.simulate import World
from tests.worlds import told, trail_adds_up, world

START = parse_instant("2025-03-01T00:00:00Z")


def _bound(program_id: str) -> Payload:
    return events.ReferralAttributed(
        customer_id="c1",
        partner_id="ann",
        program_id=program_id,
        program_version=1,
        method="click",
        attributed_at=START,
    )


def _paid(payment_id: str, product_id: str) -> Payload:
    amount = Money(minor=20_000, currency="USD")
    return events.PaymentSucceeded(payment_id=payment_id, customer_id="c1", product_id=product_id, amount=amount)


def _played(*facts: tuple[str, str, Payload, int]) -> World:
    """Each fact (id, source, data, day) is folded before the next comes."""
    made = world(partitions=1)
    for own, source, data, day in facts:
        made.publish(Event(own, source, START + day * DAY, data))
        made.run()
    return made


def test_events_that_the_platform_gives_one_id_cause_events_of_several() -> None:
    first, earlier = (events.AccountCreated(customer_id="c1", account_id=own) for own in ("a1", "a2"))
    made = _played(("bound", "/attribution", _bound("keycrm"), 0), ("same", "/p", first, 9), ("same", "/p", earlier, 5))
    ids = [event["id"] for event in told(made, "commissions") if event["type"] == "activity.changed"]
    assert len(ids) == len(set(ids)) == 3, "of the binding, and of both accounts"


def test_a_refund_of_what_accrues_once_more_is_taken_back_as_something_new() -> None:
    """p2 accrues, is refunded in part, declined for an earlier product, and accrues again for a still earlier one."""
    refund = events.PaymentRefunded(
        payment_id="p2", customer_id="c1", refund_id="r", amount=Money(minor=5_000, currency="USD")
    )
    made = _played(
        ("bound", "/attribution", _bound("jupsoft"), 0),
        ("p2", "/p", _paid("p2", "erp"), 30),
        ("r", "/p", refund, 31),
        ("p1", "/p", _paid("p1", "hrm"), 20),
        ("p0", "/p", _paid("p0", "erp"), 10),
    )
    kinds = Counter(event["type"] for event in told(made, "commissions") if event["data"].get("payment_id") == "p2")
    assert kinds["commission.accrued"] == 2
    said = [event["data"] for event in told(made, "commissions") if event["type"] == "commission.reversed"]
    reversals = [data["reversal_id"] for data in said]
    assert len(reversals) == len(set(reversals))
    trail_adds_up(made)
