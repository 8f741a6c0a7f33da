"""The tile IR: one kernel as straight lists of typed tile statements. The seam between schedules and templates.

    Plan      ::= buffers step*                            a whole pass (forward or backward), in launch order
    step      ::= TileProgram | HostSum | HostScale
    TileProgram ::= axes prologue* Rounds? Loop* sweep? epilogue*
    Rounds    ::= count prologue* epilogue*                 around the loops and the sweep: a search
    Sweep     ::= axis Range* descending?                   a Range has bounds and its own body: masked or unmasked
    Stmt      ::= Compute v = Expr | Load v = tensor[Expr*] | Dot v = a . b | Fold v = op(a, axis)
                | Scan v = running sum of a along axis
                | Pick v = a, at a point of one axis that each pair of others has
                | Solve v = (I - m)^-1 . a
                | Declare v = Expr | Assign v = Expr | AccDot v = v * scale + a . b
                | Reach low high full_low full_high = tensor of ids meets [first, last]
                | For axis Stmt* | Fence | Store tensor[Expr*] = v | Scatter tensor[Expr*] += v

Values are named and assigned once, except those made by `Declare` (the state and other accumulators), which `Assign`,
`AccDot` and a `For` update in place. A value has `dims`, the tile axes it spans, always in the order of
`TileProgram.axes`; a value without dims is a scalar of the program (of one grid point). Pointwise expressions are
cascade expressions over `Val`, `Const`, `Param`, `Extent`, `Position(axis)`, `Block`, `Origin`, `Epsilon` and
`Span`: no `Read`, `Reduce`, `Index` or `Solve` is left. Expressions broadcast by axis name; the dims of an expression
are the union of its operands'.

Everything is decided here: what is carried and how it is corrected, which products are matrix products, what is
hoisted, where masks and bounds checks stand. A template only places it, a dialect only spells it.

Numbers: arithmetic is float32 (float64 where the inputs are); a loaded value keeps its storage type and is widened
when an expression uses it; the operands of a product are cast to the storage type of `like`, and it accumulates in
float32. `//` and `%` floor; in `a / b` with `safe=True` on the Compute the quotient 0/0 is 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from attndsl.cascade.nodes import DType, Expr, Leaf, Node, Position, Reduction
from attndsl.cascade.walk import walk


class Role(StrEnum):
    """How a kernel walks an axis."""

    GRID = "grid"  # one program for each point: a batch index; its position is a scalar
    TILE = "tile"  # BLOCK points to a program; the launch grid covers the rank
    STREAM = "stream"  # BLOCK points to an iteration of the sweep
    PAIR = (
        "pair"  # the stream's own positions again (or the tile's), for products between two of them
    )
    LOOP = "loop"  # a scalar loop around the sweep (heads of a group, a summed batch index)
    BAND = "band"  # as many points as the sums of a point of the tile and one of the stream's take
    FULL = "full"  # the whole rank inside one tile, padded to a power of two (head dims)
    POINT = "point"  # a scalar loop of a `For` over the points of a FULL rank
    WALK = "walk"  # a scalar loop of a `For` over positions of a sequence


@dataclass(frozen=True, slots=True)
class Axis:
    """`name` is the index in expressions, `rank` the rank whose extent it has.

    `block` is the number of points of its tiles where the program settles it; else it is the launch that does.
    """

    name: str
    rank: str
    role: Role
    block: int | None = None


# Instead of an input's name: what has 16 bits because the inputs have 8, too few for what is computed.
SIXTEEN = "bfloat16"


@dataclass(frozen=True, slots=True)
class Val(Leaf):
    """A value of the tile program, as a leaf of a pointwise expression."""

    name: str


@dataclass(frozen=True, slots=True)
class Block(Leaf):
    """The number of points of a TILE or STREAM axis that one tile holds; known when the kernel is compiled."""

    axis: str


@dataclass(frozen=True, slots=True)
class Origin(Leaf):
    """The position of the first point of the current tile of a TILE or STREAM axis; a scalar integer."""

    axis: str


@dataclass(frozen=True, slots=True)
class Epsilon(Leaf):
    """The distance from 1 to the next number of the arithmetic's type."""


@dataclass(frozen=True, slots=True)
class Span(Leaf):
    """An exponent whose exponential, and its reciprocal, the storage type of `like` holds beside another factor."""

    like: str


def stands_on(e: Expr, axis: str) -> bool:
    """Whether an expression depends on where an axis stands."""
    return any(
        (isinstance(n, Position) and n.name == axis) or (isinstance(n, Origin) and n.axis == axis)
        for n in walk(e)
    )


