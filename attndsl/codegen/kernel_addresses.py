"""Where a kernel finds elements in memory: a 64-bit base for each tile, 32-bit offsets inside it, and a mask."""

from __future__ import annotations

from dataclasses import replace

from attndsl.cascade.nodes import DType, Expr, Position
from attndsl.cascade.walk import walk
from attndsl.codegen.exprs import ATOM, Text
from attndsl.codegen.kernel_lines import KernelLines
from attndsl.codegen.programs import MOVING, lone
from attndsl.schedule.tile import Across, Load, Origin, Role, Scatter, Store, Val


class KernelAddresses(KernelLines):
    """Prints addresses; what does not move in the sweep stands at the top of the kernel."""

    __slots__ = ()

    def _address(self, tensor: str, subs: tuple[Expr, ...]) -> Text:
        """Pointers to `tensor[subs]`: a 64-bit base, and 32-bit offsets inside the tile."""
        buffer = self.plan.buffer(tensor)
        # Axis, scalar position, and whether that is known at the top.
        bases: list[tuple[int, str, bool]] = []
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
        self, s: Load | Store | Scatter | Across, also: tuple[str, ...] = ()
    ) -> tuple[Text, str | None]:
        """Address and mask of an access whose values span the axes `also` besides."""
        pointers = self._pointers(s.tensor, s.subs, 48)
        guard = s.guard if isinstance(s, Load | Scatter) else None
        spanned = {*pointers.dims, *also, *(self._values[guard].text.dims if guard else ())}
        dims = self.order(frozenset(spanned))
        bounds = {d for d in dims if d in s.bounds or self.program.axis(d).role is Role.FULL}
        return pointers, self._mask(bounds, dims, guard)


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
