"""Wrong programs and wrong calls nobody planned for: each gets a code, a place and a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import attndsl

HEAD = (
    "attention a(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f]{more}) -> O[b,h,i,f]{outs} {{\n  batch b, h\n"
)
DOT = "  S[i,j] = Q[i,e] * K[j,e]"
OUT = "\n  O[i,f] = softmax[j](S[i,j]) * V[j,f]"


def program(body: str, more: str = "", outs: str = "") -> str:
    return HEAD.format(more=more, outs=outs) + body + "\n}\n"


# name -> program, code, what the carets stand under
PROGRAMS: dict[str, tuple[str, str, str]] = {
    "unknown index in where": (program(DOT + " where k <= i" + OUT), "A0212", "k"),
    "mistyped contraction": (program("  S[i,j] = Q[i,e] * K[j,d]" + OUT), "A0203", "d"),
    "too few indices": (program("  S[i,j] = Q[i,e] * K[e]" + OUT), "A0205", "K[e]"),
    "assigned twice": (program(DOT + OUT + OUT), "A0210", "O"),
    "never used": (program(DOT + "\n  T[i,j] = S[i,j]" + OUT), "A0263", "T"),
    "a circle": (program("  S[i,j] = T[i,j]\n  T[i,j] = S[i,j]" + OUT), "A0213", "T[i,j]"),
    "foreign normalizer": (program(DOT + OUT.replace("[j](", "[k](")), "A0219", "S[i,j]"),
    "half a position": (program(DOT + "\n  O[i,f] = S[i,j] * V[j+0.5,f]"), "A0251", "j+0.5"),
    "data in where": (program(DOT + " where Q[i,e] > 0" + OUT), "A0230", "Q[i,e] > 0"),
    "a number in where": (program(DOT + " where i" + OUT), "A0250", "i"),
    "a condition added": (program(DOT + " + (j <= i)" + OUT), "A0250", "(j <= i)"),
    "a divisor summed": (program("  S[i,j] = 1 / (Q[i,e] * K[j,e])" + OUT), "A0220", "(Q[i,e] * K[j,e])"),
    "sum in two arguments": (
        program("  S[i,j] = max(Q[i,e]*K[j,e], 2*Q[i,e]*K[j,e])" + OUT),
        "A0221",
        "max(Q[i,e]*K[j,e], 2*Q[i,e]*K[j,e])",
    ),
    "empty": (program(DOT + " where j < i, j > i" + OUT), "A0233", "j < i"),
    "batch index": (program("  S[i,j] = Q[h,i,e] * K[j,e]" + OUT), "A0216", "h"),
    "a missing batch index": (
        program(DOT + OUT + "\n  L[i] = logsumexp[j](S[i,j])", outs=", L[b,i]"),
        "A0262",
        "L[b,i]",
    ),
    "an int mask": (program(DOT + " where M[i,j]" + OUT, more=", M[i,j]: int"), "A0250", "M[i,j]"),
    "infinity": (program("  S[i,j] = -inf if j > i else Q[i,e]*K[j,e]" + OUT), "A0212", "inf"),
    "two steps back": (
        program("  H[i,e,f] = H[i-2,e,f] + K[i,e]*V[i,f] init 0\n  O[i,f] = Q[i,e]*H[i,e,f]"),
        "A0243",
        "i-2",
    ),
    "loose reduction": (program(DOT + "\n  O[i,f] = sum[j] S[i,j] * V[j,f]"), "A0103", "sum[j]"),
    "where first": (program("  where j <= i\n" + DOT + OUT), "A0101", "where"),
    "where on the left": (program("  S[i,j] where j <= i = Q[i,e]*K[j,e]" + OUT), "A0101", "where"),
    "where as a function": (program("  S[i,j] = where(j <= i, 1, 0)" + OUT), "A0101", "where"),
    "where for a colon": (program(DOT + "\n  O[i,f] = sum[j where j <= i](S[i,j])"), "A0101", "where"),
    "if for a colon": (program(DOT + "\n  O[i,f] = sum[j if j <= i](S[i,j])"), "A0101", "if"),
    "a range": (program(DOT + "\n  O[i,f] = sum[j=0](S[i,j]) * V[i,f]"), "A0101", "="),
    "an empty where": (program(DOT + " where" + OUT), "A0101", "where"),
    "a comma too many": (program(DOT + " where j <= i," + OUT), "A0101", ","),
    "no right side": (program("  S[i,j] =" + OUT), "A0101", "="),
    "else and nothing": (program(DOT + " if j <= i else" + OUT), "A0101", "else"),
    "parentheses": (program("  S(i,j) = Q[i,e] * K[j,e]" + OUT), "A0101", "("),
    "init twice": (
        program("  H[i,e] = H[i-1,e] + Q[i,e] init 0 init 1\n  O[i,f] = H[i,e] * V[i,f]"),
        "A0101",
        "init",
    ),
}  # fmt: skip

STATES = (
    "attention t(K[b,h,t,e], V[b,h,t,f]) -> O[b,h,t,f] {{\n  batch b, h\n"
    "{0}\n  O[t,f] = K[t,e] * H[t,e,f]\n}}\n"
)
PROGRAMS |= {
    "mistyped in a helper of a step": (
        STATES.format(
            "  E[t,f] = Kx[t,c] * H[t-1,c,f] - V[t,f]\n"
            "  H[t,e,f] = H[t-1,e,f] + K[t,e] * E[t,f]   init 0"
        ),
        "A0212",
        "Kx[t,c]",
    ),
    "mistyped in one of two states": (
        STATES.format(
            "  S[t,e,f] = S[t-1,e,f] - Kx[t,e] * H[t-1,e,f]   init 0\n"
            "  H[t,e,f] = H[t-1,e,f] + S[t,e,f] + K[t,e] * V[t,f]   init 0"
        ),
        "A0212",
        "Kx[t,e]",
    ),
    "two states in two directions": (
        STATES.format(
            "  S[t,e,f] = S[t+1,e,f] - K[t,e] * H[t-1,e,f]   init 0\n"
            "  H[t,e,f] = H[t-1,e,f] + S[t,e,f] + K[t,e] * V[t,f]   init 0"
        ),
        "A0213",
        "H[t-1,e,f]",
    ),
    "two states at one step": (
        STATES.format(
            "  S[t,e,f] = S[t-1,e,f] - K[t,e] * H[t,e,f]   init 0\n"
            "  H[t,e,f] = H[t-1,e,f] + S[t,e,f] + K[t,e] * V[t,f]   init 0"
        ),
        "A0213",
        "H[t,e,f]",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str) -> None:
    text, code, place = PROGRAMS[name]
    with pytest.raises(attndsl.DiagnosticError) as refused:
        attndsl.compile(text)
    first = refused.value.diagnostics[0]
    assert first.code == code
    assert first.span is not None
    assert text[first.span.start : first.span.end] == place


# what is wrong -> program, the help
HELPS: dict[str, tuple[str, str]] = {
    "a sum deep in a divisor": (
        program("  S[i,j] = 1 / max(abs(Q[i,e] * K[j,e]), 1.0)" + OUT),
        "write the sum: `sum[e](Q[i,e] * K[j,e])`",
    ),
    "several sums in a divisor": (
        program("  S[i,j] = 1 / (Q[i,e] * K[j,e] + Q[i,e] * Q[j,e])" + OUT),
        "write the sum: `sum[e](Q[i,e] * K[j,e] + Q[i,e] * Q[j,e])`",
    ),
    "heads that are mixed": (
        program(DOT + "\n  T[g,i,j] = W[g,h] * S[i,j]" + OUT, ", W[g,h]"),
        "write `W[g]`, or take `h` out of `batch`, if its points are mixed",
    ),
    "batch indices out of habit": (
        program("  S[i,j] = Q[b,h,i,e] * K[j,e]" + OUT),
        "write `Q[i,e]`",
    ),
}


@pytest.mark.parametrize("name", HELPS)
def test_help(name: str) -> None:
    text, help = HELPS[name]
    with pytest.raises(attndsl.DiagnosticError) as refused:
        attndsl.compile(text)
    assert refused.value.diagnostics[0].help == help


def inputs(i: int = 5, j: int = 7) -> list[Tensor]:
    return [torch.randn(2, 3, i, 4), torch.randn(2, 3, j, 4), torch.randn(2, 3, j, 6)]


def op(body: str = DOT + OUT, more: str = "") -> Any:
    return attndsl.compile(program(body, more), backend="eager")


CAUSAL = DOT + " where j <= i" + OUT
BLOCKS = DOT + " where i // w == j // w" + OUT
INT = ", w: int"

# name -> call, code, text
CALLS: dict[str, tuple[Callable[[], object], str, str]] = {
    "sparse": (lambda: op()(inputs()[0].to_sparse(), *inputs()[1:]), "A0501", "`Q` is sparse"),
    "nested": (
        lambda: op()(
            torch.nested.nested_tensor([torch.randn(2, 2)], layout=torch.jagged), *inputs()[1:]
        ),
        "A0501",
        "`Q` is nested",
    ),
    "meta": (lambda: op()(inputs()[0].to("meta"), *inputs()[1:]), "A0501", "different devices"),
    "numpy": (lambda: op()(*inputs()[:2], np.zeros(3)), "A0501", "should be a tensor"),
    "out": (lambda: op()(*inputs(), out="x"), "A0501", "`out` should be a tensor"),
    "no start": (lambda: op(CAUSAL)(*inputs()), "A0505", "does not say where the first `i` stands"),
    "start before 0": (lambda: op(CAUSAL)(*inputs(), start=-1), "A0505", "`start` is -1"),
    "starts before 0": (
        lambda: op(CAUSAL)(*inputs(), start=torch.tensor([0, -2]), debug=True),
        "A0505",
        "`start` holds -2",
    ),
    "start past the end": (lambda: op(CAUSAL)(*inputs(7, 5), start="end"), "A0505", "past the 5"),
    "blocks of 0": (lambda: op(BLOCKS, INT)(*inputs(5, 5), w=0), "A0508", r"`i // w` divides"),
    "over 64 bits": (lambda: op(BLOCKS, INT)(*inputs(5, 5), w=2**70), "A0504", "64 bits"),
    "a power over 64 bits": (
        lambda: op(DOT + " * (2 ** w)" + OUT, INT)(*inputs(), w=2**40),
        "A0504",
        r"`2\*\*w` needs more than 64 bits",
    ),
    "before the first": (
        lambda: op("  S[i,j] = Q[i-1,e] * K[j,e]" + OUT)(*inputs()),
        "A0506",
        "runs from -1",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_call(name: str) -> None:
    call, code, text = CALLS[name]
    with pytest.raises(attndsl.CallError, match=text) as caught:
        call()
    assert caught.value.code == code


def test_what_a_call_leaves_out_may_divide_by_zero() -> None:
    """Of a decided `if` only the chosen branch counts."""
    body = DOT + " + (cos(i // w - j // w) if w > 0 else 0)" + OUT
    same = op(body, INT)
    q, k, v = inputs(5, 5)
    torch.testing.assert_close(same.reference(q, k, v, w=0), op()(q, k, v))
    torch.testing.assert_close(same(q, k, v, w=2), same.reference(q, k, v, w=2))


def test_extents_of_zero() -> None:
    """No keys, no queries, no batch: empty sums, and gradients of the right shape."""
    q, k, v = inputs()
    for given in ((q, k[:, :, :0], v[:, :, :0]), (q[:, :, :0], k, v), (q[:0], k[:0], v[:0])):
        leaves = [x.clone().requires_grad_() for x in given]
        out = op()(*leaves)
        assert out.abs().sum() == 0
        out.sum().backward()
        assert all(x.grad is not None and x.grad.abs().sum() == 0 for x in leaves)


def test_only_text_is_compiled() -> None:
    with pytest.raises(TypeError, match="the text of a program is needed"):
        attndsl.compile(b"attention")  # type: ignore[arg-type]
