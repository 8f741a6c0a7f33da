"""A call that does not fit its program says so: which, what was declared, what came."""

from __future__ import annotations

import re

import pytest
import torch

import attndsl
from attndsl.callerrors import CallError
from tests.unit.runtime.programs import ALIBI, WINDOW, alibi_inputs, compiled

Q, K, V, S = alibi_inputs()
BAD = {
    "missing": (lambda op: op(Q, K, V), "A0501", "input `slope` is missing"),
    "too many": (lambda op: op(Q, K, V, S, S), "A0501", "4 tensors are declared, and 5 came"),
    "twice": (lambda op: op(Q, K, V, S, Q=Q), "A0501", "`Q` came twice"),
    "unknown": (
        lambda op: op(Q, K, V, slopes=S),
        "A0501",
        "no argument `slopes`.*did you mean `slope`",
    ),
    "no tensor": (
        lambda op: op(Q, K, V, [1.0]),
        "A0501",
        "`slope` should be a tensor, and a list came",
    ),
    "rank": (lambda op: op(Q, K[0], V, S), "A0502", r"K\[b,h // G,j,e\].*shape \(2, 21, 8\)"),
    "extents": (lambda op: op(Q, K[..., :6], V, S), "A0503", r"\|e\| is 8.*and 6 by axis 3 of `K`"),
    "heads": (lambda op: op(Q[:, :3], K, V, S[:3]), "A0503", "3, which is no multiple of 2"),
    "parameter": (lambda op: op(Q, K, V, S, G=4), "A0503", r"\|h\| is 4, and G \* 2 is 8"),
    "type of parameter": (lambda op: op(Q, K, V, S, G=2.5), "A0504", "`G` is declared `int`"),
    "bool": (lambda op: op(Q, K, V, S, G=True), "A0504", "`G` is declared `int`, and True came"),
    "int tensor": (
        lambda op: op(Q.int(), K, V, S),
        "A0501",
        "`Q` is declared `float`, and torch.int32",
    ),
    "mixed": (
        lambda op: op(Q.bfloat16(), K, V, S),
        "A0501",
        "different types.*K: torch.float32, Q: torch.bf",
    ),
    "float64": (
        lambda op: op(Q, K, V, S.double()),
        "A0501",
        "`slope` is torch.float64, and `Q` is torch.fl",
    ),
    "device": (lambda op: op(Q, K, V, S.to("meta")), "A0501", "`Q` on cpu, `slope` on meta"),
    "no start": (
        lambda op: op(Q[:, :, :1], K, V, S),
        "A0505",
        r"\|i\| = 1 and \|j\| = 21.*start=\"end\"",
    ),
    "start below 0": (
        lambda op: op(Q[:, :, :1], K, V, S, start=torch.tensor([3, -1])),
        "A0505",
        "`start` holds -1, and positions begin at 0",
    ),
    "start below 0 of the oracle": (
        lambda op: op.reference(Q[:, :, :1], K, V, S, start=torch.tensor([3, -1])),
        "A0505",
        "`start` holds -1, and positions begin at 0",
    ),
    "first below 0": (
        lambda op: op.partial(Q, K, V, S, first=-3),
        "A0505",
        "`first` is -3, and positions begin at 0",
    ),
    "start word": (lambda op: op(Q[:, :, :1], K, V, S, start="last"), "A0505", "`start` is 'last'"),
    "start float": (lambda op: op(Q, K, V, S, start=1.5), "A0505", "`start` is 1.5"),
    "start tensor": (
        lambda op: op(Q[:, :, :1], K, V, S, start=torch.tensor([1.0, 2.0])),
        "A0505",
        "torch.float32, not of integers",
    ),
    "start shape": (
        lambda op: op(Q[:, :, :1], K, V, S, start=torch.tensor([1, 2, 3])),
        "A0505",
        r"`start` has shape \(3,\), and \|b\| is 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_error(case: str) -> None:
    call, code, text = BAD[case]
    with pytest.raises(CallError) as caught:
        call(compiled(ALIBI))
    assert caught.value.code == code
    assert "alibi" in str(caught.value)
    assert re.search(text, str(caught.value), re.DOTALL), str(caught.value)


def test_a_missing_parameter() -> None:
    q = torch.randn(1, 1, 4, 8)
    with pytest.raises(CallError, match="`cap` has no default"):
        compiled(WINDOW)(q, q, q)


TABLE = """
attention toeplitz(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], table[h,n], ids[b,j]: int, emb[h,m]) -> O[b,h,i,f] {
  batch b, h
  S[i,j] = Q[i,e] * K[j,e] + table[i - j] + emb[ids[j]]   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""


def table_inputs(n: int, length: int) -> list[torch.Tensor]:
    q, k, v = torch.randn(3, 1, 2, n, 8)
    return [q, k, v, torch.randn(2, length), torch.randint(0, 3, (1, n)), torch.randn(2, 3)]


def test_affine_subscripts_are_checked_over_the_domain() -> None:
    op = compiled(TABLE)
    x = table_inputs(9, 9)
    torch.testing.assert_close(op(*x), op.reference(*x), rtol=1e-4, atol=1e-5)
    with pytest.raises(CallError, match=r"`i - j.*` runs from 0 to 8") as caught:
        op(*table_inputs(9, 8))
    assert caught.value.code == "A0506"
    assert "8 points" in str(caught.value)


def test_the_range_moves_with_start() -> None:
    op = compiled(TABLE)
    x = table_inputs(9, 9)
    x[0] = x[0][:, :, :2]
    op(*x, start="end")
    with pytest.raises(CallError, match="runs from 0 to 9"):
        op(*x, start=8)
    b = x[0].shape[0]
    with pytest.raises(CallError, match="runs from 0 to 9"):
        op(*x, start=torch.full((b,), 8))


def test_debug_mode_checks_data() -> None:
    op = compiled(TABLE)
    x = table_inputs(9, 9)
    op(*x, debug=True)
    x[4][0, 3] = 7
    with pytest.raises(CallError) as caught:
        op(*x, debug=True)
    assert caught.value.code == "A0506"


def test_unknown_backend_and_names() -> None:
    with pytest.raises(ValueError, match="'cuda' is none of auto, triton, hopper, eager"):
        attndsl.compile(ALIBI, backend="cuda")
    with pytest.raises(attndsl.DiagnosticError, match="several attentions"):
        attndsl.compile(ALIBI + WINDOW)
    assert attndsl.compile(ALIBI + WINDOW, name="window").name == "window"
    with pytest.raises(attndsl.DiagnosticError, match="did you mean `alibi`"):
        attndsl.compile(ALIBI, name="alibis")


FORGET = """
attention forget(Q[b,h,i,e], K[b,h,j,e], V[b,h,j,f], logf[b,h,j]) -> O[b,h,i,f] {
  batch b, h
  C[j]   = sum[l : l <= j](logf[l])
  S[i,j] = Q[i,e] * K[j,e] + C[i] - C[j]   where j <= i
  O[i,f] = softmax[j](S[i,j]) * V[j,f]
}
"""


def test_a_scan_from_the_beginning_takes_no_start() -> None:
    op = compiled(FORGET)
    q, k, v = torch.randn(3, 1, 2, 9, 8)
    x = (q, k, v, torch.randn(1, 2, 9))
    assert torch.equal(op(*x, start=0), op(*x))
    for start in (1, torch.tensor([1])):
        with pytest.raises(CallError, match="`C` runs over its index from the beginning"):
            op(*x, start=start)


def test_triton_is_not_replaced_silently() -> None:
    with pytest.raises(CallError, match=r"the backend is `triton`, and the tensors are on cpu"):
        compiled(ALIBI, "triton")(Q, K, V, S)


def test_a_cached_call_is_checked_again_where_it_differs() -> None:
    op = compiled(ALIBI)
    q, k, v, s = alibi_inputs(1, 21)
    op(q, k, v, s, start=torch.tensor([3, 4]))
    for bad in (torch.tensor([3.0, 4.0]), torch.tensor([3]), torch.tensor([3, -4])):
        with pytest.raises(CallError):
            op(q, k, v, s, start=bad)


def test_a_program_without_schedule_is_refused_with_a_diagnostic() -> None:
    op = attndsl.compile(
        "attention turned(K[b,t,e], V[b,t,e]) -> O[b,t,e] { batch b\n"
        " H[t,e,f] = 0.9 * H[t-1,f,e] + K[t,e] * V[t,f] init 0\n O[t,e] = sum[f](H[t,e,f]) }",
        backend="eager",
    )
    x = torch.randn(1, 5, 8)
    with pytest.raises(attndsl.DiagnosticError, match="no schedule for `turned`"):
        op(x, x)


def test_a_program_without_tensors_says_so() -> None:
    op = attndsl.compile("\ufeffattention f(x: float) -> O[] { O[] = x * x }")
    with pytest.raises(CallError, match="no tensor is declared"):
        op(x=2.0)
    assert float(op.reference(x=2.0)) == 4.0


def test_what_forbids_start_is_named() -> None:
    op = attndsl.compile(
        "attention acc(V[b,t,f]) -> O[b,t,f] { batch b\n H[t,f] = 0.5 * H[t-1,f] + V[t,f] init 0\n"
        " O[t,f] = H[t,f] }"
    )
    x = torch.randn(1, 5, 8)
    with pytest.raises(CallError, match="`start` came with `cu_seqlens`"):
        op(x, start=0, cu_seqlens=torch.tensor([0, 2, 5]))
    with pytest.raises(CallError, match="`start` came with a state"):
        op(x, start=0, return_state=True)


def test_what_check_warns_of_is_shown() -> None:
    text = """attention bare(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
      batch b
      O[i,f] = (exp(Q[i,e] * K[j,e]) - 1) * V[j,f]
    }"""
    with pytest.warns(UserWarning, match=r"(?s)A0301.*has no maximum") as shown:
        attndsl.compile(text, backend="eager")
    assert shown[0].filename == __file__
