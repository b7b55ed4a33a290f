"""Kafka Streams as a peer: its jars, compiled once.

python bench/peers/streams.py      # writes kafka-streams.sha256 anew, for another version
"""

import shutil
import subprocess
from pathlib import Path

from services.local.jars import KAFKA_VERSION, classpath, write_lock
from services.local.kafka import java
from services.local.refusal import StackRefused

HERE = Path(__file__).parent / "kafka_streams"
SOURCE, LOCK = HERE / "Commission.java", HERE / "kafka-streams.sha256"
ROOTS = (f"org.apache.kafka:kafka-streams:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
JAVA_RELEASE = "17"


def command(cache: Path, build: Path, kafka: str, guarantee: str, state: Path) -> list[str]:
    """The program that folds W1. Errors: StackRefused where there is no compiler or no jars."""
    jars = ":".join(map(str, classpath(cache, LOCK)))
    classes = build / "kafka-streams"
    if not classes.is_dir() or (classes / "Commission.class").stat().st_mtime < SOURCE.stat().st_mtime:
        compiler = shutil.which("javac")
        if compiler is None:
            raise StackRefused("Kafka Streams needs a Java compiler: install a JDK, 17 or later (`javac` on the path)")
        classes.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "--release", JAVA_RELEASE, "-cp", jars, "-d", str(classes), str(SOURCE)], check=True)
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return [java(), "-Xmx2g", quiet, "-cp", f"{classes}:{jars}", "Commission", kafka, guarantee, str(state)]


if __name__ == "__main__":
    write_lock(ROOTS, LOCK)
