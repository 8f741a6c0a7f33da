"""Whether the warps of a kernel can specialise, and who then does what.

    roles(plan, program) -> Roles, or Unfit with the reason

On Hopper a kernel runs fastest when one warp only copies (a producer, which keeps rings of stream tiles full) and
groups of four warps only compute (consumers, 64 rows of the tile each). What a tile program must be like for this, and
which statement then belongs to whom, is found here; nothing is looked at but its statements and their axes:

    resident   tiles [tile, full] that stay in shared memory: left operands of score products
    also       tiles [tile, full] that rows are computed of: they come by the copy engine too, where there is room
    rings      tiles [stream, full] that pass through shared memory: right operands of products
    beside     vectors [stream] that the producer makes: of loads and positions, and nothing of the tile
    columns    those of them that consumers read: they lie beside the first ring's tiles
    spared     what consumers need not compute for that
    scalars    values without axes, computed once before the warps part
    rows       the rest of the prologue, by the consumers
    bodies     for every range of the sweep: score products, what happens to their results in registers, and the
               products that accumulate, whose left operand comes from these registers
    turned     those of the rings whose tiles come [full, stream], by a kernel ahead: right in sums of 8 bits
    stores     tiles [tile, full] that leave through shared memory, by the copy engine
    folded     whether sweeps get longer or shorter from tile to tile, so that work is shared out by pairs
    listed     whether the host can tell how long they are, and shares the work out by a list
    dealt      whether ids say how long they are, and a program takes the next tile when it is done with one
    order      in which order a consumer's step issues products and waits for them
    corrections  factors of sums that are 1 in most steps (`standing.py`)

Source: the roles are those of FlashAttention-3 (Shah et al. 2024, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from attndsl.cascade.nodes import Binary, DType, Expr
from attndsl.cascade.walk import rewrite, walk
from attndsl.schedule.absorbed import absorbed
from attndsl.schedule.copied import Unfitting, block, copied, leaves, one_box_each
from attndsl.schedule.ends import counted_ends, moving_ends
from attndsl.schedule.specialise import defined, used
from attndsl.schedule.standing import standing
from attndsl.schedule.tile import (
    AccDot,
    Across,
    Assign,
    Compute,
    Declare,
    Dot,
    Fold,
    Load,
    Plan,
    Range,
    Role,
    Stmt,
    Store,
    Sweep,
    TileProgram,
    TileReach,
    Val,
)


class Order(StrEnum):
    """How a consumer's step goes; what it computes should run beside products, of its own group or of another.

    With `CARRIED` the operands of sums wait for the next step in registers; `ALONE` needs the fewest registers.
    """

    CARRIED = (
        "carried"  # issue this tile's scores, then the last tile's sums; compute; wait for the sums
    )
    ALONE = (
        "alone"  # issue the scores, compute, issue each sum when its operand is there, wait for all
    )


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a kernel stays with the portable form."""

    reason: str


@dataclass(frozen=True, slots=True)
class Body:
    """One range of the sweep, in the order in which a consumer works through it.

    What is `early` needs no product: rows and columns, which are there when the first product is.
    """

    masked: bool
    scores: tuple[Dot, ...]
    early: tuple[Stmt, ...]
    middle: tuple[Stmt, ...]
    sums: tuple[AccDot, ...]
    across: tuple[Across, ...] = ()
    """What the tile adds to memory: groups exchange their summands, each multiplies a half of the columns."""


@dataclass(frozen=True, slots=True)
class Roles:
    """Who does what; `rings` maps the value a stream tile is called by to its load, `stores` a value to its place."""

    sweep: Sweep
    tile: str
    stream: str
    resident: dict[str, Load]
    also: dict[str, Load]
    rings: dict[str, Load]
    turned: frozenset[str]
    beside: dict[str, Compute | Load]
    columns: dict[str, Compute | Load]
    spared: frozenset[str]
    scalars: tuple[Stmt, ...]
    rows: tuple[Stmt, ...]
    bodies: tuple[Body, ...]
    stores: dict[str, Store]
    folded: bool
    listed: bool
    dealt: bool
    order: Order
    corrections: frozenset[str]

    @property
    def across(self) -> tuple[Across, ...]:
        """What tiles add to memory, once whatever range a step is of."""
        return self.bodies[0].across

    @property
    def looked_up(self) -> bool:
        """Whether ids say how far the sweep of a tile reaches."""
        return any(isinstance(s, TileReach) for s in self.scalars)

    def moved(self) -> list[tuple[str, Load | Store]]:
        """What the copy engine moves, by value."""
        loads = [*self.resident.items(), *self.also.items(), *self.rings.items()]
        return [*loads, *self.stores.items()]


