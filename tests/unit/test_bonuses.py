"""What becomes of a partner's bonus: granted, used, expired, in whatever order it is learnt."""

from itertools import permutations
from typing import Any

import msgspec

from schemas import events
from schemas.events import Event, Payload
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import Programs, shipped
from services.rewards.bonuses import Movement, movements, remaining
from services.rewards.rules import CUSTOMERS, WALLETS
from services.rewards.state import NewCustomer, Wallet
from services.runtime.stage import Context, Emit, Record, Rows

MARCH = parse_instant("2025-03-01T00:00:00Z")
EXPIRES = MARCH + 60 * DAY
PROGRAMS = Programs.of(*shipped())


def eur(minor: int) -> Money:
    return Money(minor=minor, currency="EUR")


def activated() -> tuple[Payload, int]:
    data = events.PartnerActivated(partner_id="p", program_id="message-help", activated_at=MARCH)
    return data, MARCH


def paid(payment: str, from_bonus: int, at: int = MARCH + DAY) -> tuple[Payload, int]:
    ids = {"payment_id": payment, "partner_id": "p", "program_id": "message-help", "customer_id": f"c-{payment}"}
    terms = {"integration": "amo", "interval": "month", "list_price": eur(from_bonus or 100), "discount_rate": "0"}
    return events.ClientPaymentMade(**ids, **terms, charged=eur(0), from_bonus=eur(from_bonus)), at


def deposited(at: int) -> tuple[Payload, int]:
    ids = {"deposit_id": "d", "partner_id": "p", "program_id": "message-help"}
    return events.DepositReceived(**ids, amount=eur(1), method="card"), at


def folded(*told: tuple[Payload, int]) -> tuple[Wallet, list[Emit]]:
    wallet, said = Wallet(), list[Emit]()
    for data, at in told:
        context: Context[Wallet] = Context("p", PROGRAMS, Rows(), Record("t", 0, 0, b"p", b""), lambda *_: None)
        change = WALLETS.step(context, wallet, Event("e", "/t", at, data))
        if change.state is not None:
            wallet = msgspec.msgpack.decode(msgspec.msgpack.encode(change.state), type=Wallet)
        said += change.emits
    return wallet, said


def test_a_payment_from_the_bonus_is_said_with_what_it_used() -> None:
    wallet, said = folded(activated(), paid("k1", 30_000), paid("k2", 0))
    _, used = said
    assert used.time == MARCH + DAY
    assert used.data.model_dump(mode="json") == {
        "bonus_id": wallet.bonuses[0].bonus_id,
        "partner_id": "p",
        "program_id": "message-help",
        "customer_id": "c-k1",
        "payment_id": "k1",
        "amount": {"minor": 30_000, "currency": "EUR"},
    }
    assert [remaining(wallet.bonuses[0], at, at) for at in (MARCH + DAY, MARCH + DAY + 1)] == [50_000, 20_000]
    assert remaining(wallet.bonuses[0], MARCH + DAY) == 20_000


def test_a_bonus_expires_with_the_first_payouts_event_at_its_end_or_later() -> None:
    before = folded(activated(), deposited(EXPIRES - 1))
    assert [emit.data.type for emit in before[1]] == ["bonus.granted"]
    _, said = folded(activated(), paid("k1", 30_000), deposited(EXPIRES), deposited(EXPIRES + DAY))
    *_, expired = said
    assert isinstance(expired.data, events.BonusExpired)
    assert (expired.time, expired.data.amount) == (EXPIRES, eur(20_000))
    assert [emit.data.type for emit in said] == ["bonus.granted", "bonus.used", "bonus.expired"]


def test_of_a_bonus_used_up_nothing_expires() -> None:
    _, said = folded(activated(), paid("k1", 50_000), deposited(EXPIRES))
    assert [emit.data.type for emit in said] == ["bonus.granted", "bonus.used"]


def test_nothing_of_an_expired_bonus_is_left_said_or_not() -> None:
    wallet, _ = folded(activated())
    assert [remaining(wallet.bonuses[0], at) for at in (EXPIRES - 1, EXPIRES)] == [50_000, 0]


def test_the_grant_may_be_read_after_what_used_it() -> None:
    """A rebuild reads topics at their own speed; the payouts topic keeps its own order."""
    payouts = [paid("k1", 10_000), paid("k2", 20_000), deposited(EXPIRES)]
    outcomes = set()
    for place in range(len(payouts) + 1):
        wallet, said = folded(*payouts[:place], activated(), *payouts[place:])
        outcomes.add((repr(wallet), tuple(sorted(emit.id for emit in said))))
        assert wallet.unsettled == ()
    assert len({repr(outcome) for outcome in outcomes}) == 1


def test_history_has_every_movement_of_a_bonus() -> None:
    wallet, _ = folded(activated(), paid("k1", 30_000))
    (bonus,) = wallet.bonuses
    of = ("message-help", bonus.bonus_id)
    granted = Movement("bonus.granted", MARCH, *of, 50_000, "EUR")
    used = Movement("bonus.used", MARCH + DAY, *of, 30_000, "EUR", "k1", "c-k1")
    expired = Movement("bonus.expired", EXPIRES, *of, 20_000, "EUR")
    told = {at: list(movements(wallet, at)) for at in (EXPIRES - 1, EXPIRES)}
    assert told == {EXPIRES - 1: [granted, used], EXPIRES: [granted, used, expired]}


def test_a_new_client_by_promo_code_gets_the_signup_bonus_once() -> None:
    def bound(method: str) -> Payload:
        ids: dict[str, Any] = {"customer_id": "c", "partner_id": "p", "program_id": "message-help"}
        return events.ReferralAttributed(**ids, program_version=1, method=method, attributed_at=MARCH)

    def said(*told: Payload) -> list[Emit]:
        state, emits = NewCustomer(), list[Emit]()
        for data in told:
            context: Context[NewCustomer] = Context(
                "c", PROGRAMS, Rows(), Record("t", 0, 0, b"c", b""), lambda *_: None
            )
            change = CUSTOMERS.step(context, state, Event("e", "/t", MARCH, data))
            state = change.state or state
            emits += change.emits
        return emits

    (bonus,) = said(bound("promo_code"), bound("promo_code"))
    assert isinstance(bonus.data, events.BonusGranted)
    assert (bonus.key, bonus.data.amount, bonus.data.expires_at) == ("c", eur(500), None)
    for told in permutations(
        [bound("click"), bound("retention"), events.ReferralDeclined(customer_id="c", reason="no_click")]
    ):
        assert said(*told) == []
