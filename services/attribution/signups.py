"""A signup: gather the evidence and the partners behind it, have it judged once, and say the outcome."""

import msgspec

from schemas import events, internal
from schemas.ids import derived_id
from services.attribution import contacts
from services.attribution.binding import Evidence, Newcomer, Owner, Partner, decide
from services.attribution.codes import MAX_KEY_CHARACTERS, normalised
from services.attribution.state import Code, Decision, Person, PersonRow, Shown, Signup
from services.runtime.stage import Change, Context, Emit

CLICK_TOKENS = "click-tokens"
"""Where a step looks up a click token: its clicks (code, time), or None for an invalid one."""


def sign_up(
    context: Context[PersonRow], state: Person, data: events.CustomerSignedUp, at: int
) -> Change[Person, PersonRow]:
    """Decide on a signup, once and at once.

    Shape: one CustomerSignedUp → one ReferralAttributed and the partner's ReferralListed, or one ReferralDeclined.
    All are dated like the signup. A customer whom a retention has bound before stays bound.
    Errors: Missing while a code or partner is not loaded; NotYetPublished.
    """
    signup = Signup(
        signed_up_at=at,
        existing_customer=data.existing_customer,
        marks=() if state.forgotten else contacts.marks(data.email, data.phone),
    )
    if state.is_bound:
        return Change(state=msgspec.structs.replace(state, signup=signup), emits=_bound_before(data, at, state))
    who = Newcomer(data.customer_id, at, data.existing_customer, frozenset(contacts.marks(data.email, data.phone)))

    def owner_of(code: str) -> Owner | None:
        found: Code | None = context.peek("attribution.codes", code)
        if found is None or not found.kind:
            return None
        return Owner(found.kind, found.partner_id, found.program_id)

    def partner_of(partner_id: str) -> Partner:
        return as_partner(context.peek("attribution.people", partner_id))

    decision = decide(who, _evidence(context, data), owner_of, partner_of, context.programs)
    return Change(
        state=msgspec.structs.replace(state, signup=signup, decision=decision),
        emits=_outcome(data.customer_id, at, decision),
    )


def as_partner(person: Shown | None) -> Partner:
    """What is known of somebody as a partner; nothing of a person never seen."""
    return Partner(person.activated_at, frozenset(person.marks)) if person else Partner({})


def _evidence(context: Context[PersonRow], data: events.CustomerSignedUp) -> Evidence:
    """Everything that may say who brought the customer; blank fields are no evidence.

    A text that is too long for a code is cut: unknown it is either way, and the decision keeps what it looked at.
    """
    token = (data.click_token or "").strip()
    in_token = context.peek(CLICK_TOKENS, token) if token else None
    told = [(click.code, click.clicked_at) for click in data.clicks or ()]
    return Evidence(
        clicks=frozenset((_written(code), at) for code, at in (*told, *(in_token or ()))),
        promo_code=_written(data.promo_code or "") or None,
        cookie="absent" if not token else "invalid" if in_token is None else "valid",
    )


def _written(code: str) -> str:
    return normalised(code)[:MAX_KEY_CHARACTERS]


def _outcome(customer_id: str, at: int, decision: Decision) -> tuple[Emit, ...]:
    match decision:
        case Decision(outcome="attributed", partner_id=str(partner_id), program_id=str(program_id), method=method):
            attributed = events.ReferralAttributed(
                customer_id=customer_id,
                partner_id=partner_id,
                program_id=program_id,
                program_version=decision.program_version or 1,
                method=method or "click",
                attributed_at=at,
            )
            listed = internal.ReferralListed(
                partner_id=partner_id,
                program_id=program_id,
                customer_id=customer_id,
                attributed_at=at,
                signed_up_at=at,
                method=method,
            )
            return (
                Emit(derived_id("referral", customer_id), at, attributed),
                Emit(derived_id("listed", customer_id), at, listed),
            )
        case _:
            declined = events.ReferralDeclined(
                customer_id=customer_id,
                reason=decision.reason or "no_click",
                program_id=decision.program_id,
                partner_id=decision.partner_id,
            )
            return (Emit(derived_id("referral", customer_id), at, declined),)


def _bound_before(data: events.CustomerSignedUp, at: int, state: Person) -> tuple[Emit, ...]:
    """The signup of a customer who was bound before it arrived: it changes the date in the partner's list alone."""
    decision = state.decision
    assert decision is not None and decision.partner_id is not None and decision.program_id is not None
    owner = {"partner_id": decision.partner_id, "program_id": decision.program_id, "customer_id": data.customer_id}
    declined = events.ReferralDeclined.model_validate({**owner, "reason": "already_referred"})
    retained_at = at if state.retained_at is None else state.retained_at
    listed = internal.ReferralListed.model_validate(
        {**owner, "attributed_at": retained_at, "signed_up_at": at, "method": "retention"}
    )
    return (
        Emit(derived_id("referral", data.customer_id), at, declined),
        Emit(derived_id("listed", data.customer_id), at, listed),
    )
