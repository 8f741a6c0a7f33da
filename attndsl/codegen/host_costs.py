"""What each tile of a kernel costs, as a Python function of a generated module: by it the host shares the tiles out.

costs(program, ends, "window_hopper_costs", blocks) -> lines
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attndsl.cascade.nodes import (
    Binary,
    Call,
    Compare,
    Const,
    Expr,
    Extent,
    Logic,
    Param,
    Select,
    Unary,
)
from attndsl.codegen.names import RESERVED, Namespace
from attndsl.schedule.tile import Block, Compute, Origin, Role, TileProgram, Val


def costs(
    program: TileProgram, ends: Sequence[Compute], name: str, blocks: Mapping[str, str]
) -> tuple[str, ...]:
    """The function; `ends` are the statements that the ends of ranges follow from, `blocks` what sizes are called."""
    assert program.sweep is not None
    (tile,) = program.of(Role.TILE)
    names = Namespace(RESERVED | {"extents", "params", "cfg", "out", "keys"})
    origin = names.fresh(f"{tile.name}0")
    called = {s.name: names.fresh(s.name) for s in ends}

    def text(e: Expr) -> str:
        match e:
            case Const():
                return repr(e.value)
            case Val():
                return called[e.name]
            case Param():
                return f'params["{e.name}"]'
            case Extent():
                return f'extents["{e.rank}"]'
            case Block():
                return f'cfg["{blocks[e.axis]}"]'
            case Origin():
                return origin
            case Unary():
                return f"{e.op} {part(e.arg)}" if e.op == "not" else f"{e.op}{part(e.arg)}"
            case Binary() | Compare():
                # Additions and multiplications go from the left to the right without parentheses.
                last = e.left.op if isinstance(e.left, Binary) else ""
                plain = (last in ("+", "-") and e.op in ("+", "-")) or last == e.op == "*"
                return f"{text(e.left) if plain else part(e.left)} {e.op} {part(e.right)}"
            case Logic():
                return f" {e.op} ".join(map(part, e.args))
            case Select():
                return f"{part(e.then)} if {part(e.cond)} else {part(e.other)}"
            case Call():
                return f"{e.fn}({', '.join(map(text, e.args))})"
        raise AssertionError(e)

    def part(e: Expr) -> str:
        alone = isinstance(e, Const | Val | Param | Extent | Block | Origin | Call)
        return text(e) if alone else f"({text(e)})"

    block = f'cfg["{blocks[tile.name]}"]'
    swept = [f"max(0, {text(Val(r.hi))} - {text(Val(r.lo))})" for r in program.sweep.ranges]
    back = "[::-1]" if program.order == "reverse" else ""
    return (
        f"def {name}(extents, params, cfg):",
        f'    """What each tile of {tile.name} costs, in the order of a list."""',
        "    out = []",
        f'    for {origin} in range(0, extents["{tile.rank}"], {block}):',
        *(f"        {called[s.name]} = {text(s.expr)}" for s in ends),
        f"        swept = {' + '.join(swept)}",
        "        # A tile's beginning and end take about as long as a step over so many points as it has.",
        f"        out.append(swept / {block} + 1)",
        f"    return out{back}",
    )
