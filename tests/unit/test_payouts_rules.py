"""The ledger's rules: commissions become accruals; withdrawals, top-ups and deposits are decided."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec
import pytest

from schemas import commands, events
from schemas.commands import Command
from schemas.events import Event, Hold, Payload, Reversal, Standing
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import Programs, shipped
from schemas.programs.terms import Payouts, Program
from services.payouts import LEDGER
from services.payouts.ledger import Figures, balance, totals
from services.payouts.state import Person, Row
from services.runtime.stage import Change, Context, Record, Rows

MARCH = parse_instant("2025-03-01T00:00:00Z")
LATER = MARCH + 200 * DAY
NOW = LATER + 2 * DAY
PROGRAMS = shipped()


class Ledger:
    """One partner's key, folded event by event as the loop does it."""

    def __init__(self, *programs: str, documents: Sequence[Program] = PROGRAMS) -> None:
        self.person, self.rows = Person(), dict[str, Row]()
        self.said: list[Payload] = []
        self._programs, self._numbers = Programs.of(*documents), count(1)
        for program_id in programs:
            self.fold(events.PartnerActivated(partner_id="p", program_id=program_id, activated_at=0))

    def fold(self, data: Payload, at: int = MARCH) -> Change[Person, Row]:
        context = Context("p", self._programs, Rows(self.rows, complete=True), Record("t", 0, 0, b"p", b""), _no_peek)
        change = LEDGER.step(context, self.person, Event("e", "/test", at, data))
        if change.state is not None:
            self.person = msgspec.msgpack.decode(msgspec.msgpack.encode(change.state), type=Person)
        for row_id, row in change.rows.items():
            self.rows.pop(row_id, None)
            if row is not None:
                self.rows[row_id] = msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=LEDGER.row)
        self.said += [emit.data for emit in change.emits]
        return change

    def command(self, kind: type[Command], at: int = LATER, **fields: Any) -> tuple[int, dict[str, Any]]:
        """The status and body that the command is answered with."""
        number = next(self._numbers)
        data = kind(command_id=f"k{number}", body_hash="h", caller="partner:p", partner_id="p", **fields)
        (answer,) = self.fold(data, at).answers
        return answer.status, answer.body

    def withdraw(self, minor: int, program: str = "keycrm", currency: str = "USD", at: int = LATER) -> Any:
        status, body = self.command(
            commands.RequestWithdrawal,
            at,
            program_id=program,
            amount=Money(minor=minor, currency=currency),
            destination="UA903052992990004149123456789",
        )
        return body["withdrawal_id"] if status == 201 else body["code"]

    def settle(self, withdrawal_id: str, outcome: str, at: int = LATER + DAY) -> Any:
        status, body = self.command(
            commands.SettleWithdrawal, at, withdrawal_id=withdrawal_id, outcome=outcome, reason="no such bank"
        )
        return body["status"] if status == 200 else (status, body["code"])

    def top_up(self, minor: int, account: str = "own", program: str = "keycrm", at: int = LATER) -> Any:
        """What the top-up is worth, or the code of the refusal."""
        money = Money(minor=minor, currency="USD")
        status, body = self.command(commands.RequestTopup, at, program_id=program, account_id=account, amount=money)
        return body["credited"]["minor"] if status == 201 else body["code"]

    def own_account(self, account: str = "own") -> "Ledger":
        self.fold(events.AccountCreated(customer_id="p", account_id=account))
        return self

    def figures(self, program: str = "keycrm", currency: str = "USD", at: int = NOW) -> Figures:
        """The balance now; the running totals must agree with the sum over all rows."""
        from_totals = totals(self.person, at)
        assert from_totals == balance(self.rows.values(), at)
        return from_totals[program, currency]

    @property
    def available(self) -> int:
        return self.figures().available


def _no_peek(stage: str, key: str) -> Any:
    raise AssertionError("the ledger looks at no other key")


def usd(minor: int) -> Money:
    return Money(minor=minor, currency="USD")


