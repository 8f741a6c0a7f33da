"""Pointwise expressions of the tile IR as PyTorch text.

The printer is typed: every piece of text knows its kind (float, int, bool), the axes it spans and
whether it is a plain Python number (`host`). That is what decides between `a if c else b` and
`torch.where`, where `[..., None]` stands, and where an integer tensor must become a float one
(PyTorch would make it float32, also in a float64 program).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
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
    Select,
    Solve,
    Unary,
)
from attndsl.schedule.tile import Block, Epsilon, Origin, Span, Val

# Precedence of Python's operators, as far as they are printed; 100 is an atom.
ATOM, POWER, UNARY, PRODUCT, SUM, BITAND, BITOR, COMPARE, NOT, AND, OR, IFELSE = (
    100,
    90,
    80,
    70,
    60,
    50,
    40,
    30,
    20,
    15,
    10,
    5,
)

# Operands that are longer together get lines of their own, so that no line needs folding.
LONGEST = 52


@dataclass(frozen=True, slots=True)
class Text:
    """A printed expression: what it is, beside how it reads."""

    code: str
    kind: DType
    dims: tuple[str, ...] = ()
    host: bool = True
    prec: int = ATOM

    def at(self, prec: int) -> str:
        """The code, in parentheses where the context binds tighter."""
        return self.code if self.prec >= prec else f"({self.code})"


@dataclass(slots=True)
class Scope:
    """Where leaves get their text from, and where long pieces are put on lines of their own."""

    order: tuple[str, ...]  # every axis, in the order in which values have their dimensions
    value: Callable[[str], Text]
    position: Callable[[str], Text]
    extent: Callable[[str], str]
    param: Callable[[str], Text]
    block: Callable[[str], str]
    origin: Callable[[str], str]
    fresh: Callable[[], str]
    emit: Callable[[str], None]
    safe: bool = False

    def union(self, *texts: Text) -> tuple[str, ...]:
        """The axes of several operands together."""
        return tuple(a for a in self.order if any(a in t.dims for t in texts))


# Functions of one argument: on tensors, and on Python numbers.
TENSOR: dict[str, str] = {
    "exp": "torch.exp({x})",
    "exp2": "torch.exp2({x})",
    "log": "torch.log({x})",
    "log2": "torch.log2({x})",
    "sqrt": "torch.sqrt({x})",
    "rsqrt": "torch.rsqrt({x})",
    "tanh": "torch.tanh({x})",
    "sigmoid": "torch.sigmoid({x})",
    "logsigmoid": "torch.nn.functional.logsigmoid({x})",
    "softplus": "softplus({x})",
    "relu": "torch.relu({x})",
    "elu": "torch.nn.functional.elu({x})",
    "silu": "torch.nn.functional.silu({x})",
    "gelu": "torch.nn.functional.gelu({x})",
    "erf": "torch.erf({x})",
    "sin": "torch.sin({x})",
    "cos": "torch.cos({x})",
    "acos": "torch.acos({x})",
    "abs": "torch.abs({x})",
    "sign": "torch.sign({x})",
    "floor": "torch.floor({x})",
    "ceil": "torch.ceil({x})",
}
HOST: dict[str, str] = {
    "exp": "math.exp({x})",
    "exp2": "2.0 ** {x}",
    "log": "math.log({x})",
    "log2": "math.log2({x})",
    "sqrt": "math.sqrt({x})",
    "rsqrt": "1.0 / math.sqrt({x})",
    "tanh": "math.tanh({x})",
    "erf": "math.erf({x})",
    "sin": "math.sin({x})",
    "cos": "math.cos({x})",
    "acos": "math.acos({x})",
    "abs": "abs({x})",
    "floor": "math.floor({x})",
    "ceil": "math.ceil({x})",
}
KEEPS_INTEGERS = frozenset({"abs", "sign", "relu", "floor", "ceil"})


def show(e: Expr | Val | Block | Origin | Epsilon | Span, scope: Scope) -> Text:
    """Print one expression."""
    match e:
        case Val(name=name):
            return scope.value(name)
        case Const(value=value):
            return _constant(value)
        case Param(name=name):
            return scope.param(name)
        case Extent(rank=rank):
            return Text(scope.extent(rank), DType.INT)
        case Position(name=name):
            return scope.position(name)
        case Block(axis=axis):
            return Text(scope.block(axis), DType.INT)
        case Origin(axis=axis):
            return Text(scope.origin(axis), DType.INT)
        case Epsilon():
            return Text("torch.finfo(acc).eps", DType.FLOAT)
        case Span(like=like):
            return Text(f'span(dtypes["{like}"])', DType.FLOAT)
        case Unary(op=op, arg=arg):
            return _unary(op, _parts((arg,), scope)[0])
        case Binary(op=op, left=left, right=right):
            return _binary(op, _parts((left, right), scope), scope)
        case Compare(op=op, left=left, right=right):
            return _compare(op, _parts((left, right), scope), scope)
        case Logic(op=op, args=args):
            return _logic(op, _parts(args, scope), scope)
        case Select(cond=cond, then=then, other=other):
            return _select(_parts((cond, then, other), scope), scope)
        case Call(fn=fn, args=args):
            return _call(fn, _parts(args, scope), scope)
        case Read() | Reduce() | Solve() | Index() | Local() | Leaf():
            raise TypeError(f"{type(e).__name__} in a tile expression")
        case _:
            assert_never(e)


def _parts(operands: tuple[Expr, ...], scope: Scope) -> list[Text]:
    """The operands of an expression; long ones on lines of their own."""
    texts = [show(e, scope) for e in operands]
    while sum(len(t.code) for t in texts) > LONGEST:
        movable = [k for k, t in enumerate(texts) if t.prec != ATOM and _movable(t)]
        if not movable:
            break
        k = max(movable, key=lambda k: len(texts[k].code))
        name = scope.fresh()
        scope.emit(f"{name} = {texts[k].code}")
        texts[k] = replace(texts[k], code=name, prec=ATOM)
    return texts


def _movable(t: Text) -> bool:
    # A number's expression may stand in a branch that is not taken, where it would fail.
    return not t.host or not any(sign in t.code for sign in ("/", "%", "math."))


def align(text: Text, target: tuple[str, ...]) -> Text:
    """The same value with a dimension of extent 1 for every axis of `target` that it lacks.

    Leading axes are left to broadcasting.
    """
    if text.host or not text.dims:
        return text
    marks = [":" if a in text.dims else "None" for a in target]
    while marks and marks[0] == "None":
        marks.pop(0)
    if "None" not in marks:
        return text
    present = target[len(target) - len(marks) :]
    last = max(k for k, m in enumerate(marks) if m == ":")
    if "None" not in marks[:last] and len(marks) - last <= 3:
        marks = ["...", *marks[last + 1 :]]
    return Text(f"{text.at(ATOM)}[{', '.join(marks)}]", text.kind, present, False)


def as_float(text: Text) -> Text:
    """An integer or boolean tensor as one of the accumulating type."""
    if text.host or text.kind is DType.FLOAT:
        return text
    return Text(f"{text.at(ATOM)}.to(acc)", DType.FLOAT, text.dims, False)


def _constant(value: float | int | bool) -> Text:
    match value:
        case bool():
            return Text(repr(value), DType.BOOL)
        case int():
            return Text(repr(value), DType.INT, prec=ATOM if value >= 0 else UNARY)
        case _:
            if value != value:
                return Text("math.nan", DType.FLOAT)
            if value in (float("inf"), float("-inf")):
                return (
                    Text("math.inf", DType.FLOAT)
                    if value > 0
                    else Text("-math.inf", DType.FLOAT, prec=UNARY)
                )
            return Text(
                repr(value).replace("e+", "e"), DType.FLOAT, prec=ATOM if value >= 0 else UNARY
            )


def _joined(texts: list[Text], scope: Scope) -> tuple[list[Text], DType, tuple[str, ...], bool]:
    """Operands of one kind, aligned; that kind; the result's axes; whether all are numbers."""
    dims = scope.union(*texts)
    kinds = {t.kind for t in texts}
    kind = next(k for k in (DType.FLOAT, DType.INT, DType.BOOL) if k in kinds)
    if kind is DType.FLOAT:
        texts = [as_float(t) for t in texts]
    return [align(t, dims) for t in texts], kind, dims, all(t.host for t in texts)


