"""Claims: credits for data of a provider, taken at once, given back when the platform says that the claim failed. Pure.

A command is decided once, on the balance that the log gives when it is read and at the redemption rate in force at its
time. Source: programs.md, proxy-credits, the reward store; contract.md, `POST …/claims`.
"""

from msgspec.structs import replace

from schemas.commands import Command, RequestClaim, SettleClaim
from schemas.events import ClaimFailed, ClaimFulfilled, ClaimRequested, Event, Payload
from schemas.ids import derived_id
from schemas.programs.terms import Credits
from services.rewards import views
from services.rewards.purchases import moved
from services.rewards.state import Claim, Purse, Row, Wallet, claim_row
from services.runtime.stage import Answer, Change, Context, Emit, refused

Step = Change[Wallet, Row]


def request(context: Context[Row], wallet: Wallet, event: Event, command: RequestClaim) -> Step:
    """Take credits for the program's `claim_gb` GB of a provider.

    Shape: one RequestClaim → claim.requested and 201, or a refusal and nothing changed.
    Errors: 404 where the partner is not in the program; 409 program_disabled, no_rate, insufficient_credits, in this
    order; NotYetPublished while a version that the API knew has not been read.
    """
    if command.program_id not in wallet.programs:
        return _absent(command)
    program = context.programs.in_force(command.program_id, event.time, command.program_version)
    terms, provider = program.term(Credits), program.providers.get(command.provider)
    if not program.enabled:
        return _no(command, "program_disabled", "The program is off at the moment.")
    if terms is None or provider is None:
        return _no(command, "no_rate", "There is no redemption rate for this provider.")
    needed = views.price(terms.claim_gb, provider)
    balance = wallet.purses.get(program.program_id, Purse()).balance
    if balance < needed:
        return _no(command, "insufficient_credits", f"A claim takes {needed} credits; there are {balance}.")
    claim = Claim(
        derived_id("claim", command.command_id),
        program.program_id,
        command.provider,
        terms.claim_gb,
        needed,
        event.time,
    )
    said = ClaimRequested(
        claim_id=claim.claim_id,
        partner_id=command.partner_id,
        program_id=claim.program_id,
        provider=claim.provider,
        credits=claim.credits,
    )
    after = moved(wallet, claim.program_id, -claim.credits, 1)
    return _decided(after, claim, event, command, said, 201, find=(claim_row(claim.claim_id),))


def settle(context: Context[Row], wallet: Wallet, event: Event, command: SettleClaim) -> Step:
    """The platform has fulfilled a claim, or it failed: then its credits are there again.

    Shape: one SettleClaim → claim.fulfilled or claim.failed and 200. Errors: 404; 409 already_settled.
    """
    claim = context.rows.get(claim_row(command.claim_id))
    if not isinstance(claim, Claim):
        return _absent(command)
    if claim.status != "requested":
        return _no(command, "already_settled", f"The claim is {claim.status}.")
    kind, status = (ClaimFulfilled, "fulfilled") if command.fulfil else (ClaimFailed, "failed")
    settled = replace(claim, status=status, settled_at=event.time)
    said = kind(
        claim_id=claim.claim_id,
        partner_id=command.partner_id,
        program_id=claim.program_id,
        provider=claim.provider,
        credits=claim.credits,
    )
    after = wallet if command.fulfil else moved(wallet, claim.program_id, claim.credits, 0)
    return _decided(after, settled, event, command, said, 200)


def _no(command: Command, code: str, detail: str) -> Step:
    return Change(answers=(refused(command, code, detail),))


def _absent(command: Command) -> Step:
    return Change(answers=(refused(command, "not_found", "There is no such thing here.", status=404),))


def _decided(
    wallet: Wallet,
    claim: Claim,
    event: Event,
    command: Command,
    said: Payload,
    status: int,
    find: tuple[str, ...] = (),
) -> Step:
    return Change(
        wallet,
        rows={claim_row(claim.claim_id): claim},
        emits=(Emit(derived_id("evt", command.command_id, said.type), event.time, said),),
        answers=(Answer(command, status, views.claim(claim).model_dump(mode="json")),),
        find=find,
    )
