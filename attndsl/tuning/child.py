"""A process that works on one request at a time and may die or hang without harming its parent.

    with Child("attndsl.tuning.compiling") as child:
        answer = child.ask({"do": "compile", ...}, timeout=60.0)

Requests and answers are lines of JSON on the child's standard streams; while a request waits for something that it
shares with others, the child may say so, and its time does not count. A child that dies or is too slow is killed, and
the next request starts another, to which `opening` is said first. A child whose parent dies ends by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeAlias

Message: TypeAlias = dict[str, Any]
# What a child says whose request waits for its turn.
STILL: Message = {"still": True}


class ChildError(Exception):
    """A request that a child did not answer. `kind` is `died`, `hung` or `refused` (it raised, and lives)."""

    def __init__(self, kind: str, why: str) -> None:
        self.kind = kind
        self.why = why
        super().__init__(f"{kind}: {why}")


class Child:
    """A restartable process that runs `python -m module`.

    `opening` is asked of every new process before anything else; `start_timeout` bounds it, imports included.
    """

    def __init__(
        self,
        module: str,
        opening: Message | None = None,
        *,
        start_timeout: float = 180.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.module = module
        self.opening = opening
        self.start_timeout = start_timeout
        self.env = dict(env or {})
        self.opened: Message = {}
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None
        self._read = b""

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Message:
        """Start the process if there is none; its answer to `opening`.

        Raises: ChildError.
        """
        if self._process is not None and self._process.poll() is None:
            return self.opened
        self.close()
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(x for x in (package, os.environ.get("PYTHONPATH")) if x)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self.starts += 1
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path, **self.env},
            # Ctrl-C in a terminal is for the parent, which decides what is kept.
            start_new_session=True,
        )
        self._read = b""
        if self.opening is not None:
            self.opened = self._exchange(self.opening, self.start_timeout)
        return self.opened

    def reopen(self) -> Message:
        """The answer to an `opening` that may have changed since the process started.

        Raises: ChildError.
        """
        if self._process is None or self._process.poll() is not None:
            return self.start()
        assert self.opening is not None
        self.opened = self._exchange(self.opening, self.start_timeout)
        return self.opened

    def ask(self, message: Message, timeout: float) -> Message:
        """The answer to a request.

        Raises: ChildError if it raised, died, or did not answer in `timeout` seconds.
        """
        self.start()
        return self._exchange(message, timeout)

    def kill(self) -> None:
        """End the process while another thread may be waiting for it, which then sees it die."""
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process, however it is."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                # Its own children (assemblers) go with it.
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    # A request that a dead child never read is still in the pipe.
                    with contextlib.suppress(OSError):
                        stream.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _exchange(self, message: Message, timeout: float) -> Message:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            raise self._death() from None
        answer = self._next(process, timeout)
        while answer == STILL:
            answer = self._next(process, timeout)
        if "raised" in answer:
            raise ChildError("refused", answer["raised"])
        return answer

    def _next(self, process: subprocess.Popen[bytes], timeout: float) -> Message:
        """What the process says next."""
        assert process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._read:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, left))
            if not ready:
                self.close()
                raise ChildError("hung", f"no answer in {timeout:.0f} s")
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                raise self._death()
            self._read += part
        line, self._read = self._read.split(b"\n", 1)
        said: Message = json.loads(line)
        return said

    def _death(self) -> ChildError:
        """What is known about a process that has gone."""
        process = self._process
        assert process is not None
        try:
            code = process.wait(5)
        except subprocess.TimeoutExpired:
            code = None
        self._errors.seek(0)
        said = self._errors.read()[-2000:].decode(errors="replace").strip()
        self.close()
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        return ChildError("died", f"{how}; {said}" if said else how)


_answers: list[TextIO] = []
"""Where a child that serves writes its answers."""


def serve(handle: Callable[[Message], Message]) -> None:
    """The child's side: answer requests until there are no more. What `handle` prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    _answers[:] = [answers]
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    for line in sys.stdin:
        try:
            answer = handle(json.loads(line))
        except Exception as error:  # whatever a candidate does wrong is its parent's to judge
            last = "".join(traceback.format_exception_only(error)).strip()
            answer = {"raised": last[-2000:]}
            traceback.print_exc()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def still() -> None:
    """Tell the parent that a request waits for others, and that its time begins anew."""
    for answers in _answers:
        answers.write(json.dumps(STILL) + "\n")
        answers.flush()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
