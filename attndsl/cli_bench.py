"""`attndsl bench`: a program beside its peers, in one run on the same inputs."""

from __future__ import annotations

import json
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
)

if TYPE_CHECKING:
    from attndsl.bench.run import Row

PEERS = ("flex", "sdpa", "fa4", "fla", "eager")


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


@click.command()
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
    out: Path | None,
    before: Path | None,
    as_json: bool,
) -> int:
    """Time FILE's kernels beside those of others, on the same random inputs.

    Outputs are compared with float64 on the same call. A peer's form of the program is derived from
    the program; a peer that cannot express it, or is not installed, is named with the reason.
    """
    from attndsl.bench.command import bench_file
    from attndsl.console import progress

    with progress(f"bench {file}") as report:
        rows = bench_file(
            file,
            name,
            against=against,
            extents=extents,
            lengths=lengths,
            dtype=dtype,
            backward=not no_backward,
            report=report,
        )
    written = _document(rows)
    if as_json:
        print_json(written)
    else:
        _print(rows)
    if out is not None:
        _write(out, rows, written)
    return _compared(before, written)


def _document(rows: list[Row]) -> dict[str, Any]:
    from attndsl.bench.record import machine

    return {"machine": machine(), "rows": [r.as_dict() for r in rows]}


def _write(out: Path, rows: list[Row], written: dict[str, Any]) -> None:
    from attndsl.bench.plot import can_plot, plot

    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{rows[0].program}.bench.json"
    path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
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


def _print(rows: list[Row]) -> None:
    from attndsl.console import table

    def figure(x: float | None, form: str) -> str:
        return "" if x is None else f"{x:{form}}"

    head = ("forward", "backward", "who", "shape", "ms", "backward ms", "TFLOP/s", "TB/s", "error")
    lines = []
    for r in rows:
        shape = " ".join(f"{k}={v}" for k, v in r.shape.items())
        if r.forward_ms is None:
            lines.append(("", "", r.who, shape, r.note, "", "", "", ""))
            continue
        lines.append(
            (
                f"{r.ratio:.2f}x" if r.ratio else "",
                f"{r.backward_ratio:.2f}x" if r.backward_ratio else "",
                r.who,
                shape,
                figure(r.forward_ms, ".4f"),
                figure(r.backward_ms, ".4f"),
                figure(r.tflops, ".0f"),
                figure(r.tb_s, ".2f"),
                figure(r.error, ".1e"),
            )
        )
    table(head, lines)
    for r in rows:
        if r.note and r.forward_ms is not None:
            click.echo(f"{r.who}: {r.note}", err=True)
