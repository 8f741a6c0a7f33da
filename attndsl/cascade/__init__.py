"""The cascade: a program as Einsums with every sum written out, and what can be made of it.

nodes, walk, types, verify            the IR, rewriting it, kinds of values, its invariants
printer, interpreter, dense           as text; its meaning in float64
conditions, domains, definedness      where tensors are defined
alignments, starts                    which positions stand on one axis, and where the first query stands
bind, shapes, integers                extents and parameters of a call
rewritten                             the form that gradients and schedules start from, by
    unroll, gates, sums                 recurrences that only scale their past, as sums over it
    telescope, joined, blocks           running forms and blocks, as one sweep's sums
    between, distances                  differences of running sums; products in place of loops over features
    guarded                             partial functions, kept to arguments of their domain
squares, ordered                      features of a score's polynomial; values that only rise or fall
names                                 fresh names, and the declarations that a derived cascade needs
autodiff                              the gradient, a cascade too:
    derivatives, terms, monomials       local derivatives, and sums of their products
    invariance, hoist, fold, swap       what a gradient need not compute
    steady, signs, logs, means          what it must not compute as it stands
    residuals, emit                     what the forward pass keeps, and how the backward pass is written
"""
