"""Random bodies: a factorisation holds at every point, a refusal has the rank to show for it.

Both are checked against the interpreter, which knows nothing of sympy.
"""

from __future__ import annotations

import math

import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attndsl.analysis.separability import MAX_RANK, Inseparable, Separated, separate
from attndsl.cascade.interpreter import interpret
from attndsl.cascade.nodes import Cascade, Expr, Read
from attndsl.cascade.signs import Sign
from attndsl.cascade.walk import walk
from attndsl.frontend import load_cascades
from attndsl.source import Source

N = 96  # points; on few, a threshold that few of them reach looks like few terms
ATOMS = st.sampled_from(["s[j]", "v[j]", "u[i]", "z[i]", "s[j] - u[i]", "2", "(s[j] + 1)"])
BODIES = st.recursive(
    ATOMS,
    lambda x: st.one_of(
        st.tuples(x, st.sampled_from(["+", "-", "*"]), x).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        x.map(lambda a: f"({a}) / (1 + z[i])"),
        st.tuples(st.sampled_from(["exp", "relu", "abs", "sigmoid", "softplus", "sin"]), x).map(
            lambda t: f"{t[0]}(({t[1]}) / 4)"
        ),
        x.map(lambda a: f"({a})**2"),
        x.map(lambda a: f"(exp(({a}) / 4) / z[i])**3"),
        st.tuples(x, x).map(lambda t: f"max({t[0]}, {t[1]})"),
    ),
    max_leaves=5,
)


def program(body: str) -> Cascade:
    text = (
        f"attention t(s[j], v[j], u[i], z[i]) -> T[i,j] {{ T[i,j] = {body} + 0 * (s[j] + u[i]) }}"
    )
    (cascade,) = load_cascades(Source("t.attn", text))
    return cascade


def sample(cascade: Cascade) -> tuple[dict[str, Tensor], Tensor]:
    """Points of every tensor (z is positive), and the matrix of values."""
    generator = torch.Generator().manual_seed(1)
    at = {n: 6 * torch.rand(N, generator=generator, dtype=torch.float64) for n in "svuz"}
    at |= {n: 2 * at[n] - 6 for n in "svu"}
    at["z"] += 0.2
    names = {t.name for t in cascade.inputs}
    return at, interpret(cascade, {n: x for n, x in at.items() if n in names})["T"]


def values(side: sp.Expr, atoms: dict[sp.Symbol, list[float]]) -> Tensor:
    made = sp.lambdify(list(atoms), side, "math")
    return torch.tensor([made(*p) for p in zip(*atoms.values(), strict=True)], dtype=torch.float64)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(BODIES)
def test_claims_hold(body: str) -> None:
    cascade = program(body)
    expr = cascade.body[0].expr
    late = frozenset[Expr](n for n in walk(expr) if isinstance(n, Read) and n.tensor in "uz")
    found = separate(expr, late, frozenset({"j"}), {"z": Sign.POSITIVE})
    at, want = sample(cascade)
    size = float(want.abs().max())
    if not math.isfinite(size) or size == 0:
        return
    if isinstance(found, Separated):
        atoms = {s: at[e.tensor].tolist() for e, s in found.atoms.items() if isinstance(e, Read)}
        us = {s: at[e.tensor].tolist() for e, s in found.atoms.items() if e in late}
        xs = {s: x for s, x in atoms.items() if s not in us}
        one = {sp.Symbol("one"): [1.0] * N}
        parts = [values(h, us or one)[:, None] * values(g, xs or one) for h, g in found.terms]
        scale = sum(p.abs() for p in parts)
        assert ((sum(parts) - want).abs() <= 1e-8 * scale + 1e-12 * size).all()
        assert found.rank <= MAX_RANK
    else:
        assert isinstance(found, Inseparable)
        scaled = want / want.abs().amax(1, keepdim=True).clamp(min=1e-300)
        s = torch.linalg.svdvals(scaled)
        assert int((s > 1e-13 * s[0]).sum()) > MAX_RANK
