"""What the pages show, made of what is remembered. Pure: the shell says what time it is."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from schemas.events import DeclineReason, Method
from schemas.ids import Id
from schemas.moments import Instant
from schemas.programs import Programs
from schemas.programs.terms import MonthlyDiscount, Share
from services.attribution import contacts
from services.attribution.rules import utc_date
from services.attribution.state import ClickDay, Decision, Person, PersonRow, Referral
from services.runtime.profiles import Contact, Profile

ClaimState = Literal["requested", "approved", "rejected"]


class Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class PartnerShown(Shown):
    """A partner of a program."""

    partner_id: Id
    program_id: Id
    activated_at: Instant


class LinkShown(Shown):
    program_id: Id
    code: str
    url: str
    destination: str


class PromoCodeShown(Shown):
    program_id: Id
    code: str


class CodeShown(Shown):
    """Whose a code is. `kind`: link or promo_code."""

    code: str
    kind: str
    partner_id: Id
    program_id: Id


class MembershipShown(Shown):
    program_id: Id
    activated_at: Instant


class PartnerPage(Shown):
    """What a partner takes part in, and with which links and promo codes."""

    partner_id: Id
    programs: list[MembershipShown]
    links: list[LinkShown]
    promo_codes: list[PromoCodeShown]


class PartnerListed(Shown):
    partner_id: Id
    name: str | None
    email: str | None
    since: Instant = Field(description="the first activation")
    programs: list[Id]


class ProgramShown(Shown):
    """A program as partners see it. `activated_at`: since when the partner takes part in it."""

    program_id: Id
    name: str
    enabled: bool
    activated_at: Instant | None
    document: dict[str, Any] = Field(description="the version in force: docs/your-own-program.md")


class OpenPrograms(Shown):
    programs: list[ProgramShown]


class AccountShown(Shown):
    account_id: Id
    name: str | None
    created_at: Instant
    closed_at: Instant | None


class OwnAccounts(Shown):
    accounts: list[AccountShown]


class ReferralShown(Shown):
    """`accounts`: how many the customer has created. `status`: `active` while a payment would still earn."""

    customer_id: Id
    signed_up_at: Instant
    name: str | None
    email: str | None
    phone: str | None
    accounts: int
    status: str = Field(description="active or inactive")
    program_id: Id


class DayShown(Shown):
    date: str = Field(description="a UTC day", examples=["2026-02-28"])
    clicks: int
    signups: int


class Statistics(Shown):
    """Recorded clicks and attributed signups; `series` has the days with some, oldest first."""

    clicks: int
    signups: int
    series: list[DayShown]


class AccountOrderShown(Shown):
    partner_id: Id
    program_id: Id
    account_ids: list[Id]
    effective_at: Instant


class DecisionShown(Shown):
    """Why a signup was answered as it was. `reasons`: all that hold, `reason` the first of them."""

    outcome: str = Field(description="attributed or declined")
    reason: DeclineReason | None = None
    reasons: list[DeclineReason] | None = None
    customer_id: Id
    program_id: Id | None = None
    program_version: int | None = None
    partner_id: Id | None = None
    method: Method | None = None
    rule: str
    inputs: dict[str, Any]
    arithmetic: list[str]


class ClaimMade(Shown):
    """A retention claim as its partner gets it."""

    claim_id: Id
    program_id: Id
    customer_id: Id
    status: str = Field(description="requested")


class ClaimSettled(Shown):
    claim_id: Id
    partner_id: Id
    program_id: Id
    customer_id: Id
    status: str = Field(description="approved or rejected")
    settled_at: Instant
    reason: str | None = Field(None, description="why it was rejected")


class ClaimShown(Shown):
    """A retention claim as an admin judges it."""

    claim_id: Id
    partner_id: Id
    program_id: Id
    customer_id: Id
    evidence: str
    status: ClaimState
    requested_at: Instant
    settled_at: Instant | None
    reason: str | None = Field(description="why it was rejected")


def claims(partner_id: str, person: Person, status: ClaimState | None) -> list[ClaimShown]:
    """A partner's claims, those in one state or all. One that waits for the client's own key is still `requested`."""
    found = [
        ClaimShown(
            claim_id=claim_id,
            partner_id=partner_id,
            program_id=claim.program_id,
            customer_id=claim.customer_id,
            evidence=claim.evidence,
            status="requested" if claim.status == "approving" else claim.status,
            requested_at=claim.requested_at,
            settled_at=claim.settled_at,
            reason=claim.reason,
        )
        for claim_id, claim in person.claims.items()
    ]
    return [claim for claim in found if status in (None, claim.status)]


def decision_shown(customer_id: str, decision: Decision) -> DecisionShown:
    return DecisionShown(
        outcome=decision.outcome,
        reason=decision.reason,
        reasons=list(decision.reasons) or ([decision.reason] if decision.reason else None),
        customer_id=customer_id,
        program_id=decision.program_id,
        program_version=decision.program_version,
        partner_id=decision.partner_id,
        method=decision.method,
        rule=decision.rule,
        inputs=decision.inputs,
        arithmetic=list(decision.arithmetic),
    )


def partner_page(partner_id: str, person: Person) -> PartnerPage:
    return PartnerPage(
        partner_id=partner_id,
        programs=[
            MembershipShown(program_id=program_id, activated_at=activation.activated_at)
            for program_id, activation in sorted(person.activations.items())
        ],
        links=[
            LinkShown(program_id=link.program_id, code=link.code, url=link.url, destination=link.destination)
            for link in person.links
        ],
        promo_codes=[PromoCodeShown(program_id=each.program_id, code=each.code) for each in person.promo_codes],
    )


def partner_since(person: Person) -> int:
    return min(activation.activated_at for activation in person.activations.values())


def partner_listed(partner_id: str, person: Person, contact: Contact) -> PartnerListed:
    return PartnerListed(
        partner_id=partner_id,
        name=contact.name,
        email=contacts.shown(contact.email),
        since=partner_since(person),
        programs=sorted(person.activations),
    )


def open_programs(person: Person, programs: Programs, at: int) -> OpenPrograms:
    """The programs in force at an instant that are enabled, or that the person takes part in; by id."""
    in_force = [program for program_id in sorted(programs) if (program := programs.at(program_id, at))]
    return OpenPrograms(
        programs=[
            ProgramShown(
                program_id=program.program_id,
                name=program.name,
                enabled=program.enabled,
                activated_at=activation.activated_at if activation else None,
                document=program.as_document(),
            )
            for program in in_force
            if (activation := person.activations.get(program.program_id)) or program.enabled
        ]
    )


def own_accounts(person: Person, profile: Profile) -> OwnAccounts:
    created = [
        (account.created_at, account_id, account)
        for account_id, account in person.accounts.items()
        if account.created_at is not None
    ]
    return OwnAccounts(
        accounts=[
            AccountShown(
                account_id=account_id,
                name=profile.accounts.get(account_id),
                created_at=created_at,
                closed_at=account.closed_at,
            )
            for created_at, account_id, account in sorted(created, key=lambda each: each[:2])
        ]
    )


def of_own(decision: Decision) -> Decision:
    """A partner's decision without what its inputs and arithmetic tell of other partners."""
    considered = decision.inputs.get("considered", [])
    codes = {each["code"] for each in considered if each["partner_id"] == decision.partner_id}
    inputs = {
        name: value
        for name, value in decision.inputs.items()
        if name not in ("considered", "clicks", "click_token", "promo_code")
    }
    if clicks := [click for click in decision.inputs.get("clicks", []) if click["code"] in codes]:
        inputs["clicks"] = clicks
    if (promo := decision.inputs.get("promo_code")) and decision.method == "promo_code":
        inputs["promo_code"] = promo
    return msgspec.structs.replace(decision, inputs=inputs)


