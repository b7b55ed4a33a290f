"""W1 on Faust as its documentation teaches it: records, agents, tables, and a topic in between to change the key.

Decides in the order of arrival. At least once: after a crash some payments may be decided again.
"""

import os
import time
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Optional

import faust

PARTITIONS = 4

app = faust.App(
    "w1",
    broker=f"kafka://{os.environ['PEER_KAFKA']}",
    store=os.environ["PEER_STORE"],
    datadir=os.environ["PEER_STATE"],
    topic_partitions=PARTITIONS,
    topic_replication_factor=1,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    producer_linger_ms=100,  # what Kafka Streams waits by default
    producer_max_batch_size=128 * 1024,
    consumer_max_fetch_size=4 * 1024 * 1024,
    stream_wait_empty=False,
    web_enabled=False,
)


class Money(faust.Record):
    minor: int
    currency: str


class Payment(faust.Record):
    payment_id: str
    customer_id: str
    amount: Money
    account_id: Optional[str] = None  # noqa: UP045 (Faust reads no other spelling)


class PaymentEvent(faust.Record, serializer="json"):
    type: str
    time: str
    data: Payment


class Referral(faust.Record):
    customer_id: str
    partner_id: str
    program_id: str
    program_version: int
    attributed_at: str


class ReferralEvent(faust.Record, serializer="json"):
    type: str
    data: Referral


class Sale(faust.Record, serializer="json"):
    payment: Payment
    referral: Referral
    time: str


referrals_topic = app.topic("referrals", key_type=str, value_type=ReferralEvent)
payments_topic = app.topic("payments", key_type=str, value_type=PaymentEvent)
sales_topic = app.topic("w1-sales", key_type=str, value_type=Sale, partitions=PARTITIONS, internal=True)
commissions_topic = app.topic("commissions", key_type=str, value_serializer="json")

bound = app.Table("bound", partitions=PARTITIONS)
waiting = app.Table("waiting", partitions=PARTITIONS)  # payments that came before their referral
known = app.Table("known", partitions=PARTITIONS)
clients = app.Table("clients", partitions=PARTITIONS)
partners = app.Table("partners", partitions=PARTITIONS)

_consumed = False


def consumed() -> None:
    """Says once when the first payment came. Not by print, which Faust takes for a line of the log."""
    global _consumed
    if not _consumed:
        _consumed = True
        os.write(1, f"FIRST {int(time.time() * 1000)}\n".encode())


def said(kind: str, id_: str, at: str, data: dict[str, Any]) -> dict[str, Any]:
    envelope = {"specversion": "1.0", "id": id_, "source": "/commission", "type": kind, "time": at}
    return {**envelope, "datacontenttype": "application/json", "data": data}


def about(payment: Payment, by: Referral) -> dict[str, Any]:
    return {
        "payment_id": payment.payment_id,
        "customer_id": payment.customer_id,
        "account_id": payment.account_id,
        "partner_id": by.partner_id,
        "program_id": by.program_id,
        "program_version": by.program_version,
    }


def earns(event: PaymentEvent, by: Referral) -> bool:
    """Twelve months from the binding."""
    start = datetime.fromisoformat(by.attributed_at)
    try:
        end = start.replace(year=start.year + 1)
    except ValueError:  # 29 February
        end = start.replace(year=start.year + 1, day=28)
    return start <= datetime.fromisoformat(event.time) < end


async def decide(event: PaymentEvent, by: Referral) -> None:
    if earns(event, by):
        await sales_topic.send(key=by.partner_id, value=Sale(payment=event.data, referral=by, time=event.time))
        return
    data = {**about(event.data, by), "reason": "outside_window"}
    id_ = f"dec-{event.data.payment_id}"
    await commissions_topic.send(key=by.partner_id, value=said("commission.declined", id_, event.time, data))


@app.agent(referrals_topic)
async def on_referral(stream: Any) -> None:
    async for event in stream:
        if event.type == "referral.attributed":
            customer = event.data.customer_id
            bound[customer] = event.data.asdict()
            for early in waiting.pop(customer, ()):
                await decide(PaymentEvent.from_data(early), event.data)


@app.agent(payments_topic)
async def on_payment(stream: Any) -> None:
    async for event in stream:
        consumed()
        payment = event.data
        if event.type != "payment.succeeded" or payment.payment_id in known:
            continue
        known[payment.payment_id] = 1
        by = bound.get(payment.customer_id)
        if by is None:
            early = waiting.get(payment.customer_id) or []
            waiting[payment.customer_id] = [*early, event.to_representation()]
        else:
            await decide(event, Referral.from_data(by))


@app.agent(sales_topic)
async def on_sale(stream: Any) -> None:
    async for sale in stream:
        payment, by = sale.payment, sale.referral
        partner = partners.get(by.partner_id) or {"clients": 0, "balance": 0}
        paying, pair = partner["clients"], f"{by.partner_id}|{payment.customer_id}"
        if pair not in clients:
            clients[pair] = 1
            paying += 1
        rate = Decimal("0.30" if paying >= 21 else "0.20" if paying >= 6 else "0.10")
        minor = int((payment.amount.minor * rate).quantize(Decimal(1), ROUND_HALF_EVEN))
        partners[by.partner_id] = {"clients": paying, "balance": partner["balance"] + minor}
        id_ = f"com-{payment.payment_id}"
        data = {
            "commission_id": id_,
            **about(payment, by),
            "base": payment.amount.asdict(),
            "rate": str(rate),
            "amount": {"minor": minor, "currency": payment.amount.currency},
            "available_at": sale.time,
        }
        await commissions_topic.send(key=by.partner_id, value=said("commission.accrued", id_, sale.time, data))


if __name__ == "__main__":
    app.main()