def _unary(op: str, x: Text) -> Text:
    if op == "-":
        kind = DType.INT if x.kind is DType.BOOL else x.kind
        return Text(f"-{x.at(UNARY)}", kind, x.dims, x.host, UNARY)
    if x.host:
        return Text(f"not {x.at(NOT)}", DType.BOOL, x.dims, True, NOT)
    return Text(f"~{x.at(UNARY)}", DType.BOOL, x.dims, False, UNARY)


def _binary(op: str, operands: list[Text], scope: Scope) -> Text:
    if op == "/":
        operands = [as_float(t) for t in operands]
    (a, b), kind, dims, host = _joined(operands, scope)
    if kind is DType.BOOL:
        kind = DType.INT
    match op:
        case "+" | "-":
            return Text(f"{a.at(SUM)} {op} {b.at(SUM + 1)}", kind, dims, host, SUM)
        case "/":
            if scope.safe:
                return Text(f"safe_divide({a.code}, {b.code})", DType.FLOAT, dims, host)
            return Text(f"{a.at(PRODUCT)} / {b.at(PRODUCT + 1)}", DType.FLOAT, dims, host, PRODUCT)
        case "*" | "//" | "%":
            return Text(f"{a.at(PRODUCT)} {op} {b.at(PRODUCT + 1)}", kind, dims, host, PRODUCT)
        case "**":
            if host:
                return Text(f"pow({a.code}, {b.code})", kind, dims, True)
            return Text(f"torch.pow({a.code}, {b.code})", kind, dims, False)
    raise ValueError(f"unknown operator {op!r}")


