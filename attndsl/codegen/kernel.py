"""One tile program as the body of a Triton kernel: arguments, and lines of code, section by section."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from attndsl.cascade.nodes import Const, DType, Expr, Extent, Param, Position, Reduction, Select
from attndsl.cascade.walk import walk
from attndsl.codegen.exprs import ATOM, ExpressionPrinter, Text, broadcast
from attndsl.codegen.joining import Joined, join
from attndsl.codegen.names import Namespace
from attndsl.schedule.tile import (
    AccDot,
    Assign,
    Axis,
    Block,
    Buffer,
    BufferKind,
    Compute,
    Declare,
    Dot,
    Epsilon,
    Fold,
    For,
    Load,
    Origin,
    Plan,
    Range,
    Reach,
    Role,
    Scan,
    Scatter,
    Solve,
    Stmt,
    Store,
    Sweep,
    TileProgram,
    Val,
)

TILED = (Role.TILE, Role.STREAM)
MOVING = (Role.STREAM, Role.PAIR)
BLOCKED = (Role.TILE, Role.STREAM, Role.PAIR, Role.FULL)
STRIDED = BufferKind.INPUT  # user tensors come with strides of their own


def statements(program: TileProgram) -> Iterable[Stmt]:
    """Every statement of a program, those inside loops included."""

    def inside(body: Iterable[Stmt]) -> Iterable[Stmt]:
        for s in body:
            yield s
            if isinstance(s, For):
                yield from inside(s.body)

    yield from inside(program.prologue)
    if program.rounds is not None:
        yield from inside(program.rounds.prologue)
    for loop in program.loops:
        yield from inside(loop.prologue)
    for r in program.sweep.ranges if program.sweep else ():
        yield from inside(r.body)
    if program.rounds is not None:
        yield from inside(program.rounds.epilogue)
    yield from inside(program.epilogue)


def expressions(s: Stmt) -> tuple[Expr, ...]:
    """The expressions of one statement, those of an inner loop left out."""
    match s:
        case Compute() | Declare() | Assign():
            return (s.expr,)
        case Load() | Store() | Scatter() | Reach():
            return s.subs
    return ()


def _sum_lines(name: str, code: str, width: int) -> list[str]:
    """`name = code` for a sum, continued by `name += ...` where it gets wider than `width`."""
    terms: list[str] = []
    depth = 0
    for piece in code.split(" + "):
        if depth:
            terms[-1] += f" + {piece}"
        else:
            terms.append(piece)
        depth += piece.count("(") - piece.count(")")
    out = [f"{name} = {terms[0]}"]
    for term in terms[1:]:
        if len(out[-1]) + 3 + len(term) <= width:
            out[-1] += f" + {term}"
        else:
            out.append(f"{name} += {term}")
    return out


def lone(sub: Expr, program: TileProgram) -> Axis | None:
    """The axis whose block a subscript is, if it is nothing else."""
    if isinstance(sub, Position):
        axis = program.axis(sub.name)
        return axis if axis.role in BLOCKED else None
    return None


def tile_axes(
    plan: Plan, program: TileProgram, s: Load
) -> tuple[tuple[int, Axis], tuple[int, Axis]] | None:
    """The two axes of a load that the copy engine can make: rows of a user's tensor, or parts of them."""
    buffer = plan.buffer(s.tensor)
    if buffer.kind is not STRIDED or s.dtype is not DType.FLOAT or s.guard is not None:
        return None
    spans = [(k, a) for k, x in enumerate(s.subs) if (a := lone(x, program)) is not None]
    if len(spans) != 2 or len(s.dims) != 2:
        return None
    (k, block), (last, row) = spans
    # Past its own end a tensor reads as 0, so its axes must end where the program's do.
    ends = (buffer.ranks[k], buffer.ranks[last]) == (block.rank, row.rank)
    moves = block.role in (*TILED, Role.PAIR)
    fits = moves and last == len(s.subs) - 1 and s.dims == (block.name, row.name)
    return ((k, block), (last, row)) if ends and fits else None


def is_gather(plan: Plan, program: TileProgram, s: Load) -> bool:
    """Whether every pair of two tiles reads an input at an address of its own."""
    roles = [program.axis(d).role for d in s.dims]
    blocks = sum(lone(x, program) is not None for x in s.subs)
    pairs = roles in ([Role.TILE, Role.STREAM], [Role.TILE, Role.TILE])
    own = plan.buffer(s.tensor).kind is STRIDED
    return own and pairs and blocks < 2 and s.guard is None and not s.bounds


@dataclass(frozen=True, slots=True)
class Stride:
    """A stride argument: of `axis` of `tensor`.

    `wide` ones only ever multiply scalars, and are 64-bit. `free` ones may have any value without a new compilation:
    those of tensors that are not read in rows of memory, where the alignment of a row decides how wide the loads are.
    """

    name: str
    tensor: str
    axis: int
    wide: bool
    free: bool


@dataclass(frozen=True, slots=True)
class Tiles:
    """An argument that says how the copy engine finds tiles of `tensor`: `block` points of `axis`, `row` of the last.

    `row` is a block too, or the rank that a row holds whole.
    """

    name: str
    tensor: str
    axis: int
    block: str
    row: str


@dataclass(frozen=True, slots=True)
class Extents:
    """How the extent of one rank is known in a kernel."""

    rank: str
    name: str
    pad: (
        str | None
    )  # the name of the padded extent, if the rank is known when the kernel is compiled


@dataclass(frozen=True, slots=True)
class Section:
    """Lines of a kernel under one heading."""

    title: str
    lines: tuple[str, ...]


@dataclass(slots=True)
class _Value:
    text: Text
    zero: frozenset[str] = frozenset()  # axes past whose end the value is 0
    tensor: str | None = None  # the tensor from which it was loaded


