"""What `up` writes down about the stack that it runs, so that the other commands find it."""

import fcntl
import json
import os
import secrets
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr

from services.runtime.settings import Settings

STATE, SECRETS, LOCK = "state.json", "secrets.json", "supervisor.lock"


class Process(BaseModel):
    """One running process. `role`: supervisor, infra, worker or api. `metrics`: where a worker answers Prometheus."""

    model_config = ConfigDict(frozen=True)
    service: str
    role: str
    pid: int
    metrics: str | None = None


class RunState(BaseModel):
    """A running stack. Holds its secrets: the file is for its owner's eyes only."""

    model_config = ConfigDict(frozen=True)
    url: str | None
    public_url: str | None
    port: int
    kafka: str
    redis: str
    partitions: int
    clock_offset: int
    auth_secret: str | None
    click_secrets: dict[str, str]
    data_secrets: dict[str, str]
    infra_only: bool
    ready: bool
    processes: tuple[Process, ...]


def private_dir(folder: Path) -> Path:
    """The folder, made for its owner alone where it is missing: data, logs and tokens are in it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def write_private(file: Path, content: str) -> None:
    """Replace a file at once by one that only its owner can read."""
    scratch = file.with_suffix(".new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(content)
    scratch.replace(file)


def write_state(data_dir: Path, state: RunState) -> None:
    write_private(data_dir / STATE, state.model_dump_json(indent=2))


def read_state(data_dir: Path) -> RunState | None:
    """The state of the stack that runs with this data directory; None where none runs."""
    if not is_running(data_dir):
        return None
    try:
        return RunState.model_validate_json((data_dir / STATE).read_text())
    except FileNotFoundError:  # it is just starting
        return None


def forget_state(data_dir: Path) -> None:
    (data_dir / STATE).unlink(missing_ok=True)


def become_supervisor(data_dir: Path) -> int | None:
    """Hold the data directory for this process; None where another process has it.

    The hold is a lock on a descriptor (the answer) that nobody closes: it goes at the very end of the process, however
    that comes, and no child inherits it. So whoever sees the lock free knows that the process has gone.
    """
    held = os.open(private_dir(data_dir) / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    if _locked_soon(held):
        forget_state(data_dir)
        return held
    os.close(held)
    return None


def is_running(data_dir: Path) -> bool:
    """Whether a supervisor holds the data directory."""
    try:
        with (data_dir / LOCK).open("r") as handle:
            return not _locked(handle.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _locked(handle: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locked_soon(handle: int) -> bool:
    """A moment's patience: `is_running` of another command holds the lock for an instant."""
    for _ in range(10):
        if _locked(handle):
            return True
        time.sleep(0.05)
    return False


def with_secrets(settings: Settings) -> Settings:
    """The settings with secrets for the local stack: those given, else made once per data directory and remembered."""
    file = settings.data_path / SECRETS
    own = json.loads(file.read_text()) if file.exists() else {}
    if missing := [name for name in ("auth_secret", "click_secret", "data_secret") if name not in own]:
        private_dir(settings.data_path)
        own |= {name: secrets.token_hex(32) for name in missing}
        write_private(file, json.dumps(own))
    update: dict[str, object] = {"local": True}
    if not settings.auth_secret and not settings.auth_jwks_url:
        update["auth_secret"] = SecretStr(own["auth_secret"])
    if not settings.click_secrets:
        update["click_secrets"] = {"local": SecretStr(own["click_secret"])}
    if not settings.data_secrets:
        update["data_secrets"] = {"local": SecretStr(own["data_secret"])}
    return settings.model_copy(update=update)


def running_settings() -> Settings:
    """The settings of the environment, completed by the local stack that runs with its data directory, if one does.

    A stack on other servers than the environment names is another one. Every command that talks to a running refstream
    starts with this.
    """
    settings = Settings.load()
    state = read_state(settings.data_path)
    if state is None or (settings.kafka or state.kafka, settings.redis or state.redis) != (state.kafka, state.redis):
        return settings
    return settings.model_copy(
        update={
            "kafka": settings.kafka or state.kafka,
            "redis": settings.redis or state.redis,
            "port": state.port,
            "public_url": settings.public_url or state.public_url,
            "partitions": state.partitions,
            "clock_offset": state.clock_offset,
            "auth_secret": SecretStr(state.auth_secret) if state.auth_secret else settings.auth_secret,
            "click_secrets": {key: SecretStr(value) for key, value in state.click_secrets.items()},
            "data_secrets": {key: SecretStr(value) for key, value in state.data_secrets.items()},
            "local": True,
        }
    )