def roles(plan: Plan, program: TileProgram) -> Roles | Unfit:
    """The roles of a kernel's warps."""
    try:
        return _roles(plan, program)
    except Unfitting as no:
        return Unfit(str(no))


def adds(plan: Plan) -> bool:
    """Whether a kernel of the plan adds to memory by a warp of its own."""
    found = (roles(plan, s) for s in plan.steps if isinstance(s, TileProgram))
    return any(isinstance(r, Roles) and r.across for r in found)


def _roles(plan: Plan, program: TileProgram) -> Roles:
    tiles, sweep = program.of(Role.TILE), program.sweep
    if sweep is None:
        raise Unfitting("it streams nothing")
    sweep = absorbed(program, sweep)
    if len(tiles) != 1:
        raise Unfitting(f"it tiles {len(tiles)} axes, and warps specialise over one")
    if program.rounds is not None:
        raise Unfitting("it sweeps in rounds")
    if sweep.ordered or sweep.descending:
        raise Unfitting("its tiles come one after the other, each with what the one before left")
    if program.of(Role.BAND):
        raise Unfitting("it multiplies rows that stand along diagonals of its pairs")
    tile, stream = tiles[0].name, sweep.axis
    full = {a.name: a.rank for a in program.of(Role.FULL)}
    rank = {tile: tiles[0].rank, stream: program.axis(stream).rank, **full}
    prologue = {s.name: s for s in program.prologue if isinstance(s, Load)}
    bodies = tuple(_body(r, tile, stream) for r in sweep.ranges)
    resident: dict[str, Load] = {}
    rings: dict[str, Load] = {}
    for r, body in zip(sweep.ranges, bodies, strict=True):
        loads = {s.name: s for s in r.body if isinstance(s, Load)}
        for dot in body.scores:
            left, right = prologue.get(dot.left), loads.get(dot.right)
            if left is None or not block(plan, left, tile, rank):
                raise Unfitting(
                    f"`{dot.left}`, the left side of a product, is computed rather than copied"
                )
            if right is None or not block(plan, right, stream, rank):
                raise Unfitting(f"`{dot.right}`, right in a product, is no tile of memory")
            resident[left.name] = left
            rings.setdefault(right.name, right)
        for acc in body.sums:
            right = loads.get(acc.right)
            if right is None or not block(plan, right, stream, rank):
                raise Unfitting(f"`{acc.right}`, right in a sum of products, is no tile of memory")
            rings.setdefault(right.name, right)
        for add in body.across:
            made = {m.name: m for m in body.middle if isinstance(m, Compute)}
            right = prologue.get(add.right)
            if add.left not in made or made[add.left].dims != (tile, stream):
                raise Unfitting(
                    f"`{add.left}`, left in a sum in memory, is no tile that is computed"
                )
            if right is None or not block(plan, right, tile, rank):
                raise Unfitting(f"`{add.right}`, right in a sum in memory, is no tile of memory")
            resident[right.name] = right
    if not resident:
        raise Unfitting("its scores are no product of tiles")
    turned = _turned(plan, bodies, resident, rings)
    others = (s for s in prologue.values() if s.name not in resident)
    also = {s.name: s for s in others if copied(plan, s) and block(plan, s, tile, rank)}
    one_box_each((*resident.values(), *also.values(), *rings.values()), set(rank))
    bodies = tuple(_without(b, rings) for b in bodies)
    _registers_only(program, bodies, resident, rings, tile, stream)
    scalars, rows = _parted(program, resident)
    leaving = [s for s in program.epilogue if isinstance(s, Store)]
    known = _names(scalars)
    leaving = [s for s in leaving if used(s) <= {s.value, *known}]
    stores = {s.value: s for s in leaving if leaves(plan, program, s, tile, rank)}
    ends = moving_ends(program)
    folded = any(ends)
    order = _order(bodies)
    corrections = frozenset[str]()
    if order is Order.CARRIED and not plan.eight:  # weights of 8 bits have no digits to spare
        sweep, corrections = standing(program, sweep)
        bodies = tuple(_remade(b, r) for b, r in zip(bodies, sweep.ranges, strict=True))
    once = known | {n for n in map(defined, _turns(program)) if n is not None}
    beside, columns, spared = _beside(bodies, stream, once)
    return Roles(
        sweep,
        tile,
        stream,
        resident,
        also,
        rings,
        turned,
        beside,
        columns,
        spared,
        scalars,
        rows,
        bodies,
        stores,
        folded,
        folded and counted_ends(program) is not None and _room_for_a_list(bodies, order, all(ends)),
        # Two sums are no faster for it (dK, dV of documents: 0.193 ms dealt, 0.191 by pairs).
        order is Order.CARRIED
        and not program.loops
        and any(isinstance(s, TileReach) for s in scalars),
        order,
        corrections,
    )


