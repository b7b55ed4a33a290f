"""The fold of a partner's sales (stage `commission.partners`): the rate by paying clients, and what is said of it.

Shape: `sale.stated` → `commission.accrued`, `.adjusted`, `.reversed`, `.held`, `.declined`, `tier.reached`.
The fast path needs the ladder and two rows; only a client who moves the place in time where a tier begins makes the
fold read all of the partner's sales and say the differences.
Source: programs.md, "The rate follows the number of the partner's paying clients"; contract.md, Order.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from operator import attrgetter

from msgspec.structs import replace

from schemas.events import Event, PartnerActivated, TierReached
from schemas.ids import derived_id
from schemas.internal import SaleStated
from schemas.money import decimal_text
from schemas.programs import Programs
from schemas.programs.terms import Share, Tier
from schemas.topics import PARTNERS as PARTNERS_TOPIC
from schemas.topics import SALES
from services.commission.saying import say
from services.commission.state import Client, Ladder, Partner, Place, Row, Said, Sale, TakenBackPart
from services.runtime.stage import Change, Context, Emit, Stage

Step = Change[Partner, Row]


def sale_row(payment_id: str) -> str:
    return f"s:{payment_id}"


def client_row(program_id: str, customer_id: str) -> str:
    return f"c:{program_id}:{customer_id}"


def row_ids(event: Event) -> tuple[str, ...]:
    """The two rows that a statement reads."""
    data = event.data
    if not isinstance(data, SaleStated):
        return ()
    return (sale_row(data.payment_id), client_row(data.program_id, data.customer_id))


def step(context: Context[Row], state: Partner, event: Event) -> Step:
    """Take in how one payment stands, and say what follows for it and, seldom, for others."""
    match event.data:
        case SaleStated() as stated:
            return _stand(context, state, stated)
        case PartnerActivated(program_id=program_id) if program_id not in state.programs:
            return Change(replace(state, programs=(*state.programs, program_id)))
        case _:
            return Change()  # links and codes are attribution's


def _stand(context: Context[Row], state: Partner, stated: SaleStated) -> Step:
    before = context.rows.get(sale_row(stated.payment_id))
    client = context.rows.get(client_row(stated.program_id, stated.customer_id))
    assert before is None or isinstance(before, Sale)
    assert client is None or isinstance(client, Client)
    sale = sale_of(stated, before.said if before else Said(), stated.caused_by if before else None)
    tiers = _tiers(context.programs, sale)
    ladder = state.ladders.get(sale.program_id, Ladder())
    moved = _climb(ladder, tiers, sale, before, client)
    if moved is None:
        return _recount(context, state, sale, stated.caused_by)
    ladder, first = moved
    said, emits = say(sale, stated.partner_id, _rate(ladder, tiers, sale), stated.caused_by)
    rows: dict[str, Row | None] = {sale_row(sale.payment_id): replace(sale, said=said)}
    if first is not None:
        rows[client_row(sale.program_id, sale.customer_id)] = Client(sale.program_id, sale.customer_id, first)
    ladder, told = _tell_tiers(ladder, tiers, sale, stated.partner_id)
    return _change(context, state, sale.program_id, ladder, rows, (*emits, *told))


def _change(
    context: Context[Row],
    state: Partner,
    program_id: str,
    ladder: Ladder,
    rows: Mapping[str, Row | None],
    emits: tuple[Emit, ...],
) -> Step:
    after = state
    if state.ladders.get(program_id) != ladder:
        after = replace(state, ladders={**state.ladders, program_id: ladder})
    return Change(after, rows=rows, emits=emits)


def sale_of(stated: SaleStated, said: Said, changed_by: str | None = None) -> Sale:
    return Sale(
        stated.payment_id,
        stated.customer_id,
        stated.account_id,
        stated.program_id,
        stated.program_version,
        stated.paid_at,
        stated.base.minor,
        stated.base.currency,
        stated.reasons,
        stated.available_at,
        tuple(TakenBackPart(part.id, part.at, part.minor, part.reason, part.credits) for part in stated.taken_back),
        stated.left_at,
        tuple((hold.held_from, hold.held_until) for hold in stated.holds),
        said,
        stated.credits,
        changed_by,
    )


# --- the ladder: how many paying clients there were at a place in time ----------------------------------------------


def _tiers(programs: Programs, sale: Sale) -> tuple[Tier, ...]:
    share = programs.version(sale.program_id, sale.program_version).term(Share)
    return share.tiers if share else ()


def _begins(tiers: tuple[Tier, ...]) -> tuple[int, ...]:
    """With how many clients each tier begins but the lowest."""
    return tuple(tier.from_clients for tier in tiers[1:])


def _rate(ladder: Ladder, tiers: tuple[Tier, ...], sale: Sale) -> Decimal:
    """The rate at the sale's place: by the clients whose first payment is not after it, its own client included."""
    if not tiers or not sale.accrues:
        return Decimal(0)
    clients = max(1, bisect_right(ladder.firsts, sale.place))
    return tier_of(tiers, clients).rate


def tier_of(tiers: tuple[Tier, ...], clients: int) -> Tier:
    """The highest tier that so many clients reach; the first one for none."""
    return next((tier for tier in reversed(tiers) if tier.from_clients <= clients), tiers[0])


