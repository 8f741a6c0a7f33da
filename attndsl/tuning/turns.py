"""Turns on a card: whatever a search runs there, it runs while no other search does.

    with turn():        # waits for its turn, and tells the parent so meanwhile
        ...

Processes share a card by slices of some milliseconds: a kernel that is timed while another process draws inputs, checks
a candidate or computes exact results is as much slower as the slices of the other, 4 or 8 ms in place of 1. So all
these are turns, not the timed launches alone, and nothing of a turn runs on after it.

Two locks make a queue of them. Who holds the card would have it again before anybody who waits looks for it; so who
waits holds `next`, without which nobody asks for the card.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import filelock
import torch

from attndsl.tuning.child import still

# Seconds between two looks at a lock, and between two words to the parent, whose patience begins anew.
LOOK, WORD = 0.005, 2.0
# No turn takes so many seconds: its parent would have ended the process before.
LONGEST = 240.0


@contextmanager
def turn() -> Iterator[None]:
    """Alone on the card among searches."""
    with ExitStack() as held:
        following, card = locks() or (None, None)
        if following is not None and card is not None:
            # Where no file can be locked (no room, another user's), what disturbs a time is still seen in it.
            with suppress(OSError):
                taken(following, held)
                taken(card, held, LONGEST)
                following.release()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                # A fault's error is for who runs in this turn, and has been told.
                with suppress(RuntimeError):
                    torch.cuda.synchronize()


def taken(lock: filelock.BaseFileLock, held: ExitStack, longest: float = float("inf")) -> None:
    """Take a lock until `held` ends.

    Raises: Taken if that takes longer than `longest` seconds.
    """
    begin = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=WORD, poll_interval=LOOK)
        except filelock.Timeout:
            waited = time.monotonic() - begin
            if waited > longest:
                raise Taken(lock.lock_file, waited) from None
            still()
        else:
            held.callback(lock.release)
            return


class Taken(RuntimeError):
    """A process has the card, and does not give it back."""

    def __init__(self, path: str, waited: float) -> None:
        super().__init__(f"another process has held the card ({path}) for {waited:.0f} s")


@cache
def locks() -> tuple[filelock.BaseFileLock, filelock.BaseFileLock] | None:
    """The locks of this process's card, `next` and the card itself; None without a card."""
    if not torch.cuda.is_available():
        return None
    card = getattr(torch.cuda.get_device_properties(0), "uuid", "0")
    folder = Path(tempfile.gettempdir())
    first, second = (folder / f"attndsl-{card}{end}.lock" for end in (".next", ""))
    return filelock.FileLock(first, mode=0o666), filelock.FileLock(second, mode=0o666)
