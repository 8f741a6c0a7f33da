"""Conditions as parts: conjunctions, disjunctions and negations; None is always true."""

from __future__ import annotations

from collections.abc import Iterable

from attndsl.cascade.nodes import Compare, Const, Expr, Logic, Unary

_NEGATED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def conjuncts(e: Expr | None) -> tuple[Expr, ...]:
    """The parts of a conjunction; none for None."""
    match e:
        case None | Const(value=True):
            return ()
        case Logic(op="and"):
            return tuple(c for a in e.args for c in conjuncts(a))
        case _:
            return (e,)


def conjunction(parts: Iterable[Expr | None]) -> Expr | None:
    """All of the conditions, each once, without those that follow from another; None if there are none."""
    out = [*dict.fromkeys(c for part in parts for c in conjuncts(part))]
    out = [c for c in out if not _follows(c, out)]
    if not out:
        return None
    return out[0] if len(out) == 1 else Logic("and", tuple(out))


def _follows(c: Expr, given: list[Expr]) -> bool:
    """Whether one of its alternatives is among conditions that are given: `a and (b or a)` is `a`."""
    match c:
        case Logic(op="or"):
            return any({*conjuncts(a)} <= {*given} for a in c.args)
        case _:
            return False


def negation(e: Expr) -> Expr:
    """`not e`, pushed inwards."""
    match e:
        case Compare():
            return Compare(_NEGATED[e.op], e.left, e.right, span=e.span)
        case Logic():
            op = "or" if e.op == "and" else "and"
            return Logic(op, tuple(negation(a) for a in e.args), span=e.span)
        case Unary(op="not"):
            return e.arg
        case Const():
            return Const(not e.value, span=e.span)
        case _:
            return Unary("not", e, span=e.span)


def disjunction(a: Expr | None, b: Expr | None) -> Expr | None:
    """Either of two conditions, of which None is always true; None where one of them always holds."""
    if a is None or b is None or a == negation(b):
        return None
    return a if a == b else Logic("or", (a, b))
