"""What processes use: CPU seconds and memory, by name. Several processes may share a name."""

from collections import defaultdict
from dataclasses import dataclass
from types import MappingProxyType

import psutil

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Used:
    """So far. `busy`: CPU seconds of the whole machine, all processes; `stolen`: what a hypervisor took of it."""

    cpu_seconds: MappingProxyType[str, float]
    memory_mb: MappingProxyType[str, float]
    busy: float
    stolen: float

    def since(self, before: "Used") -> dict[str, float]:
        """CPU seconds that each used after an earlier look."""
        return {name: round(so_far - before.cpu_seconds.get(name, 0.0), 3) for name, so_far in self.cpu_seconds.items()}


class Usage:
    """Looks at processes. One that has ended counts with what it had used when it was last looked at."""

    def __init__(self) -> None:
        self._processes: dict[str, list[psutil.Process]] = defaultdict(list)
        self._parents: set[tuple[str, int]] = set()
        self._cpu: dict[tuple[str, int], float] = {}

    def add(self, name: str, pid: int, *, with_children: bool = False) -> None:
        """Look at a process from now on. `with_children`: at all that it starts, too."""
        self._processes[name].append(psutil.Process(pid))
        if with_children:
            self._parents.add((name, pid))

    def _family(self, name: str, process: psutil.Process) -> list[psutil.Process]:
        if (name, process.pid) not in self._parents:
            return [process]
        try:
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return [process]

    def look(self) -> Used:
        memory: dict[str, float] = defaultdict(float)
        for name, processes in self._processes.items():
            for process in (each for parent in processes for each in self._family(name, parent)):
                try:
                    with process.oneshot():
                        spent, resident = process.cpu_times(), process.memory_info().rss
                        self._cpu[name, process.pid] = spent.user + spent.system
                except psutil.NoSuchProcess:
                    continue
                memory[name] += resident / MEGABYTE
        cpu: dict[str, float] = defaultdict(float)
        for (name, _), seconds in self._cpu.items():
            cpu[name] += seconds
        whole = psutil.cpu_times()
        stolen = getattr(whole, "steal", 0.0)
        idle = whole.idle + getattr(whole, "iowait", 0.0)
        busy = sum(whole[:8]) - idle - stolen  # Linux counts guests in the first eight already
        return Used(MappingProxyType(dict(cpu)), MappingProxyType(dict(memory)), busy, stolen)
