"""A comparison with each peer in a process of its own: one that hangs or dies takes nothing with it.

    for row in apart(Job(cascade, shapes), ("flex", "fla"), limit=180):
        row.ratio

All compile at once, each in its process. Who is ready is timed while the others are stopped, ours first, and goes on to
the next size; so a row is there as soon as it can be, and no times are of a machine that compiles. A peer whose dense
form may need all memory begins when the others are done.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from attndsl.bench import run
from attndsl.bench.run import OURS, Row, Timer, beside
from attndsl.cascade.nodes import Cascade
from attndsl.runtime.operator import CompiledAttention

LIMIT = 180.0
# What may need memory that others hold.
DENSE = ("eager",)
# Seconds after which kernels of a stopped process have ended.
SETTLE = 0.1
SECONDS_TO_LEAVE = 5.0
# What a process may take to load PyTorch, besides its limit.
LOADING = 120.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Job:
    """A comparison."""

    cascade: Cascade
    shapes: Sequence[Mapping[str, int]]
    dtype: str = "bf16"
    device: str = "cuda"
    backward: bool = True
    timer: Timer = run.milliseconds


Serve = Callable[[Connection, Job, str], None]
"""What a process does. It sends `(what, k, row)` of the size `k`: "ready", upon which it gets a folder and goes on when
it is its turn; "part", a row without its backward pass; and "row"."""


def serve(pipe: Connection, job: Job, who: str) -> None:
    """All sizes of one peer."""
    op = CompiledAttention(job.cascade)
    for k, shape in enumerate(job.shapes):
        row = Row(op.name, who, dict(shape), job.dtype)
        try:
            case = run.case_at(op, dict(shape), job.dtype, job.device)
            row = case.row(who)
            call = run.ready(who, case)
            run.warm(call, job.backward)
            if job.device == "cuda":
                torch.cuda.synchronize()
            pipe.send(("ready", k, row))
            exact = _exact(case, Path(pipe.recv()) / f"{k}.pt")

            def part(row: Row, k: int = k) -> None:
                pipe.send(("part", k, row))

            row = run.measured(who, case, call, exact, job.backward, job.timer, part)
        except Exception as error:
            row = replace(row, note=run.reason(error))
        pipe.send(("row", k, row))


def _exact(case: run.Case, path: Path) -> torch.Tensor:
    """The exact output; who is first computes it, and the others read it."""
    if not path.exists():
        torch.save(run.exact_of(case), path)
    out: torch.Tensor = torch.load(path, map_location=next(iter(case.setup.inputs.values())).device)
    return out


def apart(
    job: Job,
    against: Sequence[str],
    *,
    limit: float = LIMIT,
    report: Callable[[str], None] = lambda step: None,
    serve: Serve = serve,
) -> Generator[Row, None, None]:
    """A row for the program and each peer, at each size, as soon as it is known.

    Nobody may take longer than `limit` seconds for a size until it is ready, and then until it is measured. When the
    iterator is closed, or an exception goes through it, all processes end.

    Raises: RuntimeError if the program itself has no figures.
    """
    running = [_Child(w, job, limit, serve) for w in (OURS, *against) if w not in DENSE]
    later = [w for w in against if w in DENSE]
    mine: dict[int, Row] = {}
    with TemporaryDirectory(prefix="attndsl-bench-") as folder:
        try:
            while running or later:
                if not running:
                    running.append(_Child(later.pop(0), job, limit, serve))
                for k, row in _some(running, mine, folder, report):
                    if row.who == OURS:
                        if row.forward_ms is None:
                            raise RuntimeError(f"{row.program} was not measured: {row.note}")
                        mine[k] = row
                    yield beside(row, mine[k])
                running = [c for c in running if not c.done or c.found]
        finally:
            for c in running:
                c.end()


def _some(
    running: Sequence[_Child], mine: Mapping[int, Row], folder: str, report: Callable[[str], None]
) -> Iterator[tuple[int, Row]]:
    """What is known and can be compared with ours; or whose turn it is has its turn; or there is news to wait for."""
    known = [c for c in running if c.found and (c.who == OURS or c.found[0][0] in mine)]
    if known:
        yield known[0].found.pop(0)
        return
    due = [c for c in running if c.ready and (c.who == OURS or c.k in mine)]
    if due:
        others = [x for x in running if x is not due[0] and not x.done]
        for x in others:
            x.signal(signal.SIGSTOP)
        time.sleep(SETTLE)
        report(f"{due[0].who} {' '.join(f'{n}={v}' for n, v in due[0].row.shape.items())}")
        due[0].turn(folder)
        for x in others:
            x.signal(signal.SIGCONT)
        return
    waiting = [c for c in running if not c.ready and not c.done]
    begin = time.monotonic()
    wait([c.pipe for c in waiting], timeout=max(min(c.left for c in waiting), 0.0))
    for c in waiting:
        c.left -= time.monotonic() - begin
        while not c.done and not c.ready and c.pipe.poll():
            c.hear()
        if c.left <= 0 and not c.done and not c.ready:
            c.give_up("was not ready")


class _Child:
    """The process of one peer: what it waits for, and what it found."""

    def __init__(self, who: str, job: Job, limit: float, serve: Serve) -> None:
        context = multiprocessing.get_context("spawn")
        self.who, self.job, self.limit, self.left = who, job, limit, LOADING
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_begin, args=(serve, theirs, job, who))
        self.process.start()
        theirs.close()
        self.k = 0
        self.ready = self.done = False
        self.row = self._row(0)
        self.found: list[tuple[int, Row]] = []

    def turn(self, folder: str) -> None:
        """Let it measure the size that it is ready for."""
        k, end = self.k, time.monotonic() + self.limit
        self.ready = False
        with suppress(OSError):
            self.pipe.send(folder)
        while not self.done and self.k == k:
            if self.pipe.poll(max(end - time.monotonic(), 0.0)):
                self.hear()
            else:
                self.give_up("was not measured")

    def hear(self) -> None:
        """Take one message."""
        try:
            what, k, row = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            how = self.process.exitcode or 0
            if self.k < len(self.job.shapes):
                self._over(
                    f"its process died with {f'signal {-how}' if how < 0 else f'code {how}'}"
                )
            self.done = True
            return
        if what == "begun":
            self.left = self.limit
            return
        self.row = row
        if what == "ready":
            self.ready = True
        if what == "row":
            self._next(k, row)

    def give_up(self, what: str) -> None:
        """End a process that takes too long."""
        self._over(f"{what} within {self.limit:.0f} s")
        self.end()

    def end(self) -> None:
        """End the process, and those that it started."""
        self.done = True
        self.signal(signal.SIGKILL)
        self.process.join()

    def signal(self, number: int) -> None:
        """To the process and those that it started."""
        assert self.process.pid is not None
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:  # it has no group yet, or is gone
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def _row(self, k: int) -> Row:
        return Row(self.job.cascade.name, self.who, dict(self.job.shapes[k]), self.job.dtype)

    def _next(self, k: int, row: Row) -> None:
        self.found.append((k, row))
        self.k, self.left, self.ready = k + 1, self.limit, False
        if self.k == len(self.job.shapes):
            self.done = True
            self.process.join(SECONDS_TO_LEAVE)
            self.end()
        else:
            self.row = self._row(self.k)

    def _over(self, why: str) -> None:
        """Rows for this size and those that are left."""
        measured = self.row.forward_ms is not None and not self.row.note
        note = f"backward failed: {why}" if measured else f"failed: {why}"
        self.found.append((self.k, replace(self.row, note=note)))
        for k in range(self.k + 1, len(self.job.shapes)):
            self.found.append((k, replace(self._row(k), note="not tried: an earlier size failed")))
        self.k = len(self.job.shapes)
        self.ready = False


def _begin(serve: Serve, pipe: Connection, job: Job, who: str) -> None:
    """In the new process: in a session of its own, which ends with this one."""
    os.setsid()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    pipe.send(("begun", 0, None))
    serve(pipe, job, who)
    pipe.close()
