"""What partners would have, had another document of a program been in force. Pure.

Every payment is decided anew from the facts that the customers' states hold, once by the versions that were in force
and once by the supposed one, so a difference can only come of the document. Who brought whom is decided once and stays,
and so does that something was asked for (withdrawals, claims, payments for clients). Source: contract.md, `whatif`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Literal, NamedTuple

from msgspec.structs import replace

from schemas.internal import SaleStated
from schemas.money import share
from schemas.programs import Programs
from schemas.programs.terms import IntegratorAccount, Program
from services.commission.partners import rates, sale_of
from services.commission.sales import is_decided, statement
from services.commission.saying import reversals
from services.commission.state import Customer, PaidByPartner, Place, Said, Sale
from services.commission.terms import frame


class Line(NamedTuple):
    """What is counted together: minor units of a currency; of `credits`, which have none, whole credits.

    `commissions` and `credits`: what refunds leave. `client payments`: what the partner was charged, below 0.
    """

    partner_id: str
    kind: Literal["client payments", "commissions", "credits"]
    currency: str


Had = Counter[Line]


class Unpublished(LookupError):
    """Nobody can have been bound under the program: it has no version."""


_NEVER = 2**63
"""When the document comes into force by itself."""


class Supposed(Programs):
    """The published versions, but that in a span of time `[since, until)` a document was in force instead of its
    program's own; None: from the beginning, to the end.

    The document prices what a version in force then would have priced: referrals made in the span or, where the program
    is priced at the event, payments made in it; and payments for clients made in it. Errors: Unpublished for a program
    that has no version.
    """

    def __init__(
        self, published: Programs, document: Program, since: int | None = None, until: int | None = None
    ) -> None:
        own = published.versions(document.program_id)
        if not own:
            raise Unpublished(document.program_id)
        self._since, self._until = since, until
        self.document = document.model_copy(update={"version": own[-1][1].version + 1})
        versions = {program_id: published.versions(program_id) for program_id in published}
        super().__init__(versions | {document.program_id: (*own, (_NEVER, self.document))})

    def at(self, program_id: str, instant: int) -> Program | None:
        if program_id == self.document.program_id and self.covers(instant):
            return self.document
        return super().at(program_id, instant)

    def bound(self, customer: Customer) -> Customer:
        """The customer as its referral would have been priced."""
        binding = customer.binding
        if binding is None or binding.program_id != self.document.program_id or not self.covers(binding.attributed_at):
            return customer
        return replace(customer, binding=replace(binding, program_version=self.document.version))

    def covers(self, instant: int) -> bool:
        """Whether the document was in force at an instant."""
        return (self._since is None or self._since <= instant) and (self._until is None or instant < self._until)


class WhatIf:
    """The payments that one program has to do with, as they stand and as they would have."""

    def __init__(self, published: Programs, supposed: Supposed) -> None:
        self._published, self._supposed, self._program_id = published, supposed, supposed.document.program_id
        self._sales: tuple[_Sales, _Sales] = defaultdict(dict), defaultdict(dict)
        self._charges: _Charges = defaultdict(dict)

    def take(self, customer_id: str, customer: Customer) -> None:
        """Decide a customer's payments both ways. Once more: the latest counts."""
        for payment in customer.payments.values():
            if payment.paid_by and payment.paid_by.program_id == self._program_id:
                self._charges[payment.paid_by.partner_id][payment.place] = (customer_id, payment.paid_by)
        if customer.binding and customer.binding.program_id == self._program_id:
            _decide(self._published, customer_id, customer, self._sales[0])
            _decide(self._supposed, customer_id, self._supposed.bound(customer), self._sales[1])

    @property
    def payments(self) -> int:
        """How many payments were decided."""
        return sum(len(own) for sales in (self._sales[0], self._charges) for own in sales.values())

    def had(self) -> tuple[Had, Had]:
        """What all partners have, and what they would have."""
        had, would = _earned(self._published, self._sales[0]), _earned(self._supposed, self._sales[1])
        for partner_id, charges in self._charges.items():
            for _, paid in charges.values():
                had[Line(partner_id, "client payments", paid.currency)] -= paid.charged_minor
            for currency, minor in _charged(self._supposed, charges).items():
                would[Line(partner_id, "client payments", currency)] -= minor
        return had, would


_Sales = defaultdict[str, dict[str, Sale]]
"""By partner and payment."""
_Charges = defaultdict[str, dict[Place, tuple[str, PaidByPartner]]]
"""By partner and place in time: the client, and what was paid."""


def _decide(programs: Programs, customer_id: str, customer: Customer, sales: _Sales) -> None:
    seen = frame(programs, customer)
    for payment in customer.payments.values():
        if is_decided(customer, payment):
            stated = statement(programs, customer_id, customer, seen, payment, "")
            if isinstance(stated, SaleStated):
                sales[stated.partner_id][stated.payment_id] = sale_of(stated, Said())


def _earned(programs: Programs, sales: _Sales) -> Had:
    earned = Had()
    for partner_id, own in sales.items():
        for sale, rate in rates(programs, own.values()):
            if sale.credits is not None:
                back = sum(part.credits or 0 for part in sale.taken_back)
                earned[Line(partner_id, "credits", "")] += sale.credits - back
            elif sale.accrues:
                amount = share(sale.minor, rate)
                taken, _ = reversals(sale, amount)
                left = amount - sum(part.minor for part in taken)
                earned[Line(partner_id, "commissions", sale.currency)] += left
    return earned


def _charged(supposed: Supposed, charges: Mapping[Place, tuple[str, PaidByPartner]]) -> Counter[str]:
    """What a partner would have been charged, by currency. What the document does not offer stays as it was.

    Source: programs.md, message-help, integrator mode: the discount by the family's clients, this one included.
    """
    charged: Counter[str] = Counter()
    terms, clients = supposed.document.term(IntegratorAccount), defaultdict[tuple[str, ...], set[str]](set)
    for (at, _), (customer_id, paid) in sorted(charges.items()):
        family = terms.family_of(paid.integration) if terms else None
        minor = paid.charged_minor
        if family:
            paid_for = clients[family.integrations]
            paid_for.add(customer_id)
            if supposed.covers(at) and not paid.from_bonus_minor:
                minor = share(paid.list_minor, 1 - family.rate(len(paid_for)))
        charged[paid.currency] += minor
    return charged