def _turned(
    plan: Plan, bodies: tuple[Body, ...], resident: dict[str, Load], rings: dict[str, Load]
) -> frozenset[str]:
    """The right sides of sums, where they have 8 bits: of such a tile the matrix units read rows of the stream alone.

    They lie in memory the other way, so a kernel ahead turns the tensor; the copy engine cannot.
    """
    if not plan.eight:
        return frozenset()
    products: list[Dot | AccDot] = []
    for b in bodies:
        products += [*b.scores, *b.sums]
    for p in products:
        if p.like not in plan.eight:
            raise Unfitting(f"`{p.left}` is computed, and has 16 bits where `{p.right}` has 8")
    out = {a.right for b in bodies for a in b.sums}
    tensors = {rings[n].tensor for n in out}
    for n, load in (*resident.items(), *rings.items()):
        if (n not in out and load.tensor in tensors) or any(
            p.right in out for b in bodies for p in b.scores
        ):
            raise Unfitting(f"`{load.tensor}` is read along both its axes, and has 8 bits")
    return frozenset(out)


def _order(bodies: tuple[Body, ...]) -> Order:
    """How a step goes, by what its registers have room for.

    Accumulators of two sums leave none. An operand that waits for the next step takes as many as half a tile of scores,
    which is there beside two tiles, not beside three (a softcap's dQ would spill 83 times in its loops).
    """
    room = all(len(b.sums) == 1 and not b.across and pairs_held(b) <= 2 for b in bodies)
    return Order.CARRIED if room else Order.ALONE


def _room_for_a_list(bodies: tuple[Body, ...], order: Order, window: bool) -> bool:
    """Whether tiles by a list are faster: 3 to 11 % in causal sums (benchmarks/results/hopper-five-h200.json).

    Two sums with nothing added to memory lose: the list's address costs registers (8 spills instead of 2 for dK, dV).
    Windows, whose pairs are of unequal length, gain more than that (dK, dV: 8 %); not where the sums of both passes are
    made in one sweep (32 spills instead of 10).
    """
    added = all(b.across for b in bodies)
    return order is Order.CARRIED or (not added if window else added)


def pairs_held(body: Body) -> int:
    """The most numbers for each pair of a row and a key that a step holds at a time, products among them."""
    held = [{s.name for s in body.scores}]
    read = set[str]().union(*(used(s) for s in body.sums))
    later = []  # what is read behind each statement
    for m in reversed(body.middle):
        later.append(frozenset(read))
        read |= used(m)
    for m, behind in zip(body.middle, reversed(later), strict=True):
        made = set[str]()
        if isinstance(m, Compute | Load) and len(m.dims) == 2 and m.dtype is DType.FLOAT:
            made = {m.name}
        held.append((held[-1] | made) & behind)
    return max(map(len, held))


def _body(r: Range, tile: str, stream: str) -> Body:
    scores: list[Dot] = []
    sums: list[AccDot] = []
    middle: list[Stmt] = []
    across: list[Across] = []
    for s in r.body:
        match s:
            case Across():
                across.append(s)
            case Dot():
                if s.dims != (tile, stream):
                    raise Unfitting(f"the product `{s.name}` is not one of rows and keys")
                if _feeds(middle, s):
                    raise Unfitting(f"the product `{s.name}` waits for another's result")
                scores.append(s)
            case AccDot():
                sums.append(s)
            case Compute() | Load() | Fold() | Assign():
                middle.append(s)
            case _:
                raise Unfitting(f"its sweep holds {_called(s)}")
    names = {s.name for s in sums}
    for m in middle:
        if names & used(m):
            raise Unfitting("what it accumulates is read inside the sweep")
    if len(across) > 1:
        raise Unfitting("it adds several sums to memory")
    return Body(r.masked, tuple(scores), (), tuple(middle), tuple(sums), tuple(across))


