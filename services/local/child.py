"""A child process: started so that it ends with us, its output in a file, stopped with patience and then without."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

TETHER = Path(__file__).with_name("tether.py")
TAIL_CHARACTERS = 2_000


@cache
def _spawner() -> ThreadPoolExecutor:
    """The one thread that starts children. The kernel ends a tethered child when the *thread* that started it ends,
    and this one lives as long as the process."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class Child:
    """One running child process. Not for use after `stop`.

    `name` is for messages; `log` receives its standard output and error, appended.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.log = name, log
        self._stopping = threading.Lock()
        # Raises OSError where the program does not exist.
        self._process, self._lifeline = _spawner().submit(self._start, list(command), environment).result()

    def _start(self, command: list[str], environment: Mapping[str, str] | None) -> tuple[subprocess.Popen[bytes], int]:
        theirs, ours = os.pipe()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), str(theirs), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(environment) if environment is not None else None,
                    pass_fds=(theirs,),
                    start_new_session=True,  # a Ctrl-C reaches the parent alone, which stops its children in order
                )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return process, ours

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); does not wait."""
        self._process.terminate()

    def stop(self, patience_seconds: float) -> None:
        """Ask it to end, wait, and kill it when the patience is over. Safe to call again."""
        with self._stopping:
            if self._process.poll() is None:
                self._process.terminate()
                try:
                    self._process.wait(patience_seconds)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1

    def log_tail(self) -> str:
        """The end of its output, for error messages."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARACTERS:].strip()
        except OSError:
            return ""
