"""Cascades built by hand, so that these tests need no frontend."""

from __future__ import annotations

from collections.abc import Sequence

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
    Local,
    Logic,
    Output,
    Param,
    Position,
    Rank,
    Read,
    Reduce,
    Reduction,
    ScalarParam,
    Select,
    Solve,
    TensorDecl,
    Unary,
)


def ex(x: Expr | float | int | bool) -> Expr:
    return Const(x) if isinstance(x, int | float) else x


def chain(op: str, *xs: Expr | float | int) -> Expr:
    out = ex(xs[0])
    for x in xs[1:]:
        out = Binary(op, out, ex(x))
    return out


def mul(*xs: Expr | float | int) -> Expr:
    return chain("*", *xs)


def add(*xs: Expr | float | int) -> Expr:
    return chain("+", *xs)


def sub(*xs: Expr | float | int) -> Expr:
    return chain("-", *xs)


def div(*xs: Expr | float | int) -> Expr:
    return chain("/", *xs)


def floordiv(*xs: Expr | float | int) -> Expr:
    return chain("//", *xs)


def mod(*xs: Expr | float | int) -> Expr:
    return chain("%", *xs)


def power(a: Expr | float | int, b: Expr | float | int) -> Expr:
    return Binary("**", ex(a), ex(b))


def cmp(op: str, a: Expr | float | int, b: Expr | float | int) -> Compare:
    return Compare(op, ex(a), ex(b))


def both(*xs: Expr) -> Expr:
    return Logic("and", xs)


def either(*xs: Expr) -> Expr:
    return Logic("or", xs)


def call(fn: str, *xs: Expr | float | int) -> Expr:
    return Call(fn, tuple(ex(x) for x in xs))


def pos(i: str) -> Position:
    return Position(i)


def rd(text: str, *subs: Expr) -> Read:
    """`rd("S b h i j")`; a `?` takes the next of `subs`."""
    name, *names = text.split()
    rest = iter(subs)
    return Read(name, tuple(next(rest) if n == "?" else Index(n) for n in names))


def red(op: str, indices: str, body: Expr, where: Expr | None = None) -> Reduce:
    return Reduce(Reduction(op), tuple(indices.split()), body, where)


def decl(text: str, dtype: DType = DType.FLOAT, **computed: Expr) -> TensorDecl:
    """`decl("K b hk j e", hk=floordiv(pos("h"), Param("G")))`."""
    name, *names = text.split()
    dims = tuple(computed.get(n, Index(n)) for n in names)
    ranks = tuple(f"{name}.{k}" if n in computed else n for k, n in enumerate(names))
    return TensorDecl(name, dims, ranks, dtype)


def define(text: str, expr: Expr, where: Expr | None = None, init: Expr | None = None) -> Define:
    name, *names = text.split()
    return Define(name, tuple(names), expr, where, init)


def cascade(
    name: str,
    inputs: Sequence[TensorDecl],
    body: Sequence[Define],
    outputs: Sequence[str],
    *,
    params: Sequence[ScalarParam] = (),
    batch: str = "b h",
    bound: dict[str, str] | None = None,
    ranks: Sequence[Rank] = (),
    assumes: Sequence[Expr] = (),
) -> Cascade:
    names: dict[str, Rank] = {}
    for t in inputs:
        for r in t.ranks:
            names.setdefault(r, Rank(r))
    for i, r in (bound or {}).items():
        names[i] = Rank(i, iterates=r)
    for r in ranks:
        names[r.name] = r
    outs = tuple(Output(o, next(d.indices for d in body if d.tensor == o)) for o in outputs)
    return Cascade(
        name, tuple(inputs), tuple(params), outs, tuple(batch.split()), tuple(names.values()), tuple(body), tuple(assumes)
    )


def integer(name: str, default: int | None = None) -> ScalarParam:
    return ScalarParam(name, DType.INT, default)


CAUSAL = cmp("<=", pos("j"), pos("i"))


def scores(*more: Expr, key: Read | None = None) -> Expr:
    """`Q[i,e] * K[j,e] / sqrt(|e|) - more`, summed over e."""
    k = key if key is not None else rd("K b h j e")
    s: Expr = red("sum", "e", div(mul(rd("Q b h i e"), k), call("sqrt", Extent("e"))))
    for m in more:
        s = sub(s, m)
    return s


def softmax(values: Read | None = None, lse: bool = True) -> list[Define]:
    """What `O[i,f] = softmax[j](S[i,j]) * V[j,f]; LSE[i] = logsumexp[j](S[i,j])` means."""
    v = values if values is not None else rd("V b h j f")
    body = [
        define("M b h i", red("max", "j", rd("S b h i j"))),
        define("P b h i j", call("exp", sub(rd("S b h i j"), rd("M b h i")))),
        define("Z b h i", red("sum", "j", rd("P b h i j"))),
        define("O b h i f", red("sum", "j", mul(div(rd("P b h i j"), rd("Z b h i")), v))),
    ]
    if lse:
        body.append(define("LSE b h i", add(rd("M b h i"), call("log", rd("Z b h i")))))
    return body


