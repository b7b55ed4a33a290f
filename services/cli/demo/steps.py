"""Progress on a terminal: a bar while a step runs, one line when it is done. Without a terminal, the lines alone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

WIDTH_WITHOUT_TERMINAL = 140


class Step:
    """A step under way. `said`: what its line says at the end, instead of its name."""

    def __init__(self, name: str, progress: Progress | None, total: int | None) -> None:
        self.said = name
        self._progress, self._total = progress, total
        self._task = progress.add_task(name, total=total) if progress else None

    def advance(self) -> None:
        """One more is done."""
        if self._progress and self._task is not None:
            self._progress.advance(self._task)

    def left(self, count: int) -> None:
        """So many are still to do; the most that were ever left is the whole."""
        if self._progress and self._task is not None:
            self._total = max(count, self._total or 0)
            self._progress.update(self._task, total=self._total, completed=self._total - count)


class Steps:
    """Runs steps one after the other and tells how long each took. `console`: where to."""

    def __init__(self, console: Console | None = None) -> None:
        probe = console or Console()
        self.console = probe if console or probe.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)
        self.began = time.monotonic()

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        """Do what the block does. `total`: how many parts it has, where that is known before."""
        began = time.monotonic()
        if self.console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            with Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True) as progress:
                step = Step(name, progress, total)
                yield step
        else:
            step = Step(name, None, total)
            yield step
        self.console.print(f"{time.monotonic() - began:6.1f} s  {step.said}", highlight=False)

    @property
    def seconds(self) -> float:
        """Since the first step began."""
        return time.monotonic() - self.began
