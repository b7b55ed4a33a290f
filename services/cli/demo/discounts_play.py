"""active-referrals in the demo, over HTTP: a program of the run's own, a month's verification, and invoices.

A month is verified once, for ever. So that a later run finds it undecided, each run publishes the shipped program under
an id of its own.
"""

from collections.abc import Mapping, Sequence

from schemas.moments import SECOND, format_instant
from schemas.programs import shipped
from services.cli.demo.data import HOUR, Partner
from services.cli.demo.discounts import PROGRAM_ID, Month, facts, played, promises, taken
from services.cli.demo.lines import Fact, money
from services.cli.demo.platform import Platform
from services.cli.demo.report import decimal
from services.cli.demo.scene import Answer, Scored
from services.cli.token import Role


class Discounts:
    """The scene of active-referrals; see `scene.Scene`."""

    def __init__(self, run: str, now: int) -> None:
        self._made = played(run, now)
        self._promised = promises(self._made)
        self._used = {
            invoice.account_id
            for invoice, (percent, _) in zip(
                self._made.invoices, taken(self._promised.values(), self._made.invoices), strict=True
            )
            if percent
        }

    @property
    def title(self) -> str:
        return f"active-referrals, verified for {self._made.month} as {self._made.program_id}"

    @property
    def partners(self) -> Sequence[Partner]:
        return self._made.partners

    async def publish(self, platform: Platform) -> None:
        document = next(each for each in shipped() if each.program_id == PROGRAM_ID).as_document()
        document = {**document, "program_id": self._made.program_id, "name": "The demo's own active-referrals"}
        document.pop("version", None)
        await platform.tell(f"/attribution/programs/{self._made.program_id}", document, Role.admin, "PUT")

    async def open(self, platform: Platform) -> None:
        """The order of companies that a partner chose, as an import from the past."""
        for partner in self.partners:
            if order := self._made.orders.get(partner.partner_id):
                since = format_instant(partner.joined_at + HOUR + SECOND)
                body = {"program_id": self._made.program_id, "account_ids": order, "effective_at": since}
                path = f"/attribution/partners/{partner.partner_id}/account-order"
                await platform.tell(path, body, Role.platform, "PUT")

    def facts(self, codes: Mapping[str, str]) -> list[Fact]:
        return list(facts(self._made, codes))

    async def play(self, platform: Platform) -> list[Answer]:
        """The month is verified, twice: the second time changes nothing. Then come the invoices."""
        body = {"program_id": self._made.program_id, "date": self._made.date}
        answers = []
        months = self._promised.values()
        assigned, withheld = sum(len(each.companies) for each in months), sum(each.withheld for each in months)
        promised = f"{len(self.partners)} partners, {assigned} discounts, {withheld} withheld, 0 lapsed"
        for what in ("verified over HTTP", "verified again"):
            told = await platform.tell("/rewards/verifications", body, Role.admin)
            answered = (
                f"{told['partners']} partners, {told['assigned']} discounts, {told['withheld']} withheld, "
                f"{told['lapsed']} lapsed"
            )
            answers.append(Answer(f"{self._made.date} {what}", promised, answered))
        for invoice, (percent, left) in zip(self._made.invoices, taken(months, self._made.invoices), strict=True):
            used = await platform.tell(
                f"/rewards/accounts/{invoice.account_id}/discount/use",
                {
                    "invoice_id": invoice.invoice_id,
                    "issued_at": format_instant(invoice.issued_at),
                    "amount": money(invoice.minor, "USD"),
                },
                Role.platform,
            )
            answered = f"{used['percent']} % off, {decimal(used['amount']['minor'])} left"
            what = f"{invoice.invoice_id} over {decimal(invoice.minor)}"
            answers.append(Answer(what, f"{percent} % off, {decimal(left)} left", answered))
        return answers

    async def compare(self, platform: Platform) -> list[Scored]:
        return [await self._one(platform, partner) for partner in self.partners]

    async def _one(self, platform: Platform, partner: Partner) -> Scored:
        own = f"/rewards/partners/{partner.partner_id}/discounts"
        told = await platform.read(f"{own}?program_id={self._made.program_id}&month={self._made.month}", partner)
        companies = {
            each["account_id"]: (each["referrals_counted"], each["percent"], each["status"])
            for each in told["assignments"]
        }
        promised = self._promised[partner.partner_id]
        return Scored(
            partner,
            {
                "active": str(promised.active),
                "companies": _told(self._with_status(promised)),
                "withheld": "pending_payment" if promised.withheld else "no",
            },
            {
                "active": str(told["active_referrals"]),
                "companies": _told(companies),
                "withheld": told["withheld"] or "no",
            },
        )

    def _with_status(self, month: Month) -> dict[str, tuple[int, int, str]]:
        return {
            account_id: (counted, percent, "used" if account_id in self._used else "assigned")
            for account_id, (counted, percent) in month.companies.items()
        }

    def look(self) -> list[tuple[str, str]]:
        return [
            (self.partners[0].partner_id, "a partner with monthly discounts"),
            (self._made.invoices[0].invoice_id, "an invoice that took a discount"),
        ]


def _told(companies: Mapping[str, tuple[int, int, str]]) -> str:
    """Every company above 0 %, in the order given."""
    told = (
        f"{account_id.rpartition('.')[2]}: {counted}, {percent} % {status}"
        for account_id, (counted, percent, status) in companies.items()
    )
    return "; ".join(told) or "none"
