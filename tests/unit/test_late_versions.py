"""A program version that a cell hears of late: what was decided before is decided by it all the same.

A customer of `proxy-credits` buys 2 GB at 5 credits; a version with another rate, in force before the purchase, becomes
known afterwards. Source: contract.md, Order and programs; `cell.py`, versions that come late.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from schemas import commands, events
from schemas.commands import RequestClaim
from schemas.events import Event, ProgramPublished
from schemas.ids import derived_id
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import NotYetPublished, Programs, shipped
from services.commission.sales import SALES as STAGE
from services.commission.sales import repriced
from services.commission.state import Binding, Customer, Payment
from services.runtime.cell import Cell
from services.runtime.memory import MemoryStore
from services.runtime.simulate import World
from services.runtime.store import Outgoing
from tests.four_apis import OWN, four_apis, with_partners
from tests.worlds import told, wallet, world

START = parse_instant("2025-03-01T00:00:00Z")
PC, SALES = "proxy-credits", "commission.sales"
IN_PC = {"partner_id": "ann", "program_id": PC}


def _version(number: int, rate: str, since: int = START) -> Event:
    (program,) = (program for program in shipped() if program.program_id == PC)
    document = program.as_document() | {"providers": {"packetstream": {"product_rate": rate, "redemption_rate": "1"}}}
    made = ProgramPublished(program_id=PC, version=number, effective_at=since, document=document)
    return Event(derived_id("published", PC, number), "/attribution", since, made)


def _bound(customer_id: str = "c1") -> Event:
    bound = events.ReferralAttributed(
        customer_id=customer_id,
        partner_id="ann",
        program_id=PC,
        program_version=1,
        method="click",
        attributed_at=START - DAY,
    )
    return Event(f"bound-{customer_id}", "/attribution", START - DAY, bound)


def _purchase(customer_id: str = "c1", at: int = START + DAY) -> Event:
    paid = events.PaymentSucceeded(
        payment_id=f"p-{customer_id}",
        customer_id=customer_id,
        product_family="residential",
        provider="packetstream",
        quantity_gb="2",
        amount=Money(minor=1400, currency="USD"),
    )
    return Event(paid.payment_id, "/platform", at, paid)


def _bought(*purchases: Event) -> World:
    """Every purchase folded under version 1, at 5 credits."""
    made = world(partitions=1)
    made.publish(*(_bound(event.data.customer_id) for event in purchases))  # type: ignore[attr-defined]
    made.run()
    made.publish(*purchases)
    return made.run()


def _balance(made: World) -> int:
    (credits_held,) = wallet(made, "ann")
    return int(credits_held["balance"])


def _knowing(made: World, *later: Event) -> Programs:
    """What a process knows that has heard of these versions beside the first."""
    known = Programs.of(*shipped())
    for event in later:
        assert isinstance(event.data, ProgramPublished)
        known = known.with_version(event.data)
    return known


def _owner(made: World, programs: Programs, seconds: list[float] | None = None) -> Cell:
    async def pause(waited: float) -> None:
        if seconds is not None:
            seconds.append(waited)

    store = made.stores[SALES, 0]
    return Cell(STAGE, 0, 1, store, lambda: programs, made.stages, made.codec, pause=pause)


async def _learn(cell: Cell) -> list[Outgoing]:
    await cell.open()
    return _said(await cell.learn())


def _said(outgoing: Sequence[Outgoing]) -> list[Outgoing]:
    """What goes out, less the entries of the cell's own journal."""
    return [out for out in outgoing if not out.topic.startswith("journal.")]


def test_purchase_dated_in_a_version_is_decided_by_it_however_late_it_is_known() -> None:
    made = _bought(_purchase("c1", START - 1), _purchase("c2", START), _purchase("c3", START + DAY))
    assert _balance(made) == 30
    made.publish(_version(2, "7.5"))
    assert _balance(made.run()) == 40


def test_version_in_force_later_than_every_purchase_changes_nothing() -> None:
    made = _bought(_purchase())
    before = len(told(made, "rewards", "commissions"))
    made.publish(_version(2, "1", START + 2 * DAY))
    assert _balance(made.run()) == 10
    assert len(told(made, "rewards", "commissions")) == before


def test_versions_are_folded_once_also_by_the_next_owner() -> None:
    made = _bought(_purchase())
    programs = _knowing(made, _version(2, "1"), _version(3, "2"))

    async def scene() -> tuple[int, int, int]:
        first = _owner(made, programs)
        outgoing = await _learn(first)
        return len(outgoing), len(await first.learn()), len(await _learn(_owner(made, programs)))

    assert asyncio.run(scene()) == (1, 0, 0)
    assert made.stores[SALES, 0].meta[f"program:{PC}"] == 3


