"""The decision record names the event that changed it, over the real folds.

Source: contract.md, Order: the decision record shows what changed it.
"""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from services.commission.api import create_app
from services.runtime.simulate import MemoryReader
from tests.http_fakes import bearer, resources_over, settings
from tests.journey import Journey, journeys
from tests.worlds import world


def _changed_by(journey: Journey, payment: str) -> str:
    """What the record of a payment names, once the whole journey is folded."""
    made = world()
    for phase in journey.phases():
        made.publish(*phase)
        made.run()
    reader: Any = MemoryReader(made)
    with TestClient(create_app(settings(), resources_over(reader, programs=made.programs))) as client:
        answer = client.get(f"/commission/payments/{journey.name}.{payment}/decision", headers=bearer("platform", "x"))
    return str(answer.json()["inputs"]["changed_by"])


def _journey(name: str) -> Journey:
    return next(journey for journey in journeys() if journey.name == name)


@pytest.mark.parametrize(
    ("name", "payment"),
    [
        ("keycrm-late-client-moves-the-tier", "p7"),
        ("keycrm-first-account-known-late", "p1"),
        ("jupsoft-first-product", "p2"),
        ("proxy-credits-earlier-purchase-comes-late", "p2"),
    ],
)
def test_what_arrives_late_and_changes_a_payments_decision_is_named_there(name: str, payment: str) -> None:
    journey = _journey(name)
    late = [event for phase in journey.phases() for event in phase][-1]
    assert _changed_by(journey, payment) == late.id


@pytest.mark.parametrize("payment", ["p1", "p5"])
def test_a_payment_that_nothing_changed_names_its_own_event(payment: str) -> None:
    journey = _journey("keycrm-late-client-moves-the-tier")
    payment_id = f"{journey.name}.{payment}"
    paid = next(e for phase in journey.phases() for e in phase if getattr(e.data, "payment_id", "") == payment_id)
    assert _changed_by(journey, payment) == paid.id
