"""Commission's HTTP: a partner's commissions and tier, and the decision records. It changes nothing."""

from collections.abc import Sequence
from typing import Annotated

import orjson
from fastapi import APIRouter, FastAPI, Query
from starlette.responses import Response

from schemas.ids import Id
from schemas.moments import micros
from services.commission import stages, views
from services.commission.decisions import Decision, Outcome, decision, of_program, outcome_by_facts
from services.commission.partners import PARTNERS, sale_row
from services.commission.sales import SALES
from services.commission.state import Customer, Ladder, Payment, Sale
from services.runtime.http import (
    AsOf,
    Page,
    Resources,
    Search,
    TheAdmin,
    TheCaller,
    ThePaging,
    TheResources,
    TheStaff,
    cut,
    not_found,
    program_required,
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
    state = await has.reader.state(PARTNERS, partner_id)
    if program_id is None:
        programs = {*state.programs, *state.ladders}
        if len(programs) > 1:
            raise program_required()
        if not programs:
            raise not_found()
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
    found = await _decision(has, payment_id)
    if found.partner_id != partner_id:
        raise not_found()
    return found


@router.get(
    "/payments/{payment_id}/decision",
    summary="Why a payment earned what it earned",
    response_model_exclude_none=True,
)
async def payment_decision(payment_id: Id, who: TheStaff, has: TheResources) -> Decision:
    return await _decision(has, payment_id)


async def _decision(has: Resources, payment_id: str) -> Decision:
    """Errors: Problem 404 for an unknown payment."""
    customer_id = await has.reader.find(SALES, f"payment:{payment_id}")
    customer = await has.reader.state(SALES, customer_id) if customer_id is not None else Customer()
    payment = customer.payments.get(payment_id)
    if customer_id is None or payment is None:
        raise not_found()
    return (await _records(has, [(customer_id, customer, payment)]))[0]


@router.get("/decisions", summary="The decision records of a program's payments", response_model=Page[Decision])
async def decisions(
    who: TheAdmin,
    has: TheResources,
    paging: ThePaging,
    program_id: Annotated[Id, Query(description="The program whose payments are listed.")],
    outcome: Outcome | None = None,
) -> Response:
    found = [
        (customer_id, customer, payment)
        async for customer_id, customer in has.reader.all_states(SALES)
        for payment in of_program(has.programs, customer, program_id)
        if outcome is None or outcome == outcome_by_facts(has.programs, customer, payment)
    ]
    here, next_cursor = cut(found, lambda each: each[2].place, paging)
    items = [record.model_dump(mode="json", exclude_none=True) for record in await _records(has, here)]
    return Response(orjson.dumps({"items": items, "next_cursor": next_cursor}), media_type="application/json")


async def _records(has: Resources, payments: Sequence[tuple[str, Customer, Payment]]) -> list[Decision]:
    """Payments' records, each with its customer, and with what the partner's stage knows of it."""
    bound = [(each.binding, paid) for _, each, paid in payments if each.binding and each.binding.partner_id]
    partner_ids = sorted({binding.partner_id for binding, _ in bound})
    partners = dict(zip(partner_ids, await has.reader.states(PARTNERS, partner_ids), strict=True))
    places = [(binding.partner_id, sale_row(paid.payment_id)) for binding, paid in bound]
    rows = dict(zip((row_id for _, row_id in places), await has.reader.row_each(PARTNERS, places), strict=True))

    def record(customer_id: str, customer: Customer, payment: Payment) -> Decision:
        binding, sale = customer.binding, rows.get(sale_row(payment.payment_id))
        partner = partners.get(binding.partner_id) if binding else None
        ladder = partner.ladders.get(binding.program_id) if partner and binding else None
        own = sale if isinstance(sale, Sale) else None
        return decision(has.programs, customer_id, customer, payment, own, ladder or Ladder())

    return [record(*each) for each in payments]
