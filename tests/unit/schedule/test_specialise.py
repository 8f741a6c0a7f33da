"""The body of a range: with its masks, or without them and what they alone need."""

from __future__ import annotations

from attndsl.cascade.nodes import Compare, Const, DType, Extent, Position, Reduction, Select
from attndsl.schedule import tile as t
from attndsl.schedule.specialise import masked_body, unmasked_body
from attndsl.schedule.tile import Val
from attndsl.schedule.values import MaskStmt, SweepStmt
from tests.unit.schedule.harness import forward, kernels

F, B = DType.FLOAT, DType.BOOL
INSIDE = t.Compute("inside", ("j",), B, Compare("<", Position("j"), Extent("j")))
SCORE = t.Load("s", ("i", "j"), F, "S", (Position("i"), Position("j")), ("i", "j"))
MASK = MaskStmt("s_m", ("i", "j"), F, "s", "inside", float("-inf"))
FOLD = t.Fold("m", ("i",), Reduction.MAX, "s_m", "j")
KEEP = t.Assign("M", Val("m"))
BODY: list[SweepStmt] = [INSIDE, SCORE, MASK, FOLD, KEEP]


def test_a_mask_is_a_choice() -> None:
    body = masked_body(BODY)
    choice = body[2]
    assert isinstance(choice, t.Compute)
    assert choice.name == "s_m"
    assert body[1] is SCORE
    assert len(body) == 5


def test_without_masks_nothing_of_them_is_left() -> None:
    """The condition goes, what was masked stands for itself, and the stream's own bound is not checked."""
    load, fold, keep = unmasked_body(BODY, "j")
    assert isinstance(load, t.Load)
    assert load.bounds == ("i",)
    assert isinstance(fold, t.Fold)
    assert fold.src == "s"
    assert keep == KEEP


def test_masks_of_masks_lead_to_the_first_value() -> None:
    again = MaskStmt("s_mm", ("i", "j"), F, "s_m", "inside", 0.0)
    fold = t.Fold("m", ("i",), Reduction.MAX, "s_mm", "j")
    body = unmasked_body([INSIDE, SCORE, MASK, again, fold, KEEP], "j")
    assert [s.src for s in body if isinstance(s, t.Fold)] == ["s"]


def test_loops_over_points_are_specialised_inside() -> None:
    inner = (t.Assign("M", Val("s_m")),)
    (_, loop) = unmasked_body([INSIDE, SCORE, MASK, t.For("e_pt", inner)], "j")
    assert loop == t.For("e_pt", (t.Assign("M", Val("s")),))


def test_a_scatter_loses_its_guard() -> None:
    scatter = t.Scatter("g", (Position("i"),), "s_m", "scale", ("i", "j"), "inside")
    *_, last = unmasked_body([INSIDE, SCORE, MASK, scatter], "j")
    assert last == t.Scatter("g", (Position("i"),), "s", "scale", ("i",), None)


def test_what_is_updated_in_place_stays() -> None:
    dead = t.Compute("unused", (), F, Const(1.0))
    body = unmasked_body([dead, SCORE, FOLD, KEEP, t.AccDot("O", "s", "v", "j", "V")], "j")
    assert dead not in body
    assert isinstance(body[-1], t.AccDot)


def test_full_ranges_of_a_kernel_hold_no_mask() -> None:
    text = """attention t(Q[b,i,e], K[b,j,e], V[b,j,f]) -> O[b,i,f] {
      batch b
      S[i,j] = Q[i,e] * K[j,e]   where j <= i
      O[i,f] = softmax[j](S[i,j]) * V[j,f]
    }"""
    (kernel,) = kernels(forward(text))
    assert kernel.sweep is not None
    full, partial = kernel.sweep.ranges
    assert not full.masked
    assert partial.masked

    def conditions(body: tuple[t.Stmt, ...]) -> list[t.Compute]:
        return [s for s in body if isinstance(s, t.Compute) and s.dtype is B]

    assert conditions(partial.body)
    assert not conditions(full.body)
    assert not any("j" in s.bounds for s in full.body if isinstance(s, t.Load))
    assert all("j" in s.bounds for s in partial.body if isinstance(s, t.Load))


def test_what_a_mask_makes_infinite_is_no_integer() -> None:
    """The cast of an infinity to an integer is undefined, and compilers drop the mask for it."""
    program = """attention last(Q[i,e], K[j,e], t[i]) -> A[i] {
      S[i,j] = Q[i,e] * K[j,e] where j <= i
      A[i] = max[j](j if S[i,j] >= t[i] else -1)
    }"""
    infinite = [
        s
        for kernel in kernels(forward(program))
        if kernel.sweep is not None
        for part in kernel.sweep.ranges
        for s in part.body
        if isinstance(s, t.Compute)
        and isinstance(s.expr, Select)
        and s.expr.other == Const(float("-inf"))
    ]
    assert infinite
    assert all(s.dtype is F for s in infinite)
