"""`attndsl compile`: a program as a folder of kernels, machine code and facts."""

from __future__ import annotations

import re
from pathlib import Path

import click

from attndsl.cli_parts import DTYPES, OK, file_argument, json_option, name_option, print_json
from attndsl.cli_report import as_dict, require_known, show


class _CompileCommand(click.Command):
    """`--dump-ir` alone means every step; its value is given with `=`, never as the next word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"{a}=all" if a == "--dump-ir" else a for a in args])


def _targets(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for target in given:
        if not re.fullmatch(r"sm_[1-9]\d{1,2}a?", target):
            raise click.BadParameter(f"`{target}` is not of the form sm_90", ctx, param)
    return tuple(dict.fromkeys(given))


@click.command(
    "compile", cls=_CompileCommand, short_help="Write a folder with a standalone kernel module."
)
@file_argument
@name_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where to write the files.  [default: build/NAME]",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("sm_80", "sm_90"),
    show_default=True,
    metavar="sm_NN",
    callback=_targets,
    help="A GPU architecture to build PTX and cubin for; repeat for more.",
)
@click.option("--dtype", type=click.Choice(DTYPES), default="bf16", show_default=True)
@click.option(
    "--head-dim", type=click.IntRange(min=1), metavar="D", help="Query and key dim.  [default: 128]"
)
@click.option(
    "--value-dim", type=click.IntRange(min=1), metavar="D", help="Value dim.  [default: --head-dim]"
)
@click.option("--no-backward", is_flag=True, help="Leave out the gradient kernels.")
@click.option("--hopper", is_flag=True, help="Kernels whose warps specialise besides, for sm_90.")
@click.option("--added", is_flag=True, help="A backward pass besides that adds up in memory.")
@click.option(
    "--tuned", is_flag=True, help="NAME.kernels besides: as tuned, for `attndsl.install`."
)
@click.option(
    "--dump-ir",
    "dump",
    multiple=True,
    metavar="[=STEP]",
    help="Print what each step (or STEP) produced on stdout.",
)
@click.option("--stop-after", metavar="STEP", help="Stop when STEP is done.")
@json_option
def compile_(
    file: Path,
    name: str | None,
    out: Path | None,
    targets: tuple[str, ...],
    dtype: str,
    head_dim: int | None,
    value_dim: int | None,
    no_backward: bool,
    hopper: bool,
    added: bool,
    tuned: bool,
    dump: tuple[str, ...],
    stop_after: str | None,
    as_json: bool,
) -> int:
    """Compile FILE into a folder: a standalone kernel module, PTX, cubins, and a file of facts."""
    from attndsl import driver
    from attndsl.console import progress

    for step in (*dump, *(() if stop_after is None else (stop_after,))):
        require_known(step, (*driver.STEPS, *(("all",) if step in dump else ())), "step")
    steps = frozenset(driver.STEPS if "all" in dump else dump)
    # With --json, stdout is one JSON document; the dumps belong to the person watching stderr then.
    with progress(f"compile {file}") as report:
        done = driver.compile_file(
            file,
            name,
            out=Path("build", name or file.stem) if out is None else out,
            targets=targets,
            options=driver.CompileOptions(
                dtype=dtype,
                head_dim=head_dim,
                value_dim=value_dim,
                backward=not no_backward,
                hopper=hopper,
                added=added,
                tuned=tuned,
            ),
            progress=report,
            dump=steps,
            on_dump=lambda step, text: click.echo(f"# --- {step} ---\n{text}\n", err=as_json),
            stop_after=stop_after,
        )
    show(done.diagnostics)
    if as_json:
        print_json(
            {
                "files": [str(path) for path in done.files],
                "facts": done.facts,
                "seconds": done.timings,
                "diagnostics": [as_dict(d) for d in done.diagnostics],
            }
        )
        return OK
    for path in done.files:
        click.echo(f"{path}  {_size(path.stat().st_size)}")
    total = sum(done.timings.values())
    slowest = sorted(done.timings, key=done.timings.__getitem__, reverse=True)[:3]
    parts = ", ".join(f"{step} {done.timings[step]:.2f}" for step in slowest)
    click.echo(f"{total:.2f} s ({parts})", err=True)
    return OK


def _size(count: int) -> str:
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB"
