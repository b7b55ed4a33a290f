"""Monthly discounts: activity, companies, a discount's life and its history, as tables."""

import pytest

from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import shipped
from schemas.programs.terms import MonthlyDiscount
from services.rewards.activity import active_spans, is_active
from services.rewards.discounts import Outcome, Share, companies_in_order, held_for, off, outcome, percent_of, status
from services.rewards.discounts_views import movements
from services.rewards.facts import (
    Account,
    Binding,
    Discount,
    Order,
    Paying,
    Person,
    Referral,
    Span,
    SubscriptionStep,
    Verification,
)
from services.rewards.views import movement_key

PROGRAM = next(program for program in shipped() if program.program_id == "active-referrals")
T = parse_instant("2025-02-28T00:00:00Z")
BOUND = Binding("p", "active-referrals", 1, 0)


def step(kind: str, at: int, sub: str = "s", ends: int | None = None) -> SubscriptionStep:
    assert kind in ("trial", "activated", "cancelled")
    return SubscriptionStep(sub, at, kind, ends)  # type: ignore[arg-type]


def paid(at: int, sub: str | None = "s", trial: bool = False) -> Paying:
    return Paying(succeeded_at=at, subscription_id=sub, trial=trial)


ON, OFF = step("activated", 10), step("cancelled", 50)


@pytest.mark.parametrize(
    ("steps", "payments", "spans"),
    [
        ([], [paid(20)], ()),
        ([ON], [], ()),
        ([ON], [paid(20)], ((20, None),)),
        ([ON], [paid(5)], ((10, None),)),  # paid first, activated a moment later
        ([ON], [paid(20, None)], ((20, None),)),
        ([ON], [paid(20, "other")], ()),
        ([ON], [paid(20, trial=True)], ()),
        ([ON, OFF], [paid(20)], ((20, 50),)),
        ([ON, OFF], [paid(50)], ()),
        ([ON, step("cancelled", 10)], [paid(20)], ()),  # at one instant the cancellation comes last
        ([ON, OFF, step("activated", 70)], [paid(20)], ((20, 50), (70, None))),  # again, with the payment of before
        ([ON, OFF, step("activated", 50)], [paid(20)], ((20, 50),)),
        ([step("trial", 0, ends=30), ON], [paid(29)], ()),
        ([step("trial", 0, ends=30), ON], [paid(30)], ((30, None),)),
        ([step("trial", 0, ends=30), step("trial", 25, ends=40), ON], [paid(35)], ()),  # prolonged
        ([step("trial", 0, ends=30), step("trial", 60, ends=90), ON], [paid(35), paid(95)], ((35, 60), (95, None))),
        ([step("trial", 0, ends=30), step("trial", 0, ends=20), ON], [paid(25)], ()),
        ([step("trial", 0, "x", 99), ON], [paid(20, None)], ((20, None),)),  # another subscription's trial
        # two subscriptions, one after the other and overlapping
        ([ON, OFF, step("activated", 40, "t")], [paid(20), paid(45, "t")], ((20, None),)),
        ([ON, OFF, step("activated", 50, "t")], [paid(20), paid(20, "t")], ((20, None),)),
        ([ON, OFF, step("activated", 51, "t")], [paid(20), paid(20, "t")], ((20, 50), (51, None))),
    ],
)
def test_a_referral_is_active_with_all_of_it_for_one_subscription(
    steps: list[SubscriptionStep], payments: list[Paying], spans: tuple[Span, ...]
) -> None:
    assert active_spans(BOUND, steps, payments) == spans
    assert active_spans(BOUND, steps[::-1], payments[::-1]) == spans


def test_nothing_counts_before_the_customer_was_bound() -> None:
    bound = Binding("p", "active-referrals", 1, 40)
    assert active_spans(bound, [ON, OFF], [paid(20)]) == ((40, 50),)
    assert active_spans(bound, [ON, step("cancelled", 40)], [paid(20)]) == ()


@pytest.mark.parametrize(("as_of", "active"), [(20, False), (21, True), (50, True), (51, False)])
def test_as_of_an_instant_counts_what_happened_strictly_before_it(as_of: int, active: bool) -> None:
    assert is_active(((20, 50),), as_of) == active


@pytest.mark.parametrize(
    ("payment", "pending"),
    [
        (Paying(pending_at=T - 1), True),
        (Paying(pending_at=T), False),
        (Paying(pending_at=T - 1, succeeded_at=T), True),
        (Paying(pending_at=T - 2, succeeded_at=T - 1), False),
        (Paying(pending_at=T - 2, failed_at=T - 1), False),
        (Paying(pending_at=T - 2, failed_at=T, succeeded_at=T - 1), False),
        (Paying(succeeded_at=T - 1), False),
    ],
)
def test_a_payment_is_pending_while_it_neither_succeeded_nor_failed(payment: Paying, pending: bool) -> None:
    assert payment.is_pending(T) == pending


@pytest.mark.parametrize(
    ("referrals", "percent"),
    [(0, 0), (4, 0), (5, 5), (9, 5), (10, 10), (14, 10), (15, 20), (19, 20), (20, 40), (99, 40)],
)
def test_scale(referrals: int, percent: int) -> None:
    terms = PROGRAM.term(MonthlyDiscount)
    assert terms is not None and percent_of(terms, referrals) == percent


