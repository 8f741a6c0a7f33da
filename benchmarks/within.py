"""A script that ends in time, with all that it started."""

from __future__ import annotations

import math
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

# Seconds that a script gets to end by itself.
GRACE = 5.0


def within(
    seconds: float, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> int | None:
    """The exit code of a command; None where it was ended because its seconds were over."""
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait(None if seconds == math.inf else seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE / 2)
