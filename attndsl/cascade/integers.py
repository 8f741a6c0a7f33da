"""Integer expressions of a call: exact, with `//` and `%` flooring, and refused where they have no value.

eval_int(|j| // w, {"|j|": 19, "w": 4})   ->   4
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from attndsl.callerrors import CallError
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    DType,
    Expr,
    Extent,
    Index,
    Logic,
    Param,
    Position,
    Select,
    Unary,
)
from attndsl.cascade.printer import print_expr
from attndsl.cascade.walk import children, walk

Number: TypeAlias = int | float | bool

# Kernels count in 64 bits.
_BITS = 63


def eval_int(e: Expr, env: Mapping[str, Number]) -> int:
    """The value of an integer expression; `env` holds parameters and positions by name, extents as `|r|`.

    Raises KeyError with the missing name, CallError A0508 for a division by zero, A0504 for a power
    that 64 bits do not hold.
    """
    match e:
        case Const():
            return int(e.value)
        case Param() | Position() | Index():
            return int(env[e.name])
        case Extent():
            return int(env[f"|{e.rank}|"])
        case Unary(op="-"):
            return -eval_int(e.arg, env)
        case Binary():
            a, b = eval_int(e.left, env), eval_int(e.right, env)
            match e.op:
                case "+":
                    return a + b
                case "-":
                    return a - b
                case "*":
                    return a * b
                case "//" | "%":
                    if b == 0:
                        raise CallError("A0508", f"`{print_expr(e)}` divides by zero")
                    return a // b if e.op == "//" else a % b
                case "**" if b >= 0:
                    # Asked before it is computed: the number may have more digits than memory.
                    if abs(a) > 1 and b * (abs(a).bit_length() - 1) > _BITS:
                        raise CallError("A0504", f"`{print_expr(e)}` needs more than 64 bits")
                    return int(a**b)
        case Select():
            return eval_int(e.then if eval_condition(e.cond, env) else e.other, env)
        case Call(fn="min" | "max" | "abs"):
            values = [eval_int(a, env) for a in e.args]
            return (
                min(values) if e.fn == "min" else max(values) if e.fn == "max" else abs(values[0])
            )
        case _:
            pass
    raise ValueError(f"`{print_expr(e)}` is not an integer expression of parameters and extents")


def eval_condition(e: Expr, env: Mapping[str, Number]) -> bool:
    """The value of a condition between integer expressions; raises as `eval_int` does."""
    match e:
        case Compare():
            a, b = eval_int(e.left, env), eval_int(e.right, env)
            return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "==": a == b, "!=": a != b}[
                e.op
            ]
        case Logic():
            values = (eval_condition(a, env) for a in e.args)
            return all(values) if e.op == "and" else any(values)
        case Unary(op="not"):
            return not eval_condition(e.arg, env)
        case _:
            return bool(eval_int(e, env))


def check_integers(
    cascade: Cascade, extents: Mapping[str, int], params: Mapping[str, Number]
) -> None:
    """Refuse divisors that parameters and extents make zero, and powers that they make too large.

    S[i,j] = … where i // w == j // w,  w = 0   ->   CallError A0508

    What a call leaves out is not looked at: the other branch of an `if` that it decides, what
    stands behind a decided `and` or `or`.
    """
    floats = {p.name for p in cascade.params if p.dtype is DType.FLOAT}
    env = {
        **{n: v for n, v in params.items() if n not in floats},
        **{f"|{r}|": n for r, n in extents.items()},
    }
    for d in cascade.body:
        for root in (d.expr, d.where, d.init):
            if root is None:
                continue
            for e in _taken(root, env):
                if isinstance(e, Binary) and e.op in ("//", "%", "**") and not _floats(e):
                    _check(cascade, e, env)


def _check(cascade: Cascade, e: Binary, env: Mapping[str, Number]) -> None:
    try:
        if e.op == "**":
            eval_int(e, env)
        elif eval_int(e.right, env) == 0:
            raise CallError(
                "A0508", f"`{print_expr(e)}` divides by zero", help="pass a divisor of at least 1"
            )
    except CallError as error:
        raise CallError(
            error.code,
            f"{cascade.name}: {error.title}",
            notes=_values(e, env),
            help=error.help,
        ) from None
    except (KeyError, ValueError):
        pass  # it depends on positions or on data


def _values(e: Expr, env: Mapping[str, Number]) -> tuple[str, ...]:
    """`w = 0`, for each parameter and extent in an expression."""
    found: dict[str, Number] = {}
    for n in walk(e):
        name = n.name if isinstance(n, Param) else f"|{n.rank}|" if isinstance(n, Extent) else None
        if name in env:
            found[str(name)] = env[str(name)]
    return (", ".join(f"{n} = {v}" for n, v in found.items()),) if found else ()


def _floats(e: Expr) -> bool:
    """Does a number that is no integer occur?"""
    return any(isinstance(n, Const) and isinstance(n.value, float) for n in walk(e))


def _taken(e: Expr, env: Mapping[str, Number]) -> Iterator[Expr]:
    """The parts of an expression that a call evaluates, as far as parameters and extents tell."""
    yield e
    match e:
        case Select():
            decided = _decide(e.cond, env)
            yield from _taken(e.cond, env)
            if decided is not False:
                yield from _taken(e.then, env)
            if decided is not True:
                yield from _taken(e.other, env)
        case Logic():
            for arg in e.args:
                yield from _taken(arg, env)
                if _decide(arg, env) is (e.op == "or"):
                    return
        case _:
            for child in children(e):
                yield from _taken(child, env)


def _decide(e: Expr, env: Mapping[str, Number]) -> bool | None:
    try:
        return eval_condition(e, env)
    except (KeyError, ValueError):  # a CallError is a ValueError: it is found where it stands
        return None
