"""Products, reductions and scans of a kernel."""

from __future__ import annotations

from attndsl.cascade.nodes import DType, Reduction
from attndsl.codegen.exprs import ATOM, Text
from attndsl.codegen.halves import inner, weighed
from attndsl.codegen.kernel_lines import KernelLines
from attndsl.codegen.kernel_names import Value
from attndsl.codegen.programs import statements
from attndsl.schedule.specialise import used
from attndsl.schedule.tile import AccDot, Across, Dot, Fold, Pick, Role, Scan, Solve

TILES = {Role.TILE, Role.STREAM}


class KernelProducts(KernelLines):
    """Prints what combines the elements of an axis."""

    __slots__ = ()

    def _product(self, s: Dot | AccDot | Across) -> str:
        """The function that multiplies."""
        return self.use("whole_dot" if s.exact else "dot")

    def _by_halves(
        self, s: Dot | AccDot, dims: tuple[str, ...], acc: str
    ) -> tuple[str, list[str]] | None:
        """The function and arguments of a product of tiles that may come in halves; None for others."""
        kind = self._storage(s.like)
        if inner(self.program, s, self.halves):
            a, b = (self._values[x].text.code for x in (s.left, s.right))
            return self.use("dot_of_rows"), [a, b, kind, "ACC"]
        if weighed(self.program, s, self.halves):
            left = self._values[s.left].text
            over = (dims[0], s.over)
            code = left.code if left.dims == self.order(frozenset(over)) else ""
            code = (
                code
                or self._filled(
                    self._printer.number(left), self.order(frozenset(over)), DType.FLOAT
                ).code
            )
            if self.order(frozenset(over)) != over:
                code = f"tl.trans({code})"
            return self.use("dot_by_rows"), [
                code,
                self._values[s.right].text.code,
                acc,
                kind,
                "ACC",
            ]
        return None

    def _factors(self, s: Dot | AccDot, dims: tuple[str, ...], acc: str) -> list[str]:
        """The arguments of a product, in names of their own where they are long."""
        a = self._operand(s.left, dims[0], s, first=True)
        b = self._operand(s.right, dims[1], s, first=False)
        kinds = [self._storage(s.like)] if s.exact else []
        room = min(84, 93 - 4 * self._indent - len(s.name))
        if len(f"{self._product(s)}({', '.join([a, b, acc, *kinds, 'ACC'])})") > room:
            a = self.part(Text(a, (), DType.FLOAT)).code if not a.isidentifier() else a
            b = self.part(Text(b, (), DType.FLOAT)).code if not b.isidentifier() else b
        return [a, b, acc, *kinds, "ACC"]

    def _times_vector(self, s: Dot) -> None:
        """A product of a tile and a vector."""
        tile = self._operand(s.left, s.dims[0], s, first=True)
        vector = self._printer.number(self._values[s.right].text)
        if vector.dims != (s.over,):
            vector = self._filled(vector, (s.over,), DType.FLOAT)
        code = f"{self.use('times_vector')}({tile}, {vector.code}, ACC)"
        zero = frozenset(d for d in s.dims if d in self._values[s.left].zero)
        self._define(s.name, Text(code, s.dims, DType.FLOAT), zero)

    def _operand(self, name: str, kept: str, s: Dot | AccDot | Across, first: bool) -> str:
        """A value as the left ([kept, over]) or right ([over, kept]) operand of a product."""
        value, over, like = self._values[name], s.over, s.like
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
        if (value.tensor != like or not text.stored) and not s.exact:
            code = f"{text.at(ATOM)}.to({self._storage(like)})"
            if like in self.plan.eight and value.tensor not in self.plan.eight:
                code = f"{self.use('to_eight')}({text.code}, {self._storage(like)})"
        if dims != ((kept, over) if first else (over, kept)):
            if 4 * self._indent + len(code) > 78:  # a line of its own would be too long with it
                code = self.part(Text(code, (), DType.FLOAT)).code
            code = f"tl.trans({code})"
        return code

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

    def _pick(self, s: Pick) -> None:
        """The points of one axis that each pair of the others names."""
        like = self._only_like(s.name)
        text = self._printer.number(self._values[s.src].text)
        k = text.dims.index(s.over)
        code = text.code if like is None else f"{text.at(ATOM)}.to({self._storage(like)})"
        at = self.part(self._filled(self._printer.print(s.at), s.dims, DType.INT), "at")
        helper = self.use("pick" if s.inside else "pick_within")
        name = self._name(s.name)
        self._emit_call(f"{name} = ", helper, [code, at.code, str(k)])
        stored = Text(name, s.dims, DType.FLOAT, stored=like is not None)
        self._values[s.name] = Value(stored, tensor=like)

    def _only_like(self, name: str) -> str | None:
        """The tensor whose type a value is cast to wherever it is used: half as much passes through shared memory."""
        using = [s for s in statements(self.program) if name in used(s)]
        likes = {
            s.like
            if isinstance(s, Dot | AccDot) and not s.exact and s.like not in self.plan.eight
            # Anything else takes it as it is.
            else None
            for s in using
        }
        return likes.pop() if len(likes) == 1 else None

    def _solve(self, s: Solve) -> None:
        # Each row takes the others: those past the end must be finite, and a gate's exponent from there is not bounded.
        row = self._values[s.right].text.dims[0]
        right = self._ended(s.right, row, "side")
        block = self.blocks[self._stands_for(s.dims[0])]
        if s.like is None:
            matrix = self._ended(s.matrix, row, "matrix")
            code = f"{self.use('solve')}({matrix.code}, {right.code}, ACC, {block})"
            self._define(s.name, Text(code, s.dims, DType.FLOAT))
            return
        storage = self._storage(s.like)
        key = ("inverse", s.matrix, storage)
        if key not in self._shared:  # several right sides have one inverse
            matrix = self._ended(s.matrix, row, "matrix")
            name = self._shared[key] = self.names.fresh("inverse")
            code = f"{self.use('inverse_of')}({matrix.code}, ACC, {block}, {storage})"
            self._emit(f"{name} = {code}.to({storage})")
        stored = self._values[s.right].tensor == s.like and right.stored
        side = right.code if stored else f"{right.at(ATOM)}.to({storage})"
        code = f"{self.use('exact_dot')}({self._shared[key]}, {side}, None, ACC)"
        self._define(s.name, Text(code, s.dims, DType.FLOAT))

    def _ended(self, name: str, axis: str, called: str) -> Text:
        """A value as 0 past the end of an axis."""
        value = self._values[name]
        text = value.text
        if axis in value.zero:
            return text
        code = f"tl.where({self._mask((axis,), text.dims)}, {self._printer.number(text).code}, 0.0)"
        return self.part(Text(code, text.dims, DType.FLOAT), called)

    def _scan(self, s: Scan) -> None:
        text = self._printer.number(self._values[s.src].text)
        if text.dims != s.dims:
            text = self._filled(text, s.dims, DType.FLOAT)
        if s.op is Reduction.SUM and len(s.dims) == 2 and {*map(self._role, s.dims)} <= TILES:
            helper = self.use("running_sums")
            code = f"{helper}({text.code}, {s.dims.index(s.over)}, {s.down})"
            self._define(s.name, Text(code, s.dims, DType.FLOAT))
            return
        way = ", reverse=True" if s.down else ""
        code = f"tl.cumsum({text.code}, {s.dims.index(s.over)}{way})"
        if s.op is not Reduction.SUM:
            combine = self.use("larger" if s.op is Reduction.MAX else "smaller")
            code = f"tl.associative_scan({text.code}, {s.dims.index(s.over)}, {combine}{way})"
        self._define(s.name, Text(code, s.dims, DType.FLOAT))

    def _role(self, axis: str) -> Role:
        return self.program.axis(axis).role

    def _identity(self, op: Reduction, kind: DType) -> str:
        if kind is DType.INT:
            return {"sum": "0", "prod": "1", "max": "-2147483648", "min": "2147483647"}[op.value]
        value = op.identity
        return f'float("{value}")' if value in (float("inf"), float("-inf")) else repr(value)
