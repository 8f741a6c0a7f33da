"""The compiler on one page: every step from a program's text to machine code, named, timed and dumpable.

    text    -parse->     syntax tree
            -cascade->   cascade           names checked, sugar removed, every sum written out, `start` explicit
            -gradient->  cascade           with what the backward pass needs; and the backward pass, a cascade too
            -tile->      plans             kernels, tile by tile, for each pass
            -kernel->    NAME.py           one readable Triton module
            -binary->    PTX and cubin     for each kernel and target; and NAME.json, the facts

Neither torch nor Triton is imported here: `check` starts fast, and machine code is made in processes of its own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attndsl.diagnostics import Diagnostic, DiagnosticError
from attndsl.frontend import CheckResult, ast, check, format_source, parse, print_ast
from attndsl.frontend import check_file as check_tree
from attndsl.frontend.reading import decode as decode_source
from attndsl.frontend.reading import read_source, read_stdin
from attndsl.source import Source

if TYPE_CHECKING:
    from attndsl.analysis.ranks import Kind
    from attndsl.cascade.autodiff import Gradient
    from attndsl.cascade.nodes import Cascade
    from attndsl.schedule.tile import Plan
    from attndsl.sizes import Sizes
    from attndsl.verification import VerifyReport

STEPS = ("parse", "cascade", "gradient", "tile", "kernel", "binary")

T = TypeVar("T")
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What machine code is made for: the inputs' dtype, the extents of query and key dims and of value dims."""

    dtype: str = "bf16"
    head_dim: int | None = None
    value_dim: int | None = None
    backward: bool = True
    hopper: bool = False
    """Whether kernels get a form for Hopper whose warps specialise, where they can have one."""
    added: bool = False
    """Whether there is a backward pass besides that computes scores once, where it can be had (`schedule/added.py`)."""
    tuned: bool = False
    """Whether a folder of kernels as the database has them is written besides, for `attndsl.install`."""


@dataclass(frozen=True, slots=True)
class Program:
    """One attention on its way: what the steps have found so far."""

    source: Source
    cascade: Cascade
    """As it was written, without sugar."""
    shifted: Cascade
    """With the position of the first query as a parameter, and with the maxima that exponentials lack.

    Without that parameter where the program walks chunks: positions count from the first of the call."""
    warnings: tuple[Diagnostic, ...] = ()
    inserted: tuple[tuple[str, str], ...] = ()
    """These maxima, each with its exponential."""
    gradient: Gradient | None = None
    forward: Plan | None = None
    backward: Plan | None = None
    split: Plan | None = None
    """The forward pass for few queries, where it has such a form."""
    kinds: dict[str, Kind] = field(default_factory=dict)
    """What ranks are for, as far as the schedule settled it."""

    @property
    def hash(self) -> str:
        """A name for the program's meaning: of its cascade, so that layout and comments do not count."""
        from attndsl.cascade.printer import print_cascade

        return hashlib.sha256(print_cascade(self.cascade).encode()).hexdigest()[:16]

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The passes that are scheduled."""
        return tuple(p for p in (self.forward, self.backward) if p is not None)

    def extents(self, known: Sizes) -> dict[str, int]:
        """Extents of the passes' own indices too."""
        from attndsl.cascade.bind import eval_int

        out = dict(known.extents)
        backward = self.gradient.backward.ranks if self.gradient is not None else ()
        for r in (*self.shifted.ranks, *backward):
            if r.name not in out:
                if r.iterates is not None:
                    out[r.name] = out[r.iterates]
                elif r.extent is not None:
                    env = {**known.params, **{f"|{k}|": n for k, n in out.items()}}
                    out[r.name] = eval_int(r.extent, env)
        return out


