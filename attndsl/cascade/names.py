"""Fresh names, and the declarations that a derived cascade needs: inputs, ranks, parameters."""

from __future__ import annotations

from collections.abc import Sequence

from attndsl.cascade.nodes import (
    Cascade,
    Define,
    Expr,
    Extent,
    Index,
    Output,
    Param,
    Position,
    Rank,
    Reduce,
    ScalarParam,
    TensorDecl,
)
from attndsl.cascade.walk import reads, walk


class Names:
    """Fresh names of tensors and indices."""

    def __init__(self, cascade: Cascade) -> None:
        self.tensors = {t.name for t in cascade.inputs} | cascade.defined
        self.tensors |= {p.name for p in cascade.params}
        self.ranks = {r.name: r for r in cascade.ranks}
        for t in cascade.inputs:
            self.ranks |= {r: Rank(r) for r in t.ranks if r not in self.ranks}

    def tensor(self, stem: str) -> str:
        """`stem`, or `stem_2`, … where it is taken."""
        name, n = stem, 1
        while name in self.tensors or name in self.ranks:
            n += 1
            name = f"{stem}_{n}"
        self.tensors.add(name)
        return name

    def index(self, like: str) -> str:
        """A new index over the rank of `like`."""
        root = self.root(like)
        n = 1
        while f"{root}_{n}" in self.ranks or f"{root}_{n}" in self.tensors:
            n += 1
        self.ranks[f"{root}_{n}"] = Rank(f"{root}_{n}", iterates=root)
        return f"{root}_{n}"

    def root(self, index: str) -> str:
        """The declared rank that an index runs over."""
        above = self.ranks[index].iterates
        return index if above is None else self.root(above)


def expressions(body: Sequence[Define]) -> list[Expr]:
    """All expressions of the definitions."""
    return [e for d in body for e in (d.expr, d.where, d.init) if e is not None]


def mentioned(e: Expr) -> set[str]:
    """Every rank and index that occurs in an expression, bound ones too."""
    out: set[str] = set()
    for n in walk(e):
        match n:
            case Index() | Position():
                out.add(n.name)
            case Extent():
                out.add(n.rank)
            case Reduce():
                out |= set(n.indices)
            case _:
                pass
    return out


def closed(found: set[str], names: Names) -> set[str]:
    """With the ranks that the found ones run over or are split from."""
    todo = list(found)
    while todo:
        r = names.ranks[todo.pop()]
        above = {r.iterates} if r.iterates is not None else set()
        above |= mentioned(r.extent) if r.extent is not None else set()
        todo += above - found
        found |= above
    return found


def needed_inputs(
    cascade: Cascade,
    body: Sequence[Define],
    outputs: Sequence[Output],
    names: Names,
    others: Sequence[TensorDecl],
) -> tuple[TensorDecl, ...]:
    """The inputs of `cascade` that `body` reads, or that alone give an extent or a parameter; then `others`."""
    used = {n for e in expressions(body) for n in reads(e)}
    chosen = [t for t in cascade.inputs if t.name in used]
    ranks = {i for e in expressions(body) for i in mentioned(e)}
    ranks |= {i for d in body for i in d.indices} | {i for o in outputs for i in o.indices}
    ranks = {r for r in closed(ranks, names) if names.ranks[r].extent is None}
    ranks = {r for r in ranks if names.ranks[r].iterates is None}
    sized = {r for t in (*chosen, *others) for r in t.ranks}
    solved = _solved(chosen)
    wanted = {p.name for p in cascade.params if p.default is None} & _params(expressions(body))
    for t in cascade.inputs:
        if t not in chosen and ((set(t.ranks) & ranks) - sized or (_solved([t]) & wanted) - solved):
            chosen.append(t)
            sized |= set(t.ranks)
            solved |= _solved([t])
    return (*(t for t in cascade.inputs if t in chosen), *others)


def _params(parts: Sequence[Expr]) -> set[str]:
    return {n.name for e in parts for n in walk(e) if isinstance(n, Param)}


def _solved(inputs: Sequence[TensorDecl]) -> set[str]:
    """Parameters that stand in declared axes (`h // G`), and so follow from shapes."""
    return _params([d for t in inputs for d in t.dims])


def ranks_of(
    inputs: Sequence[TensorDecl], body: Sequence[Define], outputs: Sequence[Output], names: Names
) -> tuple[Rank, ...]:
    """The ranks that occur, in the order in which they were declared."""
    found = {i for e in expressions(body) for i in mentioned(e)}
    found |= {i for d in body for i in d.indices} | {i for o in outputs for i in o.indices}
    found |= {r for t in inputs for r in t.ranks}
    found |= {i for t in inputs for d in t.dims for i in mentioned(d)}
    found = closed(found, names)
    return tuple(r for n, r in names.ranks.items() if n in found)


def params_of(
    cascade: Cascade, inputs: Sequence[TensorDecl], body: Sequence[Define], ranks: Sequence[Rank]
) -> tuple[ScalarParam, ...]:
    """The parameters that occur in definitions, declared axes or extents."""
    extents = [r.extent for r in ranks if r.extent is not None]
    used = _params(expressions(body)) | _solved(inputs) | _params(extents)
    return tuple(p for p in cascade.params if p.name in used)