def standing(
    amount: int,
    *,
    base: int | None = None,
    at: int = MARCH,
    available_at: int | None = None,
    taken: Sequence[tuple[int, int]] = (),
    refunded: int = 0,
    held: Sequence[tuple[int, int | None]] = (),
    reason: str = "refund",
) -> Standing:
    """`taken`: (at, minor) of each reversal. `base`: ten times the amount unless given."""
    return Standing(
        accrued_at=at,
        base=usd(amount * 10 if base is None else base),
        amount=usd(amount),
        available_at=at if available_at is None else available_at,
        refunded_minor=refunded,
        reversals=tuple(
            Reversal(reversal_id=f"r{n}", reversed_at=when, amount=usd(minor), reason=reason)
            for n, (when, minor) in enumerate(taken)
        ),
        holds=tuple(Hold(held_from=since, held_until=until) for since, until in held),
    )


def accrued(payment: str, amount: int, program: str = "keycrm", **more: Any) -> events.CommissionAccrued:
    how = standing(amount, **more)
    return events.CommissionAccrued(
        **_ids(payment, program),
        base=how.base,
        rate="0.10",
        amount=how.amount,
        available_at=how.available_at,
        standing=how,
    )


def refunded(payment: str, how: Standing, reason: str = "refund", program: str = "keycrm") -> events.CommissionReversed:
    amount = how.reversals[-1].amount if how.reversals else usd(1)
    return events.CommissionReversed(
        **_ids(payment, program), reversal_id="r", amount=amount, reason=reason, standing=how
    )


def disputed(payment: str, how: Standing) -> events.CommissionHeld:
    return events.CommissionHeld(**_ids(payment, "keycrm"), dispute_id="d", held=True, standing=how)


def declined(payment: str) -> events.CommissionDeclined:
    return events.CommissionDeclined(
        commission_id=f"c-{payment}", payment_id=payment, customer_id="c", partner_id="p", reason="cancelled"
    )


def _ids(payment: str, program: str) -> dict[str, Any]:
    return {
        "commission_id": f"c-{payment}",
        "payment_id": payment,
        "customer_id": "c",
        "partner_id": "p",
        "program_id": program,
        "program_version": 1,
    }


# --- accruals -------------------------------------------------------------------------------------------------------


def test_an_accrual_is_available_at_once_where_nothing_holds_it() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 1000))
    assert (ledger.figures().sums.accrued, ledger.available) == (1000, 1000)


def test_an_accrual_is_pending_until_its_hold_ends_and_not_at_its_end() -> None:
    ledger, ends = Ledger("jupsoft"), MARCH + 90 * DAY
    ledger.fold(accrued("p1", 1000, "jupsoft", available_at=ends))
    pending = [ledger.figures("jupsoft", at=at).pending for at in (MARCH, ends - 1, ends)]
    assert pending == [1000, 1000, 0]


def test_a_partial_refund_takes_its_share_and_shows_as_reversed() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 1000))
    ledger.fold(refunded("p1", standing(1000, taken=[(MARCH + DAY, 250)], refunded=2500)))
    assert (ledger.figures().sums.accrued, ledger.figures().sums.reversed, ledger.available) == (1000, 250, 750)


def test_a_full_refund_leaves_exactly_zero() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 1000))
    ledger.fold(refunded("p1", standing(1000, taken=[(MARCH, 333), (MARCH + DAY, 667)], refunded=10_000)))
    assert (ledger.figures().sums.accrued, ledger.figures().sums.reversed, ledger.available) == (1000, 1000, 0)


def test_a_refund_before_the_hold_ends_lowers_what_is_pending() -> None:
    ledger, ends = Ledger("keycrm"), MARCH + 90 * DAY
    ledger.fold(refunded("p1", standing(1000, available_at=ends, taken=[(MARCH + DAY, 250)], refunded=2500)))
    assert ledger.figures(at=MARCH + 2 * DAY).pending == 750


def test_the_same_event_twice_counts_once() -> None:
    ledger = Ledger("keycrm")
    for _ in range(2):
        ledger.fold(accrued("p1", 1000))
    assert ledger.available == 1000


