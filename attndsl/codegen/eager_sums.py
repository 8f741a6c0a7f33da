"""Products, reductions and scans of an eager kernel, and the values that its loops update."""

from __future__ import annotations

from dataclasses import replace

from attndsl.cascade.nodes import DType, Reduction
from attndsl.codegen.eager_exprs import ATOM, Text, align, as_float, show
from attndsl.codegen.eager_values import EagerValues
from attndsl.schedule.tile import SIXTEEN, AccDot, Declare, Dot, Fold, Pick, Scan, Solve

FOLDS = {
    Reduction.SUM: "sum",
    Reduction.MAX: "amax",
    Reduction.MIN: "amin",
    Reduction.PROD: "prod",
    Reduction.ANY: "any",
    Reduction.ALL: "all",
}


class EagerSums(EagerValues):
    """Prints what combines the elements of an axis, at once or tile by tile."""

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

    def pick(self, s: Pick) -> Text:
        src = self.values[s.src]
        dims = self.sorted({*src.dims, *s.dims} - {s.over})
        (new,) = {*s.dims} - {*src.dims}
        src = replace(src, dims=tuple(new if a == s.over else a for a in src.dims))
        k = src.dims.index(new) - len(src.dims)
        at = self.named(align(show(s.at, self.scope()), s.dims))
        if len(dims) > len(s.dims):  # as many dimensions as the source has
            lead = ", ".join(["None"] * (len(dims) - len(s.dims)))
            at = replace(at, code=f"{at.code}[{lead}]")
        where = at.code
        if not s.inside:
            where = f"{at.code}.clamp(0, {self.size(s.over)} - 1)"
        code = f"torch.take_along_dim({src.code}, {where}, {k})"
        if not s.inside:
            outside = f"({at.code} < 0) | ({at.code} >= {self.size(s.over)})"
            code = f"{code}.masked_fill({outside}, 0.0)"
        return Text(code, DType.FLOAT, dims, False)

    def scan(self, s: Scan) -> Text:
        src = as_float(self.values[s.src])
        k = src.dims.index(s.over) - len(src.dims)
        run = {Reduction.SUM: f"cumsum({k})"}.get(s.op, f"cum{s.op.value}({k}).values")
        code = f"{src.at(ATOM)}.{run}"
        if s.down:
            code = f"{src.at(ATOM)}.flip({k}).{run}.flip({k})"
        return Text(code, DType.FLOAT, src.dims, False)

    # --- values that are updated --------------------------------------------------------------------------------------

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
        product = self.product(s, dims)
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

    # --- products -----------------------------------------------------------------------------------------------------

    def product(self, s: Dot | AccDot, dims: tuple[str, ...]) -> Text:
        a, b = self.operand(s.left, s), self.operand(s.right, s)
        over = s.over
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

    def operand(self, name: str, s: Dot | AccDot) -> Text:
        """An operand of a product, with the precision of the storage type of `like` if it is not exact."""
        t, like = as_float(self.values[name]), s.like
        if s.exact:
            return t
        source = self.loaded.get(name)
        if source is not None and like in (source, self.plan.buffer(source).like):
            return t  # it came from memory in that type
        kind = "torch.bfloat16" if like == SIXTEEN else f'dtypes["{like}"]'
        return Text(f"stored({t.code}, {kind})", DType.FLOAT, t.dims, False)