def _feeds(middle: Iterable[Stmt], s: Dot) -> bool:
    made = {m.name for m in middle if isinstance(m, Compute | Fold | Assign)}
    return s.left in made or s.right in made


def _without(body: Body, rings: dict[str, Load]) -> Body:
    """Without the loads that the producer makes; what needs no product first."""
    late = {d.name for d in body.scores}
    late |= {s.name for s in body.middle if isinstance(s, Assign)}
    early: list[Stmt] = []
    middle: list[Stmt] = []
    for s in body.middle:
        if isinstance(s, Load) and s.name in rings:
            continue
        if isinstance(s, Compute | Load) and len(s.dims) < 2 and not late & used(s):
            early.append(s)
            continue
        middle.append(s)
        late.add(getattr(s, "name", ""))
    return replace(body, early=tuple(early), middle=tuple(middle))


def _remade(body: Body, r: Range) -> Body:
    """The body with what is computed as the range has it now."""
    made = {s.name: s for s in r.body if isinstance(s, Compute)}
    middle = (made.get(s.name, s) if isinstance(s, Compute) else s for s in body.middle)
    return replace(body, middle=tuple(middle))


def _turns(program: TileProgram) -> list[Stmt]:
    """What is computed once for each turn around the sweep, for all rows of a tile."""
    return [s for loop in program.loops for s in loop.prologue if not getattr(s, "dims", ())]


def begun(body: Body, stream: str) -> tuple[Body, dict[str, tuple[str, str]]]:
    """The body with vectors of the stream that are added to a product as what the product begins with.

        P[j,i] = dot(v, dO);  dS = (P - d[i]) * ...   ->   P[j,i] = -d[i] + dot(v, dO);  dS = P * ...

    The vector's registers are free while the product runs. By product: `+` or `-`, and the vector.
    """
    vectors = {
        s.name
        for s in body.early
        if isinstance(s, Compute | Load) and s.dims == (stream,) and s.dtype is DType.FLOAT
    }
    middle, starts = list(body.middle), dict[str, tuple[str, str]]()
    for dot in body.scores:
        users = [k for k, s in enumerate(middle) if dot.name in used(s)]
        if len(users) != 1 or not isinstance(s := middle[users[0]], Compute):
            continue
        found = [
            n
            for n in walk(s.expr)
            if isinstance(n, Binary)
            and n.op in ("+", "-")
            and n.left == Val(dot.name)
            and isinstance(n.right, Val)
            and n.right.name in vectors
        ]
        if len(found) == 1 and sum(n == Val(dot.name) for n in walk(s.expr)) == 1:
            (sum_,) = found
            assert isinstance(sum_.right, Val)
            starts[dot.name] = (sum_.op, sum_.right.name)
            middle[users[0]] = replace(s, expr=_put(s.expr, sum_, sum_.left))
    return replace(body, middle=tuple(middle)), starts


def _put(e: Expr, was: Expr, now: Expr) -> Expr:
    """An expression with one of its parts exchanged."""
    return rewrite(e, lambda n: now if n == was else None)


Vectors = dict[str, Compute | Load]


def _beside(
    bodies: tuple[Body, ...], stream: str, scalars: set[str]
) -> tuple[Vectors, Vectors, frozenset[str]]:
    """What the producer makes, what of it consumers read, and what they need not compute then.

    It loads one value for each key, with the checks of the body that has most, and computes what follows from such
    loads. What follows from positions alone costs consumers less than a load: they compute it, if they need it at all.
    """
    could: Vectors = {}
    for body in sorted(bodies, key=lambda b: b.masked):
        for s in body.early:
            if not isinstance(s, Compute | Load) or s.dims != (stream,):
                continue
            plain = s.guard is None and s.dtype is not DType.BOOL if isinstance(s, Load) else True
            if plain and used(s) <= scalars | set(could):
                could.pop(s.name, None)  # in the order of the last body
                could[s.name] = s
    loaded: set[str] = set()
    for n, s in could.items():
        if isinstance(s, Load) or (s.dtype is DType.FLOAT and used(s) & loaded):
            loaded.add(n)
    rest = [s for b in bodies for s in (*b.early, *b.middle, *b.sums) if defined(s) not in could]
    read = set[str]().union(*map(used, rest))
    for n in reversed(could):
        if n in read and n not in loaded:
            read |= used(could[n])
    columns = {n: could[n] for n in could if n in loaded & read}
    needed = set(columns)
    for n in reversed(could):
        if n in needed:
            needed |= used(could[n])
    beside = {n: s for n, s in could.items() if n in needed}
    return beside, columns, frozenset(n for n in could if n in loaded or n not in read)


