"""The five programs that refstream ships: one document each, beside this file."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from schemas.events import ProgramPublished
from schemas.programs.terms import Program

SHIPPED = ("jupsoft", "proxy-credits", "message-help", "keycrm", "active-referrals")


def shipped() -> tuple[Program, ...]:
    """The shipped documents, validated."""
    here = Path(__file__).parent
    return tuple(Program.model_validate_json((here / f"{name}.json").read_bytes()) for name in SHIPPED)


class NotYetPublished(LookupError):
    """A program version that other events speak of has not been read yet; it will be."""


class Programs:
    """Every program version that has been published, by program and in order of version.

    A version is in force from its `effective_at` on, the first one from the beginning of time. Never changes: who holds
    one decides by the same versions to the end.
    """

    def __init__(self, published: Mapping[str, tuple[tuple[int, Program], ...]] | None = None) -> None:
        self._versions: dict[str, tuple[tuple[int, Program], ...]] = dict(published or {})
        self._exactly = {
            (program_id, program.version): program
            for program_id, versions in self._versions.items()
            for _, program in versions
        }

    @classmethod
    def of(cls, *programs: Program) -> "Programs":
        """First versions of documents, in force from the beginning of time."""
        return cls({program.program_id: ((0, program),) for program in programs})

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._versions))

    def with_version(self, event: ProgramPublished) -> "Programs":
        """These and a version published since; a repeat adds nothing."""
        known = self._versions.get(event.program_id, ())
        if any(program.version == event.version for _, program in known):
            return self
        program = Program.model_validate({**event.document, "version": event.version})
        versions = tuple(sorted((*known, (event.effective_at, program)), key=lambda item: item[1].version))
        return Programs({**self._versions, event.program_id: versions})

    def counts(self) -> dict[str, int]:
        """How many versions of each program are known."""
        return {program_id: len(versions) for program_id, versions in self._versions.items()}

    def upto(self, counts: Mapping[str, int]) -> "Programs":
        """These as they were when so many versions of each were known. Errors: NotYetPublished for one still to come.

        A program's versions are published in order, so the known ones are always its first.
        """
        for program_id, count in counts.items():
            if len(self._versions.get(program_id, ())) < count:
                raise NotYetPublished(f"{program_id} version {count}")
        return Programs(
            {program_id: self._versions[program_id][:count] for program_id, count in counts.items() if count}
        )

    def version(self, program_id: str, version: int) -> Program:
        """One version. Errors: NotYetPublished."""
        program = self._exactly.get((program_id, version))
        if program is None:
            raise NotYetPublished(f"{program_id} version {version}")
        return program

    def versions(self, program_id: str) -> tuple[tuple[int, Program], ...]:
        """Every version with the instant from which it is in force, in order of version."""
        return self._versions.get(program_id, ())

    def at(self, program_id: str, instant: int) -> Program | None:
        """The version in force at an instant, or None for an unknown program."""
        versions = self._versions.get(program_id, ())
        in_force = [program for since, program in versions if program.version == 1 or since <= instant]
        return in_force[-1] if in_force else None

    def in_force(self, program_id: str, instant: int, known: int | None = None) -> Program:
        """The version in force at an instant, of all that somebody knew: up to `known`, which may be still to come.

        Errors: NotYetPublished for a version, or a program, that has not been read.
        """
        if known is not None:
            self.version(program_id, known)
        program = self.at(program_id, instant)
        if program is None:
            raise NotYetPublished(program_id)
        return program

    def latest(self, program_id: str) -> Program | None:
        """The version published last."""
        versions = self._versions.get(program_id, ())
        return versions[-1][1] if versions else None
