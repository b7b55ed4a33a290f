"""What holds of the ledger whatever happens to a partner: conservation, no debt by a command, looking back."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas import commands, events
from schemas.commands import Command
from schemas.events import Event, Hold, Payload, Reversal, Standing
from schemas.money import Money, part
from schemas.programs import Programs, shipped
from services.payouts import LEDGER
from services.payouts.ledger import balance, net, postings, pots, totals
from services.payouts.state import AccrualRow, ClientPaymentRow, DepositRow, Person, Row, TopupRow, WithdrawalRow
from services.runtime.border import FUTURE_SECONDS
from services.runtime.stage import Context, Record, Rows

HOUR = 3_600_000_000
ACCOUNT, PARTNER = "own", "p"
BONUS = 1500
PROGRAMS = Programs.of(
    *(
        # one with all: no minimums, a top-up and deposits
        program.model_copy(update={"payouts": program.payouts.model_copy(update={"minimums": (), "topup": topup})})
        for topup in [next(p.payouts.topup for p in shipped() if p.program_id == "keycrm")]
        for program in shipped()
        if program.program_id == "message-help"
    )
)


@dataclass
class Key:
    """The partner's key, folded as the loop does it."""

    person: Person = field(default_factory=Person)
    rows: dict[str, Row] = field(default_factory=dict)

    def fold(self, data: Payload, at: int) -> Any:
        rows: Rows[Row] = Rows(self.rows, complete=True)
        context = Context(PARTNER, PROGRAMS, rows, Record("t", 0, 0, b"", b""), lambda stage, key: None)
        change = LEDGER.step(context, self.person, Event("e", "/t", at, data))
        self.person = self.person if change.state is None else change.state
        for row_id, row in change.rows.items():
            self.rows.pop(row_id, None)
            if row is not None:
                self.rows[row_id] = row
        return change


EARNINGS = ["accrue", "accrue", "accrue", "refund", "refund_all", "hold", "release", "decline", "undo"]
COMMANDS = ["withdraw", "withdraw", "paid", "rejected", "cancelled", "topup", "deposit", "confirm", "pay"]


@dataclass(frozen=True)
class Act:
    """One thing that happens. `pick` chooses among what is there; amounts are scaled by the rule that uses them."""

    kind: str
    payment: int
    minor: int
    days: int
    pick: int


ACTS = st.builds(
    Act,
    kind=st.sampled_from(EARNINGS + COMMANDS),
    payment=st.integers(1, 3),
    minor=st.integers(0, 1000),
    days=st.integers(0, 1),
    pick=st.integers(0, 3),
)
STORIES = st.lists(ACTS, min_size=20, max_size=40)


