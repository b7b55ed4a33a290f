"""Whoever is forgotten stays so: in every interleaving, after every loss, and after Kafka has compacted `profiles`.

What the person earned and was paid is the same as if nobody had been forgotten.
"""

import asyncio
import random
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas import commands, events
from schemas.events import Event, Payload
from schemas.ids import partition_of
from schemas.moments import DAY
from schemas.money import Money
from schemas.topics import PROFILES
from services.commission.partners import PARTNERS
from services.commission.sales import SALES
from services.payouts import LEDGER
from services.payouts.state import WithdrawalRow
from services.runtime import recovery
from services.runtime.cell import Cell
from services.runtime.codec import SEALED
from services.runtime.memory import MemoryStore
from services.runtime.profiles import PERSONS, Profile
from services.runtime.recovery import MemoryLogReader
from services.runtime.simulate import MemoryReader, World
from services.runtime.stage import Record
from services.runtime.store import tag
from tests.worlds import balance, facts, world

START = 1_740_000_000_000_000
SIGNUP, PROFILE, BANK = "Redfeather", "Yellowfeather", "UA99CANARY7319"
LOST = {PERSONS.name, SALES.name, PARTNERS.name, LEDGER.name}
"""Memories that no other cell of a world looks into, where it would not wait until they are whole again."""
steps = st.lists(st.sampled_from(("profile", "forget", "run", "lose")), max_size=8)


class _Compacted(MemoryLogReader):
    """As Kafka shows a log after compaction: of each key on `profiles` the last record alone."""

    async def take(self, topic: str, upto: int) -> list[Record]:
        taken = await super().take(topic, upto)
        if topic != PROFILES.name:
            return taken
        last = {record.key: record.offset for record in self._log.get((topic, self._partition), [])}
        return [record for record in taken if last[record.key] == record.offset]


def _event(name: str, data: Payload, days: int) -> Event:
    return Event(name, "/test", START + days * DAY, data)


def _command(number: int) -> dict[str, Any]:
    return {"command_id": f"cmd-{number}", "body_hash": "h", "caller": "partner:anna", "partner_id": "anna"}


def _begun(made: World) -> None:
    """Anna, a partner, and bob, whom she brought and who paid 1000.00."""
    made.publish(
        _event("s-anna", events.CustomerSignedUp(customer_id="anna"), 0),
        _event("a-anna", events.AccountCreated(customer_id="anna", account_id="anna-crm"), 0),
    )
    made.run()
    joins = commands.ActivatePartner(**_command(1), program_id="keycrm", accepted_terms=True)
    made.publish(_event("cmd-1", joins, 1))
    made.run()
    made.publish(_event("cmd-2", commands.CreatePromoCode(**_command(2), program_id="keycrm", code="ANNA"), 1))
    made.run()
    paid = Money(minor=100_000, currency="USD")
    address = {"name": SIGNUP, "email": f"{SIGNUP}@example.com"}
    made.publish(
        _event("s-bob", events.CustomerSignedUp(customer_id="bob", promo_code="ANNA", **address), 10),
        _event("a-bob", events.AccountCreated(customer_id="bob", account_id="bob-crm", name=SIGNUP), 10),
        _event("p-bob", events.PaymentSucceeded(customer_id="bob", payment_id="p1", amount=paid), 20),
    )


def _forget(made: World, person_id: str) -> None:
    made.append(PROFILES.name, partition_of(person_id, made.partitions), person_id.encode(), None)


def _held(made: World) -> bytes:
    """Everything that the cells' memories hold, opened."""
    whole = b""
    for (stage, partition), store in made.stores.items():
        at = tag(stage, partition)
        whole += b" ".join(made.codec.plain(blob, at, key) for key, blob in store.states.items())
        whole += b" ".join(made.codec.plain(blob, at, command) for command, blob in store.answers.items())
        for key, rows in store.rows.items():
            whole += b" ".join(made.codec.plain(blob, at, key, row_id) for row_id, blob in rows.items())
    return whole


