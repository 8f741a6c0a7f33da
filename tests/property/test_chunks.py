"""Chunks of every length, and the quadratic form, give the same numbers and gradients."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.cascade.bind import bind
from attndsl.codegen.aot import kernel_table
from attndsl.codegen.configs import choose_chunk
from attndsl.runtime.operator import CompiledAttention
from attndsl.runtime.stages import Stage, plan_passes
from attndsl.schedule import restarts
from attndsl.schedule.tile import AccDot, BufferKind, Dot, Load, Plan, Role, TileProgram

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SIZES = {"b": 2, "h": 2, "d": 6, "e": 8, "f": 12, "l": 10, "n": 8, "p": 12}

# What gates and decays are drawn from, by program and input.
DRAWS: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {
    ("simple_gla", "g"): lambda x: -x.abs(),
    ("gla", "loga"): lambda x: -x.abs(),
    ("retnet", "gamma"): lambda x: 0.5 + x.abs().clamp_max(1) * 0.49,
    ("retention_normalised", "gamma"): lambda x: 0.5 + x.abs().clamp_max(1) * 0.49,
    ("lion_decay", "gamma"): lambda x: 0.5 + x.abs().clamp_max(1) * 0.49,
    ("lightning", "s"): lambda x: x.abs(),
    ("gla_recurrent", "loga"): lambda x: -x.abs(),
    ("mamba2", "dt"): lambda x: x.abs() * 0.5,
    ("rwkv6", "w"): torch.sigmoid,
    ("hgrn2", "g"): torch.sigmoid,
    ("rwkv7", "w"): torch.sigmoid,
    ("rwkv7", "A"): lambda x: 0.2 * x,
    ("rwkv7", "B"): lambda x: 0.2 * x,
    ("deltanet", "K"): lambda x: torch.nn.functional.normalize(x, dim=-1),
    ("deltanet", "beta"): torch.sigmoid,
    ("gated_delta", "K"): lambda x: torch.nn.functional.normalize(x, dim=-1),
    ("gated_delta", "beta"): torch.sigmoid,
    ("gated_delta", "g"): lambda x: -x.abs(),
}
PROGRAMS = (
    "linear",
    "linear_identity",
    "linear_relu",
    "linear_exp",
    "retnet",
    "retention_normalised",
    "lightning",
    "simple_gla",
    "gla",
)
RECURRENCES = ("mamba2", "rwkv6", "hgrn2", "gla_recurrent")
DELTA_RULES = ("deltanet", "gated_delta", "rwkv7")
BIDIRECTIONAL = ("lion", "lion_decay")
OVER_TIME = ("latte",)


def case(name: str, n: int, dtype: torch.dtype) -> tuple[CompiledAttention, list[Tensor]]:
    """A program with inputs of length `n`."""
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    torch.manual_seed(n)
    made = []
    for t in op.cascade.inputs:
        x = torch.randn([SIZES.get(r, n) for r in t.ranks], dtype=torch.float64)
        x = DRAWS.get((name, t.name), lambda x: x)(x)
        made.append(x.to(dtype))
    return op, made


def run(
    op: CompiledAttention, backend: str, given: list[Tensor], n: int, chunk: int, columns: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of every input for cotangents of 1, by chunks of a length."""
    names = tuple(t.name for t in op.cascade.inputs)
    passes = plan_passes(op.cascade, names)
    stage = Stage(op.cascade, passes, backend, "")
    inputs = dict(zip(names, given, strict=True))
    shapes = {x: tuple(t.shape) for x, t in inputs.items()}
    extents = stage.extents(bind(op.cascade, shapes, {}).extents, {})
    config = dict.fromkeys("ijt", chunk) | dict.fromkeys("eflnp", columns)
    if backend == "triton":
        config = {f"BLOCK_{a.upper()}": size for a, size in config.items()}
    outs = stage.module.forward(inputs, extents, {}, config)
    kept = {k: outs[k] for k in passes.residuals}
    ones = {passes.cotangents[o]: torch.ones_like(outs[o]) for o in stage.outputs}
    made = stage.module.backward({**inputs, **kept, **ones}, extents, {}, config)
    return [outs[o] for o in stage.outputs], [made[passes.gradients[x]] for x in names]


