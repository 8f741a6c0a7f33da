"""Cascades as text, close to the language that they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Index,
    Leaf,
    Local,
    Logic,
    Param,
    Position,
    Read,
    Reduce,
    ScalarParam,
    Select,
    Solve,
    TensorDecl,
    Unary,
)
from attndsl.cascade.walk import free, rewrite
from attndsl.internal import InternalError

# Python's ladder; a child is put into parentheses where it binds less tightly than its place asks for.
_SELECT, _OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _NEG, _POWER, _ATOM = range(10)
_LEVEL = {
    "+": _SUM,
    "-": _SUM,
    "*": _PRODUCT,
    "/": _PRODUCT,
    "//": _PRODUCT,
    "%": _PRODUCT,
    "**": _POWER,
}


def print_expr(e: Expr) -> str:
    """The text of an expression, with no parenthesis more than precedence asks for."""
    return _Printer(frozenset(), {}).text(e, _SELECT)


def _number(value: float | int | bool) -> str:
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "1e999" if value > 0 else "-1e999"
    return repr(value)


@dataclass(frozen=True, slots=True)
class _Printer:
    """Prints expressions; `plain[tensor]` holds the subscripts that are left out where a tensor is read at them."""

    batch: frozenset[str]
    plain: Mapping[str, Mapping[int, Expr]]

    def text(self, e: Expr, floor: int) -> str:
        text, level = self._print(e)
        return f"({text})" if level < floor else text

    def conditions(self, e: Expr) -> str:
        """The parts of a conjunction, separated by commas."""
        parts = e.args if isinstance(e, Logic) and e.op == "and" else (e,)
        return ", ".join(self.text(p, _SELECT) for p in parts)

    def _hidden(self, e: Read) -> frozenset[int]:
        """All of the batch axes, or none: a tensor is read with all of them left out, or with none."""
        plain = self.plain.get(e.tensor, {})
        return frozenset(plain) if all(e.subs[k] == s for k, s in plain.items()) else frozenset()

    def _print(self, e: Expr) -> tuple[str, int]:
        text = self.text
        match e:
            case Const():
                negative = not isinstance(e.value, bool) and e.value < 0
                return _number(e.value), _NEG if negative else _ATOM
            case Param() | Index() | Position() | Local():
                return e.name, _ATOM
            case Extent():
                return f"|{e.rank}|", _ATOM
            case Read():
                hidden = self._hidden(e)
                subs = [text(s, _SELECT) for k, s in enumerate(e.subs) if k not in hidden]
                return f"{e.tensor}[{','.join(subs)}]" if subs else e.tensor, _ATOM
            case Unary(op="not"):
                return f"not {text(e.arg, _NOT)}", _NOT
            case Unary():
                return f"-{text(e.arg, _NEG)}", _NEG
            case Binary(op="**"):
                # the exponent may carry a sign of its own: 2**-x
                return f"{text(e.left, _ATOM)}**{text(e.right, _NEG)}", _POWER
            case Binary():
                level = _LEVEL[e.op]
                return f"{text(e.left, level)} {e.op} {text(e.right, level + 1)}", level
            case Compare():
                return f"{text(e.left, _SUM)} {e.op} {text(e.right, _SUM)}", _COMPARE
            case Logic():
                level = _AND if e.op == "and" else _OR
                return f" {e.op} ".join(text(a, level + 1) for a in e.args), level
            case Select():
                parts = text(e.then, _OR), text(e.cond, _OR), text(e.other, _SELECT)
                return f"{parts[0]} if {parts[1]} else {parts[2]}", _SELECT
            case Call():
                return f"{e.fn}({', '.join(text(a, _SELECT) for a in e.args)})", _ATOM
            case Reduce():
                inside = self._unhide(e.indices)
                where = f" : {inside.text(e.where, _SELECT)}" if e.where is not None else ""
                return (
                    f"{e.op.value}[{','.join(e.indices)}{where}]({inside.text(e.body, _SELECT)})",
                    _ATOM,
                )
            case Solve():
                bounds = f"{text(e.lo, _SUM)} <= {e.var} <= {text(e.hi, _SUM)}"
                return (
                    f"solve[{e.var} : {bounds}]({text(e.equation, _SELECT)}, iters={e.iters})",
                    _ATOM,
                )
            case Leaf():
                raise InternalError(f"`{type(e).__name__}` in a cascade")
            case _:
                assert_never(e)

    def _unhide(self, indices: tuple[str, ...]) -> _Printer:
        """Inside a sum over a batch index, that index is written."""
        if not self.batch & set(indices):
            return self
        return _Printer(frozenset(), {})


def print_cascade(c: Cascade) -> str:
    """A whole cascade in the language's syntax, every sum written out.

        attention causal(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]) -> O[b,h,i,f] {
          batch b, h
          S[i,j] = sum[e](Q[i,e] * K[j,e] / sqrt(|e|))    where j <= i
          …
        }

    Batch indices are left out of the body where a tensor is read at its own (`K[j,e]` for `K[b,h // G,j,e]`).
    """
    plain = _plain_axes(c)
    batch = frozenset(c.batch)
    header = ", ".join([*(_declared(t) for t in c.inputs), *(_parameter(p) for p in c.params)])
    outputs = ", ".join(f"{o.name}[{','.join(o.indices)}]" for o in c.outputs)
    lines = []
    if c.batch:
        lines.append(f"batch {', '.join(c.batch)}")
    split = [f"{r.name} = {print_expr(r.extent)}" for r in c.ranks if r.extent is not None]
    if split:
        lines.append(f"rank {', '.join(split)}")
    lines += [f"assume {_Printer(batch, plain).text(a, _SELECT)}" for a in c.assumes]
    lines += _aligned([_definition(d, _Printer(batch, plain)) for d in c.body])
    body = "".join(f"  {line}\n" for line in lines)
    return f"attention {c.name}({header}) -> {outputs} {{\n{body}}}\n"


def print_part(e: Expr, c: Cascade) -> str:
    """An expression of the body as `print_cascade` shows it; lone positions in subscripts are local indices there."""

    def local(n: Expr) -> Expr | None:
        if not isinstance(n, Read):
            return None
        subs = tuple(Index(s.name) if isinstance(s, Position) else s for s in n.subs)
        return Read(n.tensor, subs)

    return _Printer(frozenset(c.batch), _plain_axes(c)).text(rewrite(e, local), _SELECT)


def print_define(d: Define, c: Cascade) -> str:
    """One definition as `print_cascade` shows it."""
    left, right, clause = _definition(d, _Printer(frozenset(c.batch), _plain_axes(c)))
    return f"{left} = {right}" + (f"    {clause}" if clause else "")


def _plain_axes(c: Cascade) -> dict[str, dict[int, Expr]]:
    """The axes of each tensor that a body leaves out, with the subscripts they are then read at."""
    batch = frozenset(c.batch)
    plain: dict[str, dict[int, Expr]] = {
        t.name: {k: d for k, d in enumerate(t.dims) if free(d) & batch} for t in c.inputs
    }
    for d in c.body:
        plain[d.tensor] = {k: Index(i) for k, i in enumerate(d.indices) if i in batch}
    return plain


def _declared(t: TensorDecl) -> str:
    kind = "" if t.dtype is DType.FLOAT else f": {t.dtype.value}"
    dims = ",".join(print_expr(d) for d in t.dims)
    return f"{t.name}[{dims}]{kind}" if t.dims else f"{t.name}[]{kind}"


def _parameter(p: ScalarParam) -> str:
    default = "" if p.default is None else f" = {_number(p.default)}"
    return f"{p.name}: {p.dtype.value}{default}"


def _definition(d: Define, printer: _Printer) -> tuple[str, str, str]:
    indices = [i for i in d.indices if i not in printer.batch]
    left = f"{d.tensor}[{','.join(indices)}]" if indices else d.tensor
    clauses = []
    if d.where is not None:
        clauses.append(f"where {printer.conditions(d.where)}")
    if d.init is not None:
        clauses.append(f"init {printer.text(d.init, _SELECT)}")
    return left, printer.text(d.expr, _SELECT), "   ".join(clauses)


_WIDEST = 72
"""Right sides longer than this do not push the clauses of all others to the right."""


def _aligned(definitions: list[tuple[str, str, str]]) -> list[str]:
    left = max((len(a) for a, _, _ in definitions), default=0)
    right = max((len(b) for _, b, c in definitions if c and len(b) <= _WIDEST), default=0)
    return [
        f"{a:<{left}} = {b:<{right}}    {c}" if c else f"{a:<{left}} = {b}"
        for a, b, c in definitions
    ]
