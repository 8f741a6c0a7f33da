"""Trees of expressions: precedence, positions, limits."""

from __future__ import annotations

import pytest

from attndsl.diagnostics import DiagnosticError
from attndsl.frontend import ast
from attndsl.frontend.constants import constant
from attndsl.frontend.parser import MAX_DEPTH, parse, parse_expr
from attndsl.frontend.printer import print_expr
from attndsl.source import Source


def expr(text: str) -> ast.Expr:
    return parse_expr(Source("t", text), 0, len(text))


def nested(e: ast.Expr) -> str:
    """Every operator in parentheses: what binds what."""
    match e:
        case ast.Binary() | ast.BoolOp():
            return f"({nested(e.left)} {e.op} {nested(e.right)})"
        case ast.Unary():
            return f"({e.op} {nested(e.arg)})"
        case ast.Compare():
            parts = [nested(e.operands[0])]
            for op, x in zip(e.ops, e.operands[1:], strict=True):
                parts += [op, nested(x)]
            return f"({' '.join(parts)})"
        case ast.IfExp():
            return f"({nested(e.then)} if {nested(e.cond)} else {nested(e.other)})"
        case ast.Paren():
            return nested(e.inner)
        case _:
            return print_expr(e)


@pytest.mark.parametrize(
    ("text", "grouped"),
    [
        ("a - b - c", "((a - b) - c)"),
        ("a / b * c", "((a / b) * c)"),
        ("a + b * c", "(a + (b * c))"),
        ("-a * b", "((- a) * b)"),
        ("-a**2", "(- (a ** 2))"),
        ("2**-a", "(2 ** (- a))"),
        ("a**b**c", "(a ** (b ** c))"),
        ("a // b % c", "((a // b) % c)"),
        ("a < b <= c", "(a < b <= c)"),
        ("not a == b", "(not (a == b))"),
        ("a or b and not c", "(a or (b and (not c)))"),
        ("a if b else c if d else e", "(a if b else (c if d else e))"),
        ("a + 1 if b or c else d", "((a + 1) if (b or c) else d)"),
        ("a - w < b + 1", "((a - w) < (b + 1))"),
    ],
)
def test_precedence_is_python_s(text: str, grouped: str) -> None:
    assert nested(expr(text)) == grouped
    # Python agrees, as far as its own tree can say.
    import ast as py

    assert py.dump(py.parse(text)) == py.dump(
        py.parse(grouped.replace("(- ", "(-").replace("(not ", "(not "))
    )


def test_a_reduction_and_the_function_of_the_same_name() -> None:
    assert expr("max[j](S[i,j])") == ast.Big(
        "max",
        (ast.Sub(ast.Name("j")),),
        (ast.Ref("S", (ast.Sub(ast.Name("i")), ast.Sub(ast.Name("j")))),),
    )
    assert expr("max(a, b)") == ast.Call("max", (ast.Name("a"), ast.Name("b")))


def test_solve_takes_its_bounds_and_iters() -> None:
    e = expr("solve[x : 0 <= x <= 1](x * x == 2, iters=12)")
    assert isinstance(e, ast.Big)
    assert e.keywords == (ast.Keyword("iters", ast.Num("12")),)
    assert isinstance(e.subs[0].filter, ast.Compare)


@pytest.mark.parametrize(
    ("text", "value"), [("4_096", 4096), ("1e-6", 1e-6), (".5", 0.5), ("2.", 2.0), ("007", 7)]
)
def test_numbers(text: str, value: float) -> None:
    number = expr(text)
    assert isinstance(number, ast.Num)
    assert number.value == value
    assert type(number.value) is type(value)


def test_every_node_knows_its_text() -> None:
    text = "S[i,j] = Q[i,e] * (K[j,e] + 1)   where j <= i"
    program = f"attention f(Q[i,e], K[j,e]) -> S[i,j] {{ {text} }}"
    (item,) = parse(Source("t", program)).items
    assert isinstance(item, ast.Attention)
    (stmt,) = item.body
    assert isinstance(stmt, ast.Assign)

    def cut(node: ast.Node) -> str:
        assert node.span is not None
        return program[node.span.start : node.span.end]

    assert cut(stmt) == text
    assert cut(stmt.expr) == "Q[i,e] * (K[j,e] + 1)"
    assert [cut(e) for e in ast.walk(stmt.expr) if isinstance(e, ast.Paren)] == ["(K[j,e] + 1)"]
    assert cut(stmt.where[0]) == "j <= i"
    assert cut(item.inputs[1]) == "K[j,e]"
    assert cut(item.name) == "f"


@pytest.mark.parametrize(
    "deep",
    [
        "(" * 5000 + "1" + ")" * 5000,
        "-" * 5000 + "1",
        "1" + "**1" * 5000,
        "f(" * 5000 + "1" + ")" * 5000,
        "not " * 5000 + "a",
        "1 if a else " * 5000 + "1",
        "X[" * 5000 + "0" + "]" * 5000,
    ],
)
def test_any_depth_is_refused_not_overflowed(deep: str) -> None:
    with pytest.raises(DiagnosticError) as error:
        expr(deep)
    assert error.value.codes == ["A0107"]


@pytest.mark.parametrize("count", [17, 100, 400, 5000])
@pytest.mark.parametrize("ops", [["+"], ["-"], ["+", "-", "-"], ["or"], ["and"]])
def test_a_long_chain_is_no_nesting(count: int, ops: list[str]) -> None:
    terms = [str(k) if ops[0] in ("+", "-") else f"X[{k}] > 0" for k in range(count)]
    signs = [ops[k % len(ops)] for k in range(count - 1)]
    text = terms[0] + "".join(f" {op} {x}" for op, x in zip(signs, terms[1:], strict=True))
    e = expr(text)
    assert print_expr(e) == text
    if ops[0] in ("+", "-"):
        assert constant(e) == sum(-k if s == "-" else k for k, s in enumerate(["+", *signs]))


def test_a_program_of_the_greatest_depth_is_lowered(load) -> None:  # type: ignore[no-untyped-def]
    deep = MAX_DEPTH - 2
    load(f"attention f(X[i]) -> O[i] {{ O[i] = {'(' * deep}X[i]{')' * deep} }}")
    load(f"attention f(X[i]) -> O[i] {{ O[i] = X[i]{' + X[i]' * deep} }}")
    load(f"attention f(X[i]) -> O[i] {{ O[i] = {'exp(' * deep}X[i]{')' * deep} }}")
