"""A throw-away PostgreSQL, of the system's package."""

import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

from services.cli.bench.lab import Lab, Running
from services.local.refusal import StackRefused

PACKAGED = Path("/usr/lib/postgresql")
READY_SECONDS = 30.0
OPTIONS = (
    "listen_addresses=",
    "shared_buffers=1GB",
    "effective_cache_size=4GB",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "synchronous_commit=on",
    "fsync=on",
)


def binaries() -> Path:
    """Where the server's programs are. Errors: StackRefused where there are none."""
    versions = sorted(PACKAGED.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = versions[-1] if versions else shutil.which("initdb")
    if found is None:
        raise StackRefused("there is no PostgreSQL server: install the system's package (`apt-get install postgresql`)")
    return Path(found).parent


def version() -> str:
    said = subprocess.run([binaries() / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[2]


def start(lab: Lab) -> tuple[Running, str]:
    """Start one in the lab's folder; returns when it answers, with the address of its database."""
    programs, data = binaries(), lab.folder / "postgres"
    data.mkdir()
    as_owner: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        owner = pwd.getpwnam("postgres")
        lab.folder.chmod(0o755)
        os.chown(data, owner.pw_uid, owner.pw_gid)
        as_owner = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    make = [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "--no-sync"]
    subprocess.run([*as_owner, *make], check=True, cwd="/", capture_output=True)
    options = [part for option in (*OPTIONS, f"unix_socket_directories={data}") for part in ("-c", option)]
    server = lab.run("postgres", [*as_owner, str(programs / "postgres"), "-D", str(data), *options], with_children=True)
    deadline = time.monotonic() + READY_SECONDS
    asking = [str(programs / "pg_isready"), "-q", "-h", str(data), "-U", "postgres"]
    while subprocess.run(asking, check=False).returncode:
        if server.child.exit_code is not None or time.monotonic() > deadline:
            raise StackRefused(f"PostgreSQL does not answer:\n{server.child.log_tail()}")
        time.sleep(0.1)
    return server, f"host={data} user=postgres dbname=postgres"
