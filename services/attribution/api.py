"""HTTP of attribution: links that are followed, what partners ask for, and what their pages show."""

import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from pydantic import Field
from starlette.responses import Response

from schemas import commands as asks
from schemas.ids import Id
from schemas.moments import DATE, micros
from services.attribution import CODE_OWNERS, PEOPLE, STAGES, programs_api, views
from services.attribution.codes import normalised, promo_code_fault
from services.attribution.partnership import partner_name
from services.attribution.publishing import CLOCK_DIFFERENCE
from services.attribution.redirect import LinkCode, WriteClick, redirect_routes
from services.attribution.retention import claim_name
from services.attribution.state import Person
from services.runtime.http import (
    EVERYBODY,
    AsOf,
    Body,
    Caller,
    Moment,
    NoBody,
    Page,
    Problem,
    Resources,
    Search,
    Text,
    TheAdmin,
    TheCaller,
    TheCommands,
    ThePaging,
    ThePartner,
    TheResources,
    TheStaff,
    cut,
    invalid,
    names_program,
    not_found,
    page,
    service_app,
)
from services.runtime.http.command_log import CommandLog
from services.runtime.profiles import PERSONS, found_by
from services.runtime.settings import Settings

router = APIRouter()
router.include_router(programs_api.router)

OF_A_PROGRAM = names_program(PEOPLE, lambda person: person.activations)
OF_ANYBODYS_PROGRAM = names_program(PEOPLE, lambda person: person.activations, EVERYBODY)
MAX_ACCOUNTS = 1000
Evidence = Annotated[str, Field(strict=True, min_length=1, max_length=8192)]


class PartnerBody(Body):
    """Make somebody a partner. `activated_at`: a past time, for imports."""

    partner_id: Id
    program_id: Id
    accepted_terms: Annotated[bool, Field(strict=True)]
    name: Text | None = None
    email: Text | None = None
    phone: Text | None = None
    activated_at: Moment | None = None


class ActivationBody(Body):
    """Take part in a program oneself."""

    program_id: Id
    accepted_terms: Annotated[bool, Field(strict=True)]


class LinkBody(Body):
    program_id: Id
    destination: Text | None = None


class PromoCodeBody(Body):
    program_id: Id
    code: Text | None = None


class RetentionBody(Body):
    """`evidence`: of the partner's support for the client's integration; an admin judges it."""

    program_id: Id
    customer_id: Id
    evidence: Evidence


class RejectionBody(Body):
    reason: Text


class AccountOrderBody(Body):
    """`effective_at`: a past time is for imports by the platform."""

    program_id: Id
    account_ids: Annotated[tuple[Id, ...], Field(max_length=MAX_ACCOUNTS)]
    effective_at: Moment | None = None


@router.post("/partners", status_code=201, response_model=views.PartnerShown, summary="Activate a partner")
async def activate(
    request: Request, body: PartnerBody, who: TheStaff, commands: TheCommands, has: TheResources
) -> Response:
    return await _by_terms(request, who, has, commands, asks.ActivatePartner, body)


@router.get("/partners", summary="All partners, the latest first")
async def partners(
    who: TheAdmin, has: TheResources, paging: ThePaging, search: Search = None, program_id: Id | None = None
) -> Page[views.PartnerListed]:
    everybody = await _people_named(has, partner_name(""))
    found = [each for each in everybody if program_id is None or program_id in each[1].activations]
    found = await found_by(search, has.reader, found, lambda each: each[0])
    here, next_cursor = cut(found, lambda each: (views.partner_since(each[1]), each[0]), paging)
    profiles = await has.reader.states(PERSONS, [partner_id for partner_id, _ in here])
    shown = [views.partner_listed(*each, profile.contact) for each, profile in zip(here, profiles, strict=True)]
    return Page(items=shown, next_cursor=next_cursor)


@router.get("/partners/{partner_id}", response_model=views.PartnerPage, summary="A partner's programs, links and codes")
async def partner(partner_id: Id, who: TheCaller, has: TheResources) -> views.PartnerPage:
    return views.partner_page(partner_id, await _partner(has, who, partner_id))


