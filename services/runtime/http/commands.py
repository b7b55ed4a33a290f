"""Commands: a POST becomes a record on its service's command topic, the fold decides, the decision is the answer.

The command id derives from caller, path and Idempotency-Key, so a repeat is the same command however often and through
whichever process it comes; the fold decides it once, and its answer stays with the state.
"""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import Request
from starlette.responses import Response

from schemas.commands import Answered, Command
from schemas.events import Event
from schemas.ids import derived_id
from schemas.moments import micros
from schemas.topics import BY_NAME
from services.runtime.http.auth import Caller
from services.runtime.http.bodies import Body
from services.runtime.http.decisions import Decisions
from services.runtime.http.problems import Problem, invalid, not_found
from services.runtime.metrics import COMMANDS, Metrics
from services.runtime.reader import Reader
from services.runtime.settings import Settings
from services.runtime.stage import Stage

Write = Callable[[Event, str], Awaitable[None]]
C = TypeVar("C", bound=Command)

WAIT_SECONDS = 5.0
KEY_CHARACTERS = 255
PENDING = "pending"
HASH_CHARACTERS = 16  # of the body's hash, in the address of a command


class Commands:
    """What routes use to change something. `write(event, key)` puts a command on its topic."""

    def __init__(
        self,
        service: str,
        settings: Settings,
        reader: Reader,
        write: Write,
        metrics: Metrics,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._service, self._settings, self._reader = service, settings, reader
        self._write, self._metrics, self._wait_seconds = write, metrics, wait_seconds
        self._decisions = Decisions(reader)
        for kind in BY_NAME[f"commands.{service}"].types:
            metrics[COMMANDS].labels(service, kind.type, PENDING)  # from 0 on: what begins at 1 is not seen to grow

    async def run(
        self,
        request: Request,
        who: Caller,
        stages: Sequence[Stage[Any, Any]],
        kind: type[C],
        body: Body | None = None,
        **fields: Any,
    ) -> Response:
        """The answer to a POST or PUT: the decision, or 202 where there is none after 5 seconds.

        `kind`: the command; its fields are those of `body` and `fields`, `partner_id` among them.
        `stages`: those that may answer it. A POST needs an Idempotency-Key; the same key and body get the first answer
        again. Errors: Problem 400 idempotency_key_required, 422 invalid, 422 idempotency_key_reused, 503.
        """
        command_id = self.id_of(request, who)
        body_hash = _body_hash(await request.body())
        if request.method == "POST" and (known := await self._known(stages, command_id)):
            return _as_response(known, body_hash)
        command = _build(kind, body, {**fields, "command_id": command_id, "body_hash": body_hash, "caller": who.name})
        event = Event(command_id, f"/{self._service}", micros(self._settings.now()), command)
        # Shielded: a caller who hangs up must not break the producer in the middle of a batch.
        await asyncio.shield(self._write(event, command.partner_id))
        answer = await self._decisions.of(stages, command_id, self._wait_seconds)
        self._metrics[COMMANDS].labels(self._service, kind.type, _outcome(answer)).inc()
        return _as_response(answer, body_hash) if answer else self._pending(command_id, body_hash)

    async def earlier(self, request: Request, who: Caller, stages: Sequence[Stage[Any, Any]]) -> Response | None:
        """The answer that a POST's Idempotency-Key has got before, if any; `run` by itself gives it again.

        A route with refusals of its own asks here before them, so that a repeat gets its first answer whatever they
        would say by now, at the price of one more question to Redis. Errors: as `run`.
        """
        known = await self._known(stages, self.id_of(request, who))
        return _as_response(known, _body_hash(await request.body())) if known else None

    def id_of(self, request: Request, who: Caller) -> str:
        """The id of the command that a POST asks for, the same each time it is sent; a PUT asks for another each time.

        Errors: Problem 400 idempotency_key_required, 422 invalid.
        """
        key = _idempotency_key(request) if request.method == "POST" else uuid.uuid4().hex
        return derived_id(_mark(who), request.url.path, key)

    async def look_up(self, who: Caller, stages: Sequence[Stage[Any, Any]], ticket: str) -> Response:
        """What `GET /<service>/commands/{ticket}` answers: 202 until decided, then as the POST would have.

        Errors: Problem 404 for a command of another caller; 503 while the state is being rebuilt.
        """
        command_id, _, body_hash = ticket.partition(".")
        if not command_id.startswith(_mark(who) + "_"):
            raise not_found()
        answer = await self._known(stages, command_id)
        return _as_response(answer, body_hash) if answer else self._pending(command_id, body_hash)

    async def _known(self, stages: Sequence[Stage[Any, Any]], command_id: str) -> Answered | None:
        return (await self._reader.answers(stages, [command_id])).get(command_id)

    def _pending(self, command_id: str, body_hash: str) -> Response:
        address = f"/{self._service}/commands/{command_id}"
        if body_hash:
            address += f".{body_hash[:HASH_CHARACTERS]}"
        headers = {"Location": address, "Retry-After": "1"}
        return _json(202, {"status": "pending", "location": address}, headers)


def _mark(who: Caller) -> str:
    """What every command id of a caller begins with, so that ownership shows before there is an answer."""
    return derived_id("cmd", who.role, who.sub)


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key")
    if key is None:
        raise Problem(400, "idempotency_key_required", "Send an Idempotency-Key: a new one for each new request.")
    if not 1 <= len(key) <= KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        raise invalid("Idempotency-Key", f"Write 1 to {KEY_CHARACTERS} printable ASCII characters.")
    return key


def _body_hash(raw: bytes) -> str:
    """SHA-256 of the body's content: spaces and the order of members do not matter."""
    try:
        content = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError):
        raise invalid("body", "Write a JSON object.") from None
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _build(kind: type[C], body: Body | None, fields: dict[str, Any]) -> C:
    """The command. Errors: TypeError for a field that it does not have, which would be lost in silence."""
    named = {name: getattr(body, name) for name in type(body).model_fields} if body is not None else {}
    content = {**named, **fields}
    if unknown := content.keys() - kind.model_fields.keys():
        raise TypeError(f"{kind.__name__} has no {sorted(unknown)}")
    return kind.model_validate(content)


def _outcome(answer: Answered | None) -> str:
    """`pending`, `done`, or the code of a refusal."""
    if answer is None:
        return PENDING
    return "done" if answer.status < 400 else str(answer.body.get("code", answer.status))


def _as_response(answer: Answered, body_hash: str) -> Response:
    """The decision as HTTP. `body_hash`: of this request's body, or its beginning; empty: not compared.

    What a forgotten person's command said is not known any more: whatever comes under its key is answered 410.
    """
    if answer.body_hash and not answer.body_hash.startswith(body_hash):
        raise Problem(422, "idempotency_key_reused", "The Idempotency-Key came before with another body.")
    if answer.status >= 400:
        more = {name: value for name, value in answer.body.items() if name not in ("code", "detail")}
        code, detail = str(answer.body.get("code", "refused")), str(answer.body.get("detail", ""))
        return Problem(answer.status, code, detail, more=more).response()
    return _json(answer.status, answer.body)


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")
