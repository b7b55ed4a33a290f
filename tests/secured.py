"""A Kafka with SASL, TLS and ACLs and a Valkey with ACLs behind TLS, set up as docs/security.md says."""

import asyncio
import contextlib
import os
import secrets
import shlex
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import redis
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.cli.access import KAFKA_ACLS, REDIS_ACL, principals
from services.local.child import Child
from services.local.jars import classpath
from services.local.kafka import LOGGING, MEMORY, PROPERTIES, java
from services.local.ports import any_free
from services.local.valkey import server
from services.runtime.settings import Settings

READY_SECONDS = 60.0
SHIPPED = KAFKA_ACLS.with_name("kafka.properties")


@dataclass(frozen=True)
class Secured:
    """Where the servers are, and every user's password. `admin` is the super user of both."""

    kafka: str
    redis_port: int
    authority: Path
    passwords: dict[str, str]

    def kafka_options(self, name: str, password: str | None = None) -> dict[str, Any]:
        """For confluent's clients."""
        return {
            "bootstrap.servers": self.kafka,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": name,
            "sasl.password": password or self.passwords[name],
            "ssl.ca.location": str(self.authority),
        }

    def redis_url(self, name: str) -> str:
        return f"rediss://{name}:{self.passwords[name]}@127.0.0.1:{self.redis_port}/0?ssl_ca_certs={self.authority}"

    def redis(self, name: str) -> "redis.Redis":
        return redis.Redis.from_url(self.redis_url(name))

    def environment(self, name: str) -> dict[str, str]:
        """The settings of a process that is called so."""
        return {
            "REFSTREAM_KAFKA": self.kafka,
            "REFSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "REFSTREAM_KAFKA_SECURITY_USERNAME": name,
            "REFSTREAM_KAFKA_SECURITY_PASSWORD": self.passwords[name],
            "REFSTREAM_KAFKA_SECURITY_CAFILE": str(self.authority),
            "REFSTREAM_REDIS": self.redis_url(name),
        }


@contextmanager
def secured(folder: Path) -> Iterator[Secured]:
    """Both servers with their users and the shipped ACLs; no topics yet."""
    users = [principal.name for principal in principals()]
    passwords = {name: secrets.token_hex(16) for name in ("admin", *users)}
    _certificates(folder)
    with ExitStack() as until_the_end:
        bootstrap = until_the_end.enter_context(_kafka(folder, passwords["admin"]))
        port = until_the_end.enter_context(_valkey(folder, passwords))
        at = Secured(bootstrap, port, folder / "ca.pem", passwords)
        _let_kafka_know(at, users)
        yield at


# --- certificates ---------------------------------------------------------------------------------------------------