@router.get("/partners/{partner_id}/programs", summary="The programs that a partner can see, with their terms")
async def open_programs(partner_id: Id, who: TheCaller, has: TheResources) -> views.OpenPrograms:
    """Those that are enabled, and those that the partner takes part in."""
    person = await _partner(has, who, partner_id)
    return views.open_programs(person, has.programs, micros(has.settings.now()))


@router.post(
    "/partners/{partner_id}/activations",
    status_code=201,
    response_model=views.PartnerShown,
    summary="Become a partner of a program",
)
async def activate_oneself(
    request: Request, partner_id: Id, body: ActivationBody, who: ThePartner, commands: TheCommands, has: TheResources
) -> Response:
    return await _by_terms(request, who, has, commands, asks.ActivatePartner, body, partner_id=partner_id)


@router.get("/partners/{partner_id}/accounts", summary="A partner's own accounts, oldest first")
async def accounts(partner_id: Id, who: TheCaller, has: TheResources) -> views.OwnAccounts:
    person = await _partner(has, who, partner_id)
    return views.own_accounts(person, await has.reader.state(PERSONS, partner_id))


@router.post(
    "/partners/{partner_id}/links",
    status_code=201,
    dependencies=[OF_A_PROGRAM],
    response_model=views.LinkShown,
    summary="Create a referral link",
)
async def create_link(
    request: Request, partner_id: Id, body: LinkBody, who: ThePartner, commands: TheCommands, has: TheResources
) -> Response:
    public_url = has.settings.public_url or f"http://{has.settings.host}:{has.settings.port}"
    seed = _seed(has.settings, commands.id_of(request, who))
    fields = {"partner_id": partner_id, "public_url": public_url, "seed": seed}
    return await _by_terms(request, who, has, commands, asks.CreateLink, body, **fields)


@router.post(
    "/partners/{partner_id}/promo-codes",
    status_code=201,
    dependencies=[OF_A_PROGRAM],
    response_model=views.PromoCodeShown,
    summary="Create a promo code",
)
async def create_promo_code(
    request: Request, partner_id: Id, body: PromoCodeBody, who: ThePartner, commands: TheCommands, has: TheResources
) -> Response:
    if body.code is not None and (fault := promo_code_fault(body.code)):
        if answer := await commands.earlier(request, who, STAGES):
            return answer
        raise invalid("code", fault)
    seed = _seed(has.settings, commands.id_of(request, who))
    fields = {"partner_id": partner_id, "seed": seed}
    return await _by_terms(request, who, has, commands, asks.CreatePromoCode, body, **fields)


@router.get("/partners/{partner_id}/referrals", summary="A partner's referrals, newest first")
async def referrals(
    partner_id: Id,
    who: TheCaller,
    has: TheResources,
    paging: ThePaging,
    as_of: AsOf = None,
    program_id: Id | None = None,
    search: Search = None,
) -> Page[views.ReferralShown]:
    await _partner(has, who, partner_id)
    at = micros(has.settings.now()) if as_of is None else as_of
    listed = views.referrals_before(await has.reader.rows(PEOPLE, partner_id), as_of, program_id)
    listed = await found_by(search, has.reader, listed, lambda referral: referral.customer_id)
    found = page(
        listed,
        lambda referral: (referral.attributed_at, referral.customer_id),
        paging,
        lambda referral: referral,
    )
    customer_ids = [referral.customer_id for referral in found.items]
    customers = await has.reader.states(PEOPLE, customer_ids)
    profiles = await has.reader.states(PERSONS, customer_ids)
    shown = [
        views.referral_shown(referral, customer, profile.contact, has.programs, at, as_of)
        for referral, customer, profile in zip(found.items, customers, profiles, strict=True)
    ]
    return Page(items=shown, next_cursor=found.next_cursor)


