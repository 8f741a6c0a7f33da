"""From text to cascade: what reads carry, what bound indices are called, what outputs hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attndsl.cascade import walk
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Const,
    DType,
    Expr,
    Index,
    Output,
    Param,
    Position,
    Read,
    Reduce,
    Select,
    Solve,
)
from attndsl.cascade.verify import verify
from attndsl.frontend import load_cascades
from attndsl.source import Source

Load = Callable[[str], Cascade]
Body = Callable[[str], list[str]]

ALIBI = """
attention alibi(Q[b,h,i,e], K[b,h//G,j,e], V[b,h//G,j,f], slope[h], G: int) -> O[b,h,i,f], LSE[b,h,i] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] / sqrt(|e|) - slope * (i - j)   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
  LSE[i] = logsumexp[j](S[i,j])
}
"""


def test_alibi_whole(load: Load, body: Body) -> None:
    assert body(ALIBI) == [
        "S[i,j] = sum[e_1](Q[i,e_1] * K[j,e_1] / sqrt(|e|)) - slope * (i - j) where j <= i",
        "M_S[i] = max[j_2](S[i,j_2])",
        "P_S[i,j] = exp(S[i,j] - M_S[i])",
        "Z_S[i] = sum[j_3](P_S[i,j_3])",
        "O[i,f] = sum[j_1](P_S[i,j_1] / Z_S[i] * V[j_1,f])",
        "LSE[i] = M_S[i] + log(Z_S[i])",
    ]
    c = load(ALIBI)
    assert c.batch == ("b", "h")
    assert c.outputs == (Output("O", ("b", "h", "i", "f")), Output("LSE", ("b", "h", "i")))
    assert c.define("S").indices == ("b", "h", "i", "j")
    k = c.input("K")
    assert k.dims == (Index("b"), Binary("//", Position("h"), Param("G")), Index("j"), Index("e"))
    assert k.ranks == ("b", "K.1", "j", "e")
    assert c.rank("j_1").iterates == "j"
    assert c.rank("K.1").extent is None


def every(c: Cascade) -> list[Expr]:
    return [
        n for d in c.body for e in (d.expr, d.where, d.init) if e is not None for n in walk.walk(e)
    ]


def test_every_program_of_the_examples_has_the_promised_form(contract: list[str]) -> None:
    """The promises of `cascade/nodes.py`, checked on every example."""
    for text in contract:
        for c in load_cascades(Source("example", text)):
            arity = {t.name: len(t.dims) for t in c.inputs} | {
                d.tensor: len(d.indices) for d in c.body
            }
            nodes = every(c)
            bound = [i for n in nodes if isinstance(n, Reduce) for i in n.indices]
            assert len(bound) == len(set(bound)), c.name
            assert not set(bound) & {i for d in c.body for i in d.indices}, c.name
            names = {r.name for r in c.ranks}
            declared = {r.name for r in c.ranks if r.iterates is None}
            for n in nodes:
                if isinstance(n, Read):
                    assert len(n.subs) == arity[n.tensor], (c.name, n)
                    # A lone subscript is an Index; inside of arithmetic it is a Position.
                    for s in n.subs:
                        assert not isinstance(s, Position)
                        assert isinstance(s, Index) or not any(
                            isinstance(x, Index) for x in _own(s)
                        )
                if isinstance(n, Index | Position):
                    assert n.name in names, (c.name, n)
            assert all(r.iterates in declared for r in c.ranks if r.iterates is not None)
            verify(c)
            for d in c.body:
                assert walk.free(d.expr) <= set(d.indices), (c.name, d.tensor)
                assert d.where is None or walk.free(d.where) <= set(d.indices)
            seen: set[str] = set()
            for d in c.body:
                others = walk.reads(d.expr) - {t.name for t in c.inputs} - {d.tensor}
                assert others <= seen, (c.name, d.tensor)
                seen.add(d.tensor)
            for o in c.outputs:
                assert set(o.indices) == set(c.define(o.name).indices)


def _own(e: Expr) -> list[Expr]:
    """Subexpressions outside nested reads."""
    if isinstance(e, Read):
        return []
    return [e, *(x for c in walk.children(e) for x in _own(c))]


def test_a_body_tensor_carries_the_batch_indices_of_what_it_reads(load: Load) -> None:
    c = load(
        """
        attention f(X[b,h,i], slope[h], bias[i,k], scale[b]) -> O[b,h,i], A[h,i,k], T[k,i] {
          batch b, h
          A[i,k] = slope * bias[i,k]
          T[k,i] = 2 * bias[i,k]
          U = scale + 1
          O[i]   = X[i] * sum[k](A[i,k]) * U
        }
        """
    )
    assert [d.indices for d in c.body] == [("h", "i", "k"), ("k", "i"), ("b",), ("b", "h", "i")]
    (read,) = [n for n in walk.walk(c.define("O").expr) if isinstance(n, Read) and n.tensor == "A"]
    assert [type(s) for s in read.subs] == [Index] * 3
    assert read.subs[0] == Index("h")


def test_an_output_may_be_broadcast_over_a_batch(load: Load) -> None:
    c = load("attention f(X[b,i], y[h]) -> O[h,b,i] { batch b, h; O[i] = X[i] + 0 * y * 0 }")
    assert c.outputs[0].indices == ("h", "b", "i")
    c = load(
        "attention f(X[b,i], y[h,i]) -> O[b,i], P[b,h,i] { batch b, h; O[i] = X[i]; P[i] = y[i] }"
    )
    assert c.define("P").indices == ("b", "h", "i")


def test_mixed_heads_write_every_index(body: Body) -> None:
    program = """
    attention mix(W[g,h], P[b,h,i,j], V[b,g,j,f]) -> O[b,g,i,f] {
      batch b
      M[g,i,j] = W[g,h] * P[h,i,j]
      O[g,i,f] = M[g,i,j] * V[g,j,f]
    }
    """
    assert body(program) == [
        "M[g,i,j] = sum[h_1](W[g,h_1] * P[h_1,i,j])",
        "O[g,i,f] = sum[j_1](M[g,i,j_1] * V[g,j_1,f])",
    ]


def test_a_recurrence_reads_its_past_and_sums_its_state(body: Body) -> None:
    program = """
    attention delta(Q[b,t,e], K[b,t,e], V[b,t,f], beta[b,t]) -> O[b,t,f] {
      batch b
      H[t,e,f] = H[t-1,e,f] - beta[t] * K[t,e] * (K[t,c] * H[t-1,c,f]) + K[t,e] * V[t,f]   init 0
      O[t,f]   = Q[t,e] * H[t,e,f]
    }
    """
    assert body(program) == [
        "H[t,e,f] = H[t - 1,e,f] - beta[t] * K[t,e] * sum[c](K[t,c] * H[t - 1,c,f]) + K[t,e] * V[t,f] init 0",
        "O[t,f] = sum[e_1](Q[t,e_1] * H[t,e_1,f])",
    ]


def test_a_scan_takes_the_rank_of_the_subscript(load: Load) -> None:
    c = load("attention f(g[j,e]) -> C[j,e] { C[j,e] = sum[l : l <= j](g[l,e]) }")
    assert c.rank("l").iterates == "j"
    (reduce,) = [n for n in every(c) if isinstance(n, Reduce)]
    assert reduce.indices == ("l",)
    assert reduce.where is not None


def test_an_inner_name_hides_an_outer_one(body: Body) -> None:
    program = "attention f(X[i,j]) -> O[i,j] { O[i,j] = X[i,j] / sum[j](X[i,j] + max[i](X[i,j])) }"
    assert body(program) == ["O[i,j] = X[i,j] / sum[j_1](X[i,j_1] + max[i_1](X[i_1,j_1]))"]


def test_a_tensor_read_at_another_index_lends_its_rank(load: Load) -> None:
    c = load("attention f(X[i,e]) -> D[i,k] { D[i,k] = X[i,e] * X[k,e] }")
    assert c.rank("k").iterates == "i"


def test_split_ranks(load: Load) -> None:
    c = load(
        """
        attention f(K[j,e], w: int = 64) -> L[j1,e] {
          rank j1 = |j| // w, j0 = w
          L[j1,e] = max[j0](K[j1*w + j0, e])
        }
        """
    )
    assert c.rank("j0").extent == Param("w")
    (read,) = [n for n in every(c) if isinstance(n, Read)]
    assert read.subs[0] == Binary(
        "+",
        Binary("*", Position("j1"), Param("w")),
        Position(c.define("L").expr.indices[0]),  # type: ignore[union-attr]
    )


def test_domains_written_on_the_left_or_after_where_are_the_same(load: Load) -> None:
    a = load("attention f(X[i,j]) -> S[i,j] { S[i, j : j <= i] = X[i,j] where i < 9 }")
    b = load("attention f(X[i,j]) -> S[i,j] { S[i,j] = X[i,j] where i < 9, j <= i }")
    assert a == b


def test_defs_are_expanded_as_one_factor(body: Body) -> None:
    program = """
    def relu2(x) = max(x, 0)**2
    def score(a, b) = relu2(a) + b
    attention f(Q[i,e], K[j,e], V[j,f]) -> O[i,f] {
      S[i,j] = Q[i,e] * K[j,e]
      O[i,f] = score(S[i,j], 1) * V[j,f]
    }
    """
    assert body(program)[1] == "O[i,f] = sum[j_1]((max(S[i,j_1], 0)**2 + 1) * V[j_1,f])"


def test_a_def_may_read_its_parameter(body: Body) -> None:
    program = """
    def upto(x) = sum[l : l <= j](x[l])
    attention f(g[j]) -> C[j] { C[j] = upto(g) / |j| }
    """
    assert body(program) == ["C[j] = sum[l : l <= j](g[l]) / |j|"]


def test_a_def_used_in_two_contexts_is_summed_in_each(body: Body) -> None:
    program = """
    def twice(x) = x + x * x
    attention f(Q[i,e], K[j,e]) -> S[i,j] { S[i,j] = twice(Q[i,e] * K[j,e]) }
    """
    assert body(program) == [
        "S[i,j] = sum[e_1](Q[i,e_1] * K[j,e_1])"
        " + sum[e_2](Q[i,e_2] * K[j,e_2] * (Q[i,e_2] * K[j,e_2]))"
    ]


@pytest.mark.parametrize(
    ("declaration", "dtype", "default"),
    [
        ("w: int = 4096", DType.INT, 4096),
        ("w: float = 50.0", DType.FLOAT, 50.0),
        ("w: float = 3", DType.FLOAT, 3.0),
        ("w: float = 1/8", DType.FLOAT, 0.125),
        ("w: int = -2", DType.INT, -2),
        ("w: int", DType.INT, None),
        ("w = 3", DType.INT, 3),
        ("w = 0.5", DType.FLOAT, 0.5),
    ],
)
def test_parameters(load: Load, declaration: str, dtype: DType, default: float | None) -> None:
    (p,) = load(f"attention f(X[i], {declaration}) -> O[i] {{ O[i] = X[i] * w }}").params
    assert (p.dtype, p.default) == (dtype, default)
    assert type(p.default) is type(default)


def test_a_flag_chooses(load: Load) -> None:
    c = load("attention f(X[i], flag: bool = False) -> O[i] { O[i] = X[i] if flag else 0 }")
    assert c.params[0].default is False
    assert isinstance(c.define("O").expr, Select)


def test_assumptions_speak_of_every_element(load: Load) -> None:
    c = load(
        "attention f(X[b,h//G,i], r: float, G: int, Y[b,h,i]) -> O[b,h,i] { batch b, h\n"
        "assume X <= 0, r < 1; O[i] = X[i] * r * Y[i] }"
    )
    first, second = c.assumes
    (read,) = [n for n in walk.walk(first) if isinstance(n, Read)]
    assert read.subs == c.input("X").dims
    assert walk.reads(second) == frozenset()


def test_an_integer_recurrence_stays_one(load: Load) -> None:
    c = load(
        "attention f(X[t], id[t]: int) -> O[t] {\n"
        "N[t] = N[t-1] + id[t] init 0\n"
        "F[t] = F[t-1] + X[t] init 0\n"
        "O[t] = X[N[t] % |t|] + F[t] }"
    )
    assert c.define("N").init == Const(0)
    with pytest.raises(Exception, match="A0251"):
        load_cascades(
            Source(
                "t",
                "attention f(X[t]) -> O[t] { N[t] = N[t-1] + X[t] init 0\n O[t] = X[N[t]] }",
            )
        )


def test_solve(load: Load) -> None:
    c = load(
        "attention f(S[i,j]) -> T[i] { T[i] = solve[x : 0 <= x <= |j|](sum[j](relu(S[i,j] - x)) == 1, iters=7) }"
    )
    solve = c.define("T").expr
    assert isinstance(solve, Solve)
    assert (solve.var, solve.iters) == ("x", 7)
    assert "x" not in {r.name for r in c.ranks}


def test_lowering_is_deterministic() -> None:
    assert load_cascades(Source("a", ALIBI)) == load_cascades(Source("a", ALIBI))


def test_spans_point_at_the_text(load: Load) -> None:
    text = ALIBI
    (c,) = load_cascades(Source("a", text))
    for d in c.body:
        for n in walk.walk(d.expr):
            if n.span is not None:
                assert 0 <= n.span.start < n.span.end <= len(text)
    reads = [n for n in walk.walk(c.define("S").expr) if isinstance(n, Read)]
    assert [text[n.span.start : n.span.end] for n in reads if n.span] == [
        "Q[i,e]",
        "K[j,e]",
        "slope",
    ]
