"""The loop's defences, each shown twice: with it the balances hold, and without it the same scenario gets them wrong.

A customer pays 100.00 and is refunded 50.00 later, so a lost, stale or doubled step shows in the partner's balance.
"""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext, suppress

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ResponseError

from schemas import events
from schemas.events import Event
from schemas.ids import partition_of
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from services.runtime import recovery
from services.runtime.cell import Cell, EdgeBroken, LogBehind, Superseded
from services.runtime.journal import Diverged, Last
from services.runtime.memory import MemoryStore
from services.runtime.recovery import MemoryLogReader
from services.runtime.simulate import World
from services.runtime.stage import Record
from services.runtime.store import TRANSIENT, Commit, Fenced, Moment, Opened, Outgoing, Verdict
from tests.worlds import balance, follows_from_the_log, world

START = parse_instant("2025-03-01T00:00:00Z")
AT = START + 100 * DAY
SALES, PARTNERS = "commission.sales", "commission.partners"


def _history() -> tuple[Event, Event, Event]:
    bound = events.ReferralAttributed(
        customer_id="c1",
        partner_id="ann",
        program_id="keycrm",
        program_version=1,
        method="click",
        attributed_at=START,
    )
    money = Money(minor=10_000, currency="USD")
    paid = events.PaymentSucceeded(payment_id="p1", customer_id="c1", amount=money)
    half = events.PaymentRefunded(
        payment_id="p1", customer_id="c1", refund_id="r1", amount=Money(minor=5_000, currency="USD")
    )
    return (
        Event("bound", "/attribution", START, bound),
        Event("paid", "/platform", START + DAY, paid),
        Event("refund", "/platform", START + 2 * DAY, half),
    )


def _bound_world() -> World:
    made = world(partitions=1)
    made.publish(_history()[0])
    return made.run()


def _left(made: World) -> int | None:
    found = balance(made, "ann", "keycrm", at=AT)
    return None if found is None else found["available"]


def _owner(made: World, stage: str) -> Cell:
    partition = partition_of("ann", made.partitions)
    store = made.stores[stage, partition]
    return Cell(made.stages[stage], partition, made.partitions, store, lambda: made.programs, made.stages, made.codec)


async def _fold(made: World, cell: Cell, topic: str) -> list[Outgoing]:
    records = made.log[topic, cell.partition][cell.position(topic) :]
    return await cell.fold(topic, records)


def _send(made: World, outgoing: Sequence[Outgoing]) -> None:
    for out in outgoing:
        made.append(out.topic, out.partition, out.key, out.value, out.headers)


# --- the fence: an owner that wakes up after its successor took over ------------------------------------------------