# --- statements ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compute(Node):
    """`name[dims] = expr`, pointwise."""

    name: str
    dims: tuple[str, ...]
    dtype: DType
    expr: Expr
    safe: bool = False


@dataclass(frozen=True, slots=True)
class Load(Node):
    """`name[dims] = tensor[subs]`.

    `subs` are pointwise integer expressions, one per axis of the buffer. `bounds` names the axes whose position must be
    checked against its extent (0 is read outside); `guard` is a boolean value that must hold besides. A load whose
    subscripts are all lone positions is a block of memory; any other is a gather.
    """

    name: str
    dims: tuple[str, ...]
    dtype: DType
    tensor: str
    subs: tuple[Expr, ...]
    bounds: tuple[str, ...] = ()
    guard: str | None = None


@dataclass(frozen=True, slots=True)
class Dot(Node):
    """`name[dims] = sum[over](left * right)` on the matrix units; operands are cast to the storage type of `like`.

    `left` spans (dims[0], over), `right` spans (dims[1], over), each in the order of the axes: the dialect transposes.
    With `exact`, what the cast takes from an operand is multiplied too. With one axis in `dims`, `right` is a vector.
    """

    name: str
    dims: tuple[str, ...]
    left: str
    right: str
    over: str
    like: str
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Fold(Node):
    """`name[dims] = op[over](src)`, a reduction along one axis of a tile."""

    name: str
    dims: tuple[str, ...]
    op: Reduction
    src: str
    over: str


@dataclass(frozen=True, slots=True)
class Scan(Node):
    """`name[dims] = running sum of src along an axis of the tile`, each point included; from the end if `down`.

    `op` may be a maximum or a minimum instead.
    """

    name: str
    dims: tuple[str, ...]
    src: str
    over: str
    down: bool
    op: Reduction = Reduction.SUM


@dataclass(frozen=True, slots=True)
class Pick(Node):
    """`name[dims] = src` at the point `at` of the axis `over`, which `dims` lacks: along diagonals, say.

    `at` is a pointwise integer expression over `dims`; it counts from the first point of the tile. Where there is no
    such point the value is 0; `inside` says that there always is.
    """

    name: str
    dims: tuple[str, ...]
    src: str
    over: str
    at: Expr
    inside: bool


@dataclass(frozen=True, slots=True)
class Solve(Node):
    """`name[dims]`, the solution of `name = right + matrix . name`.

    `matrix` spans the stream and its PAIR axis, `right` the stream and `dims[1]`; `dims[0]` is the PAIR axis. The
    matrix is zero on and above its diagonal, or on and below it if not `lower`. With `like`, a dialect may multiply
    `right` by the inverse, both cast to the storage type of `like`.
    """

    name: str
    dims: tuple[str, ...]
    matrix: str
    right: str
    lower: bool
    like: str | None = None


@dataclass(frozen=True, slots=True)
class Declare(Node):
    """A value that is updated in place, with its first value."""

    name: str
    dims: tuple[str, ...]
    dtype: DType
    expr: Expr


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """`name = expr`, for a declared value."""

    name: str
    expr: Expr


@dataclass(frozen=True, slots=True)
class AccDot(Node):
    """`name = name * scale + sum[over](left * right)`, for a declared value; no `scale` means 1."""

    name: str
    left: str
    right: str
    over: str
    like: str
    scale: str | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class For(Node):
    """Repeat `body` for every point of a FULL rank; `axis` (role POINT) is a scalar inside.

    Where `guard`, a boolean scalar, does not hold, what the loop makes is not used, and it may be left out.
    On an axis of role WALK it goes over positions from the value `lo` to `hi`, in order, or from the last if `down`.
    """

    axis: str
    body: tuple[Stmt, ...]
    guard: str | None = None
    lo: str | None = None
    hi: str | None = None
    down: bool = False


@dataclass(frozen=True, slots=True)
class Fence(Node):
    """What this program has stored in a buffer of its own is there for what it loads after."""


@dataclass(frozen=True, slots=True)
class Store(Node):
    """`tensor[subs] = value` where every axis in `bounds` is inside its extent."""

    tensor: str
    subs: tuple[Expr, ...]
    value: str
    bounds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scatter(Node):
    """`tensor[subs] += value` from many places, in an order that does not matter.

    The buffer holds 64-bit integers: the value is multiplied by a power of two (`scale`, a scalar value) and rounded,
    so that the sum is the same in whatever order it is taken.
    """

    tensor: str
    subs: tuple[Expr, ...]
    value: str
    scale: str
    bounds: tuple[str, ...]
    guard: str | None = None


