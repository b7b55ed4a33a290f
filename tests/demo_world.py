"""The demo's made-up platform, folded in memory by the real stages."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from schemas.commands import ActivatePartner, Command, CreateLink, CreatePromoCode, OrderAccounts, VerifyMonth
from schemas.events import Event, parse_event
from schemas.moments import SECOND, parse_instant
from schemas.programs import shipped
from services.attribution.codes import LINK_BYTES, derived_code
from services.cli.demo import discounts, integrators, purchases
from services.cli.demo.data import HOUR, Click, Customer, History, Partner, arrived, history
from services.cli.demo.lines import Fact, customer_lines, partner_lines
from services.runtime.simulate import World
from tests.worlds import verify_asked, world

NOW = parse_instant("2026-02-03T04:05:06Z")


def made_up(seed: int = 1, customers: int = 200, visitors: int = 10, run: str = "dtest") -> History:
    return history(seed=seed, customers=customers, visitors=visitors, now=NOW, run=run)


def codes_of(partners: Iterable[Partner]) -> dict[str, str]:
    """The codes of the partners' links, as `joined` creates them."""
    return {p.partner_id: derived_code(f"link-{p.partner_id}", LINK_BYTES) for p in partners}


def everybody(past: History) -> tuple[Customer, ...]:
    """The customers, with the visitors among them: here their clicks come as a list, like a platform's own."""
    came = []
    for visitor in past.visitors:
        clicks = [Click(partner_id, NOW - HOUR + at) for at, partner_id in enumerate(visitor.partner_ids)]
        came.append(replace(arrived(past, visitor, clicks, "", NOW), click_token=None))
    return (*past.customers, *came)


def joined(made: World, run: str, partners: Sequence[Partner]) -> None:
    """The partners' signups, activations and links, folded."""
    for line in partner_lines(run, partners):
        made.publish(parse_event(line))
    made.run()
    for partner in partners:
        own = _own(partner)
        joins = ActivatePartner(
            **own,
            command_id=f"join-{partner.partner_id}",
            accepted_terms=True,
            email=partner.email,
            activated_at=partner.joined_at + HOUR,
        )
        link = CreateLink(**own, command_id=f"link-{partner.partner_id}", public_url="http://refstream.example")
        for command in (joins, link):
            asked(made, command)


def asked(made: World, command: Command) -> None:
    """A command, folded."""
    made.publish(Event(command.command_id, "/t", NOW, command))
    made.run()


def _own(partner: Partner) -> dict[str, Any]:
    return {"partner_id": partner.partner_id, "program_id": partner.program_id, "body_hash": "-", "caller": "t:t"}


def folded(past: History, customers: Sequence[Customer], seed: int = 0, crashes: float = 0.0) -> World:
    """Everything published and folded, in an order drawn from the seed."""
    made = world(seed, crashes=crashes)
    joined(made, past.run, past.partners)
    for line in customer_lines(past.run, past.seed, customers, codes_of(past.partners)):
        made.publish(parse_event(line))
    return made.run()


@dataclass(frozen=True, slots=True)
class Scenes:
    """What was played in each of the three."""

    purchases: purchases.Played
    integrators: integrators.Played
    discounts: discounts.Played

    @property
    def partners(self) -> tuple[Partner, ...]:
        return (*self.purchases.partners, *self.integrators.partners, *self.discounts.partners)

    def facts(self) -> list[Fact]:
        """Those besides the customers of message-help."""
        codes = codes_of(self.partners)
        return [*purchases.facts(self.purchases.friends, codes), *discounts.facts(self.discounts, codes)]


def scenes(seed: int = 1, crashes: float = 0.0, run: str = "dtest") -> tuple[World, Scenes]:
    """The facts of the three scenes folded together; the month is verified, and nothing else was done yet."""
    of = Scenes(purchases.played(run, NOW), integrators.played(run, NOW, seed), discounts.played(run, NOW))
    document = next(each for each in shipped() if each.program_id == discounts.PROGRAM_ID)
    made = world(seed, crashes=crashes, programs=(document.model_copy(update={"program_id": of.discounts.program_id}),))
    joined(made, run, of.partners)
    for partner in of.integrators.partners:
        asked(
            made,
            CreatePromoCode(
                **_own(partner),
                command_id=f"promo-{partner.partner_id}",
                code=integrators.promo_code_of(partner),
            ),
        )
    for partner in of.discounts.partners:
        if order := of.discounts.orders.get(partner.partner_id):
            since = partner.joined_at + HOUR + SECOND
            asked(
                made,
                OrderAccounts(
                    **_own(partner), command_id=f"order-{partner.partner_id}", account_ids=order, effective_at=since
                ),
            )
    for line in customer_lines(run, seed, of.integrators.customers, codes_of(of.partners), of.facts()):
        made.publish(parse_event(line))
    made.run()
    asked(
        made,
        VerifyMonth(
            command_id="verify",
            partner_id=of.discounts.program_id,
            body_hash="-",
            caller="t:t",
            month=of.discounts.month,
        ),
    )
    return verify_asked(made), of
