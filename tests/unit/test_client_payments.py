"""A partner pays for clients: the price, the bonus, refusals in their order, and what else a partner's key may hold."""

from itertools import count
from typing import Any

import msgspec
import pytest

from schemas import commands, events
from schemas.events import Event, Payload, event_json
from schemas.internal import ClientPaid
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import Programs, shipped
from schemas.topics import REWARDS
from services.payouts import LEDGER
from services.payouts.clients import CLIENTS, Client
from services.payouts.ledger import balance
from services.payouts.state import ClientPaymentRow, Person, Row
from services.runtime.border import Folded, take
from services.runtime.stage import Answer, Change, Context, Record, Rows

MARCH = parse_instant("2025-03-01T00:00:00Z")
PROGRAM = "message-help"


class Partner:
    """The key of partner p, in message-help with 1,000.00 EUR and the welcome bonus of 500.00 EUR."""

    def __init__(self, bound: dict[str, str] | None = None, deposit: int = 100_000) -> None:
        self.person, self.rows = Person(), dict[str, Row]()
        self.said: list[Payload] = []
        self.bound, self._programs, self._numbers = bound or {}, Programs.of(*shipped()), count(1)
        self.fold(events.PartnerActivated(partner_id="p", program_id=PROGRAM, activated_at=MARCH))
        self.fold(granted(50_000, MARCH + 60 * DAY))
        if deposit:
            asked = self.ask(commands.RequestDeposit, amount=eur(deposit), method="card", program_id=PROGRAM)
            self.ask(commands.ConfirmDeposit, deposit_id=asked.body["deposit_id"])

    def fold(self, data: Payload, at: int = MARCH) -> Change[Person, Row]:
        rows: Rows[Row] = Rows(self.rows, complete=True)
        context = Context("p", self._programs, rows, Record("t", 0, 0, b"p", b""), self._peek)
        change = LEDGER.step(context, self.person, Event("e", "/test", at, data))
        if change.state is not None:
            self.person = msgspec.msgpack.decode(msgspec.msgpack.encode(change.state), type=Person)
        for row_id, row in change.rows.items():
            assert row is not None
            self.rows[row_id] = msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=LEDGER.row)
        self.said += [emit.data for emit in change.emits]
        return change

    def _peek(self, stage: str, key: str) -> Any:
        assert stage == CLIENTS.name
        return Client(self.bound[key]) if key in self.bound else None

    def ask(self, kind: type[commands.Command], at: int = MARCH, **fields: Any) -> Answer:
        own = {"command_id": f"k{next(self._numbers)}", "body_hash": "h", "caller": "partner:p", "partner_id": "p"}
        (answer,) = self.fold(kind(**own, **fields), at).answers
        return answer

    def pay(self, customer: str = "c1", minor: int = 1000, at: int = MARCH + DAY, **more: Any) -> Answer:
        fields = {"program_id": PROGRAM, "customer_id": customer, "integration": "amo", "interval": "month", **more}
        return self.ask(commands.PayForClient, at, **{"list_price": eur(minor), **fields})

    @property
    def available(self) -> int:
        return balance(self.rows.values(), MARCH + 100 * DAY)[PROGRAM, "EUR"].available

    @property
    def bonus_left(self) -> int:
        return self.person.bonuses[0].remaining_minor


def eur(minor: int) -> Money:
    return Money(minor=minor, currency="EUR")


def granted(minor: int, expires_at: int, **more: Any) -> events.BonusGranted:
    own = {"bonus_id": "b1", "partner_id": "p", "program_id": PROGRAM, "amount": eur(minor), "expires_at": expires_at}
    return events.BonusGranted(**{**own, **more})


def outcome(answer: Answer) -> Any:
    """The code of a refusal, or (rate, charged, from bonus)."""
    body = answer.body
    if answer.status != 201:
        return body["code"]
    return body["discount_rate"], body["charged"]["minor"], body["from_bonus"]["minor"]


# --- the price ------------------------------------------------------------------------------------------------------