def test_a_correction_sets_the_accrual_and_does_not_add_to_it() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 1000))
    ledger.fold(
        events.CommissionAdjusted(
            **_ids("p1", "keycrm"),
            adjustment_id="a",
            rate="0.20",
            amount=usd(1000),
            available_at=MARCH,
            caused_by="x",
            standing=standing(2000, base=10_000),
        )
    )
    assert ledger.figures().sums.accrued == 2000


def test_a_payment_that_earns_nothing_after_all_leaves_no_entry() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 1000))
    ledger.fold(refunded("p1", standing(0), reason="cancelled"))
    assert (ledger.person.books, ledger.rows) == ((), {})
    ledger.fold(declined("p1"))
    assert (ledger.person.books, ledger.rows) == ((), {})


def test_a_decline_alone_removes_what_was_accrued() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 1000))
    ledger.fold(declined("p1"))
    assert (ledger.person.books, ledger.rows) == ((), {})


def test_leaving_before_the_hold_is_a_reversal_and_not_an_undoing() -> None:
    ledger = Ledger("jupsoft")
    how = standing(1000, available_at=MARCH + 90 * DAY, taken=[(MARCH + DAY, 1000)], reason="left_before_hold")
    ledger.fold(refunded("p1", how, reason="left_before_hold", program="jupsoft"))
    assert (ledger.figures("jupsoft").sums.accrued, ledger.figures("jupsoft").sums.reversed) == (1000, 1000)


def test_an_open_dispute_holds_what_is_left_and_its_end_releases_it() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 1000))
    for until, pending, available in ((None, 750, 0), (MARCH + 2 * DAY, 0, 750)):
        how = standing(1000, taken=[(MARCH, 250)], refunded=2500, held=[(MARCH + DAY, until)])
        ledger.fold(disputed("p1", how))
        assert (ledger.figures().pending, ledger.available) == (pending, available)


def test_books_of_two_currencies_do_not_mix() -> None:
    ledger = Ledger("jupsoft")
    ledger.fold(accrued("p1", 1000, "jupsoft"))
    how = standing(500).model_copy(update={"amount": Money(minor=500, currency="JPY")})
    ledger.fold(accrued("p2", 500, "jupsoft").model_copy(update={"standing": how}))
    assert ledger.figures("jupsoft", "USD").available == 1000
    assert ledger.figures("jupsoft", "JPY").available == 500


def test_the_events_of_a_payment_that_nobody_referred_are_passed_over() -> None:
    ledger = Ledger()
    assert ledger.fold(declined("p1")) == Change()


# --- looking back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("as_of", "accrued_then", "reversed_then", "pending_then", "available_then"),
    [
        (MARCH, None, 0, 0, 0),  # strictly before
        (MARCH + 1, 1000, 0, 1000, 0),  # not available yet
        (MARCH + 10 * DAY, 1000, 0, 0, 1000),  # a hold that ends at that time is over
        (MARCH + 20 * DAY, 1000, 0, 0, 1000),  # the dispute begins: strictly before
        (MARCH + 20 * DAY + 1, 1000, 0, 1000, 0),
        (MARCH + 25 * DAY, 1000, 0, 0, 1000),  # won
        (MARCH + 30 * DAY + 1, 1000, 250, 0, 750),
        (MARCH + 40 * DAY + 1, 1000, 250, 750, 0),  # a second dispute, still open
        (LATER + 1000 * DAY, 1000, 250, 750, 0),
    ],
)
def test_a_balance_looks_back(
    as_of: int, accrued_then: int | None, reversed_then: int, pending_then: int, available_then: int
) -> None:
    ledger = Ledger("keycrm")
    held = [(MARCH + 20 * DAY, MARCH + 25 * DAY), (MARCH + 40 * DAY, None)]
    how = standing(1000, available_at=MARCH + 10 * DAY, taken=[(MARCH + 30 * DAY, 250)], refunded=2500, held=held)
    ledger.fold(refunded("p1", how))
    then = balance(ledger.rows.values(), as_of, as_of).get(("keycrm", "USD"))
    if accrued_then is None:
        assert then is None
    else:
        assert then is not None
        assert (then.sums.accrued, then.sums.reversed) == (accrued_then, reversed_then)
        assert (then.pending, then.available) == (pending_then, available_then)


