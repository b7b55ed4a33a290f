"""When a referral is active: a pure function of a customer's facts.

All of it for one and the same subscription: activated and not cancelled since, its trial (if any) over, and a
successful payment that is no trial, naming it or none, at or after the trial's end. In detail:
- A step counts from its own instant on; at one and the same instant a cancellation comes last.
- The trial that began last is the one that counts (of two that began at once, the one that ends later): a trial
  prolonged is one trial with a later end, and a further trial needs a further payment.
- Whoever activates again after a cancellation is active again at once where a payment at or after the trial's end is
  there already: that nothing was paid since is for the platform to say (`unpaid`).
- A refunded payment stays a successful payment.
- Nothing counts before the customer was bound.
Source: programs.md, active-referrals.
"""

from collections.abc import Iterable
from itertools import groupby

from services.rewards.facts import Binding, Paying, Span, SubscriptionStep


def active_spans(binding: Binding, steps: Iterable[SubscriptionStep], payments: Iterable[Paying]) -> tuple[Span, ...]:
    """The half-open spans `[from, until)` in which the customer is an active referral, in order, none touching."""
    steps = list(steps)
    paid = [(each, at) for each in payments if (at := each.succeeded_at) is not None and not each.trial]
    spans: list[Span] = []
    for subscription_id in {step.subscription_id for step in steps if step.kind == "activated"}:
        own = [step for step in steps if step.subscription_id == subscription_id]
        times = [at for p, at in paid if p.subscription_id in (None, subscription_id)]
        spans += _of_one(own, times)
    return _from(binding.attributed_at, _merged(spans))


def is_active(spans: Iterable[Span], as_of: int) -> bool:
    """Whether a referral was active as of an instant: events strictly before it count."""
    return any(since < as_of and (until is None or as_of <= until) for since, until in spans)


def _of_one(steps: Iterable[SubscriptionStep], payments: Iterable[int]) -> list[Span]:
    """The spans that one subscription gives."""
    happened = [(step.at, step.kind, step.trial_ends_at or 0) for step in steps] + [(at, "paid", 0) for at in payments]
    on, paid_at, trial_ends_at = False, None, None
    spans: list[Span] = []
    since: int | None = None
    for at, group in groupby(sorted(happened), key=lambda each: each[0]):
        together = list(group)
        kinds = {kind for _, kind, _ in together}
        if "trial" in kinds:
            trial_ends_at = max(ends_at for _, kind, ends_at in together if kind == "trial")
        if "paid" in kinds:
            paid_at = at
        on = (on or "activated" in kinds) and "cancelled" not in kinds
        active = on and paid_at is not None and (trial_ends_at is None or trial_ends_at <= paid_at)
        if active and since is None:
            since = at
        elif not active and since is not None:
            spans.append((since, at))
            since = None
    return spans if since is None else [*spans, (since, None)]


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for since, until in sorted(spans, key=lambda span: span[0]):
        if not merged or (merged[-1][1] is not None and merged[-1][1] < since):
            merged.append((since, until))
        elif (ends_at := merged[-1][1]) is not None:
            merged[-1] = (merged[-1][0], None if until is None else max(ends_at, until))
    return merged


def _from(start: int, spans: Iterable[Span]) -> tuple[Span, ...]:
    return tuple((max(start, since), until) for since, until in spans if until is None or until > start)