@router.get(
    "/partners/{partner_id}/referrals/{customer_id}/decision",
    response_model_exclude_none=True,
    summary="Why a customer was bound to the partner",
)
async def referral_decision(partner_id: Id, customer_id: Id, who: TheCaller, has: TheResources) -> views.DecisionShown:
    """Without what the customer did with other partners' links and codes."""
    await _partner(has, who, partner_id)
    customer = await has.reader.state(PEOPLE, customer_id)
    if customer.decision is None or not customer.is_bound or customer.decision.partner_id != partner_id:
        raise not_found()
    return views.decision_shown(customer_id, views.of_own(customer.decision))


@router.get("/partners/{partner_id}/statistics", summary="A partner's clicks and signups per UTC day")
async def statistics(
    partner_id: Id,
    who: TheCaller,
    has: TheResources,
    since: Annotated[str | None, Query(alias="from", description="first UTC day, like 2026-02-01")] = None,
    until: Annotated[str | None, Query(alias="to", description="first UTC day no longer counted")] = None,
    program_id: Id | None = None,
) -> views.Statistics:
    _require_date("from", since)
    _require_date("to", until)
    if since is not None and until is not None and since > until:
        raise invalid("to", "The period ends before it begins.")
    await _partner(has, who, partner_id)
    return views.statistics(await has.reader.rows(PEOPLE, partner_id), since, until, program_id)


@router.put(
    "/partners/{partner_id}/account-order",
    dependencies=[OF_ANYBODYS_PROGRAM],
    response_model=views.AccountOrderShown,
    summary="The order in which a partner's accounts take discounts",
)
async def order_accounts(
    request: Request,
    partner_id: Id,
    body: AccountOrderBody,
    who: TheCaller,
    commands: TheCommands,
    has: TheResources,
) -> Response:
    past = body.effective_at is not None and body.effective_at < micros(has.settings.now()) - CLOCK_DIFFERENCE
    if past and who.role == "partner":
        raise Problem(403, "forbidden", "An order that was in force already is for the platform to import.")
    return await _by_terms(request, who, has, commands, asks.OrderAccounts, body, partner_id=partner_id)


@router.post(
    "/partners/{partner_id}/retention-claims",
    status_code=201,
    dependencies=[OF_A_PROGRAM],
    response_model=views.ClaimMade,
    summary="Claim a client who is a customer already",
)
async def claim_retention(
    request: Request, partner_id: Id, body: RetentionBody, who: ThePartner, commands: TheCommands, has: TheResources
) -> Response:
    return await _by_terms(request, who, has, commands, asks.RequestRetention, body, partner_id=partner_id)


@router.get("/retention-claims", summary="Retention claims of all partners, newest first")
async def retention_claims(
    who: TheAdmin, has: TheResources, paging: ThePaging, status: views.ClaimState | None = None
) -> Page[views.ClaimShown]:
    claimants = await _people_named(has, claim_name(""))
    found = [claim for partner_id, person in claimants for claim in views.claims(partner_id, person, status)]
    return page(found, lambda claim: (claim.requested_at, claim.claim_id), paging, lambda claim: claim)


@router.get("/retention-claims/{claim_id}", summary="A retention claim")
async def one_retention_claim(claim_id: Id, who: TheAdmin, has: TheResources) -> views.ClaimShown:
    partner_id = await has.reader.find(PEOPLE, claim_name(claim_id))
    if partner_id is None:
        raise not_found()
    person = await has.reader.state(PEOPLE, partner_id)
    return next(claim for claim in views.claims(partner_id, person, None) if claim.claim_id == claim_id)


@router.get("/codes/{code}", summary="Whose a link or a promo code is")
async def code_owner(code: LinkCode, who: TheAdmin, has: TheResources) -> views.CodeShown:
    found = await has.reader.state(CODE_OWNERS, normalised(code))
    if not found.partner_id:
        raise not_found()
    return views.CodeShown(code=found.code, kind=found.kind, partner_id=found.partner_id, program_id=found.program_id)


@router.post(
    "/retention-claims/{claim_id}/approve",
    response_model=views.ClaimSettled,
    summary="Bind the claimed client to the partner from now on",
)
async def approve_retention(
    request: Request,
    claim_id: Id,
    who: TheAdmin,
    has: TheResources,
    commands: TheCommands,
    body: NoBody | None = None,
) -> Response:
    """409 `already_referred` where the client was bound to somebody meanwhile."""
    return await _settle(request, who, has, commands, claim_id, approve=True)


