"""The search as it goes: the best so far of every kernel; on a terminal in place, elsewhere a line for a new best."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from attndsl.console import is_terminal
from attndsl.tuning.search import Event, Outcome, Report


@contextmanager
def live(title: str, seconds: float, stream: TextIO | None = None) -> Iterator[Report]:
    """Yield what a search reports to."""
    stream = sys.stderr if stream is None else stream
    if not is_terminal(stream):
        yield _Lines(title, stream)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream, highlight=False)
    with Live(console=console, refresh_per_second=8, transient=True) as display:
        yield lambda event: display.update(_table(title, seconds, event))


class _Lines:
    """One line for each new best."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self.title = title
        self.stream = stream
        self.best: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        kernel = event.trial.kernel
        best = event.outcomes[kernel].best
        if best is None or best.ms >= self.best.get(kernel, float("inf")):
            return
        self.best[kernel] = best.ms
        print(
            f"{self.title}: {kernel} {best.ms:.4f} ms with {spelt(best.config)}"
            f" [{event.tried} of {event.of} tried, {event.seconds:.1f} s]",
            file=self.stream,
            flush=True,
        )


def spelt(config: Any) -> str:
    """A configuration in a line."""
    return " ".join(f"{k}={v}" for k, v in config.items())


def _table(title: str, seconds: float, event: Event) -> Any:
    from rich.table import Table

    out = Table(
        title=f"{title}: {event.seconds:.0f} of {seconds:.0f} s, {event.tried} of {event.of} tried",
        title_justify="left",
    )
    for head in ("kernel", "tried", "best, ms", "of default", "configuration"):
        out.add_column(head)
    for kernel, outcome in event.outcomes.items():
        out.add_row(kernel, str(len(outcome.trials)), *_best(outcome))
    return out


def _best(outcome: Outcome) -> tuple[str, str, str]:
    best, first = outcome.best, outcome.first
    if best is None:
        return "", "", ""
    gain = f"{first.ms / best.ms:.2f}" if first is not None and first.measured else ""
    return f"{best.ms:.4f}", gain, spelt(best.config)
