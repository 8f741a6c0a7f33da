"""Reverse-mode differentiation of cascades: the gradient of a cascade is a cascade.

    g = differentiate(cascade)      # alibi: O, LSE of Q, K, V, slope
    g.backward                      # dQ, dK, dV, dslope of Q, K, V, slope, O, LSE, dO, dLSE

        S[i,j]  = Q[i,e] * K[j,e] / sqrt(|e|) - slope * (i - j)   where j <= i
        D[i]    = O[i,f] * dO[i,f] - dLSE[i]
        dP[i,j] = V[j,f] * dO[i,f]
        P[i,j]  = exp(S[i,j] - LSE[i])
        dS[i,j] = (dP[i,j] - D[i]) * P[i,j]
        dQ[i,e] = K[j,e] * dS[i,j] / sqrt(|e|)        and so on for dK, dV, dslope

The sweep runs through the definitions from the last to the first. The gradient of a tensor is a sum
of terms (`terms`), one for every place at which it was read, each a product of local derivatives
(`derivatives`). Stabilisers, of which the outputs do not depend (`invariance`), receive none.
Before a term is written, sums that the forward program has computed are read back (`swap`), and
softmax denominators go into exponents (`fold`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

from attndsl.cascade.definedness import Conditions, at, domains, unique
from attndsl.cascade.derivatives import Leaf, differentiable, leaves, singular
from attndsl.cascade.emit import Emitter
from attndsl.cascade.fold import Folding
from attndsl.cascade.hoist import hoist
from attndsl.cascade.invariance import unseen
from attndsl.cascade.means import around_their_mean
from attndsl.cascade.monomials import Monomial, monomial
from attndsl.cascade.names import Names
from attndsl.cascade.nodes import (
    Binary,
    Call,
    Cascade,
    Const,
    Define,
    DType,
    Expr,
    Extent,
    Index,
    Read,
    Reduce,
    Select,
    Solve,
    TensorDecl,
)
from attndsl.cascade.parted import extremes_apart, parted
from attndsl.cascade.residuals import Cut, cross, is_kept, package, sequences
from attndsl.cascade.scales import by_scale, of_one_divisor
from attndsl.cascade.signs import Sign, sign_of, signs
from attndsl.cascade.steady import steadied
from attndsl.cascade.swap import Contractions, swapped
from attndsl.cascade.terms import Term, gather
from attndsl.cascade.types import Types, offset, time_axis
from attndsl.cascade.walk import children, free, reads, replaced, walk


@dataclass(frozen=True, slots=True)
class Gradient:
    """A forward program that returns what its backward program needs, and that backward program."""

    forward: Cascade
    backward: Cascade
    residuals: tuple[str, ...]
    """Forward outputs that `backward` takes as inputs."""
    cotangents: dict[str, str]
    """By output: the input of `backward` that holds its gradient."""
    gradients: dict[str, str]
    """By input: the output of `backward` that is its gradient."""


def differentiate(
    cascade: Cascade, wrt: Sequence[str] | None = None, kinds: Mapping[str, str] | None = None
) -> Gradient:
    """The gradients of all outputs with respect to the float inputs `wrt` (all of them by default).

        g = differentiate(cascade)
        saved = interpret(g.forward, inputs)
        grads = interpret(g.backward, {**inputs, **saved, "dO": …}, start=0)

    `kinds` says which ranks are sequences where that is settled: pairs of them are no tensors to keep.
    `backward` takes the inputs that it reads, `residuals` and `cotangents`. Positions are taken as
    they are written: where a call may shift them, apply `starts.apply_start` first.
    """
    names = wrt if wrt is not None else [t.name for t in cascade.inputs if t.dtype is DType.FLOAT]
    return _Sweep(cascade, tuple(names), kinds or {}).run()


class _Sweep:
    def __init__(self, cascade: Cascade, wrt: tuple[str, ...], kinds: Mapping[str, str]) -> None:
        self.original = cascade
        self.wrt = wrt
        self.names = Names(cascade)
        in_parts, parts = parted(
            cascade, domains(cascade), lambda n: self.names.tensor(f"{n}_part")
        )
        in_parts, extremes = extremes_apart(
            in_parts, sequences(cascade, kinds), lambda n: self.names.tensor(f"{n}_part")
        )
        active = self.reach(in_parts, frozenset())

        def constant(e: Expr) -> bool:
            return not any(isinstance(r, Read) and r.tensor in active for r in differentiable(e))

        self.forward, hoisted = hoist(in_parts, constant, lambda n: self.names.tensor(f"{n}_part"))
        hoisted = {**parts, **extremes, **hoisted}
        stabilisers = unseen(self.forward)
        self.active = self.reach(self.forward, stabilisers)
        self.types = Types(self.forward)
        self.domains = domains(self.forward)
        self.signs = signs(self.forward)
        self.reduced = _with_reduction(self.forward)
        self.singular = frozenset(n for d in self.forward.body for n in singular(d.expr))
        self.outputs = frozenset(o.name for o in cascade.outputs)
        self.indices = {t.name: t.ranks for t in cascade.inputs}
        self.indices |= {d.tensor: d.indices for d in self.forward.body}
        self.terms: dict[str, list[Term]] = {n: [] for n in self.indices}
        self.summed: dict[str, tuple[list[Term], Conditions, tuple[str, ...]]] = {}
        """By row tensor: its terms, where a known sum was read back for some of them."""
        self.exact_names: dict[str, str] = {}
        self.initial: dict[str, list[Term]] = {d.tensor: [] for d in self.forward.body}
        sequence = sequences(self.forward, kinds)
        again = [d for d in self.forward.body if not is_kept(d, sequence, self.outputs)]
        self.contractions = Contractions(self.forward, self.domains)
        self.folding = Folding(
            self.forward,
            stabilisers,
            self.keep,
            self.repeat,
            self.contractions.expand,
            sequence if kinds else frozenset(),
        )
        self.emit = Emitter(
            self.forward,
            self.names,
            sequence,
            {d.tensor: self.domains[d.tensor] for d in again},
            self.folding.fold,
            self.may_vanish,
            self.finite,
        )
        self.cut = Cut(cascade, hoisted, sequence)

    def reach(self, cascade: Cascade, hidden: frozenset[str]) -> frozenset[str]:
        """The tensors through which a gradient flows to the inputs asked for."""
        active = frozenset(self.wrt)
        for d in cascade.body:
            parts = (d.expr,) if d.init is None else (d.expr, d.init)
            seen = {r.tensor for e in parts for r in differentiable(e) if isinstance(r, Read)}
            if d.tensor not in hidden and (seen & active):
                active |= {d.tensor}
        return active

    # --- the sweep ---

    def run(self) -> Gradient:
        cotangents: dict[str, str] = {}
        decls: list[TensorDecl] = []
        for o in self.original.outputs:
            if self.types.tensors[o.name] is DType.FLOAT:
                name = cotangents[o.name] = self.names.tensor(f"d{o.name}")
                axes = tuple(Index(i) for i in o.indices)
                decls.append(TensorDecl(name, axes, o.indices))
                self.terms[o.name].append(Term(monomial(Read(name, axes))))
        gradients = {n: self.names.tensor(f"d{n}") for n in self.wrt}
        for d in reversed(self.forward.body):
            if d.tensor not in self.active:
                continue
            if d.init is not None:
                self.recurrence(d)
            else:
                self.step(d, self.terms[d.tensor])
        for name, out in gradients.items():
            parts = self.emit.parts(self.simplified(self.terms[name]), (), out)
            value = self.emit.total(parts) if parts else Const(0.0)
            self.emit.define(out, self.indices[name], value)
        written = list(self.emit.made)
        self.emit.made = []
        steady = steadied(
            written,
            {n: partial(self.exact, n) for n in self.summed},
            self.names.tensor,
            self.emit.ordered,
        )
        self.emit.made = [*self.emit.made, *steady]
        kept, again = cross(self.cut, self.forward, self.emit, self.folding)
        forward, backward = package(
            self.cut, self.forward, self.emit, kept, again, self.types, gradients, decls
        )
        backward = replace(backward, body=around_their_mean(backward.body))
        return Gradient(forward, backward, kept, cotangents, gradients)

    def step(self, d: Define, terms: list[Term]) -> None:
        """From the gradient of one tensor to those of what it reads."""
        found = by_scale(d, leaves(d, self.active, self.domains, self.names.index))
        short = self.simplified(terms)
        if found and short:
            self.spread(d, self.adjoint(d, found, short, terms), found)

    def spread(self, d: Define, gradient: Monomial, found: list[Leaf]) -> None:
        """Hand the gradient on to the tensors that were read."""
        for leaf in found:
            assert isinstance(leaf.read, Read)
            term, scope = self.reached(d, gradient, leaf)
            target = self.indices[leaf.read.tensor]
            moved = gather(target, leaf.read.subs, scope, term, self.names)
            self.terms[leaf.read.tensor].append(moved)
            self.before_the_first(leaf.read, scope, term)

    def reached(self, d: Define, gradient: Monomial, leaf: Leaf) -> tuple[Term, tuple[str, ...]]:
        """The contribution of a leaf, and the indices of the points at which it is made."""
        factor = (gradient * leaf.factor).map(lambda b: self.without_sums(b, d))
        domain = self.domains[d.tensor][1] if d.tensor in self.domains else ()
        return Term(factor, (), unique((*domain, *leaf.where))), d.indices + leaf.indices

    def without_sums(self, e: Expr, d: Define) -> Expr:
        """A factor that contains a reduction is a tensor of its own."""
        for n in walk(e):
            if isinstance(n, Reduce):
                stem = "ties" if isinstance(n.body, Select) else "slope"
                if n in walk(d.expr):
                    stem = f"{d.tensor}_part"
                named = self.emit.value(n, stem)
                self.reduced |= {named.tensor}
                return self.without_sums(replaced(e, n, named), d)
        return e

    # --- recurrences ---

    def recurrence(self, d: Define) -> None:
        """The gradient of a recurrence is one that runs the other way."""
        found = leaves(d, self.active, self.domains, self.names.index)
        mine = [
            leaf for leaf in found if isinstance(leaf.read, Read) and leaf.read.tensor == d.tensor
        ]
        others = [leaf for leaf in found if leaf not in mine]
        name = self.names.tensor(f"d{d.tensor}")
        domain = self.domains[d.tensor][1]
        gradient = Read(name, tuple(Index(i) for i in d.indices))
        parts = self.emit.parts(self.simplified(self.terms[d.tensor]), domain, name)
        for leaf in mine:
            assert isinstance(leaf.read, Read)
            term, scope = self.reached(d, monomial(gradient), leaf)
            moved = gather(d.indices, leaf.read.subs, scope, term, self.names)
            parts.append(self.emit.term(moved, domain))
        if not parts:
            return
        init = Const(0) if mine else None
        self.emit.define(name, d.indices, self.emit.total(parts), domain, init)
        self.spread(d, monomial(gradient), others)
        for leaf in mine:
            assert isinstance(leaf.read, Read)
            term, scope = self.reached(d, monomial(gradient), leaf)
            self.before_the_first(leaf.read, scope, term)
        time = time_axis(d)
        if d.init is not None and time is not None:
            rest = tuple(i for i in d.indices if i != time[0])
            self.step(Define(f"{d.tensor}_init", rest, d.init), self.initial[d.tensor])

    def before_the_first(self, read: Read, scope: tuple[str, ...], term: Term) -> None:
        """A read of `H[t-1]` is a read of the initial value at the first `t`."""
        if read.tensor not in self.initial or self.forward.define(read.tensor).init is None:
            return
        d = self.forward.define(read.tensor)
        time = time_axis(d)
        sub = offset(read.subs[d.indices.index(time[0])]) if time is not None else None
        if time is None or sub is None or sub[1] != -time[1]:
            return
        first: Expr = Const(0) if time[1] > 0 else Binary("-", Extent(time[0]), Const(1))
        rest = tuple(i for i in d.indices if i != time[0])
        subs = tuple(s for i, s in zip(d.indices, read.subs, strict=True) if i != time[0])
        points = tuple(i for i in scope if i != sub[0])
        at_first = term.substitute(sub[0], first)
        self.initial[read.tensor].append(gather(rest, subs, points, at_first, self.names))

    # --- the gradient of one tensor ---

    def adjoint(
        self, d: Define, found: list[Leaf], terms: list[Term], long: list[Term]
    ) -> Monomial:
        """The gradient of a tensor as a product, of which sums and what is summed again have got names.

        Divisors that all its parts share stay outside (`1/Z` waits there for the `P` that it folds
        with). `long` are the terms before known sums were read back.
        """
        stem = f"d{d.tensor}"
        domain = self.domains[d.tensor][1] if d.tensor in self.domains else ()
        written = self.emit.parts(terms, domain, stem)
        parts = of_one_divisor(written)
        if not parts:
            return Monomial(Fraction(0))
        if len(parts) < len(written) and not any(_sums(p) for p in parts):
            # A number a row, of numbers of the row: made once, not at every point that it is handed on to.
            value = self.emit.total(parts)
            return monomial(self.emit.define(self.names.tensor(stem), d.indices, value, domain))
        several = len(found) > 1
        whole = several or any(leaf.indices for leaf in found)
        if len(parts) == 1 and not _sums(parts[0]):
            summed = frozenset(i for leaf in found for i in _summed(d, leaf))
            pair = self.emit.is_pair(frozenset(d.indices))
            whole = _costly(parts[0], frozenset() if pair else summed) and (several or bool(summed))
            if not whole:
                return parts[0]
        pair = whole and self.emit.is_pair(frozenset(d.indices))
        if pair:
            parts = [self.folding.fold(p) for p in parts]
        content = _content(parts, pair or not whole)
        core = [p / content for p in parts]
        if pair:
            value = self.emit.product(content * monomial(self.emit.total(core)))
            out = self.emit.define(self.names.tensor(stem), d.indices, value, domain)
            self.emit.sums[out.tensor] = terms
            return monomial(out)
        sums = core if whole else [p for p in core if _sums(p)]
        if not sums:
            return content * monomial(self.emit.total(core))
        row = whole and any(p < 0 for _, p in content.powers)
        name = self.names.tensor("D" if row else stem)
        out = self.emit.define(name, d.indices, self.emit.total(sums), domain)
        if whole:
            self.emit.sums[name] = [t.times(content.inverse()) for t in terms]
            if row and long != terms:
                self.summed[name] = [t.times(content.inverse()) for t in long], domain, d.indices
        rest = [p for p in core if p not in sums]
        return content * monomial(self.emit.total([monomial(out), *rest]))

    def exact(self, row: str) -> str:
        """The tensor like `row` that is summed here, where `row` reads a sum back from an output."""
        if row not in self.exact_names:
            terms, domain, indices = self.summed[row]
            name = self.exact_names[row] = self.names.tensor("E")
            value = self.emit.total(self.emit.parts(terms, domain, name))
            self.emit.define(name, indices, value, domain)
        return self.exact_names[row]

    def simplified(self, terms: list[Term]) -> list[Term]:
        """Known sums read back, equal products collected, zeros dropped."""
        out: dict[tuple[object, ...], Term] = {}
        short = [s for t in terms for s in swapped(t, self.contractions, self.expansions)]
        for t in short:
            key = (t.factor.powers, t.indices, frozenset(t.where))
            coeff = t.factor.coeff + (out[key].factor.coeff if key in out else 0)
            out[key] = Term(Monomial(coeff, t.factor.powers), t.indices, t.where)
        return [t for t in out.values() if t.factor.coeff != 0]

    def expansions(self, t: Term) -> Iterator[list[Term]]:
        """The term with one gradient in it written out as the sums that it is."""
        for base, power in t.factor.powers:
            if power != 1 or not isinstance(base, Read) or base.tensor not in self.emit.sums:
                continue
            rest = Monomial.of(t.factor.coeff, [x for x in t.factor.powers if x[0] != base])
            own = self.emit.domains[base.tensor][0]
            parts: list[Term] = []
            for g in self.emit.sums[base.tensor]:
                g = g.rename({i: self.names.index(i) for i in g.indices})
                factor = g.factor.map(lambda b, own=own, base=base: at(b, own, base.subs))  # type: ignore[misc]
                where = tuple(at(c, own, base.subs) for c in g.where)
                parts.append(Term(rest * factor, t.indices + g.indices, unique((*t.where, *where))))
            yield parts

    # --- what folding makes, and what writing asks ---

    def keep(self, stem: str, indices: tuple[str, ...], value: Expr) -> str:
        """A log-sum-exp that the forward program has to return."""
        d = Define(self.names.tensor(stem), indices, value)
        self.forward = replace(self.forward, body=(*self.forward.body, d))
        self.types.tensors[d.tensor] = DType.FLOAT
        self.cut.logs.add(d.tensor)
        return d.tensor

    def repeat(self, like: Define, value: Expr) -> str:
        """Weights that the backward program computes from a kept log-sum-exp."""
        name = self.names.tensor(like.tensor)
        self.emit.define(name, like.indices, value, self.domains[like.tensor][1])
        self.cut.renamed[name] = like.tensor
        return name

    def may_vanish(self, divisor: Expr) -> bool:
        """A divisor that can be 0 together with its dividend: with a reduction in it, or at a singular point."""
        if not reads(divisor) & (self.reduced | self.singular):
            return False
        return sign_of(divisor, self.signs) is not Sign.POSITIVE

    def finite(self, factor: Expr) -> bool:
        """Constants, inputs, outputs, gradients, bounded functions: nothing that may be infinite."""
        match factor:
            case Read():
                return factor.tensor not in self.signs or factor.tensor in self.outputs
            case Call(fn, _) if fn in _BOUNDED:
                return True
            case Call(fn="log" | "log2" | "rsqrt") | Binary("/" | "**", _, _) | Reduce() | Solve():
                return False
            case Select():
                return self.finite(factor.then) and self.finite(factor.other)
            case _:
                return all(self.finite(c) for c in children(factor))


_BOUNDED = frozenset({"sigmoid", "tanh", "sign", "erf", "sin", "cos"})


def _content(parts: list[Monomial], everything: bool) -> Monomial:
    """What all parts share: divisors and the sign of the leading part, or any factor."""
    shared: list[tuple[Expr, Fraction]] = []
    for base, p in parts[0].powers:
        powers = [m.power(base) for m in parts]
        if all(q < 0 for q in powers):
            shared.append((base, max(powers)))
        elif everything and all(q > 0 for q in powers) and not _sums(parts[0]):
            shared.append((base, min(powers)))
        elif everything and len(parts) == 1 and not _has_sum(base):
            shared.append((base, p))
    leading = max(parts, key=lambda m: (_sums(m), len(_free(m))))
    coeff = leading.coeff if len(parts) == 1 else Fraction(-1 if leading.coeff < 0 else 1)
    return Monomial.of(coeff, shared)


def _has_sum(e: Expr) -> bool:
    return any(isinstance(n, Reduce) for n in walk(e))


def _sums(m: Monomial) -> bool:
    return any(_has_sum(b) for b, _ in m.powers)


def _free(m: Monomial) -> frozenset[str]:
    return frozenset(i for b, _ in m.powers for i in free(b))


def _costly(m: Monomial, summed: frozenset[str]) -> bool:
    """More than one tensor to read at every point of a sum; what is the same for all of a sum stays before it."""
    found = [n for b, p in m.powers if p > 0 for n in walk(b) if isinstance(n, Read)]
    return sum(not summed or bool(free(n) & summed) for n in found) > 1


def _summed(d: Define, leaf: Leaf) -> frozenset[str]:
    """The indices over which the gradient is summed on its way to what was read."""
    assert isinstance(leaf.read, Read)
    kept = {s.name for s in leaf.read.subs if isinstance(s, Index)}
    return frozenset(d.indices + leaf.indices) - kept


def _with_reduction(cascade: Cascade) -> frozenset[str]:
    """Body tensors whose value depends on a reduction."""
    out: frozenset[str] = frozenset()
    for d in cascade.body:
        if (reads(d.expr) & out) or any(isinstance(n, Reduce) for n in walk(d.expr)):
            out |= {d.tensor}
    return out
