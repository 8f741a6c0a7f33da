"""Hand-written tile programs for the tests of the eager dialect and of the operator."""

from __future__ import annotations

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    DType,
    Expr,
    Extent,
    Logic,
    Param,
    Position,
    Reduction,
    Select,
)
from attndsl.schedule.tile import (
    AccDot,
    Assign,
    Axis,
    Block,
    Buffer,
    BufferKind,
    Compute,
    Declare,
    Dot,
    Fold,
    For,
    HostSum,
    Load,
    Loop,
    Origin,
    Plan,
    Range,
    Role,
    Scatter,
    Stmt,
    Store,
    Sweep,
    TileProgram,
    Val,
)

F, INT, BOOL = DType.FLOAT, DType.INT, DType.BOOL
INF = Const(float("-inf"))


def p(axis: str) -> Position:
    return Position(axis)


def ps(*axes: str) -> tuple[Expr, ...]:
    return tuple(Position(a) for a in axes)


def op(sign: str, left: Expr, right: Expr) -> Binary:
    return Binary(sign, left, right)


def sub(a: Expr, b: Expr) -> Binary:
    return op("-", a, b)


def mul(a: Expr, b: Expr) -> Binary:
    return op("*", a, b)


def exp(x: Expr) -> Call:
    return Call("exp", (x,))


def head(group: bool) -> Expr:
    return op("//", p("h"), Param("G")) if group else p("h")


def causal_forward(slope: bool = False, group: bool = False) -> Plan:
    """Online softmax, causal; with an ALiBi slope and grouped key heads if asked for."""
    score: Expr = mul(Val("s"), Val("k0"))
    if slope:
        score = sub(score, mul(Val("a"), sub(p("i"), p("j"))))
    hi = Call("min", (op("+", Origin("i"), Block("i")), Extent("j")))
    full = mul(op("//", Origin("i"), Block("j")), Block("j"))
    kv = "hk" if group else "h"

    def tile(masked: bool) -> tuple[Stmt, ...]:
        x: Expr = score
        if masked:
            inside = Logic(
                "and",
                (Compare("<=", p("j"), p("i")), Compare("<", p("j"), Extent("j"))),
            )
            x = Select(inside, score, INF)
        safe = Select(Compare("==", Val("mn"), INF), Const(0.0), Val("mn"))
        return (
            Load("k", ("j", "e"), F, "K", (p("b"), head(group), *ps("j", "e")), ("j",)),
            Load("v", ("j", "f"), F, "V", (p("b"), head(group), *ps("j", "f")), ("j",)),
            Dot("s", ("i", "j"), "q", "k", "e", "Q"),
            Compute("x", ("i", "j"), F, x),
            Fold("mx", ("i",), Reduction.MAX, "x", "j"),
            Compute("mn", ("i",), F, Call("max", (Val("m"), Val("mx")))),
            Compute("ms", ("i",), F, safe),
            Compute("al", ("i",), F, exp(sub(Val("m"), Val("ms")))),
            Compute("p", ("i", "j"), F, exp(sub(Val("x"), Val("ms")))),
            Fold("zs", ("i",), Reduction.SUM, "p", "j"),
            Assign("z", op("+", mul(Val("z"), Val("al")), Val("zs"))),
            AccDot("n", "p", "v", "j", "V", "al"),
            Assign("m", Val("mn")),
        )

    prologue: tuple[Stmt, ...] = (
        Load("q", ("i", "e"), F, "Q", ps("b", "h", "i", "e"), ("i",)),
        Compute("k0", (), F, Call("rsqrt", (Extent("e"),))),
        Compute("zero", (), INT, Const(0)),
        Compute("full", (), INT, full),
        Compute("hi", (), INT, hi),
        Declare("m", ("i",), F, INF),
        Declare("z", ("i",), F, Const(0.0)),
        Declare("n", ("i", "f"), F, Const(0.0)),
    )
    if slope:
        prologue = (Load("a", (), F, "slope", (p("h"),)), *prologue)
    program = TileProgram(
        name="causal.forward",
        axes=(
            Axis("b", "b", Role.GRID),
            Axis("h", "h", Role.GRID),
            Axis("i", "i", Role.TILE),
            Axis("j", "j", Role.STREAM),
            Axis("e", "e", Role.FULL),
            Axis("f", "f", Role.FULL),
        ),
        reads=("Q", "K", "V", *(["slope"] if slope else [])),
        writes=("O", "LSE"),
        params=("G",) if group else (),
        prologue=prologue,
        loops=(),
        sweep=Sweep(
            "j", (Range("zero", "full", False, tile(False)), Range("full", "hi", True, tile(True)))
        ),
        epilogue=(
            Compute("o", ("i", "f"), F, op("/", Val("n"), Val("z")), safe=True),
            Compute("lse", ("i",), F, op("+", Val("m"), Call("log", (Val("z"),)))),
            Store("O", ps("b", "h", "i", "f"), "o", ("i",)),
            Store("LSE", ps("b", "h", "i"), "lse", ("i",)),
        ),
        order="reverse",
    )
    buffers = (
        Buffer("Q", ("b", "h", "i", "e"), BufferKind.INPUT),
        Buffer("K", ("b", kv, "j", "e"), BufferKind.INPUT),
        Buffer("V", ("b", kv, "j", "f"), BufferKind.INPUT),
        *([Buffer("slope", ("h",), BufferKind.INPUT)] if slope else []),
        Buffer("O", ("b", "h", "i", "f"), BufferKind.OUTPUT, like="Q"),
        Buffer("LSE", ("b", "h", "i"), BufferKind.OUTPUT),
    )
    return Plan("causal", buffers, (program,), (("G", INT),) if group else ())


