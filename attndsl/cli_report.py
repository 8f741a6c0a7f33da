"""How the command line reports: diagnostics, refusals of names, and errors with their exit codes."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from attndsl.cli_parts import FAILED, INTERNAL, USAGE, print_json

if TYPE_CHECKING:
    from attndsl.diagnostics import Diagnostic


def show(diagnostics: Sequence[Diagnostic]) -> None:
    """Print diagnostics on stderr."""
    from attndsl.console import is_terminal
    from attndsl.diagnostics import render_all

    color = is_terminal(sys.stderr) and "NO_COLOR" not in os.environ
    if diagnostics:
        click.echo(render_all(diagnostics, color=color) + "\n", err=True, color=color)


def as_dict(diagnostic: Diagnostic) -> dict[str, Any]:
    """A diagnostic for programs: lines and columns count from 1, the end is exclusive."""
    span = diagnostic.span
    place = None
    if span is not None:
        line, column = span.source.line_col(span.start)
        end_line, end_column = span.source.line_col(span.end)
        place = {
            "file": span.source.name,
            "line": line,
            "column": column,
            "end_line": end_line,
            "end_column": end_column,
        }
    return {
        "code": diagnostic.code,
        "severity": str(diagnostic.severity),
        "title": diagnostic.title,
        "label": diagnostic.label,
        "help": diagnostic.help,
        "notes": list(diagnostic.notes),
        "place": place,
    }


MOST_NAMES = 12
"""More than these are not listed in a message."""


def require_known(name: str, names: Sequence[str], what: str) -> None:
    """Refuse a name that is not one of `names`."""
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1)
    shown = names if len(names) <= MOST_NAMES else (*names[: MOST_NAMES - 2], "…", names[-1])
    hint = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(shown)}"
    raise click.UsageError(f"no {what} `{name}`{hint}")


def report_error(error: Exception, args: Sequence[str]) -> int:
    """Print an error that a command raised; the exit code that belongs to it."""
    from attndsl.callerrors import CallError
    from attndsl.diagnostics import DiagnosticError

    if isinstance(error, DiagnosticError):
        show(error.diagnostics)
        if "--json" in args:
            print_json({"diagnostics": [as_dict(d) for d in error.diagnostics]})
        return FAILED
    if isinstance(error, CallError):
        click.echo(str(error), err=True)
        return FAILED
    if isinstance(error, OSError) and error.filename is not None:
        click.echo(f"error: {error.filename}: {error.strerror}", err=True)
        return USAGE
    import traceback

    traceback.print_exception(error)
    command = shlex.join(("attndsl", *args))
    click.echo(
        "\ninternal error: this is a fault of attndsl, not of your program\n"
        f"  reproduce: {command}\n"
        f"  versions:  {_versions()}\n"
        "  please report it with the text above and the file it was given",
        err=True,
    )
    return INTERNAL


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version
    from platform import python_version

    found = [f"python {python_version()}"]
    for package in ("attndsl", "torch", "triton"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)
