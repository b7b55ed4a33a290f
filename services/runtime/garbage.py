"""Python's collector of cycles, told that there are next to none here."""

import gc


def collect_seldom() -> None:
    """States, rows and records are trees: counting references frees them. Looking through all of them for cycles, as
    Python does every few hundred new objects, took a third of a worker's time, and a fifth of an API's long list.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