def test_commands_count_from_the_moment_they_were_given() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 6000))
    ledger.settle(ledger.withdraw(5000, at=LATER), "paid", at=LATER + DAY)
    times = (LATER, LATER + 1, LATER + DAY, LATER + DAY + 1)
    then = [balance(ledger.rows.values(), at, at)["keycrm", "USD"].sums for at in times]
    assert [(s.processing, s.paid) for s in then] == [(0, 0), (5000, 0), (5000, 0), (0, 5000)]


# --- withdrawals ----------------------------------------------------------------------------------------------------


def test_a_withdrawal_is_processing_and_then_paid() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 6000))
    withdrawal = ledger.withdraw(5000)
    assert (ledger.figures().sums.processing, ledger.available) == (5000, 1000)
    assert ledger.settle(withdrawal, "paid") == "paid"
    assert (ledger.figures().sums.processing, ledger.figures().sums.paid, ledger.available) == (0, 5000, 1000)
    assert [said.type for said in ledger.said] == ["withdrawal.requested", "withdrawal.paid"]


@pytest.mark.parametrize(
    ("minor", "currency", "code"),
    [
        (1, "EUR", "currency_not_supported"),
        (1_000_000, "EUR", "currency_not_supported"),
        (4999, "USD", "below_minimum"),
        (6001, "USD", "insufficient_balance"),
    ],
)
def test_a_withdrawal_is_refused_in_this_order(minor: int, currency: str, code: str) -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 6000))
    before = ledger.person
    assert ledger.withdraw(minor, currency=currency) == code
    assert (ledger.person, ledger.said) == (before, [])


def test_below_the_minimum_is_said_before_too_little_money() -> None:
    assert Ledger("keycrm").withdraw(4999) == "below_minimum"


def test_a_program_without_minimums_pays_any_positive_amount_in_any_currency() -> None:
    ledger = Ledger("jupsoft")
    ledger.fold(accrued("p1", 1000, "jupsoft"))
    assert ledger.withdraw(0, "jupsoft") == "below_minimum"
    assert ledger.withdraw(1, "jupsoft", "EUR") == "insufficient_balance"
    assert ledger.withdraw(1, "jupsoft").startswith("wd_")


def test_a_program_may_pay_nothing_out() -> None:
    (keycrm,) = (program for program in PROGRAMS if program.program_id == "keycrm")
    closed = keycrm.model_copy(update={"payouts": Payouts(withdrawals=False)})
    assert Ledger("keycrm", documents=[closed]).withdraw(1) == "withdrawals_not_offered"


@pytest.mark.parametrize("program", ["jupsoft", "no-such-program"])
def test_a_program_that_the_partner_is_not_active_in_is_not_found(program: str) -> None:
    assert Ledger("keycrm").withdraw(5000, program) == "not_found"


def test_what_is_pending_or_held_cannot_be_withdrawn() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 5000, available_at=LATER + DAY))
    ledger.fold(disputed("p2", standing(5000, held=[(MARCH, None)])))
    assert ledger.withdraw(5000, at=LATER) == "insufficient_balance"
    assert ledger.withdraw(5000, at=LATER + DAY).startswith("wd_")


@pytest.mark.parametrize("outcome", ["rejected", "cancelled"])
def test_a_withdrawal_that_is_not_paid_gives_the_money_back_to_the_same_accruals(outcome: str) -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 3000))
    ledger.fold(accrued("p2", 3000))
    before = dict(ledger.rows)
    withdrawal = ledger.withdraw(5000)
    assert ledger.settle(withdrawal, outcome) == outcome
    assert ledger.available == 6000
    assert {row_id: ledger.rows[row_id] for row_id in before} == before
    assert ledger.said[-1].type == f"withdrawal.{outcome}"


@pytest.mark.parametrize("first", ["paid", "rejected", "cancelled"])
@pytest.mark.parametrize("second", ["paid", "rejected", "cancelled"])
def test_a_withdrawal_is_settled_once(first: str, second: str) -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 5000))
    withdrawal = ledger.withdraw(5000)
    ledger.settle(withdrawal, first)
    before = ledger.figures()
    assert ledger.settle(withdrawal, second) == (409, "already_settled")
    assert ledger.figures() == before


