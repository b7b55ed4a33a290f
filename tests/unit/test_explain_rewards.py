"""What `explain` says of credits, claims, bonuses and discounts."""

from typing import Any

from services.cli import explain_rewards as rewards
from services.cli import explain_words as words

AT, LATER = "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"
CLAIM = {"claim_id": "claim_1", "program_id": "proxy-credits", "provider": "packetstream", "gb": 1, "credits": 10}
DISCOUNT = {"program_id": "active-referrals", "month": "2026-02", "account_id": "ann.a1", "percent": 40}


def _moved(kind: str, at: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "occurred_at": at, "program_id": "proxy-credits", **data}


def test_a_purchase_says_what_credits_it_earned_and_what_is_left_of_them() -> None:
    purchase = {"amount": {"minor": 1200, "currency": "USD"}, "paid_at": AT, "quantity_gb": "4.5", "provider": "ps"}
    decision = {
        "payment_id": "p-1",
        "customer_id": "c-1",
        "partner_id": "ann",
        "outcome": "credited",
        "commission_id": "com_1",
        "rule": "A rule.",
        "inputs": purchase,
        "arithmetic": ["4.5 GB × 5 credits per GB = 22 credits, rounded down"],
    }
    told = words.payment(decision, None, LATER)
    assert told[0] == "Payment p-1 of customer c-1 earns 22 credits for partner ann."
    assert any("4.5 GB of ps" in line for line in told)
    assert not any("com_1" in line for line in told)  # there is no such commission
    decision["arithmetic"] = [*decision["arithmetic"], "22 − 2 = 20 credits left"]  # type: ignore[misc]
    assert words.payment(decision, None, LATER)[0].endswith("for partner ann; 20 credits left.")


def test_a_claim_says_what_became_of_it() -> None:
    moves = [_moved("claim.requested", AT, **CLAIM), _moved("claim.failed", LATER, **CLAIM)]
    first, *lines = rewards.moved("claim_1", "ann", moves)
    assert first.startswith("Claim claim_1 of partner ann: 1 GB of packetstream for 10 credits, failed")
    assert any("requested" in line and AT in line for line in lines)
    assert "has not said" in rewards.moved("claim_1", "ann", moves[:1])[0]


def test_an_invoice_says_which_discount_it_took() -> None:
    off = {"minor": 4000, "currency": "USD"}
    listed = _moved("discount.used", LATER, invoice_id="i-1", amount=off) | DISCOUNT
    first = rewards.moved("i-1", "ann", [listed])[0]
    assert first == "Invoice i-1 of company ann.a1 took 40 % off: 40.00 USD."
    logged = listed | {"discount": off, "amount": {"minor": 6000, "currency": "USD"}}
    assert rewards.moved("i-1", "ann", [logged])[0].endswith("40.00 USD, 60.00 USD left to pay.")


def test_credits_are_the_sum_that_is_shown_or_no_sum_where_the_history_is_not_all_there() -> None:
    moves = [
        _moved("credit.granted", AT, credits=22),
        _moved("claim.requested", AT, **CLAIM),
        _moved("claim.fulfilled", AT, **CLAIM),
    ]
    wallet = {"credits": [{"program_id": "proxy-credits", "balance": 12}], "bonuses": []}
    told = rewards.partner(wallet, moves)
    assert "proxy-credits: 12" in told[0]
    assert [line.split()[:2] for line in told[1:]] == [["+", "22"], ["−", "10"], ["=", "12"]]
    assert len(rewards.partner(wallet, moves[1:])) == 1


def test_every_months_discounts_say_how_they_ended() -> None:
    off = {"minor": 4000, "currency": "USD"}
    older = {**DISCOUNT, "month": "2026-01", "account_id": "ann.a2", "percent": 5}
    moves = [
        _moved("discount.used", LATER, invoice_id="i-1", amount=off) | DISCOUNT,
        _moved("discount.assigned", AT, referrals_counted=20) | DISCOUNT,
        _moved("discount.assigned", AT, referrals_counted=7) | {**DISCOUNT, "account_id": "ann.a3"},
        _moved("discount.lapsed", AT) | older,
        _moved("discount.assigned", "2026-01-28T00:00:00Z", referrals_counted=5) | older,
        _moved("discount.withheld", "2025-12-28T00:00:00Z", month="2025-12"),
    ]
    told = rewards.partner({"credits": [], "bonuses": []}, moves)
    assert ["used by invoice i-1: 40.00 USD off" in line for line in told] == [True, False, False, False]
    assert told[1].endswith("not used, the company's next invoice takes it")
    assert told[2].endswith(f"lapsed {AT}, unused")
    assert "pending at the verification" in told[3]


def test_a_bonus_says_what_is_left_and_until_when() -> None:
    bonus = {"program_id": "message-help", "remaining": {"minor": 1800, "currency": "EUR"}, "expires_at": LATER}
    (told,) = rewards.partner({"credits": [], "bonuses": [bonus]}, [])
    assert f"18.00 EUR left until {LATER}" in told