def test_what_was_learnt_and_not_committed_is_learnt_by_the_next_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _bought(*(_purchase(f"c{number}") for number in range(5)))
    programs = _knowing(made, _version(2, "1"))
    monkeypatch.setattr("services.runtime.cell.LEARNT_KEYS", 2)

    async def scene() -> list[int]:
        dying, said = _owner(made, programs), []
        await dying.open()
        commits = 0
        real = MemoryStore.commit

        async def commit(store: MemoryStore, what: Any) -> Any:
            nonlocal commits
            commits += 1
            if commits == 2:
                raise RuntimeError("killed")
            said.append(len(_said(what.outbox)))
            return await real(store, what)

        monkeypatch.setattr(MemoryStore, "commit", commit)
        with pytest.raises(RuntimeError, match="killed"):
            await dying.learn()
        monkeypatch.setattr(MemoryStore, "commit", real)
        said.append(len(await _learn(_owner(made, programs))))
        return said

    assert asyncio.run(scene()) == [2, 3]


def test_an_owner_that_knows_less_than_the_cell_has_folded_waits() -> None:
    made = _bought(_purchase())
    asyncio.run(_learn(_owner(made, _knowing(made, _version(2, "1")))))
    behind, waited = _knowing(made), list[float]()
    cell = _owner(made, behind, waited)
    with pytest.raises(NotYetPublished):
        asyncio.run(cell.open())
    assert sum(waited) >= 30

    async def catches_up(seconds: float) -> None:
        nonlocal behind
        data = _version(2, "1").data
        assert isinstance(data, ProgramPublished)
        behind = behind.with_version(data)

    late = Cell(STAGE, 0, 1, made.stores[SALES, 0], lambda: behind, made.stages, made.codec, pause=catches_up)
    asyncio.run(late.open())


def test_programs_priced_at_the_binding_are_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _bought(_purchase())
    asyncio.run(_learn(_owner(made, _knowing(made))))
    (keycrm,) = (program for program in shipped() if program.program_id == "keycrm")
    second = ProgramPublished(program_id="keycrm", version=2, effective_at=START, document=keycrm.as_document())

    def scan(store: MemoryStore) -> AsyncIterator[Mapping[str, bytes]]:
        raise AssertionError("nothing to look for")

    monkeypatch.setattr(MemoryStore, "scan", scan)
    assert asyncio.run(_learn(_owner(made, _knowing(made, Event("v", "/a", START, second))))) == []


@pytest.mark.parametrize(
    ("program_id", "at", "is_repriced"),
    [(PC, START, True), (PC, START - 1, False), ("another", START, False)],
)
def test_a_customer_is_repriced_by_a_version_that_is_in_force_at_a_payment(
    program_id: str, at: int, is_repriced: bool
) -> None:
    payment = Payment("p1", at, 1400, "USD", "e")
    customer = Customer(binding=Binding("ann", program_id, 1, 0, "e"), payments={"p1": payment})
    published = _version(2, "1").data
    assert isinstance(published, ProgramPublished)
    assert repriced(customer, published) is is_repriced
    assert not repriced(Customer(payments={"p1": payment}), published)


@pytest.mark.parametrize("seed", range(8))
def test_a_claim_is_decided_by_the_version_that_its_api_knew_whenever_the_worker_hears_of_it(seed: int) -> None:
    made = world(seed, partitions=2)
    made.publish(Event("on", "/attribution", START, events.PartnerActivated(**IN_PC, activated_at=START)))
    made.publish(_bound(), _purchase())
    made.run()
    claim = RequestClaim(
        command_id="k", body_hash="-", caller="partner:ann", **IN_PC, provider="packetstream", program_version=2
    )
    made.publish(Event("k", "/rewards", START + DAY, claim), _version(2, "5"))
    made.run()
    (asked,) = (event["data"] for event in told(made, "rewards") if event["type"] == "claim.requested")
    assert (asked["credits"], _balance(made)) == (1, 9)