@dataclass
class Story:
    """Plays acts: hour by hour, each payment's standing kept as the commission service would keep it."""

    key: Key = field(default_factory=Key)
    at: int = 1_000 * HOUR
    standings: dict[int, Standing] = field(default_factory=dict)
    commands: int = 0

    def __post_init__(self) -> None:
        program = "message-help"
        self.fold(events.PartnerActivated(partner_id=PARTNER, program_id=program, activated_at=0))
        self.fold(events.AccountCreated(customer_id=PARTNER, account_id=ACCOUNT))
        bonus = {"bonus_id": "b", "partner_id": PARTNER, "program_id": program, "expires_at": self.at + 15 * HOUR}
        self.fold(events.BonusGranted(**bonus, amount=usd(BONUS)))

    def fold(self, data: Payload) -> Any:
        return self.key.fold(data, self.at)

    def play(self, act: Act) -> None:
        self.at += HOUR
        match act.kind:
            case "accrue":
                self._accrue(act)
            case "refund" | "refund_all" | "hold" | "release" | "decline" | "undo" if act.payment in self.standings:
                self._correct(act, self.standings[act.payment])
            case "withdraw":
                amount = self._asked(act)
                self.command(commands.RequestWithdrawal, program_id="message-help", amount=amount, destination="IBAN1")
            case "topup":
                amount = self._asked(act)
                self.command(commands.RequestTopup, program_id="message-help", account_id=ACCOUNT, amount=amount)
            case "pay":
                self._pay(act)
            case "deposit":
                amount = usd(act.minor + 1)
                self.command(commands.RequestDeposit, program_id="message-help", amount=amount, method="card")
            case "paid" | "rejected" | "cancelled":
                if ids := sorted(row.withdrawal_id for row in self._rows(WithdrawalRow)):
                    own = ids[act.pick % len(ids)]
                    self.command(commands.SettleWithdrawal, withdrawal_id=own, outcome=act.kind, reason="no")
            case "confirm":
                if ids := sorted(row_id for row_id in self.key.rows if row_id.startswith("deposit:")):
                    own = ids[act.pick % len(ids)].removeprefix("deposit:")
                    self.command(commands.ConfirmDeposit, deposit_id=own)

    def _pay(self, act: Act) -> None:
        """For one of four clients, now and then from the bonus; any price, or all that there seems to be."""
        fields = {"integration": ("amo", "altegio")[act.days], "interval": "month", "use_bonus": act.minor % 3 == 0}
        client = f"c{act.pick}"
        price = self._asked(act)
        self.command(commands.PayForClient, program_id="message-help", customer_id=client, list_price=price, **fields)

    def _asked(self, act: Act) -> Money:
        """Anything; or all that the accruals and deposits seem to hold, debts left aside; or a part of it."""
        seeming = sum(max(0, net(row) - row.used_minor) for row in self._rows(AccrualRow))
        seeming += sum(row.amount_minor for row in self._rows(DepositRow) if row.received_at is not None)
        return usd((act.minor + 1, seeming, seeming // 2, seeming // 3)[act.pick] or 1)

    def command(self, kind: type[Command], **fields: Any) -> Any:
        self.commands += 1
        more = {"command_id": f"k{self.commands}", "body_hash": "", "caller": "partner:p", "partner_id": PARTNER}
        return self.fold(kind(**more, **fields))

    def _accrue(self, act: Act) -> None:
        known = self.standings.get(act.payment)
        accrued_at = known.accrued_at if known else self.at
        how = Standing(
            accrued_at=accrued_at,
            base=usd(act.minor * 7),
            amount=usd(act.minor),
            available_at=accrued_at + act.days * 24 * HOUR,
        )
        same = {"base": how.base, "amount": how.amount, "available_at": how.available_at}
        self._say(act, how, events.CommissionAccrued, rate="0.2", **same)

    def _correct(self, act: Act, how: Standing) -> None:
        match act.kind:
            case "refund" | "refund_all":
                paid, before = how.base.minor, how.refunded_minor
                back = paid if act.kind == "refund_all" else min(paid, before + act.minor)
                taken = part(how.amount.minor, back, paid) if paid else 0
                difference = taken - sum(r.amount.minor for r in how.reversals)
                new = Reversal(reversal_id=f"r{self.at}", reversed_at=self.at, amount=usd(difference), reason="refund")
                reversals = (*how.reversals, new) if difference else how.reversals
                self._reverse(act, how.model_copy(update={"refunded_minor": back, "reversals": reversals}), "refund")
            case "hold":
                holds = (*how.holds, Hold(held_from=self.at)) if not _is_open(how) else how.holds
                self._held(act, how.model_copy(update={"holds": holds}))
            case "release" if _is_open(how):
                last = how.holds[-1].model_copy(update={"held_until": self.at})
                self._held(act, how.model_copy(update={"holds": (*how.holds[:-1], last)}))
            case "undo":
                nothing = how.model_copy(update={"amount": usd(0), "reversals": (), "holds": (), "refunded_minor": 0})
                self._reverse(act, nothing, "cancelled")
            case "decline":
                del self.standings[act.payment]
                own = f"p{act.payment}"
                ids = {"commission_id": own, "payment_id": own, "customer_id": "c", "partner_id": PARTNER}
                self.fold(events.CommissionDeclined(**ids, reason="cancelled"))

    def _reverse(self, act: Act, how: Standing, reason: str) -> None:
        self._say(act, how, events.CommissionReversed, reversal_id="r", amount=usd(1), reason=reason)

    def _held(self, act: Act, how: Standing) -> None:
        self._say(act, how, events.CommissionHeld, dispute_id="d", held=_is_open(how))

    def _say(self, act: Act, how: Standing, kind: type[Payload], **more: Any) -> None:
        self.standings[act.payment] = how
        own = f"p{act.payment}"
        ids = {"commission_id": own, "payment_id": own, "customer_id": "c", "partner_id": PARTNER}
        self.fold(kind(**ids, program_id="message-help", program_version=1, standing=how, **more))

    def _rows(self, kind: type[Any]) -> list[Any]:
        return [row for row in self.key.rows.values() if isinstance(row, kind)]


def usd(minor: int) -> Money:
    return Money(minor=minor, currency="USD")


def _is_open(how: Standing) -> bool:
    return bool(how.holds) and how.holds[-1].held_until is None


@given(STORIES)
def test_money_is_neither_made_nor_lost(acts: list[Act]) -> None:
    story = Story()
    for act in acts:
        story.play(act)
        assert sum(pots(p for row in story.key.rows.values() for p in postings(row)).values()) == 0


@given(STORIES, st.integers(-FUTURE_SECONDS, 10 * 24 * 3600))
def test_running_totals_equal_the_sum_over_all_rows(acts: list[Act], later_seconds: int) -> None:
    story = Story()
    for act in acts:
        story.play(act)
        now = story.at + later_seconds * 1_000_000
        assert totals(story.key.person, now) == balance(story.key.rows.values(), now)


@given(STORIES)
def test_no_command_makes_available_negative_and_none_takes_more_than_there_is(acts: list[Act]) -> None:
    story = Story()
    for act in acts:
        before = _available(story, story.at + HOUR)
        story.play(act)
        after = _available(story, story.at)
        if act.kind in ("withdraw", "topup", "pay"):
            assert after == before or 0 <= after < before


@given(STORIES)
def test_a_client_payment_is_charge_and_discount_or_bonus_alone(acts: list[Act]) -> None:
    story = Story()
    for act in acts:
        story.play(act)
    for row in story._rows(ClientPaymentRow):
        rate = Decimal(row.discount_rate)
        assert row.from_bonus_minor in (0, row.list_minor)
        if row.from_bonus_minor:
            assert (row.charged_minor, rate) == (0, 0)
        else:
            assert 0 <= row.charged_minor <= row.list_minor
            assert abs(row.charged_minor - row.list_minor * (1 - rate)) <= Decimal("0.5")


@given(STORIES)
def test_of_a_bonus_no_more_is_used_than_was_granted_and_each_client_once(acts: list[Act]) -> None:
    story = Story()
    for act in acts:
        story.play(act)
    used = [row for row in story._rows(ClientPaymentRow) if row.from_bonus_minor]
    (bonus,) = story.key.person.bonuses
    assert sum(row.from_bonus_minor for row in used) == BONUS - bonus.remaining_minor <= BONUS
    assert len({row.customer_id for row in used}) == len(used)
    assert all(row.made_at < (bonus.expires_at or 0) for row in used)
    firsts = {
        row.customer_id: min(r.made_at for r in story._rows(ClientPaymentRow) if r.customer_id == row.customer_id)
        for row in used
    }
    assert all(row.made_at == firsts[row.customer_id] for row in used)


def _available(story: Story, at: int) -> int:
    figures = balance(story.key.rows.values(), at).get(("message-help", "USD"))
    return figures.available if figures else 0


@given(STORIES)
def test_what_accruals_lent_is_what_outstanding_withdrawals_and_topups_took(acts: list[Act]) -> None:
    story = Story()
    for act in acts:
        story.play(act)
        lent = {row.payment_id: row.used_minor for row in story.key.rows.values() if isinstance(row, AccrualRow)}
        taken: dict[str, int] = {}
        for row in story.key.rows.values():
            outstanding = isinstance(row, TopupRow) or (
                isinstance(row, WithdrawalRow) and row.status in ("processing", "paid")
            )
            for use in row.used if outstanding else ():
                taken[use.payment_id] = taken.get(use.payment_id, 0) + use.amount_minor
        assert {payment: minor for payment, minor in lent.items() if minor} == taken
        assert min(lent.values(), default=0) >= 0


@given(STORIES)
def test_when_everything_is_refunded_and_nothing_was_taken_nothing_is_left(acts: list[Act]) -> None:
    story = Story()
    for act in acts:
        if act.kind in EARNINGS:
            story.play(act)
    for payment in list(story.standings):
        story.play(Act("refund_all", payment, 0, 0, 0))
    for figures in balance(story.key.rows.values(), story.at).values():
        assert (figures.account, figures.pending, figures.available) == (0, 0, 0)


@given(STORIES, st.data())
def test_looking_back_shows_what_stood_then(acts: list[Act], data: st.DataObject) -> None:
    """Commands count from when they were given: looking back to a time equals having stopped there.

    Corrections hold from the payment's own time, so after the time looked back to only commands may come.
    """
    stop = data.draw(st.integers(0, len(acts)), label="stop")
    story = Story()
    for act in acts[:stop]:
        story.play(act)
    as_of = story.at + 1
    stopped = balance(story.key.rows.values(), as_of, as_of)
    for act in acts[stop:]:
        if act.kind in COMMANDS:
            story.play(act)
    assert balance(story.key.rows.values(), as_of, as_of) == stopped


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=6), st.integers(0, 5), st.integers(0, 5))
def test_the_last_standing_of_each_payment_alone_decides(amounts: list[int], first: int, second: int) -> None:
    """Events of different payments may interleave in any way."""

    def played(order: list[int]) -> dict[str, Row]:
        key = Key()
        for payment in order:
            how = Standing(accrued_at=payment, base=usd(10), amount=usd(amounts[payment]), available_at=payment)
            ids: dict[str, Any] = {"commission_id": "c", "payment_id": f"p{payment}", "customer_id": "c"}
            key.fold(
                events.CommissionAccrued(
                    **ids,
                    partner_id=PARTNER,
                    program_id="message-help",
                    program_version=1,
                    base=how.base,
                    rate="0.2",
                    amount=how.amount,
                    available_at=payment,
                    standing=how,
                ),
                payment,
            )
        return key.rows

    order = list(range(len(amounts)))
    swapped = order[first:] + order[:first]
    assert played(order) == played(swapped) == played(list(reversed(order)) + order[second:])
