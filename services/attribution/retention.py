"""Retention: a partner claims a client who is a customer already; an admin decides, and an approval binds the client.

A claim lives with the partner; whether the client is free is for the client's own key to say, once. So an approval goes
    partner's key   command.settle_retention → binding.requested     (the claim is settled from then on)
    client's key    binding.requested → referral.attributed, retention.approved, the answer
                    already bound:      referral.declined, retention.rejected, the answer 409
    partner's key   retention.approved, retention.rejected → the claim shows it
The client is bound from the approval's time on: earlier payments stay as they were.
Someone whom no signup is known of may be claimed: a customer from before refstream has none. A signup that arrives
after the approval finds the client bound and is declined `already_referred`; the first binding wins for ever.
Source: programs.md, message-help, Retention, and Binding; contract.md, retention-claims.
"""

import msgspec

from schemas import commands, events, internal
from schemas.events import DeclineReason
from schemas.ids import derived_id
from schemas.moments import format_instant
from schemas.programs.terms import Retention
from services.attribution.partnership import PersonChange, not_found, program_of
from services.attribution.signups import as_partner
from services.attribution.state import Claim, Decision, Person, PersonRow, Shown
from services.runtime.stage import Answer, Change, Commanded, Context, Emit, refused

WHY_NOT: dict[DeclineReason, str] = {
    "already_referred": "The customer is bound to a partner already.",
    "self_referral": "Nobody refers oneself.",
}


def claim_name(claim_id: str) -> str:
    """The name under which a claim's partner is found."""
    return f"retention:{claim_id}"


def request(context: Context[PersonRow], state: Person, asked: commands.RequestRetention, at: int) -> PersonChange:
    """Claim a client.

    Shape: one RequestRetention → one RetentionRequested.
    Errors: 404 unless a partner of the program; 409 `retention_not_offered`, `program_disabled`, `self_referral`,
    `already_referred`, in this order.
    """
    program = program_of(context, state, asked, at)
    if program is None:
        return not_found(asked)
    if program.term(Retention) is None:
        return _no(asked, "retention_not_offered", "This program knows no retention.")
    if not program.enabled:
        return _no(asked, "program_disabled", "The program is off.")
    customer = None
    if asked.customer_id != asked.partner_id:
        customer = context.peek("attribution.people", asked.customer_id) or Shown.of(Person())
    if reason := _against(customer, Shown.of(state)):
        return _no(asked, reason, WHY_NOT[reason])
    claim_id = derived_id("claim", asked.command_id)
    claim = Claim(asked.program_id, asked.customer_id, asked.evidence, at)
    requested = events.RetentionRequested(
        claim_id=claim_id,
        partner_id=asked.partner_id,
        program_id=asked.program_id,
        customer_id=asked.customer_id,
        evidence=asked.evidence,
    )
    ids = requested.model_dump(mode="json", exclude={"evidence", "partner_id"})
    return Change(
        state=_with_claim(state, claim_id, claim),
        emits=(Emit(derived_id("evt", claim_id, requested.type), at, requested),),
        answers=(Answer(asked, 201, {**ids, "status": "requested"}),),
        find=(claim_name(claim_id),),
    )


def settle(context: Context[PersonRow], state: Person, asked: commands.SettleRetention, at: int) -> PersonChange:
    """An admin rejects a claim, or approves it: the client's own key answers then.

    Shape: one SettleRetention → one RetentionRejected, or one BindingRequested.
    Errors: 404; 409 `already_settled`; 409 `program_disabled` for an approval while the program is off.
    """
    claim = state.claims.get(asked.claim_id)
    if claim is None:
        return not_found(asked)
    if claim.approved_by == asked.command_id:
        return Change()  # the same command again, before its answer was there
    if claim.status != "requested":
        return _no(asked, "already_settled", "The claim was approved or rejected before.")
    ids = {
        "claim_id": asked.claim_id,
        "partner_id": asked.partner_id,
        "program_id": claim.program_id,
        "customer_id": claim.customer_id,
    }
    if not asked.approve:
        rejected = events.RetentionRejected(**ids, reason=asked.reason or "")
        return Change(
            state=settled(state, rejected, at),
            emits=(_settlement(rejected, at),),
            answers=(_answer(asked, rejected, at),),
        )
    program = context.programs.at(claim.program_id, at)
    if program is None or not program.enabled:
        return _no(asked, "program_disabled", "The program is off.")
    wanted = internal.BindingRequested(
        **ids,
        program_version=program.version,
        command_id=asked.command_id,
        body_hash=asked.body_hash,
        caller=asked.caller,
    )
    return Change(
        state=_with_claim(
            state,
            asked.claim_id,
            msgspec.structs.replace(claim, status="approving", approved_by=asked.command_id),
        ),
        emits=(Emit(derived_id("evt", asked.claim_id, wanted.type), at, wanted),),
    )


