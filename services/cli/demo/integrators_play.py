"""message-help in the demo, over HTTP: a deposit, client payments, and every partner's account."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal

import orjson

from services.cli.demo.data import Partner
from services.cli.demo.integrators import (
    CURRENCY,
    NEW_CLIENT_BONUS,
    PROGRAM_ID,
    ClientPayment,
    Priced,
    played,
    promises,
    promo_code_of,
)
from services.cli.demo.lines import Fact, customer_facts, money
from services.cli.demo.platform import Platform
from services.cli.demo.report import decimal
from services.cli.demo.scene import Answer, Scored
from services.cli.token import Role
from services.runtime.settings import Settings
from services.runtime.topic_log import entries


class Integrators:
    """The scene of message-help; see `scene.Scene`. `settings`: of the stack, to read the topic `rewards`."""

    title = f"message-help in {CURRENCY}"

    def __init__(self, run: str, now: int, seed: int, settings: Settings) -> None:
        self._made, self._settings = played(run, now, seed), settings
        self._promised, self._priced = promises(self._made)
        self._paid: dict[str, ClientPayment] = {}

    @property
    def partners(self) -> Sequence[Partner]:
        return self._made.partners

    async def publish(self, platform: Platform) -> None:
        """The shipped program is published already."""

    async def open(self, platform: Platform) -> None:
        """Every partner has a promo code besides the link."""
        for partner in self.partners:
            body = {"program_id": PROGRAM_ID, "code": promo_code_of(partner)}
            await platform.tell(f"/attribution/partners/{partner.partner_id}/promo-codes", body, partner)

    def facts(self, codes: Mapping[str, str]) -> list[Fact]:
        return [fact for customer in self._made.customers for fact in customer_facts(customer, codes)]

    async def play(self, platform: Platform) -> list[Answer]:
        by_id = {partner.partner_id: partner for partner in self.partners}
        for partner_id, minor in self._made.deposits.items():
            body = {"program_id": PROGRAM_ID, "amount": money(minor, CURRENCY), "method": "card"}
            asked = await platform.tell(f"/payouts/partners/{partner_id}/deposits", body, by_id[partner_id])
            await platform.tell(f"/payouts/deposits/{asked['deposit_id']}/confirm", {}, Role.platform)
        answers = []
        for payment, priced in zip(self._made.payments, self._priced, strict=True):
            answered = await self._pay(platform, by_id[payment.partner_id], payment)
            price = f"{payment.integration} at {decimal(payment.list_minor)}"
            what = f"{payment.partner_id} pays {'from the bonus ' if payment.use_bonus else ''}for a client, {price}"
            answers.append(Answer(what, _words(priced), answered))
        return answers

    async def _pay(self, platform: Platform, partner: Partner, payment: ClientPayment) -> str:
        body = {
            "program_id": PROGRAM_ID,
            "customer_id": payment.customer_id,
            "integration": payment.integration,
            "interval": "month",
            "list_price": money(payment.list_minor, CURRENCY),
            "use_bonus": payment.use_bonus,
        }
        path = f"/payouts/partners/{partner.partner_id}/client-payments"
        paid = await platform.try_to(path, body, partner)
        if "payment_id" not in paid:
            return str(paid["code"])
        self._paid[paid["payment_id"]] = payment
        return _said(Decimal(paid["discount_rate"]), paid["charged"]["minor"], paid["from_bonus"]["minor"])

    async def compare(self, platform: Platform) -> list[Scored]:
        granted = await self._new_clients()
        return [await self._one(platform, partner, granted[partner.partner_id]) for partner in self.partners]

    async def _one(self, platform: Platform, partner: Partner, new_clients: int) -> Scored:
        promise = self._promised[partner.partner_id]
        balance = await platform.balance(partner, CURRENCY)
        wallet = await platform.read(f"/rewards/partners/{partner.partner_id}/wallet", partner)
        earned = promise.earned.figures
        return Scored(
            partner,
            {
                "paying": str(promise.earned.clients),
                "earned": decimal(earned["accrued"] - earned["reversed"]),
                "deposits": decimal(promise.deposits),
                "spent": decimal(promise.spent),
                "available": decimal(promise.available),
                "bonus left": decimal(promise.bonus),
                "new clients": str(promise.new_clients),
            },
            {
                "paying": str(await platform.paying_clients(partner)),
                "earned": decimal(balance.get("accrued", 0) - balance.get("reversed", 0)),
                "deposits": decimal(balance.get("deposits", 0)),
                "spent": decimal(balance.get("spent", 0)),
                "available": decimal(balance.get("available", 0)),
                "bonus left": decimal(sum(bonus["remaining"]["minor"] for bonus in wallet["bonuses"])),
                "new clients": str(new_clients),
            },
        )

    async def _new_clients(self) -> Counter[str]:
        """By partner, the new clients' bonuses. They are events for the platform to apply: read like a platform does.

        One of another amount than promised is not counted.
        """
        found: Counter[str] = Counter()
        ids = {customer.customer_id for customer in self._made.customers}
        async for entry in entries(self._settings, ["rewards"]):
            event = orjson.loads(entry.value or b"{}")
            data = event.get("data", {})
            if event.get("type") == "bonus.granted" and data.get("customer_id") in ids:
                found[data["partner_id"]] += data["amount"] == money(NEW_CLIENT_BONUS, CURRENCY)
        return found

    def look(self) -> list[tuple[str, str]]:
        with_bonus = [name for name, payment in self._paid.items() if payment.use_bonus]
        without = [name for name, payment in self._paid.items() if not payment.use_bonus]
        return [(name, "what a partner paid for a client") for name in (*without[-1:], *with_bonus[:1])]


def _words(priced: Priced) -> str:
    return priced.refused or _said(Decimal(int(priced.rate * 100)) / 100, priced.charged, priced.from_bonus)


def _said(rate: Decimal, charged: int, from_bonus: int) -> str:
    if from_bonus:
        return f"{decimal(from_bonus)} from the bonus, {decimal(charged)} charged"
    return f"{rate * 100:.0f} % off, {decimal(charged)} charged"
