"""Scaling types: how tensors answer a shift of the stabiliser."""

from __future__ import annotations

from fractions import Fraction

import pytest

from attndsl.cascade.invariance import INV, Kind, Scaling, scaling, scaling_of, unseen
from attndsl.cascade.monomials import Polynomial, expression, monomial, polynomial
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    Expr,
    Index,
    Output,
    Param,
    Rank,
    Read,
    Reduce,
    Reduction,
    TensorDecl,
    Unary,
)


def at(tensor: str, indices: str = "") -> Read:
    return Read(tensor, tuple(Index(i) for i in indices.split()))


def op(sign: str, *args: Expr) -> Expr:
    out = args[0]
    for a in args[1:]:
        out = Binary(sign, out, a)
    return out


def call(fn: str, *args: Expr) -> Expr:
    return Call(fn, args)


def fold(kind: str, index: str, body: Expr) -> Expr:
    return Reduce(Reduction(kind), (index,), body)


S, M, P, Z, V = at("S", "i j"), at("M", "i"), at("P", "i j"), at("Z", "i"), at("V", "j f")


def program(outputs: str, **definitions: tuple[str, Expr]) -> Cascade:
    names = sorted({i for d in definitions.values() for i in d[0].split()} | {"j", "f", "i", "l"})
    return Cascade(
        name="p",
        inputs=(
            TensorDecl("S", (Index("i"), Index("j")), ("i", "j")),
            TensorDecl("V", (Index("j"), Index("f")), ("j", "f")),
            TensorDecl("sink", (), ()),
        ),
        params=(),
        outputs=tuple(Output(o, tuple(definitions[o][0].split())) for o in outputs.split()),
        batch=(),
        ranks=tuple(Rank(n) for n in names),
        body=tuple(Define(n, tuple(i.split()), e) for n, (i, e) in definitions.items()),
    )


ROW_MAX = fold("max", "j", S)
SOFTMAX = {
    "M": ("i", ROW_MAX),
    "P": ("i j", call("exp", op("-", S, M))),
    "Z": ("i", fold("sum", "j", P)),
}
WEIGHTED = fold("sum", "j", op("*", op("/", P, Z), V))


def test_softmax_scales_by_exp_of_minus_the_maximum() -> None:
    p = program("O LSE", **SOFTMAX, O=("i f", WEIGHTED), LSE=("i", op("+", M, call("log", Z))))
    s = scaling(p, "M")
    assert s["P"] == Scaling(Kind.MUL, Polynomial.constant(-1), (Index("i"),), ("i", "j"))
    assert s["Z"].exponent == Unary("-", Const(1))
    assert s["O"].invariant
    assert s["LSE"].invariant
    assert unseen(p) == {"M"}


def test_division_after_the_sum_is_the_same() -> None:
    n = fold("sum", "j", op("*", P, V))
    p = program("O", **SOFTMAX, N=("i f", n), O=("i f", op("/", at("N", "i f"), Z)))
    assert scaling(p, "M")["N"].kind is Kind.MUL
    assert "M" in unseen(p)


def test_a_sink_joins_the_denominator() -> None:
    sink = at("sink")
    z = op("+", call("exp", op("-", sink, M)), fold("sum", "j", P))
    p = program(
        "O",
        M=("i", call("max", sink, ROW_MAX)),
        P=SOFTMAX["P"],
        Z=("i", z),
        O=("i f", WEIGHTED),
    )
    assert "M" in unseen(p)


def test_an_unmatched_sink_is_seen() -> None:
    z = op("+", Const(1), fold("sum", "j", P))
    p = program("O", M=SOFTMAX["M"], P=SOFTMAX["P"], Z=("i", z), O=("i f", WEIGHTED))
    assert scaling(p, "M")["Z"].kind is Kind.UNKNOWN
    assert unseen(p) == frozenset()


def softpick(eps: float) -> Cascade:
    x = op("-", call("exp", op("-", S, M)), call("exp", Unary("-", M)))
    a = at("X", "i j")
    z = op("+", fold("sum", "j", call("abs", a)), Const(eps))
    o = fold("sum", "j", op("*", op("/", call("relu", a), Z), V))
    return program("O", M=("i", ROW_MAX), X=("i j", x), Z=("i", z), O=("i f", o))


def test_relu_and_abs_are_positively_homogeneous() -> None:
    assert "M" in unseen(softpick(0.0))