def test_a_withdrawal_of_nobody_is_not_found() -> None:
    assert Ledger("keycrm").settle("wd_absent", "paid") == (404, "not_found")


def test_the_answer_never_repeats_the_whole_destination() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 5000))
    money = usd(5000)
    status, body = ledger.command(
        commands.RequestWithdrawal, program_id="keycrm", amount=money, destination="UA9030529", comment="March"
    )
    assert status == 201
    assert (body["destination"], body["comment"], body["status"]) == ("0529", "March", "processing")


def test_refund_after_payout_becomes_a_debt_that_later_accruals_fill() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 5000))
    ledger.settle(ledger.withdraw(5000), "paid")
    ledger.fold(refunded("p1", standing(5000, taken=[(LATER, 5000)], refunded=50_000)))
    assert ledger.available == -5000
    ledger.fold(accrued("p2", 9000, at=LATER))
    assert ledger.available == 4000
    assert ledger.withdraw(5000, at=LATER + DAY) == "insufficient_balance"
    ledger.fold(accrued("p3", 1000, at=LATER))
    assert ledger.withdraw(5000, at=LATER + DAY).startswith("wd_")
    assert ledger.available == 0


def test_an_accrual_that_is_undone_after_it_was_withdrawn_is_a_debt_too() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 5000))
    withdrawal = ledger.withdraw(5000)
    ledger.fold(refunded("p1", standing(0), reason="cancelled"))
    ledger.fold(declined("p1"))
    assert (ledger.figures().sums.accrued, ledger.available) == (0, -5000)
    ledger.settle(withdrawal, "cancelled")
    assert ledger.available == 0
    assert [row_id for row_id in ledger.rows if row_id.startswith("accrual:")] == []


def test_a_payment_that_counts_again_keeps_what_was_used_of_it() -> None:
    ledger = Ledger("keycrm")
    ledger.fold(accrued("p1", 5000))
    ledger.withdraw(5000)
    ledger.fold(declined("p1"))
    ledger.fold(accrued("p1", 6000))
    assert ledger.available == 1000


# --- top-ups --------------------------------------------------------------------------------------------------------


def test_a_top_up_is_worth_twenty_points_more_of_the_payment() -> None:
    ledger = Ledger("keycrm").own_account()
    ledger.fold(accrued("p1", 1000, base=10_000))
    assert ledger.top_up(1000) == 3000
    assert (ledger.figures().sums.topped_up, ledger.available) == (1000, 0)


def test_after_a_refund_what_is_left_stands_for_what_is_left_of_the_payment() -> None:
    ledger = Ledger("keycrm").own_account()
    ledger.fold(refunded("p1", standing(1000, base=10_000, taken=[(MARCH, 250)], refunded=2500)))
    assert ledger.top_up(750) == 750 + 1500


def test_a_top_up_takes_the_oldest_accruals_and_ties_by_id() -> None:
    ledger = Ledger("keycrm").own_account()
    ledger.fold(accrued("p3", 300, base=1000, at=MARCH + 1))
    ledger.fold(accrued("p2", 200, base=1000))
    ledger.fold(accrued("p1", 100, base=1000))
    # all of p1 and half of p2: 200 + 20 % of (1000 + 500)
    assert ledger.top_up(200) == 200 + 300


def test_what_a_withdrawal_used_is_not_worth_anything_again() -> None:
    ledger = Ledger("keycrm").own_account()
    ledger.fold(accrued("p1", 5000, base=50_000))
    ledger.fold(accrued("p2", 2000, base=10_000, at=MARCH + 1))
    ledger.withdraw(6000)
    # half of p2 is left, which stands for 50.00
    assert ledger.top_up(1000) == 1000 + 1000


def test_the_parts_of_a_top_up_are_rounded_once_at_the_end() -> None:
    ledger = Ledger("keycrm").own_account()
    for payment in ("p1", "p2", "p3"):
        ledger.fold(accrued(payment, 1, base=12))
    # 3 + 20 % of 36 = 10.2; rounded one by one it would be 3 × round(3.4) = 9
    assert ledger.top_up(3) == 10


