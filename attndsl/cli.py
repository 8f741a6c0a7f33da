"""The command line: `attndsl compile | check | fmt | explain | verify | tune | bench`.

Exit codes: 0 done, 1 the program has errors or did not verify, 2 the command line was wrong,
3 a fault of the compiler itself. Results go to stdout, progress and diagnostics to stderr.

The commands parse arguments and print; everything they do is in `attndsl.driver`. Its import, and
rich's, wait until a command runs, so that `attndsl --help` and `attndsl check` start fast.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attndsl.cli_bench import bench
from attndsl.cli_parts import (
    DTYPES,
    extents_of,
    file_argument,
    files_argument,
    json_option,
    name_option,
    print_json,
)
from attndsl.cli_tune import tune

if TYPE_CHECKING:
    from attndsl.diagnostics import Diagnostic

OK, FAILED, USAGE, INTERNAL = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; nothing but a fault of Python itself raises.

    >>> main(["check", "examples/alibi.attn"])  # doctest: +SKIP
    examples/alibi.attn: alibi
    0
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name or a text that stdout's encoding lacks is shown escaped, as stderr does.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(args, prog_name="attndsl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has gone; the interpreter must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:
        return _report(error, args)
    return code if isinstance(code, int) else OK


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="attndsl", message="%(prog)s %(version)s")
def cli() -> None:
    """Attention variants, written as cascades of Einsums, compiled to fused Triton kernels."""


class _CompileCommand(click.Command):
    """`--dump-ir` alone means every step; its value is given with `=`, never as the next word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"{a}=all" if a == "--dump-ir" else a for a in args])