def test_the_tenth_client_costs_half() -> None:
    partner = Partner()
    rates = [outcome(partner.pay(f"c{number}", 1000))[0] for number in range(1, 10)]
    assert rates == ["0.35"] * 4 + ["0.40"] * 5
    assert outcome(partner.pay("c10", 43_200)) == ("0.50", 21_600, 0)


def test_clients_count_per_family_and_once_each() -> None:
    partner = Partner()
    for customer in ("c1", "c2", "c3", "c4", "c1", "c1"):
        partner.pay(customer)
    for customer in ("c5", "c6", "c7"):
        assert outcome(partner.pay(customer, integration="altegio"))[0] == "0.35"
    assert outcome(partner.pay("c4", integration="kommo"))[0] == "0.35"
    assert outcome(partner.pay("c5", integration="bitrix"))[0] == "0.40"


@pytest.mark.parametrize(("price", "charged"), [(30, 20), (10, 6), (1, 1), (1001, 651), (43_200, 28_080)])
def test_the_charge_is_rounded_half_even(price: int, charged: int) -> None:
    assert outcome(Partner().pay(minor=price)) == ("0.35", charged, 0)


def test_only_what_is_charged_leaves_the_account() -> None:
    partner = Partner()
    partner.pay(minor=1000)
    assert partner.available == 100_000 - 650


def test_what_is_there_can_be_spent_to_the_last_cent_and_no_further() -> None:
    partner = Partner(deposit=650)
    assert outcome(partner.pay(minor=1002)) == "insufficient_balance"
    assert outcome(partner.pay(minor=1000)) == ("0.35", 650, 0)
    assert outcome(partner.pay(minor=1)) == "insufficient_balance"
    assert partner.available == 0


def test_a_payment_is_said_to_the_world_and_to_the_clients_own_key() -> None:
    partner = Partner({"c1": "p"})
    body = partner.pay(account_id="crm-1").body
    made, paid = partner.said[-2:]
    assert isinstance(made, events.ClientPaymentMade) and isinstance(paid, ClientPaid)
    assert made.model_dump(mode="json") == {**body, "partner_id": "p"}
    assert paid.model_dump(mode="json") == {**body, "partner_id": "p", "program_version": 1, "bound": True}


# --- whom, what -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"program_id": "keycrm"}, 404, "not_found"),
        ({"customer": "theirs", "integration": "hubspot"}, 404, "not_found"),
        ({"integration": "hubspot", "minor": 10**9}, 422, "invalid"),
        ({"integration": "crm"}, 422, "invalid"),
        ({"use_bonus": True, "interval": "year", "minor": 10**9}, 409, "bonus_not_applicable"),
        ({"minor": 10**9}, 409, "insufficient_balance"),
        ({"list_price": Money(minor=100, currency="USD")}, 409, "insufficient_balance"),
    ],
)
def test_a_payment_is_refused_in_this_order_and_nothing_changes(fields: Any, status: int, code: str) -> None:
    partner = Partner({"theirs": "q"})
    before = (partner.person, dict(partner.rows), list(partner.said))
    answer = partner.pay(**fields)
    assert (answer.status, answer.body["code"]) == (status, code)
    assert before == (partner.person, partner.rows, partner.said)


def test_an_unknown_integration_is_named_like_any_invalid_field() -> None:
    (error,) = Partner().pay(integration="hubspot").body["errors"]
    assert error["field"] == "integration"
    assert "kommo" in error["message"]


def test_a_program_without_an_account_for_integrators_offers_no_client_payments() -> None:
    partner = Partner()
    partner.fold(events.PartnerActivated(partner_id="p", program_id="keycrm", activated_at=MARCH))
    assert outcome(partner.pay(program_id="keycrm")) == "client_payments_not_offered"


def test_ones_own_client_and_one_of_nobody_may_be_paid_for() -> None:
    partner = Partner({"own": "p", "declined": ""})
    assert [partner.pay(customer).status for customer in ("own", "declined", "never-seen")] == [201] * 3


# --- the bonus ------------------------------------------------------------------------------------------------------


