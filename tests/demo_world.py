"""The demo's made-up platform, folded in memory by the real stages."""

from collections.abc import Sequence
from dataclasses import replace

from schemas.commands import ActivatePartner, CreateLink
from schemas.events import Event, Payload, parse_event
from schemas.moments import parse_instant
from services.attribution.codes import LINK_BYTES, derived_code
from services.cli.demo.data import HOUR, Click, Customer, History, arrived, history
from services.cli.demo.lines import customer_lines, partner_lines
from services.runtime.simulate import World
from tests.worlds import world

NOW = parse_instant("2026-02-03T04:05:06Z")


def made_up(seed: int = 1, customers: int = 200, visitors: int = 10, run: str = "dtest") -> History:
    return history(seed=seed, customers=customers, visitors=visitors, now=NOW, run=run)


def codes_of(past: History) -> dict[str, str]:
    """The codes of the partners' links, as `folded` creates them."""
    return {p.partner_id: derived_code(f"link-{p.partner_id}", LINK_BYTES) for p in past.partners}


def everybody(past: History) -> tuple[Customer, ...]:
    """The customers, with the visitors among them: here their clicks come as a list, like a platform's own."""
    came = []
    for visitor in past.visitors:
        clicks = [Click(partner_id, NOW - HOUR + at) for at, partner_id in enumerate(visitor.partner_ids)]
        came.append(replace(arrived(past, visitor, clicks, "", NOW), click_token=None))
    return (*past.customers, *came)


def folded(past: History, customers: Sequence[Customer], seed: int = 0, crashes: float = 0.0) -> World:
    """Everything published and folded, in an order drawn from the seed."""
    made = world(seed, crashes=crashes)
    for line in partner_lines(past.run, past.partners):
        made.publish(parse_event(line))
    made.run()
    for partner in past.partners:
        own = {"partner_id": partner.partner_id, "program_id": partner.program_id, "body_hash": "-", "caller": "t:t"}
        joins = ActivatePartner(
            **own,
            command_id=f"join-{partner.partner_id}",
            accepted_terms=True,
            email=partner.email,
            activated_at=partner.joined_at + HOUR,
        )
        link = CreateLink(**own, command_id=f"link-{partner.partner_id}", public_url="http://refstream.example")
        for number, command in enumerate[Payload]((joins, link)):
            made.publish(Event(f"{partner.partner_id}-{number}", "/t", NOW, command))
            made.run()
    for line in customer_lines(past.run, past.seed, customers, codes_of(past)):
        made.publish(parse_event(line))
    return made.run()