async def _zombie_commits_late(made: World, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """An owner folds a payment and freezes; its successor folds another topic; then the owner's commit arrives.

    Both have numbered what they say from the same number on, so only one of them may be heard.
    """
    made.publish(_history()[1])
    zombie, store = _owner(made, SALES), made.stores[SALES, 0]
    _send(made, await zombie.open())
    kept: list[Commit] = []

    async def frozen(commit: Commit) -> Verdict:
        kept.append(commit)
        return Verdict.FENCED

    with monkeypatch.context() as patched, pytest.raises(Fenced):
        patched.setattr(store, "commit", frozen)
        await _fold(made, zombie, "payments")
    made.publish(_second_binding())
    successor = _owner(made, SALES)
    _send(made, await successor.open())
    _send(made, await _fold(made, successor, "referrals"))
    verdict = await store.commit(kept[0])
    if verdict is Verdict.APPLIED:
        _send(made, kept[0].outbox)
    return verdict


def _second_binding() -> Event:
    bound = events.ReferralAttributed(
        customer_id="c2", partner_id="ann", program_id="keycrm", program_version=1, method="click", attributed_at=START
    )
    return Event("bound2", "/attribution", START, bound)


def _world_with_a_waiting_payment() -> World:
    made = _bound_world()
    paid = events.PaymentSucceeded(payment_id="p2", customer_id="c2", amount=Money(minor=20_000, currency="USD"))
    made.publish(Event("paid2", "/platform", START + DAY, paid))
    made.run()
    made.abandon()
    return made


class _Unfenced(MemoryStore):
    """A store whose commit checks neither epoch nor positions."""

    async def commit(self, commit: Commit) -> Verdict:
        commit.epoch = self.epoch
        commit.positions = {name: (self.meta.get(name, 0), new) for name, (_, new) in commit.positions.items()}
        return await super().commit(commit)


def test_a_late_commit_of_a_former_owner_is_fenced(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _world_with_a_waiting_payment()
    assert asyncio.run(_zombie_commits_late(made, monkeypatch)) is Verdict.FENCED
    follows_from_the_log(made)
    made.abandon()
    made.run()
    assert _left(made) == 3_000


@pytest.mark.defence(
    "a new owner fences the one before",
    "A frozen owner that wakes up commits over its successor: balances are shown that nobody was told of.",
    where="services/runtime/redis_store.py: _COMMIT",
)
def test_without_the_fence_a_late_commit_leaves_what_was_never_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _world_with_a_waiting_payment()
    made.stores[SALES, 0].__class__ = _Unfenced
    assert asyncio.run(_zombie_commits_late(made, monkeypatch)) is Verdict.APPLIED
    with pytest.raises(AssertionError):
        follows_from_the_log(made)
    made.abandon()
    made.run()
    assert _left(made) == 3_000  # by the chain of the journal: the next owner found it out


# --- the outbox: an owner that dies between its commit and its sending ----------------------------------------------


async def _dies_before_sending(made: World) -> None:
    made.publish(_history()[1])
    first = _owner(made, SALES)
    _send(made, await first.open())
    await _fold(made, first, "payments")  # committed, never sent


class _Forgetful(MemoryStore):
    """A store without an outbox."""

    async def open(self, last: Last = Last()) -> Opened:  # noqa: B008 (frozen)
        opened = await super().open(last)
        self.outbox.clear()
        return Opened(opened.epoch, opened.meta, ())


def test_what_was_committed_and_not_sent_is_sent_by_the_next_owner() -> None:
    made = _bound_world()
    asyncio.run(_dies_before_sending(made))
    made.abandon()
    made.run()
    assert _left(made) == 1_000


def _without_an_outbox() -> World:
    made = _bound_world()
    made.stores[SALES, 0].__class__ = _Forgetful
    asyncio.run(_dies_before_sending(made))
    made.abandon()
    return made


@pytest.mark.defence(
    "what was decided is kept until it is sent",
    "An owner that dies between its commit and its sending takes a payment with it.",
    where="services/runtime/cell.py: open",
)
def test_without_the_outbox_the_payment_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _without_an_outbox()
    monkeypatch.setattr(Cell, "_refuse_a_short_log", lambda *_: None)
    made.run()
    assert _left(made) != 1_000


@pytest.mark.defence(
    "a log that lacks what Redis holds is refused",
    "Kafka that lost records goes unnoticed: what was decided is never heard of.",
    where="services/runtime/cell.py: _refuse_a_short_log",
)
def test_a_log_that_lacks_what_redis_holds_stops_the_cell() -> None:
    with pytest.raises(LogBehind, match=r"has committed \d+ batches, its journal ends at \d+: Kafka has lost records"):
        _without_an_outbox().run()


# --- the edges: what is sent twice counts once, also when it comes late ---------------------------------------------


def _sends_an_old_record_again(made: World) -> None:
    _, paid, refund = _history()
    made.publish(paid)
    made.run()
    old = made.log["sales", 0][-1]
    made.publish(refund)
    made.run()
    made.append(old.topic, 0, old.key, old.value, old.headers)
    made.run()


def test_a_record_sent_again_after_a_newer_one_is_dropped() -> None:
    made = _bound_world()
    _sends_an_old_record_again(made)
    assert _left(made) == 500


@pytest.mark.defence(
    "records are numbered per edge",
    "An old record that is sent again undoes the refund that came after it.",
    where="services/runtime/cell.py: _is_next_of_its_edge",
)
def test_without_the_edge_check_an_old_record_undoes_the_refund(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _bound_world()
    monkeypatch.setattr(Cell, "_is_next_of_its_edge", lambda *_: True)
    _sends_an_old_record_again(made)
    assert _left(made) != 500


def test_a_hole_in_an_edge_stops_the_cell() -> None:
    made = _bound_world()
    made.publish(_history()[1])
    made.run()
    last = made.log["sales", 0][-1]
    beyond = tuple((name, b"99" if name == "refstream-number" else value) for name, value in last.headers)
    made.append(last.topic, 0, last.key, last.value, beyond)
    with pytest.raises(EdgeBroken, match=r"expects commission\.sales:0 number \d+ on sales, got 99"):
        made.run()


# --- the writer token: our own retry after a lost reply -------------------------------------------------------------


class _LosesReplies(MemoryStore):
    """A store whose first reply to a commit is lost on the way, after the commit was applied."""

    lost = False

    async def commit(self, commit: Commit) -> Verdict:
        verdict = await super().commit(commit)
        if not self.lost:
            self.lost = True
            raise TRANSIENT[0]
        return verdict


class _Tokenless(_LosesReplies):
    """The same without a writer token: a retry looks like another writer."""

    async def commit(self, commit: Commit) -> Verdict:
        self.token = ""
        return await super().commit(commit)


@pytest.mark.defence(
    "a writer knows its own commit",
    "A lost reply looks like another owner: the process ends for nothing.",
    where="services/runtime/redis_store.py: _COMMIT",
)
@pytest.mark.parametrize(("kind", "holds"), [(_LosesReplies, True), (_Tokenless, False)])
def test_a_commit_whose_reply_was_lost_is_known_as_our_own(kind: type[MemoryStore], holds: bool) -> None:
    made = _bound_world()
    made.stores[SALES, 0].__class__ = kind
    made.publish(_history()[1])
    if holds:
        made.run()
        assert _left(made) == 1_000
    else:
        with pytest.raises(Fenced):
            made.run()


# --- a server that cannot write now ---------------------------------------------------------------------------------


class _Refuses(MemoryStore):
    """A server that refuses three commits before it takes one, in a real one's words, read by the real client."""

    says, left = "", 3

    async def commit(self, commit: Commit) -> Verdict:
        if self.left:
            self.left -= 1
            raise BaseParser.parse_error(self.says)
        return await super().commit(commit)


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("MISCONF Errors writing to the AOF file: No space left on device", "MISCONF"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "OutOfMemoryError"),
        ("READONLY You can't write against a read only replica.", "ReadOnlyError"),
    ],
)
def test_a_server_that_cannot_write_now_is_asked_again(
    says: str, told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_Refuses, "says", says)
    made = _bound_world()
    made.stores[SALES, 0].__class__ = _Refuses
    made.publish(_history()[1])
    made.run()
    assert _left(made) == 1_000
    waits = {record.error for record in caplog.records if record.msg == "waiting for the store"}  # type: ignore[attr-defined]
    assert waits == {told}


@pytest.mark.parametrize("says", ["NOPERM User worker has no permissions to run the 'hset' command", "ERR unknown"])
def test_any_other_refusal_ends_the_process(says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Refuses, "says", says)
    made = _bound_world()
    made.stores[SALES, 0].__class__ = _Refuses
    made.publish(_history()[1])
    with pytest.raises(ResponseError, match=says.partition(" ")[2]):
        made.run()


# --- positions: Redis decides where reading goes on -----------------------------------------------------------------


def test_records_fetched_again_are_not_folded_again() -> None:
    made = _bound_world()
    made.publish(_history()[1])
    made.run()
    cell = _owner(made, SALES)

    async def fold_all_again() -> list[Outgoing]:
        await cell.open()
        return await cell.fold("payments", made.log["payments", 0])

    assert asyncio.run(fold_all_again()) == []


@pytest.mark.defence(
    "a batch is committed as a whole or not at all",
    "A rule that fails half-way leaves its half behind, and it counts again in the next attempt.",
    where="services/runtime/cell.py: fold",
)
def test_nothing_of_a_batch_is_kept_when_a_rule_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _bound_world()
    made.publish(*_history()[1:])
    store = made.stores[SALES, 0]
    before = (dict(store.meta), dict(store.states), dict(store.outbox))
    cell = _owner(made, SALES)
    steps = 0
    real = cell.stage.step

    def fails_at_the_second(context: object, state: object, event: Event) -> object:
        nonlocal steps
        steps += 1
        if steps == 2:
            raise RuntimeError("a bug")
        return real(context, state, event)  # type: ignore[arg-type]

    async def fold() -> None:
        await cell.open()
        await _fold(made, cell, "payments")

    monkeypatch.setattr(cell, "stage", type(cell.stage)(**{**vars(cell.stage), "step": fails_at_the_second}))
    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(fold())
    assert (store.meta, store.states, store.outbox) == before


# --- the border -----------------------------------------------------------------------------------------------------


def test_a_wrongly_keyed_record_is_put_back_in_order_and_counts_once() -> None:
    made = world(partitions=3)
    made.publish(_history()[0])
    _, paid, refund = _history()
    right = partition_of("c1", 3)
    made.publish(paid, refund, partition=(right + 1) % 3)
    made.publish(paid, key=b"somebody")
    made.run()
    assert _left(made) == 500
    put_back = [r for r in made.log["payments", right] if dict(r.headers).get("refstream-edge")]
    assert [r.key for r in put_back] == [b"c1"] * 3


def test_a_record_dated_in_the_future_is_a_dead_letter_by_the_brokers_clock() -> None:
    made = world(partitions=1)
    paid = _history()[1]
    made.publish(paid)
    record = made.log["payments", 0][-1]
    for minutes, dead in ((5, 0), (6, 1)):
        early = paid.time - minutes * 60 * 1_000_000
        made.log["payments", 0].append(
            Record("payments", 0, len(made.log["payments", 0]), record.key, record.value, early)
        )
        made.run()
        assert len(made.log["dead-letters", 0]) == dead


# --- the count of commits: Redis goes back to an older copy ---------------------------------------------------------


class _Uncounted(MemoryStore):
    """A store whose commit checks the positions, and nothing how many commits there were."""

    def _refuse_another(self, at: Moment) -> None:
        pass

    async def commit(self, commit: Commit) -> Verdict:
        commit.positions.pop("commits", None)
        return await super().commit(commit)


async def _folds_another_topic_over_an_older_copy(made: World, kind: type[MemoryStore]) -> Verdict:
    """Redis forgets a payment that was folded; the next batch is of a topic that was quiet since."""
    owner = _owner(made, SALES)
    await owner.open()
    copied = made.stores[SALES, 0].copied()
    made.publish(_history()[1])
    await _fold(made, owner, "payments")
    vars(made.stores[SALES, 0]).update(vars(copied))
    made.stores[SALES, 0].__class__ = kind
    made.publish(_second_binding())
    try:
        await _fold(made, owner, "referrals")
    except Fenced:
        return Verdict.FENCED
    return Verdict.APPLIED


@pytest.mark.defence(
    "a commit says how many there were before",
    "Over an older copy of Redis the cell goes on without what the copy lacks.",
    where="services/runtime/cell.py: _write",
)
@pytest.mark.parametrize(("kind", "verdict"), [(MemoryStore, Verdict.FENCED), (_Uncounted, Verdict.APPLIED)])
def test_nothing_is_committed_over_an_older_copy(kind: type[MemoryStore], verdict: Verdict) -> None:
    assert asyncio.run(_folds_another_topic_over_an_older_copy(_bound_world(), kind)) is verdict


# --- the journal: in which order things were folded is on the log before what they say ------------------------------


async def _loses_its_memory_half_sent(made: World, sends: slice) -> None:
    """An owner says a payment and dies with its memory, half-way; the next one reads another topic first."""
    made.publish(_history()[1])
    owner = _owner(made, SALES)
    await owner.open()
    outgoing = await _fold(made, owner, "payments")
    _send(made, outgoing[sends])
    made.lose((SALES, 0))
    made.publish(_second_binding())
    successor = _owner(made, SALES)
    reader = MemoryLogReader(made.log, 0)
    _send(made, await recovery.opened(successor, reader, reader.tell))
    _send(made, await _fold(made, successor, "referrals"))


@pytest.mark.defence(
    "the journal's entry is sent before what it tells of",
    "After Redis is lost other records get the numbers of those that are out: they are dropped as repeats.",
    where="services/runtime/sender.py: _send_all",
)
@pytest.mark.parametrize(("sends", "holds"), [(slice(0, 1), True), (slice(1, None), False)])
def test_what_is_said_without_its_entry_loses_a_payment_with_redis(sends: slice, holds: bool) -> None:
    made = _world_with_a_waiting_payment()
    asyncio.run(_loses_its_memory_half_sent(made, sends))
    made.abandon()
    made.run()
    assert (_left(made) == 3_000) is holds


# --- the claim: an owner wakes up after Redis lost what it decided, and a successor went on without it --------------


async def _decides(made: World, reader: MemoryLogReader) -> tuple[Cell, list[Outgoing]]:
    """An owner that has folded a payment and sent nothing of it; and what it would send."""
    made.publish(_history()[1])
    owner = _owner(made, SALES)
    await recovery.opened(owner, reader, reader.tell)
    outgoing = await _fold(made, owner, "payments")
    return owner, outgoing


async def _wakes_up_after_its_commit_was_lost(made: World, *, confirms: bool) -> None:
    """An owner says a payment and freezes; Redis is emptied, and its successor says something else instead."""
    reader, journal = MemoryLogReader(made.log, 0), made.log[f"journal.{SALES}", 0]
    owner, outgoing = await _decides(made, reader)
    made.lose((SALES, 0))
    made.publish(_second_binding())
    successor = _owner(made, SALES)
    _send(made, await recovery.opened(successor, reader, reader.tell))
    instead = await _fold(made, successor, "referrals")
    with suppress(Superseded):
        _send(made, outgoing[:1])
        if confirms:
            await recovery.confirm(owner, len(journal) - 1, 1, lambda: nullcontext(reader))
        _send(made, outgoing[1:])
    _send(made, instead)


@pytest.mark.defence(
    "an owner sends what an entry tells of when it knows that the entry counts",
    "A former owner wakes up after Redis lost what it decided: what the cell said instead is dropped as a repeat.",
    where="services/runtime/recovery.py: confirm",
)
@pytest.mark.parametrize("confirms", [True, False])
def test_what_redis_lost_of_a_former_owner_is_not_said_after_its_successors_claim(confirms: bool) -> None:
    made = _world_with_a_waiting_payment()
    asyncio.run(_wakes_up_after_its_commit_was_lost(made, confirms=confirms))
    made.abandon()
    made.run()
    assert (_left(made) == 3_000) is confirms
    follows_from_the_log(made)


def test_an_owner_that_was_there_before_the_claim_counts() -> None:
    """What it wrote before its successor's claim is folded again, though Redis has lost it."""
    made = _world_with_a_waiting_payment()

    async def both_write() -> None:
        reader, journal = MemoryLogReader(made.log, 0), made.log[f"journal.{SALES}", 0]
        owner, outgoing = await _decides(made, reader)
        made.lose((SALES, 0))

        async def claim_after_it(claim: Sequence[Outgoing]) -> None:
            if outgoing[0].value not in [record.value for record in journal]:
                _send(made, outgoing[:1])
            await reader.tell(claim)

        successor = _owner(made, SALES)
        left = await recovery.opened(successor, reader, claim_after_it)
        assert successor.commits == owner.commits
        assert [out.value for out in left] == [out.value for out in outgoing[1:]]
        await recovery.confirm(owner, owner.journal_end, 1, lambda: nullcontext(reader))
        _send(made, outgoing[1:])
        _send(made, left)

    asyncio.run(both_write())
    made.abandon()
    made.run()
    assert _left(made) == 1_000
    follows_from_the_log(made)


async def _lets_two_claim_with_one_epoch(made: World) -> None:
    """An owner takes a cell over; before it claims it Redis loses that, and another takes over and claims it first."""
    reader = MemoryLogReader(made.log, 0)
    first, second = _owner(made, SALES), _owner(made, SALES)
    before = made.stores[SALES, 0].copied()

    async def claim_second(claim: Sequence[Outgoing]) -> None:
        made.lose((SALES, 0), before)
        second._store = before
        await recovery.opened(second, reader, reader.tell)
        await reader.tell(claim)

    with pytest.raises(Superseded):
        await recovery.opened(first, reader, claim_second)
    assert second.epoch == first.epoch
    made.publish(_history()[1])
    outgoing = await _fold(made, second, "payments")
    _send(made, outgoing[:1])
    journal = made.log[f"journal.{SALES}", 0]
    await recovery.confirm(second, len(journal) - 1, 1, lambda: nullcontext(reader))  # the other's claim came too late
    _send(made, outgoing[1:])


def test_of_two_who_claim_with_one_epoch_the_first_has_it() -> None:
    made = _world_with_a_waiting_payment()
    asyncio.run(_lets_two_claim_with_one_epoch(made))
    made.run()
    assert _left(made) == 1_000
    follows_from_the_log(made)


def test_a_journal_that_ends_with_nothing_but_claims_is_looked_at_from_further_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "TAIL_RECORDS", 1)
    made = _world_with_a_waiting_payment()
    for _ in range(7):
        made.abandon()
        asyncio.run(made._cell(SALES, 0))
    last = asyncio.run(recovery.last_entry(MemoryLogReader(made.log, 0), SALES))
    assert last.number == made.stores[SALES, 0].meta["commits"] > 0
    assert last.epoch == made.stores[SALES, 0].epoch


