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
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from attndsl.cli_bench import bench
from attndsl.cli_compile import compile_
from attndsl.cli_parts import (
    DTYPES,
    FAILED,
    INTERNAL,
    OK,
    USAGE,
    extents_of,
    file_argument,
    json_option,
    name_option,
    print_json,
    texts_argument,
)
from attndsl.cli_report import as_dict, report_error, require_known, show
from attndsl.cli_tune import tune

__all__ = ["FAILED", "INTERNAL", "OK", "USAGE", "cli", "main"]


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
        return report_error(error, args)
    return code if isinstance(code, int) else OK


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="attndsl", message="%(prog)s %(version)s")
def cli() -> None:
    """Attention variants, written as cascades of Einsums, compiled to fused Triton kernels."""


@cli.command(short_help="Check syntax, ranks, types and domains.")
@texts_argument
@json_option
def check(files: tuple[Path, ...], as_json: bool) -> int:
    """Check each FILE (`-`: stdin): syntax, ranks, types and domains. Nothing is compiled."""
    from attndsl import driver

    results = [(file, driver.check_file(file)) for file in files]
    failed = False
    for file, result in results:
        bad = any(d.severity == "error" for d in result.diagnostics)
        failed |= bad
        if not as_json:
            show(result.diagnostics)
            if not bad:
                label = "<stdin>" if str(file) == "-" else file
                click.echo(f"{label}: {', '.join(c.name for c in result.cascades)}")
    if as_json:
        print_json(
            [
                {
                    "file": str(file),
                    "attentions": [c.name for c in result.cascades],
                    "diagnostics": [as_dict(d) for d in result.diagnostics],
                }
                for file, result in results
            ]
        )
    return FAILED if failed else OK


@cli.command(short_help="Rewrite files in the standard layout.")
@texts_argument
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
            show(error.diagnostics)
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


@cli.command(short_help="Tell what a program becomes, or what a code means.")
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
    """Tell what a program becomes (FILE, or `-`: stdin), or what an error code means.

    For a program: its cascade with all sugar removed, the sweeps it needs, the running state and
    why it is legal, and the schedule chosen.
    """
    if re.fullmatch(r"[Aa]\d{4}", what) and not Path(what).exists():
        _explain_code(what.upper(), as_json)
        return OK
    if what != "-" and not Path(what).is_file():
        raise click.BadParameter(f"`{what}` is neither a file nor an error code such as A0203")
    from attndsl import driver
    from attndsl.diagnostics import DiagnosticError
    from attndsl.frontend.reading import read_stdin

    program = read_stdin() if what == "-" else Path(what)
    card = None if gpu is None else gpu.upper()
    if as_json:
        print_json(driver.explain_facts(program, name, backward=backward, gpu=card))
        return OK
    try:
        click.echo(driver.explain(program, name, backward=backward, gpu=card).rstrip("\n"))
    except DiagnosticError as refused:
        if any(code.startswith("A04") for code in refused.codes):
            click.echo(driver.outline(program, name))
        raise
    return OK


def _explain_code(code: str, as_json: bool) -> None:
    from attndsl.errors import CODES

    require_known(code, tuple(CODES), "error code")
    entry = CODES[code]
    if as_json:
        print_json({"code": code, "title": entry.title, "explanation": entry.explanation})
    else:
        click.echo(f"{code}: {entry.title}\n\n{entry.explanation.strip()}")


@cli.command(short_help="Compare the kernels with float64.")
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


cli.add_command(compile_)
cli.add_command(tune)
cli.add_command(bench)


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
