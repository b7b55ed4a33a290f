"""Whether an event leaves a customer's frame as it was can be told without computing the frame of before."""

from hypothesis import event, given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.moments import DAY
from schemas.programs import Programs, shipped
from services.commission.sales import is_decided
from services.commission.state import Account, Binding, Customer, PaidByPartner, Payment, SubscriptionStep
from services.commission.terms import Purchases, frame, reasons, stays, unmoved

PROGRAMS = Programs.of(*shipped())
PROGRAM_IDS = ("jupsoft", "keycrm", "proxy-credits", "message-help", "active-referrals")
TIMES = st.integers(0, 8).map(lambda day: 20_000 * DAY + day * 100 * DAY)
PAID_BY = PaidByPartner("p", "message-help", 1, "kommo", "USD", 100, "0.35", 65, 0, False)
PAYMENTS = st.builds(
    Payment,
    payment_id=st.sampled_from("abcd"),
    at=TIMES,
    minor=st.integers(0, 2),
    currency=st.just("USD"),
    caused_by=st.just("evt"),
    subscription_id=st.none() | st.sampled_from(("s1", "s2")),
    product_id=st.none() | st.sampled_from(("pro", "lite")),
    product_family=st.none() | st.sampled_from(("residential", "mobile")),
    interval=st.none() | st.sampled_from(("month", "year")),
    paid_by=st.none() | st.none() | st.just(PAID_BY),
)
STEPS = st.builds(
    SubscriptionStep,
    subscription_id=st.sampled_from(("s1", "s2")),
    at=TIMES,
    kind=st.sampled_from(("activated", "downgrade", "cancelled")),
    product_id=st.none() | st.just("pro"),
)
BINDINGS = st.builds(
    Binding,
    partner_id=st.integers(0, 9).map(lambda n: "p" if n else ""),
    program_id=st.integers(0, 9).map(lambda n: PROGRAM_IDS[max(0, n - 5)]),
    program_version=st.just(1),
    attributed_at=TIMES,
    caused_by=st.just("evt"),
)
CUSTOMERS = st.builds(
    Customer,
    binding=BINDINGS,
    signed_up_at=st.none() | TIMES,
    accounts=st.lists(st.builds(Account, st.just("a"), TIMES), max_size=1).map(tuple),
    steps=st.lists(STEPS, max_size=2).map(tuple),
    payments=st.lists(PAYMENTS, max_size=4).map(lambda each: {payment.payment_id: payment for payment in each}),
)


def _changed(draw: st.DrawFn, before: Customer) -> tuple[Customer, list[str]]:
    match draw(st.sampled_from(("payments", "payments", "payments", "steps", "accounts", "binding", "signup"))):
        case "payments":
            new = draw(st.lists(PAYMENTS, min_size=1, max_size=2))
            payments = {**before.payments, **{payment.payment_id: payment for payment in new}}
            return replace(before, payments=payments), [payment.payment_id for payment in new]
        case "steps":
            return replace(before, steps=(*before.steps, draw(STEPS))), []
        case "accounts":
            return replace(before, accounts=(*before.accounts, Account("b", draw(TIMES)))), []
        case "binding":
            return replace(before, binding=draw(BINDINGS)), []
        case _:
            return replace(before, signed_up_at=draw(TIMES)), []


@st.composite
def changes(draw: st.DrawFn) -> tuple[Customer, Customer, list[str]]:
    before = draw(CUSTOMERS)
    return (before, *_changed(draw, before))


@given(changes())
def test_frame_that_is_said_to_stay_is_the_same(change: tuple[Customer, Customer, list[str]]) -> None:
    before, after, touched = change
    seen = frame(PROGRAMS, after)
    told = stays(seen, before, after, touched)
    event(f"stays: {told}, of {type(seen).__name__}")
    assert not told or seen == frame(PROGRAMS, before)


@given(CUSTOMERS, st.integers(1, 9))
def test_payment_after_all_others_is_known_to_change_nothing(before: Customer, days: int) -> None:
    at = max((payment.at for payment in before.payments.values()), default=0) + days * DAY
    after = replace(before, payments={**before.payments, "late": Payment("late", at, 1, "USD", "evt")})
    seen = frame(PROGRAMS, after)
    if isinstance(seen, Purchases) or (seen and seen.first in (None, (at, "late"))):
        return
    assert stays(seen, before, after, ["late"])


@given(changes())
def test_where_nothing_moved_no_other_payment_is_decided_anew(change: tuple[Customer, Customer, list[str]]) -> None:
    before, after, touched = change
    seen = frame(PROGRAMS, after)
    if not unmoved(PROGRAMS, seen, before, after, touched):
        event("moved")
        return
    for payment_id, payment in before.payments.items():
        if payment_id not in touched and is_decided(after, payment):
            assert reasons(PROGRAMS, before, seen, payment) == reasons(PROGRAMS, after, seen, payment)