def test_the_bonus_pays_the_whole_list_price_and_what_is_left_stays() -> None:
    partner = Partner()
    assert outcome(partner.pay("c1", 30_000, use_bonus=True)) == ("0", 0, 30_000)
    assert outcome(partner.pay("c2", 20_001, use_bonus=True)) == "bonus_not_applicable"
    assert outcome(partner.pay("c2", 20_000, use_bonus=True)) == ("0", 0, 20_000)
    assert (partner.bonus_left, partner.available) == (0, 100_000)


@pytest.mark.parametrize(
    ("at", "usable"),
    [(MARCH - 1, False), (MARCH, True), (MARCH + 60 * DAY - 1, True), (MARCH + 60 * DAY, False)],
)
def test_the_bonus_is_usable_for_sixty_days_half_open(at: int, usable: bool) -> None:
    assert (Partner().pay(use_bonus=True, at=at).status == 201) is usable


@pytest.mark.parametrize("fields", [{"interval": "year"}, {"list_price": Money(minor=1, currency="USD")}])
def test_the_bonus_pays_months_in_its_own_currency(fields: Any) -> None:
    assert outcome(Partner().pay(use_bonus=True, **fields)) == "bonus_not_applicable"


@pytest.mark.parametrize("first", [{}, {"use_bonus": True}, {"integration": "altegio"}, {"interval": "year"}])
def test_the_bonus_pays_for_a_client_not_paid_for_before_in_any_family(first: Any) -> None:
    partner = Partner()
    assert partner.pay("c1", **first).status == 201
    assert outcome(partner.pay("c1", use_bonus=True)) == "bonus_not_applicable"


def test_clients_paid_for_with_the_bonus_count_for_the_discount() -> None:
    partner = Partner()
    for number in range(1, 5):
        partner.pay(f"c{number}", 100, use_bonus=True)
    assert outcome(partner.pay("c5"))[0] == "0.40"


def test_the_bonus_cannot_be_withdrawn() -> None:
    partner = Partner(deposit=0)
    answer = partner.ask(commands.RequestWithdrawal, program_id=PROGRAM, amount=eur(1), destination="UA90305299")
    assert answer.body["code"] == "insufficient_balance"


def test_a_bonus_said_twice_counts_once() -> None:
    partner = Partner()
    partner.fold(granted(50_000, MARCH + 60 * DAY))
    assert len(partner.person.bonuses) == 1


def test_a_customers_own_bonus_is_nobodys_to_pay_with() -> None:
    partner = Partner()
    partner.fold(granted(500, MARCH + DAY, bonus_id="b2", customer_id="c1"))
    assert [bonus.bonus_id for bonus in partner.person.bonuses] == ["b1"]


def test_a_record_of_ours_is_folded_under_its_own_key() -> None:
    """A customer's own bonus stands under the customer, though the topic's key is the partner."""
    told = event_json(Event("e", "/rewards", MARCH, granted(500, MARCH, customer_id="c1")))
    keys = []
    for key in (b"c1", b"p", None):
        taken = take(Record(REWARDS.name, 0, 0, key, told), REWARDS, LEDGER, 4)
        assert isinstance(taken, Folded)
        keys.append(taken.key)
    assert keys == ["c1", "p", "p"]


# --- whose client ---------------------------------------------------------------------------------------------------


def test_the_first_binding_holds_and_a_decline_is_none() -> None:
    def attributed(partner_id: str) -> Payload:
        ids = {"customer_id": "c", "partner_id": partner_id, "program_id": PROGRAM, "program_version": 1}
        return events.ReferralAttributed(**ids, method="click", attributed_at=MARCH)

    client = Client()
    told = [events.ReferralDeclined(customer_id="c", reason="no_click"), attributed("p"), attributed("q")]
    for data in told:
        context: Context[Client] = Context("c", Programs(), Rows(), Record("t", 0, 0, b"c", b""), lambda *_: None)
        client = CLIENTS.step(context, client, Event("e", "/t", MARCH, data)).state or client
    assert client == Client("p")


def test_what_was_paid_is_remembered_as_it_was_paid() -> None:
    partner = Partner()
    partner.pay("c1", 1000, account_id="crm-1")
    (row,) = (row for row in partner.rows.values() if isinstance(row, ClientPaymentRow))
    assert (row.customer_id, row.account_id, row.list_minor, row.charged_minor) == ("c1", "crm-1", 1000, 650)
