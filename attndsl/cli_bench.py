"""`attndsl bench`: a program beside its peers, in one run on the same inputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attndsl.cli_parts import (
    DTYPES,
    FAILED,
    OK,
    extents_of,
    file_argument,
    json_option,
    name_option,
    print_json,
    seconds_of,
    terminable,
)

if TYPE_CHECKING:
    from attndsl.bench.run import Row

PEERS = ("flex", "sdpa", "fa4", "fla", "eager", "portable")


def peers_of(ctx: click.Context, param: click.Parameter, text: str) -> tuple[str, ...]:
    """`flex,sdpa` -> ("flex", "sdpa")."""
    names = tuple(dict.fromkeys(text.replace(",", " ").split()))
    for n in names:
        if n not in PEERS:
            raise click.BadParameter(f"`{n}` is none of {', '.join(PEERS)}", ctx, param)
    return names


def lengths_of(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...]:
    """`1024,4096` -> (1024, 4096)."""
    parts = (text or "").replace(",", " ").split()
    if not all(p.isdigit() and int(p) > 0 for p in parts):
        raise click.BadParameter(f"`{text}` is no list of lengths", ctx, param)
    return tuple(map(int, parts))


@click.command(short_help="Time the kernels beside other libraries.")
@file_argument
@name_option
@click.option(
    "--vs",
    "against",
    default="flex,sdpa",
    show_default=True,
    metavar="WHO,…",
    callback=peers_of,
    help=f"Peers: {', '.join(PEERS)}.",
)
@click.option(
    "--shape", "extents", metavar="i=N,j=N,…", callback=extents_of, help="Extents and parameters."
)
@click.option(
    "--lengths",
    metavar="N,N,…",
    callback=lengths_of,
    help="Of all sequences, one after another, instead of those in --shape.",
)
@click.option("--dtype", type=click.Choice(DTYPES), default="bf16", show_default=True)
@click.option("--no-backward", is_flag=True, help="Forward only.")
@click.option(
    "--limit",
    default="180s",
    show_default=True,
    metavar="TIME",
    callback=seconds_of,
    help="What a peer may take for a size: to compile, then to be measured.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write NAME.bench.json there, and NAME.bench.png if matplotlib is installed.",
)
@click.option(
    "--slower-than",
    "before",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Print what became slower than in such a JSON file, and fail if anything did.",
)
@json_option
def bench(
    file: Path,
    name: str | None,
    against: tuple[str, ...],
    extents: dict[str, int],
    lengths: tuple[int, ...],
    dtype: str,
    no_backward: bool,
    limit: float,
    out: Path | None,
    before: Path | None,
    as_json: bool,
) -> int:
    """Time FILE's kernels beside those of others, on the same random inputs.

    Outputs are compared with float64 on the same call. A peer's form of the program is derived from
    the program; a peer that cannot express it, or is not installed, is named with the reason.
    """
    from attndsl.bench.command import bench_file
    from attndsl.console import is_terminal, progress

    rows: list[Row] = []
    # A spinner takes stdout over; what is no terminal must get the rows and nothing else.
    lines = None if is_terminal(sys.stdout) else sys.stdout
    whole = True
    try:
        with terminable(), progress(f"bench {file}") as report:
            found = bench_file(
                file,
                name,
                against=against,
                extents=extents,
                lengths=lengths,
                dtype=dtype,
                backward=not no_backward,
                limit=limit,
                report=report,
            )
            with closing(found):
                for row in found:
                    if not (rows or as_json):
                        click.echo(line(HEAD), lines)
                    rows.append(row)
                    if not as_json:
                        click.echo(shown(row), lines)
                    if out is not None:
                        _write(out, rows)
    except KeyboardInterrupt:
        whole = False
        click.echo(f"stopped; {len(rows)} rows are known", err=True)
    written = _document(rows)
    if as_json:
        print_json(written)
    if out is not None and rows:
        _plotted(out, rows, written)
    compared = _compared(before, written) if whole else OK
    return compared if whole else FAILED


def _document(rows: list[Row]) -> dict[str, Any]:
    from attndsl.bench.record import machine

    return {"machine": machine(), "rows": [r.as_dict() for r in rows]}


def _path(out: Path, rows: list[Row]) -> Path:
    return out / f"{rows[0].program}.bench.json"


def _write(out: Path, rows: list[Row]) -> None:
    """The file as far as rows are known; whoever reads it finds a whole one."""
    out.mkdir(parents=True, exist_ok=True)
    path = _path(out, rows)
    partial = path.with_suffix(".tmp")
    text = json.dumps(_document(rows), indent=1, ensure_ascii=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _plotted(out: Path, rows: list[Row], written: dict[str, Any]) -> None:
    from attndsl.bench.plot import can_plot, plot

    path = _path(out, rows)
    click.echo(str(path), err=True)
    if can_plot():
        picture = path.with_suffix(".png")
        plot(rows, written["machine"]["card"], picture)
        click.echo(str(picture), err=True)
    else:
        click.echo("no plot: matplotlib is not installed (pip install 'attndsl[plot]')", err=True)


def _compared(before: Path | None, written: dict[str, Any]) -> int:
    if before is None:
        return OK
    from attndsl.bench.record import slower

    lines = slower(json.loads(before.read_text(encoding="utf-8")), written)
    for line in lines:
        click.echo(line, err=True)
    return FAILED if lines else OK


HEAD = ("forward", "backward", "who", "ms", "backward ms", "TFLOP/s", "TB/s", "error", "shape")
WIDTHS = (8, 8, 8, 9, 11, 7, 6, 8, 0)


def line(cells: Sequence[str]) -> str:
    """A row of the table; its columns are as wide as any, for the rows that follow are not known."""
    return "  ".join(f"{c:{w}}" if w else c for c, w in zip(cells, WIDTHS, strict=True)).rstrip()


def shown(row: Row) -> str:
    """A row, ratios first; where it has no figures, why."""

    def figure(x: float | None, form: str, unit: str = "") -> str:
        return "" if x is None else f"{x:{form}}{unit}"

    shape = " ".join(f"{k}={v}" for k, v in row.shape.items())
    cells = (
        figure(row.ratio, ".2f", "x"),
        figure(row.backward_ratio, ".2f", "x"),
        row.who,
        figure(row.forward_ms, ".4f"),
        figure(row.backward_ms, ".4f"),
        figure(row.tflops, ".0f"),
        figure(row.tb_s, ".2f"),
        figure(row.error, ".1e"),
        shape,
    )
    return line(cells) + (f"  ({row.note})" if row.note else "")
