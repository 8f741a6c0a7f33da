"""A sequence in one call, in several with a state between them, and token by token: the same numbers and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.callerrors import CallError
from tests.property.test_chunks import DELTA_RULES, EXAMPLES, PROGRAMS, RECURRENCES, case, error

# Features of their own: both signs of a learned map, and a polynomial of the score.
FEATURES = ("hedgehog", "hedgehog_softmax", "based")
STATEFUL = PROGRAMS + RECURRENCES + DELTA_RULES + FEATURES


def along(op: attndsl.CompiledAttention, given: list[Tensor], part: slice | int) -> list[Tensor]:
    """The inputs at some positions of the sequence."""
    out = []
    for t, x in zip(op.cascade.inputs, given, strict=True):
        axes = [k for k, r in enumerate(t.ranks) if r in ("i", "j", "t")]
        at: list[slice | int] = [slice(None)] * x.ndim
        for k in axes:
            at[k] = part
        out.append(x[tuple(at)])
    return out


def outputs(made: object) -> list[Tensor]:
    return [made] if isinstance(made, Tensor) else [x for x in made if isinstance(x, Tensor)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", STATEFUL)
def test_a_sequence_may_be_split_anywhere(name: str) -> None:
    op, given = case(name, 30, torch.float64)
    own = [x.requires_grad_() for x in given]
    (want, *_) = outputs(op.reference(*own))
    state = None
    pieces = []
    for part in (slice(0, 1), slice(1, 14), slice(14, 30)):
        made = op(*along(op, own, part), state=state, return_state=True)
        state = made[-1]
        pieces.append(made[0])
    got = torch.cat(pieces, dim=2)
    assert error([got.detach()], [want.detach()]) < 1e-10
    cotangent = torch.randn_like(want)
    for a, b in zip(
        torch.autograd.grad(got, own, cotangent, allow_unused=True),
        torch.autograd.grad(want, own, cotangent),
        strict=True,
    ):
        assert a is not None
        assert error([a], [b]) < 1e-10


@pytest.mark.parametrize("name", STATEFUL)
def test_token_by_token(name: str) -> None:
    op, given = case(name, 6, torch.float64)
    (want, *_) = outputs(op.reference(*given))
    state = None
    pieces = []
    for t in range(6):
        made = op.step(state, *along(op, given, t))
        state = made[-1]
        pieces.append(made[0])
    assert pieces[0].ndim == want.ndim - 1
    assert error([torch.stack(pieces, dim=2)], [want]) < 1e-10


def test_a_state_is_wide_where_inputs_are_narrow() -> None:
    op, given = case("simple_gla", 8, torch.bfloat16)
    o, state = op(*given, return_state=True)
    assert o.dtype is torch.bfloat16
    assert state.dtype is torch.float32


@pytest.mark.parametrize("name", ["causal", "window", "lion", "temperature_query"])
def test_programs_without_a_state_say_why(name: str) -> None:
    op = attndsl.load(EXAMPLES / f"{name}.attn")
    given = [torch.ones([4] * len(t.ranks)) for t in op.cascade.inputs]
    with pytest.raises(CallError, match="keeps no state") as refused:
        op(*given, return_state=True)
    assert refused.value.code == "A0513"


def test_a_state_and_a_start_exclude_each_other() -> None:
    op, given = case("linear", 4, torch.float64)
    with pytest.raises(CallError, match="`start` came with a state") as refused:
        op(*given, start="end", return_state=True)
    assert refused.value.code == "A0505"


def test_a_state_of_another_form_is_refused() -> None:
    op, given = case("linear", 4, torch.float64)
    with pytest.raises(CallError, match="a tuple of 2 tensors"):
        op(*given, state=torch.zeros(1))


ENDS = torch.tensor([0, 1, 14, 30], dtype=torch.int32)


def packs(op: attndsl.CompiledAttention, given: list[Tensor]) -> list[Tensor]:
    """The first of each batch alone."""
    return [
        x[:1] if t.ranks[0] == op.cascade.batch[0] else x
        for t, x in zip(op.cascade.inputs, given, strict=True)
    ]


@pytest.mark.parametrize("name", STATEFUL)
def test_packed_sequences_are_calls_of_their_own(name: str) -> None:
    op, given = case(name, 30, torch.float64)
    own = [x.clone().requires_grad_() for x in packs(op, given)]
    *got, state = op(*own, cu_seqlens=ENDS, return_state=True)
    want, states = [], []
    for first, last in ((0, 1), (1, 14), (14, 30)):
        *made, after = op(*along(op, own, slice(first, last)), return_state=True)
        want.append(made[0])
        states.append(after)
    whole = torch.cat(want, dim=2)
    assert error([got[0].detach()], [whole.detach()]) < 1e-12
    for k, after in enumerate(states):
        parts, kept = (x if isinstance(x, tuple) else (x,) for x in (after, state))
        assert error([x[k : k + 1].detach() for x in kept], [x.detach() for x in parts]) < 1e-12
    cotangent = torch.randn_like(whole)
    pairs = (torch.autograd.grad(x, own, cotangent, allow_unused=True) for x in (got[0], whole))
    for a, b in zip(*pairs, strict=True):
        assert (a is None) == (b is None)
        assert a is None or error([a], [b]) < 1e-12
    again = op(*own, cu_seqlens=ENDS, state=state)
    head = outputs(op(*along(op, own, slice(0, 1)), state=states[0]))[0]
    assert error([outputs(again)[0][:, :, :1].detach()], [head.detach()]) < 1e-12


@pytest.mark.parametrize(
    ("ends", "why"),
    [
        (torch.tensor([0, 30, 14]), "no ends of sequences"),
        (torch.tensor([0, 14]), "no ends of sequences"),
        (torch.tensor([0.0, 30.0]), "no ends of sequences"),
        ([0, 30], "no ends of sequences"),
    ],
)
def test_what_ends_no_sequence_is_refused(ends: Any, why: str) -> None:
    op, given = case("linear", 30, torch.float64)
    with pytest.raises(CallError, match=why) as refused:
        op(*packs(op, given), cu_seqlens=ends)
    assert refused.value.code == "A0501"


def test_packs_need_one_batch_and_a_state() -> None:
    op, given = case("linear", 30, torch.float64)
    doubled = [torch.cat([x, x]) for x in packs(op, given)]
    with pytest.raises(CallError, match="a batch of one"):
        op(*doubled, cu_seqlens=ENDS)
    with pytest.raises(CallError, match="not that of 3 packed sequences"):
        op(*packs(op, given), cu_seqlens=ENDS, state=torch.zeros(1))
    causal = attndsl.load(EXAMPLES / "causal.attn")
    with pytest.raises(CallError, match=r"doc\[i\] == doc\[j\]") as refused:
        causal(*[torch.ones(1, 2, 30, 4)] * 3, cu_seqlens=ENDS)
    assert refused.value.code == "A0513"


def test_a_start_may_lack_a_batch_index() -> None:
    op = attndsl.compile("""attention a(K[b,h,t,e], V[b,h,t,f], H0[f,h,e]) -> O[b,h,t,f] {
      batch b, h
      H[t,e,f] = 0.5 * H[t-1,e,f] + K[t,e] * V[t,f]   init H0[f,e]
      O[t,f]   = K[t,e] * H[t,e,f]
    }""")
    k, v = torch.randn(2, 3, 9, 4).double(), torch.randn(2, 3, 9, 5).double()
    h = torch.randn(5, 3, 4).double()
    first, state = op(k[:, :, :4], v[:, :, :4], h, return_state=True)
    rest = op(k[:, :, 4:], v[:, :, 4:], h, state=state)
    assert error([torch.cat([first, rest], 2)], [op.reference(k, v, h)]) < 1e-12
