"""A partner pays for a client: from the partner account at a discount, or with the welcome bonus at list price.

What is charged is `list price × (1 − discount rate)`, rounded once, half-even: the charge is rounded, and the discount
is what the charge leaves of the list price, so that the two always add up to it.
Source: programs.md, message-help, integrator mode and welcome bonus; contract.md, client-payments.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from schemas import commands, events
from schemas.events import Event, Interval
from schemas.ids import derived_id
from schemas.internal import ClientPaid
from schemas.money import Money, decimal_text, share
from schemas.programs.terms import IntegrationFamily, IntegratorAccount
from services.payouts import views
from services.payouts.allocation import funds
from services.payouts.clients import CLIENTS, Client
from services.payouts.deciding import LedgerChange, LedgerContext, absent, decided, no, program_of
from services.payouts.state import Bonus, ClientPaymentRow, Person, Row, client_payment_row_id
from services.runtime.stage import Change, invalid

BONUS_INTERVAL = "month"


def pay(context: LedgerContext, person: Person, event: Event, command: commands.PayForClient) -> LedgerChange:
    """Decide on a payment for a client.

    Shape: one PayForClient → one ClientPaymentMade, and one ClientPaid for the client's own key.
    Errors, in this order: 404 for a program that the partner is not in; 409 `client_payments_not_offered`; 404 for
    another partner's customer (one bound to nobody may be paid for); 422 for an unknown integration; 409
    `bonus_not_applicable`; 409 `insufficient_balance`.
    """
    program = program_of(context, person, event, command)
    if program is None:
        return absent(command)
    terms = program.term(IntegratorAccount)
    if terms is None:
        return no(command, "client_payments_not_offered", "In this program partners do not pay for clients.")
    client: Client | None = context.peek(CLIENTS.name, command.customer_id)
    if client is not None and client.partner_id not in ("", command.partner_id):
        return absent(command)
    family = terms.family_of(command.integration)
    if family is None:
        known = ", ".join(sorted(name for each in terms.families.values() for name in each.integrations))
        return Change(answers=(invalid(command, "integration", f"Name one of {known}."),))
    rows = context.rows.all()
    paid = tuple(
        row for row in rows.values() if isinstance(row, ClientPaymentRow) and row.program_id == program.program_id
    )
    if command.use_bonus:
        bonus = bonus_for(
            person.bonuses,
            paid,
            program.program_id,
            command.customer_id,
            command.interval,
            command.list_price,
            event.time,
        )
        if bonus is None:
            return no(command, "bonus_not_applicable", "The bonus pays the first month of a new client, as a whole.")
        price = Price(Decimal(0), 0, command.list_price.minor)
        person = _without(person, bonus, price.from_bonus_minor)
    else:
        price = price_of(family, clients_of(paid, family) | {command.customer_id}, command.list_price)
        able = funds(rows.values(), (program.program_id, command.list_price.currency), event.time)
        if price.charged_minor > max(0, able.available_minor):
            return no(command, "insufficient_balance", "The charge is more than what is available.")
    row = _row(command, price, event.time)
    changed: dict[str, Row | None] = {client_payment_row_id(row.payment_id): row}
    said = _said(command, row, program.version, bound=client is not None and bool(client.partner_id))
    return decided(context, person, event, command, changed, said, 201, views.client_payment(row))


@dataclass(frozen=True, slots=True)
class Price:
    """What a payment costs: `charged_minor` of the account, `from_bonus_minor` of the bonus."""

    discount_rate: Decimal
    charged_minor: int
    from_bonus_minor: int


def clients_of(paid: Iterable[ClientPaymentRow], family: IntegrationFamily) -> set[str]:
    """The clients ever paid for in a family, those with the bonus too."""
    return {row.customer_id for row in paid if row.integration in family.integrations}


def price_of(family: IntegrationFamily, clients: set[str], list_price: Money) -> Price:
    """What the account is charged for one of so many clients."""
    rate = family.rate(len(clients))
    return Price(rate, share(list_price.minor, 1 - rate), 0)


def bonus_for(
    bonuses: Iterable[Bonus],
    paid: Iterable[ClientPaymentRow],
    program_id: str,
    customer_id: str,
    interval: Interval,
    price: Money,
    at: int,
) -> Bonus | None:
    """The bonus that pays for all of it, or None: a month, the client's first payment, whole, in its currency, in time.

    A bonus is usable in `[granted, expires)`.
    """
    if interval != BONUS_INTERVAL or any(row.customer_id == customer_id for row in paid):
        return None
    return next(
        (
            bonus
            for bonus in bonuses
            if (bonus.program_id, bonus.currency) == (program_id, price.currency)
            and bonus.is_usable(at)
            and price.minor <= bonus.remaining_minor
        ),
        None,
    )


def _without(person: Person, used: Bonus, minor: int) -> Person:
    """The person with a bonus that has less left."""
    less = msgspec.structs.replace(used, remaining_minor=used.remaining_minor - minor)
    bonuses = tuple(less if bonus.bonus_id == used.bonus_id else bonus for bonus in person.bonuses)
    return msgspec.structs.replace(person, bonuses=bonuses)


def _row(command: commands.PayForClient, price: Price, at: int) -> ClientPaymentRow:
    return ClientPaymentRow(
        payment_id=derived_id("cp", command.command_id),
        program_id=command.program_id,
        currency=command.list_price.currency,
        customer_id=command.customer_id,
        integration=command.integration,
        interval=command.interval,
        list_minor=command.list_price.minor,
        discount_rate=decimal_text(price.discount_rate),
        charged_minor=price.charged_minor,
        from_bonus_minor=price.from_bonus_minor,
        made_at=at,
        account_id=command.account_id,
    )


def _said(
    command: commands.PayForClient, row: ClientPaymentRow, program_version: int, *, bound: bool
) -> tuple[events.ClientPaymentMade, ClientPaid]:
    def money(minor: int) -> Money:
        return Money(minor=minor, currency=row.currency)

    same = {
        "payment_id": row.payment_id,
        "partner_id": command.partner_id,
        "program_id": row.program_id,
        "customer_id": row.customer_id,
        "account_id": row.account_id,
        "integration": row.integration,
        "interval": row.interval,
        "list_price": money(row.list_minor),
        "discount_rate": row.discount_rate,
        "charged": money(row.charged_minor),
        "from_bonus": money(row.from_bonus_minor),
    }
    to_client = ClientPaid.model_validate({**same, "program_version": program_version, "bound": bound})
    return events.ClientPaymentMade.model_validate(same), to_client
