"""A sequence in one call, in several with a state between them, and token by token: the same numbers and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.callerrors import CallError
from tests.property.test_chunks import DELTA_RULES, EXAMPLES, PROGRAMS, RECURRENCES, case, error

STATEFUL = PROGRAMS + RECURRENCES + DELTA_RULES


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
