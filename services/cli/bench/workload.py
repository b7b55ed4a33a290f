"""W1: customers bound to partners of keycrm, their payments, some of them sent twice; and what must come of them.

Everything follows from the seed and the counts. The bytes are those that a platform's own producer would write. About
4 % of the payments lie outside of the customer's 12 months; 5 % come a second time, byte for byte, up to 5,000 records
later. With `hot_share`, that part of all customers is the first partner's; each pays as much as any other.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson

SEED = 20261123
PARTNERS = 2_000
REPEATED, MOST_PLACES_LATER = 0.05, 5_000
BOUND_FROM, BOUND_DAYS = datetime(2025, 4, 15, tzinfo=UTC), 260
PAID_FROM, PAID_DAYS = datetime(2026, 1, 1, tzinfo=UTC), 166
DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIERS = ((21, 30), (6, 20), (1, 10))
"""Paying clients from which on a partner has so many percent. Source: programs.md, keycrm."""

Record = tuple[str, bytes]
"""Key and value."""


def _ms(time: datetime) -> int:
    return (time - EPOCH) // timedelta(milliseconds=1)


def _rfc3339(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}Z"


class Workload:
    """The records, in the order in which they are published."""

    def __init__(self, payments: int, customers: int, partners: int = PARTNERS, hot_share: float = 0.0) -> None:
        rng = random.Random(SEED)  # noqa: S311 (a seed to repeat)
        self.count, self.customers, self.partners = payments, customers, min(partners, customers)
        self.partner_ids = [f"p{number:05d}" for number in range(self.partners)]
        span = BOUND_DAYS * DAY_MS
        self.bound = [BOUND_FROM + timedelta(milliseconds=rng.randrange(span)) for _ in range(customers)]
        self.customer_of = [rng.randrange(customers) for _ in range(payments)]
        self.minor_of = [rng.randrange(500, 50_001) for _ in range(payments)]
        self._again: dict[int, list[int]] = {}
        for i in range(payments):
            if rng.random() < REPEATED:
                last = min(payments - 1, i + rng.randrange(1, MOST_PLACES_LATER + 1))
                self._again.setdefault(last, []).append(i)
        self._of_first = int(customers * hot_share)
        self._step_ms = max(1, PAID_DAYS * DAY_MS // max(1, payments))
        self._closes_ms = [_ms(at.replace(year=at.year + 1)) for at in self.bound]

    @property
    def repeated(self) -> int:
        """How many payments come twice."""
        return sum(map(len, self._again.values()))

    def partner_of(self, customer: int) -> str:
        return self.partner_ids[0 if customer < self._of_first else customer % self.partners]

    def pays(self, i: int) -> bool:
        """Whether the payment lies within the customer's 12 months, and so earns something."""
        return _ms(PAID_FROM) + i * self._step_ms < self._closes_ms[self.customer_of[i]]

    def referrals(self) -> Iterator[Record]:
        for number, bound in enumerate(self.bound):
            customer, at = f"c{number:06d}", _rfc3339(bound)
            yield (
                customer,
                (
                    f'{{"specversion":"1.0","id":"ref-{customer}","source":"/attribution","type":"referral.attributed",'
                    f'"time":"{at}","datacontenttype":"application/json","data":{{"customer_id":"{customer}",'
                    f'"partner_id":"{self.partner_of(number)}","program_id":"keycrm","program_version":1,'
                    f'"method":"click","attributed_at":"{at}"}}}}'
                ).encode(),
            )

    def payments(self) -> Iterator[Record]:
        for i in range(self.count):
            yield self._payment(i)
            for j in self._again.get(i, ()):
                yield self._payment(j)

    def _payment(self, i: int) -> Record:
        customer = f"c{self.customer_of[i]:06d}"
        at = _rfc3339(PAID_FROM + timedelta(milliseconds=i * self._step_ms))
        return (
            customer,
            (
                f'{{"specversion":"1.0","id":"evt-{i:08d}","source":"/platform","type":"payment.succeeded",'
                f'"time":"{at}","datacontenttype":"application/json","data":{{"payment_id":"pay-{i:08d}",'
                f'"customer_id":"{customer}","account_id":"a{customer}","subscription_id":"s{customer}",'
                f'"product_id":"crm-pro","interval":"month",'
                f'"amount":{{"minor":{self.minor_of[i]},"currency":"USD"}}}}}}'
            ).encode(),
        )

    def balances(self) -> dict[str, int]:
        """What each partner must have accrued, in cents: payments in the order of their time, however they arrive."""
        clients: dict[str, set[int]] = {}
        found: dict[str, int] = {}
        for i in filter(self.pays, range(self.count)):
            customer = self.customer_of[i]
            partner = self.partner_of(customer)
            own = clients.setdefault(partner, set())
            own.add(customer)
            percent = next(percent for least, percent in TIERS if len(own) >= least)
            found[partner] = found.get(partner, 0) + half_even(self.minor_of[i] * percent, 100)
        return found


def half_even(numerator: int, denominator: int) -> int:
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))


@dataclass(slots=True)
class Decided:
    """What stands on `commissions`, payment by payment.

    `duplicates`: payments that were decided once more, or otherwise. `again`: records that stand there twice under the
    same id, byte for byte, which a reader knows by the id. `wrong`: of another partner, or accrued where nothing is
    earned, and the other way round; `first_wrong` is one of them.
    """

    duplicates: int = 0
    again: int = 0
    wrong: int = 0
    missing: int = 0
    adjusted: int = 0
    first_wrong: str = ""
    _of: dict[int, tuple[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, workload: Workload, values: Iterable[bytes]) -> "Decided":
        found = cls()
        for value in values:
            found._take(workload, value)
        found.missing = workload.count - len(found._of)
        return found

    def _take(self, workload: Workload, value: bytes) -> None:
        event = orjson.loads(value)
        kind, data = event["type"], event["data"]
        if kind not in ("commission.accrued", "commission.declined"):
            self.adjusted += kind == "commission.adjusted"
            return
        i = int(data["payment_id"].removeprefix("pay-"))
        known = self._of.get(i)
        if known is not None:
            self.again += known == (event["id"], hash(value))
            self.duplicates += known != (event["id"], hash(value))
            return
        self._of[i] = event["id"], hash(value)
        right_kind = "commission.accrued" if workload.pays(i) else "commission.declined"
        if kind != right_kind or data["partner_id"] != workload.partner_of(workload.customer_of[i]):
            self.wrong += 1
            self.first_wrong = self.first_wrong or value.decode()

    def fault(self, expected: Mapping[str, int], found: Mapping[str, int]) -> str:
        """What is not as it must be; empty where all is. `expected`, `found`: the partners' balances."""
        said = [f"{getattr(self, name)} {name}" for name in ("missing", "duplicates", "wrong") if getattr(self, name)]
        differing = {
            partner for partner in expected.keys() | found.keys() if expected.get(partner) != found.get(partner)
        }
        if differing:
            said.append(f"{len(differing)} balances differ, one of {min(differing)}")
        return ", ".join(said) + (f": {self.first_wrong}" if self.first_wrong else "")
