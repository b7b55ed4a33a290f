"""Who a new customer is bound to: the pure judgement of the evidence that came with a signup.

    1 set aside   clicks dated after the signup, an invalid token, unknown codes, codes of the customer's own
    2 candidates  an existing promo code alone; else, per program, what its model looks at:
                  last_click   the latest of the program's clicks
                  first_click  each partner's first click over all of the partner's links, the earliest first
    3 judge       each candidate by the program version in force at the signup; the first without a reason against it
                  is the program's
    4 choose      among the programs the earliest deciding click, ties by program id

Where nobody is accepted the answer is the first reason, in the contract's order, that holds for a candidate; among
candidates with that reason the earliest click, then program and partner id. Where only codes of the customer's own are
left they are the candidates: signing oneself up is `self_referral` (or what comes before it in the order).
The order in which the evidence is listed never matters: two clicks at one time are taken in order of partner and code.
Source: programs.md, Binding; contract.md, referral.declined.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never, get_args

from schemas.events import DeclineReason
from schemas.moments import DAY, format_instant
from schemas.programs import Programs
from schemas.programs.terms import Program
from services.attribution.state import Decision

REASONS: tuple[DeclineReason, ...] = get_args(DeclineReason)
MAX_LISTED = 50
"""How many clicks a decision record lists; the platform may send any number."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Who signed up. `marks`: see contacts.py."""

    customer_id: str
    signed_up_at: int
    existing_customer: bool = False
    marks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What came with the signup. `clicks`: (code, time) pairs, those of a valid click token among them; `cookie` is
    how that token was found. Codes are normalised."""

    clicks: frozenset[tuple[str, int]] = frozenset()
    promo_code: str | None = None
    cookie: Literal["absent", "valid", "invalid"] = "absent"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a code is."""

    kind: Literal["link", "promo_code"]
    partner_id: str
    program_id: str


@dataclass(frozen=True, slots=True)
class Partner:
    """`activated_at` per program. `marks`: of all that the partner gave, at activations and at its own signup."""

    activated_at: Mapping[str, int]
    marks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A code that may have brought the customer. `clicked_at` is None for a promo code."""

    code: str
    partner_id: str
    program_id: str
    clicked_at: int | None

    @property
    def order(self) -> tuple[int, str, str, str]:
        return (self.clicked_at or 0, self.program_id, self.partner_id, self.code)


ACTIVATED_LATER = "partner activated {activated_at}, after the signup {signed_up_at}"
IN_WINDOW = "click {clicked_at} + {days} days = {ends_at}; signup {signed_up_at} is before it"
PAST_WINDOW = "click {clicked_at} + {days} days = {ends_at}; signup {signed_up_at} is not before it"
LINES = (ACTIVATED_LATER, IN_WINDOW, PAST_WINDOW)
"""Every line that a decision's arithmetic is made of."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate with every reason that holds against it, in the contract's order, and how that was worked out."""

    candidate: Candidate
    program: Program
    reasons: tuple[DeclineReason, ...]
    arithmetic: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        return not self.reasons


OwnerOf = Callable[[str], Owner | None]
PartnerOf = Callable[[str], Partner]


def decide(who: Newcomer, evidence: Evidence, owner_of: OwnerOf, partner_of: PartnerOf, programs: Programs) -> Decision:
    """The one decision on a signup.

    Errors: NotYetPublished when a code's program has not been read yet; whatever the look-ups raise (Missing).
    """
    timely = sorted((at, code) for code, at in evidence.clicks if at <= who.signed_up_at)
    clicks = [found for at, code in timely if (found := _candidate(code, at, owner_of))]
    promo = _candidate(evidence.promo_code, None, owner_of) if evidence.promo_code else None
    known = [*clicks, promo] if promo else clicks
    others = [candidate for candidate in known if candidate.partner_id != who.customer_id]

    def judge(candidate: Candidate) -> Judged:
        return _judged(who, candidate, partner_of(candidate.partner_id), _program_at(programs, candidate, who))

    if promo is not None and promo in others:
        judged = [judge(promo)]
    elif others:
        judged = [each for group in _by_program(others) for each in _considered(group, who, programs, judge)]
    else:
        judged = [judge(candidate) for candidate in known]
    inputs = _inputs(who, evidence, timely, known, judged)
    accepted = [each for each in judged if each.accepted]
    if accepted:
        return _decision("attributed", min(accepted, key=lambda each: each.candidate.order), inputs)
    if judged:
        first = min(judged, key=lambda each: (REASONS.index(each.reasons[0]), each.candidate.order))
        return _decision("declined", first, inputs)
    return Decision("declined", rule="evidence", reason=_nothing_left(evidence, bool(timely)), inputs=inputs)


def _candidate(code: str, clicked_at: int | None, owner_of: OwnerOf) -> Candidate | None:
    """The candidate of a code, None for an unknown one: a promo code in a link is as unknown as a link's typed in."""
    owner = owner_of(code)
    if owner is None or owner.kind != ("promo_code" if clicked_at is None else "link"):
        return None
    return Candidate(code, owner.partner_id, owner.program_id, clicked_at)


