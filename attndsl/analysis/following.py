"""Whether a sum can follow the running values that its terms depend on, and how.

    O[i,f] = sum[j](exp(S[i,j] - M[i]) * V[j,f])     follows M: terms move by exp(-1 * shift)
    O[i,f] = sum[j]((P[i,j] / Z[i])**p * V[j,f])     follows Z, a sum of what is not negative: by factor**-p
    O[i,f] = sum[j](relu(S[i,j] - t[i]) * V[j,f])    does not follow t

What does not follow costs a sweep; `why_apart` says which fact it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from attndsl.analysis.ranks import Kind as RankKind
from attndsl.analysis.ranks import Ranks
from attndsl.analysis.separability import Inseparable, Separated, separate
from attndsl.cascade.invariance import Kind as Shift
from attndsl.cascade.invariance import Scaling, scaling, scaling_of
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    Expr,
    Extent,
    Index,
    Param,
    Position,
    Read,
    Reduce,
    Reduction,
    Unary,
)
from attndsl.cascade.printer import print_part
from attndsl.cascade.signs import Sign, sign_of, signs
from attndsl.cascade.walk import children, free, rename, rewrite, substitute, walk


@dataclass(frozen=True, slots=True)
class Move:
    """Where a pivot moves by `d`, terms are multiplied by `exp(k*d)`; a `factor` multiplied by `c`, by `c**k`.

    With `count`, the pivot is the mean of so many values, and the sum their spread: `count * d**2` is added to it.
    """

    k: Expr
    factor: bool = False
    count: Read | None = None

    @property
    def still(self) -> bool:
        """Whether the terms do not depend on the pivot at all."""
        return self.k == Const(0) and self.count is None


@dataclass(slots=True)
class Following:
    """The questions about one cascade in normal form; tensors in `fixed` are known beforehand."""

    cascade: Cascade
    ranks: Ranks
    fixed: frozenset[str] = frozenset()
    reduced: frozenset[str] = field(init=False)
    """Body tensors that depend on a large reduction which is not in `fixed`."""
    signs: dict[str, Sign] = field(init=False)
    _defs: dict[str, Define] = field(init=False)
    _scalings: dict[tuple[str, Shift], dict[str, Scaling]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._defs = {d.tensor: d for d in self.cascade.body}
        self.signs = signs(self.cascade)
        out: set[str] = set()
        for d in self.cascade.body:
            if d.tensor not in self.fixed and (
                self.large(d) or any(isinstance(n, Read) and n.tensor in out for n in walk(d.expr))
            ):
                out.add(d.tensor)
        self.reduced = frozenset(out)

    def large(self, d: Define) -> bool:
        """Whether a definition is a reduction over a sequence or batch rank."""
        kinds = self.ranks.kind
        return isinstance(d.expr, Reduce) and any(
            kinds(i) is not RankKind.FEATURE for i in d.expr.indices
        )

    def how(self, d: Define, pivot: Read) -> Move | None:
        """How the terms of the sum `d` move with a running value; None if no correction follows it."""
        if (count := self.spread_around(d, pivot)) is not None:
            return Move(Const(0), count=count)
        k = self._exponent(d, pivot.tensor, Shift.ADD)
        if isinstance(k, Const):
            return Move(k)
        k = self._exponent(d, pivot.tensor, Shift.MUL)
        known = k is not None and all(
            isinstance(n, Const | Param | Unary | Binary) for n in walk(k)
        )
        return Move(k, factor=True) if k is not None and known and self.grows(pivot) else None

    def _exponent(self, d: Define, pivot: str, kind: Shift) -> Expr | None:
        """`k`, where terms are multiplied by `exp(k * d)` when the pivot is moved by `d`, or its logarithm is."""
        assert isinstance(d.expr, Reduce)
        if (pivot, kind) not in self._scalings:
            # What is known beforehand stands at the pivots' last values, and moves no more.
            self._scalings[pivot, kind] = scaling(self.cascade, pivot, self.fixed, kind)
        moved = self._scalings[pivot, kind]
        if d.expr.where is not None and not scaling_of(d.expr.where, moved).invariant:
            return None  # what the domain left out, or let in, where the pivot stood before is past correction
        s = scaling_of(d.expr.body, moved)
        if s.invariant:
            return Const(0)
        match s.exponent if s.kind is Shift.MUL else None:
            case Unary("-", Const(value)):
                return Const(-value)
            case k:
                return k

    def spread_around(self, d: Define, pivot: Read) -> Read | None:
        """How many values `pivot` is the mean of, where `d` is the sum of their squared distances from it."""
        e = d.expr
        assert isinstance(e, Reduce)
        match e.body:
            case Binary("**", Binary("-", x, Read() as mean), Const(value=2)) if (
                mean.tensor == pivot.tensor
            ):
                m = self._defs.get(mean.tensor)
            case _:
                return None
        match m.expr if m is not None and m.indices == d.indices else None:
            case Binary("/", Read() as total, Read() as count):
                pair = [self._defs.get(r.tensor) for r in (total, count)]
            case _:
                return None
        for own, body in zip(pair, (x, Const(1.0)), strict=True):
            r = None if own is None or own.indices != d.indices else own.expr
            if not isinstance(r, Reduce) or len(r.indices) != len(e.indices):
                return None
            if rename(r, dict(zip(r.indices, e.indices, strict=True))) != replace(e, body=body):
                return None
        return count

    def grows(self, e: Expr) -> bool:
        """Whether a running value never falls in a sweep, and starts at 0 or above: a sum of what is not negative.

        A sum that is corrected itself falls where its pivot jumps, and does not count.
        """
        match e:
            case Const(value):
                return value >= 0
            case Extent():
                return True
            case Binary("+" | "*", a, b):
                return self.grows(a) and self.grows(b)
            case Call("max" | "sqrt", args):
                return all(self.grows(a) for a in args)
            case Read() if e.tensor in self.reduced:
                d = self._defs[e.tensor]
                if d.init is not None:
                    return False
                if not self.large(d):
                    return self.grows(d.expr)
                assert isinstance(d.expr, Reduce)
                if d.expr.op is not Reduction.SUM or not sign_of(d.expr, self.signs):
                    return False
                return all(
                    (m := self.how(d, p)) is not None and m.still for p in self.pivots(d.expr)
                )
            case _:
                return False

    def pivots(self, e: Reduce, inside: frozenset[str] = frozenset()) -> list[Read]:
        """Running values that terms or their domain read, constant along what is reduced; maps are looked through."""
        over = frozenset(e.indices)
        found = [n for x in children(e) for n in walk(self.opened(x, over)) if isinstance(n, Read)]
        found += [p for n in found for p in self.behind(n, over, inside)]
        return list(
            dict.fromkeys(n for n in found if n.tensor in self.reduced and not free(n) & over)
        )

    def behind(
        self, n: Read, over: frozenset[str], inside: frozenset[str] = frozenset()
    ) -> list[Read]:
        """Running values that a scan along `over` is made of, where it is read; its own past (`inside`) apart."""
        d = self._defs.get(n.tensor)
        if d is None or n.tensor in inside or d.init is not None:
            return []
        if not self.large(d) or not free(n) & over:
            return []
        assert isinstance(d.expr, Reduce)
        to = dict(zip(d.indices, n.subs, strict=True))
        number = {i: Position(s.name) if isinstance(s, Index) else s for i, s in to.items()}
        made = (substitute(p, number, to) for p in self.pivots(d.expr, inside | {n.tensor}))
        return [p for p in made if isinstance(p, Read)]

    def opened(self, e: Expr, over: frozenset[str]) -> Expr:
        """With maps of running values along `over` written out; scores and data stay names."""

        def rule(n: Expr) -> Expr | None:
            if not isinstance(n, Read) or n.tensor not in self.reduced or not free(n) & over:
                return None
            d = self._defs[n.tensor]
            if d.init is not None or self.large(d):
                return None
            to = dict(zip(d.indices, n.subs, strict=True))
            number = {i: Position(s.name) if isinstance(s, Index) else s for i, s in to.items()}
            return self.opened(substitute(d.expr, number, to), over)

        return rewrite(e, rule)

    # --- why not -----------------------------------------------------------------------------------------------------

    def why_apart(self, d: Define, pivot: str) -> str:
        """Why a sum does not follow a running value, in one sentence with the program's own tensors.

        `t` must be known before `relu(S[i,j] - t[i])`, which is not separable in `t`
        `mean` must be known before `O.1`: its terms separate into 2 sums, which may cancel
        """
        begin = f"`{pivot}` must be known before"
        assert isinstance(d.expr, Reduce)
        to = {i: Position(self.ranks.of.get(i, i)) for i in d.expr.indices}
        over = frozenset(d.expr.indices)
        for n in walk(self.opened(d.expr.body, over)):
            if isinstance(n, Read) and n.tensor == pivot and free(n) & over:
                return f"{begin} `{d.tensor}`, which reads `{print_part(substitute(n, to), self.cascade)}`"
        if d.expr.where is not None:
            for n in walk(self.opened(d.expr.where, over)):
                if isinstance(n, Read) and n.tensor == pivot:
                    part = print_part(substitute(d.expr.where, to), self.cascade)
                    return f"{begin} `{d.tensor}`, which is taken where `{part}`"
        if d.expr.op is not Reduction.SUM:
            return f"{begin} `{d.expr.op.value}` of `{d.tensor}`"
        stuck = [p.tensor for p in self.pivots(d.expr) if self.how(d, p) is None]
        for names in ([pivot], list(dict.fromkeys([pivot, *stuck]))):
            found = self.separated(d, names)
            if isinstance(found, Inseparable):
                part = print_part(substitute(found.part, to), self.cascade)
                values = " and ".join(f"`{x}`" for x in names)
                return f"{begin} `{part}`, which is not separable in {values}"
            if found.rank > 1:
                return f"{begin} `{d.tensor}`: its terms separate into {found.rank} sums, which may cancel"
        return f"{begin} `{d.tensor}`: no correction of its terms stays in range"

    def separated(self, d: Define, late: Collection[str]) -> Separated | Inseparable:
        """The terms of a sum, separated into the values of the tensors `late` and the rest."""
        assert isinstance(d.expr, Reduce)
        over = frozenset(d.expr.indices)
        body = self.opened(d.expr.body, over)
        reads = (n for n in walk(body) if isinstance(n, Read))
        return separate(body, frozenset(n for n in reads if n.tensor in late), over, self.signs)
