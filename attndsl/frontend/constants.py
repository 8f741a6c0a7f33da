"""The values of expressions of literals."""

from __future__ import annotations

from attndsl.frontend import ast


def constant(e: ast.Expr) -> float | int | bool | None:
    """The value of an expression of literals, None where it holds anything else."""
    match e:
        case ast.Num():
            return e.value
        case ast.Bool():
            return e.value
        case ast.Paren():
            return constant(e.inner)
        case ast.Unary(op="-" | "+"):
            value = constant(e.arg)
            return None if value is None else -value if e.op == "-" else value
        case ast.Binary():
            a, b = constant(e.left), constant(e.right)
            if a is None or b is None:
                return None
            return _fold(e.op, a, b)
        case _:
            return None


def _fold(op: str, a: float | int, b: float | int) -> float | int | None:
    try:
        match op:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
            case "/":
                return a / b
            case "//":
                return a // b
            case "%":
                return a % b
            case "**" if abs(b) <= 64:
                power = a**b
                return power if isinstance(power, int | float) else None
    except (ZeroDivisionError, OverflowError):
        return None
    return None
