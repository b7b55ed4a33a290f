"""Tries docker-compose.yml for real: builds, starts, plays the demo, scales, kills, rolls, verifies, takes it down.

    make try                            # everything; the figures stand at the end
    make try ARGS=--three-brokers       # the same on three brokers
    make try ARGS=--tests               # afterwards tests whose Kafka and Valkey are containers
    make try ARGS="--then 'COMMAND'"    # also a command against it, before anything is killed
    make try ARGS=--keep                # leave it running

COMMAND finds REFSTREAM_URL, REFSTREAM_KAFKA and REFSTREAM_AUTH_SECRET in its environment. Where no Docker engine
answers one is started for the time being, and where images cannot be pulled stand-ins are made: see engine.py.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import ROOT, CannotTry, base_images, compose, engine, run

URL, KAFKA = "http://localhost:8080", "localhost:9094"
SERVICES = ("attribution", "commission", "rewards", "payouts")
WORKERS = 3
THREE_BROKERS = ("--env-file", str(ROOT / "deploy/compose/three-brokers.env"))
GRAFANA = "grafana/grafana:12.1.1"
PROMETHEUS = "http://localhost:9090/api/v1"
AGAIN_SECONDS = 120
TESTED = ("golden_over_kafka", "worker", "store", "races", "programs_feed")
PROJECT = "refstream-try"
DEMO = ("run", "--rm", "refstream", "demo", "--url", "http://edge:8080")
_METRICS = "import urllib.request as u; print(u.urlopen('http://localhost:9100/metrics', timeout=5).read().decode())"


class Try:
    """The composition under a project name of its own."""

    def __init__(self, *options: str) -> None:
        self._compose = [*compose(), "--project-directory", str(ROOT), "--project-name", PROJECT, *options]
        self.figures: dict[str, float] = {}

    def __call__(self, *arguments: str, seconds: float = 1800) -> str:
        return run(*self._compose, *arguments, seconds=seconds)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self._compose, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        print(f"{name} …", flush=True)
        began = time.monotonic()
        yield
        self.note(name, time.monotonic() - began)

    def note(self, name: str, seconds: float) -> None:
        self.figures[name] = round(seconds, 1)
        print(f"  {seconds:.1f} s", flush=True)

    # --- workers --------------------------------------------------------------------------------------------------

    def containers(self, name: str) -> list[str]:
        return self("ps", "--quiet", name).split()

    def cells(self, name: str) -> dict[str, set[str]]:
        """By container: the cells that it owns, as its metrics say."""
        owned = {}
        for container in self.containers(name):
            told = run("docker", "exec", container, "python", "-c", _METRICS, quiet=True)
            owned[container] = {
                line.split()[0] for line in told.splitlines() if line.startswith("refstream_cell_epoch{")
            }
        return owned

    def until(self, name: str, met: Callable[[dict[str, set[str]]], bool]) -> float:
        """Seconds until the cells of a worker's containers are as they should be. Errors: CannotTry."""
        began = time.monotonic()
        while not met(owned := self.cells(name)):
            if time.monotonic() - began > AGAIN_SECONDS:
                raise CannotTry(f"{name} does not come to rest: {owned}")
            time.sleep(0.2)
        return time.monotonic() - began

    def verify(self) -> None:
        print("  " + self("run", "--rm", "refstream", "verify").splitlines()[-1])


def every(cells: set[str]) -> Callable[[dict[str, set[str]]], bool]:
    """Each of these cells has one owner, and nobody is without."""
    return lambda owned: all(owned.values()) and sorted(c for o in owned.values() for c in o) == sorted(cells)


def play(tried: Try, then: str | None) -> None:
    with tried.step("build the image"):
        run("docker", "build", "--quiet", "--network", "host", "--tag", "refstream:latest", ROOT)
    try:
        with tried.step("up, until all are healthy"):
            tried("up", "--detach", "--no-build", "--wait")
        with tried.step("the demo, every figure as promised"):
            tried(*DEMO)
        _watch(tried)
        if then:
            with tried.step("the command"):
                _against(tried, then)
        _scale(tried)
        _under_load(tried)
        with tried.step("verify: what Redis holds against the log"):
            tried.verify()
    except CannotTry:
        print(tried("logs", "--no-color", "--tail", "40")[-8000:], file=sys.stderr)
        raise


def _against(tried: Try, then: str) -> None:
    secret = tried("run", "--rm", "--entrypoint", "cat", "refstream", "/run/secrets/refstream_auth_secret")
    environment = {"REFSTREAM_URL": URL, "REFSTREAM_KAFKA": KAFKA, "REFSTREAM_AUTH_SECRET": secret}
    ended = subprocess.run(then, shell=True, env=os.environ | environment, check=False)  # noqa: S602
    if ended.returncode:
        raise CannotTry(f"the command ended with {ended.returncode}")


