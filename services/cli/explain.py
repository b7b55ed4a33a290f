"""`refstream explain`: why a payment, signup, commission, withdrawal, top-up or balance is what it is."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import orjson
import typer

from schemas.ids import partition_of
from schemas.moments import format_instant, micros
from services.cli import explain_rewards as rewards
from services.cli import explain_words as words
from services.cli.state import read_state, running_settings
from services.cli.token import Role, signed
from services.runtime.settings import Settings
from services.runtime.topic_log import entries

PERSONAL = frozenset({"name", "email", "phone", "click_token", "evidence"})
"""Fields of records that are hidden; of an account to pay to, the end stays."""

MOST_PAGES, PAGE = 10, 100
MOST_RECORDS = 50
LOOKED_UP_ON_THE_LOG = ("commissions", "payouts", "payments", "rewards")
_NAMES = (
    *("commission_id", "reversal_id", "adjustment_id", "refund_id", "dispute_id"),
    *("withdrawal_id", "topup_id", "deposit_id"),
    *rewards.NAMES,
)


class ExplainRefused(Exception):
    """There is nothing to explain, or nobody to ask. The message says so for the terminal."""


@dataclass(slots=True)
class Found:
    """One thing that an id names. `facts`: the answers it is made of; `says`: the same in plain words.

    `look_in`: topic → key under which its records stand; `about`: what a record must name to be shown.
    """

    kind: str
    facts: dict[str, Any]
    says: list[str]
    look_in: dict[str, str] = field(default_factory=dict)
    about: str = ""
    records: list[dict[str, Any]] | None = None


def explain(
    name: Annotated[str, typer.Argument(metavar="ID", help="Of a payment, customer, commission, withdrawal, …")],
    url: Annotated[
        str | None, typer.Option(envvar="REFSTREAM_URL", help="Address of the API; else that of the local stack.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="REFSTREAM_TOKEN", help="An admin's token; else one is signed here.")
    ] = None,
    partner: Annotated[
        str | None,
        typer.Option(help="The partner of a commission or withdrawal, where Kafka cannot be read from here."),
    ] = None,
    records: Annotated[bool, typer.Option("--records/--no-records", help="Also look for the input records.")] = True,
    personal: Annotated[bool, typer.Option(help="Show names, e-mails and phones in records; they are hidden.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: the answers, words and records.")] = False,
) -> None:
    """Tell why something is what it is: program and version, rule, inputs, arithmetic; reasons also for a no.

    ID may name a payment (also a purchase that earned credits, or one made for a client), a customer (its signup), a
    commission, a refund or dispute, a withdrawal, a top-up, a deposit, a claim on credits, an invoice that took a
    discount, or a partner (its balance, credits, bonuses and discounts). Where Kafka can be reached, the records behind
    the answer are shown too, and ids that no list of the API begins with (commissions, withdrawals, claims, …) are
    looked up on the log.
    Exits with 1 for an id that names nothing.
    """
    settings = running_settings()
    try:
        found = asyncio.run(_explain(settings, name, url, token, partner, with_records=records, personal=personal))
    except ExplainRefused as refused:
        print(f"refstream: {refused}", file=sys.stderr)
        raise typer.Exit(1) from refused
    if as_json:
        told = [{"kind": f.kind, "says": f.says, "facts": f.facts, "records": f.records} for f in found]
        print(json.dumps({"id": name, "found": told}, indent=2, ensure_ascii=False))
    else:
        _print(found)


def _print(found: list[Found]) -> None:
    for number, each in enumerate(found):
        if number:
            print()
        print("\n".join(each.says))
        if each.records:
            print("Records")
            print("\n".join(words.records(each.records)))
        elif each.records is None and each.look_in:
            print("Records are not shown: Kafka is not looked at from here.")


async def _explain(
    settings: Settings,
    name: str,
    url: str | None,
    token: str | None,
    partner: str | None,
    *,
    with_records: bool,
    personal: bool,
) -> list[Found]:
    """Everything that the id names, the closest first. Errors: ExplainRefused."""
    state = read_state(settings.data_path)
    address = url or (state.url if state else None) or settings.public_url
    if not address:
        raise ExplainRefused("nobody to ask: start the local stack (`refstream up`), or give --url")
    bearer = token or signed(settings, Role.admin, "admin")
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {bearer}"}, timeout=30) as http:
        api = Api(http, format_instant(micros(settings.now())))
        # The local stack's log says nothing about what another address answers.
        log = (
            settings
            if settings.kafka and (not url or Settings.load().kafka or (state and url.rstrip("/") == state.url))
            else None
        )
        found = await api.by_id(name)
        if not found and partner:
            found = await api.of_partner(name, partner)
        if not found and log:
            found = await _from_log(log, api, name) or await _undecided(log, name)
    if not found:
        where = "" if log else ". Commissions, withdrawals and the like are found with --partner, or with Kafka"
        raise ExplainRefused(f"{name} names nothing that is known here{where}")
    for each in found:
        if not with_records:
            each.records = []
        elif log:
            each.records = await _records(log, each, personal=personal)
    return found


# --- by HTTP --------------------------------------------------------------------------------------------------------


class Api:
    """Asks the four APIs. Every method raises ExplainRefused where an answer is an error but 404."""

    def __init__(self, http: httpx.AsyncClient, now: str) -> None:
        self._http, self._now = http, now

    async def by_id(self, name: str) -> list[Found]:
        """The payment, customer and partner of this id."""
        found = await asyncio.gather(self.payment(name), self._partner(name), self._signup(name))
        return [each for each in found if each]

    async def payment(self, payment_id: str) -> Found | None:
        decision = await self._get(f"/commission/payments/{_safe(payment_id)}/decision")
        if decision is None:
            return None
        customer_id = decision["customer_id"]
        signup = await self._get(f"/attribution/customers/{_safe(customer_id)}/decision")
        look_in = {"payments": customer_id, "commissions": decision.get("partner_id") or customer_id}
        if decision["outcome"] == "credited":
            look_in["rewards"] = decision["partner_id"]
        if paid_by := decision["inputs"].get("paid_by"):
            look_in["payouts"] = paid_by["partner_id"]
        says = words.payment(decision, signup, self._now)
        return Found("payment", {"decision": decision, "signup": signup}, says, look_in, payment_id)

    async def _signup(self, customer_id: str) -> Found | None:
        decision = await self._get(f"/attribution/customers/{_safe(customer_id)}/decision")
        if decision is None:
            return None
        look_in = {"customers": customer_id, "payments": customer_id, "referrals": customer_id}
        return Found("customer", {"decision": decision}, words.signup(decision), look_in, customer_id)

    async def _partner(self, partner_id: str) -> Found | None:
        page = await self._get(f"/attribution/partners/{_safe(partner_id)}")
        if page is None:
            return None
        own = f"/partners/{_safe(partner_id)}"
        balances = (await self._get(f"/payouts{own}/balance") or {"balances": []})["balances"]
        tiers = {}
        for program_id in sorted({each["program_id"] for each in page["programs"]}):
            tiers[program_id] = await self._get(f"/commission{own}/tier?program_id={_safe(program_id)}")
        known = {program_id: tier for program_id, tier in tiers.items() if tier}
        pending = await self._on_hold(own) if any(each["pending"]["minor"] for each in balances) else {}
        wallet = await self._get(f"/rewards{own}/wallet") or {"credits": [], "bonuses": []}
        moves = [move async for move in self._pages(f"/rewards{own}/history")]
        facts = {"partner": page, "balances": balances, "tiers": known, "on_hold": pending}
        facts |= {"wallet": wallet, "history": moves}
        says = words.partner(page, balances, known, pending) + rewards.partner(wallet, moves)
        return Found("partner", facts, says, dict.fromkeys(("partners", "payouts", "rewards"), partner_id), partner_id)

    async def _on_hold(self, own: str) -> dict[str, dict[str, Any]]:
        """By program, the commissions that are not available yet; `complete`: all of the partner's were looked at."""
        waiting: dict[str, dict[str, Any]] = {}
        count = 0
        async for item in self._pages(f"/commission{own}/commissions"):
            count += 1
            of = waiting.setdefault(
                item["program_id"], {"count": 0, "by_currency": {}, "next_at": None, "complete": True}
            )
            currency, left = item["amount"]["currency"], item["amount"]["minor"] - item["reversed"]["minor"]
            if left and item["available_at"] > self._now:
                of["count"] += 1
                of["by_currency"][currency] = of["by_currency"].get(currency, 0) + left
                of["next_at"] = min(of["next_at"] or item["available_at"], item["available_at"])
        for of in waiting.values():
            of["complete"] = count < MOST_PAGES * PAGE
        return waiting

    async def of_partner(self, name: str, partner_id: str) -> list[Found]:
        """A commission or withdrawal of a partner, from the partner's own lists."""
        own = f"/partners/{_safe(partner_id)}"
        async for item in self._pages(f"/commission{own}/commissions"):
            if item["commission_id"] == name:
                payment = await self.payment(item["payment_id"])
                return [payment] if payment else []
        async for item in self._pages(f"/payouts{own}/withdrawals"):
            if item["withdrawal_id"] == name:
                steps = [{"type": "withdrawal.requested", "time": item["created_at"]}]
                if item["settled_at"]:
                    steps.append({"type": f"withdrawal.{item['status']}", "time": item["settled_at"]})
                return [await self.withdrawal({**item, "id": name, "partner_id": partner_id, "events": steps})]
        history = [move async for move in self._pages(f"/rewards{own}/history")]
        moves = [move for move in reversed(history) if name in [move.get(field) for field in rewards.NAMES]]
        return [_moved(name, partner_id, moves)] if moves else []

    async def withdrawal(self, told: dict[str, Any]) -> Found:
        program = await self._get(f"/attribution/programs/{_safe(told['program_id'])}")
        told["minimums"] = (program or {}).get("payouts", {}).get("minimums", [])
        return Found("withdrawal", told, words.withdrawal(told), {"payouts": told["partner_id"]}, told["id"])

    async def topup(self, told: dict[str, Any]) -> Found:
        program = await self._get(f"/attribution/programs/{_safe(told['program_id'])}")
        told["points"] = ((program or {}).get("payouts", {}).get("topup") or {}).get("points")
        return Found("topup", told, words.topup(told), {"payouts": told["partner_id"]}, told["id"])

    async def _get(self, path: str) -> dict[str, Any] | None:
        """The answer, or None where there is no such thing."""
        try:
            answer = await self._http.get(path)
        except httpx.HTTPError as error:
            raise ExplainRefused(f"{self._http.base_url} does not answer: {type(error).__name__}") from None
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if not answer.is_success:
            raise ExplainRefused(f"GET {path} was answered {answer.status_code} {_code(answer)}")
        body: dict[str, Any] = answer.json()
        return body

    async def _pages(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """The items of a list, newest first, as far as MOST_PAGES go."""
        cursor: str | None = ""
        for _ in range(MOST_PAGES):
            page = await self._get(f"{path}?limit={PAGE}" + (f"&cursor={_safe(cursor)}" if cursor else ""))
            if page is None:
                return
            for item in page["items"]:
                yield item
            cursor = page["next_cursor"]
            if cursor is None:
                return


def _safe(part: str) -> str:
    return quote(part, safe="")


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("code", ""))
    except ValueError:
        return ""