@router.post(
    "/retention-claims/{claim_id}/reject", response_model=views.ClaimSettled, summary="Refuse a retention claim"
)
async def reject_retention(
    request: Request, claim_id: Id, body: RejectionBody, who: TheAdmin, has: TheResources, commands: TheCommands
) -> Response:
    return await _settle(request, who, has, commands, claim_id, approve=False, reason=body.reason)


@router.get(
    "/customers/{customer_id}/decision",
    response_model_exclude_none=True,
    summary="Why a signup was answered as it was",
)
async def decision(customer_id: Id, who: TheStaff, has: TheResources) -> views.DecisionShown:
    customer = await has.reader.state(PEOPLE, customer_id)
    if customer.decision is None:
        raise not_found()
    return views.decision_shown(customer_id, customer.decision)


async def _people_named(has: Resources, prefix: str) -> list[tuple[str, Person]]:
    """Those who are found under names that begin so, without reading anybody else."""
    keys = sorted(await has.reader.keys_of(PEOPLE, prefix))
    return list(zip(keys, await has.reader.states(PEOPLE, keys), strict=True))


async def _partner(has: Resources, who: Caller, partner_id: str) -> Person:
    """The partner as a person. Errors: 404 where the platform or an admin asks for nobody."""
    person = await has.reader.state(PEOPLE, partner_id)
    if who.role != "partner" and not person.activations:
        raise not_found()
    return person


async def _by_terms(
    request: Request,
    who: Caller,
    has: Resources,
    commands: TheCommands,
    kind: type[asks.UnderTerms],
    body: ActivationBody | PartnerBody | LinkBody | PromoCodeBody | RetentionBody | AccountOrderBody,
    **fields: Any,
) -> Response:
    """Have a command decided by its program's terms, up to the latest version that is published now."""
    version = await has.latest_version(body.program_id)
    return await commands.run(request, who, STAGES, kind, body, program_version=version, **fields)


async def _settle(
    request: Request, who: Caller, has: Resources, commands: TheCommands, claim_id: str, **fields: Any
) -> Response:
    """Errors: Problem 404 for an unknown claim."""
    partner_id = await has.reader.find(PEOPLE, claim_name(claim_id))
    if partner_id is None:
        raise not_found()
    return await commands.run(
        request, who, STAGES, asks.SettleRetention, partner_id=partner_id, claim_id=claim_id, **fields
    )


def _seed(settings: Settings, command_id: str) -> str:
    """What a command's code derives from: the same each time it is sent, and nobody reckons it without the secret."""
    newest = list(settings.click_secrets.values())[-1]
    return hmac.digest(newest.get_secret_value().encode(), f"refstream.seed:{command_id}".encode(), "sha256").hex()


def _require_date(field: str, text: str | None) -> None:
    if text is None:
        return
    try:
        if not DATE.fullmatch(text):
            raise ValueError(text)
        date.fromisoformat(text)
    except ValueError:
        raise invalid(field, "Write a day, like 2026-02-28.") from None


def create_app(
    settings: Settings, resources: Resources | None = None, write_click: WriteClick | None = None
) -> FastAPI:
    """The service's app. `write_click`: instead of Kafka, for tests."""
    clicks = CommandLog(settings)
    everything = APIRouter()
    everything.include_router(redirect_routes(settings, write_click or clicks.write))
    everything.include_router(router)
    app = service_app("attribution", settings, everything, STAGES, resources)
    if write_click is None:
        app.router.lifespan_context = _with_log(app.router.lifespan_context, clicks)
    return app


def _with_log(opened: Callable[[FastAPI], Any], clicks: CommandLog) -> Callable[[FastAPI], Any]:
    """The app's lifespan, with a producer for clicks that is open as long."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(app):
            await clicks.start()
            try:
                yield
            finally:
                await clicks.stop()

    return lifespan
