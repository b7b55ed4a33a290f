"""A scene: a few partners of one program, what happens to them, and what they are promised for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.cli.demo.data import Partner
from services.cli.demo.lines import Fact
from services.cli.demo.platform import Platform


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer over HTTP beside what was promised for it, in the same words."""

    what: str
    promised: str
    answered: str

    @property
    def differs(self) -> bool:
        return self.promised != self.answered


@dataclass(frozen=True, slots=True)
class Scored:
    """One partner's figures by name: the promise, and what refstream answers."""

    partner: Partner
    promised: Mapping[str, str]
    answered: Mapping[str, str]

    @property
    def differences(self) -> list[str]:
        """Each figure that differs, as text."""
        return [
            f"{name}: promised {promised}, refstream {self.answered.get(name, 'nothing')}"
            for name, promised in self.promised.items()
            if promised != self.answered.get(name)
        ]


class Scene(Protocol):
    """What the demo does with one program. Its methods are called in this order; each may raise DemoFailed."""

    @property
    def title(self) -> str:
        """What its table is headed with."""

    @property
    def partners(self) -> Sequence[Partner]:
        """Who is activated in the program, each with a link."""

    async def publish(self, platform: Platform) -> None:
        """Before the partners are activated: a program of the run's own, where it needs one."""

    async def open(self, platform: Platform) -> None:
        """After the partners were activated and before anything happens: promo codes, an order of accounts."""

    def facts(self, codes: Mapping[str, str]) -> list[Fact]:
        """Everything that customers did. `codes`: partner id → the code of the partner's link."""

    async def play(self, platform: Platform) -> list[Answer]:
        """After all facts were read: what partners, platform and admin do over HTTP."""

    async def compare(self, platform: Platform) -> list[Scored]:
        """Every partner's figures in the end."""

    def look(self) -> list[tuple[str, str]]:
        """Ids worth explaining, and what each is."""


def member(run: str, short: str, program_id: str, joined_at: int, shows: str) -> Partner:
    """A partner of a scene."""
    partner_id = f"{run}.{short}"
    email = f"{short}@{run}.example"
    return Partner(partner_id, program_id, f"{partner_id}.a1", f"Partner {short}", email, joined_at, shows)
