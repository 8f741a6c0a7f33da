"""A hand-built plan of causal attention with a slope for each head: what an online schedule hands to a printer."""

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
    Unary,
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
    Load,
    Origin,
    Plan,
    Range,
    Role,
    Stmt,
    Store,
    Sweep,
    TileProgram,
    Val,
)
from attndsl.source import Source, Span

TEXT = """attention alibi(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], slope[h], G: int) -> O[b,h,i,f], LSE[b,h,i] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) - slope * (i - j)   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
  LSE[i] = logsumexp[j](S[i,j])
}
"""
SOURCE = Source("examples/alibi.attn", TEXT)
INF = float("inf")
LOG2E = 1.4426950408889634


def at(line: int) -> Span:
    start = sum(len(x) + 1 for x in TEXT.split("\n")[: line - 1])
    return Span(SOURCE, start, start + 1)


def op(o: str, a: Expr | Val | Block | Origin, b: Expr | Val | Block | Origin) -> Binary:
    return Binary(o, a, b)  # type: ignore[arg-type]


def pos(*names: str) -> tuple[Expr, ...]:
    return tuple(Position(n) for n in names)


def body(masked: bool) -> tuple[Stmt, ...]:
    """One key tile: scores, online update."""
    bounds = ("j",) if masked else ()
    head = (Position("b"), op("//", Position("h"), Param("G")))
    score: Expr = op("+", op("*", Val("s0"), Val("k0")), op("+", Val("r"), Val("c")))  # type: ignore[assignment]
    if masked:
        inside = Logic(
            "and",
            (Compare("<=", Position("j"), Position("i")), Compare("<", Position("j"), Extent("j"))),
        )
        score = Select(inside, score, Const(-INF))
    safe = Select(Compare("==", Val("mn"), Const(-INF)), Const(0.0), Val("mn"))  # type: ignore[arg-type]
    return (
        Load("k", ("j", "e"), DType.FLOAT, "K", (*head, *pos("j", "e")), bounds, span=at(3)),
        Load("v", ("j", "f"), DType.FLOAT, "V", (*head, *pos("j", "f")), bounds, span=at(4)),
        Compute(
            "c",
            ("j",),
            DType.FLOAT,
            op(
                "*",
                Val("rate"),
                op("-", op("-", Position("j"), Origin("j")), op("-", Origin("i"), Origin("j"))),
            ),
            span=at(3),
        ),
        Dot("s0", ("i", "j"), "q", "k", "e", "Q", span=at(3)),
        Compute("s", ("i", "j"), DType.FLOAT, score, span=at(3)),
        Fold("tm", ("i",), Reduction.MAX, "s", "j", span=at(4)),
        Compute("mn", ("i",), DType.FLOAT, Call("max", (Val("m"), Val("tm"))), span=at(4)),  # type: ignore[arg-type]
        Compute("ms", ("i",), DType.FLOAT, safe, span=at(4)),
        Compute(
            "a", ("i",), DType.FLOAT, Call("exp2", (op("-", Val("m"), Val("ms")),)), span=at(4)
        ),
        Compute(
            "p", ("i", "j"), DType.FLOAT, Call("exp2", (op("-", Val("s"), Val("ms")),)), span=at(4)
        ),
        Fold("tz", ("i",), Reduction.SUM, "p", "j", span=at(4)),
        Assign("z", op("+", op("*", Val("z"), Val("a")), Val("tz")), span=at(4)),
        AccDot("n", "p", "v", "j", "V", "a", span=at(4)),
        Assign("m", Val("mn"), span=at(4)),  # type: ignore[arg-type]
    )


def alibi() -> Plan:
    block_j, end = Block("j"), op("+", Origin("i"), Block("i"))
    clip = Call("min", (end, Extent("j")))
    whole = Call("min", (Origin("i"), Extent("j")))
    program = TileProgram(
        name="alibi_forward",
        axes=(
            Axis("b", "b", Role.GRID),
            Axis("h", "h", Role.GRID),
            Axis("i", "i", Role.TILE),
            Axis("j", "j", Role.STREAM),
            Axis("e", "e", Role.FULL),
            Axis("f", "f", Role.FULL),
        ),
        reads=("Q", "K", "V", "slope"),
        writes=("O", "LSE"),
        params=("G",),
        prologue=(
            Load("q", ("i", "e"), DType.FLOAT, "Q", pos("b", "h", "i", "e"), ("i",), span=at(3)),
            Load("sl", (), DType.FLOAT, "slope", pos("h"), span=at(3)),
            Compute(
                "k0",
                (),
                DType.FLOAT,
                op("*", Call("rsqrt", (Extent("e"),)), Const(LOG2E)),
                span=at(3),
            ),
            Compute("rate", (), DType.FLOAT, op("*", Val("sl"), Const(LOG2E)), span=at(3)),
            Compute(
                "r",
                ("i",),
                DType.FLOAT,
                op("*", Unary("-", Val("rate")), op("-", Position("i"), Origin("i"))),  # type: ignore[arg-type]
                span=at(3),
            ),
            Compute("lo", (), DType.INT, Const(0)),
            Compute("mid", (), DType.INT, op("*", op("//", whole, block_j), block_j), span=at(3)),
            Compute("hi", (), DType.INT, clip, span=at(3)),
            Declare("m", ("i",), DType.FLOAT, Const(-INF), span=at(4)),
            Declare("z", ("i",), DType.FLOAT, Const(0.0), span=at(4)),
            Declare("n", ("i", "f"), DType.FLOAT, Const(0.0), span=at(4)),
        ),
        loops=(),
        sweep=Sweep(
            "j", (Range("lo", "mid", False, body(False)), Range("mid", "hi", True, body(True)))
        ),
        epilogue=(
            Compute(
                "o", ("i", "f"), DType.FLOAT, op("/", Val("n"), Val("z")), safe=True, span=at(4)
            ),
            Compute(
                "lse",
                ("i",),
                DType.FLOAT,
                op("*", op("+", Val("m"), Call("log2", (Val("z"),))), Const(0.6931471805599453)),  # type: ignore[arg-type]
                span=at(5),
            ),
            Store("O", pos("b", "h", "i", "f"), "o", ("i",), span=at(4)),
            Store("LSE", pos("b", "h", "i"), "lse", ("i",), span=at(5)),
        ),
        order="reverse",
    )
    return Plan(
        name="alibi",
        buffers=(
            Buffer("Q", ("b", "h", "i", "e"), BufferKind.INPUT),
            Buffer("K", ("b", "K.1", "j", "e"), BufferKind.INPUT),
            Buffer("V", ("b", "V.1", "j", "f"), BufferKind.INPUT),
            Buffer("slope", ("h",), BufferKind.INPUT),
            Buffer("O", ("b", "h", "i", "f"), BufferKind.OUTPUT, like="Q"),
            Buffer("LSE", ("b", "h", "i"), BufferKind.OUTPUT),
        ),
        steps=(program,),
        params=(("G", DType.INT),),
    )
