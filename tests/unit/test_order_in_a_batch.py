"""A batch of sales is folded in order of time: a backlog that comes partition after partition makes no corrections.

Six clients of a partner pay one after the other, so the sixth payment earns keycrm's second rate and the first five its
first one. Source: programs.md, keycrm; contract.md, Order.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from schemas.events import Event, event_json, parse_event
from schemas.internal import SaleStated
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import Programs, shipped
from schemas.topics import COMMISSIONS, SALES
from services.commission.partners import PARTNERS
from services.runtime.cell import Cell
from services.runtime.codec import Codec
from services.runtime.memory import MemoryStore
from services.runtime.stage import Record

START = parse_instant("2025-03-01T00:00:00Z")


def _stated(client: int, day: int, caused_by: str = "paid", reasons: tuple[str, ...] = ()) -> Event:
    at = START + day * DAY
    said = SaleStated(
        payment_id=f"p{client}",
        customer_id=f"c{client}",
        partner_id="ann",
        program_id="keycrm",
        program_version=1,
        paid_at=at,
        base=Money(minor=10_000, currency="USD"),
        reasons=reasons,  # type: ignore[arg-type]
        available_at=at,
        caused_by=caused_by,
    )
    return Event(f"{caused_by}-p{client}", "/commission.sales", at, said)


def _said(events: Sequence[Event], batch: int) -> list[Any]:
    """What the partner's stage says on `commissions`, in order, of statements that come in batches of a size."""

    async def run() -> list[Any]:
        programs, stages = Programs.of(*shipped()), {PARTNERS.name: PARTNERS}
        cell = Cell(PARTNERS, 0, 1, MemoryStore(), lambda: programs, stages, Codec())
        await cell.open()
        records = [Record(SALES.name, 0, at, b"ann", event_json(event)) for at, event in enumerate(events)]
        outgoing = []
        for start in range(0, len(records), batch):
            outgoing += await cell.fold(SALES.name, records[start : start + batch])
        return [parse_event(out.value).data for out in outgoing if out.topic == COMMISSIONS.name]

    return asyncio.run(run())


def test_a_backlog_out_of_order_makes_no_corrections() -> None:
    late_first = [_stated(client, day=client) for client in (4, 5, 6, 1, 2, 3)]
    said = _said(late_first, batch=6)
    assert [(each.payment_id, str(each.rate)) for each in said if each.type == "commission.accrued"] == [
        ("p1", "0.10"),
        ("p2", "0.10"),
        ("p3", "0.10"),
        ("p4", "0.10"),
        ("p5", "0.10"),
        ("p6", "0.20"),
    ]
    assert not [each for each in said if each.type == "commission.adjusted"]
    one_by_one = _said(late_first, batch=1)
    assert "commission.adjusted" in {each.type for each in one_by_one}, "so the batch's order is what spares them"


def test_what_is_said_of_one_payment_holds_in_its_own_order() -> None:
    """A payment that a partner made and that the platform dates earlier is stated again, under the earlier time."""
    said = _said([_stated(1, day=20), _stated(2, day=15), _stated(1, day=10, caused_by="dated")], batch=3)
    of_the_first = [each for each in said if each.payment_id == "p1"]
    assert of_the_first[-1].standing.accrued_at == START + 10 * DAY