def _targets(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for target in given:
        if not re.fullmatch(r"sm_[1-9]\d{1,2}a?", target):
            raise click.BadParameter(f"`{target}` is not of the form sm_90", ctx, param)
    return tuple(dict.fromkeys(given))


@cli.command("compile", cls=_CompileCommand)
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
    tuned: bool,
    dump: tuple[str, ...],
    stop_after: str | None,
    as_json: bool,
) -> int:
    """Compile FILE into a folder: a standalone kernel module, PTX, cubins, and a file of facts."""
    from attndsl import driver
    from attndsl.console import progress

    for step in (*dump, *(() if stop_after is None else (stop_after,))):
        _known(step, (*driver.STEPS, *(("all",) if step in dump else ())), "step")
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
                tuned=tuned,
            ),
            progress=report,
            dump=steps,
            on_dump=lambda step, text: click.echo(f"# --- {step} ---\n{text}\n", err=as_json),
            stop_after=stop_after,
        )
    _show(done.diagnostics)
    if as_json:
        print_json(
            {
                "files": [str(path) for path in done.files],
                "facts": done.facts,
                "seconds": done.timings,
                "diagnostics": [_as_dict(d) for d in done.diagnostics],
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


@cli.command()
@files_argument
@json_option
def check(files: tuple[Path, ...], as_json: bool) -> int:
    """Check each FILE: syntax, ranks, types and domains. Nothing is compiled."""
    from attndsl import driver

    results = [(file, driver.check_file(file)) for file in files]
    failed = False
    for file, result in results:
        bad = any(d.severity == "error" for d in result.diagnostics)
        failed |= bad
        if not as_json:
            _show(result.diagnostics)
            if not bad:
                click.echo(f"{file}: {', '.join(c.name for c in result.cascades)}")
    if as_json:
        print_json(
            [
                {
                    "file": str(file),
                    "attentions": [c.name for c in result.cascades],
                    "diagnostics": [_as_dict(d) for d in result.diagnostics],
                }
                for file, result in results
            ]
        )
    return FAILED if failed else OK


@cli.command()
@click.argument(
    "files",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    nargs=-1,
    required=True,
)
@click.option("--check", "check_only", is_flag=True, help="Write nothing; fail on a change.")
@click.option("--diff", is_flag=True, help="Write nothing; print what would change.")
def fmt(files: tuple[Path, ...], check_only: bool, diff: bool) -> int:
    """Rewrite each FILE in the standard layout (`-`: from stdin to stdout)."""
    from attndsl import driver
    from attndsl.diagnostics import DiagnosticError

    code = OK
    for file in files:
        stdin = str(file) == "-"
        label = "<stdin>" if stdin else str(file)
        data = sys.stdin.buffer.read() if stdin else file.read_bytes()
        try:
            old = driver.decode(data, label)
            new = driver.format_text(old, label)
        except DiagnosticError as error:
            # One broken file does not keep the others from being formatted.
            _show(error.diagnostics)
            code = FAILED
            continue
        if diff:
            lines = (old.splitlines(keepends=True), new.splitlines(keepends=True))
            names = (str(file), f"{file} (formatted)")
            click.echo("".join(difflib.unified_diff(*lines, *names)), nl=False)
        if check_only and new != old:
            click.echo(f"would reformat {file}", err=True)
            code = FAILED
        if diff or check_only:
            continue
        if stdin:
            click.echo(new, nl=False)
        elif new != old:
            _write(file, new)
            click.echo(f"reformatted {file}", err=True)
    return code


@cli.command()
@click.argument("what", metavar="FILE|CODE")
@name_option
@click.option("--backward", is_flag=True, help="The derived gradient cascade too.")
@click.option(
    "--gpu",
    type=click.Choice(("a100", "h100", "h200"), case_sensitive=False),
    help="The card that bounds are for; all of these without.",
)
@json_option
def explain(what: str, name: str | None, backward: bool, gpu: str | None, as_json: bool) -> int:
    """Tell what a program becomes, or what an error code means.

    For a program: its cascade with all sugar removed, the sweeps it needs, the running state and
    why it is legal, and the schedule chosen.
    """
    if re.fullmatch(r"[Aa]\d{4}", what) and not Path(what).exists():
        _explain_code(what.upper(), as_json)
        return OK
    if not Path(what).is_file():
        raise click.BadParameter(f"`{what}` is neither a file nor an error code such as A0203")
    from attndsl import driver
    from attndsl.diagnostics import DiagnosticError

    card = None if gpu is None else gpu.upper()
    if as_json:
        print_json(driver.explain_facts(Path(what), name, backward=backward, gpu=card))
        return OK
    try:
        click.echo(driver.explain(Path(what), name, backward=backward, gpu=card).rstrip("\n"))
    except DiagnosticError as refused:
        if any(code.startswith("A04") for code in refused.codes):
            click.echo(driver.outline(Path(what), name))
        raise
    return OK


def _explain_code(code: str, as_json: bool) -> None:
    from attndsl.errors import CODES

    _known(code, tuple(CODES), "error code")
    entry = CODES[code]
    if as_json:
        print_json({"code": code, "title": entry.title, "explanation": entry.explanation})
    else:
        click.echo(f"{code}: {entry.title}\n\n{entry.explanation.strip()}")


@cli.command()
@file_argument
@name_option
@click.option(
    "--dtype", "dtypes", type=click.Choice(DTYPES), multiple=True, help="Repeat for more."
)
@click.option(
    "--shape", "extents", metavar="i=N,j=N,…", callback=extents_of, help="Extents of the indices."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random inputs.")
@json_option
def verify(
    file: Path,
    name: str | None,
    dtypes: tuple[str, ...],
    extents: dict[str, int],
    seed: int,
    as_json: bool,
) -> int:
    """Run FILE's kernels, forward and backward, against the float64 reference.

    On a GPU if there is one, else in Triton's interpreter on the CPU.
    """
    from attndsl import driver
    from attndsl.console import progress, table

    with progress(f"verify {file}") as report:
        rows = driver.verify(
            file, name, dtypes=dtypes, extents=extents, seed=seed, progress=report
        ).rows
    failed = [row for row in rows if not row.ok]
    if as_json:
        fields = ("what", "by", "dtype", "shape", "direction", "error", "budget", "ok")
        print_json([{f: getattr(row, f) for f in fields} for row in rows])
        return FAILED if failed else OK
    table(
        ("tensor", "kernels", "dtype", "shape", "direction", "error", "budget", ""),
        [
            (
                row.what,
                row.by,
                row.dtype,
                str(row.shape),
                row.direction,
                f"{row.error:.2e}",
                f"{row.budget:.2e}",
                "ok" if row.ok else "FAILED",
            )
            for row in rows
        ],
    )
    click.echo(f"{len(rows) - len(failed)} of {len(rows)} within budget", err=True)
    return FAILED if failed else OK


cli.add_command(tune)
cli.add_command(bench)


# --- printing ------------------------------------------------------------------------------------


def _show(diagnostics: Sequence[Diagnostic]) -> None:
    from attndsl.console import is_terminal
    from attndsl.diagnostics import render_all

    color = is_terminal(sys.stderr) and "NO_COLOR" not in os.environ
    if diagnostics:
        click.echo(render_all(diagnostics, color=color) + "\n", err=True, color=color)


def _as_dict(diagnostic: Diagnostic) -> dict[str, Any]:
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


def _size(count: int) -> str:
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB"


def _known(name: str, names: Sequence[str], what: str) -> None:
    """Refuse a name that is not one of `names`."""
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(names)}"
    raise click.UsageError(f"no {what} `{name}`{hint}")


def _write(path: Path, text: str) -> None:
    """Replace a file's text in one step, so that an interrupted run leaves the old text whole."""
    path = path.resolve()
    mode = path.stat().st_mode
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _report(error: Exception, args: Sequence[str]) -> int:
    """Print an error that a command raised; the exit code that belongs to it."""
    from attndsl.callerrors import CallError
    from attndsl.diagnostics import DiagnosticError

    if isinstance(error, DiagnosticError):
        _show(error.diagnostics)
        if "--json" in args:
            print_json({"diagnostics": [_as_dict(d) for d in error.diagnostics]})
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
