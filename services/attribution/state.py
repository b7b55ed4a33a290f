"""What attribution remembers. Times are microseconds since 1970 UTC.

`attribution.people` keeps one `Person` per id. An id can be a customer's, a partner's (the same person, referring
others) and a program's at once; the parts of `Person` do not touch each other.
"""

from typing import Any, Literal

import msgspec

from schemas.events import DeclineReason, Method


class Signup(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a customer signed up. `marks`: digests of the e-mail and phone given then."""

    signed_up_at: int
    existing_customer: bool = False
    marks: tuple[str, ...] = ()


class Account(msgspec.Struct, frozen=True, omit_defaults=True):
    """An account of the person. `created_at` is None while only its closing has arrived."""

    created_at: int | None = None
    closed_at: int | None = None


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a signup was answered as it was. `reasons`: all that hold for the declined candidate, `reason` the first."""

    outcome: Literal["attributed", "declined"]
    rule: str
    reason: DeclineReason | None = None
    reasons: tuple[DeclineReason, ...] = ()
    program_id: str | None = None
    program_version: int | None = None
    partner_id: str | None = None
    method: Method | None = None
    inputs: dict[str, Any] = {}
    arithmetic: tuple[str, ...] = ()


class Activation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The person is a partner of a program. `marks`: digests of the e-mail and phone given then."""

    activated_at: int
    marks: tuple[str, ...] = ()


ClaimStatus = Literal["requested", "approving", "approved", "rejected"]


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """A client whom the partner claims. `approving`: approved by the command `approved_by`, and the client's own key is
    asked; that command is answered there."""

    program_id: str
    customer_id: str
    evidence: str
    requested_at: int
    status: ClaimStatus = "requested"
    settled_at: int | None = None
    reason: str | None = None
    approved_by: str | None = None


class Link(msgspec.Struct, frozen=True):
    code: str
    program_id: str
    url: str
    destination: str
    created_at: int


class PromoCode(msgspec.Struct, frozen=True):
    code: str
    program_id: str
    created_at: int


class Version(msgspec.Struct, frozen=True):
    """A published version of a program: `document` is its JSON text."""

    version: int
    effective_at: int
    document: str


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """`seen`: which events of the customer have counted. `forgotten`: nothing personal may be kept any more.

    `retained_at`: when the customer was bound by an approved retention. `claims`: of the partner, by claim id.
    """

    seen: dict[bytes, bytes] = {}
    signup: Signup | None = None
    forgotten: bool = False
    accounts: dict[str, Account] = {}
    decision: Decision | None = None
    activations: dict[str, Activation] = {}
    links: tuple[Link, ...] = ()
    promo_codes: tuple[PromoCode, ...] = ()
    versions: tuple[Version, ...] = ()
    retained_at: int | None = None
    claims: dict[str, Claim] = {}

    @property
    def is_bound(self) -> bool:
        """Whether the customer is bound to a partner, for ever."""
        return self.decision is not None and self.decision.outcome == "attributed"


class Shown(msgspec.Struct, frozen=True):
    """What other keys may look at of a person: as a partner, and as somebody who may be referred.

    `activated_at`: per program. `own_marks`: of the signup. `marks`: of all that the partner gave, those included.
    """

    activated_at: dict[str, int]
    marks: tuple[str, ...] = ()
    own_marks: tuple[str, ...] = ()
    is_bound: bool = False

    @classmethod
    def of(cls, person: Person) -> "Shown":
        own = person.signup.marks if person.signup else ()
        given = [mark for activation in person.activations.values() for mark in activation.marks]
        return cls(
            {program_id: activation.activated_at for program_id, activation in person.activations.items()},
            tuple(dict.fromkeys((*given, *own))),
            own,
            person.is_bound,
        )


class Referral(msgspec.Struct, frozen=True, tag="referral"):
    """A partner's row per referred customer, `r:<customer>`.

    `listed` is False while only the activity has arrived. `retained`: bound by a retention, so no signup of the
    partner's. `earning`: the half-open spans in which payments earn, None until the first word on it. `active`: in a
    program with a monthly discount, the spans in which the customer is an active referral, None until the first.
    """

    customer_id: str
    program_id: str
    listed: bool = False
    attributed_at: int = 0
    signed_up_at: int = 0
    earning: tuple[tuple[int, int | None], ...] | None = None
    retained: bool = False
    active: tuple[tuple[int, int | None], ...] | None = None


class ClickDay(msgspec.Struct, frozen=True, tag="clicks"):
    """A partner's row per program and UTC day (like 2026-02-28) with clicks, `d:<program>:<date>`."""

    program_id: str
    date: str
    clicks: int = 0


PersonRow = Referral | ClickDay


def referral_row_id(customer_id: str) -> str:
    return f"r:{customer_id}"


def click_row_id(program_id: str, date: str) -> str:
    return f"d:{program_id}:{date}"


class Code(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose a code is. `code`: as it is shown. An empty `partner_id`: nobody's yet."""

    kind: Literal["", "link", "promo_code"] = ""
    code: str = ""
    partner_id: str = ""
    program_id: str = ""
    destination: str = ""


class Visitor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Ids of the visitor's latest clicks. What a click counts for is kept with the partner."""

    recent: tuple[str, ...] = ()
