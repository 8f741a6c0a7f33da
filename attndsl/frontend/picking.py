"""One attention of a file."""

from __future__ import annotations

from attndsl.cascade.nodes import Cascade
from attndsl.diagnostics import Diagnostic, DiagnosticError, did_you_mean
from attndsl.source import Source


def pick(cascades: tuple[Cascade, ...], name: str | None, source: Source) -> Cascade:
    """The attention called `name`, or the only one.

    Raises: DiagnosticError (A0266) if there is no such one, or several and no name.
    """
    names = [c.name for c in cascades]
    listed = ", ".join(f"`{n}`" for n in names)
    if name is None:
        if len(cascades) == 1:
            return cascades[0]
        title = (
            "no attention in this program" if not names else "several attentions in this program"
        )
        help = (
            f"give its name, one of {listed}" if names else "write `attention NAME(…) -> … { … }`"
        )
        raise DiagnosticError(Diagnostic("A0266", f"{source.name}: {title}", help=help))
    if name not in names:
        help = did_you_mean(name, names) or f"there are {listed}"
        raise DiagnosticError(
            Diagnostic("A0266", f"{source.name}: there is no attention `{name}`", help=help)
        )
    return cascades[names.index(name)]