# --- from the log ---------------------------------------------------------------------------------------------------


async def _from_log(settings: Settings, api: Api, name: str) -> list[Found]:
    """What the id names in the events that refstream or the platform wrote about it."""
    told = [
        event
        async for entry in entries(settings, LOOKED_UP_ON_THE_LOG)
        if entry.value and name.encode() in entry.value and (event := _event(entry.value))
        if name in [event["data"].get(field) for field in _NAMES]
    ]
    if not told:
        return []
    data = told[0]["data"]
    if "payment_id" in data:
        payment = await api.payment(data["payment_id"])
        return [payment] if payment else []
    told.sort(key=lambda event: event["time"])
    if name in [data.get(field) for field in rewards.NAMES]:
        moves = [{"type": event["type"], "occurred_at": event["time"], **event["data"]} for event in told]
        return [_moved(name, data["partner_id"], moves)]
    facts = _life(name, told)
    if data.get("withdrawal_id") == name:
        return [await api.withdrawal(facts)]
    if data.get("topup_id") == name:
        return [await api.topup(facts)]
    return [Found("deposit", facts, words.deposit(facts), {"payouts": facts["partner_id"]}, name)]


def _moved(name: str, partner_id: str, moves: list[dict[str, Any]]) -> Found:
    """A claim, or an invoice that took a discount."""
    kind = "claim" if moves[0].get("claim_id") == name else "invoice"
    return Found(kind, {"moves": moves}, rewards.moved(name, partner_id, moves), {"rewards": partner_id}, name)


