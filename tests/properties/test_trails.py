"""What is said of one payment adds up to how it stands, after every word, however late its refunds become known."""

from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.events import CommissionAccrued, CommissionAdjusted, CommissionReversed
from services.commission.saying import reversals, say
from services.commission.state import Sale, TakenBackPart
from services.runtime.stage import Emit

HOLD = 1_000
Back = tuple[int, int]
"""When, and minor units."""
backs = st.lists(st.tuples(st.integers(1, HOLD), st.integers(1, 150)), max_size=6)


def _sale(minor: int) -> Sale:
    return Sale("pay", "c", None, "held", 1, 0, minor, "USD", (), HOLD, (), None, ())


def _said(emits: tuple[Emit, ...]) -> int:
    """Minor units that the events leave."""
    total = 0
    for emit in emits:
        match emit.data:
            case CommissionAccrued(amount=amount) | CommissionAdjusted(amount=amount):
                total += amount.minor
            case CommissionReversed(amount=amount):
                assert amount.minor > 0
                total -= amount.minor
    return total


@given(
    minor=st.integers(1, 600),
    steps=st.lists(st.tuples(backs, st.sampled_from(("0.05", "0.20", "0.3333")), st.none() | st.integers(1, HOLD))),
)
# A second refund, of 1, before the first one, of 108: it takes nothing back itself, and moves a cent of the first one.
@example(minor=256, steps=[([(2, 108)], "0.05", None), ([(1, 1)], "0.05", None), ([], "0.05", 3)])
# Two at once, of which the first moves a cent of the one that was said.
@example(minor=256, steps=[([(5, 108)], "0.05", None), ([(1, 1), (2, 1)], "0.05", None)])
def test_what_is_said_adds_up(minor: int, steps: list[tuple[list[Back], str, int | None]]) -> None:
    sale, taken_back, left = _sale(minor), list[TakenBackPart](), 0
    for number, (new, rate, left_at) in enumerate(steps):
        taken_back += [TakenBackPart(f"r{number}-{i}", at, amount, "refund") for i, (at, amount) in enumerate(new)]
        in_order = tuple(sorted(taken_back, key=lambda part: (part.at, part.id)))
        sale = replace(sale, taken_back=in_order, left_at=left_at)
        said, emits = say(sale, "ann", Decimal(rate), f"evt-{number}")
        sale, left = replace(sale, said=said), left + _said(emits)
        taken, _ = reversals(sale, said.amount)
        assert left == said.left == said.amount - sum(back.minor for back in taken)
        assert len({emit.id for emit in emits}) == len(emits)
        assert say(sale, "ann", Decimal(rate), f"evt-{number}") == (said, ())
