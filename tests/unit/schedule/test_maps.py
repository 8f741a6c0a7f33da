"""Maps of features that sums by chunks multiply: computed once, kept in the type of their input."""

from __future__ import annotations

import attndsl
from attndsl.runtime.stages import plan_passes
from attndsl.schedule.tile import BufferKind, Plan, TileProgram


def forward(map_: str, weights: str = "A[i,j] * V[j,f]", more: str = "") -> Plan:
    op = attndsl.compile(f"""
attention mapped(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]{more}) -> O[b,h,i,f] {{
  batch b, h
  A[i,j] = {map_}   where j <= i
  O[i,f] = {weights}
}}
""")
    return plan_passes(op.cascade, ()).forward


def kept(plan: Plan) -> dict[str, str | None]:
    return {b.name: b.like for b in plan.buffers if b.kind is BufferKind.TEMP}


def test_costly_maps_of_rows_and_columns_are_kept_in_the_inputs_type() -> None:
    plan = forward("(elu(Q[i,e]) + 1) * silu(K[j,e])")
    assert kept(plan) == {"Q.map": "Q", "K.map": "K"}
    (walk,) = (s for s in plan.steps if isinstance(s, TileProgram) and s.sweep is not None)
    assert {"Q.map", "K.map"} <= {*walk.reads}
    assert not {"Q", "K"} & {*walk.reads}


def test_what_arithmetic_makes_is_made_on_the_way() -> None:
    assert not kept(forward("relu(Q[i,e]) * (K[j,e] * K[j,e] + 1)"))


def test_one_map_of_one_tensor_is_kept_once() -> None:
    plan = forward("exp(Q[i,e]) * exp(K[j,e])", "A[i,j] / sum[j](A[i,j]) * V[j,f]")
    assert kept(plan) == {"Q.map": "Q", "K.map": "K"}


def test_gates_and_pairs_are_no_maps() -> None:
    assert not kept(forward("Q[i,e] * K[j,e] * exp(g[i] - g[j])", more=", g[b,h,j]"))
    assert not kept(forward("softplus(Q[i,e] * K[j,e])"))
