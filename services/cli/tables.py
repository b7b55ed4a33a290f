"""Tables on a terminal, and where there is none."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 200


def console() -> "Console":
    """Standard output; wide enough for a table's lines where nobody's terminal says how wide it is."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)