def referrals_before(rows: Mapping[str, PersonRow], as_of: int | None, program_id: str | None = None) -> list[Referral]:
    """A partner's referrals that were bound strictly before `as_of`; None: all, those of a clock ahead of ours too."""
    return [
        row
        for row in rows.values()
        if isinstance(row, Referral) and row.listed and (as_of is None or row.attributed_at < as_of)
        if program_id in (None, row.program_id)
    ]


def referral_shown(
    referral: Referral, customer: Person, contact: Contact, programs: Programs, at: int, as_of: int | None
) -> ReferralShown:
    """One line of the page Referrals: `status` at an instant, accounts created strictly before `as_of` (None: all)."""
    created = [account.created_at for account in customer.accounts.values() if account.created_at is not None]
    return ReferralShown(
        customer_id=referral.customer_id,
        signed_up_at=referral.signed_up_at,
        name=contact.name,
        email=contacts.shown(contact.email),
        phone=contacts.shown(contact.phone),
        accounts=sum(as_of is None or created_at < as_of for created_at in created),
        status="active" if _is_active(referral, programs, at) else "inactive",
        program_id=referral.program_id,
    )


def _is_active(referral: Referral, programs: Programs, as_of: int) -> bool:
    """Whether a payment would earn; under a monthly discount, whether the customer is an active referral.

    Before commission has said so: yes; nothing earns in a version that pays nothing on payments, nor while a program
    that is priced at the event is off. Being an active referral is never so before rewards has said it; as of an
    instant, what happened strictly before it counts.
    """
    if referral.active is not None:
        return any(since < as_of and (until is None or as_of <= until) for since, until in referral.active)
    pricing = programs.at(referral.program_id, referral.attributed_at)
    if pricing is not None and pricing.pricing == "at_event":
        pricing = programs.at(referral.program_id, as_of)
        if pricing is not None and not pricing.enabled:
            return False
    if pricing is not None and (pricing.term(MonthlyDiscount) or not (pricing.term(Share) or pricing.providers)):
        return False
    return referral.earning is None or any(
        since <= as_of and (until is None or as_of < until) for since, until in referral.earning
    )


def statistics(
    rows: Mapping[str, PersonRow], since: str | None, until: str | None, program_id: str | None = None
) -> Statistics:
    """Clicks and signups of the UTC days in `[since, until)`, dates like 2026-02-28."""
    clicks, signups = dict[str, int](), dict[str, int]()
    for row in rows.values():
        if program_id not in (None, row.program_id):
            continue
        match row:
            case ClickDay(date=date):
                clicks[date] = clicks.get(date, 0) + row.clicks
            case Referral(listed=True, retained=False):
                date = utc_date(row.signed_up_at)
                signups[date] = signups.get(date, 0) + 1
            case Referral():
                pass
    dates = [
        date
        for date in sorted({*clicks, *signups})
        if (since is None or since <= date) and (until is None or date < until)
    ]
    series = [DayShown(date=date, clicks=clicks.get(date, 0), signups=signups.get(date, 0)) for date in dates]
    return Statistics(
        clicks=sum(day.clicks for day in series), signups=sum(day.signups for day in series), series=series
    )
