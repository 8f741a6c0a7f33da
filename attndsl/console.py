"""What the command line shows: progress on stderr while it works, tables on stdout at the end.

rich is imported on first use: `attndsl check` is finished before rich would be loaded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

Progress = Callable[[str], None]


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches the stream (a closed stream is nobody's)."""
    try:
        return stream.isatty()
    except ValueError:
        return False


@contextmanager
def progress(title: str, stream: TextIO | None = None) -> Iterator[Progress]:
    """Yield `report(step)`: each call closes the step before it and opens a new one.

    On a terminal, a spinner with the running step and its time, and a line for each finished step;
    elsewhere (a log, a pipe), one plain line as each step begins.
    """
    stream = sys.stderr if stream is None else stream
    if not is_terminal(stream):
        begin = time.monotonic()

        def plain(step: str) -> None:
            print(f"{title}: {step} [{time.monotonic() - begin:.1f} s]", file=stream, flush=True)

        yield plain
        return

    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=stream, highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        running: list[tuple[str, float]] = []

        def close() -> None:
            if running:
                step, since = running.pop()
                seconds = f"{time.monotonic() - since:6.2f} s"
                console.print("✓", f"{seconds}  {step}", markup=False)

        def report(step: str) -> None:
            close()
            running.append((step, time.monotonic()))
            bar.update(task, description=f"{title}: {step}")

        yield report
        # Only on success: a step that failed is not marked as done.
        close()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO | None = None) -> None:
    """Print rows in columns: ruled and coloured on a terminal, aligned plain text elsewhere."""
    stream = sys.stdout if stream is None else stream
    if is_terminal(stream):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        ruled = Table(*head, header_style="bold")
        for row in rows:
            ruled.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        Console(file=stream).print(ruled)
        return
    widths = [max(len(line[k]) for line in (head, *rows)) for k in range(len(head))]
    for line in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip(), file=stream)


_STYLES = {"ok": "green", "FAILED": "bold red"}
