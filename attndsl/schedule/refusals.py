"""What a user sees where no schedule is legal: the code, the place, the reason, what would make it legal."""

from __future__ import annotations

import re

from attndsl.cascade.nodes import Cascade
from attndsl.cascade.unroll import reason
from attndsl.diagnostics import Diagnostic
from attndsl.errors import CODES
from attndsl.schedule.outcomes import Refused
from attndsl.source import Span

WAYS_OUT = {
    "A0401": "make each entry of the state of the same entry before it, and of sums of the past over one feature",
    "A0402": "write the equation with one sum of the unknown, or use a normalizer in closed form, such as `softmax`",
    "A0403": "read the table at two positions at a time, or take no gradient of it (`--no-backward`)",
    "A0404": "give the sum a definition over one sequence, or make it a difference of two running sums; "
    "declare indices that stay apart, such as heads, as `batch`",
    "A0405": "split the program in two, the second with the first's outputs as inputs",
    "A0406": "keep at most two sequences in what is an output, and one in what is not",
    "A0407": "give the sum a definition of its own",
    "A0408": "flatten the features into one, or take no gradient of the table (`--no-backward`)",
}


def diagnose(
    cascade: Cascade, refused: Refused, differentiated: Cascade | None = None
) -> Diagnostic:
    """The refusal at its place in the program; where the schedule names none, at the last definition.

    `differentiated` is what a gradient was asked of: it may have kernels without one.
    """
    notes: tuple[str, ...] = ("`op.reference(...)` evaluates it densely",)
    if differentiated is not None and _has_kernels(differentiated):
        notes += ("without gradients it has kernels: `--no-backward`, or no `requires_grad`",)
    span = refused.span
    if not isinstance(span, Span):
        span = next((d.span for d in reversed(cascade.body) if d.span is not None), None)
    return Diagnostic(
        refused.code,
        f"no schedule for `{cascade.name}`: {CODES[refused.code].title}",
        span=span,
        label=_in_the_users_words(cascade, _reason(cascade, refused)),
        help=WAYS_OUT[refused.code],
        notes=notes,
    )


def _has_kernels(cascade: Cascade) -> bool:
    from attndsl.schedule import schedule

    try:
        schedule(cascade, None)
    except Refused:
        return False
    return True


def _reason(cascade: Cascade, refused: Refused) -> str:
    """For a recurrence, why it is no sum over its past."""
    found = re.fullmatch(r"`(\w+)` is a recurrence", refused.why)
    if found and found[1] in cascade.defined and cascade.define(found[1]).init is not None:
        return reason(cascade, found[1])
    return refused.why


def _in_the_users_words(cascade: Cascade, why: str) -> str:
    """Names as they were written: `j_1`, the index of a sum over `j`, is `j`; `A.1`, a part of `A`, is `A`."""
    written = {r.name: r.iterates for r in cascade.ranks if r.iterates is not None}

    def name(found: re.Match[str]) -> str:
        x = found[1]
        while x in written and re.search(r"_\d+$", x):
            x = written[x]
        return f"`{x.partition('.')[0]}`"

    return re.sub(r"`([\w.]+)`", name, why)
