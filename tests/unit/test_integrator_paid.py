"""A payment that a partner made for its client: declined, whatever else is known of it, and why."""

from typing import Any

import pytest

from schemas import events
from schemas.events import Event, Payload, event_json
from schemas.internal import ClientPaid, SaleStated
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import Programs, shipped
from schemas.topics import TOPIC_OF
from services.commission.decisions import decision, of_program, outcome_by_facts
from services.commission.sales import SALES, is_decided, waiting
from services.commission.state import Customer, Ladder
from services.runtime.stage import Context, Record, Rows

START = parse_instant("2025-03-01T00:00:00Z")
PROGRAMS = Programs.of(*shipped())


class Client:
    """The key of customer c in commission."""

    def __init__(self) -> None:
        self.state = Customer()
        self.said: list[tuple[str | None, Payload]] = []

    def fold(self, *told: tuple[Payload, int]) -> "Client":
        for number, (data, at) in enumerate(told):
            event = Event(f"e{number}-{data.type}", "/t", at, data)
            record = Record(TOPIC_OF[type(data)].name, 0, number, b"c", event_json(event))
            context: Context[Customer] = Context("c", PROGRAMS, Rows(), record, lambda *_: None)
            change = SALES.step(context, self.state, event)
            self.state = change.state or self.state
            assert not change.dead_letters
            self.said += [(emit.key, emit.data) for emit in change.emits]
        return self

    def record(self, payment_id: str = "p1") -> Any:
        payment = self.state.payments[payment_id]
        assert outcome_by_facts(PROGRAMS, self.state, payment) == (
            "declined" if is_decided(self.state, payment) else "waiting"
        )
        return decision(PROGRAMS, "c", self.state, payment, None, Ladder())


def eur(minor: int) -> Money:
    return Money(minor=minor, currency="EUR")


def by_partner(payment: str = "p1", day: int = 10, bound: bool = False) -> tuple[Payload, int]:
    ids = {"payment_id": payment, "customer_id": "c", "partner_id": "p", "bound": bound}
    program = {"program_id": "message-help", "program_version": 1}
    price = {"list_price": eur(1000), "discount_rate": "0.35", "charged": eur(650), "from_bonus": eur(0)}
    return ClientPaid(**ids, **program, **price, integration="amo", interval="month"), START + day * DAY


def by_platform(payment: str = "p1", day: int = 10, minor: int = 650) -> tuple[Payload, int]:
    return events.PaymentSucceeded(payment_id=payment, customer_id="c", amount=eur(minor)), START + day * DAY


def bound(day: int = 0, program: str = "message-help") -> tuple[Payload, int]:
    ids = {"customer_id": "c", "partner_id": "p", "program_id": program, "program_version": 1, "method": "click"}
    at = START + day * DAY
    return events.ReferralAttributed(**ids, attributed_at=at), at


def declined() -> tuple[Payload, int]:
    return events.ReferralDeclined(customer_id="c", reason="no_click"), START


def test_it_needs_no_signup_to_be_declined() -> None:
    client = Client().fold(by_partner())
    ((key, said),) = client.said
    assert isinstance(said, events.CommissionDeclined)
    assert (key, said.reason, said.partner_id, said.customer_id) == (None, "integrator_paid", None, "c")
    assert (said.program_id, said.program_version) == ("message-help", 1)
    assert waiting(client.state) == 0
    record = client.record()
    assert (record.outcome, record.reasons, record.program_id) == ("declined", ("integrator_paid",), "message-help")
    assert record.inputs["paid_by"] == {
        "partner_id": "p",
        "program_id": "message-help",
        "integration": "amo",
        "discount_rate": "0.35",
        "list_price": {"minor": 1000, "currency": "EUR"},
        "charged": {"minor": 650, "currency": "EUR"},
        "from_bonus": {"minor": 0, "currency": "EUR"},
    }


def test_a_binding_that_payouts_has_seen_is_waited_for_and_it_is_said_once() -> None:
    client = Client().fold(by_partner(bound=True))
    assert client.said == []
    assert (waiting(client.state), client.record().outcome) == (1, "waiting")
    client.fold(bound())
    ((_, said),) = client.said
    assert isinstance(said, SaleStated)
    assert (said.partner_id, said.reasons) == ("p", ("integrator_paid",))


def test_a_retention_that_payouts_has_seen_is_waited_for_too() -> None:
    client = Client().fold(declined(), by_partner(bound=True))
    assert (client.said, waiting(client.state)) == ([], 1)
    assert len(client.fold(bound(day=5)).said) == 1


@pytest.mark.parametrize("signup", [declined(), bound(day=11)])
def test_of_a_customer_not_bound_then_both_reasons_hold(signup: tuple[Payload, int]) -> None:
    client = Client().fold(signup, by_partner())
    ((_, said),) = client.said
    assert isinstance(said, events.CommissionDeclined)
    assert (said.reason, client.record().reasons) == ("integrator_paid", ("integrator_paid", "not_referred"))


@pytest.mark.parametrize("order", [(by_partner(), by_platform()), (by_platform(), by_partner())])
def test_what_the_platform_says_under_the_same_id_is_the_same_payment(order: Any) -> None:
    client = Client().fold(bound(), *order)
    (payment,) = client.state.payments.values()
    assert (payment.at, payment.minor, payment.paid_by is not None) == (START + 10 * DAY, 650, True)
    *_, (_, last) = client.said
    assert isinstance(last, SaleStated)
    assert last.reasons == ("integrator_paid",)


def test_it_is_no_first_payment() -> None:
    client = Client().fold(bound(program="jupsoft"), by_partner(day=1), by_platform("p2", 20))
    stated = {said.payment_id: said for _, said in client.said if isinstance(said, SaleStated)}
    assert stated["p2"].reasons == ()
    assert stated["p2"].available_at == START + 110 * DAY  # ninety days from the customer's own first payment


def test_a_first_payment_that_the_partner_made_after_all_moves_what_follows_from_it() -> None:
    client = Client().fold(bound(program="jupsoft"), by_platform("p1", 10), by_platform("p2", 20), by_partner("p1"))
    last = {said.payment_id: said for _, said in client.said if isinstance(said, SaleStated)}
    assert (last["p1"].reasons, last["p2"].available_at) == (("integrator_paid",), START + 110 * DAY)


def test_a_refund_of_it_waits_for_nothing_more() -> None:
    refund = events.PaymentRefunded(payment_id="p1", customer_id="c", refund_id="r", amount=eur(650))
    for order in ([by_partner(), (refund, START + 12 * DAY)], [(refund, START + 12 * DAY), by_partner()]):
        assert waiting(Client().fold(*order).state) == 0


def test_records_are_listed_under_the_program_that_decides() -> None:
    unbound, elsewhere = Client().fold(by_partner()), Client().fold(bound(program="keycrm"), by_partner())
    listed = [
        [len(list(of_program(PROGRAMS, client.state, program))) for program in ("message-help", "keycrm")]
        for client in (unbound, elsewhere)
    ]
    assert listed == [[1, 0], [0, 1]]
