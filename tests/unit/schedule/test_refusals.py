"""Programs without a schedule: which kind of refusal each is, and what it points at."""

from __future__ import annotations

import pytest

from attndsl.analysis.ranks import classify
from attndsl.cascade.autodiff import differentiate
from attndsl.cascade.nodes import Index, Read, Reduce, Reduction
from attndsl.schedule import Plan, Refused, plan_backward, plan_forward
from attndsl.schedule.builder import Builder
from attndsl.schedule.outcomes import Needs
from attndsl.schedule.plan import Planning, _learn
from attndsl.schedule.tile import Axis, Role
from tests.examples.test_references import cascade_of
from tests.unit.schedule.harness import load

QKV = "attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> {} {{\n  batch b\n  S[i,j] = Q[i,e] * K[j,e]{}\n  {}\n}}"
THREE = "attention t(Q[b,i,e], K[b,j,e], L[b,k,e]) -> {} {{\n  batch b\n  {}\n}}"

FORWARD = {
    "a recurrence": (
        "A0401",
        "`H`",
        "attention t(Q[b,t,e], K[b,t,e], V[b,t,f]) -> O[b,t,f] {\n  batch b\n"
        "  H[t,e,f] = 0.9 * H[t-1,f,e] + K[t,e] * V[t,f]   init 0\n  O[t,f] = Q[t,e] * H[t,e,f]\n}",
    ),
    "a root": (
        "A0402",
        "two sweeps",
        "attention t(Q[b,i,e], K[b,j,e]) -> O[b,i] {\n  batch b\n  S[i,j] = Q[i,e] * K[j,e]\n"
        "  O[i] = solve[x : 0 <= x <= 1](sum[j](abs(S[i,j] - x * max[j](S[i,j] - x))) == 1)   where i < 4\n}",
    ),
    "scores of several heads at once": (
        "A0404",
        "`O.1`",
        "attention t(Q[b,h,i,e], K[b,h,j,e], W[g,h]) -> O[b,g,i] {\n  batch b\n"
        "  S[h,i,j] = Q[h,i,e] * K[h,j,e]\n  T[g,i,j] = W[g,h] * S[h,i,j]\n"
        "  O[g,i] = 1 if any[j](T[g,i,j] > 2) else 0\n}",
    ),
    "three kept sequences": (
        "A0406",
        "`i`, `j`, `k`",
        THREE.format(
            "O[b,i,j,k]",
            "S[i,j,k] = Q[i,e] * K[j,e] * L[k,e]   where k <= j <= i\n  O[i,j,k] = S[i,j,k]",
        ),
    ),
}


@pytest.mark.parametrize("name", FORWARD)
def test_a_refusal_says_what_it_is(name: str) -> None:
    code, part, text = FORWARD[name]
    with pytest.raises(Refused) as refused:
        plan_forward(load(text))
    assert refused.value.code == code
    assert part in refused.value.why


def backward(text: str) -> Plan:
    g = differentiate(load(text))
    return plan_backward(g.forward, g.backward, g.gradients)


def test_the_gradient_of_a_table_of_matrices() -> None:
    """An entry of two features, also where one of them is only ever a middle axis."""
    text = (
        "attention t(Q[b,i,e], K[b,j,e], T[m,d,e], V[b,j,d], a[b,i]: int) -> O[b,i,d], Z[b,i,d] {\n  batch b\n"
        "  S[i,j] = Q[i,e] * K[j,e]   where j <= i\n  O[i,d] = sum[e](T[a[i],d,e] * Q[i,e])\n"
        "  Z[i,d] = sum[j](S[i,j] * V[j,d])\n}"
    )
    with pytest.raises(Refused) as refused:
        backward(text)
    assert refused.value.code == "A0408"
    text = text.replace(" V[b,j,d],", "").replace("Z[b,i,d]", "Z[b,i]").replace("Z[i,d]", "Z[i]")
    with pytest.raises(Refused) as refused:
        backward(text.replace(" * V[j,d]", ""))
    assert refused.value.code == "A0408"


def test_a_sweep_inside_an_expression() -> None:
    """The normal form leaves none; a kernel that met one would have to walk a sequence inside a tile."""
    cascade = load(QKV.format("O[b,i,f]", "", "O[i,f] = softmax[j](S[i,j]) * V[j,f]"))
    axes = [Axis("b", "b", Role.GRID), Axis("i", "i", Role.TILE)]
    kernel = Builder(cascade, classify(cascade), axes, frozenset(), frozenset())
    inside = Reduce(Reduction.SUM, ("j",), Read("K", (Index("b"), Index("j"), Index("e"))))
    with pytest.raises(Refused) as refused:
        kernel.eval(inside)
    assert refused.value.code == "A0407"


@pytest.mark.parametrize("name", ["two_sweeps", "running_softmax"])
def test_gradients_added_up_over_three_sequences(name: str) -> None:
    """Keys read at `j1 * w + j0`: their gradient walks rows, blocks and places in a block."""
    g = differentiate(cascade_of(name))
    with pytest.raises(Refused) as refused:
        plan_backward(g.forward, g.backward, g.gradients)
    assert refused.value.code in ("A0403", "A0404")


def test_a_circle_ends() -> None:
    """A tensor that is needed a second time, though a kernel already computes it before: A0405, and no endless loop."""
    cascade = load(QKV.format("O[b,i,f]", "", "O[i,f] = softmax[j](S[i,j]) * V[j,f]"))
    defs = {d.tensor: d for d in cascade.body}
    state = Planning({"O": None})
    need = Needs("M_S", "`M_S` must be known before it is used in the same sweep")
    _learn(state, defs, need, ["O"])
    assert set(state.targets) == {"O", "M_S"}
    assert state.apart == {("O", "M_S")}
    with pytest.raises(Refused) as refused:
        _learn(state, defs, need, ["O"])
    assert refused.value.code == "A0405"
    assert state.notes == [need.why]
