"""The loop's defences against what it reads, each shown with it and without it, as in `test_loop.py`."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from schemas import commands, events
from schemas.events import Event, Unreadable
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from services.commission import sales
from services.payouts import STAGES
from services.runtime import border
from services.runtime import cell as loop
from services.runtime.border import Folded, Ignored
from services.runtime.cell import Cell, EdgeBroken
from services.runtime.journal import Diverged
from services.runtime.repeats import Repeat
from services.runtime.simulate import MemoryReader, World
from services.runtime.stage import Record
from tests.worlds import balance, world

START = parse_instant("2025-03-01T00:00:00Z")
AT = START + 100 * DAY
SALES = "commission.sales", 0


def _bound_world(partitions: int = 1) -> World:
    made = world(partitions=partitions)
    bound = events.ReferralAttributed(
        customer_id="c1", partner_id="ann", program_id="keycrm", program_version=1, method="click", attributed_at=START
    )
    made.publish(Event("bound", "/attribution", START, bound))
    return made.run()


def _paid(number: int, minor: int = 10_000) -> Event:
    money = Money(minor=minor, currency="USD")
    paid = events.PaymentSucceeded(payment_id=f"p{number}", customer_id="c1", amount=money)
    return Event(f"paid{number}-{minor}", "/platform", START + number * DAY, paid)


def _left(made: World) -> int:
    found = balance(made, "ann", "keycrm", at=AT)
    return 0 if found is None else found["available"]


# --- positions: reading goes on where the memory says, not where the consumer group has been ------------------------


def _folded_from(made: World, position_of: Callable[[Cell], int]) -> World:
    """A payment is folded, its memory goes back before anything is on the log; then its next owner reads on."""
    before = made.stores[SALES].copied()
    made.publish(_paid(1))

    async def fold() -> None:
        for again in (False, True):
            cell = _owner(made)
            await cell.open()
            start = position_of(cell) if again else cell.position("payments")
            outgoing = await cell.fold("payments", made.log["payments", 0][start:])
            if again:
                made._send(outgoing)
                await cell.trim(outgoing)
            else:
                vars(made.stores[SALES]).update(vars(before))

    asyncio.run(fold())
    made.abandon()
    return made.run()


def _owner(made: World) -> Cell:
    stage, partition = SALES
    return Cell(
        made.stages[stage],
        partition,
        made.partitions,
        made.stores[SALES],
        lambda: made.programs,
        made.stages,
        made.codec,
    )


@pytest.mark.defence(
    "reading goes on from the stored position",
    "The group's offset is ahead of a memory that went back: what lies between is never folded.",
    where="services/runtime/worker.py: seek_to_committed",
)
def test_without_the_stored_position_a_payment_is_lost() -> None:
    made = _bound_world()
    made.publish(_paid(2))
    made.run()
    assert _left(_folded_from(made, lambda cell: cell.position("payments"))) == 2_000
    made = _bound_world()
    made.publish(_paid(2))
    made.run()
    group = len(made.log["payments", 0]) + 1  # committed for the one that is folded and lost
    made.publish(_paid(3))
    assert _left(_folded_from(made, lambda _: group)) != 3_000


# --- edges: what is missing is noticed ------------------------------------------------------------------------------


def _with_a_record_missing(made: World) -> World:
    """Two payments are said, and the log gives the second alone."""
    made.publish(_paid(1), _paid(2))
    real = made.append

    def append(topic: str, *arguments: Any, **more: Any) -> None:
        if topic == "sales" and not hasattr(made, "lost"):
            made.lost = True  # type: ignore[attr-defined]
            return
        real(topic, *arguments, **more)

    made.append = append  # type: ignore[method-assign]
    return made.run()


def _notices_no_hole(cell: Cell, record: Record, batch: Any) -> bool:
    headers = dict(record.headers)
    if loop.EDGE_HEADER not in headers:
        return True
    mark, number = f"edge:{headers[loop.EDGE_HEADER].decode()}:{record.topic}", int(headers[loop.NUMBER_HEADER])
    if number <= cell._number(batch, mark):
        return False
    batch.commit.meta[mark] = number
    return True


def test_a_record_that_is_missing_stops_the_cell() -> None:
    with pytest.raises(EdgeBroken):
        _with_a_record_missing(_bound_world())


@pytest.mark.defence(
    "a hole in an edge stops the cell",
    "A record that Kafka lost is passed over, and nobody ever knows.",
    where="services/runtime/cell.py: _is_next_of_its_edge",
)
def test_without_looking_for_holes_a_payment_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cell, "_is_next_of_its_edge", _notices_no_hole)
    assert _left(_with_a_record_missing(_bound_world())) != 2_000


# --- dead letters: what cannot be read holds nobody up, and is not lost ---------------------------------------------


def _with_an_unreadable_record(made: World) -> World:
    made.append("payments", 0, b"c1", b"{not json")
    made.publish(_paid(1))
    return made.run()


def test_what_cannot_be_read_is_a_dead_letter_and_holds_nobody_up() -> None:
    made = _with_an_unreadable_record(_bound_world())
    assert _left(made) == 1_000
    (letter,) = made.log["dead-letters", 0]
    assert letter.value == b"{not json"


@pytest.mark.defence(
    "what cannot be read becomes a dead letter",
    "One bad record stops its partition for good, and with it everybody behind it.",
    where="services/runtime/border.py: take",
)
def test_without_dead_letters_one_bad_record_stops_everybody_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(border, "Unreadable", ZeroDivisionError)
    made = _bound_world()
    with pytest.raises(Unreadable):
        _with_an_unreadable_record(made)
    assert _left(made) == 0


# --- keys: all events of a key meet in one cell ---------------------------------------------------------------------


def _take_where_it_lies(record: Record, topic: Any, *_: Any) -> Folded | Ignored:
    event = border._event(record, topic)
    return Folded(topic.key(event.data), event)


@pytest.mark.defence(
    "a wrongly keyed record is put back under its key",
    "A payment and the customer's referral never meet: it earns nothing.",
    where="services/runtime/border.py: take",
)
def test_without_putting_back_a_wrongly_keyed_payment_earns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for patched, earned in ((False, 1_000), (True, 0)):
        made = _bound_world(partitions=3)
        if patched:
            monkeypatch.setattr(border, "take", _take_where_it_lies)
        wrong = next(number for number in range(3) if not made.stores["commission.sales", number].states)
        made.publish(_paid(1), partition=wrong)
        made.run()
        assert _left(made) == earned


# --- repeats: what is said twice counts once ------------------------------------------------------------------------


@pytest.mark.defence(
    "an event counts once, by its business id",
    "Other content under the id of a payment that was decided replaces it.",
    where="services/runtime/repeats.py: judge",
)
def test_without_knowing_repeats_a_payment_counts_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for patched, as_it_was in ((False, True), (True, False)):
        if patched:
            monkeypatch.setattr(sales, "judge", lambda seen, event: (Repeat.NEW, seen))
        made = _bound_world()
        made.publish(_paid(1))
        made.run()
        made.publish(_paid(1, minor=99_900))
        made.run()
        assert (_left(made) == 1_000) is as_it_was


def _withdrawn_twice() -> tuple[int, int]:
    """One withdrawal, asked for twice under one idempotency key. The status that is answered after each."""
    made = _bound_world()
    made.publish(Event("own", "/platform", START, events.AccountCreated(customer_id="ann", account_id="own")))
    active = events.PartnerActivated(partner_id="ann", program_id="keycrm", activated_at=START)
    made.publish(Event("active", "/attribution", START, active), _paid(1, minor=100_000))
    made.run()
    asked = commands.RequestWithdrawal(
        command_id="w-1",
        body_hash="-",
        caller="partner:ann",
        partner_id="ann",
        program_id="keycrm",
        amount=Money(minor=10_000, currency="USD"),
        destination="UA90 3052",
    )
    given = []
    for attempt in range(2):
        made.publish(Event(f"w-1:{attempt}", "/payouts", START + 9 * DAY, asked))
        made.run()
        answer = asyncio.run(MemoryReader(made).answers(STAGES, ["w-1"])).get("w-1")
        assert answer is not None
        given.append(answer.status)
    return given[0], given[1]


@pytest.mark.defence(
    "a command is decided once, by its idempotency key",
    "A retry is decided anew: who was told that it was done is told that it cannot be.",
    where="services/runtime/cell.py: _fold_one",
)
def test_without_knowing_commands_a_retry_is_decided_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _withdrawn_twice() == (201, 201)
    monkeypatch.setattr(loop, "_command_of", lambda event: None)
    assert _withdrawn_twice() == (201, 409)


# --- the journal: what was said stays as it was said ----------------------------------------------------------------


def _folded_again_by_other_rules(made: World) -> World:
    """A payment is said and its memory lost; the rules of the next version have nothing to say of it."""
    made.publish(_paid(1))
    made.run()
    stage = made.stages[SALES[0]]

    def other(context: Any, state: Any, event: Event) -> Any:
        change = stage.step(context, state, event)
        return type(change)(state=change.state, rows=change.rows) if event.id == _paid(1).id else change

    made.stages[SALES[0]] = type(stage)(**{**vars(stage), "step": other})
    made.lose(SALES)
    made.publish(_paid(2))
    return made.run()


def test_rules_that_say_other_records_than_were_said_are_refused() -> None:
    with pytest.raises(Diverged, match="says other records for its commit"):
        _folded_again_by_other_rules(_bound_world())


@pytest.mark.defence(
    "a rebuild that says other things is refused",
    "What follows takes numbers that are used already, and is dropped as a repeat.",
    where="services/runtime/cell.py: _compare",
)
def test_without_comparing_a_rebuild_by_other_rules_loses_what_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cell, "_compare", lambda *_: None)
    assert _left(_folded_again_by_other_rules(_bound_world())) == 1_000
