"""Text to cascade: parse, check, lower.

    cascades = load_cascades(Source("alibi.attn", text))

`load_cascades` raises `DiagnosticError` when a program is refused; `check` returns findings (warnings too) instead.
"""

from __future__ import annotations

import keyword
from dataclasses import dataclass

from attndsl.analysis.dropped import dropped
from attndsl.analysis.stabilise import stabilised
from attndsl.analysis.triples import POSITIONS, triples
from attndsl.cascade.logs import logs_of_weights
from attndsl.cascade.nodes import Cascade
from attndsl.diagnostics import Diagnostic, DiagnosticError, Severity
from attndsl.frontend import ast
from attndsl.frontend.expand import collect_defs
from attndsl.frontend.formatter import format_source
from attndsl.frontend.lower import lower_attention
from attndsl.frontend.parser import parse
from attndsl.frontend.printer import print_ast
from attndsl.frontend.reading import decode, read_source
from attndsl.frontend.report import Report
from attndsl.source import Source, Span


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The cascades of a program, and all findings; no cascades if one of the findings is an error."""

    cascades: tuple[Cascade, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def ok(self) -> bool:
        return not any(d.severity is Severity.ERROR for d in self.diagnostics)


def check(source: Source) -> CheckResult:
    """Parse and check a whole program, without raising on a mistake in it."""
    try:
        return check_file(parse(source))
    except DiagnosticError as error:
        return CheckResult((), tuple(error.diagnostics))
    except RecursionError:
        return CheckResult((), (_too_deep(source),))


def check_file(file: ast.File) -> CheckResult:
    """Check and lower a syntax tree."""
    report = Report()
    defs = collect_defs(file, report)
    cascades: list[Cascade] = []
    seen: set[str] = set()
    for item in file.items:
        if not isinstance(item, ast.Attention):
            continue
        name = item.name.name
        if name in seen:
            report.error(
                "A0202", f"attention `{name}` is written twice", item.name.span, "the second one"
            )
        seen.add(name)
        if keyword.iskeyword(name):
            report.error(
                "A0201",
                f"`{name}` cannot name an attention",
                item.name.span,
                "it is a keyword of Python, where the compiled function will live",
            )
        cascade = lower_attention(item, defs, report)
        if cascade is not None:
            cascades.append(logs_of_weights(cascade))
    if not seen:
        report.error(
            "A0265",
            "the program holds no attention",
            file.span,
            "defs alone",
            "write `attention NAME(inputs) -> outputs { statements }`",
        )
    if not report.failed:
        for cascade in cascades:
            _warn_of_range(cascade, report)
            _warn_of_triples(cascade, report)
            _warn_of_dropped(cascade, report)
    return CheckResult(() if report.failed else tuple(cascades), tuple(report.sorted()))


def _warn_of_range(cascade: Cascade, report: Report) -> None:
    """Exponentials of scores that leave the range of float32, where no maximum may be put in."""
    for x in stabilised(cascade).left:
        report.warning(
            "A0301",
            f"`{x.text}` has no maximum, and cannot be given one",
            x.span,
            f"`{x.output}` would change with its scale",
            "it overflows in float32 at a score of 88; write `exp(S[i,j] - M[i])` with "
            "`M[i] = max[j](S[i,j])`, and scale by `exp(-M[i])` what stands beside it",
        )


def _warn_of_triples(cascade: Cascade, report: Report) -> None:
    """Sums that take as many steps as there are triples of positions."""
    for x in triples(cascade):
        i, j = x.pair
        report.warning(
            "A0302",
            f"`{x.tensor}` takes |{i}| * |{j}| * |{x.over}| steps",
            x.span,
            f"{x.operations * 1e-12:.2g} TFLOP for each point of the batch at {POSITIONS} positions of each",
            f"factors of `{i}` and `{x.over}`, times factors of `{x.over}` and `{j}`, would be a matrix product; "
            f"a short `{x.over}` (a feature) stands last in its inputs",
        )


def _warn_of_dropped(cascade: Cascade, report: Report) -> None:
    """Sums that are 0 where what they read is undefined, and so are defined there."""
    for x in dropped(cascade):
        report.warning(
            "A0267",
            f"`{x.tensor}` is defined where `{x.read}` is not",
            x.span,
            f"`{x.read}` is defined where `{x.condition}`, and a sum over nothing is 0",
            f"give `{x.tensor}` the condition too: `where {x.condition}`",
        )


def load_cascades(source: Source) -> tuple[Cascade, ...]:
    """The cascades of a program, in order.

    Raises: DiagnosticError if the program is refused.
    """
    result = check(source)
    if not result.ok:
        raise DiagnosticError(result.diagnostics)
    return result.cascades


def _too_deep(source: Source) -> Diagnostic:
    return Diagnostic(
        "A0107",
        "the program is nested too deeply",
        Span(source, 0, 1),
        "somewhere in this text",
        "give parts of expressions names of their own (`T[i,j] = …`)",
    )


__all__ = [
    "CheckResult",
    "check",
    "check_file",
    "decode",
    "format_source",
    "load_cascades",
    "parse",
    "print_ast",
    "read_source",
]
