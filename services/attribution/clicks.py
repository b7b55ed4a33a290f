"""The stage `attribution.clicks`: hands every recorded click on to its partner's statistics, once."""

from schemas import events, internal
from schemas.events import Event
from schemas.ids import derived_id
from services.attribution.state import Visitor
from services.runtime.stage import Change, Context, Emit

REMEMBERED = 16
"""Clicks of a visitor whose ids are kept: the API may write one twice when Kafka's reply to the first try got lost."""


def step(context: Context[Visitor], state: Visitor, event: Event) -> Change[Visitor, Visitor]:
    """Shape: one ClickRecorded → one ClickCounted, keyed by the partner. Errors: none."""
    match event.data:
        case events.ClickRecorded(partner_id=partner_id, program_id=program_id) if event.id not in state.recent:
            counted = internal.ClickCounted(partner_id=partner_id, program_id=program_id, clicked_at=event.time)
            return Change(
                state=Visitor(recent=(*state.recent, event.id)[-REMEMBERED:]),
                emits=(Emit(derived_id("counted", event.id), event.time, counted),),
            )
        case _:
            return Change()