def bind(context: Context[PersonRow], state: Person, asked: internal.BindingRequested, at: int) -> PersonChange:
    """The client's own decision on an approved claim: the first binding wins for ever.

    Shape: one BindingRequested → ReferralAttributed (dated like the approval), ReferralListed and RetentionApproved; or
    ReferralDeclined and RetentionRejected. Errors: Missing; a client who is not free is refused with the reason.
    """
    ids = {
        "claim_id": asked.claim_id,
        "partner_id": asked.partner_id,
        "program_id": asked.program_id,
        "customer_id": asked.customer_id,
    }
    if reason := _against(Shown.of(state), context.peek("attribution.people", asked.partner_id)):
        declined = events.ReferralDeclined(
            customer_id=asked.customer_id, reason=reason, program_id=asked.program_id, partner_id=asked.partner_id
        )
        rejected = events.RetentionRejected(**ids, reason=reason)
        return Change(
            emits=(Emit(_referral_id(asked), at, declined), _settlement(rejected, at)),
            answers=(refused(asked, reason, WHY_NOT[reason]),),
        )
    attributed = events.ReferralAttributed(
        customer_id=asked.customer_id,
        partner_id=asked.partner_id,
        program_id=asked.program_id,
        program_version=asked.program_version,
        method="retention",
        attributed_at=at,
    )
    listed = internal.ReferralListed(
        partner_id=asked.partner_id,
        program_id=asked.program_id,
        customer_id=asked.customer_id,
        attributed_at=at,
        signed_up_at=state.signup.signed_up_at if state.signup else at,
        method="retention",
    )
    approved = events.RetentionApproved(**ids)
    return Change(
        state=msgspec.structs.replace(state, decision=_decision(state, asked, at), retained_at=at),
        emits=(
            Emit(_referral_id(asked), at, attributed),
            Emit(derived_id("listed", asked.customer_id, asked.claim_id), at, listed),
            _settlement(approved, at),
        ),
        answers=(_answer(asked, approved, at),),
    )


def settled(state: Person, data: events.RetentionApproved | events.RetentionRejected, at: int) -> Person:
    """The partner with a claim as it was settled in the end."""
    claim = state.claims.get(data.claim_id)
    if claim is None or claim.status in ("approved", "rejected"):
        return state
    match data:
        case events.RetentionApproved():
            after = msgspec.structs.replace(claim, status="approved", settled_at=at)
        case events.RetentionRejected(reason=reason):
            after = msgspec.structs.replace(claim, status="rejected", settled_at=at, reason=reason)
    return _with_claim(state, data.claim_id, of_forgotten(after) if state.forgotten else after)


def of_forgotten(claim: Claim) -> Claim:
    """A claim of a forgotten partner: what the partner wrote goes once it is settled; till then an admin needs it."""
    return claim if claim.status in ("requested", "approving") else msgspec.structs.replace(claim, evidence="")


def _against(customer: Shown | None, partner: Shown | None) -> DeclineReason | None:
    """What speaks against binding the customer to the partner; no customer: it is the partner."""
    if customer is None:
        return "self_referral"
    if customer.is_bound:
        return "already_referred"
    return "self_referral" if set(customer.own_marks) & as_partner(partner).marks else None


def _decision(state: Person, asked: internal.BindingRequested, at: int) -> Decision:
    """The customer's decision record from now on; what the signup was answered is one of its inputs."""
    inputs = {"claim_id": asked.claim_id, "approved_by": asked.caller, "attributed_at": format_instant(at)}
    if state.decision:
        inputs["signup"] = state.decision.reason or state.decision.outcome
    return Decision(
        "attributed",
        rule="retention",
        program_id=asked.program_id,
        program_version=asked.program_version,
        partner_id=asked.partner_id,
        method="retention",
        inputs=inputs,
    )


def _with_claim(state: Person, claim_id: str, claim: Claim) -> Person:
    return msgspec.structs.replace(state, claims={**state.claims, claim_id: claim})


def _referral_id(asked: internal.BindingRequested) -> str:
    return derived_id("referral", asked.customer_id, asked.claim_id)


def _settlement(data: events.RetentionApproved | events.RetentionRejected, at: int) -> Emit:
    return Emit(derived_id("evt", data.claim_id, data.type), at, data)


def _answer(asked: Commanded, data: events.RetentionApproved | events.RetentionRejected, at: int) -> Answer:
    status = "approved" if isinstance(data, events.RetentionApproved) else "rejected"
    return Answer(asked, 200, {**data.model_dump(mode="json"), "status": status, "settled_at": format_instant(at)})


def _no(asked: Commanded, code: str, detail: str) -> PersonChange:
    return Change(answers=(refused(asked, code, detail),))
