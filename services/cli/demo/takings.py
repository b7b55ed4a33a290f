"""Which partners of keycrm and jupsoft take money out in the demo. Pure."""

from collections.abc import Mapping, Sequence

from services.cli.demo.data import PROGRAM_IDS, Partner
from services.cli.demo.promise import KEYCRM_LEAST_WITHDRAWAL, Promise

WITHDRAWING, TOPPING_UP = 3, 2


def withdrawing(partners: Sequence[Partner], promised: Mapping[str, Promise]) -> list[Partner]:
    """Of each program those with most."""
    return [partner for program_id in PROGRAM_IDS for partner in _richest(program_id, partners, promised)[:WITHDRAWING]]


def topping_up(partners: Sequence[Partner], promised: Mapping[str, Promise]) -> list[Partner]:
    """One that has withdrawn already, and one that has not. Only keycrm offers it."""
    by_id = {partner.partner_id for partner in withdrawing(partners, promised)}
    richest = _richest("keycrm", partners, promised)
    drew = [partner for partner in richest if partner.partner_id in by_id][:1]
    return drew + [partner for partner in richest if partner.partner_id not in by_id][: TOPPING_UP - 1]


def too_little(partners: Sequence[Partner], promised: Mapping[str, Promise]) -> Partner | None:
    """Somebody who has the least withdrawal, so that only the rule stands in the way of less."""
    richest = _richest("keycrm", partners, promised)
    return richest[-1] if richest else None


def _richest(program_id: str, partners: Sequence[Partner], promised: Mapping[str, Promise]) -> list[Partner]:
    able = [
        partner
        for partner in partners
        if partner.program_id == program_id
        and promised[partner.partner_id].available * 3 // 5 >= KEYCRM_LEAST_WITHDRAWAL
    ]
    return sorted(able, key=lambda partner: -promised[partner.partner_id].available)