QKV = (decl("Q b h i e"), decl("K b h j e"), decl("V b h j f"))
GROUPED = floordiv(pos("h"), Param("G"))


def causal() -> Cascade:
    return cascade("causal", QKV, [define("S b h i j", scores(), CAUSAL), *softmax()], ["O", "LSE"])


def alibi() -> Cascade:
    inputs = [
        decl("Q b h i e"),
        decl("K b hk j e", hk=GROUPED),
        decl("V b hk j f", hk=GROUPED),
        decl("slope h"),
    ]
    slope = mul(rd("slope h"), sub(pos("i"), pos("j")))
    s = scores(slope, key=rd("K b ? j e", GROUPED))
    body = [define("S b h i j", s, CAUSAL), *softmax(rd("V b ? j f", GROUPED))]
    return cascade("alibi", inputs, body, ["O", "LSE"], params=[integer("G")])


def window_sink() -> Cascade:
    i, j, w, n0 = pos("i"), pos("j"), Param("w"), Param("n0")
    where = both(cmp("<=", j, i), either(cmp("<", sub(i, j), w), cmp("<", j, n0)))
    sink, m = rd("sink h"), rd("M b h i")
    body = [
        define("S b h i j", scores(), where),
        define("M b h i", call("max", sink, red("max", "j", rd("S b h i j")))),
        define("P b h i j", call("exp", sub(rd("S b h i j"), m))),
        define("Z b h i", add(call("exp", sub(sink, m)), red("sum", "j", rd("P b h i j")))),
        define("O b h i f", red("sum", "j", mul(div(rd("P b h i j"), rd("Z b h i")), rd("V b h j f")))),
    ]
    return cascade(
        "window_sink", [*QKV, decl("sink h")], body, ["O"], params=[integer("w", 4096), integer("n0", 4)]
    )


def gla() -> Cascade:
    body = [
        define("C b h j e", red("sum", "l", rd("loga b h l e"), cmp("<=", pos("l"), pos("j")))),
        define(
            "A b h i j",
            red(
                "sum",
                "e",
                mul(rd("Q b h i e"), rd("K b h j e"), call("exp", sub(rd("C b h i e"), rd("C b h j e")))),
            ),
            CAUSAL,
        ),
        define("O b h i f", red("sum", "j", mul(rd("A b h i j"), rd("V b h j f")))),
    ]
    return cascade(
        "gla",
        [*QKV, decl("loga b h j e")],
        body,
        ["O"],
        bound={"l": "j"},
        assumes=[cmp("<=", rd("loga b h j e"), 0)],
    )


def gated_delta() -> Cascade:
    past = sub(pos("t"), 1)
    beta, k = rd("beta b h t"), rd("K b h t e")
    recalled = red("sum", "c", mul(rd("K b h t c"), rd("H b h ? c f", past)))
    step = add(
        mul(
            call("exp", rd("g b h t")),
            sub(rd("H b h ? e f", past), mul(beta, k, recalled)),
        ),
        mul(beta, k, rd("V b h t f")),
    )
    body = [
        define("H b h t e f", step, init=Const(0)),
        define("O b h t f", red("sum", "e", mul(rd("Q b h t e"), rd("H b h t e f")))),
    ]
    inputs = [decl("Q b h t e"), decl("K b h t e"), decl("V b h t f"), decl("g b h t"), decl("beta b h t")]
    return cascade("gated_delta", inputs, body, ["O"], bound={"c": "e"})


def entmax() -> Cascade:
    s, m = rd("S b h i j"), rd("M b h i")
    x = Local("x")
    weight = lambda t: power(call("relu", sub(s, t)), 2)  # noqa: E731
    root = Solve("x", sub(m, 1), m, cmp("==", red("sum", "j", weight(x)), 1), 12)
    body = [
        define(
            "S b h i j",
            red("sum", "e", div(mul(rd("Q b h i e"), rd("K b h j e")), mul(2, call("sqrt", Extent("e"))))),
            CAUSAL,
        ),
        define("M b h i", red("max", "j", s)),
        define("t b h i", root),
        define("O b h i f", red("sum", "j", mul(weight(rd("t b h i")), rd("V b h j f")))),
    ]
    return cascade("entmax", QKV, body, ["O"])


def gated(cond: Expr, then: Expr, other: Expr) -> Select:
    return Select(cond, then, other)


def negative(x: Expr) -> Unary:
    return Unary("-", x)
