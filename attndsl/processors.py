"""How many processes this one may run beside each other."""

from __future__ import annotations

import os


def processors() -> int:
    """The processors that this process may use: of a machine with 64 a job may have 16."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
