"""Which programs are refused, and with which codes: every rule of the contract, section by section."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attndsl.diagnostics import Severity
from attndsl.frontend import CheckResult

Look = Callable[[str], CheckResult]

S = "S[i,j] = Q[i,e] * K[j,e]"
O = "O[i,f] = softmax[j](S[i,j]) * V[j,f]"  # noqa: E741


def errors(result: CheckResult) -> list[str]:
    return [d.code for d in result.diagnostics if d.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("statements", "codes"),
    [
        # Names (§6)
        (f"{S}; max[i] = max[j](S[i,j]); {O}", ["A0201"]),
        (f"{S}; lambda[i] = max[j](S[i,j]); {O}", ["A0201"]),
        (f"{S}; out[i] = max[j](S[i,j]); {O}", ["A0201"]),
        (f"{S}; float[i] = max[j](S[i,j]); {O}", ["A0201"]),
        (f"{S}; M[start] = max[j](S[start,j]); {O}", ["A0201"]),
        (f"{S}; M[i] = sum[debug](S[i,debug]); {O}", ["A0201"]),
        (f"{S}; M[i] = S[i,exp] * S[i,exp]; {O}", ["A0201"]),
        (f"{S}; V[i] = max[j](S[i,j]); {O}", ["A0210"]),
        (f"{S}; w = 3; {O}", ["A0210"]),
        (f"{S}; {S}; {O}", ["A0210"]),
        (f"{S}; e[i] = 1; {O}", ["A0211"]),
        (f"{S}; M[w] = 1; {O}", ["A0211"]),
        (f"{S}; M[i] = sum[w](S[i,w]); {O}", ["A0211"]),
        (f"{S}; M[i] = sum[K](S[i,j]); {O}", ["A0211"]),
        # Unknown names; several in one run, each with its place
        ("S[i,j] = Q[i,e] * KK[j,e] + ww; O[i,f] = softmax[j](T[i,j]) * V[j,f]", ["A0212"] * 3),
        (f"{S} + x; {O}", ["A0212"]),
        (f"{S} + true; {O}", ["A0212"]),
        (f"{S} / |n|; {O}", ["A0212"]),
        (f"{S} / |w|; {O}", ["A0212"]),
        # Calls and arity
        (f"{S} * foo(i); {O}", ["A0204"]),
        (f"{S} * mean[j](i); {O}", ["A0204"]),
        (f"{S} * exp[j](i); {O}", ["A0204"]),
        (f"{S} * softmax(i); {O}", ["A0204"]),
        (f"{S} * V(i); {O}", ["A0204"]),
        (f"{S} * V[j,0](i); {O}", ["A0204"]),
        (f"{S} * i[j]; {O}", ["A0204"]),
        (f"{S} * exp; {O}", ["A0204"]),
        (f"{S} * exp(1, 2); {O}", ["A0205"]),
        (f"{S} * max(1); {O}", ["A0205"]),
        (f"{S} * exp(x=1); {O}", ["A0205"]),
        (f"{S} * max[j](1, j); {O}", ["A0205"]),
        (f"{S} * max[](j); {O}", ["A0205"]),
        (f"{S} * sum[j](j, iters=3); {O}", ["A0205"]),
        (f"{S} * w[0]; {O}", ["A0205"]),
        (f"{S} * Q; {O}", ["A0205"]),
        (f"{S} * Q[i]; {O}", ["A0205"]),
        (f"{S} * doc[0, 0]; {O}", ["A0205"]),
        (f"{S} * max[j]; {O}", ["A0103"]),
        # Left sides, brackets
        (f"S[i,j+1] = Q[i,e] * K[j,e]; {O}", ["A0207"]),
        (f"{S} * max[j+1](1); {O}", ["A0207"]),
        (f"{S} * max[l, l](K[l,0]); {O}", ["A0207"]),
        (f"{S} * Q[i, e : e < 2]; {O}", ["A0217"]),
        # Batch (§5)
        (f"{S} * h; {O}", ["A0216"]),
        (f"{S} * Q[b,h,i,e]; {O}", ["A0216"]),
        (f"S[h,i,j] = Q[i,e] * K[j,e]; {O}", ["A0216"]),
        (f"{S} * sum[b](Q[i,b]); {O}", ["A0216", "A0216"]),
        # Order (§7) and recurrences (§15)
        (f"{O}; {S}", ["A0213"]),
        (f"{S} + S[i,j]; {O}", ["A0213"]),
        (f"{S}; H[t] = H[t-1] + g[t]; {O}", ["A0242"]),
        (f"{S}; H[t] = H[t-2] + g[t] init 0; {O}", ["A0243"]),
        (f"{S}; H[t] = H[2*t] + g[t] init 0; {O}", ["A0243"]),
        (f"{S}; H[t] = H[t-1] + H[t+1] init 0; {O}", ["A0243"]),
        (f"{S}; H[t] = g[t] init 0; {O}", ["A0244"]),
        (f"{S}; H[t] = H[t-1] + 1 init g[t]; {O}", ["A0245"]),
        # Domains (§8)
        (f"{S} where e < 2; {O}", ["A0230"]),
        (f"{S} where l < 2; {O}", ["A0212"]),
        (f"{S} where j <= i, i < j; {O}", ["A0233"]),
        (f"{S} where False; {O}", ["A0233"]),
        # Sums (§10)
        (f"S[i,j] = Q[i,e] * K[j,d]; {O}", ["A0203"]),
        (f"S[i,j] = Q[i,m] * K[j,d]; {O}", ["A0203", "A0203"]),
        (f"{S}; M[i] = softmax[j](S[i,j]); {O}", ["A0203"]),
        (f"{S}; M[i] = 2 * j; {O}", ["A0203"]),
        (f"{S}; M[i] = Q[i,0] / S[i,j]; {O}", ["A0220"]),
        (f"{S}; M[i] = max(S[i,j], K[j,0]); {O}", ["A0221"]),
        # Normalizers (§11)
        (f"{S}; M[i] = softmax[j](Q[i,0]); {O}", ["A0219"]),
        (f"{S}; M[i,j] = softmax[k](S[i,k]); {O}", ["A0203"]),
        (f"{S}; M[i,j] = softmax[j : doc[k] > 0](S[i,j]); {O}", ["A0203"]),
        # Filters, extents, ranks (§4, §12)
        (f"{S} * sum[l : l <= j](l); {O}", ["A0218"]),
        (f"{S}; rank n = |nn|; {O}", ["A0212"]),
        (f"{S}; rank n = i; {O}", ["A0231"]),
        (f"{S}; rank n = doc[0]; {O}", ["A0231"]),
        (f"{S}; rank n = |i| / 2; {O}", ["A0251"]),
        (f"{S}; rank n = 2, n = 3; {O}", ["A0202"]),
        # solve (§13)
        (f"{S}; M[i] = solve[x](x == 1); {O}", ["A0240"]),
        (f"{S}; M[i] = solve[x : 0 < x < 1](x == 1); {O}", ["A0240"]),
        (f"{S}; M[i] = solve[x : 0 <= x <= 1](x <= 1); {O}", ["A0240"]),
        (f"{S}; M[i] = solve[x : 0 <= x <= 1](i == 1); {O}", ["A0240"]),
        (f"{S}; M[i] = solve[x : 0 <= x <= 1](x == 1, iters=0); {O}", ["A0240"]),
        (f"{S}; M[i] = solve[x : 0 <= x <= 1](x == 1, steps=2); {O}", ["A0205"]),
        (f"{S}; M[i] = solve[x : 0 <= x <= x](x == 1); {O}", ["A0240"]),
        (f"{S}; H[t] = sum[e](softmax[e](H[t-1] * Q[t,e]) * K[t,e]) init 0; {O}", ["A0241"]),
        (f"{S}; H[t] = H[t-(2-1)] + 1 init 0; {O}", ["A0243"]),
        # assume (§14)
        (f"{S}; assume S > 0; {O}", ["A0232"]),
        (f"{S}; assume g; {O}", ["A0250"]),
        (f"{S}; assume nix > 0; {O}", ["A0212"]),
        # Types (§17, §18)
        (f"{S} * (i < j); {O}", ["A0250"]),
        (f"{S} where i; {O}", ["A0250"]),
        (f"{S} if i else 0; {O}", ["A0250"]),
        (f"{S} where not i; {O}", ["A0250"]),
        (f"{S} where i < j < (i < j); {O}", ["A0250"]),
        (f"{S} * sum[l](doc[l] > 0); {O}", ["A0250"]),
        (f"{S} * (1 if any[l](doc[l]) else 0); {O}", ["A0250"]),
        (f"{S} * V[j / 2, 0]; {O}", ["A0251"]),
        (f"{S} * V[g[0], 0]; {O}", ["A0251"]),
        (f"{S} * (1 if i < j else i < j); {O}", ["A0250"]),
        # What is left over
        (S, ["A0260"]),
        (f"{S}; O[i,j] = S[i,j]", ["A0261"]),
        (f"{S}; T[i,j] = S[i,j]; {O}", ["A0263"]),
    ],
)
def test_statements(look: Look, statements: str, codes: list[str]) -> None:
    result = look(statements)
    assert errors(result) == codes, "\n".join(map(str, result.diagnostics))
    for d in result.diagnostics:
        assert d.span is not None
        assert d.title
        assert d.title[0].islower() or d.title[0] in "`|", "lower case"
        assert not d.title.endswith("."), "no full stop"


@pytest.mark.parametrize(
    ("program", "codes"),
    [
        (
            "attention f(X[i]) -> O[i] { O[i] = X[i] } attention f(X[i]) -> O[i] { O[i] = X[i] }",
            ["A0202"],
        ),
        ("attention f(X[i], X[j]) -> O[i] { O[i] = X[i] }", ["A0202"]),
        ("attention f(X[i]) -> X[i] { }", ["A0202"]),
        ("attention f(X[i]) -> O[i], O[i] { O[i] = X[i] }", ["A0202"]),
        ("attention f(X[i,i]) -> O[i] { O[i] = X[i,i] }", ["A0207"]),
        ("attention f(X[3]) -> O { O = X[0] }", ["A0207"]),
        ("attention f(X[i]) -> O[i//2] { O[i] = X[i] }", ["A0207", "A0261"]),
        ("attention f(X[i], Y[exp(i)]) -> O[i] { O[i] = X[i] * Y[i] }", ["A0207"]),
        ("attention f(X[i], Y[i//g]) -> O[i] { O[i] = X[i] * Y[0] }", ["A0212"]),
        ("attention f(X[b,i], Y[b+i]) -> O[b,i] { batch b; O[i] = X[i] * Y }", ["A0208"]),
        ("attention f(X[i] : half) -> O[i] { O[i] = X[i] }", ["A0209"]),
        ("attention f(X[i] = 3) -> O[i] { O[i] = X[i] }", ["A0206"]),
        ("attention f(X[i], w: int = 0.5) -> O[i] { O[i] = X[i] * w }", ["A0206"]),
        ("attention f(X[i], w: bool = 1) -> O[i] { O[i] = X[i] if w else 0 }", ["A0206"]),
        ("attention f(X[i], w: int = |i|) -> O[i] { O[i] = X[i] * w }", ["A0206"]),
        ("attention f(X[i], w) -> O[i] { O[i] = X[i] * w }", ["A0206"]),
        ("attention f(X[i]) -> O[i] : int { O[i] = X[i] }", ["A0206"]),
        ("attention f(X[i], i: int) -> O[i] { O[i] = X[i] }", ["A0211"]),
        ("attention f(X[i]) -> O[i] { batch z; O[i] = X[i] }", ["A0212"]),
        ("attention f(X[b,i]) -> O[b,i] { batch b, b; O[i] = X[i] }", ["A0202"]),
        ("attention f(X[b,i]) -> O[i] { batch b; O[i] = X[i] }", ["A0262"]),
        ("attention f(X[i]) -> O[i,k] { O[i,k] = X[i] }", ["A0218"]),
        ("def exp(x) = x\nattention f(X[i]) -> O[i] { O[i] = X[i] }", ["A0201"]),
        ("def q(x, x) = x\nattention f(X[i]) -> O[i] { O[i] = X[i] }", ["A0202"]),
        ("def q(x) = x def q(x) = x\nattention f(X[i]) -> O[i] { O[i] = X[i] }", ["A0202"]),
        ("def q(x) = x\nattention f(X[i]) -> O[i] { O[i] = q(X[i], 2) }", ["A0205"]),
        ("def q(x) = x\nattention f(X[i]) -> O[i] { O[i] = q(x=X[i]) }", ["A0205"]),
        ("def q(x) = x\nattention f(q[i]) -> O[i] { O[i] = q[i] }", ["A0201"]),
        (
            "def p(x) = q(x) def q(x) = p(x)\nattention f(X[i]) -> O[i] { O[i] = q(X[i]) }",
            ["A0214"],
        ),
        ("def q(x) = |x|\nattention f(X[i]) -> O[i] { O[i] = q(X[i]) }", ["A0215"]),
        ("def q(x) = x", ["A0265"]),
        ("attention lambda(X[i]) -> O[i] { O[i] = X[i] }", ["A0201"]),
    ],
)
def test_programs(look: Look, program: str, codes: list[str]) -> None:
    result = look(program)
    assert errors(result) == codes, "\n".join(map(str, result.diagnostics))


@pytest.mark.parametrize(
    "program",
    [
        "attention f(X[i]) -> O[i] { O[i] = X[i] * (sum[l : l <= i](X[l]) if i > 0 else 0) }",
        "attention f(X[t]) -> O[t] { O[t] = X[t] - (X[t-1] if t > 0 else 0) }",
        "attention f(X[t], h0) -> O[t] { O[t] = X[t] }".replace("h0", "h0[]").replace(
            "X[t] }", "X[t] * h0 }"
        ),
        "attention f(X[t,e], H0[e]) -> O[t,e] { O[t,e] = O[t-1,e] * X[t,e] init H0[e] }",
        "attention f(X[t,e]) -> O[t,e] { O[t,e] = O[t+1,e] + X[t,e] init 0 }",
        "attention f(X[t], id[j]: int) -> O[j] { O[j] = X[id[j]] }",
        "attention f(X[t], id[t]: int) -> O[t] { O[t] = X[id[t] % |t|] where id[t] > 0 }",
        "attention f(X[i,j], m[i,j]: bool) -> O[i] { O[i] = sum[j : m[i,j]](X[i,j]) }",
        "attention f(X[i,j]) -> O[i] { O[i] = 1 if any[j](X[i,j] > 0) and not all[j](X[i,j] > 1) else 0 }",
        "attention f(X[i,j]) -> O[i] { O[i] = prod[j : j < i](1 - X[i,j]) }",
        "attention f(X[i]) -> O[i], L { O[i] = X[i]; L = sum[i](X[i]) }",
        "attention f(X[h//G,i], Y[h,i], G: int) -> O[h,i] { O[h,i] = X[h//G,i] * Y[h,i] }",
        "attention f(X[t,e]) -> O[e] { H[t,e] = H[t-1,e] + X[t,e] init 0; O[e] = H[|t|-1,e] }",
    ],
)
def test_sound_programs(look: Look, program: str) -> None:
    result = look(program)
    assert not result.diagnostics, "\n".join(map(str, result.diagnostics))


def test_unused_inputs_are_warnings(look: Look) -> None:
    result = look("attention f(X[i], Y[i], w: int) -> O[i] { O[i] = X[i] }")
    assert result.ok
    assert [(d.code, d.severity) for d in result.diagnostics] == [("A0264", Severity.WARNING)] * 2


def test_a_solved_parameter_is_used(look: Look) -> None:
    text = (
        "attention f(X[b,h//G,i], Y[b,h,i], G: int) -> O[b,h,i] { batch b, h; O[i] = X[i] * Y[i] }"
    )
    assert not look(text).diagnostics


def test_what_a_def_reads_is_used(look: Look) -> None:
    text = "def scaled(x) = x * s\nattention f(X[i], s: float) -> O[i] { O[i] = scaled(X[i]) }"
    assert not look(text).diagnostics


def test_a_refused_tensor_is_not_reported_again(look: Look) -> None:
    result = look("S[i,j] = nix; P[i,j] = exp(S[i,j]); O[i,f] = P[i,j] * V[j,f] * nochmal")
    assert [d.title for d in result.diagnostics] == ["unknown name `nix`", "unknown name `nochmal`"]