def test_an_epsilon_after_stabilisation_is_seen() -> None:
    assert unseen(softpick(1e-6)) == frozenset()


def test_an_output_maximum_is_not_a_stabiliser() -> None:
    p = program("O M", **SOFTMAX, O=("i f", WEIGHTED))
    assert unseen(p) == frozenset()


def test_local_maxima_are_found_after_the_global_one() -> None:
    s3, local, p3 = at("S3", "i l j"), at("L", "i l"), at("P", "i l j")
    z = fold("sum", "l", op("*", fold("sum", "j", p3), call("exp", op("-", local, M))))
    o = fold("sum", "l", fold("sum", "j", op("/", op("*", p3, call("exp", op("-", local, M))), Z)))
    p = program(
        "O",
        S3=("i l j", op("*", S, at("V", "l j"))),
        L=("i l", fold("max", "j", s3)),
        P=("i l j", call("exp", op("-", s3, local))),
        M=("i", fold("max", "l", local)),
        Z=("i", z),
        O=("i", o),
    )
    assert {"L", "M"} <= unseen(p)


def test_a_temperature_scales_the_exponent() -> None:
    env = scaling(program("Z", **SOFTMAX), "M")
    s = scaling_of(call("exp", op("*", Param("c"), op("-", S, M))), env)
    assert s.kind is Kind.MUL
    assert s.exponent == Unary("-", Param("c"))
    in_base_two = scaling_of(call("exp2", op("-", S, M)), env)
    assert in_base_two.exponent == Unary("-", call("log", Const(2)))
    assert scaling_of(call("log2", call("exp2", M)), env) == scaling_of(M, env)


@pytest.mark.parametrize(
    ("e", "kind"),
    [
        (op("*", P, P), Kind.MUL),
        (op("+", P, S), Kind.UNKNOWN),
        (op("*", M, S), Kind.ADD),
        (op("*", M, M), Kind.UNKNOWN),
        (op("-", M, M), Kind.INV),
        (op("-", M, at("M", "j")), Kind.UNKNOWN),
        (op("/", P, at("Z", "j")), Kind.UNKNOWN),
        (fold("sum", "i", at("Z", "i")), Kind.UNKNOWN),
        (fold("max", "j", op("-", S, M)), Kind.ADD),
        (fold("sum", "j", op("-", S, M)), Kind.UNKNOWN),
        (call("tanh", M), Kind.UNKNOWN),
        (call("sign", P), Kind.INV),
        (call("sqrt", P), Kind.MUL),
        (call("max", P, Const(0)), Kind.MUL),
        (call("max", P, Const(1)), Kind.UNKNOWN),
        (op("**", P, Const(2)), Kind.MUL),
    ],
)
def test_rules(e: Expr, kind: Kind) -> None:
    assert scaling_of(e, scaling(program("Z", **SOFTMAX), "M")).kind is kind


def test_inputs_do_not_move() -> None:
    assert scaling_of(S, scaling(program("Z", **SOFTMAX), "M")) == INV


def test_monomials_are_equal_in_any_order() -> None:
    x, y = at("x"), at("y")
    a = monomial(op("/", op("*", x, Const(3), y), call("sqrt", op("*", Const(4), x))))
    b = monomial(
        op("/", op("*", y, x, Const(6)), op("*", Const(2), call("sqrt", op("*", x, Const(4)))))
    )
    assert a == b
    assert monomial(op("/", op("*", x, y), op("*", y, x))) == monomial(Const(1))


def test_even_roots_do_not_distribute() -> None:
    x = at("x")
    assert monomial(call("sqrt", op("**", x, Const(2)))) != monomial(x)
    assert monomial(op("**", call("sqrt", x), Const(2))) == monomial(x)


def test_monomials_print_as_quotients() -> None:
    x = at("x")
    assert expression(monomial(op("/", Unary("-", x), op("*", Const(2), x, x)))) == Unary(
        "-", op("/", Const(1), op("*", Const(2), x))
    )
    assert expression(monomial(op("*", Const(0.1), x))) == op("*", Const(0.1), x)
    assert monomial(op("**", x, Const(0.5))).power(x) == Fraction(1, 2)


def test_polynomials_collect_terms() -> None:
    x, y = at("x"), at("y")
    difference = op("-", op("*", Const(2), op("-", x, y)), op("+", x, x))
    assert polynomial(difference) == polynomial(op("*", Const(-2), y))