def _climb(
    ladder: Ladder, tiers: tuple[Tier, ...], sale: Sale, before: Sale | None, client: Client | None
) -> tuple[Ladder, Place | None] | None:
    """The ladder with the sale, and its client's new first place if that changes; None when other sales may change."""
    place = sale.place
    begins = _begins(tiers)
    if begins != ladder.begins and not set(begins) <= set(ladder.begins):
        wider = tuple(sorted({*ladder.begins, *begins}))
        if wider[-1] > ladder.depth and ladder.clients:
            return None  # a version with higher tiers than seen before: count from the rows
        ladder = replace(ladder, begins=wider)
    did = before is not None and before.accrues
    latest = ladder.latest
    if sale.accrues and place > latest:
        ladder = replace(ladder, latest=place)
    if did == sale.accrues or (did and client is not None and client.first != place):
        return ladder, None
    if did:
        return None  # a client's first payment earns no more
    if client is not None and client.first <= place:
        return ladder, None
    earlier = bisect_left(ladder.firsts, place)
    if client is not None:
        return (ladder, place) if earlier == ladder.depth else None
    clients = ladder.clients + 1
    # A sale behind the place has one client more now. That matters where it makes a tier's number full.
    if place < latest and any(earlier < begin <= clients for begin in ladder.begins):
        return None
    firsts = (*ladder.firsts[:earlier], place, *ladder.firsts[earlier:])[: ladder.depth]
    return replace(ladder, clients=clients, firsts=firsts), place


def _recount(context: Context[Row], state: Partner, sale: Sale, caused_by: str) -> Step:
    """Count the program's clients anew from all sales, and say every difference that follows."""
    stored = context.rows.all()
    sales = {s.payment_id: s for s in stored.values() if isinstance(s, Sale) and s.program_id == sale.program_id}
    sales[sale.payment_id] = sale
    ordered = _in_order(sales.values())
    ladder, firsts, tiers = _counted(context.programs, ordered, state.ladders.get(sale.program_id, Ladder()))
    rows: dict[str, Row | None] = _client_rows(stored, sale.program_id, firsts)
    emits: list[Emit] = []
    for one in ordered:
        if one is not sale and not one.accrues:
            continue  # of the others only the rate can have changed
        rate = _rate(ladder, tiers[one.program_version], one)
        if one is not sale and decimal_text(rate) == one.said.rate:
            continue
        said, told = say(one, context.key, rate, caused_by)
        emits += told
        changed_by = sale.changed_by if one is sale else caused_by
        rows[sale_row(one.payment_id)] = replace(one, said=said, changed_by=changed_by)
    ladder, reached = _tell_tiers(ladder, tiers[sale.program_version], sale, context.key)
    return _change(context, state, sale.program_id, ladder, rows, (*emits, *reached))


def _in_order(sales: Iterable[Sale]) -> list[Sale]:
    return sorted(sales, key=attrgetter("paid_at", "payment_id"))


def _counted(
    programs: Programs, ordered: Sequence[Sale], before: Ladder
) -> tuple[Ladder, dict[str, Place], dict[int, tuple[Tier, ...]]]:
    """The ladder that a partner's sales under one program make, in order of their places, with each client's first
    place, and the tiers of each version."""
    firsts: dict[str, Place] = {}
    latest: Place = (0, "")
    for one in ordered:
        if one.accrues:
            latest = one.place
            firsts.setdefault(one.customer_id, latest)
    versions = {s.program_version: s for s in ordered}
    tiers = {version: _tiers(programs, one) for version, one in versions.items()}
    begins = tuple(sorted({*before.begins, *(begin for each in tiers.values() for begin in _begins(each))}))
    counted = Ladder(begins, len(firsts), (), latest, before.reached)
    places = sorted(firsts.values())
    return replace(counted, firsts=tuple(places[: counted.depth])), firsts, tiers


def rates(programs: Programs, sales: Iterable[Sale]) -> Iterator[tuple[Sale, Decimal]]:
    """A partner's sales under one program, all of them, each with the rate that it has among them."""
    ordered = _in_order(sales)
    ladder, _, tiers = _counted(programs, ordered, Ladder())
    for one in ordered:
        yield one, _rate(ladder, tiers[one.program_version], one)


def _client_rows(stored: Mapping[str, Row], program_id: str, firsts: Mapping[str, Place]) -> dict[str, Row | None]:
    """The client rows that differ from those stored."""
    rows: dict[str, Row | None] = {}
    for row_id, row in stored.items():
        if isinstance(row, Client) and row.program_id == program_id and row.customer_id not in firsts:
            rows[row_id] = None
    for customer_id, place in firsts.items():
        known = stored.get(client_row(program_id, customer_id))
        if not isinstance(known, Client) or known.first != place:
            rows[client_row(program_id, customer_id)] = Client(program_id, customer_id, place)
    return rows


def _tell_tiers(
    ladder: Ladder, tiers: tuple[Tier, ...], sale: Sale, partner_id: str
) -> tuple[Ladder, tuple[Emit, ...]]:
    """`tier.reached`, once per tier, when enough clients have paid."""
    new = [t for t in tiers if ladder.reached < t.from_clients <= ladder.clients]
    if not new:
        return ladder, ()
    emits = tuple(
        Emit(
            derived_id("tier", partner_id, sale.program_id, tier.from_clients),
            ladder.firsts[tier.from_clients - 1][0],
            TierReached(
                partner_id=partner_id,
                program_id=sale.program_id,
                paying_clients=tier.from_clients,
                rate=tier.rate,
            ),
        )
        for tier in new
    )
    return replace(ladder, reached=max(t.from_clients for t in new)), emits


PARTNERS: Stage[Partner, Row] = Stage(
    name="commission.partners",
    reads=(SALES, PARTNERS_TOPIC),
    empty=Partner(),
    step=step,
    row=Row,
    row_ids=row_ids,
)