async def _folded_again(made: World, stage: str, partition: int) -> MemoryStore:
    store = MemoryStore()
    cell = Cell(made.stages[stage], partition, made.partitions, store, lambda: made.programs, made.stages, made.codec)
    reader = _Compacted({at: list(records) for at, records in made.log.items()}, partition)
    await recovery.opened(cell, reader, reader.tell)
    return store


@given(seed=st.integers(0, 2**32), steps=steps)
def test_who_is_forgotten_stays_forgotten_after_any_loss_and_compaction(seed: int, steps: list[str]) -> None:
    made = world(seed, crashes=0.1)
    _begun(made)
    numbers, drawn = count(), random.Random(seed)
    for step in steps:
        match step:
            case "profile":
                number = next(numbers)
                made.publish(_event(f"f{number}", events.CustomerProfile(customer_id="bob", name=PROFILE), number))
            case "forget":
                _forget(made, "bob")
            case "lose":
                made.lose(drawn.choice(sorted(name for name in made.stores if name[0] in LOST)))
            case _:
                made.run()
    made.run()
    profile = asyncio.run(MemoryReader(made).state(PERSONS, "bob"))
    assert balance(made, "anna", "keycrm")["accrued"] == 10_000  # type: ignore[index]
    if "forget" in steps:
        assert profile == Profile(forgotten=True)
        assert not any(text.encode() in _held(made) for text in (SIGNUP, PROFILE))
    else:
        assert profile.contact.name == (PROFILE if "profile" in steps else SIGNUP)
        assert not any(text.encode() in blob for text in (SIGNUP, PROFILE) for blob in _states(made))
    for stage, partition in made.stores:
        assert facts(asyncio.run(_folded_again(made, stage, partition))) == facts(made.stores[stage, partition])


def _states(made: World) -> list[bytes]:
    return [blob for store in made.stores.values() for blob in store.states.values()]


@given(seed=st.integers(0, 2**32), settled=st.booleans())
def test_a_forgotten_partner_leaves_no_bank_account_once_it_was_paid(seed: int, settled: bool) -> None:
    made = world(seed, crashes=0.1)
    _begun(made)
    made.run()
    amount = Money(minor=5_000, currency="USD")
    asks = commands.RequestWithdrawal(
        **_command(3), program_id="keycrm", amount=amount, destination=BANK, comment=PROFILE
    )
    made.publish(_event("cmd-3", asks, 30))
    made.run()
    rows = [blob for store in made.stores.values() for blob in store.rows.get("anna", {}).values()]
    assert rows and not any(BANK.encode() in blob for blob in rows)
    (row,) = _withdrawals(made)
    pays = commands.SettleWithdrawal(**_command(4), withdrawal_id=row.withdrawal_id, outcome="paid")
    if settled:
        made.publish(_event("cmd-4", pays, 31))
        made.run()
    _forget(made, "anna")
    made.run()
    if not settled:
        (row,) = _withdrawals(made)
        assert (row.destination, row.comment) == (BANK, PROFILE)
        made.publish(_event("cmd-4", pays, 31))
        made.run()
    (row,) = _withdrawals(made)
    assert (row.status, row.destination, row.comment) == ("paid", None, None)
    assert not any(text.encode() in _held(made) for text in (BANK, PROFILE, BANK[-4:]))
    assert balance(made, "anna", "keycrm")["paid"] == 5_000  # type: ignore[index]
    made.publish(_event("cmd-3", asks, 30))  # the same command once more is still the same one
    made.run()
    assert len(_withdrawals(made)) == 1


def _withdrawals(made: World) -> list[WithdrawalRow]:
    rows = asyncio.run(MemoryReader(made).rows(LEDGER, "anna"))
    return [row for row in rows.values() if isinstance(row, WithdrawalRow)]


def test_answers_of_people_are_sealed_at_rest() -> None:
    made = world(1)
    _begun(made)
    made.run()
    answers = [a for (s, _), store in made.stores.items() if s == "attribution.people" for a in store.answers.values()]
    assert answers
    assert all(answer.startswith(SEALED) for answer in answers)
