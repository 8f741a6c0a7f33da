"""Random attention programs: kernels in their eager form against the interpreter, and the normal form before them."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl.analysis.ranks import classify
from attndsl.cascade.autodiff import differentiate
from attndsl.cascade.domains import explicit_domains
from attndsl.cascade.interpreter import interpret
from attndsl.diagnostics import DiagnosticError
from attndsl.schedule import Refused, plan_backward, plan_forward
from attndsl.schedule.normal import normalize
from tests.unit.schedule.harness import draw, load, run

DOMAINS = st.sampled_from(
    [
        "",
        "j <= i",
        "i - w < j <= i",
        "j // w == i // w",
        "j < i",
        "a[i] == c[j]",
        "j <= i or j < w",
        "i < j",
        "j < a[i]",
        "a[i] == c[j], j <= i",
    ]
)
SCORES = st.sampled_from(
    [
        "Q[i,e] * K[j,e]",
        "Q[i,e] * K[j,e] / sqrt(|e|) + 3 * u[i]",
        "tanh(Q[i,e] * K[j,e]) * v[j]",
        "Q[i,e] * K[j,e] - 0.5 * (i - j)",
        "Q[i,e] * K[j,e] + g[j] - g[i]",
        "Q[i,e] * abs(K[j,e]) + v[j] * u[i]",
        "sum[e](abs(Q[i,e] - K[j,e]))",
        "max[e](Q[i,e] + K[j,e])",
        "Q[i,e] * A[e,d] * K[j,d]",
    ]
)
# Weights made of the score S, with the definitions they need.
WEIGHTS = st.sampled_from(
    [
        ("softmax[j](S[i,j])", ""),
        ("S[i,j]", ""),
        ("relu(S[i,j])**2", ""),
        ("sigmoid(S[i,j]) * v[j]", ""),
        ("exp(S[i,j] - M[i])", "M[i] = max[j](S[i,j])"),
        (
            "exp(S[i,j] - M[i]) / (Z[i] + 1)",
            "M[i] = max[j](S[i,j])\n  Z[i] = sum[j](exp(S[i,j] - M[i]))",
        ),
        ("exp(S[i,j]) / (1 + N[i])", "N[i] = sum[j](S[i,j]**2)"),
        ("softmax[j](S[i,j]) * (S[i,j] - R[i])", "R[i] = sum[j](S[i,j])"),
        ("softmax[j](S[i,j]) - sigmoid(S[i,j])", ""),
        ("softmax[j](S[i,j]) - 0.5 * softmax[j](S[i,j] * v[j])", ""),
        ("T[i,j]", "T[i,j] = sum[e](softmax[j](S[i,j]) * K[j,e])"),
        ("S[i,j] / (1 + abs(X[j]))", "X[j] = sum[i](S[i,j])"),
    ]
)
RESULTS = st.lists(
    st.sampled_from(
        [
            ("O1[b,i,f]", "O1[i,f] = sum[j](W[i,j] * V[j,f])"),
            ("O2[b,i,f]", "O2[i,f] = sum[j : j > 2](W[i,j] * V[j,f])"),
            ("O3[b,i]", "O3[i] = sum[j](W[i,j])"),
            ("O4[b,j]", "O4[j] = sum[i](W[i,j])"),
            ("O5[b,i]", "O5[i] = max[j : j != 3](S[i,j])"),
            ("O6[b,i,j]", "O6[i,j] = W[i,j]"),
            ("O7[b,j,f]", "O7[j,f] = sum[i : i > 1](W[i,j] * Q[i,f])"),
            ("O8[b,i,f]", "O8[i,f] = sum[j](W[i,j] * V[j,f]) * u[i] + Q[i,f]"),
            ("O9[b]", "O9 = sum[i,j](W[i,j] * v[j])"),
            ("O11[b,i,f]", "O11[i,f] = max[j](S[i,j] + V[j,f])"),
            ("O12[b,j,f]", "O12[j,f] = min[i](abs(S[i,j] - V[j,f]) * 2)"),
            ("O10[b,i,e]", "O10[i,e] = sum[j](W[i,j] * K[j,e] * tanh(Q[i,e] + K[j,e]))"),
        ]
    ),
    min_size=1,
    max_size=3,
    unique=True,
)


def program(
    score: str, domain: str, weight: tuple[str, str], results: list[tuple[str, str]]
) -> str:
    where = f"   where {domain}" if domain else ""
    lines = [
        f"S[i,j] = {score}{where}",
        weight[1],
        f"W[i,j] = {weight[0]}",
        *(r for _, r in results),
    ]
    body = "\n  ".join(line for line in lines if line)
    inputs = (
        "Q[b,i,e], K[b,j,e], V[b,j,f], u[b,i], v[b,j], g[b,i], A[e,d], "
        "a[b,i]: int, c[b,j]: int, w: int = 3"
    )
    return (
        f"attention t({inputs}) -> {', '.join(o for o, _ in results)} {{\n  batch b\n  {body}\n}}"
    )


PROGRAMS = st.builds(program, SCORES, DOMAINS, WEIGHTS, RESULTS)
TILES = {"i": 4, "j": 4}
EXTENTS = {"b": 2, "i": 11, "j": 11, "e": 3, "f": 3, "d": 3}


@settings(max_examples=120, deadline=None)
@given(PROGRAMS, st.sampled_from([4, 8]), st.sampled_from([4, 8]), st.integers(0, 99))
def test_kernels_agree_with_the_interpreter(text: str, rows: int, columns: int, seed: int) -> None:
    try:
        cascade = load(text)
        plan = plan_forward(cascade)
    except (DiagnosticError, Refused):
        return
    inputs = draw(cascade, EXTENTS, seed)
    want = interpret(cascade, inputs, {}, start=0)
    got = run(plan, cascade, inputs, {}, tiles={"i": rows, "j": columns})
    for name, x in want.items():
        torch.testing.assert_close(got[name], x, rtol=1e-9, atol=1e-9, msg=lambda m: f"{text}\n{m}")


@settings(max_examples=80, deadline=None)
@given(PROGRAMS, st.integers(0, 99))
def test_the_normal_form_means_the_same(text: str, seed: int) -> None:
    try:
        cascade = load(text)
    except DiagnosticError:
        return
    inputs = draw(cascade, EXTENTS, seed)
    explicit = explicit_domains(cascade)
    normal = normalize(explicit, classify(cascade))
    want = interpret(cascade, inputs, {}, start=0)
    got = interpret(normal, inputs, {}, explicit=True)
    for name, x in want.items():
        torch.testing.assert_close(got[name], x, rtol=1e-9, atol=1e-9, msg=lambda m: f"{text}\n{m}")


@settings(max_examples=40, deadline=None)
@given(PROGRAMS, st.integers(0, 99))
def test_backward_kernels_agree_with_the_interpreter(text: str, seed: int) -> None:
    try:
        cascade = load(text)
        g = differentiate(cascade)
        plans = (
            plan_forward(g.forward, g.residuals),
            plan_backward(g.forward, g.backward, g.gradients),
        )
    except (DiagnosticError, Refused):
        return
    inputs = draw(cascade, EXTENTS, seed)
    leaves = {n: x.requires_grad_() if x.is_floating_point() else x for n, x in inputs.items()}
    outputs = interpret(cascade, leaves, {}, start=0)
    generator = torch.Generator().manual_seed(seed)
    upstream = {
        n: torch.randn(outputs[n].shape, generator=generator, dtype=torch.float64)
        for n in g.cotangents
    }
    total = sum((outputs[n].nan_to_num(0, 0, 0) * upstream[n]).sum() for n in upstream)
    wanted = torch.autograd.grad(total, [leaves[n] for n in g.gradients], materialize_grads=True)
    kept = run(plans[0], g.forward, {n: x.detach() for n, x in inputs.items()}, {}, tiles=TILES)
    known = {**inputs, **kept, **{g.cotangents[n]: x for n, x in upstream.items()}}
    given_ = {t.name: known[t.name].detach() for t in g.backward.inputs}
    got = run(plans[1], g.backward, given_, {}, tiles=TILES)
    for name, x in zip(g.gradients, wanted, strict=True):
        mine = got[g.gradients[name]]
        torch.testing.assert_close(mine, x, rtol=1e-8, atol=1e-8, msg=lambda m: f"{text}\n{m}")
