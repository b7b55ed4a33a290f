"""Binding for any evidence: order and repetition never matter, the earliest accepted click wins, one is bound once."""

import random
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import events
from schemas.events import Click, CustomerSignedUp, Event
from schemas.moments import DAY
from schemas.programs import Programs, shipped
from services.attribution import rules
from services.attribution.binding import Evidence, Newcomer, Owner, Partner, decide
from services.attribution.state import Activation, Code, Decision, Person, Shown
from services.runtime.stage import Context, Record, Rows

PROGRAMS = Programs.of(*shipped())
NOW = 1_000 * DAY
CODES = {f"{partner}-{program}": (partner, program) for partner in ("a", "b", "c", "me") for program in PROGRAMS}
ACTIVATED = {"a": 0, "b": NOW - 20 * DAY, "c": NOW + DAY, "me": 0}

clicks = st.lists(
    st.tuples(st.sampled_from([*CODES, "nobody"]), st.integers(NOW - 120 * DAY, NOW + 2 * DAY)), max_size=8
)
evidence = st.builds(Evidence, clicks.map(frozenset), st.sampled_from([None, "promo", "nobody"]))


def owner_of(code: str) -> Owner | None:
    if code == "promo":
        return Owner("promo_code", "a", "message-help")
    return Owner("link", *CODES[code]) if code in CODES else None


def partner_of(partner_id: str) -> Partner:
    return Partner(dict.fromkeys(PROGRAMS, ACTIVATED[partner_id]))


def judged(given_evidence: Evidence) -> Decision:
    return decide(Newcomer("me", NOW), given_evidence, owner_of, partner_of, PROGRAMS)


@given(evidence)
def test_every_signup_is_attributed_or_declined_with_a_reason(told: Evidence) -> None:
    decision = judged(told)
    assert (decision.outcome == "declined") == (decision.reason is not None)
    if decision.outcome == "attributed":
        assert decision.partner_id not in (None, "me")
        assert decision.program_version == 1


@given(evidence)
def test_the_earliest_accepted_click_wins(told: Evidence) -> None:
    decision = judged(told)
    accepted = [each for each in decision.inputs.get("considered", ()) if not each["reasons"]]
    if not accepted:
        assert decision.outcome == "declined"
        return
    first = min(accepted, key=lambda each: (each["clicked_at"] or "", each["program_id"]))
    assert (decision.partner_id, decision.program_id) == (first["partner_id"], first["program_id"])


@given(clicks)
def test_what_cannot_count_changes_nothing_beside_what_can(told: list[tuple[str, int]]) -> None:
    counts = [(code, at) for code, at in told if at <= NOW and code in CODES and CODES[code][0] != "me"]
    if counts:
        with_noise, without = judged(Evidence(frozenset(told))), judged(Evidence(frozenset(counts)))
        told_of = [(each.outcome, each.reason, each.partner_id, each.program_id) for each in (with_noise, without)]
        assert told_of[0] == told_of[1]


def signup(told: Iterable[tuple[str, int]]) -> Event:
    listed = tuple(Click(code=code, clicked_at=at) for code, at in told)
    return Event("e", "platform", NOW, CustomerSignedUp(customer_id="me", clicks=listed))


def fold(state: Person, event: Event) -> tuple[Person, list[events.Payload]]:
    def peek(stage: str, key: str) -> Shown | Code | None:
        if stage == "attribution.codes":
            return Code("link", key, *CODES[key]) if key in CODES else None
        return Shown.of(Person(activations={program: Activation(ACTIVATED[key]) for program in PROGRAMS}))

    context = Context("me", PROGRAMS, Rows(complete=True), Record("customers", 0, 0, b"me", b""), peek)
    change = rules.step(context, state, event)
    return change.state or state, [emit.data for emit in change.emits]


@given(clicks, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_in_which_a_platform_lists_its_clicks_does_not_matter(
    told: list[tuple[str, int]], chance: random.Random
) -> None:
    shuffled = list(told)
    chance.shuffle(shuffled)
    first, second = fold(Person(), signup(told)), fold(Person(), signup([*shuffled, *told[:1]]))
    assert first[1] == second[1]
    assert first[0].decision == second[0].decision


@given(st.lists(clicks, min_size=1, max_size=4))
@settings(max_examples=50)
def test_a_customer_is_decided_on_once_whatever_comes_again(signups: list[list[tuple[str, int]]]) -> None:
    state, said = Person(), list[events.Payload]()
    for told in signups:
        state, more = fold(state, signup(told))
        said += more
    outcomes = [data for data in said if isinstance(data, events.ReferralAttributed | events.ReferralDeclined)]
    assert len(outcomes) == 1
