"""Why a sum does not run along with what its terms depend on: the fact that costs a sweep, for `explain`."""

from __future__ import annotations

from collections.abc import Collection

from attndsl.analysis.separability import Inseparable, separate
from attndsl.cascade.nodes import Define, Expr, Position, Read, Reduce
from attndsl.cascade.printer import print_part
from attndsl.cascade.signs import signs
from attndsl.cascade.walk import free, rewrite, substitute, walk
from attndsl.schedule.forms import inline, is_large
from attndsl.schedule.kernel import Kernel


def why_apart(kernel: Kernel, d: Define, pivot: Read, others: Collection[str] = ()) -> str:
    """One sentence, in the program's own tensors; `others` are running values that have no correction either.

    `t` must be known before `relu(S[i,j] - t[i])`, which is not separable in `t`
    `mean` must be known before `O.1`: its terms separate into 2 sums, which may cancel
    """
    assert isinstance(d.expr, Reduce)
    over = frozenset(kernel.ranks.of.get(i, i) for i in d.expr.indices)
    to = {i: Position(kernel.ranks.of.get(i, i)) for i in d.expr.indices}
    body = opened(kernel, substitute(d.expr.body, to), over)
    begin = f"`{pivot.tensor}` must be known before"
    for n in walk(body):
        if isinstance(n, Read) and n.tensor == pivot.tensor and free(n) & over:
            return f"{begin} `{d.tensor}`, which reads `{print_part(n, kernel.cascade)}`"
    for names in ([pivot.tensor], list(dict.fromkeys([pivot.tensor, *others]))):
        late = frozenset(n for n in walk(body) if isinstance(n, Read) and n.tensor in names)
        found = separate(body, late, over, signs(kernel.cascade))
        if isinstance(found, Inseparable):
            part = print_part(found.part, kernel.cascade)
            values = " and ".join(f"`{x}`" for x in names)
            return f"{begin} `{part}`, which is not separable in {values}"
        if found.rank > 1:
            return (
                f"{begin} `{d.tensor}`: its terms separate into {found.rank} sums, which may cancel"
            )
    return f"{begin} `{d.tensor}`: no correction of its terms stays in range"


def opened(kernel: Kernel, e: Expr, over: frozenset[str]) -> Expr:
    """With what is made of running values along the stream written out; scores and data stay names."""

    def rule(n: Expr) -> Expr | None:
        if not isinstance(n, Read) or n.tensor not in kernel.reduces:
            return None
        d = kernel.defs[n.tensor]
        moves = any(free(s) & over for s in n.subs)
        if not moves or d.init is not None or is_large(d.expr, kernel.ranks):
            return None
        return opened(kernel, inline(d, n.subs), over)

    return rewrite(e, rule)