def expected(op: CompiledAttention, given: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    wide = [x.double().requires_grad_() for x in given]
    out = op.reference(*wide)
    outs = [out] if isinstance(out, Tensor) else list(out)
    grads = torch.autograd.grad([o.sum() for o in outs], wide)
    return [o.detach() for o in outs], list(grads)


def error(made: list[Tensor], want: list[Tensor]) -> float:
    return max(
        float((a.double() - b).abs().max() / b.abs().max().clamp_min(1))
        for a, b in zip(made, want, strict=True)
    )


@pytest.mark.parametrize("name", PROGRAMS + RECURRENCES + DELTA_RULES + BIDIRECTIONAL + OVER_TIME)
@pytest.mark.parametrize(("n", "chunk"), [(1, 16), (17, 4), (63, 16), (64, 16), (65, 16), (40, 64)])
def test_chunks_of_every_length_agree_with_the_dense_form(name: str, n: int, chunk: int) -> None:
    op, given = case(name, n, torch.float64)
    outs, grads = run(op, "eager", given, n, chunk, 8)
    want, want_grads = expected(op, given)
    assert error(outs, want) < 1e-12
    assert error(grads, want_grads) < 1e-10


@pytest.mark.parametrize("name", ["simple_gla", "gla", *RECURRENCES, *DELTA_RULES[1:]])
@pytest.mark.parametrize("n", [32, 33, 64, 100])
def test_gates_begin_anew_between_chunks(
    name: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "WIDTH", 32)
    op, given = case(name, n, torch.float64)
    outs, grads = run(op, "eager", given, n, 16, 8)
    want, want_grads = expected(op, given)
    assert error(outs, want) < 1e-12
    assert error(grads, want_grads) < 1e-10


@pytest.mark.parametrize("name", ["simple_gla", "gated_delta", "gla"])
def test_gates_of_long_sequences_keep_their_digits(name: str) -> None:
    n = 20_000
    op, given = case(name, n, torch.float32)
    gates = ("g", "loga")
    given = [
        40 * x if t.name in gates else x for t, x in zip(op.cascade.inputs, given, strict=True)
    ]
    outs, grads = run(op, "eager", given, n, 64, 8)
    want, want_grads = run(op, "eager", [x.double() for x in given], n, 64, 8)
    assert error(outs, want) < 2e-3
    assert error(grads, want_grads) < 4e-3


def test_sums_that_are_read_by_themselves_go_on() -> None:
    program = (
        "attention counted(Q[b,i,e], K[b,j,e], V[b,j,f], g[b,j]) -> O[b,i,f], C[b,j] {\n"
        "  batch b\n"
        "  C[j]   = sum[l : l <= j](g[l])\n"
        "  A[i,j] = Q[i,e] * K[j,e] * exp(C[i] - C[j])   where j <= i\n"
        "  O[i,f] = A[i,j] * V[j,f]\n"
        "}\n"
    )
    op = attndsl.compile(program)
    bare = attndsl.compile(program.replace("O[b,i,f], C[b,j]", "O[b,i,f]"))
    assert not restarts.restarting(op.cascade, None, ["O", "C"])
    assert set(restarts.restarting(bare.cascade, None, ["O"])) == {"C"}
    moved = attndsl.compile(
        program.replace("O[b,i,f], C[b,j]", "O[b,i,f]").replace("exp(C[i]", "exp(2 * C[i]")
    )
    assert not restarts.restarting(moved.cascade, None, ["O"])


# Gates that keep hardly anything of a channel's past inside a chunk, and those that close for good.
CLOSED: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "gla": ("loga", lambda x: -40 * x.abs()),
    "rwkv6": ("w", lambda x: torch.sigmoid(-20 * x.abs())),
    "hgrn2": ("g", lambda x: torch.sigmoid(20 * x)),
    "rwkv7": ("w", lambda x: torch.where(x > 1.5, 0.0, torch.sigmoid(x))),
    "gated_delta": ("g", lambda x: -800 * x.abs()),
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("chunk", [4, 64])
def test_gates_that_close_inside_a_chunk(name: str, chunk: int) -> None:
    op, given = case(name, 70, torch.float64)
    gate, draw = CLOSED[name]
    given = [
        draw(torch.randn_like(x)) if t.name == gate else x
        for t, x in zip(op.cascade.inputs, given, strict=True)
    ]
    outs, grads = run(op, "eager", given, 70, chunk, 8)
    want, want_grads = expected(op, given)
    assert error(outs, want) < 1e-10
    # A closed gate of 0 has a slope of its own here; its logarithm is that of the least gate there is.
    some = [
        k
        for k, t in enumerate(op.cascade.inputs)
        if t.name != gate or name in ("gla", "gated_delta")
    ]
    assert error([grads[k] for k in some], [want_grads[k] for k in some]) < 1e-9


@pytest.mark.parametrize("scale", [1, 40])
def test_portable_kernels_of_vector_gates(scale: int) -> None:
    code = f"from tests.property.test_chunks import portable; portable('gla', {scale})"
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=env, cwd=ROOT)


@pytest.mark.parametrize(
    "name", ["linear", "retnet", "simple_gla", "deltanet", "lion_decay", "latte"]
)
def test_portable_kernels_carry_a_state(name: str) -> None:
    code = f"from tests.property.test_chunks import portable; portable({name!r})"
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=env, cwd=ROOT)


