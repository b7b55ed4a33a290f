"""Attribution: who brought a customer.

reads     customers, profiles, clicks, its commands, what commission and rewards say of activity, its own partners
writes    referrals, partners, programs, clicks (its API), and the internal topics codes, roster, bindings and forgotten
key       a person's id (customer, partner) or a program's; a code; a visitor's id
remembers state.py; names and addresses in services/runtime/profiles.py
"""

from collections.abc import Callable
from typing import Any

from schemas.topics import (
    ACTIVES,
    BINDINGS,
    CLICKS,
    CODES,
    COMMANDS_ATTRIBUTION,
    COMMISSIONS,
    CUSTOMERS,
    FORGOTTEN,
    PARTNERS,
    ROSTER,
)
from services.attribution import clicks, codes, rules
from services.attribution.cookie import CookieSigner
from services.attribution.signups import CLICK_TOKENS
from services.attribution.state import Code, Person, PersonRow, Shown, Visitor
from services.runtime.profiles import PERSONS
from services.runtime.settings import Settings
from services.runtime.stage import Stage

ReadToken = Callable[[str], tuple[tuple[str, int], ...] | None]


def _people(read_token: ReadToken) -> Stage[Person, PersonRow]:
    return Stage(
        name="attribution.people",
        reads=(CUSTOMERS, FORGOTTEN, COMMANDS_ATTRIBUTION, PARTNERS, ROSTER, BINDINGS, COMMISSIONS, ACTIVES),
        empty=Person(),
        step=rules.step,
        row=PersonRow,
        row_ids=rules.row_ids,
        shows=Shown.of,
        outside={CLICK_TOKENS: read_token},
        personal=(Person,),
    )


PEOPLE = _people(lambda token: None)
"""For reading what is remembered; a worker folds with `stages(settings)`, which can read click tokens."""
CODE_OWNERS: Stage[Code, Code] = Stage("attribution.codes", reads=(CODES,), empty=Code(), step=codes.step)
VISITS: Stage[Visitor, Visitor] = Stage("attribution.clicks", reads=(CLICKS,), empty=Visitor(), step=clicks.step)
STAGES: tuple[Stage[Any, Any], ...] = (PEOPLE, PERSONS, CODE_OWNERS, VISITS)


def stages(settings: Settings) -> tuple[Stage[Any, Any], ...]:
    """The stages that the worker folds, able to check click tokens with the settings' secrets."""
    signer = signer_of(settings)

    def read_token(token: str) -> tuple[tuple[str, int], ...] | None:
        visit = signer.read(token)
        return None if visit is None else visit.evidence

    return (_people(read_token), PERSONS, CODE_OWNERS, VISITS)


def signer_of(settings: Settings) -> CookieSigner:
    """Signs and checks click cookies with CLICK_SECRETS."""
    return CookieSigner({key_id: secret.get_secret_value() for key_id, secret in settings.click_secrets.items()})