def _certificates(folder: Path) -> None:
    """An authority, and a certificate of it for this machine. PEM files: ca.pem, broker.pem."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _name("an authority")
    ca = _certificate(authority, authority, authority_key.public_key())
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    (folder / "ca.pem").write_bytes(ca.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    local = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    own = _certificate(_name("kafka-broker"), authority, key.public_key()).add_extension(local, critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = own.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "broker.pem").write_bytes(private + public)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )


# --- Kafka ----------------------------------------------------------------------------------------------------------


@contextmanager
def _kafka(folder: Path, admin_password: str) -> Iterator[str]:
    client, internal, controller = (any_free() for _ in range(3))
    listeners = f"CLIENT://127.0.0.1:{client},INTERNAL://127.0.0.1:{internal}"
    own = PROPERTIES.format(port=client, advertised=client, controller_port=controller, logs=folder / "log")
    own = "\n".join(line for line in own.splitlines() if "listener" not in line)
    shipped = SHIPPED.read_text().replace("/etc/kafka/secrets", str(folder))
    properties = folder / "server.properties"
    properties.write_text(
        f"{own}\n{shipped}\n"
        f"listeners={listeners},CONTROLLER://127.0.0.1:{controller}\n"
        f"advertised.listeners={listeners}\n"
    )
    logging = folder / "log4j2.properties"
    logging.write_text(LOGGING)
    jars = ":".join(map(str, classpath(Settings().cache_path)))
    command = [java(), *MEMORY, f"-Dlog4j2.configurationFile={logging}", "-cp", jars]
    scram = f"SCRAM-SHA-512=[name=admin,password={admin_password}]"
    formatting = ["kafka.tools.StorageTool", "format", "-t", "A" + secrets.token_urlsafe(16)[1:], "-c"]
    subprocess.run(
        [*command, *formatting, str(properties), "--add-scram", scram], check=True, capture_output=True, timeout=60
    )
    child = Child("kafka", [*command, "kafka.Kafka", str(properties)], folder / "kafka.log")
    try:
        _await_port(child, client)
        yield f"127.0.0.1:{client}"
    finally:
        child.stop(15)


def _await_port(child: Child, port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and child.exit_code is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"{child.name} did not start:\n{child.log_tail()}")


def _let_kafka_know(at: Secured, users: list[str]) -> None:
    """Make the users, and run the shipped script."""
    admin = AdminClient(at.kafka_options("admin"))
    scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    wanted = [UserScramCredentialUpsertion(name, scram, at.passwords[name].encode()) for name in users]
    for done in admin.alter_user_scram_credentials(wanted).values():
        done.result(timeout=30)
    for done in admin.create_acls(bindings()).values():
        done.result(timeout=30)


def bindings() -> list[AclBinding]:
    """What the shipped script asks of kafka-acls.sh, with which the tests' Kafka does not come."""
    stand_in = 'kafka-acls.sh() { printf "%s\\n" "$*"; }\n'
    ran = subprocess.run(
        ["bash", "-c", stand_in + KAFKA_ACLS.read_text()],
        env={**os.environ, "BOOTSTRAP": "kafka:9093", "COMMAND_CONFIG": "admin.properties"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [binding for line in ran.stdout.splitlines() for binding in _bindings(shlex.split(line))]


def _bindings(words: list[str]) -> Iterator[AclBinding]:
    pairs = list(pairwise(words))
    principal = next(value for name, value in pairs if name == "--allow-principal")
    pattern = ResourcePatternType.PREFIXED if ("--resource-pattern-type", "prefixed") in pairs else None
    for resource in ("topic", "group"):
        for name in (value for option, value in pairs if option == f"--{resource}"):
            for operation in (value for option, value in pairs if option == "--operation"):
                yield AclBinding(
                    ResourceType[resource.upper()],
                    name,
                    pattern or ResourcePatternType.LITERAL,
                    principal,
                    "*",
                    getattr(AclOperation, {"DescribeConfigs": "DESCRIBE_CONFIGS"}.get(operation, operation.upper())),
                    AclPermissionType.ALLOW,
                )


# --- Valkey ---------------------------------------------------------------------------------------------------------


@contextmanager
def _valkey(folder: Path, passwords: dict[str, str]) -> Iterator[int]:
    """The wheel's Valkey is built without TLS, so something before it ends TLS, as many set-ups have it."""
    plain = any_free()
    options = {"port": str(plain), "bind": "127.0.0.1", "dir": str(folder), "appendonly": "yes", "save": ""}
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    child = Child("valkey", [server(), *arguments], folder / "valkey.log")
    try:
        _await_port(child, plain)
        with redis.Redis(port=plain) as first:
            first.execute_command("ACL", "SETUSER", "admin", "on", f">{passwords['admin']}", "~*", "&*", "+@all")
            first.execute_command("AUTH", "admin", passwords["admin"])
            for line in REDIS_ACL.read_text().splitlines():
                first.execute_command(*line.split())
            for name, password in passwords.items():
                if f"SETUSER {name} " in REDIS_ACL.read_text():
                    first.execute_command("ACL", "SETUSER", name, f">{password}")
        with _tls_before(plain, folder) as port:
            yield port
    finally:
        child.stop(5)


@contextmanager
def _tls_before(plain: int, folder: Path) -> Iterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "broker.pem")
    port, stop, ready = any_free(), threading.Event(), threading.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the end of the tests, with clients still there
            inner, outer = await asyncio.open_connection("127.0.0.1", plain)
            await asyncio.gather(_pump(reader, outer), _pump(inner, writer))

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", port, ssl=context):
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield port
    finally:
        stop.set()
        thread.join(10)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
