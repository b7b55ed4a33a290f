"""What a partner asks for: to take part in a program, links, promo codes, an order of accounts."""

import msgspec

from schemas import commands, events, internal
from schemas.ids import derived_id
from schemas.programs.terms import Program
from services.attribution import contacts
from services.attribution.codes import (
    LINK_BYTES,
    PROMO_BYTES,
    derived_code,
    destination_allowed,
    normalised,
    promo_code_fault,
)
from services.attribution.state import Activation, Person, PersonRow
from services.runtime.stage import Answer, Change, Commanded, Context, Emit, invalid, refused

PersonChange = Change[Person, PersonRow]


def not_found(to: Commanded) -> PersonChange:
    return Change(answers=(refused(to, "not_found", "There is no such thing here.", status=404),))


def activate(context: Context[PersonRow], state: Person, asked: commands.ActivatePartner, at: int) -> PersonChange:
    """Make the person a partner of a program.

    Shape: one ActivatePartner → one PartnerActivated, dated `activated_at`; again: the first answer, nothing written.
    Errors: NotYetPublished; 404 for an unknown program; 409 `terms_not_accepted`, `account_required` (in this order);
    422 for a time that has not come.
    """
    program = _in_force(context, asked, at)
    if program is None:
        return not_found(asked)
    if not asked.accepted_terms:
        return Change(answers=(refused(asked, "terms_not_accepted", "The program's terms must be accepted."),))
    if known := state.activations.get(asked.program_id):
        return Change(answers=(_activated(asked, known.activated_at),))
    if program.attribution.account_required and not _has_open_account(state):
        return Change(answers=(refused(asked, "account_required", "Open an account first."),))
    activated_at = at if asked.activated_at is None else asked.activated_at
    if activated_at > at:
        return Change(answers=(invalid(asked, "activated_at", "This time has not come yet."),))
    activation = Activation(
        activated_at=activated_at, marks=() if state.forgotten else contacts.marks(asked.email, asked.phone)
    )
    activated = events.PartnerActivated(
        partner_id=asked.partner_id,
        program_id=asked.program_id,
        name=asked.name,
        email=asked.email,
        phone=asked.phone,
        activated_at=activated_at,
    )
    return Change(
        state=msgspec.structs.replace(state, activations={**state.activations, asked.program_id: activation}),
        emits=(Emit(derived_id("activated", asked.program_id, asked.partner_id), activated_at, activated),),
        answers=(_activated(asked, activated_at),),
        find=(partner_name(asked.partner_id),),
    )


def partner_name(partner_id: str) -> str:
    """The name under which whoever is a partner of some program is found."""
    return f"partner:{partner_id}"


def _has_open_account(state: Person) -> bool:
    return any(account.created_at is not None and account.closed_at is None for account in state.accounts.values())


def _activated(asked: commands.ActivatePartner, activated_at: int) -> Answer:
    shown = events.PartnerActivated(partner_id=asked.partner_id, program_id=asked.program_id, activated_at=activated_at)
    return Answer(asked, 201, shown.model_dump(mode="json", include={"partner_id", "program_id", "activated_at"}))


def create_link(context: Context[PersonRow], state: Person, asked: commands.CreateLink, at: int) -> PersonChange:
    """Ask for a link's code; the code's own key gives the answer.

    Errors: 404 unless an active partner of the program; 422 `destination_not_allowed`.
    """
    program = program_of(context, state, asked, at)
    if program is None:
        return not_found(asked)
    if asked.destination is not None and not destination_allowed(program, asked.destination):
        detail = "A link leads to http or https addresses of the program's own hosts."
        return Change(answers=(refused(asked, "destination_not_allowed", detail, status=422),))
    code = derived_code(asked.seed or asked.command_id, LINK_BYTES)
    wanted = internal.CodeRequested(
        code=code,
        kind="link",
        partner_id=asked.partner_id,
        program_id=asked.program_id,
        destination=asked.destination or program.attribution.default_destination,
        url=f"{asked.public_url.rstrip('/')}/attribution/r/{code}",
        command_id=asked.command_id,
        body_hash=asked.body_hash,
        caller=asked.caller,
    )
    return Change(emits=(Emit(derived_id("asked", asked.command_id), at, wanted),))


def create_promo_code(
    context: Context[PersonRow], state: Person, asked: commands.CreatePromoCode, at: int
) -> PersonChange:
    """Ask for a promo code, the partner's own or a derived one; the code's own key gives the answer.

    Errors: 404 unless an active partner of the program; 422 `invalid` for a code that is none, or in a program without
    promo codes.
    """
    program = program_of(context, state, asked, at)
    if program is None:
        return not_found(asked)
    if not program.attribution.promo_codes:
        return Change(answers=(invalid(asked, "program_id", "This program has no promo codes."),))
    if asked.code is not None and (fault := promo_code_fault(asked.code)):
        return Change(answers=(invalid(asked, "code", fault),))
    shown = (
        derived_code(asked.seed or asked.command_id, PROMO_BYTES).upper() if asked.code is None else asked.code.strip()
    )
    wanted = internal.CodeRequested(
        code=normalised(shown),
        kind="promo_code",
        partner_id=asked.partner_id,
        program_id=asked.program_id,
        shown=shown,
        command_id=asked.command_id,
        body_hash=asked.body_hash,
        caller=asked.caller,
    )
    return Change(emits=(Emit(derived_id("asked", asked.command_id), at, wanted),))


def order_accounts(context: Context[PersonRow], state: Person, asked: commands.OrderAccounts, at: int) -> PersonChange:
    """Say in which order the partner's accounts take discounts.

    Shape: one OrderAccounts → one AccountsOrdered, dated `effective_at`. Which order is in force at a verification is
    for its reader to say. Errors: 404 unless an active partner of the program; 422 for an account named twice.
    """
    if program_of(context, state, asked, at) is None:
        return not_found(asked)
    if len(set(asked.account_ids)) != len(asked.account_ids):
        return Change(answers=(invalid(asked, "account_ids", "Name each account once."),))
    effective_at = at if asked.effective_at is None else asked.effective_at
    ordered = events.AccountsOrdered(
        partner_id=asked.partner_id,
        program_id=asked.program_id,
        account_ids=asked.account_ids,
        effective_at=effective_at,
    )
    return Change(
        emits=(Emit(derived_id("ordered", asked.command_id), effective_at, ordered),),
        answers=(Answer(asked, 200, ordered.model_dump(mode="json")),),
    )


def program_of(context: Context[PersonRow], state: Person, asked: commands.UnderTerms, at: int) -> Program | None:
    """The program in force, or None unless the person is a partner of it. Errors: NotYetPublished."""
    return _in_force(context, asked, at) if asked.program_id in state.activations else None


def _in_force(context: Context[PersonRow], asked: commands.UnderTerms, at: int) -> Program | None:
    """The program in force, of all versions that the API knew, or None for one that it did not know.

    Errors: NotYetPublished.
    """
    if asked.program_version is None:
        return context.programs.at(asked.program_id, at)
    return context.programs.in_force(asked.program_id, at, asked.program_version)
