"""Rewards' HTTP: a partner's wallet, the reward store with its claims, and the history."""

import asyncio
from typing import Literal

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from schemas import commands as asks
from schemas.ids import Id
from schemas.moments import micros
from schemas.programs.terms import Credits
from services.rewards import discounts_api, discounts_views, stages, views
from services.rewards.people import PEOPLE
from services.rewards.rules import WALLETS
from services.rewards.state import Claim, ClaimStatus, Purse, Wallet, claim_row
from services.runtime.http import (
    AsOf,
    Body,
    Caller,
    NoBody,
    Page,
    Resources,
    Text,
    TheAdmin,
    TheCaller,
    TheCommands,
    ThePaging,
    ThePartner,
    ThePlatform,
    TheResources,
    TheStaff,
    not_found,
    page,
    program_required,
    service_app,
)
from services.runtime.settings import Settings

router = APIRouter()
router.include_router(discounts_api.router)

ACTIVATION_LOOKS, LOOK_SECONDS = 40, 0.05
"""How long a partner's first request waits for an activation that is still on its way from attribution: 2 seconds."""


def create_app(settings: Settings, resources: Resources | None = None) -> FastAPI:
    """The rewards API. `resources`: instead of Redis and Kafka, for tests."""
    return service_app("rewards", settings, router, stages(settings), resources)


class ClaimBody(Body):
    """`program_id`: may be left out by a partner of one program."""

    program_id: Id | None = None
    provider: Text


class SettlementBody(Body):
    status: Literal["fulfilled", "failed"]


# --- reading --------------------------------------------------------------------------------------------------------


@router.get("/partners/{partner_id}/wallet", summary="A partner's credits and bonuses")
async def wallet(partner_id: Id, who: TheCaller, has: TheResources, as_of: AsOf = None) -> views.WalletShown:
    state = await has.reader.state(WALLETS, partner_id)
    if as_of is None:
        return views.wallet(state, micros(has.settings.now()))
    rows = await has.reader.rows(WALLETS, partner_id)
    return views.wallet(state, as_of, as_of, views.purses_before(rows.values(), as_of))


@router.get("/partners/{partner_id}/store", summary="What a partner's credits buy")
async def store(partner_id: Id, who: TheCaller, has: TheResources, program_id: Id | None = None) -> views.StoreShown:
    state, program_id = await _in_program(has, partner_id, program_id)
    await has.programs_feed.catch_up()
    program = has.programs.at(program_id, micros(has.settings.now()))
    if program is None:
        raise not_found()
    terms = program.term(Credits)
    balance = state.purses.get(program_id, Purse()).balance
    return views.store(program, terms.claim_gb if terms else None, balance)


@router.get(
    "/partners/{partner_id}/history",
    summary="Every credit, claim, bonus and discount movement of a partner, newest first",
    response_model_exclude_unset=True,
)
async def history(
    partner_id: Id, who: TheCaller, has: TheResources, paging: ThePaging, program_id: Id | None = None
) -> Page[views.Movement]:
    state = await has.reader.state(WALLETS, partner_id)
    rows = await has.reader.rows(WALLETS, partner_id)
    now = micros(has.settings.now())
    person = await has.reader.state(PEOPLE, partner_id)
    every = (*views.history(state, rows.values(), now), *discounts_views.movements(person.verifications))
    own = (move for move in every if program_id in (None, move.program_id))
    return page(own, views.movement_key, paging, lambda move: move)


@router.get("/claims", summary="Claims of all partners, newest first")
async def all_claims(
    who: TheStaff, has: TheResources, paging: ThePaging, status: ClaimStatus | None = None
) -> Page[views.ClaimOfPartner]:
    with_credits = [partner_id async for partner_id, wallet in has.reader.all_states(WALLETS) if wallet.purses]
    every = await has.reader.rows_each(WALLETS, with_credits)
    found = [
        (partner_id, row)
        for partner_id, rows in zip(with_credits, every, strict=True)
        for row in rows.values()
        if isinstance(row, Claim) and status in (None, row.status)
    ]
    return page(
        found, lambda each: (each[1].requested_at, each[1].claim_id), paging, lambda each: views.claim_of(*each)
    )