def _program_at(programs: Programs, candidate: Candidate, who: Newcomer) -> Program:
    return programs.in_force(candidate.program_id, who.signed_up_at)


def _by_program(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    groups: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda each: each.order):
        groups.setdefault(candidate.program_id, []).append(candidate)
    return list(groups.values())


def _considered(
    clicks: Sequence[Candidate], who: Newcomer, programs: Programs, judge: Callable[[Candidate], Judged]
) -> list[Judged]:
    """Whom one program looks at, up to the first that it accepts. `clicks`: all of that program, in order."""
    model = _program_at(programs, clicks[0], who).attribution.model
    match model:
        case "last_click":
            latest = max(each.order[0] for each in clicks)
            return [judge(next(each for each in clicks if each.clicked_at == latest))]
        case "first_click":
            firsts: dict[str, Candidate] = {}
            for click in clicks:
                firsts.setdefault(click.partner_id, click)
            considered: list[Judged] = []
            for first in firsts.values():
                considered.append(judge(first))
                if considered[-1].accepted:
                    break
            return considered
        case _:
            assert_never(model)


def _judged(who: Newcomer, candidate: Candidate, partner: Partner, program: Program) -> Judged:
    """Every reason against a candidate. Windows are half-open: `[click, click + window_days)`."""
    activated_at = partner.activated_at.get(candidate.program_id)
    arithmetic = []
    if activated_at is not None and activated_at > who.signed_up_at:
        arithmetic.append(
            ACTIVATED_LATER.format(
                activated_at=format_instant(activated_at), signed_up_at=format_instant(who.signed_up_at)
            )
        )
    expired = False
    if candidate.clicked_at is not None and program.attribution.window_days:
        ends_at = candidate.clicked_at + program.attribution.window_days * DAY
        expired = ends_at <= who.signed_up_at
        arithmetic.append(
            (PAST_WINDOW if expired else IN_WINDOW).format(
                clicked_at=format_instant(candidate.clicked_at),
                days=program.attribution.window_days,
                ends_at=format_instant(ends_at),
                signed_up_at=format_instant(who.signed_up_at),
            )
        )
    holds: dict[DeclineReason, bool] = {
        "program_disabled": not program.enabled,
        "partner_inactive": activated_at is None or activated_at > who.signed_up_at,
        "existing_customer": who.existing_customer,
        "self_referral": candidate.partner_id == who.customer_id or bool(partner.marks & who.marks),
        "window_expired": expired,
    }
    reasons = tuple(reason for reason in REASONS if holds.get(reason))
    return Judged(candidate, program, reasons, tuple(arithmetic))


def _nothing_left(evidence: Evidence, timely_clicks: bool) -> DeclineReason:
    """Why there is no candidate at all: no known code came in time."""
    if timely_clicks or evidence.promo_code:
        return "unknown_code"
    return "invalid_token" if evidence.cookie == "invalid" else "no_click"


def _rule(judged: Judged) -> str:
    terms = judged.program.attribution
    if judged.candidate.clicked_at is None:
        return "promo_code"
    return f"{terms.model}_within_{terms.window_days}_days" if terms.window_days else terms.model


def _decision(outcome: Literal["attributed", "declined"], judged: Judged, inputs: dict[str, Any]) -> Decision:
    candidate = judged.candidate
    return Decision(
        outcome,
        rule=_rule(judged),
        reason=judged.reasons[0] if judged.reasons else None,
        reasons=judged.reasons,
        program_id=candidate.program_id,
        program_version=judged.program.version,
        partner_id=candidate.partner_id,
        method="promo_code" if candidate.clicked_at is None else "click",
        inputs=inputs,
        arithmetic=judged.arithmetic,
    )


def _inputs(
    who: Newcomer,
    evidence: Evidence,
    timely: Sequence[tuple[int, str]],
    known: Sequence[Candidate],
    judged: Sequence[Judged],
) -> dict[str, Any]:
    """What the decision looked at, for its record: times, codes and ids, nothing personal."""
    owners = {candidate.code: candidate for candidate in known}

    def fate(code: str, at: int | None) -> str:
        if at is not None and at > who.signed_up_at:
            return "after_signup"
        if code not in owners:
            return "unknown_code"
        return "own_code" if owners[code].partner_id == who.customer_id else "counts"

    told: dict[str, Any] = {
        "signed_up_at": format_instant(who.signed_up_at),
        "existing_customer": who.existing_customer,
        "click_token": evidence.cookie,
        "clicks": [
            {"code": code, "clicked_at": format_instant(at), "taken_as": fate(code, at)}
            for at, code in sorted((at, code) for code, at in evidence.clicks)[:MAX_LISTED]
        ],
    }
    if evidence.promo_code:
        told["promo_code"] = {"code": evidence.promo_code, "taken_as": fate(evidence.promo_code, None)}
    told["considered"] = [
        {
            "program_id": each.candidate.program_id,
            "program_version": each.program.version,
            "partner_id": each.candidate.partner_id,
            "code": each.candidate.code,
            "clicked_at": None if each.candidate.clicked_at is None else format_instant(each.candidate.clicked_at),
            "rule": _rule(each),
            "reasons": list(each.reasons),
        }
        for each in judged[:MAX_LISTED]
    ]
    return told
