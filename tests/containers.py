"""The official images of Kafka and Valkey as containers, for `pytest --infra=docker`."""

from collections.abc import Iterator
from contextlib import contextmanager

from testcontainers.community.valkey import ValkeyContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from services.local.ports import any_free

KAFKA_IMAGE = "apache/kafka:4.1.1"
VALKEY_IMAGE = "valkey/valkey:9"
KAFKA_OPTIONS = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
}


@contextmanager
def kafka() -> Iterator[str]:
    """A one-node Kafka; gives its bootstrap servers. testcontainers' own class knows Confluent's image alone."""
    port = any_free()  # chosen before the start: Kafka has to tell its clients the port on the host
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, port)
    host = container.get_docker_client().host()
    for name, value in KAFKA_OPTIONS.items():
        container.with_env(name, value)
    container.with_env("KAFKA_ADVERTISED_LISTENERS", f"PLAINTEXT://{host}:{port}")
    with container.waiting_for(LogMessageWaitStrategy("Kafka Server started")):
        yield f"{host}:{port}"


@contextmanager
def valkey() -> Iterator[str]:
    """A Valkey; gives its URL."""
    with ValkeyContainer(VALKEY_IMAGE).with_command(["valkey-server", "--appendonly", "yes"]) as container:
        yield f"redis://{container.get_host()}:{container.get_exposed_port()}/0"
