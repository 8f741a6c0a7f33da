"""What a user sees where no schedule is legal."""

from __future__ import annotations

from attndsl.cascade.nodes import Cascade
from attndsl.diagnostics import Diagnostic
from attndsl.schedule.builder import Refused
from attndsl.source import Span


def diagnose(cascade: Cascade, refused: Refused) -> Diagnostic:
    """The refusal with its place; the whole program where the schedule knows none."""
    span = refused.span if isinstance(refused.span, Span) else None
    return Diagnostic(
        "A0401",
        f"no schedule for `{cascade.name}`",
        span=span,
        label=refused.why,
        help="`op.reference(...)` runs it densely",
    )
