"""`attndsl tune`: search for the fastest tiles of a program on this machine's GPU; carry what was found elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from attndsl.cli_parts import (
    DTYPES,
    EXISTING,
    FAILED,
    OK,
    extents_of,
    json_option,
    name_option,
    print_json,
    seconds_of,
    terminable,
)

if TYPE_CHECKING:
    from attndsl.tuning.database import Entry
    from attndsl.tuning.tune import Found


@click.command(short_help="Find the fastest tiles on this GPU.")
@click.argument("file", type=EXISTING, required=False)
@name_option
@click.option(
    "--budget",
    "seconds",
    default="30s",
    show_default=True,
    metavar="TIME",
    callback=seconds_of,
    help="How long to search.",
)
@click.option(
    "--shape", "extents", metavar="i=N,j=N,…", callback=extents_of, help="Extents and parameters."
)
@click.option("--dtype", type=click.Choice(DTYPES), default="bf16", show_default=True)
@click.option("--no-backward", is_flag=True, help="Leave out the gradient kernels.")
@click.option(
    "--hopper/--no-hopper",
    default=True,
    show_default=True,
    help="On Hopper, try kernels whose warps specialise too: calls run these where they are faster.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that compile.  [all cores]",
)
@click.option(
    "--project", is_flag=True, help="Keep the result in ./attndsl-tuning.jsonl, to be committed."
)
@click.option(
    "--export",
    "export",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write all entries that are known here to a file.",
)
@click.option(
    "--import", "taken", type=EXISTING, metavar="PATH", help="Take the entries of such a file."
)
@click.option(
    "--rejected", is_flag=True, help="List what was not tried, and the figure against it."
)
@json_option
def tune(
    file: Path | None,
    name: str | None,
    seconds: float,
    extents: dict[str, int],
    dtype: str,
    no_backward: bool,
    hopper: bool,
    workers: int | None,
    project: bool,
    export: Path | None,
    taken: Path | None,
    rejected: bool,
    as_json: bool,
) -> int:
    """Find the fastest tiles for FILE's kernels on this GPU, and keep them for every later call.

    Candidates are pruned by arithmetic, ordered by a model, compiled in parallel, and run in a process
    of their own; wrong results disqualify. Ctrl-C or SIGTERM ends the search and keeps what is known.
    """
    if file is None and export is None and taken is None:
        raise click.UsageError("there is nothing to do: give a FILE, --export or --import")
    if taken is not None:
        _import(taken)
    code = OK
    if file is not None:
        from attndsl.processors import processors
        from attndsl.tuning.child import ChildError
        from attndsl.tuning.command import tune_file
        from attndsl.tuning.show import live

        try:
            with terminable(), live(f"tune {file}", seconds) as report:
                found = tune_file(
                    file,
                    name,
                    extents=extents,
                    dtype=dtype,
                    seconds=seconds,
                    backward=not no_backward,
                    workers=workers or processors(),
                    report=report,
                    specialise=hopper,
                )
        except ChildError as error:
            raise click.ClickException(f"the process that measures ended: {error.why}") from None
        code = _keep(found, project)
        _print(found, rejected, as_json)
    if export is not None:
        _export(export)
    return code


def _keep(found: list[Found], project: bool) -> int:
    """Write what was found; where that is not possible, print it, so that nothing is lost."""
    from attndsl.tuning.database import DatabaseError, add
    from attndsl.tuning.store import PROJECT_FILE, store
    from attndsl.tuning.tune import entries

    new = entries(found)
    trouble = store().add(new)
    if project:
        try:
            add(Path(PROJECT_FILE), new)
        except (DatabaseError, OSError) as error:
            trouble = str(error)
    if trouble:
        click.echo(f"error: the result could not be stored: {trouble}", err=True)
        click.echo("the entries, for a file to `--import`:", err=True)
        for entry in new:
            click.echo(entry.line(), err=True)
    silent = [f for f in found if f.entry is None]
    for f in silent:
        click.echo(f"{f.kernel.name}: {_why_not(f)}", err=True)
    return FAILED if trouble or silent else OK


def _why_not(found: Found) -> str:
    """Why there is nothing to keep of a kernel."""
    first = found.outcome.first
    if first is None:
        return "what runs without tuning was not tried in the time there was"
    if found.outcome.best is None:
        return "nothing that ran was right in the time there was"
    return f"no time of what runs without tuning to compare with: {first.failure}"


def _print(found: list[Found], rejected: bool, as_json: bool) -> None:
    from attndsl.console import table

    if as_json:
        print_json([_as_dict(f, rejected) for f in found])
        return
    rows = []
    for f in found:
        if f.entry is None:
            continue
        gain = f.entry.default_ms / f.entry.ms if f.entry.default_ms else 0.0
        tried = f"{len(f.outcome.trials)} of {len(f.space.candidates)}"
        config = " ".join(f"{k}={v}" for k, v in f.entry.config.items())
        rows.append(
            (
                f.kernel.name,
                f"{f.entry.ms:.4f}",
                _percent(f.noise),
                f"{gain:.2f}",
                tried,
                str(len(f.space.rejected)),
                config,
            )
        )
    table(("kernel", "ms", "noise", "of default", "tried", "pruned", "configuration"), rows)
    if rejected:
        table(
            ("kernel", "not tried", "because"),
            [
                (f.kernel.name, " ".join(f"{k}={v}" for k, v in r.config.items()), r.why)
                for f in found
                for r in f.space.rejected
            ],
        )


def _percent(part: float) -> str:
    return f"{part:.1%}" if part < 1 else ""


def _as_dict(f: Found, rejected: bool) -> dict[str, object]:
    trials = [
        {
            "config": dict(t.config),
            "ms": t.ms if t.measured else None,
            "noise": t.measured.noise if t.measured and len(t.measured.times) > 2 else None,
            "failed": str(t.failure) if t.failure else None,
        }
        for t in f.outcome.trials
    ]
    out: dict[str, object] = {
        "kernel": f.kernel.name,
        "entry": None if f.entry is None else _entry(f.entry),
        "trials": trials,
    }
    if rejected:
        out["rejected"] = [{"config": dict(r.config), "why": r.why} for r in f.space.rejected]
    return out


def _entry(entry: Entry) -> object:
    import json

    return json.loads(entry.line())


def _import(path: Path) -> None:
    from attndsl.tuning.database import DatabaseError, add, read
    from attndsl.tuning.store import user_file

    try:
        found = read(path)
        if found.bad:
            raise DatabaseError(f"{path}: line `{found.bad[0][:60]}` is no entry")
        add(user_file(), found.entries.values())
    except (DatabaseError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{len(found.entries)} entries taken from {path}", err=True)


def _export(path: Path) -> None:
    from attndsl.tuning.database import DatabaseError, Key, add, merged
    from attndsl.tuning.store import store

    known: dict[Key, Entry] = {}
    for layer in reversed(store().tables()):
        known = merged(known, layer)
    try:
        add(path, known.values())
        Path(f"{path}.lock").unlink(missing_ok=True)  # nobody else writes there
    except (DatabaseError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{len(known)} entries in {path}", err=True)