def _names(scalars: Iterable[Stmt]) -> set[str]:
    """The values that statements without axes make."""
    out: set[str] = set()
    for s in scalars:
        if isinstance(s, TileReach):
            out |= {s.low, s.high, s.full_low, s.full_high}
        elif (name := defined(s)) is not None:
            out.add(name)
    return out


def _registers_only(
    program: TileProgram,
    bodies: tuple[Body, ...],
    resident: dict[str, Load],
    rings: dict[str, Load],
    tile: str,
    stream: str,
) -> None:
    """What lies in shared memory feeds products and nothing else; what lies in registers has the products' layouts."""
    shared = {*resident, *rings}
    turns = [s for loop in program.loops for s in loop.prologue]
    for s in turns:
        if not isinstance(s, Compute | Load):
            raise Unfitting(f"a loop around its sweep holds {_called(s)}")
    rest = [*(s for s in program.prologue if s not in resident.values()), *turns]
    # Before and after the sweep there is room to hold a resident tile in registers too.
    for s in (m for b in bodies for m in (*b.early, *b.middle)):
        apart = shared & used(s)
        if apart:
            raise Unfitting(f"`{min(apart)}` is read outside products")
    full = {a.name for a in program.of(Role.FULL)}
    allowed = {(), (tile,), (stream,), (tile, stream), *((tile, f) for f in full)}
    allowed |= {(f,) for f in full}
    for s in (*rest, *(m for b in bodies for m in (*b.early, *b.middle)), *program.epilogue):
        dims = getattr(s, "dims", ())
        if dims not in allowed:
            raise Unfitting(f"`{getattr(s, 'name', s)}` spans {', '.join(dims)}")
        if isinstance(s, Fold) and not s.dims:
            raise Unfitting(f"`{s.name}` is one value for all rows of a tile")
    declared = {s.name: s for s in program.prologue if isinstance(s, Declare)}
    for body in bodies:
        for acc in body.sums:
            if acc.name not in declared or acc.over != stream:
                raise Unfitting(f"`{acc.name}` accumulates over another axis than `{stream}`")


def _parted(
    program: TileProgram, resident: dict[str, Load]
) -> tuple[tuple[Stmt, ...], tuple[Stmt, ...]]:
    """The prologue's scalars, and its rest; a resident tile that more than products need is in both memories."""
    scalars: list[Stmt] = []
    rows: list[Stmt] = []
    late: set[str] = set()
    also = {n for s in (*program.prologue, *program.epilogue) for n in used(s)}
    for s in program.prologue:
        if isinstance(s, Load) and s.name in resident and s.name not in also:
            continue
        alone = isinstance(s, TileReach) or (isinstance(s, Compute | Load) and not s.dims)
        if alone and not late & used(s):
            scalars.append(s)
            continue
        if isinstance(s, Compute | Load | Fold | Declare):
            late.add(s.name)
            rows.append(s)
            continue
        raise Unfitting(f"what comes before its sweep holds {_called(s)}")
    return tuple(scalars), tuple(rows)


_CALLED = {
    "Declare": "a value made anew for each tile",
    "For": "a loop over points",
    "Scan": "a running sum",
    "Solve": "a triangular system",
    "Dot": "a product",
    "AccDot": "a product",
    "Fold": "a reduction",
    "Store": "a write to memory",
    "Across": "a sum in memory",
    "Scatter": "a write to gathered places",
    "TileReach": "a range looked up by ids",
}


def _called(s: Stmt) -> str:
    """A statement in the words of `explain`."""
    return _CALLED.get(type(s).__name__, "a range of its own")
