"""Decisions and balances in plain words, for somebody who answers a partner's question. Pure: from answers to lines."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from schemas.money import decimal_amount

Told = Mapping[str, Any]

SIGNUP_REASONS = {
    "no_click": "Nothing that came with the signup says who brought the customer: no click before it, no promo code.",
    "invalid_token": "The click cookie's value was changed or is not ours, and there was no other evidence.",
    "unknown_code": "No link or promo code of this name exists.",
    "program_disabled": "The program was off when the customer signed up.",
    "partner_inactive": "The partner had not activated the program when the customer signed up.",
    "existing_customer": "The customer had an account before; such a signup counts for nobody.",
    "self_referral": "Partner and customer are one: same customer id, e-mail or phone.",
    "window_expired": "The deciding click was too long before the signup.",
    "already_referred": "The customer was bound to a partner before.",
}
PAYMENT_REASONS = {
    "integrator_paid": "the partner paid for this client",
    "not_referred": "the customer was bound to no partner then",
    "program_disabled": "the program was off",
    "outside_window": "it was paid outside the time in which payments earn",
    "other_family": "it is not of the product family that earns",
    "not_first_purchase": "it is not the customer's first purchase",
    "other_product": "it is for another product than the customer's first",
    "downgraded": "the plan had been downgraded before",
    "cancelled": "the sale's subscription had ended before",
    "no_rate": "the program pays nothing on such a payment",
}
TAKEN_AS = {
    "counts": "looked at",
    "after_signup": "does not count: after the signup",
    "unknown_code": "does not count: unknown code",
    "own_code": "does not count: the customer's own code",
}


def money(amount: Told) -> str:
    """`{minor, currency}` as a person writes it."""
    return f"{decimal_amount(amount['minor'], amount['currency'])} {amount['currency']}"


def line(name: str, text: object) -> str:
    """A named line under a headline."""
    return f"  {name:<12} {text}"


# --- a payment ------------------------------------------------------------------------------------------------------


def payment(decision: Told, signup: Told | None, now: str) -> list[str]:
    """Why a payment earned what it earned. `signup`: its customer's decision, where there is one."""
    return [*_payment_head(decision), *_payment_body(decision, signup, now)]


def _payment_head(decision: Told) -> Iterator[str]:
    of = f"Payment {decision['payment_id']} of customer {decision['customer_id']}"
    match decision["outcome"]:
        case "accrued":
            first, *more = decision["arithmetic"]
            left = f"; {more[-1].rpartition(' = ')[2]}" if more else ""
            yield f"{of} earns {first.rpartition(' = ')[2]} for partner {decision['partner_id']}{left}."
        case "credited":
            first, *more = decision["arithmetic"]
            left = f"; {more[-1].rpartition(' = ')[2]}" if more else ""
            earned = first.rpartition(" = ")[2].removesuffix(", rounded down")
            yield f"{of} earns {earned} for partner {decision['partner_id']}{left}."
        case "declined":
            yield f"{of} earns nothing: {PAYMENT_REASONS.get(decision['reason'], decision['reason'])}."
        case _:
            yield f"{of} is not decided yet."


def _payment_body(decision: Told, signup: Told | None, now: str) -> Iterator[str]:
    inputs = decision["inputs"]
    if "program_id" in decision:
        yield line("program", f"{decision['program_id']}, version {decision.get('program_version', '?')}")
    yield line("rule", decision["rule"])
    for reason in (decision.get("reasons") or [])[1:]:
        yield line("also", f"{reason}: {PAYMENT_REASONS.get(reason, reason)}")
    about = [f"{name.removesuffix('_id').replace('_', ' ')} {inputs[name]}" for name in _PAID_FOR if name in inputs]
    if {"quantity_gb", "provider"} <= inputs.keys():
        about.append(f"{inputs['quantity_gb']} GB of {inputs['provider']}")
    yield line("paid", ", ".join([money(inputs["amount"]), inputs["paid_at"], *about]))
    yield from _paid_by(inputs)
    if signup is not None:
        yield line("signup", f"{_bound(signup)}; more: refstream explain {decision['customer_id']}")
    elif decision["outcome"] == "waiting":
        yield line("signup", "has not come, or is not decided; the payment waits for it")
    for since, until in () if "paid_by" in inputs else _spans(inputs):
        yield line("earns", f"payments from {since} until {until or 'further notice'}")
    yield from _sale(inputs, decision["payment_id"])
    yield from _tier(inputs)
    for number, step in enumerate(decision["arithmetic"]):
        yield line("" if number else "arithmetic", step)
    yield from _holds(inputs, now)
    if "changed_by" in inputs:
        yield line("changed by", f"event {inputs['changed_by']}, the last that changed it")
    if "commission_id" in decision and decision["outcome"] != "credited":
        yield line("commission", decision["commission_id"])


def _paid_by(inputs: Told) -> Iterator[str]:
    """How a partner paid for the client."""
    by = inputs.get("paid_by")
    if by is None:
        return
    charged = f"{money(by['charged'])} charged to the partner account"
    how = f"list price {money(by['list_price'])}, discount rate {by['discount_rate']}: {charged}"
    if by["from_bonus"]["minor"]:
        how = f"{money(by['from_bonus'])} from the welcome bonus, which pays the list price; {charged}"
    yield line("paid by", f"partner {by['partner_id']}, {by['integration']}: {how}")