# --- the chain: Redis goes back to what an owner decided and never told, after another was decided instead ------------


async def _goes_back_to_what_never_came_to_be(made: World, *, decided: int, told: int) -> None:
    """Two owners decide under the same numbers; the journal tells of the second alone, Redis has that of the first.

    `decided`, `told`: how many commits of the first and of the second.
    """
    name, reader = (SALES, 0), MemoryLogReader(made.log, 0)
    before = made.stores[name].copied()
    first, _ = await _decides(made, reader)
    for _ in range(decided - 1):
        made.publish(_second_binding())
        await _fold(made, first, "referrals")
    untold = made.stores[name].copied()
    made.lose(name, before)
    successor = _owner(made, SALES)
    _send(made, await recovery.opened(successor, reader, reader.tell))
    for _ in range(told):
        made.publish(_second_binding())
        outgoing = await _fold(made, successor, "referrals")
        _send(made, outgoing)
        await successor.trim(outgoing)
    assert successor.commits == first.commits - decided + told
    made.lose(name, untold)


@pytest.mark.defence(
    "what Redis holds is one chain with the journal's entries",
    "Redis goes back to what was decided and never told, after another was decided instead: both are said.",
    where="services/runtime/cell.py: _is_of_the_chain",
)
@pytest.mark.parametrize(("decided", "told", "looks"), [(1, 1, True), (2, 1, True), (1, 2, True), (1, 1, False)])
def test_what_never_came_to_be_is_thrown_away(
    decided: int, told: int, looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not looks:
        monkeypatch.setattr(Cell, "_is_of_the_chain", lambda *_: True)
    made = _world_with_a_waiting_payment()
    asyncio.run(_goes_back_to_what_never_came_to_be(made, decided=decided, told=told))
    made.run()
    if looks:
        assert _left(made) == 3_000
        follows_from_the_log(made)
    else:
        with pytest.raises(Diverged, match="two entries"):
            follows_from_the_log(made)
