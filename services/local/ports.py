"""Ports of the local stack: the usual ones where they are free, and the same ones again after a restart."""

import json
import socket
from pathlib import Path

FILE = "ports.json"


def is_free(port: int) -> bool:
    """Whether a server could listen on the port on loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of a former server that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def any_free() -> int:
    """A port that is free now; another process may still be faster."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def choose(data_dir: Path, wishes: dict[str, int]) -> dict[str, int]:
    """A free port for each name: the one remembered in the data directory, else the wished one, else any.

    A wish of 0 is for any free port. The choice is remembered.
    """
    file = data_dir / FILE
    try:
        remembered: dict[str, int] = json.loads(file.read_text())
    except (OSError, ValueError):
        remembered = {}
    chosen: dict[str, int] = {}
    for name, wish in wishes.items():
        taken = set(chosen.values())
        candidates = [port for port in (remembered.get(name, 0), wish) if port and port not in taken and is_free(port)]
        port = candidates[0] if candidates else any_free()
        while port in taken:
            port = any_free()
        chosen[name] = port
    file.write_text(json.dumps(remembered | chosen))
    return chosen
