"""Random cascades: completing domains, or applying no shift, changes no value and no gradient; printing never fails."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Compare,
    Const,
    Define,
    DType,
    Expr,
    Index,
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
    TensorDecl,
    Unary,
)
from attndsl.cascade.printer import print_cascade, print_expr
from attndsl.cascade.starts import apply_start
from attndsl.cascade.verify import verify, verify_types

N = 5
RANKS = tuple(Rank(r) for r in ("i", "j")) + tuple(Rank(f"l{k}", iterates="j") for k in range(24))
INPUTS = (
    TensorDecl("x", (Index("i"),), ("i",)),
    TensorDecl("y", (Index("j"),), ("j",)),
    TensorDecl("B", (Index("i"), Index("j")), ("i", "j")),
)


@dataclass
class Scope:
    """What an expression may name: subscripts for the first and the second axis, and the tensors before it."""

    first: tuple[Expr, ...]
    second: tuple[Expr, ...]
    matrices: tuple[str, ...]
    vectors: tuple[str, ...]
    counter: list[int] = field(default_factory=lambda: [0])

    @property
    def numbers(self) -> tuple[Expr, ...]:
        found = {s for s in (*self.first, *self.second) if isinstance(s, Index)}
        return tuple(Position(s.name) for s in sorted(found, key=lambda s: s.name))


def subscript(draw: st.DrawFn, choices: tuple[Expr, ...]) -> Expr:
    """A lone index, or one that is moved and kept inside."""
    s = draw(st.sampled_from(choices))
    assert isinstance(s, Index)
    p = Position(s.name)
    match draw(st.integers(0, 5)):
        case 0:
            return Call("max", (Binary("-", p, Const(1)), Const(0)))
        case 1:
            return Binary("//", p, Const(2))
        case 2:
            return Binary("%", Binary("+", p, Param("w")), Const(N))
        case _:
            return s


def read(draw: st.DrawFn, scope: Scope) -> Expr:
    options = ["x", "y", "B", *scope.matrices, *scope.vectors]
    name = draw(st.sampled_from(options))
    one = subscript(draw, (*scope.first, *scope.second))
    if name in ("x", "y") or name in scope.vectors:
        return Read(name, (one,))
    return Read(name, (one, subscript(draw, (*scope.first, *scope.second))))


def condition(draw: st.DrawFn, scope: Scope, depth: int, on_data: bool) -> Expr:
    match draw(st.integers(0, 6 if depth else 2)):
        case 0 | 1:
            a, b = (
                draw(st.sampled_from(scope.numbers)),
                draw(st.sampled_from((*scope.numbers, Param("w"), Const(2)))),
            )
            return Compare(draw(st.sampled_from(["<", "<=", ">", ">=", "==", "!="])), a, b)
        case 2:
            a = draw(st.sampled_from(scope.numbers))
            return Compare("<=", Binary("-", a, Param("w")), draw(st.sampled_from(scope.numbers)))
        case 3:
            return Unary("not", condition(draw, scope, depth - 1, on_data))
        case 4 if on_data:
            return Compare("<", read(draw, scope), Const(0.5))
        case k:
            parts = tuple(condition(draw, scope, depth - 1, on_data) for _ in range(2))
            return Logic("and" if k % 2 else "or", parts)


def expression(draw: st.DrawFn, scope: Scope, depth: int) -> Expr:
    match draw(st.integers(0, 9)) if depth else 0:
        case 0 | 1 | 2:
            return read(draw, scope)
        case 3:
            return Binary(
                draw(st.sampled_from(["+", "-", "*"])),
                expression(draw, scope, depth - 1),
                expression(draw, scope, depth - 1),
            )
        case 4:
            # a function that overflows and one that has no value below 0, both inside their ranges
            inner = expression(draw, scope, depth - 1)
            return draw(
                st.sampled_from(
                    [
                        Call("exp", (Call("tanh", (inner,)),)),
                        Call("sqrt", (Binary("+", Const(1.0), Call("abs", (inner,))),)),
                        Call("sigmoid", (inner,)),
                        Binary("/", Const(1.0), Binary("+", Const(2.0), Call("tanh", (inner,)))),
                    ]
                )
            )
        case 5 | 6:
            return Select(
                condition(draw, scope, 1, True),
                expression(draw, scope, depth - 1),
                expression(draw, scope, depth - 1),
            )
        case 7:
            position = draw(st.sampled_from(scope.numbers))
            return Binary("*", Binary("/", position, Const(4)), expression(draw, scope, depth - 1))
        case _:
            bound = Index(f"l{scope.counter[0]}")
            scope.counter[0] += 1
            inside = Scope(
                (*scope.first, bound),
                (*scope.second, bound),
                scope.matrices,
                scope.vectors,
                scope.counter,
            )
            where = condition(draw, inside, 1, True) if draw(st.booleans()) else None
            op = draw(
                st.sampled_from([Reduction.SUM, Reduction.SUM, Reduction.MAX, Reduction.PROD])
            )
            body = expression(draw, inside, depth - 1)
            whole = Reduce(op, (bound.name,), body, where)
            # over no points a maximum is -inf
            return Call("tanh", (whole,)) if op is Reduction.MAX else whole


@st.composite
def cascades(draw: st.DrawFn) -> Cascade:
    """Three to five definitions over one square of positions, each with a domain or without."""
    body: list[Define] = []
    counter = [0]
    for k in range(draw(st.integers(3, 5))):
        matrices = tuple(d.tensor for d in body if len(d.indices) == 2)
        vectors = tuple(d.tensor for d in body if len(d.indices) == 1)
        flat = draw(st.integers(0, 3)) == 0
        first, second = (Index("i"),), (() if flat else (Index("j"),))
        scope = Scope(first, second or first, matrices, vectors, counter)
        where = condition(draw, scope, 1, False) if draw(st.booleans()) else None
        indices = ("i",) if flat else ("i", "j")
        if counter[0] > 16:
            break
        body.append(Define(f"T{k}", indices, expression(draw, scope, 2), where))
    outputs = tuple(Output(d.tensor, d.indices) for d in body)
    return Cascade(
        "random", INPUTS, (ScalarParam("w", DType.INT, 2),), outputs, (), RANKS, tuple(body)
    )


def inputs(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"x": (N,), "y": (N,), "B": (N, N)}
    return {
        n: torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_()
        for n, s in shapes.items()
    }


def gradients(out: dict[str, Tensor], leaves: dict[str, Tensor]) -> list[Tensor]:
    loss = sum(
        (torch.where(torch.isfinite(x), x, 0.0).sum() for x in out.values()), torch.zeros(())
    )
    if not loss.requires_grad:
        return []
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return [torch.zeros((), dtype=torch.float64) if g is None else g for g in found]


@settings(max_examples=120, deadline=None)
@given(cascades(), st.integers(0, 1000))
def test_completing_domains_preserves_the_program(cascade: Cascade, seed: int) -> None:
    verify(cascade)
    verify_types(cascade)
    completed = explicit_domains(cascade)
    verify(completed)
    verify_types(completed)
    leaves = inputs(seed)
    want = interpret(cascade, leaves, debug=True)
    # Domains are now what `where` says alone: what is read outside of them is NaN. Positions are as written:
    # a domain that came in through a subscript (`i // 2 - w <= j`) puts no index on another's axis.
    got = interpret(completed, leaves, start=0, explicit=True)
    for name in want:
        torch.testing.assert_close(
            got[name],
            want[name],
            msg=lambda m: f"{m}\n{print_cascade(cascade)}\n{print_cascade(completed)}",
        )
    for a, b in zip(gradients(got, leaves), gradients(want, leaves), strict=True):
        assert torch.isfinite(b).all(), print_cascade(cascade)
        torch.testing.assert_close(a, b)


@settings(max_examples=60, deadline=None)
@given(cascades())
def test_a_start_of_zero_changes_nothing(cascade: Cascade) -> None:
    leaves = inputs(0)
    want = interpret(cascade, leaves)
    got = interpret(apply_start(cascade), leaves)
    for name in want:
        torch.testing.assert_close(got[name], want[name])


@settings(max_examples=60, deadline=None)
@given(cascades())
def test_printing_never_fails(cascade: Cascade) -> None:
    for c in (cascade, explicit_domains(cascade), apply_start(cascade)):
        text = print_cascade(c)
        assert text.count("(") == text.count(")")
        for d in c.body:
            assert print_expr(d.expr)
