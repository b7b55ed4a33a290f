"""A Docker engine, and the base images: the real ones where they can be had, else stand-ins made on this machine.

A stand-in has the name of the real image and real software in it, from Debian's packages and from what the local stack
uses: Kafka's jars, Valkey's server. It understands of the original's settings what docker-compose.yml says.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.local.jars import classpath
from services.local.valkey import server
from services.runtime.settings import Settings

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DEBIAN = "refstream-stand-in:bookworm"
PACKAGES = (
    "ca-certificates,python3,python3-venv,python-is-python3,openjdk-17-jre-headless,redis-tools,caddy,prometheus,wget"
)
STAND_INS = {
    "python:3.11-slim-bookworm": "python",
    "apache/kafka:4.1.1": "kafka",
    "valkey/valkey:9": "valkey",
    "caddy:2": "caddy",
    "prom/prometheus:v3.5.0": "prometheus",
}
START_SECONDS = 60


class CannotTry(Exception):
    """What is missing on this machine, and how to get it."""


def run(*command: str | Path, quiet: bool = False, seconds: float = 1800) -> str:
    """The output of a command that succeeds; what goes wrong is shown. Errors: CannotTry."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if ended.returncode and not quiet:
        raise CannotTry(f"{' '.join(map(str, command[:6]))} …: {(ended.stderr or ended.stdout).strip()[-2000:]}")
    return ended.stdout.strip() if not ended.returncode else ""


@contextmanager
def engine(data: Path) -> Iterator[None]:
    """The engine that runs; where none does, one of our own with its images in `data`, ended again."""
    if run("docker", "info", "--format", "{{.ServerVersion}}", quiet=True):
        yield
        return
    if not shutil.which("dockerd") or os.geteuid():
        raise CannotTry("no Docker engine answers: start one, or be root where `dockerd` is installed")
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="refstream-try-") as scratch, (data / "dockerd.log").open("wb") as log:
        socket = f"unix://{scratch}/docker.sock"
        options = ("--data-root", data / "engine", "--exec-root", f"{scratch}/exec", "--pidfile", f"{scratch}/pid")
        own = subprocess.Popen(["dockerd", "--host", socket, *options], stdout=log, stderr=log)
        os.environ["DOCKER_HOST"] = socket
        try:
            deadline = time.monotonic() + START_SECONDS
            while not run("docker", "info", quiet=True):
                if own.poll() is not None or time.monotonic() > deadline:
                    raise CannotTry(f"dockerd does not start: see {data / 'dockerd.log'}")
                time.sleep(0.5)
            yield
        finally:
            own.terminate()
            own.wait(START_SECONDS)
            # The network of containers that share this machine's stays mounted there, which keeps the folder.
            run("umount", f"{scratch}/exec/netns/default", quiet=True)


def base_images() -> set[str]:
    """See to it that every base image is there. Answers those that are stand-ins."""
    made = set()
    for image, kind in STAND_INS.items():
        label = run("docker", "image", "inspect", "-f", "{{.Config.Labels.stand_in}}", image, quiet=True)
        if label:  # "<no value>" where it is the real one
            made |= {image} if label == kind else set()
        elif not run("docker", "pull", "--quiet", image, quiet=True, seconds=600):
            _stand_in(image, kind)
            made.add(image)
    return made


def _stand_in(image: str, kind: str) -> None:
    if not run("docker", "image", "inspect", DEBIAN, quiet=True):
        _debian()
    with tempfile.TemporaryDirectory(prefix="refstream-try-") as scratch:
        context = Path(scratch)
        shutil.copytree(HERE / "stand_in", context, dirs_exist_ok=True)
        if kind == "kafka":
            for jar in classpath(Settings.load().cache_path):
                shutil.copy(jar, context / "kafka")
        if kind == "valkey":
            shutil.copy(server(), context / "valkey-server")
        file = context / f"{kind}.Dockerfile"
        run("docker", "build", "--quiet", "--label", f"stand_in={kind}", "--file", file, "--tag", image, context)


def _debian() -> None:
    """One Debian with all that stand-ins need, of the packages that this machine's own Debian gets."""
    if not shutil.which("debootstrap"):
        raise CannotTry("base images cannot be pulled here, and stand-ins need `apt-get install debootstrap`")
    with tempfile.TemporaryDirectory(prefix="refstream-try-") as scratch:
        root = Path(scratch) / "root"
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root)
        # Whoever this machine trusts, the build must trust too: a proxy may stand between it and the packages.
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
        archive = Path(scratch) / "root.tar"
        run("tar", "--directory", root, "--create", "--file", archive, "--exclude=./proc/*", "--exclude=./sys/*", ".")
        run("docker", "import", archive, DEBIAN)


def compose() -> list[str]:
    """How `docker compose` is called here. Errors: CannotTry."""
    if run("docker", "compose", "version", quiet=True):
        return ["docker", "compose"]
    if found := shutil.which("docker-compose"):
        return [found]
    raise CannotTry("there is no `docker compose`: install Docker's compose plug-in, version 2.20 or later")