@pytest.mark.parametrize("seed", range(8))
def test_a_payment_for_a_client_costs_what_the_version_says_that_its_api_knew(seed: int) -> None:
    made = world(seed, partitions=2)
    by = {"body_hash": "-", "caller": "partner:ann", "partner_id": "ann"}
    on = {"partner_id": "ann", "program_id": "message-help"}
    made.publish(Event("on", "/attribution", START, events.PartnerActivated(**on, activated_at=START)))
    made.run()
    paid_in = commands.RequestDeposit(
        command_id="in", **by, program_id="message-help", amount=Money(minor=9000, currency="EUR"), method="card"
    )
    arrived = commands.ConfirmDeposit(command_id="came", **by, deposit_id=derived_id("dep", "in"))
    made.publish(Event("in", "/payouts", START, paid_in), Event("came", "/payouts", START, arrived))
    made.run()
    asked = commands.PayForClient(
        command_id="k",
        **by,
        program_id="message-help",
        program_version=2,
        customer_id="c1",
        integration="altegio",
        interval="month",
        list_price=Money(minor=1000, currency="EUR"),
    )
    made.publish(Event("k", "/payouts", START + DAY, asked), _altegio_at("0.80"))
    made.run()
    (paid,) = (event["data"] for event in told(made, "payouts") if event["type"] == "client_payment.made")
    assert (paid["discount_rate"], paid["charged"]["minor"]) == ("0.80", 200)


def _altegio_at(rate: str) -> Event:
    """Version 2 of message-help, with another discount."""
    (program,) = (program for program in shipped() if program.program_id == "message-help")
    document = program.as_document()
    (account,) = (term for term in document["terms"] if term["kind"] == "integrator_account")
    account["families"]["altegio"]["discounts"] = [{"from_clients": 1, "rate": rate}]
    made = ProgramPublished(program_id="message-help", version=2, effective_at=START, document=document)
    return Event(derived_id("published", "message-help", 2), "/attribution", START, made)


@pytest.mark.parametrize("seed", range(8))
def test_an_activation_waits_for_the_program_that_its_api_knew(seed: int) -> None:
    """A program is published, and somebody becomes its partner before the worker has heard of it."""
    made = world(seed, partitions=2)
    (program,) = (program for program in shipped() if program.program_id == PC)
    document = program.model_copy(update={"program_id": "new"}).as_document()
    published = ProgramPublished(program_id="new", version=1, effective_at=0, document=document)
    joins = commands.ActivatePartner(
        command_id="k",
        body_hash="-",
        caller="platform:platform",
        partner_id="ann",
        program_id="new",
        program_version=1,
        accepted_terms=True,
    )
    made.publish(Event("k", "/attribution", START, joins), Event("new-1", "/attribution", START, published))
    made.run()
    (activated,) = told(made, "partners")
    assert (activated["type"], activated["data"]["program_id"]) == ("partner.activated", "new")


@pytest.mark.parametrize("seed", range(8))
def test_a_retention_is_claimed_by_the_version_that_its_api_knew(seed: int) -> None:
    """Message-help is off, and switched on again just before the claim."""
    made = world(seed, partitions=2)
    (program,) = (program for program in shipped() if program.program_id == "message-help")
    switches = [
        ProgramPublished(
            program_id="message-help",
            version=version,
            effective_at=START - DAY,
            document=program.model_copy(update={"enabled": enabled}).as_document(),
        )
        for version, enabled in ((2, False), (3, True))
    ]
    off, on = (Event(f"v{data.version}", "/attribution", START - DAY, data) for data in switches)
    by = {"body_hash": "-", "caller": "partner:ann", "partner_id": "ann", "program_id": "message-help"}
    joins = commands.ActivatePartner(command_id="joins", **by, accepted_terms=True)
    made.publish(off, Event("joins", "/attribution", START, joins))
    made.run()
    asked = commands.RequestRetention(command_id="k", **by, program_version=3, customer_id="old", evidence="a letter")
    made.publish(Event("k", "/attribution", START, asked), on)
    made.run()
    assert [event["type"] for event in told(made, "partners")] == ["partner.activated", "retention.requested"]


def test_what_attribution_is_asked_is_decided_by_the_latest_version_that_its_api_knows() -> None:
    own, program = f"/attribution/partners/{OWN}", {"program_id": "message-help"}
    with four_apis() as apis:
        with_partners(apis)
        itself = {**program, "accepted_terms": True}
        assert apis.call("POST", f"{own}/activations", "partner", json=itself).status_code == 201
        assert apis.call("POST", f"{own}/promo-codes", "partner", json=program).status_code == 201
        order = {**program, "account_ids": [f"{OWN}-account"]}
        assert apis.call("PUT", f"{own}/account-order", "partner", json=order).status_code == 200
        asked = [event.data for event in apis.world.events("commands.attribution")]
    under_terms = [each for each in asked if isinstance(each, commands.UnderTerms)]
    assert {each.type.removeprefix("command.") for each in under_terms} == {
        "activate_partner",
        "create_link",
        "create_promo_code",
        "order_accounts",
        "request_retention",
    }
    assert {each.program_version for each in under_terms} == {1}