@dataclass(frozen=True, slots=True)
class Across(Node):
    """`tensor[subs] += sum[over](left * right)`, in whatever order tiles come: a sum over an axis cut into tiles.

    `left` spans the tile, along `over`, and the stream; `right` the tile and a FULL axis, whole; operands are cast to
    the storage type of `like`. The buffer (SUM) is zero before. Beyond the tile's end `left` must count as zero.
    """

    tensor: str
    subs: tuple[Expr, ...]
    left: str
    right: str
    over: str
    like: str
    bounds: tuple[str, ...]
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Reach(Node):
    """Which stretch of the stream may hold an id in `[first, last]`: found by looking at all of a tensor of ids.

    Defines four scalar integers, multiples of the stream's block: outside `[low, high)` no id is in the interval, and
    inside `[full_low, full_high)` every id equals `first` and `last` (both 0 where there is no such stretch). `subs` is
    the read, with the stream's position standing alone. A dialect may always answer the whole stream, and nothing full.
    """

    low: str
    high: str
    full_low: str
    full_high: str
    tensor: str
    subs: tuple[Expr, ...]
    axis: str
    first: str
    last: str


MOST_ROWS = 3


@dataclass(frozen=True, slots=True)
class TileReach(Node):
    """What `Reach` defines, where the tile's ids are a tensor's: `of` at `of_subs`, with the position on `tile` alone.

    Besides, both tensors of ids are read at positions on axes of the grid, at most `MOST_ROWS` of them, and nowhere
    else: so what it defines can be found once for all programs that share these, before the kernel.
    """

    low: str
    high: str
    full_low: str
    full_high: str
    tensor: str
    subs: tuple[Expr, ...]
    axis: str
    of: str
    of_subs: tuple[Expr, ...]
    tile: str


Stmt: TypeAlias = (
    Compute
    | Load
    | Dot
    | Fold
    | Scan
    | Pick
    | Solve
    | Declare
    | Assign
    | AccDot
    | For
    | Fence
    | Store
    | Scatter
    | Across
    | Reach
    | TileReach
)


# --- programs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Range(Node):
    """Stream tiles that start in `[lo, hi)`, in steps of the block from `lo`, which is a multiple of the block.

    `lo` and `hi` are names of scalar integer values computed before the sweep. The body of an unmasked range has no
    mask code; its tiles lie inside the rank and inside every domain.
    """

    lo: str
    hi: str
    masked: bool
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Sweep(Node):
    """One walk over the stream axis, from the last tile to the first if `descending`.

    Ranges and their tiles are walked in this order where `ordered` (something is carried from tile to tile that depends
    on it), else in any. A PAIR axis stands where the stream stands: the two have the same blocks and positions, but an
    end of its own each.
    """

    axis: str
    ranges: tuple[Range, ...]
    descending: bool = False
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Loop(Node):
    """A scalar loop around the sweep: `axis` from the scalar value `lo` to `hi`; `prologue` runs at each turn.

    Loops nest in their order. Whatever a sweep carries is declared before the outermost.
    """

    axis: str
    lo: str
    hi: str
    prologue: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Rounds(Node):
    """A search: the loops and the sweep run at most `count` times, while `going` holds for some row.

    `prologue` runs before each round, `epilogue` after it. Whatever passes from a round to the next is declared in the
    program's prologue; `going` is a boolean scalar that the epilogue computes. A dialect that runs many programs as one
    may go on while `going` holds in any: a round more changes nothing that is settled.
    """

    count: int
    going: str
    prologue: tuple[Stmt, ...]
    epilogue: tuple[Stmt, ...]


class BufferKind(StrEnum):
    INPUT = "input"
    OUTPUT = "output"
    RESIDUAL = "residual"  # kept by the forward pass for the backward pass
    TEMP = "temp"  # between the kernels of one pass
    FIXED = "fixed"  # int64 accumulator of a Scatter
    SUM = "sum"  # what the tiles of a kernel add up to, zero before (Across)


@dataclass(frozen=True, slots=True)
class Buffer(Node):
    """A tensor in memory. `ranks` gives its extents, in memory order.

    `dtype` FLOAT with `like` set has the storage type of that input; without, float32 (or wider, for float64 inputs).
    `like` SIXTEEN is bfloat16, whatever the inputs are (`schedule/eight.py`).
    User tensors come with strides of their own; the compiler's are contiguous.
    """

    name: str
    ranks: tuple[str, ...]
    kind: BufferKind
    dtype: DType = DType.FLOAT
    like: str | None = None