_PAID_FOR = ("product_family", "product_id", "subscription_id", "account_id")


def _spans(inputs: Told) -> list[list[str | None]]:
    """When payments earn; spans that meet are one."""
    spans: list[list[str | None]] = []
    for span in inputs.get("earns", ()):
        if spans and spans[-1][1] == span["from"]:
            spans[-1][1] = span["until"]
        else:
            spans.append([span["from"], span["until"]])
    return spans


def _sale(inputs: Told, payment_id: str) -> Iterator[str]:
    """What of the customer's history matters."""
    if inputs.get("first_payment_id") not in (None, payment_id):
        product = f" for product {inputs['first_product_id']}" if "first_product_id" in inputs else ""
        yield line("first paid", f"{inputs['first_payment_id']}{product}")
    if "subscription_ended_at" in inputs:
        yield line("ended", f"the sale's subscription ended {inputs['subscription_ended_at']}")
    if "downgraded_at" in inputs:
        yield line("downgraded", f"the sale's subscription, {inputs['downgraded_at']}")


def _tier(inputs: Told) -> Iterator[str]:
    clients, least = inputs.get("paying_clients"), inputs.get("paying_clients_at_least")
    if clients is not None:
        yield line("tier", f"{_clients(clients)} at this payment: rate {inputs['rate']}")
    elif least is not None:
        yield line("tier", f"{least} or more paying clients at this payment: rate {inputs['rate']}")


def _clients(count: int) -> str:
    return f"{count} paying client{'' if count == 1 else 's'}"


def _holds(inputs: Told, now: str) -> Iterator[str]:
    available_at = inputs.get("available_at")
    if available_at is not None and not any(dispute["closed_at"] is None for dispute in inputs.get("disputes", ())):
        yield line("available", f"{'from' if available_at > now else 'since'} {available_at}")
    for refund in inputs.get("refunds", ()):
        of = money({"minor": refund["minor"], "currency": inputs["amount"]["currency"]})
        yield line("refund", f"{of} at {refund['at']} ({refund['refund_id']})")
    for dispute in inputs.get("disputes", ()):
        of = money({"minor": dispute["minor"], "currency": inputs["amount"]["currency"]})
        if dispute["closed_at"] is None:
            end = "open: what is left is held"
        else:
            end = f"{'won' if dispute['won'] else 'lost'} {dispute['closed_at']}"
        yield line("dispute", f"{of} since {dispute['opened_at']}, {end} ({dispute['dispute_id']})")


# --- a signup -------------------------------------------------------------------------------------------------------


def _bound(decision: Told) -> str:
    if decision["outcome"] == "attributed":
        return f"bound to partner {decision['partner_id']} by {decision['method'].replace('_', ' ')}"
    return f"declined: {decision['reason']}"


def signup(decision: Told) -> list[str]:
    """Who a customer is bound to, or why to nobody."""
    return list(_signup(decision))


def _signup(decision: Told) -> Iterator[str]:
    inputs = decision["inputs"]
    of = f"Customer {decision['customer_id']}"
    if decision["outcome"] == "attributed":
        yield f"{of} is {_bound(decision)}, in program {decision['program_id']}, for ever."
    else:
        yield f"{of} is bound to nobody. {SIGNUP_REASONS.get(decision['reason'], decision['reason'])}"
    if "program_id" in decision:
        yield line("program", f"{decision['program_id']}, version {decision.get('program_version', '?')}")
    if decision["rule"] != "evidence":  # there was none to apply a rule to
        yield line("rule", decision["rule"].replace("_", " "))
    for reason in (decision.get("reasons") or [])[1:]:
        yield line("also", f"{reason}: {SIGNUP_REASONS.get(reason, reason)}")
    if "signed_up_at" in inputs:
        before = ", had an account before" if inputs.get("existing_customer") else ""
        yield line("signed up", f"{inputs['signed_up_at']}{before}")
    if inputs.get("click_token", "absent") != "absent":
        yield line("cookie", inputs["click_token"])
    for click in inputs.get("clicks", ()):
        yield line("click", f"{click['clicked_at']} on {click['code']}: {TAKEN_AS.get(click['taken_as'], '')}")
    if "promo_code" in inputs:
        promo = inputs["promo_code"]
        yield line("promo code", f"{promo['code']}: {TAKEN_AS.get(promo['taken_as'], '')}")
    for each in inputs.get("considered", ()):
        verdict = ", ".join(each["reasons"]) or "accepted"
        yield line("considered", f"partner {each['partner_id']} in {each['program_id']}: {verdict}")
    for step in decision["arithmetic"]:
        yield line("arithmetic", step)


# --- a partner's balance --------------------------------------------------------------------------------------------