def bias_table() -> Plan:
    """`out[h,i] = sum[j : |i - j| < w[h]](table[i - j + n - 1])`, and how often each entry was read.

    Everything that a gather, a scatter, a guard and a bound of its own for each head need.
    """
    at = sub(op("+", sub(p("i"), p("j")), Extent("i")), Const(1))
    inside = Logic(
        "and",
        (
            Compare("<", Call("abs", (sub(p("i"), p("j")),)), Val("w")),
            Compare("<", p("j"), Extent("j")),
        ),
    )
    first = Call("max", (sub(Origin("i"), Val("w")), Const(0)))
    lo = mul(op("//", first, Block("j")), Block("j"))
    hi = Call("min", (op("+", op("+", Origin("i"), Block("i")), Val("w")), Extent("j")))
    body: tuple[Stmt, ...] = (
        Compute("seen", ("i", "j"), BOOL, inside),
        Load("t", ("i", "j"), F, "table", (at,), (), "seen"),
        Fold("ts", ("i",), Reduction.SUM, "t", "j"),
        Assign("total", op("+", Val("total"), Val("ts"))),
        Compute("one", ("i", "j"), F, Select(Val("seen"), Const(0.5), Const(0.0))),
        Scatter("count", (at,), "one", "scale", ("i", "j"), "seen"),
    )
    program = TileProgram(
        name="bias",
        axes=(
            Axis("h", "h", Role.GRID),
            Axis("i", "i", Role.TILE),
            Axis("j", "j", Role.STREAM),
        ),
        reads=("table", "window"),
        writes=("out", "count"),
        params=(),
        prologue=(
            Load("w", (), INT, "window", (p("h"),)),
            Compute("scale", (), F, Const(float(2**20))),
            Compute("lo", (), INT, lo),
            Compute("hi", (), INT, hi),
            Declare("total", ("i",), F, Const(0.0)),
        ),
        loops=(),
        sweep=Sweep("j", (Range("lo", "hi", True, body),)),
        epilogue=(Store("out", ps("h", "i"), "total", ("i",)),),
    )
    scale = TileProgram(
        name="scale",
        axes=(),
        reads=(),
        writes=("unit",),
        params=(),
        prologue=(
            Compute("u", (), F, Const(float(2**20))),
            Store("unit", (), "u", ()),
        ),
        loops=(),
        sweep=None,
        epilogue=(),
    )
    buffers = (
        Buffer("table", ("n",), BufferKind.INPUT),
        Buffer("window", ("h",), BufferKind.INPUT, INT),
        Buffer("out", ("h", "i"), BufferKind.OUTPUT),
        Buffer("count", ("n",), BufferKind.FIXED, INT),
        Buffer("unit", (), BufferKind.TEMP),
        Buffer("counted", ("n",), BufferKind.OUTPUT),
    )
    return Plan("bias", buffers, (program, scale, HostSum("counted", "count", (), "unit")), ())


def grouped_values() -> Plan:
    """`S[g,j,f] = sum over the heads h of group g, and over i, of W[h,i,j] * V[h,i,f]`, column by column."""
    inner: tuple[Stmt, ...] = (
        Load("w", ("j", "i"), F, "W", ps("h", "i", "j"), ("i", "j")),
        Load("v", ("i", "f"), F, "V", ps("h", "i", "f"), ("i",)),
        AccDot("s", "w", "v", "i", "V"),
        For(
            "c",
            (
                Load("vc", ("i",), F, "V", ps("h", "i", "c"), ("i",)),
                Compute("x", ("j", "i"), F, mul(Val("w"), Val("vc"))),
                Fold("xs", ("j",), Reduction.SUM, "x", "i"),
                Assign("again", op("+", Val("again"), Val("xs"))),
            ),
        ),
    )
    lo = mul(p("g"), Param("G"))
    program = TileProgram(
        name="grouped",
        axes=(
            Axis("g", "g", Role.GRID),
            Axis("j", "j", Role.TILE),
            Axis("h", "h", Role.LOOP),
            Axis("i", "i", Role.STREAM),
            Axis("f", "f", Role.FULL),
            Axis("c", "f", Role.POINT),
        ),
        reads=("W", "V"),
        writes=("S", "T"),
        params=("G",),
        prologue=(
            Compute("lo", (), INT, lo),
            Compute("hi", (), INT, op("+", lo, Param("G"))),
            Compute("zero", (), INT, Const(0)),
            Compute("all", (), INT, Extent("i")),
            Declare("s", ("j", "f"), F, Const(0.0)),
            Declare("again", ("j",), F, Const(0.0)),
        ),
        loops=(Loop("h", "lo", "hi", ()),),
        sweep=Sweep("i", (Range("zero", "all", False, inner),)),
        epilogue=(
            Store("S", ps("g", "j", "f"), "s", ("j",)),
            Store("T", ps("g", "j"), "again", ("j",)),
        ),
    )
    buffers = (
        Buffer("W", ("h", "i", "j"), BufferKind.INPUT),
        Buffer("V", ("h", "i", "f"), BufferKind.INPUT),
        Buffer("S", ("g", "j", "f"), BufferKind.OUTPUT, like="V"),
        Buffer("T", ("g", "j"), BufferKind.OUTPUT),
    )
    return Plan("grouped", buffers, (program,), (("G", INT),))
