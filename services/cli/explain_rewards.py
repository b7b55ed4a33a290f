"""Credits, claims, bonuses and monthly discounts in plain words. Pure: from a partner's movements to lines."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from services.cli.explain_words import line, money

Told = Mapping[str, Any]

NAMES = ("claim_id", "invoice_id")
"""What an id of a movement may be told to explain."""

_CREDITS = (
    ("credit.granted", "+", "for first purchases of referred customers"),
    ("credit.reversed", "−", "taken back: refunds, lost disputes"),
    ("claim.requested", "−", "claimed"),
    ("claim.failed", "+", "of claims that failed"),
)
_CLAIM_STATUS = {
    "claim.requested": "requested; the platform has not said yet whether it was given",
    "claim.fulfilled": "fulfilled: the data was given",
    "claim.failed": "failed: the credits are back",
}


def moved(name: str, partner_id: str, moves: Sequence[Told]) -> list[str]:
    """A claim, or an invoice with its discount. `moves`: what is about it, oldest first; at least one."""
    told: dict[str, Any] = {"partner_id": partner_id}
    for move in moves:
        told |= move
    return list(_claim(name, told, moves) if told.get("claim_id") == name else _invoice(name, told))


def _claim(name: str, told: Told, moves: Sequence[Told]) -> Iterator[str]:
    of = f"{told.get('gb', 1)} GB of {told['provider']} for {told['credits']} credits"
    yield f"Claim {name} of partner {told['partner_id']}: {of}, {_CLAIM_STATUS[moves[-1]['type']]}."
    yield line("program", told["program_id"])
    yield line("rule", "the credits go when the claim is made, and are there again when it fails")
    for move in moves:
        yield line(move["type"].partition(".")[2], move["occurred_at"])


def _invoice(name: str, told: Told) -> Iterator[str]:
    off = money(told.get("discount") or told["amount"])
    left = f", {money(told['amount'])} left to pay" if "discount" in told else ""
    yield f"Invoice {name} of company {told['account_id']} took {told['percent']} % off: {off}{left}."
    yield line("program", told["program_id"])
    yield line("partner", told["partner_id"])
    yield line("month", f"{told['month']}: the company's discount of that verification")
    yield line("rule", "a discount goes once, off the company's next invoice after the verification")


# --- a partner ------------------------------------------------------------------------------------------------------


def partner(wallet: Told, moves: Sequence[Told]) -> list[str]:
    """What a partner has besides money. `moves`: the history, as far as it was looked at."""
    return [*_credits(wallet, moves), *_bonuses(wallet), *_discounts(moves)]


def _credits(wallet: Told, moves: Iterable[Told]) -> Iterator[str]:
    sums: dict[str, Counter[str]] = {}
    for move in moves:
        sums.setdefault(move["program_id"], Counter())[move["type"]] += move.get("credits", 0)
    for each in wallet["credits"]:
        balance, own = each["balance"], sums.get(each["program_id"], Counter())
        yield line("credits", f"{each['program_id']}: {balance}")
        if balance != sum(own[kind] if sign == "+" else -own[kind] for kind, sign, _ in _CREDITS):
            continue  # the history is longer than what was looked at
        for kind, sign, meaning in _CREDITS:
            if own[kind]:
                yield f"  {'':<12} {sign} {own[kind]:>16}  {meaning}"
        yield f"  {'':<12} = {balance:>16}  credits"


def _bonuses(wallet: Told) -> Iterator[str]:
    for bonus in wallet["bonuses"]:
        left = f"{money(bonus['remaining'])} left until {bonus['expires_at']}"
        yield line("bonus", f"{bonus['program_id']}: {left}; for a new client's first month, never withdrawn")


def _discounts(moves: Sequence[Told]) -> Iterator[str]:
    """Every month's discounts, the latest month first."""
    ends = {
        (move["program_id"], move["month"], move["account_id"]): move
        for move in moves
        if move["type"] in ("discount.used", "discount.lapsed")
    }
    by_company = sorted(moves, key=lambda move: str(move.get("account_id")))
    for move in sorted(by_company, key=lambda move: str(move["occurred_at"]), reverse=True):
        of = f"{move.get('month')}, {move['program_id']}"
        if move["type"] == "discount.withheld":
            yield line("discount", f"{of}: none, a payment of the partner's was pending at the verification")
        elif move["type"] == "discount.assigned":
            end = ends.get((move["program_id"], move["month"], move["account_id"]))
            what = f"company {move['account_id']} {move['percent']} % for {move['referrals_counted']} active referrals"
            yield line("discount", f"{of}: {what}; {_end(end)}")


def _end(move: Told | None) -> str:
    if move is None:
        return "not used, the company's next invoice takes it"
    if move["type"] == "discount.lapsed":
        return f"lapsed {move['occurred_at']}, unused"
    return f"used by invoice {move['invoice_id']}: {money(move['amount'])} off"
