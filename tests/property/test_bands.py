"""Random rows along diagonals, `R[i - j + c, e]` and what is made of one: both passes against the interpreter."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl.cascade.autodiff import differentiate
from attndsl.cascade.interpreter import interpret
from attndsl.schedule import Plan, plan_backward, plan_forward
from attndsl.schedule.tile import Pick
from tests.unit.schedule.harness import draw, kernels, load, run

# Each is a row of the table for all positions below 24, and the same along diagonals.
ROWS = st.sampled_from(
    [
        "i - j + 30",
        "j - i + 30",
        "i + j",
        "max(min(i - j, 3), -2) + 2",
        "abs(i - j)",
        "min(j - i, i - j) + 30",
        "10 + (j - i) // 2 - w + 10",
        "bucket[i - j + 30]",
        "first + i - j + 30",
    ]
)
SCORES = st.sampled_from(
    [
        "Q[i,e] * K[j,e] + Q[i,e] * R[{row}, e]",
        "Q[i,e] * K[j,e] + K[j,e] * R[{row}, e]",
        "Q[i,e] * K[j,e] + (Q[i,e] + u[e]) * R[{row}, e] + K[j,e] * T[{other}, e]",
        "tanh(Q[i,e] * R[{row}, e]) * v[j]",
        "(Q[i,e] * K[j,e]) * (Q[i,e] * R[{row}, e]) + Q[i,e] * R[{other}, e]",
    ]
)
DOMAINS = st.sampled_from(["", "j <= i", "i - w <= j <= i", "abs(i - j) <= 2", "a <= j"])
RESULTS = st.sampled_from(
    [
        "P[i,j] * V[j,f]",
        "P[i,j] * V[j,f] + P[i,j] * X[{row}, f]",
        "P[i,j] * v[j] * X[{other}, f]",
    ]
)
ROWS_OF_TABLES = 64


def program(row: str, other: str, score: str, domain: str, result: str) -> str:
    where = f"   where {domain}" if domain else ""
    inputs = (
        "Q[h,i,e], K[h,j,e], V[h,j,f], R[h,r,e], T[r,e], X[r,f], u[h,e], v[h,j], "
        "bucket[h,r]: int, first[h]: int, a[h]: int, w: int = 3"
    )
    lines = [
        f"S[i,j] = {score.format(row=row, other=other)}{where}",
        "P[i,j] = softmax[j](S[i,j])",
        f"O[i,f] = {result.format(row=row, other=other)}",
    ]
    body = "\n  ".join(lines)
    return f"attention t({inputs}) -> O[h,i,f] {{\n  batch h\n  {body}\n}}"


def picks(plan: Plan) -> int:
    """How often the kernels of a plan look for pairs in a band."""
    bodies = [r.body for k in kernels(plan) if k.sweep is not None for r in k.sweep.ranges]
    return sum(isinstance(s, Pick) for body in bodies for s in body)


@settings(max_examples=40, deadline=None)
@given(
    st.builds(program, ROWS, ROWS, SCORES, DOMAINS, RESULTS),
    st.integers(1, 13),
    st.integers(0, 9),
    st.sampled_from([(4, 4), (8, 4), (4, 8), (16, 16)]),
    st.integers(0, 99),
)
def test_both_passes_agree_with_the_interpreter(
    text: str, rows: int, more: int, tiles: tuple[int, int], seed: int
) -> None:
    cascade = load(text)
    g = differentiate(cascade)
    plans = (
        plan_forward(g.forward, g.residuals),
        plan_backward(g.forward, g.backward, g.gradients),
    )
    assert all(map(picks, plans))
    sizes = {"h": 2, "i": rows, "j": rows + more, "e": 3, "f": 3}
    sizes |= {"r": ROWS_OF_TABLES}
    inputs = draw(cascade, sizes, seed)
    start = {"start": more}
    leaves = {n: x.requires_grad_() if x.is_floating_point() else x for n, x in inputs.items()}
    wanted = interpret(cascade, leaves, {}, start=more)["O"]
    upstream = torch.randn(wanted.shape, dtype=torch.float64)
    total = (wanted.nan_to_num(0, 0, 0) * upstream).sum()
    grads = torch.autograd.grad(total, [leaves[n] for n in g.gradients], materialize_grads=True)
    config = dict(zip("ij", tiles, strict=True))
    plain = {n: x.detach() for n, x in inputs.items()}
    kept = run(plans[0], g.forward, plain, start, tiles=config)
    torch.testing.assert_close(kept["O"], wanted.detach(), rtol=1e-9, atol=1e-9)
    known = {**plain, **kept, g.cotangents["O"]: upstream}
    given_ = {x.name: known[x.name] for x in g.backward.inputs}
    got = run(plans[1], g.backward, given_, start, tiles=config)
    for name, x in zip(g.gradients, grads, strict=True):
        mine = got[g.gradients[name]]
        torch.testing.assert_close(mine, x, rtol=1e-8, atol=1e-8, msg=lambda m: f"{text}\n{m}")
