"""What each alert is for, done to real services: a real Prometheus, with the shipped rules, must raise it.

Durations of the rules are six times shorter (`watch.HURRY`). Where `prometheus` is missing the tests are skipped:
Debian has it in the package of that name.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from schemas.ids import partition_of
from schemas.topics import PAYMENTS, REFERRALS
from services.cli.bench.load import publish
from services.cli.bench.workload import Workload
from services.cli.token import Role, signed
from tests.faults.flood import publish_garbage
from tests.faults.garbage import Garbage
from tests.faults.playground import Playground, playground, until
from tests.faults.recovery import seconds_until_out
from tests.faults.rounds import LONG
from tests.faults.watch import PROMETHEUS, RULES, Watch, watched

pytestmark = [
    pytest.mark.infra,
    pytest.mark.kill,
    pytest.mark.skipif(not LONG, reason="several minutes: make faults"),
    pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus here: Debian has it in the package of that name"),
]
WAITING, OFTEN = 1_200, 8
SLOW_SECONDS = 0.8
TRIED: set[str] = set()


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A refstream on which payments of customers wait whose signup never came."""
    folder = tmp_path_factory.mktemp("alerts")
    with playground(folder) as made:
        asyncio.run(publish(made.settings, PAYMENTS.name, Workload(WAITING, WAITING).payments()))
        seconds_until_out(made.settings, ["commission"])
        yield made


@pytest.fixture(scope="module")
def watch(troubled: Playground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    with watched(troubled, tmp_path_factory.mktemp("watch") / "prometheus") as made:
        until(made.is_ready, 60)
        yield made


def _fires(watch: Watch, *names: str, seconds: float = 240) -> None:
    watch.until_firing(*names, seconds=seconds)
    TRIED.update(names)


def test_payments_wait_for_signups_that_never_come(watch: Watch) -> None:
    _fires(watch, "RefstreamEventsWait")
    assert watch.firing() == {"RefstreamEventsWait"}


def test_the_platform_writes_what_cannot_be_read(troubled: Playground, watch: Watch) -> None:
    partition = partition_of(b"c", troubled.settings.partitions)
    publish_garbage(troubled.settings, [Garbage("payments", partition, b"c", b"no event")], lambda one, place: None)
    _fires(watch, "RefstreamDeadLetters")


def test_the_only_worker_of_a_service_stands_still(troubled: Playground, watch: Watch) -> None:
    """It does not answer, nobody has its cells, and commands find no decision."""
    pid = troubled.signal("attribution", signal.SIGSTOP)
    headers = {"authorization": f"Bearer {signed(troubled.settings, Role.admin, 'admin')}"}

    def activate(number: int) -> int:
        body = {"partner_id": f"p{number}", "program_id": "keycrm", "accepted_terms": True}
        own = headers | {"idempotency-key": f"k{number}"}
        url = f"{troubled.url}/attribution/partners"
        return httpx.post(url, json=body, headers=own, timeout=30, trust_env=False).status_code

    try:
        with ThreadPoolExecutor(OFTEN) as at_once:
            assert set(at_once.map(activate, range(OFTEN))) == {202}
        _fires(watch, "RefstreamCommandsPending", "RefstreamProcessDown", "RefstreamCellWithoutOwner")
    finally:
        os.kill(pid, signal.SIGCONT)
    seconds_until_out(troubled.settings, ["attribution"])


def test_a_worker_dies_again_and_again(troubled: Playground, watch: Watch) -> None:
    died: set[int] = set()
    while len(died) < OFTEN:  # one that has just died is not another death
        died |= {troubled.signal("rewards", signal.SIGKILL)} - {0}
        seconds_until_out(troubled.settings, ["rewards"])
    _fires(watch, "RefstreamOwnersChange")


def test_redis_is_emptied(troubled: Playground, watch: Watch) -> None:
    troubled.redis.flushall()
    _fires(watch, "RefstreamStoreLost")


def test_redis_is_away(troubled: Playground, watch: Watch) -> None:
    troubled.kill_valkey()
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(_ask_until, troubled, watch, "RefstreamErrors")
        try:
            _fires(watch, "RefstreamErrors")
        finally:
            troubled.start_valkey()
            asked.result()


def _ask_until(ground: Playground, watch: Watch, name: str) -> None:
    """Somebody looks at a balance, about every second, until an alert fires or so much time is over."""
    for _ in range(400):
        ground.ask("/payouts/partners/p00000/balance")
        if name in watch.firing():
            return


def test_kafka_is_away_while_much_is_decided(troubled: Playground, watch: Watch) -> None:
    some = Workload(30_000, 3_000)
    asyncio.run(publish(troubled.settings, REFERRALS.name, some.referrals()))
    seconds_until_out(troubled.settings, ["commission"])  # one that is still waiting for Redis decides nothing yet
    asyncio.run(publish(troubled.settings, PAYMENTS.name, some.payments()))
    troubled.kill_kafka()
    try:
        _fires(watch, "RefstreamUnsent")
    finally:
        troubled.start_kafka()


def test_redis_is_slow_while_much_is_paid(troubled: Playground, watch: Watch) -> None:
    """Commits and answers take over a second, and what is folded gets older and older."""
    much = Workload(300_000, 3_000)
    asyncio.run(publish(troubled.settings, PAYMENTS.name, much.payments()))
    troubled.redis_proxy.delay_seconds = SLOW_SECONDS
    troubled.redis_proxy.behave("delay")
    with ThreadPoolExecutor(1) as beside:
        asked = beside.submit(_ask_until, troubled, watch, "RefstreamSlowAnswers")
        try:
            _fires(watch, "RefstreamCommitsSlow", "RefstreamSlowAnswers", "RefstreamBehind", seconds=400)
        finally:
            troubled.redis_proxy.behave("pass")
            asked.result()


def test_every_alert_was_tried() -> None:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} == TRIED
