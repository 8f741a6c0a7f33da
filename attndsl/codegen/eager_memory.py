"""Loads and stores of an eager kernel: slices where subscripts are axes, index tensors where they are not."""

from __future__ import annotations

from attndsl.cascade.nodes import DType, Expr, Position
from attndsl.codegen.eager_exprs import ATOM, Text, align, show
from attndsl.codegen.eager_values import EagerValues
from attndsl.schedule.tile import Load, Scatter, Store


class EagerMemory(EagerValues):
    """Prints what reads and writes tensors."""

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
