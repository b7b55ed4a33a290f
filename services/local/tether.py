"""Starts a program that ends with its parent, even when the parent gets SIGKILL.

Run as a script, before the program: `python tether.py PARENT_PID PIPE_FD PROGRAM ARGUMENT…`; it replaces itself by the
program, so that the process id is the program's own. On Linux the kernel keeps the promise (PR_SET_PDEATHSIG);
elsewhere a small guard does, that sees the parent's end of a pipe close.

Imports nothing of ours: it runs without site-packages, so that it costs milliseconds.
"""

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 1.0


def _promise_by_kernel() -> None:
    # SIGKILL and not SIGTERM: what is left behind must end whatever it hangs on. Kafka and Valkey lose nothing by it,
    # their writes are with the kernel already.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _promise_by_guard(pipe: int) -> None:
    target = os.getpid()
    if os.fork() != 0:
        return
    while os.getppid() == target:
        readable, _, _ = select.select([pipe], [], [], GRACE_SECONDS)
        if readable:
            os.kill(target, signal.SIGTERM)
            time.sleep(GRACE_SECONDS)
            if os.getppid() == target:
                os.kill(target, signal.SIGKILL)
            break
    os._exit(0)


def main(parent: int, pipe: int, command: list[str]) -> None:
    """Take the promise, then become `command`. Exits at once where the parent has gone meanwhile."""
    if sys.platform == "linux":
        _promise_by_kernel()
        if os.getppid() != parent:  # it died between the fork and the promise; nobody would tell us any more
            sys.exit(1)
    else:
        _promise_by_guard(pipe)
    os.close(pipe)
    os.execvp(command[0], command)  # noqa: S606 - a shell in between would be the child instead


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