@dataclass(frozen=True, slots=True)
class TileProgram(Node):
    """One kernel.

    `prologue` runs once, then the loops and the sweep (in `rounds`, where there are any), then `epilogue`. `reads` and
    `writes` are the buffers, in the order of the kernel's arguments; `params` the scalar parameters and `extents` the
    ranks whose extents are passed.
    `order` says in which order tiles are launched: "reverse" starts with the last (the longest, under a causal domain).
    `follows` names a later kernel whose chunks are this one's tiles: both have blocks of one size.
    `rough`: inputs of 32 bits may be rounded to 16 where they are multiplied. What is written is then where `again`
    starts, the same search with inputs as they came (`refined`).
    """

    name: str
    axes: tuple[Axis, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    params: tuple[str, ...]
    prologue: tuple[Stmt, ...]
    loops: tuple[Loop, ...]
    sweep: Sweep | None
    epilogue: tuple[Stmt, ...]
    order: str = "forward"
    rounds: Rounds | None = None
    follows: str | None = None
    rough: bool = False
    again: TileProgram | None = None

    @property
    def tensors(self) -> tuple[str, ...]:
        """What it reads, then what it writes; once, what it reads and writes anew."""
        return tuple(dict.fromkeys((*self.reads, *self.writes)))

    def axis(self, name: str) -> Axis:
        return next(a for a in self.axes if a.name == name)

    def of(self, role: Role) -> tuple[Axis, ...]:
        """The axes of one role, in order."""
        return tuple(a for a in self.axes if a.role is role)

    def stands_for(self, axis: str) -> str:
        """The axis whose block and positions an axis has: its own, or for a PAIR axis the stream's, or the tile's."""
        if self.axis(axis).role is not Role.PAIR:
            return axis
        return self.sweep.axis if self.sweep is not None else self.of(Role.TILE)[0].name

    def banded(self) -> tuple[str, ...]:
        """The axes whose points the positions on a BAND axis are sums of: the tile's and the stream's."""
        return tuple(a.name for a in self.axes if a.role in (Role.TILE, Role.STREAM))

    def paired(self, axis: Axis) -> tuple[str, ...]:
        """The other ranks along which the tiles of an axis stand: there are as many as the longest takes."""
        pairs = [a.rank for a in self.of(Role.PAIR) if self.stands_for(a.name) == axis.name]
        return tuple(dict.fromkeys(r for r in pairs if r != axis.rank))


@dataclass(frozen=True, slots=True)
class HostSum(Node):
    """`out[ranks] = sum of src over its axes that out lacks`, by the framework, in a fixed order.

    `groups` maps an axis of `out` to the axis of `src` of which it is the quotient by the extents' ratio (GQA).
    A FIXED `src` is converted back by its scale, the tensor `scale`.
    """

    out: str
    src: str
    axes: tuple[int, ...]
    scale: str | None = None


@dataclass(frozen=True, slots=True)
class HostScale(Node):
    """`out[] = 2**k`, the largest scale at which a fixed-point sum of `count` values up to max(`src`) is below 2**62.

    `count` names ranks: the sum has at most the product of their extents of terms. `out` holds one float32.
    """

    out: str
    src: str
    count: tuple[str, ...]


Step: TypeAlias = TileProgram | HostSum | HostScale


@dataclass(frozen=True, slots=True)
class Plan(Node):
    """One pass over the program: its buffers and its steps in launch order.

    `types` gives the dtype kind of each scalar parameter. `notes` say why the schedule is what it is, for `explain`.
    `blocks` has ranks that the plan alone knows: the number of blocks of so many points of another (`name, of, width`),
    or that width itself, where `of` is empty.
    """

    name: str
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    params: tuple[tuple[str, DType], ...]
    notes: tuple[str, ...] = field(default=(), compare=False)
    blocks: tuple[tuple[str, str, int], ...] = ()
    eight: tuple[str, ...] = ()
    """The inputs that have 8 bits, where the pass is for such (`schedule/eight.py`)."""
    apart: bool = False
    """Whether tiles of float32 may come in halves of 16 bits (`codegen/halves.py`)."""

    def buffer(self, name: str) -> Buffer:
        return next(b for b in self.buffers if b.name == name)
