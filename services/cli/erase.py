"""`refstream erase`: forget a person."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.state import running_settings
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from schemas.topics import Topic
    from services.runtime.stage import Stage

PATIENCE_SECONDS, A_MOMENT_SECONDS = 60.0, 10.0

STAYS = "What stays: ids, amounts, dates and decisions. Every balance is as it was."
ON_THE_LOG = (
    "On the log the profile goes when Kafka compacts `profiles`, within two days. What was written elsewhere stays "
    "there: names and addresses in a signup or an activation, a withdrawal's destination."
)


@dataclass(frozen=True, slots=True)
class Known:
    """What Redis holds of a person, in words. `under_way`: withdrawals that still need their destination."""

    what: tuple[str, ...]
    under_way: int


def erase(
    customer: Annotated[str, typer.Argument(help="Id of the person: a customer, a partner, or both.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget a person for good: name, addresses, accounts' names, bank accounts. Money, ids and decisions stay.

    Writes a record without a value to `profiles`, and returns when nothing personal is left in Redis. What comes later
    under this id is not kept either, and a rebuild brings nothing back. So an id of which nothing is known is refused,
    with exit code 1: it is a mistake. Safe to run again. A withdrawal under way keeps its destination until it is
    settled.
    """
    from services.runtime.reader import Rebuilding

    settings = running_settings()
    try:
        known = asyncio.run(_known_soon(settings, customer))
    except Rebuilding:
        print(
            "Redis is being rebuilt, or attribution's or payouts' worker has never run: nothing was written; try again"
        )
        raise typer.Exit(1) from None
    if known is None:
        print(f"nothing is known of {customer}: nothing to forget, and nothing was written")
        raise typer.Exit(1)
    if not yes:
        typer.confirm(f"Forget {customer} ({', '.join(known.what) or 'nothing personal'}) for good?", abort=True)
    try:
        asyncio.run(asyncio.wait_for(_erase(settings, customer), PATIENCE_SECONDS))
    except TimeoutError:
        print(
            f"{customer} is forgotten on the log, and not in Redis yet: attribution's or payouts' worker is down or "
            f"behind (`refstream status`). Run this again to see that it is done"
        )
        raise typer.Exit(1) from None
    after = asyncio.run(_known(settings, customer))
    print(f"{customer} is forgotten: {', '.join(known.what) or 'nothing personal was left'}")
    if after is not None and after.under_way:
        print(f"{after.under_way} withdrawals are under way and keep their destination until they are settled.")
    print(f"{STAYS}\n{ON_THE_LOG}")


async def _known_soon(settings: Settings, customer: str) -> Known | None:
    """What is known of the person, once everything that was written before has been folded, if that is soon."""
    from schemas.topics import CUSTOMERS, PARTNERS, PROFILES
    from services.payouts import LEDGER
    from services.runtime.profiles import PERSONS

    known = await _known(settings, customer)
    if known is None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(A_MOMENT_SECONDS):
                await _passed(settings, [(PERSONS, CUSTOMERS), (PERSONS, PROFILES), (LEDGER, PARTNERS)])
        known = await _known(settings, customer)
    return known


async def _erase(settings: Settings, customer: str) -> None:
    """Write the record, and wait until every stage that knows something of people has folded what follows from it."""
    from aiokafka import AIOKafkaProducer

    from schemas.ids import partition_of
    from schemas.topics import FORGOTTEN, PROFILES
    from services.attribution import PEOPLE
    from services.payouts import LEDGER
    from services.runtime.profiles import PERSONS

    async with AIOKafkaProducer(**settings.kafka_client_options(), acks="all", enable_idempotence=True) as producer:
        partition = partition_of(customer, settings.partitions)
        await producer.send_and_wait(PROFILES.name, None, key=customer.encode(), partition=partition)
    await _passed(settings, [(PERSONS, PROFILES), (PERSONS, FORGOTTEN), (PEOPLE, FORGOTTEN), (LEDGER, FORGOTTEN)])


async def _passed(settings: Settings, chain: "Sequence[tuple[Stage[Any, Any], Topic]]") -> None:
    """Wait until each stage has folded what is on its topic, one after the other."""
    from aiokafka import AIOKafkaConsumer

    from services.runtime.barrier import Step, ends_of, passed
    from services.runtime.redis_client import connect

    options = settings.kafka_client_options()
    redis = connect(settings.redis_url())
    try:
        async with AIOKafkaConsumer(**options, group_id=None, enable_auto_commit=False) as consumer:
            steps = [Step(stage.name, (topic.name,)) for stage, topic in chain]
            await passed(redis, ends_of(consumer, settings.partitions), steps, settings.partitions)
    finally:
        await redis.aclose()


async def _known(settings: Settings, customer: str) -> Known | None:
    """What Redis holds of the person; None where nobody has the id."""
    from services.attribution import PEOPLE
    from services.payouts import LEDGER
    from services.payouts.state import WithdrawalRow
    from services.runtime.codec import Codec
    from services.runtime.profiles import PERSONS
    from services.runtime.redis_client import connect
    from services.runtime.redis_reader import RedisReader

    redis = connect(settings.redis_url())
    try:
        reader = RedisReader(settings.partitions, redis, Codec.of(settings))
        profile, person = await reader.state(PERSONS, customer), await reader.state(PEOPLE, customer)
        ledger, rows = await reader.state(LEDGER, customer), await reader.rows(LEDGER, customer)
    finally:
        await redis.aclose()
    if (profile, person, ledger) == (PERSONS.empty, PEOPLE.empty, LEDGER.empty):
        return None
    withdrawals = [row for row in rows.values() if isinstance(row, WithdrawalRow)]
    settled = [row for row in withdrawals if row.status != "processing"]
    held: dict[str, Any] = {
        "name": profile.contact.name,
        "e-mail": profile.contact.email,
        "phone": profile.contact.phone,
        "names of accounts": any(profile.accounts.values()),
        "digests of addresses": (person.signup and person.signup.marks)
        or any(activation.marks for activation in person.activations.values()),
        "destinations of withdrawals": any(row.destination for row in settled),
        "comments on withdrawals": any(row.comment for row in settled),
        "evidence of claims": any(c.evidence for c in person.claims.values() if c.status in ("approved", "rejected")),
    }
    what = tuple(name for name, value in held.items() if value)
    return Known(what, len(withdrawals) - len(settled))
