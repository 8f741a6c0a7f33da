"""What the commands of the command line share: arguments, options, exit codes, JSON."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

# Exit codes: done; the program has errors; the command line was wrong; a fault of the compiler.
OK, FAILED, USAGE, INTERNAL = 0, 1, 2, 3

DTYPES = ("fp16", "bf16", "fp32")

EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
file_argument = click.argument("file", type=EXISTING)
TEXT = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
texts_argument = click.argument("files", type=TEXT, nargs=-1, required=True)
name_option = click.option(
    "--name", metavar="N", help="The attention to take, if FILE has several."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on stdout, for programs."
)


def extents_of(ctx: click.Context, param: click.Parameter, text: str | None) -> dict[str, int]:
    """`i=100,j=256` -> {"i": 100, "j": 256}."""
    extents: dict[str, int] = {}
    for part in (text or "").replace(",", " ").split():
        found = re.fullmatch(r"([A-Za-z_]\w*)=([1-9]\d*)", part)
        if found is None:
            raise click.BadParameter(f"`{part}` is not of the form i=128", ctx, param)
        extents[found[1]] = int(found[2])
    return extents


def seconds_of(ctx: click.Context, param: click.Parameter, text: str) -> float:
    """`30s`, `2m`, `90` -> seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip())
    if found is None or float(found[1]) == 0:
        raise click.BadParameter(f"`{text}` is not a time such as 30s or 2m", ctx, param)
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def print_json(value: Any) -> None:
    """One document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


@contextmanager
def terminable() -> Iterator[None]:
    """A request to end is an interruption: what is known is kept."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