@dataclass(slots=True)
class CompileReport:
    """What a compilation left: files, facts about them, seconds by step, and warnings."""

    files: tuple[Path, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()


# --- the steps -----------------------------------------------------------------------------------


def lower(source: Source, tree: ast.File, name: str | None) -> Program:
    """One attention of a file as a cascade.

    Raises: DiagnosticError if any of them is refused, or there is none of this name.
    """
    from attndsl.analysis.numbered import numbered
    from attndsl.analysis.stabilise import stabilised
    from attndsl.cascade.rewritten import rewritten
    from attndsl.cascade.starts import apply_start
    from attndsl.frontend.picking import pick
    from attndsl.schedule import by_chunks

    result = check_tree(tree)
    if not result.ok:
        raise DiagnosticError(result.diagnostics)
    cascade = pick(result.cascades, name, source)
    ready = numbered(rewritten(cascade))
    shifted = stabilised(apply_start(ready))
    if len(shifted.cascade.params) > len(ready.params):  # positions of queries are shifted
        plain = stabilised(ready)
        if by_chunks(plain.cascade):  # what came before a call is its state, not more keys
            shifted = plain
    return Program(source, cascade, shifted.cascade, result.diagnostics, shifted.inserted)


def differentiate(program: Program) -> Program:
    """With the backward pass as a cascade."""
    from attndsl.cascade.autodiff import differentiate as gradient

    return replace(program, gradient=gradient(program.shifted))


def schedule(program: Program) -> Program:
    """With the kernels of each pass.

    Raises: DiagnosticError (A04xx) where no schedule is legal.
    """
    from attndsl.schedule import Refused, schedule
    from attndsl.schedule.refusals import diagnose

    g = program.gradient
    try:
        made = schedule(program.shifted, None if g is None else tuple(g.gradients), g)
        return replace(
            program,
            gradient=made.gradient,
            forward=made.forward,
            backward=made.backward,
            split=made.split,
            kinds=made.kinds,
        )
    except Refused as refused:
        found = diagnose(program.cascade, refused, None if g is None else program.shifted)
        raise DiagnosticError([*program.warnings, found]) from None


# --- a file, all the way -------------------------------------------------------------------------


def compile_file(
    path: Path,
    name: str | None = None,
    *,
    out: Path,
    targets: tuple[str, ...] = ("sm_80", "sm_90"),
    options: CompileOptions | None = None,
    progress: Progress = lambda step: None,
    dump: Collection[str] = (),
    on_dump: Callable[[str, str], None] = lambda step, text: None,
    stop_after: str | None = None,
) -> CompileReport:
    """Compile one attention of a file into the folder `out`.

        compile_file(Path("examples/alibi.attn"), out=Path("build/alibi")).files
        # alibi.py  alibi.sm_80.ptx  alibi.sm_80.cubin  …  alibi_merge.sm_90.cubin  alibi.json

    `dump` names steps whose result `on_dump(step, text)` gets as soon as they are done; `stop_after`
    names the last step to run.

    Raises: DiagnosticError if the program or its schedule is refused, CallError (A0510) where no
    tile fits a target, OSError if a file cannot be read or written.
    """
    from attndsl import output

    options = options or CompileOptions()
    report = CompileReport()
    step = Steps(report.timings, progress, dump, on_dump, stop_after)
    try:
        source = read_source(path)
        tree = step("parse", lambda: parse(source), print_ast)
        program = step("cascade", lambda: lower(source, tree, name), output.show_cascade)
        report.diagnostics = program.warnings
        if options.backward:
            program = step("gradient", lambda: differentiate(program), output.show_gradient)
        program = step("tile", lambda: schedule(program), output.show_plans)
        text = step("kernel", lambda: output.module_text(program, options), str)
        module = output.write_module(out, program, text)
        report.files = (module,)
        kernels = step(
            "binary",
            lambda: output.machine_code(module, program, targets, options),
            output.show_kernels,
        )
        files, report.facts = output.write_rest(module, program, targets, options, kernels)
        report.files += files
        if options.tuned:
            progress("prebuilt")
            report.files += (output.write_prebuilt(out, program, targets, options),)
    except Stopped:
        pass
    return report


class Stopped(Exception):
    """The step to stop after is done."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Runs steps: reports, times and dumps each, and stops where asked to."""

    timings: dict[str, float]
    progress: Progress
    dump: Collection[str]
    on_dump: Callable[[str, str], None]
    stop_after: str | None

    def __call__(self, name: str, work: Callable[[], T], show: Callable[[T], str]) -> T:
        if self.stop_after in self.timings:
            raise Stopped
        self.progress(name)
        begin = time.perf_counter()
        result = work()
        self.timings[name] = time.perf_counter() - begin
        if name in self.dump:
            self.on_dump(name, show(result).rstrip("\n"))
        return result


# --- what else the command line asks -------------------------------------------------------------


def check_file(path: Path) -> CheckResult:
    """All findings about a file, `-` being standard input; a mistake in it does not raise."""
    try:
        return check(read_stdin() if str(path) == "-" else read_source(path))
    except DiagnosticError as error:
        return CheckResult((), tuple(error.diagnostics))


def decode(data: bytes, name: str) -> str:
    """The text of a file's bytes.

    Raises: DiagnosticError (A0110) if they are not UTF-8.
    """
    return decode_source(data, name).text


def format_text(text: str, name: str = "<stdin>") -> str:
    """A program in the standard layout.

    Raises: DiagnosticError (A01xx) if it does not parse.
    """
    return format_source(Source(name, text))


def load(path: Path | Source, name: str | None = None, *, backward: bool = True) -> Program:
    """One attention of a file, or of a text, scheduled.

    Raises: DiagnosticError if the program or its schedule is refused, OSError if it cannot be read.
    """
    source = path if isinstance(path, Source) else read_source(path)
    program = lower(source, parse(source), name)
    return schedule(differentiate(program) if backward else program)


def explain(
    path: Path | Source, name: str | None = None, *, backward: bool = False, gpu: str | None = None
) -> str:
    """What a program becomes, to be read: its cascade, its sweeps and kernels and why, what they cost on a GPU."""
    from attndsl.explain import explanation

    return explanation(load(path, name, backward=backward), gpu)


def outline(path: Path | Source, name: str | None = None) -> str:
    """The cascade and the sweeps of a program, for which there may be no schedule."""
    from attndsl.explain import outline as text

    source = path if isinstance(path, Source) else read_source(path)
    return text(lower(source, parse(source), name))


def explain_facts(
    path: Path | Source, name: str | None = None, *, backward: bool = False, gpu: str | None = None
) -> dict[str, Any]:
    """The same for programs."""
    from attndsl.facts import program_facts

    return program_facts(load(path, name, backward=backward), gpu=gpu)


def verify(
    path: Path,
    name: str | None = None,
    *,
    dtypes: tuple[str, ...] = (),
    extents: dict[str, int] | None = None,
    seed: int = 0,
    progress: Progress = lambda step: None,
) -> VerifyReport:
    """Run a program's kernels, forward and backward, against the float64 reference.

    Raises: DiagnosticError if the program or its schedule is refused, CallError if `extents` do not fit it.
    """
    from attndsl.verification import verify as run

    return run(path, name, dtypes=dtypes, extents=extents or {}, seed=seed, progress=progress)
