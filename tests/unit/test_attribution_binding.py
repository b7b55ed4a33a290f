"""Binding as a table: what came with a signup, and who the customer is bound to. Days count from 1 January 2025."""

from dataclasses import dataclass, field

import pytest

from schemas.moments import DAY, parse_instant
from schemas.programs import Programs, shipped
from schemas.programs.terms import Program
from services.attribution.binding import Evidence, Newcomer, Owner, Partner, decide
from services.attribution.contacts import marks
from services.attribution.state import Decision

START = parse_instant("2025-01-01T00:00:00Z")
SHIPPED = {program.program_id: program for program in shipped()}
HOUR = DAY // 24


def day(number: float) -> int:
    return START + int(number * DAY)


LINKS = {
    f"{partner}-{program}": Owner("link", partner, program)
    for partner in ("anna", "bert", "cleo", "me")
    for program in ("keycrm", "jupsoft", "message-help", "active-referrals", "proxy-credits")
} | {"anna-keycrm-2": Owner("link", "anna", "keycrm")}
PROMO_CODES = {
    "annas": Owner("promo_code", "anna", "message-help"),
    "mine": Owner("promo_code", "me", "message-help"),
}
ACTIVE = {program_id: day(0) for program_id in SHIPPED}
PARTNERS = {
    "anna": Partner(ACTIVE, frozenset(marks("Anna@Example.com ", "+380 50 123-45-67"))),
    "bert": Partner(ACTIVE),
    "cleo": Partner({program_id: day(100) for program_id in SHIPPED}),
    "me": Partner(ACTIVE),
}


def judge(
    *clicks: tuple[str, float],
    at: float = 50,
    promo_code: str | None = None,
    cookie: str = "absent",
    existing: bool = False,
    email: str | None = None,
    phone: str | None = None,
    off: tuple[str, ...] = (),
) -> Decision:
    programs = [program.model_copy(update={"enabled": program.program_id not in off}) for program in SHIPPED.values()]
    return decide(
        Newcomer("me", day(at), existing, frozenset(marks(email, phone))),
        Evidence(frozenset((code, day(when)) for code, when in clicks), promo_code, cookie),  # type: ignore[arg-type]
        {**LINKS, **PROMO_CODES}.get,
        lambda partner_id: PARTNERS.get(partner_id, Partner({})),
        Programs.of(*programs),
    )


@dataclass
class Case:
    """`to`: partner and program of an attribution; `reason`: of a decline, with `of` where they are known."""

    sentence: str
    decision: Decision
    to: tuple[str, str] | None = None
    reason: str | None = None
    of: tuple[str, str] | None = None
    method: str = field(default="click")