@router.get("/claims/{claim_id}", summary="A claim")
async def one_claim(claim_id: Id, who: TheStaff, has: TheResources) -> views.ClaimOfPartner:
    partner_id = await has.reader.find(WALLETS, claim_row(claim_id))
    row = await has.reader.row(WALLETS, partner_id, claim_row(claim_id)) if partner_id is not None else None
    if partner_id is None or not isinstance(row, Claim):
        raise not_found()
    return views.claim_of(partner_id, row)


# --- changing -------------------------------------------------------------------------------------------------------


@router.post(
    "/partners/{partner_id}/claims",
    status_code=201,
    summary="Take credits for data of a provider",
    response_model=views.ClaimShown,
)
async def claim(
    request: Request, partner_id: Id, body: ClaimBody, who: ThePartner, has: TheResources, commands: TheCommands
) -> Response:
    """The rates are those in force when the claim is made, a version that was just published included."""
    if answer := await commands.earlier(request, who, stages(has.settings)):
        return answer
    _, program_id = await _in_program(has, partner_id, body.program_id)
    return await commands.run(
        request,
        who,
        stages(has.settings),
        asks.RequestClaim,
        partner_id=partner_id,
        program_id=program_id,
        provider=body.provider,
        program_version=await has.latest_version(program_id),
    )


@router.post("/claims/{claim_id}/fulfil", summary="Say that a claim's data was given", response_model=views.ClaimShown)
async def fulfil(
    request: Request,
    claim_id: Id,
    who: ThePlatform,
    has: TheResources,
    commands: TheCommands,
    body: NoBody | None = None,
) -> Response:
    return await _settle(request, who, has, commands, claim_id, fulfilled=True)


@router.post(
    "/claims/{claim_id}/fail",
    summary="Say that a claim's data could not be given; its credits are there again",
    response_model=views.ClaimShown,
)
async def fail(
    request: Request,
    claim_id: Id,
    who: ThePlatform,
    has: TheResources,
    commands: TheCommands,
    body: NoBody | None = None,
) -> Response:
    return await _settle(request, who, has, commands, claim_id, fulfilled=False)


@router.post(
    "/claims/{claim_id}/settle",
    summary="Say for the platform how a claim ended",
    response_model=views.ClaimShown,
)
async def settle(
    request: Request, claim_id: Id, body: SettlementBody, who: TheAdmin, has: TheResources, commands: TheCommands
) -> Response:
    """An administrator does by hand what a platform's program does with `fulfil` and `fail`."""
    return await _settle(request, who, has, commands, claim_id, fulfilled=body.status == "fulfilled")


async def _settle(
    request: Request, who: Caller, has: Resources, commands: TheCommands, claim_id: str, *, fulfilled: bool
) -> Response:
    partner_id = await has.reader.find(WALLETS, claim_row(claim_id))
    if partner_id is None:
        raise not_found()
    return await commands.run(
        request,
        who,
        stages(has.settings),
        asks.SettleClaim,
        partner_id=partner_id,
        claim_id=claim_id,
        fulfil=fulfilled,
    )


async def _in_program(has: Resources, partner_id: str, program_id: str | None) -> tuple[Wallet, str]:
    """The partner's wallet, and the program that is asked about: the named one, else the partner's only one.

    A partner may be activated so lately that the wallet has not read of it: it waits a little before it is refused.
    Errors: Problem 404 for a program that the partner is not in; 422 program_required.
    """
    state = await has.reader.state(WALLETS, partner_id)
    for _ in range(ACTIVATION_LOOKS):
        if program_id in state.programs or (program_id is None and state.programs):
            break
        await asyncio.sleep(LOOK_SECONDS)
        state = await has.reader.state(WALLETS, partner_id)
    if program_id is None:
        if len(state.programs) > 1:
            raise program_required()
        if not state.programs:
            raise not_found()
        return state, state.programs[0]
    if program_id not in state.programs:
        raise not_found()
    return state, program_id
