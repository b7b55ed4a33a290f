"""Many ask for the same balance at once: one gets it, whatever the order, however often a worker dies meanwhile."""

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import commands, events
from schemas.commands import Answered
from schemas.events import Event, Payload, ProgramPublished, Standing
from schemas.moments import parse_instant
from schemas.money import Money
from schemas.programs import shipped
from services.payouts import STAGES
from services.runtime.simulate import MemoryReader, World

MARCH = parse_instant("2025-03-01T00:00:00Z")
WHOLE = 10_000


def rich(seed: int, crashes: float) -> World:
    """p-1 has 100.00 USD of keycrm and an account."""
    made = World(STAGES, seed=seed, crashes=crashes)
    amount = Money(minor=WHOLE, currency="USD")
    standing = Standing(accrued_at=MARCH, base=amount, amount=amount, available_at=MARCH)
    ids = {"commission_id": "c", "payment_id": "p", "customer_id": "c-1", "partner_id": "p-1", "program_id": "keycrm"}
    money = {"base": amount, "amount": amount, "available_at": MARCH}
    past: list[Payload] = [
        ProgramPublished(program_id=each.program_id, version=1, effective_at=0, document=each.as_document())
        for each in shipped()
    ]
    past += [
        events.PartnerActivated(partner_id="p-1", program_id="keycrm", activated_at=MARCH),
        events.AccountCreated(customer_id="p-1", account_id="own"),
        events.CommissionAccrued(**ids, program_version=1, rate="1", standing=standing, **money),
    ]
    made.publish(*(Event(f"e{number}", "/t", MARCH, data) for number, data in enumerate(past)))
    return made.run()


def answers(made: World, ids: list[str]) -> list[Answered]:
    found = asyncio.run(MemoryReader(made).answers(STAGES, ids))
    return [found[each] for each in ids]


def withdrawal(number: int, minor: int) -> commands.Command:
    return commands.RequestWithdrawal(
        command_id=f"w-{number}",
        body_hash="-",
        caller="partner:p-1",
        partner_id="p-1",
        program_id="keycrm",
        amount=Money(minor=minor, currency="USD"),
        destination="UA90 3052",
    )


def topup(number: int, minor: int) -> commands.Command:
    return commands.RequestTopup(
        command_id=f"t-{number}",
        body_hash="-",
        caller="partner:p-1",
        partner_id="p-1",
        program_id="keycrm",
        account_id="own",
        amount=Money(minor=minor, currency="USD"),
    )


def asked(made: World, every: list[commands.Command]) -> list[Answered]:
    made.publish(*(Event(each.command_id, "/payouts", MARCH + 1, each) for each in every))
    made.run()
    return answers(made, [each.command_id for each in every])


@settings(max_examples=5)
@given(st.integers(0, 1 << 16), st.sampled_from([0.0, 0.2]))
def test_of_1000_withdrawals_of_the_whole_balance_exactly_one_is_accepted(seed: int, crashes: float) -> None:
    given_out = asked(rich(seed, crashes), [withdrawal(number, WHOLE) for number in range(1000)])
    assert Counter(answer.status for answer in given_out) == {201: 1, 409: 999}
    assert {answer.body.get("code") for answer in given_out if answer.status == 409} == {"insufficient_balance"}


@given(
    st.integers(0, 1 << 16),
    st.lists(st.tuples(st.booleans(), st.integers(1, WHOLE)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=40)
def test_withdrawals_and_top_ups_together_never_take_more_than_there_is(
    seed: int, wishes: list[tuple[bool, int]], crashes: float
) -> None:
    every = [
        withdrawal(number, minor) if is_withdrawal else topup(number, minor)
        for number, (is_withdrawal, minor) in enumerate(wishes)
    ]
    given_out = asked(rich(seed, crashes), every)
    taken = sum(minor for (_, minor), answer in zip(wishes, given_out, strict=True) if answer.status == 201)
    assert taken <= WHOLE
    refused = [answer.body["code"] for answer in given_out if answer.status == 409]
    assert len(refused) + sum(answer.status == 201 for answer in given_out) == len(wishes)