def _compare(op: str, operands: list[Text], scope: Scope) -> Text:
    (a, b), _, dims, host = _joined(operands, scope)
    return Text(f"{a.at(COMPARE + 1)} {op} {b.at(COMPARE + 1)}", DType.BOOL, dims, host, COMPARE)


def _logic(op: str, args: list[Text], scope: Scope) -> Text:
    args, _, dims, host = _joined(args, scope)
    word, prec = ("and", AND) if op == "and" else ("or", OR)
    sign, tight = ("&", BITAND) if op == "and" else ("|", BITOR)
    if host:
        return Text(f" {word} ".join(a.at(prec + 1) for a in args), DType.BOOL, dims, True, prec)
    return Text(f" {sign} ".join(a.at(tight + 1) for a in args), DType.BOOL, dims, False, tight)


def _select(operands: list[Text], scope: Scope) -> Text:
    c, *branches = operands
    (a, b), kind, _, host = _joined(branches, scope)
    dims = scope.union(c, a, b)
    if c.host:
        # Both branches must be tensors with the axes of the result, whichever is chosen.
        a, b = (align(x if host else _as_tensor(x, dims), dims) for x in (a, b))
        code = f"{a.at(IFELSE + 1)} if {c.at(IFELSE + 1)} else {b.at(IFELSE + 1)}"
        return Text(code, kind, dims, host, IFELSE)
    c, a, b = align(c, dims), align(a, dims), align(b, dims)
    if host and kind is DType.FLOAT:
        # Two Python numbers would be rounded to PyTorch's default type, and a whole one beside a float be one.
        a = _as_tensor(replace(a, kind=kind), ())
    code = f"torch.where({c.code}, {a.code}, {b.code})"
    return Text(code, kind, dims, False)


def _as_tensor(text: Text, dims: tuple[str, ...]) -> Text:
    """A number as a tensor of extent 1 along each of `dims`."""
    if not text.host:
        return text
    shape = ", ".join("1" for _ in dims) + ("," if len(dims) == 1 else "")
    kind = {DType.FLOAT: "acc", DType.INT: "torch.int64", DType.BOOL: "torch.bool"}[text.kind]
    code = f"torch.full(({shape}), {text.code}, dtype={kind}, device=device)"
    return Text(code, text.kind, dims, False)


def _call(fn: str, args: list[Text], scope: Scope) -> Text:
    if fn in ("min", "max"):
        return _extreme(fn, args, scope)
    (x,) = args
    if x.host:
        if fn in HOST:
            prec = {"exp2": POWER, "rsqrt": PRODUCT}.get(fn, ATOM)
            kind = x.kind if fn in KEEPS_INTEGERS else DType.FLOAT
            inner = x.at(ATOM) if fn == "exp2" else x.code
            return Text(HOST[fn].format(x=inner), kind, (), True, prec)
        # Rare on plain numbers: one tensor of no dimensions.
        x = Text(f"torch.tensor({x.code}, dtype=acc)", DType.FLOAT, (), False)
    if fn in ("floor", "ceil") and x.kind is DType.INT:
        return x
    if fn not in KEEPS_INTEGERS:
        x = as_float(x)
    return Text(TENSOR[fn].format(x=x.code), x.kind, x.dims, False)


def _extreme(fn: str, args: list[Text], scope: Scope) -> Text:
    args, kind, dims, host = _joined(args, scope)
    if host:
        return Text(f"{fn}({', '.join(a.code for a in args)})", kind, (), True)
    side = "min" if fn == "max" else "max"
    out = next(a for a in args if not a.host)
    rest = list(args)
    rest.remove(out)
    for a in rest:
        if a.host:
            code = f"{out.at(ATOM)}.clamp({side}={a.code})"
        else:
            code = f"torch.{'maximum' if fn == 'max' else 'minimum'}({out.code}, {a.code})"
        out = Text(code, kind, dims, False)
    return replace(out, dims=dims)
