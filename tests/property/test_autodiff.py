"""Derived backward programs of random programs against autograd, in float64."""

from __future__ import annotations

import operator
import re

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl.cascade.monomials import expression, monomial, polynomial, total
from attndsl.cascade.nodes import Binary, Call, Const, Expr, Read, Unary
from tests.unit.cascade.gradients import agree, derived, numbers

# Every part reads inputs of its own, so that programs differ in what is differentiated, too.
TERMS = {
    "dot": "Q[i,e] * K[j,e]",
    "scaled": "Q[i,e] * K[j,e] / sqrt(|e|) * tau[i]",
    "slope": "c[] * (i - j)",
    "dense": "B[i,j]",
    "low rank": "U[i,r] * W[j,r]",
    "table": "table[i - j + |i| - 1]",
    "decay": "G[i] - G[j]",
    "row": "u[i]",
    "distance": "sum[e]((Q[i,e] - K[j,e]) ** 2)",
    "gathered": "Q[i,e] * R[i - j + |i| - 1, e]",
    "neighbour": "(K[j,e] * (Q[i-1,e] if i > 0 else Q[i,e]))",
}
MAPS = ["{}", "-abs({})", "3 * tanh({} / 3)", "softplus({})", "min({}, 1.5)", "{} * sigmoid(c[])"]
DOMAINS = ["", "where j <= i", "where j < i", "where abs(i - j) < 2, j != 3", "where keep[j] > 0"]
NORMALIZERS = {
    "softmax": "A[i,j] = softmax[j](S[i,j])",
    "sink": "M[i] = max(a[], max[j](S[i,j]))  P[i,j] = exp(S[i,j] - M[i])"
    "  A[i,j] = P[i,j] / (exp(a[] - M[i]) + sum[j](P[i,j]))",
    "plain": "Z[i] = sum[j](exp(S[i,j]))  A[i,j] = exp(S[i,j]) / Z[i]",
    "sigmoid": "A[i,j] = sigmoid(S[i,j] - 1)",
    "relu": "A[i,j] = relu(S[i,j]) ** 2",
    "l1": "P[i,j] = softplus(S[i,j])  A[i,j] = P[i,j] / sum[j](P[i,j])",
    "softpick": "M[i] = max[j](S[i,j])  X[i,j] = exp(S[i,j] - M[i]) - exp(-M[i])"
    "  A[i,j] = relu(X[i,j]) / (sum[j](abs(X[i,j])) + 0.01)",
    "standard": "m[i] = sum[j](S[i,j]) / |j|  v[i] = sum[j]((S[i,j] - m[i]) ** 2)"
    "  A[i,j] = (S[i,j] - m[i]) * rsqrt(v[i] + 0.1)",
    "reweighted": "P[i,j] = softmax[j](S[i,j])  X[i,j] = P[i,j] ** 1.5 * w[j]"
    "  A[i,j] = X[i,j] / (0.1 + sum[j](abs(X[i,j])))",
}
OUTPUTS = {
    "O[i,f]": "O[i,f] = A[i,j] * V[j,f]",
    "L[i]": "L[i] = logsumexp[j](S[i,j]) if any[j](S[i,j] > -1000) else 0",
    "T[i]": "T[i] = max[j](S[i,j]) if any[j](S[i,j] > -1000) else u[i]",
    "E[i]": "E[i] = -sum[j](A[i,j] * S[i,j])",
    "C[j]": "C[j] = sum[i](A[i,j])",
    "Y[i,j]": "Y[i,j] = A[i,j] * u[i]",
    "X2[i,f]": "X2[i,f] = w[i] * (A[i,j] * V[j,f]) - V[i,f]",
}
DECLARED = {
    "Q": "i e",
    "K": "j e",
    "V": "j f",
    "U": "i r",
    "W": "j r",
    "B": "i j",
    "R": "x e",
    "G": "j",
    "table": "x",
    "tau": "i",
    "u": "i",
    "w": "j",
    "c": "",
    "a": "",
    "keep": "j",
}


