"""`refstream up`: the local stack, in the foreground or in the background."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from services.cli.state import RunState, become_supervisor, forget_state, is_running, private_dir, read_state
from services.cli.supervisor import Supervisor
from services.cli.token import Role, sign_in_link, signed
from services.local.refusal import StackRefused
from services.runtime.settings import Settings

POLL_SECONDS = 0.1
READY_SECONDS = 600.0


def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all is ready; it runs on in the background.")
    ] = False,
    infra_only: Annotated[
        bool, typer.Option("--infra-only", help="Kafka, Redis, topics and programs, but no service of ours.")
    ] = False,
) -> None:
    """Start the whole of refstream on this machine.

    Starts a local Kafka and Valkey unless REFSTREAM_KAFKA or REFSTREAM_REDIS say where one is, creates the topics,
    publishes the shipped programs, and runs the four workers and the API on one port. What dies is started again.
    Prints the addresses and development tokens. Data, logs and secrets are in REFSTREAM_DATA_DIR; each data directory
    can have a stack of its own.
    """
    settings = Settings.load()
    if detach:
        print_state(start_detached(settings, infra_only), settings)
        return
    if become_supervisor(settings.data_path) is None:
        raise StackRefused(
            f"a stack with the data directory {settings.data_path} runs already: see `refstream status`, end it "
            "with `refstream down`, or set REFSTREAM_DATA_DIR to another directory"
        )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    supervisor = Supervisor(settings, infra_only)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    try:
        supervisor.run(lambda state: print_state(state, settings))
    finally:
        forget_state(settings.data_path)


def start_detached(settings: Settings, infra_only: bool = False) -> RunState:
    """Start the stack in the background and return when it is ready; one that runs already is used as it is.

    Raises StackRefused with the reason where it does not start.
    """
    data_dir = settings.data_path
    if not is_running(data_dir):
        log = private_dir(data_dir) / "logs" / "up.log"
        log.parent.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        process = _spawn(infra_only, log)
    else:
        process = None
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        state = read_state(data_dir)
        if state and state.ready:
            if state.infra_only and not infra_only:
                raise StackRefused(
                    "only Kafka and Redis run: end them with `refstream down` first, then `refstream up`"
                )
            return state
        if process is None and not is_running(data_dir):
            raise StackRefused("the stack that was starting has ended; try again")
        if process is not None and process.poll() is not None:
            reason = log.read_text(errors="replace").strip().removeprefix("refstream: ")
            raise StackRefused(reason or f"the supervisor ended with exit code {process.returncode}")
        time.sleep(POLL_SECONDS)
    raise StackRefused(f"the stack is not ready after {READY_SECONDS:.0f} s; see {data_dir / 'logs'}")


def _spawn(infra_only: bool, log: Path) -> subprocess.Popen[bytes]:
    """The supervisor as a process of its own session: it outlives this command and the terminal."""
    command = [sys.executable, "-P", "-m", "services.cli.main", "up", *(["--infra-only"] if infra_only else [])]
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=os.environ
        )


def print_state(state: RunState, settings: Settings) -> None:
    """Where everything is, for a person."""
    print(f"Kafka   {state.kafka}\nRedis   {state.redis}")
    if state.url:
        print(f"API     {state.url}")
        print(f"Pages   {state.url}/portal and {state.url}/admin")
    print(f"Logs    {settings.data_path / 'logs'}")
    if not state.url or not state.auth_secret:
        return
    from pydantic import SecretStr

    signing = settings.model_copy(
        update={
            "auth_secret": SecretStr(state.auth_secret),
            "clock_offset": state.clock_offset,
            "public_url": state.url,
        }
    )
    print("\nDevelopment tokens (more: refstream token --role partner --sub ID)")
    for role in (Role.admin, Role.platform):
        print(f"  {role.value:<9} {signed(signing, role, role.value)}")
    print("\nThe administrator's desk, for 15 minutes (more: refstream token --link --role partner --sub ID)")
    print(f"  {sign_in_link(signing, Role.admin, Role.admin.value)}", flush=True)
