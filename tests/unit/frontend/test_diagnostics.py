"""Rendering: the excerpt, the carets, colours."""

from __future__ import annotations

from attndsl.diagnostics import (
    Diagnostic,
    DiagnosticError,
    Severity,
    did_you_mean,
    render,
    render_all,
)
from attndsl.source import Source, Span


def diagnostic(text: str, part: str, **more: object) -> Diagnostic:
    at = text.index(part)
    span = Span(Source("windowed.attn", text), at, at + len(part))
    return Diagnostic("A0203", "something is wrong", span, **more)  # type: ignore[arg-type]


def test_the_form_of_a_diagnostic() -> None:
    text = "attention f(…) {\n  batch b, h\n  S[i,j] = Q[i,e] * K[j,d]\n}"
    shown = render(diagnostic(text, "d]", label="here", help="write `e`", notes=("one", "two")))
    assert shown == (
        "error[A0203]: something is wrong\n"
        " --> windowed.attn:3:25\n"
        "  |\n"
        "3 |   S[i,j] = Q[i,e] * K[j,d]\n"
        "  |                         ^^ here\n"
        "  |\n"
        "  = note: one\n"
        "  = note: two\n"
        "  = help: write `e`"
    )


def caret_columns(shown: str) -> tuple[int, int]:
    """Where the carets begin, and how many there are, in the last line of the excerpt."""
    line = next(x for x in shown.split("\n") if set(x) & {"^"} and "|" in x)
    return line.index("^") - line.index("|") - 2, line.count("^")


def test_tabs_and_wide_characters_are_measured_as_a_terminal_shows_them() -> None:
    shown = render(diagnostic("\tx\t= 幅広 + 失敗\n", "失敗"))
    excerpt = shown.split("\n")[3].removeprefix("1 | ")
    assert excerpt == "    x   = 幅広 + 失敗"
    assert caret_columns(shown) == (len("    x   = ") + 4 + len(" + "), 4)
    assert caret_columns(render(diagnostic("e\u0301 = x", "x"))) == (4, 1)


def test_the_end_of_a_line_and_of_the_text_can_be_pointed_at() -> None:
    source = Source("t", "abc")
    shown = render(Diagnostic("A0101", "too early", Span(source, 3, 3)))
    assert caret_columns(shown) == (3, 1)


def test_a_span_over_several_lines_marks_the_first() -> None:
    assert caret_columns(render(diagnostic("a = (b\n + c)", "(b\n + c)"))) == (4, 2)


def test_control_characters_never_reach_the_terminal() -> None:
    shown = render(diagnostic("a \x1b[31m \u202e b", "b"))
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_a_very_long_line_is_cut_around_the_place() -> None:
    shown = render(diagnostic("x" * 5000 + "HERE" + "y" * 5000, "HERE"))
    assert max(map(len, shown.split("\n"))) < 200
    start, count = caret_columns(shown)
    excerpt = next(x for x in shown.split("\n") if "HERE" in x)
    assert excerpt.removeprefix("1 | ")[start : start + count] == "HERE"


def test_line_numbers_of_a_python_function() -> None:
    source = Source("f.py", "def f():\n    S = x\n", first_line=41)
    shown = render(Diagnostic("A0212", "unknown", Span(source, 17, 18)))
    assert "--> f.py:42:9" in shown
    assert "42 |     S = x" in shown


def test_without_a_place() -> None:
    shown = render(Diagnostic("A0114", "no text", label="a lambda", help="write a def"))
    assert shown == "error[A0114]: no text\n = a lambda\n = help: write a def"


def test_colours_change_nothing_but_colours() -> None:
    import re

    d = diagnostic("a = b", "b", label="here", help="c", severity=Severity.WARNING)
    colourful = render(d, color=True)
    assert "\x1b[" in colourful
    assert re.sub(r"\x1b\[[\d;]*m", "", colourful) == render(d)
    assert render(d).startswith("warning[A0203]")


def test_an_error_shows_everything_it_holds() -> None:
    a, b = diagnostic("a = b", "a"), diagnostic("a = b", "b")
    error = DiagnosticError([a, b])
    assert str(error) == render_all([a, b]) == f"{render(a)}\n\n{render(b)}"
    assert error.codes == ["A0203", "A0203"]
    assert DiagnosticError(a).diagnostics == [a]


def test_did_you_mean() -> None:
    assert did_you_mean("softmx", ["softmax", "sum"]) == "did you mean `softmax`?"
    assert did_you_mean("q", ["Q", "K"]) == "did you mean `Q`?"
    assert did_you_mean("zebra", ["softmax", "sum"]) is None