@dataclass(slots=True)
class KernelPrinter:
    """Prints the statements of one program. `sections` and the argument lists are complete after `run`."""

    plan: Plan
    program: TileProgram
    names: Namespace
    helpers: set[str]
    sections: list[Section] = field(default_factory=list)
    pointers: dict[str, str] = field(default_factory=dict)
    strides: dict[tuple[str, int], Stride] = field(default_factory=dict)
    extents: dict[str, Extents] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    bounds: dict[tuple[str, int], str] = field(default_factory=dict)
    tiles: dict[tuple[str, str, str], Tiles] = field(default_factory=dict)
    _axes: dict[str, str] = field(default_factory=dict)
    _offsets: dict[str, str] = field(default_factory=dict)
    _origins: dict[str, str] = field(default_factory=dict)
    _values: dict[str, _Value] = field(default_factory=dict)
    _top: list[str] = field(default_factory=list)
    _shared: dict[tuple[object, ...], str] = field(default_factory=dict)
    _masks: list[dict[str, str]] = field(default_factory=lambda: [{}])
    _lines: list[str] = field(default_factory=list)
    _indent: int = 0
    _masked: bool = False  # whether tiles may reach past the end
    _line: tuple[str, int] | None = None

    # --- what the kernel takes -----------------------------------------------------------------------------------

    def __post_init__(self) -> None:
        program, fresh = self.program, self.names.fresh
        for name in dict.fromkeys((*program.reads, *program.writes)):
            self.pointers[name] = fresh(f"{name}_ptr")
        narrow: set[tuple[str, int]] = set()
        in_rows: set[str] = set()
        for s in statements(program):
            if isinstance(s, Load | Store | Scatter):
                for k, sub in enumerate(s.subs):
                    if self._free(sub) & self._blocked():
                        narrow.add((s.tensor, k))
                    axis = lone(sub, program)
                    if axis is not None and axis.role is Role.FULL:
                        in_rows.add(s.tensor)
        for name in self.pointers:
            buffer = self.plan.buffer(name)
            if buffer.kind is STRIDED:
                for k, rank in enumerate(buffer.ranks):
                    stride = fresh(f"stride_{name}_{rank}")
                    wide = (name, k) not in narrow
                    self.strides[name, k] = Stride(
                        stride, name, k, wide, wide and name not in in_rows
                    )
        full = {a.rank for a in program.axes if a.role in (Role.FULL, Role.POINT)}
        ranks = [a.rank for a in program.axes]
        ranks += [
            n.rank
            for s in statements(program)
            for e in expressions(s)
            for n in walk(e)
            if isinstance(n, Extent)
        ]
        for name in self.pointers:
            buffer = self.plan.buffer(name)
            ranks += buffer.ranks[1:] if buffer.kind is not STRIDED else ()
        for s in statements(program):
            if isinstance(s, Reach):
                ranks += self.plan.buffer(s.tensor).ranks
        for rank in dict.fromkeys(ranks):
            if rank in full:
                upper = fresh(rank.upper())
                self.extents[rank] = Extents(rank, upper, fresh(f"{upper}_PAD"))
            else:
                self.extents[rank] = Extents(rank, fresh(f"len_{rank}"), None)
        for param in program.params:
            self.params[param] = fresh(param)
        for axis in program.axes:
            if axis.role is Role.PAIR:
                continue
            self._axes[axis.name] = fresh(axis.name)
            if axis.role in TILED:
                self.blocks[axis.name] = fresh(f"BLOCK_{axis.name.upper()}")
                self._origins[axis.name] = fresh(f"{axis.name}0")
                self._offsets[axis.name] = fresh(f"offs_{axis.name}")
            elif axis.role is Role.FULL:
                self._offsets[axis.name] = self._axes[axis.name]
        for axis in program.of(Role.PAIR):
            stream = self._stands_for(axis.name)
            for known in (self._axes, self._origins, self._offsets):
                known[axis.name] = known[stream]

    def _stands_for(self, axis: str) -> str:
        """The axis whose block and positions an axis has: its own, or the stream's."""
        if self.program.axis(axis).role is not Role.PAIR:
            return axis
        assert self.program.sweep is not None
        return self.program.sweep.axis

    def _blocked(self) -> frozenset[str]:
        return frozenset(a.name for a in self.program.axes if a.role in BLOCKED)

    def _free(self, e: Expr) -> frozenset[str]:
        """The axes that an expression spans, as far as its positions say; a value spans whatever it spans."""
        out: set[str] = set()
        for n in walk(e):
            if isinstance(n, Position):
                out.add(n.name)
            elif isinstance(n, Val):
                out |= set(self._declared(n.name))
        return frozenset(out)

    def _declared(self, name: str) -> tuple[str, ...]:
        for s in statements(self.program):
            if (
                isinstance(s, Compute | Load | Dot | Fold | Scan | Solve | Declare)
                and s.name == name
            ):
                return s.dims
        return ()

    # --- Symbols: what expressions ask for -----------------------------------------------------------------------

    def leaf(self, e: Val | Param | Extent | Position | Block | Origin | Epsilon) -> Text:
        match e:
            case Val():
                return self._values[e.name].text
            case Param():
                kind = dict(self.plan.params).get(e.name, DType.INT)
                return Text(self.params[e.name], (), kind)
            case Extent():
                known = self.extents[e.rank]
                return Text(known.name, (), DType.INT, static=known.pad is not None, natural=True)
            case Position():
                axis = self.program.axis(e.name)
                dims = (axis.name,) if axis.role in BLOCKED else ()
                return Text(self._axes[axis.name], dims, DType.INT, natural=True)
            case Block():
                name = self.blocks[self._stands_for(e.axis)]
                return Text(name, (), DType.INT, static=True, natural=True)
            case Origin():
                return Text(self._origins[e.axis], (), DType.INT, natural=True)
            case Epsilon():
                return Text(f"{self.use('epsilon')}(ACC)", (), DType.FLOAT)

    def order(self, dims: frozenset[str]) -> tuple[str, ...]:
        return tuple(a.name for a in self.program.axes if a.name in dims)

    def broadcast(self, text: Text, dims: tuple[str, ...]) -> str:
        """`text` at the axes `dims`; a dialect with layouts also moves it there."""
        return broadcast(text, dims)

    def part(self, text: Text, name: str = "t") -> Text:
        name = self.names.fresh(name)
        self._emit(f"{name} = {text.code}")
        return replace(text, code=name, level=ATOM)

    def use(self, helper: str) -> str:
        self.helpers.add(helper)
        return helper

    # --- lines ---------------------------------------------------------------------------------------------------

    def _emit(self, line: str) -> None:
        self._lines.append("    " * self._indent + line)

    def _emit_call(self, before: str, fn: str, arguments: list[str]) -> None:
        """A call as a statement: on one line, or one argument to a line."""
        line = f"{before}{fn}({', '.join(arguments)})"
        if len(line) + 4 * self._indent + 4 <= 100:
            self._emit(line)
            return
        self._emit(f"{before}{fn}(")
        for argument in arguments:
            self._emit(f"    {argument},")
        self._emit(")")

    def _section(self, title: str) -> None:
        self.sections.append(Section(title, tuple(self._lines)))
        self._lines = []
        self._line = None

    def _source(self, s: Stmt) -> None:
        """A comment with the line of the program that a statement comes from, where it changes."""
        if s.span is None or isinstance(s, For):
            return
        where = (s.span.source.name, s.span.line)
        if where == self._line:
            return
        self._line = where
        name = where[0].rsplit("/", 1)[-1]
        text = s.span.source.line(where[1]).strip()
        comment = f"# {name}:{where[1]}  {text}".rstrip()
        self._emit(comment if len(comment) <= 84 else comment[:81] + "...")

    def run(self) -> None:
        """Print the whole program."""
        self._prologue()
        self._body(self.program.prologue)
        prologue = self._lines
        self._lines = []
        self._rounds()
        sweep = self._lines
        self._lines = []
        self._body(self.program.epilogue)
        epilogue = self._lines
        self._lines = self._program_id() + self._positions()
        self._section("program")
        self._lines = self._top
        self._section("pointers")
        for title, lines in (
            ("prologue", prologue),
            (f"sweep over {self.program.sweep.axis}" if self.program.sweep else "sweep", sweep),
            ("epilogue", epilogue),
        ):
            self._lines = lines
            self._section(title)
        self.sections = [s for s in self.sections if s.lines]

    def _program_id(self) -> list[str]:
        """Which point of the grid this program is: tiles fastest, then the batch indices from last to first."""
        program = self.program
        tiles, points = program.of(Role.TILE), program.of(Role.GRID)
        out: list[str] = []
        order = [*reversed(tiles), *reversed(points)]
        out.append("pid = tl.program_id(0)")
        for k, axis in enumerate(order):
            last = k == len(order) - 1
            extent = self.extents[axis.rank].name
            if axis.role is Role.TILE:
                count = self.names.fresh(f"tiles_{axis.name}")
                block, origin = self.blocks[axis.name], self._origins[axis.name]
                out.append(f"{count} = tl.cdiv({extent}, {block})")
                mine = "pid" if last else f"pid % {count}"
                if program.order == "reverse":
                    mine = f"{count} - 1 - {mine}"
                out.append(f"{origin} = {mine if mine == 'pid' else f'({mine})'} * {block}")
                extent = count
            else:
                out.append(f"{self._axes[axis.name]} = {'pid' if last else f'pid % {extent}'}")
            if not last:
                out.append(f"pid = pid // {extent}")
        if not order:
            out.clear()
        return out

    def _positions(self) -> list[str]:
        """The positions inside tiles, axis by axis."""
        out: list[str] = []
        for axis in self.program.axes:
            name = self._axes[axis.name]
            if axis.role in TILED:
                offs = self._offsets[axis.name]
                out.append(f"{offs} = tl.arange(0, {self.blocks[axis.name]})")
                if axis.role is Role.TILE:
                    out.append(f"{name} = {self._origins[axis.name]} + {offs}")
            elif axis.role is Role.FULL:
                out.append(f"{name} = tl.arange(0, {self.extents[axis.rank].pad})")
        return out

    def _prologue(self) -> None:
        for param, name in self.params.items():
            match dict(self.plan.params).get(param):
                case DType.FLOAT:
                    self._top.append(f"{name} = tl.cast({name}, ACC)")
                case DType.BOOL:
                    self._top.append(f"{name} = {name} != 0")

    def _rounds(self) -> None:
        """The loops and the sweep, once or as often as a search takes."""
        rounds = self.program.rounds
        if rounds is None:
            self._sweep()
            return
        turn, going = self.names.fresh("round"), self._name(rounds.going)
        self._emit(f"{turn} = 0")
        self._emit(f"{going} = {turn} == 0")
        self._emit(f"while {going} & ({turn} < {rounds.count}):")
        self._indent += 1
        self._masks.append({})
        self._body(rounds.prologue)
        self._sweep()
        self._line = None
        self._emit("# The round's end.")
        self._values[rounds.going] = _Value(Text(going, (), DType.BOOL))
        self._body(rounds.epilogue)
        self._emit(f"{turn} += 1")
        self._masks.pop()
        self._indent -= 1

    def _sweep(self) -> None:
        sweep = self.program.sweep
        for loop in self.program.loops:
            axis, lo, hi = self._axes[loop.axis], self._scalar(loop.lo), self._scalar(loop.hi)
            self._emit(f"for {axis} in range({lo}, {hi}):")
            self._indent += 1
            if self._counts_with(loop.axis):  # a number of Python's own in Triton's interpreter
                self._emit(f"{axis} = tl.cast({axis}, tl.int32)")
            self._masks.append({})
            self._line = None
            self._body(loop.prologue)
        looked_up = any(isinstance(s, Reach) for s in statements(self.program))
        joined = None
        if sweep is not None and looked_up and not sweep.ordered:
            joined = join(sweep)
        if sweep is not None and joined is not None:
            self._walk_joined(sweep.ranges, joined)
        elif sweep is not None:
            origin, block = self._origins[sweep.axis], self.blocks[sweep.axis]
            if sweep.ordered:
                self._walk_in_order(sweep, origin, block)
            for r in sweep.ranges if not sweep.ordered else ():
                if not r.masked:
                    lo, hi = self._scalar(r.lo), self._scalar(r.hi)
                    self._emit("# Tiles without a mask.")
                    self._walk(f"{origin} in tl.range({lo}, {hi}, {block}", "", r)
            cut = [r for r in sweep.ranges if r.masked and not sweep.ordered]
            if cut:
                self._emit("# Tiles that the mask or the end cuts.")
            if sweep.descending and cut:
                (r,) = cut
                lo, hi = self._scalar(r.lo), self._scalar(r.hi)
                step = self.names.fresh("step")
                last = self.names.fresh("last")
                self._emit(f"{last} = (tl.cdiv({hi}, {block}) - 1) * {block}")
                head = f"{step} in tl.range({lo}, {hi}, {block}"
                self._walk(head, f"{origin} = {last} - {step}", r)
            elif len(cut) == 1:
                lo, hi = self._scalar(cut[0].lo), self._scalar(cut[0].hi)
                self._walk(f"{origin} in tl.range({lo}, {hi}, {block}", "", cut[0])
            elif cut:
                self._walk_all(cut, origin, block)
        for _ in self.program.loops:
            self._masks.pop()
            self._indent -= 1

    def _counts_with(self, axis: str) -> bool:
        """Whether the position on an axis is used as a number, and not only to find values."""
        return any(
            n == Position(axis)
            for s in statements(self.program)
            if isinstance(s, Compute | Declare | Assign)
            for e in expressions(s)
            for n in walk(e)
        )

    def _walk(self, head: str, first: str, r: Range) -> None:
        """One loop over stream tiles; `first` finds the tile's origin where the loop does not."""
        self._begin(head, first)
        self._masked = r.masked
        self._body(r.body)
        self._masked = False
        self._masks.pop()
        self._indent -= 1

    def _begin(self, head: str, first: str = "") -> None:
        """The head of a loop over stream tiles, and where its tile stands."""
        assert self.program.sweep is not None
        axis = self.program.sweep.axis
        origin = self._origins[axis]
        self._emit(f"for {head}, num_stages=NUM_STAGES):")
        self._indent += 1
        self._masks.append({})
        self._line = None
        for line in first.splitlines():
            self._emit(line)
        # Bounds read from tensors may have 64 bits, which the copy engine does not take.
        self._emit(f"{origin} = tl.multiple_of(tl.cast({origin}, tl.int32), {self.blocks[axis]})")
        self._emit(f"{self._axes[axis]} = {origin} + {self._offsets[axis]}")

    def _walk_joined(self, ranges: Sequence[Range], joined: Joined) -> None:
        """One loop over adjacent ranges, which applies masks to the tiles that need them."""
        assert self.program.sweep is not None
        origin = self._origins[self.program.sweep.axis]
        block = self.blocks[self.program.sweep.axis]
        lo, hi = self._scalar(ranges[0].lo), self._scalar(ranges[-1].hi)
        plain = next(r for r in ranges if not r.masked)
        start, stop = (self._values[n].text.at(ATOM) for n in (plain.lo, plain.hi))
        cut = [f"{origin} < {start}"] * ranges[0].masked + [f"{origin} >= {stop}"] * ranges[
            -1
        ].masked
        need = cut[0] if len(cut) == 1 else f"({cut[0]}) | ({cut[1]})"
        self._emit("# Tiles that the mask or the end cuts are masked.")
        self._begin(f"{origin} in tl.range({lo}, {hi}, {block}")
        self._masked = True
        for s in joined.body:
            self._source(s)
            if not (isinstance(s, Compute) and s.name in joined.masks):
                self._statement(s)
                continue
            assert isinstance(s.expr, Select)
            assert isinstance(s.expr.then, Val)
            self._define(s.name, self._values[s.expr.then.name].text)
            self._emit(f"if {need}:")
            self._indent += 1
            self._masks.append({})
            self._body((*joined.masks[s.name], s))
            self._masks.pop()
            self._indent -= 1
        self._masked = False
        self._masks.pop()
        self._indent -= 1

    def _walk_in_order(self, sweep: Sweep, origin: str, block: str) -> None:
        """The ranges one after the other, tile by tile, up or down: a scan carries from each tile to the next."""
        for r in sweep.ranges:
            self._emit(
                "# Tiles that the mask or the end cuts." if r.masked else "# Tiles without a mask."
            )
            lo, hi = self._scalar(r.lo), self._scalar(r.hi)
            if not sweep.descending:
                self._walk(f"{origin} in tl.range({lo}, {hi}, {block}", "", r)
                continue
            step, count = self.names.fresh("step"), self.names.fresh("steps")
            low, high = (self._values[n].text.at(ATOM) for n in (r.lo, r.hi))
            self._emit(f"{count} = tl.cdiv(tl.maximum({high} - {low}, 0), {block})")
            head = f"{step} in tl.range(0, {self.use('bound')}({count})"
            self._walk(head, f"{origin} = {low} + ({count} - 1 - {step}) * {block}", r)

    def _walk_all(self, ranges: Sequence[Range], origin: str, block: str) -> None:
        """One loop over several ranges with the same body: the code stands, and is compiled, once."""
        step = self.names.fresh("step")
        total = "0"
        found = ""
        for k, r in enumerate(ranges):
            lo, hi = (self._values[n].text.at(ATOM) for n in (r.lo, r.hi))
            count = self.names.fresh("steps")
            length = f"tl.cdiv(tl.maximum({hi} - {lo}, 0), {block})"
            self._emit(f"{count} = {length}" if k == 0 else f"{count} = {total} + {length}")
            if k == 0:
                found = f"{origin} = {lo} + {step} * {block}"
            else:
                here = f"{lo} + ({step} - {total}) * {block}"
                found += f"\n{origin} = tl.where({step} < {total}, {origin}, {here})"
            total = count
        head = f"{step} in tl.range(0, {self.use('bound')}({total})"
        self._walk(head, found, ranges[0])

    def _scalar(self, name: str) -> str:
        return f"{self.use('bound')}({self._values[name].text.code})"

    def _body(self, body: Sequence[Stmt]) -> None:
        for s in body:
            self._source(s)
            self._statement(s)

    # --- statements ----------------------------------------------------------------------------------------------

    @property
    def _printer(self) -> ExpressionPrinter:
        return ExpressionPrinter(self)

    def _statement(self, s: Stmt) -> None:
        match s:
            case Compute():
                text = self._printer.cast(self._printer.print(s.expr, s.safe), s.dtype)
                zero = frozenset(d for d in s.dims if self._vanishes(s.expr, d))
                self._define(s.name, text, zero)
            case Load():
                self._load(s)
            case Dot():
                code = self._dot(s.left, s.right, s.over, s.dims, s.like, "None")
                zero = frozenset(
                    d
                    for d, v in zip(s.dims, (s.left, s.right), strict=True)
                    if d in self._values[v].zero
                )
                self._define(s.name, Text(code, s.dims, DType.FLOAT), zero)
            case Fold():
                self._fold(s)
            case Scan():
                self._scan(s)
            case Solve():
                matrix, right = (self._values[v].text for v in (s.matrix, s.right))
                block = self.blocks[self._stands_for(s.dims[0])]
                code = f"{self.use('solve')}({matrix.code}, {right.code}, ACC, {block})"
                self._define(s.name, Text(code, s.dims, DType.FLOAT))
            case Declare():
                text = self._printer.cast(self._printer.print(s.expr), s.dtype)
                self._define(s.name, self._filled(text, s.dims, s.dtype), frozenset())
                self._values[s.name].text = Text(self._values[s.name].text.code, s.dims, s.dtype)
            case Assign():
                old = self._values[s.name].text
                text = self._printer.cast(self._printer.print(s.expr), old.kind)
                if text.dims != old.dims:
                    text = self._filled(text, old.dims, old.kind)
                self._emit(f"{old.code} = {self._printer.value(text).code}")
            case AccDot():
                old = self._values[s.name].text
                acc = old.code
                if s.scale is not None:
                    scale = self._printer.number(self._values[s.scale].text)
                    acc = f"{acc} * {self.broadcast(scale, old.dims)}"
                factors = self._factors(s.left, s.right, s.over, old.dims, s.like, acc)
                self._emit_call(f"{old.code} = ", self.use("dot"), factors)
            case For():
                axis = self.program.axis(s.axis)
                self._emit(f"for {self._axes[s.axis]} in range({self.extents[axis.rank].name}):")
                self._indent += 1
                self._masks.append({})
                self._body(s.body)
                self._masks.pop()
                self._indent -= 1
            case Store():
                self._store(s)
            case Scatter():
                self._scatter(s)
            case Reach():
                self._reach(s)

    def _name(self, value: str) -> str:
        """The variable of a value; the ranges of a sweep share theirs."""
        known = self._values.get(value)
        return known.text.code if known is not None else self.names.fresh(value)

    def _define(
        self, name: str, text: Text, zero: frozenset[str] = frozenset(), tensor: str | None = None
    ) -> None:
        code = self._name(name)
        self._emit(f"{code} = {text.code}")
        self._values[name] = _Value(replace(text, code=code, level=ATOM), zero, tensor)

    def _shape(self, dims: tuple[str, ...]) -> str:
        sizes = []
        for d in dims:
            axis = self.program.axis(d)
            block = self.blocks.get(self._stands_for(d))
            sizes.append(block if block is not None else str(self.extents[axis.rank].pad))
        return f"[{', '.join(sizes)}]"

    def _filled(self, text: Text, dims: tuple[str, ...], kind: DType) -> Text:
        """The value at exactly `dims`."""
        if text.dims == dims:
            return self._printer.value(text) if not dims else text
        if not text.dims:
            dtype = {DType.FLOAT: "ACC", DType.INT: "tl.int32", DType.BOOL: "tl.int1"}[kind]
            return Text(f"tl.full({self._shape(dims)}, {text.code}, {dtype})", dims, kind)
        return Text(
            f"tl.broadcast_to({self.broadcast(text, dims)}, {self._shape(dims)})", dims, kind
        )

    def _vanishes(self, e: Expr | Val | Block | Origin, axis: str) -> bool:
        """Whether an expression is surely 0 past the end of an axis."""
        from attndsl.cascade.nodes import Binary, Unary

        match e:
            case Val():
                return axis in self._values[e.name].zero
            case Const():
                return e.value == 0
            case Unary(op="-"):
                return self._vanishes(e.arg, axis)
            case Binary(op="*"):
                a, b = self._vanishes(e.left, axis), self._vanishes(e.right, axis)
                # 0 times something unknown may be 0 times inf.
                return (a and (b or axis not in self._spans(e.right))) or (
                    b and axis not in self._spans(e.left)
                )
            case Binary(op="+" | "-"):
                return self._vanishes(e.left, axis) and self._vanishes(e.right, axis)
            case Binary(op="/"):
                return self._vanishes(e.left, axis) and axis not in self._spans(e.right)
        return False

    def _spans(self, e: Expr) -> frozenset[str]:
        out: set[str] = set()
        for n in walk(e):
            if isinstance(n, Position):
                out.add(n.name)
            elif isinstance(n, Val):
                out |= set(self._values[n.name].text.dims)
        return frozenset(out)

    # --- products and reductions ---------------------------------------------------------------------------------

    def _dot(
        self, left: str, right: str, over: str, dims: tuple[str, ...], like: str, acc: str
    ) -> str:
        return f"{self.use('dot')}({', '.join(self._factors(left, right, over, dims, like, acc))})"

    def _factors(
        self, left: str, right: str, over: str, dims: tuple[str, ...], like: str, acc: str
    ) -> list[str]:
        """The arguments of a product, in names of their own where they are long."""
        a = self._operand(left, dims[0], over, like, first=True)
        b = self._operand(right, dims[1], over, like, first=False)
        if len(f"dot({a}, {b}, {acc}, ACC)") > 84:
            a = self.part(Text(a, (), DType.FLOAT)).code if not a.isidentifier() else a
            b = self.part(Text(b, (), DType.FLOAT)).code if not b.isidentifier() else b
        return [a, b, acc, "ACC"]

    def _operand(self, name: str, kept: str, over: str, like: str, first: bool) -> str:
        """A value as the left ([kept, over]) or right ([over, kept]) operand of a product."""
        value = self._values[name]
        dims = self.order(frozenset({kept, over}))
        text = value.text
        code = text.code
        role = self.program.axis(over).role
        # The schedule masks weights. What they multiply must be finite there besides, and `v / y` past the end is not.
        open_end = (
            self._masked and role is Role.STREAM and self.program.axis(kept).role is Role.FULL
        )
        if (role is Role.FULL or open_end) and over not in value.zero:
            code = f"tl.where({self._mask((over,), dims)}, {self.broadcast(self._printer.number(text), dims)}, 0.0)"
            text = Text(code, dims, DType.FLOAT)
        if text.dims != dims:
            code = self._filled(self._printer.number(text), dims, DType.FLOAT).code
            text = Text(code, dims, DType.FLOAT)
        if value.tensor != like or not text.stored:
            code = f"{text.at(ATOM)}.to({self._storage(like)})"
        if dims != ((kept, over) if first else (over, kept)):
            code = f"tl.trans({code})"
        return code

    def storage(self) -> str | None:
        """The element type of the first product's operands, as text."""
        likes = [s.like for s in statements(self.program) if isinstance(s, Dot | AccDot)]
        return self._storage(likes[0]) if likes else None

    def _storage(self, like: str) -> str:
        """The element type of a tensor: that of an argument of this kernel, or an argument of its own."""
        for name, pointer in self.pointers.items():
            if like in (name, self.plan.buffer(name).like):
                return f"{pointer}.dtype.element_ty"
        if like not in self.types:
            self.types[like] = self.names.fresh(f"{like}_TYPE")
        return self.types[like]

    def _fold(self, s: Fold) -> None:
        value = self._values[s.src]
        dims = self.order(frozenset({*s.dims, s.over}))
        text = value.text
        if s.op in (Reduction.ANY, Reduction.ALL):
            text = self._printer.cast(text, DType.BOOL)
            text = Text(f"{self._printer.value(text).at(ATOM)}.to(tl.int32)", text.dims, DType.INT)
        elif text.kind is not DType.INT:
            text = self._printer.number(text)
        if text.dims != dims:
            text = self._filled(text, dims, text.kind)
        padded = self.program.axis(s.over).role is Role.FULL
        if padded and not (s.op is Reduction.SUM and s.over in value.zero):
            identity = {"any": "0", "all": "1"}.get(s.op.value) or self._identity(s.op, text.kind)
            text = Text(
                f"tl.where({self._mask((s.over,), dims)}, {text.code}, {identity})", dims, text.kind
            )
        k = dims.index(s.over)
        match s.op:
            case Reduction.SUM | Reduction.MAX | Reduction.MIN:
                out = Text(f"tl.{s.op.value}({text.code}, {k})", s.dims, text.kind)
            case Reduction.ANY:
                out = Text(f"tl.max({text.code}, {k}) > 0", s.dims, DType.BOOL, level=0)
            case Reduction.ALL:
                out = Text(f"tl.min({text.code}, {k}) > 0", s.dims, DType.BOOL, level=0)
            case Reduction.PROD:
                out = Text(
                    f"tl.reduce({text.code}, {k}, {self.use('multiply')})", s.dims, text.kind
                )
        self._define(
            s.name, out, frozenset(d for d in s.dims if d in value.zero and s.op is Reduction.SUM)
        )

    def _scan(self, s: Scan) -> None:
        text = self._printer.number(self._values[s.src].text)
        if text.dims != s.dims:
            text = self._filled(text, s.dims, DType.FLOAT)
        way = ", reverse=True" if s.down else ""
        code = f"tl.cumsum({text.code}, {s.dims.index(s.over)}{way})"
        self._define(s.name, Text(code, s.dims, DType.FLOAT))

    def _identity(self, op: Reduction, kind: DType) -> str:
        if kind is DType.INT:
            return {"sum": "0", "prod": "1", "max": "-2147483648", "min": "2147483647"}[op.value]
        value = op.identity
        return f'float("{value}")' if value in (float("inf"), float("-inf")) else repr(value)

    # --- memory --------------------------------------------------------------------------------------------------

    def _mask(
        self, bounds: Iterable[str], dims: tuple[str, ...], guard: str | None = None
    ) -> str | None:
        """The condition under which an access is made, spread over `dims`; None where it always is."""
        terms = []
        for axis in self.order(frozenset(bounds)):
            if self.program.axis(axis).role in BLOCKED:
                inside = Text(self._inside(axis), (axis,), DType.BOOL)
                terms.append(self.broadcast(inside, dims) if len(dims) > 1 else inside.code)
        if guard is not None:
            value = self._printer.value(self._values[guard].text)
            terms.append(self.broadcast(value, dims) if len(dims) > 1 else value.code)
        return " & ".join(terms) or None

    def _inside(self, axis: str) -> str:
        """The name of `position < extent`, computed where the axis is first bounded."""
        a = self.program.axis(axis)
        top = a.role in (Role.TILE, Role.FULL)
        for known in self._masks:
            if axis in known:
                return known[axis]
        name = self._shared.setdefault(("inside", axis), self.names.fresh(f"in_{axis}"))
        extent = self.extents[a.rank]
        line = f"{name} = {self._axes[axis]} < {extent.name}"
        if a.role is Role.FULL:
            line = f"{name} = {self.use('within')}({self._axes[axis]}, {extent.name}, {extent.pad})"
        if top:
            self._masks[0][axis] = name
            self._top.append(line)
        else:
            self._masks[-1][axis] = name
            self._emit(line)
        return name

    def _address(self, tensor: str, subs: tuple[Expr, ...]) -> Text:
        """Pointers to `tensor[subs]`: a 64-bit base, and 32-bit offsets inside the tile."""
        buffer = self.plan.buffer(tensor)
        bases: list[
            tuple[int, str, bool]
        ] = []  # axis, scalar position, whether it is known at the top
        moving: list[tuple[int, str]] = []  # axis, origin of the stream tile
        blocks: list[tuple[int, Text]] = []
        for k, sub in enumerate(subs):
            axis = lone(sub, self.program)
            if axis is not None:
                blocks.append((k, Text(self._offsets[axis.name], (axis.name,), DType.INT)))
                if axis.role is Role.TILE:
                    bases.append((k, self._origins[axis.name], True))
                elif axis.role in MOVING:
                    moving.append((k, self._origins[axis.name]))
                continue
            text = self._printer.cast(self._printer.print(sub), DType.INT)
            if text.dims:
                blocks.append((k, text))
            elif text.code != "0":
                known = not any(
                    isinstance(n, Val)
                    or (isinstance(n, Position) and self.program.axis(n.name).role is not Role.GRID)
                    or (isinstance(n, Origin) and self.program.axis(n.axis).role is not Role.TILE)
                    for n in walk(sub)
                )
                bases.append((k, text.at(ATOM), known))
        top = [self._far(code, self._stride(buffer, k)) for k, code, known in bases if known]
        base = self._hoist(tensor, "base", " + ".join([self.pointers[tensor], *top]), 100)
        late = [self._far(code, self._stride(buffer, k)) for k, code, known in bases if not known]
        late += [self._far(code, self._stride(buffer, k)) for k, code in moving]
        pointer = Text(" + ".join([base, *late]), (), DType.INT, level=3)
        if not blocks:
            return pointer
        terms = []
        for k, text in blocks:
            stride = self._stride(buffer, k)
            code = text.code if stride == "1" else f"{text.at(4)} * {stride}"
            terms.append(Text(code, text.dims, DType.INT, level=3 if stride == "1" else 4))
        dims = self.order(frozenset(d for t in terms for d in t.dims))
        spread = []
        for k, text in blocks:
            stride = self._stride(buffer, k)
            one = self.broadcast(text, dims) if len(dims) > 1 else text.at(4)
            spread.append(one if stride == "1" else f"{one} * {stride}")
        offsets = " + ".join(spread)
        plain = all(
            lone(sub, self.program) is not None or not self._spans_blocks(sub) for sub in subs
        )
        if plain and len(dims) > 1:
            offsets = self._hoist(tensor, "offs", offsets, 100)
        code = f"{pointer.code} + {offsets}"
        return Text(code, dims, DType.INT, level=3)

    def _far(self, code: str, stride: str) -> str:
        wide = f"tl.cast({code}, tl.int64)"
        return wide if stride == "1" else f"{wide} * {stride}"

    def _spans_blocks(self, sub: Expr) -> bool:
        return bool(self._spans(sub) & self._blocked())

    def _hoist(self, tensor: str, what: str, code: str, width: int) -> str:
        """Name an address at the top of the kernel; once for each different one."""
        if code.isidentifier():
            return code
        key = (what, code)
        if key not in self._shared:
            name = self._shared[key] = self.names.fresh(f"{tensor}_{what}")
            self._top += _sum_lines(name, code, width - 4)
        return self._shared[key]

    def _stride(self, buffer: Buffer, axis: int) -> str:
        """The stride of an axis as text; compiler's own buffers are contiguous."""
        if buffer.kind is STRIDED:
            return self.strides[buffer.name, axis].name
        behind = [self.extents[r].name for r in buffer.ranks[axis + 1 :]]
        return " * ".join(behind) or "1"

    def _pointers(self, tensor: str, subs: tuple[Expr, ...], room: int) -> Text:
        """The address of an access; in a statement of its own, or several, where it is long."""
        text = self._address(tensor, subs)
        if len(text.code) <= room:
            return text
        name = self.names.fresh(f"{tensor}_ptrs")
        for line in _sum_lines(name, text.code, 100 - 4 - 4 * self._indent):
            self._emit(line)
        return replace(text, code=name, level=ATOM)

    def _access(
        self, s: Load | Store | Scatter, also: tuple[str, ...] = ()
    ) -> tuple[Text, str | None]:
        """Address and mask of an access whose values span the axes `also` besides."""
        pointers = self._pointers(s.tensor, s.subs, 48)
        guard = s.guard if isinstance(s, Load | Scatter) else None
        spanned = {*pointers.dims, *also, *(self._values[guard].text.dims if guard else ())}
        dims = self.order(frozenset(spanned))
        bounds = {d for d in dims if d in s.bounds or self.program.axis(d).role is Role.FULL}
        return pointers, self._mask(bounds, dims, guard)

    def _load(self, s: Load) -> None:
        pointers, mask = self._access(s)
        dims = pointers.dims
        if s.guard is not None:
            dims = self.order(frozenset({*dims, *self._values[s.guard].text.dims}))
        zero = frozenset(d for d in dims if d in s.bounds or self.program.axis(d).role is Role.FULL)
        name = self._name(s.name)
        tiles = self._tiles(s, pointers.dims)
        if tiles is not None:
            at = ", ".join(self._corner(sub) for sub in s.subs)
            arguments = [pointers.code, str(mask), tiles.name, f"[{at}]"]
            self._emit_call(f"{name} = ", self.use("load_tile"), arguments)
        elif mask is None and pointers.dims == dims and is_gather(self.plan, self.program, s):
            self._emit_call(f"{name} = ", self.use("gather"), [pointers.code])
        else:
            other = "0.0" if s.dtype is DType.FLOAT else "0"
            arguments = [self._spread(pointers, dims)]
            arguments += [] if mask is None else [f"mask={mask}", f"other={other}"]
            self._emit_call(f"{name} = ", "tl.load", arguments)
        text = Text(name, dims, s.dtype, stored=s.dtype is DType.FLOAT)
        self._values[s.name] = _Value(text, zero, s.tensor)

    def _tiles(self, s: Load, dims: tuple[str, ...]) -> Tiles | None:
        """The argument by which the copy engine can load this tile, if it can."""
        found = tile_axes(self.plan, self.program, s)
        if found is None or dims != tuple(a.name for _, a in found):
            return None
        (k, block), (_, row) = found
        key = (s.tensor, block.name, row.name)
        if key not in self.tiles:
            name = self.names.fresh(f"{s.tensor}_tiles")
            wide = self.blocks.get(row.name, row.rank)
            rows = self.blocks[self._stands_for(block.name)]
            self.tiles[key] = Tiles(name, s.tensor, k, rows, wide)
        return self.tiles[key]

    def _corner(self, sub: Expr) -> str:
        """The first position along one axis of a tile."""
        axis = lone(sub, self.program)
        if axis is not None:
            return self._origins.get(axis.name, "0")
        code = self._printer.cast(self._printer.print(sub), DType.INT).code
        return code if isinstance(sub, Position | Const) else f"tl.cast({code}, tl.int32)"

    def _reach(self, s: Reach) -> None:
        """Look the tile's ids up among the least and greatest id of every block of the stream."""
        k = next(k for k, x in enumerate(s.subs) if x == Position(s.axis))
        buffer = self.plan.buffer(s.tensor)
        at, count = "0", "1"
        for other, sub in enumerate(s.subs):
            if other == k:
                continue
            code = self._printer.cast(self._printer.print(sub), DType.INT).at(5)
            length = self.extents[buffer.ranks[other]].name
            at = code if at == "0" else f"({at}) * {length} + {code}"
            count = length if count == "1" else f"{count} * {length}"
        bounds = self.bounds.setdefault((s.tensor, k), self.names.fresh(f"{s.tensor}_bounds_ptr"))
        names = [self._name(n) for n in (s.low, s.high, s.full_low, s.full_high)]
        arguments = [
            bounds,
            at,
            count,
            self.extents[self.program.axis(s.axis).rank].name,
            self._values[s.first].text.code,
            self._values[s.last].text.code,
            self.blocks[s.axis],
        ]
        self._emit_call(f"{', '.join(names)} = ", self.use("reach"), arguments)
        for value, name in zip((s.low, s.high, s.full_low, s.full_high), names, strict=True):
            self._values[value] = _Value(Text(name, (), DType.INT))

    def _spread(self, pointers: Text, dims: tuple[str, ...]) -> str:
        """Pointers at `dims`: a mask or values wider than an address do not widen it by themselves."""
        if pointers.dims == dims:
            return pointers.code
        return f"{self.broadcast(pointers, dims)} + tl.zeros({self._shape(dims)}, tl.int32)"

    def _store(self, s: Store) -> None:
        pointers, mask = self._access(s)
        value = self._printer.value(self._values[s.value].text)
        code = self.broadcast(value, pointers.dims) if len(pointers.dims) > 1 else value.code
        arguments = [pointers.code, code] + ([] if mask is None else [f"mask={mask}"])
        self._emit_call("", "tl.store", arguments)

    def _scatter(self, s: Scatter) -> None:
        value = self._printer.number(self._values[s.value].text)
        pointers, mask = self._access(s, value.dims)
        dims = self.order(frozenset({*pointers.dims, *value.dims}))
        scale = self._printer.number(self._values[s.scale].text)
        fixed = self.use("fixed_point")
        code = f"{fixed}({self.broadcast(value, dims)}, {self.broadcast(scale, dims)})"
        amount = self.part(Text(code, dims, DType.INT)).code
        arguments = [self._spread(pointers, dims), amount]
        arguments += ([] if mask is None else [f"mask={mask}"]) + ['sem="relaxed"']
        self._emit_call("", "tl.atomic_add", arguments)