@st.composite
def programs(draw: st.DrawFn) -> str:
    terms = draw(st.lists(st.sampled_from(sorted(TERMS)), min_size=1, max_size=3, unique=True))
    score = draw(st.sampled_from(MAPS)).format(
        "(" + " + ".join(["u[i] * w[j]", *(TERMS[t] for t in terms)]) + ")"
    )
    domain = draw(st.sampled_from(DOMAINS))
    weights = NORMALIZERS[draw(st.sampled_from(sorted(NORMALIZERS)))]
    outputs = draw(st.lists(st.sampled_from(sorted(OUTPUTS)), min_size=1, max_size=3, unique=True))
    body = [f"S[i,j] = {score} {domain}", weights, *(OUTPUTS[o] for o in outputs)]
    if not any("A[" in OUTPUTS[o] for o in outputs):
        body.remove(weights)
    text = "\n".join(body).replace("c[]", "c").replace("a[]", "a")
    used = [n for n in DECLARED if _reads(text, n)]
    inputs = ", ".join(
        f"{n}[{','.join(DECLARED[n].split())}]" + (": int" if n == "keep" else "") for n in used
    )
    return f"attention a({inputs}) -> {', '.join(outputs)} {{\n{text}\n}}"


def _reads(text: str, name: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", text) is not None


@settings(max_examples=40, deadline=None)
@given(text=programs(), n=st.integers(1, 5), seed=st.integers(0, 2**20), masked=st.booleans())
def test_random_programs(text: str, n: int, seed: int, masked: bool) -> None:
    cascade, _ = derived(text)
    size = {"i": n, "j": n, "e": 3, "f": 2, "r": 2, "x": 2 * n - 1}
    inputs = {}
    for k, t in enumerate(cascade.inputs):
        shape = [size[r] for r in t.ranks]
        inputs[t.name] = numbers(*shape, seed=seed + k)
    if "keep" in inputs:
        inputs["keep"] = (inputs["keep"] > 0).long()
    # a score of -inf that is multiplied by what has a gradient gives 0 * -inf, in autograd too
    multiplied = "E[i]" in text or "* sigmoid(c)" in text
    if masked and "B" in inputs and "softmax" in text and not multiplied:
        inputs["B"][numbers(n, n, seed=seed) > 0.5] = -torch.inf
        inputs["B"][0] = -torch.inf
    agree(text, inputs)


@st.composite
def algebra(draw: st.DrawFn, depth: int = 3) -> Expr:
    if depth == 0 or draw(st.booleans()):
        leaf = st.sampled_from([Read(n, ()) for n in "xyz"])
        return draw(st.one_of(leaf, st.integers(-3, 3).map(Const)))
    a = draw(algebra(depth - 1))
    match draw(st.sampled_from(["-", "sqrt", "+", "-", "*", "*", "/", "**"])):
        case "sqrt":
            return Call("sqrt", (Binary("*", a, a),))
        case "-" as op if draw(st.booleans()):
            return Unary(op, a)
        case "/":
            return Binary("/", a, Binary("+", Const(4), Binary("*", a, a)))
        case "**":
            return Binary("**", a, Const(draw(st.integers(0, 3))))
        case op:
            return Binary(op, a, draw(algebra(depth - 1)))


_OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}


def evaluate(e: Expr, at: dict[str, float]) -> float:
    match e:
        case Const(value=v):
            return float(v)
        case Read():
            return at[e.tensor]
        case Unary(_, a):
            return -evaluate(a, at)
        case Call(_, (a,)):
            return float(evaluate(a, at) ** 0.5)
        case Binary(op, a, b):
            x, y = evaluate(a, at), evaluate(b, at)
            return float(_OPERATORS[op](x, y))
    raise AssertionError(e)


@settings(max_examples=200, deadline=None)
@given(e=algebra(), values=st.tuples(*[st.floats(0.5, 2)] * 3))
def test_normal_forms_keep_the_value(e: Expr, values: tuple[float, float, float]) -> None:
    at = dict(zip("xyz", values, strict=True))
    want = evaluate(e, at)
    for other in (expression(monomial(e)), total(polynomial(e))):
        assert abs(evaluate(other, at) - want) <= 1e-9 * (1 + abs(want))
