"""Cascades as text, close to the language that they came from."""

from __future__ import annotations

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Expr,
    Extent,
    Index,
    Local,
    Logic,
    Param,
    Position,
    Read,
    Reduce,
    Select,
    Solve,
    Unary,
)

# Python's ladder; a child is put into parentheses where it binds less tightly than its place asks for.
_SELECT, _OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _NEG, _POWER, _ATOM = range(10)
_LEVEL = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT, "%": _PRODUCT, "**": _POWER}


def print_expr(e: Expr) -> str:
    """The text of an expression, with no parenthesis more than precedence asks for."""
    return _text(e, _SELECT, frozenset())


def _number(value: float | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _text(e: Expr, floor: int, hidden: frozenset[str]) -> str:
    text, level = _print(e, hidden)
    return f"({text})" if level < floor else text


def _print(e: Expr, hidden: frozenset[str]) -> tuple[str, int]:
    def at(x: Expr, floor: int) -> str:
        return _text(x, floor, hidden)

    match e:
        case Const():
            negative = not isinstance(e.value, bool) and e.value < 0
            return _number(e.value), _NEG if negative else _ATOM
        case Param() | Index() | Position() | Local():
            return e.name, _ATOM
        case Extent():
            return f"|{e.rank}|", _ATOM
        case Read():
            subs = [s for s in e.subs if not (isinstance(s, Index) and s.name in hidden)]
            inner = ",".join(at(s, _SELECT) for s in subs)
            return (f"{e.tensor}[{inner}]" if subs else e.tensor), _ATOM
        case Unary(op="not"):
            return f"not {at(e.arg, _NOT)}", _NOT
        case Unary():
            return f"-{at(e.arg, _NEG)}", _NEG
        case Binary(op="**"):
            # the exponent may carry a sign of its own: 2**-x
            return f"{at(e.left, _ATOM)}**{at(e.right, _NEG)}", _POWER
        case Binary():
            level = _LEVEL[e.op]
            return f"{at(e.left, level)} {e.op} {at(e.right, level + 1)}", level
        case Compare():
            return f"{at(e.left, _SUM)} {e.op} {at(e.right, _SUM)}", _COMPARE
        case Logic():
            level = _AND if e.op == "and" else _OR
            return f" {e.op} ".join(at(a, level + 1) for a in e.args), level
        case Select():
            return f"{at(e.then, _OR)} if {at(e.cond, _OR)} else {at(e.other, _SELECT)}", _SELECT
        case Call():
            return f"{e.fn}({', '.join(at(a, _SELECT) for a in e.args)})", _ATOM
        case Reduce():
            where = f" : {at(e.where, _SELECT)}" if e.where is not None else ""
            return f"{e.op.value}[{','.join(e.indices)}{where}]({at(e.body, _SELECT)})", _ATOM
        case Solve():
            bounds = f"{at(e.lo, _SUM)} <= {e.var} <= {at(e.hi, _SUM)}"
            return f"solve[{e.var} : {bounds}]({at(e.equation, _SELECT)}, iters={e.iters})", _ATOM
