"""Starts Kafka as its official image does: KAFKA_SOME_NAME becomes the property some.name."""

import os
import subprocess
from pathlib import Path

CLUSTER_ID = "5L6g3nShT-eMCtK--X86sw"  # of nodes that are told none, as in the official image
LOGGED = "-Dorg.apache.logging.log4j.level=INFO"
JAVA = ("java", "-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", LOGGED, "-cp", "/opt/kafka/libs/*")

os.environ.setdefault("KAFKA_LOG_DIRS", "/tmp/kafka-logs")  # noqa: S108 - as in the official image
properties = Path("/tmp/server.properties")  # noqa: S108 - the container's own
named = {name.removeprefix("KAFKA_"): value for name, value in os.environ.items() if name.startswith("KAFKA_")}
properties.write_text("".join(f"{name.lower().replace('_', '.')}={value}\n" for name, value in named.items()))
if not (Path(os.environ["KAFKA_LOG_DIRS"]) / "meta.properties").exists():
    formatting = ("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties))
    subprocess.run([*JAVA, *formatting], check=True)
os.execvp(JAVA[0], [*JAVA, "kafka.Kafka", str(properties)])  # noqa: S606
