"""flash-linear-attention as a peer: which operator a program is, and that it is called as that one wants it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from attndsl.analysis.score_mask import Inexpressible
from attndsl.bench import peers
from attndsl.bench.linear import OPERATORS
from attndsl.bench.meanings import Match, match
from attndsl.bench.run import Row, compare
from attndsl.cascade.nodes import Cascade
from attndsl.frontend import load_cascades
from attndsl.frontend.reading import read_source
from attndsl.source import Source
from attndsl.tuning.tune import sizes_at

EXAMPLES = Path(__file__).parents[3] / "examples"


def program(name: str) -> Cascade:
    return load_cascades(read_source(EXAMPLES / f"{name}.attn"))[0]


def found(cascade: Cascade) -> Match:
    at = sizes_at(cascade, {})
    output = max(cascade.outputs, key=lambda o: len(o.indices)).name
    return match(cascade, at.extents, {}, output, OPERATORS)


def scaled(e: int = 128) -> float:
    return float(e**-0.5)


@pytest.mark.parametrize(
    ("name", "function", "gate", "scale"),
    [
        ("linear_identity", "chunk_linear_attn", None, scaled()),
        ("retnet", "chunk_simple_gla", ("gamma", "log"), scaled()),
        ("lightning", "chunk_simple_gla", ("s", "-"), 1.0),
        ("simple_gla", "chunk_simple_gla", ("g", ""), scaled()),
        ("gla", "chunk_gla", ("loga", ""), 1.0),
        ("deltanet", "chunk_delta_rule", None, 1.0),
        ("gated_delta", "chunk_gated_delta_rule", ("g", ""), 1.0),
        ("rwkv6", "chunk_rwkv6", ("w", "log"), 1.0),
        ("rwkv7", "chunk_rwkv7", ("w", "log"), 1.0),
        ("fox", "parallel_forgetting_attn", ("logf", ""), scaled()),
        ("stick_breaking", "parallel_stickbreaking_attn", None, scaled()),
    ],
)
def test_examples(name: str, function: str, gate: tuple[str, str] | None, scale: float) -> None:
    made = found(program(name))
    assert made.operator.function == function
    assert made.scale == scale
    given = made.given.get("lg")
    assert (None if given is None else (given.input, given.change)) == gate


RENAMED = """
attention renamed(B[n,t,g,x], A[n,t,g,x], w[n,t,g,x], C[n,t,g,y]) -> Z[n,g,t,y] {
  batch n, g
  assume 0 <= w <= 1
  M[t,x,y] = A[t,x] * C[t,y] + M[t-1,x,y] * w[t,x]   init 0
  Z[t,y]   = B[t,x] / sqrt(|x|) * M[t,x,y]
}
"""


def test_names_order_and_form_do_not_matter() -> None:
    """Gates as factors in a recurrence are the same operator as logarithms in masked pairs."""
    (cascade,) = load_cascades(Source("<renamed>", RENAMED))
    made = found(cascade)
    assert made.operator.function == "chunk_gla"
    assert {n: g.input for n, g in made.given.items()} == {"q": "B", "k": "A", "v": "C", "lg": "w"}
    assert made.given["lg"].change == "log"
    assert made.scale == scaled()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("causal", "none of its operators gives the same numbers"),
        ("hgrn2", "none of its operators gives the same numbers"),
        ("gla_recurrent", "none of its operators gives the same numbers"),
        ("documents", "it takes tensors of integers"),
        ("gqa", "`K` has a computed axis"),
        ("latte", "its features are not one axis of keys and one of values"),
    ],
)
def test_what_it_has_no_operator_for(name: str, why: str) -> None:
    with pytest.raises(Inexpressible, match=why):
        found(program(name))


# --- calls, of a library that stands in for it ---


def chunk_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float) -> Any:
    """`[B,T,H,D]`, as the library has it."""
    b, t, h, e = q.shape
    state = q.new_zeros(b, h, e, v.shape[-1])
    out = []
    for n in range(t):
        state = state * g[:, n].exp()[..., None] + k[:, n, ..., None] * v[:, n, :, None, :]
        out.append(scale * torch.einsum("bhe,bhef->bhf", q[:, n], state))
    return torch.stack(out, 1), None


def chunk_simple_gla(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None = None, *, scale: float, **more: Any
) -> Any:
    gates = more["g_gamma"].expand(q.shape[:3]) if g is None else g
    return chunk_gla(q, k, v, gates[..., None].expand_as(q), scale=scale)


def chunk_linear_attn(q: Tensor, k: Tensor, v: Tensor, *, scale: float, normalize: bool) -> Any:
    assert not normalize
    return chunk_gla(q, k, v, torch.zeros_like(q), scale=scale)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = SimpleNamespace(
        chunk_gla=chunk_gla,
        chunk_simple_gla=chunk_simple_gla,
        chunk_linear_attn=chunk_linear_attn,
    )
    monkeypatch.setattr(peers, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(peers, "import_module", lambda name: {"fla.ops": ops}[name])


def row(cascade: Cascade, **shape: int) -> Row:
    def timer(call: Any) -> float:
        made = call()
        # A backward pass that reaches nothing would be timed as none.
        assert isinstance(made, Tensor) or all(x is not None for x in made)
        return 2.0

    return list(compare(cascade, [shape], ("fla",), dtype="fp32", device="cpu", timer=timer))[1]


SMALL = {"b": 2, "h": 3, "e": 16, "f": 8}


@pytest.mark.parametrize("name", ["linear_identity", "retnet", "lightning", "simple_gla", "gla"])
def test_calls(installed: None, name: str) -> None:
    made = row(program(name), **SMALL, i=20, j=20)
    assert made.note == ""
    assert made.error is not None
    assert made.error < 1e-5
    assert made.backward_ms == 2.0


def test_a_call_with_axes_in_another_order(installed: None) -> None:
    (cascade,) = load_cascades(Source("<renamed>", RENAMED))
    made = row(cascade, n=2, t=12, g=3, x=16, y=8)
    assert made.error is not None, made.note
    assert made.error < 1e-5


def test_an_operator_that_this_version_lacks(installed: None) -> None:
    assert (
        row(program("deltanet"), **SMALL, t=12).note == "absent: this fla has no chunk_delta_rule"
    )


REFUSED = (
    "Gradients of gated operators are known to be wrong on Hopper with some versions of the"
    " compiler, and are not computed there unless another backend is installed; this is 3.6.0,"
    " and it needs Triton >= 3.7.1"
)


class Refused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(REFUSED)


def test_a_backward_pass_that_is_refused_says_why(
    installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*a: Any, **k: Any) -> Any:
        return Refused.apply(chunk_gla(*a, **k)[0]), None

    monkeypatch.setattr(peers.import_module("fla.ops"), "chunk_gla", refused)
    made = row(program("gla"), **SMALL, i=20, j=20)
    assert made.forward_ms == made.ratio * 2.0 == 2.0
    assert made.backward_ms is None
    assert made.note == f"backward failed: RuntimeError: {REFUSED}"


# --- the project's own table ---


@pytest.mark.parametrize("name", ["linear_identity", "retnet", "simple_gla", "gla"])
def test_rows_of_the_table(installed: None, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    linear = table(monkeypatch)
    row = linear.measure(name, floor=2.0)
    assert row["error"] < 1e-5
    assert row["forward_ms"] == row["backward_ms"] == row["backward_data_ms"] == 1.0
    assert row["times_floor"] == 0.5
    assert row["fla_forward_ms"] == row["fla_backward_ms"] == 1.0
    assert row["fla_from_ours_error"] < (
        1e-2 if name == "gla" else 1e-5
    )  # its gates are of 16 bits
    assert row["fla_without"] == []
    assert "fla_note" not in row


def test_a_table_says_what_the_peer_lacks(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(q: Tensor, k: Tensor, v: Tensor, *, g_gamma: Tensor, scale: float) -> Any:
        return chunk_simple_gla(q, k, v, g_gamma=g_gamma.detach(), scale=scale)

    def refused(*a: Any, **k: Any) -> Any:
        return Refused.apply(chunk_gla(*a, **k)[0]), None

    ops = peers.import_module("fla.ops")
    monkeypatch.setattr(ops, "chunk_simple_gla", without)
    monkeypatch.setattr(ops, "chunk_gla", refused)
    linear = table(monkeypatch)
    assert linear.measure("retnet", floor=1.0)["fla_without"] == ["g_gamma"]
    row = linear.measure("gla", floor=1.0)
    assert row["fla_forward_ms"] == 1.0
    assert row["fla_note"] == f"backward failed: RuntimeError: {REFUSED}"
    assert "absent" in linear.measure("deltanet", floor=1.0)["fla_note"]


def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, at a small size on a CPU; each call is run once, and takes 1 ms."""
    monkeypatch.syspath_prepend(str(EXAMPLES.parent / "benchmarks"))
    import linear

    monkeypatch.delitem(sys.modules, "common")
    monkeypatch.delitem(sys.modules, "linear")

    def milliseconds(run: Any) -> float:
        run()
        return 1.0

    def inputs(op: Any, n: int, heads: int) -> dict[str, Tensor]:
        sizes = SMALL | dict.fromkeys(("i", "j", "t"), 20)
        made = {
            t.name: torch.rand([sizes.get(r, 20) for r in t.ranks])
            * (0.1 if len(t.ranks) < 4 else 1)
            for t in op.cascade.inputs
        }
        gates = ("g", "loga")
        return {k: (-x if k in gates else x).requires_grad_() for k, x in made.items()}

    for name in ("memory_allocated", "max_memory_allocated", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    monkeypatch.setattr(linear, "milliseconds", milliseconds)
    monkeypatch.setattr(linear, "inputs", inputs)
    return linear


# --- masks that are bands, for peers that take no others ---


def test_bands() -> None:
    ones = torch.ones(6, 9, dtype=torch.bool)
    assert peers.band(ones) == (None, None)
    assert peers.band(ones.tril(3)) == (None, 0)
    assert peers.band(ones.tril(3).triu(1)) == (2, 0)
    assert peers.band(ones.tril(4).triu(1)) == (2, 1)
    holed = ones.tril(3)
    holed[4, 2] = False
    assert peers.band(holed) is None
    assert peers.band(~ones) is None
