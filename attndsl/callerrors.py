"""Errors of a call: what came does not fit what the program declares.

A `CallError` names the variant, the declared pattern, what came, and the cause, in this order. It is a `TypeError` and
a `ValueError` at once, so that callers may catch either.
"""

from __future__ import annotations


class CallError(TypeError, ValueError):
    """A call that does not fit its program.

    | code  | what went wrong                                              |
    |-------|--------------------------------------------------------------|
    | A0501 | a tensor is missing, unknown, or not what is declared        |
    | A0502 | a tensor has the wrong number of axes                        |
    | A0503 | extents disagree                                             |
    | A0504 | a parameter is missing, unknown, mistyped or contradicted    |
    | A0505 | two ranks of one axis differ and the call gives no `start`   |
    | A0506 | a subscript leaves its tensor                                |
    | A0507 | an `assume` does not hold                                    |
    | A0508 | an integer division by zero                                  |
    | A0509 | machine code cannot be made on this machine                  |
    | A0510 | no tile fits                                                 |
    | A0511 | the program has no partial results                           |
    | A0512 | partial results that do not belong together                  |
    | A0513 | the program keeps no state                                   |
    | A0514 | a root is not found within its rounds                        |
    | A0520 | there is no GPU to measure on                                |
    """

    def __init__(
        self, code: str, title: str, *, notes: tuple[str, ...] = (), help: str = ""
    ) -> None:
        self.code = code
        self.title = title
        self.notes = notes
        self.help = help
        lines = [f"error[{code}]: {title}", *(f"  {n}" for n in notes)]
        if help:
            lines.append(f"  = help: {help}")
        super().__init__("\n".join(lines))
