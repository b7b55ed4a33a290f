"""What must hold after every round, and what somebody who asks meanwhile may see."""

import random
import re
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from schemas.faults import Kind, Verified
from services.runtime.cell import EDGE_HEADER, NUMBER_HEADER
from tests.faults.playground import Fault, Ground, Harm, Playground, playground
from tests.faults.rounds import LONG, Round, machine, rounds_of
from tests.journey import Journey
from tests.over_kafka import Played, check, play

FOLDED_SECONDS = 240
BEFORE = "before."
VERIFIED = re.compile(r"(\d+) records of (\d+) cells folded again in [\d.]+ s: (\d+) differences")


@contextmanager
def prepared(folder: Path) -> Iterator[Playground]:
    """A playground with journeys on it from before all faults."""
    with playground(folder) as made:
        play_before(made, made.journeys(BEFORE))
        yield made


def play_before(ground: Ground, before: Sequence[Journey]) -> None:
    """What the witness asks for."""
    played = play(ground.settings, before, FOLDED_SECONDS)
    for journey in before:
        check(journey, played, ground.get)
    ground.before = before


def play_all_under(ground: Playground, kind: Kind, fault: Fault) -> None:
    """Every round of one kind."""
    initials = "".join(word[0] for word in kind.name.split())  # ids of journeys are no place for much text
    for round_ in rounds_of(kind, machine(ground.valkey_version)):
        play_under(ground, f"{initials}{round_.number}", round_, [fault] * round_.times)


def play_under(ground: Ground, tag: str, round_: Round, faults: Sequence[Fault]) -> None:
    """One round: the journeys are played while the faults happen, one after the other; then everything is checked."""
    own: list[Journey] = []
    with Witness(ground) as seen, Harm(ground, faults, random.Random(round_.seed)) as harm:
        while not own or (LONG and harm.goes_on):
            again = ground.journeys(f"{tag}.{len(own)}.")
            play(ground.settings, again, FOLDED_SECONDS)
            own += again
    assert harm.failures == [], (round_.seed, harm.failures)
    assert seen == set(), (round_.seed, seen)
    round_.recoveries = harm.recoveries
    print(round_.seed, "out again after", *(f"{seconds:.1f}" for seconds in harm.recoveries), "s")
    all_is_right(ground, own, round_)


def all_is_right(ground: Ground, own: Sequence[Journey], round_: Round) -> Played:
    """That the journeys came out right and everything else holds. Notes in the round what was checked."""
    played = play(ground.settings, [], FOLDED_SECONDS)
    for journey in own:
        check(journey, played, ground.get)
    the_rest_is_right(ground, played, round_)
    round_.events = sum(len(phase) for journey in own for phase in journey.phases())
    return played


def the_rest_is_right(ground: Ground, played: Played, round_: Round) -> None:
    """Edges, books, and Redis beside the log."""
    _edges_have_no_holes(played, ground.forged)
    _books_add_up(ground, played)
    verified = ground.refstream("verify", seconds=3600)
    assert verified.returncode == 0, (round_.seed, verified.stdout, verified.stderr)
    records, cells, differences = map(int, VERIFIED.search(verified.stdout).groups())  # type: ignore[union-attr]
    round_.verified = Verified(cells=cells, records=records, differences=differences)


class Witness:
    """Somebody who asks for a partner's balance all the time. Answers what was seen beside the one right answer."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._over, self.seen = ground, threading.Event(), set[str]()
        wanted = next(dict(line) for journey in ground.before for line in journey.expected("balance"))
        self._path = f"/payouts/partners/{wanted['partner_id']}/balance"
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> set[str]:
        self._right = self._ground.get(self._path)
        self._thread.start()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            try:
                answer = self._ground.ask(self._path)
            except httpx.HTTPError as error:
                self.seen.add(repr(error))
                continue
            if answer.status_code == 503:
                continue
            if answer.status_code != 200 or answer.json() != self._right:
                self.seen.add(f"{answer.status_code} {answer.text}")


def _edges_have_no_holes(played: Played, forged: Collection[tuple[str, int, int]]) -> None:
    highest: dict[tuple[str, str, int], int] = {}
    for topic, records in played.records.items():
        for record in records:
            headers = dict(record.headers)
            if EDGE_HEADER in headers and (topic, record.partition, record.offset) not in forged:
                edge = (headers[EDGE_HEADER].decode(), topic, record.partition)
                number = int(headers[NUMBER_HEADER])
                assert number <= highest.get(edge, 0) + 1, (edge, number)
                highest[edge] = max(number, highest.get(edge, 0))


def _books_add_up(ground: Ground, played: Played) -> None:
    """Of every partner who ever earned: what was earned less what was undone is pending, available, paid or used."""
    partners = {
        record.key.decode() for record in played.records["commissions"] if b"commission.accrued" in record.value
    }
    for partner in sorted(partners):
        for book in ground.get(f"/payouts/partners/{partner}/balance")["balances"]:
            minor = {name: each["minor"] for name, each in book.items() if isinstance(each, dict)}
            assert minor["accrued"] - minor["reversed"] + minor["deposits"] - minor["spent"] == (
                minor["pending"] + minor["available"] + minor["processing"] + minor["paid"] + minor["topped_up"]
            ), (partner, book)
