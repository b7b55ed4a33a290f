"""message-help in the demo: clients who pay, and clients who are paid for. Pure, from a seed.

The promise is a small reading of its own of the program; it shares no code with the services.
Source: programs.md, message-help.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

from schemas.moments import DAY
from services.cli.demo.data import HOUR, Click, Customer, Partner, Payment, Refund, Subscription
from services.cli.demo.promise import Promise, tiered
from services.cli.demo.scene import member

PROGRAM_ID, CURRENCY = "message-help", "EUR"
TIERS = ((30, Fraction(30, 100)), (1, Fraction(20, 100)))
CRM = frozenset({"amo", "kommo", "bitrix", "message-help"})
CRM_DISCOUNTS = ((10, Fraction(50, 100)), (5, Fraction(40, 100)), (1, Fraction(35, 100)))
ALTEGIO_DISCOUNT = Fraction(35, 100)
NEW_CLIENT_BONUS, WELCOME_BONUS, WELCOME_DAYS, CLICK_DAYS = 500, 50_000, 60, 30
GENERATED_CLIENTS, PAID_FOR = 36, 6


@dataclass(frozen=True, slots=True)
class ClientPayment:
    """A month that a partner pays for a client."""

    partner_id: str
    customer_id: str
    integration: str
    list_minor: int
    use_bonus: bool = False


@dataclass(frozen=True, slots=True)
class Played:
    """`deposits`: partner id → what is paid into its account first."""

    now: int
    partners: tuple[Partner, ...]
    customers: tuple[Customer, ...]
    deposits: Mapping[str, int]
    payments: tuple[ClientPayment, ...]


@dataclass(slots=True)
class Account:
    """What a partner is promised, in cents. `clients`: for whom it has paid, by family."""

    earned: Promise
    bonus: int
    deposits: int = 0
    spent: int = 0
    new_clients: int = 0
    clients: dict[bool, set[str]] = field(default_factory=lambda: {True: set(), False: set()})

    @property
    def available(self) -> int:
        return self.earned.available + self.deposits - self.spent


@dataclass(frozen=True, slots=True)
class Priced:
    """What a client payment costs, or the code with which it is refused."""

    rate: Fraction = Fraction(0)
    charged: int = 0
    from_bonus: int = 0
    refused: Literal["", "bonus_not_applicable", "insufficient_balance"] = ""


def promo_code_of(partner: Partner) -> str:
    return f"{partner.partner_id.replace('.', '-')}-promo".upper()


def played(run: str, now: int, seed: int) -> Played:
    """Partners and clients. Deterministic in its arguments."""
    rng = random.Random(f"{seed}:{PROGRAM_ID}")  # noqa: S311 (a seed to repeat)
    start = (now - 300 * DAY) // 1000 * 1000
    tier, promo, payer, fresh = (
        member(run, f"messages{number}", PROGRAM_ID, start, shows)
        for number, shows in enumerate(
            (
                "20 % of what clients pay, 30 % from the 30th paying client",
                "promo code wins over a click; 5 EUR for each new client",
                "pays for clients: 35 % off, 40 % from the 5th; altegio 35 %",
                "welcome bonus: a client's first month, at list price",
            ),
            1,
        )
    )
    fresh = replace(fresh, joined_at=(now - 20 * DAY) // 1000 * 1000)
    clients = [_client(run, number, tier, start, rng) for number in range(1, GENERATED_CLIENTS + 1)]
    numbers = iter(range(GENERATED_CLIENTS + 1, GENERATED_CLIENTS + 100))
    code = promo_code_of(promo)
    for_promo = [_client(run, next(numbers), promo, start, rng) for _ in range(4)]
    for_promo[0] = replace(for_promo[0], promo_code=code, clicks=(Click(tier.partner_id, for_promo[0].clicks[0].at),))
    for_promo[1] = replace(for_promo[1], promo_code=f" {code.lower()} ", clicks=())
    for_promo[2] = replace(for_promo[2], promo_code=code, clicks=(), existing=True)
    paid_for = [_unpaying(run, next(numbers), payer, start + 5 * DAY) for _ in range(PAID_FOR)]
    bonus_for = [_unpaying(run, next(numbers), fresh, fresh.joined_at + 2 * DAY) for _ in range(2)]
    ids, new = [each.customer_id for each in paid_for], [each.customer_id for each in bonus_for]
    crm = ("amo", "kommo", "bitrix", "message-help", "kommo")
    own, welcome = payer.partner_id, fresh.partner_id
    payments = (
        *(ClientPayment(own, ids[number], integration, 43_200) for number, integration in enumerate(crm)),
        ClientPayment(own, ids[5], "altegio", 9_999),
        ClientPayment(own, ids[0], "amo", 43_200),
        ClientPayment(welcome, new[0], "amo", 43_200, use_bonus=True),
        ClientPayment(welcome, new[1], "amo", 10_000, use_bonus=True),  # more than what is left
        ClientPayment(welcome, new[0], "altegio", 1_000, use_bonus=True),  # no new client any more
        ClientPayment(welcome, new[1], "bitrix", 5_000, use_bonus=True),
    )
    customers = (*clients, *for_promo, *paid_for, *bonus_for)
    return Played(now, (tier, promo, payer, fresh), customers, {own: 150_000}, payments)


def _client(run: str, number: int, partner: Partner, since: int, rng: random.Random) -> Customer:
    """A client who came through the partner's link and pays some months; a few payments are refunded in part."""
    signed_up_at = since + (5 + number) * DAY
    customer = _unpaying(run, number, partner, signed_up_at, rng.randint(1, CLICK_DAYS - 1))
    plan = Subscription(f"{customer.customer_id}.s1", "messages", "month", signed_up_at + DAY)
    minor = rng.choice((1_999, 4_905, 12_340, 43_200))
    payments = []
    for month in range(rng.randint(1, 4)):
        payment_id, at = f"{customer.customer_id}.p{month + 1}", signed_up_at + (1 + 30 * month) * DAY
        refunds = (Refund(f"{payment_id}.r1", at + DAY, rng.randint(1, minor)),) if rng.random() < 0.1 else ()
        account_id = customer.accounts[0][0]
        payments.append(Payment(payment_id, at, minor, account_id, plan, refunds, currency=CURRENCY))
    return replace(customer, subscriptions=(plan,), payments=tuple(payments))


