"""Parts of the command line that need no Kafka: what `publish` refuses, tokens, the run state, the edge."""

import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from services.cli.edge import Edge
from services.cli.main import app
from services.cli.state import (
    RunState,
    become_supervisor,
    forget_state,
    is_running,
    read_state,
    running_settings,
    with_secrets,
    write_state,
)
from services.runtime.settings import Settings

SECRET = "0123456789abcdef" * 4
SIGNUP = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "shop",
    "type": "customer.signed_up",
    "time": "2026-01-01T00:00:00Z",
    "data": {"customer_id": "c-1"},
}


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REFSTREAM_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("REFSTREAM_AUTH_SECRET", raising=False)
    return tmp_path


def run(*arguments: str, stdin: str = "") -> Any:
    return CliRunner().invoke(app, arguments, input=stdin)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"time": "2026-01-01T00:00:00"}, "line 2: time:"),
        ({"time": "2999-01-01T00:00:00Z"}, "line 2: time: more than 5 minutes ahead"),
        ({"data": {}}, "line 2: data.customer_id:"),
        ({"specversion": "0.3"}, "line 2: specversion:"),
        ({"type": "customer.unheard_of"}, "line 2: type:"),
        ({"type": "referral.declined", "data": {"customer_id": "c", "reason": "no_click"}}, "by attribution alone"),
    ],
)
def test_publish_names_line_and_field_and_publishes_nothing(change: dict[str, object], fault: str) -> None:
    result = run("publish", "-", stdin=f"{json.dumps(SIGNUP)}\n{json.dumps(SIGNUP | change)}\n")
    assert result.exit_code == 1
    assert fault in result.stderr
    assert "nothing published: 1 lines are wrong" in result.stderr


def test_publish_names_a_file_that_is_not_there() -> None:
    result = run("publish", "absent.jsonl")
    assert result.exit_code == 2
    assert "absent.jsonl: No such file or directory" in result.stderr


def test_a_token_carries_role_and_subject_and_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFSTREAM_AUTH_SECRET", SECRET)
    claims = {}
    for offset in ("0", "100000"):
        monkeypatch.setenv("REFSTREAM_CLOCK_OFFSET", offset)
        token = run("token", "--role", "partner", "--sub", "p-1").stdout.strip()
        options = {"verify_exp": False, "verify_iat": False}
        claims[offset] = jwt.decode(token, SECRET, ["HS256"], options, audience="refstream", issuer="refstream")
    assert (claims["0"]["role"], claims["0"]["sub"]) == ("partner", "p-1")
    assert claims["100000"]["exp"] - claims["0"]["exp"] >= 100_000


def test_a_partner_token_without_the_partner_is_refused() -> None:
    assert run("token", "--role", "partner").exit_code == 2


def test_a_token_without_a_secret_names_the_cure() -> None:
    result = run("token", "--role", "admin")
    assert result.exit_code == 1
    assert "REFSTREAM_AUTH_SECRET" in result.stderr


def test_status_of_nothing_exits_with_1_and_stays_json() -> None:
    result = run("status", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["processes"] == []


def test_down_with_nothing_to_stop_is_no_error() -> None:
    assert run("down").exit_code == 0


def test_one_supervisor_at_a_time_holds_a_data_directory(data_dir: Path) -> None:
    assert not is_running(data_dir)
    held = become_supervisor(data_dir)
    assert held is not None
    assert is_running(data_dir)
    assert become_supervisor(data_dir) is None
    os.close(held)
    assert not is_running(data_dir)


def test_secrets_are_made_once_and_for_the_owner_alone(data_dir: Path) -> None:
    first, second = with_secrets(Settings.load()), with_secrets(Settings.load())
    assert first.auth_secret == second.auth_secret
    assert first.auth_secret is not None
    assert stat.S_IMODE((data_dir / "secrets.json").stat().st_mode) == 0o600
    first.require_production_secrets()


def test_a_state_that_was_left_behind_counts_as_nothing_running(data_dir: Path) -> None:
    (data_dir / "state.json").write_text("{}")
    assert read_state(data_dir) is None
    assert running_settings().kafka is None
    forget_state(data_dir)


def test_commands_find_the_secrets_of_the_stack_that_runs_here_and_of_no_other(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = become_supervisor(data_dir)
    assert held is not None
    state = RunState.model_validate(
        {
            "url": None,
            "public_url": None,
            "port": 1,
            "kafka": "k:1",
            "redis": "redis://r",
            "partitions": 4,
            "clock_offset": 0,
            "auth_secret": SECRET,
            "click_secrets": {"1": SECRET},
            "data_secrets": {"1": SECRET},
            "infra_only": False,
            "ready": True,
            "processes": [],
        }
    )
    write_state(data_dir, state)
    assert list(running_settings().data_secrets) == ["1"]
    monkeypatch.setenv("REFSTREAM_KAFKA", "k:1")
    monkeypatch.setenv("REFSTREAM_REDIS", "redis://r")
    assert list(running_settings().data_secrets) == ["1"]
    monkeypatch.setenv("REFSTREAM_KAFKA", "other:1")
    assert running_settings().data_secrets == {}
    os.close(held)


def _app(name: str, events: list[str]) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        events.append(f"{name} opened")
        yield
        events.append(f"{name} closed")

    app = FastAPI(lifespan=lifespan)
    app.get(f"/{name}/who")(lambda: name)
    return app


async def test_the_edge_serves_each_app_under_its_prefix_and_refuses_other_paths() -> None:
    edge = Edge({name: _app(name, []) for name in ("rewards", "payouts")})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=edge), base_url="http://edge") as client:
        assert (await client.get("/rewards/who")).json() == "rewards"
        assert (await client.get("/payouts/who")).json() == "payouts"
        for path in ("/", "/nowhere", "/rewardsx/who"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            assert answer.headers["content-type"] == "application/problem+json"


async def test_the_edge_opens_every_app_and_closes_them_in_reverse() -> None:
    events: list[str] = []
    edge = Edge({name: _app(name, events) for name in ("rewards", "payouts")})

    async def receive() -> dict[str, str]:
        return {"type": "lifespan"}

    async def send(message: Any) -> None:
        events.append(message["type"])

    await edge({"type": "lifespan"}, receive, send)
    assert events == [
        "rewards opened",
        "payouts opened",
        "lifespan.startup.complete",
        "payouts closed",
        "rewards closed",
        "lifespan.shutdown.complete",
    ]
