"""A program document in sentences, for partners."""

from collections.abc import Iterator
from typing import Any

from services.portal.words import Words


def sentences(document: dict[str, Any], words: Words) -> list[str]:
    """What the program promises and asks for. `document`: as the API gives it."""
    said = [*_attribution(document["attribution"], words)]
    for term in document["terms"]:
        said += _term(term, document, words)
    return [*said, *_payouts(document["payouts"], words)]


def has(document: dict[str, Any], *kinds: str) -> bool:
    """Whether the document has terms of one of these kinds."""
    return any(term["kind"] in kinds for term in document["terms"])


def term(document: dict[str, Any], kind: str) -> dict[str, Any] | None:
    return next((each for each in document["terms"] if each["kind"] == kind), None)


def _attribution(terms: dict[str, Any], words: Words) -> Iterator[str]:
    days, first = terms.get("window_days"), terms["model"] == "first_click"
    if days and first:
        yield words("A customer who signs up within {days} days of the first click on your link is yours.", days=days)
    elif days:
        yield words("A customer who signs up within {days} days of the last click on your link is yours.", days=days)
    elif first:
        yield words("The partner whose link a customer clicked first gets the customer.")
    else:
        yield words("The partner whose link a customer clicked last gets the customer.")
    if terms["promo_codes"]:
        yield words("A promo code counts as well, and wins over a click.")
    if terms["account_required"]:
        yield words("You need an account of your own before you activate the program.")
    yield words("People who are customers already, and you yourself, are no referrals.")


def _term(term: dict[str, Any], document: dict[str, Any], words: Words) -> Iterator[str]:
    match term["kind"]:
        case "share":
            yield from _share(term, words)
        case "credits":
            yield words(
                "Each referred customer's first purchase of {family} earns credits; {gb} GB at a time can be claimed.",
                family=term["product_family"],
                gb=term["claim_gb"],
            )
            for name, rates in sorted(document.get("providers", {}).items()):
                yield words(
                    "{provider}: {product} credits per GB bought, {redemption} credits per GB claimed.",
                    provider=name,
                    product=rates["product_rate"],
                    redemption=rates["redemption_rate"],
                )
        case "signup_bonus":
            yield words("A new customer gets {amount} to begin with.", amount=words.money(term["amount"]))
        case "integrator_account":
            yield from _integrator(term, words)
        case "welcome_bonus":
            yield words(
                "You get {amount} for the first month of new clients, usable for {days} days.",
                amount=words.money(term["amount"]),
                days=term["usable_days"],
            )
        case "retention":
            yield words("You can claim a client who is a customer already, with evidence of your support.")
        case "monthly_discount":
            yield from _monthly(term, words)
        case other:
            yield words.code("term", other)


def _share(term: dict[str, Any], words: Words) -> Iterator[str]:
    for tier in term["tiers"]:
        rate = words.percent(tier["rate"])
        if len(term["tiers"]) == 1:
            yield words("You get {rate} of what your customers pay.", rate=rate)
        else:
            yield words("From paying client number {clients} on: {rate}.", clients=tier["from_clients"], rate=rate)
    if term["first_product_only"]:
        yield words("Only the first product that a customer buys earns.")
    if window := term.get("window"):
        begins = {
            "first_payment": words("Payments earn for {months} months from the customer's first payment."),
            "first_account": words("Payments earn for {months} months from the customer's first account."),
        }
        yield begins[window["starts"]].format(months=window["months"])
    if days := term.get("hold_days"):
        yield words("What you earn becomes available {days} days after the customer's first payment.", days=days)
    if term["ends_with_subscription"]:
        yield words("When the customer's subscription ends, nothing more is earned.")


def _integrator(term: dict[str, Any], words: Words) -> Iterator[str]:
    for name, family in sorted(term["families"].items()):
        for step in family["discounts"]:
            yield words(
                "If you pay for clients in {family}, you pay {rate} less from client number {clients} on.",
                family=name,
                rate=words.percent(step["rate"]),
                clients=step["from_clients"],
            )


def _monthly(term: dict[str, Any], words: Words) -> Iterator[str]:
    yield words(
        "On day {day} of each month your active referrals are counted, up to {most} for each of your companies.",
        day=term["day"],
        most=term["referrals_per_account"],
    )
    for step in term["scale"]:
        if step["percent"]:
            yield words(
                "From {referrals} active referrals: {percent} off the company's next payment.",
                referrals=step["from_referrals"],
                percent=words.whole_percent(step["percent"]),
            )


def _payouts(payouts: dict[str, Any], words: Words) -> Iterator[str]:
    for minimum in payouts["minimums"]:
        yield words("You can withdraw from {amount} on.", amount=words.money(minimum))
    if topup := payouts.get("topup"):
        yield words(
            "Used for your own account, money is worth {points} points of the payment more.",
            points=words.percent(topup["points"]).rstrip("%").rstrip(),
        )