def test_a_debt_is_filled_from_the_oldest_accruals_before_a_top_up_takes_any() -> None:
    ledger = Ledger("keycrm").own_account()
    ledger.fold(accrued("p1", 5000, base=50_000))
    ledger.withdraw(5000)
    ledger.fold(refunded("p1", standing(5000, base=50_000, taken=[(LATER, 5000)], refunded=50_000)))
    ledger.fold(accrued("p2", 5000, base=50_000, at=MARCH + 1))
    ledger.fold(accrued("p3", 2000, base=10_000, at=MARCH + 2))
    # p2 fills the debt, p3 is free: 2000 + 20 % of 10_000
    assert ledger.top_up(2001) == "insufficient_balance"
    assert ledger.top_up(2000) == 2000 + 2000


def test_a_top_up_is_refused_in_this_order() -> None:
    ledger = Ledger("keycrm", "jupsoft")
    assert ledger.top_up(1000, program="jupsoft") == "topup_not_offered"
    assert ledger.top_up(1000) == "account_not_owned"
    ledger.own_account()
    assert ledger.top_up(1000) == "insufficient_balance"


@pytest.mark.parametrize(
    ("at", "answer"), [(LATER - 1, 3000), (LATER, "account_not_owned"), (LATER + 1, "account_not_owned")]
)
def test_a_closed_account_cannot_be_topped_up(at: int, answer: Any) -> None:
    ledger = Ledger("keycrm").own_account()
    ledger.fold(accrued("p1", 1000, base=10_000))
    ledger.fold(events.AccountClosed(customer_id="p", account_id="own"), LATER)
    assert ledger.top_up(1000, at=at) == answer


def test_anybodys_accounts_are_remembered_before_they_become_a_partner() -> None:
    ledger = Ledger().own_account()
    ledger.fold(events.PartnerActivated(partner_id="p", program_id="keycrm", activated_at=0))
    ledger.fold(accrued("p1", 1000, base=10_000))
    assert ledger.top_up(1000) == 3000


# --- deposits -------------------------------------------------------------------------------------------------------


def eur(minor: int) -> Money:
    return Money(minor=minor, currency="EUR")


@pytest.mark.parametrize(
    ("method", "status", "said"),
    [("invoice", "invoiced", ["deposit.invoiced", "deposit.received"]), ("card", "pending", ["deposit.received"])],
)
def test_a_deposit_counts_when_it_is_confirmed(method: str, status: str, said: list[str]) -> None:
    ledger = Ledger("message-help")
    code, body = ledger.command(commands.RequestDeposit, program_id="message-help", amount=eur(10_000), method=method)
    assert (code, body["status"], ledger.person.books) == (201, status, ())
    deposit = body["deposit_id"]
    assert ledger.command(commands.ConfirmDeposit, deposit_id=deposit)[0] == 200
    assert ledger.figures("message-help", "EUR").sums.deposits == 10_000
    assert ledger.figures("message-help", "EUR").available == 10_000
    assert ledger.command(commands.ConfirmDeposit, deposit_id=deposit)[1]["code"] == "already_settled"
    assert [payload.type for payload in ledger.said] == said


def test_an_unknown_deposit_is_not_found() -> None:
    assert Ledger("message-help").command(commands.ConfirmDeposit, deposit_id="dep_absent")[0] == 404


def test_a_program_without_an_integrator_account_takes_no_deposits() -> None:
    answer = Ledger("keycrm").command(commands.RequestDeposit, program_id="keycrm", amount=usd(1), method="card")
    assert answer[1]["code"] == "deposits_not_offered"


def test_a_withdrawal_takes_deposits_after_accruals() -> None:
    ledger = Ledger("message-help")
    _, body = ledger.command(commands.RequestDeposit, program_id="message-help", amount=usd(1000), method="card")
    ledger.command(commands.ConfirmDeposit, deposit_id=body["deposit_id"])
    ledger.fold(accrued("p1", 500, "message-help"))
    assert ledger.withdraw(1501, "message-help") == "insufficient_balance"
    ledger.withdraw(1400, "message-help")
    assert ledger.figures("message-help").available == 100
    accrual = ledger.rows["accrual:p1"]
    assert accrual.used_minor == 500
