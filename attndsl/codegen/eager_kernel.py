"""One tile program as a Python function over PyTorch tensors.

Batch indices (GRID axes) become leading dimensions of every value that depends on them; tiles, the
sweep and loops are Python loops. The last tile of an axis is a shorter slice, so bounds need no
masks. A GRID axis is walked in Python instead where a loop's bound depends on it (a window of its
own for each head, a data-dependent length).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import assert_never

from attndsl.cascade.nodes import DType, Expr, Position, Reduction
from attndsl.codegen.eager_exprs import ATOM, Scope, Text, align, as_float, show
from attndsl.codegen.eager_lines import fitted
from attndsl.codegen.eager_live import live
from attndsl.codegen.names import RESERVED, Namespace
from attndsl.schedule.tile import (
    AccDot,
    Assign,
    Compute,
    Declare,
    Dot,
    Fold,
    For,
    Load,
    Plan,
    Reach,
    Role,
    Scan,
    Scatter,
    Solve,
    Stmt,
    Store,
    TileProgram,
)

FOLDS = {
    Reduction.SUM: "sum",
    Reduction.MAX: "amax",
    Reduction.MIN: "amin",
    Reduction.PROD: "prod",
    Reduction.ANY: "any",
    Reduction.ALL: "all",
}
# Names that the module itself uses; nothing of the program may shadow them.
OWN = RESERVED | {
    "stored",
    "to_fixed",
    "from_fixed",
    "fixed_scale",
    "safe_divide",
    "softplus",
    "block_size",
}
OWN |= {"Tensor", "dtypes", "pow", "dict", "slice"}


class Names:
    """Python identifiers for the names of a program, each its own: `K.1` -> `K_1`."""

    def __init__(self) -> None:
        self.space = Namespace(OWN)
        self.given: dict[tuple[str, str], str] = {}

    def of(self, kind: str, name: str, prefer: str | None = None) -> str:
        """The identifier of the thing `name` of a kind, the same at every call."""
        if (kind, name) not in self.given:
            self.given[kind, name] = self.new(name if prefer is None else prefer)
        return self.given[kind, name]

    def new(self, prefer: str) -> str:
        """An identifier that nothing else has."""
        return self.space.fresh(prefer)


@dataclass(slots=True)
class State:
    """What one rendering learns for the next, until nothing changes: see `render`."""

    walked: set[str] = field(default_factory=set)  # GRID axes that are Python loops
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of declared values
    tensors: set[str] = field(default_factory=set)  # declared values that are not Python numbers


@dataclass(frozen=True, slots=True)
class EagerKernel:
    """A rendered kernel, as the template takes it.

    Its arguments are, in order: the buffers read and written, the extents of `ranks`, the program's
    parameters, one block size for each TILE and STREAM axis, and those of dtypes, acc and device in
    `context`.
    """

    name: str
    doc: str
    program: TileProgram
    ranks: tuple[str, ...]
    grid: tuple[str, ...]  # ranks whose points are all in one tensor
    context: tuple[str, ...]
    arguments: tuple[str, ...]
    lines: tuple[str, ...]


def render_kernel(program: TileProgram, plan: Plan, name: str) -> EagerKernel:
    """Print one kernel; again until the axes of values that loops update are known."""
    program = live(program)
    state = State()
    while True:
        before = (set(state.walked), dict(state.dims), set(state.tensors))
        out = _Printer(program, plan, name, state).run()
        if before == (state.walked, state.dims, state.tensors):
            return out


class _Printer:
    def __init__(self, program: TileProgram, plan: Plan, name: str, state: State) -> None:
        self.program, self.plan, self.name, self.state = program, plan, name, state
        self.names = Names()
        self.lines: list[str] = []
        self.depth = 0
        self.values: dict[str, Text] = {}
        self.loaded: dict[str, str] = {}  # values that are a tensor's own elements
        self.positions: set[str] = set()
        grid = [a.name for a in program.of(Role.GRID)]
        self.grid = tuple(a for a in grid if a not in state.walked)
        self.axes = {a.name: a for a in program.axes}
        self.order = (*self.grid, *(a.name for a in program.axes if a.name not in self.grid))
        for t in (*program.reads, *program.writes):
            self.names.of("tensor", t)
        for p in program.params:
            self.names.of("param", p)
        self.kinds = dict(plan.params)
        self.target = "t"

    # --- leaves ---

    def scope(self, safe: bool = False) -> Scope:
        return Scope(
            order=self.order,
            value=lambda v: self.values[v],
            position=self.position,
            extent=self.extent,
            param=lambda p: Text(self.names.of("param", p), self.kinds.get(p, DType.FLOAT)),
            block=self.block_of,
            origin=lambda a: self.names.of("origin", a, f"{a}0"),
            fresh=lambda: self.names.new(f"{self.target}_part"),
            emit=self.emit,
            safe=safe,
        )

    def block_of(self, axis: str) -> str:
        """The block of an axis; a PAIR axis has the stream's."""
        if self.axes[axis].role is Role.PAIR:
            assert self.program.sweep is not None
            axis = self.program.sweep.axis
        return self.names.of("block", axis, f"block_{axis}")

    def position(self, axis: str) -> Text:
        if self.scalar(axis):
            return Text(self.names.of("loop", axis, axis), DType.INT)
        self.positions.add(axis)
        return Text(self.names.of("position", axis, f"at_{axis}"), DType.INT, (axis,), False)

    def extent(self, rank: str) -> str:
        return self.names.of("extent", rank, f"n_{rank}")

    def scalar(self, axis: str) -> bool:
        """Whether a Python loop walks the points of an axis one by one."""
        role = self.axes[axis].role
        return role in (Role.LOOP, Role.POINT) or (role is Role.GRID and axis not in self.grid)

    def tiled(self, axis: str) -> bool:
        return self.axes[axis].role in (Role.TILE, Role.STREAM, Role.PAIR)

    def ends(self, axis: str) -> tuple[str, str]:
        return self.names.of("origin", axis, f"{axis}0"), self.names.of("end", axis, f"{axis}1")

    def size(self, axis: str) -> str:
        if self.tiled(axis):
            first, end = self.ends(axis)
            return f"{end} - {first}"
        return self.extent(self.axes[axis].rank)

    def shape(self, dims: tuple[str, ...]) -> str:
        sizes = ", ".join(self.size(a) for a in dims)
        return f"({sizes},)" if len(dims) == 1 else f"({sizes})"

    # --- lines ---

    def emit(self, line: str) -> None:
        indent = 4 * self.depth
        inside = indent + 4  # the template indents the body of the function
        for part in fitted(line, inside, lambda: self.names.new(f"{self.target}_part")):
            self.lines.append(" " * indent + part if part else "")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.emit(head)
        self.depth += 1
        yield
        self.depth -= 1

    def run(self) -> EagerKernel:
        p = self.program
        tiles = p.of(Role.TILE)
        walked = [a for a in p.of(Role.GRID) if a.name in self.state.walked]
        # The body is printed first: it says which positions are used.
        with self.indented(len(tiles) + len(walked)):
            body = self.captured(self.body)
        for a in p.axes:
            if a.role is Role.FULL or a.name in self.grid:
                self.arange(a.name)
        for a in walked:
            loop = self.names.of("loop", a.name, a.name)
            self.emit(f"for {loop} in range({self.extent(a.rank)}):")
            self.depth += 1
        for a in tiles:
            self.tile_head(a.name, "0", self.extent(a.rank), body)
        self.lines.extend(body)
        return self.finished()

    @contextmanager
    def indented(self, by: int) -> Iterator[None]:
        self.depth += by
        yield
        self.depth -= by

    def captured(self, action: Callable[[], None]) -> list[str]:
        outer, self.lines = self.lines, []
        action()
        outer, self.lines = self.lines, outer
        return outer

    def arange(self, axis: str) -> None:
        if axis not in self.positions:
            return
        name = self.names.of("position", axis)
        if self.tiled(axis):
            first, end = self.ends(axis)
            self.emit(f"{name} = torch.arange({first}, {end}, device=device)")
        else:
            self.emit(f"{name} = torch.arange({self.size(axis)}, device=device)")

    def tile_head(self, axis: str, lo: str, hi: str, body: list[str], down: bool = False) -> None:
        """Open the loop over the tiles of an axis; `body` is what will be inside it."""
        first, end = self.ends(axis)
        block = self.names.of("block", axis, f"block_{axis}")
        span = f"range({lo}, {hi}, {block})"
        self.emit(f"for {first} in {f'reversed({span})' if down else span}:")
        self.depth += 1
        if axis in self.positions or any(re.search(rf"\b{end}\b", line) for line in body):
            stop = f"min({first} + {block}, {self.extent(self.axes[axis].rank)})"
            paired = self.axes[axis].role is Role.STREAM and self.program.of(Role.PAIR)
            # Where the paired axis is longer, the last tiles are empty.
            self.emit(f"{end} = max({first}, {stop})" if paired else f"{end} = {stop}")
        self.arange(axis)
        pairs = self.program.of(Role.PAIR) if self.axes[axis].role is Role.STREAM else ()
        for pair in pairs:
            start, stop = self.ends(pair.name)
            top = self.extent(pair.rank)
            self.emit(f"{start} = min({first}, {top})")
            self.emit(f"{stop} = min({first} + {block}, {top})")
            self.arange(pair.name)

    def body(self) -> None:
        p = self.program
        self.statements(p.prologue)
        depth = self.depth
        if p.rounds is not None:
            self.emit(f"for _ in range({p.rounds.count}):")
            self.depth += 1
            self.statements(p.rounds.prologue)
        turn = self.depth
        for loop in p.loops:
            lo, hi = self.bound(loop.lo), self.bound(loop.hi)
            self.emit(f"for {self.names.of('loop', loop.axis, loop.axis)} in range({lo}, {hi}):")
            self.depth += 1
            self.statements(loop.prologue)
        if p.sweep is not None:
            axis = p.sweep.axis
            extent = self.extent(self.axes[axis].rank)
            for r in p.sweep.ranges:
                lo, hi = self.bound(r.lo), self.bound(r.hi)
                outer = self.depth
                self.depth += 1
                inner = self.captured(partial(self.statements, r.body))
                self.depth = outer
                self.emit(f"# {'masked' if r.masked else 'unmasked'} tiles of {axis}")
                top = hi if p.of(Role.PAIR) else f"min({hi}, {extent})"
                self.tile_head(axis, lo, top, inner, p.sweep.descending)
                self.lines.extend(inner)
                self.depth = outer
        if p.rounds is not None:
            self.depth = turn
            self.statements(p.rounds.epilogue)
            going = self.values[p.rounds.going]
            self.emit(f"if not {going.code if going.host else f'bool({going.code}.any())'}:")
            self.emit("    break")
        self.depth = depth
        self.statements(p.epilogue)

    def bound(self, name: str) -> str:
        """A loop's bound as a Python integer; the GRID axes that it depends on become loops."""
        v = self.values[name]
        self.state.walked.update(a for a in v.dims if self.axes[a].role is Role.GRID)
        return v.at(ATOM) if v.host else f"int({v.code})"

    def finished(self) -> EagerKernel:
        p, n = self.program, self.names
        ranks = sorted(r for kind, r in n.given if kind == "extent")
        tiled = [a.name for a in p.axes if a.role in (Role.TILE, Role.STREAM)]
        kinds = {DType.FLOAT: "float", DType.INT: "int", DType.BOOL: "bool"}
        used = set(re.findall(r"\w+", "\n".join(self.lines)))
        common = {
            "dtypes": "dict[str, torch.dtype]",
            "acc": "torch.dtype",
            "device": "torch.device",
        }
        context = tuple(c for c in common if c in used)
        arguments = [
            *(f"{n.of('tensor', t)}: Tensor" for t in (*p.reads, *p.writes)),
            *(f"{n.of('extent', r)}: int" for r in ranks),
            *(f"{n.of('param', q)}: {kinds[self.kinds[q]]}" for q in p.params),
            *(f"{n.of('block', a, f'block_{a}')}: int" for a in tiled),
            *(f"{c}: {common[c]}" for c in context),
        ]
        return EagerKernel(
            name=self.name,
            doc=_doc(p, self.grid),
            program=p,
            ranks=tuple(ranks),
            grid=tuple(self.axes[a].rank for a in self.grid),
            context=context,
            arguments=tuple(arguments),
            lines=tuple(self.lines),
        )

    # --- statements ---

    def statements(self, body: tuple[Stmt, ...]) -> None:
        for s in body:
            self.statement(s)

    def define(self, name: str, text: Text) -> None:
        code = self.names.of("value", name)
        if text.code != code:
            self.emit(f"{code} = {text.code}")
        self.values[name] = replace(text, code=code, prec=ATOM)

    def statement(self, s: Stmt) -> None:
        self.target = str(getattr(s, "name", None) or getattr(s, "value", "t"))
        match s:
            case Compute():
                text = self.spread(show(s.expr, self.scope(s.safe)), s.dims, s.dtype)
                self.define(s.name, text)
            case Load():
                self.define(s.name, self.load(s))
                self.loaded[s.name] = s.tensor
            case Dot():
                self.define(s.name, self.product(s.left, s.right, s.over, s.like, s.dims))
            case Fold():
                self.define(s.name, self.fold(s))
            case Scan():
                self.define(s.name, self.scan(s))
            case Solve():
                self.define(s.name, self.solve(s))
            case Declare():
                self.declare(s)
            case Assign():
                self.update(s.name, show(s.expr, self.scope()))
            case AccDot():
                self.accumulate(s)
            case For():
                rank = self.extent(self.axes[s.axis].rank)
                with self.block(f"for {self.names.of('loop', s.axis, s.axis)} in range({rank}):"):
                    self.statements(s.body)
            case Store():
                self.store(s)
            case Scatter():
                self.scatter(s)
            case Reach():  # the whole stream: here a tile is all of the batch, and ids differ along it
                end = self.extent(self.program.axis(s.axis).rank)
                for name, code in (
                    (s.low, "0"),
                    (s.high, end),
                    (s.full_low, "0"),
                    (s.full_high, "0"),
                ):
                    self.define(name, Text(code, DType.INT, (), True))
            case _:
                assert_never(s)

    def spread(self, text: Text, dims: tuple[str, ...], dtype: DType) -> Text:
        """A value with all the dimensions and of the kind that its statement declares."""
        if text.host and not dims:
            return text
        if text.host:
            shape, want = self.shape(dims), self.dtype(dtype)
            code = f"torch.full({shape}, {text.code}, dtype={want}, device=device)"
            return Text(code, dtype, dims, False)
        text = self.cast(text, dtype)
        full = self.sorted({*text.dims, *dims})
        if full == text.dims:
            return text
        text = align(text, full)
        return Text(f"{text.at(ATOM)}.expand{self.shape(full)}", text.kind, full, False)

    def cast(self, text: Text, dtype: DType) -> Text:
        if text.host or text.kind is dtype:
            return text
        return Text(f"{text.at(ATOM)}.to({self.dtype(dtype)})", dtype, text.dims, False)

    def dtype(self, kind: DType) -> str:
        return {DType.FLOAT: "acc", DType.INT: "torch.int64", DType.BOOL: "torch.bool"}[kind]

    def sorted(self, axes: set[str]) -> tuple[str, ...]:
        return tuple(a for a in self.order if a in axes)

    def solve(self, s: Solve) -> Text:
        """A triangular system; rows past the end of the columns are not asked for."""
        matrix, right = self.values[s.matrix], self.values[s.right]
        size = f"{right.code}.shape[-2]"
        eye = f"torch.eye({size}, dtype=acc, device=device)"
        upper = "False" if s.lower else "True"
        code = f"torch.linalg.solve_triangular({eye} - {matrix.code}, {right.code}, upper={upper}, unitriangular=True)"
        grid = tuple(a for a in right.dims if a in self.grid)
        return Text(code, DType.FLOAT, (*grid, *s.dims), False)

    def fold(self, s: Fold) -> Text:
        src = self.values[s.src]
        k = src.dims.index(s.over) - len(src.dims)
        kind = DType.BOOL if s.op in (Reduction.ANY, Reduction.ALL) else src.kind
        if s.op in (Reduction.SUM, Reduction.PROD) and kind is DType.BOOL:
            kind = DType.INT
        dims = tuple(a for a in src.dims if a != s.over)
        return Text(f"{src.code}.{FOLDS[s.op]}({k})", kind, dims, False)

    def scan(self, s: Scan) -> Text:
        src = as_float(self.values[s.src])
        k = src.dims.index(s.over) - len(src.dims)
        code = f"{src.at(ATOM)}.cumsum({k})"
        if s.down:
            code = f"{src.at(ATOM)}.flip({k}).cumsum({k}).flip({k})"
        return Text(code, DType.FLOAT, src.dims, False)

    # --- values that are updated ---

    def declare(self, s: Declare) -> None:
        text = show(s.expr, self.scope())
        # The axes that later updates bring in were found by the previous rendering.
        dims = self.sorted(
            {*text.dims, *s.dims, *self.state.dims.get(s.name, ())} - self.state.walked
        )
        self.state.dims[s.name] = dims
        code = self.names.of("value", s.name)
        if text.host and (dims or s.name in self.state.tensors):
            shape, want = self.shape(dims), self.dtype(s.dtype)
            self.emit(f"{code} = torch.full({shape}, {text.code}, dtype={want}, device=device)")
            text = Text(code, s.dtype, dims, False)
        else:
            text = self.cast(text, s.dtype)
            self.emit(f"{code} = {text.code}")
        self.values[s.name] = Text(code, s.dtype, dims, text.host)

    def update(self, name: str, text: Text) -> None:
        old = self.values[name]
        text = self.cast(text, old.kind)
        self.state.dims[name] = self.sorted({*old.dims, *text.dims})
        if not text.host:
            self.state.tensors.add(name)
        if set(text.dims) != set(old.dims) and not (text.host and not old.dims):
            text = self.spread(text, old.dims, old.kind)
        self.emit(f"{old.code} = {text.code}")

    def accumulate(self, s: AccDot) -> None:
        old = self.values[s.name]
        dims = tuple(a for a in old.dims if a not in self.grid)
        product = self.product(s.left, s.right, s.over, s.like, dims)
        total = old.code
        if s.scale is not None:
            total = f"{old.code} * {align(self.values[s.scale], old.dims).at(80)}"
        product = align(product, old.dims)
        self.state.dims[s.name] = self.sorted({*old.dims, *product.dims})
        self.state.tensors.add(s.name)
        if len(total) + len(product.code) + 4 * self.depth > 80:
            name = self.names.new(f"{s.name}_more")
            self.emit(f"{name} = {product.code}")
            product = replace(product, code=name)
        self.emit(f"{old.code} = {total} + {product.code}")

    # --- products ---

    def product(self, left: str, right: str, over: str, like: str, dims: tuple[str, ...]) -> Text:
        a, b = self.rounded(left, like), self.rounded(right, like)
        grid = self.sorted({*a.dims, *b.dims} & set(self.grid))
        inner = [tuple(x for x in t.dims if x not in self.grid) for t in (a, b)]
        if len(dims) == 2 and [set(x) for x in inner] == [{dims[0], over}, {dims[1], over}]:
            lhs = self.matrix(a, (*grid, *inner[0]), inner[0] != (dims[0], over))
            rhs = self.matrix(b, (*grid, *inner[1]), inner[1] != (over, dims[1]))
            return Text(f"{lhs} @ {rhs}", DType.FLOAT, (*grid, *dims), False, 70)
        out = self.sorted({*grid, *dims})
        letter = {x: chr(ord("a") + k) for k, x in enumerate(self.order)}
        spec = ["".join(letter[x] for x in d) for d in (a.dims, b.dims, out)]
        code = f'torch.einsum("{spec[0]},{spec[1]}->{spec[2]}", {a.code}, {b.code})'
        return Text(code, DType.FLOAT, out, False)

    def matrix(self, t: Text, dims: tuple[str, ...], transpose: bool) -> str:
        t = align(t, dims)
        return t.at(ATOM) + ".mT" if transpose else t.at(71)

    def rounded(self, name: str, like: str) -> Text:
        """An operand of a product, with the precision of the storage type of `like`."""
        t = as_float(self.values[name])
        source = self.loaded.get(name)
        if source is not None and like in (source, self.plan.buffer(source).like):
            return t  # it came from memory in that type
        return Text(f'stored({t.code}, dtypes["{like}"])', DType.FLOAT, t.dims, False)

    # --- memory ---

    def lone(self, sub: Expr) -> str | None:
        """The axis of a subscript that is one axis's position, block by block."""
        if isinstance(sub, Position) and not self.scalar(sub.name):
            return sub.name
        return None

    def slice(self, axis: str, rank: str) -> str:
        if self.tiled(axis):
            return ":".join(self.ends(axis))
        return ":" if self.axes[axis].rank == rank else f":{self.extent(self.axes[axis].rank)}"

    def access(
        self, tensor: str, subs: tuple[Expr, ...], guard: Text | None
    ) -> tuple[list[str], tuple[str, ...], list[Text] | None]:
        """Subscripts: as slices with the axes they leave, or as index tensors that broadcast."""
        ranks = self.plan.buffer(tensor).ranks
        lone = [self.lone(s) for s in subs]
        texts = [None if a else show(s, self.scope()) for a, s in zip(lone, subs, strict=True)]
        axes = [a for a in lone if a is not None]
        gathers = [t for t in texts if t is not None and not t.host]
        checked = guard is not None and any(t is not None for t in texts)
        simple = not checked and len(set(axes)) == len(axes)
        # One index tensor among slices keeps its place; beside an integer it would move to the front.
        alone = len(gathers) == 1 and len(axes) == len(subs) - 1
        line = gathers[0].dims if alone and len(gathers[0].dims) == 1 else None
        if simple and (not gathers or (line is not None and line[0] not in axes)):
            parts: list[str] = []
            left: list[str] = []
            for a, t, r in zip(lone, texts, ranks, strict=True):
                if a is not None:
                    parts.append(self.slice(a, r))
                    left.append(a)
                elif t is not None:
                    parts.append(t.code)
                    left.extend(t.dims)
            return parts, tuple(left), None
        index = []
        for a, t in zip(lone, texts, strict=True):
            if a is not None:
                index.append(self.position(a))
            elif checked:
                assert t is not None
                assert guard is not None
                dims = self.sorted({*t.dims, *guard.dims})
                code = f"torch.where({align(guard, dims).code}, {align(t, dims).code}, 0)"
                index.append(self.named(Text(code, DType.INT, dims, False)))
            else:
                assert t is not None
                index.append(t)
        dims = self.sorted({x for t in index for x in t.dims})
        return [align(t, dims).code for t in index], dims, index

    def named(self, t: Text) -> Text:
        name = self.names.new(f"{self.target}_at")
        self.emit(f"{name} = {t.code}")
        return replace(t, code=name, prec=ATOM)

    def load(self, s: Load) -> Text:
        guard = self.values[s.guard] if s.guard is not None else None
        host_guard = guard if guard is not None and guard.host else None
        tensor_guard = guard if guard is not None and not guard.host else None
        parts, dims, _ = self.access(s.tensor, s.subs, tensor_guard)
        tensor = self.names.of("tensor", s.tensor)
        code = self.subscript(tensor, parts)
        text = self.ordered(Text(code, s.dtype, dims, False))
        widened = {DType.FLOAT: ".to(acc)", DType.INT: ".to(torch.int64)", DType.BOOL: ""}[s.dtype]
        text = Text(f"{text.code}{widened}", s.dtype, text.dims, False)
        zero = {DType.FLOAT: "0.0", DType.INT: "0", DType.BOOL: "False"}[s.dtype]
        if tensor_guard is not None:
            text = self.named(text) if len(text.code) > 50 else text
            full = self.sorted({*text.dims, *tensor_guard.dims})
            code = (
                f"torch.where({align(tensor_guard, full).code}, {align(text, full).code}, {zero})"
            )
            text = Text(code, s.dtype, full, False)
        if host_guard is not None:
            zeros = (
                f"torch.zeros({self.shape(text.dims)}, dtype={self.dtype(s.dtype)}, device=device)"
            )
            code = self.names.of("value", s.name)
            with self.block(f"if {host_guard.code}:"):
                self.emit(f"{code} = {text.code}")
            with self.block("else:"):
                self.emit(f"{code} = {zeros}")
            text = Text(code, s.dtype, text.dims, False)
        return self.spread(text, s.dims, s.dtype)

    def subscript(self, tensor: str, parts: list[str]) -> str:
        """`tensor[parts]`; the whole tensor where every part is."""
        if all(p == ":" for p in parts):
            return tensor
        code = f"{tensor}[{', '.join(parts)}]"
        if len(code) > 70:
            name = self.names.new(f"{self.target}_at")
            self.emit(f"{name} = (")
            self.depth += 1
            for p in parts:
                self.emit(f"{_as_slice(p)},")
            self.depth -= 1
            self.emit(")")
            return f"{tensor}[{name}]"
        return code

    def ordered(self, t: Text) -> Text:
        """A block of memory with its dimensions in the order of the axes."""
        want = self.sorted(set(t.dims))
        if want == t.dims:
            return t
        if want[:-2] == t.dims[:-2]:
            return Text(f"{t.code}.mT", t.kind, want, False)
        turn = ", ".join(str(t.dims.index(a)) for a in want)
        return Text(f"{t.code}.permute({turn})", t.kind, want, False)

    def store(self, s: Store) -> None:
        value = self.values[s.value]
        parts, dims, index = self.access(s.tensor, s.subs, None)
        tensor = self.names.of("tensor", s.tensor)
        if index is not None:
            code = (
                align(value, dims).code
                if not value.host
                else f"torch.tensor({value.code}, device=device)"
            )
            self.emit(f"{tensor}[{', '.join(parts)}] = {code}.to({tensor}.dtype)")
            return
        if value.host:
            code = value.code
        else:
            want = self.sorted(set(dims))
            code = align(value, want).code
            if want != dims:
                full = self.spread(value, tuple(a for a in want if a not in self.grid), value.kind)
                missing = [a for a in want if a not in full.dims]
                marks = ", ".join("None" if a in missing else ":" for a in want)
                code = full.at(ATOM) + (f"[{marks}]" if missing else "")
                code += f".permute({', '.join(str(want.index(a)) for a in dims)})"
        where = ", ".join(parts) if parts else "..."
        self.emit(f"{tensor}[{where}] = {code}")

    def scatter(self, s: Scatter) -> None:
        value, scale = self.values[s.value], self.values[s.scale]
        guard = self.values[s.guard] if s.guard is not None else None
        if guard is not None and guard.host:
            guard = Text(f"torch.tensor({guard.code}, device=device)", DType.BOOL, (), False)
        tensor = self.names.of("tensor", s.tensor)
        lone = [self.lone(x) for x in s.subs]
        index = []
        for a, sub in zip(lone, s.subs, strict=True):
            t = self.position(a) if a is not None else show(sub, self.scope())
            if guard is not None and a is None:
                dims = self.sorted({*t.dims, *guard.dims})
                code = f"torch.where({align(guard, dims).code}, {align(t, dims).code}, 0)"
                t = self.named(Text(code, DType.INT, dims, False))
            elif t.host:
                t = Text(f"torch.tensor({t.code}, device=device)", DType.INT, (), False)
            index.append(t)
        # Every point of the grid adds its own value, also one that does not depend on where it is.
        dims = self.sorted(
            {
                *self.grid,
                *value.dims,
                *(x for t in index for x in t.dims),
                *(guard.dims if guard else ()),
            }
        )
        amount = self.names.new(f"{s.value}_fixed")
        scale_code = align(scale, dims).code
        value_code = align(value, dims).code
        self.emit(f"{amount} = to_fixed({value_code}, {scale_code}, acc, device)")
        if guard is not None:
            guarded = f"torch.where({align(guard, dims).code}, {amount}, 0)"
            self.emit(f"{amount} = {guarded}")
        if dims:
            self.emit(f"{amount} = {amount}.expand{self.shape(dims)}")
        if not index:
            self.emit(f"{tensor} += {amount}.sum()")
            return
        at = self.names.new(f"{s.value}_to")
        places = [align(t, dims).code for t in index]
        if dims:  # entries that share a place add to it one by one
            places[0] = f"{places[0]}.expand{self.shape(dims)}"
        if len(places) == 1:
            self.emit(f"{at} = ({places[0]},)")
        else:
            self.emit(f"{at} = (")
            for place in places:
                self.emit(f"    {place},")
            self.emit(")")
        self.emit(f"{tensor}.index_put_({at}, {amount}, accumulate=True)")


def _as_slice(part: str) -> str:
    """A slice written outside brackets."""
    if ":" not in part or "[" in part:
        return part
    first, end = part.split(":")
    if not first:
        return f"slice({end or 'None'})"
    return f"slice({first}, {end})"


def _doc(p: TileProgram, grid: tuple[str, ...]) -> str:
    tiles = ", ".join(a.name for a in p.of(Role.TILE)) or "no axis"
    streams = ", ".join(a.name for a in p.of(Role.STREAM))
    whole = f"; all of {', '.join(grid)} at once" if grid else ""
    sweep = f", sweeping {streams}" if streams else ""
    how = f": a tile of {tiles} at a time{sweep}{whole}."
    made = ", ".join(p.writes)
    if len(made) + len(how) > 88:
        made = f"{p.writes[0]} and {len(p.writes) - 1} more"
    return made + how