def portable(name: str, scale: float = 1) -> None:
    """Compare the kernels, in Triton's interpreter, with the dense form; `scale` multiplies exponents of gates."""
    op, given = case(name, 40, torch.float32)
    given = [
        x * scale if t.name == "loga" else x for t, x in zip(op.cascade.inputs, given, strict=True)
    ]
    outs, grads = run(op, "triton", given, 40, 16, 16)
    want, want_grads = expected(op, given)
    assert error(outs, want) < 1e-5
    assert error(grads, want_grads) < 1e-4


@pytest.mark.parametrize("name", ["gla", "hgrn2", "rwkv7"])
def test_gates_keep_their_digits_where_other_inputs_are_narrow(name: str) -> None:
    n = 300
    op, given = case(name, n, torch.float64)
    gates = ("loga", "g", "w")
    given = [
        x.float() if t.name in gates else x.bfloat16()
        for t, x in zip(op.cascade.inputs, given, strict=True)
    ]
    outs, grads = run(op, "eager", given, n, 16, 8)
    want, want_grads = expected(op, given)
    # A gate's own gradient is a difference of sums, and loses more.
    narrow = [k for k, t in enumerate(op.cascade.inputs) if t.name not in gates]
    made = [*outs, *(grads[k] for k in narrow)]
    exact = [*want, *(want_grads[k] for k in narrow)]
    for a, b in zip(made, exact, strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 5e-3


def test_a_kernel_that_spills_is_better_than_none() -> None:
    op = attndsl.load(EXAMPLES / "hedgehog.attn")
    names = tuple(t.name for t in op.cascade.inputs)
    module = Stage(op.cascade, plan_passes(op.cascade, names), "triton", "").text
    facts = [k["facts"] for k in kernel_table(module).values() if "chunks" in k["facts"]]
    wide = {"d": 128, "e": 128, "f": 128}
    assert facts
    for f in facts:
        assert choose_chunk(f, wide, 2, 227 * 1024)["num_warps"]


def test_gates_of_one_number_are_no_measure_of_what_is_multiplied() -> None:
    op = attndsl.load(EXAMPLES / "gated_delta.attn")
    names = tuple(t.name for t in op.cascade.inputs)
    module = Stage(op.cascade, plan_passes(op.cascade, names), "triton", "").text
    facts = [k["facts"] for k in kernel_table(module).values()]
    systems = [f for f in facts if f.get("solves") and "follows" in f]
    assert len(systems) == 2
    assert not any({"g", "beta"} & {*f["data"]} for f in systems)


@pytest.mark.parametrize("name", ["simple_gla", "gated_delta", "mamba2"])
def test_no_kernel_goes_ahead_for_gates_of_one_number(name: str) -> None:
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    passes = plan_passes(op.cascade, tuple(t.name for t in op.cascade.inputs))
    assert not {"C", "G", "G_2"} & {*passes.residuals}
    for plan in (passes.forward, passes.backward):
        assert plan is not None
        for k in kernels(plan):
            scans = k.sweep is not None and not any(
                isinstance(s, Dot | AccDot) for s in k.sweep.ranges[0].body
            )
            assert not scans or any(w.startswith("d") for w in k.writes), k.name


@pytest.mark.parametrize(
    # What a delta rule asks of its past is kept in 16 bits.
    ("name", "most"),
    [("simple_gla", 6e-3), ("gla", 6e-3), ("mamba2", 6e-3), ("gated_delta", 1.2e-2)],
)
def test_gates_that_forget_fast_have_gradients_of_their_own_size(name: str, most: float) -> None:
    n = 1000
    op, given = case(name, n, torch.float64)
    gates = [k for k, t in enumerate(op.cascade.inputs) if t.name in ("g", "loga", "dt")]
    given = [x.float() if k in gates else x.bfloat16() for k, x in enumerate(given)]
    _, grads = run(op, "eager", given, n, 16, 8)
    _, want_grads = expected(op, given)
    for k in gates:
        assert float((grads[k].double() - want_grads[k]).norm() / want_grads[k].norm()) < most


def test_keys_of_no_weight_at_the_beginning_of_a_chunk() -> None:
    op, given = case("latte", 40, torch.float64)
    k = next(k for k, t in enumerate(op.cascade.inputs) if t.name == "K")
    given[k][:, :, 16:19] = -math.inf
    outs, _ = run(op, "eager", given, 40, 16, 8)
    assert error(outs, expected(op, given)[0]) < 1e-12


def kernels(plan: Plan) -> list[TileProgram]:
    return [s for s in plan.steps if isinstance(s, TileProgram)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_sum_of_the_forward_pass_carries_over(name: str) -> None:
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    passes = plan_passes(op.cascade, ())
    # What sweeps nothing computes each point by itself: a map of features.
    assert all(k.of(Role.PAIR) for k in kernels(passes.forward) if k.sweep is not None)
    assert any(k.of(Role.PAIR) for k in kernels(passes.forward))


@pytest.mark.parametrize(
    "name", PROGRAMS + RECURRENCES[:3] + DELTA_RULES + BIDIRECTIONAL + OVER_TIME
)
def test_no_gradient_needs_every_pair_of_positions(name: str) -> None:
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    passes = plan_passes(op.cascade, tuple(t.name for t in op.cascade.inputs))
    assert passes.backward is not None
    for k in (*kernels(passes.forward), *kernels(passes.backward)):
        assert not (k.of(Role.TILE) and k.of(Role.STREAM)) or k.of(Role.PAIR), k.name


@pytest.mark.parametrize(
    ("name", "most"),
    [("linear", 4), ("simple_gla", 6), ("gla", 6), ("gated_delta", 11), ("mamba2", 7)],
)
def test_a_sum_is_taken_once(name: str, most: int) -> None:
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    passes = plan_passes(op.cascade, tuple(t.name for t in op.cascade.inputs))
    assert passes.backward is not None
    every = [*kernels(passes.forward), *kernels(passes.backward)]
    assert sum(k.sweep is not None and bool(k.of(Role.PAIR)) for k in every) <= most


@pytest.mark.parametrize(("name", "maps"), [("simple_gla", 0), ("gated_delta", 2), ("rwkv7", 1)])
def test_sums_without_rounding_share_operands_that_were_rounded(name: str, maps: int) -> None:
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    backward = plan_passes(op.cascade, tuple(t.name for t in op.cascade.inputs)).backward
    assert backward is not None
    narrow = {b.name for b in backward.buffers if b.kind is BufferKind.INPUT or b.like is not None}
    narrow |= {x for k in kernels(backward) if k.follows for x in k.writes}  # operands with gates
    whole = 0
    for k in kernels(backward):
        body = k.sweep.ranges[0].body if k.sweep is not None else ()
        if any(isinstance(s, Dot | AccDot) and s.exact for s in body):
            whole += 1
            assert all(s.tensor in narrow for s in body if isinstance(s, Load) and len(s.dims) > 1)
    assert whole
    assert sum(b.name.endswith(".map") for b in backward.buffers) == maps


@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_sums_over_all_positions_carry_over_by_halves(name: str) -> None:
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    passes = plan_passes(op.cascade, ())
    assert not any(
        k.of(Role.TILE) and k.of(Role.STREAM) and not k.of(Role.PAIR)
        for k in kernels(passes.forward)
    )


@pytest.mark.parametrize(("rows", "columns"), [(9, 40), (40, 9)])
def test_halves_of_unlike_lengths(rows: int, columns: int) -> None:
    op, given = case("lion", 40, torch.float64)
    given = [
        x[:, :, : rows if t.name == "Q" else columns] if t.name in "QKV" else x
        for t, x in zip(op.cascade.inputs, given, strict=True)
    ]
    outs, grads = run(op, "eager", given, 40, 16, 8)
    want, want_grads = expected(op, given)
    assert error(outs, want) < 1e-12
    assert error(grads, want_grads) < 1e-10


@pytest.mark.parametrize("name", ["causal", "sigmoid", "relu", "window", "alibi", "standardised"])
def test_weights_that_do_not_split_stay_quadratic(name: str) -> None:
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    passes = plan_passes(op.cascade, ())
    assert not any(k.of(Role.PAIR) for k in kernels(passes.forward))


def test_a_long_sequence_with_strong_and_weak_gates_stays_finite() -> None:
    n = 3000
    op, given = case("simple_gla", n, torch.float32)
    given[3] = torch.where(torch.arange(n) % 50 == 0, -60.0, -1e-4).expand(2, 2, n).contiguous()
    outs, grads = run(op, "eager", given, n, 64, 8)
    want, want_grads = expected(op, given)
    assert error(outs, want) < 1e-3
    assert all(torch.isfinite(g).all() for g in grads)
    assert error(grads[:3], want_grads[:3]) < 1e-3


def test_a_vector_beside_a_product_may_have_a_type_of_its_own() -> None:
    op, given = case("rwkv6", 20, torch.float64)
    names = [t.name for t in op.cascade.inputs]
    mixed = [
        x.float() if t in ("w", "u") else x.bfloat16() for t, x in zip(names, given, strict=True)
    ]
    op = attndsl.load(EXAMPLES / "rwkv6.attn", backend="eager")
    out = op(*mixed)
    assert out.dtype is torch.bfloat16
    assert error([out], [op.reference(*(x.double() for x in mixed))]) < 2e-2