async def _undecided(settings: Settings, customer_id: str) -> list[Found]:
    """A customer that has records but no signup so far."""
    found = Found("customer", {}, [], {"customers": customer_id, "payments": customer_id}, customer_id)
    records = await _records(settings, found, personal=False)
    found.says = words.undecided(customer_id, len(records))
    return [found] if records else []


def _life(name: str, told: list[dict[str, Any]]) -> dict[str, Any]:
    """What a withdrawal, top-up or deposit came to: its fields, and its events in order."""
    facts: dict[str, Any] = {}
    for event in told:
        facts |= event["data"]
    if "destination" in facts:
        facts["destination"] = facts["destination"][-4:]
    last = told[-1]["type"].partition(".")[2]
    status = "processing" if last == "requested" else last
    steps = [{"type": event["type"], "time": event["time"]} for event in told]
    return facts | {"id": name, "status": status, "time": told[0]["time"], "events": steps}


async def _records(settings: Settings, found: Found, *, personal: bool) -> list[dict[str, Any]]:
    """The newest records that are about it, oldest first."""
    shown = []
    for topic, key in found.look_in.items():
        async for entry in entries(settings, [topic], partition_of(key, settings.partitions)):
            if entry.key != key.encode() or found.about.encode() not in (entry.value or b""):
                continue
            event = _event(entry.value)
            if event is None or found.about not in event["data"].values():
                continue
            shown.append(
                {
                    "topic": topic,
                    "position": entry.position,
                    "time": event["time"],
                    "type": event["type"],
                    "data": _hidden(event["data"], personal=personal),
                }
            )
    shown.sort(key=lambda record: str(record["time"]))
    return shown[-MOST_RECORDS:]


def _event(value: bytes | None) -> dict[str, Any] | None:
    """A record as far as it is an event."""
    try:
        told = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(told, dict) or not isinstance(told.get("data"), dict):
        return None
    return {"type": str(told.get("type")), "time": str(told.get("time")), "data": told["data"]}


def _hidden(data: Mapping[str, Any], *, personal: bool) -> dict[str, Any]:
    """A record's data as it may be shown; what a commission's standing repeats is left out."""
    shown = {}
    for name, value in data.items():
        if name == "standing":
            continue
        if name == "destination" and "withdrawal_id" in data:
            value = f"…{str(value)[-4:]}"
        elif name in PERSONAL and not personal and value is not None:
            value = "(hidden)"
        shown[name] = value
    return shown
