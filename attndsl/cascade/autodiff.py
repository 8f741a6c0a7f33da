"""Reverse-mode differentiation of cascades: the gradient of a cascade is a cascade.

    g = differentiate(load("alibi.attn"))
    g.backward        # inputs Q, K, V, slope, O, L and the cotangents dO, dLSE; outputs dQ, dK, dV, dslope

It runs through the definitions from the last to the first. Each tensor's gradient is a sum of terms, one for every
place at which it was read; a term is a product summed over indices (`attndsl.cascade.terms`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from attndsl.cascade.definedness import Conditions, at, conjunction, defined, domains, unique
from attndsl.cascade.derivatives import differentiable, leaves, singular
from attndsl.cascade.fold import Folding
from attndsl.cascade.hoist import hoist
from attndsl.cascade.invariance import unseen
from attndsl.cascade.monomials import Monomial, monomial
from attndsl.cascade.nodes import (
    Binary,
    Cascade,
    Define,
    DType,
    Expr,
    Index,
    Output,
    Read,
    Reduce,
    Reduction,
    TensorDecl,
    Unary,
)
from attndsl.cascade.names import Names, needed_inputs, params_of, ranks_of
from attndsl.cascade.residuals import is_kept, sequences
from attndsl.cascade.signs import Sign, sign_of, signs
from attndsl.cascade.swap import Contractions, swapped
from attndsl.cascade.terms import Term, Writer, gather
from attndsl.cascade.types import Types
from attndsl.cascade.walk import free, reads, rename, rewrite, walk


@dataclass(frozen=True, slots=True)
class Gradient:
    """A forward program that keeps what its backward program needs, and that backward program."""

    forward: Cascade
    backward: Cascade
    residuals: tuple[str, ...]
    """Forward tensors that `backward` takes as inputs."""
    cotangents: dict[str, str]
    """By output: the input of `backward` that holds its gradient."""
    gradients: dict[str, str]
    """By input: the output of `backward` that is its gradient."""


def differentiate(cascade: Cascade, wrt: Sequence[str] | None = None) -> Gradient:
    """The gradients of all outputs with respect to the float inputs `wrt` (all of them by default).

        g = differentiate(cascade)
        saved = interpret(g.forward, inputs)
        grads = interpret(g.backward, {**inputs, **saved, "dO": …})

    Raises `DiagnosticError` for programs whose gradient is not derived.
    """
    return _Backward(cascade, wrt).run()


class _Backward:
    def __init__(self, cascade: Cascade, wrt: Sequence[str] | None) -> None:
        self.original = cascade
        self.names = Names(cascade)
        self.wrt = tuple(
            wrt if wrt is not None else (t.name for t in cascade.inputs if t.dtype is DType.FLOAT)
        )
        self.active: frozenset[str] = frozenset(self.wrt)
        self.active = self._reach(cascade, frozenset())
        self.forward, self.inlined = hoist(cascade, self._constant, self._part)
        self.types = Types(self.forward)
        hidden = unseen(self.forward)
        self.active = self._reach(self.forward, hidden)
        self.domains = domains(self.forward)
        self.sequence = sequences(self.forward)
        self.summed = _with_reduction(self.forward)
        self.logs: set[str] = set()
        self.signs = signs(self.forward)
        self.singular = frozenset(n for d in self.forward.body for n in singular(d.expr))
        self.writer = Writer(self.may_vanish, self.finite)
        self.plain = {
            d.tensor for d in self.forward.body if d.tensor in {o.name for o in cascade.outputs}
        }
        self.indices = {t.name: t.ranks for t in cascade.inputs}
        self.indices |= {d.tensor: d.indices for d in self.forward.body}
        self.terms: dict[str, list[Term]] = {n: [] for n in self.indices}
        self.made: list[Define] = []
        self.values: dict[Expr, str] = {}
        self.renamed: dict[str, str] = {}
        self.seen = {i for d in self.forward.body for i in d.indices}
        self.contractions = Contractions(self.forward, self.domains)
        self.folding = Folding(
            self.forward, hidden, self.keep, self.repeat, self.contractions.expand
        )
        self.gradients: dict[str, list[Term]] = {}
        self.own = {
            d.tensor: self.domains[d.tensor] for d in self.forward.body if not self.is_kept(d)
        }

    def _reach(self, cascade: Cascade, hidden: frozenset[str]) -> frozenset[str]:
        """The tensors through which a gradient flows to the inputs asked for."""
        active = frozenset(self.wrt)
        for d in cascade.body:
            seen = {r.tensor for r in differentiable(d.expr) if isinstance(r, Read)}
            if d.tensor not in hidden and (seen & active):
                active |= {d.tensor}
        return active

    def _constant(self, e: Expr) -> bool:
        return not any(isinstance(r, Read) and r.tensor in self.active for r in differentiable(e))

    def _part(self, tensor: str) -> str:
        return self.names.tensor(f"{tensor}_part")

    def may_vanish(self, divisor: Expr) -> bool:
        """A divisor that can be 0 together with its dividend: one that contains a reduction, or a singular point."""
        if not reads(divisor) & (self.summed | self.singular):
            return False
        return sign_of(divisor, self.signs) is not Sign.POSITIVE

    def finite(self, factor: Expr) -> bool:
        """Constants, inputs, gradients: anything but a tensor that may be infinite, or a function of one."""
        if isinstance(factor, Read):
            return factor.tensor not in self.forward.defined or factor.tensor in self.plain
        return not reads(factor)

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
            if d.tensor in self.active and self.terms[d.tensor]:
                self.step(d)
        for name, out in gradients.items():
            parts = [self.write(self.folded(t, "G"), ()) for t in self.simplified(self.terms[name])]
            self.define(out, self.indices[name], self.writer.total(parts), ())
        return self.package(cotangents, gradients, decls)

    def step(self, d: Define) -> None:
        """From the gradient of one tensor to those of what it reads."""
        found = leaves(d, self.active, self.domains, self.names.index)
        if not found:
            return
        g = self.adjoint(d, len(found) > 1 or any(leaf.indices for leaf in found))
        here = self.domains[d.tensor][1]
        for leaf in found:
            assert isinstance(leaf.read, Read)
            factor = (g * leaf.factor).map(self.named_reductions)
            term = Term(factor, (), unique((*here, *leaf.where)))
            scope = d.indices + leaf.indices
            target = self.indices[leaf.read.tensor]
            moved = gather(target, leaf.read.subs, scope, term, self.names.index)
            self.terms[leaf.read.tensor].append(moved)

    def named_reductions(self, e: Expr) -> Expr:
        """A factor that contains a reduction is a tensor of its own."""
        for n in walk(e):
            if isinstance(n, Reduce):
                stem = "slope" if isinstance(n.body, Binary | Unary) else "ties"
                return self.named_reductions(_replace(e, n, self.shared(n, stem, ())))
        return e

    def shared(self, e: Reduce, stem: str, domain: Conditions) -> Read:
        """The tensor of this value, made once."""
        indices = self.ordered(free(e))
        key = canonical(e)
        if key not in self.values:
            name = self.names.tensor(stem)
            self.define(name, indices, e, domain)
            self.summed |= {name}
            self.values[key] = name
        return Read(self.values[key], tuple(Index(i) for i in indices))

    def ordered(self, names: frozenset[str]) -> tuple[str, ...]:
        """Indices in the order of the program's ranks: batch first."""
        order = [*self.original.batch, *self.names.ranks]
        return tuple(sorted(names, key=order.index))

    # --- the gradient of one tensor ---

    def adjoint(self, d: Define, shared: bool) -> Monomial:
        """The gradient of a tensor as a product; sums get a name, and so does what is used twice."""
        domain = self.domains[d.tensor][1]
        terms = self.simplified(self.terms[d.tensor])
        parts = [self.write(self.folded(t, f"d{d.tensor}"), domain) for t in terms]
        if len(parts) == 1 and not (shared and self.costly(parts[0])):
            content, core = self.outside(parts[0])
            if not any(isinstance(n, Reduce) for b, _ in core.powers for n in walk(b)):
                return parts[0]
            parts = [core]
        elif shared and sum(i in self.sequence for i in d.indices) > 1:
            content = Monomial()
        else:
            content = self.common(parts)
            parts = [p / content for p in parts]
        sums = [p for p in parts if _sums(p)]
        if not shared and sums:
            inner = self.named(d, sums, domain)
            self.remember(inner, [t for t in terms if t.indices], content)
            rest = [p for p in parts if not _sums(p)]
            return content * monomial(self.writer.total([monomial(inner), *rest]))
        if not shared:
            return content * monomial(self.writer.total(parts))
        row = any(p < 0 for _, p in content.powers)
        out = self.named(d, parts, domain, "D" if row else "")
        self.remember(out, terms, content)
        return content * monomial(out)

    def remember(self, gradient: Read, terms: list[Term], content: Monomial) -> None:
        """What a named gradient is the sum of, for the sum swap."""
        inverse = content.inverse()
        self.gradients[gradient.tensor] = [t.times(inverse) for t in terms]

    def folded(self, t: Term, stem: str) -> Term:
        return self.contracted(Term(self.folding.fold(t.factor), t.indices, t.where), stem)

    def contracted(self, t: Term, stem: str) -> Term:
        """A sum over features inside becomes a tensor of its own: `dP[i,j] = sum[f](V[j,f] * dO[i,f])`.

        Only where it is over a pair of sequences, which is a matrix product; it is made once for all its uses.
        """
        held = frozenset(i for c in t.where for i in free(c))
        inner = frozenset(
            i
            for i in t.indices
            if i not in held and self.names.root(i) not in (*self.sequence, *self.original.batch)
        )
        chosen = [(b, p) for b, p in t.factor.powers if free(b) & inner]
        if not chosen:
            return t
        around = frozenset(i for b, _ in chosen for i in free(b)) - inner
        if sum(self.names.root(i) in self.sequence for i in around) < 2:
            return t
        rest = Monomial.of(t.factor.coeff, [x for x in t.factor.powers if x not in chosen])
        order = tuple(i for i in t.indices if i in inner)
        whole = Term(Monomial.of(Fraction(1), chosen), order)
        weights = [b.tensor for b, p in rest.powers if isinstance(b, Read) and self.is_pair(b)]
        g = self.pair(
            whole, around, f"d{self.renamed.get(weights[0], weights[0])}" if weights else stem
        )
        return Term(rest * monomial(g), tuple(i for i in t.indices if i not in inner), t.where)

    def is_pair(self, e: Read) -> bool:
        return (
            sum(isinstance(s, Index) and self.names.root(s.name) in self.sequence for s in e.subs)
            > 1
        )

    def pair(self, t: Term, around: frozenset[str], stem: str) -> Read:
        """The tensor of a sum over features, with the program's own names for its indices."""
        names: dict[str, str] = {}
        for i in self.ordered(around):
            root = self.names.root(i)
            names[i] = i if root in names.values() or root in t.indices else root
        own = t.rename(names)
        value = Reduce(Reduction.SUM, own.indices, self.writer.product(own.factor))
        made = self.shared(value, stem, ())
        self.gradients[made.tensor] = [own]
        back = {own: i for i, own in names.items()}
        return dataclasses.replace(made, subs=tuple(rename(s, back) for s in made.subs))

    def named(self, d: Define, parts: list[Monomial], domain: Conditions, stem: str = "") -> Read:
        name = self.names.tensor(stem or f"d{d.tensor}")
        self.define(name, d.indices, self.writer.total(parts), domain)
        return Read(name, tuple(Index(i) for i in d.indices))

    def costly(self, m: Monomial) -> bool:
        return sum(isinstance(n, Read) for b, p in m.powers if p > 0 for n in walk(b)) > 1

    def outside(self, m: Monomial) -> tuple[Monomial, Monomial]:
        """A product with one sum in it: the factors before the sum, and the sum."""
        inner = [(b, p) for b, p in m.powers if any(isinstance(n, Reduce) for n in walk(b))]
        outer = [(b, p) for b, p in m.powers if (b, p) not in inner]
        return Monomial.of(m.coeff, outer), Monomial.of(Fraction(1), inner)

    def common(self, parts: list[Monomial]) -> Monomial:
        """Divisors that all parts share, and the sign of the first."""
        shared = [
            (b, max(m.power(b) for m in parts))
            for b, p in parts[0].powers
            if p < 0 and all(m.power(b) < 0 for m in parts)
        ]
        first = max(parts, key=lambda m: bool(_sums(m)))
        return Monomial.of(Fraction(-1 if first.coeff < 0 else 1), shared)

    def simplified(self, terms: Iterable[Term]) -> list[Term]:
        """Equal products collected, zeros dropped."""
        total: dict[tuple[object, ...], Term] = {}
        short = [s for t in terms for s in swapped(t, self.contractions, self.expansions)]
        for t in short:
            key = (t.factor.powers, t.indices, frozenset(t.where))
            coeff = t.factor.coeff + (total[key].factor.coeff if key in total else 0)
            total[key] = Term(Monomial(coeff, t.factor.powers), t.indices, t.where)
        return [t for t in total.values() if t.factor.coeff != 0]

    def expansions(self, t: Term) -> Iterator[list[Term]]:
        """The term with one gradient in it written out as the sums that it is."""
        for base, power in t.factor.powers:
            if power != 1 or not isinstance(base, Read) or base.tensor not in self.gradients:
                continue
            rest = Monomial.of(t.factor.coeff, [x for x in t.factor.powers if x[0] != base])
            parts: list[Term] = []
            for g in self.gradients[base.tensor]:
                own = self.own[base.tensor][0]
                fresh = {i: self.names.index(i) for i in g.indices}
                g = g.rename(fresh)
                factor = g.factor.map(lambda b, own=own, base=base: at(b, own, base.subs))
                where = tuple(at(c, own, base.subs) for c in g.where)
                parts.append(Term(rest * factor, t.indices + g.indices, unique((*t.where, *where))))
            yield parts

    # --- what folding makes ---

    def keep(self, stem: str, indices: tuple[str, ...], value: Expr) -> str:
        """A log-sum-exp that the forward program has to return."""
        name = self.names.tensor(stem)
        d = Define(name, indices, value)
        self.forward = dataclasses.replace(self.forward, body=(*self.forward.body, d))
        self.indices[name] = indices
        self.types.tensors[name] = DType.FLOAT
        self.logs.add(name)
        return name

    def repeat(self, like: Define, value: Expr) -> str:
        """Weights that the backward program computes from kept log-sum-exps."""
        name = self.names.tensor(like.tensor)
        self.define(name, like.indices, value, self.domains[like.tensor][1])
        self.renamed[name] = like.tensor
        return name

    # --- writing ---

    def write(self, t: Term, ambient: Conditions) -> Monomial:
        """A term at points where `ambient` holds, without the conditions that follow from it."""
        body = self.writer.product(t.factor)
        implied = (
            frozenset((*ambient, *defined(body, self.own))) if t.indices else frozenset(ambient)
        )
        where = tuple(c for c in t.where if c not in implied)
        return self.writer.term(Term(t.factor, t.indices, where))

    def define(self, tensor: str, indices: tuple[str, ...], expr: Expr, domain: Conditions) -> None:
        implied = defined(expr, self.own)
        where = tuple(c for c in domain if c not in implied)
        self.own[tensor] = (indices, unique((*domain, *implied)))
        self.made.append(Define(tensor, indices, expr, conjunction(where)))

    # --- what is kept, what is computed again ---

    def package(
        self, cotangents: dict[str, str], gradients: dict[str, str], decls: list[TensorDecl]
    ) -> Gradient:
        kept, again = self.cut()
        forward = self.with_outputs(kept)
        order = {o.name: o.indices for o in forward.outputs}
        body = self.legible((*again, *self.made))
        body = tuple(self.apart(d) for d in body)
        saved = [
            TensorDecl(n, tuple(Index(i) for i in order[n]), order[n], self.types.tensors[n])
            for n in kept
        ]
        outputs = tuple(Output(o, self.indices[n]) for n, o in gradients.items())
        inputs = needed_inputs(self.original, body, outputs, self.names, [*saved, *decls])
        ranks = ranks_of(inputs, body, outputs, self.names)
        backward = Cascade(
            name=f"{self.original.name}_backward",
            inputs=inputs,
            params=params_of(self.original, inputs, body, ranks),
            outputs=outputs,
            batch=self.original.batch,
            ranks=ranks,
            body=body,
        )
        return Gradient(forward, backward, tuple(kept), cotangents, gradients)

    def legible(self, body: Sequence[Define]) -> tuple[Define, ...]:
        """Weights take the name of the tensor they stand for, where that is not computed as well."""
        taken = {d.tensor for d in body} | {n for d in body for n in reads(d.expr)}
        names = {new: old for new, old in self.renamed.items() if old not in taken}

        def rule(n: Expr) -> Expr | None:
            if isinstance(n, Read) and n.tensor in names:
                return dataclasses.replace(n, tensor=names[n.tensor])
            return None

        return tuple(
            dataclasses.replace(d, tensor=names.get(d.tensor, d.tensor), expr=rewrite(d.expr, rule))
            for d in body
        )

    def apart(self, d: Define) -> Define:
        """Every reduction gets indices that occur nowhere else."""

        def rule(n: Expr) -> Expr | None:
            if not isinstance(n, Reduce):
                return None
            names = {i: self.names.index(i) for i in n.indices if i in self.seen}
            self.seen |= {names.get(i, i) for i in n.indices}
            return rename(n, names) if names else None

        self.seen |= set(d.indices)
        return dataclasses.replace(d, expr=rewrite(d.expr, rule))

    def cut(self) -> tuple[list[str], list[Define]]:
        """Forward tensors that backward takes as inputs, and definitions that it repeats."""
        wanted = {
            n for d in self.made for e in (d.expr, d.where) if e is not None for n in reads(e)
        }
        kept: list[str] = []
        again: list[Define] = []
        for d in reversed(self.forward.body):
            if d.tensor not in wanted:
                continue
            if self.is_kept(d):
                kept.append(d.tensor)
                continue
            again.append(d)
            wanted |= _used(d)
        return kept[::-1], again[::-1]

    def is_kept(self, d: Define) -> bool:
        """Results over a sequence, and what is there anyway."""
        if is_kept(d, self.sequence) or d.tensor in self.logs:
            return True
        outputs = {o.name for o in self.original.outputs}
        return d.tensor in outputs and sum(i in self.sequence for i in d.indices) < 2

    def with_outputs(self, kept: list[str]) -> Cascade:
        have = {o.name for o in self.original.outputs}
        extra = tuple(Output(n, self.indices[n]) for n in kept if n not in have)
        return dataclasses.replace(self.forward, outputs=self.original.outputs + extra)


def _used(d: Define) -> frozenset[str]:
    parts = (d.expr, d.where, d.init)
    return frozenset(n for e in parts if e is not None for n in reads(e))


def canonical(e: Expr) -> Expr:
    """With bound indices named by their place, so that equal sums are equal."""
    bound: dict[str, str] = {}
    for n in walk(e):
        if isinstance(n, Reduce):
            for i in n.indices:
                bound.setdefault(i, f"#{len(bound)}")
    return rename(e, bound)


def _sums(m: Monomial) -> bool:
    return any(isinstance(n, Reduce) for b, _ in m.powers for n in walk(b))


def _replace(e: Expr, old: Expr, new: Expr) -> Expr:
    return rewrite(e, lambda n: new if n == old else None)


def _with_reduction(cascade: Cascade) -> frozenset[str]:
    """Body tensors whose value depends on a reduction."""
    out: frozenset[str] = frozenset()
    for d in cascade.body:
        if (reads(d.expr) & out) or any(isinstance(n, Reduce) for n in walk(d.expr)):
            out |= {d.tensor}
    return out
