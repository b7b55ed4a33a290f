"""Kafka's jars: resolved from Maven once per machine, and each compared with the hash that we know.

`kafka.sha256` lists them, `HASH  GROUP:ARTIFACT:VERSION`. `python -m services.local.jars` writes it anew, for another
version of Kafka.
"""

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from services.local.refusal import StackRefused

KAFKA_VERSION = "4.1.1"
# The logging back end comes with Kafka's distribution, not with its jar: without it Kafka would fail in silence.
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3")
LOCK = Path(__file__).with_name("kafka.sha256")
AT_A_TIME = 8
TIMEOUT_SECONDS = 60


def classpath(cache: Path, lock: Path = LOCK) -> list[Path]:
    """The jars of a lock (Kafka's own) in the cache directory, fetched where they are missing.

    May take some seconds the first time. Raises StackRefused where they cannot be had or are not what they were.
    """
    hashes = {name: digest for digest, name in map(str.split, lock.read_text().splitlines())}
    lock_hash = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = cache / f"{lock.stem}-{KAFKA_VERSION}-{lock_hash}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(cache / f"{lock.stem}.lock"):
            if not folder.is_dir():
                _fetch(hashes, folder, cache)
    return sorted(folder.glob("*.jar"))


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fetch(hashes: dict[str, str], folder: Path, cache: Path) -> None:
    """Fetch all, check all, then show all at once under the final name."""
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as scratch:
        staging = Path(scratch) / "jars"
        staging.mkdir()

        def fetch(coordinate: str) -> None:
            jar = _get(coordinate, Path(scratch) / "repository")
            if hashlib.sha256(jar.read_bytes()).hexdigest() != hashes[coordinate]:
                raise StackRefused(
                    f"{coordinate} is not the file that was locked (its SHA-256 differs): a proxy or mirror changes "
                    "what it serves; fetch from another network, or set REFSTREAM_KAFKA to a Kafka that runs"
                )
            shutil.move(jar, staging / jar.name)

        try:
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                list(pool.map(fetch, hashes))
        except StackRefused:
            raise
        except ImportError as error:
            raise StackRefused(
                "Kafka's jars are not here and jgo, which fetches them, is not installed: `pip install "
                "refstream[local]`, or set REFSTREAM_KAFKA to a Kafka that runs"
            ) from error
        except Exception as error:
            raise StackRefused(
                f"Kafka's jars could not be fetched from Maven Central ({type(error).__name__}: {error}). Look at the "
                "network and the proxy settings (HTTPS_PROXY, REQUESTS_CA_BUNDLE) and try again; or copy "
                f"{cache} from a machine that has them; or set REFSTREAM_KAFKA to a Kafka that runs"
            ) from error
        staging.rename(folder)


def _get(coordinate: str, repository: Path) -> Path:
    """One jar, downloaded into the local repository. Errors: those of jgo and requests."""
    from jgo.maven import MavenContext

    group, artifact, version = coordinate.split(":")
    context = MavenContext(repo_cache=repository, timeout=TIMEOUT_SECONDS)
    jar: Path = context.project(group, artifact).at_version(version).artifact(packaging="jar").resolve()
    return jar


def write_lock(roots: Iterable[str] = ROOTS, lock: Path = LOCK) -> None:
    """Resolve the roots with all that they need, and write the list of coordinates and hashes."""
    import jgo

    artifacts = {f"{a.groupId}:{a.artifactId}:{a.version}": a for root in roots for a in jgo.resolve(root)}
    lines = [f"{hashlib.sha256(a.resolve().read_bytes()).hexdigest()}  {name}" for name, a in sorted(artifacts.items())]
    lock.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_lock()
