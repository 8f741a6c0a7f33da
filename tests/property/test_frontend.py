"""Any text is a program or a diagnostic; any tree survives printing; formatting settles at once."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from attndsl.diagnostics import DiagnosticError, render
from attndsl.frontend import ast, check, decode, format_source, parse, print_ast
from attndsl.frontend.parser import parse_expr
from attndsl.frontend.printer import print_expr
from attndsl.source import Source

EXAMPLES = [
    p.read_text("utf-8") for p in sorted((Path(__file__).parents[2] / "examples").glob("*.attn"))
]
CASES = Path(__file__).parents[1] / "diagnostics"
BROKEN = [p.read_text("utf-8", errors="replace") for p in sorted(CASES.glob("*.attn"))]
WORDS = sorted({w for t in EXAMPLES + BROKEN for w in re.findall(r"\w+|[^\w\s]+|\n", t)})

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def examine(text: str) -> None:
    """Nothing but findings, each with a place inside the text that can be shown."""
    result = check(Source("fuzz.attn", text))
    for d in result.diagnostics:
        assert re.fullmatch(r"A0[12]\d\d", d.code)
        assert d.span is not None
        assert 0 <= d.span.start <= d.span.end <= len(text) + 1
        assert d.title in render(d)
    assert bool(result.cascades) == result.ok


@quick
@given(st.text())
@example("|")
@example("attention f(X[i]) -> O[i] { O[i] = ")
@example("attention f(X[i]) -> O[i] { O[i] = \ud800 }")
@example("\x00")
def test_any_text_is_examined(text: str) -> None:
    examine(text)


@quick
@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_words_are_examined(words: list[str]) -> None:
    examine(" ".join(words))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_program_is_examined(data: st.DataObject) -> None:
    """Examples with words left out, doubled, swapped and replaced."""
    text = data.draw(st.sampled_from(EXAMPLES))
    words = re.findall(r"\w+|[^\w\s]|\s+", re.sub(r"#[^\n]*", "", text))
    for _ in range(data.draw(st.integers(1, 4))):
        k = data.draw(st.integers(0, len(words) - 1))
        match data.draw(st.sampled_from(["drop", "double", "replace", "swap"])):
            case "drop":
                words[k] = ""
            case "double":
                words[k] *= 2
            case "replace":
                words[k] = data.draw(st.sampled_from(WORDS))
            case _:
                n = data.draw(st.integers(0, len(words) - 1))
                words[k], words[n] = words[n], words[k]
    damaged = "".join(words)
    examine(damaged)
    try:
        formatted = format_source(damaged)
    except DiagnosticError:
        return
    assert format_source(formatted) == formatted
    assert parse(Source("a", formatted)) == parse(Source("b", damaged))


@quick
@given(st.binary())
def test_any_bytes_are_text_or_a_diagnostic(data: bytes) -> None:
    try:
        source = decode(data, "fuzz.attn")
    except DiagnosticError as error:
        found = error
    else:
        assert "\r" not in source.text
        return
    assert found.codes == ["A0110"]
    assert render(found.diagnostics[0])


# --- trees ---------------------------------------------------------------------------------------

names = st.sampled_from(["Q", "K", "i", "j", "e", "w", "or_", "softmax"])
numbers = st.one_of(
    st.integers(0, 10**6).map(str),
    st.floats(0, 1e6, allow_nan=False).map(repr),
    st.sampled_from([".5", "2.", "1_000", "1e-6"]),
)
leaves = st.one_of(
    st.builds(ast.Name, names),
    st.builds(ast.Num, numbers),
    st.builds(ast.Bool, st.booleans()),
    st.builds(ast.ExtentOf, names),
)


def grown(inner: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    subs = st.lists(st.builds(ast.Sub, inner, st.none() | inner), min_size=1, max_size=2).map(tuple)
    args = st.lists(inner, max_size=2).map(tuple)
    keywords = st.lists(st.builds(ast.Keyword, names, inner), max_size=1).map(tuple)
    chain = st.integers(1, 3).flatmap(
        lambda n: st.builds(
            ast.Compare,
            st.tuples(*[inner] * (n + 1)),
            st.tuples(*[st.sampled_from(["<", "<=", ">", ">=", "==", "!="])] * n),
        )
    )
    return st.one_of(
        st.builds(ast.Ref, names, subs),
        st.builds(ast.Big, names, subs, args, keywords),
        st.builds(ast.Call, names, args, keywords),
        st.builds(ast.Unary, st.sampled_from(["-", "+", "not"]), inner),
        st.builds(ast.Binary, st.sampled_from(["+", "-", "*", "/", "//", "%", "**"]), inner, inner),
        st.builds(ast.BoolOp, st.sampled_from(["and", "or"]), inner, inner),
        chain,
        st.builds(ast.IfExp, inner, inner, inner),
        st.builds(ast.Paren, inner),
    )


exprs = st.recursive(leaves, grown, max_leaves=12)


def bare(e: ast.Expr) -> ast.Expr:
    """Without parentheses; sums and chains of `and` and `or` from left to right, for they print as one row."""
    if isinstance(e, ast.Paren):
        return bare(e.inner)
    e = ast.map_children(e, bare)
    if not isinstance(e, ast.BoolOp | ast.Binary) or e.op not in ("+", "-", "and", "or"):
        return e
    (_, row), *rest = operands(e, "+" if isinstance(e, ast.Binary) else e.op)
    for op, x in rest:
        row = type(e)(op, row, x)
    return row


def operands(e: ast.Expr, op: str) -> list[tuple[str, ast.Expr]]:
    """What a chain joins, each with the operator in front of it; minus turns those behind it."""
    if isinstance(e, ast.BoolOp) and e.op == op:
        return operands(e.left, op) + operands(e.right, op)
    if isinstance(e, ast.Binary) and e.op in ("+", "-") and op in ("+", "-"):
        behind = "+" if e.op == op else "-"
        return operands(e.left, op) + operands(e.right, behind)
    return [(op, e)]


@settings(max_examples=200, deadline=None)
@given(exprs)
def test_an_expression_survives_printing(e: ast.Expr) -> None:
    text = print_expr(e)
    again = parse_expr(Source("t", text), 0, len(text))
    # The printer adds the parentheses that precedence asks for, and no others are lost.
    assert bare(again) == bare(e)
    assert print_expr(again) == text


idents = st.builds(ast.Ident, names)
statements = st.one_of(
    st.builds(
        ast.Assign,
        idents,
        st.lists(st.builds(ast.Sub, st.builds(ast.Name, names)), max_size=2).map(tuple),
        exprs,
        st.lists(exprs, max_size=2).map(tuple),
        st.none() | exprs,
    ),
    st.builds(ast.Batch, st.lists(idents, min_size=1, max_size=2).map(tuple)),
    st.builds(
        ast.RankDecl,
        st.lists(st.builds(ast.Binding, idents, exprs), min_size=1, max_size=2).map(tuple),
    ),
    st.builds(ast.Assume, st.lists(exprs, min_size=1, max_size=2).map(tuple)),
)
declarations = st.builds(
    ast.Decl,
    idents,
    st.none() | st.lists(exprs, max_size=2).map(tuple),
    st.none() | idents,
    st.none() | exprs,
)
programs = st.builds(
    ast.File,
    st.lists(
        st.one_of(
            st.builds(ast.Function, idents, st.lists(idents, max_size=2).map(tuple), exprs),
            st.builds(
                ast.Attention,
                idents,
                st.lists(declarations, max_size=2).map(tuple),
                st.lists(declarations, min_size=1, max_size=2).map(tuple),
                st.lists(statements, max_size=3).map(tuple),
            ),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs)
def test_a_program_survives_printing_and_formatting(file: ast.File) -> None:
    text = print_ast(file)
    again = parse(Source("t", text))
    assert print_ast(again) == text
    formatted = format_source(text)
    assert parse(Source("t", formatted)) == again
    assert format_source(formatted) == formatted
    examine(text)