@pytest.mark.parametrize(
    ("orders", "queue"),
    [
        ([], ["b", "a", "c"]),
        ([Order(T - 2, ("c",))], ["c", "b", "a"]),
        ([Order(T - 2, ("c",)), Order(T - 1, ("a", "c"))], ["a", "c", "b"]),
        ([Order(T - 1, ("a", "c")), Order(T - 2, ("c",))], ["a", "c", "b"]),
        ([Order(T - 2, ("c",)), Order(T - 2, ("a",))], ["a", "b", "c"]),  # the later of two for the same time
        ([Order(T, ("c",))], ["b", "a", "c"]),
        ([Order(T - 2, ("closed", "foreign", "new", "c"))], ["c", "b", "a"]),
    ],
)
def test_companies_queue_in_the_order_in_force_then_by_creation(orders: list[Order], queue: list[str]) -> None:
    accounts = {
        "a": Account(2),
        "b": Account(1),
        "c": Account(2, closed_at=T),
        "closed": Account(0, closed_at=T - 1),
        "new": Account(T),
        "unheard-of": Account(None, closed_at=T + 5),
    }
    assert companies_in_order(accounts, orders, T) == queue


def _referrals(number: int) -> list[Referral]:
    return [Referral(f"c{n}", "active-referrals", ((0, None),)) for n in range(number)]


def test_an_outcome_counts_only_the_programs_own_referrals() -> None:
    person = Person(accounts={"a": Account(0)})
    foreign = [Referral("x", "other", ((0, None),)), Referral("y", "active-referrals", ((T, None),))]
    assert outcome(person, [*_referrals(5), *foreign], PROGRAM, T) == Outcome(5, (Share("a", 5, 5),))


def test_a_program_that_is_off_gives_nothing() -> None:
    person = Person(accounts={"a": Account(0)})
    assert outcome(person, _referrals(5), PROGRAM.model_copy(update={"enabled": False}), T) == Outcome(5)


def test_a_pending_payment_withholds_also_when_there_is_nothing_to_forfeit() -> None:
    assert outcome(Person(payments={"x": Paying(pending_at=0)}), (), PROGRAM, T) == Outcome(0, withheld=True)


# --- a discount's life ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("discount", "closed_at", "stands"),
    [
        (Discount("a", 5, 5), None, "assigned"),
        (Discount("a", 5, 5), T + 1, "lost"),
        (Discount("a", 5, 5, lapsed_at=T + DAY), None, "lapsed"),
        (Discount("a", 5, 5, lapsed_at=T + DAY), T + 1, "lost"),
        (Discount("a", 5, 5, lapsed_at=T + DAY), T + DAY, "lapsed"),
        (Discount("a", 5, 5, lapsed_at=T + DAY, invoice_id="i"), T + 1, "used"),
    ],
)
def test_status_of_a_discount(discount: Discount, closed_at: int | None, stands: str) -> None:
    assert status(Person(accounts={"a": Account(0, closed_at)}), discount) == stands


NEXT = T + 28 * DAY
FEB = Verification("active-referrals", "2025-02", T, 5, discounts=(Discount("a", 5, 5, lapsed_at=NEXT),))
MAR = Verification("active-referrals", "2025-03", NEXT, 9, withheld=True)


@pytest.mark.parametrize(
    ("issued_at", "closed_at", "month"),
    [
        (T - 1, None, None),
        (T, None, "2025-02"),
        (NEXT - 1, None, "2025-02"),
        (NEXT, None, None),
        (T + 5, T + 5, None),
        (T + 5, T + 6, "2025-02"),
    ],
)
def test_an_invoice_takes_the_latest_verification_at_or_before_its_issue(
    issued_at: int, closed_at: int | None, month: str | None
) -> None:
    person = Person(accounts={"a": Account(0, closed_at)}, verifications=(MAR, FEB))
    held = held_for(person, "a", issued_at)
    assert (held.verification.month if held else None) == month


def test_of_several_programs_an_invoice_takes_the_highest_percent() -> None:
    other = Verification("other", "2025-02", T, 5, discounts=(Discount("a", 40, 20),))
    held = held_for(Person(accounts={"a": Account(0)}, verifications=(FEB, other)), "a", T + 1)
    assert held is not None and held.discount.percent == 40


@pytest.mark.parametrize(
    ("minor", "percent", "less"), [(5012, 20, 1002), (50, 5, 2), (70, 5, 4), (0, 40, 0), (1, 40, 0)]
)
def test_a_discount_is_rounded_once_half_to_even(minor: int, percent: int, less: int) -> None:
    assert off(minor, percent) == less


def test_history_has_every_movement() -> None:
    used = Discount("b", 40, 20, None, "i", T + 7, 400, "USD")
    feb = Verification("active-referrals", "2025-02", T, 25, discounts=(*FEB.discounts, used))
    found = sorted(movements((feb, MAR)), key=movement_key)
    assert [(each.occurred_at, each.type, each.account_id) for each in found] == [
        (T, "discount.assigned", "a"),
        (T, "discount.assigned", "b"),
        (T + 7, "discount.used", "b"),
        (NEXT, "discount.withheld", None),
        (NEXT, "discount.lapsed", "a"),
    ]
    assert len({movement_key(each) for each in found}) == len(found)
    assert found[2].amount == Money(minor=400, currency="USD")