def _watch(tried: Try) -> None:
    """Prometheus finds a worker and an API of each service, and the alert rules. Errors: CannotTry."""
    services = ["prometheus"]
    if run("docker", "image", "inspect", GRAFANA, quiet=True) or run("docker", "pull", "-q", GRAFANA, quiet=True):
        services.append("grafana")
    else:
        print(f"  without Grafana: {GRAFANA} cannot be pulled, and nothing stands in for it")
    with tried.step("Prometheus beside it, until it sees every worker and API"):
        tried("up", "--detach", "--no-build", "--no-recreate", "--wait", *services)
        expected = {f"refstream-{service}-api": 1 for service in SERVICES} | {"refstream-workers": len(SERVICES)}
        began = time.monotonic()
        while (seen := _seen_up()) != expected:
            if time.monotonic() - began > AGAIN_SECONDS:
                raise CannotTry(f"Prometheus does not see {expected}, but {seen}")
            time.sleep(1)
    rules = [rule["name"] for group in _prometheus("rules")["groups"] for rule in group["rules"]]
    firing = [alert["labels"]["alertname"] for alert in _prometheus("alerts")["alerts"] if alert["state"] == "firing"]
    print(f"  {len(rules)} rules, firing: {', '.join(firing) or 'none'}")
    if not rules or firing:
        raise CannotTry("there are no rules, or a healthy composition raises alerts")


def _seen_up() -> dict[str, int]:
    """By job: how many processes Prometheus could read of late."""
    found = _prometheus("query?query=sum+by+(job)+(up)")["result"]
    return {each["metric"]["job"]: int(each["value"][1]) for each in found}


def _prometheus(path: str) -> Any:
    with urllib.request.urlopen(f"{PROMETHEUS}/{path}", timeout=10) as answer:  # noqa: S310
        return json.load(answer)["data"]


def _scale(tried: Try) -> None:
    name = "commission-worker"
    cells = {cell for owned in tried.cells(name).values() for cell in owned}
    with tried.step(f"{name}: 1 → {WORKERS} containers, each with cells"):
        tried("up", "--detach", "--no-build", "--no-recreate", "--scale", f"{name}={WORKERS}", "--wait")
        tried.until(name, lambda owned: len(owned) == WORKERS and every(cells)(owned))


def _under_load(tried: Try) -> None:
    """Kill one worker, stop one and roll all, each while the demo plays; its figures are checked to the cent."""
    name = "commission-worker"
    cells = {cell for owned in tried.cells(name).values() for cell in owned}

    def killed() -> None:
        victim = tried.containers(name)[0]
        os.kill(int(run("docker", "inspect", "-f", "{{.State.Pid}}", victim)), signal.SIGKILL)

    def handed_over() -> None:
        run("docker", "stop", tried.containers(name)[0])

    for what, harm in (("SIGKILL", killed), ("SIGTERM", handed_over)):
        demo = tried.start(*DEMO)
        time.sleep(8)
        harm()
        tried.note(f"{what} of one {name}: all cells owned again", tried.until(name, every(cells)))
        _ended(demo)
    demo = tried.start(*DEMO)
    with tried.step("all workers rolled while the demo plays"):
        for service in SERVICES:
            tried("up", "--detach", "--no-build", "--no-deps", "--force-recreate", "--wait", f"{service}-worker")
    _ended(demo)


def _ended(demo: "subprocess.Popen[str]") -> None:
    said, _ = demo.communicate(timeout=900)
    if demo.returncode:
        raise CannotTry(f"the demo ended with {demo.returncode}: {said[-3000:]}")


def _test() -> None:
    """The loop, its races and every journey of the programs with `--infra=docker`."""
    # What clears away after testcontainers is one more image to be had; here all ends with the tests.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    files = [ROOT / "tests" / "e2e" / f"test_{name}.py" for name in TESTED]
    said = run(sys.executable, "-m", "pytest", "-q", "--show-capture=no", "--infra=docker", *files)
    print(f"  {said.splitlines()[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--then", help="command to run against it, in a shell")
    parser.add_argument("--keep", action="store_true", help="leave it running")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "build" / "try", help="where an engine of our own keeps its images"
    )
    parser.add_argument(
        "--three-brokers", action="store_true", help="Kafka of three brokers, three replicas of each topic"
    )
    parser.add_argument("--tests", action="store_true", help="afterwards tests with Kafka and Valkey as containers")
    args = parser.parse_args()
    options = THREE_BROKERS if args.three_brokers else ()
    try:
        with engine(args.data):
            standing_in = base_images()
            if standing_in:
                print(f"stand-ins for {', '.join(sorted(standing_in))}")
            tried = Try(*options)
            try:
                play(tried, args.then)
            finally:
                if not args.keep:
                    tried("--profile", "*", "down", "--volumes", "--timeout", "10")
            if args.tests:
                with tried.step("tests with containers"):
                    _test()
            print(json.dumps(tried.figures, indent=1, ensure_ascii=False))
    except CannotTry as error:
        raise SystemExit(f"try: {error}") from None


if __name__ == "__main__":
    main()
