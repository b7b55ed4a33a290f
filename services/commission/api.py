"""Commission's HTTP: a partner's commissions and tier, and the decision records. It changes nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, FastAPI, Query
from starlette.responses import Response

from schemas.ids import Id
from schemas.moments import micros
from services.commission import stages, views
from services.commission.decisions import Decision, Outcome, decision, of_program, outcome_by_facts
from services.commission.partners import PARTNERS, sale_row
from services.commission.sales import SALES
from services.commission.state import Customer, Ladder, Partner, Payment, Sale
from services.runtime.http import (
    AsOf,
    Page,
    Problem,
    Resources,
    Search,
    TheCaller,
    ThePaging,
    TheResources,
    cut,
    not_found,
    own_partner,
    require,
    service_app,
)
from services.runtime.profiles import PERSONS, found_by
from services.runtime.settings import Settings

router = APIRouter()


def create_app(settings: Settings, resources: Resources | None = None) -> FastAPI:
    """The commission API. `resources`: instead of Redis and Kafka, for tests."""
    return service_app("commission", settings, router, stages(settings), resources)


@router.get("/partners/{partner_id}/commissions", summary="What a partner's referred payments earned")
async def commissions(
    partner_id: Id,
    who: TheCaller,
    has: TheResources,
    paging: ThePaging,
    as_of: AsOf = None,
    program_id: Id | None = None,
    search: Search = None,
    pending: Annotated[bool, Query(description="Only what is not available yet.")] = False,
) -> Page[views.Commission]:
    own_partner(who, partner_id)
    rows = await has.reader.rows(PARTNERS, partner_id)
    found = [sale for sale in views.accrued(rows, as_of) if program_id in (None, sale.program_id)]
    if pending:
        at = micros(has.settings.now()) if as_of is None else as_of
        found = [sale for sale in found if sale.available_at > at]
    found = await found_by(search, has.reader, found, lambda sale: sale.customer_id)
    sales, next_cursor = cut(found, views.place, paging)
    customers = await has.reader.states(PERSONS, [sale.customer_id for sale in sales])
    items = [views.commission(sale, customer, as_of) for sale, customer in zip(sales, customers, strict=True)]
    return Page(items=items, next_cursor=next_cursor)


@router.get("/partners/{partner_id}/tier", summary="A partner's paying clients and rate")
async def tier(
    partner_id: Id, who: TheCaller, has: TheResources, program_id: Id | None = None, as_of: AsOf = None
) -> views.TierShown:
    own_partner(who, partner_id)
    state = await has.reader.state(PARTNERS, partner_id)
    if program_id is None:
        programs = {*state.programs, *state.ladders}
        if len(programs) != 1:
            raise Problem(422, "program_required", "Name the program: program_id.")
        (program_id,) = programs
    program = has.programs.at(program_id, as_of if as_of is not None else micros(has.settings.now()))
    if program is None:
        raise not_found()
    if as_of is None:
        return views.tier(program, state.ladders.get(program_id, Ladder()).clients)
    rows = await has.reader.rows(PARTNERS, partner_id)
    return views.tier(program, views.clients_before(rows.values(), program_id, as_of))


@router.get(
    "/partners/{partner_id}/payments/{payment_id}/decision",
    summary="Why a payment earned the partner what it earned",
    response_model_exclude_none=True,
)
async def own_payment_decision(partner_id: Id, payment_id: Id, who: TheCaller, has: TheResources) -> Decision:
    own_partner(who, partner_id)
    found = await _decision(has, payment_id)
    if found.partner_id != partner_id:
        raise not_found()
    return found


@router.get(
    "/payments/{payment_id}/decision",
    summary="Why a payment earned what it earned",
    response_model_exclude_none=True,
)
async def payment_decision(payment_id: Id, who: TheCaller, has: TheResources) -> Decision:
    require(who, "platform", "admin")
    return await _decision(has, payment_id)


async def _decision(has: Resources, payment_id: str) -> Decision:
    """Errors: Problem 404 for an unknown payment."""
    customer_id = await has.reader.find(SALES, f"payment:{payment_id}")
    customer = await has.reader.state(SALES, customer_id) if customer_id is not None else Customer()
    payment = customer.payments.get(payment_id)
    if customer_id is None or payment is None:
        raise not_found()
    return await _record(has, customer_id, customer, payment, await _partners(has, [customer]))


@router.get("/decisions", summary="The decision records of a program's payments", response_model=Page[Decision])
async def decisions(
    who: TheCaller,
    has: TheResources,
    paging: ThePaging,
    program_id: Annotated[Id, Query(description="The program whose payments are listed.")],
    outcome: Outcome | None = None,
) -> Response:
    require(who, "admin")
    found = [
        (customer_id, customer, payment)
        async for customer_id, customer in has.reader.all_states(SALES)
        for payment in of_program(has.programs, customer, program_id)
        if outcome is None or outcome == outcome_by_facts(has.programs, customer, payment)
    ]
    here, next_cursor = cut(found, lambda each: each[2].place, paging)
    partners = await _partners(has, [customer for _, customer, _ in here])
    records = await asyncio.gather(*(_record(has, *each, partners) for each in here))
    items: list[dict[str, Any]] = [record.model_dump(mode="json", exclude_none=True) for record in records]
    return Response(orjson.dumps({"items": items, "next_cursor": next_cursor}), media_type="application/json")


async def _partners(has: Resources, customers: Sequence[Customer]) -> dict[str, Partner]:
    """What the partner's stage knows of the partners whom customers are bound to, each read once."""
    bound = sorted({each.binding.partner_id for each in customers if each.binding and each.binding.partner_id})
    return dict(zip(bound, await has.reader.states(PARTNERS, bound), strict=True))


async def _record(
    has: Resources, customer_id: str, customer: Customer, payment: Payment, partners: Mapping[str, Partner]
) -> Decision:
    """A payment's record, with what the partner's stage knows of it."""
    binding, sale, ladder = customer.binding, None, Ladder()
    if binding is not None and binding.partner_id:
        row = await has.reader.row(PARTNERS, binding.partner_id, sale_row(payment.payment_id))
        sale = row if isinstance(row, Sale) else None
        ladder = partners[binding.partner_id].ladders.get(binding.program_id, Ladder())
    return decision(has.programs, customer_id, customer, payment, sale, ladder)