_TERMS = (
    ("accrued", "+", "commissions as they stand"),
    ("reversed", "−", "taken back: refunds, lost disputes, customers who left before the hold's end"),
    ("pending", "−", "not yet available, or held by an open dispute"),
    ("processing", "−", "withdrawals asked for"),
    ("paid", "−", "withdrawn"),
    ("topped_up", "−", "used for top-ups"),
    ("deposits", "+", "paid in"),
    ("spent", "−", "charged for client payments"),
)


def partner(page: Told, balances: Sequence[Told], tiers: Mapping[str, Told], pending: Mapping[str, Told]) -> list[str]:
    """What a partner has, and of what it is made. `pending`: by program, what waits for the end of a hold."""
    lines = [f"Partner {page['partner_id']}"]
    for each in page["programs"]:
        program_id = each["program_id"]
        lines.append(line("program", f"{program_id}, since {each['activated_at']}"))
        if (tier := tiers.get(program_id)) and (tier["next"] or tier["rate"] != "0"):
            following = tier["next"]
            then = f"; {following['rate']} from {following['clients']}" if following else ""
            lines.append(line("tier", f"{_clients(tier['paying_clients'])}: rate {tier['rate']}{then}"))
    if not balances:
        lines.append(line("balance", "none: nothing has happened that moves money"))
    for balance in balances:
        lines.append(line("balance", f"{balance['program_id']}: {money(balance['available'])} available"))
        lines += _sum(balance)
        lines += _pending(balance["pending"], pending.get(balance["program_id"]))
    return lines


def _sum(balance: Told) -> Iterator[str]:
    """The balance's own arithmetic, without the terms that are 0."""
    for name, sign, meaning in _TERMS:
        if balance[name]["minor"] or name == "accrued":
            yield f"  {'':<12} {sign} {money(balance[name]):>16}  {name}: {meaning}"
    yield f"  {'':<12} = {money(balance['available']):>16}  available"


def _pending(pending: Told, waiting: Told | None) -> Iterator[str]:
    """Of what pending is made. `waiting`: None where the commissions were not looked through, or none waits."""
    if not pending["minor"] or waiting is None:
        return
    minor = waiting["by_currency"].get(pending["currency"], 0)
    if minor:
        of = money({"minor": minor, "currency": pending["currency"]})
        yield line("on hold", f"{of} of {waiting['count']} payments, the next from {waiting['next_at']}")
    if waiting["complete"] and pending["minor"] > minor:
        of = money({"minor": pending["minor"] - minor, "currency": pending["currency"]})
        yield line("disputed", f"{of} held by open disputes")


# --- money that left ------------------------------------------------------------------------------------------------


def withdrawal(told: Told) -> list[str]:
    """What became of a withdrawal, from its events in order."""
    lines = [f"Withdrawal {told['id']} of partner {told['partner_id']}: {money(told['amount'])}, {told['status']}."]
    lines.append(line("program", told["program_id"]))
    lines += [line(event["type"].partition(".")[2], event["time"]) for event in told["events"]]
    if told.get("reason"):
        lines.append(line("reason", told["reason"]))
    if minimums := told.get("minimums"):
        lines.append(line("rule", f"withdrawals from {', '.join(map(money, minimums))}; the oldest accruals first"))
    else:
        lines.append(line("rule", "any positive amount that is available; the oldest accruals first"))
    return lines


def topup(told: Told) -> list[str]:
    """What a top-up is worth, and why."""
    amount, credited = told["amount"], told["credited"]
    more = {"minor": credited["minor"] - amount["minor"], "currency": amount["currency"]}
    lines = [
        f"Top-up {told['id']} of partner {told['partner_id']}: {money(amount)} used, worth {money(credited)}.",
        line("program", told["program_id"]),
        line("account", told["account_id"]),
        line("applied", told["time"]),
    ]
    if points := told.get("points"):
        lines.append(line("rule", f"worth {points} more of the payments that the bonus was earned on"))
    lines.append(line("arithmetic", f"{money(amount)} + {money(more)} = {money(credited)}, the oldest accruals first"))
    return lines


def deposit(told: Told) -> list[str]:
    lines = [f"Deposit {told['id']} of partner {told['partner_id']}: {money(told['amount'])}, {told['status']}."]
    lines.append(line("program", told["program_id"]))
    return lines + [line(event["type"].partition(".")[2], event["time"]) for event in told["events"]]


# --- a customer that is not decided, and records --------------------------------------------------------------------


def undecided(customer_id: str, count: int) -> list[str]:
    """A customer whose signup has not come; `count` other records have."""
    return [
        f"Customer {customer_id} has not signed up, as far as the log tells.",
        line("waiting", f"{count} other records are about this customer; payments wait for the signup"),
    ]


def records(found: Iterable[Told]) -> Iterator[str]:
    """Records of the log: where each stands, and what it says."""
    for each in found:
        yield f"  {each['topic']:<12} {each['position']:<10} {each['time']:<28} {each['type']}"
        yield line("", ", ".join(f"{name} {_shown(value)}" for name, value in each["data"].items()))


def _shown(value: Any) -> str:
    if isinstance(value, dict) and value.keys() == {"minor", "currency"}:
        return money(value)
    # What a platform wrote is not trusted with the terminal.
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=True)
