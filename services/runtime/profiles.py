"""Who people are: the one place where names and addresses are kept, sealed (`codec.py`).

reads     profiles (nobody else does), customers, forgotten
writes    forgotten, to all stages that know something personal of somebody
key       a person's id, customer or partner

Attribution's worker folds the stage; the pages of attribution and commission read it. A record without a value on
`profiles` forgets the person for good. Compaction may drop that record when another follows, so the stage says it once
more on `forgotten`, which keeps everything. See docs/decisions/0014.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from schemas import events, internal
from schemas.events import Event
from schemas.ids import derived_id
from schemas.topics import CUSTOMERS, FORGOTTEN, PROFILES
from services.runtime.reader import Reader
from services.runtime.stage import Change, Context, Emit, Stage

Item = TypeVar("Item")


class Contact(msgspec.Struct, frozen=True, omit_defaults=True):
    """As it was written; e-mail and phone may be digests (`sha256:…`)."""

    name: str | None = None
    email: str | None = None
    phone: str | None = None


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person. `signup`: what the signup told, `latest`: the latest profile; `accounts`: names by account id, None of
    an account that was created without.

    `forgotten`: nothing may be kept any more, whatever comes.
    """

    signup: Contact | None = None
    latest: Contact | None = None
    accounts: dict[str, str | None] = {}
    forgotten: bool = False

    @property
    def contact(self) -> Contact:
        """What pages show: what the profile does not say, the signup does."""
        latest, signup = self.latest or Contact(), self.signup or Contact()
        return Contact(latest.name or signup.name, latest.email or signup.email, latest.phone or signup.phone)


FORGOTTEN_PERSON = Profile(forgotten=True)


def step(context: Context[Profile], state: Profile, event: Event) -> Change[Profile, Profile]:
    """Remember what an event tells of a person, or forget it all.

    Shape: a record without a value → one PersonForgotten, the first time; anything else → nothing said.
    Errors: none. Of two signups, or two accounts of one id, the first in the log holds: attribution refuses the other.
    """
    if state.forgotten:
        return Change()
    match event.data:
        case events.CustomerSignedUp(name=name, email=email, phone=phone) if state.signup is None:
            return Change(state=msgspec.structs.replace(state, signup=Contact(name, email, phone)))
        case events.AccountCreated(account_id=account_id, name=name) if account_id not in state.accounts:
            return Change(state=msgspec.structs.replace(state, accounts={**state.accounts, account_id: name}))
        case events.CustomerProfile(customer_id=person_id) if context.record.value is None:
            forgotten = Emit(
                derived_id("forgotten", person_id), event.time, internal.PersonForgotten(person_id=person_id)
            )
            return Change(state=FORGOTTEN_PERSON, emits=(forgotten,))
        case events.CustomerProfile(name=name, email=email, phone=phone):
            return Change(state=msgspec.structs.replace(state, latest=Contact(name, email, phone)))
        case internal.PersonForgotten():
            return Change(state=FORGOTTEN_PERSON)
        case _:
            return Change()


PERSONS: Stage[Profile, Profile] = Stage(
    name="attribution.profiles",
    reads=(CUSTOMERS, PROFILES, FORGOTTEN),
    empty=Profile(),
    step=step,
    personal=(Profile,),
)


async def found_by(
    search: str | None, reader: Reader, items: Sequence[Item], person_of: Callable[[Item], str]
) -> list[Item]:
    """The items whose person a search finds; all of them where nothing is searched for. Errors: Rebuilding."""
    if not search:
        return list(items)
    everybody = await reader.states(PERSONS, [person_of(item) for item in items])
    return [item for item, own in zip(items, everybody, strict=True) if matches(search, person_of(item), own)]


def matches(search: str, person_id: str, of: Profile) -> bool:
    """Whether a person's id, or a name, an address or a phone as it was written, holds a text; case does not matter."""
    wanted = search.strip().casefold()
    contact = of.contact
    known = (person_id, contact.name, contact.email, contact.phone, *of.accounts.values())
    return any(wanted in text.casefold() for text in known if text and not text.startswith("sha256:"))
