"""What a service's package gives its worker: the stages that it folds, and what it does by the clock."""

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

from schemas.programs import Programs
from services.runtime.settings import Settings
from services.runtime.stage import Stage

Timer = Callable[[], Awaitable[None]]


def stages_of(service: str, settings: Settings) -> tuple[Stage[Any, Any], ...]:
    """The stages of a service, from its package."""
    stages: tuple[Stage[Any, Any], ...] = importlib.import_module(f"services.{service}").stages(settings)
    return stages


def timers_of(service: str, settings: Settings, programs: Callable[[], Programs]) -> tuple[Timer, ...]:
    """What a service does by the clock, if anything: coroutine functions that run until they are cancelled."""
    offered = getattr(importlib.import_module(f"services.{service}"), "timers", None)
    timers: tuple[Timer, ...] = offered(settings, programs) if offered else ()
    return timers
