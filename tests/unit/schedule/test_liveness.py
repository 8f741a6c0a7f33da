"""What a sweep holds in registers, by hand-counted bodies."""

from __future__ import annotations

from attndsl.cascade.nodes import Binary, Const, DType, Expr, Position
from attndsl.schedule import tile as t
from attndsl.schedule.liveness import held
from tests.unit.codegen.alibi_plan import body


def val(name: str) -> Expr:
    return t.Val(name)  # type: ignore[return-value]


def pair(name: str, *of: str) -> t.Compute:
    e: Expr = Const(0.0)
    for o in of:
        e = Binary("+", e, val(o))
    return t.Compute(name, ("i", "j"), DType.FLOAT, e)


def test_each_step_of_a_forward_pass_replaces_the_scores() -> None:
    assert held(body(masked=True), ("e", "f")) == (("i", "j"),)


def test_values_live_until_their_last_use() -> None:
    kept = (pair("a"), pair("b"), pair("c", "b"), pair("d", "a", "c"))
    assert held(kept, ()) == (("i", "j"), ("i", "j"))
    assert held((pair("a"), pair("b", "a"), pair("c", "b")), ()) == (("i", "j"),)


def test_a_gather_holds_its_addresses() -> None:
    at = Binary("-", Position("i"), Position("j"))
    gather = t.Load("x", ("i", "j"), DType.FLOAT, "table", (at,))
    assert held((gather, pair("y", "x")), ()) == (("i", "j"),) * 3


def test_accumulators_of_inner_loops_are_held() -> None:
    d = t.Declare("d", ("i", "j"), DType.FLOAT, Const(0.0))
    loop = t.For("e", (t.Assign("d", Binary("+", val("d"), Const(1.0))),))
    assert held((d, loop, pair("s", "d")), ("e",)) == (("i", "j"),)
