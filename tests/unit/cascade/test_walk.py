"""The rewrite kit: what a substitution leaves where an index is a subscript, and where it is a number."""

from __future__ import annotations

from attndsl.cascade.nodes import Binary, Const, Index, Position, Read
from attndsl.cascade.walk import substitute


def test_an_index_in_the_place_of_a_number_is_a_number() -> None:
    read = Read("K", (Index("b"), Binary("//", Position("h"), Const(2)), Index("t")))
    got = substitute(read, {"h": Index("h_1"), "t": Position("s")})
    assert got == Read("K", (Index("b"), Binary("//", Position("h_1"), Const(2)), Index("s")))