CASES = [
    # what there is nothing to judge of
    Case("no evidence", judge(), reason="no_click"),
    Case("only a click dated after the signup", judge(("anna-keycrm", 51)), reason="no_click"),
    Case("a late click on an unknown code", judge(("nobody", 51)), reason="no_click"),
    Case("a valid token without any click", judge(cookie="valid"), reason="no_click"),
    Case("only a bad token", judge(cookie="invalid"), reason="invalid_token"),
    Case("a bad token and a late click", judge(("anna-keycrm", 51), cookie="invalid"), reason="invalid_token"),
    Case("an unknown code", judge(("nobody", 49)), reason="unknown_code"),
    Case("an unknown promo code", judge(promo_code="nobody"), reason="unknown_code"),
    Case("an unknown code and a bad token", judge(("nobody", 49), cookie="invalid"), reason="unknown_code"),
    Case("a promo code in a link", judge(("annas", 49)), reason="unknown_code"),
    Case("a link's code as promo code", judge(promo_code="anna-keycrm"), reason="unknown_code"),
    # what is set aside does not spoil the rest
    Case("a bad token beside a click", judge(("anna-keycrm", 49), cookie="invalid"), to=("anna", "keycrm")),
    Case("an unknown promo code beside a click", judge(("anna-keycrm", 49), promo_code="x"), to=("anna", "keycrm")),
    Case("a late click beside a click", judge(("anna-keycrm", 49), ("bert-keycrm", 51)), to=("anna", "keycrm")),
    Case("a click at the moment of the signup", judge(("anna-keycrm", 50)), to=("anna", "keycrm")),
    # windows are half-open
    Case("keycrm, just before 7 days", judge(("anna-keycrm", 43 + 1e-6)), to=("anna", "keycrm")),
    Case("keycrm, after exactly 7 days", judge(("anna-keycrm", 43)), reason="window_expired", of=("anna", "keycrm")),
    Case("jupsoft, after 89 days", judge(("anna-jupsoft", 1), at=90), to=("anna", "jupsoft")),
    Case("jupsoft, after 90 days", judge(("anna-jupsoft", 1), at=91), reason="window_expired", of=("anna", "jupsoft")),
    Case("no window: any age", judge(("anna-active-referrals", 1), at=2000), to=("anna", "active-referrals")),
    # first click
    Case(
        "a later click on the same partner's link does not restart the window",
        judge(("anna-keycrm", 42), ("anna-keycrm", 49)),
        reason="window_expired",
        of=("anna", "keycrm"),
    ),
    Case(
        "nor does one on another link of the partner",
        judge(("anna-keycrm", 42), ("anna-keycrm-2", 49)),
        reason="window_expired",
        of=("anna", "keycrm"),
    ),
    Case("the earliest first click", judge(("bert-keycrm", 46), ("anna-keycrm", 45)), to=("anna", "keycrm")),
    Case(
        "a partner outside the window is set aside, the next earliest decides",
        judge(("anna-keycrm", 40), ("bert-keycrm", 45)),
        to=("bert", "keycrm"),
    ),
    Case(
        "an inactive partner is set aside, the next earliest decides",
        judge(("cleo-keycrm", 44), ("bert-keycrm", 45)),
        to=("bert", "keycrm"),
    ),
    Case(
        "a self-referring partner is set aside, the next earliest decides",
        judge(("anna-keycrm", 44), ("bert-keycrm", 45), email="anna@example.com"),
        to=("bert", "keycrm"),
    ),
    Case(
        "all are set aside: the first reason in the contract's order",
        judge(("anna-keycrm", 40), ("cleo-keycrm", 45)),
        reason="partner_inactive",
        of=("cleo", "keycrm"),
    ),
    # last click
    Case("the latest click", judge(("anna-jupsoft", 44), ("bert-jupsoft", 45)), to=("bert", "jupsoft")),
    Case(
        "the latest click alone: nobody else is asked",
        judge(("anna-jupsoft", 44), ("cleo-jupsoft", 45)),
        reason="partner_inactive",
        of=("cleo", "jupsoft"),
    ),
    Case(
        "the latest click in time restarts the window",
        judge(("anna-message-help", 1), ("anna-message-help", 49)),
        to=("anna", "message-help"),
    ),
    # several programs
    Case(
        "the earliest deciding click of all programs",
        judge(("anna-jupsoft", 40), ("bert-keycrm", 45), ("anna-jupsoft", 46)),
        to=("bert", "keycrm"),
    ),
    Case("ties by program id", judge(("anna-keycrm", 45), ("bert-jupsoft", 45)), to=("bert", "jupsoft")),
    Case(
        "a program that is off does not hide another",
        judge(("anna-jupsoft", 44), ("bert-keycrm", 45), off=("jupsoft",)),
        to=("bert", "keycrm"),
    ),
    # promo codes
    Case(
        "a promo code wins over a click",
        judge(("bert-keycrm", 45), promo_code="annas"),
        to=("anna", "message-help"),
        method="promo_code",
    ),
    Case(
        "an existing promo code decides, also when its answer is no",
        judge(("bert-keycrm", 45), promo_code="annas", off=("message-help",)),
        reason="program_disabled",
        of=("anna", "message-help"),
        method="promo_code",
    ),
    Case("one's own promo code is set aside", judge(("bert-keycrm", 45), promo_code="mine"), to=("bert", "keycrm")),
    # reasons
    Case("the program is off", judge(("anna-keycrm", 45), off=("keycrm",)), reason="program_disabled"),
    Case("a partner activated after the signup", judge(("cleo-keycrm", 45)), reason="partner_inactive"),
    Case("a partner activated at the signup", judge(("cleo-keycrm", 99), at=100), to=("cleo", "keycrm")),
    Case("an account before", judge(("anna-keycrm", 45), existing=True), reason="existing_customer"),
    Case(
        "an account before, in every program",
        judge(("anna-keycrm", 45), ("bert-jupsoft", 45), existing=True),
        reason="existing_customer",
        of=("bert", "jupsoft"),
    ),
    Case("an account before and no evidence", judge(existing=True), reason="no_click"),
    Case("off comes before inactive", judge(("cleo-keycrm", 45), off=("keycrm",)), reason="program_disabled"),
    Case("inactive before existing", judge(("cleo-keycrm", 45), existing=True), reason="partner_inactive"),
    Case(
        "existing before self-referral",
        judge(("anna-keycrm", 45), existing=True, email="anna@example.com"),
        reason="existing_customer",
    ),
    Case(
        "self-referral before the window",
        judge(("anna-keycrm", 1), email="anna@example.com"),
        reason="self_referral",
        of=("anna", "keycrm"),
    ),
    # oneself
    Case("one's own link", judge(("me-keycrm", 45)), reason="self_referral", of=("me", "keycrm")),
    Case("one's own link long ago", judge(("me-keycrm", 1)), reason="self_referral", of=("me", "keycrm")),
    Case("one's own promo code", judge(promo_code="mine"), reason="self_referral", of=("me", "message-help")),
    Case("one's own link beside an unknown code", judge(("me-keycrm", 45), ("nobody", 45)), reason="self_referral"),
    Case("one's own link before another's", judge(("me-keycrm", 44), ("bert-keycrm", 45)), to=("bert", "keycrm")),
    Case(
        "one's own link is not the last click", judge(("bert-jupsoft", 44), ("me-jupsoft", 45)), to=("bert", "jupsoft")
    ),
    Case(
        "one's own link beside another's that is out of time",
        judge(("me-keycrm", 45), ("bert-keycrm", 1)),
        reason="window_expired",
        of=("bert", "keycrm"),
    ),
    Case("the partner's phone", judge(("anna-keycrm", 45), phone="00380501234567"), reason="self_referral"),
    Case("another phone", judge(("anna-keycrm", 45), phone="0501234567"), to=("anna", "keycrm")),
    Case("a blank e-mail is nobody's", judge(("bert-keycrm", 45), email=" ", phone="-"), to=("bert", "keycrm")),
]


