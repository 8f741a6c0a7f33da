"""Text of tile programs, for `--dump-ir=tile` and for golden tests."""

from __future__ import annotations

from collections.abc import Iterable

from attndsl.cascade.nodes import Expr, Param, Reduction
from attndsl.cascade.printer import print_expr
from attndsl.cascade.walk import rewrite
from attndsl.schedule import tile as t
from attndsl.schedule.tile import Role


def text_of(e: Expr) -> str:
    """An expression over values, in the language's notation."""

    def rule(n: Expr) -> Expr | None:
        match n:
            case t.Val(name):
                return Param(name)
            case t.Block(axis):
                return Param(f"BLOCK_{axis}")
            case t.Origin(axis):
                return Param(f"{axis}0")
            case t.Epsilon():
                return Param("EPSILON")
            case t.Span(like):
                return Param(f"SPAN_{like}")
            case _:
                return None

    return print_expr(rewrite(e, rule))


def _lhs(name: str, dims: tuple[str, ...]) -> str:
    return f"{name}[{','.join(dims)}]" if dims else name


def _stmt(s: t.Stmt, indent: str) -> Iterable[str]:
    match s:
        case t.Compute(name, dims, _, expr):
            yield f"{indent}{_lhs(name, dims)} = {text_of(expr)}" + (
                "  (0/0 is 0)" if s.safe else ""
            )
        case t.Load(name, dims, _, tensor, subs, bounds, guard):
            check = f"  within {', '.join(bounds)}" if bounds else ""
            check += f"  if {guard}" if guard else ""
            at = ", ".join(text_of(x) for x in subs)
            yield f"{indent}{_lhs(name, dims)} = load {tensor}[{at}]{check}"
        case t.Dot(name, dims, left, right, over, like):
            yield f"{indent}{_lhs(name, dims)} = dot[{over}]({left}, {right}) as {like}"
        case t.Fold(name, dims, op, src, over):
            yield f"{indent}{_lhs(name, dims)} = {op.value}[{over}]({src})"
        case t.Scan(name, dims, src, over, down, op):
            way = "down" if down else "up"
            how = "scan" if op is Reduction.SUM else f"{op.value} scan"
            yield f"{indent}{_lhs(name, dims)} = {how}[{over} {way}]({src})"
        case t.Pick(name, dims, src, over, at, inside):
            rest = "" if inside else "  (0 where there is none)"
            yield f"{indent}{_lhs(name, dims)} = {src} at {over} = {text_of(at)}{rest}"
        case t.Solve(name, dims, matrix, right, _):
            yield f"{indent}{_lhs(name, dims)} = solve({right} + {matrix} . {name})"
        case t.Declare(name, dims, _, expr):
            yield f"{indent}state {_lhs(name, dims)} = {text_of(expr)}"
        case t.Assign(name, expr):
            yield f"{indent}{name} <- {text_of(expr)}"
        case t.AccDot(name, left, right, over, like, scale):
            old = f"{name} * {scale}" if scale else name
            yield f"{indent}{name} <- {old} + dot[{over}]({left}, {right}) as {like}"
        case t.For(axis, body, guard, lo, hi, down):
            span = "" if lo is None else f" in [{lo}, {hi}){' down' if down else ''}"
            yield f"{indent}for {axis}{span}{f' if {guard}' if guard else ''}:"
            for inner in body:
                yield from _stmt(inner, indent + "  ")
        case t.Fence():
            yield f"{indent}fence"
        case t.Store(tensor, subs, value, bounds):
            at = ", ".join(text_of(x) for x in subs)
            yield f"{indent}store {tensor}[{at}] = {value}" + (
                f"  within {', '.join(bounds)}" if bounds else ""
            )
        case t.Reach(low, high, full_low, full_high, tensor, subs, _, first, last):
            at = ", ".join(text_of(x) for x in subs)
            names = f"[{low}, {high}) and full [{full_low}, {full_high})"
            yield f"{indent}{names} = where {tensor}[{at}] meets [{first}, {last}]"
        case t.TileReach(low, high, full_low, full_high, tensor, subs, _, of, of_subs, _):
            at, here = (", ".join(text_of(x) for x in s) for s in (subs, of_subs))
            names = f"[{low}, {high}) and full [{full_low}, {full_high})"
            yield f"{indent}{names} = where {tensor}[{at}] meets the tile's {of}[{here}]"
        case t.Across(tensor, subs, left, right, over, like, bounds):
            at = ", ".join(text_of(x) for x in subs)
            yield f"{indent}add {tensor}[{at}] += dot[{over}]({left}, {right}) as {like}" + (
                f"  within {', '.join(bounds)}" if bounds else ""
            )
        case t.Scatter(tensor, subs, value, scale, _, guard):
            at = ", ".join(text_of(x) for x in subs)
            yield f"{indent}add {tensor}[{at}] += {value} * {scale}" + (
                f"  if {guard}" if guard else ""
            )


def print_program(p: t.TileProgram) -> str:
    """One kernel."""
    grid = ", ".join(a.name for a in p.of(Role.GRID))
    tiles = ", ".join(a.name for a in p.of(Role.TILE)) or "-"
    lines = [
        f"tile program {p.name}    grid {grid or '-'}    tiles {tiles}    order {p.order}",
        "  prologue",
    ]
    for s in p.prologue:
        lines += _stmt(s, "    ")
    if p.rounds is not None:
        lines.append(f"  rounds, at most {p.rounds.count}, while {p.rounds.going}")
        for s in p.rounds.prologue:
            lines += _stmt(s, "    ")
    for loop in p.loops:
        lines.append(f"  loop {loop.axis} in [{loop.lo}, {loop.hi})")
        for s in loop.prologue:
            lines += _stmt(s, "    ")
    if p.sweep is not None:
        for r in p.sweep.ranges:
            kind = "partial" if r.masked else "full"
            way = ", down" if p.sweep.descending else ", up" if p.sweep.ordered else ""
            lines.append(f"  sweep {p.sweep.axis} in [{r.lo}, {r.hi}) {kind}{way}")
            for s in r.body:
                lines += _stmt(s, "    ")
    if p.rounds is not None:
        lines.append("  after each round")
        for s in p.rounds.epilogue:
            lines += _stmt(s, "    ")
    lines.append("  epilogue")
    for s in p.epilogue:
        lines += _stmt(s, "    ")
    return "\n".join(lines)


def print_plan(p: t.Plan) -> str:
    """A whole pass."""
    out = []
    for b in p.buffers:
        shape = ",".join(b.ranks)
        out.append(
            f"{b.kind.value} {b.name}[{shape}] {b.dtype.value}"
            + (f" like {b.like}" if b.like else "")
        )
    for s in p.steps:
        match s:
            case t.TileProgram():
                out.append("\n" + print_program(s))
                if s.again is not None:
                    out.append("\nagain, if inputs were rounded before\n" + print_program(s.again))
            case t.HostSum(dst, src, axes, scale):
                out.append(
                    f"\nhost {dst} = sum over axes {axes} of {src}"
                    + (f" / {scale}" if scale else "")
                )
            case t.HostScale(dst, src, count):
                out.append(f"\nhost {dst} = scale of {src} for {' x '.join(count)} terms")
    return "\n".join(out) + "\n"
