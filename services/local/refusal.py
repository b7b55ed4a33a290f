"""Why the local stack did not start."""


class StackRefused(Exception):
    """The local stack cannot start. The message says what is missing and the cure, for the terminal."""