@pytest.mark.parametrize("case", CASES, ids=[case.sentence for case in CASES])
def test_binding(case: Case) -> None:
    decision = case.decision
    if case.to:
        assert (decision.outcome, decision.partner_id, decision.program_id) == ("attributed", *case.to)
        assert decision.method == case.method
        assert decision.reason is None
    else:
        assert (decision.outcome, decision.reason) == ("declined", case.reason)
        assert decision.reasons[:1] in ((), (case.reason,))
    if case.of:
        assert (decision.partner_id, decision.program_id) == case.of


def test_the_version_in_force_at_the_signup_judges_and_is_named() -> None:
    first = SHIPPED["keycrm"]
    short = first.attribution.model_copy(update={"window_days": 1})
    second = first.model_copy(update={"version": 2, "attribution": short})
    programs = Programs({"keycrm": ((0, first), (day(60), second))})
    decisions = [
        decide(
            Newcomer("me", day(at)),
            Evidence(frozenset({("anna-keycrm", day(at - 3))})),
            LINKS.get,
            lambda partner_id: PARTNERS[partner_id],
            programs,
        )
        for at in (59, 60)
    ]
    assert [(each.outcome, each.program_version, each.rule) for each in decisions] == [
        ("attributed", 1, "first_click_within_7_days"),
        ("declined", 2, "first_click_within_1_days"),
    ]


def test_a_decision_says_what_it_looked_at_and_how_it_reckoned() -> None:
    decision = judge(("anna-keycrm", 43), ("me-keycrm", 44), ("nobody", 45), ("bert-keycrm", 60))
    assert [(each["code"], each["taken_as"]) for each in decision.inputs["clicks"]] == [
        ("anna-keycrm", "counts"),
        ("me-keycrm", "own_code"),
        ("nobody", "unknown_code"),
        ("bert-keycrm", "after_signup"),
    ]
    assert decision.arithmetic == (
        "click 2025-02-13T00:00:00Z + 7 days = 2025-02-20T00:00:00Z; signup 2025-02-20T00:00:00Z is not before it",
    )


def test_a_customers_e_mail_is_compared_as_the_digest_that_a_platform_may_send() -> None:
    digest = marks("anna@example.com", None)[0].removeprefix("e:")
    decision = judge(("anna-keycrm", 45), email=f"sha256:{digest.upper()}")
    assert decision.reason == "self_referral"


@pytest.mark.parametrize("plus", ["", "+"])
def test_a_phones_digest_may_be_of_either_spelling(plus: str) -> None:
    import hashlib

    digest = hashlib.sha256(f"{plus}380501234567".encode()).hexdigest()
    assert judge(("anna-keycrm", 45), phone=f"sha256:{digest}").reason == "self_referral"


def test_shipped_programs_are_what_the_table_assumes() -> None:
    def model(program: Program) -> tuple[str, int | None]:
        return program.attribution.model, program.attribution.window_days

    assert {program_id: model(program) for program_id, program in SHIPPED.items()} == {
        "jupsoft": ("last_click", 90),
        "proxy-credits": ("last_click", None),
        "message-help": ("last_click", 30),
        "keycrm": ("first_click", 7),
        "active-referrals": ("last_click", None),
    }