def _unpaying(run: str, number: int, partner: Partner, signed_up_at: int, clicked_days_before: int = 1) -> Customer:
    own = f"{run}.client{number:02}"
    return Customer(
        own,
        f"Client {number}",
        f"client{number}@{run}.example",
        signed_up_at,
        clicks=(Click(partner.partner_id, signed_up_at - clicked_days_before * DAY + HOUR),),
        accounts=((f"{own}.a1", signed_up_at + HOUR),),
    )


# --- the promise ----------------------------------------------------------------------------------------------------


def bound(made: Played) -> Iterator[tuple[Customer, Partner, bool]]:
    """Each client with its partner, and whether a promo code brought it."""
    by_code = {promo_code_of(partner).casefold(): partner for partner in made.partners}
    by_id = {partner.partner_id: partner for partner in made.partners}
    for customer in made.customers:
        if customer.existing:
            continue
        coded = by_code.get(customer.promo_code.strip().casefold())
        if coded is not None:
            yield customer, coded, True
            continue
        last = max(customer.clicks, key=lambda click: click.at)
        if customer.signed_up_at < last.at + CLICK_DAYS * DAY:
            yield customer, by_id[last.partner_id], False


def promises(made: Played) -> tuple[dict[str, Account], list[Priced]]:
    """What every partner is promised when all client payments were tried, and what each of those costs."""
    earning: dict[str, list[Sequence[Payment]]] = {partner.partner_id: [] for partner in made.partners}
    coded = dict.fromkeys(earning, 0)
    for customer, partner, by_code in bound(made):
        earning[partner.partner_id].append(customer.payments)
        coded[partner.partner_id] += by_code
    accounts = {}
    for partner in made.partners:
        own = partner.partner_id
        is_new = made.now < partner.joined_at + HOUR + WELCOME_DAYS * DAY
        accounts[own] = Account(tiered(earning[own], TIERS), WELCOME_BONUS if is_new else 0)
        accounts[own].deposits, accounts[own].new_clients = made.deposits.get(own, 0), coded[own]
    return accounts, [_price(accounts[payment.partner_id], payment) for payment in made.payments]


def _price(account: Account, payment: ClientPayment) -> Priced:
    """What a payment costs; the account has paid it then."""
    family, customer_id = account.clients[payment.integration in CRM], payment.customer_id
    if payment.use_bonus:
        known = any(customer_id in clients for clients in account.clients.values())
        if known or payment.list_minor > account.bonus:
            return Priced(refused="bonus_not_applicable")
        account.bonus -= payment.list_minor
        family.add(customer_id)
        return Priced(from_bonus=payment.list_minor)
    count = len(family | {customer_id})
    rate = ALTEGIO_DISCOUNT
    if payment.integration in CRM:
        rate = next(rate for least, rate in CRM_DISCOUNTS if count >= least)
    charged = round(payment.list_minor * (1 - rate))
    if charged > account.available:
        return Priced(refused="insufficient_balance")
    account.spent += charged
    family.add(customer_id)
    return Priced(rate, charged)
